//! `cargo xtask vm`: the tests of the datapath on every kernel that pgfw claims, in guests of QEMU.

mod archive;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod programs;
pub(crate) mod qemu;
mod report;
mod root;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::kernels::{LINES, Line};
use self::machine::{Accelerator, End, Machine};
use self::qemu::Qemu;
use self::report::{Guest, Matrix};
use self::root::Suites;
use crate::setup::{self, Need};
use crate::shell;

/// Run the tests of programs and devices inside guests with other kernels: 5.10, 6.1, 6.12, newest.
///
/// Kernels are Debian's, from the mirror that this machine uses, and kept under target/vm with what each guest
/// said. A run of all kernels and all tests writes docs/platforms.md. What a kernel lacks is shown by name and
/// counts neither as pass nor as failure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernels: 5.10, 6.1, 6.12, newest. Default: all of them.
    kernel: Vec<String>,
    /// Ask the archive for newer kernels of these lines.
    #[arg(long)]
    refresh: bool,
    /// Only tests whose name contains one of these, for example a case's number: -- f03.
    #[arg(last = true)]
    filter: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let lines = chosen(&arguments.kernel)?;
    setup::ensure(&[Need::Bpf, Need::Lab, Need::Machine])?;
    let qemu = Qemu::find().context("QEMU is missing, though it was just unpacked")?;
    let suites = Suites::build()?;
    let cache = cache();
    let mut kernels = Vec::new();
    for line in lines {
        kernels.push((line, line.fetch(&cache, arguments.refresh)?));
    }
    let Some((_, any)) = kernels.first() else {
        bail!("No kernel was asked for.");
    };
    let accelerator = Accelerator::probe(&qemu, any)?;
    let mut matrix = Matrix::default();
    for together in kernels.chunks(AT_ONCE) {
        // Those that are through wait for the slowest of their kind; none is slower than another by much.
        let guests = std::thread::scope(|scope| {
            let running: Vec<_> = together
                .iter()
                .map(|(line, kernel)| {
                    let machine = Machine {
                        qemu: &qemu,
                        accelerator,
                        kernel,
                        folder: cache.join(line.name),
                    };
                    let suites = &suites;
                    scope.spawn(move || guest(line.name, &machine, suites, &arguments.filter))
                })
                .collect();
            let joined = running.into_iter().map(|guest| match guest.join() {
                Ok(guest) => guest,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Result<Vec<Guest>>>()
        })?;
        matrix.guests.extend(guests);
    }
    println!("\n{}", matrix.table());
    if arguments.kernel.is_empty() && arguments.filter.is_empty() && matrix.good() {
        let file = shell::workspace().join("docs/platforms.md");
        let today = shell::ask("date", &["-u", "+%F"]).context("the date is unknown")?;
        std::fs::write(&file, matrix.document(today.trim()))?;
        println!("Written: docs/platforms.md");
    }
    println!("{}", matrix.last_line());
    Ok(if matrix.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A guest waits about half of its time, for timers of the tests and for grace periods of its kernel.
const AT_ONCE: usize = 2;

/// Runs one kernel's guest to its end.
fn guest(name: &str, machine: &Machine<'_>, suites: &Suites, filter: &[String]) -> Result<Guest> {
    let kernel = machine.kernel;
    let mut guest = Guest::new(name, &kernel.release);
    guest.lacks_modules(suites.write(kernel, filter, &machine.initramfs())?);
    println!("Linux {} ({}) …", kernel.release, machine.accelerator.name());
    let begun = std::time::Instant::now();
    let end = machine.run(|line| {
        if let Some(told) = guest.read(line) {
            println!("  Linux {}: {told}", kernel.release);
        }
    })?;
    guest.ended(match end {
        End::Done => None,
        End::Broken => Some("the guest broke"),
        End::Silent => Some("the guest was silent for too long and was ended"),
        End::TooLong => Some("the guest took too long and was ended"),
    });
    println!("  {} ({} s)", guest.summary(), begun.elapsed().as_secs());
    if !guest.good() {
        println!(
            "  What it said: {} and {}",
            machine.transcript().display(),
            machine.console().display()
        );
    }
    Ok(guest)
}

fn chosen(names: &[String]) -> Result<Vec<Line>> {
    if names.is_empty() {
        return Ok(LINES.to_vec());
    }
    let mut lines = Vec::new();
    for name in names {
        let Some(line) = Line::named(name) else {
            bail!(
                "There is no kernel {name} in the matrix: choose among {}.",
                LINES.map(|line| line.name).join(", ")
            );
        };
        lines.push(line);
    }
    Ok(lines)
}

fn cache() -> PathBuf {
    shell::workspace().join("target/vm")
}
