//! Logs: to stderr (journald under systemd), and the last lines in memory for `ropewalk report`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

/// Lines kept in memory: at INFO many days, at DEBUG the last attempt or two; below a megabyte.
const KEPT_LINES: usize = 2000;

/// A longer line is cut; nothing that is worth reading is that long.
const MAX_LINE: usize = 500;

/// The last lines of the log; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogRing {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl LogRing {
    /// A copy of what is kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, text: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines().filter(|line| !line.is_empty()) {
            if lines.len() >= KEPT_LINES {
                lines.pop_front();
            }
            lines.push_back(line.chars().take(MAX_LINE).collect());
        }
    }
}

/// One line in the making.
#[derive(Debug)]
pub struct RingWriter {
    ring: LogRing,
    line: Vec<u8>,
}

impl io::Write for RingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        self.ring.push(&String::from_utf8_lossy(&self.line));
    }
}

impl<'a> MakeWriter<'a> for LogRing {
    type Writer = RingWriter;

    fn make_writer(&'a self) -> Self::Writer {
        RingWriter { ring: self.clone(), line: Vec::new() }
    }
}

/// Starts logging with this filter, e.g. `info` or `ropewalk_session=debug`.
///
/// # Errors
/// The filter cannot be understood, or logging was started before.
pub fn start(filter: &str) -> anyhow::Result<LogRing> {
    let ring = LogRing::default();
    // journald adds the time itself.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let stderr = tracing_subscriber::fmt::layer().with_ansi(false).with_target(true).with_writer(io::stderr);
    let stderr = if under_systemd { stderr.without_time().boxed() } else { stderr.boxed() };
    let memory = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(ring.clone());
    tracing_subscriber::registry().with(EnvFilter::try_new(filter)?).with(stderr).with(memory).try_init()?;
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_lines() {
        let ring = LogRing::default();
        for number in 0..KEPT_LINES + 5 {
            ring.push(&format!("line {number}\n"));
        }
        let lines = ring.lines();
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!(lines.first().unwrap(), "line 5");
    }
}
