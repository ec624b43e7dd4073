//! What is counted: per thread and kind of operation, for the whole run and second by second.
//!
//! What always holds: a message counts for the run if it was *due* while measuring, whenever its
//! answer came; so a stall at the end is not left out. In the line of a second it counts when its
//! answer came.

use std::collections::BTreeMap;

use histogram::Histogram;

use super::desk::Moments;
use super::outcome::{Latency, Part, Second};
use crate::remoting::code::response;

/// Latencies of a run are told apart to 0.4 %.
const GROUPING_POWER: u8 = 8;
/// Those of one second to 1.6 %.
const SECOND_GROUPING_POWER: u8 = 6;
/// 2^40 ns, about 18 minutes; more counts as that.
const MAX_VALUE_POWER: u8 = 40;
const LATENCY_MAX: u64 = (1 << MAX_VALUE_POWER) - 1;
/// Points of a latency curve.
const CURVE_SHARES: [f64; 20] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999,
    0.9995, 0.9999, 0.99999, 1.0,
];

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Times {
    histogram: Histogram,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Times {
    fn with_power(power: u8) -> Self {
        Times {
            histogram: Histogram::new(power, MAX_VALUE_POWER).expect("the powers are valid"),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }

    pub fn fine() -> Self {
        Times::with_power(GROUPING_POWER)
    }

    fn coarse() -> Self {
        Times::with_power(SECOND_GROUPING_POWER)
    }

    /// The same time `count` times, as the messages of one request have.
    #[inline]
    pub fn add(&mut self, nanos: u64, count: u64) {
        let nanos = nanos.min(LATENCY_MAX);
        self.histogram
            .add(nanos, count)
            .expect("it is below the limit");
        self.count += count;
        self.sum += u128::from(nanos) * u128::from(count);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    pub fn merge(&mut self, other: &Times) {
        self.histogram
            .checked_add_assign(&other.histogram)
            .expect("times of one kind have one shape");
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The time within which this share was done; 0 if there was none.
    pub fn within(&self, share: f64) -> u64 {
        let bucket = self.histogram.quantile_bucket(share).ok().flatten();
        bucket.map_or(0, |bucket| bucket.end().clamp(self.min, self.max))
    }

    pub fn latency(&self) -> Option<Latency> {
        if self.count == 0 {
            return None;
        }
        let curve = CURVE_SHARES
            .map(|share| (share, self.within(share)))
            .to_vec();
        Some(Latency {
            count: self.count,
            mean: (self.sum / u128::from(self.count)) as u64,
            min: self.min,
            p50: self.within(0.5),
            p90: self.within(0.9),
            p99: self.within(0.99),
            p999: self.within(0.999),
            p9999: self.within(0.9999),
            max: self.max,
            curve,
        })
    }
}

/// One second of one kind of operation.
#[derive(Clone, Debug)]
pub struct Lap {
    pub messages: u64,
    pub bytes: u64,
    pub failed: u64,
    pub times: Times,
}

impl Default for Lap {
    fn default() -> Self {
        Lap {
            messages: 0,
            bytes: 0,
            failed: 0,
            times: Times::coarse(),
        }
    }
}

impl Lap {
    pub fn merge(&mut self, other: &Lap) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.times.merge(&other.times);
    }

    pub fn second(&self, at: i32) -> Second {
        Second {
            at,
            messages: self.messages,
            failed: self.failed,
            p50: self.times.within(0.5),
            p99: self.times.within(0.99),
            max: self.times.max,
        }
    }
}

/// One kind of operation.
#[derive(Clone, Debug)]
pub struct Count {
    /// Due while measuring.
    pub messages: u64,
    pub requests: u64,
    /// Of the bodies.
    pub bytes: u64,
    /// Refused requests of the whole run, by code.
    pub failures: BTreeMap<i32, u64>,
    /// What the first refusal said.
    pub remark: Option<String>,
    pub times: Times,
    /// Answered while measuring, whenever due: what a rate is made of.
    pub inside: u64,
    /// When the last answer came, nanoseconds of the run's clock.
    pub last: u64,
    /// Pulled messages whose queue offset did not follow the one before.
    pub gaps: u64,
    /// All messages of the run, warm-up included.
    pub ever: u64,
    pub lap: Lap,
}

impl Default for Count {
    fn default() -> Self {
        Count {
            messages: 0,
            requests: 0,
            bytes: 0,
            failures: BTreeMap::new(),
            remark: None,
            times: Times::fine(),
            inside: 0,
            last: 0,
            gaps: 0,
            ever: 0,
            lap: Lap::default(),
        }
    }
}

impl Count {
    /// A request that did its work at a moment of these. `counts`: it was due while measuring.
    #[inline]
    pub fn done(&mut self, moments: Moments, now: u64, counts: bool, messages: u64, bytes: u64) {
        self.ever += messages;
        self.last = self.last.max(now);
        if moments.counts(now) {
            self.inside += messages;
        }
        self.lap.messages += messages;
        self.lap.bytes += bytes;
        if counts {
            self.messages += messages;
            self.requests += 1;
            self.bytes += bytes;
        }
    }

    #[inline]
    pub fn took(&mut self, counts: bool, nanos: u64, messages: u64) {
        self.lap.times.add(nanos, messages);
        if counts {
            self.times.add(nanos, messages);
        }
    }

    pub fn refused(&mut self, code: i32, remark: Option<String>) {
        *self.failures.entry(code).or_default() += 1;
        self.lap.failed += 1;
        if self.remark.is_none() {
            self.remark = Some(format!("{}: {}", named(code), remark.unwrap_or_default()));
        }
    }

    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub fn merge(&mut self, other: &Count) {
        self.messages += other.messages;
        self.requests += other.requests;
        self.bytes += other.bytes;
        for (code, count) in &other.failures {
            *self.failures.entry(*code).or_default() += count;
        }
        if self.remark.is_none() {
            self.remark.clone_from(&other.remark);
        }
        self.times.merge(&other.times);
        self.inside += other.inside;
        self.last = self.last.max(other.last);
        self.gaps += other.gaps;
        self.ever += other.ever;
    }

    /// `seconds`: how long it was measured.
    pub fn part(&self, name: &str, seconds: f64, timeline: Vec<Second>) -> Part {
        let rate = if seconds > 0.0 {
            self.inside as f64 / seconds
        } else {
            0.0
        };
        let failures = self
            .failures
            .iter()
            .map(|(code, count)| (named(*code), *count));
        Part {
            name: name.to_owned(),
            messages: self.messages,
            requests: self.requests,
            bytes: self.bytes,
            seconds,
            messages_per_second: rate,
            failures: failures.collect(),
            latency: self.times.latency(),
            timeline,
        }
    }
}

/// As `SYSTEM_BUSY 2`.
pub fn named(code: i32) -> String {
    format!("{} {code}", response::name(code).unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart() {
        let mut times = Times::fine();
        assert!(times.latency().is_none());
        (1..=10_000).for_each(|n| times.add(n * 1000, 1));
        let latency = times.latency().unwrap();
        for (got, expected) in [
            (latency.p50, 5_000_000.0),
            (latency.p99, 9_900_000.0),
            (latency.p999, 9_990_000.0),
            (latency.mean, 5_000_500.0),
        ] {
            assert!(
                (got as f64 / expected - 1.0).abs() < 0.005,
                "{got} for {expected}"
            );
        }
        assert_eq!((latency.min, latency.max), (1000, 10_000_000));
        assert_eq!(latency.curve.last(), Some(&(1.0, 10_000_000)));
        assert!(latency.curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        times.add(u64::MAX, 1);
        assert_eq!(times.latency().unwrap().max, LATENCY_MAX);
    }

    #[test]
    fn only_what_was_due_counts() {
        let mut count = Count::default();
        let moments = Moments {
            start: 0,
            measure: 6,
            end: 10,
        };
        count.done(moments, 5, false, 1, 10);
        count.took(false, 1_000_000, 1);
        count.done(moments, 7, true, 2, 20);
        count.took(true, 10, 2);
        count.refused(2, Some("not now".to_owned()));
        let mut whole = Count::default();
        whole.merge(&count);
        let part = whole.part("send", 2.0, vec![count.lap.second(0)]);
        assert_eq!((part.messages, part.bytes, part.requests), (2, 20, 1));
        assert_eq!(part.messages_per_second, 1.0);
        assert_eq!(part.latency.unwrap().max, 10);
        assert_eq!(
            part.failures,
            BTreeMap::from([("SYSTEM_BUSY 2".to_owned(), 1)])
        );
        assert_eq!((part.timeline[0].messages, part.timeline[0].failed), (3, 1));
        assert_eq!(part.timeline[0].max, 1_000_000);
        assert_eq!(whole.remark.as_deref(), Some("SYSTEM_BUSY 2: not now"));
    }
}
