//! Neighbours, pings, DHCP and answers: what passes because of what it is, or because this host asked.

use pgfw::config::Echo;
use pgfw_common::frames::{ACK, Frame, SYN};
use pgfw_common::reason::{Action, Reason};
use pgfw_common::record::GATE_SYNS_PER_SECOND;
use pgfw_tests::bench::{Bench, DNS, denied, key, policy};

const HOST: &str = "192.168.1.1";
const GATEWAY: &str = "192.168.1.254";
const HOST6: &str = "2001:db8::1";
const ROUTER6: &str = "fe80::1";
const FAR6: &str = "2001:db8:2::7";
/// Of 2001:db8::1.
const SOLICITED: &str = "ff02::1:ff00:1";

/// Reserved word and target of a solicitation, then an option.
fn target(option: &[u8]) -> Vec<u8> {
    let mut rest = vec![0; 4];
    rest.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    rest.extend(option);
    rest
}

const SOURCE_LINK_LAYER: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 2];
const NONCE: [u8; 8] = [14, 1, 1, 2, 3, 4, 5, 6];

#[test]
fn f26_neighbours_are_heard_as_rfc_4861_asks() {
    let bench = Bench::new(&policy());
    let message =
        |source: &str, to: &str, kind, rest: &[u8]| Frame::icmp(source, to, kind, 0, rest).hop_limit(255);
    for (kind, name) in [(135, "solicitation"), (136, "advertisement")] {
        for source in [ROUTER6, FAR6] {
            let good = message(source, HOST6, kind, &target(&SOURCE_LINK_LAYER));
            bench.expect(name, &good, Reason::NeighbourDiscovery, None);
            bench.expect(name, &good.hop_limit(254), Reason::NeighbourInvalid, None);
            bench.expect(name, &good.byte(55, 1), Reason::NeighbourInvalid, None);
        }
        let short = message(ROUTER6, HOST6, kind, &target(&[])[..19]);
        bench.expect(name, &short, Reason::IcmpTruncated, None);
        // RFC 6980: not in fragments, not even in an atomic one.
        let atomic = message(ROUTER6, HOST6, kind, &target(&[])).fragment6(0, false, 1);
        bench.expect(name, &atomic, Reason::NeighbourInvalid, None);
    }
    let advertisement = message(ROUTER6, "ff02::1", 134, &[0; 12]);
    bench.expect("a router", &advertisement, Reason::NeighbourDiscovery, None);
    bench.expect(
        "a router far away",
        &advertisement.hop_limit(64),
        Reason::NeighbourInvalid,
        None,
    );
    bench.expect(
        "a router without a link-local address",
        &message(FAR6, "ff02::1", 134, &[0; 12]),
        Reason::NeighbourInvalid,
        None,
    );
    bench.expect(
        "a redirect",
        &message(ROUTER6, HOST6, 137, &[0; 36]),
        Reason::IcmpRedirect,
        None,
    );
    bench.expect(
        "a router solicitation",
        &message(ROUTER6, "ff02::2", 133, &[0; 4]),
        Reason::IcmpType,
        None,
    );
    for kind in [130, 131, 132, 143] {
        let hop = |frame: Frame| frame.hop_limit(1);
        bench.expect(
            "MLD",
            &hop(message(ROUTER6, "ff02::1", kind, &[0; 20])),
            Reason::MulticastListener,
            None,
        );
        bench.expect(
            "MLD from afar",
            &hop(message(FAR6, "ff02::1", kind, &[0; 20])),
            Reason::MulticastListenerSource,
            None,
        );
    }
}

#[test]
fn f10_an_unspecified_source_is_for_duplicate_address_detection_and_mld() {
    let bench = Bench::new(&policy());
    let ask = |to: &str, option: &[u8]| Frame::icmp("::", to, 135, 0, &target(option)).hop_limit(255);
    bench.expect(
        "duplicate address detection",
        &ask(SOLICITED, &[]),
        Reason::NeighbourDiscovery,
        None,
    );
    bench.expect(
        "with a nonce",
        &ask(SOLICITED, &NONCE),
        Reason::NeighbourDiscovery,
        None,
    );
    bench.expect(
        "with a link-layer option",
        &ask(SOLICITED, &SOURCE_LINK_LAYER),
        Reason::NeighbourInvalid,
        None,
    );
    bench.expect("to a host", &ask(HOST6, &[]), Reason::NeighbourInvalid, None);
    bench.expect(
        "to all nodes",
        &ask("ff02::1", &[]),
        Reason::NeighbourInvalid,
        None,
    );
    bench.expect(
        "from afar",
        &ask(SOLICITED, &[]).hop_limit(254),
        Reason::NeighbourInvalid,
        None,
    );
    for kind in [131, 132, 143] {
        let frame = Frame::icmp("::", "ff02::16", kind, 0, &[0; 20]);
        bench.expect("a group report", &frame, Reason::MulticastListener, None);
    }
    for kind in [128, 129, 130, 134, 136] {
        let frame = Frame::icmp("::", HOST6, kind, 0, &[0; 20]).hop_limit(255);
        bench.expect("anything else", &frame, Reason::SourceUnspecified, None);
    }
}

#[test]
fn f54_a_deny_of_everything_cuts_nothing_that_keeps_the_host_on_the_net() {
    let mut policy = policy();
    policy.coverage.clear();
    for service in policy.names.keys().copied().collect::<Vec<_>>() {
        for net in ["0.0.0.0/0", "::/0"] {
            policy.coverage.insert(key(service, net), denied());
        }
    }
    let bench = Bench::new(&policy);
    let solicitation = Frame::icmp(ROUTER6, HOST6, 135, 0, &target(&[])).hop_limit(255);
    bench.expect("a neighbour", &solicitation, Reason::NeighbourDiscovery, None);
    let lease = Frame::udp((GATEWAY, 67), ("255.255.255.255", 68));
    bench.expect("a lease", &lease, Reason::DhcpClient, None);
    let lease6 = Frame::udp((ROUTER6, 547), ("fe80::2", 546));
    bench.expect("a lease", &lease6, Reason::DhcpClient, None);
    let query = Frame::udp(("192.168.1.7", 40_000), (HOST, 53));
    bench.expect("a denied query", &query, Reason::ServiceDenied, Some(DNS));
}

/// As fast as they come, only so many pass; the service beside it takes all.
#[test]
fn a_bucket_stands_before_the_gate_and_nowhere_else() {
    let mut policy = policy();
    policy.settings.gate_port = Some(22);
    let bench = Bench::new(&policy);
    let many = |port: u16| -> Vec<Frame> {
        let from = |i: u16| ("192.168.1.7", 10_000 + i);
        (0..4_000)
            .map(|i| Frame::tcp(from(i), (HOST, port), SYN))
            .collect()
    };
    let begun = std::time::Instant::now();
    let passed = |actions: &[Action]| actions.iter().filter(|a| **a == Action::Pass).count() as u64;
    let at_the_gate = passed(&bench.run_all(&many(22)));
    // Each processor that took part had a full bucket, and what came in meanwhile.
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let most = cpus * GATE_SYNS_PER_SECOND * (begun.elapsed().as_secs() + 2);
    assert!(
        (GATE_SYNS_PER_SECOND..=most).contains(&at_the_gate) && at_the_gate < 4_000,
        "{at_the_gate} of 4,000 passed, at most {most} may"
    );
    assert_eq!(passed(&bench.run_all(&many(5432))), 4_000);
    let ack = Frame::tcp(("192.168.1.7", 10_000), (HOST, 22), ACK);
    assert_eq!(bench.ask(&ack).expect("an answer").reason, Reason::NoConnection);
}

#[test]
fn f27_a_dhcp_server_reaches_the_client_only() {
    let bench = Bench::new(&policy());
    for (from, to, local, reason) in [
        (67, 68, HOST, Reason::DhcpClient),
        (67, 68, "255.255.255.255", Reason::DhcpClient),
        (67, 67, HOST, Reason::Udp),
        (68, 68, HOST, Reason::Udp),
        (66, 68, HOST, Reason::Udp),
        (67, 69, HOST, Reason::Udp),
    ] {
        bench.expect("DHCPv4", &Frame::udp((GATEWAY, from), (local, to)), reason, None);
    }
    for (from, to, local, reason) in [
        (547, 546, "fe80::2", Reason::DhcpClient),
        (547, 546, HOST6, Reason::Udp),
        (546, 546, "fe80::2", Reason::Udp),
        (547, 547, "fe80::2", Reason::Udp),
    ] {
        bench.expect("DHCPv6", &Frame::udp((ROUTER6, from), (local, to)), reason, None);
    }
    let mut without = policy();
    without.settings.dhcp_client = false;
    let bench = Bench::new(&without);
    bench.expect(
        "DHCPv4, refused",
        &Frame::udp((GATEWAY, 67), (HOST, 68)),
        Reason::Udp,
        None,
    );
}

#[test]
fn f22_echo_requests_follow_the_configuration() {
    let ping = Frame::icmp(GATEWAY, HOST, 8, 0, &[0; 12]);
    let ping6 = Frame::icmp(ROUTER6, HOST6, 128, 0, &[0; 12]);
    for (echo, reason) in [
        (Echo::Drop, Reason::EchoRequestRefused),
        (Echo::Accept, Reason::EchoRequest),
    ] {
        let mut policy = policy();
        policy.settings.echo = echo;
        let bench = Bench::new(&policy);
        bench.expect("a ping", &ping, reason, None);
        bench.expect("a ping", &ping6, reason, None);
        bench.expect(
            "a reply nobody asked for",
            &Frame::icmp(GATEWAY, HOST, 0, 0, &[0; 12]),
            Reason::EchoReplyUnasked,
            None,
        );
        bench.expect(
            "a reply nobody asked for",
            &Frame::icmp(ROUTER6, HOST6, 129, 0, &[0; 12]),
            Reason::EchoReplyUnasked,
            None,
        );
        for kind in [4, 9, 10, 13, 15, 17, 42] {
            bench.expect(
                "a type no host needs",
                &Frame::icmp(GATEWAY, HOST, kind, 0, &[0; 12]),
                Reason::IcmpType,
                None,
            );
        }
        bench.expect(
            "a redirect",
            &Frame::icmp(GATEWAY, HOST, 5, 1, &[0; 12]),
            Reason::IcmpRedirect,
            None,
        );
    }
}

#[test]
fn f21_an_error_that_quotes_no_flow_of_ours_drops() {
    let bench = Bench::new(&policy());
    let ours = Frame::tcp((HOST, 40_000), ("198.51.100.7", 443), 0x10);
    let ours6 = Frame::tcp((HOST6, 40_000), (FAR6, 443), 0x10);
    for kind in [3, 11, 12] {
        let frame = Frame::icmp(GATEWAY, HOST, kind, 0, &[&[0; 4], ours.packet()].concat());
        bench.expect("an error", &frame, Reason::IcmpErrorUnrelated, None);
    }
    for kind in [1, 2, 3, 4] {
        let frame = Frame::icmp(ROUTER6, HOST6, kind, 0, &[&[0; 4], ours6.packet()].concat());
        bench.expect("an error", &frame, Reason::IcmpErrorUnrelated, None);
        bench.expect(
            "an empty one",
            &Frame::icmp(ROUTER6, HOST6, kind, 0, &[0; 4]),
            Reason::IcmpErrorUnrelated,
            None,
        );
    }
}

#[test]
fn f06_a_later_fragment_is_never_read_as_ports() {
    let bench = Bench::new(&policy());
    let whole = Frame::tcp(("192.168.1.7", 40_000), (HOST, 5432), 0x02);
    let whole6 = Frame::tcp(("2001:db8:1::7", 40_000), (HOST6, 5432), 0x02);
    for offset in [8, 16, 1480, 65_528] {
        bench.expect(
            "later, IPv4",
            &whole.fragment4(offset, true),
            Reason::FragmentUnknown,
            None,
        );
        bench.expect(
            "the last, IPv4",
            &whole.fragment4(offset, false),
            Reason::FragmentUnknown,
            None,
        );
        bench.expect(
            "later, IPv6",
            &whole6.fragment6(offset, true, 7),
            Reason::FragmentUnknown,
            None,
        );
    }
    let tiny = Frame::ip(
        "192.168.1.7",
        HOST,
        6,
        &pgfw_common::frames::tcp(1, 5432, 2)[..16],
    );
    bench.expect(
        "a first one without its whole header",
        &tiny.fragment4(0, true),
        Reason::TcpTruncated,
        None,
    );
}

#[test]
fn f58_asking_spends_nothing() {
    let mut policy = policy();
    policy.settings.echo = Echo::Limit;
    let bench = Bench::new(&policy);
    let ping = Frame::icmp(GATEWAY, HOST, 8, 0, &[0; 12]);
    let before = bench.counters();
    for _ in 0..100 {
        assert_eq!(bench.ask(&ping).expect("an answer").reason, Reason::EchoRequest);
    }
    let first = Frame::udp(("192.168.1.7", 40_000), (HOST, 53)).fragment4(0, true);
    let later = first.fragment4(24, false);
    assert_eq!(bench.ask(&first).expect("an answer").reason, Reason::Service);
    assert_eq!(
        bench.ask(&later).expect("an answer").reason,
        Reason::FragmentUnknown,
        "nothing was remembered"
    );
    assert_eq!(bench.counters(), before);
    // The same packets for real: the budget is whole, and the fragment is remembered.
    bench.expect("a ping", &ping, Reason::EchoRequest, None);
    bench.expect("the first one", &first, Reason::Service, Some(DNS));
    bench.expect("the later one", &later, Reason::Fragment, None);
}
