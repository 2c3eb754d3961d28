//! `pgfw status`: the first line says whether this host is protected.

use std::process::ExitCode;

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
        for line in &status.attention {
            println!("! {line}");
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
        if status.state != State::Off {
            println!("  networks  {} open", status.networks_open);
        }
        for interface in &status.interfaces {
            println!(
                "  {:9} {}; {} passed, {} dropped",
                interface.name, interface.mode, interface.passed, interface.dropped
            );
            if self.verbose {
                for (reason, packets) in &interface.reasons {
                    println!("            {packets:>12} {reason}");
                }
            }
        }
        for service in &status.services {
            println!(
                "  {:9} {} passed, {} dropped",
                service.name, service.passed, service.dropped
            );
        }
        if self.verbose {
            println!("  programs  built by {}", status.compiler);
            for (about, choice) in &status.kernel {
                println!("  kernel    {about}: {choice}");
            }
        }
    }
}
