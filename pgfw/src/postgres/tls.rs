//! A TLS client for looking at a server: which certificate it serves, which authorities it asks clients for.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::wire::{self, Answer, Startup};

/// A certificate to log in with, as PEM.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A connection whose handshake is done and whose start-up packet is still to come.
#[derive(Debug)]
pub struct Session {
    stream: StreamOwned<ClientConnection, TcpStream>,
    hints: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Connects, asks for TLS and shakes hands.
///
/// Under TLS 1.3 a server judges the client's certificate after the client is done, so a refusal shows in
/// [`Session::start_up`]; with `newest = 1.2` it shows here.
///
/// # Errors
/// I/O; the server's alert is in the message.
pub fn connect(address: SocketAddr, credential: Option<Credential>, newest: Version) -> io::Result<Session> {
    let tcp = TcpStream::connect_timeout(&address, TIMEOUT)?;
    // The last flight of a handshake and the start-up packet are two small writes.
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    tcp.set_write_timeout(Some(TIMEOUT))?;
    over(tcp, address.ip(), credential, newest)
}

/// The same over a connection that is there.
///
/// # Errors
/// As for [`connect`].
pub(super) fn over(
    mut tcp: TcpStream,
    address: IpAddr,
    credential: Option<Credential>,
    newest: Version,
) -> io::Result<Session> {
    if !wire::request_tls(&mut tcp)? {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the server does not speak TLS (ssl = off)",
        ));
    }
    let hints = Arc::new(Mutex::new(Vec::new()));
    let config = config(credential, newest, Arc::clone(&hints)).map_err(io::Error::other)?;
    let name = ServerName::IpAddress(address.into());
    let client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(client, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Session { stream, hints })
}

/// The newest version to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1_2,
    V1_3,
}

impl Session {
    /// The certificate the server served, DER.
    pub fn served(&self) -> Option<CertificateDer<'static>> {
        let chain = self.stream.conn.peer_certificates()?;
        chain.first().map(|c| c.clone().into_owned())
    }

    /// The authorities' names the server sent with its request for a certificate, DER.
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.hints
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Asks to log in.
    ///
    /// # Errors
    /// I/O; the server's alert is in the message.
    pub fn start_up(&mut self, startup: &Startup) -> io::Result<Answer> {
        wire::start_up(&mut self.stream, startup)
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);

fn config(
    credential: Option<Credential>,
    newest: Version,
    hints: Arc<Mutex<Vec<Vec<u8>>>>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let key = credential
        .map(|c| certified(c, &provider))
        .transpose()?
        .map(Arc::new);
    let versions: &[&rustls::SupportedProtocolVersion] = match newest {
        Version::V1_2 => &[&rustls::version::TLS12],
        Version::V1_3 => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    Ok(ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_cert_resolver(Arc::new(Recorder { key, hints })))
}

/// A certificate chain and its key, if they belong together.
///
/// # Errors
/// PEM that cannot be read, an unknown kind of key, a key of another certificate.
pub(super) fn certified(
    credential: Credential,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, rustls::Error> {
    let pem = |e: rustls::pki_types::pem::Error| rustls::Error::General(e.to_string());
    let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(credential.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).map_err(pem)?;
    CertifiedKey::from_der(chain, key, provider)
}

/// Offers one certificate or none, and keeps the names the server asks for.
#[derive(Debug)]
struct Recorder {
    key: Option<Arc<CertifiedKey>>,
    hints: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl ResolvesClientCert for Recorder {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut kept = self
            .hints
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = hints.iter().map(|h| h.to_vec()).collect();
        self.key.clone()
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate: the question is which one is served, over loopback, not whom to trust with data. The
/// signatures are verified, so the server does hold the certificate's key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
