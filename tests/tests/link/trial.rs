//! `pgfw pg apply --confirm`: rules that undo themselves, by the daemon, by nobody's daemon, after a reboot.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgfw_tests::lab::{PATIENCE, Site, eventually};
use serde_json::Value;

use super::stage::{Leaf, Stage, assert_fails};

const NOTE: &str = "/var/lib/pgfw/postgres/main/pending.json";
/// A person who is let in by the rules on trial, and by no others.
const CAROL: &str = "[[identity]]\nname = \"carol\"\n";

/// A managed server with a role for carol, and her certificate; its rules do not know her.
fn without_carol(site: &Site) -> (Stage<'_>, Leaf) {
    let stage = Stage::with(site, "", CAROL);
    stage.cluster.sql("create role carol login");
    let carol = stage.issue("carol", &[]);
    stage.configure("", "");
    stage.pgfw.ok(&["pg", "apply"]);
    // Opens the client's network in the filter.
    stage.issue("alice", &[]);
    (stage, carol)
}

fn gets_in(stage: &Stage<'_>, leaf: &Leaf) -> bool {
    let psql = stage.with_certificate(&stage.site.client, "carol", leaf);
    psql.open().is_ok()
}

#[track_caller]
fn try_carol_for(stage: &Stage<'_>, time: &str) -> String {
    stage.configure("", CAROL);
    try_for(stage, time)
}

#[track_caller]
fn try_for(stage: &Stage<'_>, time: &str) -> String {
    let said: Value =
        serde_json::from_str(&stage.pgfw.ok(&["--json", "pg", "apply", "--confirm", time])).unwrap();
    said[0]["undoes_itself"].as_str().unwrap().to_owned()
}

fn is_noted(stage: &Stage<'_>) -> bool {
    stage.site.db.within(|| Path::new(NOTE).exists())
}

#[track_caller]
fn await_undone(stage: &Stage<'_>) {
    eventually("it is undone", PATIENCE, || (!is_noted(stage)).then_some(()));
}

/// Processes of this host that wait for a deadline.
fn watchers(stage: &Stage<'_>) -> Vec<i32> {
    stage.site.db.within(|| {
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|process| process.file_name().to_str()?.parse().ok());
        all.filter(|pid: &i32| {
            let of = |name: &str| format!("/proc/{pid}/{name}");
            fs::read_link(of("ns/net")).is_ok_and(|net| net == own)
                && fs::read(of("cmdline")).is_ok_and(|line| line.windows(6).any(|word| word == b"settle"))
        })
        .collect()
    })
}

fn kill_watchers(stage: &Stage<'_>) {
    let pids = watchers(stage);
    assert!(!pids.is_empty(), "somebody waits for the deadline");
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn p17_the_daemon_undoes_what_nobody_confirms() {
    let site = Site::new();
    let (stage, carol) = without_carol(&site);
    let daemon = stage.enforce();
    let until = try_carol_for(&stage, "6s");
    kill_watchers(&stage);
    assert!(gets_in(&stage, &carol));
    assert!(stage.attention().contains(&until), "{}", stage.attention());
    await_undone(&stage);
    eventually("the daemon says so", PATIENCE, || {
        daemon.log().contains("not confirmed in time").then_some(())
    });
    assert!(!gets_in(&stage, &carol));
    assert!(!stage.attention().contains("undo themselves"));
}

#[test]
fn p17_with_the_daemon_dead_it_is_undone_as_well() {
    let site = Site::new();
    let (stage, carol) = without_carol(&site);
    try_carol_for(&stage, "4s");
    assert!(gets_in(&stage, &carol));
    // A config that does not parse keeps nobody from it.
    stage.pgfw.configure("[[postgres");
    await_undone(&stage);
    assert!(!gets_in(&stage, &carol));
    eventually("nobody waits any more", PATIENCE, || {
        watchers(&stage).is_empty().then_some(())
    });
}

/// The daemon died after it was told, its service is stopped, and the process that waits was killed: the next start.
#[test]
fn p17_the_next_start_undoes_what_is_overdue() {
    let site = Site::new();
    let (stage, carol) = without_carol(&site);
    try_carol_for(&stage, "1h");
    kill_watchers(&stage);
    // As a reboot leaves it.
    let note = site.db.read(NOTE);
    let mut note: Value = serde_json::from_str(&note).unwrap();
    note["trial"]["boot_id"] = "another".into();
    site.db.write(NOTE, &note.to_string());
    assert!(gets_in(&stage, &carol));
    assert_fails(
        &stage.pgfw.pgfw(&["confirm"]),
        1,
        &["`main`", "was not confirmed", "undone"],
    );
    assert!(!gets_in(&stage, &carol));

    try_carol_for(&stage, "1h");
    kill_watchers(&stage);
    let mut note: Value = serde_json::from_str(&site.db.read(NOTE)).unwrap();
    note["trial"]["boot_id"] = "another".into();
    site.db.write(NOTE, &note.to_string());
    let _daemon = stage.pgfw.start();
    await_undone(&stage);
    assert!(!gets_in(&stage, &carol));
}

#[test]
fn p17_what_is_confirmed_stays_and_what_is_rolled_back_is_gone_at_once() {
    let site = Site::new();
    let (stage, carol) = without_carol(&site);
    try_carol_for(&stage, "3s");
    let said = stage.pgfw.ok(&["confirm"]);
    assert!(
        said.contains("main: generation") && said.contains("is kept"),
        "{said}"
    );
    // Whoever waited for the deadline has nothing left to do.
    eventually("nobody waits any more", PATIENCE, || {
        watchers(&stage).is_empty().then_some(())
    });
    assert!(gets_in(&stage, &carol));
    let said = stage.pgfw.ok(&["pg", "settle"]);
    assert_eq!(said, "");

    stage.configure("", "");
    try_for(&stage, "1h");
    assert!(!gets_in(&stage, &carol));
    // One at a time, and no renewal on top of it.
    for command in [&["pg", "apply"][..], &["cert", "renew"]] {
        assert_fails(&stage.pgfw.pgfw(command), 1, &["`main`", "pgfw confirm"]);
    }
    let said = stage.pgfw.ok(&["rollback"]);
    assert!(said.contains("counts again"), "{said}");
    assert!(gets_in(&stage, &carol));
    assert_fails(&stage.pgfw.pgfw(&["confirm"]), 3, &["pgfw.sock"]);
    // What is undone can be applied for good.
    stage.pgfw.ok(&["pg", "apply"]);
    assert!(!gets_in(&stage, &carol));
}

/// A server that pgfw had never written to is what it was before, byte for byte; and with the daemon a policy and rules
/// on trial are kept by one word.
#[test]
fn p17_a_first_apply_can_be_tried_too() {
    let site = Site::new();
    let mut stage = Stage::bare(&site, "", "");
    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["cert", "server"]);
    let folder = stage.cluster.config_dir();
    let files = || -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<_> = site.db.within(|| {
            let entries = fs::read_dir(&folder).unwrap().flatten();
            let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
            paths.extend(
                fs::read_dir(folder.join("conf.d"))
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path()),
            );
            paths.retain(|path| path.is_file());
            let read = |path: &std::path::PathBuf| (path.display().to_string(), fs::read(path).unwrap());
            paths.iter().map(read).collect()
        });
        all.sort();
        all
    };
    let before = files();
    try_for(&stage, "1h");
    assert_ne!(files(), before);
    stage.pgfw.ok(&["rollback"]);
    assert_eq!(files(), before);
    assert_eq!(
        stage
            .cluster
            .sql("select count(*) from pg_file_settings where sourcefile like '%pgfw%'"),
        "0"
    );
    stage.cluster.restart();

    let _daemon = stage.pgfw.start();
    try_for(&stage, "1h");
    let said = stage.pgfw.ok(&["confirm"]);
    assert!(
        said.contains("is kept") && said.contains("is confirmed"),
        "{said}"
    );
    assert!(!is_noted(&stage));
}

/// A release gives back what was there before pgfw, not what nobody confirmed.
#[test]
fn p17_a_release_undoes_a_trial_first() {
    let site = Site::new();
    let (stage, carol) = without_carol(&site);
    try_carol_for(&stage, "1h");
    assert!(gets_in(&stage, &carol));
    stage.pgfw.ok(&["pg", "release", "--keep"]);
    assert!(!is_noted(&stage));
    assert!(!gets_in(&stage, &carol));
}
