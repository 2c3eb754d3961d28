//! Identities that share roles, databases and networks: a real server answers each as the configuration reads.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::net::IpAddr;

use pgfw::config::Config;
use pgfw::postgres::wire::{Answer, Startup};
use pgfw_tests::scratch::managed::{Managed, log_in};
use pgfw_tests::scratch::pki::Leaf;
use pgfw_tests::scratch::{add_address, on_each_major};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

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
    on_each_major(|server| {
        let managed = Managed::new(server.start());
        for address in ADDRESSES {
            add_address(&format!("{address}/32"));
        }
        let leaves: Vec<_> = (0..3)
            .map(|i| managed.clients.client(&format!("i{i}"), &[1, i]))
            .collect();
        let mut runner = TestRunner::default();
        for _ in 0..3 {
            let sections = sections().new_tree(&mut runner).unwrap().current();
            let config = managed.config("", &sections);
            managed.apply(&config).unwrap();
            compare(&config, &leaves, &sections);
        }
        // Overlapping networks of one role: each gets in where it may, and nowhere else.
        let overlapping = "[[identity]]\nname = \"i0\"\nroles = [\"app\"]\nnetworks = [\"10.0.0.0/8\"]\ndatabases = [\"a\"]\n\
             [[identity]]\nname = \"i1\"\nroles = [\"app\"]\nnetworks = [\"10.1.0.0/16\"]\n\
             [[identity]]\nname = \"i2\"\nroles = [\"app\", \"ops\"]\nnetworks = [\"10.1.2.0/24\", \"192.168.7.0/24\"]\n\
             databases = [\"a\", \"b\"]\nreplication = true\n";
        let config = managed.config("", overlapping);
        managed.apply(&config).unwrap();
        let admitted = compare(&config, &leaves, overlapping);
        assert_eq!(admitted, 3 + 2 * 3 + 2 * 2 * 3);
    });
}

/// Every certificate, from every address, as every role: how many get in.
fn compare(config: &Config, leaves: &[Leaf], sections: &str) -> usize {
    let mut admitted = 0;
    for (i, leaf) in leaves.iter().enumerate() {
        for address in ADDRESSES {
            let address = address.parse().unwrap();
            for user in ROLES {
                for (database, replication) in [("a", false), ("b", false), ("other", false), ("a", true)] {
                    let startup = Startup {
                        user,
                        database,
                        replication,
                    };
                    let answer = log_in(address, Some(leaf), &startup).unwrap();
                    let may = may(config, &format!("i{i}"), address, &startup);
                    assert_eq!(
                        answer == Answer::Ok,
                        may,
                        "i{i} from {address}: {startup:?}\n{sections}"
                    );
                    admitted += usize::from(may);
                }
            }
        }
    }
    admitted
}
