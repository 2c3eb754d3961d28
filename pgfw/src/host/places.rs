//! Where to look for a change of what a path leads to.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (MAXSYMLINKS in include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// Every folder in which an entry decides what is found at `path`: those that hold a link on the way, and the one that holds
/// the file. Where a part is missing, the folder that it would be made in.
pub fn deciding(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut left: VecDeque<OsString> = names(path).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        match std::fs::read_link(&here) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                folders.insert(at.clone());
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(name);
                }
            }
            Ok(_) => break,
            Err(_) if left.is_empty() || !here.is_dir() => {
                folders.insert(at);
                break;
            }
            Err(_) => at = here,
        }
    }
    folders
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_what_they_lead_to_decide() {
        let lab = tempfile::tempdir().expect("a folder");
        let root = lab.path().canonicalize().expect("a path");
        let make = |folder: &str| std::fs::create_dir_all(root.join(folder)).expect("a folder");
        let found = |path: &str| {
            let folders = deciding(&root.join(path));
            let inside = folders.into_iter().filter(|f| f.starts_with(&root));
            let names = inside.map(|f| f.strip_prefix(&root).expect("inside").display().to_string());
            names.collect::<Vec<_>>()
        };
        // certbot
        make("live/db");
        make("archive/db");
        std::fs::write(root.join("archive/db/fullchain1.pem"), "").expect("a file");
        symlink(
            "../../archive/db/fullchain1.pem",
            root.join("live/db/fullchain.pem"),
        )
        .expect("a link");
        assert_eq!(found("live/db/fullchain.pem"), ["archive/db", "live/db"]);
        // A link among the folders, as Kubernetes mounts secrets.
        make("secret/..1");
        std::fs::write(root.join("secret/..1/tls.crt"), "").expect("a file");
        symlink("..1", root.join("secret/..data")).expect("a link");
        symlink("..data/tls.crt", root.join("secret/tls.crt")).expect("a link");
        assert_eq!(found("secret/tls.crt"), ["secret", "secret/..1"]);
        symlink(root.join("secret"), root.join("elsewhere")).expect("a link");
        assert_eq!(found("elsewhere/tls.crt"), ["", "secret", "secret/..1"]);
        // What is not there yet.
        assert_eq!(found("live/db/privkey.pem"), ["live/db"]);
        assert_eq!(found("live/other/privkey.pem"), ["live"]);
        // A circle.
        symlink("b", root.join("a")).expect("a link");
        symlink("a", root.join("b")).expect("a link");
        assert_eq!(found("a"), [""]);
    }
}
