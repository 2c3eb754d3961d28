//! Which line decides (hba.c: `check_hba`).

use std::net::IpAddr;

use crate::LONGEST_NAME;
use crate::address::Interface;
use crate::hba::{Connection, Hba, HbaLine, Pattern};

/// Yes, no, or: that depends on what is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    Unknown(Doubt),
}

/// What is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt(pub String);

/// One attempt to log in, as far as these files look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    pub from: From,
    /// Empty: the role's name, as the server takes it.
    pub database: &'a [u8],
    pub role: &'a [u8],
    /// Physical replication (`replication=true` in the start-up packet). Logical replication is in a database, and a
    /// login like any other.
    pub replication: bool,
}

/// How the connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Local,
    Tcp { address: IpAddr, encryption: Encryption },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encryption {
    None,
    Tls,
    /// GSSAPI's own.
    Gss,
}

/// What the files do not say. Each answer may be "not known".
pub trait World {
    /// Whether a role that exists is a member of a group that exists, itself or through others, whatever INHERIT says; a
    /// role is a member of itself, and a superuser of nothing more than that (acl.c: `is_member_of_role_nosuper`).
    fn is_member(&self, role: &[u8], group: &[u8]) -> Option<bool>;

    /// The server's addresses.
    fn interfaces(&self) -> Option<Vec<Interface>>;

    /// The host name of an address (getnameinfo(3) with `NI_NAMEREQD`); `Some(None)` when it has none.
    fn name_of(&self, address: IpAddr) -> Option<Option<String>>;

    /// The addresses of a host name (getaddrinfo(3)).
    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>>;
}

/// Nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl World for Nothing {
    fn is_member(&self, _role: &[u8], _group: &[u8]) -> Option<bool> {
        None
    }
    fn interfaces(&self) -> Option<Vec<Interface>> {
        None
    }
    fn name_of(&self, _address: IpAddr) -> Option<Option<String>> {
        None
    }
    fn addresses_of(&self, _name: &str) -> Option<Vec<IpAddr>> {
        None
    }
}

/// The answer.
#[derive(Debug, Clone)]
pub enum Decision<'a> {
    /// This line decides.
    Line(&'a HbaLine),
    /// None does: the login is refused.
    NoLine,
    /// This line may be the one.
    Undecided { line: &'a HbaLine, doubt: Doubt },
}

impl Hba {
    /// Asks the lines in their order. Whether the file is loaded at all is [`Hba::loads`].
    pub fn decide(&self, login: &Login, world: &dyn World) -> Decision<'_> {
        for line in &self.lines {
            match line.matches(login, world) {
                Truth::No => {}
                Truth::Yes => return Decision::Line(line),
                Truth::Unknown(doubt) => return Decision::Undecided { line, doubt },
            }
        }
        Decision::NoLine
    }
}

impl HbaLine {
    /// Whether this line, asked by itself, is for that login.
    pub fn matches(&self, login: &Login, world: &dyn World) -> Truth {
        let role = cut(login.role);
        let database = match cut(login.database) {
            b"" => role,
            database => database,
        };
        let mut truth = self.came_so(login.from, world);
        let database = |pattern: &Pattern| match login.replication {
            true => Truth::of(pattern.keyword() == Some(b"replication")),
            false => pattern.matches_database(database, role, world),
        };
        if truth != Truth::No {
            truth = truth.and(any(&self.databases, database));
        }
        if truth != Truth::No {
            truth = truth.and(any(&self.roles, |pattern| pattern.matches_role(role, world)));
        }
        truth
    }

    fn came_so(&self, from: From, world: &dyn World) -> Truth {
        match (from, &self.address) {
            (From::Local, _) => Truth::of(self.connection == Connection::Local),
            (From::Tcp { .. }, None) => Truth::No,
            (From::Tcp { address, encryption }, Some(own)) if self.connection.takes(encryption) => {
                own.matches(address, world)
            }
            (From::Tcp { .. }, Some(_)) => Truth::No,
        }
    }
}

impl Connection {
    /// Whether TCP that is protected so is meant.
    pub fn takes(self, encryption: Encryption) -> bool {
        match self {
            Connection::Local => false,
            Connection::Host => true,
            Connection::HostSsl => encryption == Encryption::Tls,
            Connection::HostNoSsl => encryption != Encryption::Tls,
            Connection::HostGssEnc => encryption == Encryption::Gss,
            Connection::HostNoGssEnc => encryption != Encryption::Gss,
        }
    }
}

pub(crate) fn any(patterns: &[Pattern], each: impl Fn(&Pattern) -> Truth) -> Truth {
    let mut seen = Truth::No;
    for pattern in patterns {
        match each(pattern) {
            Truth::Yes => return Truth::Yes,
            Truth::No => {}
            unknown @ Truth::Unknown(_) => seen = unknown,
        }
    }
    seen
}

pub(crate) fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(LONGEST_NAME)]
}

impl Truth {
    pub(crate) fn of(is: bool) -> Truth {
        if is { Truth::Yes } else { Truth::No }
    }

    pub(crate) fn unknown(why: &str) -> Truth {
        Truth::Unknown(Doubt(why.to_owned()))
    }

    fn and(self, other: Truth) -> Truth {
        match (self, other) {
            (Truth::No, _) | (_, Truth::No) => Truth::No,
            (Truth::Yes, other) => other,
            (unknown @ Truth::Unknown(_), _) => unknown,
        }
    }
}
