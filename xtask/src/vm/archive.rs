//! Packages of any Debian suite, fetched and unpacked beside the machine's own: nothing is installed.
//!
//! apt does the fetching, with lists and a status of its own, so that every package is verified as usual.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// One suite of the mirror that this machine uses.
#[derive(Debug)]
pub(super) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches the list of a suite's packages into `folder`; `None` means the suite that this machine runs.
    pub(super) fn fetch(folder: &Path, suite: Option<&str>) -> Result<Suite> {
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let Source { mirror, release } = source()?;
        let suite = suite.unwrap_or(&release);
        fs::write(
            folder.join("sources.list"),
            format!("deb {mirror} {suite} main\n"),
        )?;
        let own = Suite {
            folder: fs::canonicalize(folder)?,
        };
        shell::run_quietly(own.apt("apt-get").args(["update", "-qq"]))
            .with_context(|| format!("the packages of {suite} cannot be listed at {mirror}"))?;
        Ok(own)
    }

    /// The names of a package and of all that it depends on.
    pub(super) fn closure(&self, package: &str) -> Result<Vec<String>> {
        let listed = shell::run_quietly(self.apt("apt-cache").args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            package,
        ]))?;
        let names = listed
            .lines()
            .filter(|line| !line.starts_with(' ') && !line.starts_with('<'));
        Ok(names.map(str::to_owned).collect())
    }

    /// What installing a package would bring to this machine, with versions. What it would remove is not asked.
    pub(super) fn missing(&self, package: &str) -> Result<Vec<String>> {
        let listed = shell::run_quietly(self.apt("apt-get").args([
            "install",
            "--simulate",
            "--no-install-recommends",
            package,
        ]))?;
        // `Inst NAME (VERSION …`, and `Inst NAME [OLD] (VERSION …`.
        let packages = listed.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let version = rest.split_once('(')?.1.split(' ').next()?;
            Some(format!("{name}={version}"))
        });
        Ok(packages.collect())
    }

    /// Fetches packages and unpacks them under `root`.
    pub(super) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let downloads = self.folder.join("downloads");
        fs::create_dir_all(&downloads)?;
        fs::create_dir_all(root)?;
        shell::run_quietly(
            self.apt("apt-get")
                .args(["download", "-qq"])
                .args(packages)
                .current_dir(&downloads),
        )?;
        for file in fs::read_dir(&downloads)? {
            let file = file?.path();
            shell::run_quietly(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(root))?;
            // What it held is unpacked; the package itself is of no more use.
            fs::remove_file(&file)?;
        }
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let place = |name: &str| self.folder.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", place("sources.list")),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State::lists={}", place("lists")),
            format!("Dir::Cache={}", self.folder.display()),
            format!("Dir::Cache::archives={}", place("archives")),
            "Acquire::Languages=none".into(),
            // Of all lists only that of the packages.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false".into(),
            // The folder may lie where the user _apt cannot go.
            "APT::Sandbox::User=".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Where this machine gets Debian from, and which release.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    mirror: String,
    release: String,
}

fn source() -> Result<Source> {
    let Some(listed) = shell::ask(
        "apt-get",
        &[
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
    ) else {
        bail!("Kernels come from Debian's archive, and there is no apt-get here to fetch them with.");
    };
    choose(&listed).context(
        "Kernels come from Debian's archive, and this machine's apt sources name no mirror of it: add one",
    )
}

/// The source of a plain release (`bookworm`, not `bookworm-updates`) that has Debian's component `main`. Others have
/// releases of names of their own, so a known name decides.
fn choose(listed: &str) -> Option<Source> {
    const RELEASES: [&str; 10] = [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "sid",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
    ];
    listed.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (mirror, release, component) = (words.next()?, words.next()?, words.next()?);
        (RELEASES.contains(&release) && component == "main").then(|| Source {
            mirror: mirror.to_owned(),
            release: release.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_that_has_the_release_itself() {
        let listed = "https://tools.example/apt sdk-bookworm main\n\
                      http://security.example/debian-security/ bookworm-security main\n\
                      http://mirror.example/debian/ bookworm-updates main\n\
                      http://mirror.example/debian/ bookworm contrib\n\
                      http://mirror.example/debian/ bookworm main\n";
        let source = Source {
            mirror: "http://mirror.example/debian/".into(),
            release: "bookworm".into(),
        };
        assert_eq!(choose(listed), Some(source));
        assert_eq!(choose("https://tools.example/apt nodistro main\n"), None);
    }
}
