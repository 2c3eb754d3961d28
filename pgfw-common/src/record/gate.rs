//! How many connections may begin at the gate, which is open to the world: a bucket of tokens on each CPU.

use crate::coverage::Jiffies;

/// First SYNs to the gate's port a second on each CPU, in the long run and at once.
pub const GATE_SYNS_PER_SECOND: u64 = 100;

/// What one CPU may still let through.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateBudget {
    /// When it was last filled up; jiffies.
    pub filled: u64,
    /// In parts: a SYN costs as many as there are ticks in a second, so that nothing is divided.
    pub tokens: u64,
}

impl GateBudget {
    /// The budget after one more SYN at `now`; `None` when it is spent.
    #[inline(always)]
    pub fn spend(self, now: Jiffies, hz: u32) -> Option<GateBudget> {
        let price = hz as u64;
        let elapsed = now.0.saturating_sub(self.filled).min(price);
        // A new map's zero is long ago: full.
        let full = price * GATE_SYNS_PER_SECOND;
        let tokens = (self.tokens + elapsed * GATE_SYNS_PER_SECOND).min(full);
        if tokens < price {
            // `filled` stays, so that what has elapsed counts at the next look.
            return None;
        }
        Some(GateBudget {
            filled: now.0,
            tokens: tokens - price,
        })
    }
}

const _: () = assert!(size_of::<GateBudget>() == 16);
