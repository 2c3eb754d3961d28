//! `pgfw ca rotate`: another generation of an authority takes the place of the one that is, with an overlap in which both
//! count.
//!
//! Whom clients trust and whom servers trust are two things, so the two authorities differ in what has to be known where
//! before the new one may sign. Servers are told by this host, and prove it: the client authority goes from "made" to
//! "signs" in one command. Clients are told by people, who take their time: the server authority waits in between, for
//! `switch`. On the way out both are the same: nothing goes by it any more, then what is left of it is revoked, then its
//! key is destroyed, and its lists go last, since a server that still trusted it would refuse its clients without one.
//!
//! Each step can be repeated, and a command that was cut off is gone on with by saying it again. No lock is held while a
//! server is waited for, but for the one that keeps two rotations apart.

mod servers;
mod status;
mod work;

pub use self::servers::ServerStep;
pub use self::status::{GenerationStatus, Holder, Left, Role, RotationStatus, generations, status};
use self::work::Rotating;
use super::revoke::Revoked;
use crate::failure::{Code, Failure};
use crate::fault::{Step, step};
use crate::ledger::types::Authority;
use crate::paths::Paths;
use crate::pki::{Phase, Which};

/// What a step of a rotation did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Rotated {
    pub servers: Vec<ServerStep>,
    /// What was revoked, and how far that came.
    pub revoked: Option<Revoked>,
    /// What could not be done and does not stand in the way.
    pub notes: Vec<String>,
    /// How things stand now.
    pub status: RotationStatus,
}

/// Makes another generation and has it trusted. Of the client authority it then signs; of the server authority
/// [`switch`] has it sign.
///
/// # Errors
/// No authority; a server that does not take it: the old one signs on then, and this can be said again.
pub fn start(paths: &Paths, authority: Authority, requester: &str) -> Result<Rotated, Failure> {
    let mut rotating = Rotating::new(paths, authority, requester)?;
    if let Phase::Dropping(leaving) = rotating.phase()? {
        return Err(rotating.leaves(&leaving));
    }
    rotating.introduce()?;
    step(Step::RotationMade);
    match authority {
        Authority::Client => {
            rotating.bring(&again(authority, "start"))?;
            step(Step::RotationTrusted);
            rotating.turn()?;
            step(Step::RotationSigns);
        }
        Authority::Server => {}
    }
    rotating.tend_kept()?;
    rotating.done()
}

/// Has the new generation of the server authority sign what servers serve.
///
/// # Errors
/// Clients that were given the old root alone, unless `force`; a server that does not take its certificate.
pub fn switch(paths: &Paths, force: bool, requester: &str) -> Result<Rotated, Failure> {
    let authority = Authority::Server;
    let mut rotating = Rotating::new(paths, authority, requester)?;
    match rotating.phase()? {
        Phase::Settled { signs: _ } => return Err(not_begun(authority)),
        Phase::Dropping(leaving) => return Err(rotating.leaves(&leaving)),
        Phase::Introducing(change) => {
            // Whoever holds the old root alone is known only once the new one is there.
            if !rotating
                .store()?
                .generations_there(authority)?
                .contains(&change.new)
            {
                return Err(Failure::refused(
                    format!(
                        "generation {} of the {authority} authority was not made yet",
                        change.new
                    ),
                    format!("Say `{}` again first.", again(authority, "start")),
                ));
            }
            let left = status::left(&rotating.engine, &rotating.store()?, authority)?;
            let by_people: Vec<&Left> = left.iter().filter(|l| l.holder == Holder::Client).collect();
            if !by_people.is_empty() && !force {
                return Err(Failure::refused(
                    format!(
                        "{} client certificate(s) were handed out with generation {} of the server authority alone: {}",
                        by_people.len(),
                        change.old,
                        named(&by_people)
                    ),
                    "Give those clients a new bundle (`pgfw cert issue NAME --bundle DIR`) and revoke the former serial, or \
                     say --force: with sslmode=verify-ca and verify-full they then refuse the server until they have one.",
                ));
            }
            rotating.tend_kept()?;
            if let Some(failure) = &rotating.engine.renewals.kept_failed {
                return Err(failure.clone());
            }
            rotating.turn()?;
            step(Step::RotationSigns);
        }
        Phase::Overlap(_) => {}
    }
    rotating.bring("pgfw ca rotate switch")?;
    rotating.tend_kept()?;
    rotating.done()
}

/// Ends the overlap: the old generation counts nowhere from here on.
///
/// # Errors
/// Certificates of it that are still valid, unless `force`, which revokes them; a server that goes by it still.
pub fn finish(paths: &Paths, authority: Authority, force: bool, requester: &str) -> Result<Rotated, Failure> {
    let mut rotating = Rotating::new(paths, authority, requester)?;
    match rotating.phase()? {
        Phase::Settled { signs: _ } => return Err(not_begun(authority)),
        Phase::Introducing(change) => {
            let next = match authority {
                Authority::Client => again(authority, "start"),
                Authority::Server => "pgfw ca rotate switch".to_owned(),
            };
            return Err(Failure::refused(
                format!(
                    "generation {} of the {authority} authority signs still: nothing could take its place",
                    change.old
                ),
                format!("Say `{next}` first."),
            ));
        }
        Phase::Overlap(change) => {
            rotating.nobody_left(change.old, force, "finish")?;
            rotating.drop_one(&change, Which::Old, force, "finish")?;
        }
        Phase::Dropping(leaving) if leaving.given_up() => return Err(rotating.leaves(&leaving)),
        Phase::Dropping(_) => {}
    }
    rotating.take_out("finish")
}

/// Gives a rotation up: the old generation signs, and the new one counts nowhere.
///
/// # Errors
/// Certificates of the new one that are valid, unless `force`, which revokes them; a server that goes by it still.
pub fn abort(paths: &Paths, authority: Authority, force: bool, requester: &str) -> Result<Rotated, Failure> {
    let mut rotating = Rotating::new(paths, authority, requester)?;
    match rotating.phase()? {
        Phase::Settled { signs: _ } => return Err(not_begun(authority)),
        Phase::Introducing(change) | Phase::Overlap(change) => {
            rotating.nobody_left(change.new, force, "abort")?;
            rotating.drop_one(&change, Which::New, force, "abort")?;
        }
        Phase::Dropping(leaving) if !leaving.given_up() => return Err(rotating.leaves(&leaving)),
        Phase::Dropping(_) => {}
    }
    rotating.take_out("abort")
}

fn not_begun(authority: Authority) -> Failure {
    Failure::new(
        Code::Refused,
        format!("the {authority} authority is not being rotated"),
        format!("Begin with `{}`.", again(authority, "start")),
    )
}

fn again(authority: Authority, verb: &str) -> String {
    format!("pgfw ca rotate {verb} {authority}")
}

/// `alice (0123…, until 2027-01-15T08:00:00Z)`; of many the first.
fn named(left: &[&Left]) -> String {
    const SHOWN: usize = 12;
    let mut all: Vec<String> = left
        .iter()
        .take(SHOWN)
        .map(|l| format!("{} ({}, until {})", l.name, l.serial, l.until.rfc3339()))
        .collect();
    if left.len() > SHOWN {
        all.push(format!(
            "and {} more in `pgfw ca rotate status`",
            left.len() - SHOWN
        ));
    }
    all.join(", ")
}
