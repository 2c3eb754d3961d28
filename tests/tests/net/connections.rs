//! Established means: a socket of this host holds the connection.

use std::net::IpAddr;

use pgfw_common::frames::{ACK, SYN};
use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, Talk, Wire, address};

use super::{CONFIG, DB, DENY_ALL, STRANGER, configured, counts, is_open, is_silent};

#[test]
fn f13_a_connection_opened_before_pgfw_goes_on() {
    let site = Site::new();
    let _servers = [
        EchoServer::start(&site.db, "10.10.0.10:5432"),
        EchoServer::start(&site.db, "[fd00:10::10]:5432"),
    ];
    let mut old: Vec<Talk> = DB
        .into_iter()
        .flat_map(|to| [&site.client, &site.stranger].map(|from| Talk::open(from, to, 5432)))
        .collect();
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.start();
    for (n, talk) in old.iter_mut().enumerate() {
        assert!(talk.flows(), "connection {n} on probation");
    }
    pgfw.ok(&["confirm"]);
    for (n, talk) in old.iter_mut().enumerate() {
        assert!(talk.flows(), "connection {n}");
        assert!(talk.carries_a_megabyte(), "connection {n}");
    }
    daemon.kill();
    for (n, talk) in old.iter_mut().enumerate() {
        assert!(talk.flows(), "connection {n} without the daemon");
    }
    for to in DB {
        assert!(is_silent(&site.stranger, to, 5432), "a new one to {to}");
        assert!(is_open(&site.client, to, 5432), "a new one to {to}");
    }
}

#[test]
fn f18_a_dual_stack_listeners_ipv4_connections_are_established() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let mut old = DB.map(|to| Talk::open(&site.stranger, to, 5432));
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for talk in &mut old {
        assert!(talk.flows() && talk.carries_a_megabyte());
    }
    assert!(pgfw.status().packets("established") > 0);
    // A service that is open to the world asks the socket table about every segment but the first.
    for to in DB {
        let mut new = Talk::open(&site.stranger, to, 22);
        assert!(new.flows() && new.carries_a_megabyte(), "{to}");
        assert!(is_silent(&site.stranger, to, 5432), "{to}");
    }
}

/// Sends what belongs to no connection from the far end of one, and says how many segments that were.
fn strays(site: &Site, talk: &Talk, (db, far): (IpAddr, IpAddr)) -> (Wire, u64) {
    let wire = Wire::tcp(&site.stranger, far, db);
    let mine = talk.local_port();
    let tuples = [(8080, mine + 1), (8080, mine - 1), (8081, mine), (8079, mine)];
    for (from, to) in tuples {
        wire.segment(from, to, ACK);
        wire.segment(from, to, SYN | ACK);
    }
    (wire, 2 * tuples.len() as u64)
}

#[test]
fn f14_outbound_connections_work_and_one_changed_port_is_a_stranger() {
    let site = Site::new();
    let _far = EchoServer::start(&site.stranger, "[::]:8080");

    // Without pgfw each stray is answered by a reset, so its silence below means something.
    for (db, far) in STRANGER {
        let talk = Talk::open(&site.db, far, 8080);
        let (wire, _) = strays(&site, &talk, (db, far));
        wire.answer(8079, talk.local_port(), PATIENCE);
    }

    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    let mut dropped = 0;
    for (db, far) in STRANGER {
        let mut talk = Talk::open(&site.db, far, 8080);
        assert!(talk.flows() && talk.carries_a_megabyte(), "{db} to {far}");
        counts(&pgfw, "no-connection", dropped);
        let (wire, sent) = strays(&site, &talk, (db, far));
        dropped += sent;
        counts(&pgfw, "no-connection", dropped);
        let mine = talk.local_port();
        assert!(wire.heard().iter().all(|s| s.from == mine && s.to == 8080));

        // The same port of another machine is another connection.
        let (client, own) = match far {
            IpAddr::V4(_) => (&site.client, address::CLIENT),
            IpAddr::V6(_) => (&site.client, address::CLIENT_V6),
        };
        let elsewhere = Wire::tcp(client, own, db);
        elsewhere.segment(8080, mine, ACK);
        dropped += 1;
        counts(&pgfw, "no-connection", dropped);
        assert_eq!(elsewhere.heard(), []);
        // A first segment needs a service.
        wire.segment(8080, mine, SYN);
        assert!(talk.flows());
    }
    counts(&pgfw, "new-tcp", 2);
}

#[test]
fn a_connection_between_allowed_machines_carries_much_both_ways() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let machines: [&Namespace; 2] = [&site.client, &site.db];
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for to in DB {
        for from in machines {
            let mut talk = Talk::open(from, to, 5432);
            assert!(talk.carries_a_megabyte(), "{} to {to}", from.name());
        }
    }
}
