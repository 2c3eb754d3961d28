//! Follows the servers' logs for the audit log: who came in, who was refused, who left, with whose certificate.
//!
//! The daemon gives it a thread of its own, since it waits for disks and servers. Once a second it reads what is new; where
//! somebody came in by a certificate, the server is asked for its number, which no log holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Engine;
use super::audit::{hexadecimal, now_ms};
use super::issuers::Issuers;
use crate::config::{Cluster, Manage};
use crate::failure::Failure;
use crate::host::sock_diag;
use crate::observe::audit::{Audit, Event};
use crate::observe::server_log::{Logins, Told};
use crate::paths::Paths;
use crate::postgres::{self, LogFile, Position, PostgresError, Server};

/// How often is looked.
const ROUND: Duration = Duration::from_secs(1);

/// As long as a login is about to become a session.
const SHORT_ROUND: Duration = Duration::from_millis(250);

/// After a server or its log was asked in vain.
const PAUSE: Duration = Duration::from_secs(10);

/// What the daemon's status says of it.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    /// By cluster.
    complaints: BTreeMap<String, String>,
    unknown: BTreeMap<String, Vec<String>>,
}

impl Watched {
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = self.lock();
        let unknown = lines.unknown.values().flatten();
        unknown.chain(lines.complaints.values()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        let Watched(lines) = self;
        lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be followed, as the policy that runs has it.
#[derive(Debug)]
pub struct ToWatch {
    paths: Paths,
    clusters: Vec<Cluster>,
    audit: Audit,
    watched: Watched,
}

impl Engine {
    /// # Errors
    /// A config that cannot be read.
    pub fn to_watch(&self) -> Result<ToWatch, Failure> {
        let clusters = self.config()?.postgres.into_iter();
        Ok(ToWatch {
            paths: self.paths.clone(),
            clusters: clusters
                .filter(|c| c.manage != Manage::None && c.audit.connections && c.audit.json)
                .collect(),
            audit: self.audit.clone(),
            watched: self.watched.clone(),
        })
    }

    /// Whose serials are whose.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub(super) fn known_serials(&self) -> Result<Issuers, Failure> {
        Issuers::of(&self.reach()?, &self.ledger)
    }
}

/// All clusters' logs.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    followed: BTreeMap<String, Followed>,
}

#[derive(Debug)]
struct Followed {
    server: Option<(Server, LogFile)>,
    logins: Logins,
    /// Not before, since it failed.
    log_pause: Option<Instant>,
    server_pause: Option<Instant>,
    saved: Option<Position>,
    /// There was no log in JSON when it was first wanted.
    late: bool,
    /// Something came since it was written down.
    dirty: bool,
    /// Sessions by certificates that nobody issued here: process and line.
    unknown: BTreeMap<i32, String>,
}

/// What outlives the daemon.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    position: Option<Position>,
    logins: Logins,
}

impl ConnectionLog {
    /// One look at every log. Says when to look again. Blocks for as long as disks and servers take. `serials` is asked for
    /// where somebody came in.
    pub fn look(&mut self, to_watch: &ToWatch, serials: impl Fn() -> Result<Serials, Failure>) -> Duration {
        let ToWatch {
            paths,
            clusters,
            audit,
            watched,
        } = to_watch;
        self.followed
            .retain(|name, _| clusters.iter().any(|cluster| cluster.name == *name));
        {
            let mut lines = watched.lock();
            lines
                .complaints
                .retain(|name, _| self.followed.contains_key(name));
            lines.unknown.retain(|name, _| self.followed.contains_key(name));
        }
        let mut round = if clusters.is_empty() { PAUSE } else { ROUND };
        for cluster in clusters {
            let followed = self
                .followed
                .entry(cluster.name.clone())
                .or_insert_with(|| Followed::load(paths, &cluster.name));
            let complaint = match followed.look(cluster, audit, &serials) {
                Ok(false) => None,
                Ok(true) => {
                    round = SHORT_ROUND;
                    None
                }
                Err(why) => Some(format!(
                    "who connects to {} is not in the audit log: {why}.",
                    cluster.name
                )),
            };
            followed.save(paths, &cluster.name, audit);
            let mut lines = watched.lock();
            match complaint {
                Some(line) => {
                    if lines.complaints.get(&cluster.name) != Some(&line) {
                        tracing::warn!("{line}");
                    }
                    lines.complaints.insert(cluster.name.clone(), line);
                }
                None if followed.log_pause.is_none() => {
                    lines.complaints.remove(&cluster.name);
                }
                None => {}
            }
            let unknown = followed.unknown.values().cloned().collect();
            lines.unknown.insert(cluster.name.clone(), unknown);
        }
        round
    }
}

/// Whose serials are whose, for [`ConnectionLog::look`].
#[derive(Debug)]
pub struct Serials(Issuers);

impl Engine {
    /// # Errors
    /// A ledger that cannot be read.
    pub fn serials(&self) -> Result<Serials, Failure> {
        self.known_serials().map(Serials)
    }
}

impl Followed {
    fn load(paths: &Paths, name: &str) -> Followed {
        let saved = fs::read(paths.log_position(name)).ok();
        let saved: Option<Saved> = saved.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (saved, logins) = saved.map_or_else(Default::default, |s| (s.position, s.logins));
        Followed {
            server: None,
            logins,
            log_pause: None,
            server_pause: None,
            saved,
            late: false,
            dirty: false,
            unknown: BTreeMap::new(),
        }
    }

    /// What is lost of it is found in the log a second time: no reason to wait for a disk. What it passes over has to stand in
    /// the audit log by then, or a daemon that is killed would have read it for nobody.
    fn save(&mut self, paths: &Paths, name: &str, audit: &Audit) {
        let position = self.server.as_ref().and_then(|(_, log)| log.position());
        if position.is_none() || position == self.saved && !self.dirty || !audit.flush(ROUND) {
            return;
        }
        let file = paths.log_position(name);
        let write = || -> std::io::Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(&paths.state_dir)?;
            let saved = serde_json::json!({ "position": position, "logins": self.logins });
            new.write_all(saved.to_string().as_bytes())?;
            new.persist(&file)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "how far the log was read is not written down");
        }
        self.saved = position;
        self.dirty = false;
    }

    /// Whether somebody is just coming in.
    fn look(
        &mut self,
        cluster: &Cluster,
        audit: &Audit,
        serials: impl Fn() -> Result<Serials, Failure>,
    ) -> Result<bool, String> {
        let now = Instant::now();
        if self.log_pause.is_some_and(|until| now < until) {
            return Ok(false);
        }
        let read = self.read(cluster);
        self.log_pause = read.is_err().then(|| now + PAUSE);
        let read = read?;
        if let Some(gap) = read.gap {
            audit.record(&Event::RecordsLost {
                cluster: Some(cluster.name.clone()),
                records: None,
                reason: gap,
            });
        }
        self.count();
        let mut told: Vec<Told> = Vec::new();
        for line in &read.lines {
            told.extend(self.logins.line(&cluster.name, line));
        }
        // What goes on beyond this part of a long log is not over yet, and whose number a process has now is not known there.
        let caught_up = !read.more;
        if caught_up
            && !self.logins.without_serial().is_empty()
            && self.server_pause.is_none_or(|until| until <= now)
        {
            let asked = self.ask(cluster, audit, serials);
            self.server_pause = asked.is_err().then(|| now + PAUSE);
            if let Err(failure) = asked {
                tracing::debug!(cluster = cluster.name, "serials are not known: {failure}");
            }
        }
        if caught_up {
            told.extend(self.logins.settle(&cluster.name, now_ms()));
        }
        self.dirty |= !told.is_empty();
        for Told { event, wall_ns } in &told {
            audit.record_at(event, *wall_ns);
        }
        let logins = &self.logins;
        self.unknown.retain(|pid, _| logins.client(*pid).is_some());
        Ok(read.more || self.logins.unsettled())
    }

    fn read(&mut self, cluster: &Cluster) -> Result<postgres::NewLines, String> {
        if self.server.is_none() {
            let server = Server::find(cluster).map_err(|error| error.to_string())?;
            let language = server.messages().map_err(|error| error.to_string())?;
            if !is_english(&language) {
                return Err(format!(
                    "its server writes its log in another language (lc_messages = '{language}'), and what it says of logins is \
                     known in English only; set lc_messages = 'C'"
                ));
            }
            let names = server.log_names().map_err(|error| error.to_string())?;
            let log = LogFile::new(&server, names, self.saved.clone(), self.late);
            self.server = Some((server, log));
        }
        let Some((_, log)) = &mut self.server else {
            return Err("there is no server".to_owned());
        };
        let read = log.read().map_err(|error| error.to_string());
        if read.is_err() {
            self.saved = log.position().or(self.saved.take());
            self.late = true;
            self.server = None;
        }
        read
    }

    /// The numbers of the certificates by which sessions were opened, and whose they are.
    fn ask(
        &mut self,
        cluster: &Cluster,
        audit: &Audit,
        serials: impl Fn() -> Result<Serials, Failure>,
    ) -> Result<(), Failure> {
        let Some((server, _)) = &self.server else {
            return Ok(());
        };
        let (own, sessions) = postgres::sessions_and_self(server)?;
        self.logins.is_own(own);
        self.dirty = true;
        let Serials(issuers) = serials()?;
        for pid in self.logins.without_serial() {
            self.logins.looked(pid);
            let Some(session) = sessions.iter().find(|session| session.pid == pid) else {
                continue;
            };
            let Some(serial) = &session.serial else { continue };
            let issuer = session.issuer.clone().unwrap_or_default();
            match issuers.certificate(serial, &issuer) {
                Some(certificate) => {
                    self.logins
                        .know(pid, &certificate.serial, Some(&certificate.name));
                }
                None => {
                    let number = hexadecimal(serial);
                    self.logins.know(pid, &number, None);
                    let Some(client) = self.logins.client(pid) else {
                        continue;
                    };
                    audit.record(&Event::UnknownCertificate {
                        cluster: cluster.name.clone(),
                        client: client.clone(),
                    });
                    let line = format!(
                        "{}: process {pid} is a session by certificate {number}, which the ledger does not know: somebody else \
                         has the authority's key, or the ledger was lost or restored; `pgfw connections` shows it, and \
                         `pgfw cert revoke {number}` ends it.",
                        cluster.name
                    );
                    tracing::error!("{line}");
                    self.unknown.insert(pid, line);
                }
            }
        }
        Ok(())
    }

    fn count(&mut self) {
        if !self.logins.any_remote() {
            return;
        }
        let Some(port) = self.server.as_ref().map(|(server, _)| server.port) else {
            return;
        };
        let sockets = match sock_diag::dump_with_info().map_err(PostgresError::SockDiag) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::debug!(%error, "bytes are not counted");
                return;
            }
        };
        let here = sockets.iter().filter(|(socket, _)| socket.local.port() == port);
        let bytes: BTreeMap<_, _> = here
            .filter_map(|(socket, info)| {
                let info = info.as_ref()?;
                // The handshake's SYN counts as one byte (tcp_input.c: `tcp_snd_una_update`).
                Some((socket.remote, (info.sent.saturating_sub(1), info.received)))
            })
            .collect();
        self.logins.count(|remote| bytes.get(&remote).copied());
    }
}

fn is_english(language: &str) -> bool {
    language.is_empty()
        || ["C", "POSIX", "en"]
            .iter()
            .any(|known| language.starts_with(known))
}
