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
use crate::store::entries::{ENTRY_BYTES, Row};
use crate::store::merge::{DraftPart, Keep, Merge, RunDraft, Step};
use crate::store::runs::{Bad, Header, Kind, Listing, LogRange, Run, RunList};
use bytes::Bytes;
use std::collections::VecDeque;

pub use crate::store::entries::{Entries, Entry, Extent};

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
}

impl Within {
    /// Tells of a block or chunk, in ascending order. The last one that begins before what is
    /// sought holds it, or it is the beginning of the next; then nothing is left to look at.
    fn narrow(&mut self, first: u64, begins_before: bool) -> bool {
        let at = QueueOffset(first);
        match begins_before {
            true => self.first = self.first.max(at),
            false => self.end = self.first.max(at),
        }
        begins_before
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

/// Entries of a chunk: the first chunk of a queue is small, each further one twice as large.
const CHUNK_ENTRIES_MIN: usize = 4;
const CHUNK_ENTRIES_MAX: usize = 1024;
/// What a chunk costs beside its entries: its place in its queue and in `ages`, two allocations.
const CHUNK_OVERHEAD: usize = 104;

/// Consecutive entries of one queue. `Sealed` ones are shared with the seal that writes them and
/// never change again.
struct Chunk {
    first: u64,
    first_ms: i64,
    entries: ChunkBytes,
}

enum ChunkBytes {
    Open(Vec<u8>),
    Sealed { bytes: Bytes, capacity: usize },
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.entries {
            ChunkBytes::Open(bytes) => bytes,
            ChunkBytes::Sealed { bytes, .. } => bytes,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len() / ENTRY_BYTES
    }

    fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    fn cost(&self) -> usize {
        let capacity = match &self.entries {
            ChunkBytes::Open(bytes) => bytes.capacity(),
            ChunkBytes::Sealed { capacity, .. } => *capacity,
        };
        capacity + CHUNK_OVERHEAD
    }

    /// Ends the chunk's growth and gives a share of its entries.
    fn seal(&mut self) -> Bytes {
        if let ChunkBytes::Open(bytes) = &mut self.entries {
            if bytes.len() * 2 <= bytes.capacity() {
                bytes.shrink_to_fit();
            }
            let bytes = std::mem::take(bytes);
            self.entries = ChunkBytes::Sealed {
                capacity: bytes.capacity(),
                bytes: bytes.into(),
            };
        }
        match &self.entries {
            ChunkBytes::Sealed { bytes, .. } => bytes.clone(),
            ChunkBytes::Open(_) => unreachable!("sealed just above"),
        }
    }
}

struct Queue {
    next: u64,
    min: u64,
    /// Entries below are in a run, or in the seal that is being written.
    sealed: u64,
    born: LogOffset,
    chunks: VecDeque<Chunk>,
}

const _: () = assert!(size_of::<Option<Queue>>() == 64, "a queue at rest is small");

impl Queue {
    /// The first offset that is in memory.
    fn hot_from(&self) -> u64 {
        self.chunks.front().map_or(self.next, |chunk| chunk.first)
    }

    /// Memory of the chunks that begin at `offset` or beyond.
    fn cost_from(&self, offset: u64) -> usize {
        let later = self.chunks.iter().rev().take_while(|c| offset <= c.first);
        later.map(Chunk::cost).sum()
    }
}

/// A chunk by its queue and first offset, in the order of creation. One that is gone is skipped.
type Age = (QueueSlot, u64);

/// All queues of one shard.
pub struct QueueIndex {
    limits: Limits,
    queues: Vec<Option<Queue>>,
    /// Queues with entries that no seal has taken; may name a queue twice, or one that is gone.
    dirty: Vec<QueueSlot>,
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
    header: Header,
    /// Memory of what it holds.
    bytes: usize,
    /// Where each queue's part begins, to take it back.
    parts: Vec<Age>,
}

impl QueueIndex {
    /// An index without queues; all it will be given lies at `from` or beyond.
    pub fn new(limits: Limits, from: LogOffset) -> QueueIndex {
        QueueIndex {
            limits,
            queues: Vec::new(),
            dirty: Vec::new(),
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
        self.hot_bytes -= queue.cost_from(0);
        self.unsealed_bytes -= queue.cost_from(queue.sealed);
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
        if let Some(Chunk { entries, .. }) = queue.chunks.back_mut()
            && let ChunkBytes::Open(bytes) = entries
            && bytes.len() + ENTRY_BYTES <= bytes.capacity()
        {
            bytes.extend_from_slice(&entry.encode());
        } else {
            self.begin_chunk(slot, offset, entry, store_ms);
        }
        QueueOffset(offset)
    }

    #[cold]
    fn begin_chunk(&mut self, slot: QueueSlot, first: u64, entry: Entry, first_ms: i64) {
        let queue = self.queues[slot.0 as usize].as_mut().expect("just found");
        let last = queue.chunks.back().map_or(0, Chunk::len);
        let room = (last * 2).clamp(CHUNK_ENTRIES_MIN, CHUNK_ENTRIES_MAX);
        let mut bytes = Vec::with_capacity(room * ENTRY_BYTES);
        bytes.extend_from_slice(&entry.encode());
        let chunk = Chunk {
            first,
            first_ms,
            entries: ChunkBytes::Open(bytes),
        };
        self.hot_bytes += chunk.cost();
        self.unsealed_bytes += chunk.cost();
        if queue.chunks.is_empty() {
            queue.chunks.reserve_exact(1);
        }
        queue.chunks.push_back(chunk);
        self.young.push_back((slot, first));
        self.evict();
    }

    /// Forgets the oldest installed chunks until the rest is within the limit.
    fn evict(&mut self) {
        while self.hot_bytes > self.limits.hot_bytes_max {
            let Some((slot, first)) = self.ages.pop_front() else {
                return;
            };
            let Some(queue) = self.queues[slot.0 as usize].as_mut() else {
                continue;
            };
            if queue
                .chunks
                .front()
                .is_some_and(|chunk| chunk.first == first)
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
            ages.retain(|(slot, first)| {
                let queue = queues[slot.0 as usize].as_ref();
                queue.is_some_and(|q| q.chunks.binary_search_by_key(first, |c| c.first).is_ok())
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
        for run in self.runs_of(queue).rev() {
            let after = run.partition_point(|row| Row::decode(row).key() <= (slot.0, offset.0));
            let Some(before) = after.checked_sub(1) else {
                continue;
            };
            let row = Row::decode(run.row(before));
            if row.slot == slot.0 && offset.0 < row.end() {
                return Lookup::Cold(row.extent(run));
            }
        }
        Lookup::None
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
        let mut within = Within {
            first: QueueOffset(queue.min),
            end: QueueOffset(queue.next),
        };
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
                if !within.narrow(row.first, row.first_ms < store_ms) {
                    return Some(within);
                }
            }
        }
        let after = queue.chunks.partition_point(|c| c.first_ms < store_ms);
        for chunk in queue.chunks.range(after.saturating_sub(1)..).take(2) {
            if !within.narrow(chunk.first, chunk.first_ms < store_ms) {
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
        let seal = self
            .seal
            .as_ref()
            .map_or(0, |seal| seal.parts.len() * size_of::<Age>());
        let merge = self.merge.as_ref().map_or(0, Merge::memory_bytes);
        table + dirty + seal + merge + self.hot_bytes + self.runs.directory_bytes()
    }

    /// Everything appended so far becomes a draft, which is to be written and then
    /// [`installed`](Self::installed) or [`abandoned`](Self::abandoned); `None` if there is nothing
    /// new. All entries lie below `up_to`. The checkpoint that names the run must wait until the
    /// log is durable up to there, for the run speaks of all these records.
    pub fn seal(&mut self, up_to: LogOffset) -> Option<RunDraft> {
        assert!(self.seal.is_none(), "one seal at a time");
        self.dirty.sort_unstable();
        self.dirty.dedup();
        let mut parts = Vec::new();
        let mut begins = Vec::with_capacity(self.dirty.len());
        let (mut first_ms, mut entries, mut freed) = (i64::MAX, 0, 0);
        for slot in self.dirty.drain(..) {
            let Some(queue) = self.queues[slot.0 as usize].as_mut() else {
                continue;
            };
            if queue.sealed == queue.next {
                continue;
            }
            let start = queue.chunks.partition_point(|c| c.first < queue.sealed);
            for chunk in queue.chunks.range_mut(start..) {
                let before = chunk.cost();
                first_ms = first_ms.min(chunk.first_ms);
                parts.push(DraftPart {
                    slot: slot.0,
                    first: chunk.first,
                    first_ms: chunk.first_ms,
                    entries: chunk.seal(),
                });
                freed += before - chunk.cost();
            }
            begins.push((slot, queue.sealed));
            entries += queue.next - queue.sealed;
            queue.sealed = queue.next;
        }
        self.hot_bytes -= freed;
        let bytes = std::mem::take(&mut self.unsealed_bytes) - freed;
        if parts.is_empty() {
            return None;
        }
        assert!(self.sealed_up_to < up_to, "a seal covers new log");
        let from = std::mem::replace(&mut self.sealed_up_to, up_to);
        let header = Header::sealed(Kind::Queue, LogRange { from, up_to }, first_ms, entries);
        self.sealing = std::mem::take(&mut self.young);
        self.seal = Some(Sealing {
            header,
            bytes,
            parts: begins,
        });
        Some(RunDraft::new(header, parts))
    }

    /// The draft is written and synced; `directory` is what writing it gave.
    pub fn installed(&mut self, directory: Vec<u8>) {
        let seal = self.seal.take().expect("a seal was on its way");
        let header = seal.header.with_directory(directory.len());
        self.runs.insert(Run::new(header, directory.into()));
        self.ages.append(&mut self.sealing);
        self.evict();
    }

    /// The draft could not be written: the next seal takes its entries again.
    pub fn abandoned(&mut self) {
        let seal = self.seal.take().expect("a seal was on its way");
        self.sealed_up_to = seal.header.range.from;
        for (slot, begin) in seal.parts {
            let Some(queue) = self.queues[slot.0 as usize].as_mut() else {
                continue;
            };
            if begin < queue.sealed {
                self.unsealed_bytes += queue.cost_from(begin) - queue.cost_from(queue.sealed);
                queue.sealed = begin;
                self.dirty.push(slot);
            }
        }
        self.sealing.append(&mut self.young);
        self.young = std::mem::take(&mut self.sealing);
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
            self.merge = Some(Merge::new(&self.runs, range, keep));
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
        self.merge = None;
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
        Some(Within {
            first: QueueOffset(first),
            end: QueueOffset(end.max(first)),
        })
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
        Merge::cancel(&mut self.merge);
        self.runs.reject(name, reason)
    }

    /// Takes over the runs of an index that was filled from the range of a bad run.
    pub fn adopt(&mut self, rebuilt: QueueIndex) {
        assert!(
            rebuilt.seal.is_none() && rebuilt.unsealed_bytes == 0,
            "all is in runs"
        );
        Merge::cancel(&mut self.merge);
        for run in rebuilt.runs.runs() {
            self.runs.insert(run.clone());
        }
    }
}
