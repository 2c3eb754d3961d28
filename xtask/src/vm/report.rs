//! What guests said: a table, kernel × test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// How one test went on one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// What the kernel does not have.
    Lacking(String),
}

/// One guest's results.
#[derive(Debug, Default)]
pub(super) struct Guest {
    pub(super) line: String,
    pub(super) release: String,
    /// By binary and name.
    tests: BTreeMap<(String, String), Outcome>,
    /// What tests found out about the kernel, by name.
    facts: BTreeMap<String, String>,
    /// What went wrong without naming a test.
    broken: Vec<String>,
    absent: Vec<String>,
    binary: String,
    counted: bool,
}

impl Guest {
    pub(super) fn new(line: &str, release: &str) -> Guest {
        Guest {
            line: line.to_owned(),
            release: release.to_owned(),
            ..Guest::default()
        }
    }

    pub(super) fn lacks_modules(&mut self, absent: Vec<String>) {
        self.absent = absent;
    }

    /// One line of what the guest printed; gives what a person wants to read while it runs.
    pub(super) fn read(&mut self, line: &str) -> Option<String> {
        if let Some(name) = line.strip_prefix("guest: begins ") {
            self.binary = name.to_owned();
            self.counted = false;
        } else if let Some(end) = line.strip_prefix("guest: ends ") {
            let failed = |(binary, _): &(String, String)| *binary == self.binary;
            let known = self
                .tests
                .iter()
                .any(|(key, o)| failed(key) && *o == Outcome::Failed);
            if !end.ends_with("exit status: 0") && !known || !self.counted {
                self.broken.push(format!("{end}, without naming a test"));
                return Some(format!("broken: {end}"));
            }
        } else if let Some(what) = line.strip_prefix("guest: broken: ") {
            self.broken.push(what.to_owned());
            return Some(format!("broken: {what}"));
        } else if let Some(what) = line.strip_prefix("guest: module ") {
            return Some(format!("module {what}"));
        } else if let Some((name, what)) = after(line, "lacking: ") {
            let key = (self.binary.clone(), name.to_owned());
            self.tests.insert(key, Outcome::Lacking(what.to_owned()));
        } else if let Some((name, value)) = after(line, "fact: ") {
            self.facts.insert(name.to_owned(), value.to_owned());
        } else if line.starts_with("test result: ") {
            self.counted = true;
        } else if let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            let key = (self.binary.clone(), name.to_owned());
            match result {
                "ok" => {
                    self.tests.entry(key).or_insert(Outcome::Passed);
                }
                _ => {
                    self.tests.insert(key, Outcome::Failed);
                    return Some(format!("failed: {name}"));
                }
            }
        }
        None
    }

    pub(super) fn ended(&mut self, how: Option<&str>) {
        self.broken.extend(how.map(str::to_owned));
    }

    pub(super) fn good(&self) -> bool {
        let (passed, failed, _) = self.counts();
        passed > 0 && failed == 0
    }

    /// Passed, failed, lacking.
    fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Outcome) -> bool| self.tests.values().filter(|o| wanted(o)).count();
        (
            count(|o| *o == Outcome::Passed),
            count(|o| *o == Outcome::Failed) + self.broken.len(),
            count(|o| matches!(o, Outcome::Lacking(_))),
        )
    }

    pub(super) fn summary(&self) -> String {
        let (passed, failed, lacking) = self.counts();
        format!(
            "Linux {}: {passed} passed, {failed} failed, {lacking} lacking",
            self.release
        )
    }
}

/// `PREFIX NAME: TEXT`; a test's name has colons in pairs, and no spaces.
fn after<'a>(line: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(prefix)?.split_once(": ")
}

/// All guests of a run.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub(super) guests: Vec<Guest>,
}

impl Matrix {
    pub(super) fn good(&self) -> bool {
        !self.guests.is_empty() && self.guests.iter().all(Guest::good)
    }

    pub(super) fn last_line(&self) -> String {
        let (mut passed, mut failed) = (0, 0);
        for guest in &self.guests {
            let counts = guest.counts();
            passed += counts.0;
            failed += counts.1;
        }
        format!("{passed} passed, {failed} failed")
    }

    /// For the terminal and for the document alike.
    pub(super) fn table(&self) -> String {
        let mut keys: BTreeSet<&(String, String)> = BTreeSet::new();
        self.guests
            .iter()
            .for_each(|guest| keys.extend(guest.tests.keys()));
        let mut table = String::from("| test |");
        for guest in &self.guests {
            let _ = write!(table, " {} |", guest.line);
        }
        table += "\n|---|";
        table += &"---|".repeat(self.guests.len());
        table.push('\n');
        for key in keys {
            let (binary, name) = key;
            let _ = write!(table, "| {binary} `{name}` |");
            for guest in &self.guests {
                let cell = match guest.tests.get(key) {
                    Some(Outcome::Passed) => "passed".to_owned(),
                    Some(Outcome::Failed) => "**failed**".to_owned(),
                    Some(Outcome::Lacking(what)) => format!("lacking: {what}"),
                    None => "–".to_owned(),
                };
                let _ = write!(table, " {cell} |");
            }
            table.push('\n');
        }
        for guest in &self.guests {
            for what in &guest.broken {
                let _ = writeln!(table, "\nLinux {}: {what}", guest.release);
            }
        }
        table
    }

    fn facts(&self) -> String {
        let mut keys: BTreeSet<&String> = BTreeSet::new();
        self.guests
            .iter()
            .for_each(|guest| keys.extend(guest.facts.keys()));
        let mut table = String::from("| |");
        for guest in &self.guests {
            let _ = write!(table, " {} |", guest.line);
        }
        table += "\n|---|";
        table += &"---|".repeat(self.guests.len());
        table += "\n| release |";
        for guest in &self.guests {
            let _ = write!(table, " {} |", guest.release);
        }
        table.push('\n');
        for key in keys {
            let _ = write!(table, "| {key} |");
            for guest in &self.guests {
                let _ = write!(table, " {} |", guest.facts.get(key).map_or("–", String::as_str));
            }
            table.push('\n');
        }
        table
    }

    /// `docs/platforms.md`.
    pub(super) fn document(&self, date: &str) -> String {
        let mut text = format!(
            "# Platforms\n\n\
             Written by `cargo xtask vm` on {date}: what Debian's kernels did with the programs, in guests of QEMU with two\n\
             virtio NICs. \"lacking\" names what a kernel does not have; such a test counts neither as passed nor as failed.\n\
             What differs between kernels is decided in `pgfw/src/datapath/kernel.rs`, by probing, and shown by\n\
             `pgfw status --verbose`.\n\n\
             ## Kernels\n\n{}\n## Tests\n\n{}",
            self.facts(),
            self.table()
        );
        let absent = self.guests.iter().filter(|guest| !guest.absent.is_empty());
        let absent: Vec<String> = absent
            .map(|guest| format!("- {}: {}", guest.release, guest.absent.join(", ")))
            .collect();
        if !absent.is_empty() {
            let _ = write!(
                text,
                "\n## Modules that a kernel does not have\n\n{}\n",
                absent.join("\n")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(lines: &[&str]) -> Guest {
        let mut guest = Guest::new("5.10", "5.10.0");
        lines.iter().for_each(|line| {
            guest.read(line);
        });
        guest
    }

    const GOOD: [&str; 7] = [
        "guest: begins prog",
        "fact: TCX: no",
        "lacking: life::f32_jumbo: multi-buffer XDP",
        "test life::f32_jumbo ... ok",
        "test life::f33_foreign ... ok",
        "test result: ok. 2 passed; 0 failed",
        "guest: ends prog exit status: 0",
    ];

    #[test]
    fn what_a_kernel_lacks_is_no_pass() {
        let guest = guest(&GOOD);
        assert_eq!(guest.counts(), (1, 0, 1));
        assert!(guest.good());
        let matrix = Matrix { guests: vec![guest] };
        let table = matrix.table();
        assert!(
            table.contains("| prog `life::f32_jumbo` | lacking: multi-buffer XDP |"),
            "{table}"
        );
        assert_eq!(matrix.last_line(), "1 passed, 0 failed");
        assert!(matrix.document("2026-01-01").contains("| TCX | no |"));
    }

    #[test]
    fn a_failed_test_and_a_binary_that_dies_are_failures() {
        let mut lines = GOOD;
        lines[4] = "test life::f33_foreign ... FAILED";
        lines[6] = "guest: ends prog exit status: 101";
        assert_eq!(guest(&lines).counts(), (0, 1, 1));
        lines = GOOD;
        lines[6] = "guest: ends prog signal: 9 (SIGKILL)";
        assert_eq!(guest(&lines).counts(), (1, 1, 1));
        lines[5] = "";
        assert!(!guest(&lines).good());
        let mut silent = guest(&GOOD);
        silent.ended(Some("the guest was silent"));
        assert!(!silent.good());
    }
}
