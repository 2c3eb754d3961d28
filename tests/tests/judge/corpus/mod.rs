//! Cases by hand, one for each rule: what the generator may or may not find is here for certain.

mod headers;
mod messages;
mod tcp;

use pgfw_common::frames::{ACK, Frame, NETWORK, PSH};

use crate::craft::Ends;
use crate::flow::{Flow, Setting};
use crate::generate::beside;

/// Packets for a setting.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) family: Families,
    pub(crate) from: Sender,
    pub(crate) setting: Setting,
    pub(crate) frames: fn(&Flow) -> Vec<Frame>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Families {
    Both,
    V4,
    V6,
}

impl Families {
    pub(crate) fn holds(self, v4: bool) -> bool {
        match self {
            Families::Both => true,
            Families::V4 => v4,
            Families::V6 => !v4,
        }
    }
}

/// Whether the far end may use PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sender {
    Allowed,
    Stranger,
}

impl Sender {
    pub(crate) fn is_allowed(self) -> bool {
        match self {
            Sender::Allowed => true,
            Sender::Stranger => false,
        }
    }
}

const fn entry(
    name: &'static str,
    family: Families,
    from: Sender,
    setting: Setting,
    frames: fn(&Flow) -> Vec<Frame>,
) -> Entry {
    Entry {
        name,
        family,
        from,
        setting,
        frames,
    }
}

pub(crate) const CORPUS: [&[Entry]; 3] = [tcp::ENTRIES, messages::ENTRIES, headers::ENTRIES];

fn to(flow: &Flow, port: u16) -> Ends {
    Ends {
        target_port: port,
        ..flow.ends
    }
}

fn data(flow: &Flow) -> Frame {
    flow.ends
        .tcp(PSH | ACK, flow.sequence, flow.acknowledged, b"data")
}

/// With its last transport byte changed, which no checksum survives.
fn spoiled(frame: Frame) -> Frame {
    let at = if frame.0[NETWORK] >> 4 == 4 { 20 } else { 40 } + NETWORK + 6;
    let value = frame.0[at] ^ 0x55;
    frame.byte(at, value)
}

fn reply(flow: &Flow) -> Frame {
    flow.ends
        .icmp(if flow.ends.is_v4() { 0 } else { 129 }, 0, &flow.echo())
}

/// "Too big", from a router beside the far end.
fn unreachable(flow: &Flow, quote: &Frame) -> Frame {
    let router = Ends {
        source: beside(flow.ends.source),
        ..flow.ends
    };
    let (kind, code) = if flow.ends.is_v4() { (3, 4) } else { (2, 0) };
    router.icmp(kind, code, &[&[0, 0, 5, 0x78], quote.packet()].concat())
}

fn neighbour() -> std::net::IpAddr {
    "fe80::77".parse().expect("an address")
}

/// A neighbour message about the host's address.
fn discovery(flow: &Flow, kind: u8) -> Frame {
    let target = match flow.ends.target {
        std::net::IpAddr::V6(target) => target.octets(),
        std::net::IpAddr::V4(_) => unreachable!("discovery is IPv6"),
    };
    let rest = [&[0; 4][..], &target].concat();
    Ends {
        source: neighbour(),
        ..flow.ends
    }
    .icmp(kind, 0, &rest)
}

/// A neighbour solicitation from this source, with this behind its checksum.
fn solicitation(flow: &Flow, source: std::net::IpAddr, rest: &[u8]) -> Frame {
    Ends { source, ..flow.ends }.icmp(135, 0, rest).hop_limit(255)
}
