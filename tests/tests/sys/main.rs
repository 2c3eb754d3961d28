//! pgfw as a process: start, stop, kill, reload, files, users, errors.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

mod access;
mod api;
mod crowd;
mod cut;
mod disk;
mod events;
mod faults;
mod floods;
mod foreign;
mod guard;
mod input;
mod interfaces;
mod kernel;
mod life;
mod missing;
mod mornings;
mod neighbours;
mod proof;
mod reload;
mod rounds;
mod service;
mod terminal;
mod trial;

use std::net::IpAddr;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use pgfw_tests::lab::foreign::attached;
use pgfw_tests::lab::{Host, Instance, Namespace, Outcome, PATIENCE, Reach, Site, eventually, tcp};

/// A cluster that is open to the client's networks and SSH that is open to the world.
const CONFIG: &str = r#"
[firewall]
interfaces = ["eth0"]

[[postgres]]
name = "main"
cluster = "15/main"
manage = "none"
allow = ["10.20.0.0/16", "fd00:20::/64"]
"#;

/// Long enough for an answer that comes, short enough to wait for one that does not.
const SHORT: Duration = Duration::from_millis(300);

fn configured<'site>(site: &'site Site, config: &str) -> Instance<'site> {
    let pgfw = Instance::new(&site.db);
    pgfw.configure(config);
    pgfw
}

fn is_open(from: &Namespace, to: IpAddr, port: u16) -> bool {
    tcp(from, to, port, PATIENCE) == Reach::Open
}

fn is_silent(from: &Namespace, to: IpAddr, port: u16) -> bool {
    tcp(from, to, port, SHORT) == Reach::Silent
}

/// Waits until a port answers, or does not, a host at a distance.
#[track_caller]
fn becomes(from: &Namespace, to: IpAddr, port: u16, reach: Reach) {
    let what = format!("{to} port {port} is {reach:?} for {}", from.name());
    eventually(&what, PATIENCE, || {
        (tcp(from, to, port, SHORT) == reach).then_some(())
    });
}

/// One sentence that names it, one that says what to do, the exit code, and nothing else.
#[track_caller]
fn refused(outcome: &Outcome, code: i32, names: &[&str], remedy: &str) {
    let said = &outcome.stderr;
    assert_eq!(outcome.code, Some(code), "{said}");
    assert_eq!(outcome.stdout, "", "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let [message, advice] = lines[..] else {
        panic!("these are no two sentences:\n{said}")
    };
    assert!(message.starts_with("pgfw: ") && message.ends_with('.'), "{said}");
    for name in names {
        assert!(message.contains(name), "{name} is not named:\n{said}");
    }
    assert!(advice.contains(remedy), "it does not say {remedy}:\n{said}");
    // Clauses of errors within errors would pile up here.
    assert!(message.len() < 260, "that is no sentence:\n{said}");
}

/// Nothing of pgfw is on an interface's way in or way out.
#[track_caller]
fn nothing_is_on(host: &Host, interface: &str) {
    assert_eq!(attached(host, interface), None);
    let (_, egress) = host
        .within(|| SchedClassifier::query_tcx(interface, TcAttachType::Egress))
        .unwrap();
    assert!(egress.is_empty(), "the way out of {interface} is watched still");
}

/// Nor is anything pinned.
#[track_caller]
fn nothing_is_left(host: &Host) {
    nothing_is_on(host, "eth0");
    assert_eq!(host.pins(), [""; 0]);
}
