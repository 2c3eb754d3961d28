//! Which generation of an authority signs and which count: `rotation.json` beside the generations, changed by rename.
//!
//! A generation that exists does nothing by itself. What it may do is said here alone, so a process that dies between any
//! two steps leaves an authority that signs with what everybody knows.
//!
//! ```text
//! Settled ─start─► Introducing ──► Overlap ─finish─► Dropping(old) ─► Settled
//!                       └──────abort──┴──────────► Dropping(new) ─► Settled
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::authority::{AuthorityInfo, KEY_FILE};
use super::crl::Crl;
use super::init::{InitRequest, fill};
use super::store::{CANARY_KEY, Store};
use super::{CANARY, PkiError, files, pem};
use crate::clock::WallTime;
use crate::fault::{Step, step};
use crate::ledger::Ledger;
use crate::ledger::types::{Authority, Certificate};

/// What is said of one authority's generations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    pub phase: Phase,
    /// Generations that count nowhere any more. No number is used twice.
    pub retired: Vec<u32>,
}

/// Where a rotation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Phase {
    /// There is one generation, or no rotation was ever begun.
    Settled { signs: u32 },
    /// The new one is being made known to whoever has to trust it; the old one signs.
    Introducing(Change),
    /// Both count, and the new one signs.
    Overlap(Change),
    /// One is on its way out, whether the old one or a new one that was given up.
    Dropping(Leaving),
}

/// One generation takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub old: u32,
    pub new: u32,
    pub started: WallTime,
    /// Of the server authority: serials of client certificates that were handed out with the old root alone.
    pub without: Vec<String>,
}

/// One of the two that rotate goes, the other stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    pub gone: u32,
    pub stays: u32,
    pub started: WallTime,
}

impl Leaving {
    /// It is the new one that goes.
    pub const fn given_up(&self) -> bool {
        self.gone > self.stays
    }
}

impl Phase {
    /// The generation that signs new leaves.
    pub const fn signs(&self) -> u32 {
        match self {
            Phase::Settled { signs } => *signs,
            Phase::Introducing(change) => change.old,
            Phase::Overlap(change) => change.new,
            Phase::Dropping(leaving) => leaving.stays,
        }
    }

    /// The generation that is on its way out.
    pub const fn gone(&self) -> Option<u32> {
        match self {
            Phase::Dropping(leaving) => Some(leaving.gone),
            Phase::Settled { signs: _ } | Phase::Introducing(_) | Phase::Overlap(_) => None,
        }
    }

    pub const fn is_settled(&self) -> bool {
        matches!(self, Phase::Settled { signs: _ })
    }
}

impl Rotation {
    /// Whether a certificate of this generation can count at all.
    pub fn counts(&self, generation: u32) -> bool {
        self.phase.gone() != Some(generation) && !self.retired.contains(&generation)
    }
}

impl Store {
    /// What is said of an authority; before its first rotation that all generations count and the first one signs.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn rotation(&self, authority: Authority) -> Result<Rotation, PkiError> {
        let file = self.rotation_file(authority);
        match files::read_if_there(&file)? {
            Some(text) => serde_json::from_str(&text).map_err(|e| PkiError::Damaged {
                file,
                detail: e.to_string(),
            }),
            None => Ok(Rotation {
                phase: Phase::Settled {
                    signs: self.generations_there(authority)?.first().copied().unwrap_or(1),
                },
                retired: Vec::new(),
            }),
        }
    }

    /// The generations that are there and count: what is to be trusted.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn counting(&self, authority: Authority) -> Result<Vec<u32>, PkiError> {
        let rotation = self.rotation(authority)?;
        let there = self.generations_there(authority)?;
        Ok(there.into_iter().filter(|n| rotation.counts(*n)).collect())
    }

    /// The certificate of one generation in PEM.
    ///
    /// # Errors
    /// A file that cannot be read, or holds none.
    pub fn root(&self, authority: Authority, generation: u32) -> Result<String, PkiError> {
        let file = self.root_file(authority, generation);
        let text = files::read(&file)?;
        pem::certificate(&text, &file)?;
        Ok(text)
    }

    /// Says where the rotation stands from here on, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written; it says what it said then.
    pub fn say(&self, authority: Authority, rotation: &Rotation) -> Result<(), PkiError> {
        let text = serde_json::to_string_pretty(rotation).unwrap_or_default();
        files::write(&self.rotation_file(authority), text.as_bytes(), files::PRIVATE)
    }

    fn rotation_file(&self, authority: Authority) -> PathBuf {
        self.family(authority).join("rotation.json")
    }

    /// Public parts of what counts no more are kept: logs name its serials for years.
    fn retired(&self, authority: Authority, generation: u32) -> PathBuf {
        self.family(authority)
            .join("retired")
            .join(format!("g{generation}"))
    }
}

/// Begins a rotation, or makes the generation that one which was cut off lacks. Returns its number.
///
/// # Errors
/// [`PkiError::NoAuthority`]; a file that cannot be written.
pub fn introduce(
    store: &Store,
    ledger: &mut Ledger,
    authority: Authority,
    request: &InitRequest<'_>,
    now: WallTime,
) -> Result<u32, PkiError> {
    // Nobody rotates what is not there.
    let old = store.signing_generation(authority)?;
    let rotation = store.rotation(authority)?;
    let there = store.generations_there(authority)?;
    let new = match &rotation.phase {
        Phase::Introducing(change) | Phase::Overlap(change) => change.new,
        Phase::Dropping(leaving) => return Ok(leaving.stays),
        Phase::Settled { signs: _ } => {
            let issued = ledger.certificates()?;
            let issued = issued
                .iter()
                .filter(|c| c.authority == authority)
                .map(|c| c.authority_generation);
            let used = there.iter().chain(&rotation.retired).copied().chain(issued);
            used.max().unwrap_or(0) + 1
        }
    };
    if there.contains(&new) {
        return Ok(new);
    }
    // Before anything is said of a generation that cannot be made.
    store.refuse_writable()?;
    // With no key under it yet, a passphrase that is mistyped would not be noticed.
    if store.seal.credential.is_some()
        && let Some(file) = store.unlike_the_config()?.into_iter().next()
    {
        return Err(PkiError::InTheClear { file });
    }
    store.can_write_keys()?;
    // A key that is lost is a reason to rotate; one under another passphrase than the new one would be is a mistake.
    for any in Authority::ALL {
        if let Err(error @ (PkiError::Sealed { .. } | PkiError::WrongPassphrase { .. })) = store.signing(any)
        {
            return Err(error);
        }
    }
    // Whoever gets a certificate before the new root is there does not have it: said anew where a former attempt left off.
    let without = match authority {
        Authority::Server => holders(&ledger.certificates()?, now),
        Authority::Client => Vec::new(),
    };
    let phase = Phase::Introducing(Change {
        old,
        new,
        started: now,
        without,
    });
    let retired = rotation.retired;
    store.say(authority, &Rotation { phase, retired })?;
    step(Step::RotationBegun);
    files::make_folder_with(&store.generation(authority, new), |folder| {
        fill(store, folder, authority, new, ledger, request, now)
    })?;
    Ok(new)
}

/// From here on the new generation signs.
///
/// # Errors
/// A file that cannot be read or written.
pub fn turn(store: &Store, authority: Authority) -> Result<(), PkiError> {
    let Rotation { phase, retired } = store.rotation(authority)?;
    let Phase::Introducing(change) = phase else {
        return Ok(());
    };
    let phase = Phase::Overlap(change);
    store.say(authority, &Rotation { phase, retired })
}

/// From here on the old generation signs again.
///
/// # Errors
/// A file that cannot be read or written.
pub fn turn_back(store: &Store, authority: Authority) -> Result<(), PkiError> {
    let Rotation { phase, retired } = store.rotation(authority)?;
    let Phase::Overlap(change) = phase else {
        return Ok(());
    };
    let phase = Phase::Introducing(change);
    store.say(authority, &Rotation { phase, retired })
}

/// From here on one of the two that rotate is on its way out. Returns the one that is; `None` outside a rotation.
///
/// # Errors
/// A file that cannot be read or written.
pub fn drop_one(store: &Store, authority: Authority, which: Which) -> Result<Option<u32>, PkiError> {
    let Rotation { phase, retired } = store.rotation(authority)?;
    let change = match phase {
        Phase::Introducing(change) | Phase::Overlap(change) => change,
        Phase::Dropping(leaving) => return Ok(Some(leaving.gone)),
        Phase::Settled { signs: _ } => return Ok(None),
    };
    let Change {
        old,
        new,
        started,
        without: _,
    } = change;
    let (gone, stays) = match which {
        Which::Old => (old, new),
        Which::New => (new, old),
    };
    let phase = Phase::Dropping(Leaving { gone, stays, started });
    store.say(authority, &Rotation { phase, retired })?;
    Ok(Some(gone))
}

/// Which of the two that rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Old,
    New,
}

/// The last of a generation on its way out: out of sight, its keys destroyed, its lists taken away. What an earlier
/// attempt did is not done again.
///
/// # Errors
/// A file that cannot be read, moved or removed.
pub fn retire(store: &Store, authority: Authority, lists: &[PathBuf]) -> Result<(), PkiError> {
    let Rotation { phase, mut retired } = store.rotation(authority)?;
    let Phase::Dropping(Leaving {
        gone,
        stays,
        started: _,
    }) = phase
    else {
        return Ok(());
    };
    let place = store.retired(authority, gone);
    let stands = store.generation(authority, gone);
    if stands.exists() {
        files::make_folder(place.parent().unwrap_or(Path::new("/")), 0o700)?;
        files::rename(&stands, &place)?;
    }
    // Of one that was cut off while it was made.
    files::remove_scratch(&stands)?;
    step(Step::RotationMoved);
    if place.exists() {
        for key in [KEY_FILE, CANARY_KEY] {
            files::remove(&place.join(key))?;
        }
        step(Step::RotationKeyGone);
        let info = AuthorityInfo::read(authority, gone, &place)?;
        for folder in lists {
            remove_lists(store, &info, folder)?;
        }
    }
    retired.push(gone);
    let phase = Phase::Settled { signs: stays };
    store.say(authority, &Rotation { phase, retired })
}

/// Takes the lists of `info` out of a folder; one that another authority signed under the same name stays.
fn remove_lists(store: &Store, info: &AuthorityInfo, folder: &Path) -> Result<(), PkiError> {
    let prefix = format!("{:08x}.r", info.name_hash);
    let mut others = Vec::new();
    for authority in Authority::ALL {
        others.extend(store.authorities(authority)?);
    }
    for name in files::names_in(folder)? {
        let file = folder.join(&name);
        let anothers = || {
            others
                .iter()
                .any(|other| matches!(Crl::read(&file, other), Ok(Some(_))))
        };
        if name.starts_with(&prefix) && !anothers() {
            files::remove(&file)?;
        }
    }
    Ok(())
}

/// Certificates of one generation that can still be used: neither revoked nor over.
pub fn left_of(
    all: &[Certificate],
    authority: Authority,
    generation: u32,
    now: WallTime,
) -> Vec<Certificate> {
    let of_it = |c: &&Certificate| (c.authority, c.authority_generation) == (authority, generation);
    let left = all
        .iter()
        .filter(of_it)
        .filter(|c| c.name != CANARY && c.revoked.is_none() && now < c.not_after);
    left.cloned().collect()
}

/// Serials of clients that hold a certificate, and with it the roots of its day.
fn holders(all: &[Certificate], now: WallTime) -> Vec<String> {
    let hold = |c: &&Certificate| {
        c.authority == Authority::Client && c.name != CANARY && c.revoked.is_none() && now < c.not_after
    };
    all.iter().filter(hold).map(|c| c.serial.clone()).collect()
}
