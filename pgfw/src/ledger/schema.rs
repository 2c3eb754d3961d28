//! The ledger's tables, and how an older file gets there: one step per `user_version`.

use rusqlite::Connection;

use super::{Ledger, LedgerError};

/// Marks the file as ours (`PRAGMA application_id`): "pgfw".
const APPLICATION_ID: i64 = 0x7067_6677;

/// Step n brings schema n to n + 1. Steps that were released are never edited.
const STEPS: &[&str] = &[INITIAL, IDENTITY, LEASES];

/// A name that no other ledger has: pins in the kernel say by it whose they are.
const IDENTITY: &str = "
    CREATE TABLE identity (id TEXT NOT NULL) STRICT;
    INSERT INTO identity (id) VALUES (lower(hex(randomblob(16))));
";

/// Addresses that were opened through the gate.
const LEASES: &str = "
    CREATE TABLE leases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL,
        identity TEXT NOT NULL,
        serial TEXT NOT NULL,
        granted INTEGER NOT NULL,
        end_wall INTEGER NOT NULL, end_boot INTEGER NOT NULL, end_boot_id TEXT NOT NULL,
        UNIQUE (identity, address)
    ) STRICT;
";

const INITIAL: &str = "
    CREATE TABLE generations (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        config TEXT NOT NULL,
        hash TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'confirmed', 'rolled_back', 'superseded')),
        deadline_wall INTEGER, deadline_boot INTEGER, deadline_boot_id TEXT,
        created INTEGER NOT NULL,
        CHECK ((state = 'pending') = (deadline_wall IS NOT NULL))
    ) STRICT;
    CREATE UNIQUE INDEX one_pending ON generations (state) WHERE state = 'pending';
    CREATE UNIQUE INDEX one_confirmed ON generations (state) WHERE state = 'confirmed';

    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind IN ('allow', 'deny')),
        net TEXT NOT NULL,
        service TEXT CHECK (service <> ''),
        end_wall INTEGER, end_boot INTEGER, end_boot_id TEXT,
        comment TEXT,
        requester TEXT NOT NULL,
        created INTEGER NOT NULL,
        generation INTEGER REFERENCES generations (number),
        removed_by INTEGER REFERENCES generations (number)
    ) STRICT;
    CREATE UNIQUE INDEX entry_key ON entries (net, kind, ifnull(service, ''), ifnull(generation, 0));

    CREATE TABLE certificates (
        serial TEXT PRIMARY KEY,
        authority TEXT NOT NULL CHECK (authority IN ('server', 'client')),
        authority_generation INTEGER NOT NULL,
        name TEXT NOT NULL,
        subject_dn TEXT NOT NULL,
        not_before INTEGER NOT NULL,
        not_after INTEGER NOT NULL,
        issued INTEGER NOT NULL,
        requester TEXT NOT NULL,
        reason TEXT,
        pem TEXT NOT NULL
    ) STRICT;
    CREATE INDEX certificate_name ON certificates (name);

    CREATE TABLE revocations (
        authority TEXT NOT NULL CHECK (authority IN ('server', 'client')),
        authority_generation INTEGER NOT NULL,
        serial TEXT NOT NULL,
        revoked INTEGER NOT NULL,
        reason INTEGER NOT NULL,
        requester TEXT NOT NULL,
        PRIMARY KEY (serial, authority, authority_generation)
    ) STRICT;

    CREATE TABLE pending_work (
        kind TEXT NOT NULL,
        argument TEXT NOT NULL,
        since INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        last_error TEXT NOT NULL,
        PRIMARY KEY (kind, argument)
    ) STRICT;
";

/// Refuses what is not ours, newer or damaged; then runs the missing steps, all or none.
pub(super) fn check_and_migrate(ledger: &mut Ledger) -> Result<(), LedgerError> {
    let read = |name| number(&ledger.connection, name).map_err(|e| ledger.error(e));
    let (application, version, pages) = (
        read("application_id")?,
        read("user_version")?,
        read("page_count")?,
    );
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let file = ledger.file.clone();
    if application != APPLICATION_ID && (application, version, pages) != (0, 0, 0) {
        return Err(LedgerError::Foreign { file });
    }
    if version > known {
        return Err(LedgerError::Newer {
            file,
            found: version,
            known,
        });
    }
    let verdict: String = ledger
        .connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| ledger.error(e))?;
    if verdict != "ok" {
        return Err(LedgerError::Corrupt {
            file,
            detail: verdict,
        });
    }
    if version == known {
        return Ok(());
    }
    ledger.write(|db| {
        // Another process may have been faster.
        let start = usize::try_from(number(db, "user_version")?).unwrap_or(0);
        for step in STEPS.iter().skip(start) {
            db.execute_batch(step)?;
        }
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        db.pragma_update(None, "user_version", known)
    })
}

fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, pragma, |row| row.get(0))
}
