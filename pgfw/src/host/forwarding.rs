//! Whether this host forwards packets for others behind its own address: containers, virtual machines.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::sock_diag::{Message, Messages};

/// Whether the network namespace forwards IPv4 or IPv6 and translates addresses on the way.
///
/// # Errors
/// The kernel does not tell its nftables chains.
pub fn translates() -> io::Result<bool> {
    Ok(forwards() && (has_iptables_nat() || has_nftables_nat()?))
}

fn forwards() -> bool {
    ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
        .iter()
        .any(|key| fs::read_to_string(format!("/proc/sys/{key}")).is_ok_and(|value| value.trim() != "0"))
}

/// iptables as it was before nftables: its table is there from the first rule on.
fn has_iptables_nat() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|names| fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "nat")))
}

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const SUBSYS_NFTABLES: u16 = 10;
const MSG_GETCHAIN: u16 = 4;
const CHAIN_USE: u16 = 6;
const CHAIN_TYPE: u16 = 7;
const GENERIC_HEADER: usize = 4;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// As much as the kernel puts into one answer to a dump.
const BUFFER: usize = 1 << 15;

/// A chain of type `nat` that holds a rule; what `iptables` writes today is one, too.
fn has_nftables_nat() -> io::Result<bool> {
    let opened = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    );
    let netlink = match opened {
        Ok(netlink) => netlink,
        // A kernel without nfnetlink.
        Err(nix::Error::EPROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let length: u32 = 20;
    let request = [
        length.to_ne_bytes().as_slice(),
        &(SUBSYS_NFTABLES << 8 | MSG_GETCHAIN).to_ne_bytes(),
        &NLM_F_REQUEST_DUMP.to_ne_bytes(),
        &[0; 8],
        // struct nfgenmsg: every family, version 0.
        &[0; GENERIC_HEADER],
    ]
    .concat();
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut found = false;
    loop {
        let mut buffer = vec![0; BUFFER];
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        buffer.truncate(length);
        for message in Messages(&buffer) {
            match message {
                Message::Done | Message::Error(0) => return Ok(found),
                // A kernel without nf_tables.
                Message::Error(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => return Ok(false),
                Message::Error(code) => return Err(io::Error::from_raw_os_error(code)),
                Message::Data(body) => {
                    found |= is_nat_with_rules(body.get(GENERIC_HEADER..).unwrap_or_default())
                }
            }
        }
    }
}

fn is_nat_with_rules(mut attributes: &[u8]) -> bool {
    let (mut is_nat, mut is_used) = (false, false);
    while let [a, b, c, d, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = attributes.get(4..length) else {
            break;
        };
        match u16::from_ne_bytes([c, d]) & 0x3fff {
            CHAIN_TYPE => is_nat = value == b"nat\0",
            CHAIN_USE => is_used = value.iter().any(|byte| *byte != 0),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    is_nat && is_used
}
