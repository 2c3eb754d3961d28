//! A rotation that is cut off at each of its steps.

use pgfw_tests::lab::{PATIENCE, Site, eventually};

use super::super::renewal::served;
use super::super::stage::{Leaf, Stage, assert_fails};
use super::{PKI, certificates_in, exists, generation, killed_at, lists, rotate, status};

/// What is said again goes on from where it was cut off. Whoever holds a certificate that counts gets in at once, also what
/// is issued just then: whichever generation signs is one that the server trusts, or trusts once it is started again.
#[test]
fn p23_a_rotation_of_the_client_authority_is_killed_at_each_step_and_gone_on_with() {
    let ends = [
        "rotation-dropping",
        "renewal-written",
        "renewal-switched",
        "renewal-proven",
        "rotation-untrusted",
        "rotation-revoked",
        "rotation-moved",
        "rotation-key-gone",
    ];
    let starts = [
        "rotation-begun",
        "rotation-made",
        "renewal-issued",
        "renewal-written",
        "renewal-switched",
        "renewal-proven",
        "rotation-trusted",
        "rotation-signs",
    ];
    let site = Site::new();
    let mut stage = Stage::new(&site);
    let mut stays = stage.issue("alice", &[]);
    for (round, (at_start, at_end)) in starts.into_iter().zip(ends).enumerate() {
        killed_at(&stage, "start client", at_start);
        if round % 2 == 1 {
            stage.cluster.restart();
        }
        drop(stage.log_in(&site.client, "alice", &stays));
        let just_then = stage.issue("bob", &[]);
        drop(stage.log_in(&site.client, "bob", &just_then));
        assert_ne!(status(&stage, "client")["phase"], "settled", "{at_start}");
        rotate(&stage, "start client");
        drop(stage.log_in(&site.client, "alice", &stays));
        drop(stage.log_in(&site.client, "bob", &just_then));
        let new = stage.issue("bob", &[]);
        drop(stage.log_in(&site.client, "bob", &new));

        // Given up first, then carried through.
        for (what, other) in [("abort", "finish"), ("finish", "abort")] {
            let (gone, left) = match what {
                "abort" => (stage.issue("bob", &[]), stays.clone()),
                _ => {
                    rotate(&stage, "start client");
                    let gone = std::mem::replace(&mut stays, stage.issue("alice", &[]));
                    (gone, stays.clone())
                }
            };
            killed_at(&stage, &format!("{what} client --force"), at_end);
            if round % 2 == 0 {
                stage.cluster.restart();
            }
            drop(stage.log_in(&site.client, "alice", &left));
            let just_then = stage.issue("bob", &[]);
            drop(stage.log_in(&site.client, "bob", &just_then));
            assert_fails(
                &stage.pgfw.pgfw(&["ca", "rotate", other, "client"]),
                1,
                &["on its way out", what],
            );
            rotate(&stage, &format!("{what} client"));
            drop(stage.log_in(&site.client, "alice", &left));
            drop(stage.log_in(&site.client, "bob", &just_then));
            let role = gone.certificate["name"].as_str().unwrap();
            let said = stage.refused(&stage.with_certificate(&site.client, role, &gone));
            assert!(said.contains("unknown ca"), "{what} at {at_end}: {said}");
            assert_eq!(lists(&stage), 2, "{what} at {at_end}");
            let status_now = status(&stage, "client");
            assert_eq!(status_now["phase"], "settled");
            let number = generation(&gone);
            let retired = format!("{PKI}/client-ca/retired/g{number}");
            assert!(exists(&stage, &retired) && !exists(&stage, &format!("{retired}/ca.key")));
        }
    }
}

#[test]
fn p23_a_rotation_of_the_server_authority_is_killed_at_each_step_and_gone_on_with() {
    let renewal = [
        "renewal-issued",
        "renewal-written",
        "renewal-switched",
        "renewal-proven",
    ];
    let ends = [
        "rotation-dropping",
        "rotation-untrusted",
        "rotation-revoked",
        "rotation-moved",
        "rotation-key-gone",
    ];
    let switches = renewal.into_iter().chain(["rotation-signs"]);
    let site = Site::new();
    let mut stage = Stage::new(&site);
    for (round, (at_switch, at_end)) in switches.zip(ends).enumerate() {
        let at_start = ["rotation-begun", "rotation-made"][round % 2];
        let first = stage.issue("alice", &[]);
        killed_at(&stage, "start server", at_start);
        let unsure = stage.issue("alice", &[]);
        rotate(&stage, "start server");
        // Whether it has both roots is told by what it holds.
        let left = status(&stage, "server")["left"].clone();
        let in_the_way = |leaf: &Leaf| {
            left.as_array()
                .unwrap()
                .iter()
                .any(|l| l["serial"] == leaf.serial())
        };
        assert!(in_the_way(&first), "{at_start}: {left}");
        let lacks = certificates_in(&unsure.pem("root.crt")) == 1;
        assert_eq!(in_the_way(&unsure), lacks, "{at_start}: {left}");
        assert_eq!(lacks, at_start == "rotation-begun");
        let both = stage.issue("alice", &[]);

        killed_at(&stage, "switch --force", at_switch);
        if round % 2 == 1 {
            stage.cluster.restart();
        }
        drop(stage.log_in(&site.client, "alice", &both));
        rotate(&stage, "switch --force");
        drop(stage.log_in(&site.client, "alice", &both));
        killed_at(&stage, "abort server", at_switch);
        drop(stage.log_in(&site.client, "alice", &both));
        drop(stage.log_in(&site.client, "alice", &stage.issue("alice", &[])));
        rotate(&stage, "abort server");
        drop(stage.log_in(&site.client, "alice", &first));

        rotate(&stage, "start server");
        let both = stage.issue("alice", &[]);
        rotate(&stage, "switch --force");
        killed_at(&stage, "finish server", at_end);
        if round % 2 == 0 {
            stage.cluster.restart();
        }
        drop(stage.log_in(&site.client, "alice", &both));
        rotate(&stage, "finish server");
        drop(stage.log_in(&site.client, "alice", &both));
        assert_eq!(status(&stage, "server")["phase"], "settled");
        assert_eq!(lists(&stage), 2, "{at_end}");
        stage.pgfw.ok(&["cert", "revoke", "alice"]);
    }
}

/// The daemon brings servers to where a rotation that was cut off wants them; that it goes on is for a person to say.
#[test]
fn p23_the_daemon_finishes_what_a_cut_off_switch_has_begun_at_a_server() {
    let site = Site::new();
    let stage = Stage::new(&site);
    rotate(&stage, "start server");
    let both = stage.issue("alice", &[]);
    killed_at(&stage, "switch --force", "rotation-signs");
    let old = served(&stage).unwrap();
    let _daemon = stage.enforce();
    eventually("another certificate is served", PATIENCE, || {
        served(&stage).filter(|now| *now != old)
    });
    drop(stage.log_in(&site.client, "alice", &both));
    assert_eq!(status(&stage, "server")["phase"], "overlap");
}
