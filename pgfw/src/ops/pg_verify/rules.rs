//! The filter's addresses against a server's rules, for all logins at once. Pure.

use ipnet::IpNet;
use pgfw_hba::{Address, Encryption, HbaLine, Interface, Kind, Left, Method, Pattern, Range, Ranges, Reach};

use super::listening::Listening;
use super::{Class, Verified};
use crate::config::{Login, Plaintext};

/// What the rules are compared with.
pub(super) struct Scene<'a> {
    /// `None`: everything passes.
    pub(super) admitted: Option<&'a Ranges>,
    /// What does not meet the filter.
    pub(super) here: Ranges,
    /// `None`: not known.
    pub(super) listening: Option<&'a Listening>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) logins: &'a [Login],
}

pub(super) fn compare(lines: &[Reach], scene: &Scene, verified: &mut Verified) {
    no_rule(lines, scene, verified);
    if let Some(listening) = scene.listening {
        no_listener(lines, listening, scene, verified);
    }
    for reach in lines.iter().filter(|reach| !is_net(reach.line)) {
        line(reach, lines, scene, verified);
    }
}

/// Addresses that get through and then nowhere.
fn no_rule(lines: &[Reach], scene: &Scene, verified: &mut Verified) {
    let Some(admitted) = scene.admitted else {
        return;
    };
    let answered = lines
        .iter()
        .filter(|reach| reach.line.method != Method::Reject)
        .fold(Ranges::none(), |all, reach| all.union(&reach.from()));
    let nowhere = admitted.without(&answered);
    if !nowhere.is_empty() {
        verified.find(
            Class::NoRule,
            format!("the filter admits {nowhere}, and no rule lets anybody in from there."),
        );
    }
}

/// Who is let through, or in, and finds nobody who listens.
fn no_listener(lines: &[Reach], listening: &Listening, scene: &Scene, verified: &mut Verified) {
    let reached = listening.reached_from();
    if let Some(admitted) = scene.admitted {
        let nowhere = admitted.without(&reached);
        if !nowhere.is_empty() {
            verified.find(
                Class::NoListener,
                format!(
                    "the filter admits {nowhere}, and nobody reaches what the server listens on from there: {}.",
                    listening.shown()
                ),
            );
        }
    }
    for reach in lines.iter().filter(|reach| reach.line.method != Method::Reject) {
        let own = reach
            .line
            .address
            .as_ref()
            .and_then(|a| a.ranges(Some(&scene.interfaces)));
        let is_for_nobody = own.is_some_and(|own| own.within(&reached).is_empty());
        if is_for_nobody && !reach.is_shadowed() {
            verified.find(
                Class::NoListener,
                format!(
                    "{}: nobody reaches what the server listens on from its addresses: {}.",
                    named(reach.line),
                    listening.shown()
                ),
            );
        }
    }
}

/// A reject of everything is the net under the others, and does its work where nothing comes to it.
fn is_net(line: &HbaLine) -> bool {
    let everything = |patterns: &[Pattern]| {
        patterns
            .iter()
            .all(|p| matches!(p.keyword(), Some(b"all" | b"replication")))
    };
    line.method == Method::Reject
        && everything(&line.databases)
        && everything(&line.roles)
        && matches!(line.address, None | Some(Address::All))
}

fn line(reach: &Reach, lines: &[Reach], scene: &Scene, verified: &mut Verified) {
    let line = reach.line;
    let rejects = line.method == Method::Reject;
    if reach.is_shadowed() {
        let by: Vec<String> = reach
            .taken_by
            .iter()
            .map(|place| named(lines[*place].line))
            .collect();
        let (class, what) = match rejects {
            true => (Class::IdleReject, "rejects nothing"),
            false => (Class::Shadowed, "lets nobody in"),
        };
        let by = match by.as_slice() {
            // Without one before it: nobody can come so at all.
            [] => "nobody can come that way (ssl = off, or a name that is too long)".to_owned(),
            by => format!("all of it is decided before, by {}", by.join("; ")),
        };
        verified.find(class, format!("{} {what}: {by}.", named(line)));
        return;
    }
    let Some(address) = &line.address else {
        if !rejects {
            verified.one_layer.push(format!(
                "rules only: {} is for the Unix socket, which the filter does not see",
                named(line)
            ));
        }
        return;
    };
    let own = address.ranges(Some(&scene.interfaces));
    let arrives = scene.admitted.map(|admitted| admitted.union(&scene.here));
    if let Some((own, arrives)) = own.as_ref().zip(arrives.as_ref())
        && own.within(arrives).is_empty()
    {
        let class = if rejects {
            Class::IdleReject
        } else {
            Class::CannotArrive
        };
        verified.find(
            class,
            format!("{}: the filter admits none of its addresses.", named(line)),
        );
        return;
    }
    if rejects {
        return;
    }
    let others = own.as_ref().map(|own| own.without(&scene.here));
    if matches!(address, Address::All) {
        verified
            .one_layer
            .push(format!("filter only: {} is for every address", named(line)));
    } else if others.is_some_and(|others| others.is_empty()) {
        verified.one_layer.push(format!(
            "rules only: {} is for this host, which nothing filters",
            named(line)
        ));
    }
    plaintext(reach, arrives.as_ref(), scene, verified);
}

/// Where somebody gets in without TLS whom no login asks for.
fn plaintext(reach: &Reach, arrives: Option<&Ranges>, scene: &Scene, verified: &mut Verified) {
    for left in reach
        .left
        .iter()
        .filter(|left| left.kind == Kind::Tcp(Encryption::None))
    {
        let from = match arrives {
            Some(arrives) => left.from.within(arrives),
            None => left.from.clone(),
        };
        let asked = scene
            .logins
            .iter()
            .filter(|login| login.plaintext == Plaintext::Loopback && covers(login, left))
            .fold(Ranges::none(), |all, login| {
                all.union(&Ranges::of(
                    login.networks.iter().filter(|net| is_loopback(net)).map(range),
                ))
            });
        let beyond = from.without(&asked);
        if !beyond.is_empty() {
            let text = |pattern: &Pattern| String::from_utf8_lossy(&pattern.token.text).into_owned();
            verified.find(
                Class::Plaintext,
                format!(
                    "{} lets {} into {} without TLS from {beyond}, and no [[login]] asks for that.",
                    named(reach.line),
                    text(left.role),
                    text(left.database)
                ),
            );
        }
    }
}

/// Whether a login is for that role and database.
fn covers(login: &Login, left: &Left) -> bool {
    let literal = |pattern: &Pattern, names: &[String]| {
        pattern.expression.is_none() && names.iter().any(|name| name.as_bytes() == pattern.token.text)
    };
    let role = literal(left.role, &login.roles);
    let database = match left.database.keyword() {
        Some(b"replication") => login.replication,
        Some(b"all") => login.databases.is_none(),
        Some(_) | None => login
            .databases
            .as_ref()
            .is_none_or(|databases| literal(left.database, databases)),
    };
    role && database
}

fn is_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.network().is_loopback() && v4.broadcast().is_loopback(),
        IpNet::V6(v6) => v6.prefix_len() == 128 && v6.network().is_loopback(),
    }
}

fn range(net: &IpNet) -> Range {
    Range {
        first: net.network(),
        last: net.broadcast(),
    }
}

fn named(line: &HbaLine) -> String {
    let text = String::from_utf8_lossy(&line.raw).trim().to_owned();
    let file = line
        .at
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    format!("{file} line {} (`{text}`)", line.at.number)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pgfw_hba::{Hba, Major, Memory, Nothing, Server, reach};

    use super::*;
    use crate::config::Config;

    const LOGIN: &str = "[[login]]\nname = \"exporter\"\nmethod = \"scram-sha-256\"\ndatabases = [\"app\"]\n\
                         networks = [\"127.0.0.1/32\"]\nplaintext = \"loopback\"\n";

    fn ranges(nets: &[&str]) -> Ranges {
        Ranges::of(nets.iter().map(|net| range(&net.parse().unwrap())))
    }

    fn verified(hba: &str, admitted: &[&str]) -> Verified {
        let files = Memory::of([("/hba", hba)]);
        let hba = Hba::read(Path::new("/hba"), &files, &Server::of(Major::V16));
        assert!(hba.errors.is_empty(), "{:?}", hba.errors);
        let config = Config::parse(LOGIN, Path::new("pgfw.toml")).unwrap();
        let admitted = ranges(admitted);
        let scene = Scene {
            admitted: Some(&admitted),
            here: ranges(&["127.0.0.0/8", "10.10.0.10/32"]),
            listening: None,
            interfaces: Vec::new(),
            logins: &config.logins,
        };
        let mut verified = Verified::default();
        compare(&reach(&hba, &Nothing), &scene, &mut verified);
        verified
    }

    #[test]
    fn disagreements() {
        use Class::{CannotArrive, IdleReject, NoRule, Plaintext, Shadowed};
        let net = "host all all all reject\nhost replication all all reject\n";
        // lines before the last rejects, what the filter admits, what is found
        let rows: [(&str, &[&str], &[Class]); 15] = [
            ("hostssl app alice 10.0.0.0/8 cert", &["10.0.0.0/8"], &[]),
            (
                "hostssl app alice 10.0.0.0/8 cert",
                &["10.0.0.0/8", "11.0.0.0/32"],
                &[NoRule],
            ),
            ("hostssl app alice 10.0.0.0/8 cert", &["10.1.0.0/16"], &[]),
            (
                "hostssl app alice 10.0.0.0/16 cert",
                &["10.1.0.0/16"],
                &[NoRule, CannotArrive],
            ),
            // A host name may be any address.
            ("hostssl app alice db.example.com cert", &["10.1.0.0/16"], &[]),
            (
                "hostssl app alice all cert\nhostssl app alice 10.0.0.0/8 cert",
                &["10.0.0.0/8"],
                &[Shadowed],
            ),
            (
                "host app alice all reject\nhostssl app all all cert",
                &["10.0.0.0/8"],
                &[],
            ),
            (
                "hostssl app all all cert\nhostssl app alice all reject",
                &["10.0.0.0/8"],
                &[IdleReject],
            ),
            (
                "hostssl app all all cert\nhost app alice 11.0.0.0/8 reject",
                &["10.0.0.0/8"],
                &[IdleReject],
            ),
            (
                "hostssl all all all cert\nhost app alice 10.0.0.0/8 scram-sha-256",
                &["10.0.0.0/8"],
                &[Plaintext],
            ),
            (
                "hostssl all all all cert\nhost app exporter 127.0.0.1/32 scram-sha-256",
                &["10.0.0.0/8"],
                &[],
            ),
            (
                "hostssl all all all cert\nhost app exporter 127.0.0.0/31 scram-sha-256",
                &["10.0.0.0/8"],
                &[Plaintext],
            ),
            (
                "hostssl all all all cert\nhost all exporter 127.0.0.1/32 scram-sha-256",
                &["10.0.0.0/8"],
                &[Plaintext],
            ),
            (
                "hostssl all all all cert\nhostgssenc all all all gss",
                &["10.0.0.0/8"],
                &[],
            ),
            (
                "hostssl all all 10.0.0.0/8 cert\nhost app alice 10.10.0.10/32 reject",
                &["10.0.0.0/8"],
                &[],
            ),
        ];
        for (lines, admitted, expected) in rows {
            let found = verified(&format!("{lines}\n{net}"), admitted);
            let classes: Vec<Class> = found.findings.iter().map(|f| f.class).collect();
            assert_eq!(classes, expected, "{lines}: {:?}", found.findings);
        }
    }

    #[test]
    fn what_one_layer_guards() {
        let lines = "local all all peer\nhostssl app alice all cert\nhost app exporter 127.0.0.1/32 md5\n\
                     hostssl app bob 10.0.0.0/8 cert\nlocal all all reject\nhost all all all reject\n";
        let found = verified(lines, &["10.0.0.0/8"]);
        let begins: Vec<&str> = found.one_layer.iter().map(|l| &l[..20]).collect();
        assert_eq!(
            begins,
            [
                "rules only: hba line ",
                "filter only: hba lin",
                "rules only: hba line "
            ]
            .map(|s| &s[..20])
        );
        assert!(found.findings.is_empty(), "{:?}", found.findings);
    }
}
