//! Wakes when an answer changes by itself, or a deadline passes, and keeps ledger and tables tidy. Enforcement does
//! not wait for it: ends and deadlines are in the kernel.

use std::time::Duration;

use super::Shared;
use crate::clock::{BootTime, Now};
use crate::ops::{RenewalWork, Round, SessionWork, TellingWork, TrialWork};

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
                    tokio::spawn(tell(shared.clone(), work));
                }
                if let Some(work) = sessions {
                    // Beside the rounds: a server may not answer.
                    tokio::spawn(end_sessions(shared.clone(), work));
                }
                if let Some(work) = renewals {
                    tokio::spawn(renew(shared.clone(), work));
                }
                if let Some(work) = trials {
                    tokio::spawn(settle(shared.clone(), work));
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

async fn end_sessions(shared: Shared, work: SessionWork) {
    let settled = match shared.apart(move || work.end()).await {
        Ok(ended) => shared.with(move |engine| engine.settle_sessions(ended)).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = settled {
        tracing::error!("{failure}");
    }
}

async fn renew(shared: Shared, work: RenewalWork) {
    let settled = match shared.apart(move || work.run()).await {
        Ok(ended) => {
            let settle = |engine: &mut crate::ops::Engine| {
                engine.settle_renewals(ended);
                Ok(())
            };
            shared.with(settle).await
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = settled {
        tracing::error!("{failure}");
    }
}

async fn tell(shared: Shared, work: TellingWork) {
    let settled = match shared.apart(move || work.run()).await {
        Ok(ended) => {
            let settle = |engine: &mut crate::ops::Engine| {
                engine.settle_tellings(ended);
                Ok(())
            };
            shared.with(settle).await
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = settled {
        tracing::error!("{failure}");
    }
}

async fn settle(shared: Shared, work: TrialWork) {
    let settled = match shared.apart(move || work.run()).await {
        Ok(settled) => {
            let settle = |engine: &mut crate::ops::Engine| {
                engine.settle_trials(settled);
                Ok(())
            };
            shared.with(settle).await
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = settled {
        tracing::error!("{failure}");
    }
}

impl Shared {
    async fn engine_turn(&self) -> Result<Round, crate::failure::Failure> {
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
