//! A token bucket, for answers to messages that nobody authenticated.

use std::time::Duration;

use ropewalk_ike::time::Instant;

/// At most `BURST` answers at once and one per `INTERVAL` in the long run.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// When the bucket is full again.
    full_at: Instant,
}

const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_millis(100);

impl RateLimit {
    /// Whether one more is allowed now; counts it.
    pub fn allow(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + INTERVAL;
        if full_at.saturating_since(now) > INTERVAL * BURST {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_an_interval() {
        let mut limit = RateLimit::default();
        let passed = (0..50).filter(|_| limit.allow(Instant::ZERO)).count();
        assert_eq!(passed, usize::try_from(BURST).unwrap());
        let later = Instant::ZERO + INTERVAL * 3;
        assert_eq!((0..50).filter(|_| limit.allow(later)).count(), 3);
    }
}
