//! Packets that no honest stack would send, from a machine of the lab, and what comes back.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{Namespace, eventually};

/// A raw socket between two addresses.
#[derive(Debug)]
pub struct Wire {
    /// A raw socket in the type of a datagram one: the same system calls serve both.
    socket: UdpSocket,
    here: IpAddr,
    there: IpAddr,
}

/// A TCP segment that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub from: u16,
    pub to: u16,
    pub flags: u8,
}

const TCP: i32 = libc::IPPROTO_TCP;
const UDP: u8 = libc::IPPROTO_UDP as u8;

impl Wire {
    /// For TCP segments.
    #[track_caller]
    pub fn tcp(from: &Namespace, here: IpAddr, there: IpAddr) -> Wire {
        Wire::open(from, here, there, TCP)
    }

    /// For ICMP messages.
    #[track_caller]
    pub fn icmp(from: &Namespace, here: IpAddr, there: IpAddr) -> Wire {
        let protocol = if here.is_ipv4() {
            libc::IPPROTO_ICMP
        } else {
            libc::IPPROTO_ICMPV6
        };
        Wire::open(from, here, there, protocol)
    }

    /// For whole IP packets, headers and all: raw(7) and ipv6(7) call this IPPROTO_RAW.
    #[track_caller]
    pub fn packets(from: &Namespace, here: IpAddr, there: IpAddr) -> Wire {
        Wire::open(from, here, there, libc::IPPROTO_RAW)
    }

    /// Sends an IP packet as it is; in IPv4 the kernel writes the header's checksum.
    #[track_caller]
    pub fn packet(&self, bytes: &[u8]) {
        self.send(bytes);
    }

    /// A UDP datagram between the two ends, with its checksum.
    pub fn datagram(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = pgfw_common::frames::udp(from, to, payload);
        let checksum = self.checksum(&datagram, UDP);
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        datagram
    }

    #[track_caller]
    fn open(from: &Namespace, here: IpAddr, there: IpAddr, protocol: i32) -> Wire {
        let family = if here.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let socket = from.within(|| {
            // SAFETY: socket(2) takes no pointers.
            let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
            assert!(fd >= 0, "no raw socket: {}", std::io::Error::last_os_error());
            // SAFETY: the descriptor is new and nobody else's.
            let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
            let address = sockaddr(here);
            // SAFETY: the address is as long as its family says and lives through the call.
            let bound = unsafe { libc::bind(socket.as_raw_fd(), address.0.as_ptr().cast(), address.1) };
            assert!(bound == 0, "{here}: {}", std::io::Error::last_os_error());
            socket
        });
        socket
            .set_nonblocking(true)
            .expect("a socket can be told not to wait");
        Wire { socket, here, there }
    }

    /// Sends a segment without data.
    #[track_caller]
    pub fn segment(&self, from: u16, to: u16, flags: u8) {
        let mut segment = pgfw_common::frames::tcp(from, to, flags);
        let checksum = self.checksum(&segment, TCP as u8);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        self.send(&segment);
    }

    /// Sends an ICMP message: type, code, and what follows the checksum.
    #[track_caller]
    pub fn message(&self, kind: u8, code: u8, rest: &[u8]) {
        let mut message = pgfw_common::frames::icmp(kind, code, rest);
        // The kernel fills in ICMPv6's, which covers the addresses.
        if self.here.is_ipv4() {
            let sum = ones_complement(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        self.send(&message);
    }

    /// The segments from there that have come in by now.
    pub fn heard(&self) -> Vec<Segment> {
        let mut all = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) if from.ip() == self.there => {
                    // IPv4 raw sockets give the IP header too (raw(7)), IPv6 ones do not (RFC 3542).
                    let start = if self.here.is_ipv4() {
                        usize::from(buffer[0] & 15) * 4
                    } else {
                        0
                    };
                    if let Some([a, b, c, d, _, _, _, _, _, _, _, _, _, flags, ..]) =
                        buffer.get(start..length)
                    {
                        all.push(Segment {
                            from: u16::from_be_bytes([*a, *b]),
                            to: u16::from_be_bytes([*c, *d]),
                            flags: *flags,
                        });
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
                Err(error) => panic!("the raw socket broke: {error}"),
            }
        }
    }

    /// Waits for an answer to a segment that was sent from port `from` to port `to`.
    #[track_caller]
    pub fn answer(&self, from: u16, to: u16, patience: Duration) -> Segment {
        let what = format!("an answer from port {to} to port {from}");
        eventually(&what, patience, || {
            self.heard().into_iter().find(|s| s.from == to && s.to == from)
        })
    }

    #[track_caller]
    fn send(&self, bytes: &[u8]) {
        let address = sockaddr(self.there);
        // SAFETY: buffer and address live through the call and are as long as said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                address.0.as_ptr().cast(),
                address.1,
            )
        };
        assert!(sent >= 0, "nothing was sent: {}", std::io::Error::last_os_error());
    }

    /// RFC 9293, section 3.1, with the pseudo-header of either family.
    fn checksum(&self, segment: &[u8], protocol: u8) -> u16 {
        let mut all = Vec::new();
        for address in [self.here, self.there] {
            match address {
                IpAddr::V4(v4) => all.extend(v4.octets()),
                IpAddr::V6(v6) => all.extend(v6.octets()),
            }
        }
        let length = u32::try_from(segment.len()).expect("a segment is short");
        all.extend(length.to_be_bytes());
        all.extend([0, 0, 0, protocol]);
        all.extend(segment);
        ones_complement(&all)
    }
}

/// RFC 1071.
fn ones_complement(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// An address as the kernel takes it (ip(7), ipv6(7)), port zero: raw sockets have none.
fn sockaddr(address: IpAddr) -> (Vec<u8>, libc::socklen_t) {
    let family = |number: i32| (number as u16).to_ne_bytes();
    let bytes = match address {
        IpAddr::V4(v4) => [&family(libc::AF_INET)[..], &[0; 2], &v4.octets(), &[0; 8]].concat(),
        IpAddr::V6(v6) => [&family(libc::AF_INET6)[..], &[0; 6], &v6.octets(), &[0; 4]].concat(),
    };
    let length = libc::socklen_t::try_from(bytes.len()).expect("16 or 28 bytes");
    (bytes, length)
}
