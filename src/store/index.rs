//! The key index of one shard (RocketMQ's IndexFile): from the hash of `topic#key` to the log
//! offsets of the records that may carry it. A hit is only a hint; the record decides.
//!
//! New entries gather in memory in append order, 16 bytes each. At a checkpoint they are sorted by
//! hash and offset into a run; runs are merged like those of the queue index. A [`KeyView`] is a
//! cheap snapshot with which another thread looks things up.
//!
//! In a run every block but the last has [`BLOCK_ENTRIES`] entries. Entry: hash 8, log offset 8.
//! Directory row: first hash 8, entries 4, CRC-32 4. All big-endian.
//!
//! Not here: reading records, and what is a key of a message.

use crate::base::disk::Dir;
use crate::base::{DiskError, LogOffset};
use crate::store::merge::{Keep, Merge, Plan, Reader, STEP_BYTES, Step};
use crate::store::runs::{Bad, Header, Kind, Listing, LogRange, Run, RunList, RunWriter};
use std::sync::Arc;

/// Entries of a block of a key run: 64 KiB.
const BLOCK_ENTRIES: usize = 4096;
const BLOCK_BYTES: usize = BLOCK_ENTRIES * KEY_ENTRY_BYTES;
const KEY_ENTRY_BYTES: usize = 16;
const _: () = assert!(KEY_ENTRY_BYTES == Kind::Key.entry_bytes());
/// Entries of a chunk in memory.
const CHUNK_ENTRIES: usize = 4096;

/// A hash and where a record with it lies.
type KeyEntry = (u64, LogOffset);

/// The hash that stands for a key on disk; it never changes. A multiply-and-fold of eight bytes at
/// a time over `topic`, `#` and `key`.
pub fn key_hash(topic: &str, key: &str) -> u64 {
    let mut hash = KeyHash {
        state: 0x2545_F491_4F6C_DD1D,
        word: 0,
        len: 0,
    };
    hash.write(topic.as_bytes());
    hash.write(b"#");
    hash.write(key.as_bytes());
    let state = fold(hash.state ^ hash.word, hash.len | 1);
    fold(state, 0xD6E8_FEB8_6659_FD93)
}

struct KeyHash {
    state: u64,
    word: u64,
    len: u64,
}

impl KeyHash {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.word = self.word << 8 | u64::from(*byte);
            self.len += 1;
            if self.len.is_multiple_of(8) {
                self.state = fold(self.state ^ self.word, 0x9E37_79B9_7F4A_7C15);
                self.word = 0;
            }
        }
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xA076_1D64_78BD_642F) * u128::from(b ^ 0xE703_7ED1_A0B4_28DB);
    (product >> 64) as u64 ^ product as u64
}

/// Limits of one shard's key index, in bytes of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyLimits {
    /// Entries that no run holds yet; when reached, [`KeyIndex::is_full`].
    pub hot_bytes_max: usize,
    /// Directories of runs; beyond it runs are merged earlier than their number asks for.
    pub directory_bytes_max: usize,
}

/// The keys of all messages of one shard.
pub struct KeyIndex {
    limits: KeyLimits,
    /// Entries in append order: full chunks, and the one being filled.
    full: Vec<Arc<Vec<KeyEntry>>>,
    open: Vec<KeyEntry>,
    /// Store time of the first entry that no seal has taken.
    first_ms: i64,
    sealed_up_to: LogOffset,
    seal: Option<Sealing>,
    runs: RunList,
    merge: Option<Merge>,
    /// The log has nothing below.
    min: LogOffset,
}

struct Sealing {
    header: Header,
    chunks: Vec<Arc<Vec<KeyEntry>>>,
}

/// Keys on their way into a run, to be [`written`](KeyDraft::write) in a
/// [`Work`](crate::base::disk::Work). Sorting takes a copy of the entries meanwhile.
pub struct KeyDraft {
    header: Header,
    chunks: Vec<Arc<Vec<KeyEntry>>>,
}

impl KeyDraft {
    /// Sorts, writes and syncs the run; gives its directory for [`KeyIndex::installed`].
    pub fn write(self, dir: &dyn Dir) -> Result<Vec<u8>, DiskError> {
        let mut entries = Vec::with_capacity(self.header.entries as usize);
        self.chunks
            .iter()
            .for_each(|chunk| entries.extend_from_slice(chunk));
        entries.sort_unstable();
        let name = self.header.name();
        let mut blocks = KeyBlocks::resume(dir, &name, 0)?;
        for entry in entries {
            blocks.append(entry)?;
        }
        blocks.end_block()?;
        let header = self.header.with_directory(blocks.rows.len());
        blocks.writer.finish(&header, &blocks.rows)?;
        Ok(blocks.rows)
    }
}

impl KeyIndex {
    /// An empty index; all it will be given lies at `from` or beyond.
    pub fn new(limits: KeyLimits, from: LogOffset) -> KeyIndex {
        KeyIndex {
            limits,
            full: Vec::new(),
            open: Vec::new(),
            first_ms: 0,
            sealed_up_to: from,
            seal: None,
            runs: RunList::new(Kind::Key),
            merge: None,
            min: LogOffset(0),
        }
    }

    /// As of the checkpoint that names these runs: keys below `up_to` are in them. Reads headers
    /// and directories only.
    pub fn load(
        limits: KeyLimits,
        up_to: LogOffset,
        dir: &dyn Dir,
        names: &[String],
    ) -> Result<(KeyIndex, Vec<Bad>), DiskError> {
        let (runs, bad) = RunList::load(Kind::Key, dir, names)?;
        let mut index = KeyIndex::new(limits, up_to);
        index.runs = runs;
        Ok((index, bad))
    }

    /// Adds a key of the record at `at`; records come in log order.
    pub fn append(&mut self, hash: u64, at: LogOffset, store_ms: i64) {
        assert!(self.sealed_up_to <= at, "a seal leaves nothing behind");
        if self.open.is_empty() {
            if self.full.is_empty() {
                self.first_ms = store_ms;
            }
            self.open.reserve_exact(CHUNK_ENTRIES);
        }
        self.open.push((hash, at));
        if self.open.len() == CHUNK_ENTRIES {
            self.full.push(Arc::new(std::mem::take(&mut self.open)));
        }
    }

    fn unsealed_bytes(&self) -> usize {
        (self.full.len() * CHUNK_ENTRIES + self.open.capacity()) * size_of::<KeyEntry>()
    }

    fn hot_bytes(&self) -> usize {
        let sealing = self
            .seal
            .as_ref()
            .map_or(0, |seal| seal.header.entries as usize);
        self.unsealed_bytes() + sealing * size_of::<KeyEntry>()
    }

    /// Keys that no run holds yet have reached the limit: messages must be refused until a seal is
    /// installed.
    pub fn is_full(&self) -> bool {
        self.hot_bytes() >= self.limits.hot_bytes_max
    }

    /// Half of the limit is not sealed: a checkpoint is worth making before its time.
    pub fn wants_seal(&self) -> bool {
        self.seal.is_none() && self.unsealed_bytes() >= self.limits.hot_bytes_max / 2
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let merge = self.merge.as_ref().map_or(0, Merge::memory_bytes);
        self.hot_bytes() + merge + self.runs.directory_bytes()
    }

    /// Everything appended so far becomes a draft, as
    /// [`QueueIndex::seal`](crate::store::consumequeue::QueueIndex::seal) has it.
    pub fn seal(&mut self, up_to: LogOffset) -> Option<KeyDraft> {
        assert!(self.seal.is_none(), "one seal at a time");
        if !self.open.is_empty() {
            self.full.push(Arc::new(std::mem::take(&mut self.open)));
        }
        let chunks = std::mem::take(&mut self.full);
        let entries = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if entries == 0 {
            return None;
        }
        assert!(self.sealed_up_to < up_to, "a seal covers new log");
        let from = std::mem::replace(&mut self.sealed_up_to, up_to);
        let header = Header::sealed(Kind::Key, LogRange { from, up_to }, self.first_ms, entries);
        self.seal = Some(Sealing {
            header,
            chunks: chunks.clone(),
        });
        Some(KeyDraft { header, chunks })
    }

    /// The draft is written and synced; `directory` is what writing it gave.
    pub fn installed(&mut self, directory: Vec<u8>) {
        let seal = self.seal.take().expect("a seal was on its way");
        let header = seal.header.with_directory(directory.len());
        self.runs.insert(Run::new(header, directory.into()));
    }

    /// The draft could not be written: the next seal takes its keys again.
    pub fn abandoned(&mut self) {
        let mut seal = self.seal.take().expect("a seal was on its way");
        self.sealed_up_to = seal.header.range.from;
        self.first_ms = seal.header.first_ms;
        seal.chunks.append(&mut self.full);
        self.full = seal.chunks;
    }

    /// The next piece of merging, as
    /// [`QueueIndex::merge_step`](crate::store::consumequeue::QueueIndex::merge_step) has it.
    pub fn merge_step(&mut self) -> Option<Step> {
        if self.merge.is_none() {
            let range = self.runs.pick(self.limits.directory_bytes_max)?;
            self.merge = Some(Merge::new(&self.runs, range, Keep::Keys(self.min)));
        }
        self.merge.as_mut()?.step()
    }

    /// A step is done.
    pub fn merged(&mut self, result: Vec<u8>) {
        Merge::advance(&mut self.merge, &mut self.runs, result);
    }

    /// A step failed: the merge is given up and its inputs stay.
    pub fn merge_failed(&mut self) {
        self.merge = None;
    }

    /// The runs for the checkpoint being made.
    pub fn listing(&mut self) -> Listing {
        self.runs.listing()
    }

    /// The log lost everything below `min`.
    pub fn retain_from(&mut self, min: LogOffset) {
        self.min = self.min.max(min);
        self.runs.retain_from(min, |_| {});
    }

    /// Takes a damaged run out; it can be rebuilt from the log range in the answer.
    pub fn reject(&mut self, name: &str, reason: &'static str) -> Option<Bad> {
        Merge::cancel(&mut self.merge);
        self.runs.reject(name, reason)
    }

    /// Takes over the runs of an index that was filled from the range of a bad run.
    pub fn adopt(&mut self, rebuilt: KeyIndex) {
        assert!(
            rebuilt.seal.is_none() && rebuilt.unsealed_bytes() == 0,
            "all is in runs"
        );
        Merge::cancel(&mut self.merge);
        for run in rebuilt.runs.runs() {
            self.runs.insert(run.clone());
        }
    }

    /// A snapshot for looking up on another thread. Copies at most one chunk.
    pub fn view(&self) -> KeyView {
        let sealing = self.seal.iter().flat_map(|seal| seal.chunks.iter());
        let mut chunks: Vec<_> = sealing.chain(&self.full).cloned().collect();
        chunks.push(Arc::new(self.open.clone()));
        KeyView {
            chunks,
            runs: self.runs.runs().to_vec(),
            min: self.min,
        }
    }
}

/// The key index as it was at one moment.
pub struct KeyView {
    chunks: Vec<Arc<Vec<KeyEntry>>>,
    runs: Vec<Run>,
    min: LogOffset,
}

impl KeyView {
    /// Log offsets of records that may carry the key, newest first, at most `max`. Runs that lie
    /// wholly outside `from_ms..=to_ms` are skipped; the records tell their exact time.
    pub fn lookup(
        &self,
        dir: &dyn Dir,
        hash: u64,
        from_ms: i64,
        to_ms: i64,
        max: usize,
    ) -> Result<Vec<LogOffset>, DiskError> {
        let mut found = Vec::new();
        for chunk in self.chunks.iter().rev() {
            let hits = chunk.iter().rev().filter(|(other, _)| *other == hash);
            found.extend(hits.map(|(_, at)| *at).filter(|at| self.min <= *at));
        }
        let mut end_ms = i64::MAX;
        for run in self.runs.iter().rev() {
            if found.len() >= max {
                break;
            }
            if run.header.first_ms <= to_ms && from_ms <= end_ms {
                self.lookup_run(dir, run, hash, max, &mut found)?;
            }
            end_ms = run.header.first_ms;
        }
        found.truncate(max);
        Ok(found)
    }

    /// Goes through the blocks that can hold `hash` from the last to the first.
    fn lookup_run(
        &self,
        dir: &dyn Dir,
        run: &Run,
        hash: u64,
        max: usize,
        found: &mut Vec<LogOffset>,
    ) -> Result<(), DiskError> {
        let mut reader = Reader::new(dir, run);
        let end = run.partition_point(|row| KeyRow::decode(row).first <= hash);
        for index in (0..end).rev() {
            let row = KeyRow::decode(run.row(index));
            let block = row.read(&mut reader, index)?;
            let after = block.partition_point(|entry| decode(entry).0 <= hash);
            let hits = block[..after].iter().rev().map(decode);
            let hits = hits.take_while(|(other, at)| *other == hash && self.min <= *at);
            found.extend(hits.map(|(_, at)| at));
            if found.len() >= max || row.first < hash {
                break;
            }
        }
        Ok(())
    }
}

fn encode(entry: KeyEntry) -> [u8; KEY_ENTRY_BYTES] {
    let pair = u128::from(entry.0) << 64 | u128::from(entry.1.0);
    pair.to_be_bytes()
}

fn decode(bytes: &[u8; KEY_ENTRY_BYTES]) -> KeyEntry {
    let pair = u128::from_be_bytes(*bytes);
    ((pair >> 64) as u64, LogOffset(pair as u64))
}

/// A row of a key run's directory.
#[derive(Clone, Copy)]
struct KeyRow {
    first: u64,
    count: u32,
    crc: u32,
}

impl KeyRow {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
    }

    /// `bytes` are a row of a loaded directory, so of the right length.
    fn decode(bytes: &[u8]) -> KeyRow {
        let bytes: &[u8; 16] = bytes.try_into().expect("directories hold whole rows");
        let row = u128::from_be_bytes(*bytes);
        KeyRow {
            first: (row >> 64) as u64,
            count: (row >> 32) as u32,
            crc: row as u32,
        }
    }

    fn read<'r>(
        &self,
        reader: &'r mut Reader<'_>,
        index: usize,
    ) -> Result<&'r [[u8; KEY_ENTRY_BYTES]], DiskError> {
        let at = (index * BLOCK_BYTES) as u64;
        let bytes = reader.read(at, self.count as usize * KEY_ENTRY_BYTES, self.crc)?;
        Ok(bytes.as_chunks().0)
    }
}

/// The reason if a loaded directory is not one that could have been written.
pub fn check_directory(run: &Run) -> Result<(), &'static str> {
    let mut left = run.header.entries;
    let mut last = 0;
    for index in 0..run.blocks() {
        let row = KeyRow::decode(run.row(index));
        if u64::from(row.count) != left.min(BLOCK_ENTRIES as u64) || row.first < last {
            return Err("directory rows do not follow each other");
        }
        left -= u64::from(row.count);
        last = row.first;
    }
    match left {
        0 => Ok(()),
        _ => Err("directory and header disagree"),
    }
}

/// Writes sorted keys in blocks, gathering the rows.
struct KeyBlocks<'a> {
    writer: RunWriter<'a>,
    rows: Vec<u8>,
    bytes: Vec<u8>,
}

impl<'a> KeyBlocks<'a> {
    fn resume(dir: &'a dyn Dir, name: &'a str, entries: u64) -> Result<Self, DiskError> {
        Ok(KeyBlocks {
            writer: RunWriter::resume(dir, name, entries * KEY_ENTRY_BYTES as u64)?,
            rows: Vec::new(),
            bytes: Vec::with_capacity(BLOCK_BYTES),
        })
    }

    fn append(&mut self, entry: KeyEntry) -> Result<(), DiskError> {
        self.bytes.extend_from_slice(&encode(entry));
        match self.bytes.len() == BLOCK_BYTES {
            true => self.end_block(),
            false => Ok(()),
        }
    }

    fn end_block(&mut self) -> Result<(), DiskError> {
        let Some(first) = self.bytes.first_chunk() else {
            return Ok(());
        };
        let row = KeyRow {
            first: decode(first).0,
            count: (self.bytes.len() / KEY_ENTRY_BYTES) as u32,
            crc: crc32fast::hash(&self.bytes),
        };
        row.encode(&mut self.rows);
        self.writer.append(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

/// One step of merging key runs: whole blocks, or all that is left.
pub fn merge_keys<'a>(
    dir: &'a dyn Dir,
    name: &'a str,
    plan: &mut Plan,
) -> Result<(RunWriter<'a>, Vec<u8>), DiskError> {
    let Keep::Keys(min) = plan.keep else {
        unreachable!("a key merge keeps by log offset")
    };
    let mut blocks = KeyBlocks::resume(dir, name, plan.output.entries)?;
    let inputs = plan.inputs.clone();
    let begin = |(run, used)| KeyCursor::begin(dir, run, used);
    let cursors: Result<Vec<_>, _> = inputs.iter().zip(&plan.used).map(begin).collect();
    let mut cursors = cursors?;
    let (mut written, mut seen) = (0, 0);
    let step = STEP_BYTES / KEY_ENTRY_BYTES as u64;
    while written < step && !(seen >= 2 * step && blocks.bytes.is_empty()) {
        let heads = cursors.iter().enumerate();
        let heads = heads.filter_map(|(at, cursor)| Some((*cursor.block.get(cursor.next)?, at)));
        let Some((entry, at)) = heads.min() else {
            break;
        };
        seen += 1;
        if min <= entry.1 {
            blocks.append(entry)?;
            written += 1;
        }
        plan.used[at] += 1;
        cursors[at].advance()?;
    }
    blocks.end_block()?;
    plan.output.entries += written;
    Ok((blocks.writer, blocks.rows))
}

/// Goes through the entries of a run from some place on; a block is held decoded.
struct KeyCursor<'a> {
    run: &'a Run,
    reader: Reader<'a>,
    block: Vec<KeyEntry>,
    /// The number of the held block, and the place in it. The place is the block's end only when
    /// the run is used up.
    index: usize,
    next: usize,
}

impl<'a> KeyCursor<'a> {
    fn begin(dir: &'a dyn Dir, run: &'a Run, used: &u64) -> Result<KeyCursor<'a>, DiskError> {
        let mut cursor = KeyCursor {
            run,
            reader: Reader::new(dir, run),
            block: Vec::new(),
            index: *used as usize / BLOCK_ENTRIES,
            next: *used as usize % BLOCK_ENTRIES,
        };
        cursor.load()?;
        Ok(cursor)
    }

    fn load(&mut self) -> Result<(), DiskError> {
        self.block.clear();
        if self.index < self.run.blocks() {
            let row = KeyRow::decode(self.run.row(self.index));
            let block = row.read(&mut self.reader, self.index)?;
            self.block.extend(block.iter().map(decode));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<(), DiskError> {
        self.next += 1;
        if self.next < BLOCK_ENTRIES {
            return Ok(());
        }
        (self.index, self.next) = (self.index + 1, 0);
        self.load()
    }
}
