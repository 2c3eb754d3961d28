//! A host behind a cable, what filters there, and what comes along the cable.

pub(crate) mod connections;
pub(crate) mod filter;
pub(crate) mod generator;
pub(crate) mod pgbench;
pub(crate) mod rules;
pub(crate) mod stream;
pub(crate) mod xdp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pgfw_tests::lab::{Host, join, run};

use crate::machine::peer;

pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1));
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// What the host's own policy calls allowed beside the networks that are there for their number.
pub(crate) const CLIENT_NETWORK: &str = "10.9.0.0/24";

/// At both ends of the cable.
pub(crate) const INTERFACE: &str = "eth0";

/// A host and the outside, joined by a veth pair.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) host: Host,
    pub(crate) outside: Host,
}

impl Link {
    pub(crate) fn new() -> Link {
        let link = Link {
            host: Host::new("host"),
            outside: Host::new("outside"),
        };
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
        ] {
            link.host.sysctl(&format!("net/{key}"), value);
        }
        join((&link.host, INTERFACE), (&link.outside, INTERFACE));
        for (here, mac, own, other, others_mac) in [
            (&link.host, "02:00:00:00:00:01", 1, 2, "02:00:00:00:00:02"),
            (&link.outside, "02:00:00:00:00:02", 2, 1, "02:00:00:00:00:01"),
        ] {
            here.ip(&format!(
                "link set {INTERFACE} address {mac}\n\
                 address add 10.9.0.{own}/24 dev {INTERFACE}\n\
                 address add fd00:9::{own}/64 dev {INTERFACE} nodad\n\
                 neighbour replace 10.9.0.{other} lladdr {others_mac} dev {INTERFACE} nud permanent\n\
                 neighbour replace fd00:9::{other} lladdr {others_mac} dev {INTERFACE} nud permanent"
            ));
        }
        // Answers to forged sources leave, and die at the other end at once: nobody there has this address.
        link.host.ip(&format!(
            "neighbour replace 10.9.0.254 lladdr 02:00:00:00:00:fe dev {INTERFACE} nud permanent\n\
             neighbour replace fd00:9::fe lladdr 02:00:00:00:00:fe dev {INTERFACE} nud permanent\n\
             route add default via 10.9.0.254\n\
             route add ::/0 via fd00:9::fe"
        ));
        link
    }

    /// Without a program on it a veth device takes frames from another's XDP program only while it does GRO.
    pub(crate) fn gro(&self) {
        self.ethtool(&self.host, &["-K", INTERFACE, "gro", "on"]);
    }

    /// A queue for each of two cores: what a core sends along the cable is received by the same core.
    pub(crate) fn two_queues(&self) {
        for end in [&self.host, &self.outside] {
            self.ethtool(end, &["-L", INTERFACE, "rx", "2", "tx", "2"]);
            for (queue, cores) in [(0, "1"), (1, "2")] {
                end.write(
                    format!("/sys/class/net/{INTERFACE}/queues/tx-{queue}/xps_cpus"),
                    cores,
                );
            }
        }
    }

    /// How many packets the host's device has taken off the cable, whatever became of them.
    pub(crate) fn received(&self) -> u64 {
        let counters = self
            .host
            .within(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
            .expect("the counters of devices");
        counters
            .lines()
            .find_map(|line| line.trim().strip_prefix("eth0:"))
            .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .expect("a count of packets")
    }

    fn ethtool(&self, end: &Host, arguments: &[&str]) {
        run(end.command(peer("ethtool", "ethtool")).args(arguments)).expect_success();
    }
}
