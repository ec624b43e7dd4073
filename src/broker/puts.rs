//! Messages the broker itself stores: retries, dead letters, deliveries of delayed messages.
//!
//! Whoever wants one stored sends a [`Put`] to the shard that owns the target queue and gets
//! [`Peer::PutDone`] once it is confirmed. A topic that does not exist yet is made by shard 0
//! first. Inside one shard the same way is taken without the mesh.

use crate::base::{LogOffset, Map, Now, ShardId};
use crate::broker::acks::{Ack, ReplyTo};
use crate::broker::control::effects::Reject;
use crate::broker::control::names::SCHEDULE_TOPIC;
use crate::broker::guard::Place;
use crate::broker::handle::guarded::First;
use crate::broker::leases::Lapsed;
use crate::broker::pending::Counted;
use crate::broker::timers::Timer;
use crate::broker::topics::{config_with, perm};
use crate::broker::{Broker, Peer, handle};
use crate::machine::Outbox;
use crate::message::encode::Draft;
use crate::remoting::body::topic::TopicConfig;
use crate::remoting::code::response;
use crate::store::dispatch::Dispatch;
use std::net::SocketAddr;

/// A message with everything it needs to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedMessage {
    pub topic: String,
    pub queue_id: i32,
    pub flag: i32,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub reconsume_times: i32,
    /// Physical offset of the half of a committed transaction, else 0.
    pub prepared_offset: i64,
    pub body: Vec<u8>,
    pub properties: Vec<u8>,
}

impl OwnedMessage {
    pub fn of(draft: &Draft<'_>) -> OwnedMessage {
        OwnedMessage {
            topic: draft.topic.to_owned(),
            queue_id: draft.queue_id,
            flag: draft.flag,
            sys_flag: draft.sys_flag,
            born_timestamp: draft.born_timestamp,
            born_host: draft.born_host,
            reconsume_times: draft.reconsume_times,
            prepared_offset: draft.prepared_transaction_offset,
            body: draft.body.to_vec(),
            properties: draft.properties.to_vec(),
        }
    }

    pub fn draft(&self, store_host: SocketAddr) -> Draft<'_> {
        Draft {
            topic: &self.topic,
            queue_id: self.queue_id,
            flag: self.flag,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            born_host: self.born_host,
            store_host,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: self.prepared_offset,
            body: &self.body,
            properties: &self.properties,
        }
    }
}

/// A wish to store one.
pub struct Put {
    /// Who is told.
    pub from: ShardId,
    pub ticket: u64,
    pub message: OwnedMessage,
    /// Queues of the topic if it has to be made; 0 if it must be there.
    pub queues_if_new: u32,
    /// Who asked forgets an older message for it: told only when it is durable, for the logs of two
    /// shards lose different ends in a power cut.
    pub firm: bool,
}

/// Where it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    pub at: crate::base::LogOffset,
    pub shard: ShardId,
    pub offset: u64,
}

/// Why a shard asked.
pub enum Purpose {
    /// `CONSUMER_SEND_MSG_BACK`: answer the consumer.
    Back { to: ReplyTo, oneway: bool },
    /// A delayed send: answer the producer, who named this queue.
    Send {
        to: ReplyTo,
        oneway: bool,
        queue_id: i32,
    },
    /// A message that the duplicate guard looks after.
    Guarded(Box<First>),
    /// A reply to a request message was pushed, or not (`trouble`): answer who sent it.
    Reply {
        to: ReplyTo,
        oneway: bool,
        queue_id: i32,
        trouble: Option<String>,
    },
    /// The message of a transaction: then that is over.
    Commit { to: Option<ReplyTo>, offset: u64 },
    /// A message whose time has come.
    Timed { timer: Timer, counted: Counted },
    /// A message that was popped and not acknowledged in time.
    Revive { lapsed: Lapsed },
    /// A half that waits for an operator.
    Park { offset: u64 },
    /// A delayed message is due.
    Delayed { level: usize, offset: u64 },
}

impl Purpose {
    /// Whether an older message is forgotten once this is done.
    fn replaces(&self) -> bool {
        match self {
            Purpose::Commit { .. }
            | Purpose::Timed { .. }
            | Purpose::Revive { .. }
            | Purpose::Park { .. }
            | Purpose::Delayed { .. } => true,
            Purpose::Back { .. }
            | Purpose::Send { .. }
            | Purpose::Guarded(_)
            | Purpose::Reply { .. } => false,
        }
    }
}

#[derive(Default)]
pub struct Puts {
    waiting: Map<u64, Purpose>,
    tickets: u64,
}

impl Broker {
    /// Has a message stored, wherever its queue is.
    pub(super) fn request_put(
        &mut self,
        now: Now,
        message: OwnedMessage,
        queues_if_new: u32,
        purpose: Purpose,
        out: &mut Outbox<Peer>,
    ) {
        self.puts.tickets += 1;
        let ticket = self.puts.tickets;
        let firm = purpose.replaces();
        self.puts.waiting.insert(ticket, purpose);
        self.put(
            now,
            Put {
                from: self.me,
                ticket,
                message,
                queues_if_new,
                firm,
            },
            out,
        );
    }

    /// Stores a message of somebody's, or passes the wish on to who can.
    pub(super) fn put(&mut self, now: Now, put: Put, out: &mut Outbox<Peer>) {
        let Some(topic) = self.snapshot.topics.get(&put.message.topic).cloned() else {
            return self.put_without_topic(now, put, out);
        };
        match self.owner(&topic, put.message.queue_id) {
            Some(owner) if owner == self.me => self.put_here(now, put, topic.id, out),
            Some(owner) => out.peers.push((owner, Peer::Put(Box::new(put)))),
            None => {
                let queue = put.message.queue_id;
                let remark = format!("topic {} has no queue {queue}", topic.name);
                let reject = Reject::new(response::INVALID_PARAMETER, remark);
                self.tell_put(now, put.from, put.ticket, Err(reject), out);
            }
        }
    }

    fn put_without_topic(&mut self, now: Now, put: Put, out: &mut Outbox<Peer>) {
        let missing = |topic: &str| {
            Reject::new(
                response::TOPIC_NOT_EXIST,
                format!("topic[{topic}] not exist"),
            )
        };
        if put.queues_if_new == 0 {
            let reject = missing(&put.message.topic);
            return self.tell_put(now, put.from, put.ticket, Err(reject), out);
        }
        if self.lead.is_none() {
            return out.peers.push((ShardId(0), Peer::Put(Box::new(put))));
        }
        if let Err(refused) = self.store.check_append() {
            let reject = self.refuse(refused);
            return self.tell_put(now, put.from, put.ticket, Err(reject), out);
        }
        let lead = self.lead.as_mut().expect("checked above");
        let topic_name = put.message.topic.clone();
        let config = TopicConfig {
            topic_name,
            ..config_with(put.queues_if_new, perm::READ | perm::WRITE)
        };
        let effects = lead.publication.effects();
        let made = lead.control.ensure_topic(now, config, effects);
        let (from, ticket) = (put.from, put.ticket);
        let reject = match made {
            Ok(version) if lead.publication.put_later(version, put) => return,
            Ok(_) => Reject::new(
                response::SYSTEM_BUSY,
                "too many requests wait for new topics",
            ),
            Err(reject) => reject,
        };
        self.tell_put(now, from, ticket, Err(reject), out);
    }

    fn put_here(&mut self, now: Now, put: Put, topic_id: u64, out: &mut Outbox<Peer>) {
        if self.is_for_lights(&put.message) {
            return self.put_light(now, put, out);
        }
        let Put {
            from,
            ticket,
            message,
            firm,
            ..
        } = put;
        let slot = match self
            .store
            .open_queue(now, &message.topic, topic_id, message.queue_id)
        {
            Ok(slot) => slot,
            Err(refused) => {
                let reject = self.refuse(refused);
                return self.tell_put(now, from, ticket, Err(reject), out);
            }
        };
        if let Err(refused) = self.store.check_message() {
            let reject = self.refuse(refused);
            return self.tell_put(now, from, ticket, Err(reject), out);
        }
        let draft = message.draft(self.options.store_host);
        if let Err(error) = draft.check() {
            let reject = Reject::new(response::MESSAGE_ILLEGAL, error.to_string());
            return self.tell_put(now, from, ticket, Err(reject), out);
        }
        let dispatch = Dispatch::of(&message.topic, &message.properties);
        let appended = self.store.append(now, slot, &draft, &dispatch);
        self.stats.put(1, message.body.len());
        if message.topic == SCHEDULE_TOPIC {
            self.notice_delayed(message.queue_id as usize);
        }
        let stored = Stored {
            at: appended.at,
            shard: self.me,
            offset: appended.offset.0,
        };
        self.ack_put(from, ticket, firm, appended.end, stored);
    }

    /// A message is stored: who asked is told once that is safe.
    pub(super) fn ack_put(
        &mut self,
        from: ShardId,
        ticket: u64,
        firm: bool,
        end: LogOffset,
        stored: Stored,
    ) {
        let ack = Ack::Put {
            from,
            ticket,
            stored,
        };
        match firm && from != self.me {
            true => self.firm_acks.push(end, ack),
            false => self.acks.push(end, ack),
        }
    }

    pub(super) fn tell_put(
        &mut self,
        now: Now,
        from: ShardId,
        ticket: u64,
        result: Result<Stored, Reject>,
        out: &mut Outbox<Peer>,
    ) {
        if from == self.me {
            self.put_done(now, ticket, result, out);
        } else {
            out.peers.push((from, Peer::PutDone { ticket, result }));
        }
    }

    /// A message this shard asked for is stored, or was refused.
    pub(super) fn put_done(
        &mut self,
        now: Now,
        ticket: u64,
        result: Result<Stored, Reject>,
        out: &mut Outbox<Peer>,
    ) {
        let purpose = self
            .puts
            .waiting
            .remove(&ticket)
            .expect("a ticket is answered once");
        match purpose {
            Purpose::Back { oneway: true, .. }
            | Purpose::Send { oneway: true, .. }
            | Purpose::Reply { oneway: true, .. } => {}
            Purpose::Reply {
                to,
                queue_id,
                trouble,
                ..
            } => handle::reply::stored(self, to, queue_id, trouble, &result, out),
            Purpose::Back { to, .. } => match result {
                Ok(_) => handle::succeed(to, out),
                Err(reject) => handle::reject_to(to, &reject, out),
            },
            Purpose::Send { to, queue_id, .. } => match result {
                Ok(stored) => {
                    let told = (response::SUCCESS, None);
                    handle::send::answer_stored(self, to, queue_id, &stored, told, out);
                }
                Err(reject) => handle::reject_to(to, &reject, out),
            },
            Purpose::Guarded(first) => {
                let queue_id = first.queue_id;
                let result = result.map(|stored| Place { stored, queue_id });
                handle::guarded::ended(self, now, *first, result, out);
            }
            Purpose::Commit { to, offset } => {
                let result = result.map(drop);
                handle::transaction::stored_elsewhere(self, now, to, offset, result, out);
            }
            Purpose::Timed { timer, counted } => {
                let again = result.as_ref().is_err_and(is_passing);
                self.stats.undeliverable += u64::from(result.is_err() && !again);
                self.timers.delivered(now, timer, counted, !again);
            }
            Purpose::Revive { lapsed } => {
                let again = result.as_ref().is_err_and(is_passing);
                self.stats.undeliverable += u64::from(result.is_err() && !again);
                self.leases.revived(now, lapsed, !again);
                self.log_leases(now);
            }
            Purpose::Park { offset } => {
                handle::transaction::parked(self, now, offset, result.is_ok());
            }
            Purpose::Delayed { level, offset } => {
                let again = result.as_ref().is_err_and(is_passing);
                self.stats.undeliverable += u64::from(result.is_err() && !again);
                self.delays.delivered(now, level, offset, !again);
            }
        }
    }
}

/// Whether the same wish may be granted later.
fn is_passing(reject: &Reject) -> bool {
    [response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE].contains(&reject.code)
}
