//! The network of the guides: a site whose database host has neighbours on its own link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pgfw_tests::lab::{
    EchoServer, Host, Instance, Namespace, PATIENCE, PgCluster, Reach, Site, Talk, eventually, join, tcp,
};

pub(crate) use pgfw_tests::lab::address::{DB, DB_V6};

/// The number of a neighbour whom no guide allows anything.
pub(crate) const NOBODY: u8 = 99;

/// Long enough for an answer that comes, short enough to wait for one that does not.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// The address of a neighbour, as in the index of the guides.
pub(crate) fn v4(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 10, 0, number))
}

/// fe80::NUMBER, the number written in decimal digits as everywhere here.
pub(crate) fn link_local(number: u8) -> Ipv6Addr {
    format!("fe80::{number}").parse().unwrap()
}

/// A [`Site`] whose router is a switch for 10.10.0.0/24 and fd00:10::/64 as well.
#[derive(Debug)]
pub(crate) struct Lan {
    pub(crate) site: Site,
}

impl std::ops::Deref for Lan {
    type Target = Site;
    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Lan {
    pub(crate) fn new() -> Lan {
        let site = Site::new();
        site.router.ip("link add lan type bridge\n\
             link set lan up\n\
             address flush dev db\n\
             link set db master lan\n\
             address add 10.10.0.1/24 dev lan\n\
             address add fd00:10::1/64 dev lan nodad");
        site.db.ip("address add fe80::10/64 dev eth0 nodad");
        Lan { site }
    }

    /// A machine on the link, with network and files of its own.
    pub(crate) fn host(&self, name: &str, number: u8) -> Host {
        let host = Host::new(name);
        self.connect(&host, number);
        host
    }

    /// A machine on the link, with a network of its own.
    pub(crate) fn neighbour(&self, name: &str, number: u8) -> Namespace {
        let neighbour = Namespace::new(name);
        self.connect(&neighbour, number);
        neighbour
    }

    fn connect(&self, machine: &Namespace, number: u8) {
        let port = format!("port{number}");
        join((&self.router, &port), (machine, "eth0"));
        self.router.ip(&format!("link set {port} master lan"));
        machine.ip(&format!(
            "address add 10.10.0.{number}/24 dev eth0\n\
             address add fd00:10::{number}/64 dev eth0 nodad\n\
             address add fe80::{number}/64 dev eth0 nodad\n\
             route add default via 10.10.0.1\n\
             route add ::/0 via fd00:10::1"
        ));
    }
}

/// pgfw on a host by a guide's config. It is told where this machine has its cluster, and nothing else is changed.
#[track_caller]
pub(crate) fn configured<'host>(
    host: &'host Host,
    config: &str,
    cluster: Option<&PgCluster<'_>>,
) -> Instance<'host> {
    let pgfw = Instance::new(host);
    let name = cluster.map_or("15/main".to_owned(), PgCluster::name);
    pgfw.configure(&config.replace("15/main", &name));
    pgfw
}

/// A TCP service for a test: whoever gets in is repeated.
#[track_caller]
pub(crate) fn serve(on: &Namespace, port: u16) -> EchoServer {
    EchoServer::start(on, &format!("[::]:{port}"))
}

/// Asserts that a new connection is made and carries data, each way.
#[track_caller]
pub(crate) fn gets_in(from: &Namespace, to: IpAddr, port: u16) -> Talk {
    let mut talk = Talk::open(from, to, port);
    assert!(talk.flows(), "{} to port {port}", from.name());
    talk
}

/// Asserts that nothing answers a new connection, and that the filter counts it under `reason`.
#[track_caller]
pub(crate) fn is_refused(pgfw: &Instance<'_>, from: &Namespace, port: u16, reason: &str) {
    is_refused_at(pgfw, from, DB, port, reason);
}

#[track_caller]
pub(crate) fn is_refused_at(pgfw: &Instance<'_>, from: &Namespace, to: IpAddr, port: u16, reason: &str) {
    let before = pgfw.status().packets(reason);
    assert_eq!(
        tcp(from, to, port, SHORT),
        Reach::Silent,
        "{} to port {port}",
        from.name()
    );
    counted(pgfw, reason, before);
}

/// Waits until more packets have a reason than before.
#[track_caller]
pub(crate) fn counted(pgfw: &Instance<'_>, reason: &str, before: u64) {
    let what = format!("a packet is {reason}, after {before}");
    eventually(&what, PATIENCE, || {
        (pgfw.status().packets(reason) > before).then_some(())
    });
}
