//! `pgfw ca rotate start | switch | status | finish | abort`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use super::passphrase::Asked;
use super::{Context, output};
use crate::api::Changed;
use crate::failure::Failure;
use crate::ledger::types::Authority;
use crate::ops::rotation::{self, GenerationStatus, Holder, Left, Role, Rotated, RotationStatus, ServerStep};

#[derive(Debug, Subcommand)]
pub(super) enum Rotate {
    /// Make a new generation and have it known: nothing stops counting.
    Start {
        /// Default: both.
        #[arg(value_enum)]
        authority: Option<Which>,
    },
    /// Have servers serve what the new generation of the server authority signs; clients need both roots by then.
    Switch {
        /// Also while clients hold the old root alone: they refuse the server until they have a new bundle.
        #[arg(long)]
        force: bool,
    },
    /// How far it is, which certificates are in the way, and what is to be done.
    Status,
    /// End the overlap: the old generation counts nowhere from here on, and its key is destroyed.
    Finish {
        /// Default: each that is being rotated.
        #[arg(value_enum)]
        authority: Option<Which>,
        /// Revoke the certificates of the old generation that are valid still.
        #[arg(long)]
        force: bool,
    },
    /// Give it up: the old generation signs as before, and the new one counts nowhere.
    Abort {
        /// Default: each that is being rotated.
        #[arg(value_enum)]
        authority: Option<Which>,
        /// Revoke the certificates that the new generation has issued.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Which {
    Server,
    Client,
}

impl From<Which> for Authority {
    fn from(which: Which) -> Self {
        match which {
            Which::Server => Authority::Server,
            Which::Client => Authority::Client,
        }
    }
}

impl Rotate {
    pub(super) fn run(self, context: &Context, who: &str) -> Result<ExitCode, Failure> {
        let paths = &context.paths;
        match self {
            Rotate::Status => {
                let all = rotation::status(paths)?;
                if context.json {
                    output::json(&all);
                } else {
                    all.iter().for_each(print);
                }
                Ok(ExitCode::SUCCESS)
            }
            Rotate::Start { authority } => {
                let meant = authority.map_or_else(|| Authority::ALL.to_vec(), |one| vec![one.into()]);
                each(context, &meant, |one| rotation::start(paths, one, who))
            }
            Rotate::Switch { force } => each(context, &[Authority::Server], |_| {
                rotation::switch(paths, force, who)
            }),
            Rotate::Finish { authority, force } => each(context, &rotating(context, authority)?, |one| {
                rotation::finish(paths, one, force, who)
            }),
            Rotate::Abort { authority, force } => each(context, &rotating(context, authority)?, |one| {
                rotation::abort(paths, one, force, who)
            }),
        }
    }
}

/// The one that is named, else each that is being rotated.
fn rotating(context: &Context, named: Option<Which>) -> Result<Vec<Authority>, Failure> {
    if let Some(one) = named {
        return Ok(vec![one.into()]);
    }
    let all = rotation::status(&context.paths)?;
    let meant: Vec<Authority> = all
        .iter()
        .filter(|s| s.started.is_some())
        .map(|s| s.authority)
        .collect();
    if meant.is_empty() {
        return Err(Failure::refused(
            "no authority is being rotated",
            "Begin with `pgfw ca rotate start client`, or `server`.",
        ));
    }
    Ok(meant)
}

/// What fails at one does not keep the other.
fn each(
    context: &Context,
    meant: &[Authority],
    act: impl Fn(Authority) -> Result<Rotated, Failure>,
) -> Result<ExitCode, Failure> {
    let mut all = Vec::new();
    let mut failed = None;
    for authority in meant {
        match context.unlocked(Asked::Once, || act(*authority)) {
            Ok(rotated) => {
                if !context.json {
                    print_rotated(&rotated);
                }
                all.push(rotated);
            }
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    output::failure(&earlier, context.json);
                }
            }
        }
    }
    // A daemon that runs tells programs of what is new for them; one that does not will when it starts.
    let _changed = context.client().post::<Changed>("/v1/refresh", &());
    if context.json && !all.is_empty() {
        output::json(&all);
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn print_rotated(rotated: &Rotated) {
    let Rotated {
        servers,
        revoked,
        notes,
        status,
    } = rotated;
    print(status);
    for ServerStep {
        cluster,
        done: _,
        said,
        ..
    } in servers
    {
        println!("  cluster {cluster}: {said}");
    }
    if let Some(revoked) = revoked {
        for (serial, name) in &revoked.certificates {
            println!("  revoked {name}, serial {serial}");
        }
        for layer in &revoked.layers {
            println!("  {:12} {} ({} ms)", layer.name, layer.what, layer.milliseconds);
        }
        for line in &revoked.notes {
            println!("! {line}");
        }
    }
    for line in notes {
        println!("! {line}");
    }
}

fn print(status: &RotationStatus) {
    let RotationStatus {
        authority,
        phase,
        started,
        generations,
        retired,
        left,
        next,
    } = status;
    match started {
        Some(started) => println!("{authority} authority: {phase}, since {}", started.rfc3339()),
        None => println!("{authority} authority: {phase}"),
    }
    for GenerationStatus { info, role } in generations {
        println!(
            "  generation {}  {}, {}",
            info.generation,
            info.subject_dn,
            words(*role)
        );
    }
    for generation in retired {
        println!("  generation {generation}  retired, counts nowhere");
    }
    if !left.is_empty() {
        println!("  in the way of the next step:");
        let rows = left.iter().map(|one| {
            let Left {
                name,
                serial,
                until,
                holder,
                newer,
            } = one;
            let newer = newer.clone().unwrap_or_else(|| "none".into());
            vec![
                name.clone(),
                serial.clone(),
                until.rfc3339(),
                match holder {
                    Holder::Kept => "pgfw, on this host".into(),
                    Holder::Client => "its client".into(),
                },
                newer,
            ]
        });
        output::table(&["name", "serial", "valid until", "held by", "newer"], rows);
    }
    for line in next {
        println!("  {line}");
    }
}

/// What a generation does.
pub(super) const fn words(role: Role) -> &'static str {
    match role {
        Role::Signs => "signs",
        Role::Counts => "counts, signs nothing new",
        Role::Leaves => "counts nowhere, on its way out",
    }
}
