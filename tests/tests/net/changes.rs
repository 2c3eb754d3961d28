//! `allow`, `deny`, `remove` on live traffic.

use std::time::Duration;

use pgfw_tests::lab::{EchoServer, Heard, Site, Talk, address};

use super::{CONFIG, DB, STRANGER, configured, is_open, is_silent};

const NETWORKS: [&str; 2] = [address::STRANGER_NETWORK, address::STRANGER_NETWORK_V6];

/// A case's "within a second".
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn allow_is_in_the_kernel_when_it_returns() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for ((db, far), network) in STRANGER.into_iter().zip(NETWORKS) {
        let check = ["check", &far.to_string(), "--quiet"];
        assert!(is_silent(&site.stranger, db, 5432), "{network}");
        assert_eq!(pgfw.pgfw(&check).code, Some(1), "{network}");
        pgfw.ok(&["allow", network]);
        // The first segment counts: none is sent again within this time.
        Talk::open_at_once(&site.stranger, db, 5432);
        assert_eq!(pgfw.pgfw(&check).code, Some(0), "{network}");
        pgfw.ok(&["remove", network]);
        assert!(is_silent(&site.stranger, db, 5432), "{network}");
        assert_eq!(pgfw.pgfw(&check).code, Some(1), "{network}");
    }
}

#[test]
fn allow_opens_one_service_and_no_more_than_its_network() {
    let site = Site::new();
    let _servers = [5432, 9100, 22].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let service = "[[service]]\nname = \"exporter\"\nports = [\"9100\"]\n";
    let pgfw = configured(&site, &format!("{CONFIG}{service}"));
    let _daemon = pgfw.enforce();
    pgfw.ok(&["allow", "192.168.1.10", "--service", "exporter"]);
    assert!(is_open(&site.stranger, address::DB, 9100));
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_silent(&site.stranger, address::DB_V6, 9100));
    // Next to the stranger's address, on both sides.
    pgfw.ok(&["remove", "192.168.1.10", "--service", "exporter"]);
    for beside in ["192.168.1.8/31", "192.168.1.11", "192.168.0.0/24"] {
        pgfw.ok(&["allow", beside]);
    }
    assert!(is_silent(&site.stranger, address::DB, 5432));
    pgfw.ok(&["allow", "192.168.1.10/31"]);
    assert!(is_open(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.stranger, address::DB, 22));
}

#[test]
fn f23_remove_drains_and_cut_and_deny_end_what_is_established() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let _far = EchoServer::start(&site.stranger, "[::]:8080");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for ((db, far), network) in STRANGER.into_iter().zip(NETWORKS) {
        let mut outbound = Talk::open(&site.db, far, 8080);
        let mut others = Talk::open(&site.client, db, 5432);

        pgfw.ok(&["allow", network]);
        let mut drains = Talk::open(&site.stranger, db, 5432);
        pgfw.ok(&["remove", network]);
        assert!(drains.flows() && drains.carries_a_megabyte(), "{network}");
        assert!(is_silent(&site.stranger, db, 5432), "{network}");

        pgfw.ok(&["allow", network]);
        let mut idle = Talk::open(&site.stranger, db, 5432);
        let said = pgfw.ok(&["remove", network, "--cut"]);
        assert!(idle.ends_by_itself(SECOND), "{network}");
        assert!(drains.ends_by_itself(SECOND), "{network}");
        assert!(said.contains("2 established"), "{said}");

        pgfw.ok(&["allow", network]);
        let mut idle = Talk::open(&site.stranger, db, 5432);
        assert!(idle.flows());
        pgfw.ok(&["deny", network]);
        assert!(idle.ends_by_itself(SECOND), "{network}");
        assert!(is_silent(&site.stranger, db, 5432), "{network}");

        // Nobody else, and nothing that this host began.
        assert!(outbound.flows() && others.flows(), "{network}");
        assert!(Talk::open(&site.db, far, 8080).flows(), "{network}");
        assert_eq!(others.say(SECOND), Heard::Echo);
    }
}

#[test]
fn deny_wins_over_every_allow_and_what_it_covered_comes_back_with_remove() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let to = address::DB;
    // A longer allow below a shorter deny, and a shorter one above.
    for allow in ["192.168.1.10", "192.168.0.0/16", "0.0.0.0/0"] {
        pgfw.ok(&["allow", allow]);
        assert!(is_open(&site.stranger, to, 5432), "{allow}");
        pgfw.ok(&["deny", "192.168.1.0/24"]);
        assert!(is_silent(&site.stranger, to, 5432), "{allow}");
        pgfw.ok(&["remove", "192.168.1.0/24"]);
        assert!(is_open(&site.stranger, to, 5432), "{allow}");
        pgfw.ok(&["remove", allow]);
        assert!(is_silent(&site.stranger, to, 5432), "{allow}");
    }
    for to in DB {
        assert!(is_open(&site.client, to, 5432));
    }
}
