//! The one exit: a verdict is counted and becomes an action here.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::programs::XdpContext;
use pgfw_common::anew::anew;
use pgfw_common::coverage::Admission;
use pgfw_common::decide::{Arrival, remember};
use pgfw_common::reason::{Action, REASONS, Reason, action_of};
use pgfw_common::record::{INTERFACE_TABLE, Scratch};
use pgfw_common::tables::Tables;

use crate::access::Buffers;
use crate::{events, maps, tables};

#[inline(always)]
pub(crate) fn finish<B: Buffers, T: Tables>(
    ctx: &XdpContext,
    tables: &T,
    arrival: Arrival,
    reason: Reason,
    scratch: &mut Scratch,
) -> u32 {
    let ifindex = arrival.ifindex;
    scratch.reason = reason.number();
    // Read back, or the verifier would walk what follows once for each reason.
    let scratch = &*anew(scratch);
    let (reason, counter) = (scratch.reason, scratch.segment.counter());
    let action = action_of(reason);
    let world = scratch.segment.said() == Some(Admission::AllowedToWorld);
    remember(tables, arrival, &scratch.ip, reason, world);
    count_number(ifindex, reason);
    if counter != 0
        && let Some(counters) = maps::SERVICE_COUNTS.get_ptr_mut(u32::from(counter))
    {
        // SAFETY: this CPU's own element, and one packet at a time on a CPU.
        unsafe {
            match action {
                Action::Pass => (*counters).passed = (*counters).passed.wrapping_add(1),
                Action::Drop => (*counters).dropped = (*counters).dropped.wrapping_add(1),
            }
        }
    }
    match action {
        Action::Pass => XDP_PASS,
        Action::Drop => {
            diagnose(ctx, ifindex, reason);
            events::offer::<B>(ctx.ctx, arrival, reason);
            if tables::audit() { XDP_PASS } else { XDP_DROP }
        }
    }
}

/// One more packet of `reason` on `ifindex`.
#[inline(always)]
pub(crate) fn count(ifindex: u32, reason: Reason) {
    count_number(ifindex, reason.number());
}

#[inline(always)]
fn count_number(ifindex: u32, reason: u8) {
    let number = match maps::INTERFACES.get(ifindex % INTERFACE_TABLE) {
        Some(row) if row.ifindex == ifindex => row.number,
        Some(_) | None => 0,
    };
    if let Some(counters) = maps::COUNTERS.get_ptr_mut(number) {
        let index = usize::from(reason) % REASONS;
        // SAFETY: this CPU's own element, one packet at a time on a CPU, and the index is below its length.
        unsafe {
            let counter = counters.cast::<u64>().add(index);
            *counter = (*counter).wrapping_add(1);
        }
    }
}

#[cfg(feature = "log")]
#[inline(always)]
fn diagnose(ctx: &XdpContext, ifindex: u32, reason: u8) {
    aya_log_ebpf::debug!(ctx, "drop: interface {} reason {}", ifindex, reason);
}

#[cfg(not(feature = "log"))]
#[inline(always)]
fn diagnose(_ctx: &XdpContext, _ifindex: u32, _reason: u8) {}
