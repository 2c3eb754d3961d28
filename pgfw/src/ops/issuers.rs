//! Whose a serial is: certificates as a server's sessions show them, by issuer and number.

use std::collections::BTreeMap;

use super::certificates::store;
use super::revoke::Reach;
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::ledger::types::{Authority, Certificate};
use crate::postgres;

/// The client authorities' names as a server shows them, and what they issued.
#[derive(Debug)]
pub(super) struct Issuers {
    names: BTreeMap<u32, String>,
    /// By serial, in decimal.
    certificates: BTreeMap<String, Vec<Certificate>>,
}

impl Issuers {
    /// # Errors
    /// A ledger that cannot be read.
    pub(super) fn of(reach: &Reach, ledger: &Ledger) -> Result<Issuers, Failure> {
        let mut certificates: BTreeMap<String, Vec<Certificate>> = BTreeMap::new();
        let all = ledger.certificates()?.into_iter();
        for certificate in all.filter(|c| c.authority == Authority::Client) {
            if let Some(serial) = certificate.serial_decimal() {
                certificates.entry(serial).or_default().push(certificate);
            }
        }
        Ok(Issuers {
            names: names(reach),
            certificates,
        })
    }

    /// The certificate of this number and issuer. A generation whose name is not known here any more, or cannot be
    /// compared, is taken at its number, which is random and 128 bits long.
    pub(super) fn certificate(&self, serial: &str, issuer: &str) -> Option<&Certificate> {
        self.certificates.get(serial)?.iter().find(|certificate| {
            let name = self.names.get(&certificate.authority_generation);
            name.is_none_or(|name| name == issuer)
        })
    }

    /// Whether a client authority of this host has that name.
    pub(super) fn is_ours(&self, issuer: &str) -> bool {
        self.names.values().any(|name| name == issuer)
    }
}

/// Generation → name, of every client authority that is there.
pub(super) fn names(reach: &Reach) -> BTreeMap<u32, String> {
    let authorities = store(&reach.config).authorities(Authority::Client);
    let name = |certificate: &std::path::Path| {
        let pem = std::fs::read(certificate).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        postgres::shown_dn(&pem.contents)
    };
    authorities
        .iter()
        .flatten()
        .filter_map(|info| Some((info.generation, name(&info.certificate)?)))
        .collect()
}
