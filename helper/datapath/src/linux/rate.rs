//! Bounds how often something that a stranger can provoke is said.

/// A bucket of tokens that fills with time, given in nanoseconds.
#[derive(Debug)]
pub(super) struct RateLimit {
    tokens: u64,
    burst: u64,
    interval: u64,
    last: u64,
}

impl RateLimit {
    /// `burst` at once, then `per_second`.
    pub(super) const fn new(burst: u64, per_second: u64) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Self { tokens: burst, burst, interval: 1_000_000_000 / per_second, last: 0 }
    }

    /// Whether one more may be said at `now`.
    pub(super) const fn allows(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.last) / self.interval;
        if earned > 0 {
            let tokens = self.tokens.saturating_add(earned);
            self.tokens = if tokens > self.burst { self.burst } else { tokens };
            self.last = now;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_so_many_a_second() {
        let mut limit = RateLimit::new(3, 10);
        let second = 1_000_000_000;
        assert_eq!((0..10).filter(|_| limit.allows(second)).count(), 3);
        assert!(!limit.allows(second + second / 20));
        assert!(limit.allows(second + second / 10));
        assert_eq!((0..100).filter(|i| limit.allows(2 * second + i * second / 100)).count(), 12);
    }
}
