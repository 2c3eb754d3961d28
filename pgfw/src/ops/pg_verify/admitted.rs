//! The addresses that a policy admits to a service, as ranges. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pgfw_hba::{Range, Ranges};

use crate::clock::BootTime;
use crate::ops::guard::admits;
use crate::policy::coverage::{Compiled, ServiceId};

/// Every one of them now: between two neighbouring ends of prefixes one answer holds, so it is asked once there. A source
/// that nobody can have is dropped whatever the prefixes say.
pub(super) fn admitted(compiled: &Compiled, service: ServiceId, now: BootTime) -> Ranges {
    let mut starts: BTreeSet<IpAddr> =
        BTreeSet::from([Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    for key in compiled.coverage.keys().filter(|key| key.service == service) {
        starts.insert(key.net.network());
        starts.extend(beside(key.net.broadcast(), 1));
    }
    let ends = starts.iter().skip(1).map(Some).chain([None]);
    let pieces = starts.iter().zip(ends).filter_map(|(first, next)| {
        let last = match next.filter(|next| next.is_ipv4() == first.is_ipv4()) {
            Some(next) => beside(*next, -1)?,
            None if first.is_ipv4() => Ipv4Addr::BROADCAST.into(),
            None => Ipv6Addr::from_bits(u128::MAX).into(),
        };
        admits(compiled, service, *first, now).then_some(Range { first: *first, last })
    });
    Ranges::of(pieces).without(&martians())
}

/// The next address of the family, or the one before.
fn beside(address: IpAddr, step: i8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let next = v4.to_bits().checked_add_signed(step.into())?;
            Some(IpAddr::V4(next.into()))
        }
        IpAddr::V6(v6) => {
            let next = v6.to_bits().checked_add_signed(step.into())?;
            Some(IpAddr::V6(next.into()))
        }
    }
}

/// pgfw-common: `address::martian`.
fn martians() -> Ranges {
    let v4 = [
        (0x0000_0000, 0x00ff_ffff),
        (0x7f00_0000, 0x7fff_ffff),
        (0xe000_0000, 0xefff_ffff),
        (0xffff_ffff, 0xffff_ffff),
    ];
    let v6 = [
        (0, 1),
        (0xffff_0000_0000, 0xffff_ffff_ffff),
        (0xff << 120, u128::MAX),
    ];
    let v4 = v4.map(|(first, last)| Range {
        first: Ipv4Addr::from_bits(first).into(),
        last: Ipv4Addr::from_bits(last).into(),
    });
    let v6 = v6.map(|(first, last)| Range {
        first: Ipv6Addr::from_bits(first).into(),
        last: Ipv6Addr::from_bits(last).into(),
    });
    Ranges::of(v4.into_iter().chain(v6))
}

#[cfg(test)]
mod tests {
    use pgfw_common::address::{Family, martian, v4, v6};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::coverage::{Coverage, CoverageKey, Until};

    const SERVICE: ServiceId = ServiceId(2);

    fn compiled(prefixes: &[(&str, bool)]) -> Compiled {
        let cell = |open: bool| Coverage {
            deny: if open { Until::Absent } else { Until::Forever },
            allow: Until::Forever,
            world: false,
        };
        let keyed = prefixes.iter().map(|(net, open)| {
            let key = CoverageKey {
                service: SERVICE,
                net: net.parse().unwrap(),
            };
            (key, cell(*open))
        });
        Compiled {
            coverage: keyed.collect(),
            ..Compiled::default()
        }
    }

    fn shown(prefixes: &[(&str, bool)]) -> String {
        admitted(&compiled(prefixes), SERVICE, BootTime(0)).to_string()
    }

    #[test]
    fn prefixes_nest() {
        // prefixes and whether they are open, what is admitted
        let rows: [(&[(&str, bool)], &str); 6] = [
            (&[], ""),
            (&[("10.0.0.0/8", true)], "10.0.0.0/8"),
            (&[("10.0.0.0/8", true), ("10.0.0.0/9", false)], "10.128.0.0/9"),
            (
                &[
                    ("10.0.0.0/8", true),
                    ("10.128.0.0/9", false),
                    ("10.255.255.255/32", true),
                ],
                "10.0.0.0/9, 10.255.255.255/32",
            ),
            (
                &[("0.0.0.0/0", true)],
                "1.0.0.0-126.255.255.255, 128.0.0.0/2, 192.0.0.0/3, 240.0.0.0-255.255.255.254",
            ),
            (
                &[("fd00::/16", true), ("10.0.0.0/24", true)],
                "10.0.0.0/24, fd00::/16",
            ),
        ];
        for (prefixes, expected) in rows {
            assert_eq!(shown(prefixes), expected, "{prefixes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each address as the kernel's side answers about it.
        #[test]
        fn every_address_is_answered(
            nets in proptest::collection::vec((any::<u8>(), 24_u8..=32, any::<bool>()), 0..8),
            asked in any::<u8>(),
        ) {
            let texts: Vec<(String, bool)> = nets
                .iter()
                .map(|(host, bits, open)| {
                    let net = ipnet::Ipv4Net::new([10, 0, 0, *host].into(), *bits).unwrap().trunc();
                    (net.to_string(), *open)
                })
                .collect();
            let texts: Vec<(&str, bool)> = texts.iter().map(|(net, open)| (net.as_str(), *open)).collect();
            let compiled = compiled(&texts);
            let address: IpAddr = [10, 0, 0, asked].into();
            prop_assert_eq!(
                admitted(&compiled, SERVICE, BootTime(0)).contains(address),
                admits(&compiled, SERVICE, address, BootTime(0))
            );
        }

        #[test]
        fn martians_are_those_of_the_program(four in any::<u32>(), six in any::<u128>(), small in 0_u128..4, mapped in any::<u32>()) {
            let ours = martians();
            let four = Ipv4Addr::from_bits(four);
            prop_assert_eq!(ours.contains(four.into()), martian(&v4(four.octets()), Family::V4).is_some());
            for six in [six, small, u128::from(mapped) | 0xffff_0000_0000, six >> 64] {
                let six = Ipv6Addr::from_bits(six);
                prop_assert_eq!(ours.contains(six.into()), martian(&v6(six.octets()), Family::V6).is_some());
            }
        }
    }
}
