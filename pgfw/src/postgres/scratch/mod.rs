//! A server of our own that tries a candidate before the live one sees it: same program, same user, the very files, in a
//! network namespace where every address is its own, with certificates of an authority that lives as long as the trial.
//!
//! It reads none of the live server's settings: one that did took over its `external_pid_file` and removed it.

mod network;
mod questions;
mod server;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use self::questions::{Expected, Question};
use self::server::{Kept, Refusal};
use super::stage::Generations;
use super::wire::Answer;
use super::{PostgresError, Server};
use crate::config::Config;
use crate::pki::Throwaway;

/// What a candidate was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tried {
    /// Attempts that had to get in, or be asked for a password.
    pub(super) admitted: usize,
    pub(super) refused: usize,
    /// What there was no time for.
    pub(super) left_out: usize,
}

/// Why a candidate was not tried, or must not be used.
#[derive(Debug)]
pub(super) enum Failed {
    /// The candidate is to blame.
    Candidate(PostgresError),
    /// This host could not have the server: says nothing about the candidate.
    Setup(String),
}

/// Starts a server on this generation's rules and asks it everything that the config says about logins.
///
/// # Errors
/// [`Failed::Candidate`]: the server does not take the rules, or answers otherwise than the config says.
pub(super) fn try_rules(
    config: &Config,
    server: &Server,
    generations: &Generations,
    generation: u32,
) -> Result<Tried, Failed> {
    // Namespaces belong to a thread, and so does the signal by which the server hears of our death.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| try_in_this_thread(config, server, generations, generation));
        thread
            .join()
            .unwrap_or_else(|_| Err(Failed::Setup("the thread panicked".to_owned())))
    })
}

fn try_in_this_thread(
    config: &Config,
    server: &Server,
    generations: &Generations,
    generation: u32,
) -> Result<Tried, Failed> {
    let setup = |what: &'static str| move |e: io::Error| Failed::Setup(format!("{what}: {e}"));
    network::enter().map_err(setup("no network namespace of its own"))?;
    let authority = Throwaway::new().map_err(Failed::Setup)?;
    let folder = generations.folder().join(FOLDER);
    let rules = generations.path(generation);
    let refused = |refusal| match refusal {
        Refusal::Rules(message) => Failed::Candidate(PostgresError::Refused {
            cluster: server.name.clone(),
            message,
        }),
        Refusal::Other(message) => Failed::Setup(message),
    };
    let kept = Kept::open(server, &folder).map_err(refused)?;
    let running = match kept.start(&rules, &authority) {
        // What is kept from earlier may be damaged, or another program's.
        Err(Refusal::Other(_)) => Kept::fresh(server, &folder)
            .and_then(|kept| kept.start(&rules, &authority))
            .map_err(refused)?,
        started => started.map_err(refused)?,
    };
    let outcome = ask_all(&questions::of(config), &authority, &server.name);
    running.stop();
    outcome
}

/// Asks in as many threads as the machine has processors, the most important first, for as long as there is time.
fn ask_all(questions: &[Question], authority: &Throwaway, cluster: &str) -> Result<Tried, Failed> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let until = Instant::now() + TIME_TO_ASK;
    let next = AtomicUsize::new(0);
    let tried = Mutex::new(Tried::default());
    let failed: Mutex<Option<Failed>> = Mutex::new(None);
    let work = || {
        while Instant::now() < until {
            let Some(question) = questions.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let asked = ask(question, authority, cluster);
            match asked {
                Ok(()) => {
                    let mut tried = tried.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match question.expected {
                        Expected::In | Expected::Password => tried.admitted += 1,
                        Expected::Out => tried.refused += 1,
                    }
                }
                Err(error) => {
                    let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    failed.get_or_insert(error);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(work);
        }
    });
    if let Some(failed) = failed
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        return Err(failed);
    }
    let mut tried = tried
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    tried.left_out = questions.len() - tried.admitted - tried.refused;
    Ok(tried)
}

fn ask(question: &Question, authority: &Throwaway, cluster: &str) -> Result<(), Failed> {
    let answer = question
        .ask(authority)
        .map_err(|e| Failed::Setup(format!("{question}: {e}")))?;
    let as_expected = match (question.expected, &answer) {
        (Expected::In, Answer::Ok) | (Expected::Password, Answer::Password(_)) => true,
        (Expected::Out, Answer::Refused { sqlstate, message: _ }) => sqlstate == INVALID_AUTHORIZATION,
        (Expected::In | Expected::Password | Expected::Out, _) => false,
    };
    if as_expected {
        return Ok(());
    }
    if let Answer::Refused { sqlstate, message } = &answer
        && sqlstate != INVALID_AUTHORIZATION
    {
        // Out of connections, of memory, of time: no rule's answer.
        return Err(Failed::Setup(format!("{question}: {message} ({sqlstate})")));
    }
    Err(Failed::Candidate(PostgresError::Refused {
        cluster: cluster.to_owned(),
        message: format!("{question} {}, and {}", question.expected, said(&answer)),
    }))
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Ok => "gets in".to_owned(),
        Answer::Password(_) => "is asked for a password".to_owned(),
        Answer::Other(code) => format!("is asked for authentication of kind {code}"),
        Answer::Refused { sqlstate: _, message } => format!("is refused ({message})"),
    }
}

/// Removes what is kept for the next trial.
pub(super) fn forget(folder: &Path) {
    // Of no use to anybody, and no secret.
    let _stays = std::fs::remove_dir_all(folder.join(FOLDER));
}

/// Beside the generations.
const FOLDER: &str = "scratch";

/// errcodes.txt: ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, of every refusal by a rule.
const INVALID_AUTHORIZATION: &str = "28000";

/// An apply is to take three seconds at most, and starting this server and asking the live one takes the other half.
const TIME_TO_ASK: Duration = Duration::from_millis(1_200);
