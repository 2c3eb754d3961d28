//! Neighbours find each other although nothing else is open.

use pgfw_tests::lab::{EchoServer, Instance, Namespace, PATIENCE, Site, Talk, address, eventually, run};

use super::{DENY_ALL, configured};

/// One family: the addresses of the database host and of its router, and how `ip` calls the family.
struct Family {
    flag: &'static str,
    db: &'static str,
    router: &'static str,
    /// The reason under which its neighbour messages pass.
    reason: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        flag: "-4",
        db: "10.10.0.10",
        router: "10.10.0.1",
        reason: "arp",
    },
    Family {
        flag: "-6",
        db: "fd00:10::10",
        router: "fd00:10::1",
        reason: "neighbour-discovery",
    },
];

/// A host that nobody may reach, with connections to the client that have to go on.
struct Closed<'site> {
    site: &'site Site,
    pgfw: Instance<'site>,
    talks: Vec<Talk>,
}

fn closed(site: &Site) -> Closed<'_> {
    let pgfw = configured(site, DENY_ALL);
    let talks = [address::CLIENT, address::CLIENT_V6].map(|to| Talk::open(&site.db, to, 8080));
    Closed {
        site,
        pgfw,
        talks: talks.into(),
    }
}

impl Closed<'_> {
    #[track_caller]
    fn goes_on(&mut self) {
        for talk in &mut self.talks {
            assert!(talk.flows());
        }
    }

    /// How `machine` sees a neighbour now: its link-layer address and state, in `ip`'s words.
    fn entry(&self, machine: &Namespace, family: &Family, neighbour: &str, device: &str) -> String {
        let mut ip = machine.command("ip");
        ip.args([family.flag, "neighbour", "show", neighbour, "dev", device]);
        run(&mut ip).expect_success()
    }

    /// Has `machine` ask a neighbour it knows whether it is still there, and waits for the answer.
    #[track_caller]
    fn probe(&self, machine: &Namespace, family: &Family, neighbour: &str, device: &str) {
        let before = self.pgfw.status().packets(family.reason);
        machine.ip(&format!("neighbour change {neighbour} dev {device} nud probe"));
        eventually(&format!("{neighbour} answers"), PATIENCE, || {
            self.entry(machine, family, neighbour, device)
                .contains("REACHABLE")
                .then_some(())
        });
        assert!(self.pgfw.status().packets(family.reason) > before);
    }

    fn router(&self) -> &Namespace {
        &self.site.router
    }
}

#[test]
fn f25_neighbours_are_found_under_deny_all() {
    let site = Site::new();
    let _far = EchoServer::start(&site.client, "[::]:8080");
    let mut closed = closed(&site);
    let _daemon = closed.pgfw.enforce();
    closed.goes_on();
    for family in &FAMILIES {
        // Nobody knows anybody any more.
        site.db.ip("neighbour flush dev eth0");
        closed.goes_on();
        site.router.ip("neighbour flush dev db");
        closed.goes_on();
        // A new connection begins with finding the router.
        site.db.ip("neighbour flush dev eth0");
        for to in [address::CLIENT, address::CLIENT_V6] {
            assert!(Talk::open(&site.db, to, 8080).flows());
        }
        assert!(closed.pgfw.status().packets(family.reason) > 0);
    }
}

#[test]
fn f25_neighbours_that_are_asked_again_answer_under_deny_all() {
    let site = Site::new();
    let _far = EchoServer::start(&site.client, "[::]:8080");
    let mut closed = closed(&site);
    let _daemon = closed.pgfw.enforce();
    for family in &FAMILIES {
        closed.goes_on();
        closed.probe(&site.db, family, family.router, "eth0");
        closed.probe(closed.router(), family, family.db, "db");
        closed.goes_on();
    }
}

#[test]
fn f25_a_router_that_moves_is_followed_under_deny_all() {
    let site = Site::new();
    let _far = EchoServer::start(&site.client, "[::]:8080");
    let mut closed = closed(&site);
    let _daemon = closed.pgfw.enforce();
    closed.goes_on();
    // It tells its neighbours by gratuitous ARP and by an unsolicited advertisement (RFC 5227, 3; RFC 4861, 7.2.6).
    site.router.sysctl("net/ipv4/conf/db/arp_notify", "1");
    site.router.sysctl("net/ipv6/conf/db/ndisc_notify", "1");
    site.router.ip("link set dev db address 02:00:00:00:00:77");
    for family in &FAMILIES {
        let what = format!("the host follows {}", family.router);
        eventually(&what, PATIENCE, || {
            closed
                .entry(&site.db, family, family.router, "eth0")
                .contains("02:00:00:00:00:77")
                .then_some(())
        });
    }
    closed.goes_on();
}
