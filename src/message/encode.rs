//! Appends one record in its stored layout ([`super::layout`]).
//!
//! The caller has checked the draft ([`Draft::check`]) and knows where the record goes. Host bits
//! of sysFlag always follow the addresses; an IPv4 address in IPv6 clothing is stored as IPv4.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::layout::{self, sys_flag};
use super::view::RecordView;
use crate::base::crc::{self, Joins};
use crate::base::cursor::set;

/// A message before it has a place.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    /// The user's own flag.
    pub flag: i32,
    /// [`sys_flag`] bits; those of the hosts are set here.
    pub sys_flag: i32,
    /// Milliseconds.
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    /// `name 0x01 value 0x02` list.
    pub properties: &'a [u8],
}

/// Where and when a record is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    pub queue_offset: i64,
    pub physical_offset: i64,
    /// Milliseconds.
    pub store_timestamp: i64,
}

/// A draft that no record can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DraftError {
    TopicTooLong { bytes: usize },
    PropertiesTooLong { bytes: usize },
    BodyTooLong { bytes: usize },
}

impl fmt::Display for DraftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, bytes, limit) = match *self {
            Self::TopicTooLong { bytes } => ("topic", bytes, layout::TOPIC_BYTES_MAX),
            Self::PropertiesTooLong { bytes } => {
                ("properties", bytes, layout::PROPERTIES_BYTES_MAX)
            }
            Self::BodyTooLong { bytes } => ("body", bytes, BODY_BYTES_MAX),
        };
        write!(f, "the {part} of {bytes} bytes passes the limit of {limit}")
    }
}

impl std::error::Error for DraftError {}

/// Beyond any frame; the configured `maxMessageSize` is far below.
const BODY_BYTES_MAX: usize = 1 << 30;

impl<'a> Draft<'a> {
    /// The same message once more.
    pub fn of(view: &RecordView<'a>) -> Draft<'a> {
        Draft {
            topic: view.topic(),
            queue_id: view.queue_id(),
            flag: view.flag(),
            sys_flag: view.sys_flag(),
            born_timestamp: view.born_timestamp(),
            born_host: view.born_host(),
            store_host: view.store_host(),
            reconsume_times: view.reconsume_times(),
            prepared_transaction_offset: view.prepared_transaction_offset(),
            body: view.body(),
            properties: view.properties(),
        }
    }

    /// Whether the length fields of the layout can state this draft.
    pub fn check(&self) -> Result<(), DraftError> {
        if self.topic.len() > layout::TOPIC_BYTES_MAX {
            return Err(DraftError::TopicTooLong {
                bytes: self.topic.len(),
            });
        }
        if self.properties.len() > layout::PROPERTIES_BYTES_MAX {
            return Err(DraftError::PropertiesTooLong {
                bytes: self.properties.len(),
            });
        }
        if self.body.len() > BODY_BYTES_MAX {
            return Err(DraftError::BodyTooLong {
                bytes: self.body.len(),
            });
        }
        Ok(())
    }

    fn is_v2(&self) -> bool {
        self.topic.len() > layout::TOPIC_V1_BYTES_MAX
    }
}

/// Bytes the record will take.
pub fn encoded_len(draft: &Draft<'_>) -> usize {
    layout::FIXED_BYTES
        + host_len(draft.born_host)
        + host_len(draft.store_host)
        + draft.body.len()
        + usize::from(draft.is_v2())
        + draft.topic.len()
        + draft.properties.len()
}

/// Appends the record to `out`. The draft must pass [`Draft::check`].
pub fn encode(draft: &Draft<'_>, placed: Placed, out: &mut Vec<u8>) {
    Parts::of(draft, placed).put(out);
}

/// The same. Gives the record's CRC-32.
#[inline]
pub fn encode_summed(
    draft: &Draft<'_>,
    placed: Placed,
    out: &mut Vec<u8>,
    joins: &mut Joins,
) -> u32 {
    let parts = Parts::of(draft, placed);
    // Of the parts where they are: who reads what was just written to memory that no cache holds
    // waits until it is there.
    let crc = parts.checksum(joins);
    parts.put(out);
    crc
}

/// A record in the pieces that it is appended from.
struct Parts<'a> {
    total: usize,
    body_crc32: u32,
    head: Head,
    body: &'a [u8],
    topic: Topic,
    properties: &'a [u8],
}

impl<'a> Parts<'a> {
    #[inline]
    fn of(draft: &Draft<'a>, placed: Placed) -> Parts<'a> {
        assert!(
            draft.check().is_ok(),
            "drafts are checked when they come in"
        );
        let total = encoded_len(draft);
        let body_crc32 = crc32fast::hash(draft.body);
        let mut head = Head::new(draft, placed, total as u32, body_crc32);
        head.put_host(draft.born_host);
        head.put(placed.store_timestamp.to_be_bytes());
        head.put_host(draft.store_host);
        head.put(draft.reconsume_times.to_be_bytes());
        head.put(draft.prepared_transaction_offset.to_be_bytes());
        head.put((draft.body.len() as u32).to_be_bytes());
        Parts {
            total,
            body_crc32,
            head,
            body: draft.body,
            topic: Topic::of(draft),
            properties: draft.properties,
        }
    }

    #[inline]
    fn checksum(&self, joins: &mut Joins) -> u32 {
        let head = crc32fast::hash(self.head.bytes());
        let crc = joins.join(head, self.body_crc32, self.body);
        crc::resume(crc::resume(crc, self.topic.bytes()), self.properties)
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(self.total);
        out.extend_from_slice(self.head.bytes());
        out.extend_from_slice(self.body);
        out.extend_from_slice(self.topic.bytes());
        out.extend_from_slice(self.properties);
        assert_eq!(
            out.len() - start,
            self.total,
            "the stated size is the written size"
        );
    }
}

/// The part between body and properties: the topic with its length, and the length of the
/// properties.
struct Topic {
    bytes: [u8; TOPIC_PART_BYTES_MAX],
    len: usize,
}

const TOPIC_PART_BYTES_MAX: usize = 2 + layout::TOPIC_BYTES_MAX + 2;

impl Topic {
    #[inline]
    fn of(draft: &Draft<'_>) -> Topic {
        let topic = draft.topic.as_bytes();
        let mut bytes = [0; TOPIC_PART_BYTES_MAX];
        let at = if draft.is_v2() {
            set(&mut bytes, 0, (topic.len() as u16).to_be_bytes());
            2
        } else {
            set(&mut bytes, 0, [topic.len() as u8]);
            1
        };
        let end = at + topic.len();
        bytes[at..end].copy_from_slice(topic);
        set(
            &mut bytes,
            end,
            (draft.properties.len() as u16).to_be_bytes(),
        );
        let len = end + 2;
        Topic { bytes, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The part before the body, gathered here so that the buffer grows once for it.
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

const HEAD_BYTES_MAX: usize = layout::BORN_HOST_AT + 2 * layout::HOST_V6_BYTES + 8 + 4 + 8 + 4;

impl Head {
    /// The fields at fixed places.
    fn new(draft: &Draft<'_>, placed: Placed, total: u32, body_crc32: u32) -> Head {
        let magic = if draft.is_v2() {
            layout::MAGIC_V2
        } else {
            layout::MAGIC_V1
        };
        let mut bytes = [0; HEAD_BYTES_MAX];
        let mut put_u32 = |at: usize, value: u32| {
            set(&mut bytes, at, value.to_be_bytes());
        };
        put_u32(layout::TOTAL_SIZE_AT, total);
        put_u32(layout::MAGIC_AT, magic);
        put_u32(layout::BODY_CRC_AT, body_crc32 & layout::BODY_CRC_MASK);
        put_u32(layout::QUEUE_ID_AT, draft.queue_id as u32);
        put_u32(layout::FLAG_AT, draft.flag as u32);
        put_u32(layout::SYS_FLAG_AT, stored_sys_flag(draft) as u32);
        let mut put_i64 = |at: usize, value: i64| {
            set(&mut bytes, at, value.to_be_bytes());
        };
        put_i64(layout::QUEUE_OFFSET_AT, placed.queue_offset);
        put_i64(layout::PHYSICAL_OFFSET_AT, placed.physical_offset);
        put_i64(layout::BORN_TIMESTAMP_AT, draft.born_timestamp);
        let len = layout::BORN_HOST_AT;
        Head { bytes, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        set(&mut self.bytes, self.len, field);
        self.len += N;
    }

    fn put_host(&mut self, host: SocketAddr) {
        match host.ip().to_canonical() {
            IpAddr::V4(ip) => self.put(ip.octets()),
            IpAddr::V6(ip) => self.put(ip.octets()),
        }
        self.put(u32::from(host.port()).to_be_bytes());
    }
}

fn stored_sys_flag(draft: &Draft<'_>) -> i32 {
    let mut flags = draft.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6);
    if draft.born_host.ip().to_canonical().is_ipv6() {
        flags |= sys_flag::BORN_HOST_V6;
    }
    if draft.store_host.ip().to_canonical().is_ipv6() {
        flags |= sys_flag::STORE_HOST_V6;
    }
    flags
}

fn host_len(host: SocketAddr) -> usize {
    if host.ip().to_canonical().is_ipv6() {
        layout::HOST_V6_BYTES
    } else {
        layout::HOST_V4_BYTES
    }
}
