//! Checksums that the sender left to a NIC, packets that the stack has joined: the same verdicts.

use pgfw_tests::lab::{EchoServer, Namespace, Site, Talk, run};

use super::{CONFIG, DB, STRANGER, configured, is_silent};

fn offload(machine: &Namespace, device: &str, state: &str) {
    let mut ethtool = machine.command("ethtool");
    ethtool.args(["-K", device]);
    for feature in ["rx", "tx", "gro", "gso", "tso"] {
        ethtool.args([feature, state]);
    }
    run(&mut ethtool).expect_success();
}

fn verdicts_are_the_same(mode: &str) {
    let site = Site::new();
    let _servers = [5432, 22].map(|port| EchoServer::start(&site.db, &format!("[::]:{port}")));
    let _far = EchoServer::start(&site.stranger, "[::]:8080");
    let attach = format!("interfaces = [\"eth0\"]\nattach = \"{mode}\"");
    let pgfw = configured(&site, &CONFIG.replace("interfaces = [\"eth0\"]", &attach));
    let _daemon = pgfw.enforce();
    let ends = [
        (&*site.db, "eth0"),
        (&site.router, "db"),
        (&site.client, "eth0"),
        (&site.stranger, "eth0"),
    ];
    for state in ["on", "off"] {
        for (machine, device) in ends {
            offload(machine, device, state);
        }
        for (db, far) in STRANGER {
            for (from, to, port) in [
                (&site.client, db, 5432),
                (&site.stranger, db, 22),
                (&*site.db, far, 8080),
            ] {
                let mut talk = Talk::open_at_once(from, to, port);
                assert!(talk.carries_a_megabyte(), "{mode}, offloads {state}: {to} {port}");
            }
            assert!(
                is_silent(&site.stranger, db, 5432),
                "{mode}, offloads {state}: {db}"
            );
        }
    }
    let status = pgfw.status();
    let text = status.0["interfaces"][0]["reasons"].to_string();
    for broken in [
        "ipv4-total-length",
        "ipv6-payload-length",
        "tcp-offset",
        "no-connection",
    ] {
        assert_eq!(status.packets(broken), 0, "{broken}: {text}");
    }
    assert!(status.packets("service") > 0 && status.packets("established") > 0);
    assert_eq!(DB.len(), 2);
}

#[test]
fn f49_offloads_change_nothing_in_generic_mode() {
    verdicts_are_the_same("generic");
}

#[test]
fn f49_offloads_change_nothing_in_native_mode() {
    verdicts_are_the_same("native");
}
