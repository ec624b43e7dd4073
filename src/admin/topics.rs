//! Brokers and topics.

use serde_json::Value;

use super::link::{Link, Trouble};
use super::sheet::{Sheet, time};
use crate::remoting::body::stats::TopicStats;
use crate::remoting::body::table::KvTable;
use crate::remoting::body::topic::TopicTable;
use crate::remoting::code::request;

const SYSTEM: [&str; 8] = [
    "TBW102",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "BenchmarkTest",
    "SCHEDULE_TOPIC_XXXX",
    "RMQ_SYS_",
    "rmq_sys_",
    "TRANS_CHECK_MAX_TIME_TOPIC",
];

pub fn brokers(link: &mut Link) -> Result<Sheet, Trouble> {
    let columns = &[
        "cluster", "broker", "address", "version", "put tps", "get tps", "started",
    ];
    let mut sheet = Sheet::new(columns);
    for broker in link.brokers()? {
        let answer = link.ask(&broker.addr, request::GET_BROKER_RUNTIME_INFO, &[], b"")?;
        let table: KvTable = answer.read()?;
        let word = |key: &str| {
            let text = table.table.get(key).map_or("", String::as_str);
            text.split(' ').next().unwrap_or_default().to_owned()
        };
        let started_ms = word("bootTimestamp").parse().unwrap_or(0);
        sheet.push(vec![
            broker.cluster.into(),
            broker.name.into(),
            broker.addr.into(),
            word("brokerVersionDesc").into(),
            word("putTps").into(),
            word("getTransferredTps").into(),
            time(started_ms),
        ]);
    }
    Ok(sheet)
}

pub fn list(link: &mut Link, part: Option<&str>, all: bool) -> Result<Sheet, Trouble> {
    let mut sheet = Sheet::new(&[
        "topic",
        "broker",
        "read queues",
        "write queues",
        "perm",
        "type",
    ]);
    let mut rows = Vec::new();
    for broker in link.brokers()? {
        let answer = link.ask(&broker.addr, request::GET_ALL_TOPIC_CONFIG, &[], b"")?;
        let table: TopicTable = answer.read()?;
        for config in table.topic_config_table.into_values() {
            let system = SYSTEM
                .iter()
                .any(|start| config.topic_name.starts_with(start));
            let own = [&broker.name, &broker.cluster].contains(&&config.topic_name);
            let hidden = !all && (system || own || config.topic_name.ends_with("_REPLY_TOPIC"));
            if hidden || !part.is_none_or(|part| config.topic_name.contains(part)) {
                continue;
            }
            rows.push((config, broker.name.clone()));
        }
    }
    rows.sort_by(|(a, x), (b, y)| (&a.topic_name, x).cmp(&(&b.topic_name, y)));
    for (config, broker) in rows {
        let kind = config.attributes.get("message.type").cloned();
        sheet.push(vec![
            config.topic_name.into(),
            broker.into(),
            config.read_queue_nums.into(),
            config.write_queue_nums.into(),
            perm(config.perm).into(),
            kind.map_or(Value::Null, Value::from),
        ]);
    }
    Ok(sheet)
}

fn perm(bits: i32) -> &'static str {
    match bits & 6 {
        6 => "read, write",
        4 => "read",
        2 => "write",
        _ => "none",
    }
}

pub fn queues(link: &mut Link, topic: &str) -> Result<Sheet, Trouble> {
    let columns = &[
        "broker",
        "queue",
        "first",
        "end",
        "messages",
        "last message",
    ];
    let mut sheet = Sheet::new(columns);
    for broker in link.route(topic)? {
        let fields = [("topic", topic)];
        let answer = link.ask(&broker.addr, request::GET_TOPIC_STATS_INFO, &fields, b"")?;
        let mut stats: TopicStats = answer.read()?;
        stats.offset_table.sort_by_key(|(queue, _)| queue.queue_id);
        for (queue, offset) in stats.offset_table {
            sheet.push(vec![
                queue.broker_name.into(),
                queue.queue_id.into(),
                offset.min_offset.into(),
                offset.max_offset.into(),
                (offset.max_offset - offset.min_offset).into(),
                time(offset.last_update_timestamp),
            ]);
        }
    }
    Ok(sheet)
}

pub fn create(
    link: &mut Link,
    topic: &str,
    queues: u32,
    attributes: &[String],
) -> Result<Sheet, Trouble> {
    let mut sheet = Sheet::new(&["topic", "broker", "queues"]);
    if let Some(attribute) = attributes.iter().find(|one| !one.contains('=')) {
        return Err(Trouble::Wrong(format!(
            "--attribute {attribute}: must be KEY=VALUE"
        )));
    }
    let attributes: Vec<String> = attributes.iter().map(|one| format!("+{one}")).collect();
    let (number, attributes) = (queues.to_string(), attributes.join(","));
    for broker in link.brokers()? {
        let mut fields = vec![
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &number),
            ("writeQueueNums", &number),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ];
        if !attributes.is_empty() {
            fields.push(("attributes", &attributes));
        }
        link.ask(&broker.addr, request::UPDATE_AND_CREATE_TOPIC, &fields, b"")?;
        sheet.push(vec![topic.into(), broker.name.into(), queues.into()]);
    }
    Ok(sheet)
}

pub fn delete(link: &mut Link, topic: &str) -> Result<Sheet, Trouble> {
    let mut sheet = Sheet::new(&["topic", "broker", "deleted"]);
    let fields = [("topic", topic)];
    for broker in link.route(topic)? {
        link.ask(&broker.addr, request::DELETE_TOPIC_IN_BROKER, &fields, b"")?;
        sheet.push(vec![topic.into(), broker.name.into(), true.into()]);
    }
    link.ask_names(request::DELETE_TOPIC_IN_NAMESRV, &fields)?;
    Ok(sheet)
}
