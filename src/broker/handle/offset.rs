//! Offsets: consumer offsets 14 and 15; ends of a queue 30, 31, 32; search by time 29.
//!
//! Unlike the reference: a group without an offset gets 0 for a queue that never held a message.
//! Told "not found", a new consumer asks for the end of the queue next, and skips for ever what
//! arrives between the two questions.
//!
//! Source: `ConsumerManageProcessor`, `AdminBrokerProcessor`; `spec/semantics.md` §5, `store.md`
//! §7.

use crate::base::QueueOffset;
use crate::broker::acks::{Ack, ReplyTo};
use crate::broker::control::effects::Reject;
use crate::broker::handle::{
    Parked, Request, bad_header, disk_busy, lite_ack, reject_to, succeed, tell,
};
use crate::broker::light::lite_queue;
use crate::broker::topics;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::header::offset::{
    MaxOffset, OffsetResponse, QueryConsumerOffset, QueueHeader, SearchOffset, StoreTimeResponse,
    UpdateConsumerOffset,
};
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;

/// Where a queue is that a request names.
pub(super) enum Place {
    /// `None` as long as nothing was ever stored or committed for it.
    Here(Option<QueueSlot>),
    /// The request went to its owner.
    Elsewhere,
    /// No topic of the name, or it has no queue of the number.
    Nowhere,
}

pub(super) fn find(
    broker: &Broker,
    request: &Request<'_>,
    topic: &str,
    queue_id: i32,
    out: &mut Outbox<Peer>,
) -> Place {
    let Some(topic) = broker.topic(topic) else {
        return Place::Nowhere;
    };
    match broker.owner(&topic, queue_id) {
        None => Place::Nowhere,
        Some(owner) if owner != broker.me => {
            broker.forward(owner, request, out);
            Place::Elsewhere
        }
        Some(_) => {
            let queues = broker.store.queues();
            let is_it = |slot: &QueueSlot| {
                let queue = queues.queue(*slot);
                queue.is_some_and(|queue| queue.topic_id == topic.id)
            };
            Place::Here(queues.find(&topic.name, queue_id).filter(is_it))
        }
    }
}

/// QUERY_CONSUMER_OFFSET 14.
pub fn query(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = QueryConsumerOffset::decode(&request.command.ext).map_err(bad_header)?;
    let not_found = || {
        let remark = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
        Reject::new(response::QUERY_NOT_FOUND, remark)
    };
    let slot = match find(broker, request, &header.topic, header.queue_id, out) {
        Place::Here(slot) => slot,
        Place::Elsewhere => return Ok(()),
        Place::Nowhere => return Err(not_found()),
    };
    let group = &header.consumer_group;
    if let Some(offset) = slot.and_then(|slot| broker.offsets.committed(group, slot)) {
        broker.flush_offsets(request.now);
        let value = Some(offset as i64);
        broker.answer_when_logged(request.reply_to(), value, out);
        return Ok(());
    }
    let young = slot.is_none_or(|slot| is_young(broker, slot));
    if young && header.set_zero_if_not_found != Some(false) {
        answer(request.reply_to(), 0, out);
        return Ok(());
    }
    Err(not_found())
}

/// Whether a group without an offset should see the queue from its very first message: none is
/// gone, and the first is not far back (`checkInMemByConsumeOffset`).
pub(super) fn is_young(broker: &mut Broker, slot: QueueSlot) -> bool {
    let (min, max) = broker.store.visible_range(slot);
    if min.0 > 0 || max.0 == 0 {
        return min.0 == 0;
    }
    let oldest = broker.store.earliest_place(slot, QueueOffset(0));
    oldest.is_some_and(|at| broker.log_end().0 - at.0 <= broker.options.young_bytes)
}

/// UPDATE_CONSUMER_OFFSET 15.
pub fn update(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = UpdateConsumerOffset::decode(&request.command.ext).map_err(bad_header)?;
    if broker.group(&header.consumer_group).is_none() {
        let remark = format!("Group {} not exist!", header.consumer_group);
        return Err(Reject::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let (name, queue_id) = (&*header.topic, header.queue_id);
    let Some(topic) = broker.topic(name) else {
        let remark = format!("topic[{name}] not exist");
        return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
    };
    match find(broker, request, name, queue_id, out) {
        Place::Here(_) => {}
        Place::Elsewhere => return Ok(()),
        Place::Nowhere => {
            let limit = topics::queues(&topic.config);
            let remark = format!("queueId[{queue_id}] is illegal, topic {name} has {limit}");
            return Err(Reject::new(response::INVALID_PARAMETER, remark));
        }
    }
    let Ok(offset) = u64::try_from(header.commit_offset) else {
        let remark = format!("commitOffset[{}] is negative", header.commit_offset);
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    };
    let slot = broker.open_queue(request.now, &topic, queue_id)?;
    if broker.offsets.is_reset(&header.consumer_group, slot) {
        // The consumer does not know yet that an operator has moved its group.
        if !request.command.is_oneway() {
            let to = request.reply_to();
            let remark = Some("Offset has been previously reset");
            out.write(to.conn, |bytes| {
                let code = response::SUCCESS;
                let w = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
                w.finish(0);
            });
        }
        return Ok(());
    }
    if !broker
        .offsets
        .commit(request.now, &header.consumer_group, slot, offset)
    {
        return Err(offsets_full(broker));
    }
    if !request.command.is_oneway() {
        broker.flush_offsets(request.now);
        broker.answer_when_logged(request.reply_to(), None, out);
    }
    Ok(())
}

pub fn offsets_full(broker: &Broker) -> Reject {
    let limit = crate::broker::offsets::OFFSETS_MAX;
    let shard = broker.me.0;
    let remark = format!("shard {shard} keeps {limit} consumer offsets at most");
    Reject::new(response::SYSTEM_ERROR, remark)
}

impl Broker {
    /// Answers once the log confirms what the offset table says.
    fn answer_when_logged(&mut self, to: ReplyTo, value: Option<i64>, out: &mut Outbox<Peer>) {
        if let Err(refused @ crate::store::Refused::Failed(_)) = self.store.check_append() {
            return reject_to(to, &self.refuse(refused), out);
        }
        if self.offsets.logged() <= self.store.confirmed() && !self.offsets.is_dirty() {
            match value {
                Some(offset) => answer(to, offset, out),
                None => succeed(to, out),
            }
            return;
        }
        self.acks.push(self.log_end(), Ack::Offset { to, value });
    }
}

/// The queue that is asked about, unless its owner is; a queue that is not there is as empty as one
/// that never held a message: tools ask for the queues of retry topics that nobody has made.
fn known(
    broker: &Broker,
    request: &Request<'_>,
    topic: &str,
    queue_id: i32,
    out: &mut Outbox<Peer>,
) -> Option<Option<QueueSlot>> {
    match find(broker, request, topic, queue_id, out) {
        Place::Here(slot) => Some(slot),
        Place::Elsewhere => None,
        Place::Nowhere => Some(None),
    }
}

/// GET_MAX_OFFSET 30. `committed=false` asks for what is not confirmed yet; we show nobody that.
pub fn max(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = MaxOffset::decode(&request.command.ext).map_err(bad_header)?;
    if let Some(slot) = known(broker, request, &header.topic, header.queue_id, out) {
        let offset = slot.map_or(0, |slot| broker.store.visible_range(slot).1.0);
        answer(request.reply_to(), offset as i64, out);
    }
    Ok(())
}

/// GET_MIN_OFFSET 31.
pub fn min(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = QueueHeader::decode(&request.command.ext).map_err(bad_header)?;
    if let Some(slot) = known(broker, request, &header.topic, header.queue_id, out) {
        let offset = slot.map_or(0, |slot| broker.store.visible_range(slot).0.0);
        answer(request.reply_to(), offset as i64, out);
    }
    Ok(())
}

/// A search in a queue that may need the disk.
pub struct Search {
    pub(super) to: ReplyTo,
    slot: QueueSlot,
    what: Sought,
}

#[derive(Clone, Copy)]
enum Sought {
    Time {
        store_ms: i64,
        upper: bool,
    },
    /// Store time of the oldest message.
    Earliest,
}

/// SEARCH_OFFSET_BY_TIMESTAMP 29.
pub fn search(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = SearchOffset::decode(&request.command.ext).map_err(bad_header)?;
    let lite = lite_ack::named(&header.lite_topic).map(|lite| lite_queue(&header.topic, lite));
    let topic = lite.as_deref().unwrap_or(&header.topic);
    if let Some(slot) = known(broker, request, topic, header.queue_id, out) {
        let to = request.reply_to();
        let what = Sought::Time {
            store_ms: header.timestamp,
            upper: header.is_upper(),
        };
        match slot {
            Some(slot) => run_search(broker, Search { to, slot, what }, out),
            None => answer(to, 0, out),
        }
    }
    Ok(())
}

/// GET_EARLIEST_MSG_STORETIME 32; −1 in an empty queue.
pub fn earliest(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = QueueHeader::decode(&request.command.ext).map_err(bad_header)?;
    if let Some(slot) = known(broker, request, &header.topic, header.queue_id, out) {
        let to = request.reply_to();
        let what = Sought::Earliest;
        match slot {
            Some(slot) => run_search(broker, Search { to, slot, what }, out),
            None => answer_time(to, -1, out),
        }
    }
    Ok(())
}

pub fn run_search(broker: &mut Broker, search: Search, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let (min, max) = broker.store.visible_range(search.slot);
    let found = match search.what {
        Sought::Time { store_ms, upper } => broker
            .store
            .search_time(search.slot, store_ms, upper, WaiterId(waiter))
            .map(|offset| offset.0 as i64),
        Sought::Earliest if min == max => Fetch::Ready(-1),
        Sought::Earliest => broker.store.store_time(search.slot, min, WaiterId(waiter)),
    };
    match (found, search.what) {
        (Fetch::Ready(offset), Sought::Time { .. }) => answer(search.to, offset, out),
        (Fetch::Ready(ms), Sought::Earliest) => answer_time(search.to, ms, out),
        (Fetch::Wait, _) => {
            broker.parked.insert(waiter, Parked::Search(search));
        }
        (failed, _) => reject_to(search.to, &search_failed(failed), out),
    }
}

/// Why nothing was found where a search must find something.
pub fn search_failed<T>(failed: Fetch<T>) -> Reject {
    match failed {
        Fetch::Damaged(place) => Reject::new(response::SYSTEM_ERROR, place),
        Fetch::Missing => {
            let remark = "the queue's index has a hole: see the broker's log";
            Reject::new(response::SYSTEM_ERROR, remark)
        }
        Fetch::Ready(_) | Fetch::Wait | Fetch::Busy => disk_busy(),
    }
}

fn answer(to: ReplyTo, offset: i64, out: &mut Outbox<Peer>) {
    tell(to, out, |w| OffsetResponse { offset }.encode(w));
}

fn answer_time(to: ReplyTo, timestamp: i64, out: &mut Outbox<Peer>) {
    tell(to, out, |w| StoreTimeResponse { timestamp }.encode(w));
}
