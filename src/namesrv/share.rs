//! What a topic has in one broker set, and its forms on the wire.

use std::collections::BTreeMap;

use crate::remoting::body::route::QueueData;
use crate::remoting::body::topic::{QueueMapping, TopicTable};

/// Bits of a topic's permission (`PermName`).
pub const PERM_READ: i32 = 4;
pub const PERM_WRITE: i32 = 2;
/// Bits of a topic's system flag (`TopicSysFlag`).
pub const FLAG_UNIT: i32 = 1;
pub const FLAG_UNIT_SUB: i32 = 2;

/// Queues of a topic in one broker set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    pub read: i32,
    pub write: i32,
    pub perm: i32,
    pub sys_flag: i32,
}

impl Queues {
    pub fn of(data: &QueueData) -> Self {
        Queues {
            read: data.read_queue_nums,
            write: data.write_queue_nums,
            perm: data.perm,
            sys_flag: data.topic_sys_flag,
        }
    }

    pub fn data(&self, broker: &str) -> QueueData {
        QueueData {
            broker_name: broker.to_owned(),
            perm: self.perm,
            read_queue_nums: self.read,
            topic_sys_flag: self.sys_flag,
            write_queue_nums: self.write,
        }
    }
}

/// A topic's part in one broker set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicShare {
    pub queues: Queues,
    /// For static topics only.
    pub mapping: Option<QueueMapping>,
}

/// The shares that a registration of `broker` states. A mapping counts if it is the broker's own
/// and its topic is stated too.
pub fn registered(table: TopicTable, broker: &str) -> BTreeMap<String, TopicShare> {
    let mut mappings = table.topic_queue_mapping_info_map;
    let topics = table.topic_config_table.into_iter().map(|(key, config)| {
        let queues = Queues {
            read: config.read_queue_nums,
            write: config.write_queue_nums,
            perm: config.perm,
            sys_flag: config.topic_sys_flag,
        };
        let named = !config.topic_name.is_empty();
        let topic = if named { config.topic_name } else { key };
        let mapping = mappings.remove(&topic);
        let mapping = mapping.filter(|mapping| mapping.bname == broker);
        (topic, TopicShare { queues, mapping })
    });
    topics.collect()
}
