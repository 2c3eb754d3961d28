//! The corpus through the host-side decision. The compiled program says the same in tests/prog.

use std::collections::BTreeSet;
use std::string::ToString;
use std::vec::Vec;

use crate::host::corpus::{Wanted, rows};
use crate::host::scene::{ARRIVAL, Switches, world};
use crate::reason::Reason;

#[test]
fn every_packet_of_the_corpus_gets_its_verdict() {
    let worlds = Switches::BOTH.map(world);
    let wrong: Vec<_> = rows()
        .into_iter()
        .filter_map(|row| {
            let found = worlds
                .each_ref()
                .map(|world| Wanted::from(world.ask(&row.frame.0, ARRIVAL)));
            (found != row.wanted).then(|| (row.line, row.what, found.map(|found| found.to_string())))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What no single frame of at least an Ethernet header can bring about in the scene; each has tests of its own.
const ELSEWHERE: [Reason; 5] = [
    Reason::Unenforced,
    Reason::EmptySlot,
    Reason::EthernetTruncated,
    Reason::SynCookie,
    Reason::GateLimit,
];

#[test]
fn the_corpus_shows_every_reason() {
    let shown: BTreeSet<Reason> = rows()
        .iter()
        .flat_map(|row| row.wanted)
        .map(|wanted| wanted.reason)
        .collect();
    let missing: Vec<Reason> = Reason::ALL
        .into_iter()
        .filter(|reason| !shown.contains(reason) && !ELSEWHERE.contains(reason))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn no_packet_stands_in_the_corpus_twice() {
    let mut frames = BTreeSet::new();
    for row in rows() {
        assert!(
            frames.insert(row.frame.0.clone()),
            "line {}: {}",
            row.line,
            row.what
        );
    }
}
