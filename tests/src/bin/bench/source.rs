//! Where packets come from: nobody in particular, or one of a set of networks; the same in a program and out here.
//!
//! A test run repeats one frame, so a program in front of the one that is measured writes a new source address into it
//! each time. The address is computed rather than looked up: a table of addresses would compete for the cache with the
//! tables that are measured.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ipnet::IpNet;

use crate::kernel;

/// Who sends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// As the frame says.
    Fixed,
    /// Number so and so of the family, drawn below `count` each time. All of them: `u64::from(u32::MAX) + 1`.
    Drawn { family: Family, count: u64, tags: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// Where the source stands in an untagged frame.
    pub(crate) fn source_at(self) -> u16 {
        match self {
            Family::V4 => 26,
            Family::V6 => 22,
        }
    }

    /// Bytes of an address.
    pub(crate) fn bytes(self) -> u16 {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}

impl Source {
    /// Any address that the family's numbers reach.
    pub(crate) fn random(family: Family) -> Source {
        Source::Drawn {
            family,
            count: 1 << 32,
            tags: 0,
        }
    }

    /// One of the first `count`.
    pub(crate) fn among(family: Family, count: u64) -> Source {
        Source::Drawn {
            family,
            count,
            tags: 0,
        }
    }

    /// The same behind so many VLAN tags.
    pub(crate) fn tagged(self, number: u8) -> Source {
        match self {
            Source::Fixed => Source::Fixed,
            Source::Drawn {
                family,
                count,
                tags: _,
            } => Source::Drawn {
                family,
                count,
                tags: number,
            },
        }
    }
}

/// The address with this number. Numbers are scattered over the whole space, and none is loopback's or a group's
/// but for one in 222.
pub(crate) fn address(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => {
            let mut word = number.wrapping_mul(MIX4[0]);
            word ^= word >> 15;
            word = word.wrapping_mul(MIX4[1]);
            word ^= word >> 13;
            let first = (((word >> 24) * 222) >> 8) + 1;
            IpAddr::V4(Ipv4Addr::from_bits(first << 24 | word & 0x00ff_ffff))
        }
        Family::V6 => {
            let mut word = u64::from(number).wrapping_mul(MIX6[0]);
            word ^= word >> 32;
            word = word.wrapping_mul(MIX6[1]);
            word = word << 3 >> 3 | GLOBAL;
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(word) << 64 | u128::from(word)))
        }
    }
}

/// So many different networks, each of the length that its number has, and how many numbers it took: two may fall together.
pub(crate) fn networks(family: Family, count: usize, length: impl Fn(u32) -> u8) -> (BTreeSet<IpNet>, u64) {
    let mut found = BTreeSet::new();
    let mut number = 0;
    while found.len() < count {
        let net = IpNet::new(address(family, number), length(number)).expect("a length of the family");
        found.insert(net.trunc());
        number += 1;
    }
    (found, u64::from(number))
}

const MIX4: [u32; 2] = [0x9e37_79b1, 0x85eb_ca77];
const MIX6: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
/// 2000::/3.
const GLOBAL: u64 = 0x2000_0000_0000_0000;

/// The program that draws a source, writes it into the frame and jumps to another.
#[derive(Debug)]
pub(crate) struct Chain {
    front: OwnedFd,
    /// Holds what is jumped to.
    _slot: OwnedFd,
}

impl Chain {
    pub(crate) fn new(source: Source, to: BorrowedFd<'_>, frags: bool) -> Chain {
        let slot = kernel::slot(to);
        let front = kernel::load(&front(source, slot.as_fd()), frags);
        Chain { front, _slot: slot }
    }

    /// The last action, and nanoseconds for each of so many frames.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> (u32, f64) {
        kernel::run(self.front.as_fd(), frame, repeat)
    }
}

/// include/uapi/linux/bpf.h: eight bits of operation, registers, sixteen bits of offset, an immediate.
pub(crate) const fn code(operation: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    operation as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

/// `to = immediate`, of 64 bits; `kind` 1 means the descriptor of a map.
pub(crate) fn wide(to: u8, kind: u8, immediate: u64) -> [u64; 2] {
    [
        code(0x18, to, kind, 0, immediate as u32 as i32),
        code(0, 0, 0, 0, (immediate >> 32) as u32 as i32),
    ]
}

fn front(source: Source, slot: BorrowedFd<'_>) -> Vec<u64> {
    let mut all = vec![code(0xbf, 6, 1, 0, 0)]; // r6 = the context
    if let Source::Drawn { family, count, tags } = source {
        all.extend(draw(family, count, family.source_at() + 4 * u16::from(tags)));
    }
    all.push(code(0xbf, 1, 6, 0, 0));
    all.extend(wide(2, 1, slot.as_raw_fd() as u64));
    all.extend([
        code(0xb7, 3, 0, 0, 0),
        code(0x85, 0, 0, 0, 12), // bpf_tail_call
        code(0xb7, 0, 0, 0, 0),  // XDP_ABORTED
        code(0x95, 0, 0, 0, 0),
    ]);
    all
}

fn draw(family: Family, count: u64, at: u16) -> Vec<u64> {
    let at = i16::try_from(at).expect("the head of a frame");
    let mut all = vec![
        code(0x61, 7, 6, 0, 0), // r7 = data
        code(0x61, 8, 6, 4, 0), // r8 = data_end
        code(0xbf, 2, 7, 0, 0),
        code(0x07, 2, 0, 0, i32::from(at) + i32::from(family.bytes())),
        code(0x3d, 8, 2, 2, 0), // room enough: over the two that follow
        code(0xb7, 0, 0, 0, 0),
        code(0x95, 0, 0, 0, 0),
        code(0x85, 0, 0, 0, 7), // r0 = bpf_get_prandom_u32
    ];
    if count < 1 << 32 {
        let count = i32::try_from(count).expect("fewer than two thousand million networks");
        all.extend([code(0x27, 0, 0, 0, count), code(0x77, 0, 0, 0, 32)]);
    }
    match family {
        Family::V4 => all.extend([
            code(0x24, 0, 0, 0, MIX4[0] as i32),
            code(0xbc, 1, 0, 0, 0),
            code(0x74, 1, 0, 0, 15),
            code(0xac, 0, 1, 0, 0),
            code(0x24, 0, 0, 0, MIX4[1] as i32),
            code(0xbc, 1, 0, 0, 0),
            code(0x74, 1, 0, 0, 13),
            code(0xac, 0, 1, 0, 0),
            code(0xbc, 1, 0, 0, 0),
            code(0x74, 1, 0, 0, 24),
            code(0x24, 1, 0, 0, 222),
            code(0x74, 1, 0, 0, 8),
            code(0x04, 1, 0, 0, 1),
            code(0x64, 1, 0, 0, 24),
            code(0x54, 0, 0, 0, 0x00ff_ffff),
            code(0x4c, 0, 1, 0, 0),
            code(0xdc, 0, 0, 0, 32), // to network order
            code(0x63, 7, 0, at, 0),
        ]),
        Family::V6 => {
            all.extend(wide(1, 0, MIX6[0]));
            all.extend([
                code(0x2f, 0, 1, 0, 0),
                code(0xbf, 1, 0, 0, 0),
                code(0x77, 1, 0, 0, 32),
                code(0xaf, 0, 1, 0, 0),
            ]);
            all.extend(wide(1, 0, MIX6[1]));
            all.extend([
                code(0x2f, 0, 1, 0, 0),
                code(0x67, 0, 0, 0, 3),
                code(0x77, 0, 0, 0, 3),
            ]);
            all.extend(wide(1, 0, GLOBAL));
            all.extend([
                code(0x4f, 0, 1, 0, 0),
                code(0xdc, 0, 0, 0, 64),
                code(0x7b, 7, 0, at, 0),
                code(0x7b, 7, 0, at + 8, 0),
            ]);
        }
    }
    all
}

/// `return XDP_DROP`.
pub(crate) fn empty(frags: bool) -> OwnedFd {
    let drop = i32::try_from(kernel::DROP).expect("a small number");
    kernel::load(&[code(0xb7, 0, 0, 0, drop), code(0x95, 0, 0, 0, 0)], frags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_addresses_of_hosts() {
        for family in Family::BOTH {
            let all = (0..100_000).map(|number| address(family, number));
            let hosts = all.filter(|address| !address.is_loopback() && !address.is_multicast());
            assert!(hosts.count() > 99_000);
        }
    }
}
