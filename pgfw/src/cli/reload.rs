//! `pgfw reload`, `confirm`, `rollback`: from one policy to the next, with a way back.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::follow::Followers;
use super::{Context, output, pg_trial, question};
use crate::api;
use crate::failure::Failure;
use crate::postgres::{Applied, Settled, Verdict};

const CONFIRM: &str = "/v1/confirm";
const ROLLBACK: &str = "/v1/rollback";

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Print what would open and close, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Undo the change by itself after this time unless `pgfw confirm` comes first, like 60s; asks nothing.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "yes")]
    confirm: Option<Duration>,
    /// Keep the change at once, without asking on a terminal.
    #[arg(long, short)]
    yes: bool,
    /// Do it even where it would cut a live SSH session, a gateway, a resolver or the DHCP server.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Confirm {}

#[derive(Debug, Args)]
pub(super) struct Rollback {}

impl Reload {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Reload {
            dry_run,
            confirm,
            yes,
            force,
        } = self;
        // A person who sits there can say whether it still works; a script and `systemctl reload` cannot.
        let asks = !dry_run && !yes && confirm.is_none() && !context.json && question::someone_is_there();
        let confirm = confirm.or_else(|| asks.then_some(question::PATIENCE));
        let request = api::Reload {
            dry_run,
            confirm: confirm.map(|d| d.as_secs()),
            force,
        };
        request.check()?;
        let mut followers = Followers::find(context)?;
        // A change that may be undone reaches the server with its confirmation.
        let follow = !dry_run && confirm.is_none() && !followers.is_empty();
        let server_first = follow && {
            let preview: api::Reloaded = context.client().post("/v1/reload", &dry(force))?;
            !preview.closes
        };
        if server_first {
            followers.apply().map_err(filter_is_as_before)?;
        }
        let done: api::Reloaded = context.client().post("/v1/reload", &request).map_err(|failure| {
            if followers.applied.iter().any(|applied| !applied.unchanged) {
                server_is_ahead(failure)
            } else {
                failure
            }
        })?;
        let followed = if follow && !server_first {
            followers.apply().map_err(filter_is_ahead)
        } else {
            Ok(())
        };
        let code = if done.complaints.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
        if context.json {
            output::json(&Outcome {
                done: &done,
                clusters: &followers.applied,
            });
            return followed.map(|()| code);
        }
        for line in &done.difference {
            println!("{line}");
        }
        let what = if done.difference.is_empty() {
            "No network opens or closes."
        } else {
            ""
        };
        match (dry_run, done.generation, &done.deadline) {
            (true, _, _) => println!(
                "{what}{}Nothing was changed (--dry-run).",
                if what.is_empty() { "" } else { " " }
            ),
            (false, Some(generation), None) => println!("Policy {generation} counts now."),
            (false, Some(generation), Some(_)) if asks => {
                println!("Policy {generation} counts now.");
                let path = if question::keep_it() { CONFIRM } else { ROLLBACK };
                let done: api::Changed = context.client().post(path, &serde_json::json!({}))?;
                // A terminal that hung up takes no line, which is no reason to fail.
                let _ = writeln!(std::io::stdout(), "{}", done.lines.join("\n"));
                if path == CONFIRM {
                    followers.apply().map_err(filter_is_ahead)?;
                }
                return Ok(code);
            }
            (false, Some(generation), Some(deadline)) => println!(
                "Policy {generation} counts until {deadline} and undoes itself then.\nKeep it with: pgfw confirm"
            ),
            (false, None, _) if followers.applied.iter().any(|applied| !applied.unchanged) => {
                println!("The filter goes by pgfw.toml already.")
            }
            (false, None, _) => println!("pgfw.toml is what counts already; nothing was changed."),
        }
        for complaint in &done.complaints {
            println!("! {complaint}");
        }
        if done.rules_change && !dry_run {
            if followers.is_empty() {
                println!("! PostgreSQL's rules are as before; bring them to the server with: pgfw pg apply");
            } else if done.deadline.is_some() {
                println!("! PostgreSQL's rules are as before; they follow with `pgfw confirm`");
            }
        }
        if done.rules_change && dry_run {
            println!("PostgreSQL's rules change as well; `pgfw pg plan` shows how.");
        }
        followed.map(|()| code)
    }
}

impl Confirm {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Confirm {} = self;
        if !decide(CONFIRM, Verdict::Keep, context)? {
            return Ok(ExitCode::SUCCESS);
        }
        // What was to be kept is kept, whatever has become of the file meanwhile.
        let by_the_file = context
            .client()
            .post::<api::Reloaded>("/v1/reload", &dry(false))
            .is_ok_and(|now| now.difference.is_empty());
        if by_the_file {
            Followers::find(context)?.apply().map_err(filter_is_ahead)?;
        } else {
            eprintln!(
                "! pgfw.toml is not what was confirmed: the servers follow with the next `pgfw reload`"
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Rollback {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Rollback {} = self;
        decide(ROLLBACK, Verdict::Undo, context)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The answer of the daemon, and what became of the servers.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    done: &'a api::Reloaded,
    clusters: &'a [Applied],
}

fn dry(force: bool) -> api::Reload {
    api::Reload {
        dry_run: true,
        confirm: None,
        force,
    }
}

fn filter_is_as_before(failure: Failure) -> Failure {
    Failure {
        message: format!("{}; nothing was opened", failure.message),
        ..failure
    }
}

fn filter_is_ahead(failure: Failure) -> Failure {
    Failure {
        message: format!(
            "the filter goes by the new policy, and PostgreSQL does not: {}",
            failure.message
        ),
        ..failure
    }
}

fn server_is_ahead(failure: Failure) -> Failure {
    Failure {
        message: format!(
            "PostgreSQL goes by pgfw.toml already, and the filter does not: {}",
            failure.message
        ),
        ..failure
    }
}

/// What a person said, about everything that waits: servers' rules, which need no daemon, and the filter's policy. Whether
/// a policy was among it.
fn decide(path: &str, verdict: Verdict, context: &Context) -> Result<bool, Failure> {
    let clusters = pg_trial::decide(context, verdict);
    let servers_only = match &clusters {
        Ok(clusters) if clusters.is_empty() => false,
        Ok(_) | Err(_) => {
            let status = context.client().get::<api::Status>("/v1/status");
            status.is_ok_and(|status| status.pending.is_none()) || !context.paths.socket.exists()
        }
    };
    let changed = if servers_only {
        None
    } else {
        Some(
            context
                .client()
                .post::<api::Changed>(path, &serde_json::json!({})),
        )
    };
    let clusters = clusters?;
    let changed = changed.transpose()?;
    if context.json {
        output::json(&Decided {
            changed: changed.as_ref(),
            clusters: &clusters,
        });
    } else {
        for line in changed.iter().flat_map(|changed| &changed.lines) {
            println!("{line}");
        }
    }
    Ok(changed.is_some())
}

/// The daemon's answer, and what became of servers' rules.
#[derive(Serialize)]
struct Decided<'a> {
    #[serde(flatten)]
    changed: Option<&'a api::Changed>,
    clusters: &'a [Settled],
}
