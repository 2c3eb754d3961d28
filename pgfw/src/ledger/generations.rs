//! Policy generations: which configuration is confirmed, which one waits, until when.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use sha2::{Digest, Sha256};

use super::entries::read_end;
use super::types::{EntryEnd, Generation, GenerationState};
use super::{Ledger, LedgerError, bad_value, signed, unsigned};
use crate::clock::WallTime;

const COLUMNS: &str = "number, config, hash, state, deadline_wall, deadline_boot, deadline_boot_id, created";

/// How many generations that no longer count are kept, for whoever looks back.
pub const REMEMBERED: u32 = 20;

impl Ledger {
    /// Records a configuration as pending and returns its number.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyPending`]; [`LedgerError`]
    pub fn begin(&mut self, config: &str, deadline: &EntryEnd, now: WallTime) -> Result<u64, LedgerError> {
        self.try_write(|db| {
            let pending: Option<i64> = db
                .query_row(
                    "SELECT number FROM generations WHERE state = 'pending'",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(number) = pending {
                let number = unsigned("generations.number", number)?;
                return Ok(Err(LedgerError::AlreadyPending { number }));
            }
            db.execute(
                "INSERT INTO generations (config, hash, state, deadline_wall, deadline_boot, deadline_boot_id, created)
                 VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6)",
                params![
                    config,
                    config_hash(config),
                    deadline.wall.0,
                    signed(deadline.boot.0),
                    deadline.boot_id,
                    now.0
                ],
            )?;
            unsigned("generations.number", db.last_insert_rowid()).map(Ok)
        })
    }

    /// Makes pending generation `number` the confirmed one, together with the entries that waited for it.
    ///
    /// # Errors
    /// [`LedgerError::NotPending`]; [`LedgerError`]
    pub fn confirm(&mut self, number: u64) -> Result<(), LedgerError> {
        self.settle(
            number,
            &[
                "DELETE FROM entries WHERE removed_by = ?1",
                "UPDATE entries SET generation = NULL WHERE generation = ?1",
                "UPDATE generations SET state = 'superseded' WHERE state = 'confirmed' AND number <> ?1",
                "UPDATE generations SET state = 'confirmed', deadline_wall = NULL, deadline_boot = NULL, \
                 deadline_boot_id = NULL WHERE number = ?1",
            ],
        )
    }

    /// Gives pending generation `number` up; entries are as if it had never been asked for.
    ///
    /// # Errors
    /// [`LedgerError::NotPending`]; [`LedgerError`]
    pub fn roll_back(&mut self, number: u64) -> Result<(), LedgerError> {
        self.settle(
            number,
            &[
                "DELETE FROM entries WHERE generation = ?1",
                "UPDATE entries SET removed_by = NULL WHERE removed_by = ?1",
                "UPDATE generations SET state = 'rolled_back', deadline_wall = NULL, deadline_boot = NULL, \
                 deadline_boot_id = NULL WHERE number = ?1",
            ],
        )
    }

    /// Deletes the oldest of the generations that were rolled back or superseded, but for the youngest
    /// [`REMEMBERED`] and `in_kernel`, which may be told of in the ledger only later.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn forget_generations(&mut self, in_kernel: &[u64]) -> Result<(), LedgerError> {
        self.write(|db| {
            let over: Vec<i64> = db
                .prepare_cached(
                    "SELECT number FROM generations WHERE state IN ('rolled_back', 'superseded')
                     ORDER BY number DESC LIMIT -1 OFFSET ?1",
                )?
                .query_map([REMEMBERED], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            // No entry waits for one of these any more; were one to, the foreign key would keep its generation.
            let mut delete = db.prepare_cached("DELETE FROM generations WHERE number = ?1")?;
            for number in over
                .iter()
                .filter(|n| !in_kernel.iter().any(|k| signed(*k) == **n))
            {
                delete.execute([number])?;
            }
            Ok(())
        })
    }

    /// The generation that boot and restart load.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn confirmed(&self) -> Result<Option<Generation>, LedgerError> {
        self.generation_where("state = 'confirmed'", None)
    }

    /// The generation that waits for confirmation, its deadline passed or not.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn pending(&self) -> Result<Option<Generation>, LedgerError> {
        self.generation_where("state = 'pending'", None)
    }

    /// The youngest, in whatever state it is.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn latest(&self) -> Result<Option<Generation>, LedgerError> {
        self.generation_where("number = (SELECT max(number) FROM generations)", None)
    }

    /// # Errors
    /// [`LedgerError`]
    pub fn generation(&self, number: u64) -> Result<Option<Generation>, LedgerError> {
        self.generation_where("number = ?1", Some(number))
    }

    fn generation_where(
        &self,
        condition: &str,
        number: Option<u64>,
    ) -> Result<Option<Generation>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM generations WHERE {condition}");
        let found = self.rows(&sql, rusqlite::params_from_iter(number.map(signed)), read)?;
        Ok(found.into_iter().next())
    }

    fn settle(&mut self, number: u64, statements: &[&str]) -> Result<(), LedgerError> {
        self.try_write(|db| {
            if !pends(db, number)? {
                return Ok(Err(LedgerError::NotPending { number }));
            }
            for statement in statements {
                db.execute(statement, [signed(number)])?;
            }
            Ok(Ok(()))
        })
    }
}

/// Whether `number` is the pending generation.
pub(super) fn pends(db: &Transaction<'_>, number: u64) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM generations WHERE number = ?1 AND state = 'pending')",
        [signed(number)],
        |row| row.get(0),
    )
}

/// SHA-256 of a configuration's text, hexadecimal.
fn config_hash(config: &str) -> String {
    Sha256::digest(config.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Generation> {
    let state: String = row.get(3)?;
    let state = match (state.as_str(), read_end(row, 4)?) {
        ("pending", Some(deadline)) => GenerationState::Pending { deadline },
        ("confirmed", None) => GenerationState::Confirmed,
        ("rolled_back", None) => GenerationState::RolledBack,
        ("superseded", None) => GenerationState::Superseded,
        (other, _) => return Err(bad_value("generations.state", other)),
    };
    Ok(Generation {
        number: unsigned("generations.number", row.get(0)?)?,
        config: row.get(1)?,
        hash: row.get(2)?,
        state,
        created: WallTime(row.get(7)?),
    })
}
