//! What a batch holds: message records and system records.
//!
//! A message record is the stored message of RocketMQ (`spec/store.md` §1, `message::layout`). A
//! system record carries a change of state beside the messages:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | size of the record, this field included |
//! | 4 | 4 | magic `OBSR` |
//! | 8 | 2 | kind |
//! | 10 | 2 | version of the payload's layout, chosen by the kind |
//! | 12 | 8 | store time, ms |
//! | 20 | n | payload |
//!
//! Both begin with size and magic, so a walk needs no other table.

use crate::base::cursor::Cursor;

pub const SYSTEM_MAGIC: u32 = u32::from_be_bytes(*b"OBSR");
pub const SYSTEM_HEADER_BYTES: usize = 20;
/// Message magics of RocketMQ: `CommitLog.MESSAGE_MAGIC_CODE` and its V2.
pub const MESSAGE_MAGICS: [u32; 2] = [0xDAA3_20A7, 0xDAA3_20AB];

/// What a system record says. The numbers are the format: never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A queue lives in this shard from here on (`store::queues`).
    QueueOpened = 1,
    /// It no longer does.
    QueueDropped = 2,
    /// Snapshot only: where a queue stands.
    QueuePosition = 3,
    /// A change of topics or groups; shard 0 only (`broker::record`).
    Control = 4,
    /// Consumer offsets (`broker::offsets`).
    ConsumerOffsets = 5,
    /// How far delayed delivery has come (`broker::timer`).
    DelayProgress = 6,
    /// Transactions opened, ended and asked about (`broker::transactions`).
    Transaction = 7,
    /// How far messages for a time are delivered, and which were recalled (`broker::timers`).
    Timer = 8,
    /// Messages that pops have handed out.
    Lease = 9,
    /// The message just before is in light queues too (`store::light`).
    Light = 10,
    /// A message that is in light queues only.
    LightCopy = 11,
    /// What is left of the log and its queues (`store::retention`).
    Retained = 12,
    /// A message whose segment goes although it is needed, as it was (`broker::carry`).
    Carried = 13,
}

impl Kind {
    pub fn from_number(number: u16) -> Option<Kind> {
        use Kind::*;
        [
            QueueOpened,
            QueueDropped,
            QueuePosition,
            Control,
            ConsumerOffsets,
            DelayProgress,
            Transaction,
            Timer,
            Lease,
            Light,
            LightCopy,
            Retained,
            Carried,
        ]
        .into_iter()
        .find(|kind| *kind as u16 == number)
    }
}

/// One record as found in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    Message(&'a [u8]),
    System {
        kind: Kind,
        version: u16,
        store_ms: i64,
        payload: &'a [u8],
    },
}

/// Why a batch's records cannot be walked although its checksum is right: a newer version wrote it,
/// or we did wrongly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadRecord {
    Size { at: usize, size: u32 },
    Magic { at: usize, magic: u32 },
    Kind { at: usize, kind: u16 },
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadRecord::Size { at, size } => write!(f, "size {size} at byte {at} of the batch"),
            BadRecord::Magic { at, magic } => write!(f, "magic {magic:#x} at byte {at}"),
            BadRecord::Kind { at, kind } => {
                write!(
                    f,
                    "system record kind {kind} at byte {at}: written by a newer version?"
                )
            }
        }
    }
}

/// Appends a system record.
pub fn put_system(out: &mut Vec<u8>, kind: Kind, version: u16, store_ms: i64, payload: &[u8]) {
    put_system_header(out, kind, version, store_ms, payload.len());
    out.extend_from_slice(payload);
}

/// Appends what comes before a payload of so many bytes.
pub fn put_system_header(
    out: &mut Vec<u8>,
    kind: Kind,
    version: u16,
    store_ms: i64,
    payload: usize,
) {
    let size = u32::try_from(SYSTEM_HEADER_BYTES + payload).expect("payloads are bounded");
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&SYSTEM_MAGIC.to_be_bytes());
    out.extend_from_slice(&(kind as u16).to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&store_ms.to_be_bytes());
}

/// Walks records laid end to end. Gives each with its place; ends after the first error.
pub fn walk(records: &[u8]) -> impl Iterator<Item = Result<(usize, Record<'_>), BadRecord>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= records.len() {
            return None;
        }
        let item = next(records, at);
        at = match &item {
            Ok((_, size)) => at + size,
            Err(_) => records.len(),
        };
        Some(item.map(|(record, size)| (at - size, record)))
    })
}

fn next(records: &[u8], at: usize) -> Result<(Record<'_>, usize), BadRecord> {
    let rest = &records[at..];
    let mut cursor = Cursor::new(rest);
    let bad = |size| BadRecord::Size { at, size };
    let size = cursor.u32().ok_or(bad(0))?;
    let magic = cursor.u32().ok_or(bad(size))?;
    let bytes = rest
        .get(..size as usize)
        .filter(|b| b.len() >= 8)
        .ok_or(bad(size))?;
    if MESSAGE_MAGICS.contains(&magic) {
        return Ok((Record::Message(bytes), bytes.len()));
    }
    if magic != SYSTEM_MAGIC {
        return Err(BadRecord::Magic { at, magic });
    }
    let number = cursor.u16().ok_or(bad(size))?;
    let version = cursor.u16().ok_or(bad(size))?;
    let store_ms = cursor.i64().ok_or(bad(size))?;
    let kind = Kind::from_number(number).ok_or(BadRecord::Kind { at, kind: number })?;
    let payload = bytes.get(SYSTEM_HEADER_BYTES..).ok_or(bad(size))?;
    Ok((
        Record::System {
            kind,
            version,
            store_ms,
            payload,
        },
        bytes.len(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_what_was_put() {
        let mut bytes = Vec::new();
        put_system(&mut bytes, Kind::Control, 1, 77, b"topic");
        put_system(&mut bytes, Kind::ConsumerOffsets, 2, 78, b"");
        let found: Vec<_> = walk(&bytes).map(Result::unwrap).collect();
        let first = Record::System {
            kind: Kind::Control,
            version: 1,
            store_ms: 77,
            payload: b"topic",
        };
        assert_eq!(found[0], (0, first));
        assert_eq!(found[1].0, 25);
    }

    #[test]
    fn bad_bytes_end_the_walk_with_their_place() {
        let check = |bytes: &[u8], expected: BadRecord| {
            let found: Vec<_> = walk(bytes).collect();
            assert_eq!(found, [Err(expected)]);
        };
        check(&[0, 0, 0], BadRecord::Size { at: 0, size: 0 });
        check(
            &[0, 0, 0, 99, 0, 0, 0, 0, 1],
            BadRecord::Size { at: 0, size: 99 },
        );
        check(
            &[0, 0, 0, 8, 0, 0, 0, 9],
            BadRecord::Magic { at: 0, magic: 9 },
        );
        check(
            &[0, 0, 0, 8, b'O', b'B', b'S', b'R'],
            BadRecord::Size { at: 0, size: 8 },
        );
        let mut newer = Vec::new();
        put_system(&mut newer, Kind::Control, 1, 0, b"");
        newer[8..10].copy_from_slice(&999u16.to_be_bytes());
        check(&newer, BadRecord::Kind { at: 0, kind: 999 });
    }
}
