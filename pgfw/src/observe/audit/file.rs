//! The file: appended to by several processes, rotated by size, whole lines only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::config::Fsync;

/// `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub file: PathBuf,
    pub fsync: Fsync,
    /// Bytes, from which on the file is put aside.
    pub rotate: u64,
}

impl Settings {
    /// Appends whole lines, and says how many stand there. The file is found by its name each time, so whoever renames it (logrotate, an
    /// administrator) has the next line in a new one, without a word to anybody.
    ///
    /// # Errors
    /// The disk's, with how many it took before.
    pub(super) fn append(&self, lines: &[String]) -> Result<(), (usize, io::Error)> {
        let at_once = match self.fsync {
            Fsync::Each => 1,
            Fsync::Batch | Fsync::Off => lines.len().max(1),
        };
        for (n, part) in lines.chunks(at_once).enumerate() {
            self.append_at_once(part).map_err(|error| (n * at_once, error))?;
        }
        Ok(())
    }

    fn append_at_once(&self, lines: &[String]) -> io::Result<()> {
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let mut file = self.open()?;
        let mut size = file.metadata()?.len();
        if size > 0 && size.saturating_add(text.len() as u64) > self.rotate {
            fs::rename(&self.file, self.aside())?;
            // The lock on the former one is held until the new one has its own: nobody comes in between.
            let former = std::mem::replace(&mut file, self.open()?);
            drop(former);
            size = file.metadata()?.len();
        }
        if let Err(error) = self.write(&mut file, size, &text) {
            // What was written of a line would be taken for one.
            let _ = file.set_len(size);
            return Err(error);
        }
        Ok(())
    }

    fn write(&self, file: &mut File, size: u64, text: &str) -> io::Result<()> {
        if size > 0 && !ends_a_line(file, size)? {
            // A machine that lost power in the middle of a line.
            file.write_all(b"\n")?;
        }
        file.write_all(text.as_bytes())?;
        match self.fsync {
            Fsync::Each | Fsync::Batch => file.sync_data(),
            Fsync::Off => Ok(()),
        }
    }

    /// The file of that name, locked.
    fn open(&self) -> io::Result<Flock<File>> {
        if let Some(folder) = self.file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        loop {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o640)
                // A pipe that nobody reads would keep us waiting.
                .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
                .open(&self.file)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            // Put aside by somebody else while we waited?
            let own = file.metadata()?;
            match fs::metadata(&self.file) {
                Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => return Ok(file),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// `audit.jsonl.2026-11-26T20-05-21.123Z`: sorts by time, and none is overwritten.
    fn aside(&self) -> PathBuf {
        let now = super::time(crate::clock::Now::read().wall_ns).replace(':', "-");
        let mut number = 0;
        loop {
            let mut name = self.file.as_os_str().to_owned();
            name.push(format!(".{now}"));
            if number > 0 {
                name.push(format!("-{number}"));
            }
            if !Path::new(&name).exists() {
                return name.into();
            }
            number += 1;
        }
    }
}

fn ends_a_line(file: &mut File, size: u64) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::Start(size - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
