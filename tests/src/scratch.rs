//! A PostgreSQL server of a test's own, in a network namespace of its own; both go with it.

pub mod managed;
pub mod pki;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

/// The server and everything it needs. Listens on a Unix socket and on every address of its namespace.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    server: Option<Child>,
    programs: PathBuf,
}

/// The namespace is the test's own, so the port needs no luck.
pub const PORT: u16 = 5432;

impl Scratch {
    /// Moves this thread into a new network namespace, makes a cluster of the oldest major, and starts it.
    pub fn start() -> Scratch {
        servers()[0].start()
    }

    /// The same, not started.
    pub fn stopped() -> Scratch {
        servers()[0].stopped()
    }

    /// The same of the programs in that folder.
    pub fn of(programs: &Path) -> Scratch {
        // Threads and processes that this thread makes from here on live there too.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace takes root");
        ip(&["link", "set", "lo", "up"]);
        let directory = tempfile::Builder::new()
            .prefix("pgfw-scratch-")
            .tempdir()
            .expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        let scratch = Scratch {
            directory,
            server: None,
            programs: programs.to_owned(),
        };
        for path in [scratch.data(), scratch.sockets()] {
            fs::create_dir(&path).expect("a directory");
            chown(
                &path,
                Some(postgres().uid.as_raw()),
                Some(postgres().gid.as_raw()),
            )
            .expect("chown");
        }
        let made = as_postgres(programs.join("initdb"))
            .args(["--no-sync", "--auth-local=peer", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(scratch.data())
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let sockets = scratch.sockets();
        scratch.configure(&format!(
            "fsync = off\nlisten_addresses = '*'\nport = {PORT}\nunix_socket_directories = '{}'\n\
             max_connections = 20\nshared_buffers = 16MB\n",
            sockets.display()
        ));
        scratch
    }

    /// Starts the server and waits until it is ready.
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    /// The same with settings on its command line, `name=value`.
    pub fn run_with(&mut self, settings: &[&str]) {
        let log = File::create(self.directory.path().join("log")).expect("a log");
        let server = as_postgres(self.programs.join("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres");
        self.server = Some(server);
        until("the server is ready", || {
            let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            pid_file
                .lines()
                .nth(7)
                .is_some_and(|status| status.trim() == "ready")
        });
    }

    /// From its next start on the server is a copy of `postgres` with no other program beside it.
    pub fn leave_initdb_behind(&mut self) {
        let elsewhere = self.place("elsewhere");
        fs::create_dir_all(elsewhere.join("bin")).expect("a directory");
        for part in ["lib", "share"] {
            // Where it finds its own files, unless it was built to look for them at fixed places.
            let there = self.programs.join("..").join(part);
            std::os::unix::fs::symlink(there, elsewhere.join(part)).expect("a link");
        }
        let programs = elsewhere.join("bin");
        fs::copy(self.programs.join("postgres"), programs.join("postgres")).expect("a copy");
        self.programs = programs;
    }

    /// Stops the server (fast shutdown) and waits until it is gone.
    pub fn stop(&mut self) {
        self.end(Signal::SIGINT);
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
    pub fn sockets(&self) -> PathBuf {
        self.directory.path().join("run")
    }
    /// A place for pgfw's state and the like; passable for everyone.
    pub fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Adds lines to postgresql.conf.
    pub fn configure(&self, lines: &str) {
        let conf = self.data().join("postgresql.conf");
        let mut file = OpenOptions::new()
            .append(true)
            .open(conf)
            .expect("postgresql.conf");
        file.write_all(lines.as_bytes()).expect("postgresql.conf");
    }

    /// psql over the Unix socket as the superuser; its output, unaligned, without headers.
    pub fn sql(&self, text: &str) -> String {
        let output = as_postgres("/usr/bin/psql")
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                "postgres",
                "-p",
                "5432",
                "-h",
            ])
            .arg(self.sockets())
            .args(["-c", text])
            .output()
            .expect("psql");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            let pid = Pid::from_raw(i32::try_from(server.id()).expect("a process id"));
            kill(pid, signal).expect("our own child");
            server.wait().expect("our own child");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
        self.end(Signal::SIGQUIT);
    }
}

/// A server's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub major: u16,
    /// `postgres` and `initdb` are in it.
    pub programs: PathBuf,
}

impl Installed {
    /// As [`Scratch::start`].
    pub fn start(&self) -> Scratch {
        let mut scratch = self.stopped();
        scratch.run();
        scratch
    }

    /// As [`Scratch::stopped`].
    pub fn stopped(&self) -> Scratch {
        Scratch::of(&self.programs)
    }
}

/// The majors that pgfw knows.
pub const MAJORS: [u16; 4] = [15, 16, 17, 18];

/// A server of each major, the oldest first: Debian's, else what `cargo xtask setup` has put into target/majors, or
/// into the folder that `PGFW_SERVERS` names (`16/bin`, `17/bin` …).
pub fn servers() -> Vec<Installed> {
    let own = std::env::var_os("PGFW_SERVERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/majors"),
        PathBuf::from,
    );
    let installed = |major: u16| {
        let folders = [Path::new("/usr/lib/postgresql"), own.as_path()];
        let all = folders.map(|folder| folder.join(major.to_string()).join("bin"));
        let found = all.into_iter().find(|programs| programs.join("initdb").exists());
        let programs = found.unwrap_or_else(|| {
            panic!(
                "there is no PostgreSQL {major}, neither Debian's nor in {}: run `cargo xtask setup`",
                own.display()
            )
        });
        let programs = fs::canonicalize(programs).expect("it exists");
        Installed { major, programs }
    };
    MAJORS.map(installed).to_vec()
}

/// Runs a test with a server of each major in turn; a failure names it.
#[track_caller]
pub fn on_each_major(test: impl Fn(&Installed) + Sync) {
    for installed in servers() {
        // Namespaces are a thread's.
        let done = std::thread::scope(|scope| scope.spawn(|| test(&installed)).join());
        if let Err(panic) = done {
            eprintln!("that was with PostgreSQL {}", installed.major);
            std::panic::resume_unwind(panic);
        }
    }
}

/// What a test draws from: `PGFW_SEED`, by which a failure is repeated, or the time.
pub fn seed() -> u64 {
    let given = std::env::var("PGFW_SEED").ok();
    given.map_or_else(
        || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.expect("after 1970").as_nanos() as u64
        },
        |seed| seed.parse().expect("PGFW_SEED is a number"),
    )
}

/// Gives this namespace an address to connect from: an address of its own is its own source.
pub fn add_address(address: &str) {
    ip(&["address", "add", address, "dev", "lo"]);
}

/// Waits for an event, as long as a loaded machine may need.
#[track_caller]
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    crate::lab::eventually(what, crate::lab::PATIENCE, || happened().then_some(()));
}

/// The user that runs the server.
pub fn postgres() -> User {
    User::from_name("postgres")
        .expect("users")
        .expect("a user named postgres")
}

/// A command that runs as that user.
pub fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let user = postgres();
    let mut command = Command::new(program);
    command
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir("/")
        .env_clear()
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Writes a file that everyone may read.
pub fn write(path: &Path, content: &str) {
    fs::write(path, content).expect("a file");
    fs::set_permissions(path, Permissions::from_mode(0o644)).expect("chmod");
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).status().expect("iproute2");
    assert!(done.success(), "ip {arguments:?}");
}
