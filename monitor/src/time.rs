//! The two clocks: boot time for arithmetic, wall time for people.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on `CLOCK_BOOTTIME`: nanoseconds since boot, suspend included.
///
/// The probes (`bpf_ktime_get_boot_ns`), the kernel's process start times and
/// the census all use it, so they can be compared. `ledger` and `detection` get
/// it as an argument and never read a clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Boottime(pub u64);

impl Boottime {
    /// Now, from the kernel. Only `source` and `pipeline` call this.
    pub fn now() -> Self {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This point on the wall clock, given one pair of readings of both clocks.
    pub fn to_wall(self, pair: ClockPair) -> jiff::Timestamp {
        let delta = i128::from(self.0) - i128::from(pair.boot.0);
        jiff::Timestamp::from_nanosecond(pair.wall.as_nanosecond() + delta).unwrap_or(pair.wall)
    }
}

impl Add<Duration> for Boottime {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Boottime {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The two clocks read at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPair {
    /// Boot time.
    pub boot: Boottime,
    /// Wall time.
    pub wall: jiff::Timestamp,
}

impl ClockPair {
    /// Reads both clocks. Only `source` and `pipeline` call this.
    pub fn now() -> Self {
        Self { boot: Boottime::now(), wall: jiff::Timestamp::now() }
    }
}
