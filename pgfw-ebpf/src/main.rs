//! Binds pgfw-common's decision to the kernel: the programs on the wire, and nothing else.
//!
//! `pgfw_entry` and `pgfw_egress` are attached and never change within an ABI; they read the control record and jump to
//! the policy in force. `pgfw_policy` and `pgfw_note` are one policy; `pgfw_probe` is asked about packets that are not
//! there; `pgfw_clock` tells the time that all of them use.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Loads of several bytes at any alignment, which Rust has no other way to ask for.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod access;
mod events;
mod finish;
mod maps;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use pgfw_common::anew::anew;
use pgfw_common::decide::{Arrival, decide};
use pgfw_common::outgoing::{Origin, outgoing};
use pgfw_common::reason::Reason;
use pgfw_common::record::{Control, InForce, probe_word};

use crate::access::{Buffers, Frame, NoSockets, One, Several, XdpSockets, XdpWhole, is_local, now};
use crate::tables::Kernel;

/// TCX_NEXT, and TC_ACT_UNSPEC under clsact: whatever follows decides.
const TC_NEXT: i32 = -1;

/// What is attached to every interface.
#[xdp(frags)]
fn pgfw_entry(ctx: XdpContext) -> u32 {
    enter(&ctx)
}

/// The same for kernels without multi-buffer programs. A program array holds programs of one kind only, so a kernel gets
/// one of the two sets; `pgfw/src/datapath/kernel.rs` says which.
#[xdp]
fn pgfw_one_entry(ctx: XdpContext) -> u32 {
    enter(&ctx)
}

#[inline(always)]
fn enter(ctx: &XdpContext) -> u32 {
    match Control::in_force(maps::control(), now()) {
        InForce::Pass => {
            finish::count(access::ifindex(ctx), Reason::Unenforced);
            XDP_PASS
        }
        slot @ (InForce::FirstSlot | InForce::SecondSlot) => {
            if slot == InForce::FirstSlot {
                // SAFETY: the array holds XDP programs of this ABI only; nothing here needs dropping.
                unsafe { maps::SLOTS.tail_call(ctx, 0) };
                apart::<0>();
            } else {
                // SAFETY: as above.
                unsafe { maps::SLOTS.tail_call(ctx, 1) };
                apart::<1>();
            }
            // Still here: the slot is empty. Nobody said that this packet may pass.
            finish::count(access::ifindex(ctx), Reason::EmptySlot);
            XDP_DROP
        }
    }
}

/// One policy: judges, counts, acts.
#[xdp(frags)]
fn pgfw_policy(ctx: XdpContext) -> u32 {
    judge::<Several>(&ctx)
}

#[xdp]
fn pgfw_one_policy(ctx: XdpContext) -> u32 {
    judge::<One>(&ctx)
}

#[inline(always)]
fn judge<B: Buffers>(ctx: &XdpContext) -> u32 {
    let arrival = arrival(ctx);
    let tables = Kernel::<XdpSockets, true>::new(XdpSockets::new(ctx));
    let Some(scratch) = maps::scratch(maps::POLICY) else {
        return XDP_ABORTED;
    };
    let reason = decide(&Frame::<XdpWhole<B>>::xdp(ctx), &tables, arrival, scratch);
    finish::finish::<B, _>(ctx, &tables, arrival, reason, scratch)
}

/// The same decision over the same tables: counts nothing, changes nothing, returns the reason and the service.
#[xdp(frags)]
fn pgfw_probe(ctx: XdpContext) -> u32 {
    ask::<Several>(&ctx)
}

#[xdp]
fn pgfw_one_probe(ctx: XdpContext) -> u32 {
    ask::<One>(&ctx)
}

#[inline(always)]
fn ask<B: Buffers>(ctx: &XdpContext) -> u32 {
    let tables = Kernel::<XdpSockets, false>::new(XdpSockets::new(ctx));
    let Some(scratch) = maps::scratch(maps::PROBE) else {
        return 0;
    };
    let reason = decide(&Frame::<XdpWhole<B>>::xdp(ctx), &tables, arrival(ctx), scratch);
    let service = match anew(scratch).segment.found() {
        Some((row, _)) => row.service,
        None => 0,
    };
    probe_word(reason.number(), service)
}

/// Writes `jiffies64` over the first eight bytes of the packet. Never attached, in no slot: one for all kernels.
#[xdp]
fn pgfw_clock(ctx: XdpContext) -> u32 {
    if access::write_jiffies(&ctx) {
        XDP_PASS
    } else {
        XDP_ABORTED
    }
}

/// What is attached to the way out of every interface.
#[classifier]
fn pgfw_egress(ctx: TcContext) -> i32 {
    match Control::in_force(maps::control(), now()) {
        InForce::Pass => {}
        InForce::FirstSlot => {
            // SAFETY: the array holds classifiers of this ABI only; nothing here needs dropping.
            unsafe { maps::EGRESS_SLOTS.tail_call(&ctx, 0) };
            apart::<0>();
        }
        InForce::SecondSlot => {
            // SAFETY: as above.
            unsafe { maps::EGRESS_SLOTS.tail_call(&ctx, 1) };
            apart::<1>();
        }
    }
    TC_NEXT
}

/// One policy's other half: notes what this host says, so that its answers are let in. Never drops.
#[classifier]
fn pgfw_note(ctx: TcContext) -> i32 {
    let tables = Kernel::<NoSockets, true>::new(NoSockets);
    // A packet without a socket of this namespace is forwarded: not this host's question, unless it was asked to track.
    let origin = if is_local(&ctx) {
        Origin::Local
    } else {
        Origin::Forwarded
    };
    if origin == Origin::Local || tables::track() {
        let now = now();
        if let Some(scratch) = maps::scratch(maps::NOTE)
            && let Some(packet) = outgoing(&Frame::classifier(&ctx), &tables, origin, now, &mut scratch.ip)
        {
            tables::note(&scratch.ip, &packet, now);
        }
    }
    TC_NEXT
}

/// Keeps two tail calls apart. LLVM would make one of them, with an index that varies; the verifier turns only a constant
/// one into a direct jump, which is ten nanoseconds less.
#[inline(always)]
fn apart<const SLOT: u32>() {
    // One or two jumps to the next instruction, which the verifier takes out.
    #[cfg(target_arch = "bpf")]
    // SAFETY: does nothing.
    unsafe {
        if SLOT == 0 {
            core::arch::asm!("goto +0", options(nomem, nostack, preserves_flags));
        } else {
            core::arch::asm!("goto +0", "goto +0", options(nomem, nostack, preserves_flags));
        }
    }
}

#[inline(always)]
fn arrival(ctx: &XdpContext) -> Arrival {
    Arrival {
        now: now(),
        ifindex: access::ifindex(ctx),
    }
}

// Dual MIT/GPL as the kernel spells it: some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never reached: the verifier refuses a program that could.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
