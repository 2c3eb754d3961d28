//! What had to be closed and could not be yet.

use rusqlite::params;

use super::types::{PendingWork, WorkKind};
use super::{Ledger, LedgerError, bad_value};
use crate::clock::WallTime;

impl Ledger {
    /// What is still to be done, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn pending_work(&self) -> Result<Vec<PendingWork>, LedgerError> {
        self.rows(
            "SELECT kind, argument, since, attempts, last_error FROM pending_work ORDER BY since, rowid",
            [],
            |row| {
                let kind: String = row.get(0)?;
                Ok(PendingWork {
                    kind: KINDS
                        .into_iter()
                        .find(|k| text(*k) == kind)
                        .ok_or_else(|| bad_value("pending_work.kind", kind))?,
                    argument: row.get(1)?,
                    since: WallTime(row.get(2)?),
                    attempts: row.get(3)?,
                    last_error: row.get(4)?,
                })
            },
        )
    }

    /// Notes that something failed (again); it stays until [`Ledger::finish_work`].
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn note_work(
        &mut self,
        kind: WorkKind,
        argument: &str,
        error: &str,
        now: WallTime,
    ) -> Result<(), LedgerError> {
        self.write(|db| {
            db.execute(
                "INSERT INTO pending_work (kind, argument, since, attempts, last_error) VALUES (?1, ?2, ?3, 1, ?4) \
                 ON CONFLICT (kind, argument) DO UPDATE SET attempts = attempts + 1, last_error = ?4",
                params![text(kind), argument, now.0, error],
            )
            .map(drop)
        })
    }

    /// Notes, in one transaction, what is about to be done; what stands there already keeps its history.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn intend_work(
        &mut self,
        kind: WorkKind,
        arguments: &[String],
        why: &str,
        now: WallTime,
    ) -> Result<(), LedgerError> {
        if arguments.is_empty() {
            return Ok(());
        }
        self.write(|db| {
            let mut insert = db.prepare_cached(
                "INSERT INTO pending_work (kind, argument, since, attempts, last_error) VALUES (?1, ?2, ?3, 0, ?4) \
                 ON CONFLICT (kind, argument) DO NOTHING",
            )?;
            arguments
                .iter()
                .try_for_each(|argument| insert.execute(params![text(kind), argument, now.0, why]).map(drop))
        })
    }

    /// Notes that all of these were done after all.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn finish_work(&mut self, kind: WorkKind, arguments: &[String]) -> Result<(), LedgerError> {
        self.write(|db| {
            let mut delete =
                db.prepare_cached("DELETE FROM pending_work WHERE kind = ?1 AND argument = ?2")?;
            arguments
                .iter()
                .try_for_each(|argument| delete.execute(params![text(kind), argument]).map(drop))
        })
    }
}

const KINDS: [WorkKind; 3] = [WorkKind::PublishCrl, WorkKind::CloseFilter, WorkKind::EndSessions];

const fn text(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::PublishCrl => "publish_crl",
        WorkKind::CloseFilter => "close_filter",
        WorkKind::EndSessions => "end_sessions",
    }
}
