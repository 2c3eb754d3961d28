//! Servers follow: those whose files pgfw writes are told and show it, the others are looked at.

use serde::Serialize;

use super::super::Engine;
use super::super::certificates::store;
use super::super::renewal::{issue_for, renew_server};
use crate::config::{Cluster, Manage};
use crate::failure::{Code, Failure};
use crate::ledger::types::Authority;
use crate::paths::Paths;
use crate::pki::{Phase, Store};
use crate::postgres::{self, Renewal, Seen};

/// What became of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStep {
    pub cluster: String,
    pub done: bool,
    /// How it is known, or what is to be done.
    pub said: String,
    /// A passphrase is all that lacks.
    #[serde(skip)]
    locked: bool,
}

/// Has every server go by what the rotation says now. What fails at one does not keep the others.
pub(super) fn bring(
    paths: &Paths,
    engine: &Engine,
    authority: Authority,
    requester: &str,
) -> Result<Vec<ServerStep>, Failure> {
    let reach = engine.reach()?;
    let store = store(&reach.config);
    let phase = store.rotation(authority)?.phase;
    let mut steps = Vec::new();
    for cluster in &reach.clusters {
        let done = match told(paths, cluster, authority, requester) {
            Ok(Some(said)) => Ok(said),
            Ok(None) => seen(paths, &store, cluster, authority, &phase),
            Err(Failure {
                code,
                message,
                remedy,
            }) => {
                steps.push(ServerStep {
                    locked: code == Code::Locked,
                    ..ServerStep::of(cluster, Err(format!("{message}. {remedy}")))
                });
                continue;
            }
        };
        steps.push(ServerStep::of(cluster, done));
    }
    Ok(steps)
}

/// Servers that somebody else tells, as they would stand in the way of a phase. Nothing is changed.
pub(super) fn others(
    paths: &Paths,
    engine: &Engine,
    authority: Authority,
    phase: &Phase,
) -> Result<Vec<ServerStep>, Failure> {
    let reach = engine.reach()?;
    let store = store(&reach.config);
    // What is rendered says it only once it is so.
    let others = reach.clusters.iter().filter(|c| !is_written(paths, c));
    Ok(others
        .map(|cluster| ServerStep::of(cluster, seen(paths, &store, cluster, authority, phase)))
        .collect())
}

/// # Errors
/// One that is not where it has to be.
pub(super) fn all_done(steps: &[ServerStep], again: &str) -> Result<(), Failure> {
    let mut waits = steps.iter().filter(|s| !s.done);
    let Some(first) = waits.next() else {
        return Ok(());
    };
    let mut said = format!("cluster {}: {}", first.cluster, first.said);
    for ServerStep {
        cluster,
        done: _,
        said: more,
        locked: _,
    } in waits
    {
        said.push_str(&format!(" Cluster {cluster}: {more}"));
    }
    // Whoever sits here may have it, and is asked.
    let all_locked = steps.iter().all(|s| s.done || s.locked);
    Err(Failure::new(
        if all_locked { Code::Locked } else { Code::Refused },
        said,
        format!("Nothing is refused meanwhile; then say `{again}` again, which goes on from here."),
    ))
}

impl ServerStep {
    fn of(cluster: &Cluster, done: Result<String, String>) -> ServerStep {
        let (done, said) = match done {
            Ok(said) => (true, said),
            Err(said) => (false, said),
        };
        ServerStep {
            cluster: cluster.name.clone(),
            done,
            said,
            locked: false,
        }
    }
}

/// Whether pgfw writes its files, and has done so.
fn is_written(paths: &Paths, cluster: &Cluster) -> bool {
    cluster.manage != Manage::None && postgres::standing(paths, &cluster.name).is_some()
}

/// Gives a server what it is to have. `None`: whether it has it is to be looked at.
fn told(
    paths: &Paths,
    cluster: &Cluster,
    authority: Authority,
    requester: &str,
) -> Result<Option<String>, Failure> {
    if authority == Authority::Server && cluster.server_files.is_some() {
        return Ok(Some(
            "it serves a certificate of somebody else's authority".into(),
        ));
    }
    if !is_written(paths, cluster) {
        if authority == Authority::Server {
            issue_for(paths, &cluster.name, requester)?;
        }
        return Ok(None);
    }
    if matches!(
        postgres::Server::find(cluster),
        Err(postgres::PostgresError::NoDataDirectory { .. })
    ) {
        return Ok(Some("there is no such cluster on this host any more".into()));
    }
    let said = match renew_server(paths, &cluster.name, requester)?.renewal {
        Renewal::Served { serial: _ } => "a handshake shows it",
        Renewal::NoTcp => "it listens on no TCP address, so it takes no certificate; its files are right",
        Renewal::AtNextStart => "it is down, and reads its files, which are right, at its next start",
        Renewal::RenderedOnly => return Ok(None),
    };
    Ok(Some(said.into()))
}

/// What a server of somebody else's shows. `Err`: what is to be done.
fn seen(
    paths: &Paths,
    store: &Store,
    cluster: &Cluster,
    authority: Authority,
    phase: &Phase,
) -> Result<String, String> {
    let there = store
        .generations_there(authority)
        .map_err(|error| Failure::from(error).to_string())?;
    if phase.gone().is_some_and(|gone| !there.contains(&gone)) {
        return Ok("there is nothing left of it to go by".into());
    }
    let shown = postgres::look(cluster).map_err(|error| Failure::from(error).to_string())?;
    let root = |generation| {
        store
            .root(authority, generation)
            .map_err(|error| Failure::from(error).to_string())
    };
    let what = match phase {
        Phase::Settled { signs: _ } => return Ok("nothing is asked of it".into()),
        Phase::Introducing(change) | Phase::Overlap(change) if authority == Authority::Client => {
            let trusts_old = shown.trusts(&root(change.old)?);
            match (trusts_old, shown.trusts(&root(change.new)?)) {
                (Some(false), _) | (_, Some(true)) => None,
                (Some(true) | None, Some(false) | None) => {
                    Some(format!("does not trust generation {}", change.new))
                }
            }
        }
        Phase::Introducing(change) => still_serves(&shown, &root(change.new)?, change.new),
        Phase::Overlap(change) => still_serves(&shown, &root(change.old)?, change.old),
        Phase::Dropping(leaving) => match authority {
            Authority::Client => match shown.trusts(&root(leaving.gone)?) {
                Some(false) => None,
                Some(true) | None => Some(format!("trusts generation {} still", leaving.gone)),
            },
            Authority::Server => still_serves(&shown, &root(leaving.gone)?, leaving.gone),
        },
    };
    match what {
        None if shown == Seen::Absent => Ok("there is no such cluster on this host".into()),
        None => Ok("a handshake shows it".into()),
        Some(_) if shown == Seen::Silent => Err(
            "its server does not answer over TLS, and its files are not pgfw's: start it, so that it can be looked at, or \
             take it out of pgfw.toml."
                .into(),
        ),
        Some(what) => Err(format!("its server {what}: {}", to_do(paths, store, cluster, authority))),
    }
}

fn still_serves(shown: &Seen, root: &str, generation: u32) -> Option<String> {
    match shown.serves_of(root) {
        Some(false) => None,
        Some(true) | None => Some(format!("serves a certificate of generation {generation} still")),
    }
}

fn to_do(paths: &Paths, store: &Store, cluster: &Cluster, authority: Authority) -> String {
    let folder = paths.postgres(&cluster.name);
    if is_written(paths, cluster) {
        return format!(
            "the files in {} are right; have the server read them (manage = \"render\").",
            folder.join("current").display()
        );
    }
    match authority {
        Authority::Client => format!(
            "have its ssl_ca_file hold {}, no more and no less, its ssl_crl_dir what is in {}, and reload it; pgfw does not \
             write its files.",
            store
                .counting(authority)
                .unwrap_or_default()
                .iter()
                .map(|n| store.root_file(authority, *n).display().to_string())
                .collect::<Vec<_>>()
                .join(" and "),
            folder.join("crl").display()
        ),
        Authority::Server => format!(
            "give it the certificate and key in {} and reload it; pgfw does not write its files.",
            store.server_link(&cluster.name).display()
        ),
    }
}
