//! Where pgfw's files are: the defaults of an installation, or one instance's own for life in a namespace.

use std::path::{Path, PathBuf};

/// The places one instance of pgfw uses. Every one can be set by an option or its environment variable,
/// so that instances can live side by side in network namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `--config`, `PGFW_CONFIG`.
    pub config: PathBuf,
    /// `--socket`, `PGFW_SOCKET`.
    pub socket: PathBuf,
    /// `--state-dir`, `PGFW_STATE_DIR`: ledger, PostgreSQL generations, locks.
    pub state_dir: PathBuf,
    /// `--bpffs`, `PGFW_BPFFS`: the pin folder on a bpf file system, made when absent.
    pub bpffs: PathBuf,
}

pub const DEFAULT_CONFIG: &str = "/etc/pgfw/pgfw.toml";
pub const DEFAULT_SOCKET: &str = "/run/pgfw/pgfw.sock";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/pgfw";
pub const DEFAULT_AUDIT: &str = "/var/log/pgfw/audit.jsonl";
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/pgfw";

/// The user and group that the gate runs as: nothing is theirs but its socket.
pub const GATE_USER: &str = "pgfw-gate";

impl Default for Paths {
    fn default() -> Self {
        Paths {
            config: DEFAULT_CONFIG.into(),
            socket: DEFAULT_SOCKET.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            bpffs: DEFAULT_BPFFS.into(),
        }
    }
}

impl Paths {
    pub fn ledger(&self) -> PathBuf {
        self.state_dir.join("ledger.db")
    }
    /// The audit log, unless the config says otherwise: an instance with a state folder of its own has it there.
    pub fn audit(&self) -> PathBuf {
        if self.state_dir == Path::new(DEFAULT_STATE_DIR) {
            DEFAULT_AUDIT.into()
        } else {
            self.state_dir.join("audit.jsonl")
        }
    }
    /// How far the log of a cluster's server was read, and who was connected then.
    pub fn log_position(&self, name: &str) -> PathBuf {
        self.state_dir.join(format!("log-{name}.json"))
    }
    /// Held (flock) by whoever changes the ledger, the CRLs or the pinned tables; never while a server is waited for.
    pub fn change_lock(&self) -> PathBuf {
        self.state_dir.join("change.lock")
    }
    /// Held (flock) by whoever changes a cluster's files, also while its server is waited for. Taken before the change
    /// lock, never while that is held.
    pub fn cluster_lock(&self, name: &str) -> PathBuf {
        self.state_dir.join(format!("postgres-{name}.lock"))
    }
    /// Held (flock) by whoever rotates an authority. Taken before any other.
    pub fn rotation_lock(&self) -> PathBuf {
        self.state_dir.join("rotation.lock")
    }
    /// Held (flock) by the one daemon of this instance.
    pub fn daemon_lock(&self) -> PathBuf {
        self.state_dir.join("daemon.lock")
    }
    /// Held (flock) by the one daemon that answers at the socket.
    pub fn socket_lock(&self) -> PathBuf {
        let mut name = self.socket.as_os_str().to_owned();
        name.push(".lock");
        name.into()
    }
    /// Where the gate asks: beside the control socket, `pgfw-gate.sock` for `pgfw.sock`.
    pub fn gate_socket(&self) -> PathBuf {
        let mut name = self.socket.file_stem().unwrap_or_default().to_owned();
        name.push("-gate.sock");
        self.socket.with_file_name(name)
    }
    /// What could not be written to the ledger, beside the control socket: another file system than the ledger's.
    pub fn unrecorded(&self) -> PathBuf {
        self.socket.with_file_name("unrecorded.json")
    }
    /// [`Paths::bpffs`] as every process knows it.
    pub fn real_bpffs(&self) -> PathBuf {
        std::fs::canonicalize(&self.bpffs)
            .or_else(|_| std::path::absolute(&self.bpffs))
            .unwrap_or_else(|_| self.bpffs.clone())
    }
    /// `NAME` is the `[[postgres]]` entry's name.
    pub fn postgres(&self, name: &str) -> PathBuf {
        self.state_dir.join("postgres").join(name)
    }
    /// The marker beside the config, outside the ledger: something was confirmed on this host once, so a
    /// ledger that cannot be read is a loss, not a first start.
    pub fn confirmed_marker(&self) -> PathBuf {
        self.config.parent().unwrap_or(Path::new("/")).join(".confirmed")
    }
}
