//! Entries of the queue index and the rows that find them: the formats of a queue run.
//!
//! A row stands for a block of consecutive entries of one queue, at most [`BLOCK_ENTRIES`], in log
//! order. 32 bytes: slot 4, entries 4, first queue offset 8, first store time 8, number of the
//! first entry in the run 4, CRC-32 of the entries 4; big-endian, ordered by slot and offset.
//!
//! Not here: which run, and what is in memory (`consumequeue`).

use crate::base::cursor::set;
use crate::base::disk::FileName;
use crate::base::{LogOffset, QueueOffset};
use crate::store::runs::{ENTRIES_AT, Kind, Run};
use bytes::Bytes;

/// Entries of a block at most: 61,440 bytes, so that a cold read verifies what it reads for cheap.
pub const BLOCK_ENTRIES: usize = 3072;

/// Bytes of an entry: log offset 8, record size 4, tag hash 4, record CRC-32 4, big-endian.
pub const ENTRY_BYTES: usize = 20;
const _: () = assert!(ENTRY_BYTES == Kind::Queue.entry_bytes());

/// Where a record lies and what a read checks before it delivers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub at: LogOffset,
    pub size: u32,
    /// Java's `tagsCode` is 64 bits wide, but for a tag only these 32 mean something.
    pub tag_hash: i32,
    /// CRC-32 of the whole stored record.
    pub crc: u32,
}

impl Entry {
    pub fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        set(&mut out, 0, self.at.0.to_be_bytes());
        set(&mut out, 8, self.size.to_be_bytes());
        set(&mut out, 12, self.tag_hash.to_be_bytes());
        set(&mut out, 16, self.crc.to_be_bytes());
        out
    }

    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let high = u64::from(u32::from_be_bytes(word(0)));
        Entry {
            at: LogOffset(high << 32 | u64::from(u32::from_be_bytes(word(4)))),
            size: u32::from_be_bytes(word(8)),
            tag_hash: i32::from_be_bytes(word(12)),
            crc: u32::from_be_bytes(word(16)),
        }
    }
}

/// Consecutive entries, decoded as they are looked at. `first` is the queue offset of the first.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    pub first: QueueOffset,
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> Entries<'a> {
    /// `bytes` from a whole number of entries on; the entry at `from` (≥ `first`) comes first.
    pub fn starting(bytes: &'a [u8], first: u64, from: QueueOffset) -> Entries<'a> {
        let (entries, _) = bytes.as_chunks();
        let skip = usize::try_from(from.0 - first).unwrap_or(usize::MAX);
        Entries {
            first: from,
            entries: entries.get(skip..).unwrap_or(&[]),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn at(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).map(Entry::decode)
    }

    pub fn iter(self) -> impl Iterator<Item = Entry> + 'a {
        self.entries.iter().map(Entry::decode)
    }

    /// How many of the leading entries satisfy `before`; entries are in log order.
    pub fn partition_point(&self, before: impl Fn(Entry) -> bool) -> usize {
        self.entries
            .partition_point(|bytes| before(Entry::decode(bytes)))
    }
}

/// A block of a run file: at most 61,440 bytes, not aligned (read windows take care of that).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    pub file: FileName,
    pub at: u64,
    pub len: usize,
    pub first: QueueOffset,
    pub count: u32,
    crc: u32,
}

impl Extent {
    /// The block, if the bytes are what was written; the run should otherwise be
    /// [rejected](crate::store::consumequeue::QueueIndex::reject) and rebuilt.
    pub fn block(&self, bytes: Bytes) -> Option<Block> {
        let whole = bytes.len() == self.len && crc32fast::hash(&bytes) == self.crc;
        let first = self.first;
        whole.then_some(Block { first, bytes })
    }
}

/// A block as it was read, its checksum checked.
pub struct Block {
    first: QueueOffset,
    bytes: Bytes,
}

impl Block {
    /// The entries from `from` on, which is not before the block.
    pub fn entries(&self, from: QueueOffset) -> Entries<'_> {
        assert!(self.first <= from, "a block is asked for what it covers");
        Entries::starting(&self.bytes, self.first.0, from)
    }

    /// The entry of `offset`, if it is in the block.
    pub fn at(&self, offset: QueueOffset) -> Option<Entry> {
        (self.first <= offset)
            .then(|| self.entries(offset).at(0))
            .flatten()
    }
}

/// A row of a queue run's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Row {
    pub slot: u32,
    pub count: u32,
    pub first: u64,
    pub first_ms: i64,
    /// Entries of the run before this block.
    pub number: u32,
    pub crc: u32,
}

impl Row {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.slot.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.first.to_be_bytes());
        out.extend_from_slice(&self.first_ms.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
    }

    /// `bytes` are a row of a loaded directory, so of the right length.
    pub fn decode(bytes: &[u8]) -> Row {
        let bytes: &[u8; 32] = bytes.try_into().expect("directories hold whole rows");
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let low = |at: usize| u32::from_be_bytes(word(at));
        let long = |at: usize| u64::from(low(at)) << 32 | u64::from(low(at + 4));
        Row {
            slot: low(0),
            count: low(4),
            first: long(8),
            first_ms: long(16) as i64,
            number: low(24),
            crc: low(28),
        }
    }

    pub fn key(&self) -> (u32, u64) {
        (self.slot, self.first)
    }

    /// The offset behind the block.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Where the block lies in `run`.
    pub fn extent(&self, run: &Run) -> Extent {
        Extent {
            file: run.name.clone(),
            at: ENTRIES_AT + u64::from(self.number) * ENTRY_BYTES as u64,
            len: self.count as usize * ENTRY_BYTES,
            first: QueueOffset(self.first),
            count: self.count,
            crc: self.crc,
        }
    }
}

/// The reason if a loaded directory is not one that could have been written: rows out of order,
/// blocks too large, or blocks that do not fill the run.
pub fn check_directory(run: &Run) -> Result<(), &'static str> {
    let mut number = 0;
    let mut last = None;
    for index in 0..run.blocks() {
        let row = Row::decode(run.row(index));
        let sized = (1..=BLOCK_ENTRIES as u32).contains(&row.count);
        let ordered = last.is_none_or(|(slot, end)| (slot, end) <= row.key());
        if !sized || !ordered || u64::from(row.number) != number {
            return Err("directory rows do not follow each other");
        }
        number += u64::from(row.count);
        last = Some((row.slot, row.end()));
    }
    match number == run.header.entries {
        true => Ok(()),
        false => Err("directory and header disagree"),
    }
}
