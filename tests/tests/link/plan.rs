//! `pgfw pg plan`: what an apply would change, said before it does; and the apply does it.

use std::fs;
use std::path::Path;

use pgfw_tests::lab::{Instance, PATIENCE, Psql, Site, Terminal, eventually};
use serde_json::Value;

use super::stage::{Stage, assert_fails, on_host};

fn plan(stage: &Stage) -> Value {
    let said = stage.pgfw.ok(&["--json", "pg", "plan"]);
    let all: Value = serde_json::from_str(&said).unwrap();
    all[0].clone()
}

/// `pg plan --quiet`: 0 where there is nothing to do.
fn quiet(stage: &Stage) -> Option<i32> {
    let outcome = stage.pgfw.pgfw(&["pg", "plan", "--quiet"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    outcome.code
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect()
}

/// The names of what a plan's settings are about.
fn named<'v>(plan: &'v Value, list: &str, key: &str) -> Vec<&'v str> {
    let all = plan[list].as_array().unwrap().iter();
    all.map(|one| one[key].as_str().unwrap()).collect()
}

/// Rows in few words: roles, proof, networks.
fn rows(plan: &Value, list: &str) -> Vec<String> {
    let all = plan["access"][list].as_array().unwrap().iter();
    let rows = all.map(|row| {
        let roles = texts(&row["roles"]["names"]).join(",");
        let others = if row["roles"]["others"] == true { "+" } else { "" };
        format!(
            "{roles}{others} {} {}",
            texts(&row["by"]).join("|"),
            texts(&row["from"]).join(",")
        )
    });
    rows.collect()
}

/// Everything that a plan could have touched, as it is.
fn state_of(stage: &Stage) -> String {
    let find = "find /etc/postgresql /var/lib/pgfw /etc/pgfw /run/pgfw -printf '%p %T@ %C@ %i %l\\n' 2>/dev/null | sort";
    let mut command = stage.site.db.command("sh");
    pgfw_tests::lab::run(command.args(["-c", find])).stdout
}

const EXPORTER: &str = r#"
[[login]]
name = "exporter"
method = "scram-sha-256"
databases = ["app"]
networks = ["10.20.0.0/16"]
"#;

/// A server that somebody set up by hand, with clients.
fn by_hand(stage: &Stage) {
    let hba = "local all all peer\n\
               hostssl app exporter,legacy 10.20.0.0/16 scram-sha-256\n\
               host all all 10.30.0.0/16 md5\n";
    stage
        .site
        .db
        .write(stage.cluster.config_dir().join("pg_hba.conf"), hba);
    stage
        .cluster
        .sql("create role exporter login password 'watching'; create role legacy login password 'watching'");
    stage.cluster.sql("select pg_reload_conf()");
    eventually("the server goes by its rules", PATIENCE, || {
        exporter(stage, "legacy").open().ok().map(drop)
    });
}

fn exporter<'lab>(stage: &Stage<'lab>, role: &str) -> Psql<'lab> {
    let psql = stage.psql(&stage.site.client, role);
    psql.set("sslmode", "require").set("password", "watching")
}

#[test]
fn p18_a_first_plan_names_sessions_missing_roles_and_strays() {
    let site = Site::new();
    let stage = Stage::bare(
        &site,
        "",
        &format!("{EXPORTER}\n[[identity]]\nname = \"newcomer\"\n"),
    );
    by_hand(&stage);
    let before = state_of(&stage);
    let early = plan(&stage);
    assert_eq!(state_of(&stage), before, "a plan changes nothing");
    assert!(!before.contains("/var/lib/pgfw"), "{before}");
    let obstacles = texts(&early["obstacles"]);
    assert!(
        obstacles[0].contains("pgfw ca init") && obstacles[1].contains("pgfw cert server"),
        "{obstacles:?}"
    );

    stage.pgfw.ok(&["ca", "init"]);
    stage.pgfw.ok(&["cert", "server"]);
    // What nobody asked for until now: a certificate of somebody else's authority.
    let stray = stage.place("elsewhere");
    let elsewhere = Instance::new(&site.db)
        .env("PGFW_CONFIG", stray.join("pgfw.toml").to_str().unwrap())
        .env("PGFW_STATE_DIR", stray.join("state").to_str().unwrap())
        .env("PGFW_SOCKET", "/run/elsewhere.sock")
        .env("PGFW_BPFFS", "/sys/fs/bpf/elsewhere");
    let pki = format!("[pki]\ndirectory = \"{}\"\n", stray.join("pki").display());
    elsewhere.configure(&format!("{}\n{pki}", on_host(&stage, Instance::CONFIG)));
    elsewhere.ok(&["ca", "init"]);
    elsewhere.ok(&[
        "cert",
        "issue",
        "alice",
        "--bundle",
        stray.join("alice").to_str().unwrap(),
    ]);
    let strayed = exporter(&stage, "exporter")
        .set("sslcert", stray.join("alice/postgresql.crt"))
        .set("sslkey", stray.join("alice/postgresql.key"));
    let mut watching = strayed.open().unwrap();
    let mut legacy = exporter(&stage, "legacy").open().unwrap();

    let before = state_of(&stage);
    let planned = plan(&stage);
    assert_eq!(state_of(&stage), before, "a plan changes nothing");
    assert_eq!(quiet(&stage), Some(1));
    assert_eq!(planned["unchanged"], false);
    assert_eq!(texts(&planned["obstacles"]), [""; 0]);
    assert_eq!(texts(&planned["missing_roles"]), ["newcomer"]);
    assert_eq!(
        texts(&planned["create_roles"]),
        ["create role \"newcomer\" login;"]
    );
    let settings = named(&planned, "settings", "name");
    assert!(
        settings.contains(&"ssl_ca_file") && !settings.contains(&"port"),
        "{settings:?}"
    );
    let cut = &planned["sessions"].as_array().unwrap()[..];
    assert_eq!(cut.len(), 1, "{planned:#}");
    assert_eq!(
        (&cut[0]["session"]["role"], &cut[0]["certain"], &cut[0]["kind"]),
        (&"legacy".into(), &true.into(), &"session".into()),
        "{cut:#?}"
    );
    assert_eq!(planned["stray"][0]["login"], "exporter");
    assert_eq!(texts(&planned["stray"][0]["clients"]), ["10.20.0.10"]);
    let lost = rows(&planned, "lost");
    for row in [
        "legacy password (scram-sha-256) 10.20.0.0/16",
        "alice,bob,exporter,legacy,newcomer,postgres+ password (md5) 10.30.0.0/16",
    ] {
        assert!(lost.contains(&row.to_owned()), "no {row:?} in {lost:#?}");
    }
    let gained = rows(&planned, "gained");
    assert!(
        gained.contains(&"alice certificate alice 10.20.0.0/16".to_owned()),
        "{gained:#?}"
    );
    let people = stage.pgfw.ok(&["pg", "plan"]);
    for words in [
        "-host all all 10.30.0.0/16 md5\n",
        "+hostssl \"app\" \"alice\" 10.20.0.0/16 cert map=",
        "main: ! session legacy in app from 10.20.0.10: goes on, and fails at its next reconnect: `host all all all reject`",
        "main: ! login exporter: a client that offers a certificate",
        "main:     create role \"newcomer\" login;",
        "main: cut: 1 live session. Nothing was changed.",
    ] {
        assert!(people.contains(words), "no {words:?} in {people}");
    }
    assert!(!people.contains('\x1b'), "{people}");
    let mut terminal = Terminal::start(stage.pgfw.command(&["pg", "plan"]));
    assert!(terminal.ends().success());
    assert!(
        terminal.look().contains("\x1b[31m-host all all 10.30.0.0/16 md5"),
        "{}",
        terminal.look()
    );

    // And so it is.
    let applied = stage.pgfw.ok(&["pg", "apply"]);
    assert!(
        applied.contains("main: ! 1 live session will not get in"),
        "{applied}"
    );
    assert_eq!(
        (legacy.query("select 1"), watching.query("select 1")),
        (Ok("1".into()), Ok("1".into()))
    );
    assert!(
        stage
            .refused(&exporter(&stage, "legacy"))
            .contains("pg_hba.conf rejects")
    );
    assert!(stage.refused(&strayed).contains("unknown ca"));
    drop(exporter(&stage, "exporter").open().unwrap());
    let after = plan(&stage);
    assert_eq!((quiet(&stage), &after["unchanged"]), (Some(0), &true.into()));
    for empty in [
        "files",
        "settings",
        "stray",
        "tls",
        "certificates",
        "pending_restart",
    ] {
        assert_eq!(after[empty], Value::Array(Vec::new()), "{empty}: {after:#}");
    }
    assert_eq!((rows(&after, "lost").len(), rows(&after, "gained").len()), (0, 0));
}

/// Settings, hand edits, a server that is down.
#[test]
fn a_plan_says_what_it_takes_and_what_it_did_not_see() {
    let site = Site::new();
    let mut stage = Stage::new(&site);
    let alice = stage.issue("alice", &[]);
    let _session = stage.log_in(&site.client, "alice", &alice);
    stage.cluster.sql("alter system set log_statement = 'mod'");
    stage.cluster.sql("select pg_reload_conf()");
    let text = on_host(&stage, Instance::CONFIG);
    stage.pgfw.configure(&text.replace(
        "[[identity]]\nname = \"alice\"\n",
        "listen_addresses = [\"10.10.0.10\"]\naudit = { statements = \"all\" }\n[[identity]]\nname = \"alice\"\n",
    ));
    let said = plan(&stage);
    assert_eq!(texts(&said["pending_restart"]), ["listen_addresses"], "{said:#}");
    let settings = said["settings"].as_array().unwrap();
    let setting = |name: &str| settings.iter().find(|s| s["name"] == name).unwrap();
    assert_eq!(setting("listen_addresses")["restart"], true);
    let other = &setting("log_statement")["overridden"];
    assert!(
        other["by"].as_str().unwrap().ends_with("postgresql.auto.conf"),
        "{said:#}"
    );
    assert_eq!(other["line"], 3, "{said:#}");
    assert_eq!(said["sessions"], Value::Array(Vec::new()), "{said:#}");
    let people = stage.pgfw.ok(&["pg", "plan"]);
    for words in [
        "main: ! the server has to be restarted, which ends every session; from then on counts: listen_addresses",
        "-listen_addresses = '*'\n+listen_addresses = '10.10.0.10'\n",
        "log_statement stays 'mod' and not 'all'",
        "nobody gets in who did not",
    ] {
        assert!(people.contains(words), "no {words:?} in {people}");
    }

    let live = stage.cluster.config_dir().join("pg_hba.conf");
    let target = site.db.within(|| fs::canonicalize(&live)).unwrap();
    let own = on_host(&stage, &target);
    site.db.write(
        &target,
        &format!(
            "host all legacy 10.20.0.0/16 ldap ldapserver=x ldapbasedn=dc=x ldapbindpasswd=secret\n{own}"
        ),
    );
    let said = plan(&stage);
    assert!(
        texts(&said["obstacles"])[0].contains("--replace-edits"),
        "{said:#}"
    );
    assert!(
        rows(&said, "lost").contains(&"legacy ldap 10.20.0.0/16".to_owned()),
        "{said:#}"
    );
    assert!(!said.to_string().contains("secret") && said.to_string().contains("ldapbindpasswd=(not shown)"));

    stage.cluster.stop();
    let said = plan(&stage);
    assert!(texts(&said["not_seen"])[0].contains("sessions"), "{said:#}");
    assert!(
        rows(&said, "lost").contains(&"legacy ldap 10.20.0.0/16".to_owned()),
        "{said:#}"
    );
    assert!(
        named(&said, "settings", "name").contains(&"listen_addresses"),
        "{said:#}"
    );
    assert_eq!(said["sessions"], Value::Array(Vec::new()));
    site.db.write(&target, "host all all nonsense\n");
    let said = plan(&stage);
    assert_eq!(said["access"], Value::Null, "{said:#}");
    assert!(said["notes"].to_string().contains("is not known"), "{said:#}");
    site.db.write(&target, &own);

    assert_fails(&stage.pgfw.pgfw(&["pg", "plan", "mian"]), 1, &["`mian`", "main"]);
    assert_eq!(stage.pgfw.pgfw(&["pg", "plan", "--quiet", "--all"]).code, Some(2));
    let other = pgfw_tests::lab::run(&mut stage.pgfw.command_as_user("nobody", &["pg", "plan"]));
    assert_fails(&other, 3, &["needs root"]);
    stage.configure("manage = \"render\"", "");
    let said = plan(&stage);
    assert!(
        said["notes"].to_string().contains("only writes to /var/lib/pgfw"),
        "{said:#}"
    );
    stage.configure("manage = \"none\"", "");
    assert_fails(
        &stage.pgfw.pgfw(&["pg", "plan", "main"]),
        1,
        &["`main`", "manage"],
    );
    stage.configure("allow = [\"10.20.0.1/16\"]", "");
    assert_fails(&stage.pgfw.pgfw(&["pg", "plan"]), 2, &["10.20.0.1/16"]);
    assert!(
        !Path::new("/var/lib/pgfw/postgres").exists(),
        "all of it happened in the lab"
    );
}
