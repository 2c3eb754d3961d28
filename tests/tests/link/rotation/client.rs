//! The client authority: whom servers trust.

use std::process::Command;

use pgfw_tests::lab::{PATIENCE, Reach, Site, eventually, run};

use super::super::obstacles::{LEDGER, STATE};
use super::super::stage::{Stage, assert_fails, on_host};
use super::{Client, FILES, KEPT, KEPT_FOR, PKI, certificates_in, exists, generation, lists, rotate, status};

#[test]
fn p23_old_and_new_clients_connect_all_along_and_after_the_end_the_old_ones_do_not() {
    let site = Site::new();
    let stage = Stage::with(&site, "", KEPT_FOR);
    let _daemon = stage.enforce();
    let (old, bob) = (stage.issue("alice", &[]), stage.issue("bob", &[]));
    let agent = stage.issue("agent", &[]);
    let kept = |serial: &str| {
        site.db
            .within(|| std::fs::read_link(KEPT))
            .is_ok_and(|to| to.as_os_str() == format!(".{serial}").as_str())
    };
    eventually("it is kept", PATIENCE, || kept(agent.serial()).then_some(()));
    let mut session = stage.log_in(&site.client, "alice", &old);
    assert_fails(
        &stage.pgfw.pgfw(&["ca", "rotate", "finish"]),
        1,
        &["no authority is being rotated", "start"],
    );

    std::thread::scope(|scope| {
        let before = Client::begin(scope, &site.client, "alice", &old);
        before.gets_in();
        let said = rotate(&stage, "start client");
        for word in [
            "overlap",
            "generation 2",
            "signs",
            "a handshake shows it",
            old.serial(),
            bob.serial(),
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let new = stage.issue("alice", &[]);
        assert_eq!((generation(&old), generation(&new)), (1, 2));
        let after = Client::begin(scope, &site.client, "alice", &new);
        before.gets_in();
        after.gets_in();
        // What is kept here was replaced at once, and not by a person.
        let left = status(&stage, "client");
        let of_agent = left["left"]
            .as_array()
            .unwrap()
            .iter()
            .find(|l| l["name"] == "agent")
            .unwrap();
        assert_eq!(of_agent["holder"], "kept");
        assert!(kept(of_agent["newer"].as_str().unwrap()), "{left}");
        assert!(
            stage.attention().contains("client authority is being rotated"),
            "{}",
            stage.attention()
        );

        // Lists, listings and a second command know both; a command said again changes nothing.
        let shown = stage.pgfw.ok(&["ca", "show"]);
        assert!(
            shown.contains("counts, signs nothing new") && shown.matches("client authority").count() == 2,
            "{shown}"
        );
        assert_eq!(
            stage
                .pgfw
                .ok(&["cert", "export-crl"])
                .matches("BEGIN X509 CRL")
                .count(),
            3
        );
        assert_eq!(lists(&stage), 3);
        rotate(&stage, "start client");
        stage.pgfw.ok(&["pg", "apply"]);
        assert_eq!(
            certificates_in(&on_host(&stage, format!("{FILES}/current/client-ca.crt"))),
            2
        );

        // Nobody ends it by accident.
        let refused = stage.pgfw.pgfw(&["ca", "rotate", "finish"]);
        assert_fails(
            &refused,
            1,
            &[old.serial(), bob.serial(), agent.serial(), "alice", "--force"],
        );
        assert_eq!(status(&stage, "client")["phase"], "overlap");
        before.gets_in();
        after.gets_in();
        drop(before);

        let mut goes_on = stage.log_in(&site.client, "alice", &new);
        let said = rotate(&stage, "finish client --force");
        for word in [
            "settled",
            old.serial(),
            bob.serial(),
            "retired",
            "1 connection(s) ended",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        after.gets_in();
        assert_eq!(goes_on.query("select 1").unwrap(), "1");
        stage.ends(&mut session);
        for (role, leaf) in [("alice", &old), ("bob", &bob)] {
            let said = stage.refused(&stage.with_certificate(&site.client, role, leaf));
            assert!(said.contains("unknown ca"), "{said}");
        }
    });

    // The old authority counts nowhere.
    assert_eq!(
        certificates_in(&on_host(&stage, format!("{FILES}/current/client-ca.crt"))),
        1
    );
    assert_eq!(lists(&stage), 2);
    assert!(!exists(&stage, &format!("{PKI}/client-ca/g1")));
    assert!(exists(&stage, &format!("{PKI}/client-ca/retired/g1/ca.crt")));
    for key in ["ca.key", "canary.key"] {
        assert!(!exists(&stage, &format!("{PKI}/client-ca/retired/g1/{key}")));
    }
    assert!(!stage.attention().contains("rotated"), "{}", stage.attention());
    // The newest alone holds the network open.
    stage.revoke("alice");
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    // And it can be done again.
    rotate(&stage, "start client");
    assert_eq!(generation(&stage.issue("alice", &[])), 3);
}

/// The ledger is restored from a backup of before, in which what the old authority issued is valid.
#[test]
fn p23_a_ledger_from_before_the_end_opens_nothing_by_the_old_authority() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    stage.issue("alice", &[]);
    assert_eq!(stage.reach(&site.client), Reach::Open);
    let copy = || {
        std::fs::copy(LEDGER, format!("{STATE}/backup.db")).unwrap();
    };
    rotate(&stage, "start client");
    site.db.within(copy);
    rotate(&stage, "finish client --force");
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    daemon.kill();
    site.db
        .within(|| std::fs::rename(format!("{STATE}/backup.db"), LEDGER).unwrap());
    let _daemon = stage.pgfw.start();
    assert!(stage.pgfw.ok(&["cert", "list"]).contains("alice"));
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    stage.issue("alice", &[]);
    assert_eq!(stage.reach(&site.client), Reach::Open);
}

#[test]
fn p23_a_rotation_that_is_given_up_leaves_the_old_authority_as_it_was() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let old = stage.issue("alice", &[]);
    std::thread::scope(|scope| {
        let before = Client::begin(scope, &site.client, "alice", &old);
        rotate(&stage, "start client");
        rotate(&stage, "abort client");
        let status_now = status(&stage, "client");
        assert_eq!(
            (&status_now["phase"], &status_now["retired"]),
            (&"settled".into(), &serde_json::json!([2]))
        );
        before.gets_in();

        rotate(&stage, "start client");
        let new = stage.issue("bob", &[]);
        assert_eq!(generation(&new), 3, "no number is used twice");
        stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
        let mut session = stage.log_in(&site.client, "bob", &new);
        assert_fails(
            &stage.pgfw.pgfw(&["ca", "rotate", "abort"]),
            1,
            &["bob", new.serial(), "--force"],
        );
        rotate(&stage, "abort --force");
        stage.ends(&mut session);
        let said = stage.refused(&stage.with_certificate(&site.client, "bob", &new));
        assert!(said.contains("unknown ca"), "{said}");
        let again = stage.issue("bob", &[]);
        assert_eq!(generation(&again), 1);
        drop(stage.log_in(&site.client, "bob", &again));
        before.gets_in();
    });
    assert_eq!(lists(&stage), 2);
    assert_eq!(
        certificates_in(&on_host(&stage, format!("{FILES}/current/client-ca.crt"))),
        1
    );
}

/// Files that somebody else writes, or has the server read: said, waited for, and looked at.
/// The key of the old authority is lost, which is what one rotates for.
#[test]
fn p23_an_authority_whose_key_is_lost_is_rotated_out() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let old = stage.issue("alice", &[]);
    site.db
        .within(|| std::fs::remove_file(format!("{PKI}/client-ca/g1/ca.key")).unwrap());
    rotate(&stage, "start client");
    drop(stage.log_in(&site.client, "alice", &old));
    let new = stage.issue("alice", &[]);
    rotate(&stage, "finish client --force");
    drop(stage.log_in(&site.client, "alice", &new));
    let said = stage.refused(&stage.with_certificate(&site.client, "alice", &old));
    assert!(said.contains("unknown ca"), "{said}");
    assert_eq!(lists(&stage), 2);
}

/// A second opinion on both generations at once.
#[test]
fn p23_p26_openssl_takes_leaves_of_both_generations_with_their_lists() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let old = stage.issue("alice", &[]);
    rotate(&stage, "start");
    let new = stage.issue("alice", &[]);
    let roots = stage.file(
        "roots.crt",
        &on_host(&stage, format!("{FILES}/current/client-ca.crt")),
    );
    let crls = stage.file("lists.crl", &stage.pgfw.ok(&["cert", "export-crl"]));
    for leaf in [&old, &new] {
        let verify = || {
            run(Command::new("openssl")
                .args(["verify", "-crl_check_all", "-purpose", "sslclient", "-CAfile"])
                .arg(&roots)
                .arg("-CRLfile")
                .arg(&crls)
                .arg(leaf.folder.join("postgresql.crt")))
        };
        verify().expect_success();
    }
    // Both authorities, since none was named.
    assert_eq!(certificates_in(&new.pem("root.crt")), 2);
}

/// The old key is in wrong hands, and one server cannot be told: everything else closes all the same.
#[test]
fn p23_a_server_that_cannot_be_told_keeps_no_certificate_from_being_revoked() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let old = stage.issue("alice", &[]);
    rotate(&stage, "start client");
    let new = stage.issue("bob", &[]);
    let mut session = stage.log_in(&site.client, "alice", &old);
    let rules = format!("{FILES}/current/pg_hba.conf");
    let edited = format!("{}# by hand\n", on_host(&stage, &rules));
    site.db.within(|| std::fs::write(&rules, edited).unwrap());
    let refused = stage.pgfw.pgfw(&["ca", "rotate", "finish", "client", "--force"]);
    assert_fails(&refused, 1, &["cluster main", "pg_hba.conf", "finish client"]);
    stage.ends(&mut session);
    let said = stage.refused(&stage.with_certificate(&site.client, "alice", &old));
    assert!(said.contains("revoked"), "{said}");
    drop(stage.log_in(&site.client, "bob", &new));

    stage.pgfw.ok(&["pg", "apply", "--replace-edits"]);
    let said = rotate(&stage, "finish client");
    assert!(said.contains(old.serial()) && said.contains("settled"), "{said}");
    drop(stage.log_in(&site.client, "bob", &new));
}

/// It could neither revoke what the new one has issued nor sign what takes its place, and there would be no way on.
#[test]
fn p23_a_rotation_is_not_given_up_for_an_authority_whose_key_is_lost() {
    let site = Site::new();
    let stage = Stage::with(&site, "", KEPT_FOR);
    let _daemon = stage.enforce();
    stage.issue("agent", &[]);
    rotate(&stage, "start client");
    site.db
        .within(|| std::fs::remove_file(format!("{PKI}/client-ca/g1/ca.key")).unwrap());
    let refused = stage.pgfw.pgfw(&["ca", "rotate", "abort", "client", "--force"]);
    assert_fails(&refused, 1, &["client-ca/g1/ca.key"]);
    assert_eq!(status(&stage, "client")["phase"], "introducing");
    let shown: serde_json::Value =
        serde_json::from_str(&stage.pgfw.ok(&["--json", "cert", "show", "agent"])).unwrap();
    assert!(
        shown.as_array().unwrap().iter().all(|c| c["state"] == "valid"),
        "{shown}"
    );
    // On, then, and not back.
    rotate(&stage, "start client");
    rotate(&stage, "finish client --force");
    assert_eq!(status(&stage, "client")["phase"], "settled");
}
