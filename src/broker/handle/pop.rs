//! POP_MESSAGE 200050, PEEK_MESSAGE 200052, NOTIFICATION 200054 and POLLING_INFO 200055: messages
//! handed out for a time, or looked at.
//!
//! Checks and codes in the order of `PopMessageProcessor`; how a pop finds the shard that has
//! something is told in [`pops`](crate::broker::pops), what it leaves behind in
//! [`leases`](crate::broker::leases). A pop is answered when the log holds its leases: a crash may
//! hand a message out again in its time, and never forgets one.
//!
//! Sources: `PopMessageProcessor`, `NotificationProcessor`; `spec/semantics.md` §8.

use crate::base::{Now, ShardId};
use crate::broker::acks::{Ack, Ready, ReplyTo};
use crate::broker::control::attributes;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::{RETRY_PREFIX, pop_retry_topics};
use crate::broker::handle::take::{self, Looked, Taken};
use crate::broker::handle::{Parked, Request, bad_header, filter, make_group, reject_to, tell};
use crate::broker::leases::{self, POP_MAX};
use crate::broker::members::TAG;
use crate::broker::pops::{Ask, Course, Empty, Visit, Wake, What};
use crate::broker::snapshot::Snapshot;
use crate::broker::survey::{self, Question, Row};
use crate::broker::topics::{Topic, perm};
use crate::broker::{Broker, Peer};
use crate::filter::Filter;
use crate::machine::Outbox;
use crate::remoting::body::group::GroupConfig;
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::header::pop::{
    Notification, NotificationResponse, PeekMessage, PollingInfo, PopMessage, PopResponse,
};
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::record::{Kind, SYSTEM_HEADER_BYTES};
use std::sync::Arc;

/// `reviveQid` of messages popped in order; clients hand it back
/// (`KeyBuilder.POP_ORDER_REVIVE_QUEUE`).
pub const ORDERED: i32 = 999;
/// A pop that arrives this long after its client has given it up is not served.
pub(super) const LATE_MS: i64 = 500;
/// Longest time a pop waits, whatever its client asks.
const WAIT_MS_MAX: i64 = 300_000;
/// Longest lease.
pub(super) const INVISIBLE_MS_MAX: i64 = 7 * 24 * 3_600_000;
/// Offsets that wait to be entered, beyond which they are before a pop begins.
const JOINT_BYTES: usize = 16 * 1024;

pub fn pop(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = PopMessage::decode(&request.command.ext).map_err(bad_header)?;
    let now = request.now;
    let over_ms = over_ms(now, header.born_time, header.poll_time);
    if now.wall_ms.saturating_sub(over_ms) > LATE_MS {
        let remark = "the pop arrived after its time: see bornTime and pollTime";
        return Err(Reject::new(response::POLLING_TIMEOUT, remark));
    }
    // Of no messages none is found.
    if !(0..=POP_MAX as i32).contains(&header.max_msg_nums) {
        let (asked, most) = (header.max_msg_nums, POP_MAX);
        let remark = format!("the pop message's num is {asked}, must be 0 to {most}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    if !(1..=INVISIBLE_MS_MAX).contains(&header.invisible_time) {
        let asked = header.invisible_time;
        let remark = format!("invisibleTime is {asked} ms, must be 1 to {INVISIBLE_MS_MAX}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let names = Names {
        topic: &header.topic,
        group: &header.consumer_group,
        queue_id: header.queue_id,
    };
    let Some((topic, group)) = check(broker, request, &names, out)? else {
        return Ok(());
    };
    let kind = header.expression_type.as_deref();
    let filter = wanted(broker, kind, header.expression.as_deref())?;
    let what = What::Pop {
        most: header.max_msg_nums as usize,
        invisible_ms: header.invisible_time,
        from_oldest: header.init_mode == 0,
    };
    let ask = Ask {
        to: request.reply_to(),
        topic,
        group,
        queue_id: header.queue_id.max(-1),
        filter,
        order: header.order,
        attempt: header.attempt_id.unwrap_or_default().into_owned(),
        until: until(now, header.poll_time, over_ms),
        what,
    };
    start(broker, now, ask, out);
    Ok(())
}

/// NOTIFICATION: the answer is whether a pop would find something, or that something came.
pub fn notification(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = Notification::decode(&request.command.ext).map_err(bad_header)?;
    let now = request.now;
    let names = Names {
        topic: &header.topic,
        group: &header.consumer_group,
        queue_id: header.queue_id,
    };
    let Some((topic, group)) = check(broker, request, &names, out)? else {
        return Ok(());
    };
    let kind = header.expression_type.as_deref();
    let filter = wanted(broker, kind, header.expression.as_deref())?;
    let over_ms = over_ms(now, header.born_time, header.poll_time);
    let ask = Ask {
        to: request.reply_to(),
        topic,
        group,
        queue_id: header.queue_id.max(-1),
        filter,
        order: header.order,
        attempt: header.attempt_id.unwrap_or_default().into_owned(),
        until: until(now, header.poll_time, over_ms),
        what: What::Notice,
    };
    start(broker, now, ask, out);
    Ok(())
}

/// PEEK_MESSAGE: what a pop would get, and nobody has it for that. It does not wait.
pub fn peek(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = PeekMessage::decode(&request.command.ext).map_err(bad_header)?;
    let names = Names {
        topic: &header.topic,
        group: &header.consumer_group,
        queue_id: header.queue_id,
    };
    let Some((topic, group)) = check(broker, request, &names, out)? else {
        return Ok(());
    };
    let ask = Ask {
        to: request.reply_to(),
        topic,
        group,
        queue_id: header.queue_id.max(-1),
        filter: Filter::ALL,
        order: false,
        attempt: String::new(),
        until: request.now.mono,
        what: What::Peek {
            most: header.max_msg_nums.clamp(0, POP_MAX as i32) as usize,
        },
    };
    start(broker, request.now, ask, out);
    Ok(())
}

/// When a pop is over, by its own clock; one without a time is of now.
pub(super) fn over_ms(now: Now, born_time: i64, poll_time: i64) -> i64 {
    let born_ms = match born_time {
        0 => now.wall_ms,
        ms => ms,
    };
    born_ms.saturating_add(poll_time.clamp(0, WAIT_MS_MAX))
}

/// How long to wait; not at all without a polling time.
pub(super) fn until(now: Now, poll_ms: i64, over_ms: i64) -> crate::base::Mono {
    let left_ms = over_ms.saturating_sub(now.wall_ms).clamp(0, WAIT_MS_MAX);
    now.mono
        .after_ms(if poll_ms > 0 { left_ms as u64 } else { 0 })
}

struct Names<'a> {
    topic: &'a str,
    group: &'a str,
    queue_id: i32,
}

/// A topic that may be read, and the group's name as it is kept.
pub(super) type Known = (Arc<Topic>, Arc<str>);

/// `None`: the group has to be made first.
fn check(
    broker: &mut Broker,
    request: &Request<'_>,
    names: &Names<'_>,
    out: &mut Outbox<Peer>,
) -> Result<Option<Known>, Reject> {
    if broker.options.permission & perm::READ == 0 {
        let remark = "the broker is not readable: see brokerPermission";
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    let (topic_name, group_name) = (names.topic, names.group);
    let Some(topic) = broker.topic(topic_name) else {
        let remark = format!("topic[{topic_name}] not exist, apply first please!");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    if !topic.is_readable() {
        let remark = format!("the topic[{topic_name}] peeking message is forbidden");
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    let readable = topic.config.read_queue_nums;
    if names.queue_id >= readable {
        let id = names.queue_id;
        let remark = format!(
            "queueId[{id}] is illegal, topic:[{topic_name}] topicConfig.readQueueNums:[{readable}]"
        );
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let Some(group) = broker.group(group_name) else {
        make_group(broker, request, group_name, out)?;
        return Ok(None);
    };
    let name = broker.snapshot.groups.name(group_name);
    let name = name.map_or_else(|| group_name.into(), Arc::clone);
    if !group.consume_enable {
        let remark = format!("subscription group no permission, {group_name}");
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    if let Some(remark) = broker.snapshot.refusal(group_name, request.link.conn) {
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    Ok(Some((topic, name)))
}

fn wanted(broker: &Broker, kind: Option<&str>, expression: Option<&str>) -> Result<Filter, Reject> {
    match expression.filter(|text| !text.is_empty()) {
        None => Ok(Filter::ALL),
        Some(text) => {
            let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or(TAG);
            filter::parse(broker, kind, text)
        }
    }
}

/// A pop sets out.
fn start(broker: &mut Broker, now: Now, ask: Ask, out: &mut Outbox<Peer>) {
    let ask = Arc::new(ask);
    let ticket = broker.pops.enter(ask.clone());
    set_out(broker, now, ticket, ask, out);
}

fn set_out(broker: &mut Broker, now: Now, ticket: u64, ask: Arc<Ask>, out: &mut Outbox<Peer>) {
    let course = course(broker, &ask);
    let left = route(broker, &ask, course);
    let home = broker.me;
    let visit = Visit {
        ask,
        home,
        ticket,
        course,
        left,
    };
    go_on(broker, now, visit, out);
}

/// Which way a pop goes this time. In priority mode, for as many in a hundred as the group wants,
/// strictly from the highest queue down.
fn course(broker: &mut Broker, ask: &Ask) -> Course {
    broker.turn = broker.turn.wrapping_add(1);
    let roll = percent(broker.turn);
    let pops = matches!(ask.what, What::Pop { .. }) && !ask.order;
    let strict = pops
        && ask.topic.is_for_priorities()
        && i64::from(roll)
            < broker
                .snapshot
                .groups
                .get(&ask.group)
                .map_or(100, |group| priority_factor(group));
    let options = &broker.options;
    let retries = match strict {
        true => options.pop_retry_percent_priority,
        false => options.pop_retry_percent,
    };
    Course {
        shift: if strict { 0 } else { roll as i32 },
        retry_first: roll < retries,
        retry_form: roll as usize,
        strict: strict.then_some(0),
    }
}

/// 0 to 99, evenly for every sequence of turns with the same step.
fn percent(turn: u32) -> u32 {
    let spread = turn.wrapping_mul(0x9E37_79B9);
    ((u64::from(spread) * 100) >> 32) as u32
}

/// In so many of a hundred pops a group wants priority mode
/// (`SubscriptionGroupConfig.getPriorityFactor`).
fn priority_factor(group: &GroupConfig) -> i64 {
    let text = group.attributes.get(attributes::PRIORITY_FACTOR);
    text.and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// The shards to visit, the last one first: each once, another one begins each time; or each as
/// often as it owns a run of queues.
fn route(broker: &Broker, ask: &Ask, course: Course) -> Vec<ShardId> {
    let places = places(broker, ask, course);
    let owners = places
        .iter()
        .filter_map(|(topic, queue)| broker.owner(topic, *queue));
    let mut shards: Vec<ShardId> = Vec::new();
    if course.strict.is_some() {
        shards.extend(owners);
        shards.dedup();
        shards.reverse();
        return shards;
    }
    for owner in owners {
        if !shards.contains(&owner) {
            shards.push(owner);
        }
    }
    let first = broker.turn as usize % shards.len().max(1);
    shards.rotate_left(first);
    shards
}

/// A queue that a pop may take from.
type Place = (Arc<Topic>, i32);

/// All of them, in the order in which the pop looks at them.
fn places(broker: &Broker, ask: &Ask, course: Course) -> Vec<Place> {
    let mut own = Vec::new();
    if ask.queue_id >= 0 {
        own.push((ask.topic.clone(), ask.queue_id));
    } else {
        own.extend(row(broker, ask, &ask.topic, course.shift));
    }
    if ask.order {
        return own;
    }
    let names = pop_retry_topics(&ask.topic.name, &ask.group);
    let known = names
        .iter()
        .filter_map(|name| broker.snapshot.topics.get(name));
    let known: Vec<_> = known.collect();
    // Clients take one of the two forms in one answer.
    let retry = known.get(course.retry_form % known.len().max(1));
    let retries = retry
        .into_iter()
        .flat_map(|topic| row(broker, ask, topic, course.shift));
    match course.retry_first {
        true => retries.chain(own).collect(),
        false => own.into_iter().chain(retries).collect(),
    }
}

/// The queues of a topic: from the highest number down (`priorityOrderAsc`), of one that is only
/// looked at from the lowest up, from some queue on.
fn row(broker: &Broker, ask: &Ask, topic: &Arc<Topic>, shift: i32) -> impl Iterator<Item = Place> {
    let topic = Arc::clone(topic);
    let down = broker.options.pop_highest_first && matches!(ask.what, What::Pop { .. });
    let count = topic.config.read_queue_nums;
    (0..count).map(move |n| {
        let first = if down { count - 1 - n } else { n };
        (Arc::clone(&topic), (first + shift) % count)
    })
}

/// Those of this shard that a visit may look at now.
pub(super) fn places_here(broker: &Broker, ask: &Ask, course: Course) -> Vec<Place> {
    let owner = |place: &Place| broker.owner(&place.0, place.1);
    let mut places = places(broker, ask, course);
    if let Some(run) = course.strict {
        places.retain(|place| owner(place).is_some());
        let mut runs = places.chunk_by(|a, b| owner(a) == owner(b));
        places = runs.nth(run).unwrap_or_default().to_vec();
    }
    places.retain(|place| owner(place) == Some(broker.me));
    places
}

/// Sends a pop to the next shard, or home.
fn go_on(broker: &mut Broker, now: Now, mut visit: Visit, out: &mut Outbox<Peer>) {
    match visit.left.pop() {
        Some(next) if next == broker.me => run(broker, now, visit, out),
        Some(next) => out.peers.push((next, Peer::PopVisit(Box::new(visit)))),
        None if visit.home == broker.me => found_nothing(broker, now, visit.ticket, out),
        None => {
            let ticket = visit.ticket;
            out.peers.push((visit.home, Peer::PopEmpty { ticket }));
        }
    }
}

/// A pop is home again with nothing.
pub fn found_nothing(broker: &mut Broker, now: Now, ticket: u64, out: &mut Outbox<Peer>) {
    match broker.pops.empty(now.mono, ticket) {
        Empty::Gone | Empty::Parked => {}
        Empty::Again(ask) => set_out(broker, now, ticket, ask, out),
        Empty::Over { ask, is_full } => answer_nothing(now, &ask, is_full, out),
    }
}

/// A pop that found nothing in its time, or may not wait.
pub fn answer_nothing(now: Now, ask: &Ask, is_full: bool, out: &mut Outbox<Peer>) {
    let to = ask.to;
    out.write(to.conn, |bytes| match ask.what {
        What::Notice => {
            let mut w = to.success(bytes);
            let header = NotificationResponse {
                has_msg: false,
                polling_full: is_full,
            };
            header.encode(&mut w);
            w.finish(0);
        }
        What::Peek { .. } => {
            let (code, remark) = (response::PULL_NOT_FOUND, Some("NO_MESSAGE_IN_QUEUE"));
            let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
            peeked(0).encode(&mut w);
            w.finish(0);
        }
        What::Pop { invisible_ms, .. } => {
            let code = match is_full {
                true => response::POLLING_FULL,
                false => response::POLLING_TIMEOUT,
            };
            let remark = Some("NO_MESSAGE_IN_QUEUE");
            let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
            let header = PopResponse {
                pop_time: now.wall_ms,
                invisible_time: invisible_ms,
                revive_qid: if ask.order { ORDERED } else { 0 },
                rest_num: 0,
                start_offset_info: Some("".into()),
                msg_offset_info: Some("".into()),
                order_count_info: ask.order.then(|| "".into()),
            };
            header.encode(&mut w);
            w.finish(0);
        }
    });
}

/// The header of what was peeked at (`PeekMessageProcessor` sets nothing else).
fn peeked(rest: u64) -> PopResponse<'static> {
    PopResponse {
        rest_num: rest as i64,
        ..PopResponse::default()
    }
}

/// A pop looks at the queues of this shard.
pub fn run(broker: &mut Broker, now: Now, mut visit: Visit, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let looked = match visit.ask.what {
        What::Pop { .. } | What::Peek { .. } => take::take(broker, now, &visit, WaiterId(waiter)),
        What::Notice => Ok(Looked::from(take::has_messages(broker, now, &visit))),
    };
    match looked {
        Ok(Looked::Nothing) if matches!(visit.ask.what, What::Peek { .. }) => {
            return go_on(broker, now, visit, out);
        }
        Ok(Looked::Nothing) => {
            let [current, earlier] = pop_retry_topics(&visit.ask.topic.name, &visit.ask.group);
            let topics = [&*visit.ask.topic.name, &*current, &*earlier];
            broker.pops.note_interest(&visit.ask, visit.home, topics);
            visit.course.strict = visit.course.strict.map(|run| run + 1);
            return go_on(broker, now, visit, out);
        }
        Ok(Looked::Waits) => {
            broker.parked.insert(waiter, Parked::Pop(Box::new(visit)));
            return;
        }
        Ok(Looked::Some) => answer_notice(&visit.ask, out),
        Ok(Looked::Taken(taken)) => answer(broker, now, &visit.ask, taken, out),
        Err(reject) => reject_to(visit.ask.to, &reject, out),
    }
    done(broker, visit.home, visit.ticket, out);
}

/// The pop was answered: its home need not keep it.
pub fn done(broker: &mut Broker, home: ShardId, ticket: u64, out: &mut Outbox<Peer>) {
    match home == broker.me {
        true => drop(broker.pops.leave(ticket)),
        false => out.peers.push((home, Peer::PopDone { ticket })),
    }
}

/// Answers a pop once the log holds what it took, and lets others look for the rest.
fn answer(broker: &mut Broker, now: Now, ask: &Ask, mut taken: Taken, out: &mut Outbox<Peer>) {
    broker.stats.got(taken.messages, taken.bytes);
    let What::Pop { invisible_ms, .. } = ask.what else {
        return ready(ask, &peeked(taken.rest), taken).send(out);
    };
    broker.save_leases(now);
    let start_offsets = std::mem::take(&mut taken.start_offsets);
    let message_offsets = std::mem::take(&mut taken.message_offsets);
    let order_counts = std::mem::take(&mut taken.order_counts);
    let header = PopResponse {
        pop_time: now.wall_ms,
        invisible_time: invisible_ms,
        revive_qid: if ask.order { ORDERED } else { 0 },
        rest_num: taken.rest as i64,
        start_offset_info: Some(start_offsets.into()),
        msg_offset_info: Some(message_offsets.into()),
        order_count_info: ask.order.then(|| order_counts.into()),
    };
    let more = taken.rest > 0;
    let answer = Box::new(ready(ask, &header, taken));
    broker.acks.push(broker.log_end(), Ack::Ready(answer));
    if more {
        broker.tell_interested(&ask.topic.name, Some(&ask.group), -1, out);
    }
}

fn ready(ask: &Ask, header: &PopResponse<'_>, taken: Taken) -> Ready {
    let (to, mut head) = (ask.to, Vec::new());
    let code = response::SUCCESS;
    let mut w = FrameWriter::response(&mut head, to.codec, to.opaque, code, Some("FOUND"));
    header.encode(&mut w);
    w.finish(taken.bytes);
    Ready {
        to,
        head,
        slices: taken.slices,
    }
}

fn answer_notice(ask: &Ask, out: &mut Outbox<Peer>) {
    let header = NotificationResponse {
        has_msg: true,
        polling_full: false,
    };
    tell(ask.to, out, |w| header.encode(w));
}

impl Broker {
    /// Before leases and offsets change together: what waits of others goes first, so that both fit
    /// into one batch.
    pub(in crate::broker) fn begin_leases(&mut self, now: Now) {
        if self.offsets.dirty_bytes_max() > JOINT_BYTES {
            self.flush_offsets(now);
        }
    }

    /// Enters changes of leases and offsets in one batch: a crash keeps both or neither. With the
    /// lease alone, a message would be handed out twice; with the offset alone, never again.
    pub(in crate::broker) fn save_leases(&mut self, now: Now) {
        if let Some(payload) = self.leases.take_unlogged() {
            let offsets = SYSTEM_HEADER_BYTES + self.offsets.dirty_bytes_max();
            self.store
                .reserve(SYSTEM_HEADER_BYTES + payload.len() + offsets);
            // Its caller has asked whether the log takes anything.
            let version = leases::VERSION;
            let _ = self
                .store
                .append_system(now, Kind::Lease, version, &payload);
        }
        self.flush_offsets(now);
    }

    /// Enters in the log what changed in the table of leases.
    pub(in crate::broker) fn log_leases(&mut self, now: Now) {
        if let Some(payload) = self.leases.take_unlogged() {
            // Its caller has asked whether the log takes anything.
            let version = leases::VERSION;
            let _ = self
                .store
                .append_system(now, Kind::Lease, version, &payload);
        }
    }

    /// A queue has new messages: tells the homes of pops that wait for such.
    pub(in crate::broker) fn notice_pops(&mut self, slot: QueueSlot, out: &mut Outbox<Peer>) {
        if !self.pops.has_interests() {
            return;
        }
        let Some(queue) = self.store.queues().queue(slot) else {
            return;
        };
        let (topic, queue_id) = (queue.topic.clone(), queue.queue_id);
        let any = topic.starts_with(RETRY_PREFIX);
        self.tell_interested(&topic, None, if any { -1 } else { queue_id }, out);
    }

    /// Control state changed: pops that wait look at a retry topic that was not there when they
    /// went round. Its shard may not know that they wait.
    pub(in crate::broker) fn notice_topics(
        &mut self,
        now: Now,
        before: &Snapshot,
        out: &mut Outbox<Peer>,
    ) {
        if before.topics_stamp == self.snapshot.topics_stamp {
            return;
        }
        let mut made = Vec::new();
        for line in self.pops.lines() {
            let names = pop_retry_topics(&line.0, &line.1);
            for name in names.iter().filter(|name| !before.topics.contains(name)) {
                let owners = self.snapshot.topics.get(name).map(|topic| &topic.owners);
                made.extend(owners.into_iter().flatten().map(|at| (*at, line.clone())));
            }
        }
        for (at, line) in made {
            wake(self, now, at, line, -1, out);
        }
    }

    pub(in crate::broker) fn tell_interested(
        &mut self,
        topic: &str,
        group: Option<&str>,
        queue_id: i32,
        out: &mut Outbox<Peer>,
    ) {
        for (home, line) in self.pops.interested(topic, group) {
            if home == self.me {
                self.pops.wake_soon(line, queue_id);
            } else {
                out.peers.push((home, Peer::PopWake { line, queue_id }));
            }
        }
    }

    /// Sends out pops that wait here for what this shard has.
    pub(in crate::broker) fn resume_pops(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while let Some((line, queue_id)) = self.pops.next_wake() {
            wake(self, now, self.me, line, queue_id, out);
        }
    }
}

/// A shard may have something for a group's pops that wait here.
pub fn wake(
    broker: &mut Broker,
    now: Now,
    at: ShardId,
    line: (Arc<str>, Arc<str>),
    queue_id: i32,
    out: &mut Outbox<Peer>,
) {
    match broker.pops.wake(&line, queue_id) {
        Wake::UnderWay => {}
        Wake::Look(ticket, ask) => {
            let course = course(broker, &ask);
            let left = match course.strict {
                // What is more urgent may have come elsewhere.
                Some(_) => route(broker, &ask, course),
                None => vec![at],
            };
            let home = broker.me;
            let visit = Visit {
                ask,
                home,
                ticket,
                course,
                left,
            };
            go_on(broker, now, visit, out);
        }
        Wake::Nobody if at == broker.me => broker.pops.forget_interest(&line, at),
        Wake::Nobody => out.peers.push((at, Peer::PopForget { line })),
    }
}

/// POLLING_INFO: how many pops wait.
pub fn polling(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = PollingInfo::decode(&request.command.ext).map_err(bad_header)?;
    let names = Names {
        topic: &header.topic,
        group: &header.consumer_group,
        queue_id: header.queue_id,
    };
    let Some((topic, group)) = check(broker, request, &names, out)? else {
        return Ok(());
    };
    let line = (topic.name.clone(), group);
    let queue_id = header.queue_id.max(-1);
    survey::ask(broker, request, Question::Polling { line, queue_id }, out)
}

/// Adds up what the shards say to that.
pub fn answer_polling(to: ReplyTo, rows: &[Row], out: &mut Outbox<Peer>) {
    let counts = rows.iter().filter_map(|row| match row {
        Row::Count(count) => Some(*count as i64),
        _ => None,
    });
    let polling_num = counts.sum();
    tell(to, out, |w| w.field_i64("pollingNum", polling_num));
}

/// What a shard says to that.
pub fn polling_here(broker: &Broker, line: &(Arc<str>, Arc<str>), queue_id: i32) -> Vec<Row> {
    vec![Row::Count(broker.pops.waiting_for(line, queue_id))]
}
