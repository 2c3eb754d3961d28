//! What goes over the socket. Times are RFC 3339 on the wall clock or seconds; addresses and networks are text.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::check_network;
use crate::failure::Failure;
use crate::policy::{Answer, Origin};

/// `POST /v1/entries`: open or close a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddEntry {
    pub answer: Answer,
    pub net: IpNet,
    /// `None`: every PostgreSQL cluster for an allow, every service for a deny.
    #[serde(default)]
    pub service: Option<String>,
    /// Seconds on the boot clock; `None`: until it is removed.
    #[serde(default)]
    pub seconds: Option<u64>,
    #[serde(default)]
    pub comment: Option<String>,
    /// Seconds until the change undoes itself unless confirmed; `None`: it counts at once and for good.
    #[serde(default)]
    pub confirm: Option<u64>,
    /// Override the lockout guard.
    #[serde(default)]
    pub force: bool,
}

impl AddEntry {
    /// What no entry may hold, whoever asks for it: the command line and anything else that speaks to the socket.
    ///
    /// # Errors
    /// A network with host bits or an IPv4-mapped one, no time at all, a comment that is no line of text.
    pub fn check(&self) -> Result<(), Failure> {
        let AddEntry {
            answer: _,
            net,
            service: _,
            seconds,
            comment,
            confirm,
            force: _,
        } = self;
        network(*net)?;
        confirmable(*confirm)?;
        if *seconds == Some(0) {
            return Err(Failure::invalid(
                "an entry that ends needs at least one second",
                "Write a time like 30m or 2h.",
            ));
        }
        if comment
            .as_ref()
            .is_some_and(|c| c.chars().count() > LONGEST_COMMENT || c.chars().any(char::is_control))
        {
            return Err(Failure::invalid(
                "the comment is no line of text",
                format!(
                    "Write at most {LONGEST_COMMENT} characters, without line breaks or control characters."
                ),
            ));
        }
        Ok(())
    }
}

/// `pgfw list` shows it in one line of a table.
const LONGEST_COMMENT: usize = 200;

fn network(net: IpNet) -> Result<(), Failure> {
    check_network(net).map_err(|(message, remedy)| Failure::invalid(message, remedy))
}

/// `POST /v1/entries/remove`: take back what `allow` or `deny` recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveEntry {
    pub net: IpNet,
    #[serde(default)]
    pub service: Option<String>,
    /// End established connections too.
    #[serde(default)]
    pub cut: bool,
    /// As in [`AddEntry`].
    #[serde(default)]
    pub confirm: Option<u64>,
    #[serde(default)]
    pub force: bool,
}

impl RemoveEntry {
    /// # Errors
    /// A network that no entry can have; something that cannot be undone, on trial.
    pub fn check(&self) -> Result<(), Failure> {
        network(self.net)?;
        confirmable(self.confirm)?;
        if self.cut && self.confirm.is_some() {
            return Err(Failure::invalid(
                "connections that are cut do not come back when the change undoes itself",
                "Say --cut or --confirm.",
            ));
        }
        Ok(())
    }
}

/// What a change did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changed {
    /// One line for each thing a person should know: what counts now, what still holds it open or closed.
    pub lines: Vec<String>,
    /// Connections that were ended.
    pub cut: usize,
}

/// `POST /v1/reload`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    #[serde(default)]
    pub dry_run: bool,
    /// Seconds until the change undoes itself unless confirmed; `None`: at once and for good.
    #[serde(default)]
    pub confirm: Option<u64>,
    #[serde(default)]
    pub force: bool,
}

impl Reload {
    /// # Errors
    /// No time in which to confirm.
    pub fn check(&self) -> Result<(), Failure> {
        confirmable(self.confirm)
    }
}

fn confirmable(seconds: Option<u64>) -> Result<(), Failure> {
    match seconds {
        Some(0) => Err(Failure::invalid(
            "a change that waits for its confirmation needs at least one second",
            "Write a time like 60s.",
        )),
        Some(_) | None => Ok(()),
    }
}

/// The answer to a reload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation now confirmed or pending; `None` for a dry run or where nothing differs.
    pub generation: Option<u64>,
    /// Until when it must be confirmed.
    pub deadline: Option<String>,
    /// Difference in effective access, one line each: `+ main 10.0.0.0/8`, `- …`.
    pub difference: Vec<String>,
    /// Whether anybody is let in no more.
    #[serde(default)]
    pub closes: bool,
    /// Whether PostgreSQL's rules are other ones by it.
    #[serde(default)]
    pub rules_change: bool,
    /// What could not be done: interfaces that carry no policy, and why.
    pub complaints: Vec<String>,
}

/// `POST /v1/off`: detach everything. An empty body means the daemon's own pins.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Off {
    /// The pin folder that is meant: another instance's daemon may answer at the socket.
    #[serde(default)]
    pub bpffs: Option<std::path::PathBuf>,
}

/// `POST /v1/check`: what the loaded program would do with a packet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The whole frame, from the Ethernet header on, as hex.
    pub frame: String,
}

/// The program's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checked {
    /// `pass` or `drop`.
    pub verdict: Verdict,
    /// The reason's one spelling.
    pub reason: String,
    /// What the reason means.
    pub meaning: String,
    pub service: Option<String>,
    /// What opens or closes the source there, most specific first.
    pub because: Vec<Because>,
    /// Which generation was asked.
    pub generation: u64,
}

/// Pass or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Drop,
}

/// One opening that covers an address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Because {
    pub net: IpNet,
    pub service: String,
    pub answer: Answer,
    pub origin: Origin,
    /// RFC 3339; `None`: no end.
    pub until: Option<String>,
    pub comment: Option<String>,
}

/// `GET /v1/list`: every network that something opens or closes, and what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List {
    pub networks: Vec<Network>,
}

/// One network at one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Network {
    pub service: String,
    pub net: IpNet,
    /// What counts there now.
    pub answer: Answer,
    pub because: Vec<Because>,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The first line: whether this host is protected, and how.
    pub summary: String,
    pub state: State,
    pub daemon: Option<DaemonState>,
    pub generation: Option<u64>,
    /// The policy that judges.
    #[serde(default)]
    pub policy: Option<Policy>,
    pub pending: Option<Pending>,
    pub interfaces: Vec<Interface>,
    pub services: Vec<ServiceState>,
    /// What was dropped, the most frequent reason first.
    #[serde(default)]
    pub drops: Vec<Drops>,
    /// What ends by itself, the next first; not all of it.
    #[serde(default)]
    pub ends: Vec<Ends>,
    /// What a person should look at, each with what to do.
    pub attention: Vec<String>,
    /// Whose connections the audit log does not have, as the config says it, each with what to do.
    #[serde(default)]
    pub unlogged: Vec<String>,
    pub networks_open: usize,
    /// What the prefixes of the policy that judges take.
    #[serde(default)]
    pub tables: Option<TableMemory>,
    pub compiler: String,
    /// What is done as this kernel can: what it is about → the choice. Empty while nothing is loaded.
    #[serde(default)]
    pub kernel: BTreeMap<String, String>,
}

/// Kernel memory of a table of prefixes, in bytes; one that is full is replaced by a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMemory {
    pub used: u64,
    pub all: u64,
}

/// Protected or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A confirmed policy drops what it should.
    Enforcing,
    /// Enforced, and some interface that matches carries no policy.
    Partly,
    /// On trial: undone at a deadline unless confirmed.
    Probation,
    /// Everything is decided and counted, nothing dropped.
    Audit,
    /// What was confirmed cannot be had: SSH passes, and nothing else.
    SshOnly,
    /// What was confirmed cannot be had, and goes on as the kernel has it.
    Kept,
    /// Attached, and everything passes.
    Open,
    /// Nothing is attached.
    Off,
}

/// The daemon that answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DaemonState {
    pub pid: u32,
    pub version: String,
}

/// A change waiting for `pgfw confirm`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    pub generation: u64,
    /// Seconds left.
    pub seconds: u64,
}

/// An interface with a policy, or one that should have one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// `native`, `generic`, or why there is none.
    pub mode: String,
    /// Why that mode, and what it costs there.
    #[serde(default)]
    pub about: Option<String>,
    pub covered: bool,
    pub passed: u64,
    pub dropped: u64,
    /// Packets by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// The policy that judges packets now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    pub generation: u64,
    /// SHA-256 of its pgfw.toml, hexadecimal; `None` where nobody knows it.
    pub hash: Option<String>,
    /// RFC 3339: when it began.
    pub since: Option<String>,
    pub confirmed: bool,
}

/// Drops of one reason, on all interfaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Drops {
    pub reason: String,
    pub meaning: String,
    pub packets: u64,
}

/// Something that ends by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ends {
    /// `allow 10.0.0.0/8 (main)`, `certificate of alice`.
    pub what: String,
    /// Seconds left.
    pub seconds: u64,
    /// RFC 3339.
    pub until: String,
}

/// Counters of one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceState {
    pub name: String,
    pub passed: u64,
    pub dropped: u64,
    /// Connections that go on until they end, and could not be made now.
    #[serde(default)]
    pub draining: usize,
}
