//! Containers behind the database host's address.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use pgfw_tests::lab::{EchoServer, Namespace, PATIENCE, Site, Talk, address, join, run};

use super::{DENY_ALL, STRANGER, configured, counts, is_open, is_silent};

const CONTAINER: &str = "172.17.0.2";

/// A container in a network of its own behind NAT on the database host, as Docker makes one.
fn container(site: &Site) -> Namespace {
    let container = Namespace::new("container");
    join((&site.db, "docker0"), (&container, "eth0"));
    site.db.ip("address add 172.17.0.1/16 dev docker0");
    container.ip("address add 172.17.0.2/16 dev eth0\nroute add default via 172.17.0.1");
    site.db.sysctl("net/ipv4/ip_forward", "1");
    nat(site, "POSTROUTING -s 172.17.0.0/16 -o eth0 -j MASQUERADE");
    container
}

fn nat(site: &Site, rule: &str) {
    let mut iptables = site.db.command("iptables-nft");
    iptables.args(["-w", "-t", "nat", "-A"]).args(rule.split(' '));
    run(&mut iptables).expect_success();
}

fn forwarded(choice: &str) -> String {
    DENY_ALL.replace("[ssh]", &format!("forwarded = \"{choice}\"\n[ssh]"))
}

/// Whether a question over UDP is answered.
fn is_answered(from: &Namespace, server: &UdpSocket, to: SocketAddr) -> bool {
    let client = from.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.set_read_timeout(Some(super::SHORT)).unwrap();
    client.send_to(b"question", to).unwrap();
    let mut buffer = [0; 64];
    let (_, asker) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", asker).unwrap();
    client.recv(&mut buffer).is_ok()
}

fn pings(from: &Namespace, to: IpAddr) -> bool {
    let mut ping = from.command("ping");
    run(ping.args(["-n", "-c", "1", "-W", "1", &to.to_string()])).success()
}

#[test]
fn f30_a_tracked_container_gets_its_answers_and_a_dropped_one_none() {
    let site = Site::new();
    let container = container(&site);
    let _far = EchoServer::start(&site.stranger, "[::]:8080");
    let (to, db) = (address::STRANGER, address::DB);
    let dns = site
        .stranger
        .within(|| UdpSocket::bind(SocketAddr::new(to, 53)).unwrap());
    dns.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = SocketAddr::new(to, 53);
    assert!(is_answered(&container, &dns, question), "without pgfw");

    let pgfw = configured(&site, &forwarded("track"));
    let _daemon = pgfw.enforce();
    let mut talk = Talk::open_at_once(&container, to, 8080);
    assert!(talk.flows() && talk.carries_a_megabyte());
    assert!(is_answered(&container, &dns, question));
    assert!(pings(&container, to));
    assert!(pgfw.status().packets("answer") > 2);
    // The host itself, and what nobody asked for.
    assert!(Talk::open(&site.db, to, 8080).flows());
    for port in [8080, 5432] {
        assert!(is_silent(&site.stranger, db, port), "{port}");
    }
    let wire = pgfw_tests::lab::Wire::tcp(&site.stranger, to, db);
    wire.segment(8081, talk.local_port(), pgfw_common::frames::ACK);
    counts(&pgfw, "no-connection", 1);

    pgfw.configure(&forwarded("drop"));
    pgfw.ok(&["reload"]);
    assert_eq!(talk.say(super::SHORT), pgfw_tests::lab::Heard::Silence);
    assert!(is_silent(&container, to, 8080));
    assert!(!is_answered(&container, &dns, question));
    assert!(!pings(&container, to));
    assert!(Talk::open(&site.db, to, 8080).flows());

    // A policy that tracks again takes the connection up where its container speaks.
    pgfw.configure(&forwarded("track"));
    pgfw.ok(&["reload"]);
    assert!(talk.flows());
}

#[test]
fn f30_where_nat_is_present_attaching_without_a_choice_is_refused() {
    let site = Site::new();
    let pgfw = configured(&site, DENY_ALL);
    // Forwarding alone, or translation alone, is no sign of containers.
    site.db.sysctl("net/ipv4/ip_forward", "1");
    drop(pgfw.enforce());
    pgfw.ok(&["off"]);
    site.db.sysctl("net/ipv4/ip_forward", "0");

    let second = Site::new();
    let _container = container(&second);
    let pgfw = configured(&second, DENY_ALL);
    let refused = pgfw.pgfw(&["run"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("firewall.forwarded"),
        "{}",
        refused.stderr
    );
    for to in [address::DB, address::DB_V6] {
        assert_ne!(
            pgfw_tests::lab::tcp(&second.stranger, to, 9, super::SHORT),
            pgfw_tests::lab::Reach::Silent,
            "nothing is attached"
        );
    }
    pgfw.configure(&forwarded("drop"));
    let _daemon = pgfw.enforce();
    assert!(is_silent(&second.stranger, address::DB, 9));
    // What runs already is not taken off by a config without a choice, which then means "drop".
    pgfw.configure(DENY_ALL);
    pgfw.ok(&["reload"]);
    assert!(is_silent(&second.stranger, address::DB, 9));
}

#[test]
fn f30_a_published_container_port_is_no_bypass() {
    let site = Site::new();
    let container = container(&site);
    let _inside = EchoServer::start(&container, "0.0.0.0:5432");
    for port in [5432, 8432] {
        nat(
            &site,
            &format!("PREROUTING -i eth0 -p tcp --dport {port} -j DNAT --to-destination {CONTAINER}:5432"),
        );
    }
    let (db, _) = STRANGER[0];
    assert!(is_open(&site.stranger, db, 8432), "without pgfw");
    let published = |choice: &str, nets: &str| {
        let service = "[[service]]\nname = \"published\"\nports = [\"5432\"]\n";
        format!("{}{service}allow = [\"{nets}\"]\n", forwarded(choice))
    };
    let pgfw = configured(&site, DENY_ALL);
    pgfw.configure(&published("drop", "10.20.0.0/16"));
    let _daemon = pgfw.enforce();
    for choice in ["drop", "track"] {
        pgfw.configure(&published(choice, "10.20.0.0/16"));
        pgfw.ok(&["reload"]);
        for port in [5432, 8432] {
            assert!(is_silent(&site.stranger, db, port), "{choice}, {port}");
        }
        assert!(is_silent(&site.client, db, 8432), "{choice}");
        assert!(Talk::open(&site.client, db, 5432).flows(), "{choice}");
    }
    // Open to the world, a segment after the first needs a connection, which is known where it is tracked.
    pgfw.configure(&published("track", "0.0.0.0/0"));
    pgfw.ok(&["reload"]);
    let mut talk = Talk::open(&site.stranger, db, 5432);
    assert!(talk.flows() && talk.carries_a_megabyte());
    assert!(is_silent(&site.stranger, db, 8432));
}
