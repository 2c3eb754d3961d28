//! Closing a network in a table of which nothing else is known: neither its config nor its entries.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::coverage::{Compiled, Coverage, CoverageKey, ServiceId, Until};

/// Denies `net` at every service until `until`, whatever covers it or lies inside.
pub fn close(compiled: &mut Compiled, net: IpNet, until: Until) {
    let services: Vec<ServiceId> = compiled.names.keys().copied().collect();
    for service in services {
        let key = CoverageKey { service, net };
        let covering = covering(&compiled.coverage, key);
        compiled.coverage.entry(key).or_insert(covering);
    }
    for (key, cell) in &mut compiled.coverage {
        if net.contains(&key.net) {
            cell.deny = cell.deny.max(until);
        }
    }
}

/// The answer of the longest prefix around a key.
fn covering(coverage: &BTreeMap<CoverageKey, Coverage>, key: CoverageKey) -> Coverage {
    let CoverageKey { service, net } = key;
    let longest = (0..=net.prefix_len()).rev().find_map(|length| {
        let net = IpNet::new_assert(net.addr(), length).trunc();
        coverage.get(&CoverageKey { service, net })
    });
    longest.copied().unwrap_or(Coverage {
        deny: Until::Absent,
        allow: Until::Absent,
        world: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_inside_and_what_lies_around_is_closed_and_nothing_beside_it() {
        let key = |net: &str| CoverageKey {
            service: ServiceId(2),
            net: net.parse().expect("a network"),
        };
        let open = |world| Coverage {
            deny: Until::Absent,
            allow: Until::Forever,
            world,
        };
        let mut compiled = Compiled {
            names: [(ServiceId(2), "main".to_owned())].into(),
            coverage: [
                (key("0.0.0.0/0"), open(true)),
                (key("10.1.2.0/24"), open(false)),
                (key("10.2.0.0/16"), open(false)),
            ]
            .into(),
            ..Compiled::default()
        };
        close(&mut compiled, key("10.1.0.0/16").net, Until::Forever);
        let denied = |net| compiled.coverage[&key(net)].deny == Until::Forever;
        assert!(denied("10.1.0.0/16") && denied("10.1.2.0/24"));
        assert!(!denied("0.0.0.0/0") && !denied("10.2.0.0/16"));
        // When it ends, what covers it counts again.
        assert_eq!(compiled.coverage[&key("10.1.0.0/16")].allow, Until::Forever);
        assert!(compiled.coverage[&key("10.1.0.0/16")].world);
        let again = compiled.coverage.clone();
        close(&mut compiled, key("10.1.0.0/16").net, Until::Forever);
        assert_eq!(compiled.coverage, again);
    }
}
