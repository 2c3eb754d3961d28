//! Who gets in by one pair of files and not by another. Pure.
//!
//! Both are taken apart into single facts: over this kind of connection, into this database, as this role, by this proof,
//! from exactly these addresses. The facts of one side without those of the other are the difference, and facts that
//! differ in one thing only are put together again for people.

use std::collections::{BTreeMap, BTreeSet};

use pgfw_hba::{Encryption, Everyone, Hba, HbaLine, Holder, Ident, Kind, Name, Ranges, Target, Way, World};

/// One pair of files.
#[derive(Debug, Clone)]
pub(super) struct Side {
    hba: Hba,
    ident: Ident,
    /// It speaks TLS.
    ssl: bool,
    /// The certificates that count here are of other authorities than those of the other side.
    foreign: bool,
}

/// Names beyond those of the files.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// That there are now, where that is known.
    pub(super) roles: Vec<String>,
    pub(super) databases: Vec<String>,
    /// Of certificates that were issued.
    pub(super) certificates: Vec<String>,
}

/// What it takes, and whose certificates count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct By {
    pub(super) way: Way,
    pub(super) foreign: bool,
}

/// A place where somebody gets in, and how.
pub(super) type Place = (Kind, Target, Name);
/// From where; everywhere for a Unix socket.
pub(super) type Facts = BTreeMap<(Place, By), Ranges>;

/// Facts that differ in one thing only, put together: whoever is in one list may combine with whoever is in the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) roles: BTreeSet<Name>,
    pub(super) targets: BTreeSet<Target>,
    pub(super) by: BTreeSet<By>,
    pub(super) kinds: BTreeSet<Kind>,
    pub(super) from: Ranges,
}

/// Everything that both sides are asked about.
#[derive(Debug, Clone)]
pub(super) struct Atoms {
    pub(super) kinds: Vec<Kind>,
    pub(super) targets: BTreeSet<Target>,
    pub(super) roles: BTreeSet<Name>,
}

impl Side {
    pub(super) fn of(hba: &Hba, ident: &Ident, ssl: bool, foreign: bool) -> Side {
        let (mut hba, mut ident) = (hba.clone(), ident.clone());
        // pgfw's own question whether its files are loaded: nobody logs in by it.
        let is_marker = |line: &HbaLine| line.databases.iter().all(|p| p.token.text.starts_with(MARKER));
        hba.lines.retain(|line| !is_marker(line));
        ident.lines.retain(|line| !line.map.starts_with(MARKER));
        Side {
            hba,
            ident,
            ssl,
            foreign,
        }
    }

    pub(super) fn everyone<'a>(&'a self, world: &'a dyn World) -> Everyone<'a> {
        Everyone::of(&self.hba, &self.ident, world)
    }

    /// All of them, asked of the same side's everyone.
    pub(super) fn facts(&self, everyone: &Everyone, atoms: &Atoms, known: &Known) -> Facts {
        let certificates = bytes(&known.certificates);
        let mut facts = Facts::new();
        let kinds = atoms.kinds.iter().filter(|kind| self.ssl || **kind != TLS);
        for (kind, role) in kinds.flat_map(|kind| atoms.roles.iter().map(move |role| (kind, role))) {
            for target in &atoms.targets {
                for share in everyone.shares(*kind, target, role) {
                    for way in everyone.ways(&share, role, &certificates) {
                        let by = By {
                            foreign: self.foreign && way.certificate.is_some(),
                            way: like_role(way, role),
                        };
                        let from = facts
                            .entry(((*kind, target.clone(), role.clone()), by))
                            .or_default();
                        *from = from.union(&share.from);
                    }
                }
            }
        }
        facts
    }
}

/// Lines whose addresses are not known, as they stand.
pub(super) fn passed_over(everyone: &Everyone) -> Vec<String> {
    let lines = everyone.passed_over().map(|line| {
        let text = String::from_utf8_lossy(&line.raw).trim().to_owned();
        format!("line {} (`{text}`)", line.at.number)
    });
    lines.collect()
}

/// The beginning of its database's and its map's name.
const MARKER: &[u8] = b"marker-";
const TLS: Kind = Kind::Tcp(Encryption::Tls);

impl Atoms {
    /// What either side tells apart, and the rest.
    pub(super) fn of(both: [&Everyone; 2], known: &Known) -> Atoms {
        let mut roles: BTreeSet<Name> = BTreeSet::from([Name::Other]);
        let mut databases = BTreeSet::from([Name::Other]);
        for one in both {
            let named = |name: &[u8]| Name::Named(name.to_vec());
            roles.extend(one.named_roles().into_iter().map(named));
            databases.extend(one.named_databases().into_iter().map(named));
        }
        let singled = |name: &[u8]| both.iter().any(|one| one.singles_out_role(name));
        roles.extend(
            bytes(&known.roles)
                .into_iter()
                .filter(|n| singled(n))
                .map(Name::Named),
        );
        // Without a map a certificate's name is a role's, where there is one.
        let is_there = |name: &&String| known.roles.is_empty() || known.roles.contains(name);
        let certificates = known.certificates.iter().filter(is_there);
        roles.extend(certificates.map(|name| Name::Named(name.clone().into_bytes())));
        let singled = |name: &[u8]| both.iter().any(|one| one.singles_out_database(name));
        databases.extend(
            bytes(&known.databases)
                .into_iter()
                .filter(|n| singled(n))
                .map(Name::Named),
        );
        let mut targets: BTreeSet<Target> = databases.into_iter().map(Target::Database).collect();
        targets.insert(Target::Replication);
        if both.iter().any(|one| one.knows_own_databases()) {
            targets.insert(Target::Own);
        }
        // Without a line for it GSSAPI's encryption is treated as none is.
        let gss = both.iter().any(|one| {
            let mut lines = one.hba().lines.iter();
            lines.any(|line| {
                line.connection.is_for(Kind::Tcp(Encryption::Gss))
                    != line.connection.is_for(Kind::Tcp(Encryption::None))
            })
        });
        let kinds = Kind::ALL.into_iter();
        let kinds = kinds.filter(|kind| gss || *kind != Kind::Tcp(Encryption::Gss));
        Atoms {
            kinds: kinds.collect(),
            targets,
            roles,
        }
    }
}

/// Whoever is called as the role is, is said to be that in every case: so a hundred of them are one row, and a map that
/// names them is no change against a line without a map.
fn like_role(mut way: Way, role: &Name) -> Way {
    if let Name::Named(role) = role {
        for holder in [&mut way.user, &mut way.certificate].into_iter().flatten() {
            if matches!(holder, Holder::Named(name) if name == role) {
                *holder = Holder::LikeRole;
            }
        }
    }
    way
}

/// What is in one and not in the other.
pub(super) fn without(one: &Facts, other: &Facts) -> Facts {
    let left = one.iter().map(|(key, from)| match other.get(key) {
        Some(theirs) => (key.clone(), from.without(theirs)),
        None => (key.clone(), from.clone()),
    });
    left.filter(|(_, from)| !from.is_empty()).collect()
}

/// Puts together what differs in one thing only, one thing after the other.
pub(super) fn grouped(facts: Facts) -> Vec<Group> {
    let single = |(((kind, target, role), by), from): ((Place, By), Ranges)| Group {
        roles: BTreeSet::from([role]),
        targets: BTreeSet::from([target]),
        by: BTreeSet::from([by]),
        kinds: BTreeSet::from([kind]),
        from,
    };
    let groups: Vec<Group> = facts.into_iter().map(single).collect();
    let groups = merged(groups, |group| &mut group.kinds);
    let groups = merged(groups, |group| &mut group.targets);
    let groups = merged(groups, |group| &mut group.by);
    let mut groups = merged(groups, |group| &mut group.roles);
    groups.sort();
    groups
}

fn merged<T: Ord + Clone>(groups: Vec<Group>, part: fn(&mut Group) -> &mut BTreeSet<T>) -> Vec<Group> {
    let mut all: BTreeMap<Group, BTreeSet<T>> = BTreeMap::new();
    for mut group in groups {
        let own = std::mem::take(part(&mut group));
        all.entry(group).or_default().extend(own);
    }
    let whole = all.into_iter().map(|(mut group, own)| {
        *part(&mut group) = own;
        group
    });
    whole.collect()
}

fn bytes(names: &[String]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests;
