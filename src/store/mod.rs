//! What is on disk, for one shard: decides, never does I/O.
//!
//! The log ([`commitlog`]) is the only truth. Derived from it, and rebuilt from it: the queue index
//! ([`consumequeue`]), the key index ([`index`]), the tables of whoever appends system records.
//! [`Store`] ties them together; [`recovery`] opens one.
//!
//! Always holds: nothing beyond [`CommitLog::confirmed`] is shown to a reader; a queue's offsets
//! have no gap; what a checkpoint names is durable before the checkpoint is.

pub mod ahead;
pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod checkpointing;
mod chunk;
pub mod commitlog;
pub mod consumequeue;
pub mod dispatch;
pub mod durability;
pub mod entries;
pub mod index;
pub mod light;
pub mod lookup;
pub mod merge;
pub mod queues;
pub mod read;
pub mod reader;
mod rebuild;
pub mod record;
pub mod recovery;
pub mod replay;
pub mod retention;
pub mod runs;
pub mod segment;

use crate::base::disk::{Done, Order};
use crate::base::{DiskError, LogOffset, Map, Mono, Now, OrderId, QueueOffset, ShardId};
use crate::filter::Filter;
use crate::message::encode::{Draft, Placed, encode_summed, encoded_len};
use crate::store::batch::HEADER_BYTES;
use crate::store::checkpointing::Checkpoints;
use crate::store::commitlog::CommitLog;
use crate::store::consumequeue::{Lookup, QueueIndex, QueueSlot};
use crate::store::dispatch::Dispatch;
use crate::store::durability::Waiting;
use crate::store::entries::Entry;
use crate::store::index::KeyIndex;
use crate::store::lookup::{KeyQuestion, Lookups};
use crate::store::merge::Step;
use crate::store::queues::{QueueRecord, Queues};
use crate::store::read::{WaiterId, WindowCache};
use crate::store::record::{Kind, SYSTEM_HEADER_BYTES, put_system};
use crate::store::retention::{Retention, read_space};
use std::ops::Range;

/// `flushDiskType`: by what a send is acknowledged, and up to where consumers see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// It outlives this process: the page cache has it, or its direct write completed.
    Async,
    /// A sync that was ordered after the write completed has returned.
    Sync,
}

/// Bugs that the simulator puts in on purpose, to show that it would find them. Production code
/// has no way to set anything but `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sabotage {
    #[default]
    None,
    /// Under `SYNC_FLUSH`, confirm what is written but not synced.
    AckBeforeSync,
    /// Under `ASYNC_FLUSH`, confirm what is on its way to the kernel.
    AckBeforeKept,
    /// Under `ASYNC_FLUSH`, keep batches where others are that the log does not have yet.
    OverwriteKept,
    /// Put nothing back that was kept.
    LeaveKept,
    /// Replay batches of an earlier life of the log, or that are not chained.
    AcceptStaleTail,
    /// Move the written mark over a write that has not completed.
    SkipGap,
    /// Tell no pull that its group was moved, and take old commits.
    ForgetResets,
    /// Answer a reset before the log has it.
    LoseResets,
    /// Push an answer to whoever gave it.
    ReplyToSender,
    /// Go on behind a message that must come from the disk, as if a filter did not want it.
    PassUnread,
    /// Give what a SQL expression does not want.
    GiveUnwanted,
    /// Recover no keys of messages behind the checkpoint.
    ForgetKeys,
    /// Search by time one store time too far.
    SearchLate,
    /// Do not count what comes into queues.
    LoseCounts,
    /// Tell operators that a group has consumed what it only pulled.
    TellPulled,
    /// Let segments go with what is still needed of them.
    CutWithoutCarry,
    /// Remove segments before the log durably says that they may go.
    UnlinkBeforeDurable,
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub shard: ShardId,
    /// From `meta.toml`.
    pub store_id: u32,
    /// `mappedFileSizeCommitLog`.
    pub segment_bytes: u64,
    pub flush: Flush,
    /// `flushIntervalCommitLog`.
    pub flush_interval_ms: u64,
    pub batch_bytes_max: usize,
    pub writes_in_flight_max: usize,
    pub pending_bytes_max: usize,
    /// Under `ASYNC_FLUSH`: size of the ring in the page cache.
    pub ahead_bytes: usize,
    pub tail_bytes_max: usize,
    /// Memory for what cold reads bring from the disk.
    pub window_bytes_max: usize,
    /// The largest stored message.
    pub record_bytes_max: usize,
    pub index_bytes_max: usize,
    /// A checkpoint is due after this much log.
    pub checkpoint_bytes: u64,
    /// Or this long after the last one, if there was activity.
    pub checkpoint_interval_ms: u64,
    /// `fileReservedTime`: segments with nothing newer are removed.
    pub retention_ms: u64,
    /// `diskSpaceCleanForciblyRatio`: from there on the oldest segments are removed before that.
    pub disk_percent_max: u64,
    /// Go on behind damage, reporting what is lost, instead of refusing to start.
    pub salvage: bool,
    pub sabotage: Sabotage,
}

/// Where a message went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub at: LogOffset,
    /// Confirmed once the log is confirmed up to here.
    pub end: LogOffset,
    pub offset: QueueOffset,
    pub store_ms: i64,
}

/// Why nothing can be appended now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The disk failed; for good.
    Failed(DiskError),
    /// More is waiting than the limit; soon again.
    Busy { limit_bytes: usize },
    /// The disk has no room for another segment; what is left of this one is kept for state.
    NoRoom { segment_bytes: u64 },
    /// This shard holds as many queues as it can.
    TooManyQueues,
}

/// One shard's log with everything derived from it.
pub struct Store {
    options: StoreOptions,
    log: CommitLog,
    queues: Queues,
    index: QueueIndex,
    keys: KeyIndex,
    windows: WindowCache,
    lookups: Lookups,
    /// Index entries that readers may not see yet.
    hidden: Waiting<QueueSlot>,
    checkpoints: Checkpoints,
    retention: Retention,
    tasks: Map<OrderId, Task>,
    orders_given: u64,
    /// Nothing is tried again any more.
    closing: bool,
}

/// What an order beside the log's own writes is for.
enum Task {
    Fill(Range<u64>),
    Window(read::WindowKey),
    Lookup(lookup::Asked),
    Checkpoint,
    Merge(MergeOf),
    Retention,
    Remove,
    Space,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MergeOf {
    Queues,
    Keys,
}

impl Store {
    pub fn shard(&self) -> ShardId {
        self.options.shard
    }

    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub fn log(&self) -> &CommitLog {
        &self.log
    }

    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    pub fn queues_mut(&mut self) -> &mut Queues {
        &mut self.queues
    }

    /// Confirms what has gathered, if that is possible without the disk.
    pub fn keep(&mut self) {
        self.log.keep();
    }

    /// Whether that would confirm something.
    pub fn has_to_keep(&self) -> bool {
        self.log.has_to_keep()
    }

    /// Has everything up to `until` synced soon, whatever the mode.
    pub fn want_durable(&mut self, until: LogOffset) {
        if self.log.failed().is_none() && self.log.sync_wanted() < until {
            self.log.want_durable();
        }
    }

    /// The owner stops: what cannot be done now is not tried again.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// What readers may see and senders may be told.
    pub fn confirmed(&self) -> LogOffset {
        self.log.confirmed()
    }

    /// Whether an append would be taken now.
    pub fn check_append(&self) -> Result<(), Refused> {
        if let Some(error) = self.log.failed() {
            return Err(Refused::Failed(error.clone()));
        }
        if !self.log.admits() || self.is_full() {
            return Err(Refused::Busy {
                limit_bytes: self.options.pending_bytes_max,
            });
        }
        Ok(())
    }

    /// The same for a message of a client: what is left of a full disk is for state.
    pub fn check_message(&self) -> Result<(), Refused> {
        if self.log.failed().is_none() && self.log.is_starved() {
            return Err(Refused::NoRoom {
                segment_bytes: self.options.segment_bytes,
            });
        }
        self.check_append()
    }

    /// Whether requests are to be taken up. While indexes are full only for want of room on the
    /// disk, they are: reads go on, and appends are refused.
    pub fn admits(&self) -> bool {
        let waits = self.is_full() && !self.checkpoints.lacks_room();
        self.log.failed().is_some() || (self.log.admits() && !waits)
    }

    /// The indexes hold as much as they may that no run holds yet.
    fn is_full(&self) -> bool {
        self.index.is_full() || self.keys.is_full()
    }

    /// The queue's slot; a queue seen for the first time is entered in the log. A namesake of a
    /// deleted topic is dropped.
    pub fn open_queue(
        &mut self,
        now: Now,
        topic: &str,
        topic_id: u64,
        queue_id: i32,
    ) -> Result<QueueSlot, Refused> {
        if let Some(slot) = self.queues.find(topic, queue_id) {
            if self
                .queues
                .queue(slot)
                .is_some_and(|queue| queue.topic_id == topic_id)
            {
                return Ok(slot);
            }
            self.drop_queue(now, slot)?;
        }
        self.check_append()?;
        let slot = self.queues.next_slot(now.mono, self.log.confirmed());
        let slot = slot.ok_or(Refused::TooManyQueues)?;
        let record = QueueRecord::Opened {
            slot,
            topic,
            topic_id,
            queue_id,
        };
        self.append_system(now, Kind::QueueOpened, queues::VERSION, &record.encode())?;
        self.queues.open(slot, topic, topic_id, queue_id);
        self.index.open(slot);
        Ok(slot)
    }

    /// Forgets a queue; its messages stay in the log until their segment goes.
    pub fn drop_queue(&mut self, now: Now, slot: QueueSlot) -> Result<(), Refused> {
        let record = QueueRecord::Dropped { slot };
        let end = self.append_system(now, Kind::QueueDropped, queues::VERSION, &record.encode())?;
        self.queues.drop_queue(slot);
        self.queues.rest(slot, end, now.mono);
        self.index.drop_queue(slot);
        Ok(())
    }

    /// The most bytes of messages that can lie in one batch.
    pub fn reserve_limit(&self) -> usize {
        self.log.batch_bytes_limit() - HEADER_BYTES
    }

    /// The end of a queue, messages included that nobody may see yet.
    pub fn queue_end(&self, slot: QueueSlot) -> QueueOffset {
        self.index.next(slot)
    }

    /// Makes room for messages that must lie in one batch, so that a crash keeps all or none.
    pub fn reserve(&mut self, drafts_bytes: usize) {
        self.log.reserve(drafts_bytes);
    }

    /// Appends a message to an open queue. The caller has [checked](Self::check_append).
    #[inline]
    pub fn append(
        &mut self,
        now: Now,
        slot: QueueSlot,
        draft: &Draft<'_>,
        dispatch: &Dispatch,
    ) -> Appended {
        self.log.reserve(encoded_len(draft));
        self.append_reserved(now, slot, draft, dispatch).0
    }

    // Given back in memory, the result would be read before the stores that wrote it are through.
    #[inline(always)]
    fn append_reserved(
        &mut self,
        now: Now,
        slot: QueueSlot,
        draft: &Draft<'_>,
        dispatch: &Dispatch,
    ) -> (Appended, Entry) {
        let bytes = encoded_len(draft);
        let store_ms = self.log.store_ms(now);
        let offset = self.index.next(slot);
        let shard = self.options.shard;
        let mut crc = 0;
        let range = self.log.put_summed(store_ms, |at, out, joins| {
            let placed = Placed {
                queue_offset: offset.0 as i64,
                physical_offset: at.physical(shard),
                store_timestamp: store_ms,
            };
            crc = encode_summed(draft, placed, out, joins);
            crc
        });
        assert_eq!(
            range.end.0 - range.start.0,
            bytes as u64,
            "records have the length foretold"
        );
        let entry = Entry {
            at: range.start,
            size: bytes as u32,
            tag_hash: dispatch.tag_hash,
            crc,
        };
        let entered = self.index.append(slot, entry, store_ms);
        assert_eq!(entered, offset, "a queue has no gap");
        self.queues.grow(slot, bytes);
        for key in &dispatch.keys {
            self.keys.append(*key, range.start, store_ms);
        }
        self.hidden.push(range.end, slot);
        let appended = Appended {
            at: range.start,
            end: range.end,
            offset,
            store_ms,
        };
        (appended, entry)
    }

    /// Appends a system record; it counts once the log is confirmed up to the offset given.
    pub fn append_system(
        &mut self,
        now: Now,
        kind: Kind,
        version: u16,
        payload: &[u8],
    ) -> Result<LogOffset, Refused> {
        if let Some(error) = self.log.failed() {
            return Err(Refused::Failed(error.clone()));
        }
        self.log.reserve(SYSTEM_HEADER_BYTES + payload.len());
        let store_ms = self.log.store_ms(now);
        let range = self.log.put(store_ms, |_, out| {
            put_system(out, kind, version, store_ms, payload)
        });
        Ok(range.end)
    }

    /// A queue that got new visible messages since the last call; once per message.
    pub fn poll_visible(&mut self) -> Option<QueueSlot> {
        let confirmed = self.log.confirmed();
        loop {
            let slot = self.hidden.pop(confirmed)?;
            if let Some(queue) = self.queues.queue_mut(slot) {
                queue.visible = QueueOffset(queue.visible.0 + 1);
                return Some(slot);
            }
        }
    }

    /// Looks a key up; the waiter is given back when [`found`](Self::found) has the answer. False
    /// if too many look-ups are under way.
    pub fn look_up(&mut self, question: KeyQuestion, waiter: WaiterId) -> bool {
        self.lookups.ask(self.keys.view(), question, waiter)
    }

    /// Places of records that may carry the key, newest first.
    pub fn found(&mut self, waiter: WaiterId) -> Option<Result<Vec<LogOffset>, DiskError>> {
        self.lookups.take(waiter)
    }

    /// The next write or sync of the log.
    pub fn poll_write(&mut self, now: Now) -> Option<(OrderId, Order)> {
        let id = OrderId(self.orders_given + 1);
        let order = self.log.poll_write(now, id)?;
        self.orders_given += 1;
        Some((id, order))
    }

    /// The next order beside the log's own writes.
    pub fn poll_order(&mut self, now: Now) -> Option<(OrderId, Order)> {
        let id = OrderId(self.orders_given + 1);
        let (task, order) = self.next_task(now)?;
        self.orders_given += 1;
        self.tasks.insert(id, task);
        Some((id, order))
    }

    fn next_task(&mut self, now: Now) -> Option<(Task, Order)> {
        if let Some((key, order)) = self.windows.poll_order() {
            return Some((Task::Window(key), order));
        }
        if let Some((asked, order)) = self.lookups.poll_order() {
            return Some((Task::Lookup(asked), order));
        }
        if self.log.failed().is_some() {
            return None;
        }
        let (end, large) = (self.log.end(), self.log.writes_large());
        if let Some((range, work)) = self.log.segments().poll_fill(now.mono, end, large) {
            return Some((Task::Fill(range), Order::Work(work)));
        }
        if let Some(work) = self.poll_checkpoint(now) {
            return Some((Task::Checkpoint, Order::Work(work)));
        }
        if let Some((task, work)) = self.poll_retention(now) {
            return Some((task, Order::Work(work)));
        }
        if self.log.is_starved() {
            // Merging takes room before it gives some.
            return None;
        }
        if let Some(step) = self.index.merge_step() {
            return Some((Task::Merge(MergeOf::Queues), merge_order(step)));
        }
        let step = self.keys.merge_step()?;
        Some((Task::Merge(MergeOf::Keys), merge_order(step)))
    }

    /// The answer to an order. Gives the readers whose data has come, or has failed to.
    pub fn handle_done(
        &mut self,
        now: Now,
        id: OrderId,
        result: Result<Done, DiskError>,
    ) -> Vec<read::Woken> {
        if self.log.owns(id) {
            self.log.handle_done(id, result);
            return Vec::new();
        }
        match self.tasks.remove(&id) {
            None => Vec::new(),
            Some(Task::Window(key)) => {
                let bytes = result.map(|done| match done {
                    Done::Read(bytes) => bytes,
                    _ => unreachable!("a read is answered with bytes"),
                });
                self.windows.arrived(&key, bytes)
            }
            Some(Task::Lookup(asked)) => {
                let bytes = result.map(|done| match done {
                    Done::Work(bytes) => bytes,
                    _ => unreachable!("work is answered with its result"),
                });
                if bytes.is_err() && self.lookups.retry(self.keys.view(), asked) {
                    return Vec::new();
                }
                let waiter = asked.waiter;
                self.lookups.arrived(waiter, bytes);
                let result = Ok(());
                vec![read::Woken { waiter, result }]
            }
            Some(task) => {
                match result {
                    Ok(Done::Work(bytes)) => self.task_done(now, task, bytes),
                    Ok(_) => unreachable!("work is answered with its result"),
                    Err(error) => self.task_failed(now, task, error),
                }
                Vec::new()
            }
        }
    }

    fn task_done(&mut self, now: Now, task: Task, result: Vec<u8>) {
        match task {
            Task::Fill(_) if result == segment::NO_ROOM => {
                self.log.segments().starve(now.mono);
            }
            Task::Fill(range) => self.log.segments().filled(range),
            Task::Checkpoint => self.checkpoint_done(now, result),
            Task::Merge(MergeOf::Queues) => self.index.merged(result),
            Task::Merge(MergeOf::Keys) => self.keys.merged(result),
            Task::Retention => self.retention_done(&result),
            Task::Remove => self.removed(now, Ok(result)),
            Task::Space => self.space_seen(now, read_space(&result)),
            Task::Window(_) | Task::Lookup(_) => unreachable!("these are answered apart"),
        }
    }

    /// Work beside the log that fails: a log that cannot get its next blocks, or cannot be
    /// checkpointed, must not go on promising.
    fn task_failed(&mut self, now: Now, task: Task, error: DiskError) {
        match task {
            Task::Merge(MergeOf::Queues) => self.index.merge_failed(),
            Task::Merge(MergeOf::Keys) => self.keys.merge_failed(),
            Task::Retention => self.retention_failed(now),
            Task::Remove => self.removed(now, Err(error)),
            Task::Space => self.space_seen(now, None),
            Task::Checkpoint if error.full && !self.closing && self.give_up_checkpoint(now) => {}
            _ => self.log.fail(error),
        }
    }

    /// When something is to be done only because time has passed.
    pub fn deadline(&self) -> Option<Mono> {
        if self.log.failed().is_some() {
            return None;
        }
        [
            self.log.deadline(),
            self.checkpoints.deadline(),
            self.retention_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether a filter wants a message, if that is known without the disk.
    pub fn is_wanted(&self, slot: QueueSlot, offset: QueueOffset, filter: &Filter) -> Option<bool> {
        let Lookup::Hot(entries) = self.index.lookup(slot, offset) else {
            return None;
        };
        let entry = entries.at(0)?;
        if !filter.may_want(i64::from(entry.tag_hash)) || filter.sql().is_none() {
            return Some(filter.may_want(i64::from(entry.tag_hash)));
        }
        let record = self.log.memory(entry.at, entry.size)?;
        Some(reader::is_wanted(&record, filter))
    }

    /// Where a message lies at the earliest; see [`QueueIndex::earliest_place`].
    pub fn earliest_place(&self, slot: QueueSlot, offset: QueueOffset) -> Option<LogOffset> {
        self.index.earliest_place(slot, offset)
    }

    /// Memory held for tail, windows and indexes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.log.tail_bytes() + self.index.memory_bytes() + self.keys.memory_bytes()
    }
}

fn merge_order(step: Step) -> Order {
    Order::Work(Box::new(move |dir| step.run(dir)))
}
