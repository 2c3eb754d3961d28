//! Who this host needs to stay on the net, as far as its files say: gateways, resolvers, the server of its DHCP lease.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a neighbour does for this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lifeline {
    Gateway(IpAddr),
    Resolver(IpAddr),
    DhcpServer(IpAddr),
}

impl std::fmt::Display for Lifeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lifeline::Gateway(address) => write!(f, "the gateway {address}"),
            Lifeline::Resolver(address) => write!(f, "the resolver {address}"),
            Lifeline::DhcpServer(address) => write!(f, "the DHCP server {address}"),
        }
    }
}

/// All that are known now.
pub fn all() -> BTreeSet<Lifeline> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut all = BTreeSet::new();
    all.extend(gateways_v4(&read("/proc/net/route")).map(Lifeline::Gateway));
    all.extend(gateways_v6(&read("/proc/net/ipv6_route")).map(Lifeline::Gateway));
    // With systemd-resolved the first names a stub on this host, the second who it asks.
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        all.extend(resolvers(&read(file)).map(Lifeline::Resolver));
    }
    let own: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| Some(IpAddr::V4(interface.address?.as_sockaddr_in()?.ip())))
        .collect();
    for folder in ["/var/lib/dhcp", "/run/systemd/netif/leases"] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let leases = leases(&text)
                .into_iter()
                .filter(|lease| own.contains(&lease.address));
            all.extend(leases.map(|lease| Lifeline::DhcpServer(lease.server)));
        }
    }
    all
}

/// proc_net(5): Iface Destination Gateway …, in hexadecimal as the CPU has it.
fn gateways_v4(table: &str) -> impl Iterator<Item = IpAddr> {
    table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (destination, gateway, mask) = (columns.get(1)?, columns.get(2)?, columns.get(7)?);
        let gateway = u32::from_str_radix(gateway, 16)
            .ok()
            .filter(|gateway| *gateway != 0)?;
        (*destination == "00000000" && *mask == "00000000")
            .then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
    })
}

/// net/ipv6/route.c, `rt6_info_route`: destination, its length, source, its length, next hop ….
fn gateways_v6(table: &str) -> impl Iterator<Item = IpAddr> {
    table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let hop = u128::from_str_radix(columns.get(4)?, 16)
            .ok()
            .filter(|hop| *hop != 0)?;
        let is_default = columns[1] == "00" && columns[0].bytes().all(|digit| digit == b'0');
        is_default.then(|| IpAddr::V6(Ipv6Addr::from(hop)))
    })
}

fn resolvers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines()
        .filter_map(|line| {
            let address = line.trim().strip_prefix("nameserver")?.trim();
            // A zone, `%eth0`, tells which link it is on.
            address.split('%').next()?.parse::<IpAddr>().ok()
        })
        .filter(|address| !address.is_loopback())
}

#[derive(Debug, PartialEq, Eq)]
struct Lease {
    address: IpAddr,
    server: IpAddr,
}

/// dhclient.leases(5), and what systemd-networkd writes.
fn leases(text: &str) -> Vec<Lease> {
    let mut found = Vec::new();
    let (mut address, mut server) = (None, None);
    for line in text.lines().map(|line| line.trim().trim_end_matches(';')) {
        if line.starts_with("lease ") {
            (address, server) = (None, None);
        }
        let value = |key: &str| line.strip_prefix(key).and_then(|value| value.parse().ok());
        address = value("fixed-address ").or_else(|| value("ADDRESS=")).or(address);
        server = value("option dhcp-server-identifier ")
            .or_else(|| value("SERVER_ADDRESS="))
            .or(server);
        if let (Some(one), Some(other)) = (address, server) {
            found.push(Lease {
                address: one,
                server: other,
            });
            (address, server) = (None, None);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn default_routes_name_the_gateways() {
        let v4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                  eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n\
                  eth0 0000A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
                  eth0 0000000A 0200A8C0 0003 0 0 0 000000FF 0 0 0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(gateways_v4(v4).collect::<Vec<_>>(), [ip("192.168.0.1")]);
        }
        let zero = "0".repeat(32);
        let hop = "fe800000000000000000000000000001";
        let v6 = format!(
            "{zero} 00 {zero} 00 {hop} 00000400 00000001 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
             fd000010{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n",
            "0".repeat(24)
        );
        assert_eq!(gateways_v6(&v6).collect::<Vec<_>>(), [ip("fe80::1")]);
    }

    #[test]
    fn resolvers_elsewhere_and_servers_of_leases_are_read() {
        let text =
            "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\noptions edns0\n";
        assert_eq!(
            resolvers(text).collect::<Vec<_>>(),
            [ip("10.0.0.2"), ip("fe80::1")]
        );
        let dhclient = "lease {\n  interface \"eth0\";\n  fixed-address 10.0.0.7;\n  \
                        option dhcp-server-identifier 10.0.0.3;\n  expire never;\n}\n";
        let networkd =
            "# This is private data.\nADDRESS=10.0.0.7\nNETMASK=255.0.0.0\nSERVER_ADDRESS=10.0.0.3\n";
        for text in [dhclient, networkd] {
            let lease = Lease {
                address: ip("10.0.0.7"),
                server: ip("10.0.0.3"),
            };
            assert_eq!(leases(text), [lease]);
        }
    }
}
