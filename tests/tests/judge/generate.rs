//! Cases from a seed: what the host has with the far end, and the packets that come then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pgfw_common::frames::{ACK, ECE, FIN, Frame, IGMP, NETWORK, PSH, RST, SYN, URG};

use crate::corpus::{CORPUS, Entry};
use crate::craft::{Ends, Random, fragment, seal, split};
use crate::flow::{Flow, STATES, Setting, host};
use crate::side::{HOST_LINK_LOCAL, MARKER};

/// One trial: a flow in a setting, and then some packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) number: u64,
    seed: u64,
    entry: Option<&'static Entry>,
    pub(crate) setting: Setting,
    pub(crate) ends: Ends,
}

/// The corpus in both families, then so many cases from the seed.
pub(crate) fn cases(seed: u64, generated: u64) -> Vec<Case> {
    let from_corpus = CORPUS
        .into_iter()
        .flatten()
        .flat_map(|entry| [(entry, true), (entry, false)]);
    let corpus = from_corpus.filter(|(entry, v4)| entry.family.holds(*v4));
    let mut cases = Vec::new();
    for (entry, v4) in corpus {
        let number = cases.len() as u64;
        let mut random = Random::new(seed, number);
        cases.push(Case {
            number,
            seed,
            entry: Some(entry),
            setting: entry.setting,
            ends: ends(&mut random, entry.setting, v4, number, entry.from.is_allowed()),
        });
    }
    let first = cases.len() as u64;
    cases.extend((first..first + generated).map(|number| generated_case(seed, number)));
    cases
}

fn generated_case(seed: u64, number: u64) -> Case {
    let mut random = Random::new(seed, number);
    let setting = match random.below(20) {
        0..=10 => Setting::Nothing,
        11..=13 => Setting::Inbound(random.pick(&STATES)),
        14..=16 => Setting::Outbound(random.pick(&STATES)),
        17..=18 => Setting::Asked,
        _ => Setting::Pinged,
    };
    let (v4, allowed) = (random.one_in(2), random.one_in(2));
    Case {
        number,
        seed,
        entry: None,
        setting,
        ends: ends(&mut random, setting, v4, number, allowed),
    }
}

impl Case {
    pub(crate) fn name(&self) -> &'static str {
        self.entry.map_or("generated", |entry| entry.name)
    }

    /// The packets, which go by the sequence numbers of the host's own flow.
    pub(crate) fn frames(&self, flow: &Flow) -> Vec<Frame> {
        if let Some(entry) = self.entry {
            return (entry.frames)(flow);
        }
        let mut random = Random::new(!self.seed, self.number);
        let frames = match self.setting {
            Setting::Nothing => stray(&mut random, flow),
            Setting::Inbound(_) | Setting::Outbound(_) | Setting::Asked | Setting::Pinged => {
                belonging(&mut random, flow)
            }
        };
        if random.one_in(3) && frames.len() == 1 {
            vec![broken(&mut random, &frames[0])]
        } else {
            frames
        }
    }
}

/// Two ends that no other case has.
fn ends(random: &mut Random, setting: Setting, v4: bool, number: u64, allowed: bool) -> Ends {
    let (high, low) = (random.byte(), 1 + random.byte() % 254);
    let source: IpAddr = match (v4, allowed) {
        (true, true) => Ipv4Addr::new(10, 20, high, low).into(),
        (true, false) => Ipv4Addr::new(172, 16, high, low).into(),
        (false, true) => Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, high.into(), low.into()).into(),
        (false, false) => Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, high.into(), low.into()).into(),
    };
    // Case by case its own, so that no case meets what an earlier one left.
    let own = 20_000 + (number % 40_000) as u16;
    let (source_port, target_port) = match setting {
        Setting::Nothing => (
            own,
            random.pick(&[22, 22, 22, 5432, 5432, 5432, 5431, 5433, 443, MARKER, 40_000]),
        ),
        Setting::Inbound(_) if allowed => (own, random.pick(&[22, 5432])),
        Setting::Inbound(_) => (own, 22),
        Setting::Outbound(_) => (443, own),
        Setting::Asked => (53, own),
        Setting::Pinged => (0, own),
    };
    Ends {
        source,
        target: host(source),
        source_port,
        target_port,
    }
}

const FLAGS: [u8; 16] = [
    SYN,
    SYN,
    SYN,
    ACK,
    SYN | ACK,
    FIN | ACK,
    RST,
    RST | ACK,
    FIN,
    0,
    FIN | PSH | URG,
    SYN | FIN,
    SYN | RST,
    SYN | ECE,
    PSH | ACK,
    PSH,
];

/// Packets that belong to nothing.
fn stray(random: &mut Random, flow: &Flow) -> Vec<Frame> {
    let mut ends = flow.ends;
    if random.one_in(12) {
        ends.source = odd_source(random, ends.is_v4());
    }
    if random.one_in(12) {
        ends.target = odd_target(random, ends.is_v4());
    }
    let frame = match random.below(20) {
        0..=6 => {
            let (flags, sequence, acknowledged) = (random.pick(&FLAGS), random.next(), random.next());
            let data = random.bytes(40);
            ends.tcp(flags, sequence as u32, acknowledged as u32, &data)
        }
        7..=9 => {
            (ends.source_port, ends.target_port) = random.pick(&[
                (ends.source_port, ends.target_port),
                (ends.source_port, MARKER),
                (67, 68),
                (547, 546),
                (53, 40_000),
            ]);
            ends.udp(&random.bytes(40))
        }
        10..=12 => return vec![control(random, &ends)],
        13 => {
            let any = random.byte();
            let protocol = random.pick(&[IGMP, 4, 41, 47, 50, 51, 112, 132, 136, 59, any]);
            ends.ip(protocol, random.bytes(60))
        }
        14..=16 => return vec![error(random, flow, &ends)],
        _ => {
            let whole = if random.one_in(2) {
                ends.tcp(SYN, 1, 0, &[7; 80])
            } else {
                ends.target_port = random.pick(&[MARKER, MARKER, 40_000]);
                ends.udp(&[7; 80])
            };
            return pieces(random, &whole);
        }
    };
    vec![dressed(random, frame)]
}

/// Packets of the flow that the host has, or nearly.
fn belonging(random: &mut Random, flow: &Flow) -> Vec<Frame> {
    let mut ends = flow.ends;
    if random.one_in(6) {
        match random.below(3) {
            0 => ends.source_port ^= 1,
            1 => ends.target_port ^= 1,
            _ => ends.source = beside(ends.source),
        }
    }
    if random.one_in(3) {
        return vec![error(random, flow, &flow.ends)];
    }
    let whole = match flow.setting {
        Setting::Nothing => unreachable!("a stray packet belongs to nothing"),
        Setting::Inbound(_) | Setting::Outbound(_) => {
            let any = random.pick(&FLAGS);
            let flags = random.pick(&[
                ACK,
                ACK,
                ACK,
                SYN | ACK,
                PSH | ACK,
                FIN | ACK,
                RST,
                RST | ACK,
                any,
            ]);
            let near = [0_u32, 0, 0, 0, 1, u32::MAX, 1000, 100_000, random.next() as u32];
            let sequence = flow.sequence.wrapping_add(random.pick(&near));
            let acknowledged = flow.acknowledged.wrapping_add(random.pick(&near));
            let data = random.bytes(100);
            ends.tcp(flags, sequence, acknowledged, &data)
        }
        Setting::Asked => ends.udp(&[7; 80]),
        Setting::Pinged => {
            let mut echo = flow.echo();
            if random.one_in(4) {
                let at = random.below(4);
                echo[at] ^= 1;
            }
            ends.icmp(if ends.is_v4() { 0 } else { 129 }, 0, &echo)
        }
    };
    // The last cut is at byte 48 behind the longest header.
    if whole.0.len() > NETWORK + 40 + 48 && random.one_in(4) {
        return pieces(random, &whole);
    }
    vec![dressed(random, whole)]
}

/// ICMP or ICMPv6 messages other than errors.
fn control(random: &mut Random, ends: &Ends) -> Frame {
    if ends.is_v4() {
        let any = random.byte();
        let kind = random.pick(&[0, 5, 8, 8, 9, 10, 13, 14, 17, 18, any]);
        return ends.icmp(kind, 0, &random.bytes(40));
    }
    let any = random.byte();
    let kind = random.pick(&[
        128, 129, 130, 131, 132, 133, 134, 135, 135, 136, 136, 137, 138, 143, any,
    ]);
    let mut rest = vec![0; 4];
    match ends.target {
        IpAddr::V6(target) => rest.extend(target.octets()),
        IpAddr::V4(_) => {}
    }
    if random.one_in(3) {
        rest = random.bytes(40);
    }
    let mut ends = *ends;
    if random.one_in(2) {
        ends.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 2, random.word()).into();
    }
    let code = if random.one_in(6) { random.byte() } else { 0 };
    let hops = if random.one_in(3) { random.byte() } else { 255 };
    ends.icmp(kind, code, &rest).hop_limit(hops)
}

/// An ICMP error that quotes the flow, or something near it, or nonsense.
fn error(random: &mut Random, flow: &Flow, ends: &Ends) -> Frame {
    let mut quote = flow.quotation();
    match random.below(8) {
        0 => quote = broken(random, &quote),
        1 => quote = quote.cut(NETWORK + random.below(quote.0.len() - NETWORK)),
        2 => {
            let at = NETWORK + random.below(quote.0.len() - NETWORK);
            quote = quote.byte(at, random.byte());
        }
        3 => quote = Frame(random.bytes(80)).padded(NETWORK),
        _ => {}
    }
    let mut ends = *ends;
    // A router on the way, or the far end.
    if random.one_in(2) {
        ends.source = beside(ends.source);
    }
    let kinds: &[u8] = if ends.is_v4() {
        &[3, 3, 3, 11, 12, 4]
    } else {
        &[1, 2, 2, 3, 4, 100]
    };
    let (kind, code) = (random.pick(kinds), random.pick(&[0, 1, 2, 3, 4, 13]));
    ends.icmp(kind, code, &[&[0, 0, 5, 0], quote.packet()].concat())
}

/// A datagram in pieces: whole sets in any order, lone ones, overlapping ones, tiny ones, and an atomic one.
fn pieces(random: &mut Random, whole: &Frame) -> Vec<Frame> {
    let id = random.word();
    match random.below(8) {
        0 => split(whole, id, &[0, 24, 48]),
        1 => {
            let mut all = split(whole, id, &[0, 32]);
            all.reverse();
            all
        }
        2 => split(whole, id, &[0, 8, 32]),
        3 => split(whole, id, &[0, 40]).into_iter().take(1).collect(),
        4 => split(whole, id, &[0, 40]).into_iter().skip(1).collect(),
        5 => {
            let mut all = split(whole, id, &[0, 40]);
            all.insert(1, fragment(whole, id, 24, &[9; 24], true));
            all
        }
        6 => split(whole, id, &[0]),
        _ => {
            // The second half under another number.
            let mut all = split(whole, id, &[0, 40]);
            all[1] = split(whole, id ^ 1, &[0, 40]).remove(1);
            all
        }
    }
}

/// The same with IPv4 options or IPv6 extension headers, sometimes.
fn dressed(random: &mut Random, frame: Frame) -> Frame {
    if !random.one_in(5) {
        return frame;
    }
    if frame.0[NETWORK] >> 4 == 4 {
        let words = 1 + random.below(10) as u8;
        let mut frame = frame.options(words);
        // Record route, timestamp, loose source route, router alert, end of list, or nonsense.
        let option: [u8; 4] = match random.below(7) {
            0 => [7, 3, 4, 0],
            1 => [68, 4, 5, 0],
            2 => [131, 3, 4, 0],
            3 => [148, 4, 0, 0],
            4 => [0, 0, 0, 0],
            5 => [random.byte(), random.byte(), random.byte(), random.byte()],
            _ => [1; 4],
        };
        frame = frame.bytes(NETWORK + 20, &option);
        seal(&frame)
    } else {
        let count = 1 + random.below(7);
        let chain: Vec<u8> = (0..count)
            .map(|n| match (n, random.below(8)) {
                (0, 0..=3) => 0,
                (_, 7) => random.pick(&[50, 59, 135, 51, 43, 44]),
                (_, _) => random.pick(&[60, 60, 60, 43, 51, 44]),
            })
            .collect();
        frame.extensions(&chain)
    }
}

/// The same made wrong in up to three places, cut, padded or tagged.
fn broken(random: &mut Random, frame: &Frame) -> Frame {
    match random.below(6) {
        0 => frame.cut(NETWORK + random.below(frame.0.len() - NETWORK)),
        1 => frame.padded(frame.0.len() + random.below(40)),
        2 => {
            // A priority tag (VLAN 0), which the kernel takes off by itself, once or more, or a real one.
            let tags: &[u16] = random.pick(&[&[0x8100][..], &[0x88a8], &[0x88a8, 0x8100], &[0x8100; 3]]);
            let mut tagged = frame.tagged(tags);
            if !random.one_in(4) {
                for n in 0..tags.len() {
                    tagged = tagged.bytes(14 + 4 * n, &[0, 0]);
                }
            }
            tagged
        }
        3 => {
            let at = if frame.0[NETWORK] >> 4 == 4 { 2 } else { 4 };
            let length = random.pick(&[0, 1, 8, 20, 28, 40, 60, 1400, 0xffff]);
            seal(&frame.bytes(NETWORK + at, &u16::to_be_bytes(length)))
        }
        _ => {
            let mut frame = frame.clone();
            for _ in 0..=random.below(3) {
                let at = NETWORK + random.below((frame.0.len() - NETWORK).min(64));
                frame = frame.byte(at, random.byte());
            }
            // Half of them wrong only behind a right checksum.
            if random.one_in(2) { seal(&frame) } else { frame }
        }
    }
}

fn odd_source(random: &mut Random, v4: bool) -> IpAddr {
    let v4s = [
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.5",
        "255.255.255.255",
        "10.9.0.1",
        "240.0.0.1",
        "10.9.0.255",
        "10.9.0.9",
    ];
    let v6s = [
        "::",
        "::",
        "::1",
        "ff02::1",
        "::ffff:10.20.0.5",
        "fd00:9::1",
        "fe80::9",
        "fd00:9::9",
        "::10.20.0.5",
    ];
    let text = random.pick(if v4 { &v4s } else { &v6s });
    text.parse().expect("an address")
}

fn odd_target(random: &mut Random, v4: bool) -> IpAddr {
    let v4s = [
        "10.9.0.255",
        "255.255.255.255",
        "224.0.0.1",
        "10.9.0.7",
        "127.0.0.1",
    ];
    let v6s = ["ff02::1", "ff02::1:ff00:1", "fd00:9::7", "::1", "ff02::16"];
    if !v4 && random.one_in(2) {
        return HOST_LINK_LOCAL;
    }
    random
        .pick(if v4 { &v4s } else { &v6s })
        .parse()
        .expect("an address")
}

/// The neighbouring address.
pub(crate) fn beside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) ^ 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) ^ 1).into(),
    }
}
