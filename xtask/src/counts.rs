//! `cargo xtask counts`: what the compiled programs are, in numbers that do not drift.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{shell, test};

const FILE: &str = "tests/counts.txt";

pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure(&[Need::Bpf, Need::Lab])?;
    let binary = test::build_pgfw()?;
    let mut counts = shell::cargo();
    counts
        .args(["test", "--quiet", "--package", "pgfw-tests", "--test", "prog"])
        .args(test::runner(&binary, &[RENEW])?)
        .env(RENEW.0, RENEW.1)
        .args(["--", "budget"]);
    shell::run_quietly(&mut counts)?;
    print!("{}", std::fs::read_to_string(shell::workspace().join(FILE))?);
    Ok(ExitCode::SUCCESS)
}

/// Makes the test write what it would compare.
const RENEW: (&str, &str) = ("PGFW_COUNTS", "renew");
