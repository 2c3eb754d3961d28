//! Between the boot clock, which user space counts by, and jiffies, which the kernel's programs read.

use aya::programs::{TestRun, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_getres};
use pgfw_common::coverage::{ABSENT, FOREVER, Jiffies};

use super::error::DatapathError;
use crate::clock::{BootTime, Now};
use crate::policy::coverage::Until;

/// Both clocks at one moment, and the length of a tick.
///
/// Ticks follow the monotonic clock, so between two readings only a suspend, which the boot clock counts and the tick
/// does not, moves one against the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticks {
    jiffies: u64,
    boot: u64,
    /// Nanoseconds.
    tick: u64,
}

/// Smallest frame that BPF_PROG_TEST_RUN takes.
const FRAME: usize = 64;

impl Ticks {
    /// Asks the clock program for `jiffies64` and reads the boot clock beside it.
    pub(super) fn read(clock: &Xdp) -> Result<Ticks, DatapathError> {
        let mut frame = [0_u8; FRAME];
        clock
            .test_run(TestRunOptions {
                data_in: Some(&[0; FRAME]),
                data_out: Some(&mut frame),
                ..TestRunOptions::default()
            })
            .map_err(DatapathError::aya("ask the kernel for its ticks"))?;
        let [a, b, c, d, e, f, g, h, ..] = frame;
        Ok(Ticks {
            jiffies: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            boot: Now::read().boot.0,
            tick: tick()?,
        })
    }

    /// Ticks per second.
    pub(super) fn hz(&self) -> u32 {
        u32::try_from((1_000_000_000 + self.tick / 2) / self.tick).unwrap_or(1000)
    }

    /// Rounded up: nothing ends early.
    pub(super) fn jiffies(&self, at: BootTime) -> Jiffies {
        let ticks = if at.0 >= self.boot {
            self.jiffies
                .saturating_add((at.0 - self.boot).div_ceil(self.tick))
        } else {
            self.jiffies.saturating_sub((self.boot - at.0) / self.tick)
        };
        // The two ends of the range have meanings of their own.
        Jiffies(ticks.clamp(ABSENT + 1, FOREVER - 1))
    }

    pub(super) fn boot(&self, at: Jiffies) -> BootTime {
        let boot = if at.0 >= self.jiffies {
            self.boot
                .saturating_add((at.0 - self.jiffies).saturating_mul(self.tick))
        } else {
            self.boot
                .saturating_sub((self.jiffies - at.0).saturating_mul(self.tick))
        };
        BootTime(boot)
    }

    pub(super) fn now(&self) -> Jiffies {
        Jiffies(self.jiffies)
    }

    /// How an end stands in a table: in jiffies, and as it was asked for.
    pub(super) fn end(&self, until: Until) -> (u64, u64) {
        match until {
            Until::Absent => (ABSENT, 0),
            Until::Forever => (FOREVER, 0),
            Until::At(boot) => (self.jiffies(boot).0, boot.0),
        }
    }
}

/// The end that [`Ticks::end`] wrote.
pub(super) fn until(jiffies: u64, boot: u64) -> Until {
    match jiffies {
        ABSENT => Until::Absent,
        FOREVER => Until::Forever,
        _ => Until::At(BootTime(boot)),
    }
}

/// CLOCK_MONOTONIC_COARSE advances once a tick (kernel/time/posix-timers.c, `posix_get_coarse_res`).
fn tick() -> Result<u64, DatapathError> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(std::io::Error::from)
        .map_err(DatapathError::call("ask for the length of a tick"))?;
    let nanoseconds = resolution.tv_sec() * 1_000_000_000 + resolution.tv_nsec();
    Ok(u64::try_from(nanoseconds).unwrap_or(0).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKS: Ticks = Ticks {
        jiffies: 1_000,
        boot: 50_000_000,
        tick: 4_000_000,
    };

    #[test]
    fn an_end_is_rounded_up_and_kept_exactly() {
        assert_eq!(TICKS.end(Until::At(BootTime(50_000_001))), (1_001, 50_000_001));
        assert_eq!(TICKS.end(Until::At(BootTime(54_000_000))), (1_001, 54_000_000));
        assert_eq!(TICKS.end(Until::At(BootTime(0))), (988, 0));
        for end in [
            Until::Absent,
            Until::Forever,
            Until::At(BootTime(7)),
            Until::At(BootTime(u64::MAX)),
        ] {
            let (jiffies, boot) = TICKS.end(end);
            assert_eq!(until(jiffies, boot), end);
        }
    }

    #[test]
    fn a_tick_is_a_rate_that_kernels_have() {
        for (tick, hz) in [
            (10_000_000, 100),
            (4_000_000, 250),
            (3_333_333, 300),
            (1_000_000, 1000),
        ] {
            assert_eq!(Ticks { tick, ..TICKS }.hz(), hz);
        }
    }
}
