//! Notices when the wall clock is set: certificates end by it, the kernel's tables by the boot clock.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::Shared;

/// Starts a thread that waits for clock steps as long as the process lives; a blocked thread costs nothing.
pub(super) fn watch(shared: Shared) {
    let watch = move || {
        loop {
            match wait_for_step() {
                Ok(()) => {
                    tracing::info!("the wall clock was set; the ends of certificates are placed anew");
                    shared.changed.notify_one();
                }
                Err(errno) => {
                    tracing::warn!(%errno, "clock steps are noticed once a minute only");
                    return;
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("clock-steps".into())
        .spawn(watch)
    {
        tracing::warn!(%error, "clock steps are noticed once a minute only");
    }
}

/// Blocks until the real-time clock is set: a timer in the far future that the kernel cancels then
/// (`TFD_TIMER_CANCEL_ON_SET`, timerfd_create(2)).
fn wait_for_step() -> Result<(), Errno> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?;
    let never = Expiration::OneShot(TimeSpec::new(i64::from(i32::MAX) * 4, 0));
    timer.set(
        never,
        TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
    )?;
    let mut count = [0_u8; 8];
    match nix::unistd::read(timer.as_fd(), &mut count) {
        Ok(_) | Err(Errno::ECANCELED | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
