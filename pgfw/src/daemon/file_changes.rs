//! Notices when files of another authority change (inotify): certbot and its like renew them, and tell nobody. What it misses
//! is found by the look at them every half a minute.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Shared;

const LATE: &str = "new files of another authority are noticed every half a minute only";

/// Starts a thread that waits for such news as long as the process lives, and a task that tells it where to look.
pub(super) fn watch(shared: Shared) {
    let inotify = match Inotify::init(InitFlags::IN_CLOEXEC) {
        Ok(inotify) => Arc::new(inotify),
        Err(errno) => {
            tracing::warn!(%errno, "{LATE}");
            return;
        }
    };
    tokio::spawn(follow(shared.clone(), Arc::clone(&inotify)));
    let wait = move || {
        loop {
            match inotify.read_events() {
                Ok(_) => {
                    settle(&inotify);
                    shared.lock().files_changed();
                    shared.changed.notify_one();
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "{LATE}");
                    return;
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("file-changes".into())
        .spawn(wait)
    {
        tracing::warn!(%error, "{LATE}");
    }
}

/// After each round the config may name other files, and links lead elsewhere. A folder that is watched is not watched twice;
/// one that matters no more wakes the daemon for nothing.
async fn follow(shared: Shared, inotify: Arc<Inotify>) {
    let mut rounds = shared.rounds.subscribe();
    loop {
        for folder in shared.look(|engine| engine.watched()).await.unwrap_or_default() {
            // One that is not there is made in one that is watched as well.
            let _ = inotify.add_watch(&folder, WHAT);
        }
        if rounds.changed().await.is_err() {
            return;
        }
    }
}

/// Key and certificate are two files, renewed one after the other: waits until it is quiet.
fn settle(inotify: &Inotify) {
    let latest = Instant::now() + LONGEST;
    while Instant::now() < latest {
        let mut watched = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::from(QUIET_MS)) {
            Ok(0) => return,
            Ok(_) if inotify.read_events().is_err() => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

const QUIET_MS: u16 = 300;
const LONGEST: Duration = Duration::from_secs(3);

const WHAT: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ONLYDIR);
