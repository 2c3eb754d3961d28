//! A machine of its own: network, files and shared memory.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::User;

use super::namespace::{Namespace, on_a_thread};
use super::process::{Credentials, die_with_parent};

/// A network namespace with a mount namespace in which `/etc` and `/var` take writes that nobody else sees,
/// `/run` and PostgreSQL's folders are empty, and `/sys/fs/bpf` is a bpf file system of its own.
///
/// So pgfw, PostgreSQL and sshd run with the paths, ports and cluster names of a real installation, and
/// all of it is gone with the host. `/tmp` is shared with the outside.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    mounts: File,
    ipc: File,
}

impl std::ops::Deref for Host {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Host {
    pub fn new(name: &str) -> Host {
        let namespace = Namespace::new(name);
        let net = namespace.net().as_fd();
        let (mounts, ipc) = on_a_thread(|| {
            setns(net, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).expect("namespaces can be made");
            private_files()
                .unwrap_or_else(|error| panic!("the files of {name} cannot be set apart: {error}"));
            let open =
                |kind| File::open(format!("/proc/thread-self/ns/{kind}")).expect("a namespace can be opened");
            (open("mnt"), open("ipc"))
        });
        Host {
            namespace,
            mounts,
            ipc,
        }
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// How another process that is root gets in: network and files.
    pub fn entrance(&self) -> String {
        let mounts = format!("/proc/{}/fd/{}", std::process::id(), self.mounts.as_raw_fd());
        format!("nsenter --net={} --mount={mounts}", self.namespace.path())
    }

    /// A command that will run on this host as root, and die with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_as(program, Credentials::root())
    }

    /// The same as another user, with the groups that the host's own `/etc/group` gives.
    pub fn command_as_user(&self, program: impl AsRef<std::ffi::OsStr>, user: &str) -> Command {
        self.command_as(program, self.within(|| Credentials::of(user)))
    }

    fn command_as(&self, program: impl AsRef<std::ffi::OsStr>, credentials: Credentials) -> Command {
        let mut command = Command::new(program);
        let files = [self.namespace.net(), &self.ipc, &self.mounts];
        let files = files.map(|file| file.try_clone().expect("a descriptor can be copied"));
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(move || {
                for file in &files {
                    setns(file.as_fd(), CloneFlags::empty())?;
                }
                credentials.take()?;
                die_with_parent()
            })
        };
        command
    }

    /// Runs a closure on a thread that is inside: its sockets and its view of files are this host's.
    /// Processes that it starts die when it returns.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            // A thread shares its root and working directory with the others until it says otherwise.
            unshare(CloneFlags::CLONE_FS).expect("a thread can have its own root");
            for file in [self.namespace.net(), &self.ipc, &self.mounts] {
                setns(file.as_fd(), CloneFlags::empty()).expect("the host can be entered");
            }
            work()
        })
    }

    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path> + Send) -> String {
        let path = path.as_ref().to_owned();
        self.within(|| fs::read_to_string(&path))
            .unwrap_or_else(|error| panic!("{} cannot be read on {}: {error}", path.display(), self.name()))
    }

    /// Writes a file, and the folders that lead to it.
    #[track_caller]
    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = path.as_ref().to_owned();
        self.within(|| {
            fs::create_dir_all(path.parent().expect("a file has a folder"))?;
            fs::write(&path, text)
        })
        .unwrap_or_else(|error| panic!("{} cannot be written on {}: {error}", path.display(), self.name()));
    }
}

impl Host {
    /// What stands in the host's `/sys/fs/bpf`, without the two files that the kernel puts there itself
    /// (kernel/bpf/preload/bpf_preload_kern.c).
    pub fn pins(&self) -> Vec<String> {
        let own = ["progs.debug", "maps.debug"];
        let folder = self.within(|| fs::read_dir("/sys/fs/bpf").map(|f| f.flatten().collect::<Vec<_>>()));
        let entries = folder.expect("a bpf file system can be read").into_iter();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !own.contains(&name.as_str())).collect()
    }
}

/// Folders whose changes stay on the host. What they hold outside is visible until changed.
const OVERLAID: [&str; 2] = ["/etc", "/var"];

/// Folders that begin empty.
const EMPTY: [&str; 2] = ["/run", "/dev/shm"];

/// Folders that PostgreSQL's packages made: empty here, with their owner and mode.
const POSTGRES: [&str; 3] = ["/etc/postgresql", "/var/lib/postgresql", "/var/log/postgresql"];

fn private_files() -> std::io::Result<()> {
    const NONE: Option<&str> = None;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;

    // The layers live in memory. Overlays hold what they stand on, so the place itself can go at once.
    let scratch = tempfile::Builder::new().prefix("pgfw-lab-").tempdir()?;
    mount(
        Some("pgfw-lab"),
        scratch.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    for (number, lower) in OVERLAID.iter().enumerate() {
        let layer = |kind: &str| scratch.path().join(format!("{number}-{kind}"));
        let (upper, work) = (layer("upper"), layer("work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let options = format!(
            "lowerdir={lower},upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        mount(
            Some("pgfw-lab"),
            *lower,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
    }
    umount2(scratch.path(), MntFlags::MNT_DETACH)?;
    scratch.close()?;

    for folder in EMPTY {
        let mode = if folder == "/dev/shm" {
            "mode=1777"
        } else {
            "mode=755"
        };
        mount(
            Some("pgfw-lab"),
            folder,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(mode),
        )?;
    }
    fs::create_dir("/run/sshd")?;
    // A sysfs shows the network devices of the namespace that mounted it.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE)?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), NONE)?;

    if let Some(owner) = User::from_name("postgres")? {
        for folder in POSTGRES {
            if Path::new(folder).exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir(folder)?;
            nix::unistd::chown(folder, Some(owner.uid), Some(owner.gid))?;
        }
        fs::create_dir("/run/postgresql")?;
        fs::set_permissions("/run/postgresql", fs::Permissions::from_mode(0o2775))?;
        nix::unistd::chown("/run/postgresql", Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}
