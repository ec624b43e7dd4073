//! A queue of the queue index at rest and in motion: its numbers, and its entries in memory in
//! chunks. What a chunk's life is, `consumequeue` decides.
//!
//! Messages come to many thousand queues in turn, and of each queue a message meets memory that no
//! cache holds: the line of its [`Queue`], the place of its entry, and nothing else.

use crate::base::{LogOffset, QueueOffset};
use crate::store::entries::{ENTRY_BYTES, Entries, Entry};
use bytes::Bytes;
use std::collections::VecDeque;

/// Entries of a chunk: the first chunk of a queue is small, each further one twice as large.
const CHUNK_ENTRIES_MIN: usize = 4;
const CHUNK_ENTRIES_MAX: usize = 1024;
/// A sealed chunk of this size gives back what it does not use.
const SHRINK_BYTES: usize = 64 * ENTRY_BYTES;
/// What a chunk costs beside its entries: its place in its queue and in `ages`, two allocations.
pub const CHUNK_OVERHEAD: usize = 112;

/// Consecutive entries of one queue, to which none are added any more. `Sealed` ones are shared
/// with the seal that writes them.
pub struct Chunk {
    /// Numbers the chunks of the shard in the order of their creation.
    pub serial: u64,
    pub first: u64,
    pub first_ms: i64,
    entries: ChunkBytes,
}

enum ChunkBytes {
    Ended(Vec<u8>),
    Sealed { bytes: Bytes, capacity: usize },
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.entries {
            ChunkBytes::Ended(bytes) => bytes,
            ChunkBytes::Sealed { bytes, .. } => bytes,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len() / ENTRY_BYTES
    }

    pub fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    pub fn cost(&self) -> usize {
        let capacity = match &self.entries {
            ChunkBytes::Ended(bytes) => bytes.capacity(),
            ChunkBytes::Sealed { capacity, .. } => *capacity,
        };
        capacity + CHUNK_OVERHEAD
    }

    /// A share of its entries, which never change again.
    pub fn seal(&mut self) -> Bytes {
        if let ChunkBytes::Ended(bytes) = &mut self.entries {
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
            ChunkBytes::Ended(_) => unreachable!("sealed just above"),
        }
    }
}

/// What was counted in a queue since somebody asked last; not what was there at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// Of whole records.
    pub bytes: u64,
    pub messages: u32,
    /// A batch is one.
    pub sends: u32,
}

/// Consecutive entries in memory, with the store time of the first.
pub struct Piece<'a> {
    pub first: u64,
    pub first_ms: i64,
    bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    pub fn entries(&self, from: u64) -> Entries<'a> {
        Entries::starting(self.bytes, self.first, QueueOffset(from))
    }

    pub fn end(&self) -> u64 {
        self.first + (self.bytes.len() / ENTRY_BYTES) as u64
    }
}

/// What a message changes, in one line; all else is behind `rest`.
#[repr(align(64))]
pub struct Queue {
    /// The offset the next entry gets.
    pub next: u64,
    pub growth: Growth,
    /// The chunk that is being filled, if it has any room: the last entries of the queue.
    open: Vec<u8>,
    open_serial: u64,
    pub rest: Box<Rest>,
}

const _: () = assert!(size_of::<Option<Queue>>() == 64, "a message meets one line");

pub struct Rest {
    pub min: u64,
    /// Entries below are in a run, or in the seal that is being written.
    pub sealed: u64,
    pub born: LogOffset,
    /// Store time of the first entry of the open chunk.
    open_ms: i64,
    /// The chunks before it.
    pub ended: VecDeque<Chunk>,
}

impl Queue {
    /// Without entries in memory.
    pub fn new(min: u64, next: u64, born: LogOffset) -> Queue {
        Queue {
            next,
            growth: Growth::default(),
            open: Vec::new(),
            open_serial: 0,
            rest: Box::new(Rest {
                min,
                sealed: next,
                born,
                open_ms: 0,
                ended: VecDeque::new(),
            }),
        }
    }

    /// Adds an entry; false if the open chunk has no room, or has a serial number up to `cut`.
    #[inline]
    pub fn append(&mut self, cut: u64, entry: Entry) -> bool {
        if self.open_serial <= cut || self.open.capacity() - self.open.len() < ENTRY_BYTES {
            return false;
        }
        self.open.extend_from_slice(&entry.encode());
        self.next += 1;
        true
    }

    /// Begins a chunk for about twice as many entries as the last one has; gives its cost.
    pub fn begin_chunk(&mut self, serial: u64, first_ms: i64) -> usize {
        self.end_chunk();
        let last = self.rest.ended.back().map_or(0, Chunk::len);
        let room = (last * 2).clamp(CHUNK_ENTRIES_MIN, CHUNK_ENTRIES_MAX);
        self.open = Vec::with_capacity(room * ENTRY_BYTES);
        self.open_serial = serial;
        self.rest.open_ms = first_ms;
        self.open_cost()
    }

    /// Nothing is added to the open chunk any more.
    fn end_chunk(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let first = self.open_first();
        if self.rest.ended.is_empty() {
            self.rest.ended.reserve_exact(1);
        }
        self.rest.ended.push_back(Chunk {
            serial: self.open_serial,
            first,
            first_ms: self.rest.open_ms,
            entries: ChunkBytes::Ended(std::mem::take(&mut self.open)),
        });
    }

    /// Ends the chunks up to `cut`; gives those with entries that no seal has taken.
    pub fn cut(&mut self, cut: u64) -> impl Iterator<Item = &mut Chunk> {
        if self.open_serial <= cut {
            self.end_chunk();
        }
        let Rest { ended, sealed, .. } = &mut *self.rest;
        let start = ended.partition_point(|chunk| chunk.first < *sealed);
        let chunks = ended.range_mut(start..);
        chunks.take_while(move |chunk| chunk.serial <= cut)
    }

    fn open_first(&self) -> u64 {
        self.next - (self.open.len() / ENTRY_BYTES) as u64
    }

    fn open_cost(&self) -> usize {
        match self.open.capacity() {
            0 => 0,
            capacity => capacity + CHUNK_OVERHEAD,
        }
    }

    /// Whether a chunk of this number is in memory.
    pub fn has_chunk(&self, serial: u64) -> bool {
        let ended = &self.rest.ended;
        let is_open = self.open_serial == serial && !self.open.is_empty();
        is_open || ended.binary_search_by_key(&serial, |c| c.serial).is_ok()
    }

    /// The first offset that is in memory.
    pub fn hot_from(&self) -> u64 {
        let first = self.rest.ended.front();
        first.map_or_else(|| self.open_first(), |chunk| chunk.first)
    }

    /// What is in memory, without the first ended chunks, so many.
    pub fn pieces(&self, skip: usize) -> impl DoubleEndedIterator<Item = Piece<'_>> {
        let ended = self.rest.ended.range(skip..).map(|chunk| Piece {
            first: chunk.first,
            first_ms: chunk.first_ms,
            bytes: chunk.bytes(),
        });
        let open = (!self.open.is_empty()).then(|| Piece {
            first: self.open_first(),
            first_ms: self.rest.open_ms,
            bytes: &self.open,
        });
        ended.chain(open)
    }

    /// Memory of the chunks with a serial number above `serial`.
    pub fn cost_after(&self, serial: u64) -> usize {
        let open = match serial < self.open_serial {
            true => self.open_cost(),
            false => 0,
        };
        let later = self.rest.ended.iter().rev();
        let later = later.take_while(|chunk| serial < chunk.serial);
        open + later.map(Chunk::cost).sum::<usize>()
    }
}
