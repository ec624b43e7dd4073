//! The queue index: appending, and finding what was appended.

use std::hint::black_box;

use criterion::Criterion;
use orbitmq::base::{LogOffset, QueueOffset};
use orbitmq::store::consumequeue::{Entry, Limits, Lookup, QueueIndex, QueueSlot};

use crate::count::{allocations, assert_none};

const RECORD_BYTES: u32 = 1200;
const STORE_MS: i64 = 1_726_000_000_000;
/// So many entries end with a full chunk: 4, 8, … 1024, and then chunks of 1024.
const FULL_CHUNKS_ENTRIES: u64 = 2044 + 1024;
/// An entry of a queue that is opened anew this often, so that memory stays bounded.
const QUEUE_ENTRIES_MAX: u64 = 1 << 20;

struct World {
    index: QueueIndex,
    slot: QueueSlot,
    at: LogOffset,
}

impl World {
    fn new() -> World {
        let limits = Limits {
            hot_bytes_max: 1 << 30,
            directory_bytes_max: 1 << 20,
        };
        let mut index = QueueIndex::new(limits, LogOffset(0));
        index.open(QueueSlot(0));
        World {
            index,
            slot: QueueSlot(0),
            at: LogOffset(0),
        }
    }

    fn append(&mut self) {
        let entry = Entry {
            at: self.at,
            size: RECORD_BYTES,
            tag_hash: 7,
            crc: 9,
        };
        let offset = self.index.append(self.slot, black_box(entry), STORE_MS);
        self.at.0 += u64::from(RECORD_BYTES);
        if offset.0 == QUEUE_ENTRIES_MAX {
            self.index.drop_queue(self.slot);
            self.index.open(self.slot);
        }
    }

    fn look_up(&self, offset: u64) {
        let found = self.index.lookup(self.slot, black_box(QueueOffset(offset)));
        assert!(matches!(&found, Lookup::Hot(entries) if entries.at(0).is_some()));
        black_box(found);
    }
}

pub fn benches(c: &mut Criterion) {
    let mut world = World::new();
    (0..=FULL_CHUNKS_ENTRIES).for_each(|_| world.append());
    // A chunk has just begun: what is appended now finds its room made.
    assert_none("appending to a chunk of the queue index", || world.append());
    let per_million = allocations(|| (0..1_000_000).for_each(|_| world.append()));
    println!("queue index append: {per_million} allocations in 1,000,000 entries (new chunks)");
    assert!(
        per_million <= 4 * 1_000_000 / 1024,
        "only chunks are allocated"
    );
    c.bench_function("queue index append", |b| b.iter(|| world.append()));

    let mut world = World::new();
    let entries = 100_000;
    (0..entries).for_each(|_| world.append());
    let mut offset = 0;
    let mut look_up = || {
        // A stride that meets every chunk in no order.
        offset = (offset + 7919) % entries;
        world.look_up(offset);
    };
    assert_none("looking up in the queue index", &mut look_up);
    c.bench_function("queue index look-up, in memory", |b| b.iter(&mut look_up));
}
