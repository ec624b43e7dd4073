//! Checkpoints: from where a log must be replayed, and which files hold what came before.
//!
//! `checkpoint.a` and `checkpoint.b` are written in turn; the newer valid one counts. What one
//! names (snapshot, index runs) is durable before it is, and is removed only when neither names
//! it.
//!
//! | at | field |
//! |---|---|
//! | 0 | length u32 of everything before the CRC |
//! | 4 | magic `OBCP` u32, version u16, shard u16, store id u32 |
//! | 16 | the writer's life: epoch u32, incarnation u32 |
//! | 24 | sequence u64: the newer checkpoint has the higher one |
//! | 32 | replay from: log offset u64 (the end of a batch), CRC of that batch u32 |
//! | 44 | durable u64: a log that ends before this is damaged, not torn |
//! | 52 | filled u64: segments are zero-filled up to this log offset |
//! | 60 | last store time i64 |
//! | 68 | life of the batch that replay starts behind: epoch u32, incarnation u32 |
//! | 76 | snapshot there u8, runs of the queue index u32, runs of the key index u32, their names |
//! | end | CRC-32 of all before |
//!
//! The two lives differ after a start, which writes a checkpoint before its first batch.
//!
//! A snapshot file holds the tables as system records: magic `OBSN` u32, version u16, padding u16,
//! the log offset it stands for u64, records, CRC-32 of all before.

use crate::base::LogOffset;
use crate::base::cursor::{Cursor, put_text};
use crate::base::disk::{Dir, DiskError, read_file, replace_file};
use crate::store::batch::{Life, Lineage};
use crate::store::commitlog::LogEnd;

const MAGIC: u32 = u32::from_be_bytes(*b"OBCP");
const SNAPSHOT_MAGIC: u32 = u32::from_be_bytes(*b"OBSN");
const VERSION: u16 = 1;
const SLOTS: [&str; 2] = ["checkpoint.a", "checkpoint.b"];

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub lineage: Lineage,
    pub sequence: u64,
    /// Replay starts behind this batch.
    pub from: LogEnd,
    pub durable: LogOffset,
    pub filled: LogOffset,
    /// False only before the first snapshot of a log's life.
    pub snapshot: bool,
    pub queue_runs: Vec<String>,
    pub key_runs: Vec<String>,
}

impl Checkpoint {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.lineage.shard.0.to_be_bytes());
        out.extend_from_slice(&self.lineage.store_id.to_be_bytes());
        out.extend_from_slice(&self.lineage.epoch.to_be_bytes());
        out.extend_from_slice(&self.lineage.incarnation.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.from.end.0.to_be_bytes());
        out.extend_from_slice(&self.from.crc.to_be_bytes());
        out.extend_from_slice(&self.durable.0.to_be_bytes());
        out.extend_from_slice(&self.filled.0.to_be_bytes());
        out.extend_from_slice(&self.from.last_ms.to_be_bytes());
        out.extend_from_slice(&self.from.life.epoch.to_be_bytes());
        out.extend_from_slice(&self.from.life.incarnation.to_be_bytes());
        out.push(u8::from(self.snapshot));
        for runs in [&self.queue_runs, &self.key_runs] {
            let count = u32::try_from(runs.len()).expect("merging keeps runs few");
            out.extend_from_slice(&count.to_be_bytes());
        }
        self.queue_runs
            .iter()
            .chain(&self.key_runs)
            .for_each(|name| put_text(&mut out, name));
        seal(&mut out);
        out
    }

    /// `None` if the bytes are torn, rotten, or of a layout we do not know.
    pub fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let mut c = Cursor::new(checked(bytes)?);
        if c.u32()? != MAGIC || c.u16()? != VERSION {
            return None;
        }
        let shard = crate::base::ShardId(c.u16()?);
        let lineage = Lineage {
            shard,
            store_id: c.u32()?,
            epoch: c.u32()?,
            incarnation: c.u32()?,
        };
        let sequence = c.u64()?;
        let (end, crc) = (LogOffset(c.u64()?), c.u32()?);
        let (durable, filled) = (LogOffset(c.u64()?), LogOffset(c.u64()?));
        let from = LogEnd {
            end,
            crc,
            last_ms: c.i64()?,
            life: Life {
                epoch: c.u32()?,
                incarnation: c.u32()?,
            },
        };
        let snapshot = c.u8()? != 0;
        let (queue_runs, key_runs) = (c.u32()?, c.u32()?);
        let mut names = |count: u32| -> Option<Vec<String>> {
            (0..count).map(|_| c.text().map(str::to_owned)).collect()
        };
        let (queue_runs, key_runs) = (names(queue_runs)?, names(key_runs)?);
        Some(Checkpoint {
            lineage,
            sequence,
            from,
            durable,
            filled,
            snapshot,
            queue_runs,
            key_runs,
        })
    }

    /// Writes the slot whose turn it is and makes it durable.
    pub fn write(&self, dir: &dyn Dir) -> Result<(), DiskError> {
        let slot = SLOTS[(self.sequence % 2) as usize];
        dir.write_at(slot, 0, &self.encode())?;
        dir.sync(slot)
    }

    pub fn snapshot_name(&self) -> String {
        snapshot_name(self.from.end)
    }
}

/// The valid checkpoints, newer first; trailing bytes of a longer predecessor are ignored.
pub fn load(dir: &dyn Dir) -> Result<Vec<Checkpoint>, DiskError> {
    let mut found = Vec::new();
    for slot in SLOTS {
        if let Some(bytes) = read_file(dir, slot)? {
            found.extend(Checkpoint::decode(&bytes));
        }
    }
    found.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.sequence));
    Ok(found)
}

pub fn snapshot_name(at: LogOffset) -> String {
    format!("snapshot-{:020}", at.0)
}

/// Whether a listed file is a snapshot, finished or not.
pub fn is_snapshot(name: &str) -> bool {
    name.starts_with("snapshot-")
}

/// Writes a snapshot file around records, which come in pieces: together they may be tens of
/// megabytes, and are not copied.
pub fn write_snapshot(
    dir: &dyn Dir,
    name: &str,
    at: LogOffset,
    records: [&[u8]; 2],
) -> Result<(), DiskError> {
    let mut header = SNAPSHOT_MAGIC.to_be_bytes().to_vec();
    header.extend_from_slice(&VERSION.to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    header.extend_from_slice(&at.0.to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    let [one, other] = records;
    for piece in [&header, one, other] {
        crc.update(piece);
    }
    let crc = crc.finalize().to_be_bytes();
    replace_file(dir, name, &[&header, one, other, &crc])
}

/// The records of a snapshot file that stands for `at`; `None` if it does not.
pub fn decode_snapshot(bytes: &[u8], at: LogOffset) -> Option<&[u8]> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(content) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut c = Cursor::new(content);
    if c.u32()? != SNAPSHOT_MAGIC || c.u16()? != VERSION {
        return None;
    }
    c.u16()?;
    (c.u64()? == at.0).then_some(c.rest())
}

/// Length and checksum around a checkpoint, so that a shorter one may overwrite a longer one.
fn seal(out: &mut Vec<u8>) {
    let len = u32::try_from(out.len()).expect("a checkpoint is small");
    out.splice(0..0, len.to_be_bytes());
    let crc = crc32fast::hash(out);
    out.extend_from_slice(&crc.to_be_bytes());
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let len = Cursor::new(bytes).u32()? as usize;
    let content = bytes.get(..len.checked_add(4)?)?;
    let crc = Cursor::new(&bytes[content.len()..]).u32()?;
    (crc32fast::hash(content) == crc).then(|| &content[4..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::base::disk::MemDir;

    fn sample() -> Checkpoint {
        Checkpoint {
            lineage: Lineage {
                shard: ShardId(1),
                store_id: 2,
                epoch: 3,
                incarnation: 4,
            },
            sequence: 9,
            from: LogEnd {
                end: LogOffset(10),
                crc: 11,
                last_ms: 12,
                life: Life {
                    epoch: 2,
                    incarnation: 3,
                },
            },
            durable: LogOffset(13),
            filled: LogOffset(14),
            snapshot: true,
            queue_runs: vec!["index/q-1".into(), "index/q-2".into()],
            key_runs: vec!["index/k-1".into()],
        }
    }

    #[test]
    fn checkpoint_comes_back_even_over_a_longer_one() {
        let mut bytes = sample().encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(sample()));
        bytes.extend_from_slice(b"rest of a longer one");
        assert_eq!(Checkpoint::decode(&bytes), Some(sample()));
    }

    #[test]
    fn any_rotten_byte_makes_it_invalid() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            assert_eq!(Checkpoint::decode(&rotten), None, "byte {at}");
            assert_eq!(Checkpoint::decode(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn snapshot_is_checked_against_bytes_and_offset() {
        let dir = MemDir::default();
        write_snapshot(&dir, "snapshot", LogOffset(5), [b"rec", b"ords"]).unwrap();
        let bytes = dir.contents("snapshot").unwrap();
        assert_eq!(decode_snapshot(&bytes, LogOffset(5)), Some(&b"records"[..]));
        assert_eq!(decode_snapshot(&bytes, LogOffset(6)), None);
        assert_eq!(decode_snapshot(&bytes[1..], LogOffset(5)), None);
    }
}
