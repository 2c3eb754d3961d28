//! Notices pins that somebody deletes (inotify): a link goes with its pin, a table with its.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Shared;

/// Starts a thread that waits for such news as long as the process lives.
pub(super) fn watch(shared: Shared, pins: &Path) {
    const LATE: &str = "deleted pins are noticed once a minute only";
    let inotify = match Inotify::init(InitFlags::IN_CLOEXEC) {
        Ok(inotify) => inotify,
        Err(errno) => {
            tracing::warn!(%errno, "{LATE}");
            return;
        }
    };
    let pins = pins.to_owned();
    let watch = move || {
        loop {
            // Folders come and go with generations, and all of them with `pgfw off`; one that is watched already is not
            // watched twice.
            if let Some(above) = pins.parent() {
                let _ = inotify.add_watch(above, WHAT);
            }
            add(&inotify, &pins);
            match inotify.read_events() {
                Ok(_) => shared.changed.notify_one(),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "{LATE}");
                    return;
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("pin-changes".into())
        .spawn(watch)
    {
        tracing::warn!(%error, "{LATE}");
    }
}

const WHAT: AddWatchFlags = AddWatchFlags::IN_DELETE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The folder and all below it.
fn add(inotify: &Inotify, folder: &Path) {
    if inotify.add_watch(folder, WHAT).is_err() {
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add(inotify, &entry.path());
        }
    }
}
