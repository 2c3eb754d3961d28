//! The answer of one prefix at one moment.

use crate::record::Coverage;

/// A moment or an end in `jiffies64`, the kernel's tick counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Jiffies(pub u64);

/// What a service says to a source.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Refused, established connections included.
    Denied = 0,
    Allowed = 1,
    /// Allowed because everyone is: a stray segment must also belong to something, or scans would find the port.
    AllowedToWorld = 2,
    /// Nothing said, or no longer.
    Closed = 3,
}

impl Admission {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Admission> {
        match number {
            0 => Some(Admission::Denied),
            1 => Some(Admission::Allowed),
            2 => Some(Admission::AllowedToWorld),
            3 => Some(Admission::Closed),
            _ => None,
        }
    }
}

/// An end that never comes.
pub const FOREVER: u64 = u64::MAX;

/// An answer that was never given.
pub const ABSENT: u64 = 0;

impl Coverage {
    /// The answer at `now`: the deny while it lasts, after that the allow while it lasts, after that nothing.
    #[inline(always)]
    pub fn at(&self, now: Jiffies) -> Admission {
        at(self.deny_until, self.allow_until, self.flags, now)
    }
}

/// [`Coverage::at`], of the fields that it takes.
#[inline(always)]
pub fn at(deny_until: u64, allow_until: u64, flags: u32, now: Jiffies) -> Admission {
    if now.0 < deny_until {
        Admission::Denied
    } else if now.0 >= allow_until {
        Admission::Closed
    } else if flags & Coverage::WORLD != 0 {
        Admission::AllowedToWorld
    } else {
        Admission::Allowed
    }
}
