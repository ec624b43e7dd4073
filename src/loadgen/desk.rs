//! What the connections of one thread share: the time, the counts, the letter they copy.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use super::letter::Letter;
use super::pace::Later;
use super::tally::Count;
use super::verify::Ledger;

/// Moments of a phase, nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    pub start: u64,
    /// What is due from here on counts.
    pub measure: u64,
    /// Nothing is due from here on; `u64::MAX` if a number of messages ends it.
    pub end: u64,
}

impl Moments {
    #[inline]
    pub fn counts(&self, due: u64) -> bool {
        due >= self.measure && due < self.end
    }
}

/// What the threads of a phase tell each other.
#[derive(Default)]
pub struct Shared {
    /// Something failed: everybody ends.
    pub stop: AtomicBool,
    /// Somebody interrupts the phase: nothing is due from this moment on. 0: nobody does.
    pub cut: AtomicU64,
    /// Threads that still send.
    pub senders: AtomicUsize,
    /// Messages the broker said it stored.
    pub stored: AtomicU64,
    /// Messages that came.
    pub arrived: AtomicU64,
}

impl Shared {
    pub fn cut(&self) -> Option<u64> {
        Some(self.cut.load(Relaxed)).filter(|cut| *cut > 0)
    }
}

pub struct Desk {
    /// Nanoseconds of the run's clock.
    pub now: u64,
    /// Wall clock at the zero of the run's clock, milliseconds since 1970.
    pub wall_zero_ms: i64,
    pub moments: Moments,
    /// By number of the part.
    pub counts: Vec<Count>,
    pub letter: Letter,
    /// When what is sent is to be delivered, if not at once.
    pub later: Option<Later>,
    pub ledger: Option<Ledger>,
    /// Marks the messages of this run.
    pub run: u32,
    /// Since the last turn.
    pub stored: u64,
    pub arrived: u64,
}

impl Desk {
    pub fn wall_ms(&self) -> i64 {
        self.wall_ms_at(self.now)
    }

    pub fn wall_ms_at(&self, moment: u64) -> i64 {
        self.wall_zero_ms + (moment / 1_000_000) as i64
    }

    /// When a message that was to be sent at this moment is to arrive.
    pub fn arrival_due(&self, sent: u64) -> u64 {
        self.later.map_or(sent, |later| later.due(sent))
    }
}
