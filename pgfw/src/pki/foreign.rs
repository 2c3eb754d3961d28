//! A server certificate that somebody else renews: files of certbot or of a company's authority, checked before a server
//! is given them.

use std::path::Path;

use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::renewal::Life;
use super::{PkiError, files};
use crate::clock::WallTime;
use crate::config::{ServerFiles, ServerName};

/// A chain and its key as they stand in the files.
pub struct ForeignPair {
    /// The leaf first.
    pub chain_pem: String,
    pub key_pem: String,
    /// The self-signed authority at the end of the chain, where the file has it.
    pub root_pem: Option<String>,
}

impl std::fmt::Debug for ForeignPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ForeignPair(..)")
    }
}

/// Reads both files and refuses what a server could not serve, or no client would take: another key, a chain out of
/// order, a name that is missing, a time that is over or still to come.
///
/// # Errors
/// [`PkiError::Foreign`], naming the file and what is wrong; [`PkiError::Read`].
pub fn read_foreign(
    paths: &ServerFiles,
    names: &[ServerName],
    now: WallTime,
) -> Result<ForeignPair, PkiError> {
    let ServerFiles { certificate, key } = paths;
    let refused = |file: &Path, detail: String| PkiError::Foreign {
        file: file.to_owned(),
        detail,
    };
    let (chain_pem, key_pem) = (files::read(certificate)?, files::read(key)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| refused(certificate, "it holds something that is no PEM".into()))?;
    let Some(leaf) = chain.first() else {
        return Err(refused(certificate, "it holds no CERTIFICATE in PEM".into()));
    };
    // What is wrong inside stays unsaid: an error never quotes a key.
    let secret = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| refused(key, "it holds no private key in PEM without a passphrase".into()))?;
    CertifiedKey::from_der(chain.clone(), secret, &ring::default_provider())
        .map_err(|_| refused(key, format!("it is not the key of {}", certificate.display())))?;

    let Life {
        serial: _,
        not_before,
        not_after,
    } = Life::of_pem(&chain_pem, certificate)?;
    if now < not_before || not_after <= now {
        let (from, to) = (not_before.rfc3339(), not_after.rfc3339());
        return Err(refused(
            certificate,
            format!("it is valid from {from} to {to} only"),
        ));
    }
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| refused(certificate, e.to_string()))?;
    for name in names {
        let (text, wanted) = match name {
            ServerName::Dns(dns) => (dns.clone(), dns.clone().try_into().ok()),
            ServerName::Address(address) => (address.to_string(), Some((*address).into())),
        };
        if wanted.is_none_or(|wanted| verify_server_name(&parsed, &wanted).is_err()) {
            return Err(refused(certificate, format!("it is not for `{text}`")));
        }
    }
    check_chain(&chain).map_err(|detail| refused(certificate, detail))?;
    let root_pem = root(&chain_pem, &chain);
    Ok(ForeignPair {
        chain_pem,
        key_pem,
        root_pem,
    })
}

/// Each certificate is signed by the next.
fn check_chain(chain: &[CertificateDer<'_>]) -> Result<(), String> {
    for pair in chain.windows(2) {
        let [one, issuer] = pair else { continue };
        let read = |der| X509Certificate::from_der(der).map_err(|e: x509_parser::nom::Err<_>| e.to_string());
        let ((_, one), (_, issuer)) = (read(one)?, read(issuer)?);
        one.verify_signature(Some(issuer.public_key())).map_err(|_| {
            format!(
                "`{}` follows in it and did not sign `{}`",
                issuer.subject(),
                one.subject()
            )
        })?;
    }
    Ok(())
}

/// The last part of the file, if that is an authority that signed itself.
fn root(pem: &str, chain: &[CertificateDer<'_>]) -> Option<String> {
    let (_, last) = X509Certificate::from_der(chain.last()?).ok()?;
    last.verify_signature(None).ok()?;
    let begin = pem.rfind("-----BEGIN CERTIFICATE-----")?;
    pem.get(begin..).map(str::to_owned)
}
