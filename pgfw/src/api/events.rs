//! What is said about single packets: those that were dropped, and those of a capture that are asked about.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Verdict;

/// The query of `GET /v1/events`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsAfter {
    /// Only events with a greater number; 0: all that are remembered.
    #[serde(default)]
    pub after: u64,
    /// Seconds to wait where there is none yet; at most [`LONGEST_WAIT`].
    #[serde(default)]
    pub wait: u64,
}

/// Seconds: well within the patience of a client.
pub const LONGEST_WAIT: u64 = 30;

/// `GET /v1/events?after=N&wait=SECONDS`: a sample of what was dropped, the oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Events {
    pub events: Vec<Event>,
    /// What to ask for next as `after`.
    pub next: u64,
    pub lost: LostEvents,
}

/// Drops that are counted and not told, since the filter was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvents {
    /// There were too many a second.
    pub limited: u64,
    /// The daemon did not keep up, or did not run.
    pub full: u64,
}

/// One packet that was dropped, or would have been.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 on while the daemon runs.
    pub number: u64,
    /// RFC 3339, to the millisecond.
    pub time: String,
    pub interface: String,
    /// The reason's one spelling.
    pub reason: String,
    /// `pass` under `mode = "audit"`.
    pub verdict: Verdict,
    #[serde(flatten)]
    pub flow: Flow,
    /// Of the whole frame.
    pub length: u32,
    /// Its first bytes as hex, from the Ethernet header on.
    pub head: String,
}

/// The ends of a packet, as far as they can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub protocol: Option<String>,
    pub source: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination: Option<IpAddr>,
    pub destination_port: Option<u16>,
}

/// `POST /v1/check/frames`: many packets at once, for a short answer about each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckFrames {
    /// Whole frames as hex.
    pub frames: Vec<String>,
}

/// The program's answers, one for each frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckedFrames {
    pub generation: u64,
    pub answers: Vec<ShortAnswer>,
}

/// The program's answer about one frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShortAnswer {
    pub verdict: Verdict,
    pub reason: String,
    pub service: Option<String>,
}
