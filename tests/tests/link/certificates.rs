//! What the command line issues.

use std::process::Command;

use pgfw_tests::lab::{Outcome, Site, run};

use super::renewal::aged;
use super::stage::{Stage, assert_fails, on_host};

/// `openssl x509 -text` of a PEM text.
fn text(stage: &Stage<'_>, pem: &str) -> String {
    let file = stage.file("shown.crt", pem);
    run(Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(file))
    .expect_success()
}

/// The line after the one that holds `label`.
fn after<'a>(text: &'a str, label: &str) -> &'a str {
    let mut lines = text.lines().skip_while(|line| !line.contains(label)).skip(1);
    lines
        .next()
        .unwrap_or_else(|| panic!("no {label} in:\n{text}"))
        .trim()
}

fn openssl(arguments: &[&str]) -> Outcome {
    run(Command::new("openssl").args(arguments))
}

/// The server's key pair is refused as a client's, under a name that would be let in with a certificate of its own.
#[test]
fn p20_the_servers_key_pair_logs_in_as_nobody() {
    let site = Site::new();
    let also = "[[identity]]\nname = \"db.example.com\"\nroles = [\"alice\"]\ndatabases = [\"app\"]\n";
    let stage = Stage::with(&site, "allow = [\"10.20.0.0/16\"]", also);
    let _daemon = stage.enforce();
    let own = stage.issue("db.example.com", &[]);
    drop(stage.log_in(&site.client, "alice", &own));

    let pair = "/etc/pgfw/pki/server/main";
    let stolen = stage
        .with_certificate(&site.client, "alice", &own)
        .set(
            "sslcert",
            stage.file("stolen.crt", &on_host(&stage, format!("{pair}/server.crt"))),
        )
        .set(
            "sslkey",
            stage.file("stolen.key", &on_host(&stage, format!("{pair}/server.key"))),
        );
    let said = stage.refused(&stolen);
    assert!(said.contains("unknown ca"), "{said}");

    // Were the server's authority among those for clients, its certificate would be of no use still.
    let authorities = "/var/lib/pgfw/postgres/main/current/client-ca.crt";
    let clients = on_host(&stage, authorities);
    let servers = on_host(&stage, "/etc/pgfw/pki/server-ca/g1/ca.crt");
    assert_ne!(clients, servers);
    stage.site.db.write(authorities, &format!("{clients}{servers}"));
    stage.cluster.reload();
    let said = pgfw_tests::lab::eventually(
        "the server takes both authorities",
        pgfw_tests::lab::PATIENCE,
        || {
            let said = stage.refused(&stolen);
            (!said.contains("unknown ca")).then_some(said)
        },
    );
    assert!(said.contains("unsupported certificate"), "{said}");
}

#[test]
fn p21_a_certificate_names_one_identity_and_a_superuser_takes_a_word() {
    let site = Site::new();
    let root = "[[identity]]\nname = \"postgres\"\n";
    let stage = Stage::with(&site, "", root);
    let alice = stage.issue("alice", &[]);
    let shown = text(&stage, &alice.pem("postgresql.crt"));
    assert!(shown.contains("Subject: CN = alice\n"), "{shown}");
    assert_eq!(
        after(&shown, "X509v3 Extended Key Usage"),
        "TLS Web Client Authentication"
    );
    assert!(!shown.contains("Subject Alternative Name"), "{shown}");

    let unknown = stage.pgfw.pgfw(&["cert", "issue", "alcie"]);
    assert_fails(
        &unknown,
        1,
        &["`alcie`", "/etc/pgfw/pgfw.toml", "Did you mean `alice`?"],
    );
    let superuser = stage.pgfw.pgfw(&["cert", "issue", "postgres"]);
    assert_fails(&superuser, 1, &["`postgres`", "--superuser"]);
    stage.issue("postgres", &["--superuser"]);

    let long = "x".repeat(64);
    stage.configure("", &format!("[[identity]]\nname = \"{long}\"\n"));
    assert_fails(&stage.pgfw.pgfw(&["config", "check"]), 2, &["identity", "63"]);
    assert_fails(&stage.pgfw.pgfw(&["cert", "issue", &long]), 2, &["63"]);
}

#[test]
fn p22_serials_validity_and_identifiers_of_what_is_issued() {
    let site = Site::new();
    // An authority that has some days less than twenty years to go.
    let stage = aged(&site, 10);
    stage.configure("", "[pki]\nclient_ttl = \"7300d\"\n");
    let key = stage.place("alice.key");
    let request = stage.place("alice.csr");
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=alice",
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        request.to_str().unwrap(),
    ])
    .expect_success();
    // The same key twice: another serial, so that revoking the first leaves the second.
    let csr = ["--csr", request.to_str().unwrap(), "--ttl", "2h"];
    let (first, second) = (stage.issue("alice", &csr), stage.issue("alice", &csr));
    assert_ne!(first.serial(), second.serial());
    assert!(!first.folder.join("postgresql.key").exists());

    let authority = text(&stage, &on_host(&stage, "/etc/pgfw/pki/client-ca/g1/ca.crt"));
    for leaf in [&first, &second] {
        let number = |key: &str| leaf.certificate[key].as_i64().unwrap();
        assert_eq!(number("issued") - number("not_before"), 300);
        assert_eq!(number("not_after") - number("issued"), 7200);
        // 128 bits, as good as none of them in common with the other.
        assert_eq!(leaf.serial().len(), 32);
        let shown = text(&stage, &leaf.pem("postgresql.crt"));
        assert_eq!(after(&shown, "X509v3 Key Usage: critical"), "Digital Signature");
        let issuer = after(&authority, "X509v3 Subject Key Identifier");
        assert!(
            after(&shown, "X509v3 Authority Key Identifier").ends_with(issuer),
            "{shown}"
        );
        after(&shown, "X509v3 Subject Key Identifier");
    }
    let common = first
        .serial()
        .bytes()
        .zip(second.serial().bytes())
        .filter(|(a, b)| a == b);
    assert!(common.count() < 16, "{} {}", first.serial(), second.serial());

    // Never beyond its issuer, and said so.
    let folder = stage.place("long");
    let long = stage.pgfw.ok(&[
        "cert",
        "issue",
        "alice",
        "--ttl",
        "7300d",
        "--bundle",
        folder.to_str().unwrap(),
    ]);
    assert!(long.contains("shorter than asked for"), "{long}");
    let shown = text(
        &stage,
        &std::fs::read_to_string(folder.join("postgresql.crt")).unwrap(),
    );
    let end = |text: &str| {
        let line = text.lines().find(|line| line.contains("Not After")).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(end(&shown), end(&authority));
    assert_fails(
        &stage.pgfw.pgfw(&["cert", "issue", "alice", "--ttl", "0s"]),
        2,
        &[],
    );
}

/// What an identity may have is said in the config; whoever issues cannot stretch it, with a key or with a request.
#[test]
fn p22_no_certificate_is_issued_for_longer_than_its_identity_may_have() {
    let site = Site::new();
    let carol = "[pki]\nclient_ttl = \"3d\"\n[[identity]]\nname = \"carol\"\nttl = \"2h\"\n";
    let stage = Stage::with(&site, "", carol);
    let request = stage.place("carol.csr");
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=carol",
        "-keyout",
        stage.place("carol.key").to_str().unwrap(),
        "-out",
        request.to_str().unwrap(),
    ])
    .expect_success();
    let csr = ["--csr", request.to_str().unwrap()];
    for (name, longest, longer, shown) in [("carol", "2h", "7201s", "2h"), ("alice", "3d", "73h", "3days")] {
        for further in [&[][..], &csr] {
            if name == "alice" && !further.is_empty() {
                continue;
            }
            let refused = stage
                .pgfw
                .pgfw(&[&["cert", "issue", name, "--ttl", longer], further].concat());
            let words = [format!("`{name}`"), shown.to_owned(), "[[identity]]".to_owned()];
            assert_fails(&refused, 2, &words.each_ref().map(String::as_str));
            let taken = stage.issue(name, &[&["--ttl", longest], further].concat());
            stage.revoke(taken.serial());
            let hour = stage.issue(name, &[&["--ttl", "1h"], further].concat());
            let number = |key: &str| hour.certificate[key].as_i64().unwrap();
            assert_eq!(number("not_after") - number("issued"), 3600);
            stage.revoke(hour.serial());
        }
    }
}
