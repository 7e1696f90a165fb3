//! By which way each flow went last, so that a flow changes its way only when nothing of it can be overtaken.
//!
//! What leaves by one way and is followed by a packet that leaves by a shorter one may be overtaken by it. So a flow goes on by
//! the way that it went, whatever the shares say by now, until that way is gone or the flow has paused for longer than the
//! ways differ. What counts as a pause is the time since its last packet was *handed to the system*: one that still waits
//! here, because the thread has no turn or the system takes no more, is sent yet.

use std::hash::RandomState;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ropewalk_paths::PathId;

/// Flows fall into so many buckets, and each bucket to one way, so that a packet's way is found by one look. With 1024 the
/// ways get their weights within some percent.
pub(super) const BUCKETS: usize = 1024;

/// From the first packet that is sealed until all are sent it takes no longer than this, unless the thread has no turn or the
/// system is slow to take them. What it takes more is no pause of any flow.
const CYCLE: u64 = 5_000_000;

/// When a bucket went last, and by which way. The sending thread alone writes and reads it.
#[derive(Debug, Default)]
pub(super) struct Went {
    at: AtomicU64,
    way: AtomicU32,
}

impl Went {
    pub(super) fn get(&self) -> (u64, PathId) {
        (self.at.load(Ordering::Relaxed), PathId(self.way.load(Ordering::Relaxed)))
    }

    pub(super) fn set(&self, at: u64, way: PathId) {
        self.at.store(at, Ordering::Relaxed);
        self.way.store(way.0, Ordering::Relaxed);
    }
}

/// What is remembered of the flows to one destination.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) keys: RandomState,
    /// All of them, while they were not spread.
    pub(super) unspread: Went,
    /// Each bucket; there from the first time on that they are spread.
    buckets: OnceLock<Box<[Went]>>,
}

impl Memory {
    /// They are going to be spread.
    pub(super) fn prepare(&self) {
        self.buckets.get_or_init(|| std::iter::repeat_with(Went::default).take(BUCKETS).collect());
    }

    pub(super) fn of(&self, bucket: usize) -> Option<&Went> {
        self.buckets.get()?.get(bucket)
    }
}

/// The sending thread's time, which stands still while packets that were sealed wait for longer than they should.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When what waits here now began to gather; `None` while nothing does.
    began: Option<u64>,
    stalled: u64,
    now: u64,
}

impl Clock {
    /// A packet is about to be sealed. The time stays the same until all are sent.
    pub(super) fn gather(&mut self, now: impl FnOnce() -> u64) {
        if self.began.is_none() {
            let began = now();
            self.began = Some(began);
            self.now = began.saturating_sub(self.stalled);
        }
    }

    /// All that was sealed has been sent.
    pub(super) fn sent(&mut self, now: impl FnOnce() -> u64) {
        if let Some(began) = self.began.take() {
            self.stalled += now().saturating_sub(began).saturating_sub(CYCLE);
        }
    }

    /// Nanoseconds since some time.
    pub(super) const fn now(&self) -> u64 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn time_that_packets_wait_here_is_no_pause() {
        let mut clock = Clock::default();
        clock.gather(|| 1_000 * MS);
        clock.gather(|| unreachable!("one look at the clock is enough for what is sent together"));
        // The system takes no more for a while.
        clock.sent(|| 1_300 * MS);
        clock.gather(|| 1_301 * MS);
        assert_eq!(clock.now(), 1_006 * MS, "5 ms are a usual turn, 295 ms are not");
        clock.sent(|| 1_302 * MS);
        // Nothing waits here: that is a pause.
        clock.gather(|| 2_302 * MS);
        assert_eq!(clock.now(), 2_007 * MS);
    }

    #[test]
    fn buckets_are_made_when_they_are_wanted_and_stay() {
        let memory = Memory::default();
        assert!(memory.of(3).is_none());
        memory.prepare();
        memory.of(3).unwrap().set(7, PathId(2));
        memory.prepare();
        assert_eq!(memory.of(3).unwrap().get(), (7, PathId(2)));
        assert!(memory.of(BUCKETS).is_none());
    }
}
