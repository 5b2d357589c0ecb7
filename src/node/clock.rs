//! The clocks. The loop reads the monotonic one once per turn; the wall clock is for display alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A monotonic clock with a start of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// Starts at zero.
    #[allow(clippy::disallowed_methods, reason = "the one place where the monotonic clock enters")]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The moment `at` on this clock, for a timer.
    pub fn moment(&self, at: Duration) -> tokio::time::Instant {
        self.start + at
    }
}

/// Milliseconds since 1970, for display.
#[allow(clippy::disallowed_methods, reason = "the one place where the wall clock enters")]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// RFC 3339 in UTC, as the JSON has times.
pub fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
