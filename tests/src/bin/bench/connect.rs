//! When nobody attacks: a stream, transactions and datagrams of those who are let in.

mod egress;

use std::cell::RefCell;
use std::time::Duration;

use pgfw::config::Attach;
use pgfw::datapath::Mode as Attached;

use crate::Options;
use crate::network::filter::{Filter, Kind};
use crate::network::pgbench::{Server, Sessions, Transactions};
use crate::network::rules::Rules;
use crate::network::xdp::Mode;
use crate::network::{Link, stream};
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::round::{Contestant, interleave};

/// Everybody who lets the client in; who is compared stands side by side.
const FILTERS: [Kind; 7] = [
    Kind::Nothing,
    Kind::PassAll(Mode::Native),
    Kind::Pgfw(Mode::Native),
    Kind::PassAll(Mode::Generic),
    Kind::Pgfw(Mode::Generic),
    Kind::Nftables,
    Kind::Iptables,
];

const CORE: usize = 1;

pub(crate) fn run(report: &mut Report, options: &Options) {
    let (rules, link) = (Rules::new(), Link::new());
    let filters: Vec<RefCell<Filter<'_>>> = FILTERS
        .iter()
        .map(|kind| RefCell::new(Filter::prepare(*kind, &link, &rules)))
        .collect();
    let auto = auto(&filters);
    streams(report, options, &link, &filters, auto);
    let server = Server::start(&link, CORE);
    for (sessions, title, count) in [
        (
            Sessions::Kept,
            "pgbench: selects over TLS on open connections",
            options.pick(8_000, 2_000),
        ),
        (
            Sessions::Anew,
            "pgbench: selects over TLS, connecting anew each time",
            options.pick(160, 40),
        ),
    ] {
        let run = || server.transactions(sessions, count);
        transactions(report, options, &filters, auto, title, &run);
    }
    drop(server);
    egress::run(report, options, &link, &filters);
}

/// The mode that `attach = "auto"` chooses on this device.
fn auto(filters: &[RefCell<Filter<'_>>]) -> Mode {
    let mut pgfw = find(filters, Kind::Pgfw(Mode::Native)).borrow_mut();
    match pgfw.tried(Attach::Auto) {
        Some(Attached::Native) => Mode::Native,
        Some(Attached::Generic) => Mode::Generic,
        other => panic!("auto chose {other:?}"),
    }
}

fn find<'a, 'link>(filters: &'a [RefCell<Filter<'link>>], kind: Kind) -> &'a RefCell<Filter<'link>> {
    let found = filters.iter().find(|filter| filter.borrow().kind == kind);
    found.expect("it takes part")
}

fn streams(report: &mut Report, options: &Options, link: &Link, filters: &[RefCell<Filter<'_>>], auto: Mode) {
    let slice = Duration::from_millis(options.pick(120, 50));
    let samples = rounds(options.pick(15, 3), filters, || {
        stream::gigabits(link, CORE, slice)
    });
    let mut table = Table::new(
        "connect",
        "One TCP stream into the host",
        &format!(
            "Two namespaces joined by a veth pair, sender and receiver on one core. `attach = \"auto\"` chooses {} here.",
            word(auto)
        ),
    );
    for (kind, own) in FILTERS.iter().zip(&samples) {
        table.row(Row::new(kind.name(), Unit::Gigabits, own.clone()));
    }
    for mode in [Mode::Native, Mode::Generic] {
        let own = &samples[place(Kind::Pgfw(mode))];
        let times = own.times(&samples[place(Kind::PassAll(mode))]);
        let name = format!("pgfw, {0}: times a program that passes all, {0}", word(mode));
        let row = Row::new(name, Unit::Ratio, times);
        table.row(if mode == auto { row.at_least(0.97) } else { row });
    }
    report.add(table);
}

fn transactions(
    report: &mut Report,
    options: &Options,
    filters: &[RefCell<Filter<'_>>],
    auto: Mode,
    title: &str,
    run: &dyn Fn() -> Transactions,
) {
    let p99: Vec<RefCell<Samples>> = FILTERS.iter().map(|_| RefCell::default()).collect();
    let samples = {
        let mut contestants: Vec<Contestant<'_>> = filters
            .iter()
            .zip(&p99)
            .map(|(filter, p99)| {
                Contestant::new(filter.borrow().kind.name(), move || {
                    let mut filter = filter.borrow_mut();
                    filter.engage();
                    let result = run();
                    filter.disengage();
                    p99.borrow_mut().push(result.p99);
                    result.per_second
                })
            })
            .collect();
        interleave(options.pick(15, 3), &mut contestants)
    };
    let mut table = Table::new(
        "connect",
        title,
        "Four clients of pgbench, server and clients on one core. Beside: the 99th of a hundred times from the end of a \
         client's transaction to the end of its next.",
    );
    for ((kind, own), p99) in FILTERS.iter().zip(&samples).zip(&p99) {
        let beside = format!("p99 {:.2} ms", p99.borrow().median());
        table.row(Row::new(kind.name(), Unit::PerSecond, own.clone()).beside(beside));
    }
    let nothing = &samples[place(Kind::Nothing)];
    for kind in FILTERS.iter().filter(|kind| **kind != Kind::Nothing) {
        let times = samples[place(*kind)].times(nothing);
        let row = Row::new(format!("{}: times nothing", kind.name()), Unit::Ratio, times);
        table.row(if *kind == Kind::Pgfw(auto) {
            row.at_least(0.97)
        } else {
            row
        });
    }
    report.add(table);
}

/// Each filter in its place for as long as it is measured.
fn rounds(rounds: usize, filters: &[RefCell<Filter<'_>>], measure: impl Fn() -> f64) -> Vec<Samples> {
    let measure = &measure;
    let mut contestants: Vec<Contestant<'_>> = filters
        .iter()
        .map(|filter| {
            Contestant::new(filter.borrow().kind.name(), move || {
                let mut filter = filter.borrow_mut();
                filter.engage();
                let result = measure();
                filter.disengage();
                result
            })
        })
        .collect();
    interleave(rounds, &mut contestants)
}

fn place(kind: Kind) -> usize {
    let place = FILTERS.iter().position(|other| *other == kind);
    place.expect("it takes part")
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    }
}
