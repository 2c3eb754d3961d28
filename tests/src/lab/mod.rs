//! The lab: machines made of namespaces, with a real PostgreSQL and a real sshd, gone when their owner drops them.
//!
//! Nothing here has a name outside the test process: namespaces are anonymous and held by descriptors, mounts
//! live in private mount namespaces, and every child dies with the thread that started it. A test that is
//! killed leaves nothing either, and tests run beside each other. Keep a [`Host`] and what runs on it inside
//! one test; start processes from the test's own thread.

mod bpffs;
pub mod foreign;
mod gate;
pub mod guest;
mod host;
mod instance;
mod namespace;
mod postgres;
mod probe;
mod process;
mod psql;
mod seccomp;
mod sshd;
mod stream;
mod talk;
mod terminal;
mod topology;
mod wait;
mod wire;

pub use bpffs::Bpffs;
pub use gate::Gate;
pub use host::Host;
pub use instance::{Daemon, Instance, Status, product};
pub use namespace::{Namespace, join};
pub use postgres::PgCluster;
pub use probe::{PortState, Reach, port_scan, tcp};
pub use process::{Child, Outcome, run};
pub use psql::{Psql, Session, SessionEnd};
pub use seccomp::{without_links, without_namespaces, without_programs};
pub use sshd::Sshd;
pub use stream::{Stream, ipv4};
pub use talk::{EchoServer, Heard, Talk};
pub use terminal::Terminal;
pub use topology::{Site, address};
pub use wait::{PATIENCE, eventually};
pub use wire::{Segment, Wire};

/// Panics with one sentence when the tests lack what only root has.
fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes namespaces: run it as root"
    );
}
