//! Services and prefixes of one generation, as the kernel searches them: written, read back, changed.
//!
//! How they lie in memory is in `pgfw_common::prefixes`. The rows, which only user space reads, are the truth; everything
//! else is an index over them, made anew where a change was cut short.

mod build;
mod heap;
mod memory;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::BorrowedFd;

use pgfw_common::address::Family;
use pgfw_common::prefixes::{self, DIRECTORY, Key, LINE_WORDS, Plan, answer, record};
use pgfw_common::record::{Coverage, ServiceRow, Settings};
use pgfw_common::wire;

use self::build::{Index, Item};
use self::heap::{CHANGES, Heap, Use};
pub(super) use self::memory::Line;
use self::memory::Memory;
use crate::policy::coverage::ServicePort;

/// A prefix of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) service: u16,
    pub(super) family: Family,
    /// Without bits behind the length.
    pub(super) key: Key,
    pub(super) length: u8,
}

/// One table.
#[derive(Debug)]
pub(super) struct Prefixes {
    heap: Heap,
}

/// The table has no room for a change; nothing of it was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Words of a row.
mod row {
    /// The number of the answer's first word, which holds the ends in ticks and the flags.
    pub(super) const ANSWER: u32 = 0;
    /// The ends as they were asked for.
    pub(super) const DENY_BOOT: u32 = 1;
    pub(super) const ALLOW_BOOT: u32 = 2;
    pub(super) const ADDRESS_HIGH: u32 = 3;
    pub(super) const ADDRESS_LOW: u32 = 4;
    /// From the lowest bit: prefix length (8 bits), family (8), service (16).
    pub(super) const WHAT: u32 = 5;
    /// The number of the change that wrote it.
    pub(super) const CHANGE: u32 = 6;
    pub(super) const WORDS: u32 = 8;
}

/// What a table should say: a prefix's answer, or that it is gone.
type Wanted<'a> = BTreeMap<(Key, u8), Option<&'a Coverage>>;

/// Which word holds an answer.
type Answers = HashMap<(u64, u64, u32), u32>;

/// Of more values than this a root is made anew.
const SLOTS_AT_ONCE: usize = 4_096;

/// What a change stores in the end; none of it can fail.
#[derive(Debug)]
enum Publish {
    Slot {
        index: Index,
        slot: u32,
        value: u64,
        filter: (u32, Vec<u64>),
    },
    /// A new record, in which everything else is as it is then.
    Index {
        service: u16,
        line: u32,
        before: Index,
        after: Index,
    },
}

impl Prefixes {
    /// A table of this process's own, for services of numbers up to `last`. The settings only lie there, for
    /// [`Prefixes::settings`].
    pub(super) fn new(last: u16, settings: &Settings) -> Prefixes {
        let line = DIRECTORY + (u32::from(last) + 1).div_ceil(LINE_WORDS);
        let heap = Heap::new(line + 1);
        heap.memory.write(line * LINE_WORDS, &settings::words(settings));
        Prefixes { heap }
    }

    /// The settings of the policy that the table is for.
    pub(super) fn settings(&self) -> Settings {
        let line = self.heap.start() - 1;
        settings::from_words((line * LINE_WORDS..).map(|at| self.heap.memory.word(at)))
    }

    /// The kernel's.
    pub(super) fn of_map(map: BorrowedFd<'_>, lines: u32) -> io::Result<Prefixes> {
        let heap = Heap::adopt(Memory::of_map(map, lines)?);
        if !heap.is_of(lines) || heap.start() <= DIRECTORY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Prefixes { heap })
    }

    /// Writes this table into a map of more lines.
    pub(super) fn copy_to_map(&self, map: BorrowedFd<'_>, lines: u32) -> io::Result<()> {
        let memory = Memory::of_map(map, lines)?;
        self.heap.copy_to(&memory);
        Ok(())
    }

    /// The lines that a map for this table wants: half as many again, and room for some thousand networks.
    pub(super) fn lines_wanted(&self) -> u32 {
        const ROOM: u32 = 16_384;
        let used = self.heap.used();
        heap::capacity(used + used / 2 + ROOM)
    }

    /// The service that is found at a port, of TCP or UDP; at any other protocol's it is not this table that says.
    pub(super) fn set_port(&mut self, port: ServicePort, row: ServiceRow) -> Result<(), Full> {
        let mut line = self.record(row.service);
        if line == 0 {
            line = self.heap.take(LINE_WORDS, LINE_WORDS, Use::Part).ok_or(Full)? / LINE_WORDS;
            let word = u64::from(row.service) | u64::from(row.counter) << 16;
            self.heap.memory.store(line * LINE_WORDS + record::ROW, word);
            self.heap.memory.store(directory(row.service), line.into());
        }
        if let wire::TCP | wire::UDP = port.protocol {
            let (at, shift) = prefixes::port_place(port.protocol, port.port);
            let others = self.heap.memory.word(at) & !(0xffff_ffff << shift);
            self.heap.memory.store(at, others | u64::from(line) << shift);
        }
        Ok(())
    }

    /// The line of a service's record; 0: there is none.
    fn record(&self, service: u16) -> u32 {
        self.heap.memory.word(directory(service)) as u32
    }

    /// Every prefix and what it says.
    pub(super) fn read(&self) -> BTreeMap<Prefix, Coverage> {
        self.rows()
            .into_iter()
            .map(|(prefix, row)| (prefix, self.coverage(&prefix, row)))
            .collect()
    }

    /// The longest prefix of a service that holds an address.
    pub(super) fn longest(&self, service: u16, family: Family, key: Key) -> Option<(Prefix, Coverage)> {
        let (_, found) = self
            .heap
            .all(Use::Row)
            .map(|row| (self.prefix(row), row))
            .filter(|(prefix, _)| prefix.service == service && prefix.family == family && prefix.holds(key))
            .max_by_key(|(prefix, row)| (prefix.length, self.number(*row)))?;
        let prefix = self.prefix(found);
        Some((prefix, self.coverage(&prefix, found)))
    }

    /// Lines in use, and lines in all.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.heap.used(), self.heap.capacity())
    }

    /// How many changes were begun and ended; an odd number while one is being made, or was cut short.
    pub(super) fn changes(&self) -> u64 {
        self.heap.memory.word(CHANGES)
    }

    /// Puts and removes prefixes. A reader sees each address's answer as it was or as it will be.
    pub(super) fn change(&mut self, put: &[(Prefix, Coverage)], remove: &[Prefix]) -> Result<(), Full> {
        if self.heap.memory.word(CHANGES) % 2 == 1 {
            self.mend()?;
        }
        let changes = self.heap.memory.word(CHANGES);
        self.heap.memory.store(CHANGES, changes + 1);
        self.heap.begin();
        let done = self.changed(put, remove, changes / 2 + 1);
        if done.is_none() {
            self.heap.abandon();
        }
        self.heap.memory.store(CHANGES, changes + 2);
        done.ok_or(Full)
    }

    fn changed(&mut self, put: &[(Prefix, Coverage)], remove: &[Prefix], number: u64) -> Option<()> {
        let mut tables: BTreeMap<(u16, Family), Wanted> = BTreeMap::new();
        let removed = remove.iter().map(|prefix| (prefix, None));
        for (prefix, coverage) in put.iter().map(|(prefix, row)| (prefix, Some(row))).chain(removed) {
            let wanted = tables.entry((prefix.service, prefix.family)).or_default();
            wanted.insert((prefix.key, prefix.length), coverage);
        }
        let mut answers = self.answers();
        let mut publish = Vec::new();
        let mut given_up = Vec::new();
        for ((service, family), wanted) in tables {
            given_up.extend(self.plan(service, family, &wanted, number, &mut answers, &mut publish)?);
        }
        // Nothing can fail from here on. The rows first: they are what counts if this is cut short.
        let mut unused: BTreeSet<u32> = given_up.iter().map(|row| self.answer_of(*row)).collect();
        for row in given_up {
            self.heap.retire(row, row::WORDS);
        }
        for step in publish {
            self.publish(step);
        }
        if !unused.is_empty() {
            for row in self.heap.all(Use::Row) {
                unused.remove(&self.answer_of(row));
            }
        }
        for at in unused {
            self.heap.retire(at, answer::WORDS);
        }
        Some(())
    }

    /// What to store so that what is wanted is found; returns the rows that are given up for it.
    fn plan(
        &mut self,
        service: u16,
        family: Family,
        wanted: &Wanted<'_>,
        number: u64,
        answers: &mut Answers,
        publish: &mut Vec<Publish>,
    ) -> Option<Vec<u32>> {
        let line = self.record(service);
        if line == 0 {
            // A number that the policy does not have.
            return Some(Vec::new());
        }
        let index = Index::read(&self.heap, line, family);
        // What is outside of the bits in common, or holds more than one value of the root, changes all of it.
        let slots: Option<BTreeSet<u32>> = wanted
            .keys()
            .map(|(key, length)| index.slot(*key, u32::from(*length)))
            .collect();
        let place = slots.filter(|slots| slots.len() <= SLOTS_AT_ONCE);
        let near = |item: &Item| match &place {
            None => true,
            Some(slots) => index
                .slot(item.key, item.length)
                .is_none_or(|slot| slots.contains(&slot)),
        };
        let (mut items, count) = self.items(service, family, near);
        let place = place.filter(|_| build::widths(count + wanted.len()).0 <= index.plan.root_bits);
        if place.is_none() && items.len() < count {
            items = self.items(service, family, |_| true).0;
        }
        let mut given_up = Vec::new();
        items.retain(|(item, row)| {
            let changes =
                u8::try_from(item.length).is_ok_and(|length| wanted.contains_key(&(item.key, length)));
            if changes {
                given_up.push(*row);
            }
            !changes
        });
        let mut items: Vec<Item> = items.into_iter().map(|(item, _)| item).collect();
        for ((key, length), coverage) in wanted {
            if let Some(coverage) = coverage {
                let prefix = Prefix {
                    service,
                    family,
                    key: *key,
                    length: *length,
                };
                items.push(Item {
                    key: *key,
                    length: u32::from(*length),
                    answer: self.new_row(&prefix, coverage, number, answers)?,
                });
            }
        }
        items.sort_unstable();
        match place {
            None => publish.push(Publish::Index {
                service,
                line: self.heap.take(LINE_WORDS, LINE_WORDS, Use::Part)? / LINE_WORDS,
                before: index,
                after: build::all(&mut self.heap, family, &items)?,
            }),
            Some(slots) => {
                for slot in slots {
                    publish.push(self.plan_slot(index, slot, &items)?);
                }
            }
        }
        Some(given_up)
    }

    /// One value of a root, given all prefixes behind it and all that hold more than it.
    fn plan_slot(&mut self, index: Index, slot: u32, items: &[Item]) -> Option<Publish> {
        let bits = index.plan.root_bits;
        let cut: Vec<Item> = items.iter().filter_map(|item| index.cut(item)).collect();
        let whole = cut
            .iter()
            .filter(|item| item.length <= bits && item.key.first(item.length) == slot >> (bits - item.length))
            .max_by_key(|item| item.length);
        let behind: Vec<Item> = cut
            .iter()
            .filter(|item| item.length > bits && item.key.first(bits) == slot)
            .copied()
            .collect();
        let value = whole.map_or(0, |item| u64::from(item.answer));
        Some(Publish::Slot {
            index,
            slot,
            value: build::behind(&mut self.heap, &index, &behind, value)?,
            filter: build::filter_words(&index, slot, &behind, whole.is_some()),
        })
    }

    /// Those of a table's prefixes that are wanted, each with its row, and how many it has in all.
    fn items(
        &self,
        service: u16,
        family: Family,
        wanted: impl Fn(&Item) -> bool,
    ) -> (Vec<(Item, u32)>, usize) {
        let mut count = 0;
        let mut found = Vec::new();
        for row in self.heap.all(Use::Row) {
            let prefix = self.prefix(row);
            if prefix.service == service && prefix.family == family {
                count += 1;
                let item = self.item(&prefix, row);
                if wanted(&item) {
                    found.push((item, row));
                }
            }
        }
        (found, count)
    }

    /// Widens before it narrows: a bit of the filter is set before there is something behind it, and cleared after.
    fn publish(&mut self, step: Publish) {
        match step {
            Publish::Index {
                service,
                line,
                before,
                after,
            } => {
                self.set_record(service, line, &[after]);
                build::retire_all(&mut self.heap, &before);
            }
            Publish::Slot {
                index,
                slot,
                value,
                filter: (first, words),
            } => {
                let filter = index.filter + first;
                for (at, bits) in (filter..).zip(&words) {
                    let before = self.heap.memory.word(at);
                    self.heap.memory.store(at, before | bits);
                }
                let before = self.heap.memory.word(index.root + slot);
                self.heap.memory.store(index.root + slot, value);
                self.heap.memory.write(filter, &words);
                build::retire(&mut self.heap, index.family, before);
            }
        }
    }

    /// Makes `line` a service's record, with these indexes, and gives up the former one.
    fn set_record(&mut self, service: u16, line: u32, indexes: &[Index]) {
        let before = self.record(service);
        for word in 0..LINE_WORDS {
            let same = self.heap.memory.word(before * LINE_WORDS + word);
            self.heap.memory.store(line * LINE_WORDS + word, same);
        }
        for index in indexes {
            let at = line * LINE_WORDS + build::family_words(index.family);
            self.heap.memory.write(at, &index.words());
        }
        self.heap.memory.store(directory(service), line.into());
        for at in prefixes::PORTS * LINE_WORDS..DIRECTORY * LINE_WORDS {
            let ports = self.heap.memory.word(at);
            let moved = |port: u64| {
                if port == u64::from(before) {
                    u64::from(line)
                } else {
                    port
                }
            };
            let after = moved(ports & 0xffff_ffff) | moved(ports >> 32) << 32;
            if after != ports {
                self.heap.memory.store(at, after);
            }
        }
        self.heap.retire(before * LINE_WORDS, LINE_WORDS);
    }

    /// After a change that was cut short: everything anew, over the rows that are there.
    fn mend(&mut self) -> Result<(), Full> {
        let rows = self.rows();
        let mut kept: BTreeSet<u32> = BTreeSet::new();
        let mut tables: BTreeMap<(u16, Family), Vec<Item>> = BTreeMap::new();
        for (prefix, row) in &rows {
            kept.extend((0..row::WORDS).map(|word| row + word));
            kept.extend((0..answer::WORDS).map(|word| self.answer_of(*row) + word));
            let table = tables.entry((prefix.service, prefix.family)).or_default();
            table.push(self.item(prefix, *row));
        }
        let before = self.heap.in_use();
        self.heap.begin();
        let services = (DIRECTORY * LINE_WORDS..(self.heap.start() - 1) * LINE_WORDS).zip(0_u16..);
        let services: Vec<u16> = services
            .map(|(_, service)| service)
            .filter(|service| self.record(*service) != 0)
            .collect();
        let mut records = Vec::new();
        for service in services {
            let mut index = |family| {
                let mut items = tables.remove(&(service, family)).unwrap_or_default();
                items.sort_unstable();
                build::all(&mut self.heap, family, &items)
            };
            let indexes = index(Family::V4).zip(index(Family::V6));
            let line = self.heap.take(LINE_WORDS, LINE_WORDS, Use::Part);
            let Some(((v4, v6), at)) = indexes.zip(line) else {
                self.heap.abandon();
                return Err(Full);
            };
            records.push((service, at / LINE_WORDS, [v4, v6]));
        }
        for (service, line, indexes) in records {
            self.set_record(service, line, &indexes);
        }
        for at in before.into_iter().filter(|at| !kept.contains(at)) {
            self.heap.retire(at, heap::CELL_WORDS);
        }
        let changes = self.heap.memory.word(CHANGES);
        self.heap.memory.store(CHANGES, changes + 1);
        Ok(())
    }

    /// Every prefix and its row; of two, as a change leaves that was cut short, the newer.
    fn rows(&self) -> BTreeMap<Prefix, u32> {
        let mut rows = BTreeMap::new();
        for row in self.heap.all(Use::Row) {
            let held = rows.entry(self.prefix(row)).or_insert(row);
            if self.number(*held) < self.number(row) {
                *held = row;
            }
        }
        rows
    }

    /// Writes a row, and returns its answer.
    fn new_row(
        &mut self,
        prefix: &Prefix,
        coverage: &Coverage,
        number: u64,
        answers: &mut Answers,
    ) -> Option<u32> {
        let said = (coverage.deny_until, coverage.allow_until, coverage.flags);
        let answer = match answers.get(&said) {
            Some(answer) => *answer,
            None => {
                let at = self.heap.take(answer::WORDS, answer::WORDS, Use::Answer)?;
                if at >= Plan::REACH {
                    return None;
                }
                self.heap.memory.write(at, &[said.0, said.1, said.2.into()]);
                answers.insert(said, at);
                at
            }
        };
        let row = self.heap.take(row::WORDS, row::WORDS, Use::Row)?;
        let what = u64::from(prefix.length) | (prefix.family as u64) << 8 | u64::from(prefix.service) << 16;
        self.heap.memory.write(
            row,
            &[
                answer.into(),
                coverage.deny_boot,
                coverage.allow_boot,
                prefix.key.high,
                prefix.key.low,
                what,
                number,
            ],
        );
        Some(answer)
    }

    fn answers(&self) -> Answers {
        self.heap
            .all(Use::Answer)
            .filter_map(|at| Some((prefixes::answer(&&self.heap.memory, at)?, at)))
            .collect()
    }

    fn prefix(&self, row: u32) -> Prefix {
        let what = self.heap.memory.word(row + row::WHAT);
        Prefix {
            service: (what >> 16) as u16,
            family: if what >> 8 & 0xff == Family::V4 as u64 {
                Family::V4
            } else {
                Family::V6
            },
            key: Key {
                high: self.heap.memory.word(row + row::ADDRESS_HIGH),
                low: self.heap.memory.word(row + row::ADDRESS_LOW),
            },
            length: what as u8,
        }
    }

    fn item(&self, prefix: &Prefix, row: u32) -> Item {
        Item {
            key: prefix.key,
            length: u32::from(prefix.length),
            answer: self.answer_of(row),
        }
    }

    fn coverage(&self, prefix: &Prefix, row: u32) -> Coverage {
        let (deny_until, allow_until, flags) =
            prefixes::answer(&&self.heap.memory, self.answer_of(row)).unwrap_or_default();
        Coverage {
            deny_until,
            allow_until,
            deny_boot: self.heap.memory.word(row + row::DENY_BOOT),
            allow_boot: self.heap.memory.word(row + row::ALLOW_BOOT),
            flags,
            prefix_length: prefix.length.into(),
        }
    }

    fn answer_of(&self, row: u32) -> u32 {
        self.heap.memory.word(row + row::ANSWER) as u32
    }

    fn number(&self, row: u32) -> u64 {
        self.heap.memory.word(row + row::CHANGE)
    }
}

impl Prefix {
    fn holds(&self, key: Key) -> bool {
        let bits = |key: Key| u128::from(key.high) << 64 | u128::from(key.low);
        let differ = bits(key) ^ bits(self.key);
        differ.leading_zeros() >= u32::from(self.length)
    }
}

/// The word that says where a service's record is.
fn directory(service: u16) -> u32 {
    DIRECTORY * LINE_WORDS + u32::from(service)
}

#[cfg(test)]
mod tests;
