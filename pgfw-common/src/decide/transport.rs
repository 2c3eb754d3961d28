//! TCP by coverage and socket table, UDP by coverage and by what this host said.

use crate::address::{Family, is_link_local};
use crate::coverage::Admission;
use crate::decide::Arrival;
use crate::decide::icmp::is_noted;
use crate::packet::Packet;
use crate::parse::{Fragment, Ip, Malformed, Segment};
use crate::reason::Reason;
use crate::tables::{Cookie, Ports, Socket, Tables};
use crate::wire;

/// Reads what a verdict on TCP asks for; a segment that no stack sends is refused at once.
#[inline(always)]
pub(super) fn read_tcp<P: Packet>(packet: &P, ip: &Ip, segment: &mut Segment) -> Result<(), Reason> {
    let header: wire::Tcp = match packet.read(ip.transport as usize) {
        Some(header) if ip.contains(size_of::<wire::Tcp>()) => header,
        Some(_) | None => return Err(Malformed::TcpTruncated.into()),
    };
    let length = usize::from(header.offset >> 4) * 4;
    if length < size_of::<wire::Tcp>() || !ip.contains(length) {
        return Err(Malformed::TcpOffset.into());
    }
    if !is_plausible(header.flags) {
        return Err(Reason::TcpFlags);
    }
    segment.ports = incoming(&header.ports);
    segment.flags = header.flags;
    Ok(())
}

/// The same of UDP; an answer to this host's DHCP client passes at once.
#[inline(always)]
pub(super) fn read_udp<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    ip: &Ip,
    segment: &mut Segment,
) -> Result<(), Reason> {
    let header: wire::Udp = match packet.read(ip.transport as usize) {
        Some(header) if ip.contains(size_of::<wire::Udp>()) => header,
        Some(_) | None => return Err(Malformed::UdpTruncated.into()),
    };
    let length = usize::from(u16::from_be_bytes(header.length));
    // A first fragment holds only part of what the length counts.
    if length < size_of::<wire::Udp>() || (ip.fragment != Fragment::First && !ip.contains(length)) {
        return Err(Malformed::UdpLength.into());
    }
    segment.ports = incoming(&header.ports);
    if is_dhcp_reply(ip, segment.ports) && tables.dhcp_client() {
        return Err(Reason::DhcpClient);
    }
    Ok(())
}

/// The same of any further protocol: the port at which a service of it stands; 0, which is no service of those that have
/// ports, where the packet ends before them, and for protocols without ports.
#[inline(always)]
pub(super) fn read_other<P: Packet>(packet: &P, ip: &Ip, segment: &mut Segment) -> Result<(), Reason> {
    segment.ports = Ports { remote: 0, local: 0 };
    if begins_with_ports(ip.protocol)
        && ip.contains(size_of::<wire::Ports>())
        && let Some(ports) = packet.read(ip.transport as usize)
    {
        segment.ports = incoming(&ports);
    }
    Ok(())
}

/// `said` by the service at the port, if there is one.
#[inline(always)]
pub(super) fn tcp<T: Tables>(
    tables: &T,
    arrival: Arrival,
    ip: &Ip,
    segment: &Segment,
    said: Option<Admission>,
) -> Reason {
    let opens = segment.flags & (wire::SYN | wire::ACK) == wire::SYN;
    let acknowledges = segment.flags & (wire::SYN | wire::RST | wire::ACK) == wire::ACK;
    match said {
        Some(Admission::Denied) => Reason::ServiceDenied,
        // Each one that passes is a handshake for a process to make, whoever sends it.
        Some(Admission::Allowed | Admission::AllowedToWorld)
            if opens && tables.is_gate(segment.ports.local) && !tables.spend_gate(arrival.now) =>
        {
            Reason::GateLimit
        }
        Some(Admission::Allowed) => Reason::Service,
        Some(Admission::AllowedToWorld) if opens => Reason::Service,
        // The flood path: no socket lookup for a SYN.
        Some(Admission::Closed) if opens => Reason::ServiceClosed,
        None if opens => Reason::NewTcp,
        // What is left belongs to a connection or to nothing. A removed network's connections drain. At a service
        // that is open to everyone a stray segment must find nothing, or ACK and FIN scans would tell an open port
        // from a closed one.
        Some(Admission::AllowedToWorld | Admission::Closed) | None => {
            let ports = segment.ports;
            let cookie = if acknowledges && said == Some(Admission::AllowedToWorld) {
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
    }
}

/// RFC 9293, 3.10.7: every segment of a connection carries ACK, SYN or RST, and SYN comes neither with FIN nor RST.
/// ECE, CWR, AE, PSH and URG are nobody's business here.
#[inline(always)]
fn is_plausible(flags: u8) -> bool {
    flags & (wire::ACK | wire::SYN | wire::RST) != 0
        && !(flags & wire::SYN != 0 && flags & (wire::FIN | wire::RST) != 0)
}

/// As for [`tcp`].
#[inline(always)]
pub(super) fn udp<T: Tables>(
    tables: &T,
    arrival: Arrival,
    ip: &Ip,
    segment: &Segment,
    said: Option<Admission>,
) -> Reason {
    match said {
        Some(Admission::Denied) => Reason::ServiceDenied,
        Some(Admission::Allowed | Admission::AllowedToWorld) => Reason::Service,
        Some(Admission::Closed) | None if is_noted(tables, arrival, ip, segment.ports) => {
            tables.answered(ip, segment.ports);
            Reason::Answer
        }
        Some(Admission::Closed) => Reason::ServiceClosed,
        None => Reason::Udp,
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
