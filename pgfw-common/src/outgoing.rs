//! What this host sends, as far as its answers must be let in: UDP, echo requests, and TCP that it forwards.
//!
//! TCP of its own needs nothing of the kind: the socket table knows it.

use crate::address::Family;
use crate::anew::anew;
use crate::coverage::{Admission, Jiffies};
use crate::decide::{echo_ports, outgoing_ports};
use crate::packet::Packet;
use crate::parse::{self, Fragment, Ip, Place};
use crate::record::{Note, ServiceKey};
use crate::tables::{Ports, Tables};
use crate::wire;

/// Whose packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A socket of this host sent it.
    Local,
    /// It came in elsewhere: from a container, whose sockets are in another namespace and out of this one's tables.
    Forwarded,
}

/// A flow whose answers are to be let in; its ends and protocol are in the [`Ip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    pub ports: Ports,
    /// Whether a note that still lives is renewed by this packet.
    pub renews: bool,
}

/// What to note about a packet that leaves this host, if anything; `ip` is where its header is put.
#[inline(always)]
pub fn outgoing<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    origin: Origin,
    now: Jiffies,
    ip: &mut Ip,
) -> Option<Outgoing> {
    let link = parse::link(packet).ok()?;
    let family = match link.ether_type {
        wire::ETHER_IPV4 => Family::V4,
        wire::ETHER_IPV6 => Family::V6,
        _ => return None,
    };
    parse::ip(packet, family, link.network, Place::Outgoing, ip).ok()?;
    let ip = &*anew(ip);
    if let Fragment::Later = ip.fragment {
        return None;
    }
    let (ports, renews) = match ip.protocol {
        // Whatever the segment is: a published container's answers go on after its client's first SYN was let in, too.
        wire::TCP if origin == Origin::Forwarded => {
            (outgoing_ports(&packet.read(ip.transport as usize)?), true)
        }
        wire::UDP => {
            let ports = outgoing_ports(&packet.read(ip.transport as usize)?);
            (ports, renews(tables, now, ip, ports)?)
        }
        wire::ICMP | wire::ICMPV6 => {
            let header: wire::Icmp = packet.read(ip.transport as usize)?;
            let asks = match ip.family {
                Family::V4 => wire::ICMP_ECHO_REQUEST,
                Family::V6 => wire::ICMPV6_ECHO_REQUEST,
            };
            if header.kind != asks {
                return None;
            }
            (echo_ports(&header), true)
        }
        _ => return None,
    };
    Some(Outgoing { ports, renews })
}

/// Whether UDP to the remote end is to be noted, and if so whether it renews a note that lives.
#[inline(always)]
fn renews<T: Tables>(tables: &T, now: Jiffies, ip: &Ip, ports: Ports) -> Option<bool> {
    let service = ServiceKey {
        port: ports.local,
        protocol: wire::UDP,
        pad: 0,
    };
    match tables.admission(service, ip, now) {
        // From a service's port to one whom it serves: an answer, not a question.
        Some((_, Admission::Allowed | Admission::AllowedToWorld)) => None,
        // A daemon may ask from its service's port (NTP does). But its answers to one whose entry has ended must not
        // keep that one in: such a note is not renewed while it lives.
        Some((_, Admission::Denied | Admission::Closed)) => Some(false),
        None => Some(true),
    }
}

impl Outgoing {
    /// The note after this packet over `protocol`, given what was noted before; `None` when that stays as it is.
    #[inline(always)]
    pub fn note(&self, protocol: u8, before: Option<Note>, now: Jiffies, hz: u32) -> Option<Note> {
        let answers = match before {
            Some(note) if note.is_live(protocol, now, hz) => {
                if !self.renews {
                    return None;
                }
                note.answers
            }
            Some(_) | None => 0,
        };
        Some(Note {
            spoke: now.0,
            answers,
            pad: 0,
        })
    }
}
