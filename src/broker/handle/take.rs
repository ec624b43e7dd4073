//! What a pop takes from the queues of one shard: where its group goes on, what is found there, and
//! the leases on it.
//!
//! Sources: `PopMessageProcessor.popMsgFromQueue`, `PeekMessageProcessor`, `NotificationProcessor`.

use crate::base::{Now, QueueOffset};
use crate::broker::Broker;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::RETRY_PREFIX;
use crate::broker::handle::disk_busy;
use crate::broker::handle::offset::is_young;
use crate::broker::handle::pop::places_here;
use crate::broker::pops::{Ask, Visit, What};
use crate::broker::topics::Topic;
use crate::broker::{leases, light};
use crate::filter::Filter;
use crate::message::encode::{Draft, Placed, encode};
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::response;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::{Fetch, Found, Limits};
use bytes::Bytes;
use std::fmt::Write as _;
use std::sync::Arc;

/// Messages that are looked at one by one to say whether there are any
/// (`maxMessageFilterNumForNotification`).
const FEW: u64 = 64;

pub enum Looked {
    Nothing,
    /// There is something.
    Some,
    Taken(Taken),
    /// The disk was asked.
    Waits,
}

impl From<bool> for Looked {
    fn from(some: bool) -> Self {
        if some { Looked::Some } else { Looked::Nothing }
    }
}

/// What a pop has got so far.
#[derive(Default)]
pub struct Taken {
    pub messages: usize,
    pub bytes: usize,
    pub slices: Vec<Bytes>,
    /// Messages that are left.
    pub rest: u64,
    pub start_offsets: String,
    pub message_offsets: String,
    pub order_counts: String,
    /// In order: the offset of each message, and how often it was handed out before.
    pub times: Vec<(u64, u32)>,
}

/// Takes messages from the queues of this shard.
pub fn take(
    broker: &mut Broker,
    now: Now,
    visit: &Visit,
    waiter: WaiterId,
) -> Result<Looked, Reject> {
    let ask = &*visit.ask;
    if matches!(ask.what, What::Pop { .. }) {
        check_leases(broker)?;
        broker.begin_leases(now);
    }
    let mut taken = Taken::default();
    for (topic, queue_id) in places_here(broker, ask, visit.course) {
        let Some(slot) = slot_of(broker, &topic, queue_id) else {
            continue;
        };
        let (place, strict) = ((&topic, queue_id, slot), visit.course.strict.is_some());
        match take_from(broker, now, ask, strict, place, waiter, &mut taken)? {
            true => {}
            false if taken.messages == 0 => return Ok(Looked::Waits),
            false => {
                broker.store.give_up(waiter);
                break;
            }
        }
    }
    Ok(match taken.messages {
        0 => Looked::Nothing,
        _ => Looked::Taken(taken),
    })
}

/// Whether one more pop can be written down.
pub(super) fn check_leases(broker: &mut Broker) -> Result<(), Reject> {
    broker
        .store
        .check_append()
        .map_err(|refused| broker.refuse(refused))?;
    if broker.leases.is_full() {
        let most = leases::LEASES_MAX;
        let remark = format!("this shard has {most} messages that are not acknowledged, the limit");
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    Ok(())
}

fn slot_of(broker: &Broker, topic: &Topic, queue_id: i32) -> Option<QueueSlot> {
    let slot = broker.store.queues().find(&topic.name, queue_id)?;
    let queue = broker.store.queues().queue(slot)?;
    (queue.topic_id == topic.id).then_some(slot)
}

/// Where the group goes on in a queue. Noted when it is there for the first time.
fn position(broker: &mut Broker, now: Now, ask: &Ask, topic: &Topic, slot: QueueSlot) -> u64 {
    let (min, max) = broker.store.visible_range(slot);
    let pops = matches!(ask.what, What::Pop { .. });
    if pops && let Some(offset) = broker.offsets.take_reset(&ask.group, slot) {
        broker.leases.clear(&ask.group, slot);
        return offset.clamp(min.0, max.0);
    }
    if let Some(offset) = broker.offsets.committed(&ask.group, slot) {
        return offset.clamp(min.0, max.0);
    }
    let oldest = !matches!(
        ask.what,
        What::Pop {
            from_oldest: false,
            ..
        }
    );
    let first = match oldest || topic.name.starts_with(RETRY_PREFIX) {
        true => min.0,
        false if is_young(broker, slot) => 0,
        false => max.0.saturating_sub(1),
    };
    if pops {
        broker.offsets.commit(now, &ask.group, slot, first);
    }
    first
}

/// Takes messages from one queue; false if what comes behind has to wait, first of all for the
/// disk. `strict`: what is left is more urgent than what comes behind.
pub(super) fn take_from(
    broker: &mut Broker,
    now: Now,
    ask: &Ask,
    strict: bool,
    (topic, queue_id, slot): (&Arc<Topic>, i32, QueueSlot),
    waiter: WaiterId,
    taken: &mut Taken,
) -> Result<bool, Reject> {
    let (What::Pop { most, .. } | What::Peek { most }) = ask.what else {
        return Ok(true);
    };
    if ask.order
        && broker
            .leases
            .is_blocked(now, &ask.group, slot, &ask.attempt)
    {
        return Ok(true);
    }
    let pops = matches!(ask.what, What::Pop { .. });
    let from = position(broker, now, ask, topic, slot);
    let (_, max) = broker.store.visible_range(slot);
    let limits = Limits {
        messages: most.saturating_sub(taken.messages),
        bytes: broker
            .options
            .transfer_bytes_max
            .saturating_sub(taken.bytes),
    };
    if from >= max.0 || limits.messages == 0 || limits.bytes == 0 {
        taken.rest += max.0 - from;
        return Ok(true);
    }
    let is_retry = topic.name.starts_with(RETRY_PREFIX);
    let filter = if is_retry { &Filter::ALL } else { &ask.filter };
    match broker
        .store
        .read(slot, QueueOffset(from), limits, filter, waiter)
    {
        Fetch::Ready(found) => {
            // What is only looked at is still there.
            let next = if pops { found.next.0 } else { from };
            taken.rest += max.0 - next;
            let (messages, bytes) = (found.messages, found.bytes);
            broker
                .tallies
                .got(now.mono, topic.id, &ask.group, messages, bytes);
            let place = (topic, queue_id, slot);
            // What is left for want of its bytes is more urgent than what comes behind.
            let short = strict && found.next.0 < max.0 && messages < limits.messages;
            match pops {
                true => hand_out(broker, now, ask, place, from, found, taken),
                false => show(found, taken),
            }
            Ok(!short || taken.messages == 0)
        }
        Fetch::Wait => Ok(false),
        // What comes behind is the next pop's: it may be less urgent.
        Fetch::Busy | Fetch::Missing | Fetch::Damaged(_) if taken.messages > 0 => Ok(false),
        Fetch::Busy => Err(disk_busy()),
        Fetch::Missing | Fetch::Damaged(_) => {
            broker.stats.damaged_reads += 1;
            Err(unreadable(&topic.name, queue_id, from))
        }
    }
}

fn unreadable(topic: &str, queue_id: i32, from: u64) -> Reject {
    let remark = format!(
        "a message of topic {topic}, queue {queue_id} at offset {from} or behind cannot be read. \
         Restore the file, or reset the group's offset beyond it"
    );
    Reject::new(response::SYSTEM_ERROR, remark)
}

/// Messages that are only looked at.
fn show(found: Found, taken: &mut Taken) {
    taken.messages += found.messages;
    for slice in found.slices {
        taken.bytes += slice.len();
        taken.slices.push(slice);
    }
}

/// Leases what was found, and notes how far the group has come.
fn hand_out(
    broker: &mut Broker,
    now: Now,
    ask: &Ask,
    (topic, queue_id, slot): (&Arc<Topic>, i32, QueueSlot),
    from: u64,
    found: Found,
    taken: &mut Taken,
) {
    let What::Pop { invisible_ms, .. } = ask.what else {
        return;
    };
    let next = found.next.0;
    if found.messages == 0 {
        broker.offsets.commit(now, &ask.group, slot, next);
        return;
    }
    let queue = broker.store.queues().queue(slot);
    let light = queue.filter(|queue| light::is_light_id(queue.topic_id));
    let light = light.map(|queue| &*queue.topic);
    let offsets = found.slices.iter().map(|slice| offset_of(slice, light));
    let offsets: Vec<u64> = offsets.collect();
    let (flag, lane) = (flag_of(&topic.name, &ask.group), (&*ask.group, slot));
    if ask.order {
        let times = broker
            .leases
            .hold(now, lane, invisible_ms, &ask.attempt, &offsets);
        put_counts(&mut taken.order_counts, flag, queue_id, &offsets, &times);
        taken.times.extend(offsets.iter().copied().zip(times));
        broker.offsets.commit(now, &ask.group, slot, from);
    } else {
        let until_ms = now.wall_ms.saturating_add(invisible_ms);
        broker
            .leases
            .grant(now, lane, now.wall_ms, until_ms, &offsets);
        broker.offsets.commit(now, &ask.group, slot, next);
    }
    let start = separator(&taken.start_offsets);
    let _ = write!(taken.start_offsets, "{start}{flag} {queue_id} {from}");
    let _ = write!(taken.message_offsets, "{start}{flag} {queue_id} ");
    for (n, offset) in offsets.iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(taken.message_offsets, "{comma}{offset}");
    }
    taken.messages += found.messages;
    for slice in found.slices {
        let slice = match flag {
            0 => slice,
            _ => as_of_topic(broker, now, ask, &slice, flag, from).unwrap_or(slice),
        };
        taken.bytes += slice.len();
        taken.slices.push(slice);
    }
}

/// 0 for the topic itself, 1 and 2 for the two forms of its retry topic (`ExtraInfoUtil.getRetry`).
fn flag_of(topic: &str, group: &str) -> u8 {
    let rest = topic
        .strip_prefix(RETRY_PREFIX)
        .and_then(|rest| rest.strip_prefix(group));
    match rest {
        None => 0,
        Some(rest) if rest.starts_with('+') => 2,
        Some(_) => 1,
    }
}

fn separator(before: &str) -> &'static str {
    if before.is_empty() { "" } else { ";" }
}

/// How often each message was handed out before, and the least of it for clients that look at
/// queues (`QueueLevelConsumerManager.update`).
fn put_counts(out: &mut String, flag: u8, queue_id: i32, offsets: &[u64], times: &[u32]) {
    for (offset, count) in offsets.iter().zip(times).filter(|(_, count)| **count > 0) {
        let start = separator(out);
        let _ = write!(out, "{start}{flag} qo{queue_id}%{offset} {count}");
    }
    let (start, least) = (separator(out), times.iter().min().copied().unwrap_or(0));
    let _ = write!(out, "{start}{flag} {queue_id} {least}");
}

/// Queue offset of a whole record: in its own queue, or in a light one.
fn offset_of(record: &[u8], light: Option<&str>) -> u64 {
    let Ok(view) = RecordView::parse(record) else {
        return 0;
    };
    let told = light.and_then(|name| light::offset_told(view.properties(), name));
    told.unwrap_or(view.queue_offset() as u64)
}

/// A message of a retry topic as one of the topic itself, with what it is acknowledged by.
fn as_of_topic(
    broker: &Broker,
    now: Now,
    ask: &Ask,
    record: &[u8],
    flag: u8,
    from: u64,
) -> Option<Bytes> {
    let What::Pop { invisible_ms, .. } = ask.what else {
        return None;
    };
    let view = RecordView::parse(record).ok()?;
    let name = &broker.options.control.broker_name;
    let (queue_id, offset, pop_ms) = (view.queue_id(), view.queue_offset(), now.wall_ms);
    let handle = format!("{from} {pop_ms} {invisible_ms} 0 {flag} {name} {queue_id} {offset}");
    let mut stored = view.properties().to_vec();
    properties::set(&mut stored, names::POP_CK, &handle);
    let draft = Draft {
        topic: &ask.topic.name,
        properties: &stored,
        ..Draft::of(&view)
    };
    draft.check().ok()?;
    let placed = Placed {
        queue_offset: offset,
        physical_offset: view.physical_offset(),
        store_timestamp: view.store_timestamp(),
    };
    let mut bytes = Vec::new();
    encode(&draft, placed, &mut bytes);
    Some(bytes.into())
}

/// Whether a pop would find something here.
pub fn has_messages(broker: &mut Broker, now: Now, visit: &Visit) -> bool {
    let ask = &*visit.ask;
    let mut places = places_here(broker, ask, visit.course).into_iter();
    places.any(|(topic, queue_id)| {
        let Some(slot) = slot_of(broker, &topic, queue_id) else {
            return false;
        };
        if ask.order
            && broker
                .leases
                .is_blocked(now, &ask.group, slot, &ask.attempt)
        {
            return false;
        }
        let (min, max) = broker.store.visible_range(slot);
        let from = broker.offsets.committed(&ask.group, slot).unwrap_or(min.0);
        // Few messages are looked at one by one, as long as they are in memory.
        let some = from.max(min.0)..max.0;
        let is_retry = topic.name.starts_with(RETRY_PREFIX);
        let sure = is_retry || max.0.saturating_sub(from) >= FEW;
        let store = &broker.store;
        let wanted = |offset| store.is_wanted(slot, QueueOffset(offset), &ask.filter);
        !some.is_empty() && (sure || some.clone().any(|offset| wanted(offset).unwrap_or(true)))
    })
}
