//! What of each line is left by the lines before it: for all logins at once, not for samples.
//!
//! A line is the product of connection kinds, addresses, databases and roles. Each pair of a database and a role of it,
//! over each kind, keeps the addresses that no earlier line takes for certain. What cannot be known (a host name's
//! addresses, whether two expressions mean the same) takes nothing away, so that "nothing is left" is always true.

use crate::LONGEST_NAME;
use crate::address::{Address, Interface};
use crate::check::{Encryption, World};
use crate::hba::{Connection, Hba, HbaLine, Pattern};
use crate::ranges::{Range, Ranges};

/// How a connection can come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Local,
    Tcp(Encryption),
}

impl Kind {
    pub const ALL: [Kind; 4] = [
        Kind::Local,
        Kind::Tcp(Encryption::None),
        Kind::Tcp(Encryption::Tls),
        Kind::Tcp(Encryption::Gss),
    ];
}

/// One line and what comes to it.
#[derive(Debug, Clone)]
pub struct Reach<'a> {
    pub line: &'a HbaLine,
    /// Each pair of database and role over each kind that something is left of.
    pub left: Vec<Left<'a>>,
    /// The earlier lines that take something of it, by their place.
    pub taken_by: Vec<usize>,
}

/// A part of a line.
#[derive(Debug, Clone)]
pub struct Left<'a> {
    pub kind: Kind,
    pub database: &'a Pattern,
    pub role: &'a Pattern,
    /// From where; of no meaning for a Unix socket.
    pub from: Ranges,
}

impl Reach<'_> {
    /// No login comes to it.
    pub fn is_shadowed(&self) -> bool {
        self.left.is_empty()
    }

    /// The addresses from which something comes to it over TCP.
    pub fn from(&self) -> Ranges {
        let tcp = self.left.iter().filter(|left| left.kind != Kind::Local);
        tcp.fold(Ranges::none(), |all, left| all.union(&left.from))
    }
}

/// Goes through all lines. Of `world` only the interfaces are asked.
pub fn reach<'a>(hba: &'a Hba, world: &dyn World) -> Vec<Reach<'a>> {
    let interfaces = world.interfaces();
    let known: Vec<Option<Ranges>> = hba
        .lines
        .iter()
        .map(|line| ranges(line.address.as_ref(), interfaces.as_deref()))
        .collect();
    let one = |(place, line): (usize, &'a HbaLine)| {
        let earlier = || hba.lines.iter().zip(&known).take(place).enumerate();
        let mut reach = Reach {
            line,
            left: Vec::new(),
            taken_by: Vec::new(),
        };
        for kind in Kind::ALL.into_iter().filter(|kind| line.connection.is_for(*kind)) {
            for database in line.databases.iter().filter(|p| p.can_match()) {
                for role in line.roles.iter().filter(|p| p.can_match()) {
                    let mut from = known[place].clone().unwrap_or_else(Ranges::all);
                    for (n, (other, theirs)) in earlier() {
                        // Most lines of a long file are for other addresses, which is seen at once.
                        let Some(theirs) = theirs.as_ref().filter(|theirs| theirs.meets(&from)) else {
                            continue;
                        };
                        let takes = other.connection.is_for(kind)
                            && other.databases.iter().any(|p| p.covers_database(database))
                            && other.roles.iter().any(|p| p.covers_role(role));
                        if !takes {
                            continue;
                        }
                        let left = from.without(theirs);
                        if !reach.taken_by.contains(&n) {
                            reach.taken_by.push(n);
                        }
                        from = left;
                    }
                    if !from.is_empty() {
                        reach.left.push(Left {
                            kind,
                            database,
                            role,
                            from,
                        });
                    }
                }
            }
        }
        reach.taken_by.sort_unstable();
        reach
    };
    hba.lines.iter().enumerate().map(one).collect()
}

impl Connection {
    pub fn is_for(self, kind: Kind) -> bool {
        match kind {
            Kind::Local => self == Connection::Local,
            Kind::Tcp(encryption) => self.takes(encryption),
        }
    }
}

/// The addresses a line is for, where they can be known. A Unix socket is everywhere.
fn ranges(address: Option<&Address>, interfaces: Option<&[Interface]>) -> Option<Ranges> {
    match address {
        None | Some(Address::All) => Some(Ranges::all()),
        Some(net @ Address::Net { .. }) => {
            let (first, last) = net.range()?;
            Some(Ranges::of([Range { first, last }]))
        }
        Some(same @ (Address::SameHost | Address::SameNet)) => {
            let own = interfaces?.iter().map(|own| match same {
                Address::SameNet => {
                    let net = Address::Net {
                        net: own.address,
                        mask: own.usable_mask(),
                    };
                    net.range().map(|(first, last)| Range { first, last })
                }
                Address::SameHost | Address::All | Address::Net { .. } | Address::Name(_) => Some(Range {
                    first: own.address,
                    last: own.address,
                }),
            });
            Some(Ranges::of(own.collect::<Option<Vec<_>>>()?))
        }
        Some(Address::Name(_)) => None,
    }
}

impl Address {
    /// The addresses it stands for; `None` for a host name, a mask with holes, and what depends on interfaces that are
    /// not known.
    pub fn ranges(&self, interfaces: Option<&[Interface]>) -> Option<Ranges> {
        ranges(Some(self), interfaces)
    }
}

impl Pattern {
    /// A name that is longer than any is no login's.
    fn can_match(&self) -> bool {
        self.expression.is_some() || self.token.text.len() <= LONGEST_NAME
    }

    fn covers_role(&self, other: &Pattern) -> bool {
        if self.keyword() == Some(b"all") {
            return true;
        }
        let special = |p: &Pattern| p.group().is_some() || p.keyword() == Some(b"all");
        self.covers_name(other, special)
    }

    /// Physical replication is no database: `all` does not cover it.
    fn covers_database(&self, other: &Pattern) -> bool {
        if other.keyword() == Some(b"replication") {
            return self.keyword() == Some(b"replication");
        }
        if self.keyword() == Some(b"all") {
            return true;
        }
        self.covers_name(other, Pattern::is_database_word)
    }

    fn covers_name(&self, other: &Pattern, special: impl Fn(&Pattern) -> bool) -> bool {
        match (special(self), special(other)) {
            (true, true) => self.token.text == other.token.text,
            (false, false) => match (&self.expression, &other.expression) {
                (None, None) | (Some(Ok(_)), Some(Ok(_))) => self.token.text == other.token.text,
                (Some(Ok(expression)), None) => expression.is_match(&other.token.text),
                (None, Some(_)) | (Some(_), _) => false,
            },
            (true, false) | (false, true) => false,
        }
    }
}
