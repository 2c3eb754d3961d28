//! What clients of PostgreSQL say first meets the filter as it meets the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use pgfw_tests::lab::{Child, Namespace, PATIENCE, PgCluster, Reach, Site, address, eventually};

use super::stage::Stage;

/// The first byte of the server's answer; `None`: it closes.
fn answer(from: &Namespace, to: std::net::IpAddr, message: &[u8]) -> Option<u8> {
    let server = SocketAddr::new(to, PgCluster::PORT);
    let mut stream = from
        .within(|| TcpStream::connect_timeout(&server, Duration::from_secs(5)))
        .unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(message).unwrap();
    let mut first = [0];
    match stream.read(&mut first) {
        Ok(1) => Some(first[0]),
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

/// PostgreSQL, protocol.sgml, "Message Formats"; a ClientHello that begins at once (direct TLS, from 17 on).
#[test]
fn p38_every_way_to_begin_is_judged_by_source_alone() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let plaintext = b"\0\0\0\x22\0\x03\0\0user\0alice\0database\0app\0\0\0";
    let begins: [(&str, &[u8]); 4] = [
        ("SSLRequest", &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]),
        ("GSSENCRequest", &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x30]),
        ("direct TLS", &[0x16, 3, 1, 0, 4, 1, 0, 0, 0]),
        ("a plaintext start-up", &plaintext[..]),
    ];
    let mut startup = plaintext.to_vec();
    let length = u32::try_from(startup.len()).unwrap();
    startup[..4].copy_from_slice(&length.to_be_bytes());
    let begins = begins.map(|(what, bytes)| {
        let bytes = if what == "a plaintext start-up" {
            &startup[..]
        } else {
            bytes
        };
        (what, bytes)
    });
    // None of them is asked what it is: a stranger's connection does not begin.
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    let at_home: Vec<Option<u8>> = begins
        .iter()
        .map(|(_, bytes)| answer(site.db.namespace(), address::DB, bytes))
        .collect();
    assert_eq!(at_home[0], Some(b'S'));
    stage.lease(&site.stranger, &alice);
    for ((what, bytes), expected) in begins.iter().zip(at_home) {
        assert_eq!(answer(&site.stranger, address::DB, bytes), expected, "{what}");
    }
}

/// A CancelRequest is a connection of its own, in the clear up to libpq 16.
#[test]
fn p37_a_query_is_cancelled_from_an_address_that_holds_a_lease() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    stage.lease(&site.stranger, &alice);
    let conninfo = stage.psql(&site.stranger, "alice", &alice).conninfo();
    let mut command = site.stranger.command("psql");
    command.args(["-X", "-w", "-d", &conninfo, "-c", "select pg_sleep(3600)"]);
    let mut psql = Child::start(&mut command);
    eventually("the query runs", PATIENCE, || {
        let running =
            "select count(*) from pg_stat_activity where query like '%pg_sleep(3600)' and state = 'active'";
        (stage.cluster.sql(running) == "1").then_some(())
    });
    psql.signal(Signal::SIGINT);
    psql.wait(PATIENCE);
    let said = psql.stderr();
    assert!(said.contains("canceling statement due to user request"), "{said}");
}
