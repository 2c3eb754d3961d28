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

/// Names of the server's users in comments and values: the text stays TOML and means the same.
#[test]
fn names_are_hostile() {
    let names = [
        "\"]\nport = 1",
        "a#b",
        "\\",
        "\\u0041",
        "'''",
        "\"\"\"",
        "x = 1",
        "\u{202e}abc",
        "[[login]]",
        "\u{1}",
        "é\u{7f}",
        "a\tb",
        "all",
        "+all",
        "@x",
        "a,b",
        "/.*",
        " ",
    ];
    let known = Known {
        roles: Some(
            names
                .iter()
                .map(|name| Role {
                    name: name.as_bytes().to_vec(),
                    replicates: false,
                    secret: Secret::Md5,
                })
                .chain([Role {
                    name: vec![0xff, b'x'],
                    replicates: false,
                    secret: Secret::Scram,
                }])
                .collect(),
        ),
        databases: Some(names.iter().map(|name| name.as_bytes().to_vec()).collect()),
    };
    let hba = "host all all 10.0.0.0/8 md5 # \"]]\n\
               local \"]\u{1}\", \"+grp\",a\"b c\",sameuser +\"my grp\" peer # \u{202e}\nlocal all \"a\\b\" md5\n\
               hostssl \"x\ty\" all 192.168.0.0/16 scram-sha-256\n";
    let adopted = adopted(hba, &known);
    let config = Config::parse(&adopted.text, Path::new("pgfw.toml")).expect("pgfw reads it");
    let login = &config.logins[0];
    let mut expected: Vec<&str> = names.to_vec();
    expected.retain(|name| !name.contains('\n'));
    assert_eq!(login.roles, expected);
    let differences = adopted.servers[0].differences.join("\n");
    assert!(differences.contains("cannot hold such a name"), "{differences}");
    for c in ['\u{202e}', '\u{1}', '\u{7f}'] {
        assert!(!adopted.text.contains(c), "{}", adopted.text);
    }
    assert_eq!(
        config.postgres[0].local,
        [
            "local \"]\u{1}\",\"+grp\",a\"b c\",sameuser +\"my grp\" peer",
            "local all \"a\\b\" md5",
        ]
    );
    assert_eq!(config.logins[1].databases, Some(vec!["x\ty".to_owned()]));
}

/// Two servers: a login counts for both, so one that contradicts another is left out and said; equal ones stand once.
#[test]
fn servers_on_one_host() {
    let one = draft(
        translated(
            "hostssl app alice 10.0.0.0/8 scram-sha-256\nhostssl app bob 10.0.0.0/8 md5\n",
            &known(),
            15,
        ),
        15,
    );
    let mut two = draft(
        translated(
            "hostssl all alice 10.1.0.0/16 md5\nhostssl app bob 10.0.0.0/8 md5\n",
            &known(),
            15,
        ),
        15,
    );
    two.port = 5433;
    let third = Draft {
        manage: Manage::None,
        port: 5434,
        ..two.clone()
    };
    let same_port = Draft {
        title: "15/down".to_owned(),
        pid: None,
        ..one.clone()
    };
    let adopted = super::write::write(vec![one, two, third, same_port], Vec::new()).expect("pgfw reads it");
    let config = Config::parse(&adopted.text, Path::new("pgfw.toml")).expect("pgfw reads it");
    let names: Vec<&str> = config.postgres.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["main", "main-15", "main-2"]);
    let logins: Vec<&str> = config.logins.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(logins, ["alice", "bob"], "{}", adopted.text);
    assert!(
        adopted
            .text
            .contains("! left out, and refused then: login `alice` has another method")
    );
    assert!(adopted.text.contains("as [[login]] bob above"));
    assert!(adopted.text.contains("counts for every [[postgres]]"));
    // Rules that somebody else writes: the filter lets in what they let in.
    let open: Vec<String> = config.postgres[2].allow.iter().map(ToString::to_string).collect();
    assert_eq!(open, ["10.0.0.0/8"]);
    assert_eq!(adopted.problems.len(), 1);
    assert!(
        adopted.problems[0].contains("15/down has port 5432 like 15/main"),
        "{:?}",
        adopted.problems
    );
}

/// The example in docs/adopt.md is what the tool prints.
#[test]
fn the_documents_example_is_what_is_printed() {
    let document = include_str!("../../../../docs/adopt.md");
    let (_, example) = document.split_once("## Example\n").expect("an example");
    let mut blocks = example.split("```").skip(1).step_by(2);
    let hba = blocks.next().expect("rules").trim_start_matches('\n');
    let toml = blocks.next().expect("sections").trim_start_matches("toml\n");
    let place = "/etc/postgresql/15/main/pg_hba.conf";
    let server = Server::of(Major::V15);
    let hba = Hba::read(Path::new(place), &Memory::of([(place, hba)]), &server);
    let role = |name: &str, secret| Role {
        name: name.as_bytes().to_vec(),
        replicates: name == "carol",
        secret,
    };
    let roles = vec![
        role("alice", Secret::Scram),
        role("app", Secret::Scram),
        role("bob", Secret::Md5),
        role("carol", Secret::None),
        role("mallory", Secret::Scram),
        role("postgres", Secret::None),
    ];
    let known = Known {
        roles: Some(roles),
        databases: Some(["app", "bob", "postgres"].map(|d| d.as_bytes().to_vec()).into()),
    };
    let translation = translate(&hba, &Ident::default(), &known, &Here, true, "postgres");
    let draft = Draft {
        data: PathBuf::from("/var/lib/postgresql/15/main"),
        hba_file: PathBuf::from(place),
        pid: Some(812),
        ..draft(translation, 15)
    };
    let adopted = super::write::write(vec![draft], Vec::new()).expect("pgfw reads it");
    assert_eq!(adopted.text, toml, "{}", adopted.text);
}
