//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and ICMPv6 (RFC 4443, 4861) headers.

use super::wire;

/// Source and destination port, which TCP and UDP share; an ICMP error quotes at least these.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub source: [u8; 2],
    pub destination: [u8; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    pub ports: Ports,
    pub sequence: [u8; 4],
    pub acknowledgment: [u8; 4],
    /// Data offset in units of four bytes (upper four bits), reserved bits and AE.
    pub offset: u8,
    pub flags: u8,
    pub window: [u8; 2],
    pub checksum: [u8; 2],
    pub urgent: [u8; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Udp {
    pub ports: Ports,
    pub length: [u8; 2],
    pub checksum: [u8; 2],
}

/// The eight bytes with which every ICMP and ICMPv6 message begins.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: [u8; 2],
    /// Echo: the identifier. Errors: unused, or the MTU's upper half.
    pub id: [u8; 2],
    pub rest: [u8; 2],
}

/// A neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4) up to its options.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Neighbour {
    pub icmp: Icmp,
    pub target: [u8; 16],
}

wire!(Ports = 4, Tcp = 20, Udp = 8, Icmp = 8, Neighbour = 24);

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

pub const DHCPV4_SERVER: u16 = 67;
pub const DHCPV4_CLIENT: u16 = 68;
pub const DHCPV6_CLIENT: u16 = 546;
pub const DHCPV6_SERVER: u16 = 547;

pub const ICMP_ECHO_REPLY: u8 = 0;
pub const ICMP_UNREACHABLE: u8 = 3;
pub const ICMP_REDIRECT: u8 = 5;
pub const ICMP_ECHO_REQUEST: u8 = 8;
pub const ICMP_TIME_EXCEEDED: u8 = 11;
pub const ICMP_PARAMETER_PROBLEM: u8 = 12;

pub const ICMPV6_UNREACHABLE: u8 = 1;
pub const ICMPV6_TOO_BIG: u8 = 2;
pub const ICMPV6_TIME_EXCEEDED: u8 = 3;
pub const ICMPV6_PARAMETER_PROBLEM: u8 = 4;
pub const ICMPV6_ECHO_REQUEST: u8 = 128;
pub const ICMPV6_ECHO_REPLY: u8 = 129;
pub const MLD_QUERY: u8 = 130;
pub const MLD_REPORT: u8 = 131;
pub const MLD_DONE: u8 = 132;
pub const ROUTER_ADVERTISEMENT: u8 = 134;
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub const ICMPV6_REDIRECT: u8 = 137;
pub const MLD2_REPORT: u8 = 143;

/// RFC 4861, 4.6.1.
pub const OPTION_SOURCE_LINK_LAYER: u8 = 1;
