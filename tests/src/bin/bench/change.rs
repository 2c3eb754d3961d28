//! Changes: from the command to the kernel, and what loading and removing a large policy does.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pgfw::datapath::{Choice, Control};
use pgfw::policy::coverage::Compiled;
use pgfw_common::frames::{Frame, SYN};
use pgfw_common::record::ABI;
use pgfw_tests::lab::Instance;

use crate::flat::thousands;
use crate::installed::{ADDRESS, Machine, config, newcomer};
use crate::packet::length;
use crate::policies::{enforced, for_days, guarded};
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::source::{Family, networks};
use crate::{Options, kernel, latency};

/// As many networks as a policy is promised to take.
const MANY: usize = 100_000;

/// Entries of a ledger in daily use.
const ENTRIES: usize = 10_000;

pub(crate) fn run(report: &mut Report, options: &Options) {
    commands(report, options);
    policies(report, options);
}

fn commands(report: &mut Report, options: &Options) {
    let mut table = Table::new(
        "change",
        "from the command to the kernel",
        "Milliseconds from the start of the process `pgfw` until a packet is judged otherwise (`allow`), or until it ends \
         (`reload`). The ledger lies in memory, where a sync costs nothing, but for the row that says otherwise.",
    );
    let count = options.pick(40, 8);
    let machine = Machine::new("memory");
    let pgfw = machine.pgfw();
    let daemon = pgfw.enforce();
    let first = allow(&machine, &pgfw, 0, count);
    let seen = Row::new("allow: a packet passes", Unit::Milliseconds, first.0).at_most(5.0);
    table.row(seen);
    table.row(Row::new(
        "allow: the command has ended",
        Unit::Milliseconds,
        first.1,
    ));

    let other = Machine::new("disk");
    // The host's own /var lies in memory; this folder is shared with the outside.
    let shared = tempfile::tempdir().expect("a folder");
    let state = shared.path().display().to_string();
    let on_disk = other.pgfw().env("PGFW_STATE_DIR", &state);
    let second = on_disk.enforce();
    let slow = allow(&other, &on_disk, 0, count);
    table.row(Row::new(
        "allow, ledger on this machine's disk: a packet passes",
        Unit::Milliseconds,
        slow.0,
    ));
    table.row(
        Row::new(
            "a transaction's three syncs on that disk",
            Unit::Milliseconds,
            syncs(shared.path(), count),
        )
        .beside("journal, database, end of the journal; a page each"),
    );
    drop(second);

    table.row(Row::new(
        "reload of a few networks",
        Unit::Milliseconds,
        reloads(&pgfw, options.pick(10, 3), &[]),
    ));
    let nets: Vec<IpNet> = both(MANY);
    table.row(Row::new(
        "reload of 100,000 networks in pgfw.toml",
        Unit::Milliseconds,
        reloads(&pgfw, options.pick(5, 2), &nets),
    ));
    drop(daemon);

    // Of a ledger that has been in use for years, and of one that holds all that it may.
    for count in [ENTRIES, MANY] {
        let used = Machine::new("used");
        used.allow(both(count));
        let pgfw = used.pgfw();
        let _daemon = pgfw.enforce();
        let name = thousands(count);
        let took = reloads(&pgfw, options.pick(10, 3), &[]);
        let row = Row::new(format!("reload with {name} entries"), Unit::Milliseconds, took);
        table.row(if count == ENTRIES { row.at_most(150.0) } else { row });
        let (passes, _) = allow(&used, &pgfw, 0, options.pick(20, 5));
        let name = format!("allow with {name} entries: a packet passes");
        table.row(Row::new(name, Unit::Milliseconds, passes).at_most(5.0));
    }
    report.add(table);
}

/// Half of them of each family.
fn both(count: usize) -> Vec<IpNet> {
    let of = |family| networks(family, count / 2, length(family)).0;
    Family::BOTH.into_iter().flat_map(of).collect()
}

/// Opens one host after the other: when a packet from there passed, and when the command had ended.
fn allow(machine: &Machine, pgfw: &Instance<'_>, first: u16, count: u16) -> (Samples, Samples) {
    let entry = machine
        .host
        .within(|| kernel::pinned(Path::new(&format!("/sys/fs/bpf/pgfw/v{ABI}/entry"))));
    (first..first + count)
        .map(|number| {
            let source = newcomer(number);
            let syn = Frame::tcp((&source.to_string(), 50_000), (ADDRESS, 5432), SYN);
            let passes = || kernel::run(entry.as_fd(), &syn.0, 1).0 != kernel::DROP;
            machine.host.within(|| {
                assert!(!passes(), "{source} may in already");
                let mut command = pgfw.command(&["allow", &source.to_string()]);
                command.stdout(Stdio::null());
                // Returns when the new program is in place of this one.
                let mut child = command.spawn().expect("pgfw starts");
                let start = Instant::now();
                let mut seen = None;
                let status = loop {
                    if seen.is_none() && passes() {
                        seen = Some(start.elapsed());
                    }
                    if let Some(status) = child.try_wait().expect("a child can be waited for") {
                        break status;
                    }
                    std::thread::sleep(Duration::from_micros(50));
                };
                let ended = start.elapsed();
                assert!(status.success() && passes(), "pgfw allow {source}: {status}");
                (milliseconds(seen.unwrap_or(ended)), milliseconds(ended))
            })
        })
        .unzip()
}

/// From one config to another that differs in one network, and back.
fn reloads(pgfw: &Instance<'_>, rounds: usize, networks: &[IpNet]) -> Samples {
    let further: IpNet = "10.77.0.0/16".parse().expect("a network");
    (0..rounds)
        .map(|round| {
            let mut all = networks.to_vec();
            all.extend((round % 2 == 0).then_some(further));
            pgfw.configure(&config(&all));
            let mut command = pgfw.command(&["reload"]);
            command.stdout(Stdio::null());
            let mut child = command.spawn().expect("pgfw starts");
            let start = Instant::now();
            let status = child.wait().expect("a child can be waited for");
            let ended = start.elapsed();
            assert!(status.success(), "pgfw reload: {status}");
            milliseconds(ended)
        })
        .collect()
}

/// What a transaction of the ledger waits for, without the ledger: SQLite's rollback journal syncs three times.
fn syncs(folder: &Path, rounds: u16) -> Samples {
    let file = |name: &str| std::fs::File::create(folder.join(name)).expect("a file");
    let (mut journal, mut database) = (file("bench-journal"), file("bench-database"));
    let page = [1_u8; 4096];
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            for file in [&mut journal, &mut database] {
                file.write_all(&page)
                    .and_then(|()| file.sync_data())
                    .expect("a page");
            }
            journal
                .set_len(0)
                .and_then(|()| journal.sync_data())
                .expect("an empty journal");
            milliseconds(start.elapsed())
        })
        .collect()
}

fn policies(report: &mut Report, options: &Options) {
    let mut table = Table::new(
        "change",
        "a policy of 100,000 networks",
        "`Datapath::load` of 50,000 IPv4 and 50,000 IPv6 networks from memory, programs and all; then another policy is \
         chosen and this one removed. A stall is how late the worst of threads woke that come before all others, one on \
         each core, from the removal until a second after it (the kernel frees tables behind the caller's back).",
    );
    let rounds = options.pick(7, 3);
    let few = guarded([], for_days());
    let many = guarded(both(MANY), for_days());
    let mut bench = enforced(&few);
    let (mut loads, mut removals, mut stalls, mut idle) = (
        Samples::default(),
        Samples::default(),
        Samples::default(),
        Samples::default(),
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = |bench: &mut pgfw_tests::bench::Bench, number: u64, policy: &Compiled| {
        let start = Instant::now();
        bench.datapath.load(number, policy).expect("a policy");
        let spent = milliseconds(start.elapsed());
        choose(bench, number);
        spent
    };
    for round in 0..rounds {
        let number = 2 + 2 * round;
        loads.push(load(&mut bench, number, &many));
        load(&mut bench, number + 1, &few);
        idle.push(latency::longest_during(cores, || std::thread::sleep(BEHIND)));
        stalls.push(latency::longest_during(cores, || {
            let start = Instant::now();
            bench.datapath.collect().expect("a removal");
            removals.push(milliseconds(start.elapsed()));
            std::thread::sleep(BEHIND);
        }));
    }
    table.row(Row::new("loaded", Unit::Milliseconds, loads).at_most(300.0));
    table.row(Row::new("removed: the call", Unit::Milliseconds, removals));
    table.row(Row::new(
        "removed: the longest stall of a core",
        Unit::Milliseconds,
        stalls,
    ));
    table.row(Row::new(
        "the same with nothing removed",
        Unit::Milliseconds,
        idle,
    ));
    report.add(table);
}

/// How long the kernel may take to free what nobody uses any more.
const BEHIND: Duration = Duration::from_secs(1);

fn choose(bench: &mut pgfw_tests::bench::Bench, number: u64) {
    let control = Control {
        confirmed: Choice::Generation(number),
        pending: None,
    };
    bench.datapath.set_control(control).expect("a control record");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
