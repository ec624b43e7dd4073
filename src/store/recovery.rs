//! Opening a shard: the newest usable checkpoint, then the log behind it, record by record.
//!
//! Refuses to start where something that was durable is missing, and says exactly what. Ends with a
//! new incarnation on the disk, so that nothing of an earlier life can be taken for the new one.

use crate::base::disk::{Dir, DiskError, read_file};
use crate::base::{LogOffset, Map, QueueOffset, ShardId};
use crate::message::view::RecordView;
use crate::store::ahead::Ahead;
use crate::store::batch::{BatchHeader, HEADER_BYTES, Life, Lineage};
use crate::store::checkpoint::{Checkpoint, decode_snapshot, is_snapshot, load, snapshot_name};
use crate::store::checkpointing::Checkpoints;
use crate::store::commitlog::{CommitLog, LogEnd, LogOptions};
use crate::store::consumequeue::{Entry, Limits, QueueIndex, QueueSlot, QueueState};
use crate::store::dispatch::{Dispatch, TIMER_TOPIC};
use crate::store::durability::Waiting;
use crate::store::index::{KeyIndex, KeyLimits};
use crate::store::light::LightRecord;
use crate::store::lookup::Lookups;
use crate::store::queues::{QueueRecord, Queues};
use crate::store::read::{WINDOW_BYTES, WindowCache};
use crate::store::rebuild::Rebuild;
use crate::store::record::{BadRecord, Kind, Record, walk};
use crate::store::replay::Replay;
use crate::store::retention::{Ended, Retained, Retention};
use crate::store::runs::orphans;
use crate::store::segment::{Segments, file_name};
use crate::store::{Flush, Sabotage, Store, StoreOptions, ahead, retention};
use std::fmt;
use std::ops::Range;

/// Why a shard cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    Disk(DiskError),
    /// Bytes that were durable are gone or rotten.
    Damaged {
        shard: ShardId,
        from: LogOffset,
        to: LogOffset,
        file: String,
    },
    /// No checkpoint can be used, and the log alone does not tell everything any more.
    Baseless {
        shard: ShardId,
        min: LogOffset,
        reason: String,
    },
    /// A record that is whole but says what cannot be.
    Record {
        shard: ShardId,
        at: LogOffset,
        reason: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Disk(error) => error.fmt(f),
            StoreError::Damaged {
                shard,
                from,
                to,
                file,
            } => write!(
                f,
                "shard {}: the log is damaged between offsets {} and {} ({file}); these bytes were \
                 durable. Restore the file, or start once with --salvage to go on behind the \
                 damage and get a report of every lost queue range",
                shard.0, from.0, to.0
            ),
            StoreError::Baseless { shard, min, reason } => write!(
                f,
                "shard {}: {reason}. The log begins at offset {}, for what was older is removed; \
                 so a checkpoint is needed. Restore the file from a copy",
                shard.0, min.0
            ),
            StoreError::Record { shard, at, reason } => {
                write!(
                    f,
                    "shard {}: the record at log offset {}: {reason}",
                    shard.0, at.0
                )
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        StoreError::Disk(error)
    }
}

/// What a replay comes by that is not, or not only, the store's own.
pub enum Replayed<'a> {
    /// A system record, one that drops a queue too, for others keep things by its slot.
    System {
        kind: Kind,
        version: u16,
        payload: &'a [u8],
    },
    /// A message for a time, behind the snapshot.
    Timed { store_ms: i64, properties: &'a [u8] },
}

/// Takes that, in log order.
pub type Apply<'a> = &'a mut dyn FnMut(Replayed<'_>) -> Result<(), String>;

/// What recovery found, for the log line a person reads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub from: LogOffset,
    pub end: LogOffset,
    pub batches: u64,
    pub messages: u64,
    /// Batches that the page cache had and the log did not.
    pub put_back: u64,
    /// What could not be used and was rebuilt, or was lost to damage.
    pub notes: Vec<String>,
}

impl Store {
    /// Opens the shard in `dir`, or makes an empty one.
    pub fn open(
        dir: &dyn Dir,
        options: StoreOptions,
        apply: Apply<'_>,
    ) -> Result<(Store, Report), StoreError> {
        let checkpoints: Vec<_> = load(dir)?
            .into_iter()
            .filter(|found| {
                found.lineage.store_id == options.store_id && found.lineage.shard == options.shard
            })
            .collect();
        let mut report = Report::default();
        let mut base = Base::choose(dir, &options, &checkpoints, &mut report)?;
        base.restore(apply)?;
        base.refill(dir, &options)?;
        let mut opening = Opening {
            options: &options,
            report,
            base,
            lost: Vec::new(),
        };
        let (end, lineage) = opening.replay(dir, apply)?;
        let Opening { report, base, .. } = opening;
        let lineage = Lineage {
            incarnation: lineage.incarnation + 1,
            ..lineage
        };
        let store = base.finish(dir, options, end, lineage, &checkpoints)?;
        Ok((
            store,
            Report {
                end: end.end,
                ..report
            },
        ))
    }
}

/// Removes what a crash or an earlier checkpoint left behind: runs and snapshots that neither slot
/// names. Gives the snapshots that are named, older first.
fn remove_strays(
    dir: &dyn Dir,
    newest: &Checkpoint,
    older: Option<&Checkpoint>,
) -> Result<Vec<String>, DiskError> {
    let named: Vec<&Checkpoint> = older.into_iter().chain([newest]).collect();
    let runs = named
        .iter()
        .flat_map(|c| c.queue_runs.iter().chain(&c.key_runs));
    let runs: Vec<&str> = runs.map(String::as_str).collect();
    let mut snapshots: Vec<String> = named
        .iter()
        .filter(|checkpoint| checkpoint.snapshot)
        .map(|checkpoint| checkpoint.snapshot_name())
        .collect();
    snapshots.dedup();
    let mut strays = orphans(dir, &runs)?;
    let others = dir.list("")?.into_iter().map(|file| file.name);
    strays.extend(others.filter(|name| is_snapshot(name) && !snapshots.contains(name)));
    strays.iter().try_for_each(|file| dir.remove(file))?;
    Ok(snapshots)
}

/// What the log is replayed onto.
struct Base {
    checkpoint: Option<Checkpoint>,
    snapshot: Vec<u8>,
    queues: Queues,
    index: QueueIndex,
    keys: KeyIndex,
    /// Nothing is left of the log below.
    min: LogOffset,
    ended: Vec<Ended>,
    /// The runs are damaged: the indexes are filled from the log, which begins here.
    rebuild: Option<LogOffset>,
}

impl Base {
    /// The newest checkpoint of which every file is whole; without one, everything is replayed.
    fn choose(
        dir: &dyn Dir,
        options: &StoreOptions,
        checkpoints: &[Checkpoint],
        report: &mut Report,
    ) -> Result<Base, StoreError> {
        for checkpoint in checkpoints {
            match Base::of(dir, options, checkpoint)? {
                Ok(base) => {
                    report.from = checkpoint.from.end;
                    return Ok(base);
                }
                Err(reason) => report.notes.push(reason),
            }
        }
        let oldest = retention::segments(dir)?.first().copied();
        if let Some(min) = oldest.filter(|oldest| *oldest > LogOffset(0)) {
            for checkpoint in checkpoints {
                if let Some(base) = Base::without_runs(dir, options, checkpoint, min)? {
                    report.from = checkpoint.from.end;
                    return Ok(base);
                }
            }
            let reason = report.notes.pop();
            let reason =
                reason.unwrap_or_else(|| "checkpoint.a and checkpoint.b are unusable".into());
            let reason = reason.replace("; the log is replayed instead", "");
            let shard = options.shard;
            return Err(StoreError::Baseless { shard, min, reason });
        }
        Ok(Base {
            checkpoint: None,
            snapshot: Vec::new(),
            queues: Queues::default(),
            index: QueueIndex::new(limits(options), LogOffset(0)),
            keys: KeyIndex::new(key_limits(options), LogOffset(0)),
            min: LogOffset(0),
            ended: Vec::new(),
            rebuild: None,
        })
    }

    /// With a whole snapshot, but for the indexes.
    fn without_runs(
        dir: &dyn Dir,
        options: &StoreOptions,
        checkpoint: &Checkpoint,
        oldest: LogOffset,
    ) -> Result<Option<Base>, StoreError> {
        let bytes = read_file(dir, &checkpoint.snapshot_name())?.unwrap_or_default();
        let records = decode_snapshot(&bytes, checkpoint.from.end);
        Ok(records.map(|records| Base {
            checkpoint: Some(checkpoint.clone()),
            snapshot: records.to_vec(),
            queues: Queues::default(),
            index: QueueIndex::new(limits(options), oldest),
            keys: KeyIndex::new(key_limits(options), oldest),
            min: LogOffset(0),
            ended: Vec::new(),
            rebuild: Some(oldest),
        }))
    }

    /// Fills the indexes if their files are damaged.
    fn refill(&mut self, dir: &dyn Dir, options: &StoreOptions) -> Result<(), StoreError> {
        let (Some(oldest), Some(checkpoint)) = (self.rebuild, &self.checkpoint) else {
            return Ok(());
        };
        let rebuild = Rebuild {
            queues: &self.queues,
            index: &mut self.index,
            keys: &mut self.keys,
        };
        rebuild.run(dir, options, checkpoint, oldest.max(self.min))
    }

    fn of(
        dir: &dyn Dir,
        options: &StoreOptions,
        checkpoint: &Checkpoint,
    ) -> Result<Result<Base, String>, StoreError> {
        let from = checkpoint.from.end;
        let mut snapshot = Vec::new();
        if checkpoint.snapshot {
            let name = checkpoint.snapshot_name();
            let bytes = read_file(dir, &name)?.unwrap_or_default();
            match decode_snapshot(&bytes, from) {
                Some(records) => snapshot = records.to_vec(),
                None => {
                    return Ok(Err(format!(
                        "{name} is damaged; the log is replayed instead"
                    )));
                }
            }
        }
        let (index, bad) = QueueIndex::load(limits(options), from, dir, &checkpoint.queue_runs)?;
        let (keys, bad_keys) =
            KeyIndex::load(key_limits(options), from, dir, &checkpoint.key_runs)?;
        if let Some(bad) = bad.first().or(bad_keys.first()) {
            return Ok(Err(format!(
                "{} is damaged; the log is replayed instead",
                bad.name
            )));
        }
        let checkpoint = Some(checkpoint.clone());
        Ok(Ok(Base {
            checkpoint,
            snapshot,
            queues: Queues::default(),
            index,
            keys,
            min: LogOffset(0),
            ended: Vec::new(),
            rebuild: None,
        }))
    }

    fn restore(&mut self, apply: Apply<'_>) -> Result<(), StoreError> {
        let snapshot = std::mem::take(&mut self.snapshot);
        let (shard, at) = match &self.checkpoint {
            Some(checkpoint) => (checkpoint.lineage.shard, checkpoint.from.end),
            None => return Ok(()),
        };
        let bad = |reason: String| {
            let reason = format!("in {}: {reason}", snapshot_name(at));
            StoreError::Record { shard, at, reason }
        };
        for item in walk(&snapshot) {
            let (_, record) = item.map_err(|error| bad(error.to_string()))?;
            let Record::System {
                kind,
                version,
                payload,
                ..
            } = record
            else {
                return Err(bad("a message in a snapshot".into()));
            };
            self.system(kind, version, payload, apply).map_err(bad)?;
        }
        Ok(())
    }

    fn system(
        &mut self,
        kind: Kind,
        version: u16,
        payload: &[u8],
        apply: Apply<'_>,
    ) -> Result<(), String> {
        let unreadable = || format!("{kind:?} version {version} is unreadable");
        match kind {
            Kind::QueueOpened => match QueueRecord::decode_opened(payload) {
                Some(QueueRecord::Opened {
                    slot,
                    topic,
                    topic_id,
                    queue_id,
                }) => {
                    self.queues.open(slot, topic, topic_id, queue_id);
                    self.index.open(slot);
                }
                _ => return Err(unreadable()),
            },
            Kind::QueueDropped => match QueueRecord::decode_dropped(payload) {
                Some(QueueRecord::Dropped { slot }) => {
                    self.queues.drop_queue(slot);
                    self.index.drop_queue(slot);
                    return apply(Replayed::System {
                        kind,
                        version,
                        payload,
                    });
                }
                _ => return Err(unreadable()),
            },
            Kind::Retained => {
                let retained = Retained::decode(version, payload).ok_or_else(unreadable)?;
                self.retain(retained);
            }
            Kind::Carried => {}
            Kind::QueuePosition => match QueueRecord::decode_position(payload) {
                Some(QueueRecord::Position(state)) => {
                    self.index.drop_queue(state.slot);
                    self.index.restore(state);
                }
                _ => return Err(unreadable()),
            },
            _ => {
                return apply(Replayed::System {
                    kind,
                    version,
                    payload,
                });
            }
        }
        Ok(())
    }

    /// Nothing below is there any more.
    fn retain(&mut self, retained: Retained) {
        for (slot, min) in retained.queues {
            self.index.raise_min(slot, min);
        }
        self.index.retain_from(retained.min);
        self.keys.retain_from(retained.min);
        self.min = self.min.max(retained.min);
        self.ended.extend(retained.ended);
    }

    /// Which segments there are, and how old they are.
    fn retention(
        &self,
        dir: &dyn Dir,
        options: &StoreOptions,
        end: LogEnd,
    ) -> Result<Retention, DiskError> {
        let there = retention::segments(dir)?;
        let (tail, bytes) = ((end.end, end.last_ms), options.segment_bytes);
        let ended = retention::ended_segments(dir, &there, tail, &self.ended, bytes)?;
        let files_from = there.first().copied().unwrap_or_default();
        let oldest = self.min.max(files_from);
        let first_ms = match there.contains(&oldest) {
            true => retention::first_ms(dir, oldest)?,
            false => None,
        };
        Ok(Retention::new(self.min, files_from, first_ms, ended))
    }

    fn finish(
        self,
        dir: &dyn Dir,
        options: StoreOptions,
        end: LogEnd,
        lineage: Lineage,
        known: &[Checkpoint],
    ) -> Result<Store, StoreError> {
        let sequence = known.first().map_or(0, |newest| newest.sequence) + 1;
        let filled = known
            .iter()
            .map(|checkpoint| checkpoint.filled)
            .max()
            .unwrap_or_default();
        let aligned = LogOffset(
            end.end
                .0
                .next_multiple_of(crate::base::disk::BLOCK_BYTES as u64),
        );
        let mut segments = Segments::new(options.segment_bytes, filled.max(aligned));
        segments.fill_now(dir, aligned)?;
        let from = self
            .checkpoint
            .as_ref()
            .map_or(LogEnd::default(), |checkpoint| checkpoint.from);
        let used = self.checkpoint.clone();
        let named = Checkpoint {
            lineage,
            sequence,
            from,
            durable: end.end,
            filled: segments.filled_to(),
            snapshot: used.as_ref().is_some_and(|checkpoint| checkpoint.snapshot),
            queue_runs: used.as_ref().map_or(Vec::new(), |c| c.queue_runs.clone()),
            key_runs: used.as_ref().map_or(Vec::new(), |c| c.key_runs.clone()),
        };
        named.write(dir)?;
        let snapshots = remove_strays(dir, &named, known.first())?;
        let older = known.first().map_or(LogOffset(0), |other| other.from.end);
        // What was filled again is in no run yet, so nothing may go before it is.
        let older = older.min(self.rebuild.map_or(older, |_| LogOffset(0)));
        let retention = self.retention(dir, &options, end)?;
        let ahead = match options.flush {
            Flush::Async => Some(Ahead::create(dir, options.ahead_bytes)?),
            Flush::Sync => dir.remove(ahead::FILE).map(|()| None)?,
        };
        let log = CommitLog::new(log_options(&options), lineage, segments, ahead, end);
        let mut queues = self.queues;
        let slots: Vec<_> = queues.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let next = self.index.next(slot);
            queues.queue_mut(slot).expect("listed above").visible = next;
        }
        queues.rest_unused();
        let mut checkpoints = Checkpoints::new(sequence, older, from.end, snapshots);
        checkpoints.rebuilt = self.rebuild.is_some();
        Ok(Store {
            log,
            queues,
            index: self.index,
            keys: self.keys,
            windows: windows(&options),
            lookups: Lookups::default(),
            hidden: Waiting::default(),
            checkpoints,
            retention,
            tasks: Map::default(),
            orders_given: 0,
            closing: false,
            options,
        })
    }
}

/// Messages of a queue that salvage found missing.
struct Lost {
    topic: String,
    queue_id: i32,
    /// Messages in front of the gap. A queue's offsets have no gap, so they go with it.
    before: u64,
    range: Range<u64>,
}

struct Opening<'o> {
    options: &'o StoreOptions,
    report: Report,
    base: Base,
    /// Salvage: in the order of the log.
    lost: Vec<Lost>,
}

impl Opening<'_> {
    /// Replays the log behind the base and makes what was found durable.
    fn replay(&mut self, dir: &dyn Dir, apply: Apply<'_>) -> Result<(LogEnd, Lineage), StoreError> {
        let o = self.options;
        let fresh = Lineage {
            shard: o.shard,
            store_id: o.store_id,
            epoch: 0,
            incarnation: 0,
        };
        let replay = match &self.base.checkpoint {
            Some(c) => Replay::new(dir, o.segment_bytes, c.lineage, c.from, o.sabotage)?,
            None => Replay::from_oldest(dir, o.segment_bytes, fresh, o.sabotage)?,
        };
        let promised = self
            .base
            .checkpoint
            .as_ref()
            .map_or(LogOffset(0), |c| c.durable);
        let kept = match o.sabotage {
            Sabotage::LeaveKept => Map::default(),
            _ => ahead::left_behind(dir, o.shard, o.store_id)?,
        };
        let mut replay = replay.with_kept(kept);
        loop {
            while let Some((header, batch)) = self.next_batch(dir, &mut replay)? {
                self.batch(&header, &batch, apply)?;
            }
            let end = replay.end().end;
            let to = promised.max(replay.promised_beyond()?.unwrap_or_default());
            if to <= end {
                break;
            }
            let file = file_name(LogOffset(end.0 / o.segment_bytes * o.segment_bytes));
            if !o.salvage {
                let file = file.to_string();
                return Err(StoreError::Damaged {
                    shard: o.shard,
                    from: end,
                    to,
                    file,
                });
            }
            let note = format!("{file}: nothing usable between log offsets {} and", end.0);
            let resumed = replay.skip_damage()?;
            let Some(resumed) = resumed else {
                self.report.notes.push(format!("{note} its end"));
                break;
            };
            self.report.notes.push(format!("{note} {}", resumed.0));
        }
        for Lost {
            topic,
            queue_id,
            before,
            range,
        } in &self.lost
        {
            let count = range.end - range.start;
            self.report.notes.push(format!(
                "topic {topic}, queue {queue_id}: lost {count} messages, offsets {} to {}; the \
                 queue begins behind them now, what was left before ({before} messages) is no \
                 longer readable",
                range.start,
                range.end - 1
            ));
        }
        self.check_segments(dir, replay.end().end)?;
        self.make_durable(dir, replay.end().end)?;
        let checkpoint = self.base.checkpoint.as_ref();
        let known = checkpoint.map_or(Life::default(), |checkpoint| checkpoint.lineage.life());
        let lineage = replay.lineage();
        let lineage = lineage.in_life(lineage.life().max(known));
        Ok((replay.end(), lineage))
    }

    /// The next batch of the log; one that was kept and not written is put in its place.
    fn next_batch(
        &mut self,
        dir: &dyn Dir,
        replay: &mut Replay<'_>,
    ) -> Result<Option<(BatchHeader, Vec<u8>)>, StoreError> {
        if let Some(found) = replay.next_batch()? {
            return Ok(Some(found));
        }
        let Some((header, batch)) = replay.next_kept() else {
            return Ok(None);
        };
        let in_file = header.at.0 % self.options.segment_bytes;
        let file = file_name(LogOffset(header.at.0 - in_file));
        dir.write_at(&file, in_file, &batch)?;
        self.report.put_back += 1;
        Ok(Some((header, batch)))
    }

    /// Between what is kept and the end of the log no segment may be missing.
    fn check_segments(&mut self, dir: &dyn Dir, end: LogOffset) -> Result<(), StoreError> {
        let (there, bytes) = (retention::segments(dir)?, self.options.segment_bytes);
        let missing = retention::missing_segment(&there, self.base.min, end, bytes);
        let Some((from, to)) = missing else {
            return Ok(());
        };
        let file = file_name(from).to_string();
        if self.options.salvage {
            let note = format!("{file} is missing: messages in it are not readable");
            self.report.notes.push(note);
            return Ok(());
        }
        let shard = self.options.shard;
        Err(StoreError::Damaged {
            shard,
            from,
            to,
            file,
        })
    }

    /// What was replayed may have been written but never synced. From here on it counts.
    fn make_durable(&self, dir: &dyn Dir, end: LogOffset) -> Result<(), StoreError> {
        let step = self.options.segment_bytes;
        let mut first = self.report.from.0 / step * step;
        while first < end.0 {
            dir.sync(&file_name(LogOffset(first)))?;
            first += step;
        }
        Ok(())
    }

    fn batch(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        apply: Apply<'_>,
    ) -> Result<(), StoreError> {
        self.report.batches += 1;
        let shard = self.options.shard;
        for item in walk(&batch[HEADER_BYTES..]) {
            let (at, record) = item.map_err(|error: BadRecord| StoreError::Record {
                shard,
                at: header.at,
                reason: error.to_string(),
            })?;
            let at = LogOffset(header.at.0 + (HEADER_BYTES + at) as u64);
            let done = match record {
                Record::Message(bytes) => self.message(at, bytes, apply),
                Record::System {
                    kind: kind @ (Kind::Light | Kind::LightCopy),
                    store_ms,
                    payload,
                    ..
                } => self.light(kind, at, store_ms, payload),
                Record::System {
                    kind,
                    version,
                    payload,
                    ..
                } => self.base.system(kind, version, payload, apply),
            };
            done.map_err(|reason| StoreError::Record { shard, at, reason })?;
        }
        Ok(())
    }

    fn message(&mut self, at: LogOffset, bytes: &[u8], apply: Apply<'_>) -> Result<(), String> {
        let view = RecordView::parse(bytes).map_err(|error| error.to_string())?;
        let Some(slot) = self.base.queues.find(view.topic(), view.queue_id()) else {
            return Err(format!(
                "no queue {} of topic {}",
                view.queue_id(),
                view.topic()
            ));
        };
        let found = u64::try_from(view.queue_offset()).map_err(|_| "negative offset")?;
        self.meet(slot, found, at)?;
        let dispatch = Dispatch::of(view.topic(), view.properties());
        let (size, crc) = (bytes.len() as u32, crc32fast::hash(bytes));
        let entry = Entry {
            at,
            size,
            tag_hash: dispatch.tag_hash,
            crc,
        };
        self.base.index.append(slot, entry, view.store_timestamp());
        let forgets = self.options.sabotage == Sabotage::ForgetKeys;
        for key in dispatch.keys.iter().filter(|_| !forgets) {
            self.base.keys.append(*key, at, view.store_timestamp());
        }
        self.report.messages += 1;
        if view.topic() != TIMER_TOPIC {
            return Ok(());
        }
        apply(Replayed::Timed {
            store_ms: view.store_timestamp(),
            properties: view.properties(),
        })
    }

    /// Light queues that hold the message before, or the one in the payload.
    fn light(
        &mut self,
        kind: Kind,
        at: LogOffset,
        store_ms: i64,
        payload: &[u8],
    ) -> Result<(), String> {
        let record = LightRecord::decode(kind, payload, at);
        let record = record.ok_or_else(|| format!("{kind:?} is unreadable"))?;
        for (slot, offset) in record.places {
            self.meet(slot, offset, record.entry.at)?;
            self.base.index.append(slot, record.entry, store_ms);
        }
        Ok(())
    }

    /// A message with this offset is next in a queue. Salvage takes note of those that are missing
    /// before it; otherwise none may be.
    fn meet(&mut self, slot: QueueSlot, found: u64, at: LogOffset) -> Result<(), String> {
        let Some(queue) = self.base.queues.queue(slot) else {
            return Err(format!("no queue has slot {}", slot.0));
        };
        let next = self.base.index.next(slot).0;
        if found == next {
            return Ok(());
        }
        let (topic, queue_id) = (queue.topic.to_string(), queue.queue_id);
        if found > next && self.options.salvage {
            let before = next - self.base.index.min(slot).0;
            self.lost.push(Lost {
                topic,
                queue_id,
                before,
                range: next..found,
            });
            self.base.index.drop_queue(slot);
            self.base.index.restore(QueueState {
                slot,
                min: QueueOffset(found),
                next: QueueOffset(found),
                born: at,
            });
            return Ok(());
        }
        Err(format!(
            "offset {found} in queue {queue_id} of {topic}, expected {next}"
        ))
    }
}

fn limits(options: &StoreOptions) -> Limits {
    let hot_bytes_max = options.index_bytes_max / 2;
    Limits {
        hot_bytes_max,
        directory_bytes_max: options.index_bytes_max / 8,
    }
}

/// Reads are joined from windows: the largest record, wherever it begins, fits the budget.
fn windows(options: &StoreOptions) -> WindowCache {
    let room = options.record_bytes_max + 2 * WINDOW_BYTES;
    let bytes_max = options.window_bytes_max.max(room);
    WindowCache::new(WINDOW_BYTES, options.record_bytes_max, bytes_max)
}

fn key_limits(options: &StoreOptions) -> KeyLimits {
    let hot_bytes_max = options.index_bytes_max / 4;
    KeyLimits {
        hot_bytes_max,
        directory_bytes_max: options.index_bytes_max / 8,
    }
}

fn log_options(options: &StoreOptions) -> LogOptions {
    LogOptions {
        flush: options.flush,
        flush_interval_ms: options.flush_interval_ms,
        batch_bytes_max: options.batch_bytes_max,
        writes_in_flight_max: options.writes_in_flight_max,
        pending_bytes_max: options.pending_bytes_max,
        tail_bytes_max: options.tail_bytes_max,
        sabotage: options.sabotage,
    }
}
