//! What the kernel says about one interface, as far as attaching needs it (rtnetlink, RTM_GETLINK).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) mtu: u32,
    /// `ARPHRD_…`
    pub(super) link_type: u16,
    /// `veth`, `bridge`, `bond` …; `None` for a plain NIC.
    pub(super) kind: Option<String>,
    pub(super) xdp: Option<Attachment>,
}

/// The XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) mode: Mode,
    pub(super) program: u32,
}

/// How an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the stack, behind it.
    Generic,
    /// On the NIC.
    Offloaded,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
            Mode::Offloaded => "offloaded",
        })
    }
}

pub(super) const ARPHRD_ETHER: u16 = 1;
pub(super) const ARPHRD_LOOPBACK: u16 = 772;

// include/uapi/linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_ATTACHED_HW: u8 = 3;
const XDP_ATTACHED_MULTI: u8 = 4;

pub(super) const HEADER: usize = size_of::<libc::nlmsghdr>();
const IFINFO: usize = 16;

/// Asks about one interface of the caller's namespace; `None` when there is none with this index.
pub(super) fn query(ifindex: u32) -> io::Result<Option<Device>> {
    let socket = open()?;
    let mut request = Vec::with_capacity(HEADER + IFINFO);
    let length = u32::try_from(HEADER + IFINFO).unwrap_or(u32::MAX);
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&u16::try_from(libc::NLM_F_REQUEST).unwrap_or(1).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // struct ifinfomsg: family, padding, type, index, flags, change.
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(&ifindex.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // SAFETY: a valid descriptor and buffer.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0_u8; 64 * 1024];
    // SAFETY: a valid descriptor, a buffer of that length.
    let received = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    answer.truncate(received);
    parse(&answer)
}

pub(super) fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
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

fn parse(message: &[u8]) -> io::Result<Option<Device>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = u16_at(message, 4).ok_or_else(short)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code = u32_at(message, HEADER).ok_or_else(short)?;
        let errno = code.cast_signed().wrapping_neg();
        return if errno == libc::ENODEV {
            Ok(None)
        } else {
            Err(io::Error::from_raw_os_error(errno))
        };
    }
    let link_type = u16_at(message, HEADER + 2).ok_or_else(short)?;
    let mut device = Device {
        name: String::new(),
        mtu: 0,
        link_type,
        kind: None,
        xdp: None,
    };
    for (kind, value) in attributes(message.get(HEADER + IFINFO..).ok_or_else(short)?) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_MTU => device.mtu = u32_at(value, 0).unwrap_or(0),
            IFLA_LINKINFO => {
                device.kind = attributes(value)
                    .find(|(kind, _)| *kind == IFLA_INFO_KIND)
                    .map(|(_, v)| text(v));
            }
            IFLA_XDP => device.xdp = attachment(value),
            _ => {}
        }
    }
    Ok(Some(device))
}

fn attachment(nest: &[u8]) -> Option<Attachment> {
    let find = |wanted| {
        attributes(nest)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    let id = |wanted| find(wanted).and_then(|value| u32_at(value, 0));
    let (mode, program) = match *find(IFLA_XDP_ATTACHED)?.first()? {
        XDP_ATTACHED_DRV => (Mode::Native, id(IFLA_XDP_PROG_ID)),
        XDP_ATTACHED_SKB => (Mode::Generic, id(IFLA_XDP_PROG_ID)),
        XDP_ATTACHED_HW => (Mode::Offloaded, id(IFLA_XDP_PROG_ID)),
        XDP_ATTACHED_MULTI => (Mode::Native, id(IFLA_XDP_DRV_PROG_ID)),
        _ => return None,
    };
    Some(Attachment {
        mode,
        program: program.unwrap_or(0),
    })
}

/// Netlink attributes: length, type, value, padded to four bytes.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
