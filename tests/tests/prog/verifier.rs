//! What the verifier says about a program that is loaded already: it is given the same instructions again.
//!
//! The count of verified instructions is reported by the kernel from Linux 5.16 on; its log has told it ever since.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::maps::MapInfo;
use aya::programs::ProgramInfo;
use aya_obj::generated::{
    BPF_F_XDP_HAS_FRAGS, bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_info, bpf_prog_type,
};
use aya_obj::{Function, Object, ProgramSection};

/// What the log ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) instructions: u32,
    /// Bytes, of the deepest chain of calls at most.
    pub(crate) stack: u32,
}

/// BPF_LOG_STATS, include/linux/bpf_verifier.h.
const STATISTICS: u32 = 4;

/// Verifies `name` of the embedded object over the maps of the loaded program `like`.
pub(crate) fn verify(name: &str, like: &ProgramInfo) -> Verified {
    let mut object = Object::parse(pgfw::datapath::object()).expect("the embedded object");
    let maps: Vec<(String, MapInfo)> = like
        .map_ids()
        .expect("a program tells its maps")
        .expect("a kernel that tells")
        .into_iter()
        .map(|id| {
            let info = MapInfo::from_id(id).expect("a map");
            let name = info.name_as_str().expect("a name").to_owned();
            (name, info)
        })
        .collect();
    let descriptors: Vec<_> = maps
        .iter()
        .map(|(name, info)| (name.as_str(), info.fd().expect("a map's descriptor")))
        .collect();
    let definitions = std::mem::take(&mut object.maps);
    let found = definitions.iter().map(|(name, definition)| {
        // What only other programs of the object use is not asked for.
        let descriptor = descriptors
            .iter()
            .find(|(short, _)| *short == &name[..name.len().min(15)]);
        let descriptor = descriptor.map_or(-1, |(_, descriptor)| descriptor.as_fd().as_raw_fd());
        (name.as_str(), descriptor, definition)
    });
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(found, &text).expect("maps");
    object.relocate_calls(&text).expect("calls");
    let program = &object.programs[name];
    let (kind, attach_type, flags) = if let ProgramSection::Xdp { frags, .. } = program.section {
        let flags = if frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
        let attach_type = bpf_attach_type::BPF_XDP as u32;
        (bpf_prog_type::BPF_PROG_TYPE_XDP, attach_type, flags)
    } else {
        (bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0, 0)
    };
    let function = &object.functions[&program.function_key()];
    let log = load(kind, attach_type, flags, function, &types(like));
    read(&log).unwrap_or_else(|| panic!("{name}: the verifier's log ends without counts:\n{log}"))
}

/// The types of a loaded program, which say among other things which of its functions are global.
fn types(like: &ProgramInfo) -> OwnedFd {
    let program = like.fd().expect("a program's descriptor");
    // SAFETY: plain integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    // SAFETY: a union of plain integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = program.as_fd().as_raw_fd().cast_unsigned();
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).expect("what the program is");
    // SAFETY: a union of plain integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = info.btf_id;
    let btf = bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr).expect("the program's types");
    // SAFETY: a fresh descriptor that nobody else holds.
    unsafe { OwnedFd::from_raw_fd(btf) }
}

fn load(kind: bpf_prog_type, attach_type: u32, flags: u32, function: &Function, types: &OwnedFd) -> String {
    let instructions = &function.instructions;
    let functions = function.func_info.func_info_bytes();
    let mut log = vec![0_u8; 1 << 16];
    let license = c"Dual MIT/GPL";
    // SAFETY: a union of plain integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the union's member for this command.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(instructions.len()).expect("a program of this size");
    load.license = license.as_ptr() as u64;
    load.prog_flags = flags;
    load.expected_attach_type = attach_type;
    load.log_level = STATISTICS;
    load.log_size = u32::try_from(log.len()).expect("a log of this size");
    load.log_buf = log.as_mut_ptr() as u64;
    load.prog_btf_fd = types.as_raw_fd().cast_unsigned();
    load.func_info = functions.as_ptr() as u64;
    load.func_info_rec_size = function.func_info_rec_size as u32;
    load.func_info_cnt = function.func_info.len() as u32;
    let loaded = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr);
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..end]).into_owned();
    let fd = loaded.unwrap_or_else(|error| panic!("{error}\n{log}"));
    // SAFETY: a fresh descriptor that nobody else holds.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    log
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> std::io::Result<i32> {
    // SAFETY: all that `attr` points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(i32::try_from(result).expect("a descriptor"))
}

/// `stack depth 144+16+0`, from 7.x on followed by ` max 160`, and `processed 4711 insns (limit …`.
fn read(log: &str) -> Option<Verified> {
    let after = |key: &str| log.lines().find_map(|line| line.strip_prefix(key));
    let depths = after("stack depth ")?.split(' ').next()?;
    let depths = depths.split('+').map(str::parse::<u32>);
    Some(Verified {
        instructions: after("processed ")?.split(' ').next()?.parse().ok()?,
        stack: depths.sum::<Result<u32, _>>().ok()?,
    })
}

#[test]
fn both_forms_of_the_log_are_read() {
    for log in [
        "stack depth 144+16+0\nprocessed 4711 insns (limit 1000000) max_states_per_insn 1",
        "stack depth 160 max 160\ninsns processed 4711\nprocessed 4711 insns (limit 1000000)",
    ] {
        let verified = Verified {
            instructions: 4711,
            stack: 160,
        };
        assert_eq!(read(log), Some(verified), "{log}");
    }
}
