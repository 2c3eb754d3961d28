//! Programs of this machine that go into a guest, with the libraries they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::initramfs::Initramfs;
use crate::shell;

/// What the lab calls by name; the last line is what the DHCP client's script calls.
const LAB: [&str; 19] = [
    "ip",
    "tc",
    "ethtool",
    "setpriv",
    "sh",
    "dnsmasq",
    "dhclient",
    "ping",
    "sysctl",
    "sleep", //
    "cat",
    "mv",
    "rm",
    "touch",
    "chmod",
    "chown",
    "readlink",
    "run-parts",
    "hostname",
];

/// Called by its whole path.
const DHCP_SCRIPT: &str = "/sbin/dhclient-script";

/// Copies programs into a guest's root.
#[derive(Debug, Default)]
pub(super) struct Programs {
    libraries: BTreeSet<PathBuf>,
}

impl Programs {
    /// Every program of the lab that is here; a test misses one that is not, by name.
    pub(super) fn lab(&mut self, archive: &mut Initramfs) -> Result<()> {
        for name in LAB {
            if let Some(program) = shell::find(name) {
                self.add(archive, &format!("/bin/{name}"), &program)?;
            }
        }
        if Path::new(DHCP_SCRIPT).exists() {
            archive.copy(DHCP_SCRIPT, Path::new(DHCP_SCRIPT))?;
        }
        Ok(())
    }

    /// One program, and its libraries at their own places.
    pub(super) fn add(&mut self, archive: &mut Initramfs, path: &str, program: &Path) -> Result<()> {
        for library in libraries(program) {
            if self.libraries.insert(library.clone()) {
                archive.copy(&library.display().to_string(), &library)?;
            }
        }
        archive
            .copy(path, program)
            .with_context(|| format!("{path} cannot go into the guest"))
    }
}

/// What the loader would map: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the loader itself, `/lib64/… (0x…)`.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let program = program.display().to_string();
    // Fails for scripts and static programs, which need none.
    let listed = shell::ask("ldd", &[&program]).unwrap_or_default();
    parse(&listed)
}

fn parse(listed: &str) -> Vec<PathBuf> {
    let paths = listed.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = path.split_once(" (")?.0;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse(listed),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }
}
