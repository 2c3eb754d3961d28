//! What is left to do or to know once an apply counts.

use super::applied::Applied;
use super::conf::Override;
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
    if let Some(note) = match config.cluster(&server.name) {
        Some(cluster) => pgaudit(&sql, server, cluster)?,
        None => None,
    } {
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
        "select distinct on (lower(name)) lower(name), sourcefile, sourceline from pg_file_settings where lower(name) in \
         (select name from pg_file_settings where sourcefile = any($1)) order by lower(name), seqno desc",
        &[&ours],
    )?;
    let by_file = rows.iter().filter_map(|r| {
        let (name, by, line): (Option<String>, Option<String>, Option<i32>) = (r.get(0), r.get(1), r.get(2));
        Some(Override {
            name: name?,
            by: by.filter(|f| !ours.contains(f))?,
            line: line.and_then(|line| u32::try_from(line).ok()),
        })
    });
    let mut all: Vec<Override> = by_file.collect();
    let by_option = sql.column(
        "select name from pg_settings where source = 'command line' and name in \
         (select name from pg_file_settings where sourcefile = any($1)) order by name",
        &[&ours],
    )?;
    all.retain(|other| !by_option.contains(&other.name));
    all.extend(by_option.iter().map(|name| Override::by_command_line(name)));
    Ok(all)
}

/// What keeps `audit.pgaudit` from counting. `pgaudit.log` is a name that any server takes, whether the library that reads
/// it is there or not.
pub(super) fn pgaudit(
    sql: &Sql,
    server: &Server,
    cluster: &Cluster,
) -> Result<Option<String>, PostgresError> {
    if cluster.audit.pgaudit.is_empty() {
        return Ok(None);
    }
    let names_it = |libraries: &str| {
        libraries
            .split(',')
            .any(|l| l.trim().trim_matches('"') == "pgaudit")
    };
    let of = "shared_preload_libraries";
    let loaded = sql.column("select setting from pg_settings where name = $1", &[&of])?;
    if loaded.iter().any(|libraries| names_it(libraries)) {
        return Ok(None);
    }
    let says = "audit.pgaudit counts for nothing yet: the server has not loaded pgaudit.";
    let restart = restart(cluster);
    // By its files; where the command line has the last word they say nothing.
    let written = sql.column(
        "select setting from pg_file_settings where lower(name) = $1 order by seqno desc limit 1",
        &[&of],
    )?;
    if server.options.setting(of).is_none() && written.iter().any(|libraries| names_it(libraries)) {
        return Ok(Some(format!(
            "{says} It stands in {of} and is loaded at the server's next start: {restart}"
        )));
    }
    let installed = sql.column(
        "select name from pg_available_extensions where name = 'pgaudit'",
        &[],
    )?;
    let install = match installed.is_empty() {
        true => format!("Install postgresql-{}-pgaudit, set", server.major),
        false => "Set".to_owned(),
    };
    let loaded = loaded.first().map(String::as_str).unwrap_or_default();
    let mut libraries: Vec<&str> = loaded
        .split(',')
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    libraries.push("pgaudit");
    Ok(Some(format!(
        "{says} {install} {of} = '{}' in postgresql.conf, and restart the server, which ends every session: {restart}",
        libraries.join(", ")
    )))
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
