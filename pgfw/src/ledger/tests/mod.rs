//! What every test of the ledger starts from.

mod certificates;
mod entries;
mod file;
mod generations;
mod leases;

use std::time::Duration;

use ipnet::IpNet;
use tempfile::TempDir;

use super::types::*;
use super::*;
use crate::clock::{BootTime, Now, WallTime};

const BOOT: &str = "boot-1";
const T0: WallTime = WallTime(1_800_000_000);

fn ledger() -> (TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.db")).unwrap();
    (folder, ledger)
}

/// `seconds` after T0, on both clocks; the boot clock started 100 s before T0.
fn at(seconds: i64) -> Now {
    Now {
        boot: BootTime(u64::try_from(100 + seconds).unwrap() * 1_000_000_000),
        wall_ns: i128::from(T0.0 + seconds) * 1_000_000_000,
    }
}

fn after(seconds: u64) -> EntryEnd {
    EntryEnd::after(Duration::from_secs(seconds), &at(0), BOOT)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn allow(text: &str) -> NewEntry {
    NewEntry {
        kind: EntryKind::Allow,
        net: net(text),
        service: None,
        end: None,
        comment: None,
        requester: "root".into(),
        generation: None,
    }
}

fn certificate(serial: u128, name: &str) -> Certificate {
    Certificate {
        serial: format!("{serial:032x}"),
        authority: Authority::Client,
        authority_generation: 1,
        name: name.into(),
        subject_dn: format!("/CN={name}"),
        not_before: T0,
        not_after: WallTime(T0.0 + 3600),
        issued: T0,
        requester: "root".into(),
        reason: Some("first day".into()),
        revoked: None,
        revoke_reason: None,
        pem: "-----BEGIN CERTIFICATE-----".into(),
    }
}

fn revocation(serial: u128, reason: RevocationReason) -> Revocation {
    Revocation {
        serial: format!("{serial:032x}"),
        authority: Authority::Client,
        authority_generation: 1,
        revoked: T0,
        reason,
        requester: "root".into(),
    }
}
