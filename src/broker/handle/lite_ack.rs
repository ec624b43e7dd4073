//! ACK_MESSAGE 200051 and CHANGE_MESSAGE_INVISIBLETIME 200053 of messages of lite topics: requests
//! that name one beside its parent.
//!
//! Source: `AckMessageProcessor.ackLite`,
//! `ChangeInvisibleTimeProcessor.processChangeInvisibleTimeForLite`; `spec/delta-5.5.md` §5.

use crate::broker::control::effects::Reject;
use crate::broker::handle::ack::{Batch, Handle, answer_change, confirm, end};
use crate::broker::handle::pop::ORDERED;
use crate::broker::handle::{Request, lite};
use crate::broker::light::{is_light_id, lite_queue};
use crate::broker::lite::rules::bound_to;
use crate::broker::topics::Topic;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::header::pop::{AckMessage, ChangeInvisibleTime, ChangeInvisibleTimeResponse};
use crate::store::consumequeue::QueueSlot;
use std::sync::Arc;

/// The lite topic that a header names, if it does.
pub(super) fn named<'a>(lite: &'a Option<std::borrow::Cow<'_, str>>) -> Option<&'a str> {
    lite.as_deref().filter(|lite| !lite.trim().is_empty())
}

/// The parent of a lite topic that a request is about.
fn parent(broker: &Broker, name: &str, queue_id: i32) -> Result<Arc<Topic>, Reject> {
    let Some(topic) = broker.snapshot.topics.get(name).cloned() else {
        let remark = format!("topic[{name}] not exist, apply first please!");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    let readable = topic.config.read_queue_nums;
    if !(0..readable).contains(&queue_id) {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{readable}]"
        );
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    Ok(topic)
}

/// `None`: the request went to the shard that has the lite topic. The slot is `None` while it
/// never had a message.
fn slot(
    broker: &mut Broker,
    request: &Request<'_>,
    (topic, lite): (&Topic, &str),
    out: &mut Outbox<Peer>,
) -> Result<Option<Option<QueueSlot>>, Reject> {
    let home = lite::home(topic)?;
    if home != broker.me {
        broker.forward(home, request, out);
        return Ok(None);
    }
    let checked = broker.store.check_append();
    checked.map_err(|refused| broker.refuse(refused))?;
    let slot = broker
        .store
        .queues()
        .find(&lite_queue(&topic.name, lite), 0);
    let queue = slot.and_then(|slot| broker.store.queues().queue(slot));
    Ok(Some(slot.filter(|_| {
        queue.is_some_and(|queue| is_light_id(queue.topic_id))
    })))
}

/// A place that the queue does not have (yet).
fn beyond(broker: &Broker, slot: Option<QueueSlot>, offset: i64) -> Option<(QueueSlot, u64)> {
    let max = slot.map_or(0, |slot| broker.store.visible_range(slot).1.0);
    let offset = u64::try_from(offset).ok().filter(|offset| *offset <= max);
    slot.zip(offset)
}

pub fn ack(
    broker: &mut Broker,
    request: &Request<'_>,
    (header, lite): (&AckMessage<'_>, &str),
    handle: &Handle,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let (topic_name, group) = (&*header.topic, &*header.consumer_group);
    let topic = parent(broker, topic_name, header.queue_id)?;
    let config = broker.snapshot.groups.get(group);
    if config.and_then(|config| bound_to(config)) != Some(topic_name) {
        let remark = format!(
            "group type or bind topic not match: lite.bind.topic of {group} is not {topic_name}"
        );
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let Some(slot) = slot(broker, request, (&topic, lite), out)? else {
        return Ok(());
    };
    let Some((slot, offset)) = beyond(broker, slot, header.offset) else {
        let remark = format!(
            "ack offset illegal: lite topic {lite} has no {}",
            header.offset
        );
        return Err(Reject::new(response::NO_MESSAGE, remark));
    };
    if header.queue_id != 0 || handle.revive_queue != ORDERED {
        let remark = "ack queue illegal: messages of lite topics come from queue 0, in order";
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let batch = Batch::in_order(topic_name, group, handle, offset);
    end(broker, request.now, &batch, slot, out)?;
    confirm(broker, request.now, request);
    Ok(())
}

pub fn change(
    broker: &mut Broker,
    request: &Request<'_>,
    (header, lite): (&ChangeInvisibleTime<'_>, &str),
    handle: &Handle,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let topic = parent(broker, &header.topic, header.queue_id)?;
    let Some(slot) = slot(broker, request, (&topic, lite), out)? else {
        return Ok(());
    };
    let Some((slot, offset)) = beyond(broker, slot, header.offset) else {
        let remark = format!("lite topic {lite} has no offset {}", header.offset);
        return Err(Reject::new(response::NO_MESSAGE, remark));
    };
    let (now, group) = (request.now, &*header.consumer_group);
    if offset < broker.offsets.committed(group, slot).unwrap_or(0) {
        let told = ChangeInvisibleTimeResponse::default();
        answer_change(broker, request, told);
        return Ok(());
    }
    let until_ms = now.wall_ms.saturating_add(header.invisible_time);
    let (lane, leases) = ((group, slot), &mut broker.leases);
    match header.suspend {
        true => leases.suspend_ordered(now, lane, handle.pop_ms, until_ms),
        false => leases.change_ordered(now, lane, (offset, handle.pop_ms), until_ms),
    }
    broker.save_leases(now);
    let told = ChangeInvisibleTimeResponse {
        pop_time: handle.pop_ms,
        invisible_time: until_ms - handle.pop_ms,
        revive_qid: handle.revive_queue,
    };
    answer_change(broker, request, told);
    Ok(())
}
