//! Where servers are on this host: Debian's clusters, what runs, and where packages put data directories.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::text::shown;
use crate::config::Location;

/// A server that may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Of /etc/postgresql.
    Debian {
        major: u16,
        name: String,
    },
    Data(PathBuf),
}

const DEBIAN: &str = "/etc/postgresql";

/// What is looked at: what is named, or else everything that is found.
pub(super) fn places(wanted: &[String], problems: &mut Vec<String>) -> Vec<Place> {
    if wanted.is_empty() {
        let mut all = debian(Path::new(DEBIAN), problems);
        all.extend(running().into_iter().map(Place::Data));
        all.extend(usual().into_iter().map(Place::Data));
        return all;
    }
    let mut all = Vec::new();
    for text in wanted {
        let cluster = text.split_once('/').and_then(|(major, name)| {
            let fits = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
            let major = major.parse().ok().filter(|_| fits)?;
            Some(Place::Debian {
                major,
                name: name.to_owned(),
            })
        });
        match (cluster, Path::new(text)) {
            (Some(cluster), _) => all.push(cluster),
            (None, path) if path.is_absolute() => all.push(Place::Data(path.to_owned())),
            (None, _) => problems.push(format!(
                "`{}` is neither a Debian cluster, like 15/main, nor the whole path of a data directory.",
                shown(text.as_bytes())
            )),
        }
    }
    all
}

impl Place {
    pub(super) fn title(&self) -> String {
        match self {
            Place::Debian { major, name } => format!("{major}/{name}"),
            Place::Data(path) => path.display().to_string(),
        }
    }

    /// What a section says of it. `config_file` counts for a bare data directory.
    pub(super) fn location(&self, config_file: &Path) -> Location {
        match self {
            Place::Debian { major, name } => Location::Debian {
                major: *major,
                name: name.clone(),
            },
            Place::Data(data) => Location::Directories {
                data: data.clone(),
                config_file: config_file.to_owned(),
            },
        }
    }
}

/// /etc/postgresql/MAJOR/NAME, as pg_lsclusters(1) goes through it.
fn debian(root: &Path, problems: &mut Vec<String>) -> Vec<Place> {
    let mut all = Vec::new();
    for major in folders(root, problems) {
        let Some(number) = major.file_name().and_then(|n| n.to_str()?.parse::<u16>().ok()) else {
            continue;
        };
        for folder in folders(&major, problems) {
            let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let conf = folder.join("postgresql.conf");
            match fs::metadata(&conf) {
                Ok(_) if name.is_empty() || name.starts_with('.') => {}
                Ok(_) => all.push(Place::Debian {
                    major: number,
                    name: name.to_owned(),
                }),
                Err(error) => problems.push(format!(
                    "{} cannot be read ({error}), so {number}/{} is left out.",
                    shown(conf.as_os_str().as_encoded_bytes()),
                    shown(name.as_bytes())
                )),
            }
        }
    }
    all
}

/// The folders in one, in order. One that is not there has none.
fn folders(root: &Path, problems: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(format!(
                "{} cannot be read ({error}), so what is in it is left out.",
                shown(root.as_os_str().as_encoded_bytes())
            ));
            return Vec::new();
        }
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_dir())
        .collect();
    found.sort();
    found
}

/// The data directories of servers that run: they work in them (miscinit.c: `ChangeToDataDir`), beside a postmaster.pid.
/// One in another mount namespace, as a container's, is not of this host's files; one in another network namespace, as
/// those that pgfw tries rules on, is not behind this host's filter.
fn running() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let network = fs::read_link("/proc/self/ns/net").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let cwd = process.path().join("cwd");
        let (Ok(path), Ok(theirs)) = (fs::read_link(&cwd), fs::metadata(&cwd)) else {
            continue;
        };
        let Ok(ours) = fs::metadata(&path) else { continue };
        let is_here = (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
            && fs::read_link(process.path().join("ns/net")).ok() == network;
        if is_here && path.join("PG_VERSION").is_file() && path.join("postmaster.pid").is_file() {
            found.push(path);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Where the packages of the PostgreSQL project's yum repository, plain builds and images put one.
fn usual() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = [
        "/var/lib/pgsql/data",
        "/var/lib/postgresql/data",
        "/usr/local/pgsql/data",
    ]
    .map(PathBuf::from)
    .into();
    let by_major = fs::read_dir("/var/lib/pgsql").into_iter().flatten().flatten();
    all.extend(by_major.map(|entry| entry.path().join("data")));
    all.retain(|path| path.join("PG_VERSION").is_file() && path.join("postgresql.conf").is_file());
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_folders_are_gone_through_and_what_is_missing_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        for folder in ["15/main", "15/other", "16/main", "common/x"] {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).expect("a directory");
            fs::write(folder.join("postgresql.conf"), "").expect("a file");
        }
        fs::remove_file(root.path().join("15/other/postgresql.conf")).expect("a file");
        let mut problems = Vec::new();
        let found = debian(root.path(), &mut problems);
        let titles: Vec<String> = found.iter().map(Place::title).collect();
        assert_eq!(titles, ["15/main", "16/main"]);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("15/other/postgresql.conf cannot be read"),
            "{problems:?}"
        );
        assert!(debian(&root.path().join("nowhere"), &mut problems).is_empty());
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn what_is_named_is_a_cluster_or_a_path() {
        let mut problems = Vec::new();
        let wanted = ["15/main", "/srv/pg", "srv/pg", "15/../x", "main"].map(str::to_owned);
        let found: Vec<String> = places(&wanted, &mut problems).iter().map(Place::title).collect();
        assert_eq!(found, ["15/main", "/srv/pg"]);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
