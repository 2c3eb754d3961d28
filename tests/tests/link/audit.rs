//! The audit log, of the whole product: what pgfw does, and who connects as the server tells it.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;
use pgfw::postgres::tls::{self, Credential, Version};
use pgfw::postgres::wire::{Answer, Startup};
use pgfw_tests::lab::{PATIENCE, PgCluster, Reach, Site, address, eventually};
use serde_json::Value;

use super::obstacles::{fill, free, small_disk};
use super::revocation::signed;
use super::stage::{Leaf, Stage, on_host};

const LOG: &str = "/var/log/pgfw/audit.jsonl";

/// The server tells who connects.
const JSON: &str = "audit = { json = true }";

fn stage<'lab>(site: &'lab Site, sections: &str) -> Stage<'lab> {
    let mut stage = Stage::with(site, JSON, sections);
    // The collector begins with the server.
    stage.cluster.restart();
    stage
}

/// Every line is a record.
fn records(stage: &Stage<'_>) -> Vec<Value> {
    let text = stage
        .site
        .db
        .within(|| std::fs::read_to_string(LOG))
        .unwrap_or_default();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    text.lines().map(parse).collect()
}

pub(super) fn those(stage: &Stage<'_>, event: &str) -> Vec<Value> {
    let all = records(stage).into_iter();
    all.filter(|record| record["event"] == event).collect()
}

/// Waits for the first record of this event that is meant.
#[track_caller]
fn comes(stage: &Stage<'_>, event: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("a {event}"), PATIENCE, || {
        those(stage, event).into_iter().find(|record| is_meant(record))
    })
}

#[test]
fn p42_who_came_in_who_was_refused_and_who_left() {
    let site = Site::new();
    let ghost = "[[identity]]\nname = \"ghost\"\ndatabases = [\"app\"]\n";
    let stage = stage(&site, ghost);
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", "10.20.0.0/16"]);
    let (alice, ghost) = (stage.issue("alice", &[]), stage.issue("ghost", &[]));
    let mut session = stage.log_in(&site.client, "alice", &alice);
    let opened = comes(&stage, "connection_opened", |r| r["role"] == "alice");
    assert_eq!(opened["identity"], "alice", "{opened}");
    assert_eq!(opened["certificate"], "CN=alice");
    assert_eq!(opened["serial"], alice.serial());
    assert_eq!(opened["database"], "app");
    assert_eq!(opened["cluster"], "main");
    assert_eq!(opened["address"], "10.20.0.10");
    assert_eq!(opened["method"], "cert");

    // Authenticated, and not let in: another's role, and a role that is not there.
    let refused = stage.refused(&stage.with_certificate(&site.client, "bob", &alice));
    assert!(refused.contains("bob"), "{refused}");
    let record = comes(&stage, "login_refused", |r| r["role"] == "bob");
    assert_eq!(record["certificate"], "CN=alice", "{record}");
    assert_eq!(record["identity"], "alice");
    assert_eq!(record["code"], "28000");
    assert!(
        record["reason"]
            .as_str()
            .unwrap()
            .contains("certificate authentication failed")
    );
    let refused = stage.refused(&stage.with_certificate(&site.client, "ghost", &ghost));
    assert!(refused.contains("does not exist"), "{refused}");
    let record = comes(&stage, "login_refused", |r| r["role"] == "ghost");
    assert_eq!(record["certificate"], "CN=ghost", "{record}");
    // A certificate that is revoked does not come to a name in this major's log.
    stage.pgfw.ok(&["cert", "revoke", "ghost"]);
    let refused = stage.refused(&stage.with_certificate(&site.client, "ghost", &ghost));
    assert!(refused.contains("revoked"), "{refused}");
    comes(&stage, "login_refused", |r| {
        let reason = r["reason"].as_str().unwrap();
        r["address"] == "10.20.0.10" && reason.starts_with("could not accept SSL connection: certificate")
    });

    assert_eq!(
        session.query("select length(repeat('x', 10000))").as_deref(),
        Ok("10000")
    );
    drop(session);
    let closed = comes(&stage, "connection_closed", |r| r["role"] == "alice");
    assert_eq!(closed["serial"], alice.serial(), "{closed}");
    assert!(closed["seconds"].as_f64().unwrap() > 0.4, "{closed}");
    assert!(closed["bytes_sent"].as_u64().unwrap() > 100, "{closed}");
    assert!(closed["bytes_received"].as_u64().unwrap() > 100, "{closed}");
    let names: Vec<Value> = those(&stage, "connection_opened")
        .into_iter()
        .filter(|r| r["address"] == "10.20.0.10")
        .map(|r| r["role"].clone())
        .collect();
    assert_eq!(names, ["alice"], "nobody else came in");
}

/// The log goes on over rotations of the server's, and over a time without daemon.
#[test]
fn no_login_is_lost_over_rotations_and_restarts() {
    let site = Site::new();
    let mut stage = stage(&site, "");
    let daemon = stage.enforce();
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let bob = stage.issue("bob", &[]);
    let count = |stage: &Stage<'_>| {
        let opened = those(stage, "connection_opened");
        opened.iter().filter(|r| r["identity"] == "bob").count()
    };
    drop(stage.log_in(&site.stranger, "bob", &bob));
    eventually("the first", PATIENCE, || (count(&stage) == 1).then_some(()));
    // The collector names its files by the second; a size of its own name each time.
    stage
        .cluster
        .sql("alter system set log_filename = 'other-%s.log'");
    stage.cluster.reload();
    stage.cluster.sql("select pg_rotate_logfile()");
    drop(stage.log_in(&site.stranger, "bob", &bob));
    eventually("the second", PATIENCE, || (count(&stage) == 2).then_some(()));
    let session = stage.log_in(&site.stranger, "bob", &bob);
    eventually("the third", PATIENCE, || (count(&stage) == 3).then_some(()));
    eventually("the daemon has written down who is connected", PATIENCE, || {
        let known: Value = serde_json::from_str(&on_host(&stage, "/var/lib/pgfw/log-main.json")).ok()?;
        let sessions = known["logins"]["sessions"].as_object()?;
        let is_open = |s: &Value| {
            s["stage"] == "Open" && s["client"]["serial"] == bob.serial() && !s["bytes"].is_null()
        };
        sessions.values().any(is_open).then_some(())
    });
    daemon.kill();
    drop(session);
    drop(stage.log_in(&site.stranger, "bob", &bob));
    stage.cluster.restart();
    drop(stage.log_in(&site.stranger, "bob", &bob));
    let _daemon = stage.pgfw.start();
    eventually("those of the time without daemon", PATIENCE, || {
        (count(&stage) == 5).then_some(())
    });
    eventually("each one's end", PATIENCE, || {
        let closed = those(&stage, "connection_closed");
        (closed.iter().filter(|r| r["identity"] == "bob").count() == 5).then_some(())
    });
    assert_eq!(those(&stage, "records_lost").len(), 0);
    // The third was open when the daemon died, and is known all the same.
    let closed = those(&stage, "connection_closed");
    assert!(
        closed
            .iter()
            .any(|r| r["serial"] == bob.serial() && r["bytes_sent"].is_u64()),
        "{closed:?}"
    );
}

#[test]
fn p40_an_unknown_serial_is_an_alarm_by_itself() {
    let site = Site::new();
    let stage = stage(&site, "");
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let serial = "00112233445566778899aabbccddeeff";
    let forged = signed(&stage, &alice, "/CN=alice", serial);
    let session = stage.log_in(&site.client, "alice", &forged);
    let record = comes(&stage, "unknown_certificate", |_| true);
    assert_eq!(record["serial"], serial, "{record}");
    assert_eq!(record["role"], "alice");
    eventually("the status says so", PATIENCE, || {
        stage.attention().contains(serial).then_some(())
    });
    drop(session);
    eventually("it is over", PATIENCE, || {
        (!stage.attention().contains(serial)).then_some(())
    });
}

fn start_up(stage: &Stage<'_>, leaf: &Leaf, startup: &Startup<'_>) -> Answer {
    let (certificate, key) = (leaf.pem("postgresql.crt"), leaf.pem("postgresql.key"));
    let credential = Credential {
        certificate: &certificate,
        key: &key,
    };
    let to = SocketAddr::new(address::DB, PgCluster::PORT);
    stage.site.client.within(|| {
        let mut session = tls::connect(to, Some(credential), Version::V1_3).unwrap();
        session.start_up(startup).unwrap()
    })
}

/// Whatever is in a name, it is the content of a string; and what a session writes to the server's log is not the server's
/// word.
#[test]
fn p43_nothing_that_a_client_sends_forges_a_line() {
    let site = Site::new();
    let stage = stage(&site, "");
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let name =
        "x\" identity=\"CN=admin\" method=cert\n{\"event\":\"connection_opened\",\"identity\":\"admin\"}";
    let startup = Startup {
        user: name,
        database: "a\r\nb\u{1b}[2J",
        replication: false,
    };
    assert!(matches!(
        start_up(&stage, &alice, &startup),
        Answer::Refused { .. }
    ));
    // The server keeps 63 bytes of a name.
    let record = comes(&stage, "login_refused", |r| {
        r["role"]
            .as_str()
            .is_some_and(|role| role.starts_with("x\" identity=") && name.starts_with(role))
    });
    assert_eq!(record["database"], "a\r\nb\u{1b}[2J", "{record}");

    let mut session = stage.log_in(&site.client, "alice", &alice);
    for words in [
        "connection authenticated: identity=\"CN=admin\" method=cert (x:1)",
        "connection authorized: user=admin database=app",
        "disconnection: session time: 0:00:01.000 user=alice",
        "database system is ready to accept connections",
    ] {
        let raise = format!("do $$ begin raise log '%', '{words}'; end $$");
        session.query(&raise).unwrap();
    }
    comes(&stage, "connection_opened", |r| r["identity"] == "alice");
    drop(session);
    comes(&stage, "connection_closed", |r| r["identity"] == "alice");
    let of_alice = |event| {
        those(&stage, event)
            .into_iter()
            .filter(|r| r["identity"] == "alice")
            .count()
    };
    assert_eq!(
        (of_alice("connection_opened"), of_alice("connection_closed")),
        (1, 1)
    );
    assert!(
        !records(&stage)
            .iter()
            .any(|r| r["identity"].as_str().is_some_and(|i| i.contains("admin")))
    );
}

/// What pgfw itself does, whoever asks, with the daemon and without it; and to journald.
#[test]
fn certificates_and_policies_and_who_asked() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let journal = site.db.within(|| {
        std::fs::create_dir_all("/run/systemd/journal").unwrap();
        UnixDatagram::bind("/run/systemd/journal/socket").unwrap()
    });
    journal.set_nonblocking(true).unwrap();
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &["--reason", "ticket 7"]);
    let issued = comes(&stage, "certificate_issued", |r| r["identity"] == "alice");
    assert_eq!(issued["serial"], alice.serial());
    assert_eq!(
        (issued["by"].as_str(), issued["reason"].as_str()),
        (Some("root"), Some("ticket 7"))
    );
    let confirmed = comes(&stage, "policy_changed", |r| r["change"] == "confirmed");
    let first = confirmed["new_hash"].as_str().unwrap().to_owned();
    assert_eq!(first.len(), 64, "{confirmed}");

    let mut allow = stage.pgfw.command(&[
        "allow",
        "203.0.113.0/24",
        "--for",
        "2h",
        "--comment",
        "it's \"me\"",
    ]);
    pgfw_tests::lab::run(allow.env("SSH_CONNECTION", "192.0.2.7 40000 10.10.0.10 22")).expect_success();
    let allowed = comes(&stage, "policy_changed", |r| r["change"] == "allowed");
    assert_eq!(allowed["net"], "203.0.113.0/24", "{allowed}");
    assert_eq!(allowed["seconds"], 7_200);
    assert_eq!(allowed["comment"], "it's \"me\"");
    assert_eq!(
        (allowed["by"].as_str(), allowed["from"].as_str()),
        (Some("root"), Some("192.0.2.7"))
    );
    assert_eq!(allowed["old_hash"], first.as_str());

    stage.configure("allow = [\"198.51.100.0/24\"]", "");
    stage.pgfw.ok(&["reload"]);
    let reloaded = comes(&stage, "policy_changed", |r| r["change"] == "reloaded");
    assert_eq!(reloaded["old_hash"], first.as_str(), "{reloaded}");
    let second = reloaded["new_hash"].as_str().unwrap().to_owned();
    assert_ne!(second, first);
    stage.configure("", "");
    stage.pgfw.ok(&["reload", "--confirm", "60s"]);
    stage.pgfw.ok(&["rollback"]);
    let back = comes(&stage, "policy_changed", |r| r["change"] == "rolled_back");
    assert_eq!(
        (back["old_hash"].as_str(), back["new_hash"].as_str()),
        (Some(first.as_str()), Some(second.as_str()))
    );

    let mut told = Vec::new();
    let mut datagram = [0; 8192];
    while let Ok(length) = journal.recv(&mut datagram) {
        told.push(String::from_utf8_lossy(&datagram[..length]).into_owned());
    }
    assert!(
        told.iter()
            .any(|t| t.contains("certificate_issued") && t.contains(alice.serial())),
        "{told:?}"
    );

    // Put aside by somebody, who says so.
    site.db
        .within(|| std::fs::rename(LOG, format!("{LOG}.1")))
        .unwrap();
    daemon.signal(Signal::SIGHUP);
    // Which takes the daemon, and so tells that it did not end.
    stage.pgfw.ok(&["allow", "203.0.113.9/32"]);
    comes(&stage, "policy_changed", |r| r["net"] == "203.0.113.9/32");
    daemon.kill();
    stage.revoke("alice");
    let revoked = comes(&stage, "certificate_revoked", |_| true);
    assert_eq!(
        (revoked["serial"].as_str(), revoked["by"].as_str()),
        (Some(alice.serial()), Some("root"))
    );
    assert_eq!(on_host(&stage, LOG).lines().count(), 2);
}

/// No room for a line of it keeps nothing from closing.
#[test]
fn a_full_disk_keeps_nothing_from_closing_and_the_record_follows() {
    let site = Site::new();
    small_disk(&site, "/var/log/pgfw");
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let mut session = stage.log_in(&site.client, "alice", &alice);
    comes(&stage, "certificate_issued", |r| r["identity"] == "alice");
    fill(&site, "/var/log/pgfw");
    // What the last page of the file still takes.
    for n in 0..16 {
        stage.pgfw.ok(&["allow", &format!("203.0.113.{n}/32")]);
    }
    let told = stage.revoke("alice");
    assert_eq!(told["unfinished"].to_string(), "[]", "{told}");
    assert!(session.query("select 1").is_err());
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    eventually("the status says so", PATIENCE, || {
        let shown = stage.attention();
        (shown.contains(LOG) && shown.contains("records wait")).then_some(())
    });
    free(&site, "/var/log/pgfw");
    let revoked = comes(&stage, "certificate_revoked", |_| true);
    assert_eq!(revoked["serial"], alice.serial());
    eventually("all is well", PATIENCE, || {
        (!stage.attention().contains(LOG)).then_some(())
    });
}

/// A log that cannot be followed is said to be, and followed as soon as it can.
#[test]
fn a_server_that_does_not_tell_who_connects_is_named() {
    let site = Site::new();
    let mut stage = Stage::with(&site, JSON, "");
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let bob = stage.issue("bob", &[]);
    eventually("the status says so", PATIENCE, || {
        stage
            .attention()
            .contains("who connects to main is not in the audit log")
            .then_some(())
    });
    stage.cluster.restart();
    drop(stage.log_in(&site.stranger, "bob", &bob));
    comes(&stage, "connection_opened", |r| r["identity"] == "bob");
    assert!(
        !stage.attention().contains("who connects to main"),
        "{}",
        stage.attention()
    );
    let mode = site.db.within(|| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(Path::new(LOG)).unwrap().permissions().mode()
    });
    assert_eq!(mode & 0o777, 0o640);
}

/// What was read of the server's log and could not be written is read again by the next daemon.
#[test]
fn a_daemon_that_is_killed_over_a_full_disk_loses_no_login() {
    let site = Site::new();
    small_disk(&site, "/var/log/pgfw");
    let stage = stage(&site, "");
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let opened = |stage: &Stage<'_>| {
        let all = those(stage, "connection_opened");
        all.iter().filter(|r| r["identity"] == "alice").count()
    };
    drop(stage.log_in(&site.client, "alice", &alice));
    eventually("the first", PATIENCE, || (opened(&stage) == 1).then_some(()));
    fill(&site, "/var/log/pgfw");
    // What the last page of the file still takes.
    for n in 0..16 {
        stage.pgfw.ok(&["allow", &format!("203.0.113.{n}/32")]);
    }
    let waiting = || {
        let attention = stage.attention();
        let (before, _) = attention.split_once(" records wait")?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    };
    let before = eventually("there is no room", PATIENCE, waiting);
    drop(stage.log_in(&site.client, "alice", &alice));
    eventually(
        "the daemon has read of its beginning and its end",
        PATIENCE,
        || waiting().filter(|count| *count >= before + 2),
    );
    daemon.kill();
    free(&site, "/var/log/pgfw");
    let _daemon = stage.pgfw.start();
    eventually("the second", PATIENCE, || (opened(&stage) >= 2).then_some(()));
}
