//! Many at once, and some who do not behave.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pgfw_tests::lab::{Child, EchoServer, PATIENCE, Site, address};

use super::{CONFIG, configured, is_open, is_silent};

#[test]
fn a_hundred_commands_at_once_all_count() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let network = |n: usize| format!("10.{}.0.0/16", 100 + n);
    let all: Vec<Child> = (0..100)
        .map(|n| Child::start(&mut pgfw.command(&["allow", &network(n)])))
        .collect();
    for (n, mut one) in all.into_iter().enumerate() {
        let ended = one.wait(PATIENCE * 2);
        assert!(ended.success(), "{}: {}", network(n), one.stderr());
    }
    let list = pgfw.ok(&["list"]);
    for n in 0..100 {
        assert!(list.contains(&network(n)), "{}", network(n));
        assert_eq!(
            pgfw.pgfw(&["check", &format!("10.{}.1.1", 100 + n), "--quiet"])
                .code,
            Some(0)
        );
    }
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
}

#[test]
fn of_two_reloads_at_once_both_end_and_one_policy_counts() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    for round in 0..5 {
        pgfw.configure(&CONFIG.replace("10.20.0.0/16", &format!("10.{round}.0.0/16")));
        let mut both = [0, 1].map(|_| Child::start(&mut pgfw.command(&["reload", "--confirm", "1h"])));
        let codes = [0, 1].map(|n| both[n].wait(PATIENCE).code());
        let mut sorted = codes;
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            [Some(0), Some(1)],
            "{}{}",
            both[0].stderr(),
            both[1].stderr()
        );
        let loser = if codes[0] == Some(1) { &both[0] } else { &both[1] };
        assert!(
            loser.stderr().contains("still waits for its confirmation"),
            "{}",
            loser.stderr()
        );
        pgfw.ok(&["confirm"]);
        assert_eq!(pgfw.status().state(), "enforcing");
        assert!(pgfw.status().0["pending"].is_null());
    }
    // A command without the daemon waits for the one with it.
    let mut allow = Child::start(&mut pgfw.command(&["allow", "10.99.0.0/16"]));
    let mut deny = Child::start(&mut pgfw.command(&["--socket", "/run/nobody.sock", "deny", "10.98.0.0/16"]));
    assert!(
        allow.wait(PATIENCE).success() && deny.wait(PATIENCE).success(),
        "{}",
        deny.stderr()
    );
    let list = pgfw.ok(&["list"]);
    assert!(
        list.contains("10.99.0.0/16") && list.contains("deny 10.98.0.0/16"),
        "{list}"
    );
    drop(daemon);
}

#[test]
fn clients_that_stop_reading_or_say_half_a_word_keep_nobody_waiting() {
    let site = Site::new();
    let pgfw = configured(&site, CONFIG);
    let mut daemon = pgfw.enforce();
    let connect = || {
        site.db
            .within(|| UnixStream::connect("/run/pgfw/pgfw.sock").unwrap())
    };
    let mut held = Vec::new();
    for n in 0..50 {
        let mut stream = connect();
        let text: &[u8] = match n % 5 {
            // Asks again and again and reads nothing: what is not read has to wait somewhere, and not in the engine.
            0 => b"GET /v1/status HTTP/1.1\r\nhost: pgfw\r\n\r\n",
            1 => b"POST /v1/entries HTTP/1.1\r\nhost: pgfw\r\ncontent-length: 100\r\n\r\n{",
            2 => b"GET /v1/st",
            3 => b"\0\xff\r\n\r\n",
            _ => b"",
        };
        stream.set_nonblocking(true).unwrap();
        for _ in 0..if n % 5 == 0 { 2_000 } else { 1 } {
            if stream.write(text).is_err() {
                break;
            }
        }
        held.push(stream);
    }
    for _ in 0..3 {
        pgfw.ok(&["status"]);
        pgfw.ok(&["allow", "10.99.0.0/16"]);
        pgfw.ok(&["remove", "10.99.0.0/16"]);
    }
    // One that asks for a change and hangs up gets it done or not, and breaks nothing.
    let body = r#"{"answer":"allow","net":"10.97.0.0/16"}"#;
    let mut hasty = connect();
    write!(
        hasty,
        "POST /v1/entries HTTP/1.1\r\nhost: pgfw\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    drop(hasty);
    pgfw.ok(&["status"]);
    // And the daemon stops when it is asked to, whoever holds on.
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.wait(PATIENCE).success());
    let mut last = held.pop().unwrap();
    last.set_nonblocking(false).unwrap();
    last.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(last.read(&mut [0; 64]), Ok(0) | Err(_)));
}
