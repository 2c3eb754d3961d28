//! The longest prefix of a service that holds an address: how the table lies in memory, and the one search over it.
//!
//! A policy's services and prefixes stand in one array of words, which user space writes through a memory mapping
//! (`pgfw/src/datapath/prefixes`). A search reads, in this order:
//!
//! 1. the *port table*: (TCP or UDP, port) → the line of the service's record, 0 for none;
//! 2. the service's *record*, which says for each family where its index is and how it takes addresses apart;
//! 3. the *filter*: a word for each of the address's first 8 to 17 bits, in which the bits that follow choose one or
//!    two ([`mark`]). Where one of them is clear, nothing but the *base* holds, an answer that the record names. A flood from
//!    random sources ends here, having read one word of it;
//! 4. the *root*: one value beside each word of the filter;
//! 5. where these do not settle it, a *list*: the ranges of what is left of the address, in order, to be searched by
//!    halving. What IPv6 leaves after 64 bits more is in a list of its own;
//! 6. the *answer*. Prefixes that say the same share one, so that it stays in the cache.
//!
//! All prefixes of an index but `0.0.0.0/0` or `::/0` may have their first bits in common; they are compared at once and
//! left out. Whatever a root leads to is never changed: a change makes it anew and stores the root's value, one word. So a
//! reader sees the table as it was or as it is. Line 0 is the header, so an offset of 0 is "nothing".

use crate::address::{Address, Family, number_v4};
use crate::record::ServiceRow;
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

/// The line where the port table begins: for TCP, then for UDP, the record's line of each port, 32 bits.
pub const PORTS: u32 = 1;
/// The line behind it, where the records' lines are found by the services' numbers, a word each.
pub const DIRECTORY: u32 = PORTS + 2 * 65_536 / (2 * LINE_WORDS);

/// Words of a record.
pub mod record {
    /// From the lowest bit: the service's number (16 bits), its counter (16).
    pub const ROW: u32 = 0;
    /// Three words for IPv4, then three for IPv6.
    pub const FAMILIES: u32 = 1;
    pub const FAMILY_WORDS: u32 = 3;
    /// The lines of root (lower half) and filter; 0: the family has no prefixes.
    pub const WHERE: u32 = 0;
    /// See [`super::Plan`].
    pub const PLAN: u32 = 1;
    /// The bits that all prefixes have in common, uppermost first.
    pub const COMMON: u32 = 2;
}

/// How an index takes addresses apart, and its answers for those that it says nothing else about. In one word; from the
/// lowest bit: bits of the root (5), of a mark (5), in common (6), then 24 bits each for the base and the answer to
/// those without the bits in common. An answer is named by its first word's number, divided by [`answer::WORDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Of root and filter.
    pub root_bits: u32,
    /// How many bits behind those of the root go into a mark of two bits; 0: a mark is one bit.
    pub mark_bits: u32,
    pub common_bits: u32,
    pub base: u32,
    pub outside: u32,
}

impl Plan {
    /// Words that an answer can be among.
    pub const REACH: u32 = answer::WORDS << 24;

    pub const fn word(self) -> u64 {
        self.root_bits as u64
            | (self.mark_bits as u64) << 5
            | (self.common_bits as u64) << 10
            | ((self.base / answer::WORDS) as u64) << 16
            | ((self.outside / answer::WORDS) as u64) << 40
    }

    #[inline(always)]
    pub const fn from_word(word: u64) -> Plan {
        Plan {
            root_bits: word as u32 & 31,
            mark_bits: (word >> 5) as u32 & 31,
            common_bits: (word >> 10) as u32 & 63,
            base: (word >> 16) as u32 % (1 << 24) * answer::WORDS,
            outside: (word >> 40) as u32 * answer::WORDS,
        }
    }
}

/// What a root holds, and lists. The lower half is a word's number.
pub mod value {
    pub const PLACE: u64 = 0xffff_ffff;
    /// Two bits.
    pub const KIND: u32 = 32;
    /// An answer; 0: the base's. In a list of IPv6 it is the second word of an entry, after its start, and
    /// [`LENGTH`] counts.
    pub const ANSWER: u64 = 0;
    /// A list's first entry; how many there are is above [`COUNT`].
    pub const LIST: u64 = 1;
    /// IPv4: an answer for a part of the slot, as every entry of a list is. The part begins at the 24 bits from [`START`]
    /// on.
    pub const PART: u64 = 2;
    pub const COUNT: u32 = 34;
    /// How many bits from the start of an entry on it fixes, 5 bits in IPv4 and 7 in IPv6; 0: it holds as far as the next
    /// entry.
    pub const LENGTH: u32 = 34;
    pub const START: u32 = 40;
}

/// Bits of an IPv4 address behind the smallest root.
pub const PART_BITS: u32 = 24;

/// Words of an answer, which never lies in two lines.
pub mod answer {
    pub const DENY_UNTIL: u32 = 0;
    pub const ALLOW_UNTIL: u32 = 1;
    /// Those of [`crate::record::Coverage`].
    pub const FLAGS: u32 = 2;
    /// How many there are.
    pub const WORDS: u32 = 4;
}

/// Bits that an index leaves out at most.
pub const MOST_IN_COMMON: u32 = 48;

/// Halvings of the longest list.
const HALVINGS: u32 = 22;

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
                high: (number_v4(address) as u64) << 32,
                low: 0,
            },
            Family::V6 => Key {
                high: u64::from_be(address[0]),
                low: u64::from_be(address[1]),
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
    pub const fn after(self, bits: u32) -> Key {
        Key {
            high: self.high << bits | self.low >> (64 - bits),
            low: self.low << bits,
        }
    }
}

/// The line of the record of the service at a port of TCP or UDP; 0: none.
#[inline(always)]
pub fn at_port<T: Lines>(table: &T, protocol: u8, port: u16) -> u32 {
    let (at, shift) = port_place(protocol, port);
    (word(table, at) >> shift) as u32
}

/// The word and shift of a port's 32 bits.
#[inline(always)]
pub const fn port_place(protocol: u8, port: u16) -> (u32, u32) {
    let place = if protocol == wire::UDP { 65_536 } else { 0 } + port as u32;
    (PORTS * LINE_WORDS + place / 2, place % 2 * 32)
}

/// The line of a service's record; 0: none.
#[inline(always)]
pub fn record_of<T: Lines>(table: &T, service: u16) -> u32 {
    word(table, DIRECTORY * LINE_WORDS + service as u32) as u32
}

/// The row of a record.
#[inline(always)]
pub fn row<T: Lines>(record: T::Line) -> ServiceRow {
    ServiceRow::from_word(T::load(record, record::ROW) as u32)
}

/// Bits of an address that choose a bit of a word.
pub const CHOOSE: u32 = 6;

/// The bits of a word of the filter that stand for an address: one by the first [`CHOOSE`] bits behind those of the root,
/// and unless `mark_bits` is 0 one by the last of so many. `behind`: with the first bit behind the root uppermost.
#[inline(always)]
pub const fn mark(behind: u64, mark_bits: u32) -> u64 {
    let first = 1 << (behind >> (64 - CHOOSE));
    if mark_bits == 0 {
        return first;
    }
    first | 1 << (behind >> (64 - mark_bits) & 63)
}

/// What the filter says about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sieved {
    /// The word where the answer begins; 0: no prefix holds the address.
    Settled(u32),
    /// Only the root tells.
    Beyond(Beyond),
}

/// An address that got through the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// Its word of the root.
    pub root: u32,
    /// What the root leaves of it.
    pub rest: Key,
    /// The answer where nothing else holds it.
    pub base: u32,
}

/// Asks the filter of a service about `key`. Most of a flood goes no further, so this is what the programs have in line.
#[inline(always)]
pub fn sieve<T: Lines>(table: &T, record: T::Line, family: Family, key: Key) -> Sieved {
    let words = record::FAMILIES + family as u32 * record::FAMILY_WORDS;
    let place = T::load(record, words + record::WHERE);
    if place == 0 {
        return Sieved::Settled(0);
    }
    let plan = Plan::from_word(T::load(record, words + record::PLAN));
    let mut rest = key;
    if plan.common_bits != 0 {
        let common = T::load(record, words + record::COMMON);
        if (key.high ^ common) >> (64 - plan.common_bits) != 0 {
            return Sieved::Settled(plan.outside);
        }
        rest = key.after(plan.common_bits);
    }
    let slot = rest.first(plan.root_bits);
    let mark = mark(rest.high << plan.root_bits, plan.mark_bits);
    if word(table, (place >> 32) as u32 * LINE_WORDS + slot) & mark != mark {
        return Sieved::Settled(plan.base);
    }
    Sieved::Beyond(Beyond {
        root: place as u32 * LINE_WORDS + slot,
        rest: rest.after(plan.root_bits),
        base: plan.base,
    })
}

/// The word where the answer begins to an address that got through; 0: no prefix holds it.
#[inline(always)]
pub fn behind<T: Lines>(table: &T, family: Family, beyond: Beyond) -> u32 {
    let slot = word(table, beyond.root);
    let found = match family {
        Family::V4 => find_part(table, slot, (beyond.rest.high >> (64 - PART_BITS)) as u32),
        Family::V6 => {
            let mut found = slot;
            for rest in [beyond.rest.high, beyond.rest.low] {
                found = find_range(table, found, rest);
            }
            found as u32
        }
    };
    if found == 0 { beyond.base } else { found }
}

/// IPv4: the answer behind a root's value, given what is left of the address.
#[inline(always)]
fn find_part<T: Lines>(table: &T, slot: u64, rest: u32) -> u32 {
    let mut part = slot;
    if kind(slot) == value::LIST {
        let (mut at, mut count) = (slot as u32, (slot >> value::COUNT) as u32);
        for _ in 0..HALVINGS {
            if count <= 1 {
                break;
            }
            let half = count / 2;
            at += half & not_below(rest.into(), word(table, at + half) >> value::START);
            count -= half;
        }
        part = word(table, at);
    }
    if kind(part) != value::PART {
        return part as u32;
    }
    let (start, length) = ((part >> value::START) as u32, (part >> value::LENGTH) as u32 & 31);
    if rest < start || length != 0 && (rest ^ start) >> (PART_BITS - length) != 0 {
        return 0;
    }
    part as u32
}

/// IPv6: the value behind a value, given the next 64 bits of the address.
#[inline(always)]
fn find_range<T: Lines>(table: &T, slot: u64, rest: u64) -> u64 {
    if kind(slot) != value::LIST {
        return slot;
    }
    let (mut at, mut count) = (slot as u32, (slot >> value::COUNT) as u32);
    for _ in 0..HALVINGS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        at += (half * 2) & not_below(rest, word(table, at + half * 2));
        count -= half;
    }
    let Some(line) = table.line(at / LINE_WORDS) else {
        return 0;
    };
    let (start, found) = (T::load(line, at), T::load(line, at + 1));
    if kind(found) == value::LIST {
        // Everything in it begins with these 64 bits.
        return if rest == start { found } else { 0 };
    }
    let length = (found >> value::LENGTH) as u32 & 127;
    if rest < start || length != 0 && (rest ^ start) >> (64 - length) != 0 {
        return 0;
    }
    found & value::PLACE
}

#[inline(always)]
const fn kind(value: u64) -> u64 {
    value >> value::KIND & 3
}

/// All ones where `a` is not below `b`, else zero. Not by comparing: which half of a list it is, no processor foresees,
/// and the verifier would walk both.
#[inline(always)]
const fn not_below(a: u64, b: u64) -> u32 {
    // The borrow of a - b.
    let borrow = ((!a & b) | ((!a | b) & a.wrapping_sub(b))) >> 63;
    (borrow as u32).wrapping_sub(1)
}

/// Deny until, allow until, and flags of an answer.
#[inline(always)]
pub fn answer<T: Lines>(table: &T, at: u32) -> Option<(u64, u64, u32)> {
    let line = table.line(at / LINE_WORDS)?;
    Some((
        T::load(line, at + answer::DENY_UNTIL),
        T::load(line, at + answer::ALLOW_UNTIL),
        T::load(line, at + answer::FLAGS) as u32,
    ))
}

/// A word by its number; 0 beyond the table.
#[inline(always)]
fn word<T: Lines>(table: &T, at: u32) -> u64 {
    match table.line(at / LINE_WORDS) {
        Some(line) => T::load(line, at),
        None => 0,
    }
}
