//! A revocation on a server with a thousand connections.

use std::net::SocketAddr;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pgfw::postgres::tls::{self, Credential, Version};
use pgfw::postgres::wire::{Answer, Startup};
use pgfw_tests::lab::{PgCluster, Site, address};

use super::stage::{Leaf, Stage};

/// Connections that have logged in, or have shaken hands and wait.
fn connections(stage: &Stage<'_>, leaf: &Leaf, user: &str, count: usize, log_in: bool) -> Vec<tls::Session> {
    let (certificate, key) = (leaf.pem("postgresql.crt"), leaf.pem("postgresql.key"));
    let to = SocketAddr::new(address::DB, PgCluster::PORT);
    let startup = Startup {
        user,
        database: "app",
        replication: false,
    };
    let one = || {
        let credential = Credential {
            certificate: &certificate,
            key: &key,
        };
        let mut session = tls::connect(to, Some(credential), Version::V1_2).unwrap();
        if log_in {
            assert_eq!(session.start_up(&startup).unwrap(), Answer::Ok);
        }
        session
    };
    stage.site.client.within(|| (0..count).map(|_| one()).collect())
}

fn sessions(stage: &Stage<'_>, leaf: &Leaf) -> String {
    let serial = u128::from_str_radix(leaf.serial(), 16).unwrap();
    let sql = format!("select count(*) from pg_stat_ssl where client_serial = {serial}");
    stage.cluster.sql(&sql)
}

#[test]
fn p31_a_thousand_connections_and_exactly_those_of_the_revoked_end() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(4_096), most).unwrap();
    let site = Site::new();
    let keys = "min_tls = \"1.2\"\nallow = [\"10.20.0.0/16\"]\naudit = { connections = false }";
    let mut stage = Stage::with(&site, keys, "");
    stage.cluster.sql("alter system set max_connections = 1200");
    stage.cluster.restart();
    let _daemon = stage.enforce();
    let (lost, kept) = (stage.issue("alice", &[]), stage.issue("alice", &[]));
    let bob = stage.issue("bob", &[]);
    let ended = connections(&stage, &lost, "alice", 600, true);
    let going_on = [
        connections(&stage, &kept, "alice", 300, true),
        connections(&stage, &bob, "bob", 80, true),
    ];
    let waiting = connections(&stage, &lost, "alice", 20, false);
    assert_eq!(sessions(&stage, &lost), "600");

    let begun = Instant::now();
    let told = stage.revoke(lost.serial());
    let took = begun.elapsed();
    assert_eq!(told["unfinished"].to_string(), "[]", "{told}");
    let layers = told["layers"].as_array().unwrap();
    let names: Vec<_> = layers.iter().filter_map(|l| l["name"].as_str()).collect();
    assert_eq!(names, ["certificates", "packets", "sessions"]);
    let sum: u64 = layers.iter().filter_map(|l| l["milliseconds"].as_u64()).sum();
    assert!(
        0 < sum && u128::from(sum) <= took.as_millis(),
        "{sum} of {took:?}"
    );
    assert_eq!(layers[2]["what"], "620 connection(s) ended", "{told}");
    println!("a revocation among 1,000 connections: {told} in {took:?}");

    assert_eq!(sessions(&stage, &lost), "0");
    assert_eq!(sessions(&stage, &kept), "300");
    assert_eq!(sessions(&stage, &bob), "80");
    let startup = super::revocation::ALICE;
    for mut session in waiting {
        assert!(session.start_up(&startup).is_err());
    }
    drop((ended, going_on));
}
