//! What a managed server's settings come to; sessions that a revocation ends.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use pgfw::clock::Now;
use pgfw::postgres::tls::{self, Version};
use pgfw::postgres::wire::Answer;
use pgfw::postgres::{Server, Target, cut_off, decimal, inspect, sessions, shown_dn};
use pgfw_tests::scratch::managed::{Managed, at, credential, log_in, steps, to};
use pgfw_tests::scratch::pki::Leaf;
use pgfw_tests::scratch::{Installed, Scratch, on_each_major, until, write};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ALICE: &str = "[[identity]]\nname = \"alice\"\nnetworks = [\"127.0.0.0/8\"]\n";

/// Each audit setting is in force, or said to be pending, or said to count for nothing.
#[test]
fn p15_audit_settings_count_or_are_said_not_to() {
    on_each_major(audit_settings);
}

fn audit_settings(server: &Installed) {
    let mut managed = Managed::new(server.start());
    managed.scratch.sql("create role alice login");
    let audit = "audit = { connections = true, statements = \"mod\", json = true, pgaudit = [\"ddl\"] }\n";
    let config = managed.config(audit, ALICE);
    let applied = managed.apply(&config).unwrap();
    assert_eq!(applied.pending_restart, ["logging_collector"]);
    let [note] = applied.notes.as_slice() else {
        panic!("{:?}", applied.notes)
    };
    let installed = server.programs.join("../lib/pgaudit.so").exists();
    let install = format!("Install postgresql-{}-pgaudit, set", server.major);
    assert!(
        note.contains(&install) != installed && note.contains("shared_preload_libraries = 'pgaudit'"),
        "{note}"
    );
    managed.scratch.stop();
    managed.scratch.run();
    assert_eq!(managed.apply(&config).unwrap().pending_restart, [""; 0]);
    managed.scratch.sql("create table written (x int)");
    let leaf = managed.clients.client("alice", &[7]);
    assert_eq!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    let log = || -> String {
        let files = fs::read_dir(managed.scratch.data().join("log"))
            .unwrap()
            .flatten();
        let json = files
            .map(|f| f.path())
            .filter(|f| f.extension().is_some_and(|e| e == "json"));
        json.map(|f| fs::read_to_string(f).unwrap()).collect()
    };
    until("the log says it", || {
        let log = log();
        let lines: Vec<serde_json::Value> =
            log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let said = |part: &str| {
            lines
                .iter()
                .any(|l| l["message"].as_str().is_some_and(|m| m.contains(part)))
        };
        said("statement: create table written") && said("identity=\"CN=alice\"") && said("user=alice")
    });
    // Left out, where the log goes is not pgfw's.
    managed.apply(&managed.config("", ALICE)).unwrap();
    assert_eq!(managed.scratch.sql("show log_destination"), "stderr");
}

/// No address at all: the Unix socket goes on, from the server's next start.
#[test]
fn p15_no_listen_address_is_the_unix_socket_alone() {
    let mut managed = Managed::new(Scratch::start());
    let config = managed.config("listen_addresses = []\n", ALICE);
    assert_eq!(
        managed.apply(&config).unwrap().pending_restart,
        ["listen_addresses"]
    );
    assert!(log_in(HERE, None, &to("alice", "postgres")).is_ok());
    managed.scratch.stop();
    managed.scratch.run();
    assert!(log_in(HERE, None, &to("alice", "postgres")).is_err());
    assert_eq!(managed.scratch.sql("show listen_addresses"), "");
    let applied = managed.apply(&config).unwrap();
    assert_eq!(steps(&applied.steps), ["rules", "no tcp"]);
    assert_eq!(applied.pending_restart, [""; 0]);
    // And the rules still change under it.
    let changed = managed
        .apply(&managed.config("listen_addresses = []\n", ""))
        .unwrap();
    assert_eq!(
        steps(&changed.steps),
        ["written", "tried", "switched", "reloaded", "rules", "no tcp"]
    );
}

/// An address that is not there yet is a warning, and the server runs without it until its next start.
#[test]
fn a_listen_address_that_comes_later_counts_from_the_next_start() {
    let mut managed = Managed::new(Scratch::stopped());
    let config = managed.config("listen_addresses = [\"127.0.0.1\", \"10.9.9.9\"]\n", ALICE);
    managed.apply(&config).unwrap();
    managed.scratch.run();
    let there: IpAddr = "10.9.9.9".parse().unwrap();
    assert!(
        managed
            .scratch
            .log()
            .contains("could not bind IPv4 address \"10.9.9.9\"")
    );
    pgfw_tests::scratch::add_address("10.9.9.9/32");
    assert!(log_in(there, None, &to("alice", "postgres")).is_err());
    assert!(log_in(HERE, None, &to("alice", "postgres")).is_ok());
    managed.scratch.stop();
    managed.scratch.run();
    assert!(log_in(there, None, &to("alice", "postgres")).is_ok());
}

/// What needs a restart is said to be pending until then.
#[test]
fn p15_what_needs_a_restart_is_pending_until_then() {
    let mut managed = Managed::new(Scratch::start());
    let config = managed.config("listen_addresses = [\"127.0.0.1\"]\n", ALICE);
    let applied = managed.apply(&config).unwrap();
    assert_eq!(applied.pending_restart, ["listen_addresses"]);
    managed.scratch.stop();
    managed.scratch.run();
    assert_eq!(managed.apply(&config).unwrap().pending_restart, [""; 0]);
}

/// A setting of pgfw's that something else has the last word on is named with what has it: by the apply and by verify.
#[test]
fn p16_what_is_overridden_is_named() {
    on_each_major(|server| {
        let mut managed = Managed::new(server.start());
        let config = managed.config("", ALICE);
        let is_named = |managed: &Managed, expected: &[(&str, &str)]| {
            let applied = managed.apply(&config).unwrap();
            let found: Vec<(&str, &str)> = applied
                .overridden
                .iter()
                .map(|o| (o.name.as_str(), o.by.as_str()))
                .collect();
            assert_eq!(found, expected);
            let found = Server::find(&config.postgres[0]).unwrap();
            let seen = inspect(&config.postgres[0], &config, &managed.paths, &found).unwrap();
            let sentences = applied.overridden.iter().map(|o| {
                let (name, place, remedy) = (&o.name, o.place(), o.remedy());
                format!("{name} of pgfw.conf does not count: {place} has the last word; {remedy}.")
            });
            assert_eq!(seen.overridden, sentences.collect::<Vec<_>>());
        };
        let file = |name: &str| managed.scratch.data().join(name).display().to_string();
        let (main, auto) = (file("postgresql.conf"), file("postgresql.auto.conf"));
        is_named(&managed, &[]);
        // Before the include it is pgfw's that counts.
        let text = fs::read_to_string(&main).unwrap();
        write(Path::new(&main), &format!("log_statement = 'none'\n{text}"));
        is_named(&managed, &[]);
        // After it, in whatever case the name is written.
        managed
            .scratch
            .configure("\nLog_Connections = off\nlog_disconnections off\nwork_mem = '8MB'\n");
        is_named(
            &managed,
            &[("log_connections", &main), ("log_disconnections", &main)],
        );
        // postgresql.auto.conf is read last of all.
        managed.scratch.sql("alter system set log_statement = 'none'");
        managed.scratch.sql("alter system set log_connections = on");
        let by_files = [
            ("log_connections", auto.as_str()),
            ("log_disconnections", main.as_str()),
            ("log_statement", auto.as_str()),
        ];
        is_named(&managed, &by_files);
        // The command line is above every file, and says nothing of what is not pgfw's.
        managed.scratch.sql("alter system reset all");
        write(Path::new(&main), &text);
        managed.scratch.stop();
        managed.scratch.run_with(&["log_statement=none", "work_mem=16MB"]);
        is_named(&managed, &[("log_statement", "command line")]);
        managed.scratch.stop();
        managed.scratch.run();
        is_named(&managed, &[]);
    });
}

/// A file of an include_dir that sorts after pgfw's has the last word.
#[test]
fn p16_a_later_file_of_an_include_dir_is_named() {
    let mut managed = Managed::new(Scratch::stopped());
    let folder = managed.scratch.data().join("conf.d");
    fs::create_dir(&folder).unwrap();
    managed.scratch.configure("include_dir = 'conf.d'\n");
    managed.scratch.run();
    let config = managed.config("", ALICE);
    for name in ["aa-before.conf", "zz-zz-after.conf"] {
        write(&folder.join(name), "log_statement = 'none'\n");
    }
    let applied = managed.apply(&config).unwrap();
    let [other] = applied.overridden.as_slice() else {
        panic!("{:?}", applied.overridden)
    };
    assert_eq!(other.name, "log_statement");
    assert!(other.by.ends_with("conf.d/zz-zz-after.conf"), "{}", other.by);
    fs::remove_file(folder.join("zz-zz-after.conf")).unwrap();
    assert_eq!(managed.apply(&config).unwrap().overridden, []);
}

fn target(managed: &Managed, leaf: &Leaf) -> Target {
    Target {
        serial: decimal(&leaf.serial),
        issuer: shown_dn(&managed.clients.der),
    }
}

/// A psql that logs in with a certificate and waits for its input to end.
fn psql(managed: &Managed, leaf: &Leaf, name: &str) -> std::process::Child {
    let file = |suffix: &str, content: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = managed.scratch.place(&format!("{name}.{suffix}"));
        write(&path, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        path.display().to_string()
    };
    let (certificate, key) = (file("crt", &leaf.certificate), file("key", &leaf.key));
    Command::new("/usr/bin/psql")
        .arg(format!(
            "host=127.0.0.1 user=alice dbname=postgres sslmode=require sslcert={certificate} sslkey={key} \
             application_name={name}"
        ))
        .arg("-Xq")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql")
}

/// Revoked: the sessions of that certificate end, another certificate's of the same role go on; the next login fails,
/// without a reload.
#[test]
fn p30_p31_revoked_sessions_end_and_logins_fail() {
    on_each_major(sessions_end);
}

fn sessions_end(server: &Installed) {
    let managed = Managed::new(server.start());
    managed.scratch.sql("create role alice login");
    let config = managed.config("", ALICE);
    let cluster = &config.postgres[0];
    managed.apply(&config).unwrap();
    // 20 octets, as issued ones have.
    let lost = managed.clients.client("alice", &[0x7f; 20]);
    let kept = managed.clients.client("alice", &[0x7e; 20]);
    let mut psqls = [psql(&managed, &lost, "lost"), psql(&managed, &kept, "kept")];
    let live = || -> Vec<String> {
        let all = sessions(cluster).unwrap();
        all.into_iter()
            .filter(|s| s.serial.is_some())
            .map(|s| {
                assert_eq!(
                    (s.role.as_deref(), s.issuer.as_deref()),
                    (Some("alice"), Some("/CN=clients"))
                );
                s.application.unwrap()
            })
            .collect()
    };
    until("both have logged in", || live().len() == 2);

    managed.clients.publish(&managed.material.crl_dir, &[&lost]);
    let since = Now::read().boot;
    // Another authority's certificate with this serial is another certificate.
    let other = Target {
        issuer: Some("/CN=others".to_owned()),
        ..target(&managed, &lost)
    };
    assert_eq!(cut_off(cluster, &[other], since).unwrap().sessions, []);
    let cut = cut_off(cluster, &[target(&managed, &lost)], since).unwrap();
    assert_eq!(cut.sessions.len(), 1);
    assert_eq!(live(), ["kept"]);

    let error = log_in(HERE, Some(&lost), &to("alice", "postgres")).unwrap_err();
    assert!(error.to_string().contains("CertificateRevoked"), "{error}");
    assert_eq!(
        log_in(HERE, Some(&kept), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    for child in &mut psqls {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

/// A handshake from before the revocation, a start-up packet from after it: refused. A connection from after it that
/// has not logged in yet is left alone.
#[test]
fn p30_a_finished_handshake_does_not_outlive_the_revocation() {
    on_each_major(handshake_ends);
}

fn handshake_ends(server: &Installed) {
    let managed = Managed::new(server.start());
    managed.scratch.sql("create role alice login");
    let config = managed.config("min_tls = \"1.2\"\n", ALICE);
    let cluster = &config.postgres[0];
    managed.apply(&config).unwrap();
    let lost = managed.clients.client("alice", &[0x7f; 16]);
    let kept = managed.clients.client("alice", &[0x7e; 16]);
    // Under TLS 1.2 the handshake is over for both sides when it is for one.
    let shake = |leaf| tls::connect(at(HERE), Some(credential(leaf)), Version::V1_2).unwrap();
    let mut waiting = shake(&lost);

    managed.clients.publish(&managed.material.crl_dir, &[&lost]);
    let since = Now::read().boot;
    // The age of a process is known to 10 ms.
    until("the clock has moved on", || {
        Now::read().boot.0 > since.0 + 20_000_000
    });
    let mut later = shake(&kept);
    let cut = cut_off(cluster, &[target(&managed, &lost)], since).unwrap();
    assert_eq!(cut.half_open, 1);
    assert!(waiting.start_up(&to("alice", "postgres")).is_err());
    assert_eq!(later.start_up(&to("alice", "postgres")).unwrap(), Answer::Ok);
}
