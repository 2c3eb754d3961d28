//! Access in words.

use pgfw_hba::{Encryption, Holder, Kind, Method, Name, Ranges, Target};
use serde::{Deserialize, Serialize};

use super::access::{Atoms, By, Group};

/// Whoever satisfies one of `by`, from one of these networks, over one of these connections, may become any of these
/// roles in any of these databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub roles: Names,
    pub databases: Names,
    /// In the database that is called as the role is.
    pub own_database: bool,
    /// Physical replication.
    pub replication: bool,
    /// In words, such as `certificate alice`.
    pub by: Vec<String>,
    /// Networks; ranges `FIRST-LAST` where that takes many. Empty for a Unix socket.
    pub from: Vec<String>,
    pub over: Vec<Over>,
}

/// Of roles or databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub names: Vec<String>,
    /// Those too that no rule tells apart.
    pub others: bool,
    /// It is all there are.
    pub all: bool,
}

/// How a connection comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    Socket,
    /// TCP without encryption.
    Plaintext,
    Tls,
    /// GSSAPI's own encryption.
    Gss,
}

impl Row {
    pub(super) fn of(group: &Group, atoms: &Atoms) -> Row {
        let Group {
            roles,
            targets,
            by,
            kinds,
            from,
        } = group;
        let databases = |targets: &std::collections::BTreeSet<Target>| -> Vec<Name> {
            let all = targets.iter().filter_map(|target| match target {
                Target::Database(name) => Some(name.clone()),
                Target::Own | Target::Replication => None,
            });
            all.collect()
        };
        let every = databases(&atoms.targets).len();
        let mut proofs: Vec<String> = by.iter().map(|by| in_words(by, roles.iter())).collect();
        proofs.sort();
        Row {
            roles: Names::of(roles.iter(), atoms.roles.len()),
            databases: Names::of(databases(targets).iter(), every),
            own_database: targets.contains(&Target::Own),
            replication: targets.contains(&Target::Replication),
            by: proofs,
            from: match kinds.iter().all(|kind| *kind == Kind::Local) {
                true => Vec::new(),
                false => networks(from),
            },
            over: kinds.iter().map(|kind| Over::of(*kind)).collect(),
        }
    }
}

impl Names {
    fn of<'n>(names: impl Iterator<Item = &'n Name>, every: usize) -> Names {
        let (mut all, mut others, mut count) = (Vec::new(), false, 0);
        for name in names {
            count += 1;
            match name {
                Name::Named(name) => all.push(String::from_utf8_lossy(name).into_owned()),
                Name::Other => others = true,
            }
        }
        Names {
            names: all,
            others,
            all: others && count == every,
        }
    }
}

impl Over {
    fn of(kind: Kind) -> Over {
        match kind {
            Kind::Local => Over::Socket,
            Kind::Tcp(Encryption::None) => Over::Plaintext,
            Kind::Tcp(Encryption::Tls) => Over::Tls,
            Kind::Tcp(Encryption::Gss) => Over::Gss,
        }
    }
}

pub(super) fn networks(from: &Ranges) -> Vec<String> {
    let shown = from.to_string();
    shown
        .split(", ")
        .filter(|net| !net.is_empty())
        .map(str::to_owned)
        .collect()
}

fn in_words<'n>(by: &By, mut roles: impl Iterator<Item = &'n Name>) -> String {
    let By { way, foreign } = by;
    let only = match (roles.next(), roles.next()) {
        (Some(Name::Named(role)), None) => Some(role),
        (_, _) => None,
    };
    let named = |what: &str, holder: &Holder| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match holder {
            Holder::Anybody => format!("any {what}"),
            Holder::Named(name) => format!("{what} {}", text(name)),
            Holder::LikeRole => match only {
                Some(role) => format!("{what} {}", text(role)),
                None => format!("{what} of the role's name"),
            },
            Holder::Matching(expression) => format!("{what} that matches {}", text(expression)),
        }
    };
    let mut proof = match way.method {
        Method::Trust if way.certificate.is_some() => Vec::new(),
        Method::Trust => vec!["no proof at all".to_owned()],
        Method::Password | Method::Md5 | Method::ScramSha256 => {
            vec![format!("password ({})", way.method.name())]
        }
        Method::Peer => vec![named("OS user", way.user.as_ref().unwrap_or(&Holder::Anybody))],
        Method::Ident => vec![named("ident user", way.user.as_ref().unwrap_or(&Holder::Anybody))],
        Method::Reject
        | Method::Gss
        | Method::Pam
        | Method::Ldap
        | Method::Cert
        | Method::Radius
        | Method::Oauth => vec![way.method.name().to_owned()],
    };
    proof.extend(way.certificate.as_ref().map(|holder| {
        let authority = if *foreign { " of another authority" } else { "" };
        format!("{}{authority}", named("certificate", holder))
    }));
    let doubt = if way.certain { "" } else { " (perhaps)" };
    format!("{}{doubt}", proof.join(" and "))
}
