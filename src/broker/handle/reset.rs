//! INVOKE_BROKER_TO_RESET_OFFSET 222: a group starts again at another place of a topic.
//!
//! As the reference since 5.1 (`useServerSideResetOffset`): the broker sets the offset, takes no
//! commit that is older, and answers each queue's next pull with the new place. So it works for
//! groups that are online, and for those that are not.
//!
//! Source: `AdminBrokerProcessor.resetOffsetInner`, `ConsumerOffsetManager.assignResetOffset`.

use crate::base::{Now, QueueOffset};
use crate::broker::Peer;
use crate::broker::control::effects::Reject;
use crate::broker::handle::consumption::Walk;
use crate::broker::handle::offset::{offsets_full, search_failed};
use crate::broker::handle::{Request, bad_header};
use crate::broker::survey::{self, Question, Row};
use crate::broker::{Broker, topics};
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::header::offset::ResetOffset;
use crate::store::Sabotage;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use std::sync::Arc;

/// Where a group is to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reset {
    pub topic: Arc<str>,
    group: String,
    /// All of the topic if `None`.
    queue_id: Option<i32>,
    /// This offset, or else the first message stored at that time, ms; the end if negative.
    offset: Option<u64>,
    timestamp: i64,
}

pub fn reset(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ResetOffset::decode(&request.command.ext).map_err(bad_header)?;
    let Some(topic) = broker.snapshot.topics.get(&header.topic) else {
        let remark = format!("Topic {} does not exist", header.topic);
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    if broker.snapshot.groups.get(&header.group).is_none() {
        let remark = format!("Group {} does not exist", header.group);
        return Err(Reject::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let queue_id = Some(header.queue_id).filter(|id| *id >= 0);
    let queues = topics::queues(&topic.config) as i32;
    if queue_id.is_some_and(|id| id >= queues) || queues == 0 {
        return Err(Reject::new(response::SYSTEM_ERROR, "No queues to reset."));
    }
    let offset = header.offset.filter(|_| queue_id.is_some());
    let reset = Reset {
        topic: topic.name.clone(),
        group: header.group.into_owned(),
        queue_id,
        offset: offset.and_then(|offset| u64::try_from(offset).ok()),
        timestamp: header.timestamp,
    };
    survey::ask(broker, request, Question::Reset(reset), out)
}

/// Resets the queues of this shard, also those that never held a message: what comes there first is
/// behind the new place. `None` while the disk is asked for times.
pub fn run(
    broker: &mut Broker,
    now: Now,
    reset: &Reset,
    walk: &mut Walk,
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    let queues = survey::queues_here(broker, &reset.topic);
    for (queue_id, _) in queues.into_iter().skip(walk.queue) {
        if reset.queue_id.is_none_or(|wanted| wanted == queue_id) {
            match target(broker, now, reset, queue_id, waiter) {
                Ok(Some(QueueOffset(offset))) => walk.rows.push(Row::Reset { queue_id, offset }),
                Ok(None) => return None,
                Err(reject) => return Some(vec![Row::Refused(reject)]),
            }
        }
        walk.queue += 1;
    }
    let sabotage = broker.options.store.sabotage;
    let rows = std::mem::take(&mut walk.rows).into_iter().map(|row| {
        let Row::Reset { queue_id, offset } = row else {
            unreachable!("found above");
        };
        let slot = match slot_of(broker, now, reset, queue_id) {
            Ok(slot) => slot,
            Err(reject) => return Row::Refused(reject),
        };
        let (min, max) = broker.store.visible_range(slot);
        if !(min.0..=max.0 + 1).contains(&offset) {
            let (min, max) = (min.0, max.0);
            return Row::OutOfRange { offset, min, max };
        }
        let taken = broker.offsets.reset(now, &reset.group, slot, offset);
        if sabotage == Sabotage::ForgetResets {
            broker.offsets.take_reset(&reset.group, slot);
        }
        match taken {
            true => Row::Reset { queue_id, offset },
            false => Row::Refused(offsets_full(broker)),
        }
    });
    let rows = rows.collect();
    if sabotage != Sabotage::LoseResets {
        broker.flush_offsets(now);
    }
    Some(rows)
}

/// Where in a queue the group is to go on. `None` while the disk is asked.
fn target(
    broker: &mut Broker,
    now: Now,
    reset: &Reset,
    queue_id: i32,
    waiter: WaiterId,
) -> Result<Option<QueueOffset>, Reject> {
    let slot = slot_of(broker, now, reset, queue_id)?;
    if let Some(offset) = reset.offset {
        return Ok(Some(QueueOffset(offset)));
    }
    if reset.timestamp < 0 {
        return Ok(Some(broker.store.visible_range(slot).1));
    }
    match broker
        .store
        .search_time(slot, reset.timestamp, false, waiter)
    {
        Fetch::Ready(offset) => Ok(Some(offset)),
        Fetch::Wait => Ok(None),
        failed => Err(search_failed(failed)),
    }
}

fn slot_of(
    broker: &mut Broker,
    now: Now,
    reset: &Reset,
    queue_id: i32,
) -> Result<QueueSlot, Reject> {
    let Some(topic) = broker.topic(&reset.topic) else {
        let remark = format!("Topic {} does not exist", reset.topic);
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    broker.open_queue(now, &topic, queue_id)
}
