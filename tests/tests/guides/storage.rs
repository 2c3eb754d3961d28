//! docs/guides/storage.md: what this host mounts, and the calls that come back.

use std::net::{SocketAddr, UdpSocket};

use pgfw_tests::lab::{Namespace, PATIENCE};

use super::guide::Guide;
use super::lan::{DB, Lan, NOBODY, configured, counted, gets_in, is_refused, serve, v4};

const STORAGE: u8 = 50;
const NFS: u16 = 2049;
const ISCSI: u16 = 3260;

#[test]
fn mounts_and_sessions_go_on_whatever_pgfw_does() {
    let lan = Lan::new();
    let storage = lan.neighbour("storage", STORAGE);
    let _servers = [NFS, ISCSI].map(|port| serve(&storage, port));
    let _own = [NFS, ISCSI, 5432].map(|port| serve(&lan.db, port));
    let to = v4(STORAGE);
    // Mounted before there is a pgfw.
    let mut mounts = [NFS, ISCSI].map(|port| gets_in(&lan.db, to, port));

    let config = Guide::read("storage").block("pgfw.toml");
    let pgfw = configured(&lan.db, &config, None);
    let daemon = pgfw.enforce();
    let mut goes_on = || {
        assert!(
            mounts
                .iter_mut()
                .all(|mount| mount.flows() && mount.carries_a_megabyte())
        );
        for port in [NFS, ISCSI] {
            gets_in(&lan.db, to, port);
        }
    };
    goes_on();
    // The storage server is a stranger as soon as it begins.
    for port in [NFS, ISCSI] {
        is_refused(&pgfw, &storage, port, "new-tcp");
    }
    is_refused(&pgfw, &storage, 5432, "service-closed");
    gets_in(&lan.client, DB, 5432);

    daemon.kill();
    goes_on();
    let _daemon = pgfw.start();
    goes_on();
    pgfw.ok(&["deny", "10.10.0.50/32"]);
    goes_on();
    is_refused(&pgfw, &storage, 5432, "service-denied");
    pgfw.ok(&["off"]);
    goes_on();
}

/// Whether a call over UDP reaches this host.
fn calls(from: &Namespace, server: &UdpSocket) -> bool {
    let client = from.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let port = server.local_addr().unwrap().port();
    client.send_to(b"granted", SocketAddr::new(DB, port)).unwrap();
    let mut buffer = [0; 16];
    server
        .recv(&mut buffer)
        .is_ok_and(|length| &buffer[..length] == b"granted")
}

#[test]
fn a_server_of_nfs_version_3_calls_back_and_nobody_else_does() {
    let lan = Lan::new();
    let storage = lan.neighbour("storage", STORAGE);
    let nobody = lan.neighbour("nobody", NOBODY);
    let guide = Guide::read("storage");
    // The ports that the guide sets are the ones that it opens.
    let nfs = guide.block("/etc/nfs.conf");
    let set = |key: &str| {
        let values = nfs
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.trim().strip_prefix("= "));
        values
            .map(|value| value.parse::<u16>().unwrap())
            .collect::<Vec<_>>()
    };
    let tcp = [&[111][..], &set("port ")].concat();
    let udp = [111, set("udp-port ")[0], 662];
    assert_eq!((tcp.as_slice(), udp), (&[111, 32803, 662][..], [111, 32769, 662]));
    let _daemons: Vec<_> = tcp.iter().map(|port| serve(&lan.db, *port)).collect();
    let calls_in = udp.map(|port| lan.db.within(|| UdpSocket::bind(("0.0.0.0", port)).unwrap()));

    let config = guide.block("NFS version 3 with locks, besides the above");
    let pgfw = configured(&lan.db, &config, None);
    let _daemon = pgfw.enforce();
    for port in tcp {
        gets_in(&storage, DB, port);
        for stranger in [&nobody, &lan.client] {
            is_refused(&pgfw, stranger, port, "service-closed");
        }
        is_refused(&pgfw, &storage, port + 1, "new-tcp");
    }
    for server in calls_in {
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(calls(&storage, &server));
        let before = pgfw.status().packets("service-closed");
        server.set_read_timeout(Some(super::lan::SHORT)).unwrap();
        assert!(!calls(&nobody, &server));
        counted(&pgfw, "service-closed", before);
    }
}
