//! Messages that were popped and not acknowledged in time: each is stored again in the group's pop
//! retry topic, where the group's next pops find it.
//!
//! Source: `PopReviveService.reviveRetry`; `spec/semantics.md` §8.

use crate::base::{Now, QueueOffset};
use crate::broker::control::names::{RETRY_PREFIX, pop_retry_topics};
use crate::broker::handle::Parked;
use crate::broker::leases::{Due, Lapsed};
use crate::broker::puts::{OwnedMessage, Purpose};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::Draft;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;

/// Messages looked at in one turn; the rest follow in the next.
const PER_TURN: usize = 256;

impl Broker {
    /// Stores again what lapsed, and tells pops in order of queues that are free.
    pub(in crate::broker) fn revive(&mut self, now: Now, out: &mut Outbox<Peer>) {
        for _ in 0..PER_TURN {
            match self.leases.pop_due(now) {
                Some(Due::Lapsed(lapsed)) => run(self, now, lapsed, out),
                Some(Due::Free { group, slot }) => {
                    let queue = self.store.queues().queue(slot);
                    let place = queue.map(|queue| (queue.topic.clone(), queue.queue_id));
                    if let Some((topic, queue_id)) = place {
                        self.tell_interested(&topic, Some(&group), queue_id, out);
                        self.lites.raise(now, &group, slot);
                    }
                }
                None => break,
            }
        }
        self.log_leases(now);
    }
}

/// Stores one message again, or waits for its bytes.
pub fn run(broker: &mut Broker, now: Now, lapsed: Lapsed, out: &mut Outbox<Peer>) {
    if broker.store.check_append().is_err() {
        return broker.leases.revived(now, lapsed, false);
    }
    let waiter = broker.next_waiter();
    let (slot, offset) = (lapsed.slot, QueueOffset(lapsed.offset));
    let entry = match broker.store.entry(slot, offset, WaiterId(waiter)) {
        Fetch::Ready(entry) => entry,
        other => return stalled(broker, now, lapsed, waiter, &other.map(|_| ())),
    };
    let record = match broker.store.record(&entry, WaiterId(waiter)) {
        Fetch::Ready(record) => record,
        other => return stalled(broker, now, lapsed, waiter, &other.map(|_| ())),
    };
    match message(&lapsed, &record) {
        Some(message) => {
            let purpose = Purpose::Revive { lapsed };
            broker.request_put(now, message, 1, purpose, out);
        }
        None => {
            broker.stats.undeliverable += 1;
            broker.leases.revived(now, lapsed, true);
        }
    }
}

fn stalled(broker: &mut Broker, now: Now, lapsed: Lapsed, waiter: u64, why: &Fetch<()>) {
    match why {
        Fetch::Wait => drop(broker.parked.insert(waiter, Parked::Lapsed(lapsed))),
        Fetch::Busy => broker.leases.revived(now, lapsed, false),
        // It is gone: too old, or damaged. Counted, and passed over.
        _ => {
            broker.stats.undeliverable += 1;
            broker.leases.revived(now, lapsed, true);
        }
    }
}

/// The disk did not give it: it may the next time.
pub fn unread(broker: &mut Broker, now: Now, lapsed: Lapsed) {
    broker.stats.damaged_reads += 1;
    broker.leases.unread(now, &lapsed);
}

/// The message as it is popped again.
fn message(lapsed: &Lapsed, record: &[u8]) -> Option<OwnedMessage> {
    let view = RecordView::parse(record).ok()?;
    let [_, earlier] = pop_retry_topics(view.topic(), &lapsed.group);
    let topic = match view.topic().starts_with(RETRY_PREFIX) {
        true => view.topic().to_owned(),
        // `enableRetryTopicV2` is false in the reference.
        false => earlier,
    };
    let mut stored = view.properties().to_vec();
    if view.reconsume_times() == 0 || properties::find(&stored, names::FIRST_POP_TIME).is_none() {
        properties::set(
            &mut stored,
            names::FIRST_POP_TIME,
            &lapsed.pop_ms.to_string(),
        );
    }
    properties::set(&mut stored, names::ORIGIN_GROUP, &lapsed.group);
    let tried = i32::from(!lapsed.suspended);
    Some(OwnedMessage::of(&Draft {
        topic: &topic,
        queue_id: 0,
        reconsume_times: view.reconsume_times().saturating_add(tried),
        prepared_transaction_offset: 0,
        properties: &stored,
        ..Draft::of(&view)
    }))
}
