//! Enforcement is in the kernel; the daemon only tends it.

use pgfw_tests::lab::foreign::attached;
use pgfw_tests::lab::{EchoServer, PATIENCE, Site, address, eventually, join};

use super::{CONFIG, configured, is_open, is_silent, nothing_is_left, nothing_is_on, refused};

#[test]
fn f34_a_killed_daemon_is_not_missed_and_its_successor_adopts_everything() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.ok(&["allow", address::STRANGER_NETWORK, "--comment", "since before"]);
    let program = attached(&site.db, "eth0");
    assert!(program.is_some());
    daemon.kill();

    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
    let before = pgfw.status();
    assert_eq!(before.state(), "enforcing");
    assert!(is_silent(&site.router, address::DB, 5432));
    let after = pgfw.status();
    assert!(after.packets("service-closed") > before.packets("service-closed"));
    let shown = pgfw.pgfw(&["status"]);
    assert_eq!(shown.code, Some(3));
    assert!(shown.stdout.starts_with("Protected: policy 1") && shown.stdout.contains("not running"));

    let daemon = pgfw.start();
    assert!(daemon.log().contains("adopted the policy"), "{}", daemon.log());
    assert_eq!(attached(&site.db, "eth0"), program, "the program was not touched");
    let adopted = pgfw.status();
    assert!(adopted.packets("service-closed") >= after.packets("service-closed"));
    assert!(adopted.packets("service") >= after.packets("service"));
    let list = pgfw.ok(&["list"]);
    assert!(
        list.contains("192.168.1.0/24") && list.contains("since before"),
        "{list}"
    );
    assert!(is_open(&site.stranger, address::DB, 5432));
    pgfw.ok(&["remove", address::STRANGER_NETWORK]);
    assert!(is_silent(&site.stranger, address::DB, 5432));
}

#[test]
fn f34_a_policy_on_probation_is_adopted_with_its_deadline() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    pgfw.start_with(&["--probation", "1m"]).kill();
    let daemon = pgfw.start_with(&["--probation", "1h"]);
    let left = pgfw.status().0["pending"]["seconds"].as_u64();
    assert!(left.is_some_and(|s| s > 20 && s <= 60), "{left:?} s are left");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    pgfw.ok(&["confirm"]);
    assert!(daemon.stop().success());
    let daemon = pgfw.start();
    assert!(daemon.log().contains("adopted"), "{}", daemon.log());
}

#[test]
fn f37_stopping_keeps_what_is_enforced_unless_told_otherwise() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    assert!(daemon.stop().success());
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
    let gone = site
        .db
        .within(|| std::path::Path::new("/run/pgfw/pgfw.sock").exists());
    assert!(!gone, "whoever finds a socket can reach a daemon");

    let daemon = pgfw.start();
    pgfw.configure(&CONFIG.replace("[[postgres]]", "on_stop = \"detach\"\n[[postgres]]"));
    pgfw.ok(&["reload"]);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(daemon.stop().success());
    nothing_is_left(&site.db);
    assert!(is_open(&site.stranger, address::DB, 5432));
    let _daemon = pgfw.start();
    assert!(is_silent(&site.stranger, address::DB, 5432));
}

#[test]
fn f37_off_leaves_nothing_with_the_daemon_and_without() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let said = pgfw.ok(&["off"]);
    assert!(said.contains("Detached from eth0"), "{said}");
    nothing_is_left(&site.db);
    assert!(is_open(&site.stranger, address::DB, 5432));

    // The daemon lives on without anything to tend, and says so.
    assert_eq!(pgfw.status().state(), "off");
    pgfw.ok(&["list"]);
    refused(
        &pgfw.pgfw(&["reload"]),
        1,
        &["pgfw is off"],
        "systemctl restart pgfw",
    );
    refused(
        &pgfw.pgfw(&["check", "10.20.0.10"]),
        1,
        &["no policy judges"],
        "pgfw status",
    );
    nothing_is_left(&site.db);
    assert!(daemon.stop().success());

    let daemon = pgfw.start();
    assert!(is_silent(&site.stranger, address::DB, 5432));
    daemon.kill();
    assert!(is_silent(&site.stranger, address::DB, 5432));
    pgfw.ok(&["off"]);
    nothing_is_left(&site.db);
    assert!(is_open(&site.stranger, address::DB, 5432));
    let again = pgfw.ok(&["off"]);
    assert!(again.contains("Nothing was attached"), "{again}");
    nothing_is_left(&site.db);
}

#[test]
fn off_needs_neither_a_ledger_nor_a_config() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    pgfw.enforce().kill();
    site.db.within(|| {
        std::fs::write("/var/lib/pgfw/ledger.db", "this is no ledger").unwrap();
        std::fs::write("/etc/pgfw/pgfw.toml", "nor is this a config").unwrap();
    });
    pgfw.ok(&["off"]);
    nothing_is_left(&site.db);
}

#[test]
fn f37_an_interface_that_leaves_the_config_is_as_before() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    join((&site.router, "second"), (&site.db, "eth1"));
    let pgfw = configured(&site, &CONFIG.replace("\"eth0\"", "\"eth*\""));
    let _daemon = pgfw.enforce();
    assert!(attached(&site.db, "eth0").is_some() && attached(&site.db, "eth1").is_some());
    pgfw.configure(&CONFIG.replace("eth0", "eth1"));
    pgfw.ok(&["reload"]);
    nothing_is_on(&site.db, "eth0");
    assert!(attached(&site.db, "eth1").is_some());
    assert!(is_open(&site.stranger, address::DB, 5432));
    // While a change waits nothing is left: the kernel may go back to the confirmed policy alone.
    pgfw.configure(CONFIG);
    pgfw.ok(&["reload", "--confirm", "1m"]);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(attached(&site.db, "eth0").is_some() && attached(&site.db, "eth1").is_some());
    pgfw.ok(&["rollback"]);
    nothing_is_on(&site.db, "eth0");
    assert!(attached(&site.db, "eth1").is_some());
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let second = pgfw.pgfw(&["run"]);
    refused(
        &second,
        1,
        &["another pgfw daemon runs", "/var/lib/pgfw"],
        "its own --config, --state-dir, --socket and --bpffs",
    );
    assert_eq!(pgfw.status().state(), "enforcing");
    pgfw.ok(&["allow", "10.99.0.0/16"]);
}

#[test]
fn with_the_daemon_dead_what_closes_works_and_what_opens_says_why_it_does_not() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    daemon.kill();
    for arguments in [
        &["allow", "10.99.0.0/16"][..],
        &["remove", address::STRANGER_NETWORK],
        &["list"],
        &["reload"],
    ] {
        refused(
            &pgfw.pgfw(arguments),
            3,
            &["/run/pgfw/pgfw.sock"],
            "systemctl start pgfw",
        );
    }
    pgfw.ok(&["deny", "192.168.0.0/16"]);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    let _daemon = pgfw.start();
    assert!(is_silent(&site.stranger, address::DB, 5432));
    pgfw.ok(&["remove", "192.168.0.0/16"]);
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn an_interface_that_appears_is_covered_when_it_does() {
    let site = Site::new();
    let pgfw = configured(&site, &CONFIG.replace("eth0", "eth*"));
    let _daemon = pgfw.enforce();
    join((&site.router, "second"), (&site.db, "eth1"));
    // Long before the daemon's next round.
    eventually("eth1 is covered", PATIENCE, || attached(&site.db, "eth1"));
    assert_eq!(pgfw.status().attention(), "");
}

#[test]
fn f39_an_interface_that_is_gone_is_named_and_covered_when_it_comes_back() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    join((&site.router, "second"), (&site.db, "eth1"));
    let pgfw = configured(&site, &CONFIG.replace("[\"eth0\"]", "[\"eth0\", \"eth1\"]"));
    let daemon = pgfw.enforce();
    let links = || {
        let names = site
            .db
            .within(|| std::fs::read_dir("/sys/fs/bpf/pgfw/links").map(Iterator::count));
        names.unwrap()
    };
    assert_eq!(links(), 4);
    site.db.ip("link delete eth0");
    assert!(pgfw.ok(&["check", "10.20.0.10"]).contains("pass"));
    let attention = pgfw.status().attention();
    assert!(attention.contains("there is no interface eth0"), "{attention}");
    pgfw.ok(&["allow", "10.99.0.0/16"]);
    eventually("what is left of it goes", PATIENCE, || {
        (links() == 2).then_some(())
    });
    let log = daemon.log();
    assert_eq!(log.matches("there is no interface eth0").count(), 1, "{log}");
    assert!(pgfw.ok(&["check", "10.20.0.10"]).contains("pass"));

    join((&site.router, "third"), (&site.db, "eth0"));
    pgfw.ok(&["allow", "10.98.0.0/16"]);
    eventually("it is covered again", PATIENCE, || attached(&site.db, "eth0"));
    assert_eq!(pgfw.status().attention(), "");
}

#[test]
fn status_counts_packets_by_service() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let counted = |name: &str| {
        let status = pgfw.status();
        let services = status.0["services"].as_array().unwrap();
        let one = services.iter().find(|s| s["name"] == name).unwrap();
        (one["passed"].as_u64().unwrap(), one["dropped"].as_u64().unwrap())
    };
    assert_eq!((counted("main"), counted("ssh")), ((0, 0), (0, 0)));
    assert!(is_open(&site.client, address::DB, 5432));
    let (passed, dropped) = counted("main");
    assert!(passed >= 2 && dropped == 0, "{passed} {dropped}");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    let (passed_then, dropped_then) = counted("main");
    assert!(
        passed_then >= passed && dropped_then >= 1,
        "{passed_then} {dropped_then}"
    );
    assert_eq!(counted("ssh"), (0, 0));
}
