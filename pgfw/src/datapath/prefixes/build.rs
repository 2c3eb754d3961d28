//! Builds what lies under a root slot, a root and a filter, out of the prefixes of one service and family.

use pgfw_common::prefixes::{BEGUN, Index, Key, LINE_WORDS, NODE_BITS, NODE_HEAD, slot};

use super::heap::{Heap, Use};

/// A prefix and the line of its row. In order: by address, shorter ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) length: u32,
    pub(super) row: u32,
}

impl Item {
    fn first(&self, bits: u32) -> u32 {
        self.key.first(bits)
    }

    /// The values of the first `bits` bits that the prefix holds.
    fn range(&self, bits: u32) -> std::ops::Range<u32> {
        let first = self.first(bits);
        first..first + (1 << bits.saturating_sub(self.length))
    }
}

/// From more prefixes of a service and family on, the root and the filter are large ones.
const MANY: usize = 1_024;

/// How many bits of the address the root is indexed by: 2 KiB for few prefixes, 512 KiB for many.
pub(super) fn root_bits(prefixes: usize) -> u32 {
    if prefixes > MANY { 16 } else { 8 }
}

/// The same of the filter: 8 or 512 KiB.
fn filter_bits(root: u32) -> u32 {
    if root == 16 { 22 } else { 16 }
}

/// All of one service and family; `None` when the table is full.
pub(super) fn index(heap: &mut Heap, items: &[Item]) -> Option<Index> {
    if items.is_empty() {
        return Some(Index(0));
    }
    let root = root_bits(items.len());
    let (filter, filter_line) = if items.iter().any(|item| item.length == 0) {
        // It would let everything through.
        (0, 0)
    } else {
        let bits = filter_bits(root);
        (bits, self::filter(heap, items, bits)?)
    };
    let lines = (1 << root) / LINE_WORDS;
    let root_line = heap.take(lines, Use::Index)?;
    let mut slots = vec![0; 1 << root];
    for item in items.iter().filter(|item| item.length <= root) {
        for value in item.range(root) {
            slots[value as usize] = u64::from(item.row);
        }
    }
    let longer: Vec<Item> = items.iter().filter(|item| item.length > root).copied().collect();
    for group in longer.chunk_by(|a, b| a.first(root) == b.first(root)) {
        let whole = &mut slots[group[0].first(root) as usize];
        *whole = slot(heap, group, root, *whole)?;
    }
    write(heap, root_line, 0, &slots);
    Some(Index::new(root_line, root, filter_line, filter))
}

/// A slot of the first `bits` bits, given the prefixes in it that are longer and what holds for all of it otherwise.
pub(super) fn slot(heap: &mut Heap, items: &[Item], bits: u32, whole: u64) -> Option<u64> {
    match items {
        [] => Some(whole),
        [only] => Some(whole | u64::from(only.row) << 32),
        _ => node(heap, items, bits, whole),
    }
}

fn node(heap: &mut Heap, items: &[Item], bits: u32, whole: u64) -> Option<u64> {
    const VALUES: usize = 1 << NODE_BITS;
    let mut slots = [whole; VALUES];
    let end = bits + NODE_BITS;
    let value = |item: &Item| shifted(item.key, bits).first(NODE_BITS);
    for item in items.iter().filter(|item| item.length <= end) {
        let first = value(item) as usize;
        slots[first..first + (1 << (end - item.length))].fill(u64::from(item.row));
    }
    let longer: Vec<Item> = items.iter().filter(|item| item.length > end).copied().collect();
    for group in longer.chunk_by(|a, b| value(a) == value(b)) {
        let whole = &mut slots[value(&group[0]) as usize];
        *whole = slot(heap, group, end, *whole)?;
    }
    let mut words = vec![0; NODE_HEAD as usize];
    let mut before = None;
    for (value, slot) in slots.into_iter().enumerate() {
        if before != Some(slot) {
            words[value / 64] |= 1 << (value % 64);
            words.push(slot);
            before = Some(slot);
        }
    }
    let mut begun = 0;
    for place in 0..4 {
        words[BEGUN as usize] |= begun << (place * 16);
        begun += u64::from(words[place].count_ones());
    }
    let line = heap.take(lines(words.len()), Use::Index)?;
    write(heap, line, 0, &words);
    Some(slot::NODE | u64::from(line) << 32)
}

/// A bit for each network of `bits` bits in which a prefix lies.
fn filter(heap: &mut Heap, items: &[Item], bits: u32) -> Option<u32> {
    let line = heap.take((1 << bits) / 512, Use::Index)?;
    let mut words = vec![0; 1 << (bits - 6)];
    for bit in items.iter().flat_map(|item| item.range(bits)) {
        words[bit as usize / 64] |= 1 << (bit % 64);
    }
    write(heap, line, 0, &words);
    Some(line)
}

/// The filter's words for one root slot, and which of them they are, given the prefixes in it and whether there is one
/// that holds all of it.
pub(super) fn filter_words(index: Index, value: u32, inside: &[Item], whole: bool) -> (u32, Vec<u64>) {
    let bits = index.filter_bits() - index.root_bits();
    let first = value << bits;
    // A slot of a root has 2^6 or 2^8 bits of its filter: whole words.
    let mut words = vec![if whole { u64::MAX } else { 0 }; 1 << (bits - 6)];
    for bit in inside.iter().flat_map(|item| item.range(index.filter_bits())) {
        let bit = bit - first;
        words[bit as usize / 64] |= 1 << (bit % 64);
    }
    (first / 64, words)
}

/// Gives up the nodes under a slot.
pub(super) fn retire(heap: &mut Heap, slot: u64) {
    if slot & slot::NODE == 0 {
        return;
    }
    let line = u32::try_from(slot >> 32 & slot::INNER).unwrap_or(0);
    let head: [u64; NODE_HEAD as usize] =
        std::array::from_fn(|word| heap.memory.word(line, u32::try_from(word).unwrap_or(0)));
    let count: u32 = head[..4].iter().map(|word| word.count_ones()).sum();
    for at in NODE_HEAD..NODE_HEAD + count {
        let below = heap.memory.word(line + at / LINE_WORDS, at % LINE_WORDS);
        retire(heap, below);
    }
    heap.retire(line, lines((NODE_HEAD + count) as usize));
}

/// Gives up all of an index.
pub(super) fn retire_index(heap: &mut Heap, index: Index) {
    if index.root() != 0 {
        for value in 0..1 << index.root_bits() {
            let slot = heap
                .memory
                .word(index.root() + value / LINE_WORDS, value % LINE_WORDS);
            retire(heap, slot);
        }
        heap.retire(index.root(), (1 << index.root_bits()) / LINE_WORDS);
    }
    if index.filter() != 0 {
        heap.retire(index.filter(), (1 << index.filter_bits()) / 512);
    }
}

fn shifted(key: Key, bits: u32) -> Key {
    let whole = u128::from(key.high) << 64 | u128::from(key.low);
    let rest = whole << bits;
    Key {
        high: (rest >> 64) as u64,
        low: rest as u64,
    }
}

fn lines(words: usize) -> u32 {
    u32::try_from(words).unwrap_or(u32::MAX).div_ceil(LINE_WORDS)
}

fn write(heap: &Heap, line: u32, from: u32, words: &[u64]) {
    for (at, word) in (from..).zip(words) {
        heap.memory.store(line + at / LINE_WORDS, at % LINE_WORDS, *word);
    }
}
