//! Looking at a server whose files somebody else writes: what it serves and whom it trusts, in its own words.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::prove;
use super::tls::{self, Version};
use super::{PostgresError, Server};
use crate::config::Cluster;

/// What a handshake showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// There is no such cluster on this host.
    Absent,
    /// It is down, or does not answer: nothing can be said.
    Silent,
    /// It speaks no TLS, or no TCP at all, so it takes no certificate.
    NoTls,
    Shown {
        /// The certificate that it serves, DER.
        served: Option<Vec<u8>>,
        /// The names of the authorities it asks for, DER.
        authorities: Vec<Vec<u8>>,
    },
}

impl Seen {
    /// Whether it asks for certificates of this authority (PEM). `None`: nothing can be said.
    pub fn trusts(&self, root: &str) -> Option<bool> {
        let names = prove::subjects(root).ok()?;
        match self {
            Seen::Absent | Seen::NoTls => Some(false),
            Seen::Silent => None,
            Seen::Shown {
                served: _,
                authorities,
            } => Some(names.iter().all(|name| authorities.contains(name))),
        }
    }

    /// Whether it serves what this authority (PEM) signed. `None`: nothing can be said.
    pub fn serves_of(&self, root: &str) -> Option<bool> {
        match self {
            Seen::Absent | Seen::NoTls => Some(false),
            Seen::Silent => None,
            Seen::Shown {
                served,
                authorities: _,
            } => Some(served.as_ref().is_some_and(|leaf| signed(leaf, root))),
        }
    }
}

/// Looks at a cluster's server, whoever manages it. Blocks.
///
/// # Errors
/// A cluster that cannot be found out about.
pub fn look(cluster: &Cluster) -> Result<Seen, PostgresError> {
    let server = match Server::find(cluster) {
        Err(PostgresError::NoDataDirectory { cluster: _, path: _ }) => return Ok(Seen::Absent),
        found => found?,
    };
    let Some(running) = server.running() else {
        return Ok(Seen::Silent);
    };
    let Some(address) = running.tcp() else {
        return Ok(Seen::NoTls);
    };
    match tls::connect(address, None, Version::V1_3) {
        Ok(session) => Ok(Seen::Shown {
            served: session.served().map(|c| c.to_vec()),
            authorities: session.authorities(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Ok(Seen::NoTls),
        Err(_) => Ok(Seen::Silent),
    }
}

fn signed(leaf: &[u8], root: &str) -> bool {
    let Ok(root) = prove::first_certificate(root) else {
        return false;
    };
    let verified = |leaf: &[u8], root: &CertificateDer<'_>| {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let (_, root) = X509Certificate::from_der(root).ok()?;
        leaf.verify_signature(Some(root.public_key())).ok()
    };
    verified(leaf, &root).is_some()
}
