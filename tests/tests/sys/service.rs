//! What a service manager sees, played by the test: PID 1 is no systemd here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use pgfw_tests::lab::foreign::{ForeignProgram, attached};
use pgfw_tests::lab::{Daemon, EchoServer, PATIENCE, Site, address, eventually, join, run};

use super::{CONFIG, configured, is_open, is_silent};

const UNIT: &str = include_str!("../../../config/systemd/pgfw.service");

/// The values of a setting of the unit.
fn set(key: &str) -> Vec<&'static str> {
    let values = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).collect()
}

/// Waits for a message that has this line, and gives all that came before it.
#[track_caller]
fn hears(daemon: &Daemon, wanted: &str) -> Vec<String> {
    let mut heard = Vec::new();
    eventually(&format!("the service manager hears {wanted}"), PATIENCE, || {
        let notice = daemon.notice()?;
        let found = notice.lines().any(|line| line.starts_with(wanted));
        heard.push(notice);
        found.then_some(())
    });
    heard
}

#[test]
fn f39_ready_means_that_every_interface_that_is_there_carries_the_policy() {
    let site = Site::new();
    join((&site.router, "second"), (&site.db, "eth1"));
    let pgfw = configured(&site, &CONFIG.replace("eth0", "eth*"));
    pgfw.enforce().kill();
    pgfw.ok(&["off"]);
    let foreign = ForeignProgram::attach(&site.db, "eth1");
    let mut daemon = pgfw.start_unready(&mut pgfw.command(&["run"]));
    let before = hears(&daemon, "STATUS=Waits for eth1");
    assert!(!before.concat().contains("READY=1"), "{before:?}");
    assert!(attached(&site.db, "eth0").is_some(), "what can be covered is");
    let status = pgfw.status();
    assert_eq!(status.state(), "partly");
    assert!(
        status.summary().contains("and not on eth1"),
        "{}",
        status.summary()
    );
    foreign.detach(&site.db, "eth1");
    let before = hears(&daemon, "READY=1");
    assert!(!before.concat().contains("ready without"), "{before:?}");
    assert!(attached(&site.db, "eth1").is_some());
    let line = "STATUS=Protected: policy 1 is enforced on eth0, eth1.";
    if !before.concat().contains(line) {
        hears(&daemon, line);
    }
    daemon.signal(Signal::SIGTERM);
    hears(&daemon, "STOPPING=1");
    assert!(daemon.wait(PATIENCE).success());
}

#[test]
fn the_watchdog_is_fed_while_the_daemon_answers_and_not_while_it_hangs() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let limit = Duration::from_millis(400).as_micros().to_string();
    let daemon = pgfw.start_command(pgfw.command(&["run"]).env("WATCHDOG_USEC", limit));
    pgfw.ok(&["confirm"]);
    hears(&daemon, "WATCHDOG=1");
    hears(&daemon, "WATCHDOG=1");
    // Whoever holds this lock keeps the engine from its work.
    let lock = site.db.within(|| {
        let file = fs::File::open("/var/lib/pgfw/change.lock").unwrap();
        Flock::lock(file, FlockArg::LockExclusive).unwrap()
    });
    let mut waits = pgfw.command(&["allow", "10.99.0.0/16"]).spawn().unwrap();
    eventually("it is found to hang", PATIENCE, || {
        daemon.log().contains("this daemon hangs").then_some(())
    });
    while daemon.notice().is_some() {}
    let told = daemon.log().matches("this daemon hangs").count();
    eventually("it is found to hang still", PATIENCE, || {
        (daemon.log().matches("this daemon hangs").count() > told + 1).then_some(())
    });
    assert_eq!(daemon.notice(), None, "the watchdog is not fed");
    drop(lock);
    hears(&daemon, "WATCHDOG=1");
    assert!(waits.wait().unwrap().success());
}

#[test]
fn the_journal_gets_fields() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let journal = site.db.within(|| {
        fs::create_dir_all("/run/systemd/journal").unwrap();
        UnixDatagram::bind("/run/systemd/journal/socket").unwrap()
    });
    journal.set_nonblocking(true).unwrap();
    let _daemon = pgfw.start_command(pgfw.command(&["run"]).env("JOURNAL_STREAM", "1:1"));
    eventually("a line about eth0", PATIENCE, || {
        let mut buffer = vec![0; 65536];
        let length = journal.recv(&mut buffer).ok()?;
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let found = field(&entry, "PGFW_INTERFACE", "eth0");
        found.then(|| {
            for (name, value) in [
                ("PRIORITY", "6"),
                ("SYSLOG_IDENTIFIER", "pgfw"),
                ("MESSAGE", "attached"),
            ] {
                assert!(field(&entry, name, value), "{name}: {entry}");
            }
        })
    });
}

/// Whether an entry in the journal's own form has this field, as text or with its length before it.
fn field(entry: &str, name: &str, value: &str) -> bool {
    let length = String::from_utf8_lossy(&(value.len() as u64).to_le_bytes()).into_owned();
    entry.contains(&format!("{name}={value}\n")) || entry.contains(&format!("{name}\n{length}{value}\n"))
}

#[test]
fn systemctl_reload_asks_nothing_and_reloads() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let reload = set("ExecReload");
    // `+`: none of the unit's restrictions, in which no server of its own could try the rules (systemd.service(5)).
    assert_eq!(reload[0], "+/usr/local/bin/pgfw");
    pgfw.configure(&CONFIG.replace("allow = [", "allow = [\"192.168.1.0/24\", "));
    assert!(is_silent(&site.stranger, address::DB, 5432));
    pgfw.ok(&reload[1..]);
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(pgfw.status().0["pending"].is_null());
}

#[test]
fn the_unit_comes_before_what_it_protects_and_says_what_the_daemon_needs() {
    for (key, value) in [
        ("Type", "notify"),
        ("Before", "network-pre.target"),
        ("Before", "postgresql.service"),
        ("Wants", "network-pre.target"),
        ("RuntimeDirectory", "pgfw"),
        ("StateDirectory", "pgfw"),
        ("ReadWritePaths", "/sys/fs/bpf"),
    ] {
        assert!(set(key).contains(&value), "{key}={value}");
    }
    // It must not wait for what comes up after it.
    assert_eq!(set("After"), ["local-fs.target"]);
    assert!(!UNIT.contains("network-online.target\n"));
}

/// The calls of a set of systemd's, and of the sets in it.
fn calls_of(name: &str) -> BTreeSet<String> {
    let listed =
        run(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", name])).expect_success();
    let mut calls = BTreeSet::new();
    for word in listed
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        if word.starts_with('@') && word != name {
            calls.extend(calls_of(word));
        } else {
            calls.insert(word.to_owned());
        }
    }
    calls
}

#[test]
fn every_system_call_that_the_daemon_makes_is_one_that_the_unit_lets_it_make() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = {
        let plain = pgfw.command(&["run"]);
        let mut strace = pgfw.host().command("strace");
        strace.args(["-f", "-qq", "-o", "/run/calls"]);
        // Whatever becomes of strace, the daemon does not stay behind.
        strace.args(["setpriv", "--pdeathsig", "KILL"]);
        strace.arg(plain.get_program()).arg("run");
        pgfw.start_unready(&mut strace)
    };

    hears(&daemon, "READY=1");
    pgfw.ok(&["confirm"]);
    pgfw.ok(&["allow", address::STRANGER_NETWORK, "--for", "1h"]);
    pgfw.ok(&["remove", address::STRANGER_NETWORK, "--cut"]);
    pgfw.configure(&CONFIG.replace("10.20.0.0/16", "10.0.0.0/8"));
    pgfw.ok(&["reload", "--confirm", "1h"]);
    pgfw.ok(&["rollback"]);
    pgfw.ok(&["status", "--verbose"]);
    pgfw.ok(&["check", "10.20.0.10"]);
    pgfw.ok(&["off"]);
    let calls = site.db.read("/run/calls");
    let allowed: BTreeSet<String> = set("SystemCallFilter")
        .into_iter()
        .flat_map(|one| match one.strip_prefix('@') {
            Some(_) => calls_of(one),
            None => BTreeSet::from([one.to_owned()]),
        })
        .collect();
    assert!(
        allowed.contains("openat") && allowed.contains("bpf"),
        "{allowed:?}"
    );
    let made: BTreeSet<&str> = calls
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .nth(1)?
                .split_once('(')
                .map(|(name, _)| name)
        })
        .filter(|name| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    assert!(made.contains("bpf") && made.len() > 20, "{made:?}");
    let refused: Vec<&&str> = made.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
    // Sockets of families that it may have.
    let families = set("RestrictAddressFamilies");
    let opened: BTreeSet<&str> = calls
        .lines()
        .filter_map(|line| line.split_once(" socket(")?.1.split(',').next())
        .filter(|family| family.starts_with("AF_"))
        .collect();
    assert!(
        opened.iter().all(|family| families.contains(family)),
        "{opened:?}"
    );
    drop(daemon);
}
