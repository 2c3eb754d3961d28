//! The ledger: what was allowed, denied, issued, revoked and confirmed on this host, in one SQLite file.
//!
//! Whoever writes holds the lock on [`crate::paths::Paths::change_lock`]; readers need no lock.

mod certificates;
mod entries;
mod error;
mod generations;
mod leases;
mod schema;
#[cfg(test)]
mod tests;
pub mod types;
mod work;

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

pub use entries::PutEntry;
pub use error::LedgerError;
pub use generations::REMEMBERED;
pub use leases::{PrunedLeases, PutLease};

/// How long a write waits for another process's transaction, which lasts a few fsyncs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Two of one open ledger are equal as long as nobody has written to the file, this process included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Changes with what others commit (`PRAGMA data_version`).
    others: i64,
    /// Rows that this connection has written.
    own: u64,
}

impl Version {
    /// Whether between an earlier one and this nobody has written but this connection.
    pub fn is_own_since(&self, earlier: &Version) -> bool {
        self.others == earlier.others
    }
}

/// An open ledger. Every writing method is one transaction and returns after it has reached the disk.
#[derive(Debug)]
pub struct Ledger {
    file: PathBuf,
    connection: Connection,
    /// Why the file cannot be used; this is an empty one in its place, which takes nothing.
    stands_in: Option<String>,
}

impl Ledger {
    /// Opens for reading and writing; creates the file (0600) and brings an older schema up to date.
    ///
    /// # Errors
    /// [`LedgerError`]; a damaged, foreign or newer file is named and left as it is.
    pub fn open(file: &Path) -> Result<Ledger, LedgerError> {
        create(file).map_err(|source| LedgerError::Open {
            file: file.to_owned(),
            source,
        })?;
        Ledger::open_existing(file)
    }

    /// Opens for reading only.
    ///
    /// # Errors
    /// [`LedgerError::Missing`] when there is none; otherwise as [`Ledger::open`].
    pub fn open_read_only(file: &Path) -> Result<Ledger, LedgerError> {
        // Not SQLITE_OPEN_READONLY: a reader that comes after a crash has to roll the journal back.
        let ledger = Ledger::open_existing(file)?;
        ledger
            .connection
            .pragma_update(None, "query_only", true)
            .map_err(|e| ledger.error(e))?;
        Ok(ledger)
    }

    /// An empty ledger in the place of one that cannot be used: it reads as if nothing had ever been recorded, and refuses
    /// every change.
    ///
    /// # Errors
    /// No memory.
    pub fn stand_in(file: &Path, why: &str) -> Result<Ledger, LedgerError> {
        let connection = Connection::open_in_memory().map_err(|e| LedgerError::sqlite(file, e))?;
        let mut ledger = Ledger {
            file: file.to_owned(),
            connection,
            stands_in: None,
        };
        ledger.settings().map_err(|e| ledger.error(e))?;
        schema::check_and_migrate(&mut ledger)?;
        ledger.stands_in = Some(why.to_owned());
        Ok(ledger)
    }

    /// Whether this stands in for a file that cannot be used.
    pub fn stands_in(&self) -> bool {
        self.stands_in.is_some()
    }

    /// The file's path.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What tells this ledger from every other, wherever the file lies.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn id(&self) -> Result<String, LedgerError> {
        self.connection
            .query_row("SELECT id FROM identity", [], |row| row.get(0))
            .map_err(|e| self.error(e))
    }

    /// Where the ledger stands now.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn version(&self) -> Result<Version, LedgerError> {
        let others = self
            .connection
            .pragma_query_value(None, "data_version", |row| row.get(0));
        Ok(Version {
            others: others.map_err(|e| self.error(e))?,
            own: self.connection.total_changes(),
        })
    }

    fn open_existing(file: &Path) -> Result<Ledger, LedgerError> {
        // SQLite says no more than "unable to open database file"; the kernel says why.
        File::open(file).map_err(|source| {
            let file = file.to_owned();
            if source.kind() == std::io::ErrorKind::NotFound {
                LedgerError::Missing { file }
            } else {
                LedgerError::Open { file, source }
            }
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(file, flags).map_err(|e| LedgerError::sqlite(file, e))?;
        let mut ledger = Ledger {
            file: file.to_owned(),
            connection,
            stands_in: None,
        };
        ledger.settings().map_err(|e| ledger.error(e))?;
        schema::check_and_migrate(&mut ledger)?;
        Ok(ledger)
    }

    fn settings(&self) -> rusqlite::Result<()> {
        let db = &self.connection;
        db.busy_timeout(BUSY_TIMEOUT)?;
        // A rollback journal, not WAL: WAL needs room on the disk even to be read, and on a full disk the
        // ledger must still say whom to let in. TRUNCATE with FULL syncs the journal's end as well
        // (sqlite3.c, pager_end_transaction), so that no power cut brings a finished transaction back.
        db.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "trusted_schema", false)?;
        db.pragma_update(None, "temp_store", "MEMORY")
    }

    /// One transaction; nothing stays when `change` fails.
    fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        self.try_write(|transaction| change(transaction).map(Ok))
    }

    /// As [`Ledger::write`], for changes that the ledger's own rules can refuse.
    fn try_write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        if let Some(why) = &self.stands_in {
            return Err(LedgerError::Unusable {
                file: self.file.clone(),
                why: why.clone(),
            });
        }
        let file = &self.file;
        let wrap = |e| LedgerError::sqlite(file, e);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(wrap)?;
        let done = change(&transaction).map_err(wrap)??;
        transaction.commit().map_err(wrap)?;
        Ok(done)
    }

    fn rows<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let query = || -> rusqlite::Result<Vec<T>> {
            self.connection
                .prepare_cached(sql)?
                .query_map(parameters, read)?
                .collect()
        };
        query().map_err(|e| self.error(e))
    }

    fn error(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(&self.file, source)
    }
}

/// Makes the file when it is absent, 0600 whatever the umask, and takes a wider mode away from one that is there.
fn create(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Ok(new) => {
            new.set_permissions(Permissions::from_mode(0o600))?;
            new.sync_all()?;
            File::open(folder)?.sync_all()
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let old = File::open(file)?;
            if old.metadata()?.permissions().mode() & 0o077 != 0 {
                old.set_permissions(Permissions::from_mode(0o600))?;
            }
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// A value in a row that no version of pgfw writes: the file is damaged.
fn bad_value(column: &'static str, value: impl std::fmt::Display) -> rusqlite::Error {
    let text = format!("`{value}` cannot stand in {column}");
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, text.into())
}

/// Unsigned numbers of ours stay far below 2^63 (nanoseconds since boot: 292 years).
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(column: &'static str, number: i64) -> rusqlite::Result<u64> {
    u64::try_from(number).map_err(|_| bad_value(column, number))
}
