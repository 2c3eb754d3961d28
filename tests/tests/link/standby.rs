//! A streaming standby, whose own pgfw guards it: what is revoked there is out there.

use pgfw_tests::lab::{Host, Instance, PATIENCE, PgCluster, Reach, Site, address, eventually, join, run};

use super::stage::Stage;

/// Another machine behind the router.
fn primary(site: &Site) -> Host {
    let host = Host::new("primary");
    join((&site.router, "primary"), (&host, "eth0"));
    site.router.ip("address add 10.40.0.1/24 dev primary");
    host.ip("address add 10.40.0.10/24 dev eth0\nroute add default via 10.40.0.1");
    host
}

/// Replaces a new cluster by a copy of the primary that follows it.
fn copy(site: &Site, cluster: &mut PgCluster<'_>) {
    cluster.stop();
    site.db
        .within(|| std::fs::remove_dir_all(cluster.data_dir()).unwrap());
    let mut backup = site.db.command_as_user("pg_basebackup", "postgres");
    backup.arg("--pgdata").arg(cluster.data_dir());
    backup.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
    backup.args(["--dbname", "host=10.40.0.10 user=postgres"]);
    backup.current_dir("/").env("HOME", "/nonexistent");
    run(&mut backup).expect_success();
    cluster.start();
}

fn streams(primary: &PgCluster<'_>) -> bool {
    primary.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1"
}

#[test]
fn p31_sessions_on_a_standby_end_and_the_stream_goes_on() {
    let site = Site::new();
    let there = primary(&site);
    let source = PgCluster::start_new(&there);
    let rules = source.config_dir().join("pg_hba.conf");
    let former = there.read(&rules);
    there.write(
        &rules,
        &format!("{former}host replication postgres 10.10.0.0/24 trust\n"),
    );
    source.reload();
    source.sql("create role alice login; create role bob login");
    source.sql("create database app");
    let mut cluster = PgCluster::start_new(&site.db);
    copy(&site, &mut cluster);
    eventually("the standby streams", PATIENCE, || streams(&source).then_some(()));

    let stage = Stage::around(&site, cluster, Instance::new(&site.db));
    stage.configure("min_tls = \"1.2\"", "");
    for command in [["ca", "init"], ["cert", "server"], ["pg", "apply"]] {
        stage.pgfw.ok(&command);
    }
    assert_eq!(stage.cluster.sql("select pg_is_in_recovery()"), "t");
    let _daemon = stage.enforce();
    stage.pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    let (lost, kept) = (stage.issue("alice", &[]), stage.issue("alice", &[]));
    let deputy = stage.issue("deputy", &[]);
    let mut with_lost = stage.log_in(&site.client, "alice", &lost);
    let mut with_kept = stage.log_in(&site.client, "alice", &kept);
    let mut of_the_role = stage.log_in(&site.stranger, "alice", &deputy);
    let mut waiting = super::revocation::shake(&stage, &lost);

    let told = stage.revoke(lost.serial());
    assert_eq!(told["unfinished"].to_string(), "[]", "{told}");
    assert!(with_lost.query("select 1").is_err());
    assert!(waiting.start_up(&super::revocation::ALICE).is_err());
    for session in [&mut with_kept, &mut of_the_role] {
        assert_eq!(session.query("select 1").as_deref(), Ok("1"));
    }
    let refused = stage.refused(&stage.with_certificate(&site.client, "alice", &lost));
    assert!(refused.contains("certificate revoked"), "{refused}");
    stage.revoke("alice");
    assert_eq!(stage.reach(&site.client), Reach::Silent);

    source.sql("create table after_it as select 42 as answer");
    eventually("the stream goes on", PATIENCE, || {
        let found = stage.cluster.psql().query("select answer from after_it");
        (found.stdout == "42\n").then_some(())
    });
    assert!(streams(&source));
}
