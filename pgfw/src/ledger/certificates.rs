//! Certificates and revocations.

use rusqlite::{Row, Transaction, params};

use super::types::{Authority, Certificate, Revocation, RevocationReason};
use super::{Ledger, LedgerError, bad_value};
use crate::clock::WallTime;

/// A revocation counts for the certificate of the same issuer and serial.
const CERTIFICATES: &str = "
    SELECT c.serial, c.authority, c.authority_generation, c.name, c.subject_dn, c.not_before, c.not_after, c.issued,
           c.requester, c.reason, r.revoked, r.reason, c.pem
    FROM certificates c
    LEFT JOIN revocations r USING (serial, authority, authority_generation)";

impl Ledger {
    /// All certificates ever issued, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn certificates(&self) -> Result<Vec<Certificate>, LedgerError> {
        self.rows(
            &format!("{CERTIFICATES} ORDER BY c.issued, c.rowid"),
            [],
            read_certificate,
        )
    }

    /// `serial`: 32 lowercase hexadecimal digits.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn certificate_by_serial(&self, serial: &str) -> Result<Option<Certificate>, LedgerError> {
        let sql = format!("{CERTIFICATES} WHERE c.serial = ?1");
        Ok(self.rows(&sql, [serial], read_certificate)?.into_iter().next())
    }

    /// Those of one name, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn certificates_of(&self, name: &str) -> Result<Vec<Certificate>, LedgerError> {
        let sql = format!("{CERTIFICATES} WHERE c.name = ?1 ORDER BY c.issued, c.rowid");
        self.rows(&sql, [name], read_certificate)
    }

    /// Those by which leases are held.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn certificates_of_leases(&self) -> Result<Vec<Certificate>, LedgerError> {
        let sql = format!("{CERTIFICATES} WHERE c.serial IN (SELECT serial FROM leases)");
        self.rows(&sql, [], read_certificate)
    }

    /// # Errors
    /// [`LedgerError::SerialTaken`]; [`LedgerError`]
    pub fn record_certificate(&mut self, certificate: &Certificate) -> Result<(), LedgerError> {
        let added = self.write(|db| insert_certificate(db, certificate))?;
        if added == 0 {
            Err(taken(certificate))
        } else {
            Ok(())
        }
    }

    /// Records a certificate that nobody holds yet. It counts as revoked until [`Ledger::complete_issue`]: an issue that
    /// is cut off in between opens nothing, and what may lie on a disk somewhere is known.
    ///
    /// # Errors
    /// [`LedgerError::SerialTaken`]; [`LedgerError`]
    pub fn begin_issue(&mut self, certificate: &Certificate) -> Result<(), LedgerError> {
        let unissued = Revocation {
            serial: certificate.serial.clone(),
            authority: certificate.authority,
            authority_generation: certificate.authority_generation,
            revoked: certificate.issued,
            reason: UNISSUED,
            requester: certificate.requester.clone(),
        };
        self.try_write(|db| {
            if insert_certificate(db, certificate)? == 0 {
                return Ok(Err(taken(certificate)));
            }
            insert_revocations(db, std::slice::from_ref(&unissued)).map(|_| Ok(()))
        })
    }

    /// The certificate is where whoever asked for it finds it: from here on it counts.
    ///
    /// # Errors
    /// [`LedgerError`]; it then counts as revoked as before.
    pub fn complete_issue(&mut self, certificate: &Certificate) -> Result<(), LedgerError> {
        self.write(|db| {
            db.execute(
                "DELETE FROM revocations WHERE serial = ?1 AND authority = ?2 AND authority_generation = ?3 \
                 AND reason = ?4",
                params![
                    certificate.serial,
                    certificate.authority.as_str(),
                    certificate.authority_generation,
                    UNISSUED.number()
                ],
            )
        })
        .map(drop)
    }

    /// All revocations, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn revocations(&self) -> Result<Vec<Revocation>, LedgerError> {
        self.rows(
            "SELECT serial, authority, authority_generation, revoked, reason, requester FROM revocations \
             ORDER BY revoked, rowid",
            [],
            |row| {
                Ok(Revocation {
                    serial: row.get(0)?,
                    authority: read_authority(row, 1)?,
                    authority_generation: row.get(2)?,
                    revoked: WallTime(row.get(3)?),
                    reason: RevocationReason::from_number(row.get(4)?),
                    requester: row.get(5)?,
                })
            },
        )
    }

    /// Records revocations, all or none, and returns how many were new. What is revoked keeps its first time and
    /// reason. The certificate itself need not be known.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn record_revocations(&mut self, revocations: &[Revocation]) -> Result<usize, LedgerError> {
        self.write(|db| insert_revocations(db, revocations))
    }
}

/// RFC 5280 has no reason for what was never handed out; this one says that it is of no use any more.
const UNISSUED: RevocationReason = RevocationReason::CessationOfOperation;

fn taken(certificate: &Certificate) -> LedgerError {
    LedgerError::SerialTaken {
        serial: certificate.serial.clone(),
    }
}

/// How many rows it became: none when the serial is taken.
fn insert_certificate(db: &Transaction<'_>, certificate: &Certificate) -> rusqlite::Result<usize> {
    // No `..`: what has no column is named here. Revocations have rows of their own.
    let Certificate {
        serial,
        authority,
        authority_generation,
        name,
        subject_dn,
        not_before,
        not_after,
        issued,
        requester,
        reason,
        revoked: _,
        revoke_reason: _,
        pem,
    } = certificate;
    db.execute(
        "INSERT INTO certificates (serial, authority, authority_generation, name, subject_dn, not_before, \
         not_after, issued, requester, reason, pem) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (serial) DO NOTHING",
        params![
            serial,
            authority.as_str(),
            authority_generation,
            name,
            subject_dn,
            not_before.0,
            not_after.0,
            issued.0,
            requester,
            reason,
            pem
        ],
    )
}

/// How many were new.
fn insert_revocations(db: &Transaction<'_>, revocations: &[Revocation]) -> rusqlite::Result<usize> {
    let mut insert = db.prepare_cached(
        "INSERT INTO revocations (serial, authority, authority_generation, revoked, reason, requester) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    )?;
    let mut added = 0;
    for revocation in revocations {
        let Revocation {
            serial,
            authority,
            authority_generation,
            revoked,
            reason,
            requester,
        } = revocation;
        added += insert.execute(params![
            serial,
            authority.as_str(),
            authority_generation,
            revoked.0,
            reason.number(),
            requester
        ])?;
    }
    Ok(added)
}

fn read_certificate(row: &Row<'_>) -> rusqlite::Result<Certificate> {
    Ok(Certificate {
        serial: row.get(0)?,
        authority: read_authority(row, 1)?,
        authority_generation: row.get(2)?,
        name: row.get(3)?,
        subject_dn: row.get(4)?,
        not_before: WallTime(row.get(5)?),
        not_after: WallTime(row.get(6)?),
        issued: WallTime(row.get(7)?),
        requester: row.get(8)?,
        reason: row.get(9)?,
        revoked: row.get::<_, Option<i64>>(10)?.map(WallTime),
        revoke_reason: row.get::<_, Option<u8>>(11)?.map(RevocationReason::from_number),
        pem: row.get(12)?,
    })
}

fn read_authority(row: &Row<'_>, column: usize) -> rusqlite::Result<Authority> {
    let text: String = row.get(column)?;
    Authority::ALL
        .into_iter()
        .find(|a| a.as_str() == text)
        .ok_or_else(|| bad_value("authority", text))
}
