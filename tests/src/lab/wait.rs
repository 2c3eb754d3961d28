//! The one bounded wait.

use std::time::{Duration, Instant};

/// How long something that takes milliseconds may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value and panics when the deadline passes first.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match within(deadline, condition) {
        Some(value) => value,
        None => panic!("not within {deadline:?}: {what}"),
    }
}

/// Waits until `condition` gives a value or the deadline passes.
///
/// For events that cannot be subscribed to. The pauses grow from one to twenty milliseconds.
pub(super) fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
