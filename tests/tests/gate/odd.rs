//! Requests that are none, and two that come at once.

use std::process::Command;

use pgfw_tests::lab::{Reach, Site, address, run};

use super::stage::{Leaf, PORT, Stage, text};

/// What holders of certificates send who do not mean it well: bytes after the handshake, as they are.
fn raw(stage: &Stage<'_>, leaf: &Leaf, bytes: &[u8]) -> Command {
    let file = stage.place("bytes");
    std::fs::write(&file, bytes).unwrap();
    let (crt, key) = (
        leaf.folder.join("postgresql.crt"),
        leaf.folder.join("postgresql.key"),
    );
    let mut command = stage.site.stranger.command("openssl");
    command
        .args(["s_client", "-quiet", "-ign_eof", "-connect"])
        .arg(format!("{}:{PORT}", address::DB))
        .args([
            "-servername",
            "db.example.com",
            "-cert",
            text(&crt),
            "-key",
            text(&key),
        ])
        .stdin(std::fs::File::open(file).unwrap());
    command
}

#[test]
fn what_is_no_request_changes_nothing() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let end = "Host: db\r\nConnection: close\r\n\r\n";
    let many: String = (0..40).map(|n| format!("x{n}: y\r\n")).collect();
    let long = "x".repeat(20_000);
    // What is sent, and the first line that comes back; "": none.
    let rows: &[(String, &str)] = &[
        (format!("POST /lease?seconds=0 HTTP/1.1\r\n{end}"), "HTTP/1.1 422"),
        (
            format!("POST /lease?seconds=-1 HTTP/1.1\r\n{end}"),
            "HTTP/1.1 422",
        ),
        (
            format!("POST /lease?seconds=18446744073709551616 HTTP/1.1\r\n{end}"),
            "HTTP/1.1 422",
        ),
        (
            format!("POST /lease?seconds=60&seconds=61 HTTP/1.1\r\n{end}"),
            "HTTP/1.1 422",
        ),
        (format!("POST /lease? HTTP/1.1\r\n{end}"), "HTTP/1.1 422"),
        (format!("POST /lease/ HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("POST //lease HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("POST /%6cease HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("POST /lease%00 HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("post /lease HTTP/1.1\r\n{end}"), "HTTP/1.1 405"),
        (format!("HEAD /lease HTTP/1.1\r\n{end}"), "HTTP/1.1 405"),
        (format!("CONNECT db:5432 HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("OPTIONS * HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("GET /v1/status HTTP/1.1\r\n{end}"), "HTTP/1.1 404"),
        (format!("POST /lease HTTP/1.1\r\n{many}{end}"), "HTTP/1.1 431"),
        (
            format!("POST /lease HTTP/1.1\r\nx: {long}\r\n{end}"),
            "HTTP/1.1 431",
        ),
        (format!("POST /{long} HTTP/1.1\r\n{end}"), "HTTP/1.1 431"),
        (
            format!("POST /lease HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n{end}abcd"),
            "HTTP/1.1 400",
        ),
        (
            format!("POST /lease HTTP/1.1\r\nContent-Length: -1\r\n{end}"),
            "HTTP/1.1 400",
        ),
        (format!("POST /lease\nHTTP/1.1\n{end}"), "HTTP/1.1 400"),
        (format!("POST /lease HTTP/9.9\r\n{end}"), "HTTP/1.1 400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (
            format!("POST /renew HTTP/1.1\r\nContent-Length: 0\r\n{end}"),
            "HTTP/1.1 422",
        ),
        (
            format!("POST /renew HTTP/1.1\r\nContent-Length: 20000\r\n{end}{long}"),
            "HTTP/1.1 422",
        ),
        (
            format!("POST /renew HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{end}fffffffffffffffff\r\n"),
            "HTTP/1.1 422",
        ),
        (
            format!("POST /renew HTTP/1.1\r\nContent-Length: 4\r\n{end}\0\0\0\0"),
            "HTTP/1.1 422",
        ),
        ("\0\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ];
    let mut wrong = Vec::new();
    for (sent, expected) in rows {
        let said = run(&mut raw(&stage, &alice, sent.as_bytes())).stdout;
        if !said.starts_with(expected) || expected.is_empty() && !said.is_empty() {
            let first: String = sent.chars().take(60).collect();
            wrong.push(format!("{first:?}: {:?}", said.lines().next()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(stage.leases(), []);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    assert_eq!(gate.log().lines().count(), 1, "{}", gate.log());

    // Two requests in one: both are answered, each by itself, and a body is nobody's request.
    let inner = format!("DELETE /lease HTTP/1.1\r\n{end}");
    let smuggled = format!(
        "POST /lease HTTP/1.1\r\nHost: db\r\nContent-Length: {}\r\n\r\n{inner}GET /lease HTTP/1.1\r\n{end}",
        inner.len()
    );
    let said = run(&mut raw(&stage, &alice, smuggled.as_bytes())).stdout;
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
    assert_eq!(stage.leases().len(), 1, "{said}");
}

/// Whoever asks while it is revoked holds nothing afterwards, whichever came first.
#[test]
fn p35_a_lease_that_is_asked_for_while_its_certificate_is_revoked_is_over_afterwards() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    for round in 0..6 {
        let alice = stage.issue("alice", &[]);
        stage.lease(&site.stranger, &alice);
        std::thread::scope(|scope| {
            for method in ["POST", "GET", "POST"] {
                let (stage, alice) = (&stage, &alice);
                scope.spawn(move || {
                    for _ in 0..4 {
                        let from = &stage.site.stranger;
                        let _either =
                            stage.try_curl(from, alice, address::DB, "/lease", &["--request", method]);
                    }
                });
            }
            stage.pgfw.ok(&["cert", "revoke", &alice.serial]);
            // It counts from here on, whatever is under way.
            assert_eq!(stage.leases(), [], "round {round}");
        });
        assert_eq!(stage.leases(), [], "round {round}");
        assert_eq!(stage.reach(&site.stranger), Reach::Silent, "round {round}");
    }
}
