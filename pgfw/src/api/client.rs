//! The client side of the control socket: one request, one connection.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Code, Explain, Failure};

/// Speaks to the daemon of one instance.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    from: Option<IpAddr>,
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        Client {
            socket: socket.to_owned(),
            from: None,
        }
    }

    /// Says where whoever asks sits, for the audit log.
    #[must_use]
    pub fn asked_from(mut self, from: Option<IpAddr>) -> Client {
        self.from = from;
        self
    }

    /// # Errors
    /// [`Code::Unreachable`] when no daemon answers, [`Code::Forbidden`] when the socket may not be opened,
    /// otherwise what the daemon says.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// # Errors
    /// As for [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(message).expect("messages of this crate are JSON");
        self.call(Method::POST, path, body.into())
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ClientError::Runtime { source })?;
        runtime.block_on(self.request(method, path, body, PATIENCE))
    }

    /// [`Client::post`] for whoever has a runtime and cannot wait for long.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        message: &impl Serialize,
        patience: Duration,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(message).expect("messages of this crate are JSON");
        self.request(Method::POST, path, body.into(), patience).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, Failure> {
        let (status, body) = tokio::time::timeout(patience, self.exchange(method, path, body))
            .await
            .map_err(|_| ClientError::Silent {
                socket: self.socket.clone(),
            })??;
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|source| {
                ClientError::Reply {
                    socket: self.socket.clone(),
                    source,
                }
                .into()
            })
        } else {
            Err(serde_json::from_slice::<Failure>(&body).unwrap_or_else(|_| {
                Failure::refused(
                    format!("the daemon answered {status}"),
                    "Look into its journal: journalctl -u pgfw.",
                )
            }))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let socket = || self.socket.clone();
        let stream = tokio::net::UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect {
                socket: socket(),
                source,
            })?;
        let broken = |source| ClientError::Broken {
            socket: socket(),
            source,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = tokio::spawn(connection);
        let from = self.from.map(|from| (FROM, from.to_string()));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "pgfw")
            .header("content-type", "application/json");
        if let Some((name, value)) = from {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(body))
            .expect("paths of this crate are valid URIs");
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        connection.abort();
        Ok((status, body))
    }
}

/// The header with the address from which a command was given.
pub const FROM: &str = "pgfw-from";

/// A reload proves the new policy before it answers; everything else takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error("no runtime for the request")]
    Runtime { source: std::io::Error },
    #[error("the daemon's socket {} cannot be reached", socket.display())]
    Connect { socket: PathBuf, source: std::io::Error },
    #[error("the daemon at {} closed the connection", socket.display())]
    Broken { socket: PathBuf, source: hyper::Error },
    #[error("the daemon at {} does not answer", socket.display())]
    Silent { socket: PathBuf },
    #[error("the daemon at {} answered something else than this version expects", socket.display())]
    Reply {
        socket: PathBuf,
        source: serde_json::Error,
    },
}

impl Explain for ClientError {
    fn code(&self) -> Code {
        match self {
            ClientError::Connect { socket: _, source }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Code::Forbidden
            }
            ClientError::Connect { socket: _, source: _ }
            | ClientError::Broken { socket: _, source: _ }
            | ClientError::Silent { socket: _ } => Code::Unreachable,
            ClientError::Runtime { source: _ } | ClientError::Reply { socket: _, source: _ } => Code::Refused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ClientError::Connect { socket: _, source }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                "Run this as root, or as a member of the group pgfw.".into()
            }
            ClientError::Connect { socket: _, source: _ } => {
                "Start it with `systemctl start pgfw`; what was enforced before goes on without it.".into()
            }
            ClientError::Broken { socket: _, source: _ } | ClientError::Silent { socket: _ } => {
                "Look into its journal: journalctl -u pgfw.".into()
            }
            ClientError::Runtime { source: _ } => "Look at this process's limits (ulimit -a).".into(),
            ClientError::Reply { socket: _, source: _ } => {
                "Restart the daemon so that both are of one version: systemctl restart pgfw.".into()
            }
        }
    }
}
