//! What an adopted configuration admits is what pg_hba.conf admitted, where no comment says otherwise: random files,
//! every role and database, addresses at both ends.

use proptest::prelude::*;

use super::*;

const ADDRESSES: [&str; 9] = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "10.0.0.1",
    "10.1.2.3",
    "192.168.1.7",
    "192.168.1.99",
    "198.51.100.1",
    "fd00::1",
];

fn databases() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "all",
        "all",
        "app",
        "alice",
        "sameuser",
        "samerole",
        "replication",
        "all,replication",
        "\"all\"",
        "app,postgres",
        "\"my db\"",
        "/^a",
        "nosuch",
    ])
}

fn roles() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "all",
        "all",
        "alice",
        "bob",
        "+grp",
        "\"my role\"",
        "\"quo\"\"te\"",
        "alice,bob",
        "carol",
        "\"a/slash\"",
        "/^.o",
        "\"all\"",
        "nosuch,alice",
    ])
}

fn addresses() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "all",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "127.0.0.1/32",
        "127.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "::1/128",
        "samehost",
        "samenet",
        "10.0.0.0 255.0.255.0",
        "192.168.1.0/24",
        "10.1.2.3/8",
    ])
}

fn line() -> impl Strategy<Value = String> {
    let methods = prop::sample::select(vec![
        "scram-sha-256",
        "scram-sha-256",
        "md5",
        "password",
        "trust",
        "reject",
        "reject",
        "pam",
        "ident",
    ]);
    let types = prop::sample::select(vec!["host", "host", "hostssl", "hostnossl", "hostnogssenc"]);
    let local = prop::sample::select(vec![
        "peer",
        "trust",
        "md5",
        "scram-sha-256",
        "reject",
        "peer map=m",
    ]);
    prop_oneof![
        6 => (types, databases(), roles(), addresses(), methods)
            .prop_map(|(t, d, r, a, m)| format!("{t} {d} {r} {a} {m}")),
        1 => (databases(), roles(), local).prop_map(|(d, r, m)| format!("local {d} {r} {m}")),
        1 => (databases(), roles(), addresses())
            .prop_map(|(d, r, a)| format!("hostssl {d} {r} {a} md5 clientcert=verify-ca")),
    ]
}

/// The line that decides, if it lets anybody in.
fn decided<'h>(hba: &'h Hba, login: &Login) -> Option<&'h HbaLine> {
    match hba.decide(login, &Here) {
        Decision::Line(line) if line.method == pgfw_hba::Method::Reject => None,
        Decision::Line(line) => Some(line),
        Decision::NoLine => None,
        Decision::Undecided { line, doubt } => panic!("{line:?}: {doubt:?}"),
    }
}

/// By what a login is asked for its proof, as far as pgfw.toml tells methods apart.
fn proof(line: &HbaLine) -> &'static str {
    if line.method == pgfw_hba::Method::Password {
        "md5"
    } else {
        line.method.name()
    }
}

/// What is said to be otherwise about a line.
fn differences(translation: &Translation, line: &HbaLine) -> Vec<String> {
    let at = line.at.to_string();
    let of_lines = translation.lines.iter().map(|l| (&l.at, &l.what.notes));
    let of_local = translation.local.iter().map(|l| (&l.at, &l.what.notes));
    let found = of_lines.chain(of_local).filter(|(place, _)| **place == at);
    let notes = found.flat_map(|(_, notes)| notes).filter(|note| note.differs);
    notes.map(|note| note.text.clone()).collect()
}

/// How a login is let in afterwards, given what lets it in before and what is said about that.
fn expected<'e>(
    before: Option<&HbaLine>,
    in_plaintext: Option<&HbaLine>,
    login: &Login,
    translation: &Translation,
) -> Vec<Option<&'e str>> {
    let says = |line: &HbaLine, words: &str| differences(translation, line).iter().any(|d| d.contains(words));
    let plaintext_from_elsewhere = match login.from {
        From::Local => false,
        From::Tcp { address, encryption } => encryption == Encryption::None && !address.is_loopback(),
    };
    let Some(line) = before else {
        // Who may come in plaintext alone comes by TLS.
        let turned = in_plaintext.filter(|line| says(line, "for plaintext alone"));
        return match turned {
            Some(line) => vec![None, Some(proof(line))],
            None => vec![None],
        };
    };
    let by_tls = "is refused then: by TLS another line decides there";
    let refused_then = says(line, "refused then:") && !says(line, by_tls);
    if says(line, "not carried over") || refused_then || plaintext_from_elsewhere {
        return vec![None];
    }
    if gets_nowhere(login, line) {
        return vec![None, Some(proof(line))];
    }
    if says(line, by_tls)
        && matches!(
            login.from,
            From::Tcp {
                address: _,
                encryption: Encryption::None
            }
        )
    {
        return vec![None, Some(proof(line))];
    }
    vec![Some(proof(line))]
}

/// carol has no password, and only alice and carol may replicate: what a line for all of them says is nothing to them.
fn gets_nowhere(login: &Login, line: &HbaLine) -> bool {
    let named = line
        .roles
        .iter()
        .any(|p| super::super::table::literal_role(p) == Some(login.role));
    let replicates = matches!(login.role, b"alice" | b"carol");
    let tcp = login.from != From::Local;
    tcp && !named && (login.role == b"carol" || (login.replication && !replicates))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_adopted_admits_what_was_admitted(lines in prop::collection::vec(line(), 1..7), major in 15_u16..=16) {
        let text = lines.join("\n") + "\n";
        let (before, ident) = read(&text, "m somebody alice\n", major);
        let translation = translate(&before, &ident, &Known { major, ..known() }, &Here, true, "postgres");
        let adopted = super::super::write::write(vec![draft(translation.clone(), major)], Vec::new())
            .map_err(|f| TestCaseError::fail(f.to_string()))?;
        let config = Config::parse(&adopted.text, Path::new("pgfw.toml")).expect("pgfw reads it");
        let cells = access::compile(&config).expect("it can be rendered");
        let marker = marker("0");
        let files = render(&Input {
            cluster: &config.postgres[0],
            cells: &cells,
            major,
            operator: "root",
            owner: "postgres",
            superuser: "postgres",
            marker: &marker,
        });
        let files = files.expect("it can be rendered");
        let (after, _) = read(&files.hba, &files.ident, major);
        // Whether the rest of a file decides is not known of a line whose addresses are no networks.
        let vague = translation.lines.iter().any(|l| says_addresses(&l.what));
        for role in ROLES {
            for (database, replication) in DATABASES.map(|d| (d, false)).into_iter().chain([("", true)]) {
                let tcp = ADDRESSES.iter().flat_map(|a| {
                    let address: IpAddr = a.parse().expect("an address");
                    [Encryption::None, Encryption::Tls].map(|encryption| From::Tcp { address, encryption })
                });
                for from in tcp.chain([From::Local]) {
                    let login = Login { from, database: database.as_bytes(), role: role.as_bytes(), replication };
                    let was = decided(&before, &login);
                    let plain = match from {
                        From::Tcp { address, encryption: _ } => {
                            let from = From::Tcp { address, encryption: Encryption::None };
                            decided(&before, &Login { from, ..login })
                        }
                        From::Local => None,
                    };
                    let is = decided(&after, &login).map(proof);
                    let fits = expected(was, plain, &login, &translation);
                    if vague && from != From::Local {
                        // Below such a line, its own addresses go by the lines that follow; the others as ever.
                        let From::Tcp { address, encryption: _ } = from else { continue };
                        if matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10 && v4.octets()[2] == 0) {
                            continue;
                        }
                                            }
                    prop_assert!(
                        fits.contains(&is),
                        "{:?} as {} to {:?}: {:?} instead of {:?} for\n{}\n{}\n{}",
                        from, role, database, is, fits, text, adopted.text, files.hba
                    );
                }
            }
        }
    }
}

/// 10.0.0.0 under a mask of 255.0.255.0: 10.*.0.*.
fn says_addresses(of: &OfLine) -> bool {
    of.notes
        .iter()
        .any(|note| note.text.contains("its mask has holes"))
}
