//! An authority for the length of one trial: it signs whomever the config names, and nobody trusts it but the scratch server.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// All of it goes with this value.
pub struct Throwaway {
    pub certificate: String,
    pub server_certificate: String,
    pub server_key: String,
    issuer: Issuer<'static, KeyPair>,
    /// One for all: who holds it is in the certificate.
    key: KeyPair,
    key_pem: String,
    leaves: Mutex<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Throwaway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Throwaway(…)")
    }
}

impl Throwaway {
    /// # Errors
    /// Keys that cannot be made.
    pub fn new() -> Result<Throwaway, String> {
        let failed = |e: rcgen::Error| format!("no certificates for it: {e}");
        let mut params = params("pgfw scratch authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let own = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&own).map_err(failed)?.pem();
        let issuer = Issuer::new(params, own);
        let key = KeyPair::generate().map_err(failed)?;
        let server = leaf(&issuer, &key, "localhost", ExtendedKeyUsagePurpose::ServerAuth).map_err(failed)?;
        Ok(Throwaway {
            certificate,
            server_certificate: server,
            server_key: key.serialize_pem(),
            key_pem: key.serialize_pem(),
            issuer,
            key,
            leaves: Mutex::default(),
        })
    }

    /// A certificate of this name, and its key, as PEM.
    ///
    /// # Errors
    /// A name that no certificate can bear.
    pub fn credential(&self, name: &str) -> Result<(String, &str), rcgen::Error> {
        let mut leaves = self
            .leaves
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = leaves.get(name) {
            return Ok((known.clone(), &self.key_pem));
        }
        let made = leaf(&self.issuer, &self.key, name, ExtendedKeyUsagePurpose::ClientAuth)?;
        leaves.insert(name.to_owned(), made.clone());
        Ok((made, &self.key_pem))
    }
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    key: &KeyPair,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<String, rcgen::Error> {
    let mut params = params(name);
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(key, issuer)?.pem())
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
    params.not_after = OffsetDateTime::now_utc() + Duration::HOUR;
    params
}
