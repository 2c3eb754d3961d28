//! What `pg verify` asks of a cluster's files: were they edited, do they count, would the server start with them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::crypto::ring;

use super::after;
use super::apply::COMPLAINTS;
use super::sql::Sql;
use super::stage::Generations;
use super::switch::Live;
use super::tls::{self, Credential};
use super::{PostgresError, Server};
use crate::config::{Cluster, Config, Manage};
use crate::failure::Failure;
use crate::paths::Paths;

/// A sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    pub drift: Vec<String>,
    pub unfit: Vec<String>,
    pub overridden: Vec<String>,
    /// What is known and no fault, and what could not be asked.
    pub notes: Vec<String>,
}

/// Looks at the files, and asks the server where it runs. Changes nothing.
///
/// # Errors
/// Files that cannot be read.
pub fn inspect(
    cluster: &Cluster,
    config: &Config,
    paths: &Paths,
    server: &Server,
) -> Result<Inspection, PostgresError> {
    let mut seen = Inspection::default();
    let generations = Generations::at(&paths.postgres(&cluster.name))?;
    let live = Live::of(server, &generations)?;
    if cluster.manage == Manage::Files {
        edits(&generations, &live, &mut seen);
    }
    tls_files(server, &mut seen)?;
    let Some(running) = server.running() else {
        seen.notes
            .push("the server is down, so what it says of its settings is not known".to_owned());
        return Ok(seen);
    };
    let asked = Sql::connect_to(server, &running).and_then(|sql| {
        let ours = live.conf_paths();
        let overridden = after::overridden(&sql, &ours)?;
        seen.overridden = overridden
            .into_iter()
            .map(|o| {
                format!(
                    "{} of pgfw.conf does not count: {} has the last word; {}.",
                    o.name,
                    o.place(),
                    o.remedy()
                )
            })
            .collect();
        let pending = sql.column(
            "select name from pg_settings where pending_restart order by name",
            &[],
        )?;
        if !pending.is_empty() {
            seen.notes.push(format!(
                "from the server's next restart on counts: {}",
                pending.join(", ")
            ));
        }
        // The rules and maps are judged by their own reader, which also knows what these views do not show.
        let complaints = sql.column(COMPLAINTS, &[])?;
        let settings = complaints
            .into_iter()
            .filter(|c| !c.starts_with("pg_hba.conf line ") && !c.starts_with("pg_ident.conf line "));
        seen.unfit
            .extend(settings.map(|c| format!("{c}; the next start fails over it.")));
        let missing = super::sessions::missing(&sql, config)?;
        if !missing.is_empty() {
            seen.notes
                .push(format!("roles that do not exist: {}", missing.join(", ")));
        }
        Ok(())
    });
    if let Err(error) = asked {
        seen.notes.push(format!(
            "what the server says of its settings is not known: {error}"
        ));
    }
    Ok(seen)
}

fn edits(generations: &Generations, live: &Live, seen: &mut Inspection) {
    let Some(current) = generations.current() else {
        seen.notes
            .push("pgfw has applied nothing here yet; `pgfw pg apply` does".to_owned());
        return;
    };
    let looked = [live.check_links(), generations.check_unedited(current)];
    for error in looked.into_iter().filter_map(Result::err) {
        let failure = Failure::from(error);
        seen.drift
            .push(format!("{}. {}", failure.message, failure.remedy));
    }
    if seen.drift.is_empty() && !live.in_place() {
        seen.drift.push(
            "a live name of the server does not lead to what pgfw wrote; `pgfw pg apply` puts it in place."
                .to_owned(),
        );
    }
}

/// What the server reads at its start when `ssl` is on, and ends over (be-secure-openssl.c: `be_tls_init`).
fn tls_files(server: &Server, seen: &mut Inspection) -> Result<(), PostgresError> {
    if server.setting("ssl")? != "on" {
        return Ok(());
    }
    let mut read = |name: &'static str| -> Result<Option<(PathBuf, String)>, PostgresError> {
        let value = server.setting(name)?;
        if value.is_empty() {
            return Ok(None);
        }
        let path = server.data.join(value);
        let text = server.owner.act(|| {
            let mut text = String::new();
            File::open(&path)?.read_to_string(&mut text)?;
            Ok(text)
        });
        match text {
            Ok(text) => Ok(Some((path, text))),
            Err(error) => {
                seen.unfit.push(format!(
                    "{name}: {} cannot be read by {}: {error}.",
                    path.display(),
                    server.owner.name
                ));
                Ok(None)
            }
        }
    };
    let (certificate, key) = (read("ssl_cert_file")?, read("ssl_key_file")?);
    read("ssl_ca_file")?;
    let Some(((certificate_path, certificate), (key_path, key))) = certificate.zip(key) else {
        return Ok(());
    };
    let credential = Credential {
        certificate: &certificate,
        key: &key,
    };
    if let Err(error) = tls::certified(credential, &ring::default_provider()) {
        seen.unfit.push(format!(
            "{} and {} are no pair that the server can use: {error}.",
            certificate_path.display(),
            key_path.display()
        ));
    }
    if let Some(message) = loose_key(&key_path, server.owner.uid) {
        seen.unfit.push(message);
    }
    Ok(())
}

/// be-secure-common.c, `check_ssl_key_file_permissions`: 0600 of the server's user, or 0640 of root.
fn loose_key(path: &Path, owner: u32) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let mode = metadata.permissions().mode() & 0o777;
    let (forbidden, most) = match metadata.uid() {
        0 => (0o037, "0640"),
        uid if uid == owner => (0o077, "0600"),
        uid => {
            return Some(format!(
                "{} belongs to uid {uid}; the server takes a key of its own user or of root.",
                path.display()
            ));
        }
    };
    (mode & forbidden != 0).then(|| {
        format!(
            "{} has mode {mode:04o}; the server takes {most} at most.",
            path.display()
        )
    })
}
