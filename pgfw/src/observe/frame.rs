//! Frames for `pgfw check`: built from an address and a port, or given as hex.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, PacketBuilder};

use crate::failure::Failure;

/// What kind of packet to ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The first segment of a connection.
    TcpSyn,
    /// A segment in the middle of one.
    TcpAck,
    Udp,
    /// Any other IP protocol, by its number.
    Other(u8),
}

/// A whole Ethernet frame from `source` to `port` of this host.
///
/// The destination address stands for "this host" (it is one of the documentation networks of RFC 5737 and 3849):
/// the decision looks at it only to find sockets.
pub fn build(source: IpAddr, port: u16, transport: Transport) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(SENDER, RECEIVER);
    let net = match source {
        IpAddr::V4(source) => link.ipv4(source.octets(), HOST_V4.octets(), 64),
        IpAddr::V6(source) => link.ipv6(source.octets(), HOST_V6.octets(), 64),
    };
    let mut frame = Vec::new();
    let written = match transport {
        Transport::TcpSyn => net
            .tcp(EPHEMERAL_PORT, port, 1, 64240)
            .syn()
            .write(&mut frame, &[]),
        Transport::TcpAck => net
            .tcp(EPHEMERAL_PORT, port, 1, 64240)
            .ack(1)
            .write(&mut frame, &[]),
        Transport::Udp => net.udp(EPHEMERAL_PORT, port).write(&mut frame, &[0; 8]),
        // Those with ports begin with them; to the others they are bytes like any.
        Transport::Other(protocol) => {
            let ports = [EPHEMERAL_PORT.to_be_bytes(), port.to_be_bytes()].concat();
            net.write(&mut frame, IpNumber(protocol), &[&ports[..], &[0; 16]].concat())
        }
    };
    written.expect("writing into a vector does not fail");
    frame
}

/// A neighbour that tells where it is: an ARP reply, or a neighbour advertisement (RFC 4861, 4.4).
pub fn neighbour(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => {
            let head = [&RECEIVER[..], &SENDER, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 2]].concat();
            [&head[..], &SENDER, &v4.octets(), &RECEIVER, &HOST_V4.octets()].concat()
        }
        IpAddr::V6(v6) => {
            let mut frame = Vec::new();
            let advertisement = PacketBuilder::ethernet2(SENDER, RECEIVER)
                .ipv6(v6.octets(), HOST_V6.octets(), 255)
                .icmpv6_raw(136, 0, [0x60, 0, 0, 0]);
            let target = [&v6.octets()[..], &[2, 1], &SENDER].concat();
            advertisement
                .write(&mut frame, &target)
                .expect("writing into a vector does not fail");
            frame
        }
    }
}

/// What the server of a DHCP lease answers to a renewal: from its port to the client's.
pub fn dhcp_answer(server: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SENDER, RECEIVER)
        .ipv4(server.octets(), HOST_V4.octets(), 64)
        .udp(67, 68)
        .write(&mut frame, &[0; 240])
        .expect("writing into a vector does not fail");
    frame
}

/// The kernel's BPF_PROG_TEST_RUN takes no less than an Ethernet header …
pub const SHORTEST: usize = 14;
/// … and, here, no more than a page with the room that it keeps around a frame.
pub const LONGEST: usize = 3_500;

/// Whether a policy can be asked about a frame of this length.
pub fn can_be_asked(length: usize) -> bool {
    (SHORTEST..=LONGEST).contains(&length)
}

/// A frame to ask about as hex; blanks and colons between the bytes do not matter.
///
/// # Errors
/// What is not hex, or too short or long to be asked about.
pub fn from_hex(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes = from_digits(text)?;
    if can_be_asked(bytes.len()) {
        return Ok(bytes);
    }
    Err(Failure::invalid(
        format!("the packet has {} bytes", bytes.len()),
        format!("A frame has {SHORTEST} to {LONGEST} bytes here, the Ethernet header included."),
    ))
}

/// Bytes of any number as hex, written as for [`from_hex`].
///
/// # Errors
/// What is not hex.
pub fn from_digits(text: &str) -> Result<Vec<u8>, Failure> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let bad = || {
        Failure::invalid(
            "the packet is not written as hex",
            "Write two digits a byte, from the Ethernet header on, like 02000000000202000000000108004500…",
        )
    };
    if !digits.len().is_multiple_of(2) {
        return Err(bad());
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| {
            Some(u8::try_from(pair[0].to_digit(16)? * 16 + pair[1].to_digit(16)?).expect("two digits"))
        })
        .collect();
    bytes.ok_or_else(bad)
}

/// The same, back.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const EPHEMERAL_PORT: u16 = 54321;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_there_and_back_and_refuses_what_is_none() {
        let frame = build("10.0.0.1".parse().expect("an address"), 5432, Transport::TcpSyn);
        assert_eq!(from_hex(&to_hex(&frame)).expect("hex"), frame);
        assert_eq!(
            from_hex(" 02:00 000000020200000000010806").expect("hex").len(),
            14
        );
        for bad in ["0", "zz", "0200", "é0"] {
            assert!(from_hex(bad).is_err(), "{bad}");
        }
    }
}
