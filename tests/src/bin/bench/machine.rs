//! The machine that measures: what it is, how a thread is held on one core, which programs of others it has.

use std::path::PathBuf;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// What a figure means nothing without.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) command: String,
}

impl Machine {
    pub(crate) fn this(command: String) -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(": ")?.1.trim().to_owned())
        };
        let model = field("model name").unwrap_or_else(|| "unknown processor".into());
        let numbers = match (field("cpu family"), field("model\t")) {
            (Some(family), Some(model)) => format!(" (family {family}, model {model})"),
            _ => String::new(),
        };
        Machine {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model + &numbers,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            command,
        }
    }

    pub(crate) fn json(&self) -> Value {
        let Machine {
            date,
            kernel,
            processor,
            cores,
            command,
        } = self;
        json!({ "date": date, "kernel": kernel, "processor": processor, "cores": cores, "command": command })
    }

    pub(crate) fn sentence(&self) -> String {
        let Machine {
            date,
            kernel,
            processor,
            cores,
            command,
        } = self;
        format!("{date}, Linux {kernel}, {cores} cores of {processor}, `{command}`.")
    }
}

/// Holds the calling thread, and whatever it starts meanwhile, on one core; dropped, it may run anywhere it could before.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn to(core: usize) -> Pinned {
        let own = Pid::from_raw(0);
        let before = sched_getaffinity(own).expect("a thread's cores can be read");
        let mut one = CpuSet::new();
        one.set(core).expect("a core's number");
        sched_setaffinity(own, &one).unwrap_or_else(|error| panic!("core {core} cannot be had: {error}"));
        Pinned { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// A program of others that pgfw is compared with. One that is missing ends the run: a blank in a comparison says less
/// than nothing.
pub(crate) fn peer(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        eprintln!("{program} is missing: `cargo xtask setup` installs the package {package}.");
        std::process::exit(1)
    })
}
