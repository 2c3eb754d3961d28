//! What the README says under "Install", in its order, on a cluster as Debian makes it.

use std::path::Path;

use pgfw_tests::lab::{Instance, PgCluster, Reach, Site};

use super::stage::{Leaf, Stage};

#[test]
fn a_packaged_cluster_takes_remote_logins_once_everything_that_was_said_is_done() {
    let site = Site::new();
    let cluster = PgCluster::start_as_packaged(&site.db);
    assert_eq!(cluster.sql("show listen_addresses"), "localhost");
    cluster.sql("create database app");
    let mut stage = Stage::around(&site, cluster, Instance::new(&site.db));
    stage.configure("", "");
    let pgfw = &stage.pgfw;

    pgfw.ok(&["config", "check"]);
    pgfw.ok(&["ca", "init"]);
    pgfw.ok(&["cert", "server"]);
    let folder = stage.place("alice");
    let issued = pgfw.ok(&["cert", "issue", "alice", "--bundle", folder.to_str().unwrap()]);
    assert!(issued.contains("Connect with:"), "{issued}");
    let said = pgfw.ok(&["pg", "apply"]);
    assert!(
        said.contains("has to be restarted; from then on counts: listen_addresses"),
        "{said}"
    );
    let unit = format!(
        "systemctl restart postgresql@{}",
        stage.cluster.name().replace('/', "-")
    );
    assert!(said.lines().any(|line| line.ends_with(&unit)), "{said}");
    assert!(
        said.contains("roles that do not exist yet: alice, bob\n"),
        "{said}"
    );

    // What it says, to the letter.
    for statement in said.lines().filter_map(|line| line.split_once("create role")) {
        stage.cluster.sql(&format!("create role{}", statement.1));
    }
    assert_eq!(
        stage
            .cluster
            .sql("select count(*) from pg_roles where rolname in ('alice', 'bob') and rolcanlogin"),
        "2"
    );
    stage.cluster.restart();
    assert_eq!(stage.cluster.sql("show listen_addresses"), "*");
    let again = stage.pgfw.ok(&["pg", "apply"]);
    assert!(again.contains("proven: the server serves certificate"), "{again}");
    assert!(!again.contains('!'), "{again}");

    let _daemon = stage.pgfw.start();
    let alice = Leaf {
        folder: Path::new(&folder).to_owned(),
        certificate: serde_json::Value::Null,
    };
    drop(stage.log_in(&site.client, "alice", &alice));
    stage.pgfw.ok(&["confirm"]);
    drop(stage.log_in(&site.client, "alice", &alice));
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
}
