use pgfw_common::record::GATE_SYNS_PER_SECOND;

use super::*;
use crate::ops::{BETWEEN_RENEWALS, LEASES, LEASES_PER_IDENTITY};

/// docs/gate.md says by what number each thing is bounded.
#[test]
fn the_document_has_the_numbers_of_the_code() {
    let text = include_str!("../../../docs/gate.md");
    let (handshake, request, life) = (HANDSHAKE.as_secs(), REQUEST.as_secs(), LIFE.as_secs());
    assert_eq!(HEAD, BODY);
    for row in [
        format!("| {GATE_SYNS_PER_SECOND} a second on each processor"),
        format!("| connections of one source (an IPv4 address, an IPv6 /64) | {PER_SOURCE} |"),
        format!("| connections that have shown no certificate | {STRANGERS};"),
        format!("| connections that have | {HOLDERS},"),
        format!("| a handshake | {handshake} s |"),
        format!("| {request} s each; {HEAD} bytes each, {HEADERS} headers |"),
        format!("| a connection | {life} s |"),
        format!("| a certificate chain | {CHAIN} bytes |"),
        format!("| requests at the daemon | {AT_THE_DAEMON} at a time |"),
        format!("| {LEASES_PER_IDENTITY} of one identity, {LEASES} in all;"),
        format!("| one in {BETWEEN_RENEWALS} s |"),
    ] {
        assert!(text.contains(&row), "docs/gate.md lacks: {row}");
    }
}
