//! `cargo xtask bench`: what pgfw costs, and what others cost.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::setup::{self, Need};
use crate::{shell, test};

/// Measure pgfw beside an empty program and beside what others use, in one run: medians over interleaved rounds.
///
/// Prints a table for each section. A missed target is said, and is no error; a missing peer is one.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer rounds and smaller sizes, to see that everything runs.
    #[arg(long)]
    quick: bool,
    /// Write every sample into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rewrite the measured sections of docs/cost.md.
    #[arg(long)]
    document: bool,
    /// Only these sections; a wrong name lists them.
    sections: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Need::Bpf, Need::Lab, Need::Peers])?;
    test::need_root()?;
    let binary = build_pgfw()?;
    let mut bench = shell::cargo();
    bench
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "pgfw-tests",
            "--bin",
            "bench",
        ])
        .args(test::runner(&binary, &[])?);
    bench.env("PGFW_BIN", &binary).arg("--");
    bench.args(arguments.quick.then_some("--quick"));
    if let Some(file) = &arguments.json {
        let file = std::path::absolute(file).context("this folder's path is unknown")?;
        bench.arg("--json").arg(file);
    }
    bench
        .args(arguments.document.then_some("--document"))
        .args(&arguments.sections);
    let status = bench.status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The product as it is shipped.
fn build_pgfw() -> Result<PathBuf> {
    shell::run(shell::cargo().args(["build", "--quiet", "--release", "--package", "pgfw"]))?;
    let own = std::env::current_exe().context("this program's own path is unknown")?;
    let target = own
        .ancestors()
        .nth(2)
        .context("this program is in no target folder")?;
    Ok(target.join("release/pgfw"))
}
