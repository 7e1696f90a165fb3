//! The clocks: one that goes on while the machine sleeps, for waiting; the wall clock, for certificates.
//!
//! An [`Alarm`] waits by the former, so that what fell due during a sleep is due at once on waking, where the runtime's own
//! timers would wait for the rest of their time. A [`Nap`] tells a sleep by the two monotonic clocks of Linux, one of which
//! stands still meanwhile; it works where nobody announces sleeping.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, SystemTime};

use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use ropewalk_ike::time::{Instant, UnixTime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A difference between the clocks that is no sleep: they are read one after the other.
const NO_SLEEP: Duration = Duration::from_millis(1500);

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

/// A timer on `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(TimerClock::CLOCK_BOOTTIME, flags)?);
        // SAFETY: `Timer` owns the descriptor, never replaces it, and lives inside the `AsyncFd`.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self { timer })
    }

    /// Returns at `at`, or at once when that is past.
    pub async fn wait_until(&self, at: Instant) {
        // The kernel takes zero for "never".
        let at = at.since_start().max(Duration::from_nanos(1));
        let set = self.timer.get_ref().0.set(
            Expiration::OneShot(nix::sys::time::TimeSpec::from_duration(at)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        );
        if let Err(error) = set {
            tracing::error!(%error, "the timer cannot be set");
            tokio::time::sleep(Duration::from_secs(1)).await;
            return;
        }
        while let Ok(mut ready) = self.timer.readable().await {
            // A readiness from before it was set again holds nothing to read.
            let mut expirations = [0; 8];
            let read = nix::unistd::read(self.timer.get_ref(), &mut expirations);
            ready.clear_ready();
            if read.is_ok() {
                return;
            }
        }
    }
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Notices that the machine slept.
#[derive(Debug)]
pub struct Nap {
    asleep: Duration,
}

impl Default for Nap {
    fn default() -> Self {
        Self { asleep: time_asleep() }
    }
}

impl Nap {
    /// How long the machine slept since the last call; `None` when it did not.
    pub fn slept(&mut self) -> Option<Duration> {
        self.judge(time_asleep())
    }

    fn judge(&mut self, asleep: Duration) -> Option<Duration> {
        let more = asleep.saturating_sub(self.asleep);
        self.asleep = self.asleep.max(asleep);
        (more >= NO_SLEEP).then_some(more)
    }
}

/// How long the machine was asleep since its start.
fn time_asleep() -> Duration {
    let awake = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now().since_start().saturating_sub(awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_noticed_once_and_the_clocks_own_noise_never() {
        let mut nap = Nap { asleep: Duration::from_secs(100) };
        assert_eq!(nap.judge(Duration::from_millis(100_002)), None);
        assert_eq!(nap.judge(Duration::from_secs(99)), None);
        assert_eq!(nap.judge(Duration::from_secs(160)), Some(Duration::from_millis(59_998)));
        assert_eq!(nap.judge(Duration::from_secs(160)), None);
    }

    #[tokio::test]
    async fn an_alarm_goes_off_when_it_is_set_to_and_at_once_for_what_is_past() {
        let alarm = Alarm::new().unwrap();
        let began = now();
        alarm.wait_until(Instant::ZERO).await;
        alarm.wait_until(began).await;
        let late = now() + Duration::from_millis(60);
        alarm.wait_until(late).await;
        assert!(now() >= late);
        // Given up and set anew, as in the loop.
        let never = alarm.wait_until(now() + Duration::from_secs(3600));
        assert!(tokio::time::timeout(Duration::from_millis(20), never).await.is_err());
        alarm.wait_until(now() + Duration::from_millis(5)).await;
        assert!(now() - began < Duration::from_secs(60));
    }
}
