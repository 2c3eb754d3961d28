//! The only raw pointers: packet bytes, context fields, socket lookups.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2, xdp_md,
};
use aya_ebpf::helpers::{
    bpf_jiffies64, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_xdp_get_buff_len,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use pgfw_common::address::{Family, number_v4, quarters};
use pgfw_common::coverage::Jiffies;
use pgfw_common::packet::{MAX_OFFSET, Packet};
use pgfw_common::parse::Ip;
use pgfw_common::record::EVENT_HEAD;
use pgfw_common::tables::{Cookie, Ports, Socket};
use pgfw_common::wire::{Ipv4, Ipv6, Tcp, Wire};

#[inline(always)]
pub(crate) fn now() -> Jiffies {
    // SAFETY: takes nothing, changes nothing.
    Jiffies(unsafe { bpf_jiffies64() })
}

#[inline(always)]
pub(crate) fn ifindex(ctx: &XdpContext) -> u32 {
    // SAFETY: the kernel hands every XDP program a valid context.
    unsafe { (*ctx.ctx).ingress_ifindex }
}

/// Whether a socket of this host sent the packet; forwarded ones have none.
#[inline(always)]
pub(crate) fn is_local(ctx: &TcContext) -> bool {
    // SAFETY: the kernel hands every classifier a valid context; the pointer is only compared.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    !sk.is_null()
}

/// A packet between `data` and `data_end`, the form that the verifier can follow.
pub(crate) struct Frame<W> {
    data: usize,
    end: usize,
    whole: W,
}

/// The packet's length with all its fragments, which `data_end` does not show.
pub(crate) trait Whole {
    fn length(&self) -> usize;
}

/// In how many buffers an XDP program gets a packet.
pub(crate) trait Buffers {
    fn length(ctx: *mut xdp_md) -> usize;
}

/// All of it lies between `data` and `data_end`.
pub(crate) struct One;

impl Buffers for One {
    #[inline(always)]
    fn length(ctx: *mut xdp_md) -> usize {
        // SAFETY: a valid context.
        unsafe { (*ctx).data_end as usize - (*ctx).data as usize }
    }
}

/// Linux 5.18 and later, for programs that are declared `frags`: the first of them lies there.
pub(crate) struct Several;

impl Buffers for Several {
    #[inline(always)]
    fn length(ctx: *mut xdp_md) -> usize {
        // SAFETY: a valid context; a kernel that loads multi-buffer programs has the helper.
        unsafe { bpf_xdp_get_buff_len(ctx) as usize }
    }
}

pub(crate) struct XdpWhole<'a, B>(&'a XdpContext, PhantomData<B>);

impl<B: Buffers> Whole for XdpWhole<'_, B> {
    #[inline(always)]
    fn length(&self) -> usize {
        B::length(self.0.ctx)
    }
}

pub(crate) struct SkbWhole<'a>(&'a TcContext);

impl Whole for SkbWhole<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }
}

impl<'a, B: Buffers> Frame<XdpWhole<'a, B>> {
    #[inline(always)]
    pub(crate) fn xdp(ctx: &'a XdpContext) -> Self {
        Frame {
            data: ctx.data(),
            end: ctx.data_end(),
            whole: XdpWhole(ctx, PhantomData),
        }
    }
}

impl<'a> Frame<SkbWhole<'a>> {
    #[inline(always)]
    pub(crate) fn classifier(ctx: &'a TcContext) -> Self {
        Frame {
            data: ctx.data(),
            end: ctx.data_end(),
            whole: SkbWhole(ctx),
        }
    }
}

impl<W: Whole> Packet for Frame<W> {
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Option<T> {
        let pointer: *const T = at(self.data, self.end, offset)?;
        // SAFETY: `at` has shown that a whole T lies before `end`; T is made of bytes.
        Some(unsafe { copy(pointer) })
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        length <= self.end - self.data || length <= self.whole.length()
    }
}

/// A pointer to a whole `T` at `offset`. The verifier wants exactly this shape: a bounded offset added to `data`, the
/// sum compared with `data_end`.
#[inline(always)]
fn at<T>(data: usize, end: usize, offset: usize) -> Option<*const T> {
    if offset > MAX_OFFSET {
        return None;
    }
    let start = advance(data, offset);
    if start + size_of::<T>() > end {
        return None;
    }
    Some(start as *const T)
}

/// `data` plus an offset of at most [`MAX_OFFSET`], which is cut to that again: LLVM may have put the offset on the stack
/// before it was compared, and verifiers before Linux 5.12 forget there what a comparison told of the register.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn advance(data: usize, mut offset: usize) -> usize {
    // SAFETY: arithmetic on registers.
    unsafe {
        core::arch::asm!(
            "{offset} &= {most}",
            "{offset} += {data}",
            offset = inout(reg) offset,
            data = in(reg) data,
            most = const MAX_OFFSET,
            options(pure, nomem, nostack),
        );
    }
    offset
}

#[cfg(not(target_arch = "bpf"))]
fn advance(data: usize, offset: usize) -> usize {
    data + offset
}

/// Copies a header out of a packet in words.
///
/// To Rust a header is bytes, and LLVM's BPF back end reads unaligned memory byte by byte, which would triple the
/// program. The instruction itself takes any alignment where the kernel does (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS:
/// x86-64, arm64); packets are at most two bytes off.
///
/// # Safety
/// `pointer` points to a whole `T` within a packet.
#[inline(always)]
unsafe fn copy<T: Wire>(pointer: *const T) -> T {
    const { assert!(size_of::<T>() <= 40, "no header is longer") };
    let mut value = MaybeUninit::<T>::uninit();
    let to = value.as_mut_ptr().cast::<u8>();
    let from = pointer.cast::<u8>();
    // SAFETY: each part stays within the size of `T`; when all are copied the value is whole.
    unsafe {
        copy_part::<T, 0>(from, to);
        copy_part::<T, 8>(from, to);
        copy_part::<T, 16>(from, to);
        copy_part::<T, 24>(from, to);
        copy_part::<T, 32>(from, to);
        value.assume_init()
    }
}

/// The bytes of a `T` from `AT` to `AT + 8`, as far as it has them.
///
/// # Safety
/// Both have room for a `T`.
#[inline(always)]
unsafe fn copy_part<T: Wire, const AT: usize>(from: *const u8, to: *mut u8) {
    // SAFETY: nothing beyond a `T` is touched.
    unsafe {
        let (from, to) = (from.add(AT), to.add(AT));
        match size_of::<T>().saturating_sub(AT) {
            8.. if T::UNIT == 8 => to.cast::<[u8; 8]>().write(load64::<0>(from).to_ne_bytes()),
            8.. => {
                to.cast::<[u8; 4]>().write(load32::<0>(from).to_ne_bytes());
                to.add(4).cast::<[u8; 4]>().write(load32::<4>(from).to_ne_bytes());
            }
            left => {
                if left >= 4 {
                    to.cast::<[u8; 4]>().write(load32::<0>(from).to_ne_bytes());
                }
                if left == 2 || left == 3 {
                    to.cast::<[u8; 2]>().write(load16::<0>(from).to_ne_bytes());
                }
                if left == 6 || left == 7 {
                    to.add(4).cast::<[u8; 2]>().write(load16::<4>(from).to_ne_bytes());
                }
                if left % 2 == 1 {
                    to.add(left - 1).write(from.add(left - 1).read());
                }
            }
        }
    }
}

/// One load at any alignment.
macro_rules! load {
    ($name:ident, $type:ident) => {
        #[cfg(target_arch = "bpf")]
        #[inline(always)]
        unsafe fn $name<const AT: usize>(from: *const u8) -> $type {
            let value: u64;
            // SAFETY: the caller's pointer has that many bytes behind `AT`.
            unsafe {
                core::arch::asm!(
                    concat!("{value} = *(", stringify!($type), " *)({from} + {at})"),
                    value = lateout(reg) value,
                    from = in(reg) from,
                    at = const AT,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            value as $type
        }

        #[cfg(not(target_arch = "bpf"))]
        unsafe fn $name<const AT: usize>(from: *const u8) -> $type {
            // SAFETY: the caller's pointer has that many bytes behind `AT`.
            unsafe { from.add(AT).cast::<$type>().read_unaligned() }
        }
    };
}

load!(load64, u64);
load!(load32, u32);
load!(load16, u16);

/// What a decision asks the socket table, where there is one to ask.
pub(crate) trait Sockets {
    fn tcp(&self, ip: &Ip, ports: Ports, cookie: Cookie) -> Socket;
}

/// A classifier's: never asked.
pub(crate) struct NoSockets;

impl Sockets for NoSockets {
    #[inline(always)]
    fn tcp(&self, _ip: &Ip, _ports: Ports, _cookie: Cookie) -> Socket {
        Socket::Absent
    }
}

/// The socket table of the namespace in which the interface is.
pub(crate) struct XdpSockets<'a> {
    ctx: *mut xdp_md,
    lifetime: PhantomData<&'a XdpContext>,
}

impl<'a> XdpSockets<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        XdpSockets {
            ctx: ctx.ctx,
            lifetime: PhantomData,
        }
    }
}

/// BPF_F_CURRENT_NETNS.
const CURRENT_NETNS: u64 = u64::MAX;

// include/net/tcp_states.h
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

impl Sockets for XdpSockets<'_> {
    #[inline(always)]
    fn tcp(&self, ip: &Ip, ports: Ports, cookie: Cookie) -> Socket {
        match tcp_state(self.ctx, ip, ports, u32::from(cookie == Cookie::Check)) {
            NO_SOCKET | TCP_CLOSE => Socket::Absent,
            TCP_LISTEN => Socket::Listening,
            SYN_COOKIE => Socket::Cookie,
            _ => Socket::Connected,
        }
    }
}

const NO_SOCKET: u32 = 0;

/// A listener's state where the segment carries a SYN cookie.
const SYN_COOKIE: u32 = 255;

/// The state of the flow's socket, [`NO_SOCKET`], or [`SYN_COOKIE`] where `check` is not 0 and the segment has one.
#[inline(always)]
fn tcp_state(ctx: *mut xdp_md, ip: &Ip, ports: Ports, check: u32) -> u32 {
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    let size = fill(&mut tuple, ip, ports);
    // SAFETY: `tuple` points to `size` initialised bytes; the context is valid.
    let sk = unsafe { bpf_skc_lookup_tcp(ctx.cast(), tuple.as_mut_ptr(), size, CURRENT_NETNS, 0) };
    if sk.is_null() {
        return NO_SOCKET;
    }
    // SAFETY: not null, and held until the end.
    let mut state = unsafe { (*sk).state };
    if check != 0 && state == TCP_LISTEN && is_syn_cookie(ctx, ip, sk) {
        state = SYN_COOKIE;
    }
    // SAFETY: the lookup returned it with a reference, which ends here.
    unsafe { bpf_sk_release(sk.cast()) };
    state
}

/// `sk` is a listener that is held.
#[inline(always)]
fn is_syn_cookie(ctx: *mut xdp_md, ip: &Ip, sk: *mut bpf_sock) -> bool {
    // SAFETY: a valid context.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    let Some(tcp) = at::<Tcp>(data, end, ip.transport as usize) else {
        return false;
    };
    // The helper wants the fixed header's length only; it reads addresses and version.
    let (network, length) = match ip.family {
        Family::V4 => match at::<Ipv4>(data, end, ip.network as usize) {
            Some(header) => (header.cast::<u8>(), size_of::<Ipv4>()),
            None => return false,
        },
        Family::V6 => match at::<Ipv6>(data, end, ip.network as usize) {
            Some(header) => (header.cast::<u8>(), size_of::<Ipv6>()),
            None => return false,
        },
    };
    // SAFETY: the socket is held; both headers lie within the packet, as `at` has shown.
    let answer = unsafe {
        bpf_tcp_check_syncookie(
            sk.cast(),
            network.cast_mut().cast(),
            length as u32,
            tcp.cast_mut().cast(),
            size_of::<Tcp>() as u32,
        )
    };
    answer == 0
}

/// The flow as the helper wants it: in network order, as the packet has it. Returns how many bytes of it count.
#[inline(always)]
fn fill(tuple: &mut MaybeUninit<bpf_sock_tuple>, ip: &Ip, ports: Ports) -> u32 {
    let pointer = tuple.as_mut_ptr();
    let (sport, dport) = (ports.remote.to_be(), ports.local.to_be());
    let size = match ip.family {
        Family::V4 => {
            let ends = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: number_v4(&ip.ends.remote).to_be(),
                daddr: number_v4(&ip.ends.local).to_be(),
                sport,
                dport,
            };
            // SAFETY: the IPv4 form is the union's shorter one.
            unsafe { ptr::write(pointer.cast(), ends) };
            size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
        }
        Family::V6 => {
            let ends = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: quarters(&ip.ends.remote),
                daddr: quarters(&ip.ends.local),
                sport,
                dport,
            };
            // SAFETY: the IPv6 form is the whole union.
            unsafe { ptr::write(pointer.cast(), ends) };
            size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
        }
    };
    size as u32
}

/// The frame's length, and how many of its first bytes went to `head`.
#[inline(always)]
pub(crate) fn copy_head<B: Buffers>(ctx: *mut xdp_md, head: *mut [u8; EVENT_HEAD]) -> (u32, u16) {
    // SAFETY: a valid context.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    let length = B::length(ctx) as u32;
    let to = head.cast::<u8>();
    let mut copied = 0;
    // Eight bytes at a time, then what is left one by one: the verifier follows each round.
    while copied + 8 <= EVENT_HEAD
        && let Some(from) = at::<[u8; 8]>(data, end, copied)
    {
        // SAFETY: eight bytes from `copied` on lie within the packet, as `at` has shown, and within `head`.
        unsafe {
            let word = load64::<0>(from.cast::<u8>());
            to.add(copied).cast::<u64>().write(word);
        }
        copied += 8;
    }
    // No frame is that short (ETH_HLEN); said here, since the verifier learns nothing from comparing `data` itself.
    if copied == 0 {
        return (length, 0);
    }
    let mut left = 0;
    while left < 7
        && copied < EVENT_HEAD
        && let Some(from) = at::<u8>(data, end, copied)
    {
        // SAFETY: as above, for one byte.
        unsafe { to.add(copied).write(from.read()) };
        copied += 1;
        left += 1;
    }
    (length, copied as u16)
}

/// Writes `jiffies64` over the first eight bytes of the packet, if it has that many.
#[inline(always)]
pub(crate) fn write_jiffies(ctx: &XdpContext) -> bool {
    match at::<[u8; 8]>(ctx.data(), ctx.data_end(), 0) {
        Some(start) => {
            let ticks = now().0.to_ne_bytes();
            // SAFETY: `at` has shown that eight bytes lie within the packet, which XDP programs may write.
            unsafe { start.cast_mut().write_unaligned(ticks) };
            true
        }
        None => false,
    }
}
