//! What had to be closed and could not be yet: noted, tried again at growing intervals, shown until it is done.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::revoke::{Reach, end_on};
use crate::clock::{BootTime, Now};
use crate::failure::Failure;
use crate::ledger::types::{PendingWork, WorkKind};

/// What waits, beside what the ledger says about it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// When to try again; `None`: at once.
    at: Option<BootTime>,
    /// How often in a row it was in vain.
    failed: u32,
    /// What the ledger could not take.
    pub unnoted: Vec<PendingWork>,
}

impl Engine {
    /// Notes what failed; in memory where the ledger cannot take it.
    pub(super) fn note(&mut self, kind: WorkKind, argument: &str, error: &str) {
        let now = Now::read().wall();
        if self.ledger.note_work(kind, argument, error, now).is_ok() {
            self.waiting
                .unnoted
                .retain(|w| (w.kind, w.argument.as_str()) != (kind, argument));
            return;
        }
        let known = self.waiting.unnoted.iter_mut();
        match known
            .into_iter()
            .find(|w| (w.kind, w.argument.as_str()) == (kind, argument))
        {
            Some(work) => {
                work.attempts += 1;
                error.clone_into(&mut work.last_error);
            }
            None => self.waiting.unnoted.push(PendingWork {
                kind,
                argument: argument.to_owned(),
                since: now,
                attempts: 1,
                last_error: error.to_owned(),
            }),
        }
    }

    /// Notes that something was done after all.
    pub(super) fn done(&mut self, kind: WorkKind, arguments: &[String]) {
        self.waiting
            .unnoted
            .retain(|w| w.kind != kind || !arguments.contains(&w.argument));
        if let Err(error) = self.ledger.finish_work(kind, arguments) {
            // It is done once more then, which changes nothing.
            tracing::warn!(%error, ?kind, "what was done could not be struck from the ledger");
        }
    }

    /// Something was just tried in vain: not at once again.
    pub(super) fn retry_later(&mut self) {
        // A server that does not answer takes seconds of the engine each time.
        let seconds = (1_u64 << self.waiting.failed.min(6)).min(LONGEST_PAUSE_S);
        self.waiting.at = Some(BootTime(Now::read().boot.0 + seconds * 1_000_000_000));
        self.waiting.failed += 1;
    }

    /// What is still to be done, in the ledger or in memory; what publishes a list before what relies on it.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub(super) fn work(&self) -> Result<Vec<PendingWork>, Failure> {
        let mut all = self.ledger.pending_work()?;
        for work in &self.waiting.unnoted {
            if !all
                .iter()
                .any(|w| (w.kind, &w.argument) == (work.kind, &work.argument))
            {
                all.push(work.clone());
            }
        }
        all.sort_by_key(|work| match work.kind {
            WorkKind::PublishCrl => 0,
            WorkKind::CloseFilter => 1,
            WorkKind::EndSessions => 2,
        });
        Ok(all)
    }

    /// Tries again what could not be finished, when it is time. Returns when to come back, if there is need.
    ///
    /// # Errors
    /// A ledger that cannot be read. What fails again is noted.
    pub(super) fn retry_work(&mut self) -> Result<Option<BootTime>, Failure> {
        let now = Now::read().boot;
        if let Some(at) = self.waiting.at.filter(|at| now < *at) {
            return Ok(Some(at));
        }
        let work = self.work()?;
        if work.is_empty() {
            self.waiting = Waiting::default();
            return Ok(None);
        }
        let reach = self.reach()?;
        let mut all_done = true;
        let mut sessions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for PendingWork { kind, argument, .. } in work {
            let tried = match kind {
                WorkKind::PublishCrl => self.publish_crls(&reach).map(drop),
                WorkKind::CloseFilter => self.refresh().map(drop),
                WorkKind::EndSessions => {
                    let (cluster, serial) = argument.rsplit_once('/').unwrap_or((&argument, ""));
                    let serials = sessions.entry(cluster.to_owned()).or_default();
                    serials.push(serial.to_owned());
                    continue;
                }
            };
            all_done &= self.settle_work(kind, &argument, tried);
        }
        all_done &= self.retry_sessions(&reach, sessions)?;
        if all_done {
            self.waiting = Waiting::default();
            return Ok(None);
        }
        self.retry_later();
        Ok(self.waiting.at)
    }

    /// Whether it is done.
    fn settle_work(&mut self, kind: WorkKind, argument: &str, tried: Result<(), Failure>) -> bool {
        match tried {
            Ok(()) => {
                tracing::info!(?kind, argument, "done after all");
                self.done(kind, &[argument.to_owned()]);
                true
            }
            Err(failure) => {
                self.note(kind, argument, &failure.message);
                false
            }
        }
    }

    /// By cluster and serial: whether all have ended. While a list is not published, new logins are possible, and the
    /// work stays.
    fn retry_sessions(
        &mut self,
        reach: &Reach,
        sessions: BTreeMap<String, Vec<String>>,
    ) -> Result<bool, Failure> {
        if sessions.is_empty() {
            return Ok(true);
        }
        let revoked: BTreeSet<String> = self
            .ledger
            .revocations()?
            .into_iter()
            .chain(self.unrecorded.revocations().iter().cloned())
            .map(|r| r.serial)
            .collect();
        let published = !self.work()?.iter().any(|w| w.kind == WorkKind::PublishCrl);
        let mut all_done = true;
        for (name, serials) in sessions {
            let cluster = reach.clusters.iter().find(|c| c.name == name);
            // A revocation that was begun and then never took place, or a cluster that is not pgfw's any more.
            let (wanted, idle): (Vec<String>, Vec<String>) = serials
                .into_iter()
                .partition(|serial| cluster.is_some() && revoked.contains(serial));
            let idle: Vec<String> = idle.iter().map(|serial| format!("{name}/{serial}")).collect();
            self.done(WorkKind::EndSessions, &idle);
            let Some(cluster) = cluster.filter(|_| !wanted.is_empty()) else {
                continue;
            };
            let since = published.then(|| Now::read().boot);
            let tried = end_on(cluster, &wanted, since).map(drop);
            if tried.is_ok() && !published {
                all_done = false;
                continue;
            }
            for serial in wanted {
                all_done &=
                    self.settle_work(WorkKind::EndSessions, &format!("{name}/{serial}"), tried.clone());
            }
        }
        Ok(all_done)
    }
}

const LONGEST_PAUSE_S: u64 = 60;

/// What waits, in words.
pub(super) fn said(work: &PendingWork) -> String {
    let PendingWork {
        kind,
        argument,
        since,
        attempts: _,
        last_error,
    } = work;
    let what = match kind {
        WorkKind::PublishCrl => format!("publishing the CRLs of {argument}"),
        WorkKind::CloseFilter => format!("closing the filter for {argument}"),
        WorkKind::EndSessions => match argument.rsplit_once('/') {
            Some((cluster, serial)) => format!("ending the sessions of certificate {serial} on {cluster}"),
            None => format!("ending the sessions of {argument}"),
        },
    };
    let since = since.rfc3339();
    format!("{what} waits since {since} and is tried again: {last_error}.")
}
