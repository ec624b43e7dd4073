//! Filling the indexes again when their files are damaged and the log no longer begins at 0: the
//! snapshot says which queues there are and where they stand, the log which messages are left.

use crate::base::disk::Dir;
use crate::base::{LogOffset, Map, QueueOffset};
use crate::message::view::RecordView;
use crate::store::StoreOptions;
use crate::store::batch::HEADER_BYTES;
use crate::store::checkpoint::Checkpoint;
use crate::store::consumequeue::{QueueIndex, QueueSlot, QueueState};
use crate::store::dispatch::Dispatch;
use crate::store::entries::Entry;
use crate::store::index::KeyIndex;
use crate::store::light::LightRecord;
use crate::store::queues::Queues;
use crate::store::record::{Record, walk};
use crate::store::recovery::StoreError;
use crate::store::replay::Replay;
use crate::store::segment::file_name;

/// What is filled: `index` has the queues as the snapshot says, and no entries.
pub struct Rebuild<'b> {
    pub queues: &'b Queues,
    pub index: &'b mut QueueIndex,
    pub keys: &'b mut KeyIndex,
}

impl Rebuild<'_> {
    /// Goes through the log from `oldest` to where the checkpoint stands.
    pub fn run(
        mut self,
        dir: &dyn Dir,
        options: &StoreOptions,
        checkpoint: &Checkpoint,
        oldest: LogOffset,
    ) -> Result<(), StoreError> {
        let states: Map<QueueSlot, QueueState> = self
            .index
            .states()
            .map(|state| (state.slot, state))
            .collect();
        for state in states.values() {
            self.begin(*state, state.min);
        }
        let (to, bytes) = (checkpoint.from.end, options.segment_bytes);
        let mut replay = Replay::from_middle(dir, bytes, checkpoint.lineage, oldest)?;
        while replay.end().end < to {
            match replay.next_batch()? {
                Some((header, batch)) => {
                    let first = header.at.0 + HEADER_BYTES as u64;
                    self.batch(&states, first, &batch[HEADER_BYTES..]);
                }
                None if options.salvage && replay.skip_damage()?.is_some() => {}
                None => {
                    let from = replay.end().end;
                    return Err(StoreError::Damaged {
                        shard: options.shard,
                        from,
                        to,
                        file: file_name(LogOffset(from.0 / bytes * bytes)).to_string(),
                    });
                }
            }
        }
        for state in states.values() {
            if self.index.next(state.slot) != state.next {
                self.begin(*state, state.next);
            }
        }
        Ok(())
    }

    /// Records that are wrong are not this one's to find: they lie before what is replayed.
    fn batch(&mut self, states: &Map<QueueSlot, QueueState>, first: u64, records: &[u8]) {
        for (within, record) in walk(records).flatten() {
            let at = LogOffset(first + within as u64);
            match record {
                Record::Message(bytes) => self.message(states, at, bytes),
                Record::System {
                    kind,
                    store_ms,
                    payload,
                    ..
                } => {
                    let light = LightRecord::decode(kind, payload, at);
                    for (slot, offset) in light.iter().flat_map(|light| &light.places) {
                        let entry = light.as_ref().expect("it has places").entry;
                        self.enter(states, *slot, *offset, entry, store_ms);
                    }
                }
            }
        }
    }

    fn message(&mut self, states: &Map<QueueSlot, QueueState>, at: LogOffset, bytes: &[u8]) {
        let Ok(view) = RecordView::parse(bytes) else {
            return;
        };
        let dispatch = Dispatch::of(view.topic(), view.properties());
        let entry = Entry {
            at,
            size: bytes.len() as u32,
            tag_hash: dispatch.tag_hash,
            crc: crc32fast::hash(bytes),
        };
        let store_ms = view.store_timestamp();
        for key in &dispatch.keys {
            self.keys.append(*key, at, store_ms);
        }
        let slot = self.queues.find(view.topic(), view.queue_id());
        if let (Some(slot), Ok(offset)) = (slot, u64::try_from(view.queue_offset())) {
            self.enter(states, slot, offset, entry, store_ms);
        }
    }

    /// An entry of a queue, unless that is past its end: then it is of a namesake before it.
    fn enter(
        &mut self,
        states: &Map<QueueSlot, QueueState>,
        slot: QueueSlot,
        offset: u64,
        entry: Entry,
        store_ms: i64,
    ) {
        let Some(state) = states.get(&slot) else {
            return;
        };
        if !(state.min.0..state.next.0).contains(&offset) {
            return;
        }
        if self.index.next(slot).0 != offset {
            self.begin(*state, QueueOffset(offset));
        }
        self.index.append(slot, entry, store_ms);
    }

    /// The queue begins here: what came before is gone, or was of a namesake.
    fn begin(&mut self, state: QueueState, first: QueueOffset) {
        self.index.drop_queue(state.slot);
        self.index.restore(QueueState {
            min: first,
            next: first,
            born: LogOffset(0),
            ..state
        });
    }
}
