//! Folders that others can write to, keys that they can read.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::ServerName;
use crate::failure::Failure;

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What stands behind `Run:` in a remedy.
fn run(remedy: &str) {
    let command = remedy.strip_prefix("Run: ").unwrap().split(';').next().unwrap();
    assert!(
        Command::new("sh")
            .args(["-c", command])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn p24_nothing_is_issued_where_others_can_write_and_a_revocation_does_not_wait_for_that() {
    let mut lab = Lab::new();
    lab.issue("alice");
    lab.issue_server(&[ServerName::Dns("db".into())]).unwrap();
    assert_eq!(lab.store.loose(), []);
    for place in [
        "pki",
        "pki/client-ca",
        "pki/client-ca/g1",
        "pki/server-ca/g1",
        "pki/issued",
        "pki/server",
    ] {
        for mode in [0o720, 0o702, 0o777] {
            let folder = lab.path(place);
            chmod(&folder, mode);
            let refused = Failure::from(lab.issue_as(client("bob"), T0).unwrap_err());
            assert!(
                refused.message.contains(text(&folder))
                    && refused.message.contains(&format!("mode {mode:04o}")),
                "{refused}"
            );
            assert_eq!(lab.store.loose().len(), 1, "{place}");
            // The command that is given mends it.
            run(&refused.remedy);
            assert_eq!(lab.store.loose(), [], "{place} {mode:o}");
        }
    }
    // A folder above it, in which the whole could be swapped; and one where the sticky bit keeps others from that.
    let above = lab.folder.path().to_owned();
    chmod(&above, 0o777);
    assert!(matches!(
        lab.issue_as(client("bob"), T0),
        Err(PkiError::Loose { .. })
    ));
    let outcome = lab.revoke("alice", later(1)).unwrap();
    assert!(outcome.publication.failures.is_empty() && !outcome.publication.published.is_empty());
    chmod(&above, 0o1777);
    lab.issue("bob");
}

#[test]
fn p24_a_key_that_others_can_read_is_said_and_signs_on() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice");
    lab.issue_server(&[ServerName::Dns("db".into())]).unwrap();
    let keys = [
        lab.path("pki/client-ca/g1/ca.key"),
        lab.path("pki/server-ca/g1/ca.key"),
        alice.key_file.unwrap().canonicalize().unwrap(),
        lab.path("pki/server/main/server.key").canonicalize().unwrap(),
    ];
    for key in keys {
        for mode in [0o640, 0o604] {
            chmod(&key, mode);
            let [loose] = &lab.store.loose()[..] else {
                panic!("{:?}", lab.store.loose());
            };
            let said = loose.to_string();
            assert!(
                said.contains(text(&key)) && said.contains(&format!("mode {mode:04o}")),
                "{said}"
            );
            lab.issue("bob");
            run(&loose.remedy());
            assert_eq!(lab.store.loose(), []);
        }
    }
}
