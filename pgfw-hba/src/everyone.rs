//! Who gets in, for all logins at once: every name that is asked about, and any that nobody mentions; each with all the
//! addresses from which it is so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::address::Address;
use crate::check::{Truth, World, any};
use crate::cover::Kind;
use crate::hba::{Hba, HbaLine, Method, Pattern};
use crate::ident::{Holder, Ident};
use crate::options::{CertName, ClientCert};
use crate::ranges::{Range, Ranges};

/// A role or a database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    Named(Vec<u8>),
    /// One that no line names or has an expression for, and that is a member of nothing.
    Other,
}

/// What a login is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Database(Name),
    /// The database that is called as the role is.
    Own,
    /// Physical replication.
    Replication,
}

/// What it takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// [`Method::Trust`] where nothing is asked, or nothing but the certificate.
    pub method: Method,
    /// Whom the operating system, at either end, has to name.
    pub user: Option<Holder>,
    pub certificate: Option<Holder>,
    /// Whether the line is for it at all is known.
    pub certain: bool,
}

/// What one line does for a login.
#[derive(Debug, Clone)]
pub struct Share<'a> {
    pub line: &'a HbaLine,
    /// From where it decides; everywhere for a Unix socket.
    pub from: Ranges,
    /// What is not known about that.
    pub doubt: Option<String>,
}

/// The files, ready to be asked many times.
pub struct Everyone<'a> {
    hba: &'a Hba,
    ident: &'a Ident,
    world: &'a dyn World,
    /// Of each line; `None` where they cannot be known.
    addresses: Vec<Option<Ranges>>,
    /// Lines that name a role, by that.
    naming: BTreeMap<&'a [u8], Vec<usize>>,
    /// All others: they have to be asked.
    asked: Vec<usize>,
}

impl std::fmt::Debug for Everyone<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Everyone")
            .field("lines", &self.hba.lines.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Everyone<'a> {
    pub fn hba(&self) -> &'a Hba {
        self.hba
    }

    pub fn ident(&self) -> &'a Ident {
        self.ident
    }

    pub fn world(&self) -> &'a dyn World {
        self.world
    }

    /// Names of hosts are taken for the addresses that they have now.
    pub fn of(hba: &'a Hba, ident: &'a Ident, world: &'a dyn World) -> Everyone<'a> {
        let interfaces = world.interfaces();
        let addresses = hba.lines.iter().map(|line| match &line.address {
            None => Some(Ranges::all()),
            Some(Address::Name(name)) => resolved(name, world),
            Some(other) => other.ranges(interfaces.as_deref()),
        });
        let (mut naming, mut asked) = (BTreeMap::<&[u8], Vec<usize>>::new(), Vec::new());
        for (place, line) in hba.lines.iter().enumerate() {
            match line.roles.iter().all(Pattern::is_literal) {
                true => {
                    let names: BTreeSet<&[u8]> = line.roles.iter().map(|p| p.token.text.as_slice()).collect();
                    for name in names {
                        naming.entry(name).or_default().push(place);
                    }
                }
                false => asked.push(place),
            }
        }
        Everyone {
            hba,
            ident,
            world,
            addresses: addresses.collect(),
            naming,
            asked,
        }
    }

    /// Lines that are passed over, since it is not known which addresses they are for.
    pub fn passed_over(&self) -> impl Iterator<Item = &'a HbaLine> {
        let lines = self.hba.lines.iter().zip(&self.addresses);
        lines
            .filter(|(_, addresses)| addresses.is_none())
            .map(|(line, _)| line)
    }

    /// The roles that lines and maps name.
    pub fn named_roles(&self) -> BTreeSet<&'a [u8]> {
        let of_lines = self.hba.lines.iter().flat_map(|line| &line.roles);
        let of_maps = self.ident.lines.iter().map(|line| &line.role);
        let literal = of_lines.chain(of_maps).filter(|pattern| pattern.is_literal());
        literal.map(|pattern| pattern.token.text.as_slice()).collect()
    }

    /// The databases that lines name.
    pub fn named_databases(&self) -> BTreeSet<&'a [u8]> {
        let all = self.hba.lines.iter().flat_map(|line| &line.databases);
        let literal = all.filter(|p| p.expression.is_none() && !p.is_database_word());
        literal.map(|pattern| pattern.token.text.as_slice()).collect()
    }

    /// Whether a role that nobody names may have an answer of its own: by an expression, a membership, or a database that
    /// is called like a role of its.
    pub fn singles_out_role(&self, role: &[u8]) -> bool {
        let of_lines = self.hba.lines.iter().flat_map(|line| &line.roles);
        let of_maps = self.ident.lines.iter().map(|line| &line.role);
        let special = |pattern: &&Pattern| !pattern.is_literal() && pattern.keyword() != Some(b"all");
        of_lines
            .chain(of_maps)
            .filter(special)
            .any(|pattern| pattern.matches_role(role, self.world) != Truth::No)
            || self.uses(&[b"samerole", b"samegroup"])
    }

    /// The same of a database.
    pub fn singles_out_database(&self, database: &[u8]) -> bool {
        let all = self.hba.lines.iter().flat_map(|line| &line.databases);
        all.filter(|pattern| pattern.expression.is_some())
            .any(|pattern| pattern.matches_database(database, b"", self.world) != Truth::No)
            || self.uses(&[b"samerole", b"samegroup"])
    }

    /// Whether it makes a difference that a database is called as the role is.
    pub fn knows_own_databases(&self) -> bool {
        self.uses(&[b"sameuser", b"samerole", b"samegroup"])
    }

    fn uses(&self, words: &[&[u8]]) -> bool {
        let mut all = self.hba.lines.iter().flat_map(|line| &line.databases);
        all.any(|pattern| pattern.keyword().is_some_and(|word| words.contains(&word)))
    }

    /// The lines that decide about these logins, each with the addresses that earlier ones leave it. What is left of all
    /// addresses is refused for want of a line.
    pub fn shares(&self, kind: Kind, target: &Target, role: &Name) -> Vec<Share<'a>> {
        let mut left = Ranges::all();
        let mut shares = Vec::new();
        for place in self.lines_of(role) {
            let line = &self.hba.lines[place];
            if !line.connection.is_for(kind) {
                continue;
            }
            let Some(from) = self.addresses[place].as_ref().filter(|own| own.meets(&left)) else {
                continue;
            };
            let doubt = match self.is_for(line, target, role) {
                Truth::No => continue,
                Truth::Yes => None,
                Truth::Unknown(doubt) => Some(doubt.0),
            };
            shares.push(Share {
                line,
                from: from.within(&left),
                doubt,
            });
            left = left.without(from);
            if left.is_empty() || kind == Kind::Local {
                break;
            }
        }
        shares
    }

    /// By what one may become that role where this line decides; nothing where it refuses. Beside the names of the maps,
    /// `names` are looked for in what expressions of the maps let in.
    pub fn ways(&self, share: &Share, role: &Name, names: &[Vec<u8>]) -> Vec<Way> {
        let line = share.line;
        let map = line.options.map.as_deref();
        let way = |user: Option<Holder>, certificate: Option<Holder>, certain: bool| Way {
            method: if line.method == Method::Cert {
                Method::Trust
            } else {
                line.method
            },
            user,
            certificate,
            certain: certain && share.doubt.is_none(),
        };
        match (line.method, line.options.clientcert) {
            (Method::Reject, _) => Vec::new(),
            (Method::Peer | Method::Ident, ClientCert::None) => {
                let held = self.ident.holders(map, role, &[], self.world);
                let ways = held
                    .into_iter()
                    .map(|(user, certain)| way(Some(user), None, certain));
                ways.collect()
            }
            (_, ClientCert::None) => vec![way(None, None, true)],
            (_, ClientCert::Ca) => vec![way(None, Some(Holder::Anybody), true)],
            (_, ClientCert::Full) => {
                let names: Vec<Vec<u8>> = match line.options.clientname {
                    CertName::CommonName => names.to_vec(),
                    CertName::DistinguishedName => names
                        .iter()
                        .map(|name| [b"CN=", name.as_slice()].concat())
                        .collect(),
                };
                let held = self.ident.holders(map, role, &names, self.world);
                let ways = held
                    .into_iter()
                    .map(|(name, certain)| way(None, Some(name), certain));
                ways.collect()
            }
        }
    }

    /// In their order.
    fn lines_of(&self, role: &Name) -> Vec<usize> {
        let named = match role {
            Name::Named(name) => self.naming.get(name.as_slice()),
            Name::Other => None,
        };
        let mut all: Vec<usize> = self
            .asked
            .iter()
            .chain(named.into_iter().flatten())
            .copied()
            .collect();
        all.sort_unstable();
        all
    }

    fn is_for(&self, line: &HbaLine, target: &Target, role: &Name) -> Truth {
        let role_is = any(&line.roles, |pattern| match role {
            Name::Named(role) => pattern.matches_role(role, self.world),
            Name::Other => Truth::of(pattern.keyword() == Some(b"all")),
        });
        if role_is == Truth::No {
            return Truth::No;
        }
        match any(&line.databases, |pattern| self.is_target(pattern, target, role)) {
            Truth::Yes => role_is,
            no_or_unknown @ (Truth::No | Truth::Unknown(_)) => no_or_unknown,
        }
    }

    fn is_target(&self, pattern: &Pattern, target: &Target, role: &Name) -> Truth {
        let of = |database: &[u8], role: &[u8]| pattern.matches_database(database, role, self.world);
        let word = pattern.keyword();
        match (target, role) {
            (Target::Replication, _) => Truth::of(word == Some(b"replication")),
            (Target::Own, Name::Named(role)) => of(role, role),
            (Target::Own, Name::Other) => {
                let words: [&[u8]; 4] = [b"all", b"sameuser", b"samerole", b"samegroup"];
                Truth::of(word.is_some_and(|word| words.contains(&word)))
            }
            (Target::Database(Name::Other), _) => Truth::of(word == Some(b"all")),
            (Target::Database(Name::Named(database)), Name::Named(role)) => of(database, role),
            // A role that is not there is called like no database, and is a member of nothing.
            (Target::Database(Name::Named(database)), Name::Other) => match word {
                Some(b"sameuser" | b"samerole" | b"samegroup") => Truth::No,
                Some(_) | None => of(database, b""),
            },
        }
    }
}

/// The addresses of a whole name; a suffix is anybody's.
fn resolved(name: &[u8], world: &dyn World) -> Option<Ranges> {
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| !name.starts_with('.'))?;
    let addresses: Vec<IpAddr> = world.addresses_of(name)?;
    let each = |address: IpAddr| Range {
        first: address,
        last: address,
    };
    (!addresses.is_empty()).then(|| Ranges::of(addresses.into_iter().map(each)))
}
