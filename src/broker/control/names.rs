//! Which names topics and groups may have, and which belong to the broker itself.
//!
//! Source: `TopicValidator`, `MixAll`, `TopicConfigManager.init`, `KeyBuilder`; spec page semantics
//! §1. A text that is refused becomes the remark of code 29, word for word as the reference's.

/// Longest topic, in UTF-16 units as Java counts (all legal characters are one byte anyway).
pub const TOPIC_CHARS_MAX: usize = 127;
/// Longest `%RETRY%` or `%DLQ%` topic.
pub const RETRY_TOPIC_CHARS_MAX: usize = 255;
/// Longest group: its name becomes part of retry topics.
pub const GROUP_CHARS_MAX: usize = 120;

pub const RETRY_PREFIX: &str = "%RETRY%";
pub const DLQ_PREFIX: &str = "%DLQ%";
pub const SYSTEM_PREFIX: &str = "rmq_sys_";
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// The topic that lends its permission and queue numbers to topics created by a send.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
pub const TRANS_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const ROCKSDB_TRANS_HALF_TOPIC: &str = "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC";
pub const ROCKSDB_TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC";
pub const TRANS_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const ROCKSDB_OFFSET_TOPIC: &str = "CHECKPOINT_TOPIC";
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";

/// Topics that are the broker's own on every broker; [`SystemTopics`] adds those named after it.
const SYSTEM_TOPICS: [&str; 12] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANS_HALF_TOPIC,
    TRACE_TOPIC,
    TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
    ROCKSDB_OFFSET_TOPIC,
    ROCKSDB_TRANS_HALF_TOPIC,
    ROCKSDB_TRANS_OP_HALF_TOPIC,
];

/// Groups every broker has from the start (`SubscriptionGroupManager.init`).
pub const RESERVED_GROUPS: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// Whether clients may never send to `topic` (answered with code 16).
pub fn refuses_sends(topic: &str) -> bool {
    matches!(
        topic,
        SCHEDULE_TOPIC
            | TRANS_HALF_TOPIC
            | TRANS_OP_HALF_TOPIC
            | TRANS_CHECK_MAX_TIME_TOPIC
            | SELF_TEST_TOPIC
            | OFFSET_MOVED_EVENT
            | ROCKSDB_TRANS_HALF_TOPIC
            | ROCKSDB_TRANS_OP_HALF_TOPIC
    )
}

/// The topic a group's failed messages wait in.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The group whose messages a retry topic holds, of whatever form (`KeyBuilder.parseGroup`).
pub fn retry_group(topic: &str) -> Option<&str> {
    let rest = topic.strip_prefix(RETRY_PREFIX)?;
    Some(rest.split_once('+').map_or(rest, |(group, _)| group))
}

/// The topics in which pop consumers of `group` retry messages of `topic`: the current form and
/// the one before it.
pub fn pop_retry_topics(topic: &str, group: &str) -> [String; 2] {
    [
        format!("{RETRY_PREFIX}{group}+{topic}"),
        format!("{RETRY_PREFIX}{group}_{topic}"),
    ]
}

/// The system topics of one broker, by name.
pub struct SystemTopics {
    named: Vec<String>,
}

impl SystemTopics {
    /// `trace` is the trace topic's name if this broker has one.
    pub fn new(cluster: &str, broker: &str, trace: Option<&str>) -> Self {
        let mut named = vec![
            cluster.to_owned(),
            broker.to_owned(),
            reply_topic(cluster),
            revive_topic(cluster),
            sync_member_topic(broker),
            TIMER_TOPIC.to_owned(),
        ];
        named.extend(trace.map(str::to_owned));
        SystemTopics { named }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.named.iter().map(String::as_str);
        SYSTEM_TOPICS.into_iter().chain(named)
    }

    /// Topics of the system cannot be changed or deleted by request.
    pub fn contains(&self, topic: &str) -> bool {
        topic.starts_with(SYSTEM_PREFIX)
            || SYSTEM_TOPICS.contains(&topic)
            || self.named.iter().any(|name| name == topic)
    }
}

pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

pub fn revive_topic(cluster: &str) -> String {
    format!("{SYSTEM_PREFIX}REVIVE_LOG_{cluster}")
}

pub fn sync_member_topic(broker: &str) -> String {
    format!("{SYSTEM_PREFIX}SYNC_BROKER_MEMBER_{broker}")
}

/// The reason why `topic` is no topic name.
pub fn check_topic(topic: &str) -> Result<(), String> {
    if is_blank(topic) {
        return Err("The specified topic is blank.".to_owned());
    }
    if has_illegal(topic) {
        return Err(format!(
            "The specified topic: {topic}, contains illegal characters, allowing only \
             ^[%|a-zA-Z0-9_-]+$"
        ));
    }
    if topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX) {
        if topic.len() > RETRY_TOPIC_CHARS_MAX {
            return Err(format!(
                "The specified topic is DLQ or Retry topic: {topic}, and it's longer than topic \
                 max length: {RETRY_TOPIC_CHARS_MAX}"
            ));
        }
    } else if topic.len() > TOPIC_CHARS_MAX {
        return Err(format!(
            "The specified topic: {topic}, is longer than topic max length: {TOPIC_CHARS_MAX}"
        ));
    }
    Ok(())
}

/// The reason why `group` is no group name.
pub fn check_group(group: &str) -> Result<(), String> {
    if is_blank(group) {
        return Err("The specified group is blank.".to_owned());
    }
    if has_illegal(group) {
        return Err(format!(
            "The specified group: {group}, contains illegal characters, allowing only \
             ^[%|a-zA-Z0-9_-]+$"
        ));
    }
    if group.len() > GROUP_CHARS_MAX {
        return Err(format!(
            "The specified group: {group}, is longer than group max length: {GROUP_CHARS_MAX}"
        ));
    }
    Ok(())
}

/// As `UtilAll.isBlank`.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

fn has_illegal(name: &str) -> bool {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_');
    !name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, topic: Result<(), &str>, group: Result<(), &str>) {
        let seen = |result: Result<(), String>, expected: Result<(), &str>| match (result, expected)
        {
            (Ok(()), Ok(())) => {}
            (Err(seen), Err(part)) => assert!(seen.contains(part), "{name}: {seen}"),
            (seen, expected) => panic!("{name}: {seen:?}, expected {expected:?}"),
        };
        seen(check_topic(name), topic);
        seen(check_group(name), group);
    }

    #[test]
    fn names() {
        check("a-Z_09|%", Ok(()), Ok(()));
        check("", Err("topic is blank."), Err("group is blank."));
        check(" \t", Err("topic is blank."), Err("group is blank."));
        check(
            "a b",
            Err("topic: a b, contains illegal"),
            Err("group: a b, contains illegal"),
        );
        check("é", Err("contains illegal"), Err("contains illegal"));
        check("a+b", Err("contains illegal"), Err("contains illegal"));
        check(&"t".repeat(120), Ok(()), Ok(()));
        check(&"t".repeat(121), Ok(()), Err("group max length: 120"));
        check(&"t".repeat(127), Ok(()), Err("group max length"));
        check(
            &"t".repeat(128),
            Err("longer than topic max length: 127"),
            Err("max length"),
        );
        check(&retry_topic(&"g".repeat(248)), Ok(()), Err("max length"));
        check(
            &retry_topic(&"g".repeat(249)),
            Err("DLQ or Retry topic"),
            Err("max length"),
        );
    }

    #[test]
    fn groups_of_retry_topics() {
        assert_eq!(retry_group(&retry_topic("g_t")), Some("g_t"));
        assert_eq!(retry_group(&pop_retry_topics("t", "g")[0]), Some("g"));
        assert_eq!(retry_group("%RETRY%"), Some(""));
        assert_eq!(retry_group("%DLQ%g"), None);
    }

    #[test]
    fn the_system_topics_of_a_broker() {
        let system = SystemTopics::new("c1", "b1", None);
        for topic in [
            "TBW102",
            "c1",
            "b1",
            "c1_REPLY_TOPIC",
            "rmq_sys_x",
            TRACE_TOPIC,
        ] {
            assert!(system.contains(topic), "{topic}");
        }
        assert!(system.contains(&revive_topic("c1")) && system.contains(&sync_member_topic("b1")));
        assert!(!system.contains("trace") && !system.contains("%RETRY%g"));
        let listed: Vec<&str> = system.names().collect();
        for topic in [&*revive_topic("c1"), &sync_member_topic("b1"), TIMER_TOPIC] {
            assert!(listed.contains(&topic), "{topic} is hidden by tools");
        }
        assert!(SystemTopics::new("c1", "b1", Some("trace")).contains("trace"));
    }
}
