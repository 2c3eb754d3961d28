use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::hba;
use crate::{Decision, Encryption, From, Login, Major, Nothing, Range, Ranges, reach};

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n).into()
}

fn some() -> impl Strategy<Value = Ranges> {
    proptest::collection::vec((0_u32..40, 0_u32..10), 0..5).prop_map(|all| {
        Ranges::of(all.into_iter().map(|(first, more)| Range {
            first: v4(first),
            last: v4(first + more),
        }))
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sets_are_sets(a in some(), b in some()) {
        for n in 0..60 {
            let at = v4(n);
            prop_assert_eq!(a.union(&b).contains(at), a.contains(at) || b.contains(at));
            prop_assert_eq!(a.without(&b).contains(at), a.contains(at) && !b.contains(at));
            prop_assert_eq!(a.within(&b).contains(at), a.contains(at) && b.contains(at));
        }
        prop_assert_eq!(a.meets(&b), !a.within(&b).is_empty());
        // One way to write each.
        prop_assert_eq!(a.union(&b), b.union(&a));
        let mut added = a.clone();
        added.add(&b);
        prop_assert_eq!(added, a.union(&b));
        prop_assert_eq!(a.without(&b).union(&a.within(&b)), a.clone());
    }

    #[test]
    fn prefixes_are_the_range(first in any::<u32>(), more in 0_u32..5000) {
        let last = first.saturating_add(more);
        let range = Range { first: v4(first), last: v4(last) };
        let mut at = u64::from(first);
        for (address, bits) in range.prefixes() {
            prop_assert_eq!(address, v4(u32::try_from(at).unwrap()));
            at += 1 << (32 - bits);
        }
        prop_assert_eq!(at, u64::from(last) + 1);
    }

    /// Whoever decides a login has something left for it, and what is shadowed decides none.
    #[test]
    fn what_is_left_is_what_decides(lines in proptest::collection::vec(line(), 1..7)) {
        let text: String = lines.concat();
        let read = hba(&text, Major::V16);
        prop_assert!(read.errors.is_empty(), "{:?}", read.errors);
        let reached = reach(&read, &Nothing);
        for role in ["alice", "bob"] {
            for database in ["app", "ops", "alice"] {
                for address in ["10.0.0.1", "10.1.0.1", "11.0.0.1", "::1"] {
                    for encryption in [Encryption::None, Encryption::Tls, Encryption::Gss] {
                        let address: IpAddr = address.parse().unwrap();
                        let from = From::Tcp { address, encryption };
                        let (database, role) = (database.as_bytes(), role.as_bytes());
                        let login = Login { from, database, role, replication: false };
                        if let Decision::Line(line) = read.decide(&login, &Nothing) {
                            let here = reached.iter().find(|r| r.line.at == line.at).unwrap();
                            prop_assert!(here.from().contains(address), "{}\n{:?}", text, line.at);
                        }
                    }
                }
            }
        }
    }
}

fn line() -> impl Strategy<Value = String> {
    let one = |of: &[&'static str]| proptest::sample::select(of.to_vec());
    (
        one(&["host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"]),
        one(&[
            "all",
            "app",
            "app,ops",
            "sameuser",
            "/^a",
            "\"all\"",
            "replication",
        ]),
        one(&["all", "alice", "bob", "alice,bob", "/b", "\"alice\""]),
        one(&[
            "all",
            "10.0.0.0/8",
            "10.0.0.0/16",
            "0.0.0.0/0",
            "::/0",
            "10.0.0.1/32",
            "10.0.0.1 255.0.0.255",
        ]),
    )
        .prop_map(|(kind, database, role, address)| format!("{kind} {database} {role} {address} trust\n"))
}

#[test]
fn what_shadows_what() {
    // lines, the places of those that nothing comes to
    let rows: [(&[&str], &[usize]); 14] = [
        (&["host all all all trust", "host app alice 10.0.0.0/8 md5"], &[1]),
        (&["host all all 0.0.0.0/0 trust", "host app alice all md5"], &[]),
        (
            &[
                "host all all 0.0.0.0/0 trust",
                "host all all ::/0 trust",
                "host app alice all md5",
            ],
            &[2],
        ),
        (
            &[
                "host all all 10.0.0.0/9 trust",
                "host all all 10.128.0.0/9 trust",
                "host all all 10.0.0.0/8 md5",
            ],
            &[2],
        ),
        (&["hostssl all all all trust", "host all all all md5"], &[]),
        (
            &[
                "hostssl all all all trust",
                "hostnossl all all all trust",
                "host all all all md5",
            ],
            &[2],
        ),
        (&["host all all all trust", "host replication all all md5"], &[]),
        (
            &[
                "host all alice all trust",
                "host all all all md5",
                "host all alice all md5",
            ],
            &[2],
        ),
        (
            &[
                "host all alice all trust",
                "host all bob all trust",
                "host all alice,bob all md5",
            ],
            &[2],
        ),
        (
            &[
                "host all /^a all trust",
                "host all alice all md5",
                "host all bob all md5",
            ],
            &[1],
        ),
        (
            &[
                "host all +staff all trust",
                "host all +staff all md5",
                "host all \"+staff\" all md5",
            ],
            &[1],
        ),
        (&["host all all name trust", "host all all all md5"], &[]),
        (&["host all all all trust", "host all all name md5"], &[1]),
        (
            &[
                "local all all trust",
                "local app alice peer",
                "local replication all peer",
            ],
            &[1],
        ),
    ];
    for (lines, shadowed) in rows {
        let read = hba(&(lines.join("\n") + "\n"), Major::V16);
        let reached = reach(&read, &Nothing);
        let places = reached
            .iter()
            .enumerate()
            .filter(|(_, r)| r.is_shadowed())
            .map(|(n, _)| n);
        assert_eq!(places.collect::<Vec<_>>(), shadowed, "{lines:?}");
    }
}

#[test]
fn ranges_read_as_prefixes() {
    let shown = Ranges::of([
        Range {
            first: v4(0x0a00_0000),
            last: v4(0x0a00_00ff),
        },
        Range {
            first: v4(0x0a00_0100),
            last: v4(0x0a00_0100),
        },
        Range {
            first: "fd00::".parse().unwrap(),
            last: "fd00::1".parse().unwrap(),
        },
    ]);
    assert_eq!(shown.to_string(), "10.0.0.0/24, 10.0.1.0/32, fd00::/127");
    assert_eq!(Ranges::all().to_string(), "0.0.0.0/0, ::/0");
    assert!(Ranges::all().without(&Ranges::all()).is_empty());
}
