//! What would keep a server from going by what an apply gives it, known before anything is changed.

use std::path::{Path, PathBuf};

use super::conf::{self, At};
use super::live::Live;
use super::sql::Sql;
use super::{PostgresError, Server};
use crate::config::{Cluster, Manage};

/// Refuses where the server would read other files than pgfw writes, or would not serve the TLS that an apply has to
/// prove. `own`: pgfw's settings.
///
/// # Errors
/// [`PostgresError::Relative`], [`PostgresError::OtherFile`], [`PostgresError::LastStart`],
/// [`PostgresError::Overridden`].
pub(super) fn check(
    cluster: &Cluster,
    server: &Server,
    live: &Live,
    own: &[(String, String)],
) -> Result<(), PostgresError> {
    if cluster.manage != Manage::Files {
        return Ok(());
    }
    goes_by_these_files(server)?;
    // The proof looks at no TLS where the server takes no TCP.
    if cluster.listen_addresses.is_empty() {
        return Ok(());
    }
    let others: Vec<String> = conf::overriding(server, &At::of(live), own)
        .into_iter()
        .filter(|(by, value)| keeps_from_tls(&by.name, value, own))
        .map(|(by, value)| {
            format!(
                "{} is '{value}' by {}, which has the last word over pgfw's settings: {}",
                by.name,
                by.place(),
                by.remedy()
            )
        })
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(PostgresError::Overridden {
        cluster: server.name.clone(),
        message: others.join("; "),
    })
}

/// Whether a server with that value cannot serve, ask for, or refuse the certificates that pgfw says.
fn keeps_from_tls(name: &str, value: &str, own: &[(String, String)]) -> bool {
    match name {
        "ssl" => !is_on(value),
        "ssl_cert_file" | "ssl_key_file" | "ssl_ca_file" | "ssl_crl_dir" => {
            !own.iter().any(|(n, v)| n == name && v == value)
        }
        _ => false,
    }
}

/// A boolean, or what begins one (bool.c: `parse_bool_with_len`).
pub(super) fn is_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match value.as_str() {
        "" | "o" => false,
        "1" => true,
        other => ["true", "yes", "on"].iter().any(|word| word.starts_with(other)),
    }
}

/// That pg_hba.conf and pg_ident.conf are where the settings say, for a server that runs and for its next start.
fn goes_by_these_files(server: &Server) -> Result<(), PostgresError> {
    let named = [("hba_file", &server.hba_file), ("ident_file", &server.ident_file)];
    let entries = conf::all(server);
    for (setting, _) in named {
        let written = entries.iter().rev().find(|entry| entry.name == setting);
        let (value, place) = match (server.options.setting(setting), written) {
            (Some(value), _) => (value, "the command line".to_owned()),
            (None, Some(entry)) => (
                entry.value.as_str(),
                format!("{} line {}", entry.file.display(), entry.line),
            ),
            (None, None) => continue,
        };
        if Path::new(value).is_relative() {
            return Err(PostgresError::Relative {
                setting,
                value: value.to_owned(),
                place,
            });
        }
    }
    let Some(running) = server.running() else {
        return not_by_its_last_start(server);
    };
    let of_the_server = Sql::connect_to(server, &running).and_then(|sql| {
        let value = |name: &str| sql.column("select pg_catalog.current_setting($1)", &[&name]);
        Ok([value("config_file")?, value("hba_file")?, value("ident_file")?])
    });
    // One that does not answer is asked again by the proof.
    let Ok(of_the_server) = of_the_server else {
        return Ok(());
    };
    let all = [("config_file", &server.config_file)].into_iter().chain(named);
    for ((setting, says), runs) in all.zip(of_the_server) {
        let Some(runs) = runs.into_iter().next().map(PathBuf::from) else {
            continue;
        };
        if !is_same_name(&runs, says) {
            return Err(PostgresError::OtherFile {
                cluster: server.name.clone(),
                setting,
                runs,
                says: says.clone(),
            });
        }
    }
    Ok(())
}

/// A server that is down goes at its next start by what is said then, and nobody knows that it is the same: pg_upgradecluster
/// starts both servers by a pg_hba.conf of its own, and leaves one of them down.
pub(super) fn not_by_its_last_start(server: &Server) -> Result<(), PostgresError> {
    for setting in ["hba_file", "ident_file"] {
        if let Some(says) = server.options.setting(setting) {
            return Err(PostgresError::LastStart {
                cluster: server.name.clone(),
                setting,
                says: says.to_owned(),
            });
        }
    }
    Ok(())
}

/// The same entry of the same folder. What the entry itself is a link to does not count: an apply makes it one.
fn is_same_name(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| path.parent().and_then(|folder| folder.canonicalize().ok());
    one == other
        || one.file_name() == other.file_name() && folder(one).is_some() && folder(one) == folder(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_the_server_reads_them() {
        for on in ["on", "ON", "true", "t", "yes", "y", "1"] {
            assert!(is_on(on), "{on}");
        }
        for off in ["off", "of", "false", "f", "no", "0", "o", ""] {
            assert!(!is_on(off), "{off}");
        }
    }

    #[test]
    fn what_keeps_a_server_from_tls() {
        let own = [("ssl_cert_file".to_owned(), "/pgfw/server.crt".to_owned())];
        // name, value, whether it does
        let rows = [
            ("ssl", "off", true),
            ("ssl", "on", false),
            ("ssl_cert_file", "/etc/ssl/snakeoil.pem", true),
            ("ssl_cert_file", "/pgfw/server.crt", false),
            ("ssl_ca_file", "", true),
            ("ssl_min_protocol_version", "TLSv1.2", false),
            ("log_statement", "none", false),
        ];
        for (name, value, does) in rows {
            assert_eq!(keeps_from_tls(name, value, &own), does, "{name} {value}");
        }
    }
}
