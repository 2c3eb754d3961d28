//! Server certificates that renew themselves: the keeper finds what is due, and the renewal runs beside everything else,
//! since it waits for a server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Engine;
use super::certificates::store;
use super::engine::{lock_cluster, make_state_dir};
use crate::clock::{BootTime, Now, WallTime};
use crate::config::{Cluster, Config};
use crate::failure::Failure;
use crate::fault::{Step, step};
use crate::host::places;
use crate::ledger::types::Authority;
use crate::ledger::{Ledger, Version};
use crate::observe::audit::Audit;
use crate::paths::Paths;
use crate::pki::{self, Life, Store};
use crate::postgres::{self, Renewal};

/// What the keeper remembers of renewals. All of it can be found again.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    /// When to look at a cluster again.
    look: BTreeMap<String, BootTime>,
    /// How often in a row it was in vain, and why.
    failed: BTreeMap<String, (u32, Failure)>,
    /// As of which ledger clients' certificates were looked at, and when to look again.
    pub(super) kept: Option<(Version, BootTime)>,
    pub(super) kept_failed: Option<Failure>,
    /// Whoever renews holds one more of it.
    busy: Arc<()>,
}

/// Clusters whose certificate is to be replaced.
#[derive(Debug)]
pub struct RenewalWork {
    paths: Paths,
    audit: Audit,
    clusters: Vec<String>,
    busy: Arc<()>,
}

/// What became of it.
#[derive(Debug)]
pub struct EndedRenewals {
    results: Vec<(String, Result<Renewed, Failure>)>,
    busy: Arc<()>,
}

/// One cluster's certificate, renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renewed {
    /// Of the certificate that is in place now.
    pub serial: String,
    pub until: WallTime,
    pub renewal: Renewal,
}

impl Renewals {
    /// What failed may go now.
    pub(super) fn look_again(&mut self) {
        self.look.clear();
        self.kept = None;
    }
}

impl RenewalWork {
    /// Blocks for as long as the servers take. Holds neither engine nor change lock while it waits for one.
    pub fn run(self) -> EndedRenewals {
        let RenewalWork {
            paths,
            audit,
            clusters,
            busy,
        } = self;
        let renewed = clusters.into_iter().map(|name| {
            let done = renew(&paths, &name, REQUESTER, audit.clone());
            (name, done)
        });
        EndedRenewals {
            results: renewed.collect(),
            busy,
        }
    }
}

/// Issues a cluster's certificate anew where that is due, and has the server serve the newest. Whatever an earlier
/// attempt that was cut off has left is gone on with: a certificate that was issued is not issued again.
///
/// # Errors
/// No such cluster, no authority, a server that does not take it: it serves the former certificate then.
pub fn renew_server(paths: &Paths, name: &str, requester: &str) -> Result<Renewed, Failure> {
    renew(paths, name, requester, super::audit::open(paths))
}

fn renew(paths: &Paths, name: &str, requester: &str, audit: Audit) -> Result<Renewed, Failure> {
    make_state_dir(paths)?;
    let _cluster = lock_cluster(paths, name)?;
    // A generation on top of one that may be undone would outlive it.
    let settled = postgres::settle(paths, name, postgres::Verdict::Due)?;
    super::audit::say_settled(&audit, &settled, postgres::Verdict::Due);
    if let postgres::Settled::Waits(trial) = settled {
        return Err(Failure::refused(
            format!(
                "an apply to cluster `{name}` waits for its confirmation until {}",
                trial.until.rfc3339()
            ),
            "Keep it with `pgfw confirm`, or undo it with `pgfw rollback`; then renew again.",
        ));
    }
    // Without the kernel's tables: none of them depend on a server's certificate.
    let mut engine = Engine::with(paths, Ledger::open(&paths.ledger())?)?;
    engine.audit = audit;
    let (config, cluster) = engine.renewable(name)?;
    engine.issue_if_due(&config, &cluster, requester)?;
    step(Step::RenewalIssued);
    let material = engine.material(&config, name)?;
    let life = Life::of_pem(&material.server_cert_pem, &config.pki.directory)?;
    let renewal = postgres::renew(&cluster, paths, &material)?;
    Ok(Renewed {
        serial: life.serial,
        until: life.not_after,
        renewal,
    })
}

/// Issues a cluster's certificate anew where that is due, for a server that somebody else gives it to.
///
/// # Errors
/// No such cluster, no authority.
pub(super) fn issue_for(paths: &Paths, name: &str, requester: &str) -> Result<(), Failure> {
    let _cluster = lock_cluster(paths, name)?;
    let mut engine = Engine::with(paths, Ledger::open(&paths.ledger())?)?;
    let (config, cluster) = engine.renewable(name)?;
    engine.issue_if_due(&config, &cluster, requester)
}

impl Engine {
    /// Under the lock: which certificates are due, for whoever can wait for a server, and when to look again.
    ///
    /// # Errors
    /// A config or ledger that cannot be read.
    pub(super) fn renewals(&mut self) -> Result<(Option<BootTime>, Option<RenewalWork>), Failure> {
        let now = Now::read();
        let idle = Arc::strong_count(&self.renewals.busy) == 1;
        let waits = self.renewals.look.values().min().copied();
        if !idle || waits.is_some_and(|at| now.boot < at) {
            return Ok((waits.filter(|_| idle), None));
        }
        let reach = self.reach()?;
        let mut due = Vec::new();
        for cluster in reach.managed() {
            if self
                .renewals
                .look
                .get(&cluster.name)
                .is_some_and(|at| now.boot < *at)
            {
                continue;
            }
            // The kernel tells when somebody else's files are new, unless they are on another machine's disk.
            let pause = match &cluster.server_files {
                Some(_) => WATCH_NS,
                None => LOOK_NS,
            };
            let later = BootTime(now.boot.0.saturating_add(pause));
            let next = match self.due_at(&reach.config, cluster) {
                Some(at) if at <= now.wall() => {
                    due.push(cluster.name.clone());
                    later
                }
                Some(at) => now.boot_at(at).min(later),
                None => later,
            };
            self.renewals.look.insert(cluster.name.clone(), next);
        }
        self.renewals
            .look
            .retain(|name, _| reach.clusters.iter().any(|c| c.name == *name));
        let work = (!due.is_empty()).then(|| RenewalWork {
            paths: self.paths.clone(),
            audit: self.audit.clone(),
            clusters: due,
            busy: Arc::clone(&self.renewals.busy),
        });
        Ok((self.renewals.look.values().min().copied(), work))
    }

    /// Says what became of renewals, and when what failed is tried again.
    pub fn settle_renewals(&mut self, ended: EndedRenewals) {
        let EndedRenewals { results, busy } = ended;
        for (cluster, result) in results {
            match result {
                Ok(Renewed {
                    serial,
                    until,
                    renewal,
                }) => {
                    tracing::info!(
                        cluster,
                        serial,
                        until = until.rfc3339(),
                        ?renewal,
                        "server certificate renewed"
                    );
                    self.renewals.failed.remove(&cluster);
                }
                Err(failure) => {
                    let times = self.renewals.failed.get(&cluster).map_or(0, |(times, _)| *times);
                    let pause = (RETRY_NS << times.min(6)).min(LOOK_NS);
                    let again = BootTime(Now::read().boot.0.saturating_add(pause));
                    // Said once, as long as it is the same.
                    if self.renewals.failed.get(&cluster).map(|(_, former)| former) != Some(&failure) {
                        tracing::error!(cluster, "the server certificate is not renewed: {failure}");
                    }
                    self.renewals.look.insert(cluster.clone(), again);
                    self.renewals.failed.insert(cluster, (times + 1, failure));
                }
            }
        }
        drop(busy);
    }

    /// What a person should know of server certificates: a renewal that failed, an end that is near.
    pub(super) fn renewal_alarms(&self, config: &Config) -> Vec<String> {
        let mut lines: Vec<String> = self
            .renewals
            .failed
            .iter()
            .map(
                |(
                    cluster,
                    (
                        _,
                        Failure {
                            code: _,
                            message,
                            remedy,
                        },
                    ),
                )| {
                    format!("the server certificate of cluster {cluster} is not renewed: {message}. {remedy}")
                },
            )
            .collect();
        if let Some(Failure {
            code: _,
            message,
            remedy,
        }) = &self.renewals.kept_failed
        {
            lines.push(format!("{message}. {remedy}"));
        }
        let now = Now::read().wall();
        for cluster in &config.postgres {
            let Some(life) = self
                .served_by_files(cluster)
                .filter(|life| life.alarm_at() <= now)
            else {
                continue;
            };
            let ends = if now < life.not_after { "ends" } else { "ended" };
            lines.push(format!(
                "the server certificate of cluster {} {ends} at {}; `pgfw cert renew {}` says what keeps it from being renewed.",
                cluster.name,
                life.not_after.rfc3339(),
                cluster.name
            ));
        }
        lines
    }

    /// Where a change of somebody else's files would be seen.
    ///
    /// # Errors
    /// Neither the policy that runs nor pgfw.toml can be read.
    pub fn watched(&self) -> Result<BTreeSet<PathBuf>, Failure> {
        let reach = self.reach()?;
        let files = reach.managed().filter_map(|c| c.server_files.as_ref());
        Ok(files
            .flat_map(|files| [&files.certificate, &files.key])
            .flat_map(|file| places::deciding(file))
            .collect())
    }

    /// Somebody else's files may be new: they are looked at in the next round, whatever failed before.
    pub fn files_changed(&mut self) {
        let foreign = self.reach().map(|reach| {
            let foreign = reach.managed().filter(|c| c.server_files.is_some());
            foreign.map(|c| c.name.clone()).collect::<Vec<_>>()
        });
        for cluster in foreign.unwrap_or_default() {
            self.renewals.look.insert(cluster, BootTime(0));
        }
    }

    /// `None`: nothing was applied to it, so nothing of ours is served.
    fn due_at(&self, config: &Config, cluster: &Cluster) -> Option<WallTime> {
        if postgres::note_of(&self.paths, &cluster.name).exists() {
            return None;
        }
        let standing = postgres::standing(&self.paths, &cluster.name)?;
        let life = self.served_by_files(cluster)?;
        if self.rotates_away_from(config, cluster, &standing) {
            return Some(WallTime(0));
        }
        if let Some(files) = &cluster.server_files {
            // Whether it is fit to be served is looked at by whoever takes it over.
            let theirs = std::fs::read_to_string(&files.certificate).ok()?;
            return (theirs != standing.server_cert_pem || standing.cut_off).then_some(WallTime(0));
        }
        let stands = self.counts(&life) && !standing.cut_off;
        Some(if stands { life.renew_at() } else { WallTime(0) })
    }

    /// A rotation that is under way wants other authorities trusted, or another to have signed what is served. Outside of
    /// one nothing is pushed to a server that nobody asked for: the authorities' folder may have been replaced.
    fn rotates_away_from(&self, config: &Config, cluster: &Cluster, standing: &postgres::Standing) -> bool {
        let store = store(config);
        let rotates = |authority| {
            let rotation = store.rotation(authority);
            rotation.is_ok_and(|rotation| !rotation.phase.is_settled())
        };
        let trusts_others = rotates(Authority::Client)
            && store
                .roots(Authority::Client)
                .is_ok_and(|roots| roots != standing.client_ca_pem);
        trusts_others
            || cluster.server_files.is_none()
                && rotates(Authority::Server)
                && !signed_by_signing(&store, &standing.server_cert_pem)
    }

    pub(super) fn served_by_files(&self, cluster: &Cluster) -> Option<Life> {
        let standing = postgres::standing(&self.paths, &cluster.name)?;
        let folder = self.paths.postgres(&cluster.name);
        Life::of_pem(&standing.server_cert_pem, &folder).ok()
    }

    pub(super) fn counts(&self, life: &Life) -> bool {
        let known = self.ledger.certificate_by_serial(&life.serial);
        known.is_ok_and(|c| c.is_none_or(|c| c.revoked.is_none()))
    }

    fn renewable(&self, name: &str) -> Result<(Config, Cluster), Failure> {
        let reach = self.reach()?;
        match reach.clusters.iter().find(|c| c.name == name) {
            Some(cluster) => Ok((reach.config.clone(), cluster.clone())),
            None => Err(super::certificates::no_cluster(
                &reach.config,
                name,
                &self.paths.config,
            )),
        }
    }

    /// Looks again under the lock: somebody may have been faster.
    fn issue_if_due(&mut self, config: &Config, cluster: &Cluster, requester: &str) -> Result<(), Failure> {
        if cluster.server_files.is_some() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let (store, now) = (store(config), Now::read().wall());
        if let Some(pair) = store.server_pair(&cluster.name)? {
            let newest = std::fs::read_to_string(&pair.certificate).unwrap_or_default();
            if let Ok(life) = Life::of_pem(&newest, &pair.certificate)
                && now < life.renew_at()
                && self.counts(&life)
                && signed_by_signing(&store, &newest)
            {
                return Ok(());
            }
        }
        let request = pki::ServerRequest {
            cluster: &cluster.name,
            names: &cluster.server_names,
            ttl: config.pki.server_ttl,
            requester,
        };
        let issued = pki::issue_server(&store, &mut self.ledger, &request, now)?;
        self.say_renewed(&issued.certificate, requester);
        Ok(())
    }
}

/// Whether the generation that signs now has signed this, as far as is known: also true of what another authority did.
pub(super) fn signed_by_signing(store: &Store, pem: &str) -> bool {
    let issuer = store.issuer(Authority::Server, pem).ok().flatten();
    issuer.is_none_or(|issuer| {
        let signs = store.signing_generation(Authority::Server);
        signs.is_ok_and(|signs| signs == issuer)
    })
}

/// As the ledger names who asked.
pub(super) const REQUESTER: &str = "pgfw (renewal)";

/// How often is looked without need, and the longest pause after a failure: an hour.
pub(super) const LOOK_NS: u64 = 3_600_000_000_000;

/// How often files that somebody else renews are looked at: half a minute.
const WATCH_NS: u64 = 30_000_000_000;

/// The first pause after a failure; each one in a row doubles it.
pub(super) const RETRY_NS: u64 = 60_000_000_000;
