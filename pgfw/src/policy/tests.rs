use std::collections::BTreeMap;
use std::path::Path;

use super::compile::touches;
use super::coverage::{Compiled, Coverage, CoverageKey, ServiceId, Until};
use super::*;
use crate::clock::{BootTime, Now, WallTime};
use crate::config::Config;
use crate::ledger::types::{Authority, Certificate, Entry, EntryEnd, EntryKind};

const BOOT: &str = "this-boot";
const WALL: i64 = 1_800_000_000;
const SECOND: u64 = 1_000_000_000;
const POSTGRES: ServiceId = ServiceId(2);

/// Ten thousand seconds after boot.
fn now() -> Now {
    Now {
        boot: BootTime(10_000 * SECOND),
        wall_ns: i128::from(WALL) * 1_000_000_000,
    }
}

fn config(more: &str) -> Config {
    let text = format!(
        "[firewall]\ninterfaces = [\"eth0\"]\n[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nallow = [\"192.168.1.0/24\"]\n{more}"
    );
    Config::parse(&text, Path::new("pgfw.toml")).expect("a good config")
}

fn entry(id: i64, kind: EntryKind, net: &str, seconds: Option<u64>) -> Entry {
    Entry {
        id,
        kind,
        net: net.parse().expect("a network"),
        service: None,
        end: seconds.map(|s| EntryEnd {
            wall: WallTime(WALL + s.cast_signed()),
            boot: BootTime(now().boot.0 + s * SECOND),
            boot_id: BOOT.into(),
        }),
        comment: None,
        requester: "root".into(),
        created: WallTime(WALL),
        generation: None,
        removed_by: None,
    }
}

fn certificate(name: &str, from: i64, to: i64) -> Certificate {
    Certificate {
        serial: format!("{:032x}", name.len()),
        authority: Authority::Client,
        authority_generation: 1,
        name: name.into(),
        subject_dn: format!("CN={name}"),
        not_before: WallTime(WALL + from),
        not_after: WallTime(WALL + to),
        issued: WallTime(WALL + from),
        requester: "root".into(),
        reason: None,
        revoked: None,
        revoke_reason: None,
        pem: String::new(),
    }
}

fn policy(config: &Config, entries: &[Entry], certificates: &[Certificate]) -> Compiled {
    compile(&Inputs {
        config,
        entries,
        certificates,
        leases: &[],
        now: now(),
        boot_id: BOOT,
        generation: 1,
    })
}

fn cell(compiled: &Compiled, net: &str) -> Option<Coverage> {
    let net = net.parse().expect("a network");
    compiled
        .coverage
        .get(&CoverageKey {
            service: POSTGRES,
            net,
        })
        .copied()
}

fn in_seconds(s: u64) -> Until {
    Until::At(BootTime(now().boot.0 + s * SECOND))
}

// What an ended longer prefix leaves is what the shorter one says.

#[test]
fn f51_a_longer_prefix_carries_the_latest_end_of_all_that_covers_it() {
    let config = config("");
    let entries = [
        entry(1, EntryKind::Allow, "192.168.1.7/32", Some(60)),
        entry(2, EntryKind::Allow, "10.0.0.0/8", Some(600)),
        entry(3, EntryKind::Allow, "10.1.0.0/16", Some(60)),
        entry(4, EntryKind::Allow, "10.1.2.0/24", Some(6000)),
    ];
    let compiled = policy(&config, &entries, &[]);
    let allow = |net| cell(&compiled, net).expect("covered").allow;
    assert_eq!(
        allow("192.168.1.7/32"),
        Until::Forever,
        "under the cluster's own network"
    );
    assert_eq!(allow("10.1.0.0/16"), in_seconds(600), "under the longer-lived /8");
    assert_eq!(
        allow("10.1.2.0/24"),
        in_seconds(6000),
        "its own end is the latest"
    );
    assert_eq!(
        allow("10.0.0.0/8"),
        in_seconds(600),
        "never lengthened by what lies inside it"
    );
}

#[test]
fn a_live_deny_beats_narrower_and_wider_allows_and_then_uncovers_them() {
    let config = config("");
    let entries = [
        entry(1, EntryKind::Deny, "192.168.0.0/16", Some(60)),
        entry(2, EntryKind::Deny, "192.168.1.9/32", None),
    ];
    let compiled = policy(&config, &entries, &[]);
    assert_eq!(
        cell(&compiled, "192.168.1.0/24"),
        Some(Coverage {
            deny: in_seconds(60),
            allow: Until::Forever,
            world: false
        })
    );
    assert_eq!(
        cell(&compiled, "192.168.0.0/16"),
        Some(Coverage {
            deny: in_seconds(60),
            allow: Until::Absent,
            world: false
        })
    );
    assert_eq!(
        cell(&compiled, "192.168.1.9/32").expect("covered").deny,
        Until::Forever
    );
}

#[test]
fn an_allow_opens_postgres_and_a_deny_closes_every_service() {
    let config = config("");
    let entries = [
        entry(1, EntryKind::Allow, "10.0.0.0/8", None),
        entry(2, EntryKind::Deny, "203.0.113.0/24", None),
    ];
    let compiled = policy(&config, &entries, &[]);
    let at = |service, net: &str| {
        compiled.coverage.get(&CoverageKey {
            service: ServiceId(service),
            net: net.parse().expect("net"),
        })
    };
    assert!(
        at(1, "10.0.0.0/8").is_none(),
        "ssh is not opened by an allow without --service"
    );
    assert_eq!(at(2, "10.0.0.0/8").map(|c| c.allow), Some(Until::Forever));
    assert_eq!(at(1, "203.0.113.0/24").map(|c| c.deny), Some(Until::Forever));
    assert_eq!(at(2, "203.0.113.0/24").map(|c| c.deny), Some(Until::Forever));
    assert_eq!(at(1, "0.0.0.0/0").map(|c| c.world), Some(true));
}

// The certificate opens the network, and only while it is valid.

#[test]
fn an_identity_opens_its_networks_until_its_last_valid_certificate_ends() {
    let config = config("[[identity]]\nname = \"alice\"\nnetworks = [\"10.20.0.0/16\"]\n");
    let open = |certs: &[Certificate]| cell(&policy(&config, &[], certs), "10.20.0.0/16").map(|c| c.allow);
    assert_eq!(open(&[]), None, "no certificate");
    assert_eq!(open(&[certificate("bob", -300, 600)]), None, "somebody else's");
    assert_eq!(open(&[certificate("alice", -300, 600)]), Some(in_seconds(600)));
    assert_eq!(
        open(&[certificate("alice", -300, 600), certificate("alice", -300, 900)]),
        Some(in_seconds(900)),
        "a renewal extends"
    );
    assert_eq!(open(&[certificate("alice", -600, -300)]), None, "ended");
    assert_eq!(open(&[certificate("alice", 300, 600)]), None, "not yet valid");
    let revoked = Certificate {
        revoked: Some(WallTime(WALL)),
        ..certificate("alice", -300, 600)
    };
    assert_eq!(open(std::slice::from_ref(&revoked)), None, "revoked");
    let server = Certificate {
        authority: Authority::Server,
        ..certificate("alice", -300, 600)
    };
    assert_eq!(
        open(&[server]),
        None,
        "a server's certificate is nobody's identity"
    );
    assert_eq!(
        open(&[revoked, certificate("alice", -300, 60)]),
        Some(in_seconds(60)),
        "one of two revoked"
    );
}

#[test]
fn entries_of_another_boot_end_by_the_wall_clock_and_pending_ones_count_only_for_their_generation() {
    let config = config("");
    let mut old = entry(1, EntryKind::Allow, "10.0.0.0/8", Some(60));
    if let Some(end) = &mut old.end {
        end.boot_id = "another boot".into();
        end.boot = BootTime(1);
    }
    let mut pending = entry(2, EntryKind::Allow, "172.16.0.0/12", None);
    pending.generation = Some(7);
    let entries = [old, pending];
    let compiled = policy(&config, &entries, &[]);
    assert_eq!(
        cell(&compiled, "10.0.0.0/8").map(|c| c.allow),
        Some(in_seconds(60))
    );
    assert_eq!(cell(&compiled, "172.16.0.0/12"), None);
    let seventh = compile(&Inputs {
        config: &config,
        entries: &entries,
        certificates: &[],
        leases: &[],
        now: now(),
        boot_id: BOOT,
        generation: 7,
    });
    assert!(cell(&seventh, "172.16.0.0/12").is_some());
}

#[test]
fn f43_a_clock_step_moves_a_certificates_end_and_no_duration() {
    let config = config("[[identity]]\nname = \"alice\"\nnetworks = [\"10.20.0.0/16\"]\n");
    let entries = [
        entry(1, EntryKind::Allow, "10.0.0.0/16", Some(7_200)),
        entry(2, EntryKind::Deny, "10.1.0.0/16", Some(7_200)),
    ];
    let certificates = [certificate("alice", -4_000, 7_200)];
    for step in [-3_600_i64, 3_600] {
        let stepped = Now {
            wall_ns: now().wall_ns + i128::from(step) * 1_000_000_000,
            ..now()
        };
        let compiled = compile(&Inputs {
            config: &config,
            entries: &entries,
            certificates: &certificates,
            leases: &[],
            now: stepped,
            boot_id: BOOT,
            generation: 0,
        });
        assert_eq!(
            cell(&compiled, "10.0.0.0/16").map(|c| c.allow),
            Some(in_seconds(7_200)),
            "{step}"
        );
        assert_eq!(
            cell(&compiled, "10.1.0.0/16").map(|c| c.deny),
            Some(in_seconds(7_200)),
            "{step}"
        );
        let left = in_seconds(u64::try_from(7_200 - step).expect("it has not ended"));
        assert_eq!(
            cell(&compiled, "10.20.0.0/16").map(|c| c.allow),
            Some(left),
            "{step}"
        );
    }
    // A day too far, it has ended; set back before its beginning, it has not begun.
    for step in [86_400, -5_000] {
        let stepped = Now {
            wall_ns: now().wall_ns + i128::from(step) * 1_000_000_000,
            ..now()
        };
        let compiled = compile(&Inputs {
            config: &config,
            entries: &[],
            certificates: &certificates,
            leases: &[],
            now: stepped,
            boot_id: BOOT,
            generation: 0,
        });
        assert_eq!(cell(&compiled, "10.20.0.0/16"), None, "{step}");
    }
}

#[test]
fn a_change_widens_before_it_narrows_and_ignores_ticks() {
    let key = |net: &str| CoverageKey {
        service: POSTGRES,
        net: net.parse().expect("net"),
    };
    let allow = |until| Coverage {
        deny: Until::Absent,
        allow: until,
        world: false,
    };
    let old: BTreeMap<_, _> = [
        (key("10.0.0.0/8"), allow(in_seconds(60))),
        (key("10.1.0.0/16"), allow(in_seconds(600))),
        (key("10.2.0.0/16"), allow(Until::Forever)),
    ]
    .into();
    let Until::At(BootTime(end)) = in_seconds(60) else {
        unreachable!()
    };
    let new: BTreeMap<_, _> = [
        (key("10.0.0.0/8"), allow(Until::At(BootTime(end + 9_000_000)))),
        (key("10.1.0.0/16"), allow(in_seconds(300))),
        (key("10.3.0.0/16"), allow(Until::Forever)),
    ]
    .into();
    let Difference { put, remove } = difference(&old, &new);
    let order: Vec<String> = put.iter().map(|(k, _)| k.net.to_string()).collect();
    assert_eq!(order, ["10.3.0.0/16", "10.1.0.0/16"]);
    assert_eq!(remove, [key("10.2.0.0/16")]);
}

#[test]
fn f43_an_end_that_is_moved_by_little_does_move_where_nothing_is_guessed() {
    let at = |ms: u64| {
        let cell = Coverage {
            deny: Until::Absent,
            allow: Until::At(BootTime(ms * 1_000_000)),
            world: false,
        };
        let key = CoverageKey {
            service: ServiceId(1),
            net: "10.0.0.0/8".parse().unwrap(),
        };
        BTreeMap::from([(key, cell)])
    };
    assert!(difference(&at(2_000), &at(2_020)).is_empty());
    assert_eq!(exact_difference(&at(2_000), &at(2_020)).put.len(), 1);
    assert!(exact_difference(&at(2_000), &at(2_000)).is_empty());
}

/// Between one turn and the next the same inputs compile to the same policy; at each, something else is right.
#[test]
fn the_clock_alone_changes_a_policy_at_its_turns_only() {
    let config = config("[[identity]]\nname = \"ann\"\nroles = [\"ann\"]\nnetworks = [\"10.1.0.0/16\"]\n");
    let entries = [
        entry(1, EntryKind::Allow, "10.2.0.0/16", Some(100)),
        entry(2, EntryKind::Deny, "10.3.0.0/16", Some(200)),
        // Ends within another, which changes nothing but that it is to be forgotten.
        entry(3, EntryKind::Allow, "10.2.7.0/24", Some(50)),
        entry(4, EntryKind::Allow, "10.4.0.0/16", None),
    ];
    let revoked = Certificate {
        revoked: Some(WallTime(WALL)),
        ..certificate("ann", 10, 20)
    };
    let certificates = [certificate("ann", 150, 400), revoked];
    let at = |seconds: u64| Now {
        boot: BootTime(now().boot.0 + seconds * SECOND),
        wall_ns: now().wall_ns + i128::from(seconds) * 1_000_000_000,
    };
    let inputs = |now| Inputs {
        config: &config,
        entries: &entries,
        certificates: &certificates,
        leases: &[],
        now,
        boot_id: BOOT,
        generation: 1,
    };
    let mut turns = Vec::new();
    let mut second = 0;
    while let Some(turn) = next_turn(&inputs(at(second))) {
        let next = (turn.0 - now().boot.0) / SECOND;
        assert_eq!(
            compile(&inputs(at(second))),
            compile(&inputs(at(next - 1))),
            "{second} to {next}"
        );
        turns.push(next);
        second = next;
    }
    assert_eq!(turns, [50, 100, 150, 200, 400]);
}

/// What an entry changes lies within its network, and is found by looking at what touches that alone.
#[test]
fn the_part_of_a_policy_is_the_part_of_the_whole() {
    let config = config("");
    let nets = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.2.0.0/16",
        "192.168.1.0/24",
        "192.168.1.7/32",
        "::/0",
        "fd00::/16",
        "fd00:1::/32",
    ];
    let all: Vec<Entry> = (0_i64..)
        .zip(nets)
        .map(|(id, net)| {
            let (kind, end) = match id % 4 {
                0 => (EntryKind::Allow, Some(100 + id.cast_unsigned())),
                1 => (EntryKind::Deny, Some(50)),
                2 => (EntryKind::Allow, None),
                _ => (EntryKind::Deny, None),
            };
            entry(id, kind, net, end)
        })
        .collect();
    fn inputs<'a>(config: &'a Config, entries: &'a [Entry]) -> Inputs<'a> {
        Inputs {
            config,
            entries,
            certificates: &[],
            leases: &[],
            now: now(),
            boot_id: BOOT,
            generation: 1,
        }
    }
    // Each entry comes last once.
    for last in 0..all.len() {
        let (mut before, mut after) = (all.clone(), all.clone());
        let net = before.remove(last).net;
        let mut whole = compile(&inputs(&config, &before)).coverage;
        for entries in [&mut before, &mut after] {
            entries.retain(|entry| touches(&entry.net, &net));
        }
        let Difference { put, remove } = difference(
            &compile_within(&inputs(&config, &before), &net),
            &compile_within(&inputs(&config, &after), &net),
        );
        whole.extend(put);
        whole.retain(|key, _| !remove.contains(key));
        assert_eq!(whole, compile(&inputs(&config, &all)).coverage, "{net}");
    }
}
