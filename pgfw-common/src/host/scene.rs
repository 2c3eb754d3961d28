//! The world in which the corpus and the fuzzers judge packets: a small policy, a few connections, and something
//! remembered of each kind. `pgfw_tests::bench` makes the same in a kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::vec::Vec;

use crate::address::{Address, Ends, Family, v4, v6};
use crate::coverage::{ABSENT, FOREVER, Jiffies};
use crate::decide::Arrival;
use crate::host::frames::{ICMP, ICMPV6, TCP, UDP};
use crate::host::{Prefix, World};
use crate::record::{
    Coverage, ECHO_ACCEPT, ECHO_DROP, FragmentKey, MAX_ETHER_TYPES, MAX_LATER_FRAGMENTS, Note, NoteKey,
    Remembered, ServiceKey, ServiceRow, Settings,
};
use crate::tables::Socket;
use crate::wire::FRAGMENT;

pub const HOST: [&str; 2] = ["192.168.1.1", "2001:db8::1"];
/// In a network that may use PostgreSQL and DNS.
pub const FRIEND: [&str; 2] = ["192.168.1.7", "2001:db8:1::7"];
/// Allowed nothing by name; the connections and all that is remembered are with it.
pub const STRANGER: [&str; 2] = ["198.51.100.7", "2001:db8:2::7"];

/// Remote port, local port and local service of the connections between [`STRANGER`] and [`HOST`], in both families:
/// to a service that is open to the world, one of this host's own, and one from a network that was removed since.
pub const CONNECTIONS: [(u16, u16); 3] = [(40_001, 22), (443, 40_002), (40_003, 5432)];

/// Service numbers and names: what stands behind `@` in the corpus.
pub const SERVICES: [(u16, &str); 5] = [(1, "ssh"), (2, "pg"), (3, "dns"), (4, "vrrp"), (5, "ntp")];

/// The moment at which packets come in. The kernel's is a later one: what has ended here has ended there.
pub const ARRIVAL: Arrival = Arrival {
    now: Jiffies(1_000_000),
    // The loopback's, on which BPF_PROG_TEST_RUN lets packets come in.
    ifindex: 1,
};

/// Before any moment that a test will see.
pub const ENDED: u64 = 1;
/// After all of them, and still not "for ever".
pub const LIVE: u64 = u64::MAX / 2;

/// What a policy may switch on: all of it, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switches {
    Off,
    On,
}

impl Switches {
    /// In the order in which the corpus names what is expected.
    pub const BOTH: [Switches; 2] = [Switches::Off, Switches::On];
}

/// The whole scene.
pub fn world(switches: Switches) -> World {
    let mut world = World {
        settings: settings(switches),
        services: services(),
        prefixes: prefixes(),
        ..World::default()
    };
    for (remote, local) in STRANGER.into_iter().zip(HOST) {
        people(&mut world, ends(remote, local), remote.contains(':'));
    }
    world
}

fn settings(switches: Switches) -> Settings {
    let off = Settings {
        echo: ECHO_DROP,
        ..Settings::new()
    };
    match switches {
        Switches::Off => off,
        Switches::On => {
            let mut ether_types = [0; MAX_ETHER_TYPES];
            ether_types[..2].copy_from_slice(&[0x88cc, 0x888e]);
            Settings {
                echo: ECHO_ACCEPT,
                dhcp_client: 1,
                track: 1,
                stp: 1,
                ether_types,
                ..off
            }
        }
    }
}

fn services() -> BTreeMap<ServiceKey, ServiceRow> {
    let ports = [(TCP, 22), (TCP, 5432), (UDP, 53), (112, 0), (UDP, 123)];
    let rows = ports.into_iter().zip(SERVICES);
    rows.map(|((protocol, port), (service, _))| {
        let key = ServiceKey {
            port,
            protocol,
            pad: 0,
        };
        let row = ServiceRow {
            service,
            counter: service,
        };
        (key, row)
    })
    .collect()
}

/// Every kind of answer that a prefix can have.
fn prefixes() -> Vec<Prefix> {
    [
        (1, "0.0.0.0", 0, ABSENT, FOREVER),
        (1, "::", 0, ABSENT, FOREVER),
        (1, "203.0.113.66", 32, FOREVER, FOREVER),
        (2, "192.168.1.0", 24, ABSENT, FOREVER),
        (2, "2001:db8:1::", 48, ABSENT, FOREVER),
        (2, "192.168.1.66", 32, FOREVER, FOREVER),
        (2, "10.1.0.0", 16, ABSENT, ENDED),
        (2, "10.2.0.0", 16, ENDED, FOREVER),
        (2, "10.3.0.0", 16, LIVE, FOREVER),
        (3, "192.168.1.0", 24, ABSENT, FOREVER),
        (3, "192.168.1.66", 32, FOREVER, FOREVER),
        (3, "2001:db8:1::", 48, ABSENT, LIVE),
        (4, "192.168.1.0", 24, ABSENT, FOREVER),
        (4, "192.168.1.66", 32, FOREVER, FOREVER),
        (5, "0.0.0.0", 0, ABSENT, FOREVER),
        (5, "::", 0, ABSENT, FOREVER),
    ]
    .into_iter()
    .map(|(service, network, prefix_length, deny_until, allow_until)| {
        let (family, network) = address(network);
        Prefix {
            service,
            family,
            network,
            coverage: Coverage {
                deny_until,
                allow_until,
                deny_boot: 0,
                allow_boot: 0,
                flags: if prefix_length == 0 { Coverage::WORLD } else { 0 },
                prefix_length,
            },
        }
    })
    .collect()
}

/// What this host has with one other end.
fn people(world: &mut World, ends: Ends, six: bool) {
    let flow = |protocol, remote_port, local_port| NoteKey {
        ends,
        remote_port,
        local_port,
        protocol,
        pad: [0; 3],
    };
    for (remote, local) in CONNECTIONS {
        let ours = flow(TCP, remote, local);
        // In a test's namespace both ends of a connection are at home.
        let theirs = NoteKey {
            ends: Ends {
                remote: ends.local,
                local: ends.remote,
            },
            remote_port: local,
            local_port: remote,
            ..ours
        };
        world.sockets.insert(ours, Socket::Connected);
        world.sockets.insert(theirs, Socket::Connected);
    }
    let echo = if six { ICMPV6 } else { ICMP };
    for (key, spoke) in [
        (flow(UDP, 53, 40_000), LIVE),
        (flow(UDP, 53, 40_009), ENDED),
        (flow(echo, 0, 7), LIVE),
        (flow(echo, 0, 9), ENDED),
        // A container's connection.
        (flow(TCP, 443, 50_000), LIVE),
    ] {
        let note = Note {
            spoke,
            answers: 0,
            pad: 0,
        };
        world.notes.borrow_mut().insert(key, note);
    }
    let datagram = |id| FragmentKey {
        ends,
        id,
        ifindex: ARRIVAL.ifindex,
        protocol: if six { FRAGMENT } else { UDP },
        pad: [0; 7],
    };
    let may_follow = |until, left| Remembered { until, left, pad: 0 };
    for (table, id, remembered) in [
        (&world.fragments, 7, may_follow(LIVE, MAX_LATER_FRAGMENTS)),
        (&world.open_fragments, 8, may_follow(LIVE, MAX_LATER_FRAGMENTS)),
        (&world.fragments, 9, may_follow(ENDED, MAX_LATER_FRAGMENTS)),
        (&world.fragments, 10, may_follow(LIVE, 0)),
    ] {
        table.borrow_mut().insert(datagram(id), remembered);
    }
}

fn ends(remote: &str, local: &str) -> Ends {
    Ends {
        remote: address(remote).1,
        local: address(local).1,
    }
}

fn address(text: &str) -> (Family, Address) {
    match text.parse().expect("an address") {
        IpAddr::V4(address) => (Family::V4, v4(address.octets())),
        IpAddr::V6(address) => (Family::V6, v6(address.octets())),
    }
}
