//! Which cells of a table are in use, and for what. A cell is two words.
//!
//! One byte for each, in the table's last lines, so that whoever opens the table knows. A cell that readers may still be
//! reading is *retired*; it is free once no program that ran then runs any more.

use std::sync::atomic::Ordering;

use pgfw_common::prefixes::LINE_WORDS;

use super::memory::{Line, Memory};

pub(super) const CELL_WORDS: u32 = 2;
pub(super) const LINE_CELLS: u32 = LINE_WORDS / CELL_WORDS;

/// What a cell is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Use {
    Free = 0,
    /// The first of a prefix's row.
    Row = 1,
    /// The first of an answer.
    Answer = 2,
    /// Anything else.
    Part = 3,
    Retired = 4,
}

// Words of the header.
/// Lines in all.
const CAPACITY: u32 = 0;
/// The first line that is not always in use.
const START: u32 = 1;
/// Odd while a change is being made.
pub(super) const CHANGES: u32 = 2;

/// So many cells are looked after by one word.
const PER_WORD: u32 = 8;

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
        let mut heap = Heap {
            memory: Memory::own(0),
            next: start * LINE_CELLS,
            taken: Vec::new(),
        };
        heap.extend(start + 1_024);
        heap.memory.store(START, start.into());
        heap
    }

    pub(super) fn adopt(memory: Memory) -> Heap {
        let mut heap = Heap {
            memory,
            next: 0,
            taken: Vec::new(),
        };
        heap.next = heap.first();
        heap
    }

    /// Whether this is a heap of so many lines.
    pub(super) fn is_of(&self, lines: u32) -> bool {
        self.capacity() == lines && self.first() < self.end()
    }

    /// Lines.
    pub(super) fn capacity(&self) -> u32 {
        half(self.memory.word(CAPACITY))
    }

    /// The first line that is not always in use.
    pub(super) fn start(&self) -> u32 {
        half(self.memory.word(START))
    }

    fn first(&self) -> u32 {
        self.start() * LINE_CELLS
    }

    /// Behind the last cell that can be given out.
    fn end(&self) -> u32 {
        uses_at(self.capacity()) * LINE_CELLS
    }

    /// Lines in use or retired, those that are always in use included.
    pub(super) fn used(&self) -> u32 {
        let used = (self.first()..self.end()).filter(|cell| self.usage(*cell) != Use::Free);
        self.start()
            + u32::try_from(used.count())
                .unwrap_or(u32::MAX)
                .div_ceil(LINE_CELLS)
    }

    /// Every cell of this use, as the number of its first word.
    pub(super) fn all(&self, wanted: Use) -> impl Iterator<Item = u32> + '_ {
        let (first, end) = (self.first(), self.end());
        (first / PER_WORD..end.div_ceil(PER_WORD)).flat_map(move |word| {
            let mut those = bytes_of(self.uses(word), wanted);
            std::iter::from_fn(move || {
                let cell = (those != 0).then(|| word * PER_WORD + those.trailing_zeros() / 8)?;
                those &= those - 1;
                Some(cell)
            })
            .filter(move |cell| (first..end).contains(cell))
            .map(|cell| cell * CELL_WORDS)
        })
    }

    /// Every cell in use, as the number of its first word.
    pub(super) fn in_use(&self) -> Vec<u32> {
        (self.first()..self.end())
            .filter(|cell| self.usage(*cell) != Use::Free)
            .map(|cell| cell * CELL_WORDS)
            .collect()
    }

    pub(super) fn begin(&mut self) {
        self.taken.clear();
    }

    /// Gives back everything taken since [`Heap::begin`]; nothing leads to it yet.
    pub(super) fn abandon(&mut self) {
        for (cell, count) in std::mem::take(&mut self.taken) {
            self.mark(cell, count, Use::Free);
            self.next = self.next.min(cell);
        }
    }

    /// Takes room for `words` words that begins at a multiple of `align` words; the number of the first one, or `None`
    /// when the table is full. The first cell is marked as used for `usage`.
    pub(super) fn take(&mut self, words: u32, align: u32, usage: Use) -> Option<u32> {
        let (count, align) = (words.div_ceil(CELL_WORDS), align / CELL_WORDS);
        loop {
            let found = self
                .room(self.next, count, align)
                .or_else(|| self.room(self.first(), count, align))
                .or_else(|| {
                    let reclaimed = self.reclaim();
                    reclaimed.then(|| self.room(self.first(), count, align)).flatten()
                });
            if let Some(cell) = found {
                self.mark(cell, count, Use::Part);
                self.mark(cell, 1, usage);
                self.next = cell + count;
                self.taken.push((cell, count));
                return Some(cell * CELL_WORDS);
            }
            let more = self.capacity().max(count);
            if !self.extend(more) {
                return None;
            }
        }
    }

    /// Nothing leads to these words any more.
    pub(super) fn retire(&mut self, at: u32, words: u32) {
        let usage = match &self.memory {
            // Nobody else reads it.
            Memory::Own(_) => Use::Free,
            Memory::Kernel(_) => Use::Retired,
        };
        self.mark(at / CELL_WORDS, words.div_ceil(CELL_WORDS), usage);
    }

    /// Frees what is retired, once no program that could be reading it runs any more. Whether there is anything new.
    fn reclaim(&mut self) -> bool {
        let retired: Vec<u32> = (self.first()..self.end())
            .filter(|cell| self.usage(*cell) == Use::Retired)
            .collect();
        if retired.is_empty() || !wait_for_readers() {
            return false;
        }
        for cell in retired {
            self.mark(cell, 1, Use::Free);
        }
        true
    }

    fn room(&self, from: u32, count: u32, align: u32) -> Option<u32> {
        let to = self.end();
        let mut cell = from;
        let mut free = 0;
        while cell < to {
            // Many at a time where all are taken.
            if free == 0 && cell.is_multiple_of(PER_WORD) && all_taken(self.uses(cell / PER_WORD)) {
                cell += PER_WORD;
                continue;
            }
            let fits = self.usage(cell) == Use::Free && (free != 0 || cell.is_multiple_of(align));
            free = if fits { free + 1 } else { 0 };
            cell += 1;
            if free == count {
                return Some(cell - count);
            }
        }
        None
    }

    fn usage(&self, cell: u32) -> Use {
        let byte = self.uses(cell / PER_WORD) >> (cell % PER_WORD * 8);
        match byte & 0xff {
            0 => Use::Free,
            1 => Use::Row,
            2 => Use::Answer,
            3 => Use::Part,
            _ => Use::Retired,
        }
    }

    fn mark(&mut self, cell: u32, count: u32, usage: Use) {
        let (first, end) = (self.uses_place(0), cell + count);
        let mut cell = cell;
        while cell < end {
            // Those of one word at once.
            let word = cell / PER_WORD;
            let next = end.min((word + 1) * PER_WORD);
            let bytes = (u64::MAX >> ((PER_WORD - (next - cell)) * 8)) << (cell % PER_WORD * 8);
            let others = self.memory.word(first + word) & !bytes;
            self.memory
                .store(first + word, others | (EACH * usage as u64) & bytes);
            cell = next;
        }
    }

    /// The uses of eight cells.
    fn uses(&self, word: u32) -> u64 {
        self.memory.word(self.uses_place(word))
    }

    fn uses_place(&self, word: u32) -> u32 {
        uses_at(self.capacity()) * LINE_WORDS + word
    }

    /// Makes room for at least `more` lines more, where that can be done.
    fn extend(&mut self, more: u32) -> bool {
        let before = u32::try_from(self.memory.lines().len()).unwrap_or(u32::MAX);
        let capacity = capacity(if before == 0 { 0 } else { uses_at(before) } + more);
        if !self.memory.extend(capacity - before) {
            return false;
        }
        if before != 0 {
            // What each cell is used for moves to the new end.
            let (old, new) = (uses_at(before) * LINE_WORDS, uses_at(capacity) * LINE_WORDS);
            for word in (0..before * LINE_WORDS - old).rev() {
                let uses = self.memory.word(old + word);
                self.memory.store(old + word, 0);
                self.memory.store(new + word, uses);
            }
        }
        self.memory.store(CAPACITY, capacity.into());
        true
    }

    /// Writes all of this into `other`, which is empty and larger.
    pub(super) fn copy_to(&self, other: &Memory) {
        let capacity = u32::try_from(other.lines().len()).unwrap_or(u32::MAX);
        let copy = |from: &[Line], to: &[Line]| {
            for (from, to) in from.iter().flatten().zip(to.iter().flatten()) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        let (from, to) = (self.memory.lines(), other.lines());
        let end = uses_at(self.capacity()) as usize;
        copy(&from[..end], to);
        copy(&from[end..], &to[uses_at(capacity) as usize..]);
        other.store(CAPACITY, capacity.into());
    }
}

/// The line where the uses begin in a table of `capacity` lines: a byte for each of four cells in a line.
fn uses_at(capacity: u32) -> u32 {
    capacity - capacity.div_ceil(16)
}

/// A capacity of which at least `lines` can be used.
pub(super) fn capacity(lines: u32) -> u32 {
    lines + lines.div_ceil(15) + 1
}

/// The lowest bit of each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

fn all_taken(uses: u64) -> bool {
    bytes_of(uses, Use::Free) == 0
}

/// The highest bit of each byte that says `wanted`.
fn bytes_of(uses: u64, wanted: Use) -> u64 {
    const LOW: u64 = EACH * 0x7f;
    let differ = uses ^ (EACH * wanted as u64);
    !(((differ & LOW) + LOW) | differ | LOW)
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
