//! The rows: each prefix and what it says, as user space reads them.

use std::collections::BTreeMap;

use pgfw_common::address::Family;
use pgfw_common::prefixes::{self, Key, Plan, answer};
use pgfw_common::record::Coverage;

use super::build::Item;
use super::change::Answers;
use super::heap::Use;
use super::{Prefix, Prefixes};

/// Words of a row.
pub(super) mod row {
    /// The number of the answer's first word, which holds the ends in ticks and the flags.
    pub(in super::super) const ANSWER: u32 = 0;
    /// The ends as they were asked for.
    pub(in super::super) const DENY_BOOT: u32 = 1;
    pub(in super::super) const ALLOW_BOOT: u32 = 2;
    pub(in super::super) const ADDRESS_HIGH: u32 = 3;
    pub(in super::super) const ADDRESS_LOW: u32 = 4;
    /// From the lowest bit: prefix length (8 bits), family (8), service (16).
    pub(in super::super) const WHAT: u32 = 5;
    /// The number of the change that wrote it.
    pub(in super::super) const CHANGE: u32 = 6;
    pub(in super::super) const WORDS: u32 = 8;
}

impl Prefixes {
    /// Every prefix and its row; of two, as a change leaves that was cut short, the newer.
    pub(super) fn rows(&self) -> BTreeMap<Prefix, u32> {
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
    pub(super) fn new_row(
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

    pub(super) fn answers(&self) -> Answers {
        self.heap
            .all(Use::Answer)
            .filter_map(|at| Some((prefixes::answer(&&self.heap.memory, at)?, at)))
            .collect()
    }

    pub(super) fn prefix(&self, row: u32) -> Prefix {
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

    pub(super) fn item(&self, prefix: &Prefix, row: u32) -> Item {
        Item {
            key: prefix.key,
            length: u32::from(prefix.length),
            answer: self.answer_of(row),
        }
    }

    pub(super) fn coverage(&self, prefix: &Prefix, row: u32) -> Coverage {
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

    pub(super) fn answer_of(&self, row: u32) -> u32 {
        self.heap.memory.word(row + row::ANSWER) as u32
    }

    pub(super) fn number(&self, row: u32) -> u64 {
        self.heap.memory.word(row + row::CHANGE)
    }
}
