//! Written beside everything else: whoever records an event waits for no disk. What a full disk does not take is kept, up to
//! a bound, and written when there is room; what goes beyond the bound is counted, and the count is a record itself.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Event, Settings, journal, line};
use crate::clock::Now;

/// How many wait for room, and of how many bytes: a name that a client sends may have thousands.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 32 << 20;

/// How many are written at once.
const BATCH: usize = 1_000;

const RETRY: Duration = Duration::from_secs(5);

/// A handle; clones write to the same file. The last one that goes waits for what is still to be written, for a moment.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    lines: VecDeque<String>,
    /// Of `lines` and of what is just being written.
    bytes: usize,
    lost: u64,
    error: Option<String>,
    /// A thread writes.
    runs: bool,
    /// Being written just now, and since when.
    taken: usize,
    since: Option<Instant>,
    /// Not before, since it has just failed.
    retry: Option<Instant>,
    stop: bool,
}

impl Audit {
    pub fn new(settings: Settings) -> Audit {
        Audit(Arc::new(Handle(Arc::new(Inner {
            state: Mutex::new(State {
                settings,
                lines: VecDeque::new(),
                bytes: 0,
                lost: 0,
                error: None,
                runs: false,
                taken: 0,
                since: None,
                retry: None,
                stop: false,
            }),
            changed: Condvar::new(),
        }))))
    }

    /// Where and how, from here on.
    pub fn configure(&self, settings: Settings) {
        self.inner().state().settings = settings;
    }

    pub fn settings(&self) -> Settings {
        self.inner().state().settings.clone()
    }

    /// Notes an event of now. Never blocks on a disk and never fails.
    pub fn record(&self, event: &Event) {
        self.record_at(event, Now::read().wall_ns);
    }

    /// The same of another time: nanoseconds since 1970.
    pub fn record_at(&self, event: &Event, wall_ns: i128) {
        let line = line(event, wall_ns);
        journal::tell(event, &line);
        let inner = self.inner();
        let mut state = inner.state();
        if state.lines.len() >= KEPT || state.bytes + line.len() > KEPT_BYTES {
            state.lost += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        if !state.runs {
            let writer = Arc::clone(inner);
            let started = std::thread::Builder::new()
                .name("audit".into())
                .spawn(move || writer.write());
            match started {
                Ok(_) => state.runs = true,
                Err(error) => state.error = Some(error.to_string()),
            }
        }
        inner.changed.notify_all();
    }

    /// Tries again at once what could not be written: somebody says that there is a new file, or room.
    pub fn reopen(&self) {
        let inner = self.inner();
        inner.state().retry = None;
        inner.changed.notify_all();
    }

    /// Why it cannot be written, and how many wait or are lost; `None` when all is well.
    pub fn complaint(&self) -> Option<String> {
        self.inner().state().complaint(STALLED)
    }

    /// Waits until everything is written, or it is clear that it cannot be now, but no longer than this.
    pub fn flush(&self, longest: Duration) -> bool {
        self.inner().flush(longest)
    }

    fn inner(&self) -> &Arc<Inner> {
        let Handle(inner) = &*self.0;
        inner
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Handle(inner) = self;
        if !inner.flush(AT_THE_END)
            && let Some(complaint) = inner.state().complaint(Duration::ZERO)
        {
            // Of a command, or of a daemon that stops: nobody else says it.
            eprintln!("pgfw: {complaint}");
        }
        inner.state().stop = true;
        inner.changed.notify_all();
    }
}

impl State {
    /// `patience`: so long a write may take.
    fn complaint(&self, patience: Duration) -> Option<String> {
        let error = match (&self.error, self.since) {
            (Some(error), _) => error.clone(),
            (None, Some(since)) if since.elapsed() >= patience => format!(
                "a write has not ended for {} s, since somebody holds a lock on it (`fuser` says who) or its disk does not \
                 answer",
                since.elapsed().as_secs()
            ),
            (None, _) => return None,
        };
        Some(format!(
            "the audit log {} cannot be written: {error}; {} records wait and {} are lost.",
            self.settings.file.display(),
            self.lines.len() + self.taken,
            self.lost
        ))
    }
}

/// From then on a write that does not end is said.
const STALLED: Duration = Duration::from_secs(10);

/// A disk that hangs keeps no command from its end.
const AT_THE_END: Duration = Duration::from_secs(2);

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        let mut state = self.state();
        while (!state.lines.is_empty() || state.taken > 0) && state.error.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.error.is_none()
    }

    fn write(&self) {
        loop {
            let mut state = self.state();
            loop {
                let due = state.retry.is_none_or(|at| at <= Instant::now());
                if (!state.lines.is_empty() || state.lost > 0) && due {
                    break;
                }
                if state.stop {
                    return;
                }
                let waited = self.changed.wait_timeout(state, RETRY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let mut batch: Vec<String> = Vec::new();
            let lost = state.lost;
            if lost > 0 && state.lines.is_empty() {
                let event = Event::RecordsLost {
                    cluster: None,
                    records: Some(lost),
                    reason: state.error.clone().unwrap_or_else(|| "too many at once".into()),
                };
                batch.push(line(&event, Now::read().wall_ns));
            }
            let count = state.lines.len().min(BATCH);
            batch.extend(state.lines.drain(..count));
            let own = batch.len() - count;
            let bytes = |lines: &[String]| lines.iter().skip(own).map(String::len).sum::<usize>();
            let all = bytes(&batch);
            state.taken = batch.len();
            state.since = Some(Instant::now());
            let settings = state.settings.clone();
            drop(state);
            let written = settings.append(&batch);
            let mut state = self.state();
            state.taken = 0;
            state.since = None;
            match written {
                Ok(()) => {
                    if count == 0 {
                        state.lost -= lost;
                    }
                    state.bytes -= all;
                    state.error = None;
                    state.retry = None;
                }
                Err((taken, error)) => {
                    state.bytes -= bytes(batch.get(..taken).unwrap_or_default());
                    if count > 0 {
                        for line in batch.into_iter().skip(taken).rev() {
                            state.lines.push_front(line);
                        }
                    }
                    state.error = Some(error.to_string());
                    state.retry = Some(Instant::now() + RETRY);
                }
            }
            self.changed.notify_all();
            if state.stop {
                return;
            }
        }
    }
}
