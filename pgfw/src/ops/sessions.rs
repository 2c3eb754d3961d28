//! Ending sessions: the one part of closing that needs a server to answer. It runs beside everything else, under no lock
//! and without the engine, so that a server that stands still keeps nobody from closing or looking.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::expiry::EXPIRED;
use super::revoke::Reach;
use crate::clock::BootTime;
use crate::config::Cluster;
use crate::failure::Failure;
use crate::ledger::types::{Authority, WorkKind};
use crate::postgres::{self, PostgresError, Target};

/// Whose sessions are to end where.
#[derive(Debug)]
pub struct SessionWork {
    jobs: Vec<(Job, Vec<Target>)>,
    /// When the lists stood, so that no new login is possible; `None` while one does not: then the work stays noted.
    since: Option<BootTime>,
    /// Whoever is about to log in by another certificate may finish first.
    patient: bool,
    /// While it lives, nobody else is given the same to do.
    busy: Arc<()>,
}

/// At one cluster.
#[derive(Debug)]
pub(super) struct Job {
    pub cluster: Cluster,
    /// Revoked ones.
    pub serials: Vec<String>,
    /// Ones that have only expired: see [`EXPIRED`].
    pub expired: Vec<String>,
}

/// What became of it.
#[derive(Debug)]
pub struct EndedSessions {
    results: Vec<(Job, Result<usize, Failure>)>,
    published: bool,
    busy: Arc<()>,
}

impl SessionWork {
    /// Ends nobody's login that has begun and has nothing to do with these serials, unless it takes its time: for what is
    /// no emergency.
    pub(super) fn patiently(mut self) -> SessionWork {
        self.patient = true;
        self
    }

    /// Asks all servers at once. Blocks until the slowest has answered, or its time is over.
    pub fn end(self) -> EndedSessions {
        let SessionWork {
            jobs,
            since,
            patient,
            busy,
        } = self;
        let results = std::thread::scope(|scope| {
            let asked: Vec<_> = jobs
                .iter()
                .map(|(job, targets)| scope.spawn(move || end_on(job, targets, since, patient)))
                .collect();
            let results = asked.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            results.collect::<Vec<_>>()
        });
        EndedSessions {
            results: jobs.into_iter().map(|(job, _)| job).zip(results).collect(),
            published: since.is_some(),
            busy,
        }
    }
}

impl EndedSessions {
    pub(super) fn count(&self) -> usize {
        self.results
            .iter()
            .filter_map(|(_, ended)| ended.as_ref().ok())
            .sum()
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        let results = self.results.iter();
        results.filter_map(|(job, ended)| Some((job.cluster.name.as_str(), ended.as_ref().err()?)))
    }
}

impl Engine {
    pub(super) fn session_work(&self, reach: &Reach, jobs: Vec<Job>, since: Option<BootTime>) -> SessionWork {
        let issuers = self.issuers(reach);
        let with_targets = jobs.into_iter().map(|job| {
            let serials = job.serials.iter().chain(&job.expired);
            let targets = serials.flat_map(|serial| targets(serial, &issuers)).collect();
            (job, targets)
        });
        SessionWork {
            jobs: with_targets.collect(),
            since,
            patient: false,
            busy: Arc::clone(&self.ending),
        }
    }

    /// Who issued each serial, as a server shows it. Two authorities could have issued the same number: the sessions of
    /// the other's are nobody's to end. What is not known here, or cannot be compared, is left out.
    fn issuers(&self, reach: &Reach) -> BTreeMap<String, Vec<String>> {
        let names = super::issuers::names(reach);
        let certificates = self.ledger.certificates().unwrap_or_default().into_iter();
        let revocations = self.ledger.revocations().unwrap_or_default().into_iter();
        let unrecorded = self.unrecorded.revocations().iter().cloned();
        let of_certificates = certificates.map(|c| (c.authority, c.authority_generation, c.serial));
        let of_revocations = revocations
            .chain(unrecorded)
            .map(|r| (r.authority, r.authority_generation, r.serial));
        let mut issuers: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
        for (authority, generation, serial) in of_certificates.chain(of_revocations) {
            if authority != Authority::Client {
                continue;
            }
            let known = issuers.entry(serial).or_insert_with(|| Some(Vec::new()));
            match names.get(&generation) {
                Some(name) => known.iter_mut().for_each(|all| all.push(name.clone())),
                None => *known = None,
            }
        }
        let known = issuers.into_iter();
        known.filter_map(|(serial, all)| Some((serial, all?))).collect()
    }

    /// Whether somebody is at it.
    pub(super) fn ends_sessions(&self) -> bool {
        Arc::strong_count(&self.ending) > 1
    }

    /// Under the lock, for the keeper.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn settle_sessions(&mut self, ended: EndedSessions) -> Result<(), Failure> {
        let _lock = self.lock()?;
        self.note_sessions(ended);
        Ok(())
    }

    /// Strikes what is done and notes what is not.
    pub(super) fn note_sessions(&mut self, ended: EndedSessions) {
        let EndedSessions {
            results,
            published,
            busy,
        } = ended;
        let mut all_done = true;
        for (job, result) in results {
            let Job {
                cluster,
                serials,
                expired,
            } = job;
            let serials = serials.iter().map(String::as_str);
            let arguments: Vec<String> = serials
                .chain((!expired.is_empty()).then_some(EXPIRED))
                .map(|s| session_argument(&cluster.name, s))
                .collect();
            let left = match result {
                Ok(_) if published => None,
                Ok(_) => Some("its CRL is not published yet".to_owned()),
                Err(failure) => Some(failure.message),
            };
            match left {
                None => self.done(WorkKind::EndSessions, &arguments),
                Some(error) => {
                    all_done &= arguments.is_empty();
                    for argument in &arguments {
                        self.note(WorkKind::EndSessions, argument, &error);
                    }
                }
            }
        }
        if !all_done {
            self.retry_later();
        }
        drop(busy);
    }
}

/// Ends the sessions of these serials, and where it is said since when no new one can come, also connections from
/// before that have not logged in; how many.
fn end_on(job: &Job, targets: &[Target], since: Option<BootTime>, patient: bool) -> Result<usize, Failure> {
    let cluster = &job.cluster;
    // The end of a certificate was known in advance: no emergency either.
    let patient = patient || job.serials.is_empty();
    if let Some(since) = since.filter(|_| patient) {
        match postgres::await_logins(cluster, since) {
            Err(PostgresError::NoDataDirectory { .. }) => return Ok(0),
            waited => waited?,
        }
    }
    let ended = match since {
        Some(since) => {
            postgres::cut_off(cluster, targets, since).map(|cut| cut.sessions.len() + cut.half_open)
        }
        None => postgres::terminate_sessions(cluster, targets).map(|ended| ended.len()),
    };
    match ended {
        // A cluster that is gone has no sessions.
        Err(PostgresError::NoDataDirectory { .. }) => Ok(0),
        ended => Ok(ended?),
    }
}

/// A serial as sessions show it, of each authority that issued it; of any, where that is not known.
fn targets(serial: &str, issuers: &BTreeMap<String, Vec<String>>) -> Vec<Target> {
    let Ok(number) = u128::from_str_radix(serial, 16) else {
        return Vec::new();
    };
    let target = |issuer: Option<String>| Target {
        serial: number.to_string(),
        issuer,
    };
    match issuers.get(serial) {
        Some(known) => known.iter().cloned().map(Some).map(target).collect(),
        None => vec![target(None)],
    }
}

/// [`WorkKind::EndSessions`]' argument.
pub(super) fn session_argument(cluster: &str, serial: &str) -> String {
    format!("{cluster}/{serial}")
}
