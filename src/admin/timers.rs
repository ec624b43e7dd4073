//! Messages that wait for their time or their delay level, and taking one back.
//!
//! A broker's messages for a time come hour by hour, not in the order they are due; its delay
//! levels are queues, each in that order. The next due of all of them is the first of each
//! [`Source`], and only that message is read.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::Value;

use super::groups::Start;
use super::link::{Broker, Link, Trouble};
use super::messages;
use super::pending::{self, LOOKED_MAX};
use super::sheet::{Sheet, time};
use crate::broker::control::names::SCHEDULE_TOPIC;
use crate::broker::handle::timer::recall_handle;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::body::pending::{PendingLevel, PendingPlace};
use crate::remoting::body::stats::TimerMetrics;
use crate::remoting::code::request;
use crate::remoting::header::pending::{LEVELS, PENDING_MAX, RECALLED, TIMERS};
use crate::store::index::key_hash;

/// Messages for a time that are sorted at once.
const BATCH: usize = 1000;
/// Messages of a level that are pulled at once.
const PIECE: u32 = 32;

/// Which ones to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Wish {
    /// Only for this topic
    #[arg(long)]
    topic: Option<String>,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

/// A message that waits.
struct Waiting {
    due_ms: i64,
    broker: usize,
    topic: String,
    id: String,
    key: Option<String>,
    level: Option<i32>,
}

impl Waiting {
    fn of(record: &RecordView<'_>, due_ms: i64, broker: usize, level: Option<i32>) -> Waiting {
        let property = |name| properties::find_str(record.properties(), name).map(str::to_owned);
        Waiting {
            due_ms,
            broker,
            topic: property(names::REAL_TOPIC).unwrap_or_default(),
            id: messages::id(record),
            key: property(names::UNIQUE_KEY),
            level,
        }
    }

    fn hash(&self) -> Option<u64> {
        let key = self.key.as_ref().filter(|_| self.level.is_none())?;
        Some(key_hash(&self.topic, key))
    }
}

/// Where messages come from in the order they are due.
enum Source {
    Timers {
        broker: usize,
        next: VecDeque<PendingPlace>,
        /// What was gone through: due then, and up to this place.
        passed: (i64, i64),
        is_last: bool,
    },
    Level {
        broker: usize,
        level: PendingLevel,
        next: VecDeque<Waiting>,
    },
}

pub fn list(link: &mut Link, wish: &Wish) -> Result<Sheet, Trouble> {
    let columns = &["due", "topic", "id", "key", "level", "state", "handle"];
    let words = match &wish.topic {
        Some(topic) => format!("no message of {topic} waits for its time"),
        None => "no message waits for its time".to_owned(),
    };
    let mut sheet = Sheet::new(columns).or_absent(words);
    let brokers = link.brokers()?;
    let mut sources = Vec::new();
    for (n, broker) in brokers.iter().enumerate() {
        let levels = pending::ask(link, &broker.addr, LEVELS, &[], b"")?.levels;
        let levels = levels.into_iter().filter(|level| level.next < level.end);
        sources.extend(levels.map(|level| Source::Level {
            broker: n,
            level,
            next: VecDeque::new(),
        }));
        sources.push(Source::Timers {
            broker: n,
            next: VecDeque::new(),
            passed: (i64::MIN, i64::MIN),
            is_last: false,
        });
    }
    let (found, more) = first(link, &brokers, &mut sources, wish)?;
    let taken_back = taken_back(link, &brokers, &found)?;
    for one in &found {
        let is_recalled = one.hash().is_some_and(|hash| taken_back.contains(&hash));
        let name = &brokers[one.broker].name;
        let key = one.key.as_deref().filter(|_| one.level.is_none());
        let handle = key.and_then(|key| recall_handle(&one.topic, name, one.due_ms, key));
        sheet.push(vec![
            time(one.due_ms),
            one.topic.as_str().into(),
            one.id.as_str().into(),
            one.key.clone().map_or(Value::Null, Value::from),
            one.level.map_or(Value::Null, Value::from),
            if is_recalled { "taken back" } else { "waits" }.into(),
            handle
                .filter(|_| !is_recalled)
                .map_or(Value::Null, Value::from),
        ]);
    }
    if more {
        let waits = counted(link, &brokers, wish.topic.as_deref())?;
        sheet.note(format!(
            "these are the next due, there may be more: {waits} wait for a time, besides those \
             with a delay level; see --count"
        ));
    }
    Ok(sheet)
}

/// The next due of all sources; true if there may be more.
fn first(
    link: &mut Link,
    brokers: &[Broker],
    sources: &mut [Source],
    wish: &Wish,
) -> Result<(Vec<Waiting>, bool), Trouble> {
    let (mut found, mut looked) = (Vec::new(), 0);
    loop {
        let mut next: Option<(i64, usize)> = None;
        for (n, source) in sources.iter_mut().enumerate() {
            let due_ms = source.due_ms(link, brokers)?;
            let earlier = due_ms.filter(|due_ms| next.is_none_or(|(first, _)| *due_ms < first));
            next = earlier.map(|due_ms| (due_ms, n)).or(next);
        }
        let Some((_, n)) = next else {
            return Ok((found, false));
        };
        if found.len() >= wish.count as usize || looked >= LOOKED_MAX {
            return Ok((found, true));
        }
        looked += 1;
        let one = sources[n].take(link, brokers)?;
        let wanted = |one: &Waiting| wish.topic.as_ref().is_none_or(|topic| *topic == one.topic);
        found.extend(one.filter(wanted));
    }
}

impl Source {
    /// When its first message is due.
    fn due_ms(&mut self, link: &mut Link, brokers: &[Broker]) -> Result<Option<i64>, Trouble> {
        match self {
            Source::Timers {
                broker,
                next,
                passed,
                is_last,
            } => {
                if next.is_empty() && !*is_last {
                    *next = batch(link, &brokers[*broker].addr, *passed)?;
                    *is_last = next.len() < BATCH;
                }
                Ok(next.front().map(|place| place.due_ms))
            }
            Source::Level {
                broker,
                level,
                next,
            } => {
                if next.is_empty() && level.next < level.end {
                    *next = pulled(link, brokers, *broker, level)?;
                }
                Ok(next.front().map(|waiting| waiting.due_ms))
            }
        }
    }

    /// Its first message; `None` if it has gone meanwhile.
    fn take(&mut self, link: &mut Link, brokers: &[Broker]) -> Result<Option<Waiting>, Trouble> {
        match self {
            Source::Level { next, .. } => Ok(next.pop_front()),
            Source::Timers {
                broker,
                next,
                passed,
                ..
            } => {
                let Some(place) = next.pop_front() else {
                    return Ok(None);
                };
                *passed = key(&place);
                let (addr, at) = (&brokers[*broker].addr, *broker);
                pending::view(link, addr, place.physical_offset, |record| {
                    Waiting::of(record, place.due_ms, at, None)
                })
            }
        }
    }
}

/// In which order messages for a time come.
fn key(place: &PendingPlace) -> (i64, i64) {
    (place.due_ms, place.physical_offset)
}

/// The next due messages for a time behind one; fewer than [`BATCH`] if those are all.
fn batch(
    link: &mut Link,
    addr: &str,
    passed: (i64, i64),
) -> Result<VecDeque<PendingPlace>, Trouble> {
    let mut first: Vec<PendingPlace> = Vec::new();
    let mut from: Option<String> = None;
    loop {
        // Once there are enough, what is due later is of no interest.
        let bound = first.get(BATCH - 1).map_or(i64::MAX, |last| last.due_ms);
        let (most, due_from, due_before) = (
            PENDING_MAX.to_string(),
            passed.0.max(0).to_string(),
            bound.saturating_add(1).to_string(),
        );
        let mut fields = vec![
            ("maxNum", most.as_str()),
            ("dueFrom", &due_from),
            ("dueBefore", &due_before),
        ];
        fields.extend(from.as_deref().map(|from| ("from", from)));
        let page = pending::ask(link, addr, TIMERS, &fields, b"")?;
        first.extend(page.places.into_iter().filter(|one| key(one) > passed));
        first.sort_by_key(key);
        first.truncate(BATCH);
        from = page.next;
        let last_ms = first.get(BATCH - 1).map_or(i64::MAX, |last| last.due_ms);
        if from.is_none() || last_ms < page.complete_ms {
            return Ok(first.into());
        }
    }
}

/// The next messages of a delay level.
fn pulled(
    link: &mut Link,
    brokers: &[Broker],
    broker: usize,
    level: &mut PendingLevel,
) -> Result<VecDeque<Waiting>, Trouble> {
    let addr = &brokers[broker].addr;
    let (queue, from) = (level.level - 1, level.next);
    let answer = messages::pull(link, addr, SCHEDULE_TOPIC, queue, from, PIECE)?;
    let mut found = VecDeque::new();
    for record in RecordView::iter(&answer.body) {
        let record = record.map_err(|error| messages::strange(addr, &error))?;
        level.next = record.queue_offset() + 1;
        let due_ms = record.store_timestamp() + level.delay_ms;
        found.push_back(Waiting::of(&record, due_ms, broker, Some(level.level)));
    }
    if found.is_empty() {
        // What is gone by retention is passed over, once.
        let first = Start::Oldest.in_queue(link, addr, SCHEDULE_TOPIC, queue)?;
        level.next = if first > from { first } else { level.end };
    }
    Ok(found)
}

/// Hashes of those that were taken back.
fn taken_back(link: &mut Link, brokers: &[Broker], found: &[Waiting]) -> Result<Vec<u64>, Trouble> {
    let mut taken = Vec::new();
    for (n, broker) in brokers.iter().enumerate() {
        let here = found.iter().filter(|one| one.broker == n);
        let hashes: Vec<u64> = here.filter_map(Waiting::hash).collect();
        for piece in hashes.chunks(PENDING_MAX) {
            let body = crate::remoting::body::json::to_vec(&piece);
            taken.extend(pending::ask(link, &broker.addr, RECALLED, &[], &body)?.recalled);
        }
    }
    Ok(taken)
}

/// How many messages wait for a time.
fn counted(link: &mut Link, brokers: &[Broker], topic: Option<&str>) -> Result<i64, Trouble> {
    let mut sum = 0;
    for broker in brokers {
        let answer = link.ask(&broker.addr, request::GET_TIMER_METRICS, &[], b"")?;
        let metrics: TimerMetrics = answer.read()?;
        let counts = metrics.timing_count.iter();
        let counts = counts.filter(|(name, _)| topic.is_none_or(|topic| topic == *name));
        sum += counts.map(|(_, count)| count.count).sum::<i64>();
    }
    Ok(sum)
}

/// Takes a message back that waits for its time.
pub fn recall(link: &mut Link, topic: &str, handle: &str) -> Result<Sheet, Trouble> {
    let wrong = |why: &str| {
        Trouble::Wrong(format!(
            "{handle} is no recall handle: {why}. Sends return one, and `orbitmq admin timers` \
             shows it"
        ))
    };
    let text = URL_SAFE.decode(handle).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| wrong("it is not base64 of a text"))?;
    let ["v1", of, name, ..] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err(wrong("it does not name version, topic and broker"));
    };
    if of != topic {
        return Err(wrong(&format!("it is for the topic {of}, not {topic}")));
    }
    let route = link.route(topic)?;
    let broker = route.iter().find(|broker| broker.name == name);
    let absent = || Trouble::Absent(format!("{topic} is not on the broker {name}"));
    let broker = broker.ok_or_else(absent)?;
    let fields = [
        ("producerGroup", "TOOLS_PRODUCER"),
        ("topic", topic),
        ("recallHandle", handle),
    ];
    let answer = link.ask(&broker.addr, request::RECALL_MESSAGE, &fields, b"")?;
    let mut sheet = Sheet::new(&["topic", "broker", "key", "taken back"]);
    sheet.push(vec![
        topic.into(),
        name.into(),
        answer.field("msgId").into(),
        true.into(),
    ]);
    Ok(sheet)
}
