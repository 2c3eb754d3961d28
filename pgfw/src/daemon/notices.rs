//! What the service manager is told (sd_notify(3)): ready, alive, and in one line what there is.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use super::keeper::LATEST_ROUND;
use crate::fault::{Step, step};

/// How long an interface that cannot be covered may keep what starts after pgfw waiting. PostgreSQL behind an open interface
/// is bad; a database that does not come up because of a second NIC is worse, and `status` tells of both.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// When to try again what the manager did not take.
const UNREAD: Duration = Duration::from_millis(100);

/// Says that this daemon is ready, once every interface that is present and matches carries the policy.
pub(super) async fn tell_ready(shared: Shared) {
    let mut rounds = shared.rounds.subscribe();
    let deadline = Instant::now() + LONGEST_WAIT;
    loop {
        rounds.borrow_and_update();
        let uncovered = shared.look(|engine| engine.uncovered()).await.unwrap_or_default();
        if uncovered.is_empty() {
            break;
        }
        let line = format!("Waits for {}", uncovered.join(", "));
        tell(&[NotifyState::Status(&line)]);
        if timeout_at(deadline, rounds.changed()).await.is_err() {
            tracing::error!("ready without {}", uncovered.join(", "));
            break;
        }
    }
    while !tell(&[NotifyState::Ready]) {
        tokio::time::sleep(UNREAD).await;
    }
    step(Step::Ready);
}

/// Keeps the manager's line up to date, as the keeper goes round.
pub(super) async fn tell_status(shared: Shared) {
    let mut rounds = shared.rounds.subscribe();
    let mut last = String::new();
    loop {
        let line = shared.look(|engine| engine.summary()).await;
        let line = line.unwrap_or_else(|failure| failure.message);
        if line != last && tell(&[NotifyState::Status(&line)]) {
            last = line;
        }
        if rounds.changed().await.is_err() {
            return;
        }
    }
}

/// Says that this daemon is alive, for as long as it is: the engine answers, and the keeper goes round. A daemon that hangs
/// is started again; what is enforced does not notice.
pub(super) async fn feed_the_watchdog(shared: Shared) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut rounds = shared.rounds.subscribe();
    let mut last_round = Instant::now();
    loop {
        let answers = timeout(limit / 2, shared.look(|_| Ok(()))).await.is_ok();
        if rounds.has_changed().unwrap_or(false) {
            rounds.borrow_and_update();
            last_round = Instant::now();
        }
        if answers && last_round.elapsed() < LATEST_ROUND {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(answers, "this daemon hangs, and lets the watchdog restart it");
        }
        tokio::time::sleep(limit / 4).await;
    }
}

/// Says it, unless nobody reads: a manager that has stopped reading must not stop this daemon. Whether it was taken.
pub(super) fn tell(states: &[NotifyState<'_>]) -> bool {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return true;
    };
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    match send(socket.as_bytes(), lines.join("\n").as_bytes()) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "no service manager was told");
            error.kind() != ErrorKind::WouldBlock
        }
    }
}

/// A name that begins with `@` is an abstract one (sd_notify(3)).
fn send(name: &[u8], message: &[u8]) -> std::io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(OsStr::from_bytes(name)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message, &address).map(drop)
}
