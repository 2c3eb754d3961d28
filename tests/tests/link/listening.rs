//! `pgfw pg verify` about the addresses that a server listens on: what pgfw.toml says, what is there, whom they reach.

use pgfw_tests::lab::Site;

use super::rules::finds;
use super::stage::{Stage, on_host};

/// alice of the client's network, over both families, and a program of this host.
fn config(stage: &Stage, addresses: &str, networks: &str) -> String {
    format!(
        "[firewall]\ninterfaces = [\"eth0\"]\n\n[[postgres]]\nname = \"main\"\ncluster = \"{}\"\n\
         server_names = [\"db.example.com\", \"10.10.0.10\"]\nlisten_addresses = [{addresses}]\n\n\
         [[identity]]\nname = \"alice\"\ndatabases = [\"app\"]\nnetworks = [{networks}]\n\n\
         [[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\ndatabases = [\"postgres\"]\n\
         networks = [\"127.0.0.1/32\"]\nplaintext = \"loopback\"\n",
        stage.cluster.name()
    )
}

#[test]
fn verify_compares_listen_addresses_with_config_rules_and_filter() {
    let site = Site::new();
    let mut stage = Stage::new(&site);
    stage.cluster.sql("create role exporter login");
    stage.issue("alice", &[]);
    let here = "\"10.20.0.0/16\"";
    let settle = |stage: &mut Stage, addresses: &str, networks: &str| {
        stage.pgfw.configure(&config(stage, addresses, networks));
        stage.pgfw.ok(&["pg", "apply"]);
        stage.cluster.restart();
    };
    settle(&mut stage, "\"*\"", here);
    let _daemon = stage.enforce();
    finds(&stage, &[], &[]);

    // Said, and not so until the restart.
    stage
        .pgfw
        .configure(&config(&stage, "\"10.10.0.10\", \"127.0.0.1\"", here));
    stage.pgfw.ok(&["pg", "apply"]);
    finds(
        &stage,
        &["listening"],
        &[
            "the server listens on 0.0.0.0 (every IPv4 address), and listen_addresses of pgfw.toml is 10.10.0.10, 127.0.0.1.",
            "the server listens on :: (every IPv6 address), and",
        ],
    );
    stage.cluster.restart();
    finds(&stage, &[], &[]);

    // Fewer than are said: one that is not there, taken up at no reload.
    settle(&mut stage, "\"10.10.0.10\", \"127.0.0.1\", \"10.10.0.99\"", here);
    let gone = "does not listen on 10.10.0.99, which pgfw.toml says; this host has no such address now";
    finds(&stage, &["listening"], &[gone]);
    site.db.ip("address add 10.10.0.99/16 dev eth0");
    finds(
        &stage,
        &["listening"],
        &[
            "does not listen on 10.10.0.99, which pgfw.toml says; a change counts from the server's next restart on",
        ],
    );
    stage.cluster.restart();
    finds(&stage, &[], &[]);
    site.db.ip("address delete 10.10.0.99/16 dev eth0");
    stage.cluster.stop();
    finds(&stage, &["listening"], &["would not listen on 10.10.0.99"]);
    stage.cluster.start();

    // Nobody of this host comes from 127.0.0.1 to any other address of it.
    settle(&mut stage, "\"10.10.0.10\"", here);
    finds(
        &stage,
        &["no_listener"],
        &[
            "127.0.0.1/32 scram-sha-256",
            "nobody reaches what the server listens on from its addresses: 10.10.0.10.",
        ],
    );
    // Nobody of another host comes to a loopback address.
    settle(&mut stage, "\"127.0.0.1\"", here);
    finds(
        &stage,
        &["no_listener"],
        &[
            "the filter admits 10.20.0.0/16, and nobody reaches",
            "10.20.0.0/16 cert",
        ],
    );
    // Nobody comes by IPv6 to an IPv4 address.
    settle(
        &mut stage,
        "\"10.10.0.10\", \"localhost\"",
        "\"10.20.0.0/16\", \"fd20::/64\"",
    );
    stage.pgfw.ok(&["reload", "--yes"]);
    finds(
        &stage,
        &["no_listener"],
        &[
            "the filter admits fd20::/64, and nobody reaches",
            "fd20::/64 cert",
        ],
    );
    // The Unix socket alone.
    settle(&mut stage, "", here);
    stage.pgfw.ok(&["reload", "--yes"]);
    finds(&stage, &["no_listener"], &["no TCP address"]);

    // None of its addresses is there: a restart would be the end of it.
    settle(&mut stage, "\"*\"", here);
    let conf = stage.cluster.config_dir().join("postgresql.conf");
    let text = on_host(&stage, &conf);
    site.db
        .write(&conf, &format!("{text}\nlisten_addresses = '10.10.0.99'\n"));
    finds(
        &stage,
        &["overridden", "unfit_for_restart"],
        &[
            "listen_addresses comes to 10.10.0.99",
            "the server would not start",
        ],
    );
    stage.cluster.stop();
    finds(
        &stage,
        &["listening", "no_listener", "unfit_for_restart"],
        &["would not listen on *"],
    );
}
