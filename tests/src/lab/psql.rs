//! psql, once or as a session that stays open.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use super::process::{Child, Outcome, run};
use super::wait::{PATIENCE, within};
use super::{Host, Namespace};

/// psql somewhere, with a connection string and nothing from the environment or anybody's home.
pub struct Psql<'lab> {
    command: Box<dyn Fn() -> Command + 'lab>,
    settings: Vec<(String, String)>,
}

impl fmt::Debug for Psql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Psql")
            .field("conninfo", &self.conninfo())
            .finish()
    }
}

impl<'lab> Psql<'lab> {
    /// On a machine in this network.
    pub fn at(namespace: &'lab Namespace) -> Psql<'lab> {
        Psql::with(move || namespace.command("psql"))
    }

    /// On the database host itself, as one of its users.
    pub fn as_user(host: &'lab Host, user: &'lab str) -> Psql<'lab> {
        Psql::with(move || host.command_as_user("psql", user))
    }

    fn with(command: impl Fn() -> Command + 'lab) -> Psql<'lab> {
        let psql = Psql {
            command: Box::new(command),
            settings: Vec::new(),
        };
        psql.set("connect_timeout", "15").set("passfile", "/nonexistent")
    }

    /// Sets a libpq keyword: `host`, `user`, `dbname`, `sslmode`, `sslrootcert` …
    #[must_use]
    pub fn set(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value
            .as_ref()
            .to_str()
            .expect("libpq settings are text")
            .to_owned();
        self.settings.retain(|(present, _)| present != key);
        self.settings.push((key.to_owned(), value));
        self
    }

    /// Presents the certificate and key in `folder` and trusts the authority there, as `pgfw cert issue` names them.
    #[must_use]
    pub fn certificate(self, folder: &Path, name: &str) -> Self {
        self.set("sslmode", "verify-full")
            .set("sslrootcert", folder.join("root.crt"))
            .set("sslcert", folder.join(format!("{name}.crt")))
            .set("sslkey", folder.join(format!("{name}.key")))
    }

    /// The connection string, to be shown and typed again.
    pub fn conninfo(&self) -> String {
        let quoted = self.settings.iter().map(|(key, value)| {
            let plain = !value.is_empty()
                && value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_./:*".contains(c));
            let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
            if plain {
                format!("{key}={value}")
            } else {
                format!("{key}='{escaped}'")
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Connects, runs SQL, and ends. Rows come one to a line, columns separated by `|`.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Outcome {
        run(self.base().args(["-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Connects and stays.
    ///
    /// # Errors
    /// What psql said, when the connection is refused.
    #[track_caller]
    pub fn open(&self) -> Result<Session, SessionEnd> {
        let mut child = Child::start(self.base().stdin(Stdio::piped()));
        let input = child.take_stdin();
        let mut session = Session {
            child,
            input,
            asked: 0,
        };
        session.ask("select 1", PATIENCE)?;
        Ok(session)
    }

    fn base(&self) -> Command {
        let mut command = (self.command)();
        command
            .args(["-X", "-A", "-t", "-q", "-w", "-d", &self.conninfo()])
            .current_dir("/");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent");
        command
    }
}

/// A session that stays open until it is dropped, or until the server or the network ends it.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: ChildStdin,
    asked: u32,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// psql gave up; what it said.
    Closed(String),
    /// Nothing comes back any more.
    Silent,
}

impl Session {
    /// Runs SQL in the session and gives its rows; an SQL error gives none.
    ///
    /// # Errors
    /// When the connection is gone, or nothing comes back for ten seconds.
    pub fn query(&mut self, sql: &str) -> Result<String, SessionEnd> {
        self.ask(sql, Duration::from_secs(10))
    }

    fn ask(&mut self, sql: &str, patience: Duration) -> Result<String, SessionEnd> {
        self.asked += 1;
        let marker = format!("-- end of answer {} --", self.asked);
        let before = self.child.stdout().len();
        if writeln!(self.input, "{sql};\n\\echo '{marker}'").is_err() {
            return Err(SessionEnd::Closed(self.child.stderr()));
        }
        let answer = within(patience, || {
            let ended = self.child.has_ended();
            let said = self.child.stdout();
            match said[before..].split_once(&marker) {
                Some((rows, _)) => Some(Ok(rows.trim_end().to_owned())),
                None if ended => Some(Err(SessionEnd::Closed(self.child.stderr()))),
                None => None,
            }
        });
        answer.unwrap_or(Err(SessionEnd::Silent))
    }
}
