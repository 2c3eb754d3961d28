//! Differences between pairs of files, as rows for people.

use std::path::Path;

use pgfw_hba::{Major, Memory, Nothing, Server};
use proptest::prelude::*;

use super::*;
use crate::ops::pg_plan::rows::{Over, Row};

fn side(hba: &str, ident: &str) -> Side {
    let files = Memory::of([("/hba", format!("{hba}\n")), ("/ident", format!("{ident}\n"))]);
    let server = Server::of(Major::V16);
    let hba = Hba::read(Path::new("/hba"), &files, &server);
    let ident = Ident::read(Path::new("/ident"), &files, &server);
    assert!(hba.errors.is_empty(), "{:?}", hba.errors);
    Side::of(&hba, &ident, true, false)
}

fn both(now: &Side, then: &Side, known: &Known) -> (Facts, Facts, Atoms) {
    let everyone = [now, then].map(|side| side.everyone(&Nothing));
    let atoms = Atoms::of([&everyone[0], &everyone[1]], known);
    let facts = |side: &Side, n: usize| side.facts(&everyone[n], &atoms, known);
    (facts(now, 0), facts(then, 1), atoms)
}

/// `role in database by proof from networks over kinds`
fn shown(facts: Facts, atoms: &Atoms) -> Vec<String> {
    let names = |names: &crate::ops::pg_plan::Names| match names.all {
        true => "*".to_owned(),
        false => {
            let others = names.others.then(|| "others".to_owned());
            Vec::from_iter(names.names.iter().cloned().chain(others)).join(",")
        }
    };
    let over = |over: &Over| match over {
        Over::Socket => "socket",
        Over::Plaintext => "plain",
        Over::Tls => "tls",
        Over::Gss => "gss",
    };
    let rows = grouped(facts);
    let rows = rows.iter().map(|group| {
        let row = Row::of(group, atoms);
        let replication = if row.replication { "+replication" } else { "" };
        let own = if row.own_database { "+own" } else { "" };
        format!(
            "{} in {}{own}{replication} by {} from {} over {}",
            names(&row.roles),
            names(&row.databases),
            row.by.join("|"),
            row.from.join(","),
            Vec::from_iter(row.over.iter().map(over)).join(",")
        )
    });
    rows.collect()
}

#[test]
fn what_is_lost_and_gained() {
    let map = "m alice alice\nm deputy alice";
    // rules of now, rules of then, who gets in no more, who gets in anew
    let rows: [(&str, &str, &[&str], &[&str]); 11] = [
        (
            "host app alice 10.0.0.0/8 md5",
            "host app alice 10.0.0.0/8 md5",
            &[],
            &[],
        ),
        // A boundary that either of them mentions is exact.
        (
            "hostssl app alice 10.0.0.0/8 md5",
            "hostssl app alice 10.1.0.0/16 md5",
            &["alice in app by password (md5) from 10.0.0.0/16,10.2.0.0-10.255.255.255 over tls"],
            &[],
        ),
        (
            "host app alice 10.0.0.0/8 md5",
            "hostssl app alice 10.0.0.0/8 md5",
            &["alice in app by password (md5) from 10.0.0.0/8 over plain"],
            &[],
        ),
        (
            "host all all 127.0.0.1/32 trust",
            "host app alice 127.0.0.1/32 trust",
            // A union of products: each is one row.
            &[
                "alice in others by no proof at all from 127.0.0.1/32 over plain,tls",
                "others in * by no proof at all from 127.0.0.1/32 over plain,tls",
            ],
            &[],
        ),
        // An earlier reject is part of what counts.
        (
            "hostssl app alice 10.0.0.0/9 cert map=m",
            "hostssl app alice 10.0.0.0/16 reject\nhostssl app alice 10.0.0.0/15 cert map=m",
            &[
                "alice in app by certificate alice|certificate deputy from 10.0.0.0/16,10.2.0.0-10.127.255.255 over tls",
            ],
            &[],
        ),
        // A map that names the role is what no map says.
        (
            "hostssl app alice all cert",
            "hostssl app alice all cert map=m",
            &[],
            &["alice in app by certificate deputy from 0.0.0.0/0,::/0 over tls"],
        ),
        (
            "local all all peer",
            "local all all peer\nlocal replication all peer",
            &[],
            &["* in +replication by OS user of the role's name from  over socket"],
        ),
        (
            "local sameuser all trust",
            "local all all reject",
            &["* in +own by no proof at all from  over socket"],
            &[],
        ),
        (
            "hostgssenc app alice all gss",
            "hostssl app alice all scram-sha-256 clientcert=verify-ca",
            &["alice in app by gss from 0.0.0.0/0,::/0 over gss"],
            &["alice in app by password (scram-sha-256) and any certificate from 0.0.0.0/0,::/0 over tls"],
        ),
        // pgfw's own question is nobody's way in.
        (
            "local \"marker-1\" \"probe\" peer map=marker-1\nlocal all all reject",
            "local \"marker-2\" \"probe\" peer map=marker-2\nlocal all all reject",
            &[],
            &[],
        ),
        // Whether a group is meant is not known here, and said.
        (
            "host app +staff 10.0.0.0/8 md5",
            "host app alice 10.0.0.0/8 reject",
            &["alice in app by password (md5) (perhaps) from 10.0.0.0/8 over plain,tls"],
            &[],
        ),
    ];
    for (now, then, lost, gained) in rows {
        let (now, then, atoms) = both(&side(now, map), &side(then, map), &Known::default());
        let (no_more, anew) = (without(&now, &then), without(&then, &now));
        assert_eq!(shown(no_more, &atoms), lost, "{now:?}");
        assert_eq!(shown(anew, &atoms), gained, "{then:?}");
    }
}

/// A hundred alike are one row, and one that goes is another.
#[test]
fn many_are_few_rows() {
    let rules = |names: std::ops::Range<u32>| -> String {
        let lines = names.map(|n| format!("hostssl app \"person{n}\" 10.0.0.0/8 cert\n"));
        lines.collect()
    };
    let (now, then) = (side(&rules(0..100), ""), side(&rules(1..100), ""));
    let (now, then, atoms) = both(&now, &then, &Known::default());
    assert_eq!(
        shown(without(&now, &then), &atoms),
        ["person0 in app by certificate person0 from 10.0.0.0/8 over tls"]
    );
    assert_eq!(grouped(then).len(), 1);
}

/// The same words about certificates of another authority are another matter.
#[test]
fn authorities_differ() {
    let rules = "hostssl app alice 10.0.0.0/8 cert\nhostssl app alice 11.0.0.0/8 md5";
    let (mut now, then) = (side(rules, ""), side(rules, ""));
    now.foreign = true;
    let (now, then, atoms) = both(&now, &then, &Known::default());
    assert_eq!(
        shown(without(&now, &then), &atoms),
        ["alice in app by certificate alice of another authority from 10.0.0.0/8 over tls"]
    );
    assert_eq!(
        shown(without(&then, &now), &atoms),
        ["alice in app by certificate alice from 10.0.0.0/8 over tls"]
    );
}

/// A role that is there counts by itself where an expression or its certificate tells it apart.
#[test]
fn names_that_are_there_count() {
    let known = Known {
        roles: ["anna", "bob", "carol"].map(str::to_owned).into(),
        databases: vec!["app1".to_owned(), "other".to_owned()],
        certificates: vec!["carol".to_owned()],
    };
    let now = side(
        "hostssl /^app all all cert map=x\nhost app1 /^a 10.0.0.0/8 trust",
        "x /^(.*)$ \\1",
    );
    let then = side("local all all reject", "");
    let (now, then, atoms) = both(&now, &then, &known);
    let lost = shown(without(&now, &then), &atoms);
    assert!(
        lost.contains(&"anna in app1 by no proof at all from 10.0.0.0/8 over plain".to_owned()),
        "{lost:?}"
    );
    assert!(
        lost.iter()
            .any(|row| row.starts_with("carol in app1 by certificate carol|")),
        "{lost:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is put together falls apart into what it was.
    #[test]
    fn groups_are_their_facts(lines in proptest::collection::vec((
        proptest::sample::select(vec!["local", "host", "hostssl"]),
        proptest::sample::select(vec!["all", "app", "sameuser", "replication", "app,web"]),
        proptest::sample::select(vec!["all", "alice", "bob,alice"]),
        proptest::sample::select(vec!["all", "10.0.0.0/8", "10.0.0.0/30", "::/0"]),
        proptest::sample::select(vec!["trust", "reject", "md5"]),
    ), 1..6)) {
        let text: Vec<String> = lines
            .iter()
            .map(|(kind, database, role, address, method)| match *kind {
                "local" => format!("local {database} {role} {method}"),
                _ => format!("{kind} {database} {role} {address} {method}"),
            })
            .collect();
        let now = side(&text.join("\n"), "");
        let (facts, _, _) = both(&now, &now, &Known::default());
        let mut apart = Facts::new();
        for group in grouped(facts.clone()) {
            for kind in &group.kinds {
                for target in &group.targets {
                    for role in &group.roles {
                        for by in &group.by {
                            let place = (*kind, target.clone(), role.clone());
                            let twice = apart.insert((place, by.clone()), group.from.clone());
                            prop_assert!(twice.is_none(), "said twice");
                        }
                    }
                }
            }
        }
        prop_assert_eq!(apart, facts);
    }
}
