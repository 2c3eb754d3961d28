//! Where sshd listens: by its processes where they may be looked into, else by its configuration.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::sock_diag::{self, State};

/// The TCP ports at which somebody elsewhere can reach sshd now.
///
/// # Errors
/// The kernel does not list its sockets.
pub fn ports() -> io::Result<BTreeSet<u16>> {
    let listening: Vec<(u32, u16)> = sock_diag::dump()?
        .into_iter()
        .filter(|socket| socket.state == State::Listen && !socket.local.ip().is_loopback())
        .map(|socket| (socket.inode, socket.local.port()))
        .collect();
    let held = sockets_of_sshd();
    let own: BTreeSet<u16> = listening
        .iter()
        .filter(|(inode, _)| held.contains(inode))
        .map(|(_, port)| *port)
        .collect();
    if !own.is_empty() {
        return Ok(own);
    }
    // Looking into a process of more capabilities takes CAP_SYS_PTRACE, which the daemon's unit does not give; and a
    // socket unit's listener is systemd's.
    let configured = configured();
    Ok(listening
        .into_iter()
        .map(|(_, port)| port)
        .filter(|port| configured.contains(port))
        .collect())
}

/// The ports of `sshd_config`, whether or not sshd runs; 22 where none is named.
pub fn configured() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    read(Path::new("/etc/ssh/sshd_config"), &mut ports, 0);
    if ports.is_empty() {
        ports.insert(22);
    }
    ports
}

/// Files that include each other end somewhere.
const DEEPEST: u32 = 8;

fn read(file: &Path, ports: &mut BTreeSet<u16>, depth: u32) {
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    for line in text.lines() {
        let mut words = line
            .split(|c: char| c.is_whitespace() || c == '=')
            .filter(|w| !w.is_empty());
        let keyword = words.next().unwrap_or_default();
        if keyword.eq_ignore_ascii_case("Port") {
            ports.extend(words.next().and_then(|port| port.parse::<u16>().ok()));
        } else if keyword.eq_ignore_ascii_case("Include") && depth < DEEPEST {
            words.for_each(|pattern| included(pattern, ports, depth));
        }
    }
}

/// sshd_config(5) takes any glob; what is used is `DIRECTORY/*.conf`.
fn included(pattern: &str, ports: &mut BTreeSet<u16>, depth: u32) {
    let path = Path::new("/etc/ssh").join(pattern);
    let Some((folder, suffix)) = path.to_str().and_then(|path| path.split_once("/*")) else {
        return read(&path, ports, depth + 1);
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for file in entries.map(|entry| entry.path()) {
        if file.to_str().is_some_and(|name| name.ends_with(suffix)) {
            read(&file, ports, depth + 1);
        }
    }
}

/// Inodes of the sockets that sshd itself holds: not those of its sessions, which listen for what they forward.
fn sockets_of_sshd() -> BTreeSet<u32> {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_sshd = |pid: &str| name(pid).trim_end() == "sshd";
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && is_sshd(pid) && !is_sshd(&parent(pid)))
        .flat_map(|pid| {
            fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter_map(|fd| {
            let target = fs::read_link(fd.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

fn parent(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').nth(1).unwrap_or_default().to_owned()
}
