//! Creating and changing topics and groups: at start, for a client's sake, by request; and the
//! limits.
//!
//! Source: `TopicConfigManager`, `SubscriptionGroupManager`,
//! `AbstractSendMessageProcessor.msgCheck`; spec page semantics §1.

use std::sync::Arc;

use super::effects::{Effects, Reject};
use super::{Control, names};
use crate::base::Now;
use crate::broker::record::{GroupPut, Record};
use crate::broker::topics::{config_with, perm, queues, sys_flag};
use crate::remoting::body::group::GroupConfig;
use crate::remoting::body::topic::TopicConfig;
use crate::remoting::code::response;

/// A topic that a send names and nobody created yet.
#[derive(Clone, Copy, Debug)]
pub struct SendTopic<'a> {
    pub topic: &'a str,
    /// The topic that the client names as model.
    pub default_topic: &'a str,
    pub default_queues: i32,
    pub unit_mode: bool,
}

impl Control {
    /// After the replay: creates what every broker has and this one lacks.
    pub fn start(&mut self, now: Now, effects: &mut Effects) {
        self.started_ms = now.wall_ms;
        self.locks.start(now.mono);
        if !self.locks.is_empty() {
            self.scan_later(now);
        }
        for config in self.startup_topics() {
            let known = self.topics.table().get(&config.topic_name);
            // A store of an earlier version has one queue of halves.
            let grows = config.topic_name == names::TRANS_HALF_TOPIC
                && known
                    .is_some_and(|topic| topic.config.write_queue_nums < config.write_queue_nums);
            if known.is_none() || grows {
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
            // One for each shard: a half lies where its message will.
            topic(names::TRANS_HALF_TOPIC, u32::from(options.shards), both),
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

    /// Creates a topic the broker itself needs (retry, dead letters). Leaves one that is there as
    /// it is. Gives the version to wait for.
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

    /// Creates a group that a consumer names, if the broker may. Gives the version to wait for,
    /// also for a group that is there already or on its way; `None` if the group may not be
    /// created.
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
                    "topic {name} would be number {topics} of this broker, the limit is \
                     {topics_max}"
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
}

fn new_group(name: &str) -> GroupConfig {
    GroupConfig {
        group_name: name.to_owned(),
        ..GroupConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::control::options::ControlOptions;
    use crate::broker::handle::rig::Rig;

    /// A send's topic: `queues perm sys-flag` of what is created, or the refusal.
    fn check(options: &ControlOptions, topic: &str, model: &str, queues: i32, expected: &str) {
        let mut rig = Rig::new(options.clone());
        let wish = SendTopic {
            topic,
            default_topic: model,
            default_queues: queues,
            unit_mode: true,
        };
        let seen = match rig
            .control
            .ensure_send_topic(rig.now, &wish, &mut rig.effects)
        {
            Err(reject) => format!("{} {}", reject.code, reject.remark),
            Ok(version) => {
                assert_eq!(version, rig.control.version());
                let snapshot = rig.control.snapshot();
                let config = &snapshot.topics.get(topic).unwrap().config;
                let queues = (config.read_queue_nums, config.write_queue_nums);
                format!("{queues:?} {} {}", config.perm, config.topic_sys_flag)
            }
        };
        assert_eq!(seen, expected, "{topic} {model} {queues}");
        let records = rig.effects.records.len();
        let again = rig
            .control
            .ensure_send_topic(rig.now, &wish, &mut rig.effects);
        assert_eq!(
            again.is_ok(),
            records == 1,
            "a repetition waits for the same version"
        );
        assert_eq!(rig.effects.records.len(), records);
    }

    #[test]
    fn sends_create_topics() {
        let open = &ControlOptions::default();
        check(open, "t", "TBW102", 4, "(4, 4) 6 1");
        check(open, "t", "TBW102", 100, "(8, 8) 6 1");
        check(open, "t", "TBW102", -1, "(0, 0) 6 1");
        check(open, "t", "DefaultCluster", 100, "(16, 16) 6 1");
        check(
            open,
            "t",
            "BenchmarkTest",
            4,
            "17 topic[t] not exist, apply first please!",
        );
        check(
            open,
            "t",
            "nope",
            4,
            "17 topic[t] not exist, apply first please!",
        );
        check(open, "%RETRY%g", "nope", 4, "(1, 1) 6 2");
        check(open, "", "TBW102", 4, "29 The specified topic is blank.");
        let closed = &ControlOptions {
            auto_create_topic: false,
            ..ControlOptions::default()
        };
        check(
            closed,
            "t",
            "TBW102",
            4,
            "17 topic[t] not exist, apply first please!",
        );
        check(closed, "%RETRY%g", "TBW102", 4, "(1, 1) 6 2");
        let full = &ControlOptions {
            topics_max: 15,
            ..ControlOptions::default()
        };
        let refusal = "2 topic t would be number 16 of this broker, the limit is 15";
        check(full, "t", "TBW102", 4, refusal);
    }

    #[test]
    fn a_model_that_stayed_from_earlier_lends_nothing() {
        let mut rig = Rig::new(ControlOptions::default());
        rig.control.options.auto_create_topic = false;
        let wish = SendTopic {
            topic: "t",
            default_topic: names::AUTO_CREATE_TOPIC,
            default_queues: 4,
            unit_mode: false,
        };
        let seen = rig
            .control
            .ensure_send_topic(rig.now, &wish, &mut rig.effects);
        assert_eq!(seen.unwrap_err().code, response::TOPIC_NOT_EXIST);
    }
}
