//! The lines of a table: in this process while it is made, then the kernel's, mapped.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use pgfw_common::prefixes::{LINE_WORDS, Lines};

pub(in crate::datapath) type Line = [AtomicU64; LINE_WORDS as usize];

#[derive(Debug)]
pub(super) enum Memory {
    Own(Vec<Line>),
    Kernel(Mapping),
}

impl Memory {
    pub(super) fn own(lines: u32) -> Memory {
        Memory::Own(empty(lines).collect())
    }

    /// The lines of a map that was made with BPF_F_MMAPABLE.
    pub(super) fn of_map(map: BorrowedFd<'_>, lines: u32) -> io::Result<Memory> {
        Mapping::new(map, lines).map(Memory::Kernel)
    }

    pub(super) fn lines(&self) -> &[Line] {
        match self {
            Memory::Own(lines) => lines,
            Memory::Kernel(mapping) => mapping.lines(),
        }
    }

    pub(super) fn word(&self, at: u32) -> u64 {
        self.atomic(at).load(Ordering::Relaxed)
    }

    /// Stores after everything that was stored before it: whoever reads this word sees what it leads to.
    pub(super) fn store(&self, at: u32, value: u64) {
        self.atomic(at).store(value, Ordering::Release);
    }

    /// Stores words in a row.
    pub(super) fn write(&self, at: u32, words: &[u64]) {
        for (at, word) in (at..).zip(words) {
            self.store(at, *word);
        }
    }

    fn atomic(&self, at: u32) -> &AtomicU64 {
        &self.lines()[(at / LINE_WORDS) as usize][(at % LINE_WORDS) as usize]
    }

    /// Whether there is room for more lines than there are, which only this process's own can have.
    pub(super) fn extend(&mut self, lines: u32) -> bool {
        match self {
            Memory::Own(own) => {
                own.extend(empty(lines));
                true
            }
            Memory::Kernel(_) => false,
        }
    }
}

impl<'a> Lines for &'a Memory {
    type Line = &'a Line;

    fn line(&self, index: u32) -> Option<&'a Line> {
        self.lines().get(index as usize)
    }

    fn load(line: &Line, index: u32) -> u64 {
        line[(index % LINE_WORDS) as usize].load(Ordering::Acquire)
    }
}

fn empty(lines: u32) -> impl Iterator<Item = Line> {
    (0..lines).map(|_| [const { AtomicU64::new(0) }; LINE_WORDS as usize])
}

/// A shared mapping of a map's values.
#[derive(Debug)]
pub(super) struct Mapping {
    lines: NonNull<Line>,
    count: usize,
}

// SAFETY: the mapping is this value's own, and is only reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(map: BorrowedFd<'_>, lines: u32) -> io::Result<Mapping> {
        let count = lines as usize;
        let length = NonZeroUsize::new(count * size_of::<Line>()).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh shared mapping, of no more than the map's values (kernel/bpf/arraymap.c, `array_map_mmap`).
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map,
                0,
            )
        }?;
        Ok(Mapping {
            lines: start.cast(),
            count,
        })
    }

    fn lines(&self) -> &[Line] {
        // SAFETY: the mapping has that many lines, is aligned to a page, and lives as long as self; all of it is atomics,
        // for which every value is valid.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr(), self.count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, whose only reference is self.
        let _ = unsafe { munmap(self.lines.cast(), self.count * size_of::<Line>()) };
    }
}
