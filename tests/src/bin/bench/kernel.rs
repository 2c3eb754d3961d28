//! bpf(2) as the bench needs it: programs of a few instructions, the maps around them, runs over a frame.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{
    BPF_F_NO_PREALLOC, BPF_F_XDP_HAS_FRAGS, bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type,
};
use nix::time::{ClockId, clock_gettime};

/// XDP actions.
pub(crate) const DROP: u32 = 1;

/// Loads an XDP program that can call, and be called by, pgfw's own: a program array holds one kind only.
pub(crate) fn load(instructions: &[u64], frags: bool) -> OwnedFd {
    let license = c"GPL";
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
    program.expected_attach_type = bpf_attach_type::BPF_XDP as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = u32::try_from(instructions.len()).expect("a short program");
    program.license = license.as_ptr() as u64;
    program.prog_flags = if frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
    // The verifier's reasons, for whoever changes a program here.
    let mut log = vec![0_u8; 1 << 16];
    program.log_level = 1;
    program.log_size = 1 << 16;
    program.log_buf = log.as_mut_ptr() as u64;
    let loaded = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    owned(loaded.unwrap_or_else(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        panic!(
            "the verifier refused: {error}\n{}",
            String::from_utf8_lossy(&log[..end])
        )
    }))
}

/// Opens a pinned program or map.
pub(crate) fn pinned(path: &Path) -> OwnedFd {
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL");
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = name.as_ptr() as u64;
    owned(bpf(bpf_cmd::BPF_OBJ_GET, &mut attr).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// A program array of one slot that holds `program`.
pub(crate) fn slot(program: BorrowedFd<'_>) -> OwnedFd {
    let array = map(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0);
    put(
        array.as_fd(),
        &0_u32.to_ne_bytes(),
        &program.as_raw_fd().to_ne_bytes(),
    );
    array
}

/// A trie of the kernel's own: the length of a prefix, then `bytes` bytes of address, to eight bytes.
pub(crate) fn trie(bytes: u32, entries: u32) -> OwnedFd {
    map(
        bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
        4 + bytes,
        8,
        entries,
        BPF_F_NO_PREALLOC,
    )
}

fn map(kind: bpf_map_type, key: u32, value: u32, entries: u32, flags: u32) -> OwnedFd {
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = kind as u32;
    map.key_size = key;
    map.value_size = value;
    map.max_entries = entries;
    map.map_flags = flags;
    owned(bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr).expect("a map can be made"))
}

/// Writes an element whose sizes are the map's.
pub(crate) fn put(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) {
    let mut attr = attr();
    attr.__bindgen_anon_2.map_fd = raw(map);
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).expect("an element can be written");
}

/// What a map takes, as the kernel accounts for it.
pub(crate) fn memory(map: BorrowedFd<'_>) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

/// Runs a program over a frame so many times; the last action, and nanoseconds of this thread for each.
///
/// The kernel tells whole nanoseconds only, and those of the wall; this thread's own time is finer, and what others take
/// of the core meanwhile is not in it.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> (u32, f64) {
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let test = unsafe { &mut attr.test };
    test.prog_fd = raw(program);
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = u32::try_from(frame.len()).expect("a short frame");
    test.repeat = repeat;
    let before = thread_time();
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).expect("a program can be run");
    let spent = thread_time() - before;
    // SAFETY: as above.
    (unsafe { attr.test.retval }, spent / f64::from(repeat))
}

/// Nanoseconds.
fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread's clock");
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

pub(crate) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: bpf(2) returned a descriptor that nobody else holds.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).expect("a descriptor")
}

pub(crate) fn attr() -> bpf_attr {
    // SAFETY: a union of plain integers; the kernel wants unused bytes to be zero.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

pub(crate) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is valid for its size, and every pointer in it outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}
