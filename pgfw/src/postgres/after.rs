//! What is left to do or to know once an apply counts.

use super::applied::{Applied, Override};
use super::sql::Sql;
use super::switch::Live;
use super::{PostgresError, Running, Server};
use crate::config::{Cluster, Config, Location};

/// What the server says about our settings and roles once the files count.
pub(super) fn look_after(
    server: &Server,
    running: &Running,
    config: &Config,
    live: &Live,
    applied: &mut Applied,
) -> Result<(), PostgresError> {
    let sql = Sql::connect_to(server, running)?;
    applied.pending_restart = sql.column(
        "select name from pg_settings where pending_restart order by name",
        &[],
    )?;
    applied.overridden = overridden(&sql, &live.conf_paths())?;
    if let Some(note) = pgaudit(&sql, server, config)? {
        applied.notes.push(note);
    }
    applied.missing_roles = super::sessions::missing(&sql, config)?;
    Ok(())
}

/// Settings of the files named that something else overrides.
pub(super) fn overridden(sql: &Sql, ours: &[String]) -> Result<Vec<Override>, PostgresError> {
    // The last entry of a name counts, in whatever case it is written (guc.c: `guc_name_compare`); ours are those that our
    // file has.
    let rows = sql.query(
        "select distinct on (lower(name)) lower(name), sourcefile from pg_file_settings where lower(name) in \
         (select name from pg_file_settings where sourcefile = any($1)) order by lower(name), seqno desc",
        &[&ours],
    )?;
    let by_file = rows.iter().filter_map(|r| {
        let (name, by): (Option<String>, Option<String>) = (r.get(0), r.get(1));
        let by = by.filter(|f| !ours.contains(f))?;
        Some(Override { name: name?, by })
    });
    let mut all: Vec<Override> = by_file.collect();
    let by_option = sql.column(
        "select name from pg_settings where source = 'command line' and name in \
         (select name from pg_file_settings where sourcefile = any($1)) order by name",
        &[&ours],
    )?;
    all.extend(by_option.into_iter().map(|name| Override {
        name,
        by: "command line".to_owned(),
    }));
    Ok(all)
}

/// `pgaudit.log` is a name that any server takes, whether the library that reads it is there or not.
fn pgaudit(sql: &Sql, server: &Server, config: &Config) -> Result<Option<String>, PostgresError> {
    let asked = config
        .cluster(&server.name)
        .is_some_and(|c| !c.audit.pgaudit.is_empty());
    if !asked {
        return Ok(None);
    }
    let loaded = sql.column(
        "select setting from pg_settings where name = 'shared_preload_libraries'",
        &[],
    )?;
    let loaded = loaded.first().map(String::as_str).unwrap_or_default();
    let is_loaded = loaded
        .split(',')
        .any(|library| library.trim().trim_matches('"') == "pgaudit");
    let mut libraries: Vec<&str> = loaded
        .split(',')
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    libraries.push("pgaudit");
    Ok((!is_loaded).then(|| {
        format!(
            "audit.pgaudit counts for nothing: the server has not loaded pgaudit. Install it (postgresql-{}-pgaudit), set \
             shared_preload_libraries = '{}' in postgresql.conf, and restart the server.",
            server.major,
            libraries.join(", ")
        )
    }))
}

/// What restarts a cluster's server.
pub fn restart(cluster: &Cluster) -> String {
    match &cluster.location {
        Location::Debian { major, name } => format!("systemctl restart postgresql@{major}-{name}"),
        Location::Directories { data, config_file: _ } => {
            format!("pg_ctl restart -D {}", data.display())
        }
    }
}

/// The statement that makes a role which the configuration names.
pub(super) fn create_role(config: &Config, role: &str) -> String {
    let identities = config.identities.iter().map(|i| (&i.roles, i.replication));
    let mut all = identities.chain(config.logins.iter().map(|l| (&l.roles, l.replication)));
    let replication = all.any(|(roles, replication)| replication && roles.iter().any(|r| r == role));
    format!(
        "create role \"{}\" login{};",
        role.replace('"', "\"\""),
        if replication { " replication" } else { "" }
    )
}
