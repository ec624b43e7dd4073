//! The only reader of clocks. One [`Clock`] is made at start and copied to every executor, so that
//! all shards share one zero.

use crate::base::{Mono, Now};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Clock {
            start: Instant::now(),
        }
    }

    /// Nanoseconds since the start, for measuring short stretches.
    pub fn nanos(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Read once per turn.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            mono: Mono(self.start.elapsed().as_millis() as u64),
            wall_ms: wall.map_or(0, |since| since.as_millis() as i64),
        }
    }
}
