//! From bytes to headers: the link layer, then IPv4 or IPv6 up to the transport header.
//!
//! Nothing here judges. What cannot be read rightly is [`Malformed`]; whether a well-formed packet may pass is
//! [`crate::decide`]'s business.

use crate::address::{Address, Ends, Family, v4, v6};
use core::mem::offset_of;

use crate::anew::anew;
use crate::coverage::Admission;
use crate::packet::Packet;
use crate::record::ServiceRow;
use crate::tables::Ports;
use crate::wire;

/// 802.1ad outside, 802.1Q inside: no host-facing network stacks more.
pub const MAX_VLAN_TAGS: usize = 2;

/// Hop-by-hop, destination, routing, fragment, authentication, destination again: RFC 8200, 4.1 has no longer chain.
pub const MAX_EXTENSION_HEADERS: usize = 6;

/// Bytes that are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    EthernetTruncated,
    VlanTruncated,
    /// More than [`MAX_VLAN_TAGS`].
    VlanDepth,
    Ipv4Truncated,
    Ipv4Version,
    /// Header length below five words.
    Ipv4HeaderLength,
    /// Total length shorter than the header or longer than the frame.
    Ipv4TotalLength,
    Ipv6Truncated,
    Ipv6Version,
    /// Payload length beyond the frame.
    Ipv6PayloadLength,
    ExtensionTruncated,
    /// More than [`MAX_EXTENSION_HEADERS`], or a second fragment header.
    ExtensionChain,
    TcpTruncated,
    /// Data offset below five words, or beyond the packet.
    TcpOffset,
    UdpTruncated,
    /// Length field shorter than the header or longer than the packet.
    UdpLength,
    IcmpTruncated,
}

/// The link layer of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Host order, after the VLAN tags; a length when at most [`wire::ETHER_LENGTH_MAX`].
    pub ether_type: u16,
    /// Where the network layer begins.
    pub network: u32,
}

/// An IP packet up to its transport header. Plain numbers, valid when all are zero: in the kernel it lies in a map.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ip {
    pub ends: Ends,
    /// The fragment's id in host order; meaningless when whole.
    pub id: u32,
    /// Where the IP header begins.
    pub network: u32,
    /// Where the transport header begins.
    pub transport: u32,
    /// The first byte after the IP packet, which link-layer padding may follow.
    pub end: u32,
    pub family: Family,
    /// The transport protocol; meaningless in a later fragment.
    pub protocol: u8,
    pub hop_limit: u8,
    pub fragment: Fragment,
}

impl Ip {
    /// Nothing yet.
    pub const EMPTY: Ip = Ip {
        ends: Ends {
            remote: [0; 2],
            local: [0; 2],
        },
        id: 0,
        network: 0,
        transport: 0,
        end: 0,
        family: Family::V4,
        protocol: 0,
        hop_limit: 0,
        fragment: Fragment::Whole,
    };

    /// Whether `length` bytes of the transport header lie within the packet. Padding behind it is no header.
    #[inline(always)]
    pub fn contains(&self, length: usize) -> bool {
        self.transport as usize + length <= self.end as usize
    }
}

/// What a packet's transport header says, as far as a verdict asks. Lies beside [`Ip`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Zero for protocols without ports.
    pub ports: Ports,
    /// TCP's; means nothing in others.
    pub flags: u8,
    /// What the service at the port says to the remote end: 0 where there is no service, else one more than the
    /// [`Admission`]'s number.
    said: u8,
    /// That service.
    service: u32,
}

impl Segment {
    /// Nothing yet.
    pub const EMPTY: Segment = Segment {
        ports: Ports { remote: 0, local: 0 },
        flags: 0,
        said: 0,
        service: 0,
    };

    /// Keeps what was found at the port.
    #[inline(always)]
    pub const fn keep(&mut self, found: Option<(ServiceRow, Admission)>) {
        self.said = match found {
            None => 0,
            Some((row, admission)) => {
                self.service = row.word();
                admission as u8 + 1
            }
        };
    }

    /// What was kept.
    #[inline(always)]
    pub fn found(&self) -> Option<(ServiceRow, Admission)> {
        self.said()
            .map(|admission| (ServiceRow::from_word(self.service), admission))
    }

    /// The [`Admission`] alone.
    #[inline(always)]
    pub fn said(&self) -> Option<Admission> {
        Admission::from_number(self.said.checked_sub(1)?)
    }

    /// The counter of that service, 0 where there is none to count for.
    #[inline(always)]
    pub fn counter(&self) -> u16 {
        if self.said == 0 {
            0
        } else {
            ServiceRow::from_word(self.service).counter
        }
    }
}

/// How much of a datagram a packet is.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole = 0,
    /// All of it, behind an IPv6 fragment header (RFC 6946).
    Atomic = 1,
    /// The part with the transport header.
    First = 2,
    /// A part without any header; its bytes are never read as ports.
    Later = 3,
}

/// Where an IP packet is found, which says how its lengths are to be taken and which end is this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a frame from outside: lengths must fit; the source is the remote end.
    Incoming,
    /// In a frame that leaves: lengths must fit; the destination is the remote end.
    Outgoing,
    /// Quoted in an ICMP error, which may cut it anywhere after its first eight transport bytes; it once left this host.
    Quote,
}

impl Place {
    #[inline(always)]
    fn ends(self, source: Address, destination: Address) -> Ends {
        match self {
            Place::Incoming => Ends {
                remote: source,
                local: destination,
            },
            Place::Outgoing | Place::Quote => Ends {
                remote: destination,
                local: source,
            },
        }
    }
}

/// Strips Ethernet and at most [`MAX_VLAN_TAGS`] tags.
#[inline(always)]
pub fn link<P: Packet>(packet: &P) -> Result<Link, Malformed> {
    let found: wire::EtherType = packet
        .read(offset_of!(wire::Ethernet, ether_type))
        .ok_or(Malformed::EthernetTruncated)?;
    let mut ether_type = u16::from_be_bytes(found.0);
    let mut network = size_of::<wire::Ethernet>() as u32;
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ether_type) {
            break;
        }
        let tag: wire::Vlan = packet.read(network as usize).ok_or(Malformed::VlanTruncated)?;
        ether_type = u16::from_be_bytes(tag.ether_type);
        network += size_of::<wire::Vlan>() as u32;
    }
    if is_vlan(ether_type) {
        return Err(Malformed::VlanDepth);
    }
    Ok(Link { ether_type, network })
}

#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    ether_type == wire::ETHER_8021Q || ether_type == wire::ETHER_8021AD
}

/// Reads an IP header of the family.
#[inline(always)]
pub fn ip<P: Packet>(
    packet: &P,
    family: Family,
    network: u32,
    place: Place,
    ip: &mut Ip,
) -> Result<(), Malformed> {
    ip.family = family;
    ip.network = network;
    match family {
        Family::V4 => ipv4(packet, place, ip),
        Family::V6 => ipv6(packet, place, ip),
    }
}

/// Reads an IPv4 header with its options.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, place: Place, ip: &mut Ip) -> Result<(), Malformed> {
    let header: wire::Ipv4 = packet.read(ip.network as usize).ok_or(Malformed::Ipv4Truncated)?;
    if header.version_ihl >> 4 != 4 {
        return Err(Malformed::Ipv4Version);
    }
    let header_length = u32::from(header.version_ihl & 0x0f) * 4;
    if header_length < size_of::<wire::Ipv4>() as u32 {
        return Err(Malformed::Ipv4HeaderLength);
    }
    let total = u32::from(u16::from_be_bytes(header.total_length));
    ip.end = match place {
        Place::Quote => ip.network + total,
        Place::Incoming | Place::Outgoing => {
            frame_end(packet, ip.network, total).ok_or(Malformed::Ipv4TotalLength)?
        }
    };
    ip.transport = ip.network + header_length;
    if ip.transport > ip.end {
        return Err(Malformed::Ipv4TotalLength);
    }
    let field = u16::from_be_bytes(header.fragment);
    ip.fragment = fragment(
        field & wire::IPV4_OFFSET != 0,
        field & wire::IPV4_MORE_FRAGMENTS != 0,
        Fragment::Whole,
    );
    ip.id = u32::from(u16::from_be_bytes(header.id));
    ip.protocol = header.protocol;
    ip.hop_limit = header.ttl;
    ip.ends = place.ends(v4(header.source), v4(header.destination));
    Ok(())
}

/// Reads an IPv6 header and its chain of extension headers.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, place: Place, ip: &mut Ip) -> Result<(), Malformed> {
    let header: wire::Ipv6 = packet.read(ip.network as usize).ok_or(Malformed::Ipv6Truncated)?;
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(Malformed::Ipv6Version);
    }
    let payload = u32::from(u16::from_be_bytes(header.payload_length));
    ip.transport = ip.network + size_of::<wire::Ipv6>() as u32;
    ip.end = match place {
        Place::Quote => ip.transport + payload,
        Place::Incoming | Place::Outgoing => {
            frame_end(packet, ip.transport, payload).ok_or(Malformed::Ipv6PayloadLength)?
        }
    };
    ip.fragment = Fragment::Whole;
    ip.id = 0;
    ip.protocol = header.next_header;
    ip.hop_limit = header.hop_limit;
    ip.ends = place.ends(v6(header.source), v6(header.destination));
    chain(packet, ip)
}

/// Walks the extension headers (RFC 8200, 4). ESP and "no next header" end a chain: they are protocols here.
#[inline(always)]
fn chain<P: Packet>(packet: &P, ip: &mut Ip) -> Result<(), Malformed> {
    // Most packets have none.
    if !is_extension(ip.protocol) {
        return Ok(());
    }
    for _ in 0..MAX_EXTENSION_HEADERS {
        // The verifier follows every value along every path, and four kinds of headers at six places are 4,096 of
        // them. What it reads back from memory it knows nothing about, so behind this line all paths are one.
        let ip = anew(&mut *ip);
        let header = match ip.protocol {
            wire::HOP_BY_HOP
            | wire::ROUTING
            | wire::DESTINATION_OPTIONS
            | wire::MOBILITY
            | wire::AUTHENTICATION
            | wire::FRAGMENT => packet
                .read::<wire::Extension>(ip.transport as usize)
                .ok_or(Malformed::ExtensionTruncated)?,
            _ => break,
        };
        let length = match ip.protocol {
            // RFC 4302, 2.2: in units of four bytes, minus two.
            wire::AUTHENTICATION => (u32::from(header.length) + 2) * 4,
            wire::FRAGMENT => {
                // Two of them would let an atomic fragment hide a real one.
                if ip.fragment != Fragment::Whole {
                    return Err(Malformed::ExtensionChain);
                }
                fragment_header(packet, ip)?;
                size_of::<wire::FragmentHeader>() as u32
            }
            _ => (u32::from(header.length) + 1) * 8,
        };
        ip.protocol = header.next_header;
        ip.transport += length;
        if ip.transport > ip.end {
            return Err(Malformed::ExtensionTruncated);
        }
        if let Fragment::Later = ip.fragment {
            return Ok(());
        }
    }
    if is_extension(anew(ip).protocol) {
        return Err(Malformed::ExtensionChain);
    }
    Ok(())
}

#[inline(always)]
fn fragment_header<P: Packet>(packet: &P, ip: &mut Ip) -> Result<(), Malformed> {
    let header: wire::FragmentHeader = packet
        .read(ip.transport as usize)
        .ok_or(Malformed::ExtensionTruncated)?;
    let field = u16::from_be_bytes(header.offset_more);
    ip.fragment = fragment(
        field & wire::IPV6_OFFSET != 0,
        field & wire::IPV6_MORE_FRAGMENTS != 0,
        Fragment::Atomic,
    );
    ip.id = u32::from_be_bytes(header.id);
    Ok(())
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        wire::HOP_BY_HOP
            | wire::ROUTING
            | wire::FRAGMENT
            | wire::AUTHENTICATION
            | wire::DESTINATION_OPTIONS
            | wire::MOBILITY
    )
}

#[inline(always)]
fn fragment(offset: bool, more: bool, whole: Fragment) -> Fragment {
    match (offset, more) {
        (false, false) => whole,
        (false, true) => Fragment::First,
        (true, false) | (true, true) => Fragment::Later,
    }
}

/// Where a packet ends whose length field, counted from `start`, says `length`; `None` when the frame is shorter.
///
/// A coalesced packet beyond 64 KiB carries zero there (include/linux/ip.h, `iph_totlen`; BIG TCP): then the frame's own
/// length counts, which no header can exceed.
#[inline(always)]
fn frame_end<P: Packet>(packet: &P, start: u32, length: u32) -> Option<u32> {
    const LENGTH_FIELD_MAX: u32 = 0xffff;
    if length == 0 && packet.holds((start + LENGTH_FIELD_MAX + 1) as usize) {
        return Some(start + LENGTH_FIELD_MAX);
    }
    packet.holds((start + length) as usize).then_some(start + length)
}
