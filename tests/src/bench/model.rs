//! A compiled policy as the host-side decision sees it.

use ipnet::IpNet;
use pgfw::clock::Now;
use pgfw::config::Echo;
use pgfw::policy::coverage::{Compiled, Coverage, CoverageKey, Until};
use pgfw_common::address::{Family, v4, v6};
use pgfw_common::coverage::{ABSENT, FOREVER, Jiffies};
use pgfw_common::decide::Arrival;
use pgfw_common::host::{Prefix, World};
use pgfw_common::record::{self, ServiceKey, ServiceRow};

/// The moment at which the model judges; ends that have passed lie before it, all others after.
pub const ARRIVAL: Arrival = Arrival {
    now: Jiffies(1_000_000),
    ifindex: 1,
};

/// The policy's tables, with nothing remembered and no sockets.
pub fn world(policy: &Compiled) -> World {
    let settings = &policy.settings;
    let mut ether_types = [0; record::MAX_ETHER_TYPES];
    ether_types[..settings.ether_types.len()].copy_from_slice(&settings.ether_types);
    World {
        settings: record::Settings {
            hz: 250,
            audit: u8::from(settings.audit),
            echo: match settings.echo {
                Echo::Drop => record::ECHO_DROP,
                Echo::Limit => record::ECHO_LIMIT,
                Echo::Accept => record::ECHO_ACCEPT,
            },
            dhcp_client: u8::from(settings.dhcp_client),
            track: u8::from(settings.forwarded_track),
            stp: u8::from(settings.stp),
            pad: 0,
            gate_port: settings.gate_port.unwrap_or(0),
            ether_types,
        },
        services: policy
            .services
            .iter()
            .map(|(port, service)| {
                let key = ServiceKey {
                    port: port.port,
                    protocol: port.protocol,
                    pad: 0,
                };
                (
                    key,
                    ServiceRow {
                        service: service.0,
                        counter: 1,
                    },
                )
            })
            .collect(),
        prefixes: policy
            .coverage
            .iter()
            .map(|(key, coverage)| prefix(key, coverage))
            .collect(),
        ..World::default()
    }
}

fn prefix(key: &CoverageKey, coverage: &Coverage) -> Prefix {
    let (family, network) = match key.net {
        IpNet::V4(net) => (Family::V4, v4(net.network().octets())),
        IpNet::V6(net) => (Family::V6, v6(net.network().octets())),
    };
    Prefix {
        service: key.service.0,
        family,
        network,
        coverage: record::Coverage {
            deny_until: end(coverage.deny),
            allow_until: end(coverage.allow),
            deny_boot: 0,
            allow_boot: 0,
            flags: if coverage.world {
                record::Coverage::WORLD
            } else {
                0
            },
            prefix_length: u32::from(key.net.prefix_len()),
        },
    }
}

fn end(until: Until) -> u64 {
    match until {
        Until::Absent => ABSENT,
        Until::Forever => FOREVER,
        Until::At(boot) if boot <= Now::read().boot => ARRIVAL.now.0 - 1,
        Until::At(_) => ARRIVAL.now.0 + 1,
    }
}
