//! Whether the size of a policy changes what a packet takes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ipnet::IpNet;
use pgfw_common::frames::SYN;
use pgfw_common::reason::Reason;
use pgfw_tests::bench::Bench;

use crate::machine::Pinned;
use crate::packet::{length, segment};
use crate::policies::{enforced, for_days, guarded};
use crate::race::{Race, frags, shared};
use crate::report::{Report, Row, Samples, Table, Unit};
use crate::source::{Family, Source, networks};
use crate::{Options, kernel, question};

/// Beyond this only the figures are wanted.
const PROMISED: usize = 100_000;

pub(crate) fn run(report: &mut Report, options: &Options) {
    let _core = Pinned::to(0);
    for family in Family::BOTH {
        let mut table = Table::new(
            "flat",
            &format!("{}: the number of networks", family.name()),
            "SYNs to 5432 through the entry. Refused: from anywhere (where a million networks are allowed, every \
             fifteenth address is in one of them). Allowed: from one of the networks, drawn anew for each packet. Beside \
             each the kernel's trie with the same keys, one lookup and nothing else.",
        );
        let sizes: &[usize] = options.pick(&[10, 1_000, 10_000, 100_000, 1_000_000], &[10, 1_000, 100_000]);
        for size in sizes {
            let (nets, drawn) = networks(family, *size, length(family));
            let name = format!("{} {}", thousands(*size), nets_of(family));
            measure(&mut table, options, family, &name, nets, drawn, *size <= PROMISED);
        }
        let (nets, drawn) = networks(family, PROMISED, mixed(family));
        let name = format!("{} of mixed lengths", thousands(PROMISED));
        measure(&mut table, options, family, &name, nets, drawn, false);
        report.add(table);
    }
}

fn nets_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "/24",
        Family::V6 => "/48",
    }
}

/// As in a list that has grown for years: a few wide networks, many single hosts.
fn mixed(family: Family) -> impl Fn(u32) -> u8 {
    move |number| {
        let share = number.wrapping_mul(0x9e37_79b1) >> 16 & 0xff;
        match (family, number, share) {
            (Family::V4, 0, _) => 8,
            (Family::V4, 1..8, _) => 12,
            (Family::V4, 8..64, _) => 16,
            (Family::V4, _, 0..128) => 32,
            (Family::V4, _, 128..204) => 24,
            (Family::V4, _, 204..230) => 28,
            (Family::V4, _, 230..243) => 22,
            (Family::V4, _, _) => 20,
            (Family::V6, 0, _) => 32,
            (Family::V6, 1..64, _) => 40,
            (Family::V6, _, 0..102) => 128,
            (Family::V6, _, 102..179) => 64,
            (Family::V6, _, 179..230) => 48,
            (Family::V6, _, _) => 56,
        }
    }
}

fn measure(
    table: &mut Table,
    options: &Options,
    family: Family,
    name: &str,
    nets: std::collections::BTreeSet<IpNet>,
    drawn: u64,
    promised: bool,
) {
    let trie = trie(family, &nets);
    let bench = enforced(&guarded(nets, for_days()));
    let bare = question::in_trie(family, trie.as_fd(), frags(&bench));
    let syn = segment(family, 5432, SYN);
    let (anyone, listed) = (Source::random(family), Source::among(family, drawn));
    let mut race = Race::new(&bench, options);
    let refused = race.entry(&bench, anyone, &syn, Reason::ServiceClosed);
    let allowed = race.entry(&bench, listed, &syn, Reason::Service);
    let refused_trie = race.program(&bench, &bare, anyone, &syn);
    let allowed_trie = race.program(&bench, &bare, listed, &syn);
    let results = race.run(options);
    let limit = match family {
        Family::V4 => 80.0,
        Family::V6 => 140.0,
    };
    let beside = |number| format!("trie {:.1}", results.of(number).median());
    for (what, number, trie, limit) in [
        ("refused", refused, refused_trie, 30.0),
        ("allowed", allowed, allowed_trie, limit),
    ] {
        let row =
            Row::new(format!("{name}, {what}"), Unit::OverEmpty, results.of(number)).beside(beside(trie));
        table.row(if promised { row.at_most(limit) } else { row });
    }
    let mebibytes = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    table.row(
        Row::new(
            format!("{name}, memory"),
            Unit::Mebibytes,
            Samples::one(mebibytes(tables(&bench))),
        )
        .beside(format!(
            "trie {:.1}",
            mebibytes(kernel::memory(trie.as_fd()).unwrap_or(0))
        )),
    );
}

/// The same keys in a trie of the kernel's.
fn trie(family: Family, nets: &std::collections::BTreeSet<IpNet>) -> OwnedFd {
    let entries = u32::try_from(nets.len()).expect("as many networks as a map takes");
    let trie = kernel::trie(u32::from(family.bytes()), entries);
    for net in nets {
        let mut key = u32::from(net.prefix_len()).to_ne_bytes().to_vec();
        match net {
            IpNet::V4(net) => key.extend(net.network().octets()),
            IpNet::V6(net) => key.extend(net.network().octets()),
        }
        kernel::put(trie.as_fd(), &key, &1_u64.to_ne_bytes());
    }
    trie
}

/// What the tables of the policy take: those of this generation, not those that all share.
fn tables(bench: &Bench) -> u64 {
    let folder = shared(bench).join(format!("gen-{}", bench.generation));
    pins(&folder)
}

fn pins(folder: &Path) -> u64 {
    let entries = folder.read_dir().expect("the generation's pins");
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => pins(&entry.path()),
            // A program says the same of itself, in pages.
            Ok(_) | Err(_) => kernel::memory(kernel::pinned(&entry.path()).as_fd()).unwrap_or(0),
        })
        .sum()
}

pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
