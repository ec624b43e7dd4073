//! `orbitmq admin why`: the one reason why a group did not get a message, with its evidence.
//!
//! Both questions walk the same way a message goes: topic, group, members, subscription, filter,
//! store, offsets, retries. The first thing on the way that explains it is the answer.

use super::groups::connected;
use super::link::{Answer, Link, Trouble};
use super::sheet::{Sheet, time};
use crate::broker::control::names::{
    DLQ_PREFIX, SCHEDULE_TOPIC, TIMER_TOPIC, TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC,
    pop_retry_topics, retry_topic,
};
use crate::broker::splits::differences;
use crate::client::route::BrokerRoute;
use crate::filter::sql::SqlFilter;
use crate::filter::tag::{TagFilter, java_hash};
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::body::client::{Connection, ConsumerConnection, Wants};
use crate::remoting::body::group::GroupTable;
use crate::remoting::body::heartbeat::{MessageModel, SubscriptionData};
use crate::remoting::body::stats::{ConsumeOffset, ConsumeStats, TopicStats};
use crate::remoting::code::request;

/// The last messages of a queue that a filter is held against.
const LOOKED_AT: i64 = 32;

/// Why, what shows it, and what to do.
struct Reason {
    cause: &'static str,
    evidence: String,
    next: String,
}

/// What one step of the way says: the reason, or to look on with what it found out.
type Step<T> = Result<Result<T, Reason>, Trouble>;

/// Ends a question with the reason that a step gives.
macro_rules! step {
    ($step:expr) => {
        match $step? {
            Ok(found) => found,
            Err(reason) => return Ok(reason),
        }
    };
}

fn reason(cause: &'static str, evidence: String, next: impl Into<String>) -> Reason {
    Reason {
        cause,
        evidence,
        next: next.into(),
    }
}

fn sheet(reason: Reason) -> Sheet {
    let mut sheet = Sheet::new(&["cause", "evidence", "next"]).upright();
    sheet.push(vec![
        reason.cause.into(),
        reason.evidence.into(),
        reason.next.into(),
    ]);
    sheet
}

/// Why a group gets nothing of a topic.
pub fn group(link: &mut Link, group: &str, topic: &str) -> Result<Sheet, Trouble> {
    group_reason(link, group, topic).map(sheet)
}

fn group_reason(link: &mut Link, group: &str, topic: &str) -> Result<Reason, Trouble> {
    let route = step!(route(link, topic));
    step!(sent(link, &route, topic));
    let wanted = step!(subscription(link, &route, group, topic));
    let places = step!(places(link, &route, group, topic));
    let lag: i64 = places.iter().map(Place::lag).sum();
    let letters = step!(dead_or_waiting(link, group, topic));
    if lag == 0 {
        if !any_wanted(link, &route, topic, &places, &wanted)? {
            let evidence = format!(
                "the group wants {} `{}`; of the last {LOOKED_AT} messages of each queue none fits",
                wanted.expression_type, wanted.sub_string
            );
            let next = "compare the tags or properties of messages: orbitmq admin read";
            return Ok(reason("the filter wants none", evidence, next));
        }
        let evidence = format!("the group is at the end of all {} queues", places.len());
        let next = format!("dead letters: {letters}; look at what the consumer does with messages");
        return Ok(reason("everything was consumed", evidence, next));
    }
    let stuck = places.iter().max_by_key(|place| place.lag());
    let stuck = stuck.expect("there is some lag");
    let evidence = format!(
        "{lag} messages wait; queue {} of {} is at {} of {}, there since {}",
        stuck.queue_id,
        stuck.broker,
        stuck.at.consumer_offset,
        stuck.at.broker_offset,
        said(stuck.at.last_timestamp)
    );
    let next = "the members do not keep up, or hang in their listener: take a thread dump of one";
    Ok(reason("the group is behind", evidence, next))
}

/// Why a group did not get one message.
pub fn message(link: &mut Link, id: &str, group: Option<&str>) -> Result<Sheet, Trouble> {
    message_reason(link, id, group).map(sheet)
}

fn message_reason(link: &mut Link, id: &str, group: Option<&str>) -> Result<Reason, Trouble> {
    let answer = step!(stored(link, id));
    let record = only(&answer)?;
    let later = [TIMER_TOPIC, SCHEDULE_TOPIC, TRANS_HALF_TOPIC].contains(&record.topic());
    let copy = if later { copy_of(link, &record)? } else { None };
    if later && copy.is_none() {
        return Ok(waits(&record));
    }
    let record = match &copy {
        Some(answer) => only(answer)?,
        None => record,
    };
    let topic = record.topic();
    if topic == TRANS_CHECK_MAX_TIME_TOPIC {
        let evidence = "no producer of its group said how its transaction ended".to_owned();
        let next = "ask about it again: orbitmq admin resume, or send it anew";
        return Ok(reason("its transaction stayed open", evidence, next));
    }
    if let Some(group) = topic.strip_prefix(DLQ_PREFIX) {
        return Ok(dead(group, &record));
    }
    let Some(group) = group else {
        let evidence = format!(
            "it is in {topic}, queue {}, offset {}, since {}",
            record.queue_id(),
            record.queue_offset(),
            said(record.store_timestamp())
        );
        let next = "name the group that misses it: --group";
        return Ok(reason("it is there to be consumed", evidence, next));
    };
    for_group(link, group, &record)
}

fn for_group(link: &mut Link, group: &str, record: &RecordView<'_>) -> Result<Reason, Trouble> {
    let topic = record.topic();
    let route = step!(route(link, topic));
    let wanted = step!(subscription(link, &route, group, topic));
    if !fits(&wanted, record) {
        let tag = properties::find_str(record.properties(), names::TAGS).unwrap_or("none");
        let evidence = format!(
            "the group wants {} `{}`; the message's tag is {tag}",
            wanted.expression_type, wanted.sub_string
        );
        let next = "subscribe the group to it, or send it with what the group wants";
        return Ok(reason("the filter does not want it", evidence, next));
    }
    if let Some(reason) = retried(link, group, record)? {
        return Ok(reason);
    }
    let places = step!(places(link, &route, group, topic));
    let at = places
        .iter()
        .find(|place| place.queue_id == record.queue_id());
    let Some(place) = at else {
        let evidence = format!("the group has no offset in queue {}", record.queue_id());
        let next = "see who has the queue: orbitmq admin members";
        return Ok(reason("the group has not come there", evidence, next));
    };
    let (offset, reached) = (record.queue_offset(), place.at.consumer_offset);
    let evidence = format!(
        "it is at offset {offset} of queue {}, the group is at {reached}",
        record.queue_id()
    );
    Ok(match reached > offset {
        true => reason(
            "the group has passed it",
            evidence,
            "it was consumed, or skipped by a reset; orbitmq admin reset moves the group back",
        ),
        false => {
            let before = format!("{evidence}: {} wait before it", offset - reached);
            reason(
                "the group has not reached it",
                before,
                "wait, or add members",
            )
        }
    })
}

fn route(link: &mut Link, topic: &str) -> Step<Vec<BrokerRoute>> {
    let route = match link.route(topic) {
        Err(Trouble::Absent(evidence)) => {
            let next = "make it: orbitmq admin create-topic; or a producer sends to another name";
            return Ok(Err(reason("the topic does not exist", evidence, next)));
        }
        other => other?,
    };
    if route.iter().all(|broker| broker.readable == 0) {
        let evidence = format!("no broker lets {topic} be read");
        let next = "change its permission: mqadmin updateTopicPerm";
        return Ok(Err(reason("the topic may not be read", evidence, next)));
    }
    Ok(Ok(route))
}

/// Whether the topic has or had messages.
fn sent(link: &mut Link, route: &[BrokerRoute], topic: &str) -> Step<()> {
    let (mut queues, mut ends) = (0, 0);
    for broker in route {
        let fields = [("topic", topic)];
        let answer = link.ask(&broker.addr, request::GET_TOPIC_STATS_INFO, &fields, b"")?;
        let stats: TopicStats = answer.read()?;
        queues += stats.offset_table.len();
        ends += stats
            .offset_table
            .iter()
            .map(|(_, at)| at.max_offset)
            .sum::<i64>();
    }
    Ok(match ends {
        0 => {
            let evidence = format!("all {queues} queues of {topic} are empty and always were");
            Err(reason("nothing was sent", evidence, "look at the producer"))
        }
        _ => Ok(()),
    })
}

/// What the group wants of the topic, and that somebody is there to get it.
fn subscription(
    link: &mut Link,
    route: &[BrokerRoute],
    group: &str,
    topic: &str,
) -> Step<SubscriptionData> {
    let mut members = 0;
    let mut wanted = None;
    for broker in route {
        let code = request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
        let table: GroupTable = link.ask(&broker.addr, code, &[], b"")?.read()?;
        let Some(config) = table.subscription_group_table.get(group) else {
            let evidence = format!("{} has no group {group}", broker.name);
            let next = "start a consumer of it, or check how the group is spelled";
            return Ok(Err(reason("the group does not exist", evidence, next)));
        };
        if !config.consume_enable {
            let evidence = format!("consumeEnable is false on {}", broker.name);
            let next = "enable it: mqadmin updateSubGroup -c true";
            return Ok(Err(reason("the group may not consume", evidence, next)));
        }
        let Some(known) = connected(link, &broker.addr, group)? else {
            continue;
        };
        if let Some(reason) = split(topic, &known) {
            return Ok(Err(reason));
        }
        members = members.max(known.connection_set.len());
        if known.message_model == Some(MessageModel::Broadcasting) {
            let evidence = format!("{members} members, each gets everything");
            let next = "each member keeps its own offsets: look at the one that misses something";
            return Ok(Err(reason("the group is a broadcast", evidence, next)));
        }
        wanted = wanted.or(known.subscription_table.get(topic).cloned());
    }
    if members == 0 {
        let evidence = format!("no broker of {topic} has a member of {group} connected");
        let next = "start its consumers; if they run, see whether they reach the broker";
        return Ok(Err(reason("nobody is connected", evidence, next)));
    }
    Ok(wanted.ok_or_else(|| {
        let evidence = format!("{members} members, none subscribes to {topic}");
        let next = "subscribe all members alike";
        reason("nobody subscribes to the topic", evidence, next)
    }))
}

/// Whether clients of the group want different things of the topic: then it is the newest
/// heartbeat's wish that counts, or a client is kept out.
fn split(topic: &str, known: &ConsumerConnection) -> Option<Reason> {
    let cause = "the members subscribe differently";
    let next = "subscribe all members alike, or use one group for each subscription; what was \
                skipped comes again with orbitmq admin reset";
    let wants_it = |one: &&Connection| {
        let wants = one.wants.as_ref();
        wants.is_some_and(|wants| wants.topics.contains_key(topic))
    };
    let mut these = known.connection_set.iter().filter(wants_it);
    if let Some(refused) = these.find_map(|one| one.refused.clone()) {
        return Some(reason(cause, refused, next));
    }
    let mine = |wants: &Wants| {
        let of_topic = wants.topics.iter().filter(|(name, _)| *name == topic);
        Wants {
            message_model: wants.message_model,
            topics: of_topic
                .map(|(name, wish)| (name.clone(), wish.clone()))
                .collect(),
        }
    };
    let said = known.connection_set.iter().filter_map(|one| {
        let wants = one
            .wants
            .as_ref()
            .filter(|wants| !wants.topics.is_empty())?;
        Some((one, mine(wants)))
    });
    let said: Vec<(&Connection, Wants)> = said.collect();
    let (one, first) = said.first()?;
    let (other, second) = said.iter().find(|(_, wants)| wants != first)?;
    let evidence = format!(
        "{} ({}) and {} ({}): {}",
        one.client_id,
        one.client_addr,
        other.client_id,
        other.client_addr,
        differences(first, second).join("; ")
    );
    Some(reason(cause, evidence, next))
}

/// Where a group is in one queue.
struct Place {
    broker: String,
    queue_id: i32,
    at: ConsumeOffset,
}

impl Place {
    fn lag(&self) -> i64 {
        (self.at.broker_offset - self.at.consumer_offset).max(0)
    }
}

fn places(link: &mut Link, route: &[BrokerRoute], group: &str, topic: &str) -> Step<Vec<Place>> {
    let mut places = Vec::new();
    for broker in route {
        // In a list, a topic counts even if the members do not want it.
        let fields = [
            ("consumerGroup", group),
            ("topic", topic),
            ("topicList", topic),
        ];
        let stats = match link.ask(&broker.addr, request::GET_CONSUME_STATS, &fields, b"") {
            Ok(answer) => answer.read::<ConsumeStats>()?,
            Err(Trouble::Refused { .. }) => continue,
            Err(trouble) => return Err(trouble),
        };
        places.extend(stats.offset_table.into_iter().map(|(queue, at)| Place {
            broker: queue.broker_name,
            queue_id: queue.queue_id,
            at,
        }));
    }
    if places.is_empty() {
        let evidence = format!("{group} has no offset in any queue of {topic}");
        let next = "a member must have its first pull answered: look at the members' logs";
        return Ok(Err(reason("the group has not begun", evidence, next)));
    }
    Ok(Ok(places))
}

/// How many dead letters the group has; or that messages wait to be retried.
fn dead_or_waiting(link: &mut Link, group: &str, topic: &str) -> Step<i64> {
    let mut retries = vec![retry_topic(group)];
    retries.extend(pop_retry_topics(topic, group));
    for retry in retries {
        let Ok(route) = link.route(&retry) else {
            continue;
        };
        let Ok(places) = places(link, &route, group, &retry)? else {
            continue;
        };
        let lag: i64 = places.iter().map(Place::lag).sum();
        if lag > 0 {
            let evidence = format!("{lag} messages that failed are in {retry}");
            let next = "they come again in their time; see why the listener refuses them";
            return Ok(Err(reason("messages wait to be retried", evidence, next)));
        }
    }
    let mut letters = 0;
    if let Ok(route) = link.route(&format!("{DLQ_PREFIX}{group}")) {
        for broker in route {
            letters += end_of(link, &broker.addr, &format!("{DLQ_PREFIX}{group}"), 0)?;
        }
    }
    Ok(Ok(letters))
}

fn end_of(link: &mut Link, addr: &str, topic: &str, queue: i32) -> Result<i64, Trouble> {
    let queue = queue.to_string();
    let fields = [("topic", topic), ("queueId", &queue)];
    let answer = link.ask(addr, request::GET_MAX_OFFSET, &fields, b"")?;
    Ok(answer.field("offset").parse().unwrap_or(0))
}

/// Whether one of the last messages fits the subscription.
fn any_wanted(
    link: &mut Link,
    route: &[BrokerRoute],
    topic: &str,
    places: &[Place],
    wanted: &SubscriptionData,
) -> Result<bool, Trouble> {
    for place in places {
        let Some(broker) = route.iter().find(|broker| broker.name == place.broker) else {
            continue;
        };
        let from = (place.at.broker_offset - LOOKED_AT).max(0);
        let answer = super::messages::pull(link, &broker.addr, topic, place.queue_id, from, 32)?;
        let records = RecordView::iter(&answer.body).filter_map(Result::ok);
        if records.into_iter().any(|record| fits(wanted, &record)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fits(wanted: &SubscriptionData, record: &RecordView<'_>) -> bool {
    let (kind, expression) = (&*wanted.expression_type, &*wanted.sub_string);
    match kind {
        "SQL92" => SqlFilter::parse(expression)
            .is_ok_and(|sql| sql.matches(properties::iter(record.properties()))),
        _ => {
            let tag = properties::find_str(record.properties(), names::TAGS);
            let hash = tag.map_or(0, |tag| i64::from(java_hash(tag)));
            TagFilter::parse(expression).is_ok_and(|tags| tags.matches(hash))
        }
    }
}

/// The message with an offset id, as it is stored.
fn stored(link: &mut Link, id: &str) -> Step<Answer> {
    match super::messages::stored(link, id) {
        Ok(answer) => Ok(Ok(answer)),
        Err(trouble @ Trouble::Unreachable { .. }) => Ok(Err(reason(
            "its broker is away",
            trouble.to_string(),
            "start the broker; nothing is lost by that",
        ))),
        Err(Trouble::Absent(evidence)) => Ok(Err(reason(
            "it is not in the store",
            evidence,
            "it was never acknowledged, or its time of retention is over",
        ))),
        Err(trouble) => Err(trouble),
    }
}

fn only(answer: &Answer) -> Result<RecordView<'_>, Trouble> {
    let record = RecordView::iter(&answer.body).next();
    record.and_then(Result::ok).ok_or_else(|| Trouble::Strange {
        addr: answer.addr.clone(),
        why: "no message in the answer".to_owned(),
    })
}

/// What a message became when its time had come or its transaction was committed.
fn copy_of(link: &mut Link, record: &RecordView<'_>) -> Result<Option<Answer>, Trouble> {
    let property = |name| properties::find_str(record.properties(), name);
    let (Some(topic), Some(key)) = (property(names::REAL_TOPIC), property(names::UNIQUE_KEY))
    else {
        return Ok(None);
    };
    by_unique_key(link, topic, key)
}

fn by_unique_key(link: &mut Link, topic: &str, key: &str) -> Result<Option<Answer>, Trouble> {
    let route = match link.route(topic) {
        Err(Trouble::Absent(_)) => return Ok(None),
        other => other?,
    };
    for broker in route {
        let answer = super::messages::query(link, &broker.addr, topic, key, true, 1)?;
        if !answer.body.is_empty() {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

/// A message that nobody may see yet.
fn waits(record: &RecordView<'_>) -> Reason {
    let property = |name| properties::find_str(record.properties(), name);
    let topic = property(names::REAL_TOPIC).unwrap_or("?");
    let stored = said(record.store_timestamp());
    match record.topic() {
        TIMER_TOPIC => {
            let due_ms = property(names::TIMER_OUT_MS).and_then(|text| text.parse().ok());
            let due = said(due_ms.unwrap_or(0));
            let evidence = format!("sent to {topic} at {stored}, to be delivered at {due}");
            reason("it waits for its time", evidence, "or it was taken back")
        }
        SCHEDULE_TOPIC => {
            let level = record.queue_id() + 1;
            let evidence = format!("sent to {topic} at {stored} with delay level {level}");
            reason("it waits for its delay", evidence, "wait")
        }
        _ => {
            let group = property(names::PRODUCER_GROUP).unwrap_or("?");
            let evidence = format!("sent to {topic} at {stored} by the group {group}");
            let next = "its producer has not committed it, or rolled it back";
            reason("its transaction is not committed", evidence, next)
        }
    }
}

fn dead(group: &str, record: &RecordView<'_>) -> Reason {
    let evidence = format!(
        "given up by {group} after {} attempts, at {}",
        record.reconsume_times(),
        said(record.store_timestamp())
    );
    let next = "mend what refuses it, then send it again";
    reason("it is a dead letter", evidence, next)
}

/// Whether the group refused it: then it waits to be tried again, or is a dead letter.
fn retried(
    link: &mut Link,
    group: &str,
    record: &RecordView<'_>,
) -> Result<Option<Reason>, Trouble> {
    let Some(key) = properties::find_str(record.properties(), names::UNIQUE_KEY) else {
        return Ok(None);
    };
    if let Some(answer) = by_unique_key(link, &format!("{DLQ_PREFIX}{group}"), key)? {
        return Ok(Some(dead(group, &only(&answer)?)));
    }
    let mut retries = vec![retry_topic(group), SCHEDULE_TOPIC.to_owned()];
    retries.extend(pop_retry_topics(record.topic(), group));
    for retry in &retries {
        if let Some(answer) = by_unique_key(link, retry, key)? {
            let again = only(&answer)?;
            let target = properties::find_str(again.properties(), names::REAL_TOPIC);
            if retry == SCHEDULE_TOPIC && target != Some(&*retries[0]) {
                continue;
            }
            let evidence = format!(
                "refused {} times, again in {retry} since {}",
                again.reconsume_times(),
                said(again.store_timestamp())
            );
            let next = "see why the listener refuses it";
            return Ok(Some(reason("the group refused it", evidence, next)));
        }
    }
    Ok(None)
}

fn said(ms: i64) -> String {
    time(ms).as_str().unwrap_or("an unknown time").to_owned()
}
