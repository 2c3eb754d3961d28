//! `status`: am I protected, where, by which policy.

use std::collections::BTreeMap;

use super::Engine;
use super::attention::unlogged;
use super::guard::admits;
use crate::api::{self, DaemonState, Pending, State, Status};
use crate::clock::Now;
use crate::config::{Config, Mode};
use crate::datapath::{Attached, Choice, Datapath};
use crate::failure::Failure;
use crate::host::interfaces;
use crate::paths::Paths;
use crate::policy::coverage::ServiceId;
use pgfw_common::reason::{Action, Reason};

/// [`Engine::status`] of an instance whose daemon does not run, or never ran.
///
/// # Errors
/// A ledger or pins that cannot be read.
pub fn status_without_daemon(paths: &Paths) -> Result<Status, Failure> {
    if paths.ledger().exists() || paths.confirmed_marker().exists() || Datapath::exists(&paths.bpffs) {
        let engine = Engine::look(paths)?;
        engine.not_anothers()?;
        return engine.status(None);
    }
    Ok(Status {
        summary: "Not protected: nothing is attached; pgfw has not run here yet.".into(),
        state: State::Off,
        daemon: None,
        generation: None,
        policy: None,
        pending: None,
        interfaces: Vec::new(),
        services: Vec::new(),
        drops: Vec::new(),
        ends: Vec::new(),
        attention: Vec::new(),
        unlogged: Vec::new(),
        networks_open: 0,
        tables: None,
        compiler: crate::datapath::COMPILER.to_owned(),
        kernel: BTreeMap::new(),
    })
}

impl Engine {
    /// Am I protected, where, by which policy, and what needs attention?
    ///
    /// # Errors
    /// A ledger or pins that cannot be read.
    pub fn status(&self, daemon: Option<DaemonState>) -> Result<Status, Failure> {
        let now = Now::read();
        let Overview {
            summary,
            state,
            judging,
            config,
            pending,
            uncovered,
            missing,
        } = self.overview(&now)?;
        let compiled = match (&config, judging) {
            (Some(config), Some(number)) => Some(self.compile(config, number, &now)?),
            (Some(_) | None, _) => None,
        };
        let networks_open = compiled.as_ref().map_or(0, |c| {
            c.coverage
                .iter()
                .filter(|(k, _)| admits(c, k.service, k.net.addr(), now.boot))
                .count()
        });
        let (interfaces, mut services) = self.counted(compiled.as_ref())?;
        if let Some(compiled) = &compiled {
            for (service, count) in self.draining(compiled, &now) {
                let name = compiled.names.get(&service);
                if let Some(one) = services.iter_mut().find(|s| Some(&s.name) == name) {
                    one.draining = count;
                }
            }
        }
        Ok(Status {
            summary,
            state,
            daemon,
            generation: judging,
            policy: self.policy(judging)?,
            pending,
            drops: drops(&interfaces),
            ends: self.ends(config.as_ref(), &now)?,
            interfaces,
            services,
            attention: self.attention(config.as_ref(), &uncovered, &missing)?,
            unlogged: config.as_ref().map(unlogged).unwrap_or_default(),
            networks_open,
            tables: self.table_memory(judging),
            compiler: crate::datapath::COMPILER.to_owned(),
            kernel: self.kernel(),
        })
    }

    /// What the first lines say: of links and the control record, without a look at tables and entries.
    fn overview(&self, now: &Now) -> Result<Overview, Failure> {
        let judging = self.judging(now)?;
        let config = self.config().ok();
        let control = self.control()?;
        let attached: Vec<Attached> = self.attachments()?.into_iter().filter(|a| a.alive).collect();
        let names: Vec<String> = attached.iter().map(name_of).collect();
        let (uncovered, missing) = match &config {
            Some(config) => interfaces::present(&config.firewall.interfaces)?,
            None => (Vec::new(), Vec::new()),
        };
        let uncovered: Vec<String> = uncovered
            .into_iter()
            .map(|i| i.name)
            .filter(|name| !names.contains(name))
            .collect();
        let probation = control.confirmed == Choice::Pass && judging.is_some();
        let audit = config.as_ref().is_some_and(|c| c.firewall.mode == Mode::Audit);
        let rescue = judging.and_then(|number| self.rescue.as_ref().filter(|rescue| rescue.numbered(number)));
        let state = match (attached.is_empty(), judging, probation, audit) {
            (true, _, _, _) => State::Off,
            (false, None, _, _) => State::Open,
            (false, Some(_), _, _) if rescue.is_some_and(|rescue| rescue.kept.is_some()) => State::Kept,
            (false, Some(_), _, _) if rescue.is_some() => State::SshOnly,
            (false, Some(_), true, _) => State::Probation,
            (false, Some(_), false, true) => State::Audit,
            (false, Some(_), false, false) if !uncovered.is_empty() => State::Partly,
            (false, Some(_), false, false) => State::Enforcing,
        };
        let pending = match control.pending {
            Some((Choice::Generation(generation), deadline)) if now.boot < deadline => Some(Pending {
                generation,
                seconds: self.seconds_left()?,
            }),
            Some(_) | None => None,
        };
        let on = names.join(", ");
        let number = judging.unwrap_or(0);
        let why = rescue.map_or("", |rescue| rescue.why.message.as_str());
        let mut summary = match state {
            State::SshOnly => format!(
                "SSH only on {on}, port {}: {why}.",
                config
                    .as_ref()
                    .map_or_else(String::new, |config| ports(&config.ssh.ports))
            ),
            State::Kept => format!(
                "Protected on {on} by policy {number} as the kernel has it, which cannot be changed: {why}."
            ),
            State::Enforcing => format!("Protected: policy {number} is enforced on {on}."),
            State::Partly => format!(
                "Partly protected: policy {number} is enforced on {on}, and not on {}.",
                uncovered.join(", ")
            ),
            State::Probation => format!(
                "On probation: policy {number} is enforced on {on} for {} s more; keep it with: pgfw confirm",
                self.seconds_left()?
            ),
            State::Audit => {
                format!("Not protected: policy {number} only watches on {on} (mode = \"audit\").")
            }
            State::Open => format!("Not protected: attached to {on}, and every packet passes."),
            State::Off => "Not protected: nothing is attached.".to_owned(),
        };
        if self.restored.is_some() {
            summary.push_str(" Its ledger was restored from before the last policy.");
        }
        if let Some(what) = self.broken_file() {
            summary = format!("{} And {what}.", summary.trim_end());
        }
        Ok(Overview {
            summary,
            state,
            judging,
            config,
            pending,
            uncovered,
            missing,
        })
    }

    /// The first line of [`Engine::status`].
    ///
    /// # Errors
    /// As there.
    pub fn summary(&self) -> Result<String, Failure> {
        Ok(self.overview(&Now::read())?.summary)
    }

    /// The interfaces that are present, match, and carry no policy.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn uncovered(&self) -> Result<Vec<String>, Failure> {
        let Some(datapath) = &self.datapath else {
            return Ok(Vec::new());
        };
        let attached = datapath.attached()?;
        let (found, _) = interfaces::present(&self.config()?.firewall.interfaces)?;
        Ok(found
            .into_iter()
            .filter(|i| !attached.iter().any(|a| a.alive && a.ifindex == i.index))
            .map(|i| i.name)
            .collect())
    }

    /// What of the files is not as it should be, for the first line.
    fn broken_file(&self) -> Option<String> {
        let is_known = self.ledger.confirmed().is_ok_and(|confirmed| confirmed.is_some());
        match Config::read(&self.paths.config) {
            Err(error) if is_known && self.rescue.is_none() => {
                Some(format!("not by pgfw.toml as it is now: {error}"))
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// The policy that judges, as the ledger knows it.
    fn policy(&self, judging: Option<u64>) -> Result<Option<api::Policy>, Failure> {
        let Some(generation) = judging else {
            return Ok(None);
        };
        let recorded = self.ledger.generation(generation)?;
        Ok(Some(api::Policy {
            generation,
            confirmed: self.control()?.confirmed == Choice::Generation(generation),
            hash: recorded.as_ref().map(|g| g.hash.clone()),
            since: recorded.map(|g| g.created.rfc3339()),
        }))
    }

    fn table_memory(&self, judging: Option<u64>) -> Option<api::TableMemory> {
        let (used, all) = self.datapath.as_ref()?.table_size(judging?).ok()?;
        Some(api::TableMemory { used, all })
    }

    fn kernel(&self) -> BTreeMap<String, String> {
        let choices = self
            .datapath
            .iter()
            .flat_map(|datapath| datapath.kernel().choices());
        choices
            .map(|(about, choice)| (about.to_owned(), choice.to_owned()))
            .collect()
    }

    fn attachments(&self) -> Result<Vec<Attached>, Failure> {
        match &self.datapath {
            Some(datapath) => Ok(datapath.attached()?),
            None => Ok(Vec::new()),
        }
    }

    fn counted(
        &self,
        compiled: Option<&crate::policy::coverage::Compiled>,
    ) -> Result<(Vec<api::Interface>, Vec<api::ServiceState>), Failure> {
        let Some(datapath) = &self.datapath else {
            return Ok((Vec::new(), Vec::new()));
        };
        let counters = datapath.counters()?;
        let interfaces = datapath
            .attached()?
            .iter()
            .map(|a| {
                let mut one = api::Interface {
                    name: name_of(a),
                    index: a.ifindex,
                    mode: match (a.alive, a.mode) {
                        (true, Some(mode)) => mode.to_string(),
                        (true, None) | (false, _) => "detached from outside".to_owned(),
                    },
                    about: a.about.map(str::to_owned),
                    covered: a.alive,
                    passed: 0,
                    dropped: 0,
                    reasons: BTreeMap::new(),
                };
                for (reason, packets) in counters.interfaces.get(&a.ifindex).into_iter().flatten() {
                    match reason.action() {
                        Action::Pass => one.passed += packets,
                        Action::Drop => one.dropped += packets,
                    }
                    one.reasons.insert(reason.name().to_owned(), *packets);
                }
                one
            })
            .collect();
        let mut services: BTreeMap<ServiceId, api::ServiceState> = BTreeMap::new();
        for (port, id) in compiled.map(|c| &c.services).into_iter().flatten() {
            let name = compiled
                .and_then(|c| c.names.get(id))
                .cloned()
                .unwrap_or_default();
            let one = services.entry(*id).or_insert(api::ServiceState {
                name,
                passed: 0,
                dropped: 0,
                draining: 0,
            });
            let counted = counters.services.get(port).copied().unwrap_or_default();
            one.passed += counted.passed;
            one.dropped += counted.dropped;
        }
        Ok((interfaces, services.into_values().collect()))
    }
}

fn name_of(attached: &Attached) -> String {
    attached
        .name
        .clone()
        .unwrap_or_else(|| format!("interface {} (gone)", attached.ifindex))
}

/// What [`Engine::status`] begins with.
#[derive(Debug)]
struct Overview {
    summary: String,
    state: State,
    judging: Option<u64>,
    config: Option<Config>,
    pending: Option<Pending>,
    /// Interfaces that match and carry no policy.
    uncovered: Vec<String>,
    /// Names of the config that are not there.
    missing: Vec<String>,
}

fn ports(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// What was dropped most.
fn drops(interfaces: &[api::Interface]) -> Vec<api::Drops> {
    let mut all: BTreeMap<Reason, u64> = BTreeMap::new();
    for (name, packets) in interfaces.iter().flat_map(|interface| &interface.reasons) {
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == name);
        if let Some(reason) = reason.filter(|reason| reason.action() == Action::Drop) {
            *all.entry(reason).or_default() += packets;
        }
    }
    let mut drops: Vec<api::Drops> = all
        .into_iter()
        .map(|(reason, packets)| api::Drops {
            reason: reason.name().to_owned(),
            meaning: reason.meaning().to_owned(),
            packets,
        })
        .collect();
    drops.sort_by_key(|drops| std::cmp::Reverse(drops.packets));
    drops
}
