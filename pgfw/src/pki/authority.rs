//! A certificate authority: its own certificate, its key, and what it says about itself.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::key::Key;
use super::store::Store;
use super::{PkiError, files, names, pem, serial};
use crate::clock::WallTime;
use crate::ledger::types::Authority;

/// A root is replaced by rotation, which has to be asked for; until that is done, nothing may end by itself.
const VALIDITY_SECONDS: i64 = 20 * 365 * 86_400;
/// A clock that is set back within this time still finds the root valid.
const BACKDATED_SECONDS: i64 = 3600;
/// X.520 allows 64 characters in a common name; the rest is for the words around the host.
const MAX_HOST: usize = 40;

pub(super) const CERTIFICATE_FILE: &str = "ca.crt";
pub(super) const KEY_FILE: &str = "ca.key";
pub(super) const CRL_FILE: &str = "ca.crl";

/// One generation of one authority, able to sign.
#[derive(Debug)]
pub(super) struct SigningAuthority {
    pub(super) info: AuthorityInfo,
    issuer: Issuer<'static, Key>,
}

/// What may be shown of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorityInfo {
    pub authority: Authority,
    pub generation: u32,
    /// `/CN=pgfw client CA db1 g1`.
    pub subject_dn: String,
    pub not_before: WallTime,
    pub not_after: WallTime,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    pub certificate: PathBuf,
    /// OpenSSL's hash of the subject: `X509_NAME_hash_ex`, the name of the CRL file.
    pub name_hash: u32,
    /// The SKI, which leaves and CRLs name as their AKI.
    #[serde(skip)]
    pub(super) key_identifier: Vec<u8>,
}

impl SigningAuthority {
    /// Makes a new self-signed authority and writes it into `folder`.
    pub(super) fn create(
        store: &Store,
        authority: Authority,
        generation: u32,
        host: &str,
        folder: &Path,
        now: WallTime,
    ) -> Result<SigningAuthority, PkiError> {
        let key = Key::generate()?;
        let mut params = CertificateParams::default();
        // Own DN per generation: webpki takes the first CRL with the issuer's name, whichever key signed it.
        params.distinguished_name =
            common_name(&format!("pgfw {authority} CA {} g{generation}", host_word(host)));
        params.not_before = date(WallTime(now.0 - BACKDATED_SECONDS));
        params.not_after = date(WallTime(now.0 + VALIDITY_SECONDS));
        params.serial_number = Some(serial::random()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .self_signed(&key)
            .map_err(PkiError::crypto(format!("the {authority} authority")))?;
        store.write_key(&key, &folder.join(KEY_FILE))?;
        files::write(
            &folder.join(CERTIFICATE_FILE),
            certificate.pem().as_bytes(),
            files::PUBLIC,
        )?;
        SigningAuthority::load(store, authority, generation, folder)
    }

    /// Reads one from its folder; certificate and key must belong together.
    pub(super) fn load(
        store: &Store,
        authority: Authority,
        generation: u32,
        folder: &Path,
    ) -> Result<SigningAuthority, PkiError> {
        let info = AuthorityInfo::read(authority, generation, folder)?;
        let der = pem::certificate(&files::read(&info.certificate)?, &info.certificate)?;
        let key_file = folder.join(KEY_FILE);
        let key = store.open_key(&key_file)?;
        let x509 = parse(&der, &info.certificate)?;
        if x509.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(PkiError::Damaged {
                file: key_file,
                detail: format!("it is not the key of {}", info.certificate.display()),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(PkiError::crypto(format!(
            "an issuer from {}",
            info.certificate.display()
        )))?;
        Ok(SigningAuthority { info, issuer })
    }

    pub(super) const fn issuer(&self) -> &Issuer<'static, Key> {
        &self.issuer
    }
}

impl AuthorityInfo {
    /// Reads the certificate in `folder`; the key may be elsewhere.
    pub(super) fn read(
        authority: Authority,
        generation: u32,
        folder: &Path,
    ) -> Result<AuthorityInfo, PkiError> {
        let certificate = folder.join(CERTIFICATE_FILE);
        let der = pem::certificate(&files::read(&certificate)?, &certificate)?;
        let x509 = parse(&der, &certificate)?;
        let damaged = |detail: &str| PkiError::Damaged {
            file: certificate.clone(),
            detail: detail.into(),
        };
        let subject = x509
            .subject()
            .iter_common_name()
            .next()
            .and_then(|cn| cn.as_str().ok())
            .ok_or_else(|| damaged("its subject has no common name"))?;
        let key_identifier = x509
            .iter_extensions()
            .find_map(|extension| {
                let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else {
                    return None;
                };
                Some(id.0.to_vec())
            })
            .ok_or_else(|| damaged("it has no subject key identifier"))?;
        Ok(AuthorityInfo {
            authority,
            generation,
            subject_dn: names::postgres_dn(subject),
            not_before: WallTime(x509.validity().not_before.timestamp()),
            not_after: WallTime(x509.validity().not_after.timestamp()),
            fingerprint: Sha256::digest(&der).iter().map(|b| format!("{b:02x}")).collect(),
            name_hash: names::openssl_hash(x509.subject()),
            certificate,
            key_identifier,
        })
    }
}

/// The key identifier of its issuer (AKI) that the first certificate in a PEM text names.
pub(super) fn issuer_identifier(text: &str) -> Option<Vec<u8>> {
    let der = pem::certificate(text, Path::new("")).ok()?;
    let (_, x509) = X509Certificate::from_der(&der).ok()?;
    x509.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(issuer) = extension.parsed_extension() else {
            return None;
        };
        Some(issuer.key_identifier.as_ref()?.0.to_vec())
    })
}

pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// Times that X.509 cannot say end in the year 9999.
pub(super) fn date(at: WallTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.0).unwrap_or(time::macros::datetime!(9999-12-31 23:59:59 UTC))
}

fn parse<'a>(der: &'a [u8], file: &Path) -> Result<X509Certificate<'a>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok((_, x509)) => Ok(x509),
        Err(e) => Err(PkiError::Damaged {
            file: file.to_owned(),
            detail: e.to_string(),
        }),
    }
}

/// The host's name as it may stand in a DN.
fn host_word(host: &str) -> String {
    host.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(MAX_HOST)
        .collect()
}
