//! Who stands at the gate: what the gate hands on is verified again, against authorities, lists and the ledger.

use std::net::IpAddr;

use super::Engine;
use super::certificates::store;
use super::lease_events::LeaseEvent;
use crate::api::Proven;
use crate::clock::Now;
use crate::config::{Config, Gate, Identity};
use crate::failure::{Code, Explain, Failure};
use crate::ledger::types::{Authority, Certificate};
use crate::pki::{self, ClientVerifier};

/// Who stands at the gate.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) config: Config,
    pub(super) gate: Gate,
    pub(super) identity: Identity,
    pub(super) certificate: Certificate,
    pub(super) source: IpAddr,
}

impl Engine {
    /// Who a certificate says is there: one that the authorities, their lists, and the ledger all know, of an identity that
    /// the policy in force has.
    pub(super) fn holder(&self, what: &'static str, proven: &Proven, now: &Now) -> Result<Holder, Failure> {
        let source = proven.source.to_canonical();
        self.not_in_rescue(what)?;
        let config = self.config()?;
        let gate = config.gate.clone().ok_or_else(no_gate)?;
        let certificate = self.known_certificate(&config, proven, now);
        let identity = certificate
            .as_ref()
            .ok()
            .and_then(|c| config.identity(&c.name))
            .cloned();
        let found = certificate.and_then(|certificate| match identity {
            Some(identity) => Ok((certificate, identity)),
            None => Err(HolderError::NoIdentity {
                name: certificate.name,
            }
            .into()),
        });
        match found {
            Ok((certificate, identity)) => Ok(Holder {
                gate,
                identity,
                certificate,
                source,
                config,
            }),
            Err(failure) => {
                self.say_lease(&LeaseEvent::Refused {
                    what,
                    source,
                    certificate: None,
                    why: &failure,
                });
                Err(failure)
            }
        }
    }

    fn known_certificate(&self, config: &Config, proven: &Proven, now: &Now) -> Result<Certificate, Failure> {
        let store = store(config);
        let roots = store.roots(Authority::Client)?;
        let verifier = ClientVerifier::new(&roots, &store.lists(Authority::Client)?)?;
        let at = now.wall();
        let leaf = verifier
            .verify(&proven.chain, at)
            .map_err(|error| HolderError::Invalid {
                why: error.to_string(),
            })?;
        // What was signed with an authority's key and is in no ledger was not issued here.
        let recorded = match pki::serial_of(&leaf) {
            Some(serial) => self.ledger.certificate_by_serial(&serial)?,
            None => None,
        };
        let known = self
            .as_they_count(recorded.into_iter().collect())
            .into_iter()
            .find(|c| c.authority == Authority::Client && pki::is_certificate(&c.pem, &leaf));
        match known {
            Some(certificate) if certificate.valid_at(at) => Ok(certificate),
            Some(certificate) => Err(HolderError::Invalid {
                why: format!("{} is revoked", certificate.serial),
            }
            .into()),
            None => Err(HolderError::Unknown.into()),
        }
    }

    /// A refusal is told before it is answered.
    pub(super) fn said<T>(
        &self,
        what: &'static str,
        holder: &Holder,
        done: Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Err(why) = &done {
            self.say_lease(&LeaseEvent::Refused {
                what,
                source: holder.source,
                certificate: Some(&holder.certificate),
                why,
            });
        }
        done
    }
}

pub(super) fn no_gate() -> Failure {
    Failure::new(
        Code::NotFound,
        "the policy in force has no gate",
        "Add a [gate] section to pgfw.toml, then: pgfw reload.",
    )
}

#[derive(Debug, thiserror::Error)]
enum HolderError {
    #[error("the certificate lets nobody in: {why}")]
    Invalid { why: String },
    #[error("the certificate is not in this host's ledger")]
    Unknown,
    #[error("there is no identity `{}` in the policy in force", name.escape_debug())]
    NoIdentity { name: String },
}

impl Explain for HolderError {
    fn code(&self) -> Code {
        Code::Forbidden
    }

    fn remedy(&self) -> String {
        match self {
            HolderError::Invalid { why: _ } | HolderError::Unknown => {
                "Ask whoever runs this database for a new certificate (pgfw cert issue).".into()
            }
            HolderError::NoIdentity { name: _ } => {
                "Ask whoever runs this database to add the identity to pgfw.toml and `pgfw reload`.".into()
            }
        }
    }
}
