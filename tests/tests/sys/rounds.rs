//! What a round of the daemon's keeper finds, and that one that can find nothing compiles nothing.

use std::path::Path;

use pgfw::clock::Now;
use pgfw::datapath::Datapath;
use pgfw::ledger::Ledger;
use pgfw::ledger::types::{EntryKind, NewEntry};
use pgfw_tests::bench::{PG, allowed, key};
use pgfw_tests::lab::{Daemon, EchoServer, Instance, PATIENCE, Reach, Site, address, eventually};

use super::{CONFIG, becomes, configured, is_open, is_silent};

/// A daemon that says what it does in its rounds.
fn talkative<'site>(site: &'site Site) -> (Instance<'site>, Daemon) {
    let pgfw = configured(site, CONFIG).env("PGFW_LOG", "pgfw=debug");
    let daemon = pgfw.enforce();
    (pgfw, daemon)
}

fn compilations(daemon: &Daemon) -> usize {
    daemon.log().matches("compiled").count()
}

/// Makes the daemon look: what others do to interfaces wakes it. Gives when a round is over that compiled nothing.
#[track_caller]
fn looks(site: &Site, daemon: &Daemon, device: &str) {
    let rounds = || daemon.log().matches("nothing to compile").count();
    let before = rounds();
    site.db
        .ip(&format!("link add {device} type veth peer name {device}-peer"));
    eventually("a round that finds nothing", PATIENCE, || {
        (rounds() > before).then_some(())
    });
}

#[test]
fn a_round_with_nothing_new_compiles_nothing() {
    let site = Site::new();
    let (pgfw, daemon) = talkative(&site);
    pgfw.ok(&["allow", "10.99.0.0/16"]);
    looks(&site, &daemon, "d0");
    let before = compilations(&daemon);
    assert!(before > 0, "{}", daemon.log());
    for device in ["d1", "d2", "d3"] {
        looks(&site, &daemon, device);
    }
    assert_eq!(compilations(&daemon), before, "{}", daemon.log());
    // One change is compiled once: the round that follows it finds nothing.
    pgfw.ok(&["allow", "10.98.0.0/16", "--for", "1h"]);
    looks(&site, &daemon, "d4");
    assert_eq!(compilations(&daemon), before + 1, "{}", daemon.log());
}

#[test]
fn a_change_of_one_network_leaves_the_tables_as_a_whole_compilation_would() {
    let site = Site::new();
    let (pgfw, daemon) = talkative(&site);
    for change in [
        &["allow", "10.0.0.0/8"][..],
        &["deny", "10.1.0.0/16"],
        &["allow", "10.1.2.0/24", "--for", "1h"],
        &["allow", "10.1.2.0/24", "--for", "2h"],
        &["deny", "10.1.2.3", "--for", "1h", "--service", "main"],
        &["allow", "fd00::/16"],
        &["deny", "fd00:20::/64", "--service", "main"],
        &["allow", "0.0.0.0/0", "--service", "main"],
        &["deny", "10.0.0.0/8", "--for", "1h"],
    ] {
        pgfw.ok(change);
    }
    let last = || {
        let log = daemon.log();
        let line = log.lines().rfind(|line| line.contains("compiled"));
        line.unwrap_or_default().to_owned()
    };
    // Of one network, and those inside it with it.
    let said = last();
    assert!(
        said.contains("net=10.0.0.0/8 put=") && !said.ends_with("put=1"),
        "{}",
        daemon.log()
    );
    // The same file again: nothing is loaded, everything compared.
    assert!(pgfw.ok(&["reload"]).contains("nothing was changed"));
    assert!(last().contains("put=0 removed=0"), "{}", daemon.log());
}

#[test]
fn what_another_process_wrote_into_the_ledger_counts_at_the_next_round() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let (_pgfw, daemon) = talkative(&site);
    looks(&site, &daemon, "d0");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    site.db.within(|| {
        let mut ledger = Ledger::open(Path::new("/var/lib/pgfw/ledger.db")).expect("the ledger");
        let new = NewEntry {
            kind: EntryKind::Allow,
            net: address::STRANGER_NETWORK.parse().expect("a network"),
            service: None,
            end: None,
            comment: None,
            requester: "root".into(),
            generation: None,
        };
        ledger.put_entry(&new, Now::read().wall()).expect("an entry");
    });
    site.db.ip("link add d1 type veth peer name d1-peer");
    becomes(&site.stranger, address::DB, 5432, Reach::Open);
}

#[test]
fn what_another_process_wrote_into_the_tables_is_undone_at_the_next_round() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let (_pgfw, daemon) = talkative(&site);
    looks(&site, &daemon, "d0");
    // A command that died before it could take back what the ledger refused.
    site.db.within(|| {
        let mut datapath = Datapath::open(Path::new("/sys/fs/bpf/pgfw")).expect("the pins");
        let open = [(key(PG, address::STRANGER_NETWORK), allowed())];
        datapath.update(1, &open, &[]).expect("room");
    });
    assert!(is_open(&site.stranger, address::DB, 5432));
    site.db.ip("link add d1 type veth peer name d1-peer");
    becomes(&site.stranger, address::DB, 5432, Reach::Silent);
}

#[test]
fn an_entry_that_has_ended_is_forgotten_although_nothing_was_written() {
    let site = Site::new();
    let (pgfw, daemon) = talkative(&site);
    // Inside a network that stays open: its end changes nothing in the tables.
    pgfw.ok(&["allow", "10.99.0.0/16"]);
    pgfw.ok(&["allow", "10.99.7.0/24", "--for", "2s"]);
    eventually("the entry is gone", PATIENCE, || {
        (!pgfw.ok(&["list"]).contains("10.99.7.0/24")).then_some(())
    });
    eventually("the journal tells", PATIENCE, || {
        daemon.log().contains("ended").then_some(())
    });
}
