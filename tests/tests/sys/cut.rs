//! Cut means cut, drained means counted, and what is extended has no gap.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pgfw_tests::lab::{
    EchoServer, Heard, Instance, PATIENCE, Psql, Site, Stream, Talk, address, eventually, ipv4,
};

use super::floods::trusting;
use super::{CONFIG, configured, is_open};

/// A case's "within a second".
const SECOND: Duration = Duration::from_secs(1);

fn draining(pgfw: &Instance<'_>, service: &str) -> u64 {
    let status = pgfw.status();
    let all = status.0["services"].as_array().unwrap();
    let one = all.iter().find(|s| s["name"] == service).unwrap();
    one["draining"].as_u64().unwrap()
}

#[test]
fn f23_what_drains_is_counted_and_what_is_cut_is_gone() {
    let site = Site::new();
    let _servers = [22, 5432].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let _far = EchoServer::start(&site.stranger, "[::]:8080");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let networks = [address::STRANGER_NETWORK, address::STRANGER_NETWORK_V6];
    let mut outbound = Talk::open(&site.db, address::STRANGER, 8080);
    let mut others = Talk::open(&site.client, address::DB, 5432);
    let mut ssh = Talk::open(&site.stranger, address::DB, 22);
    // Over the loopback interface nothing is judged, and nothing drains.
    let mut own = Talk::open(&site.db, address::DB, 5432);
    for network in networks {
        pgfw.ok(&["allow", network]);
    }
    let mut old: Vec<Talk> = [address::DB, address::DB_V6, address::DB]
        .into_iter()
        .map(|to| Talk::open(&site.stranger, to, 5432))
        .collect();
    assert_eq!((draining(&pgfw, "main"), draining(&pgfw, "ssh")), (0, 0));
    for network in networks {
        pgfw.ok(&["remove", network]);
    }
    assert_eq!((draining(&pgfw, "main"), draining(&pgfw, "ssh")), (3, 0));
    let shown = pgfw.ok(&["status"]);
    assert!(shown.contains("; 3 draining"), "{shown}");
    assert!(old.iter_mut().all(Talk::flows));
    let said = pgfw.ok(&["deny", networks[0], "--service", "main"]);
    assert!(said.contains("2 established"), "{said}");
    assert!(old[0].ends_by_itself(SECOND) && old[2].ends_by_itself(SECOND));
    assert_eq!(draining(&pgfw, "main"), 1);
    assert!(
        old[1].flows() && ssh.flows(),
        "neither another network nor another service"
    );
    pgfw.ok(&["deny", networks[1], "--service", "main"]);
    assert!(old[1].ends_by_itself(SECOND));
    assert_eq!(draining(&pgfw, "main"), 0);
    for talk in [&mut outbound, &mut others, &mut own] {
        assert_eq!(talk.say(SECOND), Heard::Echo);
    }
    // Also of what it asks anew.
    assert!(Talk::open(&site.db, address::STRANGER, 8080).flows());
}

#[test]
fn f23_an_idle_psql_session_is_ended_by_deny_and_by_remove_and_cut() {
    let site = Site::new();
    let _cluster = trusting(&site.db);
    let pgfw = configured(&site, &CONFIG.replace("\"10.20.0.0/16\", ", ""));
    let _daemon = pgfw.enforce();
    let psql = Psql::at(&site.client)
        .set("host", address::DB.to_string())
        .set("user", "postgres")
        .set("dbname", "postgres");
    let local = Psql::as_user(&site.db, "postgres")
        .set("user", "postgres")
        .set("dbname", "postgres");
    for cut in [
        &["remove", "10.20.0.0/16", "--cut"][..],
        &["deny", "10.20.0.0/16"],
    ] {
        pgfw.ok(&["allow", "10.20.0.0/16"]);
        let mut idle = psql.open().unwrap();
        pgfw.ok(cut);
        // The server has lost it as well: it holds no locks for a client that is not there.
        eventually("the server's side ends", SECOND * 5, || {
            let left = local.query("select count(*) from pg_stat_activity where client_addr is not null");
            (left.stdout.trim() == "0").then_some(())
        });
        assert!(idle.query("select 1").is_err(), "{cut:?}");
    }
}

#[test]
fn f43_what_is_extended_in_time_has_no_gap() {
    let site = Site::new();
    let service = "[[service]]\nname = \"probe\"\nprotocol = \"udp\"\nports = [\"7777\"]\n";
    let pgfw = configured(&site, &format!("{CONFIG}{service}"));
    let _daemon = pgfw.enforce();
    let IpAddr::V4(to) = address::DB else {
        unreachable!("an IPv4 address")
    };
    let network = "10.3.0.0/16";
    let for_time = |time: &str| pgfw.ok(&["allow", network, "--service", "probe", "--for", time]);
    for_time("2s");
    let begun = Instant::now();
    let datagram = pgfw_common::frames::udp(40_000, 7777, &[0; 8]);
    let stream = Stream::start(&site.router, to, Some(2_000), move |_| {
        ipv4(Ipv4Addr::new(10, 3, 0, 1), to, 17, &datagram)
    });
    // Again and again, each time before its end, and beyond the end of the first.
    eventually("its first end has come and gone", PATIENCE, || {
        for_time("2s");
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    let sent = stream.stop();
    let status = pgfw.status();
    assert_eq!(status.packets("service-closed"), 0, "of {sent}");
    assert!(
        status.packets("service") >= sent - 5,
        "{} of {sent}",
        status.packets("service")
    );
    let ends = status.0["ends"].as_array().unwrap();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!(ends[0]["what"], "allow 10.3.0.0/16 (probe)");
    assert!(ends[0]["seconds"].as_u64().is_some_and(|s| s <= 2), "{ends:?}");
}

#[test]
fn status_fits_a_screen_and_answers_what_there_is_to_ask() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for n in 0..30 {
        pgfw.ok(&[
            "allow",
            &format!("10.{}.0.0/16", 100 + n),
            "--for",
            &format!("{}h", n + 2),
        ]);
    }
    for _ in 0..2 {
        assert!(super::is_silent(&site.stranger, address::DB, 5432));
    }
    assert!(super::is_silent(&site.stranger, address::DB, 4444));
    assert!(is_open(&site.client, address::DB, 5432));
    // Much that needs attention.
    for n in 0..20 {
        pgfw.ok(&["deny", &format!("10.{}.1.0/24", 100 + n), "--service", "main"]);
    }
    pgfw.configure(&CONFIG.replace("name = \"main\"", "name = \"other\""));
    pgfw.ok(&["reload"]);
    pgfw.configure("not TOML");
    let shown = pgfw.ok(&["status"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() <= 24, "{} lines:\n{shown}", lines.len());
    assert!(
        lines[0].starts_with("Protected: policy 2 is enforced on eth0."),
        "{shown}"
    );
    assert!(lines[0].contains("pgfw.toml"), "{shown}");
    let status = pgfw.status();
    let hash = status.0["policy"]["hash"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
    for part in [
        &format!("policy    2, {}, confirmed, begun 20", &hash[..12]),
        "! ",
        "more: pgfw status --verbose",
        "eth0      generic",
        "dropped   ",
        " service-closed: ",
        " new-tcp: ",
        "ends      allow 10.100.0.0/16 in 1h ",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    // The most frequent first.
    let drops = status.0["drops"].as_array().unwrap();
    let packets: Vec<u64> = drops.iter().map(|d| d["packets"].as_u64().unwrap()).collect();
    assert!(
        packets.is_sorted_by(|a, b| a >= b) && packets.len() >= 2,
        "{drops:?}"
    );
    let verbose = pgfw.ok(&["status", "--verbose"]);
    assert!(
        verbose.lines().filter(|line| line.starts_with("! ")).count() >= 20,
        "{verbose}"
    );

    pgfw.configure(CONFIG);
    pgfw.ok(&["reload", "--confirm", "1h"]);
    let shown = pgfw.ok(&["status"]);
    assert!(
        shown.contains("policy    3, ") && shown.contains("not confirmed yet"),
        "{shown}"
    );
    assert!(shown.contains("pending   policy 3, undone in "), "{shown}");
}
