//! Follows the log that a server writes as JSON, over its rotations and ours.
//!
//! The server's collector names the file that it writes to in `current_logfiles` in the data directory (syslogger.c:
//! `update_metainfo_datafile`). Both are the server's user's, and are read as that user.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::log_names::LogNames;
use super::{Owner, Server};

/// Up to where a log was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub file: PathBuf,
    pub inode: u64,
    pub offset: u64,
    /// What stands there before `offset`: a file that was truncated, or has another's inode, may be longer than that.
    #[serde(default)]
    pub behind: Vec<u8>,
}

/// What a look brought.
#[derive(Debug, Default)]
pub struct NewLines {
    /// Whole lines, without their breaks.
    pub lines: Vec<Vec<u8>>,
    /// There is more than one look takes.
    pub more: bool,
    /// Something that was written is not to be had any more.
    pub gap: Option<String>,
}

/// One server's log.
#[derive(Debug)]
pub struct LogFile {
    data: PathBuf,
    owner: Owner,
    names: LogNames,
    open: Option<Open>,
    from: Option<Position>,
    /// Without a position: all that is there was written since somebody wanted to know.
    whole: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    inode: u64,
    offset: u64,
    /// The last bytes before `offset`.
    behind: Vec<u8>,
    /// In the midst of a line that is too long to be kept.
    skipping: bool,
}

/// The most that one look takes.
const AT_ONCE: u64 = 8 << 20;

/// No line about a login is longer, with three names of a start-up packet (10,000 bytes) in it, each byte written as six; a
/// statement in the log may be.
const LONGEST_LINE: usize = 1 << 18;

/// So many bytes tell one log from another: a line begins with its time and its session.
const BEHIND: usize = 64;

impl LogFile {
    /// Goes on at `from`; without that, at the end of what is there, or at its beginning (`whole`).
    pub fn new(server: &Server, names: LogNames, from: Option<Position>, whole: bool) -> LogFile {
        LogFile {
            data: server.data.clone(),
            owner: server.owner.clone(),
            names,
            open: None,
            from,
            whole,
        }
    }

    pub fn position(&self) -> Option<Position> {
        let open = self.open.as_ref()?;
        Some(Position {
            file: open.path.clone(),
            inode: open.inode,
            offset: open.offset,
            behind: open.behind.clone(),
        })
    }

    /// What was written since the last look. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The server writes no JSON, or its file cannot be read.
    pub fn read(&mut self) -> io::Result<NewLines> {
        let owner = self.owner.clone();
        owner.act(|| self.look())
    }

    fn look(&mut self) -> io::Result<NewLines> {
        let mut read = NewLines::default();
        let current = current(&self.data);
        if self.open.is_none() {
            self.open = Some(self.begin(current.as_ref().ok(), &mut read)?);
        }
        let mut left = AT_ONCE;
        while let Some(open) = &mut self.open {
            open.read(&mut left, &mut read)?;
            if left == 0 {
                read.more = true;
                break;
            }
            // It is read to its end; the server went on elsewhere before that or not at all.
            let next = match &current {
                Ok(current) => following(open, current, &self.names)?,
                Err(error) => {
                    return if read.lines.is_empty() {
                        Err(copy(error))
                    } else {
                        Ok(read)
                    };
                }
            };
            let Some(next) = next else { break };
            // What came in between the read and the look at its successor.
            open.read(&mut left, &mut read)?;
            self.open = Some(Open::at(&next, 0)?);
        }
        Ok(read)
    }

    fn begin(&mut self, current: Option<&PathBuf>, read: &mut NewLines) -> io::Result<Open> {
        if let Some(from) = self.from.take() {
            match Open::at(&from.file, from.offset) {
                Ok(mut open) if open.inode == from.inode => {
                    open.behind.clone_from(&from.behind);
                    if open.is_the_same()? {
                        return Ok(open);
                    }
                    read.gap = Some(format!(
                        "{} was written anew before it was read to its end",
                        from.file.display()
                    ));
                }
                Ok(_) | Err(_) => {
                    read.gap = Some(format!(
                        "{} was rotated away before it was read to its end",
                        from.file.display()
                    ));
                }
            }
        }
        let path = match current {
            Some(path) => path.clone(),
            None => self::current(&self.data)?,
        };
        let end = fs::metadata(&path)?.len();
        // After a gap everything that is there was written since, or is at least not older than that.
        let offset = if read.gap.is_some() || self.whole { 0 } else { end };
        Open::at(&path, offset)
    }
}

impl Open {
    fn at(path: &Path, offset: u64) -> io::Result<Open> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(format!("{} is no regular file", path.display())));
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Open {
            inode: metadata.ino(),
            path: path.to_owned(),
            file,
            behind: Vec::new(),
            offset,
            skipping: false,
        })
    }

    /// Whether what was read still stands there.
    fn is_the_same(&self) -> io::Result<bool> {
        let Some(at) = self.offset.checked_sub(self.behind.len() as u64) else {
            return Ok(false);
        };
        let mut there = vec![0; self.behind.len()];
        match self.file.read_exact_at(&mut there, at) {
            Ok(()) => Ok(there == self.behind && self.file.metadata()?.len() >= self.offset),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whole lines from where it is; what has no end yet is read again next time.
    fn read(&mut self, left: &mut u64, read: &mut NewLines) -> io::Result<()> {
        if !self.is_the_same()? {
            // Truncated in its place (log_truncate_on_rotation), and perhaps longer again.
            self.offset = 0;
            self.behind.clear();
            self.skipping = false;
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(*left).read_to_end(&mut bytes)?;
        *left -= bytes.len() as u64;
        let mut start = 0;
        while let Some(length) = bytes
            .get(start..)
            .and_then(|rest| rest.iter().position(|b| *b == b'\n'))
        {
            let line = bytes.get(start..start + length).unwrap_or_default();
            if !self.skipping && line.len() <= LONGEST_LINE {
                read.lines.push(line.to_owned());
            }
            self.skipping = false;
            start += length + 1;
        }
        if bytes.len() - start > LONGEST_LINE {
            self.skipping = true;
            start = bytes.len();
        }
        self.offset += start as u64;
        let read = bytes.get(..start).unwrap_or_default();
        self.behind
            .extend_from_slice(read.get(read.len().saturating_sub(BEHIND)..).unwrap_or_default());
        let older = self.behind.len().saturating_sub(BEHIND);
        self.behind.drain(..older);
        Ok(())
    }
}

/// The file that the server writes JSON to now.
fn current(data: &Path) -> io::Result<PathBuf> {
    let list = data.join("current_logfiles");
    let text = match fs::read_to_string(&list) {
        // No collector runs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let json = text.lines().find_map(|line| line.strip_prefix("jsonlog "));
    json.map(|path| data.join(path)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "the server writes no log in JSON (audit = { json = true }, which takes a restart)",
        )
    })
}

/// The file that comes after one that was read to its end: the next older one of the server's than what is written to now. `None` while that is the one.
fn following(open: &Open, current: &Path, names: &LogNames) -> io::Result<Option<PathBuf>> {
    let same = fs::metadata(current).is_ok_and(|named| named.ino() == open.inode);
    if same {
        return Ok(None);
    }
    let own: SystemTime = open.file.metadata()?.modified()?;
    let mut later: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in current
        .parent()
        .into_iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
    {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        let newer = metadata.modified().is_ok_and(|time| time >= own) && metadata.ino() != open.inode;
        let own = entry.file_name().to_str().is_some_and(|name| names.has(name));
        if newer && own && metadata.is_file() && path != current {
            later.push((metadata.modified()?, path));
        }
    }
    later.sort();
    Ok(Some(
        later
            .into_iter()
            .map(|(_, path)| path)
            .next()
            .unwrap_or_else(|| current.to_owned()),
    ))
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests;
