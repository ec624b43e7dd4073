//! SEND_REPLY_MESSAGE 324, SEND_REPLY_MESSAGE_V2 325: the answer to a request message goes to the
//! client that waits for it, by PUSH_REPLY_MESSAGE_TO_CLIENT 326, and into the log.
//!
//! Source: `ReplyMessageProcessor`; `spec/semantics.md` §9. As there, the answer tells whether the
//! push was taken; what is stored is only a copy.

use crate::base::{Now, ShardId};
use crate::broker::acks::ReplyTo;
use crate::broker::calls::{CALL_MS, Silence, Wish};
use crate::broker::control::effects::Reject;
use crate::broker::handle::{Request, bad_header, preset, send};
use crate::broker::puts::{OwnedMessage, Purpose, Stored};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::{names, properties};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::send::{PushReply, SendHeader};
use crate::store::Sabotage;

/// A reply on its way: first to the client that waits, then into the log.
pub struct Pushed {
    to: ReplyTo,
    oneway: bool,
    client_id: String,
    message: OwnedMessage,
}

pub fn reply(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    if broker.lead.is_none() {
        broker.forward(ShardId(0), request, out);
        return Ok(());
    }
    let ext = &request.command.ext;
    let header = match request.command.code {
        request::SEND_REPLY_MESSAGE => SendHeader::decode_long(ext),
        _ => SendHeader::decode_short(ext),
    }
    .map_err(bad_header)?;
    let name = header.topic.to_cow();
    let Some(topic) = broker.snapshot.topics.get(&name).cloned() else {
        return send::create_topic(broker, request, &header, &name, out);
    };
    send::check_body(broker, request.command.body)?;
    let queue_id = send::choose_queue(broker, &topic, header.queue_id)?;
    if broker.owner(&topic, queue_id).is_none() {
        let remark = format!("request queueId[{queue_id}] is illegal, topic {name}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let (mut given, mut stored) = (Vec::new(), Vec::new());
    header.properties.append_to(&mut given);
    send::take_properties(broker, &name, &given, request.now, &mut stored)?;
    let message = OwnedMessage {
        topic: name.into_owned(),
        queue_id,
        flag: header.flag,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        born_host: request.link.peer,
        reconsume_times: header.reconsume_times,
        prepared_offset: 0,
        body: request.command.body.to_vec(),
        properties: stored,
    };
    let client_id = properties::find(&given, names::REPLY_TO_CLIENT);
    let client_id = client_id.map(|id| String::from_utf8_lossy(id).into_owned());
    let pushed = Pushed {
        to: request.reply_to(),
        oneway: request.command.is_oneway(),
        client_id: client_id.unwrap_or_default(),
        message,
    };
    push(broker, request.now, &header, given, pushed, out);
    Ok(())
}

fn push(
    broker: &mut Broker,
    now: Now,
    header: &SendHeader<'_>,
    mut given: Vec<u8>,
    pushed: Pushed,
    out: &mut Outbox<Peer>,
) {
    let lead = broker.lead.as_mut().expect("checked by the caller");
    let to = match broker.options.store.sabotage {
        Sabotage::ReplyToSender => Some(pushed.to.conn),
        _ => lead.control.members.producer_conn(&pushed.client_id),
    };
    let trouble = match to {
        _ if pushed.client_id.is_empty() => {
            let name = names::REPLY_TO_CLIENT;
            Some(format!("reply message properties[{name}] is null"))
        }
        None => {
            let id = &pushed.client_id;
            Some(format!(
                "push reply message fail, channel of <{id}> not found."
            ))
        }
        Some(_) if lead.calls.is_full() => {
            Some("push reply message fail, too many are under way, try again".to_owned())
        }
        Some(_) => None,
    };
    let conn = match (to, trouble) {
        (Some(conn), None) => conn,
        (_, trouble) => return store(broker, now, pushed, trouble, out),
    };
    properties::set(&mut given, names::PUSH_REPLY_TIME, &now.wall_ms.to_string());
    let frame = PushReply {
        send: *header,
        properties: &given,
        born_host: pushed.message.born_host.to_string(),
        store_host: broker.options.store_host.to_string(),
        store_timestamp: now.wall_ms,
    };
    let body = pushed.message.body.clone();
    let opaque = lead
        .calls
        .begin(now.mono, CALL_MS, conn, Wish::Pushed(Box::new(pushed)));
    out.write(conn, |bytes| {
        let code = request::PUSH_REPLY_MESSAGE_TO_CLIENT;
        let mut w = FrameWriter::request(bytes, Codec::Json, opaque, code, false);
        frame.encode(&mut w);
        w.finish_with_body(&body);
    });
}

/// The client has answered the push, or will not.
pub fn pushed(
    broker: &mut Broker,
    now: Now,
    pushed: Pushed,
    answer: Result<&Command<'_>, Silence>,
    out: &mut Outbox<Peer>,
) {
    let taken = answer.is_ok_and(|command| command.code == response::SUCCESS);
    let trouble = (!taken).then(|| format!("push reply message to {}fail.", pushed.client_id));
    store(broker, now, pushed, trouble, out);
}

/// Keeps the reply, and then tells whoever sent it.
fn store(
    broker: &mut Broker,
    now: Now,
    pushed: Pushed,
    trouble: Option<String>,
    out: &mut Outbox<Peer>,
) {
    let Pushed {
        to,
        oneway,
        message,
        ..
    } = pushed;
    let purpose = Purpose::Reply {
        to,
        oneway,
        queue_id: message.queue_id,
        trouble,
    };
    broker.request_put(now, message, 0, purpose, out);
}

/// The reply is stored, or could not be: the answer says where. Whether it was pushed is what
/// counts.
pub fn stored(
    broker: &mut Broker,
    to: ReplyTo,
    queue_id: i32,
    trouble: Option<String>,
    result: &Result<Stored, Reject>,
    out: &mut Outbox<Peer>,
) {
    let code = match trouble {
        None => response::SUCCESS,
        Some(_) => response::SYSTEM_ERROR,
    };
    let remark = trouble.as_deref();
    match result {
        Ok(stored) => send::answer_stored(broker, to, queue_id, stored, (code, remark), out),
        Err(_) => out.write(to.conn, |bytes| {
            let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
            preset(&broker.options, request::SEND_REPLY_MESSAGE, &mut w);
            w.field_str("msgId", "0");
            w.field_i64("queueId", i64::from(queue_id));
            w.field_i64("queueOffset", 0);
            w.finish(0);
        }),
    }
}
