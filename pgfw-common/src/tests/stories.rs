use std::vec::Vec;

use crate::address::{Ends, Family, v4};
use crate::coverage::{ABSENT, FOREVER, Jiffies};
use crate::decide::Arrival;
use crate::frames::{ACK, FIN, Frame, RST, SYN, icmp, tcp, udp};
use crate::host::{Prefix, World};
use crate::reason::Reason;
use crate::record::{
    Coverage, ECHO_LIMIT, ECHO_PER_SECOND, GATE_SYNS_PER_SECOND, GateBudget, NoteKey, ServiceKey, ServiceRow,
    Settings,
};
use crate::tables::Socket;

const HOST: &str = "192.168.1.1";
const PEER: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";
const HOST6: &str = "2001:db8::1";
const PEER6: &str = "2001:db8:9::7";
const HZ: u64 = 250;

/// A moment in seconds.
fn at(seconds: u64) -> Arrival {
    Arrival {
        now: Jiffies(1_000_000 + seconds * HZ),
        ifindex: 2,
    }
}

/// SSH open to the world, DNS open to PEER, nothing said and nothing held.
fn world() -> World {
    let row = |service, network, prefix_length, flags| Prefix {
        service,
        family: Family::V4,
        network,
        coverage: Coverage {
            deny_until: ABSENT,
            allow_until: FOREVER,
            deny_boot: 0,
            allow_boot: 0,
            flags,
            prefix_length,
        },
    };
    let service = |protocol, port, service| {
        let key = ServiceKey {
            port,
            protocol,
            pad: 0,
        };
        (
            key,
            ServiceRow {
                service,
                counter: service,
            },
        )
    };
    World {
        settings: Settings {
            dhcp_client: 1,
            ..Settings::new()
        },
        services: [service(6, 22, 1), service(17, 53, 2)].into(),
        prefixes: Vec::from([
            row(1, v4([0; 4]), 0, Coverage::WORLD),
            row(2, v4([198, 51, 100, 7]), 32, 0),
        ]),
        ..World::default()
    }
}

fn reason(world: &World, frame: &Frame, seconds: u64) -> Reason {
    world.judge(&frame.0, at(seconds)).reason
}

fn say(world: &World, frame: &Frame, seconds: u64) {
    world.send(&frame.0, at(seconds).now);
}

/// PEER's flow from `remote` to our `local` port.
fn flow(remote_port: u16, local_port: u16) -> NoteKey {
    NoteKey {
        ends: Ends {
            remote: v4([198, 51, 100, 7]),
            local: v4([192, 168, 1, 1]),
        },
        remote_port,
        local_port,
        protocol: 6,
        pad: [0; 3],
    }
}

#[test]
fn f14_an_outbound_connection_is_the_tuple_and_no_other() {
    let mut world = world();
    world.sockets.insert(flow(443, 40_000), Socket::Connected);
    let segment = |from: (&str, u16), port, flags| Frame::tcp(from, (HOST, port), flags);
    for flags in [SYN | ACK, ACK, FIN | ACK, RST] {
        assert_eq!(
            reason(&world, &segment((PEER, 443), 40_000, flags), 0),
            Reason::Established
        );
        for (from, port) in [
            ((PEER, 442), 40_000),
            ((PEER, 444), 40_000),
            ((PEER, 443), 40_001),
            ((OTHER, 443), 40_000),
        ] {
            assert_eq!(
                reason(&world, &segment(from, port, flags), 0),
                Reason::NoConnection
            );
        }
    }
    // F17: a stranger's new SYN on the tuple is new all the same.
    assert_eq!(
        reason(&world, &segment((PEER, 443), 40_000, SYN), 0),
        Reason::NewTcp
    );
}

#[test]
fn f15_a_listener_is_no_connection() {
    let mut world = world();
    for port in [22, 8000] {
        world.sockets.insert(flow(1024, port), Socket::Listening);
        for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
            let frame = Frame::tcp((PEER, 1024), (HOST, port), flags);
            assert_eq!(reason(&world, &frame, 0), Reason::NoConnection);
        }
    }
}

#[test]
fn f16_an_ack_with_our_cookie_completes_a_handshake_and_nothing_else_does() {
    let mut world = world();
    world.sockets.insert(flow(1024, 22), Socket::Listening);
    world.cookies.push(flow(1024, 22));
    let segment = |port, flags| Frame::tcp((PEER, port), (HOST, 22), flags);
    assert_eq!(reason(&world, &segment(1024, ACK), 0), Reason::SynCookie);
    for flags in [SYN | ACK, RST | ACK, RST] {
        assert_eq!(reason(&world, &segment(1024, flags), 0), Reason::NoConnection);
    }
    assert_eq!(reason(&world, &segment(1025, ACK), 0), Reason::NoConnection);
}

#[test]
fn f20_an_answer_passes_while_we_have_just_spoken() {
    let world = world();
    let answer = Frame::udp((PEER, 123), (HOST, 40_000));
    assert_eq!(reason(&world, &answer, 0), Reason::Udp, "unsolicited");
    say(&world, &Frame::udp((HOST, 40_000), (PEER, 123)), 0);
    assert_eq!(reason(&world, &answer, 29), Reason::Answer);
    for stranger in [
        Frame::udp((OTHER, 123), (HOST, 40_000)),
        Frame::udp((PEER, 124), (HOST, 40_000)),
        Frame::udp((PEER, 123), (HOST, 40_001)),
    ] {
        assert_eq!(reason(&world, &stranger, 1), Reason::Udp);
    }
    assert_eq!(
        reason(&world, &answer, 30),
        Reason::Udp,
        "answered once, and late"
    );
}

#[test]
fn f20_a_conversation_lasts_longer_than_a_query() {
    let world = world();
    let question = Frame::udp((HOST6, 40_000), (PEER6, 123));
    let answer = Frame::udp((PEER6, 123), (HOST6, 40_000));
    say(&world, &question, 0);
    assert_eq!(reason(&world, &answer, 1), Reason::Answer);
    assert_eq!(reason(&world, &answer, 2), Reason::Answer);
    assert_eq!(reason(&world, &answer, 119), Reason::Answer);
    // Answers do not prolong it: a peer could keep a door open that we have forgotten.
    assert_eq!(reason(&world, &answer, 120), Reason::Udp);
    // Begun anew it is a query again.
    say(&world, &question, 200);
    assert_eq!(reason(&world, &answer, 201), Reason::Answer);
    assert_eq!(reason(&world, &answer, 231), Reason::Udp);
    // While it lasts, speaking prolongs it.
    say(&world, &question, 300);
    for seconds in [301, 302, 310] {
        assert_eq!(reason(&world, &answer, seconds), Reason::Answer);
    }
    say(&world, &question, 400);
    assert_eq!(reason(&world, &answer, 519), Reason::Answer);
}

#[test]
fn a_service_does_not_keep_those_in_whom_it_served() {
    let mut world = world();
    let query = Frame::udp((PEER, 40_000), (HOST, 53));
    let answer = Frame::udp((HOST, 53), (PEER, 40_000));
    assert_eq!(reason(&world, &query, 0), Reason::Service);
    say(&world, &answer, 0);
    assert!(world.notes.borrow().is_empty(), "an answer is no question");
    // The entry ends; an answer under way leaves a door open, and no later one keeps it so.
    world.prefixes.retain(|prefix| prefix.service != 2);
    say(&world, &answer, 1);
    for seconds in [10, 20, 30] {
        assert_eq!(reason(&world, &query, seconds), Reason::Answer);
        say(&world, &answer, seconds);
    }
    assert_eq!(reason(&world, &query, 121), Reason::ServiceClosed);
}

#[test]
fn f22_our_ping_is_answered_once_asked() {
    let world = world();
    let echo = |kind: u8, id: u8, from: &str, to: &str| Frame::icmp(from, to, kind, 0, &[0, id, 0, 1]);
    assert_eq!(
        reason(&world, &echo(0, 7, PEER, HOST), 0),
        Reason::EchoReplyUnasked
    );
    say(&world, &echo(8, 7, HOST, PEER), 0);
    assert_eq!(reason(&world, &echo(0, 7, PEER, HOST), 1), Reason::EchoReply);
    assert_eq!(
        reason(&world, &echo(0, 8, PEER, HOST), 1),
        Reason::EchoReplyUnasked
    );
    assert_eq!(
        reason(&world, &echo(0, 7, OTHER, HOST), 1),
        Reason::EchoReplyUnasked
    );
    assert_eq!(
        reason(&world, &echo(0, 7, PEER, HOST), 30),
        Reason::EchoReplyUnasked
    );
    say(&world, &echo(128, 9, HOST6, PEER6), 0);
    assert_eq!(reason(&world, &echo(129, 9, PEER6, HOST6), 1), Reason::EchoReply);
    // What we answer is no question.
    say(&world, &echo(0, 5, HOST, PEER), 0);
    assert_eq!(
        reason(&world, &echo(0, 5, PEER, HOST), 1),
        Reason::EchoReplyUnasked
    );
}

#[test]
fn f22_a_limit_lets_some_pings_in() {
    let mut world = world();
    world.settings.echo = ECHO_LIMIT;
    let ping = Frame::icmp(PEER, HOST, 8, 0, &[0, 1, 0, 1]);
    for _ in 0..ECHO_PER_SECOND {
        assert_eq!(reason(&world, &ping, 0), Reason::EchoRequest);
    }
    assert_eq!(reason(&world, &ping, 0), Reason::EchoRequestRefused);
    assert_eq!(reason(&world, &ping, 1), Reason::EchoRequest);
}

#[test]
fn a_bucket_stands_before_the_gate_and_nowhere_else() {
    let mut world = world();
    world.settings.gate_port = 22;
    let syn = Frame::tcp((OTHER, 40_000), (HOST, 22), SYN);
    for _ in 0..GATE_SYNS_PER_SECOND {
        assert_eq!(reason(&world, &syn, 0), Reason::Service);
    }
    assert_eq!(reason(&world, &syn, 0), Reason::GateLimit);
    // Whoever has begun goes on; a service beside it does not notice.
    world.sockets.insert(flow(40_000, 22), Socket::Connected);
    let ack = Frame::tcp((PEER, 40_000), (HOST, 22), ACK);
    assert_eq!(reason(&world, &ack, 0), Reason::Established);
    // A hundredth of a second gives one, a second all, an hour no more.
    let filled = at(9).now.0;
    world.gate.set(GateBudget { filled, tokens: 0 });
    let tick = |world: &World, more| {
        let now = Jiffies(filled + more);
        world.judge(&syn.0, Arrival { now, ..at(0) }).reason
    };
    assert_eq!(tick(&world, 2), Reason::GateLimit);
    assert_eq!(tick(&world, 3), Reason::Service);
    assert_eq!(tick(&world, 3), Reason::GateLimit);
    let passes = |_: &u64| tick(&world, 3_600 * HZ) == Reason::Service;
    assert_eq!((0..1_000).filter(passes).count() as u64, GATE_SYNS_PER_SECOND);
    // A gate elsewhere limits nothing here.
    world.settings.gate_port = 5430;
    assert_eq!(tick(&world, 3_600 * HZ), Reason::Service);
}

#[test]
fn f21_an_error_passes_when_it_quotes_our_live_flow() {
    let mut world = world();
    world.sockets.insert(flow(443, 40_000), Socket::Connected);
    world.sockets.insert(flow(1024, 22), Socket::Listening);
    say(&world, &Frame::udp((HOST, 50_000), (PEER, 123)), 0);
    say(&world, &Frame::icmp(HOST, PEER, 8, 0, &[0, 7, 0, 1]), 0);
    // From a router on the way, about what we sent.
    let about =
        |kind, sent: &Frame| Frame::icmp(OTHER, HOST, kind, 4, &[&[0, 0, 5, 0x78], sent.packet()].concat());
    let segment = |to: &str, local, remote| Frame::tcp((HOST, local), (to, remote), ACK);
    let echo = |id| Frame::ip(HOST, PEER, 1, &icmp(8, 0, &[0, id, 0, 1]));
    let cases = [
        (segment(PEER, 40_000, 443), true),
        (segment(PEER, 40_001, 443), false),
        (segment(PEER, 40_000, 444), false),
        (segment(OTHER, 40_000, 443), false),
        (segment(PEER, 22, 1024), false),
        (segment(PEER, 40_000, 443).options(3), true),
        (Frame::ip(HOST, PEER, 17, &udp(50_000, 123, b"")), true),
        (Frame::ip(HOST, PEER, 17, &udp(50_001, 123, b"")), false),
        (echo(7), true),
        (echo(8), false),
        // An answer of a service to one whom it serves.
        (Frame::ip(HOST, PEER, 17, &udp(53, 40_000, b"")), true),
        (Frame::ip(HOST, OTHER, 17, &udp(53, 40_000, b"")), false),
        // What another host sent.
        (Frame::tcp((PEER, 40_000), (HOST, 443), ACK), false),
        (Frame::tcp(("192.168.1.2", 40_000), (PEER, 443), ACK), false),
        // A later fragment has no ports to show.
        (segment(PEER, 40_000, 443).fragment4(1480, false), false),
    ];
    for (sent, live) in &cases {
        let wanted = if *live {
            Reason::IcmpError
        } else {
            Reason::IcmpErrorUnrelated
        };
        for kind in [3, 11, 12] {
            assert_eq!(reason(&world, &about(kind, sent), 1), wanted, "{}", sent.hex());
        }
    }
    // Eight bytes of the transport header are enough, and seven are not.
    let short = |bytes: usize| {
        let sent = Frame::ip(HOST, PEER, 6, &tcp(40_000, 443, ACK));
        Frame::icmp(
            OTHER,
            HOST,
            3,
            4,
            &[&[0; 4], &sent.packet()[..20 + bytes]].concat(),
        )
    };
    assert_eq!(reason(&world, &short(8), 1), Reason::IcmpError);
    assert_eq!(reason(&world, &short(7), 1), Reason::IcmpErrorUnrelated);
    // Nor are they with the link's padding behind them.
    assert_eq!(
        reason(&world, &short(7).padded(80), 1),
        Reason::IcmpErrorUnrelated
    );
}

#[test]
fn f57_later_fragments_follow_a_first_one_that_passed() {
    let world = world();
    let datagram = |source: &str| Frame::ip(source, HOST, 17, &udp(40_000, 53, &[0; 32]));
    let later = datagram(PEER).fragment4(24, false);
    assert_eq!(reason(&world, &later, 0), Reason::FragmentUnknown);
    assert_eq!(
        reason(&world, &datagram(PEER).fragment4(0, true), 0),
        Reason::Service
    );
    assert_eq!(reason(&world, &later, 1), Reason::Fragment);
    assert_eq!(
        reason(&world, &later.bytes(18, &[0, 9]), 1),
        Reason::FragmentUnknown,
        "another id"
    );
    assert_eq!(
        reason(&world, &datagram(OTHER).fragment4(24, false), 1),
        Reason::FragmentUnknown
    );
    let elsewhere = Arrival { ifindex: 3, ..at(1) };
    assert_eq!(world.judge(&later.0, elsewhere).reason, Reason::FragmentUnknown);
    assert_eq!(
        reason(&world, &later, 2),
        Reason::FragmentUnknown,
        "two seconds later"
    );
    // A first one that did not pass opens nothing.
    assert_eq!(
        reason(&world, &datagram(OTHER).fragment4(0, true), 3),
        Reason::ServiceClosed
    );
    assert_eq!(
        reason(&world, &datagram(OTHER).fragment4(24, false), 3),
        Reason::FragmentUnknown
    );
    assert_eq!(world.fragments.borrow().len(), 1);
}

#[test]
fn f07_an_atomic_fragment_is_a_whole_packet() {
    let world = world();
    say(&world, &Frame::udp((HOST6, 40_000), (PEER6, 123)), 0);
    let answer = Frame::udp((PEER6, 123), (HOST6, 40_000));
    assert_eq!(reason(&world, &answer.fragment6(0, false, 1), 1), Reason::Answer);
    assert!(world.fragments.borrow().is_empty());
    assert_eq!(reason(&world, &answer.fragment6(0, true, 2), 1), Reason::Answer);
    assert_eq!(
        reason(&world, &answer.fragment6(8, false, 2), 1),
        Reason::Fragment
    );
    assert_eq!(
        reason(&world, &answer.fragment6(8, false, 3), 1),
        Reason::FragmentUnknown
    );
}

#[test]
fn f01_a_frame_shorter_than_ethernet_is_none() {
    for length in 0..14 {
        let frame = Frame::ethernet(0x0806, &[]).cut(length);
        assert_eq!(reason(&world(), &frame, 0), Reason::EthernetTruncated);
    }
}

#[test]
fn f30_a_tracked_containers_connection_gets_its_answers_and_no_other_does() {
    let tracking = |track| {
        let mut world = world();
        world.settings.track = track;
        world
    };
    let syn = Frame::tcp((HOST, 40_000), (PEER, 443), SYN);
    let answer = Frame::tcp((PEER, 443), (HOST, 40_000), SYN | ACK);
    let dropping = tracking(0);
    dropping.forward(&syn.0, at(0).now);
    assert_eq!(reason(&dropping, &answer, 0), Reason::NoConnection);

    let world = tracking(1);
    assert_eq!(reason(&world, &answer, 0), Reason::NoConnection, "unsolicited");
    // What this host sends itself is the socket table's business.
    say(&world, &syn, 0);
    assert_eq!(reason(&world, &answer, 0), Reason::NoConnection);
    world.forward(&syn.0, at(0).now);
    assert_eq!(reason(&world, &answer, 239), Reason::Answer);
    for stranger in [
        Frame::tcp((OTHER, 443), (HOST, 40_000), ACK),
        Frame::tcp((PEER, 444), (HOST, 40_000), ACK),
        Frame::tcp((PEER, 443), (HOST, 40_001), ACK),
    ] {
        assert_eq!(reason(&world, &stranger, 1), Reason::NoConnection);
    }
    let again = Frame::tcp((PEER, 443), (HOST, 40_000), SYN);
    assert_eq!(
        reason(&world, &again, 1),
        Reason::NewTcp,
        "a new connection to us"
    );
    // One that is never answered is forgotten sooner.
    world.forward(&Frame::tcp((HOST, 40_002), (PEER, 443), SYN).0, at(0).now);
    let late = Frame::tcp((PEER, 443), (HOST, 40_002), SYN | ACK);
    assert_eq!(reason(&world, &late, 240), Reason::NoConnection);
    assert_eq!(reason(&world, &answer, 239), Reason::Answer);
    assert_eq!(reason(&world, &answer, 7_439), Reason::Answer, "established");
    assert_eq!(reason(&world, &answer, 7_440), Reason::NoConnection, "forgotten");
}

#[test]
fn a_protocol_is_served_at_its_ports_where_it_has_some() {
    let mut world = world();
    let row = |service| ServiceRow {
        service,
        counter: service,
    };
    let key = |protocol, port| ServiceKey {
        port,
        protocol,
        pad: 0,
    };
    // SCTP at one port, VRRP, both open to PEER as DNS is.
    world.services.insert(key(132, 3868), row(2));
    world.services.insert(key(112, 0), row(2));
    let sctp = |from, port: u16| {
        Frame::ip(
            from,
            HOST,
            132,
            &[&[0x12, 0x34][..], &port.to_be_bytes(), &[0; 12]].concat(),
        )
    };
    for (from, port, expected) in [
        (PEER, 3868, Reason::Service),
        (OTHER, 3868, Reason::ServiceClosed),
        (PEER, 3867, Reason::Protocol),
        (PEER, 0, Reason::Protocol),
    ] {
        assert_eq!(reason(&world, &sctp(from, port), 0), expected, "{from}, {port}");
    }
    let cut = Frame::ip(PEER, HOST, 132, &[0x12, 0x34, 0x0f]);
    assert_eq!(reason(&world, &cut, 0), Reason::Protocol);
    // What stands where ports would be means nothing here.
    let vrrp = |from| Frame::ip(from, HOST, 112, &[0x21, 51, 0x0f, 0x1c, 0, 1, 0, 0]);
    assert_eq!(reason(&world, &vrrp(PEER), 0), Reason::Service);
    assert_eq!(reason(&world, &vrrp(OTHER), 0), Reason::ServiceClosed);
}
