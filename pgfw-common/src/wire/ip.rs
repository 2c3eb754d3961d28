//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::wire;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length: [u8; 2],
    pub id: [u8; 2],
    /// Three flags, then the offset in units of eight bytes.
    pub fragment: [u8; 2],
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: [u8; 2],
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ipv6 {
    pub version_class_flow: [u8; 4],
    pub payload_length: [u8; 2],
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [u8; 16],
    pub destination: [u8; 16],
}

/// How every IPv6 extension header begins; the unit of `length` depends on the header.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Extension {
    pub next_header: u8,
    pub length: u8,
}

/// RFC 8200, 4.5.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FragmentHeader {
    pub next_header: u8,
    pub reserved: u8,
    /// Offset in units of eight bytes (13 bits), two reserved bits, "more fragments".
    pub offset_more: [u8; 2],
    pub id: [u8; 4],
}

wire!(Ipv4 = 20, Extension = 2, FragmentHeader = 8);
wire!(8; Ipv6 = 40);

pub const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
pub const IPV4_OFFSET: u16 = 0x1fff;
pub const IPV6_MORE_FRAGMENTS: u16 = 0x0001;
pub const IPV6_OFFSET: u16 = 0xfff8;

// IANA protocol numbers.
pub const HOP_BY_HOP: u8 = 0;
pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const ICMPV6: u8 = 58;
pub const DESTINATION_OPTIONS: u8 = 60;
pub const SCTP: u8 = 132;
pub const MOBILITY: u8 = 135;
pub const UDP_LITE: u8 = 136;
