//! Services and prefixes of one generation, as the kernel searches them: written, read back, changed.
//!
//! How they lie in memory is in `pgfw_common::prefixes`. The rows are the truth; everything else is an index over them,
//! made anew where a change was cut short.

mod build;
mod heap;
mod memory;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;

use pgfw_common::address::Family;
use pgfw_common::prefixes::{self, Index, Key, LINE_WORDS, row, service};
use pgfw_common::record::{Coverage, ServiceRow, Settings};
use pgfw_common::wire;

use self::build::Item;
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
    services: u16,
}

/// The table has no room for a change; nothing of it was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What a table should say: a prefix's answer, or that it is gone.
type Wanted<'a> = BTreeMap<(Key, u8), Option<&'a Coverage>>;

/// Of more slots than this a root is made anew.
const SLOTS_AT_ONCE: usize = 4_096;

/// What a change stores in the end; none of it can fail.
#[derive(Debug)]
enum Publish {
    Slot {
        index: Index,
        value: u32,
        slot: u64,
        filter: Option<(u32, Vec<u64>)>,
    },
    Index {
        line: u32,
        word: u32,
        before: Index,
        after: Index,
    },
}

impl Prefixes {
    /// A table of this process's own, for as many services. The settings only lie there, for [`Prefixes::settings`].
    pub(super) fn new(services: u16, settings: &Settings) -> Prefixes {
        let line = prefixes::SERVICES + u32::from(services);
        let heap = Heap::new(line + 1);
        for (word, value) in (0..).zip(settings::words(settings)) {
            heap.memory.store(line, word, value);
        }
        Prefixes { heap, services }
    }

    /// The settings of the policy that the table is for.
    pub(super) fn settings(&self) -> Settings {
        let line = self.heap.start() - 1;
        settings::from_words((0..).map(|word| self.heap.memory.word(line, word)))
    }

    /// The kernel's.
    pub(super) fn of_map(map: BorrowedFd<'_>, lines: u32) -> io::Result<Prefixes> {
        let heap = Heap::adopt(Memory::of_map(map, lines)?);
        if heap.capacity() != lines || !(prefixes::SERVICES + 1..lines).contains(&heap.start()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let services = u16::try_from(heap.start() - 1 - prefixes::SERVICES).unwrap_or(u16::MAX);
        Ok(Prefixes { heap, services })
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
    pub(super) fn set_port(&mut self, port: ServicePort, row: ServiceRow) {
        let line = prefixes::SERVICES + u32::from(row.service) - 1;
        let word = u64::from(row.service) | u64::from(row.counter) << 16;
        self.heap.memory.store(line, service::ROW, word);
        if let wire::TCP | wire::UDP = port.protocol {
            let (line, word, shift) = prefixes::port_place(port.protocol, port.port);
            let others = self.heap.memory.word(line, word) & !(0xffff << shift);
            let service = u64::from(row.service) << shift;
            self.heap.memory.store(line, word, others | service);
        }
    }

    /// Every prefix and its row.
    pub(super) fn read(&self) -> BTreeMap<Prefix, Coverage> {
        self.rows()
            .into_iter()
            .map(|(prefix, line)| (prefix, self.coverage(line)))
            .collect()
    }

    /// The longest prefix of a service that holds an address.
    pub(super) fn longest(&self, service: u16, family: Family, key: Key) -> Option<(Prefix, Coverage)> {
        let (_, index) = prefixes::service(&&self.heap.memory, service)?;
        match prefixes::longest(&&self.heap.memory, index[family as usize], key) {
            0 => None,
            line => Some((self.prefix(line), self.coverage(line))),
        }
    }

    /// Lines in use, and lines in all.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.heap.used(), self.heap.capacity())
    }

    /// Puts and removes prefixes. A reader sees each address's answer as it was or as it will be.
    pub(super) fn change(&mut self, put: &[(Prefix, Coverage)], remove: &[Prefix]) -> Result<(), Full> {
        let changes = self.heap.memory.word(0, CHANGES);
        if changes % 2 == 1 {
            self.mend()?;
        }
        let changes = self.heap.memory.word(0, CHANGES);
        self.heap.memory.store(0, CHANGES, changes + 1);
        self.heap.begin();
        let done = self.changed(put, remove, changes / 2 + 1);
        if done.is_none() {
            self.heap.abandon();
        }
        self.heap.memory.store(0, CHANGES, changes + 2);
        done.ok_or(Full)
    }

    fn changed(&mut self, put: &[(Prefix, Coverage)], remove: &[Prefix], number: u64) -> Option<()> {
        let mut tables: BTreeMap<(u16, Family), Wanted> = BTreeMap::new();
        let removed = remove.iter().map(|prefix| (prefix, None));
        for (prefix, coverage) in put.iter().map(|(prefix, row)| (prefix, Some(row))).chain(removed) {
            let wanted = tables.entry((prefix.service, prefix.family)).or_default();
            wanted.insert((prefix.key, prefix.length), coverage);
        }
        let mut publish = Vec::new();
        let mut given_up = Vec::new();
        for ((service, family), wanted) in tables {
            self.plan(service, family, &wanted, number, &mut publish, &mut given_up)?;
        }
        // Nothing can fail from here on. The rows first: they are what counts if this is cut short.
        for line in given_up {
            self.heap.retire(line, 1);
        }
        for step in publish {
            self.publish(step);
        }
        Some(())
    }

    /// What to store so that what is wanted is found, and the rows that are no longer.
    fn plan(
        &mut self,
        service: u16,
        family: Family,
        wanted: &Wanted<'_>,
        number: u64,
        publish: &mut Vec<Publish>,
        given_up: &mut Vec<u32>,
    ) -> Option<()> {
        let line = prefixes::SERVICES + u32::from(service) - 1;
        let word = service::INDEX4 + family as u32;
        let index = Index(self.heap.memory.word(line, word));
        let root = index.root_bits();
        let slots = changed_slots(index, wanted).filter(|slots| slots.len() <= SLOTS_AT_ONCE);
        let near = |item: &Item| {
            slots
                .as_ref()
                .is_none_or(|slots| item.length < root || slots.contains(&item.key.first(root)))
        };
        let (mut items, count) = self.items(service, family, near);
        let slots = slots.filter(|_| build::root_bits(count + wanted.len()) <= root);
        if slots.is_none() && items.len() < count {
            items = self.items(service, family, |_| true).0;
        }
        items.retain(|item| {
            let changes =
                u8::try_from(item.length).is_ok_and(|length| wanted.contains_key(&(item.key, length)));
            if changes {
                given_up.push(item.row);
            }
            !changes
        });
        for ((key, length), coverage) in wanted {
            if let Some(coverage) = coverage {
                let prefix = Prefix {
                    service,
                    family,
                    key: *key,
                    length: *length,
                };
                items.push(item(&prefix, self.new_row(&prefix, coverage, number)?));
            }
        }
        items.sort_unstable();
        let Some(slots) = slots else {
            publish.push(Publish::Index {
                line,
                word,
                before: index,
                after: build::index(&mut self.heap, &items)?,
            });
            return Some(());
        };
        for value in slots {
            publish.push(self.plan_slot(index, value, &items)?);
        }
        Some(())
    }

    /// One slot of a root, given all prefixes in it and all that hold more than it.
    fn plan_slot(&mut self, index: Index, value: u32, items: &[Item]) -> Option<Publish> {
        let root = index.root_bits();
        let holds_all = |item: &&Item| {
            item.length == 0
                || item.length <= root && item.key.first(item.length) == value >> (root - item.length)
        };
        let whole = items.iter().filter(holds_all).max_by_key(|item| item.length);
        let inside: Vec<Item> = items
            .iter()
            .filter(|item| item.length > root && item.key.first(root) == value)
            .copied()
            .collect();
        let row = whole.map_or(0, |item| u64::from(item.row));
        let slot = build::slot(&mut self.heap, &inside, root, row)?;
        let filter =
            (index.filter_bits() != 0).then(|| build::filter_words(index, value, &inside, whole.is_some()));
        Some(Publish::Slot {
            index,
            value,
            slot,
            filter,
        })
    }

    /// Those of a table's prefixes that are wanted, and how many it has in all.
    fn items(&self, service: u16, family: Family, wanted: impl Fn(&Item) -> bool) -> (Vec<Item>, usize) {
        let table = (family as u64) << 16 | u64::from(service) << 24;
        let mut count = 0;
        let mut found: Vec<Item> = Vec::new();
        for line in self.heap.rows() {
            let what = self.heap.memory.word(line, row::WHAT);
            if what >> 16 == table >> 16 {
                count += 1;
                let item = Item {
                    key: self.key(line),
                    length: what as u32 & 0xff,
                    row: line,
                };
                if wanted(&item) {
                    found.push(item);
                }
            }
        }
        found.sort_unstable();
        (found, count)
    }

    /// Widens before it narrows: a filter's bit is set before there is something behind it, and cleared after.
    fn publish(&mut self, step: Publish) {
        match step {
            Publish::Index {
                line,
                word,
                before,
                after,
            } => {
                self.heap.memory.store(line, word, after.0);
                build::retire_index(&mut self.heap, before);
            }
            Publish::Slot {
                index,
                value,
                slot,
                filter,
            } => {
                let place = |word: u32| (index.filter() + word / LINE_WORDS, word % LINE_WORDS);
                if let Some((first, words)) = &filter {
                    for (word, bits) in (*first..).zip(words) {
                        let (line, word) = place(word);
                        let before = self.heap.memory.word(line, word);
                        self.heap.memory.store(line, word, before | bits);
                    }
                }
                let (line, word) = (index.root() + value / LINE_WORDS, value % LINE_WORDS);
                let before = self.heap.memory.word(line, word);
                self.heap.memory.store(line, word, slot);
                if let Some((first, words)) = &filter {
                    for (word, bits) in (*first..).zip(words) {
                        let (line, word) = place(word);
                        self.heap.memory.store(line, word, *bits);
                    }
                }
                build::retire(&mut self.heap, before);
            }
        }
    }

    /// After a change that was cut short: everything anew, over the rows that are there.
    fn mend(&mut self) -> Result<(), Full> {
        let rows = self.rows();
        let kept: BTreeSet<u32> = rows.values().copied().collect();
        let all: Vec<u32> = (self.heap.start()..self.heap.capacity())
            .filter(|line| self.heap.usage(*line) != Use::Free)
            .collect();
        let mut tables: BTreeMap<(u16, Family), Vec<Item>> = BTreeMap::new();
        for (prefix, line) in &rows {
            let table = tables.entry((prefix.service, prefix.family)).or_default();
            table.push(item(prefix, *line));
        }
        self.heap.begin();
        let mut indexes = Vec::new();
        for service in 1..=self.services {
            for family in [Family::V4, Family::V6] {
                let mut items = tables.remove(&(service, family)).unwrap_or_default();
                items.sort_unstable();
                let Some(index) = build::index(&mut self.heap, &items) else {
                    self.heap.abandon();
                    return Err(Full);
                };
                indexes.push((service, family, index));
            }
        }
        for (service, family, index) in indexes {
            let line = prefixes::SERVICES + u32::from(service) - 1;
            self.heap
                .memory
                .store(line, service::INDEX4 + family as u32, index.0);
        }
        for line in all.into_iter().filter(|line| !kept.contains(line)) {
            self.heap.retire(line, 1);
        }
        let changes = self.heap.memory.word(0, CHANGES);
        self.heap.memory.store(0, CHANGES, changes + 1);
        Ok(())
    }

    /// Every prefix and the line of its row; of two, as a change leaves that was cut short, the newer.
    fn rows(&self) -> BTreeMap<Prefix, u32> {
        let mut rows = BTreeMap::new();
        for line in self.heap.rows() {
            let held = rows.entry(self.prefix(line)).or_insert(line);
            if self.number(*held) < self.number(line) {
                *held = line;
            }
        }
        rows
    }

    fn new_row(&mut self, prefix: &Prefix, coverage: &Coverage, number: u64) -> Option<u32> {
        let line = self.heap.take(1, Use::Row)?;
        let what = u64::from(prefix.length)
            | u64::from(coverage.flags & 0xff) << 8
            | (prefix.family as u64) << 16
            | u64::from(prefix.service) << 24;
        for (word, value) in [
            (row::DENY_UNTIL, coverage.deny_until),
            (row::ALLOW_UNTIL, coverage.allow_until),
            (row::DENY_BOOT, coverage.deny_boot),
            (row::ALLOW_BOOT, coverage.allow_boot),
            (row::ADDRESS_HIGH, prefix.key.high),
            (row::ADDRESS_LOW, prefix.key.low),
            (row::WHAT, what),
            (row::CHANGE, number),
        ] {
            self.heap.memory.store(line, word, value);
        }
        Some(line)
    }

    fn prefix(&self, line: u32) -> Prefix {
        let what = self.heap.memory.word(line, row::WHAT);
        Prefix {
            service: (what >> 24) as u16,
            family: if what >> 16 & 0xff == Family::V4 as u64 {
                Family::V4
            } else {
                Family::V6
            },
            key: self.key(line),
            length: what as u8,
        }
    }

    fn coverage(&self, line: u32) -> Coverage {
        let word = |word| self.heap.memory.word(line, word);
        let what = word(row::WHAT);
        Coverage {
            deny_until: word(row::DENY_UNTIL),
            allow_until: word(row::ALLOW_UNTIL),
            deny_boot: word(row::DENY_BOOT),
            allow_boot: word(row::ALLOW_BOOT),
            flags: (what >> 8) as u32 & 0xff,
            prefix_length: what as u32 & 0xff,
        }
    }

    fn key(&self, line: u32) -> Key {
        Key {
            high: self.heap.memory.word(line, row::ADDRESS_HIGH),
            low: self.heap.memory.word(line, row::ADDRESS_LOW),
        }
    }

    fn number(&self, line: u32) -> u64 {
        self.heap.memory.word(line, row::CHANGE)
    }
}

/// The slots of the root that are to change; `None` where a prefix holds more than one of them, or there is no root.
fn changed_slots(index: Index, wanted: &Wanted<'_>) -> Option<BTreeSet<u32>> {
    let root = index.root_bits();
    if index.root() == 0 {
        return None;
    }
    wanted
        .keys()
        .map(|(key, length)| (u32::from(*length) >= root).then(|| key.first(root)))
        .collect()
}

fn item(prefix: &Prefix, row: u32) -> Item {
    Item {
        key: prefix.key,
        length: u32::from(prefix.length),
        row,
    }
}

#[cfg(test)]
mod tests;
