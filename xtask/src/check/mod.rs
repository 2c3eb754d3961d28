//! `cargo xtask check`: all that can be said about the code without running it.

mod cases;
mod conformance;
mod layers;
mod sources;
mod units;

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::setup::{self, Need};
use crate::shell;
use sources::Sources;

pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure(&[Need::Check])?;
    let mut report = Report::default();

    report.command(
        "formatting (`cargo fmt --all` mends these)",
        shell::cargo().args(["fmt", "--all", "--check", "--", "-l"]),
    );
    report.command(
        "clippy on every crate",
        shell::cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    );
    report.command(
        "clippy with the feature `log`",
        shell::cargo().args([
            "clippy",
            "--quiet",
            "--package",
            "pgfw",
            "--package",
            "pgfw-ebpf",
            "--features",
            "pgfw/log,pgfw-ebpf/log",
            "--",
            "--deny",
            "warnings",
        ]),
    );
    report.command(
        "documentation",
        shell::cargo()
            .args([
                "doc",
                "--quiet",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    );
    let sources = Sources::read()?;
    report.findings(
        "every case has a test or is listed as to come",
        cases::findings(&sources)?,
    );
    report.findings(
        "docs/conformance.md names tests that exist",
        conformance::findings(&sources)?,
    );
    report.findings(
        "dependencies between modules point one way",
        layers::findings(&sources),
    );
    report.findings(
        "files are short, finished and free of machine paths",
        sources.findings(),
    );
    report.findings("systemd accepts the units", units::findings()?);
    Ok(report.close())
}

/// Goes through all checks, so that one run shows all there is to mend.
#[derive(Debug, Default)]
struct Report {
    failed: Vec<&'static str>,
    total: usize,
}

impl Report {
    fn command(&mut self, what: &'static str, command: &mut Command) {
        println!("check: {what}");
        let outcome = shell::run(command);
        self.note(what, outcome.is_ok());
    }

    fn findings(&mut self, what: &'static str, findings: Vec<String>) {
        println!("check: {what}");
        for finding in &findings {
            println!("  {finding}");
        }
        self.note(what, findings.is_empty());
    }

    fn note(&mut self, what: &'static str, good: bool) {
        self.total += 1;
        if !good {
            self.failed.push(what);
        }
    }

    fn close(self) -> ExitCode {
        for what in &self.failed {
            println!("not right: {what}");
        }
        println!(
            "{} of {} checks passed",
            self.total - self.failed.len(),
            self.total
        );
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
