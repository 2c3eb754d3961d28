//! What a first fragment leaves behind in the kernel: for whom, until when, how often, and who can push it out.

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use nix::time::{ClockId, clock_getres};
use pgfw_common::address::{Ends, v4};
use pgfw_common::frames::{Frame, IGMP, NETWORK, SYN, TCP, UDP, tcp, udp};
use pgfw_common::reason::{Action, Reason};
use pgfw_common::record::{
    ABI, FragmentKey, MAX_FRAGMENTS, MAX_LATER_FRAGMENTS, Remembered, place_of_datagram,
};
use pgfw_tests::bench::scene::{announce, open, remembered, remembered_bytes};
use pgfw_tests::bench::{Bench, DNS, PG, SSH, policy};

const HOST: &str = "192.168.1.1";
const FRIEND: &str = "192.168.1.7";
const STRANGER: &str = "198.51.100.7";
/// Of first fragments that were let in by name or as an answer, and of those that anyone could have sent.
const KNOWN: &str = "FRAGMENTS";
const OPEN: &str = "OPEN_FRAGMENTS";

fn query(source: &str, id: u16) -> Frame {
    Frame::ip(source, HOST, UDP, &udp(40_000, 53, &[0; 32])).bytes(NETWORK + 4, &id.to_be_bytes())
}

/// A SYN to SSH, which is open to the world.
fn syn(source: &str, id: u16) -> Frame {
    Frame::ip(source, HOST, TCP, &tcp(40_000, 22, SYN)).bytes(NETWORK + 4, &id.to_be_bytes())
}

fn first(datagram: &Frame) -> Frame {
    datagram.fragment4(0, true)
}

fn later(datagram: &Frame) -> Frame {
    datagram.fragment4(24, false)
}

type Entry = ([u8; size_of::<FragmentKey>()], Remembered);

fn entries(bench: &Bench, map: &str) -> Vec<Entry> {
    let map = open::<{ size_of::<FragmentKey>() }>(bench, map);
    map.iter()
        .map(|entry| {
            let (key, value) = entry.expect("an entry");
            (key, remembered(value))
        })
        .collect()
}

/// The kernel's tick counter, and how many ticks make a second.
fn jiffies(bench: &Bench) -> (u64, u64) {
    let pin = bench.bpffs.path().join(format!("pgfw/v{ABI}/clock"));
    let clock = Xdp::from_pin(pin, XdpAttachType::Interface).expect("the clock");
    let mut bytes = [0; 14];
    let data = [0; 14];
    clock
        .test_run(TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut bytes),
            ..TestRunOptions::default()
        })
        .expect("the time");
    let now = u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"));
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).expect("its resolution");
    (now, 1_000_000_000 / tick.tv_nsec() as u64)
}

#[test]
fn f57_a_pass_is_remembered_for_two_seconds_and_a_count() {
    let bench = Bench::new(&policy());
    let datagram = query(FRIEND, 7);
    bench.expect("too early", &later(&datagram), Reason::FragmentUnknown, None);
    let (before, hz) = jiffies(&bench);
    bench.expect("the first", &first(&datagram), Reason::Service, Some(DNS));
    let (after, _) = jiffies(&bench);
    // Nothing that an earlier packet left in the programs' memory counts as a part of a later one.
    let arp = Frame::ethernet(0x0806, &[0; 28]);
    bench.expect("no fragment", &arp, Reason::Arp, None);
    let kept = entries(&bench, KNOWN);
    assert!(entries(&bench, OPEN).is_empty());
    let [(key, found)] = kept[..] else {
        panic!("{kept:?}");
    };
    assert_eq!(found.left, MAX_LATER_FRAGMENTS);
    assert!(
        (before + 2 * hz..=after + 2 * hz).contains(&found.until),
        "{found:?} between {before} and {after} at {hz} a second"
    );

    // From here on the entry says what the test wants, so that a slow machine does not run into its end; the probe and
    // the program must both read it so.
    let ends = Ends {
        remote: v4([192, 168, 1, 7]),
        local: v4([192, 168, 1, 1]),
    };
    announce(&bench, place_of_datagram(&ends, 7));
    let mut map = open(&bench, KNOWN);
    let mut set = |until, left| {
        let value = remembered_bytes(Remembered { until, left, pad: 0 });
        map.insert(key, value, 0).expect("an entry");
    };
    let long = after + 3_600 * hz;
    set(long, MAX_LATER_FRAGMENTS);
    bench.expect("a later one", &later(&datagram), Reason::Fragment, None);
    assert_eq!(entries(&bench, KNOWN)[0].1.left, MAX_LATER_FRAGMENTS - 1);
    let mut is = |until, left, reason| {
        set(until, left);
        assert_eq!(bench.ask(&later(&datagram)).expect("an answer").reason, reason);
        assert_eq!(bench.run(&later(&datagram)), reason.action());
    };
    let (now, _) = jiffies(&bench);
    is(now, MAX_LATER_FRAGMENTS, Reason::FragmentUnknown);
    is(long, MAX_LATER_FRAGMENTS, Reason::Fragment);
    is(long, 0, Reason::FragmentUnknown);
    is(long, 1, Reason::Fragment);
    assert_eq!(bench.run(&later(&datagram)), Action::Drop, "one was left");
    // A new first fragment under the same id is a new datagram.
    assert_eq!(bench.run(&first(&datagram)), Action::Pass);
    let renewed = entries(&bench, KNOWN)[0].1;
    assert!(renewed.left == MAX_LATER_FRAGMENTS && renewed.until < long);
    set(long, renewed.left);
    for n in 0..MAX_LATER_FRAGMENTS {
        assert_eq!(bench.run(&later(&datagram)), Action::Pass, "{n}");
    }
    assert_eq!(bench.run(&later(&datagram)), Action::Drop);
}

#[test]
fn f57_only_a_first_fragment_that_passed_is_remembered() {
    let bench = Bench::new(&policy());
    for (what, frame, reason, service) in [
        (
            "a stranger's",
            query(STRANGER, 1),
            Reason::ServiceClosed,
            Some(DNS),
        ),
        (
            "a denied one's",
            Frame::ip("192.168.1.66", HOST, TCP, &tcp(40_000, 5432, SYN)),
            Reason::ServiceDenied,
            Some(PG),
        ),
        (
            "one without its whole header",
            Frame::ip(FRIEND, HOST, TCP, &tcp(40_000, 5432, SYN)[..16]),
            Reason::TcpTruncated,
            None,
        ),
        (
            "a ping",
            Frame::icmp(FRIEND, HOST, 8, 0, &[0; 12]),
            Reason::EchoRequestRefused,
            None,
        ),
        (
            "an impossible source's",
            query("127.0.0.1", 1),
            Reason::SourceLoopback,
            None,
        ),
    ] {
        bench.expect(what, &first(&frame), reason, service);
        let reason = if reason == Reason::SourceLoopback {
            reason
        } else {
            Reason::FragmentUnknown
        };
        bench.expect(what, &later(&frame), reason, None);
    }
    // What is whole leaves nothing either.
    bench.expect("a whole one", &query(FRIEND, 2), Reason::Service, Some(DNS));
    assert!(entries(&bench, KNOWN).is_empty() && entries(&bench, OPEN).is_empty());
    // What anyone may send is remembered apart.
    bench.expect("to SSH", &first(&syn(STRANGER, 3)), Reason::Service, Some(SSH));
    let report = Frame::ip(STRANGER, "224.0.0.1", IGMP, &[0x11; 8]);
    bench.expect("a group's", &first(&report), Reason::GroupMembership, None);
    assert!(entries(&bench, KNOWN).is_empty());
    assert_eq!(entries(&bench, OPEN).len(), 2);
    bench.expect("its later one", &later(&syn(STRANGER, 3)), Reason::Fragment, None);
}

/// Three times what a table holds, each from a source of its own.
fn flood(bench: &Bench, frame: impl Fn(&str, u16) -> Frame, network: &str, action: Action) {
    let frames: Vec<Frame> = (0..3 * MAX_FRAGMENTS)
        .map(|n| {
            let source = format!("{network}.{}", n % 64 + 128);
            first(&frame(&source, u16::try_from(n).expect("an id")))
        })
        .collect();
    assert!(bench.run_all(&frames).iter().all(|found| *found == action));
}

#[test]
fn f57_strangers_evict_nothing() {
    let bench = Bench::new(&policy());
    let datagram = query(FRIEND, 7);
    bench.expect("the first", &first(&datagram), Reason::Service, Some(DNS));
    let before = entries(&bench, KNOWN);
    flood(&bench, query, "198.51.100", Action::Drop);
    assert!(entries(&bench, OPEN).is_empty());
    flood(&bench, syn, "198.51.100", Action::Pass);
    let flooded = entries(&bench, OPEN).len();
    assert!(
        (1..=MAX_FRAGMENTS as usize).contains(&flooded),
        "{flooded} strangers' datagrams"
    );
    assert_eq!(entries(&bench, KNOWN), before);
}

#[test]
fn f57_an_allowed_flood_is_bounded_and_its_newest_datagrams_arrive() {
    let bench = Bench::new(&policy());
    let strangers = syn(STRANGER, 9);
    assert_eq!(bench.run(&first(&strangers)), Action::Pass);
    let before = entries(&bench, OPEN);
    flood(&bench, query, "192.168.1", Action::Pass);
    let kept = entries(&bench, KNOWN).len();
    assert!((1..=MAX_FRAGMENTS as usize).contains(&kept), "{kept} datagrams");
    // Whoever floods its own network's table pushes out the oldest of it, and no other table's.
    assert_eq!(entries(&bench, OPEN), before);
    let datagram = query(FRIEND, 20_000);
    assert_eq!(bench.run(&first(&datagram)), Action::Pass);
    assert_eq!(bench.run(&later(&datagram)), Action::Pass);
}
