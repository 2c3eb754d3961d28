//! PEM texts to DER.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::PkiError;

/// The first certificate in a text; `file` is for the message.
pub(super) fn certificate(text: &str, file: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged(file, "CERTIFICATE"))
}

/// The first CRL in a text; `file` is for the message.
pub(super) fn crl(text: &str, file: &Path) -> Result<CertificateRevocationListDer<'static>, PkiError> {
    CertificateRevocationListDer::from_pem_slice(text.as_bytes()).map_err(|_| damaged(file, "X509 CRL"))
}

fn damaged(file: &Path, label: &str) -> PkiError {
    PkiError::Damaged {
        file: file.to_owned(),
        detail: format!("it holds no {label} in PEM"),
    }
}
