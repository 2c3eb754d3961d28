//! What an address says about itself, without any table: martian, link-local, solicited-node.

/// An IP protocol version.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4 = 0,
    V6 = 1,
}

/// An address of either family as four words whose bytes are in network order; IPv4 as `::ffff:a.b.c.d`.
///
/// Words, because BPF moves bytes one by one.
pub type Address = [u32; 4];

/// The two ends of a packet: who is far, and who is this host.
///
/// In a packet from outside the remote end is the source; in one that leaves, or that an ICMP error quotes, it is the
/// destination. So one flow has the same ends whichever way a packet of it goes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    pub remote: Address,
    pub local: Address,
}

/// Why a source cannot be one (RFC 6890, RFC 1812 5.3.7, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Martian {
    Multicast,
    Broadcast,
    Loopback,
    /// 0.0.0.0/8 or `::`. The latter is rightly used by duplicate address detection and MLD.
    Unspecified,
    /// `::ffff:0:0/96`: on the wire it would let an IPv6 packet match an IPv4 entry.
    Mapped,
}

/// An IPv4 address.
#[inline(always)]
pub const fn v4(octets: [u8; 4]) -> Address {
    [0, 0, MAPPED.to_be(), u32::from_ne_bytes(octets)]
}

/// An IPv6 address.
#[inline(always)]
pub const fn v6(octets: [u8; 16]) -> Address {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// The third word of an IPv4 address in its mapped form (RFC 4291, 2.5.5.2), in host order.
const MAPPED: u32 = 0xffff;

/// What makes an address impossible as a packet's source, if anything.
#[inline(always)]
pub fn martian(source: &Address, family: Family) -> Option<Martian> {
    match family {
        Family::V4 => martian_v4(source),
        Family::V6 => martian_v6(source),
    }
}

/// `fe80::/10`.
#[inline(always)]
pub fn is_link_local(address: &Address) -> bool {
    u32::from_be(address[0]) & 0xffc0_0000 == 0xfe80_0000
}

/// `ff02::1:ff00:0/104`, where neighbour solicitations for an address nobody may have yet are sent (RFC 4291, 2.7.1).
#[inline(always)]
pub fn is_solicited_node(address: &Address) -> bool {
    u32::from_be(address[0]) == 0xff02_0000
        && address[1] == 0
        && u32::from_be(address[2]) == 1
        && u32::from_be(address[3]) & 0xff00_0000 == 0xff00_0000
}

/// Compares word by word: `memcmp`, which array comparison becomes, walks bytes in BPF.
#[inline(always)]
pub fn same(a: &Address, b: &Address) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

#[inline(always)]
fn martian_v4(source: &Address) -> Option<Martian> {
    match u32::from_be(source[3]) {
        0xffff_ffff => Some(Martian::Broadcast),
        0xe000_0000..=0xefff_ffff => Some(Martian::Multicast),
        0x7f00_0000..=0x7fff_ffff => Some(Martian::Loopback),
        0..=0x00ff_ffff => Some(Martian::Unspecified),
        _ => None,
    }
}

#[inline(always)]
fn martian_v6(source: &Address) -> Option<Martian> {
    if u32::from_be(source[0]) & 0xff00_0000 == 0xff00_0000 {
        return Some(Martian::Multicast);
    }
    if source[0] | source[1] != 0 {
        return None;
    }
    match (u32::from_be(source[2]), u32::from_be(source[3])) {
        (0, 0) => Some(Martian::Unspecified),
        (0, 1) => Some(Martian::Loopback),
        (MAPPED, _) => Some(Martian::Mapped),
        _ => None,
    }
}
