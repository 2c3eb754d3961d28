//! Client certificates of programs on this host (a pooler's, a monitoring agent's): renewed in time, and kept where the
//! program's user can read them.
//!
//! Only what somebody issued is renewed, and never what was revoked: the daemon gives nobody a certificate of its own
//! accord.

use std::path::PathBuf;

use nix::unistd::User;

use super::Engine;
use super::certificates::store;
use super::renewal::{LOOK_NS, REQUESTER, RETRY_NS};
use crate::clock::{BootTime, Now};
use crate::config::{Config, Identity};
use crate::failure::Failure;
use crate::ledger::types::{Authority, Certificate};
use crate::pki::{self, ClientRequest, KeyKind, Life};

impl Engine {
    /// Under the lock: renews what is due and puts in place what is new. When to look again.
    ///
    /// # Errors
    /// A config or ledger that cannot be read. What could not be renewed or kept is shown and tried again.
    pub(super) fn keep_clients(&mut self) -> Result<Option<BootTime>, Failure> {
        let now = Now::read();
        let version = self.ledger.version()?;
        // Nothing was issued, revoked or reloaded since the last look.
        if let Some((_, at)) = self
            .renewals
            .kept
            .filter(|(known, at)| *known == version && now.boot < *at)
        {
            return Ok(Some(at));
        }
        let config = self.reach()?.config;
        let (mut next, mut failed): (Option<BootTime>, Option<Failure>) = (None, None);
        for identity in config.identities.iter().filter(|i| i.kept_for.is_some()) {
            match self.keep_client(&config, identity, &now) {
                Ok(Some(at)) => next = Some(next.map_or(at, |n| n.min(at))),
                Ok(None) => {}
                Err(failure) => {
                    failed.get_or_insert(Failure {
                        message: format!(
                            "the certificate kept for {} is not renewed: {}",
                            identity.name, failure.message
                        ),
                        ..failure
                    });
                }
            }
        }
        let pause = if failed.is_some() { RETRY_NS } else { LOOK_NS };
        if let Some(failure) = failed
            .as_ref()
            .filter(|f| self.renewals.kept_failed.as_ref() != Some(*f))
        {
            tracing::error!("{failure}");
        }
        self.renewals.kept_failed = failed;
        let later = BootTime(now.boot.0.saturating_add(pause));
        let next = next.map_or(later, |at| at.min(later));
        self.renewals.kept = Some((self.ledger.version()?, next));
        Ok(Some(next))
    }

    /// The same whatever the last look found.
    pub(super) fn keep_clients_now(&mut self) -> Result<(), Failure> {
        self.renewals.kept = None;
        self.keep_clients().map(drop)
    }

    fn keep_client(
        &mut self,
        config: &Config,
        identity: &Identity,
        now: &Now,
    ) -> Result<Option<BootTime>, Failure> {
        let Some(mut newest) = self.newest_client(&identity.name)? else {
            return Ok(None);
        };
        if newest.revoked.is_some() {
            return Ok(None);
        }
        let store = store(config);
        // One of a generation that signs no more is replaced at once: that is what a rotation waits for.
        let signs = store.signing_generation(Authority::Client);
        let is_old = signs.is_ok_and(|signs| signs != newest.authority_generation);
        if is_old || Life::from(&newest).renew_at() <= now.wall() {
            let request = ClientRequest {
                name: &identity.name,
                ttl: identity.ttl.unwrap_or(config.pki.client_ttl),
                csr: None,
                kind: KeyKind::P256,
                // It was said when the first was issued.
                superuser: true,
                requester: REQUESTER,
                reason: None,
            };
            newest = pki::issue_client(&store, &mut self.ledger, &request, now.wall())?.certificate;
            self.say_renewed(&newest, super::renewal::REQUESTER);
            tracing::info!(
                name = newest.name,
                serial = newest.serial,
                "client certificate renewed"
            );
            self.refresh()?;
        }
        let user = identity.kept_for.as_deref().unwrap_or_default();
        let group = match User::from_name(user) {
            Ok(Some(user)) => user.gid.as_raw(),
            Ok(None) | Err(_) => {
                return Err(Failure::refused(
                    format!("there is no user `{user}` on this host"),
                    "Correct kept_for of the identity in pgfw.toml.",
                ));
            }
        };
        let folder = self.kept_folder(&identity.name);
        pki::keep(&store, &newest, &folder, group)?;
        self.note_telling(identity, &newest.serial, folder);
        Ok(Some(now.boot_at(Life::from(&newest).renew_at())))
    }

    pub(super) fn newest_client(&self, name: &str) -> Result<Option<Certificate>, Failure> {
        let all = self.ledger.certificates()?;
        Ok(all
            .into_iter()
            .rfind(|c| c.authority == Authority::Client && c.name == name))
    }

    fn kept_folder(&self, name: &str) -> PathBuf {
        self.paths.state_dir.join("clients").join(pki::component(name))
    }
}
