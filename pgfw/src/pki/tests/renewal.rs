//! When a certificate is due.

use super::*;

#[test]
fn p22_a_certificate_is_due_at_two_thirds_of_its_life_less_a_twentieth_by_lot() {
    let life = |serial: &str| Life {
        serial: serial.into(),
        not_before: T0,
        not_after: later(90 * DAY),
    };
    assert_eq!(
        life("40000000000000000000000000000000").renew_at(),
        later(60 * DAY)
    );
    let earliest = life("4000000000000000000000000000ffff").renew_at();
    assert_eq!(earliest, later(60 * DAY - 90 * DAY / 20));
    let middle = life("40000000000000000000000000007fff").renew_at();
    assert!(earliest < middle && middle < later(60 * DAY), "{middle:?}");
    assert_eq!(life("").renew_at(), later(60 * DAY));
    assert_eq!(life("").alarm_at(), later(75 * DAY));
}

#[test]
fn the_life_that_is_read_from_a_file_is_the_one_that_the_ledger_has() {
    let mut lab = Lab::new();
    let issued = lab.issue("alice");
    let pem = std::fs::read_to_string(&issued.certificate_file).unwrap();
    let read = Life::of_pem(&pem, &issued.certificate_file).unwrap();
    assert_eq!(read, Life::from(&issued.certificate));
    let damaged = Life::of_pem("nothing", &issued.certificate_file).unwrap_err();
    assert!(damaged.to_string().contains("alice.crt"), "{damaged}");
}
