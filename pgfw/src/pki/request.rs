//! The client's side of a renewal: a request for the next certificate of a key, and whether what comes is that.

use std::path::Path;

use rcgen::CertificateParams;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::authority::common_name;
use super::key::Key;
use super::{PkiError, pem};

/// A PKCS #10 request in PEM, of this key, for the name in this certificate.
///
/// # Errors
/// A key in another form than PKCS #8; a certificate without a name.
pub fn request_next(key: &str, certificate: &str, file: &Path) -> Result<String, PkiError> {
    let der = pem::certificate(certificate, file)?;
    let name = holder(&der).ok_or_else(|| PkiError::Damaged {
        file: file.to_owned(),
        detail: "its certificate has no name".into(),
    })?;
    let key = Key::from_pem(key, file)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&name.0);
    params
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .map_err(PkiError::crypto(format!("the request for {}", name.0)))
}

/// Whether two certificates (PEM) are of one name and one key.
pub fn same_holder(one: &str, other: &str) -> bool {
    let of = |text: &str| {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        holder(&der)
    };
    matches!((of(one), of(other)), (Some(one), Some(other)) if one == other)
}

/// Name and public key.
fn holder(der: &CertificateDer<'_>) -> Option<(String, Vec<u8>)> {
    let (_, x509) = X509Certificate::from_der(der).ok()?;
    let name = x509
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_owned();
    Some((name, x509.public_key().raw.to_vec()))
}
