//! `pgfw pg apply`, `pg release`: the server's side of the config.

use super::Engine;
use super::audit::{open, say_released, say_settled};
use super::certificates::{no_cluster, store};
use super::engine::{lock_cluster, make_state_dir};
use crate::clock::Now;
use crate::config::{Cluster, Config, Manage};
use crate::failure::{Code, Failure};
use crate::ledger::types::Authority;
use crate::paths::Paths;
use crate::pki::{self, CrlTargets, Store};
use crate::postgres::{self, Adopted, Applied, Leave, Released, TlsMaterial, Verdict};

/// The clusters of `pgfw.toml` that `pg apply` means: the one named, else every one that pgfw manages.
///
/// # Errors
/// No such cluster, none at all, or only ones that pgfw does not manage.
pub fn clusters_to_apply(paths: &Paths, cluster: Option<&str>) -> Result<Vec<String>, Failure> {
    let named = clusters(paths, cluster)?;
    if cluster.is_some() {
        return Ok(named.into_iter().map(|(name, _)| name).collect());
    }
    let managed = named.into_iter().filter(|(_, manage)| *manage != Manage::None);
    let managed: Vec<String> = managed.map(|(name, _)| name).collect();
    if managed.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            format!("pgfw manages no cluster of {}", paths.config.display()),
            "Set manage = \"files\" in its [[postgres]] section.",
        ));
    }
    Ok(managed)
}

/// The clusters of `pgfw.toml` that `pg release` means: the one named, else every one. Also those that are not to be
/// managed any more: that may have been said first.
///
/// # Errors
/// No such cluster, or none at all.
pub fn clusters_to_release(paths: &Paths, cluster: Option<&str>) -> Result<Vec<String>, Failure> {
    let named = clusters(paths, cluster)?;
    Ok(named.into_iter().map(|(name, _)| name).collect())
}

/// The clusters of `pgfw.toml` that follow a reload: those that pgfw manages and has applied once. The first time is said.
///
/// # Errors
/// A config that is not right.
pub fn clusters_to_follow(paths: &Paths) -> Result<Vec<String>, Failure> {
    let config = Config::read(&paths.config)?;
    let managed = config.postgres.into_iter().filter(|c| c.manage != Manage::None);
    let follow = managed.filter(|c| postgres::standing(paths, &c.name).is_some());
    Ok(follow.map(|c| c.name).collect())
}

fn clusters(paths: &Paths, cluster: Option<&str>) -> Result<Vec<(String, Manage)>, Failure> {
    let config = Config::read(&paths.config)?;
    let meant = |name: &str| cluster.is_none_or(|wanted| name == wanted);
    let named = config.postgres.iter().filter(|c| meant(&c.name));
    let named: Vec<(String, Manage)> = named.map(|c| (c.name.clone(), c.manage)).collect();
    match (named.is_empty(), cluster) {
        (false, _) => Ok(named),
        (true, Some(name)) => Err(no_cluster(&config, name, &paths.config)),
        (true, None) => Err(Failure::new(
            Code::NotFound,
            format!("there is no cluster in {}", paths.config.display()),
            "Add a [[postgres]] section.",
        )),
    }
}

/// What runs on this host, or is named, in the words of pgfw.toml. Needs no configuration: there is none yet.
///
/// # Errors
/// What was made of it is not what pgfw reads.
pub fn pg_adopt(servers: &[String]) -> Result<Adopted, Failure> {
    postgres::adopt(servers)
}

/// Gives a cluster back. Needs neither the daemon nor a ledger: what was lost must not stand in the way.
///
/// # Errors
/// No such cluster; files that cannot be written, a server that does not take them: it is then pgfw's as before.
pub fn pg_release(paths: &Paths, name: &str, leave: Leave) -> Result<Released, Failure> {
    make_state_dir(paths)?;
    known_cluster(paths, name)?;
    let _lock = lock_cluster(paths, name)?;
    let (_, cluster) = known_cluster(paths, name)?;
    // What nobody confirmed is not what is given back or kept.
    let settled = postgres::settle(paths, name, Verdict::Undo)?;
    say_settled(&open(paths), &settled, Verdict::Undo);
    let released = postgres::release(&cluster, paths, leave)?;
    say_released(paths, &released);
    Ok(released)
}

impl Engine {
    /// Brings PostgreSQL's files to what `pgfw.toml` says, and proves on the server that they count.
    ///
    /// # Errors
    /// No such cluster, no certificate for it, files that cannot be written, a server that does not take them: it is
    /// then as before.
    pub fn pg_apply(&mut self, name: &str, options: &postgres::Options) -> Result<Applied, Failure> {
        known_cluster(&self.paths, name)?;
        let _cluster = lock_cluster(&self.paths, name)?;
        let (config, cluster) = known_cluster(&self.paths, name)?;
        // Also by `postgres::apply`, which says it to nobody.
        let settled = postgres::settle(&self.paths, name, Verdict::Due)?;
        say_settled(&self.audit, &settled, Verdict::Due);
        let material = self.material(&config, name)?;
        let applied = postgres::apply(&cluster, &config, &self.paths, &material, options)?;
        self.say_applied(&applied);
        Ok(applied)
    }

    /// What the server is to serve and to trust, its CRLs published.
    pub(super) fn material(&mut self, config: &Config, name: &str) -> Result<TlsMaterial, Failure> {
        let _lock = self.lock()?;
        let store = store(config);
        let cluster = config.cluster(name);
        let files = cluster.and_then(|c| Some((c.server_files.as_ref()?, &c.server_names)));
        let (server_cert_pem, server_key_pem) = match files {
            Some((files, names)) => {
                let pair = pki::read_foreign(files, names, Now::read().wall())?;
                (pair.chain_pem, pair.key_pem)
            }
            None => own_pair(&store, name)?,
        };
        self.publish_lists_of(name)?;
        Ok(TlsMaterial {
            server_cert_pem,
            server_key_pem,
            client_ca_pem: store.roots(Authority::Client)?,
            canary: canary(&store),
            crl_dir: self.crl_folder(name),
        })
    }

    /// Publishes the lists. One that cannot be signed just now stands in nobody's way while the former ones hold: that
    /// they will lapse is said by `status`, and not by a server that keeps its old rules.
    fn publish_lists_of(&mut self, name: &str) -> Result<(), Failure> {
        let reach = self.reach()?;
        let Err(failure) = self.publish_crls(&reach) else {
            return Ok(());
        };
        let targets = CrlTargets {
            folders: vec![self.crl_folder(name)],
            ttl: reach.config.pki.crl_ttl,
        };
        if self.lists_hold(&reach, &targets)? {
            tracing::warn!(cluster = name, error = %failure.message, "the CRLs are not renewed; those that stand still hold");
            Ok(())
        } else {
            Err(failure)
        }
    }
}

/// The certificate that is revoked from birth. An authority of before there was one has none.
fn canary(store: &Store) -> Option<(String, String)> {
    let (certificate, key) = store.canary().ok()?;
    Some((
        std::fs::read_to_string(certificate).ok()?,
        std::fs::read_to_string(key).ok()?,
    ))
}

/// The newest that pgfw issued, and its key.
pub(super) fn own_pair(store: &Store, name: &str) -> Result<(String, String), Failure> {
    let pair = store.server_pair(name)?.ok_or_else(|| {
        Failure::refused(
            format!("cluster `{name}` has no server certificate"),
            "Make the authorities with `pgfw ca init`, then the certificate with `pgfw cert server`.",
        )
    })?;
    let read = |file: &std::path::Path| {
        std::fs::read_to_string(file).map_err(|source| {
            Failure::refused(
                format!("{} cannot be read: {source}", file.display()),
                "Issue the server certificate again with `pgfw cert server`.",
            )
        })
    };
    Ok((read(&pair.certificate)?, read(&pair.key)?))
}

/// A lock bears the cluster's name, so only one that pgfw.toml has is asked for.
fn known_cluster(paths: &Paths, name: &str) -> Result<(Config, Cluster), Failure> {
    let config = Config::read(&paths.config)?;
    match config.cluster(name).cloned() {
        Some(cluster) => Ok((config, cluster)),
        None => Err(no_cluster(&config, name, &paths.config)),
    }
}
