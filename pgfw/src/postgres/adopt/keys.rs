//! The keys of a `[[postgres]]` section, from a server's settings, and which of these pgfw would not have the last word of.

use std::path::{Path, PathBuf};

use super::super::conf::{self, At};
use super::certificate::Served;
use super::find::Place;
use super::sections::Note;
use super::text::{shown, string};
use crate::config::{Location, is_host_name};
use crate::postgres::{PostgresError, Server};

/// The settings of which pgfw would not have the last word.
pub(super) fn last_words(server: &Server, notes: &mut Vec<Note>) -> Result<(), PostgresError> {
    let options = server.options.names().into_iter();
    let names: Vec<&str> = options.filter(|name| is_pgfws(name)).collect();
    if !names.is_empty() {
        notes.push(Note::differs(format!(
            "on the server's command line (postmaster.opts), which has the last word over pgfw's settings: {}; take it \
             out where the server is started",
            names.join(", ")
        )));
    }
    let mut files: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for entry in conf::after(server, &At::to_be(&server.config_file)?) {
        if !is_pgfws(&entry.name) {
            continue;
        }
        let what = format!("{} (line {})", entry.name, entry.line);
        match files.iter_mut().find(|(file, _)| *file == entry.file) {
            Some((_, all)) => all.push(what),
            None => files.push((entry.file, vec![what])),
        }
    }
    for (file, what) in files {
        let remedy = match file.ends_with("postgresql.auto.conf") {
            true => "`alter system reset` takes it out",
            false => "take it out, or move it before the line that includes a directory",
        };
        notes.push(Note::differs(format!(
            "in {}, which has the last word over pgfw's settings: {}; {remedy}",
            shown(file.as_os_str().as_encoded_bytes()),
            what.join(", ")
        )));
    }
    Ok(())
}

/// What pgfw.conf sets (settings.rs).
fn is_pgfws(name: &str) -> bool {
    let plain = [
        "listen_addresses",
        "port",
        "log_connections",
        "log_disconnections",
        "log_statement",
    ];
    plain.contains(&name) || name.starts_with("ssl")
}

pub(super) fn min_tls(value: &str, ssl: bool, notes: &mut Vec<Note>) -> &'static str {
    match value {
        "TLSv1.3" => "1.3",
        "TLSv1.2" => "1.2",
        older => {
            if ssl {
                let older = if older.is_empty() { "any" } else { older };
                notes.push(Note::differs(format!(
                    "ssl_min_protocol_version is {older}: clients of TLS 1.0 and 1.1 are refused then"
                )));
            }
            "1.2"
        }
    }
}

/// A certificate that another authority signed is kept, so that who checks it goes on.
pub(super) fn server_files(
    server: &Server,
    served: &Served,
    certificate: &Path,
    key: &str,
    notes: &mut Vec<Note>,
) -> Option<(String, String)> {
    if !served.signed_by_another {
        if !served.names.is_empty() {
            notes.push(Note::differs(
                "its certificate is signed by itself; pgfw issues one, and clients that check it (sslrootcert) need \
                 the new root"
                    .to_owned(),
            ));
        }
        return None;
    }
    let key = server.data.join(key);
    Some((certificate.to_str()?.to_owned(), key.to_str()?.to_owned()))
}

pub(super) fn server_names(served: Vec<String>, notes: &mut Vec<Note>) -> Vec<String> {
    if !served.is_empty() {
        return served;
    }
    notes.push(Note::says(
        "server_names: the names by which clients connect, for those that check it (sslmode=verify-full)",
    ));
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    host.filter(|name| is_host_name(name)).into_iter().collect()
}

/// The name that a person would give the section.
pub(super) fn wish(place: &Place, major: u16) -> String {
    let name = match place {
        Place::Debian { major: _, name } => name.clone(),
        Place::Data(path) => {
            let parts = path.iter().rev().filter_map(|part| part.to_str());
            let own = parts.filter(|part| !matches!(*part, "data" | "pgdata" | "main"));
            own.map(str::to_owned).next().unwrap_or_default()
        }
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = name
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(50)
        .collect();
    let name = name.trim_start_matches(['.', '-']).to_owned();
    match name.parse::<f32>() {
        _ if name.is_empty() => format!("pg{major}"),
        Ok(_) => format!("pg{name}"),
        Err(_) => name,
    }
}

/// The keys by which a section finds it.
pub(super) fn location_keys(location: &Location) -> Vec<(&'static str, String)> {
    match location {
        Location::Debian { major, name } => vec![("cluster", string(&format!("{major}/{name}")))],
        Location::Directories { data, config_file } => {
            let mut keys = vec![("data_directory", string(&data.to_string_lossy()))];
            if *config_file != data.join("postgresql.conf") {
                keys.push(("config_file", string(&config_file.to_string_lossy())));
            }
            keys
        }
    }
}
