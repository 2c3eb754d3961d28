//! Programs of a few instructions on a device, and frames that a program sends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{
    BPF_F_TEST_XDP_LIVE_FRAMES, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type, bpf_cmd,
    bpf_prog_type,
};
use pgfw_tests::lab::Host;

use super::INTERFACE;
use crate::kernel::{attr, bpf, owned, raw};
use crate::source::code;

/// How a program runs on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Native,
    Generic,
}

pub(crate) const DROP: i32 = 1;
pub(crate) const PASS: i32 = 2;

/// Always the same action.
pub(crate) fn always(action: i32) -> Vec<u64> {
    vec![code(0xb7, 0, 0, 0, action), code(0x95, 0, 0, 0, 0)]
}

/// Passes what is no IPv4 and what comes from this address; drops the rest.
pub(crate) fn only(source: std::net::Ipv4Addr) -> Vec<u64> {
    let address = u32::from_ne_bytes(source.octets()) as i32;
    let ipv4 = i32::from(0x0800_u16.to_be());
    vec![
        code(0xb7, 0, 0, 0, PASS),
        code(0x61, 2, 1, 0, 0), // r2 = data
        code(0x61, 3, 1, 4, 0), // r3 = data_end
        code(0xbf, 4, 2, 0, 0),
        code(0x07, 4, 0, 0, 34),
        code(0x2d, 4, 3, 6, 0), // too short
        code(0x69, 5, 2, 12, 0),
        code(0x55, 5, 0, 4, ipv4),
        code(0x61, 5, 2, 26, 0),
        code(0xb4, 4, 0, 0, address),
        code(0x1d, 5, 4, 1, 0),
        code(0xb7, 0, 0, 0, DROP),
        code(0x95, 0, 0, 0, 0),
    ]
}

/// Stands on the way in of a host's interface until this is dropped.
pub(crate) fn attach(host: &Host, program: BorrowedFd<'_>, mode: Mode) -> OwnedFd {
    let flags = match mode {
        Mode::Native => XDP_FLAGS_DRV_MODE,
        Mode::Generic => XDP_FLAGS_SKB_MODE,
    };
    link(host, program, bpf_attach_type::BPF_XDP, flags)
}

/// The same on the way out.
pub(crate) fn attach_egress(host: &Host, program: BorrowedFd<'_>) -> OwnedFd {
    link(host, program, bpf_attach_type::BPF_TCX_EGRESS, 0)
}

fn link(host: &Host, program: BorrowedFd<'_>, place: bpf_attach_type, flags: u32) -> OwnedFd {
    let mut attr = attr();
    attr.link_create.__bindgen_anon_1.prog_fd = raw(program);
    attr.link_create.__bindgen_anon_2.target_ifindex = host.ifindex(INTERFACE);
    attr.link_create.attach_type = place as u32;
    attr.link_create.flags = flags;
    let made = host.within(|| bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr));
    owned(made.expect("a program can be attached"))
}

/// A classifier that leaves every packet to whatever follows (TCX_NEXT).
pub(crate) fn empty_classifier() -> OwnedFd {
    let instructions = always(-1);
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = u32::try_from(instructions.len()).expect("a short program");
    program.license = c"GPL".as_ptr() as u64;
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).expect("an empty classifier"))
}

/// Runs a program over so many copies of a frame as if they had come in on a device of the calling thread's namespace;
/// what it returns is done to them. Nanoseconds for each, in whole ones, without what the kernel does before the first
/// and after the last (it waits for others there, milliseconds).
pub(crate) fn live(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8], count: u32) -> u32 {
    let length = u32::try_from(frame.len()).expect("a short frame");
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: [u32; 6] = [0, length, 0, ifindex, 0, 0];
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let test = unsafe { &mut attr.test };
    test.prog_fd = raw(program.as_fd());
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = length;
    test.ctx_in = context.as_ptr() as u64;
    test.ctx_size_in = size_of_val(&context) as u32;
    test.repeat = count;
    test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).expect("frames can be sent");
    // SAFETY: as above.
    unsafe { attr.test.duration }
}
