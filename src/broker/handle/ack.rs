//! ACK_MESSAGE 200051, BATCH_ACK_MESSAGE 200151 and CHANGE_MESSAGE_INVISIBLETIME 200053.
//!
//! An acknowledgement that comes too late, or for what nobody holds, is answered as a good one, as
//! in the reference; it touches nothing. Each is answered when the log holds it.
//!
//! Sources: `AckMessageProcessor`, `ChangeInvisibleTimeProcessor`, `ExtraInfoUtil`;
//! `spec/semantics.md` §8.

use crate::base::{Now, ShardId};
use crate::broker::acks::{Ack, Ready};
use crate::broker::control::effects::Reject;
use crate::broker::control::names::pop_retry_topics;
use crate::broker::handle::pop::ORDERED;
use crate::broker::handle::{Request, bad_header, lite_ack, parse, succeed};
use crate::broker::held::Ordered;
use crate::broker::survey::{self, Question, Row};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::pop::{BatchAck, BatchAcks};
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::header::pop::{AckMessage, ChangeInvisibleTime, ChangeInvisibleTimeResponse};
use crate::store::consumequeue::QueueSlot;

/// Messages of one request at most.
const BATCH_MAX: usize = 10_000;

/// Messages of one queue that one pop handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    topic: String,
    group: String,
    queue_id: i32,
    pop_ms: i64,
    ordered: bool,
    offsets: Vec<u64>,
}

impl Batch {
    /// One message of a queue that is popped in order.
    pub(super) fn in_order(topic: &str, group: &str, handle: &Handle, offset: u64) -> Batch {
        Batch {
            topic: topic.to_owned(),
            group: group.to_owned(),
            queue_id: 0,
            pop_ms: handle.pop_ms,
            ordered: true,
            offsets: vec![offset],
        }
    }
}

/// What `POP_CK` says: `startOffset popTime invisibleTime reviveQid retry broker ...`.
pub struct Handle {
    pub pop_ms: i64,
    pub revive_queue: i32,
}

impl Handle {
    fn parse(text: &str) -> Result<Handle, Reject> {
        let mut parts = text.split(' ');
        let mut number = || parts.next()?.parse::<i64>().ok();
        let all = (number(), number(), number(), number());
        let named = (parts.next(), parts.next());
        let ((Some(_start), Some(pop_ms), Some(_invisible), Some(queue)), (Some(_), Some(_))) =
            (all, named)
        else {
            let remark = format!(
                "extraInfo [{text}] is no handle of a message: startOffset popTime invisibleTime \
                 reviveQid retry broker ..."
            );
            return Err(Reject::new(response::SYSTEM_ERROR, remark));
        };
        let revive_queue = i32::try_from(queue).unwrap_or(0);
        Ok(Handle {
            pop_ms,
            revive_queue,
        })
    }
}

/// `None`: the request went to the shard that owns the queue. The slot is `None` while the queue
/// never had a message.
fn queue(
    broker: &mut Broker,
    request: &Request<'_>,
    topic_name: &str,
    queue_id: i32,
    out: &mut Outbox<Peer>,
) -> Result<Option<Option<QueueSlot>>, Reject> {
    let Some(topic) = broker.topic(topic_name) else {
        let remark = format!("topic[{topic_name}] not exist, apply first please!");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    let readable = topic.config.read_queue_nums;
    let owner = broker.owner(&topic, queue_id);
    let Some(owner) = owner.filter(|_| queue_id < readable) else {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic_name}] \
             topicConfig.readQueueNums:[{readable}]"
        );
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    };
    if owner != broker.me {
        broker.forward(owner, request, out);
        return Ok(None);
    }
    broker
        .store
        .check_append()
        .map_err(|refused| broker.refuse(refused))?;
    Ok(Some(slot_of(broker, topic_name, queue_id)))
}

fn slot_of(broker: &Broker, topic: &str, queue_id: i32) -> Option<QueueSlot> {
    let known = broker.topic(topic)?;
    let slot = broker.store.queues().find(topic, queue_id)?;
    let queue = broker.store.queues().queue(slot)?;
    (queue.topic_id == known.id).then_some(slot)
}

pub fn ack(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = AckMessage::decode(&request.command.ext).map_err(bad_header)?;
    let handle = Handle::parse(&header.extra_info)?;
    if let Some(lite) = lite_ack::named(&header.lite_topic) {
        return lite_ack::ack(broker, request, (&header, lite), &handle, out);
    }
    let (topic, queue_id) = (&header.topic, header.queue_id);
    let Some(slot) = queue(broker, request, topic, queue_id, out)? else {
        return Ok(());
    };
    let (min, max) = slot.map_or_else(Default::default, |slot| broker.store.visible_range(slot));
    let inside = min.0 as i64..=max.0 as i64;
    let Some(slot) = slot.filter(|_| inside.contains(&header.offset)) else {
        let offset = header.offset;
        let remark = format!(
            "offset is illegal, key:{topic}@{queue_id}, commit:{offset}, store:{}~{}",
            min.0, max.0
        );
        return Err(Reject::new(response::NO_MESSAGE, remark));
    };
    let batch = Batch {
        topic: topic.to_string(),
        group: header.consumer_group.to_string(),
        queue_id,
        pop_ms: handle.pop_ms,
        ordered: handle.revive_queue == ORDERED,
        offsets: vec![header.offset as u64],
    };
    end(broker, request.now, &batch, slot, out)?;
    confirm(broker, request.now, request);
    Ok(())
}

/// Answers when what was done is safe.
pub(super) fn confirm(broker: &mut Broker, now: Now, request: &Request<'_>) {
    broker.save_leases(now);
    if !request.command.is_oneway() {
        let to = request.reply_to();
        broker
            .acks
            .push(broker.log_end(), Ack::Offset { to, value: None });
    }
}

/// Ends leases of one queue of this shard.
pub(super) fn end(
    broker: &mut Broker,
    now: Now,
    batch: &Batch,
    slot: QueueSlot,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let group = &*batch.group;
    broker.begin_leases(now);
    for offset in &batch.offsets {
        if !batch.ordered {
            broker.leases.end(group, slot, *offset, batch.pop_ms);
            continue;
        }
        let committed = broker.offsets.committed(group, slot).unwrap_or(0);
        if *offset < committed {
            continue;
        }
        match broker
            .leases
            .end_ordered(now, (group, slot), *offset, batch.pop_ms)
        {
            Ordered::Stale => {}
            Ordered::Unknown => {
                let (topic, queue) = (&batch.topic, batch.queue_id);
                let remark = format!(
                    "offset is illegal, key:{topic}@{group}@{queue}, old:{committed}, \
                     commit:{offset}, next:-1"
                );
                return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
            }
            Ordered::Next(next) => {
                if !broker.offsets.is_reset(group, slot) {
                    broker.offsets.commit(now, group, slot, next);
                }
                if !broker.leases.is_blocked(now, group, slot, "") {
                    broker.tell_interested(&batch.topic, Some(group), batch.queue_id, out);
                    broker.lites.raise(now, group, slot);
                }
            }
        }
    }
    Ok(())
}

pub fn batch_ack(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let body = request.command.body;
    let acks: BatchAcks = match body.is_empty() {
        true => BatchAcks::default(),
        false => parse(request.command)?,
    };
    if acks.acks.is_empty() {
        return Err(Reject::new(
            response::NO_MESSAGE,
            "the request acknowledges nothing",
        ));
    }
    let (mut batches, mut count) = (Vec::new(), 0);
    for ack in &acks.acks {
        let batch = batch(ack)?;
        count += batch.offsets.len();
        if count > BATCH_MAX {
            let remark = format!("more than {BATCH_MAX} messages are acknowledged at once");
            return Err(Reject::new(response::INVALID_PARAMETER, remark));
        }
        batches.push(batch);
    }
    let mut owners: Vec<ShardId> = Vec::new();
    for batch in &batches {
        let topic = broker.topic(&batch.topic);
        let owner = topic.and_then(|topic| broker.owner(&topic, batch.queue_id));
        if let Some(owner) = owner.filter(|owner| !owners.contains(owner)) {
            owners.push(owner);
        }
    }
    match owners[..] {
        [] => {
            if !request.command.is_oneway() {
                succeed(request.reply_to(), out);
            }
            Ok(())
        }
        [owner] if owner == broker.me => {
            let ended = end_here(broker, request.now, &batches, out);
            ended?;
            confirm(broker, request.now, request);
            Ok(())
        }
        [owner] => {
            broker.forward(owner, request, out);
            Ok(())
        }
        _ if broker.lead.is_none() => {
            broker.forward(ShardId(0), request, out);
            Ok(())
        }
        _ => survey::ask(broker, request, Question::Acks(batches), out),
    }
}

/// `BatchAck` of the wire.
fn batch(ack: &BatchAck) -> Result<Batch, Reject> {
    let [current, earlier] = pop_retry_topics(&ack.topic, &ack.group);
    let topic = match &*ack.retry {
        "0" => ack.topic.clone(),
        "1" => earlier,
        "2" => current,
        other => {
            let remark = format!("getRetry fail, format is wrong: r is [{other}], not 0, 1 or 2");
            return Err(Reject::new(response::SYSTEM_ERROR, remark));
        }
    };
    let offsets = ack.offsets(BATCH_MAX).ok_or_else(|| {
        let remark = format!(
            "b is no base64 text of a bit set, or one of more than {BATCH_MAX}, or so is negative"
        );
        Reject::new(response::SYSTEM_ERROR, remark)
    })?;
    Ok(Batch {
        topic,
        group: ack.group.clone(),
        queue_id: ack.queue_id,
        pop_ms: ack.pop_time,
        ordered: ack.revive_queue_id == ORDERED,
        offsets,
    })
}

/// Ends what this shard has of the batches.
fn end_here(
    broker: &mut Broker,
    now: Now,
    batches: &[Batch],
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    broker
        .store
        .check_append()
        .map_err(|refused| broker.refuse(refused))?;
    for batch in batches {
        if let Some(slot) = slot_of(broker, &batch.topic, batch.queue_id) {
            end(broker, now, batch, slot, out)?;
        }
    }
    Ok(())
}

/// The same, asked by shard 0.
pub fn rows(broker: &mut Broker, now: Now, batches: &[Batch], out: &mut Outbox<Peer>) -> Vec<Row> {
    let ended = end_here(broker, now, batches, out);
    broker.save_leases(now);
    ended.err().map(Row::Refused).into_iter().collect()
}

/// CHANGE_MESSAGE_INVISIBLETIME.
pub fn change(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ChangeInvisibleTime::decode(&request.command.ext).map_err(bad_header)?;
    let handle = Handle::parse(&header.extra_info)?;
    let wait_ms = header.invisible_time;
    if !(0..=super::pop::INVISIBLE_MS_MAX).contains(&wait_ms) {
        let most = super::pop::INVISIBLE_MS_MAX;
        let remark = format!("invisibleTime is {wait_ms} ms, must be 0 to {most}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    if let Some(lite) = lite_ack::named(&header.lite_topic) {
        return lite_ack::change(broker, request, (&header, lite), &handle, out);
    }
    let (topic, queue_id) = (&header.topic, header.queue_id);
    let Some(slot) = queue(broker, request, topic, queue_id, out)? else {
        return Ok(());
    };
    let (min, max) = slot.map_or_else(Default::default, |slot| broker.store.visible_range(slot));
    let inside = min.0 as i64..max.0 as i64;
    let Some(slot) = slot.filter(|_| inside.contains(&header.offset)) else {
        let (offset, min, max) = (header.offset, min.0, max.0);
        let remark = format!("{topic}, queue {queue_id} has {min}..{max}, not {offset}");
        return Err(Reject::new(response::NO_MESSAGE, remark));
    };
    let (now, offset) = (request.now, header.offset as u64);
    let (group, until_ms) = (&*header.consumer_group, now.wall_ms + wait_ms);
    let (lane, message) = ((group, slot), (offset, handle.pop_ms));
    let told = if handle.revive_queue == ORDERED {
        let committed = broker.offsets.committed(group, slot).unwrap_or(0);
        if offset < committed {
            if !request.command.is_oneway() {
                succeed(request.reply_to(), out);
            }
            return Ok(());
        }
        broker.leases.change_ordered(now, lane, message, until_ms);
        ChangeInvisibleTimeResponse {
            pop_time: handle.pop_ms,
            invisible_time: until_ms - handle.pop_ms,
            revive_qid: ORDERED,
        }
    } else {
        broker
            .leases
            .change(now, lane, message, until_ms, header.suspend);
        ChangeInvisibleTimeResponse {
            pop_time: now.wall_ms,
            invisible_time: wait_ms,
            revive_qid: handle.revive_queue,
        }
    };
    broker.save_leases(now);
    answer_change(broker, request, told);
    Ok(())
}

pub(super) fn answer_change(
    broker: &mut Broker,
    request: &Request<'_>,
    told: ChangeInvisibleTimeResponse,
) {
    if request.command.is_oneway() {
        return;
    }
    let (to, mut head) = (request.reply_to(), Vec::new());
    let code = response::SUCCESS;
    let mut w = FrameWriter::response(&mut head, to.codec, to.opaque, code, None);
    told.encode(&mut w);
    w.finish(0);
    let slices = Vec::new();
    let ready = Ready { to, head, slices };
    broker
        .acks
        .push(broker.log_end(), Ack::Ready(Box::new(ready)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(i64, i32)>) {
        let seen = Handle::parse(text).map(|handle| (handle.pop_ms, handle.revive_queue));
        assert_eq!(seen.ok(), expected, "{text}");
    }

    #[test]
    fn handles_of_messages() {
        check(
            "7 1700000000000 60000 3 0 broker-a 2 9",
            Some((1_700_000_000_000, 3)),
        );
        check(
            "7 1700000000000 60000 999 0 broker-a",
            Some((1_700_000_000_000, ORDERED)),
        );
        check("7 1700000000000 60000 3 0", None);
        check("7 1700000000000 60000 3", None);
        check("7 then 60000 3 0 broker-a", None);
        check("", None);
    }
}
