//! Under attack: the transactions of those who are let in, while a flood keeps the other core busy.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Options;
use crate::network::filter::{Filter, Kind};
use crate::network::generator::{Burst, Generator, Packets};
use crate::network::pgbench::{Server, Sessions, Transactions};
use crate::network::rules::Rules;
use crate::network::xdp::Mode;
use crate::network::{CLIENT, Link};
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::round::{Contestant, interleave};
use crate::source::Family;

const SERVER_CORE: usize = 0;
const FLOOD_CORE: usize = 1;

const ABOUT: &str = "Server and four clients of pgbench on core 0; the SYN flood to 5432 from drawn addresses, and what \
    receives it, on core 1. Flood and clients come along one veth pair with two queues: what a core sends is received by \
    the same core, as with a network card that spreads its queues over the cores. Ratios are those of one round: with \
    the flood, and right before it without.";

pub(crate) fn run(report: &mut Report, options: &Options) {
    let (rules, link) = (Rules::new(), Link::new());
    link.two_queues();
    link.gro();
    let IpAddr::V4(client) = CLIENT else {
        unreachable!("an address of IPv4")
    };
    let kinds = [
        Kind::Nothing,
        Kind::Only(client),
        Kind::Pgfw(Mode::Native),
        Kind::Pgfw(Mode::Generic),
        Kind::Nftables,
        Kind::Iptables,
    ];
    let filters: Vec<RefCell<Filter<'_>>> = kinds
        .iter()
        .map(|kind| RefCell::new(Filter::prepare(*kind, &link, &rules)))
        .collect();
    let server = Server::start(&link, SERVER_CORE);
    let generator = Generator::new(Packets::Syn { port: 5432 }, Family::V4);
    for (sessions, title, count) in [
        (
            Sessions::Kept,
            "pgbench under a SYN flood: selects over TLS on open connections",
            options.pick(6_000, 2_000),
        ),
        (
            Sessions::Anew,
            "pgbench under a SYN flood: connecting anew each time",
            options.pick(80, 40),
        ),
    ] {
        let results: Vec<RefCell<Results>> = kinds.iter().map(|_| RefCell::default()).collect();
        let mut contestants: Vec<Contestant<'_>> = filters
            .iter()
            .zip(&results)
            .map(|(filter, results)| {
                let (server, generator) = (&server, &generator);
                Contestant::new(filter.borrow().kind.name(), move || {
                    let mut filter = filter.borrow_mut();
                    filter.engage();
                    let quiet = server.transactions(sessions, count);
                    let (flooded, flood) =
                        flooded(&filter, generator, || server.transactions(sessions, count));
                    filter.disengage();
                    results.borrow_mut().push(quiet, flooded, flood);
                    flooded.per_second / quiet.per_second
                })
            })
            .collect();
        let ratios = interleave(options.pick(13, 2), &mut contestants);
        drop(contestants);
        let mut table = Table::new("attack", title, ABOUT);
        for ((kind, ratio), results) in kinds.iter().zip(ratios).zip(&results) {
            let name = format!("{}: times without the flood", kind.name());
            let row = Row::new(name, Unit::Ratio, ratio).beside(results.borrow().sentence());
            table.row(match kind {
                Kind::Pgfw(_) => row.at_least(0.8),
                Kind::Nothing
                | Kind::DropAll
                | Kind::PassAll(_)
                | Kind::Question
                | Kind::Cookies
                | Kind::Only(_)
                | Kind::XdpFilter
                | Kind::Iptables
                | Kind::Nftables
                | Kind::Ingress => row,
            });
        }
        report.add(table);
    }
}

/// What a filter's rounds gave beside the ratio.
#[derive(Debug, Default)]
struct Results {
    quiet: Samples,
    flooded: Samples,
    p99: Samples,
    mpps: Samples,
}

impl Results {
    fn push(&mut self, quiet: Transactions, flooded: Transactions, flood: Burst) {
        self.quiet.push(quiet.per_second);
        self.flooded.push(flooded.per_second);
        self.p99.push(flooded.p99);
        self.mpps.push(1e3 / flood.each());
    }

    fn sentence(&self) -> String {
        let Results {
            quiet,
            flooded,
            p99,
            mpps,
        } = self;
        format!(
            "{:.0}/s of {:.0}/s, p99 {:.2} ms, under {:.2} Mpps",
            flooded.median(),
            quiet.median(),
            p99.median(),
            mpps.median()
        )
    }
}

/// Packets of one burst: long enough that what the kernel does between two does not count, short enough to end soon.
const AT_ONCE: u32 = 400_000;

/// Does something while the flood runs, from its first burst's end on.
fn flooded<T: Send>(
    filter: &Filter<'_>,
    generator: &Generator,
    work: impl FnOnce() -> T + Send,
) -> (T, Burst) {
    let link = filter.link;
    let over = AtomicBool::new(false);
    let (started, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut all = generator.burst(link, FLOOD_CORE, AT_ONCE / 10);
            started.send(()).expect("somebody waits");
            while !over.load(Ordering::Relaxed) {
                let burst = generator.burst(link, FLOOD_CORE, AT_ONCE);
                all.packets += burst.packets;
                all.nanoseconds += burst.nanoseconds;
            }
            all
        });
        let end = End(&over);
        wait.recv().expect("the flood begins");
        let result = work();
        drop(end);
        (result, flood.join().expect("a flood"))
    })
}

/// Ends the flood however the work ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
