//! `pgfw ca rotate status`: how far a rotation is, and what it waits for.

use serde::Serialize;

use super::super::Engine;
use super::super::certificates::store;
use super::again;
use crate::clock::{Now, WallTime};
use crate::config::Config;
use crate::failure::Failure;
use crate::ledger::types::{Authority, Certificate};
use crate::paths::Paths;
use crate::pki::{self, AuthorityInfo, Phase, Store};

/// How one authority stands.
#[derive(Debug, Clone, Serialize)]
pub struct RotationStatus {
    pub authority: Authority,
    pub phase: &'static str,
    pub started: Option<WallTime>,
    pub generations: Vec<GenerationStatus>,
    /// Count nowhere any more.
    pub retired: Vec<u32>,
    /// Client certificates that the next step waits for.
    pub left: Vec<Left>,
    /// What is to be done.
    pub next: Vec<String>,
}

/// One generation that is there.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationStatus {
    #[serde(flatten)]
    pub info: AuthorityInfo,
    pub role: Role,
}

/// What a generation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Signs,
    /// What it signed counts; it signs nothing new.
    Counts,
    /// On its way out.
    Leaves,
}

/// A client certificate that is valid and in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    pub name: String,
    pub serial: String,
    pub until: WallTime,
    pub holder: Holder,
    /// A certificate of the same name that is not in the way; whether its client uses it nobody here knows.
    pub newer: Option<String>,
}

/// Who replaces a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// pgfw, which keeps it on this host.
    Kept,
    /// Whoever hands it to its client.
    Client,
}

/// Both authorities.
///
/// # Errors
/// A config, ledger or authority that cannot be read.
pub fn status(paths: &Paths) -> Result<Vec<RotationStatus>, Failure> {
    let engine = Engine::look(paths)?;
    Authority::ALL
        .into_iter()
        .map(|authority| of(&engine, authority))
        .collect()
}

pub(super) fn of(engine: &Engine, authority: Authority) -> Result<RotationStatus, Failure> {
    let config = engine.reach()?.config;
    let store = store(&config);
    let rotation = store.rotation(authority)?;
    let left = left(engine, &store, authority)?;
    let (phase, started) = match &rotation.phase {
        Phase::Settled { signs: _ } => ("settled", None),
        Phase::Introducing(change) => ("introducing", Some(change.started)),
        Phase::Overlap(change) => ("overlap", Some(change.started)),
        Phase::Dropping(leaving) => ("dropping", Some(leaving.started)),
    };
    Ok(RotationStatus {
        authority,
        phase,
        started,
        generations: generations(&store, authority)?,
        next: next(&config, &store, authority, &rotation.phase, &left),
        left,
        retired: rotation.retired,
    })
}

/// Every generation that is there.
///
/// # Errors
/// No authority; a folder or certificate that cannot be read.
pub fn generations(store: &Store, authority: Authority) -> Result<Vec<GenerationStatus>, Failure> {
    let rotation = store.rotation(authority)?;
    let signs = store.signing_generation(authority)?;
    let role = |generation| {
        if !rotation.counts(generation) {
            Role::Leaves
        } else if generation == signs {
            Role::Signs
        } else {
            Role::Counts
        }
    };
    let all = store.authorities(authority)?.into_iter();
    Ok(all
        .map(|info| GenerationStatus {
            role: role(info.generation),
            info,
        })
        .collect())
}

/// What the next step waits for.
pub(super) fn left(engine: &Engine, store: &Store, authority: Authority) -> Result<Vec<Left>, Failure> {
    match (authority, store.rotation(authority)?.phase) {
        (_, Phase::Settled { signs: _ }) => Ok(Vec::new()),
        (Authority::Client, Phase::Introducing(change) | Phase::Overlap(change)) => {
            holders_of(engine, store, change.old)
        }
        (Authority::Client, Phase::Dropping(leaving)) => holders_of(engine, store, leaving.gone),
        // Of the server authority it is roots that are handed out, with the certificates of clients.
        (Authority::Server, Phase::Introducing(change)) => {
            let all = engine.ledger().certificates()?;
            let now = Now::read().wall();
            let waits = |c: &&Certificate| {
                change.without.contains(&c.serial) && c.revoked.is_none() && now < c.not_after
            };
            let found = all.iter().filter(waits).cloned().collect();
            let newer =
                |c: &Certificate| c.authority == Authority::Client && !change.without.contains(&c.serial);
            Ok(said(&engine.reach()?.config, found, &all, newer, now))
        }
        (Authority::Server, Phase::Overlap(_) | Phase::Dropping(_)) => Ok(Vec::new()),
    }
}

/// Client certificates of one generation that are valid or will be.
pub(super) fn holders_of(engine: &Engine, store: &Store, generation: u32) -> Result<Vec<Left>, Failure> {
    let all = engine.ledger().certificates()?;
    let now = Now::read().wall();
    let found = pki::left_of(&all, Authority::Client, generation, now);
    let counting = store.counting(Authority::Client)?;
    let newer = |c: &Certificate| {
        c.authority == Authority::Client
            && c.authority_generation != generation
            && counting.contains(&c.authority_generation)
    };
    Ok(said(&engine.reach()?.config, found, &all, newer, now))
}

fn said(
    config: &Config,
    found: Vec<Certificate>,
    all: &[Certificate],
    newer: impl Fn(&Certificate) -> bool,
    now: WallTime,
) -> Vec<Left> {
    let kept = |name: &str| config.identity(name).is_some_and(|i| i.kept_for.is_some());
    found
        .into_iter()
        .map(|c| Left {
            holder: if kept(&c.name) {
                Holder::Kept
            } else {
                Holder::Client
            },
            newer: all
                .iter()
                .rfind(|other| other.name == c.name && newer(other) && other.valid_at(now))
                .map(|other| other.serial.clone()),
            name: c.name,
            serial: c.serial,
            until: c.not_after,
        })
        .collect()
}

fn next(config: &Config, store: &Store, authority: Authority, phase: &Phase, left: &[Left]) -> Vec<String> {
    let command = |verb| again(authority, verb);
    let mut lines = Vec::new();
    match (phase, authority) {
        (Phase::Settled { signs: _ }, _) => {}
        (Phase::Introducing(_), Authority::Client) => lines.push(format!(
            "`{}` goes on: the new generation signs once every server trusts it.",
            command("start")
        )),
        (Phase::Introducing(change), Authority::Server) => {
            if !left.is_empty() {
                lines.push(
                    "Give these clients a new bundle (`pgfw cert issue NAME --bundle DIR`): they know the old root alone."
                        .into(),
                );
            }
            lines.push(format!(
                "Clients without a certificate of pgfw's (passwords, other tools) need both {} and {} as sslrootcert.",
                store.root_file(authority, change.old).display(),
                store.root_file(authority, change.new).display()
            ));
            lines.push(
                "`pgfw ca rotate switch` then has servers serve what the new generation signs; `pgfw ca rotate abort server` \
                 takes that back."
                    .into(),
            );
        }
        (Phase::Overlap(_), Authority::Client) => {
            if left.iter().any(|l| l.newer.is_none()) {
                lines.push("Issue anew what has no newer one (`pgfw cert issue NAME`) and hand it over.".into());
            }
            lines.push(format!(
                "`{}` ends the overlap once none is left; with --force it revokes what is.",
                command("finish")
            ));
        }
        (Phase::Overlap(_), Authority::Server) => lines.push(format!(
            "`{}` ends the overlap: the old root is in no new bundle, and its key is destroyed. Until then `{}` goes back.",
            command("finish"),
            command("abort")
        )),
        (Phase::Dropping(leaving), _) => lines.push(format!(
            "It was cut off; `{}` goes on with it.",
            command(if leaving.given_up() { "abort" } else { "finish" })
        )),
    }
    if authority == Authority::Client && !phase.is_settled() && config.postgres.is_empty() {
        lines.push(
            "There is no cluster in pgfw.toml: whoever trusts this authority elsewhere is yours to tell."
                .into(),
        );
    }
    lines
}
