//! The control socket's server: each path is one operation of the engine.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use super::Shared;
use crate::api::{
    AddEntry, Check, CheckFrames, DaemonState, EventsAfter, FROM, LONGEST_WAIT, Off, Reload, RemoveEntry,
};
use crate::failure::{Code, Failure};
use crate::observe::audit::By;
use crate::ops::{Confirmation, Engine, Revoke, requester};

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

/// Who asks for a change, and from where, as the command says.
#[derive(Debug, Clone, Copy)]
struct Asker {
    peer: Peer,
    from: Option<IpAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = <ConnectInfo<Peer> as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asker, Self::Rejection> {
        let ConnectInfo(peer) = ConnectInfo::<Peer>::from_request_parts(parts, state).await?;
        let from = parts.headers.get(FROM).and_then(|value| value.to_str().ok());
        Ok(Asker {
            peer,
            from: from.and_then(|from| from.parse().ok()),
        })
    }
}

impl Asker {
    /// Changes something, which the audit log ascribes to whoever asks.
    async fn changes<T: Send + 'static>(
        self,
        shared: &Shared,
        work: impl FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Asker { peer, from } = self;
        let asked = move |engine: &mut Engine| {
            let by = By {
                by: peer.name(),
                from,
            };
            engine.for_asker(by, work)
        };
        shared.with(asked).await
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

async fn add_entry(State(shared): State<Shared>, asker: Asker, body: Bytes) -> Answer<impl Serialize> {
    let request: AddEntry = message(&body)?;
    let add = move |engine: &mut Engine| engine.add_entry(&request, &asker.peer.name());
    answer(asker.changes(&shared, add).await)
}

async fn remove_entry(State(shared): State<Shared>, asker: Asker, body: Bytes) -> Answer<impl Serialize> {
    let request: RemoveEntry = message(&body)?;
    let remove = move |engine: &mut Engine| engine.remove_entry(&request);
    answer(asker.changes(&shared, remove).await)
}

async fn reload(State(shared): State<Shared>, asker: Asker, body: Bytes) -> Answer<impl Serialize> {
    let request: Reload = message(&body)?;
    let reload = move |engine: &mut Engine| engine.reload(&request);
    answer(asker.changes(&shared, reload).await)
}

async fn confirm(State(shared): State<Shared>, asker: Asker) -> Answer<impl Serialize> {
    let confirm = |engine: &mut Engine| engine.decide(Confirmation::Confirm);
    answer(asker.changes(&shared, confirm).await)
}

async fn rollback(State(shared): State<Shared>, asker: Asker) -> Answer<impl Serialize> {
    let undo = |engine: &mut Engine| engine.decide(Confirmation::RollBack);
    answer(asker.changes(&shared, undo).await)
}

async fn revoke(State(shared): State<Shared>, asker: Asker, body: Bytes) -> Answer<impl Serialize> {
    asker.peer.require_root("cert revoke")?;
    let request: Revoke = message(&body)?;
    // A task of its own: it goes on to its end when whoever asked hangs up.
    let revoked = tokio::spawn(async move {
        let begin = move |engine: &mut Engine| engine.begin_revocation(&request, &asker.peer.name());
        let begun = asker.changes(&shared, begin).await?;
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
