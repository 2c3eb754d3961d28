//! What rendered rules mean to a real server.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use pgfw::config::Config;
use pgfw::postgres::PostgresError;
use pgfw::postgres::wire::{self, Answer, Asked, Startup};
use pgfw_tests::scratch::managed::{Managed, log_in, log_in_plaintext, quoted, to};
use pgfw_tests::scratch::{Installed, PORT, add_address, on_each_major};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn refused(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused { sqlstate, message: _ } if sqlstate == "28000")
}

/// Names that are words of pg_hba.conf, or hold what separates them, mean the database and role of that name alone.
#[test]
fn p03_names_mean_themselves() {
    const NAMES: [&str; 18] = [
        "all",
        "replication",
        "sameuser",
        "samerole",
        "samehost",
        "samenet",
        "include",
        "+x",
        "@x",
        "/x",
        "a b",
        "a,b",
        "#",
        "a\"b",
        "\"",
        "it's",
        "back\\",
        "é",
    ];
    on_each_major(|server| each_means_itself(server, &NAMES));
}

fn each_means_itself(server: &Installed, names: &[&str]) {
    let managed = Managed::new(server.start());
    // Its rules have no token for that one; see p02.
    let names: Vec<&str> = names
        .iter()
        .filter(|name| server.major > 15 || !name.starts_with('/'))
        .copied()
        .collect();
    let identity = |(i, name): (usize, &&str)| {
        let name = quoted(name);
        format!("[[identity]]\nname = \"i{i}\"\nroles = [{name}]\ndatabases = [{name}]\n")
    };
    let sections: String = names.iter().enumerate().map(identity).collect();
    managed.apply(&managed.config("", &sections)).unwrap();

    for (i, own) in names.iter().enumerate() {
        let leaf = managed.clients.client(&format!("i{i}"), &[1, i as u8]);
        for (j, name) in names.iter().enumerate() {
            let answer = log_in(HERE, Some(&leaf), &to(name, name)).unwrap();
            assert_eq!(answer == Answer::Ok, i == j, "{:?} as {name:?}: {answer:?}", own);
        }
        for (user, database) in [("x", "x"), (own, "x"), ("x", own)] {
            let answer = log_in(HERE, Some(&leaf), &to(user, database)).unwrap();
            assert!(refused(&answer), "{:?} as {user:?} in {database:?}", own);
        }
        let physical = Startup {
            replication: true,
            ..to(own, own)
        };
        assert!(
            refused(&log_in(HERE, Some(&leaf), &physical).unwrap()),
            "{:?}",
            own
        );
    }
}

/// A name that begins with `/` is itself where the server has a token for it, and refused with the reason where not;
/// nothing of the server's is touched then.
#[test]
fn p02_a_leading_slash_is_itself_or_refused() {
    // It names a folder, too, and in pg_ident.conf it would be an expression on every major.
    for name in ["/", "/alice", "a/b"] {
        let text = format!("[[identity]]\nname = \"{name}\"\nroles = [\"alice\"]\n");
        let error = Config::parse(&text, Path::new("pgfw.toml")).unwrap_err();
        assert!(error.to_string().contains("identity.name"), "{error}");
    }
    on_each_major(|server| {
        let managed = Managed::new(server.start());
        let live = |name| fs::read(managed.scratch.data().join(name)).unwrap();
        let refuse = |sections: &str, name: &str| {
            let before = (live("pg_hba.conf"), live("pg_ident.conf"));
            let error = managed.apply(&managed.config("", sections)).unwrap_err();
            assert!(matches!(error, PostgresError::Hba(_)), "{error}");
            assert!(
                error.to_string().contains(&format!("`{name}` begins with `/`")),
                "{error}"
            );
            assert_eq!((live("pg_hba.conf"), live("pg_ident.conf")), before);
        };
        let slashed = [
            "[[identity]]\nname = \"alice\"\nroles = [\"/x.\"]\n",
            "[[identity]]\nname = \"alice\"\nroles = [\"alice\"]\ndatabases = [\"/x.\"]\n",
            "[[login]]\nname = \"batch\"\nmethod = \"scram-sha-256\"\nroles = [\"/x.\"]\nnetworks = [\"127.0.0.1/32\"]\n",
        ];
        if server.major == 15 {
            slashed.iter().for_each(|sections| refuse(sections, "/x."));
            return;
        }
        let alice = managed.clients.client("alice", &[1]);
        let others = ["x.", "/xy", "//x.", "/x", "/x.y", "y/x.", "alice"];
        managed.apply(&managed.config("", slashed[0])).unwrap();
        let role = |role| log_in(HERE, Some(&alice), &to(role, "app")).unwrap();
        assert_eq!(role("/x."), Answer::Ok);
        others
            .iter()
            .for_each(|other| assert!(refused(&role(other)), "{other}"));
        managed.apply(&managed.config("", slashed[1])).unwrap();
        let database = |database| log_in(HERE, Some(&alice), &to("alice", database)).unwrap();
        assert_eq!(database("/x."), Answer::Ok);
        others
            .iter()
            .for_each(|other| assert!(refused(&database(other)), "{other}"));
        managed.apply(&managed.config("", slashed[2])).unwrap();
        let batch = |role| log_in(HERE, None, &to(role, "app")).unwrap();
        assert_eq!(batch("/x."), Answer::Password(Asked::Sasl));
        others
            .iter()
            .for_each(|other| assert!(refused(&batch(other)), "{other}"));
    });
}

/// The server reads the same rules and maps with and without comments, ours and an administrator's; none goes over its
/// line's end.
#[test]
fn p04_comments_change_nothing() {
    let odd = "[[identity]]\nname = \"back\\\\\"\nroles = [\"back\\\\\", \"#\", \"# \\\\\"]\nreplication = true\n\
               [[login]]\nname = \"#\\\\\"\nmethod = \"scram-sha-256\"\nroles = [\"#\\\\\"]\nnetworks = [\"127.0.0.1/32\"]\n\
               plaintext = \"loopback\"\n";
    on_each_major(|server| {
        let managed = Managed::new(server.start());
        let own = "local = [\"local all all peer # by hand\"]\n";
        managed.apply(&managed.config(own, odd)).unwrap();
        let read = |view: &str| {
            // Lines that are left out move the others.
            managed.scratch.sql(&format!(
                "select (to_jsonb(r) - 'line_number') from {view} r order by line_number"
            ))
        };
        let views = ["pg_hba_file_rules", "pg_ident_file_mappings"];
        let with = views.map(read);
        let rules = managed
            .scratch
            .sql("select count(*) from pg_hba_file_rules where error is null");
        for name in ["pg_hba.conf", "pg_ident.conf"] {
            let live = managed.scratch.data().join(name);
            let text = fs::read_to_string(&live).unwrap();
            let comments = text.lines().filter(|line| line.starts_with('#'));
            assert!(comments.clone().count() > 0);
            assert!(!text.contains('\r'), "{text}");
            for comment in comments {
                assert!(!comment.ends_with('\\'), "{comment}");
            }
            let bare: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            if name == "pg_hba.conf" {
                assert_eq!(bare.len().to_string(), rules, "every line is a rule: {text}");
            }
            let bare = bare.join("\n").replace(" # by hand", "") + "\n";
            fs::write(&live, bare).unwrap();
        }
        assert_eq!(views.map(read), with);
        // What an administrator adds is one line as well, and cannot take the next one with it.
        for swallowing in [
            "local all all peer # \\\\",
            "local all all peer # a\\nlocal all all trust",
            "# \\\\",
        ] {
            let text =
                format!("[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nlocal = [\"{swallowing}\"]\n");
            assert!(
                Config::parse(&text, Path::new("pgfw.toml")).is_err(),
                "{swallowing}"
            );
        }
    });
}

/// Nobody declared, or nobody any more: who was let in before is refused.
#[test]
fn p05_nobody_declared_is_nobody_let_in() {
    on_each_major(|server| {
        let scratch = server.stopped();
        let hba = scratch.data().join("pg_hba.conf");
        let before = fs::read_to_string(&hba).unwrap();
        fs::write(
            &hba,
            format!("host all all all trust\nlocal all alice trust\n{before}"),
        )
        .unwrap();
        let mut managed = Managed::new(scratch);
        managed.scratch.run();
        assert_eq!(log_in_plaintext(HERE, &to("alice", "app")).unwrap(), Answer::Ok);
        assert_eq!(local(&managed, &to("alice", "app")), Answer::Ok);

        let leaf = managed.clients.client("alice", &[1]);
        let nobody = managed.config("", "");
        let nobody_gets_in = || {
            managed.apply(&nobody).unwrap();
            let physical = Startup {
                replication: true,
                ..to("alice", "app")
            };
            for startup in [to("alice", "app"), to("postgres", "postgres"), physical] {
                assert!(refused(&log_in_plaintext(HERE, &startup).unwrap()), "{startup:?}");
                assert!(refused(&log_in(HERE, None, &startup).unwrap()), "{startup:?}");
                assert!(
                    refused(&log_in(HERE, Some(&leaf), &startup).unwrap()),
                    "{startup:?}"
                );
            }
            assert!(refused(&local(&managed, &to("alice", "app"))));
            // By a line, and not for want of one: an empty file is no file to the server.
            let last =
                "select type || ' ' || auth_method from pg_hba_file_rules order by line_number desc limit 1";
            assert_eq!(managed.scratch.sql(last), "host reject");
        };
        nobody_gets_in();
        managed
            .apply(&managed.config("", "[[identity]]\nname = \"alice\"\n"))
            .unwrap();
        assert_eq!(
            log_in(HERE, Some(&leaf), &to("alice", "app")).unwrap(),
            Answer::Ok
        );
        nobody_gets_in();
    });
}

/// Through the Unix socket, as whoever runs this test.
fn local(managed: &Managed, startup: &Startup) -> Answer {
    let socket = managed.scratch.sockets().join(format!(".s.PGSQL.{PORT}"));
    wire::start_up(&mut wire::connect_unix(&socket).unwrap(), startup).unwrap()
}

/// Plaintext is for a login that asks for it, on loopback; everyone else's rules are for TLS.
#[test]
fn p06_plaintext_only_by_name_on_loopback() {
    on_each_major(|server| {
        let managed = Managed::new(server.start());
        add_address("10.0.0.1/32");
        add_address("fd00::1/128");
        let elsewhere: IpAddr = "10.0.0.1".parse().unwrap();
        let config = managed.config(
            "",
            "[[identity]]\nname = \"alice\"\nreplication = true\n\
             [[login]]\nname = \"batch\"\nmethod = \"scram-sha-256\"\nnetworks = [\"0.0.0.0/0\", \"::/0\"]\n\
             [[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\nnetworks = [\"0.0.0.0/0\", \"::/0\"]\n\
             plaintext = \"loopback\"\n",
        );
        managed.apply(&config).unwrap();
        let alice = managed.clients.client("alice", &[1]);
        let (here_v6, elsewhere_v6) = (IpAddr::V6(Ipv6Addr::LOCALHOST), "fd00::1".parse().unwrap());
        let sasl = Answer::Password(Asked::Sasl);
        // role, from, with TLS, without
        let rows = [
            ("alice", HERE, Answer::Ok, None),
            ("alice", here_v6, Answer::Ok, None),
            ("alice", elsewhere, Answer::Ok, None),
            ("batch", HERE, sasl.clone(), None),
            ("batch", here_v6, sasl.clone(), None),
            ("exporter", HERE, sasl.clone(), Some(sasl.clone())),
            ("exporter", here_v6, sasl.clone(), Some(sasl.clone())),
            ("exporter", elsewhere, sasl.clone(), None),
            ("exporter", elsewhere_v6, sasl, None),
        ];
        for (role, from, with, without) in rows {
            let leaf = (role == "alice").then_some(&alice);
            let tls = log_in(from, leaf, &to(role, "app")).unwrap();
            let plaintext = log_in_plaintext(from, &to(role, "app")).unwrap();
            assert_eq!(tls, with, "{role} from {from}");
            assert_eq!(
                (!refused(&plaintext)).then_some(plaintext),
                without,
                "{role} from {from}"
            );
        }
        let physical = Startup {
            replication: true,
            ..to("alice", "app")
        };
        assert_eq!(log_in(HERE, Some(&alice), &physical).unwrap(), Answer::Ok);
        assert!(refused(&log_in_plaintext(HERE, &physical).unwrap()));
        // What the file itself says: no line but a reject takes what is not encrypted, but for that login's.
        let open = "select string_agg(distinct user_name[1], ',') from pg_hba_file_rules \
                    where type in ('host', 'hostnossl', 'hostnogssenc', 'hostgssenc') and auth_method <> 'reject'";
        assert_eq!(managed.scratch.sql(open), "exporter");
        // No certificate, and one of another authority.
        assert!(!matches!(log_in(HERE, None, &to("alice", "app")), Ok(Answer::Ok)));
        let foreign = managed.servers.client("alice", &[2]);
        assert!(!matches!(
            log_in(HERE, Some(&foreign), &to("alice", "app")),
            Ok(Answer::Ok)
        ));
    });
}

/// Every database is not physical replication, nor the other way round; logical replication belongs to its database.
#[test]
fn p07_all_databases_is_not_replication() {
    on_each_major(|server| {
        let managed = Managed::new(server.start());
        let sections = "[[identity]]\nname = \"reader\"\n\
             [[identity]]\nname = \"standby\"\ndatabases = []\nreplication = true\n\
             [[identity]]\nname = \"both\"\nreplication = true\n\
             [[login]]\nname = \"old\"\nmethod = \"scram-sha-256\"\nnetworks = [\"127.0.0.1/32\"]\n\
             [[login]]\nname = \"stream\"\nmethod = \"scram-sha-256\"\nnetworks = [\"127.0.0.1/32\"]\n\
             databases = []\nreplication = true\n";
        managed.apply(&managed.config("", sections)).unwrap();
        // who, a database, one of that very name, physical replication
        let rows = [
            ("reader", true, false),
            ("standby", false, true),
            ("both", true, true),
            ("old", true, false),
            ("stream", false, true),
        ];
        for (n, (who, databases, replication)) in rows.into_iter().enumerate() {
            let leaf = managed.clients.client(who, &[1, n as u8]);
            let leaf = (n < 3).then_some(&leaf);
            let admitted = |startup: &Startup| {
                let answer = log_in(HERE, leaf, startup).unwrap();
                let in_or_asked = matches!(answer, Answer::Ok | Answer::Password(Asked::Sasl));
                assert!(in_or_asked || refused(&answer), "{who}: {answer:?}");
                in_or_asked
            };
            for database in ["app", "replication"] {
                assert_eq!(admitted(&to(who, database)), databases, "{who} in {database}");
            }
            let physical = Startup {
                replication: true,
                ..to(who, "app")
            };
            assert_eq!(admitted(&physical), replication, "{who}");
        }
    });
}

/// Maps are exact: a name that begins or ends like another is another, and so is one that says so itself.
#[test]
fn p09_maps_are_exact() {
    const NAMES: [&str; 10] = [
        "alice",
        "alice2",
        "Alice",
        "malice",
        "alic",
        "alice ",
        " alice",
        "CN=alice",
        "alice,O=x",
        "al.ce",
    ];
    on_each_major(|server| {
        let managed = Managed::new(server.start());
        let sections = "[[identity]]\nname = \"alice\"\n[[identity]]\nname = \"al.ce\"\nroles = [\"dot\"]\n";
        managed.apply(&managed.config("", sections)).unwrap();
        for (i, name) in NAMES.iter().enumerate() {
            let leaf = managed.clients.client(name, &[1, i as u8]);
            for (role, whose) in [("alice", "alice"), ("dot", "al.ce")] {
                let answer = log_in(HERE, Some(&leaf), &to(role, "app")).unwrap();
                assert_eq!(
                    answer == Answer::Ok,
                    *name == whose,
                    "{name:?} as {role}: {answer:?}"
                );
            }
        }
    });
}
