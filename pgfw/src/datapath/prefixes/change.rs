//! Changes to a table: planned with nothing to be seen of them, then published store by store.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pgfw_common::address::Family;
use pgfw_common::prefixes::{self, DIRECTORY, Key, LINE_WORDS, answer};
use pgfw_common::record::Coverage;

use super::build::{self, Index, Item};
use super::heap::{self, CHANGES, Use};
use super::rows::row;
use super::{Full, Prefix, Prefixes, directory};
use crate::fault::{Step, step};

/// What a table should say: a prefix's answer, or that it is gone.
type Wanted<'a> = BTreeMap<(Key, u8), Option<&'a Coverage>>;

/// Which word holds an answer.
pub(super) type Answers = HashMap<(u64, u64, u32), u32>;

/// Of more values than this a root is made anew.
const SLOTS_AT_ONCE: usize = 4_096;

/// What a change stores in the end; none of it can fail.
#[derive(Debug)]
enum Publish {
    Slot {
        index: Index,
        slot: u32,
        value: u64,
        filter: u64,
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
    /// Puts and removes prefixes. A reader sees each address's answer as it was or as it will be.
    pub(in super::super) fn change(
        &mut self,
        put: &[(Prefix, Coverage)],
        remove: &[Prefix],
    ) -> Result<(), Full> {
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
        for one in publish {
            step(Step::RowsPut);
            self.publish(one);
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
        let place = place.filter(|_| index.suits(count + wanted.len()));
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
            filter: match whole {
                Some(_) => u64::MAX,
                None => behind
                    .iter()
                    .fold(0, |all, item| all | build::marks(&index, item)),
            },
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
                filter: marks,
            } => {
                let filter = index.filter + slot;
                let before = self.heap.memory.word(filter);
                self.heap.memory.store(filter, before | marks);
                let before = self.heap.memory.word(index.root + slot);
                self.heap.memory.store(index.root + slot, value);
                self.heap.memory.store(filter, marks);
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
}
