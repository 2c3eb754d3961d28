//! `pgfw allow`, `deny`, `remove`: single changes, each one table update in the kernel.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::{Context, output};
use crate::api::{AddEntry, Changed, RemoveEntry};
use crate::failure::{Code, Failure};
use crate::policy::Answer;

/// A network, and for how long.
#[derive(Debug, Args)]
struct Opening {
    /// The network, like 192.168.1.0/24; an address alone means that one host.
    #[arg(value_name = "CIDR")]
    net: String,
    /// Only for this service of pgfw.toml: `ssh`, a cluster's name, a service's name.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// End by itself after this time, like 2h or 30m.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Why, for those who read `pgfw list` later.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Undo it by itself after this time unless `pgfw confirm` comes first, like 60s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    confirm: Option<Duration>,
    /// Do it even where it would cut a live SSH session, a gateway, a resolver or the DHCP server.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Allow {
    #[command(flatten)]
    opening: Opening,
}

#[derive(Debug, Args)]
pub(super) struct Deny {
    #[command(flatten)]
    opening: Opening,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The network as `pgfw list` shows it.
    #[arg(value_name = "CIDR")]
    net: String,
    /// Only what was recorded for this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// End established connections from there too.
    #[arg(long)]
    cut: bool,
    /// Undo it by itself after this time unless `pgfw confirm` comes first, like 60s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    confirm: Option<Duration>,
    /// Do it even where it would cut a live SSH session, a gateway, a resolver or the DHCP server.
    #[arg(long)]
    force: bool,
}

impl Allow {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let request = self.opening.request(Answer::Allow)?;
        done(&context.client().post("/v1/entries", &request)?, context)
    }
}

impl Deny {
    /// What closes must not wait for a daemon: without one, root does it itself.
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let request = self.opening.request(Answer::Deny)?;
        let changed = match context.client().post("/v1/entries", &request) {
            Err(failure) if failure.code == Code::Unreachable => {
                context.require_root("deny")?;
                let mut engine = crate::ops::Engine::open(&context.paths)?;
                engine.add_entry(&request, &crate::ops::requester(nix::unistd::getuid().as_raw()))?
            }
            answered => answered?,
        };
        done(&changed, context)
    }
}

impl Remove {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Remove {
            net,
            service,
            cut,
            confirm,
            force,
        } = self;
        let request = RemoveEntry {
            net: network(&net)?,
            service,
            cut,
            confirm: confirm.map(|d| d.as_secs()),
            force,
        };
        done(&context.client().post("/v1/entries/remove", &request)?, context)
    }
}

impl Opening {
    fn request(self, answer: Answer) -> Result<AddEntry, Failure> {
        let Opening {
            net,
            service,
            duration,
            comment,
            confirm,
            force,
        } = self;
        let request = AddEntry {
            answer,
            net: network(&net)?,
            service,
            seconds: duration.map(|d| d.as_secs()),
            comment,
            confirm: confirm.map(|d| d.as_secs()),
            force,
        };
        // Also where no daemon answers that could refuse it.
        request.check()?;
        Ok(request)
    }
}

fn network(text: &str) -> Result<IpNet, Failure> {
    crate::config::parse_network(text).map_err(|(message, remedy)| Failure::invalid(message, remedy))
}

fn done(changed: &Changed, context: &Context) -> Result<ExitCode, Failure> {
    if context.json {
        output::json(changed);
    } else {
        for line in &changed.lines {
            println!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
