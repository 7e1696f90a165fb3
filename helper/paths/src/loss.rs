//! How much of the data is lost, each way: by what a sender has counted and what has arrived of it.

use std::time::Duration;

use ropewalk_ike::time::Instant;

/// So many packets over so long make a sample: what is lost by chance then differs by a few percent at most, and a burst that a
/// short queue did not hold does not count for more than it is.
const SAMPLE: u64 = 128;
const SHORTEST: Duration = Duration::from_secs(1);
/// A flow too slow for that makes one after this, of so many packets at least.
const LONGEST: Duration = Duration::from_secs(5);
const LEAST: u64 = 16;
/// A sample that is older says nothing about the path now.
const FRESH: Duration = Duration::from_secs(15);

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the gateway.
    In,
    /// To the gateway.
    Out,
}

/// The loss of both ways.
#[derive(Clone, Debug, Default)]
pub(crate) struct DataLoss {
    inbound: OneWay,
    outbound: OneWay,
}

#[derive(Clone, Debug, Default)]
struct OneWay {
    arrived: u64,
    lost: u64,
    since: Option<Instant>,
    rate: Option<(f64, Instant)>,
}

impl DataLoss {
    /// So many packets have arrived, and so many have not.
    pub(crate) fn count(&mut self, now: Instant, direction: Direction, arrived: u64, lost: u64) {
        match direction {
            Direction::In => self.inbound.count(now, arrived, lost),
            Direction::Out => self.outbound.count(now, arrived, lost),
        }
    }

    /// The share that is lost one way, 0 to 1; `None` while few data go that way.
    pub(crate) fn rate(&self, direction: Direction) -> Option<f64> {
        let way = match direction {
            Direction::In => &self.inbound,
            Direction::Out => &self.outbound,
        };
        way.rate.map(|(rate, _)| rate)
    }

    /// What is too old is forgotten.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        for way in [&mut self.inbound, &mut self.outbound] {
            way.rate = way.rate.filter(|(_, at)| now <= *at + FRESH);
        }
    }
}

impl OneWay {
    fn count(&mut self, now: Instant, arrived: u64, lost: u64) {
        self.arrived += arrived;
        self.lost += lost;
        let total = self.arrived + self.lost;
        if total == 0 {
            return;
        }
        let since = *self.since.get_or_insert(now);
        let slow = now >= since + LONGEST && total >= LEAST;
        let whole = now >= since + SHORTEST && total >= SAMPLE;
        if !whole && !slow {
            return;
        }
        #[allow(clippy::cast_precision_loss)]
        let sample = self.lost as f64 / total as f64;
        let rate = self.rate.map_or(sample, |(rate, _)| f64::midpoint(rate, sample));
        *self = Self { rate: Some((rate, now)), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_rate_is_that_of_enough_packets_and_of_its_own_direction() {
        let mut loss = DataLoss::default();
        loss.count(at(1), Direction::In, 90, 10);
        assert_eq!(loss.rate(Direction::In), None, "too few");
        loss.count(at(1), Direction::In, 90, 10);
        assert_eq!(loss.rate(Direction::In), None, "too short");
        loss.count(at(2), Direction::In, 90, 10);
        assert_eq!(loss.rate(Direction::In), Some(0.1));
        assert_eq!(loss.rate(Direction::Out), None);
        loss.count(at(3), Direction::In, 70, 130);
        loss.count(at(4), Direction::In, 0, 0);
        let rate = loss.rate(Direction::In).unwrap();
        assert!((rate - 0.375).abs() < 1e-9, "the older half counts less and less: {rate}");
    }

    #[test]
    fn a_slow_flow_is_waited_for_and_old_samples_are_forgotten() {
        let mut loss = DataLoss::default();
        for second in 0..=5 {
            loss.count(at(second), Direction::Out, 3, 1);
        }
        assert_eq!(loss.rate(Direction::Out), Some(0.25));
        loss.forget_old(at(20));
        assert!(loss.rate(Direction::Out).is_some());
        loss.forget_old(at(21));
        assert_eq!(loss.rate(Direction::Out), None);
    }
}
