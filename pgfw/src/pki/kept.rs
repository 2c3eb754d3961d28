//! A client certificate that stays on this host, where the user of its program reads it: `current` leads to a folder with
//! certificate, key and root, and changes as one.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use super::store::Store;
use super::{PkiError, files};
use crate::ledger::types::{Authority, Certificate};

/// A link to the newest, as programs are to name it.
const CURRENT: &str = "current";
/// A link with the same target, once the program knows of it. Nothing follows it.
const TOLD: &str = "told";
const ROOTS: &str = "root.crt";

/// Puts what was issued last for this certificate's name under `folder`, for root and this group. Nothing is written when
/// it is there, but for new roots of the server authority; only root can write to any part of the path, so no link of anybody else's is followed.
///
/// # Errors
/// Files that cannot be read or written; a key that stayed with whoever asked.
pub fn keep(store: &Store, certificate: &Certificate, folder: &Path, group: u32) -> Result<(), PkiError> {
    let link = folder.join(CURRENT);
    let target = format!(".{}", certificate.serial);
    let before = std::fs::read_link(&link).ok();
    if before.as_deref() == Some(Path::new(&target)) {
        return keep_roots(store, folder, &folder.join(&target).join(ROOTS), group);
    }
    let component = files::component(&certificate.name);
    let source = store.issued(&certificate.name);
    let contents = [
        ("postgresql.crt", certificate.pem.clone()),
        (
            "postgresql.key",
            files::read(&source.join(format!("{component}.key")))?,
        ),
        (ROOTS, store.roots(Authority::Server)?),
    ];
    files::make_folder(folder, 0o755)?;
    let whole = folder.join(&target);
    let failed = |source| PkiError::Write {
        file: whole.clone(),
        source,
    };
    // Of one that was cut off.
    match std::fs::remove_dir_all(&whole) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        Ok(()) | Err(_) => {}
    }
    files::make_folder_with(&whole, |scratch| {
        for (name, content) in &contents {
            let file = scratch.join(name);
            write_for(&file, content.as_bytes(), group).map_err(|source| PkiError::Write { file, source })?;
        }
        chown(scratch, None, Some(group))
            .and_then(|()| std::fs::set_permissions(scratch, Permissions::from_mode(0o750)))
            .map_err(|source| PkiError::Write {
                file: scratch.to_owned(),
                source,
            })
    })?;
    files::switch_link(&link, &target)?;
    for old in files::names_in(folder)? {
        let kept = [Path::new(CURRENT), Path::new(TOLD), Path::new(&target)];
        // Whoever has just followed the link can still read the one before.
        if !kept.contains(&Path::new(&old)) && before.as_deref() != Some(Path::new(&old)) {
            let _later = std::fs::remove_dir_all(folder.join(old));
        }
    }
    Ok(())
}

/// Whether the program knows of what is kept for it.
pub fn is_told(folder: &Path) -> bool {
    let target = |link: &str| std::fs::read_link(folder.join(link)).ok();
    target(CURRENT).is_some_and(|current| target(TOLD) == Some(current))
}

/// What a program reads, as far as it can be told apart from what is kept later: where `current` leads, and which file the
/// roots are.
pub fn kept_files(folder: &Path) -> (Option<PathBuf>, Option<u64>) {
    let roots = std::fs::metadata(folder.join(CURRENT).join(ROOTS));
    (
        std::fs::read_link(folder.join(CURRENT)).ok(),
        roots.ok().map(|file| file.ino()),
    )
}

/// Notes that the program knows of the certificate with this serial.
///
/// # Errors
/// A folder that cannot be written.
pub fn note_told(folder: &Path, serial: &str) -> Result<(), PkiError> {
    files::switch_link(&folder.join(TOLD), &format!(".{serial}"))
}

/// Both roots while the server authority is rotated: programs that read them again at each connection (libpq does) miss
/// nothing.
fn keep_roots(store: &Store, folder: &Path, file: &Path, group: u32) -> Result<(), PkiError> {
    let roots = match store.roots(Authority::Server) {
        // Nothing newer is known.
        Err(PkiError::NoAuthority { .. }) => return Ok(()),
        roots => roots?,
    };
    if files::read_if_there(file)?.is_some_and(|there| there == roots) {
        return Ok(());
    }
    // A program that reads them at its start alone is told again; before they are there, lest a crash leave it untold.
    files::remove(&folder.join(TOLD))?;
    let scratch = file.with_extension("new");
    files::remove(&scratch)?;
    write_for(&scratch, roots.as_bytes(), group)
        .map_err(|source| PkiError::Write {
            file: scratch.clone(),
            source,
        })
        .and_then(|()| files::rename(&scratch, file))
}

/// root:GROUP 0640, which libpq takes for a key of root's (fe-secure-openssl.c). Born 0600, whatever the umask.
fn write_for(file: &Path, content: &[u8], group: u32) -> io::Result<()> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(files::PRIVATE)
        .open(file)?;
    out.write_all(content)?;
    fchown(&out, None, Some(group))?;
    out.set_permissions(Permissions::from_mode(0o640))?;
    out.sync_all()
}
