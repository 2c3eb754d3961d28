//! Automation for pgfw. Every command sets up what it lacks; `cargo xtask COMMAND --help` explains it.

mod bench;
mod check;
mod counts;
mod demo;
mod fuzz;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a developer of pgfw runs, on a machine that has git, stable Rust and Debian's archive.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Arguments),
    Test(test::Arguments),
    Vm(vm::Arguments),
    /// Check the code without running it: formatting, clippy on every crate, documentation, systemd units.
    ///
    /// And what no other tool knows: every case of tests/CASES.md has a test or stands in
    /// tests/cases-to-come.txt, dependencies between modules point one way, no file is too long, unfinished
    /// or tied to one machine.
    Check,
    Demo(demo::Arguments),
    Bench(bench::Arguments),
    /// Rewrite tests/counts.txt: how many instructions the verifier follows in each program, on this kernel.
    ///
    /// A test compares; whoever changes a program on purpose says so by this.
    Counts,
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
        Command::Check => check::run(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Counts => counts::run(),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
