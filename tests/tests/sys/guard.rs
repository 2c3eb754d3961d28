//! Nobody is locked out by a slip.

use pgfw_tests::lab::{EchoServer, Site, Talk, address};

use super::{CONFIG, configured, is_open, is_silent, refused};

#[test]
fn a_deny_that_would_cut_a_live_ssh_session_is_refused_and_the_peer_named() {
    let site = Site::new();
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for (peer, network, to) in [
        ("192.168.1.10", address::STRANGER_NETWORK, address::DB),
        ("fd00:30::10", address::STRANGER_NETWORK_V6, address::DB_V6),
    ] {
        let mut session = Talk::open(&site.stranger, to, 22);
        for arguments in [
            &["deny", network][..],
            &["deny", network, "--service", "ssh"],
            &["deny", peer, "--for", "1h"],
        ] {
            let said = pgfw.pgfw(arguments);
            refused(&said, 1, &["would cut the live SSH session", peer], "--force");
        }
        assert!(session.flows() && is_open(&site.stranger, to, 22));
        let list = pgfw.ok(&["list"]);
        assert!(!list.contains("deny"), "{list}");

        // Elsewhere, or for another service, it is nobody's session.
        pgfw.ok(&["deny", network, "--service", "main"]);
        assert!(session.flows());
        pgfw.ok(&["remove", network, "--service", "main"]);

        pgfw.ok(&["deny", network, "--force"]);
        assert!(session.ends_by_itself(std::time::Duration::from_secs(1)));
        assert!(is_silent(&site.stranger, to, 22));
        pgfw.ok(&["remove", network]);
        assert!(is_open(&site.stranger, to, 22));
    }
}

#[test]
fn a_reload_that_would_cut_a_live_ssh_session_is_refused() {
    let site = Site::new();
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let mut session = Talk::open(&site.stranger, address::DB, 22);
    pgfw.configure(&format!("{CONFIG}[ssh]\nallow = [\"10.20.0.0/16\"]\n"));
    refused(
        &pgfw.pgfw(&["reload"]),
        1,
        &["would cut the live SSH session from 192.168.1.10"],
        "pgfw allow 192.168.1.10 --service ssh",
    );
    assert!(is_open(&site.stranger, address::DB, 22));
    // As it says.
    pgfw.ok(&["allow", "192.168.1.10", "--service", "ssh"]);
    pgfw.ok(&["reload"]);
    assert!(session.flows() && is_open(&site.stranger, address::DB, 22));
    assert!(is_silent(&site.stranger, address::DB_V6, 22));
    // Now this entry is all that lets the session's next one in.
    refused(
        &pgfw.pgfw(&["remove", "192.168.1.10", "--service", "ssh"]),
        1,
        &["would cut the live SSH session"],
        "--force",
    );
    drop(session);
    pgfw.ok(&["remove", "192.168.1.10", "--service", "ssh", "--force"]);
    assert!(is_silent(&site.stranger, address::DB, 22));
}
