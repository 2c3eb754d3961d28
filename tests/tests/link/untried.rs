//! A host on which no server of pgfw's own can try rules.

use std::fs;

use nix::mount::{MsFlags, mount};
use pgfw_tests::lab::{Reach, Site};

use super::stage::{Stage, assert_fails, on_host};

const HBA: &str = "/var/lib/pgfw/postgres/main/current/pg_hba.conf";
const SCRATCH: &str = "/var/lib/pgfw/postgres/main/scratch";

/// Takes away what earlier applies have kept for the next one, and the program that would make it anew.
fn take_initdb_away(stage: &Stage<'_>) {
    let initdb = format!("/usr/lib/postgresql/{}/bin/initdb", stage.cluster.major());
    stage.site.db.within(|| {
        fs::remove_dir_all(SCRATCH).unwrap();
        mount(
            Some("/dev/null"),
            initdb.as_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
    });
}

#[test]
fn p11_rules_that_nobody_can_try_go_live_only_when_that_is_said() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let bob = stage.issue("bob", &[]);
    take_initdb_away(&stage);
    let text = on_host(&stage, "/etc/pgfw/pgfw.toml");
    stage.pgfw.configure(&text.replace(
        "name = \"bob\"\n",
        "name = \"bob\"\nnetworks = [\"192.168.1.0/24\"]\n",
    ));
    let before = on_host(&stage, HBA);

    let words = [
        "main",
        "initdb",
        "nothing was changed",
        "pgfw pg apply main --without-scratch",
    ];
    assert_fails(&stage.pgfw.pgfw(&["pg", "apply"]), 1, &words);
    // What opens is not opened by halves.
    assert_fails(
        &stage.pgfw.pgfw(&["reload"]),
        1,
        &[&words[..], &["nothing was opened"]].concat(),
    );
    assert_eq!(on_host(&stage, HBA), before);
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);

    let said = stage.pgfw.ok(&["pg", "apply", "--without-scratch"]);
    assert!(said.contains("proven: the server goes by these rules"), "{said}");
    assert!(
        said.contains("! the rules were not tried on a server of their own"),
        "{said}"
    );
    // Nothing is left to try, and the filter follows.
    stage.pgfw.ok(&["reload"]);
    drop(stage.log_in(&site.stranger, "bob", &bob));
}
