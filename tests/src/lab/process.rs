//! Children: started, waited for within a deadline, never left behind.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist, setgid, setgroups, setuid};

use super::wait::{PATIENCE, eventually};

/// What a finished program said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The output of a program that had to succeed.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert!(
            self.success(),
            "exit code {:?}\n{}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// Runs a command to its end; panics when that takes longer than a minute.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let mut child = Child::start(command);
    let code = child.wait(Duration::from_secs(60)).code();
    Outcome {
        code,
        stdout: child.stdout(),
        stderr: child.stderr(),
    }
}

/// Runs a command to success with `input` on its standard input.
#[track_caller]
pub(super) fn feed(command: &mut Command, input: &str) {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    file.write_all(input.as_bytes())
        .and_then(|()| file.rewind())
        .expect("a temporary file can be written");
    let outcome = run(command.stdin(file));
    assert!(
        outcome.success(),
        "`{command:?}` failed:\n{input}\n{}{}",
        outcome.stdout,
        outcome.stderr
    );
}

/// A running child. Killed and waited for when dropped; what it said is printed when its test fails.
#[derive(Debug)]
pub struct Child {
    program: String,
    child: std::process::Child,
    stdout: File,
    stderr: File,
    /// Without it a child of a failed test keeps its output for itself.
    talkative: bool,
}

impl Child {
    /// Starts a command with its output kept in files that nobody has to read while it runs.
    #[track_caller]
    pub fn start(command: &mut Command) -> Child {
        let file = || tempfile::tempfile().expect("a temporary file can be made");
        let copy = |file: &File| Stdio::from(file.try_clone().expect("a descriptor can be copied"));
        let (stdout, stderr) = (file(), file());
        let child = command.stdout(copy(&stdout)).stderr(copy(&stderr)).spawn();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = child.unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        Child {
            program,
            child,
            stdout,
            stderr,
            talkative: false,
        }
    }

    /// Prints what it said when the test that owns it fails.
    pub fn talkative(mut self) -> Child {
        self.talkative = true;
        self
    }

    /// The end of a pipe that leads to its standard input, where one was asked for.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe was asked for")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"))
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended already, which its owner sees by waiting.
        let _ = kill(self.pid(), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.try_wait().is_some()
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.program);
        eventually(&what, deadline, || self.try_wait())
    }

    /// What it wrote so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if self.talkative && std::thread::panicking() {
            eprintln!(
                "--- {} said:\n{}{}---",
                self.program,
                self.stdout(),
                self.stderr()
            );
        }
    }
}

/// Reads a file that another process appends to, without moving that process's offset.
fn text(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).expect("output fits in memory")];
    file.read_exact_at(&mut bytes, 0)
        .expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Stops a server in the way it likes, and kills it when that takes too long.
pub(super) fn stop(child: &mut Child, signal: Signal) -> ExitStatus {
    child.signal(signal);
    child.wait(PATIENCE)
}

/// Called in a child: it is killed when the thread that started it ends, however that ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Whom a child becomes, looked up before the fork.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    identity: Option<(Uid, Gid, Vec<Gid>)>,
}

impl Credentials {
    /// Stays what the test is.
    pub(super) fn root() -> Credentials {
        Credentials { identity: None }
    }

    pub(super) fn of(name: &str) -> Credentials {
        let user = User::from_name(name).expect("users can be looked up");
        let user = user.unwrap_or_else(|| panic!("this machine has no user {name}"));
        let c_name = std::ffi::CString::new(name).expect("a user's name has no NUL");
        let groups = getgrouplist(&c_name, user.gid).expect("a user's groups can be looked up");
        Credentials {
            identity: Some((user.uid, user.gid, groups)),
        }
    }

    /// Called in a child.
    pub(super) fn take(&self) -> io::Result<()> {
        if let Some((uid, gid, groups)) = &self.identity {
            setgroups(groups)?;
            setgid(*gid)?;
            setuid(*uid)?;
        }
        Ok(())
    }
}
