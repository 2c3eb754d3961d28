//! What needs a kernel or a device that only a guest has (`cargo xtask vm`): virtio NICs, VLANs, bonds, dummies, and
//! kernels without TCX.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which panic where it happened"
)]

mod clsact;
mod memory;
mod uppers;
mod virtio;

use std::net::IpAddr;
use std::time::Duration;

use pgfw_tests::lab::{Instance, Namespace, Reach, Site, run, tcp};

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
const SHORT: Duration = Duration::from_millis(500);

fn configured<'site>(site: &'site Site, interface: &str) -> Instance<'site> {
    let pgfw = Instance::new(&site.db);
    pgfw.configure(&CONFIG.replace("eth0", interface));
    pgfw
}

fn is_open(from: &Namespace, to: IpAddr, port: u16) -> bool {
    tcp(from, to, port, Duration::from_secs(10)) == Reach::Open
}

fn is_silent(from: &Namespace, to: IpAddr, port: u16) -> bool {
    tcp(from, to, port, SHORT) == Reach::Silent
}

/// `pgfw run` refuses, names these, and leaves nothing behind.
#[track_caller]
fn refused(pgfw: &Instance<'_>, names: &[&str]) {
    let refused = pgfw.pgfw(&["run"]);
    assert_eq!(refused.code, Some(1), "{names:?}: {}", refused.stderr);
    for name in names {
        assert!(
            refused.stderr.contains(name),
            "{name} is not named: {}",
            refused.stderr
        );
    }
    let shown = run(pgfw.host().command("ip").args(["link"])).expect_success();
    assert!(!shown.contains("xdp"), "{shown}");
}
