//! A line of pg_hba.conf as `[[login]]` sections, and what is to be said about it. Pure.

use ipnet::IpNet;
use pgfw_hba::{Connection, HbaLine, Method as Asks, Ranges};

use super::fate::Fate;
use super::table::{Candidate, Part, Table, Target, literal, literal_role, loopback};
use super::text::shown;
use super::{Known, Secret};
use crate::config::Method;
use crate::postgres::hba::quote;

/// A `[[login]]` to be, not named yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) method: Method,
    pub(super) roles: Vec<String>,
    /// `None`: all.
    pub(super) databases: Option<Vec<String>>,
    pub(super) replication: bool,
    pub(super) networks: Vec<IpNet>,
    pub(super) plaintext: bool,
    /// Of the roles those whose password is not kept for SCRAM; `None`: nobody was asked.
    pub(super) not_scram: Option<Vec<String>>,
}

/// Something to know about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// What is admitted will not be what is admitted today.
    pub(super) differs: bool,
    pub(super) text: String,
}

impl Note {
    pub(super) fn says(text: impl Into<String>) -> Note {
        Note {
            differs: false,
            text: text.into(),
        }
    }

    pub(super) fn differs(text: impl Into<String>) -> Note {
        Note {
            differs: true,
            text: text.into(),
        }
    }
}

/// What becomes of one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OfLine {
    pub(super) sections: Vec<Section>,
    pub(super) notes: Vec<Note>,
}

/// Databases with one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    /// Of all databases.
    all: bool,
    named: Vec<String>,
    replication: bool,
    tls: Ranges,
    plain: Ranges,
}

/// What a line of type host… comes to; nothing for one of type local.
pub(super) fn of_line(table: &Table, n: usize, known: &Known) -> OfLine {
    let mut of = OfLine::default();
    let line = &table.lines[n];
    let place = &table.places[n];
    if let Some(doubt) = &table.doubts[n] {
        of.differs(format!("not carried over where this is not known: {doubt}"));
    }
    // What GSSAPI encrypts is not gone through: it has no section.
    let is_dead = !table.is_reached(n)
        && place.ranges.is_some()
        && table.doubts[n].is_none()
        && line.connection != Connection::HostGssEnc;
    let asks_for_more = known.roles.is_none() && line.roles.iter().any(|p| literal_role(p).is_none());
    match &table.fates[n] {
        Fate::Local => {}
        Fate::Refuses => match (&place.ranges, &place.note) {
            (None, Some(why)) => of.differs(format!(
                "it refuses, and {why}: what it refuses is decided by the lines below, then"
            )),
            (Some(_) | None, _) => of.says("refused as today: whatever no section lets in is"),
        },
        Fate::Lost { why: _, instead: _ } | Fate::Login(_) if is_dead && !asks_for_more => {
            of.says("nobody comes to it today: the lines before it decide, or nothing is as it says");
        }
        Fate::Lost { why, instead } => match (&place.ranges, &place.note) {
            (None, Some(nowhere)) => of.differs(format!(
                "not carried over: {why}, and {nowhere}; from there the lines below decide, then. {instead}"
            )),
            (Some(_) | None, _) => {
                of.differs(format!("not carried over, and refused then: {why}. {instead}"));
            }
        },
        Fate::Login(method) => {
            match (&place.ranges, &place.note) {
                (None, why) => {
                    let why = why.as_deref().unwrap_or("its addresses are not known");
                    of.differs(format!(
                        "not carried over: {why}; from there the lines below decide, then"
                    ));
                    return of;
                }
                (Some(_), Some(why)) => of.says(why.clone()),
                (Some(_), None) => {}
            }
            if asks_for_more {
                of.differs(
                    "it is for more roles than the files name, and they are not known while the server cannot be \
                     asked: start it and adopt again, or name them in `roles`"
                        .to_owned(),
                );
            }
            login(table, n, *method, known, &mut of);
        }
    }
    of
}

impl OfLine {
    fn says(&mut self, text: impl Into<String>) {
        self.notes.push(Note::says(text));
    }

    fn differs(&mut self, text: String) {
        self.notes.push(Note::differs(text));
    }
}

/// What is noticed on the way.
#[derive(Default)]
struct Seen {
    lost: Ranges,
    turned: Ranges,
    unpaired: Ranges,
    without_password: Vec<String>,
    unnameable: Vec<String>,
    every_database: bool,
}

fn login(table: &Table, n: usize, method: Method, known: &Known, of: &mut OfLine) {
    let line = &table.lines[n];
    let mut seen = Seen::default();
    let mut groups: Vec<(Vec<&Candidate>, Vec<Piece>)> = Vec::new();
    for (c, candidate) in table.candidates.iter().enumerate() {
        let named = is_named(line, &candidate.role.name);
        if !(candidate.exists || named || known.roles.is_none()) {
            continue;
        }
        let pieces = pieces(table, n, method, c, known, &mut seen);
        if pieces.is_empty() {
            continue;
        }
        if candidate.role.secret == Secret::None && !named {
            seen.without_password.push(shown(&candidate.role.name));
            continue;
        }
        if writable(&candidate.role.name, known).is_none() {
            seen.unnameable.push(shown(&candidate.role.name));
            continue;
        }
        match groups.iter_mut().find(|(_, same)| *same == pieces) {
            Some((roles, _)) => roles.push(candidate),
            None => groups.push((vec![candidate], pieces)),
        }
    }
    for (candidates, pieces) in &groups {
        let roles: Vec<String> = candidates
            .iter()
            .filter_map(|c| writable(&c.role.name, known))
            .collect();
        let not_scram = not_scram(candidates);
        for piece in pieces {
            for (ranges, plaintext) in transports(piece) {
                let networks = networks(&ranges);
                if networks.is_empty() {
                    continue;
                }
                of.sections.push(Section {
                    method,
                    roles: roles.clone(),
                    databases: (!piece.all).then(|| piece.named.clone()),
                    replication: piece.replication,
                    networks,
                    plaintext,
                    not_scram: not_scram.clone(),
                });
            }
        }
    }
    notes(line, known, seen, of);
}

fn notes(line: &HbaLine, known: &Known, seen: Seen, of: &mut OfLine) {
    let Seen {
        lost,
        turned,
        unpaired,
        without_password,
        unnameable,
        every_database,
    } = seen;
    if !lost.is_empty() {
        of.differs(format!(
            "plaintext: it lets clients in without TLS from {}; they need TLS then (sslmode=prefer will do)",
            elsewhere(&lost)
        ));
    }
    if !turned.is_empty() && line.connection == Connection::HostNoSsl {
        of.differs("it is for plaintext alone; its clients come by TLS, then".to_owned());
    }
    if !unpaired.is_empty() {
        of.differs(format!(
            "plaintext from {unpaired} is refused then: by TLS another line decides there, and a login has one method"
        ));
    }
    if line.method == Asks::Password {
        of.says("it asks for the password itself (password); md5 asks libpq's clients for a proof of the same one");
    }
    let enumerated = line.roles.iter().any(|p| literal_role(p).is_none());
    if enumerated && known.roles.is_some() && !of.sections.is_empty() {
        of.says("its roles are those of today: one made later is let in once it is named here");
    }
    if every_database {
        of.says("its databases are those of today: one made later is let in once it is named here");
    }
    if !without_password.is_empty() {
        of.says(format!(
            "left out, since they have no password and so do not get in: {}",
            without_password.join(", ")
        ));
    }
    if !unnameable.is_empty() {
        of.differs(format!(
            "left out, since neither pgfw.toml nor a rule can hold such a name, and refused then: {}",
            unnameable.join(", ")
        ));
    }
    if of.sections.is_empty() && of.notes.is_empty() {
        of.says("nobody gets in by it today");
    }
}

/// A role's databases by the answer they get.
fn pieces(
    table: &Table,
    n: usize,
    method: Method,
    candidate: usize,
    known: &Known,
    seen: &mut Seen,
) -> Vec<Piece> {
    let line = &table.lines[n];
    let role = &table.candidates[candidate].role;
    let part = |t: usize| {
        let part = table.part(n, candidate, t)?;
        // A login that is for plaintext is for TLS as well: where TLS has the same method by another line, nobody gains.
        let (tls, _) = table.admitted(method, candidate, t);
        Some(Part {
            tls: part.tls.union(&part.plain.within(tls)),
            ..part.clone()
        })
    };
    let position = |wanted: &Target| table.targets.iter().position(|t| t == wanted);
    let another = position(&Target::Another).and_then(&part);
    // All of them only where nobody gains a database by it.
    let for_all = another.filter(|another: &Part| {
        table.targets.iter().enumerate().all(|(t, target)| {
            let Target::Database(_) = target else { return true };
            let (tls, plain) = table.admitted(method, candidate, t);
            another.tls.without(tls).is_empty() && another.plain.without(plain).is_empty()
        })
    });
    let mut pieces: Vec<Piece> = Vec::new();
    let mut passwordless = Seen::default();
    let mine = match role.secret == Secret::None && !is_named(line, &role.name) {
        true => &mut passwordless,
        false => seen,
    };
    for (t, target) in table.targets.iter().enumerate() {
        let Some(part) = part(t) else { continue };
        let piece = match target {
            Target::Another => match &for_all {
                Some(_) => Piece::of(&part, true),
                None => {
                    mine.every_database = true;
                    continue;
                }
            },
            Target::Database(name) => {
                let exists = known.databases.as_ref().is_none_or(|all| all.contains(name));
                let is_literal = line.databases.iter().any(|p| literal(p) == Some(name));
                if !exists && !is_literal {
                    continue;
                }
                let covered = for_all.as_ref().is_some_and(|all| {
                    part.tls.without(&all.tls).is_empty() && part.plain.without(&all.plain).is_empty()
                });
                let Some(name) = writable(name, known) else {
                    if !covered {
                        mine.unnameable.push(shown(name));
                    }
                    continue;
                };
                let mut piece = Piece::of(&part, false);
                if !covered {
                    piece.named.push(name);
                }
                piece
            }
            Target::Replication => {
                if !role.replicates && !is_named(line, &role.name) {
                    continue;
                }
                let mut piece = Piece::of(&part, false);
                piece.replication = true;
                piece
            }
        };
        mine.lost = mine.lost.union(&part.lost);
        mine.turned = mine.turned.union(&part.turned);
        mine.unpaired = mine.unpaired.union(&part.plain.without(&part.tls));
        if piece.tls.is_empty() || !(piece.all || piece.replication || !piece.named.is_empty()) {
            continue;
        }
        match pieces
            .iter_mut()
            .find(|p| p.tls == piece.tls && p.plain == piece.plain)
        {
            Some(same) => same.add(piece),
            None => pieces.push(piece),
        }
    }
    pieces
}

impl Piece {
    fn of(part: &Part, all: bool) -> Piece {
        Piece {
            all,
            named: Vec::new(),
            replication: false,
            tls: part.tls.clone(),
            plain: part.plain.within(&part.tls),
        }
    }

    fn add(&mut self, other: Piece) {
        let Piece {
            all,
            named,
            replication,
            tls: _,
            plain: _,
        } = other;
        self.all |= all;
        self.named.extend(named);
        self.replication |= replication;
    }
}

/// A section is for plaintext on the whole of its networks that is loopback, or on none of it.
fn transports(piece: &Piece) -> Vec<(Ranges, bool)> {
    let by_tls_only = piece.tls.within(&loopback()).without(&piece.plain);
    let both = piece.tls.without(&by_tls_only);
    if piece.plain.is_empty() {
        return vec![(piece.tls.clone(), false)];
    }
    let apart = (!by_tls_only.is_empty()).then_some((by_tls_only, false));
    [(both, true)].into_iter().chain(apart).collect()
}

/// Without what is no client's: an IPv4 client is none of a `::ffff:` network.
pub(super) fn networks(ranges: &Ranges) -> Vec<IpNet> {
    let prefixes = ranges.iter().flat_map(pgfw_hba::Range::prefixes);
    let nets = prefixes.filter_map(|(address, bits)| IpNet::new(address, bits).ok());
    nets.filter(|net| crate::config::check_network(*net).is_ok())
        .collect()
}

/// In few words where they will do.
fn elsewhere(lost: &Ranges) -> String {
    match lost.union(&loopback()) == Ranges::all() {
        true => "everywhere".to_owned(),
        false => lost.to_string(),
    }
}

fn is_named(line: &HbaLine, role: &[u8]) -> bool {
    line.roles.iter().any(|p| literal_role(p) == Some(role))
}

/// A name as pgfw.toml takes it (config/values.rs: `pg_name`), and as a rule can say it.
fn writable(name: &[u8], known: &Known) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let fits = !text.is_empty() && text.len() <= pgfw_hba::LONGEST_NAME && !text.contains(['\0', '\n', '\r']);
    let fits = fits && quote::name(text, known.major).is_some();
    fits.then(|| text.to_owned())
}

fn not_scram(candidates: &[&Candidate]) -> Option<Vec<String>> {
    let mut others = Vec::new();
    for candidate in candidates {
        match candidate.role.secret {
            Secret::Unknown => return None,
            Secret::Scram | Secret::None => {}
            Secret::Md5 => others.push(shown(&candidate.role.name)),
        }
    }
    Some(others)
}
