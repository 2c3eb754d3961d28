//! Debian packages: asked for, installed without starting what they bring.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell::{self, Root};

/// Installs packages. Nothing is removed for them, no service is started, no database cluster is made.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    if shell::find("apt-get").is_none() {
        bail!(
            "Setup installs Debian packages and finds no apt-get here: install {} by hand.",
            packages.join(", ")
        );
    }
    if shell::root() == Root::Unavailable {
        bail!(
            "Installing {} needs root: run `cargo xtask setup` as root.",
            packages.join(", ")
        );
    }
    let _quiet = [
        // Debian asks this script before it starts a service; 101 means no.
        Guard::write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "0755")?,
        Guard::write(
            "/etc/postgresql-common/createcluster.d/pgfw-setup.conf",
            "create_main_cluster = false\n",
            "0644",
        )?,
    ];
    let install = || {
        let mut command = as_root("apt-get");
        command
            .args(["install", "-y", "-qq", "--no-install-recommends", "--no-remove"])
            .args(packages);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        shell::run_quietly(&mut command)
    };
    // The lists of a fresh machine are absent or old; asking for new ones costs seconds, so only then.
    shell::run_quietly(as_root("apt-get").args(["update", "-qq"]))
        .context("the lists of Debian packages cannot be fetched")?;
    install().context("Debian's packages cannot be installed")?;
    Ok(())
}

fn as_root(program: &str) -> Command {
    match shell::root() {
        Root::Already | Root::Unavailable => Command::new(program),
        Root::Sudo => {
            let mut command = Command::new("sudo");
            command.arg("--preserve-env=DEBIAN_FRONTEND").arg(program);
            command
        }
    }
}

/// A file that is there while packages are installed, unless the machine has its own.
#[derive(Debug)]
struct Guard {
    /// The file, with the folder when that was made for it; removed in this order.
    made: Vec<String>,
}

impl Guard {
    fn write(path: &str, text: &str, mode: &str) -> Result<Guard> {
        let file = Path::new(path);
        if file.exists() {
            return Ok(Guard { made: Vec::new() });
        }
        let folder = file
            .parent()
            .expect("an absolute file has a folder")
            .display()
            .to_string();
        shell::run_quietly(as_root("install").args(["-d", &folder]))?;
        let guard = Guard {
            made: vec![path.to_owned()],
        };
        let mut copy = as_root("install")
            .args(["-m", mode, "/dev/stdin", path])
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("{path} cannot be written"))?;
        copy.stdin
            .take()
            .expect("a pipe was asked for")
            .write_all(text.as_bytes())?;
        if !copy.wait()?.success() {
            bail!("{path} cannot be written.");
        }
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for path in &self.made {
            if fs::remove_file(path).is_err() {
                let _ = as_root("rm").args(["-f", path]).status();
            }
        }
    }
}
