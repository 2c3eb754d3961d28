//! Hosts that cannot have a server of pgfw's own: rules that nobody tried do not go live by themselves.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use pgfw::failure::Explain;
use pgfw::postgres::wire::Answer;
use pgfw::postgres::{Options, PostgresError, Server, Untried};
use pgfw_tests::lab::without_namespaces;
use pgfw_tests::scratch::managed::{Managed, log_in, steps, to};
use pgfw_tests::scratch::{Scratch, on_each_major};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ALICE: &str = "[[identity]]\nname = \"alice\"\nnetworks = [\"127.0.0.0/8\"]\n";

const WITHOUT: Options = Options {
    edits: pgfw::postgres::Edits::Refuse,
    untried: Untried::Allow,
    confirm: None,
};

/// Refused for want of `what`, and nothing has changed; with the option it goes on and says so.
fn untried(managed: &Managed, what: &str) {
    let hba = managed.scratch.data().join("pg_hba.conf");
    let before = fs::read(&hba).unwrap();
    for keys in ["", "manage = \"render\"\n"] {
        let error = managed.apply(&managed.config(keys, ALICE)).unwrap_err();
        assert!(matches!(error, PostgresError::Untried { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.remedy().contains("pgfw pg apply main --without-scratch"));
        assert_eq!(fs::read(&hba).unwrap(), before);
        let current = managed.paths.postgres("main").join("current");
        assert!(fs::symlink_metadata(current).is_err(), "{keys}");
    }

    let config = managed.config("", ALICE);
    let applied = managed.apply_with(&config, WITHOUT).unwrap();
    assert_eq!(
        steps(&applied.steps),
        ["written", "switched", "reloaded", "rules", "tls"]
    );
    let [note] = applied.notes.as_slice() else {
        panic!("{:?}", applied.notes)
    };
    assert!(note.contains("were not tried") && note.contains(what), "{note}");
    let leaf = managed.clients.client("alice", &[7]);
    assert_eq!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    // Nothing to change is nothing to try. What changes is refused as before.
    managed.apply(&config).unwrap();
    let before = fs::read(&hba).unwrap();
    let error = managed.apply(&managed.config("", "")).unwrap_err();
    assert!(matches!(error, PostgresError::Untried { .. }), "{error}");
    assert_eq!(fs::read(&hba).unwrap(), before);
    assert_eq!(
        log_in(HERE, Some(&leaf), &to("alice", "postgres")).unwrap(),
        Answer::Ok
    );
    // And the live server's proof takes back what it does not take.
    let broken = managed.config("local = [\"local all all nonsense\"]\n", ALICE);
    let error = managed.apply_with(&broken, WITHOUT).unwrap_err();
    assert!(matches!(error, PostgresError::PutBack { .. }), "{error}");
    assert_eq!(fs::read(&hba).unwrap(), before);
}

/// Only `postgres` is installed, at a place of its own, where it is found because the server was started from there.
#[test]
fn p11_without_initdb_an_apply_is_refused_or_asked_for() {
    on_each_major(|server| {
        let mut scratch = server.stopped();
        scratch.leave_initdb_behind();
        let program = scratch.place("elsewhere/bin/postgres");
        let mut managed = Managed::new(scratch);
        managed.scratch.run();
        let found = Server::find(&managed.config("", ALICE).postgres[0]).unwrap();
        assert_eq!((found.program, found.major), (program, server.major));
        untried(&managed, "elsewhere/bin/initdb");
    });
}

/// As in a container, or in a unit with RestrictNamespaces.
#[test]
fn p11_without_namespaces_an_apply_is_refused_or_asked_for() {
    let managed = Managed::new(Scratch::start());
    // This thread and whom it starts from here on.
    without_namespaces().unwrap();
    untried(&managed, "no network namespace of its own");
}
