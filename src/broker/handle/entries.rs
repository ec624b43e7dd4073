//! QUERY_CONSUME_QUEUE 321: entries of a queue's index, as `mqadmin queryCq` shows them.
//!
//! Unlike the reference, no more entries are given than readers may see, and no more than
//! [`ENTRIES_MAX`] at a time.
//!
//! Source: `AdminBrokerProcessor.queryConsumeQueue`.

use crate::base::QueueOffset;
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::handle::offset::{self, Place};
use crate::broker::handle::{
    Parked, Request, bad_header, connection, disk_busy, reject_to, succeed_with,
};
use crate::broker::members::Subscription;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::json;
use crate::remoting::body::queue_entries::{QueueEntries, QueueEntry};
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::header::query::QueryEntries;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;

/// Entries of one answer.
const ENTRIES_MAX: i32 = 1024;

pub struct Entries {
    pub(super) to: ReplyTo,
    topic: String,
    queue_id: i32,
    slot: Option<QueueSlot>,
    from: i64,
    most: usize,
    group: Option<String>,
    found: Vec<QueueEntry>,
}

pub fn query(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = QueryEntries::decode(&request.command.ext).map_err(bad_header)?;
    if header.count > ENTRIES_MAX {
        let count = header.count;
        let remark = format!("count[{count}] is too large, one answer has {ENTRIES_MAX} entries");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let (topic, queue_id) = (&header.topic, header.queue_id);
    let slot = match offset::find(broker, request, topic, queue_id, out) {
        Place::Here(slot) => slot,
        Place::Elsewhere => return Ok(()),
        Place::Nowhere => {
            let remark = format!("{queue_id}@{topic} is not exist!");
            return Err(Reject::new(response::SYSTEM_ERROR, remark));
        }
    };
    let entries = Entries {
        to: request.reply_to(),
        slot,
        topic: header.topic.into_owned(),
        queue_id,
        from: header.index,
        most: usize::try_from(header.count).unwrap_or(0),
        group: header.consumer_group.map(|group| group.into_owned()),
        found: Vec::new(),
    };
    run(broker, entries, out);
    Ok(())
}

/// Goes on where the disk was asked.
pub fn run(broker: &mut Broker, mut entries: Entries, out: &mut Outbox<Peer>) {
    let range = entries.slot.map(|slot| broker.store.visible_range(slot));
    let (min, max) = range.unwrap_or_default();
    let Some(from) = u64::try_from(entries.from)
        .ok()
        .filter(|from| (min.0..max.0).contains(from))
    else {
        return answer_none(&entries, out);
    };
    while let Some(slot) = entries.slot
        && entries.found.len() < entries.most
    {
        let at = QueueOffset(from + entries.found.len() as u64);
        if at >= max {
            break;
        }
        let waiter = broker.next_waiter();
        match broker.store.entry(slot, at, WaiterId(waiter)) {
            Fetch::Ready(entry) => entries.found.push(QueueEntry {
                physic_offset: entry.at.physical(broker.me),
                physic_size: entry.size as i32,
                tags_code: i64::from(entry.tag_hash),
                ..QueueEntry::default()
            }),
            Fetch::Wait => {
                broker
                    .parked
                    .insert(waiter, Parked::Entries(Box::new(entries)));
                return;
            }
            Fetch::Missing => break,
            Fetch::Damaged(place) => {
                broker.stats.damaged_reads += 1;
                let reject = Reject::new(response::SYSTEM_ERROR, place);
                return reject_to(entries.to, &reject, out);
            }
            Fetch::Busy => return reject_to(entries.to, &disk_busy(), out),
        }
    }
    answer(broker, entries, [min, max], out);
}

/// A success with a remark and without a body, as the reference gives it.
fn answer_none(entries: &Entries, out: &mut Outbox<Peer>) {
    let (from, id, topic) = (entries.from, entries.queue_id, &entries.topic);
    let remark = format!("Index {from} of {id}@{topic} is not exist!");
    let to = entries.to;
    out.write(to.conn, |bytes| {
        let code = response::SUCCESS;
        FrameWriter::response(bytes, to.codec, to.opaque, code, Some(&remark)).finish(0);
    });
}

fn answer(broker: &Broker, entries: Entries, [min, max]: [QueueOffset; 2], out: &mut Outbox<Peer>) {
    let mut body = QueueEntries {
        max_queue_index: max.0 as i64,
        min_queue_index: min.0 as i64,
        queue_data: entries.found,
        ..QueueEntries::default()
    };
    if let Some(group) = entries.group {
        let members = broker.snapshot.subscriptions.get(&group);
        let wanted = members.and_then(|members| members.topics.get(&*entries.topic));
        body.filter_data = Some(match wanted {
            Some(wanted) => filter_data(&group, &entries.topic, wanted),
            None => format!("{group}@{} is not online!", entries.topic),
        });
        body.subscription_data = wanted.map(|wanted| connection::shown(&entries.topic, wanted));
    }
    succeed_with(entries.to, &json::to_vec(&body), out);
}

/// What is kept to filter by (`ConsumerFilterData`): nothing for tags.
fn filter_data(group: &str, topic: &str, wanted: &Subscription) -> String {
    let filter = (!wanted.is_tag()).then(|| {
        serde_json::json!({
            "clientVersion": wanted.version,
            "consumerGroup": group,
            "expression": wanted.expression,
            "expressionType": wanted.kind,
            "topic": topic,
        })
    });
    serde_json::json!(filter).to_string()
}
