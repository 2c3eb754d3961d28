//! The way out on kernels without TCX: a filter that anybody may delete.

use pgfw_tests::lab::guest::lacking;
use pgfw_tests::lab::{Instance, PATIENCE, Site, eventually, run};

use super::configured;

/// What `tc` shows of the way out.
fn filters(pgfw: &Instance<'_>) -> String {
    let mut tc = pgfw.host().command("tc");
    run(tc.args(["filter", "show", "dev", "eth0", "egress"])).stdout
}

fn tc(pgfw: &Instance<'_>, arguments: &[&str]) {
    run(pgfw.host().command("tc").args(arguments)).expect_success();
}

fn qdiscs(pgfw: &Instance<'_>) -> String {
    run(pgfw.host().command("tc").args(["qdisc", "show", "dev", "eth0"])).expect_success()
}

/// Whether this kernel needs the filter; says so where not.
fn needed(pgfw: &Instance<'_>) -> bool {
    let verbose = pgfw.ok(&["status", "--verbose"]);
    let needs = verbose.contains("way out: clsact");
    if !needs {
        assert!(verbose.contains("way out: TCX link"), "{verbose}");
        lacking("the need for clsact, since it has TCX");
    }
    needs
}

/// DNS over UDP: an answer comes in only when the way out has noted the question.
fn answers(site: &Site) -> bool {
    let server = site
        .router
        .within(|| std::net::UdpSocket::bind("10.10.0.1:53"))
        .unwrap();
    let asking = site
        .db
        .within(|| std::net::UdpSocket::bind("10.10.0.10:0"))
        .unwrap();
    for socket in [&server, &asking] {
        socket
            .set_read_timeout(Some(std::time::Duration::from_millis(700)))
            .unwrap();
    }
    asking.send_to(b"?", "10.10.0.1:53").unwrap();
    let mut byte = [0];
    let (_, from) = server.recv_from(&mut byte).unwrap();
    server.send_to(b"!", from).unwrap();
    asking.recv_from(&mut byte).is_ok()
}

#[test]
fn f20_the_filter_is_adopted_at_restart_and_goes_with_off() {
    let site = Site::new();
    let pgfw = configured(&site, "eth0");
    let daemon = pgfw.enforce();
    if !needed(&pgfw) {
        return;
    }
    let first = filters(&pgfw);
    assert_eq!(first.matches(" handle ").count(), 1, "{first}");
    assert!(first.contains("pgfw_egress"), "{first}");
    assert!(answers(&site));
    daemon.kill();
    assert!(answers(&site), "with the daemon dead");
    let daemon = pgfw.start();
    assert_eq!(filters(&pgfw), first, "adopted, not added once more");
    daemon.kill();
    pgfw.ok(&["off"]);
    assert_eq!(filters(&pgfw), "");
    assert!(!qdiscs(&pgfw).contains("clsact"), "{}", qdiscs(&pgfw));
    assert_eq!(pgfw.host().pins(), [""; 0]);
}

#[test]
fn f37_what_others_have_in_clsact_stays() {
    let site = Site::new();
    let pgfw = configured(&site, "eth0");
    tc(&pgfw, &["qdisc", "add", "dev", "eth0", "clsact"]);
    let daemon = pgfw.enforce();
    if !needed(&pgfw) {
        return;
    }
    assert!(filters(&pgfw).contains("pgfw_egress"));
    drop(daemon);
    pgfw.ok(&["off"]);
    assert_eq!(filters(&pgfw), "");
    assert!(qdiscs(&pgfw).contains("clsact"), "it was there before");
}

#[test]
fn f20_a_deleted_qdisc_is_repaired_and_its_answers_come_again() {
    let site = Site::new();
    let pgfw = configured(&site, "eth0");
    let _daemon = pgfw.enforce();
    if !needed(&pgfw) {
        return;
    }
    assert!(answers(&site));
    tc(&pgfw, &["qdisc", "del", "dev", "eth0", "clsact"]);
    eventually("the filter is back", PATIENCE, || {
        filters(&pgfw).contains("pgfw_egress").then_some(())
    });
    assert!(answers(&site));
    assert!(pgfw.ok(&["status"]).starts_with("Protected"));
    assert_eq!(pgfw.status().attention(), "");
}
