//! What a running server knows of settings, roles, and who is connected.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::beforehand::is_on;
use super::super::conf::{At, Override, overriding};
use super::super::sessions::{self, Session};
use super::super::sql::Sql;
use super::super::{PostgresError, Server, after};
use super::Plan;
use crate::config::{Cluster, Config};

/// What a running server was asked.
#[derive(Debug, Clone)]
pub struct Live {
    pub sessions: Vec<Session>,
    /// The processes among them that send WAL, and to whom.
    pub streams: Vec<Stream>,
    /// Processes whose client encrypts by GSSAPI.
    pub gss: Vec<i32>,
    pub roles: Vec<Role>,
    pub databases: Vec<String>,
    /// Roles that pgfw.toml names and that are not there.
    pub missing_roles: Vec<String>,
    /// A statement for each of them.
    pub create_roles: Vec<String>,
    /// Settings that count from the server's next restart on, whatever an apply does.
    pub pending_restart: Vec<String>,
}

/// A row of pg_stat_replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub pid: i32,
    pub application: Option<String>,
    /// `streaming`, `catchup`, `backup` …
    pub state: Option<String>,
    /// `sync` and `quorum` are those that commits wait for.
    pub sync_state: Option<String>,
}

/// A role that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub secret: Secret,
}

/// How a role's password is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    None,
    Md5,
    Scram,
}

/// One setting of pgfw.conf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    /// `None`: the server does not know it now.
    pub now: Option<String>,
    pub then: String,
    /// It counts from the server's next restart on.
    pub restart: bool,
    /// What has the last word: then nothing changes.
    pub overridden: Option<Override>,
}

impl Setting {
    /// `None` where it is so already, and stays so. What has the last word counts once the files are read again, so it is
    /// what a setting stays at.
    fn of(name: &str, now: Option<String>, then: &str, restart: bool, others: &Others) -> Option<Setting> {
        let other = others.get(name).filter(|(_, value)| !is_same(value, then));
        let (overridden, now) = match other {
            Some((by, value)) => (Some(by.clone()), Some(value.clone())),
            None => (None, now),
        };
        (now.as_deref() != Some(then)).then(|| Setting {
            name: name.to_owned(),
            now,
            then: then.to_owned(),
            restart,
            overridden,
        })
    }
}

/// Whether a file says what pgfw does: of booleans in any of their words.
fn is_same(value: &str, then: &str) -> bool {
    match then {
        "on" => is_on(value),
        "off" => !is_on(value),
        then => value == then,
    }
}

impl Plan {
    /// Asks the server, or its files where it is down.
    pub(super) fn ask(
        &mut self,
        cluster: &Cluster,
        config: &Config,
        at: &At,
        own: Vec<(String, String)>,
    ) -> Result<(), PostgresError> {
        let others = overriding(&self.server, at, &own);
        let others = others
            .into_iter()
            .map(|(by, value)| (by.name.clone(), (by, value)))
            .collect();
        // A server that did not answer about its roles is not waited for again.
        if self.now.running && self.now.live.knows_members() {
            let asked = Sql::connect(&self.server).and_then(|sql| {
                let note = after::pgaudit(&sql, &self.server, cluster)?;
                Ok((Live::of(&sql, config)?, settings(&sql, &others, &own)?, note))
            });
            match asked {
                Ok((live, settings, note)) => {
                    self.live = Some(live);
                    self.settings = settings;
                    self.notes.extend(note);
                    return Ok(());
                }
                Err(error) => self.notes.push(format!("the server does not tell: {error}")),
            }
        } else if !self.now.running {
            self.notes
                .push("the server is down: what changes counts at its next start".to_owned());
        }
        self.not_seen = NOT_SEEN.map(str::to_owned).to_vec();
        self.settings = in_files(&self.server, &others, own)?;
        Ok(())
    }
}

/// What only a server that answers can tell.
const NOT_SEEN: [&str; 4] = [
    "live sessions and streaming standbys",
    "which roles and databases exist",
    "who is a member of which role",
    "which settings a server that runs takes at a restart only",
];

impl Live {
    fn of(sql: &Sql, config: &Config) -> Result<Live, PostgresError> {
        let streams = sql.query(
            "select pid, application_name, state, sync_state from pg_stat_replication order by pid",
            &[],
        )?;
        let gss = sql.query("select pid from pg_stat_gssapi where encrypted", &[])?;
        // pg_authid is the superuser's to read, which this session is.
        let roles = sql.query(
            "select rolname::text, case when rolpassword like 'SCRAM-SHA-256$%' then 'scram' \
             when rolpassword is not null then 'md5' end from pg_authid where rolcanlogin order by rolname",
            &[],
        )?;
        let role = |row: &tokio_postgres::Row| Role {
            name: row.get(0),
            secret: match row.get::<_, Option<String>>(1).as_deref() {
                None => Secret::None,
                Some("scram") => Secret::Scram,
                Some(_) => Secret::Md5,
            },
        };
        let missing_roles = sessions::missing(sql, config)?;
        Ok(Live {
            sessions: sessions::list(sql, None)?,
            streams: streams
                .iter()
                .map(|row| Stream {
                    pid: row.get(0),
                    application: row.get(1),
                    state: row.get(2),
                    sync_state: row.get(3),
                })
                .collect(),
            gss: gss.iter().map(|row| row.get(0)).collect(),
            roles: roles.iter().map(role).collect(),
            databases: sql.column(
                "select datname::text from pg_database where datallowconn order by 1",
                &[],
            )?,
            create_roles: missing_roles
                .iter()
                .map(|role| after::create_role(config, role))
                .collect(),
            missing_roles,
            pending_restart: sql.column(
                "select name from pg_settings where pending_restart order by name",
                &[],
            )?,
        })
    }
}

/// What has the last word about a setting, and what that says.
type Others = BTreeMap<String, (Override, String)>;

/// Those that differ from what the server goes by, or that something has the last word about.
fn settings(sql: &Sql, others: &Others, own: &[(String, String)]) -> Result<Vec<Setting>, PostgresError> {
    let own_names: Vec<&String> = own.iter().map(|(name, _)| name).collect();
    let rows = sql.query(
        "select name, setting, context from pg_settings where name = any($1)",
        &[&own_names],
    )?;
    struct Known {
        value: Option<String>,
        restart: bool,
    }
    let known: BTreeMap<String, Known> = rows
        .iter()
        .map(|row| {
            let known = Known {
                value: row.get(1),
                restart: row.get::<_, String>(2) == "postmaster",
            };
            (row.get(0), known)
        })
        .collect();
    let all = own.iter().map(|(name, then)| {
        let known = known.get(name);
        let now = known.and_then(|k| k.value.clone());
        Setting::of(name, now, then, known.is_some_and(|k| k.restart), others)
    });
    Ok(all.flatten().collect())
}

/// By what the files say; a server that is down takes all of them at its start.
fn in_files(
    server: &Server,
    others: &Others,
    own: Vec<(String, String)>,
) -> Result<Vec<Setting>, PostgresError> {
    let all = own.into_iter().map(|(name, then)| {
        let now = server.setting_if_known(&name)?;
        Ok(Setting::of(&name, now, &then, false, others))
    });
    let all: Vec<Option<Setting>> = all.collect::<Result<_, PostgresError>>()?;
    Ok(all.into_iter().flatten().collect())
}
