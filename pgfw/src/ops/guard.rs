//! The lockout guard: before a change counts, the policy that would result is asked about every live SSH session.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Engine;
use super::engine::Facts;
use crate::clock::{BootTime, Now};
use crate::config::Config;
use crate::failure::{Explain, Failure};
use crate::host::sock_diag::{self, Socket, State};
use crate::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort, Until};

impl Engine {
    /// Refuses what the entries in `facts` would do to a live SSH session, in any generation that may come to judge.
    pub(super) fn guard_facts(&self, facts: &Facts, what: &str, now: &Now) -> Result<(), Failure> {
        let sessions = sockets()?;
        for number in self.referenced()? {
            let config = self.config_of(number)?;
            let before = self.compile(&config, number, now)?;
            let after = self.compile_facts(&config, number, facts, now)?;
            let ports = config.ssh.ports.iter().copied().collect();
            would_cut(&ssh_sessions(&sessions, &ports), Some(&before), &after, what, now)?;
        }
        Ok(())
    }

    /// Refuses a config under which a live SSH session could not come back: by its address, or by its port.
    pub(super) fn guard_config(
        &self,
        running: Option<(&Config, &Compiled)>,
        next: (&Config, &Compiled),
        now: &Now,
    ) -> Result<(), Failure> {
        let (next_config, after) = next;
        let known = running.map(|(config, _)| &config.ssh.ports).into_iter().flatten();
        let ports = known.chain(&next_config.ssh.ports).copied().collect();
        let before = running.map(|(_, compiled)| compiled);
        would_cut(
            &ssh_sessions(&sockets()?, &ports),
            before,
            after,
            "this change",
            now,
        )
    }

    /// Destroys the established connections of `net` to services that no longer admit their source: idle ones too,
    /// which the filter alone would only starve.
    pub(super) fn cut(&self, config: &Config, net: IpNet, now: &Now) -> Result<usize, Failure> {
        let compiled = self.compile(config, self.judging(now)?.unwrap_or(0), now)?;
        let mut ended = 0;
        for socket in sockets()?.into_iter().filter(|s| s.state != State::Listen) {
            let port = ServicePort {
                protocol: TCP,
                port: socket.local.port(),
            };
            let Some(service) = compiled.services.get(&port) else {
                continue;
            };
            let peer = socket.remote.ip().to_canonical();
            if net.contains(&peer) && !admits(&compiled, *service, peer, now.boot) && destroy(&socket)? {
                ended += 1;
            }
        }
        Ok(ended)
    }
}

/// Who would be cut: whoever got in before and would not get in after.
fn would_cut(
    sessions: &[(SocketAddr, u16)],
    before: Option<&Compiled>,
    after: &Compiled,
    what: &str,
    now: &Now,
) -> Result<(), Failure> {
    let admitted = |policy: &Compiled, peer: IpAddr, port: u16| {
        let service = policy.services.get(&ServicePort { protocol: TCP, port });
        service.is_some_and(|service| admits(policy, *service, peer, now.boot))
    };
    for (peer, port) in sessions {
        let was = before.is_none_or(|policy| admitted(policy, peer.ip(), *port));
        if was && !admitted(after, peer.ip(), *port) {
            return Err(GuardError::WouldCut {
                peer: peer.ip(),
                port: *port,
                what: what.to_owned(),
            }
            .into());
        }
    }
    Ok(())
}

const TCP: u8 = 6;

/// What the kernel will answer to a new connection: the longest prefix decides.
pub(super) fn admits(compiled: &Compiled, service: ServiceId, source: IpAddr, now: BootTime) -> bool {
    let longest = (0..=IpNet::from(source).max_prefix_len())
        .rev()
        .find_map(|length| {
            let net = IpNet::new_assert(source, length).trunc();
            compiled.coverage.get(&CoverageKey { service, net })
        });
    longest.is_some_and(
        |Coverage {
             deny,
             allow,
             world: _,
         }| !holds(*deny, now) && holds(*allow, now),
    )
}

fn holds(until: Until, now: BootTime) -> bool {
    match until {
        Until::Absent => false,
        Until::At(end) => now < end,
        Until::Forever => true,
    }
}

/// Who is connected to this host's SSH ports, and to which.
fn ssh_sessions(sockets: &[Socket], ports: &BTreeSet<u16>) -> Vec<(SocketAddr, u16)> {
    sockets
        .iter()
        .filter(|s| s.state == State::Established && ports.contains(&s.local.port()))
        .map(|s| {
            (
                SocketAddr::new(s.remote.ip().to_canonical(), s.remote.port()),
                s.local.port(),
            )
        })
        .filter(|(peer, _)| !peer.ip().is_loopback())
        .collect()
}

fn sockets() -> Result<Vec<Socket>, GuardError> {
    sock_diag::dump().map_err(|source| GuardError::Sockets { source })
}

fn destroy(socket: &Socket) -> Result<bool, GuardError> {
    sock_diag::destroy(socket).map_err(|source| GuardError::Sockets { source })
}

#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error("the TCP sockets of this host cannot be listed or closed")]
    Sockets { source: std::io::Error },
    #[error("{what} would cut the live SSH session from {peer} to port {port}")]
    WouldCut { peer: IpAddr, port: u16, what: String },
}

impl Explain for GuardError {
    fn remedy(&self) -> String {
        match self {
            GuardError::Sockets { source: _ } => {
                "Run pgfw with CAP_NET_ADMIN on a kernel with CONFIG_INET_DIAG and CONFIG_INET_DIAG_DESTROY."
                    .into()
            }
            GuardError::WouldCut { peer, port, what: _ } => format!(
                "Keep {peer} allowed (`pgfw allow {peer} --service ssh`, or ssh.allow in pgfw.toml) and {port} among \
                 ssh.ports, or say --force."
            ),
        }
    }
}
