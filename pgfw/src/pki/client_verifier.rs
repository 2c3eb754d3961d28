//! Who a client certificate lets in, judged as PostgreSQL judges it: chain, time, usage, and a list of every authority in
//! the chain that is there and in force.
//!
//! webpki does most of it. What OpenSSL does and webpki does not is added here: a certificate ends with its notAfter
//! (X509_cmp_time in x509_vfy.c), a root ends like any other, a list counts from its thisUpdate on, a key usage that allows
//! no signature lets nobody in (check_purpose_ssl_client in v3_purp.c), and without any list nobody is let in.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::PkiError;
use crate::clock::WallTime;

/// One set of roots and lists; another list is another verifier.
#[derive(Debug)]
pub struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    roots: Vec<Validity>,
    lists: Vec<Validity>,
}

/// From when to when something of this name counts.
#[derive(Debug)]
struct Validity {
    name: Vec<u8>,
    from: i64,
    /// `None`: webpki looks at the end itself.
    until: Option<i64>,
}

impl ClientVerifier {
    /// # Errors
    /// Texts that hold no certificate or no list; no root at all.
    pub fn new(roots: &str, lists: &[String]) -> Result<ClientVerifier, PkiError> {
        let damaged = |detail: String| PkiError::Damaged {
            file: "the client authorities".into(),
            detail,
        };
        let mut store = RootCertStore::empty();
        let mut root_times = Vec::new();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            let root = root.map_err(|e| damaged(e.to_string()))?;
            let (_, x509) = X509Certificate::from_der(&root).map_err(|e| damaged(e.to_string()))?;
            root_times.push(Validity {
                name: x509.subject().as_raw().to_vec(),
                from: x509.validity().not_before.timestamp(),
                until: Some(x509.validity().not_after.timestamp()),
            });
            store.add(root).map_err(|e| damaged(e.to_string()))?;
        }
        let mut ders = Vec::new();
        let mut list_times = Vec::new();
        for text in lists {
            let der = CertificateRevocationListDer::from_pem_slice(text.as_bytes())
                .map_err(|e| damaged(e.to_string()))?;
            let (_, list) = CertificateRevocationList::from_der(&der).map_err(|e| damaged(e.to_string()))?;
            list_times.push(Validity {
                name: list.issuer().as_raw().to_vec(),
                from: list.last_update().timestamp(),
                until: None,
            });
            ders.push(der);
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
            .with_crls(ders)
            .enforce_revocation_expiration()
            // Strangers are not told whose certificates count.
            .clear_root_hint_subjects()
            .build()
            .map_err(|e| damaged(e.to_string()))?;
        Ok(ClientVerifier {
            inner,
            roots: root_times,
            lists: list_times,
        })
    }

    /// Judges a chain in DER, the leaf first; gives the leaf.
    ///
    /// # Errors
    /// No certificate, or one that lets nobody in.
    pub fn verify(&self, chain: &[Vec<u8>], now: WallTime) -> Result<CertificateDer<'static>, Error> {
        let chain: Vec<CertificateDer<'static>> = chain.iter().cloned().map(CertificateDer::from).collect();
        let (leaf, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let since = std::time::Duration::from_secs(u64::try_from(now.0).unwrap_or(0));
        self.verify_client_cert(leaf, others, UnixTime::since_unix_epoch(since))?;
        Ok(leaf.clone())
    }

    /// What webpki leaves out.
    fn beyond_webpki(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<(), CertificateError> {
        if self.lists.is_empty() {
            return Err(CertificateError::UnknownRevocationStatus);
        }
        for der in std::iter::once(leaf).chain(others) {
            let (_, x509) = X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
            if x509.validity().not_after.timestamp() <= now {
                return Err(CertificateError::Expired);
            }
            let issuer = x509.issuer().as_raw();
            if self.lists.iter().any(|l| l.name == issuer && now < l.from) {
                return Err(CertificateError::UnknownRevocationStatus);
            }
            let of_it = |r: &&Validity| r.name == issuer;
            let in_force = |r: &Validity| r.from <= now && r.until.is_none_or(|until| now < until);
            if self.roots.iter().any(|r| of_it(&r)) && !self.roots.iter().filter(of_it).any(in_force) {
                return Err(CertificateError::Expired);
            }
        }
        let (_, x509) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match x509.key_usage() {
            Ok(None) => Ok(()),
            Ok(Some(usage)) if usage.value.digital_signature() || usage.value.key_agreement() => Ok(()),
            Ok(Some(_)) | Err(_) => Err(CertificateError::InvalidPurpose),
        }
    }
}

/// What the gate serves: TLS 1.3 only, a client certificate asked of everybody, and nothing that could be resumed, since
/// whoever resumes is not verified again.
///
/// # Errors
/// Texts that hold no certificate, key or list.
pub fn gate_tls(
    certificate: &str,
    key: &str,
    verifier: ClientVerifier,
) -> Result<rustls::ServerConfig, PkiError> {
    let damaged = |detail: String| PkiError::Damaged {
        file: "the gate's certificate".into(),
        detail,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|e| damaged(e.to_string()))?;
    // What is wrong inside stays unsaid: an error never quotes a key.
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| damaged("its key is not in PEM".into()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| damaged(e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(|e| damaged(e.to_string()))?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The one provider of this crate.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.beyond_webpki(end_entity, intermediates, seconds)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
