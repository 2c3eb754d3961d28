//! A host with two ways out: the question leaves by one, the answer comes in by the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, Talk, address, join, run};

use super::{DENY_ALL, configured, is_silent};

/// Where clouds keep their metadata service.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The router is reached by `eth1`, and sends to the host's addresses by `eth0`.
fn second_way_out(site: &Site) {
    join((&site.router, "db2"), (&site.db, "eth1"));
    for (machine, device) in [
        (&site.router, "db2"),
        (&site.router, "db"),
        (&*site.db, "eth0"),
        (&*site.db, "eth1"),
    ] {
        for key in [
            format!("net/ipv4/conf/{device}/rp_filter"),
            "net/ipv4/conf/all/rp_filter".into(),
        ] {
            machine.sysctl(&key, "0");
        }
    }
    site.router.ip("address add 10.11.0.1/24 dev db2\n\
         address add fd00:11::1/64 dev db2 nodad\n\
         route add 169.254.169.254/32 via 192.168.1.10");
    site.stranger.ip("address add 169.254.169.254/32 dev eth0");
    site.db.ip("address add 10.11.0.10/24 dev eth1\n\
         address add fd00:11::10/64 dev eth1 nodad\n\
         route replace default via 10.11.0.1 dev eth1 src 10.10.0.10\n\
         route delete ::/0\n\
         route add ::/0 via fd00:11::1 dev eth1 src fd00:10::10");
}

fn received(site: &Site, device: &str) -> u64 {
    let mut ip = site.db.command("ip");
    let shown = run(ip.args(["-s", "-j", "link", "show", "dev", device])).expect_success();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

fn bound(on: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = on.within(|| UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn f56_answers_arrive_by_another_interface_than_questions_left() {
    let site = Site::new();
    second_way_out(&site);
    let _metadata = EchoServer::start(&site.stranger, "[::]:80");
    let both = DENY_ALL.replace("[\"eth0\"]", "[\"eth0\", \"eth1\"]");
    let pgfw = configured(&site, &both);
    let _daemon = pgfw.enforce();
    // NTP asks from its own port, DNS from any.
    for (own, port) in [(123, 123), (0, 53)] {
        for (db, far) in [
            (address::DB, address::STRANGER),
            (address::DB_V6, address::STRANGER_V6),
        ] {
            let server = bound(&site.stranger, SocketAddr::new(far, port));
            let asker = bound(&site.db, SocketAddr::new(db, own));
            let before = received(&site, "eth0");
            asker.send_to(b"question", SocketAddr::new(far, port)).unwrap();
            let mut buffer = [0; 64];
            let (_, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(b"answer", from).unwrap();
            assert_eq!(asker.recv(&mut buffer).unwrap(), 6, "{far} port {port}");
            assert!(received(&site, "eth0") > before, "it came by eth0");
        }
    }
    assert!(pgfw.status().packets("answer") >= 4);
    for to in [METADATA, address::STRANGER, address::STRANGER_V6] {
        let mut talk = Talk::open(&site.db, to, 80);
        assert!(talk.flows() && talk.carries_a_megabyte(), "{to}");
    }
    for db in [address::DB, address::DB_V6, "10.11.0.10".parse().unwrap()] {
        assert!(is_silent(&site.stranger, db, 5432), "{db}");
    }
}
