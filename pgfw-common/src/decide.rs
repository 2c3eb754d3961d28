//! The verdict on one packet. Every line that drops one is here or in the two files beside.
//!
//! Order: frame, what keeps the host on the network, fragments, transport hygiene, services, established flows, answers.

mod icmp;
mod transport;

pub(crate) use icmp::echo_ports;
pub(crate) use transport::outgoing as outgoing_ports;

use crate::address::{Family, Martian, martian};
use crate::anew::anew;
use crate::coverage::{Admission, Jiffies};
use crate::packet::Packet;
use crate::parse::{self, Fragment, Ip, Link, Place, Segment};
use crate::reason::{Action, Reason, action_of};
use crate::record::{Scratch, ServiceKey, ServiceRow};
use crate::tables::{FRAGMENT_SECONDS, Sender, Tables};
use crate::wire;

/// What [`decide`] says and leaves in its scratch: a reason, and the service whose port was addressed, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    pub service: Option<ServiceRow>,
    /// The service is open to whoever asks.
    pub world: bool,
}

/// When and where a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub now: Jiffies,
    pub ifindex: u32,
}

impl Verdict {
    /// `segment` is what the decision that ended with `reason` left of the packet's transport header.
    #[inline(always)]
    pub fn new(reason: Reason, segment: &Segment) -> Verdict {
        let found = segment.found();
        Verdict {
            reason,
            service: found.map(|(row, _)| row),
            world: matches!(found, Some((_, Admission::AllowedToWorld))),
        }
    }
}

/// Judges one packet from outside. What was in `scratch` does not matter; [`Verdict::new`] and [`remember`] want what is
/// in it afterwards.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    arrival: Arrival,
    scratch: &mut Scratch,
) -> Reason {
    // What is not IP, or has no transport header, leaves nothing else behind.
    scratch.ip.fragment = Fragment::Whole;
    scratch.segment.keep(None);
    let link = match parse::link(packet) {
        Ok(link) => link,
        Err(malformed) => return malformed.into(),
    };
    let family = match link.ether_type {
        wire::ETHER_IPV4 => Family::V4,
        wire::ETHER_IPV6 => Family::V6,
        wire::ETHER_ARP => return Reason::Arp,
        _ => return link_layer(packet, tables, &link),
    };
    if let Err(malformed) = parse::ip(packet, family, link.network, Place::Incoming, &mut scratch.ip) {
        return malformed.into();
    }
    // From here on one path, however the packet was found; see `parse`.
    let scratch = anew(scratch);
    network(
        packet,
        tables,
        arrival,
        &scratch.ip,
        &mut scratch.quote,
        &mut scratch.segment,
    )
}

/// What is neither ARP nor IP passes by name only.
#[inline(always)]
fn link_layer<P: Packet, T: Tables>(packet: &P, tables: &T, link: &Link) -> Reason {
    if link.ether_type <= wire::ETHER_LENGTH_MAX {
        // IEEE 802.1D, 7.12.3: spanning tree is 802.2 with LLC 42 42 03 to one reserved address.
        return match packet.read::<wire::Llc>(link.network as usize) {
            Some(wire::Llc {
                dsap: 0x42,
                ssap: 0x42,
                control: 0x03,
            }) if tables.spanning_tree() && is_spanning_tree(packet) => Reason::LinkLayer,
            Some(_) | None => Reason::Llc,
        };
    }
    if tables.ether_type(link.ether_type) {
        Reason::LinkLayer
    } else {
        Reason::EtherType
    }
}

#[inline(always)]
fn is_spanning_tree<P: Packet>(packet: &P) -> bool {
    let Some(wire::Ethernet { destination, .. }) = packet.read(0) else {
        return false;
    };
    let [a, b, c, d, e, f] = destination;
    let [p, q, r, s, t, u] = wire::STP_DESTINATION;
    (a ^ p) | (b ^ q) | (c ^ r) | (d ^ s) | (e ^ t) | (f ^ u) == 0
}

#[inline(always)]
fn network<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    arrival: Arrival,
    ip: &Ip,
    quote: &mut Ip,
    segment: &mut Segment,
) -> Reason {
    match martian(&ip.ends.remote, ip.family) {
        None => {}
        // `::` is how a host without an address asks whether the one it wants is taken, and how it joins groups:
        // refusing it would keep a neighbour from hearing that our address is ours (RFC 4862, 5.4).
        Some(Martian::Unspecified) => return icmp::unspecified(packet, ip),
        Some(martian) => return martian.into(),
    }
    if let Fragment::Later = ip.fragment {
        // No header to judge by: it passes on what was said to the first one, never on its own bytes.
        return if tables.spend_fragment(ip, arrival.ifindex, arrival.now) {
            Reason::Fragment
        } else {
            Reason::FragmentUnknown
        };
    }
    transport(packet, tables, arrival, ip, quote, segment)
}

/// What a verdict leaves behind: a first fragment that passed is remembered. `ip` is what `decide` read, `reason` the
/// verdict's number, `world` its own.
///
/// Not a part of [`decide`]: there the verifier would walk it once for each reason. Who only asks does not call it.
#[inline(always)]
pub fn remember<T: Tables>(tables: &T, arrival: Arrival, ip: &Ip, reason: u8, world: bool) {
    if ip.fragment == Fragment::First && action_of(reason) == Action::Pass {
        let ticks = FRAGMENT_SECONDS * u64::from(tables.hz());
        let until = Jiffies(arrival.now.0.wrapping_add(ticks));
        tables.remember(sender(reason, world), ip, arrival.ifindex, until);
    }
}

/// Who is known to have sent a packet that passed.
#[inline(always)]
fn sender(reason: u8, world: bool) -> Sender {
    let known = reason == Reason::Service.number()
        || reason == Reason::Established.number()
        || reason == Reason::Answer.number()
        || reason == Reason::EchoReply.number()
        || reason == Reason::IcmpError.number();
    if known && !world {
        Sender::Known
    } else {
        Sender::Anyone
    }
}

#[inline(always)]
fn transport<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    arrival: Arrival,
    ip: &Ip,
    quote: &mut Ip,
    segment: &mut Segment,
) -> Reason {
    let read = match (ip.protocol, ip.family) {
        (wire::ICMP, Family::V4) | (wire::ICMPV6, Family::V6) => {
            return icmp::icmp(packet, tables, arrival, ip, quote);
        }
        (wire::IGMP, Family::V4) => return Reason::GroupMembership,
        (wire::TCP, _) => transport::read_tcp(packet, ip, segment),
        (wire::UDP, _) => transport::read_udp(packet, tables, ip, segment),
        _ => transport::read_other(packet, ip, segment),
    };
    if let Err(reason) = read {
        return reason;
    }
    // From here on one path for all protocols; see `parse`.
    let segment = anew(segment);
    let key = ServiceKey {
        port: segment.ports.local,
        protocol: ip.protocol,
        pad: 0,
    };
    segment.keep(tables.admission(key, ip, arrival.now));
    // Nor is it of use to anyone to walk what follows once for each answer.
    let segment = &*anew(segment);
    let said = segment.said();
    match ip.protocol {
        wire::TCP => transport::tcp(tables, arrival, ip, segment, said),
        wire::UDP => transport::udp(tables, arrival, ip, segment, said),
        _ => match said {
            None => Reason::Protocol,
            Some(Admission::Denied) => Reason::ServiceDenied,
            Some(Admission::Allowed | Admission::AllowedToWorld) => Reason::Service,
            Some(Admission::Closed) => Reason::ServiceClosed,
        },
    }
}
