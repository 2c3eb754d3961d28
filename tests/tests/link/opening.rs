//! A certificate opens its identity's networks, and for as long as it is valid.

use pgfw_tests::lab::{Reach, Site};
use serde_json::Value;

use super::stage::{Stage, assert_fails};

/// Until when the client's network is open by a certificate of alice's.
fn until(stage: &Stage<'_>) -> Option<String> {
    let list: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "list"])).unwrap();
    let because = list["networks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|n| n["net"] == "10.20.0.0/16" && n["service"] == "main")
        .flat_map(|n| n["because"].as_array().unwrap());
    let alices = because
        .filter(|b| b["origin"]["name"] == "alice")
        .map(|b| &b["until"]);
    alices.filter_map(Value::as_str).map(str::to_owned).next()
}

#[test]
fn issuing_opens_renewing_extends_and_the_old_one_can_go() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    assert_eq!(until(&stage), None);

    let first = stage.issue("alice", &["--ttl", "1h"]);
    assert_eq!(stage.reach(&site.client), Reach::Open);
    drop(stage.log_in(&site.client, "alice", &first));
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    let one_hour = until(&stage).unwrap();

    let second = stage.issue("alice", &["--ttl", "2h"]);
    let two_hours = until(&stage).unwrap();
    assert!(two_hours > one_hour, "{two_hours} {one_hour}");
    // A shorter one on top shortens nothing.
    stage.issue("alice", &["--ttl", "30m"]);
    assert_eq!(until(&stage).as_deref(), Some(two_hours.as_str()));

    let told = stage.revoke(first.serial());
    let notes = told["notes"].to_string();
    assert!(
        notes.contains("stays open through another certificate of alice"),
        "{notes}"
    );
    drop(stage.log_in(&site.client, "alice", &second));
    assert_eq!(until(&stage).as_deref(), Some(two_hours.as_str()));
}

/// For each network: who holds it, whatever the length of the prefix that does.
#[test]
fn the_list_says_who_holds_a_network_and_until_when() {
    let site = Site::new();
    let login =
        "[[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\nnetworks = [\"10.20.30.0/24\"]\n";
    let carol = "[[identity]]\nname = \"carol\"\nroles = [\"bob\"]\nnetworks = [\"10.20.30.0/24\"]\n";
    let stage = Stage::with(&site, "allow = [\"10.0.0.0/8\"]", &format!("{login}{carol}"));
    let _daemon = stage.enforce();
    stage.issue("alice", &["--ttl", "1h"]);
    stage.issue("carol", &["--ttl", "2h"]);
    stage.pgfw.ok(&["allow", "10.20.0.0/17", "--for", "3h"]);
    let list: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "list"])).unwrap();
    let networks = list["networks"].as_array().unwrap();
    let mut at = networks
        .iter()
        .filter(|n| n["net"] == "10.20.30.0/24" && n["service"] == "main");
    let held = at.next().unwrap()["because"].as_array().unwrap();
    let said: Vec<(&str, bool)> = held
        .iter()
        .map(|b| (b["net"].as_str().unwrap(), b["until"].is_string()))
        .collect();
    // The login has no end and its network is carol's too; then what is around it: the entry, alice's, the cluster's.
    let mut narrow = [said[0], said[1]];
    narrow.sort_unstable();
    assert_eq!(narrow, [("10.20.30.0/24", false), ("10.20.30.0/24", true)]);
    assert_eq!(
        said[2..],
        [
            ("10.20.0.0/17", true),
            ("10.20.0.0/16", true),
            ("10.0.0.0/8", false)
        ]
    );
    let table = stage.pgfw.ok(&["list"]);
    for word in [
        "login exporter",
        "certificate of carol",
        "certificate of alice for 10.20.0.0/16",
        "pgfw.toml (main) for 10.0.0.0/8",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
}

/// With the daemon dead the command reaches the pinned tables itself.
#[test]
fn issuing_opens_with_the_daemon_dead_and_before_it_ever_ran() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let bob = stage.issue("bob", &[]);
    let daemon = stage.enforce();
    daemon.kill();
    let alice = stage.issue("alice", &[]);
    drop(stage.log_in(&site.client, "alice", &alice));
    // bob has no networks of his own: his certificate opens nothing.
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    stage.pgfw.ok(&["cert", "revoke", "alice"]);
    assert_eq!(stage.reach(&site.client), Reach::Silent);

    let daemon = stage.pgfw.start();
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    stage.pgfw.ok(&["allow", "192.168.1.0/24"]);
    drop(stage.log_in(&site.stranger, "bob", &bob));
    drop(daemon);
}

/// What could not be brought to the client is said, and nothing is open for what nobody holds.
#[test]
fn an_issue_that_fails_opens_nothing() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    // A file where the folder of issued certificates belongs.
    stage.site.db.write("/etc/pgfw/pki/issued", "");
    let failed = stage.pgfw.pgfw(&["cert", "issue", "alice"]);
    assert_fails(&failed, 1, &["/etc/pgfw/pki/issued"]);
    stage.pgfw.ok(&["allow", "192.168.9.0/24"]);
    assert_eq!(until(&stage), None);
    assert_eq!(stage.reach(&site.client), Reach::Silent);

    site.db
        .within(|| std::fs::remove_file("/etc/pgfw/pki/issued"))
        .unwrap();
    let into_a_file = stage.file("no-folder", "").join("bundle");
    let late = stage.pgfw.pgfw(&[
        "cert",
        "issue",
        "alice",
        "--bundle",
        into_a_file.to_str().unwrap(),
    ]);
    assert_fails(
        &late,
        1,
        &["is issued, and its bundle is not written", "no-folder"],
    );
    assert!(late.stdout.contains("Issued"), "{}", late.stdout);
    assert!(until(&stage).is_some());
}
