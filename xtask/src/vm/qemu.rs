//! QEMU: this machine's own, or Debian's unpacked under target/.
//!
//! Installing it would do as well, but Debian's package conflicts with newer QEMU tools that a machine may have, and
//! setup removes nothing. Unpacked it needs no root either.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Suite;
use crate::shell;

pub(crate) const PACKAGE: &str = "qemu-system-x86";
const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU that starts.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where it was unpacked, when it is not the machine's own.
    root: Option<PathBuf>,
}

impl Qemu {
    pub(crate) fn find() -> Option<Qemu> {
        if let Some(program) = shell::find(PROGRAM) {
            return Some(Qemu { program, root: None });
        }
        let root = root();
        let own = Qemu {
            program: root.join("usr/bin").join(PROGRAM),
            root: Some(root),
        };
        own.program.exists().then_some(own)
    }

    /// Fetches the packages that an installation would bring and unpacks them.
    pub(crate) fn unpack() -> Result<()> {
        let (root, fresh) = (root(), root().with_extension("unpacking"));
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)?;
        }
        let lists = fresh.join("apt");
        let suite = Suite::fetch(&lists, None)?;
        suite.unpack(&suite.missing(PACKAGE)?, &fresh)?;
        std::fs::remove_dir_all(&lists)?;
        if root.exists() {
            std::fs::remove_dir_all(&root)?;
        }
        std::fs::rename(&fresh, &root)?;
        let own = Qemu::find().with_context(|| format!("{PACKAGE} holds no {PROGRAM}"))?;
        shell::run_quietly(own.command().arg("--version"))?;
        Ok(())
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            command.env("LD_LIBRARY_PATH", join(root, &libraries));
            for folder in ["usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(root.join(folder));
            }
        }
        command
    }
}

fn root() -> PathBuf {
    shell::workspace().join("target/tools/qemu")
}

fn join(root: &Path, folders: &[&str]) -> std::ffi::OsString {
    std::env::join_paths(folders.iter().map(|folder| root.join(folder)))
        .expect("the folders of a workspace can be listed")
}
