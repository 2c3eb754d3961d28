//! What is known of certificates and handed out: keys of other kinds and forms, `cert show`, lists for a standby.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use pgfw_tests::lab::{Child, Outcome, PATIENCE, Site, eventually, product, run};
use serde_json::Value;

use super::stage::{Stage, assert_fails};

fn openssl(arguments: &[&str]) -> Outcome {
    run(Command::new("openssl").args(arguments))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn p21_a_name_that_the_server_knows_as_a_superuser_takes_a_word() {
    let site = Site::new();
    let stage = Stage::with(&site, "", "[[identity]]\nname = \"boss\"\n");
    stage.cluster.sql("create role boss login");
    stage.issue("boss", &[]);
    stage.cluster.sql("alter role boss superuser");
    let refused = stage.pgfw.pgfw(&["cert", "issue", "boss"]);
    assert_fails(&refused, 1, &["`boss` is a superuser", "--superuser"]);
    stage.issue("boss", &["--superuser"]);
    stage.issue("alice", &[]);
}

#[test]
fn p26_an_ed25519_key_and_one_for_java_log_in_and_convert_as_others_read_them() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    for (kind, algorithm) in [("ed25519", "ED25519"), ("p256", "prime256v1")] {
        let leaf = stage.issue("alice", &["--key", kind]);
        drop(stage.log_in(&site.client, "alice", &leaf));
        let shown = openssl(&[
            "x509",
            "-noout",
            "-text",
            "-in",
            text(&leaf.folder.join("postgresql.crt")),
        ]);
        assert!(shown.stdout.contains(algorithm), "{}", shown.stdout);
        // The same key twice: OpenSSL's public halves are the test.
        let public = |form: &str, file: &str| {
            let file = leaf.folder.join(file);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let out = openssl(&["pkey", "-inform", form, "-in", text(&file), "-pubout"]);
            assert!(out.success(), "{}", out.stderr);
            out.stdout
        };
        assert_eq!(public("DER", "postgresql.pk8"), public("PEM", "postgresql.key"));
        // Java reads what was issued.
        let java = run(Command::new("keytool")
            .args(["-printcert", "-file"])
            .arg(leaf.folder.join("postgresql.crt")));
        assert!(java.success(), "{}", java.stderr);
        for word in [
            "Owner: CN=alice",
            "clientAuth",
            "DigitalSignature",
            "SubjectKeyIdentifier",
        ] {
            assert!(java.stdout.contains(word), "{word}: {}", java.stdout);
        }
    }
    // The same for Java, under a password of its own.
    let leaf = stage.issue("alice", &["--p12"]);
    let password = leaf.folder.join("postgresql.p12.password");
    let java = run(Command::new("keytool")
        .args(["-list", "-storetype", "PKCS12", "-keystore"])
        .arg(leaf.folder.join("postgresql.p12"))
        .arg("-storepass:file")
        .arg(&password));
    assert!(
        java.stdout.contains("user,") && java.stdout.contains("PrivateKeyEntry"),
        "{}",
        java.stdout
    );
    stage.site.db.write("/run/password", "of her own choice\n");
    let leaf = stage.issue("alice", &["--p12", "--p12-password-file", "/run/password"]);
    assert!(!leaf.folder.join("postgresql.p12.password").exists());
    let opened = openssl(&[
        "pkcs12",
        "-noout",
        "-passin",
        "pass:of her own choice",
        "-in",
        text(&leaf.folder.join("postgresql.p12")),
    ]);
    assert!(opened.success(), "{}", opened.stderr);
    let alone = stage.pgfw.pgfw(&["cert", "issue", "alice", "--p12"]);
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
    let both = stage
        .pgfw
        .pgfw(&["cert", "issue", "alice", "--key", "ed25519", "--csr", "x"]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}

#[test]
fn a_certificate_is_explained_and_what_ends_soon_stands_first() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let long = stage.issue("bob", &["--ttl", "20d", "--reason", "a new laptop"]);
    let short = stage.issue("alice", &["--ttl", "2d"]);
    let gone = stage.issue("deputy", &["--ttl", "1d"]);
    stage.revoke(gone.serial());
    let list: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "cert", "list"])).unwrap();
    let serials: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["serial"].as_str().unwrap())
        .collect();
    assert_eq!(serials[..2], [short.serial(), long.serial()]);
    let place = |serial| serials.iter().position(|s| *s == serial);
    assert!(place(gone.serial()) > place(long.serial()), "{serials:?}");

    let said = stage.pgfw.ok(&["cert", "show", "bob"]);
    for word in [
        "/CN=bob: valid",
        long.serial(),
        "a new laptop",
        "by root",
        "renew at",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    // As openssl prints a serial: upper case, in pairs.
    let pairs: Vec<String> = gone
        .serial()
        .as_bytes()
        .chunks(2)
        .map(|p| String::from_utf8_lossy(p).to_uppercase())
        .collect();
    let said: Value =
        serde_json::from_str(&stage.pgfw.ok(&["--json", "cert", "show", &pairs.join(":")])).unwrap();
    assert_eq!(said[0]["name"], "deputy");
    assert!(
        said[0]["state"].as_str().unwrap().starts_with("revoked"),
        "{said}"
    );
    let decimal = u128::from_str_radix(gone.serial(), 16).unwrap().to_string();
    assert_eq!(said[0]["serial_decimal"], decimal);
    assert_fails(
        &stage.pgfw.pgfw(&["cert", "show", "nobody"]),
        1,
        &["`nobody`", "cert list"],
    );
}

#[test]
fn p26_the_exported_lists_are_what_openssl_looks_for() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (alice, bob) = (stage.issue("alice", &[]), stage.issue("bob", &[]));
    stage.revoke("bob");
    stage.pgfw.ok(&["cert", "export-crl", "/run/for-a-standby"]);
    let printed = stage.pgfw.ok(&["cert", "export-crl"]);
    assert_eq!(printed.matches("BEGIN X509 CRL").count(), 2, "{printed}");
    let root = stage.file(
        "client-ca.crt",
        &site.db.read("/etc/pgfw/pki/client-ca/g1/ca.crt"),
    );
    let all = stage.file("all.crl", &printed);
    let lists = stage.place("lists");
    fs::create_dir(&lists).unwrap();
    let files = site.db.within(|| {
        let files = fs::read_dir("/run/for-a-standby").unwrap().flatten();
        files
            .map(|f| {
                (
                    f.file_name(),
                    f.metadata().unwrap().permissions().mode() & 0o777,
                    fs::read(f.path()).unwrap(),
                )
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(files.len(), 2);
    for (name, mode, content) in files {
        assert_eq!(mode, 0o644);
        fs::write(lists.join(name), content).unwrap();
    }
    for (leaf, word) in [(&alice, ": OK"), (&bob, "certificate revoked")] {
        let certificate = leaf.folder.join("postgresql.crt");
        let base = [
            "verify",
            "-crl_check_all",
            "-purpose",
            "sslclient",
            "-CAfile",
            text(&root),
        ];
        for how in [["-CApath", text(&lists)], ["-CRLfile", text(&all)]] {
            let said = openssl(&[&base[..], &how[..], &[text(&certificate)]].concat());
            assert!(
                format!("{}{}", said.stdout, said.stderr).contains(word),
                "{how:?}: {said:?}"
            );
        }
    }
}

/// What a process leaves that is aborted where core dumps have no limit.
fn leaves_a_core(command: &mut Command) -> bool {
    let mut child = Child::start(command);
    eventually("it has become what it is to be", PATIENCE, || {
        let name = fs::read_to_string(format!("/proc/{}/comm", child.pid())).ok()?;
        (name.trim() != "sh").then_some(())
    });
    child.signal(Signal::SIGABRT);
    child.wait(PATIENCE).core_dumped()
}

#[test]
fn p24_a_crash_leaves_no_memory_on_disk() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let place = stage.place("dumps");
    fs::create_dir(&place).unwrap();
    let unlimited = |what: &str| {
        let mut command = site.db.command("sh");
        command.args([
            "-c",
            &format!("ulimit -c unlimited; cd {}; exec {what}", text(&place)),
        ]);
        command
    };
    // This machine would write one.
    assert!(leaves_a_core(&mut unlimited("sleep 1000")));
    let mut daemon = stage
        .pgfw
        .start_command(&mut unlimited(&format!("{} run", product().display())));
    daemon.signal(Signal::SIGABRT);
    let ended = daemon.wait(PATIENCE);
    assert_eq!(
        (ended.signal(), ended.core_dumped()),
        (Some(libc::SIGABRT), false)
    );
}

#[test]
fn p24_a_folder_that_others_write_to_is_named_and_nothing_is_issued_there() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    let chmod = |path: &str, mode| {
        site.db
            .within(|| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap());
    };
    let (pki, key) = ("/etc/pgfw/pki", "/etc/pgfw/pki/client-ca/g1/ca.key");
    assert!(!stage.attention().contains(pki), "{}", stage.attention());
    chmod(pki, 0o777);
    chmod(key, 0o644);
    for said in [stage.attention(), stage.pgfw.ok(&["config", "check"])] {
        for word in [
            "/etc/pgfw/pki can be written by others than root (mode 0777, owner 0)",
            "chmod go-w /etc/pgfw/pki",
            "the key /etc/pgfw/pki/client-ca/g1/ca.key can be read",
            "chmod 600 /etc/pgfw/pki/client-ca/g1/ca.key",
        ] {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    }
    let refused = stage.pgfw.pgfw(&["cert", "issue", "alice"]);
    super::stage::assert_fails(&refused, 1, &["nothing is issued", pki, "chmod go-w"]);
    // What closes does not wait for it.
    stage.revoke(alice.serial());
    chmod(pki, 0o700);
    chmod(key, 0o600);
    stage.issue("alice", &[]);
    assert!(!stage.attention().contains(pki), "{}", stage.attention());
    drop(daemon);
}
