//! An apply that undoes itself: who looks at its deadline with the daemon dead, and what a person says about it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Context;
use crate::clock::Now;
use crate::failure::Failure;
use crate::ops;
use crate::postgres::{OnTrial, Settled, Verdict};

/// Sees to it that a trial ends at its deadline whatever becomes of this command, its terminal and the daemon: a timer
/// of systemd's where that runs this host, else a process of its own. The daemon is told as well, and whoever comes
/// second finds nothing to do.
///
/// # Errors
/// Neither could be had. The trial is to be undone then.
pub(super) fn watch(context: &Context, cluster: &str, time: Duration) -> Result<(), Failure> {
    // It finds the note by itself within a minute.
    let _told: Result<serde_json::Value, Failure> =
        context.client().post("/v1/refresh", &serde_json::json!({}));
    if Path::new(SYSTEMD_RUNS).exists() && timer(context, cluster, time).is_ok_and(|status| status.success())
    {
        return Ok(());
    }
    process(context, cluster).map_err(|source| {
        Failure::refused(
            format!("nobody can be left to undo the apply to cluster `{cluster}` at its deadline: {source}"),
            "Apply it without --confirm, or let this host have one more process.",
        )
    })
}

/// systemd.special(7), sd_booted(3).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

fn timer(context: &Context, cluster: &str, time: Duration) -> std::io::Result<std::process::ExitStatus> {
    let mut command = Command::new("systemd-run");
    command
        .args(["--quiet", "--collect", "--timer-property=AccuracySec=100ms"])
        .arg(format!("--on-active={}s", time.as_secs()))
        // A name is taken for as long as its timer is: each trial has one of its own.
        .arg(format!("--unit=pgfw-undo-{cluster}-{}", Now::read().boot.0))
        .arg(format!(
            "--description=Undo an unconfirmed pgfw pg apply to {cluster}"
        ));
    settle(&mut command, context, cluster)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).status()
}

/// A process in a session of its own, so that no terminal takes it along.
fn process(context: &Context, cluster: &str) -> std::io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    settle(&mut command, context, cluster)?;
    command
        .arg("--wait")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: setsid(2) is async-signal-safe and takes nothing of this process's memory.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    command.spawn().map(drop)
}

/// Adds `pgfw pg settle CLUSTER`, for this instance; run by the timer as the program that is installed.
fn settle(command: &mut Command, context: &Context, cluster: &str) -> std::io::Result<()> {
    if command.get_program() == "systemd-run" {
        command.arg("--").arg(std::env::current_exe()?);
    }
    let paths = &context.paths;
    for (option, path) in [
        ("--config", &paths.config),
        ("--socket", &paths.socket),
        ("--state-dir", &paths.state_dir),
        ("--bpffs", &paths.bpffs),
    ] {
        command.arg(option).arg(std::path::absolute(path)?);
    }
    command.args(["pg", "settle", cluster]);
    Ok(())
}

/// Keeps or undoes every cluster's trial. What fails at one does not keep the others.
///
/// # Errors
/// The first that failed, after all were tried.
pub(super) fn decide(context: &Context, verdict: Verdict) -> Result<Vec<Settled>, Failure> {
    let waiting = if nix::unistd::geteuid().is_root() {
        ops::on_trial(&context.paths)
    } else {
        Vec::new()
    };
    let mut failed = None;
    let mut all = Vec::new();
    for OnTrial { cluster, .. } in waiting {
        match ops::settle_trial(&context.paths, &cluster, verdict) {
            Ok(settled) => {
                if !context.json {
                    print(&settled);
                }
                all.push(settled);
            }
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
    }
    failed.map_or(Ok(all), Err)
}

pub(super) fn print(settled: &Settled) {
    match settled {
        Settled::Nothing { cluster } => println!("{cluster}: nothing waits for a confirmation."),
        Settled::Waits(OnTrial {
            cluster,
            generation,
            until,
        }) => println!(
            "{cluster}: generation {generation} counts until {} and undoes itself then; keep it with: pgfw confirm",
            until.rfc3339()
        ),
        Settled::Kept { cluster, generation } => {
            println!("{cluster}: generation {generation} is kept.")
        }
        Settled::Undone {
            cluster,
            generation,
            back_to,
            overdue,
            notes,
        } => {
            let why = if *overdue {
                ", since nobody confirmed it"
            } else {
                ""
            };
            match back_to {
                Some(former) => println!(
                    "{cluster}: generation {generation} is undone{why}; generation {former} counts again."
                ),
                None => println!(
                    "{cluster}: generation {generation} is undone{why}; what was there before pgfw counts again."
                ),
            }
            for note in notes {
                println!("{cluster}: ! {note}");
            }
        }
    }
}
