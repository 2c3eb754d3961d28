//! All logins at once, against each by itself.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{hba, ident};
use crate::{
    Admission, Decision, Encryption, Everyone, From, Hba, Holder, Ident, Interface, Kind, Login, Major,
    Method, Name, Ranges, Target, Way, World,
};

/// alice is of the staff; one host has a name.
struct Town;

impl World for Town {
    fn is_member(&self, role: &[u8], group: &[u8]) -> Option<bool> {
        Some(role == group || (role, group) == (b"alice", b"staff"))
    }
    fn interfaces(&self) -> Option<Vec<Interface>> {
        Some(vec![Interface {
            address: "10.0.0.1".parse().unwrap(),
            mask: "255.255.255.0".parse().ok(),
        }])
    }
    fn name_of(&self, address: IpAddr) -> Option<Option<String>> {
        Some((address == "10.0.0.7".parse::<IpAddr>().unwrap()).then(|| "app.example.com".to_owned()))
    }
    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        let known = name == "app.example.com";
        Some(known.then(|| "10.0.0.7".parse().unwrap()).into_iter().collect())
    }
}

fn named(name: &str) -> Name {
    Name::Named(name.into())
}

/// Every atom of the words below, each with a name that stands for it in a login.
fn roles() -> Vec<(Name, &'static str)> {
    let mut all: Vec<(Name, &str)> = ["alice", "bob", "staff", "app"].map(|n| (named(n), n)).into();
    all.push((Name::Other, "nobody-mentions-this"));
    all
}

fn targets(role: &str) -> Vec<(Target, String, bool)> {
    vec![
        (Target::Database(named("app")), "app".into(), false),
        (Target::Database(named("staff")), "staff".into(), false),
        (Target::Database(Name::Other), "unheard-of".into(), false),
        (Target::Own, role.to_owned(), false),
        (Target::Replication, String::new(), true),
    ]
}

fn line() -> impl Strategy<Value = String> {
    (
        proptest::sample::select(vec![
            "local",
            "host",
            "hostssl",
            "hostnossl",
            "hostgssenc",
            "hostnogssenc",
        ]),
        proptest::sample::select(vec![
            "all",
            "app",
            "\"all\"",
            "sameuser",
            "samerole",
            "replication",
            "/^a",
            "app,staff",
        ]),
        proptest::sample::select(vec!["all", "alice", "+staff", "\"all\"", "/^[ab]", "bob,alice"]),
        proptest::sample::select(vec![
            "all",
            "10.0.0.0/8",
            "10.0.0.0/30",
            "10.0.0.4/31",
            "::/0",
            "samenet",
            "samehost",
            "app.example.com",
        ]),
        proptest::sample::select(vec!["trust", "reject", "md5"]),
    )
        .prop_map(|(kind, database, role, address, method)| match kind {
            "local" => format!("local {database} {role} {method}\n"),
            _ => format!("{kind} {database} {role} {address} {method}\n"),
        })
}

/// Neighbours of every end of the addresses above.
const ADDRESSES: [&str; 12] = [
    "9.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.6",
    "10.0.0.7",
    "10.0.0.8",
    "10.0.1.0",
    "11.0.0.0",
    "fd00::1",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The share that holds an address is the line that decides a login from there.
    #[test]
    fn shares_are_what_is_decided(lines in proptest::collection::vec(line(), 1..6)) {
        let (hba, ident) = (hba(&lines.concat(), Major::V16), ident("", Major::V16));
        let everyone = Everyone::of(&hba, &ident, &Town);
        for (role, as_role) in roles() {
            for (target, database, replication) in targets(as_role) {
                for kind in Kind::ALL {
                    let shares = everyone.shares(kind, &target, &role);
                    for address in ADDRESSES {
                        let address: IpAddr = address.parse().unwrap();
                        let from = match kind {
                            Kind::Local => From::Local,
                            Kind::Tcp(encryption) => From::Tcp { address, encryption },
                        };
                        let login = Login { from, database: database.as_bytes(), role: as_role.as_bytes(), replication };
                        let expected = match hba.decide(&login, &Town) {
                            Decision::Line(line) => Some(line.at.number),
                            Decision::NoLine => None,
                            Decision::Undecided { doubt, .. } => panic!("{doubt:?}"),
                        };
                        let holds = shares.iter().filter(|s| s.from.contains(address));
                        let holds: Vec<usize> = holds.map(|s| s.line.at.number).collect();
                        prop_assert_eq!(holds, Vec::from_iter(expected), "{:?} {:?}", login, lines);
                    }
                }
            }
        }
    }

    /// A name is among the holders of a map where the map admits it.
    #[test]
    fn holders_are_whom_a_map_admits(rows in proptest::collection::vec(
        (
            proptest::sample::select(vec!["carol", "dave", "/^c", "/^(.*)@x$", "\"/^(d.*)\""]),
            proptest::sample::select(vec!["alice", "bob", "all", "\"all\"", "+staff", "\\1", "/^a"]),
        ),
        0..5,
    )) {
        let text: String = rows.iter().map(|(user, role)| format!("m {user} {role}\n")).collect();
        for major in [Major::V15, Major::V16] {
            let ident = ident(&text, major);
            let asked = ["carol", "dave", "alice@x"].map(|name| name.as_bytes().to_vec());
            for role in ["alice", "bob", "dave"] {
                let held = ident.holders(Some(b"m"), &named(role), &asked, &Town);
                for name in &asked {
                    let admitted = matches!(ident.admits(Some(b"m"), name, role.as_bytes(), &Town), Admission::Line(_));
                    let listed = held.contains(&(Holder::Named(name.clone()), true));
                    prop_assert_eq!(listed, admitted, "{:?} as {} in {}", name, role, text);
                }
            }
        }
    }
}

fn ways(hba: &Hba, ident: &Ident, kind: Kind, role: &Name) -> Vec<(Ranges, Vec<Way>)> {
    let everyone = Everyone::of(hba, ident, &Town);
    let shares = everyone.shares(kind, &Target::Database(named("app")), role);
    let ways = shares.iter().map(|share| {
        (
            share.from.clone(),
            everyone.ways(share, role, &[b"carol".to_vec()]),
        )
    });
    ways.collect()
}

#[test]
fn what_it_takes() {
    let ident = ident("m carol alice\nm /^d alice\nm root alice\n", Major::V16);
    let way = |method, certificate: Option<Holder>| Way {
        method,
        user: None,
        certificate,
        certain: true,
    };
    let holder = |name: &str| Some(Holder::Named(name.into()));
    // line, of whom it takes what
    let rows: [(&str, Vec<Way>); 7] = [
        ("hostssl app alice all reject", vec![]),
        ("hostssl app alice all trust", vec![way(Method::Trust, None)]),
        (
            "hostssl app alice all cert",
            vec![way(Method::Trust, holder("alice"))],
        ),
        (
            "hostssl app alice all cert map=m",
            vec![
                way(Method::Trust, holder("carol")),
                way(Method::Trust, holder("root")),
                way(Method::Trust, Some(Holder::Matching(b"/^d".to_vec()))),
            ],
        ),
        (
            "hostssl app alice all scram-sha-256 clientcert=verify-full",
            vec![way(Method::ScramSha256, holder("alice"))],
        ),
        (
            "hostssl app alice all trust clientcert=verify-ca",
            vec![way(Method::Trust, Some(Holder::Anybody))],
        ),
        ("hostssl app alice all md5", vec![way(Method::Md5, None)]),
    ];
    for (line, expected) in rows {
        let hba = hba(&format!("{line}\n"), Major::V16);
        let found = ways(&hba, &ident, Kind::Tcp(Encryption::Tls), &named("alice"));
        assert_eq!(found, [(Ranges::all(), expected)], "{line}");
    }
    let socket = hba("local app all peer\n", Major::V16);
    let peer = |user| Way {
        method: Method::Peer,
        user: Some(user),
        certificate: None,
        certain: true,
    };
    let found = ways(&socket, &ident, Kind::Local, &Name::Other);
    assert_eq!(found, [(Ranges::all(), vec![peer(Holder::LikeRole)])]);
    let mapped = hba("local app all peer map=m\n", Major::V16);
    let found = ways(&mapped, &ident, Kind::Local, &named("alice"));
    let by: Vec<&Option<Holder>> = found[0].1.iter().map(|way| &way.user).collect();
    assert_eq!(
        by,
        [
            &holder("carol"),
            &holder("root"),
            &Some(Holder::Matching(b"/^d".to_vec()))
        ]
    );
    assert_eq!(
        ways(&mapped, &ident, Kind::Local, &named("bob")),
        [(Ranges::all(), vec![])]
    );
}

#[test]
fn what_is_not_known_is_said() {
    let lines =
        "host app +staff 10.0.0.0/8 md5\nhost app alice .example.com trust\nhost app alice 10.0.0.0/7 md5\n";
    let (hba, ident) = (hba(lines, Major::V16), ident("", Major::V16));
    let everyone = Everyone::of(&hba, &ident, &crate::Nothing);
    let shares = everyone.shares(
        Kind::Tcp(Encryption::Tls),
        &Target::Database(named("app")),
        &named("alice"),
    );
    let seen: Vec<(usize, String, bool)> = shares
        .iter()
        .map(|s| (s.line.at.number, s.from.to_string(), s.doubt.is_some()))
        .collect();
    assert_eq!(
        seen,
        [
            (1, "10.0.0.0/8".to_owned(), true),
            (3, "11.0.0.0/8".to_owned(), false)
        ]
    );
    assert!(
        everyone
            .ways(&shares[0], &named("alice"), &[])
            .iter()
            .all(|way| !way.certain)
    );
    let passed: Vec<usize> = everyone.passed_over().map(|line| line.at.number).collect();
    assert_eq!(passed, [2]);
}
