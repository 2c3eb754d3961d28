//! `pgfw pg verify`: whether the filter and a server's rules tell the same story, and what only one of them guards.

mod admitted;
mod class;
mod listening;
mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;

pub use class::Class;
use listening::Listening;
use pgfw_hba::{Connection, Encryption, Kind, Range, Ranges, World, reach};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::certificates::no_cluster;
use super::outlook::own_addresses;
use crate::clock::Now;
use crate::config::{Cluster, Config, Manage, Mode};
use crate::datapath::Datapath;
use crate::failure::Failure;
use crate::paths::Paths;
use crate::policy::coverage::ServicePort;
use crate::policy::{Answer, Origin};
use crate::postgres::{self, Inspection, PostgresError, Rules, Server};

/// What was found at one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub cluster: String,
    /// By class, in the order of [`Class`].
    pub findings: Vec<Finding>,
    /// What one layer alone stands before.
    pub one_layer: Vec<String>,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

/// One disagreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub class: Class,
    /// One sentence, or two when the second says what to do.
    pub message: String,
}

/// Which clusters `pg verify` means: the one named, else every one.
///
/// # Errors
/// No such cluster; a config that cannot be read.
pub fn clusters_to_verify(paths: &Paths, cluster: Option<&str>) -> Result<Vec<String>, Failure> {
    super::pg::clusters_to_release(paths, cluster)
}

/// Looks at a cluster, with the daemon or without it; changes nothing.
///
/// # Errors
/// No such cluster; a ledger, pins or a cluster that cannot be read.
pub fn pg_verify(paths: &Paths, name: &str) -> Result<Verified, Failure> {
    let config = Config::read(&paths.config)?;
    let Some(cluster) = config.cluster(name) else {
        return Err(no_cluster(&config, name, &paths.config));
    };
    let mut verified = Verified {
        cluster: name.to_owned(),
        ..Verified::default()
    };
    let server = match Server::find(cluster) {
        Ok(server) => server,
        Err(error @ PostgresError::Settings { .. }) => {
            let failure = Failure::from(error);
            verified.find(
                Class::UnfitForRestart,
                format!("{}. {}", failure.message, failure.remedy),
            );
            return Ok(verified);
        }
        Err(error) => return Err(error.into()),
    };
    let rules = Rules::of(&server)?;
    verified.files(cluster, &config, paths, &server, &rules)?;
    let been_here = paths.ledger().exists() || paths.confirmed_marker().exists();
    let engine = match been_here || Datapath::exists(&paths.bpffs) {
        true => Some(Engine::look(paths)?),
        false => None,
    };
    let admitted = match &engine {
        Some(engine) => verified.filter(engine, &config, cluster, server.port)?,
        None => None,
    };
    if admitted.is_none() && !verified.has(Class::NoFilter) {
        verified.find(
            Class::NoFilter,
            "no policy judges packets on this host; start the daemon, or look at `pgfw status`.".to_owned(),
        );
    }
    let listening = Listening::look(&server, cluster, &mut verified)?;
    if rules.hba.errors.is_empty() {
        let mut lines = reach(&rules.hba, &rules.live);
        if !rules.ssl {
            // Nobody comes by TLS.
            for reach in &mut lines {
                let tls = Kind::Tcp(Encryption::Tls);
                reach.left.retain(|left| left.kind != tls);
                if reach.line.connection == Connection::HostSsl {
                    reach.taken_by.clear();
                }
            }
        }
        let scene = rules::Scene {
            admitted: admitted.as_ref(),
            here: here(),
            listening: listening.as_ref(),
            interfaces: rules.live.interfaces().unwrap_or_default(),
            logins: &config.logins,
        };
        rules::compare(&lines, &scene, &mut verified);
    }
    verified.notes.extend(rules.notes);
    verified.findings.sort_by_key(|finding| finding.class);
    Ok(verified)
}

impl Verified {
    fn find(&mut self, class: Class, message: String) {
        self.findings.push(Finding { class, message });
    }

    fn has(&self, class: Class) -> bool {
        self.findings.iter().any(|finding| finding.class == class)
    }

    /// Drift, overrides, and what the next start would come to.
    fn files(
        &mut self,
        cluster: &Cluster,
        config: &Config,
        paths: &Paths,
        server: &Server,
        rules: &Rules,
    ) -> Result<(), Failure> {
        let Inspection {
            drift,
            unfit,
            overridden,
            notes,
        } = postgres::inspect(cluster, config, paths, server)?;
        if cluster.manage != Manage::Files {
            self.notes.push(
                "pgfw does not write this cluster's files, so nobody looks whether they were edited"
                    .to_owned(),
            );
        }
        for message in drift {
            self.find(Class::Drift, message);
        }
        for message in overridden {
            self.find(Class::Overridden, message);
        }
        for message in unfit {
            self.find(Class::UnfitForRestart, message);
        }
        for problem in &rules.hba.errors {
            self.find(
                Class::UnfitForRestart,
                format!("{problem}; a running server goes on by its former rules, and a start fails."),
            );
        }
        for problem in &rules.ident.errors {
            self.find(
                Class::UnfitForRestart,
                format!("{problem}; a running server goes on by its former maps, and a start has none."),
            );
        }
        let doubts = rules.hba.doubts.iter().chain(&rules.ident.doubts);
        self.notes.extend(doubts.map(ToString::to_string));
        self.notes.extend(notes);
        Ok(())
    }

    /// What the filter admits to the server's port, and what stands open beside it. `None`: everything passes.
    fn filter(
        &mut self,
        engine: &Engine,
        config: &Config,
        cluster: &Cluster,
        port: u16,
    ) -> Result<Option<Ranges>, Failure> {
        engine.not_anothers()?;
        let only = Config {
            postgres: vec![cluster.clone()],
            ..config.clone()
        };
        for message in engine.open_servers(&only)? {
            self.find(Class::UncoveredInterface, message);
        }
        let now = Now::read();
        let Some(number) = engine.judging(&now)? else {
            return Ok(None);
        };
        let judged = engine.config_of(number)?;
        if judged.firewall.mode == Mode::Audit {
            self.find(
                Class::NoFilter,
                "the filter drops nothing (firewall.mode = \"audit\"); what follows is what it would do."
                    .to_owned(),
            );
        }
        let compiled = engine.compile(&judged, number, &now)?;
        let port = ServicePort { protocol: 6, port };
        let Some(service) = compiled.services.get(&port) else {
            self.notes.push(format!(
                "the policy that runs has no service at port {}",
                port.port
            ));
            return Ok(Some(Ranges::none()));
        };
        let admitted = admitted::admitted(&compiled, *service, now.boot);
        let mut as_such = BTreeSet::new();
        for opening in engine.openings(&judged, &now)? {
            let by = match &opening.origin {
                Origin::Config(name) => format!("`allow` of {name}"),
                Origin::Entry(_) => "`pgfw allow`".to_owned(),
                Origin::Identity(_) | Origin::Login(_) | Origin::Lease(_) => continue,
            };
            if opening.service == *service && opening.answer == Answer::Allow {
                as_such.insert(format!(
                    "rules only: {} is open by {by}, whatever certificates say",
                    opening.net
                ));
            }
        }
        self.one_layer.extend(as_such);
        Ok(Some(admitted))
    }
}

/// Addresses whose packets come over the loopback interface, which nothing filters.
fn here() -> Ranges {
    let own = own_addresses().into_iter().map(|address| Range {
        first: address,
        last: address,
    });
    let range = |first: &str, last: &str| -> Option<Range> {
        Some(Range {
            first: first.parse::<IpAddr>().ok()?,
            last: last.parse::<IpAddr>().ok()?,
        })
    };
    let loopback = [range("127.0.0.0", "127.255.255.255"), range("::1", "::1")];
    Ranges::of(own.chain(loopback.into_iter().flatten()))
}
