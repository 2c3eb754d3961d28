//! What rendered rules mean to a real server.

use std::fs;
use std::net::IpAddr;

use pgfw::config::Config;
use pgfw::postgres::wire::{Answer, Asked, Startup};
use pgfw_tests::scratch::managed::{Managed, log_in, log_in_plaintext, quoted, to};
use pgfw_tests::scratch::{Scratch, add_address};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

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
    let managed = Managed::new(Scratch::start());
    let identity = |(i, name): (usize, &&str)| {
        let name = quoted(name);
        format!("[[identity]]\nname = \"i{i}\"\nroles = [{name}]\ndatabases = [{name}]\n")
    };
    let sections: String = NAMES.iter().enumerate().map(identity).collect();
    managed.apply(&managed.config("", &sections)).unwrap();

    for (i, own) in NAMES.iter().enumerate() {
        let leaf = managed.clients.client(&format!("i{i}"), &[1, i as u8]);
        for (j, name) in NAMES.iter().enumerate() {
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

/// The server reads the same rules with and without our comments.
#[test]
fn p04_comments_change_nothing() {
    let managed = Managed::new(Scratch::start());
    let odd = "[[identity]]\nname = \"back\\\\\"\nroles = [\"back\\\\\", \"#\"]\n";
    managed.apply(&managed.config("", odd)).unwrap();
    let rules = || {
        managed.scratch.sql(
            "select type, database, user_name, address, netmask, auth_method, options, error from pg_hba_file_rules \
             order by line_number",
        )
    };
    let with = rules();
    let live = managed.scratch.data().join("pg_hba.conf");
    let text = fs::read_to_string(&live).unwrap();
    let bare: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert!(bare.len() < text.lines().count(), "there are comments");
    fs::write(&live, bare.join("\n") + "\n").unwrap();
    assert_eq!(rules(), with);
}

/// Nobody declared: who was let in before is refused.
#[test]
fn p05_nobody_declared_is_nobody_let_in() {
    let scratch = Scratch::stopped();
    let hba = scratch.data().join("pg_hba.conf");
    let before = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("host all all all trust\n{before}")).unwrap();
    let mut managed = Managed::new(scratch);
    managed.scratch.run();
    assert_eq!(log_in_plaintext(HERE, &to("alice", "app")).unwrap(), Answer::Ok);

    managed.apply(&managed.config("", "")).unwrap();
    assert!(refused(&log_in_plaintext(HERE, &to("alice", "app")).unwrap()));
    let leaf = managed.clients.client("alice", &[1]);
    assert!(refused(&log_in(HERE, Some(&leaf), &to("alice", "app")).unwrap()));
}

/// Plaintext is for a login that asks for it, on loopback; everyone else's rules are for TLS.
#[test]
fn p06_plaintext_only_by_name_on_loopback() {
    let managed = Managed::new(Scratch::start());
    add_address("10.0.0.1/32");
    let elsewhere: IpAddr = "10.0.0.1".parse().unwrap();
    let config = managed.config(
        "",
        "[[identity]]\nname = \"alice\"\n\
         [[login]]\nname = \"batch\"\nmethod = \"scram-sha-256\"\nnetworks = [\"0.0.0.0/0\"]\n\
         [[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\nnetworks = [\"0.0.0.0/0\"]\nplaintext = \"loopback\"\n",
    );
    managed.apply(&config).unwrap();
    let alice = managed.clients.client("alice", &[1]);
    let sasl = Answer::Password(Asked::Sasl);
    // role, from, with TLS, without
    let rows = [
        ("alice", HERE, Some(Answer::Ok), None),
        ("alice", elsewhere, Some(Answer::Ok), None),
        ("batch", HERE, Some(sasl.clone()), None),
        ("exporter", HERE, Some(sasl.clone()), Some(sasl.clone())),
        ("exporter", elsewhere, Some(sasl), None),
    ];
    for (role, from, with, without) in rows {
        let leaf = (role == "alice").then_some(&alice);
        let tls = log_in(from, leaf, &to(role, "app")).unwrap();
        let plaintext = log_in_plaintext(from, &to(role, "app")).unwrap();
        assert_eq!((!refused(&tls)).then_some(tls), with, "{role} from {from}");
        assert_eq!(
            (!refused(&plaintext)).then_some(plaintext),
            without,
            "{role} from {from}"
        );
    }
    // No certificate, and one of another authority.
    assert!(!matches!(log_in(HERE, None, &to("alice", "app")), Ok(Answer::Ok)));
    let foreign = managed.servers.client("alice", &[2]);
    assert!(!matches!(
        log_in(HERE, Some(&foreign), &to("alice", "app")),
        Ok(Answer::Ok)
    ));
}

/// Maps are exact: a name that begins or ends like another is another.
#[test]
fn p09_maps_are_exact() {
    let managed = Managed::new(Scratch::start());
    managed
        .apply(&managed.config("", "[[identity]]\nname = \"alice\"\n"))
        .unwrap();
    for (i, name) in ["alice", "alice2", "Alice", "malice", "alic", "alice "]
        .iter()
        .enumerate()
    {
        let leaf = managed.clients.client(name, &[1, i as u8]);
        let answer = log_in(HERE, Some(&leaf), &to("alice", "app")).unwrap();
        assert_eq!(answer == Answer::Ok, *name == "alice", "{name:?}: {answer:?}");
    }
}

const ROLES: [&str; 2] = ["app", "ops"];
const DATABASES: [&str; 2] = ["a", "b"];
const NETWORKS: [&str; 5] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "192.168.7.0/24",
    "0.0.0.0/0",
];
const ADDRESSES: [&str; 4] = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.168.7.7"];

/// Three identities over few roles, databases and networks, so that they overlap.
fn sections() -> impl Strategy<Value = String> {
    let some = |of: &[&'static str]| proptest::sample::subsequence(of.to_vec(), 1..of.len());
    let one = (
        some(&ROLES),
        proptest::option::of(some(&DATABASES)),
        proptest::sample::subsequence(NETWORKS.to_vec(), 0..=2),
        any::<bool>(),
    );
    proptest::collection::vec(one, 3).prop_map(|all| {
        let section = |(i, (roles, databases, networks, replication)): (usize, _)| {
            let databases: Option<Vec<&str>> = databases;
            let databases = databases.map_or_else(String::new, |d| format!("databases = {d:?}\n"));
            let (roles, networks): (Vec<&str>, Vec<&str>) = (roles, networks);
            format!(
                "[[identity]]\nname = \"i{i}\"\nroles = {roles:?}\nnetworks = {networks:?}\nreplication = {replication}\n{databases}"
            )
        };
        all.into_iter().enumerate().map(section).collect()
    })
}

fn may(config: &Config, identity: &str, address: IpAddr, startup: &Startup) -> bool {
    let i = config.identity(identity).expect("an identity of the test");
    let here = i.networks.is_empty() || i.networks.iter().any(|n| n.contains(&address));
    let database = match startup.replication {
        true => i.replication,
        false => i
            .databases
            .as_ref()
            .is_none_or(|d| d.iter().any(|d| d == startup.database)),
    };
    here && database && i.roles.iter().any(|r| r == startup.user)
}

/// A real server answers as a straightforward reading of the configuration does.
#[test]
fn p09_the_server_answers_as_the_config_reads() {
    let managed = Managed::new(Scratch::start());
    for address in ADDRESSES {
        add_address(&format!("{address}/32"));
    }
    let leaves: Vec<_> = (0..3)
        .map(|i| managed.clients.client(&format!("i{i}"), &[1, i]))
        .collect();
    let mut runner = TestRunner::default();
    for _ in 0..6 {
        let sections = sections().new_tree(&mut runner).unwrap().current();
        let config = managed.config("", &sections);
        managed.apply(&config).unwrap();
        let (mut yes, mut no) = (0, 0);
        for (i, leaf) in leaves.iter().enumerate() {
            for address in ADDRESSES {
                let address = address.parse().unwrap();
                for user in ROLES {
                    for (database, replication) in [("a", false), ("b", false), ("other", false), ("a", true)]
                    {
                        let startup = Startup {
                            user,
                            database,
                            replication,
                        };
                        let answer = log_in(address, Some(leaf), &startup).unwrap();
                        let may = may(&config, &format!("i{i}"), address, &startup);
                        assert_eq!(
                            answer == Answer::Ok,
                            may,
                            "i{i} from {address}: {startup:?}\n{sections}"
                        );
                        *(if may { &mut yes } else { &mut no }) += 1;
                    }
                }
            }
        }
        assert_eq!(yes + no, 96);
    }
}
