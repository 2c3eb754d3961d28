//! Which lines of a table are in use, and for what.
//!
//! One byte for each line, in the table's last lines, so that whoever opens the table knows. A line that readers may still
//! be reading is *retired*; it is free once no program that ran then runs any more.

use pgfw_common::prefixes::LINE_WORDS;

use super::memory::{Line, Memory};

/// What a line is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Use {
    Free = 0,
    /// A prefix and its answer.
    Row = 1,
    /// Part of a root, a filter or a node.
    Index = 2,
    Retired = 3,
}

// Words of the header, line 0.
/// Lines in all.
pub(super) const CAPACITY: u32 = 0;
/// The first line that is neither header, ports nor services.
pub(super) const START: u32 = 1;
/// Odd while a change is being made.
pub(super) const CHANGES: u32 = 2;

#[derive(Debug)]
pub(super) struct Heap {
    pub(super) memory: Memory,
    /// Where to look for room next.
    next: u32,
    /// What was taken since [`Heap::begin`].
    taken: Vec<(u32, u32)>,
}

impl Heap {
    /// One of this process's own, which grows as needed.
    pub(super) fn new(start: u32) -> Heap {
        let memory = Memory::own(0);
        let mut heap = Heap {
            memory,
            next: start,
            taken: Vec::new(),
        };
        heap.extend(start + 1_024);
        heap.memory.store(0, START, start.into());
        heap
    }

    pub(super) fn adopt(memory: Memory) -> Heap {
        let next = half(memory.word(0, START));
        Heap {
            memory,
            next,
            taken: Vec::new(),
        }
    }

    pub(super) fn capacity(&self) -> u32 {
        half(self.memory.word(0, CAPACITY))
    }

    pub(super) fn start(&self) -> u32 {
        half(self.memory.word(0, START))
    }

    /// The first line behind those that can be given out.
    fn end(&self) -> u32 {
        uses_at(self.capacity())
    }

    /// Lines that are in use or retired, those that are always in use included.
    pub(super) fn used(&self) -> u32 {
        let used = (self.start()..self.end()).filter(|line| self.usage(*line) != Use::Free);
        self.start() + u32::try_from(used.count()).unwrap_or(u32::MAX)
    }

    /// Every line with a row.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        const PER_WORD: u32 = 8;
        let (start, end) = (self.start(), self.end());
        (start / PER_WORD..end.div_ceil(PER_WORD))
            .filter(move |word| self.uses(*word) != 0)
            .flat_map(|word| word * PER_WORD..(word + 1) * PER_WORD)
            .filter(move |line| (start..end).contains(line) && self.usage(*line) == Use::Row)
    }

    pub(super) fn begin(&mut self) {
        self.taken.clear();
    }

    /// Gives back everything taken since [`Heap::begin`]; nothing leads to it yet.
    pub(super) fn abandon(&mut self) {
        for (line, count) in std::mem::take(&mut self.taken) {
            self.mark(line, count, Use::Free);
            self.next = self.next.min(line);
        }
    }

    /// Takes `count` lines in a row; `None` when the table is full.
    pub(super) fn take(&mut self, count: u32, usage: Use) -> Option<u32> {
        loop {
            let found = self
                .room(self.next, self.end(), count)
                .or_else(|| self.room(self.start(), self.end(), count))
                .or_else(|| {
                    self.reclaim()
                        .then(|| self.room(self.start(), self.end(), count))
                        .flatten()
                });
            if let Some(line) = found {
                self.mark(line, count, usage);
                self.next = line + count;
                self.taken.push((line, count));
                return Some(line);
            }
            let more = self.capacity().max(count * 2);
            if !self.extend(more) {
                return None;
            }
        }
    }

    /// Nothing leads to these lines any more.
    pub(super) fn retire(&mut self, line: u32, count: u32) {
        let usage = match &self.memory {
            // Nobody else reads it.
            Memory::Own(_) => Use::Free,
            Memory::Kernel(_) => Use::Retired,
        };
        self.mark(line, count, usage);
    }

    /// Frees what is retired, once no program that could be reading it runs any more. Whether there is anything new.
    fn reclaim(&mut self) -> bool {
        let retired: Vec<u32> = (self.start()..self.end())
            .filter(|line| self.usage(*line) == Use::Retired)
            .collect();
        if retired.is_empty() || !wait_for_readers() {
            return false;
        }
        for line in retired {
            self.mark(line, 1, Use::Free);
        }
        true
    }

    fn room(&self, from: u32, to: u32, count: u32) -> Option<u32> {
        let mut line = from;
        let mut free = 0;
        while line < to {
            // Eight at a time where all are taken.
            if free == 0 && line.is_multiple_of(8) && all_taken(self.uses(line / 8)) {
                line += 8;
                continue;
            }
            free = if self.usage(line) == Use::Free {
                free + 1
            } else {
                0
            };
            line += 1;
            if free == count {
                return Some(line - count);
            }
        }
        None
    }

    pub(super) fn usage(&self, line: u32) -> Use {
        let byte = self.uses(line / 8) >> (line % 8 * 8);
        match byte & 0xff {
            0 => Use::Free,
            1 => Use::Row,
            2 => Use::Index,
            _ => Use::Retired,
        }
    }

    fn mark(&mut self, line: u32, count: u32, usage: Use) {
        for line in line..line + count {
            let (word, shift) = (line / 8, line % 8 * 8);
            let others = self.uses(word) & !(0xff << shift);
            self.set_uses(word, others | (usage as u64) << shift);
        }
    }

    /// The uses of eight lines.
    fn uses(&self, word: u32) -> u64 {
        self.memory
            .word(self.end() + word / LINE_WORDS, word % LINE_WORDS)
    }

    fn set_uses(&self, word: u32, uses: u64) {
        self.memory
            .store(self.end() + word / LINE_WORDS, word % LINE_WORDS, uses);
    }

    /// Makes room for at least `more` lines more, where that can be done.
    fn extend(&mut self, more: u32) -> bool {
        let before = self.memory.lines().len();
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let capacity = capacity(if before == 0 { 0 } else { uses_at(before) } + more);
        if !self.memory.extend(capacity - before) {
            return false;
        }
        if before != 0 {
            // What each line is used for moves to the new end.
            let (old, new) = (uses_at(before), uses_at(capacity));
            for word in (0..(before - old) * LINE_WORDS).rev() {
                let uses = self.memory.word(old + word / LINE_WORDS, word % LINE_WORDS);
                self.memory.store(old + word / LINE_WORDS, word % LINE_WORDS, 0);
                self.memory
                    .store(new + word / LINE_WORDS, word % LINE_WORDS, uses);
            }
        }
        self.memory.store(0, CAPACITY, capacity.into());
        true
    }

    /// Writes all of this into `other`, which is empty and larger.
    pub(super) fn copy_to(&self, other: &Memory) {
        use std::sync::atomic::Ordering::Relaxed;
        let capacity = u32::try_from(other.lines().len()).unwrap_or(u32::MAX);
        let copy = |from: &[Line], to: &[Line]| {
            for (from, to) in from.iter().zip(to) {
                for (from, to) in from.iter().zip(to) {
                    to.store(from.load(Relaxed), Relaxed);
                }
            }
        };
        let (from, to) = (self.memory.lines(), other.lines());
        copy(&from[..self.end() as usize], to);
        copy(&from[self.end() as usize..], &to[uses_at(capacity) as usize..]);
        other.store(0, CAPACITY, capacity.into());
    }
}

/// Where the uses begin in a table of `capacity` lines.
fn uses_at(capacity: u32) -> u32 {
    capacity - uses_of(capacity)
}

/// The lines that hold the uses of `capacity` lines.
fn uses_of(capacity: u32) -> u32 {
    capacity.div_ceil(size_of::<Line>() as u32)
}

/// A capacity of which at least `lines` can be used.
pub(super) fn capacity(lines: u32) -> u32 {
    lines + lines.div_ceil(63) + 1
}

fn all_taken(uses: u64) -> bool {
    (0..8).all(|byte| uses >> (byte * 8) & 0xff != 0)
}

fn half(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX)
}

/// Waits until every program that runs now has ended (kernel/sched/membarrier.c: MEMBARRIER_CMD_GLOBAL is
/// `synchronize_rcu`, and programs run within RCU). Where the kernel does not offer it, nothing may be used again.
fn wait_for_readers() -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
}
