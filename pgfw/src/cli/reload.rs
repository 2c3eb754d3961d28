//! `pgfw reload`, `confirm`, `rollback`: from one policy to the next, with a way back.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Context, output, question};
use crate::api;
use crate::failure::Failure;

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
        let done: api::Reloaded = context.client().post("/v1/reload", &request)?;
        let code = if done.complaints.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
        if context.json {
            output::json(&done);
            return Ok(code);
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
                let path = if question::keep_it() {
                    "/v1/confirm"
                } else {
                    "/v1/rollback"
                };
                let done: api::Changed = context.client().post(path, &serde_json::json!({}))?;
                // A terminal that hung up takes no line, which is no reason to fail.
                let _ = writeln!(std::io::stdout(), "{}", done.lines.join("\n"));
                return Ok(code);
            }
            (false, Some(generation), Some(deadline)) => println!(
                "Policy {generation} counts until {deadline} and undoes itself then.\nKeep it with: pgfw confirm"
            ),
            (false, None, _) => println!("pgfw.toml is what counts already; nothing was changed."),
        }
        for complaint in &done.complaints {
            println!("! {complaint}");
        }
        Ok(code)
    }
}

impl Confirm {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Confirm {} = self;
        changed("/v1/confirm", context)
    }
}

impl Rollback {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Rollback {} = self;
        changed("/v1/rollback", context)
    }
}

fn changed(path: &str, context: &Context) -> Result<ExitCode, Failure> {
    let changed: api::Changed = context.client().post(path, &serde_json::json!({}))?;
    if context.json {
        output::json(&changed);
    } else {
        for line in &changed.lines {
            println!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
