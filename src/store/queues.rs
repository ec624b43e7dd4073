//! Which queues live in this shard, by name and by slot, and how far readers may see each.
//!
//! A slot is a small number that stands for a queue in the index. That of a dropped queue is used
//! again only when nobody can still mean the old queue by it ([`REST_MS`]). The log itself says
//! which queues it holds (`QueueOpened`, `QueueDropped`), so a shard's recovery needs nobody else.
//!
//! | record | payload, big-endian |
//! |---|---|
//! | `QueueOpened` | slot u32, topic id u64, queue id i32, topic (u16 length, UTF-8) |
//! | `QueueDropped` | slot u32 |
//! | `QueuePosition` (snapshot only) | slot u32, min offset u64, next offset u64, born u64 |

use crate::base::cursor::{Cursor, put_text};
use crate::base::{LogOffset, Map, Mono, QueueOffset};
use crate::store::consumequeue::{QueueSlot, QueueState, SLOTS_MAX};
use std::collections::VecDeque;
use std::sync::Arc;

/// Layout version of the payloads above.
pub const VERSION: u16 = 1;

/// Queues one shard can hold; `design.md` §3.3 asks for 200,000.
pub const QUEUES_MAX: usize = 1 << 20;

/// How long a dropped queue's slot rests: longer than any reader waits.
pub const REST_MS: u64 = 600_000;

/// A queue of this shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    pub topic: Arc<str>,
    /// Tells a topic from its namesake that was deleted before.
    pub topic_id: u64,
    pub queue_id: i32,
    /// Readers see messages below this offset.
    pub visible: QueueOffset,
    growth: Growth,
}

/// What was appended to a queue since somebody asked last; not what was there at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    pub messages: u64,
    /// Of whole records.
    pub bytes: u64,
    /// A batch is one.
    pub sends: u64,
}

#[derive(Default)]
pub struct Queues {
    slots: Vec<Option<Queue>>,
    topics: Map<Arc<str>, Vec<Option<QueueSlot>>>,
    open: usize,
    /// Slots of dropped queues: what the log must confirm, and until when they rest.
    resting: VecDeque<(QueueSlot, LogOffset, Mono)>,
    /// Queues with growth that nobody has asked for; may name one that is gone.
    grown: Vec<QueueSlot>,
}

impl Queues {
    pub fn find(&self, topic: &str, queue_id: i32) -> Option<QueueSlot> {
        *self
            .topics
            .get(topic)?
            .get(usize::try_from(queue_id).ok()?)?
    }

    pub fn queue(&self, slot: QueueSlot) -> Option<&Queue> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub fn queue_mut(&mut self, slot: QueueSlot) -> Option<&mut Queue> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    pub fn len(&self) -> usize {
        self.open
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The slot for a queue that is opened now; `None` if there are too many.
    pub fn next_slot(&self, now: Mono, confirmed: LogOffset) -> Option<QueueSlot> {
        if self.open >= QUEUES_MAX {
            return None;
        }
        let front = self.resting.front();
        let rested = front.filter(|(_, end, until)| *end <= confirmed && *until <= now);
        let fresh = self.slots.len() as u32;
        match rested {
            Some((slot, ..)) => Some(*slot),
            None => (fresh < SLOTS_MAX).then_some(QueueSlot(fresh)),
        }
    }

    /// The slot of a queue whose drop the log says up to `end` rests.
    pub fn rest(&mut self, slot: QueueSlot, end: LogOffset, now: Mono) {
        let until = now.after_ms(REST_MS);
        self.resting.push_back((slot, end, until));
    }

    /// After a start nobody waits: unused slots below others may be used at once.
    pub fn rest_unused(&mut self) {
        let unused = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, queue)| queue.is_none());
        let unused = unused.map(|(n, _)| (QueueSlot(n as u32), LogOffset(0), Mono(0)));
        self.resting = unused.collect();
    }

    pub fn iter(&self) -> impl Iterator<Item = (QueueSlot, &Queue)> {
        let with_slot = self.slots.iter().enumerate();
        with_slot.filter_map(|(n, queue)| Some((QueueSlot(n as u32), queue.as_ref()?)))
    }

    /// Enters a queue under `slot`; replaces a namesake.
    pub fn open(&mut self, slot: QueueSlot, topic: &str, topic_id: u64, queue_id: i32) {
        let number = usize::try_from(queue_id).expect("queue ids are checked before");
        let at = slot.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        assert!(self.slots[at].is_none(), "a slot has one queue at a time");
        if self
            .resting
            .front()
            .is_some_and(|(first, ..)| *first == slot)
        {
            self.resting.pop_front();
        }
        let topic: Arc<str> = match self.topics.get_key_value(topic) {
            Some((known, _)) => known.clone(),
            None => topic.into(),
        };
        let queues = self.topics.entry(topic.clone()).or_default();
        if queues.len() <= number {
            queues.resize(number + 1, None);
        }
        queues[number] = Some(slot);
        self.open += 1;
        self.slots[at] = Some(Queue {
            topic,
            topic_id,
            queue_id,
            visible: QueueOffset(0),
            growth: Growth::default(),
        });
    }

    /// A message was appended.
    pub fn grow(&mut self, slot: QueueSlot, bytes: usize) {
        let queue = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        let growth = &mut queue.expect("messages go to open queues").growth;
        if growth.messages == 0 {
            self.grown.push(slot);
        }
        growth.messages += 1;
        growth.bytes += bytes as u64;
        growth.sends += 1;
    }

    /// The last messages appended, so many, came with one send.
    pub fn count_as_one(&mut self, slot: QueueSlot, messages: usize) {
        if let Some(queue) = self.queue_mut(slot) {
            queue.growth.sends -= (messages as u64).saturating_sub(1);
        }
    }

    pub fn has_grown(&self) -> bool {
        !self.grown.is_empty()
    }

    /// Topic ids with what their queues have grown by since the last call.
    pub fn take_growth(&mut self) -> impl Iterator<Item = (u64, Growth)> + '_ {
        let slots = &mut self.slots;
        self.grown.drain(..).filter_map(|slot| {
            let queue = slots.get_mut(slot.0 as usize)?.as_mut()?;
            Some((queue.topic_id, std::mem::take(&mut queue.growth)))
        })
    }

    pub fn drop_queue(&mut self, slot: QueueSlot) {
        let Some(queue) = self.slots.get_mut(slot.0 as usize).and_then(Option::take) else {
            return;
        };
        self.open -= 1;
        let Some(queues) = self.topics.get_mut(&queue.topic) else {
            return;
        };
        let number = queue.queue_id as usize;
        if queues[number] == Some(slot) {
            queues[number] = None;
        }
        if queues.iter().all(Option::is_none) {
            self.topics.remove(&queue.topic);
        }
    }
}

/// A decoded queue record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueRecord<'a> {
    Opened {
        slot: QueueSlot,
        topic: &'a str,
        topic_id: u64,
        queue_id: i32,
    },
    Dropped {
        slot: QueueSlot,
    },
    Position(QueueState),
}

impl<'a> QueueRecord<'a> {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        match *self {
            QueueRecord::Opened {
                slot,
                topic,
                topic_id,
                queue_id,
            } => {
                out.extend_from_slice(&slot.0.to_be_bytes());
                out.extend_from_slice(&topic_id.to_be_bytes());
                out.extend_from_slice(&queue_id.to_be_bytes());
                put_text(&mut out, topic);
            }
            QueueRecord::Dropped { slot } => out.extend_from_slice(&slot.0.to_be_bytes()),
            QueueRecord::Position(state) => {
                out.extend_from_slice(&state.slot.0.to_be_bytes());
                for offset in [state.min.0, state.next.0, state.born.0] {
                    out.extend_from_slice(&offset.to_be_bytes());
                }
            }
        }
        out
    }

    pub fn decode_opened(payload: &'a [u8]) -> Option<QueueRecord<'a>> {
        let mut c = Cursor::new(payload);
        let (slot, topic_id, queue_id) = (QueueSlot(c.u32()?), c.u64()?, c.i32()?);
        if queue_id < 0 || slot.0 as usize >= u32::MAX as usize / 2 {
            return None;
        }
        Some(QueueRecord::Opened {
            slot,
            topic_id,
            queue_id,
            topic: c.text()?,
        })
    }

    pub fn decode_dropped(payload: &[u8]) -> Option<QueueRecord<'a>> {
        Some(QueueRecord::Dropped {
            slot: QueueSlot(Cursor::new(payload).u32()?),
        })
    }

    pub fn decode_position(payload: &[u8]) -> Option<QueueRecord<'a>> {
        let mut c = Cursor::new(payload);
        let slot = QueueSlot(c.u32()?);
        let (min, next) = (QueueOffset(c.u64()?), QueueOffset(c.u64()?));
        let born = LogOffset(c.u64()?);
        (min <= next).then_some(QueueRecord::Position(QueueState {
            slot,
            min,
            next,
            born,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_once() {
        let mut queues = Queues::default();
        for slot in 0..3 {
            queues.open(QueueSlot(slot), "t", 7, slot as i32);
        }
        (0..5).for_each(|_| queues.grow(QueueSlot(1), 10));
        queues.count_as_one(QueueSlot(1), 4);
        queues.grow(QueueSlot(2), 1);
        queues.drop_queue(QueueSlot(2));
        let growth = Growth {
            messages: 5,
            bytes: 50,
            sends: 2,
        };
        assert!(queues.has_grown());
        assert_eq!(queues.take_growth().collect::<Vec<_>>(), [(7, growth)]);
        assert!(!queues.has_grown() && queues.take_growth().next().is_none());
    }

    #[test]
    fn finds_by_name_until_dropped() {
        let mut queues = Queues::default();
        queues.open(QueueSlot(0), "t", 1, 0);
        queues.open(QueueSlot(1), "t", 1, 3);
        assert_eq!(queues.find("t", 3), Some(QueueSlot(1)));
        assert_eq!(
            (
                queues.find("t", 1),
                queues.find("t", -1),
                queues.find("u", 0)
            ),
            Default::default()
        );
        queues.drop_queue(QueueSlot(1));
        assert_eq!((queues.find("t", 3), queues.len()), (None, 1));
        let (early, late) = (Mono(5), Mono(5 + REST_MS));
        queues.rest(QueueSlot(1), LogOffset(9), early);
        let next = |queues: &Queues, now, at| queues.next_slot(now, LogOffset(at));
        assert_eq!(next(&queues, early, 9), Some(QueueSlot(2)), "it rests");
        assert_eq!(next(&queues, late, 8), Some(QueueSlot(2)), "not confirmed");
        assert_eq!(next(&queues, late, 9), Some(QueueSlot(1)));
        queues.open(QueueSlot(1), "v", 2, 0);
        assert_eq!(next(&queues, late, 9), Some(QueueSlot(2)), "once");
        queues.drop_queue(QueueSlot(0));
        queues.rest_unused();
        assert_eq!(next(&queues, Mono(0), 0), Some(QueueSlot(0)));
    }

    #[test]
    fn records_come_back_and_short_ones_are_refused() {
        let opened = QueueRecord::Opened {
            slot: QueueSlot(7),
            topic: "t",
            topic_id: 9,
            queue_id: 2,
        };
        let bytes = opened.encode();
        assert_eq!(
            bytes,
            [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 1, b't']
        );
        assert_eq!(QueueRecord::decode_opened(&bytes), Some(opened));
        assert_eq!(QueueRecord::decode_opened(&bytes[..18]), None);
        let (min, next) = (QueueOffset(1), QueueOffset(5));
        let state = QueueState {
            slot: QueueSlot(7),
            min,
            next,
            born: LogOffset(9),
        };
        let position = QueueRecord::Position(state);
        assert_eq!(
            QueueRecord::decode_position(&position.encode()),
            Some(position)
        );
        let dropped = QueueRecord::Dropped { slot: QueueSlot(7) };
        assert_eq!(
            QueueRecord::decode_dropped(&dropped.encode()),
            Some(dropped)
        );
    }
}
