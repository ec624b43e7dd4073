//! Space: which segments go, and the steps in which they do.
//!
//! Segments whose newest record is older than `fileReservedTime` go, oldest first, never the one
//! that is written to. For a *cut*, the end of the last segment that goes:
//!
//! 1. Both checkpoints replay from behind the cut. So nothing that goes is needed to recover, not
//!    even if the newer checkpoint is found broken, and all index entries below are in runs.
//! 2. Whatever must outlive its segment is found by a walk through the log below the cut, and the
//!    owner of this store stores it again ([`Store::next_found`]).
//! 3. Where each queue begins behind the cut is measured in the index.
//! 4. A `Retained` record says so. Once it is durable, and with it all that was stored again, the
//!    new beginnings are shown. So they never go back.
//! 5. The files are removed, one after the other, the oldest first.
//!
//! A crash between any two steps begins again at the first, or, after the fourth, goes on with the
//! fifth. What was stored again knows that it was: see the owner.
//!
//! `Retained` payload, big-endian: log offset u64 below which nothing is left; count u32, then for
//! each a queue slot u32 and its first offset u64; count u32, then for each segment that has ended
//! its first log offset u64 and the time of its newest record i64 (snapshots only).
//!
//! Not here: what is carried over, and how (`broker::carry`).

use crate::base::cursor::Cursor;
use crate::base::disk::{Dir, DiskError, Space, Work};
use crate::base::{LogOffset, Mono, Now, QueueOffset};
use crate::message::view::RecordView;
use crate::store::batch::{BatchHeader, HEADER_BYTES, Lineage};
use crate::store::consumequeue::{QueueIndex, QueueSlot};
use crate::store::entries::{ENTRY_BYTES, Entry, Row};
use crate::store::merge::Reader;
use crate::store::record::{Kind, Record, walk};
use crate::store::replay::Replay;
use crate::store::runs::Run;
use crate::store::segment::{FOLDER, file_name, first_offset};
use crate::store::{Refused, Sabotage, Store, Task};
use std::collections::{BTreeMap, VecDeque};

/// Layout version of the payload above.
pub const VERSION: u16 = 1;
/// Ages are looked at so often at most, and at least.
const LOOK_MS: (u64, u64) = (20, 10_000);
/// What could not be carried over, or not be removed, is tried again after this.
const RETRY_MS: u64 = 200;
const FAILED_MS: u64 = 10_000;
/// Segments that go together.
const SEGMENTS_MAX: usize = 64;
/// The disk is looked at so often (`cleanResourceInterval`).
const SPACE_MS: u64 = 10_000;
/// Log that one step of a walk goes through, and what it may bring back.
const WALK_BYTES: u64 = 4 * 1024 * 1024;
const FOUND_BYTES_MAX: usize = 1024 * 1024;
/// Blocks of an index run that one step of measuring reads.
const BLOCKS_MAX: usize = 64;
/// Queues of one `Retained` record.
const QUEUES_MAX: usize = 4096;

/// What a `Retained` record says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retained {
    pub min: LogOffset,
    pub queues: Vec<(QueueSlot, QueueOffset)>,
    pub ended: Vec<Ended>,
}

/// A segment that is written no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    pub first: LogOffset,
    /// Nothing in it was stored later, ms.
    pub last_ms: i64,
}

impl Retained {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.min.0.to_be_bytes().to_vec();
        out.extend_from_slice(&(self.queues.len() as u32).to_be_bytes());
        for (slot, min) in &self.queues {
            out.extend_from_slice(&slot.0.to_be_bytes());
            out.extend_from_slice(&min.0.to_be_bytes());
        }
        out.extend_from_slice(&(self.ended.len() as u32).to_be_bytes());
        for ended in &self.ended {
            out.extend_from_slice(&ended.first.0.to_be_bytes());
            out.extend_from_slice(&ended.last_ms.to_be_bytes());
        }
        out
    }

    pub fn decode(version: u16, payload: &[u8]) -> Option<Retained> {
        if version != VERSION {
            return None;
        }
        let mut c = Cursor::new(payload);
        let min = LogOffset(c.u64()?);
        let queues = c.u32()?;
        let queue = |c: &mut Cursor<'_>| Some((QueueSlot(c.u32()?), QueueOffset(c.u64()?)));
        let queues: Option<Vec<_>> = (0..queues).map(|_| queue(&mut c)).collect();
        let ended = c.u32()?;
        let segment = |c: &mut Cursor<'_>| {
            let first = LogOffset(c.u64()?);
            let last_ms = c.i64()?;
            Some(Ended { first, last_ms })
        };
        let ended: Option<Vec<_>> = (0..ended).map(|_| segment(&mut c)).collect();
        Some(Retained {
            min,
            queues: queues?,
            ended: ended?,
        })
    }
}

/// A record below the cut of which its owner has to say whether it is still needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where the message lies: the record, or what it carries.
    pub at: LogOffset,
    /// It was carried over before, by a record of its own.
    pub carried: bool,
    pub message: Vec<u8>,
}

/// What was removed, counted from the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    pub segments: u64,
    pub bytes: u64,
    /// Files that could not be removed, each try.
    pub failures: u64,
}

impl Reclaimed {
    pub fn add(&mut self, other: Reclaimed) {
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.failures += other.failures;
    }
}

/// Segments that have gone together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed {
    pub from: LogOffset,
    pub to: LogOffset,
    pub segments: u64,
    /// When the newest record in them was stored, ms.
    pub last_ms: i64,
}

enum Stage {
    Idle,
    Walking(Walk),
    Measuring(Measure),
    Noted {
        cut: LogOffset,
        until: LogOffset,
        mins: Vec<(QueueSlot, QueueOffset)>,
    },
}

/// A walk through the log for what is needed longer than its segment.
struct Walk {
    cut: LogOffset,
    topics: &'static [&'static str],
    at: LogOffset,
    reading: bool,
    found: VecDeque<Found>,
    /// The owner could not do with the first what has to be done.
    again: Option<Mono>,
}

/// Finding the first offset of each queue behind the cut.
struct Measure {
    cut: LogOffset,
    /// The run that the cut lies in, and the row to go on with.
    run: Option<Run>,
    row: usize,
    busy: bool,
    mins: BTreeMap<QueueSlot, u64>,
}

/// How full the disk is, as far as it matters.
#[derive(Default)]
struct SpaceLook {
    next: Mono,
    busy: bool,
    /// It was fuller than it may be, and nothing has gone since.
    pressed: bool,
    percent: Option<u64>,
}

/// Where the reclaiming of space stands.
pub struct Retention {
    /// Segments that have ended and are there, oldest first.
    ended: VecDeque<Ended>,
    /// Nothing below is shown.
    min: LogOffset,
    /// The first segment of which there is a file.
    files_from: LogOffset,
    /// When its first record was stored, ms.
    first_ms: Option<i64>,
    stage: Stage,
    next_look: Mono,
    space: SpaceLook,
    /// A checkpoint is waited for, and the disk is full.
    wants_checkpoint: bool,
    /// A file is being removed.
    removing: bool,
    failed_until: Option<Mono>,
    batch: Option<Removed>,
    /// Batches that are gone and were not told.
    told: VecDeque<Removed>,
    pub reclaimed: Reclaimed,
}

impl Retention {
    /// `first_ms` is when the first record of the segment at `min` was stored.
    pub fn new(
        min: LogOffset,
        files_from: LogOffset,
        first_ms: Option<i64>,
        ended: VecDeque<Ended>,
    ) -> Self {
        Retention {
            // Others are only waiting to be removed.
            ended: ended
                .into_iter()
                .filter(|ended| ended.first >= min)
                .collect(),
            min,
            files_from: files_from.min(min),
            first_ms,
            stage: Stage::Idle,
            next_look: Mono(0),
            space: SpaceLook::default(),
            wants_checkpoint: false,
            removing: false,
            failed_until: None,
            batch: None,
            told: VecDeque::new(),
            reclaimed: Reclaimed::default(),
        }
    }

    /// What a snapshot keeps.
    pub fn state(&self) -> Retained {
        // What the log says already counts, though it is not shown yet: a replay from this
        // snapshot does not come by it again.
        let (min, queues) = match &self.stage {
            Stage::Noted { cut, mins, .. } => (*cut, mins.clone()),
            _ => (self.min, Vec::new()),
        };
        let ended = self.ended.iter().filter(|ended| ended.first >= min);
        Retained {
            min,
            queues,
            ended: ended.copied().collect(),
        }
    }

    pub fn min(&self) -> LogOffset {
        self.min
    }

    /// When the oldest record was stored, ms; `None` if nothing was when the log was opened.
    pub fn first_ms(&self) -> Option<i64> {
        self.first_ms
    }

    /// When the owner should look after it.
    pub fn deadline(&self) -> Option<Mono> {
        let cut = match &self.stage {
            Stage::Idle if self.ended.is_empty() => None,
            Stage::Idle => Some(self.next_look),
            Stage::Walking(walk) if walk.found.is_empty() => None,
            Stage::Walking(walk) => Some(walk.again.unwrap_or(Mono(0))),
            Stage::Measuring(_) | Stage::Noted { .. } => None,
        };
        cut.into_iter().chain(self.failed_until).min()
    }

    /// Whether a checkpoint should be made soon.
    pub fn wants_checkpoint(&self) -> bool {
        self.wants_checkpoint
    }

    /// One begins.
    pub fn checkpoint_begins(&mut self) {
        self.wants_checkpoint = false;
    }

    /// How much of the disk is used, percent, if anybody has looked.
    pub fn disk_percent(&self) -> Option<u64> {
        self.space.percent
    }

    /// When the disk is looked at, if there is something that could go.
    fn space_due(&self) -> Option<Mono> {
        let waits = self.ended.is_empty() || self.space.busy;
        (!waits).then_some(self.space.next)
    }
}

impl Store {
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    /// The log offset that nothing is left below.
    pub fn log_min(&self) -> LogOffset {
        self.retention.min
    }

    /// Where the log may be cut now: the end of the last segment of those that are too old.
    pub fn retention_cut(&mut self, now: Now) -> Option<LogOffset> {
        if !matches!(self.retention.stage, Stage::Idle) || self.retention.next_look > now.mono {
            return None;
        }
        let kept_ms = self.options.retention_ms;
        let look_ms = (kept_ms / 20).clamp(LOOK_MS.0, LOOK_MS.1);
        self.retention.next_look = now.mono.after_ms(look_ms);
        let oldest_ms = now.wall_ms.saturating_sub(kept_ms as i64);
        let is_old = |ended: &Ended| ended.last_ms < oldest_ms;
        let ended = &self.retention.ended;
        // Each look at the disk counts once: it may have changed since.
        let pressed = std::mem::take(&mut self.retention.space.pressed);
        let many = ended.iter().take_while(|ended| is_old(ended)).count();
        // No more than one before its time, then the disk is looked at again.
        let old = ended.iter().take(many.max(usize::from(pressed)));
        let safe = self.checkpoints.older();
        let ends = old.map(|ended| LogOffset(ended.first.0 + self.options.segment_bytes));
        let ends: Vec<LogOffset> = ends.take(SEGMENTS_MAX).collect();
        let cut = ends.iter().rev().find(|end| **end <= safe).copied();
        let waits = cut.is_none() && !ends.is_empty();
        self.retention.wants_checkpoint = waits && pressed;
        if waits && self.is_checkpointed() {
            // Nothing is written, so no checkpoint would be made.
            let _ = self.note_retained(now, Vec::new());
        }
        cut
    }

    fn gather_ended(&mut self) {
        let ended = self.log.segments().take_ended();
        self.retention.ended.extend(ended);
    }

    /// Begins to cut. Messages of `topics` below are shown by [`next_found`](Self::next_found);
    /// nothing is looked for if there are none.
    pub fn begin_retention(&mut self, cut: LogOffset, topics: &'static [&'static str]) {
        assert!(matches!(self.retention.stage, Stage::Idle), "one at a time");
        if topics.is_empty() || self.options.sabotage == Sabotage::CutWithoutCarry {
            return self.begin_measure(cut);
        }
        self.retention.stage = Stage::Walking(Walk {
            cut,
            topics,
            at: self.retention.min.max(self.retention.files_from),
            reading: false,
            found: VecDeque::new(),
            again: None,
        });
    }

    fn begin_measure(&mut self, cut: LogOffset) {
        let (mins, run) = self.index.below(cut);
        self.retention.stage = Stage::Measuring(Measure {
            cut,
            run,
            row: 0,
            busy: false,
            mins,
        });
    }

    /// The next record below the cut that may be needed.
    pub fn next_found(&mut self) -> Option<Found> {
        match &mut self.retention.stage {
            Stage::Walking(walk) => {
                walk.again = None;
                walk.found.pop_front()
            }
            _ => None,
        }
    }

    /// It is needed where it lies, for a while.
    pub fn found_stays(&mut self, now: Now, found: Found) {
        if let Stage::Walking(walk) = &mut self.retention.stage {
            walk.found.push_front(found);
            walk.again = Some(now.mono.after_ms(RETRY_MS));
        }
    }

    /// A checkpoint was made: segments that wait for it may go, if the disk still is too full.
    pub(super) fn look_soon(&mut self) {
        self.retention.space.next = Mono(0);
    }

    /// The owner is not ready.
    pub fn look_later(&mut self, now: Now) {
        self.retention.next_look = now.mono.after_ms(RETRY_MS);
    }

    /// A queue begins later now: what lay before was stored again, in the same batch.
    pub fn carried_to(&mut self, now: Now, slot: QueueSlot, min: QueueOffset) {
        if self.note_retained(now, vec![(slot, min)]).is_ok() {
            self.index.raise_min(slot, min);
        }
    }

    /// Bytes of the record that [`carried_to`](Self::carried_to) appends.
    pub const CARRIED_TO_BYTES: usize = 20 + 8 + 4 + 12 + 4;

    fn note_retained(
        &mut self,
        now: Now,
        queues: Vec<(QueueSlot, QueueOffset)>,
    ) -> Result<LogOffset, Refused> {
        let retained = Retained {
            min: self.retention.min,
            queues,
            ended: Vec::new(),
        };
        self.append_system(now, Kind::Retained, VERSION, &retained.encode())
    }

    /// The next piece of work, and what becomes true by itself.
    pub(super) fn poll_retention(&mut self, now: Now) -> Option<(Task, Work)> {
        self.gather_ended();
        self.show_retained();
        if let Some(work) = self.poll_remove(now) {
            return Some((Task::Remove, work));
        }
        if self
            .retention
            .space_due()
            .is_some_and(|due| due <= now.mono)
        {
            self.retention.space.busy = true;
            return Some((Task::Space, Box::new(look_at_space)));
        }
        match &mut self.retention.stage {
            Stage::Walking(walk) if !walk.reading && walk.found.is_empty() => {
                if walk.at >= walk.cut {
                    let cut = walk.cut;
                    self.begin_measure(cut);
                    return self.poll_retention(now);
                }
                walk.reading = true;
                let (at, cut, topics) = (walk.at, walk.cut, walk.topics);
                let (lineage, bytes) = (self.log.lineage(), self.options.segment_bytes);
                let work = move |dir: &dyn Dir| look(dir, bytes, lineage, at, cut, topics);
                Some((Task::Retention, Box::new(work)))
            }
            Stage::Measuring(measure) if !measure.busy => {
                let left = measure.run.as_ref();
                let Some(run) = left.filter(|run| measure.row < run.blocks()).cloned() else {
                    self.note_cut(now);
                    return None;
                };
                measure.busy = true;
                let (cut, row) = (measure.cut, measure.row);
                Some((
                    Task::Retention,
                    Box::new(move |dir: &dyn Dir| measure_run(dir, &run, cut, row)),
                ))
            }
            _ => None,
        }
    }

    /// Says in the log what is about to go.
    fn note_cut(&mut self, now: Now) {
        let Stage::Measuring(measure) = std::mem::replace(&mut self.retention.stage, Stage::Idle)
        else {
            unreachable!("called while measuring");
        };
        let (cut, index) = (measure.cut, &self.index);
        let mins = measure.mins.into_iter();
        let mins = mins.map(|(slot, min)| (slot, QueueOffset(min)));
        let rises = |(slot, min): &(QueueSlot, QueueOffset)| {
            index.min(*slot) < *min && *min <= index.next(*slot)
        };
        let mins: Vec<_> = mins.filter(rises).collect();
        for piece in mins.chunks(QUEUES_MAX) {
            if self.note_retained(now, piece.to_vec()).is_err() {
                return;
            }
        }
        let last = Retained {
            min: cut,
            ..Retained::default()
        };
        let noted = self.append_system(now, Kind::Retained, VERSION, &last.encode());
        if let Ok(until) = noted {
            self.retention.stage = Stage::Noted { cut, until, mins };
            if self.options.sabotage != Sabotage::UnlinkBeforeDurable {
                self.want_durable(until);
            }
        }
    }

    /// What the log says durably is shown.
    fn show_retained(&mut self) {
        let Stage::Noted { cut, until, mins } = &mut self.retention.stage else {
            return;
        };
        let hasty = self.options.sabotage == Sabotage::UnlinkBeforeDurable;
        if self.log.durable() < *until && !hasty {
            return;
        }
        let (cut, mins) = (*cut, std::mem::take(mins));
        self.retention.stage = Stage::Idle;
        for (slot, min) in mins {
            self.index.raise_min(slot, min);
        }
        self.index.retain_from(cut);
        self.keys.retain_from(cut);
        self.retention.min = cut;
        self.retention.next_look = Mono(0);
        self.retention.space.pressed = false;
        let old = |ended: &mut Ended| ended.first < cut;
        let mut last_ms = i64::MIN;
        while let Some(ended) = self.retention.ended.pop_front_if(old) {
            last_ms = last_ms.max(ended.last_ms);
        }
        let from = self.retention.files_from;
        let batch = self.retention.batch.get_or_insert(Removed {
            from,
            to: cut,
            segments: 0,
            last_ms,
        });
        (batch.to, batch.last_ms) = (cut, batch.last_ms.max(last_ms));
    }

    /// Removes the oldest file that nothing is needed of, unless somebody still reads it.
    fn poll_remove(&mut self, now: Now) -> Option<Work> {
        let retention = &mut self.retention;
        if retention.removing || retention.files_from >= retention.min {
            return None;
        }
        let file = file_name(retention.files_from);
        let waits = retention.failed_until.is_some_and(|until| until > now.mono);
        if waits {
            return None;
        }
        retention.failed_until = None;
        if self.windows.is_reading(&file) {
            return None;
        }
        self.windows.forget_file(&file);
        retention.removing = true;
        let next = LogOffset(retention.files_from.0 + self.options.segment_bytes);
        Some(Box::new(move |dir: &dyn Dir| {
            dir.remove(&file)?;
            let next_ms = first_ms(dir, next)?.map(i64::to_be_bytes);
            Ok(next_ms.map_or(Vec::new(), |ms| ms.to_vec()))
        }))
    }

    pub(super) fn removed(&mut self, now: Now, result: Result<Vec<u8>, DiskError>) {
        let (bytes, retention) = (self.options.segment_bytes, &mut self.retention);
        retention.removing = false;
        let Ok(next_ms) = result else {
            retention.reclaimed.failures += 1;
            retention.failed_until = Some(now.mono.after_ms(FAILED_MS));
            return;
        };
        retention.first_ms = Cursor::new(&next_ms).i64().or(retention.first_ms);
        let (from, to) = (retention.files_from, retention.min);
        retention.failed_until = None;
        retention.files_from = LogOffset(from.0 + bytes);
        retention.reclaimed.segments += 1;
        retention.reclaimed.bytes += bytes;
        let batch = retention.batch.get_or_insert(Removed {
            from,
            to,
            segments: 0,
            last_ms: i64::MIN,
        });
        batch.segments += 1;
        if retention.files_from >= retention.min {
            retention.space.next = Mono(0);
            retention.told.extend(retention.batch.take());
        }
    }

    /// How much of the disk is used; `None` if it does not say.
    pub(super) fn space_seen(&mut self, now: Now, space: Option<Space>) {
        let removes = self.retention.files_from < self.retention.min;
        let look = &mut self.retention.space;
        look.busy = false;
        look.next = now.mono.after_ms(SPACE_MS);
        look.percent = space.map(|space| space.used_percent());
        let is_over = look
            .percent
            .is_some_and(|percent| percent >= self.options.disk_percent_max);
        // What is being removed will help.
        look.pressed = !removes && is_over;
        if look.pressed {
            self.retention.next_look = Mono(0);
        }
    }

    /// When something is to be done that needs no owner.
    pub(super) fn retention_deadline(&self) -> Option<Mono> {
        let space = self.retention.space_due();
        space.into_iter().chain(self.log.starved()).min()
    }

    /// A batch of segments that has gone.
    pub fn take_removed(&mut self) -> Option<Removed> {
        self.retention.told.pop_front()
    }

    pub(super) fn retention_done(&mut self, result: &[u8]) {
        match &mut self.retention.stage {
            Stage::Walking(walk) => {
                walk.reading = false;
                (walk.at, walk.found) = read_found(result).expect("a walk gives what it promises");
            }
            Stage::Measuring(measure) => {
                measure.busy = false;
                let (row, mins) = read_mins(result).expect("measuring gives what it promises");
                measure.row = row;
                let (index, run) = (&self.index, measure.run.as_ref());
                let is_its = |slot| run.is_some_and(|run| index.is_of(slot, run));
                for (slot, min) in mins.into_iter().filter(|(slot, _)| is_its(*slot)) {
                    let known = measure.mins.entry(slot).or_default();
                    *known = min.max(*known);
                }
            }
            _ => unreachable!("work is ordered in these stages only"),
        }
    }

    /// A step failed: all begins anew in a while.
    pub(super) fn retention_failed(&mut self, now: Now) {
        self.retention.stage = Stage::Idle;
        self.retention.next_look = now.mono.after_ms(FAILED_MS);
    }
}

fn look_at_space(dir: &dyn Dir) -> Result<Vec<u8>, DiskError> {
    let Space { used, free } = dir.space()?;
    Ok([used, free].map(u64::to_be_bytes).concat())
}

pub(super) fn read_space(bytes: &[u8]) -> Option<Space> {
    let mut c = Cursor::new(bytes);
    let (used, free) = (c.u64()?, c.u64()?);
    Some(Space { used, free })
}

/// Goes through a piece of the log from `at` on. Gives the place to go on from and what was found.
fn look(
    dir: &dyn Dir,
    segment_bytes: u64,
    lineage: Lineage,
    at: LogOffset,
    cut: LogOffset,
    topics: &[&str],
) -> Result<Vec<u8>, DiskError> {
    let mut replay = Replay::from_middle(dir, segment_bytes, lineage, at)?;
    let mut out = vec![0; 8];
    loop {
        let next = replay.end().end;
        let enough = next.0 - at.0 >= WALK_BYTES || out.len() >= FOUND_BYTES_MAX;
        if next >= cut || enough {
            out[..8].copy_from_slice(&next.0.to_be_bytes());
            return Ok(out);
        }
        match replay.next_batch()? {
            Some((header, batch)) if header.at < cut => {
                put_found(&header, &batch, topics, &mut out)
            }
            // Damage takes what lies in it; what lies behind is looked for all the same.
            None if replay.skip_damage()?.is_some_and(|at| at < cut) => {}
            _ => {
                out[..8].copy_from_slice(&cut.0.to_be_bytes());
                return Ok(out);
            }
        }
    }
}

fn put_found(header: &BatchHeader, batch: &[u8], topics: &[&str], out: &mut Vec<u8>) {
    for item in walk(&batch[HEADER_BYTES..]) {
        let Ok((within, record)) = item else { return };
        let at = header.at.0 + (HEADER_BYTES + within) as u64;
        let (at, carried, message) = match record {
            Record::Message(bytes) => (at, false, bytes),
            Record::System {
                kind: Kind::Carried,
                payload,
                ..
            } => (
                at + crate::store::record::SYSTEM_HEADER_BYTES as u64,
                true,
                payload,
            ),
            Record::System { .. } => continue,
        };
        if !RecordView::parse(message).is_ok_and(|view| topics.contains(&view.topic())) {
            continue;
        }
        out.extend_from_slice(&at.to_be_bytes());
        out.push(u8::from(carried));
        out.extend_from_slice(&(message.len() as u32).to_be_bytes());
        out.extend_from_slice(message);
    }
}

fn read_found(bytes: &[u8]) -> Option<(LogOffset, VecDeque<Found>)> {
    let mut c = Cursor::new(bytes);
    let next = LogOffset(c.u64()?);
    let mut found = VecDeque::new();
    while !c.rest().is_empty() {
        let (at, carried) = (LogOffset(c.u64()?), c.u8()? != 0);
        let len = c.u32()? as usize;
        let message = c.bytes(len)?.to_vec();
        found.push_back(Found {
            at,
            carried,
            message,
        });
    }
    Some((next, found))
}

/// The first offset at or behind the cut of the queues in some rows of the run it lies in. Gives
/// the row to go on with, and the offsets.
fn measure_run(
    dir: &dyn Dir,
    run: &Run,
    cut: LogOffset,
    from: usize,
) -> Result<Vec<u8>, DiskError> {
    let row_at = |at: usize| Row::decode(run.row(at));
    let mut reader = Reader::new(dir, run);
    let (mut start, mut out, mut blocks) = (from, vec![0; 8], 0);
    while start < run.blocks() && blocks < BLOCKS_MAX {
        let slot = row_at(start).slot;
        let stop = run.partition_point(|row| Row::decode(row).slot <= slot);
        let mut below = |row: &Row| -> Result<usize, DiskError> {
            blocks += 1;
            let at = u64::from(row.number) * ENTRY_BYTES as u64;
            let bytes = reader.read(at, row.count as usize * ENTRY_BYTES, row.crc)?;
            let (entries, _) = bytes.as_chunks();
            Ok(entries.partition_point(|bytes| Entry::decode(bytes).at < cut))
        };
        // The last block with an entry below tells; all before it are below.
        let (mut low, mut high, mut min) = (start, stop, None);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = row_at(middle);
            match below(&row)? {
                0 => high = middle,
                some => {
                    min = Some(row.first + some as u64);
                    low = middle + 1;
                }
            }
        }
        if let Some(min) = min {
            out.extend_from_slice(&slot.to_be_bytes());
            out.extend_from_slice(&min.to_be_bytes());
        }
        start = stop;
    }
    out[..8].copy_from_slice(&(start as u64).to_be_bytes());
    Ok(out)
}

fn read_mins(bytes: &[u8]) -> Option<(usize, Vec<(QueueSlot, u64)>)> {
    let mut c = Cursor::new(bytes);
    let row = c.u64()? as usize;
    let mut mins = Vec::new();
    while !c.rest().is_empty() {
        mins.push((QueueSlot(c.u32()?), c.u64()?));
    }
    Some((row, mins))
}

/// Which segments there are, by their first log offset, ascending.
pub fn segments(dir: &dyn Dir) -> Result<Vec<LogOffset>, DiskError> {
    let listed = dir.list(FOLDER)?;
    let mut found: Vec<_> = listed
        .iter()
        .filter_map(|file| first_offset(&file.name))
        .collect();
    found.sort();
    Ok(found)
}

/// The first segment at or behind `from` that is not there although the log goes on behind it, and
/// where the next one begins.
pub fn missing_segment(
    there: &[LogOffset],
    from: LogOffset,
    end: LogOffset,
    segment_bytes: u64,
) -> Option<(LogOffset, LogOffset)> {
    let first = from.0 / segment_bytes * segment_bytes;
    let mut needed = (first..end.0)
        .step_by(segment_bytes as usize)
        .map(LogOffset);
    let missing = needed.find(|first| there.binary_search(first).is_err())?;
    let next = there.iter().find(|first| **first > missing);
    Some((missing, next.copied().unwrap_or(end).min(end)))
}

/// When the first record of a segment was stored; `None` if it has none.
pub fn first_ms(dir: &dyn Dir, first: LogOffset) -> Result<Option<i64>, DiskError> {
    let mut head = [0; HEADER_BYTES];
    let read = dir.read_at(&file_name(first), 0, &mut head)?;
    let header = BatchHeader::decode(&head[..read]).filter(|header| header.at == first);
    Ok(header.map(|header| header.first_ms))
}

/// The segments that have ended of a log that was opened; of those that `known` does not tell of,
/// the beginning of the next one tells.
pub fn ended_segments(
    dir: &dyn Dir,
    there: &[LogOffset],
    (end, last_ms): (LogOffset, i64),
    known: &[Ended],
    segment_bytes: u64,
) -> Result<VecDeque<Ended>, DiskError> {
    let current = LogOffset(end.0.saturating_sub(1) / segment_bytes * segment_bytes);
    let mut found = VecDeque::new();
    let mut bound_ms = last_ms;
    let mut next: Option<LogOffset> = there.contains(&current).then_some(current);
    for first in there.iter().rev().filter(|first| **first < current) {
        let told = known.iter().find(|ended| ended.first == *first);
        if let Some(told) = told {
            bound_ms = told.last_ms;
        } else if let Some(next) = next {
            bound_ms = first_ms(dir, next)?.map_or(bound_ms, |ms| ms.min(bound_ms));
        }
        found.push_front(Ended {
            first: *first,
            last_ms: bound_ms,
        });
        next = Some(*first);
    }
    Ok(found)
}

impl QueueIndex {
    /// Where queues begin behind `cut` as far as whole runs tell, and the run that tells the rest.
    fn below(&self, cut: LogOffset) -> (BTreeMap<QueueSlot, u64>, Option<Run>) {
        let (mut mins, mut straddles) = (BTreeMap::new(), None);
        for run in self.runs() {
            let range = run.header.range;
            if range.up_to <= cut {
                for index in 0..run.blocks() {
                    let row = Row::decode(run.row(index));
                    if self.is_of(QueueSlot(row.slot), run) {
                        mins.insert(QueueSlot(row.slot), row.end());
                    }
                }
            } else if range.from < cut {
                straddles = Some(run.clone());
            }
        }
        (mins, straddles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::MemDir;

    #[test]
    fn layout() {
        let retained = Retained {
            min: LogOffset(0x0102),
            queues: vec![(QueueSlot(3), QueueOffset(4))],
            ended: vec![Ended {
                first: LogOffset(5),
                last_ms: -1,
            }],
        };
        let bytes = retained.encode();
        let seen: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "0000000000000102 00000001 00000003 0000000000000004 \
                        00000001 0000000000000005 ffffffffffffffff";
        assert_eq!(seen, expected.replace(' ', ""));
        assert_eq!(Retained::decode(VERSION, &bytes), Some(retained));
        assert_eq!(Retained::decode(VERSION + 1, &bytes), None);
        assert_eq!(Retained::decode(VERSION, &bytes[..bytes.len() - 1]), None);
        let one = Retained {
            queues: vec![(QueueSlot(0), QueueOffset(0))],
            ..Retained::default()
        };
        let header = crate::store::record::SYSTEM_HEADER_BYTES;
        assert_eq!(header + one.encode().len(), Store::CARRIED_TO_BYTES);
    }

    #[test]
    fn a_segment_may_be_missing_only_before_what_is_kept() {
        let there = |firsts: &[u64]| firsts.iter().map(|n| LogOffset(n * 10)).collect::<Vec<_>>();
        let check = |firsts: &[u64], from: u64, end: u64, expected: Option<(u64, u64)>| {
            let found = missing_segment(&there(firsts), LogOffset(from), LogOffset(end), 10);
            assert_eq!(
                found.map(|(from, to)| (from.0, to.0)),
                expected,
                "{firsts:?}"
            );
        };
        check(&[0, 1, 2], 0, 25, None);
        check(&[2, 3], 20, 35, None);
        check(&[1, 2, 3], 20, 35, None);
        check(&[3], 20, 35, Some((20, 30)));
        check(&[0, 2], 0, 25, Some((10, 20)));
        check(&[0, 1], 0, 25, Some((20, 25)));
        check(&[], 0, 0, None);
    }

    #[test]
    fn the_next_segment_tells_how_old_one_is() {
        let dir = MemDir::default();
        let lineage = Lineage {
            shard: crate::base::ShardId(0),
            store_id: 1,
            epoch: 0,
            incarnation: 1,
        };
        let begin = |first: u64, first_ms: i64| {
            let mut batch = vec![0; HEADER_BYTES + 8];
            let header = BatchHeader {
                lineage,
                bytes: 0,
                records: 1,
                previous_crc: 0,
                at: LogOffset(first),
                durable: LogOffset(0),
                first_ms,
                span_ms: 0,
                crc: 0,
            };
            let crc = crc32fast::hash(&batch[HEADER_BYTES..]);
            header.seal(&mut batch, crc);
            dir.write_at(&file_name(LogOffset(first)), 0, &batch)
                .unwrap();
        };
        for (first, ms) in [(0, 5), (4096, 50), (8192, 90)] {
            begin(first, ms);
        }
        let there = segments(&dir).unwrap();
        let tail = (LogOffset(8192 + 100), 95);
        let ages = |known: &[Ended]| {
            let ended = ended_segments(&dir, &there, tail, known, 4096).unwrap();
            ended.iter().map(|ended| ended.last_ms).collect::<Vec<_>>()
        };
        assert_eq!(ages(&[]), [50, 90]);
        let known = Ended {
            first: LogOffset(4096),
            last_ms: 60,
        };
        assert_eq!(ages(&[known]), [50, 60], "what a snapshot says is exact");
    }
}
