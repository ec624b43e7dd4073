//! Consumer groups: settings, members, progress, and moving them.

use std::collections::BTreeSet;

use super::link::{Link, Trouble};
use super::sheet::{Sheet, time};
use crate::remoting::body::client::ConsumerConnection;
use crate::remoting::body::group::GroupTable;
use crate::remoting::body::stats::{ConsumeStats, ResetOffsets, TopicStats};
use crate::remoting::code::{request, response};

pub fn list(link: &mut Link, part: Option<&str>) -> Result<Sheet, Trouble> {
    let mut sheet = Sheet::new(&["group", "broker", "consumes", "retries", "in order"]);
    let mut rows = Vec::new();
    for broker in link.brokers()? {
        let code = request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
        let table: GroupTable = link.ask(&broker.addr, code, &[], b"")?.read()?;
        for group in table.subscription_group_table.into_values() {
            if part.is_none_or(|part| group.group_name.contains(part)) {
                rows.push((group, broker.name.clone()));
            }
        }
    }
    rows.sort_by(|(a, x), (b, y)| (&a.group_name, x).cmp(&(&b.group_name, y)));
    for (group, broker) in rows {
        sheet.push(vec![
            group.group_name.into(),
            broker.into(),
            group.consume_enable.into(),
            group.retry_max_times.into(),
            group.consume_message_orderly.into(),
        ]);
    }
    Ok(sheet)
}

pub fn progress(link: &mut Link, group: &str, topic: Option<&str>) -> Result<Sheet, Trouble> {
    let columns = &[
        "topic",
        "broker",
        "queue",
        "end",
        "group at",
        "lag",
        "last consumed",
    ];
    let mut sheet =
        Sheet::new(columns).or_absent(format!("the group {group} has not consumed anything"));
    let mut rows = Vec::new();
    for broker in link.brokers()? {
        let mut fields = vec![("consumerGroup", group)];
        // In a list, a topic counts even if the members do not want it.
        if let Some(topic) = topic {
            fields.extend([("topic", topic), ("topicList", topic)]);
        }
        let stats = match link.ask(&broker.addr, request::GET_CONSUME_STATS, &fields, b"") {
            Ok(answer) => answer.read::<ConsumeStats>()?,
            // A group that this broker does not know.
            Err(Trouble::Refused { code, .. })
                if code == response::SUBSCRIPTION_GROUP_NOT_EXIST =>
            {
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        rows.extend(stats.offset_table);
    }
    rows.sort_by(|(a, _), (b, _)| {
        (&a.topic, &a.broker_name, a.queue_id).cmp(&(&b.topic, &b.broker_name, b.queue_id))
    });
    for (queue, offset) in rows {
        sheet.push(vec![
            queue.topic.into(),
            queue.broker_name.into(),
            queue.queue_id.into(),
            offset.broker_offset.into(),
            offset.consumer_offset.into(),
            (offset.broker_offset - offset.consumer_offset).into(),
            time(offset.last_timestamp),
        ]);
    }
    Ok(sheet)
}

pub fn members(link: &mut Link, group: &str) -> Result<Sheet, Trouble> {
    let columns = &["client", "address", "language", "subscriptions"];
    let mut sheet =
        Sheet::new(columns).or_absent(format!("nobody of the group {group} is connected"));
    let mut seen = BTreeSet::new();
    for broker in link.brokers()? {
        let Some(known) = connected(link, &broker.addr, group)? else {
            continue;
        };
        let wanted = known.subscription_table.values();
        let wanted = wanted.map(|one| (one.topic.as_str(), one.sub_string.as_str()));
        let of_group = listed(wanted);
        for member in known.connection_set {
            if seen.insert(member.client_id.clone()) {
                let own = member.wants.as_ref().map(|wants| wants.topics.iter());
                let own = own.map(|own| listed(own.map(|(topic, wish)| (&**topic, &**wish))));
                let mut wanted = own.unwrap_or_else(|| of_group.clone());
                if member.refused.is_some() {
                    wanted.insert_str(0, "refused: ");
                }
                sheet.push(vec![
                    member.client_id.into(),
                    member.client_addr.into(),
                    member.language.name().into(),
                    wanted.into(),
                ]);
            }
        }
    }
    Ok(sheet)
}

fn listed<'a>(wanted: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let wanted: Vec<String> = wanted
        .map(|(topic, wish)| format!("{topic} ({wish})"))
        .collect();
    wanted.join(", ")
}

/// Who is connected to one broker as the group; of our broker also what each of them wants.
pub fn connected(
    link: &mut Link,
    addr: &str,
    group: &str,
) -> Result<Option<ConsumerConnection>, Trouble> {
    let fields = [("consumerGroup", group), ("wantsOfEach", "true")];
    match link.ask(addr, request::GET_CONSUMER_CONNECTION_LIST, &fields, b"") {
        Ok(answer) => answer.read().map(Some),
        Err(Trouble::Refused { .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

pub fn reset(
    link: &mut Link,
    group: &str,
    topic: &str,
    to: &str,
    queue: Option<i32>,
) -> Result<Sheet, Trouble> {
    let to = Start::parse("--to", to, queue)?;
    let mut sheet = Sheet::new(&["topic", "broker", "queue", "group at"]);
    for broker in link.route(topic)? {
        let asked: Vec<(i32, Option<String>)> = match (to, queue) {
            (Start::Oldest, _) => ends(link, &broker.addr, topic, queue, true)?,
            (Start::Newest, _) => ends(link, &broker.addr, topic, queue, false)?,
            (Start::Offset(offset), Some(queue)) => vec![(queue, Some(offset.to_string()))],
            _ => vec![(queue.unwrap_or(-1), None)],
        };
        let time = match to {
            Start::Time(ms) => ms.to_string(),
            _ => "0".to_owned(),
        };
        for (queue, offset) in asked {
            let queue = queue.to_string();
            let mut fields = vec![
                ("group", group),
                ("topic", topic),
                ("queueId", queue.as_str()),
                ("isForce", "true"),
                ("timestamp", time.as_str()),
            ];
            if let Some(offset) = &offset {
                fields.push(("offset", offset));
            }
            let code = request::INVOKE_BROKER_TO_RESET_OFFSET;
            let moved: ResetOffsets = link.ask(&broker.addr, code, &fields, b"")?.read()?;
            for (queue, offset) in moved.offset_table {
                sheet.push(vec![
                    queue.topic.into(),
                    queue.broker_name.into(),
                    queue.queue_id.into(),
                    offset.into(),
                ]);
            }
        }
    }
    Ok(sheet)
}

/// First offsets or ends of a topic's queues on one broker.
fn ends(
    link: &mut Link,
    addr: &str,
    topic: &str,
    queue: Option<i32>,
    first: bool,
) -> Result<Vec<(i32, Option<String>)>, Trouble> {
    let fields = [("topic", topic)];
    let stats: TopicStats = link
        .ask(addr, request::GET_TOPIC_STATS_INFO, &fields, b"")?
        .read()?;
    let mut found: Vec<(i32, Option<String>)> = stats
        .offset_table
        .into_iter()
        .filter(|(known, _)| queue.is_none_or(|queue| queue == known.queue_id))
        .map(|(known, offset)| {
            let at = if first {
                offset.min_offset
            } else {
                offset.max_offset
            };
            (known.queue_id, Some(at.to_string()))
        })
        .collect();
    found.sort();
    match found.is_empty() {
        true => Err(Trouble::Absent(format!(
            "{addr} has no such queue of {topic}"
        ))),
        false => Ok(found),
    }
}

/// Where in a queue to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Oldest,
    Newest,
    /// With what was stored then, ms since 1970.
    Time(i64),
    Offset(i64),
}

impl Start {
    /// Reads what was given with a flag. An offset is one of a queue.
    pub fn parse(flag: &str, text: &str, queue: Option<i32>) -> Result<Start, Trouble> {
        let wrong = || {
            let words = "must be oldest, newest, milliseconds since 1970 or offset:N";
            Trouble::Wrong(format!("{flag} {text}: {words}"))
        };
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        match (text, text.strip_prefix("offset:"), queue) {
            ("oldest", ..) => Ok(Start::Oldest),
            ("newest", ..) => Ok(Start::Newest),
            (_, None, _) => number(text).map(Start::Time).ok_or_else(wrong),
            (_, Some(offset), Some(_)) => number(offset).map(Start::Offset).ok_or_else(wrong),
            (_, Some(_), None) => {
                let words = "an offset is one of a queue: add --queue";
                Err(Trouble::Wrong(words.to_owned()))
            }
        }
    }

    /// The offset that this is in a queue.
    pub fn in_queue(
        self,
        link: &mut Link,
        addr: &str,
        topic: &str,
        queue: i32,
    ) -> Result<i64, Trouble> {
        let (queue, mut time) = (queue.to_string(), String::new());
        let code = match self {
            Start::Oldest => request::GET_MIN_OFFSET,
            Start::Newest => request::GET_MAX_OFFSET,
            Start::Offset(offset) => return Ok(offset),
            Start::Time(ms) => {
                time = ms.to_string();
                request::SEARCH_OFFSET_BY_TIMESTAMP
            }
        };
        let mut fields = vec![("topic", topic), ("queueId", &queue)];
        if !time.is_empty() {
            fields.push(("timestamp", &time));
        }
        let answer = link.ask(addr, code, &fields, b"")?;
        answer.number("offset")
    }
}

/// How far a group is in a queue; `None` if it has no place there. A broker gives 0 as that of a
/// group that has none in a young queue, as to a consumer, unless it is asked for `kept` ones.
pub fn reached(
    link: &mut Link,
    addr: &str,
    (group, topic, queue): (&str, &str, i32),
    kept: bool,
) -> Result<Option<i64>, Trouble> {
    let queue = queue.to_string();
    let mut fields = vec![
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", &queue),
    ];
    if kept {
        fields.push(("setZeroIfNotFound", "false"));
    }
    let is_good = |code| code == response::SUCCESS || code == response::QUERY_NOT_FOUND;
    let code = request::QUERY_CONSUMER_OFFSET;
    let answer = link.ask_until(addr, code, &fields, b"", is_good)?;
    match answer.code {
        response::SUCCESS => answer.number("offset").map(Some),
        _ => Ok(None),
    }
}

/// Says how far a group is.
pub fn commit(
    link: &mut Link,
    addr: &str,
    (group, topic, queue): (&str, &str, i32),
    offset: i64,
) -> Result<(), Trouble> {
    let (queue, offset) = (queue.to_string(), offset.to_string());
    let fields = [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", &queue),
        ("commitOffset", &offset),
    ];
    let code = request::UPDATE_CONSUMER_OFFSET;
    link.ask(addr, code, &fields, b"").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin_is_said_in_four_ways() {
        let check = |text: &str, queue: Option<i32>, expected: Result<Start, &str>| match (
            Start::parse("--from", text, queue),
            expected,
        ) {
            (Ok(start), Ok(expected)) => assert_eq!(start, expected, "{text}"),
            (Err(Trouble::Wrong(said)), Err(word)) => assert!(said.contains(word), "{said}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("oldest", None, Ok(Start::Oldest));
        check("newest", Some(1), Ok(Start::Newest));
        check("1700000000000", None, Ok(Start::Time(1_700_000_000_000)));
        check("offset:7", Some(0), Ok(Start::Offset(7)));
        check("offset:7", None, Err("add --queue"));
        for wrong in ["", "yesterday", "-5", "offset:", "offset:-1", "offset:x"] {
            check(wrong, Some(0), Err("must be oldest"));
        }
    }
}
