//! `pgfw pg apply` and `pgfw pg release` at the command line.

use std::fs;

use pgfw_tests::lab::{Reach, Site};

use super::stage::{Stage, assert_fails};

#[test]
fn applying_names_what_is_missing_and_changes_nothing_twice() {
    let site = Site::new();
    let stage = Stage::bare(&site, "", "[[identity]]\nname = \"newcomer\"\n");
    let live = stage.cluster.config_dir().join("pg_hba.conf");
    let former = site.db.read(&live);

    // In the order in which a newcomer meets them.
    assert_fails(
        &stage.pgfw.pgfw(&["cert", "server"]),
        1,
        &["authority", "pgfw ca init"],
    );
    assert_fails(
        &stage.pgfw.pgfw(&["cert", "issue", "alice"]),
        1,
        &["authority", "pgfw ca init"],
    );
    assert_fails(
        &stage.pgfw.pgfw(&["pg", "apply"]),
        1,
        &["`main`", "pgfw cert server"],
    );
    stage.pgfw.ok(&["ca", "init"]);
    assert_fails(&stage.pgfw.pgfw(&["ca", "init"]), 1, &["/etc/pgfw/pki"]);
    stage.pgfw.ok(&["cert", "server"]);
    assert_eq!(site.db.read(&live), former);

    let first = stage.pgfw.ok(&["pg", "apply"]);
    assert!(
        first.contains("proven: the server goes by these rules"),
        "{first}"
    );
    assert!(
        first.contains("roles that do not exist yet: newcomer\n"),
        "{first}"
    );
    assert!(first.contains("proven: the server serves certificate"), "{first}");
    let reloads = stage.reloads();
    stage.cluster.sql("create role newcomer login");
    let second = stage.pgfw.ok(&["pg", "apply", "main"]);
    assert!(second.contains("nothing to change; generation 1"), "{second}");
    assert!(!second.contains("newcomer"), "{second}");
    assert_eq!(
        stage.reloads(),
        reloads,
        "nothing was changed, and the server reloaded"
    );

    // A new certificate is served without a word more.
    stage.pgfw.ok(&["cert", "server"]);
    let third = stage.pgfw.ok(&["pg", "apply"]);
    assert!(third.contains("gen-2"), "{third}");
    assert_ne!(served(&first), served(&third));
}

/// The serial in what `pg apply` said.
fn served(said: &str) -> &str {
    let line = said.lines().find(|l| l.contains("serves certificate")).unwrap();
    line.rsplit(' ').next().unwrap()
}

#[test]
fn exit_codes_of_certificates_and_clusters() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let pgfw = &stage.pgfw;
    let as_other = |arguments: &[&str]| pgfw_tests::lab::run(&mut pgfw.command_as_user("nobody", arguments));
    // 1: understood and declined, or tried and failed.
    assert_fails(&pgfw.pgfw(&["pg", "apply", "mian"]), 1, &["`mian`", "main"]);
    assert_fails(&pgfw.pgfw(&["pg", "release", "mian"]), 1, &["`mian`", "main"]);
    assert_fails(&pgfw.pgfw(&["cert", "server", "mian"]), 1, &["`mian`", "main"]);
    assert_fails(&pgfw.pgfw(&["cert", "revoke", "nobody"]), 1, &["`nobody`"]);
    let hba = stage.cluster.config_dir().join("pg_hba.conf");
    let edited = site.db.read(&hba) + "host all all all trust\n";
    site.db.within(|| fs::write(&hba, &edited)).unwrap();
    assert_fails(
        &pgfw.pgfw(&["pg", "apply"]),
        1,
        &["pg_hba.conf", "--replace-edits"],
    );
    assert_eq!(site.db.read(&hba), edited);
    pgfw.ok(&["pg", "apply", "--replace-edits"]);
    // 2: usage, configuration.
    assert_eq!(pgfw.pgfw(&["pg", "aplly"]).code, Some(2));
    assert_eq!(pgfw.pgfw(&["cert", "issue"]).code, Some(2));
    assert_eq!(
        pgfw.pgfw(&["cert", "issue", "alice", "--ttl", "soon"]).code,
        Some(2)
    );
    assert_fails(
        &pgfw.pgfw(&["cert", "issue", "alice", "--csr", "/nowhere/alice.csr"]),
        2,
        &["/nowhere/alice.csr"],
    );
    stage.configure("allow = [\"10.20.0.1/16\"]", "");
    for command in [
        &["pg", "apply"][..],
        &["pg", "release"],
        &["cert", "server"],
        &["cert", "issue", "alice"],
    ] {
        assert_fails(&pgfw.pgfw(command), 2, &["10.20.0.1/16", "10.20.0.0/16"]);
    }
    // 3: not allowed to, or nobody there.
    stage.configure("", "");
    for command in [
        &["pg", "apply"][..],
        &["pg", "release"],
        &["cert", "issue", "alice"],
        &["cert", "list"],
    ] {
        assert_fails(&as_other(command), 3, &["needs root", "sudo pgfw"]);
    }
    assert_fails(&pgfw.pgfw(&["confirm"]), 3, &["/run/pgfw/pgfw.sock"]);
    // 0, and JSON where asked for.
    let json: serde_json::Value = serde_json::from_str(&pgfw.ok(&["--json", "pg", "apply"])).unwrap();
    assert_eq!(json[0]["cluster"], "main");
    let failure = pgfw.pgfw(&["--json", "cert", "revoke", "nobody"]);
    let failure: serde_json::Value = serde_json::from_str(&failure.stderr).unwrap();
    assert_eq!(failure["code"], "not_found");
}

/// What the README says under "Uninstall", and then what it warns of.
#[test]
fn a_host_is_rid_of_pgfw() {
    let site = Site::new();
    let mut stage = Stage::new(&site);
    let daemon = stage.enforce();
    let alice = stage.issue("alice", &[]);
    drop(stage.log_in(&site.client, "alice", &alice));

    let said = stage.pgfw.ok(&["pg", "release"]);
    assert!(said.contains("proven: the server goes by these files"), "{said}");
    let again = stage.pgfw.ok(&["pg", "release"]);
    assert!(again.contains("nothing to give back"), "{again}");
    assert!(daemon.stop().success());
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    stage.pgfw.ok(&["off"]);
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    site.db.within(|| {
        for folder in ["/var/lib/pgfw", "/etc/pgfw"] {
            fs::remove_dir_all(folder).unwrap();
        }
    });
    stage.cluster.restart();
    assert_eq!(stage.cluster.sql("select 1"), "1");
    let rules = site.db.read(stage.cluster.config_dir().join("pg_hba.conf"));
    assert!(!rules.contains("pgfw"), "{rules}");
}

/// Kept: certificates go on being asked for, and what was revoked stays out, with nothing of pgfw's left.
#[test]
fn a_host_keeps_its_logins_without_pgfw() {
    let site = Site::new();
    let mut stage = Stage::new(&site);
    let alice = stage.issue("alice", &[]);
    let bob = stage.issue("bob", &[]);
    stage.revoke("bob");
    let said = stage.pgfw.ok(&["pg", "release", "--keep"]);
    assert!(said.contains("the CRLs lapse"), "{said}");
    site.db.within(|| {
        for folder in ["/var/lib/pgfw", "/etc/pgfw"] {
            fs::remove_dir_all(folder).unwrap();
        }
    });
    stage.cluster.restart();
    drop(stage.log_in(&site.client, "alice", &alice));
    let revoked = stage.refused(&stage.with_certificate(&site.client, "bob", &bob));
    assert!(revoked.contains("certificate revoked"), "{revoked}");
    let without = stage.psql(&site.client, "alice").set("sslmode", "require");
    assert!(stage.refused(&without).contains("valid client certificate"));
}
