//! What the gate works with, and the next certificate for whoever holds one.

use sha2::{Digest, Sha256};

use super::Engine;
use super::certificates::store;
use super::holder::{Holder, no_gate};
use super::lease_events::LeaseEvent;
use super::renewal::{REQUESTER, RETRY_NS, signed_by_signing};
use crate::api::{AskRenewal, GivenMaterial, Material, RenewedClient};
use crate::clock::{BootTime, Now, WallTime};
use crate::config::{Config, GATE, ServerName};
use crate::failure::{Code, Explain, Failure};
use crate::ledger::types::Authority;
use crate::pki::{self, Life, NextRequest, Store};

/// Seconds between two renewals of one identity through the gate: a client that loops fills no ledger.
pub const BETWEEN_RENEWALS: i64 = 60;

impl Engine {
    /// What the gate listens with, where it is something else than what it knows. Its certificate is of the server
    /// authority, for the names of every cluster; it is issued and renewed here, when the gate asks.
    ///
    /// # Errors
    /// The policy in force has no gate; no authority, or none that can sign; clusters without names.
    pub fn gate_material(&mut self, known: Option<&str>) -> Result<GivenMaterial, Failure> {
        let config = self.config()?;
        let gate = config.gate.as_ref().ok_or_else(no_gate)?;
        let store = store(&config);
        let (certificate, key) = self.gate_pair(&config, &store)?;
        let mut material = Material {
            listen: gate.listen,
            certificate,
            key,
            roots: store.roots(Authority::Client)?,
            lists: store.lists(Authority::Client)?,
            hash: String::new(),
        };
        let mut hash = Sha256::new();
        let listen = material.listen.to_string();
        let parts = [&listen, &material.certificate, &material.key, &material.roots];
        for part in parts.into_iter().chain(&material.lists) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        material.hash = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(GivenMaterial {
            material: (known != Some(material.hash.as_str())).then_some(material),
        })
    }

    /// The pair that stands, or a new one where none does or it is due. One that is due still serves, and is not tried to
    /// be replaced each time that the gate asks.
    fn gate_pair(&mut self, config: &Config, store: &Store) -> Result<(String, String), Failure> {
        let names = names(config)?;
        if let Some(pair) = self.standing_pair(store, Some(&names), |life, now| now < life.renew_at())? {
            self.gate_failed = None;
            return Ok(pair);
        }
        let stands = self.standing_pair(store, None, |life, now| now < life.not_after)?;
        let now = Now::read();
        if let Some((again, failure)) = self.gate_failed.as_ref().filter(|(again, _)| now.boot < *again) {
            tracing::debug!(again = again.0, "not tried");
            return stands.ok_or_else(|| failure.clone());
        }
        match self.issue_for_gate(config, store, &names) {
            Ok(pair) => {
                self.gate_failed = None;
                Ok(pair)
            }
            Err(failure) => {
                tracing::error!("the gate's certificate is not issued: {failure}");
                self.gate_failed = Some((BootTime(now.boot.0 + RETRY_NS), failure.clone()));
                stands.ok_or(failure)
            }
        }
    }

    fn issue_for_gate(
        &mut self,
        config: &Config,
        store: &Store,
        names: &[ServerName],
    ) -> Result<(String, String), Failure> {
        let _lock = self.lock()?;
        let request = pki::ServerRequest {
            cluster: GATE,
            names,
            ttl: config.pki.server_ttl,
            requester: REQUESTER,
        };
        let first = store.server_pair(GATE)?.is_none();
        let issued = pki::issue_server(store, &mut self.ledger, &request, Now::read().wall())?;
        match first {
            true => self.say_issued(&issued.certificate),
            false => self.say_renewed(&issued.certificate, REQUESTER),
        }
        let serial = issued.certificate.serial;
        tracing::info!(serial, "the gate has a new certificate");
        self.standing_pair(store, None, |_, _| true)?.ok_or_else(no_gate)
    }

    /// For `status`: why the gate shows no certificate, or an old one.
    pub(super) fn gate_alarms(&self) -> Option<String> {
        let (_, failure) = self.gate_failed.as_ref()?;
        Some(format!(
            "the gate's certificate is not issued: {}. {}",
            failure.message, failure.remedy
        ))
    }

    /// The newest pair, where it holds; with `names` only one that is for exactly those, of the generation that signs now.
    fn standing_pair(
        &self,
        store: &Store,
        names: Option<&[ServerName]>,
        holds: impl Fn(&Life, WallTime) -> bool,
    ) -> Result<Option<(String, String)>, Failure> {
        let Some(pair) = store.server_pair(GATE)? else {
            return Ok(None);
        };
        let read = |file: &std::path::Path| std::fs::read_to_string(file).ok();
        let (Some(certificate), Some(key)) = (read(&pair.certificate), read(&pair.key)) else {
            return Ok(None);
        };
        let Ok(life) = Life::of_pem(&certificate, &pair.certificate) else {
            return Ok(None);
        };
        let fits = holds(&life, Now::read().wall())
            && self.counts(&life)
            && names.is_none_or(|names| {
                signed_by_signing(store, &certificate)
                    && pki::names_of(&certificate) == names.iter().cloned().collect()
            });
        Ok(fits.then_some((certificate, key)))
    }

    /// The next certificate of an identity that holds one, for the same key.
    ///
    /// # Errors
    /// As for [`Engine::take_lease`]; a request that its key did not sign, that is for another key or names somebody else; too soon.
    pub fn renew_through_gate(&mut self, request: &AskRenewal) -> Result<RenewedClient, Failure> {
        let AskRenewal { proven, request } = request;
        let _lock = self.lock()?;
        let now = Now::read();
        let holder = self.holder("renewal", proven, &now)?;
        let renewed = self.renew_holder(&holder, request, &now);
        self.said("renewal", &holder, renewed)
    }

    fn renew_holder(&mut self, holder: &Holder, csr: &str, now: &Now) -> Result<RenewedClient, Failure> {
        let Holder {
            config,
            gate,
            identity,
            certificate,
            source,
        } = holder;
        let by_gate = format!("gate {source}");
        let recent = self.ledger.certificates_of(&identity.name)?.into_iter().any(|c| {
            c.authority == Authority::Client
                && c.requester.starts_with("gate ")
                && now.wall().0 - c.issued.0 < BETWEEN_RENEWALS
        });
        if recent {
            return Err(TooSoon {
                identity: identity.name.clone(),
            }
            .into());
        }
        let store = store(config);
        let request = NextRequest {
            name: &identity.name,
            ttl: gate
                .certificate_ttl
                .min(identity.ttl.unwrap_or(config.pki.client_ttl)),
            csr,
            former: certificate,
            requester: &by_gate,
            reason: Some(&format!("renews {}", certificate.serial)),
        };
        let next = pki::issue_next(&store, &mut self.ledger, &request, now.wall())?;
        // It is issued, whatever becomes of the tables and the answer.
        self.say_lease(&LeaseEvent::Renewed {
            source: *source,
            next: &next,
        });
        self.refresh()?;
        Ok(RenewedClient {
            identity: next.name,
            serial: next.serial,
            until: next.not_after.rfc3339(),
            certificate: next.pem,
            roots: store.roots(Authority::Server)?,
        })
    }
}

/// The uid of the gate's user, where there is one.
pub fn gate_user() -> Option<u32> {
    let user = nix::unistd::User::from_name(crate::paths::GATE_USER)
        .ok()
        .flatten();
    user.map(|user| user.uid.as_raw())
}

/// Every name under which a cluster is reached, each once.
fn names(config: &Config) -> Result<Vec<ServerName>, Failure> {
    let mut names: Vec<ServerName> = Vec::new();
    for name in config.postgres.iter().flat_map(|c| &c.server_names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        return Err(Failure::invalid(
            "the gate has no name: no [[postgres]] section has server_names",
            "Name what clients connect to, like server_names = [\"db.example.com\"].",
        ));
    }
    Ok(names)
}

#[derive(Debug, thiserror::Error)]
#[error("{identity} got a certificate through the gate within the last {BETWEEN_RENEWALS} seconds")]
struct TooSoon {
    identity: String,
}

impl Explain for TooSoon {
    fn code(&self) -> Code {
        Code::Refused
    }

    fn remedy(&self) -> String {
        format!("Use that one, or ask again {BETWEEN_RENEWALS} seconds later.")
    }
}
