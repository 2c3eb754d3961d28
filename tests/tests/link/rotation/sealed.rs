//! Rotations of authorities whose keys are under a passphrase.

use pgfw_tests::lab::Site;

use super::super::sealed::{FILE, sealed, with_file};
use super::super::stage::{Stage, assert_fails};
use super::{PKI, generation, status};

fn given(stage: &Stage<'_>, what: &str) -> String {
    let arguments: Vec<&str> = ["ca", "rotate"].into_iter().chain(what.split(' ')).collect();
    stage.pgfw.ok(&with_file(&arguments))
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
