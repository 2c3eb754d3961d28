//! docs/guides/standby.md: a real standby streams from a real primary, each behind its own pgfw.

use std::os::unix::fs::chown;
use std::path::Path;

use nix::unistd::User;
use pgfw_tests::lab::{Host, Instance, PATIENCE, PgCluster, Psql, eventually, run};
use serde_json::Value;

use super::guide::Guide;
use super::lan::{DB, Lan, configured, counted, is_refused, is_refused_at, v4};

const STANDBY: u8 = 11;
const PORT: u16 = PgCluster::PORT;

/// Where the guide puts what `cert issue --bundle` made.
const CREDENTIALS: &str = "/var/lib/postgresql/standby";

/// Brings a bundle to the standby, in the hands of the server's user.
fn bring(bundle: &Path, standby: &Host) {
    let owner = User::from_name("postgres").unwrap().unwrap();
    let files = ["root.crt", "postgresql.crt", "postgresql.key"];
    standby.within(|| {
        std::fs::create_dir_all(CREDENTIALS).unwrap();
        for file in files {
            let to = Path::new(CREDENTIALS).join(file);
            std::fs::copy(bundle.join(file), &to).unwrap();
            chown(&to, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        }
    });
}

/// Replaces a new cluster by a copy of the primary, as the guide says.
fn copy(cluster: &mut PgCluster<'_>, standby: &Host, conninfo: &str) {
    cluster.stop();
    standby.within(|| std::fs::remove_dir_all(cluster.data_dir()).unwrap());
    let mut backup = standby.command_as_user("pg_basebackup", "postgres");
    backup.arg("--pgdata").arg(cluster.data_dir());
    backup.args([
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
        "--dbname",
        conninfo,
    ]);
    backup
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent");
    run(&mut backup).expect_success();
    cluster.start();
}

fn streams(primary: &PgCluster<'_>) -> bool {
    primary.sql(
        "select count(*) from pg_stat_replication where state = 'streaming' and client_addr = '10.10.0.11'",
    ) == "1"
}

#[track_caller]
fn arrives(primary: &PgCluster<'_>, standby: &PgCluster<'_>, table: &str) {
    primary.sql(&format!("create table {table} as select 42 as answer"));
    eventually("the standby has what the primary wrote", PATIENCE, || {
        let found = standby.psql().query(&format!("select answer from {table}"));
        (found.stdout == "42\n").then_some(())
    });
}

#[test]
fn p39_a_standby_streams_while_its_certificate_is_good() {
    let lan = Lan::new();
    let guide = Guide::read("standby");
    let settings = guide.block("postgresql.auto.conf on the standby");
    let conninfo = settings.split('\'').nth(1).unwrap();
    let standby = lan.host("standby", STANDBY);
    let third = lan.neighbour("third", STANDBY + 1);
    let primary = PgCluster::start_new(&lan.db);
    primary.sql("create role standby login replication");

    let pgfw = configured(&lan.db, &guide.block("pgfw.toml on the primary"), Some(&primary));
    for command in [["ca", "init"], ["cert", "server"], ["pg", "apply"]] {
        pgfw.ok(&command);
    }
    let daemon = pgfw.enforce();
    // No certificate, no port.
    is_refused(&pgfw, &standby, PORT, "service-closed");
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("standby");
    pgfw.ok(&["cert", "issue", "standby", "--bundle", bundle.to_str().unwrap()]);
    bring(&bundle, &standby);

    let mut copied = PgCluster::start_new(&standby);
    copy(&mut copied, &standby, conninfo);
    eventually("the standby streams", PATIENCE, || {
        streams(&primary).then_some(())
    });
    arrives(&primary, &copied, "one");
    // The next address has no certificate, and replication is all that this one is good for.
    is_refused(&pgfw, &third, PORT, "service-closed");
    let into_a_database = format!("{conninfo} dbname=postgres");
    let mut psql = standby.command_as_user("psql", "postgres");
    let said = run(psql.args(["-X", "-w", "-d", &into_a_database, "-c", "select 1"])).stderr;
    assert!(said.contains("pg_hba.conf rejects"), "{said}");

    // The standby's own filter lets its stream be.
    let there = configured(&standby, &guide.block("pgfw.toml on the standby"), Some(&copied));
    let _guard = there.enforce();
    arrives(&primary, &copied, "two");
    reads(&lan, &standby, &copied);
    is_refused_at(&there, &lan.stranger, v4(STANDBY), PORT, "service-closed");
    is_refused_at(&there, &third, v4(STANDBY), PORT, "service-closed");
    daemon.kill();
    arrives(&primary, &copied, "three");

    // An application beside it: its certificate is no standby's, and what ends one leaves the other be.
    let _daemon = pgfw.start();
    primary.sql("create role app login");
    primary.sql("create database app");
    let other = folder.path().join("app");
    pgfw.ok(&["cert", "issue", "app", "--bundle", other.to_str().unwrap()]);
    let as_role = |role: &str| {
        Psql::at(&lan.client)
            .certificate(&other, "postgresql")
            .set("host", "db.example.com")
            .set("hostaddr", DB.to_string())
            .set("dbname", "app")
            .set("user", role)
    };
    let mut session = as_role("app").open().unwrap();
    assert_eq!(session.query("select 6 * 7").unwrap(), "42");
    for (role, replication) in [("standby", "true"), ("app", "true"), ("standby", "false")] {
        let psql = as_role(role).set("replication", replication);
        let said = psql.query("select 1").stderr;
        assert!(
            said.contains("pg_hba.conf rejects"),
            "{role}, {replication}: {said}"
        );
    }
    pgfw.ok(&["cert", "revoke", "app"]);
    eventually("the application is cut off", PATIENCE, || {
        session.query("select 1").err()
    });
    assert!(streams(&primary));
    arrives(&primary, &copied, "four");

    // Revoked, it is cut at once, and its reconnects meet a closed port.
    let before = pgfw.status().packets("service-closed");
    pgfw.ok(&["cert", "revoke", "standby"]);
    eventually("the stream ends", PATIENCE, || (!streams(&primary)).then_some(()));
    counted(&pgfw, "service-closed", before);
    is_refused(&pgfw, &standby, PORT, "service-closed");
    drop(primary);
}

/// An application reads from the standby, by the standby's own rules.
fn reads(lan: &Lan, standby: &Host, cluster: &PgCluster<'_>) {
    standby.write(
        cluster.config_dir().join("pg_hba.conf"),
        "local all all peer\nhost all postgres 10.20.0.0/16 trust\n",
    );
    cluster.reload();
    let reader = Psql::at(&lan.client).set("host", v4(STANDBY).to_string());
    let reader = reader.set("user", "postgres").set("dbname", "postgres");
    eventually("an application reads", PATIENCE, || {
        (reader.query("select answer from one").stdout == "42\n").then_some(())
    });
    let recovery = reader.query("select pg_is_in_recovery()").expect_success();
    assert_eq!(recovery, "t\n");
}

/// Takes out of a config the sections of these names.
fn without(config: &str, names: &[&str]) -> String {
    let sections = config.split("\n[[identity]]\n");
    let kept = sections.filter(|section| !names.iter().any(|n| section.contains(&format!("name = \"{n}\""))));
    kept.collect::<Vec<_>>().join("\n[[identity]]\n")
}

/// What `pgfw pg plan` lists: kind and role of sessions, names of certificates.
fn cuts(pgfw: &Instance<'_>) -> (Vec<(String, String)>, Vec<String>) {
    let said: Value = serde_json::from_str(&pgfw.ok(&["--json", "pg", "plan"])).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = |list: &str| said[0][list].as_array().unwrap().clone();
    let sessions = all("sessions");
    // Whom the rules of now do not let in again either is no loss of the change.
    let sessions = sessions.iter().filter(|cut| cut["already"] == false);
    let sessions = sessions.map(|cut| {
        assert_eq!(cut["certain"], true, "{cut:#}");
        (text(&cut["kind"]), text(&cut["session"]["role"]))
    });
    let certificates = all("certificates");
    let certificates = certificates.iter().map(|cut| {
        assert_eq!(cut["wholly"], true, "{cut:#}");
        text(&cut["name"])
    });
    (sessions.collect(), certificates.collect())
}

/// A rule goes: who held on to it is listed before, goes on after, and fails at the next reconnect.
#[test]
fn p18_plan_lists_the_standby_the_session_and_the_certificates_that_a_change_cuts() {
    let lan = Lan::new();
    let guide = Guide::read("standby");
    let conninfo = guide.block("postgresql.auto.conf on the standby");
    let conninfo = conninfo.split('\'').nth(1).unwrap();
    let standby = lan.host("standby", STANDBY);
    let primary = PgCluster::start_new(&lan.db);
    primary.sql("create role standby login replication; create role app login; create role stays login");
    primary.sql("create database app");
    let config = guide.block("pgfw.toml on the primary")
        + "\n[[identity]]\nname = \"stays\"\ndatabases = [\"app\"]\nnetworks = [\"10.20.0.0/16\"]\n";
    let pgfw = configured(&lan.db, &config, Some(&primary));
    for command in [["ca", "init"], ["cert", "server"], ["pg", "apply"]] {
        pgfw.ok(&command);
    }
    let folder = tempfile::tempdir().unwrap();
    let issue = |name: &str| {
        let bundle = folder.path().join(name);
        pgfw.ok(&["cert", "issue", name, "--bundle", bundle.to_str().unwrap()]);
        bundle
    };
    bring(&issue("standby"), &standby);
    let log_in = |name: &str| {
        let psql = Psql::at(&lan.client)
            .set("host", "db.example.com")
            .set("hostaddr", DB.to_string());
        let psql = psql.set("user", name).set("dbname", "app");
        psql.certificate(&issue(name), "postgresql")
    };
    let (app, stays) = (log_in("app"), log_in("stays"));
    let (mut live, _other) = (app.open().unwrap(), stays.open().unwrap());
    let mut copied = PgCluster::start_new(&standby);
    copy(&mut copied, &standby, conninfo);
    eventually("the standby streams", PATIENCE, || {
        streams(&primary).then_some(())
    });
    assert_eq!(cuts(&pgfw), (Vec::new(), Vec::new()), "nothing changes");

    let pair = |kind: &str, role: &str| (kind.to_owned(), role.to_owned());
    pgfw.configure(&without(&on(&lan.db), &["standby"]));
    assert_eq!(
        cuts(&pgfw),
        (vec![pair("standby", "standby")], vec!["standby".to_owned()])
    );
    pgfw.configure(&without(&on(&lan.db), &["standby", "app"]));
    assert_eq!(
        cuts(&pgfw),
        (
            vec![pair("standby", "standby"), pair("session", "app")],
            vec!["standby".to_owned(), "app".to_owned()]
        )
    );
    let people = pgfw.ok(&["pg", "plan"]);
    for words in [
        "! standby standby by certificate standby from 10.10.0.11 (15/main, streaming, async): streams on, and fails at its next",
        "! session app in app by certificate app from 10.20.0.10: goes on, and fails at its next reconnect",
        "! certificate standby (serial ",
        ") gets in nowhere any more\n",
        "cut: 1 standby, 1 live session, 2 valid certificates. Nothing was changed.",
    ] {
        assert!(people.contains(words), "no {words:?} in {people}");
    }
    assert!(!people.contains("certificate stays (serial"), "{people}");

    // Both go on, until they come again.
    pgfw.ok(&["pg", "apply"]);
    assert_eq!(live.query("select 1"), Ok("1".to_owned()));
    arrives(&primary, &copied, "after");
    assert!(app.open().is_err());
    drop(stays.open().unwrap());
    primary.sql("select pg_terminate_backend(pid) from pg_stat_replication");
    eventually("the standby is refused", PATIENCE, || {
        copied
            .log()
            .contains("pg_hba.conf rejects replication connection")
            .then_some(())
    });
    assert!(!streams(&primary));
    assert_eq!(cuts(&pgfw), (Vec::new(), Vec::new()), "it is done");
    let people = pgfw.ok(&["pg", "plan"]);
    assert!(
        people.contains("fails at its next reconnect, as by the rules of now"),
        "{people}"
    );
}

/// The config that a host has now.
fn on(host: &Host) -> String {
    host.read(Instance::CONFIG)
}
