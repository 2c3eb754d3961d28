//! The addresses that a server listens on, against those that pgfw.toml says, and whom they are reached from.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::Path;

use pgfw_hba::{Range, Ranges};

use super::{Class, Verified};
use crate::config::{Cluster, Manage};
use crate::failure::Failure;
use crate::host::sock_diag::{self, State};
use crate::ops::outlook::own_addresses;
use crate::postgres::Server;

/// The inodes of the sockets that a process holds (proc_pid_fd(5)).
fn descriptors(pid: i32) -> std::io::Result<BTreeSet<u32>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let sockets = links.filter_map(|link| {
        let target = fs::read_link(link.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    });
    Ok(sockets.collect())
}

/// Where a server listens, or would at its next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// It runs, and these are its sockets.
    running: bool,
}

/// The host, as far as it matters to who can listen.
#[derive(Debug)]
struct Host {
    own: BTreeSet<IpAddr>,
    /// By family (v4, v6): addresses that are not there can be listened on (ip-sysctl: `ip_nonlocal_bind`).
    nonlocal: (bool, bool),
    has_v6: bool,
}

impl Listening {
    /// Compares, and gives what there is. `None`: it cannot be known.
    ///
    /// # Errors
    /// Settings that the server's program does not accept.
    pub(super) fn look(
        server: &Server,
        cluster: &Cluster,
        verified: &mut Verified,
    ) -> Result<Option<Listening>, Failure> {
        let host = Host::here();
        let setting = server.listen_addresses()?;
        let next = Listening {
            addresses: setting
                .iter()
                .flat_map(|entry| host.meant(entry))
                .filter(|address| host.can_bind(*address))
                .collect(),
            running: false,
        };
        if next.addresses.is_empty() && !setting.is_empty() {
            verified.find(
                Class::UnfitForRestart,
                format!(
                    "listen_addresses comes to {}, and this host has none of these addresses: the server would not start.",
                    setting.join(", ")
                ),
            );
        }
        let said = (cluster.manage != Manage::None).then_some(cluster.listen_addresses.as_slice());
        let Some(running) = server.running() else {
            if let Some(said) = said {
                next.compare(said, &host, verified);
            }
            return Ok(Some(next));
        };
        let Ok(sockets) = sock_diag::dump() else {
            verified
                .notes
                .push("on which addresses the server listens cannot be known (sock_diag)".to_owned());
            return Ok(None);
        };
        // Another program of the same user's may listen at that port of another address (Debian's pgbouncer runs as
        // postgres). Where the process does not let us see its descriptors, port and user have to do.
        let held = server.owner.act(|| descriptors(running.pid)).ok();
        let is_its = |socket: &&sock_diag::Socket| {
            socket.state == State::Listen
                && socket.local.port() == running.port
                && socket.uid == server.owner.uid
                && held.as_ref().is_none_or(|held| held.contains(&socket.inode))
        };
        let now = Listening {
            addresses: sockets.iter().filter(is_its).map(|s| s.local.ip()).collect(),
            running: true,
        };
        if let Some(said) = said {
            now.compare(said, &host, verified);
        }
        Ok(Some(now))
    }

    fn compare(&self, said: &[String], host: &Host, verified: &mut Verified) {
        let verb = if self.running { "listens" } else { "would listen" };
        let negated = if self.running {
            "does not listen"
        } else {
            "would not listen"
        };
        let mut named = BTreeSet::new();
        for entry in said {
            let meant = host.meant(entry);
            named.extend(meant.iter().copied());
            // Of a name one address is enough: localhost has two, and a host may lack one.
            let listened = match entry.as_str() {
                "*" => meant.iter().all(|address| self.covers(*address)),
                _ => meant.iter().any(|address| self.covers(*address)),
            };
            if listened {
                continue;
            }
            let why = match meant.as_slice() {
                [] => "it has no address",
                all if !all.iter().any(|address| host.can_bind(*address)) => {
                    "this host has no such address now, and a server takes it up at its next start only"
                }
                _ => "a change counts from the server's next restart on",
            };
            verified.find(
                Class::Listening,
                format!("the server {negated} on {entry}, which pgfw.toml says; {why}."),
            );
        }
        let wide = |address: &IpAddr| {
            named
                .iter()
                .any(|n| n.is_unspecified() && n.is_ipv4() == address.is_ipv4())
        };
        for address in &self.addresses {
            if !named.contains(address) && !wide(address) {
                verified.find(
                    Class::Listening,
                    format!(
                        "the server {verb} on {}, and listen_addresses of pgfw.toml is {}.",
                        shown(*address),
                        match said {
                            [] => "empty".to_owned(),
                            some => some.join(", "),
                        }
                    ),
                );
            }
        }
    }

    fn covers(&self, address: IpAddr) -> bool {
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.addresses.contains(&address) || self.addresses.contains(&any)
    }

    /// The sources from which somebody who connects to one of these addresses comes. PostgreSQL's IPv6 sockets take IPv6
    /// alone (pqcomm.c: IPV6_V6ONLY). A program of this host that connects to 127.0.0.1 comes from there, and one that
    /// connects to another of the host's addresses does not, unless it binds itself to it first.
    pub(super) fn reached_from(&self) -> Ranges {
        let loopback_v4 = Range {
            first: Ipv4Addr::new(127, 0, 0, 0).into(),
            last: Ipv4Addr::new(127, 255, 255, 255).into(),
        };
        let loopback_v6 = Range {
            first: Ipv6Addr::LOCALHOST.into(),
            last: Ipv6Addr::LOCALHOST.into(),
        };
        let every_v4 = Range {
            first: Ipv4Addr::UNSPECIFIED.into(),
            last: Ipv4Addr::BROADCAST.into(),
        };
        let every_v6 = Range {
            first: Ipv6Addr::UNSPECIFIED.into(),
            last: Ipv6Addr::from_bits(u128::MAX).into(),
        };
        let of = |address: &IpAddr| {
            let (every, loopback) = match address {
                IpAddr::V4(_) => (every_v4, loopback_v4),
                IpAddr::V6(_) => (every_v6, loopback_v6),
            };
            if address.is_unspecified() {
                Ranges::of([every])
            } else if address.is_loopback() {
                Ranges::of([loopback])
            } else {
                Ranges::of([every]).without(&Ranges::of([loopback]))
            }
        };
        self.addresses
            .iter()
            .fold(Ranges::none(), |all, address| all.union(&of(address)))
    }

    /// For a sentence.
    pub(super) fn shown(&self) -> String {
        let all: Vec<String> = self.addresses.iter().map(|a| shown(*a)).collect();
        match all.as_slice() {
            [] => "no TCP address".to_owned(),
            some => some.join(", "),
        }
    }
}

fn shown(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => "0.0.0.0 (every IPv4 address)".to_owned(),
        IpAddr::V6(v6) if v6.is_unspecified() => ":: (every IPv6 address)".to_owned(),
        IpAddr::V4(_) | IpAddr::V6(_) => address.to_string(),
    }
}

impl Host {
    fn here() -> Host {
        let is_one = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == "1");
        Host {
            own: own_addresses(),
            nonlocal: (
                is_one("/proc/sys/net/ipv4/ip_nonlocal_bind"),
                is_one("/proc/sys/net/ipv6/ip_nonlocal_bind"),
            ),
            has_v6: Path::new("/proc/net/if_inet6").exists(),
        }
    }

    /// The addresses that an entry of `listen_addresses` stands for (pqcomm.c: `StreamServerPort`).
    fn meant(&self, entry: &str) -> Vec<IpAddr> {
        if entry == "*" {
            let v6 = self.has_v6.then_some(Ipv6Addr::UNSPECIFIED.into());
            return [Ipv4Addr::UNSPECIFIED.into()].into_iter().chain(v6).collect();
        }
        let found = (entry, 0).to_socket_addrs().into_iter().flatten();
        let mut all: Vec<IpAddr> = found.map(|at| at.ip()).collect();
        all.sort();
        all.dedup();
        all
    }

    fn can_bind(&self, address: IpAddr) -> bool {
        let (nonlocal_v4, nonlocal_v6) = self.nonlocal;
        let nonlocal = match address {
            IpAddr::V4(_) => nonlocal_v4,
            IpAddr::V6(_) => nonlocal_v6,
        };
        // All of 127.0.0.0/8 is this host's where one of it is.
        let loopback_v4 = address.is_ipv4() && address.is_loopback();
        nonlocal || address.is_unspecified() || loopback_v4 || self.own.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(addresses: &[&str]) -> Listening {
        Listening {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            running: true,
        }
    }

    #[test]
    fn whom_an_address_is_reached_from() {
        // listens on, reached from
        let rows: [(&[&str], &str); 7] = [
            (&[], ""),
            (&["127.0.0.1"], "127.0.0.0/8"),
            (&["::1"], "::1/128"),
            (&["0.0.0.0"], "0.0.0.0/0"),
            (&["::"], "::/0"),
            (&["10.0.0.1"], "0.0.0.0-126.255.255.255, 128.0.0.0/1"),
            (&["10.0.0.1", "127.0.0.1"], "0.0.0.0/0"),
        ];
        for (addresses, expected) in rows {
            assert_eq!(
                listening(addresses).reached_from().to_string(),
                expected,
                "{addresses:?}"
            );
        }
    }

    #[test]
    fn what_is_listened_on_is_compared_with_what_was_said() {
        let host = Host {
            own: BTreeSet::from(["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]),
            nonlocal: (false, false),
            has_v6: true,
        };
        // what pgfw.toml says, what is listened on, words of each finding
        let rows: [(&[&str], &[&str], &[&str]); 11] = [
            (&["*"], &["0.0.0.0", "::"], &[]),
            (&["*"], &["0.0.0.0"], &["does not listen on *"]),
            (&["0.0.0.0"], &["0.0.0.0", "::"], &["listens on ::"]),
            (&["10.0.0.1"], &["10.0.0.1"], &[]),
            (
                &["10.0.0.1", "10.0.0.2"],
                &["10.0.0.1"],
                &["on 10.0.0.2, which pgfw.toml says; a change counts"],
            ),
            (
                &["10.0.0.1", "10.0.0.9"],
                &["10.0.0.1"],
                &["on 10.0.0.9, which pgfw.toml says; this host has no such"],
            ),
            (
                &["10.0.0.1"],
                &["0.0.0.0"],
                &["listens on 0.0.0.0 (every IPv4 address), and"],
            ),
            (
                &["10.0.0.1"],
                &["10.0.0.1", "10.0.0.2"],
                &["listens on 10.0.0.2, and"],
            ),
            (&[], &["10.0.0.1"], &["pgfw.toml is empty"]),
            (&["localhost"], &["127.0.0.1"], &[]),
            (&[], &[], &[]),
        ];
        for (said, addresses, expected) in rows {
            let mut verified = Verified::default();
            let said: Vec<String> = said.iter().map(|s| (*s).to_owned()).collect();
            listening(addresses).compare(&said, &host, &mut verified);
            let found: Vec<&str> = verified.findings.iter().map(|f| f.message.as_str()).collect();
            assert_eq!(found.len(), expected.len(), "{said:?} {addresses:?}: {found:?}");
            for (message, words) in found.iter().zip(expected) {
                assert!(message.contains(words), "no {words:?} in {message}");
            }
        }
    }
}
