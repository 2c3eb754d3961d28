//! One packet: what a verdict takes, and what each feature adds to it.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use pgfw::datapath::EventReader;
use pgfw::policy::coverage::{Compiled, ServiceId};
use pgfw_common::frames::{ACK, Frame, SYN};
use pgfw_common::reason::Reason;
use pgfw_tests::bench::{Bench, allowed, denied};
use pgfw_tests::lab::{PATIENCE, eventually};

use crate::Options;
use crate::kernel;
use crate::machine::Pinned;
use crate::policies::{enforced, for_days, guarded, open, service};
use crate::question;
use crate::race::{Number, Race, Results, frags, shared};
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::source::{Family, Source, networks};

/// Networks that may reach PostgreSQL; how many more change nothing is the next section's question.
const NETWORKS: usize = 10;

/// Open without an end, and closed by name.
const FOREVER: ServiceId = ServiceId(3);
const DENIED: ServiceId = ServiceId(4);

pub(crate) fn run(report: &mut Report, options: &Options) {
    let _core = Pinned::to(0);
    let bench = enforced(&policy());
    let sockets = Sockets::open(&bench);
    verdicts(report, options, &bench, &sockets);
    features(report, options, &bench);
}

fn policy() -> Compiled {
    let all = Family::BOTH.map(|family| networks(family, NETWORKS, length(family)).0);
    let all: Vec<_> = all.into_iter().flatten().collect();
    let mut policy = guarded(all.iter().copied(), for_days());
    service(&mut policy, FOREVER, 5433, "forever");
    service(&mut policy, DENIED, 5434, "denied");
    open(&mut policy, FOREVER, all.iter().copied(), allowed());
    open(&mut policy, DENIED, all, denied());
    policy
}

pub(crate) fn length(family: Family) -> impl Fn(u32) -> u8 {
    move |_| match family {
        Family::V4 => 24,
        Family::V6 => 48,
    }
}

/// To this host; the source is written over where it is drawn.
pub(crate) fn segment(family: Family, port: u16, flags: u8) -> Frame {
    let (stranger, host) = ends(family);
    Frame::tcp((stranger, 50_000), (host, port), flags)
}

fn ends(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("198.51.100.7", "192.0.2.10"),
        Family::V6 => ("2001:db8:7::7", "2001:db8::10"),
    }
}

/// A row's name, its figure, its target, and that of the socket lookup alone where it needs one.
type Measured = (String, Number, Option<f64>, Option<Number>);

fn verdicts(report: &mut Report, options: &Options, bench: &Bench, sockets: &Sockets) {
    let mut race = Race::new(bench, options);
    let asks = kernel::load(&question::of_sockets(), frags(bench));
    let mut rows: Vec<Measured> = Vec::new();
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let random = Source::random(family);
        let listed = Source::among(family, NETWORKS as u64);
        let name = family.name();
        let (_, host) = ends(family);
        let (stranger, _) = ends(family);
        let later = match family {
            Family::V4 => Frame::udp((stranger, 9), (host, 9)).fragment4(1480, false),
            Family::V6 => Frame::udp((stranger, 9), (host, 9)).fragment6(1448, false, 7),
        };
        let closed = Reason::ServiceClosed;
        let segment = |port, flags| segment(family, port, flags);
        for (what, source, frame, reason, target) in [
            (
                "refused: SYN to 5432",
                random,
                segment(5432, SYN),
                closed,
                Some(25.0),
            ),
            (
                "allowed, with an end: SYN",
                listed,
                segment(5432, SYN),
                Reason::Service,
                Some(70.0),
            ),
            (
                "allowed, with an end: ACK",
                listed,
                segment(5432, ACK),
                Reason::Service,
                Some(70.0),
            ),
            (
                "established, no service's port",
                Source::Fixed,
                sockets.segment(index),
                Reason::Established,
                Some(95.0),
            ),
            (
                "world-open 22: SYN",
                random,
                segment(22, SYN),
                Reason::Service,
                None,
            ),
            (
                "world-open 22, listening: stray ACK",
                random,
                segment(22, ACK),
                Reason::NoConnection,
                None,
            ),
            (
                "refused: ACK to 5432",
                random,
                segment(5432, ACK),
                Reason::NoConnection,
                None,
            ),
            (
                "refused: SYN to a closed port",
                random,
                segment(81, SYN),
                Reason::NewTcp,
                None,
            ),
            (
                "refused: UDP",
                random,
                Frame::udp((stranger, 9), (host, 9)),
                Reason::Udp,
                None,
            ),
            (
                "refused: later fragment",
                random,
                later,
                Reason::FragmentUnknown,
                None,
            ),
        ] {
            let number = race.entry(bench, source, &frame, reason);
            let question = matches!(reason, Reason::Established | Reason::NoConnection)
                .then(|| race.program(bench, &asks, source, &frame));
            rows.push((format!("{name}, {what}"), number, target, question));
        }
    }
    let results = race.run(options);
    report.add(pace(&results, &rows));
    let mut table = Table::new(
        "packet",
        "what one packet takes",
        "BPF_PROG_TEST_RUN on one core, through the entry that an interface has. \"Random\" sources are drawn anew for \
         each packet by a program in front, which the empty program has in front of it too. Refused packets come from \
         anywhere, allowed ones from ten networks.",
    );
    table.row(
        Row::new(
            "an empty program, with what is in front of it",
            Unit::Nanoseconds,
            results.floor(),
        )
        .beside("the floor; not in the figures below"),
    );
    for (name, number, target, question) in rows {
        let alone = question.map(|number| results.of(number).median());
        let row = Row::new(name, Unit::OverEmpty, results.of(number)).beside(
            alone.map_or(String::new(), |alone| {
                format!("the socket lookup alone {alone:.1}")
            }),
        );
        table.row(match target {
            Some(limit) => row.at_most(limit),
            None => row,
        });
    }
    report.add(table);
}

/// What the kernel alone takes here, beside what it took where the targets were set: no program of pgfw's is in it.
fn pace(results: &Results, rows: &[Measured]) -> Table {
    let question = |name: &str| {
        let row = rows.iter().find(|row| row.0 == name).expect("a row of that name");
        results.of(row.3.expect("a row that asks for a socket"))
    };
    let known = [
        ("an empty program", results.floor(), 27.0),
        (
            "a socket lookup: a connection",
            question("IPv4, established, no service's port"),
            66.0,
        ),
        (
            "a socket lookup: who listens",
            question("IPv4, world-open 22, listening: stray ACK"),
            75.0,
        ),
        (
            "a socket lookup: nothing",
            question("IPv4, refused: ACK to 5432"),
            71.0,
        ),
    ];
    let mut table = Table::new(
        "packet",
        "how fast this machine is",
        "The targets were set on one machine, and are the same on every other. What the kernel takes for things that no \
         filter changes, here and there, says what a figure below would be on that machine.",
    );
    let mut times = 0.0;
    for (name, here, there) in known {
        times += here.median() / there / 4.0;
        let row = Row::new(name, Unit::Nanoseconds, here);
        table.row(row.beside(format!("{there:.0} where the targets were set")));
    }
    table.row(Row::new(
        "on average, times as long",
        Unit::Ratio,
        Samples::one(times),
    ));
    table
}

/// What one feature adds: a packet that meets it less one that is the same otherwise.
fn features(report: &mut Report, options: &Options, bench: &Bench) {
    let audit = enforced(&Compiled {
        settings: pgfw::policy::coverage::Settings {
            audit: true,
            ..Default::default()
        },
        ..policy()
    });
    let crowded = enforced(&crowd());
    let random4 = Source::random(Family::V4);
    let random6 = Source::random(Family::V6);
    let listed = Source::among(Family::V4, NETWORKS as u64);
    let closed = Reason::ServiceClosed;
    let syn4 = segment(Family::V4, 5432, SYN);
    let syn6 = segment(Family::V6, 5432, SYN);

    let ring = RefCell::new(EventReader::open(&bench.bpffs.path().join("pgfw")).expect("the ring of events"));
    let mut race = Race::new(bench, options);
    let plain4 = race.entry(bench, random4, &syn4, closed);
    let plain6 = race.entry(bench, random6, &syn6, closed);
    let direct = race.policy(bench, random4, &syn4);
    let other = race.entry(bench, random4, &segment(Family::V4, 81, SYN), Reason::NewTcp);
    let tagged = [1_u8, 2].map(|number| {
        let tags = vec![0x8100; usize::from(number)];
        race.entry(bench, random4.tagged(number), &syn4.tagged(&tags), closed)
    });
    let extended = [1, 3, 6].map(|number| {
        // Destination options, which may stand anywhere and often (RFC 8200, 4.6).
        race.entry(bench, random6, &syn6.extensions(&vec![60; number]), closed)
    });
    let end = race.entry(bench, listed, &syn4, Reason::Service);
    let forever = race.entry(bench, listed, &segment(Family::V4, 5433, SYN), Reason::Service);
    let no = race.entry(
        bench,
        listed,
        &segment(Family::V4, 5434, SYN),
        Reason::ServiceDenied,
    );
    let audited = race.entry(&audit, random4, &syn4, closed);
    let many = race.entry(&crowded, random4, &syn4, closed);

    // As many as the ring takes, every one of them told: the bucket and the ring are filled and emptied in between.
    let told = race.entry(bench, random4, &syn4, closed);
    race.few(told, BURST, || {
        drain(&ring);
        refill(bench);
    });
    let untold = race.entry(bench, random4, &syn4, closed);
    race.few(untold, BURST, || {
        drain(&ring);
        empty_bucket(bench);
    });

    let results = race.run(options);
    let mut table = Table::new(
        "packet",
        "what each feature adds",
        "One packet less another that differs in this only, round by round; nanoseconds.",
    );
    for (name, one, less, beside) in [
        (
            "entry and slot",
            plain4,
            direct,
            "the policy run by itself is what it is compared with",
        ),
        (
            "a port that is a service's",
            plain4,
            other,
            "service row, prefix, service counter; less a SYN to another port",
        ),
        ("IPv6 instead of IPv4", plain6, plain4, "refused"),
        ("one VLAN tag", tagged[0], plain4, ""),
        ("two VLAN tags", tagged[1], plain4, ""),
        (
            "1 extension header",
            extended[0],
            plain6,
            "IPv6, destination options of eight bytes",
        ),
        ("3 extension headers", extended[1], plain6, ""),
        ("6 extension headers", extended[2], plain6, ""),
        ("being allowed", forever, plain4, "the prefix is found"),
        ("an end", end, forever, "less one that is allowed for ever"),
        ("a deny", no, forever, "less one that is allowed for ever"),
        ("audit mode", audited, plain4, ""),
        ("64 services", many, plain4, "less four"),
        (
            "telling an event",
            told,
            untold,
            "at most 1,000 a second on each core; a burst of 1,000",
        ),
    ] {
        table.row(Row::new(name, Unit::Nanoseconds, results.more(one, less)).beside(beside));
    }
    report.add(table);
}

/// So many services that the table of them has several rows in each place.
fn crowd() -> Compiled {
    let mut policy = policy();
    for number in 5..=64 {
        service(
            &mut policy,
            ServiceId(number),
            6_000 + number,
            &format!("service {number}"),
        );
    }
    policy
}

/// Frames in one burst: as many events as a core tells at once.
const BURST: u32 = 1_000;

fn drain(ring: &RefCell<EventReader>) {
    let told = ring.borrow_mut().read(usize::MAX).expect("the ring of events");
    drop(told);
}

/// Filled up long ago: the next packet finds a full bucket.
fn refill(bench: &Bench) {
    set_bucket(bench, 0);
}

/// Filled up in the far future, with nothing in it.
fn empty_bucket(bench: &Bench) {
    set_bucket(bench, u64::MAX);
}

fn set_bucket(bench: &Bench, filled: u64) {
    let map = kernel::pinned(&shared(bench).join("EVENT_BUDGET"));
    let one: Vec<u8> = [filled, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let cores = aya::util::nr_cpus().expect("the number of cores");
    kernel::put(map.as_fd(), &0_u32.to_ne_bytes(), &one.repeat(cores));
}

/// Who listens and is connected in a bench's namespace.
struct Sockets {
    /// A connection to a port that is no service's, for each family.
    connections: Vec<(TcpStream, TcpListener)>,
    _ssh: Vec<TcpListener>,
}

impl Sockets {
    fn open(bench: &Bench) -> Sockets {
        let mut sockets = Sockets {
            connections: Vec::new(),
            _ssh: Vec::new(),
        };
        for family in Family::BOTH {
            let (_, host) = ends(family);
            bench
                .namespace
                .ip(&format!("address add {host}/{} dev lo", 8 * family.bytes()));
            let host: IpAddr = host.parse().expect("an address");
            // A new IPv6 address counts when a worker of the kernel has been there.
            let (connection, ssh) = eventually("the addresses can be used", PATIENCE, || {
                bench.namespace.within(|| {
                    let other = TcpListener::bind((host, 40_000)).ok()?;
                    let stream = TcpStream::connect((host, 40_000)).ok()?;
                    Some(((stream, other), TcpListener::bind((host, 22)).ok()?))
                })
            });
            sockets.connections.push(connection);
            sockets._ssh.push(ssh);
        }
        sockets
    }

    /// A segment of a family's connection, from the one that connected to the one that listened.
    fn segment(&self, family: usize) -> Frame {
        let (stream, _) = &self.connections[family];
        let text = |address: SocketAddr| (address.ip().to_string(), address.port());
        let (from, from_port) = text(stream.local_addr().expect("it is connected"));
        let (to, to_port) = text(stream.peer_addr().expect("it is connected"));
        Frame::tcp((&from, from_port), (&to, to_port), ACK)
    }
}
