//! PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361.
//!
//! Checks and codes in the order of `PullMessageProcessor` (`spec/semantics.md` §3); the answer's
//! body is slices of the log, not a copy. A pull that finds nothing is parked ([`holds`]
//! (crate::broker::holds)) if its client asked for that; one that needs the disk is parked until
//! the bytes are there, and both run again from the start.

use crate::base::{Now, QueueOffset};
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::groups::is_forbidden;
use crate::broker::handle::filter;
use crate::broker::handle::{Parked, Request, bad_header, disk_busy, make_group, reject_to};
use crate::broker::light::{self, is_light};
use crate::broker::members::Subscription;
use crate::broker::members::TAG;
use crate::broker::topics::{Topic, perm};
use crate::broker::{Broker, Peer};
use crate::filter::Filter;
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::header::pull::{
    FLAG_CLASS_FILTER, FLAG_COMMIT_OFFSET, FLAG_SUBSCRIPTION, FLAG_SUSPEND, PullHeader,
    PullResponse,
};
use crate::store::Store;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::{Fetch, Found, Limits};
use std::sync::Arc;

/// Longest time a pull is held, whatever its client asks.
const HOLD_MS_MAX: i64 = 300_000;

/// A pull that passed its checks; small, for it may wait long.
#[derive(Clone, Debug)]
pub struct Pull {
    pub(super) to: ReplyTo,
    topic: Arc<Topic>,
    group: Arc<str>,
    slot: QueueSlot,
    offset: i64,
    limits: Limits,
    filter: Filter,
    /// What it wants is said by its group, not by itself.
    by_group: bool,
    /// How long it may be held; 0 once it was.
    hold_ms: u64,
}

/// `ForbiddenType` of the reference, told in the answer's `forbiddenType`.
#[derive(Clone, Copy)]
enum Forbidden {
    Broker = 1,
    Group = 2,
    Topic = 3,
    Broadcast = 4,
    Subscription = 5,
}

/// Refusals of a pull that carry fields.
enum Refusal {
    Plain(Reject),
    Forbidden(Forbidden, String),
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Refusal::Plain(reject)
    }
}

pub fn pull(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = PullHeader::decode(&request.command.ext).map_err(bad_header)?;
    match check(broker, request, &header, out) {
        Ok(None) => Ok(()),
        Ok(Some(pull)) => {
            let moved = broker.offsets.is_reset(&pull.group, pull.slot);
            let commits = header.sys_flag & FLAG_COMMIT_OFFSET != 0 && !moved;
            if commits && header.commit_offset >= 0 {
                let offset = header.commit_offset as u64;
                broker
                    .offsets
                    .commit(request.now, &pull.group, pull.slot, offset);
            }
            run(broker, request.now, pull, out);
            Ok(())
        }
        Err(Refusal::Plain(reject)) => Err(reject),
        Err(Refusal::Forbidden(kind, remark)) => {
            refuse_forbidden(request.reply_to(), kind, &remark, out);
            Ok(())
        }
    }
}

/// `None`: it went to the shard that owns the queue, or waits for its group to be made.
fn check(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &PullHeader<'_>,
    out: &mut Outbox<Peer>,
) -> Result<Option<Pull>, Refusal> {
    if broker.options.permission & perm::READ == 0 {
        let remark = "the broker is not readable: see brokerPermission".to_owned();
        return Err(Refusal::Forbidden(Forbidden::Broker, remark));
    }
    let (group_name, topic_name) = (header.consumer_group.to_cow(), header.topic.to_cow());
    let Some(group) = broker.group(&group_name) else {
        make_group(broker, request, &group_name, out)?;
        return Ok(None);
    };
    if !group.consume_enable {
        let remark = format!("subscription group no permission, {group_name}");
        return Err(Refusal::Forbidden(Forbidden::Group, remark));
    }
    if let Some(remark) = broker.snapshot.refusal(&group_name, request.link.conn) {
        return Err(Refusal::Forbidden(Forbidden::Group, remark.to_owned()));
    }
    let Some(topic) = broker.topic(&topic_name) else {
        let remark = format!("topic[{topic_name}] not exist, apply first please!");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark).into());
    };
    if !topic.is_readable() {
        let remark = format!("the topic[{topic_name}] pulling message is forbidden");
        return Err(Refusal::Forbidden(Forbidden::Topic, remark));
    }
    let readable = i64::from(topic.config.read_queue_nums);
    let in_range = i64::from(header.queue_id) < readable;
    let topic = match header.lite_topic.filter(|lite| !lite.is_empty()) {
        None => topic,
        Some(lite) => lite_topic(broker, &topic_name, &lite.to_cow())?,
    };
    let owner = broker.owner(&topic, header.queue_id);
    let Some(owner) = owner.filter(|_| in_range) else {
        let id = header.queue_id;
        let remark = format!(
            "queueId[{id}] is illegal, topic:[{topic_name}] topicConfig.readQueueNums:[{readable}]"
        );
        return Err(Reject::new(response::INVALID_PARAMETER, remark).into());
    };
    if owner != broker.me {
        broker.forward(owner, request, out);
        return Ok(None);
    }
    let filter = subscription(broker, header, &group_name, &topic_name)?;
    let group = group.group_name.as_str().into();
    accept(broker, request, header, topic, group, filter).map(Some)
}

/// The light queue, as a topic, of a lite topic.
fn lite_topic(broker: &Broker, parent: &str, lite: &str) -> Result<Arc<Topic>, Reject> {
    let name = light::lite_queue(parent, lite);
    broker.topic(&name).ok_or_else(|| {
        let remark = format!(
            "topic[{name}] not exist: lite topics need enableLmq and enableMultiDispatch, and \
             names of at most {} bytes with that of their parent",
            light::NAME_BYTES_MAX
        );
        Reject::new(response::TOPIC_NOT_EXIST, remark)
    })
}

/// The pull that a request with a good header asks for.
fn accept(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &PullHeader<'_>,
    topic: Arc<Topic>,
    group: Arc<str>,
    filter: Filter,
) -> Result<Pull, Refusal> {
    let slot = broker.open_queue(request.now, &topic, header.queue_id)?;
    let options = &broker.options;
    let messages = usize::try_from(header.max_msg_nums).unwrap_or(0).max(1);
    let bytes = header
        .max_msg_bytes
        .and_then(|bytes| usize::try_from(bytes).ok());
    let asked_ms = match options.long_polling {
        true => header.suspend_timeout_ms.clamp(0, HOLD_MS_MAX) as u64,
        false => options.short_polling_ms,
    };
    let limits = Limits {
        messages: messages.min(options.transfer_messages_max),
        bytes: bytes
            .filter(|b| *b > 0)
            .unwrap_or(usize::MAX)
            .min(options.transfer_bytes_max),
    };
    let hold_ms = if header.sys_flag & FLAG_SUSPEND != 0 {
        asked_ms
    } else {
        0
    };
    let (to, offset) = (request.reply_to(), header.queue_offset);
    Ok(Pull {
        to,
        topic,
        group,
        slot,
        offset,
        limits,
        filter,
        by_group: header.sys_flag & FLAG_SUBSCRIPTION == 0,
        hold_ms,
    })
}

/// What of the queue the consumer wants: as the pull itself says, or its last heartbeat.
fn subscription(
    broker: &Broker,
    header: &PullHeader<'_>,
    group: &str,
    topic: &str,
) -> Result<Filter, Refusal> {
    if header.sys_flag & FLAG_SUBSCRIPTION != 0 {
        let kind = header.expression_type.map(|kind| kind.to_cow());
        let expression = header.subscription.map(|text| text.to_cow());
        let expression = expression.as_deref().unwrap_or_default();
        let kind = kind.as_deref().filter(|kind| !kind.is_empty());
        return filter::parse(broker, kind.unwrap_or(TAG), expression).map_err(Refusal::from);
    }
    let known = broker.snapshot.subscriptions.get(group);
    let Some(members) = known else {
        let remark = format!("the consumer's group info not exist: {group} sent no heartbeat");
        return Err(Reject::new(response::SUBSCRIPTION_NOT_EXIST, remark).into());
    };
    let config = broker.snapshot.groups.get(group);
    if members.is_broadcast() && config.is_some_and(|config| !config.consume_broadcast_enable) {
        let remark = format!("the consumer group[{group}] can not consume by broadcast way");
        return Err(Refusal::Forbidden(Forbidden::Broadcast, remark));
    }
    if is_forbidden(&broker.snapshot.forbidden, group, topic) {
        let remark = forbidden_remark(group, topic);
        return Err(Refusal::Forbidden(Forbidden::Subscription, remark));
    }
    let Some(wanted) = members.topics.get(topic) else {
        let remark = format!("the consumer's subscription not exist: group {group}, topic {topic}");
        return Err(Reject::new(response::SUBSCRIPTION_NOT_EXIST, remark).into());
    };
    if wanted.version < header.sub_version {
        let remark = "the consumer's subscription not latest";
        return Err(Reject::new(response::SUBSCRIPTION_NOT_LATEST, remark).into());
    }
    let Subscription {
        expression,
        kind,
        class_filter,
        filter,
        ..
    } = &**wanted;
    let Some(filter) = filter else {
        let remark = format!(
            "The broker's consumer filter data is not exist!Your expression may be wrong! \
             ({kind}: {expression})"
        );
        return Err(Reject::new(response::FILTER_DATA_NOT_EXIST, remark).into());
    };
    filter::check_kind(broker, kind)?;
    let all = *class_filter || header.sys_flag & FLAG_CLASS_FILTER != 0;
    Ok(if all { Filter::ALL } else { filter.clone() })
}

fn forbidden_remark(group: &str, topic: &str) -> String {
    format!("the consumer group[{group}] is forbidden for topic[{topic}]")
}

impl Pull {
    /// Whether a new message at `offset` is a reason to run again. One that has left memory
    /// already may be.
    pub fn wants(&self, offset: QueueOffset, store: &Store) -> bool {
        offset.0 as i64 >= self.offset
            && store
                .is_wanted(self.slot, offset, &self.filter)
                .unwrap_or(true)
    }

    pub fn without_hold(self) -> Pull {
        Pull { hold_ms: 0, ..self }
    }
}

/// What a pull came to, by the names of the reference's `GetMessageStatus`.
enum Status {
    Found(Found),
    NoMatchedMessage(QueueOffset),
    NoMessageInQueue,
    OffsetTooSmall(QueueOffset),
    OffsetOverflowOne,
    OffsetOverflowBadly(QueueOffset),
    /// An operator has moved the group.
    OffsetReset(QueueOffset),
}

/// Reads and answers, or parks.
pub fn run(broker: &mut Broker, now: Now, pull: Pull, out: &mut Outbox<Peer>) {
    if let Err(reject) = still_allowed(broker, &pull) {
        return reject_to(pull.to, &reject, out);
    }
    let (min, max) = broker.store.visible_range(pull.slot);
    if let Some(offset) = broker.offsets.take_reset(&pull.group, pull.slot) {
        let status = Status::OffsetReset(QueueOffset(offset));
        return answer(broker, now, &pull, status, out);
    }
    let status = match u64::try_from(pull.offset) {
        _ if max.0 == 0 => Status::NoMessageInQueue,
        Err(_) => Status::OffsetTooSmall(min),
        Ok(offset) if offset < min.0 => Status::OffsetTooSmall(min),
        Ok(offset) if offset == max.0 => Status::OffsetOverflowOne,
        Ok(offset) if offset > max.0 => Status::OffsetOverflowBadly(max),
        Ok(offset) => match read(broker, &pull, QueueOffset(offset)) {
            Ok(status) => status,
            Err(None) => return,
            Err(Some(reject)) => return reject_to(pull.to, &reject, out),
        },
    };
    let nothing_new = match status {
        Status::OffsetOverflowOne => true,
        Status::NoMessageInQueue => pull.offset == 0,
        _ => false,
    };
    if nothing_new && pull.hold_ms > 0 && !broker.holds.is_full() && !broker.stopping {
        let until = now.mono.after_ms(pull.hold_ms);
        return broker.holds.park(pull.slot, pull, until);
    }
    answer(broker, now, &pull, status, out);
}

/// A pull that waited may find its queue gone, its group stopped, or its client refused.
fn still_allowed(broker: &Broker, pull: &Pull) -> Result<(), Reject> {
    if !is_there(broker, pull) {
        let remark = format!("topic[{}] not exist, apply first please!", pull.topic.name);
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    }
    let group = broker.snapshot.groups.get(&pull.group);
    if !group.map_or(is_light(&pull.group), |group| group.consume_enable) {
        let remark = format!("subscription group no permission, {}", pull.group);
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    if let Some(remark) = broker.snapshot.refusal(&pull.group, pull.to.conn) {
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    let forbidden = &broker.snapshot.forbidden;
    if pull.by_group && is_forbidden(forbidden, &pull.group, &pull.topic.name) {
        let remark = forbidden_remark(&pull.group, &pull.topic.name);
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    Ok(())
}

/// Whether the slot still is that of the queue.
fn is_there(broker: &Broker, pull: &Pull) -> bool {
    if light::is_light_id(pull.topic.id) {
        let queue = broker.store.queues().queue(pull.slot);
        return queue.is_some_and(|queue| queue.topic == pull.topic.name);
    }
    let topic = broker.snapshot.topics.get(&pull.topic.name);
    topic.is_some_and(|topic| topic.id == pull.topic.id)
}

/// `Err(None)`: parked until the bytes are there.
fn read(broker: &mut Broker, pull: &Pull, from: QueueOffset) -> Result<Status, Option<Reject>> {
    let waiter = broker.next_waiter();
    let fetched = broker
        .store
        .read(pull.slot, from, pull.limits, &pull.filter, WaiterId(waiter));
    match fetched {
        Fetch::Ready(found) if found.messages > 0 => Ok(Status::Found(found)),
        Fetch::Ready(found) => Ok(Status::NoMatchedMessage(found.next)),
        Fetch::Wait => {
            broker.parked.insert(waiter, Parked::Pull(pull.clone()));
            Err(None)
        }
        Fetch::Busy => Err(Some(disk_busy())),
        Fetch::Missing | Fetch::Damaged(_) => {
            let place = match fetched {
                Fetch::Damaged(place) => place,
                _ => "its index entry is missing".to_owned(),
            };
            broker.stats.damaged_reads += 1;
            let (topic, offset) = (&pull.topic.name, from.0);
            let remark = format!(
                "a message of topic {topic} at offset {offset} or behind cannot be read: {place}. \
                 Restore the file, or reset the group's offset beyond it"
            );
            Err(Some(Reject::new(response::SYSTEM_ERROR, remark)))
        }
    }
}

fn answer(broker: &mut Broker, now: Now, pull: &Pull, status: Status, out: &mut Outbox<Peer>) {
    let offset = QueueOffset(pull.offset.max(0) as u64);
    let (code, remark, next) = match &status {
        Status::Found(found) => (response::SUCCESS, "FOUND", found.next),
        Status::NoMatchedMessage(next) => (
            response::PULL_RETRY_IMMEDIATELY,
            "NO_MATCHED_MESSAGE",
            *next,
        ),
        Status::NoMessageInQueue if pull.offset == 0 => (
            response::PULL_NOT_FOUND,
            "NO_MESSAGE_IN_QUEUE",
            QueueOffset(0),
        ),
        Status::NoMessageInQueue => (
            response::PULL_OFFSET_MOVED,
            "NO_MESSAGE_IN_QUEUE",
            QueueOffset(0),
        ),
        Status::OffsetReset(to) => (response::PULL_OFFSET_MOVED, "OFFSET_RESET", *to),
        Status::OffsetTooSmall(min) => (response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL", *min),
        Status::OffsetOverflowOne => (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE", offset),
        Status::OffsetOverflowBadly(max) => {
            (response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY", *max)
        }
    };
    broker.offsets.note_pull(&pull.group, pull.slot, next.0);
    let (min, max) = broker.store.visible_range(pull.slot);
    let header = PullResponse {
        suggest_which_broker_id: 0,
        next_begin_offset: next.0 as i64,
        min_offset: min.0 as i64,
        max_offset: max.0 as i64,
        offset_delta: None,
        topic_sys_flag: Some(pull.topic.config.topic_sys_flag),
        group_sys_flag: Some(0),
        forbidden_type: None,
    };
    let to = pull.to;
    let found = match status {
        Status::Found(found) => found,
        _ => Found::default(),
    };
    broker.stats.got(found.messages, found.bytes);
    let (topic, group) = (pull.topic.id, &pull.group);
    broker
        .tallies
        .got(now.mono, topic, group, found.messages, found.bytes);
    out.write(to.conn, |bytes| {
        let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, Some(remark));
        header.encode(&mut w);
        w.finish(found.bytes);
    });
    for slice in found.slices {
        out.share(to.conn, slice);
    }
}

fn refuse_forbidden(to: ReplyTo, kind: Forbidden, remark: &str, out: &mut Outbox<Peer>) {
    let code = response::NO_PERMISSION;
    out.write(to.conn, |bytes| {
        let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, Some(remark));
        w.field_i64("forbiddenType", kind as i64);
        w.finish(0);
    });
}
