//! Wakes when an answer changes by itself, or a deadline passes, and keeps ledger and tables tidy. Enforcement does
//! not wait for it: ends and deadlines are in the kernel.

use std::time::Duration;

use super::Shared;
use crate::clock::{BootTime, Now};
use crate::failure::Failure;
use crate::ops::{Engine, Round};

/// At the latest: what a command did without the daemon is found then, and both clocks are compared.
const ROUND: Duration = Duration::from_secs(60);

/// After a failure, so that a full disk does not fill the journal.
const RETRY: Duration = Duration::from_secs(5);

/// A keeper that has not gone round for so long hangs.
pub(super) const LATEST_ROUND: Duration = Duration::from_secs(3 * 60);

pub(super) async fn keep(shared: Shared) {
    let mut last = String::new();
    loop {
        let (next, failed) = match shared.engine_turn().await {
            Ok(Round {
                next,
                sessions,
                renewals,
                tellings,
                trials,
                failed,
            }) => {
                if let Some(work) = tellings {
                    tokio::spawn(beside(
                        shared.clone(),
                        move || work.run(),
                        |engine, ended| {
                            engine.settle_tellings(ended);
                            Ok(())
                        },
                    ));
                }
                if let Some(work) = sessions {
                    tokio::spawn(beside(
                        shared.clone(),
                        move || work.end(),
                        |engine, ended| engine.settle_sessions(ended),
                    ));
                }
                if let Some(work) = renewals {
                    tokio::spawn(beside(
                        shared.clone(),
                        move || work.run(),
                        |engine, ended| {
                            engine.settle_renewals(ended);
                            Ok(())
                        },
                    ));
                }
                if let Some(work) = trials {
                    tokio::spawn(beside(
                        shared.clone(),
                        move || work.run(),
                        |engine, ended| {
                            engine.settle_trials(ended);
                            Ok(())
                        },
                    ));
                }
                (next, failed)
            }
            Err(failure) => (None, Some(failure)),
        };
        let wait = match failed {
            None => {
                last.clear();
                next.map_or(ROUND, until).min(ROUND)
            }
            Some(failure) => {
                let text = failure.to_string();
                if text != last {
                    tracing::error!("{text}");
                    last = text;
                }
                RETRY
            }
        };
        shared.rounds.send_modify(|rounds| *rounds += 1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.changed.notified() => {}
        }
    }
}

/// Beside the rounds, since it waits for others; then the engine hears what became of it.
async fn beside<T: Send + 'static>(
    shared: Shared,
    work: impl FnOnce() -> T + Send + 'static,
    settle: impl FnOnce(&mut Engine, T) -> Result<(), Failure> + Send + 'static,
) {
    let settled = match shared.apart(work).await {
        Ok(ended) => shared.with(move |engine| settle(engine, ended)).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = settled {
        tracing::error!("{failure}");
    }
}

impl Shared {
    async fn engine_turn(&self) -> Result<Round, Failure> {
        let shared = self.clone();
        let round = move || {
            let round = shared.lock().round();
            super::memory::give_back();
            round
        };
        tokio::task::spawn_blocking(round)
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

fn until(at: BootTime) -> Duration {
    // A tick later than the end, so that the round finds it ended.
    Duration::from_nanos(at.0.saturating_sub(Now::read().boot.0)) + Duration::from_millis(20)
}
