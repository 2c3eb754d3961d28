//! Connections that shook hands before a revocation and have not logged in yet.
//!
//! The server judges a certificate in the TLS handshake; the start-up packet may come up to `authentication_timeout`
//! later, and until then no view shows the connection. So after a CRL is published, every connection that the server
//! took before that and that has no session yet is reset.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::sessions::{Session, Target, add, begin_to_end, terminate};
use super::sql::Sql;
use super::{PostgresError, Running, Server};
use crate::clock::BootTime;
use crate::config::Cluster;
use crate::host::sock_diag::{self, Socket, State};

/// What was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    pub sessions: Vec<Session>,
    /// Connections reset before they were sessions.
    pub half_open: usize,
}

/// Ends everything that these certificates may still hold: their sessions, and connections the server took before
/// `since` (the moment the CRL with them was in place) that have no session yet. Repeats until there is neither. Blocks.
///
/// # Errors
/// The server does not answer, sockets cannot be closed, or something outlives the deadline of five seconds.
pub fn cut_off(cluster: &Cluster, targets: &[Target], since: BootTime) -> Result<CutOff, PostgresError> {
    let server = Server::find(cluster)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut cut = CutOff {
        // The server is at them while we look for the others.
        sessions: begin_to_end(&server, targets)?,
        half_open: 0,
    };
    loop {
        let half_open = destroy(&server, since)?;
        cut.half_open += half_open;
        // After the sockets: one of them may have become a session meanwhile.
        add(&mut cut.sessions, terminate(&server, targets)?);
        if half_open == 0 {
            return Ok(cut);
        }
        if Instant::now() > deadline {
            return Err(PostgresError::NotProven {
                cluster: cluster.name.clone(),
                message: format!("{half_open} connections from before the revocation do not end"),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Resets the connections that the server took before `since` and that have no session yet; how many. A client of
/// another certificate that was about to log in has to connect again. Blocks; nothing when the server is down.
///
/// # Errors
/// The server does not answer, or sockets cannot be read or closed.
pub fn destroy_half_open(cluster: &Cluster, since: BootTime) -> Result<usize, PostgresError> {
    destroy(&Server::find(cluster)?, since)
}

/// Waits, for a second at most, until whoever connected before `since` has logged in or is gone: what is then still there
/// does not mean to. Blocks.
///
/// # Errors
/// The server does not answer.
pub fn await_logins(cluster: &Cluster, since: BootTime) -> Result<(), PostgresError> {
    let server = Server::find(cluster)?;
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Some(running) = server.running() {
        let waits = half_open(&server, &running, since)?;
        if waits.is_empty() || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn destroy(server: &Server, since: BootTime) -> Result<usize, PostgresError> {
    let Some(running) = server.running() else {
        return Ok(0);
    };
    let old = half_open(server, &running, since)?;
    if old.is_empty() {
        return Ok(0);
    }
    let sockets = sock_diag::dump().map_err(PostgresError::SockDiag)?;
    let mut destroyed = 0;
    for connection in &old {
        let mine = |s: &&Socket| {
            let accepted = s.state != State::Listen && s.local.port() == running.port;
            accepted && connection.inodes.contains(&s.inode)
        };
        for socket in sockets.iter().filter(mine) {
            if sock_diag::destroy(socket).map_err(PostgresError::SockDiag)? {
                destroyed += 1;
            }
        }
    }
    Ok(destroyed)
}

/// Connections from before `since` that have no session.
fn half_open(server: &Server, running: &Running, since: BootTime) -> Result<Vec<Connection>, PostgresError> {
    // Processes first, sessions second: whoever becomes a session in between is left to `terminate`.
    let unseen = || PostgresError::file("cannot look into", Path::new("/proc"));
    let mut old = server
        .owner
        .act(|| Ok(children(running, since)))
        .map_err(unseen())?;
    if !old.is_empty() {
        let sessions = with_session(server, running)?;
        old.retain(|pid| !sessions.contains(pid));
    }
    if old.is_empty() {
        return Ok(Vec::new());
    }
    // Its descriptors are a process's own secret: seen as its user.
    let held = || {
        let inodes = old.iter().map(|pid| socket_inodes(*pid).unwrap_or_default());
        let held = inodes.map(|inodes| Connection { inodes });
        Ok(held.filter(|c| !c.inodes.is_empty()).collect())
    };
    server.owner.act(held).map_err(unseen())
}

/// The sockets that a server process holds.
#[derive(Debug)]
struct Connection {
    inodes: Vec<u32>,
}

/// The postmaster's children that were started before `since`. It forks one for each connection at accept(2), before
/// the handshake (postmaster.c: `BackendStartup`), so a child's age is its connection's.
fn children(running: &Running, since: BootTime) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes.filter_map(|p| p.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(parent, started)| parent == running.pid && started <= since))
        .collect()
}

/// Parent and start of a process (proc(5): fields 4 and 22 of stat; the second is in 1/100 s of the boot clock, cut
/// off, so a process is taken for up to 10 ms older than it is: the safe side).
fn stat(pid: i32) -> Option<(i32, BootTime)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold blanks and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks: u64 = fields.nth(17)?.parse().ok()?;
    Some((parent, BootTime(ticks.saturating_mul(10_000_000))))
}

fn socket_inodes(pid: i32) -> io::Result<Vec<u32>> {
    let mut inodes = Vec::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(fd?.path()).unwrap_or_default();
        let inode: Option<u32> = target
            .to_str()
            .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

/// Processes that have no connection to lose: those whose login is complete, and the server's own. From 18 on a row is there from the start, in state `starting`, and its certificate
/// comes later.
fn with_session(server: &Server, running: &Running) -> Result<BTreeSet<i32>, PostgresError> {
    let sql = Sql::connect_to(server, running)?;
    let rows = sql.query(
        "select pid from pg_stat_activity where state is distinct from 'starting'",
        &[],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}
