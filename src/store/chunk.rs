//! A queue of the queue index at rest and in motion: its numbers, and its entries in memory in
//! chunks. What a chunk's life is, `consumequeue` decides.

use crate::base::LogOffset;
use crate::store::entries::{ENTRY_BYTES, Entry};
use bytes::Bytes;
use std::collections::VecDeque;

/// Entries of a chunk: the first chunk of a queue is small, each further one twice as large.
const CHUNK_ENTRIES_MIN: usize = 4;
const CHUNK_ENTRIES_MAX: usize = 1024;
/// A sealed chunk of this size gives back what it does not use.
const SHRINK_BYTES: usize = 64 * ENTRY_BYTES;
/// What a chunk costs beside its entries: its place in its queue and in `ages`, two allocations.
pub const CHUNK_OVERHEAD: usize = 112;

/// Consecutive entries of one queue. `Sealed` ones are shared with the seal that writes them and
/// never change again.
pub struct Chunk {
    /// Numbers the chunks of the shard in the order of their creation.
    pub serial: u64,
    pub first: u64,
    pub first_ms: i64,
    entries: ChunkBytes,
}

enum ChunkBytes {
    Open(Vec<u8>),
    Sealed { bytes: Bytes, capacity: usize },
}

impl Chunk {
    pub fn bytes(&self) -> &[u8] {
        match &self.entries {
            ChunkBytes::Open(bytes) => bytes,
            ChunkBytes::Sealed { bytes, .. } => bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes().len() / ENTRY_BYTES
    }

    pub fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    pub fn cost(&self) -> usize {
        let capacity = match &self.entries {
            ChunkBytes::Open(bytes) => bytes.capacity(),
            ChunkBytes::Sealed { capacity, .. } => *capacity,
        };
        capacity + CHUNK_OVERHEAD
    }

    /// A chunk for about twice as many entries as `last` had.
    pub fn begin(serial: u64, first: u64, first_ms: i64, last: usize) -> Chunk {
        let room = (last * 2).clamp(CHUNK_ENTRIES_MIN, CHUNK_ENTRIES_MAX);
        Chunk {
            serial,
            first,
            first_ms,
            entries: ChunkBytes::Open(Vec::with_capacity(room * ENTRY_BYTES)),
        }
    }

    /// Adds an entry; false if there is no room or the chunk is sealed.
    #[inline]
    pub fn append(&mut self, entry: Entry) -> bool {
        match &mut self.entries {
            ChunkBytes::Open(bytes) if bytes.len() + ENTRY_BYTES <= bytes.capacity() => {
                bytes.extend_from_slice(&entry.encode());
                true
            }
            _ => false,
        }
    }

    /// Ends the chunk's growth and gives a share of its entries.
    pub fn seal(&mut self) -> Bytes {
        if let ChunkBytes::Open(bytes) = &mut self.entries {
            if bytes.len() * 2 <= bytes.capacity() && bytes.capacity() >= SHRINK_BYTES {
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

pub struct Queue {
    pub next: u64,
    pub min: u64,
    /// Entries below are in a run, or in the seal that is being written.
    pub sealed: u64,
    pub born: LogOffset,
    pub chunks: VecDeque<Chunk>,
}

const _: () = assert!(size_of::<Option<Queue>>() == 64, "a queue at rest is small");

impl Queue {
    /// The first offset that is in memory.
    pub fn hot_from(&self) -> u64 {
        self.chunks.front().map_or(self.next, |chunk| chunk.first)
    }

    /// Memory of the chunks with a serial number above `serial`.
    pub fn cost_after(&self, serial: u64) -> usize {
        let later = self.chunks.iter().rev();
        let later = later.take_while(|chunk| serial < chunk.serial);
        later.map(Chunk::cost).sum()
    }
}
