//! From one table to the next, in an order in which no packet meets a gap: what widens first, what narrows last.

use std::collections::BTreeMap;

use super::coverage::{Coverage, CoverageKey, Until};
use crate::clock::BootTime;

/// The steps from one coverage table to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the order in which they are written: those that open or lengthen before those that close or shorten.
    pub put: Vec<(CoverageKey, Coverage)>,
    /// After every put: an entry whose longer prefix goes is by then answered by the shorter.
    pub remove: Vec<CoverageKey>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// The kernel counts in ticks (1 to 10 ms) and the wall clock wanders against the boot clock by its slewing: ends
/// closer than this are one end.
const SAME_END_NS: u64 = 50_000_000;

/// What has to be written so that `old`, as the kernel has it, becomes `new`.
pub fn difference(
    old: &BTreeMap<CoverageKey, Coverage>,
    new: &BTreeMap<CoverageKey, Coverage>,
) -> Difference {
    steps(old, new, same)
}

/// The same where both are compiled for one moment: then no end is near another by chance. One that is moved again and again
/// by less than what [`difference`] takes for nothing does move.
pub fn exact_difference(
    old: &BTreeMap<CoverageKey, Coverage>,
    new: &BTreeMap<CoverageKey, Coverage>,
) -> Difference {
    steps(old, new, Coverage::eq)
}

fn steps(
    old: &BTreeMap<CoverageKey, Coverage>,
    new: &BTreeMap<CoverageKey, Coverage>,
    same: impl Fn(&Coverage, &Coverage) -> bool,
) -> Difference {
    let mut widen = Vec::new();
    let mut narrow = Vec::new();
    for (key, cell) in new {
        match old.get(key) {
            Some(before) if same(before, cell) => {}
            Some(before) if before.deny >= cell.deny && before.allow <= cell.allow => {
                widen.push((*key, *cell))
            }
            Some(_) => narrow.push((*key, *cell)),
            None if cell.deny == Until::Absent => widen.push((*key, *cell)),
            None => narrow.push((*key, *cell)),
        }
    }
    widen.extend(narrow);
    let remove = old.keys().filter(|k| !new.contains_key(k)).copied().collect();
    Difference { put: widen, remove }
}

fn same(a: &Coverage, b: &Coverage) -> bool {
    let Coverage { deny, allow, world } = a;
    same_end(*deny, b.deny) && same_end(*allow, b.allow) && *world == b.world
}

fn same_end(a: Until, b: Until) -> bool {
    match (a, b) {
        (Until::At(BootTime(a)), Until::At(BootTime(b))) => a.abs_diff(b) <= SAME_END_NS,
        (Until::Absent | Until::At(_) | Until::Forever, _) => a == b,
    }
}
