//! Rotations of authorities whose keys are under a passphrase.

use pgfw_tests::lab::{PATIENCE, Site, Terminal, eventually};

use super::super::sealed::{FILE, PASSPHRASE, sealed, with_file};
use super::super::stage::{Stage, assert_fails};
use super::{KEPT, KEPT_FOR, PKI, generation, status};

fn given(stage: &Stage<'_>, what: &str) -> String {
    let arguments: Vec<&str> = ["ca", "rotate"].into_iter().chain(what.split(' ')).collect();
    stage.pgfw.ok(&with_file(&arguments))
}

/// Whatever signs the lists after what is left was revoked.
#[test]
fn p23_p24_the_end_of_a_rotation_asks_for_the_passphrase_that_it_needs() {
    let site = Site::new();
    let stage = sealed(&site, "", "");
    let old = stage.issue("alice", &["--passphrase-file", FILE]);
    given(&stage, "start client");
    let new = stage.issue("alice", &["--passphrase-file", FILE]);
    let without = stage.pgfw.pgfw(&["ca", "rotate", "finish", "client", "--force"]);
    assert_fails(&without, 1, &["encrypted", "--passphrase-file"]);
    drop(stage.log_in(&site.client, "alice", &new));
    let mut terminal = Terminal::start(stage.pgfw.command(&["ca", "rotate", "finish", "client"]));
    terminal.shows("Passphrase of");
    terminal.types(&format!("{PASSPHRASE}\n"));
    assert_eq!(terminal.ends().code(), Some(0), "{}", terminal.look());
    assert_eq!(status(&stage, "client")["phase"], "settled");
    let said = stage.refused(&stage.with_certificate(&site.client, "alice", &old));
    assert!(said.contains("unknown ca"), "{said}");
    drop(stage.log_in(&site.client, "alice", &new));
}

/// What servers are to serve next is signed in the middle of it.
#[test]
fn p23_p24_a_switch_and_its_taking_back_ask_for_the_passphrase() {
    let site = Site::new();
    let stage = sealed(&site, "", "");
    let old = stage.issue("alice", &["--passphrase-file", FILE]);
    given(&stage, "start server");
    for (what, phase) in [("switch --force", "overlap"), ("abort server", "settled")] {
        let arguments: Vec<&str> = ["ca", "rotate"].into_iter().chain(what.split(' ')).collect();
        let without = stage.pgfw.pgfw(&arguments);
        assert_fails(&without, 1, &["cluster main", "encrypted", "--passphrase-file"]);
        let mut terminal = Terminal::start(stage.pgfw.command(&arguments));
        terminal.shows("Passphrase of");
        terminal.types(&format!("{PASSPHRASE}\n"));
        assert_eq!(terminal.ends().code(), Some(0), "{}", terminal.look());
        assert_eq!(status(&stage, "server")["phase"], phase);
    }
    drop(stage.log_in(&site.client, "alice", &old));
}

/// A program on this host has another certificate before the one that it has is revoked, or nothing is revoked.
#[test]
fn p23_p24_what_is_kept_is_not_revoked_before_it_can_be_replaced() {
    let site = Site::new();
    let stage = sealed(&site, "", KEPT_FOR);
    stage.issue("agent", &["--passphrase-file", FILE]);
    let _daemon = stage.enforce();
    let kept = || {
        let link = site.db.within(|| std::fs::read_link(KEPT)).unwrap();
        link.to_str().unwrap().trim_start_matches('.').to_owned()
    };
    let is_valid = |serial: &str| {
        let shown: serde_json::Value =
            serde_json::from_str(&stage.pgfw.ok(&["--json", "cert", "show", serial])).unwrap();
        (shown[0]["state"] == "valid").then(|| shown[0]["authority_generation"].as_u64().unwrap())
    };
    eventually("it is kept", PATIENCE, || {
        site.db.within(|| std::fs::exists(KEPT).unwrap()).then_some(())
    });
    given(&stage, "start client");
    let new = kept();
    assert_eq!(is_valid(&new), Some(2));

    let without = stage.pgfw.pgfw(&["ca", "rotate", "abort", "client", "--force"]);
    assert_fails(&without, 1, &["encrypted", "--passphrase-file"]);
    assert_eq!(
        (kept(), is_valid(&new)),
        (new.clone(), Some(2)),
        "nothing was revoked"
    );
    assert_ne!(status(&stage, "client")["phase"], "dropping");
    given(&stage, "abort client --force");
    assert_eq!((is_valid(&kept()), is_valid(&new)), (Some(1), None));
    assert_eq!(status(&stage, "client")["phase"], "settled");
}

/// A typing error makes no key that nobody can open.
#[test]
fn p23_p24_a_wrong_passphrase_begins_no_rotation() {
    let site = Site::new();
    let stage = sealed(&site, "", "");
    site.db.write("/run/wrong", "incorrect horse battery");
    for authority in ["server", "client"] {
        let wrong = [
            "--passphrase-file",
            "/run/wrong",
            "ca",
            "rotate",
            "start",
            authority,
        ];
        assert_fails(&stage.pgfw.pgfw(&wrong), 1, &["ca.key", "does not open"]);
        assert_eq!(status(&stage, authority)["phase"], "settled");
        assert!(
            !site
                .db
                .within(|| std::fs::exists(format!("{PKI}/{authority}-ca/g2")).unwrap())
        );
    }
    given(&stage, "start client");
    assert_eq!(generation(&stage.issue("alice", &["--passphrase-file", FILE])), 2);
    // In the middle of it keys go into the clear and back, of both generations.
    stage.configure("", "");
    let said = stage.pgfw.ok(&with_file(&["ca", "decrypt"]));
    assert_eq!(said.matches("in the clear").count(), 3, "{said}");
    stage.pgfw.ok(&["cert", "issue", "alice"]);
    stage.pgfw.ok(&["ca", "rotate", "finish", "client", "--force"]);
}
