//! Messages for a time: which are due next, and how far delivery has come.
//!
//! A pending message is a record in one of this shard's queues of `rmq_sys_wheel_timer`: queue `n`
//! holds what is due in hour `n` since 1970, in the order it came, and the place of the tag hash in
//! its index entry says when in that hour, in milliseconds. So pending messages are on disk like
//! all others, whatever their number and however far away. Those due within the next minute are in
//! memory, in a heap; shortly before a minute begins the queues of its hours are gone through for
//! it. A queue is dropped when its hour is over and delivered.
//!
//! How far delivery has come is a `Timer` record. It is behind what was delivered by at most
//! [`PROGRESS_MS`], so a crash repeats that much and loses nothing.
//!
//! `Timer` payload, big-endian: progress i64, count u32, then for each recalled message its key
//! hash u64 and its time i64 (wall ms); then, since layout 2, what changed of the counts
//! ([`Pending`]).
//!
//! Unlike the reference: to the millisecond instead of the second, and without a horizon.
//!
//! Source of the behaviour: `TimerMessageStore`, `spec/semantics.md` §6.

use crate::base::cursor::Cursor;
use crate::base::heap::Deadlines;
use crate::base::{LogOffset, Map, Mono, Now};
use crate::broker::pending::{Counted, Pending};
use crate::message::{names, properties};
use crate::store::consumequeue::QueueSlot;
use crate::store::record::{Kind, put_system};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub const VERSION: u16 = 2;
/// The layout without counts.
const UNCOUNTED: u16 = 1;
/// Milliseconds of a queue.
pub const HOUR_MS: i64 = crate::store::dispatch::TIMER_QUEUE_MS;
/// What is due within this time is in memory.
const WINDOW_MS: i64 = 60_000;
/// The next window is loaded so long before it begins.
const AHEAD_MS: i64 = 10_000;
/// Messages in memory at most; with more the window is shorter.
const NEAR_MAX: usize = 1_000_000;
/// Deliveries under way at a time.
const UNDER_WAY_MAX: usize = 1024;
/// Progress is entered in the log this often at most.
const PROGRESS_MS: u64 = 100;
/// A delivery that was refused is tried again after this.
const RETRY_MS: u64 = 100;
/// And one that the disk did not give after this.
const UNREAD_MS: u64 = 5_000;
/// A scan that the disk has no time for goes on after this.
const REST_MS: u64 = 10;
/// Recalled messages that are not due yet, of one shard.
pub const RECALLED_MAX: usize = 4_000_000;
/// Entries of a queue gone through in one step.
pub const SCAN_ENTRIES: usize = 4096;

/// What has become of a message for a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Waits,
    UnderWay,
    Delivered,
}

/// A pending message: its time, wall ms, and its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Timer {
    pub due_ms: i64,
    pub slot: QueueSlot,
    pub offset: u64,
}

/// Going through the queues of some hours for what is due before `to_ms`.
struct Scan {
    to_ms: i64,
    /// Queues still to be gone through, with the range of offsets; the last one next.
    left: Vec<(i64, QueueSlot, std::ops::Range<u64>)>,
}

/// What a scan wants next: the entries of a queue from an offset on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub slot: QueueSlot,
    pub from: u64,
    pub most: usize,
}

#[derive(Default)]
pub struct Timers {
    queues: BTreeMap<i64, QueueSlot>,
    near: BinaryHeap<Reverse<Timer>>,
    /// Everything due before is in `near`, under way or delivered.
    loaded_ms: i64,
    scan: Option<Scan>,
    /// A scan waits for the disk, or for its turn there.
    reading: bool,
    rests_until: Option<Mono>,
    /// Times of the deliveries under way, and how many have each.
    under_way: BTreeMap<i64, usize>,
    under_way_count: usize,
    /// The latest time of a delivery that was begun.
    begun_ms: i64,
    /// Deliveries under way that are to be tried again.
    later: Deadlines<Timer>,
    /// Everything due before is delivered; and as far as the log knows.
    progress_ms: i64,
    logged_ms: i64,
    progress_due: Option<Mono>,
    /// Key hashes of messages that are not to be delivered, and their times.
    recalled: Map<u64, i64>,
    unlogged: Vec<(u64, i64)>,
    /// Wall clock less monotonic clock, ms, as of the last call.
    skew_ms: i64,
    started: bool,
    /// How many wait, by topic.
    pub pending: Pending,
    /// The last record replayed has no counts; the next one says from where on there are some.
    is_uncounted: bool,
}

impl Timers {
    pub fn queue(&self, hour: i64) -> Option<QueueSlot> {
        self.queues.get(&hour).copied()
    }

    /// The hours that have a queue, from one on.
    pub fn hours_from(&self, hour: i64) -> impl Iterator<Item = (i64, QueueSlot)> {
        self.queues.range(hour..).map(|(hour, slot)| (*hour, *slot))
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.under_way_count == 0
    }

    pub fn recalled(&self) -> usize {
        self.recalled.len()
    }

    /// Replays one record.
    pub fn apply(&mut self, version: u16, payload: &[u8]) -> Result<(), String> {
        if ![VERSION, UNCOUNTED].contains(&version) {
            return Err(format!("timers of layout {version}, known is {VERSION}"));
        }
        self.is_uncounted = version == UNCOUNTED;
        self.apply_rows(&mut Cursor::new(payload))
            .ok_or_else(|| "a record of timers is cut short".to_owned())
    }

    fn apply_rows(&mut self, c: &mut Cursor<'_>) -> Option<()> {
        self.progress_ms = self.progress_ms.max(c.i64()?);
        self.logged_ms = self.progress_ms;
        for _ in 0..c.u32()? {
            let (hash, due_ms) = (c.u64()?, c.i64()?);
            self.recalled.insert(hash, due_ms);
        }
        self.prune();
        match self.is_uncounted {
            true => Some(()),
            false => self.pending.apply(c),
        }
    }

    /// A replay comes by a message that was stored for a time.
    pub fn found(&mut self, store_ms: i64, stored: &[u8]) {
        // A copy of one that is counted.
        if properties::find(stored, names::CARRIED).is_some() {
            return;
        }
        if let Some(topic) = properties::find_str(stored, names::REAL_TOPIC) {
            self.pending.store(store_ms, topic);
        }
    }

    fn prune(&mut self) {
        let progress_ms = self.progress_ms;
        self.recalled.retain(|_, due_ms| *due_ms >= progress_ms);
    }

    fn encode(&self, recalled: impl ExactSizeIterator<Item = (u64, i64)>) -> Vec<u8> {
        let mut payload = self.progress_ms.to_be_bytes().to_vec();
        payload.extend_from_slice(&(recalled.len() as u32).to_be_bytes());
        for (hash, due_ms) in recalled {
            payload.extend_from_slice(&hash.to_be_bytes());
            payload.extend_from_slice(&due_ms.to_be_bytes());
        }
        payload
    }

    pub fn dump(&self, now: Now, out: &mut Vec<u8>) {
        let recalled: Vec<_> = self.recalled.iter().map(|(k, v)| (*k, *v)).collect();
        for piece in recalled.chunks(4096) {
            let mut payload = self.encode(piece.iter().copied());
            self.pending.encode_passed(&[], &mut payload);
            put_system(out, Kind::Timer, VERSION, now.wall_ms, &payload);
        }
        for counts in self.pending.encode_all() {
            let mut payload = self.encode(std::iter::empty());
            payload.extend_from_slice(&counts);
            put_system(out, Kind::Timer, VERSION, now.wall_ms, &payload);
        }
    }

    /// After recovery: the queues there are, and where the log ends. What is overdue is delivered
    /// first.
    pub fn start(
        &mut self,
        now: Now,
        queues: impl Iterator<Item = (i64, QueueSlot)>,
        log_end: LogOffset,
    ) {
        self.queues.extend(queues);
        self.started = true;
        if self.is_uncounted {
            self.pending.begin(log_end);
        }
        if self.queues.is_empty() {
            self.pending.none_waits();
        }
        self.skew_ms = now.wall_ms - now.mono.0 as i64;
        let first = self
            .queues
            .keys()
            .next()
            .map_or(now.wall_ms, |hour| hour * HOUR_MS);
        self.loaded_ms = self.progress_ms.max(first.min(now.wall_ms));
        self.progress_ms = self.loaded_ms;
    }

    pub fn opened(&mut self, hour: i64, slot: QueueSlot) {
        self.queues.insert(hour, slot);
    }

    /// A message was stored for a time.
    pub fn add(&mut self, timer: Timer) {
        let loaded_ms = self.scan.as_ref().map_or(self.loaded_ms, |scan| scan.to_ms);
        if timer.due_ms < loaded_ms {
            self.near.push(Reverse(timer));
        }
    }

    /// The message with this key is not to be delivered. False if too many are recalled.
    pub fn recall(&mut self, hash: u64, due_ms: i64) -> bool {
        if self.recalled.len() >= RECALLED_MAX {
            return false;
        }
        self.recalled.insert(hash, due_ms);
        self.unlogged.push((hash, due_ms));
        true
    }

    pub fn is_recalled(&self, hash: u64) -> bool {
        self.recalled.contains_key(&hash)
    }

    /// The next message that is due.
    pub fn pop_due(&mut self, now: Now) -> Option<Timer> {
        self.skew_ms = now.wall_ms - now.mono.0 as i64;
        if let Some(timer) = self.later.pop_due(now.mono) {
            return Some(timer);
        }
        if self.under_way_count >= UNDER_WAY_MAX {
            return None;
        }
        let Reverse(timer) = *self.near.peek()?;
        if timer.due_ms > now.wall_ms {
            return None;
        }
        self.near.pop();
        self.begun_ms = self.begun_ms.max(timer.due_ms);
        *self.under_way.entry(timer.due_ms).or_default() += 1;
        self.under_way_count += 1;
        Some(timer)
    }

    /// The message of a timer could not be read: it is under way until that works.
    pub fn unread(&mut self, now: Now, timer: Timer) {
        self.later.push(now.mono.after_ms(UNREAD_MS), timer);
    }

    /// A delivery is over, and its message no longer counted; or it is to be tried again in a
    /// while, and under way until then.
    pub fn delivered(&mut self, now: Now, timer: Timer, counted: Counted, over: bool) {
        if !over {
            return self.later.push(now.mono.after_ms(RETRY_MS), timer);
        }
        if let Some(topic) = counted {
            self.pending.deliver(now.wall_ms, timer.due_ms, topic);
        }
        self.under_way_count -= 1;
        let with_time = self.under_way.get_mut(&timer.due_ms);
        let with_time = with_time.expect("it was under way");
        *with_time -= 1;
        if *with_time == 0 {
            self.under_way.remove(&timer.due_ms);
        }
        self.progress_due
            .get_or_insert(now.mono.after_ms(PROGRESS_MS));
    }

    /// Everything due before this is delivered.
    fn reached_ms(&self, now: Now) -> i64 {
        let near = self
            .near
            .peek()
            .map_or(i64::MAX, |Reverse(timer)| timer.due_ms);
        let under_way = self.under_way.keys().next().copied().unwrap_or(i64::MAX);
        near.min(under_way).min(self.loaded_ms).min(now.wall_ms)
    }

    /// What has become of a message that is in a queue.
    pub fn standing(&self, now: Now, due_ms: i64) -> Standing {
        match due_ms {
            _ if due_ms < self.reached_ms(now) => Standing::Delivered,
            _ if due_ms > now.wall_ms && due_ms > self.begun_ms => Standing::Waits,
            _ => Standing::UnderWay,
        }
    }

    /// The queues there are.
    pub fn slots(&self) -> impl Iterator<Item = QueueSlot> + '_ {
        self.queues.values().copied()
    }

    /// The same for who asks: if nothing waits, that is now.
    pub fn read_ms(&self, now: Now) -> i64 {
        match self.is_empty() {
            true => now.wall_ms,
            false => self.reached_ms(now),
        }
    }

    /// The payload of a record that says how far delivery has come and what was recalled, if there
    /// is something to say and it is time.
    pub fn take_unlogged(&mut self, now: Now) -> Option<Vec<u8>> {
        let due = self.progress_due.is_some_and(|due| due <= now.mono);
        if !due && self.unlogged.is_empty() && !self.is_uncounted {
            return None;
        }
        self.progress_due = None;
        let reached_ms = self.progress_ms.max(self.reached_ms(now));
        let (passed_ms, taken) = self.pending.pass(reached_ms);
        self.progress_ms = self.progress_ms.max(passed_ms);
        if passed_ms < reached_ms {
            self.progress_due = Some(now.mono);
        }
        let moved = self.progress_ms != self.logged_ms || !taken.is_empty();
        if !moved && self.unlogged.is_empty() && !self.is_uncounted {
            return None;
        }
        self.is_uncounted = false;
        self.logged_ms = self.progress_ms;
        let recalled = std::mem::take(&mut self.unlogged);
        let mut payload = self.encode(recalled.into_iter());
        self.pending.encode_passed(&taken, &mut payload);
        self.prune();
        Some(payload)
    }

    /// Queues of hours that are over and delivered, as the log knows.
    pub fn take_done(&mut self) -> Vec<QueueSlot> {
        let over = |hour: i64| (hour + 1) * HOUR_MS <= self.logged_ms;
        let done: Vec<i64> = self
            .queues
            .keys()
            .copied()
            .take_while(|hour| over(*hour))
            .collect();
        let slots = done.iter().filter_map(|hour| self.queues.remove(hour));
        let slots: Vec<_> = slots.collect();
        if !slots.is_empty() && self.is_empty() {
            self.pending.none_waits();
        }
        slots
    }

    /// Begins to load the next window if it is time; `range_of` gives the offsets of a queue, those
    /// included that nobody may see yet.
    pub fn begin_scan(
        &mut self,
        now: Now,
        mut range_of: impl FnMut(QueueSlot) -> std::ops::Range<u64>,
    ) {
        let early = now.wall_ms < self.loaded_ms - AHEAD_MS;
        if !self.started || self.scan.is_some() || early || self.near.len() >= NEAR_MAX {
            return;
        }
        let from = self.loaded_ms;
        let to_ms = (now.wall_ms + WINDOW_MS).max(from);
        let hours = from.div_euclid(HOUR_MS)..=to_ms.div_euclid(HOUR_MS);
        let mut left: Vec<_> = self
            .queues
            .range(hours)
            .map(|(hour, slot)| (*hour, *slot, range_of(*slot)))
            .collect();
        left.reverse();
        self.scan = Some(Scan { to_ms, left });
        self.reading = false;
        self.end_scan();
    }

    pub fn wanted(&self, now: Mono) -> Option<Wanted> {
        if self.reading || self.rests_until.is_some_and(|until| until > now) {
            return None;
        }
        let (_, slot, range) = self.scan.as_ref()?.left.last()?;
        let most = SCAN_ENTRIES.min((range.end - range.start) as usize);
        Some(Wanted {
            slot: *slot,
            from: range.start,
            most,
        })
    }

    /// What is wanted lies further on: what was before was stored again, or is gone.
    pub fn clip(&mut self, to: u64) {
        if let Some(scan) = &mut self.scan
            && let Some((_, _, range)) = scan.left.last_mut()
        {
            range.start = range.start.max(to);
            if range.start >= range.end {
                scan.left.pop();
            }
        }
        self.end_scan();
    }

    /// The disk has too much to do: what is wanted is asked for again in a while.
    pub fn rest(&mut self, now: Mono) {
        self.rests_until = Some(now.after_ms(REST_MS));
    }

    /// What was wanted has to come from the disk first; or it is there now.
    pub fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    /// What was wanted cannot be read: the rest of its queue is passed over.
    pub fn skip(&mut self) {
        if let Some(scan) = &mut self.scan {
            scan.left.pop();
        }
        self.end_scan();
    }

    /// The first of the entries that were wanted: for each, when in its hour it is due.
    pub fn scanned(&mut self, wanted: Wanted, times: &[u32]) {
        let Some(scan) = &mut self.scan else {
            return;
        };
        let Some((hour, slot, range)) = scan.left.last_mut() else {
            return;
        };
        for (n, within) in times.iter().enumerate() {
            let due_ms = *hour * HOUR_MS + i64::from(*within);
            if (self.loaded_ms..scan.to_ms).contains(&due_ms) {
                let offset = wanted.from + n as u64;
                self.near.push(Reverse(Timer {
                    due_ms,
                    slot: *slot,
                    offset,
                }));
            }
        }
        range.start += times.len() as u64;
        if range.start >= range.end {
            scan.left.pop();
        }
        self.shorten();
        self.end_scan();
    }

    /// Keeps the nearer half if there are too many: the others are found again.
    fn shorten(&mut self) {
        if self.near.len() <= NEAR_MAX {
            return;
        }
        let mut all = std::mem::take(&mut self.near).into_vec();
        let soonest = all.iter().map(|Reverse(timer)| timer.due_ms).min();
        let (_, middle, _) = all.select_nth_unstable_by(NEAR_MAX / 2, |a, b| b.cmp(a));
        let to_ms = middle.0.due_ms;
        if soonest < Some(to_ms) {
            all.retain(|Reverse(timer)| timer.due_ms < to_ms);
            self.loaded_ms = self.loaded_ms.min(to_ms);
            if let Some(scan) = &mut self.scan {
                scan.to_ms = scan.to_ms.min(to_ms);
            }
        }
        self.near = BinaryHeap::from(all);
    }

    fn end_scan(&mut self) {
        if self.scan.as_ref().is_some_and(|scan| scan.left.is_empty()) {
            let scan = self.scan.take().expect("just seen");
            self.loaded_ms = scan.to_ms;
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        if self.is_empty() {
            return self.progress_due;
        }
        let mono = |wall_ms: i64| Mono(wall_ms.saturating_sub(self.skew_ms).max(0) as u64);
        let room = self.under_way_count < UNDER_WAY_MAX;
        let near = self.near.peek().filter(|_| room);
        let near = near.map(|Reverse(timer)| mono(timer.due_ms));
        let rests_until = self.rests_until.unwrap_or(Mono(0));
        let wants_more = !self.queues.is_empty() && self.near.len() < NEAR_MAX;
        let load = match self.scan {
            _ if !self.started => None,
            Some(_) => (!self.reading).then_some(rests_until),
            None => wants_more.then(|| mono(self.loaded_ms - AHEAD_MS)),
        };
        let waits = [near, load, self.later.next(), self.progress_due];
        waits.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Record, walk};
    use proptest::prelude::*;

    const START_MS: i64 = 500_000 * HOUR_MS + 1234;

    fn at(ms: u64) -> Now {
        Now {
            mono: Mono(ms),
            wall_ms: START_MS + ms as i64,
        }
    }

    const TOPICS: [&str; 3] = ["a", "b", "c"];

    /// The queues as a store would keep them: times within the hour, by hour; and the log since the
    /// last snapshot, with places in it.
    #[derive(Default)]
    struct Disk {
        queues: BTreeMap<i64, Vec<u32>>,
        slots: Vec<i64>,
        snapshot: Vec<u8>,
        log: Vec<Logged>,
        /// Records before the log.
        begins: u64,
        /// Topic and place of each message.
        kept: Map<(QueueSlot, u64), (&'static str, u64)>,
    }

    enum Logged {
        Message(&'static str),
        Record(Vec<u8>),
    }

    impl Disk {
        fn end(&self) -> u64 {
            self.begins + self.log.len() as u64
        }

        fn checkpoint(&mut self, table: &Timers, now: Now) {
            self.begins = self.end();
            (self.snapshot, self.log) = (Vec::new(), Vec::new());
            table.dump(now, &mut self.snapshot);
        }

        fn save(&mut self, table: &mut Timers, now: Now) {
            self.log
                .extend(table.take_unlogged(now).map(Logged::Record));
        }

        fn deliver(&self, table: &mut Timers, now: Now, timer: Timer, over: bool) {
            let (topic, at) = self.kept[&(timer.slot, timer.offset)];
            let counted = table.pending.counted(topic, LogOffset(at));
            table.delivered(now, timer, counted, over);
        }

        fn store(&mut self, table: &mut Timers, due_ms: i64, topic: &'static str) -> Timer {
            let hour = due_ms.div_euclid(HOUR_MS);
            let slot = match table.queue(hour) {
                Some(slot) => slot,
                None => {
                    self.slots.push(hour);
                    let slot = QueueSlot(self.slots.len() as u32 - 1);
                    table.opened(hour, slot);
                    slot
                }
            };
            let queue = self.queues.entry(hour).or_default();
            queue.push(due_ms.rem_euclid(HOUR_MS) as u32);
            let offset = queue.len() as u64 - 1;
            let timer = Timer {
                due_ms,
                slot,
                offset,
            };
            table.add(timer);
            table.pending.store(due_ms, topic);
            self.kept.insert((slot, offset), (topic, self.end()));
            self.log.push(Logged::Message(topic));
            timer
        }

        fn of(&self, slot: QueueSlot) -> &[u32] {
            &self.queues[&self.slots[slot.0 as usize]]
        }

        fn load(&self, table: &mut Timers, now: Now) {
            table.begin_scan(now, |slot| 0..self.of(slot).len() as u64);
            while let Some(wanted) = table.wanted(now.mono) {
                let from = wanted.from as usize;
                let times = &self.of(wanted.slot)[from..from + wanted.most];
                table.scanned(wanted, times);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Store(u32),
        Pass(u32),
        Refuse,
        /// A snapshot of everything.
        Checkpoint,
        /// From the last snapshot and the log behind it.
        Restart,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => prop_oneof![0..2_000u32, 0..200_000u32, 0..9_000_000u32].prop_map(Op::Store),
            5 => prop_oneof![0..500u32, 0..100_000u32, 0..5_000_000u32].prop_map(Op::Pass),
            1 => Just(Op::Refuse),
            1 => Just(Op::Checkpoint),
            1 => Just(Op::Restart),
        ]
    }

    fn restarted(table: &Timers, disk: &Disk, now: Now) -> Timers {
        let mut again = Timers::default();
        for record in walk(&disk.snapshot) {
            let Ok((
                _,
                Record::System {
                    version, payload, ..
                },
            )) = record
            else {
                panic!("{record:?}");
            };
            again.apply(version, payload).unwrap();
        }
        for logged in &disk.log {
            match logged {
                Logged::Message(topic) => {
                    again.found(0, format!("REAL_TOPIC\u{1}{topic}\u{2}").as_bytes());
                }
                Logged::Record(payload) => again.apply(VERSION, payload).unwrap(),
            }
        }
        let slots = disk.slots.iter().enumerate();
        let known = slots.filter(|(_, hour)| table.queue(**hour).is_some());
        let known = known.map(|(n, hour)| (*hour, QueueSlot(n as u32)));
        again.start(now, known, LogOffset(disk.end()));
        again
    }

    fn waits(table: &Timers) -> BTreeMap<String, u64> {
        let counts = table.pending.counts().filter(|(_, count)| count.waits > 0);
        counts
            .map(|(topic, count)| (topic.to_string(), count.waits))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn everything_is_delivered_in_its_time_and_not_before(
            ops in prop::collection::vec(op(), 1..80)
        ) {
            let (mut table, mut disk) = (Timers::default(), Disk::default());
            table.start(at(0), std::iter::empty(), LogOffset(0));
            let (mut ms, mut refuse, mut restarts) = (0u64, false, 0);
            // When each is due, how often it was delivered, and whether it still is to be.
            let mut model: BTreeMap<(QueueSlot, u64), (i64, u32, bool)> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Store(wait) => {
                        let due_ms = at(ms).wall_ms + 1 + i64::from(wait);
                        let topic = TOPICS[wait as usize % TOPICS.len()];
                        let timer = disk.store(&mut table, due_ms, topic);
                        model.insert((timer.slot, timer.offset), (due_ms, 0, true));
                    }
                    Op::Pass(by) => ms += u64::from(by),
                    Op::Refuse => refuse = true,
                    Op::Checkpoint => disk.checkpoint(&table, at(ms)),
                    Op::Restart => {
                        table = restarted(&table, &disk, at(ms));
                        restarts += 1;
                        for known in model.values_mut() {
                            known.2 |= known.0 >= table.progress_ms;
                        }
                    }
                }
                // As a broker would wake: at each deadline up to now.
                for _ in 0..10_000 {
                    disk.load(&mut table, at(ms));
                    while let Some(timer) = table.pop_due(at(ms)) {
                        let over = !std::mem::take(&mut refuse);
                        if over {
                            let known = model.get_mut(&(timer.slot, timer.offset)).unwrap();
                            prop_assert!(known.0 <= at(ms).wall_ms, "early");
                            (known.1, known.2) = (known.1 + 1, false);
                        }
                        disk.deliver(&mut table, at(ms), timer, over);
                    }
                    disk.save(&mut table, at(ms));
                    table.take_done();
                    if table.deadline().is_none_or(|due| due > at(ms).mono) {
                        break;
                    }
                }
                let mut left: BTreeMap<String, u64> = BTreeMap::new();
                for (place, _) in model.iter().filter(|(_, known)| known.2) {
                    *left.entry(disk.kept[place].0.to_owned()).or_default() += 1;
                }
                prop_assert_eq!(waits(&table), left);
            }
            // A refused one is tried again.
            ms += 1000;
            disk.load(&mut table, at(ms));
            while let Some(timer) = table.pop_due(at(ms)) {
                model.get_mut(&(timer.slot, timer.offset)).unwrap().1 += 1;
                disk.deliver(&mut table, at(ms), timer, true);
            }
            for (place, (due_ms, times, _)) in model {
                let is_due = due_ms <= at(ms).wall_ms;
                prop_assert!(times > 0 || !is_due, "{place:?} is late");
                prop_assert!(times <= 1 + restarts, "{place:?} came {times} times");
                prop_assert!(is_due || times == 0);
            }
        }
    }

    #[test]
    fn recalls_are_kept_until_their_time_is_over() {
        let mut table = Timers::default();
        table.start(at(0), std::iter::empty(), LogOffset(0));
        assert!(table.recall(7, START_MS + 1000));
        let payload = table.take_unlogged(at(0)).unwrap();
        let mut again = Timers::default();
        again.apply(VERSION, &payload).unwrap();
        assert!(again.is_recalled(7) && !again.is_recalled(8));
        let mut disk = Disk::default();
        disk.checkpoint(&again, at(10));
        assert_eq!(restarted(&again, &disk, at(10)).recalled(), 1);
        assert!(again.apply(VERSION, &payload[1..]).is_err());
    }

    /// Layout 1 had no counts: what waits then is delivered, and takes nothing away from what is
    /// counted later.
    #[test]
    fn an_older_store_counts_from_its_first_start_on() {
        let mut disk = Disk::default();
        let mut old = Timers::default();
        old.start(at(0), std::iter::empty(), LogOffset(0));
        disk.store(&mut old, at(50).wall_ms, "a");
        let mut payload = at(0).wall_ms.to_be_bytes().to_vec();
        payload.extend_from_slice(&0u32.to_be_bytes());
        put_system(&mut disk.snapshot, Kind::Timer, UNCOUNTED, 0, &payload);
        let mut table = restarted(&old, &disk, at(10));
        disk.save(&mut table, at(10));
        disk.store(&mut table, at(60).wall_ms, "a");
        for mut table in [restarted(&table, &disk, at(20)), table] {
            assert_eq!(waits(&table), BTreeMap::from([("a".to_owned(), 1)]));
            disk.load(&mut table, at(100));
            for left in [1, 0] {
                let timer = table.pop_due(at(100)).unwrap();
                disk.deliver(&mut table, at(100), timer, true);
                let counted: u64 = waits(&table).values().sum();
                assert_eq!(counted, left, "the older one first");
            }
        }
        assert!(Timers::default().apply(VERSION + 1, &payload).is_err());
    }
}
