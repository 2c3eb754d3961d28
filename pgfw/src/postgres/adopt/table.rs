//! Who gets in by which line, for every role and database that there is. Pure.
//!
//! A `[[login]]` names roles and databases; a line of pg_hba.conf may say `all`, `+group`, `sameuser`, or an expression,
//! and earlier lines take away from it. So each pair of a role and a database is taken through all lines, over ranges of
//! addresses: what a line is left with is exact, as of today.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use pgfw_hba::{
    Address, Connection, Encryption, From, HbaLine, Kind, Login, Pattern, Range, Ranges, Token, Truth, World,
};

use super::fate::{Fate, fate};
use super::{Known, Role, Secret};
use crate::config::Method;

/// What somebody connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Database(Vec<u8>),
    /// A database that no line names and that does not exist yet.
    Another,
    Replication,
}

/// A role, and whether a server that was asked has it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) role: Role,
    pub(super) exists: bool,
}

/// The addresses of a line.
#[derive(Debug, Clone)]
pub(super) struct Where {
    /// `None`: no set of networks.
    pub(super) ranges: Option<Ranges>,
    /// What it holds today only, and why it is none: a sentence without its end.
    pub(super) note: Option<String>,
}

/// What comes to a line for one role and one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// By TLS, once there is TLS.
    pub(super) tls: Ranges,
    /// In plaintext, on loopback.
    pub(super) plain: Ranges,
    /// In plaintext from elsewhere.
    pub(super) lost: Ranges,
    /// What of `tls` comes in plaintext alone today.
    pub(super) turned: Ranges,
}

/// All lines' parts for one role and one target, and what they come to by each method: TLS, plaintext.
#[derive(Debug)]
struct Decided {
    parts: Vec<(usize, Part)>,
    scram: (Ranges, Ranges),
    md5: (Ranges, Ranges),
}

impl Decided {
    /// They are in the order of the lines.
    fn part(&self, line: usize) -> Option<&Part> {
        let found = self.parts.binary_search_by_key(&line, |(n, _)| *n);
        found.ok().map(|place| &self.parts[place].1)
    }
}

/// The whole table.
pub(super) struct Table<'a> {
    pub(super) lines: &'a [HbaLine],
    pub(super) places: Vec<Where>,
    pub(super) fates: Vec<Fate>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) targets: Vec<Target>,
    /// What is not known about a line's roles and databases.
    pub(super) doubts: Vec<Option<String>>,
    pairs: Vec<Rc<Decided>>,
}

impl<'a> Table<'a> {
    /// `ssl`: the server speaks TLS today; otherwise nobody comes to a `hostssl` line.
    pub(super) fn of(lines: &'a [HbaLine], known: &Known, world: &dyn World, ssl: bool) -> Table<'a> {
        let candidates = candidates(lines, known);
        let targets = targets(lines, known, &candidates);
        let places: Vec<Where> = lines.iter().map(|line| place(line, world)).collect();
        let mut table = Table {
            fates: lines.iter().map(fate).collect(),
            doubts: vec![None; lines.len()],
            pairs: Vec::with_capacity(candidates.len() * targets.len()),
            lines,
            places,
            candidates,
            targets,
        };
        let shapes: Vec<Shape> = lines.iter().map(Shape::of).collect();
        let mut seen: HashMap<Vec<usize>, Rc<Decided>> = HashMap::new();
        for candidate in &table.candidates {
            let role = &candidate.role.name;
            let of_role: Vec<Truth> = shapes.iter().map(|shape| shape.role(role, world)).collect();
            for target in &table.targets {
                let mut matching = Vec::new();
                for (n, shape) in shapes.iter().enumerate() {
                    match (of_role[n].clone(), shape.target(role, target, world)) {
                        (_, Truth::No) | (Truth::No, Truth::Yes | Truth::Unknown(_)) => {}
                        (Truth::Yes, Truth::Yes) => matching.push(n),
                        (Truth::Unknown(doubt), _) | (_, Truth::Unknown(doubt)) => {
                            table.doubts[n].get_or_insert(doubt.0);
                        }
                    }
                }
                let decided = seen.entry(matching).or_insert_with_key(|matching| {
                    Rc::new(decide(lines, &table.places, &table.fates, matching, ssl))
                });
                table.pairs.push(Rc::clone(decided));
            }
        }
        table
    }

    /// What comes to a line as that role to that target.
    pub(super) fn part(&self, line: usize, candidate: usize, target: usize) -> Option<&Part> {
        self.pair(candidate, target).part(line)
    }

    /// From where, by TLS and in plaintext, that role gets to that target by any line of the method.
    pub(super) fn admitted(&self, method: Method, candidate: usize, target: usize) -> &(Ranges, Ranges) {
        let pair = self.pair(candidate, target);
        match method {
            Method::ScramSha256 => &pair.scram,
            Method::Md5 => &pair.md5,
        }
    }

    fn pair(&self, candidate: usize, target: usize) -> &Decided {
        &self.pairs[candidate * self.targets.len() + target]
    }

    /// Whether anything at all comes to a line, of what is known.
    pub(super) fn is_reached(&self, line: usize) -> bool {
        self.pairs.iter().any(|pair| pair.part(line).is_some())
    }
}

/// This host's loopback (RFC 1122 3.2.1.3, RFC 4291 2.5.3).
pub(super) fn loopback() -> Ranges {
    let range = |first: [u8; 4], last: [u8; 4]| Range {
        first: IpAddr::from(first),
        last: IpAddr::from(last),
    };
    let six = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
    Ranges::of([
        range([127, 0, 0, 0], [127, 255, 255, 255]),
        Range {
            first: six,
            last: six,
        },
    ])
}

/// The pair's way through the lines that are for it.
fn decide(lines: &[HbaLine], places: &[Where], fates: &[Fate], matching: &[usize], ssl: bool) -> Decided {
    let through = |encryption: Encryption| -> (Vec<(usize, Ranges)>, Ranges) {
        let mut taken = Ranges::none();
        let mut parts = Vec::new();
        for n in matching {
            let comes = lines[*n].connection.is_for(Kind::Tcp(encryption));
            let Some(ranges) = places[*n].ranges.as_ref().filter(|_| comes) else {
                continue;
            };
            let left = ranges.without(&taken);
            taken.add(ranges);
            if !left.is_empty() {
                parts.push((*n, left));
            }
        }
        (parts, taken)
    };
    let (plain, _) = through(Encryption::None);
    let (tls, by_tls) = match ssl {
        true => through(Encryption::Tls),
        false => (Vec::new(), Ranges::none()),
    };
    let here = loopback();
    let find = |parts: &[(usize, Ranges)], n: usize| {
        let found = parts.binary_search_by_key(&n, |(place, _)| *place);
        found.map_or_else(|_| Ranges::none(), |place| parts[place].1.clone())
    };
    let parts = matching.iter().filter_map(|n| {
        let (tls, plain) = (find(&tls, *n), find(&plain, *n));
        if tls.is_empty() && plain.is_empty() {
            return None;
        }
        // Who comes in plaintext today comes by TLS, unless a line says something else about TLS from there.
        let turned = plain.without(&by_tls);
        let part = Part {
            tls: tls.union(&turned),
            plain: plain.within(&here),
            lost: plain.without(&here),
            turned,
        };
        Some((*n, part))
    });
    let parts: Vec<(usize, Part)> = parts.collect();
    let by = |method: Method| {
        let of_method = parts.iter().filter(|(n, _)| fates[*n] == Fate::Login(method));
        let (tls, plain): (Vec<_>, Vec<_>) = of_method.map(|(_, part)| (&part.tls, &part.plain)).unzip();
        let joined = |all: Vec<&Ranges>| Ranges::of(all.into_iter().flat_map(Ranges::iter));
        (joined(tls), joined(plain))
    };
    Decided {
        scram: by(Method::ScramSha256),
        md5: by(Method::Md5),
        parts,
    }
}

/// A line whose fields are asked one at a time.
struct Shape {
    roles: HbaLine,
    databases: HbaLine,
    takes_any_database: bool,
}

impl Shape {
    fn of(line: &HbaLine) -> Shape {
        let anywhere = HbaLine {
            connection: Connection::Host,
            address: Some(Address::All),
            ..line.clone()
        };
        Shape {
            takes_any_database: line.databases.iter().any(|p| p.keyword() == Some(b"all")),
            roles: HbaLine {
                databases: vec![all()],
                ..anywhere.clone()
            },
            databases: HbaLine {
                roles: vec![all()],
                ..anywhere
            },
        }
    }

    fn role(&self, role: &[u8], world: &dyn World) -> Truth {
        // Some database: which does not count for a line that takes all.
        self.roles.matches(&login(b"a", role, false), world)
    }

    fn target(&self, role: &[u8], target: &Target, world: &dyn World) -> Truth {
        match target {
            Target::Database(name) => self.databases.matches(&login(name, role, false), world),
            Target::Replication => self.databases.matches(&login(b"", role, true), world),
            Target::Another if self.takes_any_database => Truth::Yes,
            Target::Another => Truth::No,
        }
    }
}

fn login<'l>(database: &'l [u8], role: &'l [u8], replication: bool) -> Login<'l> {
    Login {
        from: From::Tcp {
            address: IpAddr::from([127, 0, 0, 1]),
            encryption: Encryption::None,
        },
        database,
        role,
        replication,
    }
}

/// A name that stands in a line as itself.
pub(super) fn literal(pattern: &Pattern) -> Option<&[u8]> {
    let words: [&[u8]; 5] = [b"all", b"sameuser", b"samerole", b"samegroup", b"replication"];
    let is_special = pattern.expression.is_some()
        || pattern.group().is_some()
        || pattern.keyword().is_some_and(|word| words.contains(&word));
    (!is_special).then_some(pattern.token.text.as_slice())
}

/// A role's name that stands in a line as itself; `replication` and the like are no keywords there.
pub(super) fn literal_role(pattern: &Pattern) -> Option<&[u8]> {
    let is_special =
        pattern.expression.is_some() || pattern.group().is_some() || pattern.keyword() == Some(b"all");
    (!is_special).then_some(pattern.token.text.as_slice())
}

fn tcp(lines: &[HbaLine]) -> impl Iterator<Item = &HbaLine> {
    lines.iter().filter(|line| line.connection != Connection::Local)
}

fn candidates(lines: &[HbaLine], known: &Known) -> Vec<Candidate> {
    let exists = known.roles.iter().flatten().map(|role| Candidate {
        role: role.clone(),
        exists: true,
    });
    let mut all: Vec<Candidate> = exists.collect();
    for name in tcp(lines).flat_map(|line| line.roles.iter().filter_map(literal_role)) {
        if !all.iter().any(|c| c.role.name == name) && name.len() <= pgfw_hba::LONGEST_NAME {
            all.push(Candidate {
                role: Role {
                    name: name.to_vec(),
                    replicates: true,
                    secret: Secret::Unknown,
                },
                exists: false,
            });
        }
    }
    all
}

fn targets(lines: &[HbaLine], known: &Known, candidates: &[Candidate]) -> Vec<Target> {
    let mut all: Vec<Vec<u8>> = known.databases.clone().unwrap_or_default();
    let mut add = |name: &[u8]| {
        if !all.iter().any(|n| n == name) && name.len() <= pgfw_hba::LONGEST_NAME {
            all.push(name.to_vec());
        }
    };
    tcp(lines)
        .flat_map(|line| line.databases.iter().filter_map(literal))
        .for_each(&mut add);
    let same = |p: &Pattern| p.keyword() == Some(b"sameuser");
    if known.databases.is_none() && tcp(lines).any(|line| line.databases.iter().any(same)) {
        candidates.iter().for_each(|c| add(&c.role.name));
    }
    let named = all.into_iter().map(Target::Database);
    named.chain([Target::Another, Target::Replication]).collect()
}

fn place(line: &HbaLine, world: &dyn World) -> Where {
    let Some(address) = &line.address else {
        return Where {
            ranges: Some(Ranges::none()),
            note: None,
        };
    };
    let ranges = address.ranges(world.interfaces().as_deref());
    match (address, ranges) {
        (Address::All, ranges) | (Address::Net { .. }, ranges @ Some(_)) => Where { ranges, note: None },
        (Address::SameHost | Address::SameNet, ranges @ Some(_)) => Where {
            ranges,
            note: Some("its addresses are those of this host's interfaces as of today".to_owned()),
        },
        (Address::SameHost | Address::SameNet, None) => Where {
            ranges: None,
            note: Some("the addresses of this host's interfaces are not known".to_owned()),
        },
        (Address::Net { .. }, None) => Where {
            ranges: None,
            note: Some("its mask has holes, so its addresses are no networks".to_owned()),
        },
        (Address::Name(name), _) => named(line, name, world),
    }
}

/// The addresses that the server would find behind a host name now (hba.c: `check_hostname`).
fn named(line: &HbaLine, name: &[u8], world: &dyn World) -> Where {
    let shown = super::text::shown(name);
    let nowhere = |why: String| Where {
        ranges: None,
        note: Some(why),
    };
    if name.first() == Some(&b'.') {
        return nowhere(format!("the hosts below {shown} are no networks"));
    }
    let asked = std::str::from_utf8(name).ok().and_then(|n| world.addresses_of(n));
    let Some(addresses) = asked.filter(|all| !all.is_empty()) else {
        return nowhere(format!("{shown} leads to no address today"));
    };
    // Asked for everything, so that the address alone counts.
    let anyone = HbaLine {
        connection: Connection::Host,
        databases: vec![all()],
        roles: vec![all()],
        ..line.clone()
    };
    let fits = |address: &IpAddr| {
        let from = From::Tcp {
            address: *address,
            encryption: Encryption::None,
        };
        let login = Login {
            from,
            database: b"a",
            role: b"a",
            replication: false,
        };
        anyone.matches(&login, world) == Truth::Yes
    };
    let found: Vec<IpAddr> = addresses.into_iter().filter(fits).collect();
    if found.is_empty() {
        return nowhere(format!("no address of {shown} leads back to that name today"));
    }
    let range = |address: IpAddr| Range {
        first: address,
        last: address,
    };
    let ranges = Ranges::of(found.into_iter().map(range));
    Where {
        note: Some(format!("{shown} is {ranges} today, and pgfw goes by addresses")),
        ranges: Some(ranges),
    }
}

/// The pattern that every name fits.
fn all() -> Pattern {
    Pattern {
        token: Token {
            text: b"all".to_vec(),
            quoted: false,
        },
        expression: None,
    }
}
