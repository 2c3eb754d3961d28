//! What the kernel's programs and user space share, byte for byte. Any change of a layout or a meaning raises [`ABI`].

mod event;
mod fragment;
mod gate;
mod recent;

pub use event::{EVENT_HEAD, EVENT_RING, EVENTS_PER_SECOND, Event, EventBudget};
pub use fragment::{FragmentKey, MAX_FRAGMENTS, MAX_LATER_FRAGMENTS, Remembered};
pub use gate::{GATE_SYNS_PER_SECOND, GateBudget};
pub use recent::{RECENT, longest_note, place_of_datagram, place_of_note};

use crate::address::Ends;
use crate::coverage::Jiffies;
use crate::parse::{Ip, Segment};
use crate::reason::REASONS;

/// Part of the pin path (`v7/`): programs and tables of different ABIs never meet.
pub const ABI: u32 = 7;

/// Policies that can be loaded at once: one confirmed, one pending.
pub const SLOTS: u32 = 2;

/// Interfaces with counters of their own; number 0 collects those without.
pub const MAX_INTERFACES: u32 = 64;

/// Size of the table that finds an interface's number; indexed by its ifindex modulo this.
pub const INTERFACE_TABLE: u32 = 1024;

/// (protocol, port) pairs with counters of their own; number 0 collects those without.
pub const MAX_SERVICE_COUNTERS: u32 = 1024;

/// Answers that may be expected at once.
pub const MAX_NOTES: u32 = 65_536;

/// EtherTypes that a policy can list.
pub const MAX_ETHER_TYPES: usize = 16;

/// Which policy judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chosen {
    /// None: everything passes.
    Pass,
    /// The program in this slot, 0 or 1.
    Slot(u32),
}

/// The control record: which policy is confirmed, which one is pending, and until when.
///
/// One word, so that one store changes it: a reader sees the old or the new record, never a mixture. From the lowest
/// bit: confirmed (2 bits), pending (2 bits), deadline in jiffies (60 bits). A new map's zero means "pass, nothing
/// pending".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    pub confirmed: Chosen,
    pub pending: Option<Pending>,
}

/// A policy on probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub choice: Chosen,
    /// From then on the confirmed one judges again; 60 bits.
    pub deadline: Jiffies,
}

const CHOICE_NONE: u64 = 0;
const CHOICE_FIRST_SLOT: u64 = 1;
const CHOICE_PASS: u64 = 3;
const CHOICE_MASK: u64 = 3;

impl Control {
    /// The word that stands in the map.
    pub const fn word(&self) -> u64 {
        // For `confirmed`, "none" and "pass" mean the same.
        let confirmed = match self.confirmed {
            Chosen::Pass => CHOICE_NONE,
            Chosen::Slot(slot) => slot as u64 % SLOTS as u64 + CHOICE_FIRST_SLOT,
        };
        match &self.pending {
            None => confirmed,
            Some(pending) => {
                let choice = match pending.choice {
                    Chosen::Pass => CHOICE_PASS,
                    Chosen::Slot(slot) => slot as u64 % SLOTS as u64 + CHOICE_FIRST_SLOT,
                };
                confirmed | choice << 2 | pending.deadline.0 << 4
            }
        }
    }

    #[inline(always)]
    pub const fn from_word(word: u64) -> Control {
        let pending = word >> 2 & CHOICE_MASK;
        Control {
            confirmed: chosen(word & CHOICE_MASK),
            pending: if pending == CHOICE_NONE {
                None
            } else {
                Some(Pending {
                    choice: chosen(pending),
                    deadline: Jiffies(word >> 4),
                })
            },
        }
    }

    /// The policy in force at `now` by a record that stands in the map. Nobody needs to be alive for a deadline to pass.
    #[inline(always)]
    pub const fn in_force(word: u64, now: Jiffies) -> InForce {
        let pending = word >> 2 & CHOICE_MASK;
        let choice = if pending != CHOICE_NONE && now.0 < word >> 4 {
            pending
        } else {
            word & CHOICE_MASK
        };
        match choice {
            1 => InForce::FirstSlot,
            2 => InForce::SecondSlot,
            _ => InForce::Pass,
        }
    }
}

/// [`Chosen`] as the programs read it. It carries nothing beside itself: what an enum does not use of its place is never
/// written, and verifiers before Linux 6.3 refuse a program that copies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InForce {
    Pass,
    FirstSlot,
    SecondSlot,
}

#[inline(always)]
const fn chosen(bits: u64) -> Chosen {
    match bits {
        1 => Chosen::Slot(0),
        2 => Chosen::Slot(1),
        _ => Chosen::Pass,
    }
}

/// What the probe returns: the reason's number, and the service in the upper half (0: none).
pub const fn probe_word(reason: u8, service: u16) -> u32 {
    reason as u32 | (service as u32) << 16
}

/// Switches of one policy; read-only data of its programs.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Ticks per second (`CONFIG_HZ`).
    pub hz: u32,
    /// 1: decide and count, but drop nothing.
    pub audit: u8,
    /// One of the `ECHO_` constants.
    pub echo: u8,
    /// 1: DHCP servers may answer this host's client.
    pub dhcp_client: u8,
    /// 1: flows of sockets that are not this host's are noted too.
    pub track: u8,
    /// 1: spanning tree passes.
    pub stp: u8,
    pub pad: u8,
    /// TCP port, host order, at which a bucket stands before every first SYN; 0: nowhere.
    pub gate_port: u16,
    /// Host order, zero-terminated unless full.
    pub ether_types: [u16; MAX_ETHER_TYPES],
}

pub const ECHO_DROP: u8 = 0;
pub const ECHO_LIMIT: u8 = 1;
pub const ECHO_ACCEPT: u8 = 2;

impl Settings {
    /// What the object holds before the loader writes a policy's own.
    pub const fn new() -> Settings {
        Settings {
            hz: 250,
            audit: 0,
            echo: ECHO_DROP,
            dhcp_client: 0,
            track: 0,
            stp: 0,
            pad: 0,
            gate_port: 0,
            ether_types: [0; MAX_ETHER_TYPES],
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new()
    }
}

/// Key of the service table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Host order; 0 for protocols without ports.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
}

/// Value of the service table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRow {
    /// The service's number in this policy; from 1.
    pub service: u16,
    /// Its number among the service counters, which outlive policies.
    pub counter: u16,
}

impl ServiceRow {
    /// From the lowest bit: the service's number (16 bits), its counter (16).
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.service as u32 | (self.counter as u32) << 16
    }

    #[inline(always)]
    pub const fn from_word(word: u32) -> ServiceRow {
        ServiceRow {
            service: word as u16,
            counter: (word >> 16) as u16,
        }
    }
}

/// The effective answer of one (service, prefix).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// Denied before this; jiffies, [`crate::coverage::ABSENT`] or [`crate::coverage::FOREVER`].
    pub deny_until: u64,
    /// Allowed before this, where not denied.
    pub allow_until: u64,
    /// The same ends as they were asked for, in nanoseconds of the boot clock: after a suspend, which stops the ticks,
    /// user space can set the jiffies anew from these.
    pub deny_boot: u64,
    pub allow_boot: u64,
    /// [`Coverage::WORLD`].
    pub flags: u32,
    /// Bits of the address that this prefix fixes (without the service's): a lookup that finds it can tell what it found.
    pub prefix_length: u32,
}

impl Coverage {
    /// The allow comes from `0.0.0.0/0` or `::/0`.
    pub const WORLD: u32 = 1;
}

/// A row of the table that finds an interface's number.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interface {
    /// 0: nothing is here.
    pub ifindex: u32,
    /// Below [`MAX_INTERFACES`].
    pub number: u32,
}

/// One interface's counters on one CPU.
pub type InterfaceCounters = [u64; REASONS];

/// One service's counters on one CPU. The key is written before the first policy uses the number and stays.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceCounters {
    pub passed: u64,
    pub dropped: u64,
    pub key: ServiceKey,
    /// 1: `key` is set.
    pub used: u32,
}

/// A flow that this host started over a protocol whose state no socket shows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteKey {
    pub ends: Ends,
    /// Host order. For an echo: zero, and the identifier below.
    pub remote_port: u16,
    pub local_port: u16,
    pub protocol: u8,
    pub pad: [u8; 3],
}

/// What is known about it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// When this host last spoke; jiffies.
    pub spoke: u64,
    /// How many answers have passed.
    pub answers: u32,
    pub pad: u32,
}

/// How many echo requests passed in the current second, where `echo = "limit"`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EchoBudget {
    /// Seconds of ticks, so a number of its own for each second.
    pub second: u64,
    pub spent: u64,
}

/// Echo requests a second under `echo = "limit"`.
pub const ECHO_PER_SECOND: u64 = 10;

impl EchoBudget {
    /// The budget after one more request at `now`; `None` when it is spent.
    #[inline(always)]
    pub fn spend(self, now: Jiffies, hz: u32) -> Option<EchoBudget> {
        // BPF has no instruction that traps on a division by zero: it yields zero, and so does this.
        let second = now.0.checked_div(hz as u64).unwrap_or(0);
        let spent = if second == self.second { self.spent } else { 0 };
        if spent >= ECHO_PER_SECOND {
            return None;
        }
        Some(EchoBudget {
            second,
            spent: spent + 1,
        })
    }
}

/// Where the kernel's programs keep what they have read: outside their stack, of which there are 512 bytes, and out of
/// the verifier's sight, which would follow every combination of values. One for each kind of program on each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    pub ip: Ip,
    /// What an ICMP error quotes.
    pub quote: Ip,
    pub segment: Segment,
    /// The number of the reason that the decision ended with.
    pub reason: u8,
    pub pad: [u8; 3],
}

impl Scratch {
    pub const EMPTY: Scratch = Scratch {
        ip: Ip::EMPTY,
        quote: Ip::EMPTY,
        segment: Segment::EMPTY,
        reason: 0,
        pad: [0; 3],
    };
}

const _: () = {
    assert!(size_of::<Settings>() == 44 && align_of::<Settings>() == 4);
    assert!(core::mem::offset_of!(Settings, ether_types) == 12);
    assert!(size_of::<ServiceKey>() == 4 && core::mem::offset_of!(ServiceKey, protocol) == 2);
    assert!(size_of::<ServiceRow>() == 4);
    assert!(size_of::<Coverage>() == 40 && core::mem::offset_of!(Coverage, flags) == 32);
    assert!(size_of::<Interface>() == 8);
    assert!(size_of::<InterfaceCounters>() == 1024);
    assert!(size_of::<ServiceCounters>() == 24 && core::mem::offset_of!(ServiceCounters, key) == 16);
    assert!(size_of::<NoteKey>() == 40 && core::mem::offset_of!(NoteKey, protocol) == 36);
    assert!(size_of::<Note>() == 16 && core::mem::offset_of!(Note, answers) == 8);
    assert!(size_of::<Scratch>() == 128);
};
