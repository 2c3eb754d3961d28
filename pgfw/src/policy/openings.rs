//! Everything that opens or closes a network, each with where it comes from: what `pgfw list` shows and the
//! compiler flattens.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::compile::Inputs;
use super::coverage::{ServiceId, ServicePort, Until};
use super::leases;
use crate::clock::WallTime;
use crate::config::GATE;
use crate::ledger::types::{Authority, EntryKind};

/// One reason why a network may, or may not, reach one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub service: ServiceId,
    pub net: IpNet,
    pub answer: Answer,
    pub until: Until,
    /// The same end on the wall clock, for people; `None` where there is none.
    pub end: Option<WallTime>,
    pub origin: Origin,
}

/// What an opening says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Allow,
    Deny,
}

/// Who says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Origin {
    /// `allow` of a section of the config: `ssh`, a cluster, a service.
    Config(String),
    /// An `[[identity]]` that holds a certificate valid now.
    Identity(String),
    /// A `[[login]]` of the config.
    Login(String),
    /// `pgfw allow` or `pgfw deny`, by its number in the ledger.
    Entry(i64),
    /// An address that was opened through the gate, by its identity.
    Lease(String),
}

/// The services of a config, numbered: SSH is 1, clusters and other services follow in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Services {
    pub ports: BTreeMap<ServicePort, ServiceId>,
    pub names: BTreeMap<ServiceId, String>,
    pub clusters: Vec<ServiceId>,
    pub gate: Option<ServiceId>,
}

impl Services {
    pub(super) fn of(config: &crate::config::Config) -> Services {
        const TCP: u8 = 6;
        let mut all = Services::default();
        let mut add = |name: &str, protocol: u8, ports: &[u16]| {
            let id = ServiceId(u16::try_from(all.names.len() + 1).unwrap_or(u16::MAX));
            all.names.insert(id, name.to_owned());
            for port in if ports.is_empty() { &[0][..] } else { ports } {
                all.ports.insert(
                    ServicePort {
                        protocol,
                        port: *port,
                    },
                    id,
                );
            }
            id
        };
        add("ssh", TCP, &config.ssh.ports);
        let clusters: Vec<ServiceId> = config
            .postgres
            .iter()
            .map(|c| add(&c.name, TCP, &[c.port]))
            .collect();
        for service in &config.services {
            add(&service.name, service.protocol, &service.ports);
        }
        // The last, so that the others keep their numbers.
        let gate = config.gate.as_ref().map(|g| add(GATE, TCP, &[g.listen.port()]));
        all.clusters = clusters;
        all.gate = gate;
        all
    }

    pub(super) fn named(&self, name: &str) -> Option<ServiceId> {
        self.names.iter().find(|(_, n)| *n == name).map(|(id, _)| *id)
    }
}

/// The services of a config by their numbers.
pub fn services(config: &crate::config::Config) -> BTreeMap<ServiceId, String> {
    Services::of(config).names
}

/// Every opening that counts now. What has ended, is revoked or not yet valid is not among them.
pub fn openings(inputs: &Inputs<'_>) -> Vec<Opening> {
    let services = Services::of(inputs.config);
    let mut all = Vec::new();
    let mut open = |services: &[ServiceId], nets: &[IpNet], until, end, origin: &Origin| {
        for service in services {
            for net in nets {
                all.push(Opening {
                    service: *service,
                    net: *net,
                    answer: Answer::Allow,
                    until,
                    end,
                    origin: origin.clone(),
                });
            }
        }
    };

    let config = inputs.config;
    let sections = std::iter::once(("ssh", &config.ssh.allow))
        .chain(config.postgres.iter().map(|c| (c.name.as_str(), &c.allow)))
        .chain(config.services.iter().map(|s| (s.name.as_str(), &s.allow)))
        .chain(config.gate.iter().map(|g| (GATE, &g.allow)));
    for (name, nets) in sections {
        let service: Vec<ServiceId> = services.named(name).into_iter().collect();
        open(
            &service,
            nets,
            Until::Forever,
            None,
            &Origin::Config(name.to_owned()),
        );
    }
    for login in &config.logins {
        open(
            &services.clusters,
            &login.networks,
            Until::Forever,
            None,
            &Origin::Login(login.name.clone()),
        );
    }
    let ends = certificate_ends(inputs);
    for identity in &config.identities {
        if let Some(end) = ends.get(identity.name.as_str()).copied() {
            let until = Until::At(inputs.now.boot_at(end));
            let origin = Origin::Identity(identity.name.clone());
            open(&services.clusters, &identity.networks, until, Some(end), &origin);
        }
    }
    for (lease, until, end) in leases::live(inputs) {
        let origin = Origin::Lease(lease.identity.clone());
        open(&services.clusters, &[lease.net()], until, Some(end), &origin);
    }
    for entry in inputs.entries {
        if !entry.counts_in(inputs.generation) || entry.ended(&inputs.now, inputs.boot_id) {
            continue;
        }
        let (until, end) = match &entry.end {
            None => (Until::Forever, None),
            Some(end) => (
                Until::At(end.boot_end(&inputs.now, inputs.boot_id)),
                Some(end.wall),
            ),
        };
        let answer = match entry.kind {
            EntryKind::Allow => Answer::Allow,
            EntryKind::Deny => Answer::Deny,
        };
        let at: Vec<ServiceId> = match (&entry.service, answer) {
            (Some(name), Answer::Allow | Answer::Deny) => services.named(name).into_iter().collect(),
            (None, Answer::Allow) => services.clusters.clone(),
            (None, Answer::Deny) => services.names.keys().copied().collect(),
        };
        all.extend(at.into_iter().map(|service| Opening {
            service,
            net: entry.net,
            answer,
            until,
            end,
            origin: Origin::Entry(entry.id),
        }));
    }
    all
}

/// By identity the latest end among its client certificates that are valid now: `notAfter`, a second in which OpenSSL,
/// and so PostgreSQL, refuses already.
fn certificate_ends<'a>(inputs: &Inputs<'a>) -> HashMap<&'a str, WallTime> {
    let now = inputs.now.wall();
    let mut ends: HashMap<&str, WallTime> = HashMap::new();
    for certificate in inputs.certificates {
        if certificate.authority == Authority::Client && certificate.valid_at(now) {
            let end = ends.entry(&certificate.name).or_insert(certificate.not_after);
            *end = (*end).max(certificate.not_after);
        }
    }
    ends
}
