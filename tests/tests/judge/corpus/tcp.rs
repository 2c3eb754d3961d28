//! New connections, scans, and the states of real connections.

use pgfw_common::frames::{ACK, FIN, PSH, RST, SYN, URG};

use super::Families::Both;
use super::Sender::{Allowed, Stranger};
use super::{Entry, data, entry, spoiled, to};
use crate::craft::Ends;
use crate::flow::Setting::{Inbound, Nothing, Outbound};
use crate::flow::State;

pub(super) const ENTRIES: &[Entry] = &[
    // New connections.
    entry(
        "a SYN to PostgreSQL from an allowed network",
        Both,
        Allowed,
        Nothing,
        |f| vec![to(f, 5432).tcp(SYN, 1, 0, b"")],
    ),
    entry(
        "a SYN to PostgreSQL from a stranger",
        Both,
        Stranger,
        Nothing,
        |f| vec![to(f, 5432).tcp(SYN, 1, 0, b"")],
    ),
    entry("a SYN to SSH from a stranger", Both, Stranger, Nothing, |f| {
        vec![to(f, 22).tcp(SYN, 1, 0, b"")]
    }),
    entry(
        "a SYN to a port that is no service",
        Both,
        Allowed,
        Nothing,
        |f| vec![to(f, 5433).tcp(SYN, 1, 0, b"")],
    ),
    entry("a SYN with a wrong checksum", Both, Allowed, Nothing, |f| {
        vec![spoiled(to(f, 5432).tcp(SYN, 1, 0, b""))]
    }),
    // Scans.
    entry("an ACK to SSH", Both, Stranger, Nothing, |f| {
        vec![to(f, 22).tcp(ACK, 1, 1, b"")]
    }),
    entry(
        "an ACK to PostgreSQL from an allowed network",
        Both,
        Allowed,
        Nothing,
        |f| vec![to(f, 5432).tcp(ACK, 1, 1, b"")],
    ),
    entry(
        "an ACK to PostgreSQL from a stranger",
        Both,
        Stranger,
        Nothing,
        |f| vec![to(f, 5432).tcp(ACK, 1, 1, b"")],
    ),
    entry("a FIN to SSH", Both, Stranger, Nothing, |f| {
        vec![to(f, 22).tcp(FIN, 1, 1, b"")]
    }),
    entry("a FIN and ACK to SSH", Both, Stranger, Nothing, |f| {
        vec![to(f, 22).tcp(FIN | ACK, 1, 1, b"")]
    }),
    entry(
        "a SYN and ACK to PostgreSQL from an allowed network",
        Both,
        Allowed,
        Nothing,
        |f| vec![to(f, 5432).tcp(SYN | ACK, 1, 1, b"")],
    ),
    entry("an RST to SSH", Both, Stranger, Nothing, |f| {
        vec![to(f, 22).tcp(RST, 1, 1, b"")]
    }),
    entry(
        "an RST to PostgreSQL from an allowed network",
        Both,
        Allowed,
        Nothing,
        |f| vec![to(f, 5432).tcp(RST, 1, 1, b"")],
    ),
    entry("a NULL segment", Both, Allowed, Nothing, |f| {
        vec![to(f, 5432).tcp(0, 1, 1, b"")]
    }),
    entry("a Christmas tree", Both, Allowed, Nothing, |f| {
        vec![to(f, 5432).tcp(FIN | PSH | URG, 1, 1, b"")]
    }),
    entry("a SYN and FIN", Both, Allowed, Nothing, |f| {
        vec![to(f, 5432).tcp(SYN | FIN, 1, 1, b"")]
    }),
    // Connections.
    entry(
        "the last ACK of a handshake",
        Both,
        Allowed,
        Inbound(State::Half),
        |f| vec![f.segment(ACK)],
    ),
    entry("a repeated SYN", Both, Allowed, Inbound(State::Half), |f| {
        vec![f.ends.tcp(SYN, f.sequence - 1, 0, b"")]
    }),
    entry(
        "data on a connection",
        Both,
        Stranger,
        Inbound(State::Established),
        |f| vec![data(f)],
    ),
    entry(
        "data far outside the window",
        Both,
        Allowed,
        Inbound(State::Established),
        |f| vec![f.ends.tcp(ACK, f.sequence ^ 0x4000_0000, f.acknowledged, b"?")],
    ),
    entry(
        "an RST outside the window",
        Both,
        Allowed,
        Inbound(State::Established),
        |f| vec![f.ends.tcp(RST, f.sequence ^ 0x4000_0000, 0, b"")],
    ),
    entry(
        "a SYN on a connection",
        Both,
        Stranger,
        Inbound(State::Established),
        |f| vec![f.ends.tcp(SYN, 77, 0, b"")],
    ),
    entry(
        "data with a wrong checksum",
        Both,
        Allowed,
        Inbound(State::Established),
        |f| vec![spoiled(data(f))],
    ),
    entry(
        "a FIN without ACK on a connection",
        Both,
        Allowed,
        Outbound(State::Established),
        |f| vec![f.segment(FIN)],
    ),
    entry(
        "the answer to our SYN",
        Both,
        Stranger,
        Outbound(State::Half),
        |f| vec![f.segment(SYN | ACK)],
    ),
    entry(
        "the answer to our SYN from another port",
        Both,
        Stranger,
        Outbound(State::Half),
        |f| {
            vec![
                Ends {
                    source_port: 444,
                    ..f.ends
                }
                .tcp(SYN | ACK, f.sequence, f.acknowledged, b""),
            ]
        },
    ),
    entry(
        "a refusal of our SYN",
        Both,
        Stranger,
        Outbound(State::Half),
        |f| vec![f.segment(RST | ACK)],
    ),
    entry("a simultaneous SYN", Both, Stranger, Outbound(State::Half), |f| {
        vec![f.ends.tcp(SYN, f.sequence, 0, b"")]
    }),
    entry(
        "data from the far end",
        Both,
        Stranger,
        Outbound(State::Established),
        |f| vec![data(f)],
    ),
    entry(
        "a FIN again in TIME_WAIT",
        Both,
        Stranger,
        Outbound(State::TimeWait),
        |f| vec![f.ends.tcp(FIN | ACK, f.sequence - 1, f.acknowledged, b"")],
    ),
    entry(
        "a stranger's SYN on a tuple in TIME_WAIT",
        Both,
        Stranger,
        Outbound(State::TimeWait),
        |f| vec![f.ends.tcp(SYN, f.sequence + 100_000, 0, b"")],
    ),
    entry(
        "a late segment after an RST",
        Both,
        Stranger,
        Outbound(State::Reset),
        |f| vec![f.segment(ACK)],
    ),
];
