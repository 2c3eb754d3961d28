//! One request to the gate: HTTPS to one address, with the holder's certificate.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ClientError, Profile};
use crate::api::SOURCE_HEADER;
use crate::failure::{Code, Failure};

/// To be connected to, and for all that follows.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer: a certificate and some roots.
const LARGEST: usize = 256 * 1024;

#[derive(Debug)]
struct Answer {
    status: u16,
    source: Option<IpAddr>,
    body: Bytes,
}

/// One gate at one of its addresses.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) at: SocketAddr,
    name: String,
}

impl Gate {
    pub(super) fn new(profile: &Profile, address: IpAddr) -> Gate {
        Gate {
            at: SocketAddr::new(address, profile.gate_port),
            name: profile.host.clone(),
        }
    }

    /// # Errors
    /// A gate that is not there, is another, or refuses.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        profile: &Profile,
        tls: &Arc<ClientConfig>,
        (method, path): (Method, &str),
        body: String,
    ) -> Result<T, Failure> {
        let Answer {
            status,
            body,
            source: _,
        } = self.answered(profile, tls, (method, path), body).await?;
        let no_gate = || Failure::from(ClientError::NoGate { gate: self.at });
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|_| no_gate());
        }
        Err(serde_json::from_slice::<Failure>(&body).unwrap_or_else(|_| no_gate()))
    }

    /// The address that a connection to the gate comes from, as it sees it.
    ///
    /// # Errors
    /// As for [`Gate::ask`], but for what it thinks of the certificate's leases.
    pub(super) async fn source(&self, profile: &Profile, tls: &Arc<ClientConfig>) -> Result<IpAddr, Failure> {
        let answer = self
            .answered(profile, tls, (Method::GET, "/lease"), String::new())
            .await?;
        answer
            .source
            .ok_or_else(|| ClientError::NoGate { gate: self.at }.into())
    }

    async fn answered(
        &self,
        profile: &Profile,
        tls: &Arc<ClientConfig>,
        (method, path): (Method, &str),
        body: String,
    ) -> Result<Answer, ClientError> {
        let asked = tokio::time::timeout(ANSWER, self.exchange(profile, tls, method, path, body)).await;
        asked.map_err(|_| ClientError::Silent { gate: self.at })?
    }

    async fn exchange(
        &self,
        profile: &Profile,
        tls: &Arc<ClientConfig>,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer, ClientError> {
        let gate = self.at;
        let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(gate)).await {
            Err(_) => return Err(ClientError::Silent { gate }),
            Ok(Err(source)) => return Err(ClientError::Connect { gate, source }),
            Ok(Ok(stream)) => stream,
        };
        let name = ServerName::try_from(self.name.clone()).map_err(|_| ClientError::NoAddress {
            host: self.name.clone(),
        })?;
        let connected = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let stream = connected.map_err(|source| self.handshake_failed(profile, source))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| ClientError::NoGate { gate })?;
        let connection = tokio::spawn(connection);
        let host = match self.name.parse::<std::net::Ipv6Addr>() {
            Ok(v6) => format!("[{v6}]:{}", gate.port()),
            Err(_) => format!("{}:{}", self.name, gate.port()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("connection", "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ClientError::NoGate { gate })?;
        // TLS 1.3: a client's certificate is refused after its own handshake is done, in the place of an answer.
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                let said = connection.await.ok().and_then(Result::err);
                return Err(self.request_failed(profile, said.as_ref().unwrap_or(&error)));
            }
        };
        let status = response.status().as_u16();
        let source = response.headers().get(SOURCE_HEADER);
        let source = source.and_then(|s| s.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        connection.abort();
        let body = body.map_err(|_| ClientError::NoGate { gate })?.to_bytes();
        Ok(Answer { status, source, body })
    }

    fn handshake_failed(&self, profile: &Profile, source: std::io::Error) -> ClientError {
        let gate = self.at;
        match tls_error(&source) {
            Some(rustls::Error::AlertReceived(_)) => ClientError::Refused {
                gate,
                file: profile.certificate.clone(),
                source,
            },
            Some(rustls::Error::InvalidCertificate(_)) => ClientError::NotTheGate {
                gate,
                root: profile.root.clone(),
                source,
            },
            Some(_) => ClientError::NoGate { gate },
            None => ClientError::Connect { gate, source },
        }
    }

    fn request_failed(&self, profile: &Profile, error: &hyper::Error) -> ClientError {
        let gate = self.at;
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && let Some(rustls::Error::AlertReceived(alert)) = tls_error(io)
            {
                return ClientError::Refused {
                    gate,
                    file: profile.certificate.clone(),
                    source: std::io::Error::new(ErrorKind::ConnectionRefused, format!("{alert:?}")),
                };
            }
            cause = error.source();
        }
        ClientError::Connect {
            gate,
            source: std::io::Error::new(ErrorKind::ConnectionReset, error.to_string()),
        }
    }
}

fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A gate that nobody can reach from here, by the family of its address say.
pub(super) fn is_unreachable(failure: &Failure) -> bool {
    failure.code == Code::Unreachable
}
