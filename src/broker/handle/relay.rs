//! What an operator asks clients through the broker: how one is 307, that it consumes a message now
//! 309, and where members of a group stand 223.
//!
//! Source: `AdminBrokerProcessor.callConsumer`, `AdminBrokerProcessor.consumeMessageDirectly`,
//! `Broker2Client.getConsumeStatus`.

use crate::base::{ConnId, LogOffset, Now};
use crate::broker::acks::ReplyTo;
use crate::broker::calls::{CALL_MS, Silence, Wish};
use crate::broker::control::effects::Reject;
use crate::broker::handle::view::not_found;
use crate::broker::handle::{Request, bad_header, disk_busy, reject_to, succeed_with};
use crate::broker::survey::{self, Question, Row};
use crate::broker::{Broker, Lead, Peer};
use crate::machine::Outbox;
use crate::message::id::OffsetId;
use crate::remoting::body::client::{ClientStatus, ConsumerStatuses};
use crate::remoting::body::json;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::member::{ConsumeDirectly, ConsumerStatus, RunningInfo};
use crate::remoting::text::Text;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;

/// How long one member may take to say where it stands, ms.
const STATUS_MS: u64 = 5_000;
/// Queues in one answer about members.
const STATUS_QUEUES_MAX: usize = 65_536;

type Fields = Vec<(String, String)>;

/// Sends the request on to the client it names.
pub fn running_info(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = RunningInfo::decode(&request.command.ext).map_err(bad_header)?;
    let command = request.command;
    let wanted = Wanted {
        code: command.code,
        group: header.consumer_group.into_owned(),
        client_id: header.client_id.into_owned(),
        fields: fields(command),
    };
    call(
        broker,
        request.now,
        request.reply_to(),
        &wanted,
        command.body,
        out,
    )
}

/// What goes to which client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    code: i32,
    group: String,
    client_id: String,
    fields: Fields,
}

fn online(lead: &Lead, wanted: &Wanted) -> Result<ConnId, Reject> {
    let (group, client_id) = (&wanted.group, &wanted.client_id);
    let members = lead.control.members.consumers(group);
    let member = members
        .iter()
        .find(|member| *member.client_id == **client_id);
    member.map(|member| member.conn).ok_or_else(|| {
        let remark = format!("The Consumer <{group}> <{client_id}> not online");
        Reject::new(response::SYSTEM_ERROR, remark)
    })
}

fn check_room(lead: &Lead) -> Result<(), Reject> {
    if lead.calls.is_full() {
        let remark = "[OVERLOAD]system busy: too many requests to clients are open";
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    Ok(())
}

fn call(
    broker: &mut Broker,
    now: Now,
    to: ReplyTo,
    wanted: &Wanted,
    body: &[u8],
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let lead = broker.lead();
    let conn = online(lead, wanted)?;
    check_room(lead)?;
    let wish = Wish::Relay {
        to,
        group: wanted.group.clone(),
        client_id: wanted.client_id.clone(),
    };
    let opaque = lead.calls.begin(now.mono, CALL_MS, conn, wish);
    ask_client(conn, opaque, wanted.code, &wanted.fields, body, out);
    Ok(())
}

fn ask_client(
    conn: ConnId,
    opaque: i32,
    code: i32,
    fields: &Fields,
    body: &[u8],
    out: &mut Outbox<Peer>,
) {
    out.write(conn, |bytes| {
        let mut w = FrameWriter::request(bytes, Codec::Json, opaque, code, false);
        for (key, value) in fields {
            w.field_str(key, value);
        }
        w.finish_with_body(body);
    });
}

/// Fields with names that no header has are left out: they might not be names at all.
fn fields(command: &Command<'_>) -> Fields {
    let is_name = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let fields = command.ext.iter();
    let fields =
        fields.map(|(key, value)| (key.to_cow().into_owned(), value.to_cow().into_owned()));
    fields.filter(|(key, _)| is_name(key)).collect()
}

/// CONSUME_MESSAGE_DIRECTLY 309: a message, and the client that is to consume it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Direct {
    physical: i64,
    wanted: Wanted,
}

/// The shard that holds the message is asked for it first.
pub fn consume_directly(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ConsumeDirectly::decode(&request.command.ext).map_err(bad_header)?;
    let Some(id) = OffsetId::parse(&header.msg_id) else {
        let id = &header.msg_id;
        let remark = format!("msgId[{id}] is not the id that a broker gave (offsetMsgId)");
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    };
    let mut fields = fields(request.command);
    let mut set = |name: &str, value: String| {
        fields.retain(|(key, _)| key != name);
        fields.push((name.to_owned(), value));
    };
    let snapshot = &broker.snapshot;
    set("brokerName", broker.options.control.broker_name.clone());
    let topic = header
        .topic
        .as_deref()
        .and_then(|name| snapshot.topics.get(name));
    if let Some(topic) = topic {
        set("topicSysFlag", topic.config.topic_sys_flag.to_string());
    }
    if let Some(group) = snapshot.groups.get(&header.consumer_group) {
        set("groupSysFlag", group.group_sys_flag.to_string());
    }
    let wanted = Wanted {
        code: request.command.code,
        group: header.consumer_group.into_owned(),
        client_id: header.client_id.into_owned(),
        fields,
    };
    // Nothing is read for a client that is not there.
    online(broker.lead(), &wanted)?;
    let physical = id.physical_offset;
    let direct = Direct { physical, wanted };
    survey::ask(broker, request, Question::Direct(direct), out)
}

/// The message, if it is this shard's; `None` while the disk is asked for it.
pub fn message_here(broker: &mut Broker, direct: &Direct, waiter: WaiterId) -> Option<Vec<Row>> {
    let physical = direct.physical;
    let at = match LogOffset::from_physical(physical) {
        Some((shard, at)) if shard == broker.me => at,
        _ => return Some(Vec::new()),
    };
    let refused = |reject| Some(vec![Row::Refused(reject)]);
    match broker.store.record_at(at, waiter) {
        Fetch::Ready(record) => Some(vec![Row::Message { physical, record }]),
        Fetch::Wait => None,
        Fetch::Missing => Some(Vec::new()),
        Fetch::Damaged(place) => {
            broker.stats.damaged_reads += 1;
            refused(Reject::new(response::SYSTEM_ERROR, place))
        }
        Fetch::Busy => refused(disk_busy()),
    }
}

/// Hands the message that was found over to the client.
pub fn hand_over(
    broker: &mut Broker,
    now: Now,
    to: ReplyTo,
    direct: &Direct,
    rows: &[Row],
    out: &mut Outbox<Peer>,
) {
    let called = match rows.first() {
        Some(Row::Message { record, .. }) => call(broker, now, to, &direct.wanted, record, out),
        _ => Err(not_found(direct.physical)),
    };
    if let Err(reject) = called {
        reject_to(to, &reject, out);
    }
}

/// INVOKE_BROKER_TO_GET_CONSUMER_STATUS 223, while members of the group are asked by
/// GET_CONSUMER_STATUS_FROM_CLIENT 221, one after the other.
pub struct Statuses {
    to: ReplyTo,
    group: String,
    fields: Fields,
    /// Members that are still to be asked; and who is being asked.
    left: Vec<(ConnId, String)>,
    client_id: String,
    told: ConsumerStatuses,
}

pub fn statuses(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ConsumerStatus::decode(&request.command.ext).map_err(bad_header)?;
    let lead = broker.lead();
    let group = header.group.into_owned();
    let members = lead.control.members.consumers(&group);
    if members.is_empty() {
        let remark = format!("No Any Consumer online in the consumer group: [{group}]");
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    check_room(lead)?;
    let only = header.client_addr.filter(|id| !id.trim().is_empty());
    let wanted = members
        .iter()
        .filter(|member| only.as_ref().is_none_or(|id| *member.client_id == **id));
    let left = wanted.map(|member| (member.conn, member.client_id.to_string()));
    let statuses = Statuses {
        to: request.reply_to(),
        fields: vec![
            ("topic".to_owned(), header.topic.into_owned()),
            ("group".to_owned(), group.clone()),
        ],
        left: left.rev().collect(),
        group,
        client_id: String::new(),
        told: ConsumerStatuses::default(),
    };
    ask_next(broker, request.now, Box::new(statuses), out);
    Ok(())
}

/// Asks the next member that is still there; answers when none is left.
fn ask_next(broker: &mut Broker, now: Now, mut statuses: Box<Statuses>, out: &mut Outbox<Peer>) {
    let lead = broker.lead();
    while let Some((conn, client_id)) = statuses.left.pop() {
        let members = lead.control.members.consumers(&statuses.group);
        if lead.calls.is_full() || !members.iter().any(|member| member.conn == conn) {
            continue;
        }
        statuses.client_id = client_id;
        let fields = statuses.fields.clone();
        let opaque = lead
            .calls
            .begin(now.mono, STATUS_MS, conn, Wish::Status(statuses));
        let code = request::GET_CONSUMER_STATUS_FROM_CLIENT;
        return ask_client(conn, opaque, code, &fields, &[], out);
    }
    succeed_with(statuses.to, &statuses.told.encode(), out);
}

/// A member has said where it stands, or will not.
fn status_told(
    broker: &mut Broker,
    now: Now,
    mut statuses: Box<Statuses>,
    answer: Result<&Command<'_>, Silence>,
    out: &mut Outbox<Peer>,
) {
    let told = answer
        .ok()
        .filter(|command| command.code == response::SUCCESS);
    let told = told.and_then(|command| json::from_slice::<ClientStatus>(command.body).ok());
    if let Some(ClientStatus {
        message_queue_table,
    }) = told
    {
        let table = &mut statuses.told.consumer_table;
        let known: usize = table.values().map(Vec::len).sum();
        if known + message_queue_table.len() > STATUS_QUEUES_MAX {
            let remark = format!(
                "members of {} tell of more than {STATUS_QUEUES_MAX} queues: ask for one client",
                statuses.group
            );
            let reject = Reject::new(response::SYSTEM_ERROR, remark);
            return reject_to(statuses.to, &reject, out);
        }
        table.insert(statuses.client_id.clone(), message_queue_table);
    }
    ask_next(broker, now, statuses, out);
}

/// The client has answered, or will not.
fn answered(
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
        for (key, value) in &fields(command) {
            w.field_str(key, value);
        }
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
        Wish::Status(statuses) => status_told(broker, now, statuses, answer, out),
        Wish::Pushed(pushed) => super::reply::pushed(broker, now, *pushed, answer, out),
    }
}
