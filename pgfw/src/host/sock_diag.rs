//! TCP sockets of this network namespace, listed and closed through sock_diag(7) (net/ipv4/inet_diag.c).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// One TCP socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Socket {
    pub state: State,
    /// IPv4-mapped addresses of dual-stack sockets are shown as IPv4.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub uid: u32,
    /// 0 when no process holds it: not accepted yet, or closing.
    pub inode: u32,
    /// Index of the device it is bound to; 0 for none.
    pub interface: u32,
    /// What the kernel calls it: family, addresses, cookie.
    id: Id,
}

/// `enum` in include/net/tcp_states.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynReceived,
    /// A state that a later kernel added.
    Unknown(u8),
}

/// What the kernel counts of one connection: `struct tcp_info` in linux/tcp.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Smoothed, in microseconds.
    pub rtt: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Payload that the peer has acknowledged.
    pub sent: u64,
    pub received: u64,
}

/// Every TCP socket, IPv4 and IPv6.
///
/// # Errors
/// The kernel refuses, or has no inet_diag.
pub fn dump() -> io::Result<Vec<Socket>> {
    Ok(ask(0)?.into_iter().map(|(socket, _)| socket).collect())
}

/// The same with what the kernel counts; listeners and what is half closed have none of it.
///
/// # Errors
/// As for [`dump`].
pub fn dump_with_info() -> io::Result<Vec<(Socket, Option<Info>)>> {
    ask(1 << (INET_DIAG_INFO - 1))
}

fn ask(extensions: u8) -> io::Result<Vec<(Socket, Option<Info>)>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let netlink = open()?;
        let request = request(
            SOCK_DIAG_BY_FAMILY,
            NLM_F_DUMP,
            family as u8,
            extensions,
            &Id::default(),
        );
        send(&netlink, &request)?;
        loop {
            let answer = receive(&netlink)?;
            let mut done = false;
            for message in Messages(&answer) {
                match message {
                    Message::Done => done = true,
                    Message::Error(0) => {}
                    Message::Error(code) => return Err(io::Error::from_raw_os_error(code)),
                    Message::Data(body) => {
                        all.extend(Socket::parse(body).map(|socket| (socket, Info::parse(body))));
                    }
                }
            }
            if done {
                break;
            }
        }
    }
    Ok(all)
}

/// Closes a socket as if its peer had reset it: the process gets ECONNABORTED, the peer a RST (tcp.c: `tcp_abort`).
/// False when it is gone already. Needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY.
///
/// # Errors
/// The kernel refuses.
pub fn destroy(socket: &Socket) -> io::Result<bool> {
    let netlink = open()?;
    send(
        &netlink,
        &request(SOCK_DESTROY, NLM_F_ACK, socket.id.family, 0, &socket.id),
    )?;
    let answer = receive(&netlink)?;
    match Messages(&answer).next() {
        Some(Message::Error(0)) => Ok(true),
        Some(Message::Error(libc::ENOENT)) => Ok(false),
        Some(Message::Error(code)) => Err(io::Error::from_raw_os_error(code)),
        Some(Message::Done | Message::Data(_)) | None => {
            Err(io::Error::other("sock_diag gave no acknowledgement"))
        }
    }
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const HEADER: usize = 16;
/// `struct inet_diag_msg` without its attributes.
const DIAG_MSG: usize = 72;
const INET_DIAG_INFO: u16 = 2;
/// All that the kernel puts into one answer to a dump: it sizes them by the buffer, up to 32 KiB (af_netlink.c:
/// `netlink_dump`).
const BUFFER: usize = 1 << 15;

/// `struct inet_diag_sockid` and the family it is of, as the kernel sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    family: u8,
    bytes: [u8; 48],
}

impl Default for Id {
    fn default() -> Self {
        Id {
            family: 0,
            bytes: [0; 48],
        }
    }
}

impl Socket {
    /// `struct inet_diag_msg`: family, state, timer, retrans; id; expires, rqueue, wqueue, uid, inode.
    fn parse(body: &[u8]) -> Option<Socket> {
        let message: &[u8; DIAG_MSG] = body.first_chunk()?;
        let [family, state, _timer, _retrans, rest @ ..] = message;
        let bytes: [u8; 48] = *rest.first_chunk()?;
        let word = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
        let port = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let address = |at: usize| {
            let raw: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
            Some(match i32::from(*family) {
                libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*raw.first_chunk::<4>()?)),
                _ => IpAddr::V6(Ipv6Addr::from(raw)).to_canonical(),
            })
        };
        Some(Socket {
            state: State::from(*state),
            local: SocketAddr::new(address(4)?, port(0)?),
            remote: SocketAddr::new(address(20)?, port(2)?),
            uid: word(64)?,
            inode: word(68)?,
            interface: u32::from_ne_bytes(*bytes.get(36..)?.first_chunk()?),
            id: Id {
                family: *family,
                bytes,
            },
        })
    }
}

impl Info {
    /// The attribute (netlink(7): length, type, payload) among those behind `struct inet_diag_msg`. A kernel knows more of
    /// `struct tcp_info` than these fields, never less: the last of them came with 4.1.
    fn parse(body: &[u8]) -> Option<Info> {
        let mut rest = body.get(DIAG_MSG..)?;
        loop {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            let payload = rest.get(4..length)?;
            if kind == INET_DIAG_INFO {
                let word = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
                let long = |at: usize| Some(u64::from_ne_bytes(*payload.get(at..)?.first_chunk()?));
                return Some(Info {
                    rtt: word(68)?,
                    retransmits: word(100)?,
                    sent: long(120)?,
                    received: long(128)?,
                });
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }
}

impl From<u8> for State {
    fn from(number: u8) -> State {
        match number {
            1 => State::Established,
            2 => State::SynSent,
            3 => State::SynReceived,
            4 => State::FinWait1,
            5 => State::FinWait2,
            6 => State::TimeWait,
            7 => State::Close,
            8 => State::CloseWait,
            9 => State::LastAck,
            10 => State::Listen,
            11 => State::Closing,
            12 => State::NewSynReceived,
            other => State::Unknown(other),
        }
    }
}

/// A netlink header and `struct inet_diag_req_v2`: family, protocol, extensions, pad, states, id.
fn request(kind: u16, flags: u16, family: u8, extensions: u8, id: &Id) -> Vec<u8> {
    let body = [
        &[family, libc::IPPROTO_TCP as u8, extensions, 0],
        u32::MAX.to_ne_bytes().as_slice(),
        &id.bytes,
    ]
    .concat();
    let length = u32::try_from(HEADER + body.len()).expect("72 bytes");
    [
        length.to_ne_bytes().as_slice(),
        &kind.to_ne_bytes(),
        &(NLM_F_REQUEST | flags).to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &body,
    ]
    .concat()
}

pub(super) enum Message<'a> {
    Done,
    /// A positive error number; 0 is an acknowledgement.
    Error(i32),
    Data(&'a [u8]),
}

/// The messages of one datagram.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32::from_ne_bytes(*self.0.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let body = self.0.get(HEADER..length)?;
        // NLMSG_ALIGN: the next one starts at a multiple of four.
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match kind {
            NLMSG_DONE => Message::Done,
            NLMSG_ERROR => Message::Error(-i32::from_ne_bytes(*body.first_chunk()?)),
            _ => Message::Data(body),
        })
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?)
}

fn send(netlink: &OwnedFd, request: &[u8]) -> io::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), request, &kernel, MsgFlags::empty())?;
    Ok(())
}

fn receive(netlink: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn finds_a_listener_and_both_ends_of_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "no IPv4 on loopback");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let _server = listener.accept().unwrap();
            let all = dump().unwrap();
            let one = |state, local, remote: Option<SocketAddr>| {
                let same = |s: &&Socket| {
                    s.state == state && s.local == local && remote.is_none_or(|r| r == s.remote)
                };
                all.iter().filter(same).count()
            };
            let from = client.local_addr().unwrap();
            assert_eq!(one(State::Listen, at, None), 1);
            assert_eq!(one(State::Established, from, Some(at)), 1);
            assert_eq!(one(State::Established, at, Some(from)), 1);
        }
    }

    #[test]
    fn what_the_kernel_counts_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(at).unwrap();
        let (mut server, from) = listener.accept().unwrap();
        client.write_all(&[0; 5_000]).unwrap();
        server.read_exact(&mut [0; 5_000]).unwrap();
        server.write_all(&[0; 70]).unwrap();
        client.read_exact(&mut [0; 70]).unwrap();
        let all = dump_with_info().unwrap();
        let of = |local, remote| {
            let found = all.iter().find(|(s, _)| s.local == local && s.remote == remote);
            found.unwrap().1.unwrap()
        };
        let (ours, theirs) = (of(at, from), of(from, at));
        assert_eq!((ours.received, theirs.received), (5_000, 70));
        // The handshake's SYN counts as one byte that was acknowledged (tcp_input.c: `tcp_snd_una_update`).
        assert!((5_000..=5_001).contains(&theirs.sent), "{theirs:?}");
        assert!(0 < ours.rtt && ours.retransmits == 0, "{ours:?}");
    }

    #[test]
    fn a_destroyed_connection_is_dead_at_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(at).unwrap();
        let (mut server, from) = listener.accept().unwrap();
        let found = dump().unwrap();
        let socket = found.iter().find(|s| s.local == at && s.remote == from).unwrap();
        assert!(destroy(socket).unwrap());
        assert!(server.read(&mut [0]).is_err());
        assert!(client.read(&mut [0]).is_err());
        assert!(!destroy(socket).unwrap());
    }
}
