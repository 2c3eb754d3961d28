//! What happens at the gate, said in one place.

use std::net::IpAddr;

use super::Engine;
use crate::failure::Failure;
use crate::ledger::types::{Certificate, Lease};
use crate::observe::audit::{By, Event};

/// Something that somebody may want to read of later.
#[derive(Debug)]
pub(super) enum LeaseEvent<'a> {
    Granted {
        lease: &'a Lease,
        /// Its end, or its certificate's.
        until: &'a str,
    },
    /// Only who has shown a certificate that a client authority of this host signed gets as far as to be refused here.
    Refused {
        what: &'static str,
        source: IpAddr,
        /// `None`: the certificate proves nothing.
        certificate: Option<&'a Certificate>,
        why: &'a Failure,
    },
    Ended {
        lease: &'a Lease,
        how: LeaseEnd,
    },
    Renewed {
        source: IpAddr,
        next: &'a Certificate,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum LeaseEnd {
    /// Its time has come.
    Time,
    /// Its certificate has ended, and it with it.
    Certificate,
    /// Its certificate is revoked; the filter heard of it with the revocation.
    Revoked,
    /// Its holder gave it back.
    GivenBack,
}

impl LeaseEnd {
    fn as_str(self) -> &'static str {
        match self {
            LeaseEnd::Time => "its time has come",
            LeaseEnd::Certificate => "its certificate has ended",
            LeaseEnd::Revoked => "its certificate is revoked",
            LeaseEnd::GivenBack => "given back",
        }
    }
}

impl Engine {
    /// The one way out of everything that is told of the gate: to the audit log, which hands it to the journal.
    pub(super) fn say_lease(&self, event: &LeaseEvent<'_>) {
        self.audit().record(&match event {
            LeaseEvent::Granted { lease, until } => Event::LeaseGranted {
                identity: lease.identity.clone(),
                serial: lease.serial.clone(),
                source: lease.address,
                until: (*until).to_owned(),
            },
            LeaseEvent::Refused {
                what,
                source,
                certificate,
                why,
            } => Event::LeaseRefused {
                identity: certificate.map(|c| c.name.clone()),
                serial: certificate.map(|c| c.serial.clone()),
                source: *source,
                reason: format!("{what} refused: {}", why.message),
            },
            LeaseEvent::Ended { lease, how } => Event::LeaseEnded {
                identity: lease.identity.clone(),
                serial: lease.serial.clone(),
                source: lease.address,
                reason: how.as_str(),
            },
            LeaseEvent::Renewed { source, next } => Event::CertificateRenewed {
                identity: next.name.clone(),
                serial: next.serial.clone(),
                not_after: next.not_after.rfc3339(),
                authority: next.authority.as_str(),
                by: By {
                    by: next.name.clone(),
                    from: Some(*source),
                },
            },
        });
    }
}
