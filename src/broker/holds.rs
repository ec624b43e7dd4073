//! Pulls that wait for a message: parked by queue, resumed when one becomes visible that they may
//! want, or when their time is over.
//!
//! A parked pull is a small copy of its request, never the frame it came in. A connection that
//! closes is not looked up here: what is answered to it goes nowhere, and its entry ends by time.
//!
//! Source: `PullRequestHoldService`, `spec/semantics.md` §3.

use crate::base::heap::Deadlines;
use crate::base::{Map, Mono};
use crate::broker::handle::pull::Pull;
use crate::store::consumequeue::QueueSlot;

/// Pulls parked in one shard; `PullRequestHoldService` has no bound, we answer instead of parking.
pub const HOLDS_MAX: usize = 200_000;

#[derive(Default)]
pub struct Holds {
    parked: Map<QueueSlot, Vec<(u64, Pull)>>,
    deadlines: Deadlines<(QueueSlot, u64)>,
    count: usize,
    numbered: u64,
}

impl Holds {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_full(&self) -> bool {
        self.deadlines.len() >= HOLDS_MAX
    }

    /// Parks a pull until `until`.
    pub fn park(&mut self, slot: QueueSlot, pull: Pull, until: Mono) {
        self.numbered += 1;
        self.parked
            .entry(slot)
            .or_default()
            .push((self.numbered, pull));
        self.deadlines.push(until, (slot, self.numbered));
        self.count += 1;
    }

    /// Takes the pulls of a queue that `wants` says should run again.
    pub fn resume(&mut self, slot: QueueSlot, wants: impl Fn(&Pull) -> bool) -> Vec<Pull> {
        if self.count == 0 {
            return Vec::new();
        }
        let Some(parked) = self.parked.get_mut(&slot) else {
            return Vec::new();
        };
        let resumed: Vec<Pull> = parked
            .extract_if(.., |(_, pull)| wants(pull))
            .map(|(_, pull)| pull)
            .collect();
        if parked.is_empty() {
            self.parked.remove(&slot);
        }
        self.count -= resumed.len();
        resumed
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.deadlines.next()
    }

    /// Takes a pull whose time is over.
    pub fn expire(&mut self, now: Mono) -> Option<Pull> {
        while let Some((slot, number)) = self.deadlines.pop_due(now) {
            let Some(parked) = self.parked.get_mut(&slot) else {
                continue;
            };
            let Some(at) = parked.iter().position(|(n, _)| *n == number) else {
                continue;
            };
            let (_, pull) = parked.swap_remove(at);
            if parked.is_empty() {
                self.parked.remove(&slot);
            }
            self.count -= 1;
            return Some(pull);
        }
        None
    }
}
