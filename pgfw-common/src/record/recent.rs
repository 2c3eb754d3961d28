//! Whether it is worth looking for a note or a remembered fragment: a flood mostly asks for what was never there, and a
//! look-up in a hash map costs more than all the rest of a refusal.
//!
//! One word for each place: jiffies, before which something may be found there. Flows share places, so "may be" is never
//! wrong where "is not" would be.

use crate::address::{Ends, quarters};
use crate::parse::Ip;
use crate::tables::{FORWARDED_SECONDS, Ports, STREAM_SECONDS};

const PORTS: u32 = 65_536;
const DATAGRAMS: u32 = 65_536;

/// Places in all.
pub const RECENT: u32 = PORTS + DATAGRAMS;

/// Where a note is announced: by this host's port, or the identifier of its echoes.
#[inline(always)]
pub const fn place_of_note(ports: Ports) -> u32 {
    ports.local as u32
}

/// Where a datagram's first fragment is announced.
#[inline(always)]
pub const fn place_of_datagram(ends: &Ends, id: u32) -> u32 {
    let [a, b, c, d] = quarters(&ends.remote);
    let mixed = id ^ a ^ b ^ c ^ d;
    PORTS + (mixed ^ mixed >> 16) % DATAGRAMS
}

/// How long a note over this protocol can be answered at most, in seconds.
#[inline(always)]
pub const fn longest_note(ip: &Ip) -> u64 {
    if ip.protocol == crate::wire::TCP {
        FORWARDED_SECONDS
    } else {
        STREAM_SECONDS
    }
}
