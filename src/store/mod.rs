//! What is on disk. Decides, never does I/O: everything goes through [`crate::base::disk`].

mod chunk;
pub mod consumequeue;
pub mod entries;
pub mod index;
pub mod merge;
pub mod read;
pub mod runs;
