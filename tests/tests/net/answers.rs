//! What this host asks for comes back; what nobody asked for does not come in.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, Talk, Wire, address, run};

use super::{DENY_ALL, STRANGER, configured, counts, is_silent};

fn pings(from: &Namespace, to: IpAddr) -> bool {
    let mut ping = from.command("ping");
    run(ping.args(["-n", "-c", "1", "-W", "1", &to.to_string()])).success()
}

const ICMP_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO_REPLY: u8 = 129;

#[test]
fn f22_our_pings_are_answered_and_nobody_elses_unless_the_config_says_so() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    for (n, (db, far)) in STRANGER.into_iter().enumerate() {
        assert!(pings(&site.db, far), "{far}");
        counts(&pgfw, "echo-reply", n as u64 + 1);
        // An answer to no question: identifier 7, sequence 1.
        let kind = if db.is_ipv4() {
            ICMP_ECHO_REPLY
        } else {
            ICMPV6_ECHO_REPLY
        };
        Wire::icmp(&site.stranger, far, db).message(kind, 0, &[0, 7, 0, 1]);
        counts(&pgfw, "echo-reply-unasked", n as u64 + 1);
        assert!(!pings(&site.stranger, db), "{db}");
        counts(&pgfw, "echo-request-refused", n as u64 + 1);
    }
    for (n, echo) in ["accept", "limit"].into_iter().enumerate() {
        pgfw.configure(&DENY_ALL.replace("[ssh]", &format!("echo = \"{echo}\"\n[ssh]")));
        pgfw.ok(&["reload"]);
        for (db, _) in STRANGER {
            assert!(pings(&site.stranger, db), "{db}, {echo}");
        }
        counts(&pgfw, "echo-request", 2 * (n as u64 + 1));
    }
    // "limit" lets ten in a second pass.
    let refused = pgfw.status().packets("echo-request-refused");
    let mut flood = site.stranger.command("ping");
    flood.args(["-n", "-q", "-f", "-c", "100", "-W", "1", &address::DB.to_string()]);
    run(&mut flood);
    let passed = pgfw.status().packets("echo-request") - 4;
    assert!((10..=50).contains(&passed), "{passed}");
    assert_eq!(
        pgfw.status().packets("echo-request-refused") - refused + passed,
        100
    );
}

/// A question to a server far away, from a socket that stays open, and its answer.
fn asks(site: &Site, server: &UdpSocket, far: SocketAddr, connected: bool) -> (UdpSocket, SocketAddr) {
    let any = if far.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = site.db.within(|| UdpSocket::bind(any).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    if connected {
        client.connect(far).unwrap();
        client.send(b"where is db.example.com?").unwrap();
    } else {
        client.send_to(b"where is db.example.com?", far).unwrap();
    }
    let mut buffer = [0; 512];
    let (_, asker) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"here", asker).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (b"here".as_slice(), far));
    (client, asker)
}

#[test]
fn f20_a_dns_answer_comes_in_and_nothing_else_on_its_port() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    let mut dropped = 0;
    for (_, far) in STRANGER {
        let others = if far.is_ipv4() {
            address::CLIENT
        } else {
            address::CLIENT_V6
        };
        let bind = |on: &Namespace, at| on.within(|| UdpSocket::bind(at).unwrap());
        let server = bind(&site.stranger, SocketAddr::new(far, 53));
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let neighbour = bind(&site.stranger, SocketAddr::new(far, 54));
        let elsewhere = bind(&site.client, SocketAddr::new(others, 53));
        for connected in [true, false] {
            let (client, asker) = asks(&site, &server, SocketAddr::new(far, 53), connected);
            let beside = SocketAddr::new(asker.ip(), asker.port() ^ 1);
            neighbour.send_to(b"forged", asker).unwrap();
            elsewhere.send_to(b"forged", asker).unwrap();
            server.send_to(b"forged", beside).unwrap();
            dropped += 3;
            counts(&pgfw, "udp", dropped);
            // A second answer of the one that was asked still comes, and is the first thing to come.
            server.send_to(b"more", asker).unwrap();
            let mut buffer = [0; 512];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"more");
        }
    }
    counts(&pgfw, "answer", 8);
}

#[test]
fn f29_loopback_is_never_filtered() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    let local = ["127.0.0.1", "::1", "10.10.0.10", "fd00:10::10"];
    for to in local.map(|text| text.parse::<IpAddr>().unwrap()) {
        assert!(Talk::open(&site.db, to, 5432).carries_a_megabyte(), "{to}");
        assert!(pings(&site.db, to), "{to}");
    }
    for (db, _) in STRANGER {
        assert!(is_silent(&site.stranger, db, 5432));
        assert!(is_silent(&site.client, db, 5432));
    }
    pgfw.configure("[firewall]\ninterfaces = [\"eth0\", \"lo\"]\n");
    let refused = pgfw.pgfw(&["reload"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("`lo` is never filtered"),
        "{}",
        refused.stderr
    );
}
