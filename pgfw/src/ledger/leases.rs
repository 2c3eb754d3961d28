//! Leases: one address each, opened through the gate by whoever holds a certificate.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::{Row, Transaction, params};

use super::entries::read_end;
use super::types::{Lease, NewLease};
use super::{Ledger, LedgerError, bad_value};
use crate::clock::{Now, WallTime};

/// What [`Ledger::put_lease`] did, enough to undo it when the packet filter refuses the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutLease {
    pub lease: Lease,
    /// The same identity's former lease of the same address.
    pub replaced: Option<Lease>,
}

const COLUMNS: &str = "id, address, identity, serial, granted, end_wall, end_boot, end_boot_id";

impl Ledger {
    /// All leases, ended ones that were not pruned yet included, by address.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn leases(&self) -> Result<Vec<Lease>, LedgerError> {
        let mut leases = self.rows(&format!("SELECT {COLUMNS} FROM leases"), [], read)?;
        leases.sort_by(|a, b| (a.address, &a.identity).cmp(&(b.address, &b.identity)));
        Ok(leases)
    }

    /// The identity's lease of this address, ended or not.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn lease(&self, identity: &str, address: IpAddr) -> Result<Option<Lease>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM leases WHERE identity = ?1 AND address = ?2");
        let found = self.rows(&sql, params![identity, address.to_string()], read)?;
        Ok(found.into_iter().next())
    }

    /// How many there are, ended ones included: of all, and of one identity.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn count_leases(&self, identity: &str) -> Result<(usize, usize), LedgerError> {
        let counted = self.rows(
            "SELECT (SELECT count(*) FROM leases), (SELECT count(*) FROM leases WHERE identity = ?1)",
            [identity],
            |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)),
        )?;
        let (all, own) = counted.first().copied().unwrap_or_default();
        let count = |n| usize::try_from(n).unwrap_or(usize::MAX);
        Ok((count(all), count(own)))
    }

    /// Those inside a network.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn leases_within(&self, net: &IpNet) -> Result<Vec<Lease>, LedgerError> {
        if net.prefix_len() == net.max_prefix_len() {
            let sql = format!("SELECT {COLUMNS} FROM leases WHERE address = ?1");
            return self.rows(&sql, [net.addr().to_string()], read);
        }
        let mut leases = self.leases()?;
        leases.retain(|lease| net.contains(&lease.address));
        Ok(leases)
    }

    /// Those whose certificate ended at `now` or before, and before they did.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn leases_past_certificates(&self, now: WallTime) -> Result<Vec<Lease>, LedgerError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM leases WHERE EXISTS (SELECT 1 FROM certificates c WHERE c.serial = leases.serial \
             AND c.authority = 'client' AND c.not_after <= ?1 AND c.not_after < leases.end_wall)"
        );
        self.rows(&sql, [now.0], read)
    }

    /// Records a lease in the place of the identity's former one of this address.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn put_lease(&mut self, new: &NewLease, now: WallTime) -> Result<PutLease, LedgerError> {
        let NewLease {
            address,
            identity,
            serial,
            end,
        } = new.clone();
        self.write(|db| {
            let replaced = take(db, &identity, address)?;
            let mut lease = Lease {
                id: 0,
                address,
                identity,
                serial,
                granted: now,
                end,
            };
            lease.id = insert(db, &lease, None)?;
            Ok(PutLease { lease, replaced })
        })
    }

    /// Undoes a [`Ledger::put_lease`] that nothing has changed since.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn undo_put_lease(&mut self, put: &PutLease) -> Result<(), LedgerError> {
        self.write(|db| {
            take(db, &put.lease.identity, put.lease.address)?;
            if let Some(former) = &put.replaced {
                insert(db, former, Some(former.id))?;
            }
            Ok(())
        })
    }

    /// Removes the identity's lease of this address, and returns it as it was.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn remove_lease(&mut self, identity: &str, address: IpAddr) -> Result<Option<Lease>, LedgerError> {
        self.write(|db| take(db, identity, address))
    }

    /// Deletes the leases whose end has come for good ([`super::types::EntryEnd::is_settled`]), and those whose certificate is
    /// revoked, which is for good too. Returns both.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn prune_leases(&mut self, now: &Now, boot_id: &str) -> Result<PrunedLeases, LedgerError> {
        let (mut over, mut rest): (Vec<_>, Vec<_>) = self
            .leases()?
            .into_iter()
            .partition(|lease| lease.ended(now, boot_id));
        over.retain(|lease| lease.end.is_settled(now, boot_id));
        let revoked: HashSet<String> = self
            .rows(
                "SELECT serial FROM revocations WHERE authority = 'client'
                 INTERSECT SELECT serial FROM leases",
                [],
                |row| row.get(0),
            )?
            .into_iter()
            .collect();
        rest.retain(|lease| revoked.contains(&lease.serial));
        if !over.is_empty() || !rest.is_empty() {
            self.write(|db| {
                over.iter().chain(&rest).try_for_each(|lease| {
                    db.prepare_cached("DELETE FROM leases WHERE id = ?1")?
                        .execute([lease.id])
                        .map(drop)
                })
            })?;
        }
        Ok(PrunedLeases { over, revoked: rest })
    }
}

/// Leases that are no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedLeases {
    pub over: Vec<Lease>,
    pub revoked: Vec<Lease>,
}

fn take(db: &Transaction<'_>, identity: &str, address: IpAddr) -> rusqlite::Result<Option<Lease>> {
    let sql = format!("DELETE FROM leases WHERE identity = ?1 AND address = ?2 RETURNING {COLUMNS}");
    db.prepare_cached(&sql)?
        .query_map(params![identity, address.to_string()], read)?
        .next()
        .transpose()
}

/// `id`: `None` for the next free one.
fn insert(db: &Transaction<'_>, lease: &Lease, id: Option<i64>) -> rusqlite::Result<i64> {
    let Lease {
        id: _,
        address,
        identity,
        serial,
        granted,
        end,
    } = lease;
    db.prepare_cached(&format!(
        "INSERT INTO leases ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
    ))?
    .insert(params![
        id,
        address.to_string(),
        identity,
        serial,
        granted.0,
        end.wall.0,
        super::signed(end.boot.0),
        end.boot_id,
    ])
}

fn read(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let address: String = row.get(1)?;
    Ok(Lease {
        id: row.get(0)?,
        address: address
            .parse()
            .map_err(|_| bad_value("leases.address", &address))?,
        identity: row.get(2)?,
        serial: row.get(3)?,
        granted: WallTime(row.get(4)?),
        end: read_end(row, 5)?.ok_or_else(|| bad_value("leases.end_wall", "NULL"))?,
    })
}
