//! Questions about queues of all shards: GET_TOPIC_STATS_INFO 202, GET_CONSUME_STATS 208,
//! GET_BROKER_RUNTIME_INFO 28, and others of `handle`.
//!
//! A shard, mostly shard 0, sends the question to every shard, itself included, and goes on when
//! all have answered. A shard that must read from the disk for its answer parks the question.

use crate::base::{Map, Now, QueueOffset, ShardId};
use crate::broker::acks::{Ack, ReplyTo};
use crate::broker::control::effects::Reject;
use crate::broker::control::names::is_blank;
use crate::broker::handle::ack;
use crate::broker::handle::consumption::{self, Pair, Walk};
use crate::broker::handle::guarded::{self, Sent};
use crate::broker::handle::key::{self, KeyQuery, Search};
use crate::broker::handle::listing::{self, Listing, Part};
use crate::broker::handle::pop;
use crate::broker::handle::progress::{self, Progress};
use crate::broker::handle::relay::{self, Direct};
use crate::broker::handle::reset::{self, Reset};
use crate::broker::handle::tally;
use crate::broker::handle::timer::{self, Recall};
use crate::broker::handle::{
    Parked, Request, bad_header, preset, refuse_to, reject_to, succeed, succeed_with, tell,
};
use crate::broker::handle::{lite_admin, lite_subs};
use crate::broker::pending::Count;
use crate::broker::pops::Line;
use crate::broker::stats::Totals;
use crate::broker::tallies::{Sums, Tally};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::queue::MessageQueue;
use crate::remoting::body::stats::{
    ConsumeOffset, ConsumeStats, ResetOffsets, TopicOffset, TopicStats,
};
use crate::remoting::body::table::KvTable;
use crate::remoting::code::{request, response};
use crate::remoting::command::VERSION;
use crate::remoting::header::group::ConsumeStatsHeader;
use crate::remoting::header::topic::TopicName;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Surveys under way at a time.
const SURVEYS_MAX: usize = 1024;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    Topic {
        topic: Arc<str>,
    },
    /// The topics of which a group has committed offsets, for the question that follows.
    TopicsOf {
        group: String,
    },
    Group {
        group: String,
        topics: Vec<Arc<str>>,
    },
    Runtime,
    Messages(KeyQuery),
    Reset(Reset),
    Recall(Recall),
    Progress(Progress),
    Acks(Vec<ack::Batch>),
    Lites(lite_subs::Wishes),
    LiteCounts(lite_admin::Wanted),
    Direct(Direct),
    Tally(tally::View),
    /// How far messages for a time are delivered.
    TimersRead,
    /// How many of them wait, by topic.
    TimersPending,
    /// Which messages nobody gets yet.
    Listing(Listing),
    /// Which groups consume which topics; only topics in order, if true.
    Consumers(bool),
    Consumption(Vec<Pair>),
    /// How many pops wait.
    Polling {
        line: Line,
        queue_id: i32,
    },
}

/// What a shard says about one of its queues, or about itself.
#[derive(Clone, PartialEq, Debug)]
pub enum Row {
    Queue {
        topic: Arc<str>,
        queue_id: i32,
        min: u64,
        max: u64,
        last_ms: i64,
    },
    Group {
        topic: Arc<str>,
        queue_id: i32,
        max: u64,
        committed: u64,
        pulled: u64,
        last_ms: i64,
    },
    Topic(Arc<str>),
    Shard(Box<ShardRow>),
    Count(usize),
    Reset {
        queue_id: i32,
        offset: u64,
    },
    Offset {
        group: Arc<str>,
        topic: Arc<str>,
        queue_id: i32,
        offset: u64,
    },
    Consumer(Pair),
    /// A row about one of the pairs asked for, by its place.
    OfPair(usize, Box<Row>),
    /// Messages per second.
    Rate(f64),
    Tally(Box<Sums>),
    /// Not counted, for there is no room.
    TalliesFull,
    /// About messages for a time.
    Timers {
        read_ms: i64,
        stored: u64,
        /// How often counts changed, and when they did last.
        version: (u64, i64),
    },
    /// Those of one topic.
    Pending(Arc<str>, Count),
    Listed(Box<Part>),
    Lites(lite_admin::Counts),
    /// Grows with each change.
    Version(u64),
    /// Store times, ms.
    Times {
        queue_id: i32,
        first_ms: i64,
        last_ms: i64,
        consumed_ms: i64,
        delay_ms: i64,
    },
    /// The shard could not do what was asked.
    Refused(Reject),
    /// A place that a queue does not have.
    OutOfRange {
        offset: u64,
        min: u64,
        max: u64,
    },
    Message {
        physical: i64,
        record: Bytes,
    },
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct ShardRow {
    pub totals: Totals,
    pub put_rates: [f64; 3],
    pub got_rates: [f64; 3],
    pub found_rates: [f64; 3],
    pub missed_rates: [f64; 3],
    pub log_end: u64,
    pub unwritten: u64,
    pub unsynced: u64,
    /// Groups that are split, how often one was, and clients refused for that: shard 0's.
    pub splits: [u64; 3],
}

#[derive(Default)]
pub struct Surveys {
    open: Map<u64, Survey>,
    asked: u64,
}

/// Who wants to know.
pub enum Asker {
    Client(ReplyTo),
    Nobody,
    /// The duplicate guard, about a message that it may have to store.
    Guard(Box<Sent>),
}

struct Survey {
    asker: Asker,
    now: Now,
    question: Arc<Question>,
    missing: u16,
    rows: Vec<Row>,
}

/// A question that waits for the disk in a shard.
pub struct Asked {
    now: Now,
    from: ShardId,
    ticket: u64,
    question: Arc<Question>,
    search: Search,
    walk: Walk,
}

pub fn topic_stats(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = TopicName::decode(&request.command.ext).map_err(bad_header)?;
    let Some(topic) = broker.snapshot.topics.get(&header.topic) else {
        let remark = format!("topic[{}] not exist", header.topic);
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    let topic = topic.name.clone();
    ask(broker, request, Question::Topic { topic }, out)
}

pub fn consume_stats(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ConsumeStatsHeader::decode(&request.command.ext).map_err(bad_header)?;
    let group = header.consumer_group.to_string();
    let listed = header.topic_list.as_deref().unwrap_or_default().split(';');
    let listed: Vec<&str> = listed.filter(|name| !name.is_empty()).collect();
    let named = header.topic.as_deref().filter(|name| !is_blank(name));
    let names = match named {
        _ if !listed.is_empty() => listed,
        Some(name) if is_consumed(broker, &group, name) => vec![name],
        Some(_) => Vec::new(),
        None => return ask(broker, request, Question::TopicsOf { group }, out),
    };
    let known = names
        .iter()
        .filter_map(|name| broker.snapshot.topics.get(name));
    let topics = known.map(|topic| topic.name.clone()).collect();
    ask(broker, request, Question::Group { group, topics }, out)
}

/// What a group left behind in a topic that its members want no more does not count
/// (`AdminBrokerProcessor.getTopicsForCollectingConsumeStats`).
pub fn is_consumed(broker: &Broker, group: &str, topic: &str) -> bool {
    let members = broker.snapshot.subscriptions.get(group);
    members.is_none_or(|members| members.topics.is_empty() || members.topics.contains_key(topic))
}

pub fn ask(
    broker: &mut Broker,
    request: &Request<'_>,
    question: Question,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let asker = match request.command.is_oneway() {
        true => Asker::Nobody,
        false => Asker::Client(request.reply_to()),
    };
    check(broker)?;
    begin(broker, request.now, asker, question, out);
    Ok(())
}

/// Whether another survey may begin.
pub fn check(broker: &Broker) -> Result<(), Reject> {
    if broker.surveys.open.len() >= SURVEYS_MAX {
        let remark = format!("[OVERLOAD]system busy: {SURVEYS_MAX} questions are open");
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    Ok(())
}

pub fn begin(
    broker: &mut Broker,
    now: Now,
    asker: Asker,
    question: Question,
    out: &mut Outbox<Peer>,
) {
    let (me, shards) = (broker.me, broker.options.control.shards);
    broker.surveys.asked += 1;
    let (ticket, question) = (broker.surveys.asked, Arc::new(question));
    let survey = Survey {
        asker,
        now,
        question: question.clone(),
        missing: shards,
        rows: Vec::new(),
    };
    broker.surveys.open.insert(ticket, survey);
    for shard in (0..shards).map(ShardId).filter(|shard| *shard != me) {
        out.peers.push((
            shard,
            Peer::Question {
                ticket,
                question: question.clone(),
            },
        ));
    }
    answer(broker, now, me, ticket, question, out);
}

/// A shard is asked.
pub fn answer(
    broker: &mut Broker,
    now: Now,
    from: ShardId,
    ticket: u64,
    question: Arc<Question>,
    out: &mut Outbox<Peer>,
) {
    run(
        broker,
        Asked {
            now,
            from,
            ticket,
            question,
            search: Search::default(),
            walk: Walk::default(),
        },
        out,
    );
}

pub fn run(broker: &mut Broker, mut asked: Asked, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let Some(rows) = rows(broker, &mut asked, WaiterId(waiter), out) else {
        broker.parked.insert(waiter, Parked::Asked(asked));
        return;
    };
    let Asked { from, ticket, .. } = asked;
    match *asked.question {
        // What was changed, and offsets of whole tables, are told when they are safe.
        Question::Reset(_)
        | Question::Recall(_)
        | Question::Acks(_)
        | Question::Lites(_)
        | Question::Progress(Progress::Clone { .. } | Progress::All) => {
            let until = broker.log_end();
            broker.acks.push(until, Ack::Rows { from, ticket, rows });
        }
        _ => give(broker, from, ticket, rows, out),
    }
}

/// A shard's answer goes to who asked.
pub fn give(
    broker: &mut Broker,
    from: ShardId,
    ticket: u64,
    rows: Vec<Row>,
    out: &mut Outbox<Peer>,
) {
    if from == broker.me {
        gather(broker, ticket, rows, out);
    } else {
        out.peers.push((from, Peer::Answer { ticket, rows }));
    }
}

/// The disk did not give a shard what it was asked: it answers with what it knows.
pub fn fail(broker: &mut Broker, asked: &Asked, out: &mut Outbox<Peer>) {
    let rows = match &*asked.question {
        Question::Messages(query) => query.gap().into_iter().collect(),
        Question::Listing(_) => vec![listing::unread()],
        _ => Vec::new(),
    };
    give(broker, asked.from, asked.ticket, rows, out);
}

/// `None` while bytes are on their way from the disk.
fn rows(
    broker: &mut Broker,
    asked: &mut Asked,
    waiter: WaiterId,
    out: &mut Outbox<Peer>,
) -> Option<Vec<Row>> {
    match &*Arc::clone(&asked.question) {
        Question::Messages(query) => asked.search.go_on(broker, query, waiter),
        Question::Direct(direct) => relay::message_here(broker, direct, waiter),
        Question::Reset(reset) => reset::run(broker, asked.now, reset, waiter),
        Question::Acks(batches) => Some(ack::rows(broker, asked.now, batches, out)),
        Question::Lites(wishes) => Some(lite_subs::rows(broker, asked.now, wishes, out)),
        Question::LiteCounts(wanted) => Some(lite_admin::rows(broker, wanted)),
        Question::Polling { line, queue_id } => Some(pop::polling_here(broker, line, *queue_id)),
        Question::Recall(recall) => Some(timer::recall_here(broker, asked.now, recall)),
        Question::Progress(wanted) => progress::rows(broker, asked.now, wanted, waiter),
        Question::TopicsOf { group } => Some(topics_here(broker, group)),
        Question::Tally(view) => Some(tally::rows(broker, asked.now, view)),
        Question::TimersRead => Some(timer::read_here(broker, asked.now)),
        Question::TimersPending => Some(timer::pending_here(broker, asked.now)),
        Question::Listing(listing) => listing::rows(broker, asked.now, listing, waiter),
        Question::Consumers(_) => Some(consumption::pairs_here(broker)),
        Question::Consumption(pairs) => {
            consumption::go_on(broker, asked.now, pairs, &mut asked.walk, waiter)
        }
        Question::Runtime => Some(vec![Row::Shard(Box::new(shard_row(broker, asked.now)))]),
        Question::Topic { topic } => topic_rows(broker, asked.now, topic, waiter),
        Question::Group { group, topics } => group_rows(broker, asked.now, group, topics, waiter),
    }
}

fn topic_rows(
    broker: &mut Broker,
    now: Now,
    topic: &Arc<str>,
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    for (queue_id, slot) in queues_here(broker, topic) {
        let (min, max) =
            slot.map_or_else(Default::default, |slot| broker.store.visible_range(slot));
        let last = max.0.checked_sub(1).filter(|last| *last >= min.0);
        let last_ms = time_of(broker, slot, last, waiter)?;
        let (topic, min, max) = (topic.clone(), min.0, max.0);
        rows.push(Row::Queue {
            topic,
            queue_id,
            min,
            max,
            last_ms,
        });
    }
    broker.count(now);
    let id = broker.snapshot.topics.get(topic).map(|topic| topic.id);
    let rate = id.map(|id| broker.tallies.rate(now.mono, &Tally::Put(id)));
    rows.extend(rate.map(Row::Rate));
    Some(rows)
}

fn group_rows(
    broker: &mut Broker,
    now: Now,
    group: &str,
    topics: &[Arc<str>],
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    for topic in topics {
        for place in queues_here(broker, topic) {
            rows.push(group_row(broker, group, topic, place, waiter)?);
        }
        rows.push(Row::Rate(consumption::rate(broker, now, group, topic)));
    }
    Some(rows)
}

/// How far a group has come in one queue; `None` while a time is read from the disk.
pub fn group_row(
    broker: &mut Broker,
    group: &str,
    topic: &Arc<str>,
    (queue_id, slot): (i32, Option<QueueSlot>),
    waiter: WaiterId,
) -> Option<Row> {
    let max = slot.map_or(0, |slot| broker.store.visible_range(slot).1.0);
    let known = slot.and_then(|slot| broker.offsets.committed(group, slot));
    let committed = known.unwrap_or(0);
    let pulled = slot.and_then(|slot| broker.offsets.pulled(group, slot));
    let last = committed.checked_sub(1).filter(|last| *last < max);
    let last_ms = time_of(broker, slot, last, waiter)?;
    Some(Row::Group {
        topic: topic.clone(),
        queue_id,
        max,
        committed,
        pulled: pulled.unwrap_or(0),
        last_ms,
    })
}

fn topics_here(broker: &Broker, group: &str) -> Vec<Row> {
    let queues = broker.store.queues();
    let slots = broker.offsets.of_group(group);
    let topics = slots.filter_map(|(slot, _)| Some(queues.queue(slot)?.topic.clone()));
    let topics: BTreeSet<Arc<str>> = topics.collect();
    topics.into_iter().map(Row::Topic).collect()
}

/// The queues of a topic that this shard owns.
pub fn queues_here(broker: &Broker, topic: &str) -> Vec<(i32, Option<QueueSlot>)> {
    let Some(topic) = broker.snapshot.topics.get(topic) else {
        return Vec::new();
    };
    (0..crate::broker::topics::queues(&topic.config))
        .filter(|queue| topic.owner(*queue) == Some(broker.me))
        .map(|queue| {
            (
                queue as i32,
                broker.store.queues().find(&topic.name, queue as i32),
            )
        })
        .collect()
}

/// Store time of a message, 0 if there is none or it cannot be read; `None` while it is read.
pub fn time_of(
    broker: &mut Broker,
    slot: Option<QueueSlot>,
    offset: Option<u64>,
    waiter: WaiterId,
) -> Option<i64> {
    let (Some(slot), Some(offset)) = (slot, offset) else {
        return Some(0);
    };
    match broker.store.store_time(slot, QueueOffset(offset), waiter) {
        Fetch::Ready(ms) => Some(ms),
        Fetch::Wait => None,
        Fetch::Missing | Fetch::Damaged(_) | Fetch::Busy => Some(0),
    }
}

fn shard_row(broker: &Broker, now: Now) -> ShardRow {
    let log = broker.store.log();
    let stats = &broker.stats;
    ShardRow {
        totals: stats.totals,
        put_rates: stats.rates(now, |totals| totals.put_messages),
        got_rates: stats.rates(now, |totals| totals.got_messages),
        found_rates: stats.rates(now, |totals| totals.pulls_found),
        missed_rates: stats.rates(now, |totals| totals.pulls_missed),
        log_end: log.end().0,
        unwritten: log.end().0 - log.written().0,
        unsynced: log.end().0 - log.durable().0,
        splits: broker.lead.as_ref().map_or([0; 3], |lead| {
            let members = &lead.control.members;
            let splits = members.splits();
            let refused = members.refused_count() as u64;
            [splits.groups() as u64, splits.noticed(), refused]
        }),
    }
}

/// A shard has answered; the last one ends the survey.
pub fn gather(broker: &mut Broker, ticket: u64, rows: Vec<Row>, out: &mut Outbox<Peer>) {
    let survey = broker
        .surveys
        .open
        .get_mut(&ticket)
        .expect("a survey ends with its last answer");
    survey.rows.extend(rows);
    survey.missing -= 1;
    if survey.missing > 0 {
        return;
    }
    let survey = broker.surveys.open.remove(&ticket).expect("just found");
    let Survey { now, rows, .. } = survey;
    match survey.asker {
        Asker::Client(to) => conclude(broker, now, to, &survey.question, rows, out),
        Asker::Guard(sent) => guarded::found(broker, now, *sent, &rows, out),
        Asker::Nobody => {}
    }
}

/// Answers a client with what the shards said, or asks them once more.
fn conclude(
    broker: &mut Broker,
    now: Now,
    to: ReplyTo,
    question: &Question,
    rows: Vec<Row>,
    out: &mut Outbox<Peer>,
) {
    let refused = rows.iter().find_map(|row| match row {
        Row::Refused(reject) => Some(reject),
        _ => None,
    });
    if let Some(reject) = refused {
        return match question {
            Question::Recall(_) => refuse_to(broker, request::RECALL_MESSAGE, to, reject, out),
            _ => reject_to(to, reject, out),
        };
    }
    let body = match question {
        Question::Topic { .. } => Ok(topic_body(broker, &rows)),
        Question::TopicsOf { group } => {
            let question = Question::Group {
                group: group.clone(),
                topics: consumed(broker, group, &rows),
            };
            return begin(broker, now, Asker::Client(to), question, out);
        }
        Question::Group { .. } => Ok(group_body(broker, &rows)),
        Question::Runtime => Ok(runtime_body(broker, now, &rows)),
        Question::Reset(reset) => reset_body(broker, &reset.topic, &rows),
        Question::Progress(wanted) => progress::body(broker, now, wanted, &rows),
        Question::Tally(view) => tally::body(view, &rows),
        Question::TimersRead => Ok(timer::checkpoint(&rows)),
        Question::TimersPending => Ok(timer::metrics(broker, &rows)),
        Question::Listing(_) => Ok(listing::body(rows)),
        Question::Consumers(ordered) => {
            return consumption::pairs_known(broker, now, to, *ordered, rows, out);
        }
        Question::Consumption(pairs) => Ok(consumption::body(broker, pairs, &rows)),
        Question::Acks(_) | Question::Lites(_) => return succeed(to, out),
        Question::LiteCounts(wanted) => Ok(lite_admin::body(broker, wanted, &rows)),
        Question::Direct(direct) => return relay::hand_over(broker, now, to, direct, &rows, out),
        Question::Polling { .. } => return pop::answer_polling(to, &rows, out),
        Question::Recall(recall) => {
            return tell(to, out, |w| {
                preset(&broker.options, request::RECALL_MESSAGE, w);
                w.field_str("msgId", &recall.key);
            });
        }
        Question::Messages(query) => return key::answer(broker, to, now, query, rows, out),
    };
    match body {
        Ok(body) => succeed_with(to, &body, out),
        Err(reject) => reject_to(to, &reject, out),
    }
}

/// The topics of which the group has offsets that count.
fn consumed(broker: &Broker, group: &str, rows: &[Row]) -> Vec<Arc<str>> {
    let topics = rows.iter().filter_map(|row| match row {
        Row::Topic(topic) if is_consumed(broker, group, topic) => Some(topic.clone()),
        _ => None,
    });
    let topics: BTreeSet<Arc<str>> = topics.collect();
    topics.into_iter().collect()
}

pub fn queue_name(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    let broker_name = broker.options.control.broker_name.clone();
    MessageQueue {
        broker_name,
        queue_id,
        topic: topic.to_owned(),
    }
}

fn topic_body(broker: &Broker, rows: &[Row]) -> Vec<u8> {
    let mut stats = TopicStats::default();
    for row in rows {
        match row {
            Row::Rate(rate) => stats.topic_put_tps += rate,
            Row::Queue {
                topic,
                queue_id,
                min,
                max,
                last_ms,
            } => {
                let offset = TopicOffset {
                    last_update_timestamp: *last_ms,
                    max_offset: *max as i64,
                    min_offset: *min as i64,
                };
                let queue = queue_name(broker, topic, *queue_id);
                stats.offset_table.push((queue, offset));
            }
            _ => {}
        }
    }
    stats.offset_table.sort_by_key(|(queue, _)| queue.queue_id);
    stats.encode()
}

fn group_body(broker: &Broker, rows: &[Row]) -> Vec<u8> {
    let mut stats = ConsumeStats::default();
    for row in rows {
        add_group_row(broker, &mut stats, row);
    }
    stats
        .offset_table
        .sort_by(|(a, _), (b, _)| (&a.topic, a.queue_id).cmp(&(&b.topic, b.queue_id)));
    stats.encode()
}

/// One more queue, or what another shard gives.
pub fn add_group_row(broker: &Broker, stats: &mut ConsumeStats, row: &Row) {
    match row {
        Row::Rate(rate) => stats.consume_tps += rate,
        Row::Group {
            topic,
            queue_id,
            max,
            committed,
            pulled,
            last_ms,
        } => {
            let offset = ConsumeOffset {
                broker_offset: *max as i64,
                consumer_offset: *committed as i64,
                last_timestamp: *last_ms,
                pull_offset: *pulled as i64,
            };
            let queue = queue_name(broker, topic, *queue_id);
            stats.offset_table.push((queue, offset));
        }
        _ => {}
    }
}

fn reset_body(broker: &Broker, topic: &str, rows: &[Row]) -> Result<Vec<u8>, Reject> {
    let mut table = ResetOffsets::default();
    for row in rows {
        match row {
            Row::Reset { queue_id, offset } => {
                let queue = queue_name(broker, topic, *queue_id);
                table.offset_table.push((queue, *offset as i64));
            }
            Row::OutOfRange { offset, min, max } => {
                let remark =
                    format!("Target offset {offset} not in consume queue range [{min}-{max}]");
                return Err(Reject::new(response::SYSTEM_ERROR, remark));
            }
            _ => {}
        }
    }
    table.offset_table.sort_by_key(|(queue, _)| queue.queue_id);
    Ok(table.encode())
}

/// The keys that mqadmin and the dashboard read (`spec/mqadmin.md` §8), and ours about split groups
/// (`docs/groups.md`).
fn runtime_body(broker: &Broker, now: Now, answers: &[Row]) -> Vec<u8> {
    let mut sum = ShardRow::default();
    for row in answers {
        if let Row::Shard(row) = row {
            sum.add(row);
        }
    }
    let rates = |rates: [f64; 3]| rates.map(|rate| format!("{rate:.2}")).join(" ");
    let (put, got) = (sum.totals.put_messages, sum.totals.got_messages);
    let uptime_s = broker.stats.uptime_ms(now) / 1000;
    let average = sum.totals.put_bytes as f64 / put.max(1) as f64;
    let all: Vec<f64> = (0..3)
        .map(|n| sum.found_rates[n] + sum.missed_rates[n])
        .collect();
    let [split, splits, refused] = sum.splits;
    let rows: [(&str, String); 39] = [
        ("brokerActive", "true".into()),
        ("brokerVersion", VERSION.to_string()),
        ("brokerVersionDesc", "V5_5_0".into()),
        ("msgPutTotalYesterdayMorning", "0".into()),
        ("msgPutTotalTodayMorning", "0".into()),
        ("msgPutTotalTodayNow", put.to_string()),
        ("msgGetTotalYesterdayMorning", "0".into()),
        ("msgGetTotalTodayMorning", "0".into()),
        ("msgGetTotalTodayNow", got.to_string()),
        ("putTps", rates(sum.put_rates)),
        ("getTotalTps", rates([all[0], all[1], all[2]])),
        ("getFoundTps", rates(sum.found_rates)),
        ("getMissTps", rates(sum.missed_rates)),
        ("getTransferredTps", rates(sum.got_rates)),
        ("sendThreadPoolQueueSize", "0".into()),
        ("sendThreadPoolQueueCapacity", "0".into()),
        ("sendThreadPoolQueueHeadWaitTimeMills", "0".into()),
        ("pullThreadPoolQueueSize", "0".into()),
        ("pullThreadPoolQueueCapacity", "0".into()),
        ("pullThreadPoolQueueHeadWaitTimeMills", "0".into()),
        ("ackThreadPoolQueueSize", "0".into()),
        ("ackThreadPoolQueueCapacity", "0".into()),
        ("ackThreadPoolQueueHeadWaitTimeMills", "0".into()),
        ("pageCacheLockTimeMills", "0".into()),
        (
            "earliestMessageTimeStamp",
            broker.stats.started_ms().to_string(),
        ),
        ("commitLogDiskRatio", "0.0".into()),
        ("consumeQueueDiskRatio", "0.0".into()),
        ("commitLogMinOffset", "0".into()),
        ("commitLogMaxOffset", sum.log_end.to_string()),
        ("remainHowManyDataToCommit", sum.unwritten.to_string()),
        ("remainHowManyDataToFlush", sum.unsynced.to_string()),
        ("dispatchBehindBytes", "0".into()),
        ("bootTimestamp", broker.stats.started_ms().to_string()),
        ("runtime", uptime(uptime_s)),
        ("putMessageTimesTotal", put.to_string()),
        ("putMessageAverageSize", format!("{average:.1}")),
        ("splitGroups", split.to_string()),
        ("splitGroupsTotal", splits.to_string()),
        ("splitGroupsRefusedClients", refused.to_string()),
    ];
    let table = rows
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    crate::remoting::body::json::to_vec(&KvTable { table })
}

fn uptime(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]")
}

impl ShardRow {
    fn add(&mut self, other: &ShardRow) {
        self.totals.put_messages += other.totals.put_messages;
        self.totals.put_bytes += other.totals.put_bytes;
        self.totals.got_messages += other.totals.got_messages;
        self.totals.got_bytes += other.totals.got_bytes;
        for n in 0..3 {
            self.put_rates[n] += other.put_rates[n];
            self.got_rates[n] += other.got_rates[n];
            self.found_rates[n] += other.found_rates[n];
            self.missed_rates[n] += other.missed_rates[n];
            self.splits[n] += other.splits[n];
        }
        self.log_end += other.log_end;
        self.unwritten += other.unwritten;
        self.unsynced += other.unsynced;
    }
}
