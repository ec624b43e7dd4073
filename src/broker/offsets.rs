//! Consumer offsets of the queues this shard owns: how far each group has come.
//!
//! A commit changes the table at once and the log soon: changes of 100 ms share one record, and a
//! commit or query that somebody waits for is answered only when the record that holds its value
//! is confirmed. So an offset that was told to anybody does not go back in a crash.
//!
//! `ConsumerOffsets` payload, big-endian: count u32, then for each: slot u32, offset u64, group
//! (u16 length, UTF-8); slot 2^32 - 1 forgets the group. In a snapshot file the same record holds
//! the whole table, in pieces.
//!
//! Source of the behaviour: `ConsumerOffsetManager`, `spec/semantics.md` §5.

use crate::base::cursor::{Cursor, put_text};
use crate::base::{LogOffset, Map, Mono, Now};
use crate::store::consumequeue::QueueSlot;
use crate::store::queues::QueueRecord;
use crate::store::record::{Kind, put_system};
use crate::store::{Refused, Store};
use std::sync::Arc;

pub const VERSION: u16 = 1;
/// At most one record for a group and queue in this time.
const FLUSH_MS: u64 = 100;
/// A row with this slot says that the group's offsets are forgotten.
const WHOLE_GROUP: QueueSlot = QueueSlot(u32::MAX);
/// Bytes of a row: slot, offset and the longest name of a group.
const ROW_BYTES_MAX: usize = 4 + 8 + 2 + 255;
/// Offsets in one record.
const RECORD_COUNT_MAX: usize = 4096;
/// Offsets one shard keeps.
pub const OFFSETS_MAX: usize = 4_000_000;
/// Beyond so many, a group that only pulls is not noted any more: commits have the rest.
const PULLED_MAX: usize = OFFSETS_MAX / 2;

/// How far a group has come in a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    /// Committed; if nothing is, pulled.
    offset: u64,
    /// Messages pulled beyond it; not in the log, and no more than fit.
    ahead: u32,
    is_committed: bool,
    dirty: bool,
}

// There may be millions.
const _: () = assert!(size_of::<Known>() == 16);

const NOTHING: Known = Known {
    offset: 0,
    ahead: 0,
    is_committed: false,
    dirty: false,
};

impl Known {
    fn committed(self) -> Option<u64> {
        self.is_committed.then_some(self.offset)
    }

    fn pulled(self) -> u64 {
        self.offset + u64::from(self.ahead)
    }

    fn commit(self, offset: u64) -> Known {
        Known {
            offset,
            ahead: ahead(offset, self.pulled()),
            is_committed: true,
            dirty: true,
        }
    }
}

fn ahead(offset: u64, pulled: u64) -> u32 {
    u32::try_from(pulled.saturating_sub(offset)).unwrap_or(u32::MAX)
}

#[derive(Default)]
pub struct Offsets {
    groups: Map<Arc<str>, Map<QueueSlot, Known>>,
    /// Places that operators chose and no pull has heard of yet. Not durable, as in the reference:
    /// after a restart the offset itself is what counts.
    resets: Map<QueueSlot, Vec<(Arc<str>, u64)>>,
    count: usize,
    dirty: Vec<(Arc<str>, QueueSlot)>,
    /// End of the last record written.
    logged: LogOffset,
    flush_due: Option<Mono>,
    flushed: Mono,
}

impl Offsets {
    /// Takes a commit; false if the table is full.
    pub fn commit(&mut self, now: Now, group: &str, slot: QueueSlot, offset: u64) -> bool {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), Map::default());
        }
        let name = self
            .groups
            .get_key_value(group)
            .map(|(name, _)| name.clone());
        let name = name.expect("entered above");
        let queues = self.groups.get_mut(group).expect("entered above");
        let known = queues.get(&slot).copied();
        if known.is_none() && self.count >= OFFSETS_MAX {
            return false;
        }
        if known.and_then(Known::committed) == Some(offset) {
            return true;
        }
        let dirty = known.is_some_and(|known| known.dirty);
        queues.insert(slot, known.unwrap_or(NOTHING).commit(offset));
        self.count += usize::from(known.is_none());
        if !dirty {
            self.dirty.push((name, slot));
        }
        if self.flush_due.is_none() {
            self.flush_due = Some(self.flushed.after_ms(FLUSH_MS).max(now.mono));
        }
        true
    }

    /// An operator moves a group to another place of a queue; its next pull is told. False if the
    /// table is full.
    pub fn reset(&mut self, now: Now, group: &str, slot: QueueSlot, offset: u64) -> bool {
        if !self.commit(now, group, slot, offset) {
            return false;
        }
        if let Some(known) = self.known(group, slot) {
            known.ahead = 0;
        }
        let resets = self.resets.entry(slot).or_default();
        resets.retain(|(known, _)| **known != *group);
        resets.push((group.into(), offset));
        true
    }

    /// Whether a pull of the group has not heard yet where an operator moved it.
    pub fn is_reset(&self, group: &str, slot: QueueSlot) -> bool {
        let resets = self.resets.get(&slot);
        resets.is_some_and(|resets| resets.iter().any(|(known, _)| **known == *group))
    }

    /// Where an operator moved the group; told once.
    pub fn take_reset(&mut self, group: &str, slot: QueueSlot) -> Option<u64> {
        if self.resets.is_empty() {
            return None;
        }
        let resets = self.resets.get_mut(&slot)?;
        let at = resets.iter().position(|(known, _)| **known == *group)?;
        let (_, offset) = resets.swap_remove(at);
        if resets.is_empty() {
            self.resets.remove(&slot);
        }
        Some(offset)
    }

    pub fn committed(&self, group: &str, slot: QueueSlot) -> Option<u64> {
        self.groups.get(group)?.get(&slot)?.committed()
    }

    fn known(&mut self, group: &str, slot: QueueSlot) -> Option<&mut Known> {
        self.groups.get_mut(group)?.get_mut(&slot)
    }

    /// Takes note of where a group will pull next; nothing is promised of it.
    pub fn note_pull(&mut self, group: &Arc<str>, slot: QueueSlot, next: u64) {
        if let Some(known) = self.known(group, slot) {
            match known.is_committed {
                true => known.ahead = ahead(known.offset, next),
                false => known.offset = next,
            }
        } else if self.count < PULLED_MAX {
            let known = Known {
                offset: next,
                ..NOTHING
            };
            let queues = self.groups.entry(group.clone()).or_default();
            queues.insert(slot, known);
            self.count += 1;
        }
    }

    /// Where the group pulls next, as far as that is known; at least what it has committed.
    pub fn pulled(&self, group: &str, slot: QueueSlot) -> Option<u64> {
        Some(self.groups.get(group)?.get(&slot)?.pulled())
    }

    /// Offsets held, all groups together.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether more than `most` are committed; what is only pulled does not count.
    pub fn exceeds(&self, most: usize) -> bool {
        self.count > most && self.iter().nth(most).is_some()
    }

    /// Every committed offset in this shard.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, QueueSlot, u64)> + '_ {
        self.groups.iter().flat_map(|(group, queues)| {
            let queues = queues.iter();
            queues.filter_map(move |(slot, known)| Some((group, *slot, known.committed()?)))
        })
    }

    /// Every committed offset of a group in this shard.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (QueueSlot, u64)> + '_ {
        let queues = self.groups.get(group).into_iter().flatten();
        queues.filter_map(|(slot, known)| Some((*slot, known.committed()?)))
    }

    /// Up to where the log must be confirmed before what this table says may be told to anybody.
    pub fn logged(&self) -> LogOffset {
        self.logged
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// More than what is not in the log yet will take there.
    pub fn dirty_bytes_max(&self) -> usize {
        4 + self.dirty.len() * ROW_BYTES_MAX
    }

    /// When [`flush`](Self::flush) is wanted.
    pub fn deadline(&self) -> Option<Mono> {
        self.flush_due
    }

    /// Enters what changed in the log.
    pub fn flush(&mut self, now: Now, store: &mut Store) -> Result<(), Refused> {
        self.flush_due = None;
        while !self.dirty.is_empty() {
            let piece = self.dirty.len().min(RECORD_COUNT_MAX);
            let mut payload = Vec::with_capacity(4 + piece * 32);
            let groups = &self.groups;
            let rows = self.dirty[..piece].iter().filter_map(|(group, slot)| {
                Some((&**group, *slot, groups.get(group)?.get(slot)?.offset))
            });
            encode(rows, &mut payload);
            self.logged = store.append_system(now, Kind::ConsumerOffsets, VERSION, &payload)?;
            for (group, slot) in self.dirty.drain(..piece) {
                let entry = self
                    .groups
                    .get_mut(&group)
                    .and_then(|queues| queues.get_mut(&slot));
                entry.into_iter().for_each(|known| known.dirty = false);
            }
        }
        self.flushed = now.mono;
        Ok(())
    }

    /// A queue is gone, and with it what was committed for it.
    pub fn drop_queue(&mut self, slot: QueueSlot) {
        self.resets.remove(&slot);
        for queues in self.groups.values_mut() {
            self.count -= usize::from(queues.remove(&slot).is_some());
        }
        self.groups.retain(|_, queues| !queues.is_empty());
    }

    /// Forgets a group's offsets (`DELETE_SUBSCRIPTIONGROUP` with `cleanOffset`), here and in the
    /// log.
    pub fn drop_group(&mut self, now: Now, group: &str, store: &mut Store) {
        if !self.groups.contains_key(group) {
            return;
        }
        self.forget(group);
        let mut payload = Vec::new();
        encode(std::iter::once((group, WHOLE_GROUP, 0)), &mut payload);
        // Without a disk nothing is promised: the deletion itself was confirmed elsewhere.
        let _ = store.append_system(now, Kind::ConsumerOffsets, VERSION, &payload);
    }

    fn forget(&mut self, group: &str) {
        if let Some(queues) = self.groups.remove(group) {
            self.count -= queues.len();
        }
    }

    /// Replays the end of a queue: its slot may be given to another.
    pub fn apply_drop(&mut self, payload: &[u8]) -> Result<(), String> {
        match QueueRecord::decode_dropped(payload) {
            Some(QueueRecord::Dropped { slot }) => self.drop_queue(slot),
            _ => return Err("the end of a queue cut short".to_owned()),
        }
        Ok(())
    }

    /// Replays one record.
    pub fn apply(&mut self, version: u16, payload: &[u8]) -> Result<(), String> {
        if version != VERSION {
            return Err(format!(
                "consumer offsets of layout {version}, known is {VERSION}"
            ));
        }
        self.decode(payload)
            .ok_or_else(|| "consumer offsets cut short".to_owned())
    }

    fn decode(&mut self, payload: &[u8]) -> Option<()> {
        let mut c = Cursor::new(payload);
        for _ in 0..c.u32()? {
            let (slot, offset) = (QueueSlot(c.u32()?), c.u64()?);
            let group = c.text()?;
            if slot == WHOLE_GROUP {
                self.forget(group);
                continue;
            }
            let replayed = Known {
                dirty: false,
                ..NOTHING.commit(offset)
            };
            let known = match self.groups.get_mut(group) {
                Some(queues) => queues.insert(slot, replayed),
                None => {
                    let mut queues = Map::default();
                    queues.insert(slot, replayed);
                    self.groups.insert(group.into(), queues);
                    None
                }
            };
            self.count += usize::from(known.is_none());
        }
        Some(())
    }

    /// Appends the whole table as system records, for a snapshot.
    pub fn dump(&self, now: Now, out: &mut Vec<u8>) {
        let rows = self
            .iter()
            .map(|(group, slot, offset)| (&**group, slot, offset));
        let rows: Vec<(&str, QueueSlot, u64)> = rows.collect();
        for piece in rows.chunks(RECORD_COUNT_MAX) {
            let mut payload = Vec::with_capacity(4 + piece.len() * 32);
            encode(piece.iter().copied(), &mut payload);
            put_system(out, Kind::ConsumerOffsets, VERSION, now.wall_ms, &payload);
        }
    }
}

fn encode<'a>(rows: impl Iterator<Item = (&'a str, QueueSlot, u64)>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for (group, slot, offset) in rows {
        out.extend_from_slice(&slot.0.to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
        put_text(out, group);
        count += 1;
    }
    out[start..start + 4].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Record, walk};

    fn at(ms: u64) -> Now {
        Now {
            mono: Mono(ms),
            wall_ms: ms as i64,
        }
    }

    #[test]
    fn what_was_only_pulled_is_below_every_limit() {
        let (mut offsets, now) = (Offsets::default(), Now::default());
        let group: Arc<str> = "pulls".into();
        (0..10).for_each(|slot| offsets.note_pull(&group, QueueSlot(slot), 5));
        assert!(offsets.len() == 10 && !offsets.exceeds(0));
        for slot in 0..3 {
            assert!(offsets.commit(now, "commits", QueueSlot(slot), 5));
        }
        assert!(offsets.exceeds(2) && !offsets.exceeds(3));
    }

    #[test]
    fn commits_are_found_and_gathered() {
        let mut offsets = Offsets::default();
        assert!(offsets.commit(at(1000), "g", QueueSlot(1), 5));
        assert!(offsets.commit(at(1001), "g", QueueSlot(1), 7));
        assert_eq!(offsets.committed("g", QueueSlot(1)), Some(7));
        assert_eq!(offsets.committed("g", QueueSlot(2)), None);
        assert_eq!(offsets.dirty.len(), 1, "one row for one queue");
        assert_eq!(offsets.deadline(), Some(Mono(1000)));
    }

    #[test]
    fn a_dump_replays_to_the_same_table() {
        let mut offsets = Offsets::default();
        for n in 0..10_000u32 {
            offsets.commit(at(0), &format!("g{}", n % 7), QueueSlot(n), u64::from(n));
        }
        let mut dump = Vec::new();
        offsets.dump(at(0), &mut dump);
        let mut replayed = Offsets::default();
        for item in walk(&dump) {
            let Ok((
                _,
                Record::System {
                    version, payload, ..
                },
            )) = item
            else {
                panic!("{item:?}")
            };
            replayed.apply(version, payload).unwrap();
        }
        assert_eq!(replayed.count, offsets.count);
        assert_eq!(replayed.committed("g3", QueueSlot(3)), Some(3));
        assert!(replayed.apply(VERSION, &[0, 0, 0, 1, 0]).is_err());
        assert!(replayed.apply(9, &[]).is_err());
    }

    #[test]
    fn pulls_are_noted_beside_commits() {
        let (mut offsets, slot) = (Offsets::default(), QueueSlot(1));
        let group: Arc<str> = "g".into();
        offsets.note_pull(&group, slot, 9);
        let seen = (offsets.committed("g", slot), offsets.pulled("g", slot));
        assert_eq!(seen, (None, Some(9)), "a pull commits nothing");
        assert_eq!(
            (offsets.iter().count(), offsets.of_group("g").count()),
            (0, 0)
        );
        assert!(offsets.commit(at(0), "g", slot, 4));
        assert_eq!(offsets.pulled("g", slot), Some(9));
        offsets.note_pull(&group, slot, 7);
        assert_eq!(offsets.pulled("g", slot), Some(7));
        assert!(offsets.commit(at(0), "g", slot, 8));
        let seen = (offsets.committed("g", slot), offsets.pulled("g", slot));
        assert_eq!(seen, (Some(8), Some(8)), "never behind the commit");
        assert_eq!(offsets.count, 1);
        offsets.note_pull(&group, slot, 20);
        assert!(offsets.reset(at(0), "g", slot, 8));
        assert_eq!(offsets.pulled("g", slot), Some(8), "it pulls there again");
        offsets.note_pull(&group, slot, u64::MAX);
        assert_eq!(offsets.pulled("g", slot), Some(8 + u64::from(u32::MAX)));
        let mut dump = Vec::new();
        offsets.note_pull(&group, QueueSlot(2), 3);
        offsets.dump(at(0), &mut dump);
        let mut replayed = Offsets::default();
        for (_, record) in walk(&dump).map(Result::unwrap) {
            if let Record::System { payload, .. } = record {
                replayed.apply(VERSION, payload).unwrap();
            }
        }
        assert_eq!((replayed.count, replayed.pulled("g", slot)), (1, Some(8)));
    }

    #[test]
    fn pulls_leave_room_for_commits() {
        let mut offsets = Offsets {
            count: PULLED_MAX,
            ..Offsets::default()
        };
        offsets.note_pull(&"g".into(), QueueSlot(1), 9);
        assert_eq!(offsets.pulled("g", QueueSlot(1)), None);
        assert!(offsets.commit(at(0), "g", QueueSlot(1), 9));
    }

    #[test]
    fn dropped_queues_and_groups_leave_nothing() {
        let mut offsets = Offsets::default();
        offsets.commit(at(0), "g", QueueSlot(1), 5);
        offsets.commit(at(0), "h", QueueSlot(1), 6);
        offsets.drop_queue(QueueSlot(1));
        assert_eq!((offsets.count, offsets.groups.len()), (0, 0));
        offsets.commit(at(0), "h", QueueSlot(2), 6);
        offsets.forget("h");
        assert_eq!(offsets.count, 0);
    }
}
