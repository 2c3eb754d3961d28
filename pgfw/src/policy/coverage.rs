//! Compiled coverage: for each service and prefix, the one answer that counts, and until when.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::BootTime;

/// A service's number in one policy: what the kernel's service table maps (protocol, port) to.
/// SSH is 1, clusters and other services follow in the order of the config. 0 is "no service".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub u16);

/// One row of the kernel's service table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// IP protocol number (6 TCP, 17 UDP …).
    pub protocol: u8,
    /// Host order; 0 for protocols without ports.
    pub port: u16,
}

/// Until when an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Never said: there is none.
    Absent,
    At(BootTime),
    Forever,
}

/// The effective answer of one prefix: denied until `deny`, after that allowed until `allow`, after that nothing.
///
/// A live deny beats every allow it overlaps, whatever the lengths; so two ends say everything that can happen
/// without anyone's help, the daemon dead or alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coverage {
    pub deny: Until,
    pub allow: Until,
    /// The allow comes from `0.0.0.0/0` or `::/0`: non-SYN segments must also find a socket.
    pub world: bool,
}

/// Key of the compiled table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoverageKey {
    pub service: ServiceId,
    pub net: IpNet,
}

/// Everything one policy generation puts into its own tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// (protocol, port) → service, and the service's name for people.
    pub services: BTreeMap<ServicePort, ServiceId>,
    pub names: BTreeMap<ServiceId, String>,
    pub coverage: BTreeMap<CoverageKey, Coverage>,
    pub settings: Settings,
}

/// Switches of one policy generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `mode = "audit"`: everything is decided and counted, nothing dropped.
    pub audit: bool,
    pub echo: crate::config::Echo,
    pub dhcp_client: bool,
    pub forwarded_track: bool,
    /// EtherTypes (host order) that pass besides ARP and IP; empty for none.
    pub ether_types: Vec<u16>,
    /// 802.2 STP (destination 01:80:c2:00:00:00, LLC 42 42 03) passes.
    pub stp: bool,
    /// TCP port of the gate.
    pub gate_port: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            audit: false,
            echo: crate::config::Echo::Drop,
            dhcp_client: true,
            forwarded_track: false,
            ether_types: Vec::new(),
            stp: true,
            gate_port: None,
        }
    }
}
