//! What happens at the gate, said in one place.

use std::net::IpAddr;

use crate::failure::Failure;
use crate::ledger::types::{Certificate, Lease};

/// Something that somebody may want to read of later.
#[derive(Debug)]
pub(super) enum LeaseEvent<'a> {
    Granted {
        lease: &'a Lease,
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
        former: &'a Certificate,
        next: &'a Certificate,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum LeaseEnd {
    /// Its time has come.
    Time,
    /// Its certificate is revoked; the filter heard of it with the revocation.
    Revoked,
    /// Its holder gave it back.
    GivenBack,
}

/// The one way out of everything that is told of the gate.
pub(super) fn say(event: &LeaseEvent<'_>) {
    match event {
        LeaseEvent::Granted { lease } => tracing::info!(
            address = %lease.address,
            identity = ?lease.identity,
            serial = lease.serial,
            until = lease.end.wall.rfc3339(),
            "lease granted"
        ),
        LeaseEvent::Refused {
            what,
            source,
            certificate,
            why,
        } => tracing::warn!(
            %source,
            identity = ?certificate.map(|c| c.name.as_str()),
            serial = certificate.map(|c| c.serial.as_str()),
            why = why.message,
            "{what} refused"
        ),
        LeaseEvent::Ended { lease, how } => tracing::info!(
            address = %lease.address,
            identity = ?lease.identity,
            serial = lease.serial,
            how = match how {
                LeaseEnd::Time => "its time has come",
                LeaseEnd::Revoked => "its certificate is revoked",
                LeaseEnd::GivenBack => "given back",
            },
            "lease ended"
        ),
        LeaseEvent::Renewed { source, former, next } => tracing::info!(
            %source,
            identity = ?next.name,
            former = former.serial,
            serial = next.serial,
            until = next.not_after.rfc3339(),
            "client certificate renewed"
        ),
    }
}
