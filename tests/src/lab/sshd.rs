//! A real SSH server, so that the one service that must stay reachable is one.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::probe::{Reach, tcp};
use super::process::{Child, run};
use super::{Host, PATIENCE, eventually};

/// sshd on every address of a host, with a host key of its own. Nobody can log in.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
}

impl Sshd {
    pub fn start(host: &Host, port: u16) -> Sshd {
        let folder = format!("/run/sshd-{port}");
        let key = format!("{folder}/host_key");
        let configuration = format!("{folder}/sshd_config");
        host.write(
            &configuration,
            &format!(
                "Port {port}\nHostKey {key}\nPidFile {folder}/sshd.pid\nUsePAM no\n\
                 PasswordAuthentication no\nAuthorizedKeysFile none\n"
            ),
        );
        run(host
            .command("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &key]))
        .expect_success();
        // sshd wants to be started by its whole path.
        let mut child = Child::start(
            host.command("/usr/sbin/sshd")
                .args(["-D", "-e", "-f", &configuration]),
        )
        .talkative();
        eventually("sshd listens", PATIENCE, || {
            assert!(!child.has_ended(), "sshd ended:\n{}", child.stderr());
            let reach = tcp(
                host,
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                port,
                Duration::from_secs(1),
            );
            (reach == Reach::Open).then_some(())
        });
        Sshd { child }
    }

    pub fn log(&self) -> String {
        self.child.stderr()
    }
}
