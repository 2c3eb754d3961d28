//! From one policy to the next, with a way back.

use pgfw_tests::lab::{EchoServer, Reach, Site, Talk, address};

use super::{CONFIG, becomes, configured, is_open, is_silent, refused};

/// The stranger's networks are open too.
fn wider() -> String {
    CONFIG.replace("allow = [", "allow = [\"192.168.1.0/24\", \"fd00:30::/64\", ")
}

#[test]
fn a_config_that_does_not_parse_never_replaces_one_that_runs() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    for (text, named, remedy) in [
        ("[firewal]\n", "`firewal`", "`firewall`"),
        ("[firewall]\ninterfaces = [\"eth7\"]\n", "eth7", "eth0"),
        ("not TOML", "pgfw.toml:1", "Correct line 1"),
    ] {
        pgfw.configure(text);
        refused(&pgfw.pgfw(&["reload"]), 2, &[named], remedy);
        assert!(is_silent(&site.stranger, address::DB, 5432), "{text}");
        assert!(is_open(&site.client, address::DB, 5432), "{text}");
    }
    let status = pgfw.status();
    assert_eq!(status.state(), "enforcing");
    let attention = status.attention();
    assert!(
        attention.contains("pgfw.toml:1") && attention.contains("policy 1 runs on"),
        "{attention}"
    );
    // Commands go by the policy that runs, not by the file.
    pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    assert!(is_open(&site.stranger, address::DB, 5432));
    // And so does the next daemon, even with nothing left in the kernel.
    daemon.kill();
    pgfw.ok(&["off"]);
    let _daemon = pgfw.start();
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
}

#[test]
fn a_dry_run_says_what_would_open_and_close_and_changes_nothing() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    pgfw.configure(&wider().replace("\"fd00:20::/64\"", "\"fd00:21::/64\""));
    let said = pgfw.ok(&["reload", "--dry-run"]);
    for line in [
        "+ main opens to 192.168.1.0/24",
        "+ main opens to fd00:21::/64",
        "- main closes to fd00:20::/64",
    ] {
        assert!(said.contains(line), "{line}:\n{said}");
    }
    assert!(!said.contains("10.20.0.0/16"), "{said}");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    // Services and modes are told, too.
    let service = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [\"53\"]\n";
    let settings = wider().replace(
        "[[postgres]]",
        "mode = \"audit\"\necho = \"accept\"\n[[postgres]]\nport = 5433",
    );
    pgfw.configure(&format!("{settings}{service}"));
    let told = pgfw.ok(&["reload", "--dry-run"]);
    for line in [
        "- main is not at protocol 6, port 5432 any more",
        "+ main is at protocol 6, port 5433",
        "+ dns is at protocol 17, port 53",
        "~ firewall.mode was enforce and becomes audit",
        "~ firewall.echo was drop and becomes accept",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    assert!(!told.contains("dhcp_client"), "{told}");
    pgfw.configure(&wider().replace("\"fd00:20::/64\"", "\"fd00:21::/64\""));
    let said = pgfw.ok(&["reload"]);
    assert!(said.contains("Policy 2 counts now"), "{said}");
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(is_silent(&site.client, address::DB_V6, 5432));
    let said = pgfw.ok(&["reload"]);
    assert!(said.contains("nothing was changed"), "{said}");
}

#[test]
fn a_reload_that_nobody_confirms_undoes_itself() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.configure(&wider());
    let said = pgfw.ok(&["reload", "--confirm", "4s"]);
    assert!(said.contains("pgfw confirm"), "{said}");
    assert!(is_open(&site.stranger, address::DB, 5432));
    let mut drains = Talk::open(&site.stranger, address::DB, 5432);
    refused(
        &pgfw.pgfw(&["reload"]),
        1,
        &["policy 2 still waits"],
        "pgfw rollback",
    );
    becomes(&site.stranger, address::DB, 5432, Reach::Silent);
    assert!(drains.flows());
    assert!(is_open(&site.client, address::DB, 5432));
    refused(
        &pgfw.pgfw(&["confirm"]),
        1,
        &["policy 2 was not confirmed in time"],
        "pgfw reload",
    );

    // The same with nobody there to do it.
    pgfw.ok(&["reload", "--confirm", "4s"]);
    daemon.kill();
    assert!(is_open(&site.stranger, address::DB, 5432));
    becomes(&site.stranger, address::DB, 5432, Reach::Silent);
    let _daemon = pgfw.start();
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert_eq!(pgfw.status().state(), "enforcing");
}

#[test]
fn a_pending_change_is_kept_or_undone_by_hand() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.configure(&wider());
    pgfw.ok(&["reload", "--confirm", "1m"]);
    assert!(is_open(&site.stranger, address::DB, 5432));
    let said = pgfw.ok(&["rollback"]);
    assert!(said.contains("policy 1 counts again"), "{said}");
    assert!(is_silent(&site.stranger, address::DB, 5432));

    pgfw.ok(&["reload", "--confirm", "1m"]);
    // A restart within the window leaves it as it is.
    daemon.kill();
    let daemon = pgfw.start();
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(
        pgfw.status().0["pending"]["seconds"]
            .as_u64()
            .is_some_and(|s| s <= 60)
    );
    pgfw.ok(&["confirm"]);
    daemon.kill();
    pgfw.ok(&["off"]);
    let _daemon = pgfw.start();
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn what_is_closed_while_a_change_waits_stays_closed_when_it_goes() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    pgfw.configure(&wider());
    pgfw.ok(&["reload", "--confirm", "1m"]);
    pgfw.ok(&["deny", address::CLIENT_NETWORK]);
    assert!(is_silent(&site.client, address::DB, 5432));
    pgfw.ok(&["rollback"]);
    assert!(is_silent(&site.client, address::DB, 5432));
    assert!(is_open(&site.client, address::DB_V6, 5432));
}
