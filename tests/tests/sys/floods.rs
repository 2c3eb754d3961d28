//! Floods: whoever was in stays in, whoever may comes in, and the daemon does not grow.

use std::net::{IpAddr, Ipv4Addr};

use nix::sys::signal::Signal;
use pgfw_tests::lab::{Host, PATIENCE, PgCluster, Psql, Site, Stream, address, eventually, ipv4};

use super::{CONFIG, configured, is_silent};

/// SYNs from all over the world, in turn to the database and to a port where nobody listens.
fn syn_flood(site: &Site) -> Stream {
    let IpAddr::V4(to) = address::DB else {
        unreachable!("an IPv4 address")
    };
    let segments = [5432, 4444].map(|port| pgfw_common::frames::tcp(40_000, port, 2));
    Stream::start(&site.router, to, None, move |n| {
        // Every address comes once: an odd factor permutes 32 bits. Those that no packet may come from are as good.
        let source = Ipv4Addr::from((n as u32).wrapping_mul(2_654_435_761));
        ipv4(source, to, 6, &segments[(n % 2) as usize])
    })
}

/// A server that lets the client's network in without a password.
pub(super) fn trusting(host: &Host) -> PgCluster<'_> {
    let mut cluster = PgCluster::start_new(host);
    for (file, line) in [
        ("pg_hba.conf", "host all all 10.20.0.0/16 trust\n"),
        ("postgresql.conf", "listen_addresses = '*'\n"),
    ] {
        let path = cluster.config_dir().join(file);
        let text = host.read(&path);
        host.write(&path, &format!("{text}\n{line}"));
    }
    cluster.restart();
    cluster
}

/// Kilobytes of memory, and hundredths of a second on a CPU.
fn cost(pid: i32) -> (u64, u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = read("status");
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    let stat = read("stat");
    let ticks: Vec<u64> = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().unwrap())
        .collect();
    (memory, ticks.iter().sum())
}

/// As many packets as make a flood, on whatever machine this is.
const FLOOD: u64 = 1_000_000;

#[test]
fn f24_under_a_flood_from_everywhere_an_idle_session_answers_and_new_ones_come_in() {
    let site = Site::new();
    let _cluster = trusting(&site.db);
    let pgfw = configured(&site, CONFIG);
    let daemon = pgfw.enforce();
    let psql = Psql::at(&site.client)
        .set("host", address::DB.to_string())
        .set("user", "postgres")
        .set("dbname", "postgres");
    let mut idle = psql.open().unwrap();
    let dropped = pgfw.status().packets("service-closed");
    let (memory, ticks) = cost(daemon.pid());
    let begun = std::time::Instant::now();

    let flood = syn_flood(&site);
    for _ in 0..5 {
        let goal = flood.sent() + FLOOD / 5;
        // No longer than the others on this machine allow.
        eventually("the flood runs", PATIENCE * 4, || {
            (flood.sent() >= goal).then_some(())
        });
        assert_eq!(idle.query("select 1").unwrap(), "1");
        psql.query("select 1").expect_success();
        pgfw.ok(&["status"]);
    }
    pgfw.ok(&["allow", address::STRANGER_NETWORK]);
    pgfw.ok(&["remove", address::STRANGER_NETWORK]);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    let sent = flood.stop();

    let elapsed = begun.elapsed();
    let (memory_then, ticks_then) = cost(daemon.pid());
    assert!(sent >= FLOOD);
    assert!(
        pgfw.status().packets("service-closed") > dropped,
        "the flood came in"
    );
    assert!(
        memory_then < memory + 32 * 1024,
        "{memory} kB became {memory_then}"
    );
    // Of what was told it keeps a sample, at a rate that has a bound: never what a flood costs.
    let busy = u128::from(ticks_then - ticks) * 10;
    assert!(
        busy < elapsed.as_millis() / 2,
        "{busy} ms of {elapsed:?} on a CPU"
    );
    let events = pgfw.ok(&["events", "--json"]);
    assert!(events.lines().count() <= 5_000, "{}", events.lines().count());
    // And it lives.
    daemon.signal(Signal::SIGCONT);
    assert_eq!(idle.query("select 2").unwrap(), "2");
    assert_eq!(pgfw.status().state(), "enforcing");
}
