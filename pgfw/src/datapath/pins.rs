//! Where things are pinned, and removing them.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use pgfw_common::record::ABI;

use super::error::DatapathError;
use super::{egress, sys};

/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pin folder of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pins {
    root: PathBuf,
}

/// Which of an interface's pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Xdp,
    Egress,
    /// Says that `clsact` on this interface is pgfw's own.
    Qdisc,
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Xdp, Direction::Egress, Direction::Qdisc];

    fn suffix(self) -> &'static str {
        match self {
            Direction::Xdp => "xdp",
            Direction::Egress => "egress",
            Direction::Qdisc => "clsact",
        }
    }
}

impl Pins {
    pub(super) fn new(root: &Path) -> Pins {
        Pins {
            root: root.to_owned(),
        }
    }
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
    pub(super) fn links(&self) -> PathBuf {
        self.root.join("links")
    }
    pub(super) fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        self.links().join(format!("{ifindex}-{}", direction.suffix()))
    }
    pub(super) fn shared(&self) -> PathBuf {
        self.root.join(format!("v{ABI}"))
    }
    /// The symbolic link that names whose pins these are.
    pub(super) fn owner(&self) -> PathBuf {
        self.root.join("owner")
    }
    /// A map or program that all generations share.
    pub(super) fn object(&self, name: &str) -> PathBuf {
        self.shared().join(name)
    }
    pub(super) fn generation(&self, generation: u64) -> PathBuf {
        self.shared().join(format!("gen-{generation}"))
    }

    /// What programs of other ABIs share, each kind in its own folder.
    pub(super) fn other_abis(&self) -> io::Result<Vec<PathBuf>> {
        let is_abi = |name: &str| name.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
        let mut folders: Vec<PathBuf> = names(&self.root)?
            .iter()
            .filter(|name| is_abi(name))
            .map(|name| self.root.join(name))
            .collect();
        folders.retain(|folder| *folder != self.shared());
        Ok(folders)
    }

    /// Interfaces with a link of ours, by the names of the pins.
    pub(super) fn linked(&self) -> io::Result<Vec<u32>> {
        let mut found: Vec<u32> = names(&self.links())?
            .iter()
            .filter_map(|name| name.split_once('-')?.0.parse().ok())
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Where a generation is made anew with larger tables, before it takes the place of the former.
    pub(super) fn growing(&self, generation: u64) -> PathBuf {
        self.shared().join(format!("growing-{generation}"))
    }

    /// Generations that have a folder, complete or not.
    pub(super) fn generation_folders(&self) -> io::Result<Vec<u64>> {
        self.numbered("gen-")
    }

    pub(super) fn growing_folders(&self) -> io::Result<Vec<u64>> {
        self.numbered("growing-")
    }

    fn numbered(&self, prefix: &str) -> io::Result<Vec<u64>> {
        let mut found: Vec<u64> = names(&self.shared())?
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Makes the folders. Refuses what is no bpf file system: a pin cannot stand anywhere else.
    pub(super) fn create(&self) -> Result<(), DatapathError> {
        on_bpffs(&self.root)?;
        for folder in [self.links(), self.shared()] {
            fs::create_dir_all(&folder).map_err(|error| match error.raw_os_error() {
                Some(libc::EROFS) => DatapathError::ReadOnly {
                    path: existing(&self.root).to_owned(),
                },
                _ => DatapathError::call(format!("make the folder {}", folder.display()))(error),
            })?;
        }
        Ok(())
    }
}

/// Whether anything of ours, of whatever ABI, is pinned there.
pub(super) fn exists(root: &Path) -> bool {
    names(root).is_ok_and(|names| !names.is_empty())
}

/// What `pgfw off` removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Interfaces that were filtered.
    pub interfaces: Vec<u32>,
    /// How many pins there were.
    pub pins: usize,
}

/// Detaches every link and removes every pin and folder, of whatever ABI and in whatever state.
pub(super) fn remove_all(root: &Path) -> Result<Removed, DatapathError> {
    if !root.exists() {
        return Ok(Removed::default());
    }
    on_bpffs(root)?;
    let pins = Pins::new(root);
    let mut removed = Removed {
        interfaces: pins
            .linked()
            .map_err(DatapathError::call(format!("read {}", pins.links().display())))?,
        pins: 0,
    };
    // Whose they were goes before all else: a daemon that sees its links vanish is to know that it is off.
    remove_pin(&pins.owner())?;
    // Links first: what is detached judges nothing while its tables go.
    remove_tree(&pins.links(), &mut removed.pins)?;
    remove_tree(root, &mut removed.pins)?;
    Ok(removed)
}

/// Removes a folder with all its pins; detaches links among them. A folder that is not there is removed already.
pub(super) fn remove_tree(folder: &Path, count: &mut usize) -> Result<(), DatapathError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DatapathError::call(format!("read {}", folder.display()))(error)),
    };
    for entry in entries {
        let entry = entry.map_err(DatapathError::call(format!("read {}", folder.display())))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&path, count)?;
        } else {
            remove_pin(&path)?;
            *count += 1;
        }
    }
    match fs::remove_dir(folder) {
        Ok(()) => Ok(()),
        // The file system's own root: mounted for us, emptied by us.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        Err(error) => Err(DatapathError::call(format!(
            "remove the folder {}",
            folder.display()
        ))(error)),
    }
}

/// Removes one pin; if it is a link or stands for a filter, what it attached is off when this returns.
pub(super) fn remove_pin(path: &Path) -> Result<(), DatapathError> {
    if let Ok(object) = sys::open(path) {
        if sys::link_info(object.as_fd()).is_ok() {
            // A link whose device is gone cannot be detached any more, and need not be.
            let _ = sys::link_detach(object.as_fd());
        } else if let Some((ifindex, direction)) = attachment(path)
            && let Ok(program) = sys::program_id(object.as_fd())
        {
            egress::release(direction, ifindex, program)?;
        }
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DatapathError::call(format!("remove the pin {}", path.display()))(
            error,
        )),
    }
}

/// Which interface's pin this is, and which of its pins.
fn attachment(path: &Path) -> Option<(u32, Direction)> {
    let (number, suffix) = path.file_name()?.to_str()?.split_once('-')?;
    let direction = Direction::ALL
        .into_iter()
        .find(|direction| direction.suffix() == suffix)?;
    Some((number.parse().ok()?, direction))
}

fn on_bpffs(root: &Path) -> Result<(), DatapathError> {
    let place = existing(root);
    let status = statfs(place)
        .map_err(io::Error::from)
        .map_err(DatapathError::call(format!("look at {}", place.display())))?;
    if status.filesystem_type() == FsType(BPF_FS_MAGIC) {
        Ok(())
    } else {
        Err(DatapathError::NotBpffs {
            path: root.to_owned(),
        })
    }
}

/// The nearest folder on the way up that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
