//! TCP by coverage and socket table, UDP by coverage and by what this host said.

use crate::address::{Family, is_link_local};
use crate::coverage::Admission;
use crate::decide::icmp::is_noted;
use crate::decide::{Arrival, Verdict};
use crate::packet::Packet;
use crate::parse::{Fragment, Ip, Malformed};
use crate::reason::Reason;
use crate::record::ServiceKey;
use crate::tables::{Cookie, Ports, Socket, Tables};
use crate::wire;

#[inline(always)]
pub(super) fn tcp<P: Packet, T: Tables>(packet: &P, tables: &T, arrival: Arrival, ip: &Ip) -> Verdict {
    let header: wire::Tcp = match packet.read(ip.transport as usize) {
        Some(header) if ip.contains(size_of::<wire::Tcp>()) => header,
        Some(_) | None => return Reason::from(Malformed::TcpTruncated).into(),
    };
    let length = usize::from(header.offset >> 4) * 4;
    if length < size_of::<wire::Tcp>() || !ip.contains(length) {
        return Reason::from(Malformed::TcpOffset).into();
    }
    if !is_plausible(header.flags) {
        return Reason::TcpFlags.into();
    }
    let ports = incoming(&header.ports);
    let opens = header.flags & (wire::SYN | wire::ACK) == wire::SYN;
    let acknowledges = header.flags & (wire::SYN | wire::RST | wire::ACK) == wire::ACK;
    let key = ServiceKey {
        port: ports.local,
        protocol: wire::TCP,
        pad: 0,
    };
    let found = tables.admission(key, ip, arrival.now);
    let reason = match found {
        Some((_, Admission::Denied)) => Reason::ServiceDenied,
        Some((_, Admission::Allowed)) => Reason::Service,
        Some((_, Admission::AllowedToWorld)) if opens => Reason::Service,
        // The flood path: no socket lookup for a SYN.
        Some((_, Admission::Closed)) if opens => Reason::ServiceClosed,
        None if opens => Reason::NewTcp,
        // What is left belongs to a connection or to nothing. A removed network's connections drain. At a service
        // that is open to everyone a stray segment must find nothing, or ACK and FIN scans would tell an open port
        // from a closed one.
        Some((_, Admission::AllowedToWorld | Admission::Closed)) | None => {
            let cookie = if acknowledges && matches!(found, Some((_, Admission::AllowedToWorld))) {
                Cookie::Check
            } else {
                Cookie::Ignore
            };
            match tables.tcp_socket(ip, ports, cookie) {
                Socket::Connected => Reason::Established,
                Socket::Cookie => Reason::SynCookie,
                // A container's connection: its socket is in another namespace.
                Socket::Listening | Socket::Absent
                    if tables.track() && is_noted(tables, arrival, ip, ports) =>
                {
                    tables.answered(ip, ports);
                    Reason::Answer
                }
                Socket::Listening | Socket::Absent => Reason::NoConnection,
            }
        }
    };
    Verdict::at(found, reason)
}

/// RFC 9293, 3.10.7: every segment of a connection carries ACK, SYN or RST, and SYN comes neither with FIN nor RST.
/// ECE, CWR, AE, PSH and URG are nobody's business here.
#[inline(always)]
fn is_plausible(flags: u8) -> bool {
    flags & (wire::ACK | wire::SYN | wire::RST) != 0
        && !(flags & wire::SYN != 0 && flags & (wire::FIN | wire::RST) != 0)
}

#[inline(always)]
pub(super) fn udp<P: Packet, T: Tables>(packet: &P, tables: &T, arrival: Arrival, ip: &Ip) -> Verdict {
    let header: wire::Udp = match packet.read(ip.transport as usize) {
        Some(header) if ip.contains(size_of::<wire::Udp>()) => header,
        Some(_) | None => return Reason::from(Malformed::UdpTruncated).into(),
    };
    let length = usize::from(u16::from_be_bytes(header.length));
    // A first fragment holds only part of what the length counts.
    if length < size_of::<wire::Udp>() || (ip.fragment != Fragment::First && !ip.contains(length)) {
        return Reason::from(Malformed::UdpLength).into();
    }
    let ports = incoming(&header.ports);
    if is_dhcp_reply(ip, ports) && tables.dhcp_client() {
        return Reason::DhcpClient.into();
    }
    let key = ServiceKey {
        port: ports.local,
        protocol: wire::UDP,
        pad: 0,
    };
    let found = tables.admission(key, ip, arrival.now);
    let reason = match found {
        Some((_, Admission::Denied)) => Reason::ServiceDenied,
        Some((_, Admission::Allowed | Admission::AllowedToWorld)) => Reason::Service,
        Some((_, Admission::Closed)) | None => match tables.note(ip, ports) {
            Some(note) if note.is_live(ip.protocol, arrival.now, tables.hz()) => {
                tables.answered(ip, ports);
                Reason::Answer
            }
            Some(_) | None if found.is_some() => Reason::ServiceClosed,
            Some(_) | None => Reason::Udp,
        },
    };
    Verdict::at(found, reason)
}

/// The port at which a service of any further protocol stands; 0, which is no service of those that have ports, where the
/// packet ends before them, and for protocols without ports.
#[inline(always)]
pub(super) fn service_port<P: Packet>(packet: &P, ip: &Ip) -> u16 {
    if !begins_with_ports(ip.protocol) || !ip.contains(size_of::<wire::Ports>()) {
        return 0;
    }
    match packet.read(ip.transport as usize) {
        Some(ports) => incoming(&ports).local,
        None => 0,
    }
}

/// Of the protocols beside TCP and UDP: SCTP, DCCP and UDP-Lite (RFC 9260, 3.1; RFC 4340, 5.1; RFC 3828, 3.1).
#[inline(always)]
pub(super) fn begins_with_ports(protocol: u8) -> bool {
    matches!(protocol, wire::SCTP | wire::DCCP | wire::UDP_LITE)
}

/// A DHCP client asks before it has an address, through a socket no table shows (RFC 2131, 4.1; RFC 8415, 7.2): its
/// answers are known by their ports, in IPv6 also by going to a link-local address.
#[inline(always)]
fn is_dhcp_reply(ip: &Ip, ports: Ports) -> bool {
    match ip.family {
        Family::V4 => ports.remote == wire::DHCPV4_SERVER && ports.local == wire::DHCPV4_CLIENT,
        Family::V6 => {
            ports.remote == wire::DHCPV6_SERVER
                && ports.local == wire::DHCPV6_CLIENT
                && is_link_local(&ip.ends.local)
        }
    }
}

/// The ports of a packet from outside.
#[inline(always)]
fn incoming(ports: &wire::Ports) -> Ports {
    Ports {
        remote: u16::from_be_bytes(ports.source),
        local: u16::from_be_bytes(ports.destination),
    }
}

/// The ports of a packet that leaves, or left.
#[inline(always)]
pub(crate) fn outgoing(ports: &wire::Ports) -> Ports {
    Ports {
        remote: u16::from_be_bytes(ports.destination),
        local: u16::from_be_bytes(ports.source),
    }
}
