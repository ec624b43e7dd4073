//! Small batches of `ASYNC_FLUSH` before the disk has them: a file in the page cache, as a ring.
//!
//! A send is answered once its batch lies there, without waiting for a device. A process that is
//! killed leaves the page cache behind, and recovery puts back what the log does not have yet; a
//! loss of power takes it, as it takes what Java's mapped files hold. The log gets the same batches
//! a little later, several in one write, and only then is their place used again.
//!
//! The file holds batches as they are (`batch`), each at a multiple of [`STEP_BYTES`]; what lies
//! between is zeros or what an older one left. A batch names its place in the log, its life and the
//! batch before it, so nothing else has to be said about it.

use crate::base::disk::{Dir, DiskError, Mapped, read_file};
use crate::base::{LogOffset, Map, ShardId};
use crate::store::batch::{BatchHeader, checksum};
use std::collections::VecDeque;
use std::ops::Range;

pub const FILE: &str = "ahead";
/// Batches begin at multiples of this.
const STEP_BYTES: usize = 64;

/// The ring of a running log.
pub struct Ahead {
    memory: Mapped,
    bytes: usize,
    /// Where the next batch goes, if it fits.
    next: usize,
    /// Places that are in use, oldest first, with the end of each batch in the log.
    used: VecDeque<(Range<usize>, LogOffset)>,
}

impl Ahead {
    /// `memory` is as large as `bytes` says.
    pub fn new(memory: Mapped, bytes: usize) -> Ahead {
        Ahead {
            memory,
            bytes,
            next: 0,
            used: VecDeque::new(),
        }
    }

    /// Makes an empty ring; what an older one held must be durable elsewhere.
    pub fn create(dir: &dyn Dir, bytes: usize) -> Result<Ahead, DiskError> {
        let files = dir.list("")?;
        let old = files.iter().find(|file| file.name == FILE);
        let whole = old.map_or(0, |file| file.bytes as usize).max(bytes);
        dir.write_at(FILE, 0, &vec![0; whole])?;
        dir.sync(FILE)?;
        let memory = dir.map(FILE, bytes as u64)?;
        Ok(Ahead::new(memory, bytes))
    }

    /// Whether a batch of `len` bytes would be kept.
    pub fn has_room(&self, len: usize) -> bool {
        self.place(len).is_some()
    }

    fn place(&self, len: usize) -> Option<usize> {
        let len = len.next_multiple_of(STEP_BYTES);
        let (next, oldest) = match self.used.front() {
            None => return (len <= self.bytes).then_some(0),
            Some((oldest, _)) => (self.next, oldest.start),
        };
        // Never quite full, so that `next` is at the oldest only if nothing is in use.
        match next > oldest {
            true if next + len <= self.bytes => Some(next),
            true => (len < oldest).then_some(0),
            false => (next + len < oldest).then_some(next),
        }
    }

    /// Keeps a sealed batch that ends at `end` in the log and for which there is room.
    pub fn keep(&mut self, batch: &[u8], end: LogOffset) {
        let at = self.place(batch.len()).expect("there is room");
        (self.memory)(at as u64, batch);
        self.next = at + batch.len().next_multiple_of(STEP_BYTES);
        self.used.push_back((at..self.next, end));
    }

    /// The log has everything up to here.
    pub fn release(&mut self, written: LogOffset) {
        while self.used.pop_front_if(|(_, end)| *end <= written).is_some() {}
    }
}

/// The batches that a process left behind, by their place in the log.
pub fn left_behind(
    dir: &dyn Dir,
    shard: ShardId,
    store_id: u32,
) -> Result<Map<LogOffset, (BatchHeader, Vec<u8>)>, DiskError> {
    let bytes = read_file(dir, FILE)?.unwrap_or_default();
    let mut found = Map::default();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        // What lies in a whole batch is its records, whatever they look like.
        let mut used = STEP_BYTES;
        if let Some((header, batch)) = batch_at(rest, shard, store_id) {
            used = batch.len().next_multiple_of(STEP_BYTES);
            found.insert(header.at, (header, batch.to_vec()));
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(found)
}

/// A whole batch of this log at the start of `bytes`.
fn batch_at(bytes: &[u8], shard: ShardId, store_id: u32) -> Option<(BatchHeader, &[u8])> {
    let header = BatchHeader::decode(bytes)?;
    let batch = bytes.get(..header.bytes as usize)?;
    let whole = header.is_sound(shard, store_id) && checksum(batch) == header.crc;
    whole.then_some((header, batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::MemDir;
    use crate::store::batch::{HEADER_BYTES, Lineage};

    fn batch(at: u64, len: usize) -> Vec<u8> {
        batch_of(at, vec![at as u8; len])
    }

    /// The first bytes make room for the header.
    fn batch_of(at: u64, mut batch: Vec<u8>) -> Vec<u8> {
        let lineage = Lineage {
            shard: ShardId(3),
            store_id: 7,
            epoch: 0,
            incarnation: 1,
        };
        let header = BatchHeader {
            lineage,
            bytes: 0,
            records: 1,
            previous_crc: 0,
            at: LogOffset(at),
            durable: LogOffset(0),
            first_ms: 0,
            span_ms: 0,
            crc: 0,
        };
        let crc = crc32fast::hash(&batch[HEADER_BYTES..]);
        header.seal(&mut batch, crc);
        batch
    }

    fn keep(ahead: &mut Ahead, at: u64, len: usize) -> bool {
        let room = ahead.has_room(len);
        if room {
            ahead.keep(&batch(at, len), LogOffset(at + len as u64));
        }
        room
    }

    #[test]
    fn what_the_log_does_not_have_is_there_however_often_the_ring_goes_round() {
        let dir = MemDir::default();
        let mut ahead = Ahead::create(&dir, 4096).unwrap();
        let (mut at, mut written) = (0, 0);
        let mut refused = 0;
        for turn in 0..500u64 {
            let len = 65 + (turn * 97 % 900) as usize;
            if keep(&mut ahead, at, len) {
                at += len as u64;
            } else {
                refused += 1;
            }
            if turn % 3 == 2 {
                written += (at - written) / 2;
                ahead.release(LogOffset(written));
            }
            let found = left_behind(&dir, ShardId(3), 7).unwrap();
            let mut next = found
                .values()
                .map(|(header, _)| header.at.0)
                .filter(|from| found[&LogOffset(*from)].0.bytes as u64 + from > written)
                .min()
                .unwrap_or(at);
            assert!(next <= written || next == at);
            while next < at {
                let (header, bytes) = &found[&LogOffset(next)];
                assert_eq!(bytes, &batch(next, header.bytes as usize));
                next += u64::from(header.bytes);
            }
        }
        assert!(refused > 0, "it was full now and then");
    }

    #[test]
    fn only_whole_batches_of_this_shard_are_found() {
        let dir = MemDir::default();
        let mut ahead = Ahead::create(&dir, 4096).unwrap();
        assert!(!keep(&mut ahead, 0, 4097) && keep(&mut ahead, 0, 100));
        assert!(keep(&mut ahead, 100, 100));
        assert!(left_behind(&dir, ShardId(2), 7).unwrap().is_empty());
        assert!(left_behind(&dir, ShardId(3), 8).unwrap().is_empty());
        dir.damage(FILE, |bytes| bytes[99] ^= 1);
        let found = left_behind(&dir, ShardId(3), 7).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [LogOffset(100)]);
        Ahead::create(&dir, 4096).unwrap();
        assert!(left_behind(&dir, ShardId(3), 7).unwrap().is_empty());
    }

    #[test]
    fn a_message_that_looks_like_a_batch_stays_a_message() {
        let dir = MemDir::default();
        let mut ahead = Ahead::create(&dir, 4096).unwrap();
        let forged = batch(5000, 200);
        let whole = batch_of(0, [vec![0; STEP_BYTES], forged].concat());
        ahead.keep(&whole, LogOffset(whole.len() as u64));
        let found = left_behind(&dir, ShardId(3), 7).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [LogOffset(0)]);
    }
}
