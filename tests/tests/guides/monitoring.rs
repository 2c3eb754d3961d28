//! docs/guides/monitoring.md: exporters, an agent over UDP, pings.

use std::net::{SocketAddr, UdpSocket};

use pgfw_tests::lab::{Instance, Namespace, PATIENCE, PgCluster, Psql, Reach, run, tcp};

use super::guide::Guide;
use super::lan::{DB, Lan, NOBODY, SHORT, configured, counted, gets_in, is_refused, serve};

const MONITORING: u8 = 30;
const EXPORTERS: [u16; 2] = [9100, 9187];

/// How many of `count` pings, sent at once, are answered.
fn pings(from: &Namespace, count: u32) -> u32 {
    let mut ping = from.command("ping");
    ping.args([
        "-n",
        "-q",
        "-l",
        &count.to_string(),
        "-c",
        &count.to_string(),
        "-W",
        "1",
    ]);
    let said = run(ping.arg(DB.to_string())).stdout;
    let received = said.split(", ").find_map(|part| part.strip_suffix(" received"));
    received.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

#[test]
fn exporters_are_scraped_by_the_monitoring_server_alone() {
    let lan = Lan::new();
    let monitoring = lan.neighbour("monitoring", MONITORING);
    let nobody = lan.neighbour("nobody", NOBODY);
    let _exporters = EXPORTERS.map(|port| serve(&lan.db, port));
    let _gateway = serve(&monitoring, 9091);

    let pgfw = configured(&lan.db, &Guide::read("monitoring").block("pgfw.toml"), None);
    let _daemon = pgfw.enforce();
    for port in EXPORTERS {
        gets_in(&monitoring, DB, port);
        for stranger in [&nobody, &lan.client] {
            is_refused(&pgfw, stranger, port, "service-closed");
        }
        is_refused(&pgfw, &monitoring, port + 1, "new-tcp");
    }
    is_refused(&pgfw, &monitoring, 5432, "service-closed");
    // What is pushed needs nothing.
    gets_in(&lan.db, super::lan::v4(MONITORING), 9091);

    let before = pgfw.status().packets("echo-request-refused");
    assert_eq!(pings(&monitoring, 1), 1);
    assert_eq!(pings(&nobody, 1), 1);
    // `limit` is a number of pings, not of pingers.
    assert!((1..200).contains(&pings(&nobody, 200)));
    counted(&pgfw, "echo-request-refused", before);
}

#[test]
fn the_exporter_logs_in_over_loopback_and_from_nowhere_else() {
    let lan = Lan::new();
    let monitoring = lan.neighbour("monitoring", MONITORING);
    let cluster = PgCluster::start_new(&lan.db);
    cluster.sql("create role exporter login password 'watching' in role pg_monitor");
    let pgfw = configured(
        &lan.db,
        &Guide::read("monitoring").block("pgfw.toml"),
        Some(&cluster),
    );
    applied(&pgfw);
    let _daemon = pgfw.enforce();

    let exporter = |host: &str, psql: Psql<'_>| {
        let psql = psql
            .set("host", host)
            .set("user", "exporter")
            .set("dbname", "postgres");
        // As an exporter does on its own host; the config lets it, on loopback.
        psql.set("password", "watching")
            .set("sslmode", "disable")
            .query("select count(*) > 0 from pg_stat_activity")
    };
    let here = exporter("127.0.0.1", Psql::as_user(&lan.db, "nobody"));
    assert_eq!(here.expect_success(), "t\n");
    assert_eq!(tcp(&monitoring, DB, PgCluster::PORT, SHORT), Reach::Silent);
    // Where the port is opened by hand, the rules of the server still keep the login at home.
    pgfw.ok(&["allow", "10.10.0.30/32"]);
    let from_outside = exporter(&DB.to_string(), Psql::at(&monitoring)).stderr;
    assert!(from_outside.contains("pg_hba.conf rejects"), "{from_outside}");
}

fn applied(pgfw: &Instance<'_>) {
    for command in [["ca", "init"], ["cert", "server"], ["pg", "apply"]] {
        pgfw.ok(&command);
    }
}

#[test]
fn an_agent_answers_over_udp() {
    let lan = Lan::new();
    let monitoring = lan.neighbour("monitoring", MONITORING);
    let nobody = lan.neighbour("nobody", NOBODY);
    let agent = lan.db.within(|| UdpSocket::bind((DB, 161)).unwrap());
    let config = Guide::read("monitoring").block("SNMP, besides the above");
    let pgfw = configured(&lan.db, &config, None);
    let _daemon = pgfw.enforce();

    let asked = |from: &Namespace| {
        let manager = from.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        manager.send_to(b"get", SocketAddr::new(DB, 161)).unwrap();
        manager
    };
    let manager = asked(&monitoring);
    agent.set_read_timeout(Some(PATIENCE)).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = agent.recv_from(&mut buffer).unwrap();
    assert_eq!(
        from,
        SocketAddr::new(super::lan::v4(MONITORING), manager.local_addr().unwrap().port())
    );
    agent.send_to(b"value", from).unwrap();
    assert_eq!(manager.recv(&mut buffer).unwrap(), 5);

    for stranger in [&nobody, &lan.client] {
        let before = pgfw.status().packets("service-closed");
        asked(stranger);
        counted(&pgfw, "service-closed", before);
        agent.set_read_timeout(Some(SHORT)).unwrap();
        assert!(agent.recv(&mut buffer).is_err());
    }
}
