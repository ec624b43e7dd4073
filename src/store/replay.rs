//! Reads a log forward, batch by batch, and knows where it ends.
//!
//! A log ends at the first place where no batch follows that keeps every rule: ours by magic,
//! shard, store and place; whole by its checksum; chained to its predecessor; of the same life of
//! the log or a later one. What lies beyond was never promised to anybody, with one exception that
//! is damage and not an end: a batch further on that says so (`batch::BatchHeader::durable`).

use crate::base::disk::{BLOCK_BYTES, Dir, DiskError};
use crate::base::{LogOffset, Map, Set};
use crate::store::Sabotage;
use crate::store::batch::{BATCH_BYTES_MAX, BatchHeader, HEADER_BYTES, Lineage, MAGIC, checksum};
use crate::store::commitlog::LogEnd;
use crate::store::segment::{FOLDER, file_name, first_offset};

/// Read ahead of the walk.
const BUFFER_BYTES: usize = 1024 * 1024;
const MAGIC_BYTES: usize = 4;
/// How far beyond the end a later batch is looked for: behind the largest one.
const BEYOND_BYTES: usize = BATCH_BYTES_MAX + 2 * BLOCK_BYTES;

/// A walk over the batches of a log.
pub struct Replay<'d> {
    dir: &'d dyn Dir,
    segment_bytes: u64,
    segments: Set<u64>,
    buffer: Vec<u8>,
    buffered: LogOffset,
    lineage: Lineage,
    end: LogEnd,
    /// False for a log whose beginning is gone: the first batch chains to nothing we know.
    chained: bool,
    /// Batches that may be missing in the files.
    kept: Map<LogOffset, (BatchHeader, Vec<u8>)>,
    sabotage: Sabotage,
}

impl<'d> Replay<'d> {
    /// A walk of the log `lineage` that starts behind the batch `from`. A batch of an earlier life
    /// than its predecessor's ends the log.
    pub fn new(
        dir: &'d dyn Dir,
        segment_bytes: u64,
        lineage: Lineage,
        from: LogEnd,
        sabotage: Sabotage,
    ) -> Result<Self, DiskError> {
        let listed = dir.list(FOLDER)?;
        let segments = listed
            .iter()
            .filter_map(|entry| Some(first_offset(&entry.name)?.0));
        Ok(Replay {
            dir,
            segment_bytes,
            segments: segments.collect(),
            buffer: Vec::new(),
            buffered: LogOffset(0),
            lineage: lineage.in_life(from.life),
            end: from,
            chained: true,
            kept: Map::default(),
            sabotage,
        })
    }

    /// A walk over everything there is, from the oldest segment on.
    pub fn from_oldest(
        dir: &'d dyn Dir,
        segment_bytes: u64,
        lineage: Lineage,
        sabotage: Sabotage,
    ) -> Result<Self, DiskError> {
        let from = LogEnd::default();
        let mut replay = Replay::new(dir, segment_bytes, lineage, from, sabotage)?;
        let oldest = replay.segments.iter().min().copied().unwrap_or(0);
        replay.end.end = LogOffset(oldest);
        replay.chained = oldest == 0;
        Ok(replay)
    }

    /// A walk that starts between two batches of which nothing is known.
    pub fn from_middle(
        dir: &'d dyn Dir,
        segment_bytes: u64,
        lineage: Lineage,
        at: LogOffset,
    ) -> Result<Self, DiskError> {
        let from = LogEnd {
            end: at,
            ..LogEnd::default()
        };
        let mut replay = Replay::new(dir, segment_bytes, lineage, from, Sabotage::None)?;
        replay.chained = false;
        Ok(replay)
    }

    /// Looks among these, too, from here on.
    pub fn with_kept(mut self, kept: Map<LogOffset, (BatchHeader, Vec<u8>)>) -> Self {
        self.kept = kept;
        self
    }

    /// Where the walk stands: behind the last batch given.
    pub fn end(&self) -> LogEnd {
        self.end
    }

    /// Epoch and incarnation of the last batch given.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The next batch with its records, or `None` at the end of the log.
    pub fn next_batch(&mut self) -> Result<Option<(BatchHeader, Vec<u8>)>, DiskError> {
        for at in self.places() {
            if let Some((header, batch)) = self.batch_at(at)?
                && self.follows(&header)
            {
                self.pass(&header);
                return Ok(Some((header, batch)));
            }
        }
        Ok(None)
    }

    /// The next batch of those that were kept, where the files have none. Its place is in a file.
    pub fn next_kept(&mut self) -> Option<(BatchHeader, Vec<u8>)> {
        let places = self.places();
        let at = places.into_iter().find(|at| {
            let kept = self.kept.get(at);
            let there = self.segments.contains(&(at.0 - at.0 % self.segment_bytes));
            there && kept.is_some_and(|(header, _)| self.follows(header))
        })?;
        let (header, batch) = self.kept.remove(&at)?;
        self.pass(&header);
        // What was read ahead is no longer so.
        self.buffer.clear();
        Some((header, batch))
    }

    /// Where the next batch may begin.
    fn places(&self) -> Vec<LogOffset> {
        let end = self.end.end;
        let block = LogOffset(end.0.next_multiple_of(BLOCK_BYTES as u64));
        let segment = LogOffset(end.0.next_multiple_of(self.segment_bytes));
        let mut places = vec![end, block, segment];
        places.dedup();
        places
    }

    fn pass(&mut self, header: &BatchHeader) {
        self.end = LogEnd {
            end: LogOffset(header.at.0 + u64::from(header.bytes)),
            crc: header.crc,
            last_ms: header.first_ms + i64::from(header.span_ms),
            life: header.lineage.life(),
        };
        self.lineage = header.lineage;
        self.chained = true;
    }

    /// A whole batch of this log that stands at `at`, whatever it is chained to.
    fn batch_at(&mut self, at: LogOffset) -> Result<Option<(BatchHeader, Vec<u8>)>, DiskError> {
        let Some(head) = self.bytes(at, HEADER_BYTES)? else {
            return Ok(None);
        };
        let Some(header) = BatchHeader::decode(head) else {
            return Ok(None);
        };
        let (shard, store_id) = (self.lineage.shard, self.lineage.store_id);
        if header.at != at || !header.is_sound(shard, store_id) {
            return Ok(None);
        }
        let Some(batch) = self.bytes(at, header.bytes as usize)? else {
            return Ok(None);
        };
        let whole = checksum(batch) == header.crc;
        Ok(whole.then(|| (header, batch.to_vec())))
    }

    fn follows(&self, header: &BatchHeader) -> bool {
        if self.sabotage == Sabotage::AcceptStaleTail {
            return true;
        }
        let later = header.lineage.life() >= self.lineage.life();
        later && (!self.chained || header.previous_crc == self.end.crc)
    }

    /// After the end: how far the log had been promised to be durable, by a later batch of it.
    /// Then the log does not end here, it is damaged.
    pub fn promised_beyond(&mut self) -> Result<Option<LogOffset>, DiskError> {
        let end = self.end.end;
        let mut promised = None;
        let mut at = end;
        while at.0 < end.0 + BEYOND_BYTES as u64 {
            let segment_end = (at.0 + 1).next_multiple_of(self.segment_bytes);
            let step = (segment_end - at.0).min(BUFFER_BYTES as u64) as usize;
            let Some(bytes) = self.bytes(at, step)? else {
                break;
            };
            for place in find_magic(bytes)
                .into_iter()
                .map(|found| at.0 + found as u64)
            {
                if let Some((header, _)) = self.batch_at(LogOffset(place))?
                    && header.durable > end
                {
                    promised = promised.max(Some(header.durable));
                }
            }
            at.0 += overlap(step, at.0 + (step as u64) < segment_end);
        }
        Ok(promised)
    }

    /// Salvage: steps over what is unusable to the next whole batch of this log, wherever it is,
    /// and lets the walk go on there. Gives its place; `None` if there is none.
    pub fn skip_damage(&mut self) -> Result<Option<LogOffset>, DiskError> {
        let mut at = self.end.end;
        let last = self
            .segments
            .iter()
            .max()
            .map_or(0, |first| first + self.segment_bytes);
        while at.0 < last {
            let segment_end = (at.0 + 1).next_multiple_of(self.segment_bytes);
            let step = (segment_end - at.0).min(BUFFER_BYTES as u64) as usize;
            let found = self.bytes(at, step)?.map(find_magic).unwrap_or_default();
            for place in found
                .into_iter()
                .map(|found| LogOffset(at.0 + found as u64))
            {
                if place > self.end.end && self.batch_at(place)?.is_some() {
                    self.end.end = place;
                    self.chained = false;
                    return Ok(Some(place));
                }
            }
            at.0 += overlap(step, at.0 + (step as u64) < segment_end);
        }
        Ok(None)
    }

    /// `len` bytes of the log that lie in one segment; `None` if they do not, or are not there.
    fn bytes(&mut self, at: LogOffset, len: usize) -> Result<Option<&[u8]>, DiskError> {
        let first = at.0 / self.segment_bytes * self.segment_bytes;
        let in_segment = at.0 - first;
        if !self.segments.contains(&first) || in_segment + len as u64 > self.segment_bytes {
            return Ok(None);
        }
        let have = self.buffered.0..self.buffered.0 + self.buffer.len() as u64;
        if !(have.contains(&at.0) && at.0 + len as u64 <= have.end) {
            let want = len
                .max(BUFFER_BYTES)
                .min((self.segment_bytes - in_segment) as usize);
            self.buffer.resize(want, 0);
            let file = file_name(LogOffset(first));
            let read = self.dir.read_at(&file, in_segment, &mut self.buffer)?;
            self.buffer.truncate(read);
            self.buffered = at;
        }
        let from = (at.0 - self.buffered.0) as usize;
        Ok(self.buffer.get(from..from + len))
    }
}

/// How far to go on after a step: a magic may lie across two steps, but not across two segments.
fn overlap(step: usize, more: bool) -> u64 {
    if more && step > MAGIC_BYTES {
        (step - MAGIC_BYTES + 1) as u64
    } else {
        step as u64
    }
}

fn find_magic(bytes: &[u8]) -> Vec<usize> {
    let magic = MAGIC.to_be_bytes();
    let found = bytes
        .windows(magic.len())
        .enumerate()
        .filter(|(_, window)| *window == magic);
    found.map(|(at, _)| at).collect()
}
