//! Reading messages: from the tail in memory, or from the disk through read windows.
//!
//! Written in the style of trying again: a read that needs bytes which are not in memory says
//! [`Fetch::Wait`], and its waiter is given back by [`Store::handle_done`] when they are; then the
//! caller asks the same again. What comes from the disk is checked against the checksum in the
//! index entry before anybody sees it.

use crate::base::{LogOffset, QueueOffset};
use crate::filter::Filter;
use crate::message::properties;
use crate::message::view::RecordView;
use crate::store::consumequeue::{Block, Entry, Extent, Lookup, QueueSlot};
use crate::store::read::{Got, WaiterId};
use crate::store::segment::file_name;
use crate::store::{Sabotage, Store};
use bytes::Bytes;
use std::ops::Range;

/// Messages looked at by one read at most, whatever passes the filter
/// (`maxFilterMessageSize` / 20 bytes).
const SCANNED_MAX: u64 = 800;

/// How far from a guess a search by time looks next, messages.
const GUESS_AWAY: u64 = 16;

/// Something that may have to come from the disk first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetch<T> {
    Ready(T),
    /// The waiter is entered; ask again when it is given back.
    Wait,
    /// Not there: never written, or gone.
    Missing,
    /// There, but not what was written. The text says where.
    Damaged(String),
    /// Too many reads wait already.
    Busy,
}

macro_rules! ready {
    ($fetch:expr) => {
        match $fetch {
            Fetch::Ready(value) => value,
            Fetch::Wait => return Fetch::Wait,
            Fetch::Missing => return Fetch::Missing,
            Fetch::Damaged(reason) => return Fetch::Damaged(reason),
            Fetch::Busy => return Fetch::Busy,
        }
    };
}

/// What one pull may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub messages: usize,
    pub bytes: usize,
}

/// Messages of one queue, as slices of the log that lie one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub slices: Vec<Bytes>,
    pub bytes: usize,
    pub messages: usize,
    /// Where to go on: behind the last message looked at.
    pub next: QueueOffset,
}

impl Store {
    /// First offset and end of what readers may see of a queue.
    pub fn visible_range(&self, slot: QueueSlot) -> (QueueOffset, QueueOffset) {
        let visible = self
            .queues
            .queue(slot)
            .map_or(QueueOffset(0), |queue| queue.visible);
        (self.index.min(slot).min(visible), visible)
    }

    /// Messages from `from` on that pass the filter. `from` is inside the visible range. At least
    /// one message is given if any passes, whatever its size.
    pub fn read(
        &mut self,
        slot: QueueSlot,
        from: QueueOffset,
        limits: Limits,
        filter: &Filter,
        waiter: WaiterId,
    ) -> Fetch<Found> {
        let (_, visible) = self.visible_range(slot);
        let end = visible.0.min(from.0 + SCANNED_MAX);
        let mut found = Found {
            next: from,
            ..Found::default()
        };
        let sabotage = filter.sql().map(|_| self.options.sabotage);
        let mut block = None;
        while found.next.0 < end && found.messages < limits.messages {
            let entry = match self.entry_of(&mut block, slot, found.next, waiter) {
                Fetch::Ready(entry) => entry,
                _ if found.messages > 0 => break,
                other => return other.map(|_| found),
            };
            if !filter.may_want(i64::from(entry.tag_hash)) {
                found.next.0 += 1;
                continue;
            }
            if found.messages > 0 && found.bytes + entry.size as usize > limits.bytes {
                break;
            }
            match self.record(&entry, waiter) {
                Fetch::Ready(record) if is_wanted(&record, filter) => found.push(record),
                Fetch::Ready(record) if sabotage == Some(Sabotage::GiveUnwanted) => {
                    found.push(record)
                }
                Fetch::Ready(_) => {}
                Fetch::Wait if sabotage == Some(Sabotage::PassUnread) && found.next > from => {}
                // What was looked at need not be looked at again.
                _ if found.next > from => break,
                other => return other.map(|_| found),
            }
            found.next.0 += 1;
        }
        Fetch::Ready(found)
    }

    /// A waiter that was woken will not ask again: what was kept for it may go.
    pub fn give_up(&mut self, waiter: WaiterId) {
        self.windows.cancel(waiter);
        drop(self.lookups.take(waiter));
    }

    /// The index entry of one message.
    pub fn entry(
        &mut self,
        slot: QueueSlot,
        offset: QueueOffset,
        waiter: WaiterId,
    ) -> Fetch<Entry> {
        self.entry_of(&mut None, slot, offset, waiter)
    }

    /// The same for one message after the other: a block that comes from the disk is checked once
    /// and left in `block` for the next.
    fn entry_of(
        &mut self,
        block: &mut Option<Block>,
        slot: QueueSlot,
        offset: QueueOffset,
        waiter: WaiterId,
    ) -> Fetch<Entry> {
        if let Some(entry) = block.as_ref().and_then(|block| block.at(offset)) {
            return Fetch::Ready(entry);
        }
        let extent = match self.index.lookup(slot, offset) {
            Lookup::Hot(entries) => {
                return entries.at(0).map_or(Fetch::Missing, Fetch::Ready);
            }
            Lookup::None => return Fetch::Missing,
            Lookup::Cold(extent) => extent,
        };
        let bytes = ready!(self.window(&extent, waiter));
        *block = extent.block(bytes);
        match block.as_ref().and_then(|block| block.at(offset)) {
            Some(entry) => Fetch::Ready(entry),
            None => Fetch::Damaged(format!("index block {}@{}", extent.file, extent.at)),
        }
    }

    /// Tag hashes of messages from an offset on, all of which exist: at least one, at most `most`.
    pub fn tag_hashes(
        &mut self,
        slot: QueueSlot,
        from: QueueOffset,
        most: usize,
        waiter: WaiterId,
    ) -> Fetch<Vec<i32>> {
        let (mut found, mut block) = (Vec::with_capacity(most), None);
        for n in 0..most as u64 {
            match self.entry_of(&mut block, slot, QueueOffset(from.0 + n), waiter) {
                Fetch::Ready(entry) => found.push(entry.tag_hash),
                other if found.is_empty() => return other.map(|_| found),
                _ => break,
            }
        }
        Fetch::Ready(found)
    }

    fn window(&mut self, extent: &Extent, waiter: WaiterId) -> Fetch<Bytes> {
        let Extent { file, at, len, .. } = extent;
        let got = self.windows.get(waiter, file, *at, *len, at + *len as u64);
        fetched(got)
    }

    /// The whole record of an entry.
    pub fn record(&mut self, entry: &Entry, waiter: WaiterId) -> Fetch<Bytes> {
        if let Some(bytes) = self.log.memory(entry.at, entry.size) {
            return Fetch::Ready(bytes);
        }
        let bytes = ready!(self.disk_bytes(entry.at, entry.size as usize, waiter));
        if crc32fast::hash(&bytes) != entry.crc {
            return Fetch::Damaged(self.place(entry.at));
        }
        Fetch::Ready(bytes)
    }

    /// The message record that begins at a log offset somebody names. Checked by its own place and
    /// body checksum, for there is no entry to check it against.
    pub fn record_at(&mut self, at: LogOffset, waiter: WaiterId) -> Fetch<Bytes> {
        self.record_of(at, at.physical(self.shard()), waiter)
    }

    /// The same of a message that may lie elsewhere now, by the physical offset it was stored at
    /// first.
    pub fn record_of(&mut self, at: LogOffset, physical: i64, waiter: WaiterId) -> Fetch<Bytes> {
        let bytes = ready!(self.message_at(at, waiter));
        let view = RecordView::parse(&bytes);
        match view.is_ok_and(|view| view.physical_offset() == physical) {
            true => Fetch::Ready(bytes),
            false => Fetch::Missing,
        }
    }

    /// The message that begins at a log offset, wherever it was stored first.
    pub fn message_at(&mut self, at: LogOffset, waiter: WaiterId) -> Fetch<Bytes> {
        let whole = self.log.segment_end(at).0.min(self.confirmed().0);
        if at < self.log_min() || at.0.saturating_add(4) > whole {
            return Fetch::Missing;
        }
        let head = ready!(self.bytes_at(at, 4, waiter));
        let Some(size) = head
            .first_chunk::<4>()
            .map(|size| u32::from_be_bytes(*size))
        else {
            return Fetch::Missing;
        };
        // Any offset may be asked for, also one in a gap, where the size reads as zero.
        let bounds = 1..=self.options.record_bytes_max;
        if !bounds.contains(&(size as usize)) || at.0 + u64::from(size) > whole {
            return Fetch::Missing;
        }
        let bytes = ready!(self.bytes_at(at, size, waiter));
        let Ok(view) = RecordView::parse(&bytes) else {
            return Fetch::Missing;
        };
        if !view.has_valid_body_crc() {
            return Fetch::Damaged(self.place(at));
        }
        Fetch::Ready(bytes)
    }

    fn bytes_at(&mut self, at: LogOffset, len: u32, waiter: WaiterId) -> Fetch<Bytes> {
        match self.log.memory(at, len) {
            Some(bytes) => Fetch::Ready(bytes),
            // Confirmed before the disk has it, so a record would be in memory: this is a gap.
            None if at.0 + u64::from(len) > self.log.written().0 => Fetch::Missing,
            None => self.disk_bytes(at, len as usize, waiter),
        }
    }

    fn disk_bytes(&mut self, at: LogOffset, len: usize, waiter: WaiterId) -> Fetch<Bytes> {
        let (file, place) = self.log.segments().place(at);
        let segment = at.0 - place;
        let valid_to = self.log.written().0.min(self.log.segment_end(at).0) - segment;
        fetched(self.windows.get(waiter, &file, place, len, valid_to))
    }

    /// Whoever goes through the log once and in order has come to `at`.
    pub fn pass(&mut self, at: LogOffset) {
        let (file, place) = self.log.segments().place(at);
        self.windows.pass(&file, place);
    }

    fn place(&self, at: LogOffset) -> String {
        let first = LogOffset(at.0 / self.options.segment_bytes * self.options.segment_bytes);
        let (shard, file) = (self.options.shard.0, file_name(first));
        format!(
            "shard {shard}, {file} at {}: the stored bytes are damaged",
            at.0 - first.0
        )
    }

    /// `SEARCH_OFFSET_BY_TIMESTAMP`: the first visible message stored at `store_ms` or later, or
    /// with `upper` the last one stored at `store_ms` or earlier; the ends of the queue otherwise
    /// (`ConsumeQueue.getOffsetInQueueByTime`).
    pub fn search_time(
        &mut self,
        slot: QueueSlot,
        store_ms: i64,
        upper: bool,
        waiter: WaiterId,
    ) -> Fetch<QueueOffset> {
        let (min, max) = self.visible_range(slot);
        let probe = if upper {
            store_ms.saturating_add(1)
        } else {
            store_ms
        };
        let Some(within) = self.index.search_time(slot, probe) else {
            return Fetch::Ready(min);
        };
        let late = i64::from(self.options.sabotage == Sabotage::SearchLate);
        let range = within.first.max(min).0..within.end.min(max).0;
        let found = seek(range, within.guess(probe).0, |offset| {
            let stored = self.store_time(slot, QueueOffset(offset), waiter);
            stored.map(|stored| stored < probe.saturating_add(late))
        });
        let first_at_or_after = QueueOffset(ready!(found).clamp(min.0, max.0));
        if !upper {
            return Fetch::Ready(first_at_or_after);
        }
        Fetch::Ready(QueueOffset(first_at_or_after.0.saturating_sub(1)).max(min))
    }

    /// When a visible message was stored, ms.
    pub fn store_time(
        &mut self,
        slot: QueueSlot,
        offset: QueueOffset,
        waiter: WaiterId,
    ) -> Fetch<i64> {
        let entry = ready!(self.entry(slot, offset, waiter));
        let bytes = ready!(self.record(&entry, waiter));
        match RecordView::parse(&bytes) {
            Ok(view) => Fetch::Ready(view.store_timestamp()),
            Err(_) => Fetch::Damaged(self.place(entry.at)),
        }
    }
}

/// The first offset of a range that is not `before`, or its end. Goes from a guess away until the
/// answer lies between two offsets that were looked at, which are mostly near each other: halving
/// the whole range would read the disk in a dozen places.
fn seek(
    range: Range<u64>,
    guess: u64,
    mut is_before: impl FnMut(u64) -> Fetch<bool>,
) -> Fetch<u64> {
    let Range {
        start: mut low,
        end: mut high,
    } = range;
    let (mut next, mut away) = (guess, GUESS_AWAY);
    let (mut before, mut after) = (false, false);
    while low < high {
        let at = next.clamp(low, high - 1);
        match ready!(is_before(at)) {
            true => (low, before) = (at + 1, true),
            false => (high, after) = (at, true),
        }
        next = match (before, after) {
            (true, true) => low + (high - low) / 2,
            (true, false) => low.saturating_add(away),
            (false, _) => high.saturating_sub(away),
        };
        away = away.saturating_mul(4);
    }
    Fetch::Ready(low)
}

/// Whether the filter wants this whole record, whose tag it may want.
pub fn is_wanted(record: &[u8], filter: &Filter) -> bool {
    let Some(sql) = filter.sql() else {
        return true;
    };
    RecordView::parse(record).is_ok_and(|view| sql.matches(properties::iter(view.properties())))
}

fn fetched(got: Got) -> Fetch<Bytes> {
    match got {
        Got::Hit(bytes) => Fetch::Ready(bytes),
        Got::Wait => Fetch::Wait,
        Got::Busy => Fetch::Busy,
    }
}

impl<T> Fetch<T> {
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Fetch<U> {
        match self {
            Fetch::Ready(value) => Fetch::Ready(to(value)),
            Fetch::Wait => Fetch::Wait,
            Fetch::Missing => Fetch::Missing,
            Fetch::Damaged(reason) => Fetch::Damaged(reason),
            Fetch::Busy => Fetch::Busy,
        }
    }
}

impl Found {
    fn push(&mut self, record: Bytes) {
        self.bytes += record.len();
        self.messages += 1;
        self.slices.push(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is found from a guess, and which offsets were looked at.
    fn found(times: &[i64], probe: i64, range: Range<u64>, guess: u64) -> (u64, Vec<u64>) {
        let mut seen = Vec::new();
        let found = seek(range, guess, |offset| {
            seen.push(offset);
            Fetch::Ready(times[offset as usize] < probe)
        });
        match found {
            Fetch::Ready(found) => (found, seen),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn a_search_finds_the_first_from_any_guess(
            mut times in prop::collection::vec(0..300i64, 0..400),
            probe in -1..302i64,
            guess in prop_oneof![0..400u64, Just(u64::MAX)],
        ) {
            times.sort();
            let plain = times.partition_point(|time| *time < probe) as u64;
            let (found, seen) = found(&times, probe, 0..times.len() as u64, guess);
            prop_assert_eq!(found, plain);
            prop_assert!(seen.len() <= 14, "{seen:?}");
        }
    }

    #[test]
    fn a_good_guess_is_searched_around_only() {
        let times: Vec<i64> = (0..3000).collect();
        for (guess, probe) in [(1500, 1510), (1510, 1500), (0, 0), (2999, 3000)] {
            let (place, seen) = found(&times, probe, 0..3000, guess);
            assert_eq!(place, probe as u64);
            let near = (guess.saturating_sub(32)..guess + 32).contains(&place);
            assert!(
                near && seen.iter().all(|at| at.abs_diff(guess) <= 20),
                "{seen:?}"
            );
        }
    }

    #[test]
    fn a_search_waits_for_the_disk() {
        let waits = seek(0..9, 4, |_| Fetch::Wait);
        assert_eq!(waits, Fetch::Wait);
    }
}
