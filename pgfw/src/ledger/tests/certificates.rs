//! Certificates, revocations, and work that waits.

use super::*;

#[test]
fn a_certificate_comes_back_and_its_serial_is_taken() {
    let (_folder, mut ledger) = ledger();
    let alice = certificate(0x4bcd, "alice");
    ledger.record_certificate(&alice).unwrap();
    ledger.record_certificate(&certificate(0x4bce, "alice")).unwrap();
    assert!(matches!(
        ledger.record_certificate(&alice),
        Err(LedgerError::SerialTaken { .. })
    ));
    assert_eq!(
        ledger.certificate_by_serial(&alice.serial).unwrap(),
        Some(alice.clone())
    );
    assert_eq!(ledger.certificate_by_serial("00").unwrap(), None);
    assert_eq!(ledger.certificates().unwrap().len(), 2);
    assert_eq!(alice.serial_decimal().unwrap(), "19405");
    for (seconds, valid) in [(-1, false), (0, true), (3599, true), (3600, false)] {
        assert_eq!(alice.valid_at(WallTime(T0.0 + seconds)), valid, "{seconds}");
    }
}

#[test]
fn a_revocation_stands_once_with_its_first_reason_and_without_a_certificate() {
    let (_folder, mut ledger) = ledger();
    ledger.record_certificate(&certificate(1, "alice")).unwrap();
    let first = revocation(1, RevocationReason::KeyCompromise);
    assert_eq!(
        ledger.record_revocations(std::slice::from_ref(&first)).unwrap(),
        1
    );
    let again = Revocation {
        revoked: WallTime(T0.0 + 5),
        reason: RevocationReason::Superseded,
        ..first.clone()
    };
    assert_eq!(
        ledger
            .record_revocations(&[again, revocation(2, RevocationReason::Superseded)])
            .unwrap(),
        1
    );
    assert_eq!(ledger.revocations().unwrap()[0], first);
    let alice = ledger.certificate_by_serial(&first.serial).unwrap().unwrap();
    assert_eq!(
        (alice.revoked, alice.revoke_reason),
        (Some(T0), Some(RevocationReason::KeyCompromise))
    );
    assert!(!alice.valid_at(WallTime(T0.0 + 1)));

    // A serial revoked by another issuer is another certificate's.
    ledger.record_certificate(&certificate(3, "bob")).unwrap();
    let other = Revocation {
        authority: Authority::Server,
        ..revocation(3, RevocationReason::KeyCompromise)
    };
    ledger.record_revocations(&[other]).unwrap();
    assert!(
        ledger
            .certificate_by_serial(&format!("{:032x}", 3))
            .unwrap()
            .unwrap()
            .valid_at(T0)
    );
}

#[test]
fn a_certificate_that_nobody_holds_yet_counts_as_revoked_until_its_issue_is_complete() {
    let (_folder, mut ledger) = ledger();
    let alice = certificate(1, "alice");
    let read = |ledger: &Ledger| ledger.certificate_by_serial(&alice.serial).unwrap().unwrap();
    ledger.begin_issue(&alice).unwrap();
    assert_eq!(read(&ledger).revoked, Some(alice.issued));
    assert!(!read(&ledger).valid_at(T0));
    assert!(matches!(
        ledger.begin_issue(&alice),
        Err(LedgerError::SerialTaken { .. })
    ));
    ledger.complete_issue(&alice).unwrap();
    assert_eq!(read(&ledger), alice);
    assert_eq!(ledger.revocations().unwrap(), []);

    // A taken serial revokes nobody, and completing lifts no other revocation.
    assert!(ledger.begin_issue(&alice).is_err());
    assert!(read(&ledger).valid_at(T0));
    ledger
        .record_revocations(&[revocation(1, RevocationReason::KeyCompromise)])
        .unwrap();
    ledger.complete_issue(&alice).unwrap();
    assert!(!read(&ledger).valid_at(T0));
}

#[test]
fn reasons_keep_the_numbers_of_rfc_5280() {
    for reason in RevocationReason::ALL {
        assert_eq!(RevocationReason::from_number(reason.number()), reason);
    }
    assert_eq!(RevocationReason::from_number(6), RevocationReason::Unspecified);
}

#[test]
fn work_that_failed_is_counted_until_it_is_done() {
    let (_folder, mut ledger) = ledger();
    ledger
        .note_work(WorkKind::PublishCrl, "/crl", "no space", T0)
        .unwrap();
    ledger
        .note_work(WorkKind::CloseFilter, "0a", "no map", T0)
        .unwrap();
    ledger
        .note_work(WorkKind::PublishCrl, "/crl", "still none", WallTime(T0.0 + 9))
        .unwrap();
    let work = ledger.pending_work().unwrap();
    assert_eq!(work.len(), 2);
    assert_eq!(
        (work[0].since, work[0].attempts, work[0].last_error.as_str()),
        (T0, 2, "still none")
    );
    ledger
        .finish_work(WorkKind::PublishCrl, &["/crl".to_owned()])
        .unwrap();
    assert_eq!(ledger.pending_work().unwrap().len(), 1);
}
