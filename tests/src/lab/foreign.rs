//! An XDP program of somebody else on an interface.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Host, run};

/// Attached as another tool does it: pinned, then `ip link set`. It passes everything, and stays with the host.
#[derive(Debug)]
pub struct ForeignProgram {
    pub id: u64,
}

const PIN: &str = "/sys/fs/bpf/somebody";
pub const NAME: &str = "somebody";

impl ForeignProgram {
    #[track_caller]
    pub fn attach(host: &Host, interface: &str) -> ForeignProgram {
        host.within(|| {
            let program = load();
            fs::create_dir_all("/sys/fs/bpf").expect("it is there");
            pin(&program, PIN);
        });
        let mut ip = host.command("ip");
        run(ip.args(["link", "set", "dev", interface, "xdpgeneric", "pinned", PIN])).expect_success();
        let id = attached(host, interface).expect("it was just attached");
        ForeignProgram { id }
    }

    #[track_caller]
    pub fn detach(self, host: &Host, interface: &str) {
        let mut ip = host.command("ip");
        run(ip.args(["link", "set", "dev", interface, "xdpgeneric", "off"])).expect_success();
    }
}

/// The id of the XDP program on an interface, whoever's it is.
#[track_caller]
pub fn attached(host: &Host, interface: &str) -> Option<u64> {
    let shown = run(host
        .command("ip")
        .args(["-d", "-j", "link", "show", "dev", interface]))
    .expect_success();
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
    shown[0]["xdp"]["prog"]["id"].as_u64()
}

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: i32 = 5;
const BPF_OBJ_PIN: i32 = 6;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for BPF_OBJ_PIN.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `return XDP_PASS`, in two instructions.
fn load() -> OwnedFd {
    let code: [u64; 2] = [
        0x0000_0002_0000_00b7, // r0 = 2
        0x0000_0000_0000_0095, // exit
    ];
    let license = c"MIT";
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let attributes = Load {
        program_type: BPF_PROG_TYPE_XDP,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name,
        ..Load::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes);
    // SAFETY: bpf(2) gave a new descriptor, which is nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn pin(program: &OwnedFd, path: &str) {
    let path = std::ffi::CString::new(path).expect("a path without NUL");
    let attributes = Pin {
        path: path.as_ptr() as u64,
        fd: u32::try_from(program.as_raw_fd()).expect("descriptors are not negative"),
        flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attributes);
}

fn bpf<T>(command: i32, attributes: &T) -> i32 {
    // SAFETY: the structure is as long as said, and all it points to lives through the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    assert!(
        answer >= 0,
        "bpf(2), command {command}: {}",
        std::io::Error::last_os_error()
    );
    i32::try_from(answer).expect("a descriptor or zero")
}
