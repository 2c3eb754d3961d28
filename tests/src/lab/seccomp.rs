//! Kernels that lack something, played by a filter of system calls.

use std::io;

// Commands of bpf(2).
const BPF_PROG_LOAD: u32 = 5;
const BPF_LINK_CREATE: u32 = 28;

/// From now on the calling thread, and what it starts, is told that there are no BPF links: EINVAL, as before Linux 5.9.
///
/// # Errors
/// A kernel without seccomp.
pub fn without_links() -> io::Result<()> {
    refuse(libc::SYS_bpf, BPF_LINK_CREATE, libc::EINVAL)
}

/// The same for a kernel that refuses every program.
///
/// # Errors
/// As for [`without_links`].
pub fn without_programs() -> io::Result<()> {
    refuse(libc::SYS_bpf, BPF_PROG_LOAD, libc::EINVAL)
}

/// The same for a container, or a unit with RestrictNamespaces: unshare(2) makes no network namespace.
///
/// # Errors
/// As for [`without_links`].
pub fn without_namespaces() -> io::Result<()> {
    refuse(libc::SYS_unshare, libc::CLONE_NEWNET as u32, libc::EPERM)
}

/// A system call with that first argument.
fn refuse(call: libc::c_long, first: u32, errno: libc::c_int) -> io::Result<()> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    // struct seccomp_data: number at 0, the first argument's lower half at 16.
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, 0, 3, call as u32),
        step(LOAD, 0, 0, 16),
        step(EQUAL, 0, 1, first),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program and its steps outlive the calls.
    let set = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
