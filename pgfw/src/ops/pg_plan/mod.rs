//! `pgfw pg plan`: what an apply would change, in the files and in what they mean. Changes nothing.

mod access;
mod cuts;
mod reconnect;
mod rows;

use serde::{Deserialize, Serialize};

use self::access::{Atoms, Facts, Known, Side, grouped, passed_over, without};
use self::reconnect::Server;
use super::Engine;
use super::certificates::{no_cluster, store};
use super::pg::own_pair;
use crate::clock::Now;
use crate::config::{Cluster, Config, MinTls};
use crate::failure::Failure;
use crate::ledger::types::{Authority, Certificate};
use crate::paths::Paths;
use crate::pki::{self, Store};
use crate::postgres::{self, Difference, Plan, Setting};

pub use cuts::{Cut, CutCertificate, CutKind, Stray};
pub use rows::{Names, Over, Row};

/// What an apply to one cluster would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub cluster: String,
    /// The files are these already.
    pub unchanged: bool,
    /// Why an apply would be refused.
    pub obstacles: Vec<String>,
    pub files: Vec<Difference>,
    /// What the server serves and trusts from then on, a sentence each.
    pub tls: Vec<String>,
    /// Settings whose values change.
    pub settings: Vec<Setting>,
    /// `None`: what counts now is not known.
    pub access: Option<Access>,
    pub sessions: Vec<Cut>,
    pub certificates: Vec<CutCertificate>,
    pub stray: Vec<Stray>,
    pub missing_roles: Vec<String>,
    pub create_roles: Vec<String>,
    /// Settings that count from the server's next restart on.
    pub pending_restart: Vec<String>,
    /// What restarts it, which ends every session.
    pub restart: String,
    pub notes: Vec<String>,
    /// What only a server that runs could tell.
    pub not_seen: Vec<String>,
}

/// Who gets in, by the files of now and of then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub lost: Vec<Row>,
    pub gained: Vec<Row>,
    pub stays: Vec<Row>,
}

impl Planned {
    /// Whether an apply has anything to do.
    pub fn differs(&self) -> bool {
        !self.unchanged
    }

    /// What is cut, in one line; `None`: nothing is.
    pub fn cuts(&self) -> Option<String> {
        let of = |kind: CutKind, certain: bool| {
            let all = self.sessions.iter();
            all.filter(|cut| cut.kind == kind && cut.certain == certain && !cut.already)
                .count()
        };
        let counted = [
            (of(CutKind::Standby, true), "standby", "standbys"),
            (of(CutKind::Subscriber, true), "subscriber", "subscribers"),
            (of(CutKind::Session, true), "live session", "live sessions"),
            (self.certificates.len(), "valid certificate", "valid certificates"),
        ];
        let counted = counted.into_iter().filter(|(count, _, _)| *count > 0);
        let counted: Vec<String> = counted
            .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
            .collect();
        (!counted.is_empty()).then(|| counted.join(", "))
    }
}

/// Looks at a cluster, with the daemon or without it, whether the server runs or not.
///
/// # Errors
/// No such cluster, or one that pgfw does not manage; a config that cannot be rendered; files that cannot be read.
pub fn pg_plan(paths: &Paths, name: &str) -> Result<Planned, Failure> {
    let config = Config::read(&paths.config)?;
    let Some(cluster) = config.cluster(name) else {
        return Err(no_cluster(&config, name, &paths.config));
    };
    let store = store(&config);
    let mut notes = Vec::new();
    let facts = facts(&store, cluster, paths, &mut notes);
    let plan = postgres::plan(cluster, &config, paths, &facts)?;
    let certificates = match paths.ledger().exists() {
        true => Engine::look(paths)?.facts()?.certificates,
        false => Vec::new(),
    };
    let clients = certificates
        .into_iter()
        .filter(|certificate| certificate.authority == Authority::Client);
    let clients: Vec<Certificate> = clients.collect();
    Ok(judged(&config, cluster, &store, plan, &clients, notes))
}

/// What there is to serve and to trust; what there is not, an apply will say as well.
fn facts(store: &Store, cluster: &Cluster, paths: &Paths, notes: &mut Vec<String>) -> postgres::Facts {
    let served = match &cluster.server_files {
        Some(files) => pki::read_foreign(files, &cluster.server_names, Now::read().wall())
            .map(|pair| pair.chain_pem)
            .map_err(Failure::from),
        None => own_pair(store, &cluster.name).map(|(certificate, _)| certificate),
    };
    let served = served.map_err(|failure| {
        if cluster.server_files.is_some() {
            notes.push(format!("{}. {}", failure.message, failure.remedy));
        }
    });
    postgres::Facts {
        server_cert_pem: served.ok(),
        client_ca_pem: store.roots(Authority::Client).ok(),
        crl_dir: paths.postgres(&cluster.name).join("crl"),
    }
}

fn judged(
    config: &Config,
    cluster: &Cluster,
    store: &Store,
    plan: Plan,
    issued: &[Certificate],
    mut notes: Vec<String>,
) -> Planned {
    let world = &plan.now.live;
    let wall = Now::read().wall();
    // What a broken file says counts for nobody: a server that runs goes by what it had.
    let known_now = plan.now.hba.errors.is_empty();
    notes.extend(plan.now.hba.errors.first().map(|problem| {
        format!("who gets in now is not known, since the server does not take its rules: {problem}")
    }));
    let of_ours = plan.trusted.iter().any(|der| plan.then.trusted.contains(der));
    let sides = (
        Side::of(&plan.now.hba, &plan.now.ident, plan.now.ssl, !of_ours),
        Side::of(&plan.then.hba, &plan.then.ident, true, false),
    );
    let rules = (sides.0.everyone(world), sides.1.everyone(world));
    let now = Server {
        rules: &rules.0,
        ssl: plan.now.ssl,
        trusted: &plan.trusted,
        only_tls_1_3: false,
    };
    let then = Server {
        rules: &rules.1,
        ssl: true,
        trusted: &plan.then.trusted,
        only_tls_1_3: cluster.min_tls == MinTls::V1_3,
    };
    let valid = || issued.iter().filter(|certificate| certificate.valid_at(wall));
    let known = Known {
        roles: plan
            .live
            .iter()
            .flat_map(|live| live.roles.iter().map(|role| role.name.clone()))
            .collect(),
        databases: plan.live.iter().flat_map(|live| live.databases.clone()).collect(),
        certificates: valid().map(|certificate| certificate.name.clone()).collect(),
    };
    let atoms = Atoms::of([&rules.0, &rules.1], &known);
    let gets_in = (
        sides.0.facts(&rules.0, &atoms, &known),
        sides.1.facts(&rules.1, &atoms, &known),
    );
    for line in passed_over(&rules.0) {
        notes.push(format!(
            "for which addresses {line} is cannot be known; it is left out of who gets in now"
        ));
    }
    let is_trusted = |trusted: &[Vec<u8>], certificate: &Certificate| {
        let root = store.root(Authority::Client, certificate.authority_generation);
        root.is_ok_and(|pem| {
            postgres::certificates(&pem)
                .iter()
                .any(|der| trusted.contains(der))
        })
    };
    let counting = valid()
        .filter(|certificate| is_trusted(now.trusted, certificate))
        .map(|certificate| (certificate, is_trusted(then.trusted, certificate)));
    let newly = plan.then.trusted.iter().any(|der| !plan.trusted.contains(der)) && !of_ours;
    let no_more = plan.trusted.iter().any(|der| !plan.then.trusted.contains(der));
    let certificates = match known_now {
        true => cuts::certificates((&gets_in.0, &gets_in.1), &atoms, counting),
        false => Vec::new(),
    };
    let live = plan.live.as_ref();
    let pending = plan
        .settings
        .iter()
        .filter(|s| s.restart && s.overridden.is_none());
    let pending = pending.map(|setting| setting.name.clone());
    let before = live.map_or(&[][..], |live| live.pending_restart.as_slice());
    let mut pending_restart: Vec<String> = pending.chain(before.iter().cloned()).collect();
    pending_restart.sort();
    pending_restart.dedup();
    Planned {
        cluster: cluster.name.clone(),
        unchanged: plan.unchanged,
        access: known_now.then(|| difference(gets_in, &atoms)),
        sessions: live.map_or_else(Vec::new, |live| {
            cuts::sessions(known_now.then_some(&now), &then, live, issued)
        }),
        certificates,
        stray: cuts::stray(&config.logins, newly || no_more, &then, live),
        missing_roles: live.map_or_else(Vec::new, |live| live.missing_roles.clone()),
        create_roles: live.map_or_else(Vec::new, |live| live.create_roles.clone()),
        pending_restart,
        restart: postgres::restart(cluster),
        notes: [notes, plan.notes, plan.now.notes].concat(),
        obstacles: plan.obstacles,
        files: plan.files,
        tls: plan.tls,
        settings: plan.settings,
        not_seen: plan.not_seen,
    }
}

fn difference((now, then): (Facts, Facts), atoms: &Atoms) -> Access {
    let rows = |facts: Facts| grouped(facts).iter().map(|group| Row::of(group, atoms)).collect();
    let lost = without(&now, &then);
    Access {
        stays: rows(without(&now, &lost)),
        lost: rows(lost),
        gained: rows(without(&then, &now)),
    }
}
