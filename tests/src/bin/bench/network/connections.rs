//! Many open connections, in the kernel's table as any others, made in a second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::{HOST, Link};

/// Sockets of the host, each connected from port 5432 to an address of its own.
#[derive(Debug)]
pub(crate) struct Connections {
    _sockets: Vec<OwnedFd>,
}

impl Connections {
    /// In TCP's repair mode, which is how a connection moves from one machine to another: `connect` puts the socket among
    /// the established ones without a packet (net/ipv4/tcp_output.c, tcp_connect).
    pub(crate) fn open(link: &Link, count: u32) -> Connections {
        room(u64::from(count) + 4_096);
        let sockets = link.host.within(|| (0..count).map(repaired).collect());
        Connections { _sockets: sockets }
    }
}

fn repaired(number: u32) -> OwnedFd {
    let own = SocketAddr::new(HOST, 5432);
    // 20.0.0.0/8: no flood comes from there.
    let other = Ipv4Addr::from_bits(20 << 24 | number * 13 & 0x00ff_ffff);
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

/// Lets this process hold so many descriptors.
fn room(descriptors: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if soft < descriptors {
        setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard.max(descriptors))
            .unwrap_or_else(|error| panic!("{descriptors} descriptors cannot be had: {error}"));
    }
}
