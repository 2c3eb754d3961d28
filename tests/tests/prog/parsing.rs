//! What a frame is taken for: truncation, tags, options, extension headers, flags, sources that cannot be.

use pgfw::policy::coverage::{Compiled, ServiceId};
use pgfw_common::frames::{ACK, CWR, ECE, FIN, Frame, IGMP, NETWORK, PSH, RST, SYN, TCP, URG, tcp, udp};
use pgfw_common::reason::Reason;
use pgfw_tests::bench::{Bench, DNS, PG, SSH, VRRP, policy};

const HOST: &str = "192.168.1.1";
const FRIEND: &str = "192.168.1.7";
const STRANGER: &str = "198.51.100.7";
const HOST6: &str = "2001:db8::1";
const FRIEND6: &str = "2001:db8:1::7";
const STRANGER6: &str = "2001:db8:2::7";

fn syn(source: &str, port: u16) -> Frame {
    let host = if source.contains(':') { HOST6 } else { HOST };
    Frame::tcp((source, 40_000), (host, port), SYN)
}

#[test]
fn f01_a_frame_that_ends_within_a_header_drops() {
    let bench = Bench::new(&policy());
    let v4 = syn(FRIEND, 5432);
    let v6 = syn(FRIEND6, 5432);
    let query = Frame::udp((FRIEND, 40_000), (HOST, 53));
    let cases = [
        ("no IPv4 header", v4.cut(14), Reason::Ipv4Truncated),
        (
            "all but one byte of it",
            v4.cut(NETWORK + 19),
            Reason::Ipv4Truncated,
        ),
        ("no TCP header", v4.cut(NETWORK + 20), Reason::Ipv4TotalLength),
        (
            "all but one byte of it",
            v4.cut(NETWORK + 39),
            Reason::Ipv4TotalLength,
        ),
        (
            "all but one byte of IPv6",
            v6.cut(NETWORK + 39),
            Reason::Ipv6Truncated,
        ),
        (
            "all but one byte of TCP",
            v6.cut(NETWORK + 59),
            Reason::Ipv6PayloadLength,
        ),
        // The length says so itself, and padding is no header.
        (
            "19 bytes of TCP",
            Frame::ip(FRIEND, HOST, TCP, &tcp(1, 5432, SYN)[..19]).padded(60),
            Reason::TcpTruncated,
        ),
        (
            "7 bytes of UDP",
            Frame::ip(FRIEND, HOST, 17, &udp(1, 53, &[])[..7]).padded(60),
            Reason::UdpTruncated,
        ),
        (
            "7 bytes of ICMP",
            Frame::ip(FRIEND, HOST, 1, &[8, 0, 0, 0, 0, 0, 0]).padded(60),
            Reason::IcmpTruncated,
        ),
        (
            "a tag without its type",
            v4.tagged(&[0x8100]).cut(16),
            Reason::VlanTruncated,
        ),
        (
            "a data offset of four words",
            v4.byte(NETWORK + 32, 0x40),
            Reason::TcpOffset,
        ),
        (
            "a data offset beyond the packet",
            v4.byte(NETWORK + 32, 0x60),
            Reason::TcpOffset,
        ),
        (
            "a UDP length of seven",
            query.byte(NETWORK + 25, 7),
            Reason::UdpLength,
        ),
        (
            "a UDP length beyond the packet",
            query.byte(NETWORK + 25, 13),
            Reason::UdpLength,
        ),
        (
            "a total length shorter than the header",
            v4.byte(NETWORK + 3, 19),
            Reason::Ipv4TotalLength,
        ),
        (
            "a total length beyond the frame",
            v4.byte(NETWORK + 3, 41),
            Reason::Ipv4TotalLength,
        ),
    ];
    for (what, frame, reason) in cases {
        bench.expect(what, &frame, reason, None);
    }
    for frame in [&v4, &v6, &v4.padded(60), &v6.padded(100)] {
        bench.expect("the whole one", frame, Reason::Service, Some(PG));
    }
    bench.expect("the whole query", &query, Reason::Service, Some(DNS));
}

#[test]
fn f02_options_do_not_hide_the_port() {
    let bench = Bench::new(&policy());
    for words in 0..=10 {
        let what = format!("IHL {}", 5 + words);
        bench.expect(
            &what,
            &syn(FRIEND, 5432).options(words),
            Reason::Service,
            Some(PG),
        );
        bench.expect(
            &what,
            &syn(STRANGER, 5432).options(words),
            Reason::ServiceClosed,
            Some(PG),
        );
        bench.expect(&what, &syn(FRIEND, 5433).options(words), Reason::NewTcp, None);
    }
    for ihl in 0..5 {
        let frame = syn(FRIEND, 5432).byte(NETWORK, 0x40 + ihl);
        bench.expect("IHL below five", &frame, Reason::Ipv4HeaderLength, None);
    }
    for version in [0x05, 0x15, 0x35, 0x55, 0x65, 0xf5] {
        let frame = syn(FRIEND, 5432).byte(NETWORK, version);
        bench.expect("another version in IPv4", &frame, Reason::Ipv4Version, None);
    }
    for version in [0x00, 0x40, 0x50, 0x70] {
        let frame = syn(FRIEND6, 5432).byte(NETWORK, version);
        bench.expect("another version in IPv6", &frame, Reason::Ipv6Version, None);
    }
}

#[test]
fn f03_a_tagged_frame_is_judged_like_an_untagged_one() {
    let bench = Bench::new(&policy());
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;
    for tags in [&[Q][..], &[AD], &[AD, Q], &[Q, Q], &[Q, AD]] {
        let what = format!("tags {tags:x?}");
        for (source, reason) in [(FRIEND, Reason::Service), (STRANGER, Reason::ServiceClosed)] {
            bench.expect(&what, &syn(source, 5432).tagged(tags), reason, Some(PG));
        }
        for (source, reason) in [(FRIEND6, Reason::Service), (STRANGER6, Reason::ServiceClosed)] {
            bench.expect(&what, &syn(source, 5432).tagged(tags), reason, Some(PG));
        }
    }
    for tags in [[Q, Q, Q], [AD, Q, Q], [AD, AD, AD]] {
        bench.expect(
            "three tags",
            &syn(FRIEND, 5432).tagged(&tags),
            Reason::VlanDepth,
            None,
        );
    }
}

#[test]
fn f04_extension_headers_do_not_hide_the_port() {
    let bench = Bench::new(&policy());
    for kind in [0, 43, 51, 60, 135] {
        for length in 1..=6 {
            let chain = vec![kind; length];
            let what = format!("{length} headers of kind {kind}");
            bench.expect(
                &what,
                &syn(FRIEND6, 5432).extensions(&chain),
                Reason::Service,
                Some(PG),
            );
            bench.expect(
                &what,
                &syn(STRANGER6, 5432).extensions(&chain),
                Reason::ServiceClosed,
                Some(PG),
            );
        }
        let chain = vec![kind; 7];
        bench.expect(
            "seven headers",
            &syn(FRIEND6, 5432).extensions(&chain),
            Reason::ExtensionChain,
            None,
        );
    }
    let mixed = syn(FRIEND6, 5432).extensions(&[0, 60, 43, 44, 51, 60]);
    bench.expect("the longest chain of RFC 8200", &mixed, Reason::Service, Some(PG));
    let twice = syn(FRIEND6, 5432).extensions(&[44, 44]);
    bench.expect("two fragment headers", &twice, Reason::ExtensionChain, None);
    let long = syn(FRIEND6, 5432).extensions(&[60]).byte(NETWORK + 41, 200);
    bench.expect(
        "a header beyond the packet",
        &long,
        Reason::ExtensionTruncated,
        None,
    );
}

#[test]
fn f05_unknown_next_headers_drop() {
    let bench = Bench::new(&policy());
    for protocol in [50, 59, 41, 132, 253, 255] {
        for (source, host) in [(FRIEND6, HOST6), (FRIEND, HOST)] {
            let frame = Frame::ip(source, host, protocol, &[0; 40]);
            bench.expect("an unknown protocol", &frame, Reason::Protocol, None);
        }
    }
    // ICMP belongs to its own family.
    bench.expect(
        "ICMP in IPv6",
        &Frame::ip(FRIEND6, HOST6, 1, &[0; 40]),
        Reason::Protocol,
        None,
    );
    bench.expect(
        "ICMPv6 in IPv4",
        &Frame::ip(FRIEND, HOST, 58, &[0; 40]),
        Reason::Protocol,
        None,
    );
    bench.expect(
        "IGMP",
        &Frame::ip(FRIEND, "224.0.0.1", IGMP, &[0x11; 8]),
        Reason::GroupMembership,
        None,
    );
    bench.expect(
        "VRRP",
        &Frame::ip(FRIEND, HOST, 112, &[0; 20]),
        Reason::Service,
        Some(VRRP),
    );
    bench.expect(
        "a stranger's VRRP",
        &Frame::ip(STRANGER, HOST, 112, &[0; 20]),
        Reason::ServiceClosed,
        Some(VRRP),
    );
}

#[test]
fn f08_a_mapped_source_matches_no_ipv4_entry() {
    let bench = Bench::new(&policy());
    let frame = |source| Frame::tcp((source, 40_000), (HOST6, 5432), SYN);
    bench.expect(
        "a mapped friend",
        &frame("::ffff:192.168.1.5"),
        Reason::SourceMapped,
        None,
    );
    bench.expect(
        "a mapped stranger",
        &frame("::ffff:198.51.100.7"),
        Reason::SourceMapped,
        None,
    );
    bench.expect(
        "its neighbour",
        &frame("::fffe:192.168.1.5"),
        Reason::ServiceClosed,
        Some(PG),
    );
}

#[test]
fn f10_sources_that_cannot_be_drop() {
    // Every address may reach PostgreSQL here, so that only what it is can refuse it.
    let mut policy = policy();
    for net in ["0.0.0.0/0", "::/0"] {
        policy
            .coverage
            .insert(pgfw_tests::bench::key(PG, net), pgfw_tests::bench::allowed());
    }
    let bench = Bench::new(&policy);
    let cases: [(&str, Reason, Option<ServiceId>); 20] = [
        ("0.0.0.0", Reason::SourceUnspecified, None),
        ("0.255.255.255", Reason::SourceUnspecified, None),
        ("1.0.0.0", Reason::Service, Some(PG)),
        ("126.255.255.255", Reason::Service, Some(PG)),
        ("127.0.0.1", Reason::SourceLoopback, None),
        ("127.255.255.255", Reason::SourceLoopback, None),
        ("128.0.0.0", Reason::Service, Some(PG)),
        ("223.255.255.255", Reason::Service, Some(PG)),
        ("224.0.0.0", Reason::SourceMulticast, None),
        ("239.255.255.255", Reason::SourceMulticast, None),
        ("240.0.0.0", Reason::Service, Some(PG)),
        ("255.255.255.254", Reason::Service, Some(PG)),
        ("255.255.255.255", Reason::SourceBroadcast, None),
        ("::", Reason::SourceUnspecified, None),
        ("::1", Reason::SourceLoopback, None),
        ("::2", Reason::Service, Some(PG)),
        ("fe80::1", Reason::Service, Some(PG)),
        ("feff::1", Reason::Service, Some(PG)),
        ("ff00::1", Reason::SourceMulticast, None),
        ("ff02::1", Reason::SourceMulticast, None),
    ];
    for (source, reason, service) in cases {
        bench.expect(source, &syn(source, 5432), reason, service);
    }
}

#[test]
fn f11_flags_that_no_connection_uses_drop() {
    let bench = Bench::new(&policy());
    for flags in 0..=255_u8 {
        let implausible = flags & (ACK | SYN | RST) == 0 || flags & SYN != 0 && flags & (FIN | RST) != 0;
        for (source, host) in [(FRIEND, HOST), (FRIEND6, HOST6)] {
            let frame = Frame::tcp((source, 40_000), (host, 5432), flags);
            let (reason, service) = if implausible {
                (Reason::TcpFlags, None)
            } else {
                (Reason::Service, Some(PG))
            };
            bench.expect(&format!("flags {flags:#04x}"), &frame, reason, service);
        }
    }
    // AE (RFC 9768) is the bit before CWR, in the byte of the data offset.
    for accurate in [0x50, 0x51] {
        let frame = syn(STRANGER, 22)
            .byte(NETWORK + 32, accurate)
            .byte(NETWORK + 33, SYN | ECE | CWR);
        bench.expect("an ECN set-up", &frame, Reason::Service, Some(SSH));
    }
    for flags in [FIN | PSH | URG, PSH, URG, 0] {
        let frame = Frame::tcp((STRANGER, 40_000), (HOST, 22), flags);
        bench.expect("a scan of a service open to all", &frame, Reason::TcpFlags, None);
    }
}

#[test]
fn f15_a_stray_segment_finds_no_service_open_to_the_world() {
    let bench = Bench::new(&policy());
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, PSH | ACK] {
        for port in [22, 5432] {
            let service = if port == 22 { SSH } else { PG };
            let frame = Frame::tcp((STRANGER, 40_000), (HOST, port), flags);
            bench.expect("a probe", &frame, Reason::NoConnection, Some(service));
        }
        let frame = Frame::tcp((STRANGER, 40_000), (HOST, 9999), flags);
        bench.expect("a probe of no service", &frame, Reason::NoConnection, None);
    }
}

#[test]
fn f28_link_layer_protocols_pass_by_name() {
    let with = |ether_types: &[u16], stp| {
        let mut policy: Compiled = policy();
        policy.settings.ether_types = ether_types.to_vec();
        policy.settings.stp = stp;
        Bench::new(&policy)
    };
    let spanning_tree = {
        let mut frame = Frame::ethernet(38, &[0x42, 0x42, 0x03, 0, 0, 0, 0]);
        frame.0[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0]);
        frame
    };
    let lldp = Frame::ethernet(0x88cc, &[0; 50]);
    let lacp = Frame::ethernet(0x8809, &[0; 50]);
    let arp = Frame::ethernet(0x0806, &[0; 28]);

    let some = with(&[0x88cc, 0x888e], true);
    some.expect("ARP", &arp, Reason::Arp, None);
    some.expect("LLDP, listed", &lldp, Reason::LinkLayer, None);
    some.expect("LACP, not listed", &lacp, Reason::EtherType, None);
    some.expect("spanning tree, listed", &spanning_tree, Reason::LinkLayer, None);
    some.expect("to another group", &spanning_tree.byte(5, 1), Reason::Llc, None);
    some.expect("another LLC", &spanning_tree.byte(14, 0xaa), Reason::Llc, None);
    some.expect("no LLC", &spanning_tree.cut(14), Reason::Llc, None);
    some.expect(
        "MPLS",
        &Frame::ethernet(0x8847, &[0; 50]),
        Reason::EtherType,
        None,
    );
    some.expect("a tagged LLDP", &lldp.tagged(&[0x8100]), Reason::LinkLayer, None);

    let none = with(&[], false);
    none.expect("ARP", &arp, Reason::Arp, None);
    none.expect("LLDP", &lldp, Reason::EtherType, None);
    none.expect("spanning tree", &spanning_tree, Reason::Llc, None);

    let full: Vec<u16> = (0..16).map(|i| 0x9000 + i).collect();
    let full = with(&full, false);
    for i in 0..16 {
        full.expect(
            "each listed one",
            &Frame::ethernet(0x9000 + i, &[0; 50]),
            Reason::LinkLayer,
            None,
        );
    }
    full.expect(
        "the next",
        &Frame::ethernet(0x9010, &[0; 50]),
        Reason::EtherType,
        None,
    );
}
