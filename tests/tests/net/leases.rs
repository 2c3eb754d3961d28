//! A host whose addresses come by DHCP keeps them although nothing is open.

use std::time::Duration;

use pgfw_tests::lab::{Child, Site, eventually, run};

use super::{DENY_ALL, configured};

/// A client whose first packet is lost on a loaded machine asks again after 4, 8 and 16 seconds (RFC 2131, 4.1).
const SEVERAL_TRIES: Duration = Duration::from_secs(60);

/// A server on the router for the database host's network, IPv4 and IPv6.
fn server(site: &Site) -> Child {
    Child::start(site.router.command("dnsmasq").args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--port=0",
        "--log-facility=-",
        "--log-dhcp",
        "--leasefile-ro",
        "--interface=db",
        "--dhcp-authoritative",
        "--dhcp-range=10.10.0.100,10.10.0.109,2m",
        "--dhcp-range=fd00:10::100,fd00:10::109,2m",
    ]))
    .talkative()
}

/// Debian's client, in the foreground.
fn client(site: &Site, family: &str) -> Child {
    // The shortest lease that the server gives is renewed after a minute.
    site.db
        .write("/etc/dhcp/soon.conf", "supersede dhcp-renewal-time 2;\n");
    Child::start(site.db.command("dhclient").args([
        family,
        "-d",
        "-v",
        "-cf",
        "/etc/dhcp/soon.conf",
        "-lf",
        &format!("/run/leases{family}"),
        "-pf",
        &format!("/run/dhclient{family}.pid"),
        "eth0",
    ]))
    .talkative()
}

#[test]
fn f27_ipv4_leases_are_obtained_and_renewed() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    for all in ["0.0.0.0/0", "10.10.0.0/24"] {
        pgfw.ok(&["deny", all]);
    }
    site.db.ip("address flush dev eth0");
    let server = server(&site);
    let client = client(&site, "-4");
    let acknowledged = |times| {
        let what = format!("the lease is acknowledged {times} times");
        eventually(&what, SEVERAL_TRIES, || {
            (server.stderr().matches("DHCPACK").count() >= times
                && client.stderr().matches("bound to 10.10.0.10").count() >= times)
                .then_some(())
        });
    };
    acknowledged(1);
    let shown = run(site.db.command("ip").args(["address", "show", "dev", "eth0"])).expect_success();
    assert!(shown.contains("inet 10.10.0.1"), "{shown}");
    acknowledged(2);
    assert!(pgfw.status().packets("dhcp-client") >= 2);
}

#[test]
fn f27_ipv6_leases_are_obtained_and_renewed() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    let _daemon = pgfw.enforce();
    pgfw.ok(&["deny", "::/0"]);
    let server = server(&site);
    let replied = |times| {
        let what = format!("the server replied {times} times");
        eventually(&what, SEVERAL_TRIES, || {
            (server.stderr().matches("DHCPREPLY").count() >= times).then_some(())
        });
    };
    let first = client(&site, "-6");
    eventually("the lease is used", SEVERAL_TRIES, || {
        let shown = run(site
            .db
            .command("ip")
            .args(["-6", "address", "show", "dev", "eth0"]));
        shown.expect_success().contains("fd00:10::1").then_some(())?;
        first.stderr().contains("RCV: Reply").then_some(())
    });
    let before = server.stderr().matches("DHCPREPLY").count();
    drop(first);
    // The shortest lease that the server gives is renewed after a minute; this one says "at once".
    let leases = site.db.read("/run/leases-6");
    let at_once: Vec<String> = leases
        .lines()
        .map(|line| match line.trim().split_once(' ') {
            Some(("renew", _)) => "renew 1;".to_owned(),
            Some(_) | None => line.to_owned(),
        })
        .collect();
    site.db.write("/run/leases-6", &at_once.join("\n"));
    let again = client(&site, "-6");
    eventually("the lease is renewed", SEVERAL_TRIES, || {
        again.stderr().contains("XMT: Renew").then_some(())
    });
    replied(before + 1);
    eventually("the client hears it", SEVERAL_TRIES, || {
        let log = again.stderr();
        let renewal = log.split_once("XMT: Renew")?.1;
        renewal.contains("RCV: Reply").then_some(())
    });
}
