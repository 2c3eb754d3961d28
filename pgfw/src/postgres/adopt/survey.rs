//! One server's installation, read as the server itself reads it: by its own program, as its own user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pgfw_hba::Disk;
use pgfw_hba::Files as _;

use super::super::options::Options;
use super::super::{PostgresError, Rules, Server, Sql};
use super::certificate::{self, Served};
use super::find::Place;
use super::keys::{last_words, min_tls, server_files, server_names, wish};
use super::managers::{self, Traces};
use super::sections::Note;
use super::text::{shown, string};
use super::{Draft, Known, Role, Secret, Translation, translate};
use crate::config::{Cluster, Config, Manage};
use crate::failure::Failure;

/// Reads one. `None`: it was read already, at another place. What keeps a part of it from being read goes to `problems`.
pub(super) fn survey(
    place: &Place,
    seen: &mut Vec<(u64, u64)>,
    problems: &mut Vec<String>,
) -> Result<Option<Draft>, String> {
    let title = place.title();
    let left_out = |error: PostgresError| {
        let Failure { message, remedy, .. } = Failure::from(error);
        format!(
            "{}: {message}, so it is left out. {remedy}",
            shown(title.as_bytes())
        )
    };
    if let Place::Data(path) = place
        && let Ok(metadata) = fs::metadata(path)
        && seen.contains(&(metadata.dev(), metadata.ino()))
    {
        return Ok(None);
    }
    let cluster = cluster(place)?;
    let mut server = Server::find(&cluster).map_err(left_out)?;
    let metadata = fs::metadata(&server.data).map_err(|e| format!("{title}: {e}."))?;
    let id = (metadata.dev(), metadata.ino());
    if seen.contains(&id) {
        return Ok(None);
    }
    seen.push(id);

    let running = server.running();
    let sql = running.as_ref().map(|running| Sql::connect_to(&server, running));
    if let Some(Ok(sql)) = &sql
        && let Ok([hba, ident]) = files(sql)
        && hba.is_absolute()
        && ident.is_absolute()
    {
        server.hba_file = hba;
        server.ident_file = ident;
    }
    let read = |path: &Path| {
        let bytes = server.owner.act(|| Disk.read(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let hba = read(&server.hba_file);
    if hba.starts_with("# Written by pgfw") {
        return Err(format!(
            "{} is pgfw's already ({} is what `pgfw pg apply` wrote), so it is left out.",
            shown(title.as_bytes()),
            server.hba_file.display()
        ));
    }
    let rules = Rules::of(&server).map_err(left_out)?;
    let asked = sql.map(|sql| sql.and_then(|sql| known(&sql)));
    let mut notes = Vec::new();
    let mut known = match asked {
        Some(Ok(known)) => known,
        Some(Err(error)) => {
            notes.push(Note::differs(format!(
                "its roles are not known, since it cannot be asked: {error}"
            )));
            Known::default()
        }
        None => {
            notes.push(Note::says("it is down, so its roles and databases are not known"));
            Known::default()
        }
    };
    known.major = server.major;
    let (conf, auto_conf) = (
        read(&server.config_file),
        read(&server.data.join("postgresql.auto.conf")),
    );
    let names = names_in(&[Some(server.data.as_path()), server.config_file.parent()]);
    let yml = patroni_yml(&server.data);
    let traces = Traces {
        conf: &conf,
        hba: &hba,
        auto_conf: &auto_conf,
        names: &names,
        patroni_yml: yml.as_deref(),
    };
    let mut manage = Manage::Files;
    if let Some((instead, why)) = managers::manager(&traces) {
        manage = instead;
        notes.push(Note::says(why));
    }
    last_words(&server, &mut notes).map_err(left_out)?;
    if running.is_some() {
        notes.extend(rules.notes.iter().map(Note::says));
    }
    let ssl = rules.ssl;
    let superuser = &server.owner.name;
    let translation = translate(&rules.hba, &rules.ident, &known, &rules.live, ssl, superuser);
    let translation = if let Some(problem) = rules.hba.errors.first() {
        problems.push(format!(
            "{problem}: a server does not load that file, so its rules are left out. Correct it, then adopt again."
        ));
        manage = Manage::None;
        notes.push(Note::differs(format!(
            "{problem}: a server does not load that file, so no rules are carried over; correct it and adopt again"
        )));
        // What the filter is to let in stays as wide as the lines that can be read.
        Translation {
            open: translation.open,
            ..Translation::default()
        }
    } else {
        for doubt in rules.hba.doubts.iter().chain(&rules.ident.doubts) {
            notes.push(Note::says(doubt.to_string()));
        }
        translation
    };
    if let Some(problem) = rules.ident.errors.first() {
        notes.push(Note::differs(format!(
            "{problem}: a server does not load that file of maps"
        )));
    }
    let setting = |name: &'static str| server.setting(name);
    let all = || -> Result<Draft, PostgresError> {
        if !ssl {
            notes.push(Note::differs(
                "ssl is off: everybody comes in plaintext today, and over TLS then (sslmode=prefer will do)"
                    .to_owned(),
            ));
        }
        let min_tls = min_tls(&setting("ssl_min_protocol_version")?, ssl, &mut notes);
        let certificate = server.data.join(setting("ssl_cert_file")?);
        let served = match ssl {
            true => certificate::served(&read(&certificate)).unwrap_or_default(),
            false => Served::default(),
        };
        let server_files = server_files(
            &server,
            &served,
            &certificate,
            &setting("ssl_key_file")?,
            &mut notes,
        );
        Ok(Draft {
            title: title.clone(),
            wish: wish(place, server.major),
            major: server.major,
            pid: running.as_ref().map(|running| running.pid),
            data: server.data.clone(),
            hba_file: server.hba_file.clone(),
            location: place.location(&server.config_file),
            port: match &running {
                Some(running) => running.port,
                None => server.port,
            },
            manage,
            server_names: server_names(served.names, &mut notes),
            server_files,
            listen_addresses: server.listen_addresses()?,
            min_tls,
            // A list of events from 18 on.
            connections: !matches!(
                setting("log_connections")?.as_str(),
                "off" | "" | "false" | "no" | "0"
            ),
            statements: setting("log_statement")?,
            notes: Vec::new(),
            translation,
        })
    };
    let mut draft = all().map_err(left_out)?;
    draft.notes = notes;
    Ok(Some(draft))
}

/// The section that leads there, as pgfw itself would find it.
fn cluster(place: &Place) -> Result<Cluster, String> {
    let title = place.title();
    let lines = match place {
        Place::Debian { major, name } => format!("cluster = {}\n", string(&format!("{major}/{name}"))),
        Place::Data(data) => {
            if !data.join("PG_VERSION").is_file() {
                return Err(format!(
                    "{} is no data directory: it holds no PG_VERSION that can be read.",
                    shown(title.as_bytes())
                ));
            }
            let options = Options::of(data);
            let config_file = match (options.setting("config_file"), &options.directory) {
                (Some(file), _) => PathBuf::from(file),
                (None, Some(directory)) => directory.join("postgresql.conf"),
                (None, None) => data.join("postgresql.conf"),
            };
            let texts = [data.to_str(), data.join(config_file).to_str()].map(|path| path.map(string));
            let [Some(data), Some(config_file)] = texts else {
                return Err(format!(
                    "{} has a name that pgfw.toml cannot hold, so it is left out.",
                    shown(title.as_bytes())
                ));
            };
            format!("data_directory = {data}\nconfig_file = {config_file}\n")
        }
    };
    let text = format!("[[postgres]]\nname = \"adopted\"\n{lines}");
    let config = Config::parse(&text, Path::new("pgfw.toml"));
    let cluster = config.ok().and_then(|config| config.postgres.into_iter().next());
    let unnameable = || {
        format!(
            "{} cannot be named in pgfw.toml, so it is left out.",
            shown(title.as_bytes())
        )
    };
    cluster
        .map(|c| Cluster {
            name: shown(title.as_bytes()),
            ..c
        })
        .ok_or_else(unnameable)
}

/// The files that a server goes by: a relative name counts from where it was started, which nobody else knows.
fn files(sql: &Sql) -> Result<[PathBuf; 2], PostgresError> {
    let both = sql.column(
        "select pg_catalog.current_setting(name) from pg_catalog.unnest(array['hba_file', 'ident_file']) name",
        &[],
    )?;
    let [hba, ident] = both.as_slice() else {
        return Ok(Default::default());
    };
    Ok([PathBuf::from(hba), PathBuf::from(ident)])
}

/// Roles that may log in, and databases that take connections.
fn known(sql: &Sql) -> Result<Known, PostgresError> {
    // Who is no superuser does not see passwords.
    let with = "select pg_catalog.convert_to(rolname::text, 'SQL_ASCII'), rolreplication or rolsuper, case when \
                rolpassword is null then 'none' when rolpassword like 'SCRAM-SHA-256$%' then 'scram' else 'md5' end \
                from pg_catalog.pg_authid where rolcanlogin order by rolname";
    let without = "select pg_catalog.convert_to(rolname::text, 'SQL_ASCII'), rolreplication or rolsuper, 'unknown' \
                   from pg_catalog.pg_roles where rolcanlogin order by rolname";
    let rows = sql.query(with, &[]).or_else(|_| sql.query(without, &[]))?;
    let roles = rows.iter().map(|row| Role {
        name: row.get(0),
        replicates: row.get(1),
        secret: match row.get::<_, &str>(2) {
            "none" => Secret::None,
            "scram" => Secret::Scram,
            "md5" => Secret::Md5,
            _ => Secret::Unknown,
        },
    });
    let databases = sql.query(
        "select pg_catalog.convert_to(datname::text, 'SQL_ASCII') from pg_catalog.pg_database where datallowconn \
         order by datname",
        &[],
    )?;
    Ok(Known {
        roles: Some(roles.collect()),
        databases: Some(databases.iter().map(|row| row.get(0)).collect()),
        ..Known::default()
    })
}

fn names_in(folders: &[Option<&Path>]) -> Vec<String> {
    let entries = folders
        .iter()
        .flatten()
        .filter_map(|folder| fs::read_dir(folder).ok());
    let entries = entries.flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// A file of Patroni's settings that is about this data directory.
fn patroni_yml(data: &Path) -> Option<String> {
    let mut files = vec![
        PathBuf::from("/etc/patroni.yml"),
        PathBuf::from("/etc/patroni.yaml"),
    ];
    let folder = fs::read_dir("/etc/patroni").into_iter().flatten().flatten();
    files.extend(folder.map(|entry| entry.path()));
    files.sort();
    let names_it = |text: &str| {
        let values = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("data_dir:"));
        values
            .map(|v| v.split(" #").next().unwrap_or(v).trim().trim_matches(['"', '\'']))
            .any(|value| Path::new(value) == data)
    };
    let is_yml = |path: &&PathBuf| path.extension().is_some_and(|e| e == "yml" || e == "yaml");
    let found = files
        .iter()
        .filter(is_yml)
        .find(|path| fs::read_to_string(path).is_ok_and(|t| names_it(&t)));
    found.map(|path| path.display().to_string())
}
