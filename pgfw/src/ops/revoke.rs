//! `pgfw cert revoke`: through every layer, in an order in which nobody slips through, and never waiting for what
//! cannot be written.
//!
//! CRL (the server reads it at its next connection) → ledger → packet filter → live sessions, and connections that
//! had finished TLS before the CRL was there. The sessions take a server that answers, so nothing is held meanwhile. What was to be done is noted before it is begun, so that a crash between
//! two steps is made good by the next start; what fails is noted too, and the daemon tries again.

use std::time::Instant;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::certificates::store;
use super::guard::admits;
use super::sessions::{EndedSessions, Job, SessionWork, session_argument};
use crate::clock::Now;
use crate::config::{Cluster, Config, Manage};
use crate::failure::{Code, Failure};
use crate::ledger::types::{Authority, Certificate, RevocationReason, WorkKind};
use crate::pki::{self, RevokeRequest, Selection};
use crate::policy::{Answer, Opening, Origin};

/// `POST /v1/revoke`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// An identity's name, or a serial.
    pub target: String,
    pub reason: RevocationReason,
}

/// What was reached, layer by layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revoked {
    /// Serials, with the names they were issued to; the name is empty for a serial that the ledger does not know.
    pub certificates: Vec<(String, String)>,
    pub layers: Vec<Layer>,
    /// What somebody else keeps open, and what was found damaged on the way.
    pub notes: Vec<String>,
    /// What could not be done yet.
    pub unfinished: Vec<String>,
    /// How many of these wait for the passphrase of an authority's key and for nothing else.
    pub locked: usize,
    /// Whether all of it is in the ledger, so that a daemon that is started later finishes it.
    pub recorded: bool,
}

/// One layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    pub what: String,
    pub milliseconds: u64,
}

/// What a revocation has to reach.
pub(super) struct Reach {
    /// Where the authorities are.
    pub config: Config,
    /// Those of the policy that runs and those of pgfw.toml: `pg apply` goes by the file before `reload` does.
    pub clusters: Vec<Cluster>,
}

/// A revocation whose lists, ledger and filter are done, as far as they can be. The sessions are left, which takes a
/// server that answers: nobody else waits for that.
#[derive(Debug)]
pub struct Begun {
    selection: Selection,
    sessions: SessionWork,
    report: Report,
}

/// The same, with what became of the sessions.
#[derive(Debug)]
pub struct Ended {
    selection: Selection,
    sessions: EndedSessions,
    report: Report,
}

impl Begun {
    /// For what is no emergency: see [`SessionWork::patiently`].
    pub(super) fn patiently(mut self) -> Begun {
        self.sessions = self.sessions.patiently();
        self
    }

    /// Blocks for as long as the servers take, at most some seconds. Holds neither lock nor engine.
    pub fn end_sessions(self) -> Ended {
        let Begun {
            selection,
            sessions,
            report,
        } = self;
        Ended {
            selection,
            sessions: sessions.end(),
            report,
        }
    }
}

impl Engine {
    /// Revokes every certificate that the target means. Idempotent: what was revoked before is closed again.
    ///
    /// # Errors
    /// Nothing is known by that name or serial. What could not be done is in the answer, and noted to be tried again.
    pub fn revoke(&mut self, request: &Revoke, requester: &str) -> Result<Revoked, Failure> {
        let ended = self.begin_revocation(request, requester)?.end_sessions();
        self.finish_revocation(ended)
    }

    /// The first part of [`Engine::revoke`]: everything that waits for nobody.
    ///
    /// # Errors
    /// Nothing is known by that name or serial.
    pub fn begin_revocation(&mut self, request: &Revoke, requester: &str) -> Result<Begun, Failure> {
        let _lock = self.lock()?;
        let reach = self.reach()?;
        let request = RevokeRequest {
            target: &request.target,
            reason: request.reason,
            requester,
        };
        let selection = pki::select(&store(&reach.config), &self.ledger, &request, Now::read().wall())?;
        Ok(self.begin_closing(&reach, selection, request.target))
    }

    /// The same for what was selected. Under the lock.
    pub(super) fn begin_closing(&mut self, reach: &Reach, selection: Selection, target: &str) -> Begun {
        let mut report = Report::new();
        let serials = client_serials(&selection);

        self.note_intent(reach, &serials);
        report.begin();
        let published = self.publish_revocation(reach, &selection, &mut report);
        let since = Now::read().boot;

        match self.refresh() {
            Ok(_) => match self.not_anothers() {
                Ok(()) => report.layer("packets", "the networks of these certificates are closed".into()),
                Err(failure) => {
                    report.layer("packets", "nothing of this instance is in the kernel".into());
                    report
                        .notes
                        .push(format!("{}. {}", failure.message, failure.remedy));
                }
            },
            Err(failure) => {
                report.layer("packets", "not all could be closed".into());
                report.unfinished("The packet filter", &failure);
                self.note(WorkKind::CloseFilter, target, &failure.message);
            }
        }
        self.say_revoked(&selection);
        if !report.unfinished.is_empty() {
            self.retry_later();
        }
        let jobs = reach
            .managed()
            // A server's certificate holds no session.
            .filter(|_| !serials.is_empty())
            .map(|cluster| Job {
                cluster: cluster.clone(),
                serials: serials.clone(),
                expired: Vec::new(),
            })
            .collect();
        Begun {
            selection,
            sessions: self.session_work(reach, jobs, published.then_some(since)),
            report,
        }
    }

    /// The last part: what became of the sessions is noted, and everything told.
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn finish_revocation(&mut self, ended: Ended) -> Result<Revoked, Failure> {
        let Ended {
            selection,
            sessions,
            mut report,
        } = ended;
        let _lock = self.lock()?;
        for (cluster, failure) in sessions.failures() {
            report.unfinished(&format!("Sessions on {cluster}"), failure);
        }
        let ended = sessions.count();
        self.note_sessions(sessions);
        report.layer("sessions", format!("{ended} connection(s) ended"));
        match self.still_open(&selection) {
            Ok(lines) => report.notes.extend(lines),
            Err(failure) => report
                .notes
                .push(format!("What else is open is not known: {failure}")),
        }
        if selection.certificates.is_empty()
            && selection.revocations.is_empty()
            && selection.already.is_empty()
        {
            report
                .notes
                .push("Every certificate of that name has expired; there was none to revoke.".into());
        }
        let Report {
            layers,
            notes,
            unfinished,
            locked,
            started: _,
        } = report;
        Ok(Revoked {
            certificates: said(&selection),
            layers,
            notes,
            unfinished,
            locked,
            recorded: self.unrecorded.is_empty() && self.waiting.unnoted.is_empty(),
        })
    }

    /// The config whose authorities are meant, and every cluster that may serve by them.
    ///
    /// # Errors
    /// Neither the policy that runs nor pgfw.toml can be read.
    pub(super) fn reach(&self) -> Result<Reach, Failure> {
        let has_authority = |config: &Config| {
            store(config)
                .authorities(Authority::Client)
                .is_ok_and(|all| !all.is_empty())
        };
        let (config, other) = match (Config::read(&self.paths.config), self.config()) {
            // Certificates are issued by the file.
            (Ok(file), Ok(runs)) if has_authority(&file) || !has_authority(&runs) => (file, Some(runs)),
            (Ok(file), Ok(runs)) => (runs, Some(file)),
            (Ok(file), Err(_)) => (file, None),
            (Err(_), Ok(runs)) => (runs, None),
            (Err(error), Err(_)) => return Err(error.into()),
        };
        let mut clusters = config.postgres.clone();
        let further = other.into_iter().flat_map(|other| other.postgres);
        clusters.extend(further.filter(|c| config.cluster(&c.name).is_none()));
        Ok(Reach { config, clusters })
    }

    /// Notes that sessions are to be ended, before anything is done: were this process killed in between, whoever comes
    /// next finds the certificate revoked and knows that its sessions may live on. A full disk keeps nothing waiting.
    fn note_intent(&mut self, reach: &Reach, serials: &[String]) {
        let arguments: Vec<String> = reach
            .managed()
            .flat_map(|cluster| {
                serials
                    .iter()
                    .map(|serial| session_argument(&cluster.name, serial))
            })
            .collect();
        let noted = self.ledger.intend_work(
            WorkKind::EndSessions,
            &arguments,
            "a revocation was begun",
            Now::read().wall(),
        );
        if let Err(error) = noted {
            tracing::warn!(%error, "a revocation is carried out without being noted first");
        }
    }

    /// CRL, then ledger. Whether every list stands.
    fn publish_revocation(&mut self, reach: &Reach, selection: &Selection, report: &mut Report) -> bool {
        let store = store(&reach.config);
        let targets = self.crl_targets(&reach.config, &reach.clusters);
        let wall = Now::read().wall();
        let carried_out = pki::carry_out(&store, Some(&mut self.ledger), selection.clone(), &targets, wall);
        let (published, recorded, failures) = match carried_out {
            Ok(outcome) => {
                let damaged = outcome.publication.damaged.iter();
                report
                    .notes
                    .extend(damaged.map(|failure| format!("{} {}", failure.message, failure.remedy)));
                (
                    outcome.publication.published.len(),
                    outcome.recorded,
                    outcome.publication.failures,
                )
            }
            // Without its authority no list can be signed; the ledger closes the filter all the same.
            Err(error) => {
                let recorded = self.ledger.record_revocations(&selection.revocations).is_ok();
                (0, recorded, vec![error.into()])
            }
        };
        report.layer("certificates", format!("{published} CRL(s) published"));
        if !recorded {
            self.unrecorded.revoke(&selection.revocations);
        }
        for failure in &failures {
            report.unfinished("Certificates", failure);
        }
        if let Some(failure) = failures.first() {
            self.note(
                WorkKind::PublishCrl,
                &store.directory().display().to_string(),
                &failure.message,
            );
        }
        failures.is_empty()
    }

    /// Networks of the revoked that something else holds open.
    fn still_open(&self, selection: &Selection) -> Result<Vec<String>, Failure> {
        let now = Now::read();
        let config = self.config()?;
        let compiled = self.compile(&config, self.judging(&now)?.unwrap_or(0), &now)?;
        let at_cluster = |opening: &&Opening| {
            let name = compiled.names.get(&opening.service);
            opening.answer == Answer::Allow && name.is_some_and(|name| config.cluster(name).is_some())
        };
        let openings = self.openings(&config, &now)?;
        let openings: Vec<&Opening> = openings.iter().filter(at_cluster).collect();
        let all = selection.certificates.iter().chain(&selection.already);
        let identities = all.filter_map(|certificate| config.identity(&certificate.name));
        let mut lines: Vec<String> = Vec::new();
        for (identity, net) in identities.flat_map(|i| i.networks.iter().map(move |net| (i, *net))) {
            for opening in &openings {
                let Some(common) = common(net, opening.net) else {
                    continue;
                };
                if !admits(&compiled, opening.service, common.addr(), now.boot) {
                    continue;
                }
                let by = match &opening.origin {
                    Origin::Config(section) => format!("pgfw.toml ({section})"),
                    Origin::Identity(name) if *name == identity.name => {
                        format!("another certificate of {name}")
                    }
                    Origin::Identity(name) => format!("the certificate of {name}"),
                    Origin::Login(name) => format!("the login {name}"),
                    Origin::Lease(name) => format!("a lease of {name}"),
                    Origin::Entry(_) => format!("`pgfw allow {}`", opening.net),
                };
                lines.push(format!("{common} stays open through {by}."));
            }
        }
        lines.sort();
        lines.dedup();
        Ok(lines)
    }
}

impl Reach {
    pub(super) fn managed(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.iter().filter(|c| c.manage != Manage::None)
    }
}

/// Whose sessions are to end. Also of certificates that expired: a session outlives its certificate's end.
fn client_serials(selection: &Selection) -> Vec<String> {
    let Selection {
        certificates,
        revocations,
        already,
        expired,
    } = selection;
    let known = certificates.iter().chain(already).chain(expired);
    let known = known
        .filter(|c| c.authority == Authority::Client)
        .map(|c| &c.serial);
    let revoked = revocations.iter().filter(|r| r.authority == Authority::Client);
    let mut serials: Vec<String> = known.chain(revoked.map(|r| &r.serial)).cloned().collect();
    serials.sort();
    serials.dedup();
    serials
}

fn said(selection: &Selection) -> Vec<(String, String)> {
    let known: Vec<&Certificate> = selection.certificates.iter().chain(&selection.already).collect();
    let mut all: Vec<(String, String)> = known.iter().map(|c| (c.serial.clone(), c.name.clone())).collect();
    let unknown = selection.revocations.iter().map(|r| &r.serial);
    for serial in unknown.filter(|serial| !known.iter().any(|c| c.serial == **serial)) {
        if !all.iter().any(|(s, _)| s == serial) {
            all.push((serial.clone(), String::new()));
        }
    }
    all
}

/// What two networks share: the narrower, if one holds the other.
fn common(one: IpNet, other: IpNet) -> Option<IpNet> {
    if one.contains(&other) {
        Some(other)
    } else if other.contains(&one) {
        Some(one)
    } else {
        None
    }
}

/// What is told about a revocation, as it goes on.
#[derive(Debug)]
struct Report {
    started: Instant,
    layers: Vec<Layer>,
    notes: Vec<String>,
    unfinished: Vec<String>,
    locked: usize,
}

impl Report {
    fn new() -> Report {
        Report {
            started: Instant::now(),
            layers: Vec::new(),
            notes: Vec::new(),
            unfinished: Vec::new(),
            locked: 0,
        }
    }

    fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// Ends a layer; the next begins.
    fn layer(&mut self, name: &str, what: String) {
        self.layers.push(Layer {
            name: name.to_owned(),
            what,
            milliseconds: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        self.begin();
    }

    fn unfinished(&mut self, what: &str, failure: &Failure) {
        let line = format!("{what}: {}. {}", failure.message, failure.remedy);
        if !self.unfinished.contains(&line) {
            self.unfinished.push(line);
            self.locked += usize::from(failure.code == Code::Locked);
        }
    }
}
