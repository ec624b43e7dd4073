//! What is needed longer than its segment is kept: messages for a time, delayed messages and open
//! halves are stored again before their segment goes, each in one batch with a record that says
//! so. So a crash keeps both or neither, and nothing is stored again twice.
//!
//! * A message for a time goes to the end of its queue, which then begins behind the old place. Its
//!   property [`CARRIED`](names::CARRIED) keeps when it was stored first.
//! * A delayed message becomes one for a time: at the end of its level's queue it would wait for
//!   those before it. What is delivered is the same.
//! * A half is kept as it was, in a `Carried` record: its producer knows it by its old place. A
//!   `Transaction` record says where it is now.
//!
//! What is being delivered just now is waited for. Payload of `Carried`: the message.
//!
//! Not here: POP leases, which lapse with their message, as in the reference.

use crate::base::{LogOffset, Now, QueueOffset};
use crate::broker::Broker;
use crate::broker::control::names::{SCHEDULE_TOPIC, TRANS_HALF_TOPIC};
use crate::broker::handle::timer::timer_queue;
use crate::broker::timers::{HOUR_MS, Standing, Timer};
use crate::broker::transactions::{self, Transactions};
use crate::machine::{Note, Outbox};
use crate::message::encode::{Draft, encoded_len};
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::store::Store;
use crate::store::consumequeue::QueueSlot;
use crate::store::dispatch::{Dispatch, TIMER_TOPIC};
use crate::store::record::{Kind, SYSTEM_HEADER_BYTES};
use crate::store::retention::Found;

/// Layout version of `Carried`.
const VERSION: u16 = 1;
/// Where they are.
const TOPICS: &[&str] = &[TIMER_TOPIC, SCHEDULE_TOPIC, TRANS_HALF_TOPIC];
/// Messages looked at in one turn; the rest follow in the next.
const PER_TURN: usize = 64;
/// What [`CARRIED`](names::CARRIED) says of a delayed message.
pub const LEVEL: &str = "level";

/// It cannot be done now.
struct Later;

impl Broker {
    /// Looks whether segments are too old, and carries over what is needed of them.
    pub(super) fn retain(&mut self, now: Now) {
        // Before the first snapshot nobody knows what is needed.
        if self.snapshot.version == 0 {
            return self.store.look_later(now);
        }
        if let Some(cut) = self.store.retention_cut(now) {
            let topics = if self.may_need(cut) { TOPICS } else { &[] };
            self.store.begin_retention(cut, topics);
        }
        for _ in 0..PER_TURN {
            let Some(found) = self.store.next_found() else {
                return;
            };
            if self.carry(now, &found).is_err() {
                return self.store.found_stays(now, found);
            }
        }
    }

    /// Tells a person what has gone.
    pub(super) fn tell_removed<P>(&mut self, out: &mut Outbox<P>) {
        while let Some(removed) = self.store.take_removed() {
            let (shard, segments) = (self.me.0, removed.segments);
            let (from, to, last_ms) = (removed.from.0, removed.to.0, removed.last_ms);
            out.notes.push(Note::Info(format!(
                "shard {shard}: {segments} segments removed, log offsets {from} to {to}; the \
                 newest message in them was stored at {last_ms} ms since 1970"
            )));
        }
    }

    /// Whether anything below may be needed.
    fn may_need(&self, cut: LogOffset) -> bool {
        let store = &self.store;
        let first = |slot: QueueSlot| store.visible_range(slot).0;
        let is_below = |slot, from| {
            let place = store.earliest_place(slot, from);
            place.is_some_and(|at| at < cut)
        };
        let mut timers = self.timers.slots();
        let mut levels = self.delays.levels_from();
        !self.transactions.is_empty()
            || timers.any(|slot| is_below(slot, first(slot)))
            || levels.any(|(slot, from)| is_below(slot, first(slot).max(QueueOffset(from))))
    }

    fn carry(&mut self, now: Now, found: &Found) -> Result<(), Later> {
        let Ok(view) = RecordView::parse(&found.message) else {
            return Ok(());
        };
        let Ok(offset) = u64::try_from(view.queue_offset()) else {
            return Ok(());
        };
        match view.topic() {
            TIMER_TOPIC => self.carry_timer(now, &view, offset),
            SCHEDULE_TOPIC => self.carry_delayed(now, &view, offset),
            _ => self.carry_half(now, found, offset),
        }
    }

    fn carry_timer(&mut self, now: Now, view: &RecordView<'_>, offset: u64) -> Result<(), Later> {
        let hour = view.queue_id();
        let Some(slot) = self.store.queues().find(TIMER_TOPIC, hour) else {
            return Ok(());
        };
        let (min, _) = self.store.visible_range(slot);
        let due_ms = properties::find_str(view.properties(), names::TIMER_OUT_MS);
        let Some(due_ms) = due_ms.and_then(|text| text.parse().ok()) else {
            return Ok(());
        };
        match self.timers.standing(now, due_ms) {
            _ if offset < min.0 => return Ok(()),
            Standing::Delivered => return Ok(()),
            Standing::UnderWay => return Err(Later),
            Standing::Waits => {}
        }
        let mut stored = view.properties().to_vec();
        if properties::find(&stored, names::CARRIED).is_none() {
            let stored_ms = view.store_timestamp().to_string();
            properties::set(&mut stored, names::CARRIED, &stored_ms);
        }
        let copy = Draft {
            properties: &stored,
            ..Draft::of(view)
        };
        self.check_copy(&copy, Store::CARRIED_TO_BYTES)?;
        self.append_copy(now, slot, &copy, due_ms, Store::CARRIED_TO_BYTES);
        self.store.carried_to(now, slot, QueueOffset(offset + 1));
        Ok(())
    }

    fn carry_delayed(&mut self, now: Now, view: &RecordView<'_>, offset: u64) -> Result<(), Later> {
        let level = view.queue_id() as usize;
        let Some(place) = self.delays.place(level) else {
            return Ok(());
        };
        if offset < place.progress {
            return Ok(());
        }
        let due_ms = view.store_timestamp().saturating_add(place.delay_ms);
        if due_ms <= now.wall_ms || place.is_busy {
            return Err(Later);
        }
        let hour = due_ms.div_euclid(HOUR_MS);
        let mut stored = view.properties().to_vec();
        properties::set(&mut stored, names::TIMER_OUT_MS, &due_ms.to_string());
        properties::set(&mut stored, names::CARRIED, LEVEL);
        let copy = Draft {
            topic: TIMER_TOPIC,
            queue_id: i32::try_from(hour).map_err(|_| Later)?,
            properties: &stored,
            ..Draft::of(view)
        };
        let record_bytes = SYSTEM_HEADER_BYTES + self.delays.encode().len();
        self.check_copy(&copy, record_bytes)?;
        let slot = timer_queue(self, now, hour).map_err(|_| Later)?;
        self.append_copy(now, slot, &copy, due_ms, record_bytes);
        self.delays.pass(level, offset + 1);
        self.log_delays(now);
        Ok(())
    }

    /// Whether a copy and the record beside it can be stored.
    fn check_copy(&self, copy: &Draft<'_>, record_bytes: usize) -> Result<(), Later> {
        let fits = encoded_len(copy) + record_bytes <= self.store.reserve_limit();
        let fine = copy.check().is_ok() && self.store.check_append().is_ok();
        if fits && fine { Ok(()) } else { Err(Later) }
    }

    /// Stores a copy that is to be delivered at a time; the record beside it follows.
    fn append_copy(
        &mut self,
        now: Now,
        slot: QueueSlot,
        copy: &Draft<'_>,
        due_ms: i64,
        record_bytes: usize,
    ) {
        self.store.reserve(encoded_len(copy) + record_bytes);
        let dispatch = Dispatch::of(TIMER_TOPIC, copy.properties);
        let appended = self.store.append(now, slot, copy, &dispatch);
        self.timers.add(Timer {
            due_ms,
            slot,
            offset: appended.offset.0,
        });
    }

    fn carry_half(&mut self, now: Now, found: &Found, offset: u64) -> Result<(), Later> {
        let half = self.transactions.get(offset);
        if half.is_none_or(|half| half.at != found.at) {
            return Ok(());
        }
        let message = &found.message;
        let moved_bytes = Transactions::moved_payload(offset, LogOffset(0)).len();
        let bytes = 2 * SYSTEM_HEADER_BYTES + message.len() + moved_bytes;
        if bytes > self.store.reserve_limit() || self.store.check_append().is_err() {
            return Err(Later);
        }
        self.store.reserve(bytes);
        let end = self
            .store
            .append_system(now, Kind::Carried, VERSION, message)
            .map_err(|_| Later)?;
        let at = LogOffset(end.0 - message.len() as u64);
        let (payload, version) = (
            Transactions::moved_payload(offset, at),
            transactions::VERSION,
        );
        self.store
            .append_system(now, Kind::Transaction, version, &payload)
            .map_err(|_| Later)?;
        self.transactions.move_to(offset, at);
        Ok(())
    }
}
