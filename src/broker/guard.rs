//! The duplicate guard: which unique keys of which topics were sent within the topic's
//! `dedup.window`, and where the first message with each lies.
//!
//! Whatever its queue, a key is looked after by one shard ([`home`]), so that a producer's second
//! try finds the first wherever that went. The table is in memory. After a start it does not know
//! what was stored before: for one window [`Guard::is_young`] tells its user to ask the key index.
//!
//! Always true: a key is being stored, with those who wait for that, or is stored, or is in doubt
//! since the disk failed while it was being stored. The last is over with the next start.

use crate::base::{Map, ShardId};
use crate::broker::acks::ReplyTo;
use crate::broker::puts::Stored;
use crate::store::index::key_hash;
use hashbrown::hash_map::Entry;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Keys that one shard remembers: 120 MiB of those that Java clients make, at most 300 MiB.
pub const KEYS_MAX: usize = 1_000_000;
/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 128;
/// Second tries that wait for the first of one key.
pub const WAITERS_MAX: usize = 16;

/// The shard that looks after a key.
pub fn home(topic: &str, key: &str, shards: u16) -> ShardId {
    ShardId((key_hash(topic, key) % u64::from(shards)) as u16)
}

/// A unique key as it is kept: the 32 digits that Java clients make as a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Key {
    Digits(u128),
    Text(Arc<str>),
}

impl Key {
    fn of(text: &str) -> Key {
        let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        match text.len() == 32 && text.bytes().all(upper) {
            true => Key::Digits(u128::from_str_radix(text, 16).expect("32 digits")),
            false => Key::Text(text.into()),
        }
    }
}

/// Where the first message with a key lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub stored: Stored,
    pub queue_id: i32,
}

enum State {
    Storing(Vec<ReplyTo>),
    Stored(Place),
    Doubtful,
}

#[derive(Default)]
struct Keys {
    states: Map<Key, State>,
    /// When stored ones are forgotten, one end for each; the window may have been changed between.
    ends: BinaryHeap<Reverse<(i64, Key)>>,
}

/// What is to be done with a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Store it, and tell [`Guard::stored`] or [`Guard::failed`].
    First,
    /// It is a second try; it is answered with the first.
    Waits,
    /// It is a second try of this one.
    Again(Place),
    /// Nobody knows yet whether the first was stored.
    Doubtful,
    /// No more keys can be remembered, or nobody else can wait for this one.
    Full,
}

/// The keys that one shard looks after.
pub struct Guard {
    /// By topic id.
    topics: Map<u64, Keys>,
    len: usize,
    most: usize,
    started_ms: i64,
}

impl Guard {
    /// `now_ms`: of the broker's start.
    pub fn new(now_ms: i64) -> Guard {
        Guard {
            topics: Map::default(),
            len: 0,
            most: KEYS_MAX,
            started_ms: now_ms,
        }
    }

    /// Whether something may have been stored within the window that this table does not know.
    pub fn is_young(&self, now_ms: i64, window_ms: i64) -> bool {
        now_ms.saturating_sub(window_ms) <= self.started_ms
    }

    /// A message with this key is sent; `to` waits for the answer, if anybody does.
    pub fn sent(&mut self, topic: u64, key: &str, to: Option<ReplyTo>, now_ms: i64) -> Verdict {
        match self.len < self.most {
            true => self.forget(topic, now_ms),
            false => self.forget_all(now_ms),
        }
        let keys = self.topics.entry(topic).or_default();
        match keys.states.entry(Key::of(key)) {
            Entry::Vacant(_) if self.len >= self.most => Verdict::Full,
            Entry::Vacant(entry) => {
                entry.insert(State::Storing(Vec::new()));
                self.len += 1;
                Verdict::First
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                State::Storing(waiting) if waiting.len() >= WAITERS_MAX => Verdict::Full,
                State::Storing(waiting) => {
                    waiting.extend(to);
                    Verdict::Waits
                }
                State::Doubtful => Verdict::Doubtful,
                State::Stored(place) => Verdict::Again(*place),
            },
        }
    }

    /// The first message is safe, until `until_ms` its key is remembered. Gives who waits.
    pub fn stored(&mut self, topic: u64, key: &str, place: Place, until_ms: i64) -> Vec<ReplyTo> {
        let key = Key::of(key);
        let Some(keys) = self.topics.get_mut(&topic) else {
            return Vec::new();
        };
        let Some(state) = keys.states.get_mut(&key) else {
            return Vec::new();
        };
        keys.ends.push(Reverse((until_ms, key)));
        match std::mem::replace(state, State::Stored(place)) {
            State::Storing(waiting) => waiting,
            State::Stored(_) | State::Doubtful => Vec::new(),
        }
    }

    /// The first message was refused: the next try is the first again, unless it is `doubtful`
    /// that it was not stored. Gives who waits.
    pub fn failed(&mut self, topic: u64, key: &str, doubtful: bool) -> Vec<ReplyTo> {
        let Some(keys) = self.topics.get_mut(&topic) else {
            return Vec::new();
        };
        let key = Key::of(key);
        let Some(State::Storing(waiting)) = keys.states.remove(&key) else {
            return Vec::new();
        };
        match doubtful {
            true => drop(keys.states.insert(key, State::Doubtful)),
            false => self.len -= 1,
        }
        waiting
    }

    /// Forgets keys whose window is over.
    fn forget(&mut self, topic: u64, now_ms: i64) {
        let Some(keys) = self.topics.get_mut(&topic) else {
            return;
        };
        while let Some(Reverse((end_ms, _))) = keys.ends.peek()
            && *end_ms <= now_ms
        {
            let Reverse((_, key)) = keys.ends.pop().expect("just seen");
            keys.states.remove(&key);
            self.len -= 1;
        }
    }

    /// Makes room: keys of topics to which nothing is sent any more stay until then.
    fn forget_all(&mut self, now_ms: i64) {
        let topics: Vec<u64> = self.topics.keys().copied().collect();
        for topic in topics {
            self.forget(topic, now_ms);
            if self.topics[&topic].states.is_empty() {
                self.topics.remove(&topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ConnId, LogOffset};
    use crate::remoting::frame::Codec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const WINDOW_MS: i64 = 10;
    const MOST: usize = 6;

    #[derive(Clone, Debug)]
    enum Op {
        Send(u64, u8),
        /// Which one, and for how long.
        Store(u8, u8),
        Fail(u8, bool),
        Pass(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1..3u64, 0..6u8).prop_map(|(topic, key)| Op::Send(topic, key)),
            3 => (any::<u8>(), 1..3 * WINDOW_MS as u8).prop_map(|(n, ms)| Op::Store(n, ms)),
            1 => (any::<u8>(), any::<bool>()).prop_map(|(n, doubt)| Op::Fail(n, doubt)),
            2 => (0..WINDOW_MS as u8).prop_map(Op::Pass),
        ]
    }

    /// Some keys are digits, some text, and some differ in what is no digit only.
    fn key(number: u8) -> String {
        match number % 3 {
            0 => format!("{number:032X}"),
            1 => format!("{:032x}", number + 9),
            _ => format!("key {number}"),
        }
    }

    fn reply(opaque: i32) -> ReplyTo {
        let conn = ConnId {
            shard: ShardId(0),
            slot: 1,
            generation: 1,
        };
        let codec = Codec::Json;
        ReplyTo {
            conn,
            opaque,
            codec,
        }
    }

    fn place(offset: u64) -> Place {
        let (at, shard) = (LogOffset(offset * 100), ShardId(3));
        let stored = Stored { at, shard, offset };
        let queue_id = 2;
        Place { stored, queue_id }
    }

    /// What the guard should hold: who waits, or the place and its end.
    type Model = BTreeMap<(u64, u8), Result<(u64, i64), Vec<i32>>>;
    /// The place of a key in doubt, which is there for ever.
    const DOUBT: u64 = u64::MAX;

    fn expected(model: &mut Model, at: (u64, u8), opaque: i32, now_ms: i64) -> Verdict {
        if let Some(Ok((_, until_ms))) = model.get(&at)
            && *until_ms <= now_ms
        {
            model.remove(&at);
        }
        let alive = |state: &Result<(u64, i64), _>| state.as_ref().map_or(true, |s| s.1 > now_ms);
        let len = model.values().filter(|state| alive(state)).count();
        match model.get_mut(&at) {
            None if len >= MOST => Verdict::Full,
            None => {
                model.insert(at, Err(Vec::new()));
                Verdict::First
            }
            Some(Ok((DOUBT, _))) => Verdict::Doubtful,
            Some(Ok((offset, _))) => Verdict::Again(place(*offset)),
            Some(Err(waiting)) if waiting.len() >= WAITERS_MAX => Verdict::Full,
            Some(Err(waiting)) => {
                waiting.push(opaque);
                Verdict::Waits
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_key_is_stored_once_in_its_window(ops in prop::collection::vec(op(), 1..120)) {
            let mut guard = Guard { most: MOST, ..Guard::new(0) };
            let (mut model, mut ms, mut count) = (Model::new(), 0, 0);
            for op in ops {
                count += 1;
                let storing: Vec<(u64, u8)> = model
                    .iter()
                    .filter(|(_, state)| state.is_err())
                    .map(|(at, _)| *at)
                    .collect();
                match op {
                    Op::Send(topic, number) => {
                        let to = Some(reply(count));
                        let verdict = guard.sent(topic, &key(number), to, ms);
                        let right = expected(&mut model, (topic, number), count, ms);
                        prop_assert_eq!(verdict, right);
                    }
                    Op::Store(which, for_ms) if !storing.is_empty() => {
                        let at = storing[usize::from(which) % storing.len()];
                        let (offset, end_ms) = (count as u64, ms + i64::from(for_ms));
                        let told = guard.stored(at.0, &key(at.1), place(offset), end_ms);
                        let waited = model.insert(at, Ok((offset, end_ms)));
                        let told = told.iter().map(|to| to.opaque).collect();
                        prop_assert_eq!(waited, Some(Err(told)));
                    }
                    Op::Fail(which, doubtful) if !storing.is_empty() => {
                        let at = storing[usize::from(which) % storing.len()];
                        let told = guard.failed(at.0, &key(at.1), doubtful);
                        let told = told.iter().map(|to| to.opaque).collect();
                        prop_assert_eq!(model.remove(&at), Some(Err(told)));
                        if doubtful {
                            model.insert(at, Ok((DOUBT, i64::MAX)));
                        }
                    }
                    Op::Pass(for_ms) => ms += i64::from(for_ms),
                    Op::Store(..) | Op::Fail(..) => {}
                }
                prop_assert!(guard.len <= MOST);
                let held: usize = guard.topics.values().map(|keys| keys.states.len()).sum();
                prop_assert_eq!(held, guard.len);
                let ends: usize = guard.topics.values().map(|keys| keys.ends.len()).sum();
                prop_assert!(ends <= held);
            }
        }
    }

    #[test]
    fn after_a_start_the_table_is_young_for_one_window() {
        let guard = Guard::new(1_000);
        assert!(guard.is_young(1_000, 50) && guard.is_young(1_050, 50));
        assert!(!guard.is_young(1_051, 50));
    }
}
