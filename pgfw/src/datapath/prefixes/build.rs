//! Builds an index, or what lies behind one value of its root, out of the prefixes of one service and family.

use pgfw_common::address::Family;
use pgfw_common::prefixes::{CHOOSE, Key, LINE_WORDS, MOST_IN_COMMON, PART_BITS, Plan, mark, record, value};

use super::heap::{Heap, Use};

/// A prefix and the word of its answer. In order: by address, shorter ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) length: u32,
    pub(super) answer: u32,
}

/// Where an index is, and how it takes addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) family: Family,
    /// The first words of root and filter; 0: there are no prefixes.
    pub(super) root: u32,
    pub(super) filter: u32,
    pub(super) plan: Plan,
    /// The bits that all prefixes but the empty one have in common.
    pub(super) common: u64,
}

/// Bits of a root at least, and at most: 2 KiB, and 1 MiB, and as much for the filter.
const LEAST_BITS: u32 = 8;
const MOST_BITS: u32 = 17;
/// Up to so many prefixes have a word of the filter each, and marks of one bit, which are the cheapest to look for.
const FEW: usize = 1 << 10;
/// More of them share a word, on average and at most: one address in thirty then finds its mark by chance.
const PER_WORD: usize = 7;

/// Bits of the root for so many prefixes.
fn root_bits(prefixes: usize) -> u32 {
    let words = if prefixes <= FEW {
        prefixes
    } else {
        FEW.max(prefixes.div_ceil(PER_WORD))
    };
    words
        .next_power_of_two()
        .trailing_zeros()
        .clamp(LEAST_BITS, MOST_BITS)
}

/// How many bits go into a mark: those with which the fewest addresses find one by chance. With few, other addresses
/// have the same; with many, a prefix that is shorter sets the marks of all that it holds, and the words are full.
fn mark_bits(root_bits: u32, beyond: impl Iterator<Item = u32>) -> u32 {
    const MOST: u32 = 16;
    // How many prefixes are longer than the root, by how much.
    let mut lengths = [0.0; MOST as usize + 1];
    for length in beyond.filter(|length| *length != 0) {
        lengths[length.min(MOST) as usize] += 1.0;
    }
    let by_chance = |bits: u32| {
        let values = (1..=MOST).zip(&lengths[1..]);
        let set = values.map(|(length, count)| count * f64::from(1 << bits.saturating_sub(length)));
        let marks = set.sum::<f64>() / f64::from(1 << root_bits);
        let filled = 1.0 - (-2.0 * marks / 64.0).exp();
        filled.powi(2) + marks / f64::from(1 << bits)
    };
    (CHOOSE..=MOST)
        .min_by(|a, b| by_chance(*a).total_cmp(&by_chance(*b)))
        .unwrap_or(MOST)
}

impl Index {
    /// Of these prefixes, without root and filter.
    fn of(family: Family, items: &[Item]) -> Index {
        let root_bits = root_bits(items.len());
        let mut longer = items.iter().filter(|item| item.length != 0);
        let outside = items
            .iter()
            .find(|item| item.length == 0)
            .map_or(0, |item| item.answer);
        let (common_bits, common) = match longer.next() {
            None => (0, 0),
            Some(first) => longer.fold(
                (first.length.min(MOST_IN_COMMON), first.key.high),
                |(bits, common), item| {
                    let same = (item.key.high ^ common).leading_zeros();
                    (bits.min(item.length).min(same), common)
                },
            ),
        };
        let whole = items.iter().find(|item| item.length == common_bits);
        let beyond = items
            .iter()
            .map(|item| item.length.saturating_sub(common_bits + root_bits));
        Index {
            family,
            root: 0,
            filter: 0,
            plan: Plan {
                root_bits,
                mark_bits: if items.len() <= FEW {
                    0
                } else {
                    mark_bits(root_bits, beyond)
                },
                common_bits,
                base: whole.map_or(outside, |item| item.answer),
                outside,
            },
            common: common & u64::MAX.checked_shl(64 - common_bits).unwrap_or(0),
        }
    }

    /// That of a family in a record.
    pub(super) fn read(heap: &Heap, line: u32, family: Family) -> Index {
        let words = line * LINE_WORDS + family_words(family);
        let place = heap.memory.word(words + record::WHERE);
        Index {
            family,
            root: place as u32 * LINE_WORDS,
            filter: (place >> 32) as u32 * LINE_WORDS,
            plan: Plan::from_word(heap.memory.word(words + record::PLAN)),
            common: heap.memory.word(words + record::COMMON),
        }
    }

    /// Its words in a record.
    pub(super) fn words(&self) -> [u64; record::FAMILY_WORDS as usize] {
        let place = u64::from(self.root / LINE_WORDS) | u64::from(self.filter / LINE_WORDS) << 32;
        [place, self.plan.word(), self.common]
    }

    /// Whether a prefix lies behind one value of the root, and which; otherwise it takes a new index to change it.
    pub(super) fn slot(&self, key: Key, length: u32) -> Option<u32> {
        let Plan {
            root_bits,
            common_bits,
            ..
        } = self.plan;
        if self.root == 0 {
            return None;
        }
        let common = common_bits == 0 || (key.high ^ self.common) >> (64 - common_bits) == 0;
        (common && length >= common_bits + root_bits).then(|| self.rest(key).first(root_bits))
    }

    /// Whether it is still the right one for so many prefixes; otherwise more addresses than need be get beyond its filter.
    pub(super) fn suits(&self, prefixes: usize) -> bool {
        let one_bit_marks = self.plan.mark_bits == 0;
        root_bits(prefixes) <= self.plan.root_bits && (prefixes <= FEW || !one_bit_marks)
    }

    /// Without the bits in common.
    pub(super) fn rest(&self, key: Key) -> Key {
        match self.plan.common_bits {
            0 => key,
            bits => key.after(bits),
        }
    }

    /// The same prefix without the bits in common; `None` for one that holds all that have them.
    pub(super) fn cut(&self, item: &Item) -> Option<Item> {
        let bits = self.plan.common_bits;
        (item.length > bits).then(|| Item {
            key: self.rest(item.key),
            length: item.length - bits,
            answer: item.answer,
        })
    }
}

/// The values of the first `bits` bits that a prefix holds.
fn range(item: &Item, bits: u32) -> std::ops::Range<u32> {
    let first = item.key.first(bits);
    first..first + (1 << bits.saturating_sub(item.length))
}

/// The index of all prefixes of one service and family; `None` when the table is full.
pub(super) fn all(heap: &mut Heap, family: Family, items: &[Item]) -> Option<Index> {
    let mut index = Index::of(family, items);
    if items.is_empty() {
        return Some(index);
    }
    let bits = index.plan.root_bits;
    let cut: Vec<Item> = items.iter().filter_map(|item| index.cut(item)).collect();
    let mut filter = vec![0_u64; 1 << bits];
    let mut root = vec![0_u64; 1 << bits];
    for item in &cut {
        if item.length <= bits {
            let held = range(item, bits);
            filter[held.start as usize..held.end as usize].fill(u64::MAX);
            root[held.start as usize..held.end as usize].fill(u64::from(item.answer));
        } else {
            filter[item.key.first(bits) as usize] |= marks(&index, item);
        }
    }
    let longer: Vec<Item> = cut.into_iter().filter(|item| item.length > bits).collect();
    for group in longer.chunk_by(|a, b| a.key.first(bits) == b.key.first(bits)) {
        let slot = &mut root[group[0].key.first(bits) as usize];
        *slot = behind(heap, &index, group, *slot)?;
    }
    let mut put = |words: &[u64]| {
        let at = heap.take(u32::try_from(words.len()).ok()?, LINE_WORDS, Use::Part)?;
        heap.memory.write(at, words);
        Some(at)
    };
    (index.root, index.filter) = (put(&root)?, put(&filter)?);
    Some(index)
}

/// A value of the root, given the prefixes behind it that are longer, without the bits in common, and the value that holds
/// otherwise (0: the base).
pub(super) fn behind(heap: &mut Heap, index: &Index, items: &[Item], whole: u64) -> Option<u64> {
    let bits = index.plan.root_bits;
    let rests: Vec<Item> = items
        .iter()
        .map(|item| Item {
            key: item.key.after(bits),
            length: item.length - bits,
            answer: item.answer,
        })
        .collect();
    match index.family {
        Family::V4 => {
            let ranges = ranges(&rests.iter().map(Range::whole).collect::<Vec<_>>(), whole);
            parts(heap, &ranges)
        }
        Family::V6 => {
            // Those that go beyond 64 bits more are lists behind these.
            let mut firsts: Vec<Range> = Vec::new();
            let mut around: Vec<Range> = Vec::new();
            for group in rests.chunk_by(|a, b| a.key.high == b.key.high) {
                let start = u128::from(group[0].key.high);
                while around.pop_if(|range| range.end <= start).is_some() {}
                let (short, long): (Vec<&Item>, Vec<&Item>) =
                    group.iter().partition(|item| item.length <= 64);
                for range in short.into_iter().map(Range::whole) {
                    firsts.push(range);
                    around.push(range);
                }
                if !long.is_empty() {
                    let long: Vec<Range> = long.into_iter().map(Range::beyond).collect();
                    let whole = around.last().map_or(whole, |range| range.value);
                    firsts.push(Range {
                        start,
                        end: start + 1,
                        value: list(heap, &ranges(&long, whole))?,
                    });
                }
            }
            list(heap, &ranges(&firsts, whole))
        }
    }
}

/// Addresses from `start` up to before `end`, of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u128,
    end: u128,
    value: u64,
}

const END: u128 = 1 << 64;

impl Range {
    fn whole(item: &Item) -> Range {
        Range::new(item.key.high, item.length, item.answer)
    }

    fn beyond(item: &Item) -> Range {
        Range::new(item.key.low, item.length - 64, item.answer)
    }

    fn new(start: u64, length: u32, answer: u32) -> Range {
        Range {
            start: start.into(),
            end: u128::from(start) + (1 << (64 - length)),
            value: answer.into(),
        }
    }

    /// Bits that all of it has in common, where it is all that has them.
    fn length(&self) -> Option<u32> {
        let size = self.end - self.start;
        (size.is_power_of_two() && self.start.is_multiple_of(size)).then(|| 64 - size.trailing_zeros())
    }
}

/// Which range says what, each address once, in order: of ranges that lie in one another the innermost counts, and where
/// there is none, `whole`. Where that is 0 there may be nothing between two.
fn ranges(nested: &[Range], whole: u64) -> Vec<Range> {
    let mut flat: Vec<Range> = Vec::new();
    let mut emit = |start: u128, end: u128, value: u64| match flat.last_mut() {
        _ if start >= end => {}
        Some(last) if last.end == start && last.value == value => last.end = end,
        Some(_) | None => flat.push(Range { start, end, value }),
    };
    let mut around = vec![Range {
        start: 0,
        end: END,
        value: whole,
    }];
    let mut at = 0;
    for range in nested {
        while let Some(top) = around.pop_if(|top| top.end <= range.start) {
            emit(at, top.end, top.value);
            at = at.max(top.end);
        }
        emit(at, range.start, around.last().map_or(whole, |top| top.value));
        at = range.start;
        around.push(*range);
    }
    while let Some(top) = around.pop() {
        emit(at, top.end, top.value);
        at = at.max(top.end);
    }
    flat.retain(|range| range.value != 0);
    flat
}

/// An entry of a list: where it begins, what it says, and how many bits from there on it fixes; 0: it holds as far as the
/// next.
struct Entry {
    start: u64,
    length: u32,
    value: u64,
}

fn entries(ranges: &[Range]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (place, range) in ranges.iter().enumerate() {
        let next = ranges.get(place + 1).map_or(END, |next| next.start);
        let length = range.length().filter(|_| next != range.end);
        let mut push = |start: u128, length, value| {
            entries.push(Entry {
                start: start as u64,
                length,
                value,
            });
        };
        push(range.start, length.unwrap_or(0), range.value);
        if length.is_none() && next != range.end {
            push(range.end, 0, 0);
        }
    }
    entries
}

/// IPv4: the value that leads to these.
fn parts(heap: &mut Heap, ranges: &[Range]) -> Option<u64> {
    if let Some(value) = everywhere(ranges) {
        return Some(value);
    }
    let words: Vec<u64> = entries(ranges)
        .into_iter()
        .map(|entry| {
            entry.value
                | value::PART << value::KIND
                | u64::from(entry.length) << value::LENGTH
                | entry.start >> (64 - PART_BITS) << value::START
        })
        .collect();
    match words[..] {
        [only] => Some(only),
        _ => store(heap, &words, words.len()),
    }
}

/// IPv6: the value that leads to these.
fn list(heap: &mut Heap, ranges: &[Range]) -> Option<u64> {
    if let Some(value) = everywhere(ranges) {
        return Some(value);
    }
    let entries = entries(ranges);
    let words: Vec<u64> = entries
        .iter()
        .flat_map(|entry| {
            let is_list = entry.value >> value::KIND & 3 == value::LIST;
            let length = if is_list { 0 } else { entry.length };
            [entry.start, entry.value | u64::from(length) << value::LENGTH]
        })
        .collect();
    store(heap, &words, entries.len())
}

/// The value of these, where it is the same everywhere.
fn everywhere(ranges: &[Range]) -> Option<u64> {
    match ranges {
        [] => Some(0),
        [only] if only.start == 0 && only.end == END => Some(only.value),
        _ => None,
    }
}

fn store(heap: &mut Heap, words: &[u64], entries: usize) -> Option<u64> {
    let at = heap.take(u32::try_from(words.len()).ok()?, 2, Use::Part)?;
    heap.memory.write(at, words);
    Some(u64::from(at) | value::LIST << value::KIND | (entries as u64) << value::COUNT)
}

/// The marks of all that a prefix holds behind one value of the root. Without the bits in common.
pub(super) fn marks(index: &Index, item: &Item) -> u64 {
    let Plan {
        root_bits, mark_bits, ..
    } = index.plan;
    let behind = Item {
        key: item.key.after(root_bits),
        length: item.length - root_bits,
        answer: item.answer,
    };
    let bits = mark_bits.max(CHOOSE);
    range(&behind, bits).fold(0, |marks, value| {
        marks | mark(u64::from(value) << (64 - bits), mark_bits)
    })
}

/// Gives up the lists behind a value.
pub(super) fn retire(heap: &mut Heap, family: Family, value: u64) {
    if value >> value::KIND & 3 != value::LIST {
        return;
    }
    let (at, count) = (value as u32, (value >> value::COUNT) as u32);
    match family {
        Family::V4 => heap.retire(at, count),
        Family::V6 => {
            for entry in 0..count {
                let behind = heap.memory.word(at + entry * 2 + 1);
                retire(heap, family, behind);
            }
            heap.retire(at, count * 2);
        }
    }
}

/// Gives up all of an index.
pub(super) fn retire_all(heap: &mut Heap, index: &Index) {
    if index.root == 0 {
        return;
    }
    for slot in 0..1 << index.plan.root_bits {
        let value = heap.memory.word(index.root + slot);
        retire(heap, index.family, value);
    }
    heap.retire(index.root, 1 << index.plan.root_bits);
    heap.retire(index.filter, 1 << index.plan.root_bits);
}

/// Where a family's words are in a record.
pub(super) fn family_words(family: Family) -> u32 {
    record::FAMILIES + family as u32 * record::FAMILY_WORDS
}
