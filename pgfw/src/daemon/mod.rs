//! The daemon: one process that owns the control socket, keeps the tables true to ledger and clocks, and stops politely.

mod clock_steps;
mod connections;
mod events;
mod file_changes;
mod gate;
mod keeper;
mod link_changes;
mod memory;
mod notices;
mod only_one;
mod pin_changes;
mod server;
mod socket;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::config::OnStop;
use crate::failure::{Explain, Failure};
use crate::fault::{Step, step};
use crate::ops::{Engine, Started};
use crate::paths::Paths;

/// The engine, shared between requests and the keeper.
#[derive(Clone, Debug)]
struct Shared {
    engine: Arc<Mutex<Engine>>,
    /// Something changed: the keeper looks when it has to act next.
    changed: Arc<Notify>,
    events: events::EventLog,
    /// How often the keeper has gone round.
    rounds: Arc<watch::Sender<u64>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Engine> {
        // A request that panicked left the engine between two calls; its state is in ledger and kernel.
        self.engine
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs blocking work that changes nothing.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let shared = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared.lock())).await;
        tokio::task::spawn_blocking(memory::give_back);
        joined(done)
    }

    /// Runs blocking work that needs no engine, and may take long: nobody waits for it but who asked.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        joined(tokio::task::spawn_blocking(move || Ok(work())).await)
    }

    /// Runs blocking work on the engine off the reactor's threads.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let shared = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut shared.lock())).await;
        self.changed.notify_one();
        joined(done)
    }
}

/// A disk that hangs keeps no daemon from its end.
const LAST_RECORDS: Duration = Duration::from_secs(2);

fn joined<T>(done: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    done.unwrap_or_else(|_| {
        Err(Failure::refused(
            "the daemon met a bug while it did this",
            "Look into its journal (journalctl -u pgfw); what is enforced goes on.",
        ))
    })
}

/// Runs until a signal says stop.
///
/// # Errors
/// A second daemon, a config or an interface that is wrong at the first start, a kernel that lacks something.
pub fn run(paths: &Paths, probation: Duration) -> Result<(), Failure> {
    memory::prepare();
    crate::journal::open("pgfw");
    let _only_one = only_one::take(paths)?;
    let (engine, started) = Engine::start(paths, probation)?;
    say(&started);
    #[cfg(feature = "log")]
    engine.follow_diagnostics()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Runtime { source })?;
    let shared = Shared {
        engine: Arc::new(Mutex::new(engine)),
        changed: Arc::new(Notify::new()),
        events: events::EventLog::default(),
        rounds: Arc::default(),
    };
    shared.events.follow(paths);
    connections::follow(shared.clone());
    runtime.block_on(serve(paths, &shared))?;
    on_stop(&shared);
    // The threads that follow rings and logs live as long as the process, so nothing else writes the last records.
    let audit = shared.lock().audit().clone();
    audit.flush(LAST_RECORDS);
    // A server that does not answer is not waited for: what it was to be told is noted, and told after the next start.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn serve(paths: &Paths, shared: &Shared) -> Result<(), Failure> {
    let signals = |kind| signal(kind).map_err(|source| Failure::from(DaemonError::Runtime { source }));
    let (mut term, mut int) = (
        signals(SignalKind::terminate())?,
        signals(SignalKind::interrupt())?,
    );
    let mut hangup = signals(SignalKind::hangup())?;
    let audit = shared.lock().audit().clone();
    let listener = socket::listen(&paths.socket)?;
    let for_gate = gate::listen(&paths.gate_socket())?;
    step(Step::SocketMade);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(lasting("keeper", keeper::keep(shared.clone())));
    clock_steps::watch(shared.clone());
    link_changes::watch(shared.clone());
    file_changes::watch(shared.clone());
    pin_changes::watch(shared.clone(), &paths.bpffs);
    tasks.spawn(lasting("server", server::serve(listener, shared.clone())));
    tasks.spawn(lasting("signals", async move {
        // Said by whoever put the audit log aside (logrotate): the next line goes to a new file in any case, and what waits
        // for room is tried at once. Unheard, this signal would end the daemon.
        while hangup.recv().await.is_some() {
            audit.reopen();
        }
    }));
    tasks.spawn(lasting("gate's server", gate::serve(for_gate, shared.clone())));
    let ready = notices::tell_ready(shared.clone());
    tasks.spawn(async move {
        ready.await;
        Part::Done
    });
    tasks.spawn(lasting("status line", notices::tell_status(shared.clone())));
    tasks.spawn(lasting("watchdog", notices::feed_the_watchdog(shared.clone())));
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        ended = part_ended(&mut tasks) => {
            // Not a stop that anybody asked for: nothing is detached, and the service manager starts it again.
            tracing::error!(?ended, "a part of the daemon ended");
            return Err(DaemonError::PartEnded.into());
        }
    }
    notices::tell(&[sd_notify::NotifyState::Stopping]);
    step(Step::StopHeard);
    tasks.shutdown().await;
    // The socket goes with the daemon: whoever finds one can reach one.
    let _ = std::fs::remove_file(&paths.socket);
    let _ = std::fs::remove_file(paths.gate_socket());
    step(Step::SocketGone);
    Ok(())
}

/// A part that ended and should not have: who said that this daemon is ready has done what there was to do.
async fn part_ended(tasks: &mut tokio::task::JoinSet<Part>) -> String {
    loop {
        match tasks.join_next().await {
            Some(Ok(Part::Done)) => {}
            Some(Ok(Part::Ended(name))) => return name.to_owned(),
            Some(Err(error)) => return error.to_string(),
            None => std::future::pending().await,
        }
    }
}

async fn lasting(name: &'static str, part: impl Future<Output = ()>) -> Part {
    part.await;
    Part::Ended(name)
}

/// How a part of the daemon came to its end.
#[derive(Debug, Clone, Copy)]
enum Part {
    Done,
    Ended(&'static str),
}

/// `on_stop`: keep enforcing, or leave the host as it was.
fn on_stop(shared: &Shared) {
    let engine = shared.lock();
    let detach = engine
        .config()
        .is_ok_and(|c| c.firewall.on_stop == OnStop::Detach);
    if detach && engine.owns_the_pins() {
        match crate::ops::off(engine.paths()) {
            Ok(removed) => {
                step(Step::Detached);
                tracing::info!("stopped: {}", removed.lines.join(" "));
            }
            Err(failure) => tracing::error!("{failure}"),
        }
    } else {
        tracing::info!("stopped; what was enforced goes on (on_stop = \"keep\")");
    }
}

fn say(started: &Started) {
    match started {
        Started::Adopted { generation } => {
            tracing::info!(generation, "adopted the policy that the kernel enforces")
        }
        Started::Loaded { generation } => tracing::info!(generation, "loaded the confirmed policy"),
        Started::Rescued {
            kept: Some(generation),
        } => {
            tracing::error!(generation, "the policy that the kernel has goes on as it is")
        }
        Started::Rescued { kept: None } => tracing::error!("SSH only: everything else is closed"),
        Started::Probation { generation, seconds } => tracing::warn!(
            generation,
            seconds,
            "first policy of this host, on probation: it undoes itself unless you say: pgfw confirm"
        ),
    }
}

#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error("the daemon's runtime cannot start")]
    Runtime { source: std::io::Error },
    #[error("a part of the daemon ended by itself")]
    PartEnded,
}

impl Explain for DaemonError {
    fn remedy(&self) -> String {
        match self {
            DaemonError::Runtime { source: _ } => "Look at this process's limits (ulimit -a).".into(),
            DaemonError::PartEnded => "What is enforced goes on; report the lines before this one.".into(),
        }
    }
}
