//! `allow`, `deny`, `remove`: one entry in the ledger, one table update in the kernel.

use std::time::Duration;

use ipnet::IpNet;

use super::Engine;
use super::engine::Facts;
use crate::api::{AddEntry, Changed, RemoveEntry};
use crate::clock::Now;
use crate::config::{Config, GATE};
use crate::failure::{Code, Explain, Failure};
use crate::fault::{Step, step};
use crate::ledger::LedgerError;
use crate::ledger::types::{Entry, EntryEnd, EntryKind, NewEntry};
use crate::observe::audit::Change;
use crate::policy::{self, Answer, Inputs, Opening, Origin};

impl Engine {
    /// Opens or closes a network.
    ///
    /// What opens is undone when any part fails. What closes stays closed in the kernel even when the ledger cannot
    /// take it (a full disk), and is recorded as soon as it can.
    ///
    /// # Errors
    /// A request that [`AddEntry::check`] refuses, an unknown service, a change that would cut a live SSH peer, a full
    /// disk or table.
    pub fn add_entry(&mut self, request: &AddEntry, requester: &str) -> Result<Changed, Failure> {
        let AddEntry {
            answer,
            net,
            service,
            seconds,
            comment,
            confirm,
            force,
        } = request;
        request.check()?;
        let _lock = self.lock()?;
        self.not_anothers()?;
        match (answer, service) {
            (Answer::Allow, _) => self.not_in_rescue("an allow")?,
            (Answer::Deny, Some(_)) => self.not_in_rescue("a deny of one service")?,
            (Answer::Deny, None) => {}
        }
        let change = match answer {
            Answer::Allow => Change::Allowed,
            Answer::Deny => Change::Denied,
        };
        let now = Now::read();
        let config = self.config()?;
        known_service(&config, service.as_deref())?;
        let new = NewEntry {
            kind: match answer {
                Answer::Allow => EntryKind::Allow,
                Answer::Deny => EntryKind::Deny,
            },
            net: *net,
            service: service.clone(),
            end: seconds.map(|s| EntryEnd::after(Duration::from_secs(s), &now, &self.boot_id)),
            comment: comment.clone(),
            requester: requester.to_owned(),
            generation: None,
        };
        if *answer == Answer::Deny && !force {
            let mut facts = self.facts()?;
            facts.entries.push(Entry::of(&new, now.wall()));
            self.guard_facts(&facts, &format!("deny {net}"), &now)?;
        }
        if let Some(seconds) = confirm {
            let about = concerned(&config, service.as_deref(), *answer);
            let changed = self.put_on_trial(new, &about, *seconds, *force)?;
            self.say_entry(Change::OnTrial, request);
            return Ok(changed);
        }
        // Where this cannot be known, everything is compiled: what closes does not fail for it.
        let before = self.before_change(&net.trunc(), &now).unwrap_or(None);
        // In the order in which it was said.
        let put = self
            .record_what_was_not()
            .and_then(|()| self.ledger.put_entry(&new, now.wall()));
        step(Step::EntryRecorded);
        match (put, answer) {
            (Ok(put), Answer::Allow) => {
                let changed = self.refresh_after(&put.entry.net, |facts| facts.take_in(&put), before, &now);
                if let Err(failure) = changed {
                    self.ledger.undo_put(&put)?;
                    let _ = self.refresh();
                    return Err(failure);
                }
            }
            (Ok(put), Answer::Deny) => {
                self.refresh_after(&put.entry.net, |facts| facts.take_in(&put), before, &now)?;
            }
            (Err(error), Answer::Allow) => return Err(error.into()),
            (Err(error), Answer::Deny) => {
                self.unrecorded.deny(new);
                self.refresh()?;
                self.say_entry(change, request);
                self.cut(&config, *net, &now)?;
                return Err(self.not_recorded(*net, &now, error)?.into());
            }
        }
        step(Step::EntryInKernel);
        let cut = match answer {
            Answer::Allow => 0,
            Answer::Deny => self.cut(&config, *net, &now)?,
        };
        step(Step::ConnectionsCut);
        let mut lines = self.outcome(
            &config,
            *net,
            &concerned(&config, service.as_deref(), *answer),
            &now,
        )?;
        if cut > 0 {
            lines.push(format!("{cut} established connection(s) from there were ended."));
        }
        self.say_entry(change, request);
        Ok(Changed { lines, cut })
    }

    /// Takes back what [`Engine::add_entry`] recorded for exactly this network and service.
    ///
    /// # Errors
    /// Nothing is recorded for it; a change that would cut a live SSH peer; a full disk.
    pub fn remove_entry(&mut self, request: &RemoveEntry) -> Result<Changed, Failure> {
        let RemoveEntry {
            net,
            service,
            cut,
            confirm,
            force,
        } = request;
        request.check()?;
        let _lock = self.lock()?;
        self.not_in_rescue("a removal")?;
        let now = Now::read();
        let config = self.config()?;
        let facts = self.facts()?;
        let mine = |e: &&crate::ledger::types::Entry| e.net == *net && e.service == *service;
        if !facts.entries.iter().any(|e| mine(&e)) {
            return Err(self
                .nothing_to_remove(&config, *net, service.as_deref(), &now)?
                .into());
        }
        let denied = facts
            .entries
            .iter()
            .filter(mine)
            .any(|e| e.kind == EntryKind::Deny);
        let about = concerned(
            &config,
            service.as_deref(),
            if denied { Answer::Deny } else { Answer::Allow },
        );
        if !force {
            let mut facts = self.facts()?;
            facts.entries.retain(|e| e.net != *net || e.service != *service);
            self.guard_facts(&facts, &format!("removing {net}"), &now)?;
        }
        if let Some(seconds) = confirm {
            let changed = self.remove_on_trial(*net, service.clone(), &about, *seconds, *force)?;
            self.say_policy(Change::OnTrial, self.judging_hash());
            return Ok(changed);
        }
        let recorded = self
            .record_what_was_not()
            .and_then(|()| self.ledger.remove_entries(*net, service.as_deref(), None));
        let allowed = facts
            .entries
            .iter()
            .filter(mine)
            .any(|e| e.kind == EntryKind::Allow);
        let recorded = match recorded {
            Ok(_) => Ok(()),
            // To take a deny back opens, which waits for the ledger.
            Err(error) if !allowed => return Err(error.into()),
            Err(error) => {
                self.unrecorded.remove(*net, service.as_deref());
                Err(error)
            }
        };
        step(Step::EntryRecorded);
        self.refresh()?;
        step(Step::EntryInKernel);
        self.say_removed(*net, service.clone());
        let ended = if *cut { self.cut(&config, *net, &now)? } else { 0 };
        step(Step::ConnectionsCut);
        if let Err(source) = recorded {
            return Err(self.not_recorded(*net, &now, source)?.into());
        }
        let mut lines = self.outcome(&config, *net, &about, &now)?;
        match (ended, cut) {
            (_, false) => {}
            (0, true) => lines.push("No connection from there was established.".into()),
            (n, true) => lines.push(format!("{n} established connection(s) from there were ended.")),
        }
        Ok(Changed { lines, cut: ended })
    }

    /// What counts for a network now, at the services that a change was about.
    pub(super) fn outcome(
        &self,
        config: &Config,
        net: IpNet,
        about: &[String],
        now: &Now,
    ) -> Result<Vec<String>, Failure> {
        let mut facts = Facts {
            entries: self.ledger.entries_touching(&net)?,
            certificates: self.ledger.certificates()?,
            leases: self.ledger.leases()?,
        };
        self.unrecorded
            .apply(&mut facts.entries, &mut facts.certificates, now.wall());
        let inputs = self.inputs(config, &facts, self.judging(now)?.unwrap_or(0), now);
        let openings = policy::openings(&inputs);
        let mut lines = Vec::new();
        for (service, name) in policy::services(config)
            .iter()
            .filter(|(_, name)| about.contains(name))
        {
            let here: Vec<&Opening> = openings.iter().filter(|o| o.service == *service).collect();
            let covers = |answer| {
                here.iter()
                    .filter(move |o| o.answer == answer && o.net.contains(&net))
            };
            let allowed = covers(Answer::Allow).max_by_key(|o| o.until);
            match (covers(Answer::Deny).max_by_key(|o| o.until), allowed) {
                (Some(deny), allowed) => {
                    let (until, by) = (until(deny), said_by(deny));
                    lines.push(format!(
                        "{name}: {net} is refused{until}, established connections included ({by})."
                    ));
                    if let Some(allow) = allowed {
                        let by = said_by(allow);
                        lines.push(format!("{name}: {by} counts again when the deny goes."));
                    }
                }
                (None, Some(allow)) => {
                    let (until, by) = (until(allow), said_by(allow));
                    lines.push(format!("{name}: {net} may connect{until} ({by})."));
                    let inside = here
                        .iter()
                        .filter(|o| o.answer == Answer::Deny && net.contains(&o.net));
                    lines.extend(inside.map(|o| format!("{name}: except {} ({}).", o.net, said_by(o))));
                }
                (None, None) => lines.push(format!(
                    "{name}: {net} is closed to new connections; established ones go on until they end."
                )),
            }
        }
        if self.judging(now)?.is_none() {
            lines.push("No policy is enforced on this host now; it counts as soon as one is.".into());
        }
        Ok(lines)
    }

    pub(super) fn openings(&self, config: &Config, now: &Now) -> Result<Vec<Opening>, Failure> {
        let facts = self.facts()?;
        Ok(policy::openings(&Inputs {
            config,
            entries: &facts.entries,
            certificates: &facts.certificates,
            leases: &facts.leases,
            now: *now,
            boot_id: &self.boot_id,
            generation: self.judging(now)?.unwrap_or(0),
        }))
    }

    fn not_recorded(&self, net: IpNet, now: &Now, source: LedgerError) -> Result<EntryError, Failure> {
        Ok(EntryError::NotRecorded {
            net,
            judged: self.judging(now)?.is_some(),
            retried: self.stays,
            source,
        })
    }

    fn nothing_to_remove(
        &self,
        config: &Config,
        net: IpNet,
        service: Option<&str>,
        now: &Now,
    ) -> Result<EntryError, Failure> {
        let recorded = self.ledger.entries()?;
        if let Some(other) = recorded
            .iter()
            .find(|e| e.net == net && e.service.as_deref() != service)
        {
            return Ok(EntryError::OtherService {
                net,
                service: other.service.clone(),
            });
        }
        let openings = self.openings(config, now)?;
        Ok(
            match openings
                .iter()
                .find(|o| o.net == net && o.answer == Answer::Allow)
            {
                Some(opening) => EntryError::NotAnEntry {
                    net,
                    by: said_by(opening),
                },
                None => EntryError::NoEntry { net },
            },
        )
    }
}

/// The services that an entry is about.
fn concerned(config: &Config, service: Option<&str>, answer: Answer) -> Vec<String> {
    match (service, answer) {
        (Some(name), Answer::Allow | Answer::Deny) => vec![name.to_owned()],
        (None, Answer::Allow) => config.postgres.iter().map(|c| c.name.clone()).collect(),
        (None, Answer::Deny) => every_service(config),
    }
}

pub(super) fn every_service(config: &Config) -> Vec<String> {
    let mut all = vec!["ssh".to_owned()];
    all.extend(config.postgres.iter().map(|c| c.name.clone()));
    all.extend(config.services.iter().map(|s| s.name.clone()));
    all.extend(config.gate.iter().map(|_| GATE.to_owned()));
    all
}

pub(super) fn known_service(config: &Config, service: Option<&str>) -> Result<(), Failure> {
    let Some(name) = service else { return Ok(()) };
    let known = every_service(config);
    if known.iter().any(|k| k == name) {
        return Ok(());
    }
    let near = crate::config::near_miss(name, &known)
        .map(|n| format!(" Did you mean `{n}`?"))
        .unwrap_or_default();
    Err(Failure::new(
        Code::Invalid,
        format!("there is no service `{name}` in the policy that runs"),
        format!("Services here: {}.{near}", known.join(", ")),
    ))
}

fn until(opening: &Opening) -> String {
    opening
        .end
        .map(|end| format!(" until {}", end.rfc3339()))
        .unwrap_or_default()
}

fn said_by(opening: &Opening) -> String {
    match &opening.origin {
        Origin::Config(section) => format!("pgfw.toml: {section}, {}", opening.net),
        Origin::Identity(name) => format!("certificate of {name}, {}", opening.net),
        Origin::Login(name) => format!("login {name}, {}", opening.net),
        Origin::Lease(name) => format!("a lease of {name}, {}", opening.net),
        Origin::Entry(_) => match opening.answer {
            Answer::Allow => format!("pgfw allow {}", opening.net),
            Answer::Deny => format!("pgfw deny {}", opening.net),
        },
    }
}

#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error("nothing was recorded by `pgfw allow` or `pgfw deny` for {net}")]
    NoEntry { net: IpNet },
    #[error("{net} was not recorded by `pgfw allow` or `pgfw deny`: it is open through {by}")]
    NotAnEntry { net: IpNet, by: String },
    #[error("{net} is recorded, but {}", match service { Some(s) => format!("for the service `{s}`"), None => "for no single service".to_owned() })]
    OtherService { net: IpNet, service: Option<String> },
    #[error("{net} {}, and that could not be recorded", if *judged { "is closed in the kernel" } else { "is to be closed as soon as a policy is enforced here" })]
    NotRecorded {
        net: IpNet,
        /// A policy judges packets now.
        judged: bool,
        retried: bool,
        source: LedgerError,
    },
}

impl Explain for EntryError {
    fn code(&self) -> Code {
        match self {
            EntryError::NoEntry { net: _ }
            | EntryError::NotAnEntry { net: _, by: _ }
            | EntryError::OtherService { net: _, service: _ } => Code::NotFound,
            EntryError::NotRecorded {
                net: _,
                judged: _,
                retried: _,
                source: _,
            } => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            EntryError::NoEntry { net: _ } => {
                "`pgfw list` shows what is, each under the network to name.".into()
            }
            EntryError::NotAnEntry { net, by: _ } => format!(
                "Take it out of pgfw.toml and `pgfw reload`, revoke the certificate, or close it now with `pgfw deny {net}`."
            ),
            EntryError::OtherService { net, service } => match service {
                Some(service) => format!("Write: pgfw remove {net} --service {service}"),
                None => format!("Write: pgfw remove {net}"),
            },
            EntryError::NotRecorded {
                net: _,
                judged: _,
                retried: true,
                source,
            } => format!(
                "It stays closed while the daemon runs and is recorded when there is room. {}",
                source.remedy()
            ),
            EntryError::NotRecorded {
                net: _,
                judged: _,
                retried: false,
                source,
            } => format!(
                "{} It stays closed, and is recorded when the daemon starts and there is room.",
                source.remedy()
            ),
        }
    }
}
