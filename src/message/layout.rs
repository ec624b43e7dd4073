//! Where the fields of a record lie, and their limits.
//!
//! ```text
//!  0   4  total size            36   4  sysFlag
//!  4   4  magic                 40   8  born time, ms
//!  8   4  body CRC              48   h  born host: 4 or 16 address, 4 port
//! 12   4  queue id              ..   8  store time, ms
//! 16   4  flag                  ..   h  store host
//! 20   8  queue offset          ..   4  reconsume times
//! 28   8  physical offset       ..   8  prepared transaction offset
//! .. 4+n  body      .. 1+t (V1) or 2+t (V2)  topic      .. 2+p  properties
//! ```
//!
//! All big-endian. Sources: `MessageExtEncoder`, `MessageDecoder`, `MessageSysFlag`; spec page
//! store §1.

/// Magic of a record whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a record whose topic length is two bytes: only for topics above
/// [`TOPIC_V1_BYTES_MAX`], because clients other than Java cannot read it.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;

pub const TOTAL_SIZE_AT: usize = 0;
pub const MAGIC_AT: usize = 4;
pub const BODY_CRC_AT: usize = 8;
pub const QUEUE_ID_AT: usize = 12;
pub const FLAG_AT: usize = 16;
pub const QUEUE_OFFSET_AT: usize = 20;
pub const PHYSICAL_OFFSET_AT: usize = 28;
pub const SYS_FLAG_AT: usize = 36;
pub const BORN_TIMESTAMP_AT: usize = 40;
pub const BORN_HOST_AT: usize = 48;

/// Address and port.
pub const HOST_V4_BYTES: usize = 4 + 4;
pub const HOST_V6_BYTES: usize = 16 + 4;

/// Everything but hosts, body, topic and properties; the topic length counted as one byte.
pub(super) const FIXED_BYTES: usize = BORN_HOST_AT + 8 + 4 + 8 + 4 + 1 + 2;
/// A record with IPv4 hosts and nothing in it.
pub const RECORD_BYTES_MIN: usize = FIXED_BYTES + 2 * HOST_V4_BYTES;
const _: () = assert!(RECORD_BYTES_MIN == 91);

/// Longest topic with a one-byte length.
pub const TOPIC_V1_BYTES_MAX: usize = 127;
/// Longest topic at all (`TopicValidator`: retry and dead-letter names).
pub const TOPIC_BYTES_MAX: usize = 255;
/// Longest properties text: the length is a signed 16-bit field.
pub const PROPERTIES_BYTES_MAX: usize = 32_767;

/// The stored body CRC has its top bit cleared.
pub const BODY_CRC_MASK: u32 = 0x7FFF_FFFF;

/// Bits of sysFlag (`MessageSysFlag`).
pub mod sys_flag {
    pub const COMPRESSED: i32 = 1;
    pub const MULTI_TAGS: i32 = 2;
    /// Two bits: none, prepared, commit, rollback.
    pub const TRANSACTION_MASK: i32 = 3 << 2;
    pub const TRANSACTION_PREPARED: i32 = 1 << 2;
    pub const TRANSACTION_COMMIT: i32 = 2 << 2;
    pub const TRANSACTION_ROLLBACK: i32 = 3 << 2;
    pub const BORN_HOST_V6: i32 = 1 << 4;
    pub const STORE_HOST_V6: i32 = 1 << 5;
    pub const NEED_UNWRAP: i32 = 1 << 6;
    pub const INNER_BATCH: i32 = 1 << 7;
    /// Three bits: 0 zlib (old), 1 LZ4, 2 ZSTD, 3 zlib.
    pub const COMPRESSION_MASK: i32 = 7 << 8;
}
