//! nmap with all its scans and tricks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pgfw_tests::lab::{EchoServer, Namespace, PortState, Site, port_scan};

use super::{CLIENT_ONLY, CONFIG, DB, configured};

const SCANS: [&str; 6] = ["-sS", "-sA", "-sF", "-sN", "-sX", "-sM"];

const TRICKS: [&[&str]; 5] = [&[], &["-f"], &["--mtu", "8"], &["-g", "53"], &["-g", "20"]];

const PORTS: &str = "22,23,5432,5433";

/// nmap waits most of the time, so the tricks go beside each other.
fn sweep(from: &Namespace, to: IpAddr, judge: impl Fn(&str, &[&str], &BTreeMap<u16, PortState>) + Sync) {
    std::thread::scope(|scope| {
        for trick in TRICKS {
            // nmap fragments IPv4 only.
            if to.is_ipv6() && (trick.contains(&"-f") || trick.contains(&"--mtu")) {
                continue;
            }
            let judge = &judge;
            scope.spawn(move || {
                for scan in SCANS {
                    let how = [&[scan, "--max-rtt-timeout", "100ms"], trick].concat();
                    let found = port_scan(from, to, PORTS, &how);
                    assert_eq!(found.len(), 4, "{how:?} {to}");
                    judge(scan, trick, &found);
                }
            });
        }
    });
}

/// What a scan says of a port from which nothing came.
fn nothing(scan: &str) -> PortState {
    match scan {
        "-sS" | "-sA" => PortState::Filtered,
        _ => PortState::OpenOrFiltered,
    }
}

#[test]
fn f12_a_stranger_finds_nothing_with_any_scan() {
    let site = Site::new();
    let _servers = [22, 5432].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let pgfw = configured(&site, CLIENT_ONLY);
    let _daemon = pgfw.enforce();
    for to in DB {
        sweep(&site.stranger, to, |scan, trick, found| {
            let all = found.values().all(|state| *state == nothing(scan));
            assert!(all, "{scan} {trick:?} {to}: {found:?}");
        });
    }
}

#[test]
fn f12_an_allowed_network_finds_its_services_only() {
    let site = Site::new();
    let _servers = [22, 23, 5432, 5433].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let pgfw = configured(&site, CLIENT_ONLY);
    let _daemon = pgfw.enforce();
    for to in DB {
        sweep(&site.client, to, |scan, trick, found| {
            for (port, state) in found {
                let is_service = [22, 5432].contains(port);
                // In fragments of eight bytes no header is whole.
                let is_tiny = trick.contains(&"-f") || trick.contains(&"--mtu");
                let expected = match scan {
                    "-sS" if is_service && !is_tiny => PortState::Open,
                    "-sA" if is_service && !is_tiny => PortState::Unfiltered,
                    "-sM" if is_service && !is_tiny => PortState::Closed,
                    _ => nothing(scan),
                };
                assert_eq!(*state, expected, "{scan} {trick:?} {to} {port}: {found:?}");
            }
        });
    }
}

#[test]
fn f12_ssh_that_is_open_to_the_world_is_found_by_its_syn_only() {
    let site = Site::new();
    let _servers = [22, 5432].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for to in DB {
        sweep(&site.stranger, to, |scan, trick, found| {
            let is_tiny = trick.contains(&"-f") || trick.contains(&"--mtu");
            for (port, state) in found {
                let expected = match (scan, port) {
                    ("-sS", 22) if !is_tiny => PortState::Open,
                    _ => nothing(scan),
                };
                assert_eq!(*state, expected, "{scan} {trick:?} {to} {port}: {found:?}");
            }
        });
    }
}
