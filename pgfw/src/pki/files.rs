//! Files that are whole or absent, and private from their first byte.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::PkiError;

pub(super) const PRIVATE: u32 = 0o600;
pub(super) const PUBLIC: u32 = 0o644;

/// Replaces `file` by rename; the content is on the disk before the name is.
pub(super) fn write(file: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let attempt = || {
        let (scratch, mut new) = create_scratch(file)?;
        let filled = new
            .write_all(content)
            .and_then(|()| new.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| new.sync_all())
            .and_then(|()| std::fs::rename(&scratch, file));
        if filled.is_err() {
            let _ = std::fs::remove_file(&scratch);
        }
        filled.and_then(|()| sync_folder(file))
    };
    attempt().map_err(|source| PkiError::Write {
        file: file.to_owned(),
        source,
    })
}

/// An empty file beside `file`, 0600 while it has no content yet: a umask only takes away.
pub(super) fn create_scratch(file: &Path) -> io::Result<(PathBuf, File)> {
    let scratch = scratch_name(file);
    // One writer at a time (the change lock), so whatever bears this name is left from a crash.
    ignore_absent(std::fs::remove_file(&scratch))?;
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&scratch)?;
    Ok((scratch, new))
}

/// Makes a folder and what lacks above it. `folder` and whatever is made gets `mode`, whatever the umask: a CRL below
/// a folder that the server cannot enter locks every client out.
pub(super) fn make_folder(folder: &Path, mode: u32) -> Result<(), PkiError> {
    let attempt = || {
        let missing: Vec<&Path> = folder
            .ancestors()
            .skip(1)
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
            .collect();
        for above in missing.into_iter().rev() {
            make_one(above, mode)?;
        }
        make_one(folder, mode)
    };
    attempt().map_err(|source| PkiError::Write {
        file: folder.to_owned(),
        source,
    })
}

fn make_one(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    std::fs::set_permissions(folder, Permissions::from_mode(mode))
}

/// Fills a folder out of sight, then gives it its name: it is there with all of its files, or not at all.
pub(super) fn make_folder_with(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), PkiError>,
) -> Result<(), PkiError> {
    let scratch = scratch_name(folder);
    let wrap = |source| PkiError::Write {
        file: folder.to_owned(),
        source,
    };
    ignore_absent(std::fs::remove_dir_all(&scratch)).map_err(wrap)?;
    make_folder(&scratch, 0o700)?;
    if let Err(e) = fill(&scratch) {
        let _ = std::fs::remove_dir_all(&scratch);
        return Err(e);
    }
    std::fs::rename(&scratch, folder)
        .and_then(|()| sync_folder(folder))
        .map_err(wrap)
}

/// Removes what [`make_folder_with`] has left of a folder where it was cut off.
pub(super) fn remove_scratch(folder: &Path) -> Result<(), PkiError> {
    let scratch = scratch_name(folder);
    ignore_absent(std::fs::remove_dir_all(&scratch)).map_err(|source| PkiError::Write {
        file: scratch,
        source,
    })
}

/// Points `link` at `target` by rename: a reader sees the old or the new folder, never a mixture.
pub(super) fn switch_link(link: &Path, target: &str) -> Result<(), PkiError> {
    let scratch = scratch_name(link);
    ignore_absent(std::fs::remove_file(&scratch))
        .and_then(|()| symlink(target, &scratch))
        .and_then(|()| std::fs::rename(&scratch, link))
        .and_then(|()| sync_folder(link))
        .map_err(|source| PkiError::Write {
            file: link.to_owned(),
            source,
        })
}

/// Gives a folder another name, for good when this returns.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), PkiError> {
    std::fs::rename(from, to)
        .and_then(|()| sync_folder(from))
        .and_then(|()| sync_folder(to))
        .map_err(|source| PkiError::Write {
            file: from.to_owned(),
            source,
        })
}

/// Removes a file, for good when this returns; there may be none.
pub(super) fn remove(file: &Path) -> Result<(), PkiError> {
    ignore_absent(std::fs::remove_file(file))
        .and_then(|()| sync_folder(file))
        .map_err(|source| PkiError::Write {
            file: file.to_owned(),
            source,
        })
}

pub(super) fn read(file: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(file).map_err(|source| PkiError::Read {
        file: file.to_owned(),
        source,
    })
}

/// `None` when there is no such file.
pub(super) fn read_if_there(file: &Path) -> Result<Option<String>, PkiError> {
    match read(file) {
        Ok(text) => Ok(Some(text)),
        Err(PkiError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The names in a folder; none when it is absent.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, PkiError> {
    let wrap = |source| PkiError::Read {
        file: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(wrap(e)),
    };
    entries
        .filter_map(|entry| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(e) => Some(Err(wrap(e))),
        })
        .collect()
}

/// A name as one path component that is no dot file: bytes outside `A-Za-z0-9._@+-` become `%XX`.
pub fn component(name: &str) -> String {
    let mut out = String::new();
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
        if plain && !(index == 0 && byte == b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn scratch_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
