//! `pgfw connections`: who is connected to the servers of this host, by which certificate, and who gave that to whom.
//!
//! Three sources, none of which knows it all: the kernel's sockets (bytes, round trip), the server's sessions (role,
//! database, serial) and the ledger (whose serial it is). Each is looked at once; what came or went between two looks
//! stands there without the other's part.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::audit::hexadecimal;
use super::certificates::no_cluster;
use super::issuers::Issuers;
use crate::clock::WallTime;
use crate::config::{Cluster, Manage};
use crate::failure::Failure;
use crate::host::sock_diag::{self, Info, Socket, State};
use crate::postgres::{self, PostgresError, Server, Session};

/// Every cluster's connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connections {
    pub clusters: Vec<ClusterConnections>,
    /// What should not be: a certificate that nobody issued here, a session of a revoked one.
    pub alarms: Vec<String>,
}

/// One cluster's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterConnections {
    pub cluster: String,
    pub port: u16,
    /// Why its sessions are not known; its sockets are.
    pub unreachable: Option<String>,
    pub connections: Vec<Connection>,
}

/// A socket, a session, or both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connection {
    /// `None`: over the Unix socket.
    pub remote: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub session: Option<Session>,
    /// RFC 3339: when the session began; a socket alone does not tell.
    pub since: Option<String>,
    pub traffic: Option<Traffic>,
    /// By which the client logged in, where it was one.
    pub certificate: Option<Shown>,
}

/// What the kernel counts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Traffic {
    /// Payload to the client, as far as it is acknowledged, and from it.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub rtt_microseconds: u32,
    pub retransmits: u32,
}

/// A certificate as a session shows it, and what the ledger says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "known")]
pub enum Shown {
    /// Issued here.
    Ledger {
        serial: String,
        identity: String,
        /// Whole, however long; the server shows 63 bytes of it.
        dn: String,
        issued: String,
        issued_by: String,
        reason: Option<String>,
        not_after: String,
        revoked: Option<String>,
    },
    /// The ledger has no certificate of this issuer and number.
    Unknown {
        /// Decimal, as the server shows it.
        serial: String,
        /// As the server shows both, cut at 63 bytes.
        dn: String,
        issuer: String,
    },
    /// Of another authority: pgfw does not write this server's files.
    Foreign {
        serial: String,
        dn: String,
        issuer: String,
    },
}

impl Engine {
    /// Every connection to every cluster, or to the one named. Waits for servers: nothing is held meanwhile.
    ///
    /// # Errors
    /// No such cluster; a config, a ledger or sockets that cannot be read. A server that does not answer is in the answer.
    pub fn connections(&self, cluster: Option<&str>) -> Result<Connections, Failure> {
        let reach = self.reach()?;
        let issuers = Issuers::of(&reach, &self.ledger)?;
        let meant = reach.clusters.iter();
        let meant: Vec<&Cluster> = meant
            .filter(|c| cluster.is_none_or(|name| c.name == name))
            .collect();
        if let (Some(name), true) = (cluster, meant.is_empty()) {
            return Err(no_cluster(&reach.config, name, &self.paths.config));
        }
        let sockets = sock_diag::dump_with_info()
            .map_err(PostgresError::SockDiag)
            .map_err(Failure::from)?;
        let clusters: Vec<ClusterConnections> = std::thread::scope(|scope| {
            let asked: Vec<_> = meant
                .iter()
                .map(|cluster| {
                    let (sockets, issuers) = (&sockets, &issuers);
                    scope.spawn(move || of_cluster(cluster, sockets, issuers))
                })
                .collect();
            let answers = asked.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            answers.collect()
        });
        let alarms = clusters.iter().flat_map(alarms).collect();
        Ok(Connections { clusters, alarms })
    }
}

fn of_cluster(
    cluster: &Cluster,
    sockets: &[(Socket, Option<Info>)],
    issuers: &Issuers,
) -> ClusterConnections {
    let server = Server::find(cluster);
    let running = server.as_ref().ok().and_then(Server::running);
    let port = match (&running, &server) {
        (Some(running), _) => running.port,
        (None, Ok(server)) => server.port,
        (None, Err(_)) => cluster.port,
    };
    let (sessions, unreachable) = match server.and_then(|server| postgres::sessions_at(&server)) {
        Ok(sessions) => (sessions, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let here = |(socket, _): &&(Socket, Option<Info>)| {
        socket.local.port() == port && !matches!(socket.state, State::Listen | State::TimeWait | State::Close)
    };
    let mut by_remote: BTreeMap<SocketAddr, (SocketAddr, Option<Info>)> = sockets
        .iter()
        .filter(here)
        .map(|(socket, info)| (socket.remote, (socket.local, *info)))
        .collect();
    let mut connections: Vec<Connection> = sessions
        .into_iter()
        .map(|session| {
            let remote = remote_of(&session);
            let socket = remote.and_then(|remote| by_remote.remove(&remote));
            Connection {
                remote,
                local: socket.map(|(local, _)| local),
                since: Some(session.since.clone()),
                traffic: socket.and_then(|(_, info)| info).map(Traffic::from),
                certificate: shown(&session, cluster, issuers),
                session: Some(session),
            }
        })
        .collect();
    // Handshakes, logins, and what a server that does not answer still holds.
    connections.extend(by_remote.into_iter().map(|(remote, (local, info))| Connection {
        remote: Some(remote),
        local: Some(local),
        session: None,
        since: None,
        traffic: info.map(Traffic::from),
        certificate: None,
    }));
    ClusterConnections {
        cluster: cluster.name.clone(),
        port,
        unreachable,
        connections,
    }
}

fn remote_of(session: &Session) -> Option<SocketAddr> {
    let port = session.port.and_then(|port| u16::try_from(port).ok())?;
    Some(SocketAddr::new(session.address?.to_canonical(), port))
}

fn shown(session: &Session, cluster: &Cluster, issuers: &Issuers) -> Option<Shown> {
    let serial = session.serial.as_deref()?;
    let issuer = session.issuer.clone().unwrap_or_default();
    let dn = session.subject.clone().unwrap_or_default();
    let serial_shown = serial.to_owned();
    Some(match issuers.certificate(serial, &issuer) {
        Some(certificate) => Shown::Ledger {
            serial: certificate.serial.clone(),
            identity: certificate.name.clone(),
            dn: certificate.subject_dn.clone(),
            issued: certificate.issued.rfc3339(),
            issued_by: certificate.requester.clone(),
            reason: certificate.reason.clone(),
            not_after: certificate.not_after.rfc3339(),
            revoked: certificate.revoked.map(WallTime::rfc3339),
        },
        None if cluster.manage == Manage::None && !issuers.is_ours(&issuer) => Shown::Foreign {
            serial: serial_shown,
            dn,
            issuer,
        },
        None => Shown::Unknown {
            serial: serial_shown,
            dn,
            issuer,
        },
    })
}

fn alarms(of: &ClusterConnections) -> Vec<String> {
    let with_session = of.connections.iter().filter_map(|connection| {
        let session = connection.session.as_ref()?;
        Some((connection, session, connection.certificate.as_ref()?))
    });
    with_session
        .filter_map(|(connection, session, certificate)| alarm(&of.cluster, connection, session, certificate))
        .collect()
}

/// One line of text whatever the names in it are.
fn alarm(cluster: &str, connection: &Connection, session: &Session, certificate: &Shown) -> Option<String> {
    let role = session.role.as_deref().unwrap_or_default();
    let from = connection
        .remote
        .map_or_else(String::new, |from| format!(" from {from}"));
    match certificate {
        Shown::Unknown { serial, dn, issuer } => Some(format!(
            "{cluster}: process {} is a session of role {role:?}{from} by certificate {serial} ({dn:?}, issued by {issuer:?}), \
             which the ledger does not know: somebody else has the authority's key, or the ledger was lost or restored; \
             `pgfw cert revoke {}` ends it",
            session.pid,
            hexadecimal(serial)
        )),
        Shown::Ledger {
            serial,
            identity,
            revoked: Some(since),
            ..
        } => Some(format!(
            "{cluster}: process {} is a session of role {role:?}{from} by certificate {serial} of {identity:?}, which is revoked \
             since {since}; `pgfw cert revoke {serial}` ends it",
            session.pid
        )),
        Shown::Ledger { .. } | Shown::Foreign { .. } => None,
    }
}

impl From<Info> for Traffic {
    fn from(info: Info) -> Traffic {
        let Info {
            rtt,
            retransmits,
            sent,
            received,
        } = info;
        Traffic {
            // The handshake's SYN counts as one byte (tcp_input.c: `tcp_snd_una_update`).
            bytes_sent: sent.saturating_sub(1),
            bytes_received: received,
            rtt_microseconds: rtt,
            retransmits,
        }
    }
}
