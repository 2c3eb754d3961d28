//! Network namespaces without names.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use super::process::{self, die_with_parent};

/// A network namespace, gone when this and everything that runs in it is gone.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    net: File,
}

impl Namespace {
    /// A new one with `lo` up. `name` is for messages only.
    pub fn new(name: &str) -> Namespace {
        super::require_root();
        let net = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace can be made");
            File::open("/proc/thread-self/ns/net").expect("a thread's namespace can be opened")
        });
        let namespace = Namespace {
            name: name.to_owned(),
            net,
        };
        // Addresses are usable at once: no duplicate address detection, no waiting for routers.
        for (key, value) in [
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("router_solicitations", "0"),
        ] {
            for scope in ["all", "default"] {
                namespace.sysctl(&format!("net/ipv6/conf/{scope}/{key}"), value);
            }
        }
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which a process that this one starts can name the namespace, as in `ip link … netns PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// A command that will run inside, and die with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let net = self.net.try_clone().expect("a descriptor can be copied");
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(move || {
                setns(net.as_fd(), CloneFlags::CLONE_NEWNET)?;
                die_with_parent()
            })
        };
        command
    }

    /// Runs a closure on a thread that is inside; sockets it opens stay inside and can be handed out.
    /// Processes that it starts die when it returns.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            self.enter();
            work()
        })
    }

    /// Moves the calling thread inside, until it moves elsewhere.
    pub fn enter(&self) {
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
    }

    /// Runs lines of `ip`, each without the word itself: `address add 10.0.0.1/24 dev eth0`.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        process::feed(self.command("ip").args(["-batch", "-"]), lines);
    }

    /// Sets `net/ipv4/ip_forward` and the like.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        self.within(|| std::fs::write(format!("/proc/sys/{key}"), value))
            .unwrap_or_else(|error| panic!("{}: {key} cannot be set to {value}: {error}", self.name));
    }

    /// The index of an interface inside.
    #[track_caller]
    pub fn ifindex(&self, interface: &str) -> u32 {
        self.within(|| nix::net::if_::if_nametoindex(interface))
            .unwrap_or_else(|error| panic!("{} has no {interface}: {error}", self.name))
    }

    pub(super) fn net(&self) -> &File {
        &self.net
    }
}

/// Joins two namespaces by a veth pair, both ends up.
pub fn join(one: (&Namespace, &str), other: (&Namespace, &str)) {
    let ((here, inside), (there, beyond)) = (one, other);
    here.ip(&format!(
        "link add {inside} type veth peer name {beyond} netns {}\nlink set {inside} up",
        there.path()
    ));
    there.ip(&format!("link set {beyond} up"));
}

/// Runs a closure on a thread of its own, whose namespaces are its own to change.
pub(super) fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(work);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
