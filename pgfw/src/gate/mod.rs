//! The gate: mutual TLS 1.3 in front of leases and renewals.
//!
//! A process of its own, without privileges and without a file: what it works with, and what it is asked, goes over one
//! socket to the daemon. It keeps nothing, so a crash closes nothing that was open and opens nothing; and it decides
//! nothing, since the daemon verifies every certificate again.

mod door;
mod front;
mod requests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::door::{Door, Place};
pub use self::door::{HOLDERS, PER_SOURCE, STRANGERS};
use self::front::Front;
pub use self::requests::{AT_THE_DAEMON, BODY, CHAIN, HEAD, HEADERS, REQUEST};
use crate::api::Client;
use crate::failure::{Explain, Failure};
use crate::paths::Paths;

/// For a handshake, from the first byte of TCP on.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// For the whole of one connection, however many requests it carries.
pub const LIFE: Duration = Duration::from_secs(60);
/// How long something that cannot be had is waited for.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until a signal says stop.
///
/// # Errors
/// No runtime.
pub fn run(paths: &Paths) -> Result<(), Failure> {
    crate::journal::open("pgfw-gate");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| GateError { source })?;
    let client = Client::new(&paths.gate_socket());
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(|source| GateError { source })?;
        let mut int = signal(SignalKind::interrupt()).map_err(|source| GateError { source })?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = serve(client) => {}
        }
        Ok::<(), Failure>(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn serve(client: Client) {
    let (front, mut changed) = watch::channel(None);
    let following = tokio::spawn(front::follow(client.clone(), front));
    let door = Arc::new(Door::default());
    let requests = Arc::new(requests::Requests::new(client));
    while !following.is_finished() {
        let Some(front) = changed.borrow_and_update().clone() else {
            let _ = changed.changed().await;
            continue;
        };
        let Some(listener) = bind(front.listen, &mut changed).await else {
            continue;
        };
        tracing::info!(listen = %front.listen, "the gate listens");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        at_one_place(&listener, front.listen, &mut changed, &door, &requests).await;
    }
}

/// As long as it is the place to listen at.
async fn at_one_place(
    listener: &TcpListener,
    listen: SocketAddr,
    changed: &mut watch::Receiver<Option<Arc<Front>>>,
    door: &Arc<Door>,
    requests: &Arc<requests::Requests>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let front = changed.borrow().clone();
                    if let Some(front) = front {
                        admit(stream, peer, front, door, requests);
                    }
                }
                // Out of descriptors or memory: those who are in end by themselves.
                Err(error) => {
                    tracing::warn!(%error, "a connection is not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            gone = changed.changed() => {
                let same = changed.borrow().as_ref().is_some_and(|f| f.listen == listen);
                if gone.is_err() || !same {
                    return;
                }
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    door: &Arc<Door>,
    requests: &Arc<requests::Requests>,
) {
    let source = peer.ip().to_canonical();
    let Some(place) = door.enter(source) else {
        return;
    };
    let number = place.number();
    let requests = Arc::clone(requests);
    let task = tokio::spawn(async move {
        // Strangers are not answered, and not spoken of: a log that anyone can fill is a disk that anyone can fill.
        if let Err(error) = tokio::time::timeout(LIFE, one(stream, place, front, requests)).await {
            tracing::debug!(%source, %error, "a connection took too long");
        }
    });
    door.known_as(number, task.abort_handle());
}

async fn one(stream: TcpStream, mut place: Place, front: Arc<Front>, requests: Arc<requests::Requests>) {
    let source = place.source();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&front.tls));
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%source, %error, "no handshake"),
        Err(_) => return tracing::debug!(%source, "no handshake in time"),
    };
    let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    // The verifier asks everybody for one.
    let Some(chain) = chain.filter(|chain| !chain.is_empty()) else {
        return;
    };
    if !place.is_holder() {
        return tracing::warn!(%source, "too many connections of holders of certificates, or newer ones from the same source took its place");
    }
    requests.serve(stream, chain, source).await;
    drop(place);
}

/// `None`: it is another place by now.
async fn bind(listen: SocketAddr, changed: &mut watch::Receiver<Option<Arc<Front>>>) -> Option<TcpListener> {
    let mut said = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => return Some(listener),
            Err(error) if !said => {
                tracing::error!(%listen, %error, "the gate cannot listen; it tries again");
                said = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = changed.changed() => return None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the gate's runtime cannot start")]
struct GateError {
    source: std::io::Error,
}

impl Explain for GateError {
    fn remedy(&self) -> String {
        "Look at this process's limits (ulimit -a).".into()
    }
}
