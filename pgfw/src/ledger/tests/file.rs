//! The file: its mode, what is refused, crashes and full disks.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::failure::{Code, Failure};

#[test]
fn the_file_is_private_from_the_start_and_becomes_so_again() {
    let (folder, ledger) = ledger();
    let file = folder.path().join("ledger.db");
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    drop(ledger);
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    Ledger::open(&file).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_read_only_ledger_needs_one_and_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let missing = Ledger::open_read_only(&file).unwrap_err();
    assert!(matches!(missing, LedgerError::Missing { .. }), "{missing:?}");
    assert!(!file.exists());

    Ledger::open(&file).unwrap();
    let mut reader = Ledger::open_read_only(&file).unwrap();
    assert_eq!(reader.entries().unwrap(), []);
    reader.put_entry(&allow("10.0.0.0/8"), T0).unwrap_err();
    assert_eq!(reader.entries().unwrap(), []);
}

#[test]
fn damage_a_foreign_file_and_a_newer_schema_are_told_apart_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let refusal = |expected: &str| {
        let before = std::fs::read(&file).unwrap();
        let failure = Failure::from(Ledger::open(&file).unwrap_err());
        assert!(failure.message.contains(expected), "{failure}");
        assert!(failure.message.contains(&file.display().to_string()), "{failure}");
        assert_eq!(failure.code, Code::Refused);
        assert_eq!(std::fs::read(&file).unwrap(), before);
    };

    std::fs::write(&file, "no database at all").unwrap();
    refusal("is not a ledger of pgfw");

    std::fs::remove_file(&file).unwrap();
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    refusal("is not a ledger of pgfw");

    std::fs::remove_file(&file).unwrap();
    let ledger = Ledger::open(&file).unwrap();
    ledger.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(ledger);
    refusal("has schema 99");

    std::fs::remove_file(&file).unwrap();
    let mut ledger = Ledger::open(&file).unwrap();
    for i in 0..50 {
        ledger
            .record_certificate(&certificate(i, &"x".repeat(500)))
            .unwrap();
    }
    drop(ledger);
    let mut bytes = std::fs::read(&file).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 5);
    bytes[2 * 4096..pages * 4096].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    refusal("is damaged");
}

#[test]
fn a_value_that_pgfw_never_writes_is_damage() {
    let (_folder, mut ledger) = ledger();
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    ledger
        .connection
        .execute("UPDATE entries SET net = 'ten'", [])
        .unwrap();
    let error = ledger.entries().unwrap_err();
    assert!(
        error.to_string().contains("`ten` cannot stand in entries.net"),
        "{error}"
    );
}

#[test]
fn a_full_disk_changes_nothing_and_the_ledger_stays_readable() {
    let (folder, mut ledger) = ledger();
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    // SQLite reports a page limit and ENOSPC with the same code, SQLITE_FULL.
    let pages: i64 = ledger
        .connection
        .pragma_query_value(None, "page_count", |r| r.get(0))
        .unwrap();
    ledger
        .connection
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
    let mut large = allow("10.1.0.0/16");
    large.comment = Some("x".repeat(100_000));
    let failure = Failure::from(ledger.put_entry(&large, T0).unwrap_err());
    assert!(failure.message.contains("nothing was changed"), "{failure}");
    assert!(
        failure.remedy.contains("Free space on the file system of"),
        "{failure}"
    );
    assert!(
        failure.remedy.contains(&folder.path().display().to_string()),
        "{failure}"
    );
    assert_eq!(ledger.entries().unwrap().len(), 1);
}

#[test]
fn a_ledger_held_by_another_process_is_locked_not_broken() {
    let (_folder, mut ledger) = ledger();
    let other = rusqlite::Connection::open(ledger.file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    ledger.connection.busy_timeout(Duration::from_millis(1)).unwrap();
    let error = ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap_err();
    assert!(matches!(error, LedgerError::Locked { .. }), "{error:?}");
}

#[test]
fn a_transaction_cut_off_in_the_middle_leaves_no_trace() {
    let (_folder, mut ledger) = ledger();
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    let file = ledger.file().to_owned();
    // As after a kill between the journal's sync and the commit: a hot journal beside half-written pages.
    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join("ledger.db");
    ledger.connection.pragma_update(None, "cache_size", 1).unwrap();
    ledger.connection.pragma_update(None, "cache_spill", 1).unwrap();
    ledger.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for i in 0..200 {
        let sql = "INSERT INTO pending_work VALUES ('close_filter', ?1, 0, 1, ?2)";
        let row = (i.to_string(), "x".repeat(1000));
        ledger.connection.execute(sql, row).unwrap();
    }
    ledger
        .connection
        .execute("UPDATE entries SET net = '0.0.0.0/0'", [])
        .unwrap();
    std::fs::copy(&file, &copy).unwrap();
    std::fs::copy(
        file.with_file_name("ledger.db-journal"),
        copy.with_file_name("ledger.db-journal"),
    )
    .unwrap();
    assert!(copy.metadata().unwrap().len() > 100_000, "pages were spilled");

    let recovered = Ledger::open_read_only(&copy).unwrap();
    assert_eq!(recovered.entries().unwrap()[0].net, net("10.0.0.0/8"));
    assert_eq!(recovered.pending_work().unwrap(), []);
}

#[test]
fn a_version_stays_until_anybody_writes() {
    let (folder, mut ledger) = ledger();
    let mut other = Ledger::open(&folder.path().join("ledger.db")).unwrap();
    let first = ledger.version().unwrap();
    ledger.entries().unwrap();
    other.entries().unwrap();
    assert_eq!(ledger.version().unwrap(), first);
    ledger.put_entry(&allow("10.0.0.0/8"), T0).unwrap();
    let second = ledger.version().unwrap();
    assert_ne!(second, first);
    other.put_entry(&allow("10.1.0.0/16"), T0).unwrap();
    let third = ledger.version().unwrap();
    assert_ne!(third, second);
    // What changes nothing is no version of its own.
    other.put_entry(&pending("10.2.0.0/16", 7), T0).unwrap_err();
    assert_eq!(ledger.version().unwrap(), third);
}

fn pending(text: &str, generation: u64) -> NewEntry {
    NewEntry {
        generation: Some(generation),
        ..allow(text)
    }
}
