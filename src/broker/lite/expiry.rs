//! Lite topics that nobody sends to any more: each is looked at now and then, and dropped when its
//! last message is older than the topic's `lite.topic.expiration`, but never before
//! [`KEPT_MS`]. Whether all of it was consumed does not matter, as in the reference.
//!
//! Source: `AbstractLiteLifecycleManager.isLiteTopicExpired`; spec page delta-5.5 §5.

use crate::base::heap::Deadlines;
use crate::base::{Map, Mono, Now};
use crate::broker::Broker;
use crate::broker::handle::Parked;
use crate::broker::light::lite_parts;
use crate::broker::lite::rules::expiration_minutes;
use crate::broker::survey::time_of;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;

/// A lite topic lives this long after its last message at least (`minLiteTTl`), and is looked at
/// this often at least, for an operator may change how long it is kept.
pub const KEPT_MS: i64 = 900_000;

/// The light queues of lite topics of a shard, each with one entry in the heap.
#[derive(Default)]
pub struct Expiries {
    known: Map<QueueSlot, u64>,
    due: Deadlines<(QueueSlot, u64)>,
    noted: u64,
}

impl Expiries {
    pub fn note(&mut self, now: Now, slot: QueueSlot) {
        if !self.known.contains_key(&slot) {
            self.look_again(now, slot, KEPT_MS);
        }
    }

    fn look_again(&mut self, now: Now, slot: QueueSlot, in_ms: i64) {
        self.noted += 1;
        self.known.insert(slot, self.noted);
        let at = now.mono.after_ms(in_ms.clamp(1, KEPT_MS) as u64);
        self.due.push(at, (slot, self.noted));
        let known = &self.known;
        self.due
            .prune(known.len(), |(slot, entry)| known.get(slot) == Some(entry));
    }

    pub fn drop_queue(&mut self, slot: QueueSlot) {
        self.known.remove(&slot);
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.due.next()
    }

    fn pop_due(&mut self, now: Now) -> Option<QueueSlot> {
        while let Some((slot, entry)) = self.due.pop_due(now.mono) {
            if self.known.get(&slot) == Some(&entry) {
                return Some(slot);
            }
        }
        None
    }
}

impl Broker {
    /// Looks at the lite topics whose time may be over.
    pub(in crate::broker) fn expire_lite_topics(&mut self, now: Now) {
        while let Some(slot) = self.expiries.pop_due(now) {
            self.expire_lite_topic(now, slot);
        }
    }

    pub(in crate::broker) fn expire_lite_topic(&mut self, now: Now, slot: QueueSlot) {
        let Some(queue) = self.store.queues().queue(slot) else {
            return;
        };
        let name = queue.topic.clone();
        let parent = lite_parts(&name).and_then(|(parent, _)| self.snapshot.topics.get(parent));
        let minutes = parent.map_or(-1, |parent| expiration_minutes(parent));
        if minutes <= 0 {
            return self.expiries.look_again(now, slot, KEPT_MS);
        }
        let (min, max) = self.store.visible_range(slot);
        if self.store.queue_end(slot) > max {
            // Somebody sends just now, and is told that it is stored.
            return self.expiries.look_again(now, slot, KEPT_MS);
        }
        let last = max.0.checked_sub(1).filter(|last| *last >= min.0);
        let waiter = self.next_waiter();
        let Some(last_ms) = time_of(self, Some(slot), last, WaiterId(waiter)) else {
            self.parked.insert(waiter, Parked::LiteExpiry(slot));
            return;
        };
        let left_ms = last_ms.saturating_add(KEPT_MS.max(minutes * 60_000)) - now.wall_ms;
        if left_ms > 0 || self.store.check_append().is_err() {
            return self.expiries.look_again(now, slot, left_ms);
        }
        self.drop_light(now, &name);
    }

    /// The disk did not tell its last message's time.
    pub(in crate::broker) fn expiry_unread(&mut self, now: Now, slot: QueueSlot) {
        self.expiries.look_again(now, slot, KEPT_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_is_looked_at_once() {
        let at = |ms| Now {
            mono: Mono(ms),
            wall_ms: ms as i64,
        };
        let kept = KEPT_MS as u64;
        let mut expiries = Expiries::default();
        expiries.note(at(0), QueueSlot(1));
        expiries.note(at(5), QueueSlot(1));
        expiries.note(at(5), QueueSlot(2));
        assert_eq!(expiries.deadline(), Some(Mono(kept)));
        assert_eq!(expiries.pop_due(at(kept - 1)), None);
        expiries.drop_queue(QueueSlot(1));
        // The slot is another queue's now.
        expiries.note(at(9), QueueSlot(1));
        assert_eq!(expiries.pop_due(at(kept)), None);
        assert_eq!(expiries.pop_due(at(kept + 5)), Some(QueueSlot(2)));
        assert_eq!(expiries.pop_due(at(kept + 9)), Some(QueueSlot(1)));
        expiries.look_again(at(kept + 9), QueueSlot(1), -7);
        assert_eq!(expiries.pop_due(at(kept + 9)), None);
        assert_eq!(expiries.pop_due(at(kept + 10)), Some(QueueSlot(1)));
        assert_eq!(expiries.deadline(), None);
    }
}
