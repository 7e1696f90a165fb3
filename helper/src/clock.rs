//! The clocks: one that goes on while the machine sleeps, for waiting; the wall clock, for certificates.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use ropewalk_ike::time::{Instant, UnixTime};

/// Now on `CLOCK_BOOTTIME`.
#[must_use]
pub fn now() -> Instant {
    // The clock exists on every Linux since 2.6.39; the start of time is what a broken system gets.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Instant::from_start(time)
}

/// Now on the wall clock.
#[must_use]
pub fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
