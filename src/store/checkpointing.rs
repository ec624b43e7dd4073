//! Making checkpoints while the shard works: seal, write beside the log, name.
//!
//! Begun with the tables as of the log's end. Then two pieces of work on a helper thread: first the
//! index runs and the snapshot, each file synced; then, once the log itself is durable up to there,
//! the checkpoint that names them. Files that no checkpoint names any more go one checkpoint later,
//! because the older slot must stay usable.

use crate::base::cursor::Cursor;
use crate::base::disk::{Dir, DiskError, FileName, Work};
use crate::base::{Mono, Now};
use crate::store::checkpoint::{Checkpoint, snapshot_name, write_snapshot};
use crate::store::commitlog::LogEnd;
use crate::store::index::KeyDraft;
use crate::store::merge::RunDraft;
use crate::store::queues::{self, QueueRecord};
use crate::store::record::{Kind, put_system};
use crate::store::{LogOffset, Store, retention};

/// Stands for "no run was needed" in the result of sealing.
const NO_RUN: u32 = u32::MAX;
/// A checkpoint without room is tried again after this.
const AGAIN_MS: u64 = 1_000;

/// Where the making of checkpoints stands.
pub struct Checkpoints {
    sequence: u64,
    /// Where replay begins by the checkpoints in the slots, older first.
    replays: [LogOffset; 2],
    /// Where the newest checkpoint, written or under way, begins.
    from: LogOffset,
    due: Option<Mono>,
    /// There was no room for one: none is begun before this.
    resting: Option<Mono>,
    /// The indexes were filled again, and no run holds what they have.
    pub(super) rebuilt: bool,
    stage: Stage,
    /// Files that the newest checkpoint no longer names; the older one may.
    retired: Vec<String>,
    /// Snapshots of the checkpoints in the slots, older first.
    snapshots: Vec<String>,
}

enum Stage {
    Idle,
    Begun {
        from: LogEnd,
        runs: [bool; 2],
        work: Work,
    },
    /// With a run of the queue index, and one of the key index, or without.
    Sealing {
        from: LogEnd,
        runs: [bool; 2],
    },
    Sealed {
        from: LogEnd,
    },
    Writing {
        retiring: Vec<String>,
    },
}

impl Checkpoints {
    /// After recovery from checkpoint `sequence`, which replays from `from`; `snapshots` are the
    /// files that the slots name, `older` is where replay by the other slot begins.
    pub fn new(sequence: u64, older: LogOffset, from: LogOffset, snapshots: Vec<String>) -> Self {
        let (stage, retired) = (Stage::Idle, Vec::new());
        Checkpoints {
            sequence,
            replays: [older, from],
            from,
            due: None,
            resting: None,
            rebuilt: false,
            stage,
            retired,
            snapshots,
        }
    }

    pub fn deadline(&self) -> Option<Mono> {
        let due = self.resting.or(self.due);
        due.filter(|_| matches!(self.stage, Stage::Idle))
    }

    /// The log offset that replay would start from.
    pub fn from(&self) -> LogOffset {
        self.from
    }

    /// No replay needs the log below, whichever checkpoint it begins from.
    pub fn older(&self) -> LogOffset {
        let [one, other] = self.replays;
        one.min(other)
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Whether there was no room for the last one.
    pub fn lacks_room(&self) -> bool {
        self.resting.is_some()
    }
}

impl Store {
    /// Whether a checkpoint should [begin](Self::begin_checkpoint) now: by bytes, by time since
    /// there was something new, or because the index is full of what no run holds.
    pub fn checkpoint_due(&mut self, now: Now) -> bool {
        let behind = self.log.end().0 - self.checkpoints.from.0;
        let is_new = behind > 0 || self.checkpoints.rebuilt;
        if !is_new || !self.checkpoints.is_idle() || self.log.failed().is_some() {
            return false;
        }
        if self
            .checkpoints
            .resting
            .is_some_and(|until| until > now.mono)
        {
            return false;
        }
        let interval = self.options.checkpoint_interval_ms;
        let due = *self
            .checkpoints
            .due
            .get_or_insert(now.mono.after_ms(interval));
        behind >= self.options.checkpoint_bytes
            || due <= now.mono
            || self.checkpoints.rebuilt
            || self.checkpoints.resting.is_some()
            || self.wants_seal()
            || self.retention.wants_checkpoint()
    }

    /// Begins a checkpoint. `tables` are the caller's tables as of this moment, as system records.
    pub fn begin_checkpoint(&mut self, now: Now, tables: Vec<u8>) {
        assert!(self.checkpoints.is_idle(), "one checkpoint at a time");
        self.retention.checkpoint_begins();
        let from = self.log.want_durable();
        let queues = self.queue_records(now);
        let queue_run = self.index.seal(from.end);
        let key_run = self.keys.seal(from.end);
        let runs = [queue_run.is_some(), key_run.is_some()];
        let name = snapshot_name(from.end);
        let work = Box::new(move |dir: &dyn Dir| {
            // First, for what it took is free when the runs want room.
            write_snapshot(dir, &name, from.end, [&queues, &tables])?;
            drop((queues, tables));
            seal(dir, queue_run, key_run)
        });
        self.checkpoints.from = from.end;
        self.checkpoints.due = None;
        self.checkpoints.resting = None;
        self.checkpoints.stage = Stage::Begun { from, runs, work };
    }

    /// Whether a checkpoint could begin now.
    pub fn can_checkpoint(&self) -> bool {
        self.checkpoints.is_idle() && self.log.failed().is_none()
    }

    /// Whether everything up to the end of the log is in a finished checkpoint.
    pub fn is_checkpointed(&self) -> bool {
        let is_whole = self.checkpoints.from == self.log.end() && !self.checkpoints.rebuilt;
        self.checkpoints.is_idle() && is_whole
    }

    fn wants_seal(&self) -> bool {
        self.index.wants_seal() || self.keys.wants_seal()
    }

    fn queue_records(&self, now: Now) -> Vec<u8> {
        let mut out = Vec::new();
        let version = queues::VERSION;
        for (slot, queue) in self.queues.iter() {
            let (topic, topic_id) = (&*queue.topic, queue.topic_id);
            let opened = QueueRecord::Opened {
                slot,
                topic,
                topic_id,
                queue_id: queue.queue_id,
            };
            put_system(
                &mut out,
                Kind::QueueOpened,
                version,
                now.wall_ms,
                &opened.encode(),
            );
        }
        for state in self.index.states() {
            let position = QueueRecord::Position(state).encode();
            put_system(
                &mut out,
                Kind::QueuePosition,
                version,
                now.wall_ms,
                &position,
            );
        }
        let retained = self.retention.state().encode();
        let layout = retention::VERSION;
        put_system(&mut out, Kind::Retained, layout, now.wall_ms, &retained);
        out
    }

    pub(super) fn poll_checkpoint(&mut self, _now: Now) -> Option<Work> {
        match std::mem::replace(&mut self.checkpoints.stage, Stage::Idle) {
            Stage::Begun { from, runs, work } => {
                self.checkpoints.stage = Stage::Sealing { from, runs };
                Some(work)
            }
            Stage::Sealed { from } if self.log.durable() >= from.end => {
                let (checkpoint, mut retiring) = self.describe(from);
                let retired = std::mem::take(&mut self.checkpoints.retired);
                // No new read begins on a file that was replaced; one under way may finish.
                let (busy, retired): (Vec<_>, Vec<_>) = retired
                    .into_iter()
                    .partition(|file| self.windows.is_reading(file));
                retiring.extend(busy);
                self.checkpoints.stage = Stage::Writing { retiring };
                Some(Box::new(move |dir: &dyn Dir| {
                    name(dir, &checkpoint, &retired)
                }))
            }
            other => {
                self.checkpoints.stage = other;
                None
            }
        }
    }

    pub(super) fn checkpoint_done(&mut self, now: Now, result: Vec<u8>) {
        match std::mem::replace(&mut self.checkpoints.stage, Stage::Idle) {
            Stage::Sealing { from, .. } => {
                let (queue_run, key_run) = split_sealed(&result);
                if let Some(directory) = queue_run {
                    self.index.installed(directory);
                }
                if let Some(directory) = key_run {
                    self.keys.installed(directory);
                }
                self.checkpoints.stage = Stage::Sealed { from };
            }
            Stage::Writing { retiring } => {
                self.look_soon();
                self.checkpoints.rebuilt = false;
                self.checkpoints.retired = retiring;
                self.checkpoints.replays = [self.checkpoints.replays[1], self.checkpoints.from];
                if self.log.end() > self.checkpoints.from {
                    let interval = self.options.checkpoint_interval_ms;
                    self.checkpoints.due = Some(now.mono.after_ms(interval));
                }
            }
            _ => unreachable!("work is ordered in these stages only"),
        }
    }

    /// There is no room for the files of a checkpoint: what they were to hold is kept, and tried
    /// again. False if that is not what was under way.
    pub(super) fn give_up_checkpoint(&mut self, now: Now) -> bool {
        let Stage::Sealing { runs, .. } = self.checkpoints.stage else {
            return false;
        };
        let [queue_run, key_run] = runs;
        if queue_run {
            self.index.abandoned();
        }
        if key_run {
            self.keys.abandoned();
        }
        self.checkpoints.stage = Stage::Idle;
        let [_, newest] = self.checkpoints.replays;
        self.checkpoints.from = newest;
        self.checkpoints.resting = Some(now.mono.after_ms(AGAIN_MS));
        true
    }

    /// The checkpoint to be written, and the files it makes superfluous.
    fn describe(&mut self, from: LogEnd) -> (Checkpoint, Vec<String>) {
        let (queue_runs, key_runs) = (self.index.listing(), self.keys.listing());
        self.checkpoints.sequence += 1;
        let checkpoint = Checkpoint {
            lineage: self.log.lineage(),
            sequence: self.checkpoints.sequence,
            from,
            durable: self.log.durable(),
            filled: self.log.segments().filled_to(),
            snapshot: true,
            queue_runs: names(&queue_runs.names),
            key_runs: names(&key_runs.names),
        };
        let mut retiring = names(&queue_runs.obsolete);
        retiring.extend(names(&key_runs.obsolete));
        let new = checkpoint.snapshot_name();
        let known = &mut self.checkpoints.snapshots;
        if known.last() != Some(&new) {
            known.push(new);
        }
        if known.len() > 1 {
            retiring.extend(known.drain(..known.len() - 1));
        }
        (checkpoint, retiring)
    }
}

/// Writes runs; gives their directories.
fn seal(
    dir: &dyn Dir,
    queue_run: Option<RunDraft>,
    key_run: Option<KeyDraft>,
) -> Result<Vec<u8>, DiskError> {
    let mut result = Vec::new();
    let queue_run = queue_run.map(|draft| draft.write(dir)).transpose()?;
    let key_run = key_run.map(|draft| draft.write(dir)).transpose()?;
    for directory in [queue_run, key_run] {
        let len = directory
            .as_ref()
            .map_or(NO_RUN, |directory| directory.len() as u32);
        result.extend_from_slice(&len.to_be_bytes());
        result.extend(directory.unwrap_or_default());
    }
    Ok(result)
}

/// Writes the checkpoint, then removes what no slot names any more.
fn name(dir: &dyn Dir, checkpoint: &Checkpoint, retired: &[String]) -> Result<Vec<u8>, DiskError> {
    checkpoint.write(dir)?;
    for file in retired {
        dir.remove(file)?;
    }
    Ok(Vec::new())
}

fn names(files: &[FileName]) -> Vec<String> {
    files.iter().map(|name| name.to_string()).collect()
}

fn split_sealed(result: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let mut cursor = Cursor::new(result);
    let mut next = || {
        let len = cursor.u32().expect("sealing gives two lengths");
        let bytes = (len != NO_RUN).then(|| cursor.bytes(len as usize));
        bytes.map(|bytes| bytes.expect("sealing gives what it promises").to_vec())
    };
    (next(), next())
}
