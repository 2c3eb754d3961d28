//! The way out: it notes, and lets everything go.

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use pgfw_common::frames::{ACK, Frame, RST, SYN};
use pgfw_common::record::ABI;

use pgfw_tests::bench::{Bench, policy};

/// TCX_NEXT (include/uapi/linux/bpf.h): whatever follows decides.
const NEXT: u32 = u32::MAX;

#[test]
fn what_leaves_is_never_dropped() {
    let mut policy = policy();
    policy.settings.forwarded_track = true;
    let bench = Bench::new(&policy);
    let shared = bench.bpffs.path().join(format!("pgfw/v{ABI}"));
    let host = "192.168.1.1";
    let frames = [
        Frame::udp((host, 40_000), ("198.51.100.7", 123)),
        // To a network that a service denies, and from the port of that service.
        Frame::tcp((host, 40_000), ("192.168.1.66", 5432), SYN),
        Frame::tcp((host, 5432), ("192.168.1.66", 40_000), ACK | RST),
        Frame::icmp(host, "198.51.100.7", 5, 1, &[0; 28]),
        Frame::icmp("2001:db8::1", "ff02::1", 137, 0, &[0; 36]),
        Frame::ip(host, "198.51.100.7", 47, &[0; 40]),
        Frame::ip("2001:db8::1", "2001:db8:2::7", 59, &[]).extensions(&[0, 43, 44, 51, 60, 135, 60, 60]),
        Frame::udp((host, 40_000), ("198.51.100.7", 123)).fragment4(24, true),
        Frame::udp((host, 40_000), ("198.51.100.7", 123)).tagged(&[0x8100, 0x8100, 0x8100]),
        Frame::tcp((host, 40_000), ("198.51.100.7", 443), SYN).cut(40),
        Frame::ethernet(0x0806, &[0; 28]),
        Frame::ethernet(0x1234, &[0; 50]),
    ];
    for (program, path) in [
        ("egress", shared.join("egress")),
        ("note", shared.join("gen-1/note")),
    ] {
        let classifier = SchedClassifier::from_pin(path).expect("a pinned program");
        for frame in &frames {
            let options = TestRunOptions {
                data_in: Some(&frame.0),
                ..TestRunOptions::default()
            };
            let ran = bench.namespace.within(|| classifier.test_run(options));
            let word = ran
                .unwrap_or_else(|error| panic!("{error}: {}", frame.hex()))
                .return_value;
            assert_eq!(word, NEXT, "{program}: {}", frame.hex());
        }
    }
}
