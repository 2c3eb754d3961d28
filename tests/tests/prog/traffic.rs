//! Real connections, queries and pings through the programs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use pgfw_common::reason::Reason;
use pgfw_tests::lab::{Namespace, PATIENCE, Reach, run};

use crate::pair::{GUEST, GUESTS, HOST, Pair, SHORT, talk};
use pgfw_tests::bench::{PG, allowed, denied, key, policy};

#[test]
fn a_stranger_finds_nothing_and_a_friend_finds_the_service() {
    let pair = Pair::new();
    let (_pg, _other) = (pair.listen(5432), pair.listen(5433));
    assert_eq!((pair.reach(5432), pair.reach(5433)), (Reach::Open, Reach::Open));
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    assert_eq!(
        (pair.reach(5432), pair.reach(5433)),
        (Reach::Silent, Reach::Silent)
    );
    assert_eq!(
        pair.reach(22),
        Reach::Refused,
        "SSH is open to the world, and nobody listens"
    );
    datapath
        .update(1, &[(key(PG, GUESTS), allowed())], &[])
        .expect("an update");
    assert_eq!((pair.reach(5432), pair.reach(5433)), (Reach::Open, Reach::Silent));
    let seen = datapath.counters().expect("counters").interfaces[&pair.ifindex()].clone();
    assert!(seen[&Reason::NewTcp] > 0 && seen[&Reason::ServiceClosed] > 0 && seen[&Reason::Service] > 0);
}

#[test]
fn f13_f23_connections_older_than_pgfw_flow_and_drain() {
    let pair = Pair::new();
    let listener = pair.listen(5432);
    let mut client = pair.connect(5432).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    let mut datapath = pair.open();
    // Nobody may open a new one.
    pair.enforce(&mut datapath, 1, &policy());
    talk(&mut client, &mut server).expect("the old connection flows");
    assert_eq!(pair.reach(5432), Reach::Silent);
    // Allowed and removed again: it flows on.
    datapath
        .update(1, &[(key(PG, GUESTS), allowed())], &[])
        .expect("an update");
    datapath.update(1, &[], &[key(PG, GUESTS)]).expect("an update");
    talk(&mut client, &mut server).expect("the connection drains");
    // A deny cuts it.
    datapath
        .update(1, &[(key(PG, GUESTS), denied())], &[])
        .expect("an update");
    client.write_all(b"?").expect("a write");
    server.set_read_timeout(Some(SHORT)).expect("a timeout");
    assert!(
        server.read_exact(&mut [0]).is_err(),
        "the denied connection still flows"
    );
}

#[test]
fn f14_outbound_connections_work() {
    let pair = Pair::new();
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    let listener = pair
        .guest
        .within(|| TcpListener::bind((GUEST, 8000)))
        .expect("a listener");
    let to: SocketAddr = format!("{GUEST}:8000").parse().expect("an address");
    let mut out = pair
        .host
        .within(|| TcpStream::connect_timeout(&to, PATIENCE))
        .expect("an outbound connection");
    let (mut peer, _) = listener.accept().expect("a connection");
    talk(&mut out, &mut peer).expect("it flows");
}

#[test]
fn f18_ipv4_over_a_dual_stack_listener_is_established() {
    let pair = Pair::new();
    let listener = pair
        .host
        .within(|| TcpListener::bind("[::]:5432"))
        .expect("a listener");
    let mut client = pair.connect(5432).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    talk(&mut client, &mut server).expect("it flows");
}

#[test]
fn f16_syn_cookies_complete_at_a_service_open_to_the_world() {
    let pair = Pair::new();
    pair.host.sysctl("net/ipv4/tcp_syncookies", "2");
    let listener = pair.listen(22);
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    let mut client = pair.connect(22).expect("a connection");
    let (mut server, _) = listener.accept().expect("a connection");
    talk(&mut client, &mut server).expect("it flows");
    let seen = datapath.counters().expect("counters").interfaces[&pair.ifindex()].clone();
    assert!(seen[&Reason::SynCookie] > 0, "{seen:?}");
}

#[test]
fn f20_answers_to_what_this_host_asked_pass() {
    let pair = Pair::new();
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    let bind = |at: &Namespace, address: &str| {
        let socket = at.within(|| UdpSocket::bind(address)).expect("a socket");
        socket.set_read_timeout(Some(SHORT)).expect("a timeout");
        socket
    };
    let asker = bind(&pair.host, &format!("{HOST}:0"));
    let server = bind(&pair.guest, &format!("{GUEST}:5300"));
    let stranger = bind(&pair.guest, &format!("{GUEST}:5301"));
    let local = asker.local_addr().expect("an address");
    let mut buffer = [0; 16];

    server.send_to(b"early", local).expect("a packet");
    assert!(asker.recv_from(&mut buffer).is_err(), "unsolicited");
    asker.send_to(b"question", (GUEST, 5300)).expect("a packet");
    server.recv_from(&mut buffer).expect("the question");
    for _ in 0..3 {
        server.send_to(b"answer", local).expect("a packet");
        asker.recv_from(&mut buffer).expect("the answer");
    }
    stranger.send_to(b"guess", local).expect("a packet");
    assert!(asker.recv_from(&mut buffer).is_err(), "from another port");
    let seen = datapath.counters().expect("counters").interfaces[&pair.ifindex()].clone();
    assert_eq!((seen[&Reason::Answer], seen[&Reason::Udp]), (3, 2));
}

#[test]
fn f22_our_ping_is_answered_and_theirs_is_not() {
    let pair = Pair::new();
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    let ping = |from: &Namespace, to: &str| {
        run(from.command("ping").args(["-n", "-c", "1", "-W", "1", to])).success()
    };
    assert!(ping(&pair.host, GUEST), "our ping");
    assert!(!ping(&pair.guest, HOST), "theirs");
    let seen = datapath.counters().expect("counters").interfaces[&pair.ifindex()].clone();
    assert_eq!(
        (seen[&Reason::EchoReply], seen[&Reason::EchoRequestRefused]),
        (1, 1)
    );
}
