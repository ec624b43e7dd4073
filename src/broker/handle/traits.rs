//! What the properties of a message mean to the broker, and what becomes of each.

use crate::broker::topics::Topic;
use crate::message::names;
use crate::message::properties::{self, Item, VALUE_END};
use crate::store::dispatch::Dispatch;

/// What the broker must know of a message's properties.
#[derive(Default, Debug)]
pub struct Traits {
    /// It has a delay level, if only one that means none.
    pub delayed: bool,
    pub delay_level: usize,
    pub transaction: bool,
    pub timer: bool,
    pub has_key: bool,
    pub sharded: bool,
    /// It names light queues.
    pub light: bool,
    /// It names a lite topic.
    pub lite: bool,
    /// Which queue it wants, by how urgent it is.
    pub priority: Option<i32>,
    pub dispatch: Dispatch,
}

/// What becomes of a property.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is not stored.
    Dropped,
    /// It is stored, and its value matters to the broker.
    Heeded,
    /// It is stored, and its value matters to indexes at most.
    Stored,
}

impl Traits {
    /// Takes all properties of a message, and appends those that are stored, as they are stored.
    pub fn of(topic: &str, given: &[u8], light: bool, stored: &mut Vec<u8>) -> Traits {
        let mut traits = Traits::default();
        for Item { name, value, text } in properties::items(given) {
            if traits.note(name, value, light) == Fate::Dropped {
                continue;
            }
            stored.extend_from_slice(text);
            stored.push(VALUE_END);
            traits.dispatch.property(topic, name, value);
        }
        traits
    }

    /// Takes note of the next property. `light`: whether there are light queues.
    #[inline]
    pub fn note(&mut self, name: &[u8], value: &[u8], light: bool) -> Fate {
        match name {
            // Its absence says the same.
            b"WAIT" if value == b"true" => return Fate::Dropped,
            b"POP_CK" | b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER" => return Fate::Dropped,
            b"INNER_MULTI_QUEUE_OFFSET" if light => return Fate::Dropped,
            _ if name.starts_with(names::TRANSIENT_PREFIX.as_bytes()) => return Fate::Dropped,
            b"DELAY" => (self.delayed, self.delay_level) = (true, number(value)),
            b"TRAN_MSG" => self.transaction = value.eq_ignore_ascii_case(b"true"),
            b"_SYS_MSG_PRIORITY_" => {
                let text = std::str::from_utf8(value).ok();
                let number = text.and_then(|text| text.parse().ok());
                self.priority = number.filter(|priority| *priority >= 0);
            }
            b"INNER_MULTI_DISPATCH" => self.light = light,
            b"__LITE_TOPIC" if light => self.lite = true,
            b"TIMER_DELIVER_MS" | b"TIMER_DELAY_SEC" | b"TIMER_DELAY_MS" => self.timer = true,
            b"WAIT" | b"INNER_MULTI_QUEUE_OFFSET" | b"__LITE_TOPIC" => {}
            b"UNIQ_KEY" => {
                self.has_key = true;
                return Fate::Stored;
            }
            b"__SHARDINGKEY" => {
                self.sharded = true;
                return Fate::Stored;
            }
            _ => return Fate::Stored,
        }
        Fate::Heeded
    }

    /// The priority counts for messages that are nothing else besides
    /// (`TopicMessageType.parseFromMessageProperty`).
    fn is_special(&self) -> bool {
        self.transaction || self.delayed || self.timer || self.sharded
    }

    /// The same of another message.
    #[inline]
    pub fn with(&self, dispatch: Dispatch) -> Traits {
        Traits { dispatch, ..*self }
    }

    /// Whether it goes as it is into the queue it is sent to.
    pub fn is_plain(&self) -> bool {
        !self.is_deferred() && !self.light && !self.lite && self.priority.is_none()
    }

    /// Whether it is not to be seen at once.
    pub fn is_deferred(&self) -> bool {
        self.transaction || self.delay_level > 0 || self.timer
    }

    /// The queue for it if its sender wants `queue_id`.
    pub fn queue(&self, topic: &Topic, queue_id: i32, stored: &mut Vec<u8>) -> i32 {
        match self.priority {
            Some(_) if self.is_special() => {
                properties::remove(stored, names::PRIORITY);
                queue_id
            }
            Some(priority) => priority.min(topic.config.write_queue_nums - 1),
            None => queue_id,
        }
    }
}

/// A number in digits, 0 if it is none.
pub fn number(digits: &[u8]) -> usize {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
