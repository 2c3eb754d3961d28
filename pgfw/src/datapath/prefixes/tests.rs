//! The table beside a list of prefixes that is searched from end to end, over random changes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use pgfw_common::prefixes::{Lines, Plan, Sieved};

use super::build::Index;
use super::*;

/// Addresses of few bits, so that prefixes meet: at the root's end, the nodes' ends and the address's.
fn prefix() -> impl Strategy<Value = Prefix> {
    let length = prop_oneof![
        0_u8..=128,
        (0_u8..=16).prop_map(|eighth| eighth * 8),
        Just(32),
        Just(24)
    ];
    (1_u16..=2, any::<bool>(), address(), length).prop_map(|(service, v4, address, length)| {
        let (family, length) = if v4 {
            (Family::V4, length.min(32))
        } else {
            (Family::V6, length)
        };
        Prefix {
            service,
            family,
            key: cut(address, u32::from(length)),
            length,
        }
    })
}

fn address() -> impl Strategy<Value = Key> {
    let byte = || prop_oneof![Just(0_u8), Just(1), Just(2), Just(255), any::<u8>()];
    proptest::array::uniform16(byte()).prop_map(|bytes| key(u128::from_be_bytes(bytes)))
}

fn key(bits: u128) -> Key {
    Key {
        high: (bits >> 64) as u64,
        low: bits as u64,
    }
}

fn bits(key: Key) -> u128 {
    u128::from(key.high) << 64 | u128::from(key.low)
}

fn cut(address: Key, length: u32) -> Key {
    key(bits(address) & u128::MAX.checked_shl(128 - length).unwrap_or(0))
}

fn coverage(prefix: &Prefix, allow: u64) -> Coverage {
    Coverage {
        deny_until: 7,
        allow_until: allow,
        deny_boot: 3,
        allow_boot: 4,
        flags: u32::from(allow.is_multiple_of(2)),
        prefix_length: u32::from(prefix.length),
    }
}

/// The answer without any table.
fn naive(
    model: &BTreeMap<Prefix, Coverage>,
    service: u16,
    family: Family,
    address: Key,
) -> Option<(Prefix, Coverage)> {
    model
        .iter()
        .filter(|(p, _)| p.service == service && p.family == family)
        .filter(|(p, _)| cut(address, u32::from(p.length)) == p.key)
        .max_by_key(|(p, _)| p.length)
        .map(|(p, c)| (*p, *c))
}

/// The answer as the kernel finds it.
fn found(table: &Prefixes, service: u16, family: Family, address: Key) -> Option<(u64, u64, u32)> {
    let memory = &&table.heap.memory;
    let record = memory.line(table.record(service)).expect("a record");
    let at = match prefixes::sieve(memory, record, family, address) {
        Sieved::Settled(at) => at,
        Sieved::Beyond(beyond) => prefixes::behind(memory, family, beyond),
    };
    match at {
        0 => None,
        at => prefixes::answer(memory, at),
    }
}

fn agree(table: &Prefixes, model: &BTreeMap<Prefix, Coverage>, service: u16, family: Family, address: Key) {
    let wanted = naive(model, service, family, address);
    let said = wanted.map(|(_, row)| (row.deny_until, row.allow_until, row.flags));
    assert_eq!(
        found(table, service, family, address),
        said,
        "{family:?} {address:x?} of {wanted:?}"
    );
    assert_eq!(table.longest(service, family, address), wanted);
}

/// The model's answer everywhere that something could be: at both ends of every prefix, and beside them.
fn compare(table: &Prefixes, model: &BTreeMap<Prefix, Coverage>, touched: &[Prefix]) {
    assert_eq!(&table.read(), model);
    for prefix in model.keys().chain(touched) {
        let width = if prefix.family == Family::V4 { 32 } else { 128 };
        let first = bits(prefix.key);
        let unit = 1_u128 << (128 - width);
        let last = first | u128::MAX.checked_shr(u32::from(prefix.length)).unwrap_or(0) & !(unit - 1);
        for address in [first, last, first.wrapping_sub(unit), last.wrapping_add(unit)] {
            agree(table, model, prefix.service, prefix.family, key(address));
        }
    }
    for (service, port) in [(1, 1), (2, 2), (0, 3)] {
        let line = prefixes::at_port(&&table.heap.memory, wire::TCP, port);
        assert_eq!(line, table.record(service), "port {port}");
        assert_eq!(prefixes::at_port(&&table.heap.memory, wire::UDP, port), 0);
    }
    let used: BTreeSet<u32> = table.heap.all(Use::Row).map(|row| table.answer_of(row)).collect();
    let held: BTreeSet<u32> = table.heap.all(Use::Answer).collect();
    assert_eq!(used, held, "answers");
}

fn apply(
    table: &mut Prefixes,
    model: &mut BTreeMap<Prefix, Coverage>,
    puts: &[(Prefix, Coverage)],
    removes: &[Prefix],
) -> Result<(), Full> {
    table.change(puts, removes)?;
    model.extend(puts.iter().copied());
    for prefix in removes {
        model.remove(prefix);
    }
    Ok(())
}

/// An empty table for services at ports 1, 2 and so on.
fn of_services(last: u16) -> Prefixes {
    let mut table = Prefixes::new(last, &Settings::new());
    for service in 1..=last {
        let port = ServicePort {
            protocol: wire::TCP,
            port: service,
        };
        let row = ServiceRow {
            service,
            counter: service + 10,
        };
        table.set_port(port, row).expect("room");
    }
    table
}

/// A table for two services of `lines` lines, in the kernel's manner: it does not grow, and what is given up is retired.
fn fixed(lines: u32) -> Prefixes {
    let small = of_services(2);
    let size = i64::from(lines) * size_of::<Line>() as i64;
    let file = memfd_create(c"prefixes", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
    nix::unistd::ftruncate(&file, size).expect("its size");
    let memory = Memory::of_map(file.as_fd(), lines).expect("a mapping");
    small.heap.copy_to(&memory);
    Prefixes {
        heap: Heap::adopt(memory),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn finds_what_a_search_from_end_to_end_finds(
        steps in proptest::collection::vec(
            (proptest::collection::vec((prefix(), any::<u64>()), 0..12), proptest::collection::vec(any::<prop::sample::Index>(), 0..4)),
            1..12,
        ),
        asked in proptest::collection::vec(address(), 16),
    ) {
        let mut table = of_services(2);
        let mut model = BTreeMap::new();
        for (puts, removes) in steps {
            let puts: BTreeMap<Prefix, Coverage> =
                puts.iter().map(|(p, allow)| (*p, coverage(p, *allow))).collect();
            let present: Vec<Prefix> = model.keys().copied().collect();
            let removes: Vec<Prefix> = removes
                .iter()
                .filter(|_| !present.is_empty())
                .map(|index| *index.get(&present))
                .filter(|prefix| !puts.contains_key(prefix))
                .collect();
            let puts: Vec<(Prefix, Coverage)> = puts.into_iter().collect();
            apply(&mut table, &mut model, &puts, &removes).expect("room");
            compare(&table, &model, &removes);
            for address in &asked {
                for service in 1..=2 {
                    for family in [Family::V4, Family::V6] {
                        let address = if family == Family::V4 { cut(*address, 32) } else { *address };
                        agree(&table, &model, service, family, address);
                    }
                }
            }
        }
    }

    /// Whatever is left when a change is cut short, the next one finds every row again.
    #[test]
    fn f42_a_change_cut_short_is_mended_by_the_next(
        first in proptest::collection::vec((prefix(), any::<u64>()), 1..40),
        second in proptest::collection::vec((prefix(), any::<u64>()), 1..10),
        third in (prefix(), any::<u64>()),
    ) {
        let rows = |list: &[(Prefix, u64)]| -> BTreeMap<Prefix, Coverage> {
            list.iter().map(|(p, allow)| (*p, coverage(p, *allow))).collect()
        };
        let mut table = of_services(2);
        let mut model = BTreeMap::new();
        let puts: Vec<_> = rows(&first).into_iter().collect();
        apply(&mut table, &mut model, &puts, &[]).expect("room");
        // As a process leaves it that dies when its rows are written and nothing leads to them.
        let changes = table.heap.memory.word(CHANGES);
        table.heap.memory.store(CHANGES, changes + 1);
        let mut answers = table.answers();
        for (prefix, coverage) in rows(&second) {
            table
                .new_row(&prefix, &coverage, changes / 2 + 1, &mut answers)
                .expect("room");
            model.insert(prefix, coverage);
        }
        let puts: Vec<_> = rows(&[third]).into_iter().collect();
        apply(&mut table, &mut model, &puts, &[]).expect("room");
        compare(&table, &model, &[]);
        prop_assert_eq!(table.heap.memory.word(CHANGES) % 2, 0);
    }
}

#[test]
fn roots_grow_with_the_number_of_prefixes_and_shrink_with_them_at_a_reload() {
    let mut table = of_services(1);
    let mut model = BTreeMap::new();
    let prefix = |number: u32| Prefix {
        service: 1,
        family: Family::V4,
        key: cut(key(u128::from(number.wrapping_mul(0x9e37_79b1)) << 96), 24),
        length: 24,
    };
    for number in 0..2_000 {
        let put = prefix(number);
        apply(
            &mut table,
            &mut model,
            &[(put, coverage(&put, number.into()))],
            &[],
        )
        .expect("room");
    }
    compare(&table, &model, &[]);
    let widths = |table: &Prefixes| {
        let plan = Index::read(&table.heap, table.record(1), Family::V4).plan;
        (plan.root_bits, plan.mark_bits != 0)
    };
    assert_eq!(widths(&table), (10, true));
    for number in 0..1_990 {
        apply(&mut table, &mut model, &[], &[prefix(number)]).expect("room");
    }
    compare(&table, &model, &[prefix(0)]);
    let again: Vec<_> = model.iter().map(|(p, c)| (*p, *c)).collect();
    let mut table = of_services(1);
    table.change(&again, &[]).expect("room");
    assert_eq!(widths(&table), (8, false));
}

/// A flood is not to get beyond the filter, whatever the number of networks and their lengths.
#[test]
fn few_random_addresses_find_a_mark() {
    // Weyl's sequence by the golden ratio, mixed: scattered over the whole space, and the same in every run.
    let scattered = |number: u64| {
        let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let lengths: [&[u8]; 3] = [&[24], &[32], &[20, 22, 24, 24, 24, 28, 32, 32, 32, 32]];
    for (family, lengths) in lengths
        .into_iter()
        .flat_map(|lengths| [(Family::V4, lengths), (Family::V6, lengths)])
    {
        for count in [10, 1_000, 10_000, 100_000] {
            let puts: Vec<_> = (0..count)
                .map(|number| {
                    let length = lengths[number as usize % lengths.len()];
                    let length = if family == Family::V4 { length } else { length * 2 };
                    let whole = Key {
                        high: scattered(number),
                        low: 0,
                    };
                    let prefix = Prefix {
                        service: 1,
                        family,
                        key: cut(whole, length.into()),
                        length,
                    };
                    (prefix, coverage(&prefix, 9))
                })
                .collect();
            let mut table = of_services(1);
            table.change(&puts, &[]).expect("room");
            let index = Index::read(&table.heap, table.record(1), family);
            let Plan {
                root_bits, mark_bits, ..
            } = index.plan;
            const ASKED: u64 = 20_000;
            let found = (1 << 32..(1 << 32) + ASKED).filter(|number| {
                let rest = index.rest(key(u128::from(scattered(*number)) << 64));
                let word = table.heap.memory.word(index.filter + rest.first(root_bits));
                let mark = prefixes::mark(rest.high << root_bits, mark_bits);
                word & mark == mark
            });
            let found = found.count() as u64;
            assert!(
                found * 12 <= ASKED,
                "{found} of {ASKED}: {count} {family:?} networks of lengths {lengths:?}"
            );
        }
    }
}

#[test]
fn f42_a_full_table_refuses_a_change_whole() {
    let mut table = fixed(DIRECTORY + 1_000);
    let mut model = BTreeMap::new();
    let prefix = |number: u32| Prefix {
        service: 1,
        family: Family::V4,
        key: cut(key(u128::from(number) << 104), 24),
        length: 24,
    };
    let mut number = 0;
    let full = loop {
        let puts: Vec<_> = (number..number + 7)
            .map(|n| (prefix(n), coverage(&prefix(n), 9)))
            .collect();
        if let Err(full) = apply(&mut table, &mut model, &puts, &[]) {
            break full;
        }
        number += 7;
        assert!(number < 10_000, "1,000 lines hold {number} networks");
    };
    assert_eq!(full, Full);
    compare(&table, &model, &[]);
    // What was taken for it was given back: the next smaller one finds the same room.
    let (used, _) = table.size();
    let puts: Vec<_> = (number..number + 7)
        .map(|n| (prefix(n), coverage(&prefix(n), 9)))
        .collect();
    assert_eq!(table.change(&puts, &[]), Err(Full));
    assert_eq!(table.size().0, used);
}

#[test]
fn what_is_given_up_is_used_again() {
    let mut table = fixed(DIRECTORY + 1_200);
    let mut model = BTreeMap::new();
    let prefix = |number: u64| Prefix {
        service: 2,
        family: Family::V6,
        key: Key {
            high: 0x2001_0db8_0000_0000 | number << 16,
            low: 0,
        },
        length: 48,
    };
    for number in 0..4_000 {
        let put = prefix(number % 16);
        let gone = prefix((number + 8) % 16);
        apply(&mut table, &mut model, &[(put, coverage(&put, number))], &[gone]).expect("room");
    }
    compare(&table, &model, &[]);
}

#[test]
fn the_settings_are_kept_whole() {
    let settings = Settings {
        hz: 1_000,
        audit: 1,
        echo: 2,
        dhcp_client: 1,
        track: 1,
        stp: 1,
        pad: 0,
        gate_port: 5430,
        ether_types: std::array::from_fn(|place| 0x8000 + place as u16),
    };
    assert_eq!(Prefixes::new(3, &settings).settings(), settings);
}
