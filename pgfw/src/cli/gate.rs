//! `pgfw gate`: the listener at which a certificate opens an address.

use std::process::ExitCode;

use clap::Args;

use super::Context;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Gate {}

impl Gate {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let Gate {} = self;
        crate::gate::run(&context.paths)?;
        Ok(ExitCode::SUCCESS)
    }
}
