//! ICMP and ICMPv6: neighbours, groups, ping, and errors about this host's own flows (RFC 4890, RFC 5927).

use crate::address::{Family, Martian, is_link_local, is_solicited_node, martian, same};
use crate::anew::anew;
use crate::coverage::Admission;
use crate::decide::{Arrival, transport};
use crate::packet::Packet;
use crate::parse::{self, Fragment, Ip, Malformed, Place};
use crate::reason::Reason;
use crate::record::{ECHO_ACCEPT, ECHO_LIMIT, ServiceKey};
use crate::tables::{Cookie, Ports, Socket, Tables};
use crate::wire;

/// RFC 4861, 6.1 and 7.1: what came through a router was not sent by a neighbour.
const NEIGHBOUR_HOP_LIMIT: u8 = 255;

/// Judges ICMP over IPv4 and ICMPv6 over IPv6; nothing else may come here.
#[inline(always)]
pub(super) fn icmp<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    arrival: Arrival,
    ip: &Ip,
    quote: &mut Ip,
) -> Reason {
    let header = match header(packet, ip) {
        Ok(header) => header,
        Err(malformed) => return malformed.into(),
    };
    match ip.family {
        Family::V4 => match header.kind {
            wire::ICMP_ECHO_REPLY => echo_reply(tables, arrival, ip, &header),
            wire::ICMP_ECHO_REQUEST => echo_request(tables, arrival),
            wire::ICMP_REDIRECT => Reason::IcmpRedirect,
            wire::ICMP_UNREACHABLE | wire::ICMP_TIME_EXCEEDED | wire::ICMP_PARAMETER_PROBLEM => {
                error(packet, tables, arrival, ip, quote)
            }
            _ => Reason::IcmpType,
        },
        Family::V6 => match header.kind {
            wire::ICMPV6_ECHO_REPLY => echo_reply(tables, arrival, ip, &header),
            wire::ICMPV6_ECHO_REQUEST => echo_request(tables, arrival),
            wire::ICMPV6_REDIRECT => Reason::IcmpRedirect,
            wire::ICMPV6_UNREACHABLE
            | wire::ICMPV6_TOO_BIG
            | wire::ICMPV6_TIME_EXCEEDED
            | wire::ICMPV6_PARAMETER_PROBLEM => error(packet, tables, arrival, ip, quote),
            wire::NEIGHBOUR_SOLICITATION | wire::NEIGHBOUR_ADVERTISEMENT => neighbour(packet, ip),
            // RFC 4861, 6.1.2: routers speak from their link-local address.
            wire::ROUTER_ADVERTISEMENT if is_link_local(&ip.ends.remote) && is_neighbours(ip, &header) => {
                Reason::NeighbourDiscovery
            }
            wire::ROUTER_ADVERTISEMENT => Reason::NeighbourInvalid,
            wire::MLD_QUERY | wire::MLD_REPORT | wire::MLD_DONE | wire::MLD2_REPORT => {
                if is_link_local(&ip.ends.remote) {
                    Reason::MulticastListener
                } else {
                    Reason::MulticastListenerSource
                }
            }
            _ => Reason::IcmpType,
        },
    }
}

/// A packet from an unspecified source: right only as duplicate address detection, or as a group report before there
/// is an address (RFC 3590).
#[inline(always)]
pub(super) fn unspecified<P: Packet>(packet: &P, ip: &Ip) -> Reason {
    if ip.family != Family::V6 || ip.protocol != wire::ICMPV6 || ip.fragment != Fragment::Whole {
        return Reason::SourceUnspecified;
    }
    let header = match header(packet, ip) {
        Ok(header) => header,
        Err(malformed) => return malformed.into(),
    };
    match header.kind {
        wire::MLD_REPORT | wire::MLD_DONE | wire::MLD2_REPORT => Reason::MulticastListener,
        // RFC 4861, 7.1.1: to a solicited-node group, without a source link-layer option.
        wire::NEIGHBOUR_SOLICITATION
            if is_solicited_node(&ip.ends.local) && !has_source_link_layer(packet, ip) =>
        {
            neighbour(packet, ip)
        }
        wire::NEIGHBOUR_SOLICITATION => Reason::NeighbourInvalid,
        _ => Reason::SourceUnspecified,
    }
}

#[inline(always)]
fn neighbour<P: Packet>(packet: &P, ip: &Ip) -> Reason {
    match packet.read::<wire::Neighbour>(ip.transport as usize) {
        Some(message) if ip.contains(size_of::<wire::Neighbour>()) => {
            if is_neighbours(ip, &message.icmp) {
                Reason::NeighbourDiscovery
            } else {
                Reason::NeighbourInvalid
            }
        }
        Some(_) | None => Malformed::IcmpTruncated.into(),
    }
}

/// RFC 6980: neighbour discovery in fragments is refused.
#[inline(always)]
fn is_neighbours(ip: &Ip, header: &wire::Icmp) -> bool {
    ip.hop_limit == NEIGHBOUR_HOP_LIMIT && header.code == 0 && ip.fragment == Fragment::Whole
}

/// The first option is looked at: a solicitation from `::` may carry a nonce (RFC 7527) and nothing else.
#[inline(always)]
fn has_source_link_layer<P: Packet>(packet: &P, ip: &Ip) -> bool {
    let options = size_of::<wire::Neighbour>();
    match packet.read::<wire::Extension>(ip.transport as usize + options) {
        Some(option) if ip.contains(options + size_of::<wire::Extension>()) => {
            option.next_header == wire::OPTION_SOURCE_LINK_LAYER
        }
        Some(_) | None => false,
    }
}

#[inline(always)]
fn header<P: Packet>(packet: &P, ip: &Ip) -> Result<wire::Icmp, Malformed> {
    match packet.read(ip.transport as usize) {
        Some(header) if ip.contains(size_of::<wire::Icmp>()) => Ok(header),
        Some(_) | None => Err(Malformed::IcmpTruncated),
    }
}

#[inline(always)]
fn echo_request<T: Tables>(tables: &T, arrival: Arrival) -> Reason {
    match tables.echo() {
        ECHO_ACCEPT => Reason::EchoRequest,
        ECHO_LIMIT if tables.spend_echo(arrival.now) => Reason::EchoRequest,
        _ => Reason::EchoRequestRefused,
    }
}

#[inline(always)]
fn echo_reply<T: Tables>(tables: &T, arrival: Arrival, ip: &Ip, header: &wire::Icmp) -> Reason {
    let ports = echo_ports(header);
    if is_noted(tables, arrival, ip, ports) {
        tables.answered(ip, ports);
        Reason::EchoReply
    } else {
        Reason::EchoReplyUnasked
    }
}

/// An echo has no ports. Both directions carry one identifier, which is this host's.
#[inline(always)]
pub(crate) fn echo_ports(header: &wire::Icmp) -> Ports {
    Ports {
        remote: 0,
        local: u16::from_be_bytes(header.id),
    }
}

/// An error passes when it quotes what this host has just sent: anyone can write one, but must then know the ports of a
/// live flow (RFC 5927, 4.3). Whether its sequence number is in the window, the TCP stack checks itself.
#[inline(always)]
fn error<P: Packet, T: Tables>(packet: &P, tables: &T, arrival: Arrival, ip: &Ip, quote: &mut Ip) -> Reason {
    let inner = ip.transport + size_of::<wire::Icmp>() as u32;
    if parse::ip(packet, ip.family, inner, Place::Quote, quote).is_err() {
        return Reason::IcmpErrorUnrelated;
    }
    let quote = &*anew(quote);
    // Flows of IPv4 are known by their mapped addresses: an IPv6 packet that wears one is none of ours.
    if martian(&quote.ends.remote, quote.family) == Some(Martian::Mapped) {
        return Reason::IcmpErrorUnrelated;
    }
    // Padding behind the packet quotes nothing: the stack cuts it off before it looks.
    let is_quoted = quote.transport as usize + size_of::<wire::Icmp>() <= ip.end as usize;
    // What we sent has our address as its source, and the error comes to that address.
    if is_quoted && same(&quote.ends.local, &ip.ends.local) && is_live(packet, tables, arrival, quote) {
        Reason::IcmpError
    } else {
        Reason::IcmpErrorUnrelated
    }
}

#[inline(always)]
fn is_live<P: Packet, T: Tables>(packet: &P, tables: &T, arrival: Arrival, quote: &Ip) -> bool {
    if let Fragment::Later = quote.fragment {
        return false;
    }
    // Eight bytes of the transport header are all that an error must quote (RFC 792); they hold ports and echo id.
    let Some(header) = packet.read::<wire::Icmp>(quote.transport as usize) else {
        return false;
    };
    let ports = transport::outgoing(&wire::Ports {
        source: [header.kind, header.code],
        destination: header.checksum,
    });
    let port = match quote.protocol {
        wire::TCP => {
            return tables.tcp_socket(quote, ports, Cookie::Ignore) == Socket::Connected
                || tables.track() && is_noted(tables, arrival, quote, ports);
        }
        wire::ICMP | wire::ICMPV6 => return is_noted(tables, arrival, quote, echo_ports(&header)),
        wire::UDP if is_noted(tables, arrival, quote, ports) => return true,
        wire::UDP => ports.local,
        protocol if transport::begins_with_ports(protocol) => ports.local,
        // A tunnel's packets (ESP, GRE) have no ports; their path has a largest size all the same.
        _ => 0,
    };
    is_served(tables, arrival, quote, port)
}

/// Whether this went from one of this host's services to a source that it serves.
#[inline(always)]
fn is_served<T: Tables>(tables: &T, arrival: Arrival, quote: &Ip, port: u16) -> bool {
    let key = ServiceKey {
        port,
        protocol: quote.protocol,
        pad: 0,
    };
    matches!(
        tables.admission(key, quote, arrival.now),
        Some((_, Admission::Allowed | Admission::AllowedToWorld))
    )
}

#[inline(always)]
pub(super) fn is_noted<T: Tables>(tables: &T, arrival: Arrival, ip: &Ip, ports: Ports) -> bool {
    match tables.note(ip, ports) {
        Some(note) => note.is_live(ip.protocol, arrival.now, tables.hz()),
        None => false,
    }
}
