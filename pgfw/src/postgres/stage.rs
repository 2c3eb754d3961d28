//! Generations: folders `gen-N` that hold one complete set of files, and `current`, the link that chooses.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Owner, PostgresError};

/// The files of one generation: name and content.
pub(super) type Files = Vec<(&'static str, Vec<u8>)>;

/// Lists each file's digest, so that an edit by someone else is noticed.
const MANIFEST: &str = "MANIFEST";

/// One cluster's folder in the state directory.
#[derive(Debug, Clone)]
pub(super) struct Generations {
    directory: PathBuf,
}

impl Generations {
    /// Makes the folder, passable for the server's user.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn open(state_dir: &Path, directory: &Path) -> Result<Generations, PostgresError> {
        let made = || {
            let directory = std::path::absolute(directory)?;
            fs::create_dir_all(&directory)?;
            // The ledger beside them has its own mode; these hold nothing a passer-by could read.
            let parents = directory.ancestors().take_while(|d| d.starts_with(state_dir));
            for parent in parents {
                let metadata = fs::metadata(parent)?;
                if metadata.uid() == nix::unistd::Uid::effective().as_raw() {
                    let mode = metadata.permissions().mode();
                    fs::set_permissions(parent, Permissions::from_mode(mode | 0o011))?;
                }
            }
            Ok(Generations { directory })
        };
        made().map_err(PostgresError::file("cannot make", directory))
    }

    /// The same folder to look at; it may not be there.
    ///
    /// # Errors
    /// Without a working directory.
    pub(super) fn at(directory: &Path) -> Result<Generations, PostgresError> {
        let directory =
            std::path::absolute(directory).map_err(PostgresError::file("cannot find", directory))?;
        Ok(Generations { directory })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.directory
    }

    /// The link; every path that the server sees goes through it.
    pub(super) fn current_link(&self) -> PathBuf {
        self.directory.join("current")
    }

    /// The number `current` points to.
    pub(super) fn current(&self) -> Option<u32> {
        number(&self.current_link())
    }

    /// The one that a server was last seen to go by. Another than `current` after an apply that was cut off before its
    /// proof, or one that a server that was down has not read yet.
    pub(super) fn proven(&self) -> Option<u32> {
        number(&self.proven_link())
    }

    /// # Errors
    /// I/O; the former one stands.
    pub(super) fn mark_proven(&self, generation: u32) -> Result<(), PostgresError> {
        if self.proven() == Some(generation) {
            return Ok(());
        }
        let link = self.proven_link();
        replace_with_link(&link, Path::new(&format!("gen-{generation}")))
            .map_err(PostgresError::file("cannot mark as proven", &link))
    }

    fn proven_link(&self) -> PathBuf {
        self.directory.join("proven")
    }

    pub(super) fn path(&self, generation: u32) -> PathBuf {
        self.directory.join(format!("gen-{generation}"))
    }

    /// Whether `generation` holds exactly these files.
    pub(super) fn holds(&self, generation: u32, files: &Files) -> bool {
        let directory = self.path(generation);
        files
            .iter()
            .all(|(name, content)| fs::read(directory.join(name)).is_ok_and(|found| found == *content))
    }

    /// Looks whether someone edited a file of `generation`.
    ///
    /// # Errors
    /// [`PostgresError::Drift`], naming the file.
    pub(super) fn check_unedited(&self, generation: u32) -> Result<(), PostgresError> {
        let directory = self.path(generation);
        let manifest = directory.join(MANIFEST);
        let text = fs::read_to_string(&manifest).map_err(PostgresError::file("cannot read", &manifest))?;
        for (digest, name) in text.lines().filter_map(|l| l.split_once("  ")) {
            let path = directory.join(name);
            let found = fs::read(&path).map_err(|e| PostgresError::Drift {
                path: path.clone(),
                message: e.to_string(),
            })?;
            if digest_of(&found) != digest {
                return Err(PostgresError::Drift {
                    path,
                    message: "its content is not what pgfw wrote".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Writes a new generation, readable by root and the server's user, and on disk when this returns.
    ///
    /// # Errors
    /// I/O; nothing is left then that counts.
    pub(super) fn write(&self, files: &Files, owner: &Owner) -> Result<u32, PostgresError> {
        let generation = self.numbers().into_iter().max().unwrap_or(0) + 1;
        let path = self.path(generation);
        let unfinished = self.directory.join("unfinished");
        let written = || {
            match fs::remove_dir_all(&unfinished) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
            fs::create_dir(&unfinished)?;
            let mut manifest = String::new();
            for (name, content) in files {
                manifest.push_str(&format!("{}  {name}\n", digest_of(content)));
                write_file(&unfinished.join(name), content, owner)?;
            }
            write_file(&unfinished.join(MANIFEST), manifest.as_bytes(), owner)?;
            std::os::unix::fs::chown(&unfinished, None, Some(owner.gid))?;
            fs::set_permissions(&unfinished, Permissions::from_mode(0o750))?;
            sync(&unfinished)?;
            fs::rename(&unfinished, &path)?;
            sync(&self.directory)
        };
        written().map_err(PostgresError::file("cannot write", &path))?;
        Ok(generation)
    }

    /// Looks whether the server's user reaches every file, through every parent.
    ///
    /// # Errors
    /// [`PostgresError::Unreadable`], naming the first it does not.
    pub(super) fn check_readable(
        &self,
        generation: u32,
        files: &Files,
        owner: &Owner,
    ) -> Result<(), PostgresError> {
        for (name, _) in files {
            let path = self.path(generation).join(name);
            let read = owner.act(|| File::open(&path)?.read(&mut [0]));
            read.map_err(|source| PostgresError::Unreadable {
                path,
                user: owner.name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Points `current` to `generation`, or removes it: one rename.
    ///
    /// # Errors
    /// I/O; the link is then what it was.
    pub(super) fn choose(&self, generation: Option<u32>) -> io::Result<()> {
        let link = self.current_link();
        match generation {
            Some(generation) => replace_with_link(&link, Path::new(&format!("gen-{generation}"))),
            None => fs::remove_file(&link).and_then(|()| sync(&self.directory)),
        }
    }

    /// Removes generations that are none of `keep`: they hold keys.
    pub(super) fn prune(&self, keep: &[Option<u32>]) {
        for number in self.numbers() {
            if !keep.contains(&Some(number)) {
                // What cannot be removed now is tried again at the next apply.
                let _later = fs::remove_dir_all(self.path(number));
            }
        }
    }

    /// Forgets them all: nothing leads to them any more, and they hold keys.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn forget(&self) -> Result<(), PostgresError> {
        let link = self.current_link();
        match self.choose(None) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(PostgresError::file("cannot remove", &link)(e));
            }
            Ok(()) | Err(_) => {}
        }
        // Of what is forgotten nothing is proven; a link that stays leads nowhere.
        let _stays = fs::remove_file(self.proven_link());
        self.prune(&[]);
        super::scratch::forget(&self.directory);
        Ok(())
    }

    fn numbers(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.strip_prefix("gen-")?.parse().ok())
            .collect()
    }
}

/// The generation that a link leads to.
fn number(link: &Path) -> Option<u32> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("gen-")?.parse().ok()
}

/// Puts a link in the place of whatever is at `path`, at once. Follows nothing.
pub(super) fn replace_with_link(path: &Path, target: &Path) -> io::Result<()> {
    let fresh = sibling(path, ".pgfw-new");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(target, &fresh)?;
    fs::rename(&fresh, path)?;
    sync(path.parent().unwrap_or(Path::new("/")))
}

/// `path` with `suffix` after its name.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// root:GROUP 0640, a mode that the server takes for a key of root's (be-secure-common.c:
/// `check_ssl_key_file_permissions`). Born 0600, whatever the umask.
fn write_file(path: &Path, content: &[u8], owner: &Owner) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    std::os::unix::fs::fchown(&file, None, Some(owner.gid))?;
    file.set_permissions(Permissions::from_mode(0o640))?;
    file.sync_all()
}

fn digest_of(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
