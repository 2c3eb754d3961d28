//! Applies to PostgreSQL that wait for their confirmation, and those that were cut off: whoever comes first settles them,
//! the daemon at its start and at each deadline, a timer, or the next command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Engine;
use super::audit::{say_settled, say_too_late};
use super::engine::lock_cluster;
use super::renewal::{LOOK_NS, RETRY_NS};
use crate::clock::{BootTime, Now};
use crate::failure::Failure;
use crate::observe::audit::Audit;
use crate::paths::Paths;
use crate::postgres::{self, OnTrial, PostgresError, Settled, Verdict};

/// What the keeper remembers of them. All of it can be found again.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// When to try again, how often it was in vain, and why.
    failed: BTreeMap<String, (BootTime, u32, Failure)>,
    /// Whoever settles them holds one more of it.
    busy: Arc<()>,
}

/// Clusters of which something is to be settled.
#[derive(Debug)]
pub struct TrialWork {
    paths: Paths,
    audit: Audit,
    clusters: Vec<String>,
    busy: Arc<()>,
}

/// What became of it.
#[derive(Debug)]
pub struct SettledTrials {
    results: Vec<(String, Result<Settled, Failure>)>,
    busy: Arc<()>,
}

impl TrialWork {
    /// Blocks for as long as the servers take. Holds neither engine nor change lock.
    pub fn run(self) -> SettledTrials {
        let TrialWork {
            paths,
            audit,
            clusters,
            busy,
        } = self;
        let settled = clusters.into_iter().map(|name| {
            let done = settle_one(&paths, &name, Verdict::Due, || audit.clone());
            (name, done)
        });
        SettledTrials {
            results: settled.collect(),
            busy,
        }
    }
}

/// Keeps or undoes what an apply has left of one cluster. Needs neither config nor ledger.
///
/// # Errors
/// Files that cannot be put back; a confirmation that comes too late.
pub fn settle_trial(paths: &Paths, name: &str, verdict: Verdict) -> Result<Settled, Failure> {
    settle_one(paths, name, verdict, || super::audit::open(paths))
}

fn settle_one(
    paths: &Paths,
    name: &str,
    verdict: Verdict,
    audit: impl FnOnce() -> Audit,
) -> Result<Settled, Failure> {
    if postgres::due(paths, name).is_none() && !postgres::note_of(paths, name).exists() {
        return Ok(Settled::Nothing {
            cluster: name.to_owned(),
        });
    }
    let _lock = lock_cluster(paths, name)?;
    match postgres::settle(paths, name, verdict) {
        Ok(settled) => {
            say_settled(&audit(), &settled, verdict);
            Ok(settled)
        }
        Err(error) => {
            if let PostgresError::TooLate { cluster, back_to, .. } = &error {
                say_too_late(&audit(), cluster, *back_to);
            }
            Err(error.into())
        }
    }
}

/// Waits until the deadline of one cluster's trial, or until somebody has settled it; then settles what is left.
///
/// # Errors
/// As for [`settle_trial`].
pub fn settle_when_due(paths: &Paths, name: &str) -> Result<Settled, Failure> {
    let folder = paths.postgres(name);
    let news = Inotify::init(InitFlags::IN_CLOEXEC).and_then(|news| {
        news.add_watch(&folder, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO)?;
        Ok(news)
    });
    while let Some(Some(deadline)) = postgres::due(paths, name) {
        let left = deadline.0.saturating_sub(Now::read().boot.0);
        let milliseconds = i32::try_from(left / 1_000_000 + 1).unwrap_or(i32::MAX);
        match &news {
            Ok(news) => {
                use std::os::fd::AsFd;
                let mut waits = [PollFd::new(news.as_fd(), PollFlags::POLLIN)];
                let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
                if poll(&mut waits, timeout).is_ok_and(|ready| ready > 0) {
                    let _seen = news.read_events();
                }
            }
            Err(_) => std::thread::sleep(Duration::from_nanos(left)),
        }
    }
    settle_trial(paths, name, Verdict::Due)
}

/// The clusters whose rules wait for their confirmation.
pub fn on_trial(paths: &Paths) -> Vec<OnTrial> {
    postgres::on_trial(paths)
}

/// Names of clusters that an apply has left something to do for.
pub fn unfinished(paths: &Paths) -> Vec<String> {
    postgres::unfinished(paths)
}

impl Engine {
    /// What is to be settled now, for whoever can wait for a server, and when to look again.
    pub(super) fn trials(&mut self) -> (Option<BootTime>, Option<TrialWork>) {
        let now = Now::read().boot;
        if Arc::strong_count(&self.trials.busy) > 1 {
            return (None, None);
        }
        let (mut next, mut due): (Option<BootTime>, Vec<String>) = (None, Vec::new());
        for name in postgres::unfinished(&self.paths) {
            let failed = self.trials.failed.get(&name).map(|(again, _, _)| *again);
            let at = match postgres::due(&self.paths, &name).flatten() {
                Some(deadline) => Some(deadline),
                None => failed.filter(|again| now < *again),
            };
            match at {
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => due.push(name),
            }
        }
        let work = (!due.is_empty()).then(|| TrialWork {
            paths: self.paths.clone(),
            audit: self.audit.clone(),
            clusters: due,
            busy: Arc::clone(&self.trials.busy),
        });
        (next, work)
    }

    /// Says what became of them, and when what failed is tried again.
    pub fn settle_trials(&mut self, settled: SettledTrials) {
        let SettledTrials { results, busy } = settled;
        for (cluster, result) in results {
            match result {
                Ok(outcome) => {
                    self.trials.failed.remove(&cluster);
                    match outcome {
                        Settled::Undone { overdue: true, .. } => {
                            tracing::warn!(cluster, "PostgreSQL's rules were not confirmed in time: undone");
                        }
                        Settled::Undone { notes, .. } => {
                            tracing::warn!(cluster, ?notes, "an apply that was cut off is undone");
                        }
                        Settled::Kept { generation, .. } => {
                            tracing::info!(cluster, generation, "an apply that was cut off is in force");
                        }
                        Settled::Nothing { .. } | Settled::Waits(_) => {}
                    }
                }
                Err(failure) => {
                    let times = self.trials.failed.get(&cluster).map_or(0, |(_, times, _)| *times);
                    let pause = (RETRY_NS << times.min(6)).min(LOOK_NS);
                    let again = BootTime(Now::read().boot.0.saturating_add(pause));
                    tracing::error!(cluster, "an apply is not settled: {failure}");
                    self.trials.failed.insert(cluster, (again, times + 1, failure));
                }
            }
        }
        drop(busy);
    }

    /// What a person should know of them.
    pub(super) fn trial_lines(&self) -> Vec<String> {
        let waiting = on_trial(&self.paths).into_iter().map(
            |OnTrial {
                 cluster,
                 generation: _,
                 until,
             }| {
                format!(
                    "PostgreSQL's rules of cluster {cluster} undo themselves at {}; keep them with `pgfw confirm`.",
                    until.rfc3339()
                )
            },
        );
        let failed = self.trials.failed.iter().map(|(cluster, (_, _, failure))| {
            let Failure {
                code: _,
                message,
                remedy,
            } = failure;
            format!("what an apply to cluster {cluster} has left is not settled: {message}. {remedy}")
        });
        waiting.chain(failed).collect()
    }
}
