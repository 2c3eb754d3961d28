//! pgaudit, of the same major version as Debian's server: what its settings write is tested with it.

use std::path::Path;

use anyhow::{Context, Result};

use super::apt;

/// Debian's newest server, if one is installed.
pub(super) fn major() -> Option<u16> {
    let folders = Path::new(SERVERS).read_dir().into_iter().flatten().flatten();
    let installed = folders.filter(|folder| folder.path().join("bin/postgres").exists());
    installed
        .filter_map(|folder| folder.file_name().to_str()?.parse().ok())
        .max()
}

pub(super) fn is_there() -> bool {
    major().is_some_and(|major| {
        Path::new(SERVERS)
            .join(major.to_string())
            .join("lib/pgaudit.so")
            .exists()
    })
}

pub(super) fn package(major: u16) -> String {
    format!("postgresql-{major}-pgaudit")
}

/// For the server that is there by now.
pub(super) fn install() -> Result<()> {
    let major = major()
        .context("Debian's archive gave no server that pgaudit could be for: install postgresql by hand")?;
    let package = package(major);
    println!("Installing {package} …");
    apt::install(&[&package])
}

const SERVERS: &str = "/usr/lib/postgresql";
