use std::net::IpAddr;

use super::{hba, ident};
use crate::{Admission, Decision, Encryption, From, Hba, Interface, Login, Major, Nothing, Truth, World};

/// Alice is in staff, staff in all_staff; the host has one network and a name server.
struct Small;

impl World for Small {
    fn is_member(&self, role: &[u8], group: &[u8]) -> Option<bool> {
        let pairs: [(&[u8], &[u8]); 6] = [
            (b"alice", b"alice"),
            (b"alice", b"staff"),
            (b"alice", b"all_staff"),
            (b"staff", b"staff"),
            (b"staff", b"all_staff"),
            (b"all_staff", b"all_staff"),
        ];
        Some(pairs.contains(&(role, group)))
    }
    fn interfaces(&self) -> Option<Vec<Interface>> {
        let interface = |address: &str, mask: &str| Interface {
            address: address.parse().unwrap(),
            mask: Some(mask.parse().unwrap()),
        };
        Some(vec![
            interface("10.0.0.1", "255.255.255.0"),
            interface("10.7.0.1", "0.0.0.0"),
        ])
    }
    fn name_of(&self, address: IpAddr) -> Option<Option<String>> {
        let last = address.to_string();
        Some(
            last.starts_with("10.")
                .then(|| format!("h{}.Example.com", last.rsplit('.').next().unwrap())),
        )
    }
    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        // What h9 says of itself is not so.
        Some(match name {
            "h9.Example.com" => Vec::new(),
            _ => vec!["10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap()],
        })
    }
}

fn login<'a>(role: &'a str, database: &'a str) -> Login<'a> {
    Login {
        from: From::Local,
        database: database.as_bytes(),
        role: role.as_bytes(),
        replication: false,
    }
}

fn tcp(address: &str, encryption: Encryption) -> From {
    From::Tcp {
        address: address.parse().unwrap(),
        encryption,
    }
}

/// The number of the line that decides; 0 for none, `None` for undecided.
fn decided(hba: &Hba, login: &Login, world: &dyn World) -> Option<usize> {
    assert!(hba.errors.is_empty(), "{:?}", hba.errors);
    match hba.decide(login, world) {
        Decision::Line(line) => Some(line.at.number),
        Decision::NoLine => Some(0),
        Decision::Undecided { .. } => None,
    }
}

#[test]
fn databases_and_roles() {
    // database and role of the line, database and role of the login, whether they meet
    let rows = [
        ("all all", "app alice", true),
        ("\"all\" all", "app alice", false),
        ("\"all\" all", "all alice", true),
        ("ALL all", "app alice", false),
        ("app alice", "app alice", true),
        ("app alice", "App alice", false),
        ("sameuser all", "alice alice", true),
        ("sameuser all", "app alice", false),
        ("samerole all", "staff alice", true),
        ("samegroup all", "all_staff alice", true),
        ("samerole all", "alice alice", true),
        ("samerole all", "bob bob", false),
        ("\"samerole\" all", "samerole alice", true),
        ("all +staff", "app alice", true),
        ("all +staff", "app staff", true),
        ("all +staff", "app bob", false),
        ("all \"+staff\"", "app alice", false),
        ("all \"+staff\"", "app +staff", true),
        ("+staff all", "+staff alice", true),
        ("replication all", "replication alice", false),
        ("\"replication\" all", "replication alice", true),
        ("x,app bob,alice", "app alice", true),
        ("/^a all", "app alice", true),
        ("\"/^a\" all", "app alice", true),
        ("all /^a", "app bob", false),
    ];
    for (line, asked, meets) in rows {
        let read = hba(&format!("local {line} trust\n"), Major::V16);
        let (database, role) = asked.split_once(' ').unwrap();
        let expected = Some(usize::from(meets));
        assert_eq!(
            decided(&read, &login(role, database), &Small),
            expected,
            "{line} {asked}"
        );
    }
    // On 15 a slash is a slash.
    let read = hba("local /^a all trust\n", Major::V15);
    assert_eq!(decided(&read, &login("alice", "/^a"), &Small), Some(1));
    assert_eq!(decided(&read, &login("alice", "app"), &Small), Some(0));
    // No database: the role's.
    let read = hba("local sameuser all trust\n", Major::V18);
    assert_eq!(decided(&read, &login("alice", ""), &Small), Some(1));
    // 63 bytes count, of the login; a longer token is nobody's.
    let long = "x".repeat(64);
    let read = hba(
        &format!("local {long} all trust\nlocal {} all trust\n", &long[1..]),
        Major::V17,
    );
    assert_eq!(decided(&read, &login("alice", &long), &Small), Some(2));
}

#[test]
fn physical_replication_has_its_own_word() {
    for (database, meets) in [
        ("all", 0),
        ("replication", 1),
        ("\"replication\"", 0),
        ("app,replication", 1),
        ("/.*", 0),
    ] {
        let read = hba(&format!("local {database} all trust\n"), Major::V18);
        let physical = Login {
            replication: true,
            ..login("alice", "app")
        };
        assert_eq!(decided(&read, &physical, &Small), Some(meets), "{database}");
    }
}

#[test]
fn connections() {
    use Encryption::{Gss, None, Tls};
    let local = From::Local;
    let [plain, tls, gss] = [None, Tls, Gss].map(|e| tcp("10.0.0.1", e));
    // type, those that it takes
    let rows: [(&str, &[From]); 6] = [
        ("local", &[local]),
        ("host", &[plain, tls, gss]),
        ("hostssl", &[tls]),
        ("hostnossl", &[plain, gss]),
        ("hostgssenc", &[gss]),
        ("hostnogssenc", &[plain, tls]),
    ];
    for (kind, takes) in rows {
        let address = if kind == "local" { "" } else { "all" };
        let read = hba(&format!("{kind} all all {address} trust\n"), Major::V15);
        for from in [local, plain, tls, gss] {
            let asked = Login {
                from,
                ..login("alice", "app")
            };
            assert_eq!(
                decided(&read, &asked, &Small) == Some(1),
                takes.contains(&from),
                "{kind} {from:?}"
            );
        }
    }
}

#[test]
fn addresses() {
    // address of the line, of the client, whether they meet
    let rows = [
        ("10.0.0.7/24", "10.0.0.1", true),
        ("10.0.0.7/24", "10.0.1.1", false),
        ("10.0.0.7 255.0.0.255", "10.9.9.7", true),
        ("::ffff:10.0.0.0/104", "10.0.0.1", false),
        ("0.0.0.0/0", "::1", false),
        ("all", "::1", true),
        ("samehost", "10.0.0.1", true),
        ("samehost", "10.0.0.2", false),
        ("samenet", "10.0.0.2", true),
        ("samenet", "10.0.1.2", false),
        // A mask of zeros is no mask.
        ("samenet", "10.7.0.1", true),
        ("samenet", "10.7.0.2", false),
        ("h5.example.com", "10.0.0.5", true),
        (".example.com", "10.0.0.5", true),
        ("example.com", "10.0.0.5", false),
        ("h6.example.com", "10.0.0.5", false),
        // The name does not lead back.
        (".example.com", "10.0.0.9", false),
        (".example.com", "192.0.2.1", false),
    ];
    for (address, client, meets) in rows {
        let read = hba(&format!("host all all {address} trust\n"), Major::V15);
        let asked = Login {
            from: tcp(client, Encryption::None),
            ..login("alice", "app")
        };
        assert_eq!(
            decided(&read, &asked, &Small),
            Some(usize::from(meets)),
            "{address} {client}"
        );
    }
}

/// A line that may match ends the search, unless something else about it does not.
#[test]
fn what_is_not_known_is_not_guessed() {
    let read = hba("local app +staff trust\nlocal all all reject\n", Major::V16);
    assert_eq!(decided(&read, &login("alice", "app"), &Nothing), None);
    assert_eq!(decided(&read, &login("alice", "other"), &Nothing), Some(2));
    for line in [
        "host all all samenet trust",
        "host all all name trust",
        "host all /(a)\\1 all trust",
    ] {
        let read = hba(&format!("{line}\nhost all all all reject\n"), Major::V16);
        let asked = Login {
            from: tcp("10.0.0.1", Encryption::None),
            ..login("alice", "app")
        };
        assert_eq!(decided(&read, &asked, &Nothing), None, "{line}");
    }
}

#[test]
fn maps() {
    // file, system user, role, number of the line on 15 and on 16; 0 for none
    let rows = [
        ("m alice a", "alice", "a", 1, 1),
        ("m alice a", "Alice", "a", 0, 0),
        ("M alice a", "alice", "a", 0, 0),
        ("\"m\" \"alice\" \"a\"", "alice", "a", 1, 1),
        ("m alice all", "alice", "a", 0, 1),
        ("m alice all", "alice", "all", 1, 1),
        ("m alice \"all\"", "alice", "a", 0, 0),
        ("m alice +staff", "alice", "alice", 0, 1),
        ("m alice +staff", "alice", "+staff", 1, 0),
        ("m alice /^al", "alice", "alice", 0, 1),
        ("m \"/\" a", "anyone", "a", 1, 1),
        ("m /^(.*)@x$ \\1", "bob@x", "bob", 1, 1),
        ("m /^(.*)@x$ \\1", "bob@y", "bob", 0, 0),
        ("m /^(.*)@x$ a\\1\\1", "b@x", "ab\\1", 1, 1),
        // What comes out is a name.
        ("m /^(.*)@x$ \\1", "all@x", "bob", 0, 0),
        ("m /^(.*)@x$ \"\\1\"", "bob@x", "bob", 1, 1),
        ("m bob \\1", "bob", "\\1", 1, 1),
        ("m x y\nm alice a\nm alice a", "alice", "a", 2, 2),
        ("m alice a more fields", "alice", "a", 1, 1),
    ];
    for (text, user, role, on_15, on_16) in rows {
        for (major, expected) in [(Major::V15, on_15), (Major::V16, on_16)] {
            let read = ident(text, major);
            assert!(read.errors.is_empty(), "{:?}", read.errors);
            let number = match read.admits(Some(b"m"), user.as_bytes(), role.as_bytes(), &Small) {
                Admission::Line(line) => line.at.number,
                Admission::NoLine => 0,
                other @ (Admission::ByName(_) | Admission::Broken(_) | Admission::Undecided { .. }) => {
                    panic!("{text} {user} {role}: {other:?}")
                }
            };
            assert_eq!(number, expected, "{text} {user} {role} {major:?}");
        }
    }
    // A part that is not marked refuses, and further lines are not asked.
    let broken = ident("m /a \\1\nm alice alice\n", Major::V16);
    assert!(matches!(
        broken.admits(Some(b"m"), b"alice", b"alice", &Small),
        Admission::Broken(_)
    ));
    // Which part is meant depends on the engine.
    let unclear = ident("m /(.*)b(.*) \\1\n", Major::V16);
    assert!(matches!(
        unclear.admits(Some(b"m"), b"abab", b"a", &Small),
        Admission::Undecided { .. }
    ));
    assert!(matches!(
        broken.admits(None, b"bob", b"bob", &Small),
        Admission::ByName(true)
    ));
    assert!(matches!(
        broken.admits(Some(b""), b"bob", b"alice", &Small),
        Admission::ByName(false)
    ));
}

#[test]
fn what_the_server_would_take_is_said() {
    assert_eq!(hba("local all all trust\n", Major::V15).loads(), Truth::Yes);
    assert!(matches!(
        hba("local all /(a)\\1 trust\n", Major::V16).loads(),
        Truth::Unknown(_)
    ));
}
