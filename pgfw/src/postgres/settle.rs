//! What becomes of an apply that was cut off, or that waits for its confirmation: it is kept, or everything goes back.

use std::fs;

use serde::{Deserialize, Serialize};

use super::pending::{OnTrial, Pending, State};
use super::settings::{CLIENT_CA, HBA, SERVER_CERT};
use super::stage::Generations;
use super::switch::Switch;
use super::{PostgresError, Running, Server, TlsMaterial, hba, prove, reload};
use crate::clock::Now;
use crate::fault::{Step, step};
use crate::paths::Paths;

/// What somebody wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody said: what was cut off is finished or undone, what is overdue is undone, what waits goes on waiting.
    Due,
    Keep,
    Undo,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Settled {
    /// There was nothing to do.
    Nothing {
        cluster: String,
    },
    Waits(OnTrial),
    /// It counts for good.
    Kept {
        cluster: String,
        generation: u32,
    },
    /// Everything is as it was before.
    Undone {
        cluster: String,
        generation: u32,
        /// `None`: what was there before pgfw.
        back_to: Option<u32>,
        /// It was undone at its deadline, or after one that passed while nobody looked.
        overdue: bool,
        /// What the server did not say.
        notes: Vec<String>,
    },
}

/// Looks after one cluster. Blocks, also for a server that does not answer; the caller holds the cluster's lock, and no
/// other. Needs no config: the note says whose files they are.
///
/// # Errors
/// A note that cannot be read; files that cannot be put back; a confirmation that comes too late.
pub fn settle(paths: &Paths, cluster: &str, verdict: Verdict) -> Result<Settled, PostgresError> {
    let folder = paths.postgres(cluster);
    let Some(note) = Pending::read(&folder)? else {
        return Ok(Settled::Nothing {
            cluster: cluster.to_owned(),
        });
    };
    let generations = Generations::at(&folder)?;
    let state = note.state(&Now::read());
    match (state, verdict) {
        (State::Waits, Verdict::Due) => match note.on_trial() {
            Some(trial) => Ok(Settled::Waits(trial)),
            None => undo(&generations, note, false),
        },
        (State::Waits, Verdict::Keep) => {
            if note.server.running().is_some() && !answers(&note.server, &generations, note.generation) {
                return Err(PostgresError::NotProven {
                    cluster: cluster.to_owned(),
                    message: "it does not answer by the rules that were tried".to_owned(),
                });
            }
            keep(&generations, note)
        }
        (State::Overdue, Verdict::Keep) => {
            let until = note.on_trial().map(|trial| trial.until.rfc3339());
            undo(&generations, note, true)?;
            Err(PostgresError::TooLate {
                cluster: cluster.to_owned(),
                until: until.unwrap_or_default(),
                back_to: generations.current(),
            })
        }
        // One that was to be confirmed cannot have been.
        (State::CutOff, Verdict::Due | Verdict::Keep) if note.trial.is_none() => {
            let in_force = generations.current() == Some(note.generation)
                && answers(&note.server, &generations, note.generation);
            if in_force {
                keep(&generations, note)
            } else {
                undo(&generations, note, false)
            }
        }
        (State::CutOff | State::Overdue | State::Waits, _) => {
            undo(&generations, note, state == State::Overdue)
        }
    }
}

/// Whether the server goes by this generation, as it says itself. One that is down says nothing.
pub(super) fn answers(server: &Server, generations: &Generations, generation: u32) -> bool {
    let Some(running) = server.running() else {
        return false;
    };
    let of_its_own = TlsMaterial {
        server_cert_pem: read(generations, generation, SERVER_CERT),
        server_key_pem: String::new(),
        client_ca_pem: read(generations, generation, CLIENT_CA),
        canary: None,
        crl_dir: generations.folder().join("crl"),
    };
    hba::marker_in(&read(generations, generation, HBA))
        .is_some_and(|marker| matches!(prove::marker_loaded(&running, marker), Ok(true)))
        && prove::served(&running, &of_its_own).is_ok()
}

fn keep(generations: &Generations, note: Pending) -> Result<Settled, PostgresError> {
    if note.server.running().is_some() {
        generations.mark_proven(note.generation)?;
        step(Step::ApplyMarked);
    }
    Pending::forget(generations)?;
    generations.prune(&[Some(note.generation), note.good, generations.proven()]);
    Ok(Settled::Kept {
        cluster: note.server.name,
        generation: note.generation,
    })
}

/// The note goes last: whatever is cut off here is done again.
fn undo(generations: &Generations, note: Pending, overdue: bool) -> Result<Settled, PostgresError> {
    let Pending {
        server,
        generation,
        good,
        undo,
        trial: _,
    } = note;
    Switch::noted(generations, undo).back()?;
    step(Step::UndoneFiles);
    let told = match server.running() {
        Some(running) => tell(&server, &running, generations, generation)?,
        None => Ok(()),
    };
    step(Step::UndoneTold);
    Pending::forget(generations)?;
    generations.prune(&[good, generations.current(), generations.proven()]);
    Ok(Settled::Undone {
        cluster: server.name,
        generation,
        back_to: generations.current(),
        overdue,
        notes: told.err().into_iter().collect(),
    })
}

/// Has the server read the files that are back, and waits until it does. What it does not say is told, and no reason to
/// begin again: it has been told.
fn tell(
    server: &Server,
    running: &Running,
    generations: &Generations,
    undone: u32,
) -> Result<Result<(), String>, PostgresError> {
    let before = prove::load_time(server, running);
    reload::reload(server, running)?;
    let former = generations.current().map(|g| read(generations, g, HBA));
    let former = former.as_deref().and_then(hba::marker_in);
    let gone = read(generations, undone, HBA);
    Ok(match (former, hba::marker_in(&gone)) {
        (Some(marker), _) => prove::await_marker(server, running, marker, before.as_deref()),
        (None, Some(marker)) => prove::await_gone(server, running, marker, before.as_deref()),
        (None, None) => Ok(()),
    })
}

fn read(generations: &Generations, generation: u32, name: &str) -> String {
    fs::read_to_string(generations.path(generation).join(name)).unwrap_or_default()
}
