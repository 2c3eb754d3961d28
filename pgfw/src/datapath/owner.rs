//! Whose pins these are: a symbolic link among them names the ledger that every generation here is numbered by.
//!
//! Two ledgers count their generations from one, so that a daemon on another ledger would take the policy of this one
//! for its own, attach by its own config, and undo what it finds. The link is made before anything else and is as atomic
//! as any name in a folder; it goes with the pins, by `pgfw off` or with the boot.

use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::error::DatapathError;
use super::pins::Pins;

/// The ledger that an instance's generations are recorded in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Made with the ledger; it stays when the file is moved or restored.
    pub id: String,
    /// Where the ledger was when the pins were made: for people.
    pub ledger: PathBuf,
}

/// The id of whoever cannot read his ledger and found no pins: the ledger at the same place is his.
pub const UNKNOWN: &str = "unknown";

impl Owner {
    /// Whether pins that say `found` are this one's.
    pub fn owns(&self, found: &Owner) -> bool {
        self.id == found.id
            || ([&self.id, &found.id].contains(&&UNKNOWN.to_owned()) && self.ledger == found.ledger)
    }
}

/// That no other daemon tends these pins, for as long as this is kept.
pub type Held = Flock<File>;

/// Whose pins they are; `None` where there are none.
pub(super) fn read(pins: &Pins) -> Result<Option<Owner>, DatapathError> {
    let link = pins.owner();
    let target = match std::fs::read_link(&link) {
        Ok(target) => target,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(DatapathError::call(format!("read {}", link.display()))(error)),
    };
    let target = target.to_string_lossy();
    let (id, ledger) = target.split_once(':').unwrap_or((&target, ""));
    Ok(Some(Owner {
        id: id.to_owned(),
        ledger: ledger.into(),
    }))
}

/// Refuses pins of another ledger.
pub(super) fn check(pins: &Pins, owner: &Owner) -> Result<(), DatapathError> {
    match read(pins)? {
        Some(found) if !owner.owns(&found) => Err(DatapathError::OthersPins {
            path: pins.root().to_owned(),
            ledger: found.ledger,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Makes the pins this ledger's where they are nobody's, and holds them for this process.
pub(super) fn claim(pins: &Pins, owner: &Owner) -> Result<Held, DatapathError> {
    check(pins, owner)?;
    let link = pins.owner();
    if read(pins)?.is_some_and(|found| found.id == UNKNOWN && owner.id != UNKNOWN) {
        // The ledger can be read again.
        std::fs::remove_file(&link).map_err(DatapathError::call(format!("remove {}", link.display())))?;
    }
    match symlink(format!("{}:{}", owner.id, owner.ledger.display()), &link) {
        Ok(()) => {}
        // Ours since before, or another's since a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check(pins, owner)?,
        Err(error) => return Err(DatapathError::call(format!("make {}", link.display()))(error)),
    }
    hold(pins.root())
}

/// A copy of a state folder has the ledger's id, too: what tells two daemons apart is a lock on the folder itself.
fn hold(root: &Path) -> Result<Held, DatapathError> {
    let action = || format!("lock the folder {}", root.display());
    let folder = File::open(root).map_err(DatapathError::call(action()))?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            DatapathError::Held {
                path: root.to_owned(),
            }
        } else {
            DatapathError::call(action())(errno.into())
        }
    })
}
