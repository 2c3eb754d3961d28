//! The profile of every leaf: exactly one EKU, one CN, a short validity, a fresh random serial.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{SigningAuthority, common_name, date};
use super::{PkiError, names, serial};
use crate::clock::WallTime;
use crate::config::ServerName;
use crate::ledger::types::{Authority, Certificate, RevocationReason};

/// A client whose clock is a little behind must not find its new certificate invalid.
const BACKDATED_SECONDS: i64 = 300;
/// PostgreSQL keeps 63 bytes of a name (NAMEDATALEN), and `pg_ident` compares what is left.
const MAX_NAME: usize = 63;

/// What differs between leaves.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    pub(super) name: &'a str,
    pub(super) alternatives: Vec<SanType>,
    pub(super) ttl: Duration,
    pub(super) requester: &'a str,
    pub(super) reason: Option<&'a str>,
}

impl Leaf<'_> {
    /// Signs; nothing is written or recorded yet.
    pub(super) fn sign(
        self,
        authority: &SigningAuthority,
        public_key: &impl PublicKeyData,
        now: WallTime,
    ) -> Result<Certificate, PkiError> {
        let Leaf {
            name,
            alternatives,
            ttl,
            requester,
            reason,
        } = self;
        let info = &authority.info;
        let not_after = i64::try_from(ttl.as_secs()).map_or(i64::MAX, |ttl| now.0.saturating_add(ttl));
        if not_after == now.0 {
            return Err(PkiError::NoTime);
        }
        if now < info.not_before || info.not_after <= now {
            return Err(PkiError::AuthorityNotValid {
                file: info.certificate.clone(),
                not_before: info.not_before,
                not_after: info.not_after,
            });
        }
        // Within the issuer's validity: OpenSSL and webpki judge each certificate of the chain by itself, but a leaf
        // that promises more than its issuer can keep would end without a warning.
        let not_before = WallTime(now.0 - BACKDATED_SECONDS).max(info.not_before);
        let not_after = WallTime(not_after).min(info.not_after);
        let serial_number = serial::random()?;
        let serial = serial::hex(&serial_number.to_bytes());

        // Every field that rcgen's default fills is set: it lives from 1975 to 4096, names itself "rcgen self signed
        // cert", and derives its serial from the key, so that a renewal would share its predecessor's revocation.
        let mut params = CertificateParams::default();
        params.not_before = date(not_before);
        params.not_after = date(not_after);
        params.serial_number = Some(serial_number);
        params.subject_alt_names = alternatives;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::ExplicitNoCa; // rcgen writes the SKI only where basic constraints are written
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match info.authority {
            Authority::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Authority::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let signed = params
            .signed_by(public_key, authority.issuer())
            .map_err(PkiError::crypto(format!("the certificate for {name}")))?;
        Ok(Certificate {
            serial,
            authority: info.authority,
            authority_generation: info.generation,
            name: name.to_owned(),
            subject_dn: names::postgres_dn(name),
            not_before,
            not_after,
            issued: now,
            requester: requester.to_owned(),
            reason: reason.map(str::to_owned),
            revoked: None::<WallTime>,
            revoke_reason: None::<RevocationReason>,
            pem: signed.pem(),
        })
    }
}

/// Whether a certificate in PEM is this one, byte for byte.
pub fn is_certificate(pem: &str, der: &CertificateDer<'_>) -> bool {
    CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|own| own == *der)
}

/// A certificate's number, as the ledger writes it; `None` where it cannot be read.
pub fn serial_of(der: &CertificateDer<'_>) -> Option<String> {
    let (_, x509) = X509Certificate::from_der(der).ok()?;
    Some(serial::hex(x509.raw_serial()))
}

/// The names and addresses that a server certificate in PEM is for; none where it cannot be read.
pub fn names_of(pem: &str) -> HashSet<ServerName> {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return HashSet::new();
    };
    let Ok((_, x509)) = X509Certificate::from_der(&der) else {
        return HashSet::new();
    };
    let Ok(Some(alternatives)) = x509.subject_alternative_name() else {
        return HashSet::new();
    };
    let name = |general: &GeneralName<'_>| {
        if let GeneralName::DNSName(dns) = general {
            return Some(ServerName::Dns((*dns).to_owned()));
        }
        let GeneralName::IPAddress(bytes) = general else {
            return None;
        };
        let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
        let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
        address.ok().map(ServerName::Address)
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

/// Whether `name` can be a CN that PostgreSQL, its logs and `pg_ident.conf` carry unchanged.
pub(super) fn check_name(name: &str) -> Result<(), PkiError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 63 bytes"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else if name.trim() != name {
        "it begins or ends with a blank"
    } else {
        return Ok(());
    };
    Err(PkiError::Name {
        name: name.escape_debug().to_string(),
        why,
    })
}
