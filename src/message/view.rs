//! Reads a stored record in place ([`super::layout`]).
//!
//! [`RecordView::parse`] checks every length; after it no accessor can fail. The body CRC is
//! checked on request only: [`RecordView::has_valid_body_crc`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layout::{self, sys_flag};

/// One record, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Exactly the record.
    bytes: &'a [u8],
    topic: &'a str,
    /// Where the store time lies; the other variable places follow from it and `body_at`.
    store_timestamp_at: u32,
    reconsume_times_at: u32,
    body_at: u32,
    body_len: u32,
    properties_at: u32,
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Fewer bytes than the record states, or than any record has.
    Truncated {
        stated: usize,
        given: usize,
    },
    UnknownMagic {
        magic: u32,
    },
    /// The parts do not add up to the stated size.
    SizeMismatch {
        stated: usize,
        parts: usize,
    },
    /// Topic or properties with a negative or overlong length.
    BadLength {
        at: usize,
    },
    TopicNotUtf8,
    /// A port above 65535.
    BadPort,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { stated, given } => {
                write!(f, "record of {stated} bytes, {given} are there")
            }
            Self::UnknownMagic { magic } => write!(f, "unknown record magic {magic:#010x}"),
            Self::SizeMismatch { stated, parts } => {
                write!(f, "record states {stated} bytes, its parts take {parts}")
            }
            Self::BadLength { at } => write!(f, "impossible length at record byte {at}"),
            Self::TopicNotUtf8 => write!(f, "the topic is not UTF-8"),
            Self::BadPort => write!(f, "a host's port is above 65535"),
        }
    }
}

impl std::error::Error for RecordError {}

impl<'a> RecordView<'a> {
    /// Reads the record that starts at `bytes[0]`; more may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor { bytes, at: 0 };
        let stated = cursor.u32()? as usize;
        let magic = cursor.u32()?;
        if magic != layout::MAGIC_V1 && magic != layout::MAGIC_V2 {
            return Err(RecordError::UnknownMagic { magic });
        }
        let too_short = RecordError::Truncated {
            stated,
            given: bytes.len(),
        };
        let bytes = bytes.get(..stated).ok_or(too_short)?;
        cursor = Cursor {
            bytes,
            at: layout::SYS_FLAG_AT,
        };
        let flags = cursor.u32()? as i32;
        cursor.at = layout::BORN_HOST_AT;
        cursor.host(flags & sys_flag::BORN_HOST_V6 != 0)?;
        let store_timestamp_at = cursor.at as u32;
        cursor.take(8)?;
        cursor.host(flags & sys_flag::STORE_HOST_V6 != 0)?;
        let reconsume_times_at = cursor.at as u32;
        cursor.take(4 + 8)?;
        let body_len = cursor.u32()?;
        let body_at = cursor.at as u32;
        cursor.take(body_len as usize)?;
        let topic_len = cursor.topic_len(magic)?;
        let topic =
            std::str::from_utf8(cursor.take(topic_len)?).map_err(|_| RecordError::TopicNotUtf8)?;
        let properties_len = cursor.i16_len()?;
        let properties_at = cursor.at as u32;
        cursor.take(properties_len)?;
        if cursor.at != stated {
            return Err(RecordError::SizeMismatch {
                stated,
                parts: cursor.at,
            });
        }
        Ok(Self {
            bytes,
            topic,
            store_timestamp_at,
            reconsume_times_at,
            body_at,
            body_len,
            properties_at,
        })
    }

    /// The records of a pull response, back to back. Ends after the first error.
    pub fn iter(bytes: &'a [u8]) -> impl Iterator<Item = Result<Self, RecordError>> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let parsed = Self::parse(rest);
            rest = parsed
                .as_ref()
                .map_or(&[], |record| &rest[record.bytes.len()..]);
            Some(parsed)
        })
    }

    /// The whole record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn is_v2(&self) -> bool {
        self.u32_at(layout::MAGIC_AT) == layout::MAGIC_V2
    }

    /// CRC-32 of the body with its top bit cleared.
    pub fn body_crc(&self) -> u32 {
        self.u32_at(layout::BODY_CRC_AT)
    }

    pub fn has_valid_body_crc(&self) -> bool {
        self.body_crc() == crc32fast::hash(self.body()) & layout::BODY_CRC_MASK
    }

    pub fn queue_id(&self) -> i32 {
        self.u32_at(layout::QUEUE_ID_AT) as i32
    }

    /// The user's own flag.
    pub fn flag(&self) -> i32 {
        self.u32_at(layout::FLAG_AT) as i32
    }

    pub fn queue_offset(&self) -> i64 {
        self.i64_at(layout::QUEUE_OFFSET_AT)
    }

    pub fn physical_offset(&self) -> i64 {
        self.i64_at(layout::PHYSICAL_OFFSET_AT)
    }

    pub fn sys_flag(&self) -> i32 {
        self.u32_at(layout::SYS_FLAG_AT) as i32
    }

    /// Milliseconds.
    pub fn born_timestamp(&self) -> i64 {
        self.i64_at(layout::BORN_TIMESTAMP_AT)
    }

    pub fn born_host(&self) -> SocketAddr {
        self.host_at(layout::BORN_HOST_AT, sys_flag::BORN_HOST_V6)
    }

    /// Milliseconds.
    pub fn store_timestamp(&self) -> i64 {
        self.i64_at(self.store_timestamp_at as usize)
    }

    pub fn store_host(&self) -> SocketAddr {
        self.host_at(
            self.store_timestamp_at as usize + 8,
            sys_flag::STORE_HOST_V6,
        )
    }

    pub fn reconsume_times(&self) -> i32 {
        self.u32_at(self.reconsume_times_at as usize) as i32
    }

    pub fn prepared_transaction_offset(&self) -> i64 {
        self.i64_at(self.reconsume_times_at as usize + 4)
    }

    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.body_at as usize..][..self.body_len as usize]
    }

    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// See [`super::properties`].
    pub fn properties(&self) -> &'a [u8] {
        &self.bytes[self.properties_at as usize..]
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.bytes[at..]
            .first_chunk()
            .expect("parse checked every place");
        u32::from_be_bytes(*bytes)
    }

    fn i64_at(&self, at: usize) -> i64 {
        let bytes = self.bytes[at..]
            .first_chunk()
            .expect("parse checked every place");
        i64::from_be_bytes(*bytes)
    }

    fn host_at(&self, at: usize, v6_bit: i32) -> SocketAddr {
        let mut cursor = Cursor {
            bytes: self.bytes,
            at,
        };
        cursor
            .host(self.sys_flag() & v6_bit != 0)
            .expect("parse checked every place")
    }
}

impl fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordView")
            .field("topic", &self.topic)
            .field("queue_id", &self.queue_id())
            .field("queue_offset", &self.queue_offset())
            .field("physical_offset", &self.physical_offset())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        let stated = self.at.saturating_add(len);
        self.at += taken.map_or(0, |_| len);
        taken.ok_or(RecordError::Truncated {
            stated,
            given: self.bytes.len(),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i16_len(&mut self) -> Result<usize, RecordError> {
        let at = self.at;
        let len = i16::from_be_bytes(self.array()?);
        usize::try_from(len).map_err(|_| RecordError::BadLength { at })
    }

    fn topic_len(&mut self, magic: u32) -> Result<usize, RecordError> {
        if magic == layout::MAGIC_V2 {
            return self.i16_len();
        }
        let at = self.at;
        let [len] = self.array()?;
        let len = usize::from(len);
        if len > layout::TOPIC_V1_BYTES_MAX {
            Err(RecordError::BadLength { at })
        } else {
            Ok(len)
        }
    }

    fn host(&mut self, v6: bool) -> Result<SocketAddr, RecordError> {
        let ip: IpAddr = if v6 {
            Ipv6Addr::from(self.array::<16>()?).into()
        } else {
            Ipv4Addr::from(self.array::<4>()?).into()
        };
        let port = u16::try_from(self.u32()?).map_err(|_| RecordError::BadPort)?;
        Ok(SocketAddr::new(ip, port))
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::{Draft, Placed, encode, encode_summed, encoded_len};
    use super::*;
    use crate::base::crc::Joins;
    use proptest::prelude::*;

    const PLACED: Placed = Placed {
        queue_offset: 7,
        physical_offset: 1 << 40,
        store_timestamp: 1_700_000_000_001,
    };

    fn draft<'a>(topic: &'a str, born: &str, stored: &str) -> Draft<'a> {
        Draft {
            topic,
            queue_id: 3,
            flag: -9,
            sys_flag: sys_flag::COMPRESSED | sys_flag::BORN_HOST_V6,
            born_timestamp: 1_700_000_000_000,
            born_host: born.parse().unwrap(),
            store_host: stored.parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 11,
            body: b"some body",
            properties: b"TAGS\x01a\x02",
        }
    }

    fn check_round_trip(draft: &Draft<'_>, placed: Placed) {
        let mut out = b"before".to_vec();
        let crc = encode_summed(draft, placed, &mut out, &mut Joins::default());
        let record = &out[6..];
        assert_eq!(crc, crc32fast::hash(record));
        assert_eq!(record.len(), encoded_len(draft));
        let view = RecordView::parse(record).unwrap();
        assert_eq!(view.topic(), draft.topic);
        assert_eq!(view.body(), draft.body);
        assert_eq!(view.properties(), draft.properties);
        assert_eq!((view.queue_id(), view.flag()), (draft.queue_id, draft.flag));
        assert_eq!(view.queue_offset(), placed.queue_offset);
        assert_eq!(view.physical_offset(), placed.physical_offset);
        assert_eq!(view.store_timestamp(), placed.store_timestamp);
        assert_eq!(view.born_timestamp(), draft.born_timestamp);
        assert_eq!(view.born_host().ip(), draft.born_host.ip().to_canonical());
        assert_eq!(view.store_host().ip(), draft.store_host.ip().to_canonical());
        assert_eq!(view.born_host().port(), draft.born_host.port());
        assert_eq!(view.store_host().port(), draft.store_host.port());
        assert_eq!(view.reconsume_times(), draft.reconsume_times);
        assert_eq!(
            view.prepared_transaction_offset(),
            draft.prepared_transaction_offset
        );
        assert_eq!(view.is_v2(), draft.topic.len() > layout::TOPIC_V1_BYTES_MAX);
        assert!(view.has_valid_body_crc());
        let host_bits = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
        assert_eq!(view.sys_flag() & !host_bits, draft.sys_flag & !host_bits);
    }

    #[test]
    fn every_shape() {
        let long = "%RETRY%".to_string() + &"g".repeat(248);
        for topic in ["t", &long[..127], &long[..128], &long] {
            check_round_trip(&draft(topic, "10.0.0.1:5", "10.0.0.2:10911"), PLACED);
            check_round_trip(&draft(topic, "[fe80::1]:5", "10.0.0.2:10911"), PLACED);
            check_round_trip(&draft(topic, "10.0.0.1:5", "[::1]:10911"), PLACED);
            check_round_trip(&draft(topic, "[::ffff:1.2.3.4]:5", "[::1]:65535"), PLACED);
        }
    }

    #[test]
    fn limits_of_a_draft() {
        use super::super::encode::DraftError;
        let long = "t".repeat(256);
        let too_long = draft(&long, "1.1.1.1:1", "1.1.1.1:1").check();
        assert_eq!(too_long, Err(DraftError::TopicTooLong { bytes: 256 }));
        let properties = [0; 32_768];
        let too_long = Draft {
            properties: &properties,
            ..draft("t", "1.1.1.1:1", "1.1.1.1:1")
        }
        .check();
        assert_eq!(
            too_long,
            Err(DraftError::PropertiesTooLong { bytes: 32_768 })
        );
        let most = Draft {
            properties: &properties[1..],
            ..draft("t", "1.1.1.1:1", "1.1.1.1:1")
        };
        check_round_trip(&most, PLACED);
    }

    fn check_refused(change: impl Fn(&mut Vec<u8>), expected: RecordError) {
        let mut record = Vec::new();
        encode(&draft("t", "10.0.0.1:5", "10.0.0.2:6"), PLACED, &mut record);
        change(&mut record);
        assert_eq!(RecordView::parse(&record), Err(expected));
    }

    #[test]
    fn refused() {
        check_refused(
            |r| r[4] = 0,
            RecordError::UnknownMagic { magic: 0x00A3_20A7 },
        );
        check_refused(
            |r| r.truncate(100),
            RecordError::Truncated {
                stated: 108,
                given: 100,
            },
        );
        check_refused(
            |r| r[3] = 40,
            RecordError::Truncated {
                stated: 48 + 4,
                given: 40,
            },
        );
        check_refused(
            |r| r[84..88].copy_from_slice(&u32::MAX.to_be_bytes()),
            RecordError::Truncated {
                stated: 88 + u32::MAX as usize,
                given: 108,
            },
        );
        check_refused(|r| r[97] = 128, RecordError::BadLength { at: 97 });
        check_refused(|r| r[98] = 0xFF, RecordError::TopicNotUtf8);
        check_refused(|r| r[99] = 0xFF, RecordError::BadLength { at: 99 });
        check_refused(
            |r| r[100] = 6,
            RecordError::SizeMismatch {
                stated: 108,
                parts: 107,
            },
        );
        check_refused(|r| r[53] = 1, RecordError::BadPort);
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut record = Vec::new();
        encode(&draft("t", "[::1]:5", "10.0.0.2:6"), PLACED, &mut record);
        for len in 0..record.len() {
            assert!(RecordView::parse(&record[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn iteration_ends_at_damage() {
        let mut records = Vec::new();
        encode(
            &draft("a", "10.0.0.1:5", "10.0.0.2:6"),
            PLACED,
            &mut records,
        );
        encode(
            &draft("b", "10.0.0.1:5", "10.0.0.2:6"),
            PLACED,
            &mut records,
        );
        let topics: Vec<_> = RecordView::iter(&records)
            .map(|r| r.unwrap().topic())
            .collect();
        assert_eq!(topics, ["a", "b"]);
        records.push(0);
        assert_eq!(RecordView::iter(&records).filter(Result::is_err).count(), 1);
        assert_eq!(RecordView::iter(&records).count(), 3);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read(
            topic in "[%a-z]{0,200}",
            body in prop::collection::vec(any::<u8>(), 0..600),
            properties: Vec<u8>,
            born: std::net::IpAddr,
            stored: std::net::IpAddr,
            numbers: (i32, i32, i32, i32, u16),
            times: (i64, i64, i64, i64, i64),
        ) {
            let (queue_id, flag, sys_flag, reconsume_times, port) = numbers;
            let draft = Draft {
                topic: &topic,
                queue_id,
                flag,
                sys_flag,
                born_timestamp: times.0,
                born_host: SocketAddr::new(born, port),
                store_host: SocketAddr::new(stored, port),
                reconsume_times,
                prepared_transaction_offset: times.1,
                body: &body,
                properties: &properties,
            };
            let placed = Placed {
                queue_offset: times.2,
                physical_offset: times.3,
                store_timestamp: times.4,
            };
            check_round_trip(&draft, placed);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, total: u8, v2: bool) {
            RecordView::iter(&bytes).for_each(drop);
            if bytes.len() >= 8 {
                let magic = if v2 { layout::MAGIC_V2 } else { layout::MAGIC_V1 };
                bytes[..4].copy_from_slice(&u32::from(total).to_be_bytes());
                bytes[4..8].copy_from_slice(&magic.to_be_bytes());
                RecordView::iter(&bytes).for_each(drop);
            }
        }
    }
}
