//! Flows that the judged hosts really have, one per case, made by frames from the cable's other end.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, bind, connect, sendto,
    setsockopt, shutdown, socket, sockopt,
};

use pgfw_common::frames::{ACK, FIN, Frame, NETWORK, RST, SYN, icmp};

use crate::craft::{Ends, seal};
use crate::nflog::receive;

/// What the host has with the far end before the packets of a case come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Nothing,
    /// A connection to a port of the host.
    Inbound(State),
    /// A connection that the host opened.
    Outbound(State),
    /// The host sent a datagram and keeps the socket.
    Asked,
    /// The host sent an echo request.
    Pinged,
}

/// How far a TCP connection is, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// SYN_RECV or SYN_SENT.
    Half,
    Established,
    /// CLOSE_WAIT.
    FarClosed,
    /// FIN_WAIT2.
    HostClosed,
    TimeWait,
    /// Ended by the far end's RST.
    Reset,
}

pub(crate) const STATES: [State; 6] = [
    State::Half,
    State::Established,
    State::FarClosed,
    State::HostClosed,
    State::TimeWait,
    State::Reset,
];

/// A flow in its setting; `ends` are those of a packet to the host.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) setting: Setting,
    pub(crate) ends: Ends,
    /// The next sequence number of the far end, and of the host.
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    /// Keeps the host's end open while the case runs.
    held: Option<OwnedFd>,
}

/// The far end's first sequence number.
const START: u32 = 0x1000_0000;
const WAIT: Duration = Duration::from_secs(5);

/// The other end of the cable: raw frames.
pub(crate) struct Cable(pub(crate) OwnedFd);

impl Cable {
    pub(crate) fn send(&self, frame: &Frame) {
        // SAFETY: the buffer lives through the call and is as long as said.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.0.as_ptr().cast(), frame.0.len(), 0) };
        assert!(
            sent >= 0,
            "{} bytes: {}: {}",
            frame.0.len(),
            std::io::Error::last_os_error(),
            frame.hex()
        );
    }

    /// Forgets what the host has said so far.
    pub(crate) fn drain(&self) {
        let mut buffer = [0; 2048];
        // SAFETY: the buffer lives through the call and is as long as said.
        while unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        } >= 0
        {}
    }

    /// Waits for the host's segment of a connection with these flags, and gives the sequence number after it.
    fn hear(&self, flow: Ends, flags: u8) -> u32 {
        let mut buffer = [0; 2048];
        loop {
            let length = receive(&self.0, &mut buffer, WAIT)
                .unwrap_or_else(|| panic!("the host does not answer with {flags:#x} in {flow:?}"));
            let at = NETWORK + if flow.is_v4() { 20 } else { 40 };
            let Some([a, b, c, d, s, e, q, n, _, _, _, _, _, seen, ..]) = buffer[..length].get(at..) else {
                continue;
            };
            let ports = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            if ports == (flow.target_port, flow.source_port) && seen & (SYN | FIN | ACK) == flags {
                let syn_or_fin = u32::from(seen & (SYN | FIN) != 0);
                return u32::from_be_bytes([*s, *e, *q, *n]).wrapping_add(syn_or_fin);
            }
        }
    }
}

/// The host's servers.
pub(crate) struct Servers(pub(crate) Vec<TcpListener>);

impl Flow {
    /// Brings the flow about; in the host's namespace.
    pub(crate) fn open(setting: Setting, ends: Ends, cable: &Cable, servers: &Servers) -> Flow {
        let mut flow = Flow {
            setting,
            ends,
            sequence: START,
            acknowledged: 0,
            held: None,
        };
        match setting {
            Setting::Nothing => {}
            Setting::Inbound(state) => flow.inbound(state, cable, servers),
            Setting::Outbound(state) => flow.outbound(state, cable),
            Setting::Asked => {
                let here = SocketAddr::new(ends.target, ends.target_port);
                let asker = UdpSocket::bind(here).unwrap_or_else(|error| panic!("{here}: {error}"));
                asker
                    .send_to(b"question", SocketAddr::new(ends.source, ends.source_port))
                    .expect("a datagram can be sent");
                flow.held = Some(asker.into());
            }
            Setting::Pinged => flow.ping(),
        }
        flow
    }

    fn inbound(&mut self, state: State, cable: &Cable, servers: &Servers) {
        cable.drain();
        cable.send(&self.ends.tcp(SYN, START, 0, b""));
        self.sequence = START + 1;
        self.acknowledged = cable.hear(self.ends, SYN | ACK);
        if state == State::Half {
            return;
        }
        cable.send(&self.segment(ACK));
        let peer = SocketAddr::new(self.ends.source, self.ends.source_port);
        // The handshake is over when the frame is sent: the connection waits in a server's queue.
        let stream = servers
            .0
            .iter()
            // Earlier cases may have left finished handshakes in it.
            .flat_map(|server| std::iter::from_fn(|| server.accept().ok()))
            .find(|(_, from)| SocketAddr::new(from.ip().to_canonical(), from.port()) == peer)
            .unwrap_or_else(|| panic!("the host did not accept {:?}", self.ends))
            .0;
        self.hold(stream.into());
        self.finish(state, cable);
    }

    fn outbound(&mut self, state: State, cable: &Cable) {
        cable.drain();
        let here = SockaddrStorage::from(SocketAddr::new(self.ends.target, self.ends.target_port));
        let there = SockaddrStorage::from(SocketAddr::new(self.ends.source, self.ends.source_port));
        let family = if self.ends.is_v4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let stream = socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("a socket");
        setsockopt(&stream, sockopt::ReuseAddr, &true).expect("an option");
        bind(stream.as_raw_fd(), &here).unwrap_or_else(|error| panic!("{:?}: {error}", self.ends));
        let begun = connect(stream.as_raw_fd(), &there);
        assert_eq!(begun, Err(nix::errno::Errno::EINPROGRESS), "{:?}", self.ends);
        self.hold(stream);
        self.acknowledged = cable.hear(self.ends, SYN);
        if state == State::Half {
            return;
        }
        cable.send(&self.segment(SYN | ACK));
        self.sequence += 1;
        cable.hear(self.ends, ACK);
        self.finish(state, cable);
    }

    /// From an established connection to its end.
    fn finish(&mut self, state: State, cable: &Cable) {
        match state {
            State::Half | State::Established => {}
            State::Reset => cable.send(&self.segment(RST | ACK)),
            State::FarClosed => {
                cable.send(&self.segment(FIN | ACK));
                self.sequence += 1;
            }
            State::HostClosed | State::TimeWait => {
                let held = self.held.as_ref().expect("the host's end is open");
                shutdown(held.as_raw_fd(), Shutdown::Write).expect("a connection can be closed");
                self.acknowledged = cable.hear(self.ends, FIN | ACK);
                cable.send(&self.segment(ACK));
                if state == State::TimeWait {
                    cable.send(&self.segment(FIN | ACK));
                    self.sequence += 1;
                }
            }
        }
    }

    fn ping(&mut self) {
        let (family, protocol, kind) = if self.ends.is_v4() {
            (AddressFamily::Inet, libc::IPPROTO_ICMP, 8)
        } else {
            (AddressFamily::Inet6, libc::IPPROTO_ICMPV6, 128)
        };
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(family as i32, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        assert!(fd >= 0, "no raw socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let raw: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
        let mut message = icmp(kind, 0, &self.echo());
        if self.ends.is_v4() {
            let frame = self.ends.icmp(kind, 0, &self.echo());
            message = frame.0[NETWORK + 20..].to_vec();
        }
        let here = SockaddrStorage::from(SocketAddr::new(self.ends.target, 0));
        let there = SockaddrStorage::from(SocketAddr::new(self.ends.source, 0));
        bind(fd, &here).expect("an address of the host");
        sendto(fd, &message, &there, MsgFlags::empty()).expect("an echo request can be sent");
        self.held = Some(raw);
    }

    /// Identifier, sequence number and data of the host's echo request.
    pub(crate) fn echo(&self) -> Vec<u8> {
        [&self.ends.target_port.to_be_bytes()[..], &[0, 1], b"echo"].concat()
    }

    /// The far end's next segment, as a well-behaved stack sends it.
    pub(crate) fn segment(&self, flags: u8) -> Frame {
        self.ends.tcp(flags, self.sequence, self.acknowledged, b"")
    }

    /// The packet that the host sent last, as an ICMP error quotes it.
    pub(crate) fn quotation(&self) -> Frame {
        let ours = self.ends.turned();
        match self.setting {
            Setting::Asked => ours.udp(b"question"),
            Setting::Pinged => ours.icmp(if ours.is_v4() { 8 } else { 128 }, 0, &self.echo()),
            Setting::Nothing | Setting::Inbound(_) | Setting::Outbound(_) => {
                seal(&ours.tcp(ACK, self.acknowledged.wrapping_sub(1), self.sequence, b""))
            }
        }
    }

    fn hold(&mut self, stream: OwnedFd) {
        // Gone without a word when the case is over, so that ends of old cases do not pile up.
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &linger).expect("an option");
        self.held = Some(stream);
    }
}

/// An address of the host in the family of `other`.
pub(crate) fn host(other: IpAddr) -> IpAddr {
    if other.is_ipv4() {
        crate::side::HOST
    } else {
        crate::side::HOST_V6
    }
}
