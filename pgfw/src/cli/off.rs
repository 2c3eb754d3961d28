//! `pgfw off`: detach everything, leave no pin.

use std::process::ExitCode;

use clap::Args;

use super::{Context, output};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Off {}

impl Off {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("off")?;
        let removed = match context.client().post("/v1/off", &serde_json::json!({})) {
            Ok(removed) => removed,
            // Whatever ails the daemon, this must work.
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
