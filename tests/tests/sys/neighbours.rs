//! Two instances on one host: what is one's is not the other's, whatever they share by mistake.

use pgfw_tests::lab::foreign::attached;
use pgfw_tests::lab::{EchoServer, Instance, Site, address, join};

use super::{CONFIG, configured, is_open, is_silent, nothing_is_left, nothing_is_on, refused};

const STATE: (&str, &str) = ("PGFW_STATE_DIR", "/var/lib/try");
const SOCKET: (&str, &str) = ("PGFW_SOCKET", "/run/try/pgfw.sock");
const PINS: (&str, &str) = ("PGFW_BPFFS", "/sys/fs/bpf/try");

/// A second instance that would open eth0 and filter eth1, apart from the first in some of its places.
fn neighbour<'site>(site: &'site Site, apart: &[(&str, &str)]) -> Instance<'site> {
    let mut pgfw = Instance::new(&site.db).env("PGFW_CONFIG", "/etc/try/pgfw.toml");
    for (key, value) in apart {
        pgfw = pgfw.env(key, value);
    }
    pgfw.configure(&CONFIG.replace("eth0", "eth1"));
    pgfw
}

fn two_interfaces() -> Site {
    let site = Site::new();
    join((&site.router, "second"), (&site.db, "eth1"));
    site
}

/// The first instance enforces, and its daemon answers.
#[track_caller]
fn goes_on(site: &Site, pgfw: &Instance<'_>, policy: u64, program: Option<u64>) {
    assert_eq!(attached(&site.db, "eth0"), program);
    assert_eq!(attached(&site.db, "eth1"), None);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    let status = pgfw.status();
    let summary = format!("Protected: policy {policy} is enforced on eth0.");
    // Link-local addresses are there, too.
    let open = "PostgreSQL (main, port 5432) listens on eth1, and no policy of this pgfw stands there; name it in \
                firewall.interfaces.";
    assert_eq!((status.summary(), status.attention().as_str()), (&*summary, open));
    assert_ne!(status.0["daemon"], serde_json::Value::Null);
    pgfw.ok(&["allow", "10.99.0.0/16"]);
}

#[test]
fn a_second_daemon_on_the_pins_of_the_first_is_refused_at_whatever_generation() {
    let site = two_interfaces();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let program = attached(&site.db, "eth0");
    for policy in [1, 2] {
        for (apart, named, remedy) in [
            (
                &[STATE][..],
                "answers at /run/pgfw/pgfw.sock",
                "--socket and --bpffs",
            ),
            (&[SOCKET], "/var/lib/pgfw/daemon.lock", "--socket and --bpffs"),
            (
                &[STATE, SOCKET],
                "the pins under /sys/fs/bpf/pgfw belong to another instance, on the ledger /var/lib/pgfw/ledger.db",
                "its own --bpffs and --socket",
            ),
        ] {
            let second = neighbour(&site, apart).pgfw(&["run"]);
            refused(&second, 1, &[named], remedy);
            goes_on(&site, &pgfw, policy, program);
        }
        pgfw.configure(&format!("{CONFIG}# {policy}\n"));
        pgfw.ok(&["reload"]);
    }
    daemon.kill();
    // Nor does it take over what a dead daemon left.
    let second = neighbour(&site, &[STATE]).pgfw(&["run"]);
    refused(&second, 1, &["belong to another instance"], "pgfw off");
    let _daemon = pgfw.start();
    goes_on(&site, &pgfw, 3, program);
}

#[test]
fn a_copy_of_the_state_folder_does_not_tend_the_same_pins() {
    let site = two_interfaces();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let program = attached(&site.db, "eth0");
    let copy = || {
        std::fs::create_dir("/var/lib/try").unwrap();
        std::fs::copy("/var/lib/pgfw/ledger.db", "/var/lib/try/ledger.db").unwrap();
    };
    site.db.within(copy);
    let second = neighbour(&site, &[STATE, SOCKET]).pgfw(&["run"]);
    refused(
        &second,
        1,
        &["another pgfw daemon tends the pins under /sys/fs/bpf/pgfw"],
        "--bpffs",
    );
    goes_on(&site, &pgfw, 1, program);
    // A state folder that was moved is another matter.
    daemon.kill();
    let moved = Instance::new(&site.db).env(STATE.0, STATE.1);
    let daemon = moved.start();
    assert!(daemon.log().contains("adopted"), "{}", daemon.log());
    goes_on(&site, &moved, 1, program);
}

#[test]
fn commands_without_a_daemon_leave_anothers_pins_alone() {
    let site = two_interfaces();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    pgfw.enforce().kill();
    let other = neighbour(&site, &[STATE, SOCKET]);
    let pki = "[pki]\ndirectory = \"/etc/try/pki\"\n[[identity]]\nname = \"alice\"\n";
    other.configure(&(CONFIG.to_owned() + pki));
    // Authorities and certificates are the ledger's alone.
    other.ok(&["ca", "init"]);
    other.ok(&["cert", "issue", "alice"]);
    let said = other.ok(&["cert", "revoke", "alice"]);
    assert!(said.contains("belong to another instance"), "{said}");
    for command in [&["deny", address::CLIENT_NETWORK][..], &["status"]] {
        refused(
            &other.pgfw(command),
            1,
            &["/sys/fs/bpf/pgfw", "/var/lib/pgfw/ledger.db"],
            "--state-dir",
        );
    }
    assert!(is_open(&site.client, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB, 5432));
    let _daemon = pgfw.start();
    assert_eq!(pgfw.status().state(), "enforcing");
}

#[test]
fn off_takes_the_pins_that_are_meant_whoever_answers() {
    let site = two_interfaces();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let other = neighbour(&site, &[STATE, SOCKET, PINS]);
    let theirs = other.enforce();
    assert!(attached(&site.db, "eth1").is_some());

    // At the first one's socket.
    let said = neighbour(&site, &[STATE, PINS]).ok(&["off"]);
    assert!(said.contains("Detached from eth1"), "{said}");
    nothing_is_on(&site.db, "eth1");
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert_eq!(pgfw.status().state(), "enforcing");
    theirs.kill();

    // Without its daemon, by whoever names the pins.
    let said = neighbour(&site, &[STATE, SOCKET]).ok(&["off"]);
    assert!(said.contains("Detached from eth0"), "{said}");
    nothing_is_left(&site.db);
}

#[test]
fn a_daemon_whose_pins_became_anothers_lets_them_be() {
    let site = two_interfaces();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let config = CONFIG.replace("[[postgres]]", "on_stop = \"detach\"\n[[postgres]]");
    let pgfw = configured(&site, &config);
    let daemon = pgfw.enforce();
    let other = neighbour(&site, &[STATE, SOCKET]);
    other.ok(&["off"]);
    nothing_is_left(&site.db);
    let _theirs = other.enforce();
    refused(
        &pgfw.pgfw(&["allow", "10.99.0.0/16"]),
        1,
        &["belong to another instance, on the ledger /var/lib/try/ledger.db"],
        "--bpffs",
    );
    let attention = pgfw.status().attention();
    assert!(attention.contains("belong to another instance"), "{attention}");
    let log = daemon.log();
    // Whichever it noticed first.
    let noticed = [
        "are those of another instance now",
        "pgfw is off: nothing is pinned",
    ];
    assert!(noticed.iter().any(|said| log.contains(said)), "{log}");
    assert!(daemon.stop().success());
    assert_eq!(attached(&site.db, "eth0"), None);
    assert!(attached(&site.db, "eth1").is_some());
    assert_eq!(other.status().state(), "enforcing");
}
