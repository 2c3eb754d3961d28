//! Who else can write where the authorities are, or read a key.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::store::Store;
use super::{PkiError, files};
use crate::ledger::types::Authority;

const STICKY: u32 = 0o1000;

/// Something that others can get at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loose {
    /// A folder in which somebody else can put another file in a file's place.
    Writable { folder: PathBuf, mode: u32, owner: u32 },
    /// A key that somebody else can read, or has.
    Readable { key: PathBuf, mode: u32, owner: u32 },
}

impl Store {
    /// Every folder on the way to a key that others can write to, and every key that they can read. What cannot be looked at
    /// is none of these.
    pub fn loose(&self) -> Vec<Loose> {
        let mut found = self.writable();
        let folders = self.folders();
        let keys = folders.iter().flat_map(|folder| {
            let names = files::names_in(folder).unwrap_or_default();
            let keys = names.into_iter().filter(|name| name.ends_with(".key"));
            keys.map(|name| folder.join(name)).collect::<Vec<_>>()
        });
        for key in keys {
            // What a link leads to is found under its own name.
            let Ok(about) = std::fs::symlink_metadata(&key) else {
                continue;
            };
            if about.is_file() && (about.mode() & 0o077 != 0 || !trusted(about.uid())) {
                found.push(Loose::Readable {
                    key,
                    mode: about.mode() & 0o7777,
                    owner: about.uid(),
                });
            }
        }
        found
    }

    /// Before something is issued: whoever can put another key in this one's place would issue instead. A revocation is not
    /// kept waiting by it.
    pub(super) fn refuse_writable(&self) -> Result<(), PkiError> {
        match self.writable().into_iter().next() {
            Some(loose) => Err(PkiError::Loose { loose }),
            None => Ok(()),
        }
    }

    fn writable(&self) -> Vec<Loose> {
        let mut on_the_way: BTreeSet<PathBuf> = self.folders();
        let real = std::fs::canonicalize(self.directory()).unwrap_or_else(|_| self.directory().to_owned());
        on_the_way.extend(real.ancestors().skip(1).map(Path::to_owned));
        let looked = on_the_way.into_iter().filter_map(|folder| {
            let about = std::fs::metadata(&folder).ok()?;
            // Where the sticky bit is, nobody renames or removes what is another's (unlink(2)).
            let others = about.mode() & 0o022 != 0 && about.mode() & STICKY == 0;
            (others || !trusted(about.uid())).then(|| Loose::Writable {
                folder,
                mode: about.mode() & 0o7777,
                owner: about.uid(),
            })
        });
        looked.collect()
    }

    /// Those of pgfw's that lead to a key.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::from([self.directory().to_owned()]);
        let families = Authority::ALL.map(|authority| self.family(authority));
        for parent in families
            .into_iter()
            .chain([self.issued_folder(), self.server_folder()])
        {
            if !parent.is_dir() {
                continue;
            }
            let inside = files::names_in(&parent).unwrap_or_default().into_iter();
            let inside = inside.map(|name| parent.join(name));
            all.extend(inside.filter(|path| path.is_dir() && !path.is_symlink()));
            all.insert(parent);
        }
        all
    }
}

/// Root, or who runs this.
fn trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw()
}

impl Loose {
    /// What to run.
    pub fn remedy(&self) -> String {
        match self {
            Loose::Writable {
                folder,
                mode: _,
                owner,
            } if !trusted(*owner) => {
                format!("Run: chown root: {0} && chmod go-w {0}", folder.display())
            }
            Loose::Writable { folder, .. } => format!("Run: chmod go-w {}", folder.display()),
            Loose::Readable { key, mode: _, owner } if !trusted(*owner) => {
                format!(
                    "Run: chown root: {0} && chmod 600 {0}; and think of whoever has read it.",
                    key.display()
                )
            }
            Loose::Readable { key, .. } => {
                format!(
                    "Run: chmod 600 {}; and think of whoever has read it.",
                    key.display()
                )
            }
        }
    }
}

impl std::fmt::Display for Loose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Loose::Writable { folder, mode, owner } => write!(
                f,
                "{} can be written by others than root (mode {mode:04o}, owner {owner})",
                folder.display()
            ),
            Loose::Readable { key, mode, owner } => write!(
                f,
                "the key {} can be read by others than root (mode {mode:04o}, owner {owner})",
                key.display()
            ),
        }
    }
}
