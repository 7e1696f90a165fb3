//! How long to wait before the next try: doubling, bounded, with jitter so that a restarted gateway is not met by all
//! its clients at once.

use std::time::Duration;

use rand_core::CryptoRng;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// The waits between tries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: the doubled base, less up to a quarter of it.
    pub fn next(&mut self, rng: &mut dyn CryptoRng) -> Duration {
        let base =
            FIRST.saturating_mul(1_u32.checked_shl(self.tries.min(16)).unwrap_or(u32::MAX)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        base - base.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX) / 4.0)
    }

    /// Back to the first wait.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn waits_double_stay_bounded_and_never_lose_more_than_a_quarter() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        for base in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let wait = backoff.next(&mut rng).as_millis();
            assert!((base * 3 / 4 - 1..=base).contains(&wait), "{wait} for a base of {base}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FIRST);
    }
}
