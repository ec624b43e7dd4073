//! What operators ask about lite topics: GET_BROKER_LITE_INFO 200074, GET_PARENT_TOPIC_INFO 200075,
//! GET_LITE_TOPIC_INFO 200076, GET_LITE_CLIENT_INFO 200077, GET_LITE_GROUP_INFO 200078 and
//! TRIGGER_LITE_DISPATCH 200079.
//!
//! The first two are counts of all shards; the others are answered where the lite topics are. A
//! question makes no group, unlike in the reference.
//!
//! Source: `LiteManagerProcessor`, `LiteConsumerLagCalculator`; spec page delta-5.5 §1.

use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::handle::lite_subs::lite_queues;
use crate::broker::handle::{Parked, Request, bad_header, lite, succeed, succeed_with};
use crate::broker::light::{is_light_id, lite_parts, lite_queue};
use crate::broker::lite::Who;
use crate::broker::lite::rules::{bound_to, expiration_minutes, is_parent};
use crate::broker::survey::{self, Question, Row, time_of};
use crate::broker::topics::Topic;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::json::to_vec;
use crate::remoting::body::lite::{
    BrokerLiteInfo, LiteClientInfo, LiteGroupInfo, LiteLag, LiteTopicInfo, ParentTopicInfo,
    Subscriber,
};
use crate::remoting::body::stats::{ConsumeOffset, TopicOffset};
use crate::remoting::code::response;
use crate::remoting::header::lite::{LiteClientName, LiteGroupName, LiteTopicName, TriggerLite};
use crate::remoting::header::topic::TopicName;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Lite topics in one answer at most.
const NAMES_MAX: usize = 10_000;

/// Of what shards count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    Broker,
    Parent(Arc<str>),
}

/// What one shard has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    queues: usize,
    lights: usize,
    subscriptions: usize,
    clients: usize,
    held: usize,
    offsets: usize,
    /// Lite topics of the parent asked for.
    lites: usize,
}

pub fn broker_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    survey::ask(broker, request, Question::LiteCounts(Wanted::Broker), out)
}

pub fn parent_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = TopicName::decode(&request.command.ext).map_err(bad_header)?;
    let parent = parent(broker, &header.topic)?.name.clone();
    let wanted = Wanted::Parent(parent);
    survey::ask(broker, request, Question::LiteCounts(wanted), out)
}

fn parent(broker: &Broker, name: &str) -> Result<Arc<Topic>, Reject> {
    let Some(topic) = broker.snapshot.topics.get(name) else {
        let remark = format!("Topic [{name}] not exist.");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    if !is_parent(topic) {
        let remark = format!("Topic [{name}] type not match.");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    Ok(topic.clone())
}

/// What a shard says to that.
pub fn rows(broker: &Broker, wanted: &Wanted) -> Vec<Row> {
    let lites = match wanted {
        Wanted::Broker => 0,
        Wanted::Parent(parent) => lite_queues(&broker.store, parent).len(),
    };
    let queues = broker.store.queues();
    let is_light = |slot: &QueueSlot| {
        let queue = queues.queue(*slot);
        queue.is_some_and(|queue| is_light_id(queue.topic_id))
    };
    vec![Row::Lites(Counts {
        queues: queues.len(),
        lights: broker.light_count(),
        subscriptions: broker.lites.subscriptions(),
        clients: broker.lites.clients(),
        held: broker.leases.held().filter(is_light).count(),
        offsets: broker.offsets.len(),
        lites,
    })]
}

/// The answer to it.
pub fn body(broker: &Broker, wanted: &Wanted, rows: &[Row]) -> Vec<u8> {
    let counts = rows.iter().filter_map(|row| match row {
        Row::Lites(counts) => Some(counts),
        _ => None,
    });
    let sum = |of: fn(&Counts) -> usize| counts.clone().map(of).sum::<usize>() as i64;
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, group) in broker.snapshot.groups.iter() {
        if let Some(topic) = bound_to(group) {
            let bound = groups.entry(topic.to_owned()).or_default();
            bound.insert(name.to_string());
        }
    }
    let topic = match wanted {
        Wanted::Parent(topic) => topic,
        Wanted::Broker => {
            let topics = broker.snapshot.topics.iter();
            let parents = topics.filter(|(_, topic)| is_parent(topic));
            let most = broker.options.light_queues_max;
            let most = most.unwrap_or(crate::store::queues::QUEUES_MAX);
            return to_vec(&BrokerLiteInfo {
                cq_table_size: sum(|counts| counts.queues),
                current_lmq_num: sum(|counts| counts.lights),
                event_map_size: sum(|counts| counts.clients),
                group_meta: groups,
                lite_subscription_count: sum(|counts| counts.subscriptions),
                max_lmq_num: most as i64 * i64::from(broker.options.control.shards),
                offset_table_size: sum(|counts| counts.offsets),
                order_info_count: sum(|counts| counts.held),
                store_type: "default".to_owned(),
                topic_meta: parents
                    .map(|(name, topic)| (name.to_string(), expiration_minutes(topic)))
                    .collect(),
            });
        }
    };
    let ttl = broker.snapshot.topics.get(topic);
    to_vec(&ParentTopicInfo {
        groups: groups.remove(&**topic),
        lite_topic_count: sum(|counts| counts.lites),
        lmq_num: sum(|counts| counts.lights),
        topic: topic.to_string(),
        ttl: ttl.map_or(-1, |topic| expiration_minutes(topic)),
    })
}

/// True if the request went to the shard that has the lite topics.
fn sent_home(
    broker: &Broker,
    request: &Request<'_>,
    topic: &Topic,
    out: &mut Outbox<Peer>,
) -> Result<bool, Reject> {
    let home = lite::home(topic)?;
    if home != broker.me {
        broker.forward(home, request, out);
    }
    Ok(home != broker.me)
}

/// A question that may have to wait for the disk.
pub struct LiteAsked {
    pub to: ReplyTo,
    what: What,
}

enum What {
    Topic {
        parent: Arc<str>,
        lite: Option<String>,
    },
    Group {
        group: String,
        parent: String,
        lite: Option<String>,
        most: usize,
    },
}

pub fn topic_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = LiteTopicName::decode(&request.command.ext).map_err(bad_header)?;
    let topic = parent(broker, header.parent_topic.as_deref().unwrap_or_default())?;
    if sent_home(broker, request, &topic, out)? {
        return Ok(());
    }
    let (to, parent) = (request.reply_to(), topic.name.clone());
    let lite = header.lite_topic.map(|lite| lite.into_owned());
    let what = What::Topic { parent, lite };
    run(broker, LiteAsked { to, what }, out);
    Ok(())
}

/// The topic that a group of lite topics is bound to.
fn lite_group(broker: &Broker, group: &str) -> Result<String, Reject> {
    let Some(config) = broker.snapshot.groups.get(group) else {
        let remark = format!("Group [{group}] not exist.");
        return Err(Reject::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    match bound_to(config).filter(|topic| !topic.is_empty()) {
        Some(topic) => Ok(topic.to_owned()),
        None => {
            let remark = format!("Group [{group}] is not a LITE group.");
            Err(Reject::new(response::INVALID_PARAMETER, remark))
        }
    }
}

pub fn group_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = LiteGroupName::decode(&request.command.ext).map_err(bad_header)?;
    let parent = lite_group(broker, &header.group)?;
    if let Some(topic) = broker.snapshot.topics.get(&parent).cloned()
        && sent_home(broker, request, &topic, out)?
    {
        return Ok(());
    }
    let what = What::Group {
        group: header.group.into_owned(),
        parent,
        lite: header.lite_topic.map(|lite| lite.into_owned()),
        most: usize::try_from(header.top_k).unwrap_or(0).min(NAMES_MAX),
    };
    let to = request.reply_to();
    run(broker, LiteAsked { to, what }, out);
    Ok(())
}

pub fn run(broker: &mut Broker, asked: LiteAsked, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let body = match &asked.what {
        What::Topic { parent, lite } => {
            topic_body(broker, parent, lite.as_deref(), WaiterId(waiter))
        }
        What::Group {
            group,
            parent,
            lite,
            most,
        } => {
            let lite = lite.as_deref().filter(|lite| !lite.is_empty());
            group_body(broker, (group, parent), lite, *most, WaiterId(waiter))
        }
    };
    match body {
        Some(body) => succeed_with(asked.to, &body, out),
        None => drop(broker.parked.insert(waiter, Parked::LiteAsked(asked))),
    }
}

/// `None` while a time is read from the disk.
fn topic_body(
    broker: &mut Broker,
    parent: &str,
    lite: Option<&str>,
    waiter: WaiterId,
) -> Option<Vec<u8>> {
    let name = lite_queue(parent, lite.unwrap_or_default());
    let slot = broker.store.queues().find(&name, 0);
    let range = slot.map(|slot| broker.store.visible_range(slot));
    let (min, max) = range.unwrap_or_default();
    let last = max.0.checked_sub(1).filter(|last| *last >= min.0);
    let last_ms = time_of(broker, slot, last, waiter)?;
    let subscribers = broker.lites.subscribers(&name).into_iter();
    let mut subscriber: Vec<Subscriber> = subscribers
        .map(|(group, client)| Subscriber {
            client_id: client.to_string(),
            group: group.to_string(),
        })
        .collect();
    subscriber.sort();
    Some(to_vec(&LiteTopicInfo {
        lite_topic: lite.map(str::to_owned),
        parent_topic: parent.to_owned(),
        sharding_to_broker: true,
        subscriber,
        topic_offset: TopicOffset {
            last_update_timestamp: last_ms,
            max_offset: max.0 as i64,
            min_offset: min.0 as i64,
        },
    }))
}

fn group_body(
    broker: &mut Broker,
    (group, parent): (&str, &str),
    lite: Option<&str>,
    most: usize,
    waiter: WaiterId,
) -> Option<Vec<u8>> {
    let mut info = LiteGroupInfo {
        group: group.to_owned(),
        parent_topic: parent.to_owned(),
        lite_topic: lite.map(str::to_owned),
        earliest_unconsumed_timestamp: -1,
        ..LiteGroupInfo::default()
    };
    match lite {
        Some(lite) => one_topic(broker, &mut info, lite, waiter)?,
        None => worst_topics(broker, &mut info, most, waiter)?,
    }
    Some(to_vec(&info))
}

fn one_topic(
    broker: &mut Broker,
    info: &mut LiteGroupInfo,
    lite: &str,
    waiter: WaiterId,
) -> Option<()> {
    let slot = broker
        .store
        .queues()
        .find(&lite_queue(&info.parent_topic, lite), 0);
    let max = slot.map_or(0, |slot| broker.store.visible_range(slot).1.0);
    if max == 0 {
        info.total_lag_count = -1;
        return Some(());
    }
    let committed = slot.and_then(|slot| broker.offsets.committed(&info.group, slot));
    let Some(committed) = committed else {
        return Some(());
    };
    let next = Some(committed).filter(|next| *next < max);
    let next_ms = time_of(broker, slot, next, waiter)?;
    let last_ms = time_of(broker, slot, committed.checked_sub(1), waiter)?;
    info.total_lag_count = max as i64 - committed as i64;
    info.earliest_unconsumed_timestamp = if next.is_some() { next_ms } else { -1 };
    info.lite_topic_offset_wrapper = Some(ConsumeOffset {
        broker_offset: max as i64,
        consumer_offset: committed as i64,
        pull_offset: 0,
        last_timestamp: last_ms,
    });
    Some(())
}

/// The lite topics in which a group is behind most: by messages, and by the age of the oldest.
fn worst_topics(
    broker: &mut Broker,
    info: &mut LiteGroupInfo,
    most: usize,
    waiter: WaiterId,
) -> Option<()> {
    let offsets: Vec<_> = broker.offsets.of_group(&info.group).collect();
    let mut behind = Vec::new();
    for (slot, committed) in offsets {
        let queue = broker.store.queues().queue(slot);
        let parts = queue.and_then(|queue| lite_parts(&queue.topic));
        let Some((_, lite)) = parts.filter(|(parent, _)| *parent == info.parent_topic) else {
            continue;
        };
        let max = broker.store.visible_range(slot).1.0;
        if max > committed {
            behind.push((max - committed, lite.to_owned(), slot, committed));
        }
    }
    info.total_lag_count = behind.iter().map(|(lag, ..)| *lag as i64).sum();
    behind.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    let mut worst = Vec::new();
    for (lag, lite_topic, slot, committed) in behind.into_iter().take(most) {
        worst.push(LiteLag {
            earliest_unconsumed_timestamp: time_of(broker, Some(slot), Some(committed), waiter)?,
            lag_count: lag as i64,
            lite_topic,
        });
    }
    let mut oldest = worst.clone();
    oldest.sort_by_key(|lag| lag.earliest_unconsumed_timestamp);
    let first = oldest.first().map(|lag| lag.earliest_unconsumed_timestamp);
    info.earliest_unconsumed_timestamp = first.unwrap_or(-1);
    info.lag_count_top_k = Some(worst);
    info.lag_timestamp_top_k = Some(oldest);
    Some(())
}

pub fn client_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = LiteClientName::decode(&request.command.ext).map_err(bad_header)?;
    if header.max_count <= 0 {
        let asked = header.max_count;
        let remark = format!("[maxCount] field invalid: {asked}, must be above 0");
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    let text =
        |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
    let (parent_topic, group) = (text(&header.parent_topic), text(&header.group));
    let topic = parent(broker, &parent_topic)?;
    let Some(config) = broker.snapshot.groups.get(&group) else {
        let remark = format!("Group [{group}] not exist.");
        return Err(Reject::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    if bound_to(config) != Some(&parent_topic) {
        let remark = format!("Subscription [{group}]-[{parent_topic}] not match.");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    if sent_home(broker, request, &topic, out)? {
        return Ok(());
    }
    let client = text(&header.client_id);
    let known = broker.lites.client_info(Who {
        group: &group,
        client: &client,
    });
    let most = usize::try_from(header.max_count)
        .unwrap_or(0)
        .min(NAMES_MAX);
    let count = known.as_ref().map(|(_, names)| names.len() as i64);
    let names = known.as_ref().map(|(_, names)| {
        let names = names.iter().take(most);
        names.map(|name| name.to_string()).collect()
    });
    let body = to_vec(&LiteClientInfo {
        client_id: header.client_id.map(|client| client.into_owned()),
        group,
        last_access_time: known.map_or(-1, |(came_ms, _)| came_ms),
        last_consume_time: 0,
        lite_topic_count: count.unwrap_or(-1),
        lite_topic_set: names,
        parent_topic,
    });
    succeed_with(request.reply_to(), &body, out);
    Ok(())
}

/// Clients look at all their lite topics again: needed only after damage, for what could not be
/// read is passed over until its next message. Also one client's queues may be others' by now, so
/// those of its whole group are looked at.
pub fn trigger(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = TriggerLite::decode(&request.command.ext).map_err(bad_header)?;
    let parent = lite_group(broker, &header.group)?;
    if let Some(topic) = broker.snapshot.topics.get(&parent).cloned()
        && sent_home(broker, request, &topic, out)?
    {
        return Ok(());
    }
    broker.lites.raise_all(request.now, &header.group);
    if !request.command.is_oneway() {
        succeed(request.reply_to(), out);
    }
    Ok(())
}
