//! The longest prefix of a service that holds an address: how the table lies in memory, and the one search over it.
//!
//! A policy's services and prefixes stand in one array of cache lines, which user space writes through a memory mapping
//! (`pgfw/src/datapath/prefixes`). A search reads, in this order:
//!
//! 1. the *port table*: (TCP or UDP, port) → the service's number, 0 for none;
//! 2. the *service's line*: its row, and for each family where its [`Index`] is;
//! 3. the *filter*: one bit for each network of 16 or 22 bits, clear where no prefix of the service lies. This is where a
//!    flood from random sources ends, having read one word;
//! 4. the *root*: one slot for each value of the address's first 8 or 16 bits, and below it *nodes* of 8 bits each, as far
//!    as prefixes lie;
//! 5. the *row*, a [`Coverage`] with the prefix that it is for.
//!
//! Slots are immutable below the root: a change builds what lies under a root slot anew and stores the slot, one word. So a
//! reader sees the old table or the new one. Offsets are in lines; line 0 is the header, so 0 is "nothing".

use crate::address::{Address, Family};
use crate::record::{Coverage, ServiceRow};
use crate::wire;

/// Words of 64 bits in a line: together what a cache fetches at once.
pub const LINE_WORDS: u32 = 8;

/// The lines of a table, whose words somebody may store meanwhile.
pub trait Lines {
    /// A line, to be read word by word.
    type Line: Copy;

    /// `None` beyond the table.
    fn line(&self, index: u32) -> Option<Self::Line>;

    /// One load of the whole word, `index` modulo [`LINE_WORDS`].
    fn load(line: Self::Line, index: u32) -> u64;
}

/// Where the port table begins: for TCP, then for UDP, the services of all ports, 16 bits each.
pub const PORTS: u32 = 1;
/// Ports in a line.
const PORTS_PER_LINE: u32 = 32;
/// Where the services' lines begin; a service's is at its number (from 1) minus one.
pub const SERVICES: u32 = PORTS + 2 * 65_536 / PORTS_PER_LINE;

/// Bits of an address that a node tells apart.
pub const NODE_BITS: u32 = 8;
/// Nodes between a root and the last bit of an IPv6 address.
const DEPTH: u32 = (128 - 8) / NODE_BITS;

/// Where an address's slots are.
pub mod slot {
    /// The lower half of a slot: the row that holds for every address of the slot, as far as the upper half does not say
    /// otherwise. 0: none.
    pub const WHOLE: u64 = 0xffff_ffff;
    /// The upper half, with this bit: the node below. Without: a row that holds for some addresses of the slot, or 0.
    pub const NODE: u64 = 1 << 63;
    /// The line in the upper half.
    pub const INNER: u64 = 0x7fff_ffff;
}

/// Words of a node before its slots: four with a bit for each of its 256 values, set where another slot begins, and
/// [`BEGUN`].
pub const NODE_HEAD: u32 = 5;
/// The word of a node that says how many slots begin before each of the four, 16 bits each.
pub const BEGUN: u32 = 4;

/// Words of a row.
pub mod row {
    pub const DENY_UNTIL: u32 = 0;
    pub const ALLOW_UNTIL: u32 = 1;
    pub const DENY_BOOT: u32 = 2;
    pub const ALLOW_BOOT: u32 = 3;
    pub const ADDRESS_HIGH: u32 = 4;
    pub const ADDRESS_LOW: u32 = 5;
    /// From the lowest bit: prefix length (8 bits), flags of [`crate::record::Coverage`] (8), family (8), service (16).
    pub const WHAT: u32 = 6;
    /// The number of the change that wrote it.
    pub const CHANGE: u32 = 7;
}

/// Words of a service's line.
pub mod service {
    /// From the lowest bit: number (16 bits), counter (16).
    pub const ROW: u32 = 0;
    /// [`super::Index`] of IPv4 and IPv6.
    pub const INDEX4: u32 = 1;
    pub const INDEX6: u32 = 2;
}

/// Where the prefixes of a service and family begin. One word, so that one store changes all of it: from the lowest bit
/// the root's line (27 bits), the filter's (27), the root's bits (5), the filter's (5). All zero: it has no prefixes. A
/// filter of no bits: none, since prefixes lie everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index(pub u64);

const OFFSET_BITS: u32 = 27;
const OFFSET: u64 = (1 << OFFSET_BITS) - 1;

impl Index {
    pub const fn new(root: u32, root_bits: u32, filter: u32, filter_bits: u32) -> Index {
        Index(
            root as u64 & OFFSET
                | (filter as u64 & OFFSET) << OFFSET_BITS
                | (root_bits as u64) << (2 * OFFSET_BITS)
                | (filter_bits as u64) << (2 * OFFSET_BITS + 5),
        )
    }

    #[inline(always)]
    pub const fn root(self) -> u32 {
        (self.0 & OFFSET) as u32
    }

    #[inline(always)]
    pub const fn filter(self) -> u32 {
        (self.0 >> OFFSET_BITS & OFFSET) as u32
    }

    #[inline(always)]
    pub const fn root_bits(self) -> u32 {
        (self.0 >> (2 * OFFSET_BITS)) as u32 & 31
    }

    #[inline(always)]
    pub const fn filter_bits(self) -> u32 {
        (self.0 >> (2 * OFFSET_BITS + 5)) as u32
    }
}

/// An address with its first bit uppermost, in two halves; IPv4 fills the first 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub high: u64,
    pub low: u64,
}

impl Key {
    #[inline(always)]
    pub const fn new(family: Family, address: &Address) -> Key {
        match family {
            Family::V4 => Key {
                high: (u32::from_be(address[3]) as u64) << 32,
                low: 0,
            },
            Family::V6 => Key {
                high: (u32::from_be(address[0]) as u64) << 32 | u32::from_be(address[1]) as u64,
                low: (u32::from_be(address[2]) as u64) << 32 | u32::from_be(address[3]) as u64,
            },
        }
    }

    /// The first `bits` bits, 1 to 32 of them.
    #[inline(always)]
    pub const fn first(self, bits: u32) -> u32 {
        (self.high >> (64 - bits)) as u32
    }

    /// Without its first `bits` bits, 1 to 63 of them.
    #[inline(always)]
    const fn after(self, bits: u32) -> Key {
        Key {
            high: self.high << bits | self.low >> (64 - bits),
            low: self.low << bits,
        }
    }

    /// Whether the first `length` bits, of 1 to 128, are those of `other`.
    #[inline(always)]
    const fn begins_like(self, other: Key, length: u32) -> bool {
        let (high, low) = (self.high ^ other.high, self.low ^ other.low);
        if length <= 64 {
            high >> (64 - length) == 0
        } else {
            high == 0 && low >> (128 - length) == 0
        }
    }
}

/// The number of the service at a port of TCP or UDP; 0: none.
#[inline(always)]
pub fn service_at<T: Lines>(table: &T, protocol: u8, port: u16) -> u16 {
    let (line, at, shift) = port_place(protocol, port);
    (word(table, line, at) >> shift) as u16
}

/// Line, word and shift of the port's 16 bits.
#[inline(always)]
pub const fn port_place(protocol: u8, port: u16) -> (u32, u32, u32) {
    let place = if protocol == wire::UDP { 65_536 } else { 0 } + port as u32;
    (
        PORTS + place / PORTS_PER_LINE,
        place / 4 % LINE_WORDS,
        place % 4 * 16,
    )
}

/// The row and the indexes of a service.
#[inline(always)]
pub fn service<T: Lines>(table: &T, number: u16) -> Option<(ServiceRow, [Index; 2])> {
    let line = table.line(SERVICES + number as u32 - 1)?;
    let row = T::load(line, service::ROW);
    let row = ServiceRow {
        service: row as u16,
        counter: (row >> 16) as u16,
    };
    let index = |word| Index(T::load(line, word));
    Some((row, [index(service::INDEX4), index(service::INDEX6)]))
}

/// The line of the row of the longest prefix that holds `key`; 0: none.
#[inline(always)]
pub fn longest<T: Lines>(table: &T, index: Index, key: Key) -> u32 {
    if index.filter_bits() != 0 {
        let bit = key.first(index.filter_bits());
        if word(table, index.filter() + bit / 512, bit / 64) >> (bit % 64) & 1 == 0 {
            return 0;
        }
    }
    if index.root() == 0 {
        return 0;
    }
    let first = key.first(index.root_bits());
    let mut slot = word(table, index.root() + first / LINE_WORDS, first);
    let mut rest = key.after(index.root_bits());
    for _ in 0..DEPTH {
        if slot & slot::NODE == 0 {
            break;
        }
        slot = below(table, (slot >> 32 & slot::INNER) as u32, rest.first(NODE_BITS));
        rest = rest.after(NODE_BITS);
    }
    let inner = (slot >> 32) as u32;
    if inner != 0 && holds(table, inner, key) {
        inner
    } else {
        slot as u32
    }
}

/// The slot of `value` in a node.
#[inline(always)]
fn below<T: Lines>(table: &T, node: u32, value: u32) -> u64 {
    let Some(head) = table.line(node) else {
        return 0;
    };
    let (place, bit) = (value / 64 % 4, value % 64);
    let begins = T::load(head, place) & (u64::MAX >> (63 - bit));
    let before = T::load(head, BEGUN) >> (place * 16) & 0xffff;
    // One begins at 0, so there is at least one.
    let at = NODE_HEAD + before as u32 + begins.count_ones() - 1;
    word(table, node + at / LINE_WORDS, at)
}

/// Whether the prefix of a row holds `key`.
#[inline(always)]
fn holds<T: Lines>(table: &T, row: u32, key: Key) -> bool {
    let Some(line) = table.line(row) else {
        return false;
    };
    let prefix = Key {
        high: T::load(line, row::ADDRESS_HIGH),
        low: T::load(line, row::ADDRESS_LOW),
    };
    key.begins_like(prefix, T::load(line, row::WHAT) as u32 & 0xff)
}

/// What a row says, of all but the ends as they were asked for, which only user space wants.
#[inline(always)]
pub fn answer<T: Lines>(table: &T, row: u32) -> Option<Coverage> {
    let line = table.line(row)?;
    let what = T::load(line, row::WHAT);
    Some(Coverage {
        deny_until: T::load(line, row::DENY_UNTIL),
        allow_until: T::load(line, row::ALLOW_UNTIL),
        deny_boot: 0,
        allow_boot: 0,
        flags: (what >> 8) as u32 & 0xff,
        prefix_length: what as u32 & 0xff,
    })
}

/// Word `word` modulo [`LINE_WORDS`] of a line; 0 beyond the table.
#[inline(always)]
fn word<T: Lines>(table: &T, line: u32, word: u32) -> u64 {
    match table.line(line) {
        Some(line) => T::load(line, word),
        None => 0,
    }
}
