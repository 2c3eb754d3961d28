//! Brings the tables in the kernel to what ledger, certificates and clocks say now.

use std::collections::BTreeMap;

use super::Engine;
use super::certificates::store;
use super::engine::Facts;
use super::sessions::SessionWork;
use super::start::Settled;
use crate::api::Changed;
use crate::clock::{BootTime, Now};
use crate::datapath::Choice;
use crate::failure::Failure;
use crate::ledger::LedgerError;
use crate::ledger::types::Authority;
use crate::policy::coverage::{Compiled, Coverage, CoverageKey, Until};
use crate::policy::{self, Difference, Inputs};

impl Engine {
    /// Compiles what every generation in the kernel should hold now and writes the difference, the confirmed
    /// generation first: what closes for cause stays closed after a rollback.
    ///
    /// # Errors
    /// A ledger that cannot be read, a table that is full.
    pub fn refresh(&mut self) -> Result<Refreshed, Failure> {
        let now = Now::read();
        // What has to stay counts all the same.
        let _ = self.record_what_was_not();
        let mut refreshed = Refreshed {
            changed: false,
            next: None,
        };
        let mut failed = None;
        for number in self.referenced()? {
            // One that cannot be brought up to date is no reason to leave the other open.
            match self.refresh_one(number, &now) {
                Ok(one) => {
                    refreshed.changed |= one.changed;
                    refreshed.next = earliest(refreshed.next, one.next);
                }
                Err(failure) => {
                    failed.get_or_insert(failure);
                }
            }
        }
        failed.map_or(Ok(refreshed), Err)
    }

    fn refresh_one(&mut self, number: u64, now: &Now) -> Result<Refreshed, Failure> {
        let compiled = self.compiled(number, now)?;
        let datapath = self
            .datapath
            .as_mut()
            .expect("a generation is referenced by the kernel's record only");
        let Difference { put, remove } = policy::difference(&datapath.coverage(number)?, &compiled.coverage);
        datapath.update(number, &put, &remove)?;
        Ok(Refreshed {
            changed: !put.is_empty() || !remove.is_empty(),
            next: next_end(&compiled.coverage, now.boot),
        })
    }

    /// [`Engine::refresh`] under the lock, for a command that changed ledger or certificates itself.
    ///
    /// # Errors
    /// As for [`Engine::refresh`].
    pub fn refreshed(&mut self) -> Result<Changed, Failure> {
        let _lock = self.lock()?;
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
        if self.is_taken_off()? {
            return Ok(Round {
                next: Some(BootTime(Now::read().boot.0 + RETRY_NS)),
                sessions: None,
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
        part(self.refresh().map(|refreshed| next = refreshed.next));
        let mut sessions = None;
        if self.rescue.is_some() {
            part(self.tend_rescue().map(|again| next = earliest(next, again)));
        } else {
            part(self.keep_crls());
            part(self.retry_work().map(|(retry, work)| {
                next = earliest(next, retry);
                sessions = work;
            }));
        }
        part(self.attach_missing());
        part(self.forget_ended());
        let deadline = self.control()?.pending.map(|(_, deadline)| deadline);
        let retry = (!self.unrecorded.is_empty() || !self.complaints.is_empty())
            .then(|| BootTime(Now::read().boot.0 + RETRY_NS));
        Ok(Round {
            next: earliest(earliest(next, deadline), retry),
            sessions,
            failed,
        })
    }

    fn forget_ended(&mut self) -> Result<(), Failure> {
        for entry in self.ledger.prune(&Now::read(), &self.boot_id)? {
            tracing::info!(net = %entry.net, kind = ?entry.kind, "ended");
        }
        Ok(())
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
            published?;
        }
        self.crls_looked_at = Some(now.boot);
        Ok(())
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

    pub(super) fn compile(
        &self,
        config: &crate::config::Config,
        generation: u64,
        now: &Now,
    ) -> Result<Compiled, Failure> {
        self.compile_facts(config, generation, &self.facts()?, now)
    }

    pub(super) fn compile_facts(
        &self,
        config: &crate::config::Config,
        generation: u64,
        facts: &Facts,
        now: &Now,
    ) -> Result<Compiled, Failure> {
        if let Some(kept) = self.kept(generation, facts, now)? {
            return Ok(kept);
        }
        Ok(policy::compile(&Inputs {
            config,
            entries: &facts.entries,
            certificates: &facts.certificates,
            now: *now,
            boot_id: &self.boot_id,
            generation,
        }))
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

/// What a round of the keeper leaves.
#[derive(Debug)]
pub struct Round {
    /// When to look again.
    pub next: Option<BootTime>,
    /// Sessions to end, which takes a server that answers.
    pub sessions: Option<SessionWork>,
    /// The first part that failed; every other was tried.
    pub failed: Option<Failure>,
}

/// What a refresh found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    pub changed: bool,
    /// When the next answer changes by itself.
    pub next: Option<BootTime>,
}

fn earliest(a: Option<BootTime>, b: Option<BootTime>) -> Option<BootTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

fn next_end(coverage: &BTreeMap<CoverageKey, Coverage>, after: BootTime) -> Option<BootTime> {
    coverage
        .values()
        .flat_map(|cell| [cell.deny, cell.allow])
        .filter_map(|until| match until {
            Until::At(end) if end > after => Some(end),
            Until::At(_) | Until::Absent | Until::Forever => None,
        })
        .min()
}
