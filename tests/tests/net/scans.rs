//! What a port scan finds.

use std::collections::BTreeMap;

use pgfw_common::frames::{ACK, FIN, PSH, RST, SYN};
use pgfw_tests::lab::{EchoServer, PATIENCE, PortState, Site, Sshd, Talk, Wire, port_scan};

use super::{CLIENT_ONLY, CONFIG, DB, STRANGER, configured, counts};

/// Segments that no new connection begins with; a host without a filter answers most of them with a reset.
const PROBES: [u8; 7] = [ACK, SYN | ACK, FIN | ACK, PSH | ACK, RST, RST | ACK, FIN];

const PORTS: [u16; 2] = [22, 5432];

#[test]
fn f15_a_listener_is_no_connection() {
    let site = Site::new();
    let _servers = PORTS.map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));

    // Without pgfw the same probe is answered.
    for (db, own) in STRANGER {
        let wire = Wire::tcp(&site.stranger, own, db);
        for port in PORTS {
            wire.segment(40_000, port, ACK);
            assert_eq!(wire.answer(40_000, port, PATIENCE).flags, RST);
        }
    }

    let pgfw = configured(&site, CLIENT_ONLY);
    let _daemon = pgfw.enforce();
    let mut dropped = 0;
    for (db, own) in STRANGER {
        // The listeners are busy with others, who stay connected.
        let mut others = PORTS.map(|port| Talk::open(&site.client, db, port));
        let wire = Wire::tcp(&site.stranger, own, db);
        for port in PORTS {
            for flags in PROBES {
                wire.segment(40_000, port, flags);
            }
            dropped += PROBES.len() as u64 - 1;
            counts(&pgfw, "no-connection", dropped);
            // FIN alone is no segment of any connection, whoever sends it.
            counts(&pgfw, "tcp-flags", dropped / 6);
            wire.segment(40_000, port, SYN);
        }
        counts(&pgfw, "service-closed", dropped / 6);
        assert_eq!(wire.heard(), [], "{db}");
        for talk in &mut others {
            assert!(talk.flows());
        }
    }
}

#[test]
fn f15_a_service_that_is_open_to_the_world_shows_nothing_to_probes() {
    for port in PORTS {
        shows_nothing_to_probes(port);
    }
}

fn shows_nothing_to_probes(port: u16) {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, &format!("[::]:{port}"));
    let everybody = CONFIG.replace("\"10.20.0.0/16\", \"fd00:20::/64\"", "\"0.0.0.0/0\", \"::/0\"");
    let pgfw = configured(&site, &everybody);
    let _daemon = pgfw.enforce();
    let mut dropped = 0;
    for (db, own) in STRANGER {
        let mut session = Talk::open(&site.stranger, db, port);
        let wire = Wire::tcp(&site.stranger, own, db);
        let near = session.local_port() ^ 1;
        for from in [40_000, near] {
            for flags in PROBES {
                wire.segment(from, port, flags);
            }
            dropped += PROBES.len() as u64 - 1;
        }
        counts(&pgfw, "no-connection", dropped);
        let theirs = session.local_port();
        assert!(
            wire.heard().iter().all(|s| s.from == port && s.to == theirs),
            "{db}"
        );
        assert!(session.flows(), "{db}");
    }
}

#[test]
fn f15_scans_without_a_syn_find_nothing() {
    let site = Site::new();
    let _servers = PORTS.map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let scans = [
        ("-sA", PortState::Filtered),
        ("-sF", PortState::OpenOrFiltered),
        ("-sM", PortState::OpenOrFiltered),
        ("-sN", PortState::OpenOrFiltered),
        ("-sX", PortState::OpenOrFiltered),
    ];
    for to in DB {
        for (scan, nothing) in scans {
            let found = port_scan(&site.stranger, to, "22,23,5432,5433", &[scan]);
            assert_eq!(found.len(), 4);
            assert!(found.values().all(|s| *s == nothing), "{scan} {to}: {found:?}");
        }
    }
}

#[test]
fn a_scan_of_a_thousand_ports_finds_what_is_meant_to_be_found() {
    let site = Site::new();
    let _sshd = Sshd::start(&site.db, 22);
    let _servers = [5432, 80, 5433].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let open = |found: &BTreeMap<u16, PortState>| -> Vec<u16> {
        let others = found.values().filter(|s| **s != PortState::Open);
        assert!(others.clone().all(|s| *s == PortState::Filtered), "{found:?}");
        let open = found.iter().filter(|(_, s)| **s == PortState::Open);
        open.map(|(port, _)| *port).collect()
    };
    for to in DB {
        let found = port_scan(&site.stranger, to, "1-1024,5430-5435", &["-sS"]);
        assert_eq!(found.len(), 1030);
        assert_eq!(open(&found), [22], "the stranger at {to}");
        let found = port_scan(&site.client, to, "1-100,5430-5435", &["-sS"]);
        assert_eq!(open(&found), [22, 5432], "the client at {to}");
    }
}
