//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, for a bounded time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::shell::{self, Root};
use crate::test;

/// Fuzz the decision, guided by coverage, beginning with tests/corpus.txt.
///
/// `decide` looks for broken promises of the host-side decision by itself; `agree` asks the compiled program, too, and
/// looks for a frame about which the two disagree (root). A finding is printed as hex, kept under
/// target/fuzz/findings, and is to become a row of tests/corpus.txt. What covers new code is kept under
/// target/fuzz/corpus and used by the next run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs, without the time it takes to build.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these targets.
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// Take what an earlier run has kept down to the fewest inputs that cover the same, and run nothing.
    #[arg(long)]
    minimize: bool,
}

/// Binaries of the package, the cheap one first.
const TARGETS: [&str; 2] = ["decide", "agree"];

/// The longest frame: an Ethernet frame at the usual MTU, with a tag.
const LONGEST: usize = 1518;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(&[Need::Bpf, Need::Lab, Need::Fuzz])?;
    let folder = shell::workspace().join("target/fuzz");
    let seeds = folder.join("seeds");
    write_seeds(&seeds)?;
    let binaries = build()?;
    let mut broken = Vec::new();
    for target in TARGETS {
        if !arguments.targets.is_empty() && !arguments.targets.iter().any(|named| named == target) {
            continue;
        }
        let binary = binaries.join(target);
        let good = if arguments.minimize {
            minimize(&binary, &folder, target)?
        } else {
            fuzz(&binary, &folder, target, arguments.seconds)?
        };
        if !good {
            broken.push(target);
        }
    }
    for target in &broken {
        println!("{target}: a finding; put its frame into tests/corpus.txt with what is right.");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn fuzz(binary: &Path, folder: &Path, target: &str, seconds: u64) -> Result<bool> {
    let corpus = folder.join("corpus").join(target);
    let findings = folder.join("findings");
    for made in [&corpus, &findings] {
        fs::create_dir_all(made).with_context(|| format!("{} cannot be made", made.display()))?;
    }
    println!("fuzz: {target}, {seconds} seconds");
    let mut command = program(binary, folder, target)?;
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/{target}-", findings.display()))
        .args(["-print_final_stats=1", "-verbosity=0", "-timeout=60"])
        .args([&corpus, &folder.join("seeds")]);
    Ok(command.status()?.success())
}

fn minimize(binary: &Path, folder: &Path, target: &str) -> Result<bool> {
    let corpus = folder.join("corpus").join(target);
    let fewest = folder.join("fewest").join(target);
    let _ = fs::remove_dir_all(&fewest);
    fs::create_dir_all(&fewest).with_context(|| format!("{} cannot be made", fewest.display()))?;
    let mut command = program(binary, folder, target)?;
    command.arg("-merge=1").args([&fewest, &corpus]);
    let good = command.status()?.success();
    if good {
        fs::remove_dir_all(&corpus)?;
        fs::rename(&fewest, &corpus)?;
        println!("{target}: what is left is in {}", corpus.display());
    }
    Ok(good)
}

/// The target as root where it needs that, with a folder of its own for what it makes: the engine ends it without
/// giving it time to clear up.
fn program(binary: &Path, folder: &Path, target: &str) -> Result<Command> {
    let scratch = folder.join("tmp");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).with_context(|| format!("{} cannot be made", scratch.display()))?;
    let mut command = if target == "agree" && shell::root() != Root::Already {
        test::need_root()?;
        let mut command = Command::new("sudo");
        command
            .arg("env")
            .arg(format!("TMPDIR={}", scratch.display()))
            .arg(binary);
        command
    } else {
        Command::new(binary)
    };
    command.env("TMPDIR", &scratch).current_dir(shell::workspace());
    Ok(command)
}

/// Builds the targets with what libFuzzer wants to know of a program's path; stable compilers can do that.
fn build() -> Result<PathBuf> {
    // Named, so that the flags are the targets' only and not those of build scripts and macros.
    let triple = host()?;
    let mut flags = ["--cfg", "fuzzing", "-Cpasses=sancov-module"]
        .map(str::to_owned)
        .to_vec();
    for option in ["level=4", "inline-8bit-counters", "pc-table", "trace-compares"] {
        flags.push(format!("-Cllvm-args=-sanitizer-coverage-{option}"));
    }
    println!("fuzz: building (minutes the first time) …");
    shell::run(
        shell::cargo()
            .args([
                "build",
                "--quiet",
                "--package",
                "pgfw-fuzz",
                "--bins",
                "--profile",
                "fuzz",
            ])
            .args(["--target", &triple])
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")),
    )?;
    Ok(shell::workspace().join("target").join(triple).join("fuzz"))
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = shell::ask(rustc, &["-vV"]).context("rustc does not say which machine this is")?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line
        .context("rustc does not say which machine this is")?
        .to_owned())
}

/// Every frame of the corpus as a file.
fn write_seeds(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let text = fs::read_to_string(shell::workspace().join("tests/corpus.txt"))
        .context("tests/corpus.txt cannot be read")?;
    for (number, frame) in frames(&text)? {
        fs::write(folder.join(format!("line-{number}")), frame)?;
    }
    Ok(())
}

/// The last column of each row, by line.
fn frames(text: &str) -> Result<Vec<(usize, Vec<u8>)>> {
    let rows = text.lines().enumerate().filter_map(|(index, line)| {
        let (before, hex) = line.rsplit_once('|')?;
        (!before.starts_with('#')).then_some((index + 1, hex.trim()))
    });
    rows.map(|(line, hex)| match bytes(hex) {
        Some(frame) => Ok((line, frame)),
        None => bail!("tests/corpus.txt:{line}: the last column is no hex."),
    })
    .collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_the_last_column() {
        let text = "# a | b | 00\n\nA SYN. | service@ssh | 00ff\nA ping. | udp, answer | 1a2B\n";
        assert_eq!(
            frames(text).unwrap(),
            [(3, vec![0x00, 0xff]), (4, vec![0x1a, 0x2b])]
        );
        for wrong in ["a | b | 0", "a | b | 0g", "a | b | é0"] {
            assert!(frames(wrong).is_err(), "{wrong}");
        }
    }
}
