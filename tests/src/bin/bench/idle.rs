//! What the daemon takes while nothing happens.

use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use pgfw_tests::lab::Daemon;

use crate::Options;
use crate::installed::Machine;
use crate::packet::length;
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::source::{Family, networks};

pub(crate) fn run(report: &mut Report, options: &Options) {
    let window = Duration::from_secs(options.pick(60, 20));
    let machines = [("10 entries", 10), ("100,000 entries", 100_000)].map(|(name, count)| {
        let machine = Machine::new("idle");
        let of = |family| networks(family, count / 2, length(family)).0;
        machine.allow(Family::BOTH.into_iter().flat_map(of));
        (name, machine)
    });
    let instances: Vec<_> = machines
        .iter()
        .map(|(name, machine)| (name, machine.pgfw()))
        .collect();
    let daemons: Vec<(&str, Daemon)> = instances
        .iter()
        .map(|(name, pgfw)| (**name, pgfw.enforce()))
        .collect();
    // What a start leaves to do is over by then.
    std::thread::sleep(Duration::from_secs(options.pick(10, 5)));
    let before: Vec<Duration> = daemons.iter().map(|(_, daemon)| spent(daemon)).collect();
    std::thread::sleep(window);
    let mut table = Table::new(
        "idle",
        "the daemon while nothing happens",
        "All of the daemon's threads over a minute in which nobody asks it for anything, both daemons at once. Resident \
         memory after that minute.",
    );
    for ((name, daemon), before) in daemons.iter().zip(before) {
        let share = (spent(daemon) - before).as_secs_f64() / window.as_secs_f64();
        let row = Row::new(
            format!("{name}: CPU a minute"),
            Unit::Seconds,
            Samples::one(share * 60.0),
        );
        table.row(row.at_most(0.1));
        let row = Row::new(
            format!("{name}: resident memory"),
            Unit::Mebibytes,
            Samples::one(memory(daemon, "VmRSS:")),
        );
        table.row(
            row.at_most(30.0)
                .beside(format!("at most {:.0} since it began", memory(daemon, "VmHWM:"))),
        );
    }
    report.add(table);
}

/// Processor time of a daemon so far.
fn spent(daemon: &Daemon) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(daemon.pid())).expect("a process has a clock");
    clock_gettime(clock).expect("that clock can be read").into()
}

/// A line of /proc/PID/status, in MiB.
fn memory(daemon: &Daemon, line: &str) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process's status");
    let number = status.lines().find_map(|found| {
        found
            .strip_prefix(line)?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    number.expect("the kernel tells it in KiB") / 1024.0
}
