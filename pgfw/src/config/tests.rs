use std::path::Path;

use super::*;
use crate::failure::{Code, Explain, Failure};

const GOOD: &str = include_str!("../../../config/pgfw.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/pgfw/pgfw.toml"))
}

fn refused(text: &str) -> Failure {
    let error = parse(text).expect_err(text);
    assert_eq!(error.code(), Code::Invalid);
    error.into()
}

const HOST: &str =
    "[firewall]\ninterfaces = [\"eth0\"]\n[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\n";

#[test]
fn the_annotated_example_is_right_and_an_empty_file_has_every_default() {
    let example = parse(GOOD).expect("the example");
    assert_eq!(
        example.postgres[0].location,
        Location::Debian {
            major: 15,
            name: "main".into()
        }
    );
    let empty = parse("").expect("nothing is required");
    assert_eq!(empty.ssh.ports, [22]);
    assert_eq!(empty.firewall.on_stop, OnStop::Keep);
    assert_eq!(empty.pki.client_ttl, Duration::from_secs(30 * 86_400));
    assert_eq!(empty.firewall.link_layer.len(), 4);
}

#[test]
fn an_identity_and_a_login_take_their_defaults() {
    let config = parse(&format!(
        "{HOST}[[identity]]\nname = \"alice\"\n[[login]]\nname = \"app\"\nmethod = \"scram-sha-256\"\nnetworks = [\"10.0.0.0/8\", \"10.0.0.0/8\"]\n"
    ))
    .expect("right");
    assert_eq!(config.identities[0].roles, ["alice"]);
    assert_eq!(config.identities[0].databases, None);
    assert_eq!(config.logins[0].roles, ["app"]);
    assert_eq!(config.logins[0].networks.len(), 1, "duplicates are merged");
}

#[test]
fn who_replicates_needs_no_database() {
    let config = parse(&format!(
        "{HOST}[[identity]]\nname = \"standby\"\ndatabases = []\nreplication = true\n"
    ))
    .expect("right");
    assert_eq!(config.identities[0].databases, Some(Vec::new()));
    assert!(config.identities[0].replication);
}

/// Each row: what is appended to a good host, what the message must name, what the remedy must say.
#[test]
fn p08_what_cannot_be_meant_is_refused_with_file_line_key_and_remedy() {
    let rows: &[(&str, &[&str], &str)] = &[
        // Networks.
        (
            "allow = [\"192.168.1.5/24\"]",
            &["pgfw.toml:6", "postgres.allow", "host bits"],
            "192.168.1.0/24",
        ),
        (
            "allow = [\"::ffff:10.0.0.0/104\"]",
            &["IPv4-mapped"],
            "10.0.0.0/8",
        ),
        (
            "allow = [\"192.168.1.0/33\"]",
            &["`192.168.1.0/33` is not a network"],
            "192.168.1.0/24",
        ),
        (
            "allow = [\"office\"]",
            &["`office` is not a network"],
            "prefix length",
        ),
        // Keys and words.
        (
            "alow = []",
            &["pgfw.toml:6", "unknown key `alow`"],
            "Did you mean `allow`?",
        ),
        ("min_tls = \"1.1\"", &["postgres.min_tls", "`1.1`"], "1.2, 1.3"),
        ("port = 0", &["postgres.port"], "1 to 65535"),
        ("port = 99999", &["pgfw.toml:6"], "Correct line 6"),
        (
            "local = [\"host all all all trust\"]",
            &["postgres.local"],
            "local only",
        ),
        // It would go on in the next line.
        (
            "local = [\"local all all peer \\\\\"]",
            &["postgres.local"],
            "local only",
        ),
        (
            "server_names = [\"db example\"]",
            &["postgres.server_names"],
            "names clients",
        ),
        (
            "audit = { statements = \"everything\" }",
            &["postgres.audit.statements"],
            "ddl",
        ),
        // Whole sections.
        (
            "[[service]]\nname = \"x\"\n",
            &["service `x` needs its ports"],
            "Add ports",
        ),
        (
            "[[service]]\nname = \"x\"\nports = [\"5432\"]",
            &["port 5432", "two services"],
            "ports of its own",
        ),
        (
            "[[service]]\nname = \"x\"\nports = [\"9-3\"]",
            &["`9-3`"],
            "lower port first",
        ),
        (
            "[[service]]\nname = \"x\"\nprotocol = \"tcpp\"",
            &["`tcpp`"],
            "tcp, udp",
        ),
        (
            "[[identity]]\nname = \"a/b\"",
            &["identity.name"],
            "may not contain",
        ),
        (
            "[[identity]]\nname = \"a\"\nroles = []",
            &["identity.roles is empty"],
            "Leave the key out",
        ),
        (
            "[[identity]]\nname = \"a\"\ndatabases = []",
            &["identity.databases is empty"],
            "Leave the key out",
        ),
        (
            "[[identity]]\nname = \"a\"\n[[identity]]\nname = \"a\"",
            &["two [[identity]]"],
            "rename",
        ),
        (
            "[[login]]\nname = \"a\"\nmethod = \"trust\"\nnetworks = []",
            &["`trust`"],
            "scram-sha-256",
        ),
        (
            "[[postgres]]\nname = \"main\"\ncluster = \"15/other\"\nport = 5433",
            &["two services have this name"],
            "own",
        ),
        // A port said twice is no quarrel between services.
        (
            "[ssh]\nports = [22, 22]",
            &["port 22 stands twice", "ssh"],
            "Write it once",
        ),
        (
            "[[service]]\nname = \"x\"\nports = [\"9100\", \"9090-9110\"]",
            &["port 9100 stands twice", "of x"],
            "Write it once",
        ),
        // Paths that mean one thing to the daemon and another to a command.
        (
            "[pki]\ndirectory = \"pki\"",
            &["pgfw.toml:7", "pki.directory", "`pki` is not an absolute path"],
            "from `/` on",
        ),
        (
            "[[postgres]]\nname = \"b\"\nport = 5433\ndata_directory = \"data/15\"",
            &["pgfw.toml:9", "postgres.data_directory", "`data/15`"],
            "from `/` on",
        ),
        (
            "[[postgres]]\nname = \"b\"\nport = 5433\ndata_directory = \"/d\"\nconfig_file = \"./p.conf\"",
            &["pgfw.toml:10", "postgres.config_file", "`./p.conf`"],
            "from `/` on",
        ),
        (
            "[pki]\nclient_ttl = \"soon\"",
            &["pki.client_ttl", "`soon`"],
            "30d",
        ),
    ];
    for (more, names, remedy) in rows {
        let failure = refused(&format!("{HOST}{more}\n"));
        for name in *names {
            assert!(failure.message.contains(name), "{more}: {}", failure.message);
        }
        assert!(failure.remedy.contains(remedy), "{more}: {}", failure.remedy);
    }
}

#[test]
fn f29_naming_lo_is_refused() {
    let failure = refused("[firewall]\ninterfaces = [\"eth0\", \"lo\"]\n");
    assert!(
        failure.message.contains(":2") && failure.message.contains("`lo` is never filtered"),
        "{failure}"
    );
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() {
    let missing = Failure::from(Config::read(Path::new("/nonexistent/pgfw.toml")).expect_err("missing"));
    assert!(
        missing.message.contains("/nonexistent/pgfw.toml") && missing.remedy.contains("--config"),
        "{missing}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let failure = Failure::from(Config::read(folder.path()).expect_err("a folder"));
    assert!(failure.message.contains("is a folder"), "{failure}");
    assert!(failure.remedy.contains("Name the file"), "{failure}");
    let latin1 = folder.path().join("latin1.toml");
    std::fs::write(&latin1, b"[firewall]\n# caf\xe9\n").expect("a file");
    let failure = Failure::from(Config::read(&latin1).expect_err("not UTF-8"));
    assert!(
        failure.message.contains("latin1.toml:2") && failure.message.contains("UTF-8"),
        "{failure}"
    );
    assert!(failure.remedy.contains("as UTF-8"), "{failure}");
    let broken = refused("[firewall\n");
    assert!(broken.message.contains("pgfw.toml:1"), "{broken}");
}

#[test]
fn files_of_a_server_certificate_come_in_pairs() {
    let with = |keys: &str| {
        let text = format!("[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\n{keys}");
        Config::parse(&text, Path::new("pgfw.toml"))
    };
    let both = with("server_certificate = \"/a.crt\"\nserver_key = \"/a.key\"").unwrap();
    let files = both.postgres[0].server_files.clone().unwrap();
    assert_eq!((files.certificate, files.key), ("/a.crt".into(), "/a.key".into()));
    assert_eq!(with("").unwrap().postgres[0].server_files, None);
    for (keys, word) in [
        ("server_key = \"/a.key\"", "pgfw.toml:4"),
        ("server_certificate = \"/a.crt\"", "without the other"),
        (
            "server_certificate = \"a.crt\"\nserver_key = \"/a.key\"",
            "absolute path",
        ),
    ] {
        let refused = with(keys).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn a_certificate_is_kept_for_a_user() {
    let with = |user: &str| {
        let text = format!("[[identity]]\nname = \"agent\"\nkept_for = \"{user}\"\n");
        Config::parse(&text, Path::new("pgfw.toml"))
    };
    assert_eq!(
        with("pgbouncer").unwrap().identities[0].kept_for.as_deref(),
        Some("pgbouncer")
    );
    for user in ["", "a/b", "../x", "a b"] {
        let refused = with(user).unwrap_err().to_string();
        assert!(
            refused.contains("pgfw.toml:3") && refused.contains("kept_for"),
            "{refused}"
        );
    }
}

#[test]
fn a_unit_is_reloaded_where_a_certificate_is_kept() {
    let with = |keys: &str| {
        let text = format!("[[identity]]\nname = \"agent\"\n{keys}");
        Config::parse(&text, Path::new("pgfw.toml"))
    };
    let unit = |name: &str| with(&format!("kept_for = \"agent\"\nreload_unit = \"{name}\"\n"));
    for name in [
        "pgbouncer.service",
        "pgbouncer@6432.service",
        "dev-\\\\x2d.target",
    ] {
        let config = unit(name).unwrap();
        assert_eq!(config.identities[0].reload_unit, Some(name.replace("\\\\", "\\")));
    }
    for name in [
        "",
        "pgbouncer",
        ".service",
        "-f.service",
        "a b.service",
        "a;b.service",
        "/x.service",
        "a.timer",
    ] {
        let refused = unit(name).unwrap_err().to_string();
        assert!(
            refused.contains("pgfw.toml:4") && refused.contains("identity.reload_unit"),
            "{refused}"
        );
    }
    let alone = with("reload_unit = \"pgbouncer.service\"\n")
        .unwrap_err()
        .to_string();
    assert!(alone.contains("identity.reload_unit"), "{alone}");
}

#[test]
fn a_credential_is_named_and_no_passphrase() {
    let with = |name: &str| {
        let text = format!("[pki]\nkey_passphrase_credential = \"{name}\"\n");
        Config::parse(&text, Path::new("pgfw.toml"))
    };
    let pki = with("pgfw-ca").unwrap().pki;
    assert_eq!(pki.key_passphrase_credential.as_deref(), Some("pgfw-ca"));
    for name in ["", "../x", "a/b", ".x", "correct horse", "a:b"] {
        let refused = with(name).unwrap_err().to_string();
        assert!(
            refused.contains("pgfw.toml:2") && refused.contains("pki.key_passphrase_credential"),
            "{refused}"
        );
    }
}
