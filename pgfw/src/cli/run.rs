//! `pgfw run`: the daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::Context;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// How long the very first enforcement stands before it must have been confirmed.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    probation: Duration,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Run { probation } = self;
        context.require_root("run")?;
        crate::daemon::run(&context.paths, probation)?;
        Ok(ExitCode::SUCCESS)
    }
}
