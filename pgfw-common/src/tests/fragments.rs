//! Whose datagrams are remembered where, and how much of one may follow.

use std::vec::Vec;

use crate::decide::{Arrival, Verdict};
use crate::frames::{ACK, Frame, NETWORK, SYN, UDP, udp};
use crate::host::World;
use crate::host::scene::{ARRIVAL, FRIEND, HOST, STRANGER, Switches, world};
use crate::reason::Reason;
use crate::record::{MAX_LATER_FRAGMENTS, Remembered};
use crate::tables::FRAGMENT_SECONDS;

/// A scene in which nothing is remembered of fragments.
fn empty() -> World {
    let world = world(Switches::On);
    world.fragments.borrow_mut().clear();
    world.open_fragments.borrow_mut().clear();
    world
}

fn first(frame: &Frame) -> Frame {
    if frame.0[NETWORK] >> 4 == 4 {
        frame.fragment4(0, true)
    } else {
        frame.fragment6(0, true, 7)
    }
}

fn judge(world: &World, frame: &Frame) -> Verdict {
    world.judge(&frame.0, ARRIVAL)
}

fn kept(world: &World) -> (Vec<Remembered>, Vec<Remembered>) {
    let values = |table: &std::cell::RefCell<std::collections::BTreeMap<_, Remembered>>| {
        table.borrow().values().copied().collect()
    };
    (values(&world.fragments), values(&world.open_fragments))
}

#[test]
fn f57_so_many_later_fragments_follow_and_no_more() {
    let world = empty();
    let datagram = Frame::ip(FRIEND[0], HOST[0], UDP, &udp(40_100, 53, &[0; 32]));
    let later = datagram.fragment4(24, true);
    for _ in 0..2 {
        assert_eq!(judge(&world, &first(&datagram)).reason, Reason::Service);
        for n in 0..MAX_LATER_FRAGMENTS {
            assert_eq!(judge(&world, &later).reason, Reason::Fragment, "{n}");
        }
        assert_eq!(judge(&world, &later).reason, Reason::FragmentUnknown);
    }
    // Its time is up as soon as it comes, count or no count.
    assert_eq!(judge(&world, &first(&datagram)).reason, Reason::Service);
    let ticks = FRAGMENT_SECONDS * u64::from(world.settings.hz);
    for (after, reason) in [(ticks - 1, Reason::Fragment), (ticks, Reason::FragmentUnknown)] {
        let mut arrival: Arrival = ARRIVAL;
        arrival.now.0 += after;
        assert_eq!(world.judge(&later.0, arrival).reason, reason);
    }
}

#[test]
fn f57_what_anyone_may_send_is_remembered_apart() {
    for (remote, friend, local) in [
        (STRANGER[0], FRIEND[0], HOST[0]),
        (STRANGER[1], FRIEND[1], HOST[1]),
    ] {
        let six = local.contains(':');
        let (reply, request) = if six { (129, 128) } else { (0, 8) };
        let quote = Frame::tcp((local, 40_002), (remote, 443), ACK);
        let error = Frame::icmp(
            friend,
            local,
            if six { 1 } else { 3 },
            0,
            &[&[0; 4], quote.packet()].concat(),
        );
        for (frame, reason) in [
            (Frame::tcp((friend, 1), (local, 5432), SYN), Reason::Service),
            (Frame::udp((friend, 1), (local, 53)), Reason::Service),
            (
                Frame::tcp((remote, 443), (local, 40_002), ACK),
                Reason::Established,
            ),
            (
                Frame::tcp((remote, 40_003), (local, 5432), ACK),
                Reason::Established,
            ),
            (Frame::udp((remote, 53), (local, 40_000)), Reason::Answer),
            (
                Frame::icmp(remote, local, reply, 0, &[0, 7, 0, 1]),
                Reason::EchoReply,
            ),
            (error, Reason::IcmpError),
        ] {
            let world = empty();
            assert_eq!(judge(&world, &first(&frame)).reason, reason);
            let (known, open) = kept(&world);
            assert_eq!((known.len(), open.len()), (1, 0), "{reason:?}: {}", frame.hex());
        }
        for (frame, reason) in [
            (Frame::tcp((remote, 1), (local, 22), SYN), Reason::Service),
            (
                Frame::tcp((remote, 40_001), (local, 22), ACK),
                Reason::Established,
            ),
            (Frame::udp((remote, 1), (local, 123)), Reason::Service),
            (
                Frame::icmp(remote, local, request, 0, &[0, 7, 0, 1]),
                Reason::EchoRequest,
            ),
        ] {
            let world = empty();
            assert_eq!(judge(&world, &first(&frame)).reason, reason);
            let (known, open) = kept(&world);
            assert_eq!((known.len(), open.len()), (0, 1), "{reason:?}: {}", frame.hex());
        }
    }
    let world = empty();
    for (frame, reason) in [
        (Frame::udp((FRIEND[0], 67), (HOST[0], 68)), Reason::DhcpClient),
        (
            Frame::ip(STRANGER[0], "224.0.0.1", 2, &[0x11; 8]),
            Reason::GroupMembership,
        ),
        (
            Frame::icmp("fe80::1", "ff02::1", 130, 0, &[0; 20]),
            Reason::MulticastListener,
        ),
    ] {
        assert_eq!(judge(&world, &first(&frame)).reason, reason);
    }
    let (known, open) = kept(&world);
    assert_eq!((known.len(), open.len()), (0, 3));
}

#[test]
fn f57_a_datagram_may_be_continued_from_either_table() {
    let world = empty();
    // The same ends, protocol and id: to a service of its own network and to one that is open to the world.
    let query = |port| Frame::ip(FRIEND[0], HOST[0], UDP, &udp(40_100, port, &[0; 32]));
    let later = query(53).fragment4(24, true);
    assert_eq!(judge(&world, &first(&query(53))).reason, Reason::Service);
    assert_eq!(judge(&world, &first(&query(123))).reason, Reason::Service);
    for _ in 0..2 * MAX_LATER_FRAGMENTS {
        assert_eq!(judge(&world, &later).reason, Reason::Fragment);
    }
    assert_eq!(judge(&world, &later).reason, Reason::FragmentUnknown);
}
