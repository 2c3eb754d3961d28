//! The user that runs a server, and doing something as that user without giving up being root.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};

use super::PostgresError;

/// The user that owns a data directory; the server refuses to run as any other (miscinit.c: `checkDataDir`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
}

impl Owner {
    /// The owner of `directory`.
    ///
    /// # Errors
    /// The directory is not there, or its owner has no name.
    pub fn of(directory: &Path) -> Result<Owner, PostgresError> {
        use std::os::unix::fs::MetadataExt;
        let uid = std::fs::metadata(directory)
            .map_err(PostgresError::file("cannot look at", directory))?
            .uid();
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let user = user.ok_or_else(|| PostgresError::NoOwner {
            path: directory.to_owned(),
            uid,
        })?;
        Ok(Owner {
            uid,
            gid: user.gid.as_raw(),
            name: user.name,
        })
    }

    /// Runs `work` with this user's *effective* ids, in a thread of its own that ends with it.
    ///
    /// Credentials belong to a thread in Linux; libc's `seteuid` changes all of them, the bare system call only this
    /// one. What the kernel asks for is the effective user: `SO_PEERCRED` at connect(2), file access at open(2), other
    /// processes under /proc. Real and saved ids stay root's, so that the server's user can neither signal nor trace us
    /// meanwhile (kill(2) and ptrace(2) compare those).
    ///
    /// # Errors
    /// Those of `work`, and EPERM without CAP_SETUID and CAP_SETGID.
    pub fn act<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if Uid::effective().as_raw() == self.uid {
            return work();
        }
        let name = CString::new(self.name.as_str()).map_err(io::Error::other)?;
        let groups = getgrouplist(&name, Gid::from_raw(self.gid)).map_err(io::Error::from)?;
        let groups: Vec<libc::gid_t> = groups.into_iter().map(Gid::as_raw).collect();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                become_effective(self.uid, self.gid, &groups)?;
                work()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// A command that runs as this user.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if Uid::effective().as_raw() != self.uid {
            command.uid(self.uid).gid(self.gid);
        }
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        command
    }
}

/// This process's own user name, as `peer` will see it.
pub(super) fn operator() -> io::Result<String> {
    let uid = Uid::effective();
    User::from_uid(uid)
        .map_err(io::Error::from)?
        .map(|u| u.name)
        .ok_or_else(|| io::Error::other(format!("uid {uid} has no user name")))
}

fn become_effective(uid: u32, gid: u32, groups: &[libc::gid_t]) -> io::Result<()> {
    const KEEP: libc::c_long = -1;
    let check = |result: libc::c_long| {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: setgroups(2) reads `groups.len()` ids from a slice of that length; it changes this thread alone.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: setresgid(2) takes numbers only; it changes this thread alone.
    check(unsafe { libc::syscall(libc::SYS_setresgid, KEEP, libc::c_long::from(gid), KEEP) })?;
    // SAFETY: setresuid(2) takes numbers only; it changes this thread alone.
    check(unsafe { libc::syscall(libc::SYS_setresuid, KEEP, libc::c_long::from(uid), KEEP) })
}
