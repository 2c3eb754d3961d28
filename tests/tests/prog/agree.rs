//! The inside judge: the host-side decision and the compiled program say the same about any bytes.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use pgfw::policy::coverage::ServiceId;
use pgfw_common::frames::{Frame, NETWORK, icmp, tcp, udp};
use pgfw_common::host::corpus::Wanted;
use pgfw_common::host::scene::{self, Switches};
use pgfw_tests::bench::scene::Scene;

fn source() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "192.168.1.7",
        "192.168.1.66",
        "198.51.100.7",
        "203.0.113.66",
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "2001:db8:1::7",
        "2001:db8:2::7",
        "fe80::1",
        "::",
        "::1",
        "::ffff:192.168.1.7",
        "ff02::1",
    ])
}

fn payload() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let port = prop::sample::select(vec![
        22_u16, 53, 67, 68, 123, 443, 546, 547, 5431, 5432, 5433, 40_000, 40_001, 40_002, 40_003,
    ]);
    let inner = (port.clone(), port.clone(), any::<u8>());
    prop_oneof![
        4 => (port.clone(), port.clone(), any::<u8>()).prop_map(|(from, to, flags)| (6, tcp(from, to, flags))),
        2 => (port.clone(), port).prop_map(|(from, to)| (17, udp(from, to, b"data"))),
        2 => (any::<u8>(), 0..3_u8, prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(kind, code, rest)| (1, icmp(kind, code, &rest))),
        3 => (prop::sample::select(vec![1_u8, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143]), 0..2_u8,
              prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(kind, code, rest)| (58, icmp(kind, code, &rest))),
        2 => inner.prop_map(|(from, to, flags)| {
            // An error that quotes a segment which this host might have sent.
            let quote = Frame::ip("192.168.1.1", "198.51.100.7", 6, &tcp(from, to, flags));
            (1, icmp(3, 4, &[&[0; 4], quote.packet()].concat()))
        }),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)),
    ]
}

/// A frame that is mostly right, then made wrong in up to three places and perhaps cut.
fn frame() -> impl Strategy<Value = Frame> {
    let chain = prop::collection::vec(
        prop::sample::select(vec![0_u8, 43, 44, 51, 60, 135, 59, 50]),
        0..8,
    );
    let tags = prop::collection::vec(prop::sample::select(vec![0x8100_u16, 0x88a8]), 0..4);
    let marks = prop::collection::vec((0..100_usize, any::<u8>()), 0..3);
    (
        source(),
        payload(),
        0..4_u8,
        chain,
        tags,
        marks,
        14..200_usize,
        any::<u8>(),
    )
        .prop_map(
            |(source, (protocol, payload), words, chain, tags, marks, cut, hops)| {
                let six = source.contains(':');
                let host = if six { "2001:db8::1" } else { "192.168.1.1" };
                let mut frame = Frame::ip(source, host, protocol, &payload);
                frame = if six {
                    frame.extensions(&chain)
                } else {
                    frame.options(words)
                };
                // Half of them as a neighbour sends them.
                frame = frame.hop_limit(hops | if hops & 1 == 1 { 0xff } else { 0 });
                for (at, value) in marks {
                    if NETWORK + at < frame.0.len() {
                        frame = frame.byte(NETWORK + at, value);
                    }
                }
                if !tags.is_empty() {
                    frame = frame.tagged(&tags);
                }
                if cut < frame.0.len() {
                    frame.cut(cut)
                } else {
                    frame
                }
            },
        )
}

/// A guest, which is many times slower, asks for fewer.
fn random_packets() -> u32 {
    match std::env::var("PGFW_RANDOM_PACKETS") {
        Ok(number) => number.parse().expect("PGFW_RANDOM_PACKETS is a number"),
        Err(_) => 20_000,
    }
}

#[test]
fn the_host_and_the_kernel_decide_alike() {
    for switches in Switches::BOTH {
        let scene = Scene::new(switches);
        let bench = &scene.bench;
        let probe = bench.datapath.probe(1).expect("the probe");
        let mut runner = TestRunner::new(Config {
            cases: random_packets() / 2,
            failure_persistence: None,
            ..Config::default()
        });
        bench.namespace.within(|| {
            let world = scene::world(switches);
            runner
                .run(&frame(), |frame| {
                    let here = Wanted::from(world.ask(&frame.0, scene::ARRIVAL));
                    let there = probe.ask(&frame.0, None).expect("an answer");
                    let service = here.service.map(ServiceId);
                    prop_assert_eq!(
                        (here.reason, service),
                        (there.reason, there.service),
                        "{:?}: {}",
                        switches,
                        frame.hex()
                    );
                    Ok(())
                })
                .unwrap_or_else(|failure| panic!("{failure}"));
        });
    }
}

#[test]
fn f50_every_kernel_gives_the_verdicts_of_the_host_side_decision() {
    // The same packets on every kernel, through the entry that is attached: seeded, and judged outside the kernel too.
    for switches in Switches::BOTH {
        let scene = Scene::new(switches);
        let world = scene::world(switches);
        let mut runner = TestRunner::deterministic();
        let frames: Vec<Frame> = (0..75)
            .map(|_| frame().new_tree(&mut runner).expect("a frame").current())
            .collect();
        for frame in &frames {
            let wanted = world.ask(&frame.0, scene::ARRIVAL).reason.action();
            assert_eq!(scene.bench.run(frame), wanted, "{switches:?}: {}", frame.hex());
        }
    }
}
