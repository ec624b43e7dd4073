//! Control state of a broker: topics, subscription groups, who is connected, and order locks.
//!
//! It has one writer, [`Control`], on shard 0. All shards, shard 0 too, read an immutable
//! [`Snapshot`]. A durable change is planned as a record, applied to the working tables and handed
//! out in [`Effects`] together with the answer; the working tables are ahead of what is durable, so
//! every answer, also one that only reads or repeats a change that is still on its way, names the
//! version that must be durable and published before it may be sent. Nothing is seen early.
//!
//! Versions count changes, of durable tables and of memberships. After a restart they begin anew.
//!
//! The owner of [`Control`] must tell [`Control::closed`] after the last request of a connection.
//!
//! Not here: offsets, statistics, static topics.

pub mod attributes;
pub mod create;
pub mod effects;
pub mod names;
pub mod options;

#[cfg(test)]
mod history;

use std::sync::Arc;

use crate::base::{ConnId, Mono, Now};
use crate::broker::assignment::Modes;
use crate::broker::groups::Groups;
use crate::broker::handle::{assignment, connection, group, lock, member, topic};
use crate::broker::locks::Locks;
use crate::broker::members::Members;
use crate::broker::record::{GroupPut, Record, RecordError, TopicPut};
use crate::broker::snapshot::Snapshot;
use crate::broker::topics::{Topic, Topics};
use crate::machine::Link;
use crate::remoting::body::group::GroupConfig;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::{Codec, FRAME_BYTES_MAX};
use effects::{Answer, Effects, Reject};
use names::SystemTopics;
use options::ControlOptions;

/// How often members and locks are looked through.
const SCAN_MS: u64 = 10_000;

/// Whether a request was one for control state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handled {
    Yes,
    NotMine,
}

/// One request on its way through a handler.
pub struct Call<'a> {
    pub now: Now,
    pub link: &'a Link,
    pub command: &'a Command<'a>,
}

/// A successful response.
#[derive(Default)]
pub struct Reply {
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn empty() -> Self {
        Reply::default()
    }

    pub fn body(body: Vec<u8>) -> Self {
        Reply {
            fields: Vec::new(),
            body,
        }
    }
}

/// The one writer of control state.
pub struct Control {
    pub(in crate::broker) options: ControlOptions,
    pub(in crate::broker) system: SystemTopics,
    pub(in crate::broker) topics: Topics,
    pub(in crate::broker) groups: Groups,
    pub(in crate::broker) modes: Modes,
    pub(in crate::broker) members: Members,
    pub(in crate::broker) locks: Locks,
    /// Wall ms.
    pub(in crate::broker) started_ms: i64,
    version: u64,
    snapshot: Arc<Snapshot>,
    /// Set while there are members or locks.
    next_scan: Option<Mono>,
}

impl Control {
    pub fn new(options: ControlOptions) -> Self {
        let trace = options.trace_topic.as_deref();
        Control {
            system: SystemTopics::new(&options.cluster, &options.broker_name, trace),
            topics: Topics::new(options.shards),
            groups: Groups::default(),
            modes: Modes::default(),
            members: Members::new(options.members_max, options.reject_different_subscription),
            locks: Locks::new(options.locks_max),
            started_ms: 0,
            version: 0,
            snapshot: Arc::new(Snapshot::empty()),
            next_scan: None,
            options,
        }
    }

    /// Replays one record, from the log or from a dump.
    pub fn apply(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        let record = Record::decode(payload)?;
        if let Record::TopicPut(put) = &record {
            let shards = self.topics.shards();
            let strange = put
                .topic
                .owners
                .iter()
                .find(|owner| usize::from(owner.0) >= shards);
            if let Some(owner) = strange {
                return Err(RecordError::UnknownShard {
                    shard: owner.0,
                    shards,
                });
            }
        }
        self.take(record);
        Ok(())
    }

    /// Gives all durable tables as records, for a snapshot file. They are as of the last record
    /// that was handed out, which may not be durable yet: the file counts only once that one is.
    pub fn dump(&self, each: &mut dyn FnMut(&[u8])) {
        let mut payload = Vec::new();
        let mut give = |record: Record| {
            payload.clear();
            record.encode(&mut payload);
            each(&payload);
        };
        for topic in self.topics.sorted() {
            give(Record::TopicPut(TopicPut {
                stamp: self.topics.stamp(),
                topic: Topic::clone(topic),
            }));
        }
        for group in self.groups.sorted() {
            give(Record::GroupPut(GroupPut {
                stamp: self.groups.stamp(),
                group: GroupConfig::clone(group),
            }));
        }
        for (topic, group, mode) in self.modes.iter() {
            give(Record::Mode {
                topic: topic.to_owned(),
                group: group.to_owned(),
                mode,
            });
        }
        for (group, topics) in self.groups.forbidden().iter() {
            for topic in topics.iter() {
                give(Record::Forbidden {
                    stamp: self.groups.stamp(),
                    group: group.to_string(),
                    topic: topic.to_string(),
                    forbidden: true,
                });
            }
        }
        for (group, queue, client) in self.locks.iter() {
            give(Record::Lock {
                group: group.to_string(),
                queue: queue.clone(),
                client: Some(client.to_string()),
            });
        }
        give(Record::Counters {
            topics: self.topics.stamp(),
            groups: self.groups.stamp(),
            next_topic_id: self.topics.next_id(),
        });
    }

    /// Answers a request if its code is one of control state's. The answer is in `effects`.
    pub fn handle(
        &mut self,
        now: Now,
        link: &Link,
        command: &Command<'_>,
        effects: &mut Effects,
    ) -> Handled {
        let call = Call { now, link, command };
        let result = match command.code {
            request::UPDATE_AND_CREATE_TOPIC => topic::update(self, &call, effects),
            request::UPDATE_AND_CREATE_TOPIC_LIST => topic::update_list(self, &call, effects),
            request::DELETE_TOPIC_IN_BROKER => topic::delete(self, &call, &[], effects),
            request::GET_ALL_TOPIC_CONFIG => topic::all(self, &call),
            request::GET_TOPIC_CONFIG => topic::one(self, &call),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => group::update(self, &call, effects),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
                group::update_list(self, &call, effects)
            }
            request::DELETE_SUBSCRIPTIONGROUP => group::delete(self, &call, effects),
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => group::all(self, &call),
            request::UPDATE_AND_GET_GROUP_FORBIDDEN => group::forbid(self, &call, effects),
            request::GET_SUBSCRIPTIONGROUP_CONFIG => group::one(self, &call, effects),
            request::SET_MESSAGE_REQUEST_MODE => assignment::set_mode(self, &call, effects),
            request::HEART_BEAT => member::heartbeat(self, &call, effects),
            request::UNREGISTER_CLIENT => member::unregister(self, &call, effects),
            request::GET_CONSUMER_LIST_BY_GROUP => member::client_ids(self, &call),
            request::LOCK_BATCH_MQ => lock::lock(self, &call, effects),
            request::UNLOCK_BATCH_MQ => lock::unlock(self, &call, effects),
            request::GET_CONSUMER_CONNECTION_LIST => connection::consumers(self, &call),
            request::GET_PRODUCER_CONNECTION_LIST => connection::producers(self, &call),
            request::GET_ALL_PRODUCER_INFO => connection::all_producers(self),
            request::GET_ALL_MESSAGE_REQUEST_MODE => assignment::all_modes(self),
            request::QUERY_SUBSCRIPTION_BY_CONSUMER => connection::subscription(self, &call),
            request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topic::system(self),
            _ => return Handled::NotMine,
        };
        self.answer(&call, result, effects);
        Handled::Yes
    }

    /// Answers 215 with the groups that have offsets on the topic: their pop retry topics of it go
    /// as well. [`Control::handle`] does the same with no groups.
    pub fn delete_topic(
        &mut self,
        now: Now,
        link: &Link,
        command: &Command<'_>,
        consumed_by: &[&str],
        effects: &mut Effects,
    ) {
        let call = Call { now, link, command };
        let result = topic::delete(self, &call, consumed_by, effects);
        self.answer(&call, result, effects);
    }

    fn answer(&mut self, call: &Call<'_>, result: Result<Reply, Reject>, effects: &mut Effects) {
        self.notice_locks();
        effects.notes.extend(self.members.take_notes());
        if call.command.is_oneway() {
            return;
        }
        let mut frame = encode(call.command, &result);
        if frame.len() > FRAME_BYTES_MAX {
            let remark = format!(
                "the answer has {} bytes, a frame at most {FRAME_BYTES_MAX}: ask in pages",
                frame.len()
            );
            frame = encode(
                call.command,
                &Err(Reject::new(response::SYSTEM_ERROR, remark)),
            );
        }
        effects.answers.push(Answer {
            conn: call.link.conn,
            frame,
            version: self.version,
        });
    }

    /// A planned change takes effect and goes to the log.
    pub(in crate::broker) fn commit(&mut self, record: Record, effects: &mut Effects) {
        let mut payload = Vec::new();
        record.encode(&mut payload);
        effects.records.push(payload);
        self.take(record);
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::TopicPut(put) => {
                self.topics.put(put);
            }
            Record::TopicDelete { stamp, id, name } => {
                self.topics.restore(stamp, id + 1);
                self.topics.remove(&name, stamp);
                self.modes.drop_topic(&name);
            }
            Record::Mode { topic, group, mode } => self.modes.put(&topic, &group, mode),
            Record::Forbidden {
                stamp,
                group,
                topic,
                forbidden,
            } => self.groups.forbid(&group, &topic, forbidden, stamp),
            Record::Lock {
                group,
                queue,
                client,
            } => self.locks.put(&group, &queue, client.as_deref()),
            Record::GroupPut(put) => self.groups.put(put),
            Record::GroupDelete { stamp, name, .. } => {
                self.groups.remove(&name, stamp);
                self.modes.drop_group(&name);
            }
            Record::Counters {
                topics,
                groups,
                next_topic_id,
            } => {
                self.topics.restore(topics, next_topic_id);
                self.groups.restore(groups);
            }
        }
        self.version += 1;
    }

    /// Shards need a new snapshot for a reason that is not durable.
    pub(in crate::broker) fn changed(&mut self) {
        self.version += 1;
    }

    /// Members or locks are there now: they will be looked through.
    pub(in crate::broker) fn scan_later(&mut self, now: Now) {
        self.next_scan.get_or_insert(now.mono.after_ms(SCAN_MS));
    }

    fn notice_locks(&mut self) {
        if self.locks.take_changed() {
            self.version += 1;
        }
    }

    /// A connection is gone: it leaves its groups, and those who stay are told.
    pub fn closed(&mut self, conn: ConnId, effects: &mut Effects) {
        let (consumer, producer) = self.members.groups_of(conn);
        for group in producer {
            self.members.leave_producers(&group, conn);
        }
        for group in consumer {
            member::leave(self, &group, conn, effects);
        }
        if self.members.forget_refusals(conn) {
            self.changed();
        }
        effects.notes.extend(self.members.take_notes());
    }

    /// Ends what is overdue, if it is time to look.
    pub fn expire(&mut self, now: Now, effects: &mut Effects) {
        if self.next_scan.is_none_or(|at| now.mono < at) {
            return;
        }
        let [consumers, producers] = self
            .members
            .overdue(now.mono, self.options.channel_expired_ms);
        for (group, conn) in producers {
            self.members.leave_producers(&group, conn);
            effects.closes.push(conn);
        }
        for (group, conn) in consumers {
            member::leave(self, &group, conn, effects);
            effects.closes.push(conn);
        }
        effects.notes.extend(self.members.take_notes());
        effects.closes.sort_unstable();
        effects.closes.dedup();
        self.locks.sweep(now.mono);
        self.notice_locks();
        let idle = self.members.is_empty() && self.locks.is_empty();
        self.next_scan = (!idle).then(|| now.mono.after_ms(SCAN_MS));
    }

    /// When [`Control::expire`] wants to be called.
    pub fn deadline(&self) -> Option<Mono> {
        self.next_scan
    }

    /// What a snapshot taken now would have as its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The tables as they are now, for all shards. Costs nothing if nothing changed.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if self.snapshot.version != self.version {
            self.snapshot = Arc::new(Snapshot {
                version: self.version,
                topics: self.topics.table().clone(),
                topics_stamp: self.topics.stamp(),
                groups: self.groups.table().clone(),
                forbidden: self.groups.forbidden().clone(),
                subscriptions: self.members.subscriptions().clone(),
                refusals: Arc::clone(self.members.refusals()),
                order_locks: self.locks.shared().clone(),
            });
        }
        Arc::clone(&self.snapshot)
    }
}

/// The frame that answers `command`, in its codec.
fn encode(command: &Command<'_>, result: &Result<Reply, Reject>) -> Vec<u8> {
    let mut frame = Vec::new();
    let (codec, opaque): (Codec, i32) = (command.codec, command.opaque);
    match result {
        Ok(reply) => {
            let code = response::SUCCESS;
            let mut writer = FrameWriter::response(&mut frame, codec, opaque, code, None);
            for (key, value) in &reply.fields {
                writer.field_str(key, value);
            }
            writer.finish_with_body(&reply.body);
        }
        Err(Reject { code, remark, .. }) => {
            FrameWriter::response(&mut frame, codec, opaque, *code, Some(remark)).finish(0);
        }
    }
    frame
}
