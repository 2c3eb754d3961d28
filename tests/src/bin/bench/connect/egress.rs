//! What the program on the way out takes for a packet.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Instant;

use pgfw_common::frames::{ACK, Frame};

use super::{CORE, find};
use crate::Options;
use crate::machine::Pinned;
use crate::network::filter::{Filter, Kind};
use crate::network::generator::Ahead;
use crate::network::xdp::{self, Mode};
use crate::network::{HOST, Link};
use crate::report::{Report, Row, Table, Unit};
use crate::round::{Contestant, interleave};

/// Nobody at the other end has the address that this one's neighbour entry gives.
const AWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);

/// What a socket of the host sends.
#[derive(Debug, Clone, Copy)]
enum Sends {
    Tcp,
    UdpAgain,
    UdpNew,
}

const ALL: [(Sends, &str); 3] = [
    (Sends::Tcp, "TCP segment of a socket of the host"),
    (Sends::UdpAgain, "UDP datagram of a flow that is noted"),
    (
        Sends::UdpNew,
        "UDP datagram of a flow that is new, when notes are full",
    ),
];

pub(super) fn run(report: &mut Report, options: &Options, link: &Link, filters: &[RefCell<Filter<'_>>]) {
    let pgfw = find(filters, Kind::Pgfw(Mode::Native)).borrow();
    let pgfw = pgfw.egress().expect("pgfw's program on the way out");
    let empty = xdp::empty_classifier();
    let count = options.pick(100_000, 20_000);
    let send = |sends: Sends, program: &OwnedFd| {
        let standing = xdp::attach_egress(&link.host, program.as_fd());
        let each = link.host.within(|| sends.many(count));
        drop(standing);
        each
    };
    let mut contestants = Vec::new();
    for (sends, name) in ALL {
        for program in [&empty, &pgfw] {
            let send = &send;
            contestants.push(Contestant::new(name, move || send(sends, program)));
        }
    }
    let samples = interleave(options.pick(15, 3), &mut contestants);
    let mut table = Table::new(
        "connect",
        "What the way out adds to a packet, over an empty classifier",
        "Packets of a socket of the host, from the system call to their end at the other side of the cable, on one core. \
         BPF_PROG_TEST_RUN cannot tell this: its packets have no socket, and count as forwarded.",
    );
    for ((_, name), pair) in ALL.iter().zip(samples.chunks(2)) {
        let [empty, own] = pair else {
            unreachable!("two for each")
        };
        let beside = format!("of {:.0} ns for sending it", own.median());
        table.row(Row::new(*name, Unit::OverEmpty, own.over(empty)).beside(beside));
    }
    report.add(table);
}

impl Sends {
    /// Nanoseconds for each of so many.
    fn many(self, count: u32) -> f64 {
        let _core = Pinned::to(CORE);
        let _ahead = Ahead::of_all();
        match self {
            Sends::Tcp => {
                let (own, away) = (HOST.to_string(), AWAY.to_string());
                let segment = Frame::tcp((&own, 40_000), (&away, 443), ACK);
                let socket = raw();
                timed(count, |_| {
                    let sent = socket.send_to(segment.packet(), SocketAddrV4::new(AWAY, 0));
                    sent.expect("a segment can be sent");
                })
            }
            Sends::UdpAgain | Sends::UdpNew => {
                let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
                timed(count, |number| {
                    let port = match self {
                        Sends::UdpNew => 1024 + (number % 60_000) as u16,
                        Sends::UdpAgain | Sends::Tcp => 53,
                    };
                    let sent = socket.send_to(b"who is there?", (AWAY, port));
                    sent.expect("a datagram can be sent");
                })
            }
        }
    }
}

fn timed(count: u32, mut send: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    for number in 0..count {
        send(number);
    }
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

/// A socket whose packets bring their IP header along (raw(7)). Its packets have a socket as a connection's have.
fn raw() -> UdpSocket {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_RAW,
        )
    };
    assert!(fd >= 0, "a raw socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's. In the type of a datagram socket: the same system calls serve both.
    UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) })
}
