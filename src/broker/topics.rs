//! Topics: what is configured, which shard owns each queue, and the order of their names.
//!
//! Always true: a topic's id is never given again, also not to a topic of the same name created
//! later; a queue keeps its owner for the life of the topic, even while the topic is shrunk below
//! that queue; `names` holds exactly the names in the catalog.
//!
//! Changes are planned here as [`TopicPut`] records and take effect by [`Topics::put`], which is
//! what a replay calls as well.
//!
//! Source: `TopicConfig`, `PermName`, `TopicSysFlag`; spec page semantics §1.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::ShardId;
use crate::broker::control::attributes;
use crate::broker::record::{Stamp, TopicPut};
use crate::broker::snapshot::Catalog;
use crate::remoting::body::topic::TopicConfig;

/// Permission bits of a topic or broker (`PermName`).
pub mod perm {
    pub const PRIORITY: i32 = 8;
    pub const READ: i32 = 4;
    pub const WRITE: i32 = 2;
    /// Topics created by a send may take this topic as their model.
    pub const INHERIT: i32 = 1;
}

/// Bits of a topic's system flag (`TopicSysFlag`).
pub mod sys_flag {
    pub const UNIT: i32 = 1;
    pub const UNIT_SUB: i32 = 2;
}

/// A configuration with the reference's defaults, but for these numbers.
pub fn config_with(queues: u32, perm: i32) -> TopicConfig {
    let queues = i32::try_from(queues).expect("queue numbers of the broker itself are small");
    TopicConfig {
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}

/// Queues that exist: readable and writable ones have the same numbers from 0.
pub fn queues(config: &TopicConfig) -> u32 {
    u32::try_from(config.read_queue_nums.max(config.write_queue_nums)).unwrap_or(0)
}

/// A topic as every shard sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub name: Arc<str>,
    /// Tells this topic from one of the same name that was deleted before. From 1.
    pub id: u64,
    /// Queue numbers are not below 0; [`perm`] bits that mean nothing are kept.
    pub config: TopicConfig,
    /// The owner of each queue that the topic ever had: at least [`queues`] entries.
    pub owners: Vec<ShardId>,
}

impl Topic {
    /// The shard that holds `queue`; `None` if the topic has no such queue now.
    pub fn owner(&self, queue: u32) -> Option<ShardId> {
        if queue >= queues(&self.config) {
            return None;
        }
        self.owners.get(queue as usize).copied()
    }

    pub fn is_readable(&self) -> bool {
        self.config.perm & perm::READ != 0
    }

    pub fn is_writable(&self) -> bool {
        self.config.perm & perm::WRITE != 0
    }

    /// Whether its queues are popped by urgency.
    pub fn is_for_priorities(&self) -> bool {
        let kind = self.config.attributes.get(attributes::MESSAGE_TYPE);
        kind.is_some_and(|kind| kind == "PRIORITY")
    }

    /// How long a unique key that was sent is not stored again, if the topic has the attribute.
    pub fn dedup_window_ms(&self) -> Option<i64> {
        let text = self.config.attributes.get(attributes::DEDUP_WINDOW)?;
        text.parse().ok()
    }
}

/// The working table of topics.
pub struct Topics {
    table: Catalog<Topic>,
    names: BTreeSet<Arc<str>>,
    stamp: Stamp,
    next_id: u64,
    /// How many queues each shard owns.
    load: Vec<u64>,
}

impl Topics {
    pub fn new(shards: u16) -> Self {
        assert!(shards > 0, "a broker has a shard");
        Topics {
            table: Catalog::default(),
            names: BTreeSet::new(),
            stamp: Stamp::default(),
            next_id: 1,
            load: vec![0; usize::from(shards)],
        }
    }

    pub fn table(&self) -> &Catalog<Topic> {
        &self.table
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.table.get(name)
    }

    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    pub fn shards(&self) -> usize {
        self.load.len()
    }

    /// All queues that have an owner, of all topics.
    pub fn queues(&self) -> u64 {
        self.load.iter().sum()
    }

    /// All topics in the order of their names.
    pub fn sorted(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.iter().filter_map(|name| self.table.get(name))
    }

    /// The record that creates the topic `config` names, or changes it to `config`.
    pub fn plan(&self, config: TopicConfig, stamp: Stamp) -> TopicPut {
        let name = config.topic_name.as_str();
        let before = self.table.get(name);
        let mut owners = before.map_or_else(Vec::new, |topic| topic.owners.clone());
        self.extend_owners(&mut owners, queues(&config));
        TopicPut {
            stamp,
            topic: Topic {
                name: before.map_or_else(|| Arc::from(name), |topic| Arc::clone(&topic.name)),
                id: before.map_or(self.next_id, |topic| topic.id),
                config,
                owners,
            },
        }
    }

    /// Goes round the shards, on from the last owner, or from the shard with the fewest queues.
    fn extend_owners(&self, owners: &mut Vec<ShardId>, queues: u32) {
        let shards = self.load.len();
        let mut next = match owners.last() {
            Some(last) => (usize::from(last.0) + 1) % shards,
            None => (0..shards)
                .min_by_key(|shard| self.load[*shard])
                .unwrap_or(0),
        };
        while owners.len() < queues as usize {
            owners.push(ShardId(next as u16));
            next = (next + 1) % shards;
        }
    }

    /// A planned or replayed record takes effect. Its owners are shards of this broker.
    pub fn put(&mut self, put: TopicPut) -> Arc<Topic> {
        assert!(
            put.topic.owners.len() >= queues(&put.topic.config) as usize,
            "every queue has an owner"
        );
        if let Some(before) = self.table.get(&put.topic.name) {
            count(&mut self.load, &before.owners, |load| *load -= 1);
        }
        count(&mut self.load, &put.topic.owners, |load| *load += 1);
        self.next_id = self.next_id.max(put.topic.id + 1);
        self.stamp = put.stamp;
        let name = Arc::clone(&put.topic.name);
        let topic = Arc::new(put.topic);
        self.names.insert(Arc::clone(&name));
        self.table.insert(name, Arc::clone(&topic));
        topic
    }

    /// The topic that was there.
    pub fn remove(&mut self, name: &str, stamp: Stamp) -> Option<Arc<Topic>> {
        self.stamp = stamp;
        let topic = self.table.remove(name)?;
        self.names.remove(name);
        count(&mut self.load, &topic.owners, |load| *load -= 1);
        Some(topic)
    }

    /// Restores what the tables alone do not tell.
    pub fn restore(&mut self, stamp: Stamp, next_id: u64) {
        self.stamp = stamp;
        self.next_id = self.next_id.max(next_id);
    }
}

fn count(load: &mut [u64], owners: &[ShardId], change: impl Fn(&mut u64)) {
    for owner in owners {
        change(&mut load[usize::from(owner.0)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(topics: &mut Topics, name: &str, queues: u32) -> Vec<u16> {
        let stamp = topics.stamp().next(0);
        let config = TopicConfig {
            topic_name: name.to_owned(),
            ..config_with(queues, 6)
        };
        let plan = topics.plan(config, stamp);
        topics
            .put(plan)
            .owners
            .iter()
            .map(|owner| owner.0)
            .collect()
    }

    #[test]
    fn queues_go_round_from_the_emptiest_shard() {
        let mut topics = Topics::new(3);
        assert_eq!(put(&mut topics, "a", 4), [0, 1, 2, 0]);
        assert_eq!(put(&mut topics, "b", 1), [1]);
        assert_eq!(put(&mut topics, "c", 3), [2, 0, 1]);
        assert_eq!(topics.load, [3, 3, 2]);
    }

    #[test]
    fn owners_outlive_shrinking_and_go_with_the_topic() {
        let mut topics = Topics::new(3);
        put(&mut topics, "a", 4);
        assert_eq!(put(&mut topics, "a", 1), [0, 1, 2, 0]);
        assert_eq!(topics.get("a").unwrap().owner(0), Some(ShardId(0)));
        assert_eq!(topics.get("a").unwrap().owner(1), None);
        assert_eq!(put(&mut topics, "a", 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!((topics.queues(), topics.next_id()), (6, 2));
        topics.remove("a", Stamp::default());
        assert_eq!((topics.queues(), topics.sorted().count()), (0, 0));
        put(&mut topics, "a", 1);
        assert_eq!(topics.get("a").unwrap().id, 2, "a new life, a new id");
    }

    #[test]
    fn names_are_sorted() {
        let mut topics = Topics::new(1);
        for name in ["b", "%RETRY%g", "a", "B"] {
            put(&mut topics, name, 1);
        }
        let names: Vec<_> = topics.sorted().map(|topic| &*topic.name).collect();
        assert_eq!(names, ["%RETRY%g", "B", "a", "b"]);
    }
}
