//! Telling a server to read its files again. That it was told proves nothing: see [`super::prove`].

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{PostgresError, Running, Server};

/// Sends SIGHUP to the postmaster.
///
/// Through a pidfd that is opened before the process is looked at: the signal reaches the process that was checked, or
/// none, however fast numbers are reused.
///
/// # Errors
/// The postmaster is gone, or the kernel refuses.
pub fn reload(server: &Server, running: &Running) -> Result<(), PostgresError> {
    let failed = |source| PostgresError::Reload {
        pid: running.pid,
        source,
    };
    let process = pidfd(running.pid).map_err(failed)?;
    if !server.is_ours(running.pid) {
        return Err(failed(io::Error::from_raw_os_error(libc::ESRCH)));
    }
    // As the server's user, who may: root that is left the unit's capabilities has no CAP_KILL.
    server.owner.act(|| hang_up(&process)).map_err(failed)
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn hang_up(process: &OwnedFd) -> io::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: pidfd_send_signal(2) takes a descriptor that is open for the call, a number, and no siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGHUP,
            no_info,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
