//! Bytes as they came, until they are whole frames.

use crate::remoting::frame::{FrameError, frame_len};

pub struct Inbox {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Inbox {
    pub fn new(bytes_max: usize) -> Inbox {
        Inbox {
            bytes: vec![0; bytes_max],
            from: 0,
            to: 0,
        }
    }

    /// Where more bytes go. Empty when frames have to be taken out first.
    pub fn room(&mut self) -> &mut [u8] {
        if self.from > 0 {
            self.bytes.copy_within(self.from..self.to, 0);
            self.to -= self.from;
            self.from = 0;
        }
        &mut self.bytes[self.to..]
    }

    /// So many bytes were put at the start of [`room`](Self::room).
    pub fn received(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.to, "no more than had room");
        self.to += count;
    }

    /// The next whole frame if `take` takes it; it stays if not.
    pub fn next(&mut self, take: impl FnOnce(&[u8]) -> bool) -> Result<bool, String> {
        let bytes = &self.bytes[self.from..self.to];
        let whole = frame_len(bytes).map_err(unreadable)?;
        let Some(frame) = whole.and_then(|len| bytes.get(..len)) else {
            return match whole {
                Some(len) if len > self.bytes.len() => Err(format!(
                    "a frame of {len} bytes does not fit in {}",
                    self.bytes.len()
                )),
                _ => Ok(false),
            };
        };
        let len = frame.len();
        let taken = take(frame);
        if taken {
            self.from += len;
        }
        Ok(taken)
    }

    /// Takes all whole frames; how many there were.
    pub fn count(&mut self) -> Result<u64, String> {
        let mut count = 0;
        while self.next(|_| true)? {
            count += 1;
        }
        Ok(count)
    }
}

fn unreadable(error: FrameError) -> String {
    format!("something unreadable was received: {error}")
}
