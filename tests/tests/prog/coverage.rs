//! Which answer counts: the longest prefix, its ends, denies, audit mode, and what does not fit.

use pgfw::policy::coverage::{Coverage, CoverageKey, Until};
use pgfw_common::frames::{ACK, Frame, SYN};
use pgfw_common::reason::{Action, Reason};
use pgfw_common::record::ABI;
use pgfw_tests::lab::{PATIENCE, eventually};

use pgfw_tests::bench::{Bench, PG, SSH, allowed, allowed_for, denied, from_now, key, policy, world};

const HOST: &str = "192.168.1.1";

fn syn(source: &str, port: u16) -> Frame {
    let host = if source.contains(':') { "2001:db8::1" } else { HOST };
    Frame::tcp((source, 40_000), (host, port), SYN)
}

/// A bench whose PostgreSQL has exactly these rows.
fn bench(rows: &[(&str, Coverage)]) -> Bench {
    let mut policy = policy();
    policy.coverage.clear();
    for (net, answer) in rows {
        policy.coverage.insert(key(PG, net), *answer);
    }
    Bench::new(&policy)
}

fn reason(bench: &Bench, source: &str) -> Reason {
    bench.ask(&syn(source, 5432)).expect("an answer").reason
}

#[test]
fn f09_the_longest_prefix_decides_and_removing_it_reveals_the_shorter() {
    let mut bench = bench(&[
        ("10.0.0.0/8", allowed()),
        ("10.1.0.0/16", denied()),
        ("10.1.2.0/24", allowed()),
        ("10.1.2.3/32", denied()),
        ("2001:db8::/32", allowed()),
        ("2001:db8:1::/48", denied()),
        ("2001:db8:1::7/128", allowed()),
    ]);
    for (source, wanted) in [
        ("9.255.255.255", Reason::ServiceClosed),
        ("10.0.0.0", Reason::Service),
        ("10.0.255.255", Reason::Service),
        ("10.1.0.0", Reason::ServiceDenied),
        ("10.1.1.255", Reason::ServiceDenied),
        ("10.1.2.2", Reason::Service),
        ("10.1.2.3", Reason::ServiceDenied),
        ("10.1.2.4", Reason::Service),
        ("10.1.3.0", Reason::ServiceDenied),
        ("10.2.0.0", Reason::Service),
        ("10.255.255.255", Reason::Service),
        ("11.0.0.0", Reason::ServiceClosed),
        ("2001:db7:ffff::1", Reason::ServiceClosed),
        ("2001:db8::1", Reason::Service),
        ("2001:db8:1::6", Reason::ServiceDenied),
        ("2001:db8:1::7", Reason::Service),
        ("2001:db8:1::8", Reason::ServiceDenied),
        ("2001:db8:2::", Reason::Service),
        ("2001:db9::", Reason::ServiceClosed),
    ] {
        bench.expect(source, &syn(source, 5432), wanted, Some(PG));
    }
    let mut remove = |net: &str| bench.datapath.update(1, &[], &[key(PG, net)]).expect("an update");
    remove("10.1.2.3/32");
    remove("2001:db8:1::7/128");
    assert_eq!(reason(&bench, "10.1.2.3"), Reason::Service);
    assert_eq!(reason(&bench, "2001:db8:1::7"), Reason::ServiceDenied);
    bench
        .datapath
        .update(1, &[], &[key(PG, "10.1.2.0/24")])
        .expect("an update");
    assert_eq!(reason(&bench, "10.1.2.3"), Reason::ServiceDenied);
    bench
        .datapath
        .update(
            1,
            &[(key(PG, "0.0.0.0/0"), allowed())],
            &[key(PG, "10.1.0.0/16"), key(PG, "10.0.0.0/8")],
        )
        .expect("an update");
    assert_eq!(reason(&bench, "10.1.2.3"), Reason::Service);
    assert_eq!(reason(&bench, "9.255.255.255"), Reason::Service);
}

#[test]
fn services_do_not_share_their_coverage() {
    let bench = Bench::new(&policy());
    bench.expect(
        "SSH from anywhere",
        &syn("198.51.100.7", 22),
        Reason::Service,
        Some(SSH),
    );
    bench.expect(
        "PostgreSQL from there",
        &syn("198.51.100.7", 5432),
        Reason::ServiceClosed,
        Some(PG),
    );
    for port in [21, 23, 5431, 5433] {
        bench.expect("the next port", &syn("192.168.1.7", port), Reason::NewTcp, None);
    }
    let udp = Frame::udp(("192.168.1.7", 40_000), (HOST, 5432));
    bench.expect("the same port over UDP", &udp, Reason::Udp, None);
}

#[test]
fn f23_a_deny_refuses_what_is_established_too() {
    let bench = Bench::new(&policy());
    for flags in [SYN, ACK, SYN | ACK] {
        let frame = Frame::tcp(("192.168.1.66", 40_000), (HOST, 5432), flags);
        bench.expect("a denied source", &frame, Reason::ServiceDenied, Some(PG));
    }
    bench.expect(
        "denied at SSH",
        &syn("203.0.113.66", 22),
        Reason::ServiceDenied,
        Some(SSH),
    );
    bench.expect(
        "its neighbour",
        &syn("203.0.113.67", 22),
        Reason::Service,
        Some(SSH),
    );
}

#[test]
fn f43_f51_an_entry_ends_at_its_time() {
    let mut bench = bench(&[]);
    bench
        .datapath
        .update(
            1,
            &[
                (key(PG, "10.0.0.0/8"), allowed_for(2_000)),
                (key(PG, "10.1.0.0/16"), allowed_for(-1)),
            ],
            &[],
        )
        .expect("an update");
    assert_eq!(reason(&bench, "10.2.0.1"), Reason::Service);
    assert_eq!(reason(&bench, "10.1.0.1"), Reason::ServiceClosed);
    eventually("the entry ends", PATIENCE, || {
        (reason(&bench, "10.2.0.1") == Reason::ServiceClosed).then_some(())
    });
}

#[test]
fn f43_a_timed_deny_uncovers_the_allow_beneath() {
    let mut bench = bench(&[]);
    let row = Coverage {
        deny: Until::At(from_now(2_000)),
        ..allowed()
    };
    bench
        .datapath
        .update(1, &[(key(PG, "10.0.0.0/8"), row)], &[])
        .expect("an update");
    assert_eq!(reason(&bench, "10.2.0.1"), Reason::ServiceDenied);
    eventually("the deny ends", PATIENCE, || {
        (reason(&bench, "10.2.0.1") == Reason::Service).then_some(())
    });
}

#[test]
fn what_is_written_is_read_back_exactly() {
    let mut bench = bench(&[]);
    let rows: Vec<(CoverageKey, Coverage)> = vec![
        (key(PG, "0.0.0.0/0"), world()),
        (key(PG, "10.0.0.0/8"), allowed_for(60_000)),
        (key(PG, "10.0.0.1/32"), denied()),
        (
            key(SSH, "10.0.0.0/8"),
            Coverage {
                deny: Until::At(from_now(-5_000)),
                allow: Until::At(from_now(86_400_000)),
                world: false,
            },
        ),
        (key(SSH, "::/0"), world()),
        (key(SSH, "2001:db8::1/128"), allowed()),
    ];
    bench.datapath.update(1, &rows, &[]).expect("an update");
    let read = bench.datapath.coverage(1).expect("the coverage");
    assert_eq!(read, rows.iter().copied().collect());
    let (found, answer) = bench
        .datapath
        .covering(1, PG, "10.0.0.7".parse().expect("an address"))
        .expect("a look-up")
        .expect("a row");
    assert_eq!((found, answer), rows[1]);
    assert_eq!(bench.datapath.services(1).expect("services"), policy().services);
    // Putting the same again and removing what is not there changes nothing.
    bench
        .datapath
        .update(1, &rows, &[key(PG, "10.9.0.0/16")])
        .expect("an update");
    assert_eq!(bench.datapath.coverage(1).expect("the coverage"), read);
}

#[test]
fn f42_a_full_table_takes_what_comes_and_loses_none() {
    let mut bench = bench(&[("192.168.1.0/24", allowed())]);
    let net = |i: u32| key(PG, &format!("10.{}.{}.{}/32", i >> 16, i >> 8 & 255, i & 255));
    let before = bench.datapath.table_size(1).expect("a table");
    let mut held: u32 = 0;
    // Until the table has been replaced by a larger one, twice.
    let mut sizes = vec![before.1];
    while sizes.len() < 3 {
        let rows: Vec<(CoverageKey, Coverage)> = (held..held + 2_000).map(|i| (net(i), allowed())).collect();
        bench.datapath.update(1, &rows, &[]).expect("room");
        held += 2_000;
        let (used, all) = bench.datapath.table_size(1).expect("a table");
        assert!(used <= all, "{used} of {all} bytes");
        if sizes.last() != Some(&all) {
            sizes.push(all);
        }
        assert!(held < 200_000, "{sizes:?}");
    }
    // In a table that is about to be full, and after it, what is there can be closed.
    bench
        .datapath
        .update(1, &[(key(PG, "192.168.1.0/24"), denied())], &[net(7)])
        .expect("a change");
    assert_eq!(reason(&bench, "192.168.1.7"), Reason::ServiceDenied);
    assert_eq!(reason(&bench, "10.0.0.7"), Reason::ServiceClosed);
    assert_eq!(reason(&bench, "10.0.0.8"), Reason::Service);
    let read = bench.datapath.coverage(1).expect("the coverage");
    assert_eq!(read.len() as u32, held);
    assert!((0..held).all(|i| read.contains_key(&net(i)) == (i != 7)));
    assert_eq!(bench.datapath.services(1).expect("services"), policy().services);
    assert_eq!(bench.datapath.generations().expect("slots"), [1]);
}

/// Whoever makes a table larger may die at any step; the next change finds one table, whole.
#[test]
fn f42_a_table_that_was_growing_is_settled_by_the_next_change() {
    let mut bench = bench(&[("192.168.1.0/24", allowed())]);
    let shared = bench.bpffs.path().join(format!("pgfw/v{ABI}"));
    // Before it stands in the slot: a half-made one.
    std::fs::create_dir(shared.join("growing-1")).expect("a folder");
    bench
        .datapath
        .update(1, &[(key(PG, "10.0.0.0/8"), allowed())], &[])
        .expect("a change");
    assert!(!shared.join("growing-1").exists());
    // In the slot, and the former one half removed.
    std::fs::rename(shared.join("gen-1"), shared.join("growing-1")).expect("renamed");
    std::fs::create_dir(shared.join("gen-1")).expect("a folder");
    assert_eq!(bench.datapath.generations().expect("slots"), [1]);
    bench
        .datapath
        .update(1, &[(key(PG, "10.0.0.0/8"), denied())], &[])
        .expect("a change");
    assert!(!shared.join("growing-1").exists());
    assert_eq!(reason(&bench, "10.0.0.7"), Reason::ServiceDenied);
    assert_eq!(reason(&bench, "192.168.1.7"), Reason::Service);
}

#[test]
fn audit_mode_decides_and_counts_but_drops_nothing() {
    let mut policy = policy();
    policy.settings.audit = true;
    let bench = Bench::new(&policy);
    // `expect` compares every counter; here a drop is counted as one and passes.
    for (source, port, reason, service) in [
        ("198.51.100.7", 5432, Reason::ServiceClosed, Some(PG)),
        ("192.168.1.66", 5432, Reason::ServiceDenied, Some(PG)),
        ("198.51.100.7", 5433, Reason::NewTcp, None),
        ("192.168.1.7", 5432, Reason::Service, Some(PG)),
    ] {
        bench.expect(source, &syn(source, port), reason, service);
    }
    assert_eq!(bench.run(&syn("198.51.100.7", 5432)), Action::Pass);
}
