//! pgfw on a host among others: real sockets, real packets, the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

mod answers;
mod changes;
mod connections;
mod devices;
mod ends;
mod forwarding;
mod fragments;
mod leases;
mod multihomed;
mod neighbours;
mod offloads;
mod path_mtu;
mod protocols;
mod scans;
mod states;
mod survival;
mod sweeps;

use std::net::IpAddr;
use std::time::Duration;

use pgfw_tests::lab::{Instance, Namespace, PATIENCE, Reach, Site, address, eventually, tcp};

/// A cluster that is open to the client's networks and SSH that is open to the world.
const CONFIG: &str = r#"
[firewall]
interfaces = ["eth0"]

[[postgres]]
name = "main"
cluster = "15/main"
manage = "none"
allow = ["10.20.0.0/16", "fd00:20::/64"]
"#;

/// SSH and PostgreSQL are open to the client's networks only.
const CLIENT_ONLY: &str = r#"
[firewall]
interfaces = ["eth0"]

[ssh]
allow = ["10.20.0.0/16", "fd00:20::/64"]

[[postgres]]
name = "main"
cluster = "15/main"
manage = "none"
allow = ["10.20.0.0/16", "fd00:20::/64"]
"#;

/// Nothing is open to anybody.
const DENY_ALL: &str = "[firewall]\ninterfaces = [\"eth0\"]\n[ssh]\nallow = []\n";

const DB: [IpAddr; 2] = [address::DB, address::DB_V6];

/// The database host's address and the stranger's, family by family.
const STRANGER: [(IpAddr, IpAddr); 2] = [
    (address::DB, address::STRANGER),
    (address::DB_V6, address::STRANGER_V6),
];

/// Long enough for an answer that comes, short enough to wait for one that does not.
const SHORT: Duration = Duration::from_millis(300);

fn configured<'site>(site: &'site Site, config: &str) -> Instance<'site> {
    let pgfw = Instance::new(&site.db);
    pgfw.configure(config);
    pgfw
}

fn is_open(from: &Namespace, to: IpAddr, port: u16) -> bool {
    tcp(from, to, port, PATIENCE) == Reach::Open
}

fn is_silent(from: &Namespace, to: IpAddr, port: u16) -> bool {
    tcp(from, to, port, SHORT) == Reach::Silent
}

/// Waits until packets that were sent are counted under a reason, and checks that there were no more of them.
#[track_caller]
fn counts(pgfw: &Instance<'_>, reason: &str, expected: u64) {
    let what = format!("{expected} packets are {reason}");
    let found = eventually(&what, PATIENCE, || {
        let packets = pgfw.status().packets(reason);
        (packets >= expected).then_some(packets)
    });
    assert_eq!(found, expected, "packets that are {reason}");
}
