//! `pg_service.conf` as libpq reads it: sections, `key=value` without quotes or blanks around the sign
//! (parseServiceFile in src/interfaces/libpq/fe-connect.c).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ClientError;

/// Debian's and the rest's.
const SYSTEM: [&str; 3] = [
    "/etc/postgresql-common/pg_service.conf",
    "/etc/pg_service.conf",
    "/usr/local/pgsql/etc/pg_service.conf",
];

/// Where libpq looks, in its order: the user's file, then the system's.
pub(super) fn places(var: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let own = match (var("PGSERVICEFILE"), var("HOME")) {
        (Some(file), _) => Some(PathBuf::from(file)),
        (None, Some(home)) => Some(Path::new(&home).join(".pg_service.conf")),
        (None, None) => None,
    };
    let system = match var("PGSYSCONFDIR") {
        Some(folder) => vec![Path::new(&folder).join("pg_service.conf")],
        None => SYSTEM.iter().map(PathBuf::from).collect(),
    };
    own.into_iter().chain(system).collect()
}

/// The settings of one section, from the first file that has it.
///
/// # Errors
/// No file has it; a file that is not understood.
pub(super) fn find(name: &str, places: &[PathBuf]) -> Result<BTreeMap<String, String>, ClientError> {
    for file in places {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => {
                let file = file.clone();
                return Err(ClientError::Read { file, source });
            }
        };
        let found = section(name, &text).map_err(|line| ClientError::ServiceLine {
            file: file.clone(),
            line,
        })?;
        if let Some(settings) = found {
            return Ok(settings);
        }
    }
    Err(ClientError::NoService {
        name: name.to_owned(),
        looked: places.iter().map(|p| p.display().to_string()).collect(),
    })
}

/// `Err`: the number of a line within the section that is none.
pub(super) fn section(name: &str, text: &str) -> Result<Option<BTreeMap<String, String>>, usize> {
    let mut settings = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix('[') {
            if settings.is_some() {
                break;
            }
            settings = (head.strip_suffix(']') == Some(name)).then(BTreeMap::new);
            continue;
        }
        let Some(settings) = settings.as_mut() else {
            continue;
        };
        let (key, value) = line.split_once('=').ok_or(number + 1)?;
        // The first that is set counts, as in libpq.
        settings.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(settings)
}
