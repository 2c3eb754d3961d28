//! What this kernel can do, found out by asking it, and what pgfw does accordingly: the one place that decides.
//!
//! Nothing here goes by the kernel's version: distributions carry features back, and containers hide them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use aya_obj::generated::BPF_F_XDP_HAS_FRAGS;
use aya_obj::generated::bpf_attach_type::{BPF_TCX_EGRESS, BPF_XDP};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_RINGBUF};
use aya_obj::generated::bpf_prog_type::{BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::error::DatapathError;
use super::maps::Shape;
use super::{load, probe, sys};

/// What differs between the kernels that pgfw runs on. What all of them must have is not among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Kernel {
    /// XDP programs may take packets in several buffers (Linux 5.18): native attaching at large MTUs.
    pub multi_buffer: bool,
    /// The classifier on the way out stands in a link of its own (TCX, Linux 6.6); otherwise it is a filter in the
    /// queueing discipline `clsact`, which anybody with the right to may delete.
    pub tcx: bool,
    /// A test run can be told on which interface the frame arrives (Linux 5.15); otherwise it is `lo`.
    pub test_on_interface: bool,
    /// The memory of tables is charged to the control group (Linux 5.11); otherwise it counts against
    /// RLIMIT_MEMLOCK, which is raised.
    pub memory_by_group: bool,
}

impl Kernel {
    /// Asks the kernel, once in a process.
    ///
    /// # Errors
    /// What every kernel must have and this one lacks, by name; a limit on locked memory that cannot be raised.
    pub(super) fn probe() -> Result<Kernel, DatapathError> {
        // Held while asking: one of the questions takes the limit on locked memory away for a moment, from all threads.
        static KNOWN: Mutex<Option<Kernel>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = *known {
            return Ok(kernel);
        }
        // First, since everything after it takes memory.
        let memory_by_group = memory_by_group().map_err(asking("about the memory of tables"))?;
        if !memory_by_group {
            raise_memory_limit()?;
        }
        for (feature, since, present) in [
            ("ring buffers", "5.8", ring_buffers as fn() -> io::Result<bool>),
            ("XDP links", "5.9", xdp_links),
        ] {
            if !present().map_err(asking(feature))? {
                return Err(DatapathError::Kernel {
                    release: release(),
                    feature,
                    since,
                });
            }
        }
        let kernel = Kernel {
            multi_buffer: multi_buffer().map_err(asking("multi-buffer XDP"))?,
            tcx: tcx().map_err(asking("TCX links"))?,
            test_on_interface: test_on_interface().map_err(asking("test runs"))?,
            memory_by_group,
        };
        *known = Some(kernel);
        Ok(kernel)
    }

    /// The name in the object of the program that is pinned as `name`.
    pub fn program(self, name: &str) -> String {
        match name {
            load::ENTRY | load::POLICY | load::PROBE if !self.multi_buffer => format!("pgfw_one_{name}"),
            _ => format!("pgfw_{name}"),
        }
    }

    /// What was chosen, for people: what it is about, and what is done.
    pub fn choices(self) -> [(&'static str, &'static str); 4] {
        let Kernel {
            multi_buffer,
            tcx,
            test_on_interface,
            memory_by_group,
        } = self;
        let choose =
            |yes: bool, then: &'static str, otherwise: &'static str| if yes { then } else { otherwise };
        [
            (
                "XDP programs",
                choose(
                    multi_buffer,
                    "multi-buffer",
                    "single-buffer: large MTUs take generic mode only",
                ),
            ),
            (
                "way out",
                choose(
                    tcx,
                    "TCX link",
                    "clsact filter: repaired when somebody deletes it",
                ),
            ),
            (
                "pgfw check",
                choose(
                    test_on_interface,
                    "as if arriving on the interface",
                    "as if arriving on lo",
                ),
            ),
            (
                "memory of tables",
                choose(memory_by_group, "control group", "RLIMIT_MEMLOCK, raised"),
            ),
        ]
    }
}

/// `uname -r`.
fn release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".into(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

fn asking(about: &str) -> impl FnOnce(io::Error) -> DatapathError {
    DatapathError::call(format!("ask the kernel about {about}"))
}

/// Whether a probe was refused as something that the kernel does not know.
fn known<T>(answer: io::Result<T>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// kernel/bpf/syscall.c, 5.10: `bpf_charge_memlock` fails with EPERM whatever the capabilities.
fn memory_by_group() -> io::Result<bool> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, hard)?;
    let made = sys::create_map(Shape {
        kind: BPF_MAP_TYPE_ARRAY as u32,
        key: 4,
        value: 8,
        entries: 1,
        flags: 0,
    });
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Some hundred megabytes for large tables; nothing else of this process locks memory.
fn raise_memory_limit() -> Result<(), DatapathError> {
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return Ok(());
    }
    // Without CAP_SYS_RESOURCE as far as it goes.
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(io::Error::from);
    let (_, hard) = limit.map_err(DatapathError::call("read the limit on locked memory"))?;
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    if hard == RLIM_INFINITY {
        return Ok(());
    }
    Err(DatapathError::LockedMemory { limit: hard })
}

fn ring_buffers() -> io::Result<bool> {
    known(sys::create_map(Shape {
        kind: BPF_MAP_TYPE_RINGBUF as u32,
        key: 0,
        value: 0,
        entries: 64 * 1024,
        flags: 0,
    }))
}

/// `lo` takes no native program, so a kernel that knows XDP links answers EOPNOTSUPP, and nothing is attached.
fn xdp_links() -> io::Result<bool> {
    const NATIVE: u32 = aya_obj::generated::XDP_FLAGS_DRV_MODE;
    let program = pass(0)?;
    match sys::create_link(program.as_fd(), LO, BPF_XDP, NATIVE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        // Detached again when it is closed, should `lo` ever take one.
        Ok(_) | Err(_) => Ok(true),
    }
}

/// net/core/dev.c and kernel/bpf/tcx.c: of an interface that is not there, EINVAL says that the kind of link is unknown,
/// ENODEV that only the interface is.
fn tcx() -> io::Result<bool> {
    const NOWHERE: u32 = i32::MAX.cast_unsigned();
    let next = sys::load_program(BPF_PROG_TYPE_SCHED_CLS, &[MOVE_R0 | NEXT << 32, EXIT], 0)?;
    match sys::create_link(next.as_fd(), NOWHERE, BPF_TCX_EGRESS, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Ok(_) | Err(_) => Ok(true),
    }
}

fn multi_buffer() -> io::Result<bool> {
    known(pass(BPF_F_XDP_HAS_FRAGS))
}

fn test_on_interface() -> io::Result<bool> {
    let program = pass(0)?;
    let frame = [0; 64];
    known(sys::test_run(
        program.as_fd(),
        &frame,
        &probe::context(frame.len(), LO),
    ))
}

/// The loopback interface's index in every network namespace.
const LO: u32 = 1;

/// `return XDP_PASS`.
fn pass(flags: u32) -> io::Result<OwnedFd> {
    sys::load_program(BPF_PROG_TYPE_XDP, &[MOVE_R0 | PASS << 32, EXIT], flags)
}

// include/uapi/linux/bpf.h: `r0 = IMMEDIATE`, the immediate in the upper half, and `exit`.
const MOVE_R0: u64 = 0xb7;
const EXIT: u64 = 0x95;
const PASS: u64 = 2;
/// TC_ACT_UNSPEC.
const NEXT: u64 = 0xffff_ffff;
