//! CONSUMER_SEND_MSG_BACK 36, and a client's own resend to `%RETRY%group`: a message that could not
//! be consumed comes again later, or becomes a dead letter.
//!
//! Source: `AbstractSendMessageProcessor.consumerSendMsgBack`, `handleRetryAndDLQ`;
//! `spec/semantics.md` §6.

use crate::base::{LogOffset, Now};
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::{DLQ_PREFIX, retry_group, retry_topic};
use crate::broker::handle::{
    Parked, Request, bad_header, make, make_group, reject_to, send, succeed,
};
use crate::broker::puts::{OwnedMessage, Purpose};
use crate::broker::topics::{config_with, perm, queues, sys_flag};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::Draft;
use crate::message::id::OffsetId;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::body::group::GroupConfig;
use crate::remoting::body::topic::TopicConfig;
use crate::remoting::code::response;
use crate::remoting::header::send::{SendBackHeader, SendHeader};
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;

/// `MQVersion` from which a consumer's own limit of retries counts (V3_4_9).
const VERSION_WITH_LIMIT: i32 = 121;
/// Level of the first retry; each further one is a level higher.
const FIRST_RETRY_LEVEL: i32 = 3;

/// A message on its way back, while it is read.
pub struct Back {
    pub(super) to: ReplyTo,
    pub(super) oneway: bool,
    group: String,
    at: LogOffset,
    delay_level: i32,
    retries_max: i32,
    retry_queues: u32,
}

pub fn back(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = SendBackHeader::decode(&request.command.ext).map_err(bad_header)?;
    let snapshot = broker.snapshot.clone();
    let Some(group) = snapshot.groups.get(&header.group) else {
        return make_group(broker, request, &header.group, out);
    };
    if broker.options.permission & perm::WRITE == 0 {
        let remark = "the broker is not writable: see brokerPermission";
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    let retry_queues = u32::try_from(group.retry_queue_nums).unwrap_or(0);
    if retry_queues == 0 {
        if !request.command.is_oneway() {
            succeed(request.reply_to(), out);
        }
        return Ok(());
    }
    let retry = retry_topic(&header.group);
    let Some(topic) = snapshot.topics.get(&retry) else {
        let config = TopicConfig {
            topic_name: retry,
            topic_sys_flag: if header.unit_mode {
                sys_flag::UNIT_SUB
            } else {
                0
            },
            ..config_with(retry_queues, perm::READ | perm::WRITE)
        };
        return make(broker, request, out, |control, effects| {
            control.ensure_topic(request.now, config, effects)
        });
    };
    if topic.config.perm & perm::WRITE == 0 {
        let remark = format!("the topic[{retry}] sending message is forbidden");
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    let failed = || Reject::new(response::SYSTEM_ERROR, "look message by offset failed");
    let (shard, at) = LogOffset::from_physical(header.offset).ok_or_else(failed)?;
    if shard.0 >= broker.options.control.shards {
        return Err(failed());
    }
    if shard != broker.me {
        broker.forward(shard, request, out);
        return Ok(());
    }
    let asked = header.max_reconsume_times;
    let back = Back {
        to: request.reply_to(),
        oneway: request.command.is_oneway(),
        group: header.group.to_string(),
        at,
        delay_level: header.delay_level,
        retries_max: retries_max(group, request.command.version, asked),
        retry_queues: retry_queues.min(queues(&topic.config)).max(1),
    };
    run(broker, request.now, back, out);
    Ok(())
}

fn retries_max(group: &GroupConfig, version: i32, asked: Option<i32>) -> i32 {
    match asked {
        Some(asked) if version >= VERSION_WITH_LIMIT => asked,
        _ => group.retry_max_times,
    }
}

/// Reads the message and stores it again, for later or among the dead letters.
pub fn run(broker: &mut Broker, now: Now, back: Back, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let reject = match broker.store.record_at(back.at, WaiterId(waiter)) {
        Fetch::Ready(record) => match RecordView::parse(&record) {
            Ok(view) => match again(broker, now, &back, &view, out) {
                Ok(()) => return,
                Err(reject) => reject,
            },
            Err(error) => Reject::new(response::SYSTEM_ERROR, error.to_string()),
        },
        Fetch::Wait => {
            broker.parked.insert(waiter, Parked::Back(back));
            return;
        }
        Fetch::Missing => Reject::new(response::SYSTEM_ERROR, "look message by offset failed"),
        Fetch::Damaged(place) => Reject::new(response::SYSTEM_ERROR, place),
        Fetch::Busy => Reject::new(response::SYSTEM_BUSY, "[OVERLOAD]system busy, try again"),
    };
    if !back.oneway {
        reject_to(back.to, &reject, out);
    }
}

fn again(
    broker: &mut Broker,
    now: Now,
    back: &Back,
    view: &RecordView<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let mut stored = view.properties().to_vec();
    if properties::find(&stored, names::RETRY_TOPIC).is_none() {
        properties::set(&mut stored, names::RETRY_TOPIC, view.topic());
    }
    if properties::find(&stored, names::ORIGIN_MESSAGE_ID).is_none() {
        let (store_host, physical_offset) = (view.store_host(), view.physical_offset());
        let id = OffsetId {
            store_host,
            physical_offset,
        }
        .to_text();
        properties::set(&mut stored, names::ORIGIN_MESSAGE_ID, id.as_str());
    }
    properties::remove(&mut stored, names::DELAY_TIME_LEVEL);
    properties::set(&mut stored, names::WAIT_STORED, "false");
    let attempts = view.reconsume_times();
    let mut message = OwnedMessage::of(&Draft {
        topic: &retry_topic(&back.group),
        queue_id: (view.queue_offset() % i64::from(back.retry_queues)) as i32,
        reconsume_times: attempts.saturating_add(1),
        prepared_transaction_offset: 0,
        properties: &stored,
        ..Draft::of(view)
    });
    let purpose = Purpose::Back {
        to: back.to,
        oneway: back.oneway,
    };
    if attempts >= back.retries_max || back.delay_level < 0 {
        dead_letter(&mut message, &back.group, "0");
        broker.request_put(now, message, 1, purpose, out);
        return Ok(());
    }
    let level = match back.delay_level {
        0 => FIRST_RETRY_LEVEL.saturating_add(attempts),
        level => level,
    };
    send::delay(broker, now, message, level.max(1) as usize, purpose, out)
}

/// `level` tells a message that was sent too often from one that was sent back.
fn dead_letter(message: &mut OwnedMessage, group: &str, level: &str) {
    message.topic = format!("{DLQ_PREFIX}{group}");
    message.queue_id = 0;
    properties::set(&mut message.properties, names::DELAY_TIME_LEVEL, level);
}

/// A client that got an error for 36 sends the message to the retry topic itself. True if that
/// made it a dead letter; otherwise it is stored as any message.
pub fn resend(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    stored: &[u8],
    out: &mut Outbox<Peer>,
) -> Result<bool, Reject> {
    let topic = header.topic.to_cow();
    let name = retry_group(&topic).expect("it is a retry topic");
    let snapshot = broker.snapshot.clone();
    let group = snapshot.groups.get(name).expect("made before");
    let limit = retries_max(group, request.command.version, header.max_reconsume_times);
    let locked = snapshot.order_locked(name, request.now.mono);
    if header.reconsume_times <= limit && !(locked && header.reconsume_times > 0) {
        return Ok(false);
    }
    let mut message = OwnedMessage {
        topic: String::new(),
        queue_id: 0,
        flag: header.flag,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        born_host: request.link.peer,
        reconsume_times: header.reconsume_times,
        prepared_offset: 0,
        body: request.command.body.to_vec(),
        properties: stored.to_vec(),
    };
    dead_letter(&mut message, name, "-1");
    let oneway = request.command.is_oneway();
    let purpose = Purpose::Send {
        to: request.reply_to(),
        oneway,
        queue_id: 0,
    };
    broker.request_put(request.now, message, 1, purpose, out);
    Ok(true)
}
