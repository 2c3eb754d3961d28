//! Tells user space of single drops, as long as the bucket has tokens and the ring has room.

use aya_ebpf::bindings::xdp_md;
use pgfw_common::decide::Arrival;
use pgfw_common::record::Event;

use crate::access::{Buffers, copy_head, now};
use crate::{maps, tables};

#[inline(always)]
pub(crate) fn offer<B: Buffers>(ctx: *mut xdp_md, arrival: Arrival, reason: u8) {
    let Some(budget) = maps::EVENT_BUDGET.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own element, and one packet at a time on a CPU.
    if unsafe { &mut *budget }.take(arrival.now, tables::hz()) {
        tell::<B>(ctx, arrival.ifindex, reason);
    }
}

/// A function of its own: its stack is not added to that of the decision.
#[inline(never)]
fn tell<B: Buffers>(ctx: *mut xdp_md, ifindex: u32, reason: u8) {
    let Some(mut slot) = maps::EVENTS.reserve::<Event>(0) else {
        if let Some(budget) = maps::EVENT_BUDGET.get_ptr_mut(0) {
            // SAFETY: as in `offer`.
            unsafe { (*budget).full = (*budget).full.wrapping_add(1) };
        }
        return;
    };
    let event = slot.as_mut_ptr();
    // SAFETY: the ring gave out memory for a whole event. Every field is written; of `head`, `captured` bytes.
    unsafe {
        (*event).jiffies = now().0;
        (*event).ifindex = ifindex;
        (*event).reason = reason;
        (*event).audit = tables::audit() as u8;
        (*event).pad = 0;
        let (length, captured) = copy_head::<B>(ctx, &raw mut (*event).head);
        (*event).length = length;
        (*event).captured = captured;
    }
    slot.submit(0);
}
