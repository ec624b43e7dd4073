//! SEND_MESSAGE 10, SEND_MESSAGE_V2 310, SEND_BATCH_MESSAGE 320.
//!
//! One pass over the properties, one over the body, an answer when the log confirms. Checks and
//! their codes are those of `SendMessageProcessor` and `AbstractSendMessageProcessor`
//! (`spec/semantics.md` §2).

use crate::base::Now;
use crate::broker::acks::{Ack, More, ReplyTo, SendAck};
use crate::broker::control::create::SendTopic;
use crate::broker::control::effects::Reject;
use crate::broker::control::names::{self as topic_names, RETRY_PREFIX};
use crate::broker::handle::forms::Forms;
use crate::broker::handle::traits::{Fate, Traits, number};
use crate::broker::handle::{Request, bad_header, guarded, make, make_group};
use crate::broker::light;
use crate::broker::puts::{OwnedMessage, Purpose, Stored};
use crate::broker::routes::Route;
use crate::broker::topics::{self, Topic};
use crate::broker::{Broker, BrokerOptions, Peer};
use crate::machine::Outbox;
use crate::message::batch::{self, SubMessage};
use crate::message::encode::{Draft, encoded_len};
use crate::message::layout::{PROPERTIES_BYTES_MAX, sys_flag};
use crate::message::names;
use crate::message::properties;
use crate::remoting::body::topic::TopicFilterType;
use crate::remoting::code::{request, response};
use crate::remoting::frame;
use crate::remoting::header::send::SendHeader;
use crate::remoting::text::Text;
use crate::store::consumequeue::QueueSlot;
use crate::store::dispatch::Dispatch;
use std::sync::Arc;

/// Milliseconds of a month of 31 days: unique keys count time inside it.
const MONTH_MS: i64 = 31 * 24 * 3600 * 1000;
/// Sub-messages of one batch.
const BATCH_MAX: usize = 100_000;

/// Memory for the properties of one send, used again for the next.
#[derive(Default)]
pub struct Scratch {
    /// As the client gave them, without the escapes of its header.
    given: Vec<u8>,
    /// As they are stored.
    stored: Vec<u8>,
    forms: Forms,
}

/// The header of a send that looks like none before.
pub fn header<'a>(broker: &mut Broker, request: &Request<'a>) -> Result<SendHeader<'a>, Reject> {
    let ext = &request.command.ext;
    let header = match request.command.code {
        request::SEND_MESSAGE => SendHeader::decode_long(ext),
        _ => SendHeader::decode_short(ext),
    }
    .map_err(bad_header)?;
    if let Ok(frame) = frame::split(request.raw.bytes()) {
        broker.shapes.learn(frame);
    }
    Ok(header)
}

pub fn send(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let name = header.topic.to_cow();
    match broker.routes.get(&name, header.queue_id) {
        Some(Route::There(owner)) => {
            broker.forward(owner, request, out);
            return Ok(());
        }
        Some(Route::Here { slot, topic_id })
            if !header.batch && is_still(broker, slot, topic_id, header.queue_id) =>
        {
            check_body(broker, request.command.body)?;
            return send_known(broker, request, header, &name, slot, out);
        }
        _ => {}
    }
    let Some(topic) = broker.snapshot.topics.get(&name).cloned() else {
        return create_topic(broker, request, header, &name, out);
    };
    if topic_names::refuses_sends(&name) {
        let remark = format!("Sending message to topic[{name}] is forbidden.");
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    if let Some(group) = topic_names::retry_group(&name)
        && !header.batch
        && broker.snapshot.groups.get(group).is_none()
    {
        return make_group(broker, request, group, out);
    }
    let queue_id = choose_queue(broker, &topic, header.queue_id)?;
    let Some(owner) = broker.owner(&topic, queue_id) else {
        let limit = topics::queues(&topic.config);
        let remark = format!("request queueId[{queue_id}] is illegal, topic {name} has {limit}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    };
    check_body(broker, request.command.body)?;
    if let Some(window_ms) = topic.dedup_window_ms()
        && guarded::send(broker, request, header, &topic, queue_id, window_ms, out)?
    {
        return Ok(());
    }
    if owner != broker.me {
        if topic.dedup_window_ms().is_none() {
            // The owner looks at all the rest itself.
            broker.routes.put(&name, queue_id, Route::There(owner));
        }
        broker.forward(owner, request, out);
        return Ok(());
    }
    if header.batch {
        return send_batch(broker, request, header, &topic, queue_id);
    }
    send_one(broker, request, header, &topic, queue_id, out)
}

/// Whether the slot is still that queue's.
#[inline]
fn is_still(broker: &Broker, slot: QueueSlot, topic_id: u64, queue_id: i32) -> bool {
    let queue = broker.store.queues().queue(slot);
    queue.is_some_and(|queue| queue.topic_id == topic_id && queue.queue_id == queue_id)
}

pub(super) fn check_body(broker: &Broker, body: &[u8]) -> Result<(), Reject> {
    let limit = broker.options.body_bytes_max;
    if body.is_empty() {
        let remark = "the message has no body: a message needs at least one byte";
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    if body.len() > limit {
        let len = body.len();
        let remark = format!("the message body has {len} bytes, maxMessageSize is {limit}");
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    Ok(())
}

/// An unknown topic is made.
pub(super) fn create_topic(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &str,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let wish = SendTopic {
        topic,
        default_topic: &header.default_topic.to_cow(),
        default_queues: header.default_topic_queue_nums,
        unit_mode: header.unit_mode,
    };
    make(broker, request, out, |control, effects| {
        control.ensure_send_topic(request.now, &wish, effects)
    })
}

/// A send without a queue gets one in turn; one of this shard if it has any.
pub(super) fn choose_queue(broker: &mut Broker, topic: &Topic, asked: i32) -> Result<i32, Reject> {
    if asked >= 0 {
        return Ok(asked);
    }
    let writable = u32::try_from(topic.config.write_queue_nums).unwrap_or(0);
    if writable == 0 {
        let remark = format!("the topic[{}] has no writable queue", topic.name);
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    broker.turn = broker.turn.wrapping_add(1);
    let candidates = (0..writable).map(|n| (n.wrapping_add(broker.turn)) % writable);
    let mine = candidates
        .clone()
        .find(|queue| topic.owner(*queue) == Some(broker.me));
    Ok(mine.unwrap_or(broker.turn % writable) as i32)
}

fn send_one(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &Arc<Topic>,
    queue_id: i32,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    with_properties(
        broker,
        request,
        header,
        &topic.name,
        |broker, traits, stored| {
            store_one(
                broker, request, header, topic, queue_id, &traits, stored, out,
            )
        },
    )
}

/// The short way for what is like the message before it.
fn send_known(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    name: &str,
    slot: QueueSlot,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let queue_id = header.queue_id;
    with_properties(broker, request, header, name, |broker, traits, stored| {
        if traits.is_plain() {
            let draft = draft(broker, request, header, (name, false), queue_id, stored);
            return append_one(broker, request, &draft, slot, &traits.dispatch);
        }
        let topic = broker.snapshot.topics.get(name).cloned();
        let topic = topic.expect("what is known is of this snapshot");
        store_one(
            broker, request, header, &topic, queue_id, &traits, stored, out,
        )
    })
}

/// Does something with the properties of a message as they are to be stored.
fn with_properties(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &str,
    store: impl FnOnce(&mut Broker, Traits, &mut Vec<u8>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    let mut scratch = std::mem::take(&mut broker.scratch);
    let known = scratch
        .forms
        .take(topic, header.properties, &mut scratch.stored);
    let taken = match known {
        Some(traits) => check_properties(&scratch.stored).map(|()| traits),
        None => take_and_learn(broker, topic, header.properties, request.now, &mut scratch),
    };
    let result = taken.and_then(|traits| store(broker, traits, &mut scratch.stored));
    broker.scratch = scratch;
    result
}

/// Takes properties that look like none before.
#[inline(never)]
fn take_and_learn(
    broker: &mut Broker,
    topic: &str,
    properties: Text<'_>,
    now: Now,
    scratch: &mut Scratch,
) -> Result<Traits, Reject> {
    scratch.given.clear();
    scratch.stored.clear();
    let given = match properties.as_plain_bytes() {
        Some(plain) => plain,
        None => {
            properties.append_to(&mut scratch.given);
            &scratch.given
        }
    };
    let traits = take_properties(broker, topic, given, now, &mut scratch.stored)?;
    if traits.has_key && traits.is_plain() {
        let is_free = |name: &[u8], value: &[u8]| {
            Traits::default().note(name, value, broker.options.light) == Fate::Stored
        };
        scratch
            .forms
            .learn(properties, &scratch.stored, &traits, is_free);
    }
    Ok(traits)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one message, on the hot path"
)]
fn store_one(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &Arc<Topic>,
    queue_id: i32,
    traits: &Traits,
    properties: &mut Vec<u8>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let queue_id = traits.queue(topic, queue_id, properties);
    check_traits(broker, traits)?;
    let is_retry = topic.name.starts_with(RETRY_PREFIX);
    if is_retry && super::back::resend(broker, request, header, properties, out)? {
        return Ok(());
    }
    let draft = draft(broker, request, header, of(topic), queue_id, properties);
    if traits.transaction && !(header.reconsume_times > 0 && traits.delay_level > 0) {
        return super::transaction::prepare(broker, request, &draft, queue_id);
    }
    let purpose = || Purpose::Send {
        to: request.reply_to(),
        oneway: request.command.is_oneway(),
        queue_id,
    };
    if traits.delay_level > 0 {
        let level = traits.delay_level;
        let message = OwnedMessage::of(&draft);
        return delay(broker, request.now, message, level, purpose(), out);
    }
    if traits.priority.is_some() && broker.owner(topic, queue_id) != Some(broker.me) {
        let message = OwnedMessage::of(&draft);
        broker.request_put(request.now, message, 0, purpose(), out);
        return Ok(());
    }
    if traits.timer && super::timer::store(broker, request, &draft, queue_id)? {
        return Ok(());
    }
    if traits.light {
        return send_light(broker, request, &draft, out);
    }
    let slot = broker
        .store
        .open_queue(request.now, &topic.name, topic.id, queue_id)
        .map_err(|refused| broker.refuse(refused))?;
    append_one(broker, request, &draft, slot, &traits.dispatch)?;
    let is_plain = traits.is_plain() && !is_retry && topic.dedup_window_ms().is_none();
    if is_plain && !of(topic).1 {
        let topic_id = topic.id;
        let route = Route::Here { slot, topic_id };
        broker.routes.put(&topic.name, queue_id, route);
    }
    Ok(())
}

fn append_one(
    broker: &mut Broker,
    request: &Request<'_>,
    draft: &Draft<'_>,
    slot: QueueSlot,
    dispatch: &Dispatch,
) -> Result<(), Reject> {
    draft
        .check()
        .map_err(|error| Reject::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
    let checked = broker.store.check_message();
    checked.map_err(|refused| broker.refuse(refused))?;
    debug_assert_eq!(*dispatch, Dispatch::of(draft.topic, draft.properties));
    let appended = broker.store.append(request.now, slot, draft, dispatch);
    broker.stats.put(1, request.command.body.len());
    if !request.command.is_oneway() {
        let due = request.now.mono.after_ms(broker.options.flush_timeout_ms);
        broker.acks.push(
            appended.end,
            Ack::Send(SendAck {
                to: request.reply_to(),
                queue_id: draft.queue_id,
                offset: appended.offset.0,
                at: appended.at,
                more: None,
                due,
            }),
        );
    }
    Ok(())
}

/// A message that goes to light queues as well. Lite topics choose the queue: one that lives where
/// they do.
fn send_light(
    broker: &mut Broker,
    request: &Request<'_>,
    draft: &Draft<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let mut message = OwnedMessage::of(draft);
    let lite = properties::find_str(draft.properties, names::LITE_TOPIC);
    let topic = broker.snapshot.topics.get(draft.topic);
    if lite.is_some()
        && let Some(topic) = topic
        && topic.owner(0) != Some(broker.me)
    {
        message.queue_id = 0;
    }
    let purpose = Purpose::Send {
        to: request.reply_to(),
        oneway: request.command.is_oneway(),
        queue_id: message.queue_id,
    };
    broker.request_put(request.now, message, 0, purpose, out);
    Ok(())
}

fn check_traits(broker: &Broker, traits: &Traits) -> Result<(), Reject> {
    if traits.transaction && broker.options.reject_transactions {
        let remark = "sending transaction message is forbidden: see rejectTransactionMessage";
        return Err(Reject::new(response::NO_PERMISSION, remark));
    }
    Ok(())
}

/// What a draft takes from its topic: the name, and whether messages have several tags.
pub(super) fn of(topic: &Topic) -> (&str, bool) {
    let multi = topic.config.topic_filter_type == TopicFilterType::MultiTag;
    (&topic.name, multi)
}

pub(super) fn draft<'a>(
    broker: &Broker,
    request: &Request<'a>,
    header: &SendHeader<'_>,
    (topic, multi): (&'a str, bool),
    queue_id: i32,
    properties: &'a [u8],
) -> Draft<'a> {
    let sys_flag = header.sys_flag | if multi { sys_flag::MULTI_TAGS } else { 0 };
    Draft {
        topic,
        queue_id,
        flag: header.flag,
        sys_flag: sys_flag & !sys_flag::TRANSACTION_MASK,
        born_timestamp: header.born_timestamp,
        born_host: request.link.peer,
        store_host: broker.options.store_host,
        reconsume_times: header.reconsume_times,
        prepared_transaction_offset: 0,
        body: request.command.body,
        properties,
    }
}

/// Stores a message to be delivered later: under the schedule topic, with its real topic and queue
/// in the properties.
pub(super) fn delay(
    broker: &mut Broker,
    now: Now,
    mut message: OwnedMessage,
    level: usize,
    purpose: Purpose,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let levels = broker.delays.levels();
    let level = level.clamp(1, levels);
    let queue = message.queue_id.to_string();
    properties::set(
        &mut message.properties,
        names::DELAY_TIME_LEVEL,
        &level.to_string(),
    );
    properties::set(&mut message.properties, names::REAL_TOPIC, &message.topic);
    properties::set(&mut message.properties, names::REAL_QUEUE_ID, &queue);
    check_properties(&message.properties)?;
    message.topic = topic_names::SCHEDULE_TOPIC.to_owned();
    message.queue_id = level as i32 - 1;
    broker.request_put(now, message, 0, purpose, out);
    Ok(())
}

fn check_properties(properties: &[u8]) -> Result<(), Reject> {
    let len = properties.len();
    if len > PROPERTIES_BYTES_MAX {
        let remark = format!(
            "the message properties have {len} bytes with those the broker adds, the limit is \
             {PROPERTIES_BYTES_MAX}"
        );
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    Ok(())
}

/// The properties that every message gets, as they are stored.
pub fn stamp(options: &BrokerOptions) -> Box<[u8]> {
    let mut stamp = Vec::new();
    let traced = if options.trace_on { "true" } else { "false" };
    properties::append(&mut stamp, names::MSG_REGION, &options.region);
    properties::append(&mut stamp, names::TRACE_ON, traced);
    properties::append(&mut stamp, names::CLUSTER, &options.control.cluster);
    stamp.into()
}

/// Copies the properties that a send was given to `stored` as they are to be kept: without those
/// that are not stored, with those the broker adds.
pub(super) fn take_properties(
    broker: &mut Broker,
    topic: &str,
    given: &[u8],
    now: Now,
    stored: &mut Vec<u8>,
) -> Result<Traits, Reject> {
    let mut traits = Traits::of(topic, given, broker.options.light, stored);
    stored.extend_from_slice(&broker.stamp);
    if !traits.has_key {
        broker.keys_made = broker.keys_made.wrapping_add(1);
        let month_ms = now.wall_ms.rem_euclid(MONTH_MS) as u32;
        let key = broker.unique_keys.key(month_ms, broker.keys_made);
        properties::append(stored, names::UNIQUE_KEY, key.as_str());
        let name = names::UNIQUE_KEY.as_bytes();
        traits
            .dispatch
            .property(topic, name, key.as_str().as_bytes());
    }
    let lite = traits
        .lite
        .then(|| properties::find_str(given, names::LITE_TOPIC));
    if let Some(lite) = lite.flatten() {
        let queue = light::lite_queue(topic, lite);
        properties::set(stored, names::INNER_MULTI_DISPATCH, &queue);
        traits.light = true;
    }
    // A delay level wins over timer properties, as in the reference.
    traits.timer &= traits.delay_level == 0;
    check_properties(stored)?;
    Ok(traits)
}

/// A batch: every sub-message a record of its own, all in one group commit and side by side in
/// their queue.
fn send_batch<'a>(
    broker: &mut Broker,
    request: &Request<'a>,
    header: &SendHeader<'_>,
    topic: &'a Arc<Topic>,
    queue_id: i32,
) -> Result<(), Reject> {
    if topic.name.starts_with(RETRY_PREFIX) {
        let remark = format!("a batch cannot go to the retry topic {}", topic.name);
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    let body = request.command.body;
    let messages = sub_messages(body, &topic.name, broker.options.light)?;
    let slot = broker
        .store
        .open_queue(request.now, &topic.name, topic.id, queue_id)
        .and_then(|slot| broker.store.check_message().map(|()| slot))
        .map_err(|refused| broker.refuse(refused))?;
    let base = draft(broker, request, header, of(topic), queue_id, &[]);
    let draft = |message: &SubMessage<'a>| Draft {
        flag: message.flag,
        body: message.body,
        properties: message.properties,
        ..base
    };
    let drafts = messages.iter().map(|(message, _)| draft(message));
    reserve(broker, drafts.map(|draft| encoded_len(&draft)).sum())?;
    let mut appended = messages.iter().map(|(message, dispatch)| {
        debug_assert_eq!(*dispatch, Dispatch::of(&topic.name, message.properties));
        let draft = draft(message);
        broker.store.append(request.now, slot, &draft, dispatch)
    });
    let first = appended.next().expect("a batch has messages");
    let (mut end, mut others) = (first.end, Vec::with_capacity(messages.len() - 1));
    for appended in appended {
        end = appended.end;
        others.push(appended.at);
    }
    broker.store.queues_mut().count_as_one(slot, messages.len());
    broker.stats.put(messages.len(), body.len());
    if !request.command.is_oneway() {
        let due = request.now.mono.after_ms(broker.options.flush_timeout_ms);
        let ack = SendAck {
            to: request.reply_to(),
            queue_id,
            offset: first.offset.0,
            at: first.at,
            more: (!others.is_empty()).then(|| Box::new(More::Batch(others))),
            due,
        };
        broker.acks.push(end, Ack::Send(ack));
    }
    Ok(())
}

/// Makes room for the `bytes` of a batch at once.
fn reserve(broker: &mut Broker, bytes: usize) -> Result<(), Reject> {
    let limit = broker.store.reserve_limit();
    if bytes > limit {
        let remark = format!(
            "the batch takes {bytes} bytes to store, the limit is {limit}: send fewer messages"
        );
        return Err(Reject::new(response::MESSAGE_ILLEGAL, remark));
    }
    broker.store.reserve(bytes);
    Ok(())
}

/// The messages of a batch, each checked. `light`: whether there are light queues.
fn sub_messages<'a>(
    body: &'a [u8],
    topic: &str,
    light: bool,
) -> Result<Vec<(SubMessage<'a>, Dispatch)>, Reject> {
    let illegal = |remark: String| Reject::new(response::MESSAGE_ILLEGAL, remark);
    let mut messages = Vec::new();
    for message in batch::iter(body) {
        let message = message.map_err(|error| illegal(error.to_string()))?;
        if messages.len() == BATCH_MAX {
            return Err(illegal(format!("a batch has at most {BATCH_MAX} messages")));
        }
        if message.body.is_empty() {
            return Err(illegal("a message of the batch has no body".to_owned()));
        }
        check_properties(message.properties)?;
        let mut dispatch = Dispatch::default();
        for (name, value) in properties::iter(message.properties) {
            if let Some(what) = forbids_batch(name, value, light) {
                return Err(illegal(format!("a batch has no {what}")));
            }
            dispatch.property(topic, name, value);
        }
        messages.push((message, dispatch));
    }
    if messages.is_empty() {
        return Err(illegal("the batch has no messages".to_owned()));
    }
    Ok(messages)
}

/// What a message with this property is that must be sent alone.
fn forbids_batch(name: &[u8], value: &[u8], light: bool) -> Option<&'static str> {
    let forbids = match name {
        b"DELAY" => number(value) > 0,
        b"TRAN_MSG" => value.eq_ignore_ascii_case(b"true"),
        b"INNER_MULTI_DISPATCH" | b"__LITE_TOPIC" if light => {
            return Some("messages for light queues or lite topics");
        }
        _ => false,
    };
    forbids.then_some("delayed or transaction messages")
}

/// Answers a send whose message was stored by another shard or for later.
pub fn answer_stored(
    broker: &mut Broker,
    to: ReplyTo,
    queue_id: i32,
    stored: &Stored,
    (code, remark): (i32, Option<&str>),
    out: &mut Outbox<Peer>,
) {
    let (offset, at, due) = (stored.offset, stored.at, Default::default());
    let ack = SendAck {
        to,
        queue_id,
        offset,
        at,
        more: None,
        due,
    };
    broker.answer_send_from(stored.shard, &ack, code, remark, out);
}
