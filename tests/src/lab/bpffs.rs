//! A bpf file system of one's own, for tests that use the library from the test process itself.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// Mounted under a temporary folder, unmounted when dropped; what was pinned there goes with it.
#[derive(Debug)]
pub struct Bpffs {
    folder: TempDir,
}

impl Bpffs {
    pub fn new() -> Bpffs {
        super::require_root();
        let folder = tempfile::Builder::new()
            .prefix("pgfw-bpffs-")
            .tempdir()
            .expect("a folder can be made");
        mount(
            Some("bpf"),
            folder.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("bpffs can be mounted");
        Bpffs { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Default for Bpffs {
    fn default() -> Self {
        Bpffs::new()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // The folder goes after this, which fails loudly enough in the test of leftovers.
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
