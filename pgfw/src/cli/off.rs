//! `pgfw off`: detach everything, leave no pin.

use std::process::ExitCode;

use clap::Args;

use super::{Context, output};
use crate::api;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Off {}

impl Off {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("off")?;
        let request = api::Off {
            bpffs: Some(context.paths.real_bpffs()),
        };
        let removed = match context.client().post("/v1/off", &request) {
            Ok(removed) => removed,
            // Whatever ails the daemon, this must work; also where it is the daemon of other pins that answers.
            Err(_) => crate::ops::off(&context.paths)?,
        };
        if context.json {
            output::json(&removed);
        } else {
            for line in &removed.lines {
                println!("{line}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
