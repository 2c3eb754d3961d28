//! Who may speak to the daemon.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use pgfw_tests::lab::{EchoServer, Site, address, run};

use super::{CONFIG, configured, is_open, refused};

const SOCKET: &str = "/run/pgfw/pgfw.sock";
const GROUP: u32 = 990;
/// A user of every Debian, made a member here.
const MEMBER: &str = "games";

fn make_group(site: &Site) {
    let groups = site.db.read("/etc/group");
    let others = groups.lines().filter(|line| !line.starts_with("pgfw:"));
    let mut text = others.collect::<Vec<_>>().join("\n");
    text.push_str(&format!("\npgfw:x:{GROUP}:{MEMBER}\n"));
    site.db.write("/etc/group", &text);
}

#[test]
fn members_of_the_group_may_use_the_socket_and_others_are_told_so() {
    let site = Site::new();
    make_group(&site);
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let about = site.db.within(|| std::fs::metadata(SOCKET).unwrap());
    assert_eq!(about.permissions().mode() & 0o777, 0o660);
    assert_eq!((about.uid(), about.gid()), (0, GROUP));

    for arguments in [
        &["status"][..],
        &["list"],
        &["allow", "10.99.0.0/16"],
        &["remove", "10.99.0.0/16"],
        &["check", "10.20.0.10"],
        &["reload"],
        &["confirm"],
    ] {
        let said = run(&mut pgfw.command_as_user("nobody", arguments));
        refused(
            &said,
            3,
            &[SOCKET, "Permission denied"],
            "member of the group pgfw",
        );
    }
    let allow = ["allow", address::STRANGER_NETWORK, "--for", "1h"];
    run(&mut pgfw.command_as_user(MEMBER, &allow)).expect_success();
    assert!(is_open(&site.stranger, address::DB, 5432));
    let status = run(&mut pgfw.command_as_user(MEMBER, &["status"])).expect_success();
    assert!(status.starts_with("Protected"), "{status}");
    // The ledger itself is root's.
    let said = run(&mut pgfw.command_as_user(MEMBER, &["cert", "list"]));
    refused(&said, 3, &["needs root"], "sudo");
    let ledger = site
        .db
        .within(|| std::fs::metadata("/var/lib/pgfw/ledger.db").unwrap());
    assert_eq!((ledger.permissions().mode() & 0o777, ledger.uid()), (0o600, 0));
}

#[test]
fn without_the_group_the_socket_is_roots() {
    let site = Site::new();
    let groups = site.db.read("/etc/group");
    let others = groups.lines().filter(|line| !line.starts_with("pgfw:"));
    site.db
        .write("/etc/group", &(others.collect::<Vec<_>>().join("\n") + "\n"));
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let about = site.db.within(|| std::fs::metadata(SOCKET).unwrap());
    assert_eq!((about.permissions().mode() & 0o777, about.gid()), (0o660, 0));
    assert!(daemon.log().contains("no group pgfw"), "{}", daemon.log());
    let said = run(&mut pgfw.command_as_user(MEMBER, &["status"]));
    refused(&said, 3, &[SOCKET], "as root");
}

#[test]
fn a_socket_that_a_dead_daemon_left_is_replaced() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    pgfw.enforce().kill();
    assert!(site.db.within(|| std::path::Path::new(SOCKET).exists()));
    refused(&pgfw.pgfw(&["list"]), 3, &[SOCKET], "systemctl start pgfw");
    let _daemon = pgfw.start();
    pgfw.ok(&["list"]);
}

#[test]
fn a_client_that_goes_away_takes_nobody_along() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    // Answers to a connection that is gone raise SIGPIPE in a process that does not ignore it.
    let questions = "GET /v1/status HTTP/1.1\r\nhost: pgfw\r\n\r\n".repeat(50);
    for _ in 0..20 {
        site.db.within(|| {
            let mut socket = std::os::unix::net::UnixStream::connect("/run/pgfw/pgfw.sock").unwrap();
            std::io::Write::write_all(&mut socket, questions.as_bytes()).unwrap();
            // In the middle of the answers.
            std::io::Read::read_exact(&mut socket, &mut [0]).unwrap();
        });
    }
    let status = pgfw.ok(&["status", "--json"]);
    assert!(status.contains(&format!("\"pid\":{}", daemon.pid())), "{status}");
}
