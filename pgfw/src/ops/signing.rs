//! Whether the daemon can sign: with keys under a passphrase that it was not given, or keys that are kept elsewhere, nothing
//! renews by itself, and that is said before it hurts.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Engine;
use super::certificates::store;
use super::revoke::Reach;
use crate::clock::{Now, WallTime};
use crate::config::Config;
use crate::failure::Failure;
use crate::ledger::types::WorkKind;
use crate::pki::{self, Store};

/// What was found at the last look, and of which files.
#[derive(Debug, Default)]
pub(super) struct Signing {
    seen: Option<Vec<(PathBuf, Option<SystemTime>)>>,
    /// Why nothing can be signed.
    failure: Option<Failure>,
    /// Keys that stand otherwise than the config says.
    unlike: Vec<PathBuf>,
    /// Whether the config says that keys are encrypted.
    sealed: bool,
}

impl Engine {
    /// Tries the keys, where they or the credential changed since the last look. What waited for a key is tried at once when
    /// there is one again.
    pub(super) fn look_at_keys(&mut self) -> Result<(), Failure> {
        let reach = self.reach()?;
        let store = store(&reach.config);
        let seen = self.stamp(&reach.config, &store);
        if self.signing.seen.as_ref() == Some(&seen) {
            return Ok(());
        }
        let failure = store.try_keys().err().map(Failure::from);
        if failure != self.signing.failure {
            match &failure {
                Some(failure) => tracing::error!(
                    "nothing is signed by itself: {}. {} {}",
                    failure.message,
                    failure.remedy,
                    self.by_hand(&reach.config).join(" ")
                ),
                None => {
                    tracing::info!("the authorities' keys can be used again");
                    self.crls_looked_at = None;
                    self.renewals.look_again();
                }
            }
        }
        self.signing = Signing {
            seen: Some(seen),
            failure,
            unlike: store.unlike_the_config().unwrap_or_default(),
            sealed: reach.config.pki.key_passphrase_credential.is_some(),
        };
        Ok(())
    }

    /// Whether the last look found that nothing can be signed.
    pub(super) fn cannot_sign(&self) -> bool {
        self.signing.failure.is_some()
    }

    /// For `status`.
    pub(super) fn signing_alarms(&self, config: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(Failure {
            code: _,
            message,
            remedy,
        }) = &self.signing.failure
        {
            lines.push(format!("nothing is signed by itself: {message}. {remedy}"));
            lines.extend(self.by_hand(config));
        }
        let command = if self.signing.sealed {
            "is in the clear, and pki.key_passphrase_credential is set; `pgfw ca encrypt` encrypts it."
        } else {
            "is encrypted, and pki.key_passphrase_credential is not set: set it, or run `pgfw ca decrypt`."
        };
        let unlike = self.signing.unlike.iter();
        lines.extend(unlike.map(|file| format!("the key {} {command}", file.display())));
        lines
    }

    /// What holds until when, and what a person has to run before.
    fn by_hand(&self, config: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |what: String, until: WallTime, command: String| {
            lines.push(format!(
                "{what} does not renew by itself and holds until {}; by hand: {command}.",
                until.rfc3339()
            ));
        };
        for cluster in config.postgres.iter().filter(|c| c.server_files.is_none()) {
            if let Some(life) = self.served_by_files(cluster) {
                line(
                    format!("the server certificate of cluster {}", cluster.name),
                    life.not_after,
                    format!("`pgfw cert renew {}`", cluster.name),
                );
            }
        }
        for identity in config.identities.iter().filter(|i| i.kept_for.is_some()) {
            let newest = self.newest_client(&identity.name).ok().flatten();
            if let Some(newest) = newest.filter(|c| c.revoked.is_none()) {
                line(
                    format!("the certificate kept for {}", identity.name),
                    newest.not_after,
                    format!("`pgfw cert issue {}`", identity.name),
                );
            }
        }
        let targets = self.crl_targets(config, &config.postgres);
        if let Ok(Some(until)) = pki::lists_until(&store(config), &targets) {
            line("each CRL".into(), until, "`pgfw cert publish-crl`".into());
        }
        lines
    }

    fn stamp(&self, config: &Config, store: &Store) -> Vec<(PathBuf, Option<SystemTime>)> {
        let mut files = store.key_files().unwrap_or_default();
        files.extend(super::passphrase::seal(config).credential_file());
        // Another setting is another question.
        files.push(PathBuf::from(
            config.pki.key_passphrase_credential.clone().unwrap_or_default(),
        ));
        let changed = |file: &Path| std::fs::metadata(file).and_then(|m| m.modified()).ok();
        files
            .into_iter()
            .map(|file| {
                let at = changed(&file);
                (file, at)
            })
            .collect()
    }

    /// Brings the authorities' keys to what pgfw.toml says: under the passphrase or into the clear.
    ///
    /// # Errors
    /// `sealed` is not what the file says; no passphrase, or one that does not open a key; a file that cannot be written.
    pub fn seal_keys(&mut self, sealed: bool) -> Result<Vec<PathBuf>, Failure> {
        let _lock = self.lock()?;
        let config = Config::read(&self.paths.config)?;
        if config.pki.key_passphrase_credential.is_some() != sealed {
            let file = self.paths.config.display();
            return Err(match sealed {
                true => Failure::invalid(
                    format!("pki.key_passphrase_credential is not set in {file}"),
                    "Name there the credential that holds the passphrase, like key_passphrase_credential = \"pgfw-ca\".",
                ),
                false => Failure::invalid(
                    format!("pki.key_passphrase_credential is set in {file}"),
                    "Take it out there first: new keys would be encrypted again.",
                ),
            });
        }
        Ok(store(&config).seal_keys()?)
    }

    /// Signs and publishes the CRLs where something is missing or half of their time is over, and says until when they hold.
    ///
    /// # Errors
    /// No authority, no passphrase; a list that cannot be written.
    pub fn publish_lists(&mut self) -> Result<Option<WallTime>, Failure> {
        let _lock = self.lock()?;
        let reach = self.reach()?;
        self.publish_crls(&reach)?;
        let waited = self.work()?;
        let waited = waited.into_iter().filter(|w| w.kind == WorkKind::PublishCrl);
        let waited: Vec<String> = waited.map(|w| w.argument).collect();
        self.done(WorkKind::PublishCrl, &waited);
        let targets = self.crl_targets(&reach.config, &reach.clusters);
        Ok(pki::lists_until(&store(&reach.config), &targets)?)
    }

    /// Whether the lists of these clusters can be gone by as they stand.
    pub(super) fn lists_hold(&self, reach: &Reach, targets: &pki::CrlTargets) -> Result<bool, Failure> {
        let mut revocations = self.ledger.revocations()?;
        revocations.extend_from_slice(self.unrecorded.revocations());
        let wall = Now::read().wall();
        Ok(pki::lists_hold(
            &store(&reach.config),
            &revocations,
            targets,
            wall,
        )?)
    }
}
