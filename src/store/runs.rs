//! Run files: sorted, immutable pieces of the queue index and of the key index, and the list of
//! those that count.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4096 | header, 64 bytes used, zero beyond; written last |
//! | 4096.. | entries, in blocks one behind the other |
//! | next multiple of 4096 | directory: one row for each block |
//!
//! Every block has a CRC-32 in its row, the directory has one in the header, the header has its
//! own: no byte of a run is believed unchecked. A run covers a range of the log; the runs of a list
//! are ordered by it and never overlap. A file counts only once a checkpoint names it, so a torn or
//! half merged one is merely an orphan. Never here: deleting files, reading entries, what a row or
//! an entry means (`consumequeue`, `index`).

use crate::base::cursor::Cursor;
use crate::base::disk::{BLOCK_BYTES, Dir, DirEntry, FileName};
use crate::base::{DiskError, LogOffset};
use crate::store::{entries, index};
use bytes::Bytes;
use std::ops::Range;

/// Where the runs live, below the shard's directory.
pub const FOLDER: &str = "index";
/// Where entries begin: behind the header.
pub const ENTRIES_AT: u64 = BLOCK_BYTES as u64;
/// Runs of one level that become one run of the next.
pub const FAN_IN: usize = 8;
/// Runs of this level are merged no further by count; one covers some 4,096 checkpoints.
const LEVEL_MAX: u8 = 4;
/// Rows name entries by a 32-bit number, so a run holds no more.
const ENTRIES_MAX: u64 = u32::MAX as u64;
/// Bytes gathered before a write.
const WRITE_BYTES: usize = 256 * 1024;

const MAGIC: u32 = 0x4F51_4958; // "OQIX"
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;

/// Which index a run belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Queue,
    Key,
}

impl Kind {
    pub const fn entry_bytes(self) -> usize {
        match self {
            Kind::Queue => 20,
            Kind::Key => 16,
        }
    }

    pub const fn row_bytes(self) -> usize {
        match self {
            Kind::Queue => 32,
            Kind::Key => 16,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Kind::Queue => 1,
            Kind::Key => 2,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Kind::Queue => "queue",
            Kind::Key => "key",
        }
    }
}

/// A stretch of the log: `from..up_to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRange {
    pub from: LogOffset,
    pub up_to: LogOffset,
}

/// What a run says about itself. Sizes and places follow from the counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    /// 0 as sealed; a merge of [`FAN_IN`] runs is one higher.
    pub level: u8,
    /// Counts the runs of a list, so that no file is ever written under a name that is waiting to
    /// be removed.
    pub generation: u32,
    pub range: LogRange,
    /// Store time of the first record in it, milliseconds since 1970; the last one's is not later
    /// than the next run's first.
    pub first_ms: i64,
    pub entries: u64,
    pub blocks: u32,
}

impl Header {
    /// Of a run made by a seal, its blocks not counted yet.
    pub fn sealed(list: &mut RunList, range: LogRange, first_ms: i64, entries: u64) -> Header {
        assert!(
            entries <= ENTRIES_MAX,
            "a seal is far smaller than a run may be"
        );
        Header {
            kind: list.kind,
            level: 0,
            generation: list.next_generation(),
            range,
            first_ms,
            entries,
            blocks: 0,
        }
    }

    /// The header once the blocks are known.
    pub fn with_directory(self, directory_bytes: usize) -> Header {
        let blocks = directory_bytes / self.kind.row_bytes();
        Header {
            blocks: u32::try_from(blocks).expect("no more blocks than entries"),
            ..self
        }
    }

    pub fn directory_at(&self) -> u64 {
        let end = ENTRIES_AT + self.entries * self.kind.entry_bytes() as u64;
        end.next_multiple_of(BLOCK_BYTES as u64)
    }

    pub fn directory_bytes(&self) -> usize {
        self.blocks as usize * self.kind.row_bytes()
    }

    /// The name says what the run covers, so that a run whose header is lost can be rebuilt.
    pub fn name(&self) -> FileName {
        let (from, up_to) = (self.range.from.0, self.range.up_to.0);
        let (word, generation) = (self.kind.word(), self.generation);
        format!("{FOLDER}/{word}-{from:020}-{up_to:020}-{generation}").into()
    }

    fn encode(&self, directory_crc: u32) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[self.kind.code(), self.level]);
        out.extend_from_slice(&self.range.from.0.to_be_bytes());
        out.extend_from_slice(&self.range.up_to.0.to_be_bytes());
        out.extend_from_slice(&self.first_ms.to_be_bytes());
        out.extend_from_slice(&self.entries.to_be_bytes());
        out.extend_from_slice(&self.blocks.to_be_bytes());
        out.extend_from_slice(&directory_crc.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.try_into().expect("the fields add up to the header")
    }

    /// The header and the directory's CRC; the reason if it is not one.
    fn decode(bytes: &[u8], kind: Kind) -> Result<(Header, u32), &'static str> {
        let short = "header cut short";
        let mut cursor = Cursor::new(bytes);
        let covered = cursor.bytes(HEADER_BYTES - 4).ok_or(short)?;
        if cursor.u32() != Some(crc32fast::hash(covered)) {
            return Err("header CRC does not match");
        }
        let mut cursor = Cursor::new(covered);
        if (cursor.u32(), cursor.u16()) != (Some(MAGIC), Some(VERSION)) {
            return Err("not a run of this format version");
        }
        if cursor.u8() != Some(kind.code()) {
            return Err("a run of another kind");
        }
        let mut fields = || {
            let header = Header {
                kind,
                level: cursor.u8()?,
                generation: 0,
                range: LogRange {
                    from: LogOffset(cursor.u64()?),
                    up_to: LogOffset(cursor.u64()?),
                },
                first_ms: cursor.i64()?,
                entries: cursor.u64()?,
                blocks: cursor.u32()?,
            };
            let directory_crc = cursor.u32()?;
            let generation = cursor.u32()?;
            Some((
                Header {
                    generation,
                    ..header
                },
                directory_crc,
            ))
        };
        let (header, directory_crc) = fields().ok_or(short)?;
        if header.entries > ENTRIES_MAX || u64::from(header.blocks) > header.entries {
            return Err("header counts are impossible");
        }
        Ok((header, directory_crc))
    }
}

/// A run as it is kept in memory: its directory stays encoded and is read in place, so installing
/// a large run costs the shard thread nothing.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: FileName,
    pub header: Header,
    pub directory: Bytes,
}

impl Run {
    pub fn new(header: Header, directory: Bytes) -> Run {
        assert_eq!(directory.len(), header.directory_bytes(), "a row per block");
        Run {
            name: header.name(),
            header,
            directory,
        }
    }

    pub fn blocks(&self) -> usize {
        self.header.blocks as usize
    }

    /// Row `index` of the directory, which is below [`blocks`](Self::blocks).
    pub fn row(&self, index: usize) -> &[u8] {
        let bytes = self.header.kind.row_bytes();
        &self.directory[index * bytes..(index + 1) * bytes]
    }

    /// The number of leading rows for which `before` holds, as `slice::partition_point`.
    pub fn partition_point(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = low + (high - low) / 2;
            match before(self.row(middle)) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// Reads header and directory, not the entries. `Ok(Err(reason))` if the run cannot be used.
    pub fn load(dir: &dyn Dir, name: &str, kind: Kind) -> Result<Result<Run, Bad>, DiskError> {
        let mut head = [0; HEADER_BYTES];
        let bad = |reason| Ok(Err(Bad::new(name, reason)));
        let listed = dir.list(FOLDER)?;
        let path = |file: &DirEntry| format!("{FOLDER}/{}", file.name);
        if !listed.iter().any(|file| path(file) == name) {
            return bad("the file is missing");
        }
        let read = dir.read_at(name, 0, &mut head)?;
        let (header, crc) = match Header::decode(&head[..read], kind) {
            Ok(decoded) => decoded,
            Err(reason) => return bad(reason),
        };
        if *header.name() != *name {
            return bad("header and name do not agree");
        }
        let mut directory = vec![0; header.directory_bytes()];
        let read = dir.read_at(name, header.directory_at(), &mut directory)?;
        if read < directory.len() || crc32fast::hash(&directory) != crc {
            return bad("directory CRC does not match");
        }
        let run = Run::new(header, directory.into());
        let checked = match kind {
            Kind::Queue => entries::check_directory(&run),
            Kind::Key => index::check_directory(&run),
        };
        Ok(checked.map(|()| run).map_err(|why| Bad::new(name, why)))
    }
}

/// A run that cannot be used, and the part of the log it can be rebuilt from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bad {
    pub name: String,
    /// `None` if not even the name is one of ours.
    pub range: Option<LogRange>,
    pub reason: &'static str,
}

impl Bad {
    pub fn new(name: &str, reason: &'static str) -> Bad {
        let range = numbers(name).map(|(range, _)| range);
        Bad {
            name: name.to_owned(),
            range,
            reason,
        }
    }
}

/// Range and generation from a run's name.
fn numbers(name: &str) -> Option<(LogRange, u32)> {
    let mut parts = name.rsplit('-');
    let generation = parts.next()?.parse().ok()?;
    let up_to = LogOffset(parts.next()?.parse().ok()?);
    let from = LogOffset(parts.next()?.parse().ok()?);
    Some((LogRange { from, up_to }, generation))
}

/// An error that names a damaged run.
pub fn damaged(name: &str, reason: &str) -> DiskError {
    DiskError {
        file: name.to_owned(),
        doing: "verify",
        reason: reason.to_owned(),
        full: false,
    }
}

/// Writes a run front to back through a small buffer.
pub struct RunWriter<'a> {
    dir: &'a dyn Dir,
    name: &'a str,
    at: u64,
    buffer: Vec<u8>,
}

impl<'a> RunWriter<'a> {
    /// Continues behind the first `entries_bytes` of entries; at 0 it begins a fresh file.
    pub fn resume(
        dir: &'a dyn Dir,
        name: &'a str,
        entries_bytes: u64,
    ) -> Result<RunWriter<'a>, DiskError> {
        if entries_bytes == 0 {
            dir.remove(name)?; // an orphan of an earlier life
        }
        Ok(RunWriter {
            dir,
            name,
            at: ENTRIES_AT + entries_bytes,
            buffer: Vec::with_capacity(WRITE_BYTES),
        })
    }

    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), DiskError> {
        while !bytes.is_empty() {
            let room = WRITE_BYTES - self.buffer.len();
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(head);
            bytes = rest;
            if self.buffer.len() == WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if !self.buffer.is_empty() {
            self.dir.write_at(self.name, self.at, &self.buffer)?;
            self.at += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Everything so far reaches the disk, though it does not count yet.
    pub fn sync(mut self) -> Result<(), DiskError> {
        self.flush()?;
        self.dir.sync(self.name)
    }

    /// Directory, then header, then sync: from here on the file is whole.
    pub fn finish(mut self, header: &Header, directory: &[u8]) -> Result<(), DiskError> {
        assert_eq!(directory.len(), header.directory_bytes(), "a row per block");
        self.flush()?;
        self.pad_to(header.directory_at())?;
        self.append(directory)?;
        self.flush()?;
        self.pad_to(self.at.next_multiple_of(BLOCK_BYTES as u64))?;
        self.flush()?;
        let mut first = vec![0; BLOCK_BYTES];
        first[..HEADER_BYTES].copy_from_slice(&header.encode(crc32fast::hash(directory)));
        self.dir.write_at(self.name, 0, &first)?;
        self.dir.sync(self.name)
    }

    fn pad_to(&mut self, end: u64) -> Result<(), DiskError> {
        assert!(self.buffer.is_empty() && self.at <= end, "padding follows");
        let missing = (end - self.at) as usize;
        self.append(&[0; BLOCK_BYTES][..missing])
    }
}

/// The runs that count, oldest first.
pub struct RunList {
    kind: Kind,
    runs: Vec<Run>,
    /// Of the newest run that was begun.
    generation: u32,
    /// Replaced or outlived, still named by the last checkpoint.
    obsolete: Vec<FileName>,
}

/// What a checkpoint writes down, and what it makes superfluous.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    pub names: Vec<FileName>,
    /// Files to remove, but only once no checkpoint that may still be used names them.
    pub obsolete: Vec<FileName>,
}

impl RunList {
    pub fn new(kind: Kind) -> RunList {
        RunList {
            kind,
            runs: Vec::new(),
            generation: 0,
            obsolete: Vec::new(),
        }
    }

    /// Loads what a checkpoint names. Runs that cannot be used are left out and reported; the
    /// error is for a disk that does not answer.
    pub fn load(
        kind: Kind,
        dir: &dyn Dir,
        names: &[String],
    ) -> Result<(RunList, Vec<Bad>), DiskError> {
        let mut list = RunList::new(kind);
        let mut bad = Vec::new();
        for name in names {
            let generation = numbers(name).map_or(0, |(_, generation)| generation);
            list.generation = list.generation.max(generation);
            match Run::load(dir, name, kind)? {
                Ok(run) if list.has_room_for(run.header.range) => list.insert(run),
                Ok(_) => bad.push(Bad::new(name, "overlaps another run")),
                Err(found) => bad.push(found),
            }
        }
        Ok((list, bad))
    }

    /// A list for runs that stand in for rejected ones of this list.
    pub fn stand_in(&self) -> RunList {
        RunList {
            generation: self.generation,
            ..RunList::new(self.kind)
        }
    }

    /// Takes over the runs of a stand-in.
    pub fn adopt(&mut self, stand_in: RunList) {
        self.generation = self.generation.max(stand_in.generation);
        self.obsolete.extend(stand_in.obsolete);
        stand_in.runs.into_iter().for_each(|run| self.insert(run));
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.checked_add(1).expect("runs are far fewer");
        self.generation
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub fn directory_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.directory.len()).sum()
    }

    fn has_room_for(&self, range: LogRange) -> bool {
        let apart = |run: &Run| {
            let other = run.header.range;
            other.up_to <= range.from || range.up_to <= other.from
        };
        range.from < range.up_to && self.runs.iter().all(apart)
    }

    /// Takes a run of which the log range is not covered yet.
    pub fn insert(&mut self, run: Run) {
        assert_eq!(run.header.kind, self.kind);
        assert!(self.has_room_for(run.header.range), "runs do not overlap");
        let from = run.header.range.from;
        let place = self.runs.partition_point(|r| r.header.range.from < from);
        self.runs.insert(place, run);
    }

    /// Puts a merged run in the place of those it was made of. Some of them may have been retained
    /// away meanwhile; if all were, the merged run is superfluous too.
    pub fn replace(&mut self, merged: Run) {
        let range = merged.header.range;
        let inside = |run: &Run| {
            range.from <= run.header.range.from && run.header.range.up_to <= range.up_to
        };
        let before = self.runs.len();
        for run in self.runs.extract_if(.., |run| inside(run)) {
            self.obsolete.push(run.name);
        }
        match before == self.runs.len() || merged.header.entries == 0 {
            true => self.obsolete.push(merged.name),
            false => self.insert(merged),
        }
    }

    /// Has a file removed that is not wanted.
    pub fn discard(&mut self, name: FileName) {
        self.obsolete.push(name);
    }

    /// Drops runs of which the log has nothing left, giving them to `each`.
    pub fn retain_from(&mut self, min: LogOffset, mut each: impl FnMut(&Run)) {
        for run in self
            .runs
            .extract_if(.., |run| run.header.range.up_to <= min)
        {
            each(&run);
            self.obsolete.push(run.name);
        }
    }

    /// Takes a run out that was found damaged; it can be rebuilt from the range in the answer.
    pub fn reject(&mut self, name: &str, reason: &'static str) -> Option<Bad> {
        let place = self.runs.iter().position(|run| *run.name == *name)?;
        let run = self.runs.remove(place);
        self.obsolete.push(run.name);
        Some(Bad::new(name, reason))
    }

    /// For the checkpoint being made now.
    pub fn listing(&mut self) -> Listing {
        Listing {
            names: self.runs.iter().map(|run| run.name.clone()).collect(),
            obsolete: std::mem::take(&mut self.obsolete),
        }
    }

    /// Neighbours worth merging: [`FAN_IN`] of one level, or, when directories take more than
    /// `directory_bytes_max`, the newest stretch in which no run dwarfs the rest.
    pub fn pick(&self, directory_bytes_max: usize) -> Option<Range<usize>> {
        let level = |at: usize| self.runs[at].header.level;
        let mut best: Option<Range<usize>> = None;
        for start in 0..self.runs.len().saturating_sub(FAN_IN - 1) {
            let range = start..start + FAN_IN;
            let same = range.clone().all(|at| level(at) == level(start));
            let lower = best.as_ref().is_none_or(|b| level(start) < level(b.start));
            if same && lower && level(start) < LEVEL_MAX && self.fits(&range) {
                best = Some(range);
            }
        }
        best.or_else(|| self.pick_for_memory(directory_bytes_max))
    }

    fn pick_for_memory(&self, directory_bytes_max: usize) -> Option<Range<usize>> {
        if self.directory_bytes() <= directory_bytes_max {
            return None;
        }
        let stretch = |end: usize| {
            let mut start = end - 1;
            let mut bytes = self.runs[start].directory.len();
            while start > 0 && end - start < FAN_IN && self.fits(&(start - 1..end)) {
                let next = self.runs[start - 1].directory.len();
                if next > bytes.saturating_mul(4) {
                    break;
                }
                bytes += next;
                start -= 1;
            }
            start..end
        };
        let mut newest_first = (2..=self.runs.len()).rev().map(stretch);
        newest_first.find(|range| range.len() >= 2)
    }

    fn fits(&self, range: &Range<usize>) -> bool {
        let entries = |run: &Run| run.header.entries;
        self.runs[range.clone()].iter().map(entries).sum::<u64>() <= ENTRIES_MAX
    }

    /// The header of what `range` becomes, counts still zero.
    pub fn merged_header(&mut self, range: &Range<usize>) -> Header {
        let generation = self.next_generation();
        let inputs = &self.runs[range.clone()];
        let (first, last) = (inputs[0].header, inputs[inputs.len() - 1].header);
        let highest = inputs.iter().map(|run| run.header.level).max();
        let level = highest.expect("a merge has inputs");
        let grown = inputs.len() == FAN_IN && first.level == last.level;
        Header {
            kind: self.kind,
            level: level + u8::from(grown && level < LEVEL_MAX),
            generation,
            range: LogRange {
                from: first.range.from,
                up_to: last.range.up_to,
            },
            first_ms: first.first_ms,
            entries: 0,
            blocks: 0,
        }
    }
}

/// Files in the index folder that no list in `names` holds: left by a crash, safe to remove before
/// anything else is written.
pub fn orphans(dir: &dyn Dir, names: &[&str]) -> Result<Vec<String>, DiskError> {
    let paths = dir.list(FOLDER)?.into_iter();
    let paths = paths.map(|file| format!("{FOLDER}/{}", file.name));
    Ok(paths
        .filter(|path| !names.contains(&path.as_str()))
        .collect())
}
