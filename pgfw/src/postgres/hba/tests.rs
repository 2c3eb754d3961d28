use std::path::Path;

use super::judge::{Attempt, Decision, From, Rules, To};
use super::{Input, Rendered, ident, marker, quote, render};
use crate::config::Config;
use crate::policy::access;

fn config(sections: &str) -> Config {
    let text = format!(
        "[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nlocal = [\"local all all peer\"]\n{sections}"
    );
    Config::parse(&text, Path::new("pgfw.toml")).unwrap()
}

fn rendered(config: &Config, major: u16) -> Rendered {
    let cells = access::compile(config).unwrap();
    render(&Input {
        cluster: &config.postgres[0],
        cells: &cells,
        major,
        operator: "root",
        owner: "postgres",
        superuser: "postgres",
        marker: &marker("0123456789abcdef"),
    })
    .unwrap()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|l| !l.starts_with('#')).collect()
}

const ALICE: &str = "[[identity]]\nname = \"alice\"\ndatabases = [\"app\"]\nnetworks = [\"10.20.0.0/16\"]\n";

#[test]
fn the_whole_file_in_order() {
    let files = rendered(
        &config(&format!(
            "{ALICE}[[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\ndatabases = [\"postgres\"]\n\
             networks = [\"127.0.0.1/32\"]\nplaintext = \"loopback\"\n"
        )),
        15,
    );
    let map = ident::Map::of_cell(&["alice".to_owned()].into(), "alice").name;
    assert_eq!(
        lines(&files.hba),
        [
            "local all \"postgres\" peer map=pgfw-own",
            "local \"marker-0123456789abcdef\" \"probe\" peer map=marker-0123456789abcdef",
            "local \"marker-0123456789abcdef\" all reject",
            "local all all peer",
            &format!("hostssl \"app\" \"alice\" 10.20.0.0/16 cert map={map}"),
            "hostssl \"postgres\" \"exporter\" 127.0.0.1/32 scram-sha-256",
            "hostnossl \"postgres\" \"exporter\" 127.0.0.1/32 scram-sha-256",
            "local all all reject",
            "local replication all reject",
            "host all all all reject",
            "host replication all all reject",
        ]
    );
    assert_eq!(
        lines(&files.ident),
        [
            "pgfw-own \"root\" \"postgres\"",
            "pgfw-own \"postgres\" \"postgres\"",
            "marker-0123456789abcdef \"root\" \"probe\"",
            &format!("{map} \"alice\" \"alice\""),
        ]
    );
}

/// Nobody declared: still an explicit reject, since the server ignores an empty file and keeps the old rules.
#[test]
fn p05_nobody_is_an_explicit_reject() {
    let files = rendered(&config(""), 15);
    assert!(files.hba.ends_with("host replication all all reject\n"));
    let rules = Rules::parse(&files.hba, &files.ident, 15).unwrap();
    let attempt = Attempt {
        from: From::Tcp {
            address: "10.20.0.1".parse().unwrap(),
            tls: true,
        },
        to: To::Database("app"),
        role: "alice",
    };
    assert!(matches!(
        rules.decide(&attempt),
        Decision::Line { method: "reject", .. }
    ));
}

/// Comments hold nothing that a person chose, and nothing that the server would read on.
#[test]
fn p04_comments_are_inert() {
    let odd = "[[identity]]\nname = \"al#ice\\\\\"\nroles = [\"r\\\\\", \"#\", \"a,b\"]\nnetworks = [\"10.0.0.0/8\"]\n";
    let files = rendered(&config(odd), 15);
    for text in [&files.hba, &files.ident] {
        for line in text.lines() {
            assert!(!line.ends_with('\\'), "{line}");
        }
        let bare: String = lines(text).join("\n");
        let with = Rules::parse(text, "", 15);
        let without = Rules::parse(&bare, "", 15);
        assert_eq!(with.is_ok(), without.is_ok());
    }
}

/// Every rule for a person is for TLS; plaintext is loopback, and only where a login asks for it by name.
#[test]
fn p06_plaintext_only_by_name_on_loopback() {
    let files = rendered(
        &config(&format!(
            "{ALICE}[[login]]\nname = \"batch\"\nmethod = \"scram-sha-256\"\nnetworks = [\"10.0.0.0/8\"]\n\
             [[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\nnetworks = [\"127.0.0.0/8\", \"10.1.0.0/16\"]\n\
             plaintext = \"loopback\"\n"
        )),
        15,
    );
    for line in lines(&files.hba) {
        let kind = line.split(' ').next().unwrap();
        match kind {
            "local" | "hostssl" => {}
            "hostnossl" => assert!(line.contains("\"exporter\" 127.0.0.0/8"), "{line}"),
            "host" => assert!(line.ends_with(" reject"), "{line}"),
            other => panic!("{other}"),
        }
    }
}

/// Above its lines the file says what they do not see, wherever the kind of line changes.
#[test]
fn p39_rules_say_what_they_cannot_see() {
    let files = rendered(
        &config(
            "[[identity]]\nname = \"alice\"\n\
             [[identity]]\nname = \"standby\"\ndatabases = []\nreplication = true\n\
             [[login]]\nname = \"pooler\"\nmethod = \"scram-sha-256\"\nnetworks = [\"127.0.0.1/32\"]\nplaintext = \"loopback\"\n\
             [[login]]\nname = \"stream\"\nmethod = \"scram-sha-256\"\nnetworks = [\"10.0.0.0/8\"]\ndatabases = []\n\
             replication = true\n",
        ),
        15,
    );
    // The role of a line, and words of the last remark above it.
    let rows = [
        ("alice", "By certificate: `pgfw cert revoke` ends"),
        ("standby", "next reconnect"),
        ("pooler", "a pooler's clients"),
        ("stream", "no revocation reaches it"),
    ];
    let mut remark = "";
    let mut seen = Vec::new();
    for line in files.hba.lines() {
        if line.starts_with('#') {
            remark = line;
        } else if let Some((role, words)) = rows
            .iter()
            .find(|(role, _)| line.contains(&format!(" \"{role}\" ")))
        {
            assert!(remark.contains(words), "{remark} above {line}");
            seen.push(*role);
        }
    }
    assert_eq!(seen, ["alice", "pooler", "standby", "stream", "pooler"]);
}

/// A name that begins with `/`: an anchored expression on 16 and later. On 15 the token that is the name would be another
/// expression after an upgrade, which takes the files along; as a system user it always is one.
#[test]
fn p02_leading_slash() {
    // name, on 15, on 16
    let rows = [
        ("/x", None, "\"/^\\/x$\""),
        ("/", None, "\"/^\\/$\""),
        ("/.*", None, "\"/^\\/\\.\\*$\""),
        ("/é_1", None, "\"/^\\/é_1$\""),
        ("a/b", Some("\"a/b\""), "\"a/b\""),
        ("all", Some("\"all\""), "\"all\""),
        ("+x", Some("\"+x\""), "\"+x\""),
        ("@x", Some("\"@x\""), "\"@x\""),
        ("a\"b", Some("\"a\"\"b\""), "\"a\"\"b\""),
    ];
    for (name, on_15, on_16) in rows {
        assert_eq!(quote::name(name, 15).as_deref(), on_15);
        for major in 16..=18 {
            assert_eq!(quote::name(name, major).as_deref(), Some(on_16));
        }
    }
    assert_eq!(quote::system_user("/"), None);
    assert_eq!(quote::system_user("/x"), None);
}

#[test]
fn settings_are_quoted_as_the_server_reads_them() {
    assert_eq!(quote::setting("/var/lib/x"), "'/var/lib/x'");
    assert_eq!(quote::setting("a'b\\c\nd"), "'a''b\\\\c\\nd'");
}

mod names {
    use proptest::prelude::*;

    use super::*;

    /// Names of the characters that mean something in these files.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab/+@,#\"' \\\\.*^$(é]{1,6}",
            Just("all".to_owned()),
            Just("replication".to_owned()),
            Just("sameuser".to_owned()),
            Just("samerole".to_owned()),
            Just("samehost".to_owned()),
            Just("include".to_owned()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Read back, a rendered name matches itself and no other.
        #[test]
        fn p03_a_name_means_itself(a in name(), b in name(), major in 15_u16..=18) {
            let Some(token) = quote::name(&a, major) else {
                prop_assert!(a.starts_with('/') && major == 15);
                return Ok(());
            };
            let hba = format!("hostssl {token} {token} all cert map=m\n");
            let rules = Rules::parse(&hba, "", major).unwrap();
            for (database, role) in [(&a, &a), (&a, &b), (&b, &a)] {
                let attempt = Attempt {
                    from: From::Tcp { address: "10.0.0.1".parse().unwrap(), tls: true },
                    to: To::Database(database),
                    role,
                };
                let matched = !matches!(rules.decide(&attempt), Decision::None);
                prop_assert_eq!(matched, database == &a && role == &a);
            }
        }
    }
}
