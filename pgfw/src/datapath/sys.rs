//! The bpf(2) calls that aya does not offer: what a link is attached to, who stands in a slot, detaching at once, and the
//! questions by which `kernel.rs` finds out what a kernel can do.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_prog_info, bpf_prog_type,
};

use super::maps::Shape;

/// A link as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) program: u32,
    /// 0 when the device is gone.
    pub(super) ifindex: u32,
}

/// Opens a pin of whatever kind.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    owned(bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?)
}

/// An XDP or TCX link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let info: bpf_link_info = info(link)?;
    // SAFETY: the union's member goes by the type that the kernel filled in; zeroed otherwise.
    let ifindex = unsafe {
        if info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
            info.__bindgen_anon_1.xdp.ifindex
        } else if info.type_ == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
            info.__bindgen_anon_1.tcx.ifindex
        } else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
    };
    Ok(LinkInfo {
        program: info.prog_id,
        ifindex,
    })
}

/// Detaches now. Unlinking the pin would do so as well, but some time later, from a work queue.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.link_detach.link_fd = raw(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// The id of a program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let info: bpf_prog_info = info(program)?;
    Ok(info.id)
}

/// The id of the program in a slot of a program array, if there is one.
pub(super) fn slot(array: BorrowedFd<'_>, index: u32) -> io::Result<Option<u32>> {
    let mut id: u32 = 0;
    let mut attr = attr();
    attr.__bindgen_anon_2.map_fd = raw(array);
    attr.__bindgen_anon_2.key = (&raw const index) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = (&raw mut id) as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pins a program once more, under another name.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = raw(object);
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// A map without a name.
pub(super) fn create_map(shape: Shape) -> io::Result<OwnedFd> {
    let Shape {
        kind,
        key,
        value,
        entries,
        flags,
    } = shape;
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = kind;
    map.key_size = key;
    map.value_size = value;
    map.max_entries = entries;
    map.map_flags = flags;
    owned(bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?)
}

/// A program of these instructions, without a name.
pub(super) fn load_program(kind: bpf_prog_type, instructions: &[u64], flags: u32) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = kind as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
    program.license = license.as_ptr() as u64;
    program.prog_flags = flags;
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// Attaches a program to an interface by a link, which detaches when it is closed.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = attr();
    attr.link_create.__bindgen_anon_1.prog_fd = raw(program);
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = attach_type as u32;
    attr.link_create.flags = flags;
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?)
}

/// Runs an XDP program over a frame, with the context of one that arrived.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> io::Result<()> {
    let mut attr = attr();
    // SAFETY: the union's member for this command.
    let test = unsafe { &mut attr.test };
    test.prog_fd = raw(program);
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    test.ctx_in = context.as_ptr() as u64;
    test.ctx_size_in = u32::try_from(context.len()).unwrap_or(u32::MAX);
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map(drop)
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: bpf(2) returned a descriptor that nobody else holds.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn info<T: Copy>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = MaybeUninit::<T>::zeroed();
    let mut attr = attr();
    attr.info.bpf_fd = raw(object);
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = info.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: the kernel's info structures are plain integers, zeroed above and filled in part.
    Ok(unsafe { info.assume_init() })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or(u32::MAX)
}

fn attr() -> bpf_attr {
    // SAFETY: a union of plain integers; the kernel wants unused bytes to be zero.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is valid for its size, and every pointer in it outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            attr as *mut bpf_attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}
