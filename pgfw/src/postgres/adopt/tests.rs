//! What is adopted, read back as pgfw reads it, rendered as `pg apply` renders it, and judged as a server judges it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pgfw_hba::{
    Decision, Encryption, From, Hba, HbaLine, Ident, Interface, Login, Major, Memory, Server, World,
};

use super::sections::OfLine;
use super::{Adopted, Draft, Known, Role, Secret, Translation, translate};
use crate::config::{Config, Location, Manage};
use crate::policy::access;
use crate::postgres::hba::{Input, marker, render};

mod agree;
mod written;

/// alice and bob in the group grp; carol has no password.
struct Here;

impl World for Here {
    fn is_member(&self, role: &[u8], group: &[u8]) -> Option<bool> {
        Some(role == group || (group == b"grp" && (role == b"alice" || role == b"bob")))
    }
    fn interfaces(&self) -> Option<Vec<Interface>> {
        let own = |address: &str, mask: &str| Interface {
            address: address.parse().expect("an address"),
            mask: mask.parse().ok(),
        };
        Some(vec![
            own("127.0.0.1", "255.0.0.0"),
            own("192.168.1.7", "255.255.255.0"),
        ])
    }
    fn name_of(&self, address: IpAddr) -> Option<Option<String>> {
        let known = address == IpAddr::from([192, 0, 2, 9]);
        Some(known.then(|| "app.example.com".to_owned()))
    }
    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        let address = IpAddr::from([192, 0, 2, 9]);
        Some(
            (name == "app.example.com")
                .then_some(address)
                .into_iter()
                .collect(),
        )
    }
}

const ROLES: [&str; 8] = [
    "alice", "bob", "carol", "grp", "my role", "quo\"te", "a/slash", "all",
];
const DATABASES: [&str; 5] = ["alice", "app", "grp", "postgres", "my db"];

fn known() -> Known {
    let role = |name: &&str| Role {
        name: name.as_bytes().to_vec(),
        replicates: matches!(*name, "alice" | "carol"),
        secret: match *name {
            "carol" => Secret::None,
            "bob" => Secret::Md5,
            _ => Secret::Scram,
        },
    };
    Known {
        roles: Some(ROLES.iter().map(role).collect()),
        databases: Some(DATABASES.iter().map(|d| d.as_bytes().to_vec()).collect()),
        major: 15,
    }
}

fn read(hba: &str, ident: &str, major: u16) -> (Hba, Ident) {
    let server = Server::of(Major::of(major).expect("a major of these"));
    let files = Memory::of([("/pg_hba.conf", hba), ("/pg_ident.conf", ident)]);
    let hba = Hba::read(Path::new("/pg_hba.conf"), &files, &server);
    assert!(hba.errors.is_empty(), "{:?}", hba.errors);
    (hba, Ident::read(Path::new("/pg_ident.conf"), &files, &server))
}

fn translated(hba: &str, known: &Known, major: u16) -> Translation {
    let (hba, ident) = read(hba, "m somebody alice\n", major);
    translate(&hba, &ident, known, &Here, true, "postgres")
}

fn draft(translation: Translation, major: u16) -> Draft {
    Draft {
        title: format!("{major}/main"),
        wish: "main".to_owned(),
        major,
        pid: Some(7),
        data: PathBuf::from("/var/lib/postgresql"),
        hba_file: PathBuf::from("/pg_hba.conf"),
        location: Location::Debian {
            major,
            name: "main".to_owned(),
        },
        port: 5432,
        manage: Manage::Files,
        server_names: vec!["db.example.com".to_owned()],
        server_files: None,
        listen_addresses: vec!["*".to_owned()],
        min_tls: "1.2",
        connections: false,
        statements: "none".to_owned(),
        notes: Vec::new(),
        translation,
    }
}

fn adopted(hba: &str, known: &Known) -> Adopted {
    super::write::write(vec![draft(translated(hba, known, 16), 16)], Vec::new()).expect("pgfw reads it")
}

/// The text without its comments and the `[[postgres]]` section: what it says.
fn logins(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.skip_while(|line| *line != "[[login]]");
    let lines = lines.map(|line| line.split("  # ").next().unwrap_or_default());
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn login(keys: &str) -> String {
    format!("[[login]]\n{keys}")
}

const SCRAM: &str = "method = \"scram-sha-256\"\n";

#[test]
fn lines_become_logins() {
    let all = r#"roles = ["alice", "bob", "grp", "my role", "quo\"te", "a/slash", "all"]"#;
    // lines of pg_hba.conf, and the sections
    let rows = [
        (
            "hostssl app alice 10.0.0.0/8 scram-sha-256",
            login(&format!(
                "name = \"alice\"\n{SCRAM}roles = [\"alice\"]\ndatabases = [\"app\"]\nnetworks = [\"10.0.0.0/8\"]"
            )),
        ),
        // Every role that has a password; every database, those to come as well.
        (
            "hostssl all all 10.0.0.0/8 scram-sha-256",
            login(&format!(
                "name = \"main-logins\"\n{SCRAM}{all}\nnetworks = [\"10.0.0.0/8\"]"
            )),
        ),
        (
            "host app +grp 127.0.0.0 255.0.0.0 scram-sha-256",
            login(&format!(
                "name = \"main-logins\"\n{SCRAM}roles = [\"alice\", \"bob\", \"grp\"]\ndatabases = [\"app\"]\n\
                 networks = [\"127.0.0.0/8\"]\nplaintext = \"loopback\""
            )),
        ),
        // An earlier reject cuts what is left.
        (
            "host all alice 10.0.0.0/9 reject\nhost app alice 10.0.0.0/8 scram-sha-256",
            login(&format!(
                "name = \"alice\"\n{SCRAM}roles = [\"alice\"]\ndatabases = [\"app\"]\nnetworks = [\"10.128.0.0/9\"]"
            )),
        ),
        // One database is refused before: the others by name.
        (
            "host app bob all reject\nhostssl all bob 10.0.0.0/8 scram-sha-256",
            login(&format!(
                "name = \"bob\"\n{SCRAM}roles = [\"bob\"]\ndatabases = [\"alice\", \"grp\", \"postgres\", \"my db\"]\n\
                 networks = [\"10.0.0.0/8\"]"
            )),
        ),
        ("hostssl replication carol 10.0.0.0/8 reject", String::new()),
        (
            "hostssl replication all 10.0.0.0/8 md5",
            login(
                "name = \"alice\"\nmethod = \"md5\"\nroles = [\"alice\"]\ndatabases = []\nreplication = true\n\
                 networks = [\"10.0.0.0/8\"]",
            ),
        ),
        (
            "hostssl sameuser,samerole alice 10.0.0.0/8 password",
            login(
                "name = \"alice\"\nmethod = \"md5\"\nroles = [\"alice\"]\ndatabases = [\"alice\", \"grp\"]\n\
                 networks = [\"10.0.0.0/8\"]",
            ),
        ),
        (
            "hostssl app /^b samenet scram-sha-256",
            login(&format!(
                "name = \"bob\"\n{SCRAM}roles = [\"bob\"]\ndatabases = [\"app\"]\n\
                 networks = [\"127.0.0.0/8\", \"192.168.1.0/24\"]"
            )),
        ),
        (
            "hostssl app bob app.example.com scram-sha-256",
            login(&format!(
                "name = \"bob\"\n{SCRAM}roles = [\"bob\"]\ndatabases = [\"app\"]\nnetworks = [\"192.0.2.9/32\"]"
            )),
        ),
        // Plaintext alone, on loopback: TLS is let in beside it.
        (
            "hostnossl app bob ::1/128 scram-sha-256",
            login(&format!(
                "name = \"bob\"\n{SCRAM}roles = [\"bob\"]\ndatabases = [\"app\"]\nnetworks = [\"::1/128\"]\n\
                 plaintext = \"loopback\""
            )),
        ),
        // Of one line's loopback some comes by TLS alone.
        (
            "hostnossl app bob 127.0.0.0/9 reject\nhost app bob 127.0.0.0/8 scram-sha-256",
            format!(
                "{}\n{}",
                login(&format!(
                    "name = \"bob\"\n{SCRAM}roles = [\"bob\"]\ndatabases = [\"app\"]\nnetworks = [\"127.128.0.0/9\"]\n\
                     plaintext = \"loopback\""
                )),
                login(&format!(
                    "name = \"bob-2\"\n{SCRAM}roles = [\"bob\"]\ndatabases = [\"app\"]\nnetworks = [\"127.0.0.0/9\"]"
                ))
            ),
        ),
        // No client has such an address.
        ("hostssl app bob ::ffff:10.0.0.0/104 scram-sha-256", String::new()),
        ("local all all peer", String::new()),
    ];
    for (hba, expected) in rows {
        let text = adopted(hba, &known()).text;
        assert_eq!(logins(&text), expected, "{hba}\n{text}");
    }
}

#[test]
fn what_cannot_be_said_is_said_to_be_missing() {
    // lines, words of the comment of the last
    let rows = [
        ("host all all 10.0.0.0/8 trust", "without any proof (trust)"),
        ("host all all 10.0.0.0/8 ident", "(ident)"),
        ("host all all 10.0.0.0/8 gss", "Kerberos"),
        ("host all all 10.0.0.0/8 pam", "PAM"),
        (
            "host all all 10.0.0.0/8 ldap ldapserver=x ldapbasedn=y ldapbind\"passwd=hush\"",
            "LDAP",
        ),
        (
            "host all all 10.0.0.0/8 radius radiusservers=x \"radiussecrets=hush, hush\"",
            "RADIUS",
        ),
        ("hostssl all all 10.0.0.0/8 cert", "[[identity]]"),
        (
            "hostssl all all 10.0.0.0/8 scram-sha-256 clientcert=verify-ca",
            "[[identity]]",
        ),
        ("hostgssenc all all 10.0.0.0/8 scram-sha-256", "GSSAPI"),
        (
            "host all all 10.0.0.0 255.0.255.0 scram-sha-256",
            "its mask has holes",
        ),
        ("host all all .example.com scram-sha-256", "no networks"),
        (
            "host all all nowhere.example.com scram-sha-256",
            "leads to no address",
        ),
        ("host all all .example.com reject", "it refuses, and"),
        (
            "host app alice 10.0.0.0/8 scram-sha-256",
            "without TLS from 10.0.0.0/8",
        ),
        (
            "hostnossl app alice 10.0.0.0/8 scram-sha-256",
            "for plaintext alone",
        ),
        (
            "hostssl all all all scram-sha-256\nhostnossl app alice 127.0.0.1/32 md5",
            "a login has one method",
        ),
        (
            "local all alice peer map=m",
            "it goes by map m, and pgfw writes pg_ident.conf (somebody as alice)",
        ),
        (
            "local all alice radius radiusservers=x radiussecrets=hush",
            "a secret, which is not printed",
        ),
        ("local all postgres trust", "postgres gets in here by peer only"),
    ];
    for (hba, words) in rows {
        let adopted = adopted(hba, &known());
        let last = hba.lines().count();
        let about = format!("/pg_hba.conf line {last}: ");
        let found = adopted.servers[0]
            .differences
            .iter()
            .any(|d| d.starts_with(&about) && d.contains(words));
        assert!(found, "{hba}: {:?}", adopted.servers[0].differences);
        // The comment of its line says it too; comments are broken at blanks.
        let comments = adopted.text.replace("\n    #   ", " ").replace("\n#   ", " ");
        assert!(comments.contains(words), "{}", adopted.text);
        assert!(!adopted.text.contains("hush"), "{}", adopted.text);
    }
}

#[test]
fn what_is_dangerous_is_said_where_it_stands() {
    let text = adopted(
        "host all bob all md5\nhost all alice all md5\nlocal all all trust\n",
        &known(),
    )
    .text;
    let line = |key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    assert!(
        line("method").contains("# md5: not kept for SCRAM are the passwords of bob"),
        "{text}"
    );
    assert!(
        text.contains("\"md5\"  # md5: all these passwords are kept for SCRAM"),
        "{text}"
    );
    assert!(line("networks").contains("# the whole world"), "{text}");
    assert!(line("plaintext").contains("# plaintext"), "{text}");
    assert!(text.contains("#   trust: every user of this host"), "{text}");
}

/// Nobody to ask: what is named is carried over, and the rest is said.
#[test]
fn a_server_that_is_down_gives_what_its_files_name() {
    let hba =
        "hostssl app alice,+grp 10.0.0.0/8 scram-sha-256\nhostssl sameuser all 10.0.0.0/8 scram-sha-256\n";
    let adopted = adopted(hba, &Known::default());
    assert_eq!(
        logins(&adopted.text),
        format!(
            "[[login]]\nname = \"alice\"\n{SCRAM}roles = [\"alice\"]\ndatabases = [\"app\"]\nnetworks = [\"10.0.0.0/8\"]\n\
             [[login]]\nname = \"alice-2\"\n{SCRAM}roles = [\"alice\"]\ndatabases = [\"alice\"]\nnetworks = [\"10.0.0.0/8\"]"
        )
    );
    let differences = &adopted.servers[0].differences;
    assert!(
        differences
            .iter()
            .all(|d| d.contains("they are not known while the server")),
        "{differences:?}"
    );
    assert_eq!(differences.len(), 2);
}
