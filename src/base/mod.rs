//! Words without a domain: offsets, time, disk orders, a deadline heap, tables.
//!
//! Nothing here knows what a message or a request is, and nothing here does I/O.

pub mod blocks;
pub mod crc;
pub mod cursor;
pub mod disk;
pub mod heap;
pub mod id;
pub mod lately;
pub mod map;
pub mod pages;
pub mod prefetch;
pub mod time;

pub use disk::{DiskError, Order, OrderId};
pub use id::{ConnId, LogOffset, QueueOffset, ShardId};
pub use map::{Map, Set};
pub use time::{Mono, Now};
