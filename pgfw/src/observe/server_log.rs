//! What a server's own log says of logins: who came in, who was refused, who left.
//!
//! The server is the one that knows: `connection authenticated` is written also where the login is then refused, and after
//! `connection authorized` a role or a database may turn out not to exist. So a login is a success once neither has
//! happened, and its end is the server's `disconnection` (src/backend/utils/init/postinit.c, src/backend/tcop/postgres.c:
//! `log_disconnections`). Only `jsonlog` is read: there a name is a JSON string, in the other formats it may pass for more.
//!
//! A session may write lines of its own (`RAISE LOG 'connection authorized: …'`). They come after the login, and with the
//! context of the function that wrote them; lines of the server's about connections have none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::audit::{Client, Event};

/// How many connections are followed at once; the oldest that has not logged in gives way.
const MOST: usize = 20_000;

/// Everybody who is connected to one server, as its log tells.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Logins {
    sessions: BTreeMap<String, Login>,
    /// Processes that serve pgfw itself, which asks whose sessions the others are.
    #[serde(default)]
    own: BTreeSet<i32>,
}

/// One connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Login {
    pid: i32,
    client: Client,
    stage: Stage,
    /// When it came to that stage: milliseconds since 1970, by the server's clock.
    at_ms: i64,
    bytes: Option<(u64, u64)>,
    /// How often the server was asked for the certificate's number.
    #[serde(default)]
    looked: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Asking,
    /// The rules let it in; role and database may still be missing.
    Authorized,
    Open,
}

/// An event and when it was: nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub event: Event,
    pub wall_ns: i128,
}

/// A line of jsonlog, as far as it matters here (src/backend/utils/error/jsonlog.c).
#[derive(Debug, Default, Deserialize)]
struct Line {
    timestamp: String,
    user: Option<String>,
    dbname: Option<String>,
    #[serde(default)]
    pid: i32,
    remote_host: Option<String>,
    remote_port: Option<u16>,
    session_id: Option<String>,
    ps: Option<String>,
    #[serde(default)]
    error_severity: String,
    state_code: Option<String>,
    #[serde(default)]
    message: String,
    detail: Option<String>,
    context: Option<String>,
}

/// Words without which a line says nothing of a login.
const WORDS: [&str; 4] = [
    "connection",
    "\"error_severity\":\"FATAL\"",
    "could not accept SSL",
    "database system is ready",
];

impl Logins {
    /// Takes one line of the log.
    pub fn line(&mut self, cluster: &str, bytes: &[u8]) -> Vec<Told> {
        let text = String::from_utf8_lossy(bytes);
        if !WORDS.iter().any(|word| text.contains(word)) {
            return Vec::new();
        }
        let Ok(line) = serde_json::from_str::<Line>(&text) else {
            return Vec::new();
        };
        let at_ms = milliseconds(&line.timestamp).unwrap_or_default();
        if line.session_id.is_none() || line.context.is_some() {
            return Vec::new();
        }
        if self.own.contains(&line.pid) && line.remote_host.as_deref() == Some("[local]") {
            if line.message.starts_with("disconnection:") {
                self.own.remove(&line.pid);
            }
            return Vec::new();
        }
        if line.message.starts_with("database system is ready") {
            // Whoever was connected to the server before is not any more, and nobody was left to say so.
            let former = std::mem::take(&mut self.sessions);
            let open = former.into_values().filter(|login| login.stage == Stage::Open);
            return open.map(|login| login.closed(cluster, at_ms)).collect();
        }
        // A walreceiver, an autovacuum worker and the like end by FATAL too, and are nobody's login.
        if line.remote_host.is_none() {
            return Vec::new();
        }
        self.about_login(cluster, line, at_ms)
    }

    fn about_login(&mut self, cluster: &str, line: Line, at_ms: i64) -> Vec<Told> {
        let id = line.session_id.clone().unwrap_or_default();
        let stage = self.sessions.get(&id).map(|login| login.stage);
        let is_log = line.error_severity == "LOG";
        let logged_in = matches!(stage, Some(Stage::Authorized | Stage::Open));
        if is_log && line.message.starts_with("connection received:") && stage.is_none() {
            self.login(&id, &line, at_ms);
        } else if is_log && !logged_in && line.message.starts_with("connection authenticated:") {
            let login = self.login(&id, &line, at_ms);
            if let Some((identity, method)) = proven(&line.message) {
                // Of every other method it is a name that its user chose: a role may be called `CN=admin`.
                if method == "cert" {
                    login.client.identity = Some(common_name(identity).unwrap_or(identity).to_owned());
                    login.client.certificate = Some(identity.to_owned());
                }
                login.client.method = Some(method.to_owned());
            }
        } else if is_log
            && !logged_in
            && (line.message.starts_with("connection authorized:")
                || line.message.starts_with("replication connection authorized:"))
        {
            let login = self.login(&id, &line, at_ms);
            login.stage = Stage::Authorized;
            login.at_ms = at_ms;
        } else if is_log && line.message.starts_with("disconnection: session time:") {
            return self.left(cluster, &id, at_ms);
        } else if stage != Some(Stage::Open)
            && (is_log && not_accepted(&line.message) || line.error_severity == "FATAL" && in_login(&line))
        {
            return self.refused(cluster, &id, line, at_ms);
        }
        Vec::new()
    }

    /// Logins that the server has let in and of which it has said nothing else by the time that it says something, or is
    /// looked at again.
    pub fn settle(&mut self, cluster: &str, now_ms: i64) -> Vec<Told> {
        // Whoever goes before it is let in or refused (a scan, a health check) leaves no other line.
        self.sessions
            .retain(|_, l| l.stage != Stage::Asking || now_ms.saturating_sub(l.at_ms) < ASKING_MS);
        let mut told = Vec::new();
        for login in self.sessions.values_mut() {
            if login.stage == Stage::Authorized && login.at_ms + SETTLED_MS <= now_ms {
                login.stage = Stage::Open;
                told.push(login.opened(cluster));
            }
        }
        told
    }

    /// Whether somebody is between the server's word and [`Logins::settle`].
    pub fn unsettled(&self) -> bool {
        self.sessions.values().any(|l| l.stage == Stage::Authorized)
    }

    /// Processes whose certificate's number is not known yet.
    pub fn without_serial(&self) -> Vec<i32> {
        let open = self.sessions.values();
        open.filter(|l| l.stage != Stage::Asking && l.client.certificate.is_some())
            .filter(|l| l.client.serial.is_none() && l.looked < LOOKS)
            .map(|l| l.pid)
            .collect()
    }

    /// Whether anybody is connected from another host.
    pub fn any_remote(&self) -> bool {
        self.sessions.values().any(|l| l.client.address.is_some())
    }

    /// The number of a process's certificate, in the ledger's form, and whose it is.
    pub fn know(&mut self, pid: i32, serial: &str, identity: Option<&str>) {
        // A number that the system gave again before the former one's end was read is not the former one's.
        let meant =
            |l: &&mut Login| l.pid == pid && l.client.certificate.is_some() && l.client.serial.is_none();
        for login in self.sessions.values_mut().filter(meant) {
            login.client.serial = Some(serial.to_owned());
            if let Some(identity) = identity {
                login.client.identity = Some(identity.to_owned());
            }
        }
    }

    /// The server was asked for a process's session, which may not be there yet, or no more.
    pub fn looked(&mut self, pid: i32) {
        for login in self.sessions.values_mut().filter(|l| l.pid == pid) {
            login.looked = login.looked.saturating_add(1);
        }
    }

    /// The process serves pgfw itself, which was asking; what the log says of it is nobody's login.
    pub fn is_own(&mut self, pid: i32) {
        if self.own.len() >= MOST {
            self.own.clear();
        }
        self.own.insert(pid);
    }

    /// The client of a process that is logged in.
    pub fn client(&self, pid: i32) -> Option<&Client> {
        let logins = self.sessions.values();
        let mut of_pid = logins.filter(|l| l.pid == pid && l.stage != Stage::Asking);
        of_pid.next().map(|login| &login.client)
    }

    /// What the kernel counts of a connection now: sent, received.
    pub fn count(&mut self, bytes: impl Fn(SocketAddr) -> Option<(u64, u64)>) {
        for login in self.sessions.values_mut() {
            if let (Some(address), Some(port)) = (login.client.address, login.client.port)
                && let Some(now) = bytes(SocketAddr::new(address, port))
            {
                login.bytes = Some(now);
            }
        }
    }

    fn login(&mut self, id: &str, line: &Line, at_ms: i64) -> &mut Login {
        if !self.sessions.contains_key(id) && self.sessions.len() >= MOST {
            let asking = self.sessions.iter().filter(|(_, l)| l.stage == Stage::Asking);
            let oldest = asking.min_by_key(|(_, l)| l.at_ms).map(|(id, _)| id.clone());
            let gone = oldest.or_else(|| self.sessions.keys().next().cloned());
            gone.and_then(|id| self.sessions.remove(&id));
        }
        let login = self.sessions.entry(id.to_owned()).or_insert_with(|| Login {
            pid: line.pid,
            client: Client::default(),
            stage: Stage::Asking,
            at_ms,
            bytes: None,
            looked: 0,
        });
        login.client.know(line);
        login
    }

    fn left(&mut self, cluster: &str, id: &str, at_ms: i64) -> Vec<Told> {
        let Some(login) = self.sessions.remove(id) else {
            return Vec::new();
        };
        match login.stage {
            Stage::Open => vec![login.closed(cluster, at_ms)],
            Stage::Authorized => vec![login.opened(cluster), login.closed(cluster, at_ms)],
            Stage::Asking => Vec::new(),
        }
    }

    fn refused(&mut self, cluster: &str, id: &str, line: Line, at_ms: i64) -> Vec<Told> {
        self.login(id, &line, at_ms);
        let Some(Login { client, .. }) = self.sessions.remove(id) else {
            return Vec::new();
        };
        let reason = match line.detail {
            // What a person has to know of a certificate that was not taken stands there, from 16 on.
            Some(detail) if not_accepted(&line.message) => format!("{}: {detail}", line.message),
            Some(_) | None => line.message,
        };
        vec![Told {
            event: Event::LoginRefused {
                cluster: cluster.to_owned(),
                client,
                reason,
                code: line.state_code,
            },
            wall_ns: i128::from(at_ms) * 1_000_000,
        }]
    }
}

/// A session that is not shown by then is over.
const LOOKS: u8 = 3;

/// So long after its word the server has looked role and database up.
const SETTLED_MS: i64 = 500;

/// The server ends a login that takes longer than `authentication_timeout`, which is ten minutes at most.
const ASKING_MS: i64 = 11 * 60 * 1_000;

impl Login {
    fn opened(&self, cluster: &str) -> Told {
        Told {
            event: Event::ConnectionOpened {
                cluster: cluster.to_owned(),
                client: self.client.clone(),
            },
            wall_ns: i128::from(self.at_ms) * 1_000_000,
        }
    }

    fn closed(self, cluster: &str, at_ms: i64) -> Told {
        let lasted = u32::try_from(at_ms.saturating_sub(self.at_ms).max(0)).unwrap_or(u32::MAX);
        Told {
            event: Event::ConnectionClosed {
                cluster: cluster.to_owned(),
                seconds: f64::from(lasted) / 1_000.0,
                bytes_sent: self.bytes.map(|(sent, _)| sent),
                bytes_received: self.bytes.map(|(_, received)| received),
                client: self.client,
            },
            wall_ns: i128::from(at_ms) * 1_000_000,
        }
    }
}

impl Client {
    fn know(&mut self, line: &Line) {
        let address = line.remote_host.as_deref().and_then(|host| {
            // A link-local address has its interface behind a percent sign.
            let host = host.split('%').next().unwrap_or_default();
            host.parse().ok().map(|address: IpAddr| address.to_canonical())
        });
        self.address = self.address.or(address);
        self.port = self.port.or(line.remote_port);
        self.role = self.role.take().or_else(|| line.user.clone());
        self.database = self.database.take().or_else(|| line.dbname.clone());
    }
}

/// `connection authenticated: identity="CN=alice" method=cert (/etc/…/pg_hba.conf:7)`; `user=` from 16 on, where nothing was
/// proven. The name may hold anything, a quote and ` method=` too; the method and the place behind it are the server's, and a
/// path of pgfw's holds no such words.
fn proven(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("connection authenticated: ")?;
    let rest = rest
        .strip_prefix("identity=\"")
        .or_else(|| rest.strip_prefix("user=\""))?;
    let (identity, behind) = rest.rsplit_once("\" method=")?;
    Some((identity, behind.split(' ').next()?))
}

/// `CN=alice`, of a subject that is nothing but that (RFC 2253, as the server writes it).
fn common_name(dn: &str) -> Option<&str> {
    let name = dn.strip_prefix("CN=")?;
    (!name.contains([',', '+', '\\', '"', '='])).then_some(name)
}

/// A handshake that failed for a certificate; those that merely broke off are nobody's login.
fn not_accepted(message: &str) -> bool {
    message.starts_with("could not accept SSL connection:") && message.contains("certificate")
}

/// FATAL ends a session too; what the process says it does then tells which it was.
fn in_login(line: &Line) -> bool {
    match line.ps.as_deref() {
        None | Some("" | "authentication" | "startup" | "initializing") => true,
        Some(_) => false,
    }
}

/// `2026-11-26 20:23:52.431 UTC`. Another zone's name tells nothing; then it is now.
fn milliseconds(timestamp: &str) -> Option<i64> {
    let format = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"
    );
    let (text, zone) = timestamp.rsplit_once(' ')?;
    if !matches!(zone, "UTC" | "GMT" | "Etc/UTC") {
        return i64::try_from(crate::clock::Now::read().wall_ns / 1_000_000).ok();
    }
    let time = time::PrimitiveDateTime::parse(text, &format).ok()?.assume_utc();
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests;
