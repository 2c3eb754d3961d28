//! docs/guides/vrrp.md: a real keepalived on two nodes, and advertisements of every form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{SockaddrIn, SockaddrIn6, bind, setsockopt, sockopt};
use pgfw_tests::lab::{Child, Heard, Host, Instance, Namespace, PATIENCE, eventually, run};

use super::guide::Guide;
use super::lan::{
    DB, Lan, NOBODY, SHORT, configured, counted, gets_in, is_refused_at, link_local, serve, v4,
};

const PEER: u8 = 11;
const VRRP: u8 = 112;
const AH: u8 = 51;
/// The address that moves.
const MOVING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 100));
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// keepalived by the guide's settings, and a priority of its own.
fn keepalived(node: &Host, priority: u8) -> Child {
    let settings = Guide::read("vrrp").block("/etc/keepalived/keepalived.conf");
    assert!(settings.contains("priority 100\n"));
    let settings = settings.replace("priority 100", &format!("priority {priority}"));
    node.write("/etc/keepalived/keepalived.conf", &settings);
    let mut command = node.command("/usr/sbin/keepalived");
    command.args(["--dont-fork", "--log-console", "--vrrp", "--dont-release-vrrp"]);
    Child::start(command.current_dir("/")).talkative()
}

fn holds_the_address(node: &Namespace) -> bool {
    let mut ip = node.command("ip");
    run(ip.args(["-4", "address", "show", "dev", "eth0"]))
        .expect_success()
        .contains("10.10.0.100/24")
}

#[track_caller]
fn takes_the_address(node: &Namespace) {
    let what = format!("{} takes the address", node.name());
    eventually(&what, PATIENCE, || holds_the_address(node).then_some(()));
}

/// An advertisement of version 2 for the guide's router 51 (RFC 3768, 5.1).
fn advertisement(priority: u8) -> Vec<u8> {
    let mut message = vec![0x21, 51, priority, 1, 0, 1, 0, 0, 10, 10, 0, 100];
    message.extend([0; 8]);
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    message[6..8].copy_from_slice(&folded.to_be_bytes());
    message
}

/// A raw socket of this protocol; the kernel writes the IP header.
fn raw(on: &Namespace, protocol: u8, v6: bool) -> UdpSocket {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    on.within(|| {
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) };
        assert!(fd >= 0, "no raw socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// Sends an advertisement as VRRP asks: from the node's own address on this link, with a TTL of 255.
fn advertise(from: &Namespace, source: IpAddr, to: IpAddr, protocol: u8, priority: u8) {
    let socket = raw(from, protocol, source.is_ipv6());
    let fd = socket.as_raw_fd();
    let to = match (source, to) {
        (IpAddr::V4(source), to) => {
            bind(fd, &SockaddrIn::from(SocketAddrV4::new(source, 0))).unwrap();
            socket.set_ttl(255).unwrap();
            socket.set_multicast_ttl_v4(255).unwrap();
            SocketAddr::new(to, 0)
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let scope = from.ifindex("eth0");
            setsockopt(&socket, sockopt::Ipv6MulticastHops, &255).unwrap();
            bind(fd, &SockaddrIn6::from(SocketAddrV6::new(source, 0, 0, scope))).unwrap();
            SocketAddrV6::new(to, 0, 0, scope).into()
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => panic!("one family"),
    };
    socket.send_to(&advertisement(priority), to).unwrap();
}

/// What keepalived would hear on the database host: a raw socket in the group of its family.
fn listener(host: &Host, protocol: u8, v6: bool) -> UdpSocket {
    let socket = raw(host, protocol, v6);
    if v6 {
        socket.join_multicast_v6(&GROUP_V6, host.ifindex("eth0")).unwrap();
    } else {
        socket
            .join_multicast_v4(&GROUP_V4, &Ipv4Addr::new(10, 10, 0, 10))
            .unwrap();
    }
    socket
}

fn hears(socket: &UdpSocket, patience: std::time::Duration) -> bool {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.recv(&mut [0; 256]).is_ok()
}

fn config() -> String {
    Guide::read("vrrp").block("pgfw.toml on both nodes")
}

#[test]
fn the_address_moves_when_its_holder_goes_and_not_when_a_neighbour_asks() {
    let lan = Lan::new();
    let peer = lan.host("peer", PEER);
    let nobody = lan.neighbour("nobody", NOBODY);
    let _databases = [&lan.db, &peer].map(|node| serve(node, 5432));
    let nodes = [&lan.db, &peer].map(|node| configured(node, &config(), None));
    let _daemons = nodes.each_ref().map(Instance::enforce);
    let [here, _there] = &nodes;

    for (source, is_heard) in [
        ("10.10.0.11", true),
        ("fe80::11", true),
        ("10.10.0.99", false),
        ("fe80::99", false),
    ] {
        let answer = here.pgfw(&["check", source, "--protocol", "vrrp", "--quiet"]);
        assert_eq!(answer.success(), is_heard, "{source}");
    }

    let first = keepalived(&peer, 150);
    takes_the_address(&peer);
    let before = here.status().packets("service");
    let second = keepalived(&lan.db, 100);
    // It hears the holder, and leaves it the address.
    counted(here, "service", before + 3);
    assert!(!holds_the_address(&lan.db));
    let mut talk = gets_in(&lan.client, MOVING, 5432);

    drop(first);
    peer.ip("address del 10.10.0.100/24 dev eth0");
    takes_the_address(&lan.db);
    // Whoever was connected learns at once that nobody knows him here, and comes again.
    assert_eq!(talk.say(PATIENCE), Heard::End);
    let mut talk = gets_in(&lan.client, MOVING, 5432);
    is_refused_at(here, &lan.stranger, MOVING, 5432, "service-closed");

    // A neighbour that claims the address with the highest priority is not heard.
    let before = here.status().packets("service-closed");
    advertise(&nobody, v4(NOBODY), GROUP_V4.into(), VRRP, 255);
    counted(here, "service-closed", before);
    assert!(talk.flows() && holds_the_address(&lan.db));
    // A node is: the same bytes from the other node's address take it away.
    advertise(&peer, v4(PEER), GROUP_V4.into(), VRRP, 255);
    eventually("the node gives way", PATIENCE, || {
        (!holds_the_address(&lan.db)).then_some(())
    });
    drop(second);
}

#[test]
fn without_the_section_two_nodes_hold_the_address() {
    let lan = Lan::new();
    let peer = lan.host("peer", PEER);
    let config = config();
    let (deaf, _) = config.split_once("[[service]]").unwrap();
    let pgfw = configured(&lan.db, deaf, None);
    let _daemon = pgfw.enforce();
    let _first = keepalived(&peer, 150);
    takes_the_address(&peer);
    let before = pgfw.status().packets("protocol");
    let _second = keepalived(&lan.db, 100);
    takes_the_address(&lan.db);
    assert!(holds_the_address(&peer));
    counted(&pgfw, "protocol", before);
}

#[test]
fn advertisements_pass_in_every_form_from_nodes_alone() {
    let lan = Lan::new();
    let peer = lan.neighbour("peer", PEER);
    let nobody = lan.neighbour("nobody", NOBODY);
    let config = Guide::read("vrrp").block("Signed advertisements, besides the above");
    let pgfw = configured(&lan.db, &config, None);
    let _daemon = pgfw.enforce();

    let link: [IpAddr; 2] = [PEER, NOBODY].map(|number| link_local(number).into());
    let forms: [(u8, IpAddr, [IpAddr; 2]); 4] = [
        (VRRP, GROUP_V4.into(), [v4(PEER), v4(NOBODY)]),
        // `unicast_peer`
        (VRRP, DB, [v4(PEER), v4(NOBODY)]),
        (VRRP, GROUP_V6.into(), link),
        (AH, GROUP_V4.into(), [v4(PEER), v4(NOBODY)]),
    ];
    for (protocol, to, [node, stranger]) in forms {
        let keeper = listener(&lan.db, protocol, to.is_ipv6());
        let before = pgfw.status().packets("service");
        advertise(&peer, node, to, protocol, 100);
        assert!(hears(&keeper, PATIENCE), "{protocol} to {to}");
        assert_eq!(pgfw.status().packets("service"), before + 1);

        let before = pgfw.status().packets("service-closed");
        advertise(&nobody, stranger, to, protocol, 255);
        counted(&pgfw, "service-closed", before);
        assert!(!hears(&keeper, SHORT), "{protocol} to {to}");
    }
    // A protocol that is no service.
    let before = pgfw.status().packets("protocol");
    advertise(&peer, v4(PEER), DB, VRRP + 1, 100);
    counted(&pgfw, "protocol", before);
}
