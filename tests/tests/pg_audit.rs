//! What `audit.pgaudit` comes to, with pgaudit itself: of the major version of Debian's server, which is what Debian has
//! it for.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::path::Path;

use pgfw::config::Config;
use pgfw::postgres::{Facts, plan};
use pgfw_tests::scratch::managed::{Managed, steps};
use pgfw_tests::scratch::{Installed, servers, until, write};

const ALICE: &str = "[[identity]]\nname = \"alice\"\nnetworks = [\"127.0.0.0/8\"]\n";

/// A server that pgaudit is installed for.
fn debians() -> Installed {
    let has_it = |server: &Installed| server.programs.join("../lib/pgaudit.so").exists();
    let found = servers().into_iter().find(has_it);
    found.expect("pgaudit is not installed: run `cargo xtask setup`")
}

/// The note of a plan about pgaudit, and of an apply; they are the same.
fn note(managed: &Managed, config: &Config) -> Option<String> {
    let facts = Facts {
        server_cert_pem: Some(managed.material.server_cert_pem.clone()),
        client_ca_pem: Some(managed.material.client_ca_pem.clone()),
        crl_dir: managed.material.crl_dir.clone(),
    };
    let about = |notes: Vec<String>| notes.into_iter().find(|note| note.contains("pgaudit"));
    let planned = plan(&config.postgres[0], config, &managed.paths, &facts).unwrap();
    let planned = about(planned.notes);
    assert_eq!(about(managed.apply(config).unwrap().notes), planned);
    planned
}

/// What pgaudit wrote since the server's start, without the words before it.
fn audited(managed: &Managed) -> Vec<String> {
    let log = managed.scratch.log();
    let lines = log.lines().filter_map(|line| line.split_once("AUDIT: "));
    lines.map(|(_, said)| said.to_owned()).collect()
}

/// Not loaded: said, with what to do. Written down and not loaded yet: said, with the restart. Loaded: each class that
/// was asked for is in the log, and no other; changed classes count without a restart.
#[test]
fn p15_pgaudit_writes_what_was_asked_for() {
    let server = debians();
    let mut managed = Managed::new(server.start());
    let with = |classes: &str| managed_config(&managed, classes);
    let (ddl, none) = (with("\"ddl\", \"role\""), with(""));
    let all = with("\"all\", \"-misc\"");
    assert_eq!(note(&managed, &none), None);
    let conf = managed.scratch.data().join("postgresql.conf");
    let said = note(&managed, &ddl).unwrap();
    for word in [
        "the server has not loaded pgaudit",
        "Set shared_preload_libraries = 'pgaudit' in postgresql.conf, and restart the server, which ends every session: pg_ctl restart",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(!said.contains("Install"), "it is installed: {said}");
    managed.scratch.sql("create table early (x int)");
    assert_eq!(audited(&managed), [""; 0]);

    // As it was said, before pgfw's line.
    let text = fs::read_to_string(&conf).unwrap();
    write(
        Path::new(&conf),
        &format!("shared_preload_libraries = 'auto_explain, \"pgaudit\"'\n{text}"),
    );
    let said = note(&managed, &ddl).unwrap();
    assert!(
        said.contains(
            "stands in shared_preload_libraries and is loaded at the server's next start: pg_ctl restart"
        ),
        "{said}"
    );
    managed.scratch.sql("select pg_reload_conf()");
    until("the server says what waits", || {
        managed
            .scratch
            .sql("select pending_restart from pg_settings where name = 'shared_preload_libraries'")
            == "t"
    });
    assert_eq!(
        managed.apply(&ddl).unwrap().pending_restart,
        ["shared_preload_libraries"]
    );
    managed.scratch.stop();
    managed.scratch.run();
    assert_eq!(note(&managed, &ddl), None);
    assert_eq!(managed.apply(&ddl).unwrap().pending_restart, [""; 0]);

    managed.scratch.sql("create table written (x int)");
    managed
        .scratch
        .sql("insert into written values (1); select * from written");
    managed.scratch.sql("create role bob");
    until("both are in the log", || audited(&managed).len() >= 2);
    // Without the extension in the database pgaudit names no objects (its README: "Object type").
    let lines = audited(&managed);
    assert_eq!(
        lines,
        [
            "SESSION,1,1,DDL,CREATE TABLE,,,create table written (x int),<not logged>",
            "SESSION,1,1,ROLE,CREATE ROLE,,,create role bob,<not logged>",
        ]
    );
    managed.scratch.sql("create extension pgaudit");
    managed.scratch.sql("create table named (x int)");
    until("the object is named", || {
        audited(&managed)
            .iter()
            .any(|line| line.contains("DDL,CREATE TABLE,TABLE,public.named,create table named (x int)"))
    });

    // Other classes count at once.
    let applied = managed.apply(&all).unwrap();
    assert_eq!(applied.pending_restart, [""; 0]);
    assert!(steps(&applied.steps).contains(&"reloaded"), "{:?}", applied.steps);
    managed.scratch.sql("insert into written values (2)");
    managed.scratch.sql("select x from written");
    until("reads and writes are in the log", || {
        let lines = audited(&managed);
        let has = |class: &str| lines.iter().any(|line| line.contains(class));
        has("WRITE,INSERT,,,insert into written values (2)") && has("READ,SELECT,,,select x from written")
    });
    // And none at all.
    managed.apply(&none).unwrap();
    assert_eq!(managed.scratch.sql("show pgaudit.log"), "none");
    let lines = audited(&managed).len();
    managed.scratch.sql("drop table written");
    assert_eq!(audited(&managed).len(), lines);

    // The command line has the last word: what a file says of it is no promise.
    managed.scratch.stop();
    managed
        .scratch
        .run_with(&["shared_preload_libraries=auto_explain"]);
    let said = note(&managed, &ddl).unwrap();
    assert!(
        said.contains("Set shared_preload_libraries = 'auto_explain, pgaudit'"),
        "{said}"
    );
}

fn managed_config(managed: &Managed, classes: &str) -> Config {
    managed.config(&format!("audit = {{ pgaudit = [{classes}] }}\n"), ALICE)
}
