//! Names are hostile: each token that pgfw renders means exactly its name, to real servers and to pgfw-hba alike.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgfw::postgres::hba::quote;
use pgfw::postgres::tls::{self, Version};
use pgfw::postgres::wire::{self, Answer, Startup};
use pgfw_hba::{Admission, Decision, Disk, From, Hba, Ident, Login, Major, Nothing, Server};
use pgfw_tests::scratch::managed::{at, credential, to};
use pgfw_tests::scratch::pki::{Authority, Leaf};
use pgfw_tests::scratch::{PORT, Scratch, on_each_major, seed, until, write};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Any name that pgfw.toml takes (1 to 63 bytes, no NUL, no line break), and most often of what means something.
fn name() -> impl Strategy<Value = String> {
    let words = [
        "all",
        "replication",
        "sameuser",
        "samerole",
        "samegroup",
        "samehost",
        "samenet",
        "include",
        "include_dir",
        "local",
        "host",
        "+staff",
        "@names",
        "/",
        "/.*",
        "/^a$",
        "/all",
        "\\1",
        "\"",
        "\"\"",
        "#",
        ",",
        "a\\",
        "\u{b}",
        "\t",
        " ",
        "%",
        "$",
        "''",
    ];
    let fits = |name: &String| !name.is_empty() && name.len() <= 63;
    prop_oneof![
        3 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        3 => "[ab/+@,#\"' \\\\.*^$(){}|\\[\\]?=!<>:~&%\u{1}\t\u{7f}é\u{1f600}-]{1,8}",
        2 => "/[a-c.*+?(){}\\[\\]|^$\\\\ \"#,é]{0,8}",
        2 => "[^\u{0}\n\r]{1,20}",
        1 => "[!-~]{63}",
    ]
    .prop_filter("1 to 63 bytes", fits)
}

/// Names that are nearly that one.
fn neighbours(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut all = vec![
        format!("{name}x"),
        format!("x{name}"),
        format!("/{name}"),
        format!("+{name}"),
        name.to_uppercase(),
        name.to_lowercase(),
        name.replace('\\', ""),
        name.replace('"', ""),
        name.trim_start_matches('/').to_owned(),
        name.trim().to_owned(),
        "alice".to_owned(),
        "a".to_owned(),
    ];
    if chars.len() > 1 {
        all.push(chars[1..].iter().collect());
        all.push(chars[..chars.len() - 1].iter().collect());
    }
    // The server cuts what is longer, and takes no empty role.
    all.retain(|other| !other.is_empty() && other.len() <= 63);
    all
}

struct Real {
    scratch: Scratch,
    server: Server,
    clients: Authority,
}

impl Real {
    fn start(major: Major, programs: &Path) -> Real {
        let mut scratch = Scratch::of(programs);
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let own = authority.server("db.example.com", &[1]);
        let user = pgfw_tests::scratch::postgres();
        for (name, text) in [
            ("server.crt", &own.certificate),
            ("server.key", &own.key),
            ("ca.crt", &clients.certificate),
        ] {
            let path = scratch.data().join(name);
            write(&path, text);
            std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        scratch
            .configure("ssl = on\nssl_ca_file = 'ca.crt'\nmax_connections = 200\nlog_min_messages = panic\n");
        scratch.run();
        Real {
            scratch,
            server: Server::of(major),
            clients,
        }
    }

    /// Puts rules in force behind a marker of the round's, and reads them back.
    fn load(&self, round: usize, hba: &str, ident: &str) -> (Hba, Ident) {
        let data = self.scratch.data();
        let (hba_file, ident_file) = (data.join("pg_hba.conf"), data.join("pg_ident.conf"));
        let role = format!("round-{round}");
        let text = format!(
            "local \"the marker\" all peer map=marker\nlocal \"the marker\" all reject\n{hba}\
             local all all reject\nhost all all all reject\n"
        );
        write(&hba_file, &text);
        write(&ident_file, &format!("{ident}marker root {role}\n"));
        let pid = fs::read_to_string(data.join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
        until(&format!("the server takes\n{text}\n{ident}"), || {
            self.local(&role, "the marker") == Answer::Ok
        });
        let read = (
            Hba::read(&hba_file, &Disk, &self.server),
            Ident::read(&ident_file, &Disk, &self.server),
        );
        assert!(
            read.0.errors.is_empty() && read.0.doubts.is_empty(),
            "{:?}",
            read.0
        );
        assert!(
            read.1.errors.is_empty() && read.1.doubts.is_empty(),
            "{:?}",
            read.1
        );
        read
    }

    fn local(&self, user: &str, database: &str) -> Answer {
        let path = self.scratch.sockets().join(format!(".s.PGSQL.{PORT}"));
        wire::start_up(&mut wire::connect_unix(&path).unwrap(), &to(user, database)).unwrap()
    }

    fn tls(&self, leaf: &Leaf, startup: &Startup) -> Answer {
        let mut session = tls::connect(
            at("127.0.0.1".parse().unwrap()),
            Some(credential(leaf)),
            Version::V1_3,
        )
        .unwrap();
        session.start_up(startup).unwrap()
    }
}

fn draw(runner: &mut TestRunner, many: usize) -> Vec<String> {
    (0..many)
        .map(|_| name().new_tree(runner).unwrap().current())
        .collect()
}

fn on_each_server(test: impl Fn(&Real, &mut TestRunner, &str) + Sync) {
    let seed = seed();
    on_each_major(|server| {
        let major = Major::of(server.major).unwrap();
        let context = format!("PostgreSQL {}, PGFW_SEED={seed}", server.major);
        let bytes: [u8; 32] = std::array::from_fn(|n| seed.to_le_bytes()[n % 8]);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        test(&Real::start(major, &server.programs), &mut runner, &context);
    });
}

/// Of names, each with rules of its own.
fn batches() -> usize {
    match std::env::var_os("PGFW_LONG") {
        Some(_) => 200,
        None => 12,
    }
}

const NAMES: usize = 8;

#[test]
fn p01_p02_p03_a_rendered_name_is_that_name_and_no_other() {
    on_each_server(|real, runner, context| {
        let major = real.server.major.number();
        for round in 0..batches() {
            let mut pairs: Vec<(String, String)> = Vec::new();
            let mut rules = String::new();
            for (database, role) in draw(runner, NAMES).into_iter().zip(draw(runner, NAMES)) {
                let tokens = quote::name(&database, major).zip(quote::name(&role, major));
                let Some((in_database, as_role)) = tokens else {
                    let refused = major == 15 && (database.starts_with('/') || role.starts_with('/'));
                    assert!(refused, "{context}: {database:?}, {role:?}");
                    continue;
                };
                rules.push_str(&format!("local {in_database} {as_role} trust\n"));
                pairs.push((database, role));
            }
            let (hba, _) = real.load(round, &rules, "");
            let mut let_in = 0;
            for (database, role) in &pairs {
                let near = neighbours(database)
                    .into_iter()
                    .map(|other| (other, role.clone()));
                let nearer = neighbours(role)
                    .into_iter()
                    .map(|other| (database.clone(), other));
                for (database, role) in std::iter::once((database.clone(), role.clone()))
                    .chain(near)
                    .chain(nearer)
                {
                    let expected = pairs.iter().any(|pair| *pair == (database.clone(), role.clone()));
                    let answer = real.local(&role, &database);
                    let shown = format!("{context}: {role:?} in {database:?}\n{rules}");
                    assert_eq!(answer == Answer::Ok, expected, "{answer:?}: {shown}");
                    let login = Login {
                        from: From::Local,
                        database: database.as_bytes(),
                        role: role.as_bytes(),
                        replication: false,
                    };
                    let Decision::Line(line) = hba.decide(&login, &Nothing) else {
                        panic!("{shown}")
                    };
                    assert_eq!(line.method.name() == "trust", expected, "{shown}");
                    let_in += usize::from(expected);
                }
            }
            assert!(let_in >= pairs.len(), "{context}");
        }
    });
}

/// Every character of one byte that a name may hold, and some of more: alone, in a word, after a slash.
#[test]
fn p01_p02_p03_every_character_stands_for_itself() {
    let chars = (1_u8..0x80).map(char::from).filter(|c| !['\n', '\r'].contains(c));
    let chars: Vec<char> = chars
        .chain(['\u{80}', '\u{a0}', 'ß', 'ſ', '€', '\u{2028}', '\u{1f600}'])
        .collect();
    on_each_server(|real, _, context| {
        let major = real.server.major.number();
        for (round, shape) in ["@", "a@b", "/@"].into_iter().enumerate() {
            let names: Vec<String> = chars.iter().map(|c| shape.replace('@', &c.to_string())).collect();
            let tokens: Vec<Option<String>> = names.iter().map(|name| quote::name(name, major)).collect();
            assert!(!tokens.contains(&Some("\"/\"".to_owned())));
            let rules: String = tokens
                .iter()
                .flatten()
                .map(|t| format!("local {t} {t} trust\n"))
                .collect();
            let users = names.iter().map(|name| quote::system_user(name)).enumerate();
            let maps: String = users
                .filter_map(|(n, token)| Some(format!("m {} role-{n}\n", token?)))
                .collect();
            let rules = format!("{rules}hostssl all all all cert map=m\n");
            let (hba, ident) = real.load(round, &rules, &maps);
            for (n, (name, token)) in names.iter().zip(&tokens).enumerate() {
                assert_eq!(
                    token.is_none(),
                    major == 15 && name.starts_with('/'),
                    "{context}: {name:?}"
                );
                let next = &names[(n + 1) % names.len()];
                let without = shape.replace('@', "");
                for (database, role) in [
                    (name, name),
                    (name, next),
                    (next, name),
                    (name, &without),
                    (&without, name),
                ] {
                    if database.is_empty() || role.is_empty() {
                        continue;
                    }
                    let expected = token.is_some() && database == role;
                    let answer = real.local(role, database);
                    assert_eq!(
                        answer == Answer::Ok,
                        expected,
                        "{context}: {role:?} in {database:?}: {answer:?}"
                    );
                    let login = Login {
                        from: From::Local,
                        database: database.as_bytes(),
                        role: role.as_bytes(),
                        replication: false,
                    };
                    let Decision::Line(line) = hba.decide(&login, &Nothing) else {
                        panic!("{context}: {role:?} in {database:?}")
                    };
                    assert_eq!(
                        line.method.name() == "trust",
                        expected,
                        "{context}: {role:?} in {database:?}"
                    );
                }
                // With a certificate of that name, as its role and as the next one's.
                let leaf = (shape == "@").then(|| real.clients.client(name, &[2, n as u8]));
                for (role, expected) in [(n, !name.starts_with('/')), (n + 1, false)] {
                    let role = format!("role-{role}");
                    let ours = ident.admits(Some(b"m"), name.as_bytes(), role.as_bytes(), &Nothing);
                    assert_eq!(
                        matches!(ours, Admission::Line(_)),
                        expected,
                        "{context}: {name:?} as {role}"
                    );
                    if let Some(leaf) = &leaf {
                        let answer = real.tls(leaf, &to(&role, "app"));
                        assert_eq!(
                            answer == Answer::Ok,
                            expected,
                            "{context}: {name:?} as {role}: {answer:?}"
                        );
                    }
                }
            }
        }
    });
}

/// In pg_ident.conf a name that begins with `/` has no token as system user, and every other token means its name.
#[test]
fn p01_p02_a_rendered_identity_is_that_identity_and_no_other() {
    on_each_server(|real, runner, context| {
        let major = real.server.major.number();
        for round in 0..batches() / 2 {
            let mut rows = Vec::new();
            let mut maps = String::new();
            for (user, role) in draw(runner, NAMES).into_iter().zip(draw(runner, NAMES)) {
                match (quote::system_user(&user), quote::name(&role, major)) {
                    (Some(user), Some(role)) => maps.push_str(&format!("m {user} {role}\n")),
                    (None, _) => assert!(user.starts_with('/'), "{context}: {user:?} is refused"),
                    (_, None) => assert!(role.starts_with('/') && major == 15, "{context}: {role:?}"),
                }
                rows.push((user, role));
            }
            let (_, ident) = real.load(round, "hostssl all all all cert map=m\n", &maps);
            for (number, (user, role)) in rows.iter().enumerate() {
                let near = neighbours(user).into_iter().take(3);
                for (nth, user) in std::iter::once(user.clone()).chain(near).enumerate() {
                    let leaf = real
                        .clients
                        .client(&user, &[1, round as u8, number as u8, nth as u8]);
                    let roles = neighbours(role).into_iter().take(3);
                    for role in std::iter::once(role.clone()).chain(roles) {
                        let meant = |row: &(String, String)| {
                            let has_tokens =
                                !row.0.starts_with('/') && (major > 15 || !row.1.starts_with('/'));
                            has_tokens && *row == (user.clone(), role.clone())
                        };
                        let expected = rows.iter().any(meant);
                        let answer = real.tls(&leaf, &to(&role, "app"));
                        let shown = format!("{context}: {user:?} as {role:?}\n{maps}");
                        assert_eq!(answer == Answer::Ok, expected, "{answer:?}: {shown}");
                        let ours = ident.admits(Some(b"m"), user.as_bytes(), role.as_bytes(), &Nothing);
                        assert_eq!(matches!(ours, Admission::Line(_)), expected, "{shown}");
                    }
                }
            }
        }
    });
}
