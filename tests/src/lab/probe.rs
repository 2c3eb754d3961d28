//! What somebody at a distance finds.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{Namespace, run};

/// The answer to a TCP connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Open,
    /// A reset came back.
    Refused,
    /// Nothing came back in time: what a packet filter that drops looks like.
    Silent,
    /// The network said no, which no step of the lab expects.
    Unreachable(ErrorKind),
}

/// Tries a TCP connection from a namespace.
pub fn tcp(from: &Namespace, to: IpAddr, port: u16, deadline: Duration) -> Reach {
    match from.within(|| TcpStream::connect_timeout(&SocketAddr::new(to, port), deadline)) {
        Ok(_) => Reach::Open,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Reach::Refused,
        Err(error) if error.kind() == ErrorKind::TimedOut => Reach::Silent,
        Err(error) => Reach::Unreachable(error.kind()),
    }
}

/// nmap's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortState {
    Open,
    Closed,
    Filtered,
    Unfiltered,
    OpenOrFiltered,
}

/// Scans ports from a namespace with nmap; `how` holds the scan type and its tricks, `-sS -f`.
#[track_caller]
pub fn port_scan(from: &Namespace, to: IpAddr, ports: &str, how: &[&str]) -> BTreeMap<u16, PortState> {
    let mut nmap = from.command("nmap");
    nmap.args([
        "-n",
        "-Pn",
        "-T4",
        "--max-retries",
        "1",
        "--min-rate",
        "1000",
        "-oX",
        "-",
        "-p",
        ports,
    ])
    .args(how);
    if to.is_ipv6() {
        nmap.arg("-6");
    }
    // Below this level of detail nmap counts the ports of a frequent state instead of listing them.
    let report = run(nmap.args(["-d2", "--send-ip", &to.to_string()])).expect_success();
    let listed = report.split("<port protocol=").skip(1).filter_map(|port| {
        let number = between(port, "portid=\"")?.parse().ok()?;
        Some((number, state(between(port, "<state state=\"")?)))
    });
    listed.collect()
}

fn between<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split('"').next()
}

fn state(word: &str) -> PortState {
    match word {
        "open" => PortState::Open,
        "closed" => PortState::Closed,
        "filtered" => PortState::Filtered,
        "unfiltered" => PortState::Unfiltered,
        "open|filtered" => PortState::OpenOrFiltered,
        other => panic!("nmap calls a port {other}"),
    }
}
