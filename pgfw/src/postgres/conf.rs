//! postgresql.conf with all that it includes, in the order in which the server reads it: which file and line has the last
//! word about a setting, also while the server is down.

use std::path::{Component, Path, PathBuf};

use pgfw_hba::{Disk, Files};
use serde::{Deserialize, Serialize};

use super::hba::quote;
use super::live::{Include, Live};
use super::stage::Generations;
use super::{PostgresError, Server};

/// What sets a setting after pgfw's file does, and so instead of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The setting.
    pub name: String,
    /// The file that has the last word, or `command line`.
    pub by: String,
    /// Of the file; `None` for the command line.
    pub line: Option<u32>,
}

impl Override {
    pub(super) fn by_command_line(name: &str) -> Override {
        Override {
            name: name.to_owned(),
            by: COMMAND_LINE.to_owned(),
            line: None,
        }
    }

    /// Where it is.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{} line {line}", self.by),
            None => format!("the {}", self.by),
        }
    }

    /// What to do about it, as the end of a sentence.
    pub fn remedy(&self) -> String {
        if self.by == COMMAND_LINE {
            "take it out where the server is started, and start it once without it".to_owned()
        } else if self.by.ends_with("/postgresql.auto.conf") {
            format!("say `alter system reset {}`", self.name)
        } else {
            "take that line out, or move it before the one that includes pgfw's settings".to_owned()
        }
    }
}

const COMMAND_LINE: &str = "command line";

/// One line that sets something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// In lower case.
    pub(super) name: String,
    pub(super) value: String,
    pub(super) file: PathBuf,
    /// From one.
    pub(super) line: u32,
}

/// Where pgfw's settings are read, or will be.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// As this file of a directory that postgresql.conf includes.
    File(PathBuf),
    /// By this line, at the end where it is not there yet.
    Line(String),
}

impl At {
    pub(super) fn of(live: &Live) -> At {
        match &live.include {
            Include::Directory(link) => At::File(plain(link)),
            Include::Line { file: _, line } => At::Line(line.clone()),
        }
    }

    /// Where they would be of a server that pgfw has nothing to do with.
    ///
    /// # Errors
    /// A postgresql.conf that cannot be read.
    pub(super) fn to_be(config_file: &Path) -> Result<At, PostgresError> {
        // Its own line is at the end, and in no file that nobody wrote.
        Ok(At::of(&Live::of_settings(
            config_file,
            &Generations::at(Path::new("/"))?,
        )?))
    }
}

/// The settings that count instead of pgfw's, each with its value: what the command line says, or else what is read last.
pub(super) fn overriding(server: &Server, at: &At, own: &[(String, String)]) -> Vec<(Override, String)> {
    let entries = after(server, at);
    let named = own.iter().filter_map(|(name, _)| {
        if let Some(value) = server.options.setting(name) {
            return Some((Override::by_command_line(name), value.to_owned()));
        }
        let last = entries.iter().rev().find(|entry| entry.name == *name)?;
        let by = Override {
            name: name.clone(),
            by: last.file.display().to_string(),
            line: Some(last.line),
        };
        Some((by, last.value.clone()))
    });
    named.collect()
}

/// What is read after pgfw's settings, in order; read as the server's user.
pub(super) fn after(server: &Server, at: &At) -> Vec<Entry> {
    read(server, Some(at)).1
}

/// Everything, in order.
pub(super) fn all(server: &Server) -> Vec<Entry> {
    let (mut all, after) = read(server, None);
    all.extend(after);
    all
}

/// What is read before the place of pgfw's settings, and after it.
fn read(server: &Server, at: Option<&At>) -> (Vec<Entry>, Vec<Entry>) {
    let mut reader = Reader {
        server,
        at,
        entries: Vec::new(),
        place: None,
    };
    reader.file(&server.config_file, 0);
    let place = reader.place.unwrap_or(reader.entries.len());
    // Last of all (guc-file.l: `ProcessConfigFileInternal`).
    reader.file(&server.data.join("postgresql.auto.conf"), 0);
    let after = reader.entries.split_off(place);
    (reader.entries, after)
}

struct Reader<'a> {
    server: &'a Server,
    at: Option<&'a At>,
    entries: Vec<Entry>,
    /// How many entries were there when pgfw's settings were come to last.
    place: Option<usize>,
}

/// guc-file.l: `CONF_FILE_MAX_DEPTH`.
const DEEPEST: usize = 10;

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) {
        let ours = match self.at {
            None => false,
            Some(At::File(link)) => path == link,
            Some(At::Line(line)) => parse_line(line).is_some_and(|(_, own)| plain(Path::new(&own)) == path),
        };
        if ours {
            self.place = Some(self.entries.len());
            return;
        }
        if depth > DEEPEST {
            return;
        }
        // What is not there or cannot be read is the server's to complain of.
        let Ok(bytes) = self.server.owner.act(|| Disk.read(path)) else {
            return;
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        for (number, line) in (1..).zip(String::from_utf8_lossy(&bytes).split('\n')) {
            let Some((name, value)) = parse_line(line) else {
                continue;
            };
            let there = plain(&folder.join(&value));
            match name.as_str() {
                "include" | "include_if_exists" => self.file(&there, depth + 1),
                "include_dir" => self.folder(&there, depth + 1),
                _ => self.entries.push(Entry {
                    name,
                    value,
                    file: path.to_owned(),
                    line: number,
                }),
            }
        }
    }

    /// `*.conf` in the order of the names' bytes (guc-file.l: `ParseConfigDirectory`).
    fn folder(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = self.server.owner.act(|| Disk.list(folder)) else {
            return;
        };
        let mut names: Vec<Vec<u8>> = entries
            .into_iter()
            .filter(|entry| {
                let name = &entry.name;
                !entry.is_directory && name.len() >= 6 && !name.starts_with(b".") && name.ends_with(b".conf")
            })
            .map(|entry| entry.name)
            .collect();
        if let Some(At::File(link)) = self.at
            && link.parent() == Some(folder)
        {
            names.extend(link.file_name().map(|name| name.as_encoded_bytes().to_vec()));
        }
        names.sort();
        names.dedup();
        for name in names {
            let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(name);
            self.file(&folder.join(name), depth);
        }
    }
}

/// What a line sets, the name in lower case (guc-file.l: the tokens, `ParseConfigFp`). `None` for one that sets nothing, and
/// for one over which the server would not start.
pub(super) fn parse_line(line: &str) -> Option<(String, String)> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r');
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    let line = line.trim_start_matches(blank);
    let end = line
        .find(|c: char| !(letter(c) || c.is_ascii_digit() || matches!(c, '.' | '$')))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if !name.starts_with(letter) {
        return None;
    }
    let rest = rest.trim_start_matches(blank);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start_matches(blank);
    let (value, rest) = match rest.strip_prefix('\'') {
        Some(quoted) => quoted_string(quoted)?,
        None => {
            let end = rest
                .find(|c: char| blank(c) || matches!(c, '#' | '\'' | '='))
                .unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            (value.to_owned(), rest)
        }
    };
    let rest = rest.trim_start_matches(blank);
    let ends = rest.is_empty() || rest.starts_with('#');
    let is_value = !value.is_empty() || line.contains('\'');
    (ends && is_value).then(|| (name.to_ascii_lowercase(), value))
}

/// What stands before the closing quote, and what is behind it (guc-file.l: `DeescapeQuotedString`).
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(['\'', '\\'])?;
        value.push_str(&rest[..at]);
        let mark = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        if mark == b'\'' {
            match rest.strip_prefix('\'') {
                Some(more) => {
                    value.push('\'');
                    rest = more;
                    continue;
                }
                None => return Some((value, rest)),
            }
        }
        let digits = rest
            .bytes()
            .take(3)
            .take_while(|b| (b'0'..=b'7').contains(b))
            .count();
        if digits > 0 {
            let number = u32::from_str_radix(&rest[..digits], 8).ok()?;
            // A byte there; above ASCII it would be part of a character, and such names are not pgfw's.
            value.push(char::from_u32(number & 0xff)?);
            rest = &rest[digits..];
            continue;
        }
        let escaped = rest.chars().next()?;
        value.push(match escaped {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            other => other,
        });
        rest = &rest[escaped.len_utf8()..];
    }
}

/// Without `.`, `..` and doubled slashes, as the server names what it includes (path.c: `canonicalize_path`).
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Normal(_) | Component::Prefix(_) => plain.push(part),
        }
    }
    plain
}

/// The directory that a postgresql.conf includes as a whole (Debian's `include_dir = 'conf.d'`), if it does: the last one.
pub(super) fn include_dir(conf: &str) -> Option<String> {
    let last = conf.lines().rev().filter_map(parse_line);
    let mut directories = last.filter(|(name, value)| name == "include_dir" && !value.is_empty());
    directories.next().map(|(_, value)| value)
}

/// The line by which a postgresql.conf reads `conf`.
pub(super) fn include_line(conf: &Path) -> String {
    format!("include = {}", quote::setting(&conf.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        // line, name and value
        let rows = [
            ("ssl = on", Some(("ssl", "on"))),
            ("  SSL on # x", Some(("ssl", "on"))),
            ("port=5433\r", Some(("port", "5433"))),
            ("work_mem = 8MB#x", Some(("work_mem", "8MB"))),
            ("a.b = 'it''s \\'x\\' \\\\'", Some(("a.b", "it's 'x' \\"))),
            ("a = '\\101\\n'", Some(("a", "A\n"))),
            ("listen_addresses = ''", Some(("listen_addresses", ""))),
            ("include_dir 'conf.d'\t# x", Some(("include_dir", "conf.d"))),
            ("include_dir conf.d", Some(("include_dir", "conf.d"))),
            ("#ssl = on", None),
            ("", None),
            ("= on", None),
            ("ssl", None),
            ("ssl =", None),
            ("ssl = on off", None),
            ("ssl = 'on", None),
            ("5ssl = on", None),
        ];
        for (line, expected) in rows {
            let found = parse_line(line);
            let found = found
                .as_ref()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_last_included_directory_is_the_one() {
        // postgresql.conf, directory
        let rows = [
            (
                "include_dir = 'conf.d'\t# include files ending in '.conf' from",
                Some("conf.d"),
            ),
            ("  include_dir 'x'\ninclude_dir = y\nport = 1", Some("y")),
            ("#include_dir = '...'", None),
            ("include_dir = ''", None),
            ("include = 'x'", None),
            ("include_dir_of = 'x'", None),
        ];
        for (conf, directory) in rows {
            assert_eq!(include_dir(conf).as_deref(), directory, "{conf}");
        }
    }
}
