//! Publishing the CRLs: one per authority and generation, into every folder that a server reads.
//!
//! A list holds what the ledger says and what the lists that are there say: a ledger that was lost or restored
//! revives nobody, nor does a deleted file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::authority::{AuthorityInfo, CRL_FILE, SigningAuthority};
use super::crl::{self, Crl, Revoked};
use super::store::Store;
use super::{PkiError, files};
use crate::clock::WallTime;
use crate::failure::Failure;
use crate::ledger::types::{Authority, Revocation};
use crate::ledger::{Ledger, LedgerError};

/// A month before a list lapses, or a quarter of its life if that is shorter.
const ALARM: Duration = Duration::from_secs(30 * 86_400);

/// Nobody has to renew a list by hand.
const RENEWED_BY: &str =
    "The daemon renews the CRLs every hour: see that it runs and what its log says about them.";

/// Where lists go and how long they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlTargets {
    /// Folders named by `ssl_crl_dir`; made (0755) when absent.
    pub folders: Vec<PathBuf>,
    /// `pki.crl_ttl`.
    pub ttl: Duration,
}

/// What became of the lists. Each file is tried, whatever happened to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Publication {
    pub published: Vec<Published>,
    /// What could not be signed or written.
    pub failures: Vec<Failure>,
    /// Lists that stood and could not be read. What only they knew is lost; unless writing failed too, they are replaced.
    pub damaged: Vec<Failure>,
}

/// One list that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    pub authority: Authority,
    pub generation: u32,
    pub file: PathBuf,
    pub number: u64,
    pub entries: usize,
    pub next_update: WallTime,
}

/// Signs new lists, from `revocations` and the lists that stand, and puts them in place.
///
/// # Errors
/// [`PkiError::NoAuthority`]; everything else is in [`Publication::failures`].
pub fn publish(
    store: &Store,
    revocations: &[Revocation],
    targets: &CrlTargets,
    now: WallTime,
) -> Result<Publication, PkiError> {
    let mut result = Publication::default();
    result
        .failures
        .extend(lost(store, revocations)?.into_iter().map(Failure::from));
    for place in places(store, targets)? {
        let standing = place.standing();
        result
            .damaged
            .extend(standing.damaged.into_iter().map(Failure::from));
        let mut revoked = standing.revoked;
        crl::join(&mut revoked, place.recorded(revocations));
        let list = Crl::next(standing.number, revoked, targets.ttl, now);
        let signed =
            SigningAuthority::load(store, place.info.authority, place.info.generation, &place.folder)
                .and_then(|authority| list.sign(&authority));
        let text = match signed {
            Ok(text) => text,
            // Nobody trusts it any more, or is about to: what it cannot say is in nobody's way.
            Err(e) if place.gone => {
                result.damaged.push(e.into());
                continue;
            }
            Err(e) => {
                result.failures.push(e.into());
                // What was signed before and is whole still serves, also where it does not stand yet.
                if let Some(text) = place.whole(&list.revoked, now) {
                    let lacking = place.files.iter().filter(|f| !place.holds(f, &list.revoked, now));
                    let spread = lacking.filter_map(|file| place.put(file, &text).err());
                    result.failures.extend(spread.map(Failure::from));
                }
                continue;
            }
        };
        for file in &place.files {
            match place.put(file, &text) {
                Ok(()) => result.published.push(Published {
                    authority: place.info.authority,
                    generation: place.info.generation,
                    file: file.clone(),
                    number: list.number,
                    entries: list.revoked.len(),
                    next_update: list.next_update,
                }),
                Err(e) => result.failures.push(e.into()),
            }
        }
    }
    Ok(result)
}

/// Repairs and renews: the ledger learns what only a list knew, and new lists are published when one is missing,
/// damaged, incomplete, ahead of the clock or past half of its life. Nothing is written when all is well.
///
/// `unrecorded`: what the ledger could not take yet; the lists say it all the same.
///
/// # Errors
/// [`PkiError::NoAuthority`], a ledger that cannot be read. That it cannot be written is among the failures.
pub fn refresh(
    store: &Store,
    ledger: &mut Ledger,
    unrecorded: &[Revocation],
    targets: &CrlTargets,
    now: WallTime,
) -> Result<Publication, PkiError> {
    let absorbed = match absorb(store, ledger, targets) {
        Err(PkiError::Ledger(error)) => Some(error),
        done => done.map(|_| None)?,
    };
    let mut revocations = ledger.revocations()?;
    revocations.extend_from_slice(unrecorded);
    let half = seconds(targets.ttl) / 2;
    let in_half = WallTime(now.0.saturating_add(half));
    let due = places(store, targets)?.iter().any(|place| {
        let wanted = place.wanted(&revocations);
        let mut files = place.files.iter();
        files.any(|file| !place.holds(file, &wanted, now) || !place.holds(file, &wanted, in_half))
    });
    let mut publication = if due || !lost(store, &revocations)?.is_empty() {
        publish(store, &revocations, targets, now)?
    } else {
        Publication::default()
    };
    if let Some(error) = absorbed {
        publication.note(error);
    }
    Ok(publication)
}

/// Whether the lists that stand can be gone by as they are: each there, in force, and with everything that was revoked.
///
/// # Errors
/// [`PkiError::NoAuthority`]
pub fn lists_hold(
    store: &Store,
    revocations: &[Revocation],
    targets: &CrlTargets,
    now: WallTime,
) -> Result<bool, PkiError> {
    let places = places(store, targets)?;
    let lost = !lost(store, revocations)?.is_empty();
    Ok(!lost
        && places.iter().filter(|place| !place.gone).all(|place| {
            let wanted = place.wanted(revocations);
            let mut published = place.files.iter().filter(|file| place.is_published(file));
            published.all(|file| place.holds(file, &wanted, now))
        }))
}

/// When the first of the lists that stand lapses; `None` where there is none.
///
/// # Errors
/// [`PkiError::NoAuthority`]
pub fn lists_until(store: &Store, targets: &CrlTargets) -> Result<Option<WallTime>, PkiError> {
    let places = places(store, targets)?;
    let lists = places.iter().flat_map(|place| {
        place
            .files
            .iter()
            .filter_map(|f| Crl::read(f, &place.info).ok().flatten())
    });
    Ok(lists.map(|list| list.next_update).min())
}

/// What is wrong with the lists as they stand, a month before it hurts.
///
/// # Errors
/// [`PkiError::NoAuthority`]
pub fn alarms(store: &Store, targets: &CrlTargets, now: WallTime) -> Result<Vec<Failure>, PkiError> {
    let margin = seconds(ALARM).min(seconds(targets.ttl) / 4);
    let mut alarms = Vec::new();
    for place in places(store, targets)? {
        for file in &place.files {
            match Crl::read(file, &place.info) {
                Ok(Some(list)) if list.this_update > now => alarms.push(alarm(
                    file,
                    &format!("counts only from {}", list.this_update.rfc3339()),
                    "Check this host's clock.",
                )),
                Ok(Some(list)) if list.next_update.0.saturating_sub(now.0) < margin => alarms.push(alarm(
                    file,
                    &format!(
                        "lapses at {}; then no certificate is accepted",
                        list.next_update.rfc3339()
                    ),
                    RENEWED_BY,
                )),
                Ok(Some(_)) => {}
                Ok(None) => {
                    alarms.push(alarm(file, "is missing", RENEWED_BY));
                }
                Err(e) => alarms.push(e.into()),
            }
        }
    }
    Ok(alarms)
}

/// The lists of every authority, client authorities first, as one PEM text (`ssl_crl_file`); with a `folder` also put
/// there under the names that `ssl_crl_dir` takes, for a server on another host.
///
/// # Errors
/// [`PkiError::NoAuthority`]; a list that is missing or damaged, a folder that cannot be written.
pub fn export(store: &Store, folder: Option<&Path>) -> Result<String, PkiError> {
    let targets = CrlTargets {
        folders: folder.map(Path::to_owned).into_iter().collect(),
        ttl: Duration::ZERO,
    };
    let mut all = String::new();
    for place in places(store, &targets)? {
        let own = place.folder.join(CRL_FILE);
        let text = files::read(&own)?;
        // Another server goes by it: what is damaged would refuse every certificate there.
        Crl::read(&own, &place.info)?;
        if let Some(folder) = folder {
            files::make_folder(folder, 0o755)?;
            let copies = place.files.iter().filter(|file| **file != own);
            for copy in copies {
                files::write(copy, text.as_bytes(), files::PUBLIC)?;
            }
        }
        all.push_str(&text);
    }
    Ok(all)
}

/// Records revocations that a standing list knows and the ledger does not; returns how many.
fn absorb(store: &Store, ledger: &mut Ledger, targets: &CrlTargets) -> Result<usize, PkiError> {
    let mut found = Vec::new();
    for place in places(store, targets)? {
        found.extend(
            place
                .standing()
                .revoked
                .into_iter()
                .map(|(serial, (revoked, reason))| Revocation {
                    serial,
                    authority: place.info.authority,
                    authority_generation: place.info.generation,
                    revoked,
                    reason,
                    requester: "read from a published CRL".into(),
                }),
        );
    }
    let known = ledger.revocations()?;
    found.retain(|new| {
        !known.iter().any(|old| {
            (&old.serial, old.authority, old.authority_generation)
                == (&new.serial, new.authority, new.authority_generation)
        })
    });
    if found.is_empty() {
        return Ok(0);
    }
    Ok(ledger.record_revocations(&found)?)
}

/// Authorities that revocations are of and that are gone altogether: no list can say those.
fn lost(store: &Store, revocations: &[Revocation]) -> Result<Vec<PkiError>, PkiError> {
    let mut lost = Vec::new();
    for authority in Authority::ALL {
        let meant = revocations.iter().any(|r| r.authority == authority);
        if meant && store.generations_there(authority)?.is_empty() {
            lost.push(PkiError::AuthorityLost {
                authority,
                folder: store.family(authority),
            });
        }
    }
    Ok(lost)
}

/// Where the lists of one authority's generation belong.
struct Place {
    info: AuthorityInfo,
    /// The authority's own folder.
    folder: PathBuf,
    /// First the published ones, which count, then the authority's own copy.
    files: Vec<PathBuf>,
    /// On its way out.
    gone: bool,
}

/// What the lists of one [`Place`] say together.
struct Standing {
    number: u64,
    revoked: Revoked,
    damaged: Vec<PkiError>,
}

impl Place {
    fn standing(&self) -> Standing {
        let mut standing = Standing {
            number: 0,
            revoked: Revoked::new(),
            damaged: Vec::new(),
        };
        for file in &self.files {
            match Crl::read(file, &self.info) {
                Ok(Some(list)) => {
                    standing.number = standing.number.max(list.number);
                    crl::join(&mut standing.revoked, list.revoked);
                }
                Ok(None) => {}
                Err(e) => standing.damaged.push(e),
            }
        }
        standing
    }

    /// Everything that a list of this authority has to say.
    fn wanted(&self, revocations: &[Revocation]) -> Revoked {
        let mut wanted = self.standing().revoked;
        crl::join(&mut wanted, self.recorded(revocations));
        wanted
    }

    /// Whether the list in `file` is in force at a time and says just that.
    fn holds(&self, file: &Path, wanted: &Revoked, at: WallTime) -> bool {
        match Crl::read(file, &self.info) {
            Ok(Some(list)) => {
                list.this_update <= at && list.next_update >= at && list.revoked.keys().eq(wanted.keys())
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// A list that was signed before and still holds.
    fn whole(&self, wanted: &Revoked, now: WallTime) -> Option<String> {
        let file = self.files.iter().find(|file| self.holds(file, wanted, now))?;
        files::read(file).ok()
    }

    fn put(&self, file: &Path, text: &str) -> Result<(), PkiError> {
        if self.is_published(file) {
            files::make_folder(file.parent().unwrap_or(Path::new("/")), 0o755)?;
        }
        files::write(file, text.as_bytes(), files::PUBLIC)
    }

    /// Not the authority's own copy.
    fn is_published(&self, file: &Path) -> bool {
        file.parent() != Some(&self.folder)
    }

    fn recorded(&self, revocations: &[Revocation]) -> Revoked {
        let AuthorityInfo {
            authority,
            generation,
            ..
        } = self.info;
        revocations
            .iter()
            .filter(|r| (r.authority, r.authority_generation) == (authority, generation))
            .map(|r| (r.serial.clone(), (r.revoked, r.reason)))
            .collect()
    }
}

/// Clients' lists first: those are what closes.
fn places(store: &Store, targets: &CrlTargets) -> Result<Vec<Place>, PkiError> {
    let mut infos = store.authorities(Authority::Client)?;
    infos.extend(store.authorities(Authority::Server)?);
    if infos.is_empty() {
        return Err(PkiError::NoAuthority {
            authority: Authority::Client,
            directory: store.directory().to_owned(),
        });
    }
    let mut gone = Vec::new();
    for authority in Authority::ALL {
        gone.extend(store.rotation(authority)?.phase.gone().map(|n| (authority, n)));
    }
    // Two names with one hash count on: .r0, .r1 (X509_LOOKUP_hash_dir(3)), without a gap.
    let mut used = BTreeMap::new();
    Ok(infos
        .into_iter()
        .map(|info| {
            let count: &mut u32 = used.entry(info.name_hash).or_default();
            let name = format!("{:08x}.r{count}", info.name_hash);
            *count += 1;
            let folder = store.generation(info.authority, info.generation);
            let mut files: Vec<PathBuf> = targets.folders.iter().map(|f| f.join(&name)).collect();
            files.push(folder.join(CRL_FILE));
            Place {
                gone: gone.contains(&(info.authority, info.generation)),
                info,
                folder,
                files,
            }
        })
        .collect())
}

fn alarm(file: &Path, what: &str, remedy: &str) -> Failure {
    Failure::refused(format!("the CRL {} {what}", file.display()), remedy)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl Publication {
    /// What the ledger could not do, beside the files.
    pub(super) fn note(&mut self, error: LedgerError) {
        self.failures.push(error.into());
    }
}
