//! Light queues (RocketMQ's LMQ): queues without a topic of their own, made by the first message
//! for them. A message names them in its property `INNER_MULTI_DISPATCH`; it goes to its own queue
//! and into each of them.
//!
//! A light queue lives in one shard, [`home`], found from its name alone: no table says which there
//! are. A message that is stored in another shard is copied there first, so that its own record can
//! tell its offset in every light queue. It is answered when all of that is safe. A light queue is
//! queue 0 of a made-up topic; [`Broker::topic`] gives it.
//!
//! Lite topics (5.4) are light queues as well: `l` of the topic `p` is `%LMQ%$p$l`. All of one
//! topic live where its queue 0 does, and messages for them are stored there, so none is copied.
//!
//! Source: `LmqDispatch`, `MultiDispatchUtils`, `HookUtils.handleLmqQuota`, `LiteUtil`,
//! `LmqTopicConfigManager`; spec pages semantics §11 and delta-5.5 §5.

use crate::base::{LogOffset, Map, Now, ShardId};
use crate::broker::acks::Ack;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::{self as topic_names, DLQ_PREFIX, RETRY_PREFIX};
use crate::broker::puts::{OwnedMessage, Put, Stored};
use crate::broker::snapshot::Snapshot;
use crate::broker::topics::{Topic, config_with, perm};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::{Draft, encoded_len};
use crate::message::layout::PROPERTIES_BYTES_MAX;
use crate::message::{names, properties};
use crate::remoting::body::group::GroupConfig;
use crate::remoting::code::response;
use crate::store::consumequeue::QueueSlot;
use crate::store::dispatch::Dispatch;
use crate::store::index::key_hash;
use crate::store::light::overhead;
use std::sync::Arc;

/// With what every name of a light queue begins (`MixAll.LMQ_PREFIX`).
pub const PREFIX: &str = "%LMQ%";
/// Between the parts of a lite topic's queue (`LiteUtil.SEPARATOR`).
const SEPARATOR: char = '$';
/// The topic id of a light queue by itself. Those of lite topics have this less the id of their
/// parent, so that they do not outlive it; no topic has such an id.
const TOPIC_ID: u64 = u64::MAX;
/// Bytes of a name, as of a file's in the reference.
pub const NAME_BYTES_MAX: usize = 255;
/// Messages on their way into light queues of several shards.
const SPREADS_MAX: usize = 65_536;
/// The offset of a queue that the one who stores a copy does not know.
const UNKNOWN: i64 = -1;

pub fn is_light(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The light queue of a lite topic.
pub fn lite_queue(parent: &str, lite: &str) -> String {
    format!("{PREFIX}{SEPARATOR}{parent}{SEPARATOR}{lite}")
}

/// Parent and lite topic of such a queue.
pub fn lite_parts(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix(SEPARATOR)?;
    let (parent, lite) = rest.split_once(SEPARATOR)?;
    let whole = !parent.is_empty() && !lite.is_empty() && !lite.contains(SEPARATOR);
    whole.then_some((parent, lite))
}

/// The shard of a light queue; that of a lite topic has one while its parent is there.
pub fn home(name: &str, snapshot: &Snapshot, shards: u16) -> Option<ShardId> {
    match lite_parts(name) {
        Some((parent, _)) => snapshot.topics.get(parent)?.owner(0),
        None => Some(ShardId((key_hash(PREFIX, name) % u64::from(shards)) as u16)),
    }
}

/// The topic id of a light queue, if there may be one of the name.
pub fn topic_id(name: &str, snapshot: &Snapshot) -> Option<u64> {
    match lite_parts(name) {
        Some((parent, _)) => Some(TOPIC_ID - snapshot.topics.get(parent)?.id),
        None => Some(TOPIC_ID),
    }
}

/// Whether a queue with this topic id is a light one. Topics are numbered from 1.
pub fn is_light_id(topic_id: u64) -> bool {
    topic_id > u64::MAX / 2
}

/// Whether messages of a topic may be in light queues (`MixAll.topicAllowsLMQ`, and no half).
fn allows(topic: &str) -> bool {
    let its_own = [RETRY_PREFIX, DLQ_PREFIX, topic_names::SYSTEM_PREFIX, PREFIX];
    !its_own.iter().any(|prefix| topic.starts_with(prefix)) && !topic_names::refuses_sends(topic)
}

/// The queues that a message names, each once, with their places in the list.
fn wanted(list: &str) -> Result<Vec<(usize, &str)>, Reject> {
    let illegal = |remark: String| Reject::new(response::MESSAGE_ILLEGAL, remark);
    let mut wanted: Vec<(usize, &str)> = Vec::new();
    let mut seen = hashbrown::HashSet::new();
    for (place, name) in list.split(',').enumerate().filter(|(_, n)| is_light(n)) {
        if name.len() == PREFIX.len() || name.len() > NAME_BYTES_MAX {
            return Err(illegal(format!(
                "the light queue {name} has a name of {} bytes: {} to {NAME_BYTES_MAX} are allowed",
                name.len(),
                PREFIX.len() + 1
            )));
        }
        if name.chars().any(char::is_control) {
            return Err(illegal(format!(
                "the light queue {name:?} has a name with control characters"
            )));
        }
        if !seen.insert(name) {
            return Err(illegal(format!("the light queue {name} is named twice")));
        }
        wanted.push((place, name));
    }
    Ok(wanted)
}

/// The property that tells offsets, in the order of the list of names.
fn told(list: &str, offsets: &[(usize, i64)]) -> String {
    let mut told: Vec<String> = list
        .split(',')
        .map(|name| {
            if is_light(name) {
                UNKNOWN.to_string()
            } else {
                String::new()
            }
        })
        .collect();
    for (place, offset) in offsets {
        told[*place] = offset.to_string();
    }
    told.join(",")
}

/// The offset in a light queue that a message has been told.
pub fn offset_told(stored: &[u8], name: &str) -> Option<u64> {
    let names = properties::find_str(stored, names::INNER_MULTI_DISPATCH)?;
    let offsets = properties::find_str(stored, names::INNER_MULTI_QUEUE_OFFSET)?;
    let place = names.split(',').position(|known| known == name)?;
    offsets.split(',').nth(place)?.parse().ok()
}

/// A message for light queues of the receiver.
pub struct Copy {
    from: ShardId,
    ticket: u64,
    message: OwnedMessage,
    /// To be told only when it is durable; see [`Put::firm`].
    firm: bool,
}

/// Places in a message's list of names, and its offsets in these queues.
pub type Offsets = Vec<(usize, i64)>;
/// Where copies went.
pub type Copied = Result<Offsets, Reject>;

/// A message whose copies are being stored.
struct Spread {
    put: Put,
    left: usize,
    offsets: Offsets,
    trouble: Option<Reject>,
}

/// What one shard knows of light queues beside its store.
#[derive(Default)]
pub struct Lights {
    /// Light queues here.
    count: usize,
    spreads: Map<u64, Spread>,
    tickets: u64,
}

impl Broker {
    /// A topic that a request names: one there is, or that of a light queue.
    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        if !is_light(name) || !self.options.light {
            return self.snapshot.topics.get(name).cloned();
        }
        let owner = self
            .light_home(name)
            .filter(|_| name.len() <= NAME_BYTES_MAX)?;
        Some(Arc::new(Topic {
            name: name.into(),
            id: topic_id(name, &self.snapshot)?,
            config: config_with(1, perm::READ | perm::WRITE),
            owners: vec![owner],
        }))
    }

    /// A group that a request names; those with names of light queues need no configuration.
    pub(super) fn group(&self, name: &str) -> Option<Arc<GroupConfig>> {
        if !is_light(name) || !self.options.light {
            return self.snapshot.groups.get(name).cloned();
        }
        let (group_name, config) = (name.to_owned(), GroupConfig::default());
        Some(Arc::new(GroupConfig {
            group_name,
            ..config
        }))
    }

    pub(super) fn light_home(&self, name: &str) -> Option<ShardId> {
        home(name, &self.snapshot, self.options.control.shards)
    }

    /// Whether a message goes to light queues as well.
    pub(super) fn is_for_lights(&self, message: &OwnedMessage) -> bool {
        self.options.light
            && allows(&message.topic)
            && properties::find_str(&message.properties, names::INNER_MULTI_DISPATCH)
                .is_some_and(|list| list.contains(PREFIX))
    }

    /// Stores a message whose queue is here, after its copies for light queues of other shards.
    pub(super) fn put_light(&mut self, now: Now, put: Put, out: &mut Outbox<Peer>) {
        let (from, ticket) = (put.from, put.ticket);
        let others = match self.other_homes(&put.message) {
            Ok(others) if others.is_empty() => return self.put_with_lights(now, put, &[], out),
            Ok(others) => others,
            Err(reject) => return self.tell_put(now, from, ticket, Err(reject), out),
        };
        if self.lights.spreads.len() >= SPREADS_MAX {
            let remark = format!(
                "[OVERLOAD]system busy: {SPREADS_MAX} messages are on their way to light queues"
            );
            let reject = Reject::new(response::SYSTEM_BUSY, remark);
            return self.tell_put(now, from, ticket, Err(reject), out);
        }
        self.lights.tickets += 1;
        let ticket = self.lights.tickets;
        for shard in &others {
            let copy = Copy {
                from: self.me,
                ticket,
                message: put.message.clone(),
                firm: put.firm,
            };
            out.peers.push((*shard, Peer::LightCopy(Box::new(copy))));
        }
        let spread = Spread {
            put,
            left: others.len(),
            offsets: Vec::new(),
            trouble: None,
        };
        self.lights.spreads.insert(ticket, spread);
    }

    /// The other shards that a message has light queues in, each once.
    fn other_homes(&self, message: &OwnedMessage) -> Result<Vec<ShardId>, Reject> {
        let mut homes = Vec::new();
        for (_, name) in wanted(names_of(message))? {
            let home = self.light_home(name).ok_or_else(|| {
                let (parent, _) = lite_parts(name).unwrap_or_default();
                let remark =
                    format!("the light queue {name} has no topic: {parent} does not exist");
                Reject::new(response::MESSAGE_ILLEGAL, remark)
            })?;
            if home != self.me && !homes.contains(&home) {
                homes.push(home);
            }
        }
        Ok(homes)
    }

    /// A copy for the light queues of this shard.
    pub(super) fn light_copy(&mut self, now: Now, copy: Copy, out: &mut Outbox<Peer>) {
        let Copy {
            from,
            ticket,
            mut message,
            firm,
        } = copy;
        let stored = self.store_copy(now, &mut message);
        let (end, offsets) = match stored {
            Ok(stored) => stored,
            Err(reject) => {
                let result = Err(reject);
                return out.peers.push((from, Peer::LightCopied { ticket, result }));
            }
        };
        let ack = Ack::LightCopy {
            from,
            ticket,
            offsets,
        };
        match firm {
            true => self.firm_acks.push(end, ack),
            false => self.acks.push(end, ack),
        }
    }

    fn store_copy(
        &mut self,
        now: Now,
        message: &mut OwnedMessage,
    ) -> Result<(LogOffset, Offsets), Reject> {
        let (offsets, slots) = self.light_slots(now, message, &[])?;
        let draft = message.draft(self.options.store_host);
        self.check_light(&draft, slots.len())?;
        let dispatch = Dispatch::of(&message.topic, &message.properties);
        let appended = self.store.append_light_copy(now, &draft, &dispatch, &slots);
        Ok((appended.end, offsets))
    }

    /// One of the copies of a message is safe, or was refused.
    pub(super) fn light_copied(
        &mut self,
        now: Now,
        ticket: u64,
        result: Copied,
        out: &mut Outbox<Peer>,
    ) {
        let Some(spread) = self.lights.spreads.get_mut(&ticket) else {
            return;
        };
        spread.left -= 1;
        match result {
            Ok(offsets) => spread.offsets.extend(offsets),
            Err(reject) => spread.trouble = Some(reject),
        }
        if spread.left > 0 {
            return;
        }
        let spread = self.lights.spreads.remove(&ticket).expect("just seen");
        let Spread {
            put,
            offsets,
            trouble,
            ..
        } = spread;
        match trouble {
            None => self.put_with_lights(now, put, &offsets, out),
            Some(reject) => self.tell_put(now, put.from, put.ticket, Err(reject), out),
        }
    }

    /// Stores a message in its queue and in the light queues of this shard.
    fn put_with_lights(
        &mut self,
        now: Now,
        put: Put,
        elsewhere: &[(usize, i64)],
        out: &mut Outbox<Peer>,
    ) {
        let Put {
            from,
            ticket,
            mut message,
            firm,
            ..
        } = put;
        match self.store_with_lights(now, &mut message, elsewhere) {
            Ok((end, stored)) => self.ack_put(from, ticket, firm, end, stored),
            Err(reject) => self.tell_put(now, from, ticket, Err(reject), out),
        }
    }

    fn store_with_lights(
        &mut self,
        now: Now,
        message: &mut OwnedMessage,
        elsewhere: &[(usize, i64)],
    ) -> Result<(LogOffset, Stored), Reject> {
        let topic = self.snapshot.topics.get(&message.topic).cloned();
        // While copies were stored elsewhere it may have been deleted, and made again elsewhere.
        let here = |topic: &Arc<Topic>| self.owner(topic, message.queue_id) == Some(self.me);
        let topic = topic.filter(here).ok_or_else(|| {
            let remark = format!("topic[{}] not exist", message.topic);
            Reject::new(response::TOPIC_NOT_EXIST, remark)
        })?;
        let (_, slots) = self.light_slots(now, message, elsewhere)?;
        let draft = message.draft(self.options.store_host);
        self.check_light(&draft, slots.len())?;
        let slot = self
            .store
            .open_queue(now, &topic.name, topic.id, message.queue_id)
            .and_then(|slot| self.store.check_message().map(|()| slot))
            .map_err(|refused| self.refuse(refused))?;
        let dispatch = Dispatch::of(&message.topic, &message.properties);
        let appended = match slots.is_empty() {
            true => self.store.append(now, slot, &draft, &dispatch),
            false => self
                .store
                .append_light(now, slot, &draft, &dispatch, &slots),
        };
        self.stats.put(1, message.body.len());
        let stored = Stored {
            at: appended.at,
            shard: self.me,
            offset: appended.offset.0,
        };
        Ok((appended.end, stored))
    }

    /// The light queues of this shard that a message names, made if need be. The message is told
    /// its offsets in all of them, so far as they are known.
    fn light_slots(
        &mut self,
        now: Now,
        message: &mut OwnedMessage,
        elsewhere: &[(usize, i64)],
    ) -> Result<(Offsets, Vec<QueueSlot>), Reject> {
        let list = names_of(message).to_owned();
        let (mut offsets, mut slots) = (Vec::new(), Vec::new());
        for (place, name) in wanted(&list)? {
            if self.light_home(name) != Some(self.me) {
                continue;
            }
            let slot = self.open_light(now, name)?;
            offsets.push((place, self.store.queue_end(slot).0 as i64));
            slots.push(slot);
        }
        self.store
            .check_message()
            .map_err(|refused| self.refuse(refused))?;
        let known: Vec<_> = offsets.iter().chain(elsewhere).copied().collect();
        let told = told(&list, &known);
        properties::set(
            &mut message.properties,
            names::INNER_MULTI_QUEUE_OFFSET,
            &told,
        );
        Ok((offsets, slots))
    }

    /// The slot of a queue that is this shard's, made if need be.
    pub(super) fn open_queue(
        &mut self,
        now: Now,
        topic: &Topic,
        queue_id: i32,
    ) -> Result<QueueSlot, Reject> {
        if is_light_id(topic.id) {
            return self.open_light(now, &topic.name);
        }
        let opened = self.store.open_queue(now, &topic.name, topic.id, queue_id);
        opened.map_err(|refused| self.refuse(refused))
    }

    fn open_light(&mut self, now: Now, name: &str) -> Result<QueueSlot, Reject> {
        let Some(topic_id) = topic_id(name, &self.snapshot) else {
            let remark = format!("the light queue {name} has no topic any more");
            return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
        };
        let known = self.store.queues().find(name, 0);
        let queue = known.and_then(|slot| self.store.queues().queue(slot));
        if let Some(slot) = known.filter(|_| queue.is_some_and(|q| q.topic_id == topic_id)) {
            return Ok(slot);
        }
        if self
            .options
            .light_queues_max
            .is_some_and(|most| self.lights.count >= most)
        {
            let remark = "[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]lmq consume queue num exceeded.";
            return Err(Reject::new(response::LMQ_QUOTA_EXCEEDED, remark));
        }
        let opened = self.store.open_queue(now, name, topic_id, 0);
        let slot = opened.map_err(|refused| self.refuse(refused))?;
        self.lights.count += 1;
        Ok(slot)
    }

    fn check_light(&self, draft: &Draft<'_>, queues: usize) -> Result<(), Reject> {
        let illegal = |remark: String| Reject::new(response::MESSAGE_ILLEGAL, remark);
        let len = draft.properties.len();
        if len > PROPERTIES_BYTES_MAX {
            return Err(illegal(format!(
                "the message properties have {len} bytes with the offsets in {queues} light \
                 queues, the limit is {PROPERTIES_BYTES_MAX}"
            )));
        }
        draft.check().map_err(|error| illegal(error.to_string()))?;
        let (bytes, limit) = (
            encoded_len(draft) + overhead(queues),
            self.store.reserve_limit(),
        );
        if bytes > limit {
            return Err(illegal(format!(
                "the message takes {bytes} bytes to store with {queues} light queues, the limit \
                 is {limit}"
            )));
        }
        Ok(())
    }

    /// Drops the light queues that have no place here any more, lite topics of topics that are
    /// gone, and counts those that stay.
    pub(super) fn drop_light_strangers(&mut self, now: Now) {
        let queues = self.store.queues().iter();
        let lights = queues.filter(|(_, queue)| is_light_id(queue.topic_id));
        let (mine, strangers): (Vec<_>, Vec<_>) = lights.partition(|(_, queue)| {
            self.light_home(&queue.topic) == Some(self.me)
                && topic_id(&queue.topic, &self.snapshot) == Some(queue.topic_id)
        });
        self.lights.count = mine.len();
        let strangers: Vec<QueueSlot> = strangers.into_iter().map(|(slot, _)| slot).collect();
        strangers
            .into_iter()
            .for_each(|slot| self.drop_queue(now, slot));
    }

    /// Drops one light queue with the offsets of its groups; false if it is not here.
    pub(super) fn drop_light(&mut self, now: Now, name: &str) -> bool {
        let Some(slot) = self.store.queues().find(name, 0) else {
            return false;
        };
        self.drop_queue(now, slot);
        self.lights.count -= 1;
        true
    }

    /// Light queues of this shard.
    pub(super) fn light_count(&self) -> usize {
        self.lights.count
    }
}

fn names_of(message: &OwnedMessage) -> &str {
    properties::find_str(&message.properties, names::INNER_MULTI_DISPATCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::snapshot::Catalog;

    fn snapshot(topic: &str, id: u64) -> Snapshot {
        let topic = Topic {
            name: topic.into(),
            id,
            config: config_with(2, perm::READ | perm::WRITE),
            owners: vec![ShardId(1), ShardId(0)],
        };
        let mut topics = Catalog::default();
        topics.insert(topic.name.clone(), Arc::new(topic));
        Snapshot {
            topics,
            ..Snapshot::empty()
        }
    }

    #[test]
    fn names_of_lite_topics() {
        let name = lite_queue("p", "l");
        assert_eq!(name, "%LMQ%$p$l");
        assert_eq!(lite_parts(&name), Some(("p", "l")));
        for other in [
            "%LMQ%p$l",
            "%LMQ%$p",
            "%LMQ%$p$",
            "%LMQ%$$l",
            "%LMQ%$p$l$m",
            "$p$l",
        ] {
            assert_eq!(lite_parts(other), None, "{other}");
        }
    }

    #[test]
    fn a_light_queue_has_one_home_and_a_lite_topic_that_of_its_parent() {
        let (now, again) = (snapshot("p", 7), snapshot("p", 9));
        assert_eq!(home("%LMQ%$p$l", &now, 2), Some(ShardId(1)));
        assert_eq!(home("%LMQ%$q$l", &now, 2), None, "no such parent");
        assert_eq!(home("%LMQ%a", &now, 2), home("%LMQ%a", &again, 2));
        let homes: Vec<_> = (0..20)
            .map(|n| home(&format!("%LMQ%{n}"), &now, 2))
            .collect();
        assert!(homes.contains(&Some(ShardId(0))) && homes.contains(&Some(ShardId(1))));
        assert_eq!(topic_id("%LMQ%a", &now), topic_id("%LMQ%a", &again));
        let ids = [&now, &again].map(|snapshot| topic_id("%LMQ%$p$l", snapshot));
        assert!(
            ids[0] != ids[1],
            "a parent that is made again has other lite topics"
        );
        assert!(ids.iter().flatten().all(|id| is_light_id(*id)));
        assert!(topic_id("%LMQ%$q$l", &now).is_none() && !is_light_id(9));
    }

    #[test]
    fn a_list_names_each_queue_once_within_bounds() {
        let wanted = |list: &str| wanted(list).map(|found| found.len());
        assert_eq!(wanted("%LMQ%a,other,,%LMQ%b"), Ok(2));
        let long = format!("%LMQ%{}", "x".repeat(NAME_BYTES_MAX - PREFIX.len()));
        assert_eq!(wanted(&long), Ok(1));
        for (list, expected) in [
            (
                "%LMQ%a,%LMQ%a".to_owned(),
                "the light queue %LMQ%a is named twice",
            ),
            (
                format!("{long}x"),
                "has a name of 256 bytes: 6 to 255 are allowed",
            ),
            (
                "%LMQ%".to_owned(),
                "has a name of 5 bytes: 6 to 255 are allowed",
            ),
            (
                "%LMQ%a\u{3}".to_owned(),
                "has a name with control characters",
            ),
        ] {
            let reject = wanted(&list).unwrap_err();
            assert_eq!(reject.code, response::MESSAGE_ILLEGAL);
            assert!(reject.remark.contains(expected), "{}", reject.remark);
        }
    }

    #[test]
    fn offsets_stand_in_the_order_of_names() {
        let list = "%LMQ%a,other,%LMQ%b,%LMQ%c";
        assert_eq!(told(list, &[(3, 9), (0, 4)]), "4,,-1,9");
    }

    #[test]
    fn some_topics_have_none() {
        assert!(allows("t"));
        for topic in [
            "%RETRY%g",
            "%DLQ%g",
            "rmq_sys_wheel_timer",
            "SCHEDULE_TOPIC_XXXX",
            "%LMQ%a",
        ] {
            assert!(!allows(topic), "{topic}");
        }
    }
}
