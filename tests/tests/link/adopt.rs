//! `pgfw pg adopt`: what it prints of a server that runs is applied, and who got in before gets in after.

use std::fs;
use std::process::Command;

use pgfw_tests::lab::{
    Child, Instance, Namespace, PATIENCE, PgCluster, Psql, Site, address, eventually, run,
};
use serde_json::Value;

use super::stage::Stage;

/// Rules of a server that grew: roles by group and expression-like names, an included list, rejects in between.
const RULES: &str = r#"
local   all         postgres                        peer
local   all         all                             trust
host    all         mallory         0.0.0.0/0       reject
hostssl app         +staff          10.20.0.0/16    scram-sha-256
host    all         all             127.0.0.1/32    scram-sha-256
host    "odd, db"   @odd_roles      10.20.0.0/16    md5
host    sameuser    all             192.168.1.0/24  scram-sha-256
host    app         trusted         10.20.0.10/32   trust
host    replication standby         10.20.0.0/16    scram-sha-256
"#;

/// What `@odd_roles` holds: one role, whose name is another rule to whoever does not quote.
const ODD: &str = "\"o\"\"d, all\"\n";

const ROLES: &str = r#"
create role staff;
create role alice login password 'alice' in role staff;
create role bob login password 'bob';
create role mallory login password 'mallory' in role staff;
create role "o""d, all" login password 'odd';
create role trusted login;
create role standby login replication password 'standby';
create role silent login;
create database app; create database bob; create database "odd, db";
"#;

#[derive(Debug, Clone, Copy)]
struct Try {
    from: &'static str,
    role: &'static str,
    database: &'static str,
    sslmode: &'static str,
    /// Before, and after an apply of what was adopted.
    in_before: bool,
    in_after: bool,
}

fn tries() -> Vec<Try> {
    let row = |from, role, database, sslmode, in_before, in_after| Try {
        from,
        role,
        database,
        sslmode,
        in_before,
        in_after,
    };
    vec![
        row("client", "alice", "app", "require", true, true),
        row("client", "alice", "app", "disable", false, false),
        row("client", "alice", "postgres", "require", false, false),
        row("client", "bob", "app", "require", false, false),
        row("client", "mallory", "app", "require", false, false),
        row("client", "o\"d, all", "odd, db", "require", true, true),
        // Plaintext over the network is what a comment takes leave of.
        row("client", "o\"d, all", "odd, db", "disable", true, false),
        row("client", "o\"d, all", "app", "require", false, false),
        row("stranger", "bob", "bob", "require", true, true),
        row("stranger", "bob", "app", "require", false, false),
        row("stranger", "alice", "app", "require", false, false),
        // So is trust.
        row("client", "trusted", "app", "require", true, false),
        row("here", "alice", "postgres", "require", true, true),
        row("here", "bob", "app", "disable", true, true),
        row("here", "mallory", "app", "require", false, false),
        row("here", "silent", "app", "require", false, false),
        row("socket", "bob", "app", "disable", true, true),
        row("socket", "silent", "app", "disable", true, true),
    ]
}

fn gets_in(stage: &Stage<'_>, at: &Try) -> bool {
    let password = match at.role {
        "o\"d, all" => "odd",
        role => role,
    };
    let site = stage.site;
    let psql = match at.from {
        "socket" => Psql::as_user(&site.db, "postgres").set("host", "/run/postgresql"),
        "here" => over_network(site.db.namespace(), "127.0.0.1"),
        "client" => over_network(&site.client, &address::DB.to_string()),
        _ => over_network(&site.stranger, &address::DB.to_string()),
    };
    let psql = psql.set("user", at.role).set("dbname", at.database);
    let psql = psql.set("sslmode", at.sslmode).set("password", password);
    psql.query("select current_user").success()
}

fn over_network<'lab>(from: &'lab Namespace, to: &str) -> Psql<'lab> {
    Psql::at(from).set("host", to)
}

/// A server as it grew, with TLS by a certificate of its own.
fn grown(site: &Site) -> Stage<'_> {
    let stage = Stage::around(site, PgCluster::start_new(&site.db), Instance::new(&site.db));
    for statement in ROLES.split(';').map(str::trim).filter(|s| !s.is_empty()) {
        stage.cluster.sql(statement);
    }
    let folder = stage.cluster.config_dir();
    site.db.write(folder.join("pg_hba.conf"), RULES);
    site.db.write(folder.join("odd_roles"), ODD);
    let tls = "/etc/postgresql/tls";
    let mut openssl = site.db.command("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3",
    ]);
    openssl.args([
        "-subj",
        "/CN=db.example.com",
        "-addext",
        "subjectAltName=DNS:db.example.com,IP:10.10.0.10",
    ]);
    openssl.args([
        "-keyout",
        "/etc/postgresql/tls.key",
        "-out",
        "/etc/postgresql/tls.crt",
    ]);
    run(&mut openssl).expect_success();
    run(site
        .db
        .command("chown")
        .args(["postgres:", "/etc/postgresql/tls.key"]))
    .expect_success();
    // Settings of several files: where the rules are is said by one that is included, and what stands behind the included
    // folder has the last word.
    site.db.write(
        folder.join("conf.d/grown.conf"),
        &format!(
            "ssl_cert_file = '{tls}.crt'\nssl_key_file = '{tls}.key'\nhba_file = '{}/grown_hba.conf'\n",
            folder.display()
        ),
    );
    let conf = folder.join("postgresql.conf");
    let text = site.db.read(&conf);
    site.db
        .write(&conf, &format!("{text}\nssl = on\nlog_statement = 'mod'\n"));
    site.db
        .within(|| fs::rename(folder.join("pg_hba.conf"), folder.join("grown_hba.conf")))
        .unwrap();
    stage
}

#[test]
fn what_is_adopted_of_a_running_server_keeps_who_gets_in() {
    let site = Site::new();
    let mut stage = grown(&site);
    stage.cluster.sql("alter system set log_connections = on");
    stage.cluster.restart();
    for at in tries() {
        assert_eq!(gets_in(&stage, &at), at.in_before, "before: {at:?}");
    }

    // Nothing is there yet: no pgfw.toml, no state.
    let text = stage.pgfw.ok(&["pg", "adopt"]);
    let said: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "pg", "adopt"])).unwrap();
    assert_eq!(said["text"].as_str().unwrap(), text);
    let words = text.replace("\n#   ", " ");
    for expected in [
        "cluster = \"15/main\"",
        "grown_hba.conf line 6",
        "without any proof (trust)",
        "log_connections (line 3); `alter system reset` takes it out",
        "statements = \"mod\"",
        "log_statement (line ",
        "server_names = [\"db.example.com\", \"10.10.0.10\"]",
        "left out, since they have no password and so do not get in: postgres, silent, trusted",
        "plaintext: it lets clients in without TLS from 10.20.0.0/16",
        "roles = [\"o\\\"d, all\"]",
    ] {
        assert!(words.contains(expected), "no {expected:?} in:\n{text}");
    }

    stage
        .pgfw
        .configure(&format!("[firewall]\ninterfaces = [\"eth0\"]\n\n{text}"));
    stage.pgfw.ok(&["config", "check"]);
    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["cert", "server"]);
    stage.pgfw.ok(&["pg", "apply"]);
    // Not before the filter, and not behind it either.
    for at in tries() {
        assert_eq!(gets_in(&stage, &at), at.in_after, "after: {at:?}");
    }
    let _daemon = stage.enforce();
    for at in tries() {
        assert_eq!(gets_in(&stage, &at), at.in_after, "behind the filter: {at:?}");
    }
    let replicates = Psql::at(&site.client)
        .set("host", address::DB.to_string())
        .set("user", "standby")
        .set("password", "standby")
        .set("replication", "true");
    assert!(replicates.query("IDENTIFY_SYSTEM").success());

    // What is pgfw's is not adopted again.
    assert_fails(
        &stage,
        &["pg", "adopt"],
        &["15/main is pgfw's already", "grown_hba.conf"],
    );
}

/// A bare data directory beside a Debian cluster, and things that are broken: each named, the others printed all the same.
#[test]
fn each_server_is_found_by_its_own_files_and_what_is_broken_is_named() {
    let site = Site::new();
    let mut stage = grown(&site);
    stage.cluster.restart();
    let db = &site.db;
    // Never started, another port; its settings are in the data directory, and name other places.
    let as_postgres = |program: &str, arguments: &[&str]| {
        let mut command: Command =
            db.command_as_user(format!("/usr/lib/postgresql/15/bin/{program}"), "postgres");
        run(command
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .env("LC_ALL", "C"))
        .expect_success()
    };
    db.within(|| {
        fs::create_dir_all("/var/lib/pgsql/15").unwrap();
        let postgres = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        nix::unistd::chown("/var/lib/pgsql/15", Some(postgres.uid), None).unwrap();
    });
    let data = "/var/lib/pgsql/15/data";
    as_postgres(
        "initdb",
        &["-D", data, "--no-sync", "--no-locale", "--no-instructions"],
    );
    let conf = format!("{data}/postgresql.conf");
    let former = db.read(&conf);
    db.write(
        &conf,
        &format!("{former}\nport = 5444\nident_file = '{data}/maps'\ninclude 'more.conf'\n"),
    );
    db.write(
        format!("{data}/more.conf"),
        &format!("hba_file = '{data}/rules'\nlisten_addresses = '10.10.0.10, localhost'\n"),
    );
    db.write(
        format!("{data}/rules"),
        "# Ansible managed\nlocal all all peer map=m\nhostssl app alice 10.20.0.0/16 scram-sha-256\n\
         hostssl all all 10.20.0.0/16 scram-sha-256\n",
    );
    db.write(format!("{data}/maps"), "m root alice\n");
    // A cluster whose settings do not parse, and one whose file is gone.
    db.write("/etc/postgresql/15/broken/postgresql.conf", "port = \n= 5\n");
    run(db
        .command("chown")
        .args(["-R", "postgres:", "/etc/postgresql/15/broken"]))
    .expect_success();
    db.within(|| fs::create_dir_all("/etc/postgresql/15/gone"))
        .unwrap();

    let outcome = stage.pgfw.pgfw(&["pg", "adopt"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
    assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.stderr);
    for (line, words) in outcome
        .stderr
        .lines()
        .zip(["15/gone", "15/broken/postgresql.conf"])
    {
        assert!(line.contains(words), "{line}");
        assert!(
            outcome
                .stdout
                .replace("\n# ", " ")
                .contains(line.trim_start_matches("pgfw: ")),
            "{}",
            outcome.stdout
        );
    }
    stage.pgfw.configure(&format!(
        "[firewall]\ninterfaces = [\"eth0\"]\n\n{}",
        outcome.stdout
    ));
    stage.pgfw.ok(&["config", "check"]);
    let said = outcome.stdout.replace("\n#   ", " ");
    for expected in [
        "cluster = \"15/main\"",
        "data_directory = \"/var/lib/pgsql/15/data\"\nport = 5444\nmanage = \"render\"",
        "Ansible writes pg_hba.conf",
        "listen_addresses = [\"10.10.0.10\", \"localhost\"]",
        "\"local all all reject\"",
        "(root as alice)",
        "it is down",
        "they are not known while the server cannot be asked",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{}", outcome.stdout);
    }

    // By itself, running, with options that have the last word.
    stage.cluster.stop();
    db.write("/run/late_rules", "host app bob 10.20.0.0/16 md5\n");
    let mut command = db.command_as_user("/usr/lib/postgresql/15/bin/postgres", "postgres");
    command.args([
        "-D",
        data,
        "-p",
        "5455",
        "-c",
        "hba_file=/run/late_rules",
        "-k",
        "/tmp",
    ]);
    command.current_dir("/").env_clear().env("LC_ALL", "C");
    let mut server = Child::start(&mut command).talkative();
    eventually("the server runs", PATIENCE, || {
        assert!(!server.has_ended(), "{}", server.stderr());
        server.stderr().contains("ready to accept").then_some(())
    });
    let text = stage.pgfw.ok(&["pg", "adopt", data]);
    let said = text.replace("\n#   ", " ");
    for expected in [
        "port = 5455",
        "/run/late_rules line 1",
        "roles = [\"bob\"]",
        "which has the last word over pgfw's settings: port;",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{text}");
    }
    assert_fails(&stage, &["pg", "adopt", "nonsense"], &["`nonsense`"]);
}

#[track_caller]
fn assert_fails(stage: &Stage<'_>, arguments: &[&str], words: &[&str]) {
    let outcome = stage.pgfw.pgfw(arguments);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "no {word:?} in {}", outcome.stderr);
    }
}
