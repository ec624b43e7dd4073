//! What a request code means: the table of contents of the broker.
//!
//! A handler answers through [`Outbox`], forwards to the owner, or parks. Every refusal is a
//! [`Reject`], which becomes the response: code and a remark that says why and what to do.

pub mod ack;
pub mod assignment;
pub mod back;
mod body;
pub mod config;
pub mod connection;
pub mod consumption;
pub mod entries;
pub mod filter;
mod forms;
pub mod group;
pub mod guarded;
pub mod key;
pub mod light;
pub mod listing;
pub mod lite;
pub mod lite_ack;
pub mod lite_admin;
pub mod lite_subs;
pub mod lock;
pub mod member;
pub mod offset;
pub mod pop;
pub mod progress;
pub mod pull;
pub mod relay;
pub mod reply;
pub mod reset;
pub mod revive;
#[cfg(test)]
pub(in crate::broker) mod rig;
pub mod send;
pub mod take;
pub mod tally;
pub mod timer;
pub mod topic;
mod traits;
pub mod transaction;
pub mod view;

use crate::base::{ConnId, Now, ShardId};
use crate::broker::acks::ReplyTo;
use crate::broker::control::effects::{Effects, Reject};
use crate::broker::control::{Control, Handled};
use crate::broker::delay::{TIMER_WAITER, WAITER_BASE};
use crate::broker::leases::Lapsed;
use crate::broker::lite::Poll;
use crate::broker::pops::Visit;
use crate::broker::survey::{self, Asked, Question};
use crate::broker::timers::Timer;
use crate::broker::{Broker, BrokerOptions, Peer};
use crate::machine::{FrameIn, Link, Outbox};
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame;
use crate::remoting::header::HeaderError;
use crate::remoting::header::lite::PopLiteResponse;
use crate::remoting::header::pop::{
    ChangeInvisibleTimeResponse, NotificationResponse, PopResponse,
};
use crate::remoting::header::query::QueryMessageResponse;
use crate::remoting::header::send::SendHeader;
use crate::store::Refused;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::Woken;
use bytes::Bytes;

use body::{Page, check_length, parse};
use lite_admin::LiteAsked;
use progress::Progress;

/// More than the header of an answer without fields takes.
const HEADER_BYTES_MAX: usize = 1024;

/// The bytes of a request, so that they can be sent on.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    In(FrameIn<'a>),
    Shared(&'a Bytes),
}

impl<'a> Raw<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Raw::In(frame) => frame.bytes(),
            Raw::Shared(bytes) => bytes,
        }
    }

    pub fn share(&self) -> Bytes {
        match self {
            Raw::In(frame) => frame.share(),
            Raw::Shared(bytes) => (*bytes).clone(),
        }
    }
}

/// A request on its way through a handler.
pub struct Request<'a> {
    pub now: Now,
    pub link: &'a Link,
    pub command: &'a Command<'a>,
    pub raw: Raw<'a>,
}

impl Request<'_> {
    pub fn reply_to(&self) -> ReplyTo {
        let Command { opaque, codec, .. } = *self.command;
        ReplyTo {
            conn: self.link.conn,
            opaque,
            codec,
        }
    }
}

/// A request that waits for bytes from the disk.
pub enum Parked {
    Pull(pull::Pull),
    View(view::View),
    Back(back::Back),
    Search(offset::Search),
    Asked(Asked),
    End(transaction::End),
    Check(transaction::Check),
    Resume(transaction::Resume),
    Timer(Timer),
    Pop(Box<Visit>),
    Lite(Box<Poll>),
    LiteAsked(LiteAsked),
    LiteExpiry(QueueSlot),
    Lapsed(Lapsed),
    Entries(Box<entries::Entries>),
}

impl Parked {
    /// The disk did not give what a request waited for.
    fn fail(self, broker: &mut Broker, now: Now, reject: &Reject, out: &mut Outbox<Peer>) {
        match self {
            Parked::Back(back::Back { oneway: true, .. })
            | Parked::End(transaction::End { oneway: true, .. }) => {}
            Parked::Pull(pull::Pull { to, .. })
            | Parked::View(view::View { to, .. })
            | Parked::Back(back::Back { to, .. })
            | Parked::Search(offset::Search { to, .. })
            | Parked::End(transaction::End { to, .. })
            | Parked::Resume(transaction::Resume { to, .. }) => reject_to(to, reject, out),
            // It is read again in its time.
            Parked::Check(check) => transaction::unread(broker, now, &check),
            Parked::Timer(timer) => timer::unread(broker, now, timer),
            Parked::Lapsed(lapsed) => revive::unread(broker, now, lapsed),
            Parked::Pop(visit) => {
                reject_to(visit.ask.to, reject, out);
                pop::done(broker, visit.home, visit.ticket, out);
            }
            Parked::LiteExpiry(slot) => broker.expiry_unread(now, slot),
            Parked::LiteAsked(asked) => reject_to(asked.to, reject, out),
            Parked::Lite(poll) => reject_to(poll.ask.to, reject, out),
            Parked::Entries(entries) => reject_to(entries.to, reject, out),
            Parked::Asked(asked) => survey::fail(broker, &asked, reject, out),
        }
    }
}

/// Takes one whole frame: a request of a client, or a name server's answer.
pub fn frame(broker: &mut Broker, now: Now, link: &Link, raw: Raw<'_>, out: &mut Outbox<Peer>) {
    let frame = frame::split(raw.bytes()).ok();
    let mut header = SendHeader::EMPTY;
    if let Some(frame) = frame
        && let Some(known) = broker.shapes.decode(frame, &mut header)
    {
        let command = known.command(frame);
        let request = Request {
            now,
            link,
            command: &command,
            raw,
        };
        return handle(broker, &request, out, |broker, out| {
            send::send(broker, &request, &header, out)
        });
    }
    let decoded = frame.and_then(|frame| broker.layouts.decode(frame).ok());
    let Some(command) = decoded else {
        broker.stats.bad_frames += 1;
        out.closes.push(link.conn);
        return;
    };
    if command.is_response() {
        return answer(broker, now, link.conn, &command, raw, out);
    }
    let request = Request {
        now,
        link,
        command: &command,
        raw,
    };
    handle(broker, &request, out, |broker, out| {
        dispatch(broker, &request, out)
    });
}

#[inline]
fn handle(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
    handler: impl FnOnce(&mut Broker, &mut Outbox<Peer>) -> Result<(), Reject>,
) {
    if broker.snapshot.version == 0 {
        // An empty table must not be taken for a topic, group or offset that is not there.
        let reject = Reject::new(response::SYSTEM_BUSY, "the broker is starting, try again");
        return refuse(broker, request, &reject, out);
    }
    if let Err(reject) = handler(broker, out) {
        refuse(broker, request, &reject, out);
    }
}

/// A client or a name server has answered what shard 0 asked it.
fn answer(
    broker: &mut Broker,
    now: Now,
    conn: ConnId,
    command: &Command<'_>,
    raw: Raw<'_>,
    out: &mut Outbox<Peer>,
) {
    let Some(lead) = &mut broker.lead else {
        let frame = raw.share();
        return out.peers.push((ShardId(0), Peer::Response { conn, frame }));
    };
    match lead.calls.answered(conn, command.opaque) {
        Some(wish) => relay::ended(broker, now, wish, Ok(command), out),
        None => lead.registry.answered(now, conn, command),
    }
}

/// The same, from the shard that holds the connection.
pub fn answer_from_peer(
    broker: &mut Broker,
    now: Now,
    conn: ConnId,
    bytes: &Bytes,
    out: &mut Outbox<Peer>,
) {
    let Ok(frame) = frame::split(bytes) else {
        return;
    };
    if let Ok(command) = Command::decode(frame) {
        answer(broker, now, conn, &command, Raw::Shared(bytes), out);
    }
}

/// Requests whose only point is their answer: nothing is done for one that wants none.
const QUESTIONS: [i32; 35] = [
    request::PULL_MESSAGE,
    request::LITE_PULL_MESSAGE,
    request::POP_MESSAGE,
    request::POP_LITE_MESSAGE,
    request::GET_BROKER_LITE_INFO,
    request::GET_PARENT_TOPIC_INFO,
    request::GET_LITE_TOPIC_INFO,
    request::GET_LITE_CLIENT_INFO,
    request::GET_LITE_GROUP_INFO,
    request::PEEK_MESSAGE,
    request::NOTIFICATION,
    request::POLLING_INFO,
    request::QUERY_CONSUMER_OFFSET,
    request::GET_MAX_OFFSET,
    request::GET_MIN_OFFSET,
    request::SEARCH_OFFSET_BY_TIMESTAMP,
    request::GET_EARLIEST_MSG_STORETIME,
    request::VIEW_MESSAGE_BY_ID,
    request::QUERY_MESSAGE,
    request::QUERY_ASSIGNMENT,
    request::CHECK_CLIENT_CONFIG,
    request::GET_BROKER_CONFIG,
    request::GET_TOPIC_STATS_INFO,
    request::GET_CONSUME_STATS,
    request::GET_CONSUMER_RUNNING_INFO,
    request::CONSUME_MESSAGE_DIRECTLY,
    request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS,
    request::VIEW_BROKER_STATS_DATA,
    request::GET_BROKER_CONSUME_STATS,
    request::GET_ALL_CONSUMER_OFFSET,
    request::GET_ALL_DELAY_OFFSET,
    request::QUERY_PENDING_MESSAGES,
    request::QUERY_CONSUME_QUEUE,
    request::CLEAN_EXPIRED_CONSUMEQUEUE,
    request::CLEAN_UNUSED_TOPIC,
];

fn dispatch(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    if request.command.is_oneway() && QUESTIONS.contains(&request.command.code) {
        return Ok(());
    }
    match request.command.code {
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            let header = send::header(broker, request)?;
            send::send(broker, request, &header, out)
        }
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => pull::pull(broker, request, out),
        request::POP_MESSAGE => pop::pop(broker, request, out),
        request::POP_LITE_MESSAGE => lite::pop(broker, request, out),
        request::LITE_SUBSCRIPTION_CTL => lite_subs::control(broker, request, out),
        request::GET_LITE_TOPIC_INFO => lite_admin::topic_info(broker, request, out),
        request::GET_LITE_CLIENT_INFO => lite_admin::client_info(broker, request, out),
        request::GET_LITE_GROUP_INFO => lite_admin::group_info(broker, request, out),
        request::TRIGGER_LITE_DISPATCH => lite_admin::trigger(broker, request, out),
        request::PEEK_MESSAGE => pop::peek(broker, request, out),
        request::ACK_MESSAGE => ack::ack(broker, request, out),
        request::BATCH_ACK_MESSAGE => ack::batch_ack(broker, request, out),
        request::CHANGE_MESSAGE_INVISIBLETIME => ack::change(broker, request, out),
        request::NOTIFICATION => pop::notification(broker, request, out),
        request::QUERY_CONSUMER_OFFSET => offset::query(broker, request, out),
        request::UPDATE_CONSUMER_OFFSET => offset::update(broker, request, out),
        request::GET_MAX_OFFSET => offset::max(broker, request, out),
        request::GET_MIN_OFFSET => offset::min(broker, request, out),
        request::SEARCH_OFFSET_BY_TIMESTAMP => offset::search(broker, request, out),
        request::GET_EARLIEST_MSG_STORETIME => offset::earliest(broker, request, out),
        request::QUERY_CONSUME_QUEUE => entries::query(broker, request, out),
        request::VIEW_MESSAGE_BY_ID => view::view(broker, request, out),
        request::END_TRANSACTION => transaction::end(broker, request, out),
        request::RESUME_CHECK_HALF_MESSAGE => transaction::resume(broker, request, out),
        request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
            reply::reply(broker, request, out)
        }
        request::CHECK_CLIENT_CONFIG => filter::check(broker, request, out),
        request::CONSUMER_SEND_MSG_BACK => back::back(broker, request, out),
        request::DELETE_TOPIC_IN_BROKER if light::delete(broker, request, out)? => Ok(()),
        _ => control(broker, request, out),
    }
}

/// Requests that change what is configured: refused once the disk has failed.
const CHANGES: [i32; 8] = [
    request::UPDATE_AND_GET_GROUP_FORBIDDEN,
    request::SET_MESSAGE_REQUEST_MODE,
    request::UPDATE_AND_CREATE_TOPIC,
    request::UPDATE_AND_CREATE_TOPIC_LIST,
    request::DELETE_TOPIC_IN_BROKER,
    request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
    request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
    request::DELETE_SUBSCRIPTIONGROUP,
];

/// What every shard is asked by requests that say no more than their code.
fn whole_question(code: i32) -> Option<Question> {
    Some(match code {
        request::GET_BROKER_RUNTIME_INFO => Question::Runtime,
        request::GET_ALL_CONSUMER_OFFSET => Question::Progress(Progress::All),
        request::GET_ALL_DELAY_OFFSET => Question::Progress(Progress::Delays),
        request::GET_TIMER_CHECK_POINT => Question::TimersRead,
        request::GET_TIMER_METRICS => Question::TimersPending,
        _ => return None,
    })
}

/// Everything else is shard 0's.
fn control(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    if broker.lead.is_none() {
        broker.forward(ShardId(0), request, out);
        return Ok(());
    }
    let Request {
        now, link, command, ..
    } = *request;
    if CHANGES.contains(&command.code)
        && let Err(refused @ Refused::Failed(_)) = broker.store.check_append()
    {
        return Err(broker.refuse(refused));
    }
    match command.code {
        request::GET_BROKER_CONFIG => return config::config(broker, request, out),
        request::GET_BROKER_LITE_INFO => return lite_admin::broker_info(broker, request, out),
        request::GET_PARENT_TOPIC_INFO => return lite_admin::parent_info(broker, request, out),
        request::GET_TOPIC_STATS_INFO => return survey::topic_stats(broker, request, out),
        request::GET_CONSUME_STATS => return survey::consume_stats(broker, request, out),
        request::VIEW_BROKER_STATS_DATA => return tally::view(broker, request, out),
        request::CLEAN_EXPIRED_CONSUMEQUEUE | request::CLEAN_UNUSED_TOPIC => {
            // Nothing to do, ever: queues go with their topics, entries with their messages.
            succeed(request.reply_to(), out);
            return Ok(());
        }
        request::GET_BROKER_CONSUME_STATS => return consumption::all(broker, request, out),
        request::QUERY_TOPIC_CONSUME_BY_WHO => return progress::groups_of(broker, request, out),
        request::QUERY_TOPICS_BY_CONSUMER => return progress::topics_of(broker, request, out),
        request::QUERY_CORRECTION_OFFSET => return progress::corrections(broker, request, out),
        request::CLONE_GROUP_OFFSET => return progress::clone(broker, request, out),
        request::QUERY_CONSUME_TIME_SPAN => return progress::times(broker, request, out),
        request::RECALL_MESSAGE => return timer::recall(broker, request, out),
        request::QUERY_PENDING_MESSAGES => return listing::query(broker, request, out),
        request::QUERY_MESSAGE => return key::query(broker, request, out),
        request::QUERY_ASSIGNMENT => return assignment::query(broker, request, out),
        request::POLLING_INFO => return pop::polling(broker, request, out),
        request::INVOKE_BROKER_TO_RESET_OFFSET => return reset::reset(broker, request, out),
        request::GET_CONSUMER_RUNNING_INFO => return relay::running_info(broker, request, out),
        request::CONSUME_MESSAGE_DIRECTLY => return relay::consume_directly(broker, request, out),
        request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => {
            return relay::statuses(broker, request, out);
        }
        _ => {}
    }
    if let Some(question) = whole_question(command.code) {
        return survey::ask(broker, request, question, out);
    }
    let lead = broker.lead.as_mut().expect("checked above");
    let effects = lead.publication.effects();
    match lead.control.handle(now, link, command, effects) {
        Handled::Yes => Ok(()),
        Handled::NotMine => Err(unsupported(command.code)),
    }
}

/// What a request needs and nobody has made is made by shard 0, if the broker may; the request runs
/// again once every shard knows it.
fn make(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
    ensure: impl FnOnce(&mut Control, &mut Effects) -> Result<u64, Reject>,
) -> Result<(), Reject> {
    if broker.lead.is_none() {
        broker.forward(ShardId(0), request, out);
        return Ok(());
    }
    if let Err(refused) = broker.store.check_append() {
        return Err(broker.refuse(refused));
    }
    let lead = broker.lead.as_mut().expect("checked above");
    let version = ensure(&mut lead.control, lead.publication.effects())?;
    if !lead
        .publication
        .request_later(version, *request.link, request.raw.share())
    {
        let remark = "[REJECTREQUEST]too many requests wait for new topics or groups, try again";
        return Err(Reject::new(response::SYSTEM_BUSY, remark));
    }
    Ok(())
}

/// A group that nobody configured is made by its first use
/// (`SubscriptionGroupManager.findSubscriptionGroupConfig`).
fn make_group(
    broker: &mut Broker,
    request: &Request<'_>,
    group: &str,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    make(broker, request, out, |control, effects| {
        let made = control.ensure_group(request.now, group, effects)?;
        made.ok_or_else(|| {
            let remark = format!("subscription group [{group}] does not exist");
            Reject::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
        })
    })
}

/// Code 3, as the reference words it, with the name of what is asked.
pub fn unsupported(code: i32) -> Reject {
    let name = crate::remoting::code::request::name(code).map(|name| format!(" ({name})"));
    let name = name.unwrap_or_default();
    let remark = format!(" request type {code}{name} not supported");
    Reject::new(response::REQUEST_CODE_NOT_SUPPORTED, remark)
}

/// Answers a refusal, unless nobody wants an answer.
fn refuse(broker: &Broker, request: &Request<'_>, reject: &Reject, out: &mut Outbox<Peer>) {
    if !request.command.is_oneway() {
        refuse_to(
            broker,
            request.command.code,
            request.reply_to(),
            reject,
            out,
        );
    }
}

/// Answers a refusal of what was `asked`, with the fields that such answers have.
pub fn refuse_to(
    broker: &Broker,
    asked: i32,
    to: ReplyTo,
    reject: &Reject,
    out: &mut Outbox<Peer>,
) {
    out.write(to.conn, |bytes| {
        let (code, remark) = (reject.code, Some(reject.remark.as_str()));
        let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
        // Where the reference runs into an exception, it makes another answer, without these.
        if code != response::SYSTEM_ERROR {
            preset(&broker.options, asked, &mut w);
        }
        w.finish(0);
    });
}

/// What the reference puts into the header of an answer before it looks at the request (`preSend`
/// and the processors), or has there because its numbers cannot be absent.
pub(super) fn preset(options: &BrokerOptions, code: i32, w: &mut FrameWriter<'_>) {
    match code {
        request::SEND_MESSAGE
        | request::SEND_MESSAGE_V2
        | request::SEND_BATCH_MESSAGE
        | request::SEND_REPLY_MESSAGE
        | request::SEND_REPLY_MESSAGE_V2 => {
            w.field_str("MSG_REGION", &options.region);
            w.field_bool("TRACE_ON", options.trace_on);
        }
        request::RECALL_MESSAGE => w.field_str("MSG_REGION", &options.region),
        request::POP_MESSAGE => PopResponse::default().encode(w),
        request::POP_LITE_MESSAGE => PopLiteResponse::default().encode(w),
        request::CHANGE_MESSAGE_INVISIBLETIME => ChangeInvisibleTimeResponse::default().encode(w),
        request::NOTIFICATION => NotificationResponse::default().encode(w),
        request::POLLING_INFO => w.field_i64("pollingNum", 0),
        request::QUERY_MESSAGE => QueryMessageResponse::default().encode(w),
        _ => {}
    }
}

pub fn reject_to(to: ReplyTo, reject: &Reject, out: &mut Outbox<Peer>) {
    let remark = Some(reject.remark.as_str());
    out.write(to.conn, |bytes| {
        FrameWriter::response(bytes, to.codec, to.opaque, reject.code, remark).finish(0);
    });
}

/// Answers a frame that was kept for later with a refusal.
pub fn reject_frame(link: &Link, bytes: &Bytes, reject: &Reject, out: &mut Outbox<Peer>) {
    let Ok(frame) = frame::split(bytes) else {
        return;
    };
    let Ok(command) = Command::decode(frame) else {
        return;
    };
    if !command.is_oneway() {
        let to = ReplyTo {
            conn: link.conn,
            opaque: command.opaque,
            codec: command.codec,
        };
        reject_to(to, reject, out);
    }
}

/// An answer without fields.
pub fn succeed(to: ReplyTo, out: &mut Outbox<Peer>) {
    out.write(to.conn, |bytes| to.success(bytes).finish(0));
}

/// An answer with fields and no body.
pub fn tell(to: ReplyTo, out: &mut Outbox<Peer>, fields: impl FnOnce(&mut FrameWriter<'_>)) {
    out.write(to.conn, |bytes| {
        let mut writer = to.success(bytes);
        fields(&mut writer);
        writer.finish(0);
    });
}

/// An answer with a body and no fields, if one frame can hold it.
pub fn succeed_with(to: ReplyTo, body: &[u8], out: &mut Outbox<Peer>) {
    match check_answer(body.len()) {
        Ok(()) => out.write(to.conn, |bytes| to.success(bytes).finish_with_body(body)),
        Err(reject) => reject_to(to, &reject, out),
    }
}

fn check_answer(body: usize) -> Result<(), Reject> {
    let limit = frame::FRAME_BYTES_MAX - HEADER_BYTES_MAX;
    if body > limit {
        let remark = format!("the answer has {body} bytes, a frame {limit} at most: ask for less");
        return Err(Reject::new(response::SYSTEM_ERROR, remark));
    }
    Ok(())
}

/// The disk has no time for one more reader.
pub fn disk_busy() -> Reject {
    let remark = "[OVERLOAD]system busy: too many reads wait for the disk, try again";
    Reject::new(response::SYSTEM_BUSY, remark)
}

/// A header that cannot be read: the reference runs into an exception, which is code 1.
pub fn bad_header(error: HeaderError) -> Reject {
    Reject::new(response::SYSTEM_ERROR, error.to_string())
}

/// The bytes that something waited for have come.
pub fn resume(broker: &mut Broker, now: Now, woken: Woken, out: &mut Outbox<Peer>) {
    let waiter = woken.waiter.0;
    if waiter == TIMER_WAITER {
        return broker.timers.set_reading(false);
    }
    if waiter >= WAITER_BASE {
        broker.delays.bytes_came((waiter - WAITER_BASE) as usize);
        return;
    }
    let Some(parked) = broker.parked.remove(&waiter) else {
        // Its pull was answered with what was there already.
        return broker.store.give_up(woken.waiter);
    };
    match (woken.result, parked) {
        (Err(error), parked) => {
            broker.stats.damaged_reads += 1;
            let reject = Reject::new(response::SYSTEM_ERROR, error.to_string());
            parked.fail(broker, now, &reject, out);
        }
        (Ok(()), Parked::Pull(pull)) => pull::run(broker, now, pull, out),
        (Ok(()), Parked::View(view)) => view::run(broker, view, out),
        (Ok(()), Parked::Back(back)) => back::run(broker, now, back, out),
        (Ok(()), Parked::Search(search)) => offset::run_search(broker, search, out),
        (Ok(()), Parked::Asked(asked)) => survey::run(broker, asked, out),
        (Ok(()), Parked::End(end)) => transaction::run_end(broker, now, end, out),
        (Ok(()), Parked::Check(check)) => transaction::run_check(broker, now, check, out),
        (Ok(()), Parked::Timer(timer)) => timer::run(broker, now, timer, out),
        (Ok(()), Parked::Pop(visit)) => pop::run(broker, now, *visit, out),
        (Ok(()), Parked::LiteExpiry(slot)) => broker.expire_lite_topic(now, slot),
        (Ok(()), Parked::LiteAsked(asked)) => lite_admin::run(broker, asked, out),
        (Ok(()), Parked::Lite(poll)) => lite::run(broker, now, poll, out),
        (Ok(()), Parked::Lapsed(lapsed)) => revive::run(broker, now, lapsed, out),
        (Ok(()), Parked::Entries(entries)) => entries::run(broker, *entries, out),
        (Ok(()), Parked::Resume(resume)) => transaction::run_resume(broker, now, resume, out),
    }
    // What it waited for was kept for it until now.
    broker.store.give_up(woken.waiter);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_a_frame() {
        let limit = frame::FRAME_BYTES_MAX - HEADER_BYTES_MAX;
        assert_eq!(check_answer(limit), Ok(()));
        let reject = check_answer(limit + 1).unwrap_err();
        assert_eq!(
            reject.remark,
            "the answer has 16776193 bytes, a frame 16776192 at most: ask for less"
        );
    }
}
