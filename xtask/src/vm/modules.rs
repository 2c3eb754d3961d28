//! Which kernel modules a guest needs, in the order in which they must be loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Loaded in every guest: the machine's bus and NIC, and the devices that tests make. One that a kernel has built in is
/// there already; one that it lacks shows in the table by what the tests miss.
pub(super) const WANTED: [&str; 20] = [
    "virtio_pci",
    "virtio_net",
    "veth",
    "tun",
    "dummy",
    "bridge",
    "8021q",
    "bonding",
    "macvlan",
    "vrf",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "overlay",
    "af_packet",
    "ipv6",
    "nf_tables",
    "wireguard",
];

/// The modules of one kernel.
#[derive(Debug)]
pub(super) struct Modules {
    folder: PathBuf,
    /// Name → file, relative to the folder, and the files it needs.
    files: BTreeMap<String, (String, Vec<String>)>,
    by_file: BTreeMap<String, String>,
    builtin: Vec<String>,
}

impl Modules {
    /// Reads `modules.dep` and `modules.builtin` under `lib/modules/RELEASE`; makes the first where a package brings none.
    pub(super) fn read(root: &Path, release: &str) -> Result<Modules> {
        let under = |prefix: &str| root.join(prefix).join("lib/modules").join(release);
        let folder = [under(""), under("usr")]
            .into_iter()
            .find(|folder| folder.join("kernel").is_dir())
            .with_context(|| format!("the packages of {release} hold no modules"))?;
        if !folder.join("modules.dep").exists() {
            let base = folder
                .ancestors()
                .nth(3)
                .expect("three folders lead to a release");
            shell::run_quietly(Command::new(depmod()?).arg("-b").arg(base).arg(release))?;
        }
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .with_context(|| format!("{} cannot be read", folder.join(name).display()))
        };
        Ok(Modules::parse(
            folder.clone(),
            &read("modules.dep")?,
            &read("modules.builtin")?,
        ))
    }

    fn parse(folder: PathBuf, dependencies: &str, builtin: &str) -> Modules {
        let mut files = BTreeMap::new();
        let mut by_file = BTreeMap::new();
        for line in dependencies.lines() {
            let Some((file, needs)) = line.split_once(':') else {
                continue;
            };
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            by_file.insert(file.to_owned(), name(file));
            files.insert(name(file), (file.to_owned(), needs));
        }
        Modules {
            folder,
            files,
            by_file,
            builtin: builtin.lines().map(name).collect(),
        }
    }

    /// The files to load for these modules, each after those it needs; and the modules that this kernel does not have.
    pub(super) fn order(&self, wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut order, mut absent) = (Vec::new(), Vec::new());
        for module in wanted {
            let module = name(module);
            if self.files.contains_key(&module) {
                self.visit(&module, &mut order);
            } else if !self.builtin.contains(&module) {
                absent.push(module);
            }
        }
        (order, absent)
    }

    fn visit(&self, module: &str, order: &mut Vec<String>) {
        let Some((file, needs)) = self.files.get(module) else {
            return;
        };
        if order.contains(file) {
            return;
        }
        // The list holds what is needed indirectly as well, nearest first.
        for needed in needs.iter().rev() {
            if let Some(needed) = self.by_file.get(needed) {
                self.visit(needed, order);
            }
        }
        order.push(file.clone());
    }

    /// A module as the kernel loads it, decompressed.
    pub(super) fn content(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(file);
        let program = match file.rsplit_once('.').map(|(_, ending)| ending) {
            Some("ko") => {
                return std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()));
            }
            Some("xz") => "xz",
            Some("zst") => "zstd",
            Some("gz") => "gzip",
            Some(_) | None => bail!(
                "{} is compressed in a way that is not known here.",
                path.display()
            ),
        };
        let output = Command::new(program)
            .arg("-dc")
            .arg(&path)
            .output()
            .with_context(|| format!("{program} cannot be started"))?;
        if !output.status.success() {
            bail!(
                "{program} cannot read {}: {}",
                path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output.stdout)
    }
}

/// `kernel/drivers/net/veth.ko.xz` is veth; dashes and underscores are the same.
pub(super) fn name(file: &str) -> String {
    let last = file.rsplit('/').next().unwrap_or(file);
    let stem = last.split_once(".ko").map_or(last, |(stem, _)| stem);
    stem.replace('-', "_")
}

fn depmod() -> Result<PathBuf> {
    shell::find("depmod").context("depmod is missing: install Debian's package kmod")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let modules = Modules::parse(
            PathBuf::new(),
            "kernel/net/a.ko.xz:\nkernel/b.ko.xz: kernel/net/a.ko.xz\n\
             kernel/c-d.ko.xz: kernel/b.ko.xz kernel/net/a.ko.xz\nkernel/e.ko.xz: kernel/b.ko.xz kernel/net/a.ko.xz\n",
            "kernel/net/ipv6/ipv6.ko\n",
        );
        let (order, absent) = modules.order(&["c_d", "e", "ipv6", "gone"]);
        assert_eq!(
            order,
            [
                "kernel/net/a.ko.xz",
                "kernel/b.ko.xz",
                "kernel/c-d.ko.xz",
                "kernel/e.ko.xz"
            ]
        );
        assert_eq!(absent, ["gone"]);
    }
}
