//! `status`, `list`, `check`: what counts now, from the kernel and the ledger.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Engine;
use super::guard::admits;
use crate::api::{
    self, Because, Checked, CheckedFrames, DaemonState, List, Network, Pending, ShortAnswer, State, Status,
    Verdict,
};
use crate::clock::{Now, WallTime};
use crate::config::{Config, Mode};
use pgfw_common::reason::Action;

use crate::datapath::{Attached, Choice, Datapath};
use crate::failure::Failure;
use crate::host::interfaces;
use crate::ledger::types::{Entry, EntryKind};
use crate::paths::Paths;
use crate::policy::coverage::ServiceId;
use crate::policy::{Answer, Opening, Origin};

/// [`Engine::status`] of an instance whose daemon does not run, or never ran.
///
/// # Errors
/// A ledger or pins that cannot be read.
pub fn status_without_daemon(paths: &Paths) -> Result<Status, Failure> {
    if paths.ledger().exists() || Datapath::exists(&paths.bpffs) {
        let engine = Engine::look(paths)?;
        engine.not_anothers()?;
        return engine.status(None);
    }
    Ok(Status {
        summary: "Not protected: nothing is attached; pgfw has not run here yet.".into(),
        state: State::Off,
        daemon: None,
        generation: None,
        pending: None,
        interfaces: Vec::new(),
        services: Vec::new(),
        attention: Vec::new(),
        networks_open: 0,
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
        let judging = self.judging(&now)?;
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
        let state = match (attached.is_empty(), judging, probation, audit) {
            (true, _, _, _) => State::Off,
            (false, None, _, _) => State::Open,
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
        let summary = match state {
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
        let (interfaces, services) = self.counted(compiled.as_ref())?;
        Ok(Status {
            summary,
            state,
            daemon,
            generation: judging,
            pending,
            interfaces,
            services,
            attention: self.attention(config.as_ref(), &uncovered, &missing)?,
            networks_open,
            compiler: crate::datapath::COMPILER.to_owned(),
            kernel: self.kernel(),
        })
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
            });
            let counted = counters.services.get(port).copied().unwrap_or_default();
            one.passed += counted.passed;
            one.dropped += counted.dropped;
        }
        Ok((interfaces, services.into_values().collect()))
    }

    fn attention(
        &self,
        config: Option<&Config>,
        uncovered: &[String],
        missing: &[String],
    ) -> Result<Vec<String>, Failure> {
        let mut lines = self.complaints.clone();
        if !self.unrecorded.is_empty() {
            lines.push(
                "something was closed that could not be written to the ledger; free space on its file system.".into(),
            );
        }
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
        if self.datapath.is_some() {
            lines.extend(missing.iter().map(|name| {
                format!("there is no interface {name}; it is covered within a minute of its appearing.")
            }));
            lines.extend(uncovered.iter().map(|name| {
                format!("{name} matches firewall.interfaces and is not covered; `pgfw reload` covers it or says why not.")
            }));
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
            if let Ok(alarms) = crate::pki::alarms(&store, &targets, Now::read().wall()) {
                lines.extend(alarms.into_iter().map(|a| format!("{} {}", a.message, a.remedy)));
            }
        }
        lines.extend(self.work()?.iter().map(super::work::said));
        Ok(lines)
    }

    /// Every network that something opens or closes, at each service.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub fn list(&self) -> Result<List, Failure> {
        let now = Now::read();
        let config = self.config()?;
        let compiled = self.compile(&config, self.judging(&now)?.unwrap_or(0), &now)?;
        let entries = self.facts()?.entries;
        let mut networks: BTreeMap<(ServiceId, ipnet::IpNet), Vec<Because>> = BTreeMap::new();
        for opening in self.openings(&config, &now)? {
            let name = compiled.names.get(&opening.service).map_or("", String::as_str);
            networks
                .entry((opening.service, opening.net))
                .or_default()
                .push(because(&opening, name, &entries));
        }
        let networks = networks
            .into_iter()
            .map(|((service, net), because)| Network {
                service: compiled.names.get(&service).cloned().unwrap_or_default(),
                net,
                answer: if admits(&compiled, service, net.addr(), now.boot) {
                    Answer::Allow
                } else {
                    Answer::Deny
                },
                because,
            })
            .collect();
        Ok(List { networks })
    }

    /// Asks the loaded program.
    ///
    /// # Errors
    /// Nothing is loaded, or the kernel does not take the frame.
    pub fn check(&self, frame: &[u8]) -> Result<Checked, Failure> {
        let now = Now::read();
        let (number, datapath) = self.asked(&now)?;
        let ifindex = asked_about(datapath)?;
        let answer = datapath.check(number, frame, ifindex)?;
        let config = self.config_of(number)?;
        let compiled = self.compile(&config, number, &now)?;
        let entries = self.facts()?.entries;
        let name = answer.service.and_then(|s| compiled.names.get(&s)).cloned();
        let mut because: Vec<Because> = match (answer.service, source_of(frame)) {
            (Some(service), Some(source)) => self
                .openings(&config, &now)?
                .iter()
                .filter(|o| o.service == service && o.net.contains(&source))
                .map(|o| self::because(o, name.as_deref().unwrap_or(""), &entries))
                .collect(),
            (Some(_) | None, _) => Vec::new(),
        };
        because.sort_by_key(|b| std::cmp::Reverse(b.net.prefix_len()));
        Ok(Checked {
            verdict: verdict(answer.verdict),
            reason: answer.reason.name().to_owned(),
            meaning: answer.reason.meaning().to_owned(),
            service: name,
            because,
            generation: number,
        })
    }

    /// Asks the loaded program about many packets, each by itself: what one would change, none does.
    ///
    /// # Errors
    /// As for [`Engine::check`].
    pub fn check_frames(&self, frames: &[Vec<u8>]) -> Result<CheckedFrames, Failure> {
        let now = Now::read();
        let (generation, datapath) = self.asked(&now)?;
        let ifindex = asked_about(datapath)?;
        let compiled = self.compile(&self.config_of(generation)?, generation, &now)?;
        let answers = frames.iter().map(|frame| {
            let answer = datapath.check(generation, frame, ifindex)?;
            Ok(ShortAnswer {
                verdict: verdict(answer.verdict),
                reason: answer.reason.name().to_owned(),
                service: answer.service.and_then(|s| compiled.names.get(&s)).cloned(),
            })
        });
        Ok(CheckedFrames {
            generation,
            answers: answers.collect::<Result<_, Failure>>()?,
        })
    }

    /// The policy that judges, and the kernel's side of it.
    fn asked(&self, now: &Now) -> Result<(u64, &Datapath), Failure> {
        let not_loaded = || {
            Failure::refused(
                "no policy judges packets on this host now",
                "Look at `pgfw status`; `pgfw reload` brings the policy of pgfw.toml.",
            )
        };
        let number = self.judging(now)?.ok_or_else(not_loaded)?;
        Ok((number, self.datapath.as_ref().ok_or_else(not_loaded)?))
    }
}

/// The interface that a packet is said to come in on. One that is gone keeps its link for a while, and the kernel takes
/// no packet from it.
fn asked_about(datapath: &Datapath) -> Result<Option<u32>, Failure> {
    let attached = datapath.attached()?;
    Ok(attached.iter().find(|a| a.alive).map(|a| a.ifindex))
}

fn verdict(action: Action) -> Verdict {
    match action {
        Action::Pass => Verdict::Pass,
        Action::Drop => Verdict::Drop,
    }
}

fn name_of(attached: &Attached) -> String {
    attached
        .name
        .clone()
        .unwrap_or_else(|| format!("interface {} (gone)", attached.ifindex))
}

fn because(opening: &Opening, service: &str, entries: &[Entry]) -> Because {
    let comment = match opening.origin {
        Origin::Entry(id) => entries
            .iter()
            .find(|e| e.id == id)
            .and_then(|e| e.comment.clone()),
        Origin::Config(_) | Origin::Identity(_) | Origin::Login(_) => None,
    };
    Because {
        net: opening.net,
        service: service.to_owned(),
        answer: opening.answer,
        origin: opening.origin.clone(),
        until: opening.end.map(WallTime::rfc3339),
        comment,
    }
}

/// The source address of a frame, found the way the program finds it.
fn source_of(frame: &[u8]) -> Option<IpAddr> {
    etherparse::SlicedPacket::from_ethernet(frame)
        .ok()
        .and_then(|packet| match packet.net {
            Some(etherparse::NetSlice::Ipv4(ip)) => Some(IpAddr::V4(ip.header().source_addr())),
            Some(etherparse::NetSlice::Ipv6(ip)) => Some(IpAddr::V6(ip.header().source_addr())),
            Some(etherparse::NetSlice::Arp(_)) | None => None,
        })
}
