//! The networks around a database host.

use super::{Host, Namespace, join};

/// Addresses of a [`Site`]. Every machine is number 10 of its network, the router number 1.
pub mod address {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    pub const DB: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 10));
    pub const DB_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x10));
    pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10));
    pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10));
    pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10));
    pub const STRANGER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x10));

    pub const CLIENT_NETWORK: &str = "10.20.0.0/16";
    pub const CLIENT_NETWORK_V6: &str = "fd00:20::/64";
    pub const STRANGER_NETWORK: &str = "192.168.1.0/24";
    pub const STRANGER_NETWORK_V6: &str = "fd00:30::/64";
}

/// A database host, a client in its network and a stranger in another, with a router between the three.
/// The host's one interface is `eth0`, and so is that of each neighbour.
#[derive(Debug)]
pub struct Site {
    pub db: Host,
    pub client: Namespace,
    pub stranger: Namespace,
    pub router: Namespace,
}

impl Site {
    pub fn new() -> Site {
        let site = Site {
            db: Host::new("db"),
            client: Namespace::new("client"),
            stranger: Namespace::new("stranger"),
            router: Namespace::new("router"),
        };
        site.router.sysctl("net/ipv4/ip_forward", "1");
        site.router.sysctl("net/ipv6/conf/all/forwarding", "1");
        site.connect(&site.db, "db", ["10.10.0", "fd00:10:"], 24);
        site.connect(&site.client, "client", ["10.20.0", "fd00:20:"], 16);
        site.connect(&site.stranger, "stranger", ["192.168.1", "fd00:30:"], 24);
        site
    }

    fn connect(&self, machine: &Namespace, port: &str, [v4, v6]: [&str; 2], length: u8) {
        join((&self.router, port), (machine, "eth0"));
        self.router.ip(&format!(
            "address add {v4}.1/{length} dev {port}\n\
             address add {v6}:1/64 dev {port} nodad"
        ));
        machine.ip(&format!(
            "address add {v4}.10/{length} dev eth0\n\
             address add {v6}:10/64 dev eth0 nodad\n\
             route add default via {v4}.1\n\
             route add ::/0 via {v6}:1"
        ));
    }
}

impl Default for Site {
    fn default() -> Self {
        Site::new()
    }
}
