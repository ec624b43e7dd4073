//! Making queue runs: one from a seal, one from several older ones; and the steps of any merge.
//!
//! A merge goes in steps, each a piece of [`Work`](crate::base::disk::Work) that reads and writes
//! some megabytes at most; the caller paces them. Between steps the state is here: how far each
//! input was read, and the rows written so far. A step is a function of that state, so one that
//! failed leaves nothing but a file that no checkpoint names. Blocks of neighbouring runs are
//! joined while they fit; a block is never cut, so its first store time stays exact.
//!
//! Memory of a step: 256 KiB for each input and for the output, beside the rows.

use crate::base::disk::{Dir, FileName};
use crate::base::{DiskError, LogOffset};
use crate::store::entries::{BLOCK_ENTRIES, ENTRY_BYTES, Row};
use crate::store::index;
use crate::store::runs::{ENTRIES_AT, Header, Kind, Run, RunList, RunWriter, damaged};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Entries that a step writes before it ends.
pub const STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Blocks that a step looks at before it ends.
const STEP_BLOCKS: usize = 32 * 1024;
/// Bytes read at a time from an input.
const READ_BYTES: usize = 256 * 1024;

/// Writes queue entries in blocks, gathering the rows.
struct QueueBlocks<'a> {
    writer: RunWriter<'a>,
    rows: Vec<u8>,
    /// The block being filled; none while its count is 0.
    row: Row,
    bytes: Vec<u8>,
}

impl<'a> QueueBlocks<'a> {
    fn resume(dir: &'a dyn Dir, name: &'a str, entries: u64) -> Result<Self, DiskError> {
        let row = Row {
            number: u32::try_from(entries).expect("inputs fit a run together"),
            ..Row::default()
        };
        Ok(QueueBlocks {
            writer: RunWriter::resume(dir, name, entries * ENTRY_BYTES as u64)?,
            rows: Vec::new(),
            row,
            bytes: Vec::with_capacity(BLOCK_ENTRIES * ENTRY_BYTES),
        })
    }

    /// Adds a piece of at most a block, in the order of slot and offset.
    fn append(
        &mut self,
        slot: u32,
        first: u64,
        first_ms: i64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let count = bytes.len() / ENTRY_BYTES;
        assert!((1..=BLOCK_ENTRIES).contains(&count), "pieces fit a block");
        let follows = (self.row.slot, self.row.end()) == (slot, first);
        if !follows || self.row.count as usize + count > BLOCK_ENTRIES {
            self.end_block()?;
        }
        if self.row.count == 0 {
            (self.row.slot, self.row.first, self.row.first_ms) = (slot, first, first_ms);
        }
        self.row.count += count as u32;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), DiskError> {
        if self.row.count > 0 {
            self.row.crc = crc32fast::hash(&self.bytes);
            self.row.encode(&mut self.rows);
            self.writer.append(&self.bytes)?;
            self.bytes.clear();
            self.row.number += self.row.count;
            self.row.count = 0;
        }
        Ok(())
    }
}

/// A seal's entries on their way into a run. [`write`](RunDraft::write) it in a
/// [`Work`](crate::base::disk::Work), then hand the result to the index that sealed.
pub struct RunDraft {
    header: Header,
    parts: Vec<DraftPart>,
}

/// A chunk as it was sealed.
pub struct DraftPart {
    pub slot: u32,
    pub first: u64,
    pub first_ms: i64,
    pub entries: Bytes,
}

impl RunDraft {
    /// `header` knows everything but the blocks.
    pub fn new(header: Header, parts: Vec<DraftPart>) -> RunDraft {
        RunDraft { header, parts }
    }

    pub fn name(&self) -> FileName {
        self.header.name()
    }

    /// Writes and syncs the run in one sequential pass; gives its directory.
    pub fn write(mut self, dir: &dyn Dir) -> Result<Vec<u8>, DiskError> {
        self.parts
            .sort_unstable_by_key(|part| (part.slot, part.first));
        let name = self.name();
        let mut blocks = QueueBlocks::resume(dir, &name, 0)?;
        for part in &self.parts {
            blocks.append(part.slot, part.first, part.first_ms, &part.entries)?;
        }
        blocks.end_block()?;
        let header = self.header.with_directory(blocks.rows.len());
        blocks.writer.finish(&header, &blocks.rows)?;
        Ok(blocks.rows)
    }
}

/// What a merge carries over.
#[derive(Clone)]
pub enum Keep {
    /// For each slot its first offset of use, and the log offset its queue was born at.
    Queues(Arc<[(u64, LogOffset)]>),
    /// Entries at this log offset or beyond.
    Keys(LogOffset),
}

impl Keep {
    fn queue_row(&self, row: &Row, input: &Run) -> bool {
        match self {
            Keep::Queues(slots) => slots
                .get(row.slot as usize)
                .is_some_and(|(min, born)| *min < row.end() && *born < input.header.range.up_to),
            Keep::Keys(_) => unreachable!("a queue merge keeps by queue"),
        }
    }
}

/// A merge under way, one at a time for each index.
pub struct Merge {
    plan: Plan,
    /// A step was handed out.
    busy: bool,
    /// An input went bad meanwhile; the result is not wanted.
    cancelled: bool,
}

/// The state between steps.
#[derive(Clone)]
pub struct Plan {
    pub inputs: Arc<[Run]>,
    pub output: Header,
    pub keep: Keep,
    /// How far each input is used up: blocks of a queue run, entries of a key run.
    pub used: Vec<u64>,
    /// Directory of what is written.
    pub rows: Vec<Bytes>,
}

/// A piece of a merge, to be [`run`](Step::run) in a [`Work`](crate::base::disk::Work).
pub struct Step(Plan);

impl Merge {
    /// Begins merging the runs at `range`.
    pub fn new(list: &mut RunList, range: Range<usize>, keep: Keep) -> Merge {
        let output = list.merged_header(&range);
        let inputs: Arc<[Run]> = list.runs()[range].into();
        Merge {
            plan: Plan {
                used: vec![0; inputs.len()],
                inputs,
                output,
                keep,
                rows: Vec::new(),
            },
            busy: false,
            cancelled: false,
        }
    }

    /// The next step, unless one is under way.
    pub fn step(&mut self) -> Option<Step> {
        if self.busy {
            return None;
        }
        self.busy = true;
        Some(Step(self.plan.clone()))
    }

    /// Takes a step's result; the run once it is whole.
    pub fn stepped(&mut self, result: Vec<u8>) -> Option<Run> {
        assert!(self.busy, "a result belongs to a step");
        self.busy = false;
        let mut result = Bytes::from(result);
        let mut number = || bytes::Buf::get_u64(&mut result);
        let done = number() == 1;
        self.plan.output.entries = number();
        for used in &mut self.plan.used {
            *used = number();
        }
        if done {
            let output = self.plan.output.with_directory(result.len());
            return Some(Run::new(output, result));
        }
        self.plan.rows.push(result);
        None
    }

    /// Ends a merge of which the result is not wanted any more: at once, or when the step that is
    /// under way comes back.
    pub fn cancel(merge: &mut Option<Merge>, list: &mut RunList) {
        match merge {
            Some(running) if running.busy => running.cancelled = true,
            Some(_) => Merge::fail(merge, list),
            None => {}
        }
    }

    /// Hands the result of a step to the merge in `merge` and installs what is finished.
    pub fn advance(merge: &mut Option<Merge>, list: &mut RunList, result: Vec<u8>) {
        let running = merge.as_mut().expect("a merge was under way");
        let finished = running.stepped(result);
        if running.cancelled {
            Merge::fail(merge, list);
        } else if let Some(run) = finished {
            *merge = None;
            list.replace(run);
        }
    }

    /// Gives a merge up after a step failed; its inputs stay.
    pub fn fail(merge: &mut Option<Merge>, list: &mut RunList) {
        let failed = merge.take().expect("a merge was under way");
        list.discard(failed.plan.output.name());
    }

    pub fn memory_bytes(&self) -> usize {
        let rows: usize = self.plan.rows.iter().map(Bytes::len).sum();
        let keep = match &self.plan.keep {
            Keep::Queues(slots) => size_of_val(&**slots),
            Keep::Keys(_) => 0,
        };
        rows + keep
    }
}

impl Step {
    /// Reads, verifies and writes the next piece; the last one completes and syncs the file.
    pub fn run(self, dir: &dyn Dir) -> Result<Vec<u8>, DiskError> {
        let mut plan = self.0;
        let name = plan.output.name();
        let (writer, rows) = match plan.output.kind {
            Kind::Queue => merge_queues(dir, &name, &mut plan)?,
            Kind::Key => index::merge_keys(dir, &name, &mut plan)?,
        };
        let done = plan.exhausted();
        let mut result = u64::from(done).to_be_bytes().to_vec();
        result.extend_from_slice(&plan.output.entries.to_be_bytes());
        for used in &plan.used {
            result.extend_from_slice(&used.to_be_bytes());
        }
        let start = result.len();
        if done {
            plan.rows
                .iter()
                .for_each(|part| result.extend_from_slice(part));
        }
        result.extend_from_slice(&rows);
        match done {
            true => {
                let output = plan.output.with_directory(result.len() - start);
                writer.finish(&output, &result[start..])?;
            }
            // Little by little: one sync of the whole file at the end would hold up the log's.
            false => writer.sync()?,
        }
        Ok(result)
    }
}

impl Plan {
    fn exhausted(&self) -> bool {
        let whole = |run: &Run| match run.header.kind {
            Kind::Queue => run.blocks() as u64,
            Kind::Key => run.header.entries,
        };
        self.inputs.iter().map(whole).eq(self.used.iter().copied())
    }
}

/// Carries blocks over, ordered by slot and then by age of the run, which is offset order.
fn merge_queues<'a>(
    dir: &'a dyn Dir,
    name: &'a str,
    plan: &mut Plan,
) -> Result<(RunWriter<'a>, Vec<u8>), DiskError> {
    let mut blocks = QueueBlocks::resume(dir, name, plan.output.entries)?;
    let mut readers: Vec<_> = plan
        .inputs
        .iter()
        .map(|run| Reader::new(dir, run))
        .collect();
    let head = |at: usize, used: &[u64]| {
        let index = used[at] as usize;
        let run = &plan.inputs[at];
        (index < run.blocks()).then(|| Row::decode(run.row(index)))
    };
    let mut heads: Vec<_> = (0..plan.inputs.len())
        .map(|at| head(at, &plan.used))
        .collect();
    let mut copied = 0;
    for _ in 0..STEP_BLOCKS {
        let slots = heads.iter().enumerate();
        let slots = slots.filter_map(|(at, row)| Some((row.as_ref()?.slot, at)));
        let Some((_, at)) = slots.min() else {
            break;
        };
        let row = heads[at].expect("the least of the heads");
        if plan.keep.queue_row(&row, &plan.inputs[at]) {
            let start = u64::from(row.number) * ENTRY_BYTES as u64;
            let bytes = readers[at].read(start, row.count as usize * ENTRY_BYTES, row.crc)?;
            blocks.append(row.slot, row.first, row.first_ms, bytes)?;
            copied += bytes.len() as u64;
        }
        plan.used[at] += 1;
        heads[at] = head(at, &plan.used);
        if copied >= STEP_BYTES {
            break;
        }
    }
    blocks.end_block()?;
    plan.output.entries = u64::from(blocks.row.number);
    Ok((blocks.writer, blocks.rows))
}

/// Reads the entries of a run, front to back some blocks at a time or single ones.
pub struct Reader<'a> {
    dir: &'a dyn Dir,
    run: &'a Run,
    /// Entry bytes held, and where they begin.
    held: Vec<u8>,
    at: u64,
    /// Read at least so much.
    read_bytes: usize,
}

impl<'a> Reader<'a> {
    pub fn new(dir: &'a dyn Dir, run: &'a Run) -> Reader<'a> {
        Reader {
            dir,
            run,
            held: Vec::new(),
            at: 0,
            read_bytes: READ_BYTES,
        }
    }

    /// For blocks here and there.
    pub fn of_single_blocks(dir: &'a dyn Dir, run: &'a Run) -> Reader<'a> {
        Reader {
            read_bytes: 0,
            ..Reader::new(dir, run)
        }
    }

    /// The block at `at` within the entries, verified.
    pub fn read(&mut self, at: u64, len: usize, crc: u32) -> Result<&[u8], DiskError> {
        let end = at + len as u64;
        if at < self.at || self.at + (self.held.len() as u64) < end {
            let header = &self.run.header;
            let whole = header.entries * header.kind.entry_bytes() as u64;
            let rest = whole.saturating_sub(at).min(self.read_bytes as u64) as usize;
            self.held.resize(rest.max(len), 0);
            let read = self
                .dir
                .read_at(&self.run.name, ENTRIES_AT + at, &mut self.held)?;
            self.held.truncate(read);
            self.at = at;
        }
        let start = (at - self.at) as usize;
        let block = self.held.get(start..start + len);
        match block.filter(|block| crc32fast::hash(block) == crc) {
            Some(block) => Ok(block),
            None => Err(damaged(&self.run.name, "a block's CRC does not match")),
        }
    }
}
