//! Moments and durations: the wall clock for certificates, the boot clock for what was asked to last "two hours".

use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_BOOTTIME` (counts suspend, never steps).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(pub u64);

/// Seconds since 1970-01-01 UTC (`CLOCK_REALTIME`; may step).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

/// Both clocks, read together. Code that decides takes this as an argument and never reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub boot: BootTime,
    /// Nanoseconds since 1970, so that the conversion below does not lose the fraction of a second.
    pub wall_ns: i128,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        use nix::time::{ClockId, clock_gettime};
        let read = |id| {
            let t = clock_gettime(id).expect("the boot and real-time clocks exist on every supported kernel");
            i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec())
        };
        let boot = u64::try_from(read(ClockId::CLOCK_BOOTTIME)).expect("the boot clock is not negative");
        Now {
            boot: BootTime(boot),
            wall_ns: read(ClockId::CLOCK_REALTIME),
        }
    }

    pub fn wall(&self) -> WallTime {
        WallTime(i64::try_from(self.wall_ns.div_euclid(1_000_000_000)).unwrap_or(i64::MAX))
    }

    /// The boot-clock moment at which the wall clock will show `end`, as things stand now; zero when that
    /// lies before boot.
    pub fn boot_at(&self, end: WallTime) -> BootTime {
        let delta = i128::from(end.0) * 1_000_000_000 - self.wall_ns;
        let boot = i128::from(self.boot.0) + delta;
        BootTime(u64::try_from(boot.max(0)).unwrap_or(u64::MAX))
    }
}

impl WallTime {
    /// RFC 3339 in UTC, to the second: `2026-11-22T15:04:05Z`.
    pub fn rfc3339(self) -> String {
        time::OffsetDateTime::from_unix_timestamp(self.0)
            .ok()
            .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_else(|| format!("@{}", self.0))
    }
}

/// This boot's random id, to tell a boot-clock end of this boot from one of an earlier boot.
///
/// Source: `/proc/sys/kernel/random/boot_id`.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}
