//! What an apply says that it did.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::conf::Override;

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub cluster: String,
    pub generation: u32,
    /// The files were already these.
    pub unchanged: bool,
    /// When it undoes itself unless it is confirmed (RFC 3339).
    pub undoes_itself: Option<String>,
    /// In order.
    pub steps: Vec<Step>,
    /// Settings that count from the server's next restart.
    pub pending_restart: Vec<String>,
    /// What restarts it.
    pub restart: String,
    /// Settings of ours that something else overrides.
    pub overridden: Vec<Override>,
    /// Roles that the configuration names and the server does not have.
    pub missing_roles: Vec<String>,
    /// A statement for each of them.
    pub create_roles: Vec<String>,
    /// What could not be found out or written down; what was applied is in force all the same.
    pub notes: Vec<String>,
}

/// One step of an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// A new generation is on disk.
    Written { directory: PathBuf },
    /// A scratch server answered by these rules as the configuration says, to so many attempts that get in, are refused,
    /// and for which there was no time.
    RulesTried {
        admitted: usize,
        refused: usize,
        left_out: usize,
    },
    /// The live names lead to it.
    Switched,
    /// The server was told.
    Reloaded { pid: i32 },
    /// The server answers by these rules.
    RulesProven { marker: String },
    /// The server serves this certificate.
    TlsProven { serial: String },
    /// The server listens on no TCP address, so TLS cannot be looked at.
    NoTcp,
    /// The server is down: the files count at its next start.
    AtNextStart,
    /// `manage = "render"`: nothing of the server was touched.
    RenderedOnly,
}
