//! ICMP errors about what this host sent, and the ICMPv6 types that no host needs (RFC 4890, RFC 5927). Errors in IPv4
//! stand with the stories; docs/conformance.md names these tests requirement by requirement.

use std::vec::Vec;

use crate::address::{Ends, Family, v4, v6};
use crate::coverage::{ABSENT, FOREVER, Jiffies};
use crate::decide::Arrival;
use crate::frames::{ACK, Frame, SYN, icmp, udp};
use crate::host::{Prefix, World};
use crate::reason::Reason;
use crate::record::{Coverage, NoteKey, ServiceKey, ServiceRow};
use crate::tables::Socket;

const HOST: &str = "192.168.1.1";
const PEER: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";
const HOST6: &str = "2001:db8::1";
const PEER6: &str = "2001:db8:9::7";
const ROUTER6: &str = "2001:db8:5::1";
const ESP: u8 = 50;
const SCTP: u8 = 132;

const NOW: Arrival = Arrival {
    now: Jiffies(1_000_000),
    ifindex: 2,
};

/// A connection from here to PEER6's port 443; ESP, and SCTP at port 2905, for PEER.
fn world() -> World {
    let mut world = World::default();
    let flow = NoteKey {
        ends: Ends {
            remote: v6([0x20, 1, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
            local: v6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        },
        remote_port: 443,
        local_port: 40_000,
        protocol: 6,
        pad: [0; 3],
    };
    world.sockets.insert(flow, Socket::Connected);
    for (protocol, port) in [(ESP, 0), (SCTP, 2905)] {
        let key = ServiceKey {
            port,
            protocol,
            pad: 0,
        };
        let row = ServiceRow {
            service: 1,
            counter: 1,
        };
        world.services.insert(key, row);
    }
    world.prefixes.push(Prefix {
        service: 1,
        family: Family::V4,
        network: v4([198, 51, 100, 7]),
        coverage: Coverage {
            deny_until: ABSENT,
            allow_until: FOREVER,
            deny_boot: 0,
            allow_boot: 0,
            flags: 0,
            prefix_length: 32,
        },
    });
    world
}

fn reason(world: &World, frame: &Frame) -> Reason {
    world.judge(&frame.0, NOW).reason
}

/// An ICMPv6 error of a router about a packet of ours.
fn about(kind: u8, code: u8, word: [u8; 4], sent: &Frame) -> Frame {
    Frame::icmp(ROUTER6, HOST6, kind, code, &[&word[..], sent.packet()].concat())
}

fn segment(port: u16) -> Frame {
    Frame::tcp((HOST6, 40_000), (PEER6, port), ACK)
}

#[test]
fn f21_every_icmpv6_error_about_a_live_flow_passes_whatever_its_code() {
    let world = world();
    world.send(&Frame::udp((HOST6, 50_000), (PEER6, 123)).0, NOW.now);
    world.send(&Frame::icmp(HOST6, PEER6, 128, 0, &[0, 7, 0, 1]).0, NOW.now);
    let echo = |id| Frame::ip(HOST6, PEER6, 58, &icmp(128, 0, &[0, id, 0, 1]));
    let query = |port| Frame::ip(HOST6, PEER6, 17, &udp(port, 123, b""));
    for (kind, codes) in [(1, 0..=6), (2, 0..=1), (3, 0..=1), (4, 0..=3)] {
        for code in codes {
            for (live, dead) in [
                (segment(443), segment(444)),
                (query(50_000), query(50_001)),
                (echo(7), echo(8)),
                // Behind an extension header, as a host with an option in force sends it.
                (segment(443).extensions(&[60]), segment(442).extensions(&[60])),
            ] {
                let word = [0, 0, 5, 0];
                let at = (kind, code);
                assert_eq!(
                    reason(&world, &about(kind, code, word, &live)),
                    Reason::IcmpError,
                    "{at:?}"
                );
                let dead = about(kind, code, word, &dead);
                assert_eq!(reason(&world, &dead), Reason::IcmpErrorUnrelated, "{at:?}");
            }
        }
    }
}

#[test]
fn f21_what_only_tcp_can_judge_is_left_to_tcp() {
    let world = world();
    // RFC 5927, 4.1 and 7.2: the sequence number and the claimed size change no verdict; the stack checks them.
    for sequence in [0_u32, 1, 0x7fff_ffff, u32::MAX] {
        let sent = segment(443).bytes(14 + 40 + 4, &sequence.to_be_bytes());
        for size in [0_u32, 68, 1280, 1500, u32::MAX] {
            let error = about(2, 0, size.to_be_bytes(), &sent);
            assert_eq!(reason(&world, &error), Reason::IcmpError, "{sequence} {size}");
        }
    }
}

#[test]
fn f21_an_error_about_a_tunnel_passes_for_a_peer_that_it_serves() {
    let world = world();
    let sent = |from, to, protocol| Frame::ip(from, to, protocol, &[0, 0, 0, 9, 0, 0, 0, 1, 1, 2, 3, 4]);
    let ports = |local: u16| {
        Frame::ip(
            HOST,
            PEER,
            SCTP,
            &[&local.to_be_bytes()[..], &[9, 9, 0, 0, 0, 0]].concat(),
        )
    };
    let too_big = |sent: &Frame| {
        let quote = [&[0, 0, 5, 0x78], sent.packet()].concat();
        Frame::icmp("10.0.0.1", HOST, 3, 4, &quote)
    };
    for (what, passes) in [
        (sent(HOST, PEER, ESP), true),
        (sent(HOST, OTHER, ESP), false),
        // GRE is no service here.
        (sent(HOST, PEER, 47), false),
        (ports(2905), true),
        (ports(2906), false),
        // What the peer sent, and what another host sent.
        (sent(PEER, HOST, ESP), false),
        (sent("192.168.1.2", PEER, ESP), false),
    ] {
        let wanted = if passes {
            Reason::IcmpError
        } else {
            Reason::IcmpErrorUnrelated
        };
        assert_eq!(reason(&world, &too_big(&what)), wanted, "{}", what.hex());
    }
}

#[test]
fn f30_errors_and_echoes_of_what_is_forwarded_pass_with_track_only() {
    let syn = Frame::tcp((HOST6, 41_000), (PEER6, 443), SYN);
    let ping = Frame::icmp(HOST6, PEER6, 128, 0, &[0, 9, 0, 1]);
    let reply = Frame::icmp(PEER6, HOST6, 129, 0, &[0, 9, 0, 1]);
    for (track, error, echo) in [
        (0, Reason::IcmpErrorUnrelated, Reason::EchoReplyUnasked),
        (1, Reason::IcmpError, Reason::EchoReply),
    ] {
        let mut world = world();
        world.settings.track = track;
        world.forward(&syn.0, NOW.now);
        world.forward(&ping.0, NOW.now);
        for kind in 1..=4 {
            assert_eq!(
                reason(&world, &about(kind, 0, [0; 4], &syn)),
                error,
                "{kind}, {track}"
            );
        }
        assert_eq!(reason(&world, &reply), echo, "{track}");
        // Requests through this host are asked of this host's own setting.
        let request = Frame::icmp(PEER6, HOST6, 128, 0, &[0, 9, 0, 1]);
        assert_eq!(reason(&world, &request), Reason::EchoRequestRefused);
    }
}

#[test]
fn f26_icmpv6_types_that_no_host_needs_drop_even_from_a_neighbour() {
    let world = world();
    let heard: Vec<u8> = (1..=4).chain(128..=132).chain(134..=137).chain([143]).collect();
    for kind in (0..=u8::MAX).filter(|kind| !heard.contains(kind)) {
        let mut quoting = about(kind, 0, [0; 4], &segment(443));
        assert_eq!(reason(&world, &quoting), Reason::IcmpType, "{kind}");
        quoting = Frame::icmp("fe80::1", "fe80::2", kind, 0, &[0; 40]).hop_limit(255);
        assert_eq!(reason(&world, &quoting), Reason::IcmpType, "{kind}");
    }
}
