//! Routers that say a packet was too big are believed about this host's own flows, and about nothing else.

use std::net::{IpAddr, SocketAddr, TcpListener};

use pgfw_common::frames::{ACK, Frame};
use pgfw_tests::lab::{EchoServer, Instance, Namespace, Site, Talk, Wire, address, eventually, run};

use super::{CONFIG, DB, DENY_ALL, PATIENCE, configured, counts};

const CLIENTS: [IpAddr; 2] = [address::CLIENT, address::CLIENT_V6];

/// The router's own address in the database host's network.
const ROUTER: [&str; 2] = ["10.10.0.1", "fd00:10::1"];

/// Behind the router, packets of 1400 bytes are the largest. The client sends none that are larger, since a veth drops
/// those that its other end would not send, and says nothing; it still asks for segments of full size.
fn narrow(site: &Site) {
    site.router.ip("link set dev client mtu 1400");
    site.client
        .ip("route replace default via 10.20.0.1 mtu 1400 advmss 1460\n\
         route replace ::/0 via fd00:20::1 mtu 1400 advmss 1440");
}

/// What `machine` believes the path to `to` takes, if it has learned anything.
fn learned(machine: &Namespace, to: IpAddr) -> bool {
    let mut ip = machine.command("ip");
    run(ip.args(["route", "get", &to.to_string()]))
        .expect_success()
        .contains("mtu 1400")
}

/// A server on the database host says ten kilobytes to a client behind the narrow hop.
fn a_result_arrives(site: &Site, pgfw: &Instance<'_>) {
    for (n, (db, client)) in DB.into_iter().zip(CLIENTS).enumerate() {
        assert!(!learned(&site.db, client));
        assert!(Talk::open(&site.client, db, 5432).carries_a_megabyte(), "{db}");
        assert!(learned(&site.db, client), "{db}");
        assert!(pgfw.status().packets("icmp-error") > n as u64);
    }
}

#[test]
fn f21_a_large_result_crosses_a_narrow_hop() {
    let site = Site::new();
    narrow(&site);
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    a_result_arrives(&site, &pgfw);
    assert_eq!(pgfw.status().packets("icmp-error-unrelated"), 0);
}

#[test]
fn f54_denied_routers_are_still_believed() {
    let site = Site::new();
    narrow(&site);
    let _far = EchoServer::start(&site.client, "[::]:8080");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for all in ["0.0.0.0/0", "::/0", "fe80::/10", "10.10.0.0/24", "fd00:10::/64"] {
        pgfw.ok(&["deny", all]);
    }
    site.db.ip("neighbour flush dev eth0");
    site.router.ip("neighbour flush dev db");
    for to in CLIENTS {
        let mut talk = Talk::open(&site.db, to, 8080);
        assert!(talk.flows() && talk.carries_a_megabyte(), "{to}");
        assert!(learned(&site.db, to), "{to}");
    }
    assert_eq!(pgfw.status().packets("icmp-error-unrelated"), 0);
}

/// "Too big, 1400" in the words of either family, quoting a segment.
fn too_big(wire: &Wire, quoted: &Frame) {
    let packet = quoted.packet();
    if packet[0] >> 4 == 4 {
        wire.message(3, 4, &[&[0, 0, 5, 120], &packet[..28]].concat());
    } else {
        wire.message(2, 0, &[&[0, 0, 5, 120], &packet[..48]].concat());
    }
}

#[test]
fn f21_an_error_about_a_flow_that_is_not_there_changes_nothing() {
    let site = Site::new();
    let _far = EchoServer::start(&site.client, "[::]:8080");
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    let mut dropped = 0;
    for ((db, far), router) in DB.into_iter().zip(CLIENTS).zip(ROUTER) {
        let wire = Wire::icmp(&site.router, router.parse().unwrap(), db);
        let talk = Talk::open(&site.db, far, 8080);
        let (db, far, mine) = (db.to_string(), far.to_string(), talk.local_port());
        let segment = |from, to| Frame::tcp((&db, from), (&far, to), ACK);
        let unknown = [
            segment(mine ^ 1, 8080),
            segment(mine, 8081),
            segment(8080, mine),
            // One that we would have received, not sent.
            Frame::tcp((&far, 8080), (&db, mine), ACK),
            Frame::udp((&db, mine), (&far, 8080)),
        ];
        for quoted in &unknown {
            too_big(&wire, quoted);
        }
        dropped += unknown.len() as u64;
        counts(&pgfw, "icmp-error-unrelated", dropped);
        assert!(!learned(&site.db, far.parse().unwrap()), "{far}");
    }
}

#[test]
fn f21_a_listener_is_no_flow_to_quote() {
    let site = Site::new();
    let listeners = DB.map(|db| {
        let at = SocketAddr::new(db, 5432);
        site.db.within(|| TcpListener::bind(at).unwrap())
    });
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for ((n, listener), router) in listeners.iter().enumerate().zip(ROUTER) {
        let db = listener.local_addr().unwrap();
        let wire = Wire::icmp(&site.router, router.parse().unwrap(), db.ip());
        let (here, there) = (db.ip().to_string(), CLIENTS[n].to_string());
        too_big(&wire, &Frame::tcp((&here, 5432), (&there, 40_000), ACK));
        counts(&pgfw, "icmp-error-unrelated", n as u64 + 1);
        let asked = || (!learned(&site.db, CLIENTS[n])).then_some(());
        eventually("nothing was learned", PATIENCE, asked);
    }
}
