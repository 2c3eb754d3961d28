//! The server's rules follow a reload: opened before the filter, closed after it.

use std::fs;

use pgfw_tests::lab::{Reach, Site};

use super::stage::{Stage, assert_fails, on_host};

const HBA: &str = "/var/lib/pgfw/postgres/main/current/pg_hba.conf";
const STRANGER: &str = "192.168.1.0/24";

/// bob may come from the stranger's network, and that is all.
fn open(stage: &Stage<'_>) {
    let text = on_host(stage, "/etc/pgfw/pgfw.toml").replace(
        "name = \"bob\"\n",
        &format!("name = \"bob\"\nnetworks = [\"{STRANGER}\"]\n"),
    );
    stage.pgfw.configure(&text);
}

/// Somebody's own line, which no apply goes over; and the file as it was.
fn edit(stage: &Stage<'_>) -> impl Fn() {
    let before = on_host(stage, HBA);
    let edited = format!("{before}local all all trust\n");
    let host = &stage.site.db;
    host.within(|| fs::write(HBA, edited)).unwrap();
    move || host.within(|| fs::write(HBA, &before)).unwrap()
}

#[test]
fn what_opens_is_in_the_servers_rules_before_the_filter_opens() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let bob = stage.issue("bob", &[]);
    open(&stage);

    let mend = edit(&stage);
    assert_fails(
        &stage.pgfw.pgfw(&["reload"]),
        1,
        &["pg_hba.conf", "nothing was opened", "--replace-edits"],
    );
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    mend();
    let said = stage.pgfw.ok(&["reload"]);
    assert!(
        said.contains("main: proven: the server goes by these rules"),
        "{said}"
    );
    assert!(said.contains("counts now"), "{said}");
    drop(stage.log_in(&site.stranger, "bob", &bob));
}

#[test]
fn what_closes_is_closed_in_the_filter_whatever_the_server_says() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let narrow = on_host(&stage, "/etc/pgfw/pgfw.toml");
    open(&stage);
    stage.pgfw.ok(&["pg", "apply"]);
    let _daemon = stage.enforce();
    let bob = stage.issue("bob", &[]);
    drop(stage.log_in(&site.stranger, "bob", &bob));

    stage.pgfw.configure(&narrow);
    let mend = edit(&stage);
    assert_fails(
        &stage.pgfw.pgfw(&["reload"]),
        1,
        &[
            "the filter goes by the new policy, and PostgreSQL does not",
            "pg_hba.conf",
        ],
    );
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    mend();
    assert!(on_host(&stage, HBA).contains(STRANGER));
    // The filter has nothing to do any more; the server has.
    stage.pgfw.ok(&["reload"]);
    assert!(!on_host(&stage, HBA).contains(STRANGER));
}

#[test]
fn f47_the_servers_rules_wait_for_what_may_be_undone() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let bob = stage.issue("bob", &[]);
    let before = on_host(&stage, HBA);
    open(&stage);
    let said = stage.pgfw.ok(&["reload", "--confirm", "60s"]);
    assert!(said.contains("they follow with `pgfw confirm`"), "{said}");
    assert_eq!(on_host(&stage, HBA), before);
    stage.pgfw.ok(&["rollback"]);
    assert_eq!(on_host(&stage, HBA), before);
    stage.pgfw.ok(&["reload", "--confirm", "60s"]);
    stage.pgfw.ok(&["confirm"]);
    drop(stage.log_in(&site.stranger, "bob", &bob));

    // A file that was edited meanwhile is no reason why something else should not be kept.
    stage.pgfw.ok(&["allow", "10.9.0.0/16", "--confirm", "60s"]);
    let after = on_host(&stage, HBA);
    stage.pgfw.configure("not TOML");
    let said = stage.pgfw.pgfw(&["confirm"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stderr.contains("pgfw.toml is not what was confirmed"),
        "{}",
        said.stderr
    );
    assert_eq!(on_host(&stage, HBA), after);
}
