//! Services of protocols beyond TCP and UDP, with ports and without.

use pgfw_common::frames::Frame;
use pgfw_tests::lab::{Namespace, Site, Wire, address};

use super::{DENY_ALL, configured, counts};

const SCTP: u8 = 132;
const VRRP: u8 = 112;

const SERVICES: &str = r#"
[[service]]
name = "diameter"
protocol = "sctp"
ports = ["3868-3869"]
allow = ["10.20.0.0/16", "fd00:20::/64"]

[[service]]
name = "vrrp"
protocol = "vrrp"
allow = ["10.20.0.0/16", "fd00:20::/64"]
"#;

/// A packet that begins with two ports, as SCTP does.
fn send(from: &Namespace, source: std::net::IpAddr, protocol: u8, port: u16) {
    let to = if source.is_ipv4() {
        address::DB
    } else {
        address::DB_V6
    };
    let payload = [&[0x12, 0x34][..], &port.to_be_bytes(), &[0; 12]].concat();
    let frame = Frame::ip(&source.to_string(), &to.to_string(), protocol, &payload);
    Wire::packets(from, source, to).packet(frame.packet());
}

#[test]
fn a_protocol_with_ports_is_open_at_its_ports_and_one_without_altogether() {
    let site = Site::new();
    let pgfw = configured(&site, &format!("{DENY_ALL}{SERVICES}"));
    let _daemon = pgfw.enforce();
    let (mut open, mut closed, mut unknown) = (0, 0, 0);
    for (client, stranger) in [
        (address::CLIENT, address::STRANGER),
        (address::CLIENT_V6, address::STRANGER_V6),
    ] {
        for (protocol, port, is_service) in [
            (SCTP, 3868, true),
            (SCTP, 3869, true),
            (SCTP, 3867, false),
            (SCTP, 3870, false),
            (VRRP, 3867, true),
            (VRRP + 1, 3868, false),
        ] {
            send(&site.client, client, protocol, port);
            send(&site.stranger, stranger, protocol, port);
            if is_service {
                open += 1;
                closed += 1;
            } else {
                unknown += 2;
            }
            for (reason, packets) in [
                ("service", open),
                ("service-closed", closed),
                ("protocol", unknown),
            ] {
                counts(&pgfw, reason, packets);
            }
            // `pgfw check` says the same.
            let asks = |source: std::net::IpAddr| {
                let (source, port, protocol) = (source.to_string(), port.to_string(), protocol.to_string());
                pgfw.ok(&["check", &source, "--port", &port, "--protocol", &protocol])
            };
            let (to_client, to_stranger) = if is_service {
                ("pass: service ", "drop: service-closed ")
            } else {
                ("drop: protocol ", "drop: protocol ")
            };
            assert!(asks(client).starts_with(to_client), "{protocol}, {port}");
            assert!(asks(stranger).starts_with(to_stranger), "{protocol}, {port}");
        }
    }
}
