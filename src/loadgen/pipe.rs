//! Requests in flight on one connection: each has a slot, whose number is its opaque, and the
//! moment it was due.
//!
//! What always holds: a slot is free or in flight; an answer to anything else ends the run.

use std::collections::VecDeque;

use super::link::Link;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// When the request was due, nanoseconds; `None` while free.
    due: Option<u64>,
    /// What the request is about, the worker's to know.
    tag: usize,
}

pub struct Pipe {
    pub link: Link,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Where the frames end that the socket has not taken yet.
    ends: VecDeque<u64>,
}

/// What an answered request was.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub due: u64,
    pub tag: usize,
}

impl Pipe {
    pub fn new(link: Link, depth: usize) -> Self {
        let slots = vec![Slot { due: None, tag: 0 }; depth];
        Pipe {
            link,
            slots,
            free: (0..depth).rev().collect(),
            ends: VecDeque::new(),
        }
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Writes one request; `encode` gets the buffer and the opaque to use.
    pub fn ask(&mut self, due: u64, tag: usize, encode: impl FnOnce(&mut Vec<u8>, i32)) {
        let slot = self.free.pop().expect("the caller looked for room");
        self.slots[slot] = Slot {
            due: Some(due),
            tag,
        };
        encode(&mut self.link.out, slot as i32);
        self.ends.push_back(self.link.written());
    }

    /// Moves bytes: out without waiting, in until at least one answer has come or, on a link that
    /// never waits, none is there.
    pub fn exchange(&mut self) -> Result<bool, String> {
        self.link.push()?;
        let taken = self.link.taken();
        while self.ends.front().is_some_and(|end| *end <= taken) {
            self.ends.pop_front();
        }
        if self.in_flight() == self.ends.len() {
            // No whole request has left, so no answer can be due.
            self.link.push_all()?;
            self.ends.clear();
        }
        self.link.receive()
    }

    /// Frees the slot of an answer.
    pub fn answered(&mut self, opaque: i32) -> Result<Answered, String> {
        let slot = usize::try_from(opaque)
            .ok()
            .filter(|slot| *slot < self.slots.len());
        let found = slot.and_then(|slot| Some((slot, self.slots[slot].due.take()?)));
        let (slot, due) = found.ok_or(format!("an answer came to no request, opaque {opaque}"))?;
        self.free.push(slot);
        Ok(Answered {
            due,
            tag: self.slots[slot].tag,
        })
    }
}
