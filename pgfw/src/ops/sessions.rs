//! Ending sessions: the one part of closing that needs a server to answer. It runs beside everything else, under no lock
//! and without the engine, so that a server that stands still keeps nobody from closing or looking.

use std::sync::Arc;

use super::Engine;
use crate::clock::BootTime;
use crate::config::Cluster;
use crate::failure::Failure;
use crate::ledger::types::WorkKind;
use crate::postgres::{self, PostgresError, Target};

/// Whose sessions are to end where.
#[derive(Debug)]
pub struct SessionWork {
    /// Cluster and serials.
    jobs: Vec<(Cluster, Vec<String>)>,
    /// When the lists stood, so that no new login is possible; `None` while one does not: then the work stays noted.
    since: Option<BootTime>,
    /// Whoever is about to log in by another certificate may finish first.
    patient: bool,
    /// While it lives, nobody else is given the same to do.
    busy: Arc<()>,
}

/// What became of it.
#[derive(Debug)]
pub struct EndedSessions {
    results: Vec<(String, Vec<String>, Result<usize, Failure>)>,
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
                .map(|(cluster, serials)| scope.spawn(move || end_on(cluster, serials, since, patient)))
                .collect();
            let results = asked.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            results.collect::<Vec<_>>()
        });
        EndedSessions {
            results: jobs
                .into_iter()
                .zip(results)
                .map(|((cluster, serials), result)| (cluster.name, serials, result))
                .collect(),
            published: since.is_some(),
            busy,
        }
    }
}

impl EndedSessions {
    pub(super) fn count(&self) -> usize {
        self.results
            .iter()
            .filter_map(|(_, _, ended)| ended.as_ref().ok())
            .sum()
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        let results = self.results.iter();
        results.filter_map(|(cluster, _, ended)| Some((cluster.as_str(), ended.as_ref().err()?)))
    }
}

impl Engine {
    pub(super) fn session_work(
        &self,
        jobs: Vec<(Cluster, Vec<String>)>,
        since: Option<BootTime>,
    ) -> SessionWork {
        SessionWork {
            jobs,
            since,
            patient: false,
            busy: Arc::clone(&self.ending),
        }
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
        for (cluster, serials, result) in results {
            let arguments: Vec<String> = serials.iter().map(|s| session_argument(&cluster, s)).collect();
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
fn end_on(
    cluster: &Cluster,
    serials: &[String],
    since: Option<BootTime>,
    patient: bool,
) -> Result<usize, Failure> {
    if let Some(since) = since.filter(|_| patient) {
        match postgres::await_logins(cluster, since) {
            Err(PostgresError::NoDataDirectory { .. }) => return Ok(0),
            waited => waited?,
        }
    }
    let numbers = serials.iter().filter_map(|s| u128::from_str_radix(s, 16).ok());
    let targets: Vec<Target> = numbers
        .map(|number| Target {
            serial: number.to_string(),
            issuer: None,
        })
        .collect();
    let ended = match since {
        Some(since) => {
            postgres::cut_off(cluster, &targets, since).map(|cut| cut.sessions.len() + cut.half_open)
        }
        None => postgres::terminate_sessions(cluster, &targets).map(|ended| ended.len()),
    };
    match ended {
        // A cluster that is gone has no sessions.
        Err(PostgresError::NoDataDirectory { .. }) => Ok(0),
        ended => Ok(ended?),
    }
}

/// [`WorkKind::EndSessions`]' argument.
pub(super) fn session_argument(cluster: &str, serial: &str) -> String {
    format!("{cluster}/{serial}")
}
