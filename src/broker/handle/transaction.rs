//! Transactional sends, END_TRANSACTION 37, RESUME_CHECK_HALF_MESSAGE 323, and what the broker asks
//! producers, CHECK_TRANSACTION_STATE 39.
//!
//! Sources: `SendMessageProcessor`, `EndTransactionProcessor`, `TransactionalMessageServiceImpl`,
//! `AbstractTransactionalMessageCheckListener`; `spec/semantics.md` §7.

use crate::base::{LogOffset, Now};
use crate::broker::acks::{Ack, More, ReplyTo, SendAck};
use crate::broker::control::effects::Reject;
use crate::broker::control::names::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC};
use crate::broker::handle::{Parked, Request, bad_header, reject_to, send};
use crate::broker::puts::{OwnedMessage, Purpose};
use crate::broker::transactions::{self, Transactions};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::message::encode::{Draft, Placed, encode, encoded_len};
use crate::message::id::OffsetId;
use crate::message::layout::sys_flag;
use crate::message::view::RecordView;
use crate::message::{names, properties};
use crate::remoting::code::{request, response};
use crate::remoting::command::FrameWriter;
use crate::remoting::frame::Codec;
use crate::remoting::header::transaction::{CheckTransaction, EndTransaction, ResumeCheck};
use crate::store::consumequeue::QueueSlot;
use crate::store::dispatch::Dispatch;
use crate::store::read::WaiterId;
use crate::store::reader::Fetch;
use crate::store::record::{Kind, SYSTEM_HEADER_BYTES};
use bytes::Bytes;

/// Halves asked about in one turn; the rest follow at once.
const CHECKS_PER_TURN: usize = 64;
/// A half that could not be read, or not parked, is looked at again after this.
const RETRY_MS: i64 = 10_000;

/// An end that a producer has decided, while the half is read.
pub struct End {
    pub(super) to: ReplyTo,
    pub(super) oneway: bool,
    at: LogOffset,
    physical: i64,
    offset: i64,
    group: String,
    commit: bool,
    from_check: bool,
}

/// A half whose producers are to be asked, while it is read.
pub struct Check {
    offset: u64,
}

/// A parked half that is to be asked about again, while it is read.
pub struct Resume {
    pub(super) to: ReplyTo,
    at: LogOffset,
}

/// The queue of halves that this shard owns.
fn half_queue(broker: &mut Broker, now: Now) -> Result<(i32, QueueSlot), Reject> {
    let me = broker.me;
    let topic = broker.snapshot.topics.get(TRANS_HALF_TOPIC).cloned();
    let found = topic.as_ref().and_then(|topic| {
        let queue = topic.owners.iter().position(|owner| *owner == me)?;
        Some((topic, queue as i32))
    });
    let Some((topic, queue)) = found else {
        let remark = format!(
            "shard {} has no queue of {TRANS_HALF_TOPIC} yet, try again",
            me.0
        );
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    };
    let slot = broker
        .store
        .open_queue(now, &topic.name, topic.id, queue)
        .and_then(|slot| broker.store.check_message().map(|()| slot))
        .map_err(|refused| broker.refuse(refused))?;
    Ok((queue, slot))
}

/// Stores a message that nobody sees before its transaction is committed.
pub fn prepare(
    broker: &mut Broker,
    request: &Request<'_>,
    draft: &Draft<'_>,
    queue_id: i32,
) -> Result<(), Reject> {
    let due = request.now.mono.after_ms(broker.options.flush_timeout_ms);
    let (at, end, offset) = store_half(broker, request.now, draft, queue_id)?;
    broker.stats.put(1, draft.body.len());
    if !request.command.is_oneway() {
        let key = properties::find_str(draft.properties, names::UNIQUE_KEY);
        let ack = SendAck {
            to: request.reply_to(),
            queue_id,
            offset,
            at,
            more: key.map(|key| Box::new(More::Half(key.to_owned()))),
            due,
        };
        broker.acks.push(end, Ack::Send(ack));
    }
    Ok(())
}

/// Where the half lies, up to where the log must be confirmed, and its queue offset.
fn store_half(
    broker: &mut Broker,
    now: Now,
    draft: &Draft<'_>,
    queue_id: i32,
) -> Result<(LogOffset, LogOffset, u64), Reject> {
    if broker.transactions.is_full() {
        let most = transactions::HALVES_MAX;
        let remark = format!("this shard has {most} open transactions, which is the limit");
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    let group = properties::find_str(draft.properties, names::PRODUCER_GROUP).unwrap_or_default();
    let group = group.to_owned();
    let mut stored = draft.properties.to_vec();
    if let Some(key) = properties::find_str(draft.properties, names::UNIQUE_KEY) {
        properties::set(&mut stored, names::TRANSACTION_ID, key);
    }
    properties::set(&mut stored, names::REAL_TOPIC, draft.topic);
    properties::set(&mut stored, names::REAL_QUEUE_ID, &queue_id.to_string());
    let (half_id, slot) = half_queue(broker, now)?;
    let half = Draft {
        topic: TRANS_HALF_TOPIC,
        queue_id: half_id,
        sys_flag: draft.sys_flag & !sys_flag::TRANSACTION_MASK,
        properties: &stored,
        ..*draft
    };
    half.check()
        .map_err(|error| Reject::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
    let wait_ms = immunity_ms(broker, &stored).unwrap_or(broker.options.transaction_timeout_ms);
    let next_ms = draft
        .born_timestamp
        .saturating_add(wait_ms)
        .max(now.wall_ms);
    let length = Transactions::opened_payload(0, LogOffset(0), 0, &group).len();
    // Half and table go into one batch: a crash keeps both or neither.
    let record_bytes = SYSTEM_HEADER_BYTES + length;
    broker.store.reserve(encoded_len(&half) + record_bytes);
    let dispatch = Dispatch::of(TRANS_HALF_TOPIC, &stored);
    let appended = broker.store.append(now, slot, &half, &dispatch);
    let (offset, at) = (appended.offset.0, appended.at);
    let payload = Transactions::opened_payload(offset, at, next_ms, &group);
    let end = broker
        .store
        .append_system(now, Kind::Transaction, transactions::VERSION, &payload)
        .map_err(|refused| broker.refuse(refused))?;
    broker.transactions.open(now, offset, at, next_ms, &group);
    Ok((at, end, offset))
}

/// How long its producer wants not to be asked (`CHECK_IMMUNITY_TIME_IN_SECONDS`), ms.
fn immunity_ms(broker: &Broker, stored: &[u8]) -> Option<i64> {
    let text = properties::find_str(stored, names::CHECK_IMMUNITY_TIME_IN_SECONDS)?;
    let seconds: i64 = text.parse().unwrap_or(-1);
    Some(match seconds {
        // As `TransactionalMessageUtil.getImmunityTime`.
        -1 => broker.options.transaction_timeout_ms,
        seconds => seconds.saturating_mul(1000),
    })
}

/// END_TRANSACTION.
pub fn end(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = EndTransaction::decode(&request.command.ext).map_err(bad_header)?;
    let commit = match header.commit_or_rollback {
        sys_flag::TRANSACTION_COMMIT => true,
        sys_flag::TRANSACTION_ROLLBACK => false,
        // The producer does not know: it will be asked.
        0 => return Ok(()),
        other => {
            let remark = format!("commitOrRollback field wrong: {other}, must be 0, 8 or 12");
            return Err(Reject::new(response::SYSTEM_ERROR, remark));
        }
    };
    let (shard, at) = LogOffset::from_physical(header.commit_log_offset).ok_or_else(not_found)?;
    if shard.0 >= broker.options.control.shards {
        return Err(not_found());
    }
    if shard != broker.me {
        broker.forward(shard, request, out);
        return Ok(());
    }
    let end = End {
        to: request.reply_to(),
        oneway: request.command.is_oneway(),
        at,
        physical: header.commit_log_offset,
        offset: header.tran_state_table_offset,
        group: header.producer_group.into_owned(),
        commit,
        from_check: header.from_transaction_check,
    };
    run_end(broker, request.now, end, out);
    Ok(())
}

fn not_found() -> Reject {
    Reject::new(
        response::SYSTEM_ERROR,
        "Find prepared transaction message failed",
    )
}

pub fn run_end(broker: &mut Broker, now: Now, end: End, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let reject = match half_of(broker, &end, WaiterId(waiter)) {
        Fetch::Wait => {
            broker.parked.insert(waiter, Parked::End(end));
            return;
        }
        Fetch::Ready(record) => match RecordView::parse(&record) {
            Ok(view) => match decide(broker, now, &end, &view, out) {
                Ok(()) => return,
                Err(reject) => reject,
            },
            Err(_) => not_found(),
        },
        Fetch::Missing => not_found(),
        Fetch::Damaged(place) => {
            broker.stats.damaged_reads += 1;
            Reject::new(response::SYSTEM_ERROR, place)
        }
        Fetch::Busy => Reject::new(response::SYSTEM_BUSY, "[OVERLOAD]system busy, try again"),
    };
    if !end.oneway {
        reject_to(end.to, &reject, out);
    }
}

/// The half that a producer names by where it was stored: there, or where it lies now.
fn half_of(broker: &mut Broker, end: &End, waiter: WaiterId) -> Fetch<Bytes> {
    let half = u64::try_from(end.offset).ok();
    let half = half.and_then(|offset| broker.transactions.get(offset));
    if let Some(at) = half.map(|half| half.at).filter(|at| *at > end.at) {
        match broker.store.record_of(at, end.physical, waiter) {
            // Another half, or not confirmed.
            Fetch::Missing => {}
            other => return other,
        }
    }
    broker.store.record_at(end.at, waiter)
}

fn decide(
    broker: &mut Broker,
    now: Now,
    end: &End,
    view: &RecordView<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let wrong = |remark: &str| Err(Reject::new(response::SYSTEM_ERROR, remark));
    if view.topic() != TRANS_HALF_TOPIC {
        return Err(not_found());
    }
    let immunity = immunity_ms(broker, view.properties()).filter(|_| !end.from_check);
    if immunity.is_some_and(|ms| now.wall_ms - view.born_timestamp() > ms) {
        let remark = "the time of CHECK_IMMUNITY_TIME_IN_SECONDS is over: the producer is asked";
        return Err(Reject::new(response::ILLEGAL_OPERATION, remark));
    }
    let group = properties::find_str(view.properties(), names::PRODUCER_GROUP);
    if group.unwrap_or_default() != end.group {
        return wrong("The producer group wrong");
    }
    if view.queue_offset() != end.offset {
        return wrong("The transaction state table offset wrong");
    }
    let offset = end.offset as u64;
    let to = (!end.oneway).then_some(end.to);
    match broker
        .transactions
        .get(offset)
        .filter(|half| half.at >= end.at)
    {
        Some(half) if half.is_ending() => {
            let remark = "the transaction is being ended, try again";
            return Err(Reject::new(response::SYSTEM_BUSY, remark));
        }
        Some(_) => {}
        None => {
            // It is over; told twice, it is done once. That it is over may not be safe yet.
            let until = broker.log_end();
            if let Some(to) = to {
                broker.acks.push(until, Ack::Offset { to, value: None });
            }
            return Ok(());
        }
    }
    if !end.commit {
        return close(broker, now, offset, to, None);
    }
    let message = committed(view, end.physical).ok_or_else(not_found)?;
    let level = properties::find_str(&message.properties, names::DELAY_TIME_LEVEL);
    let level = level
        .and_then(|level| level.parse::<usize>().ok())
        .unwrap_or(0);
    if level == 0 && is_here(broker, &message) {
        return close(broker, now, offset, to, Some(&message));
    }
    let purpose = Purpose::Commit { to, offset };
    broker.transactions.begin_end(offset);
    if level > 0 {
        let asked = send::delay(broker, now, message, level, purpose, out);
        return asked.inspect_err(|_| {
            broker
                .transactions
                .abandon_end(now, offset, now.wall_ms + RETRY_MS);
        });
    }
    broker.request_put(now, message, 0, purpose, out);
    Ok(())
}

/// Whether it goes to one queue of this shard and nowhere else.
fn is_here(broker: &Broker, message: &OwnedMessage) -> bool {
    let topic = broker.snapshot.topics.get(&message.topic);
    topic.is_some_and(|topic| broker.owner(topic, message.queue_id) == Some(broker.me))
        && !broker.is_for_lights(message)
}

/// The message as its readers will see it; as in the reference it keeps the properties that tell
/// of the transaction.
fn committed(view: &RecordView<'_>, physical: i64) -> Option<OwnedMessage> {
    let stored = view.properties();
    let topic = properties::find_str(stored, names::REAL_TOPIC)?;
    let queue_id = properties::find_str(stored, names::REAL_QUEUE_ID)?
        .parse()
        .ok()?;
    let mut kept = stored.to_vec();
    properties::remove(&mut kept, names::REAL_TOPIC);
    properties::remove(&mut kept, names::REAL_QUEUE_ID);
    Some(OwnedMessage::of(&Draft {
        topic,
        queue_id,
        sys_flag: view.sys_flag() & !sys_flag::TRANSACTION_MASK | sys_flag::TRANSACTION_COMMIT,
        prepared_transaction_offset: physical,
        properties: &kept,
        ..Draft::of(view)
    }))
}

/// Ends a transaction in one batch: its message, if it is committed to a queue of this shard, and
/// the record that it is over.
fn close(
    broker: &mut Broker,
    now: Now,
    offset: u64,
    to: Option<ReplyTo>,
    message: Option<&OwnedMessage>,
) -> Result<(), Reject> {
    let payload = Transactions::ended_payload(offset);
    let record_bytes = SYSTEM_HEADER_BYTES + payload.len();
    if let Some(message) = message {
        let topic = broker.snapshot.topics.get(&message.topic).cloned();
        let topic = topic.ok_or_else(not_found)?;
        let slot = broker
            .store
            .open_queue(now, &topic.name, topic.id, message.queue_id)
            .and_then(|slot| broker.store.check_message().map(|()| slot))
            .map_err(|refused| broker.refuse(refused))?;
        let draft = message.draft(broker.options.store_host);
        broker.store.reserve(encoded_len(&draft) + record_bytes);
        let dispatch = Dispatch::of(&message.topic, &message.properties);
        broker.store.append(now, slot, &draft, &dispatch);
        broker.stats.put(1, message.body.len());
    }
    let end = broker
        .store
        .append_system(now, Kind::Transaction, transactions::VERSION, &payload)
        .map_err(|refused| broker.refuse(refused))?;
    broker.transactions.end(offset);
    if let Some(to) = to {
        broker.acks.push(end, Ack::Offset { to, value: None });
    }
    Ok(())
}

/// A half lies in the topic for operators, or could not be put there.
pub fn parked(broker: &mut Broker, now: Now, offset: u64, stored: bool) {
    let payload = Transactions::parked_payload(offset);
    let version = transactions::VERSION;
    let is_noted = stored
        && broker
            .store
            .append_system(now, Kind::Transaction, version, &payload)
            .is_ok();
    match is_noted {
        true => broker.transactions.park(offset),
        false => broker
            .transactions
            .abandon_end(now, offset, now.wall_ms + RETRY_MS),
    }
}

/// The message of a transaction is stored elsewhere, or could not be.
pub fn stored_elsewhere(
    broker: &mut Broker,
    now: Now,
    to: Option<ReplyTo>,
    offset: u64,
    result: Result<(), Reject>,
    out: &mut Outbox<Peer>,
) {
    let closed = result.and_then(|()| close(broker, now, offset, to, None));
    if let Err(reject) = closed {
        broker
            .transactions
            .abandon_end(now, offset, now.wall_ms + RETRY_MS);
        if let Some(to) = to {
            reject_to(to, &reject, out);
        }
    }
}

impl Broker {
    /// Asks the producers of halves whose time has come; parks those that were asked about often
    /// enough.
    pub(in crate::broker) fn check_transactions(&mut self, now: Now, out: &mut Outbox<Peer>) {
        let mut last = None;
        for _ in 0..CHECKS_PER_TURN {
            let Some((offset, half)) = self.transactions.pop_due(now) else {
                break;
            };
            let at = half.at;
            run_check(self, now, Check { offset }, out);
            last = Some(at);
        }
        // They are asked about as they lie in the log, more or less, and not soon again.
        if let Some(at) = last {
            self.store.pass(at);
        }
        if let Some(payload) = self.transactions.take_unlogged() {
            // Without it a half is asked about once more after a crash.
            let version = transactions::VERSION;
            let _ = self
                .store
                .append_system(now, Kind::Transaction, version, &payload);
        }
    }
}

pub fn run_check(broker: &mut Broker, now: Now, check: Check, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let Check { offset } = check;
    let Some(half) = broker
        .transactions
        .get(offset)
        .copied()
        .filter(|half| !half.is_ending())
    else {
        return;
    };
    let later_ms = now.wall_ms + RETRY_MS;
    let record = match broker.store.message_at(half.at, WaiterId(waiter)) {
        Fetch::Ready(record) => record,
        Fetch::Wait => {
            broker.parked.insert(waiter, Parked::Check(check));
            return;
        }
        Fetch::Busy => return broker.transactions.postpone(now, offset, later_ms),
        Fetch::Missing | Fetch::Damaged(_) => {
            broker.stats.damaged_reads += 1;
            return broker.transactions.postpone(now, offset, later_ms);
        }
    };
    let Ok(view) = RecordView::parse(&record) else {
        return broker.transactions.postpone(now, offset, later_ms);
    };
    if half.checks() >= broker.options.transaction_checks_max {
        return park(broker, now, offset, &view, out);
    }
    let frame = question(broker, half.checks() + 1, &view);
    if let Some(frame) = frame {
        let group = broker.transactions.group(&half);
        match broker.lead.is_some() {
            true => ask(broker, &group, &frame, out),
            false => {
                let lead = crate::base::ShardId(0);
                out.peers.push((lead, Peer::AskProducer { group, frame }));
            }
        }
    }
    let next_ms = now.wall_ms + broker.options.transaction_interval_ms;
    broker.transactions.asked(now, offset, next_ms);
}

/// The disk did not give a half that was to be asked about.
pub fn unread(broker: &mut Broker, now: Now, check: &Check) {
    broker
        .transactions
        .postpone(now, check.offset, now.wall_ms + RETRY_MS);
}

/// Sends a frame to one producer of a group, each time to another one.
pub fn ask(broker: &mut Broker, group: &str, frame: &[u8], out: &mut Outbox<Peer>) {
    let turn = broker.turn as usize;
    broker.turn = broker.turn.wrapping_add(1);
    let lead = broker.lead.as_ref().expect("shard 0 knows the producers");
    let members = lead.control.members.producers(group);
    if let Some(member) = members.get(turn % members.len().max(1)) {
        out.write(member.conn, |bytes| bytes.extend_from_slice(frame));
    }
}

/// CHECK_TRANSACTION_STATE, whole: the half as its producer sent it.
fn question(broker: &Broker, times: u32, view: &RecordView<'_>) -> Option<Vec<u8>> {
    let given = view.properties();
    let topic = properties::find_str(given, names::REAL_TOPIC)?;
    let queue_id = properties::find_str(given, names::REAL_QUEUE_ID)?
        .parse()
        .ok()?;
    let mut stored = given.to_vec();
    properties::set(
        &mut stored,
        names::TRANSACTION_CHECK_TIMES,
        &times.to_string(),
    );
    let draft = Draft {
        topic,
        queue_id,
        properties: &stored,
        ..Draft::of(view)
    };
    draft.check().ok()?;
    // Where it was stored first: that is what its producer knows.
    let physical_offset = view.physical_offset();
    let mut body = Vec::new();
    let placed = Placed {
        queue_offset: view.queue_offset(),
        physical_offset,
        store_timestamp: view.store_timestamp(),
    };
    encode(&draft, placed, &mut body);
    let key = properties::find_str(&stored, names::UNIQUE_KEY).unwrap_or_default();
    let id = OffsetId {
        store_host: view.store_host(),
        physical_offset,
    };
    let header = CheckTransaction {
        topic: Some(topic.into()),
        tran_state_table_offset: view.queue_offset(),
        commit_log_offset: physical_offset,
        msg_id: Some(key.into()),
        transaction_id: Some(key.into()),
        offset_msg_id: Some(id.to_text().as_str().to_owned().into()),
        broker_name: Some(broker.options.control.broker_name.as_str().into()),
    };
    let mut frame = Vec::new();
    let code = request::CHECK_TRANSACTION_STATE;
    let mut w = FrameWriter::request(&mut frame, Codec::Json, 0, code, true);
    header.encode(&mut w);
    w.finish_with_body(&body);
    Some(frame)
}

/// It was asked about often enough: it waits in a topic of its own for an operator.
fn park(broker: &mut Broker, now: Now, offset: u64, view: &RecordView<'_>, out: &mut Outbox<Peer>) {
    let message = OwnedMessage::of(&Draft {
        topic: TRANS_CHECK_MAX_TIME_TOPIC,
        queue_id: 0,
        prepared_transaction_offset: 0,
        ..Draft::of(view)
    });
    broker.transactions.begin_end(offset);
    broker.request_put(now, message, 1, Purpose::Park { offset }, out);
}

/// RESUME_CHECK_HALF_MESSAGE: a parked half is asked about again.
pub fn resume(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = ResumeCheck::decode(&request.command.ext).map_err(bad_header)?;
    let id = header.msg_id.as_deref().and_then(OffsetId::parse);
    let place = id.and_then(|id| LogOffset::from_physical(id.physical_offset));
    let shards = broker.options.control.shards;
    match place {
        Some((shard, at)) if shard == broker.me => {
            let to = request.reply_to();
            run_resume(broker, request.now, Resume { to, at }, out);
            Ok(())
        }
        Some((shard, _)) if shard.0 < shards => {
            broker.forward(shard, request, out);
            Ok(())
        }
        _ => Err(not_resumed()),
    }
}

fn not_resumed() -> Reject {
    let remark = "Exception was thrown when putting message back to RMQ_SYS_TRANS_HALF_TOPIC.";
    Reject::new(response::SYSTEM_ERROR, remark)
}

pub fn run_resume(broker: &mut Broker, now: Now, resume: Resume, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    let record = match broker.store.record_at(resume.at, WaiterId(waiter)) {
        Fetch::Ready(record) => record,
        Fetch::Wait => {
            broker.parked.insert(waiter, Parked::Resume(resume));
            return;
        }
        _ => return reject_to(resume.to, &not_resumed(), out),
    };
    match reopen(broker, now, &record) {
        Ok(end) => {
            let to = resume.to;
            broker.acks.push(end, Ack::Offset { to, value: None });
        }
        Err(reject) => reject_to(resume.to, &reject, out),
    }
}

fn reopen(broker: &mut Broker, now: Now, record: &[u8]) -> Result<LogOffset, Reject> {
    let view = RecordView::parse(record).map_err(|_| not_resumed())?;
    let real = |name| properties::find_str(view.properties(), name);
    let topic = real(names::REAL_TOPIC).ok_or_else(not_resumed)?;
    let queue_id = real(names::REAL_QUEUE_ID).and_then(|id| id.parse().ok());
    let queue_id = queue_id.ok_or_else(not_resumed)?;
    if view.topic() != TRANS_CHECK_MAX_TIME_TOPIC {
        return Err(not_resumed());
    }
    let draft = Draft {
        topic,
        queue_id,
        store_host: broker.options.store_host,
        prepared_transaction_offset: 0,
        ..Draft::of(&view)
    };
    store_half(broker, now, &draft, queue_id).map(|(_, end, _)| end)
}
