//! Why a packet passed or dropped: a number that is never reused and one spelling, for counters, events, the command
//! line, metrics and documents.

mod remedy;

use crate::address::Martian;
use crate::parse::Malformed;

/// How many reasons a counter array has room for.
pub const REASONS: usize = 128;

/// Numbers from here on drop.
const FIRST_DROP: u8 = 64;

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
}

/// Every reason there is.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    // Pass: 1 to 63.
    Unenforced = 1,
    Arp = 2,
    LinkLayer = 3,
    NeighbourDiscovery = 4,
    MulticastListener = 5,
    GroupMembership = 6,
    DhcpClient = 7,
    IcmpError = 8,
    Service = 9,
    Established = 10,
    SynCookie = 11,
    Answer = 12,
    EchoReply = 13,
    EchoRequest = 14,
    Fragment = 15,

    // Drop: 64 to 127.
    EmptySlot = 64,
    EthernetTruncated = 65,
    VlanTruncated = 66,
    VlanDepth = 67,
    EtherType = 68,
    Llc = 69,
    Ipv4Truncated = 70,
    Ipv4Version = 71,
    Ipv4HeaderLength = 72,
    Ipv4TotalLength = 73,
    Ipv6Truncated = 74,
    Ipv6Version = 75,
    Ipv6PayloadLength = 76,
    ExtensionTruncated = 77,
    ExtensionChain = 78,
    TcpTruncated = 79,
    TcpOffset = 80,
    UdpTruncated = 81,
    UdpLength = 82,
    IcmpTruncated = 83,
    SourceMulticast = 84,
    SourceBroadcast = 85,
    SourceLoopback = 86,
    SourceUnspecified = 87,
    SourceMapped = 88,
    TcpFlags = 89,
    ServiceDenied = 90,
    ServiceClosed = 91,
    NewTcp = 92,
    NoConnection = 93,
    Udp = 94,
    EchoRequestRefused = 95,
    EchoReplyUnasked = 96,
    IcmpType = 97,
    IcmpRedirect = 98,
    IcmpErrorUnrelated = 99,
    NeighbourInvalid = 100,
    MulticastListenerSource = 101,
    Protocol = 102,
    FragmentUnknown = 103,
    GateLimit = 104,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Reason; 56] = [
        Reason::Unenforced,
        Reason::Arp,
        Reason::LinkLayer,
        Reason::NeighbourDiscovery,
        Reason::MulticastListener,
        Reason::GroupMembership,
        Reason::DhcpClient,
        Reason::IcmpError,
        Reason::Service,
        Reason::Established,
        Reason::SynCookie,
        Reason::Answer,
        Reason::EchoReply,
        Reason::EchoRequest,
        Reason::Fragment,
        Reason::EmptySlot,
        Reason::EthernetTruncated,
        Reason::VlanTruncated,
        Reason::VlanDepth,
        Reason::EtherType,
        Reason::Llc,
        Reason::Ipv4Truncated,
        Reason::Ipv4Version,
        Reason::Ipv4HeaderLength,
        Reason::Ipv4TotalLength,
        Reason::Ipv6Truncated,
        Reason::Ipv6Version,
        Reason::Ipv6PayloadLength,
        Reason::ExtensionTruncated,
        Reason::ExtensionChain,
        Reason::TcpTruncated,
        Reason::TcpOffset,
        Reason::UdpTruncated,
        Reason::UdpLength,
        Reason::IcmpTruncated,
        Reason::SourceMulticast,
        Reason::SourceBroadcast,
        Reason::SourceLoopback,
        Reason::SourceUnspecified,
        Reason::SourceMapped,
        Reason::TcpFlags,
        Reason::ServiceDenied,
        Reason::ServiceClosed,
        Reason::NewTcp,
        Reason::NoConnection,
        Reason::Udp,
        Reason::EchoRequestRefused,
        Reason::EchoReplyUnasked,
        Reason::IcmpType,
        Reason::IcmpRedirect,
        Reason::IcmpErrorUnrelated,
        Reason::NeighbourInvalid,
        Reason::MulticastListenerSource,
        Reason::Protocol,
        Reason::FragmentUnknown,
        Reason::GateLimit,
    ];

    /// The stable number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The reason with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.number() == number)
    }

    /// What follows from it.
    #[inline(always)]
    pub const fn action(self) -> Action {
        action_of(self.number())
    }

    /// The one spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Unenforced => "unenforced",
            Reason::Arp => "arp",
            Reason::LinkLayer => "link-layer",
            Reason::NeighbourDiscovery => "neighbour-discovery",
            Reason::MulticastListener => "multicast-listener",
            Reason::GroupMembership => "group-membership",
            Reason::DhcpClient => "dhcp-client",
            Reason::IcmpError => "icmp-error",
            Reason::Service => "service",
            Reason::Established => "established",
            Reason::SynCookie => "syn-cookie",
            Reason::Answer => "answer",
            Reason::EchoReply => "echo-reply",
            Reason::EchoRequest => "echo-request",
            Reason::Fragment => "fragment",
            Reason::EmptySlot => "empty-slot",
            Reason::EthernetTruncated => "ethernet-truncated",
            Reason::VlanTruncated => "vlan-truncated",
            Reason::VlanDepth => "vlan-depth",
            Reason::EtherType => "ether-type",
            Reason::Llc => "llc",
            Reason::Ipv4Truncated => "ipv4-truncated",
            Reason::Ipv4Version => "ipv4-version",
            Reason::Ipv4HeaderLength => "ipv4-header-length",
            Reason::Ipv4TotalLength => "ipv4-total-length",
            Reason::Ipv6Truncated => "ipv6-truncated",
            Reason::Ipv6Version => "ipv6-version",
            Reason::Ipv6PayloadLength => "ipv6-payload-length",
            Reason::ExtensionTruncated => "extension-truncated",
            Reason::ExtensionChain => "extension-chain",
            Reason::TcpTruncated => "tcp-truncated",
            Reason::TcpOffset => "tcp-offset",
            Reason::UdpTruncated => "udp-truncated",
            Reason::UdpLength => "udp-length",
            Reason::IcmpTruncated => "icmp-truncated",
            Reason::SourceMulticast => "source-multicast",
            Reason::SourceBroadcast => "source-broadcast",
            Reason::SourceLoopback => "source-loopback",
            Reason::SourceUnspecified => "source-unspecified",
            Reason::SourceMapped => "source-mapped",
            Reason::TcpFlags => "tcp-flags",
            Reason::ServiceDenied => "service-denied",
            Reason::ServiceClosed => "service-closed",
            Reason::NewTcp => "new-tcp",
            Reason::NoConnection => "no-connection",
            Reason::Udp => "udp",
            Reason::EchoRequestRefused => "echo-request-refused",
            Reason::EchoReplyUnasked => "echo-reply-unasked",
            Reason::IcmpType => "icmp-type",
            Reason::IcmpRedirect => "icmp-redirect",
            Reason::IcmpErrorUnrelated => "icmp-error-unrelated",
            Reason::NeighbourInvalid => "neighbour-invalid",
            Reason::MulticastListenerSource => "multicast-listener-source",
            Reason::Protocol => "protocol",
            Reason::FragmentUnknown => "fragment-unknown",
            Reason::GateLimit => "gate-limit",
        }
    }

    /// One sentence for people: what was seen.
    pub const fn meaning(self) -> &'static str {
        match self {
            Reason::Unenforced => "No policy is in force: the control record says that everything passes.",
            Reason::Arp => "ARP, without which IPv4 leaves the network.",
            Reason::LinkLayer => "Spanning tree or an EtherType that the configuration lists.",
            Reason::NeighbourDiscovery => {
                "A valid neighbour or router message (RFC 4861), without which IPv6 leaves the network."
            }
            Reason::MulticastListener => "MLD from a link-local or unspecified source.",
            Reason::GroupMembership => "IGMP.",
            Reason::DhcpClient => "A DHCP server's message to this host's client.",
            Reason::IcmpError => "An ICMP error that quotes a live flow of this host.",
            Reason::Service => "The source is allowed at this service.",
            Reason::Established => "A socket of this host holds this connection.",
            Reason::SynCookie => "The ACK carries a SYN cookie that this host issued.",
            Reason::Answer => "An answer to something this host sent over UDP, or forwarded for a container.",
            Reason::EchoReply => "An answer to this host's ping.",
            Reason::EchoRequest => "A ping that the configuration accepts.",
            Reason::Fragment => "A later fragment whose first fragment passed.",
            Reason::EmptySlot => "The control record chose a policy that is not there.",
            Reason::EthernetTruncated => "The frame ends within its Ethernet header.",
            Reason::VlanTruncated => "The frame ends within a VLAN tag.",
            Reason::VlanDepth => "More than two VLAN tags.",
            Reason::EtherType => "An EtherType that the configuration does not list.",
            Reason::Llc => {
                "An 802.2 frame that is not spanning tree, or spanning tree that the configuration does not list."
            }
            Reason::Ipv4Truncated => "The frame ends within the IPv4 header.",
            Reason::Ipv4Version => "An IPv4 frame whose version is not 4.",
            Reason::Ipv4HeaderLength => "An IPv4 header length below five words.",
            Reason::Ipv4TotalLength => {
                "An IPv4 total length shorter than the header or longer than the frame."
            }
            Reason::Ipv6Truncated => "The frame ends within the IPv6 header.",
            Reason::Ipv6Version => "An IPv6 frame whose version is not 6.",
            Reason::Ipv6PayloadLength => "An IPv6 payload length longer than the frame.",
            Reason::ExtensionTruncated => "The packet ends within an IPv6 extension header.",
            Reason::ExtensionChain => "More than six IPv6 extension headers, or two fragment headers.",
            Reason::TcpTruncated => "The packet ends within the TCP header.",
            Reason::TcpOffset => "A TCP data offset below five words or beyond the packet.",
            Reason::UdpTruncated => "The packet ends within the UDP header.",
            Reason::UdpLength => "A UDP length shorter than the header or longer than the packet.",
            Reason::IcmpTruncated => "The packet ends within the ICMP message.",
            Reason::SourceMulticast => "A multicast source address.",
            Reason::SourceBroadcast => "The broadcast address as source.",
            Reason::SourceLoopback => "A loopback source address on the wire.",
            Reason::SourceUnspecified => {
                "An unspecified source where neither duplicate address detection nor MLD needs one."
            }
            Reason::SourceMapped => "An IPv4-mapped IPv6 source on the wire.",
            Reason::TcpFlags => {
                "TCP flags that no connection uses: none of ACK, SYN, RST, or SYN with FIN or RST."
            }
            Reason::ServiceDenied => "The source is denied at this service.",
            Reason::ServiceClosed => "The source is not allowed at this service, or no longer.",
            Reason::NewTcp => "A new TCP connection to a port that is no service.",
            Reason::NoConnection => "A TCP segment that belongs to no connection of this host.",
            Reason::Udp => "UDP that answers nothing this host sent, to a port that is no service.",
            Reason::EchoRequestRefused => "A ping that the configuration refuses, or beyond its limit.",
            Reason::EchoReplyUnasked => "An echo reply to no ping of this host.",
            Reason::IcmpType => "An ICMP message of a type that a host does not need.",
            Reason::IcmpRedirect => "An ICMP redirect.",
            Reason::IcmpErrorUnrelated => "An ICMP error that quotes no live flow of this host.",
            Reason::NeighbourInvalid => {
                "A neighbour or router message that RFC 4861 calls invalid: hop limit, code, source or destination."
            }
            Reason::MulticastListenerSource => {
                "MLD from a source that is neither link-local nor unspecified."
            }
            Reason::Protocol => "An IP protocol that is no service.",
            Reason::FragmentUnknown => {
                "A later fragment whose first fragment did not pass within two seconds before it, or was followed by 128 already."
            }
            Reason::GateLimit => {
                "A new connection to the gate beyond the hundred a second that each processor lets through."
            }
        }
    }
}

/// What follows from the reason with this number.
#[inline(always)]
pub const fn action_of(number: u8) -> Action {
    if number < FIRST_DROP {
        Action::Pass
    } else {
        Action::Drop
    }
}

impl From<Malformed> for Reason {
    #[inline(always)]
    fn from(malformed: Malformed) -> Reason {
        match malformed {
            Malformed::EthernetTruncated => Reason::EthernetTruncated,
            Malformed::VlanTruncated => Reason::VlanTruncated,
            Malformed::VlanDepth => Reason::VlanDepth,
            Malformed::Ipv4Truncated => Reason::Ipv4Truncated,
            Malformed::Ipv4Version => Reason::Ipv4Version,
            Malformed::Ipv4HeaderLength => Reason::Ipv4HeaderLength,
            Malformed::Ipv4TotalLength => Reason::Ipv4TotalLength,
            Malformed::Ipv6Truncated => Reason::Ipv6Truncated,
            Malformed::Ipv6Version => Reason::Ipv6Version,
            Malformed::Ipv6PayloadLength => Reason::Ipv6PayloadLength,
            Malformed::ExtensionTruncated => Reason::ExtensionTruncated,
            Malformed::ExtensionChain => Reason::ExtensionChain,
            Malformed::TcpTruncated => Reason::TcpTruncated,
            Malformed::TcpOffset => Reason::TcpOffset,
            Malformed::UdpTruncated => Reason::UdpTruncated,
            Malformed::UdpLength => Reason::UdpLength,
            Malformed::IcmpTruncated => Reason::IcmpTruncated,
        }
    }
}

impl From<Martian> for Reason {
    #[inline(always)]
    fn from(martian: Martian) -> Reason {
        match martian {
            Martian::Multicast => Reason::SourceMulticast,
            Martian::Broadcast => Reason::SourceBroadcast,
            Martian::Loopback => Reason::SourceLoopback,
            Martian::Unspecified => Reason::SourceUnspecified,
            Martian::Mapped => Reason::SourceMapped,
        }
    }
}
