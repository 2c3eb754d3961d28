//! Ends and deadlines are in the kernel: they come with the daemon dead, too.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Reach, Site, Sshd, Talk, address, eventually, tcp};

use super::{CONFIG, DB, DENY_ALL, SHORT, STRANGER, configured, is_open, is_silent};

/// Waits until a port answers, or does not, a host at a distance.
#[track_caller]
fn becomes(from: &Namespace, to: IpAddr, port: u16, reach: Reach) {
    let what = format!("{to} port {port} is {reach:?} for {}", from.name());
    eventually(&what, PATIENCE, || {
        (tcp(from, to, port, SHORT) == reach).then_some(())
    });
}

#[test]
fn f43_an_entry_ends_with_the_daemon_dead_and_uncovers_what_it_covered() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    for network in [address::STRANGER_NETWORK, address::STRANGER_NETWORK_V6] {
        pgfw.ok(&["allow", network, "--for", "4s"]);
    }
    for network in [address::CLIENT_NETWORK, address::CLIENT_NETWORK_V6] {
        pgfw.ok(&["deny", network, "--for", "4s"]);
    }
    // The last word counts: this one lasts.
    pgfw.ok(&["allow", "192.168.0.0/16", "--for", "4s"]);
    pgfw.ok(&["allow", "192.168.0.0/16", "--for", "1h"]);
    daemon.kill();
    let mut old = Talk::open(&site.stranger, address::DB_V6, 5432);
    for to in DB {
        assert!(is_open(&site.stranger, to, 5432), "{to}");
        assert!(is_silent(&site.client, to, 5432), "{to}");
    }
    for to in DB {
        becomes(&site.client, to, 5432, Reach::Open);
    }
    becomes(&site.stranger, address::DB_V6, 5432, Reach::Silent);
    assert!(old.flows(), "what is established drains");
    assert!(
        is_open(&site.stranger, address::DB, 5432),
        "the shorter prefix is open still"
    );

    let _daemon = pgfw.start();
    let list = pgfw.ok(&["list"]);
    assert!(
        !list.contains("192.168.1.0/24") && !list.contains("deny"),
        "{list}"
    );
    assert!(list.contains("192.168.0.0/16"), "{list}");
}

#[test]
fn f53_the_first_policy_undoes_itself_with_the_daemon_dead() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.start_with(&["--probation", "4s"]);
    assert_eq!(pgfw.status().state(), "probation");
    for to in DB {
        assert!(is_silent(&site.stranger, to, 5432), "{to}");
    }
    daemon.kill();
    for to in DB {
        becomes(&site.stranger, to, 5432, Reach::Open);
    }
    let status = pgfw.status();
    assert_eq!(status.state(), "open");
    assert!(
        status.summary().contains("every packet passes"),
        "{}",
        status.summary()
    );
}

#[test]
fn f53_the_first_policy_undoes_itself_under_the_daemon_and_says_so() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.start_with(&["--probation", "1s"]);
    for to in DB {
        becomes(&site.stranger, to, 5432, Reach::Open);
    }
    let late = pgfw.pgfw(&["confirm"]);
    assert_eq!(late.code, Some(1));
    assert!(late.stderr.contains("pgfw reload"), "{}", late.stderr);
    // It never comes back by itself; a reload is another probation.
    pgfw.ok(&["reload", "--confirm", "1m"]);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    pgfw.ok(&["confirm"]);
    assert_eq!(pgfw.status().state(), "enforcing");
}

#[test]
fn f53_a_confirmed_policy_stays_over_what_a_reboot_leaves() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    daemon.kill();
    // A reboot keeps the files and loses what the kernel holds; the config may have changed meanwhile.
    pgfw.ok(&["off"]);
    assert!(is_open(&site.stranger, address::DB_V6, 5432));
    pgfw.configure(DENY_ALL);
    let daemon = pgfw.start_with(&["--probation", "1s"]);
    assert!(
        daemon.log().contains("loaded the confirmed policy"),
        "{}",
        daemon.log()
    );
    assert_eq!(pgfw.status().state(), "enforcing");
    assert!(is_silent(&site.stranger, address::DB_V6, 5432));
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
    let attention = pgfw.status().attention();
    assert!(attention.contains("differs from policy"), "{attention}");
}

#[test]
fn ssh_works_before_during_and_after() {
    let site = Site::new();
    let _sshd = Sshd::start(&site.db, 22);
    let mut before = Ssh::open(&site.stranger, address::DB);
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.start();
    let mut during = Ssh::open(&site.stranger, address::DB_V6);
    pgfw.ok(&["confirm"]);
    before.negotiate();
    daemon.kill();
    during.negotiate();
    for (db, _) in STRANGER {
        Ssh::open(&site.stranger, db).negotiate();
        Ssh::open(&site.client, db).negotiate();
    }
    let _daemon = pgfw.start();
    Ssh::open(&site.stranger, address::DB).negotiate();
    pgfw.ok(&["off"]);
    Ssh::open(&site.stranger, address::DB).negotiate();
}

/// An SSH client that gets as far as anybody can without a login.
struct Ssh(TcpStream);

impl Ssh {
    #[track_caller]
    fn open(from: &Namespace, to: IpAddr) -> Ssh {
        let to = SocketAddr::new(to, 22);
        let stream = from.within(|| TcpStream::connect_timeout(&to, PATIENCE).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ssh(stream)
    }

    /// Versions first (RFC 4253, 4.2), then the server's key exchange message (7.1), which takes several segments.
    #[track_caller]
    fn negotiate(&mut self) {
        let mut seen = Vec::new();
        self.0.write_all(b"SSH-2.0-lab\r\n").unwrap();
        eventually(
            "the server wants to exchange keys",
            Duration::from_secs(20),
            || {
                let mut buffer = [0; 4096];
                let length = self.0.read(&mut buffer).unwrap();
                seen.extend_from_slice(&buffer[..length]);
                let text = String::from_utf8_lossy(&seen);
                (text.starts_with("SSH-2.0-") && text.contains("curve25519-sha256")).then_some(())
            },
        );
    }
}
