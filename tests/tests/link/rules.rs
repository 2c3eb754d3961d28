//! `pgfw pg who` and `pgfw pg verify`: what is said of rules and filter, beside what both do.

use std::fs;

use pgfw_tests::lab::{Namespace, Outcome, Site, join};
use serde_json::Value;

use super::stage::{Stage, assert_fails, on_host};

fn who(stage: &Stage, arguments: &[&str]) -> Value {
    let said = stage.pgfw.ok(&[&["--json", "pg", "who"], arguments].concat());
    let all: Value = serde_json::from_str(&said).unwrap();
    all[0].clone()
}

/// The live file, changed by hand.
fn edit(stage: &Stage, change: impl Fn(&str) -> String) {
    let live = stage.cluster.config_dir().join("pg_hba.conf");
    let text = on_host(stage, &live);
    let changed = change(&text);
    let target = stage.site.db.within(|| fs::canonicalize(&live)).unwrap();
    stage.site.db.within(|| fs::write(&target, changed)).unwrap();
}

#[test]
fn who_says_what_the_server_does() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let (alice, deputy, bob) = (
        stage.issue("alice", &[]),
        stage.issue("deputy", &[]),
        stage.issue("bob", &[]),
    );
    let client = ["--database", "app", "--from", "10.20.0.10"];
    for (leaf, cert, user, verdict) in [
        (&alice, "alice", "alice", "let_in"),
        (&deputy, "deputy", "alice", "let_in"),
        (&bob, "bob", "bob", "let_in"),
        (&bob, "bob", "alice", "refused"),
        (&alice, "alice", "bob", "refused"),
    ] {
        let said = who(&stage, &[&["--user", user, "--cert", cert], &client[..]].concat());
        assert_eq!(said["verdict"], verdict, "{said}");
        assert_eq!(said["method"], "cert", "{said}");
        assert_eq!(said["filter"]["verdict"], "pass", "{said}");
        let does = stage.with_certificate(&site.client, user, leaf).open();
        assert_eq!(does.is_ok(), verdict == "let_in", "{said}");
        // Where both stand: in files that the server reads.
        let line = &said["line"];
        let text = on_host(&stage, line["file"].as_str().unwrap());
        let number = line["number"].as_u64().unwrap() as usize;
        assert_eq!(text.lines().nth(number - 1), line["text"].as_str());
        assert_eq!(said["map_line"].is_object(), verdict == "let_in", "{said}");
    }
    let said = who(&stage, &[&["--user", "alice"], &client[..]].concat());
    assert_eq!(said["verdict"], "refused", "{said}");
    assert!(said["because"].as_str().unwrap().contains("--cert"), "{said}");
    let said = who(
        &stage,
        &[&["--user", "alice", "--plaintext"], &client[..]].concat(),
    );
    assert_eq!(
        (&said["verdict"], &said["method"]),
        (&"refused".into(), &"reject".into()),
        "{said}"
    );
    let said = who(
        &stage,
        &[
            "--user",
            "alice",
            "--replication",
            "--from",
            "10.20.0.10",
            "--cert",
            "alice",
        ],
    );
    assert_eq!(said["method"], "reject", "{said}");

    // The other layer is asked as well, and nobody is asked about what comes past it.
    let far = who(
        &stage,
        &[
            "--user",
            "bob",
            "--database",
            "app",
            "--from",
            "192.168.1.10",
            "--cert",
            "bob",
        ],
    );
    assert_eq!(
        (&far["verdict"], &far["filter"]["verdict"]),
        (&"let_in".into(), &"drop".into()),
        "{far}"
    );
    let own = who(
        &stage,
        &[
            "--user",
            "bob",
            "--database",
            "app",
            "--from",
            "10.10.0.10",
            "--cert",
            "bob",
        ],
    );
    assert_eq!(own["filter"]["verdict"], "unknown", "{own}");
    let socket = who(&stage, &["--user", "postgres", "--os-user", "root"]);
    assert_eq!(
        (&socket["verdict"], &socket["filter"]),
        (&"let_in".into(), &Value::Null),
        "{socket}"
    );
    let socket = who(&stage, &["--user", "postgres", "--os-user", "nobody"]);
    assert_eq!(socket["verdict"], "refused", "{socket}");

    // For people.
    let text = stage.pgfw.ok(&[
        "pg",
        "who",
        "main",
        "--user",
        "bob",
        "--database",
        "app",
        "--from",
        "192.168.1.10",
        "--cert",
        "bob",
    ]);
    for word in [
        "main: let in: the map lets certificate bob be bob",
        "pg_hba.conf line ",
        "! the filter drops it",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_fails(
        &stage.pgfw.pgfw(&["pg", "who", "mian", "--user", "bob"]),
        1,
        &["`mian`", "main"],
    );
    assert_eq!(stage.pgfw.pgfw(&["pg", "who"]).code, Some(2));
}

/// Groups are the server's to know; what is written and not loaded is said to be so.
#[test]
fn who_does_not_guess() {
    let site = Site::new();
    let mut stage = Stage::new(&site);
    stage.cluster.sql("create role staff; grant staff to alice");
    edit(&stage, |text| {
        format!("host app +staff 10.20.0.0/16 scram-sha-256\n{text}")
    });
    let client = ["--database", "app", "--from", "10.20.0.10", "--cert", "alice"];
    let alice = [&["--user", "alice"], &client[..]].concat();
    let said = who(&stage, &alice);
    assert_eq!(
        (&said["verdict"], &said["line"]["number"]),
        (&"asked".into(), &1.into()),
        "{said}"
    );
    assert!(
        said["notes"]
            .to_string()
            .contains("changed after the server loaded"),
        "{said}"
    );
    let bob = who(&stage, &[&["--user", "bob"], &client[..]].concat());
    assert_eq!(bob["method"], "cert", "{bob}");

    stage.cluster.stop();
    let said = who(&stage, &alice);
    assert_eq!(said["verdict"], "undecided", "{said}");
    assert!(
        said["because"].as_str().unwrap().contains("member of \"staff\""),
        "{said}"
    );
    assert!(said["notes"].to_string().contains("the server is down"), "{said}");

    edit(&stage, |text| format!("{text}host all all trust\n"));
    let said = who(&stage, &alice);
    assert_eq!(said["verdict"], "undecided", "{said}");
    assert!(
        said["because"].as_str().unwrap().contains("does not start"),
        "{said}"
    );
}

const EXPORTER: &str = r#"
[[login]]
name = "exporter"
method = "scram-sha-256"
databases = ["postgres"]
networks = ["127.0.0.1/32"]
plaintext = "loopback"
"#;

/// Without identities that may come from anywhere, so that addresses tell.
fn narrow(stage: &Stage) {
    let text = super::stage::CONFIG
        .replace("CLUSTER", &stage.cluster.name())
        .replace("KEYS", "");
    let (head, _) = text.split_once("[[identity]]\nname = \"bob\"").unwrap();
    stage.pgfw.configure(&format!("{head}{EXPORTER}"));
}

fn verify(stage: &Stage) -> (Outcome, Value) {
    let outcome = stage.pgfw.pgfw(&["--json", "pg", "verify"]);
    let all: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    (outcome, all[0].clone())
}

/// The classes that are found, each once.
#[track_caller]
pub(crate) fn finds(stage: &Stage, classes: &[&str], words: &[&str]) {
    let (outcome, said) = verify(stage);
    let findings = said["findings"].as_array().unwrap();
    let mut found: Vec<&str> = findings.iter().map(|f| f["class"].as_str().unwrap()).collect();
    found.dedup();
    assert_eq!(found, classes, "{said:#}");
    assert_eq!(outcome.code, Some(i32::from(!classes.is_empty())), "{said:#}");
    for word in words {
        assert!(said.to_string().contains(word), "no {word:?} in {said:#}");
    }
}

#[test]
fn verify_finds_where_filter_and_rules_part() {
    let site = Site::new();
    let stage = Stage::new(&site);
    narrow(&stage);
    stage.cluster.sql("create role exporter login");
    stage.issue("alice", &[]);
    stage.pgfw.ok(&["pg", "apply"]);
    finds(
        &stage,
        &["no_filter", "uncovered_interface"],
        &["no policy judges", "listens on eth0"],
    );
    let _daemon = stage.enforce();
    finds(&stage, &[], &["rules only", "127.0.0.1/32 scram-sha-256"]);
    let said = stage.pgfw.ok(&["pg", "verify", "main"]);
    assert!(said.contains("main: filter and rules agree."), "{said}");

    stage.pgfw.ok(&["allow", "192.168.1.0/24"]);
    finds(
        &stage,
        &["no_rule"],
        &[
            "the filter admits 192.168.1.0/24, and",
            "192.168.1.0/24 is open by `pgfw allow`",
        ],
    );
    stage.pgfw.ok(&["deny", "192.168.1.0/25"]);
    finds(&stage, &["no_rule"], &["the filter admits 192.168.1.128/25, and"]);
    stage.pgfw.ok(&["remove", "192.168.1.0/24"]);
    stage.pgfw.ok(&["remove", "192.168.1.0/25"]);
    finds(&stage, &[], &[]);

    let beyond = Namespace::new("beyond");
    join((site.db.namespace(), "extra"), (&beyond, "eth0"));
    site.db.ip("address add 10.99.0.10/24 dev extra");
    finds(&stage, &["uncovered_interface"], &["listens on extra"]);
    site.db.ip("link delete extra");

    stage.revoke("alice");
    finds(
        &stage,
        &["cannot_arrive"],
        &["10.20.0.0/16 cert", "admits none of its addresses"],
    );
    stage.issue("alice", &[]);
    finds(&stage, &[], &[]);

    stage.pgfw.configure(
        &on_host(&stage, "/etc/pgfw/pgfw.toml").replace("[firewall]\n", "[firewall]\nmode = \"audit\"\n"),
    );
    stage.pgfw.ok(&["reload", "--yes"]);
    finds(&stage, &["no_filter"], &["drops nothing"]);
}

#[test]
fn verify_finds_rules_that_do_nothing_and_hands_in_files() {
    let site = Site::new();
    let mut stage = Stage::new(&site);
    narrow(&stage);
    stage.cluster.sql("create role exporter login");
    stage.issue("alice", &[]);
    stage.pgfw.ok(&["pg", "apply"]);
    let _daemon = stage.enforce();
    finds(&stage, &[], &[]);
    let live = stage.cluster.config_dir().join("pg_hba.conf");
    let own = on_host(&stage, &live);

    // Behind the last rejects nothing comes.
    edit(&stage, |text| {
        format!("{text}host app alice 10.20.0.0/16 trust\n")
    });
    finds(
        &stage,
        &["shadowed", "drift"],
        &["`host app alice 10.20.0.0/16 trust`) lets nobody in"],
    );
    edit(&stage, |_| {
        format!("host all all 10.20.0.0/16 scram-sha-256\n{own}")
    });
    finds(
        &stage,
        &["shadowed", "plaintext", "drift"],
        &[
            "all of it is decided before, by pg_hba.conf line 1",
            "without TLS from 10.20.0.0/16",
        ],
    );
    edit(&stage, |_| format!("host all mallory 10.77.0.0/16 reject\n{own}"));
    finds(&stage, &["idle_reject", "drift"], &["10.77.0.0/16 reject"]);
    // The login's own plaintext is what was asked for, and no more.
    edit(&stage, |_| {
        format!("hostnossl postgres exporter 127.0.0.0/31 scram-sha-256\n{own}")
    });
    finds(
        &stage,
        &["shadowed", "plaintext", "drift"],
        &["without TLS from 127.0.0.0/32"],
    );
    edit(&stage, |_| own.clone());
    finds(&stage, &[], &[]);

    stage.cluster.sql("alter system set log_connections = off");
    stage.cluster.sql("select pg_reload_conf()");
    finds(
        &stage,
        &["overridden"],
        &["log_connections", "postgresql.auto.conf"],
    );
    stage.cluster.sql("alter system reset log_connections");
    stage.cluster.sql("select pg_reload_conf()");

    edit(&stage, |_| format!("{own}local all\n"));
    finds(
        &stage,
        &["drift", "unfit_for_restart"],
        &["end-of-line before role"],
    );
    edit(&stage, |_| own.clone());
    stage.cluster.stop();
    finds(&stage, &[], &["the server is down"]);
    let conf = stage.cluster.config_dir().join("postgresql.conf");
    let text = on_host(&stage, &conf);
    site.db
        .within(|| fs::write(&conf, format!("{text}\nport = nonsense\n")))
        .unwrap();
    finds(&stage, &["unfit_for_restart"], &["postgresql.conf"]);
    site.db.within(|| fs::write(&conf, text)).unwrap();
    assert_fails(
        &stage.pgfw.pgfw(&["pg", "verify", "mian"]),
        1,
        &["`mian`", "main"],
    );
}
