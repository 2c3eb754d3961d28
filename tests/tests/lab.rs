//! The lab itself: what the other tests take for granted.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use pgfw_tests::lab::{
    Bpffs, Child, Host, Namespace, PATIENCE, PgCluster, PortState, Psql, Reach, SessionEnd, Site, Sshd,
    address, eventually, port_scan, run, tcp,
};

const SHORT: Duration = Duration::from_secs(1);

#[test]
fn machines_of_a_site_reach_the_database_host_over_both_families() {
    let site = Site::new();
    for to in [address::DB, address::DB_V6] {
        let listener = site.db.within(|| TcpListener::bind((to, 5432)).unwrap());
        for from in [&site.client, &site.stranger, &site.router] {
            assert_eq!(
                tcp(from, to, 5432, PATIENCE),
                Reach::Open,
                "{} to {to}",
                from.name()
            );
            assert_eq!(
                tcp(from, to, 5433, PATIENCE),
                Reach::Refused,
                "{} to {to}",
                from.name()
            );
        }
        drop(listener);
        assert_eq!(tcp(&site.client, to, 5432, PATIENCE), Reach::Refused);
    }
    site.db.ip("link set eth0 down");
    assert_ne!(tcp(&site.client, address::DB, 5432, SHORT), Reach::Open);
}

#[test]
fn a_host_writes_to_no_file_of_the_machine() {
    let host = Host::new("alone");
    for path in [
        "/etc/pgfw/pgfw.toml",
        "/var/lib/pgfw/ledger.db",
        "/run/pgfw/pgfw.sock",
        "/var/log/pgfw/audit.jsonl",
    ] {
        host.write(path, "here");
        assert_eq!(host.read(path), "here");
        assert!(!Path::new(path).exists(), "{path} is outside as well");
    }
    assert_eq!(
        host.read("/etc/passwd"),
        fs::read_to_string("/etc/passwd").unwrap()
    );
    let kind = host.within(|| nix::sys::statfs::statfs("/sys/fs/bpf").unwrap().filesystem_type());
    assert_eq!(kind, nix::sys::statfs::BPF_FS_MAGIC);
}

#[test]
fn postgres_runs_as_debian_lays_it_out() {
    let site = Site::new();
    let mut cluster = PgCluster::start_new(&site.db);
    assert_eq!(cluster.sql("show listen_addresses"), "*");
    let list = run(&mut site.db.command("pg_lsclusters")).expect_success();
    assert!(list.contains("main") && list.contains("online"), "{list}");

    cluster.sql("create role alice login password 'secret'");
    let hba = cluster.config_dir().join("pg_hba.conf");
    site.db.write(
        &hba,
        "local all all peer\nhost all alice 10.20.0.0/16 scram-sha-256\n",
    );
    cluster.reload();
    let alice = |from| {
        let psql = Psql::at(from)
            .set("host", address::DB.to_string())
            .set("user", "alice");
        psql.set("dbname", "postgres").set("password", "secret")
    };
    eventually("the new pg_hba.conf counts", PATIENCE, || {
        alice(&site.client).query("select 1").success().then_some(())
    });
    let refused = alice(&site.stranger).query("select 1");
    assert!(
        refused.stderr.contains("no pg_hba.conf entry"),
        "{}",
        refused.stderr
    );

    let mut session = alice(&site.client).open().unwrap();
    assert_eq!(session.query("select 6 * 7").as_deref(), Ok("42"));
    assert_eq!(
        cluster.sql("select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'alice'"),
        "1"
    );
    match session.query("select 1") {
        Err(SessionEnd::Closed(said)) => assert!(said.contains("terminating connection"), "{said}"),
        other => panic!("{other:?}"),
    }
    cluster.restart();
    assert_eq!(alice(&site.client).query("select 1").expect_success(), "1\n");
}

#[test]
fn a_scan_finds_the_services_of_a_host() {
    let site = Site::new();
    let _sshd = Sshd::start(&site.db, 22);
    for target in [address::DB, address::DB_V6] {
        let found = port_scan(&site.stranger, target, "22,5432", &["-sS"]);
        assert_eq!(
            found,
            BTreeMap::from([(22, PortState::Open), (5432, PortState::Closed)]),
            "{target}"
        );
    }
}

#[test]
fn a_session_over_a_dead_network_is_silent() {
    let site = Site::new();
    let cluster = PgCluster::start_new(&site.db);
    cluster.sql("create role alice login");
    site.db.write(
        cluster.config_dir().join("pg_hba.conf"),
        "local all all peer\nhost all alice all trust\n",
    );
    cluster.reload();
    let alice = Psql::at(&site.client)
        .set("host", address::DB_V6.to_string())
        .set("user", "alice")
        .set("dbname", "postgres");
    let mut session = eventually("alice gets in", PATIENCE, || alice.open().ok());
    site.db.ip("link set eth0 down");
    assert_eq!(session.query("select 1"), Err(SessionEnd::Silent));
}

/// The machine's files that a lab could have touched.
fn files() -> Vec<String> {
    let folders = [
        "/run",
        "/run/netns",
        "/etc",
        "/etc/postgresql/15",
        "/var/lib",
        "/var/log",
        "/sys/fs/bpf",
        "/dev/shm",
    ];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let mut files: Vec<String> = entries.map(|entry| entry.path().display().to_string()).collect();
    // Segments of other servers, which come and go; the lab has its own /dev/shm.
    files.retain(|file| !file.starts_with("/dev/shm/PostgreSQL."));
    files.sort();
    files
}

/// Builds a lab of everything in a process of its own, whose end `end` brings about, and looks for what is left.
#[track_caller]
fn leaves_nothing(test: &str, end: impl FnOnce(&mut Child)) {
    const INSIDE: &str = "PGFW_LAB_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        let site = Site::new();
        let _cluster = PgCluster::start_new(&site.db);
        let _sshd = Sshd::start(&site.db, 22);
        let machines: [&Namespace; 4] = [&site.db, &site.client, &site.stranger, &site.router];
        for machine in machines {
            println!("network {}", fs::read_link(machine.path()).unwrap().display());
        }
        println!("all is up");
        // The end of its input is the sign to go on.
        std::io::read_to_string(std::io::stdin()).unwrap();
        return;
    }
    let before = files();
    let scratch = tempfile::tempdir().unwrap();
    let mut inside = std::process::Command::new(std::env::current_exe().unwrap());
    inside
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("TMPDIR", scratch.path());
    let mut inside = Child::start(inside.stdin(std::process::Stdio::piped())).talkative();
    eventually("the lab is up", PATIENCE * 3, || {
        inside.stdout().contains("all is up").then_some(())
    });
    let said = inside.stdout();
    let networks: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once("network ")?.1))
        .collect();
    assert_eq!(networks.len(), 4, "{said}");
    assert!(!inhabitants(&networks).is_empty());

    end(&mut inside);
    inside.wait(PATIENCE);
    eventually("no process is left in the lab's networks", PATIENCE, || {
        inhabitants(&networks).is_empty().then_some(())
    });
    assert_eq!(
        fs::read_dir(scratch.path()).unwrap().count(),
        0,
        "temporary files are left"
    );
    assert_eq!(files(), before);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("pgfw-lab"), "a mount is left:\n{mounts}");
}

/// Processes in one of these network namespaces. A namespace without any, and without a process that holds
/// a descriptor of it, is gone.
fn inhabitants(networks: &[&str]) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let inside = processes.filter(|process| {
        let net = fs::read_link(process.path().join("ns/net")).unwrap_or_default();
        networks.contains(&net.to_string_lossy().as_ref())
    });
    inside
        .map(|process| process.path().display().to_string())
        .collect()
}

#[test]
fn a_lab_that_is_dropped_leaves_nothing() {
    leaves_nothing("a_lab_that_is_dropped_leaves_nothing", |inside| {
        drop(inside.take_stdin())
    });
}

#[test]
fn a_lab_whose_test_is_killed_leaves_nothing() {
    leaves_nothing("a_lab_whose_test_is_killed_leaves_nothing", |inside| {
        inside.signal(Signal::SIGKILL)
    });
}

#[test]
fn a_bpf_file_system_goes_with_its_owner() {
    let bpffs = Bpffs::new();
    let path = bpffs.path().to_owned();
    let kind = nix::sys::statfs::statfs(&path).unwrap().filesystem_type();
    assert_eq!(kind, nix::sys::statfs::BPF_FS_MAGIC);
    drop(bpffs);
    assert!(!path.exists());
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(path.to_str().unwrap())
    );
}
