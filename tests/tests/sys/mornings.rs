//! Bad mornings: what was confirmed cannot be had. The host is then under what the kernel has of it, else SSH only; never
//! closed in silence, and never open.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use pgfw_tests::lab::{
    EchoServer, Host, Instance, PATIENCE, Reach, Site, Sshd, Talk, address, eventually, run, without_programs,
};

use super::{CONFIG, becomes, configured, is_open, is_silent, refused};

const LEDGER: &str = "/var/lib/pgfw/ledger.db";
const BACKUP: &str = "/var/lib/pgfw-backup.db";

fn with_ssh_at(port: u16) -> String {
    format!("{CONFIG}\n[ssh]\nports = [{port}]\n")
}

/// What a boot leaves of an installation that was confirmed, and a copy of its ledger.
fn booted(pgfw: &Instance<'_>) {
    pgfw.enforce().kill();
    pgfw.ok(&["off"]);
    pgfw.host().within(|| fs::copy(LEDGER, BACKUP).unwrap());
}

fn restore(host: &Host) {
    host.within(|| fs::copy(BACKUP, LEDGER).unwrap());
}

/// The ways in which a ledger is lost, each with what is said of it.
const LOSSES: [(&str, fn()); 4] = [
    ("knows of none", || fs::remove_file(LEDGER).unwrap()),
    ("is not a ledger", || {
        fs::write(LEDGER, "this is no ledger").unwrap()
    }),
    ("knows of none", || {
        // One of before the first confirmation.
        let db = rusqlite::Connection::open(LEDGER).unwrap();
        db.execute_batch("DELETE FROM generations").unwrap();
    }),
    ("has schema 1000", || {
        let db = rusqlite::Connection::open(LEDGER).unwrap();
        db.pragma_update(None, "user_version", 1000).unwrap();
    }),
];

#[test]
fn f48_with_its_ledger_lost_a_booted_host_lets_ssh_in_where_sshd_listens_and_nothing_else() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let _not_ssh = EchoServer::start(&site.db, "[::]:22");
    let _sshd = Sshd::start(&site.db, 2222);
    let pgfw = configured(&site, &with_ssh_at(2222));
    booted(&pgfw);
    for (said, lose) in LOSSES {
        restore(&site.db);
        site.db.within(lose);
        let daemon = pgfw.start();
        let status = pgfw.status();
        assert_eq!(status.state(), "ssh_only", "{said}: {}", status.summary());
        let first = pgfw.ok(&["status"]);
        let first = first.lines().next().unwrap();
        assert!(first.starts_with("SSH only on eth0, port 2222: "), "{first}");
        assert!(first.contains(said) && first.contains(LEDGER), "{said}: {first}");
        let log = daemon.log();
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
        for (port, from) in [(5432, &site.client), (5432, &site.stranger), (22, &site.stranger)] {
            assert!(is_silent(from, address::DB, port), "{said}: {port}");
        }
        assert!(is_open(&site.stranger, address::DB, 2222), "{said}");
        assert!(is_open(&site.stranger, address::DB_V6, 2222), "{said}");
        for arguments in [
            &["allow", "10.99.0.0/16"][..],
            &["remove", "10.99.0.0/16"],
            &["reload"],
        ] {
            refused(&pgfw.pgfw(arguments), 1, &["cannot be had"], "pgfw deny");
        }
        // With the daemon dead the same is said, and the next start is the same.
        daemon.kill();
        let without = pgfw.pgfw(&["status"]);
        assert!(without.stdout.starts_with("SSH only on eth0"), "{without:?}");
        let daemon = pgfw.start();
        assert!(is_open(&site.stranger, address::DB, 2222), "{said}");
        drop(daemon);
        pgfw.ok(&["off"]);
    }

    // What closes works, and is in the ledger once there is one.
    site.db.within(LOSSES[0].1);
    let daemon = pgfw.start();
    let deny = pgfw.pgfw(&["deny", address::STRANGER_NETWORK]);
    refused(
        &deny,
        1,
        &["is closed in the kernel", "not be recorded"],
        "Restore",
    );
    assert!(is_silent(&site.stranger, address::DB, 2222));
    daemon.kill();
    restore(&site.db);
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "enforcing");
    assert!(is_open(&site.client, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB, 2222));
    assert!(pgfw.ok(&["list"]).contains("pgfw deny 192.168.1.0/24"));
}

#[test]
fn f48_with_its_ledger_lost_a_restart_leaves_what_the_kernel_enforces_and_closes_more() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    for (said, lose) in LOSSES {
        let daemon = pgfw.enforce_again();
        pgfw.ok(&["allow", address::STRANGER_NETWORK_V6]);
        pgfw.ok(&["deny", "10.20.0.99"]);
        daemon.kill();
        site.db.within(|| {
            fs::copy(LEDGER, BACKUP).unwrap();
            lose();
        });
        let daemon = pgfw.start();
        let status = pgfw.status();
        assert_eq!(status.state(), "kept", "{said}: {}", status.summary());
        assert!(
            status.summary().contains("as the kernel has it"),
            "{}",
            status.summary()
        );
        assert!(status.summary().contains(said), "{}", status.summary());
        assert!(is_open(&site.client, address::DB, 5432), "{said}");
        assert!(is_open(&site.stranger, address::DB_V6, 5432), "{said}");
        assert!(is_silent(&site.stranger, address::DB, 5432), "{said}");
        assert!(pgfw.ok(&["check", "10.20.0.99"]).contains("drop"), "{said}");

        let mut idle = Talk::open(&site.client, address::DB, 5432);
        let one = pgfw.pgfw(&["deny", "10.20.0.0/16", "--service", "main"]);
        refused(&one, 1, &["a deny of one service"], "pgfw deny");
        let deny = pgfw.pgfw(&["deny", "10.20.0.0/16"]);
        assert_eq!(deny.code, Some(1), "{deny:?}");
        assert!(idle.ends_by_itself(Duration::from_secs(1)), "{said}");
        assert!(is_silent(&site.client, address::DB, 5432), "{said}");
        assert!(is_open(&site.client, address::DB_V6, 5432), "{said}");
        daemon.kill();
        restore(&site.db);
        let _daemon = pgfw.start();
        assert_eq!(pgfw.status().state(), "enforcing", "{said}");
        assert!(is_silent(&site.client, address::DB, 5432), "{said}");
        pgfw.ok(&["remove", "10.20.0.0/16"]);
        assert!(is_open(&site.client, address::DB, 5432), "{said}");
    }
}

#[test]
fn f48_in_rescue_ssh_is_let_in_where_sshd_comes_to_listen() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    booted(&pgfw);
    site.db.within(LOSSES[0].1);
    // Neither pgfw.toml nor the marker knows of this port; and at boot sshd starts after pgfw.
    let _daemon = pgfw.start();
    let summary = pgfw.status().summary().to_owned();
    assert!(summary.starts_with("SSH only on eth0, port 22: "), "{summary}");
    let _sshd = Sshd::start(&site.db, 2222);
    becomes(&site.stranger, address::DB, 2222, Reach::Open);
    let summary = pgfw.status().summary().to_owned();
    assert!(summary.starts_with("SSH only on eth0, port 2222: "), "{summary}");
}

#[test]
fn f48_with_the_capabilities_of_the_unit_sshd_is_found_by_its_configuration() {
    let site = Site::new();
    let _elsewhere = EchoServer::start(&site.db, "[::]:22");
    let _sshd = Sshd::start(&site.db, 2222);
    site.db.write(
        "/etc/ssh/sshd_config",
        "Include /etc/ssh/sshd_config.d/*.conf\n#Port 22\n",
    );
    site.db.write("/etc/ssh/sshd_config.d/port.conf", "port=2222\n");
    let pgfw = configured(&site, CONFIG);
    booted(&pgfw);
    site.db.within(LOSSES[0].1);
    // Without CAP_SYS_PTRACE nobody looks into sshd.
    let _daemon = pgfw.start_command(&mut pgfw.command_as_the_unit(&["run"]));
    let summary = pgfw.status().summary().to_owned();
    assert!(summary.starts_with("SSH only on eth0, port 2222: "), "{summary}");
    assert!(is_open(&site.stranger, address::DB, 2222));
    assert!(is_silent(&site.stranger, address::DB, 22));
}

#[test]
fn f48_a_confirmed_policy_that_is_not_understood_any_more_is_ssh_only_until_a_reload() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(&site, CONFIG);
    booted(&pgfw);
    site.db.within(|| {
        let db = rusqlite::Connection::open(LEDGER).unwrap();
        db.execute_batch("UPDATE generations SET config = 'of another time'")
            .unwrap();
    });
    pgfw.configure("[firewal]\n");
    let daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "ssh_only");
    assert!(is_open(&site.stranger, address::DB, 22));
    assert!(is_silent(&site.client, address::DB, 5432));
    // The ledger is whole: a reload with a file that is right ends it, on trial too.
    pgfw.configure(CONFIG);
    pgfw.ok(&["reload", "--confirm", "1h"]);
    assert!(is_open(&site.client, address::DB, 5432));
    pgfw.ok(&["rollback"]);
    assert!(is_silent(&site.client, address::DB, 5432));
    assert_eq!(pgfw.status().state(), "ssh_only");
    pgfw.ok(&["reload"]);
    assert_eq!(pgfw.status().state(), "enforcing");
    assert!(is_open(&site.client, address::DB, 5432));
    daemon.kill();
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "enforcing");
}

#[test]
fn f48_a_corrupt_config_at_boot_is_said_in_the_first_line_and_the_confirmed_policy_counts() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    booted(&pgfw);
    for text in ["not TOML", "[firewall]\ninterfaces = []\n[[postgres]]\n", ""] {
        pgfw.configure(text);
        let daemon = pgfw.start();
        let status = pgfw.status();
        assert_eq!(status.state(), "enforcing", "{text:?}");
        if !text.is_empty() {
            assert!(
                status.summary().contains("pgfw.toml"),
                "{text:?}: {}",
                status.summary()
            );
        }
        assert!(is_silent(&site.stranger, address::DB, 5432), "{text:?}");
        assert!(is_open(&site.client, address::DB, 5432), "{text:?}");
        daemon.kill();
        pgfw.ok(&["off"]);
    }
}

#[test]
fn f48_a_ledger_that_was_restored_counts_and_is_said_to_be_old() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    for boot in [false, true] {
        pgfw.configure(CONFIG);
        let daemon = pgfw.enforce_again();
        site.db.within(|| fs::copy(LEDGER, BACKUP).unwrap());
        pgfw.configure(&CONFIG.replace("allow = [", "allow = [\"192.168.1.0/24\", "));
        pgfw.ok(&["reload"]);
        pgfw.ok(&["deny", "10.20.0.99"]);
        daemon.kill();
        if boot {
            pgfw.ok(&["off"]);
        }
        restore(&site.db);
        for _ in 0..2 {
            let daemon = pgfw.start();
            let status = pgfw.status();
            assert_eq!(status.state(), "enforcing", "{boot}");
            assert!(
                status.summary().contains("was restored"),
                "{boot}: {}",
                status.summary()
            );
            assert!(
                status.attention().contains("from before policy 2"),
                "{boot}: {}",
                status.attention()
            );
            assert_eq!(daemon.log().matches("was restored").count(), 1, "{boot}");
            // What it says counts: nothing that was confirmed later.
            assert!(is_silent(&site.stranger, address::DB, 5432), "{boot}");
            assert!(is_open(&site.client, address::DB, 5432), "{boot}");
            if !boot {
                // The kernel has forgotten; the marker has not.
                pgfw.ok(&["off"]);
            }
        }
        let _daemon = pgfw.start();
        pgfw.ok(&["reload"]);
        assert!(!pgfw.status().summary().contains("was restored"), "{boot}");
        assert!(is_open(&site.stranger, address::DB, 5432), "{boot}");
    }
}

#[test]
fn f48_a_kernel_that_refuses_the_programs_is_named_and_what_it_enforces_goes_on() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let refusing = || {
        let mut command = pgfw.command(&["run"]);
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(without_programs) };
        run(&mut command)
    };
    pgfw.enforce().kill();
    let said = refusing();
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("kernel"), "{}", said.stderr);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "enforcing");

    // At boot there is nothing that could judge: it is said, again and again, and not in silence.
    drop(_daemon);
    pgfw.ok(&["off"]);
    assert_eq!(refusing().code, Some(1));
    let shown = pgfw.pgfw(&["status"]);
    assert!(
        shown.stdout.starts_with("Not protected: nothing is attached"),
        "{shown:?}"
    );
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn f48_without_its_certificates_a_booted_host_is_under_its_policy_and_says_what_is_gone() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let identity = "[[identity]]\nname = \"alice\"\nnetworks = [\"192.168.1.0/24\"]\n";
    let pgfw = configured(&site, &format!("{CONFIG}{identity}"));
    pgfw.ok(&["ca", "init"]);
    pgfw.ok(&["cert", "issue", "alice"]);
    booted(&pgfw);
    site.db.within(|| fs::remove_dir_all("/etc/pgfw/pki").unwrap());
    let _daemon = pgfw.start();
    let status = pgfw.status();
    assert_eq!(status.state(), "enforcing");
    assert!(is_open(&site.client, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
    // The ledger knows of a certificate that is valid; nobody can issue another.
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(
        status.attention().contains("/etc/pgfw/pki"),
        "{}",
        status.attention()
    );
}

#[test]
fn f48_an_empty_allowlist_leaves_ssh() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(
        &site,
        &CONFIG.replace("allow = [\"10.20.0.0/16\", \"fd00:20::/64\"]", "allow = []"),
    );
    booted(&pgfw);
    let _daemon = pgfw.start();
    assert!(is_open(&site.stranger, address::DB, 22));
    assert!(is_silent(&site.client, address::DB, 5432));
    assert_eq!(
        pgfw.ok(&["status", "--json"])
            .matches("\"networks_open\":2")
            .count(),
        1
    );
}

#[test]
fn f48_f53_where_nothing_was_confirmed_a_lost_ledger_is_probation_again() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    pgfw.start().kill();
    pgfw.ok(&["off"]);
    site.db.within(|| fs::remove_file(LEDGER).unwrap());
    let daemon = pgfw.start_with(&["--probation", "1h"]);
    assert_eq!(pgfw.status().state(), "probation");
    daemon.kill();
    pgfw.ok(&["off"]);
    site.db.within(|| fs::write(LEDGER, "this is no ledger").unwrap());
    refused(&pgfw.pgfw(&["run"]), 1, &[LEDGER, "not a ledger"], "Move");
    assert!(is_open(&site.stranger, address::DB, 5432));
    // Confirmed, it would be a loss; and without the marker a first start again.
    site.db.within(|| fs::remove_file(LEDGER).unwrap());
    booted(&pgfw);
    site.db.within(|| {
        fs::remove_file(LEDGER).unwrap();
        fs::remove_file("/etc/pgfw/.confirmed").unwrap();
    });
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "probation");
}

#[test]
fn f48_a_first_start_with_a_config_that_is_not_right_changes_nothing() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, "not TOML");
    refused(&pgfw.pgfw(&["run"]), 2, &["pgfw.toml:1"], "Correct line 1");
    super::nothing_is_left(&site.db);
    assert!(is_open(&site.stranger, address::DB, 5432));
}

#[test]
fn deleted_pins_are_noticed_and_made_anew() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.ok(&["allow", address::STRANGER_NETWORK_V6]);
    let index = site.db.ifindex("eth0");
    let folder = Path::new("/sys/fs/bpf/pgfw");
    let version = site.db.within(|| {
        let mut found = fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|e| e.file_name().into_string().unwrap());
        found.find(|name| name.starts_with('v')).unwrap()
    });
    for pin in [
        format!("links/{index}-xdp"),
        format!("links/{index}-egress"),
        format!("{version}/gen-1/policy"),
        format!("{version}/gen-1/PREFIXES"),
        format!("{version}/CONTROL"),
        format!("{version}/SLOTS"),
    ] {
        let path = folder.join(&pin);
        site.db.within(|| fs::remove_file(&path).unwrap());
        eventually(&format!("{pin} is there again"), PATIENCE, || {
            site.db.within(|| path.exists()).then_some(())
        });
        eventually(&format!("{pin}: all is well"), PATIENCE, || {
            pgfw.pgfw(&["status"])
                .stdout
                .starts_with("Protected: ")
                .then_some(())
        });
        assert!(is_silent(&site.stranger, address::DB, 5432), "{pin}");
        assert!(is_open(&site.stranger, address::DB_V6, 5432), "{pin}");
        assert!(is_open(&site.client, address::DB, 5432), "{pin}");
        assert_eq!(pgfw.status().attention(), "", "{pin}");
    }
    assert!(daemon.log().contains("made anew"), "{}", daemon.log());
    // One who takes everything away means it, also where the daemon is not asked.
    daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    pgfw.ok(&["--socket", "/run/nobody.sock", "off"]);
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    eventually("the daemon notices", PATIENCE, || {
        let said = pgfw.pgfw(&["status"]).stdout;
        said.starts_with("Not protected: nothing is attached")
            .then_some(())
    });
    super::nothing_is_left(&site.db);
}
