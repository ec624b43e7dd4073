//! Control records: the payload of the log entries that make topics and groups durable.
//!
//! All integers big-endian; a text is `u16` length and UTF-8; `n *` is preceded by its count, `u16`
//! unless said otherwise; `?` is preceded by one byte, 0 absent or 1 present.
//!
//! ```text
//! kind 1 version 1, topic put:
//!     stamp, u64 id, text name, i32 read queues, i32 write queues, i32 perm, i32 sys flag,
//!     u8 bits (1 order, 2 multi tag), attributes, u32 n * u16 owner
//! kind 2 version 1, topic delete:
//!     stamp, u64 id, text name
//! kind 3 version 1, group put:
//!     stamp, text name, u8 bits (1 consume, 2 from min, 4 broadcast, 8 orderly, 16 notify),
//!     i32 retry queues, i32 retry times, i64 broker id, i64 broker when slow, i32 sys flag,
//!     i32 consume timeout min, retry policy, ? n * subscription, attributes
//! kind 4 version 1, group delete:
//!     stamp, text name, u8 1 if the group's offsets go too
//! kind 5 version 1, counters:
//!     stamp of topics, stamp of groups, u64 next topic id
//! kind 6 version 1, mode of a group for a topic:
//!     text topic, text group, u8 1 if it pops, i32 members that share
//! kind 7 version 1, whether a group may not read a topic:
//!     stamp of groups, text group, text topic, u8 1 if it may not
//! kind 8 version 1, who holds the order lock of a queue for a group:
//!     text group, text topic, text broker, i32 queue id, ? text client
//!
//! payload       u8 kind, u8 version, and as above
//! stamp         i64 milliseconds since 1970, u64 counter
//! attributes    n * (text key, text value)
//! retry policy  u8 kind (0 customized, 1 exponential),
//!               ? (i64 initial ms, i64 max ms, i64 multiplier), ? n * i64 ms
//! subscription  text topic, text type, text expression, i64 version
//! ```
//!
//! Applying records in log order, or those of a dump, always builds the same tables. A record is
//! replaced by a later one of the same name, so a dump is one record per name plus the counters.

use std::fmt;
use std::sync::Arc;

use crate::base::ShardId;
use crate::base::cursor::{Cursor, put_text};
use crate::broker::assignment::Mode;
use crate::broker::control::attributes::Attributes;
use crate::broker::topics::{Topic, queues};
use crate::remoting::body::group::{
    CustomizedRetry, ExponentialRetry, GroupConfig, GroupRetryPolicy, RetryPolicyType,
    SimpleSubscription,
};
use crate::remoting::body::queue::MessageQueue;
use crate::remoting::body::topic::{DataVersion, TopicConfig, TopicFilterType};

/// RocketMQ's `DataVersion` of a table: tells readers that something changed. Its state version,
/// which only a controller sets, is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Milliseconds since 1970 of the last change.
    pub timestamp_ms: i64,
    /// Changes so far.
    pub counter: u64,
}

impl Stamp {
    /// The stamp after one more change.
    pub fn next(self, wall_ms: i64) -> Stamp {
        Stamp {
            timestamp_ms: wall_ms,
            counter: self.counter + 1,
        }
    }
}

impl From<Stamp> for DataVersion {
    fn from(stamp: Stamp) -> Self {
        DataVersion {
            counter: stamp.counter as i64,
            state_version: 0,
            timestamp: stamp.timestamp_ms,
        }
    }
}

/// A topic is created, or takes this form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPut {
    pub stamp: Stamp,
    pub topic: Topic,
}

/// A group is created, or takes this form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPut {
    pub stamp: Stamp,
    pub group: GroupConfig,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    TopicPut(TopicPut),
    TopicDelete {
        stamp: Stamp,
        id: u64,
        name: Arc<str>,
    },
    GroupPut(GroupPut),
    GroupDelete {
        stamp: Stamp,
        name: Arc<str>,
        clean_offsets: bool,
    },
    /// How a group gets the messages of a topic.
    Mode {
        topic: String,
        group: String,
        mode: Mode,
    },
    /// Whether a group may not read a topic.
    Forbidden {
        stamp: Stamp,
        group: String,
        topic: String,
        forbidden: bool,
    },
    /// Who holds the order lock of a queue, if anybody.
    Lock {
        group: String,
        queue: MessageQueue,
        client: Option<String>,
    },
    /// What a dump cannot tell by its topics and groups.
    Counters {
        topics: Stamp,
        groups: Stamp,
        next_topic_id: u64,
    },
}

/// Why a payload is no control record of this broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordError {
    UnknownKind {
        kind: u8,
    },
    UnknownVersion {
        kind: u8,
        version: u8,
    },
    /// The payload ends early, has bytes left or a value out of range.
    Malformed {
        kind: u8,
    },
    /// A queue is owned by a shard that this store does not have.
    UnknownShard {
        shard: u16,
        shards: usize,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind { kind } => write!(f, "control record of unknown kind {kind}"),
            Self::UnknownVersion { kind, version } => {
                write!(
                    f,
                    "control record of kind {kind} has unknown version {version}"
                )
            }
            Self::Malformed { kind } => write!(f, "malformed control record of kind {kind}"),
            Self::UnknownShard { shard, shards } => {
                write!(
                    f,
                    "a queue is owned by shard {shard}, the store has {shards}"
                )
            }
        }
    }
}

impl std::error::Error for RecordError {}

const TOPIC_PUT: u8 = 1;
const TOPIC_DELETE: u8 = 2;
const GROUP_PUT: u8 = 3;
const GROUP_DELETE: u8 = 4;
const COUNTERS: u8 = 5;
const MODE: u8 = 6;
const FORBIDDEN: u8 = 7;
const LOCK: u8 = 8;
pub const VERSION: u8 = 1;

const ORDER: u8 = 1;
const MULTI_TAG: u8 = 2;

impl Record {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::TopicPut(put) => {
                out.extend_from_slice(&[TOPIC_PUT, VERSION]);
                put_topic(out, put);
            }
            Record::TopicDelete { stamp, id, name } => {
                out.extend_from_slice(&[TOPIC_DELETE, VERSION]);
                put_stamp(out, *stamp);
                out.extend_from_slice(&id.to_be_bytes());
                put_text(out, name);
            }
            Record::GroupPut(put) => {
                out.extend_from_slice(&[GROUP_PUT, VERSION]);
                put_group(out, put);
            }
            Record::GroupDelete {
                stamp,
                name,
                clean_offsets,
            } => {
                out.extend_from_slice(&[GROUP_DELETE, VERSION]);
                put_stamp(out, *stamp);
                put_text(out, name);
                out.push(u8::from(*clean_offsets));
            }
            Record::Mode { topic, group, mode } => {
                out.extend_from_slice(&[MODE, VERSION]);
                put_text(out, topic);
                put_text(out, group);
                out.push(u8::from(mode.pops));
                out.extend_from_slice(&mode.share.to_be_bytes());
            }
            Record::Forbidden {
                stamp,
                group,
                topic,
                forbidden,
            } => {
                out.extend_from_slice(&[FORBIDDEN, VERSION]);
                put_stamp(out, *stamp);
                put_text(out, group);
                put_text(out, topic);
                out.push(u8::from(*forbidden));
            }
            Record::Lock {
                group,
                queue,
                client,
            } => {
                out.extend_from_slice(&[LOCK, VERSION]);
                put_text(out, group);
                put_text(out, &queue.topic);
                put_text(out, &queue.broker_name);
                out.extend_from_slice(&queue.queue_id.to_be_bytes());
                out.push(u8::from(client.is_some()));
                client.iter().for_each(|client| put_text(out, client));
            }
            Record::Counters {
                topics,
                groups,
                next_topic_id,
            } => {
                out.extend_from_slice(&[COUNTERS, VERSION]);
                put_stamp(out, *topics);
                put_stamp(out, *groups);
                out.extend_from_slice(&next_topic_id.to_be_bytes());
            }
        }
    }

    /// Reads a whole payload.
    pub fn decode(payload: &[u8]) -> Result<Record, RecordError> {
        let mut cursor = Cursor::new(payload);
        let kind = cursor.u8().ok_or(RecordError::Malformed { kind: 0 })?;
        if !(TOPIC_PUT..=LOCK).contains(&kind) {
            return Err(RecordError::UnknownKind { kind });
        }
        let version = cursor.u8().ok_or(RecordError::Malformed { kind })?;
        if version != VERSION {
            return Err(RecordError::UnknownVersion { kind, version });
        }
        let record = read_record(kind, &mut cursor).filter(|_| cursor.rest().is_empty());
        record.ok_or(RecordError::Malformed { kind })
    }
}

fn read_record(kind: u8, cursor: &mut Cursor<'_>) -> Option<Record> {
    Some(match kind {
        TOPIC_PUT => Record::TopicPut(read_topic(cursor)?),
        TOPIC_DELETE => Record::TopicDelete {
            stamp: read_stamp(cursor)?,
            id: cursor.u64()?,
            name: Arc::from(cursor.text()?),
        },
        GROUP_PUT => Record::GroupPut(read_group(cursor)?),
        GROUP_DELETE => Record::GroupDelete {
            stamp: read_stamp(cursor)?,
            name: Arc::from(cursor.text()?),
            clean_offsets: read_bool(cursor)?,
        },
        MODE => Record::Mode {
            topic: cursor.text()?.to_owned(),
            group: cursor.text()?.to_owned(),
            mode: Mode {
                pops: read_bool(cursor)?,
                share: cursor.i32()?,
            },
        },
        FORBIDDEN => Record::Forbidden {
            stamp: read_stamp(cursor)?,
            group: cursor.text()?.to_owned(),
            topic: cursor.text()?.to_owned(),
            forbidden: read_bool(cursor)?,
        },
        LOCK => Record::Lock {
            group: cursor.text()?.to_owned(),
            queue: MessageQueue {
                topic: cursor.text()?.to_owned(),
                broker_name: cursor.text()?.to_owned(),
                queue_id: cursor.i32()?,
            },
            client: read_optional(cursor, |cursor| Some(cursor.text()?.to_owned()))?,
        },
        COUNTERS => Record::Counters {
            topics: read_stamp(cursor)?,
            groups: read_stamp(cursor)?,
            next_topic_id: cursor.u64()?,
        },
        _ => return None,
    })
}

fn put_topic(out: &mut Vec<u8>, put: &TopicPut) {
    let TopicPut { stamp, topic } = put;
    let config = &topic.config;
    put_stamp(out, *stamp);
    out.extend_from_slice(&topic.id.to_be_bytes());
    put_text(out, &topic.name);
    out.extend_from_slice(&config.read_queue_nums.to_be_bytes());
    out.extend_from_slice(&config.write_queue_nums.to_be_bytes());
    out.extend_from_slice(&config.perm.to_be_bytes());
    out.extend_from_slice(&config.topic_sys_flag.to_be_bytes());
    let multi_tag = config.topic_filter_type == TopicFilterType::MultiTag;
    out.push(bit(config.order, ORDER) | bit(multi_tag, MULTI_TAG));
    put_attributes(out, &config.attributes);
    out.extend_from_slice(&(topic.owners.len() as u32).to_be_bytes());
    for owner in &topic.owners {
        out.extend_from_slice(&owner.0.to_be_bytes());
    }
}

fn read_topic(cursor: &mut Cursor<'_>) -> Option<TopicPut> {
    let stamp = read_stamp(cursor)?;
    let id = cursor.u64().filter(|id| *id < u64::MAX)?;
    let name = cursor.text()?;
    let read_queue_nums = cursor.i32().filter(|count| *count >= 0)?;
    let write_queue_nums = cursor.i32().filter(|count| *count >= 0)?;
    let perm = cursor.i32()?;
    let topic_sys_flag = cursor.i32()?;
    let bits = cursor
        .u8()
        .filter(|bits| bits & !(ORDER | MULTI_TAG) == 0)?;
    let config = TopicConfig {
        attributes: read_attributes(cursor)?,
        order: bits & ORDER != 0,
        perm,
        read_queue_nums,
        topic_filter_type: match bits & MULTI_TAG {
            0 => TopicFilterType::SingleTag,
            _ => TopicFilterType::MultiTag,
        },
        topic_name: name.to_owned(),
        topic_sys_flag,
        write_queue_nums,
    };
    let count = cursor.u32()? as usize;
    // Taken as bytes first: a count beyond the payload must not reserve memory.
    let owners = cursor.bytes(count.checked_mul(2)?)?;
    let owners = owners
        .chunks_exact(2)
        .map(|two| ShardId(u16::from_be_bytes([two[0], two[1]])));
    let owners: Vec<ShardId> = owners.collect();
    if owners.len() < queues(&config) as usize {
        return None;
    }
    Some(TopicPut {
        stamp,
        topic: Topic {
            name: Arc::from(name),
            id,
            config,
            owners,
        },
    })
}

fn put_group(out: &mut Vec<u8>, put: &GroupPut) {
    let config = &put.group;
    put_stamp(out, put.stamp);
    put_text(out, &config.group_name);
    let bits = [
        config.consume_enable,
        config.consume_from_min_enable,
        config.consume_broadcast_enable,
        config.consume_message_orderly,
        config.notify_consumer_ids_changed_enable,
    ];
    out.push(
        (0..)
            .zip(bits)
            .map(|(shift, set)| bit(set, 1 << shift))
            .sum(),
    );
    out.extend_from_slice(&config.retry_queue_nums.to_be_bytes());
    out.extend_from_slice(&config.retry_max_times.to_be_bytes());
    out.extend_from_slice(&config.broker_id.to_be_bytes());
    out.extend_from_slice(&config.which_broker_when_consume_slowly.to_be_bytes());
    out.extend_from_slice(&config.group_sys_flag.to_be_bytes());
    out.extend_from_slice(&config.consume_timeout_minute.to_be_bytes());
    put_policy(out, &config.group_retry_policy);
    out.push(u8::from(config.subscription_data_set.is_some()));
    if let Some(subscriptions) = &config.subscription_data_set {
        put_count(out, subscriptions.len());
        for subscription in subscriptions {
            put_text(out, &subscription.topic);
            put_text(out, &subscription.expression_type);
            put_text(out, &subscription.expression);
            out.extend_from_slice(&subscription.version.to_be_bytes());
        }
    }
    put_attributes(out, &config.attributes);
}

fn read_group(cursor: &mut Cursor<'_>) -> Option<GroupPut> {
    let stamp = read_stamp(cursor)?;
    let name = cursor.text()?;
    let bits = cursor.u8().filter(|bits| *bits < 32)?;
    let mut group = GroupConfig {
        group_name: name.to_owned(),
        consume_enable: bits & 1 != 0,
        consume_from_min_enable: bits & 2 != 0,
        consume_broadcast_enable: bits & 4 != 0,
        consume_message_orderly: bits & 8 != 0,
        notify_consumer_ids_changed_enable: bits & 16 != 0,
        ..GroupConfig::default()
    };
    group.retry_queue_nums = cursor.i32()?;
    group.retry_max_times = cursor.i32()?;
    group.broker_id = cursor.i64()?;
    group.which_broker_when_consume_slowly = cursor.i64()?;
    group.group_sys_flag = cursor.i32()?;
    group.consume_timeout_minute = cursor.i32()?;
    group.group_retry_policy = read_policy(cursor)?;
    group.subscription_data_set =
        read_optional(cursor, |cursor| read_many(cursor, read_subscription))?;
    group.attributes = read_attributes(cursor)?;
    Some(GroupPut { stamp, group })
}

fn put_policy(out: &mut Vec<u8>, policy: &GroupRetryPolicy) {
    out.push(match policy.kind {
        RetryPolicyType::Customized => 0,
        RetryPolicyType::Exponential => 1,
    });
    out.push(u8::from(policy.exponential_retry_policy.is_some()));
    if let Some(exponential) = &policy.exponential_retry_policy {
        out.extend_from_slice(&exponential.initial.to_be_bytes());
        out.extend_from_slice(&exponential.max.to_be_bytes());
        out.extend_from_slice(&exponential.multiplier.to_be_bytes());
    }
    out.push(u8::from(policy.customized_retry_policy.is_some()));
    if let Some(delays) = &policy.customized_retry_policy {
        put_count(out, delays.next.len());
        for delay in &delays.next {
            out.extend_from_slice(&delay.to_be_bytes());
        }
    }
}

fn read_policy(cursor: &mut Cursor<'_>) -> Option<GroupRetryPolicy> {
    let kind = match cursor.u8()? {
        0 => RetryPolicyType::Customized,
        1 => RetryPolicyType::Exponential,
        _ => return None,
    };
    let exponential_retry_policy = read_optional(cursor, |cursor| {
        Some(ExponentialRetry {
            initial: cursor.i64()?,
            max: cursor.i64()?,
            multiplier: cursor.i64()?,
        })
    })?;
    let customized_retry_policy = read_optional(cursor, |cursor| {
        let next = read_many(cursor, |cursor| cursor.i64())?;
        Some(CustomizedRetry { next })
    })?;
    Some(GroupRetryPolicy {
        customized_retry_policy,
        exponential_retry_policy,
        kind,
    })
}

fn read_subscription(cursor: &mut Cursor<'_>) -> Option<SimpleSubscription> {
    Some(SimpleSubscription {
        topic: cursor.text()?.to_owned(),
        expression_type: cursor.text()?.to_owned(),
        expression: cursor.text()?.to_owned(),
        version: cursor.i64()?,
    })
}

fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    put_count(out, attributes.len());
    for (key, value) in attributes {
        put_text(out, key);
        put_text(out, value);
    }
}

fn read_attributes(cursor: &mut Cursor<'_>) -> Option<Attributes> {
    let pairs = read_many(cursor, |cursor| {
        Some((cursor.text()?.to_owned(), cursor.text()?.to_owned()))
    })?;
    Some(pairs.into_iter().collect())
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(&stamp.timestamp_ms.to_be_bytes());
    out.extend_from_slice(&stamp.counter.to_be_bytes());
}

fn read_stamp(cursor: &mut Cursor<'_>) -> Option<Stamp> {
    Some(Stamp {
        timestamp_ms: cursor.i64()?,
        counter: cursor.u64().filter(|counter| *counter < u64::MAX)?,
    })
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("lists are checked to be short before this");
    out.extend_from_slice(&count.to_be_bytes());
}

fn read_many<T>(
    cursor: &mut Cursor<'_>,
    read: impl Fn(&mut Cursor<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = cursor.u16()?;
    (0..count).map(|_| read(cursor)).collect()
}

fn read_optional<T>(
    cursor: &mut Cursor<'_>,
    read: impl Fn(&mut Cursor<'_>) -> Option<T>,
) -> Option<Option<T>> {
    match read_bool(cursor)? {
        false => Some(None),
        true => read(cursor).map(Some),
    }
}

fn read_bool(cursor: &mut Cursor<'_>) -> Option<bool> {
    match cursor.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn bit(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn topic_put() -> Record {
        Record::TopicPut(TopicPut {
            stamp: Stamp {
                timestamp_ms: 0x0102,
                counter: 3,
            },
            topic: Topic {
                name: Arc::from("t"),
                id: 9,
                config: TopicConfig {
                    attributes: attributes(&[("k", "v")]),
                    order: true,
                    perm: 6,
                    read_queue_nums: 2,
                    topic_filter_type: TopicFilterType::MultiTag,
                    topic_name: "t".to_owned(),
                    topic_sys_flag: 2,
                    write_queue_nums: 1,
                },
                owners: vec![ShardId(1), ShardId(0)],
            },
        })
    }

    fn group_put() -> Record {
        Record::GroupPut(GroupPut {
            stamp: Stamp::default(),
            group: GroupConfig {
                group_name: "g".to_owned(),
                group_retry_policy: GroupRetryPolicy {
                    customized_retry_policy: Some(CustomizedRetry { next: vec![4] }),
                    exponential_retry_policy: Some(ExponentialRetry {
                        initial: 1,
                        max: 2,
                        multiplier: 3,
                    }),
                    kind: RetryPolicyType::Exponential,
                },
                subscription_data_set: Some(vec![SimpleSubscription {
                    expression: "*".to_owned(),
                    expression_type: "TAG".to_owned(),
                    topic: "t".to_owned(),
                    version: 5,
                }]),
                ..GroupConfig::default()
            },
        })
    }

    /// `hex` may hold blanks, for reading.
    fn check_bytes(record: Record, hex: &str) {
        let mut payload = Vec::new();
        record.encode(&mut payload);
        let seen: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(seen, hex.replace(' ', ""), "{record:?}");
        assert_eq!(Record::decode(&payload), Ok(record));
        for cut in 2..payload.len() {
            let kind = payload[0];
            let expected = Err(RecordError::Malformed { kind });
            assert_eq!(Record::decode(&payload[..cut]), expected, "cut at {cut}");
        }
        payload.push(0);
        assert!(Record::decode(&payload).is_err(), "bytes left over");
    }

    #[test]
    fn layouts() {
        check_bytes(
            topic_put(),
            "0101 0000000000000102 0000000000000003 0000000000000009 0001 74 00000002 00000001 \
             00000006 00000002 03 0001 0001 6b 0001 76 00000002 0001 0000",
        );
        check_bytes(
            Record::TopicDelete {
                stamp: Stamp::default(),
                id: 9,
                name: Arc::from("t"),
            },
            "0201 0000000000000000 0000000000000000 0000000000000009 0001 74",
        );
        check_bytes(
            group_put(),
            "0301 0000000000000000 0000000000000000 0001 67 17 00000001 00000010 \
             0000000000000000 0000000000000001 00000000 0000000f \
             01 01 0000000000000001 0000000000000002 0000000000000003 01 0001 0000000000000004 \
             01 0001 0001 74 0003 544147 0001 2a 0000000000000005 0000",
        );
        check_bytes(
            Record::GroupDelete {
                stamp: Stamp::default(),
                name: Arc::from("g"),
                clean_offsets: true,
            },
            "0401 0000000000000000 0000000000000000 0001 67 01",
        );
        check_bytes(
            Record::Counters {
                topics: Stamp::default(),
                groups: Stamp {
                    timestamp_ms: -1,
                    counter: 2,
                },
                next_topic_id: 7,
            },
            "0501 0000000000000000 0000000000000000 ffffffffffffffff 0000000000000002 \
             0000000000000007",
        );
        check_bytes(
            Record::Mode {
                topic: "t".to_owned(),
                group: "g".to_owned(),
                mode: Mode {
                    pops: true,
                    share: 3,
                },
            },
            "0601 0001 74 0001 67 01 00000003",
        );
        check_bytes(
            Record::Forbidden {
                stamp: Stamp::default(),
                group: "g".to_owned(),
                topic: "t".to_owned(),
                forbidden: true,
            },
            "0701 0000000000000000 0000000000000000 0001 67 0001 74 01",
        );
    }

    #[test]
    fn layout_of_a_lock() {
        let lock = |client: Option<&str>| Record::Lock {
            group: "g".to_owned(),
            queue: MessageQueue {
                broker_name: "b".to_owned(),
                queue_id: 3,
                topic: "t".to_owned(),
            },
            client: client.map(str::to_owned),
        };
        let holder = "0801 0001 67 0001 74 0001 62 00000003 01 0001 63";
        check_bytes(lock(Some("c")), holder);
        check_bytes(lock(None), "0801 0001 67 0001 74 0001 62 00000003 00");
    }

    #[test]
    fn strangers_are_named() {
        let check = |payload: &[u8], expected: &str| {
            assert_eq!(Record::decode(payload).unwrap_err().to_string(), expected);
        };
        check(&[], "malformed control record of kind 0");
        check(&[9, 1], "control record of unknown kind 9");
        check(&[0, 1], "control record of unknown kind 0");
        check(&[3, 2, 0], "control record of kind 3 has unknown version 2");
        check(&[1], "malformed control record of kind 1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            kind in 0u8..10,
            mut rest in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            rest.splice(0..0, [kind, VERSION]);
            if let Ok(record) = Record::decode(&rest) {
                let mut again = Vec::new();
                record.encode(&mut again);
                prop_assert_eq!(Record::decode(&again), Ok(record));
            }
        }

        #[test]
        fn changed_bytes_are_read_without_panic(at in 2usize..60, byte: u8) {
            for record in [topic_put(), group_put()] {
                let mut payload = Vec::new();
                record.encode(&mut payload);
                let at = at % payload.len();
                payload[at] = byte;
                let _ = Record::decode(&payload);
            }
        }
    }
}
