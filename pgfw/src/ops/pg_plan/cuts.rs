//! Whom a change cuts: live sessions and standbys, certificates that were issued, clients of logins. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pgfw_hba::{Holder, Method, Name, Ranges, Way};
use serde::{Deserialize, Serialize};

use super::access::{Atoms, By, Facts, Place, grouped, without};
use super::reconnect::{Again, Client, Server};
use super::rows::Row;
use crate::config::Login;
use crate::ledger::types::Certificate;
use crate::postgres::{LiveFacts, Session, Stream};

/// A session that goes on and would not, or perhaps not, be let in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub kind: CutKind,
    /// `false`: it depends on what only the client knows, such as a password.
    pub certain: bool,
    /// By the rules of now it would not be let in again either.
    pub already: bool,
    pub why: String,
    /// The name in its certificate.
    pub certificate: Option<String>,
    pub session: Session,
    /// What it is sent, where it is sent WAL.
    pub stream: Option<Stream>,
}

/// What kind of client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutKind {
    /// Streams on until its connection ends, and fails at the next.
    Standby,
    /// Of logical replication; the same.
    Subscriber,
    Session,
}

/// A client certificate that is valid now and will be good for less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutCertificate {
    pub name: String,
    /// Hexadecimal, as `pgfw cert list` has it.
    pub serial: String,
    /// RFC 3339.
    pub until: String,
    /// It gets in nowhere on this cluster any more.
    pub wholly: bool,
    /// Where it got in and will not.
    pub lost: Vec<Row>,
}

/// A login of pgfw.toml whose clients fail if they offer a certificate that the server does not trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    pub login: String,
    /// Clients that are connected now as a role of it, over TLS.
    pub clients: Vec<IpAddr>,
    /// Those among them that have shown such a certificate.
    pub offer: Vec<IpAddr>,
}

pub(super) fn sessions(
    now: Option<&Server>,
    then: &Server,
    live: &LiveFacts,
    certificates: &[Certificate],
) -> Vec<Cut> {
    let by_serial: BTreeMap<String, &str> = certificates
        .iter()
        .filter_map(|c| Some((c.serial_decimal()?, c.name.as_str())))
        .collect();
    let mut cuts: Vec<Cut> = Vec::new();
    for session in &live.sessions {
        let certificate = session.serial.as_ref().and_then(|serial| {
            let known = by_serial.get(serial).copied();
            known.or_else(|| common_name(session.subject.as_deref()?))
        });
        let client = Client {
            session,
            certificate,
            gss: live.gss.contains(&session.pid),
        };
        let (certain, why) = match then.again(&client, live) {
            Again::In => continue,
            Again::Perhaps(why) => (false, why),
            Again::Refused(why) => (true, why),
        };
        // What is asked of it now and will be asked as before is no change.
        let same = now.and_then(|now| Some((now.ways(&client)?, then.ways(&client)?)));
        if !certain && same.is_some_and(|(now, then)| !now.is_empty() && now.iter().all(|w| then.contains(w)))
        {
            continue;
        }
        let stream = live.streams.iter().find(|stream| stream.pid == session.pid);
        cuts.push(Cut {
            kind: match (stream, &session.database) {
                (Some(_), None) => CutKind::Standby,
                (Some(_), Some(_)) => CutKind::Subscriber,
                (None, _) => CutKind::Session,
            },
            certain,
            already: now.is_some_and(|now| matches!(now.again(&client, live), Again::Refused(_))),
            why,
            certificate: certificate.map(str::to_owned),
            session: session.clone(),
            stream: stream.cloned(),
        });
    }
    cuts.sort_by_key(|cut| (cut.kind, !cut.certain, cut.session.pid));
    cuts
}

/// Those that are valid and trusted now, each with whether the server will trust it.
pub(super) fn certificates<'c>(
    (now, then): (&Facts, &Facts),
    atoms: &Atoms,
    valid: impl Iterator<Item = (&'c Certificate, bool)>,
) -> Vec<CutCertificate> {
    let (now, then) = (ByCertificate::of(now), ByCertificate::of(then));
    let cut = valid.filter_map(|(certificate, trusted)| {
        let had = now.facts(&certificate.name);
        let has = match trusted {
            true => then.facts(&certificate.name),
            false => Facts::new(),
        };
        let lost = without(&had, &has);
        (!lost.is_empty()).then(|| CutCertificate {
            name: certificate.name.clone(),
            serial: certificate.serial.clone(),
            until: certificate.not_after.rfc3339(),
            wholly: has.is_empty(),
            lost: grouped(lost).iter().map(|group| Row::of(group, atoms)).collect(),
        })
    });
    cut.collect()
}

/// Where certificates of pgfw's authorities are let in, whatever else is asked for.
struct ByCertificate<'f> {
    named: BTreeMap<&'f [u8], Vec<(&'f Place, &'f Ranges)>>,
    /// Whosever they are.
    any: Vec<(&'f Place, &'f Ranges)>,
}

impl<'f> ByCertificate<'f> {
    fn of(facts: &'f Facts) -> ByCertificate<'f> {
        let mut all = ByCertificate {
            named: BTreeMap::new(),
            any: Vec::new(),
        };
        for ((place, by), from) in facts.iter().filter(|((_, by), _)| !by.foreign) {
            let name = match (&by.way.certificate, place) {
                (Some(Holder::Anybody), _) => {
                    all.any.push((place, from));
                    continue;
                }
                // A whole subject, where a rule compares those.
                (Some(Holder::Named(name)), _) => name.strip_prefix(b"CN=").unwrap_or(name),
                (Some(Holder::LikeRole), (_, _, Name::Named(role))) => role.as_slice(),
                // Whom of the names asked about an expression lets in is said beside it.
                (Some(Holder::LikeRole | Holder::Matching(_)) | None, _) => continue,
            };
            all.named.entry(name).or_default().push((place, from));
        }
        all
    }

    fn facts(&self, name: &str) -> Facts {
        let by = By {
            way: Way {
                method: Method::Trust,
                user: None,
                certificate: Some(Holder::Named(name.into())),
                certain: true,
            },
            foreign: false,
        };
        let mut facts = Facts::new();
        let own = self.named.get(name.as_bytes()).into_iter().flatten();
        for (place, from) in own.chain(&self.any) {
            let known = facts.entry(((*place).clone(), by.clone())).or_default();
            *known = known.union(from);
        }
        facts
    }
}

/// Logins over TLS whose clients are asked for a certificate from now on, or are not trusted with theirs any more.
pub(super) fn stray(
    logins: &[Login],
    asks_anew: bool,
    then: &Server,
    live: Option<&LiveFacts>,
) -> Vec<Stray> {
    let each = logins.iter().filter_map(|login| {
        let theirs = |session: &&Session| {
            let role = session.role.as_ref();
            session.tls.is_some() && role.is_some_and(|role| login.roles.contains(role))
        };
        let sessions = live.map_or(&[][..], |live| live.sessions.as_slice());
        let addresses = |all: Vec<&Session>| {
            let mut all: Vec<IpAddr> = all.iter().filter_map(|session| session.address).collect();
            all.sort();
            all.dedup();
            all
        };
        let clients: Vec<&Session> = sessions.iter().filter(theirs).collect();
        let offer: Vec<&Session> = clients
            .iter()
            .copied()
            .filter(|session| then.untrusted_issuer(session).is_some())
            .collect();
        (asks_anew || !offer.is_empty()).then(|| Stray {
            login: login.name.clone(),
            clients: addresses(clients),
            offer: addresses(offer),
        })
    });
    each.collect()
}

/// `/CN=alice`, as the server shows a subject; `None` where it may be cut (NAMEDATALEN) or is more than that.
fn common_name(subject: &str) -> Option<&str> {
    let name = subject.strip_prefix("/CN=")?;
    (subject.len() < 63 && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests;
