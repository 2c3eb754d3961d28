//! `cargo xtask demo`: the main job, on screen.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{shell, test};

/// Show pgfw at work in front of a real PostgreSQL, in a lab of network namespaces made for it.
///
/// Every step is checked; a wrong outcome ends the demo with an error.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the lab up and print how to get into it.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Need::Bpf, Need::Lab])?;
    let binary = test::build_pgfw()?;
    let mut demo = shell::cargo();
    demo.args(["run", "--quiet", "--package", "pgfw-tests", "--bin", "demo"])
        .args(test::runner(&binary, &[])?);
    demo.env("PGFW_BIN", &binary)
        .arg("--")
        .args(arguments.keep.then_some("--keep"));
    let status = demo.status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
