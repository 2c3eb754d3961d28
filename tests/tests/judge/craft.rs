//! Packets with the checksums that a real stack computes, ready to be made wrong.

use std::net::IpAddr;

use pgfw_common::frames::{self, Frame, ICMP, ICMPV6, NETWORK, TCP, UDP};

/// A pseudo-random sequence that is the same for the same seed everywhere (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, case: u64) -> Random {
        let mut random = Random(seed ^ case.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub(crate) fn word(&mut self) -> u16 {
        self.next() as u16
    }

    /// One in so many.
    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let length = self.below(limit);
        (0..length).map(|_| self.byte()).collect()
    }
}

/// Who speaks to whom, and through which ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) source: IpAddr,
    pub(crate) target: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) target_port: u16,
}

impl Ends {
    pub(crate) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The other way.
    pub(crate) fn turned(self) -> Ends {
        Ends {
            source: self.target,
            target: self.source,
            source_port: self.target_port,
            target_port: self.source_port,
        }
    }

    pub(crate) fn tcp(&self, flags: u8, sequence: u32, acknowledged: u32, data: &[u8]) -> Frame {
        let mut segment = frames::tcp(self.source_port, self.target_port, flags);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        segment.extend(data);
        self.ip(TCP, segment)
    }

    pub(crate) fn udp(&self, data: &[u8]) -> Frame {
        self.ip(UDP, frames::udp(self.source_port, self.target_port, data))
    }

    pub(crate) fn icmp(&self, kind: u8, code: u8, rest: &[u8]) -> Frame {
        let protocol = if self.is_v4() { ICMP } else { ICMPV6 };
        self.ip(protocol, frames::icmp(kind, code, rest))
    }

    /// A packet of any protocol, with its transport checksum where the protocol has one.
    pub(crate) fn ip(&self, protocol: u8, mut payload: Vec<u8>) -> Frame {
        let pseudo = (protocol != ICMP).then(|| self.pseudo(protocol, payload.len()));
        let at = match protocol {
            TCP => Some(16),
            UDP => Some(6),
            ICMP | ICMPV6 => Some(2),
            _ => None,
        };
        if let Some(at) = at
            && payload.len() >= at + 2
        {
            let sum = checksum(&[&pseudo.unwrap_or_default(), &payload]);
            payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let (source, target) = (self.source.to_string(), self.target.to_string());
        seal(&Frame::ip(&source, &target, protocol, &payload))
    }

    fn pseudo(&self, protocol: u8, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for address in [self.source, self.target] {
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        bytes
    }
}

/// The same with the IPv4 header's checksum put right.
pub(crate) fn seal(frame: &Frame) -> Frame {
    let bytes = &frame.0;
    if bytes.len() < NETWORK + 20 || bytes[12..14] != [0x08, 0] {
        return frame.clone();
    }
    let length = usize::from(bytes[NETWORK] & 15) * 4;
    if length < 20 || bytes.len() < NETWORK + length {
        return frame.clone();
    }
    let frame = frame.bytes(NETWORK + 10, &[0, 0]);
    let sum = checksum(&[&frame.0[NETWORK..NETWORK + length]]);
    frame.bytes(NETWORK + 10, &sum.to_be_bytes())
}

/// Fragments of an IP packet that begin at these offsets (multiples of eight), the last one last.
pub(crate) fn split(frame: &Frame, id: u16, offsets: &[usize]) -> Vec<Frame> {
    let v4 = frame.0[NETWORK] >> 4 == 4;
    let header = NETWORK + if v4 { 20 } else { 40 };
    let payload = &frame.0[header..];
    let mut fragments = Vec::new();
    for (n, offset) in offsets.iter().enumerate() {
        let end = offsets.get(n + 1).copied().unwrap_or(payload.len());
        fragments.push(fragment(
            frame,
            id,
            *offset,
            &payload[*offset..end],
            n + 1 < offsets.len(),
        ));
    }
    fragments
}

/// One fragment of the datagram whose first bytes are those of `frame`.
pub(crate) fn fragment(frame: &Frame, id: u16, offset: usize, part: &[u8], more: bool) -> Frame {
    let v4 = frame.0[NETWORK] >> 4 == 4;
    let header = NETWORK + if v4 { 20 } else { 40 };
    let mut bytes = frame.0[..header].to_vec();
    bytes.extend(part);
    let offset = offset as u16;
    if v4 {
        let total = (bytes.len() - NETWORK) as u16;
        let frame = Frame(bytes)
            .bytes(NETWORK + 2, &total.to_be_bytes())
            .bytes(NETWORK + 4, &id.to_be_bytes())
            .fragment4(offset, more);
        seal(&frame)
    } else {
        Frame(bytes).fragment6(offset, more, u32::from(id))
    }
}

/// RFC 1071, over the parts as if they stood one behind the other; all but the last have even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
