//! What an address says about itself, without any table: martian, link-local, solicited-node.

/// An IP protocol version.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4 = 0,
    V6 = 1,
}

/// An address of either family as two words whose bytes are in network order; IPv4 as `::ffff:a.b.c.d`.
///
/// Words, because BPF moves bytes one by one.
pub type Address = [u64; 2];

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
    let [a, b, c, d] = octets;
    [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
}

/// An IPv6 address.
#[inline(always)]
pub const fn v6(octets: [u8; 16]) -> Address {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// An IPv4 address, in host order.
#[inline(always)]
pub const fn number_v4(address: &Address) -> u32 {
    u64::from_be(address[1]) as u32
}

/// The address in words of 32 bits, as the kernel has it; IPv4's is the last.
#[inline(always)]
pub const fn quarters(address: &Address) -> [u32; 4] {
    let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]] =
        [address[0].to_ne_bytes(), address[1].to_ne_bytes()];
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// What the second word of an IPv4 address in its mapped form begins with (RFC 4291, 2.5.5.2), in host order.
const MAPPED: u64 = 0xffff;

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
    u64::from_be(address[0]) >> 54 == 0xfe80 >> 6
}

/// `ff02::1:ff00:0/104`, where neighbour solicitations for an address nobody may have yet are sent (RFC 4291, 2.7.1).
#[inline(always)]
pub fn is_solicited_node(address: &Address) -> bool {
    u64::from_be(address[0]) == 0xff02 << 48 && u64::from_be(address[1]) >> 24 == 0x1ff
}

/// Compares word by word: `memcmp`, which array comparison becomes, walks bytes in BPF.
#[inline(always)]
pub fn same(a: &Address, b: &Address) -> bool {
    a[0] == b[0] && a[1] == b[1]
}

#[inline(always)]
fn martian_v4(source: &Address) -> Option<Martian> {
    let number = number_v4(source);
    // A bit for each four of the first byte's values, set where one of them is what follows. Sources drawn at random
    // take this one branch the same way, and each of those below either way.
    const SUSPECT: u64 = 1 | 1 << (127 / 4) | !0 << (224 / 4);
    if SUSPECT >> (number >> 26) & 1 == 0 {
        return None;
    }
    match number {
        0xffff_ffff => Some(Martian::Broadcast),
        0xe000_0000..=0xefff_ffff => Some(Martian::Multicast),
        0x7f00_0000..=0x7fff_ffff => Some(Martian::Loopback),
        0..=0x00ff_ffff => Some(Martian::Unspecified),
        _ => None,
    }
}

#[inline(always)]
fn martian_v6(source: &Address) -> Option<Martian> {
    if source[0] != 0 {
        return (u64::from_be(source[0]) >> 56 == 0xff).then_some(Martian::Multicast);
    }
    match u64::from_be(source[1]) {
        0 => Some(Martian::Unspecified),
        1 => Some(Martian::Loopback),
        low if low >> 32 == MAPPED => Some(Martian::Mapped),
        _ => None,
    }
}
