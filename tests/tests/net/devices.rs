//! Devices above the attached one, and devices that carry no Ethernet.

use std::net::{SocketAddr, SocketAddrV6, TcpListener};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use pgfw_tests::lab::{EchoServer, Instance, Namespace, PATIENCE, Site, Talk, address, eventually, run};

use super::{CONFIG, DB, configured, is_open, is_silent};

/// Puts a bridge with the host's addresses above its interface, as for virtual machines.
fn bridge(site: &Site) {
    site.db.ip("link add br0 type bridge\n\
         address flush dev eth0\n\
         link set eth0 master br0\n\
         link set br0 up\n\
         address add 10.10.0.10/24 dev br0\n\
         address add fd00:10::10/64 dev br0 nodad\n\
         route add default via 10.10.0.1\n\
         route replace ::/0 via fd00:10::1");
}

#[track_caller]
fn refused(pgfw: &Instance<'_>, names: [&str; 2]) {
    let refused = pgfw.pgfw(&["run"]);
    assert_ne!(refused.code, Some(0), "{names:?}");
    for name in names {
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
    assert!(pgfw.host().pins().iter().all(|pin| pin != "links"));
    let shown = run(pgfw.host().command("ip").args(["link"])).expect_success();
    assert!(!shown.contains("xdp"), "{shown}");
}

/// The link-local address of an interface.
fn link_local(machine: &Namespace, interface: &str) -> std::net::Ipv6Addr {
    eventually("a link-local address", PATIENCE, || {
        let mut ip = machine.command("ip");
        let shown = run(ip.args(["-6", "-o", "address", "show", "dev", interface, "scope", "link"]));
        let text = shown.expect_success();
        text.split_whitespace()
            .find_map(|word| word.strip_suffix("/64")?.parse().ok())
    })
}

#[test]
fn f55_a_bridge_is_covered_itself_and_its_port_is_refused_by_name() {
    let site = Site::new();
    bridge(&site);
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    refused(&pgfw, ["eth0", "br0"]);

    // What the port would have cut: a socket bound to the bridge, and a link-local connection of this host.
    let bound = site.db.within(|| {
        let listener = TcpListener::bind("0.0.0.0:22").unwrap();
        setsockopt(&listener, BindToDevice, &"br0".into()).unwrap();
        listener
    });
    let router = link_local(&site.router, "db");
    let _far = EchoServer::start(&site.router, "[::]:8080");
    pgfw.configure(&CONFIG.replace("eth0", "br0"));
    let _daemon = pgfw.enforce();
    let to = SocketAddr::V6(SocketAddrV6::new(router, 8080, 0, site.db.ifindex("br0")));
    let mut talk = Talk::open_to(&site.db, to);
    assert!(talk.flows() && talk.carries_a_megabyte());
    let session = Talk::open(&site.stranger, address::DB, 22);
    let (served, _) = bound.accept().unwrap();
    use std::io::{Read, Write};
    (&served).write_all(b"SSH\n").unwrap();
    served.shutdown(std::net::Shutdown::Write).unwrap();
    drop(session);
    assert_eq!((&served).read(&mut [0]).unwrap_or(0), 0, "its end came");
    for to in DB {
        assert!(Talk::open(&site.client, to, 5432).carries_a_megabyte());
        assert!(is_silent(&site.stranger, to, 5432), "{to}");
    }
}

#[test]
fn f55_a_socket_bound_above_the_interface_is_named_and_without_one_it_is_covered() {
    let site = Site::new();
    site.db
        .ip("link add link eth0 name mac0 type macvlan mode bridge\n\
         link set mac0 up\n\
         address add 10.10.0.11/24 dev mac0");
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let bound = site.db.within(|| {
        let listener = TcpListener::bind("10.10.0.11:6432").unwrap();
        setsockopt(&listener, BindToDevice, &"mac0".into()).unwrap();
        listener
    });
    let pgfw = configured(&site, CONFIG);
    refused(&pgfw, ["10.10.0.11:6432", "mac0"]);
    drop(bound);
    let _daemon = pgfw.enforce();
    for to in [DB[0], DB[1], "10.10.0.11".parse().unwrap()] {
        assert!(is_open(&site.client, to, 5432), "{to}");
        assert!(is_silent(&site.stranger, to, 5432), "{to}");
    }
}

#[test]
fn f55_a_device_without_ethernet_is_refused() {
    let site = Site::new();
    run(site
        .db
        .command("ip")
        .args(["tuntap", "add", "dev", "tun0", "mode", "tun"]))
    .expect_success();
    site.db.ip("link set tun0 up");
    for name in ["tun0", "tun*"] {
        let pgfw = configured(&site, &CONFIG.replace("eth0", name));
        refused(&pgfw, ["tun0", "Ethernet"]);
    }
}
