//! A flood: the same frame again and again, each with a source that nobody else has.
//!
//! The sender is a program that BPF_PROG_TEST_RUN runs over live frames: it draws source address and port, mends the
//! checksums and returns XDP_TX, so that the frames arrive at the other end of the cable. Sending costs a fraction of
//! what any other generator takes, and receiving happens on the core that sends.

use std::os::fd::{AsFd, OwnedFd};

use pgfw_common::frames::{ACK, Frame, NETWORK, SYN};
use pgfw_common::reason::Reason;

use super::xdp::{self, PASS};
use super::{HOST, HOST_V6, INTERFACE, Link};
use crate::kernel;
use crate::machine::Pinned;
use crate::source::{Family, code};

/// What the packets of a flood are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packets {
    Syn { port: u16 },
    Ack { port: u16 },
    Udp,
    LaterFragment,
}

impl Packets {
    /// What pgfw says about them.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Packets::Syn { port: 22 } => Reason::Service,
            Packets::Syn { port: _ } => Reason::ServiceClosed,
            Packets::Ack { port: _ } => Reason::NoConnection,
            Packets::Udp => Reason::Udp,
            Packets::LaterFragment => Reason::FragmentUnknown,
        }
    }
}

/// A sender of one kind of packets.
#[derive(Debug)]
pub(crate) struct Generator {
    program: OwnedFd,
    frame: Frame,
}

/// What one burst was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    /// What the host's device received; the sender's count is higher when a queue was full.
    pub(crate) packets: u64,
    pub(crate) nanoseconds: f64,
}

impl Burst {
    pub(crate) fn each(self) -> f64 {
        self.nanoseconds / self.packets as f64
    }
}

impl Generator {
    pub(crate) fn new(packets: Packets, family: Family) -> Generator {
        let frame = frame(packets, family);
        let program = kernel::load(&program(&frame, packets, family), false);
        Generator { program, frame }
    }

    /// Floods the host with so many packets, sender and receiver on this core, ahead of whatever else wants it.
    pub(crate) fn burst(&self, link: &Link, core: usize, count: u32) -> Burst {
        let ifindex = link.outside.ifindex(INTERFACE);
        let before = link.received();
        let each = link.outside.within(|| {
            let _core = Pinned::to(core);
            let _ahead = Ahead::of_all();
            xdp::live(self.program.as_fd(), ifindex, &self.frame.0, count)
        });
        Burst {
            packets: link.received() - before,
            nanoseconds: f64::from(each) * f64::from(count),
        }
    }
}

/// Puts the calling thread before everything that has no real-time priority, so that a busy machine does not decide
/// what a short slice measures.
#[derive(Debug)]
pub(crate) struct Ahead;

impl Ahead {
    pub(crate) fn of_all() -> Ahead {
        put_ahead(0, libc::SCHED_FIFO, 1);
        Ahead
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        put_ahead(0, libc::SCHED_OTHER, 0);
    }
}

/// Changes the policy of a process or thread; what it starts from then on inherits it.
pub(crate) fn put_ahead(pid: libc::pid_t, policy: i32, priority: i32) {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the structure lives through the call.
    let done = unsafe { libc::sched_setscheduler(pid, policy, &raw const parameters) };
    assert_eq!(
        done,
        0,
        "a real-time priority: {}",
        std::io::Error::last_os_error()
    );
}

fn frame(packets: Packets, family: Family) -> Frame {
    let (stranger, host) = match family {
        Family::V4 => ("0.0.0.0", HOST.to_string()),
        Family::V6 => ("::", HOST_V6.to_string()),
    };
    let host = host.as_str();
    let mut frame = match packets {
        Packets::Syn { port } => Frame::tcp((stranger, 0), (host, port), SYN),
        Packets::Ack { port } => Frame::tcp((stranger, 0), (host, port), ACK),
        Packets::Udp => Frame::udp((stranger, 0), (host, 40_000)),
        Packets::LaterFragment => {
            let whole = Frame::udp((stranger, 0), (host, 40_000));
            match family {
                Family::V4 => whole.fragment4(1480, false),
                Family::V6 => whole.fragment6(1448, false, 0),
            }
        }
    };
    // The constant part of each checksum; the program adds what it draws.
    let bytes = &mut frame.0;
    if family == Family::V4 {
        if packets == Packets::LaterFragment {
            put(bytes, NETWORK + 4, 0);
        }
        let sum = sum(&bytes[NETWORK..NETWORK + 20]);
        put(bytes, IP_CHECKSUM, sum);
    }
    if let Some((at, protocol)) = transport_checksum(packets, family) {
        let start = transport(family);
        let ends = usize::from(family.source_at());
        let pseudo = u64::from(u16::try_from(bytes.len() - start).expect("short").to_be())
            + u64::from(u16::from(protocol).to_be());
        let all = fold(sum_wide(&bytes[ends..start]) + sum_wide(&bytes[start..]) + pseudo);
        put(bytes, at, all);
    }
    frame
}

const IP_CHECKSUM: usize = NETWORK + 10;

fn transport(family: Family) -> usize {
    match family {
        Family::V4 => NETWORK + 20,
        Family::V6 => NETWORK + 40,
    }
}

/// Where it stands, and the protocol's number.
fn transport_checksum(packets: Packets, family: Family) -> Option<(usize, u8)> {
    match packets {
        Packets::Syn { port: _ } | Packets::Ack { port: _ } => Some((transport(family) + 16, 6)),
        Packets::Udp => Some((transport(family) + 6, 17)),
        // Nobody can say what the whole datagram's would be.
        Packets::LaterFragment => None,
    }
}

/// The one's complement sum of words as they lie in memory: their order of bytes does not matter to it (RFC 1071).
fn sum_wide(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn sum(bytes: &[u8]) -> u16 {
    fold(sum_wide(bytes))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
}

/// Draws the source, mends the checksums, sends the frame back where it is said to have come from.
///
/// Frames are used again: nothing that is written here may be read here, so the constant parts of the checksums are
/// immediates.
fn program(frame: &Frame, packets: Packets, family: Family) -> Vec<u64> {
    let length = i32::try_from(frame.0.len()).expect("a short frame");
    let constant = |at: usize| i32::from(u16::from_ne_bytes([frame.0[at], frame.0[at + 1]]));
    let source = i16::try_from(family.source_at()).expect("the head of a frame");
    let mut all = vec![
        code(0x61, 7, 1, 0, 0), // r7 = data
        code(0x61, 2, 1, 4, 0), // r2 = data_end
        code(0xbf, 3, 7, 0, 0),
        code(0x07, 3, 0, 0, length),
        code(0xb7, 0, 0, 0, PASS),
        code(0x3d, 2, 3, 1, 0), // room enough
        code(0x95, 0, 0, 0, 0),
        code(0xb7, 6, 0, 0, 0), // r6 = the sum over what is drawn and belongs to the IP header and both ends
        code(0xb7, 8, 0, 0, 0), // r8 = the same over what belongs to one layer only
    ];
    let random = |all: &mut Vec<u64>| all.push(code(0x85, 0, 0, 0, 7)); // bpf_get_prandom_u32
    let add = |all: &mut Vec<u64>, to: u8| {
        all.extend([
            code(0xbc, 1, 0, 0, 0),
            code(0x54, 1, 0, 0, 0xffff),
            code(0x0f, to, 1, 0, 0),
            code(0x74, 0, 0, 0, 16),
            code(0x0f, to, 0, 0, 0),
        ]);
    };
    // 128.0.0.0/2, or 2000::/3 with 61 bits drawn: no loopback, no group.
    let (keep, set): (u32, u32) = match family {
        Family::V4 => (0x3fff_ffff, 0x8000_0000),
        Family::V6 => (0x1fff_ffff, 0x2000_0000),
    };
    random(&mut all);
    all.extend([
        code(0x54, 0, 0, 0, keep.to_be() as i32),
        code(0x44, 0, 0, 0, set.to_be() as i32),
        code(0x63, 7, 0, source, 0),
    ]);
    add(&mut all, 6);
    if family == Family::V6 {
        random(&mut all);
        all.push(code(0x63, 7, 0, source + 4, 0));
        add(&mut all, 6);
    }
    // The source port, or the number of the datagram that the fragment is of.
    let port = match (packets, family) {
        (Packets::LaterFragment, Family::V4) => NETWORK + 4,
        (Packets::LaterFragment, Family::V6) => NETWORK + 46,
        (Packets::Syn { .. } | Packets::Ack { .. } | Packets::Udp, _) => transport(family),
    };
    random(&mut all);
    all.extend([
        code(0x54, 0, 0, 0, 0xffff),
        code(0x44, 0, 0, 0, i32::from(1024_u16.to_be())),
        code(0x6b, 7, 0, i16::try_from(port).expect("the head of a frame"), 0),
        code(0x0f, 8, 0, 0, 0),
    ]);
    let checksum = |all: &mut Vec<u64>, at: usize, layer: bool| {
        all.push(code(0xbf, 1, 6, 0, 0));
        if layer {
            all.push(code(0x0f, 1, 8, 0, 0));
        }
        all.push(code(0x07, 1, 0, 0, constant(at)));
        for _ in 0..2 {
            all.extend([
                code(0xbf, 2, 1, 0, 0),
                code(0x77, 2, 0, 0, 16),
                code(0x57, 1, 0, 0, 0xffff),
                code(0x0f, 1, 2, 0, 0),
            ]);
        }
        all.extend([
            code(0xa7, 1, 0, 0, 0xffff),
            code(0x6b, 7, 1, i16::try_from(at).expect("the head of a frame"), 0),
        ]);
    };
    if family == Family::V4 {
        checksum(&mut all, IP_CHECKSUM, packets == Packets::LaterFragment);
    }
    if let Some((at, _)) = transport_checksum(packets, family) {
        checksum(&mut all, at, true);
    }
    all.extend([code(0xb7, 0, 0, 0, 3), code(0x95, 0, 0, 0, 0)]); // XDP_TX
    all
}
