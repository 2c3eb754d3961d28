//! A full disk under the ledger: nothing opens, and what closes still closes.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use nix::mount::{MsFlags, mount};
use pgfw_tests::lab::{EchoServer, Host, PATIENCE, Site, Talk, address, eventually};

use super::{CONFIG, configured, is_open, is_silent, refused};

/// What the ledger could not take.
const SPARE: &str = "/run/pgfw/unrecorded.json";

const FILLER: &str = "/var/lib/pgfw/filler";

/// A file system of one megabyte for pgfw's state alone.
fn small_disk(host: &Host) {
    host.within(|| {
        fs::create_dir_all("/var/lib/pgfw").unwrap();
        let options = Some("size=1m,mode=755");
        mount(
            Some("small"),
            "/var/lib/pgfw",
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
    });
}

/// Writes until there is no room for a byte more.
fn fill(host: &Host) {
    host.within(|| {
        let mut filler = File::create(FILLER).unwrap();
        for size in [4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    });
}

fn make_room(host: &Host) {
    host.within(|| fs::remove_file(FILLER).unwrap());
}

#[test]
fn with_a_full_disk_nothing_opens_and_what_closes_is_recorded_when_there_is_room() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    small_disk(&site.db);
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.ok(&["allow", address::STRANGER_NETWORK_V6]);
    let mut idle = Talk::open(&site.client, address::DB, 5432);
    fill(&site.db);

    let said = pgfw.pgfw(&["allow", address::STRANGER_NETWORK]);
    refused(
        &said,
        1,
        &["no space left", "/var/lib/pgfw/ledger.db"],
        "Free space",
    );
    assert!(is_silent(&site.stranger, address::DB, 5432));

    let said = pgfw.pgfw(&["deny", address::CLIENT_NETWORK]);
    refused(
        &said,
        1,
        &["10.20.0.0/16 is closed", "could not be recorded"],
        "Free space",
    );
    assert!(is_silent(&site.client, address::DB, 5432));
    assert!(idle.ends_by_itself(std::time::Duration::from_secs(1)));
    let said = pgfw.pgfw(&["remove", address::STRANGER_NETWORK_V6]);
    refused(
        &said,
        1,
        &["fd00:30::/64 is closed", "could not be recorded"],
        "Free space",
    );
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
    let attention = pgfw.status().attention();
    assert!(
        attention.contains("could not be written to the ledger"),
        "{attention}"
    );

    make_room(&site.db);
    eventually("what was closed is recorded", PATIENCE, || {
        pgfw.status().attention().is_empty().then_some(())
    });
    daemon.kill();
    let _daemon = pgfw.start();
    let list = pgfw.ok(&["list"]);
    assert!(
        list.contains("pgfw deny 10.20.0.0/16") && !list.contains("fd00:30::"),
        "{list}"
    );
    assert!(is_silent(&site.client, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
    assert!(is_open(&site.client, address::DB_V6, 5432));
}

#[test]
fn a_first_start_on_a_full_disk_changes_nothing() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    small_disk(&site.db);
    fill(&site.db);
    let pgfw = configured(&site, CONFIG);
    let said = pgfw.pgfw(&["run"]);
    refused(&said, 1, &["/var/lib/pgfw"], "pace");
    super::nothing_is_left(&site.db);
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn a_restart_on_a_full_disk_enforces_what_was_confirmed() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    small_disk(&site.db);
    let pgfw = configured(&site, CONFIG);
    pgfw.enforce().kill();
    pgfw.ok(&["off"]);
    fill(&site.db);
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "enforcing");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
}

#[test]
fn on_a_full_disk_the_last_word_counts_and_nothing_opens() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    small_disk(&site.db);
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let (network, to) = (address::STRANGER_NETWORK, address::DB);
    pgfw.ok(&["allow", "192.168.0.0/16"]);
    pgfw.ok(&["deny", "192.168.1.10"]);
    pgfw.ok(&["allow", network]);
    fill(&site.db);

    // To take a deny back would open.
    let said = pgfw.pgfw(&["remove", "192.168.1.10"]);
    refused(&said, 1, &["no space left", "nothing was changed"], "Free space");
    assert!(is_silent(&site.stranger, to, 5432));

    // Closed twice over, in this order; the removal must not take the later deny along.
    assert_eq!(pgfw.pgfw(&["remove", network]).code, Some(1));
    assert_eq!(pgfw.pgfw(&["deny", network]).code, Some(1));
    make_room(&site.db);
    pgfw.ok(&["remove", "192.168.1.10"]);
    assert!(is_silent(&site.stranger, to, 5432));
    let list = pgfw.ok(&["list"]);
    assert!(list.contains("pgfw deny 192.168.1.0/24"), "{list}");
    assert!(!list.contains("pgfw allow 192.168.1.0/24"), "{list}");

    // What is allowed once there is room is not taken for what was removed before.
    pgfw.ok(&["remove", network]);
    pgfw.ok(&["remove", "192.168.0.0/16"]);
    pgfw.ok(&["allow", network]);
    fill(&site.db);
    assert_eq!(pgfw.pgfw(&["remove", network]).code, Some(1));
    assert!(is_silent(&site.stranger, to, 5432));
    make_room(&site.db);
    pgfw.ok(&["allow", network]);
    assert!(is_open(&site.stranger, to, 5432));
    daemon.kill();

    // Without the daemon too; the next one knows, before and after there is room.
    fill(&site.db);
    let said = pgfw.pgfw(&["deny", network]);
    refused(
        &said,
        1,
        &["192.168.1.0/24 is closed"],
        "recorded when the daemon starts and there is room",
    );
    assert!(is_silent(&site.stranger, to, 5432));
    let spare = site.db.within(|| fs::metadata(SPARE).unwrap());
    assert_eq!(spare.permissions().mode() & 0o777, 0o600);
    let daemon = pgfw.start();
    assert!(is_silent(&site.stranger, to, 5432));
    daemon.kill();
    // Where nothing is enforced it does not say that the kernel closed anything.
    pgfw.ok(&["off"]);
    let said = pgfw.pgfw(&["deny", "10.20.0.0/16"]);
    let names = ["10.20.0.0/16 is to be closed", "could not be recorded"];
    refused(&said, 1, &names, "Free space");
    make_room(&site.db);
    let _daemon = pgfw.start();
    eventually("the ledger has the deny", PATIENCE, || {
        let rest = site.db.within(|| std::path::Path::new(SPARE).exists());
        (!rest).then_some(())
    });
    assert!(pgfw.ok(&["list"]).contains("pgfw deny 192.168.1.0/24"));
    assert!(is_silent(&site.stranger, to, 5432));
}

/// The stranger's network is open too.
fn wider() -> String {
    CONFIG.replace("allow = [", "allow = [\"192.168.1.0/24\", ")
}

#[test]
fn on_a_full_disk_no_policy_begins_and_one_that_waits_can_go_and_not_stay() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    small_disk(&site.db);
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let full = ["no space left", "/var/lib/pgfw/ledger.db"];
    fill(&site.db);
    pgfw.configure(&wider());
    for arguments in [&["reload"][..], &["reload", "--confirm", "1m"]] {
        refused(&pgfw.pgfw(arguments), 1, &full, "Free space");
        assert!(is_silent(&site.stranger, address::DB, 5432));
        assert_eq!(pgfw.status().0["generation"], 1);
    }
    make_room(&site.db);
    pgfw.ok(&["reload", "--confirm", "1h"]);
    assert!(is_open(&site.stranger, address::DB, 5432));

    fill(&site.db);
    refused(&pgfw.pgfw(&["confirm"]), 1, &full, "Free space");
    assert_eq!(pgfw.status().0["pending"]["generation"], 2);
    assert!(is_open(&site.stranger, address::DB, 5432));
    refused(
        &pgfw.pgfw(&["rollback"]),
        1,
        &["policy 2 is undone", "could not be recorded"],
        "It stays undone. Free space",
    );
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
    let attention = pgfw.status().attention();
    assert!(attention.contains("policy 2 is undone"), "{attention}");

    make_room(&site.db);
    eventually("the ledger has the rollback", PATIENCE, || {
        let attention = pgfw.status().attention();
        (!attention.contains("policy 2 is undone")).then_some(())
    });
    pgfw.ok(&["reload"]);
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn f47_a_power_cycle_inside_the_window_comes_back_confirmed_on_a_full_disk_too() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    small_disk(&site.db);
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.configure(&wider());
    pgfw.ok(&["reload", "--confirm", "1h"]);
    daemon.kill();
    // What a power cycle takes.
    pgfw.ok(&["off"]);
    fill(&site.db);

    let _daemon = pgfw.start();
    let status = pgfw.status();
    assert_eq!(status.summary(), "Protected: policy 1 is enforced on eth0.");
    let attention = status.attention();
    assert!(attention.contains("policy 2 is undone"), "{attention}");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
    make_room(&site.db);
    eventually("the ledger has the rollback", PATIENCE, || {
        let attention = pgfw.status().attention();
        (!attention.contains("policy 2 is undone")).then_some(())
    });
    pgfw.ok(&["reload"]);
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn a_reload_that_the_ledger_does_not_confirm_changes_nothing() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    // Fails between the two transactions of a reload, as a disk may.
    let fault = "CREATE TRIGGER fault BEFORE UPDATE ON generations WHEN new.state = 'confirmed'
                 BEGIN SELECT RAISE(ABORT, 'fault'); END";
    let in_ledger = |sql: &str| {
        let done = |path| rusqlite::Connection::open(path).and_then(|db| db.execute_batch(sql));
        site.db.within(|| done("/var/lib/pgfw/ledger.db")).unwrap();
    };
    in_ledger(fault);
    pgfw.configure(&wider());
    let said = pgfw.pgfw(&["reload"]);
    refused(&said, 1, &["nothing was changed"], "/var/lib/pgfw/ledger.db");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    let status = pgfw.status();
    assert_eq!(
        (&status.0["generation"], &status.0["pending"]),
        (&1.into(), &serde_json::Value::Null)
    );
    in_ledger("DROP TRIGGER fault");
    pgfw.ok(&["reload"]);
    assert!(is_open(&site.stranger, address::DB, 5432));
}
