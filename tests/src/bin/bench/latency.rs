//! How long a core is kept from those who are due: threads that want to wake every so often, and how late they do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::machine::Pinned;

/// A thread on every core wakes this often.
const EVERY: Duration = Duration::from_micros(200);

/// Runs `work` and gives, in milliseconds, the longest that any core kept its thread waiting meanwhile.
///
/// The threads come before all others (SCHED_FIFO): what delays them is the kernel itself, in a stretch that it does not
/// let itself be interrupted in.
pub(crate) fn longest_during(cores: usize, work: impl FnOnce()) -> f64 {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watches: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn({
                    let over = &over;
                    move || watch(core, over)
                })
            })
            .collect();
        work();
        over.store(true, Ordering::Relaxed);
        let late = watches
            .into_iter()
            .map(|watch| watch.join().expect("a watch ends"));
        late.max().unwrap_or_default().as_secs_f64() * 1e3
    })
}

fn watch(core: usize, over: &AtomicBool) -> Duration {
    let _core = Pinned::to(core);
    first();
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let due = Instant::now() + EVERY;
        std::thread::sleep(EVERY);
        longest = longest.max(due.elapsed());
    }
    longest
}

/// Makes the calling thread come before all that are not of this kind.
fn first() {
    let wish = libc::sched_param { sched_priority: 50 };
    // SAFETY: the structure lives through the call, and 0 is the calling thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const wish) };
    assert_eq!(set, 0, "SCHED_FIFO: {}", std::io::Error::last_os_error());
}
