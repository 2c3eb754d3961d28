//! The files that git knows or would take, and what must not be in any of them.

use anyhow::{Context, Result};

use crate::shell;

/// Beyond this a file holds more than one concern.
const LONGEST: usize = 500;

#[derive(Debug)]
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
}

#[derive(Debug)]
pub(super) struct Source {
    /// From the workspace's folder, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
}

impl Sources {
    pub(super) fn read() -> Result<Sources> {
        let root = shell::workspace();
        let mut git = std::process::Command::new("git");
        git.current_dir(&root)
            .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let list = shell::run_quietly(&mut git)?;
        // A listed file may be deleted and not yet committed; one that is no text holds nothing to check.
        let files = list.lines().filter_map(|path| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(Source {
                path: path.to_owned(),
                text,
            })
        });
        Ok(Sources {
            files: files.collect(),
        })
    }

    pub(super) fn text(&self, path: &str) -> Result<&str> {
        let source = self.files.iter().find(|source| source.path == path);
        source
            .map(|source| source.text.as_str())
            .with_context(|| format!("{path} is missing"))
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|source| source.path.ends_with(".rs"))
    }

    pub(super) fn findings(&self) -> Vec<String> {
        let unfinished = [
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
            concat!("todo", "!("),
            concat!("unimpl", "emented!("),
        ];
        let mut found = Vec::new();
        for source in self.rust() {
            let lines = source.text.lines().count();
            if lines > LONGEST {
                found.push(format!(
                    "{}: {lines} lines, more than {LONGEST}: split it by concern",
                    source.path
                ));
            }
            for (number, line) in source.numbered() {
                if let Some(word) = unfinished.iter().find(|word| line.contains(**word)) {
                    found.push(format!("{}:{number}: {word} is unfinished work", source.path));
                }
            }
        }
        let machine = machine_paths();
        for source in &self.files {
            for (number, line) in source.numbered() {
                if let Some(path) = machine.iter().find(|path| line.contains(path.as_str())) {
                    found.push(format!(
                        "{}:{number}: {path} exists on this machine only",
                        source.path
                    ));
                }
            }
        }
        found
    }
}

impl Source {
    pub(super) fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Every function of a Rust file.
    pub(super) fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        let mut is_test = false;
        for line in self.text.lines().map(str::trim_start) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            }
            if let Some(name) = function_name(line) {
                functions.push(Function { name, is_test });
                is_test = false;
            }
        }
        functions
    }
}

#[derive(Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) is_test: bool,
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line;
    for word in [
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "const ",
        "async ",
        "unsafe ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|character: char| !character.is_alphanumeric() && character != '_')
        .next()
}

/// Folders that only this machine has: where the workspace lies and whose home it is.
fn machine_paths() -> Vec<String> {
    let workspace = shell::workspace().display().to_string();
    let home = std::env::var("HOME")
        .ok()
        .filter(|home| home.len() > 1)
        .map(|home| format!("{home}/"));
    home.into_iter().chain([workspace]).collect()
}
