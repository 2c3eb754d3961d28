//! Who sends what to whom, as far as a frame's first bytes tell.

use std::net::IpAddr;

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use crate::api::Flow;

/// Reads leniently: what is told here is for people, and events hold a frame's head only.
pub fn flow(head: &[u8]) -> Flow {
    let mut flow = Flow::default();
    let Ok(packet) = LaxSlicedPacket::from_ethernet(head) else {
        return flow;
    };
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            flow.source = Some(IpAddr::V4(ip.header().source_addr()));
            flow.destination = Some(IpAddr::V4(ip.header().destination_addr()));
            flow.protocol = Some(protocol(ip.payload().ip_number));
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            flow.source = Some(IpAddr::V6(ip.header().source_addr()));
            flow.destination = Some(IpAddr::V6(ip.header().destination_addr()));
            flow.protocol = Some(protocol(ip.payload().ip_number));
        }
        Some(LaxNetSlice::Arp(_)) => flow.protocol = Some("arp".into()),
        None => {
            flow.protocol = head
                .get(12..14)
                .map(|bytes| format!("0x{:02x}{:02x}", bytes[0], bytes[1]));
        }
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            flow.source_port = Some(tcp.source_port());
            flow.destination_port = Some(tcp.destination_port());
        }
        Some(TransportSlice::Udp(udp)) => {
            flow.source_port = Some(udp.source_port());
            flow.destination_port = Some(udp.destination_port());
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => {}
    }
    flow
}

fn protocol(number: IpNumber) -> String {
    match number {
        IpNumber::TCP => "tcp".into(),
        IpNumber::UDP => "udp".into(),
        IpNumber::ICMP => "icmp".into(),
        IpNumber::IPV6_ICMP => "icmpv6".into(),
        IpNumber::IGMP => "igmp".into(),
        IpNumber(number) => format!("protocol {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::frame::{Transport, build};

    #[test]
    fn ends_are_found_in_a_head_that_is_cut() {
        for source in ["198.51.100.7", "2001:db8::7"] {
            let source: IpAddr = source.parse().expect("an address");
            let mut frame = build(source, 5432, Transport::TcpSyn);
            frame.truncate(frame.len() - 2);
            let flow = flow(&frame);
            assert_eq!(
                (flow.source, flow.protocol.as_deref()),
                (Some(source), Some("tcp"))
            );
            assert_eq!(flow.destination.map(|d| d.is_ipv4()), Some(source.is_ipv4()));
        }
        let whole = flow(&build(
            "10.0.0.1".parse().expect("an address"),
            53,
            Transport::Udp,
        ));
        assert_eq!(
            (whole.source_port, whole.destination_port),
            (Some(54321), Some(53))
        );
    }

    #[test]
    fn what_is_no_ip_is_named_by_its_ether_type() {
        let mut lldp = vec![1; 60];
        lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
        assert_eq!(flow(&lldp).protocol.as_deref(), Some("0x88cc"));
        assert_eq!(flow(&[0; 5]), Flow::default());
    }
}
