//! What is remembered of a first fragment that passed, so that the rest of its datagram may follow.

use crate::address::Ends;
use crate::coverage::Jiffies;

/// First fragments that may be remembered at once in each of the two tables.
pub const MAX_FRAGMENTS: u32 = 4_096;

/// Later fragments that may follow one first fragment. A datagram of 64 KiB over a path that carries 576 bytes, which
/// every IPv4 host takes (RFC 791, 3.1), has 119 of them; IPv6 asks for 1280 (RFC 8200, 5) and so has fewer.
pub const MAX_LATER_FRAGMENTS: u32 = 128;

/// A datagram whose first fragment passed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    pub ends: Ends,
    pub id: u32,
    pub ifindex: u32,
    pub protocol: u8,
    pub pad: [u8; 7],
}

/// What may still follow it. Only a pass is ever remembered.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Jiffies.
    pub until: u64,
    /// Later fragments that may still come.
    pub left: u32,
    pub pad: u32,
}

impl Remembered {
    /// After a first fragment, whose datagram may take until then.
    #[inline(always)]
    pub const fn new(until: Jiffies) -> Remembered {
        Remembered {
            until: until.0,
            left: MAX_LATER_FRAGMENTS,
            pad: 0,
        }
    }

    /// What is left after one more later fragment at `now`; `None` when it is one too many or too late.
    #[inline(always)]
    pub const fn spend(self, now: Jiffies) -> Option<Remembered> {
        if now.0 >= self.until || self.left == 0 {
            return None;
        }
        Some(Remembered {
            left: self.left - 1,
            ..self
        })
    }
}

const _: () = {
    assert!(size_of::<FragmentKey>() == 48 && core::mem::offset_of!(FragmentKey, protocol) == 40);
    assert!(size_of::<Remembered>() == 16 && core::mem::offset_of!(Remembered, left) == 8);
};
