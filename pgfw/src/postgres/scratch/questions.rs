//! What is asked, and what the config says to each: read from identities and logins themselves, not from the cells or lines
//! that were made of them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::network;
use super::server::PORT;
use crate::config::{Config, Identity, Login, Plaintext};
use crate::pki::Throwaway;
use crate::postgres::tls::{self, Credential, Version};
use crate::postgres::wire::{self, Answer, Startup};

/// One attempt to log in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) expected: Expected,
    /// The certificate's name; `None`: none is shown.
    name: Option<String>,
    role: String,
    /// `None`: physical replication.
    database: Option<String>,
    from: IpAddr,
    tls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expected {
    In,
    Password,
    Out,
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Expected::In => "has to get in",
            Expected::Password => "has to be asked for a password",
            Expected::Out => "must not get in",
        })
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "certificate `{name}`")?,
            None => f.write_str("nobody's certificate")?,
        }
        write!(f, " as role `{}` ", self.role)?;
        match &self.database {
            Some(database) => write!(f, "in database `{database}`")?,
            None => f.write_str("for physical replication")?,
        }
        let how = if self.tls { "" } else { " without TLS" };
        write!(f, " from {}{how}", self.from)
    }
}

impl Question {
    /// # Errors
    /// I/O.
    pub(super) fn ask(&self, authority: &Throwaway) -> io::Result<Answer> {
        let mut tcp = network::connect_from(self.from, PORT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        let startup = Startup {
            user: &self.role,
            database: self.database.as_deref().unwrap_or_default(),
            replication: self.database.is_none(),
        };
        if !self.tls {
            return wire::start_up(&mut tcp, &startup);
        }
        let name = self.name.as_deref().map(|name| authority.credential(name));
        let name = name.transpose().map_err(io::Error::other)?;
        let credential = name
            .as_ref()
            .map(|(certificate, key)| Credential { certificate, key });
        tls::over(tcp, self.from, credential, Version::V1_3)?.start_up(&startup)
    }
}

/// Everything that has to get in first, each from the ends of its networks; then what differs from that in one thing.
pub(super) fn of(config: &Config) -> Vec<Question> {
    let admitted = admitted(config);
    let mut seen: BTreeSet<Question> = BTreeSet::new();
    let mut all: Vec<Question> = Vec::new();
    let mut ask = |question: Question| {
        let question = Question {
            expected: expected(config, &question),
            ..question
        };
        if seen.insert(question.clone()) {
            all.push(question);
        }
    };
    admitted.iter().cloned().for_each(&mut ask);
    // In rounds: one neighbour of everybody before the second of anybody.
    let mut neighbours: Vec<_> = admitted
        .iter()
        .map(|q| neighbours(config, q).into_iter())
        .collect();
    loop {
        let round: Vec<Question> = neighbours.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            break;
        }
        round.into_iter().for_each(&mut ask);
    }
    if admitted.is_empty() {
        // Nobody is declared: nobody gets in.
        for from in [ANYWHERE_4, ANYWHERE_6] {
            for tls in [true, false] {
                for database in [Some("postgres".to_owned()), None] {
                    ask(Question {
                        expected: Expected::Out,
                        name: tls.then(|| STRANGER.to_owned()),
                        role: "postgres".to_owned(),
                        database,
                        from,
                        tls,
                    });
                }
            }
        }
    }
    all
}

/// What the config says: whether an identity or a login asks for exactly this.
fn expected(config: &Config, question: &Question) -> Expected {
    let Question {
        expected: _,
        name,
        role,
        database,
        from,
        tls,
    } = question;
    let holds = |roles: &[String], databases: &Option<Vec<String>>, replication: bool| {
        roles.contains(role)
            && match (database, databases) {
                (None, _) => replication,
                (Some(_), None) => true,
                (Some(database), Some(named)) => named.contains(database),
            }
    };
    let inside = |networks: &[IpNet]| networks.iter().any(|net| net.contains(from));
    let identity = |i: &Identity| {
        name.as_ref() == Some(&i.name)
            && holds(&i.roles, &i.databases, i.replication)
            && (i.roaming || i.networks.is_empty() || inside(&i.networks))
    };
    let login = |l: &Login| {
        holds(&l.roles, &l.databases, l.replication)
            && inside(&l.networks)
            && (*tls || (l.plaintext == Plaintext::Loopback && from.is_loopback()))
    };
    if *tls && config.identities.iter().any(identity) {
        Expected::In
    } else if config.logins.iter().any(login) {
        Expected::Password
    } else {
        Expected::Out
    }
}

fn admitted(config: &Config) -> Vec<Question> {
    let mut all = Vec::new();
    let mut add = |name: Option<&str>,
                   roles: &[String],
                   databases: &Option<Vec<String>>,
                   replication: bool,
                   sources: &[IpAddr],
                   tls: bool| {
        let mut wanted: Vec<Option<String>> = match databases {
            None => vec![Some(unnamed(config))],
            Some(named) => named.iter().cloned().map(Some).collect(),
        };
        if replication {
            wanted.push(None);
        }
        for role in roles {
            for database in &wanted {
                for from in sources {
                    all.push(Question {
                        expected: Expected::In,
                        name: name.map(str::to_owned),
                        role: role.clone(),
                        database: database.clone(),
                        from: *from,
                        tls,
                    });
                }
            }
        }
    };
    for i in &config.identities {
        let sources = if i.roaming || i.networks.is_empty() {
            vec![ANYWHERE_4, ANYWHERE_6]
        } else {
            i.networks.iter().flat_map(ends).collect()
        };
        add(
            Some(&i.name),
            &i.roles,
            &i.databases,
            i.replication,
            &sources,
            true,
        );
    }
    for l in &config.logins {
        let sources: Vec<IpAddr> = l.networks.iter().flat_map(ends).collect();
        add(None, &l.roles, &l.databases, l.replication, &sources, true);
        add(None, &l.roles, &l.databases, l.replication, &sources, false);
    }
    all
}

/// The same attempt with one thing changed.
fn neighbours(config: &Config, question: &Question) -> Vec<Question> {
    let same = || question.clone();
    let mut all = vec![
        // Who shows nothing, and somebody else's certificate.
        Question { name: None, ..same() },
        Question {
            name: Some(STRANGER.to_owned()),
            ..same()
        },
        Question { tls: false, ..same() },
        Question {
            database: Some(unnamed(config)),
            ..same()
        },
        Question {
            database: None,
            ..same()
        },
    ];
    if let Some(name) = &question.name {
        // An expression that is not anchored takes these for the name itself.
        for longer in [format!("{name}2"), format!("a{name}")] {
            all.push(Question {
                name: Some(longer),
                ..same()
            });
        }
    }
    let nets = config.identities.iter().flat_map(|i| &i.networks);
    let nets = nets.chain(config.logins.iter().flat_map(|l| &l.networks));
    let near = nets.filter(|net| net.contains(&question.from)).flat_map(outside);
    all.extend(near.map(|from| Question { from, ..same() }));
    for from in [ANYWHERE_4, ANYWHERE_6] {
        all.push(Question { from, ..same() });
    }
    for other in &config.identities {
        all.push(Question {
            name: Some(other.name.clone()),
            ..same()
        });
        for role in &other.roles {
            all.push(Question {
                role: role.clone(),
                ..same()
            });
        }
        for database in other.databases.iter().flatten() {
            all.push(Question {
                database: Some(database.clone()),
                ..same()
            });
        }
    }
    all
}

/// The first and the last address of a network that a connection can come from.
fn ends(net: &IpNet) -> Vec<IpAddr> {
    let (first, last) = (net.network(), net.broadcast());
    let inward = [
        Some(first),
        step(first, 1),
        Some(last),
        step(last, -1),
        middle(net),
    ];
    let mut all: Vec<IpAddr> = Vec::new();
    for address in inward.into_iter().flatten() {
        if all.len() < 2 && net.contains(&address) && can_connect(address) && !all.contains(&address) {
            all.push(address);
        }
    }
    // Where the first two lie beside each other the last is the more interesting.
    if all.len() == 2 && can_connect(last) && !all.contains(&last) {
        all[1] = last;
    }
    all
}

/// The addresses just before and after a network.
fn outside(net: &IpNet) -> Vec<IpAddr> {
    let around = [step(net.network(), -1), step(net.broadcast(), 1)];
    around.into_iter().flatten().filter(|a| can_connect(*a)).collect()
}

fn step(address: IpAddr, by: i128) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(a) => {
            let moved = i128::from(a.to_bits()) + by;
            Ipv4Addr::from_bits(u32::try_from(moved).ok()?).into()
        }
        IpAddr::V6(a) => {
            let moved = if by < 0 {
                a.to_bits().checked_sub(by.unsigned_abs())?
            } else {
                a.to_bits().checked_add(by.unsigned_abs())?
            };
            Ipv6Addr::from_bits(moved).into()
        }
    })
}

fn middle(net: &IpNet) -> Option<IpAddr> {
    net.subnets(net.prefix_len() + 1)
        .ok()?
        .nth(1)
        .map(|half| half.network())
}

/// What is no address of one host, or takes an interface to say which (RFC 1122 3.2.1.3, RFC 4291).
fn can_connect(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            // The end of 127.0.0.0/8 is the broadcast address of `lo`.
            let broadcast = a.is_broadcast() || a == Ipv4Addr::new(127, 255, 255, 255);
            a.octets()[0] != 0 && !a.is_multicast() && !broadcast
        }
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_multicast() && !a.is_unicast_link_local(),
    }
}

/// A database that the config does not name.
fn unnamed(config: &Config) -> String {
    let identities = config.identities.iter().filter_map(|i| i.databases.as_ref());
    let named: BTreeSet<&String> = identities
        .chain(config.logins.iter().filter_map(|l| l.databases.as_ref()))
        .flatten()
        .collect();
    let mut name = "pgfw-unnamed".to_owned();
    while named.contains(&name) {
        name.push('-');
    }
    name
}

const STRANGER: &str = "pgfw-stranger";
/// TEST-NET-3 (RFC 5737), and the documentation prefix (RFC 3849): nobody's networks.
const ANYWHERE_4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));
const ANYWHERE_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77));
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
