//! Brings the tables in the kernel to what ledger, certificates and clocks say now.

use super::Engine;
use super::certificates::store;
use super::engine::Facts;
use super::renewal::RenewalWork;
use super::revoke::Reach;
use super::sessions::SessionWork;
use super::start::Settled;
use super::telling::TellingWork;
use super::trials::TrialWork;
use crate::api::Changed;
use crate::clock::{BootTime, Now};
use crate::config::Config;
use crate::datapath::{Choice, Stamp};
use crate::failure::Failure;
use crate::ledger::types::Authority;
use crate::ledger::{LedgerError, Version};
use crate::pki;
use crate::policy::coverage::Compiled;
use crate::policy::{self, Difference, Inputs};

impl Engine {
    /// Compiles what every generation in the kernel should hold now and writes the difference, the confirmed
    /// generation first: what closes for cause stays closed after a rollback.
    ///
    /// # Errors
    /// A ledger that cannot be read, a table that is full.
    pub fn refresh(&mut self) -> Result<Refreshed, Failure> {
        self.settled = None;
        let now = Now::read();
        // What has to stay counts all the same.
        let _ = self.record_what_was_not();
        // Before the facts are read: what is written meanwhile makes another version.
        let version = self.ledger.version()?;
        let generations = self.referenced()?;
        let facts = self.facts()?;
        let mut refreshed = Refreshed {
            compiled: true,
            changed: false,
            next: None,
        };
        let mut failed = None;
        for number in &generations {
            // One that cannot be brought up to date is no reason to leave the other open.
            match self.refresh_one(*number, &facts, &now) {
                Ok(one) => {
                    refreshed.changed |= one.changed;
                    refreshed.next = earliest(refreshed.next, one.next);
                }
                Err(failure) => {
                    failed.get_or_insert(failure);
                }
            }
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        self.settled = self.unrecorded.is_empty().then_some(Unchanged {
            version,
            tables: self.stamps(&generations)?,
            now,
            next: refreshed.next,
        });
        Ok(refreshed)
    }

    /// [`Engine::refresh`], where anything that enters it may have changed since the last one.
    fn refresh_when_due(&mut self) -> Result<Refreshed, Failure> {
        if let Some(last) = self.still_settled(&Now::read())? {
            tracing::debug!("nothing to compile");
            return Ok(Refreshed {
                compiled: false,
                changed: false,
                next: last.next,
            });
        }
        self.refresh()
    }

    /// The last refresh, as long as the tables are right by it.
    pub(super) fn still_settled(&self, now: &Now) -> Result<Option<&Unchanged>, Failure> {
        match &self.settled {
            Some(last)
                if last.holds(now)
                    && self.unrecorded.is_empty()
                    && self.ledger.version()? == last.version
                    && self.stamps(&self.referenced()?)? == last.tables =>
            {
                Ok(Some(last))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn refresh_one(&mut self, number: u64, facts: &Facts, now: &Now) -> Result<Refreshed, Failure> {
        let config = self.config_of(number)?;
        let next = policy::next_turn(&self.inputs(&config, facts, number, now));
        let wanted = self.compile_facts(&config, number, facts, now)?.coverage;
        let datapath = self
            .datapath
            .as_mut()
            .expect("a generation is referenced by the kernel's record only");
        let Difference { put, remove } = policy::difference(&datapath.coverage(number)?, &wanted);
        tracing::debug!(
            generation = number,
            put = put.len(),
            removed = remove.len(),
            "compiled"
        );
        datapath.update(number, &put, &remove)?;
        Ok(Refreshed {
            compiled: true,
            changed: !put.is_empty() || !remove.is_empty(),
            next,
        })
    }

    /// Which tables judge, or may come to, and that nobody has written to them.
    pub(super) fn stamps(&self, generations: &[u64]) -> Result<Vec<(u64, Stamp)>, Failure> {
        let Some(datapath) = &self.datapath else {
            return Ok(Vec::new());
        };
        let stamp = |number: &u64| Ok((*number, datapath.stamp(*number)?));
        generations.iter().map(stamp).collect()
    }

    /// [`Engine::refresh`] under the lock, for a command that changed ledger or certificates itself.
    ///
    /// # Errors
    /// As for [`Engine::refresh`].
    pub fn refreshed(&mut self) -> Result<Changed, Failure> {
        let _lock = self.lock()?;
        // What is kept for programs changes with roots, too, of which the ledger knows nothing.
        self.renewals.kept = None;
        self.refresh()?;
        Ok(Changed {
            lines: Vec::new(),
            cut: 0,
        })
    }

    /// One round of the daemon's keeper: settle what waits, forget what has ended, refresh the tables.
    ///
    /// # Errors
    /// The lock cannot be taken, or the kernel's record not be read; what else fails is in the answer.
    pub fn round(&mut self) -> Result<Round, Failure> {
        let _lock = self.lock()?;
        // No part of the filter, and nothing of it is asked.
        let (look, trials) = self.trials();
        if self.is_taken_off()? {
            return Ok(Round {
                next: earliest(look, Some(BootTime(Now::read().boot.0 + RETRY_NS))),
                sessions: None,
                renewals: None,
                tellings: None,
                trials,
                failed: None,
            });
        }
        self.rebuild()?;
        let mut failed = None;
        let mut part = |done: Result<(), Failure>| {
            if let Err(failure) = done {
                failed.get_or_insert(failure);
            }
        };
        part(self.settle().map(|settled| {
            if let Settled::RolledBack { generation } = settled {
                tracing::warn!(generation, "not confirmed in time: undone");
            }
        }));
        // The tables before all housekeeping, and no part of it waits for another: a full disk must not keep a network
        // open, nor a session going.
        let mut next = None;
        let mut compiled = true;
        part(self.refresh_when_due().map(|refreshed| {
            next = refreshed.next;
            compiled = refreshed.compiled;
        }));
        let mut sessions = None;
        let mut renewals = None;
        let mut tellings = None;
        if self.rescue.is_some() {
            part(self.tend_rescue().map(|again| next = earliest(next, again)));
        } else {
            part(self.look_at_keys());
            part(self.keep_crls());
            part(self.note_expired());
            part(self.retry_work().map(|(retry, work)| {
                next = earliest(next, retry);
                sessions = work;
            }));
            part(self.keep_clients().map(|look| next = earliest(next, look)));
            part(self.tellings().map(|(again, work)| {
                next = earliest(next, again);
                tellings = work;
            }));
            part(self.renewals().map(|(look, work)| {
                next = earliest(next, look);
                renewals = work;
            }));
        }
        part(self.attach_missing());
        if compiled {
            // Nothing ends between two turns.
            part(self.forget_ended());
        }
        let deadline = self.control()?.pending.map(|(_, deadline)| deadline);
        let retry = (!self.unrecorded.is_empty() || !self.complaints.is_empty())
            .then(|| BootTime(Now::read().boot.0 + RETRY_NS));
        Ok(Round {
            next: earliest(earliest(earliest(next, look), deadline), retry),
            sessions,
            renewals,
            tellings,
            trials,
            failed,
        })
    }

    /// Renews the CRLs long before they lapse: a lapsed one locks every certificate out. What a list says and the
    /// ledger does not (a revocation that a crash cut off, a ledger that was restored) counts in the filter from here on.
    fn keep_crls(&mut self) -> Result<(), Failure> {
        let now = Now::read();
        let due = self
            .crls_looked_at
            .is_none_or(|at| now.boot.0.saturating_sub(at.0) > CRL_ROUND_NS);
        if !due {
            return Ok(());
        }
        let reach = self.reach()?;
        if !store(&reach.config).authorities(Authority::Client)?.is_empty() {
            let known = self.ledger.revocations()?.len();
            let published = self.publish_crls(&reach);
            if self.ledger.revocations()?.len() != known {
                self.refresh()?;
            }
            self.tell_alarms(&reach);
            match published {
                // Said by `status` with its remedy; nothing is to be tried again until there is a key.
                Err(_) if self.cannot_sign() => {
                    let targets = self.crl_targets(&reach.config, &reach.clusters);
                    if !self.lists_hold(&reach, &targets)? {
                        published?;
                    }
                }
                published => drop(published?),
            }
        }
        self.crls_looked_at = Some(now.boot);
        Ok(())
    }

    /// What is wrong with the lists goes to the journal too, once as long as it is the same.
    fn tell_alarms(&mut self, reach: &Reach) {
        let targets = self.crl_targets(&reach.config, &reach.clusters);
        let alarms = pki::alarms(&store(&reach.config), &targets, Now::read().wall()).unwrap_or_default();
        if alarms != self.alarmed {
            for alarm in &alarms {
                tracing::error!("{alarm}");
            }
            self.alarmed = alarms;
        }
    }

    /// The generations that the kernel may judge by, the confirmed one first.
    pub(super) fn referenced(&self) -> Result<Vec<u64>, Failure> {
        let control = self.control()?;
        let choices = [Some(control.confirmed), control.pending.map(|(choice, _)| choice)]
            .into_iter()
            .flatten()
            .filter_map(|choice| match choice {
                Choice::Pass => None,
                Choice::Generation(number) => Some(number),
            })
            .collect();
        Ok(choices)
    }

    pub(super) fn compiled(&self, generation: u64, now: &Now) -> Result<Compiled, Failure> {
        self.compile(&self.config_of(generation)?, generation, now)
    }

    pub(super) fn compile(&self, config: &Config, generation: u64, now: &Now) -> Result<Compiled, Failure> {
        self.compile_facts(config, generation, &self.facts()?, now)
    }

    pub(super) fn compile_facts(
        &self,
        config: &Config,
        generation: u64,
        facts: &Facts,
        now: &Now,
    ) -> Result<Compiled, Failure> {
        match self.kept(generation, facts, now)? {
            Some(kept) => Ok(kept),
            None => Ok(policy::compile(&self.inputs(config, facts, generation, now))),
        }
    }

    pub(super) fn inputs<'a>(
        &'a self,
        config: &'a Config,
        facts: &'a Facts,
        generation: u64,
        now: &Now,
    ) -> Inputs<'a> {
        Inputs {
            config,
            entries: &facts.entries,
            certificates: &facts.certificates,
            leases: &facts.leases,
            now: *now,
            boot_id: &self.boot_id,
            generation,
        }
    }

    /// Closings that met a full disk are written as soon as there is room.
    pub(super) fn record_what_was_not(&mut self) -> Result<(), LedgerError> {
        self.unrecorded.record(&mut self.ledger, Now::read().wall())
    }
}

/// How often the lists are looked at: an hour.
const CRL_ROUND_NS: u64 = 3_600_000_000_000;

/// How soon a ledger that had no room is tried again: until then a crash would forget what was closed.
const RETRY_NS: u64 = 5_000_000_000;

/// All that enters a refresh, as it was at the last one that went through: while it is the same, so are the tables.
#[derive(Debug)]
pub(super) struct Unchanged {
    pub(super) version: Version,
    pub(super) tables: Vec<(u64, Stamp)>,
    now: Now,
    pub(super) next: Option<BootTime>,
}

impl Unchanged {
    /// Whether the clocks have nothing to say: no end has come, and they are as far apart as they were.
    fn holds(&self, now: &Now) -> bool {
        let apart = |now: &Now| now.wall_ns - i128::from(now.boot.0);
        self.next.is_none_or(|next| now.boot < next)
            && (apart(now) - apart(&self.now)).abs() <= SAME_CLOCKS_NS
            && now.boot.0.saturating_sub(self.now.boot.0) < ANYWAY_NS
    }
}

/// A wall clock that is slewed wanders: an end by it may be out by this much, a fifth of what counts as the same end.
const SAME_CLOCKS_NS: i128 = 10_000_000;

/// How often the kernel's tables are compared all the same: an hour. It is what is left to find what another program
/// wrote into them.
const ANYWAY_NS: u64 = 3_600_000_000_000;

/// What a round of the keeper leaves.
#[derive(Debug)]
pub struct Round {
    /// When to look again.
    pub next: Option<BootTime>,
    /// Sessions to end, which takes a server that answers.
    pub sessions: Option<SessionWork>,
    /// Server certificates to renew, which takes one as well.
    pub renewals: Option<RenewalWork>,
    /// Units to tell of a new certificate, which takes as long as they like.
    pub tellings: Option<TellingWork>,
    /// Applies to settle, which takes one as well.
    pub trials: Option<TrialWork>,
    /// The first part that failed; every other was tried.
    pub failed: Option<Failure>,
}

/// What a refresh found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Whether there was anything to compile.
    pub compiled: bool,
    pub changed: bool,
    /// When the next answer changes by itself.
    pub next: Option<BootTime>,
}

pub(super) fn earliest(a: Option<BootTime>, b: Option<BootTime>) -> Option<BootTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
