//! What a server was started with: postmaster.opts (miscinit.c and postmaster.c: `CreateOptsFile`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cluster::read_note;

/// The command line, as far as it says settings and places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Options {
    /// `-D`.
    pub(super) directory: Option<PathBuf>,
    /// In their order; the last of a name counts.
    settings: Vec<(String, String)>,
}

impl Options {
    /// Those of the last start on this data directory.
    pub(super) fn of(data: &Path) -> Options {
        Options::parse(&read_note(&data.join("postmaster.opts")).unwrap_or_default())
    }

    /// The program, then each argument between quotes. What is in them is not escaped, so one that holds `" "` is read as
    /// two; it cannot be known.
    pub(super) fn parse(text: &str) -> Options {
        let mut options = Options::default();
        let Some((_, arguments)) = text.trim_end_matches('\n').split_once(" \"") else {
            return options;
        };
        let mut arguments = arguments.strip_suffix('"').unwrap_or(arguments).split("\" \"");
        while let Some(argument) = arguments.next() {
            if let Some(long) = argument.strip_prefix("--") {
                options.set(long);
                continue;
            }
            let mut letters = argument.strip_prefix('-').unwrap_or_default().chars();
            while let Some(letter) = letters.next() {
                // postmaster.c: the string that getopt(3) gets.
                if !"BCDNSWcdfhkprt".contains(letter) {
                    match letter {
                        // pg_upgrade started it, for itself (IsBinaryUpgrade).
                        'b' => {
                            options.settings.clear();
                            return options;
                        }
                        'i' => options.set("listen_addresses=*"),
                        'l' => options.set("ssl=on"),
                        _ => {}
                    }
                    continue;
                }
                let rest = letters.as_str();
                let value = match rest.is_empty() {
                    true => arguments.next().unwrap_or_default(),
                    false => rest,
                };
                match letter {
                    'c' => options.set(value),
                    'D' => options.directory = Some(PathBuf::from(value)),
                    'h' => options.put("listen_addresses", value),
                    'k' => options.put("unix_socket_directories", value),
                    'p' => options.put("port", value),
                    _ => {}
                }
                break;
            }
        }
        options
    }

    /// A setting's value, if the command line has it.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().rev().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The names of those given, each once.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// As arguments that say the same, but for where everything is, which is said otherwise.
    pub(super) fn arguments(&self) -> impl Iterator<Item = String> + '_ {
        let all = self.settings.iter();
        let all = all.filter(|(name, _)| !matches!(name.as_str(), "config_file" | "data_directory"));
        all.map(|(name, value)| format!("{name}={value}"))
    }

    /// `name=value`; a dash in the name is an underscore (guc.c: `ParseLongOption`).
    fn set(&mut self, text: &str) {
        if let Some((name, value)) = text.split_once('=') {
            self.put(&name.replace('-', "_"), value);
        }
    }

    fn put(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_read_as_getopt_reads_it() {
        // postmaster.opts, setting, its value
        let debian = "/usr/lib/postgresql/15/bin/postgres \"-D\" \"/var/lib/postgresql/15/main\" \"-c\" \
                      \"config_file=/etc/postgresql/15/main/postgresql.conf\"\n";
        let rows = [
            (
                debian,
                "config_file",
                Some("/etc/postgresql/15/main/postgresql.conf"),
            ),
            (debian, "port", None),
            ("/p \"-p\" \"5433\"\n", "port", Some("5433")),
            ("/p \"-p5433\"\n", "port", Some("5433")),
            ("/p \"-p\" \"1\" \"--port=2\"\n", "port", Some("2")),
            ("/p \"-i\"\n", "listen_addresses", Some("*")),
            ("/p \"-Fip\" \"7\"\n", "port", Some("7")),
            ("/p \"-h\" \"\"\n", "listen_addresses", Some("")),
            ("/p \"-l\"\n", "ssl", Some("on")),
            (
                "/p \"-p\" \"50432\" \"-b\" \"-c\" \"listen_addresses=\"\n",
                "port",
                None,
            ),
            (
                "/p \"-p\" \"50432\" \"-b\" \"-c\" \"listen_addresses=\"\n",
                "listen_addresses",
                None,
            ),
            ("/p \"-B\" \"-p\" \"-p\" \"8\"\n", "port", Some("8")),
            (
                "/p \"--hba-file=/x y/pg_hba.conf\"\n",
                "hba_file",
                Some("/x y/pg_hba.conf"),
            ),
            ("/p \"-cPort=3\"\n", "port", Some("3")),
            ("/p\n", "port", None),
            ("", "port", None),
        ];
        for (text, name, value) in rows {
            assert_eq!(Options::parse(text).setting(name), value, "{text}");
        }
        let directory = Options::parse(debian).directory;
        assert_eq!(directory, Some(PathBuf::from("/var/lib/postgresql/15/main")));
    }
}
