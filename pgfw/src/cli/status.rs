//! `pgfw status`: the first line says whether this host is protected.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Context, output};
use crate::api::{self, State};
use crate::failure::{Code, Failure};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Counters of every reason, how the programs were built, and what is done as this kernel can.
    #[arg(long, short)]
    verbose: bool,
}

impl Status {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let (status, code) = match context.client().get::<api::Status>("/v1/status") {
            // Enforcement does not need the daemon, and neither does root to look at it.
            Err(failure) if failure.code == Code::Unreachable && nix::unistd::geteuid().is_root() => {
                let status = crate::ops::status_without_daemon(&context.paths)?;
                (status, ExitCode::from(Code::Unreachable.exit_code()))
            }
            answered => (answered?, ExitCode::SUCCESS),
        };
        if context.json {
            output::json(&status);
        } else {
            self.print(&status);
        }
        Ok(code)
    }

    fn print(&self, status: &api::Status) {
        println!("{}", status.summary);
        let told = if self.verbose { usize::MAX } else { LINES };
        for line in status.attention.iter().take(told) {
            println!("! {line}");
        }
        if let Some(more @ 1..) = status.attention.len().checked_sub(told) {
            println!("! {more} more: pgfw status --verbose");
        }
        if let Some(pending) = &status.pending {
            println!(
                "  pending   policy {}, undone in {} s unless: pgfw confirm",
                pending.generation, pending.seconds
            );
        }
        match &status.daemon {
            Some(daemon) => println!("  daemon    pid {}, version {}", daemon.pid, daemon.version),
            None => println!("  daemon    not running"),
        }
        if let Some(policy) = &status.policy {
            let hash = policy
                .hash
                .as_deref()
                .map_or("unknown", |hash| &hash[..hash.len().min(12)]);
            let kept = if policy.confirmed {
                "confirmed"
            } else {
                "not confirmed yet"
            };
            let since = policy
                .since
                .as_deref()
                .map_or_else(String::new, |since| format!(", begun {since}"));
            println!("  policy    {}, {hash}, {kept}{since}", policy.generation);
        }
        for line in &status.unlogged {
            println!("  log       {line}");
        }
        if status.state != State::Off {
            println!("  networks  {} open", status.networks_open);
        }
        for interface in &status.interfaces {
            println!(
                "  {:9} {}; {} passed, {} dropped",
                interface.name, interface.mode, interface.passed, interface.dropped
            );
            if self.verbose {
                if let Some(about) = &interface.about {
                    println!("            {about}");
                }
                for (reason, packets) in &interface.reasons {
                    println!("            {packets:>12} {reason}");
                }
            }
        }
        for service in &status.services {
            let draining = match service.draining {
                0 => String::new(),
                n => format!("; {n} draining"),
            };
            println!(
                "  {:9} {} passed, {} dropped{draining}",
                service.name, service.passed, service.dropped
            );
        }
        for (n, drops) in status.drops.iter().take(MOST).enumerate() {
            let head = if n == 0 { "dropped" } else { "" };
            println!("  {head:9} {} {}: {}", drops.packets, drops.reason, drops.meaning);
        }
        for (n, ends) in status.ends.iter().enumerate() {
            let head = if n == 0 { "ends" } else { "" };
            let left = humantime::format_duration(Duration::from_secs(coarse(ends.seconds)));
            println!("  {head:9} {} in {left}, at {}", ends.what, ends.until);
        }
        if self.verbose {
            if let Some(api::TableMemory { used, all }) = status.tables {
                println!(
                    "  tables    {} KiB in use of {} KiB",
                    used.div_ceil(1_024),
                    all.div_ceil(1_024)
                );
            }
            println!("  programs  built by {}", status.compiler);
            for (about, choice) in &status.kernel {
                println!("  kernel    {about}: {choice}");
            }
        }
    }
}

/// So many lines of what needs attention, and of what is dropped most: all of it fits a screen.
const LINES: usize = 6;
const MOST: usize = 3;

/// Two hours are two hours, whatever the seconds.
fn coarse(seconds: u64) -> u64 {
    match seconds {
        0..120 => seconds,
        120..172_800 => seconds - seconds % 60,
        _ => seconds - seconds % 3_600,
    }
}
