//! IPv6 neighbours and routers as RFC 4861, 4862 and 4890 ask, and ICMP that would redirect.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use pgfw_tests::lab::{Child, Namespace, PATIENCE, Site, Wire, address, eventually, run};

use super::{DENY_ALL, configured, counts};

const ROUTER: [(IpAddr, &str); 2] = [(address::DB, "10.10.0.1"), (address::DB_V6, "fd00:10::1")];

fn addresses(machine: &Namespace, device: &str) -> String {
    let mut ip = machine.command("ip");
    run(ip.args(["-6", "-o", "address", "show", "dev", device])).expect_success()
}

/// Interfaces of the lab skip duplicate address detection; this one asks first.
fn asks_first(machine: &Namespace, device: &str) {
    for key in ["accept_dad", "dad_transmits"] {
        machine.sysctl(&format!("net/ipv6/conf/{device}/{key}"), "1");
    }
}

/// Waits for the outcome of duplicate address detection: whether the address is taken.
#[track_caller]
fn is_taken(machine: &Namespace, device: &str, address: &str) -> bool {
    eventually("duplicate address detection ends", PATIENCE, || {
        let shown = addresses(machine, device);
        let line = shown.lines().find(|line| line.contains(address));
        let line = line.unwrap_or_else(|| panic!("no {address} among\n{shown}"));
        match (line.contains("dadfailed"), line.contains("tentative")) {
            (true, _) => Some(true),
            (false, false) => Some(false),
            (false, true) => None,
        }
    })
}

#[test]
fn f26_duplicate_addresses_are_found_in_both_directions() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    pgfw.ok(&["deny", "::/0"]);
    asks_first(&site.db, "eth0");
    asks_first(&site.router, "db");
    // We want the router's address and are told.
    site.db.ip("address add fd00:10::1/64 dev eth0");
    assert!(is_taken(&site.db, "eth0", "fd00:10::1/"));
    // The neighbour wants ours and is told.
    site.router.ip("address add fd00:10::10/64 dev db");
    assert!(is_taken(&site.router, "db", "fd00:10::10/"));
    // One that is free is had by either.
    site.db.ip("address add fd00:10::77/64 dev eth0");
    assert!(!is_taken(&site.db, "eth0", "fd00:10::77/"));
    site.router.ip("address add fd00:10::78/64 dev db");
    assert!(!is_taken(&site.router, "db", "fd00:10::78/"));
}

#[test]
fn f26_an_address_is_made_from_what_the_router_says() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    pgfw.ok(&["deny", "fe80::/10"]);
    for (key, value) in [("accept_ra", "1"), ("autoconf", "1")] {
        site.db.sysctl(&format!("net/ipv6/conf/eth0/{key}"), value);
    }
    site.router.ip("address add fd00:11::1/64 dev db nodad");
    let _advertises = Child::start(site.router.command("dnsmasq").args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--port=0",
        "--log-facility=-",
        "--interface=db",
        "--enable-ra",
        "--dhcp-range=fd00:11::,ra-only",
    ]))
    .talkative();
    eventually("an address of the advertised prefix", PATIENCE, || {
        addresses(&site.db, "eth0").contains("fd00:11::").then_some(())
    });
    assert!(pgfw.status().packets("neighbour-discovery") > 0);
    assert_eq!(pgfw.status().packets("neighbour-invalid"), 0);
}

#[test]
fn f26_what_came_through_a_router_is_no_neighbour() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    let wire = Wire::icmp(&site.router, ROUTER[1].1.parse().unwrap(), address::DB_V6);
    let target = [
        &[0; 4],
        "fd00:10::10".parse::<Ipv6Addr>().unwrap().octets().as_slice(),
    ]
    .concat();
    // NS, NA and RA with the hop limit of 64 that any socket has.
    for kind in [135, 136, 134] {
        wire.message(kind, 0, &target);
    }
    counts(&pgfw, "neighbour-invalid", 3);
    // MLD is spoken from link-local addresses, or from none.
    for kind in [130, 131, 132, 143] {
        wire.message(kind, 0, &[0; 20]);
    }
    counts(&pgfw, "multicast-listener-source", 4);
    let listener = pgfw.status().packets("multicast-listener");
    let group = UdpSocket::bind("[::]:0").unwrap();
    drop(group);
    let member = site.router.within(|| UdpSocket::bind("[::]:0").unwrap());
    let device = site.router.ifindex("db");
    member
        .join_multicast_v6(&"ff05::1234".parse().unwrap(), device)
        .unwrap();
    eventually("the router's report is let in", PATIENCE, || {
        (pgfw.status().packets("multicast-listener") > listener).then_some(())
    });
}

#[test]
fn f26_redirects_drop() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    for (n, (db, router)) in ROUTER.into_iter().enumerate() {
        let kind = if db.is_ipv4() { 5 } else { 137 };
        Wire::icmp(&site.router, router.parse().unwrap(), db).message(kind, 1, &[0; 40]);
        counts(&pgfw, "icmp-redirect", n as u64 + 1);
    }
}
