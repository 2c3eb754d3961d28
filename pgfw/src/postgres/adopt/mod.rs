//! `pgfw pg adopt`: an installation as it is, in the words of pgfw.toml.
//!
//! Found (`find.rs`), read as the server reads it (`survey.rs`), translated line by line (`table.rs`, `sections.rs`,
//! `local.rs`, all pure), and written with what there is to say about each line (`write.rs`).

mod certificate;
mod fate;
mod find;
mod keys;
mod local;
mod managers;
mod page;
mod sections;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod write;

use std::path::PathBuf;

use ipnet::IpNet;
use pgfw_hba::{Connection, Hba, HbaLine, Ident, World};
use serde::Serialize;

use crate::config::{Location, Manage};
use local::LocalLine;
use sections::{Note, OfLine};
use table::Table;

/// What a server that was asked has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    /// Its major version, which says what its rules can name.
    major: u16,
    /// Those that may log in. `None`: nobody could be asked.
    roles: Option<Vec<Role>>,
    /// Those that take connections.
    databases: Option<Vec<Vec<u8>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Role {
    name: Vec<u8>,
    /// Physical replication is open to it.
    replicates: bool,
    secret: Secret,
}

/// How a role's password is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    None,
    Scram,
    Md5,
    /// Nobody could be asked.
    Unknown,
}

/// A line and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed<T> {
    /// File and line number.
    at: String,
    raw: Vec<u8>,
    what: T,
}

/// All lines of a pg_hba.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Translation {
    local: Vec<Placed<LocalLine>>,
    lines: Vec<Placed<OfLine>>,
    /// From where anybody gets in by anything, trust and LDAP included.
    open: Vec<IpNet>,
}

fn translate(
    hba: &Hba,
    ident: &Ident,
    known: &Known,
    world: &dyn World,
    ssl: bool,
    superuser: &str,
) -> Translation {
    let table = Table::of(&hba.lines, known, world, ssl);
    let mut translation = Translation::default();
    let mut open = pgfw_hba::Ranges::none();
    for (n, line) in hba.lines.iter().enumerate() {
        let (at, raw) = (line.at.to_string(), without_secrets(line));
        if let Some(what) = local::of_line(line, &hba.lines[..n], ident, superuser) {
            translation.local.push(Placed { at, raw, what });
            continue;
        }
        let what = sections::of_line(&table, n, known);
        translation.lines.push(Placed { at, raw, what });
        let refuses = line.method == pgfw_hba::Method::Reject || line.connection == Connection::Local;
        if let Some(ranges) = table.places[n].ranges.as_ref().filter(|_| !refuses) {
            open = open.union(ranges);
        }
    }
    translation.open = sections::networks(&open);
    translation
}

/// The line as it stands, up to a password that it holds.
fn without_secrets(line: &HbaLine) -> Vec<u8> {
    let mut raw = line.raw.clone();
    let mut names = line.options.all.iter().map(|(name, _)| name.as_slice());
    let secret = |name: &[u8]| matches!(name, b"ldapbindpasswd" | b"radiussecrets" | b"ldapurl");
    if !names.any(secret) {
        return raw;
    }
    // Quotes may stand within a name, so the method's end is looked for, and then everything behind it goes.
    let method = line.method.name().as_bytes();
    let place = raw.windows(method.len()).position(|part| part == method);
    raw.truncate(place.map_or(0, |place| place + method.len()));
    raw.extend_from_slice(b" (and a secret that is not printed)");
    raw
}

/// One `[[postgres]]` section to be, with all that belongs to it.
#[derive(Debug, Clone)]
struct Draft {
    /// `15/main`, or the data directory.
    title: String,
    /// The section's name, if nobody else has it.
    wish: String,
    major: u16,
    pid: Option<i32>,
    data: PathBuf,
    hba_file: PathBuf,
    location: Location,
    port: u16,
    manage: Manage,
    server_names: Vec<String>,
    /// Certificate and key of another authority.
    server_files: Option<(String, String)>,
    listen_addresses: Vec<String>,
    min_tls: &'static str,
    connections: bool,
    statements: String,
    notes: Vec<Note>,
    translation: Translation,
}

/// What was found on this host.
#[derive(Debug, Clone, Serialize)]
pub struct Adopted {
    /// Sections for pgfw.toml.
    pub text: String,
    pub servers: Vec<AdoptedServer>,
    /// What could not be read, a sentence each.
    pub problems: Vec<String>,
}

/// One server in the text.
#[derive(Debug, Clone, Serialize)]
pub struct AdoptedServer {
    /// Its `[[postgres]]` section's name.
    pub name: String,
    /// `15/main`, or its data directory.
    pub server: String,
    pub running: bool,
    pub manage: &'static str,
    pub logins: usize,
    /// What is admitted today and will not be, or the other way about; a sentence each.
    pub differences: Vec<String>,
}

/// Looks at this host's servers, or at those that are named: `15/main`, or a data directory. Changes nothing. Blocks.
pub fn adopt(wanted: &[String]) -> Result<Adopted, crate::failure::Failure> {
    let mut problems = Vec::new();
    let mut drafts = Vec::new();
    let mut seen = Vec::new();
    for place in find::places(wanted, &mut problems) {
        match survey::survey(&place, &mut seen, &mut problems) {
            Ok(Some(draft)) => drafts.push(draft),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    // They hold names of files and words of the server's.
    let problems = problems.iter().map(|problem| page::shown_long(problem)).collect();
    write::write(drafts, problems)
}
