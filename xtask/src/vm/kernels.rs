//! The kernels of the matrix: Debian's, one for each line that is in use.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::Suite;

/// One line of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// As given on the command line.
    pub(super) name: &'static str,
    /// The suite of Debian whose kernel it is.
    suite: &'static str,
}

/// From the oldest that is supported to the newest that Debian has.
pub(super) const LINES: [Line; 4] = [
    Line {
        name: "5.10",
        suite: "bullseye",
    },
    Line {
        name: "6.1",
        suite: "bookworm",
    },
    Line {
        name: "6.12",
        suite: "trixie",
    },
    Line {
        name: "newest",
        suite: "sid",
    },
];

/// Debian's name for the kernel that virtual machines use: small, with the virtio drivers.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: String,
    pub(super) image: PathBuf,
    pub(super) root: PathBuf,
}

impl Line {
    pub(super) fn named(name: &str) -> Option<Line> {
        LINES.into_iter().find(|line| line.name == name)
    }

    /// The kernel from the cache, or from the archive.
    pub(super) fn fetch(self, cache: &Path, refresh: bool) -> Result<Kernel> {
        let folder = cache.join(self.name);
        let root = folder.join("root");
        if !refresh && let Some(kernel) = self.unpacked(&root)? {
            return Ok(kernel);
        }
        println!("Fetching Linux {} (Debian {}) …", self.name, self.suite);
        let suite = Suite::fetch(&folder.join("apt"), Some(self.suite))?;
        let mut packages = suite.closure(PACKAGE)?;
        packages.retain(|name| holds_kernel(name));
        // Whole or not at all: what an interrupted run left is never taken for a kernel.
        let fresh = folder.join("unpacking");
        for old in [&fresh, &root] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("{} cannot be removed", old.display()))?;
            }
        }
        suite
            .unpack(&packages, &fresh)
            .with_context(|| format!("Linux {} cannot be fetched", self.name))?;
        fs::rename(&fresh, &root)?;
        // The lists were only for this.
        fs::remove_dir_all(folder.join("apt"))?;
        self.unpacked(&root)?
            .with_context(|| format!("{} hold no kernel", packages.join(", ")))
    }

    fn unpacked(self, root: &Path) -> Result<Option<Kernel>> {
        let mut found = Vec::new();
        for (folder, image) in places(root) {
            let Ok(entries) = fs::read_dir(root.join(folder)) else {
                continue;
            };
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                found.extend(image(&name));
            }
        }
        match found.as_slice() {
            [] => Ok(None),
            [(release, image)] => Ok(Some(Kernel {
                release: release.clone(),
                image: image.clone(),
                root: root.to_owned(),
            })),
            [..] => bail!("{} holds more than one kernel: remove it.", root.display()),
        }
    }
}

/// A folder, and what an entry of it says: the release and the image, if it is a kernel's.
type Place<'a> = (&'static str, Box<dyn Fn(&str) -> Option<(String, PathBuf)> + 'a>);

/// `boot/vmlinuz-RELEASE`, and from 7.x on `usr/lib/modules/RELEASE/vmlinuz`.
fn places(root: &Path) -> [Place<'_>; 2] {
    const MODULES: &str = "usr/lib/modules";
    [
        (
            "boot",
            Box::new(|name| {
                let release = name.strip_prefix("vmlinuz-")?;
                Some((release.to_owned(), root.join("boot").join(name)))
            }),
        ),
        (
            MODULES,
            Box::new(|release| {
                let image = root.join(MODULES).join(release).join("vmlinuz");
                image.exists().then(|| (release.to_owned(), image))
            }),
        ),
    ]
}

/// From 7.x on the image package is empty: the kernel lies in one package, its modules in another, the list of
/// what is built in in a third.
fn holds_kernel(package: &str) -> bool {
    let kinds = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];
    kinds.iter().any(|kind| package.starts_with(kind))
        && package != PACKAGE
        && package.ends_with("-cloud-amd64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_that_hold_a_kernel_are_told_from_those_that_name_it() {
        for (package, holds) in [
            ("linux-image-cloud-amd64", false),
            ("linux-image-5.10.0-32-cloud-amd64", true),
            ("linux-binary-7.2.13+deb14-cloud-amd64", true),
            ("linux-modules-7.2.13+deb14-cloud-amd64", true),
            ("linux-base-7.2.13+deb14-cloud-amd64", true),
            ("linux-base", false),
            ("initramfs-tools", false),
        ] {
            assert_eq!(holds_kernel(package), holds, "{package}");
        }
    }
}
