//! One daemon for one state folder and one control socket. The pins have a lock of their own (`datapath::Held`).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::failure::{Explain, Failure};
use crate::paths::Paths;

/// Both locks, until the daemon ends.
#[derive(Debug)]
pub(super) struct OnlyOne {
    _state: Flock<File>,
    /// `None`: the socket's folder takes no lock; making the socket says why.
    _socket: Option<Flock<File>>,
}

/// Takes both before anything is touched: a second daemon would unlink the first one's socket.
pub(super) fn take(paths: &Paths) -> Result<OnlyOne, Failure> {
    let (state, socket) = (paths.daemon_lock(), paths.socket_lock());
    let _state = match lock(&state) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(OnlyOneError::State { file: state }.into());
        }
        Err(source) => return Err(OnlyOneError::Lock { file: state, source }.into()),
    };
    let _socket = match lock(&socket) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let socket = paths.socket.clone();
            return Err(OnlyOneError::Socket { socket }.into());
        }
        Err(error) => {
            // Enforcement does not wait for the control socket.
            tracing::warn!(%error, "{} cannot be locked", socket.display());
            None
        }
    };
    Ok(OnlyOne { _state, _socket })
}

fn lock(file: &Path) -> io::Result<Flock<File>> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let open = crate::ops::lock_file(file)?;
    Flock::lock(open, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

#[derive(Debug, thiserror::Error)]
enum OnlyOneError {
    #[error("another pgfw daemon runs on this state ({} is locked)", file.display())]
    State { file: PathBuf },
    #[error("another pgfw daemon answers at {}", socket.display())]
    Socket { socket: PathBuf },
    #[error("the lock {} cannot be taken", file.display())]
    Lock { file: PathBuf, source: io::Error },
}

impl Explain for OnlyOneError {
    fn remedy(&self) -> String {
        match self {
            OnlyOneError::State { file: _ } | OnlyOneError::Socket { socket: _ } => {
                "`pgfw status` shows it; `systemctl restart pgfw` replaces it; a separate one needs its own --config, \
                 --state-dir, --socket and --bpffs."
                    .into()
            }
            OnlyOneError::Lock { file, source: _ } => {
                format!("Make the folder of {} writable for root.", file.display())
            }
        }
    }
}
