//! The queue index of one shard (RocketMQ's ConsumeQueue): for each message of each queue where its
//! record lies in the log.
//!
//! New entries sit in memory, in chunks of one queue. At a checkpoint all that is new becomes one
//! sorted run file ([`QueueIndex::seal`]); runs are merged in the background. Chunks stay in memory
//! after that, oldest out first, so that reads of the tail never meet the disk.
//!
//! What always holds: the offsets of a queue have no gap; a chunk lies in one seal or in none, and
//! is forgotten only after its run is installed; the runs of a queue hold its offsets in ascending
//! order. A slot may be given to a new queue once the old one is dropped: `born` then hides what
//! older runs still hold of its predecessor.
//!
//! Not here: which topic has which slot, watermarks (an entry is visible when its record is), and
//! any I/O. Cold entries are named as an [`Extent`], which the caller reads and hands back.

use crate::base::disk::Dir;
use crate::base::{DiskError, LogOffset, QueueOffset};
use crate::store::chunk::{CHUNK_OVERHEAD, Chunk, Queue};
use crate::store::entries::Row;
use crate::store::merge::{DraftPart, Keep, Merge, RunDraft, Step};
use crate::store::runs::{Bad, Header, Kind, Listing, LogRange, Run, RunList};
use std::collections::VecDeque;

pub use crate::store::entries::{Block, Entries, Entry, Extent};

/// A queue's number in its shard, given by the caller. Tables are indexed by it, so numbers are
/// dense and below [`SLOTS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueSlot(pub u32);

/// Queues of one shard, dropped ones whose number was not used again included.
pub const SLOTS_MAX: u32 = 1 << 22;

/// What is known about an offset.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// In memory: entries from that offset on, at least one, as far as they lie side by side.
    Hot(Entries<'a>),
    /// In a run file: read the extent, then [`Extent::entries`].
    Cold(Extent),
    /// Below `min`, at or above `next`, no such queue, or in a run that was rejected.
    None,
}

/// Where a search ends: the answer is in `first..=end`, and the entries tell exactly where. `end`
/// is the answer if no entry before it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Within {
    pub first: QueueOffset,
    pub end: QueueOffset,
    /// When the messages there were stored, as far as the directory tells.
    first_ms: Option<i64>,
    end_ms: Option<i64>,
}

impl Within {
    fn new(first: u64, end: u64) -> Within {
        Within {
            first: QueueOffset(first),
            end: QueueOffset(end),
            first_ms: None,
            end_ms: None,
        }
    }

    /// Tells of a block or chunk and its store time, in ascending order. The last one that begins
    /// before what is sought holds it, or it is the beginning of the next; then nothing is left to
    /// look at.
    fn narrow(&mut self, first: u64, first_ms: i64, store_ms: i64) -> bool {
        let at = QueueOffset(first);
        if first_ms >= store_ms {
            (self.end, self.end_ms) = (self.first.max(at), Some(first_ms));
            return false;
        }
        if self.first <= at {
            (self.first, self.first_ms) = (at, Some(first_ms));
        }
        true
    }

    /// Where the answer is if messages came evenly; the middle if too little is known.
    pub fn guess(&self, store_ms: i64) -> QueueOffset {
        let (first, entries) = (self.first.0, self.end.0 - self.first.0);
        let (Some(from_ms), Some(to_ms)) = (self.first_ms, self.end_ms) else {
            return QueueOffset(first + entries / 2);
        };
        let span = (i128::from(to_ms) - i128::from(from_ms)).max(1);
        let passed = (i128::from(store_ms) - i128::from(from_ms)).clamp(0, span);
        QueueOffset(first + (i128::from(entries) * passed / span) as u64)
    }
}

/// A row of the table as a snapshot keeps it, 36 bytes of fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueState {
    pub slot: QueueSlot,
    pub min: QueueOffset,
    pub next: QueueOffset,
    /// Runs that end here or before do not belong to this queue.
    pub born: LogOffset,
}

/// Limits of one shard's index, in bytes of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Entries in memory. Sealed ones go when it is passed; when those that are not sealed reach
    /// it, [`QueueIndex::is_full`].
    pub hot_bytes_max: usize,
    /// Directories of runs; beyond it runs are merged earlier than their number asks for.
    pub directory_bytes_max: usize,
}

/// A chunk by its queue and serial number. One that is gone is skipped.
type Age = (QueueSlot, u64);

/// All queues of one shard.
pub struct QueueIndex {
    limits: Limits,
    queues: Vec<Option<Queue>>,
    /// Queues with entries that no seal has taken; may name a queue twice, or one that is gone.
    dirty: Vec<QueueSlot>,
    chunks_begun: u64,
    /// Chunks up to this serial number are in runs or in the seal under way: they grow no more.
    cut: u64,
    /// Chunks begun since the last seal, taken by the seal that is being written, and in runs.
    young: VecDeque<Age>,
    sealing: VecDeque<Age>,
    ages: VecDeque<Age>,
    hot_bytes: usize,
    /// The part of it that no seal has taken.
    unsealed_bytes: usize,
    /// All entries below this log offset are in runs or in the seal that is being written.
    sealed_up_to: LogOffset,
    seal: Option<Sealing>,
    runs: RunList,
    merge: Option<Merge>,
}

/// A seal on its way to the disk.
struct Sealing {
    /// Its entries are counted while they are gathered.
    header: Header,
    /// Queues not looked at yet, and what the others gave.
    slots: Vec<QueueSlot>,
    parts: Vec<DraftPart>,
    gathered: bool,
    /// Memory of what it holds.
    bytes: usize,
    /// To take it back: the cut before, and where each queue's part begins.
    previous_cut: u64,
    begins: Vec<(QueueSlot, u64)>,
}

impl QueueIndex {
    /// An index without queues; all it will be given lies at `from` or beyond.
    pub fn new(limits: Limits, from: LogOffset) -> QueueIndex {
        QueueIndex {
            limits,
            queues: Vec::new(),
            dirty: Vec::new(),
            chunks_begun: 0,
            cut: 0,
            young: VecDeque::new(),
            sealing: VecDeque::new(),
            ages: VecDeque::new(),
            hot_bytes: 0,
            unsealed_bytes: 0,
            sealed_up_to: from,
            seal: None,
            runs: RunList::new(Kind::Queue),
            merge: None,
        }
    }

    /// As of the checkpoint that names these runs: entries below `up_to` are in them. Queues come
    /// back with [`restore`](Self::restore), what is missing in bad runs with
    /// [`adopt`](Self::adopt), the rest by appending again. Reads headers and directories only.
    pub fn load(
        limits: Limits,
        up_to: LogOffset,
        dir: &dyn Dir,
        names: &[String],
    ) -> Result<(QueueIndex, Vec<Bad>), DiskError> {
        let (runs, bad) = RunList::load(Kind::Queue, dir, names)?;
        let mut index = QueueIndex::new(limits, up_to);
        index.runs = runs;
        Ok((index, bad))
    }

    /// A new, empty queue; nothing happens if the queue is known.
    pub fn open(&mut self, slot: QueueSlot) {
        if self.queue(slot).is_none() {
            self.restore(QueueState {
                slot,
                min: QueueOffset(0),
                next: QueueOffset(0),
                born: self.sealed_up_to,
            });
        }
    }

    /// A queue as a snapshot kept it, or one whose first entries were lost (then `min` = `next`).
    pub fn restore(&mut self, state: QueueState) {
        assert!(state.slot.0 < SLOTS_MAX, "slots are dense");
        assert!(state.min <= state.next && self.queue(state.slot).is_none());
        let place = state.slot.0 as usize;
        if place >= self.queues.len() {
            if place >= self.queues.capacity() {
                let missing = place + 1 - self.queues.len();
                self.queues.reserve_exact(missing + place / 8);
            }
            self.queues.resize_with(place + 1, || None);
        }
        self.queues[place] = Some(Queue {
            next: state.next.0,
            min: state.min.0,
            sealed: state.next.0,
            born: state.born,
            chunks: VecDeque::new(),
        });
    }

    /// The table, for the snapshot made together with a seal.
    pub fn states(&self) -> impl Iterator<Item = QueueState> {
        let numbered = self.queues.iter().enumerate();
        numbered.filter_map(|(place, queue)| {
            let queue = queue.as_ref()?;
            Some(QueueState {
                slot: QueueSlot(place as u32),
                min: QueueOffset(queue.min),
                next: QueueOffset(queue.next),
                born: queue.born,
            })
        })
    }

    /// Forgets the queue. Its slot may be opened again.
    pub fn drop_queue(&mut self, slot: QueueSlot) {
        let Some(queue) = self.queues.get_mut(slot.0 as usize).and_then(Option::take) else {
            return;
        };
        self.hot_bytes -= queue.cost_after(0);
        self.unsealed_bytes -= queue.cost_after(self.cut);
        self.forget_gone_ages();
    }

    fn queue(&self, slot: QueueSlot) -> Option<&Queue> {
        self.queues.get(slot.0 as usize)?.as_ref()
    }

    /// The offset the next entry gets; 0 for an unknown queue.
    pub fn next(&self, slot: QueueSlot) -> QueueOffset {
        QueueOffset(self.queue(slot).map_or(0, |queue| queue.next))
    }

    /// The first offset that is still there; equals `next` in an empty queue.
    pub fn min(&self, slot: QueueSlot) -> QueueOffset {
        QueueOffset(self.queue(slot).map_or(0, |queue| queue.min))
    }

    /// Adds an entry to an open queue. Entries of the shard come in log order, `store_ms` (since
    /// 1970) never goes back.
    pub fn append(&mut self, slot: QueueSlot, entry: Entry, store_ms: i64) -> QueueOffset {
        assert!(
            self.sealed_up_to <= entry.at,
            "a seal leaves nothing behind"
        );
        let queue = self
            .queues
            .get_mut(slot.0 as usize)
            .and_then(Option::as_mut);
        let queue = queue.expect("a queue is opened before its first message");
        let offset = queue.next;
        queue.next += 1;
        if offset == queue.sealed {
            self.dirty.push(slot);
        }
        let last = queue.chunks.back_mut();
        if !last.is_some_and(|chunk| self.cut < chunk.serial && chunk.append(entry)) {
            self.begin_chunk(slot, offset, entry, store_ms);
        }
        QueueOffset(offset)
    }

    #[cold]
    fn begin_chunk(&mut self, slot: QueueSlot, first: u64, entry: Entry, first_ms: i64) {
        let queue = self.queues[slot.0 as usize].as_mut().expect("just found");
        let last = queue.chunks.back().map_or(0, Chunk::len);
        self.chunks_begun += 1;
        let serial = self.chunks_begun;
        let mut chunk = Chunk::begin(serial, first, first_ms, last);
        assert!(chunk.append(entry), "a new chunk has room");
        self.hot_bytes += chunk.cost();
        self.unsealed_bytes += chunk.cost();
        if queue.chunks.is_empty() {
            queue.chunks.reserve_exact(1);
        }
        queue.chunks.push_back(chunk);
        self.young.push_back((slot, serial));
        self.evict();
    }

    /// Forgets the oldest installed chunks until the rest is within the limit.
    fn evict(&mut self) {
        while self.hot_bytes > self.limits.hot_bytes_max {
            let Some((slot, serial)) = self.ages.pop_front() else {
                return;
            };
            let Some(queue) = self.queues[slot.0 as usize].as_mut() else {
                continue;
            };
            if queue
                .chunks
                .front()
                .is_some_and(|chunk| chunk.serial == serial)
            {
                let gone = queue.chunks.pop_front().expect("just seen");
                assert!(
                    gone.end() <= queue.sealed,
                    "only what is in a run is forgotten"
                );
                self.hot_bytes -= gone.cost();
                if queue.chunks.is_empty() {
                    queue.chunks = VecDeque::new();
                }
            }
        }
    }

    /// Chunks go out of order when queues are dropped or retained; their ages must not pile up.
    fn forget_gone_ages(&mut self) {
        let listed = self.young.len() + self.sealing.len() + self.ages.len();
        if listed < 1024 + 2 * (self.hot_bytes / CHUNK_OVERHEAD) {
            return;
        }
        for ages in [&mut self.young, &mut self.sealing, &mut self.ages] {
            let queues = &self.queues;
            ages.retain(|(slot, serial)| {
                let queue = queues[slot.0 as usize].as_ref();
                queue.is_some_and(|q| q.chunks.binary_search_by_key(serial, |c| c.serial).is_ok())
            });
        }
    }

    /// Where the entry of `offset`, and those after it, can be found.
    pub fn lookup(&self, slot: QueueSlot, offset: QueueOffset) -> Lookup<'_> {
        let Some(queue) = self.queue(slot) else {
            return Lookup::None;
        };
        if offset.0 < queue.min || queue.next <= offset.0 {
            return Lookup::None;
        }
        if offset.0 >= queue.hot_from() {
            let after = queue.chunks.partition_point(|c| c.first <= offset.0);
            let chunk = &queue.chunks[after - 1];
            return Lookup::Hot(Entries::starting(chunk.bytes(), chunk.first, offset));
        }
        match self.row_of(queue, slot, offset) {
            Some((run, row)) => Lookup::Cold(row.extent(run)),
            None => Lookup::None,
        }
    }

    /// Where a message lies at the earliest, as far as that is known without the disk: what is in a
    /// run may lie anywhere in the run's range of the log.
    pub fn earliest_place(&self, slot: QueueSlot, offset: QueueOffset) -> Option<LogOffset> {
        match self.lookup(slot, offset) {
            Lookup::Hot(entries) => entries.at(0).map(|entry| entry.at),
            Lookup::Cold(_) => {
                let (run, _) = self.row_of(self.queue(slot)?, slot, offset)?;
                Some(run.header.range.from)
            }
            Lookup::None => None,
        }
    }

    /// The block of a run that has the entry.
    fn row_of(&self, queue: &Queue, slot: QueueSlot, offset: QueueOffset) -> Option<(&Run, Row)> {
        self.runs_of(queue).rev().find_map(|run| {
            let after = run.partition_point(|row| Row::decode(row).key() <= (slot.0, offset.0));
            let row = Row::decode(run.row(after.checked_sub(1)?));
            (row.slot == slot.0 && offset.0 < row.end()).then_some((run, row))
        })
    }

    /// The runs that count, oldest first.
    pub fn runs(&self) -> &[Run] {
        self.runs.runs()
    }

    /// Whether what a run has for a slot is of the queue that has the slot now.
    pub fn is_of(&self, slot: QueueSlot, run: &Run) -> bool {
        let queue = self.queue(slot);
        queue.is_some_and(|queue| queue.born < run.header.range.up_to)
    }

    fn runs_of(&self, queue: &Queue) -> impl DoubleEndedIterator<Item = &Run> {
        let born = queue.born;
        let runs = self.runs.runs().iter();
        runs.filter(move |run| born < run.header.range.up_to)
    }

    /// The first message stored at `store_ms` or later is in the range; the caller looks at the
    /// records in it (times are not in entries), at most some 3,000 unless a run was rejected.
    pub fn search_time(&self, slot: QueueSlot, store_ms: i64) -> Option<Within> {
        let queue = self.queue(slot)?;
        let mut within = Within::new(queue.min, queue.next);
        let hot_from = queue.hot_from();
        for run in self.runs_of(queue) {
            let start = run.partition_point(|row| Row::decode(row).slot < slot.0);
            let stop = run.partition_point(|row| {
                let row = Row::decode(row);
                row.slot < slot.0
                    || row.slot == slot.0 && row.first < hot_from && row.first_ms < store_ms
            });
            let ours = |at: usize| {
                let row = (at < run.blocks()).then(|| Row::decode(run.row(at)));
                row.filter(|row| row.slot == slot.0 && row.first < hot_from)
            };
            let last = (start < stop).then(|| ours(stop - 1)).flatten();
            for row in [last, ours(stop)].into_iter().flatten() {
                if !within.narrow(row.first, row.first_ms, store_ms) {
                    return Some(within);
                }
            }
        }
        let after = queue.chunks.partition_point(|c| c.first_ms < store_ms);
        for chunk in queue.chunks.range(after.saturating_sub(1)..).take(2) {
            if !within.narrow(chunk.first, chunk.first_ms, store_ms) {
                break;
            }
        }
        Some(within)
    }

    /// Entries in memory that no run holds yet have reached the limit: messages must be refused
    /// until a seal is installed.
    pub fn is_full(&self) -> bool {
        let sealing = self.seal.as_ref().map_or(0, |seal| seal.bytes);
        self.unsealed_bytes + sealing >= self.limits.hot_bytes_max
    }

    /// Half of the limit is not sealed: a checkpoint is worth making before its time.
    pub fn wants_seal(&self) -> bool {
        self.seal.is_none() && self.unsealed_bytes >= self.limits.hot_bytes_max / 2
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let table = self.queues.capacity() * size_of::<Option<Queue>>();
        let dirty = self.dirty.capacity() * size_of::<QueueSlot>();
        let seal = self.seal.as_ref().map_or(0, |seal| {
            seal.slots.capacity() * size_of::<QueueSlot>()
                + seal.parts.capacity() * size_of::<DraftPart>()
                + seal.begins.capacity() * size_of::<(QueueSlot, u64)>()
        });
        let merge = self.merge.as_ref().map_or(0, Merge::memory_bytes);
        table + dirty + seal + merge + self.hot_bytes + self.runs.directory_bytes()
    }

    /// Everything appended so far, all of it below `up_to`, is to become a run; false if there is
    /// nothing new. [`gather`](Self::gather) then makes the draft; what is appended meanwhile is
    /// left for the next seal. The [`states`](Self::states) that belong to the run are those of
    /// this moment.
    ///
    /// The checkpoint that names the run must wait until the log is durable up to `up_to`, for the
    /// run speaks of all these records.
    pub fn begin_seal(&mut self, up_to: LogOffset) -> bool {
        assert!(self.seal.is_none(), "one seal at a time");
        if self.unsealed_bytes == 0 {
            return false;
        }
        assert!(self.sealed_up_to < up_to, "a seal covers new log");
        let from = std::mem::replace(&mut self.sealed_up_to, up_to);
        self.sealing = std::mem::take(&mut self.young);
        self.seal = Some(Sealing {
            header: Header::sealed(&mut self.runs, LogRange { from, up_to }, i64::MAX, 0),
            slots: std::mem::take(&mut self.dirty),
            parts: Vec::new(),
            gathered: false,
            bytes: std::mem::take(&mut self.unsealed_bytes),
            previous_cut: std::mem::replace(&mut self.cut, self.chunks_begun),
            begins: Vec::new(),
        });
        true
    }

    /// Gathers the new entries of at most `queues_max` queues, some 0.3 µs each; the draft once
    /// all are gathered. It is to be written and then [`installed`](Self::installed) or
    /// [`abandoned`](Self::abandoned).
    pub fn gather(&mut self, queues_max: usize) -> Option<RunDraft> {
        let seal = self.seal.as_mut()?;
        let rest = seal.slots.len().saturating_sub(queues_max);
        for slot in seal.slots.drain(rest..) {
            let Some(queue) = self.queues[slot.0 as usize].as_mut() else {
                continue;
            };
            let begin = queue.sealed;
            let start = queue.chunks.partition_point(|chunk| chunk.first < begin);
            let chunks = queue.chunks.range_mut(start..);
            for chunk in chunks.take_while(|chunk| chunk.serial <= self.cut) {
                let before = chunk.cost();
                seal.header.first_ms = seal.header.first_ms.min(chunk.first_ms);
                seal.parts.push(DraftPart {
                    slot: slot.0,
                    first: chunk.first,
                    first_ms: chunk.first_ms,
                    entries: chunk.seal(),
                });
                queue.sealed = chunk.end();
                self.hot_bytes -= before - chunk.cost();
                seal.bytes -= before - chunk.cost();
            }
            if begin < queue.sealed {
                seal.header.entries += queue.sealed - begin;
                seal.begins.push((slot, begin));
                if queue.sealed < queue.next {
                    self.dirty.push(slot);
                }
            }
        }
        // Even if all the queues were dropped meanwhile: an empty run ends the seal as any other.
        let first_time = !std::mem::replace(&mut seal.gathered, seal.slots.is_empty());
        let whole = first_time && seal.gathered;
        whole.then(|| RunDraft::new(seal.header, std::mem::take(&mut seal.parts)))
    }

    /// A whole seal at once, for when nobody is being served.
    pub fn seal(&mut self, up_to: LogOffset) -> Option<RunDraft> {
        match self.begin_seal(up_to) {
            true => self.gather(usize::MAX),
            false => None,
        }
    }

    /// The draft is written and synced; `directory` is what writing it gave.
    pub fn installed(&mut self, directory: Vec<u8>) {
        let seal = self.seal.take().expect("a seal was on its way");
        assert!(seal.gathered, "its draft was handed out");
        let header = seal.header.with_directory(directory.len());
        self.runs.insert(Run::new(header, directory.into()));
        self.ages.append(&mut self.sealing);
        self.evict();
    }

    /// The draft could not be written: the next seal takes its entries again.
    pub fn abandoned(&mut self) {
        let seal = self.seal.take().expect("a seal was on its way");
        assert!(seal.gathered, "its draft was handed out");
        self.sealed_up_to = seal.header.range.from;
        self.runs.discard(seal.header.name());
        self.cut = seal.previous_cut;
        for (slot, begin) in seal.begins {
            if let Some(queue) = self.queues[slot.0 as usize].as_mut()
                && begin < queue.sealed
            {
                queue.sealed = begin;
                self.dirty.push(slot);
            }
        }
        self.sealing.append(&mut self.young);
        self.young = std::mem::take(&mut self.sealing);
        let queues = self.queues.iter().flatten();
        self.unsealed_bytes = queues.map(|queue| queue.cost_after(self.cut)).sum();
    }

    /// The next piece of merging to be done beside the message path, at the caller's pace; each
    /// writes at most some 4 MiB. `None` if nothing is worth it or a piece is under way.
    pub fn merge_step(&mut self) -> Option<Step> {
        if self.merge.is_none() {
            let range = self.runs.pick(self.limits.directory_bytes_max)?;
            let keep = |queue: &Option<Queue>| match queue {
                Some(queue) => (queue.min, queue.born),
                None => (u64::MAX, LogOffset(u64::MAX)),
            };
            let keep = Keep::Queues(self.queues.iter().map(keep).collect());
            self.merge = Some(Merge::new(&mut self.runs, range, keep));
        }
        self.merge.as_mut()?.step()
    }

    /// A step is done. What a finished merge replaced appears in the next
    /// [`listing`](Self::listing).
    pub fn merged(&mut self, result: Vec<u8>) {
        Merge::advance(&mut self.merge, &mut self.runs, result);
    }

    /// A step failed: the merge is given up and its inputs stay. It begins anew with the next
    /// [`merge_step`](Self::merge_step), so the caller rejects a damaged input or waits first.
    pub fn merge_failed(&mut self) {
        Merge::fail(&mut self.merge, &mut self.runs);
    }

    /// The runs for the checkpoint being made.
    pub fn listing(&mut self) -> Listing {
        self.runs.listing()
    }

    /// The log lost everything below `min`: runs without a use go, and the queues' `min` follows
    /// as far as whole runs tell. [`search_log`](Self::search_log) finds the exact place.
    pub fn retain_from(&mut self, min: LogOffset) {
        let queues = &mut self.queues;
        self.runs.retain_from(min, |run| {
            for index in 0..run.blocks() {
                let row = Row::decode(run.row(index));
                if let Some(Some(queue)) = queues.get_mut(row.slot as usize)
                    && queue.born < run.header.range.up_to
                {
                    queue.min = queue.min.max(row.end()).min(queue.next);
                }
            }
        });
    }

    /// The first entry that lies at `log` or beyond is in the range; entries tell exactly.
    pub fn search_log(&self, slot: QueueSlot, log: LogOffset) -> Option<Within> {
        let queue = self.queue(slot)?;
        let (mut first, mut end) = (queue.min, queue.next);
        for run in self.runs_of(queue) {
            let start = run.partition_point(|row| Row::decode(row).slot < slot.0);
            let stop = run.partition_point(|row| Row::decode(row).slot <= slot.0);
            if start == stop {
                continue;
            }
            if run.header.range.up_to <= log {
                first = first.max(Row::decode(run.row(stop - 1)).end());
            } else if log <= run.header.range.from {
                end = end.min(Row::decode(run.row(start)).first);
                break;
            }
        }
        for chunk in &queue.chunks {
            let entries = Entries::starting(chunk.bytes(), chunk.first, QueueOffset(chunk.first));
            let before = entries.partition_point(|entry| entry.at < log) as u64;
            if before > 0 {
                first = first.max(chunk.first + before);
            }
            if chunk.first + before < chunk.end() {
                end = end.min(chunk.first + before);
                break;
            }
        }
        Some(Within::new(first, end.max(first)))
    }

    /// Moves `min` up to `to` (at most `next`); it never goes down.
    pub fn raise_min(&mut self, slot: QueueSlot, to: QueueOffset) {
        if let Some(Some(queue)) = self.queues.get_mut(slot.0 as usize) {
            queue.min = queue.min.max(to.0).min(queue.next);
        }
    }

    /// Takes a run out whose bytes turned out damaged; its entries are gone until the log range in
    /// the answer was appended to a fresh index and its runs [adopted](Self::adopt).
    pub fn reject(&mut self, name: &str, reason: &'static str) -> Option<Bad> {
        Merge::cancel(&mut self.merge, &mut self.runs);
        self.runs.reject(name, reason)
    }

    /// An index to be filled from `from` on, in seals, with what a bad run held.
    pub fn begin_rebuild(&self, from: LogOffset) -> QueueIndex {
        QueueIndex {
            runs: self.runs.stand_in(),
            ..QueueIndex::new(self.limits, from)
        }
    }

    /// Takes over the runs of an index that was filled from the range of a bad run.
    pub fn adopt(&mut self, rebuilt: QueueIndex) {
        assert!(
            rebuilt.seal.is_none() && rebuilt.unsealed_bytes == 0,
            "all is in runs"
        );
        Merge::cancel(&mut self.merge, &mut self.runs);
        self.runs.adopt(rebuilt.runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::MemDir;
    use bytes::Bytes;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        hot_bytes_max: 2000,
        directory_bytes_max: 600,
    };

    fn entry(at: u64) -> Entry {
        Entry {
            at: LogOffset(at),
            size: at as u32 % 1000 + 91,
            tag_hash: -(at as i32),
            crc: (at as u32).wrapping_mul(0x9E37_79B9),
        }
    }

    /// What a log would hold: enough to replay.
    #[derive(Clone, Copy, Debug)]
    enum Record {
        Open(u32),
        Drop(u32),
        Message(u32),
        Min(u32, u64),
    }

    #[derive(Clone, Debug)]
    enum Op {
        Log(Record),
        Burst(u32, u16),
        BeginSeal,
        Gather,
        EndSeal(bool),
        Merge,
        FailMerge,
        Retain(u8),
        Reload,
    }

    fn op() -> impl Strategy<Value = Op> {
        let slot = 0..5u32;
        prop_oneof![
            2 => slot.clone().prop_map(|s| Op::Log(Record::Open(s))),
            1 => slot.clone().prop_map(|s| Op::Log(Record::Drop(s))),
            4 => slot.clone().prop_map(|s| Op::Log(Record::Message(s))),
            6 => (slot, 1..60u16).prop_map(|(s, n)| Op::Burst(s, n)),
            8 => Just(Op::BeginSeal),
            4 => Just(Op::Gather),
            8 => any::<u8>().prop_map(|n| Op::EndSeal(n > 25)),
            6 => Just(Op::Merge),
            1 => Just(Op::FailMerge),
            1 => any::<u8>().prop_map(Op::Retain),
            1 => Just(Op::Reload),
        ]
    }

    #[derive(Clone, Default)]
    struct Checkpoint {
        names: Vec<String>,
        states: Vec<QueueState>,
        records: usize,
    }

    #[derive(Clone, Default)]
    struct Plain {
        min: u64,
        entries: Vec<Entry>,
    }

    /// The index beside a plain table, a log, and a disk.
    struct World {
        index: QueueIndex,
        dir: MemDir,
        queues: Vec<Option<Plain>>,
        log: Vec<Record>,
        saved: Checkpoint,
        seal: Option<(Option<RunDraft>, Checkpoint)>,
    }

    /// Records are ten bytes apart and a second.
    fn at(record: usize) -> u64 {
        record as u64 * 10
    }

    fn ms(at: LogOffset) -> i64 {
        at.0 as i64 / 30 * 1000
    }

    impl World {
        fn new() -> World {
            World {
                index: QueueIndex::new(LIMITS, LogOffset(0)),
                dir: MemDir::default(),
                queues: vec![None; 5],
                log: Vec::new(),
                saved: Checkpoint::default(),
                seal: None,
            }
        }

        fn log(&mut self, record: Record) {
            let place = at(self.log.len());
            let known = |slot: u32| self.queues[slot as usize].is_some();
            if matches!(record, Record::Message(slot) if !known(slot)) {
                return;
            }
            self.log.push(record);
            match record {
                Record::Open(slot) => {
                    self.queues[slot as usize].get_or_insert_default();
                }
                Record::Drop(slot) => self.queues[slot as usize] = None,
                Record::Message(slot) => {
                    let queue = self.queues[slot as usize].as_mut().unwrap();
                    queue.entries.push(entry(place));
                }
                Record::Min(slot, min) => {
                    if let Some(queue) = &mut self.queues[slot as usize] {
                        queue.min = queue.min.max(min);
                    }
                }
            }
            let offset = replay(&mut self.index, record, place);
            if let (Record::Message(slot), Some(offset)) = (record, offset) {
                let queue = self.queues[slot as usize].as_ref().unwrap();
                assert_eq!(offset.0 + 1, queue.entries.len() as u64);
            }
        }

        fn apply(&mut self, op: Op) {
            match op {
                Op::Log(record) => self.log(record),
                Op::Burst(slot, count) => (0..count).for_each(|_| self.log(Record::Message(slot))),
                Op::BeginSeal if self.seal.is_none() => {
                    let checkpoint = Checkpoint {
                        names: Vec::new(),
                        states: self.index.states().collect(),
                        records: self.log.len(),
                    };
                    let begun = self.index.begin_seal(LogOffset(at(self.log.len())));
                    self.seal = begun.then_some((None, checkpoint));
                }
                Op::BeginSeal => {}
                Op::Gather => {
                    if let Some((draft, _)) = &mut self.seal {
                        *draft = draft.take().or_else(|| self.index.gather(1));
                    }
                }
                Op::EndSeal(works) => self.end_seal(works),
                Op::Merge => {
                    if let Some(step) = self.index.merge_step() {
                        let result = step.run(&self.dir).unwrap();
                        self.index.merged(result);
                    }
                }
                Op::FailMerge => {
                    if self.index.merge_step().is_some() {
                        self.index.merge_failed();
                    }
                }
                Op::Retain(part) => self.retain(part),
                Op::Reload => self.reload(),
            }
        }

        fn end_seal(&mut self, works: bool) {
            let Some((draft, mut checkpoint)) = self.seal.take() else {
                return;
            };
            let Some(draft) = draft.or_else(|| self.index.gather(usize::MAX)) else {
                panic!("a seal that began ends");
            };
            if !works {
                self.index.abandoned();
                return;
            }
            self.index.installed(draft.write(&self.dir).unwrap());
            let listing = self.index.listing();
            checkpoint.names = listing.names.iter().map(|name| name.to_string()).collect();
            self.saved = checkpoint;
            for name in listing.obsolete {
                self.dir.remove(&name).unwrap();
            }
        }

        fn reload(&mut self) {
            self.seal = None;
            self.dir.crash();
            let saved = &self.saved;
            let up_to = LogOffset(at(saved.records));
            let (index, bad) = QueueIndex::load(LIMITS, up_to, &self.dir, &saved.names).unwrap();
            assert_eq!(bad, []);
            self.index = index;
            saved
                .states
                .iter()
                .for_each(|state| self.index.restore(*state));
            for (number, record) in self.log.iter().enumerate().skip(saved.records) {
                replay(&mut self.index, *record, at(number));
            }
        }

        fn retain(&mut self, part: u8) {
            let log = LogOffset(at(self.log.len()) * u64::from(part) / 1024);
            self.index.retain_from(log);
            for slot in 0..5 {
                let Some(queue) = &self.queues[slot as usize] else {
                    continue;
                };
                let gone = queue.entries.partition_point(|entry| entry.at < log) as u64;
                let exact = gone.max(queue.min);
                assert!(self.index.min(QueueSlot(slot)).0 <= exact);
                let within = self.index.search_log(QueueSlot(slot), log).unwrap();
                assert!(within.first.0 <= exact && exact <= within.end.0);
                self.log(Record::Min(slot, exact));
            }
        }

        fn check(&self) {
            for (number, queue) in self.queues.iter().enumerate() {
                let slot = QueueSlot(number as u32);
                let plain = queue.clone().unwrap_or_default();
                let next = plain.entries.len() as u64;
                let (min, end) = (self.index.min(slot), self.index.next(slot));
                assert_eq!((min.0, end.0), (plain.min, next));
                for offset in [next, next + 1, plain.min.wrapping_sub(1)] {
                    let found = self.index.lookup(slot, QueueOffset(offset));
                    assert!(matches!(found, Lookup::None));
                }
                let mut offset = plain.min;
                while offset < next {
                    let found = read(&self.index, &self.dir, slot, QueueOffset(offset));
                    let end = offset as usize + found.len();
                    assert_eq!(found, plain.entries[offset as usize..end]);
                    offset += (found.len() as u64).div_ceil(2);
                }
                self.check_times(slot, &plain);
            }
        }

        fn check_times(&self, slot: QueueSlot, plain: &Plain) {
            for time in (0..ms(LogOffset(at(self.log.len()))) + 2000).step_by(3000) {
                let Some(within) = self.index.search_time(slot, time) else {
                    assert!(self.queues[slot.0 as usize].is_none());
                    return;
                };
                let before = plain.entries.partition_point(|entry| ms(entry.at) < time) as u64;
                let exact = before.max(plain.min);
                assert!(
                    within.first.0 <= exact && exact <= within.end.0,
                    "{within:?} {exact}"
                );
                assert!(within.end.0 - within.first.0 <= 3072);
                let guess = within.guess(time);
                assert!(within.first <= guess && guess <= within.end, "{within:?}");
            }
        }
    }

    fn replay(index: &mut QueueIndex, record: Record, at: u64) -> Option<QueueOffset> {
        match record {
            Record::Open(slot) => index.open(QueueSlot(slot)),
            Record::Drop(slot) => index.drop_queue(QueueSlot(slot)),
            Record::Min(slot, min) => index.raise_min(QueueSlot(slot), QueueOffset(min)),
            Record::Message(slot) => {
                return Some(index.append(QueueSlot(slot), entry(at), ms(LogOffset(at))));
            }
        }
        None
    }

    /// As a reader would: hot entries, or those of the extent read from the disk.
    fn read(index: &QueueIndex, dir: &MemDir, slot: QueueSlot, offset: QueueOffset) -> Vec<Entry> {
        match index.lookup(slot, offset) {
            Lookup::Hot(entries) => entries.iter().collect(),
            Lookup::Cold(extent) => {
                let mut bytes = vec![0; extent.len];
                dir.read_at(&extent.file, extent.at, &mut bytes).unwrap();
                let block = extent.block(bytes.into()).unwrap();
                block.entries(offset).iter().collect()
            }
            Lookup::None => panic!("{slot:?} {offset:?} is lost"),
        }
    }

    proptest! {
        #[test]
        fn any_history_reads_as_a_plain_table(ops in prop::collection::vec(op(), 1..120)) {
            let mut world = World::new();
            for op in ops {
                world.apply(op);
            }
            world.check();
            world.apply(Op::Reload);
            world.check();
        }
    }

    /// Fills one queue and installs a run for every `entries` of it.
    fn filled(runs: u64, entries: u64) -> (QueueIndex, MemDir) {
        let (mut index, dir) = (QueueIndex::new(LIMITS, LogOffset(0)), MemDir::default());
        index.open(QueueSlot(0));
        for number in 0..runs * entries {
            index.append(QueueSlot(0), entry(number * 10), number as i64);
            if (number + 1) % entries == 0 {
                let draft = index.seal(LogOffset((number + 1) * 10)).unwrap();
                index.installed(draft.write(&dir).unwrap());
            }
        }
        (index, dir)
    }

    fn merge_all(index: &mut QueueIndex, dir: &MemDir) -> usize {
        let mut steps = 0;
        while let Some(step) = index.merge_step() {
            assert!(index.merge_step().is_none(), "one step at a time");
            let result = step.run(dir).unwrap();
            index.merged(result);
            steps += 1;
        }
        steps
    }

    #[test]
    fn a_merge_goes_in_steps_and_changes_no_entry() {
        let (mut index, dir) = filled(8, 40_000);
        assert_eq!(merge_all(&mut index, &dir), 2, "6.4 MB in steps of 4");
        let listing = index.listing();
        assert_eq!(listing.names.len(), 1);
        assert_eq!(listing.obsolete.len(), 8);
        for offset in (0..320_000).step_by(1017) {
            let found = read(&index, &dir, QueueSlot(0), QueueOffset(offset));
            assert_eq!(found[0], entry(offset * 10));
        }
    }

    #[test]
    fn runs_without_a_use_go() {
        let (mut index, _) = filled(3, 100);
        index.listing();
        index.retain_from(LogOffset(2500));
        assert_eq!(index.min(QueueSlot(0)), QueueOffset(200));
        assert_eq!(index.listing().obsolete.len(), 2);
        let within = index.search_log(QueueSlot(0), LogOffset(2500)).unwrap();
        assert!(within.first.0 <= 250 && 250 <= within.end.0);
        assert!(matches!(
            index.lookup(QueueSlot(0), QueueOffset(199)),
            Lookup::None
        ));
    }

    #[test]
    fn a_damaged_run_is_named_and_can_be_rebuilt() {
        let (mut index, dir) = filled(3, 100);
        let names: Vec<_> = index
            .listing()
            .names
            .iter()
            .map(|n| n.to_string())
            .collect();
        let states: Vec<_> = index.states().collect();
        for place in [5, 60, 4096 * 2 + 7] {
            let dir_copy = MemDir::default();
            for name in &names {
                dir_copy
                    .write_at(name, 0, &dir.contents(name).unwrap())
                    .unwrap();
            }
            dir_copy.damage(&names[1], |bytes| bytes[place] ^= 1);
            let up_to = LogOffset(3000);
            let (mut index, bad) = QueueIndex::load(LIMITS, up_to, &dir_copy, &names).unwrap();
            let range = LogRange {
                from: LogOffset(1000),
                up_to: LogOffset(2000),
            };
            assert_eq!(
                (bad[0].name.as_str(), bad[0].range),
                (names[1].as_str(), Some(range))
            );
            index.restore(states[0]);
            assert!(matches!(
                index.lookup(QueueSlot(0), QueueOffset(150)),
                Lookup::None
            ));

            let mut rebuilt = index.begin_rebuild(range.from);
            rebuilt.restore(QueueState {
                slot: QueueSlot(0),
                min: QueueOffset(100),
                next: QueueOffset(100),
                born: LogOffset(0),
            });
            for number in 100..200 {
                rebuilt.append(QueueSlot(0), entry(number * 10), number as i64);
            }
            let draft = rebuilt.seal(range.up_to).unwrap();
            rebuilt.installed(draft.write(&dir_copy).unwrap());
            index.adopt(rebuilt);
            let found = read(&index, &dir_copy, QueueSlot(0), QueueOffset(150));
            assert_eq!(found[0], entry(1500));
            let listing = index.listing();
            assert_eq!(listing.names.len(), 3);
            assert!(
                !listing.names.contains(&names[1].as_str().into()),
                "a name is never reused"
            );
        }
    }

    #[test]
    fn damaged_entries_are_noticed_by_reader_and_merge() {
        let (mut index, dir) = filled(8, 100);
        let names = index.listing().names;
        dir.damage(&names[2], |bytes| bytes[4096 + 77] ^= 1);
        let Lookup::Cold(extent) = index.lookup(QueueSlot(0), QueueOffset(210)) else {
            panic!("evicted long ago");
        };
        let mut bytes = vec![0; extent.len];
        dir.read_at(&extent.file, extent.at, &mut bytes).unwrap();
        let bytes = Bytes::from(bytes);
        assert!(extent.block(bytes.clone()).is_none());
        assert!(extent.block(bytes.slice(1..)).is_none());
        let error = index.merge_step().unwrap().run(&dir).unwrap_err();
        assert_eq!(error.file, *names[2]);
        index.merge_failed();
        let bad = index.reject(&names[2], "found by a reader").unwrap();
        assert_eq!(bad.range.unwrap().from, LogOffset(2000));
    }

    #[test]
    fn a_rejected_input_ends_the_merge() {
        let (mut index, dir) = filled(8, 100);
        let step = index.merge_step().unwrap();
        let name = index.listing().names[0].clone();
        index.reject(&name, "found by a reader");
        let result = step.run(&dir).unwrap();
        index.merged(result);
        let listing = index.listing();
        assert_eq!(listing.names.len(), 7);
        assert_eq!(listing.obsolete.len(), 2, "the bad one and the merged one");
    }

    #[test]
    fn a_failed_write_is_taken_back() {
        let (mut index, dir) = filled(1, 10);
        index.append(QueueSlot(0), entry(100), 10);
        let draft = index.seal(LogOffset(200)).unwrap();
        dir.full.set(true);
        assert!(draft.write(&dir).unwrap_err().full);
        index.abandoned();
        dir.full.set(false);
        index.append(QueueSlot(0), entry(150), 10);
        let draft = index.seal(LogOffset(200)).unwrap();
        index.installed(draft.write(&dir).unwrap());
        assert!(index.seal(LogOffset(300)).is_none());
        assert_eq!(index.listing().names.len(), 2);
    }

    #[test]
    fn a_queue_does_not_inherit_the_age_of_its_predecessor() {
        let (mut index, dir) = filled(0, 1);
        index.append(QueueSlot(0), entry(0), 0);
        let draft = index.seal(LogOffset(10)).unwrap();
        index.drop_queue(QueueSlot(0));
        index.open(QueueSlot(0));
        (10..100).for_each(|number| {
            index.append(QueueSlot(0), entry(number), 0);
        });
        index.installed(draft.write(&dir).unwrap());
        assert_eq!(
            read(&index, &dir, QueueSlot(0), QueueOffset(0))[0],
            entry(10)
        );
    }

    #[test]
    fn unsealed_entries_have_a_limit() {
        let (mut index, dir) = filled(0, 1);
        let mut number = 0;
        while !index.is_full() {
            index.append(QueueSlot(0), entry(number), 0);
            number += 1;
            assert!(index.is_full() || index.wants_seal() == (index.hot_bytes >= 1000));
        }
        assert!(number < 100 && index.memory_bytes() < 4000);
        let draft = index.seal(LogOffset(1000)).unwrap();
        assert!(!index.wants_seal(), "one is on its way");
        while !index.is_full() {
            index.append(QueueSlot(0), entry(1000 + number), 0);
            number += 1;
        }
        index.installed(draft.write(&dir).unwrap());
        assert!(!index.is_full());
    }

    #[test]
    fn idle_queues_are_small() {
        const QUEUES: u32 = 200_000;
        let limits = Limits {
            hot_bytes_max: 8 << 20,
            directory_bytes_max: 8 << 20,
        };
        let (mut index, dir) = (QueueIndex::new(limits, LogOffset(0)), MemDir::default());
        (0..QUEUES).for_each(|slot| index.open(QueueSlot(slot)));
        let table = index.memory_bytes();
        assert!(
            table <= QUEUES as usize * 72,
            "{table} bytes for queues at rest"
        );
        for round in 0..2u64 {
            let (from, up_to) = (round * 1_000_000, (round + 1) * 1_000_000);
            (0..QUEUES).for_each(|slot| {
                index.append(QueueSlot(slot), entry(from + u64::from(slot)), round as i64);
            });
            let draft = index.seal(LogOffset(up_to)).unwrap();
            index.installed(draft.write(&dir).unwrap());
            merge_all(&mut index, &dir);
        }
        assert!(index.runs.runs().len() <= 2);
        let most = table + (8 << 20) + 2 * QUEUES as usize * 32;
        let held = index.memory_bytes();
        assert!(held <= most, "{held} bytes once hot entries are evicted");
        for slot in (0..QUEUES).step_by(997) {
            let found = read(&index, &dir, QueueSlot(slot), QueueOffset(1));
            assert_eq!(found[0], entry(1_000_000 + u64::from(slot)));
        }
    }

    #[test]
    fn the_format_stays() {
        let (mut index, dir) = (QueueIndex::new(LIMITS, LogOffset(7)), MemDir::default());
        index.open(QueueSlot(3));
        index.append(QueueSlot(3), entry(0x1234), 1_700_000_000_123);
        let draft = index.seal(LogOffset(0x2000)).unwrap();
        let name = draft.name();
        assert_eq!(
            &*name,
            "index/queue-00000000000000000007-00000000000000008192-1"
        );
        index.installed(draft.write(&dir).unwrap());
        let bytes = dir.contents(&name).unwrap();
        assert_eq!(bytes.len(), 3 * 4096);
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        assert_eq!(
            hex(&bytes[..64]),
            "4f51495800010100000000000000000700000000000020000000018bcfe5687b\
             000000000000000100000001cf9fbe40000000010000000000000000f072773c"
        );
        assert_eq!(
            hex(&bytes[4096..4116]),
            "0000000000001234000002efffffedcc09d3bb94"
        );
        assert_eq!(
            hex(&bytes[8192..8224]),
            "000000030000000100000000000000000000018bcfe5687b000000009e65df6f"
        );
        let others = [64..4096, 4116..8192, 8224..12288];
        assert!(
            others
                .into_iter()
                .all(|range| bytes[range].iter().all(|b| *b == 0))
        );
    }
}
