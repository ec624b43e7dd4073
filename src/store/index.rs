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
use crate::store::lookup::KeyQuestion;
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

/// The hash that stands for a topic's key on disk; it never changes. A multiply-and-fold of eight
/// bytes at a time, first the topic, then the key, each with its length.
pub fn key_hash(topic: &str, key: impl AsRef<[u8]>) -> u64 {
    absorb(
        absorb(0x2545_F491_4F6C_DD1D, topic.as_bytes()),
        key.as_ref(),
    )
}

fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    for word in words {
        state = fold(state ^ u64::from_be_bytes(*word), 0x9E37_79B9_7F4A_7C15);
    }
    let last = rest
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    fold(state ^ last, bytes.len() as u64)
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
        let entries = sorted(&self.chunks, self.header.entries as usize);
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

/// All entries in order. Hashes spread evenly: dealt out by their highest bits first, the rest is
/// many short sorts in the processor's cache instead of one long one in memory.
fn sorted(chunks: &[Arc<Vec<KeyEntry>>], count: usize) -> Vec<KeyEntry> {
    const BUCKETS: usize = 1 << 11;
    let bucket = |hash: u64| (hash >> (64 - BUCKETS.ilog2())) as usize;
    let all = || chunks.iter().flat_map(|chunk| chunk.iter().copied());
    let mut ends = vec![0; BUCKETS];
    all().for_each(|(hash, _)| ends[bucket(hash)] += 1);
    let mut end = 0;
    for place in &mut ends {
        // Where the bucket begins; filling it moves that to its end.
        end += std::mem::replace(place, end);
    }
    assert_eq!(end, count, "a draft counts its entries");
    let mut entries = vec![(0, LogOffset(0)); count];
    for entry in all() {
        let place = &mut ends[bucket(entry.0)];
        entries[*place] = entry;
        *place += 1;
    }
    let mut from = 0;
    for to in ends {
        entries[from..to].sort_unstable();
        from = to;
    }
    entries
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

    /// Of entries: what the open chunk has in reserve does not count.
    fn unsealed_bytes(&self) -> usize {
        (self.full.len() * CHUNK_ENTRIES + self.open.len()) * size_of::<KeyEntry>()
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
        let reserve = (self.open.capacity() - self.open.len()) * size_of::<KeyEntry>();
        self.hot_bytes() + reserve + merge + self.runs.directory_bytes()
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
        let header = Header::sealed(
            &mut self.runs,
            LogRange { from, up_to },
            self.first_ms,
            entries,
        );
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
        self.runs.discard(seal.header.name());
        self.first_ms = seal.header.first_ms;
        seal.chunks.append(&mut self.full);
        self.full = seal.chunks;
    }

    /// The next piece of merging, as
    /// [`QueueIndex::merge_step`](crate::store::consumequeue::QueueIndex::merge_step) has it.
    pub fn merge_step(&mut self) -> Option<Step> {
        if self.merge.is_none() {
            let range = self.runs.pick(self.limits.directory_bytes_max)?;
            self.merge = Some(Merge::new(&mut self.runs, range, Keep::Keys(self.min)));
        }
        self.merge.as_mut()?.step()
    }

    /// A step is done.
    pub fn merged(&mut self, result: Vec<u8>) {
        Merge::advance(&mut self.merge, &mut self.runs, result);
    }

    /// A step failed: the merge is given up and its inputs stay.
    pub fn merge_failed(&mut self) {
        Merge::fail(&mut self.merge, &mut self.runs);
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
        Merge::cancel(&mut self.merge, &mut self.runs);
        self.runs.reject(name, reason)
    }

    /// An index to be filled from `from` on, in seals, with what a bad run held.
    pub fn begin_rebuild(&self, from: LogOffset) -> KeyIndex {
        KeyIndex {
            runs: self.runs.stand_in(),
            ..KeyIndex::new(self.limits, from)
        }
    }

    /// Takes over the runs of an index that was filled from the range of a bad run.
    pub fn adopt(&mut self, rebuilt: KeyIndex) {
        assert!(
            rebuilt.seal.is_none() && rebuilt.unsealed_bytes() == 0,
            "all is in runs"
        );
        Merge::cancel(&mut self.merge, &mut self.runs);
        self.runs.adopt(rebuilt.runs);
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
    /// Log offsets of records that may carry the key, newest first, at most so many. Runs that lie
    /// wholly outside the store times are skipped; the records tell their exact time.
    pub fn lookup(
        &self,
        dir: &dyn Dir,
        question: &KeyQuestion,
    ) -> Result<Vec<LogOffset>, DiskError> {
        let KeyQuestion {
            hash,
            from_ms,
            to_ms,
            ..
        } = *question;
        let mut found = Vec::new();
        for chunk in self.chunks.iter().rev() {
            let hits = chunk.iter().rev().filter(|(other, _)| *other == hash);
            let places = hits.map(|(_, at)| *at);
            found.extend(places.filter(|at| (self.min..question.before).contains(at)));
        }
        let mut end_ms = i64::MAX;
        for run in self.runs.iter().rev() {
            if found.len() >= question.most {
                break;
            }
            let is_below = run.header.range.from < question.before;
            if is_below && run.header.first_ms <= to_ms && from_ms <= end_ms {
                self.lookup_run(dir, run, question, &mut found)?;
            }
            end_ms = run.header.first_ms;
        }
        found.truncate(question.most);
        Ok(found)
    }

    /// Goes through the blocks that can hold `hash` from the last to the first.
    fn lookup_run(
        &self,
        dir: &dyn Dir,
        run: &Run,
        question: &KeyQuestion,
        found: &mut Vec<LogOffset>,
    ) -> Result<(), DiskError> {
        let (hash, before) = (question.hash, question.before);
        let mut reader = Reader::of_single_blocks(dir, run);
        let end = run.partition_point(|row| KeyRow::decode(row).first <= hash);
        for index in (0..end).rev() {
            let row = KeyRow::decode(run.row(index));
            let block = row.read(&mut reader, index)?;
            let after = block.partition_point(|entry| decode(entry) < (hash, before));
            let hits = block[..after].iter().rev().map(decode);
            let hits = hits.take_while(|(other, at)| *other == hash && self.min <= *at);
            found.extend(hits.map(|(_, at)| at));
            if found.len() >= question.most || row.first < hash {
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

/// Place, length and CRC-32 of a block's entries.
pub fn block(run: &Run, index: usize) -> (u64, usize, u32) {
    let row = KeyRow::decode(run.row(index));
    let len = row.count as usize * KEY_ENTRY_BYTES;
    ((index * BLOCK_BYTES) as u64, len, row.crc)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::MemDir;
    use proptest::prelude::*;

    const LIMITS: KeyLimits = KeyLimits {
        hot_bytes_max: 1 << 20,
        directory_bytes_max: 64,
    };

    fn install(index: &mut KeyIndex, dir: &MemDir, up_to: u64) {
        if let Some(draft) = index.seal(LogOffset(up_to)) {
            index.installed(draft.write(dir).unwrap());
        }
    }

    fn merge_all(index: &mut KeyIndex, dir: &MemDir) {
        while let Some(step) = index.merge_step() {
            let result = step.run(dir).unwrap();
            index.merged(result);
        }
    }

    fn names(index: &mut KeyIndex) -> Vec<String> {
        index
            .listing()
            .names
            .iter()
            .map(|name| name.to_string())
            .collect()
    }

    fn question(hash: u64) -> KeyQuestion {
        KeyQuestion {
            hash,
            before: LogOffset(u64::MAX),
            from_ms: 0,
            to_ms: i64::MAX,
            most: usize::MAX,
        }
    }

    fn until(to_ms: i64) -> KeyQuestion {
        KeyQuestion {
            to_ms,
            ..question(1)
        }
    }

    fn lookup(index: &KeyIndex, dir: &MemDir, hash: u64) -> Vec<u64> {
        let found = index.view().lookup(dir, &question(hash));
        found.unwrap().iter().map(|at| at.0).collect()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append(Vec<u64>),
        Seal(bool),
        Merge,
        Retain(u8),
        Reload,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => prop::collection::vec(0..20u64, 1..40).prop_map(Op::Append),
            6 => any::<u8>().prop_map(|n| Op::Seal(n > 40)),
            2 => Just(Op::Merge),
            1 => any::<u8>().prop_map(Op::Retain),
            1 => Just(Op::Reload),
        ]
    }

    proptest! {
        #[test]
        fn any_history_finds_what_a_list_finds(ops in prop::collection::vec(op(), 1..60)) {
            let (mut index, dir) = (KeyIndex::new(LIMITS, LogOffset(0)), MemDir::default());
            let mut list: Vec<(u64, u64)> = Vec::new();
            let (mut next, mut min, mut saved) = (0u64, 0u64, (Vec::new(), 0, 0));
            for op in ops {
                match op {
                    Op::Append(hashes) => for hash in hashes {
                        index.append(hash, LogOffset(next), next as i64);
                        list.push((hash, next));
                        next += 3;
                    },
                    Op::Seal(false) => {
                        if index.seal(LogOffset(next)).is_some() {
                            index.abandoned();
                        }
                    }
                    Op::Seal(true) => {
                        install(&mut index, &dir, next);
                        saved = (names(&mut index), next, list.len());
                    }
                    Op::Merge => merge_all(&mut index, &dir),
                    Op::Retain(part) => {
                        min = min.max(next * u64::from(part) / 1024);
                        index.retain_from(LogOffset(min));
                    }
                    Op::Reload => {
                        dir.crash();
                        let (names, up_to, seen) = &saved;
                        let up_to = LogOffset(*up_to);
                        let (again, bad) = KeyIndex::load(LIMITS, up_to, &dir, names).unwrap();
                        assert_eq!(bad, []);
                        index = again;
                        index.retain_from(LogOffset(min));
                        for (hash, at) in &list[*seen..] {
                            index.append(*hash, LogOffset(*at), *at as i64);
                        }
                    }
                }
            }
            for hash in 0..20 {
                let mut plain: Vec<_> = list.iter().filter(|(h, at)| *h == hash && *at >= min)
                    .map(|(_, at)| *at).collect();
                plain.reverse();
                prop_assert_eq!(lookup(&index, &dir, hash), plain.clone());
                // Three at a time, each time those before the last.
                let (mut three, mut paged) = (KeyQuestion { most: 3, ..question(hash) }, vec![]);
                loop {
                    let found = index.view().lookup(&dir, &three).unwrap();
                    prop_assert!(found.len() <= 3);
                    paged.extend(found.iter().map(|at| at.0));
                    match found.get(2) {
                        Some(last) => three.before = *last,
                        None => break,
                    }
                }
                prop_assert_eq!(paged, plain);
            }
        }
    }

    #[test]
    fn large_runs_merge_in_steps() {
        let (mut index, dir) = (KeyIndex::new(LIMITS, LogOffset(0)), MemDir::default());
        let hash = |number: u64| (number % 50_000).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for number in 0..400_000u64 {
            index.append(hash(number), LogOffset(number), number as i64);
            if (number + 1) % 50_000 == 0 {
                install(&mut index, &dir, number + 1);
            }
        }
        index.retain_from(LogOffset(60_000));
        merge_all(&mut index, &dir);
        let names = names(&mut index);
        assert!(names.len() <= 2, "{names:?}");
        for number in [0, 9_999, 10_000, 49_999] {
            let all = (0..8u64).rev().map(|round| round * 50_000 + number);
            let plain: Vec<_> = all.filter(|at| *at >= 60_000).collect();
            assert_eq!(lookup(&index, &dir, hash(number)), plain);
        }
        let (again, bad) = KeyIndex::load(LIMITS, LogOffset(400_000), &dir, &names).unwrap();
        assert_eq!(bad, []);
        assert_eq!(lookup(&again, &dir, hash(7)).len(), 6);
    }

    #[test]
    fn runs_outside_the_time_are_not_read() {
        let (mut index, dir) = (KeyIndex::new(LIMITS, LogOffset(0)), MemDir::default());
        for number in 0..3u64 {
            index.append(1, LogOffset(number), number as i64 * 1000);
            install(&mut index, &dir, number + 1);
        }
        for name in names(&mut index) {
            dir.remove(&name).unwrap();
        }
        let view = index.view();
        assert!(view.lookup(&dir, &until(-1)).unwrap().is_empty());
        assert!(view.lookup(&dir, &until(10)).is_err());
    }

    #[test]
    fn damage_is_noticed() {
        let (mut index, dir) = (KeyIndex::new(LIMITS, LogOffset(0)), MemDir::default());
        index.append(1, LogOffset(10), 0);
        install(&mut index, &dir, 20);
        let names = names(&mut index);
        dir.damage(&names[0], |bytes| bytes[4096] ^= 1);
        assert!(index.view().lookup(&dir, &until(1)).is_err());
        dir.damage(&names[0], |bytes| bytes[8192] ^= 1);
        let (_, bad) = KeyIndex::load(LIMITS, LogOffset(20), &dir, &names).unwrap();
        assert_eq!(bad[0].range.unwrap().up_to, LogOffset(20));
        dir.remove(&names[0]).unwrap();
        let (_, bad) = KeyIndex::load(LIMITS, LogOffset(20), &dir, &names).unwrap();
        assert_eq!(bad[0].reason, "the file is missing");
    }

    #[test]
    fn keys_in_memory_have_a_limit() {
        let limits = KeyLimits {
            hot_bytes_max: 4 * 64 * 1024,
            ..LIMITS
        };
        let (mut index, dir) = (KeyIndex::new(limits, LogOffset(0)), MemDir::default());
        let mut at = 0;
        while !index.is_full() {
            index.append(at, LogOffset(at), 0);
            at += 1;
        }
        assert!(at <= 4 * 4096 && index.wants_seal());
        install(&mut index, &dir, at);
        assert!(!index.is_full() && index.memory_bytes() < 1000);
    }

    /// Hashes are on disk: these values never change.
    #[test]
    fn hashes_stay() {
        assert_eq!(key_hash("TopicTest", "order-1"), 0x2E49_1132_1BE6_89F3);
        assert_eq!(key_hash("TopicTest", ""), 0x457B_C0B2_CBDA_EF8A);
        assert_ne!(key_hash("a", "b#c"), key_hash("a#b", "c"));
        assert_ne!(key_hash("", "\0"), key_hash("", "\0\0"));
    }
}
