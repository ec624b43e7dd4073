//! What one shard counted since its start. Plain integers; rates come from samples that the tick
//! takes.

use crate::base::{Mono, Now};
use std::collections::VecDeque;

/// A sample is taken this often, and kept for the longest average.
const SAMPLE_MS: u64 = 10_000;
const SAMPLES_MAX: usize = 61;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub put_messages: u64,
    pub put_bytes: u64,
    pub got_messages: u64,
    pub got_bytes: u64,
    /// Pulls that found something, and that did not.
    pub pulls_found: u64,
    pub pulls_missed: u64,
}

pub struct Stats {
    pub totals: Totals,
    /// Frames that closed their connection.
    pub bad_frames: u64,
    /// Reads that met damaged bytes.
    pub damaged_reads: u64,
    /// Delayed messages that could not be delivered to their topic.
    pub undeliverable: u64,
    started: Now,
    samples: VecDeque<(Mono, Totals)>,
}

impl Stats {
    pub fn new(now: Now) -> Stats {
        Stats {
            totals: Totals::default(),
            bad_frames: 0,
            damaged_reads: 0,
            undeliverable: 0,
            started: now,
            samples: VecDeque::from([(now.mono, Totals::default())]),
        }
    }

    /// When the shard was opened, ms since 1970.
    pub fn started_ms(&self) -> i64 {
        self.started.wall_ms
    }

    pub fn uptime_ms(&self, now: Now) -> u64 {
        now.mono.since_ms(self.started.mono)
    }

    pub fn put(&mut self, messages: usize, body_bytes: usize) {
        self.totals.put_messages += messages as u64;
        self.totals.put_bytes += body_bytes as u64;
    }

    pub fn got(&mut self, messages: usize, bytes: usize) {
        self.totals.got_messages += messages as u64;
        self.totals.got_bytes += bytes as u64;
        match messages {
            0 => self.totals.pulls_missed += 1,
            _ => self.totals.pulls_found += 1,
        }
    }

    /// Takes a sample if one is due.
    pub fn sample(&mut self, now: Now) {
        let due = self
            .samples
            .back()
            .is_none_or(|(at, _)| now.mono.since_ms(*at) >= SAMPLE_MS);
        if due {
            self.samples.push_back((now.mono, self.totals));
            if self.samples.len() > SAMPLES_MAX {
                self.samples.pop_front();
            }
        }
    }

    /// Averages per second over about the last 10 s, 60 s and 600 s.
    pub fn rates(&self, now: Now, of: impl Fn(&Totals) -> u64) -> [f64; 3] {
        [10_000, 60_000, 600_000].map(|ms| {
            let since = now.mono.0.saturating_sub(ms);
            let from = self.samples.iter().rev().find(|(at, _)| at.0 <= since);
            let Some((at, totals)) = from.or(self.samples.front()) else {
                return 0.0;
            };
            let seconds = now.mono.since_ms(*at).max(1000) as f64 / 1000.0;
            (of(&self.totals) - of(totals)) as f64 / seconds
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_their_time() {
        let at = |ms| Now {
            mono: Mono(ms),
            wall_ms: 0,
        };
        let mut stats = Stats::new(at(0));
        stats.put(100, 0);
        stats.sample(at(10_000));
        stats.put(300, 0);
        let rates = stats.rates(at(20_000), |totals| totals.put_messages);
        assert_eq!(rates[0], 30.0);
        assert_eq!(rates[1], 20.0);
    }
}
