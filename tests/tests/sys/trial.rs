//! `allow`, `deny`, `remove` with `--confirm`: single changes that undo themselves.

use std::time::Duration;

use pgfw_tests::lab::{EchoServer, Reach, Site, Talk, address};

use super::{CONFIG, becomes, configured, is_open, is_silent, refused};

#[test]
fn f47_a_single_change_that_nobody_confirms_undoes_itself_with_the_daemon_dead() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.ok(&["allow", address::STRANGER_NETWORK_V6, "--comment", "stays"]);
    let said = pgfw.ok(&["allow", address::STRANGER_NETWORK, "--confirm", "4s"]);
    assert!(
        said.contains("may connect") && said.contains("pgfw confirm"),
        "{said}"
    );
    assert!(is_open(&site.stranger, address::DB, 5432));
    for arguments in [&["allow", "10.99.0.0/16", "--confirm", "1m"][..], &["reload"]] {
        refused(&pgfw.pgfw(arguments), 1, &["still waits"], "pgfw rollback");
    }
    daemon.kill();
    becomes(&site.stranger, address::DB, 5432, Reach::Silent);
    assert!(is_open(&site.stranger, address::DB_V6, 5432));
    let daemon = pgfw.start();
    let list = pgfw.ok(&["list"]);
    assert!(
        !list.contains("192.168.1.0/24") && list.contains("stays"),
        "{list}"
    );

    // A removal and a deny come back as they were.
    for (arguments, to) in [
        (&["remove", address::STRANGER_NETWORK_V6][..], address::DB_V6),
        (&["deny", address::STRANGER_NETWORK_V6], address::DB_V6),
    ] {
        pgfw.ok(&[arguments, &["--confirm", "1h"]].concat());
        assert!(is_silent(&site.stranger, to, 5432), "{arguments:?}");
        pgfw.ok(&["rollback"]);
        assert!(is_open(&site.stranger, to, 5432), "{arguments:?}");
        assert!(pgfw.ok(&["list"]).contains("stays"), "{arguments:?}");
    }
    // Confirmed, they stay over a boot.
    pgfw.ok(&["allow", address::STRANGER_NETWORK, "--confirm", "1h"]);
    pgfw.ok(&["confirm"]);
    daemon.kill();
    pgfw.ok(&["off"]);
    let _daemon = pgfw.start();
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.stranger, address::DB_V6, 5432));
}

#[test]
fn f23_f47_a_deny_on_trial_starves_connections_and_ends_them_when_it_is_confirmed() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let mut idle = Talk::open(&site.client, address::DB, 5432);
    pgfw.ok(&["deny", address::CLIENT_NETWORK, "--confirm", "1h"]);
    assert!(is_silent(&site.client, address::DB, 5432));
    pgfw.ok(&["rollback"]);
    assert!(idle.flows(), "it was not ended, so it goes on");
    pgfw.ok(&["deny", address::CLIENT_NETWORK, "--confirm", "1h"]);
    pgfw.ok(&["confirm"]);
    assert!(idle.ends_by_itself(Duration::from_secs(1)));
    let cut = pgfw.pgfw(&["remove", address::CLIENT_NETWORK, "--cut", "--confirm", "1m"]);
    refused(&cut, 2, &["do not come back"], "--cut or --confirm");
}

#[test]
fn f52_what_is_closed_while_a_generation_pends_stays_closed_whatever_becomes_of_it() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let (v4, v6) = (address::STRANGER_NETWORK, address::STRANGER_NETWORK_V6);
    for end in ["rollback", "confirm"] {
        pgfw.ok(&["allow", v4]);
        pgfw.ok(&["allow", v6]);
        pgfw.ok(&["allow", "10.99.0.0/16", "--confirm", "1h"]);
        let mut idle = Talk::open(&site.client, address::DB, 5432);
        pgfw.ok(&["deny", address::CLIENT_NETWORK]);
        pgfw.ok(&["remove", v4]);
        pgfw.ok(&["remove", v6, "--cut"]);
        assert!(idle.ends_by_itself(Duration::from_secs(1)), "{end}");
        pgfw.ok(&[end]);
        assert!(is_silent(&site.client, address::DB, 5432), "{end}");
        assert!(is_open(&site.client, address::DB_V6, 5432), "{end}");
        assert!(is_silent(&site.stranger, address::DB, 5432), "{end}");
        assert!(is_silent(&site.stranger, address::DB_V6, 5432), "{end}");
        pgfw.ok(&["remove", address::CLIENT_NETWORK]);
    }
}

#[test]
fn f47_of_two_reloads_only_the_one_that_waits_goes() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let with = |more: &str| CONFIG.replace("allow = [", &format!("allow = [{more}"));
    pgfw.configure(&with("\"192.168.1.0/24\", "));
    pgfw.ok(&["reload", "--confirm", "1h"]);
    pgfw.ok(&["confirm"]);
    pgfw.configure(&with("\"192.168.1.0/24\", \"fd00:30::/64\", "));
    pgfw.ok(&["reload", "--confirm", "3s"]);
    assert!(is_open(&site.stranger, address::DB_V6, 5432));
    daemon.kill();
    becomes(&site.stranger, address::DB_V6, 5432, Reach::Silent);
    assert!(is_open(&site.stranger, address::DB, 5432));
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().0["generation"], 2);
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
}
