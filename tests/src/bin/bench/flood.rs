//! Floods from random sources: what a packet takes from the cable to its end, for each filter beside an empty program.

use std::time::Duration;

use pgfw_tests::lab::Namespace;

use crate::Options;
use crate::network::Link;
use crate::network::connections::with_open;
use crate::network::filter::{Filter, Kind};
use crate::network::generator::{Burst, Generator, Packets};
use crate::network::rules::Rules;
use crate::network::xdp::Mode;
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::round::{Contestant, interleave};
use crate::source::Family;

const ABOUT: &str = "Two namespaces joined by a veth pair, sender and receiver on one core ahead of everything else; \
    1,000 networks allowed and 1,000 denied in each family; the source address and port of every packet are drawn. \
    The packets that count are those that the receiver's device took off the cable. A program that looks for a socket and \
    drops shows what the kernel takes for that alone, which no filter that knows connections gets around. xdp-filter knows \
    addresses instead of networks and no connections; the rules at ingress have no states.";

/// Everybody who is flooded.
const FILTERS: [Kind; 10] = [
    Kind::DropAll,
    Kind::Question,
    Kind::Cookies,
    Kind::PassAll(Mode::Native),
    Kind::Pgfw(Mode::Native),
    Kind::Pgfw(Mode::Generic),
    Kind::XdpFilter,
    Kind::Ingress,
    Kind::Nftables,
    Kind::Iptables,
];

/// One kind of packets, and how much more than the zero pgfw may take for it.
struct Flood {
    title: &'static str,
    packets: Packets,
    family: Family,
    limit: f64,
}

/// Packets of the round that does not count: it tells how many fill a slice.
const FIRST: u32 = 20_000;

/// What all of this runs on. One core floods; the other is for whoever else is on this machine.
const CORE: usize = 1;

pub(crate) fn run(report: &mut Report, options: &Options) {
    let rules = Rules::new();
    let links: Vec<Link> = FILTERS.iter().map(|_| Link::new()).collect();
    let listeners: Vec<_> = links.iter().map(|link| listen(&link.host)).collect();
    let mut filters: Vec<Filter<'_>> = FILTERS
        .iter()
        .zip(&links)
        .map(|(kind, link)| {
            link.gro();
            let mut filter = Filter::prepare(*kind, link, &rules);
            filter.engage();
            filter
        })
        .collect();
    for flood in &without_connections() {
        table(report, options, &filters, flood);
    }
    // The kernel's table of connections is one for all namespaces: the same chains are walked on every host.
    let pgfw = filters
        .iter()
        .position(|filter| filter.kind == Kind::Pgfw(Mode::Native))
        .expect("pgfw takes part");
    with_open(&links[pgfw], options.pick(100_000, 2_000), || {
        for flood in &with_connections() {
            table(report, options, &filters, flood);
        }
    });
    for filter in &mut filters {
        filter.disengage();
    }
    drop(listeners);
}

fn without_connections() -> [Flood; 7] {
    let syn = Packets::Syn { port: 5432 };
    let flood = |title, packets, family, limit| Flood {
        title,
        packets,
        family,
        limit,
    };
    let (v4, v6) = (Family::V4, Family::V6);
    [
        flood("SYNs to 5432, IPv4", syn, v4, 30.0),
        flood("SYNs to 5432, IPv6", syn, v6, 30.0),
        flood("UDP, IPv4", Packets::Udp, v4, 40.0),
        flood("UDP, IPv6", Packets::Udp, v6, 40.0),
        flood("Later fragments, IPv4", Packets::LaterFragment, v4, 40.0),
        flood("Later fragments, IPv6", Packets::LaterFragment, v6, 40.0),
        flood(
            "SYNs to port 22, which is open to the world and listens: over a program that passes all",
            Packets::Syn { port: 22 },
            v4,
            30.0,
        ),
    ]
}

fn with_connections() -> [Flood; 3] {
    let flood = |title, port, family| Flood {
        title,
        packets: Packets::Ack { port },
        family,
        limit: 120.0,
    };
    [
        flood("ACKs to 5432, 100,000 connections open, IPv4", 5432, Family::V4),
        flood("ACKs to 5432, 100,000 connections open, IPv6", 5432, Family::V6),
        flood(
            "ACKs to port 22, which is open to the world and listens, 100,000 connections open",
            22,
            Family::V4,
        ),
    ]
}

/// Servers that nobody asks; a queue that is full answers with SYN cookies.
fn listen(host: &Namespace) -> [std::net::TcpListener; 2] {
    host.within(|| {
        [22, 5432].map(|port| {
            std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).expect("a server")
        })
    })
}

fn table(report: &mut Report, options: &Options, filters: &[Filter<'_>], flood: &Flood) {
    let generator = Generator::new(flood.packets, flood.family);
    let slice = Duration::from_millis(options.pick(200, 30));
    let passes = flood.packets == Packets::Syn { port: 22 };
    let zero = if passes {
        Kind::PassAll(Mode::Native)
    } else {
        Kind::DropAll
    };
    let taking_part: Vec<&Filter<'_>> = filters
        .iter()
        .filter(|filter| match filter.kind {
            Kind::DropAll | Kind::PassAll(_) => filter.kind == zero,
            Kind::Question => matches!(flood.packets, Packets::Ack { .. }),
            Kind::Cookies => flood.packets == Packets::Ack { port: 22 },
            Kind::Nothing
            | Kind::Only(_)
            | Kind::Pgfw(_)
            | Kind::XdpFilter
            | Kind::Iptables
            | Kind::Nftables
            | Kind::Ingress => true,
        })
        .collect();
    let mut contestants: Vec<Contestant<'_>> = taking_part
        .iter()
        .map(|filter| {
            let mut count = FIRST;
            let generator = &generator;
            Contestant::new(filter.kind.name(), move || {
                let each = judged(filter, generator, flood.packets, count).each();
                count = (slice.as_nanos() as f64 / each) as u32;
                each
            })
        })
        .collect();
    let samples = interleave(options.pick(11, 3), &mut contestants);
    let of = |kind: Kind| {
        let index = taking_part.iter().position(|filter| filter.kind == kind);
        &samples[index.expect("it takes part")]
    };
    let mut table = Table::new("flood", flood.title, "");
    if report.tables.iter().all(|table| table.section != "flood") {
        table.about = ABOUT.to_owned();
    }
    let mpps = |samples: &Samples| format!("{:.2} Mpps", samples.map(|each| 1e3 / each).median());
    table.row(Row::new(zero.name(), Unit::Nanoseconds, of(zero).clone()).beside(mpps(of(zero))));
    for filter in taking_part.iter().filter(|filter| filter.kind != zero) {
        let own = of(filter.kind);
        let row = Row::new(filter.kind.name(), Unit::OverEmpty, own.over(of(zero))).beside(mpps(own));
        table.row(if filter.kind == Kind::Pgfw(Mode::Native) {
            row.at_most(flood.limit)
        } else {
            row
        });
    }
    if flood.packets == (Packets::Syn { port: 5432 }) {
        let times = of(Kind::Iptables).times(of(Kind::Pgfw(Mode::Native)));
        table.row(Row::new("pgfw, native: times what iptables drops", Unit::Ratio, times).at_least(4.4));
    }
    report.add(table);
}

/// One burst, in which pgfw must have said the expected about nearly every packet, and iptables have seen it.
fn judged(filter: &Filter<'_>, generator: &Generator, packets: Packets, count: u32) -> Burst {
    let before = filter.counted(packets.reason());
    let burst = generator.burst(filter.link, CORE, count);
    if let (Some(before), Some(after)) = (before, filter.counted(packets.reason())) {
        let counted = after - before;
        assert!(
            counted * 100 >= burst.packets * 98,
            "{}: {counted} of {} packets are {:?}",
            filter.kind.name(),
            burst.packets,
            packets.reason()
        );
    }
    burst
}
