//! A policy's settings as words of a table, so that a generation can be made again from what is in the kernel.

use pgfw_common::record::{MAX_ETHER_TYPES, Settings};

/// EtherTypes in a word.
const PER_WORD: usize = 4;
const WORDS: usize = 2 + MAX_ETHER_TYPES / PER_WORD;

pub(super) fn words(settings: &Settings) -> [u64; WORDS] {
    let Settings {
        hz,
        audit,
        echo,
        dhcp_client,
        track,
        stp,
        pad: _,
        gate_port,
        ether_types,
    } = *settings;
    let mut words = [0; WORDS];
    words[0] = u64::from(hz);
    let gate = gate_port.to_le_bytes();
    words[1] = u64::from_le_bytes([audit, echo, dhcp_client, track, stp, 0, gate[0], gate[1]]);
    for (word, four) in words[2..].iter_mut().zip(ether_types.chunks_exact(PER_WORD)) {
        for (place, ether_type) in four.iter().enumerate() {
            *word |= u64::from(*ether_type) << (place * 16);
        }
    }
    words
}

pub(super) fn from_words(words: impl Iterator<Item = u64>) -> Settings {
    let mut read = [0; WORDS];
    for (to, word) in read.iter_mut().zip(words) {
        *to = word;
    }
    let [audit, echo, dhcp_client, track, stp, _, gate_low, gate_high] = read[1].to_le_bytes();
    Settings {
        hz: u32::try_from(read[0]).unwrap_or(u32::MAX),
        audit,
        echo,
        dhcp_client,
        track,
        stp,
        pad: 0,
        gate_port: u16::from_le_bytes([gate_low, gate_high]),
        ether_types: std::array::from_fn(|place| {
            (read[2 + place / PER_WORD] >> (place % PER_WORD * 16) & 0xffff) as u16
        }),
    }
}
