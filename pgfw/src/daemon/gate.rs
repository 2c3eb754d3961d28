//! The gate's socket: what the gate may ask, and nothing else. It is not the control socket, so that a gate in the wrong
//! hands reaches no operation of the engine but these.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::extract::connect_info::ConnectInfo;
use axum::routing::post;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::Shared;
use super::server::{Answer, Peer, Refusal, answer, message, unknown};
use crate::api::{AskLease, AskMaterial, AskRenewal};
use crate::failure::{Code, Failure};
use crate::ops::{Engine, gate_user};

/// Requests of the gate that the engine has at a time: what closes waits behind no more of them.
const AT_A_TIME: usize = 2;

#[derive(Clone, Debug)]
struct Asked {
    shared: Shared,
    turns: Arc<Semaphore>,
}

/// The largest message: a chain and a request.
const LARGEST: usize = 128 * 1024;

/// Binds the socket for the gate's user.
pub(super) fn listen(path: &Path) -> Result<UnixListener, Failure> {
    super::socket::listen_for(path, crate::paths::GATE_USER)
}

pub(super) async fn serve(listener: UnixListener, shared: Shared) {
    let routes = Router::new()
        .route("/v1/gate", post(material))
        .route("/v1/lease/take", post(take))
        .route("/v1/lease/show", post(show))
        .route("/v1/lease/give-back", post(give_back))
        .route("/v1/renew", post(renew))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(Asked {
            shared,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        })
        .into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the gate's socket is closed");
    }
}

async fn material(
    State(asked): State<Asked>,
    peer: ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<impl Serialize> {
    let AskMaterial { known } = message(&body)?;
    ask(asked, peer, move |engine| engine.gate_material(known.as_deref())).await
}

async fn take(State(asked): State<Asked>, peer: ConnectInfo<Peer>, body: Bytes) -> Answer<impl Serialize> {
    let request: AskLease = message(&body)?;
    ask(asked, peer, move |engine| engine.take_lease(&request)).await
}

async fn show(State(asked): State<Asked>, peer: ConnectInfo<Peer>, body: Bytes) -> Answer<impl Serialize> {
    let request: AskLease = message(&body)?;
    ask(asked, peer, move |engine| engine.show_lease(&request)).await
}

async fn give_back(
    State(asked): State<Asked>,
    peer: ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<impl Serialize> {
    let request: AskLease = message(&body)?;
    ask(asked, peer, move |engine| engine.give_back_lease(&request)).await
}

async fn renew(State(asked): State<Asked>, peer: ConnectInfo<Peer>, body: Bytes) -> Answer<impl Serialize> {
    let request: AskRenewal = message(&body)?;
    ask(asked, peer, move |engine| engine.renew_through_gate(&request)).await
}

/// For the gate's user and root only, whatever the socket's mode has become.
async fn ask<T: Send + 'static>(
    asked: Asked,
    peer: ConnectInfo<Peer>,
    work: impl FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    let uid = peer.0.uid;
    if uid.is_none() || (uid != Some(0) && uid != gate_user()) {
        return Err(Refusal::from(Failure::new(
            Code::Forbidden,
            "this socket is the gate's",
            format!("Run `pgfw gate` as the user {}.", crate::paths::GATE_USER),
        )));
    }
    let _turn = asked.turns.acquire().await;
    answer(asked.shared.with(work).await)
}
