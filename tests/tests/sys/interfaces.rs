//! Interfaces that are renamed, move, and stand where nobody looks.

use pgfw_tests::lab::foreign::attached;
use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, address, eventually, join};

use super::{CONFIG, configured, is_open, is_silent};

#[test]
fn f39_one_that_is_renamed_stays_covered_and_one_that_comes_to_match_is_covered() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    join((&site.router, "second"), (&site.db, "eth1"));
    let pgfw = configured(&site, &CONFIG.replace("[\"eth0\"]", "[\"eth0\", \"lan*\"]"));
    let _daemon = pgfw.enforce();
    assert_eq!(attached(&site.db, "eth1"), None);
    // Long before the daemon's next round.
    site.db
        .ip("link set eth1 down\nlink set eth1 name lan1\nlink set lan1 up");
    eventually("lan1 is covered", PATIENCE, || attached(&site.db, "lan1"));
    assert_eq!(pgfw.status().attention(), "");

    // Renamed away from the config's word: an open host would be the worse answer.
    let program = attached(&site.db, "eth0");
    site.db.ip(
        "link set eth0 down\nlink set eth0 name net0\nlink set net0 up\n\
         address add fd00:10::10/64 dev net0 nodad\nroute add default via 10.10.0.1\nroute add ::/0 via fd00:10::1",
    );
    eventually("the rename is noticed", PATIENCE, || {
        let attention = pgfw.status().attention();
        attention.contains("there is no interface eth0").then_some(())
    });
    assert_eq!(attached(&site.db, "net0"), program);
    assert!(is_silent(&site.stranger, address::DB, 5432));
    assert!(is_open(&site.client, address::DB, 5432));
    assert!(pgfw.ok(&["status"]).contains("net0"), "{}", pgfw.ok(&["status"]));
}

#[test]
fn f39_one_that_moves_to_another_namespace_is_let_go_and_covered_when_it_comes_back() {
    let site = Site::new();
    let elsewhere = Namespace::new("elsewhere");
    join((&site.router, "second"), (&site.db, "eth1"));
    let pgfw = configured(&site, &CONFIG.replace("eth0", "eth*"));
    let _daemon = pgfw.enforce();
    let pins = || {
        let names = site
            .db
            .within(|| std::fs::read_dir("/sys/fs/bpf/pgfw/links").map(Iterator::count));
        names.unwrap()
    };
    assert_eq!(pins(), 4);
    site.db.ip(&format!("link set eth1 netns {}", elsewhere.path()));
    eventually("what is left of it goes", PATIENCE, || {
        (pins() == 2).then_some(())
    });
    let there = pgfw_tests::lab::run(elsewhere.command("ip").args(["link"])).expect_success();
    assert!(there.contains("eth1") && !there.contains("xdp"), "{there}");
    assert_eq!(pgfw.status().state(), "enforcing");
    elsewhere.ip(&format!("link set eth1 netns {}", site.db.path()));
    site.db.ip("link set eth1 up");
    eventually("it is covered again", PATIENCE, || attached(&site.db, "eth1"));
    assert_eq!(pgfw.status().attention(), "");
}

#[test]
fn f39_postgresql_on_an_interface_without_a_policy_is_named() {
    let site = Site::new();
    join((&site.router, "second"), (&site.db, "eth1"));
    site.db.ip("address add 10.11.0.10/24 dev eth1");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let named = "PostgreSQL (main, port 5432) listens on eth1, and no policy of this pgfw stands there";
    assert!(!pgfw.status().attention().contains(named));
    for (at, found) in [
        ("0.0.0.0:5432", true),
        ("[::]:5432", true),
        ("10.11.0.10:5432", true),
        ("10.10.0.10:5432", false),
        ("127.0.0.1:5432", false),
        ("0.0.0.0:5433", false),
    ] {
        let _server = EchoServer::start(&site.db, at);
        assert_eq!(pgfw.status().attention().contains(named), found, "{at}");
    }
    let _server = EchoServer::start(&site.db, "0.0.0.0:5432");
    pgfw.configure(&CONFIG.replace("eth0", "eth*"));
    pgfw.ok(&["reload"]);
    assert!(!pgfw.status().attention().contains(named));
}
