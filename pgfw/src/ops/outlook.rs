//! What is about to end, by itself or because nobody may begin it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Engine;
use super::guard::admits;
use crate::api::Ends;
use crate::clock::Now;
use crate::config::Config;
use crate::failure::Failure;
use crate::host::sock_diag::{self, State};
use crate::ledger::types::EntryKind;
use crate::policy::coverage::{Compiled, ServiceId, ServicePort};
use crate::policy::{self, Origin};

/// How many of what ends are told.
const TOLD: usize = 5;

impl Engine {
    /// Connections to services that could not be made now: they drain. Nothing where the kernel does not list sockets.
    pub(super) fn draining(&self, compiled: &Compiled, now: &Now) -> BTreeMap<ServiceId, usize> {
        let mut count = BTreeMap::new();
        // What does not come in through an interface is nobody's business here.
        let own = own_addresses();
        for socket in sock_diag::dump().unwrap_or_default() {
            let port = ServicePort {
                protocol: 6,
                port: socket.local.port(),
            };
            let peer = socket.remote.ip().to_canonical();
            let is_open = matches!(
                socket.state,
                State::Established | State::CloseWait | State::FinWait1 | State::FinWait2
            );
            match compiled.services.get(&port) {
                Some(service)
                    if is_open && !own.contains(&peer) && !admits(compiled, *service, peer, now.boot) =>
                {
                    *count.entry(*service).or_default() += 1;
                }
                Some(_) | None => {}
            }
        }
        count
    }

    /// Entries and certificates that open something, the next to end first.
    pub(super) fn ends(&self, config: Option<&Config>, now: &Now) -> Result<Vec<Ends>, Failure> {
        let facts = self.facts()?;
        let mut ends: BTreeSet<(i64, String)> = BTreeSet::new();
        let entries = facts.entries.iter().filter(|e| !e.ended(now, &self.boot_id));
        for entry in entries {
            if let Some(end) = &entry.end {
                let kind = match entry.kind {
                    EntryKind::Allow => "allow",
                    EntryKind::Deny => "deny",
                };
                let service = entry
                    .service
                    .iter()
                    .map(|s| format!(" ({s})"))
                    .collect::<String>();
                // On the boot clock it does not move when the wall clock does.
                let left = end.boot_end(now, &self.boot_id).0.saturating_sub(now.boot.0);
                let wall = now.wall().0 + i64::try_from(left.div_ceil(1_000_000_000)).unwrap_or(0);
                ends.insert((wall, format!("{kind} {}{service}", entry.net)));
            }
        }
        for opening in config.map_or_else(|| Ok(Vec::new()), |config| self.openings(config, now))? {
            if let policy::Opening {
                origin: Origin::Identity(name),
                end: Some(end),
                ..
            } = opening
            {
                ends.insert((end.0, format!("certificate of {name}")));
            }
        }
        let told = ends.into_iter().take(TOLD);
        Ok(told
            .map(|(wall, what)| Ends {
                what,
                seconds: u64::try_from(wall - now.wall().0).unwrap_or(0),
                until: crate::clock::WallTime(wall).rfc3339(),
            })
            .collect())
    }
}

/// Every address of this host.
pub(super) fn own_addresses() -> BTreeSet<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter_map(|interface| address(&interface)).collect()
}

/// An address of an interface of this host.
pub(super) fn address(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}
