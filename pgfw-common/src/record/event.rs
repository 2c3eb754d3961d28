//! What the kernel's programs tell about single packets: a sample of what they drop, bounded by a bucket of tokens.

use crate::coverage::Jiffies;

/// Bytes of the ring that events wait in. A power of two and a multiple of every page size.
pub const EVENT_RING: u32 = 512 * 1024;

/// How much of a frame an event holds: every header of ordinary packets, two tags and six short extensions included.
pub const EVENT_HEAD: usize = 128;

/// Events a second on each CPU, in the long run and at once: an attack costs no more than this.
pub const EVENTS_PER_SECOND: u64 = 1_000;

/// One packet that was dropped, or would have been (`mode = "audit"`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub jiffies: u64,
    pub ifindex: u32,
    /// Of the frame, all buffers of a multi-buffer packet included.
    pub length: u32,
    /// How many bytes of `head` are the frame's; what stands behind them means nothing.
    pub captured: u16,
    pub reason: u8,
    /// 1: it passed all the same.
    pub audit: u8,
    pub pad: u32,
    pub head: [u8; EVENT_HEAD],
}

/// What one CPU may still tell, and what it could not.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventBudget {
    /// When it was last filled up; jiffies.
    pub filled: u64,
    /// In parts: an event costs as many as there are ticks in a second, so that nothing is divided.
    pub tokens: u64,
    /// Events not told because the bucket was empty.
    pub limited: u64,
    /// Events not told because the ring was full.
    pub full: u64,
}

impl EventBudget {
    /// Takes out one event at `now`, if there is one; otherwise counts it.
    #[inline(always)]
    pub fn take(&mut self, now: Jiffies, hz: u32) -> bool {
        let price = hz as u64;
        // The way of a flood: nothing has been added since the bucket was found empty.
        if now.0 == self.filled && self.tokens < price {
            self.limited = self.limited.wrapping_add(1);
            return false;
        }
        let elapsed = now.0.saturating_sub(self.filled).min(price);
        // A new map's zero is long ago: full.
        let tokens = (self.tokens + elapsed * EVENTS_PER_SECOND).min(price * EVENTS_PER_SECOND);
        self.filled = now.0;
        if tokens < price {
            self.tokens = tokens;
            self.limited = self.limited.wrapping_add(1);
            return false;
        }
        self.tokens = tokens - price;
        true
    }
}

const _: () = {
    assert!(size_of::<Event>() == 152 && align_of::<Event>() == 8);
    assert!(core::mem::offset_of!(Event, captured) == 16 && core::mem::offset_of!(Event, head) == 24);
    assert!(size_of::<EventBudget>() == 32 && core::mem::offset_of!(EventBudget, full) == 24);
    assert!(EVENT_RING.is_power_of_two() && EVENT_RING.is_multiple_of(64 * 1024));
};
