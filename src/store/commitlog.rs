//! The log of one shard: gathers records into batches, decides which batch the disk gets next, and
//! keeps the newest batches in memory for readers.
//!
//! Always holds: batches leave in log order; two writes in flight never share a block; `durable <=
//! written <= kept <= end`, and each only grows; after a failed write or sync nothing more is
//! ordered and no watermark moves.
//!
//! Under `ASYNC_FLUSH` a small batch is *kept* ([`Ahead`]) and so confirmed as soon as everything
//! before it is; the disk gets what is kept a little later, many batches in one write. What is
//! large, or finds no room there, is confirmed by its own write.
//!
//! Where a batch starts is decided when it is opened, because its records carry their offsets. It
//! *continues* in the last block of its predecessor, and may then be written only after that; or it
//! is *aligned* to the next block and may be in flight beside it. A large predecessor still in
//! flight makes the next batch aligned, so a busy disk always has work and an idle log wastes none.
//!
//! Not here: what a record says (`record`, `dispatch`), who waits for it (`durability`).

use crate::base::blocks::BlockBuffer;
use crate::base::crc::Joins;
use crate::base::disk::{BLOCK_BYTES, Done, Order, Until};
use crate::base::{DiskError, LogOffset, Mono, Now, OrderId};
use crate::store::ahead::Ahead;
use crate::store::batch::{BATCH_BYTES_MAX, BatchHeader, HEADER_BYTES, Life, Lineage};
use crate::store::segment::Segments;
use crate::store::{Flush, Sabotage};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// A predecessor of at least this size still in flight makes the next batch aligned.
const ALIGN_AFTER_BYTES: usize = 32 * 1024;
/// What must have gathered before it is written beside a write under way.
const BESIDE_BYTES: usize = 256 * 1024;
/// From this size on a batch is written durably instead of written and then synced.
///
/// The kernel finishes a durable write on a worker bound to one core. If that core is busy, the
/// batch waits there for the scheduler's next tick: worth it for what is written beside another,
/// because then the disk and this core are busy too, and for nothing smaller.
const DURABLE_BYTES: usize = 128 * 1024;
/// Smaller batches are kept before they are written; for larger ones two copies more cost as much
/// as the wait for the disk.
const SMALL_BYTES: usize = 64 * 1024;
/// What is kept is written once there is so much of it,
const GATHERED_BYTES: u64 = 128 * 1024;
/// or after this time,
const GATHER_MS: u64 = 10;
/// up to this much in one write.
const JOINED_BYTES_MAX: usize = 256 * 1024;
/// Batches of this size cost the disk more than turning reserved blocks into written ones does.
const LARGE_BYTES: usize = 64 * 1024;

/// Buffers kept for the next batches: as many as are written, gathered and evicted at a time.
const SPARES_MAX: usize = 4;

pub struct LogOptions {
    pub flush: Flush,
    /// Longest time that written bytes stay without a sync under `ASYNC_FLUSH`.
    pub flush_interval_ms: u64,
    /// A batch is sealed once it is this long; one larger record makes a larger batch.
    pub batch_bytes_max: usize,
    pub writes_in_flight_max: usize,
    /// Bytes not yet written, under `SYNC_FLUSH` not yet durable, over which
    /// [`CommitLog::admits`] says no.
    pub pending_bytes_max: usize,
    /// Memory for batches that readers of the tail are served from.
    pub tail_bytes_max: usize,
    pub sabotage: Sabotage,
}

pub struct CommitLog {
    options: LogOptions,
    lineage: Lineage,
    segments: Segments,
    joins: Joins,
    /// Under `ASYNC_FLUSH`.
    ahead: Option<Ahead>,
    open: Option<OpenBatch>,
    sealed: VecDeque<SealedBatch>,
    /// Memory of a write that has ended, for the next that is joined.
    joined_spare: Option<BlockBuffer>,
    /// When sealed batches that are kept are to be written, however few they are.
    write_due: Option<Mono>,
    in_flight: VecDeque<InFlight>,
    tail: VecDeque<TailBatch>,
    tail_bytes: usize,
    /// Memory of batches that left the tail, to be filled again.
    spares: Vec<BlockBuffer>,
    pending_bytes: usize,
    /// Where the last sealed batch ends, its checksum, life and size.
    sealed_end: LogOffset,
    previous_crc: u32,
    previous_life: Life,
    previous_bytes: usize,
    /// Size of recent batches, the newest counting a quarter.
    usual_bytes: usize,
    /// Whether that is large, with some reluctance to change.
    large: bool,
    /// Up to here the log outlives this process: it is written, or kept.
    kept: LogOffset,
    written: LogOffset,
    durable: LogOffset,
    /// Under `SYNC_FLUSH`: the writes between `durable` and `written`.
    unsynced: VecDeque<InFlight>,
    /// Ends of the last batch of segments that are not wholly durable yet.
    rolls: VecDeque<LogOffset>,
    sync: Option<(OrderId, LogOffset)>,
    /// Under `ASYNC_FLUSH`: when written bytes must be synced.
    sync_due: Option<Mono>,
    /// Somebody needs the log durable up to here, whatever the mode.
    sync_wanted: LogOffset,
    failed: Option<DiskError>,
    last_ms: i64,
}

struct OpenBatch {
    at: LogOffset,
    /// Bytes of the predecessor in the shared block, at the start of `bytes`.
    prefix: usize,
    bytes: BlockBuffer,
    records: u32,
    /// The checksum of all of them.
    records_crc: u32,
    first_ms: i64,
}

struct SealedBatch {
    at: LogOffset,
    end: LogOffset,
    continuing: bool,
    /// Starts where the block of `at` does.
    data: Bytes,
}

struct InFlight {
    id: OrderId,
    end: LogOffset,
    pending: usize,
    /// What it writes, if it was joined for that.
    joined: Option<Bytes>,
    done: bool,
    /// Its answer says that it is durable, not only written.
    durable: bool,
}

struct TailBatch {
    at: LogOffset,
    end: LogOffset,
    /// Log offset of `data[0]`.
    block: LogOffset,
    data: Bytes,
    /// What `data` takes.
    memory: usize,
}

/// The end of a batch, or where a log begins: all that its successor must agree with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogEnd {
    pub end: LogOffset,
    pub crc: u32,
    pub last_ms: i64,
    /// In which the batch was written. The log's own may be later: then what follows may still be
    /// of this one.
    pub life: Life,
}

impl CommitLog {
    /// Continues a log whose bytes up to `end` are durable. The next batch starts at the next
    /// block, so nothing that was written before is touched again.
    pub fn new(
        options: LogOptions,
        lineage: Lineage,
        segments: Segments,
        ahead: Option<Ahead>,
        end: LogEnd,
    ) -> Self {
        assert!(options.writes_in_flight_max > 0 && options.batch_bytes_max > HEADER_BYTES);
        CommitLog {
            options,
            lineage,
            segments,
            joins: Joins::default(),
            ahead,
            open: None,
            sealed: VecDeque::new(),
            joined_spare: None,
            write_due: None,
            in_flight: VecDeque::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            spares: Vec::new(),
            pending_bytes: 0,
            sealed_end: end.end,
            previous_crc: end.crc,
            previous_life: end.life,
            previous_bytes: 0,
            usual_bytes: 0,
            large: false,
            kept: end.end,
            written: end.end,
            durable: end.end,
            unsynced: VecDeque::new(),
            rolls: VecDeque::new(),
            sync: None,
            sync_due: None,
            sync_wanted: LogOffset(0),
            failed: None,
            last_ms: end.last_ms,
        }
    }

    /// The end of the newest record.
    pub fn end(&self) -> LogOffset {
        match &self.open {
            Some(open) if open.records > 0 => open.end(),
            _ => self.sealed_end,
        }
    }

    pub fn written(&self) -> LogOffset {
        self.written
    }

    pub fn durable(&self) -> LogOffset {
        self.durable
    }

    /// What readers may see, and what an ordinary send is acknowledged by.
    pub fn confirmed(&self) -> LogOffset {
        match self.options.flush {
            _ if self.options.sabotage == Sabotage::AckBeforeSync => self.written,
            Flush::Async if self.options.sabotage == Sabotage::AckBeforeKept => self
                .in_flight
                .back()
                .map_or(self.kept, |write| write.end.max(self.kept)),
            Flush::Async => self.kept,
            Flush::Sync => self.durable,
        }
    }

    pub fn failed(&self) -> Option<&DiskError> {
        self.failed.as_ref()
    }

    /// The disk failed: from now on nothing is ordered and no watermark moves.
    pub fn fail(&mut self, error: DiskError) {
        self.failed.get_or_insert(error);
    }

    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    pub fn segments(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// Whether groups are so large that the state of the blocks they go to does not matter.
    pub fn writes_large(&mut self) -> bool {
        self.large = match self.large {
            true => self.usual_bytes >= LARGE_BYTES / 4,
            false => self.usual_bytes >= LARGE_BYTES,
        };
        self.large
    }

    /// Whether the disk has no room for another segment.
    pub fn is_starved(&self) -> bool {
        self.segments.is_starved()
    }

    /// When that is looked at again.
    pub fn starved(&self) -> Option<Mono> {
        self.segments.starved()
    }

    /// Where the segment that holds `at` ends.
    pub fn segment_end(&self, at: LogOffset) -> LogOffset {
        self.segments.end_of(at)
    }

    /// False while more waits for the disk than the limit.
    pub fn admits(&self) -> bool {
        self.failed.is_none() && self.pending_bytes < self.options.pending_bytes_max
    }

    pub fn tail_bytes(&self) -> usize {
        let spare: usize = self.spares.iter().map(BlockBuffer::capacity).sum();
        self.tail_bytes + spare
    }

    /// The store time for a record appended now: the clock's, but never less than the last one.
    pub fn store_ms(&mut self, now: Now) -> i64 {
        self.last_ms = self.last_ms.max(now.wall_ms);
        self.last_ms
    }

    /// A batch cannot be longer: it lies in one segment.
    pub fn batch_bytes_limit(&self) -> usize {
        usize::try_from(self.segments.bytes()).map_or(BATCH_BYTES_MAX, |b| b.min(BATCH_BYTES_MAX))
    }

    /// Makes room so that the next `bytes` of records lie in one batch.
    pub fn reserve(&mut self, bytes: usize) {
        let whole = HEADER_BYTES + bytes;
        assert!(
            whole <= self.batch_bytes_limit(),
            "the caller refuses what is longer"
        );
        if let Some(open) = &self.open {
            let full = open.records > 0
                && open.bytes.len() - open.prefix + bytes > self.options.batch_bytes_max;
            let segment_end = self.segments.end_of(open.at);
            if full || open.end().0 + bytes as u64 > segment_end.0 {
                self.close();
            }
        }
        match &mut self.open {
            Some(open) => open.bytes.reserve(bytes),
            None => self.open_batch(whole),
        }
    }

    /// Appends one record within what was [reserved](Self::reserve): `encode` gets its log offset
    /// and the buffer to append it to. Gives the record's place.
    pub fn put(
        &mut self,
        store_ms: i64,
        encode: impl FnOnce(LogOffset, &mut Vec<u8>),
    ) -> Range<LogOffset> {
        self.put_summed(store_ms, |at, out, _| {
            let from = out.len();
            encode(at, out);
            crc32fast::hash(&out[from..])
        })
    }

    /// The same if `encode` gives the record's checksum, in full.
    #[inline]
    pub fn put_summed(
        &mut self,
        store_ms: i64,
        encode: impl FnOnce(LogOffset, &mut Vec<u8>, &mut Joins) -> u32,
    ) -> Range<LogOffset> {
        let open = self.open.as_mut().expect("room was reserved");
        let at = open.end();
        let before = open.bytes.len();
        let crc = encode(at, open.bytes.tail(), &mut self.joins);
        let record = &open.bytes[before..];
        open.records_crc = self.joins.join(open.records_crc, crc, record);
        let added = record.len();
        // The next one is often as long.
        open.bytes.expect(added);
        assert!(added > 0, "a record has bytes");
        if open.records == 0 {
            open.first_ms = store_ms;
        }
        open.records += 1;
        self.pending_bytes += added;
        let end = open.end();
        assert!(
            end <= self.segments.end_of(open.at),
            "a batch never crosses a segment"
        );
        at..end
    }

    fn open_batch(&mut self, whole: usize) {
        assert!(self.open.is_none());
        let end = self.sealed_end;
        let in_block = end.0 as usize % BLOCK_BYTES;
        let busy = !self.sealed.is_empty() || self.in_flight.back().is_some_and(|w| !w.done);
        let shared = self
            .tail
            .back()
            .filter(|last| last.end == end && in_block > 0);
        let continues = shared.is_some() && !(busy && self.previous_bytes >= ALIGN_AFTER_BYTES);
        let mut at = if continues { end } else { next_block(end) };
        let mut prefix = if continues { in_block } else { 0 };
        let segment_end = self.segments.end_of(at);
        if at.0 + whole as u64 > segment_end.0 {
            at = segment_end;
            prefix = 0;
        }
        let last_byte = LogOffset(end.0.max(1) - 1);
        let left = self.segments.start_of(last_byte);
        if left != self.segments.start_of(at) {
            self.rolls.push_back(end);
            self.segments.leave(left, self.last_ms);
        }
        // A busy disk gathers about as much as before; a quarter more costs memory, growing a copy.
        let usual = self
            .usual_bytes
            .max(if busy { self.previous_bytes } else { 0 });
        let usual = (usual + usual / 4).min(self.options.batch_bytes_max);
        let mut bytes = self.buffer(prefix + whole.max(usual));
        if prefix > 0 {
            let last = self
                .tail
                .back()
                .expect("a continuing batch has a predecessor");
            let from = (end.0 - last.block.0) as usize - prefix;
            let shared = &last.data[from..from + prefix];
            bytes.tail().extend_from_slice(shared);
        }
        bytes.tail().extend_from_slice(&[0; HEADER_BYTES]);
        self.open = Some(OpenBatch {
            at,
            prefix,
            bytes,
            records: 0,
            records_crc: 0,
            first_ms: 0,
        });
    }

    /// Memory for a batch: that of an old one, if it is neither too small nor wasted on this.
    fn buffer(&mut self, room: usize) -> BlockBuffer {
        let most = 2 * room + 4 * BLOCK_BYTES;
        let fits = |spare: &BlockBuffer| (room + BLOCK_BYTES..=most).contains(&spare.capacity());
        if let Some(at) = self.spares.iter().position(fits) {
            return self.spares.swap_remove(at);
        }
        // The load has changed, and so will what leaves the tail.
        self.spares.clear();
        BlockBuffer::with_capacity(room)
    }

    /// Ends the open batch, if it has records: checksums it and queues it for the disk.
    fn seal(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        if open.records == 0 {
            return;
        }
        let end = open.end();
        let header = BatchHeader {
            lineage: self.lineage,
            bytes: 0,
            records: open.records,
            previous_crc: self.previous_crc,
            at: open.at,
            durable: self.durable,
            first_ms: open.first_ms,
            span_ms: u32::try_from(self.last_ms - open.first_ms).unwrap_or(u32::MAX),
            crc: 0,
        };
        self.previous_crc = header.seal(&mut open.bytes[open.prefix..], open.records_crc);
        self.previous_life = self.lineage.life();
        self.previous_bytes = open.bytes.len() - open.prefix;
        self.usual_bytes = (3 * self.usual_bytes + self.previous_bytes) / 4;
        self.sealed_end = end;
        fill_block(&mut open.bytes);
        let memory = open.bytes.capacity();
        let data = open.bytes.into_bytes();
        let block = LogOffset(open.at.0 - open.prefix as u64);
        self.tail_bytes += memory;
        self.tail.push_back(TailBatch {
            at: open.at,
            end,
            block,
            data: data.clone(),
            memory,
        });
        self.sealed.push_back(SealedBatch {
            at: open.at,
            end,
            continuing: open.prefix > 0,
            data,
        });
    }

    /// The next record begins another batch.
    fn close(&mut self) {
        self.keep();
        self.seal();
    }

    /// Whether [`keep`](Self::keep) would confirm something.
    pub fn has_to_keep(&self) -> bool {
        let (Some(ahead), Some(open)) = (&self.ahead, &self.open) else {
            return false;
        };
        let len = open.bytes.len() - open.prefix;
        open.records > 0
            && len < SMALL_BYTES
            && self.kept == self.sealed_end
            && self.failed.is_none()
            && next_block(open.end()) <= self.segments.ready()
            && ahead.has_room(len)
    }

    /// Confirms what has gathered, if that is possible without the disk.
    pub fn keep(&mut self) {
        if !self.has_to_keep() {
            return;
        }
        self.seal();
        let ahead = self.ahead.as_mut().expect("it has room");
        let batch = self.sealed.back().expect("it was just sealed");
        ahead.keep(batch.bytes(), batch.end);
        self.kept = batch.end;
        if self.options.sabotage == Sabotage::OverwriteKept {
            ahead.release(self.kept);
        }
    }

    /// The next write or sync, if the disk should have one now.
    pub fn poll_write(&mut self, now: Now, id: OrderId) -> Option<Order> {
        if self.failed.is_some() {
            return None;
        }
        self.poll_sync(now, id).or_else(|| self.poll_batch(now, id))
    }

    fn poll_sync(&mut self, now: Now, id: OrderId) -> Option<Order> {
        if self.sync.is_some() || self.written <= self.durable {
            return None;
        }
        let due = match self.options.flush {
            Flush::Sync => true,
            Flush::Async => self.sync_due.is_some_and(|due| due <= now.mono),
        };
        if !due && self.sync_wanted <= self.durable {
            if self.sync_due.is_none() {
                self.sync_due = Some(now.mono.after_ms(self.options.flush_interval_ms));
            }
            return None;
        }
        let target = self
            .rolls
            .front()
            .copied()
            .unwrap_or(self.written)
            .min(self.written);
        assert!(target > self.durable, "a sync has something to do");
        let (file, _) = self.segments.place(LogOffset(target.0 - 1));
        self.sync = Some((id, target));
        // What lies in the next segment has waited as long, and its sync follows at once.
        self.sync_due = self.sync_due.filter(|_| target < self.written);
        Some(Order::Sync { file })
    }

    fn poll_batch(&mut self, now: Now, id: OrderId) -> Option<Order> {
        if self.in_flight.len() >= self.options.writes_in_flight_max {
            return None;
        }
        let predecessor_done = self.in_flight.back().is_none_or(|write| write.done);
        if self.sealed.is_empty() {
            let open = self.open.as_ref().filter(|open| open.records > 0)?;
            let ready = next_block(open.end()) <= self.segments.ready();
            // Beside a write under way a small one gains little and costs as much as a large one.
            let waits = open.prefix > 0 || open.bytes.len() < BESIDE_BYTES;
            if !ready || (waits && !predecessor_done) {
                return None;
            }
            self.seal();
        } else if self.may_wait(now) {
            return None;
        }
        let batch = self.sealed.front()?;
        let ready = next_block(batch.end) <= self.segments.ready();
        if !ready || (batch.continuing && !predecessor_done) {
            return None;
        }
        let batch = self.next_sealed()?;
        let block = LogOffset(batch.at.0 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        let (file, at) = self.segments.place(block);
        let until = match self.options.flush {
            _ if self.options.sabotage == Sabotage::AckBeforeSync => Until::Written,
            Flush::Sync if batch.data.len() >= DURABLE_BYTES => Until::Durable,
            _ => Until::Written,
        };
        self.in_flight.push_back(InFlight {
            id,
            end: batch.end,
            pending: batch.pending,
            joined: batch.is_joined.then(|| batch.data.clone()),
            done: false,
            durable: until == Until::Durable,
        });
        Some(Order::Write {
            file,
            at,
            data: batch.data,
            until,
        })
    }

    /// Whether what is sealed was confirmed already, and is so little that it is written later.
    fn may_wait(&mut self, now: Now) -> bool {
        let open = self.open.as_ref().is_some_and(|open| open.records > 0);
        let asked = self.kept < self.sealed_end || open || self.sync_wanted > self.written;
        let first = self.sealed.front().map_or(self.kept, |batch| batch.at);
        if asked || self.kept.0 - first.0 >= GATHERED_BYTES {
            return false;
        }
        // The time until it must be synced begins here, too.
        let sync_due = now.mono.after_ms(self.options.flush_interval_ms);
        self.sync_due.get_or_insert(sync_due);
        let due = now.mono.after_ms(GATHER_MS);
        *self.write_due.get_or_insert(due) > now.mono
    }

    /// The oldest sealed batch; if it is kept, together with those behind it that are.
    fn next_sealed(&mut self) -> Option<Joined> {
        self.write_due = None;
        let first = self.sealed.pop_front()?;
        let block = first.at.0 - first.prefix() as u64;
        let mut joined = Joined {
            at: first.at,
            end: first.end,
            pending: first.bytes().len() - HEADER_BYTES,
            data: first.data.clone(),
            is_joined: false,
        };
        if first.end > self.kept {
            return Some(joined);
        }
        let segment_end = self.segments.end_of(first.at);
        let most = segment_end.0.min(block + JOINED_BYTES_MAX as u64);
        let most = LogOffset(most).min(self.kept);
        let fits = |next: &&SealedBatch| next.end <= most;
        let count = self.sealed.iter().take_while(fits).count();
        if count == 0 {
            return Some(joined);
        }
        let spare = self.joined_spare.take();
        let mut bytes = spare.unwrap_or_else(|| BlockBuffer::with_capacity(JOINED_BYTES_MAX));
        let tail = bytes.tail();
        tail.extend_from_slice(&first.data[..(first.end.0 - block) as usize]);
        for next in self.sealed.drain(..count) {
            let between = (next.at.0 - joined.end.0) as usize;
            tail.extend_from_slice(&[0; BLOCK_BYTES][..between]);
            tail.extend_from_slice(next.bytes());
            joined.pending += next.bytes().len() - HEADER_BYTES;
            joined.end = next.end;
        }
        fill_block(&mut bytes);
        joined.data = bytes.into_bytes();
        joined.is_joined = true;
        Some(joined)
    }

    /// Whether `id` is a write or sync of this log.
    pub fn owns(&self, id: OrderId) -> bool {
        self.sync.is_some_and(|(sync, _)| sync == id) || self.in_flight.iter().any(|w| w.id == id)
    }

    /// The answer to a write or sync. After an error the log is failed for good.
    pub fn handle_done(&mut self, id: OrderId, result: Result<Done, DiskError>) {
        if let Err(error) = result {
            return self.fail(error);
        }
        if self.failed.is_some() {
            return;
        }
        if let Some((_, target)) = self.sync.take_if(|(sync, _)| *sync == id) {
            assert!(self.durable < target, "durability only grows");
            return self.raise_durable(target);
        }
        let write = self.in_flight.iter_mut().find(|write| write.id == id);
        let write = write.expect("every answer belongs to an order");
        write.done = true;
        if self.options.sabotage == Sabotage::SkipGap {
            self.written = self.written.max(write.end);
        }
        while self.in_flight.front().is_some_and(|write| write.done) {
            let mut write = self.in_flight.pop_front().expect("there is a front");
            self.joined_spare = write
                .joined
                .take()
                .and_then(BlockBuffer::reuse)
                .or(self.joined_spare.take());
            self.written = self.written.max(write.end);
            match self.options.flush {
                Flush::Async => self.pending_bytes -= write.pending,
                Flush::Sync => self.unsynced.push_back(write),
            }
        }
        self.kept = self.kept.max(self.written);
        if let Some(ahead) = &mut self.ahead {
            ahead.release(self.written);
        }
        self.raise_durable(self.durable);
        self.evict();
    }

    /// The log is synced up to here, and further by writes that were durable themselves.
    fn raise_durable(&mut self, synced: LogOffset) {
        let mut to = synced;
        while let Some(write) = self
            .unsynced
            .pop_front_if(|write| write.durable || write.end <= synced)
        {
            assert!(self.durable < write.end, "durability only grows");
            to = to.max(write.end);
            self.pending_bytes -= write.pending;
        }
        assert!(
            to <= self.written,
            "nothing is durable before it is written"
        );
        self.durable = to;
        while self.rolls.front().is_some_and(|end| *end <= to) {
            self.rolls.pop_front();
        }
    }

    /// Lets go of the oldest batches beyond the tail's budget, once they can be read from the disk.
    fn evict(&mut self) {
        while self.tail_bytes > self.options.tail_bytes_max && self.tail.len() > 1 {
            if self
                .tail
                .front()
                .is_none_or(|batch| batch.end > self.written)
            {
                return;
            }
            let batch = self.tail.pop_front().expect("there is a front");
            self.tail_bytes -= batch.memory;
            if self.spares.len() < SPARES_MAX {
                self.spares.extend(BlockBuffer::reuse(batch.data));
            }
        }
    }

    /// The bytes of a record from memory; `None` if it must come from the disk.
    pub fn memory(&self, at: LogOffset, size: u32) -> Option<Bytes> {
        let after = self.tail.partition_point(|batch| batch.at <= at);
        let batch = self.tail.get(after.checked_sub(1)?)?;
        let from = (at.0 - batch.block.0) as usize;
        let to = from + size as usize;
        if at.0 + u64::from(size) > batch.end.0 {
            return None;
        }
        Some(batch.data.slice(from..to))
    }

    /// Asks for durability up to the end of what is there now, whatever the mode. Seals, so that
    /// the end is the end of a batch; gives it with the checksum the next batch will chain to.
    pub fn want_durable(&mut self) -> LogEnd {
        self.close();
        self.sync_wanted = self.sync_wanted.max(self.sealed_end);
        LogEnd {
            end: self.sealed_end,
            crc: self.previous_crc,
            last_ms: self.last_ms,
            life: self.previous_life,
        }
    }

    /// Up to where it was asked for.
    pub fn sync_wanted(&self) -> LogOffset {
        self.sync_wanted
    }

    /// When [`poll_write`](Self::poll_write) will have something only because time has passed.
    pub fn deadline(&self) -> Option<Mono> {
        if self.failed.is_some() {
            return None;
        }
        let syncs = self.sync.is_none() && self.written > self.durable;
        let sync_due = self.sync_due.filter(|_| syncs);
        // What waits for a write under way is looked at when that ends.
        let write_due = self.write_due.filter(|_| self.in_flight.is_empty());
        sync_due.into_iter().chain(write_due).min()
    }
}

/// A write: one batch, or several that follow each other.
struct Joined {
    at: LogOffset,
    end: LogOffset,
    pending: usize,
    data: Bytes,
    /// The data was copied together for this.
    is_joined: bool,
}

impl SealedBatch {
    /// Bytes of the predecessor in `data`.
    fn prefix(&self) -> usize {
        self.at.0 as usize % BLOCK_BYTES
    }

    /// Without those, and without what fills the last block.
    fn bytes(&self) -> &[u8] {
        let from = self.prefix();
        &self.data[from..from + (self.end.0 - self.at.0) as usize]
    }
}

impl OpenBatch {
    fn end(&self) -> LogOffset {
        LogOffset(self.at.0 + (self.bytes.len() - self.prefix) as u64)
    }
}

fn next_block(at: LogOffset) -> LogOffset {
    LogOffset(at.0.next_multiple_of(BLOCK_BYTES as u64))
}

/// Zeros up to the end of the last block.
fn fill_block(bytes: &mut BlockBuffer) {
    let missing = bytes.len().next_multiple_of(BLOCK_BYTES) - bytes.len();
    bytes.reserve(missing);
    bytes.tail().extend_from_slice(&[0; BLOCK_BYTES][..missing]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batch::checksum;

    const LIMIT: usize = 64 * 1024;

    fn log(flush: Flush) -> CommitLog {
        let options = LogOptions {
            flush,
            flush_interval_ms: 500,
            batch_bytes_max: 1 << 20,
            writes_in_flight_max: 4,
            pending_bytes_max: LIMIT,
            tail_bytes_max: 1 << 20,
            sabotage: Sabotage::None,
        };
        let segments = Segments::new(64 << 20, LogOffset(64 << 20));
        let ahead = (flush == Flush::Async).then(|| Ahead::new(Box::new(|_, _| ()), LIMIT / 2));
        let lineage = Lineage {
            shard: crate::base::ShardId(0),
            store_id: 1,
            epoch: 1,
            incarnation: 1,
        };
        CommitLog::new(options, lineage, segments, ahead, LogEnd::default())
    }

    fn put(log: &mut CommitLog, bytes: usize) -> LogOffset {
        log.reserve(bytes);
        log.put(0, |_, out| out.resize(out.len() + bytes, 7)).end
    }

    fn poll(log: &mut CommitLog, id: u64) -> Option<Order> {
        log.poll_write(Now::default(), OrderId(id))
    }

    #[test]
    fn a_durable_write_waits_for_the_sync_of_a_small_one_before_it() {
        let mut log = log(Flush::Sync);
        let small = put(&mut log, 100);
        assert!(matches!(
            poll(&mut log, 1),
            Some(Order::Write {
                until: Until::Written,
                ..
            })
        ));
        log.handle_done(OrderId(1), Ok(Done::Written));
        assert!(matches!(poll(&mut log, 2), Some(Order::Sync { .. })));
        let large = put(&mut log, DURABLE_BYTES);
        assert!(matches!(
            poll(&mut log, 3),
            Some(Order::Write {
                until: Until::Durable,
                ..
            })
        ));
        log.handle_done(OrderId(3), Ok(Done::Written));
        assert!(log.written() >= large && log.confirmed() < small);
        log.handle_done(OrderId(2), Ok(Done::Synced));
        assert!(
            log.confirmed() >= large,
            "the sync reaches what is durable behind it"
        );
        assert!(poll(&mut log, 4).is_none());
    }

    #[test]
    fn a_sync_that_does_not_end_stops_what_comes_in() {
        let mut log = log(Flush::Sync);
        put(&mut log, 100);
        poll(&mut log, 1).unwrap();
        log.handle_done(OrderId(1), Ok(Done::Written));
        assert!(matches!(poll(&mut log, 2), Some(Order::Sync { .. })));
        for id in 3.. {
            if !log.admits() {
                break;
            }
            put(&mut log, 1000);
            poll(&mut log, id).unwrap();
            log.handle_done(OrderId(id), Ok(Done::Written));
            assert!(id < 100, "{LIMIT} bytes have come and gone");
        }
        log.handle_done(OrderId(2), Ok(Done::Synced));
        poll(&mut log, 200).unwrap();
        log.handle_done(OrderId(200), Ok(Done::Synced));
        assert!(log.admits() && log.confirmed() == log.end());
    }

    #[test]
    fn written_is_enough_to_go_on_without_a_sync_of_each() {
        let mut log = log(Flush::Async);
        for id in 1..100 {
            put(&mut log, 1000);
            poll(&mut log, id).unwrap();
            log.handle_done(OrderId(id), Ok(Done::Written));
            assert!(log.admits() && log.confirmed() == log.end());
        }
    }

    #[test]
    fn what_is_kept_is_confirmed_at_once_and_written_together() {
        let mut log = log(Flush::Async);
        for _ in 0..5 {
            let end = put(&mut log, 1000);
            log.keep();
            assert!(log.confirmed() == end && log.written() < end);
            assert!(poll(&mut log, 1).is_none(), "it is little");
        }
        let later = Now {
            mono: log.deadline().unwrap(),
            ..Now::default()
        };
        let Some(Order::Write { at: 0, data, .. }) = log.poll_write(later, OrderId(1)) else {
            panic!("it is time");
        };
        let (mut at, mut previous_crc) = (0, 0);
        for _ in 0..5 {
            let header = BatchHeader::decode(&data[at..]).unwrap();
            assert_eq!(
                (header.at.0, header.previous_crc),
                (at as u64, previous_crc)
            );
            let end = at + header.bytes as usize;
            assert_eq!(checksum(&data[at..end]), header.crc);
            (at, previous_crc) = (end, header.crc);
        }
        assert!(data[at..].iter().all(|byte| *byte == 0) && data.len() == 2 * BLOCK_BYTES);
        log.handle_done(OrderId(1), Ok(Done::Written));
        assert_eq!(log.written(), log.end());
        let sync = log.deadline().expect("a sync follows");
        assert_eq!(sync, Mono(500), "counted from when it was confirmed");
    }

    #[test]
    fn what_is_wanted_durable_is_written_without_delay() {
        let mut log = log(Flush::Async);
        put(&mut log, 1000);
        log.keep();
        assert!(poll(&mut log, 1).is_none());
        let end = log.want_durable().end;
        assert!(matches!(poll(&mut log, 1), Some(Order::Write { .. })));
        log.handle_done(OrderId(1), Ok(Done::Written));
        assert!(matches!(poll(&mut log, 2), Some(Order::Sync { .. })));
        log.handle_done(OrderId(2), Ok(Done::Synced));
        assert_eq!(log.durable(), end);
    }

    #[test]
    fn behind_a_large_batch_and_in_a_full_ring_the_disk_confirms() {
        let mut log = log(Flush::Async);
        let large = put(&mut log, SMALL_BYTES);
        log.keep();
        assert!(log.confirmed() < large, "large batches are not kept");
        assert!(matches!(poll(&mut log, 1), Some(Order::Write { .. })));
        let small = put(&mut log, 1000);
        log.keep();
        assert!(log.confirmed() < large, "the one before is under way");
        log.handle_done(OrderId(1), Ok(Done::Written));
        log.keep();
        assert_eq!(log.confirmed(), small);
        // The disk does not get on, until the ring is full.
        assert!(poll(&mut log, 2).is_none());
        for id in 2.. {
            let end = put(&mut log, 20_000);
            log.keep();
            poll(&mut log, id);
            if log.confirmed() < end {
                assert!(id > 2 && log.admits());
                break;
            }
        }
    }
}
