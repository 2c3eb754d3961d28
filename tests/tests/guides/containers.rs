//! docs/guides/containers.md: a container behind the database host's address, and a port of it that is published.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use pgfw_tests::lab::{Namespace, PATIENCE, Reach, address, join, run, tcp};

use super::guide::Guide;
use super::lan::{DB, Lan, SHORT, configured, gets_in, is_refused, serve};

/// The host's address on `docker0`.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));
const PUBLISHED: u16 = 8080;
/// Published as well, and in no config.
const FORGOTTEN: u16 = 8081;

/// What Docker sets up: a network, NAT, and ports that lead to port 80 of the container.
fn container(lan: &Lan) -> Namespace {
    let container = Namespace::new("container");
    join((&lan.db, "docker0"), (&container, "eth0"));
    lan.db.ip("address add 172.17.0.1/16 dev docker0");
    container.ip("address add 172.17.0.2/16 dev eth0\nroute add default via 172.17.0.1");
    lan.db.sysctl("net/ipv4/ip_forward", "1");
    nat(lan, "POSTROUTING -s 172.17.0.0/16 -o eth0 -j MASQUERADE");
    for port in [PUBLISHED, FORGOTTEN] {
        nat(
            lan,
            &format!("PREROUTING -i eth0 -p tcp --dport {port} -j DNAT --to-destination 172.17.0.2:80"),
        );
    }
    container
}

fn nat(lan: &Lan, rule: &str) {
    let mut iptables = lan.db.command("iptables-nft");
    iptables.args(["-w", "-t", "nat", "-A"]).args(rule.split(' '));
    run(&mut iptables).expect_success();
}

/// Whether a question over UDP is answered.
fn is_answered(from: &Namespace, server: &UdpSocket, to: SocketAddr) -> bool {
    let client = from.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.set_read_timeout(Some(SHORT)).unwrap();
    client.send_to(b"question", to).unwrap();
    let mut buffer = [0; 16];
    let (_, asker) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", asker).unwrap();
    client.recv(&mut buffer).is_ok()
}

#[test]
fn a_container_gets_its_answers_and_only_declared_ports_are_published() {
    let lan = Lan::new();
    let container = container(&lan);
    let _web = serve(&container, 80);
    let _far = serve(&lan.stranger, 443);
    let _database = serve(&lan.db, 5432);
    let dns = lan
        .stranger
        .within(|| UdpSocket::bind((address::STRANGER, 53)).unwrap());
    dns.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = SocketAddr::new(address::STRANGER, 53);
    for port in [PUBLISHED, FORGOTTEN] {
        gets_in(&lan.stranger, DB, port);
    }

    let config = Guide::read("containers").block("pgfw.toml");
    assert!(config.contains("forwarded = \"track\"\n"));
    let without = config.replace("forwarded = \"track\"\n", "");
    let pgfw = configured(&lan.db, &without, None);
    let refused = pgfw.pgfw(&["run"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("firewall.forwarded"),
        "{}",
        refused.stderr
    );

    pgfw.configure(&config);
    let _daemon = pgfw.enforce();
    // What the container begins.
    assert!(gets_in(&container, address::STRANGER, 443).carries_a_megabyte());
    assert!(is_answered(&container, &dns, question));
    assert!(pgfw.status().packets("answer") > 2);
    // What is published, to whom it is declared.
    assert!(gets_in(&lan.client, DB, PUBLISHED).carries_a_megabyte());
    is_refused(&pgfw, &lan.stranger, PUBLISHED, "service-closed");
    for from in [&lan.client, &lan.stranger] {
        is_refused(&pgfw, from, FORGOTTEN, "new-tcp");
    }
    // The container's own port is no name for it out here.
    assert_eq!(tcp(&lan.client, DB, 80, SHORT), Reach::Silent);
    // The way over docker0 is not filtered.
    gets_in(&container, GATEWAY, 5432);
    is_refused(&pgfw, &lan.stranger, 5432, "service-closed");

    // The other choice.
    pgfw.configure(&config.replace("\"track\"", "\"drop\""));
    pgfw.ok(&["reload"]);
    assert_eq!(tcp(&container, address::STRANGER, 443, SHORT), Reach::Silent);
    assert!(!is_answered(&container, &dns, question));
}
