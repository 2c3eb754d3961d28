//! Nobody is locked out by a slip.

use pgfw_tests::lab::{EchoServer, Site, Sshd, Talk, address};

use super::{CONFIG, configured, is_open, is_silent, refused};

#[test]
fn f46_a_deny_that_would_cut_a_live_ssh_session_is_refused_and_the_peer_named() {
    let site = Site::new();
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for (peer, network, to) in [
        ("192.168.1.10", address::STRANGER_NETWORK, address::DB),
        ("fd00:30::10", address::STRANGER_NETWORK_V6, address::DB_V6),
    ] {
        let mut session = Talk::open(&site.stranger, to, 22);
        for arguments in [
            &["deny", network][..],
            &["deny", network, "--service", "ssh"],
            &["deny", peer, "--for", "1h"],
        ] {
            let said = pgfw.pgfw(arguments);
            refused(&said, 1, &["would cut the live SSH session", peer], "--force");
        }
        assert!(session.flows() && is_open(&site.stranger, to, 22));
        let list = pgfw.ok(&["list"]);
        assert!(!list.contains("deny"), "{list}");

        // Elsewhere, or for another service, it is nobody's session.
        pgfw.ok(&["deny", network, "--service", "main"]);
        assert!(session.flows());
        pgfw.ok(&["remove", network, "--service", "main"]);

        pgfw.ok(&["deny", network, "--force"]);
        assert!(session.ends_by_itself(std::time::Duration::from_secs(1)));
        assert!(is_silent(&site.stranger, to, 22));
        pgfw.ok(&["remove", network]);
        assert!(is_open(&site.stranger, to, 22));
    }
}

#[test]
fn f46_a_reload_that_would_cut_a_live_ssh_session_is_refused() {
    let site = Site::new();
    let _ssh = EchoServer::start(&site.db, "[::]:22");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    let mut session = Talk::open(&site.stranger, address::DB, 22);
    pgfw.configure(&format!("{CONFIG}[ssh]\nallow = [\"10.20.0.0/16\"]\n"));
    refused(
        &pgfw.pgfw(&["reload"]),
        1,
        &["would cut the live SSH session from 192.168.1.10"],
        "pgfw allow 192.168.1.10 --service ssh",
    );
    assert!(is_open(&site.stranger, address::DB, 22));
    // As it says.
    pgfw.ok(&["allow", "192.168.1.10", "--service", "ssh"]);
    pgfw.ok(&["reload"]);
    assert!(session.flows() && is_open(&site.stranger, address::DB, 22));
    assert!(is_silent(&site.stranger, address::DB_V6, 22));
    // Now this entry is all that lets the session's next one in.
    refused(
        &pgfw.pgfw(&["remove", "192.168.1.10", "--service", "ssh"]),
        1,
        &["would cut the live SSH session"],
        "--force",
    );
    drop(session);
    pgfw.ok(&["remove", "192.168.1.10", "--service", "ssh", "--force"]);
    assert!(is_silent(&site.stranger, address::DB, 22));
}

#[test]
fn f46_ssh_is_found_where_sshd_listens_whatever_the_config_says() {
    let site = Site::new();
    let _sshd = Sshd::start(&site.db, 2222);
    let session = Talk::open(&site.stranger, address::DB, 2222);
    let pgfw = configured(&site, CONFIG);
    refused(
        &pgfw.pgfw(&["run"]),
        1,
        &["would cut the live SSH session from 192.168.1.10 to port 2222"],
        "ssh.ports",
    );
    super::nothing_is_on(&site.db, "eth0");
    pgfw.configure(&format!("{CONFIG}[ssh]\nports = [2222]\n"));
    let _daemon = pgfw.enforce();
    // The port goes, or the address.
    for text in ["ports = [22]", "ports = [2222]\nallow = [\"10.20.0.0/16\"]"] {
        pgfw.configure(&format!("{CONFIG}[ssh]\n{text}\n"));
        let said = pgfw.pgfw(&["reload"]);
        refused(&said, 1, &["192.168.1.10 to port 2222"], "--force");
        assert!(is_open(&site.stranger, address::DB, 2222));
    }
    drop(session);
    pgfw.ok(&["reload", "--force"]);
    assert!(is_silent(&site.stranger, address::DB, 2222));
}

#[test]
fn f46_a_resolver_and_the_dhcp_server_are_not_cut() {
    let site = Site::new();
    let dns = "[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [\"53\"]\n";
    site.db.within(|| {
        let _ = std::fs::remove_file("/etc/resolv.conf");
        std::fs::write("/etc/resolv.conf", "nameserver 10.20.0.10\n").unwrap();
        std::fs::create_dir_all("/run/systemd/netif/leases").unwrap();
        std::fs::write(
            "/run/systemd/netif/leases/2",
            "ADDRESS=10.10.0.10\nSERVER_ADDRESS=10.10.0.1\n",
        )
        .unwrap();
    });
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    // Once port 53 is a service's, answers to it are judged by whom the service lets in.
    pgfw.configure(&format!("{CONFIG}{dns}allow = [\"192.168.1.0/24\"]\n"));
    refused(
        &pgfw.pgfw(&["reload"]),
        1,
        &["this change would cut the resolver 10.20.0.10"],
        "--force",
    );
    // So does a range in which no port is left to ask from; a single port does not.
    let range = |ports: &str| {
        dns.replace("[\"53\"]", &format!("[\"{ports}\"]"))
            .replace("\"dns\"", "\"all\"")
    };
    site.db.sysctl("net/ipv4/ip_local_port_range", "40000 40009");
    pgfw.configure(&format!("{CONFIG}{}", range("40000-40009")));
    refused(
        &pgfw.pgfw(&["reload"]),
        1,
        &["would cut the resolver 10.20.0.10"],
        "--force",
    );
    pgfw.configure(&format!("{CONFIG}{}", range("40000")));
    pgfw.ok(&["reload"]);
    pgfw.configure(&format!("{CONFIG}{dns}allow = [\"10.20.0.0/16\"]\n"));
    pgfw.ok(&["reload"]);
    let said = pgfw.pgfw(&["deny", "10.20.0.0/16", "--service", "dns"]);
    refused(&said, 1, &["would cut the resolver 10.20.0.10"], "--force");
    pgfw.ok(&["deny", "10.20.0.0/16", "--service", "main"]);

    pgfw.configure(&CONFIG.replace("[[postgres]]", "dhcp_client = false\n[[postgres]]"));
    let said = pgfw.pgfw(&["reload"]);
    refused(&said, 1, &["would cut the DHCP server 10.10.0.1"], "dhcp_client");
    // Refused by the program itself, once it was loaded: nothing of it stays.
    assert_eq!(pgfw.status().0["generation"], 3);
    assert!(pgfw.status().0["pending"].is_null());
    pgfw.ok(&["reload", "--force"]);
    // Of a lease on another address this host does not live.
    site.db.write(
        "/run/systemd/netif/leases/2",
        "ADDRESS=10.10.0.11\nSERVER_ADDRESS=10.10.0.1\n",
    );
    pgfw.configure(CONFIG);
    pgfw.ok(&["reload"]);
    pgfw.configure(&CONFIG.replace("[[postgres]]", "dhcp_client = false\n[[postgres]]"));
    pgfw.ok(&["reload"]);
}

#[test]
fn f46_a_deny_of_everything_leaves_gateway_and_neighbours_alone() {
    let site = Site::new();
    let _server = EchoServer::start(&site.db, "[::]:5432");
    let pgfw = configured(&site, CONFIG);
    let _daemon = pgfw.enforce();
    for net in ["10.10.0.0/24", "0.0.0.0/0", "::/0"] {
        pgfw.ok(&["deny", net, "--force"]);
    }
    pgfw.configure(&CONFIG.replace("10.20.0.0/16", "10.21.0.0/16"));
    // The gateways are asked about, by their packets, and pass.
    pgfw.ok(&["reload"]);
    site.db.ip("neigh flush all");
    let _far = EchoServer::start(&site.client, "[::]:8080");
    let mut far = Talk::open_to(&site.db, (address::CLIENT, 8080).into());
    assert!(far.flows());
}
