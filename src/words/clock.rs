//! Time is passed in: the store reads it only through [`Clock`].
//!
//! Two clocks: the wall clock says when (it may jump either way), the monotonic one says how long.
//! Order never depends on either; LSNs order.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::words::id::Timestamp;

/// Where the store takes its time from. Tests pass one that they move by hand.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment of this process; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
        };
        Timestamp(micros)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
