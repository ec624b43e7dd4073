//! How many messages for a time wait, by topic: a count per topic, nothing per message.
//!
//! A message counts from when it is stored until its delivery is over; one that was recalled too,
//! for only then its record is read. After a crash what is due behind the progress that the log
//! knows is delivered once more, and counts as waiting again. So a delivery that is ahead of that
//! progress is kept in mind, by its time, and the record that moves the progress beyond it says how
//! many of each topic that takes away. What was stored since the last snapshot is counted again as
//! the log is replayed.
//!
//! A store of an older layout knows no counts. What was stored before the first record of this one
//! is not counted, and so not taken away; nothing of it is left one day.
//!
//! Source of the behaviour: `TimerMetrics`, `TimerMessageStore.addMetric`.

use crate::base::cursor::{Cursor, put_text};
use crate::base::{LogOffset, Map};
use crate::store::dispatch::TIMER_QUEUE_MS;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Topics of one shard with a count of their own.
pub const TOPICS_MAX: usize = 16_384;
/// What counts together once there are that many. No topic has this name.
pub const OTHERS: &str = "*";
/// Times and topics that are ahead, beyond which times are rounded up to whole hours. While one
/// message cannot be delivered, all others of a day may be ahead of it; a crash then leaves the
/// counts too high by what was delivered in the hour the progress is in.
const AHEAD_MAX: usize = 65_536;
/// Rows of one record, but for those of the same time.
const ROWS_MAX: usize = 2048;

/// What waits of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    pub waits: u64,
    /// When that changed, wall ms.
    pub changed_ms: i64,
}

#[derive(Default)]
pub struct Pending {
    counts: Map<Arc<str>, Count>,
    /// Some count became 0: there may be room.
    has_zeros: bool,
    /// Deliveries that are over, by the time they were due and topic, and not in the log yet.
    ahead: BTreeMap<(i64, Arc<str>), u32>,
    /// Those that came since times were rounded.
    fresh: usize,
    /// Messages before this place are not counted.
    since: LogOffset,
    /// Messages that ever were stored.
    stored: u64,
    /// Changes of counts, and when the last one was.
    changes: u64,
    changed_ms: i64,
}

/// A message's topic, to take it away by.
pub type Counted = Option<Arc<str>>;

impl Pending {
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// How often counts changed, and when they did last.
    pub fn version(&self) -> (u64, i64) {
        (self.changes, self.changed_ms)
    }

    pub fn counts(&self) -> impl Iterator<Item = (&Arc<str>, Count)> {
        self.counts.iter().map(|(topic, count)| (topic, *count))
    }

    fn change(&mut self, now_ms: i64) {
        self.changes += 1;
        self.changed_ms = self.changed_ms.max(now_ms);
    }

    /// A message for a time is stored, or found stored in a replay.
    pub fn store(&mut self, now_ms: i64, topic: &str) {
        self.stored += 1;
        self.change(now_ms);
        let count = self.count_of(topic);
        count.waits += 1;
        count.changed_ms = count.changed_ms.max(now_ms);
    }

    fn count_of(&mut self, topic: &str) -> &mut Count {
        let known = self.counts.contains_key(topic);
        let name = match known || self.has_room() || self.make_room() {
            true => topic,
            false => OTHERS,
        };
        if !self.counts.contains_key(name) {
            self.counts.insert(Arc::from(name), Count::default());
        }
        self.counts.get_mut(name).expect("just made")
    }

    fn has_room(&self) -> bool {
        self.counts.len() - usize::from(self.counts.contains_key(OTHERS)) < TOPICS_MAX
    }

    fn make_room(&mut self) -> bool {
        if std::mem::take(&mut self.has_zeros) {
            self.counts.retain(|_, count| count.waits > 0);
        }
        self.has_room()
    }

    /// What a message of a topic, stored at a place, is counted as.
    pub fn counted(&self, topic: &str, at: LogOffset) -> Counted {
        if at < self.since {
            return None;
        }
        let known = self.counts.get_key_value(topic);
        let known = known.or_else(|| self.counts.get_key_value(OTHERS))?;
        Some(known.0.clone())
    }

    /// A delivery is over.
    pub fn deliver(&mut self, now_ms: i64, due_ms: i64, topic: Arc<str>) {
        self.change(now_ms);
        self.take_away(&topic, 1, now_ms);
        *self.ahead.entry((due_ms, topic)).or_insert_with(|| {
            self.fresh += 1;
            0
        }) += 1;
        if self.fresh > AHEAD_MAX {
            self.round_up();
        }
    }

    fn take_away(&mut self, topic: &str, number: u64, now_ms: i64) {
        if let Some(count) = self.counts.get_mut(topic) {
            count.waits = count.waits.saturating_sub(number);
            count.changed_ms = count.changed_ms.max(now_ms);
            self.has_zeros |= count.waits == 0;
        }
    }

    fn round_up(&mut self) {
        for ((due_ms, topic), number) in std::mem::take(&mut self.ahead) {
            let hour = due_ms.div_euclid(TIMER_QUEUE_MS);
            let last_ms = (hour + 1) * TIMER_QUEUE_MS - 1;
            *self.ahead.entry((last_ms, topic)).or_default() += number;
        }
        self.fresh = 0;
    }

    /// The log is to know that everything due before `progress_ms` is delivered. Gives how far one
    /// record can go, and what it takes away of each topic.
    pub fn pass(&mut self, progress_ms: i64) -> (i64, Vec<(Arc<str>, u32)>) {
        let mut rows: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let mut last_ms = i64::MIN;
        while let Some(first) = self.ahead.first_entry() {
            let due_ms = first.key().0;
            if due_ms >= progress_ms {
                break;
            }
            if rows.len() >= ROWS_MAX && due_ms > last_ms {
                return (due_ms, rows.into_iter().collect());
            }
            last_ms = due_ms;
            let ((_, topic), number) = first.remove_entry();
            self.fresh = self.fresh.saturating_sub(1);
            *rows.entry(topic).or_default() += number;
        }
        (progress_ms, rows.into_iter().collect())
    }

    /// Nothing waits: whatever counts still say, for instance of messages that were lost.
    pub fn none_waits(&mut self) {
        self.counts.values_mut().for_each(|count| count.waits = 0);
        self.has_zeros = true;
    }

    /// After a replay of an older layout: only what is stored from here on counts.
    pub fn begin(&mut self, at: LogOffset) {
        (self.since, self.counts) = (at, Map::default());
    }

    /// The part of a record that says what was taken away.
    pub fn encode_passed(&self, rows: &[(Arc<str>, u32)], out: &mut Vec<u8>) {
        let rows = rows.iter().map(|(topic, number)| {
            let changed_ms = self.counts.get(topic).map_or(0, |count| count.changed_ms);
            (&**topic, -i64::from(*number), changed_ms)
        });
        self.encode(rows, out);
    }

    /// The same parts of a snapshot's records: what waits as the log knows.
    pub fn encode_all(&self) -> Vec<Vec<u8>> {
        let mut all: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for (topic, count) in &self.counts {
            all.insert(topic, (count.waits as i64, count.changed_ms));
        }
        for ((_, topic), number) in &self.ahead {
            all.entry(topic).or_default().0 += i64::from(*number);
        }
        let rows: Vec<_> = all
            .into_iter()
            .map(|(topic, (waits, ms))| (topic, waits, ms))
            .collect();
        let pieces = rows.chunks(ROWS_MAX);
        let pieces = pieces.map(|rows| {
            let mut piece = Vec::new();
            self.encode(rows.iter().copied(), &mut piece);
            piece
        });
        match rows.is_empty() {
            true => {
                let mut piece = Vec::new();
                self.encode_passed(&[], &mut piece);
                vec![piece]
            }
            false => pieces.collect(),
        }
    }

    /// Big-endian: place u64, stored u64, changes u64, time of the last i64; count u32, then for
    /// each topic its name with the length u16 before it, the change i64, and its time i64.
    fn encode<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = (&'a str, i64, i64)>,
        out: &mut Vec<u8>,
    ) {
        for number in [self.since.0, self.stored, self.changes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.changed_ms.to_be_bytes());
        out.extend_from_slice(&(rows.len() as u32).to_be_bytes());
        for (topic, change, changed_ms) in rows {
            put_text(out, topic);
            out.extend_from_slice(&change.to_be_bytes());
            out.extend_from_slice(&changed_ms.to_be_bytes());
        }
    }

    /// Replays that part of a record.
    pub fn apply(&mut self, c: &mut Cursor<'_>) -> Option<()> {
        let since = LogOffset(c.u64()?);
        if since > self.since {
            self.begin(since);
        }
        (self.stored, self.changes, self.changed_ms) = (c.u64()?, c.u64()?, c.i64()?);
        for _ in 0..c.u32()? {
            let (topic, change, changed_ms) = (c.text()?, c.i64()?, c.i64()?);
            match u64::try_from(change) {
                Ok(more) => {
                    let count = self.count_of(topic);
                    count.waits += more;
                    count.changed_ms = count.changed_ms.max(changed_ms);
                }
                Err(_) => self.take_away(topic, change.unsigned_abs(), changed_ms),
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pending: &Pending, topic: &str) -> Option<u64> {
        pending.counts.get(topic).map(|count| count.waits)
    }

    fn again(pending: &Pending) -> Pending {
        let mut again = Pending::default();
        for piece in pending.encode_all() {
            again.apply(&mut Cursor::new(&piece)).unwrap();
        }
        again
    }

    #[test]
    fn further_topics_count_together() {
        let mut pending = Pending::default();
        for n in 0..TOPICS_MAX + 2 {
            pending.store(5, &format!("t{n}"));
        }
        let counted = |pending: &Pending| pending.counts.len();
        assert_eq!(counted(&pending), TOPICS_MAX + 1);
        assert_eq!(waits(&pending, OTHERS), Some(2));
        let last = format!("t{}", TOPICS_MAX + 1);
        let name = pending.counted(&last, LogOffset(0)).unwrap();
        pending.deliver(6, 1, name);
        assert_eq!(waits(&pending, OTHERS), Some(1));
        // All of it, in several records.
        assert_eq!(again(&pending).counts.len(), TOPICS_MAX + 1);
        // A topic of which nothing waits makes room.
        let name = pending.counted("t7", LogOffset(0)).unwrap();
        pending.deliver(6, 1, name);
        assert_eq!(waits(&pending, "t7"), Some(0));
        pending.store(7, "new");
        pending.store(7, "newer");
        assert_eq!(
            (waits(&pending, "t7"), waits(&pending, "new")),
            (None, Some(1))
        );
        assert_eq!(waits(&pending, OTHERS), Some(2), "room for one only");
    }

    #[test]
    fn what_is_ahead_takes_bounded_memory() {
        let mut pending = Pending::default();
        let topics = ["a", "b", "c"];
        for due_ms in 0..4 * AHEAD_MAX as i64 {
            let topic = topics[due_ms as usize % 3];
            pending.store(1, topic);
            pending.deliver(1, due_ms, Arc::from(topic));
        }
        assert!(pending.ahead.len() <= AHEAD_MAX + topics.len());
        assert_eq!(
            waits(&again(&pending), "a"),
            Some((4 * AHEAD_MAX as u64).div_ceil(3))
        );
        let (progress_ms, rows) = pending.pass(TIMER_QUEUE_MS);
        let passed: u32 = rows.iter().map(|(_, number)| number).sum();
        assert_eq!(progress_ms, TIMER_QUEUE_MS);
        assert_eq!(passed as usize, 4 * AHEAD_MAX);
        assert_eq!(waits(&again(&pending), "a"), Some(0));
    }

    #[test]
    fn one_record_goes_as_far_as_it_has_room() {
        let mut pending = Pending::default();
        for n in 0..ROWS_MAX as i64 + 10 {
            pending.store(1, &format!("t{n}"));
            pending.deliver(1, n, format!("t{n}").into());
        }
        let (progress_ms, rows) = pending.pass(1_000_000);
        assert_eq!((progress_ms, rows.len()), (ROWS_MAX as i64, ROWS_MAX));
        let (progress_ms, rows) = pending.pass(1_000_000);
        assert_eq!((progress_ms, rows.len()), (1_000_000, 10));
    }
}
