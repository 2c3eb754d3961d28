//! Services and prefixes of one generation, as the kernel searches them: written, read back, changed.
//!
//! How they lie in memory is in `pgfw_common::prefixes`. The rows, which only user space reads, are the truth; everything
//! else is an index over them, made anew where a change was cut short.

mod build;
mod change;
mod heap;
mod memory;
mod rows;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use pgfw_common::address::Family;
use pgfw_common::prefixes::{self, DIRECTORY, Key, LINE_WORDS, record};
use pgfw_common::record::{Coverage, ServiceRow, Settings};
use pgfw_common::wire;

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
}

/// How many changes to a kernel's table were begun and ended; an odd number while one is being made, or was cut short. Maps
/// a page: what a mapping costs is its pages, and a table may have thousands.
pub(super) fn changes(map: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(Memory::of_map(map, 1)?.word(CHANGES))
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
