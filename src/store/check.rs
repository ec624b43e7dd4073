//! Reads all there is of one shard and holds it against its own rules. Writes nothing.
//!
//! Looked at: every batch (place, chain, checksum), every record (layout, body CRC, own offset,
//! store time, queue offsets without a gap), the newest checkpoint with its snapshot (it stands
//! between two batches and agrees with the queues there) and every block of the runs it names.
//!
//! Not here: the lock, progress on a screen, what `broker` makes of its own records (`apply`).

use crate::base::disk::{Dir, DiskError, read_file};
use crate::base::{LogOffset, Map, ShardId};
use crate::message::view::RecordView;
use crate::store::batch::{BatchHeader, HEADER_BYTES, Lineage};
use crate::store::checkpoint::{Checkpoint, decode_snapshot, load};
use crate::store::commitlog::LogEnd;
use crate::store::consumequeue::QueueSlot;
use crate::store::entries::{ENTRY_BYTES, Row};
use crate::store::index::block;
use crate::store::light::LightRecord;
use crate::store::merge::Reader;
use crate::store::queues::QueueRecord;
use crate::store::record::{Kind, Record, walk};
use crate::store::recovery::{Apply, Replayed};
use crate::store::replay::Replay;
use crate::store::retention::Retained;
use crate::store::runs::{self, Run};
use crate::store::segment::{FOLDER, file_name};
use crate::store::{Sabotage, ahead};

/// Which log it is, from `meta.toml`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub shard: ShardId,
    pub store_id: u32,
    pub segment_bytes: u64,
}

/// What a sound shard holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// From the first to the last batch.
    pub bytes: u64,
    pub batches: u64,
    pub messages: u64,
    pub queues: usize,
    /// Store times in ms; `None` if nothing is stored.
    pub times: Option<(i64, i64)>,
    /// What is unusual but harms nothing.
    pub notes: Vec<String>,
}

/// Why there is no summary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The disk does not answer.
    Disk(DiskError),
    Damage(Damage),
}

/// The first thing that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Below the shard's directory.
    pub file: String,
    /// Log offsets, if it is in the log.
    pub range: Option<(LogOffset, LogOffset)>,
    pub what: String,
    pub remedy: &'static str,
}

const SALVAGE: &str = "Restore the file from a copy, or start once with --salvage to go on behind \
    the damage and get a report of every lost queue range";
const REBUILD: &str = "Remove the file and start the broker: it is rebuilt from the log";
const REPORT: &str = "The bytes are as they were written, so this is a bug or a newer version's \
    store: keep a copy and report it";

impl From<DiskError> for Fault {
    fn from(error: DiskError) -> Self {
        Fault::Disk(error)
    }
}

fn derived(file: &str, what: impl Into<String>) -> Fault {
    Fault::Damage(Damage {
        file: file.to_owned(),
        range: None,
        what: what.into(),
        remedy: REBUILD,
    })
}

/// Checks the shard in `dir`. `apply` takes records that are not the store's own; `progress` hears
/// how many bytes of the log have been read.
pub fn check(
    dir: &dyn Dir,
    identity: Identity,
    apply: Apply<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, Fault> {
    let lineage = Lineage {
        shard: identity.shard,
        store_id: identity.store_id,
        epoch: 0,
        incarnation: 0,
    };
    let ours = |found: &Checkpoint| {
        found.lineage.store_id == lineage.store_id && found.lineage.shard == lineage.shard
    };
    let checkpoints: Vec<_> = load(dir)?.into_iter().filter(ours).collect();
    let mut walker = Walker {
        identity,
        pending: checkpoints.first().map(|c| pending(dir, c)).transpose()?,
        queues: Queues::default(),
        whole: true,
        min: LogOffset(0),
        kept: 0,
        summary: Summary::default(),
    };
    let kept = ahead::left_behind(dir, identity.shard, identity.store_id)?;
    let replay = Replay::from_oldest(dir, identity.segment_bytes, lineage, Sabotage::None)?;
    let mut replay = replay.with_kept(kept);
    let oldest = replay.end().end;
    walker.whole = oldest == LogOffset(0);
    walker.min = walker.pending.as_ref().map_or(oldest, |known| known.min);
    walker.meet_checkpoint(replay.end())?;
    while let Some((header, batch)) = walker.next_batch(&mut replay)? {
        walker.batch(&header, &batch, apply)?;
        walker.meet_checkpoint(replay.end())?;
        progress(replay.end().end.0 - oldest.0);
    }
    if walker.kept > 0 {
        let (count, file) = (walker.kept, ahead::FILE);
        let note = format!("{count} batches are in {file} only: the next start puts them back");
        walker.summary.notes.push(note);
    }
    let end = replay.end().end;
    let durable = checkpoints
        .iter()
        .map(|checkpoint| checkpoint.durable)
        .max();
    let promised = durable.max(replay.promised_beyond()?).unwrap_or_default();
    if promised > end {
        return Err(Fault::Damage(Damage {
            file: file_of(end, identity.segment_bytes),
            range: Some((end, promised)),
            what: "no batch follows here, but later bytes were durable".to_owned(),
            remedy: SALVAGE,
        }));
    }
    walker.check_beginning(oldest)?;
    walker.summary.bytes = end.0 - oldest.0;
    walker.summary.queues = walker.queues.seen.len();
    match checkpoints.first() {
        Some(newest) => check_runs(dir, newest)?,
        None if walker.summary.batches > 0 => {
            let note = "there is no checkpoint: the next start replays the whole log";
            walker.summary.notes.push(note.to_owned());
        }
        None => {}
    }
    Ok(walker.summary)
}

/// Bytes of the log's files, for progress.
pub fn log_bytes(dir: &dyn Dir) -> Result<u64, DiskError> {
    Ok(dir.list(FOLDER)?.iter().map(|file| file.bytes).sum())
}

fn file_of(at: LogOffset, segment_bytes: u64) -> String {
    file_name(LogOffset(at.0 / segment_bytes * segment_bytes)).to_string()
}

/// A checkpoint that the walk has not reached yet.
struct Pending {
    from: LogEnd,
    name: String,
    /// Where its snapshot says that queues stand.
    positions: Vec<(QueueSlot, u64)>,
    min: LogOffset,
}

fn pending(dir: &dyn Dir, checkpoint: &Checkpoint) -> Result<Pending, Fault> {
    let from = checkpoint.from;
    let name = match checkpoint.snapshot {
        true => checkpoint.snapshot_name(),
        false => "checkpoint".to_owned(),
    };
    let (mut positions, mut min) = (Vec::new(), LogOffset(0));
    if checkpoint.snapshot {
        let bytes = read_file(dir, &name)?.ok_or_else(|| derived(&name, "the file is missing"))?;
        let records = decode_snapshot(&bytes, from.end)
            .ok_or_else(|| derived(&name, "its checksum or its log offset is wrong"))?;
        for item in walk(records) {
            let (_, record) = item.map_err(|error| derived(&name, error.to_string()))?;
            let Record::System {
                kind,
                version,
                payload,
                ..
            } = record
            else {
                continue;
            };
            match kind {
                Kind::QueuePosition => match QueueRecord::decode_position(payload) {
                    Some(QueueRecord::Position(state)) => {
                        positions.push((state.slot, state.next.0));
                    }
                    _ => return Err(derived(&name, "a queue position is unreadable")),
                },
                Kind::Retained => {
                    let retained = Retained::decode(version, payload);
                    let retained =
                        retained.ok_or_else(|| derived(&name, "what is left is unreadable"))?;
                    min = retained.min;
                }
                _ => {}
            }
        }
    }
    Ok(Pending {
        from,
        name,
        positions,
        min,
    })
}

/// Queues as the records seen so far leave them.
#[derive(Default)]
struct Queues {
    seen: Map<QueueSlot, Seen>,
    slots: Map<String, Map<i32, QueueSlot>>,
}

struct Seen {
    topic: String,
    queue_id: i32,
    next: u64,
}

impl Queues {
    fn find(&mut self, topic: &str, queue_id: i32) -> Option<&mut Seen> {
        let slot = self.slots.get(topic)?.get(&queue_id)?;
        self.seen.get_mut(slot)
    }

    /// False if the slot is in use.
    fn open(&mut self, slot: QueueSlot, topic: &str, queue_id: i32) -> bool {
        let seen = Seen {
            topic: topic.to_owned(),
            queue_id,
            next: 0,
        };
        let slots = self.slots.entry(topic.to_owned()).or_default();
        slots.insert(queue_id, slot);
        self.seen.insert(slot, seen).is_none()
    }

    fn drop_queue(&mut self, slot: QueueSlot) {
        let Some(seen) = self.seen.remove(&slot) else {
            return;
        };
        if let Some(slots) = self.slots.get_mut(&seen.topic)
            && slots.get(&seen.queue_id) == Some(&slot)
        {
            slots.remove(&seen.queue_id);
        }
    }
}

/// Takes batches in order.
struct Walker {
    identity: Identity,
    pending: Option<Pending>,
    queues: Queues,
    /// The log is there from its first byte, so every queue was seen opened.
    whole: bool,
    /// The log says that nothing is left below.
    min: LogOffset,
    /// Batches that a killed process confirmed and had not written yet.
    kept: u64,
    summary: Summary,
}

impl Walker {
    /// The log has all from where it says that it begins.
    fn check_beginning(&self, oldest: LogOffset) -> Result<(), Fault> {
        if self.min >= oldest {
            return Ok(());
        }
        Err(Fault::Damage(Damage {
            file: file_of(self.min, self.identity.segment_bytes),
            range: Some((self.min, oldest)),
            what: "the segment is missing, and was not removed for its age".to_owned(),
            remedy: SALVAGE,
        }))
    }

    fn next_batch(
        &mut self,
        replay: &mut Replay<'_>,
    ) -> Result<Option<(BatchHeader, Vec<u8>)>, DiskError> {
        if let Some(found) = replay.next_batch()? {
            return Ok(Some(found));
        }
        let kept = replay.next_kept();
        self.kept += u64::from(kept.is_some());
        Ok(kept)
    }

    /// Between two batches: is this where the checkpoint says?
    fn meet_checkpoint(&mut self, end: LogEnd) -> Result<(), Fault> {
        let Some(pending) = self.pending.take_if(|pending| pending.from.end <= end.end) else {
            return Ok(());
        };
        if pending.from != end {
            let at = pending.from.end.0;
            let what = format!("log offset {at} is not between the batches it names");
            return Err(derived(&pending.name, what));
        }
        if !self.whole {
            return Ok(());
        }
        for (slot, next) in &pending.positions {
            let found = self.queues.seen.get(slot).map(|seen| seen.next);
            if found != Some(*next) {
                let what = format!(
                    "queue slot {} stands at {next}, in the log at {found:?}",
                    slot.0
                );
                return Err(derived(&pending.name, what));
            }
        }
        Ok(())
    }

    fn batch(&mut self, header: &BatchHeader, batch: &[u8], apply: Apply<'_>) -> Result<(), Fault> {
        let last_ms = header.first_ms + i64::from(header.span_ms);
        let (first, before) = self.summary.times.unwrap_or((header.first_ms, i64::MIN));
        let bad = |at: LogOffset, bytes: usize, what: String| {
            Fault::Damage(Damage {
                file: file_of(at, self.identity.segment_bytes),
                range: Some((at, LogOffset(at.0 + bytes as u64))),
                what,
                remedy: REPORT,
            })
        };
        if header.first_ms < before {
            let what = format!("store time {} after {before}", header.first_ms);
            return Err(bad(header.at, batch.len(), what));
        }
        let mut records = 0;
        for item in walk(&batch[HEADER_BYTES..]) {
            let (at, record) =
                item.map_err(|error| bad(header.at, batch.len(), error.to_string()))?;
            let at = LogOffset(header.at.0 + (HEADER_BYTES + at) as u64);
            let (bytes, outcome) = match record {
                Record::Message(bytes) => {
                    let outcome =
                        message(&mut self.queues, self.identity.shard, self.whole, at, bytes);
                    self.summary.messages += 1;
                    (bytes.len(), outcome)
                }
                Record::System {
                    kind: kind @ (Kind::Light | Kind::LightCopy),
                    payload,
                    ..
                } => {
                    let shard = self.identity.shard;
                    let outcome = light(&mut self.queues, shard, self.whole, kind, at, payload);
                    (payload.len(), outcome)
                }
                Record::System {
                    kind,
                    version,
                    payload,
                    ..
                } => {
                    if let (Kind::Retained, Some(retained)) =
                        (kind, Retained::decode(version, payload))
                    {
                        self.min = self.min.max(retained.min);
                    }
                    let outcome = system(&mut self.queues, kind, version, payload, apply);
                    (payload.len(), outcome)
                }
            };
            outcome.map_err(|what| bad(at, bytes, what))?;
            records += 1;
        }
        if records != header.records {
            let what = format!("{records} records, the header says {}", header.records);
            return Err(bad(header.at, batch.len(), what));
        }
        self.summary.batches += 1;
        self.summary.times = Some((first, last_ms));
        Ok(())
    }
}

/// A message by itself, whatever its queue.
fn check_message(bytes: &[u8], at: LogOffset, shard: ShardId) -> Result<RecordView<'_>, String> {
    let view = RecordView::parse(bytes).map_err(|error| error.to_string())?;
    if !view.has_valid_body_crc() {
        return Err("the body's CRC does not match".to_owned());
    }
    if view.physical_offset() != at.physical(shard) {
        return Err(format!("it says it is at {}", view.physical_offset()));
    }
    Ok(view)
}

fn message(
    queues: &mut Queues,
    shard: ShardId,
    whole: bool,
    at: LogOffset,
    bytes: &[u8],
) -> Result<(), String> {
    let view = check_message(bytes, at, shard)?;
    let (topic, queue_id, offset) = (view.topic(), view.queue_id(), view.queue_offset());
    let found = u64::try_from(offset).map_err(|_| format!("queue offset {offset}"))?;
    match queues.find(topic, queue_id) {
        Some(seen) if seen.next == found => seen.next += 1,
        Some(seen) => {
            return Err(format!(
                "offset {found} in queue {queue_id} of {topic}, expected {}",
                seen.next
            ));
        }
        None if whole => return Err(format!("no queue {queue_id} of topic {topic}")),
        None => {}
    }
    Ok(())
}

fn light(
    queues: &mut Queues,
    shard: ShardId,
    whole: bool,
    kind: Kind,
    at: LogOffset,
    payload: &[u8],
) -> Result<(), String> {
    let record = LightRecord::decode(kind, payload, at);
    let record = record.ok_or_else(|| format!("{kind:?} is unreadable"))?;
    if let Some(message) = record.copy {
        check_message(message, record.entry.at, shard)?;
    }
    for (slot, offset) in record.places {
        match queues.seen.get_mut(&slot) {
            Some(seen) if seen.next == offset => seen.next += 1,
            Some(seen) => {
                return Err(format!(
                    "offset {offset} in light queue {}, expected {}",
                    seen.topic, seen.next
                ));
            }
            None if whole => return Err(format!("no queue has slot {}", slot.0)),
            None => {}
        }
    }
    Ok(())
}

fn system(
    queues: &mut Queues,
    kind: Kind,
    version: u16,
    payload: &[u8],
    apply: Apply<'_>,
) -> Result<(), String> {
    let unreadable = || format!("{kind:?} version {version} is unreadable");
    match kind {
        Kind::QueueOpened => match QueueRecord::decode_opened(payload).ok_or_else(unreadable)? {
            QueueRecord::Opened {
                slot,
                topic,
                queue_id,
                ..
            } => match queues.open(slot, topic, queue_id) {
                true => Ok(()),
                false => Err(format!("queue slot {} is opened twice", slot.0)),
            },
            _ => Err(unreadable()),
        },
        Kind::QueueDropped => match QueueRecord::decode_dropped(payload).ok_or_else(unreadable)? {
            QueueRecord::Dropped { slot } => {
                queues.drop_queue(slot);
                Ok(())
            }
            _ => Err(unreadable()),
        },
        Kind::QueuePosition => Err("a queue position outside a snapshot".to_owned()),
        Kind::Retained => {
            let known = Retained::decode(version, payload);
            known.map(drop).ok_or_else(unreadable)
        }
        Kind::Carried => {
            let view = RecordView::parse(payload).map_err(|error| error.to_string())?;
            match view.has_valid_body_crc() {
                true => Ok(()),
                false => Err("the body's CRC does not match".to_owned()),
            }
        }
        _ => apply(Replayed::System {
            kind,
            version,
            payload,
        }),
    }
}

fn check_runs(dir: &dyn Dir, checkpoint: &Checkpoint) -> Result<(), Fault> {
    let queue_runs = checkpoint.queue_runs.iter();
    let queue_runs = queue_runs.map(|name| (name, runs::Kind::Queue));
    let key_runs = checkpoint.key_runs.iter();
    let key_runs = key_runs.map(|name| (name, runs::Kind::Key));
    for (name, kind) in queue_runs.chain(key_runs) {
        let run = Run::load(dir, name, kind)?.map_err(|bad| derived(name, bad.reason))?;
        let mut reader = Reader::new(dir, &run);
        for index in 0..run.blocks() {
            let (at, len, crc) = match kind {
                runs::Kind::Key => block(&run, index),
                runs::Kind::Queue => {
                    let row = Row::decode(run.row(index));
                    let at = u64::from(row.number) * ENTRY_BYTES as u64;
                    (at, row.count as usize * ENTRY_BYTES, row.crc)
                }
            };
            let read = reader.read(at, len, crc).map(|_| ());
            read.map_err(|error| derived(name, error.reason))?;
        }
    }
    Ok(())
}
