//! The unit of the log: a batch is what one group commit writes, a 64-byte header and its records.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `OBMQ` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 2 | shard |
//! | 8 | 4 | store id, from `meta.toml`: another store's file never looks valid |
//! | 12 | 4 | epoch (replication; 0 until then) |
//! | 16 | 4 | incarnation: how often this log was started |
//! | 20 | 4 | length of the batch, header included |
//! | 24 | 4 | records |
//! | 28 | 4 | CRC of the batch before this one: the chain |
//! | 32 | 8 | log offset of this header: a recycled segment's old bytes never look valid |
//! | 40 | 8 | durable: everything below this log offset was durable when this batch was sealed |
//! | 48 | 8 | store time of the first record, ms |
//! | 56 | 4 | store time of the last record, ms after the first |
//! | 60 | 4 | CRC-32 of all other bytes of the batch |
//!
//! Big-endian. A batch never crosses a segment. It starts right after the previous one
//! (*continuing*) or at the next block (*aligned*); nothing but zeros lies between.
//!
//! `durable` tells rot from a torn end: a log may only end before a batch whose `durable` says that
//! what is missing had been promised to somebody.

use crate::base::crc;
use crate::base::cursor::Cursor;
use crate::base::{LogOffset, ShardId};
use crc32fast::Hasher;

pub const HEADER_BYTES: usize = 64;
/// No batch is longer, header included; recovery looks this far for what follows a broken one.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
pub const MAGIC: u32 = u32::from_be_bytes(*b"OBMQ");
const VERSION: u16 = 1;
const CRC_AT: usize = 60;

/// A life of a log: later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Life {
    pub epoch: u32,
    pub incarnation: u32,
}

/// Which log a batch belongs to, and which life of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lineage {
    pub shard: ShardId,
    pub store_id: u32,
    pub epoch: u32,
    pub incarnation: u32,
}

impl Lineage {
    pub fn life(self) -> Life {
        Life {
            epoch: self.epoch,
            incarnation: self.incarnation,
        }
    }

    /// The same log in another life.
    pub fn in_life(self, life: Life) -> Lineage {
        Lineage {
            epoch: life.epoch,
            incarnation: life.incarnation,
            ..self
        }
    }
}

/// A batch header without its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    pub lineage: Lineage,
    pub bytes: u32,
    pub records: u32,
    pub previous_crc: u32,
    pub at: LogOffset,
    pub durable: LogOffset,
    pub first_ms: i64,
    pub span_ms: u32,
    pub crc: u32,
}

impl BatchHeader {
    /// Reads a header; `None` if magic or version are not ours. Says nothing about the records.
    pub fn decode(bytes: &[u8]) -> Option<BatchHeader> {
        let mut c = Cursor::new(bytes);
        if c.u32()? != MAGIC || c.u16()? != VERSION {
            return None;
        }
        let shard = ShardId(c.u16()?);
        let lineage = Lineage {
            shard,
            store_id: c.u32()?,
            epoch: c.u32()?,
            incarnation: c.u32()?,
        };
        Some(BatchHeader {
            lineage,
            bytes: c.u32()?,
            records: c.u32()?,
            previous_crc: c.u32()?,
            at: LogOffset(c.u64()?),
            durable: LogOffset(c.u64()?),
            first_ms: c.i64()?,
            span_ms: c.u32()?,
            crc: c.u32()?,
        })
    }

    /// Whether this can head a batch of this store: its fields may be trusted to be added up.
    pub fn is_sound(&self, shard: ShardId, store_id: u32) -> bool {
        let ours = self.lineage.shard == shard && self.lineage.store_id == store_id;
        let span_ms = i64::from(self.span_ms);
        let ends = self.at.0.checked_add(u64::from(self.bytes)).is_some();
        let has_records = self.bytes as usize > HEADER_BYTES;
        ours && has_records && ends && self.first_ms.checked_add(span_ms).is_some()
    }

    /// Fills in the header at the start of `batch` (header space and records, whose checksum is
    /// `records_crc`) and the checksum of both, which is returned. The `bytes` and `crc` fields of
    /// `self` are not used.
    pub fn seal(&self, batch: &mut [u8], records_crc: u32) -> u32 {
        assert!(batch.len() > HEADER_BYTES, "a batch has records");
        let len = u32::try_from(batch.len()).expect("a batch is smaller than a segment");
        let fields: [&[u8]; 13] = [
            &MAGIC.to_be_bytes(),
            &VERSION.to_be_bytes(),
            &self.lineage.shard.0.to_be_bytes(),
            &self.lineage.store_id.to_be_bytes(),
            &self.lineage.epoch.to_be_bytes(),
            &self.lineage.incarnation.to_be_bytes(),
            &len.to_be_bytes(),
            &self.records.to_be_bytes(),
            &self.previous_crc.to_be_bytes(),
            &self.at.0.to_be_bytes(),
            &self.durable.0.to_be_bytes(),
            &self.first_ms.to_be_bytes(),
            &self.span_ms.to_be_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            batch[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        assert_eq!(at, CRC_AT, "the header is laid out as its table says");
        let crc = checksum_of(&batch[..CRC_AT], records_crc, batch.len() - HEADER_BYTES);
        debug_assert_eq!(crc, checksum(batch), "the records have that checksum");
        batch[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
        crc
    }
}

/// The checksum of a whole batch: every byte but the checksum itself.
pub fn checksum(batch: &[u8]) -> u32 {
    crc::resume(crc32fast::hash(&batch[..CRC_AT]), &batch[HEADER_BYTES..])
}

fn checksum_of(header: &[u8], records_crc: u32, records_bytes: usize) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(header);
    hasher.combine(&Hasher::new_with_initial_len(
        records_crc,
        records_bytes as u64,
    ));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        let lineage = Lineage {
            shard: ShardId(2),
            store_id: 0xABCD,
            epoch: 1,
            incarnation: 5,
        };
        BatchHeader {
            lineage,
            bytes: 0,
            records: 1,
            previous_crc: 0x1122_3344,
            at: LogOffset(4096),
            durable: LogOffset(4000),
            first_ms: 1_700_000_000_000,
            span_ms: 3,
            crc: 0,
        }
    }

    #[test]
    fn header_comes_back_and_covers_every_byte() {
        let mut batch = vec![0; HEADER_BYTES];
        batch.extend_from_slice(b"record");
        let crc = header().seal(&mut batch, crc32fast::hash(b"record"));
        let read = BatchHeader::decode(&batch).unwrap();
        assert_eq!(
            read,
            BatchHeader {
                bytes: 70,
                crc,
                ..header()
            }
        );
        assert_eq!(checksum(&batch), crc);
        for at in (0..batch.len()).filter(|at| !(CRC_AT..HEADER_BYTES).contains(at)) {
            let mut rotten = batch.clone();
            rotten[at] ^= 1;
            assert_ne!(checksum(&rotten), crc, "byte {at}");
        }
    }

    #[test]
    fn what_cannot_head_a_batch_of_this_store_is_not_sound() {
        let sound = BatchHeader {
            bytes: 70,
            ..header()
        };
        assert!(sound.is_sound(ShardId(2), 0xABCD));
        assert!(!sound.is_sound(ShardId(1), 0xABCD) && !sound.is_sound(ShardId(2), 0xABCC));
        let mut wrong = [sound; 3];
        wrong[0].bytes = HEADER_BYTES as u32;
        wrong[1].first_ms = i64::MAX - 2;
        wrong[2].at = LogOffset(u64::MAX - 69);
        assert!(
            !wrong
                .iter()
                .any(|header| header.is_sound(ShardId(2), 0xABCD))
        );
    }

    #[test]
    fn header_bytes_are_these() {
        let mut batch = vec![0; HEADER_BYTES];
        batch.extend_from_slice(b"record");
        header().seal(&mut batch, crc32fast::hash(b"record"));
        let hex: String = batch[..HEADER_BYTES]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let expected = concat!(
            "4f424d51000100020000abcd0000000100000005000000460000000111223344",
            "00000000000010000000000000000fa00000018bcfe5680000000003",
        );
        assert_eq!(&hex[..2 * CRC_AT], expected);
    }
}
