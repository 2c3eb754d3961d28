//! Gate and daemon die, and nothing that was open closes, nor opens what was closed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgfw::fault::VARIABLE;
use pgfw::ops::LEASES_PER_IDENTITY;
use pgfw_tests::lab::{PATIENCE, Reach, Site, eventually};

use super::stage::{Leaf, Stage};

/// Live leases, as the ledger's file has them.
fn ledger(stage: &Stage<'_>) -> BTreeSet<String> {
    stage.site.db.within(|| {
        let db = rusqlite::Connection::open("/var/lib/pgfw/ledger.db").unwrap();
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut found = db
            .prepare("SELECT address FROM leases WHERE end_wall > ?1")
            .unwrap();
        let rows = found.query_map([now], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    })
}

/// Which of these addresses the loaded program lets in.
fn filter<'a>(stage: &Stage<'_>, addresses: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let lets_in = |address: &&String| {
        stage
            .pgfw
            .pgfw(&["check", address, "--port", "5432", "--quiet"])
            .success()
    };
    addresses.filter(lets_in).cloned().collect()
}

#[test]
fn p36_leases_outlive_gate_and_daemon_and_a_boot() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (daemon, gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let lease = stage.lease(&site.stranger, &alice);
    let before = stage.leases();
    gate.kill();
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    daemon.kill();
    assert_eq!(stage.reach(&site.stranger), Reach::Open);

    // A gate without a daemon waits for one, and listens to nobody.
    let gate = stage.pgfw.start_gate_unready();
    eventually("the gate says what it lacks", PATIENCE, || {
        gate.log().contains("pgfw-gate.sock").then_some(())
    });
    let daemon = stage.pgfw.start();
    gate.listens();
    assert_eq!(stage.leases(), before);
    let shown = stage.curl(&site.stranger, &alice, "/lease", &[]);
    assert_eq!(shown.body["until"], lease.body["until"]);

    // A daemon that dies under a gate that runs.
    daemon.kill();
    let unanswered = stage.curl(&site.stranger, &alice, "/lease", &[]);
    assert_eq!(unanswered.status, 503, "{unanswered:?}");
    assert_eq!(unanswered.body["code"], "unreachable");
    assert_eq!(stage.reach(&site.stranger), Reach::Open);

    // The kernel is empty after a boot.
    stage.pgfw.ok(&["off"]);
    let _daemon = stage.pgfw.start();
    assert_eq!(stage.leases(), before);
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    assert_eq!(stage.curl(&site.stranger, &alice, "/lease", &[]).status, 200);
}

/// Killed between ledger and filter, the next start has both alike; whoever asked again is told the truth.
#[test]
fn p36_killed_at_each_step_of_a_lease_ledger_and_filter_agree() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    daemon.kill();
    let address = "192.168.1.10".to_owned();
    for (step, method, held) in [
        ("lease-recorded", "POST", true),
        ("lease-in-kernel", "POST", true),
        ("lease-recorded", "DELETE", false),
    ] {
        let mut daemon = stage
            .pgfw
            .start_command(stage.pgfw.command(&["run"]).env(VARIABLE, step));
        let answer = stage.curl(&site.stranger, &alice, "/lease", &["--request", method]);
        assert_eq!(answer.status, 503, "{step}: {answer:?}");
        daemon.wait(PATIENCE);
        let daemon = stage.pgfw.start();
        let recorded = ledger(&stage);
        assert_eq!(recorded.contains(&address), held, "{step} of {method}");
        assert_eq!(
            filter(&stage, [&address].into_iter()),
            recorded,
            "{step} of {method}"
        );
        daemon.kill();
    }
}

#[test]
fn p36_whoever_holds_as_many_as_there_are_gets_no_more_and_keeps_them() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let addresses: Vec<String> = (0..=LEASES_PER_IDENTITY)
        .map(|i| format!("192.168.1.{}", 20 + i))
        .collect();
    for address in &addresses {
        site.stranger.ip(&format!("address add {address}/24 dev eth0"));
    }
    let ask = |address: &String, method: &str| {
        let from = ["--interface", address.as_str(), "--request", method];
        stage.curl(&site.stranger, &alice, "/lease", &from)
    };
    let (last, all) = addresses.split_last().unwrap();
    for address in all {
        assert_eq!(ask(address, "POST").status, 200);
    }
    let refused = ask(last, "POST");
    assert_eq!((refused.status, &refused.body["code"]), (409, &"refused".into()));
    let held: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(ledger(&stage), held);
    assert_eq!(filter(&stage, addresses.iter()), held);
    // What is held can be held longer; what is given back makes room.
    assert_eq!(ask(&all[0], "POST").status, 200);
    assert_eq!(ask(&all[1], "DELETE").status, 200);
    assert_eq!(ask(last, "POST").status, 200);
}

/// Clients of the crowd, each of which takes a lease and gives it back or keeps it.
const CROWD: usize = 1_000;
const AT_A_TIME: usize = 8;

#[test]
fn p36_a_crowd_comes_and_goes_while_gate_and_daemon_are_killed() {
    let site = Site::new();
    let names: Vec<String> = (0..AT_A_TIME).map(|i| format!("crowd{i}")).collect();
    let sections: String = names
        .iter()
        .map(|name| format!("[[identity]]\nname = \"{name}\"\nroaming = true\n"))
        .collect();
    let stage = Stage::with(&site, "", &sections);
    let (daemon, gate) = stage.open();
    let leaves: Vec<Leaf> = names.iter().map(|name| stage.issue(name, &[])).collect();
    let addresses: Vec<String> = (20..20 + 24 * AT_A_TIME)
        .map(|i| format!("192.168.1.{i}"))
        .collect();
    for address in &addresses {
        site.stranger.ip(&format!("address add {address}/24 dev eth0"));
    }

    let (come, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut kills = 0;
    std::thread::scope(|scope| {
        for (leaf, own) in leaves.iter().zip(addresses.chunks(24)) {
            let (stage, site, come, served) = (&stage, &site, &come, &served);
            scope.spawn(move || {
                loop {
                    let number = come.fetch_add(1, Ordering::Relaxed);
                    if number >= CROWD {
                        return;
                    }
                    let address = &own[number % own.len()];
                    let ask = |method| {
                        let how = ["--interface", address, "--request", method, "--max-time", "5"];
                        let to = pgfw_tests::lab::address::DB;
                        let said = stage.try_curl(&site.stranger, leaf, to, "/lease", &how);
                        said.is_ok_and(|answer| answer.status == 200)
                    };
                    // Who finds nobody there goes, and comes as the next one.
                    if ask("POST") {
                        served.fetch_add(1, Ordering::Relaxed);
                        if number % 3 != 0 {
                            ask("DELETE");
                        }
                    }
                }
            });
        }
        let (mut daemon, mut gate) = (daemon, gate);
        let mut next = 40;
        while next < CROWD {
            eventually("the crowd goes on", PATIENCE, || {
                (come.load(Ordering::Relaxed) >= next).then_some(())
            });
            kills += 1;
            if kills % 2 == 0 {
                daemon.kill();
                daemon = stage.pgfw.start();
            } else {
                gate.kill();
                gate = stage.pgfw.start_gate();
            }
            next = come.load(Ordering::Relaxed) + 60;
        }
        // While some are still inside.
        daemon.kill();
        gate.kill();
    });
    let _daemon = stage.pgfw.start();
    let served = served.load(Ordering::Relaxed);
    assert!(
        kills > 3 && served > CROWD / 4,
        "{kills} kills, {served} of {CROWD} served"
    );
    let recorded = ledger(&stage);
    assert!(!recorded.is_empty());
    assert_eq!(filter(&stage, addresses.iter()), recorded);
}
