//! Notices what others do to interfaces (rtnetlink): one that appears, one that goes, a filter or its discipline deleted.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::Shared;

/// Starts a thread that waits for such news as long as the process lives; a blocked thread costs nothing.
pub(super) fn watch(shared: Shared) {
    const LATE: &str = "what others do to interfaces is noticed once a minute only";
    let socket = match listen() {
        Ok(socket) => socket,
        Err(errno) => {
            tracing::warn!(%errno, "{LATE}");
            return;
        }
    };
    let watch = move || {
        let mut news = vec![0; 64 * 1024];
        let mut names = Names::default();
        loop {
            match recv(socket.as_raw_fd(), &mut news, MsgFlags::empty()) {
                Ok(length) => {
                    // Each of them is looked at: the names must be kept.
                    if messages(&news[..length])
                        .filter(|news| names.concern(news))
                        .count()
                        > 0
                    {
                        shared.changed.notify_one();
                    }
                }
                // More came than the socket holds: whatever it was, look.
                Err(Errno::ENOBUFS) => shared.changed.notify_one(),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "{LATE}");
                    return;
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("link-changes".into())
        .spawn(watch)
    {
        tracing::warn!(%error, "{LATE}");
    }
}

// include/uapi/linux/rtnetlink.h
const RTMGRP_LINK: u32 = 1;
const RTMGRP_TC: u32 = 8;

fn listen() -> Result<OwnedFd, Errno> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK | RTMGRP_TC))?;
    Ok(socket)
}

/// The messages of one datagram, with their headers (`struct nlmsghdr`).
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = word(datagram, 0)? as usize;
        let message = datagram.get(..length).filter(|message| message.len() >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

const HEADER: usize = 16;

/// The names of interfaces, as far as the kernel has told them.
#[derive(Debug, Default)]
struct Names(BTreeMap<u32, Vec<u8>>);

impl Names {
    /// Whether coverage may have changed. Of what an interface says about itself all the time (carrier, statistics) nothing
    /// is looked at: of a new one the kernel says that everything changed (`ifi_change`, `register_netdevice`), and one
    /// that was renamed has another name than before.
    fn concern(&mut self, message: &[u8]) -> bool {
        let (Some(kind), Some(index)) = (message.get(4..6), word(message, HEADER + 4)) else {
            return false;
        };
        match u16::from_ne_bytes([kind[0], kind[1]]) {
            libc::RTM_NEWLINK => {
                let is_new = word(message, HEADER + 12) == Some(u32::MAX);
                let name = name(message);
                let before = name.clone().and_then(|name| self.0.insert(index, name));
                is_new || (before.is_none() && name.is_some()) || before != name
            }
            libc::RTM_DELLINK => {
                self.0.remove(&index);
                true
            }
            libc::RTM_DELQDISC | libc::RTM_DELTFILTER => true,
            _ => false,
        }
    }
}

/// IFLA_IFNAME of a message about a link.
fn name(message: &[u8]) -> Option<Vec<u8>> {
    const IFINFO: usize = 16;
    const IFLA_IFNAME: u16 = 3;
    let mut rest = message.get(HEADER + IFINFO..)?;
    loop {
        let [a, b, c, d, ..] = *rest else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == IFLA_IFNAME {
            return rest.get(4..length).map(<[u8]>::to_vec);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and `struct ifinfomsg`.
    fn link(kind: u16, change: u32) -> Vec<u8> {
        let mut message = 32_u32.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 22]);
        message.extend(change.to_ne_bytes());
        message
    }

    #[test]
    fn a_new_link_and_what_is_deleted_concern_us_and_carrier_does_not() {
        let datagram = [
            link(libc::RTM_NEWLINK, u32::MAX),
            link(libc::RTM_NEWLINK, 0),
            link(libc::RTM_DELQDISC, 0),
            link(libc::RTM_NEWTFILTER, 0),
        ];
        let mut names = Names::default();
        let told: Vec<bool> = messages(&datagram.concat())
            .map(|message| names.concern(message))
            .collect();
        assert_eq!(told, [true, false, true, false]);
        assert_eq!(messages(&[1, 0, 0, 0, 0]).count(), 0);
    }

    #[test]
    fn f39_another_name_concerns_us_once() {
        let named = |name: &[u8; 8]| {
            let mut message = link(libc::RTM_NEWLINK, 0);
            message.extend([12, 0, 3, 0]);
            message.extend(name);
            message[0] = 44;
            message
        };
        let mut names = Names::default();
        let told = [b"eth0\0\0\0\0", b"eth0\0\0\0\0", b"lan0\0\0\0\0", b"lan0\0\0\0\0"];
        assert_eq!(
            told.map(|name| names.concern(&named(name))),
            [true, false, true, false]
        );
    }
}
