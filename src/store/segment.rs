//! Segments: the files a log is cut into, and how far they are ready to be written.
//!
//! Every segment has the same size and is named by its first log offset. A segment exists at full
//! size, filled with zeros on the disk itself, before anything is committed to it: an overwrite of
//! written blocks is half as slow as one of blocks that are only reserved. Filling runs ahead of
//! the log in small steps on a helper thread; a commit beyond what is filled waits.
//!
//! While commits are large, blocks ahead are only reserved: one large commit into reserved blocks
//! costs little more, and nothing is written to the device twice. A small durable commit there
//! would wait for the file system's journal, so once commits are small again what is reserved is
//! filled after all, from the end of the log on.
//!
//! The next segment is made under its own final name, so rolling over touches no directory.

use crate::base::disk::{BLOCK_BYTES, Dir, DiskError, FileName, Work};
use crate::base::{LogOffset, Mono};
use crate::store::retention::Ended;
use std::ops::Range;

pub const FOLDER: &str = "log";
/// One filling step.
const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// How far filling or reserving runs ahead.
const AHEAD_BYTES: u64 = 64 * 1024 * 1024;
/// The first step after commits became small: they wait for it.
const FIRST_STEP_BYTES: u64 = 1024 * 1024;
/// Left free beside a new segment, for indexes and snapshots; less if segments are smaller.
const BESIDE_BYTES: u64 = 64 * 1024 * 1024;
/// How often a disk without room is looked at.
const STARVED_MS: u64 = 1_000;
/// What a step says that found no room.
pub const NO_ROOM: [u8; 1] = [1];

/// `log/` and the first log offset in 20 digits, as RocketMQ names its files.
pub fn file_name(first: LogOffset) -> FileName {
    format!("{FOLDER}/{:020}", first.0).into()
}

/// The first log offset that a listed file name stands for; `None` for other files.
pub fn first_offset(name: &str) -> Option<LogOffset> {
    if name.len() != 20 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    name.parse().ok().map(LogOffset)
}

/// Size, current file, and how far zeros reach.
pub struct Segments {
    bytes: u64,
    /// Log offset up to which blocks are zero-filled or reserved and may be committed to.
    ready: LogOffset,
    /// Blocks from here to `ready` are reserved; those before are filled, or written.
    filled: LogOffset,
    filling: bool,
    /// The step under way fills; else it reserves.
    fills: bool,
    current: (u64, FileName),
    /// Segments that the log has left, and nobody has asked for.
    ended: Vec<Ended>,
    /// The disk has no room for another segment; it is tried again at this time.
    starved: Option<Mono>,
}

impl Segments {
    /// `ready`: what is known to be filled, at least the start of the segment that comes next.
    pub fn new(bytes: u64, ready: LogOffset) -> Self {
        assert!(
            bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES as u64),
            "segments are whole blocks"
        );
        Segments {
            bytes,
            ready,
            filled: ready,
            filling: false,
            fills: true,
            current: (u64::MAX, "".into()),
            ended: Vec::new(),
            starved: None,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn ready(&self) -> LogOffset {
        self.ready
    }

    /// As [`ready`](Self::ready), without what is only reserved.
    pub fn filled_to(&self) -> LogOffset {
        self.filled
    }

    pub fn start_of(&self, at: LogOffset) -> LogOffset {
        LogOffset(at.0 / self.bytes * self.bytes)
    }

    /// The log offset at which the segment holding `at` ends.
    pub fn end_of(&self, at: LogOffset) -> LogOffset {
        LogOffset(self.start_of(at).0 + self.bytes)
    }

    /// The file that holds `at`, and the place in it.
    pub fn place(&mut self, at: LogOffset) -> (FileName, u64) {
        let first = self.start_of(at);
        if self.current.0 != first.0 {
            self.current = (first.0, file_name(first));
        }
        (self.current.1.clone(), at.0 - first.0)
    }

    /// The log goes on in another segment; nothing in this one was stored after `last_ms`.
    pub fn leave(&mut self, first: LogOffset, last_ms: i64) {
        self.ended.push(Ended { first, last_ms });
    }

    /// The segments that were left since the last call.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// The next filling step if one is due, for a log whose newest byte is at `end`; `large` says
    /// that its commits are.
    pub fn poll_fill(
        &mut self,
        now: Mono,
        end: LogOffset,
        large: bool,
    ) -> Option<(Range<u64>, Work)> {
        if self.filling || self.starved.is_some_and(|until| until > now) {
            return None;
        }
        let reserved = !large && self.filled < self.ready;
        if reserved {
            // Nothing was ordered beyond the end of the log, and nothing will be before this is
            // filled: a commit waits for `ready`.
            let end = LogOffset(end.0.next_multiple_of(BLOCK_BYTES as u64));
            self.filled = self.filled.max(end.min(self.ready));
            self.ready = self.filled;
        }
        if self.ready.0 >= end.0 + AHEAD_BYTES.min(self.bytes) {
            return None;
        }
        let range = self.step(if reserved {
            FIRST_STEP_BYTES
        } else {
            STEP_BYTES
        });
        self.filling = true;
        self.fills = !large;
        let (file, bytes, target) = self.step_work(&range);
        Some((
            range,
            Box::new(move |dir| match begin(dir, &file, bytes, &target)? {
                true => fill(dir, &file, target, !large).map(|()| Vec::new()),
                false => Ok(NO_ROOM.to_vec()),
            }),
        ))
    }

    /// Fills at start-up, before anything is served, so that the first commits need not wait.
    pub fn fill_now(&mut self, dir: &dyn Dir, end: LogOffset) -> Result<(), DiskError> {
        while self.ready.0 < end.0 + STEP_BYTES.min(self.bytes) {
            let range = self.step(STEP_BYTES);
            let (file, bytes, target) = self.step_work(&range);
            if range.start.is_multiple_of(self.bytes) {
                dir.allocate(&file, bytes)?;
                dir.sync(&file)?;
            }
            fill(dir, &file, target, true)?;
            self.ready = LogOffset(range.end);
            self.filled = self.ready;
        }
        Ok(())
    }

    /// A step begun by [`poll_fill`](Self::poll_fill) is on the disk.
    pub fn filled(&mut self, range: Range<u64>) {
        assert!(
            self.filling && self.ready.0 == range.start,
            "one step at a time, in order"
        );
        self.filling = false;
        self.starved = None;
        if self.fills && self.filled == self.ready {
            self.filled = LogOffset(range.end);
        }
        self.ready = LogOffset(range.end);
    }

    /// A step could not be made for want of room.
    pub fn starve(&mut self, now: Mono) {
        self.filling = false;
        self.starved = Some(now.after_ms(STARVED_MS));
    }

    /// When there is no room for another segment: when that is looked at again.
    pub fn starved(&self) -> Option<Mono> {
        self.starved.filter(|_| !self.filling)
    }

    /// Whether the disk has no room for another segment.
    pub fn is_starved(&self) -> bool {
        self.starved.is_some()
    }

    fn step(&self, bytes: u64) -> Range<u64> {
        let end = (self.ready.0 + bytes).min(self.end_of(self.ready).0);
        self.ready.0..end
    }

    fn step_work(&self, range: &Range<u64>) -> (FileName, u64, Range<u64>) {
        let first = self.start_of(LogOffset(range.start));
        let target = range.start - first.0..range.end - first.0;
        (file_name(first), self.bytes, target)
    }
}

/// Makes the file if this step is its first; false if there is no room for it, and what is written
/// beside the log.
fn begin(dir: &dyn Dir, file: &str, bytes: u64, range: &Range<u64>) -> Result<bool, DiskError> {
    if range.start > 0 {
        return Ok(true);
    }
    if dir.space()?.free < bytes + BESIDE_BYTES.min(bytes) {
        return Ok(false);
    }
    match dir.allocate(file, bytes) {
        Err(error) if error.full => return Ok(false),
        other => other?,
    }
    dir.sync(file)?;
    Ok(true)
}

fn fill(dir: &dyn Dir, file: &str, range: Range<u64>, zeros: bool) -> Result<(), DiskError> {
    if !zeros {
        return Ok(());
    }
    dir.zero_fill(file, range.start, range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::MemDir;

    #[test]
    fn names_and_offsets_match() {
        assert_eq!(&*file_name(LogOffset(1 << 30)), "log/00000000001073741824");
        assert_eq!(
            first_offset("00000000001073741824"),
            Some(LogOffset(1 << 30))
        );
        assert_eq!(first_offset("spare-0"), None);
        assert_eq!(first_offset("0000000000107374182x"), None);
    }

    #[test]
    fn places_lie_in_their_segment() {
        let mut segments = Segments::new(64 << 20, LogOffset(0));
        let (file, at) = segments.place(LogOffset((64 << 20) + 5));
        assert_eq!((&*file, at), ("log/00000000000067108864", 5));
        assert_eq!(segments.end_of(LogOffset(5)), LogOffset(64 << 20));
    }

    #[test]
    fn filling_runs_one_step_at_a_time_and_stays_ahead() {
        let mut segments = Segments::new(16 << 20, LogOffset(0));
        let mut poll = |end| segments.poll_fill(Mono(0), LogOffset(end), false);
        let (range, _) = poll(0).unwrap();
        assert_eq!(range, 0..8 << 20);
        assert!(poll(0).is_none(), "one at a time");
        segments.filled(range);
        let (range, _) = segments.poll_fill(Mono(0), LogOffset(0), false).unwrap();
        segments.filled(range);
        let mut poll = |end| segments.poll_fill(Mono(0), LogOffset(end), false);
        assert!(poll(0).is_none(), "a whole segment ahead");
        assert_eq!(poll(1).unwrap().0, 16 << 20..24 << 20);
    }

    #[test]
    fn without_room_no_segment_is_begun_until_there_is_some() {
        let dir = MemDir::default();
        let mut segments = Segments::new(16 << 20, LogOffset(16 << 20));
        let end = LogOffset(1);
        dir.full.set(true);
        let (_, work) = segments.poll_fill(Mono(0), end, false).unwrap();
        assert_eq!(work(&dir), Ok(NO_ROOM.to_vec()));
        segments.starve(Mono(0));
        assert!(segments.is_starved() && dir.names().is_empty());
        assert!(
            segments
                .poll_fill(Mono(STARVED_MS - 1), end, false)
                .is_none()
        );
        dir.full.set(false);
        let (range, work) = segments.poll_fill(Mono(STARVED_MS), end, false).unwrap();
        assert_eq!(work(&dir), Ok(Vec::new()));
        segments.filled(range);
        assert!(!segments.is_starved() && dir.names().len() == 1);
    }

    #[test]
    fn large_commits_only_reserve() {
        let dir = MemDir::default();
        let mut segments = Segments::new(128 << 20, LogOffset(0));
        let mut steps = 0;
        while let Some((range, work)) = segments.poll_fill(Mono(0), LogOffset(0), true) {
            dir.full.set(steps > 0);
            work(&dir).expect("only the first step of a segment writes");
            segments.filled(range);
            steps += 1;
        }
        assert_eq!(steps, AHEAD_BYTES / STEP_BYTES);
        assert_eq!(segments.filled_to(), LogOffset(0));
        // Small commits again: what is reserved beyond the end of the log is filled.
        let end = LogOffset((9 << 20) + 1);
        let (range, work) = segments.poll_fill(Mono(0), end, false).unwrap();
        let from = (9 << 20) + BLOCK_BYTES as u64;
        assert_eq!(range, from..from + FIRST_STEP_BYTES);
        assert_eq!(segments.ready(), LogOffset(from), "commits wait");
        assert!(work(&dir).is_err(), "it writes");
        segments.filled(range.clone());
        let marks = (segments.filled_to(), segments.ready());
        assert_eq!(marks, (LogOffset(range.end), LogOffset(range.end)));
    }
}
