//! Devices above the one that is attached to, and the device table's rules for them.

use std::net::TcpListener;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use pgfw_tests::lab::{EchoServer, Site, Talk, address, run};

use super::{configured, is_open, is_silent, refused};

/// A VLAN between the host and its router, as a storage network has: 10.7.0.10 there, 10.7.0.1 here.
fn vlan(site: &Site) {
    site.db.ip("link add link eth0 name eth0.7 type vlan id 7\n\
         link set eth0.7 up\n\
         address add 10.7.0.10/24 dev eth0.7");
    site.router.ip("link add link db name db.7 type vlan id 7\n\
         link set db.7 up\n\
         address add 10.7.0.1/24 dev db.7");
}

#[test]
fn f03_f55_long_connections_over_a_vlan_flow_and_strangers_there_find_nothing() {
    let site = Site::new();
    vlan(&site);
    let _storage = EchoServer::start(&site.router, "10.7.0.1:3260");
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let storage = "10.7.0.1".parse().unwrap();
    // Begun before anything is filtered, as an iSCSI session is.
    let mut before = Talk::open(&site.db, storage, 3260);
    assert!(before.flows());
    let pgfw = configured(&site, "eth0");
    let _daemon = pgfw.enforce();
    assert!(before.flows() && before.carries_a_megabyte());
    let mut after = Talk::open(&site.db, storage, 3260);
    assert!(after.carries_a_megabyte() && before.flows());
    assert!(
        is_silent(&site.router, "10.7.0.10".parse().unwrap(), 5432),
        "tagged frames are judged"
    );
    assert!(is_open(&site.client, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB, 5432));
}

#[test]
fn f55_a_socket_bound_to_a_vlan_is_named() {
    let site = Site::new();
    vlan(&site);
    let bound = site.db.within(|| {
        let listener = TcpListener::bind("10.7.0.10:3260").unwrap();
        setsockopt(&listener, BindToDevice, &"eth0.7".into()).unwrap();
        listener
    });
    let pgfw = configured(&site, "eth0");
    refused(&pgfw, &["10.7.0.10:3260", "eth0.7"]);
    drop(bound);
    let _daemon = pgfw.enforce();
}

/// A bond with the host's addresses over its interface.
fn bond(site: &Site) {
    site.db.ip("link add bond0 type bond mode active-backup\n\
         address flush dev eth0\n\
         link set eth0 down\n\
         link set eth0 master bond0\n\
         link set bond0 up\n\
         address add 10.10.0.10/24 dev bond0\n\
         route add default via 10.10.0.1");
}

#[test]
fn f55_a_bond_is_covered_itself_and_its_slave_is_refused_by_name() {
    let site = Site::new();
    bond(&site);
    let _server = EchoServer::start(&site.db, "0.0.0.0:5432");
    let pgfw = configured(&site, "eth0");
    refused(&pgfw, &["eth0", "bond0"]);
    pgfw.configure(&super::CONFIG.replace("eth0", "bond0"));
    let _daemon = pgfw.enforce();
    assert!(Talk::open(&site.client, address::DB, 5432).carries_a_megabyte());
    assert!(is_silent(&site.stranger, address::DB, 5432));
}

#[test]
fn f31_a_dummy_takes_generic_and_refuses_native() {
    let site = Site::new();
    site.db.ip("link add dum0 type dummy\nlink set dum0 up");
    let pgfw = configured(&site, "dum0");
    pgfw.configure(&super::CONFIG.replace("[\"eth0\"]", "[\"dum0\"]\nattach = \"native\""));
    refused(&pgfw, &["dum0", "no native XDP program"]);
    pgfw.configure(&super::CONFIG.replace("eth0", "dum0"));
    let _daemon = pgfw.enforce();
    let shown = run(site.db.command("ip").args(["link", "show", "dev", "dum0"])).expect_success();
    assert!(shown.contains("xdpgeneric"), "{shown}");
}
