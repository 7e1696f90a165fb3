//! Whether the machine had a turn for everybody: what is measured while it has not says nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Between two turns.
const TURN: Duration = Duration::from_millis(5);

/// A thread that wants a turn again and again, and notes how long it had to wait for one. It ends when dropped.
#[derive(Debug)]
pub struct Standstill {
    stop: Arc<AtomicBool>,
    /// Microseconds.
    longest: Arc<AtomicU64>,
}

impl Standstill {
    /// Begins to watch.
    #[must_use]
    pub fn watch() -> Self {
        let watch = Self { stop: Arc::default(), longest: Arc::default() };
        let (stop, longest) = (Arc::clone(&watch.stop), Arc::clone(&watch.longest));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                thread::sleep(TURN);
                let late = began.elapsed().saturating_sub(TURN);
                longest.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        watch
    }

    /// The longest that it waited so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
