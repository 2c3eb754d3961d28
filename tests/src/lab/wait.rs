//! The one bounded wait.

use std::time::{Duration, Instant};

use super::guest;

/// How long something that takes milliseconds may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How much more time an event has in a guest, which may share its processors with other guests.
const GUEST: u32 = 4;

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
    // A guest is many times slower; an event that comes is waited for no longer than it takes there either.
    let deadline = if guest::in_guest() {
        deadline * GUEST
    } else {
        deadline
    };
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
