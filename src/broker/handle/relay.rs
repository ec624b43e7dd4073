//! What an operator asks one client through the broker: GET_CONSUMER_RUNNING_INFO 307.
//!
//! Source: `AdminBrokerProcessor.callConsumer`.

use crate::base::Now;
use crate::broker::acks::ReplyTo;
use crate::broker::calls::{Silence, Wish};
use crate::broker::control::effects::Reject;
use crate::broker::handle::{Request, bad_header, reject_to};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::member::RunningInfo;
use crate::remoting::text::Text;

/// Sends the request on to the client it names.
pub fn running_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = RunningInfo::decode(&request.command.ext).map_err(bad_header)?;
    let lead = broker
        .lead
        .as_mut()
        .expect("control requests are shard 0's");
    let (group, client_id) = (header.consumer_group, header.client_id);
    let members = lead.control.members.consumers(&group);
    let Some(member) = members
        .iter()
        .find(|member| *member.client_id == *client_id)
    else {
        let remark = format!("The Consumer <{group}> <{client_id}> not online");
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    };
    if lead.calls.is_full() {
        let remark = "[OVERLOAD]system busy: too many requests to clients are open";
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    let conn = member.conn;
    let wish = Wish::Relay {
        to: request.reply_to(),
        group: group.into_owned(),
        client_id: client_id.into_owned(),
    };
    let opaque = lead.calls.begin(request.now.mono, conn, wish);
    let command = request.command;
    out.write(conn, |bytes| {
        let mut w = FrameWriter::request(bytes, Codec::Json, opaque, command.code, false);
        copy_fields(command, &mut w);
        w.finish_with_body(command.body);
    });
    Ok(())
}

/// Fields with names that no header has are left out: they might not be names at all.
fn copy_fields(command: &Command<'_>, writer: &mut FrameWriter<'_>) {
    let is_name = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    for (key, value) in command.ext.iter() {
        let key = key.to_cow();
        if is_name(&key) {
            writer.field_text(&key, value);
        }
    }
}

/// The client has answered, or will not.
pub fn answered(
    to: ReplyTo,
    group: &str,
    client_id: &str,
    answer: Result<&Command<'_>, Silence>,
    out: &mut Outbox<Peer>,
) {
    let command = match answer {
        Ok(command) => command,
        Err(silence) => {
            let (code, words) = match silence {
                Silence::TimeIsUp => (response::CONSUME_MSG_TIMEOUT, "Timeout"),
                Silence::Closed => (response::SYSTEM_ERROR, "the connection was closed"),
            };
            let remark = format!("consumer <{group}> <{client_id}> {words}");
            return reject_to(to, &Reject::new(code, remark), out);
        }
    };
    let remark = command.remark.map(Text::to_cow);
    out.write(to.conn, |bytes| {
        let remark = remark.as_deref();
        let mut w = FrameWriter::response(bytes, to.codec, to.opaque, command.code, remark);
        copy_fields(command, &mut w);
        w.finish_with_body(command.body);
    });
}

/// A call to a client is over.
pub fn ended(
    broker: &mut Broker,
    now: Now,
    wish: Wish,
    answer: Result<&Command<'_>, Silence>,
    out: &mut Outbox<Peer>,
) {
    match wish {
        Wish::Relay {
            to,
            group,
            client_id,
        } => answered(to, &group, &client_id, answer, out),
        Wish::Route { to, ask } => super::assignment::routed(broker, to, &ask, answer, out),
        Wish::Pushed(pushed) => super::reply::pushed(broker, now, *pushed, answer, out),
    }
}
