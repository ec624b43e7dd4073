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
//! Not here: offsets, statistics, forbidden (group, topic) pairs, static topics.

pub mod attributes;
pub mod effects;
pub mod names;

use std::sync::Arc;

use crate::base::{ConnId, Mono, Now};
use crate::broker::groups::Groups;
use crate::broker::handle::{connection, group, lock, member, topic};
use crate::broker::locks::Locks;
use crate::broker::members::Members;
use crate::broker::record::{GroupPut, Record, RecordError, TopicPut};
use crate::broker::snapshot::Snapshot;
use crate::broker::topics::{Topic, Topics, config_with, perm, queues, sys_flag};
use crate::machine::Link;
use crate::remoting::body::group::GroupConfig;
use crate::remoting::body::topic::TopicConfig;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::{Codec, FRAME_BYTES_MAX};
use effects::{Answer, Effects, Reject};
use names::SystemTopics;

/// How often members and locks are looked through.
const SCAN_MS: u64 = 10_000;

/// What a broker lets its control state be.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    pub cluster: String,
    pub broker_name: String,
    /// The store's number of shards.
    pub shards: u16,
    /// Whether a send may create its topic (`autoCreateTopicEnable`).
    pub auto_create_topic: bool,
    /// Whether a consumer may create its group (`autoCreateSubscriptionGroup`).
    pub auto_create_group: bool,
    /// Queues of the model for created topics (`defaultTopicQueueNums`).
    pub default_topic_queues: u32,
    pub cluster_topic_enable: bool,
    pub broker_topic_enable: bool,
    /// Queues of the topic that pop acknowledgements go to (`reviveQueueNum`).
    pub revive_queues: u32,
    /// The trace topic if the broker makes one (`traceTopicEnable`, `msgTraceTopicName`).
    pub trace_topic: Option<String>,
    pub reject_pull_consumer: bool,
    pub notify_consumer_ids_changed: bool,
    /// Whether topics may be for messages of all kinds (`enableMixedMessageType`).
    pub mixed_message_type: bool,
    /// A member without a heartbeat for this long is gone.
    pub channel_expired_ms: u64,
    /// Entries of one page of topics or groups (`splitMetadataSize`).
    pub page_max: usize,
    pub topics_max: usize,
    /// Queues of all topics.
    pub queues_max: u64,
    pub groups_max: usize,
    /// Connections in groups, counted once per group.
    pub members_max: usize,
    /// Topics one group subscribes to.
    pub subscriptions_max: usize,
    /// Order locks of all groups.
    pub locks_max: usize,
}

impl Default for ControlOptions {
    fn default() -> Self {
        ControlOptions {
            cluster: "DefaultCluster".to_owned(),
            broker_name: "broker-a".to_owned(),
            shards: 1,
            auto_create_topic: true,
            auto_create_group: true,
            default_topic_queues: 8,
            cluster_topic_enable: true,
            broker_topic_enable: true,
            revive_queues: 8,
            trace_topic: None,
            reject_pull_consumer: false,
            notify_consumer_ids_changed: true,
            mixed_message_type: false,
            channel_expired_ms: 120_000,
            page_max: 2000,
            topics_max: 200_000,
            queues_max: 1_000_000,
            groups_max: 100_000,
            members_max: 200_000,
            subscriptions_max: 4096,
            locks_max: 1_000_000,
        }
    }
}

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

/// A topic that a send names and nobody created yet.
#[derive(Clone, Copy, Debug)]
pub struct SendTopic<'a> {
    pub topic: &'a str,
    /// The topic that the client names as model.
    pub default_topic: &'a str,
    pub default_queues: i32,
    pub unit_mode: bool,
}

/// The one writer of control state.
pub struct Control {
    pub(in crate::broker) options: ControlOptions,
    pub(in crate::broker) system: SystemTopics,
    pub(in crate::broker) topics: Topics,
    pub(in crate::broker) groups: Groups,
    pub(in crate::broker) members: Members,
    pub(in crate::broker) locks: Locks,
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
            members: Members::new(options.members_max),
            locks: Locks::new(options.locks_max),
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

    /// Gives all durable tables as records, for a snapshot file.
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
        give(Record::Counters {
            topics: self.topics.stamp(),
            groups: self.groups.stamp(),
            next_topic_id: self.topics.next_id(),
        });
    }

    /// After the replay: creates what every broker has and this one lacks.
    pub fn start(&mut self, now: Now, effects: &mut Effects) {
        for config in self.startup_topics() {
            if !self.topics.table().contains(&config.topic_name) {
                self.put_topic(now, config, effects);
            }
        }
        for name in names::RESERVED_GROUPS {
            if !self.groups.table().contains(name) {
                self.put_group(now, new_group(name), effects);
            }
        }
    }

    /// As `TopicConfigManager.init`.
    fn startup_topics(&self) -> Vec<TopicConfig> {
        let options = &self.options;
        let both = perm::READ | perm::WRITE;
        let inherited = |open: bool| perm::INHERIT | if open { both } else { 0 };
        let topic = |name: &str, queues, perm| TopicConfig {
            topic_name: name.to_owned(),
            ..config_with(queues, perm)
        };
        let mut topics = vec![
            topic(names::SELF_TEST_TOPIC, 1, both),
            topic(names::BENCHMARK_TOPIC, 1024, both),
            topic(
                &options.cluster,
                16,
                inherited(options.cluster_topic_enable),
            ),
            topic(
                &options.broker_name,
                1,
                inherited(options.broker_topic_enable),
            ),
            topic(names::OFFSET_MOVED_EVENT, 1, both),
            topic(names::SCHEDULE_TOPIC, 18, both),
            topic(&names::reply_topic(&options.cluster), 1, both),
            topic(
                &names::revive_topic(&options.cluster),
                options.revive_queues,
                both,
            ),
            topic(
                &names::sync_member_topic(&options.broker_name),
                1,
                perm::INHERIT,
            ),
            topic(names::TRANS_HALF_TOPIC, 1, both),
            topic(names::TRANS_OP_HALF_TOPIC, 1, both),
            topic(names::ROCKSDB_TRANS_HALF_TOPIC, 1, both),
            topic(names::ROCKSDB_TRANS_OP_HALF_TOPIC, 1, both),
            topic(names::TIMER_TOPIC, 1, both),
        ];
        if options.auto_create_topic {
            let queues = options.default_topic_queues;
            topics.push(topic(names::AUTO_CREATE_TOPIC, queues, inherited(true)));
        }
        topics.extend(
            options
                .trace_topic
                .as_deref()
                .map(|name| topic(name, 1, both)),
        );
        topics
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
            request::GET_SUBSCRIPTIONGROUP_CONFIG => group::one(self, &call, effects),
            request::HEART_BEAT => member::heartbeat(self, &call, effects),
            request::UNREGISTER_CLIENT => member::unregister(self, &call, effects),
            request::GET_CONSUMER_LIST_BY_GROUP => member::client_ids(self, &call),
            request::LOCK_BATCH_MQ => lock::lock(self, &call),
            request::UNLOCK_BATCH_MQ => lock::unlock(self, &call),
            request::GET_CONSUMER_CONNECTION_LIST => connection::consumers(self, &call),
            request::GET_PRODUCER_CONNECTION_LIST => connection::producers(self, &call),
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

    /// Creates the topic of a send, if the client's default topic or its own name allows it. Gives
    /// the version to wait for; also for a topic that is there already or on its way.
    pub fn ensure_send_topic(
        &mut self,
        now: Now,
        wish: &SendTopic<'_>,
        effects: &mut Effects,
    ) -> Result<u64, Reject> {
        if self.topics.table().contains(wish.topic) {
            return Ok(self.version);
        }
        let refused = |remark| Reject::new(response::INVALID_PARAMETER, remark);
        names::check_topic(wish.topic).map_err(refused)?;
        let is_retry = wish.topic.starts_with(names::RETRY_PREFIX);
        let unit = if is_retry {
            sys_flag::UNIT_SUB
        } else {
            sys_flag::UNIT
        };
        let config = match self.model(wish) {
            Some(config) => config,
            None if is_retry => config_with(1, perm::READ | perm::WRITE),
            None => {
                let remark = format!("topic[{}] not exist, apply first please!", wish.topic);
                return Err(Reject::new(response::TOPIC_NOT_EXIST, remark));
            }
        };
        let config = TopicConfig {
            topic_name: wish.topic.to_owned(),
            topic_sys_flag: if wish.unit_mode { unit } else { 0 },
            ..config
        };
        self.ensure_topic(now, config, effects)
    }

    /// What the client's default topic makes of a new topic; `None` if it is no model.
    fn model(&self, wish: &SendTopic<'_>) -> Option<TopicConfig> {
        let model = &self.topics.get(wish.default_topic)?.config;
        let closed =
            wish.default_topic == names::AUTO_CREATE_TOPIC && !self.options.auto_create_topic;
        if closed || model.perm & perm::INHERIT == 0 {
            return None;
        }
        let queues = wish.default_queues.clamp(0, model.write_queue_nums);
        Some(TopicConfig {
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: model.perm & !perm::INHERIT,
            topic_filter_type: model.topic_filter_type,
            ..TopicConfig::default()
        })
    }

    /// Creates a topic the broker itself needs (retry, dead letters). Leaves one that is there as it
    /// is. Gives the version to wait for.
    pub fn ensure_topic(
        &mut self,
        now: Now,
        config: TopicConfig,
        effects: &mut Effects,
    ) -> Result<u64, Reject> {
        if !self.topics.table().contains(&config.topic_name) {
            self.check_topic_limits([&config])?;
            self.put_topic(now, config, effects);
        }
        Ok(self.version)
    }

    /// Creates a group that a consumer names, if the broker may. Gives the version to wait for, also
    /// for a group that is there already or on its way; `None` if the group may not be created.
    pub fn ensure_group(
        &mut self,
        now: Now,
        name: &str,
        effects: &mut Effects,
    ) -> Result<Option<u64>, Reject> {
        if !self.groups.table().contains(name) {
            let allowed =
                self.options.auto_create_group || name.starts_with(names::SYSTEM_GROUP_PREFIX);
            if !allowed || names::check_group(name).is_err() {
                return Ok(None);
            }
            self.check_group_limit(1)?;
            self.put_group(now, new_group(name), effects);
        }
        Ok(Some(self.version))
    }

    /// Whether all of these topics may be created or take so many queues, each named once.
    pub(in crate::broker) fn check_topic_limits<'c>(
        &self,
        wanted: impl IntoIterator<Item = &'c TopicConfig>,
    ) -> Result<(), Reject> {
        let busy = |remark| Err(Reject::new(response::SYSTEM_BUSY, remark));
        let (mut topics, mut total) = (self.topics.table().len(), self.topics.queues());
        let (topics_max, queues_max) = (self.options.topics_max, self.options.queues_max);
        for config in wanted {
            let name = &config.topic_name;
            let known = self.topics.get(name);
            topics += usize::from(known.is_none());
            if known.is_none() && topics > topics_max {
                return busy(format!(
                    "topic {name} would be number {topics} of this broker, the limit is {topics_max}"
                ));
            }
            let owned = known.map_or(0, |topic| topic.owners.len() as u64);
            let more = u64::from(queues(config)).saturating_sub(owned);
            total += more;
            if more > 0 && total > queues_max {
                return busy(format!(
                    "topic {name} would bring this broker to {total} queues, the limit is \
                     {queues_max}"
                ));
            }
        }
        Ok(())
    }

    /// Whether `more` groups can be created.
    pub(in crate::broker) fn check_group_limit(&self, more: usize) -> Result<(), Reject> {
        let (count, most) = (self.groups.table().len() + more, self.options.groups_max);
        if more > 0 && count > most {
            let remark = format!("this broker would have {count} groups, the limit is {most}");
            return Err(Reject::new(response::SYSTEM_BUSY, remark));
        }
        Ok(())
    }

    /// Creates or changes a topic whose name and limits are checked. Without a change, no record.
    pub(in crate::broker) fn put_topic(
        &mut self,
        now: Now,
        config: TopicConfig,
        effects: &mut Effects,
    ) {
        let known = self.topics.get(&config.topic_name);
        if known.is_some_and(|topic| topic.config == config) {
            return;
        }
        let put = self
            .topics
            .plan(config, self.topics.stamp().next(now.wall_ms));
        effects.changed_topics.push(Arc::clone(&put.topic.name));
        self.commit(Record::TopicPut(put), effects);
    }

    /// Creates or changes a group whose name and limits are checked. Without a change, no record.
    pub(in crate::broker) fn put_group(
        &mut self,
        now: Now,
        group: GroupConfig,
        effects: &mut Effects,
    ) {
        let known = self.groups.get(&group.group_name);
        if known.is_some_and(|known| **known == group) {
            return;
        }
        let stamp = self.groups.stamp().next(now.wall_ms);
        self.commit(Record::GroupPut(GroupPut { stamp, group }), effects);
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
            }
            Record::GroupPut(put) => self.groups.put(put),
            Record::GroupDelete { stamp, name, .. } => self.groups.remove(&name, stamp),
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
                subscriptions: self.members.subscriptions().clone(),
                order_locks: self.locks.shared().clone(),
            });
        }
        Arc::clone(&self.snapshot)
    }
}

fn new_group(name: &str) -> GroupConfig {
    GroupConfig {
        group_name: name.to_owned(),
        ..GroupConfig::default()
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
        Err(Reject { code, remark }) => {
            FrameWriter::response(&mut frame, codec, opaque, *code, Some(remark)).finish(0);
        }
    }
    frame
}
