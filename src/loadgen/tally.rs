//! What a worker counts, and how the counts of all become one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use histogram::Histogram;

use crate::remoting::code::response;

/// Latencies are told apart to 0.8 %.
const GROUPING_POWER: u8 = 7;
/// 2^40 ns, about 18 minutes; more counts as that.
const MAX_VALUE_POWER: u8 = 40;

/// Progress of all workers, for the line per second.
#[derive(Default)]
pub struct Live {
    messages: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

impl Live {
    pub fn add(&self, messages: u64, bytes: u64, failed: u64) {
        self.messages.fetch_add(messages, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.failed.fetch_add(failed, Relaxed);
    }

    /// Messages, body bytes, failed requests.
    pub fn read(&self) -> (u64, u64, u64) {
        (
            self.messages.load(Relaxed),
            self.bytes.load(Relaxed),
            self.failed.load(Relaxed),
        )
    }
}

/// Counts of one worker, or of all.
pub struct Tally {
    /// Messages stored or received while measuring.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Of requests that did their work, nanoseconds.
    pub latency: Histogram,
    /// All answers of the run by code.
    pub codes: BTreeMap<i32, u64>,
    pub failed: u64,
    /// What the first refusal said.
    pub remark: Option<String>,
    /// Pulled messages whose queue offset did not follow the one before.
    pub gaps: u64,
    /// From the first to the last message that counts, nanoseconds of the run's clock.
    pub span: Option<(u64, u64)>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new(GROUPING_POWER, MAX_VALUE_POWER);
        Tally {
            messages: 0,
            bytes: 0,
            latency: latency.expect("the powers above are valid"),
            codes: BTreeMap::new(),
            failed: 0,
            remark: None,
            gaps: 0,
            span: None,
        }
    }
}

impl Tally {
    /// An answer that did its work, measured.
    pub fn done(&mut self, now: u64, latency_ns: u64, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
        let limit = (1 << MAX_VALUE_POWER) - 1;
        self.latency
            .increment(latency_ns.min(limit))
            .expect("it is below the limit");
        let (first, _) = *self.span.get_or_insert((now, now));
        self.span = Some((first, now));
    }

    pub fn code(&mut self, code: i32) {
        *self.codes.entry(code).or_default() += 1;
    }

    pub fn refused(&mut self, code: i32, remark: Option<String>) {
        self.failed += 1;
        if self.remark.is_none() {
            let name = response::name(code).unwrap_or("unknown");
            self.remark = Some(format!("{name} {code}: {}", remark.unwrap_or_default()));
        }
    }

    pub fn merge(&mut self, other: &Tally) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.latency
            .checked_add_assign(&other.latency)
            .expect("all have the same shape");
        for (code, count) in &other.codes {
            *self.codes.entry(*code).or_default() += count;
        }
        self.failed += other.failed;
        self.gaps += other.gaps;
        if self.remark.is_none() {
            self.remark.clone_from(&other.remark);
        }
        self.span = match (self.span, other.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, theirs) => mine.or(theirs),
        };
    }

    /// Seconds from the first to the last message that counts.
    pub fn seconds(&self) -> f64 {
        self.span
            .map_or(0.0, |(first, last)| (last - first) as f64 / 1e9)
    }

    /// Messages per second.
    pub fn rate(&self) -> f64 {
        if self.seconds() > 0.0 {
            self.messages as f64 / self.seconds()
        } else {
            0.0
        }
    }

    /// Nanoseconds within which this share of the requests was answered; 0 if there were none.
    pub fn quantile(&self, share: f64) -> u64 {
        let bucket = self.latency.quantile_bucket(share);
        bucket.ok().flatten().map_or(0, |bucket| bucket.end())
    }

    /// # Errors
    /// Requests were refused, messages are missing, or there was none.
    pub fn verdict(&self) -> Result<(), String> {
        let answers: u64 = self.codes.values().sum();
        if let Some(remark) = &self.remark {
            let failed = self.failed;
            return Err(format!(
                "{failed} of {answers} requests were refused, first with {remark}"
            ));
        }
        if self.gaps > 0 {
            return Err(format!(
                "{} times a queue offset did not follow its predecessor",
                self.gaps
            ));
        }
        if self.messages == 0 {
            return Err("no message was sent or received while measuring".to_owned());
        }
        Ok(())
    }
}
