//! What had to be closed and could not be yet: noted, tried again at growing intervals, shown until it is done.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::expiry::EXPIRED;
use super::revoke::Reach;
use super::sessions::{Job, SessionWork, session_argument};
use crate::clock::{BootTime, Now};
use crate::failure::Failure;
use crate::ledger::types::{Authority, PendingWork, WorkKind};

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
        // A server that does not answer, or a disk that is full, is not to be asked without end.
        let seconds = (1_u64 << self.waiting.failed.min(6)).min(LONGEST_PAUSE_S);
        self.waiting.at = Some(BootTime(Now::read().boot.0 + seconds * 1_000_000_000));
        self.waiting.failed += 1;
    }

    /// Something new is to be done, which has not been tried in vain yet.
    pub(super) fn retry_now(&mut self) {
        self.waiting.at = None;
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

    /// Tries again what could not be finished, when it is time. Returns when to come back, if there is need, and the
    /// sessions that are to end, which is left to whoever can wait for a server.
    ///
    /// # Errors
    /// A ledger that cannot be read. What fails again is noted.
    pub(super) fn retry_work(&mut self) -> Result<(Option<BootTime>, Option<SessionWork>), Failure> {
        let now = Now::read().boot;
        if let Some(at) = self.waiting.at.filter(|at| now < *at) {
            return Ok((Some(at), None));
        }
        let work = self.work()?;
        if work.is_empty() {
            self.waiting = Waiting::default();
            return Ok((None, None));
        }
        let reach = self.reach()?;
        let busy = self.ends_sessions();
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
        // Whoever is at it tells when it is done.
        let sessions = if busy {
            None
        } else {
            self.sessions_to_end(&reach, sessions)?
        };
        if !all_done {
            self.retry_later();
        }
        Ok((self.waiting.at.filter(|_| !all_done), sessions))
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

    /// By cluster and serial. While a list is not published, new logins are possible, and the work stays.
    fn sessions_to_end(
        &mut self,
        reach: &Reach,
        sessions: BTreeMap<String, Vec<String>>,
    ) -> Result<Option<SessionWork>, Failure> {
        if sessions.is_empty() {
            return Ok(None);
        }
        let revoked: BTreeSet<String> = self
            .ledger
            .revocations()?
            .into_iter()
            .chain(self.unrecorded.revocations().iter().cloned())
            .map(|r| r.serial)
            .collect();
        let published = !self.work()?.iter().any(|w| w.kind == WorkKind::PublishCrl);
        let mut jobs = Vec::new();
        for (name, mut serials) in sessions {
            let asked = serials.len();
            serials.retain(|serial| serial != EXPIRED);
            let expired = if serials.len() < asked {
                self.expired_serials(&name)?
            } else {
                Vec::new()
            };
            let no_more = serials.len() < asked && expired.is_empty();
            let cluster = reach.clusters.iter().find(|c| c.name == name);
            // A revocation that was begun and then never took place, or a cluster that is not pgfw's any more.
            let (wanted, idle): (Vec<String>, Vec<String>) = serials
                .into_iter()
                .partition(|serial| cluster.is_some() && revoked.contains(serial));
            let idle: Vec<String> = idle
                .iter()
                .map(String::as_str)
                .chain((no_more || cluster.is_none()).then_some(EXPIRED))
                .map(|serial| session_argument(&name, serial))
                .collect();
            self.done(WorkKind::EndSessions, &idle);
            if let Some(cluster) = cluster.filter(|_| !wanted.is_empty() || !expired.is_empty()) {
                jobs.push(Job {
                    cluster: cluster.clone(),
                    serials: wanted,
                    expired,
                });
            }
        }
        let since = published.then(|| Now::read().boot);
        Ok((!jobs.is_empty()).then(|| self.session_work(reach, jobs, since)))
    }

    /// At a start: what an earlier process revoked and could only keep beside the socket, for want of room. What else it
    /// could not note went with it, so all of it is done once more.
    pub(super) fn resume_unrecorded(&mut self) -> Result<(), Failure> {
        let serials: Vec<String> = self
            .unrecorded
            .revocations()
            .iter()
            .filter(|r| r.authority == Authority::Client)
            .map(|r| r.serial.clone())
            .collect();
        if serials.is_empty() {
            return Ok(());
        }
        let reach = self.reach()?;
        self.note(
            WorkKind::PublishCrl,
            &reach.config.pki.directory.display().to_string(),
            NOT_NOTED,
        );
        for cluster in reach.managed() {
            for serial in &serials {
                self.note(
                    WorkKind::EndSessions,
                    &session_argument(&cluster.name, serial),
                    NOT_NOTED,
                );
            }
        }
        Ok(())
    }
}

const NOT_NOTED: &str = "there was no room to note it when it was revoked";

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
            Some((cluster, EXPIRED)) => {
                format!("ending the sessions of expired certificates on {cluster}")
            }
            Some((cluster, serial)) => format!("ending the sessions of certificate {serial} on {cluster}"),
            None => format!("ending the sessions of {argument}"),
        },
    };
    let since = since.rfc3339();
    format!("{what} waits since {since} and is tried again: {last_error}.")
}
