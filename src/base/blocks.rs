//! Growing memory that starts at a block boundary, so that direct I/O takes it without a copy.
//!
//! An ordinary vector with up to a block of slack in front: no unsafe code, and what is sealed is
//! an ordinary [`Bytes`]. Only [`BlockBuffer::reserve`] moves it, and keeps it at a boundary.

use crate::base::disk::BLOCK_BYTES;
use crate::base::prefetch;
use bytes::Bytes;

pub struct BlockBuffer {
    bytes: Vec<u8>,
    /// Where the first block begins.
    skip: usize,
    /// Bytes that fit behind that. Counted here, not asked of the vector, so that what is decided
    /// by it does not depend on addresses.
    room: usize,
}

impl BlockBuffer {
    /// Room for `capacity` bytes, in whole blocks.
    pub fn with_capacity(capacity: usize) -> BlockBuffer {
        let capacity = capacity.next_multiple_of(BLOCK_BYTES);
        BlockBuffer::over(Vec::with_capacity(capacity + BLOCK_BYTES))
    }

    /// The memory of something sealed, empty again; `None` if somebody else holds it too.
    pub fn reuse(mut sealed: Bytes) -> Option<BlockBuffer> {
        if !sealed.is_unique() {
            return None;
        }
        // Shorter first: what it held need not be moved to the front.
        sealed.truncate(0);
        let bytes = Vec::from(sealed);
        (bytes.capacity() >= 2 * BLOCK_BYTES).then(|| BlockBuffer::over(bytes))
    }

    /// Over an empty vector with a block of slack.
    fn over(mut bytes: Vec<u8>) -> BlockBuffer {
        let room = bytes.capacity() - BLOCK_BYTES;
        let skip = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        bytes.resize(skip, 0);
        BlockBuffer { bytes, skip, room }
    }

    /// `len` zeros.
    pub fn zeroed(len: usize) -> BlockBuffer {
        let bytes: Vec<u8> = vec![0; len + BLOCK_BYTES];
        let skip = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        let mut buffer = BlockBuffer {
            bytes,
            skip,
            room: len,
        };
        buffer.truncate(len);
        buffer
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.skip
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, for whoever counts it.
    pub fn capacity(&self) -> usize {
        self.room + BLOCK_BYTES
    }

    /// Makes room for `more` bytes, at least doubling what is there.
    pub fn reserve(&mut self, more: usize) {
        if self.room >= self.len() + more {
            return;
        }
        let mut larger = BlockBuffer::with_capacity((self.len() + more).max(2 * self.len()));
        larger.bytes.extend_from_slice(self);
        *self = larger;
    }

    /// To append to, within what was [reserved](Self::reserve).
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// So many bytes are appended soon.
    #[inline]
    pub fn expect(&self, more: usize) {
        let more = more.min(self.room.saturating_sub(self.len()));
        prefetch::for_write(self.bytes.as_ptr_range().end, more);
    }

    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.skip + len);
    }

    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.skip..)
    }
}

impl std::ops::Deref for BlockBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.skip..]
    }
}

impl std::ops::DerefMut for BlockBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skip..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(bytes: &[u8]) -> bool {
        bytes.as_ptr().align_offset(BLOCK_BYTES) == 0
    }

    #[test]
    fn stays_at_a_boundary_and_keeps_its_bytes() {
        let mut buffer = BlockBuffer::with_capacity(10);
        let mut expected = Vec::new();
        for n in 0..2000u32 {
            buffer.reserve(100);
            buffer.tail().extend_from_slice(&[n as u8; 100]);
            expected.extend_from_slice(&[n as u8; 100]);
            assert!(aligned(&buffer));
        }
        assert_eq!(*buffer, *expected);
        let sealed = buffer.into_bytes();
        assert!(aligned(&sealed));
        assert_eq!(sealed, expected);
    }

    #[test]
    fn sealed_memory_is_used_again_when_nobody_holds_it() {
        let mut buffer = BlockBuffer::with_capacity(3 * BLOCK_BYTES);
        let capacity = buffer.capacity();
        buffer.tail().extend_from_slice(b"first");
        let sealed = buffer.into_bytes();
        let (place, held) = (sealed.as_ptr(), sealed.clone());
        assert!(BlockBuffer::reuse(sealed).is_none());
        let again = BlockBuffer::reuse(held).unwrap();
        assert_eq!((again.as_ptr(), again.capacity()), (place, capacity));
        assert!(again.is_empty() && aligned(&again));
    }

    #[test]
    fn zeros_can_be_cut() {
        let mut buffer = BlockBuffer::zeroed(5000);
        assert_eq!((buffer.len(), aligned(&buffer)), (5000, true));
        buffer[4999] = 1;
        buffer.truncate(4999);
        assert!(!buffer.is_empty() && buffer.iter().all(|b| *b == 0));
    }
}
