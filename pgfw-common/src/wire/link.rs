//! Ethernet II, 802.1Q tags, and the 802.2 header that spanning tree uses.

use super::wire;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ethernet {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub ether_type: [u8; 2],
}

/// The last part of [`Ethernet`], which is all that most frames are asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EtherType(pub [u8; 2]);

/// What follows a tag's EtherType (IEEE 802.1Q).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Vlan {
    pub tci: [u8; 2],
    pub ether_type: [u8; 2],
}

/// IEEE 802.2: what follows a length field in place of an EtherType.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Llc {
    pub dsap: u8,
    pub ssap: u8,
    pub control: u8,
}

wire!(Ethernet = 14, EtherType = 2, Vlan = 4, Llc = 3);

pub const ETHER_IPV4: u16 = 0x0800;
pub const ETHER_ARP: u16 = 0x0806;
pub const ETHER_IPV6: u16 = 0x86dd;
pub const ETHER_8021Q: u16 = 0x8100;
pub const ETHER_8021AD: u16 = 0x88a8;
/// Values up to this are a length, not a type (IEEE 802.3, 3.2.6).
pub const ETHER_LENGTH_MAX: u16 = 0x05dc;

/// Where bridges send spanning-tree frames (IEEE 802.1D, table 7-10).
pub const STP_DESTINATION: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00];
