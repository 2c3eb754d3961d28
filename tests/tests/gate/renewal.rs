//! The next certificate, for whoever holds one.

use std::fs;

use pgfw_tests::lab::{PATIENCE, Reach, Site, eventually, run};
use serde_json::Value;

use super::stage::{Leaf, Stage, text};

/// A key and a request, made by OpenSSL with further arguments; the key's name in the folder is `next.key`.
fn request(stage: &Stage<'_>, leaf: &Leaf, subject: &str, further: &[&str]) -> String {
    let (key, csr) = (leaf.folder.join("next.key"), leaf.folder.join("next.csr"));
    let mut command = stage.site.stranger.command("openssl");
    command
        .args(["req", "-new", "-nodes", "-keyout", text(&key), "-out", text(&csr)])
        .args(["-subj", subject])
        .args(further);
    run(&mut command).expect_success();
    text(&csr).to_owned()
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

#[test]
fn any_identity_renews_and_the_new_one_logs_in_and_is_renewed_in_turn() {
    let site = Site::new();
    let stage = Stage::with(&site, "certificate_ttl = \"2h\"", "");
    let (_daemon, _gate) = stage.open();
    let bob = stage.issue("bob", &["--ttl", "1h"]);
    let csr = request(&stage, &bob, "/CN=bob", &P256);
    let post = |leaf: &Leaf, csr: &str| {
        let body = format!("@{csr}");
        stage.curl(&site.client, leaf, "/renew", &["--data-binary", &body])
    };
    let renewed = post(&bob, &csr);
    assert_eq!(renewed.status, 200, "{renewed:?}");
    assert_eq!(renewed.body["identity"], "bob");
    let shown: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "cert", "list"])).unwrap();
    let serial = renewed.body["serial"].as_str().unwrap();
    let listed = shown.to_string();
    assert!(listed.contains(serial), "{listed}");
    let table = stage.pgfw.ok(&["--json", "cert", "show", serial]);
    assert!(table.contains("gate 10.20.0.10"), "{table}");
    assert!(table.contains(&format!("renews {}", bob.serial)), "{table}");

    let next = Leaf {
        folder: stage.place("bobs-next"),
        serial: serial.to_owned(),
    };
    fs::create_dir(&next.folder).unwrap();
    let pem = renewed.body["certificate"].as_str().unwrap();
    fs::write(next.folder.join("postgresql.crt"), pem).unwrap();
    fs::write(
        next.folder.join("root.crt"),
        renewed.body["roots"].as_str().unwrap(),
    )
    .unwrap();
    fs::copy(bob.folder.join("next.key"), next.folder.join("postgresql.key")).unwrap();
    stage.pgfw.ok(&["cert", "revoke", &bob.serial]);
    // The network stays open by the new one, which logs in.
    let got = stage.psql(&site.client, "bob", &next).query("select 1");
    assert_eq!(got.stdout.trim(), "1", "{got:?}");

    // Once a minute for each identity; and what was revoked is renewed never.
    let soon = post(&next, &csr);
    assert_eq!((soon.status, &soon.body["code"]), (409, &"refused".into()));
    stage.pgfw.ok(&["cert", "revoke", "bob"]);
    assert_eq!(stage.reach(&site.client), Reach::Silent);
    eventually("the gate has heard of the revocation", PATIENCE, || {
        let to = pgfw_tests::lab::address::DB;
        let said = stage.try_curl(&site.client, &next, to, "/lease", &[]);
        said.err()
            .filter(|outcome| outcome.stderr.contains("alert"))
            .map(drop)
    });
}

#[test]
fn a_request_says_nothing_but_its_key_and_has_to_prove_it() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let post = |body: &str| stage.curl(&site.stranger, &alice, "/renew", &["--data-binary", body]);

    let refused = |body: &str, word: &str| {
        let said = post(body);
        assert_ne!(said.status, 200, "{said:?}");
        let message = said.body["message"].as_str().unwrap();
        assert!(message.contains(word), "{word}: {message}");
    };
    // Somebody else's name.
    let others = request(&stage, &alice, "/CN=bob", &P256);
    refused(&format!("@{others}"), "names `bob`");
    // A signature that is not the key's.
    let own = request(&stage, &alice, "/CN=alice", &P256);
    let pem = fs::read_to_string(&own).unwrap();
    let at = pem.trim_end().rfind("-----END").unwrap() - 6;
    let flipped = if &pem[at..=at] == "A" { "B" } else { "A" };
    let forged = format!("{}{flipped}{}", &pem[..at], &pem[at + 1..]);
    fs::write(alice.folder.join("forged"), forged).unwrap();
    let forged = format!("@{}", text(&alice.folder.join("forged")));
    refused(&forged, "its key did not sign it");
    refused("nothing", "CERTIFICATE REQUEST");
    let weak = request(&stage, &alice, "/CN=alice", &["-newkey", "rsa:1024"]);
    refused(&format!("@{weak}"), "1024 bits");
    fs::write(alice.folder.join("long"), "x".repeat(20_000)).unwrap();
    refused(&format!("@{}", text(&alice.folder.join("long"))), "16 KiB");

    // What else it asks for is not looked at.
    let wishes = [
        "-addext",
        "extendedKeyUsage=serverAuth",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "subjectAltName=DNS:db.example.com",
    ];
    let all: Vec<&str> = P256.iter().chain(&wishes).copied().collect();
    let wishing = request(&stage, &alice, "/CN=alice", &all);
    let given = post(&format!("@{wishing}"));
    assert_eq!(given.status, 200, "{given:?}");
    let file = alice.folder.join("given.crt");
    fs::write(&file, given.body["certificate"].as_str().unwrap()).unwrap();
    let mut show = site.stranger.command("openssl");
    show.args(["x509", "-noout", "-text", "-in", text(&file)]);
    let shown = run(&mut show).expect_success();
    assert!(shown.contains("TLS Web Client Authentication"), "{shown}");
    for word in ["TLS Web Server", "CA:TRUE", "db.example.com"] {
        assert!(!shown.contains(word), "{word}: {shown}");
    }
}
