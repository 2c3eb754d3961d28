//! One policy in everybody's words: SSH for the world, PostgreSQL for so many networks less so many, answers to what
//! the host asks, and what IPv6 needs to live.

use std::fmt::Write;

use ipnet::IpNet;
use pgfw::policy::coverage::Compiled;
use pgfw_tests::bench::{PG, allowed, denied, key};

use super::CLIENT_NETWORK;
use crate::policies::{guarded, open};
use crate::source::{Family, networks};

/// Networks of each family that may reach PostgreSQL, and as many that may not.
const NETWORKS: usize = 1_000;

/// Who may and who may not.
#[derive(Debug)]
pub(crate) struct Rules {
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
}

impl Rules {
    pub(crate) fn new() -> Rules {
        let mut rules = Rules {
            allowed: vec![CLIENT_NETWORK.parse().expect("a network")],
            denied: Vec::new(),
        };
        for family in Family::BOTH {
            let length = move |_| match family {
                Family::V4 => 24,
                Family::V6 => 48,
            };
            let (all, _) = networks(family, 2 * NETWORKS, length);
            for (index, net) in all.into_iter().enumerate() {
                let list = if index % 2 == 0 {
                    &mut rules.allowed
                } else {
                    &mut rules.denied
                };
                list.push(net);
            }
        }
        rules
    }

    pub(crate) fn pgfw(&self) -> Compiled {
        let mut policy = guarded(self.allowed.iter().copied(), allowed());
        open(&mut policy, PG, self.denied.iter().copied(), denied());
        // Both lists were made of different networks; one that is in both would make the others' rules differ.
        assert_eq!(
            policy.coverage.get(&key(PG, CLIENT_NETWORK)),
            Some(&allowed()),
            "the client is allowed"
        );
        policy
    }

    /// xdp-filter knows addresses and ports, no networks, and nothing that denies or remembers.
    pub(crate) fn xdp_filter(&self) -> impl Iterator<Item = String> {
        self.allowed.iter().map(|net| net.addr().to_string())
    }

    /// The sets of both families, for `ipset restore`.
    pub(crate) fn ipsets(&self) -> String {
        let mut text = String::new();
        for (name, list) in self.lists() {
            let family = if name.ends_with('4') { "inet" } else { "inet6" };
            let _ = writeln!(text, "create {name} hash:net family {family} maxelem 65536");
            for net in list {
                let _ = writeln!(text, "add {name} {net}");
            }
        }
        text
    }

    /// For iptables-restore or ip6tables-restore.
    pub(crate) fn iptables(&self, family: Family) -> String {
        let (number, live) = match family {
            Family::V4 => (4, ""),
            // RFC 4890, 4.4.1.
            Family::V6 => (
                6,
                "-A INPUT -p icmpv6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT\n\
                 -A INPUT -p icmpv6 --icmpv6-type 136 -m hl --hl-eq 255 -j ACCEPT\n",
            ),
        };
        format!(
            "*filter\n\
             :INPUT DROP\n\
             -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
             {live}\
             -A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT\n\
             -A INPUT -p tcp --dport 5432 -m set --match-set denied{number} src -j DROP\n\
             -A INPUT -p tcp --dport 5432 -m set --match-set allowed{number} src -m conntrack --ctstate NEW -j ACCEPT\n\
             COMMIT\n"
        )
    }

    /// The same ruleset with states, as nftables is meant to be written.
    pub(crate) fn nftables(&self) -> String {
        format!(
            "table inet filter {{\n{sets}\
             chain input {{\n\
             type filter hook input priority filter; policy drop;\n\
             ct state established,related accept\n\
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept\n\
             tcp dport 22 ct state new accept\n\
             tcp dport 5432 ip saddr @denied4 drop\n\
             tcp dport 5432 ip6 saddr @denied6 drop\n\
             tcp dport 5432 ip saddr @allowed4 ct state new accept\n\
             tcp dport 5432 ip6 saddr @allowed6 ct state new accept\n\
             }}\n}}\n",
            sets = self.sets()
        )
    }

    /// As near as rules without states come to it, at the hook before the stack.
    pub(crate) fn ingress(&self, device: &str) -> String {
        format!(
            "table netdev filter {{\n{sets}\
             chain ingress {{\n\
             type filter hook ingress device {device} priority filter; policy drop;\n\
             ether type arp accept\n\
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept\n\
             tcp dport 22 accept\n\
             tcp dport 5432 ip saddr @denied4 drop\n\
             tcp dport 5432 ip6 saddr @denied6 drop\n\
             tcp dport 5432 ip saddr @allowed4 accept\n\
             tcp dport 5432 ip6 saddr @allowed6 accept\n\
             tcp dport 32768-60999 tcp flags & (syn | ack) != syn accept\n\
             udp sport {{ 53, 123 }} udp dport 32768-60999 accept\n\
             }}\n}}\n",
            sets = self.sets()
        )
    }

    fn sets(&self) -> String {
        let mut text = String::new();
        for (name, list) in self.lists() {
            let kind = if name.ends_with('4') {
                "ipv4_addr"
            } else {
                "ipv6_addr"
            };
            let elements: Vec<String> = list.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                text,
                "set {name} {{ type {kind}; flags interval; elements = {{ {} }} }}",
                elements.join(", ")
            );
        }
        text
    }

    fn lists(&self) -> [(&'static str, Vec<IpNet>); 4] {
        let of = |list: &[IpNet], four: bool| -> Vec<IpNet> {
            let nets = list.iter().copied();
            nets.filter(|net| matches!(net, IpNet::V4(_)) == four).collect()
        };
        [
            ("allowed4", of(&self.allowed, true)),
            ("denied4", of(&self.denied, true)),
            ("allowed6", of(&self.allowed, false)),
            ("denied6", of(&self.denied, false)),
        ]
    }
}
