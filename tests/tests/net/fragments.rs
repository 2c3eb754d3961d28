//! Datagrams in pieces.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use pgfw_common::frames::{Frame, SYN, TCP, UDP};
use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, Wire, address, run};

use super::{CONFIG, DB, DENY_ALL, STRANGER, configured, counts};

const CLIENTS: [(IpAddr, IpAddr); 2] = [
    (address::DB, address::CLIENT),
    (address::DB_V6, address::CLIENT_V6),
];

/// CONFIG with a UDP service for the client's networks.
fn with_a_service() -> String {
    format!(
        "{CONFIG}\n[[service]]\nname = \"syslog\"\nprotocol = \"udp\"\nports = [\"5000\"]\n\
         allow = [\"10.20.0.0/16\", \"fd00:20::/64\"]\n"
    )
}

fn udp(on: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = on.within(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A part of a packet's payload as a fragment.
fn fragment(
    whole: &[u8],
    protocol: u8,
    (db, far): (IpAddr, IpAddr),
    part: std::ops::Range<usize>,
) -> Vec<u8> {
    let (offset, more) = (part.start as u16, part.end < whole.len());
    let frame = Frame::ip(&far.to_string(), &db.to_string(), protocol, &whole[part]);
    let frame = match db {
        IpAddr::V4(_) => frame.fragment4(offset, more),
        IpAddr::V6(_) => frame.fragment6(offset, more, 77),
    };
    frame.packet().to_vec()
}

#[test]
fn f07_large_datagrams_of_allowed_flows_arrive_whole() {
    let site = Site::new();
    let pgfw = configured(&site, &with_a_service());
    let _daemon = pgfw.enforce();
    let large: Vec<u8> = (0..4000_u32).map(|n| (n % 251) as u8).collect();
    let mut buffer = [0; 8000];
    for (db, client) in CLIENTS {
        // To a service, and its answer.
        let service = udp(&site.db, SocketAddr::new(db, 5000));
        let sender = udp(&site.client, SocketAddr::new(client, 0));
        sender.send_to(&large, SocketAddr::new(db, 5000)).unwrap();
        let (length, from) = service.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], large, "{db}");
        service.send_to(&large, from).unwrap();
        assert_eq!(sender.recv(&mut buffer).unwrap(), large.len(), "{db}");
    }
    for (db, far) in STRANGER {
        // An answer to a question of ours.
        let server = udp(&site.stranger, SocketAddr::new(far, 53));
        let asker = udp(&site.db, SocketAddr::new(db, 0));
        asker.send_to(b"?", SocketAddr::new(far, 53)).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&large, from).unwrap();
        assert_eq!(asker.recv(&mut buffer).unwrap(), large.len(), "{db}");
        let mut ping = site.db.command("ping");
        ping.args(["-n", "-c", "1", "-W", "2", "-s", "4000", &far.to_string()]);
        run(&mut ping).expect_success();
        // The stranger's own datagram does not come in, whole or in pieces.
        let before = pgfw.status().packets("fragment");
        server.send_to(&large, SocketAddr::new(db, 5000)).unwrap();
        counts(&pgfw, "fragment-unknown", if db.is_ipv4() { 2 } else { 4 });
        assert_eq!(pgfw.status().packets("fragment"), before);
    }
    assert_eq!(pgfw.status().packets("fragment"), 12);
}

#[test]
fn f07_a_lone_later_fragment_is_a_strangers() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    for (n, ends) in STRANGER.into_iter().enumerate() {
        let wire = Wire::packets(&site.stranger, ends.1, ends.0);
        // Its bytes look like the header of a segment to PostgreSQL.
        let mut whole = vec![0; 16];
        whole.extend(pgfw_common::frames::tcp(40_000, 5432, SYN));
        wire.packet(&fragment(&whole, TCP, ends, 16..36));
        counts(&pgfw, "fragment-unknown", n as u64 + 1);
    }
}

#[test]
fn f07_tiny_and_overlapping_fragments_reach_no_socket() {
    let site = Site::new();
    let pgfw = configured(&site, &with_a_service());
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let _daemon = pgfw.enforce();
    let mut buffer = [0; 8000];
    for (n, ends) in CLIENTS.into_iter().enumerate() {
        let (db, client) = ends;
        let wire = Wire::packets(&site.client, client, db);
        // RFC 1858, 3: the flags are in the second fragment.
        let segment = pgfw_common::frames::tcp(40_000, 5432, SYN);
        wire.packet(&fragment(&segment, TCP, ends, 0..8));
        counts(&pgfw, "tcp-truncated", n as u64 + 1);
        wire.packet(&fragment(&segment, TCP, ends, 8..20));
        counts(&pgfw, "fragment-unknown", n as u64 + 1);

        // RFC 5722: the second fragment rewrites what the first said. It comes from whom the first was let in, and
        // the stack throws both away.
        let service = udp(&site.db, SocketAddr::new(db, 5000));
        let datagram = wire.datagram(40_000, 5000, &[b'x'; 120]);
        let before = pgfw.status().packets("fragment");
        wire.packet(&fragment(&datagram, UDP, ends, 0..64));
        wire.packet(&fragment(&datagram, UDP, ends, 32..128));
        super::eventually("the second fragment is judged", PATIENCE, || {
            (pgfw.status().packets("fragment") > before).then_some(())
        });
        let honest = udp(&site.client, SocketAddr::new(client, 0));
        honest.send_to(b"whole", SocketAddr::new(db, 5000)).unwrap();
        let length = service.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"whole", "{db}");
    }
}

#[test]
fn f07_an_atomic_fragment_is_a_whole_packet() {
    let site = Site::new();
    let pgfw = configured(&site, &with_a_service());
    let _daemon = pgfw.enforce();
    let db = DB[1];
    let service = udp(&site.db, SocketAddr::new(db, 5000));
    let send = |from: &Namespace, own| {
        let wire = Wire::packets(from, own, db);
        let datagram = wire.datagram(40_000, 5000, b"atomic");
        wire.packet(&fragment(&datagram, UDP, (db, own), 0..datagram.len()));
    };
    send(&site.stranger, address::STRANGER_V6);
    counts(&pgfw, "service-closed", 1);
    send(&site.client, address::CLIENT_V6);
    let mut buffer = [0; 64];
    let (length, from) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from.ip()),
        (b"atomic".as_slice(), address::CLIENT_V6)
    );
    assert_eq!(pgfw.status().packets("fragment"), 0);
}
