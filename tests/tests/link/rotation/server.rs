//! The server authority: whom clients trust; and servers whose files somebody else writes.

use pgfw::fault::VARIABLE;
use pgfw_tests::lab::{PATIENCE, Site, eventually, run};

use super::super::stage::{Stage, assert_fails, on_host};
use super::{
    Client, FILES, KEPT, KEPT_FOR, PKI, certificates_in, exists, generation, killed_at, rotate, status,
};

#[test]
fn p23_clients_trust_the_server_all_along_while_its_authority_is_rotated() {
    let site = Site::new();
    let stage = Stage::with(&site, "", KEPT_FOR);
    let _daemon = stage.enforce();
    let old = stage.issue("alice", &[]);
    stage.issue("agent", &[]);
    eventually("it is kept", PATIENCE, || exists(&stage, KEPT).then_some(()));
    std::thread::scope(|scope| {
        let before = Client::begin(scope, &site.client, "alice", &old);
        let said = rotate(&stage, "start server");
        for word in ["introducing", old.serial(), "rotate switch"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let new = stage.issue("alice", &[]);
        assert_eq!(certificates_in(&new.pem("root.crt")), 2);
        assert_eq!(certificates_in(&on_host(&stage, format!("{KEPT}/root.crt"))), 2);
        let after = Client::begin(scope, &site.client, "alice", &new);
        before.gets_in();
        after.gets_in();

        let left = status(&stage, "server")["left"].clone();
        assert!(
            left.as_array()
                .unwrap()
                .iter()
                .any(|l| l["serial"] == old.serial() && l["newer"] == new.serial()),
            "{left}"
        );
        let refused = stage.pgfw.pgfw(&["ca", "rotate", "switch"]);
        assert_fails(&refused, 1, &["alice", old.serial(), "--force", "new bundle"]);
        assert!(!refused.stderr.contains("agent"), "{}", refused.stderr);
        assert_fails(&stage.pgfw.pgfw(&["ca", "rotate", "finish"]), 1, &["switch"]);
        before.gets_in();
        drop(before);

        // Whoever was forgotten has the old root alone; it is not too late to go back.
        let said = rotate(&stage, "switch --force");
        assert!(
            said.contains("overlap") && said.contains("a handshake shows it"),
            "{said}"
        );
        after.gets_in();
        let said = stage.refused(&stage.with_certificate(&site.client, "alice", &old));
        assert!(said.contains("certificate verify failed"), "{said}");
        rotate(&stage, "abort server");
        let before = Client::begin(scope, &site.client, "alice", &old);
        before.gets_in();
        after.gets_in();
        drop(before);

        // With everybody at hand.
        rotate(&stage, "start server");
        let both = stage.issue("alice", &[]);
        let last = Client::begin(scope, &site.client, "alice", &both);
        drop(after);
        for serial in [old.serial(), new.serial()] {
            stage.revoke(serial);
        }
        rotate(&stage, "switch");
        last.gets_in();
        let said = rotate(&stage, "finish");
        assert!(said.contains("settled"), "{said}");
        last.gets_in();
        let after = stage.issue("alice", &[]);
        assert_eq!(certificates_in(&after.pem("root.crt")), 1);
        assert_eq!(certificates_in(&on_host(&stage, format!("{KEPT}/root.crt"))), 1);
        drop(stage.log_in(&site.client, "alice", &after));
    });
    assert!(!exists(&stage, &format!("{PKI}/server-ca/g1")));
    assert!(exists(&stage, &format!("{PKI}/server-ca/g3")));
    // What servers had of it is not called valid any more.
    let listed = stage.pgfw.ok(&["cert", "list"]);
    let servers = listed
        .lines()
        .filter(|line| line.contains(" server ") && line.contains(" valid "));
    assert_eq!(servers.count(), 1, "{listed}");
}

#[test]
fn p23_a_server_that_somebody_else_tells_is_waited_for() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let old = stage.issue("alice", &[]);
    stage.configure("manage = \"render\"", "");
    let refused = stage.pgfw.pgfw(&["ca", "rotate", "start", "client"]);
    assert_fails(
        &refused,
        1,
        &[
            "cluster main",
            "does not trust generation 2",
            "manage = \"render\"",
            "start client",
        ],
    );
    assert_eq!(status(&stage, "client")["phase"], "introducing");
    assert_eq!(generation(&stage.issue("bob", &[])), 1);
    drop(stage.log_in(&site.client, "alice", &old));
    stage.cluster.reload();
    eventually("it was told", PATIENCE, || {
        stage
            .pgfw
            .pgfw(&["ca", "rotate", "start", "client"])
            .success()
            .then_some(())
    });
    let new = stage.issue("alice", &[]);
    drop(stage.log_in(&site.client, "alice", &new));

    // By hand, in pgfw's own file, since the server reads that one.
    stage.configure("manage = \"none\"", "");
    let refused = stage.pgfw.pgfw(&["ca", "rotate", "finish", "client", "--force"]);
    assert_fails(
        &refused,
        1,
        &[
            "cluster main",
            "trusts generation 1 still",
            "ssl_ca_file",
            "finish client",
        ],
    );
    assert_eq!(status(&stage, "client")["phase"], "overlap", "nothing was done");
    drop(stage.log_in(&site.client, "alice", &old));
    let only = on_host(&stage, format!("{PKI}/client-ca/g2/ca.crt"));
    site.db.write(format!("{FILES}/current/client-ca.crt"), &only);
    stage.cluster.reload();
    // Cut off at its end, where nothing is left that could be looked for.
    eventually("it was told", PATIENCE, || {
        let mut finish = stage
            .pgfw
            .command(&["ca", "rotate", "finish", "client", "--force"]);
        let ended = run(finish.env(VARIABLE, "rotation-moved"));
        ended.code.is_none().then_some(())
    });
    let said = rotate(&stage, "finish client");
    assert!(
        said.contains("cluster main is not managed by pgfw: sessions"),
        "{said}"
    );
    drop(stage.log_in(&site.client, "alice", &new));
    let said = stage.refused(&stage.with_certificate(&site.client, "alice", &old));
    assert!(said.contains("unknown ca"), "{said}");

    // The same for what it serves.
    rotate(&stage, "start server");
    let both = stage.issue("alice", &[]);
    let refused = stage.pgfw.pgfw(&["ca", "rotate", "switch", "--force"]);
    assert_fails(
        &refused,
        1,
        &[
            "serves a certificate of generation 1 still",
            "/etc/pgfw/pki/server/main",
        ],
    );
    for file in ["server.crt", "server.key"] {
        let text = on_host(&stage, format!("{PKI}/server/main/{file}"));
        site.db.within(|| {
            // In place: owner and mode stay.
            std::fs::write(format!("{FILES}/current/{file}"), &text).unwrap();
        });
    }
    stage.cluster.reload();
    eventually("it was told", PATIENCE, || {
        stage
            .pgfw
            .pgfw(&["ca", "rotate", "switch"])
            .success()
            .then_some(())
    });
    rotate(&stage, "finish server");
    drop(stage.log_in(&site.client, "alice", &both));

    // Of what was never made nothing is looked for.
    killed_at(&stage, "start client", "rotation-begun");
    rotate(&stage, "abort client");
}
