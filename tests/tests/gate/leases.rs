//! Leases: who gets one, what it opens, and what ends it.

use pgfw_tests::lab::{PATIENCE, Reach, Site, address, eventually};

use super::stage::{PORT, Stage};

#[test]
fn p35_a_lease_opens_one_port_to_one_source_and_is_given_back() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    // A certificate opens nothing by itself where nobody has said from where.
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    assert_eq!(stage.curl(&site.stranger, &alice, "/lease", &[]).status, 404);

    let lease = stage.lease(&site.stranger, &alice);
    assert_eq!(lease.body["identity"], "alice");
    assert_eq!(lease.body["address"], "192.168.1.10");
    assert_eq!(lease.body["ports"], serde_json::json!([5432]));
    let shown = stage.curl(&site.stranger, &alice, "/lease", &[]);
    assert_eq!(shown.body["until"], lease.body["until"]);
    let until = lease.body["until"].as_str().unwrap().to_owned();
    assert_eq!(
        stage.leases(),
        [("192.168.1.10/32".to_owned(), "alice".to_owned(), until)]
    );
    let table = stage.pgfw.ok(&["list"]);
    assert!(table.contains("lease of alice"), "{table}");

    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    let got = stage.psql(&site.stranger, "alice", &alice).query("select 1");
    assert_eq!(got.stdout.trim(), "1", "{got:?}");
    // One source, one port.
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    assert_eq!(stage.reach_at(&site.stranger, PORT + 1), Reach::Silent);
    site.stranger.ip("address add 192.168.1.11/24 dev eth0");
    let (neighbour, own) = ("192.168.1.11", "192.168.1.10");
    for (from, expected) in [(neighbour, "drop"), (own, "pass")] {
        let said = stage.pgfw.pgfw(&["check", from, "--port", "5432"]).stdout;
        assert!(said.contains(expected), "{from}: {said}");
    }

    let mut session = stage.psql(&site.stranger, "alice", &alice).open().unwrap();
    let given = stage.curl(&site.stranger, &alice, "/lease", &["--request", "DELETE"]);
    assert_eq!(
        (given.status, &given.body["address"]),
        (200, &"192.168.1.10".into())
    );
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    assert_eq!(session.query("select 2").unwrap(), "2", "an open session drains");
    assert_eq!(stage.leases(), []);
    assert_eq!(
        stage
            .curl(&site.stranger, &alice, "/lease", &["--request", "DELETE"])
            .status,
        404
    );
}

#[test]
fn a_lease_has_one_family() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let post = &["--request", "POST"];
    let lease = stage
        .try_curl(&site.stranger, &alice, address::DB_V6, "/lease", post)
        .unwrap();
    assert_eq!(lease.body["address"], "fd00:30::10");
    let reach = |to| {
        let patience = std::time::Duration::from_millis(700);
        pgfw_tests::lab::tcp(&site.stranger, to, 5432, patience)
    };
    assert_eq!(reach(address::DB_V6), Reach::Open);
    assert_eq!(reach(address::DB), Reach::Silent);
}

#[test]
fn p35_a_lease_ends_at_its_time_with_the_daemon_dead() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (daemon, gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let lease = stage.curl(&site.stranger, &alice, "/lease?seconds=4", &["--request", "POST"]);
    assert!(lease.body["seconds"].as_u64().unwrap() <= 4, "{lease:?}");
    daemon.kill();
    gate.kill();
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    eventually("the lease ends", PATIENCE, || {
        (stage.reach(&site.stranger) == Reach::Silent).then_some(())
    });
}
