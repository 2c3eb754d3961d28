use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::postgres::hba::judge::{Attempt, Decision, From, Rules, To};
use crate::postgres::hba::{Input, render};

fn config(sections: &str) -> Config {
    let text = format!("[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nlocal = []\n{sections}");
    Config::parse(&text, Path::new("pgfw.toml")).unwrap()
}

fn identity(name: &str, roles: &str, databases: &str, networks: &str) -> String {
    let databases = if databases.is_empty() {
        String::new()
    } else {
        format!("databases = [{databases}]\n")
    };
    format!("[[identity]]\nname = \"{name}\"\nroles = [{roles}]\n{databases}networks = [{networks}]\n")
}

/// `databases role source: who`, one a line.
fn shown(cells: &[Cell]) -> Vec<String> {
    let show = |c: &Cell| {
        let databases = match &c.databases {
            Databases::All => "*".to_owned(),
            Databases::Replication => "replication".to_owned(),
            Databases::Named(n) => n.iter().cloned().collect::<Vec<_>>().join(","),
        };
        let who = match &c.admits {
            Admits::Certificates(n) => n.iter().cloned().collect::<Vec<_>>().join(","),
            Admits::Password { method, logins: _ } => format!("{method:?}"),
        };
        format!("{databases} {} {}: {who}", c.role, c.source)
    };
    cells.iter().map(show).collect()
}

// One shared map would let both reach both databases.
#[test]
fn p09_a_shared_role_keeps_databases_apart() {
    let c = config(&format!(
        "{}{}",
        identity("alice", "\"app\"", "\"a\"", "\"10.0.0.0/8\""),
        identity("bob", "\"app\"", "\"b\"", "\"10.0.0.0/8\""),
    ));
    assert_eq!(
        shown(&compile(&c).unwrap()),
        ["a app 10.0.0.0/8: alice", "b app 10.0.0.0/8: bob"]
    );
}

// One map per identity would lock out whoever stands second.
#[test]
fn p09_overlapping_networks_admit_both() {
    let c = config(&format!(
        "{}{}{}",
        identity("alice", "\"app\"", "", "\"10.0.0.0/8\""),
        identity("bob", "\"app\"", "", "\"10.1.0.0/16\", \"192.168.0.0/24\""),
        identity("carol", "\"app\"", "", ""),
    ));
    assert_eq!(
        shown(&compile(&c).unwrap()),
        [
            "* app 192.168.0.0/24: bob,carol",
            "* app 10.1.0.0/16: alice,bob,carol",
            "* app 10.0.0.0/8: alice,carol",
            "* app all: carol",
        ]
    );
}

#[test]
fn who_has_no_database_replicates_and_nothing_else() {
    let c = config(
        "[[identity]]\nname = \"standby\"\ndatabases = []\nreplication = true\nnetworks = [\"10.10.0.11/32\"]\n",
    );
    assert_eq!(
        shown(&compile(&c).unwrap()),
        ["replication standby 10.10.0.11/32: standby"]
    );
}

#[test]
fn a_named_database_also_holds_those_who_may_use_all() {
    let c = config(&format!(
        "{}{}",
        identity("alice", "\"app\"", "\"a\"", "\"10.1.0.0/16\""),
        identity("bob", "\"app\"", "", "\"10.0.0.0/8\""),
    ));
    assert_eq!(
        shown(&compile(&c).unwrap()),
        [
            "a app 10.1.0.0/16: alice,bob",
            "a app 10.0.0.0/8: bob",
            "* app 10.0.0.0/8: bob"
        ]
    );
}

#[test]
fn p07_all_databases_is_not_replication() {
    let c = config(&identity("alice", "\"app\"", "", "\"10.0.0.0/8\""));
    assert_eq!(shown(&compile(&c).unwrap()), ["* app 10.0.0.0/8: alice"]);
    let c = config(&format!(
        "{}replication = true\n",
        identity("alice", "\"app\"", "", "\"10.0.0.0/8\"")
    ));
    assert_eq!(
        shown(&compile(&c).unwrap()),
        ["* app 10.0.0.0/8: alice", "replication app 10.0.0.0/8: alice"]
    );
}

/// What would be read differently by the server never reaches a line; what is said twice is one line.
#[test]
fn p08_host_bits_and_mapped_networks_are_refused_duplicates_merged() {
    for network in ["10.1.2.3/8", "::ffff:10.0.0.0/104", "2001:db8::1/32"] {
        let text = identity("alice", "\"app\"", "", &format!("\"{network}\""));
        let error = Config::parse(&text, Path::new("pgfw.toml")).unwrap_err();
        assert!(error.to_string().contains(network), "{error}");
    }
    let nested = "\"10.0.0.0/8\", \"10.0.0.0/8\", \"10.1.0.0/16\"";
    let c = config(&identity("alice", "\"app\"", "", nested));
    assert_eq!(shown(&compile(&c).unwrap()), ["* app 10.0.0.0/8: alice"]);
}

#[test]
fn what_no_line_can_say_is_refused_with_its_key() {
    let login = |rest: &str| format!("[[login]]\nname = \"batch\"\nmethod = \"scram-sha-256\"\n{rest}");
    // sections, words of the refusal
    let rows = [
        (
            format!(
                "{}{}",
                identity("alice", "\"app\"", "", ""),
                login("roles = [\"app\"]\ndatabases = [\"a\"]\nnetworks = [\"10.0.0.0/8\"]\n")
            ),
            [
                "login `batch`",
                "identity `alice`",
                "database `a`",
                "10.0.0.0/8",
                "login.networks",
            ],
        ),
        (
            login("networks = []\n"),
            ["login `batch`", "no networks", "login.networks", "", ""],
        ),
        (
            login("networks = [\"10.0.0.0/8\"]\nplaintext = \"loopback\"\n"),
            ["login `batch`", "loopback", "login.plaintext", "", ""],
        ),
    ];
    for (sections, words) in rows {
        let message = compile(&config(&sections)).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message}: {word}");
        }
    }
    // Apart in databases, roles or networks, both stand.
    let c = config(&format!(
        "{}{}",
        identity("alice", "\"app\"", "", "\"10.1.0.0/16\""),
        login("roles = [\"app\"]\nnetworks = [\"10.2.0.0/16\"]\n")
    ));
    assert_eq!(compile(&c).unwrap().len(), 2);
}

// A straightforward reading of the config, to compare with.

const NAMES: [&str; 4] = ["all", "b", "/c", "+d"];
const NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "127.0.0.0/8",
    "0.0.0.0/0",
    "2001:db8::/32",
    "::/0",
];
const ADDRESSES: [&str; 7] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.9.0.1",
    "192.0.2.1",
    "127.0.0.1",
    "2001:db8::1",
    "fd00::1",
];

fn asks_for<'a>(
    roles: &[String],
    databases: &Option<Vec<String>>,
    replication: bool,
    attempt: &Attempt<'a>,
) -> bool {
    let database = match attempt.to {
        To::Database(name) => databases.as_ref().is_none_or(|all| all.iter().any(|d| d == name)),
        To::PhysicalReplication => replication,
    };
    database && roles.iter().any(|r| r == attempt.role)
}

fn identity_may(identity: &Identity, attempt: &Attempt, address: IpAddr, tls: bool) -> bool {
    let networks = &identity.networks;
    let here = identity.roaming || networks.is_empty() || networks.iter().any(|n| n.contains(&address));
    tls && here
        && asks_for(
            &identity.roles,
            &identity.databases,
            identity.replication,
            attempt,
        )
}

fn login_may(login: &Login, attempt: &Attempt, address: IpAddr, tls: bool) -> bool {
    let plain = matches!(login.plaintext, Plaintext::Loopback) && address.is_loopback();
    let here = login.networks.iter().any(|n| n.contains(&address));
    (tls || plain) && here && asks_for(&login.roles, &login.databases, login.replication, attempt)
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(NAMES.to_vec(), 1..=3)
        .prop_map(|v| v.into_iter().map(str::to_owned).collect())
}

fn networks(least: usize) -> impl Strategy<Value = Vec<IpNet>> {
    proptest::sample::subsequence(NETWORKS.to_vec(), least..=3)
        .prop_map(|v| v.into_iter().map(|n| n.parse().unwrap()).collect())
}

prop_compose! {
    fn any_identity()(
        roles in names(), databases in proptest::option::of(names()), replication: bool,
        networks in networks(0), roaming in proptest::bool::weighted(0.1),
    ) -> Identity {
        Identity { name: String::new(), roles, databases, replication, networks, roaming, ttl: None, kept_for: None, reload_unit: None }
    }
}

prop_compose! {
    fn any_login()(
        roles in names(), databases in proptest::option::of(names()), replication: bool,
        networks in networks(1), scram: bool, loopback: bool,
    ) -> Login {
        let method = if scram { Method::ScramSha256 } else { Method::Md5 };
        let plaintext = if loopback { Plaintext::Loopback } else { Plaintext::Never };
        Login { name: String::new(), method, roles, databases, replication, networks, plaintext }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The first matching rendered line gives every attempt the answer of the config, for every identity.
    #[test]
    fn p09_rules_say_what_the_config_says(
        identities in proptest::collection::vec(any_identity(), 0..5),
        logins in proptest::collection::vec(any_login(), 0..3),
        major in 15_u16..=18,
    ) {
        let mut config = config("");
        config.identities = identities;
        config.logins = logins;
        for (i, identity) in config.identities.iter_mut().enumerate() {
            identity.name = format!("i{i}");
        }
        for (i, login) in config.logins.iter_mut().enumerate() {
            login.name = format!("l{i}");
        }
        if major == 15 {
            // The rules of 15 have no token for these.
            let has_token = |name: &String| !name.starts_with('/');
            let identities = config.identities.iter_mut().map(|i| (&mut i.roles, &mut i.databases));
            for (roles, databases) in identities.chain(config.logins.iter_mut().map(|l| (&mut l.roles, &mut l.databases))) {
                roles.retain(has_token);
                databases.iter_mut().for_each(|names| names.retain(has_token));
            }
        }
        // A login that shares role, database and network with someone cannot be said; drop logins until it can.
        let cells = loop {
            match compile(&config) {
                Ok(cells) => break cells,
                Err(_) => { config.logins.pop().expect("identities alone can always be said"); }
            }
        };
        let files = render(&Input {
            cluster: &config.postgres[0],
            cells: &cells,
            major,
            operator: "root",
            owner: "postgres",
            superuser: "postgres",
            marker: "marker-0",
        }).unwrap();
        let rules = Rules::parse(&files.hba, &files.ident, major).unwrap();

        let databases = NAMES.iter().chain(["other"].iter()).map(|d| To::Database(d)).chain([To::PhysicalReplication]);
        for to in databases {
            for (role, address, tls) in NAMES.iter().flat_map(|r| {
                ADDRESSES.iter().flat_map(move |a| [(*r, *a, true), (*r, *a, false)])
            }) {
                let address: IpAddr = address.parse().unwrap();
                let attempt = Attempt { from: From::Tcp { address, tls }, to, role };
                for identity in &config.identities {
                    prop_assert_eq!(
                        rules.certificate_admitted(&attempt, &identity.name),
                        identity_may(identity, &attempt, address, tls),
                        "{} {:?}\n{}{}", identity.name, attempt, files.hba, files.ident
                    );
                }
                prop_assert!(!rules.certificate_admitted(&attempt, "i00"), "a stranger");
                let method = config.logins.iter().find(|l| login_may(l, &attempt, address, tls)).map(|l| match l.method {
                    Method::ScramSha256 => "scram-sha-256",
                    Method::Md5 => "md5",
                });
                let rendered = match rules.decide(&attempt) {
                    Decision::Line { number: _, method: m @ ("md5" | "scram-sha-256"), map: _ } => Some(m),
                    Decision::Line { .. } | Decision::None => None,
                    Decision::Undecided { number } => panic!("line {number}"),
                };
                prop_assert_eq!(rendered, method, "{:?}\n{}", attempt, files.hba);
            }
        }
    }
}
