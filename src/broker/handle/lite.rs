//! POP_LITE_MESSAGE 200070: what is there for one client, of all lite topics of a parent that it is
//! subscribed to.
//!
//! A client's pops run where its parent topic's queue 0 lives, and wait there. Each lite topic is
//! popped in order, so its messages come from one pop at a time. Checks and codes in the order of
//! `PopLiteMessageProcessor`; `spec/delta-5.5.md` §5.

use crate::base::{Now, ShardId};
use crate::broker::acks::{Ack, Ready};
use crate::broker::control::effects::Reject;
use crate::broker::handle::pop::{INVISIBLE_MS_MAX, Known, LATE_MS, ORDERED, over_ms, until};
use crate::broker::handle::take::{Looked, Taken, check_leases, take_from};
use crate::broker::handle::{Parked, Request, bad_header, make_group, reject_to};
use crate::broker::leases::POP_MAX;
use crate::broker::light::{is_light_id, lite_parts};
use crate::broker::lite::Poll;
use crate::broker::lite::rules::{bound_to, is_parent};
use crate::broker::pops::{Ask, What};
use crate::broker::topics::{Topic, perm};
use crate::broker::{Broker, Peer};
use crate::filter::Filter;
use crate::machine::Outbox;
use crate::remoting::code::response;
use crate::remoting::command::FrameWriter;
use crate::remoting::header::lite::{PopLite, PopLiteResponse};
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use std::fmt::Write as _;

pub fn pop(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = PopLite::decode(&request.command.ext).map_err(bad_header)?;
    let now = request.now;
    let over_ms = over_ms(now, header.born_time, header.poll_time);
    if now.wall_ms.saturating_sub(over_ms) > LATE_MS {
        let remark = "the pop arrived after its time: see bornTime and pollTime";
        return Err(Reject::new(response::POLLING_TIMEOUT, remark));
    }
    let Some((topic, group)) = check(broker, request, &header, out)? else {
        return Ok(());
    };
    if !(1..=INVISIBLE_MS_MAX).contains(&header.invisible_time) {
        let asked = header.invisible_time;
        let remark = format!("invisibleTime is {asked} ms, must be 1 to {INVISIBLE_MS_MAX}");
        return Err(Reject::new(response::INVALID_PARAMETER, remark));
    }
    let home = home(&topic)?;
    if home != broker.me {
        broker.lites.went(request.link.conn, home);
        broker.forward(home, request, out);
        return Ok(());
    }
    let what = What::Pop {
        most: header.max_msg_num.max(0) as usize,
        invisible_ms: header.invisible_time,
        from_oldest: false,
    };
    let ask = Ask {
        to: request.reply_to(),
        topic,
        group,
        queue_id: 0,
        filter: Filter::ALL,
        order: true,
        attempt: header.attempt_id.unwrap_or_default().into_owned(),
        until: until(now, header.poll_time, over_ms),
        what,
    };
    let client = header.client_id.into();
    run(broker, now, Box::new(Poll { client, ask }), out);
    Ok(())
}

/// Where the lite topics of a topic are.
pub(super) fn home(topic: &Topic) -> Result<ShardId, Reject> {
    topic.owner(0).ok_or_else(|| {
        let remark = format!("the topic [{}] has no queue: give it one", topic.name);
        Reject::new(response::INVALID_PARAMETER, remark)
    })
}

/// A parent topic and the group's name as it is kept. `None`: the group has to be made first.
fn check(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &PopLite<'_>,
    out: &mut Outbox<Peer>,
) -> Result<Option<Known>, Reject> {
    let reject = |code, remark: String| Err(Reject::new(code, remark));
    if broker.options.permission & perm::READ == 0 {
        let remark = "the broker is not readable: see brokerPermission".to_owned();
        return reject(response::NO_PERMISSION, remark);
    }
    if header.max_msg_num > POP_MAX as i32 {
        let remark = format!("the pop message's num is greater than {POP_MAX}");
        return reject(response::INVALID_PARAMETER, remark);
    }
    let (topic_name, group_name) = (&*header.topic, &*header.consumer_group);
    let Some(topic) = broker.snapshot.topics.get(topic_name).cloned() else {
        let remark = format!("topic [{topic_name}] not exist, apply first please!");
        return reject(response::TOPIC_NOT_EXIST, remark);
    };
    if !topic.is_readable() {
        let remark = format!("the topic [{topic_name}] peeking message is forbidden");
        return reject(response::NO_PERMISSION, remark);
    }
    if !is_parent(&topic) {
        let remark = format!(
            "the topic [{topic_name}] message type not match: it has no lite topics. Give it the \
             attribute message.type=LITE"
        );
        return reject(response::INVALID_PARAMETER, remark);
    }
    let groups = &broker.snapshot.groups;
    let (Some(group), Some(name)) = (groups.get(group_name), groups.name(group_name)) else {
        make_group(broker, request, group_name, out)?;
        return Ok(None);
    };
    if !group.consume_enable {
        let remark = format!("subscription group no permission, {group_name}");
        return reject(response::NO_PERMISSION, remark);
    }
    if bound_to(group) != Some(topic_name) {
        let remark = format!(
            "subscription bind topic not match, {group_name}: see its attribute lite.bind.topic"
        );
        return reject(response::INVALID_PARAMETER, remark);
    }
    Ok(Some((topic, name.clone())))
}

/// A pop looks at what its client has; it waits if there is nothing.
pub fn run(broker: &mut Broker, now: Now, poll: Box<Poll>, out: &mut Outbox<Peer>) {
    let waiter = broker.next_waiter();
    match take(broker, now, &poll, WaiterId(waiter)) {
        Ok(Looked::Taken(taken)) => answer(broker, now, &poll.ask, taken),
        Ok(Looked::Waits) => drop(broker.parked.insert(waiter, Parked::Lite(poll))),
        Ok(Looked::Nothing | Looked::Some) if poll.ask.until <= now.mono => {
            answer_nothing(now, &poll.ask, response::POLLING_TIMEOUT, out);
        }
        Ok(Looked::Nothing | Looked::Some) => {
            if let Err(poll) = broker.lites.park(now, poll) {
                answer_nothing(now, &poll.ask, response::POLLING_FULL, out);
            }
        }
        Err(reject) => reject_to(poll.ask.to, &reject, out),
    }
}

/// Takes from one queue after the other.
fn take(broker: &mut Broker, now: Now, poll: &Poll, waiter: WaiterId) -> Result<Looked, Reject> {
    check_leases(broker)?;
    broker.begin_leases(now);
    let (mut taken, mut trouble) = (Taken::default(), None);
    let What::Pop { most, .. } = poll.ask.what else {
        return Ok(Looked::Nothing);
    };
    while taken.messages < most && taken.bytes < broker.options.transfer_bytes_max {
        let Some((event, slot)) = broker.lites.fetch(now, poll.who()) else {
            break;
        };
        let place = (&poll.ask.topic, 0, slot);
        match take_from(broker, now, &poll.ask, false, place, waiter, &mut taken) {
            Ok(true) => {}
            Ok(false) => {
                broker.lites.put_back(poll.who(), event, slot);
                if taken.messages == 0 {
                    return Ok(Looked::Waits);
                }
                broker.store.give_up(waiter);
                break;
            }
            Err(reject) if reject.code == response::SYSTEM_BUSY => {
                broker.lites.put_back(poll.who(), event, slot);
                trouble = Some(reject);
                break;
            }
            // It does not keep the client from its other queues.
            Err(reject) => trouble = Some(reject),
        }
    }
    match (taken.messages, trouble) {
        (0, Some(reject)) => Err(reject),
        (0, None) => Ok(Looked::Nothing),
        _ => Ok(Looked::Taken(taken)),
    }
}

/// Answers once the log holds what was taken.
fn answer(broker: &mut Broker, now: Now, ask: &Ask, taken: Taken) {
    broker.stats.got(taken.messages, taken.bytes);
    broker.save_leases(now);
    let (to, mut head) = (ask.to, Vec::new());
    let code = response::SUCCESS;
    let mut w = FrameWriter::response(&mut head, to.codec, to.opaque, code, Some("FOUND"));
    fields(now, ask, &counts(&taken.times)).encode(&mut w);
    w.finish(taken.bytes);
    let slices = taken.slices;
    let ready = Box::new(Ready { to, head, slices });
    broker.acks.push(broker.log_end(), Ack::Ready(ready));
}

/// A pop that found nothing in its time, or may not wait.
pub fn answer_nothing(now: Now, ask: &Ask, code: i32, out: &mut Outbox<Peer>) {
    let to = ask.to;
    out.write(to.conn, |bytes| {
        let remark = Some("NO_MESSAGE_IN_QUEUE");
        let mut w = FrameWriter::response(bytes, to.codec, to.opaque, code, remark);
        fields(now, ask, "").encode(&mut w);
        w.finish(0);
    });
}

fn fields<'a>(now: Now, ask: &Ask, counts: &'a str) -> PopLiteResponse<'a> {
    let invisible_time = match ask.what {
        What::Pop { invisible_ms, .. } => invisible_ms,
        _ => 0,
    };
    PopLiteResponse {
        pop_time: now.wall_ms,
        invisible_time,
        revive_qid: ORDERED,
        order_count_info: Some(counts.into()),
    }
}

/// How often each message was handed out before: one entry for each, in their order
/// (`ExtraInfoUtil.parseLiteOrderCountInfo`).
fn counts(times: &[(u64, u32)]) -> String {
    let mut out = String::new();
    for (n, (offset, times)) in times.iter().enumerate() {
        let start = if n > 0 { ";" } else { "" };
        let _ = match times {
            0 => write!(out, "{start}0"),
            _ => write!(out, "{start}0 qo0%{offset} {times}"),
        };
    }
    out
}

impl Broker {
    /// A queue has new messages: they may be of a lite topic that somebody is subscribed to.
    pub(in crate::broker) fn notice_lites(&mut self, now: Now, slot: QueueSlot) {
        if !self.options.light {
            return;
        }
        if let Some(queue) = self.store.queues().queue(slot)
            && is_light_id(queue.topic_id)
        {
            self.lites.arrived(now, slot, &queue.topic);
            if lite_parts(&queue.topic).is_some() {
                self.expiries.note(now, slot);
            }
        }
    }

    /// After a start: which lite topics there are.
    pub(in crate::broker) fn start_lites(&mut self, now: Now) {
        let lights = self.store.queues().iter();
        let lites = lights.filter(|(_, queue)| is_light_id(queue.topic_id));
        for (slot, queue) in lites {
            if lite_parts(&queue.topic).is_some() {
                self.expiries.note(now, slot);
            }
        }
    }

    /// Pops whose clients have something to look at now.
    pub(in crate::broker) fn resume_lites(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while let Some(poll) = self.lites.next_wake() {
            run(self, now, poll, out);
        }
    }

    /// What of lite topics is due.
    pub(in crate::broker) fn expire_lites(&mut self, now: Now, out: &mut Outbox<Peer>) {
        while let Some(poll) = self.lites.expire(now) {
            answer_nothing(now, &poll.ask, response::POLLING_TIMEOUT, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_its_count() {
        assert_eq!(counts(&[]), "");
        assert_eq!(counts(&[(7, 0)]), "0");
        assert_eq!(counts(&[(7, 2), (8, 0), (0, 1)]), "0 qo0%7 2;0;0 qo0%0 1");
    }
}
