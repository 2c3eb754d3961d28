//! Whoever has no certificate is told nothing, and takes nothing from those who have.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use pgfw::gate::PER_SOURCE;
use pgfw_tests::lab::{PATIENCE, Site, address, eventually, run};

use super::stage::{Leaf, PORT, Stage, text};

fn s_client(stage: &Stage<'_>, leaf: Option<&Leaf>, further: &[&str]) -> Command {
    let mut command = stage.site.stranger.command("openssl");
    command
        .args([
            "s_client",
            "-ign_eof",
            "-connect",
            &format!("{}:{PORT}", address::DB),
        ])
        .args(["-servername", "db.example.com"])
        .args(further);
    if let Some(leaf) = leaf {
        let (crt, key) = (
            leaf.folder.join("postgresql.crt"),
            leaf.folder.join("postgresql.key"),
        );
        command.args(["-cert", text(&crt), "-key", text(&key)]);
    }
    let file = stage.place("request");
    std::fs::write(
        &file,
        "GET /lease HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    command.stdin(std::fs::File::open(file).unwrap());
    command
}

#[test]
fn without_a_certificate_nothing_is_said() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let with = run(&mut s_client(&stage, Some(&alice), &[]));
    assert!(with.stdout.contains("HTTP/1.1 404"), "{with:?}");
    let without = run(&mut s_client(&stage, None, &[]));
    assert!(!without.stdout.contains("HTTP/"), "{without:?}");
    assert!(without.stderr.contains("certificate required"), "{without:?}");
    // Nor whose certificates would count.
    assert!(
        without.stdout.contains("No client certificate CA names sent"),
        "{without:?}"
    );
    let old = run(&mut s_client(&stage, Some(&alice), &["-tls1_2"]));
    assert!(!old.stdout.contains("HTTP/"), "{old:?}");
    let mut clear = site.stranger.command("curl");
    clear.args([
        "--silent",
        "--max-time",
        "10",
        &format!("http://{}:{PORT}/lease", address::DB),
    ]);
    assert_eq!(run(&mut clear).stdout, "");
    // A stranger writes nothing into the journal.
    assert_eq!(gate.log().lines().count(), 1, "{}", gate.log());
}

/// Nothing to resume is given out, so every connection is verified.
#[test]
fn p34_no_session_is_resumed() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let session = stage.place("session");
    let first = run(&mut s_client(
        &stage,
        Some(&alice),
        &["-sess_out", text(&session), "-msg"],
    ));
    assert!(first.stdout.contains("HTTP/1.1 404"), "{first:?}");
    assert!(first.stdout.contains("Finished"), "{first:?}");
    assert!(!first.stdout.contains("NewSessionTicket"), "{}", first.stdout);
    if session.exists() {
        let again = run(&mut s_client(&stage, Some(&alice), &["-sess_in", text(&session)]));
        assert!(!again.stdout.contains("Reused"), "{}", again.stdout);
    }
}

/// Idle connections of one source fill its share, and whoever shares the address and has a certificate is served all the same.
#[test]
fn a_source_has_its_share_and_handshakes_their_time() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let gate = SocketAddr::new(address::DB, PORT);
    let connect = || TcpStream::connect_timeout(&gate, Duration::from_secs(5)).unwrap();
    let mut idle: Vec<TcpStream> = site
        .stranger
        .within(|| (0..PER_SOURCE).map(|_| connect()).collect());
    for from in [&site.stranger, &site.client] {
        assert_eq!(stage.curl(from, &alice, "/lease", &[]).status, 404);
    }
    for stream in &mut idle {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The end, without a word.
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
    }
    assert_eq!(stage.curl(&site.stranger, &alice, "/lease", &[]).status, 404);
    // Garbage is answered by an alert of TLS at most.
    let mut garbage = site.stranger.within(connect);
    garbage.write_all(b"GET /lease HTTP/1.1\r\n\r\n").unwrap();
    garbage.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    let _ = garbage.read_to_end(&mut said);
    assert!(said.len() <= 7 && !said.starts_with(b"HTTP"), "{said:?}");
}

/// The gate's user reaches the gate's socket and what it offers, not the control socket; nobody else reaches either.
#[test]
fn the_gate_may_ask_for_leases_and_renewals_and_nothing_else() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, gate) = stage.open();
    let ask = |user: &str, socket: &str, path: &str| {
        let mut curl = site.db.command_as_user("curl", user);
        curl.args(["--silent", "--unix-socket", socket, "--write-out", "%{http_code}"])
            .args(["--data", "{}", "--header", "content-type: application/json"])
            .arg(format!("http://pgfw{path}"));
        run(&mut curl)
    };
    let status = |user: &str, socket: &str, path: &str| {
        let said = ask(user, socket, path).stdout;
        said[said.len() - 3..].to_owned()
    };
    let (own, control) = ("/run/pgfw/pgfw-gate.sock", "/run/pgfw/pgfw.sock");
    assert_eq!(status("pgfw-gate", own, "/v1/gate"), "200");
    for path in [
        "/v1/status",
        "/v1/entries",
        "/v1/reload",
        "/v1/revoke",
        "/v1/off",
        "/v1/list",
    ] {
        assert_eq!(status("pgfw-gate", own, path), "404");
        assert_eq!(status("pgfw-gate", control, path), "000");
    }
    assert_eq!(status("nobody", own, "/v1/gate"), "000");
    // Also where somebody has widened its mode.
    let mut chmod = site.db.command("chmod");
    run(chmod.args(["0666", own])).expect_success();
    assert_eq!(status("nobody", own, "/v1/gate"), "403");
    let body = "{\"known\":null}";
    let mut curl = site.db.command_as_user("curl", "nobody");
    curl.args([
        "--silent",
        "--unix-socket",
        own,
        "--data",
        body,
        "http://pgfw/v1/gate",
    ]);
    let said = run(&mut curl).stdout;
    assert!(said.contains("this socket is the gate's"), "{said}");
    let process = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).unwrap();
    assert!(process.contains("Uid:\t64999\t64999\t64999\t64999"), "{process}");
    assert!(process.contains("CapPrm:\t0000000000000000"), "{process}");
}

/// Its certificate is for every name, is replaced when a name comes, and what keeps it from that is said once.
#[test]
fn the_gate_has_a_certificate_of_its_own() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (daemon, gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let shown = || {
        let said = run(&mut s_client(&stage, Some(&alice), &["-showcerts"]));
        let (_, from) = said.stdout.split_once("-----BEGIN CERTIFICATE-----").unwrap();
        from.split("-----END").next().unwrap().to_owned()
    };
    let first = shown();
    let key = site.db.read("/etc/pgfw/pki/server/gate/server.key");
    assert!(!key.contains(&site.db.read("/etc/pgfw/pki/server/main/server.key")));
    let config = site.db.read("/etc/pgfw/pgfw.toml");
    let named = config.replace("\"db.example.com\"", "\"db.example.com\", \"db2.example.com\"");
    let ca = "/etc/pgfw/pki/server-ca/g1/ca.key";
    let move_key = |from: String, to: String| {
        site.db.within(|| std::fs::rename(from, to)).unwrap();
    };
    move_key(ca.to_owned(), format!("{ca}.away"));
    stage.pgfw.configure(&named);
    stage.pgfw.ok(&["reload", "--yes"]);
    let said = eventually("the daemon says what it lacks", PATIENCE, || {
        let attention = stage.pgfw.status().attention();
        attention
            .contains("the gate's certificate is not issued")
            .then_some(attention)
    });
    assert!(said.contains("ca.key"), "{said}");
    assert_eq!(shown(), first, "what it had goes on");
    assert_eq!(daemon.log().matches("certificate is not issued").count(), 1);
    move_key(format!("{ca}.away"), ca.to_owned());
    daemon.kill();
    let _daemon = stage.pgfw.start();
    eventually("the gate shows another certificate", PATIENCE, || {
        (shown() != first).then_some(())
    });
    for log in [gate.log(), stage.pgfw.ok(&["status"])] {
        assert!(!log.contains("PRIVATE KEY"), "{log}");
    }
}
