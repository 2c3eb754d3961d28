//! UDP, echo, fragments, and ICMP errors.

use pgfw_common::frames::SYN;

use super::Families::{Both, V4, V6};
use super::Sender::{Allowed, Stranger};
use super::{Entry, entry, reply, spoiled, to, unreachable};
use crate::craft::{Ends, split};
use crate::flow::Setting::{Asked, Inbound, Nothing, Outbound, Pinged};
use crate::flow::State;
use crate::generate::beside;

pub(super) const ENTRIES: &[Entry] = &[
    // UDP and echo.
    entry("an answer to our datagram", Both, Stranger, Asked, |f| {
        vec![f.ends.udp(b"answer")]
    }),
    entry("a guess at our datagram's port", Both, Stranger, Asked, |f| {
        vec![
            Ends {
                source: beside(f.ends.source),
                ..f.ends
            }
            .udp(b"guess"),
        ]
    }),
    entry("a datagram to nobody", Both, Stranger, Nothing, |f| {
        vec![to(f, 40_000).udp(b"hello")]
    }),
    entry("an answer with a wrong checksum", Both, Stranger, Asked, |f| {
        vec![spoiled(f.ends.udp(b"answer"))]
    }),
    entry("an answer in two fragments", Both, Stranger, Asked, |f| {
        split(&f.ends.udp(&[7; 80]), 7, &[0, 40])
    }),
    entry(
        "an answer in two fragments, the second first",
        Both,
        Stranger,
        Asked,
        |f| {
            let mut all = split(&f.ends.udp(&[7; 80]), 8, &[0, 40]);
            all.reverse();
            all
        },
    ),
    entry(
        "a SYN in two fragments from an allowed network",
        Both,
        Allowed,
        Nothing,
        |f| split(&to(f, 5432).tcp(SYN, 1, 0, &[7; 80]), 9, &[0, 40]),
    ),
    entry(
        "a SYN whose header is cut by a fragment",
        Both,
        Allowed,
        Nothing,
        |f| split(&to(f, 5432).tcp(SYN, 1, 0, &[7; 80]), 10, &[0, 8]),
    ),
    entry("an atomic fragment", V6, Allowed, Nothing, |f| {
        split(&to(f, 5432).tcp(SYN, 1, 0, b""), 11, &[0])
    }),
    entry("the answer to our ping", Both, Stranger, Pinged, |f| {
        vec![reply(f)]
    }),
    entry("an answer to no ping", Both, Stranger, Nothing, |f| {
        vec![reply(f)]
    }),
    entry("a ping", Both, Stranger, Nothing, |f| {
        vec![f.ends.icmp(if f.ends.is_v4() { 8 } else { 128 }, 0, &f.echo())]
    }),
    // Errors.
    entry(
        "an error about a connection",
        Both,
        Stranger,
        Inbound(State::Established),
        |f| vec![unreachable(f, &f.quotation())],
    ),
    entry(
        "an error about our SYN",
        Both,
        Stranger,
        Outbound(State::Half),
        |f| vec![unreachable(f, &f.quotation())],
    ),
    entry("an error about our datagram", Both, Stranger, Asked, |f| {
        vec![unreachable(f, &f.quotation())]
    }),
    entry("an error about our ping", Both, Stranger, Pinged, |f| {
        vec![unreachable(f, &f.quotation())]
    }),
    entry("an error about nothing", Both, Stranger, Nothing, |f| {
        vec![unreachable(f, &f.quotation())]
    }),
    entry(
        "an error about a half-open connection",
        Both,
        Stranger,
        Inbound(State::Half),
        |f| vec![unreachable(f, &f.quotation())],
    ),
    entry(
        "an error about a connection that was reset",
        Both,
        Stranger,
        Outbound(State::Reset),
        |f| vec![unreachable(f, &f.quotation())],
    ),
    entry("a redirect", V4, Stranger, Inbound(State::Established), |f| {
        vec![
            f.ends
                .icmp(5, 1, &[&[10, 9, 0, 77], f.quotation().packet()].concat()),
        ]
    }),
    entry(
        "source quench about a connection",
        V4,
        Stranger,
        Inbound(State::Established),
        |f| vec![f.ends.icmp(4, 0, &[&[0; 4], f.quotation().packet()].concat())],
    ),
];
