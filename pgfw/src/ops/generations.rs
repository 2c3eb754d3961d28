//! `reload`, `confirm`, `rollback`: each is one store into the control record, for all interfaces at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::start::Missing;
use crate::api::{Changed, Reload, Reloaded};
use crate::clock::Now;
use crate::config::Config;
use crate::datapath::{Choice, Control};
use crate::failure::{Explain, Failure};
use crate::fault::{Step, step};
use crate::host::interfaces;
use crate::ledger::types::{EntryKind, Generation, GenerationState};
use crate::observe::audit::Change;
use crate::policy::access;
use crate::policy::coverage::{Compiled, Coverage, Settings, Until};

/// How long the first policy of a host stands when nobody says otherwise.
const PROBATION: Duration = Duration::from_secs(300);

/// How long one that nobody has to confirm may take to be recorded; a crash in between undoes it.
const AT_ONCE: Duration = Duration::from_secs(30);

/// What to do about a change that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    Confirm,
    RollBack,
}

impl Engine {
    /// Brings the filter to what `pgfw.toml` says now.
    ///
    /// # Errors
    /// A config that is not right, a change that already waits, one that would cut a live SSH peer, a program that
    /// this kernel refuses. What runs goes on.
    pub fn reload(&mut self, request: &Reload) -> Result<Reloaded, Failure> {
        let Reload {
            dry_run,
            confirm,
            force,
        } = request;
        request.check()?;
        let _lock = self.lock()?;
        self.nothing_waits()?;
        let now = Now::read();
        let config = Config::read(&self.paths.config)?;
        interfaces::matching(&config.firewall.interfaces)?;
        let confirmed = self.ledger.confirmed()?;
        if self.ledger.stands_in() {
            self.not_in_rescue("a reload")?;
        }
        let running = match (&self.rescue, &confirmed) {
            (Some(rescue), _) => Some(rescue.config.clone()),
            (None, Some(g)) => Some(self.config_of(g.number)?),
            (None, None) => None,
        };
        let facts = self.facts()?;
        let before = match (&running, &confirmed) {
            (Some(config), Some(g)) => Some(self.compile_facts(config, g.number, &facts, &now)?),
            (Some(_) | None, _) => None,
        };
        let after = self.compile_facts(&config, 0, &facts, &now)?;
        drop(facts);
        let mut difference = describe(before.as_ref(), &after);
        let rules = access::compile(&config)?;
        let rules_before = running.as_ref().and_then(|config| access::compile(config).ok());
        let rules_change = rules_before.is_some_and(|before| before != rules);
        if rules_change {
            difference.push("~ PostgreSQL's rules change with it".into());
        }
        let closes = before.as_ref().is_some_and(|before| closes(before, &after));
        if *dry_run {
            return Ok(Reloaded {
                generation: None,
                deadline: None,
                difference,
                closes,
                rules_change,
                complaints: self.complaints.clone(),
            });
        }
        if let Some(confirmed) = &confirmed
            && confirmed.config == config.text
            && self.rescue.is_none()
        {
            self.attach_all(&config, Missing::Complain)?;
            self.refresh()?;
            return Ok(Reloaded {
                generation: None,
                deadline: None,
                difference,
                closes,
                rules_change,
                complaints: self.complaints.clone(),
            });
        }
        if !force {
            self.guard_config(running.as_ref().zip(before.as_ref()), (&config, &after), &now)?;
        }
        // Where nothing was ever confirmed, the fallback is "everything passes": that is a probation.
        let wait = match (confirm, &confirmed) {
            (Some(seconds), _) => Some(Duration::from_secs(*seconds)),
            (None, None) => Some(PROBATION),
            (None, Some(_)) => None,
        };
        self.attachable(&config)?;
        let old = self.judging_hash();
        let number = self.begin(&config, wait.unwrap_or(AT_ONCE), *force, |_, _| Ok(after))?;
        if let Err(failure) = self.attach_all(&config, Missing::Refuse) {
            self.undo(number)?;
            return Err(failure);
        }
        step(Step::PendingAttached);
        let deadline = match wait {
            Some(time) => Some(deadline(&now, time)),
            None => {
                if let Err(error) = self.ledger.confirm(number) {
                    // Whoever reads that nothing was changed must not have it judge until its deadline.
                    self.undo(number)?;
                    return Err(error.into());
                }
                self.carry_out(number)?;
                None
            }
        };
        let change = match wait {
            Some(_) => Change::OnTrial,
            None => Change::Reloaded,
        };
        self.say_policy(change, old);
        Ok(Reloaded {
            generation: Some(number),
            deadline,
            difference,
            closes,
            rules_change,
            complaints: Vec::new(),
        })
    }

    /// One change at a time.
    pub(super) fn nothing_waits(&mut self) -> Result<(), Failure> {
        if self.datapath.is_none() {
            return Err(GenerationError::Off.into());
        }
        self.settle()?;
        if let Some(pending) = self.ledger.pending()? {
            return Err(GenerationError::Waits {
                number: pending.number,
                seconds: self.seconds_left()?,
            }
            .into());
        }
        Ok(())
    }

    /// Keeps or undoes the change that waits.
    ///
    /// # Errors
    /// Nothing waits, or its deadline has passed.
    pub fn decide(&mut self, what: Confirmation) -> Result<Changed, Failure> {
        let _lock = self.lock()?;
        self.settle()?;
        let Some(pending) = self.ledger.pending()? else {
            return Err(match self.ledger.latest()? {
                Some(Generation {
                    number,
                    state: GenerationState::RolledBack,
                    config: _,
                    hash: _,
                    created: _,
                }) => GenerationError::Undone { number }.into(),
                Some(_) | None => GenerationError::NothingWaits.into(),
            });
        };
        let number = pending.number;
        let old = self.judging_hash();
        let change = match what {
            Confirmation::Confirm => Change::Confirmed,
            Confirmation::RollBack => Change::RolledBack,
        };
        let mut cut = 0;
        let line = match what {
            Confirmation::Confirm => {
                let denied: Vec<_> = self
                    .ledger
                    .entries()?
                    .into_iter()
                    .filter(|e| e.generation == Some(number) && e.kind == EntryKind::Deny)
                    .collect();
                self.ledger.confirm(number)?;
                self.carry_out(number)?;
                let (config, now) = (self.config_of(number)?, Now::read());
                for entry in denied {
                    cut += self.cut(&config, entry.net, &now)?;
                }
                format!("Policy {number} is confirmed: it stays over restarts and reboots.")
            }
            Confirmation::RollBack => {
                self.undo(number)?;
                match self.control()?.confirmed {
                    Choice::Generation(old) => {
                        format!("Policy {number} is undone; policy {old} counts again.")
                    }
                    Choice::Pass => format!("Policy {number} is undone; every packet passes as before."),
                }
            }
        };
        self.say_policy(change, old);
        Ok(Changed {
            lines: vec![line],
            cut,
        })
    }

    /// After the ledger has it: were the kernel told and the ledger not, a reboot would bring the old policy back
    /// unasked.
    fn carry_out(&mut self, number: u64) -> Result<(), Failure> {
        step(Step::ConfirmRecorded);
        self.datapath().set_control(Control {
            confirmed: Choice::Generation(number),
            pending: None,
        })?;
        step(Step::ConfirmJudges);
        self.rescue = None;
        self.datapath().collect()?;
        step(Step::ConfirmCollected);
        let config = self.config_of(number)?;
        self.attach_all(&config, Missing::Complain)?;
        self.restored = None;
        super::marker::write(&self.paths, &config, number)?;
        step(Step::ConfirmMarked);
        Ok(())
    }
}

pub(super) fn deadline(now: &Now, time: Duration) -> String {
    crate::clock::WallTime(now.wall().0 + i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 2)).rfc3339()
}

/// Services are numbered anew in each policy; a name stays.
fn by_name(policy: &Compiled) -> BTreeMap<(&str, ipnet::IpNet), Coverage> {
    let name = |id| policy.names.get(id).map_or("", String::as_str);
    policy
        .coverage
        .iter()
        .map(|(key, cell)| ((name(&key.service), key.net), *cell))
        .collect()
}

fn is_open(cell: &Coverage) -> bool {
    cell.deny == Until::Absent && cell.allow != Until::Absent
}

/// Whether anybody who is let in by one policy is not by the other.
fn closes(before: &Compiled, after: &Compiled) -> bool {
    let (old, new) = (by_name(before), by_name(after));
    // The longest prefix decides.
    let opens = |policy: &BTreeMap<(&str, ipnet::IpNet), Coverage>, (service, net): (&str, ipnet::IpNet)| {
        std::iter::successors(Some(net), ipnet::IpNet::supernet)
            .find_map(|net| policy.get(&(service, net)))
            .is_some_and(is_open)
    };
    let gone =
        |(port, id)| after.services.get(port).and_then(|new| after.names.get(new)) != before.names.get(id);
    before.services.iter().any(gone)
        || old
            .keys()
            .chain(new.keys())
            .any(|key| opens(&old, *key) && !opens(&new, *key))
}

/// The difference in effective access, one line a network.
fn describe(before: Option<&Compiled>, after: &Compiled) -> Vec<String> {
    let empty = Compiled::default();
    let (old, new) = (by_name(before.unwrap_or(&empty)), by_name(after));
    let open = |cell: Option<&Coverage>| cell.is_some_and(is_open);
    let mut lines = Vec::new();
    for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
        let (service, net) = key;
        match (open(old.get(key)), open(new.get(key))) {
            (false, true) => lines.push(format!("+ {service} opens to {net}")),
            (true, false) => lines.push(format!("- {service} closes to {net}")),
            (true, true) | (false, false) => {}
        }
    }
    if let Some(before) = before {
        lines.extend(changed_services(before, after));
        lines.extend(changed_settings(&before.settings, &after.settings));
    }
    lines
}

/// Ports that become a service's, or are none any more.
fn changed_services(before: &Compiled, after: &Compiled) -> Vec<String> {
    let named = |compiled: &Compiled| -> BTreeMap<(u8, u16), String> {
        let name = |id| compiled.names.get(id).cloned().unwrap_or_default();
        let ports = compiled.services.iter();
        ports
            .map(|(port, id)| ((port.protocol, port.port), name(id)))
            .collect()
    };
    let (old, new) = (named(before), named(after));
    let at = |(protocol, port): &(u8, u16)| format!("protocol {protocol}, port {port}");
    let gone = old.iter().filter(|(key, name)| new.get(key) != Some(name));
    let come = new.iter().filter(|(key, name)| old.get(key) != Some(name));
    gone.map(|(key, name)| format!("- {name} is not at {} any more", at(key)))
        .chain(come.map(|(key, name)| format!("+ {name} is at {}", at(key))))
        .collect()
}

/// Switches that change, by their keys in pgfw.toml.
fn changed_settings(before: &Settings, after: &Settings) -> Vec<String> {
    let said = |settings: &Settings| {
        let Settings {
            audit,
            echo,
            dhcp_client,
            forwarded_track,
            ether_types,
            stp,
            // Said as a service that comes, goes or moves.
            gate_port: _,
        } = settings;
        [
            ("mode", if *audit { "audit" } else { "enforce" }.to_owned()),
            ("echo", format!("{echo:?}").to_lowercase()),
            ("dhcp_client", dhcp_client.to_string()),
            (
                "forwarded",
                if *forwarded_track { "track" } else { "drop" }.to_owned(),
            ),
            (
                "link_layer",
                format!("{ether_types:#06x?}{}", if *stp { " stp" } else { "" }).replace('\n', ""),
            ),
        ]
    };
    let changes = said(before).into_iter().zip(said(after));
    changes
        .filter(|(old, new)| old != new)
        .map(|((key, old), (_, new))| format!("~ firewall.{key} was {old} and becomes {new}"))
        .collect()
}

#[derive(Debug, thiserror::Error)]
enum GenerationError {
    #[error("pgfw is off on this host: nothing is attached")]
    Off,
    #[error("policy {number} still waits for its confirmation, {seconds} s more")]
    Waits { number: u64, seconds: u64 },
    #[error("no change waits for a confirmation")]
    NothingWaits,
    #[error(
        "no change waits for a confirmation: policy {number} was not confirmed in time, or was rolled back"
    )]
    Undone { number: u64 },
}

impl Explain for GenerationError {
    fn remedy(&self) -> String {
        match self {
            GenerationError::Off => "Start it again with: systemctl restart pgfw".into(),
            GenerationError::Waits { number: _, seconds: _ } => {
                "Keep it with `pgfw confirm`, or undo it with `pgfw rollback`, then reload again.".into()
            }
            GenerationError::NothingWaits => "`pgfw status` shows what counts.".into(),
            GenerationError::Undone { number: _ } => {
                "Start over with: pgfw reload --confirm 60s (on a host where nothing was confirmed yet: pgfw reload)"
                    .into()
            }
        }
    }
}
