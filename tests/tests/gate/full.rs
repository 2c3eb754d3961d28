//! As many leases as there may be, in a ledger of many certificates.

use std::collections::BTreeSet;
use std::time::Instant;

use pgfw::ops::{LEASES, LEASES_PER_IDENTITY};
use pgfw_tests::lab::{Reach, Site};

use super::stage::Stage;

/// Beside those that hold leases.
const CERTIFICATES: usize = 10_000;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Writes what a gate that was busy for long has left: certificates of `holders`, each with as many leases as one may have,
/// short of `spare` in all.
fn fill(stage: &Stage<'_>, holders: usize, spare: usize) -> Vec<String> {
    let boot = std::fs::read_to_string(BOOT_ID).unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let end_boot = (uptime as i64 + 3_600) * 1_000_000_000;
    let mut addresses = Vec::new();
    stage.site.db.within(|| {
        let mut db = rusqlite::Connection::open("/var/lib/pgfw/ledger.db").unwrap();
        let db = db.transaction().unwrap();
        let pem: String = db
            .query_row("SELECT pem FROM certificates WHERE name = 'alice'", [], |r| r.get(0))
            .unwrap();
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        for n in 0..holders + CERTIFICATES {
            let name = format!("crowd{}", n % holders);
            db.prepare_cached(
                "INSERT INTO certificates (serial, authority, authority_generation, name, subject_dn, not_before, not_after, \
                 issued, requester, pem) VALUES (?1, 'client', 1, ?2, ?3, ?4, ?5, ?4, 'root', ?6)",
            )
            .unwrap()
            .execute(rusqlite::params![format!("{n:032x}"), name, format!("/CN={name}"), now, now + 86_400, pem])
            .unwrap();
        }
        for n in 0..LEASES - spare {
            let address = format!("100.64.{}.{}", n / 256, n % 256);
            let holder = n / LEASES_PER_IDENTITY;
            db.prepare_cached(
                "INSERT INTO leases (address, identity, serial, granted, end_wall, end_boot, end_boot_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .unwrap()
            .execute(rusqlite::params![
                address,
                format!("crowd{holder}"),
                format!("{holder:032x}"),
                now,
                now + 3_600,
                end_boot,
                boot.trim()
            ])
            .unwrap();
            addresses.push(address);
        }
        db.commit().unwrap();
    });
    addresses
}

#[test]
fn p36_all_leases_together_have_a_bound_and_those_that_are_there_stay() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let holders = LEASES / LEASES_PER_IDENTITY;
    let sections: String = (0..holders)
        .map(|n| format!("[[identity]]\nname = \"crowd{n}\"\nroaming = true\n"))
        .collect();
    stage.configure("", &sections);
    let alice = stage.issue("alice", &[]);
    let addresses = fill(&stage, holders, 1);
    let (_daemon, _gate) = stage.open();
    let lets_in = |address: &str| {
        let check = ["check", address, "--port", "5432", "--quiet"];
        stage.pgfw.pgfw(&check).success()
    };
    let sample: BTreeSet<&String> = addresses.iter().step_by(1_001).chain(addresses.last()).collect();
    assert!(sample.iter().all(|address| lets_in(address)));

    // The last one there is room for, and one more.
    let begun = Instant::now();
    stage.lease(&site.stranger, &alice);
    let took = begun.elapsed();
    eprintln!(
        "a lease beside {} others and {CERTIFICATES} certificates: {took:?}",
        addresses.len()
    );
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    let ask = |method: &str| stage.curl(&site.client, &alice, "/lease", &["--request", method]);
    let refused = ask("POST");
    assert_eq!((refused.status, &refused.body["code"]), (409, &"refused".into()));
    let why = refused.body["message"].as_str().unwrap();
    assert!(why.contains(&LEASES.to_string()), "{why}");
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    assert!(sample.iter().all(|address| lets_in(address)));
    // What is held goes on, and what is given back makes room.
    stage.lease(&site.stranger, &alice);
    let given = stage.curl(&site.stranger, &alice, "/lease", &["--request", "DELETE"]);
    assert_eq!(given.status, 200);
    assert_eq!(ask("POST").status, 200);
    assert_eq!(stage.reach(&site.client), Reach::Open);
    // A revocation closes what one held, and nobody else's.
    let begun = Instant::now();
    stage.pgfw.ok(&["cert", "revoke", "crowd0"]);
    eprintln!(
        "a revocation of {LEASES_PER_IDENTITY} leases: {:?}",
        begun.elapsed()
    );
    let (closed, open) = addresses.split_at(LEASES_PER_IDENTITY);
    assert!(!lets_in(&closed[0]) && !lets_in(&closed[LEASES_PER_IDENTITY - 1]));
    assert!(lets_in(&open[0]) && lets_in(&open[open.len() - 1]));
}
