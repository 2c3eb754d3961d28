use std::time::Duration;

use super::super::crl::Crl;
use super::*;
use crate::failure::Failure;
use crate::ledger::types::{Authority, Certificate, Revocation};

impl Lab {
    fn client_list(&self) -> PathBuf {
        self.published()
            .join(format!("{:08x}.r0", self.client_ca().name_hash))
    }
    fn client_ca(&self) -> AuthorityInfo {
        self.store.authorities(Authority::Client).unwrap().remove(0)
    }
    fn read_list(&self) -> Crl {
        Crl::read(&self.client_list(), &self.client_ca())
            .unwrap()
            .unwrap()
    }
    fn is_listed(&self, certificate: &Certificate) -> bool {
        self.read_list().revoked.contains_key(&certificate.serial)
    }
    fn lists_hold(&self, revocations: &[Revocation], now: WallTime) -> bool {
        lists_hold(&self.store, revocations, &self.targets, now).unwrap()
    }
    /// As after a restore from a backup of before anything was issued.
    fn lose_ledger(&mut self) {
        self.ledger = Ledger::open(&self.path("restored.db")).unwrap();
    }
}

#[test]
fn p33_a_list_begins_an_hour_back_and_holds_for_its_time() {
    let mut lab = Lab::new();
    let first = lab.read_list();
    assert_eq!(
        (first.this_update, first.next_update),
        (later(-3600), later(365 * DAY))
    );
    let alice = lab.issue("alice").certificate;
    let outcome = lab.revoke("alice", later(60)).unwrap();
    assert_eq!(outcome.publication.failures, []);
    assert!(outcome.recorded);
    let list = lab.read_list();
    assert_eq!(list.this_update, later(60 - 3600));
    assert_eq!(
        list.revoked[&alice.serial],
        (later(60), RevocationReason::KeyCompromise)
    );
    assert!(list.number > first.number);
    let says = openssl_says(&["crl", "-text", "-noout", "-in", text(&lab.client_list())]);
    assert!(
        says.to_lowercase().contains(&alice.serial) && says.contains("Key Compromise"),
        "{says}"
    );
    assert!(
        says.contains("X509v3 CRL Number") && says.contains("X509v3 Authority Key Identifier"),
        "{says}"
    );
}

#[test]
fn a_name_means_all_of_its_client_certificates_and_a_serial_one() {
    let mut lab = Lab::new();
    let [one, two] = [lab.issue("alice"), lab.issue("alice")].map(|i| i.certificate);
    let bob = lab.issue("bob").certificate;
    let server = lab
        .issue_server(&[crate::config::ServerName::Dns("alice".into())])
        .unwrap()
        .certificate;
    let short = ClientRequest {
        ttl: Duration::from_secs(10),
        ..client("alice")
    };
    let ended = lab.issue_as(short, T0).unwrap().certificate;

    // As a person copies it from openssl.
    let copied: Vec<String> = one
        .serial
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|c| String::from_utf8_lossy(c).into())
        .collect();
    let outcome = lab.revoke(&copied.join(":"), later(20)).unwrap();
    assert_eq!(outcome.selection.certificates, std::slice::from_ref(&one));
    assert!(lab.is_listed(&one) && !lab.is_listed(&two));

    let outcome = lab.revoke("alice", later(30)).unwrap();
    assert_eq!(outcome.selection.certificates, std::slice::from_ref(&two));
    assert_eq!(outcome.selection.already.len(), 1);
    assert!(lab.is_listed(&two));
    for spared in [&bob, &server, &ended] {
        assert!(!lab.is_listed(spared), "{}", spared.name);
        assert_eq!(
            lab.ledger
                .certificate_by_serial(&spared.serial)
                .unwrap()
                .unwrap()
                .revoked,
            None
        );
    }

    let outcome = lab.revoke(&server.serial, later(30)).unwrap();
    assert_eq!(outcome.selection.revocations[0].authority, Authority::Server);
    assert!(
        !lab.is_listed(&server),
        "it stands in the list of its own authority"
    );
}

#[test]
fn revoking_again_changes_nothing_and_says_so() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    lab.revoke("alice", later(60)).unwrap();
    let again = lab.revoke("alice", later(90)).unwrap();
    assert_eq!(
        (again.selection.certificates.len(), again.selection.already.len()),
        (0, 1)
    );
    assert_eq!(lab.read_list().revoked[&alice.serial].0, later(60));
    // And repairs what somebody deleted meanwhile.
    std::fs::remove_file(lab.client_list()).unwrap();
    lab.revoke("alice", later(120)).unwrap();
    assert_eq!(lab.read_list().revoked[&alice.serial].0, later(60));
}

#[test]
fn an_unknown_target_is_named_with_its_near_miss() {
    let mut lab = Lab::new();
    lab.issue("alice");
    let failure = Failure::from(lab.revoke("alise", T0).unwrap_err());
    assert_eq!(failure.remedy, "Did you mean `alice`?");
    let failure = Failure::from(lab.revoke("zzz", T0).unwrap_err());
    assert!(failure.message.contains("`zzz`"), "{failure}");
}

#[test]
fn p33_a_lost_ledger_revives_nobody_and_learns_from_the_lists() {
    let mut lab = Lab::new();
    let [alice, bob] = [lab.issue("alice"), lab.issue("bob")].map(|i| i.certificate);
    lab.revoke("alice", later(60)).unwrap();
    let numbered = lab.read_list().number;
    lab.lose_ledger();

    // The next publication of any kind keeps her.
    let outcome = lab.revoke(&bob.serial, later(61)).unwrap();
    assert_eq!(
        outcome.selection.revocations.len(),
        1,
        "a serial that the ledger does not know"
    );
    assert!(lab.is_listed(&alice) && lab.is_listed(&bob));
    assert!(lab.read_list().number > numbered);

    // The restored ledger knows her certificate as valid until the lists are read.
    lab.ledger
        .record_certificate(&Certificate {
            revoked: None,
            revoke_reason: None,
            ..alice.clone()
        })
        .unwrap();
    assert!(
        lab.ledger
            .certificate_by_serial(&alice.serial)
            .unwrap()
            .unwrap()
            .valid_at(later(61))
    );
    lab.refresh(later(62));
    let relearned = lab.ledger.certificate_by_serial(&alice.serial).unwrap().unwrap();
    assert_eq!(relearned.revoked, Some(later(60)));
    assert_eq!(relearned.revoke_reason, Some(RevocationReason::KeyCompromise));
}

#[test]
fn p33_any_one_surviving_copy_is_enough() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    let own = lab.path("pki/client-ca/g1/ca.crl");
    lab.revoke("alice", later(60)).unwrap();
    let survivors: [(&str, PathBuf); 2] = [("the published list", own), ("its own copy", lab.client_list())];
    for (survivor, lost) in survivors {
        lab.lose_ledger();
        std::fs::remove_file(&lost).unwrap();
        lab.refresh(later(61));
        assert!(lab.is_listed(&alice), "{survivor}");
        assert!(lost.exists(), "{survivor}");
        std::fs::remove_file(lab.path("restored.db")).unwrap();
    }
}

#[test]
fn p33_lists_are_renewed_at_half_of_their_life_and_left_alone_before() {
    let mut lab = Lab::new();
    assert_eq!(lab.refresh(later(182 * DAY)), Publication::default());
    assert_eq!(lab.read_list().next_update, later(365 * DAY));
    let renewed = lab.refresh(later(183 * DAY));
    assert_eq!(
        renewed.published.len(),
        4,
        "two authorities, each published and its own copy"
    );
    assert_eq!(lab.read_list().next_update, later((365 + 183) * DAY));
    // A list made while the clock was ahead refuses everybody; it is replaced.
    lab.refresh(T0);
    assert_eq!(lab.read_list().this_update, later(-3600));
}

#[test]
fn p33_the_alarm_comes_a_month_before() {
    let lab = Lab::new();
    let alarms = |now| alarms(&lab.store, &lab.targets, now).unwrap();
    assert_eq!(alarms(later(335 * DAY)), []);
    assert_eq!(alarms(later(335 * DAY + 1)).len(), 4);
    assert!(alarms(later(336 * DAY))[0].message.contains("lapses at"));
    assert!(alarms(later(-3601))[0].message.contains("counts only from"));
    std::fs::remove_file(lab.client_list()).unwrap();
    assert!(alarms(T0)[0].message.contains("is missing"));
    std::fs::write(lab.client_list(), "garbage").unwrap();
    assert!(alarms(T0)[0].message.contains("is damaged"));
}

#[test]
fn p33_a_short_lived_list_is_not_in_alarm_from_its_first_day() {
    let mut lab = Lab::empty();
    lab.targets.ttl = days(8);
    lab.init(T0).unwrap();
    publish(&lab.store, &[], &lab.targets, T0).unwrap();
    assert_eq!(alarms(&lab.store, &lab.targets, later(6 * DAY)).unwrap(), []);
    assert_ne!(alarms(&lab.store, &lab.targets, later(6 * DAY + 1)).unwrap(), []);
}

#[test]
fn a_damaged_or_forged_list_is_replaced_reported_and_never_believed() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    let mut other = Lab::new();
    let forged = other.issue("mallory").certificate;
    other.revoke("mallory", T0).unwrap();
    let forgery = std::fs::read(other.client_list()).unwrap();
    for content in [b"garbage".to_vec(), forgery] {
        std::fs::write(lab.client_list(), content).unwrap();
        let outcome = lab.revoke("alice", T0).unwrap();
        let Publication {
            failures,
            damaged,
            published: _,
        } = &outcome.publication;
        assert_eq!(failures, &[]);
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        assert!(
            damaged[0].message.contains(text(&lab.client_list())),
            "{damaged:?}"
        );
        assert!(lab.is_listed(&alice));
        assert!(!lab.is_listed(&forged));
    }
}

#[test]
fn what_closes_is_published_though_the_ledger_cannot_be_written() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    lab.ledger = Ledger::open_read_only(&lab.path("ledger.db")).unwrap();
    let outcome = lab.revoke("alice", T0).unwrap();
    assert!(lab.is_listed(&alice));
    assert!(!outcome.recorded);
    assert!(
        outcome.publication.failures[0].message.contains("ledger.db"),
        "{outcome:?}"
    );
    // Whoever keeps it tries again later; a refresh with a ledger that works does the same.
    lab.ledger = Ledger::open(&lab.path("ledger.db")).unwrap();
    lab.refresh(T0);
    assert_eq!(
        lab.ledger
            .certificate_by_serial(&alice.serial)
            .unwrap()
            .unwrap()
            .revoked,
        Some(T0)
    );

    // Nor does it need a ledger at all.
    let bob = lab.issue("bob").certificate;
    let selection = Selection {
        revocations: vec![Revocation {
            serial: bob.serial.clone(),
            authority: Authority::Client,
            authority_generation: 1,
            revoked: T0,
            reason: RevocationReason::Unspecified,
            requester: "root".into(),
        }],
        ..Selection::default()
    };
    let outcome = carry_out(&lab.store, None, selection, &lab.targets, T0).unwrap();
    assert!(lab.is_listed(&bob) && !outcome.recorded);
}

#[test]
fn one_folder_that_cannot_be_written_keeps_no_other_from_it() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    // Below a file no folder can be made, not even by root.
    std::fs::write(lab.path("file"), "").unwrap();
    lab.targets.folders.insert(0, lab.path("file/crl"));
    let outcome = lab.revoke("alice", T0).unwrap();
    assert!(outcome.recorded);
    lab.targets.folders.remove(0);
    assert!(lab.is_listed(&alice));
    let Publication {
        failures,
        damaged,
        published: _,
    } = &outcome.publication;
    assert_eq!(
        (failures.len(), damaged.len()),
        (2, 2),
        "of two lists: {outcome:?}"
    );
    assert!(
        failures
            .iter()
            .chain(damaged)
            .all(|f| f.message.contains("file/crl"))
    );
}

#[test]
fn a_missing_key_of_one_authority_keeps_the_other_s_list_going() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    std::fs::remove_file(lab.path("pki/server-ca/g1/ca.key")).unwrap();
    let outcome = lab.revoke("alice", T0).unwrap();
    assert!(lab.is_listed(&alice));
    assert_eq!(outcome.publication.failures.len(), 1);
    assert!(outcome.publication.failures[0].message.contains("server-ca"));
}

/// A key that is elsewhere, or closed: what was signed before goes on, and comes to a folder that is new.
#[test]
fn p33_without_its_key_a_list_holds_until_it_lapses_or_lacks_somebody() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    std::fs::remove_file(lab.path("pki/client-ca/g1/ca.key")).unwrap();
    lab.targets.folders = vec![lab.path("second")];
    assert!(!lab.lists_hold(&[], T0));
    assert_ne!(lab.refresh(T0).failures, []);
    assert!(lab.lists_hold(&[], T0));
    assert!(lab.lists_hold(&[], later(365 * DAY)));
    assert!(!lab.lists_hold(&[], later(365 * DAY + 1)));
    assert!(!lab.lists_hold(&[], later(-3601)));

    let outcome = lab.revoke("alice", T0).unwrap();
    assert_ne!(outcome.publication.failures, []);
    assert!(!lab.is_listed(&alice));
    let revocations = lab.ledger.revocations().unwrap();
    assert!(!lab.lists_hold(&revocations, T0));
}

#[test]
fn the_canary_is_revoked_from_birth_and_never_expires_first() {
    let mut lab = Lab::new();
    let (certificate, key) = lab.store.canary().unwrap();
    assert!(certificate.exists() && key.exists());
    let canary = lab.ledger.certificates().unwrap().remove(0);
    assert_eq!((canary.name.as_str(), canary.revoked), (CANARY, Some(T0)));
    assert_eq!(canary.not_after, lab.client_ca().not_after);
    assert!(lab.is_listed(&canary));
    lab.lose_ledger();
    lab.refresh(later(300 * DAY));
    assert!(lab.is_listed(&canary));
}

#[test]
fn folders_of_several_clusters_hold_the_same_lists() {
    let mut lab = Lab::new();
    lab.targets.folders.push(lab.path("second/cluster/crl"));
    assert_eq!(lab.refresh(T0).published.len(), 6, "a new folder is filled");
    lab.issue("alice");
    lab.revoke("alice", T0).unwrap();
    let name = lab.client_list().file_name().unwrap().to_owned();
    let second = std::fs::read(lab.path("second/cluster/crl").join(name)).unwrap();
    assert_eq!(second, std::fs::read(lab.client_list()).unwrap());
}

#[test]
fn of_two_times_that_a_certificate_was_revoked_at_the_earlier_counts() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    let said = |at, reason| Revocation {
        serial: alice.serial.clone(),
        authority: Authority::Client,
        authority_generation: 1,
        revoked: later(at),
        reason,
        requester: "root".into(),
    };
    // The list knows 60; then a ledger says 90, then one says 30.
    for (at, reason, expected) in [
        (
            60,
            RevocationReason::KeyCompromise,
            (60, RevocationReason::KeyCompromise),
        ),
        (
            90,
            RevocationReason::Superseded,
            (60, RevocationReason::KeyCompromise),
        ),
        (
            30,
            RevocationReason::Superseded,
            (30, RevocationReason::Superseded),
        ),
    ] {
        publish(&lab.store, &[said(at, reason)], &lab.targets, later(100)).unwrap();
        assert_eq!(
            lab.read_list().revoked[&alice.serial],
            (later(expected.0), expected.1)
        );
    }
}

/// What the ledger had no room for is in the lists all the same, and goes into it when there is.
#[test]
fn p32_the_lists_say_what_the_ledger_could_not_take() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    let revocation = Revocation {
        serial: alice.serial.clone(),
        authority: alice.authority,
        authority_generation: alice.authority_generation,
        revoked: T0,
        reason: RevocationReason::KeyCompromise,
        requester: "root".into(),
    };
    let unrecorded = std::slice::from_ref(&revocation);
    let published = refresh(&lab.store, &mut lab.ledger, unrecorded, &lab.targets, later(1)).unwrap();
    assert!(!published.published.is_empty());
    assert_eq!(
        refresh(&lab.store, &mut lab.ledger, unrecorded, &lab.targets, later(2)).unwrap(),
        Publication::default()
    );
    let known = lab.ledger.certificate_by_serial(&alice.serial).unwrap().unwrap();
    assert_eq!(known.revoked, Some(T0));
}
