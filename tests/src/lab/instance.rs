//! pgfw itself: the binary under test on a host, and its daemon.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use super::process::{self, Child, Outcome, run};
use super::{Host, PATIENCE, eventually};

/// The binary that `cargo xtask test` built, or the one beside the running test.
pub fn product() -> PathBuf {
    if let Some(path) = std::env::var_os("PGFW_BIN") {
        return path.into();
    }
    // target/debug/deps/test-123 or target/debug/demo
    let own = std::env::current_exe().expect("a program knows its path");
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("pgfw"))
        .find(|path| path.is_file());
    beside.expect("there is no pgfw beside this test: run `cargo build --package pgfw`, or set PGFW_BIN")
}

/// pgfw on a host, at the paths of an installation unless an environment variable says otherwise.
#[derive(Debug)]
pub struct Instance<'host> {
    host: &'host Host,
    environment: Vec<(String, String)>,
}

impl<'host> Instance<'host> {
    pub const CONFIG: &'static str = "/etc/pgfw/pgfw.toml";

    pub fn new(host: &'host Host) -> Instance<'host> {
        Instance {
            host,
            environment: Vec::new(),
        }
    }

    pub fn host(&self) -> &'host Host {
        self.host
    }

    /// Sets `PGFW_STATE_DIR` and the like, for a second instance on one host.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Writes pgfw.toml.
    #[track_caller]
    pub fn configure(&self, text: &str) {
        let set = self.environment.iter().find(|(key, _)| key == "PGFW_CONFIG");
        self.host.write(set.map_or(Self::CONFIG, |(_, path)| path), text);
    }

    /// A pgfw command as root, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.prepare(self.host.command(product()), arguments)
    }

    /// The same as another user of the machine, who may not reach the folder in which the binary was built.
    pub fn command_as_user(&self, user: &str, arguments: &[&str]) -> Command {
        const FOR_ALL: &str = "/run/pgfw-for-all";
        self.host.within(|| {
            if !std::path::Path::new(FOR_ALL).exists() {
                // Not copied: a process that another test forks meanwhile would hold it open for writing (ETXTBSY).
                std::fs::File::create(FOR_ALL).expect("a file can be made in /run");
                mount(
                    Some(&product()),
                    FOR_ALL,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .expect("the binary can be mounted");
            }
        });
        self.prepare(self.host.command_as_user(FOR_ALL, user), arguments)
    }

    fn prepare(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).current_dir("/").env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8");
        command
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs a pgfw command to its end.
    #[track_caller]
    pub fn pgfw(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments))
    }

    /// Runs a pgfw command that has to succeed and gives what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.pgfw(arguments);
        assert!(
            outcome.success(),
            "`pgfw {}` gave {:?}:\n{}{}",
            arguments.join(" "),
            outcome.code,
            outcome.stdout,
            outcome.stderr
        );
        outcome.stdout
    }

    /// `pgfw status --json`, with the daemon or without it.
    #[track_caller]
    pub fn status(&self) -> Status {
        let outcome = self.pgfw(&["status", "--json"]);
        let json = serde_json::from_str(&outcome.stdout);
        Status(json.unwrap_or_else(|error| panic!("status gave {error}: {outcome:?}")))
    }

    /// Starts the daemon and confirms its first policy: what an installation looks like from then on.
    #[track_caller]
    pub fn enforce(&self) -> Daemon {
        let daemon = self.start();
        self.ok(&["confirm"]);
        daemon
    }

    /// As [`Instance::enforce`], for one that has run before: nothing of that is left.
    #[track_caller]
    pub fn enforce_again(&self) -> Daemon {
        self.ok(&["off"]);
        self.host.within(|| {
            let _ = std::fs::remove_dir_all("/var/lib/pgfw");
            let _ = std::fs::remove_file("/etc/pgfw/.confirmed");
        });
        self.enforce()
    }

    /// Starts the daemon as systemd would and waits until it says that it is ready.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    /// The same with options of `pgfw run`.
    #[track_caller]
    pub fn start_with(&self, options: &[&str]) -> Daemon {
        self.start_command(self.command(&["run"]).args(options))
    }

    /// `pgfw` with the capabilities that the installed unit leaves it, and no way to get others.
    pub fn command_as_the_unit(&self, arguments: &[&str]) -> Command {
        let unit = include_str!("../../../config/systemd/pgfw.service");
        let left = unit
            .lines()
            .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .expect("the unit bounds the daemon's capabilities");
        let left: Vec<String> = left
            .split(' ')
            .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let mut command = self.host.command("setpriv");
        command.args(["--no-new-privs", &format!("--bounding-set=-all{}", left.concat())]);
        command.arg(product());
        self.prepare(command, arguments)
    }

    /// Starts the daemon from a command that ends in `pgfw run`.
    #[track_caller]
    pub fn start_command(&self, command: &mut Command) -> Daemon {
        let started = self.try_start(command);
        started.unwrap_or_else(|ended| panic!("pgfw run ended:\n{}{}", ended.stdout, ended.stderr))
    }

    /// The same for one that may end before it is ready.
    ///
    /// # Errors
    /// What it said until it ended.
    #[track_caller]
    pub fn try_start(&self, command: &mut Command) -> Result<Daemon, Outcome> {
        let Daemon { mut child, notices } = self.start_unready(command);
        let is_ready = eventually("pgfw run is ready", PATIENCE, || {
            let ended = child.has_ended();
            let mut notice = [0; 4096];
            let Ok(length) = notices.recv(&mut notice) else {
                return ended.then_some(false);
            };
            let text = String::from_utf8_lossy(&notice[..length]).into_owned();
            text.lines().any(|line| line == "READY=1").then_some(true)
        });
        if is_ready {
            return Ok(Daemon { child, notices });
        }
        Err(Outcome {
            code: child.wait(PATIENCE).code(),
            stdout: child.stdout(),
            stderr: child.stderr(),
        })
    }

    /// The same without waiting for anything.
    #[track_caller]
    pub fn start_unready(&self, command: &mut Command) -> Daemon {
        let socket = format!("/run/notify-{}", unique());
        let notices = self
            .host
            .within(|| UnixDatagram::bind(&socket))
            .expect("a notify socket can be made");
        notices
            .set_nonblocking(true)
            .expect("a socket can be told not to wait");
        Daemon {
            child: Child::start(command.env("NOTIFY_SOCKET", &socket)).talkative(),
            notices,
        }
    }
}

/// A running `pgfw run`. Killed when dropped, which leaves its host protected, as a crash does.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    notices: UnixDatagram,
}

impl Daemon {
    pub fn pid(&self) -> i32 {
        self.child.pid().as_raw()
    }

    /// kill -9.
    pub fn kill(mut self) {
        process::stop(&mut self.child, Signal::SIGKILL);
    }

    /// What `systemctl stop` does.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        process::stop(&mut self.child, Signal::SIGTERM)
    }

    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        self.child.wait(deadline)
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.has_ended()
    }

    pub fn log(&self) -> String {
        self.child.stderr()
    }

    /// The next message to systemd that has come in, such as `STOPPING=1`.
    pub fn notice(&self) -> Option<String> {
        let mut notice = [0; 4096];
        let length = self.notices.recv(&mut notice).ok()?;
        Some(String::from_utf8_lossy(&notice[..length]).into_owned())
    }
}

/// What `pgfw status --json` said.
#[derive(Debug)]
pub struct Status(pub serde_json::Value);

impl Status {
    pub fn summary(&self) -> &str {
        self.0["summary"].as_str().unwrap_or_default()
    }

    /// `enforcing`, `probation`, `audit`, `open` or `off`.
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }

    /// How many packets had this reason, on all interfaces.
    pub fn packets(&self, reason: &str) -> u64 {
        let interfaces = self.0["interfaces"].as_array().into_iter().flatten();
        interfaces.filter_map(|i| i["reasons"][reason].as_u64()).sum()
    }

    /// What it says needs attention, in lines.
    pub fn attention(&self) -> String {
        let lines = self.0["attention"].as_array().into_iter().flatten();
        lines.filter_map(|l| l.as_str()).collect::<Vec<_>>().join("\n")
    }
}

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
