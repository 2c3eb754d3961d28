//! `cargo xtask test`: every test, and one line at the end that counts them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::shell::{self, Root};

/// Run every test: pure, program (BPF_PROG_TEST_RUN), network, database, system.
///
/// Those beyond the pure ones need root; without it, sudo is used when a person is there to answer it.
/// The last line printed is `N passed, N failed`. A run that finds no test fails, and so does one
/// that leaves a test out.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains one of these, for example a case's number: f09.
    filter: Vec<String>,
    /// Only the tests that need no root.
    #[arg(long)]
    pure: bool,
    /// Have the tests that draw from a seed draw for minutes: 100,000 logins are compared with real servers.
    #[arg(long, conflicts_with = "pure")]
    long: bool,
}

const PURE: [&str; 4] = ["pgfw-common", "pgfw-hba", "pgfw", "xtask"];
/// What tests that draw from a seed look at to draw longer.
const LONG: &str = "PGFW_LONG";
/// Where the servers of other major versions are, and the seed to repeat.
const HANDED_ON: [&str; 2] = ["PGFW_SERVERS", "PGFW_SEED"];
const ROOT: &str = "pgfw-tests";

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(if arguments.pure {
        &[Need::Bpf]
    } else {
        &[Need::Bpf, Need::Lab, Need::Majors]
    })?;
    if !arguments.pure {
        need_root()?;
    }
    let mut tally = Tally::default();

    let mut pure = shell::cargo();
    pure.args(["test", "--no-fail-fast"])
        .args(PURE.iter().flat_map(|name| ["--package", name]));
    tally.count(pure.arg("--").args(&arguments.filter))?;

    if !arguments.pure {
        match build_pgfw() {
            Ok(binary) => {
                let mut root = shell::cargo();
                root.args(["test", "--no-fail-fast", "--package", ROOT])
                    .env("PGFW_BIN", &binary);
                let handed = HANDED_ON
                    .iter()
                    .filter_map(|key| Some((*key, std::env::var(key).ok()?)));
                let mut more: Vec<(&str, String)> = handed.collect();
                more.extend(arguments.long.then(|| (LONG, "1".to_owned())));
                root.envs(more.iter().cloned());
                let more: Vec<(&str, &str)> =
                    more.iter().map(|(key, value)| (*key, value.as_str())).collect();
                root.args(runner(&binary, &more)?);
                // A lab takes memory and both cores: more of them at once only wait for each other.
                tally.count(root.args(["--", "--test-threads", "2"]).args(&arguments.filter))?;
            }
            Err(error) => tally.fail(format!("{ROOT}, since pgfw does not build: {error:#}")),
        }
    }
    Ok(tally.close())
}

/// Builds the product and says where it is: beside this very program.
pub(crate) fn build_pgfw() -> Result<PathBuf> {
    shell::run(shell::cargo().args(["build", "--quiet", "--package", "pgfw"]))?;
    let own = std::env::current_exe().context("this program's own path is unknown")?;
    Ok(own.with_file_name("pgfw"))
}

pub(crate) fn need_root() -> Result<()> {
    if shell::root() == Root::Unavailable {
        bail!(
            "The lab makes network namespaces and loads programs: run this as root (`--pure` tests do without)."
        );
    }
    Ok(())
}

/// What makes cargo run a binary of the tests as root, while everything is still built by this user. sudo takes the
/// environment away: what of it has to be there is named.
pub(crate) fn runner(binary: &Path, more: &[(&str, &str)]) -> Result<Vec<String>> {
    need_root()?;
    match shell::root() {
        Root::Already | Root::Unavailable => Ok(Vec::new()),
        Root::Sudo => {
            let more = more.iter().map(|(key, value)| format!("'{key}={value}'"));
            let settings = std::iter::once(format!("'PGFW_BIN={}'", binary.display())).chain(more);
            let settings: Vec<String> = settings.collect();
            Ok(vec![
                "--config".into(),
                format!(
                    "target.'cfg(all())'.runner = ['sudo', 'env', {}]",
                    settings.join(", ")
                ),
            ])
        }
    }
}

/// What the test binaries said, summed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Names of failed tests, and of what broke without naming a test.
    failures: Vec<String>,
}

impl Tally {
    fn count(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cargo cannot be started")?;
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let before = self.failed;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            self.read(&line);
        }
        let status = child.wait()?;
        if !status.success() && self.failed == before {
            // It did not compile, or a test binary died before it could count.
            self.fail(format!("cargo test ({status}), without naming a test"));
        }
        Ok(())
    }

    /// Counts what went wrong outside a test.
    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// One line of libtest's output.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let words: Vec<&str> = counts
                .split([' ', ';', '.'])
                .filter(|word| !word.is_empty())
                .collect();
            for pair in words.windows(2) {
                let Ok(number) = pair[0].parse::<u64>() else {
                    continue;
                };
                match pair[1] {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    fn close(self) -> ExitCode {
        println!();
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        if self.ignored > 0 {
            println!(
                "{} tests were left out: a test that cannot run must fail.",
                self.ignored
            );
        }
        if self.passed + self.failed == 0 {
            println!("No test has that name.");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.good() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn good(&self) -> bool {
        self.passed > 0 && self.failed == 0 && self.ignored == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let tally = read(&[
            "running 3 tests",
            "test a::one ... ok",
            "test a::two ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]);
        assert_eq!((tally.passed, tally.failed, tally.ignored), (42, 1, 0));
        assert_eq!(tally.failures, ["a::two"]);
        assert!(!tally.good());
    }

    #[test]
    fn nothing_run_and_something_left_out_are_no_success() {
        assert!(
            !read(&["test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out"]).good()
        );
        assert!(
            !read(&["test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"]).good()
        );
        assert!(read(&["test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"]).good());
    }

    #[test]
    fn a_run_that_dies_without_counting_is_a_failure() {
        let mut tally = Tally::default();
        tally.count(&mut Command::new("false")).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
}
