//! Whether anybody has written a generation's tables since, without reading them.
//!
//! Every change marks the generation's folder first, with a time of modification that no other change has; a generation
//! that is loaded anew has a new folder. Both are what the pins' file system keeps anyway.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use crate::clock::Now;

/// Equal as long as nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

pub(super) fn read(folder: &Path) -> io::Result<Stamp> {
    let metadata = folder.metadata()?;
    Ok(Stamp {
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

/// Before a change: whoever is killed within it has marked it.
pub(super) fn mark(folder: &Path) -> io::Result<()> {
    // Given to the nanosecond: the kernel's own time for it moves once a tick only, and several changes fit into one.
    let now = Now::read().wall_ns;
    let part = |value: i128| i64::try_from(value).unwrap_or(0);
    let time = TimeSpec::new(
        part(now.div_euclid(1_000_000_000)),
        part(now.rem_euclid(1_000_000_000)),
    );
    Ok(futimens(File::open(folder)?, &time, &time)?)
}
