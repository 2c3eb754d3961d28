//! Access cells: who may use which database as which role from where, cut into pieces that do not overlap.
//!
//! PostgreSQL takes the first line of pg_hba.conf that matches (database, role, address) and never looks further,
//! so two lines that overlap shadow each other: with one map for a role its identities gain each other's databases,
//! with one map an identity the first line locks the second out. A cell is a piece of that space together with
//! *everyone* who may use it; one line with one map says it exactly.
//!
//! The configuration has no key that ties an identity to a cluster: each cluster gets the same cells.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use crate::config::{Config, Identity, Login, Method, Plaintext};
use crate::failure::{Code, Explain};

/// One piece of the space, and who may use it. In a list of cells the first match decides, as in pg_hba.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub transport: Transport,
    pub role: String,
    pub databases: Databases,
    pub source: Source,
    pub admits: Admits,
}

/// Whether a cell is about connections with TLS or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Tls,
    /// Only ever loopback addresses, for a login that asks for it.
    Plaintext,
}

/// What a cell's sessions may connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Databases {
    Named(BTreeSet<String>),
    /// Every database that no earlier cell of the role names.
    All,
    /// Physical replication: no database (`all` does not include it).
    Replication,
}

/// Where a cell's sessions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Net(IpNet),
    /// Any address of either family.
    Any,
}

/// How one gets in, and who does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admits {
    /// The identities (certificate CNs), no other.
    Certificates(BTreeSet<String>),
    /// Whoever knows the role's password; `logins` are the sections that ask for it.
    Password {
        method: Method,
        logins: BTreeSet<String>,
    },
}

/// Cuts identities and logins into disjoint cells, most specific first.
///
/// # Errors
/// [`AccessError`]: what pg_hba.conf cannot express, with the key that asks for it.
pub fn compile(config: &Config) -> Result<Vec<Cell>, AccessError> {
    let mut tls: Vec<Claim> = config.identities.iter().map(Claim::identity).collect();
    let mut plaintext = Vec::new();
    for login in &config.logins {
        if login.networks.is_empty() {
            return Err(AccessError::NoNetworks {
                login: login.name.clone(),
            });
        }
        tls.push(Claim::login(login, login.networks.clone()));
        match login.plaintext {
            Plaintext::Never => {}
            Plaintext::Loopback => {
                let loopback = on_loopback(&login.networks);
                if loopback.is_empty() {
                    return Err(AccessError::NoLoopback {
                        login: login.name.clone(),
                    });
                }
                plaintext.push(Claim::login(login, loopback));
            }
        }
    }
    let mut cells = Vec::new();
    for (transport, claims) in [(Transport::Tls, tls), (Transport::Plaintext, plaintext)] {
        let roles: BTreeSet<&str> = claims.iter().flat_map(|c| c.roles).map(String::as_str).collect();
        for role in roles {
            let of_role: Vec<&Claim> = claims
                .iter()
                .filter(|c| c.roles.iter().any(|r| r == role))
                .collect();
            cells.extend(cells_of_role(transport, role, &of_role)?);
        }
    }
    Ok(cells)
}

impl Source {
    /// Whether every address of `other` is one of `self`.
    pub fn covers(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Any, Source::Any | Source::Net(_)) => true,
            (Source::Net(_), Source::Any) => false,
            (Source::Net(a), Source::Net(b)) => a.contains(b),
        }
    }
    /// Itself, then what covers it, the nearest first.
    fn and_around(self) -> impl Iterator<Item = Source> {
        let own = match self {
            Source::Any => None,
            Source::Net(net) => Some(net),
        };
        let nets = std::iter::successors(own, IpNet::supernet);
        nets.map(Source::Net).chain([Source::Any])
    }

    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        match self {
            Source::Any => true,
            Source::Net(net) => net.contains(&address),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Any => f.write_str("all"),
            Source::Net(net) => net.fmt(f),
        }
    }
}

/// What pg_hba.conf cannot say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error(
        "{first} and {second} both open {place}, where PostgreSQL asks for one authentication method only \
         (key login.networks of `{login}`)"
    )]
    TwoMethods {
        first: String,
        second: String,
        login: String,
        place: String,
    },
    #[error("login `{login}` has no networks (key login.networks)")]
    NoNetworks { login: String },
    #[error(
        "login `{login}` asks for plaintext on loopback, but none of its networks is there (key login.plaintext)"
    )]
    NoLoopback { login: String },
}

impl Explain for AccessError {
    fn code(&self) -> Code {
        Code::Invalid
    }
    fn remedy(&self) -> String {
        match self {
            AccessError::TwoMethods {
                first,
                second,
                login: _,
                place: _,
            } => format!("Keep the roles, the databases or the networks of {first} and {second} apart."),
            AccessError::NoNetworks { login } => {
                format!(
                    "List the networks `{login}` comes from, or 127.0.0.1/32 and ::1/128 for this host alone."
                )
            }
            AccessError::NoLoopback { login } => format!(
                "Add 127.0.0.1/32 or ::1/128 to the networks of `{login}`, or set plaintext = \"never\"."
            ),
        }
    }
}

/// An identity's or a login's demand, in the same words.
struct Claim<'a> {
    name: &'a str,
    /// `None`: a certificate.
    password: Option<Method>,
    roles: &'a [String],
    databases: Option<&'a [String]>,
    replication: bool,
    sources: Vec<Source>,
}

impl<'a> Claim<'a> {
    fn identity(identity: &'a Identity) -> Claim<'a> {
        let anywhere = identity.roaming || identity.networks.is_empty();
        Claim {
            name: &identity.name,
            password: None,
            roles: &identity.roles,
            databases: identity.databases.as_deref(),
            replication: identity.replication,
            sources: if anywhere {
                vec![Source::Any]
            } else {
                identity.networks.iter().copied().map(Source::Net).collect()
            },
        }
    }

    fn login(login: &'a Login, networks: Vec<IpNet>) -> Claim<'a> {
        Claim {
            name: &login.name,
            password: Some(login.method),
            roles: &login.roles,
            databases: login.databases.as_deref(),
            replication: login.replication,
            sources: networks.into_iter().map(Source::Net).collect(),
        }
    }

    fn title(&self) -> String {
        let kind = if self.password.is_some() {
            "login"
        } else {
            "identity"
        };
        format!("{kind} `{}`", self.name)
    }
}

/// One role's cells. Roles never share a line, so each is cut alone.
fn cells_of_role(transport: Transport, role: &str, claims: &[&Claim]) -> Result<Vec<Cell>, AccessError> {
    let named: BTreeSet<&str> = claims
        .iter()
        .filter_map(|c| c.databases)
        .flatten()
        .map(String::as_str)
        .collect();
    let everywhere = holders(claims, |c| c.databases.is_none());
    let everywhere = slices(&everywhere, role, "all databases")?;

    // Databases that the same people reach from the same places share a line.
    let mut groups: BTreeMap<Vec<(Source, Admits)>, BTreeSet<String>> = BTreeMap::new();
    for database in named {
        let of_database = holders(claims, |c| {
            c.databases.is_none_or(|d| d.iter().any(|n| n == database))
        });
        let slices = slices(&of_database, role, &format!("database `{database}`"))?;
        // A name that adds nobody to "all" needs no line of its own.
        if slices != everywhere {
            groups.entry(slices).or_default().insert(database.to_owned());
        }
    }
    let replication = holders(claims, |c| c.replication);
    let replication = slices(&replication, role, "physical replication")?;

    let mut groups: Vec<(Databases, Vec<(Source, Admits)>)> = groups
        .into_iter()
        .map(|(slices, names)| (Databases::Named(names), slices))
        .collect();
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    groups.push((Databases::All, everywhere));
    groups.push((Databases::Replication, replication));

    let cell = |databases: &Databases, (source, admits)| Cell {
        transport,
        role: role.to_owned(),
        databases: databases.clone(),
        source,
        admits,
    };
    Ok(groups
        .into_iter()
        .flat_map(|(databases, slices)| {
            slices
                .into_iter()
                .map(move |s| cell(&databases, s))
                .collect::<Vec<_>>()
        })
        .collect())
}

fn holders<'a, 'c>(claims: &[&'a Claim<'c>], holds: impl Fn(&Claim) -> bool) -> Vec<&'a Claim<'c>> {
    claims.iter().copied().filter(|c| holds(c)).collect()
}

/// Cuts the address space along everyone's networks: the longest prefix first, each with everyone whose networks
/// cover it. Prefixes nest or are disjoint, so the first that holds an address is inside every other that does.
fn slices(claims: &[&Claim], role: &str, database: &str) -> Result<Vec<(Source, Admits)>, AccessError> {
    let mut cuts: Vec<Source> = claims.iter().flat_map(|c| c.sources.iter().copied()).collect();
    cuts.sort_by_key(|s| (std::cmp::Reverse(specificity(s)), *s));
    cuts.dedup();

    // What covers a cut is found by its own shorter prefixes: there are files with tens of thousands of lines.
    let mut claimed: HashMap<Source, Vec<usize>> = HashMap::new();
    for (place, claim) in claims.iter().enumerate() {
        for source in &claim.sources {
            claimed.entry(*source).or_default().push(place);
        }
    }
    let mut slices: Vec<(Source, Admits)> = Vec::new();
    let mut places: HashMap<Source, usize> = HashMap::new();
    // From the widest: a prefix that changes nothing against the nearest one around it is left out.
    for cut in cuts.into_iter().rev() {
        let inside: BTreeSet<usize> = cut
            .and_around()
            .filter_map(|source| claimed.get(&source))
            .flatten()
            .copied()
            .collect();
        let inside: Vec<&Claim> = inside.into_iter().map(|place| claims[place]).collect();
        let admits = admitted(&inside, role, database, cut)?;
        let around = cut.and_around().find_map(|source| places.get(&source));
        if around.is_none_or(|place| slices[*place].1 != admits) {
            places.insert(cut, slices.len());
            slices.push((cut, admits));
        }
    }
    slices.reverse();
    Ok(slices)
}

/// 0 for any address, then the prefix length: the order in which lines have to stand.
fn specificity(source: &Source) -> u16 {
    match source {
        Source::Any => 0,
        Source::Net(net) => 1 + u16::from(net.prefix_len()),
    }
}

/// Everyone in one slice, if one method serves them all.
fn admitted(inside: &[&Claim], role: &str, database: &str, source: Source) -> Result<Admits, AccessError> {
    let first = inside.first().expect("a cut comes from a claim, which covers it");
    if let Some(second) = inside.iter().find(|c| c.password != first.password) {
        let login = if second.password.is_some() { second } else { first };
        return Err(AccessError::TwoMethods {
            first: first.title(),
            second: second.title(),
            login: login.name.to_owned(),
            place: format!("role `{role}` in {database} from {source}"),
        });
    }
    let names = inside.iter().map(|c| c.name.to_owned()).collect();
    Ok(match first.password {
        None => Admits::Certificates(names),
        Some(method) => Admits::Password {
            method,
            logins: names,
        },
    })
}

/// What of `networks` is this host's loopback (RFC 1122 3.2.1.3, RFC 4291 2.5.3).
fn on_loopback(networks: &[IpNet]) -> Vec<IpNet> {
    let loopback: [IpNet; 2] = [
        "127.0.0.0/8".parse().expect("a network"),
        "::1/128".parse().expect("a network"),
    ];
    let mut all = Vec::new();
    for net in networks {
        for lo in &loopback {
            let part = if lo.contains(net) {
                *net
            } else if net.contains(lo) {
                *lo
            } else {
                continue;
            };
            if !all.contains(&part) {
                all.push(part);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests;
