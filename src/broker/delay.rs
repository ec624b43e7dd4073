//! Delay levels: messages stored under `SCHEDULE_TOPIC_XXXX`, queue level − 1, and moved to their
//! real topic when their time has come.
//!
//! The shard that owns a level's queue delivers it, in order, a window of messages at a time. How
//! far a level has come is a `DelayProgress` record; it is behind what was delivered by at most
//! [`PROGRESS_MS`], so a crash repeats that much and loses nothing.
//!
//! `DelayProgress` payload, big-endian: count u32, then for each: level u32, next offset u64.
//!
//! Source: `ScheduleMessageService`, `spec/semantics.md` §6.

use crate::base::cursor::Cursor;
use crate::base::{Mono, Now, QueueOffset};
use crate::broker::control::names::SCHEDULE_TOPIC;
use crate::broker::puts::{OwnedMessage, Purpose};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::Draft;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use crate::store::record::{Kind, put_system};
use std::collections::VecDeque;

pub const VERSION: u16 = 1;
/// Deliveries of one level under way at a time.
const WINDOW: usize = 256;
/// Progress is entered in the log this often at most.
const PROGRESS_MS: u64 = 100;
/// A delivery that was refused is tried again after this.
const RETRY_MS: u64 = 100;
/// Reads of delayed messages wait under this number and the level.
pub const WAITER_BASE: u64 = 1 << 62;
/// And the search for messages whose time is near under this one.
pub const TIMER_WAITER: u64 = WAITER_BASE + (1 << 32);

struct Level {
    delay_ms: i64,
    slot: Option<QueueSlot>,
    /// Everything below is delivered, and said so in the log or soon will be.
    progress: u64,
    logged: u64,
    /// Deliveries behind `progress`: true once done.
    window: VecDeque<bool>,
    wake: Option<Mono>,
    /// A read from the disk is under way.
    reading: bool,
}

/// How far a level is.
pub struct Standing {
    pub delay_ms: i64,
    pub progress: u64,
    /// Something is being delivered.
    pub is_busy: bool,
}

pub struct Delays {
    levels: Vec<Level>,
    progress_due: Option<Mono>,
    /// Some level has a queue.
    has_queues: bool,
}

impl Delays {
    pub fn new(delays_ms: Vec<i64>) -> Self {
        let level = |delay_ms| Level {
            delay_ms,
            slot: None,
            progress: 0,
            logged: 0,
            window: VecDeque::new(),
            wake: None,
            reading: false,
        };
        Delays {
            levels: delays_ms.into_iter().map(level).collect(),
            progress_due: None,
            has_queues: false,
        }
    }

    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    pub fn apply(&mut self, version: u16, payload: &[u8]) -> Result<(), String> {
        if version != VERSION {
            return Err(format!(
                "delay progress of layout {version}, known is {VERSION}"
            ));
        }
        let mut c = Cursor::new(payload);
        let cut = || "delay progress cut short".to_owned();
        for _ in 0..c.u32().ok_or_else(cut)? {
            let level = c.u32().ok_or_else(cut)? as usize;
            let offset = c.u64().ok_or_else(cut)?;
            // Levels taken out of the configuration keep their messages but are not delivered.
            if let Some(level) = self.levels.get_mut(level) {
                (level.progress, level.logged) = (offset, offset);
            }
        }
        Ok(())
    }

    pub fn dump(&self, now: Now, out: &mut Vec<u8>) {
        let payload = self.encode();
        put_system(out, Kind::DelayProgress, VERSION, now.wall_ms, &payload);
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut payload = (self.levels.len() as u32).to_be_bytes().to_vec();
        for (number, level) in self.levels.iter().enumerate() {
            payload.extend_from_slice(&(number as u32).to_be_bytes());
            payload.extend_from_slice(&level.progress.to_be_bytes());
        }
        payload
    }

    /// Up to where the levels are delivered that ever had a message here, level 1 first.
    pub fn progress(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let levels = (1..).zip(&self.levels);
        let begun = levels.filter(|(_, level)| level.slot.is_some());
        begun.map(|(number, level)| (number, level.progress))
    }

    /// The queues of levels, and the first offset of each that is not delivered.
    pub fn levels_from(&self) -> impl Iterator<Item = (QueueSlot, u64)> + '_ {
        let levels = self.levels.iter();
        levels.filter_map(|level| Some((level.slot?, level.progress)))
    }

    /// How far a level is that has a queue here.
    pub fn place(&self, level: usize) -> Option<Standing> {
        let level = self
            .levels
            .get(level)
            .filter(|level| level.slot.is_some())?;
        Some(Standing {
            delay_ms: level.delay_ms,
            progress: level.progress,
            is_busy: !level.window.is_empty() || level.reading,
        })
    }

    /// Everything below is delivered, or was stored elsewhere; nothing is under way.
    pub fn pass(&mut self, level: usize, to: u64) {
        let level = &mut self.levels[level];
        assert!(level.window.is_empty() && level.progress <= to);
        level.progress = to;
        level.wake.get_or_insert(Mono(0));
    }

    /// Queue and delay of the same levels, with what is delivered next.
    pub fn waiting(&self) -> impl Iterator<Item = (i32, QueueSlot, i64, u64)> + '_ {
        let levels = (1..).zip(&self.levels);
        levels.filter_map(|(n, level)| Some((n, level.slot?, level.delay_ms, level.progress)))
    }

    /// A queue has a new visible message.
    pub fn notice(&mut self, slot: QueueSlot) {
        // Most brokers never see a delayed message, and all see this call for each message.
        if !self.has_queues {
            return;
        }
        for level in self
            .levels
            .iter_mut()
            .filter(|level| level.slot == Some(slot))
        {
            level.wake.get_or_insert(Mono(0));
        }
    }

    /// Bytes that a level waited for are there.
    pub fn bytes_came(&mut self, level: usize) {
        if let Some(level) = self.levels.get_mut(level) {
            level.reading = false;
            level.wake = Some(Mono(0));
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        let wakes = self.levels.iter().filter_map(|level| level.wake);
        wakes.chain(self.progress_due).min()
    }

    /// A delivery of `level` is over, or was refused and must be tried again.
    pub fn delivered(&mut self, now: Now, level: usize, offset: u64, over: bool) {
        let level = &mut self.levels[level];
        if !over {
            // Everything from here on is delivered again: a repetition, not a loss.
            let keep = offset.saturating_sub(level.progress) as usize;
            level.window.truncate(keep);
            level.wake = Some(now.mono.after_ms(RETRY_MS));
            return;
        }
        let at = offset.checked_sub(level.progress).map(|at| at as usize);
        if let Some(done) = at.and_then(|at| level.window.get_mut(at)) {
            *done = true;
        }
        while level.window.front() == Some(&true) {
            level.window.pop_front();
            level.progress += 1;
        }
        level.wake.get_or_insert(now.mono);
        self.progress_due
            .get_or_insert(now.mono.after_ms(PROGRESS_MS));
    }
}

impl Broker {
    /// Finds the levels whose queues are owned here; after recovery and the first snapshot.
    pub(super) fn start_delays(&mut self) {
        for number in 0..self.delays.levels.len() {
            self.find_level(number);
        }
    }

    fn find_level(&mut self, number: usize) {
        let slot = self.store.queues().find(SCHEDULE_TOPIC, number as i32);
        let level = &mut self.delays.levels[number];
        if level.slot.is_none() && slot.is_some() {
            level.slot = slot;
            level.wake = Some(Mono(0));
            self.delays.has_queues = true;
        }
    }

    /// Delivers what is due, and says in the log how far it has come.
    pub(super) fn deliver_delayed(&mut self, now: Now, out: &mut Outbox<Peer>) {
        for number in 0..self.delays.levels.len() {
            let level = &mut self.delays.levels[number];
            if level.wake.is_some_and(|wake| wake <= now.mono) {
                level.wake = None;
                while self.deliver_next(now, number, out) {}
            }
        }
        if self.delays.progress_due.is_some_and(|due| due <= now.mono) {
            self.delays.progress_due = None;
            self.log_delays(now);
        }
    }

    /// Says in the log how far the levels are.
    pub(super) fn log_delays(&mut self, now: Now) {
        let payload = self.delays.encode();
        let entered = self
            .store
            .append_system(now, Kind::DelayProgress, VERSION, &payload)
            .is_ok();
        for level in self.delays.levels.iter_mut().filter(|_| entered) {
            level.logged = level.progress;
        }
    }

    /// Starts the next delivery of a level; false if there is none now.
    fn deliver_next(&mut self, now: Now, number: usize, out: &mut Outbox<Peer>) -> bool {
        let level = &mut self.delays.levels[number];
        let Some(slot) = level.slot else { return false };
        if level.reading || level.window.len() >= WINDOW {
            return false;
        }
        let offset = QueueOffset(level.progress + level.window.len() as u64);
        let (min, end) = self.store.visible_range(slot);
        if offset < min {
            level.progress = min.0;
            level.window.clear();
            return true;
        }
        if offset >= end {
            return false;
        }
        let waiter = WaiterId(WAITER_BASE + number as u64);
        let entry = match self.store.entry(slot, offset, waiter) {
            Fetch::Ready(entry) => entry,
            other => return self.delivery_stalled(now, number, other.map(|_| ())),
        };
        let record = match self.store.record(&entry, waiter) {
            Fetch::Ready(record) => record,
            other => return self.delivery_stalled(now, number, other.map(|_| ())),
        };
        let Ok(view) = RecordView::parse(&record) else {
            return self.skip_delivery(number);
        };
        let level = &mut self.delays.levels[number];
        let due_ms = view.store_timestamp().saturating_add(level.delay_ms);
        let wait_ms = due_ms.saturating_sub(now.wall_ms).min(level.delay_ms);
        if wait_ms > 0 {
            level.wake = Some(now.mono.after_ms(wait_ms as u64));
            return false;
        }
        let Some(message) = due_message(&view) else {
            return self.skip_delivery(number);
        };
        level.window.push_back(false);
        let purpose = Purpose::Delayed {
            level: number,
            offset: offset.0,
        };
        self.request_put(now, message, 1, purpose, out);
        // A refusal on the spot has set a time for the next try.
        let level = &self.delays.levels[number];
        level.wake.is_none_or(|wake| wake <= now.mono)
    }

    fn delivery_stalled(&mut self, now: Now, number: usize, why: Fetch<()>) -> bool {
        match why {
            Fetch::Wait => self.delays.levels[number].reading = true,
            Fetch::Busy => {
                self.delays.levels[number].wake = Some(now.mono.after_ms(RETRY_MS));
            }
            Fetch::Damaged(_) | Fetch::Missing => return self.skip_delivery(number),
            Fetch::Ready(()) => unreachable!("what is ready does not stall"),
        }
        false
    }

    /// A delayed message that cannot be read is counted and passed over: it must not hold up those
    /// behind it.
    fn skip_delivery(&mut self, number: usize) -> bool {
        self.stats.undeliverable += 1;
        let level = &mut self.delays.levels[number];
        level.window.push_back(true);
        while level.window.front() == Some(&true) {
            level.window.pop_front();
            level.progress += 1;
        }
        true
    }

    /// A delayed message was stored here: its level has a queue now.
    pub(super) fn notice_delayed(&mut self, level: usize) {
        self.find_level(level);
    }
}

/// The message as it was before it was delayed. As in the reference it keeps the properties that
/// tell of the delay.
pub fn due_message(view: &RecordView<'_>) -> Option<OwnedMessage> {
    let stored = view.properties();
    let topic = properties::find_str(stored, names::REAL_TOPIC)?;
    let queue_id = properties::find_str(stored, names::REAL_QUEUE_ID)?
        .parse()
        .ok()?;
    Some(OwnedMessage::of(&Draft {
        topic,
        queue_id,
        ..Draft::of(view)
    }))
}
