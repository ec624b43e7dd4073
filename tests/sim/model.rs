//! What must be true, whatever the clients saw and whenever the broker died.
//!
//! The model learns facts from answers: a message lies at an offset, an end was shown, an offset
//! was committed, a topic is there. A fact holds for ever, except that a power cut under
//! `ASYNC_FLUSH` may undo what is younger than the flush interval.

use std::collections::BTreeMap;
use std::ops::Range;

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;

use crate::asker::Answers;
use crate::clerk::Ledger;
use crate::client::{LIGHTS, is_guarded, light_offsets, offset_in, uid_of};
use crate::lite::Lites;
use crate::locker::Held;
use crate::mover::Moved;
use crate::options::WALL_MS;
use crate::popper::Popped;
use crate::ranker::Ranks;
use crate::rng::Rng;
use crate::seeker::keys;
use crate::sifter::Traits;
use crate::splitter::Splits;

/// A message as its producer knows it.
#[derive(Clone)]
pub struct Sent {
    pub topic: String,
    pub len: usize,
    pub tag: String,
    /// Requests that carried it: it may be stored so often.
    pub attempts: usize,
    /// Delayed: a crash may repeat its delivery.
    pub repeats: bool,
    /// Of a transaction: whether it ends well.
    pub decision: Option<bool>,
    /// Its commit is under way: from now on it may be seen.
    pub committing: bool,
    pub acked: Option<u64>,
    /// How often its producer has said how its transaction ends.
    pub decisions: usize,
    /// Light queues it goes to as well.
    pub lights: Vec<String>,
}

/// A message at an offset, known from an acknowledgement or a pull.
#[derive(Clone)]
struct Known {
    uid: u64,
    physical: i64,
    /// When it was stored, or earlier, µs.
    stored: u64,
    /// CRC of the whole record, once it was seen.
    crc: Option<u32>,
    /// When it was stored, once it was seen.
    store_ms: Option<i64>,
    at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Creation or deletion is under way.
    Unsure,
    Live,
    Gone,
    /// An allowed loss made it unknown; not used any more.
    Lost,
}

pub struct Topic {
    pub life: Life,
    pub generation: u64,
    pub queues: i32,
    pub changed: u64,
}

type Queue = (String, i32);

#[derive(Default)]
pub struct Model {
    pub sent: BTreeMap<u64, Sent>,
    pub topics: BTreeMap<String, Topic>,
    known: BTreeMap<Queue, BTreeMap<i64, Known>>,
    /// How long messages are kept at least, µs, if they may go at all.
    pub kept_us: Option<u64>,
    /// Where queues were said to begin.
    begins: BTreeMap<Queue, i64>,
    /// Ends shown to somebody, and when first.
    shown: BTreeMap<Queue, Vec<(i64, u64)>>,
    /// Per group and queue: values told to be safe with their time, and the highest sent.
    committed: BTreeMap<(String, Queue), Commits>,
    /// Messages whose return was acknowledged: group, uid, when.
    pub returned: Vec<(String, u64, u64)>,
    pub came_back: BTreeMap<(String, u64), u64>,
    /// Messages that some consumer got.
    pub delivered: BTreeMap<u64, u64>,
    /// Messages that were read from a light queue.
    pub in_lights: BTreeMap<(String, u64), u64>,
    /// A power cut has taken something: what logs say of each other may not agree.
    pub lossy: bool,
    /// What members were told of order locks.
    pub locks: Held,
    /// What the group of lite topics knows.
    pub lites: Lites,
    /// What groups that pop know.
    pub popped: Popped,
    /// Where moved groups are.
    pub moved: Moved,
    /// Answers to questions.
    pub answers: Answers,
    /// Priority messages.
    pub ranks: Ranks,
    /// Members that may subscribe differently.
    pub splits: Splits,
    /// What the broker counts.
    pub ledger: Ledger,
}

#[derive(Default)]
struct Commits {
    safe: Vec<(i64, u64)>,
    sent: i64,
}

impl Commits {
    fn floor(&self) -> Option<i64> {
        self.safe.iter().map(|(value, _)| *value).max()
    }
}

/// The bytes of a message's body.
pub fn body(uid: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(uid.wrapping_mul(0x1234_5677));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

impl Model {
    /// Whether a topic of this name was deleted before.
    pub fn was_made_again(&self, topic: &str) -> bool {
        self.topics
            .get(topic)
            .is_some_and(|topic| topic.generation > 1)
    }

    pub fn generation(&self, topic: &str) -> Option<u64> {
        let topic = self.topics.get(topic)?;
        (topic.life == Life::Live).then_some(topic.generation)
    }

    /// A topic is there, was deleted, or is changing.
    pub fn topic(&mut self, name: &str, life: Life, queues: i32, now: u64) {
        let topic = self.topics.entry(name.to_owned()).or_insert(Topic {
            life,
            generation: 0,
            queues,
            changed: now,
        });
        if topic.life == Life::Lost {
            return;
        }
        if topic.life != life {
            topic.generation += 1;
            topic.changed = now;
        }
        topic.life = life;
        topic.queues = queues;
        if life != Life::Live {
            self.known.retain(|(topic, _), _| topic != name);
            self.shown.retain(|(topic, _), _| topic != name);
            self.begins.retain(|(topic, _), _| topic != name);
            // A late commit may still find the namesake that comes after.
            for ((_, (topic, _)), commits) in &mut self.committed {
                if topic == name {
                    commits.safe.clear();
                }
            }
        }
    }

    /// An acknowledgement: `uid` lies at `offset`.
    pub fn acked(
        &mut self,
        queue: &Queue,
        offset: i64,
        physical: i64,
        uid: u64,
        (asked, now): (u64, u64),
    ) -> Check {
        self.check_once(queue, offset, uid, now)?;
        // One that is kept once may have been stored long ago.
        let stored = if is_guarded(&queue.0) { 0 } else { asked };
        let known = self.known.entry(queue.clone()).or_default();
        if let Some(old) = known.get(&offset) {
            ensure!(
                old.uid == uid && old.physical == physical,
                "{queue:?} offset {offset}: u{uid} at {physical} acknowledged, but u{} is at {}",
                old.uid,
                old.physical
            );
            return Ok(());
        }
        known.insert(
            offset,
            Known {
                uid,
                physical,
                stored,
                crc: None,
                store_ms: None,
                at: now,
            },
        );
        Ok(())
    }

    /// A consumer has read a message of a topic, or of a light queue.
    pub fn read(&mut self, topic: &str, uid: u64, now: u64) {
        if let Some(owner) = topic.strip_prefix("%RETRY%") {
            self.came_back.insert((owner.to_owned(), uid), now);
        }
        match LIGHTS.contains(&topic) {
            true => self.in_lights.insert((topic.to_owned(), uid), now),
            false => self.delivered.insert(uid, now),
        };
    }

    /// A consumer got this record of this queue.
    pub fn seen(&mut self, queue: &Queue, record: &RecordView<'_>, now: u64) -> Check {
        let (offset, physical) = (offset_in(&queue.0, record)?, record.physical_offset());
        let light = LIGHTS.contains(&&*queue.0);
        ensure!(
            light || record.topic() == queue.0 && record.queue_id() == queue.1,
            "{queue:?}: got a message of {} queue {}",
            record.topic(),
            record.queue_id()
        );
        let uid = self.check_content(record)?;
        if light || !record.topic().starts_with('%') {
            self.check_lights(uid, light, record)?;
        }
        let crc = crc32fast::hash(record.bytes());
        let store_ms = Some(record.store_timestamp());
        self.check_once(queue, offset, uid, now)?;
        let stored = (record.store_timestamp() - WALL_MS) as u64 * 1000;
        let known = self.known.entry(queue.clone()).or_default();
        match known.get_mut(&offset) {
            Some(old) => {
                ensure!(
                    old.uid == uid && old.physical == physical,
                    "{queue:?} offset {offset}: u{uid} at {physical} shown, was u{} at {}",
                    old.uid,
                    old.physical
                );
                ensure!(
                    old.crc.is_none_or(|old| old == crc),
                    "{queue:?} offset {offset}: other bytes than before"
                );
                old.crc = Some(crc);
                old.store_ms = store_ms;
            }
            None => {
                let crc = Some(crc);
                known.insert(
                    offset,
                    Known {
                        uid,
                        physical,
                        stored,
                        crc,
                        store_ms,
                        at: now,
                    },
                );
            }
        }
        let copies = known.values().filter(|known| known.uid == uid).count();
        let Sent {
            attempts,
            repeats,
            decision,
            ..
        } = self.sent[&uid];
        // A message for light queues and the end of its transaction are not in one batch.
        let again = decision.is_some() && !self.sent[&uid].lights.is_empty();
        let repeats = repeats || again || queue.0.starts_with("%RETRY%");
        ensure!(
            repeats || copies <= attempts,
            "u{uid} is stored {copies} times in {queue:?}, was sent {attempts} times"
        );
        self.shown_end(queue, offset + 1, now)
    }

    /// A message in a light queue was sent there; its own record tells where in each it is.
    fn check_lights(&self, uid: u64, light: bool, record: &RecordView<'_>) -> Check {
        let told = light_offsets(record);
        let names: Vec<&String> = told.iter().map(|(name, _)| name).collect();
        let sent = &self.sent[&uid].lights;
        ensure!(
            names.iter().copied().eq(sent),
            "u{uid}: in light queues {names:?}, sent to {sent:?}"
        );
        for (name, offset) in &told {
            // A copy knows its own shard's only.
            ensure!(light || *offset >= 0, "u{uid}: at {offset} in {name}");
            let known = self.known.get(&(name.clone(), 0));
            let there = known.and_then(|known| known.get(offset));
            ensure!(
                self.lossy || there.is_none_or(|known| known.uid == uid),
                "u{uid}: said to be at {offset} in {name}, where another is"
            );
        }
        Ok(())
    }

    /// A message of a guarded topic lies at one place, however often it was sent; unless it was so
    /// old that the first was gone when it was sent again.
    fn check_once(&self, queue: &Queue, offset: i64, uid: u64, now: u64) -> Check {
        if !is_guarded(&queue.0) {
            return Ok(());
        }
        for (other, known) in self.known.iter().filter(|(other, _)| other.0 == queue.0) {
            let same = |known: &Known| known.uid == uid && !self.may_be_gone(known.stored, now);
            let mut places = known.iter().filter(|(_, known)| same(known));
            let elsewhere = places.find(|(place, _)| (other, **place) != (queue, offset));
            ensure!(
                elsewhere.is_none(),
                "u{uid} lies in {queue:?} at {offset}, and in {other:?} at {}",
                elsewhere.map_or(0, |(place, _)| *place)
            );
        }
        Ok(())
    }

    /// Body and properties are the producer's.
    pub fn check_content(&mut self, record: &RecordView<'_>) -> Result<u64, String> {
        let text = |name| properties::find_str(record.properties(), name).unwrap_or_default();
        let Some(uid) = uid_of(record) else {
            return Err(format!(
                "a message with the key {:?}, never sent",
                text("KEYS")
            ));
        };
        ensure!(text("KEYS") == keys(uid), "u{uid}: keys {:?}", text("KEYS"));
        let Some(sent) = self.sent.get(&uid) else {
            return Err(format!("u{uid} was never sent"));
        };
        ensure!(
            sent.decision.is_none() || sent.committing,
            "u{uid} was shown although nobody committed it"
        );
        ensure!(text("TAGS") == sent.tag, "u{uid}: tag {:?}", text("TAGS"));
        let traits = Traits::of(uid).properties();
        let stored = String::from_utf8_lossy(record.properties());
        ensure!(stored.contains(&traits), "u{uid}: properties {stored:?}");
        ensure!(record.body() == body(uid, sent.len), "u{uid}: another body");
        ensure!(
            record.has_valid_body_crc(),
            "u{uid}: the body checksum is wrong"
        );
        if record.topic().starts_with("%RETRY%") {
            ensure!(
                text("RETRY_TOPIC") == sent.topic,
                "u{uid}: came back from {:?}",
                text("RETRY_TOPIC")
            );
        } else {
            ensure!(
                record.topic() == sent.topic,
                "u{uid}: in topic {}",
                record.topic()
            );
        }
        Ok(uid)
    }

    pub fn begin_of(&self, queue: &Queue) -> i64 {
        self.begins.get(queue).copied().unwrap_or(0)
    }

    /// Somebody was told that the queue begins here: only what is old is gone, and stays so.
    pub fn check_begin(&mut self, queue: &Queue, floor: i64, begin: i64, now: u64) -> Check {
        ensure!(
            begin >= floor,
            "{queue:?} begins at {begin}, began at {floor} before"
        );
        ensure!(
            begin == 0 || self.kept_us.is_some(),
            "{queue:?} begins at {begin}"
        );
        let Some(known) = self.known.get_mut(queue) else {
            return Ok(());
        };
        for (offset, known) in known.extract_if(..begin, |_, _| true) {
            let kept = self.kept_us.map_or(0, |kept| now.saturating_sub(kept));
            ensure!(
                known.stored < kept,
                "{queue:?} begins at {begin}, and u{} at {offset} was stored at {} us",
                known.uid,
                known.stored
            );
        }
        let known = self.begins.entry(queue.clone()).or_default();
        *known = begin.max(*known);
        Ok(())
    }

    /// Whether a message that was acknowledged then may be gone by its age.
    pub fn may_be_gone(&self, at: u64, now: u64) -> bool {
        self.kept_us.is_some_and(|kept| at + kept < now)
    }

    /// Whether a message is known to be there that was stored at this place.
    pub fn is_young_at(&self, queue: &Queue, physical: i64, now: u64) -> bool {
        let known = self.known.get(queue).into_iter().flatten();
        let mut here = known.filter(|(_, known)| known.physical == physical);
        here.any(|(_, known)| !self.may_be_gone(known.stored, now))
    }

    /// Somebody was told that the queue ends here, or beyond.
    pub fn shown_end(&mut self, queue: &Queue, end: i64, now: u64) -> Check {
        let shown = self.shown.entry(queue.clone()).or_default();
        if shown.last().is_none_or(|(last, _)| *last < end) {
            shown.push((end, now));
        }
        Ok(())
    }

    /// The queue's end that holds: nothing told before may be gone.
    pub fn floor_end(&self, queue: &Queue) -> i64 {
        let shown = self.shown.get(queue).and_then(|shown| shown.last());
        let known = self.known.get(queue).and_then(|known| known.keys().last());
        shown
            .map_or(0, |(end, _)| *end)
            .max(known.map_or(0, |last| last + 1))
    }

    pub fn check_end(&mut self, queue: &Queue, floor: i64, end: i64, now: u64) -> Check {
        ensure!(
            end >= floor,
            "{queue:?} ends at {end}, but {floor} was shown or acknowledged"
        );
        self.shown_end(queue, end, now)
    }

    pub fn commit_sent(&mut self, group: &str, queue: &Queue, value: i64) {
        let pair = (group.to_owned(), queue.0.clone());
        self.ledger.committed.insert(pair);
        let commits = self
            .committed
            .entry((group.to_owned(), queue.clone()))
            .or_default();
        commits.sent = commits.sent.max(value);
    }

    /// A commit was acknowledged, or a query answered: the offset must not fall below.
    pub fn commit_safe(&mut self, group: &str, queue: &Queue, value: i64, now: u64) {
        let commits = self
            .committed
            .entry((group.to_owned(), queue.clone()))
            .or_default();
        commits.safe.push((value, now));
    }

    pub fn commit_floor(&self, group: &str, queue: &Queue) -> Option<i64> {
        self.committed
            .get(&(group.to_owned(), queue.clone()))?
            .floor()
    }

    /// A consumer goes back, and commits less than before.
    pub fn commits_go_back(&mut self, group: &str, queue: &Queue) {
        let key = (group.to_owned(), queue.clone());
        self.committed.entry(key).or_default().safe.clear();
    }

    pub fn commit_sent_max(&self, group: &str, queue: &Queue) -> i64 {
        let commits = self.committed.get(&(group.to_owned(), queue.clone()));
        commits.map_or(0, |commits| commits.sent)
    }

    /// Whether a group tried to commit to any queue of a topic, whichever of the name.
    pub fn has_committed(&self, group: &str, topic: &str) -> bool {
        let pair = (group.to_owned(), topic.to_owned());
        self.ledger.committed.contains(&pair)
    }

    /// Groups and queues with a commit that is safe.
    pub fn committed_safely(&self) -> impl Iterator<Item = &(String, Queue)> {
        let safe = self.committed.iter();
        let safe = safe.filter(|(_, commits)| commits.floor() > Some(0));
        safe.map(|(key, _)| key)
    }

    pub fn check_commit(
        &mut self,
        group: &str,
        queue: &Queue,
        floor: Option<i64>,
        value: Option<i64>,
        now: u64,
    ) -> Check {
        let commits = self
            .committed
            .entry((group.to_owned(), queue.clone()))
            .or_default();
        ensure!(
            value >= floor,
            "group {group} {queue:?}: committed offset {value:?}, {floor:?} was safe"
        );
        let Some(value) = value else { return Ok(()) };
        ensure!(
            value <= commits.sent,
            "group {group} {queue:?}: committed offset {value}, sent at most {}",
            commits.sent
        );
        commits.safe.push((value, now));
        Ok(())
    }

    /// A power cut under `ASYNC_FLUSH`: what became known after `firm` may be gone.
    pub fn forget_since(&mut self, firm: u64) {
        self.lossy = true;
        for known in self.known.values_mut() {
            known.retain(|_, known| known.at <= firm);
        }
        for shown in self.shown.values_mut() {
            shown.retain(|(_, at)| *at <= firm);
        }
        for commits in self.committed.values_mut() {
            commits.safe.retain(|(_, at)| *at <= firm);
        }
        self.returned.retain(|(_, _, at)| *at <= firm);
        self.came_back.retain(|_, at| *at <= firm);
        self.delivered.retain(|_, at| *at <= firm);
        self.in_lights.retain(|_, at| *at <= firm);
        self.popped.forget_since(firm);
        self.lites.forget();
        self.locks.forget_since(firm);
        self.moved.forget_since(firm);
        self.ranks.forget_since(firm);
        for sent in self.sent.values_mut() {
            sent.acked = sent.acked.filter(|at| *at <= firm);
        }
        let mut lost = Vec::new();
        for (name, topic) in &mut self.topics {
            if topic.changed > firm || topic.life == Life::Unsure {
                topic.life = Life::Lost;
                topic.generation += 1;
                lost.push(name.clone());
            }
        }
        self.known.retain(|(topic, _), _| !lost.contains(topic));
        self.shown.retain(|(topic, _), _| !lost.contains(topic));
        self.committed
            .retain(|(_, (topic, _)), _| !lost.contains(topic));
    }

    pub fn live(&self) -> Vec<(String, i32)> {
        let live = self
            .topics
            .iter()
            .filter(|(_, topic)| topic.life == Life::Live);
        live.map(|(name, topic)| (name.clone(), topic.queues))
            .collect()
    }

    /// A known message at random, as (queue, offset, physical offset).
    pub fn any_known(&self, rng: &mut Rng) -> Option<(Queue, i64, i64)> {
        let queues: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| !known.is_empty())
            .collect();
        if queues.is_empty() {
            return None;
        }
        let (queue, known) = *rng.pick(&queues);
        let nth = rng.below(known.len() as u64) as usize;
        let (offset, known) = known.iter().nth(nth)?;
        Some((queue.clone(), *offset, known.physical))
    }

    /// Messages known to lie in a part of a queue.
    pub fn places(
        &self,
        queue: &Queue,
        range: Range<i64>,
    ) -> impl Iterator<Item = (i64, u64)> + use<'_> {
        let known = self.known.get(queue);
        let known = known.map(|known| known.range(range));
        let known = known.into_iter().flatten();
        known.map(|(offset, known)| (*offset, known.uid))
    }

    /// Store times of messages that were seen in a part of a queue, ms.
    pub fn store_times(
        &self,
        queue: &Queue,
        range: Range<i64>,
    ) -> impl Iterator<Item = (i64, i64)> + use<'_> {
        let known = self.known.get(queue);
        let known = known.map(|known| known.range(range));
        let known = known.into_iter().flatten();
        known.filter_map(|(offset, known)| Some((*offset, known.store_ms?)))
    }

    /// Messages of a topic that were known before `asked_at`: place, number and store time.
    pub fn known_before(
        &self,
        topic: &str,
        asked_at: u64,
    ) -> impl Iterator<Item = ((&Queue, i64), u64, Option<i64>)> {
        let queues = self.known.iter().filter(move |(queue, _)| queue.0 == topic);
        let all = queues.flat_map(|(queue, known)| known.iter().map(move |one| (queue, one)));
        let known = all.filter(move |(_, (_, known))| known.at < asked_at);
        known.map(|(queue, (offset, known))| ((queue, *offset), known.uid, known.store_ms))
    }

    pub fn known_count(&self) -> usize {
        self.known.values().map(BTreeMap::len).sum()
    }
}
