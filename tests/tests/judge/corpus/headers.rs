//! What keeps a host on the network, and headers before the transport header.

use pgfw_common::frames::{NETWORK, SYN};

use super::Families::{Both, V4, V6};
use super::Sender::{Allowed, Stranger};
use super::{Entry, data, discovery, entry, neighbour, reply, solicitation, spoiled, to};
use crate::craft::{Ends, seal};
use crate::flow::Setting::{Asked, Nothing, Outbound, Pinged};
use crate::flow::State;

pub(super) const ENTRIES: &[Entry] = &[
    // What keeps a host on the network.
    entry("IGMP", V4, Stranger, Nothing, |f| {
        vec![f.ends.ip(2, vec![0x11, 0, 0xee, 0xff, 0, 0, 0, 0])]
    }),
    entry("a DHCP server's answer", V4, Stranger, Nothing, |f| {
        vec![
            Ends {
                source_port: 67,
                target_port: 68,
                ..f.ends
            }
            .udp(&[2; 240]),
        ]
    }),
    entry("a DHCPv6 server's answer", V6, Stranger, Nothing, |_| {
        vec![
            Ends {
                source: neighbour(),
                target: crate::side::HOST_LINK_LOCAL,
                source_port: 547,
                target_port: 546,
            }
            .udp(&[7; 24]),
        ]
    }),
    entry("a neighbour's solicitation", V6, Stranger, Nothing, |f| {
        vec![discovery(f, 135).hop_limit(255)]
    }),
    entry("a solicitation through a router", V6, Stranger, Nothing, |f| {
        vec![discovery(f, 135).hop_limit(254)]
    }),
    entry("an advertisement", V6, Stranger, Nothing, |f| {
        vec![discovery(f, 136).hop_limit(255)]
    }),
    entry("a router's advertisement", V6, Stranger, Nothing, |_| {
        vec![
            Ends {
                source: neighbour(),
                target: "ff02::1".parse().expect("an address"),
                source_port: 0,
                target_port: 0,
            }
            .icmp(134, 0, &[64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .hop_limit(255),
        ]
    }),
    entry("a router's advertisement from afar", V6, Stranger, Nothing, |f| {
        vec![
            f.ends
                .icmp(134, 0, &[64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                .hop_limit(255),
        ]
    }),
    entry("an ICMPv6 redirect", V6, Stranger, Nothing, |f| {
        vec![discovery(f, 137).hop_limit(255)]
    }),
    entry("a multicast listener query", V6, Stranger, Nothing, |_| {
        vec![
            Ends {
                source: neighbour(),
                target: "ff02::1".parse().expect("an address"),
                source_port: 0,
                target_port: 0,
            }
            .icmp(130, 0, &[0; 20])
            .hop_limit(1),
        ]
    }),
    entry(
        "a multicast listener query from afar",
        V6,
        Stranger,
        Nothing,
        |f| vec![f.ends.icmp(130, 0, &[0; 20]).hop_limit(1)],
    ),
    // Headers.
    entry("options before a SYN", V4, Allowed, Nothing, |f| {
        vec![seal(&to(f, 5432).tcp(SYN, 1, 0, b"").options(10))]
    }),
    entry("six extension headers before a SYN", V6, Allowed, Nothing, |f| {
        vec![
            to(f, 5432)
                .tcp(SYN, 1, 0, b"")
                .extensions(&[0, 60, 60, 60, 60, 60]),
        ]
    }),
    entry(
        "seven extension headers before a SYN",
        V6,
        Allowed,
        Nothing,
        |f| {
            vec![
                to(f, 5432)
                    .tcp(SYN, 1, 0, b"")
                    .extensions(&[0, 60, 60, 60, 60, 60, 60]),
            ]
        },
    ),
    entry("a priority tag before a SYN", Both, Allowed, Nothing, |f| {
        vec![
            to(f, 5432)
                .tcp(SYN, 1, 0, b"")
                .tagged(&[0x8100])
                .bytes(14, &[0, 0]),
        ]
    }),
    entry("three priority tags before a SYN", Both, Allowed, Nothing, |f| {
        vec![
            to(f, 5432)
                .tcp(SYN, 1, 0, b"")
                .tagged(&[0x8100; 3])
                .bytes(14, &[0, 0])
                .bytes(18, &[0, 0])
                .bytes(22, &[0, 0]),
        ]
    }),
    entry("padding after a SYN", Both, Allowed, Nothing, |f| {
        vec![to(f, 5432).tcp(SYN, 1, 0, b"").padded(90)]
    }),
    entry("a protocol that is no service", Both, Allowed, Nothing, |f| {
        vec![f.ends.ip(47, vec![0; 20])]
    }),
    entry(
        "a solicitation with a wrong checksum",
        V6,
        Stranger,
        Nothing,
        |f| vec![spoiled(discovery(f, 135).hop_limit(255))],
    ),
    entry(
        "a solicitation through a router with a wrong checksum",
        V6,
        Stranger,
        Nothing,
        |f| vec![spoiled(discovery(f, 135).hop_limit(255)).byte(NETWORK + 41, 1)],
    ),
    entry("a solicitation without a target", V6, Stranger, Nothing, |f| {
        vec![solicitation(f, neighbour(), &[0; 4])]
    }),
    entry(
        "a solicitation without a target, with a wrong checksum",
        V6,
        Stranger,
        Nothing,
        |f| vec![spoiled(solicitation(f, neighbour(), &[0; 4]))],
    ),
    entry(
        "a solicitation from a mapped address",
        V6,
        Stranger,
        Nothing,
        |f| {
            vec![solicitation(
                f,
                "::ffff:10.20.0.5".parse().expect("an address"),
                &[0; 20],
            )]
        },
    ),
    entry(
        "a router's advertisement from nobody",
        V6,
        Stranger,
        Nothing,
        |f| {
            vec![
                Ends {
                    source: "::".parse().expect("an address"),
                    ..f.ends
                }
                .icmp(134, 0, &[0; 12])
                .hop_limit(255),
            ]
        },
    ),
    entry("a SYN from a mapped address", V6, Stranger, Nothing, |f| {
        vec![
            Ends {
                source: "::ffff:10.20.0.5".parse().expect("an address"),
                ..to(f, 22)
            }
            .tcp(SYN, 1, 0, b""),
        ]
    }),
    entry("a SYN from this network", V4, Stranger, Nothing, |f| {
        vec![
            Ends {
                source: "0.1.2.3".parse().expect("an address"),
                ..to(f, 22)
            }
            .tcp(SYN, 1, 0, b""),
        ]
    }),
    entry(
        "three priority tags before a solicitation",
        V6,
        Stranger,
        Nothing,
        |f| {
            vec![
                discovery(f, 135)
                    .hop_limit(255)
                    .tagged(&[0x8100; 3])
                    .bytes(14, &[0, 0])
                    .bytes(18, &[0, 0])
                    .bytes(22, &[0, 0]),
            ]
        },
    ),
    entry(
        "a payload length of zero before hop-by-hop options",
        V6,
        Stranger,
        Outbound(State::Established),
        |f| vec![data(f).extensions(&[0]).bytes(NETWORK + 4, &[0, 0])],
    ),
    entry("a SYN behind a mobility header", V6, Allowed, Nothing, |f| {
        vec![to(f, 5432).tcp(SYN, 1, 0, b"").extensions(&[135])]
    }),
    entry(
        "a connection's data behind a mobility header",
        V6,
        Stranger,
        Outbound(State::Established),
        |f| vec![data(f).extensions(&[135])],
    ),
    entry("an answer behind a mobility header", V6, Stranger, Asked, |f| {
        vec![f.ends.udp(b"answer").extensions(&[135])]
    }),
    entry(
        "an echo reply behind a mobility header",
        V6,
        Stranger,
        Pinged,
        |f| vec![reply(f).extensions(&[135])],
    ),
    entry(
        "a datagram that is longer than its packet",
        Both,
        Allowed,
        Nothing,
        |f| {
            vec![
                to(f, crate::side::MARKER)
                    .udp(b"hello")
                    .byte(NETWORK + if f.ends.is_v4() { 25 } else { 45 }, 99),
            ]
        },
    ),
];
