//! Runtime entries: `pgfw allow`, `deny`, `remove`.

use ipnet::IpNet;
use rusqlite::{Row, Transaction, params};

use super::types::{Entry, EntryEnd, EntryKind, NewEntry};
use super::{Ledger, LedgerError, bad_value, generations, signed, unsigned};
use crate::clock::{BootTime, Now, WallTime};

/// What [`Ledger::put_entry`] did, enough to undo it when the packet filter refuses the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutEntry {
    pub entry: Entry,
    /// The entries of the same kind, network and service that it took the place of, as they were.
    pub replaced: Vec<Entry>,
}

const COLUMNS: &str = "id, kind, net, service, end_wall, end_boot, end_boot_id, comment, requester, created, \
                       generation, removed_by";
/// Rows of one key; ?1 network, ?2 service. `IS` also compares two NULLs.
const OF_NETWORK: &str = "net = ?1 AND service IS ?2";

impl Ledger {
    /// All entries, ended ones that were not pruned yet and pending ones included, by network.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn entries(&self) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = self.rows(&format!("SELECT {COLUMNS} FROM entries"), [], read)?;
        entries.sort_by(in_order);
        Ok(entries)
    }

    /// The entries whose network lies in `net`, or `net` in it, by network. Found by the index as far as text allows: an
    /// `allow` takes as long with a hundred thousand entries as with ten.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn entries_touching(&self, net: &IpNet) -> Result<Vec<Entry>, LedgerError> {
        let net = net.trunc();
        let around = (0..net.prefix_len()).map(|length| IpNet::new_assert(net.addr(), length).trunc());
        let around: Vec<String> = around.map(|net| net.to_string()).collect();
        let places = vec!["?"; around.len()].join(", ");
        let mut entries = self.rows(
            &format!("SELECT {COLUMNS} FROM entries WHERE net IN ({places})"),
            rusqlite::params_from_iter(around),
            read,
        )?;
        let (from, below) = texts_within(&net);
        let inside = self.rows(
            &format!("SELECT {COLUMNS} FROM entries WHERE net >= ?1 AND net < ?2"),
            [from, below],
            |row| net.contains(&read_net(row)?).then(|| read(row)).transpose(),
        )?;
        entries.extend(inside.into_iter().flatten());
        entries.sort_by(in_order);
        Ok(entries)
    }

    /// Records an entry. One of the same kind, network and service gives way: the last word counts, never both.
    /// A pending one (`generation`) leaves the former in force for every other generation.
    ///
    /// # Errors
    /// [`LedgerError::NotPending`] for a generation that does not pend; [`LedgerError`]
    pub fn put_entry(&mut self, new: &NewEntry, now: WallTime) -> Result<PutEntry, LedgerError> {
        let mut entry = Entry {
            id: 0,
            kind: new.kind,
            net: new.net.trunc(),
            service: new.service.clone(),
            end: new.end.clone(),
            comment: new.comment.clone(),
            requester: new.requester.clone(),
            created: now,
            generation: new.generation,
            removed_by: None,
        };
        self.try_write(|db| {
            if let Some(number) = entry.generation
                && !generations::pends(db, number)?
            {
                return Ok(Err(LedgerError::NotPending { number }));
            }
            let mut replaced = select(db, &entry.net, entry.service.as_deref())?;
            replaced.retain(|old| old.kind == entry.kind);
            for old in &replaced {
                match entry.generation {
                    Some(number) if old.generation != entry.generation => leave_out(db, old.id, number)?,
                    Some(_) | None => delete(db, old.id)?,
                }
            }
            entry.id = insert(db, &entry, None)?;
            Ok(Ok(PutEntry { entry, replaced }))
        })
    }

    /// Undoes a [`Ledger::put_entry`] that nothing has changed since.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn undo_put(&mut self, put: &PutEntry) -> Result<(), LedgerError> {
        self.write(|db| {
            delete(db, put.entry.id)?;
            for old in &put.replaced {
                delete(db, old.id)?;
                insert(db, old, Some(old.id))?;
            }
            Ok(())
        })
    }

    /// Removes the entries of exactly this network and service, allow and deny, and returns them as they were.
    /// With `pending`, they stay in force until that generation is confirmed.
    ///
    /// # Errors
    /// [`LedgerError::NotPending`] for a generation that does not pend; [`LedgerError`]
    pub fn remove_entries(
        &mut self,
        net: IpNet,
        service: Option<&str>,
        pending: Option<u64>,
    ) -> Result<Vec<Entry>, LedgerError> {
        self.try_write(|db| {
            if let Some(number) = pending
                && !generations::pends(db, number)?
            {
                return Ok(Err(LedgerError::NotPending { number }));
            }
            let removed = select(db, &net.trunc(), service)?;
            for old in &removed {
                match pending {
                    Some(number) if old.generation != pending => leave_out(db, old.id, number)?,
                    Some(_) | None => delete(db, old.id)?,
                }
            }
            Ok(Ok(removed))
        })
    }

    /// Deletes the entries whose end has come for good ([`EntryEnd::is_settled`]), and returns them.
    ///
    /// # Errors
    /// [`LedgerError`]
    pub fn prune(&mut self, now: &Now, boot_id: &str) -> Result<Vec<Entry>, LedgerError> {
        let mut ended = self.entries()?;
        ended.retain(|entry| {
            let settled = entry.end.as_ref().is_some_and(|end| end.is_settled(now, boot_id));
            entry.ended(now, boot_id) && settled
        });
        if !ended.is_empty() {
            self.write(|db| ended.iter().try_for_each(|entry| delete(db, entry.id)))?;
        }
        Ok(ended)
    }
}

fn select(db: &Transaction<'_>, net: &IpNet, service: Option<&str>) -> rusqlite::Result<Vec<Entry>> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM entries WHERE {OF_NETWORK} ORDER BY id"
    ))?
    .query_map(params![net.to_string(), service], read)?
    .collect()
}

fn delete(db: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM entries WHERE id = ?1")?
        .execute([id])
        .map(drop)
}

fn leave_out(db: &Transaction<'_>, id: i64, generation: u64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE entries SET removed_by = ?2 WHERE id = ?1")?
        .execute([id, signed(generation)])
        .map(drop)
}

/// `id`: `None` for the next free one.
fn insert(db: &Transaction<'_>, entry: &Entry, id: Option<i64>) -> rusqlite::Result<i64> {
    let end = entry.end.as_ref();
    db.prepare_cached(&format!(
        "INSERT INTO entries ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
    ))?
    .insert(params![
        id,
        kind_text(entry.kind),
        entry.net.to_string(),
        entry.service,
        end.map(|e| e.wall.0),
        end.map(|e| signed(e.boot.0)),
        end.map(|e| &e.boot_id),
        entry.comment,
        entry.requester,
        entry.created.0,
        entry.generation.map(signed),
        entry.removed_by.map(signed),
    ])
}

/// From the first to below the last text that a network within `net` can have; others may lie between.
fn texts_within(net: &IpNet) -> (String, String) {
    // Every network's text begins with a digit, a letter up to f, or a colon.
    let all = (String::new(), "g".to_owned());
    let (start, after) = match net {
        IpNet::V4(net) => {
            let fixed = usize::from(net.prefix_len() / 8);
            if fixed == 4 {
                return (net.to_string(), format!("{net} "));
            }
            let octets = net.network().octets();
            let start: String = octets[..fixed].iter().map(|octet| format!("{octet}.")).collect();
            // What follows a full stop in ASCII.
            (start, '/')
        }
        IpNet::V6(net) => {
            let segments = net.network().segments();
            let fixed = &segments[..usize::from(net.prefix_len() / 16)];
            // `::` may stand for any of them that is zero (RFC 5952, 4.2), for none before that.
            let written = fixed.iter().take_while(|segment| **segment != 0);
            // What follows a colon.
            (written.map(|segment| format!("{segment:x}:")).collect(), ';')
        }
    };
    if start.is_empty() {
        return all;
    }
    let below = format!("{}{after}", &start[..start.len() - 1]);
    (start, below)
}

fn in_order(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    (a.net, &a.service, a.kind, a.id).cmp(&(b.net, &b.service, b.kind, b.id))
}

fn read_net(row: &Row<'_>) -> rusqlite::Result<IpNet> {
    let net = row.get_ref(2)?.as_str()?;
    net.parse().map_err(|_| bad_value("entries.net", net))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let kind: String = row.get(1)?;
    let generation = |column| {
        row.get::<_, Option<i64>>(column)?
            .map(|n| unsigned("entries.generation", n))
            .transpose()
    };
    Ok(Entry {
        id: row.get(0)?,
        kind: [EntryKind::Allow, EntryKind::Deny]
            .into_iter()
            .find(|k| kind_text(*k) == kind)
            .ok_or_else(|| bad_value("entries.kind", kind))?,
        net: read_net(row)?,
        service: row.get(3)?,
        end: read_end(row, 4)?,
        comment: row.get(7)?,
        requester: row.get(8)?,
        created: WallTime(row.get(9)?),
        generation: generation(10)?,
        removed_by: generation(11)?,
    })
}

/// Three columns from `first`: wall, boot, boot id; all NULL or none.
pub(super) fn read_end(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<EntryEnd>> {
    let Some(wall) = row.get::<_, Option<i64>>(first)? else {
        return Ok(None);
    };
    Ok(Some(EntryEnd {
        wall: WallTime(wall),
        boot: BootTime(unsigned("an end on the boot clock", row.get(first + 1)?)?),
        boot_id: row.get(first + 2)?,
    }))
}

const fn kind_text(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Allow => "allow",
        EntryKind::Deny => "deny",
    }
}
