//! What was closed in the kernel while the ledger could not take it, most likely for want of room.
//!
//! It counts all the same, and is written down in the order in which it was said as soon as there is room: `remove`
//! and `deny` of one network mean something else the other way round. A spare copy lies beside the control socket, on
//! the memory file system of /run: a restart, or a command without a daemon, loses nothing of it within this boot.

use std::io::Write;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::WallTime;
use crate::ledger::types::{Certificate, Entry, EntryKind, NewEntry, Revocation};
use crate::ledger::{Ledger, LedgerError};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Unrecorded {
    closings: Vec<Closing>,
    revocations: Vec<Revocation>,
    #[serde(skip)]
    spare: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
enum Closing {
    Deny(NewEntry),
    Remove { net: IpNet, service: Option<String> },
}

impl Unrecorded {
    /// What an earlier process of this boot left.
    pub(super) fn load(spare: PathBuf) -> Unrecorded {
        let left = std::fs::read(&spare)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        Unrecorded {
            spare,
            ..left.unwrap_or_default()
        }
    }

    /// Keeps the spare copy true. It is the last resort: where it cannot be written, memory holds.
    fn save(&self) {
        let saved = if self.is_empty() {
            std::fs::remove_file(&self.spare)
        } else {
            self.replace()
        };
        match saved {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "no spare copy of what the ledger could not take at {}", self.spare.display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// As private as the ledger: comments, names and networks stand in it.
    fn replace(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec(self).expect("plain values are JSON");
        let folder = self.spare.parent().unwrap_or(Path::new("/"));
        // Made with mode 0600, whatever the umask.
        let mut next = tempfile::NamedTempFile::new_in(folder)?;
        next.write_all(&text)?;
        next.persist(&self.spare)?;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        let Unrecorded {
            closings,
            revocations,
            spare: _,
        } = self;
        closings.is_empty() && revocations.is_empty()
    }

    pub(super) fn deny(&mut self, new: NewEntry) {
        self.closings.push(Closing::Deny(new));
        self.save();
    }

    pub(super) fn remove(&mut self, net: IpNet, service: Option<&str>) {
        self.closings.push(Closing::Remove {
            net,
            service: service.map(str::to_owned),
        });
        self.save();
    }

    pub(super) fn revoke(&mut self, revocations: &[Revocation]) {
        self.revocations.extend_from_slice(revocations);
        self.save();
    }

    pub(super) fn revocations(&self) -> &[Revocation] {
        &self.revocations
    }

    /// Applies it to what the ledger says. Nothing opens by it: a deny that was taken back stays until that is
    /// written down.
    pub(super) fn apply(&self, entries: &mut Vec<Entry>, certificates: &mut [Certificate], now: WallTime) {
        for (n, closing) in self.closings.iter().enumerate() {
            match closing {
                Closing::Deny(new) => {
                    let mut entry = Entry::of(new, now);
                    entry.id = -1 - i64::try_from(n).unwrap_or(0);
                    entries.push(entry);
                }
                Closing::Remove { net, service } => entries.retain(|entry| match entry.kind {
                    EntryKind::Allow => entry.net != *net || entry.service != *service,
                    EntryKind::Deny => true,
                }),
            }
        }
        for certificate in certificates {
            let revocation = self.revocations.iter().find(|r| r.serial == certificate.serial);
            if let Some(revocation) = revocation {
                certificate.revoked = Some(revocation.revoked);
            }
        }
    }

    /// Writes down what there is room for.
    ///
    /// # Errors
    /// Something had to stay; nothing newer may be written before it.
    pub(super) fn record(&mut self, ledger: &mut Ledger, now: WallTime) -> Result<(), LedgerError> {
        if self.is_empty() {
            return Ok(());
        }
        while let Some(closing) = self.closings.first() {
            closing.record(ledger, now)?;
            self.closings.remove(0);
            self.save();
        }
        if !self.revocations.is_empty() {
            ledger.record_revocations(&self.revocations)?;
            self.revocations.clear();
        }
        self.save();
        Ok(())
    }
}

impl Closing {
    fn record(&self, ledger: &mut Ledger, now: WallTime) -> Result<(), LedgerError> {
        match self {
            Closing::Deny(new) => ledger.put_entry(new, now).map(drop),
            Closing::Remove { net, service } => {
                ledger.remove_entries(*net, service.as_deref(), None).map(drop)
            }
        }
    }
}
