//! The marker beside the config, outside the ledger: something was confirmed on this host once. It tells a ledger that was
//! lost from a first start, and what a host without its ledger must know to stay reachable: where its SSH is.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::failure::{Explain, Failure};
use crate::paths::Paths;

/// What the marker says to whoever finds it.
const TEXT: &str = "\
# A policy of pgfw was confirmed on this host. Should the ledger be lost, pgfw does not start over as if it had never run
# here: it lets SSH in, and nothing else. Remove this file to start over.
";

/// What it says to pgfw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marker {
    pub interfaces: Vec<String>,
    pub ssh_ports: Vec<u16>,
    /// The policy that was confirmed last; 0 where an older pgfw wrote it.
    pub policy: u64,
}

/// Replaces the marker, whole or not at all; one that says the same is left alone.
pub(super) fn write(paths: &Paths, config: &Config, policy: u64) -> Result<(), Failure> {
    let file = paths.confirmed_marker();
    let interfaces: Vec<String> = config
        .firewall
        .interfaces
        .iter()
        .map(|i| format!("{i:?}"))
        .collect();
    let ports: Vec<String> = config.ssh.ports.iter().map(u16::to_string).collect();
    let text = format!(
        "{TEXT}policy = {policy}\ninterfaces = [{}]\nssh_ports = [{}]\n",
        interfaces.join(", "),
        ports.join(", ")
    );
    if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut new| {
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&file)?;
        std::fs::File::open(folder)?.sync_all()
    });
    written.map_err(|source| MarkerError { file, source }.into())
}

/// `None`: nothing was ever confirmed here. One that cannot be read says no more than that something was.
pub(super) fn read(paths: &Paths) -> Option<Marker> {
    let file = paths.confirmed_marker();
    if !file.exists() {
        return None;
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let list = |key: &str| table.get(key).and_then(toml::Value::as_array).cloned();
    let policy = table.get("policy").and_then(toml::Value::as_integer);
    Some(Marker {
        policy: policy.and_then(|number| u64::try_from(number).ok()).unwrap_or(0),
        interfaces: list("interfaces")
            .unwrap_or_default()
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect(),
        ssh_ports: list("ssh_ports")
            .unwrap_or_default()
            .iter()
            .filter_map(|value| u16::try_from(value.as_integer()?).ok())
            .collect(),
    })
}

#[derive(Debug, thiserror::Error)]
#[error("the marker {} cannot be written", file.display())]
struct MarkerError {
    file: PathBuf,
    source: std::io::Error,
}

impl Explain for MarkerError {
    fn remedy(&self) -> String {
        format!(
            "The policy is confirmed; make the folder of {} writable and reload, so that a lost ledger is noticed.",
            self.file.display()
        )
    }
}
