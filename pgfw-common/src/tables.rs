//! What a decision may ask: the policy's tables, the kernel's sockets, and what this host has said before.

use crate::address::Family;
use crate::coverage::{Admission, Jiffies};
use crate::parse::Ip;
use crate::record::{FragmentKey, Note, NoteKey, ServiceKey, ServiceRow};

/// Seconds in which an answer may come after this host spoke.
pub const ANSWER_SECONDS: u64 = 30;
/// The same for a flow that was answered [`STREAM_ANSWERS`] times: a conversation, not a query.
pub const STREAM_SECONDS: u64 = 120;
pub const STREAM_ANSWERS: u32 = 2;
/// Seconds in which a forwarded TCP flow may be silent before it is forgotten: while it opens, and after (RFC 5382,
/// REQ-5: no less than four minutes, and two hours and four minutes).
pub const FORWARDED_OPENING_SECONDS: u64 = 240;
pub const FORWARDED_SECONDS: u64 = 7_440;
/// Seconds in which later fragments may follow a first one.
pub const FRAGMENT_SECONDS: u64 = 2;

/// The ports of one transport flow, in host order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub remote: u16,
    pub local: u16,
}

/// What the kernel's socket table knows of a TCP flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// A socket of this very flow, in any state that takes segments: SYN sent or received up to TIME_WAIT.
    Connected,
    /// Only someone who listens there, and the segment acknowledges a SYN cookie of this host: a connection that opens.
    Cookie,
    /// Only someone who listens there.
    Listening,
    Absent,
}

/// Whether a listener is asked if the segment, whose headers lie where the packet's [`Ip`] says, carries a SYN cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookie {
    Check,
    Ignore,
}

/// Who sends a first fragment that passes. Each kind has a table of its own, in which the least recently used goes
/// first: so whatever strangers send, the datagrams of those who are known arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A network that was let in by name, or one that this host spoke to.
    Known,
    /// Anyone could have: a service open to the world, or what passes whoever sends it.
    Anyone,
}

/// The world behind a decision.
///
/// The first half asks, the second writes; where a packet is only asked about, the second does nothing.
pub trait Tables {
    /// Ticks per second.
    fn hz(&self) -> u32;

    /// One of the `ECHO_` constants of [`crate::record`].
    fn echo(&self) -> u8;

    /// Whether DHCP servers may answer this host's client.
    fn dhcp_client(&self) -> bool;

    /// Whether answers to forwarded flows pass (`forwarded = "track"`).
    fn track(&self) -> bool;

    /// Whether spanning tree passes.
    fn spanning_tree(&self) -> bool;

    /// Whether the policy lists this EtherType (host order).
    fn ether_type(&self, ether_type: u16) -> bool;

    /// The service at a destination port (0 for protocols without ports), if there is one, and what it says at `now` to the
    /// remote end: the answer of the longest of its prefixes that holds it.
    fn admission(&self, key: ServiceKey, ip: &Ip, now: Jiffies) -> Option<(ServiceRow, Admission)>;

    /// The kernel's socket for a flow (`bpf_skc_lookup_tcp`, `bpf_tcp_check_syncookie`).
    fn tcp_socket(&self, ip: &Ip, ports: Ports, cookie: Cookie) -> Socket;

    /// What this host said to the remote end.
    fn note(&self, ip: &Ip, ports: Ports) -> Option<Note>;

    /// An answer to what [`Tables::note`] found passed.
    fn answered(&self, ip: &Ip, ports: Ports);

    /// A first fragment passed: later ones may follow until then.
    fn remember(&self, sender: Sender, ip: &Ip, ifindex: u32, until: Jiffies);

    /// Takes one later fragment out of what is remembered of its datagram's first one, if there is one left.
    fn spend_fragment(&self, ip: &Ip, ifindex: u32, now: Jiffies) -> bool;

    /// Whether the gate listens at this TCP port.
    fn is_gate(&self, port: u16) -> bool;

    /// Takes one first SYN to the gate out of the budget, if there is one left.
    fn spend_gate(&self, now: Jiffies) -> bool;

    /// Takes one echo request out of the budget, if there is one left.
    fn spend_echo(&self, now: Jiffies) -> bool;
}

impl Note {
    /// Whether an answer over `protocol` at `now` still belongs to it.
    #[inline(always)]
    pub fn is_live(&self, protocol: u8, now: Jiffies, hz: u32) -> bool {
        let seconds = match (protocol, self.answers >= STREAM_ANSWERS) {
            (crate::wire::TCP, false) => FORWARDED_OPENING_SECONDS,
            (crate::wire::TCP, true) => FORWARDED_SECONDS,
            (_, false) => ANSWER_SECONDS,
            (_, true) => STREAM_SECONDS,
        };
        now.0 < self.spoke.wrapping_add(seconds * u64::from(hz))
    }
}

impl NoteKey {
    #[inline(always)]
    pub fn new(ip: &Ip, ports: Ports) -> NoteKey {
        NoteKey {
            ends: ip.ends,
            remote_port: ports.remote,
            local_port: ports.local,
            protocol: ip.protocol,
            pad: [0; 3],
        }
    }
}

impl FragmentKey {
    #[inline(always)]
    pub fn new(ip: &Ip, ifindex: u32) -> FragmentKey {
        FragmentKey {
            ends: ip.ends,
            id: ip.id,
            ifindex,
            // RFC 8200, 4.5: an IPv6 datagram is known by addresses and id alone, and its fragments may name
            // different next headers.
            protocol: match ip.family {
                Family::V4 => ip.protocol,
                Family::V6 => crate::wire::FRAGMENT,
            },
            pad: [0; 7],
        }
    }
}
