//! What the indexes need to know of a message, from its topic and properties alone: so that the
//! same is found when it is appended and when the log is replayed.
//!
//! Source: `CommitLog.checkMessageAndReturnSize` (tag hash), `IndexService.buildIndex` (keys); the
//! latter also indexes the tag of 5.5.0, `spec/delta-5.5.md` §8.

use crate::filter::tag::java_hash_utf8;
use crate::message::{names, properties};
use crate::store::index::key_hash;
use smallvec::SmallVec;

/// `KEYS` of one message that are indexed; more are left out.
const KEYS_MAX: usize = 64;

/// Queues of this topic hold what is due in one hour each.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Milliseconds of such a queue.
pub const TIMER_QUEUE_MS: i64 = 3_600_000;

/// When in its hour a message of [`TIMER_TOPIC`] is due, ms.
fn due_within(stored: &[u8]) -> u32 {
    let due_ms = properties::find_str(stored, names::TIMER_OUT_MS);
    let due_ms = due_ms.and_then(|text| text.parse::<i64>().ok());
    due_ms.unwrap_or(0).rem_euclid(TIMER_QUEUE_MS) as u32
}

/// Index facts of one message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dispatch {
    /// Java's `String.hashCode` of the tag, 0 without one.
    pub tag_hash: i32,
    pub keys: SmallVec<[u64; 4]>,
}

impl Dispatch {
    pub fn of(topic: &str, properties: &[u8]) -> Dispatch {
        let mut dispatch = Dispatch::default();
        for (name, value) in properties::iter(properties) {
            dispatch.property(topic, name, value);
        }
        if topic == TIMER_TOPIC {
            // Nobody filters these by tag; the time is wanted without the record.
            dispatch.tag_hash = due_within(properties) as i32;
        }
        dispatch
    }

    /// Takes note of the next property.
    #[inline]
    pub fn property(&mut self, topic: &str, name: &[u8], value: &[u8]) {
        match name {
            b"TAGS" => self.tag_hash = java_hash_utf8(value),
            b"UNIQ_KEY" => self.key(topic, value),
            b"KEYS" => {
                let keys = value
                    .split(|byte| *byte == b' ')
                    .filter(|key| !key.is_empty());
                keys.take(KEYS_MAX).for_each(|key| self.key(topic, key));
            }
            _ => {}
        }
    }

    fn key(&mut self, topic: &str, key: &[u8]) {
        self.keys.push(key_hash(topic, key));
    }
}

const _: () = {
    // The match above spells the names out as bytes.
    assert!(matches!(names::TAGS.as_bytes(), b"TAGS"));
    assert!(matches!(names::UNIQUE_KEY.as_bytes(), b"UNIQ_KEY"));
    assert!(matches!(names::KEYS.as_bytes(), b"KEYS"));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_and_keys_are_found() {
        let dispatch = Dispatch::of("t", b"TAGS\x01a\x02KEYS\x01k1  k2\x02UNIQ_KEY\x01u\x02");
        assert_eq!(dispatch.tag_hash, 97);
        let expected = [key_hash("t", "k1"), key_hash("t", "k2"), key_hash("t", "u")];
        assert_eq!(dispatch.keys.as_slice(), expected);
        assert_eq!(Dispatch::of("t", b""), Dispatch::default());
    }
}
