//! The first process of a guest (`cargo xtask vm`): mounts, loads modules, runs the plan, says what happened, switches off.
//!
//! The plan is a file of lines that xtask writes, `module FILE`, `env KEY VALUE`, `test NAME FILE ARGUMENTS…`. What the
//! tests print goes to the second serial line; the first is the kernel's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PLAN: &str = "/plan";
const REPORT: &str = "/dev/ttyS1";

/// A test binary that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(900);

/// For the pipes of a test binary that has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often the guest says that it is alive.
const PULSE: Duration = Duration::from_secs(5);

fn main() {
    if std::process::id() != 1 {
        eprintln!("This is the first process of a guest: `cargo xtask vm` starts it.");
        std::process::exit(2);
    }
    if let Err(error) = run() {
        // Whatever is there to be written to; the console at least.
        let _ = say(&format!("guest: broken: {error}"));
        eprintln!("guest: broken: {error}");
    }
    let _ = say("guest: done");
    nix::unistd::sync();
    // What the line still holds is lost when the machine goes.
    if let Ok(report) = OpenOptions::new().write(true).open(REPORT) {
        let _ = nix::sys::termios::tcdrain(&report);
    }
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("guest: cannot switch off: {error}");
}

fn run() -> io::Result<()> {
    mounts()?;
    std::thread::spawn(|| {
        // Ends with the machine.
        let (_keep, never) = mpsc::channel::<()>();
        while never.recv_timeout(PULSE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = say("guest: alive");
        }
    });
    let plan = fs::read_to_string(PLAN)?;
    let mut environment = Vec::new();
    for line in plan.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("module"), Some(file)) => {
                if let Err(error) = load(Path::new(file)) {
                    say(&format!("guest: module {file}: {error}"))?;
                }
            }
            (Some("env"), Some(key)) => environment.push((key, words.collect::<Vec<_>>().join(" "))),
            (Some("test"), Some(name)) => {
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words).envs(environment.iter().cloned());
                say(&format!("guest: begins {name}"))?;
                let end = test(&mut command)?;
                say(&format!("guest: ends {name} {end}"))?;
            }
            (_, _) => say(&format!("guest: broken: the plan says {line:?}"))?,
        }
    }
    Ok(())
}

fn mounts() -> io::Result<()> {
    for (kind, place, options) in [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("devtmpfs", "/dev", None),
        ("tmpfs", "/run", Some("mode=755")),
        ("tmpfs", "/tmp", Some("mode=1777")),
        // Layers of an overlay may not lie on the first root.
        ("tmpfs", "/var", Some("mode=755")),
        ("bpf", "/sys/fs/bpf", None),
    ] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
            .map_err(|error| io::Error::other(format!("{kind} cannot be mounted at {place}: {error}")))?;
    }
    fs::create_dir_all("/dev/shm")?;
    fs::create_dir_all("/var/lib")?;
    Ok(())
}

/// finit_module(2).
fn load(file: &Path) -> io::Result<()> {
    let module = File::open(file)?;
    let parameters = c"";
    match nix::kmod::finit_module(&module, parameters, nix::kmod::ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Runs one test binary; says how it ended.
fn test(command: &mut Command) -> io::Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (done, all_said) = mpsc::channel();
    relay(child.stdout.take(), done.clone());
    relay(child.stderr.take(), done);
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Its end is waited for below, and reported as what it is.
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let status = child.wait()?;
    let _ = ended.send(());
    // What it said last may be on its way still. Should something that it left behind hold a pipe open, the rest is not
    // waited for.
    for _pipe in 0..2 {
        let _ = all_said.recv_timeout(LAST_WORDS);
    }
    Ok(status.to_string())
}

/// Says on, line by line, what comes out of a pipe. libtest begins a line when a test begins and ends it when that ends:
/// nothing else may come in between.
fn relay(pipe: Option<impl Read + Send + 'static>, done: mpsc::Sender<()>) {
    let Some(pipe) = pipe else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let _ = say(&String::from_utf8_lossy(&line));
        }
        let _ = done.send(());
    });
}

fn say(line: &str) -> io::Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    OpenOptions::new()
        .write(true)
        .open(REPORT)?
        .write_all(format!("{line}\n").as_bytes())
}
