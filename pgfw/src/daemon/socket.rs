//! The control socket as a file: 0660, root and the group `pgfw`, replaced when a dead daemon left one.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::failure::{Explain, Failure};

/// The group whose members may use the control socket.
const GROUP: &str = "pgfw";

/// Binds the control socket; the caller holds the socket's lock, so one that is there belongs to nobody.
pub(super) fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let listener = listen_for(path, GROUP)?;
    if !matches!(nix::unistd::Group::from_name(GROUP), Ok(Some(_))) {
        tracing::warn!("there is no group {GROUP}; only root may use {}", path.display());
    }
    Ok(listener)
}

/// The same for members of `group`, where there is one; otherwise for root only.
pub(super) fn listen_for(path: &Path, group: &str) -> Result<UnixListener, Failure> {
    let failed = |source: std::io::Error| SocketError {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error).into()),
        Ok(()) | Err(_) => {}
    }
    // Nobody gets in between bind and chmod.
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(umask);
    let listener = bound.map_err(failed)?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(group) {
        chown(path, Some(0), Some(group.gid.as_raw())).map_err(failed)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

#[derive(Debug, thiserror::Error)]
#[error("the control socket {} cannot be made", path.display())]
struct SocketError {
    path: PathBuf,
    source: std::io::Error,
}

impl Explain for SocketError {
    fn remedy(&self) -> String {
        format!(
            "Make the folder of {} writable for root, or name another with --socket.",
            self.path.display()
        )
    }
}
