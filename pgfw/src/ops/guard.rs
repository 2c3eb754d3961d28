//! The lockout guard: before a change counts, the policy that would result is asked about everybody whom this
//! host needs: live SSH sessions, gateways, resolvers, the DHCP server.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use pgfw_common::reason::Action;

use super::Engine;
use super::engine::Facts;
use crate::clock::{BootTime, Now};
use crate::config::Config;
use crate::datapath::Choice;
use crate::failure::{Explain, Failure};
use crate::host::lifelines::{self, Lifeline};
use crate::host::sock_diag::{self, Socket, State};
use crate::host::sshd;
use crate::observe::frame::{self, Transport};
use crate::policy::coverage::{Compiled, Coverage, CoverageKey, ServiceId, ServicePort, Until};

/// Somebody who must be let in, or whose answers must.
#[derive(Debug, Clone)]
struct Question {
    who: Peer,
    source: IpAddr,
    protocol: u8,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Ssh { peer: IpAddr, port: u16 },
    Lifeline(Lifeline),
}

impl Engine {
    /// Refuses what the entries in `facts` would do to a live SSH session or a resolver, in any generation that may come to
    /// judge.
    pub(super) fn guard_facts(&self, facts: &Facts, what: &str, now: &Now) -> Result<(), Failure> {
        for number in self.referenced()? {
            let config = self.config_of(number)?;
            let before = self.compile(&config, number, now)?;
            let after = self.compile_facts(&config, number, facts, now)?;
            let ports = config.ssh.ports.iter().copied().collect();
            would_cut(&questions(ports, &after)?, Some(&before), &after, what, now)?;
        }
        Ok(())
    }

    /// Refuses a config under which one of them could not come back: by its address, or by its port.
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
        would_cut(&questions(ports, after)?, before, after, "this change", now)
    }

    /// Asks the program of a generation that is loaded and judges nothing yet, about packets of all of them. What the
    /// policy before drops too is nobody's loss.
    pub(super) fn guard_loaded(
        &self,
        number: u64,
        config: &Config,
        compiled: &Compiled,
    ) -> Result<(), Failure> {
        let Some(datapath) = &self.datapath else {
            return Ok(());
        };
        let before = match datapath.control()?.confirmed {
            Choice::Generation(before) => Some(before),
            Choice::Pass => None,
        };
        let mut asked: Vec<(Peer, Vec<u8>)> =
            questions(config.ssh.ports.iter().copied().collect(), compiled)?
                .into_iter()
                .map(|question| {
                    let transport = if question.protocol == TCP {
                        Transport::TcpSyn
                    } else {
                        Transport::Udp
                    };
                    (
                        question.who,
                        frame::build(question.source, question.port, transport),
                    )
                })
                .collect();
        for lifeline in lifelines::all() {
            let frame = match lifeline {
                Lifeline::Gateway(address) => frame::neighbour(address),
                Lifeline::DhcpServer(IpAddr::V4(address)) => frame::dhcp_answer(address),
                Lifeline::DhcpServer(IpAddr::V6(_)) | Lifeline::Resolver(_) => continue,
            };
            asked.push((Peer::Lifeline(lifeline), frame));
        }
        let drops = |number: u64, frame: &[u8]| {
            datapath
                .check(number, frame, None)
                .map(|answer| answer.verdict == Action::Drop)
        };
        for (who, frame) in asked {
            if !drops(number, &frame)? {
                continue;
            }
            let was_dropped = match before {
                Some(before) => drops(before, &frame)?,
                None => false,
            };
            if !was_dropped {
                return Err(GuardError::WouldCut {
                    who,
                    what: "this change".to_owned(),
                }
                .into());
            }
        }
        Ok(())
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
    questions: &[Question],
    before: Option<&Compiled>,
    after: &Compiled,
    what: &str,
    now: &Now,
) -> Result<(), Failure> {
    for question in questions {
        let Question {
            who,
            source,
            protocol,
            port,
        } = question;
        let admitted = |policy: &Compiled| {
            let key = ServicePort {
                protocol: *protocol,
                port: *port,
            };
            let service = policy.services.get(&key);
            service.is_some_and(|service| admits(policy, *service, *source, now.boot))
        };
        // What was no service's port was nobody's business.
        let was = before.is_none_or(|policy| {
            admitted(policy)
                || (*protocol == UDP
                    && !policy.services.contains_key(&ServicePort {
                        protocol: UDP,
                        port: *port,
                    }))
        });
        if was && !admitted(after) {
            return Err(GuardError::WouldCut {
                who: *who,
                what: what.to_owned(),
            }
            .into());
        }
    }
    Ok(())
}

/// The live SSH sessions, at these ports and at those where sshd listens; and the resolvers, as far as a service stands
/// where their answers may come to: what is a service's port is not kept open by what this host asks.
fn questions(mut ports: BTreeSet<u16>, after: &Compiled) -> Result<Vec<Question>, Failure> {
    let all = sockets()?;
    ports.extend(sshd::ports().unwrap_or_default());
    let mut questions: Vec<Question> = ssh_sessions(&all, &ports)
        .into_iter()
        .map(|(peer, port)| Question {
            who: Peer::Ssh {
                peer: peer.ip(),
                port,
            },
            source: peer.ip(),
            protocol: TCP,
            port,
        })
        .collect();
    // A port of the range that a service holds is not chosen for a question; only a range that is mostly services' is
    // short of ports to ask from.
    let ephemeral = ephemeral_ports();
    let udp = after.services.keys().filter(|key| key.protocol == UDP);
    let inside: Vec<u16> = udp
        .map(|key| key.port)
        .filter(|port| ephemeral.contains(port))
        .collect();
    let mut answered: Vec<u16> = Vec::new();
    if inside.len() * 2 > ephemeral.len() {
        answered.extend(inside.first());
    }
    let dns = ServicePort {
        protocol: UDP,
        port: DNS,
    };
    answered.extend(after.services.contains_key(&dns).then_some(DNS));
    if !answered.is_empty() {
        for lifeline in lifelines::all() {
            if let Lifeline::Resolver(source) = lifeline {
                questions.extend(answered.iter().map(|port| Question {
                    who: Peer::Lifeline(lifeline),
                    source,
                    protocol: UDP,
                    port: *port,
                }));
            }
        }
    }
    Ok(questions)
}

/// ip(7): from where this host asks when nobody chose a port.
fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse().ok());
    ends.next().unwrap_or(32_768)..=ends.next().unwrap_or(60_999)
}

const UDP: u8 = 17;
/// Some resolvers on this host ask from the port that they serve.
const DNS: u16 = 53;
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
    #[error("{what} would cut {}", match who {
        Peer::Ssh { peer, port } => format!("the live SSH session from {peer} to port {port}"),
        Peer::Lifeline(lifeline) => lifeline.to_string(),
    })]
    WouldCut { who: Peer, what: String },
}

impl Explain for GuardError {
    fn remedy(&self) -> String {
        match self {
            GuardError::Sockets { source: _ } => {
                "Run pgfw with CAP_NET_ADMIN on a kernel with CONFIG_INET_DIAG and CONFIG_INET_DIAG_DESTROY."
                    .into()
            }
            GuardError::WouldCut {
                who: Peer::Ssh { peer, port },
                what: _,
            } => format!(
                "Keep {peer} allowed (`pgfw allow {peer} --service ssh`, or ssh.allow in pgfw.toml) and {port} among \
                 ssh.ports, or say --force."
            ),
            GuardError::WouldCut {
                who: Peer::Lifeline(Lifeline::DhcpServer(_)),
                what: _,
            } => "Leave firewall.dhcp_client on, or say --force.".into(),
            GuardError::WouldCut {
                who: Peer::Lifeline(Lifeline::Gateway(_) | Lifeline::Resolver(_)),
                what: _,
            } => "Leave it allowed at every service whose port it answers to, or say --force.".into(),
        }
    }
}
