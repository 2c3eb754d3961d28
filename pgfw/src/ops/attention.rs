//! What a person should look at, each with what to do.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Engine;
use crate::clock::Now;
use crate::config::{Cluster, ClusterAudit, Config, Manage};
use crate::failure::Failure;
use crate::host::sock_diag::{self, State};
use crate::ledger::types::{Authority, EntryKind};
use crate::pki::{Phase, Store};

impl Engine {
    pub(super) fn attention(
        &self,
        config: Option<&Config>,
        uncovered: &[String],
        missing: &[String],
    ) -> Result<Vec<String>, Failure> {
        let mut lines = self.complaints.clone();
        lines.extend(self.restored.clone());
        if let Some(rescue) = &self.rescue {
            lines.push(rescue.why.remedy.clone());
        } else if self.ledger.stands_in() {
            lines.push(format!(
                "the ledger {} cannot be used; a start lets SSH in and nothing else.",
                self.ledger.file().display()
            ));
        }
        if !self.unrecorded.is_empty() {
            lines.push(
                "something was closed that could not be written to the ledger; free space on its file system.".into(),
            );
        }
        lines.extend(self.audit.complaint());
        lines.extend(self.watched.lines());
        if let Err(failure) = self.not_anothers() {
            lines.push(format!("{}. {}", failure.message, failure.remedy));
        }
        if let Some(undone) = self.ledger.pending()?
            && self.control()?.pending.is_none()
        {
            lines.push(format!(
                "policy {} is undone, and the ledger could not take that yet; free space on the file system of {}.",
                undone.number,
                self.ledger.file().display()
            ));
        }
        lines.extend(self.trial_lines());
        if self.datapath.is_some() {
            lines.extend(
                missing
                    .iter()
                    .map(|name| format!("there is no interface {name}; it is covered when it appears.")),
            );
            lines.extend(uncovered.iter().map(|name| {
                format!("{name} matches firewall.interfaces and is not covered; `pgfw reload` covers it or says why not.")
            }));
        }
        if self.datapath.is_some()
            && let Some(config) = config
        {
            lines.extend(self.open_servers(config)?);
        }
        let services = config.map(super::entries::every_service).unwrap_or_default();
        for entry in self.facts()?.entries {
            if let Some(service) = entry.service.as_ref().filter(|s| !services.contains(s)) {
                let kind = match entry.kind {
                    EntryKind::Allow => "allow",
                    EntryKind::Deny => "deny",
                };
                lines.push(format!(
                    "`pgfw {kind} {}` is for the service `{service}`, which the policy does not have.",
                    entry.net
                ));
            }
        }
        if let Some(confirmed) = self.ledger.confirmed()? {
            match Config::read(&self.paths.config) {
                Ok(file) if file.text != confirmed.config => lines.push(format!(
                    "{} differs from policy {}, which runs; `pgfw reload --dry-run` shows how.",
                    self.paths.config.display(),
                    confirmed.number
                )),
                Ok(_) => {}
                Err(error) => lines.push(format!("{error}; policy {} runs on.", confirmed.number)),
            }
        }
        if let Some(config) = config {
            let (store, targets) = (
                super::certificates::store(config),
                self.crl_targets(config, &config.postgres),
            );
            if store
                .authorities(Authority::Client)
                .is_ok_and(|all| all.is_empty())
                && self.has_certificates()?
            {
                lines.push(format!(
                    "certificates were issued, and their authorities are not in {}: restore that folder, since none can be \
                     issued, renewed or revoked without it.",
                    config.pki.directory.display()
                ));
            }
            lines.extend(store.loose().iter().map(|l| format!("{l}. {}", l.remedy())));
            lines.extend(self.signing_alarms(config));
            lines.extend(rotations(&store));
            lines.extend(self.renewal_alarms(config));
            lines.extend(self.gate_alarms());
            lines.extend(self.telling_alarms());
            if let Ok(alarms) = crate::pki::alarms(&store, &targets, Now::read().wall()) {
                lines.extend(alarms.into_iter().map(|a| format!("{}. {}", a.message, a.remedy)));
            }
        }
        lines.extend(self.work()?.iter().map(super::work::said));
        Ok(lines)
    }

    fn has_certificates(&self) -> Result<bool, Failure> {
        let all = self.ledger.certificates()?;
        Ok(all
            .iter()
            .any(|c| c.authority == Authority::Client && c.valid_at(Now::read().wall())))
    }

    /// Where PostgreSQL listens and no policy stands, whatever `firewall.interfaces` says.
    pub(super) fn open_servers(&self, config: &Config) -> Result<Vec<String>, Failure> {
        let covered: Vec<String> = match &self.datapath {
            Some(datapath) => datapath
                .attached()?
                .into_iter()
                .filter(|a| a.alive)
                .filter_map(|a| a.name)
                .collect(),
            None => Vec::new(),
        };
        let listening: Vec<_> = sock_diag::dump()
            .unwrap_or_default()
            .into_iter()
            .filter(|socket| socket.state == State::Listen)
            .collect();
        let mut open = BTreeSet::new();
        for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
            let name = &interface.interface_name;
            let Some(own) = super::outlook::address(&interface).filter(|own| !own.is_loopback()) else {
                continue;
            };
            if name == "lo" || covered.contains(name) {
                continue;
            }
            for cluster in &config.postgres {
                let here = |socket: &sock_diag::Socket| {
                    let at = socket.local.ip();
                    socket.local.port() == cluster.port && (at == own || is_any(at, own))
                };
                if listening.iter().any(here) {
                    open.insert((name.clone(), cluster.name.clone(), cluster.port));
                }
            }
        }
        Ok(open
            .into_iter()
            .map(|(interface, cluster, port)| {
                format!(
                    "PostgreSQL ({cluster}, port {port}) listens on {interface}, and no policy of this pgfw stands there; name it in \
                     firewall.interfaces."
                )
            })
            .collect())
    }
}

/// Whose connections are in nobody's log, since the config does not ask for it.
pub(super) fn unlogged(config: &Config) -> Vec<String> {
    let line = |cluster: &Cluster| {
        let name = &cluster.name;
        let ClusterAudit {
            connections, json, ..
        } = &cluster.audit;
        match (cluster.manage, connections, json) {
            (Manage::None, ..) => Some(format!(
                "who connects to {name} is not in the audit log, since pgfw does not write its settings (manage = \"none\")."
            )),
            (Manage::Files | Manage::Render, true, true) => None,
            (Manage::Files | Manage::Render, ..) => Some(format!(
                "who connects to {name} is not in the audit log; audit = {{ json = true }} in its [[postgres]] section and \
                 `pgfw reload` put it there, once its server is restarted."
            )),
        }
    };
    config.postgres.iter().filter_map(line).collect()
}

/// An authority that is being replaced is not to be forgotten half way.
fn rotations(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for authority in Authority::ALL {
        let Ok(rotation) = store.rotation(authority) else {
            continue;
        };
        let since = match rotation.phase {
            Phase::Settled { signs: _ } => continue,
            Phase::Introducing(change) | Phase::Overlap(change) => change.started,
            Phase::Dropping(leaving) => leaving.started,
        };
        lines.push(format!(
            "the {authority} authority is being rotated since {}; `pgfw ca rotate status` says what is left to do.",
            since.rfc3339()
        ));
    }
    lines
}

/// A listener on every address: of its family, or of both where it is IPv6 (dual stack, unless told otherwise).
fn is_any(at: IpAddr, own: IpAddr) -> bool {
    at.is_unspecified() && (at.is_ipv6() || own.is_ipv4())
}
