//! A network namespace in which every address is this host's own ("AnyIP"), so that a login can come from anywhere.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{SockaddrStorage, bind, connect};

/// Moves this thread into a new one, and whom it starts from here on.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub(super) fn enter() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let socket = netlink()?;
    request(&socket, libc::RTM_NEWLINK, 0, &link_up())?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        request(&socket, libc::RTM_NEWROUTE, create, &everything_is_local(family))?;
    }
    Ok(())
}

/// Connects from an address to the same address.
///
/// # Errors
/// I/O.
pub(super) fn connect_from(source: IpAddr, port: u16) -> io::Result<TcpStream> {
    let family = if source.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: socket(2) takes numbers only.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else holds.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Local by a route, and assigned to no interface: IPv6 wants to be told that this is meant (ip(7)).
    let yes: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&yes)).map_err(io::Error::other)?;
    // SAFETY: a valid descriptor, and an integer of the length that is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_FREEBIND,
            (&raw const yes).cast(),
            length,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(source, 0)),
    )?;
    connect(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(source, port)),
    )?;
    Ok(TcpStream::from(socket))
}

fn netlink() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes numbers only.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else holds.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// struct ifinfomsg (rtnetlink(7)): `lo` is the first interface of every namespace.
fn link_up() -> Vec<u8> {
    let up = libc::IFF_UP.to_ne_bytes();
    let mut body = vec![0; 4];
    for field in [LO.to_ne_bytes(), up, up] {
        body.extend(field);
    }
    body
}

/// struct rtmsg (rtnetlink(7)), and the interface: what `ip route add local default dev lo` sends.
fn everything_is_local(family: libc::c_int) -> Vec<u8> {
    let family = u8::try_from(family).unwrap_or_default();
    let mut body = vec![
        family,
        0,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ];
    body.extend([0; 4]);
    body.extend(8_u16.to_ne_bytes());
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(LO.to_ne_bytes());
    body
}

fn request(socket: &OwnedFd, kind: u16, flags: libc::c_int, body: &[u8]) -> io::Result<()> {
    let length = size_of::<libc::nlmsghdr>() + body.len();
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).map_err(io::Error::other)?;
    let mut message = u32::try_from(length)
        .map_err(io::Error::other)?
        .to_ne_bytes()
        .to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    // SAFETY: a valid descriptor and buffer.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = [0_u8; 1024];
    // SAFETY: a valid descriptor, a buffer of that length.
    let received = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // struct nlmsgerr: the negative errno, zero for done.
    let code = answer
        .get(size_of::<libc::nlmsghdr>()..)
        .and_then(<[u8]>::first_chunk::<4>)
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

const LO: u32 = 1;
