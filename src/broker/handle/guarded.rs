//! Sends to topics with `dedup.window`: one message per unique key and window, however often its
//! producer tries.
//!
//! A send goes to the shard that looks after its key ([`guard::home`]), which has it stored where
//! its queue is. Who sends the same key again is told where the first message lies, once that is
//! safe. Not in RocketMQ.

use crate::base::{LogOffset, Now};
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::Reject;
use crate::broker::guard::{self, Place, Verdict};
use crate::broker::handle::key::KeyQuery;
use crate::broker::handle::{Request, reject_to, send};
use crate::broker::puts::{OwnedMessage, Purpose, Stored};
use crate::broker::survey::{self, Asker, Question, Row};
use crate::broker::topics::Topic;
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::response;
use crate::remoting::header::send::SendHeader;
use std::sync::Arc;

/// The first send of a key within its window.
pub struct First {
    topic: u64,
    key: String,
    window_ms: i64,
    pub queue_id: i32,
    to: Option<ReplyTo>,
}

/// One that is stored if nothing with its key was stored before the broker started.
pub struct Sent {
    first: First,
    message: OwnedMessage,
}

/// False if the message has no unique key, and so nothing to tell a second try by.
pub fn send(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &Arc<Topic>,
    queue_id: i32,
    window_ms: i64,
    out: &mut Outbox<Peer>,
) -> Result<bool, Reject> {
    if header.batch {
        return Err(refused(topic, "batches"));
    }
    let (mut given, mut stored) = (Vec::new(), Vec::new());
    header.properties.append_to(&mut given);
    let key = properties::find_str(&given, names::UNIQUE_KEY).filter(|key| !key.is_empty());
    let Some(key) = key.map(str::to_owned) else {
        return Ok(false);
    };
    if key.len() > guard::KEY_BYTES_MAX {
        return Err(too_long(topic, key.len()));
    }
    let home = guard::home(&topic.name, &key, broker.options.control.shards);
    if home != broker.me {
        broker.forward(home, request, out);
        return Ok(true);
    }
    let now = request.now;
    let traits = send::take_properties(broker, &topic.name, &given, now, &mut stored)?;
    if traits.is_deferred() {
        return Err(refused(topic, "delayed and transaction messages"));
    }
    let queue_id = traits.queue(topic, queue_id, &mut stored);
    let draft = send::draft(broker, request, header, send::of(topic), queue_id, &stored);
    draft
        .check()
        .map_err(|error| Reject::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
    let to = (!request.command.is_oneway()).then(|| request.reply_to());
    match broker.guard.sent(topic.id, &key, to, now.wall_ms) {
        Verdict::First => {
            let first = First {
                topic: topic.id,
                key,
                window_ms,
                queue_id,
                to,
            };
            let message = OwnedMessage::of(&draft);
            begin(broker, now, topic, Sent { first, message }, out);
        }
        Verdict::Waits => {}
        Verdict::Again(place) => {
            to.into_iter().for_each(|to| tell(broker, to, &place, out));
        }
        Verdict::Doubtful => return Err(doubtful(topic)),
        Verdict::Full => return Err(full(topic)),
    }
    Ok(true)
}

fn refused(topic: &Topic, what: &str) -> Reject {
    let remark = format!(
        "topic {} has dedup.window, which does not go with {what}: send single messages, or \
         another topic",
        topic.name
    );
    Reject::new(response::MESSAGE_ILLEGAL, remark)
}

fn too_long(topic: &Topic, bytes: usize) -> Reject {
    let (name, limit) = (&topic.name, guard::KEY_BYTES_MAX);
    let remark = format!(
        "UNIQ_KEY has {bytes} bytes, topic {name} has dedup.window, which remembers keys of at \
         most {limit}"
    );
    Reject::new(response::MESSAGE_ILLEGAL, remark)
}

fn doubtful(topic: &Topic) -> Reject {
    let remark = format!(
        "the disk failed while the first message with this key was being stored to topic {}: \
         whether it was is known after a restart of the broker. Mend the disk and restart it",
        topic.name
    );
    Reject::new(response::SERVICE_NOT_AVAILABLE, remark)
}

fn full(topic: &Topic) -> Reject {
    let (keys, waiters) = (guard::KEYS_MAX, guard::WAITERS_MAX);
    let remark = format!(
        "[REJECTREQUEST]the duplicate guard of this shard remembers {keys} keys and {waiters} \
         second tries of one: try again later, or shorten dedup.window of topic {}",
        topic.name
    );
    Reject::new(response::SYSTEM_BUSY, remark)
}

fn tell(broker: &mut Broker, to: ReplyTo, place: &Place, out: &mut Outbox<Peer>) {
    let success = (response::SUCCESS, None);
    send::answer_stored(broker, to, place.queue_id, &place.stored, success, out);
}

/// Has it stored, once it is known that it was not before the start.
fn begin(broker: &mut Broker, now: Now, topic: &Topic, sent: Sent, out: &mut Outbox<Peer>) {
    let (key, window_ms) = (sent.first.key.clone(), sent.first.window_ms);
    if !broker.guard.is_young(now.wall_ms, window_ms) {
        return store(broker, now, sent, out);
    }
    if let Err(reject) = survey::check(broker) {
        return ended(broker, now, sent.first, Err(reject), out);
    }
    let from_ms = now.wall_ms.saturating_sub(window_ms);
    let query = KeyQuery::one(&topic.name, key, from_ms, now.wall_ms);
    let sent = Box::new(sent);
    survey::begin(
        broker,
        now,
        Asker::Guard(sent),
        Question::Messages(query),
        out,
    );
}

fn store(broker: &mut Broker, now: Now, sent: Sent, out: &mut Outbox<Peer>) {
    let purpose = Purpose::Guarded(Box::new(sent.first));
    broker.request_put(now, sent.message, 0, purpose, out);
}

/// What all shards know of the key.
pub fn found(broker: &mut Broker, now: Now, sent: Sent, rows: &[Row], out: &mut Outbox<Peer>) {
    let earlier = rows.iter().find_map(place_of);
    let refused = rows.iter().find_map(|row| match row {
        Row::Refused(reject) => Some(reject.clone()),
        _ => None,
    });
    match (earlier, refused) {
        (Some(place), _) => {
            ended(broker, now, sent.first, Ok(place), out);
        }
        (None, Some(reject)) => ended(broker, now, sent.first, Err(reject), out),
        (None, None) => store(broker, now, sent, out),
    }
}

fn place_of(row: &Row) -> Option<Place> {
    let Row::Message { physical, record } = row else {
        return None;
    };
    let (shard, at) = LogOffset::from_physical(*physical)?;
    let view = RecordView::parse(record).ok()?;
    let offset = u64::try_from(view.queue_offset()).ok()?;
    let stored = Stored { at, shard, offset };
    let queue_id = view.queue_id();
    Some(Place { stored, queue_id })
}

/// The first message of a key is safe, or was refused: everybody who waits is told.
pub fn ended(
    broker: &mut Broker,
    now: Now,
    first: First,
    result: Result<Place, Reject>,
    out: &mut Outbox<Peer>,
) {
    let waiting = match &result {
        Ok(place) => {
            let until_ms = now.wall_ms.saturating_add(first.window_ms);
            let (topic, key) = (first.topic, &first.key);
            broker.guard.stored(topic, key, *place, until_ms)
        }
        Err(reject) => broker
            .guard
            .failed(first.topic, &first.key, reject.doubtful),
    };
    for to in first.to.into_iter().chain(waiting) {
        match &result {
            Ok(place) => tell(broker, to, place, out),
            Err(reject) => reject_to(to, reject, out),
        }
    }
}
