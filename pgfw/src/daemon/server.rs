//! The control socket's server: each path is one operation of the engine.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use super::Shared;
use crate::api::{
    AddEntry, Check, CheckFrames, DaemonState, EventsAfter, LONGEST_WAIT, Off, Reload, RemoveEntry,
};
use crate::failure::{Code, Failure};
use crate::ops::{Confirmation, Revoke, requester};

/// Who is at the other end: SO_PEERCRED (unix(7)), taken when the connection is accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Peer {
            uid: stream.io().peer_cred().ok().map(|c| c.uid()),
        }
    }
}

impl Peer {
    /// What the command line does as root only, the socket does for root only.
    fn require_root(self, what: &str) -> Result<(), Refusal> {
        match self.uid {
            Some(0) => Ok(()),
            Some(_) | None => Err(Refusal(Failure::new(
                Code::Forbidden,
                format!("`pgfw {what}` needs root"),
                format!("Run it as: sudo pgfw {what}"),
            ))),
        }
    }

    /// May ask a directory service: not for an async thread.
    fn name(self) -> String {
        self.uid.map_or_else(|| "unknown".to_owned(), requester)
    }
}

pub(super) async fn serve(listener: UnixListener, shared: Shared) {
    let routes = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/list", get(list))
        .route("/v1/check", post(check))
        .route("/v1/check/frames", post(check_frames))
        .route("/v1/events", get(events))
        .route("/v1/entries", post(add_entry))
        .route("/v1/entries/remove", post(remove_entry))
        .route("/v1/reload", post(reload))
        .route("/v1/confirm", post(confirm))
        .route("/v1/rollback", post(rollback))
        .route("/v1/refresh", post(refresh))
        .route("/v1/revoke", post(revoke))
        .route("/v1/off", post(off))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(shared)
        .into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the control socket is closed");
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

async fn status(State(shared): State<Shared>) -> Answer<impl Serialize> {
    let daemon = DaemonState {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    answer(shared.look(move |engine| engine.status(Some(daemon))).await)
}

async fn list(State(shared): State<Shared>) -> Answer<impl Serialize> {
    answer(shared.look(|engine| engine.list()).await)
}

async fn check(State(shared): State<Shared>, body: Bytes) -> Answer<impl Serialize> {
    let Check { frame } = message(&body)?;
    let frame = crate::observe::frame::from_hex(&frame)?;
    answer(shared.look(move |engine| engine.check(&frame)).await)
}

async fn check_frames(State(shared): State<Shared>, body: Bytes) -> Answer<impl Serialize> {
    let CheckFrames { frames } = message(&body)?;
    let frames: Result<Vec<_>, Failure> = frames
        .iter()
        .map(|frame| crate::observe::frame::from_hex(frame))
        .collect();
    let frames = frames?;
    answer(shared.look(move |engine| engine.check_frames(&frames)).await)
}

/// Holds no lock while it waits.
async fn events(
    State(shared): State<Shared>,
    query: Result<Query<EventsAfter>, QueryRejection>,
) -> Answer<impl Serialize> {
    let Query(EventsAfter { after, wait }) = query.map_err(|error| {
        Failure::invalid(
            format!("the request's query is not understood: {error}"),
            "Ask for /v1/events?after=NUMBER&wait=SECONDS.",
        )
    })?;
    let longest = Duration::from_secs(wait.min(LONGEST_WAIT));
    answer(Ok(shared.events.after(after, longest).await))
}

async fn add_entry(
    State(shared): State<Shared>,
    peer: ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<impl Serialize> {
    let request: AddEntry = message(&body)?;
    answer(
        shared
            .with(move |engine| engine.add_entry(&request, &peer.0.name()))
            .await,
    )
}

async fn remove_entry(State(shared): State<Shared>, body: Bytes) -> Answer<impl Serialize> {
    let request: RemoveEntry = message(&body)?;
    answer(shared.with(move |engine| engine.remove_entry(&request)).await)
}

async fn reload(State(shared): State<Shared>, body: Bytes) -> Answer<impl Serialize> {
    let request: Reload = message(&body)?;
    answer(shared.with(move |engine| engine.reload(&request)).await)
}

async fn confirm(State(shared): State<Shared>) -> Answer<impl Serialize> {
    answer(shared.with(|engine| engine.decide(Confirmation::Confirm)).await)
}

async fn rollback(State(shared): State<Shared>) -> Answer<impl Serialize> {
    answer(shared.with(|engine| engine.decide(Confirmation::RollBack)).await)
}

async fn revoke(
    State(shared): State<Shared>,
    peer: ConnectInfo<Peer>,
    body: Bytes,
) -> Answer<impl Serialize> {
    peer.0.require_root("cert revoke")?;
    let request: Revoke = message(&body)?;
    // A task of its own: it goes on to its end when whoever asked hangs up.
    let revoked = tokio::spawn(async move {
        let begun = shared
            .with(move |engine| engine.begin_revocation(&request, &peer.0.name()))
            .await?;
        let ended = shared.apart(move || begun.end_sessions()).await?;
        shared.with(move |engine| engine.finish_revocation(ended)).await
    });
    answer(super::joined(revoked.await))
}

/// A command changed ledger or certificates itself: the tables follow.
async fn refresh(State(shared): State<Shared>) -> Answer<impl Serialize> {
    answer(shared.with(|engine| engine.refreshed()).await)
}

async fn off(State(shared): State<Shared>, peer: ConnectInfo<Peer>, body: Bytes) -> Answer<impl Serialize> {
    peer.0.require_root("off")?;
    let request: Off = if body.is_empty() {
        Off::default()
    } else {
        message(&body)?
    };
    answer(shared.with(move |engine| engine.off(&request)).await)
}

pub(super) async fn unknown() -> Refusal {
    Refusal(Failure::new(
        Code::NotFound,
        "this daemon knows no such request",
        "Use the pgfw command of the daemon's version: systemctl restart pgfw.",
    ))
}

pub(super) fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    result.map(Json).map_err(Refusal)
}

pub(super) fn message<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal(Failure::invalid(
            format!("the request's body is not understood: {error}"),
            "Send the JSON that this version of pgfw documents.",
        ))
    })
}

/// A failure as an HTTP answer.
#[derive(Debug)]
pub(super) struct Refusal(Failure);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal(failure)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status()).expect("a status of HTTP");
        (status, Json(self.0)).into_response()
    }
}
