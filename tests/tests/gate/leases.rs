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

/// The certificate's end is before the lease's, and it is in the kernel too.
#[test]
fn p35_a_lease_ends_with_its_certificate_and_with_a_revocation() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (daemon, _gate) = stage.open();
    let long = stage.issue("alice", &[]);
    let revoked = stage.lease(&site.stranger, &long);
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    stage.pgfw.ok(&["cert", "revoke", &long.serial]);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    assert_eq!(stage.leases(), [], "{revoked:?}");

    // By a command that finds no daemon as well.
    let other = stage.issue("alice", &[]);
    stage.lease(&site.stranger, &other);
    daemon.kill();
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    stage.pgfw.ok(&["cert", "revoke", &other.serial]);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);

    let daemon = stage.pgfw.start();
    let short = stage.issue("alice", &["--ttl", "6s"]);
    let lease = stage.lease(&site.stranger, &short);
    assert!(lease.body["seconds"].as_u64().unwrap() <= 6, "{lease:?}");
    daemon.kill();
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    eventually("the lease ends with its certificate", PATIENCE, || {
        (stage.reach(&site.stranger) == Reach::Silent).then_some(())
    });
}

/// The log says when the address really closes, and that it has, when it does.
#[test]
fn p35_the_audit_log_has_a_leases_end_with_its_certificate() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let records = |event: &str| -> Vec<serde_json::Value> {
        let text = site.db.read("/var/log/pgfw/audit.jsonl");
        let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
        all.filter(|record: &serde_json::Value| record["event"] == event)
            .collect()
    };
    let short = stage.issue("alice", &["--ttl", "6s"]);
    let lease = stage.lease(&site.stranger, &short);
    let granted = eventually("it is recorded", PATIENCE, || records("lease_granted").pop());
    assert_eq!(granted["until"], lease.body["until"], "{granted}");
    let ended = eventually("its end is recorded", PATIENCE, || records("lease_ended").pop());
    assert_eq!(ended["reason"], "its certificate has ended", "{ended}");
    assert_eq!(ended["serial"], short.serial.as_str());
    // Other rounds say nothing of it again.
    let other = stage.issue("alice", &[]);
    stage.lease(&site.client, &other);
    stage.pgfw.ok(&["cert", "revoke", &other.serial]);
    let revoked = eventually("another's end", PATIENCE, || {
        records("lease_ended")
            .into_iter()
            .find(|r| r["serial"] == other.serial.as_str())
    });
    assert_eq!(revoked["reason"], "its certificate is revoked");
    assert_eq!(records("lease_ended").len(), 2);
}

#[test]
fn a_lease_is_for_who_roams_and_while_the_policy_says_so() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, gate) = stage.open();
    let (alice, bob) = (stage.issue("alice", &[]), stage.issue("bob", &[]));
    let post = &["--request", "POST"];
    let refused = stage.curl(&site.stranger, &bob, "/lease", post);
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body["message"], "bob may not take leases");
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);

    stage.pgfw.ok(&["deny", "192.168.1.0/24", "--service", "main"]);
    let denied = stage.curl(&site.stranger, &alice, "/lease", post);
    assert_eq!(denied.status, 403);
    let why = denied.body["message"].as_str().unwrap();
    assert!(why.contains("192.168.1.0/24 is denied"), "{why}");
    stage.pgfw.ok(&["remove", "192.168.1.0/24", "--service", "main"]);

    stage.lease(&site.stranger, &alice);
    let config = site.db.read("/etc/pgfw/pgfw.toml");
    stage.pgfw.configure(&config.replace("roaming = true", ""));
    stage.pgfw.ok(&["reload", "--yes"]);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    assert_eq!(stage.leases(), []);
    stage.pgfw.configure(&config);
    stage.pgfw.ok(&["reload", "--yes"]);
    // It is within its time still.
    assert_eq!(stage.reach(&site.stranger), Reach::Open);

    // Another port, and none.
    stage.pgfw.configure(&config.replace(":5430", ":5431"));
    stage.pgfw.ok(&["reload", "--yes"]);
    eventually("the gate listens elsewhere", PATIENCE, || {
        (stage.reach_at(&site.stranger, PORT + 1) == Reach::Open).then_some(())
    });
    assert_eq!(stage.reach_at(&site.stranger, PORT), Reach::Silent);
    let (without, _) = config.split_once("[gate]").unwrap();
    let (_, identities) = config.split_once("[[identity]]").unwrap();
    stage
        .pgfw
        .configure(&format!("{without}[[identity]]{identities}"));
    stage.pgfw.ok(&["reload", "--yes"]);
    assert_eq!(stage.reach_at(&site.stranger, PORT + 1), Reach::Silent);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent, "there is no gate");
    eventually("the gate says so", PATIENCE, || {
        gate.log().contains("has no gate").then_some(())
    });
}
