//! Frames as they come in from a wire, built by hand so that they can also be wrong.

use std::format;
use std::net::IpAddr;
use std::string::String;
use std::vec;
use std::vec::Vec;

// Flags of a TCP segment.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// Where the network layer begins in a frame without tags.
pub const NETWORK: usize = 14;

/// A frame that can be changed at any place before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    /// An Ethernet frame with any payload.
    pub fn ethernet(ether_type: u16, payload: &[u8]) -> Frame {
        let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(payload);
        Frame(bytes)
    }

    /// An IP packet of the addresses' family.
    pub fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Frame {
        match (address(source), address(destination)) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
                header[2..4].copy_from_slice(&length(20 + payload.len()));
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(payload);
                Frame::ethernet(0x0800, &header)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
                header[4..6].copy_from_slice(&length(payload.len()));
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(payload);
                Frame::ethernet(0x86dd, &header)
            }
            (source, destination) => panic!("{source} and {destination} are of two families"),
        }
    }

    pub fn tcp(source: (&str, u16), destination: (&str, u16), flags: u8) -> Frame {
        Frame::ip(source.0, destination.0, TCP, &tcp(source.1, destination.1, flags))
    }

    pub fn udp(source: (&str, u16), destination: (&str, u16)) -> Frame {
        Frame::ip(
            source.0,
            destination.0,
            UDP,
            &udp(source.1, destination.1, b"data"),
        )
    }

    /// An ICMP or ICMPv6 message: type, code, and what follows the checksum.
    pub fn icmp(source: &str, destination: &str, kind: u8, code: u8, rest: &[u8]) -> Frame {
        let protocol = if address(source).is_ipv4() { ICMP } else { ICMPV6 };
        Frame::ip(source, destination, protocol, &icmp(kind, code, rest))
    }

    /// The same behind these tags (EtherTypes, the outermost first).
    pub fn tagged(&self, tags: &[u16]) -> Frame {
        let mut bytes = self.0[..12].to_vec();
        for tag in tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0, 42]);
        }
        bytes.extend(&self.0[12..]);
        Frame(bytes)
    }

    /// The same with this byte at this place.
    pub fn byte(&self, at: usize, value: u8) -> Frame {
        let mut bytes = self.0.clone();
        bytes[at] = value;
        Frame(bytes)
    }

    /// The same with these bytes from this place on.
    pub fn bytes(&self, at: usize, values: &[u8]) -> Frame {
        let mut bytes = self.0.clone();
        bytes[at..at + values.len()].copy_from_slice(values);
        Frame(bytes)
    }

    /// The IPv6 hop limit or IPv4 TTL.
    pub fn hop_limit(&self, value: u8) -> Frame {
        let at = if self.0[NETWORK] >> 4 == 6 {
            NETWORK + 7
        } else {
            NETWORK + 8
        };
        self.byte(at, value)
    }

    /// An IPv4 packet with this many words of options (no-operation).
    pub fn options(&self, words: u8) -> Frame {
        let mut bytes = self.0.clone();
        let added = vec![1; usize::from(words) * 4];
        bytes.splice(NETWORK + 20..NETWORK + 20, added);
        bytes[NETWORK] = 0x45 + words;
        let total = length(bytes.len() - NETWORK);
        bytes[NETWORK + 2..NETWORK + 4].copy_from_slice(&total);
        Frame(bytes)
    }

    /// An IPv6 packet with these extension headers of eight bytes each before what it carries.
    pub fn extensions(&self, chain: &[u8]) -> Frame {
        let carried = self.0[NETWORK + 6];
        let mut headers = Vec::new();
        for (i, kind) in chain.iter().enumerate() {
            let next = chain.get(i + 1).copied().unwrap_or(carried);
            match *kind {
                // An authentication header counts in units of four bytes, less two.
                51 => headers.extend([next, 0, 0, 0, 0, 0, 0, 1]),
                _ => headers.extend([next, 0, 0, 0, 0, 0, 0, 0]),
            }
        }
        let mut bytes = self.0.clone();
        bytes.splice(NETWORK + 40..NETWORK + 40, headers);
        if let Some(first) = chain.first() {
            bytes[NETWORK + 6] = *first;
        }
        let payload = length(bytes.len() - NETWORK - 40);
        bytes[NETWORK + 4..NETWORK + 6].copy_from_slice(&payload);
        Frame(bytes)
    }

    /// An IPv4 packet as a fragment at this offset in bytes.
    pub fn fragment4(&self, offset: u16, more: bool) -> Frame {
        let field = (offset / 8) | if more { 0x2000 } else { 0 };
        self.bytes(NETWORK + 6, &field.to_be_bytes())
    }

    /// An IPv6 packet with a fragment header before what it carries.
    pub fn fragment6(&self, offset: u16, more: bool, id: u32) -> Frame {
        let frame = self.extensions(&[44]);
        let field = offset & 0xfff8 | u16::from(more);
        frame
            .bytes(NETWORK + 42, &field.to_be_bytes())
            .bytes(NETWORK + 44, &id.to_be_bytes())
    }

    /// The first bytes only.
    pub fn cut(&self, length: usize) -> Frame {
        Frame(self.0[..length].to_vec())
    }

    /// With the link layer's padding behind it.
    pub fn padded(&self, length: usize) -> Frame {
        let mut bytes = self.0.clone();
        bytes.resize(length.max(bytes.len()), 0);
        Frame(bytes)
    }

    /// From the network layer on, as an ICMP error quotes it.
    pub fn packet(&self) -> &[u8] {
        &self.0[NETWORK..]
    }

    /// For messages.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A TCP header without payload.
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = Vec::with_capacity(20);
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    header
}

/// A UDP header with its payload.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(8 + payload.len());
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend(length(8 + payload.len()));
    header.extend([0, 0]);
    header.extend(payload);
    header
}

/// An ICMP message; `rest` follows the checksum.
pub fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a length of 16 bits").to_be_bytes()
}
