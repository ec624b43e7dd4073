//! What a group holds of a queue it pops in order: one batch, and nothing else comes out of the
//! queue for the group until all of it is acknowledged or visible again.
//!
//! Encoded, big-endian: pop time i64, wait ms i64, attempt (text), count u16, then for each message
//! its offset u64, visible i64, times u32, acknowledged u8.
//!
//! Source: `ConsumerOrderInfoManager`; `spec/semantics.md` §8.

use crate::base::Now;
use crate::base::cursor::{Cursor, put_text};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub pop_ms: i64,
    wait_ms: i64,
    /// Who asks again with this gets the same messages again.
    attempt: String,
    messages: Vec<Message>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Message {
    offset: u64,
    /// From then on others may have it, wall ms.
    visible_ms: i64,
    /// How often it was handed out before.
    times: u32,
    acknowledged: bool,
}

/// What became of an acknowledgement in a queue that is popped in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ordered {
    /// The group goes on from here.
    Next(u64),
    /// It was of another pop.
    Stale,
    /// The group does not hold this message.
    Unknown,
}

impl Held {
    /// Messages are handed out, after those of `before`.
    pub fn new(
        now: Now,
        wait_ms: i64,
        attempt: &str,
        offsets: &[u64],
        before: Option<&Held>,
    ) -> Held {
        let visible_ms = now.wall_ms.saturating_add(wait_ms);
        let message = |offset: &u64| Message {
            offset: *offset,
            visible_ms,
            times: before.map_or(0, |before| before.times_of(*offset, attempt)),
            acknowledged: false,
        };
        Held {
            pop_ms: now.wall_ms,
            wait_ms,
            attempt: attempt.to_owned(),
            messages: offsets.iter().map(message).collect(),
        }
    }

    /// How often each message was handed out before.
    pub fn times(&self) -> Vec<u32> {
        self.messages.iter().map(|message| message.times).collect()
    }

    /// Whether a pop of `attempt` must wait.
    pub fn blocks(&self, now: Now, attempt: &str) -> bool {
        if !self.attempt.is_empty() && self.attempt == attempt {
            return false;
        }
        let mut messages = self.messages.iter();
        messages.any(|message| !message.acknowledged && now.wall_ms < message.visible_ms)
    }

    /// When all that is not acknowledged is visible again.
    pub fn free_ms(&self) -> Option<i64> {
        let waiting = self.messages.iter().filter(|message| !message.acknowledged);
        waiting.map(|message| message.visible_ms).max()
    }

    /// A message is consumed.
    pub fn acknowledge(&mut self, offset: u64, pop_ms: i64) -> Ordered {
        if self.pop_ms != pop_ms {
            return Ordered::Stale;
        }
        let Some(message) = self.message(offset) else {
            return Ordered::Unknown;
        };
        message.acknowledged = true;
        let open = self.messages.iter().find(|message| !message.acknowledged);
        let last = self.messages.last();
        let last = last.map_or(offset, |message| message.offset);
        Ordered::Next(open.map_or(last + 1, |message| message.offset))
    }

    /// When a message can be had again; false if it is not one of this pop.
    pub fn change(&mut self, offset: u64, pop_ms: i64, visible_ms: i64) -> bool {
        let ours = self.pop_ms == pop_ms;
        let message = self.message(offset).filter(|_| ours);
        message
            .map(|message| message.visible_ms = visible_ms)
            .is_some()
    }

    /// A pop gives all that is left of it back, to be had again from then on; it does not count as
    /// a try of what was tried before (`MemoryConsumerOrderInfoManager.suspendQueue`). False if it
    /// is another pop's.
    pub fn suspend(&mut self, pop_ms: i64, visible_ms: i64) -> bool {
        if self.pop_ms != pop_ms {
            return false;
        }
        for message in &mut self.messages {
            message.times = message.times.saturating_sub(1);
            message.visible_ms = visible_ms;
        }
        true
    }

    fn message(&mut self, offset: u64) -> Option<&mut Message> {
        let mut messages = self.messages.iter_mut();
        messages.find(|message| message.offset == offset)
    }

    /// How often a message was handed out before a pop of `attempt`.
    fn times_of(&self, offset: u64, attempt: &str) -> u32 {
        let mut messages = self.messages.iter();
        let known = messages.find(|message| message.offset == offset);
        let again = !self.attempt.is_empty() && self.attempt == attempt;
        known.map_or(0, |known| known.times + u32::from(!again))
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pop_ms.to_be_bytes());
        out.extend_from_slice(&self.wait_ms.to_be_bytes());
        put_text(out, &self.attempt);
        out.extend_from_slice(&(self.messages.len() as u16).to_be_bytes());
        for message in &self.messages {
            out.extend_from_slice(&message.offset.to_be_bytes());
            out.extend_from_slice(&message.visible_ms.to_be_bytes());
            out.extend_from_slice(&message.times.to_be_bytes());
            out.push(u8::from(message.acknowledged));
        }
    }

    pub fn decode(c: &mut Cursor<'_>) -> Option<Held> {
        let (pop_ms, wait_ms) = (c.i64()?, c.i64()?);
        let attempt = c.text()?.to_owned();
        let mut messages = Vec::new();
        for _ in 0..c.u16()? {
            messages.push(Message {
                offset: c.u64()?,
                visible_ms: c.i64()?,
                times: c.u32()?,
                acknowledged: c.u8()? != 0,
            });
        }
        Some(Held {
            pop_ms,
            wait_ms,
            attempt,
            messages,
        })
    }
}
