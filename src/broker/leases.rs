//! Leases: messages that pops have handed out and nobody has acknowledged yet.
//!
//! A lease is exact: it is one message of one queue, for one group, from one pop (its pop time),
//! until one time. An acknowledgement that names another pop time touches nothing. What is not
//! acknowledged in time lapses and is stored again in the group's pop retry topic
//! (`handle::revive`); then the lease is over. Nothing is scanned: replay rebuilds the table, and a
//! heap says what lapses next.
//!
//! A queue that is popped in order has one [`Held`] batch instead: the queue is blocked for the
//! group until all of it is acknowledged or visible again.
//!
//! `Lease` payload, big-endian: count u32, then for each a tag u8, slot u32, group (u16 length,
//! UTF-8), then for
//!
//! | tag | what | fields |
//! |---|---|---|
//! | 1 | granted | pop time i64, until i64 (wall ms), suspended u8, count u16, offsets u64 |
//! | 2 | over | count u16, offsets u64 |
//! | 3 | none left, in this queue or (slot 2^32 - 1) in all of the group | |
//! | 4 | held in order | a [`Held`] |
//!
//! Source of the behaviour: `PopMessageProcessor`, `PopReviveService`, `QueueLevelConsumerManager`;
//! `spec/semantics.md` §8.

use crate::base::cursor::{Cursor, put_text};
use crate::base::heap::Deadlines;
use crate::base::pages::Pages;
use crate::base::{Map, Mono, Now};
use crate::broker::held::{Held, Ordered};
use crate::store::consumequeue::QueueSlot;
use crate::store::queues::QueueRecord;
use crate::store::record::{Kind, put_system};
use std::collections::VecDeque;
use std::sync::Arc;

pub const VERSION: u16 = 1;
/// Leases one shard keeps; about 20 bytes each.
pub const LEASES_MAX: usize = 4_000_000;
/// Messages one pop takes at most (`PopMessageProcessor`).
pub const POP_MAX: usize = 32;
/// Lapsed messages that are being stored again at a time.
const REVIVING_MAX: usize = 1024;
/// After one could not be stored, for the log has enough to do, none is for so long.
const REST_MS: u64 = 20;
/// One that the disk did not give is tried again after this.
const UNREAD_MS: u64 = 5_000;
/// Offsets in one row of a dump.
const ROW_MAX: usize = 4096;
/// A row with this slot is about the whole group.
const WHOLE_GROUP: QueueSlot = QueueSlot(u32::MAX);

const GRANTED: u8 = 1;
const OVER: u8 = 2;
const CLEARED: u8 = 3;
const HELD: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lease {
    pop_ms: i64,
    /// From the pop on: 4 bytes less than its end in each of millions.
    wait_ms: u32,
    /// Its consumer asked for more time without having tried: the next try counts as this one.
    suspended: bool,
    /// Its time was over; it is being stored again.
    lapsed: bool,
}

impl Lease {
    fn new(pop_ms: i64, until_ms: i64, suspended: bool) -> Lease {
        let wait_ms = until_ms.saturating_sub(pop_ms).clamp(0, u32::MAX.into());
        Lease {
            pop_ms,
            wait_ms: wait_ms as u32,
            suspended,
            lapsed: false,
        }
    }

    fn until_ms(&self) -> i64 {
        self.pop_ms.saturating_add(self.wait_ms.into())
    }
}

/// The leases of one group in one queue.
struct Lane {
    group: Arc<str>,
    slot: QueueSlot,
    leases: Pages<Lease>,
    held: Option<Held>,
}

impl Lane {
    /// Whether a batch will have something to look at.
    fn means(&self, batch: &Batch) -> bool {
        let mut leases = self.leases.range(batch.first..=batch.last);
        let ours = (batch.pop_ms, batch.until_ms);
        let held = self.held.as_ref().and_then(Held::free_ms);
        held == Some(batch.until_ms)
            || leases.any(|(_, lease)| (lease.pop_ms, lease.until_ms()) == ours)
    }

    /// All leases, those together that follow each other and are alike: at least one, at most
    /// [`ROW_MAX`] at a time.
    fn alike(&self) -> impl Iterator<Item = (Lease, Vec<u64>)> {
        let mut leases = self.leases.iter().peekable();
        std::iter::from_fn(move || {
            let (first, lease) = leases.next()?;
            let mut offsets = vec![first];
            while offsets.len() < ROW_MAX
                && let Some((offset, _)) = leases.next_if(|(_, other)| *other == lease)
            {
                offsets.push(offset);
            }
            Some((*lease, offsets))
        })
    }
}

/// What to look at when its time has come; what has changed meanwhile is passed over.
struct Batch {
    lane: u32,
    first: u64,
    last: u64,
    pop_ms: i64,
    until_ms: i64,
}

/// A message whose lease is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lapsed {
    pub group: Arc<str>,
    pub slot: QueueSlot,
    pub offset: u64,
    pub pop_ms: i64,
    pub suspended: bool,
}

/// What became due.
#[derive(PartialEq, Eq, Debug)]
pub enum Due {
    /// To be stored again.
    Lapsed(Lapsed),
    /// A queue that was blocked for a group is free.
    Free { group: Arc<str>, slot: QueueSlot },
}

#[derive(Default)]
pub struct Leases {
    /// By number; a number is not used again.
    lanes: Map<u32, Lane>,
    numbers: Map<Arc<str>, Map<QueueSlot, u32>>,
    numbered: u32,
    due: Deadlines<Batch>,
    /// Lapsed, and to be stored again unless that has changed meanwhile; with the lease's end.
    ready: VecDeque<(Lapsed, i64)>,
    /// Handed out to be stored again.
    reviving: usize,
    rests_until: Mono,
    /// Queues that may be popped in order again.
    free: VecDeque<(Arc<str>, QueueSlot)>,
    count: usize,
    /// Rows that the next record will hold.
    unlogged: Vec<u8>,
    unlogged_rows: u32,
}

impl Leases {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_full(&self) -> bool {
        self.count + POP_MAX > LEASES_MAX
    }

    fn lane(&self, group: &str, slot: QueueSlot) -> Option<&Lane> {
        self.lanes.get(self.numbers.get(group)?.get(&slot)?)
    }

    fn lane_mut(&mut self, group: &str, slot: QueueSlot) -> Option<&mut Lane> {
        self.lanes.get_mut(self.numbers.get(group)?.get(&slot)?)
    }

    fn lane_number(&mut self, group: &str, slot: QueueSlot) -> u32 {
        let known = self.numbers.get(group).and_then(|slots| slots.get(&slot));
        if let Some(number) = known {
            return *number;
        }
        let name = self
            .numbers
            .get_key_value(group)
            .map(|(name, _)| name.clone());
        let name = name.unwrap_or_else(|| group.into());
        self.numbered += 1;
        let lane = Lane {
            group: name.clone(),
            slot,
            leases: Pages::default(),
            held: None,
        };
        self.lanes.insert(self.numbered, lane);
        self.numbers
            .entry(name)
            .or_default()
            .insert(slot, self.numbered);
        self.numbered
    }

    /// Hands out messages; `offsets` ascend.
    pub fn grant(
        &mut self,
        now: Now,
        (group, slot): (&str, QueueSlot),
        pop_ms: i64,
        until_ms: i64,
        offsets: &[u64],
    ) {
        let lease = Lease::new(pop_ms, until_ms, false);
        self.insert((group, slot), lease, offsets.iter().copied());
        self.await_end(now, group, slot, lease, offsets);
        put_granted(&mut self.unlogged, group, slot, lease, offsets);
        self.unlogged_rows += 1;
    }

    fn insert(
        &mut self,
        (group, slot): (&str, QueueSlot),
        lease: Lease,
        offsets: impl Iterator<Item = u64>,
    ) {
        let number = self.lane_number(group, slot);
        let lane = self.lanes.get_mut(&number).expect("just numbered");
        for offset in offsets {
            self.count += usize::from(lane.leases.insert(offset, lease).is_none());
        }
    }

    fn await_end(&mut self, now: Now, group: &str, slot: QueueSlot, lease: Lease, offsets: &[u64]) {
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            return;
        };
        let batch = Batch {
            lane: self.lane_number(group, slot),
            first: *first,
            last: *last,
            pop_ms: lease.pop_ms,
            until_ms: lease.until_ms(),
        };
        self.due.push(due_at(now, lease.until_ms()), batch);
        self.prune();
    }

    /// Leases of days may be over in milliseconds: what has ended does not wait for their time.
    fn prune(&mut self) {
        let lanes = &self.lanes;
        self.due.prune(self.count + lanes.len(), |batch| {
            lanes.get(&batch.lane).is_some_and(|lane| lane.means(batch))
        });
    }

    /// A message is consumed. False if there is no such lease (any more).
    pub fn end(&mut self, group: &str, slot: QueueSlot, offset: u64, pop_ms: i64) -> bool {
        let known = self
            .lane(group, slot)
            .and_then(|lane| lane.leases.get(offset));
        if known.is_none_or(|lease| lease.pop_ms != pop_ms || lease.lapsed) {
            return false;
        }
        self.remove(group, slot, offset);
        put_over(&mut self.unlogged, group, slot, offset);
        self.unlogged_rows += 1;
        true
    }

    fn remove(&mut self, group: &str, slot: QueueSlot, offset: u64) {
        let removed = self
            .lane_mut(group, slot)
            .and_then(|lane| lane.leases.remove(offset));
        self.count -= usize::from(removed.is_some());
    }

    /// A consumer wants another end of its lease: from now on its pop time is `new_pop_ms`. False
    /// if there is no such lease (any more).
    pub fn change(
        &mut self,
        now: Now,
        (group, slot): (&str, QueueSlot),
        (offset, pop_ms): (u64, i64),
        until_ms: i64,
        suspended: bool,
    ) -> bool {
        let lane = self.lane_mut(group, slot);
        let Some(lease) = lane.and_then(|lane| lane.leases.value_mut(offset)) else {
            return false;
        };
        if lease.pop_ms != pop_ms || lease.lapsed {
            return false;
        }
        *lease = Lease::new(now.wall_ms, until_ms, suspended);
        let lease = *lease;
        self.await_end(now, group, slot, lease, &[offset]);
        put_granted(&mut self.unlogged, group, slot, lease, &[offset]);
        self.unlogged_rows += 1;
        true
    }

    /// Messages of a queue that a group has not acknowledged.
    pub fn in_flight(&self, group: &str, slot: QueueSlot) -> usize {
        self.lane(group, slot).map_or(0, |lane| lane.leases.len())
    }

    /// An operator moved the group: what was handed out before is nobody's concern any more.
    pub fn clear(&mut self, group: &str, slot: QueueSlot) {
        if self.lane(group, slot).is_some() {
            self.forget(group, slot);
            put_head(&mut self.unlogged, CLEARED, group, slot);
            self.unlogged_rows += 1;
        }
    }

    /// A group is gone.
    pub fn drop_group(&mut self, group: &str) {
        if self.numbers.contains_key(group) {
            self.forget(group, WHOLE_GROUP);
            put_head(&mut self.unlogged, CLEARED, group, WHOLE_GROUP);
            self.unlogged_rows += 1;
        }
    }

    /// A queue is gone.
    pub fn drop_queue(&mut self, slot: QueueSlot) {
        let groups: Vec<Arc<str>> = self
            .numbers
            .iter()
            .filter(|(_, slots)| slots.contains_key(&slot))
            .map(|(group, _)| group.clone())
            .collect();
        for group in groups {
            self.forget(&group, slot);
        }
    }

    fn forget(&mut self, group: &str, slot: QueueSlot) {
        let Some(slots) = self.numbers.get_mut(group) else {
            return;
        };
        let gone: Vec<u32> = slots
            .extract_if(|known, _| *known == slot || slot == WHOLE_GROUP)
            .map(|(_, number)| number)
            .collect();
        if slots.is_empty() {
            self.numbers.remove(group);
        }
        for number in gone {
            let lane = self.lanes.remove(&number).expect("numbers are of lanes");
            self.count -= lane.leases.len();
        }
    }

    /// What is due, one at a time. Each [`Lapsed`] is to be followed by [`revived`](Self::revived).
    pub fn pop_due(&mut self, now: Now) -> Option<Due> {
        while let Some(batch) = self.due.pop_due(now.mono) {
            self.lapse(&batch);
        }
        if let Some((group, slot)) = self.free.pop_front() {
            return Some(Due::Free { group, slot });
        }
        while self.can_revive().is_some_and(|from| from <= now.mono) {
            let (lapsed, until_ms) = self.ready.pop_front()?;
            let lane = self.lane_mut(&lapsed.group, lapsed.slot);
            let lease = lane.and_then(|lane| lane.leases.value_mut(lapsed.offset));
            let same = |lease: &&mut Lease| {
                (lease.pop_ms, lease.until_ms()) == (lapsed.pop_ms, until_ms) && !lease.lapsed
            };
            if let Some(lease) = lease.filter(same) {
                lease.lapsed = true;
                self.reviving += 1;
                return Some(Due::Lapsed(lapsed));
            }
        }
        None
    }

    /// From when on the next one may be stored again.
    fn can_revive(&self) -> Option<Mono> {
        let some = !self.ready.is_empty() && self.reviving < REVIVING_MAX;
        some.then_some(self.rests_until)
    }

    fn lapse(&mut self, batch: &Batch) {
        let Some(lane) = self.lanes.get(&batch.lane) else {
            return;
        };
        for (offset, lease) in lane.leases.range(batch.first..=batch.last) {
            let same = (lease.pop_ms, lease.until_ms()) == (batch.pop_ms, batch.until_ms);
            if same {
                let lapsed = Lapsed {
                    group: lane.group.clone(),
                    slot: lane.slot,
                    offset,
                    pop_ms: lease.pop_ms,
                    suspended: lease.suspended,
                };
                self.ready.push_back((lapsed, lease.until_ms()));
            }
        }
        if lane.held.is_some() {
            self.free.push_back((lane.group.clone(), lane.slot));
        }
    }

    /// A lapsed message was stored again, or is no more (`over`); or it could not be stored now,
    /// and can be acknowledged after all until it is tried again.
    pub fn revived(&mut self, now: Now, lapsed: Lapsed, over: bool) {
        self.reviving -= 1;
        if !over {
            self.rests_until = now.mono.after_ms(REST_MS);
        }
        let (group, slot, offset) = (&*lapsed.group, lapsed.slot, lapsed.offset);
        let lane = self.lane_mut(group, slot);
        let Some(lease) = lane.and_then(|lane| lane.leases.value_mut(offset)) else {
            return;
        };
        if !lease.lapsed || lease.pop_ms != lapsed.pop_ms {
            return;
        }
        if over {
            self.remove(group, slot, offset);
            put_over(&mut self.unlogged, group, slot, offset);
            self.unlogged_rows += 1;
            return;
        }
        lease.lapsed = false;
        let until_ms = lease.until_ms();
        self.ready.push_back((lapsed, until_ms));
    }

    /// A lapsed message could not be read: it is tried again in a while.
    pub fn unread(&mut self, now: Now, lapsed: &Lapsed) {
        self.reviving -= 1;
        let (group, slot, offset) = (&*lapsed.group, lapsed.slot, lapsed.offset);
        let lane = self.lane_mut(group, slot);
        let Some(lease) = lane.and_then(|lane| lane.leases.value_mut(offset)) else {
            return;
        };
        if !lease.lapsed || lease.pop_ms != lapsed.pop_ms {
            return;
        }
        lease.lapsed = false;
        let lease = *lease;
        let batch = Batch {
            lane: self.lane_number(group, slot),
            first: offset,
            last: offset,
            pop_ms: lease.pop_ms,
            until_ms: lease.until_ms(),
        };
        self.due.push(now.mono.after_ms(UNREAD_MS), batch);
    }

    pub fn deadline(&self) -> Option<Mono> {
        let free = (!self.free.is_empty()).then_some(Mono(0));
        let deadlines = [self.due.next(), self.can_revive(), free];
        deadlines.into_iter().flatten().min()
    }

    /// Whether a group must wait before it pops more of a queue in order.
    pub fn is_blocked(&self, now: Now, group: &str, slot: QueueSlot, attempt: &str) -> bool {
        let held = self.lane(group, slot).and_then(|lane| lane.held.as_ref());
        held.is_some_and(|held| held.blocks(now, attempt))
    }

    /// Hands out messages of a queue in order; gives how often each was handed out before.
    pub fn hold(
        &mut self,
        now: Now,
        (group, slot): (&str, QueueSlot),
        wait_ms: i64,
        attempt: &str,
        offsets: &[u64],
    ) -> Vec<u32> {
        let number = self.lane_number(group, slot);
        let lane = self.lanes.get_mut(&number).expect("just numbered");
        let held = Held::new(now, wait_ms, attempt, offsets, lane.held.as_ref());
        let times = held.times();
        lane.held = Some(held);
        self.held_changed(now, group, slot);
        times
    }

    /// Enters what a group holds of a queue, and when that is free at the latest.
    fn held_changed(&mut self, now: Now, group: &str, slot: QueueSlot) {
        let number = self.lane_number(group, slot);
        let Some(held) = self.lanes.get(&number).and_then(|lane| lane.held.as_ref()) else {
            return;
        };
        put_held(&mut self.unlogged, group, slot, held);
        self.unlogged_rows += 1;
        if let Some(free_ms) = held.free_ms() {
            let batch = Batch {
                lane: number,
                first: 0,
                last: 0,
                pop_ms: held.pop_ms,
                until_ms: free_ms,
            };
            self.due.push(due_at(now, free_ms), batch);
            self.prune();
        }
    }

    /// A message of a queue that is popped in order is consumed.
    pub fn end_ordered(
        &mut self,
        now: Now,
        (group, slot): (&str, QueueSlot),
        offset: u64,
        pop_ms: i64,
    ) -> Ordered {
        let lane = self.lane_mut(group, slot);
        let Some(held) = lane.and_then(|lane| lane.held.as_mut()) else {
            return Ordered::Next(offset + 1);
        };
        let ordered = held.acknowledge(offset, pop_ms);
        if matches!(ordered, Ordered::Next(_)) {
            self.held_changed(now, group, slot);
        }
        ordered
    }

    /// When a message that is held in order can be had again.
    pub fn change_ordered(
        &mut self,
        now: Now,
        (group, slot): (&str, QueueSlot),
        (offset, pop_ms): (u64, i64),
        visible_ms: i64,
    ) {
        let lane = self.lane_mut(group, slot);
        let held = lane.and_then(|lane| lane.held.as_mut());
        if held.is_some_and(|held| held.change(offset, pop_ms, visible_ms)) {
            self.held_changed(now, group, slot);
        }
    }

    /// When all that is held in order can be had again.
    pub fn suspend_ordered(
        &mut self,
        now: Now,
        (group, slot): (&str, QueueSlot),
        pop_ms: i64,
        visible_ms: i64,
    ) {
        let lane = self.lane_mut(group, slot);
        let held = lane.and_then(|lane| lane.held.as_mut());
        if held.is_some_and(|held| held.suspend(pop_ms, visible_ms)) {
            self.held_changed(now, group, slot);
        }
    }

    /// The queues that groups hold something of in order, once for each group.
    pub fn held(&self) -> impl Iterator<Item = QueueSlot> + '_ {
        let held = self.lanes.values().filter(|lane| lane.held.is_some());
        held.map(|lane| lane.slot)
    }

    /// What changed since the last call, as the payload of a record.
    pub fn take_unlogged(&mut self) -> Option<Vec<u8>> {
        if self.unlogged_rows == 0 {
            return None;
        }
        let mut payload = self.unlogged_rows.to_be_bytes().to_vec();
        payload.append(&mut self.unlogged);
        self.unlogged_rows = 0;
        Some(payload)
    }

    /// Replays one record.
    pub fn apply(&mut self, version: u16, payload: &[u8]) -> Result<(), String> {
        if version != VERSION {
            return Err(format!("leases of layout {version}, known is {VERSION}"));
        }
        let mut c = Cursor::new(payload);
        self.apply_rows(&mut c)
            .ok_or_else(|| "a record of leases is cut short or unknown".to_owned())
    }

    fn apply_rows(&mut self, c: &mut Cursor<'_>) -> Option<()> {
        for _ in 0..c.u32()? {
            let (tag, slot) = (c.u8()?, QueueSlot(c.u32()?));
            let group = c.text()?.to_owned();
            match tag {
                GRANTED => {
                    let (pop_ms, until_ms) = (c.i64()?, c.i64()?);
                    let lease = Lease::new(pop_ms, until_ms, c.u8()? != 0);
                    for _ in 0..c.u16()? {
                        let offset = c.u64()?;
                        self.insert((&group, slot), lease, std::iter::once(offset));
                    }
                }
                OVER => {
                    for _ in 0..c.u16()? {
                        let offset = c.u64()?;
                        self.remove(&group, slot, offset);
                    }
                }
                CLEARED => self.forget(&group, slot),
                HELD => {
                    let held = Held::decode(c)?;
                    let number = self.lane_number(&group, slot);
                    let lane = self.lanes.get_mut(&number).expect("just numbered");
                    lane.held = Some(held);
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Replays the end of a queue: its slot may be given to another.
    pub fn apply_drop(&mut self, payload: &[u8]) -> Result<(), String> {
        match QueueRecord::decode_dropped(payload) {
            Some(QueueRecord::Dropped { slot }) => self.drop_queue(slot),
            _ => return Err("the end of a queue cut short".to_owned()),
        }
        Ok(())
    }

    /// After recovery: what lapses when.
    pub fn start(&mut self, now: Now) {
        for (number, lane) in &self.lanes {
            for (lease, offsets) in lane.alike() {
                let batch = Batch {
                    lane: *number,
                    first: offsets[0],
                    last: offsets[offsets.len() - 1],
                    pop_ms: lease.pop_ms,
                    until_ms: lease.until_ms(),
                };
                self.due.push(due_at(now, lease.until_ms()), batch);
            }
            if let Some(free_ms) = lane.held.as_ref().and_then(Held::free_ms) {
                let batch = Batch {
                    lane: *number,
                    first: 0,
                    last: 0,
                    pop_ms: 0,
                    until_ms: free_ms,
                };
                self.due.push(due_at(now, free_ms), batch);
            }
        }
    }

    /// The whole table as records.
    pub fn dump(&self, now: Now, out: &mut Vec<u8>) {
        let mut rows = Vec::new();
        let mut finish = |rows: &mut Vec<u8>, count: u32| {
            let mut payload = count.to_be_bytes().to_vec();
            payload.append(rows);
            put_system(out, Kind::Lease, VERSION, now.wall_ms, &payload);
        };
        for lane in self.lanes.values() {
            for (lease, offsets) in lane.alike() {
                put_granted(&mut rows, &lane.group, lane.slot, lease, &offsets);
                finish(&mut rows, 1);
            }
            if let Some(held) = &lane.held {
                put_held(&mut rows, &lane.group, lane.slot, held);
                finish(&mut rows, 1);
            }
        }
    }
}

fn due_at(now: Now, at_ms: i64) -> Mono {
    now.mono
        .after_ms(at_ms.saturating_sub(now.wall_ms).max(0) as u64)
}

fn put_head(out: &mut Vec<u8>, tag: u8, group: &str, slot: QueueSlot) {
    out.push(tag);
    out.extend_from_slice(&slot.0.to_be_bytes());
    put_text(out, group);
}

fn put_granted(out: &mut Vec<u8>, group: &str, slot: QueueSlot, lease: Lease, offsets: &[u64]) {
    put_head(out, GRANTED, group, slot);
    out.extend_from_slice(&lease.pop_ms.to_be_bytes());
    out.extend_from_slice(&lease.until_ms().to_be_bytes());
    out.push(u8::from(lease.suspended));
    out.extend_from_slice(&(offsets.len() as u16).to_be_bytes());
    for offset in offsets {
        out.extend_from_slice(&offset.to_be_bytes());
    }
}

fn put_over(out: &mut Vec<u8>, group: &str, slot: QueueSlot, offset: u64) {
    put_head(out, OVER, group, slot);
    out.extend_from_slice(&1u16.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
}

fn put_held(out: &mut Vec<u8>, group: &str, slot: QueueSlot, held: &Held) {
    put_head(out, HELD, group, slot);
    held.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Record, walk};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Op {
        Grant { lane: u8, count: u8, wait: u16 },
        End { which: u8, right: bool },
        Change { which: u8, wait: u16 },
        Pass(u16),
        Fail,
        Restart,
        Clear(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..4u8, 1..9u8, 1..500u16)
                .prop_map(|(lane, count, wait)| Op::Grant { lane, count, wait }),
            4 => (any::<u8>(), any::<bool>()).prop_map(|(which, right)| Op::End { which, right }),
            2 => (any::<u8>(), 1..500u16).prop_map(|(which, wait)| Op::Change { which, wait }),
            4 => (0..400u16).prop_map(Op::Pass),
            1 => Just(Op::Fail),
            1 => Just(Op::Restart),
            1 => (0..4u8).prop_map(Op::Clear),
        ]
    }

    fn at(ms: u64) -> Now {
        Now {
            mono: Mono(ms),
            wall_ms: ms as i64,
        }
    }

    fn place(lane: u8) -> (&'static str, QueueSlot) {
        (
            ["g", "h"][usize::from(lane % 2)],
            QueueSlot(u32::from(lane / 2)),
        )
    }

    /// By group, slot and offset: pop time and end.
    type Model = BTreeMap<(&'static str, u32, u64), (i64, i64)>;

    fn replayed(payloads: &[Vec<u8>], now: Now) -> Leases {
        let mut again = Leases::default();
        for payload in payloads {
            again.apply(VERSION, payload).unwrap();
        }
        again.start(now);
        again
    }

    fn dumped(leases: &Leases, now: Now) -> Leases {
        let mut bytes = Vec::new();
        leases.dump(now, &mut bytes);
        let payloads: Vec<Vec<u8>> = walk(&bytes)
            .map(|record| match record {
                Ok((_, Record::System { payload, .. })) => payload.to_vec(),
                other => panic!("{other:?}"),
            })
            .collect();
        replayed(&payloads, now)
    }

    /// A history: the table beside a plain model of it.
    struct History {
        leases: Leases,
        model: Model,
        ms: u64,
        /// The next offset of each lane.
        next: [u64; 4],
        log: Vec<Vec<u8>>,
        fails: bool,
        rests_until: u64,
    }

    impl History {
        fn step(&mut self, op: Op) {
            let now = at(self.ms);
            match op {
                Op::Grant { lane, count, wait } => self.grant(lane, count, wait),
                Op::End { which, right } => self.end(which, right),
                Op::Change { which, wait } => {
                    let count = self.model.len().max(1);
                    let known = self.model.iter_mut().nth(usize::from(which) % count);
                    if let Some((key, lease)) = known {
                        let until = now.wall_ms + i64::from(wait);
                        let (place, message) = ((key.0, QueueSlot(key.1)), (key.2, lease.0));
                        assert!(self.leases.change(now, place, message, until, false));
                        *lease = (now.wall_ms, until);
                    }
                }
                Op::Pass(by) => self.ms += u64::from(by),
                Op::Fail => self.fails = !self.fails,
                Op::Restart => self.restart(),
                Op::Clear(lane) => {
                    let (group, slot) = place(lane);
                    self.leases.clear(group, slot);
                    let cleared = (group, slot.0);
                    self.model.retain(|key, _| (key.0, key.1) != cleared);
                }
            }
        }

        fn grant(&mut self, lane: u8, count: u8, wait: u16) {
            let now = at(self.ms);
            let next = &mut self.next[usize::from(lane)];
            let offsets: Vec<u64> = (*next..*next + u64::from(count)).collect();
            *next += u64::from(count) + 1;
            let until = now.wall_ms + i64::from(wait);
            let (group, slot) = place(lane);
            let lane = (group, slot);
            self.leases.grant(now, lane, now.wall_ms, until, &offsets);
            for offset in offsets {
                self.model
                    .insert((group, slot.0, offset), (now.wall_ms, until));
            }
        }

        fn end(&mut self, which: u8, right: bool) {
            let count = self.model.len().max(1);
            let known = self.model.iter().nth(usize::from(which) % count);
            let Some((key, (pop_ms, _))) = known.map(|(key, lease)| (*key, *lease)) else {
                return;
            };
            let named = if right { pop_ms } else { pop_ms - 1 };
            let (group, slot) = (key.0, QueueSlot(key.1));
            assert_eq!(self.leases.end(group, slot, key.2, named), right);
            if right {
                self.model.remove(&key);
            }
            assert!(!self.leases.end(group, slot, key.2, named));
        }

        fn restart(&mut self) {
            let now = at(self.ms);
            self.log.extend(self.leases.take_unlogged());
            let from_log = replayed(&self.log, now);
            let from_dump = dumped(&self.leases, now);
            assert_eq!(from_log.len(), from_dump.len());
            for lane in 0..4 {
                let (group, slot) = place(lane);
                let both = [&from_log, &from_dump].map(|l| l.in_flight(group, slot));
                assert_eq!(both[0], both[1]);
            }
            self.leases = from_log;
            self.rests_until = 0;
        }

        /// Takes what is due, and holds it against the model.
        fn settle(&mut self) {
            let now = at(self.ms);
            let mut failed = Vec::new();
            while let Some(due) = self.leases.pop_due(now) {
                let Due::Lapsed(lapsed) = due else {
                    panic!("nothing is held")
                };
                let wanted = (&*lapsed.group, lapsed.slot.0, lapsed.offset);
                let known = self.model.iter().find(|(key, _)| **key == wanted);
                let (key, lease) = known.map(|(k, v)| (*k, *v)).expect("it is leased");
                assert_eq!(lease.0, lapsed.pop_ms);
                assert!(lease.1 <= now.wall_ms, "not before its time");
                match self.fails {
                    true => failed.push(lapsed),
                    false => {
                        self.leases.revived(now, lapsed, true);
                        self.model.remove(&key);
                    }
                }
            }
            for lapsed in failed {
                self.leases.revived(now, lapsed, false);
                self.rests_until = self.ms + REST_MS;
            }
            let late = self.model.values().any(|lease| lease.1 <= now.wall_ms);
            assert!(!late || self.rests_until > self.ms);
            assert_eq!(self.leases.len(), self.model.len());
            assert_eq!(self.leases.reviving, 0);
            self.log.extend(self.leases.take_unlogged());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_message_is_acknowledged_or_lapses_exactly_once(
            ops in prop::collection::vec(op(), 1..100)
        ) {
            let mut history = History {
                leases: Leases::default(),
                model: Model::new(),
                ms: 1000,
                next: [0; 4],
                log: Vec::new(),
                fails: false,
                rests_until: 0,
            };
            for op in ops {
                history.step(op);
                history.settle();
            }
        }
    }

    #[test]
    fn what_is_over_does_not_wait_for_its_time() {
        let (mut leases, lane) = (Leases::default(), place(0));
        let week_ms = 7 * 24 * 3_600_000;
        for offset in 0..10_000 {
            leases.grant(at(1), lane, 1, week_ms, &[offset]);
            assert!(leases.end(lane.0, lane.1, offset, 1));
            leases.hold(at(1), lane, week_ms + offset as i64, "", &[offset]);
        }
        assert!(leases.due.len() < 3_000, "{}", leases.due.len());
        leases.grant(at(1), lane, 1, 5, &[20_000]);
        assert_eq!(leases.deadline(), Some(Mono(5)));
    }

    #[test]
    fn leases_that_are_alike_wait_for_their_end_together() {
        let (mut leases, lane) = (Leases::default(), place(0));
        let offsets: Vec<u64> = (0..10_000).collect();
        for pop in offsets.chunks(POP_MAX) {
            leases.grant(at(1), lane, 1, 500, pop);
        }
        leases.grant(at(1), lane, 2, 500, &[20_000]);
        let mut again = dumped(&leases, at(1));
        assert_eq!((again.len(), again.due.len()), (10_001, 4));
        let lapsed = std::iter::from_fn(|| match again.pop_due(at(500)) {
            Some(Due::Lapsed(lapsed)) => {
                again.revived(at(500), lapsed.clone(), true);
                Some(lapsed.offset)
            }
            _ => None,
        });
        assert!(lapsed.eq(offsets.into_iter().chain([20_000])));
    }

    #[test]
    fn a_queue_in_order_is_blocked_until_all_is_acknowledged_or_visible() {
        let (mut leases, lane) = (Leases::default(), place(0));
        let (group, slot) = lane;
        assert!(!leases.is_blocked(at(0), group, slot, "a"));
        assert_eq!(leases.hold(at(10), lane, 100, "a", &[5, 6, 8]), [0, 0, 0]);
        assert!(leases.is_blocked(at(11), group, slot, "b"));
        assert!(
            !leases.is_blocked(at(11), group, slot, "a"),
            "the same try again"
        );
        assert_eq!(leases.end_ordered(at(12), lane, 6, 10), Ordered::Next(5));
        assert_eq!(leases.end_ordered(at(12), lane, 7, 10), Ordered::Unknown);
        assert_eq!(leases.end_ordered(at(12), lane, 5, 11), Ordered::Stale);
        assert_eq!(leases.end_ordered(at(12), lane, 5, 10), Ordered::Next(8));
        leases.change_ordered(at(20), lane, (8, 10), 500);
        assert!(leases.is_blocked(at(200), group, slot, "b"));
        let mut again = replayed(&[leases.take_unlogged().unwrap()], at(300));
        assert!(
            again.is_blocked(at(300), group, slot, "b"),
            "over a restart"
        );
        let free = Due::Free {
            group: group.into(),
            slot,
        };
        assert_eq!(again.pop_due(at(500)), Some(free));
        assert!(!again.is_blocked(at(500), group, slot, "b"));
        assert_eq!(again.hold(at(500), lane, 100, "b", &[8, 9]), [1, 0]);
        assert_eq!(again.end_ordered(at(501), lane, 8, 500), Ordered::Next(9));
        assert_eq!(again.end_ordered(at(501), lane, 9, 500), Ordered::Next(10));
        assert!(!again.is_blocked(at(502), group, slot, "c"));
    }

    #[test]
    fn what_is_gone_leaves_nothing() {
        let mut leases = Leases::default();
        leases.grant(at(0), ("g", QueueSlot(1)), 0, 10, &[1, 2]);
        leases.grant(at(0), ("g", QueueSlot(2)), 0, 10, &[1]);
        leases.grant(at(0), ("h", QueueSlot(1)), 0, 10, &[1]);
        leases.drop_queue(QueueSlot(1));
        assert_eq!(leases.len(), 1);
        leases.drop_group("g");
        assert!(leases.is_empty() && leases.lanes.is_empty() && leases.numbers.is_empty());
        assert_eq!(leases.pop_due(at(100)), None);
        let payload = leases.take_unlogged().unwrap();
        assert!(
            leases
                .apply(VERSION, &payload[..payload.len() - 1])
                .is_err()
        );
        assert!(leases.apply(VERSION + 1, &payload).is_err());
    }
}
