//! Many open connections, in the kernel's table as any others, made in a second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::{HOST, Link};

/// Does something while the host has so many connections from its port 5432, each to an address of its own.
///
/// A process may not hold so many descriptors, and raising that limit takes a capability that root in a container lacks;
/// so threads with descriptors of their own hold a part each.
pub(crate) fn with_open<T>(link: &Link, count: u32, work: impl FnOnce() -> T) -> T {
    let part = room();
    let (ready, all_ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut ends = Vec::new();
        for first in (0..count).step_by(part as usize) {
            let (end, wait) = mpsc::channel::<()>();
            let ready = ready.clone();
            ends.push(end);
            scope.spawn(move || {
                link.host.namespace().enter();
                unshare(CloneFlags::CLONE_FILES).expect("a thread can have its own descriptors");
                let sockets: Vec<OwnedFd> = (first..count.min(first + part)).map(repaired).collect();
                ready.send(sockets.len()).expect("somebody waits");
                // Nobody counts on until the last of these goes.
                drop(ready);
                // Until the other end goes.
                let _ = wait.recv();
            });
        }
        drop(ready);
        let open: usize = all_ready.iter().sum::<usize>();
        assert_eq!(open, count as usize, "connections are open");
        work()
    })
}

/// In TCP's repair mode, which is how a connection moves from one machine to another: `connect` puts the socket among the
/// established ones without a packet (net/ipv4/tcp_output.c, tcp_connect).
fn repaired(number: u32) -> OwnedFd {
    let own = SocketAddr::new(HOST, 5432);
    // 20.0.0.0/8: no flood comes from there.
    let other = Ipv4Addr::from_bits(20 << 24 | number.wrapping_mul(13) & 0x00ff_ffff);
    let other = SocketAddr::new(IpAddr::V4(other), 50_000);
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let on: libc::c_int = 1;
    // SAFETY: the value lives through the call and is as long as said.
    let repairs = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(repairs, 0, "TCP_REPAIR: {}", std::io::Error::last_os_error());
    bind(socket.as_raw_fd(), &SockaddrStorage::from(own)).expect("an address of the host");
    connect(socket.as_raw_fd(), &SockaddrStorage::from(other)).expect("a connection without a packet");
    socket
}

/// Lets this process hold what it may, and says how many descriptors a thread may open beside what there is.
fn room() -> u32 {
    const IN_USE: u64 = 500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the limit that is allowed");
    let room = hard.saturating_sub(IN_USE).clamp(1, 50_000);
    u32::try_from(room).expect("clamped")
}
