//! Where the files come from: the disk, or a candidate's text.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// What reads the files that a configuration leads to.
pub trait Files {
    /// The whole content.
    ///
    /// # Errors
    /// I/O; the kind counts: a file that is not there is forgiven by `include_if_exists`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// What is in a folder, in any order.
    ///
    /// # Errors
    /// I/O.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub is_directory: bool,
}

/// More than any server reads in a bearable time.
const MOST: u64 = 256 << 20;
/// /dev/null: 1, 3 (Documentation/admin-guide/devices.txt), by which people say "no maps".
const NULL: u64 = 0x103;

/// The disk, with the caller's rights.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let metadata = fs::metadata(path)?;
        let kind = metadata.file_type();
        // A server waits at a pipe for ever, and reads a device until it has no memory left; who reads its files does not.
        let is_null = kind.is_char_device() && metadata.rdev() == NULL;
        if !(kind.is_file() || kind.is_dir() || is_null) {
            return Err(io::Error::other("it is a pipe, a socket or a device"));
        }
        let mut text = Vec::new();
        fs::File::open(path)?.take(MOST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MOST {
            return Err(io::Error::other(format!("it is longer than {} MiB", MOST >> 20)));
        }
        Ok(text)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let entries = fs::read_dir(path)?.map(|entry| {
            let entry = entry?;
            Ok(Entry {
                name: std::os::unix::ffi::OsStringExt::into_vec(entry.file_name()),
                // A link to a folder is a folder: the server follows it. One that leads nowhere is what cannot be opened, if
                // its name is asked for at all; editors leave such ones as locks.
                is_directory: fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()),
            })
        });
        entries.collect()
    }
}

/// Files in memory, by their whole path.
#[derive(Debug, Clone, Default)]
pub struct Memory(pub BTreeMap<PathBuf, Vec<u8>>);

impl Memory {
    pub fn of<P: Into<PathBuf>, T: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, T)>) -> Memory {
        let files = files.into_iter().map(|(path, text)| (path.into(), text.into()));
        Memory(files.collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(text) => Ok(text.clone()),
            None if self.list(path).is_ok() => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let below = self.0.keys().filter_map(|file| file.strip_prefix(path).ok());
        let mut entries: Vec<Entry> = Vec::new();
        for rest in below {
            let mut parts = rest.components();
            if let Some(Component::Normal(name)) = parts.next() {
                let entry = Entry {
                    name: std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec(),
                    is_directory: parts.next().is_some(),
                };
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        }
        if entries.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(entries)
    }
}

/// Where a name in one file leads: absolute as it is, else beside that file, with `.` and `..` taken away from the text
/// alone (conffiles.c: `AbsoluteConfigLocation`; path.c: `canonicalize_path`).
pub(crate) fn beside(name: &[u8], file: &Path) -> PathBuf {
    let name: &Path = Path::new(std::os::unix::ffi::OsStrExt::from_bytes(name) as &std::ffi::OsStr);
    if name.is_absolute() {
        return name.to_owned();
    }
    let joined = file.parent().unwrap_or(Path::new("/")).join(name);
    let mut path = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => path.push(part),
        }
    }
    path
}
