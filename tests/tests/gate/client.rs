//! `pgfw lease` and `pgfw connect`, at somebody's own machine, without root and without a daemon.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use pgfw_tests::lab::{Child, Outcome, PATIENCE, Reach, Site, eventually, product, run};
use serde_json::Value;

use super::stage::{Leaf, Stage, text};

/// nobody.
const UID: &str = "65534";

/// The binary where everybody reaches it.
fn for_all(stage: &Stage<'_>) -> PathBuf {
    let place = stage.place("pgfw");
    if !place.exists() {
        // A link, since a copy could be open for writing in a process that another test forks meanwhile (ETXTBSY).
        fs::hard_link(product(), &place)
            .or_else(|_| fs::copy(product(), &place).map(drop))
            .unwrap();
    }
    place
}

/// `pgfw` at the stranger's machine, as nobody, with alice's bundle in its hands.
fn pgfw(stage: &Stage<'_>, leaf: &Leaf, arguments: &[&str]) -> Command {
    let id = Some(UID.parse().unwrap());
    for file in ["", "postgresql.crt", "postgresql.key", "root.crt"] {
        chown(leaf.folder.join(file), id, id).unwrap();
    }
    let services = leaf.folder.join("pg_service.conf");
    let section = fs::read_to_string(&services).unwrap();
    if !section.contains("hostaddr") {
        // There is no DNS in the lab.
        fs::write(
            &services,
            section.trim_end().to_owned() + "\nhostaddr=10.10.0.10\n",
        )
        .unwrap();
    }
    fs::set_permissions(&services, fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = stage.site.stranger.command("setpriv");
    command
        .args(["--reuid", UID, "--regid", UID, "--clear-groups", "--no-new-privs"])
        .arg(for_all(stage))
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("PGSERVICEFILE", services);
    command
}

fn lease(stage: &Stage<'_>, leaf: &Leaf, further: &[&str]) -> Outcome {
    let file = |name: &str| text(&leaf.folder.join(name)).to_owned();
    let (cert, key, root) = (file("postgresql.crt"), file("postgresql.key"), file("root.crt"));
    let mut arguments = vec![
        "lease",
        "10.10.0.10",
        "--cert",
        &cert,
        "--key",
        &key,
        "--root",
        &root,
    ];
    arguments.extend(further);
    run(&mut pgfw(stage, leaf, &arguments))
}

fn connect(stage: &Stage<'_>, leaf: &Leaf, command: &[&str]) -> Command {
    let mut arguments = vec!["connect", "alice", "--"];
    arguments.extend(command);
    pgfw(stage, leaf, &arguments)
}

#[test]
fn a_lease_is_taken_and_given_back_without_root() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let taken = lease(&stage, &alice, &["--json"]);
    assert!(taken.success(), "{taken:?}");
    let said: Value = serde_json::from_str(&taken.stdout).unwrap();
    assert_eq!(said["leases"][0]["address"], "192.168.1.10");
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    let again = lease(&stage, &alice, &[]);
    assert!(
        again
            .stdout
            .starts_with("alice may connect from 192.168.1.10 to port 5432 until "),
        "{again:?}"
    );
    let back = lease(&stage, &alice, &["--give-back"]);
    assert!(back.stdout.contains("192.168.1.10 is closed again"), "{back:?}");
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);

    // What is wrong is said in words.
    let says = |outcome: Outcome, code: i32, words: &[&str]| {
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "no {word:?}: {outcome:?}");
        }
    };
    let bob = stage.issue("bob", &[]);
    says(
        lease(&stage, &bob, &[]),
        3,
        &["bob may not take leases", "roaming"],
    );
    let gone = stage.issue("alice", &[]);
    stage.pgfw.ok(&["cert", "revoke", &gone.serial]);
    eventually("the gate has heard of it", PATIENCE, || {
        let said = lease(&stage, &gone, &[]);
        said.stderr
            .contains("does not take the certificate")
            .then_some(())
    });
    fs::write(
        bob.folder.join("root.crt"),
        fs::read(alice.folder.join("postgresql.crt")).unwrap(),
    )
    .unwrap();
    says(lease(&stage, &bob, &[]), 1, &["is not the one that", "root.crt"]);
    fs::write(alice.folder.join("postgresql.key"), "").unwrap();
    says(
        lease(&stage, &alice, &[]),
        2,
        &["postgresql.key", "no private key"],
    );
    gate.kill();
    let other = stage.issue("alice", &[]);
    says(
        lease(&stage, &other, &[]),
        3,
        &["10.10.0.10:5430", "cannot be reached"],
    );
}

#[test]
fn a_command_runs_while_the_lease_is_held() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    let psql = ["psql", "-X", "-A", "-t", "-w", "-c", "select current_user"];
    let got = run(&mut connect(&stage, &alice, &psql));
    assert_eq!((got.code, got.stdout.trim()), (Some(0), "alice"), "{got:?}");
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
    let seven = run(&mut connect(&stage, &alice, &["sh", "-c", "exit 7"]));
    assert_eq!(seven.code, Some(7), "{seven:?}");
    let killed = run(&mut connect(&stage, &alice, &["sh", "-c", "kill -9 $$"]));
    assert_eq!(killed.code, Some(137), "{killed:?}");
    let absent = run(&mut connect(&stage, &alice, &["no-such-program"]));
    assert_eq!(absent.code, Some(2), "{absent:?}");
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);

    // The last one out closes the door; a signal is handed on.
    let mut long = Child::start(connect(&stage, &alice, &["cat"]).stdin(Stdio::piped()));
    eventually("the address is open", PATIENCE, || {
        (stage.reach(&site.stranger) == Reach::Open).then_some(())
    });
    let short = run(&mut connect(&stage, &alice, &psql));
    assert!(short.success(), "{short:?}");
    assert_eq!(stage.reach(&site.stranger), Reach::Open);
    long.signal(Signal::SIGINT);
    long.signal(Signal::SIGTERM);
    assert_eq!(long.wait(PATIENCE).code(), Some(143), "{}", long.stderr());
    assert_eq!(stage.reach(&site.stranger), Reach::Silent);
}

/// Two thirds of its life are gone: the next one, of the same key, is in its place before anything else is done.
#[test]
fn a_certificate_is_renewed_in_its_place() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    // It counts from five minutes back on.
    let alice = stage.issue("alice", &["--ttl", "100s"]);
    let (crt, key) = (
        alice.folder.join("postgresql.crt"),
        alice.folder.join("postgresql.key"),
    );
    let before = (fs::read(&crt).unwrap(), fs::read(&key).unwrap());
    let psql = ["psql", "-X", "-A", "-t", "-w", "-c", "select current_user"];
    let got = run(&mut connect(&stage, &alice, &psql));
    assert_eq!((got.code, got.stdout.trim()), (Some(0), "alice"), "{got:?}");
    assert_ne!(fs::read(&crt).unwrap(), before.0, "{got:?}");
    assert_eq!(fs::read(&key).unwrap(), before.1);
    let renewed = fs::read(&crt).unwrap();
    // The new one is young.
    assert!(run(&mut connect(&stage, &alice, &psql)).success());
    assert_eq!(fs::read(&crt).unwrap(), renewed);
    let left = fs::read_dir(&alice.folder).unwrap().count();
    assert_eq!(left, 5, "no file of half a renewal stays");
}

#[test]
fn another_way_out_is_said_as_such() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let (_daemon, _gate) = stage.open();
    let alice = stage.issue("alice", &[]);
    site.router.ip("address add 10.10.0.2/24 dev db");
    let nat = |how: &[&str]| {
        let mut iptables = site.router.command("iptables");
        iptables.args(["-w", "-t", "nat", "-A", "POSTROUTING", "-o", "db", "-p", "tcp"]);
        run(iptables.args(how)).expect_success();
    };
    let psql = ["psql", "-X", "-w", "-c", "select 1"];
    // Sessions leave from another address than leases.
    nat(&["--dport", "5432", "-j", "SNAT", "--to-source", "10.10.0.2"]);
    let said = run(&mut connect(&stage, &alice, &psql));
    assert_eq!(said.code, Some(1), "{said:?}");
    for word in [
        "the lease is for 192.168.1.10",
        "10.10.0.10:5432",
        "another address",
    ] {
        assert!(said.stderr.contains(word), "no {word:?}: {said:?}");
    }
    assert_eq!(stage.leases(), [], "what is of no use is given back");
    // Every second connection leaves from another one.
    let every_second = [
        "-m",
        "statistic",
        "--mode",
        "nth",
        "--every",
        "2",
        "--packet",
        "0",
    ];
    let mut spread = vec!["--dport", "5430"];
    spread.extend(every_second);
    spread.extend(["-j", "SNAT", "--to-source", "10.10.0.2"]);
    nat(&spread);
    let said = run(&mut connect(&stage, &alice, &psql));
    assert_eq!(said.code, Some(1), "{said:?}");
    for word in ["more than one address", "192.168.1.10", "10.10.0.2"] {
        assert!(said.stderr.contains(word), "no {word:?}: {said:?}");
    }
}
