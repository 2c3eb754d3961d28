//! What can go wrong between pgfw and the kernel.

use std::io;
use std::path::PathBuf;

use crate::failure::{Code, Explain};

/// An error of the datapath.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("{} does not lie on a bpf file system", .path.display())]
    NotBpffs { path: PathBuf },
    #[error("the bpf file system at {} is mounted read-only", .path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} is missing among this process's capabilities", .names)]
    Capability { names: String },
    #[error("this kernel ({release}) lacks {feature}, which came with Linux {since}")]
    Kernel {
        release: String,
        feature: &'static str,
        since: &'static str,
    },
    #[error("the pins under {} belong to another instance, on the ledger {}", .path.display(), .ledger.display())]
    OthersPins { path: PathBuf, ledger: PathBuf },
    #[error("another pgfw daemon tends the pins under {}", .path.display())]
    Held { path: PathBuf },
    #[error(
        "on this kernel the memory of tables counts as locked memory, of which this process may have {limit} bytes"
    )]
    LockedMemory { limit: u64 },
    #[error(
        "{interface} has an MTU of {mtu}, too large for a native XDP program on this kernel, which lacks multi-buffer \
         programs (Linux 5.18)"
    )]
    LargeMtu { interface: String, mtu: u32 },
    #[error("the pins under {} are damaged: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("the kernel refused the program {program}: {summary}")]
    Verifier {
        program: &'static str,
        summary: String,
        /// The verifier's whole log.
        log: String,
    },
    #[error(
        "both policy slots are in use: generation {confirmed} is confirmed and generation {pending} is pending"
    )]
    SlotsFull { confirmed: u64, pending: u64 },
    #[error("generation {generation} is in force and cannot be loaded again")]
    InForce { generation: u64 },
    #[error("generation {generation} is not loaded")]
    NotLoaded { generation: u64 },
    #[error("the table of networks has no room for {networks} more")]
    Full { networks: usize },
    #[error("too many EtherTypes are listed: {count}, and a policy holds {limit}")]
    EtherTypes { count: usize, limit: usize },
    #[error("{interface} carries the XDP program {program} of someone else")]
    Foreign {
        interface: String,
        program: ForeignProgram,
    },
    #[error("there is no interface with index {ifindex}")]
    NoInterface { ifindex: u32 },
    #[error("{interface} is the loopback interface, which pgfw never filters")]
    Loopback { interface: String },
    #[error("{interface} has no Ethernet header (link type {kind})")]
    LinkType { interface: String, kind: u16 },
    #[error("{interface} (MTU {mtu}) takes no native XDP program: {source}")]
    Native {
        interface: String,
        mtu: u32,
        source: io::Error,
    },
    #[error("{interface} (MTU {mtu}) takes no XDP program, neither native nor generic: {source}")]
    Attach {
        interface: String,
        mtu: u32,
        source: io::Error,
    },
    #[error("the frame has {length} bytes; the kernel can be asked about frames of at least 14")]
    FrameTooShort { length: usize },
    #[error("cannot {action}")]
    Call {
        action: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action}")]
    Aya {
        action: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DatapathError {
    /// Pins are gone, or are not what they were.
    pub fn is_damage(&self) -> bool {
        matches!(self, DatapathError::Damaged { path: _, what: _ })
    }
}

/// A program that is not pgfw's: its id always, its name where the process may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignProgram {
    pub id: u32,
    pub name: Option<String>,
}

impl std::fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

impl DatapathError {
    /// For `map_err`: a system call that failed.
    pub(super) fn call(action: impl Into<String>) -> impl FnOnce(io::Error) -> DatapathError {
        move |source| DatapathError::Call {
            action: action.into(),
            source,
        }
    }

    /// For `map_err`: an aya operation that failed.
    pub(super) fn aya<E>(action: impl Into<String>) -> impl FnOnce(E) -> DatapathError
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| DatapathError::Aya {
            action: action.into(),
            source: Box::new(source),
        }
    }
}

impl Explain for DatapathError {
    fn code(&self) -> Code {
        match self {
            DatapathError::NoInterface { .. } | DatapathError::NotLoaded { .. } => Code::NotFound,
            DatapathError::Loopback { .. }
            | DatapathError::LinkType { .. }
            | DatapathError::EtherTypes { .. }
            | DatapathError::FrameTooShort { .. } => Code::Invalid,
            DatapathError::NotBpffs { .. }
            | DatapathError::ReadOnly { .. }
            | DatapathError::Capability { .. }
            | DatapathError::Kernel { .. }
            | DatapathError::OthersPins { .. }
            | DatapathError::Held { .. }
            | DatapathError::LockedMemory { .. }
            | DatapathError::LargeMtu { .. }
            | DatapathError::Damaged { .. }
            | DatapathError::Verifier { .. }
            | DatapathError::SlotsFull { .. }
            | DatapathError::InForce { .. }
            | DatapathError::Full { .. }
            | DatapathError::Foreign { .. }
            | DatapathError::Native { .. }
            | DatapathError::Attach { .. }
            | DatapathError::Call { .. }
            | DatapathError::Aya { .. } => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            DatapathError::NotBpffs { path: _ } => {
                "Mount one with `mount -t bpf bpf /sys/fs/bpf`, or name a folder on one with --bpffs.".into()
            }
            DatapathError::ReadOnly { path } => {
                format!("Remount it with `mount -o remount,rw {}`.", path.display())
            }
            DatapathError::Capability { names: _ } => "Run as root, or give the process these capabilities.".into(),
            DatapathError::Kernel { since, .. } => format!("Boot Linux {since} or later."),
            DatapathError::OthersPins { .. } => {
                "Name that instance's --state-dir, or give this one its own --bpffs and --socket; `pgfw off` removes them, \
                 also where they are left of a ledger that was lost."
                    .into()
            }
            DatapathError::Held { .. } => {
                "A separate instance needs its own --config, --state-dir, --socket and --bpffs.".into()
            }
            DatapathError::LockedMemory { limit: _ } => {
                "Start it with `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit.".into()
            }
            DatapathError::LargeMtu { interface, mtu: _ } => {
                format!("Set firewall.attach to \"auto\" or \"generic\", or lower the MTU of {interface} below 3500.")
            }
            DatapathError::Damaged { .. } => {
                "Run `pgfw off`, which removes them, then start the daemon again; nothing is filtered in between.".into()
            }
            DatapathError::Verifier { .. } => {
                "Run again with PGFW_LOG=debug for the verifier's log and report it with the output of `uname -r`.".into()
            }
            DatapathError::SlotsFull { .. } => "Confirm or roll back the pending change first.".into(),
            DatapathError::InForce { .. } => "Load the policy under a new generation.".into(),
            DatapathError::NotLoaded { .. } => "Run `pgfw status` to see which generations are loaded.".into(),
            DatapathError::Full { .. } => {
                "Remove networks or merge them into larger ones; nothing else was changed.".into()
            }
            DatapathError::EtherTypes { limit, .. } => format!("List at most {limit} under firewall.link_layer."),
            DatapathError::Foreign { interface, .. } => {
                format!("Detach it with the tool that attached it, or leave {interface} out of firewall.interfaces.")
            }
            DatapathError::NoInterface { .. } => "Run `ip link` to see which interfaces there are.".into(),
            DatapathError::Loopback { .. } => "Leave it out of firewall.interfaces.".into(),
            DatapathError::LinkType { .. } => {
                "Leave it out of firewall.interfaces; only Ethernet devices are supported.".into()
            }
            DatapathError::Native { .. } => {
                "Set firewall.attach to \"auto\" or \"generic\", or lower the MTU or the number of channels.".into()
            }
            DatapathError::Attach { interface, .. } => format!("Leave {interface} out of firewall.interfaces."),
            DatapathError::FrameTooShort { .. } => "Give the whole frame, from its Ethernet header on.".into(),
            DatapathError::Call { .. } | DatapathError::Aya { .. } => {
                "Check that this runs as root; run `pgfw status --verbose` to see what stands.".into()
            }
        }
    }
}
