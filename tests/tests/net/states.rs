//! The states of a connection beyond "established".

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt};
use pgfw_common::frames::{ACK, FIN, SYN};
use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, Talk, Wire, address, eventually, run};

use super::{CONFIG, DB, DENY_ALL, STRANGER, configured, counts, is_silent};

#[test]
fn f16_handshakes_complete_by_cookie_and_a_forged_ack_drops() {
    let site = Site::new();
    let _servers = [5432, 22].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    // Always: as if the queue of half-open connections were full.
    site.db.sysctl("net/ipv4/tcp_syncookies", "2");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for (n, (db, own)) in STRANGER.into_iter().enumerate() {
        let n = n as u64;
        for (from, port) in [(&site.client, 5432), (&site.stranger, 22)] {
            let mut talk = Talk::open_at_once(from, db, port);
            assert!(talk.flows() && talk.carries_a_megabyte(), "{db}, {port}");
        }
        // The client's service admits its ACK as it is; SSH, which is open to the world, asks for the cookie.
        counts(&pgfw, "syn-cookie", n + 1);
        let wire = Wire::tcp(&site.stranger, own, db);
        wire.segment(40_000, 22, ACK);
        wire.segment(40_001, 5432, ACK);
        counts(&pgfw, "no-connection", 2 * (n + 1));
        assert_eq!(
            wire.heard()
                .iter()
                .filter(|s| s.to >= 40_000 && s.to <= 40_001)
                .count(),
            0
        );
    }
}

#[test]
fn f17_retransmits_reach_time_wait_and_a_new_syn_does_not() {
    let site = Site::new();
    let far = EchoServer::start(&site.stranger, "[::]:8080");
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    let mut ports = Vec::new();
    for (db, to) in STRANGER {
        let mut talk = Talk::open(&site.db, to, 8080);
        assert!(talk.flows());
        ports.push((db, to, talk.local_port()));
    }
    // This host has closed first; the far end follows. From then on its stack would reset what it does not know.
    drop(far);
    for iptables in ["iptables-nft", "ip6tables-nft"] {
        let mut silent = site.stranger.command(iptables);
        silent.args([
            "-w",
            "-A",
            "OUTPUT",
            "-p",
            "tcp",
            "--tcp-flags",
            "RST",
            "RST",
            "-j",
            "DROP",
        ]);
        run(&mut silent).expect_success();
    }
    for (n, (db, to, port)) in ports.into_iter().enumerate() {
        let waits = || {
            let mut ss = site.db.command("ss");
            let listed = run(ss.args(["-Htan", "state", "time-wait"])).expect_success();
            listed.contains(&format!(":{port} ")).then_some(())
        };
        eventually("the connection waits", PATIENCE, waits);
        let wire = Wire::tcp(&site.stranger, to, db);
        let before = pgfw.status().packets("established");
        wire.segment(8080, port, FIN | ACK);
        wire.segment(8080, port, ACK);
        counts(&pgfw, "established", before + 2);
        wire.answer(8080, port, PATIENCE);
        wire.segment(8080, port, SYN);
        wire.segment(8081, port, FIN | ACK);
        counts(&pgfw, "new-tcp", n as u64 + 1);
        counts(&pgfw, "no-connection", n as u64 + 1);
    }
}

/// A connection from a port of the caller's choice, which may be reused at once.
fn connect_from(machine: &Namespace, own: SocketAddr, to: SocketAddr) -> std::net::TcpStream {
    let family = if own.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    machine.within(|| {
        let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&fd, ReuseAddr, &true).unwrap();
        use std::os::fd::AsRawFd;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(own)).unwrap();
        socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to))
            .unwrap_or_else(|error| panic!("{own} cannot connect to {to}: {error}"));
        fd.into()
    })
}

/// The machine goes down with its connection: the other end hears nothing of it.
fn crash(machine: &Namespace, stream: std::net::TcpStream, to: IpAddr) {
    let length = if to.is_ipv4() { 32 } else { 128 };
    machine.ip(&format!("route add blackhole {to}/{length}"));
    setsockopt(
        &stream,
        socket::sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )
    .unwrap();
    drop(stream);
    machine.ip(&format!("route delete blackhole {to}/{length}"));
}

#[test]
fn f19_a_client_that_crashed_reconnects_from_the_same_port() {
    let site = Site::new();
    let _servers = [5432, 22].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let far = [
        (&site.client, [address::CLIENT, address::CLIENT_V6], 5432),
        (&site.stranger, [address::STRANGER, address::STRANGER_V6], 22),
    ];
    for (machine, own, port) in far {
        for (db, own) in DB.into_iter().zip(own) {
            let (own, to) = (SocketAddr::new(own, 45_000), SocketAddr::new(db, port));
            let first = connect_from(machine, own, to);
            crash(machine, first, db);
            let listed = run(site.db.command("ss").args(["-Htan", "state", "established"]));
            assert!(
                listed.expect_success().contains(":45000"),
                "the server knows of no crash"
            );
            // SYN, challenge ACK, RST (RFC 5961, 4.2); the second SYN, a second later, is served.
            let second = connect_from(machine, own, to);
            speaks(&second);
        }
    }
    assert!(is_silent(&site.stranger, DB[0], 5432));
}

fn speaks(mut stream: &std::net::TcpStream) {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}
