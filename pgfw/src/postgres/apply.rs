//! `pgfw pg apply`: render, write, switch, reload, prove; or put everything back.

use std::path::PathBuf;
use std::time::Duration;

use super::after;
use super::applied::{Applied, Step};
pub(super) use super::candidate::check;
use super::candidate::files;
use super::pending::{OnTrial, Pending, Trial};
use super::scratch::{self, Failed, Tried};
use super::settle::{Settled, Verdict, answers, settle};
use super::sql::Sql;
use super::stage::Generations;
use super::switch::{Edits, Live, Switch};
use super::{PostgresError, Running, Server, beforehand, prove, reload, settings};
use crate::config::{Cluster, Config, Manage};
use crate::failure::Failure;
use crate::fault::{self, step};
use crate::paths::Paths;

/// What a server needs for TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsMaterial {
    /// The leaf first, then what clients need to reach the authority they know.
    pub server_cert_pem: String,
    pub server_key_pem: String,
    /// Each client authority that is valid now, self-signed.
    pub client_ca_pem: String,
    /// A certificate of that authority which was revoked from birth, and its key: a server that takes it checks nothing.
    pub canary: Option<(String, String)>,
    /// Where CRLs are published; outside generations, since the server reads it at every handshake.
    pub crl_dir: PathBuf,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("crl_dir", &self.crl_dir)
            .finish_non_exhaustive()
    }
}

/// What an apply may go on over, and for how long it stands by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub edits: Edits,
    pub untried: Untried,
    /// Undone after that time unless it is confirmed by [`super::settle()`]; who looks at the deadline is the caller's to
    /// arrange.
    pub confirm: Option<Duration>,
}

/// What to do with rules that no server of our own can try on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untried {
    /// Refuse them, and name what is lacking.
    Refuse,
    /// Go on; the live server's proof and the way back remain.
    Allow,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            edits: Edits::Refuse,
            untried: Untried::Refuse,
            confirm: None,
        }
    }
}

/// Brings one cluster's files to the configuration. Blocks, also for a server that does not answer; the caller holds the
/// cluster's lock, and no other.
///
/// # Errors
/// [`PostgresError`]; the live files are then what they were, unless it says otherwise.
pub fn apply(
    cluster: &Cluster,
    config: &Config,
    paths: &Paths,
    material: &TlsMaterial,
    options: &Options,
) -> Result<Applied, PostgresError> {
    let Options {
        edits,
        untried,
        confirm,
    } = *options;
    let name = || cluster.name.clone();
    match (cluster.manage, confirm) {
        (Manage::None, _) => return Err(PostgresError::NotManaged { cluster: name() }),
        (Manage::Render, Some(_)) => return Err(PostgresError::RenderedOnTrial { cluster: name() }),
        (Manage::Render | Manage::Files, _) => {}
    }
    // What an earlier one has left.
    if let Settled::Waits(OnTrial { until, .. }) = settle(paths, &cluster.name, Verdict::Due)? {
        return Err(PostgresError::Waits {
            cluster: name(),
            until: until.rfc3339(),
        });
    }
    let server = Server::find(cluster)?;
    check(cluster, material, &server.owner)?;
    let state_dir = std::path::absolute(&paths.state_dir)
        .map_err(PostgresError::file("cannot find", &paths.state_dir))?;
    let generations = Generations::open(&state_dir, &paths.postgres(&cluster.name))?;
    let (files, marker) = files(cluster, config, &server, material, &generations.current_link())?;
    let live = Live::of(&server, &generations)?;
    let own = settings::of_server(cluster, &generations, &material.crl_dir)?;
    beforehand::check(cluster, &server, &live, &own)?;
    let before = generations.current();
    if edits == Edits::Refuse {
        live.check_links()?;
        if let Some(before) = before {
            generations.check_unedited(before)?;
        }
    }

    let mut applied = Applied {
        cluster: cluster.name.clone(),
        generation: before.unwrap_or(0),
        unchanged: before.is_some_and(|g| generations.holds(g, &files)),
        undoes_itself: None,
        steps: Vec::new(),
        pending_restart: Vec::new(),
        restart: after::restart(cluster),
        overridden: Vec::new(),
        missing_roles: Vec::new(),
        create_roles: Vec::new(),
        notes: Vec::new(),
    };
    if !applied.unchanged {
        applied.generation = generations.write(&files, &server.owner)?;
        applied.steps.push(Step::Written {
            directory: generations.path(applied.generation),
        });
        step(fault::Step::ApplyWritten);
    }
    generations.check_readable(applied.generation, &files, &server.owner)?;
    if cluster.manage == Manage::Render {
        if !applied.unchanged
            && let Err(error) = tried(config, &server, &generations, untried, &mut applied)
        {
            generations.prune(&[before]);
            return Err(error);
        }
        let link = generations.current_link();
        generations
            .choose(Some(applied.generation))
            .map_err(PostgresError::file("cannot switch", &link))?;
        applied.steps.push(Step::RenderedOnly);
        return Ok(applied);
    }

    let good = in_force(&server, &generations);
    let mut switch = Switch::resumed(&generations, good, &live)?;
    let mut note = Pending {
        server: server.clone(),
        generation: applied.generation,
        good,
        undo: Vec::new(),
        trial: confirm.map(Trial::of).transpose()?,
    };
    if !applied.unchanged
        && let Err(error) = tried(config, &server, &generations, untried, &mut applied)
    {
        // What an earlier one left unproven does not stay either.
        let error = put_back(&server, switch, Cause::Error(error), &generations);
        generations.prune(&[good, generations.current(), generations.proven()]);
        return Err(error);
    }
    let mut done = install(
        &mut switch,
        &mut note,
        &generations,
        &live,
        &marker,
        material,
        &mut applied,
    );
    if let (Ok(_), Some(time)) = (&done, confirm.filter(|_| !note.undo.is_empty())) {
        // The time to look at it begins now.
        if let Err(error) = stands_until(&mut note, time, &generations, &mut applied) {
            done = Err(Cause::Error(error));
        }
    }
    let proven = match done {
        Err(cause) => {
            let error = put_back(&server, switch, cause, &generations);
            generations.prune(&[good, generations.current(), generations.proven()]);
            return Err(error);
        }
        Ok(proven) => proven,
    };
    // It is in force: nothing from here on makes an error of it.
    let marked = if applied.undoes_itself.is_some() {
        Ok(())
    } else {
        in_force_for_good(&generations, applied.generation, proven.as_ref())
    };
    generations.prune(&[Some(applied.generation), good, generations.proven()]);
    let looked = proven.map_or(Ok(()), |running| {
        after::look_after(&server, &running, config, &live, &mut applied)
    });
    let failures = [
        ("the next apply proves it again", marked),
        (
            "what the server says about settings and roles is not known",
            looked,
        ),
    ];
    for (what, failed) in failures
        .into_iter()
        .filter_map(|(what, done)| Some((what, done.err()?)))
    {
        let Failure { message, remedy, .. } = failed.into();
        applied.notes.push(format!("{what}: {message}. {remedy}"));
    }
    applied.create_roles = applied
        .missing_roles
        .iter()
        .map(|role| after::create_role(config, role))
        .collect();
    Ok(applied)
}

/// Has a scratch server try the rules. Where this host cannot have one they are refused, unless that was asked for; it is
/// said then, and the live server's word remains.
fn tried(
    config: &Config,
    server: &Server,
    generations: &Generations,
    untried: Untried,
    applied: &mut Applied,
) -> Result<(), PostgresError> {
    match scratch::try_rules(config, server, generations, applied.generation) {
        Ok(Tried {
            admitted,
            refused,
            left_out,
        }) => applied.steps.push(Step::RulesTried {
            admitted,
            refused,
            left_out,
        }),
        Err(Failed::Candidate(error)) => return Err(error),
        Err(Failed::Setup(message)) => match untried {
            Untried::Refuse => {
                return Err(PostgresError::Untried {
                    cluster: server.name.clone(),
                    message,
                });
            }
            Untried::Allow => applied.notes.push(format!(
                "the rules were not tried on a server of their own: {message}"
            )),
        },
    }
    step(fault::Step::ApplyTried);
    Ok(())
}

/// It is on trial from now on.
fn stands_until(
    note: &mut Pending,
    time: Duration,
    generations: &Generations,
    applied: &mut Applied,
) -> Result<(), PostgresError> {
    let mut trial = Trial::of(time)?;
    trial.proven = true;
    applied.undoes_itself = Some(trial.until.rfc3339());
    note.trial = Some(trial);
    note.write(generations)
}

fn in_force_for_good(
    generations: &Generations,
    generation: u32,
    proven: Option<&Running>,
) -> Result<(), PostgresError> {
    if proven.is_some() {
        generations.mark_proven(generation)?;
    }
    step(fault::Step::ApplyMarked);
    Pending::forget(generations)
}

/// The generation to go back to. An apply that was cut off before its proof has left one that the server may refuse,
/// which would be fatal at its next start; only the server can tell.
fn in_force(server: &Server, generations: &Generations) -> Option<u32> {
    let current = generations.current()?;
    // A server that is down says nothing against it, and reads it at its next start.
    let stands = generations.proven() == Some(current)
        || server.running().is_none()
        || answers(server, generations, current);
    if stands {
        Some(current)
    } else {
        generations.proven()
    }
}

/// Why an installation has to be taken back.
enum Cause {
    Error(PostgresError),
    /// The server did not take it.
    NotTaken(String),
}

/// Puts the candidate in force. The server that was seen to go by it; `None`: it is down.
fn install(
    switch: &mut Switch,
    note: &mut Pending,
    generations: &Generations,
    live: &Live,
    marker: &str,
    material: &TlsMaterial,
    applied: &mut Applied,
) -> Result<Option<Running>, Cause> {
    let server = &note.server.clone();
    let running = server.running();
    let settled = applied.unchanged && live.in_place();
    if !settled {
        switch.plan(live).map_err(Cause::Error)?;
        note.undo.clone_from(&switch.undo);
        note.write(generations).map_err(Cause::Error)?;
        step(fault::Step::ApplyNoted);
        switch.forward(applied.generation, live).map_err(Cause::Error)?;
        applied.steps.push(Step::Switched);
        step(fault::Step::ApplySwitched);
        // What the server would say at its next start, said now.
        server.setting("ssl_cert_file").map_err(Cause::Error)?;
    }
    let Some(running) = running else {
        applied.steps.push(Step::AtNextStart);
        return Ok(None);
    };
    let proven = settled && matches!(prove::marker_loaded(&running, marker), Ok(true));
    let mut serial = if proven {
        prove::served(&running, material)
    } else {
        Err(String::new())
    };
    if serial.is_err() {
        let before = prove::load_time(server, &running);
        reload::reload(server, &running).map_err(Cause::Error)?;
        applied.steps.push(Step::Reloaded { pid: running.pid });
        step(fault::Step::ApplyTold);
        prove::await_marker(server, &running, marker, before.as_deref())
            .map_err(|message| Cause::NotTaken(with_reasons(server, &running, message)))?;
        serial = prove::served(&running, material);
    }
    applied.steps.push(Step::RulesProven {
        marker: marker.to_owned(),
    });
    applied.steps.push(match serial {
        Ok(Some(serial)) => Step::TlsProven { serial },
        Ok(None) => Step::NoTcp,
        Err(message) => return Err(Cause::NotTaken(with_reasons(server, &running, message))),
    });
    step(fault::Step::ApplyProven);
    Ok(Some(running))
}

/// Takes the switch back and has the server read the former files again.
fn put_back(server: &Server, switch: Switch, cause: Cause, generations: &Generations) -> PostgresError {
    let cluster = server.name.clone();
    let changed = switch.changed();
    let restored = switch.back().and_then(|()| match server.running() {
        Some(running) if changed => reload::reload(server, &running),
        Some(_) | None => Ok(()),
    });
    // Where that failed the note stays, and what is left to do with it.
    let restored = restored.and_then(|()| Pending::forget(generations));
    match (restored, cause) {
        (Ok(()), Cause::Error(error)) => error,
        (Ok(()), Cause::NotTaken(message)) if changed => PostgresError::PutBack { cluster, message },
        (Ok(()), Cause::NotTaken(message)) => PostgresError::NotProven { cluster, message },
        (Err(source), Cause::Error(error)) => PostgresError::Stuck {
            cluster,
            message: error.to_string(),
            source: Box::new(source),
        },
        (Err(source), Cause::NotTaken(message)) => PostgresError::Stuck {
            cluster,
            message,
            source: Box::new(source),
        },
    }
}

/// What the server finds wrong in the files that are in place.
pub(super) const COMPLAINTS: &str = "select 'pg_hba.conf line ' || line_number || ': ' || error from pg_hba_file_rules where error is not null \
     union all select 'pg_ident.conf line ' || line_number || ': ' || error from pg_ident_file_mappings where error is not null \
     union all select sourcefile || ' line ' || sourceline || ': ' || error from pg_file_settings \
     where error is not null and name is null";

/// Adds what the server itself says about the files that are in place.
pub(super) fn with_reasons(server: &Server, running: &Running, message: String) -> String {
    let reasons = Sql::connect_to(server, running).and_then(|sql| sql.column(COMPLAINTS, &[]));
    match reasons {
        Ok(reasons) if !reasons.is_empty() => format!("{message} ({})", reasons.join("; ")),
        Ok(_) | Err(_) => message,
    }
}
