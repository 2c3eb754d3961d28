//! Flattens config, identities and entries into one effective answer for each prefix of each service.
//!
//! The kernel looks up the longest prefix only. So every prefix carries the answer of *everything* that covers it:
//! a live deny wins; otherwise it is open until the latest end of any allow over it. An ended longer prefix
//! never hides a live shorter one, with nobody there to tidy up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::coverage::{Compiled, Coverage, CoverageKey, ServiceId, Settings, Until};
use super::openings::{Answer, Opening, Services, openings};
use crate::clock::Now;
use crate::config::{Config, Forwarded, LinkLayer, Mode};
use crate::ledger::types::{Certificate, Entry, Lease};

/// All that a policy is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub config: &'a Config,
    pub entries: &'a [Entry],
    pub certificates: &'a [Certificate],
    pub leases: &'a [Lease],
    pub now: Now,
    pub boot_id: &'a str,
    /// The generation this is for: entries that wait for another one's confirmation do not count.
    pub generation: u64,
}

/// Compiles one policy.
pub fn compile(inputs: &Inputs<'_>) -> Compiled {
    let services = Services::of(inputs.config);
    let mut by_service: BTreeMap<ServiceId, Vec<Opening>> = BTreeMap::new();
    for opening in openings(inputs) {
        by_service.entry(opening.service).or_default().push(opening);
    }
    let mut coverage = BTreeMap::new();
    for (service, openings) in by_service {
        for (net, cell) in flatten(&openings) {
            coverage.insert(CoverageKey { service, net }, cell);
        }
    }
    Compiled {
        services: services.ports,
        names: services.names,
        coverage,
        settings: settings(inputs.config),
    }
}

/// The part of a policy's coverage that what is said about `net` decides: its own prefix and those inside it.
///
/// Prefixes nest or are disjoint. So whatever covers one of these covers `net` too or lies inside it, and nothing else
/// has to be looked at; entries that do not touch it may be missing from `inputs`.
pub fn compile_within(inputs: &Inputs<'_>, net: &IpNet) -> BTreeMap<CoverageKey, Coverage> {
    let mut by_service: BTreeMap<ServiceId, Vec<Opening>> = BTreeMap::new();
    for opening in openings(inputs)
        .into_iter()
        .filter(|opening| touches(&opening.net, net))
    {
        by_service.entry(opening.service).or_default().push(opening);
    }
    let cells = |(service, openings): (ServiceId, Vec<Opening>)| {
        let key = move |net| CoverageKey { service, net };
        flatten(&openings)
            .into_iter()
            .map(move |(net, cell)| (key(net), cell))
    };
    let mut coverage: BTreeMap<_, _> = by_service.into_iter().flat_map(cells).collect();
    coverage.retain(|key, _| net.contains(&key.net));
    coverage
}

/// Whether one of two networks lies in the other.
pub(super) fn touches(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// What is said about exactly one prefix, before what covers it is taken in.
#[derive(Debug, Clone, Copy)]
struct Said {
    deny: Until,
    allow: Until,
}

fn flatten(openings: &[Opening]) -> Vec<(IpNet, Coverage)> {
    let mut said: HashMap<IpNet, Said> = HashMap::new();
    for opening in openings {
        let here = said.entry(opening.net).or_insert(Said {
            deny: Until::Absent,
            allow: Until::Absent,
        });
        let end = match opening.answer {
            Answer::Allow => &mut here.allow,
            Answer::Deny => &mut here.deny,
        };
        *end = (*end).max(opening.until);
    }
    let lengths: BTreeSet<(bool, u8)> = said
        .keys()
        .map(|n| (n.addr().is_ipv4(), n.prefix_len()))
        .collect();
    said.keys()
        .map(|net| (*net, effective(*net, &said, &lengths)))
        .collect()
}

/// The answer for `net` from every prefix that covers it, itself included.
fn effective(net: IpNet, said: &HashMap<IpNet, Said>, lengths: &BTreeSet<(bool, u8)>) -> Coverage {
    let v4 = net.addr().is_ipv4();
    let mut cell = Coverage {
        deny: Until::Absent,
        allow: Until::Absent,
        world: false,
    };
    for (_, length) in lengths.range((v4, 0)..=(v4, net.prefix_len())) {
        let cover = IpNet::new_assert(net.addr(), *length).trunc();
        let Some(Said { deny, allow }) = said.get(&cover) else {
            continue;
        };
        cell.deny = cell.deny.max(*deny);
        if *allow >= cell.allow && *allow != Until::Absent {
            cell.allow = *allow;
            // Whoever is open longest decides; the world's rule is the stricter one, so it only costs a lookup.
            cell.world = *length == 0;
        }
    }
    cell
}

fn settings(config: &Config) -> Settings {
    let firewall = &config.firewall;
    Settings {
        audit: firewall.mode == Mode::Audit,
        echo: firewall.echo,
        dhcp_client: firewall.dhcp_client,
        forwarded_track: firewall.forwarded == Some(Forwarded::Track),
        ether_types: firewall
            .link_layer
            .iter()
            .filter_map(|l| match l {
                LinkLayer::EtherType(t) => Some(*t),
                LinkLayer::Stp => None,
            })
            .collect(),
        stp: firewall.link_layer.contains(&LinkLayer::Stp),
        gate_port: config.gate.as_ref().map(|gate| gate.listen.port()),
    }
}
