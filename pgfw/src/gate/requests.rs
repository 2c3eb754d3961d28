//! HTTP for those who have shown a certificate: `/lease` and `/renew`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;

use crate::api::{AskLease, AskRenewal, Client, GivenBack, LeaseState, Proven, RenewedClient, SOURCE_HEADER};
use crate::failure::{Code, Failure};

/// For the head of a request, and again for its body.
pub const REQUEST: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
pub const HEAD: usize = 16 * 1024;
pub const HEADERS: usize = 32;
/// Bytes of a request's body: a PKCS #10 request with an RSA key of 16,384 bits has 6 KiB.
pub const BODY: usize = 16 * 1024;
/// Bytes of a certificate chain that is handed on.
pub const CHAIN: usize = 16 * 1024;
/// Requests that the daemon has from the gate at a time.
pub const AT_THE_DAEMON: usize = 8;
/// For the daemon's answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Requests {
    daemon: Client,
    turns: Semaphore,
}

impl Requests {
    pub(super) fn new(daemon: Client) -> Requests {
        Requests {
            daemon,
            turns: Semaphore::new(AT_THE_DAEMON),
        }
    }

    /// Until the client is done.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: TlsStream<TcpStream>,
        chain: Vec<CertificateDer<'static>>,
        source: IpAddr,
    ) {
        let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
        if chain.iter().map(Vec::len).sum::<usize>() > CHAIN {
            return tracing::warn!(%source, "a chain of certificates is longer than {CHAIN} bytes");
        }
        let proven = Proven { chain, source };
        let service = service_fn(|request| {
            let (requests, proven) = (Arc::clone(&self), proven.clone());
            async move { Ok::<_, Infallible>(requests.answer(request, proven).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST)
            .max_buf_size(HEAD)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%source, %error, "a connection ended");
        }
    }

    /// The answer, and from where the question seemed to come: behind NAT nobody else can tell.
    async fn answer(&self, request: Request<Incoming>, proven: Proven) -> Response<Full<Bytes>> {
        let source = proven.source.to_string();
        let mut response = self.decide(request, proven).await;
        if let Ok(source) = HeaderValue::from_str(&source) {
            response.headers_mut().insert(SOURCE_HEADER, source);
        }
        response
    }

    async fn decide(&self, request: Request<Incoming>, proven: Proven) -> Response<Full<Bytes>> {
        let answered = match (request.uri().path(), request.method()) {
            ("/lease", &Method::POST) => self.lease::<LeaseState>("take", &request, proven).await,
            ("/lease", &Method::GET) => self.lease::<LeaseState>("show", &request, proven).await,
            ("/lease", &Method::DELETE) => self.lease::<GivenBack>("give-back", &request, proven).await,
            ("/renew", &Method::POST) => self.renew(request, proven).await,
            ("/lease" | "/renew", _) => {
                return json(StatusCode::METHOD_NOT_ALLOWED, &nothing_such());
            }
            _ => return json(StatusCode::NOT_FOUND, &nothing_such()),
        };
        answered.unwrap_or_else(|failure| {
            let status = StatusCode::from_u16(failure.code.http_status());
            json(status.expect("a status of HTTP"), &failure)
        })
    }

    async fn lease<T: serde::de::DeserializeOwned + Serialize>(
        &self,
        what: &str,
        request: &Request<Incoming>,
        proven: Proven,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let seconds = request.uri().query().map(seconds).transpose()?;
        self.ask::<T>(&format!("/v1/lease/{what}"), AskLease { proven, seconds })
            .await
    }

    async fn renew(
        &self,
        request: Request<Incoming>,
        proven: Proven,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let body = Limited::new(request.into_body(), BODY).collect();
        let body = match tokio::time::timeout(REQUEST, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => return Err(no_request("is longer than 16 KiB or did not arrive")),
        };
        let Ok(request) = String::from_utf8(body.to_vec()) else {
            return Err(no_request("is not PEM"));
        };
        self.ask::<RenewedClient>("/v1/renew", AskRenewal { proven, request })
            .await
    }

    async fn ask<T: serde::de::DeserializeOwned + Serialize>(
        &self,
        path: &str,
        message: impl Serialize,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let _turn = self.turns.acquire().await;
        match self.daemon.ask::<T>(path, &message, PATIENCE).await {
            Ok(said) => Ok(json(StatusCode::OK, &said)),
            // Where the daemon's socket is and why it does not answer is this host's own affair.
            Err(failure) if failure.code == Code::Unreachable => {
                tracing::warn!("{failure}");
                Err(Failure::new(
                    Code::Unreachable,
                    "the firewall's daemon does not answer; leases that were granted go on",
                    "Try again in a moment.",
                ))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Of `seconds=600`, all that a query may say.
fn seconds(query: &str) -> Result<u64, Failure> {
    let number = query.strip_prefix("seconds=").and_then(|n| n.parse().ok());
    number.filter(|n| *n > 0).ok_or_else(|| {
        Failure::invalid(
            "the query is not understood",
            "Write /lease?seconds=600 for a lease of ten minutes, or /lease for the longest.",
        )
    })
}

fn no_request(why: &str) -> Failure {
    Failure::invalid(
        format!("the body {why}"),
        "Send a PKCS #10 request in PEM: openssl req -new -key alice.key -subj /CN=alice | curl --data-binary @- …",
    )
}

fn nothing_such() -> Failure {
    Failure::new(
        Code::NotFound,
        "the gate has no such request",
        "It has POST, GET and DELETE /lease, and POST /renew.",
    )
}

fn json(status: StatusCode, said: &impl Serialize) -> Response<Full<Bytes>> {
    let mut body = serde_json::to_vec(said).expect("messages of this crate are JSON");
    // For whoever reads it in a terminal.
    body.push(b'\n');
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("cache-control", "no-store")
        .body(Full::new(body.into()))
        .expect("a status and two headers are a response")
}
