//! How long after the start of the process something happened, for the log line about the first frame.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Notes the start of the process. On Linux the kernel knows it better than we do: it counts from before the dynamic
/// linker ran (to a hundredth of a second).
pub fn start() {
    let now = Instant::now();
    let begun = age().and_then(|age| now.checked_sub(age)).unwrap_or(now);
    let _ = START.set(begun);
}

/// Milliseconds since the start of the process.
#[must_use]
pub fn milliseconds() -> u64 {
    let elapsed = START.get().map_or(Duration::ZERO, Instant::elapsed);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// A step on the way to the first frame, for those who look for where the time goes.
pub fn mark(step: &str) {
    tracing::debug!(step, milliseconds = milliseconds(), "start");
}

/// Age of this process: `starttime` of proc(5) is in ticks of 1/100 s since boot, like the first number of
/// `/proc/uptime`.
#[cfg(target_os = "linux")]
fn age() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    age_from(&stat, &uptime)
}

#[cfg(not(target_os = "linux"))]
fn age() -> Option<Duration> {
    None
}

#[cfg_attr(not(target_os = "linux"), expect(dead_code))]
fn age_from(stat: &str, uptime: &str) -> Option<Duration> {
    // The program's name is in parentheses and may hold anything; what is counted begins after the last one.
    let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let now: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(now - started / 100.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_uptime_less_start_even_with_an_odd_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99950 0 0";
        assert_eq!(age_from(stat, "1000.25 5.0\n"), Some(Duration::from_millis(750)));
        assert_eq!(age_from("nonsense", "1"), None);
    }
}
