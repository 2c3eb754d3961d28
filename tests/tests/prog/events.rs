//! What is told of drops: every one of a few, some of many, none of a question.

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya_obj::programs::XdpAttachType;
use pgfw::clock::Now;
use pgfw::datapath::{Dropped, EventReader, LostEvents};
use pgfw_common::frames::Frame;
use pgfw_common::reason::{Action, Reason};
use pgfw_common::record::{ABI, EVENT_HEAD, EVENT_RING, EVENTS_PER_SECOND, Event};
use pgfw_tests::bench::{Bench, policy};

const STRANGER: &str = "203.0.113.7";
const HOST: &str = "192.168.1.1";

/// More than there will ever be.
const ALL: usize = 1 << 20;

fn reader(bench: &Bench) -> EventReader {
    EventReader::open(&bench.bpffs.path().join("pgfw")).expect("the ring")
}

fn read(reader: &mut EventReader) -> Vec<Dropped> {
    reader.read(ALL).expect("events")
}

fn lost(reader: &EventReader) -> LostEvents {
    reader.lost().expect("counts")
}

fn syn(port: u16) -> Frame {
    Frame::tcp((STRANGER, 40_000), (HOST, port), 0x02)
}

#[test]
fn a_drop_is_told_with_its_reason_and_head_and_a_pass_is_not() {
    let bench = Bench::new(&policy());
    let mut reader = reader(&bench);
    let long = Frame::udp((STRANGER, 40_000), (HOST, 9)).padded(1_400);
    let cases = [
        (syn(5432), Reason::ServiceClosed),
        (syn(80), Reason::NewTcp),
        (
            Frame::tcp((STRANGER, 1), (HOST, 5432), 0x10),
            Reason::NoConnection,
        ),
        (long, Reason::Udp),
        // Lengths around the step in which the head is copied.
        (Frame::ethernet(0x88cc, &[7; 2]), Reason::EtherType),
        (Frame::ethernet(0x88cc, &[7; 9]), Reason::EtherType),
        (Frame::ethernet(0x88cc, &[7; 113]), Reason::EtherType),
        (Frame::ethernet(0x88cc, &[7; 114]), Reason::EtherType),
        (Frame::ethernet(0x88cc, &[7; 115]), Reason::EtherType),
    ];
    for (frame, reason) in cases {
        let before = Now::read().boot;
        assert_eq!(bench.run(&frame), Action::Drop);
        let told = read(&mut reader);
        let [event] = &told[..] else {
            panic!("{} events of {}", told.len(), frame.hex())
        };
        assert_eq!(event.reason, reason, "{}", frame.hex());
        assert_eq!(event.length as usize, frame.0.len());
        assert_eq!(event.head, frame.0[..frame.0.len().min(EVENT_HEAD)]);
        assert!(!event.audit);
        // To the tick, of which the slowest kernel has a hundred a second.
        let (at, tick) = (event.at.0, 10_000_000);
        assert!(
            at + tick >= before.0 && at <= Now::read().boot.0 + tick,
            "{at}, {before:?}"
        );
    }
    assert_eq!(bench.run(&syn(22)), Action::Pass);
    assert_eq!(read(&mut reader), []);
    assert_eq!(lost(&reader), LostEvents::default());
}

#[test]
fn f58_a_question_is_no_event() {
    let bench = Bench::new(&policy());
    let mut reader = reader(&bench);
    let before = budgets(&bench);
    for _ in 0..100 {
        assert_eq!(
            bench.ask(&syn(5432)).expect("an answer").reason,
            Reason::ServiceClosed
        );
    }
    assert_eq!(read(&mut reader), []);
    assert_eq!(budgets(&bench), before, "a question takes no token");
}

#[test]
fn f45_what_cannot_be_told_is_counted_and_every_packet_is_judged() {
    let bench = Bench::new(&policy());
    let mut reader = reader(&bench);
    let frame = syn(5432);
    // The kernel adds eight bytes to a record (BPF_RINGBUF_HDR_SZ).
    let room = u64::from(EVENT_RING) / (size_of::<Event>() as u64 + 8);
    let burst = 3 * EVENTS_PER_SECOND;
    let (mut sent, mut limited, mut full) = (0, 0, 0);
    while full == 0 {
        assert!(sent < 100 * room, "the ring never fills");
        flood(&bench, &frame, burst);
        sent += burst;
        let lost = lost(&reader);
        limited += lost.limited;
        full += lost.full;
        refill(&bench);
    }
    assert!(limited > 0, "the bucket never empties");
    assert_eq!(bench.counters().interfaces[&0][&Reason::ServiceClosed], sent);
    let told = read(&mut reader).len() as u64;
    assert!(told > room - 2 && told <= room, "{told} of {room}");
    assert_eq!(told + limited + full, sent, "every drop is told or counted");
    // There is room again.
    assert_eq!(bench.run(&frame), Action::Drop);
    assert_eq!(read(&mut reader).len(), 1);
}

#[test]
fn audit_tells_what_it_would_have_dropped() {
    let mut watching = policy();
    watching.settings.audit = true;
    let bench = Bench::new(&watching);
    let mut reader = reader(&bench);
    assert_eq!(bench.run(&syn(5432)), Action::Pass);
    assert_eq!(bench.run(&syn(22)), Action::Pass);
    let told = read(&mut reader);
    let said: Vec<_> = told.iter().map(|event| (event.reason, event.audit)).collect();
    assert_eq!(said, [(Reason::ServiceClosed, true)]);
}

#[test]
fn another_ring_under_the_same_name_is_noticed() {
    let bench = Bench::new(&policy());
    let reader = reader(&bench);
    assert!(reader.is_current());
    pgfw::datapath::Datapath::off(&bench.bpffs.path().join("pgfw")).expect("off");
    assert!(!reader.is_current());
}

/// The same frame again and again, faster than tokens come back.
fn flood(bench: &Bench, frame: &Frame, times: u64) {
    let pin = bench.bpffs.path().join(format!("pgfw/v{ABI}/entry"));
    let entry = Xdp::from_pin(pin, XdpAttachType::Interface).expect("the entry");
    let run = TestRunOptions {
        data_in: Some(&frame.0),
        repeat: u32::try_from(times).expect("a small number"),
        ..TestRunOptions::default()
    };
    let dropped = 1;
    assert_eq!(entry.test_run(run).expect("a run").return_value, dropped);
}

/// Each CPU's words: filled, tokens, limited, full.
type Budget = [u64; 4];

fn map(bench: &Bench) -> PerCpuArray<MapData, Budget> {
    let pin = bench.bpffs.path().join(format!("pgfw/v{ABI}/EVENT_BUDGET"));
    let data = MapData::from_pin(pin).expect("the pinned map");
    PerCpuArray::try_from(aya::maps::Map::from_map_data(data).expect("a map")).expect("of its kind")
}

fn budgets(bench: &Bench) -> Vec<Budget> {
    map(bench).get(&0, 0).expect("its element").to_vec()
}

/// As after a quiet second, with nothing lost.
fn refill(bench: &Bench) {
    let cpus = nr_cpus().expect("CPUs");
    let zero = PerCpuValues::try_from(vec![[0; 4]; cpus]).expect("a value for each CPU");
    map(bench).set(0, zero, 0).expect("written");
}
