//! How far groups have come, asked of every shard: who consumes a topic 300, which topics a group
//! consumes 343, when its messages were stored 303, corrections for a group that begins 308, one
//! group's offsets for another 314, and everything there is: offsets of all groups 43, and of the
//! delay levels 45.
//!
//! Unlike the reference, 308 only leaves out the groups it names; there it also forgets their
//! offsets.
//!
//! Source: `AdminBrokerProcessor`, `ConsumerOffsetManager`, `ScheduleMessageService`.

use crate::base::{Now, QueueOffset};
use crate::broker::control::effects::Reject;
use crate::broker::handle::consumption::Walk;
use crate::broker::handle::offset::offsets_full;
use crate::broker::handle::{Request, bad_header};
use crate::broker::survey::{self, Question, Row};
use crate::broker::{Broker, Peer};
use crate::machine::Outbox;
use crate::remoting::body::json;
use crate::remoting::body::stats::{
    ConsumerOffsets, Corrections, DelayOffsets, GroupList, TimeSpan, TimeSpans, span_time,
};
use crate::remoting::body::table::TopicList;
use crate::remoting::body::topic::DataVersion;
use crate::remoting::code::response;
use crate::remoting::header::group::{CloneOffsets, Correction, GroupName, TopicAndGroup};
use crate::remoting::header::topic::TopicName;
use crate::store::consumequeue::QueueSlot;
use crate::store::read::WaiterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Offsets in one answer.
const OFFSETS_MAX: usize = 50_000;

/// What is wanted of the offsets that groups have committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// GET_ALL_CONSUMER_OFFSET, GET_ALL_DELAY_OFFSET.
    All,
    Delays,
    GroupsOf(Arc<str>),
    TopicsOf(String),
    Corrections {
        topic: Arc<str>,
        without: Vec<String>,
        group: String,
    },
    Clone {
        from: String,
        to: String,
        topic: Option<Arc<str>>,
    },
    Times {
        topic: Arc<str>,
        group: String,
    },
}

/// The store time of a message that is not there (`getMessageStoreTimeStamp`).
const NO_MESSAGE_MS: i64 = -1;

fn topic_of(broker: &Broker, name: &str) -> Result<Arc<str>, Reject> {
    let topic = broker.snapshot.topics.get(name);
    topic.map(|topic| topic.name.clone()).ok_or_else(|| {
        let remark = format!("topic[{name}] not exist");
        Reject::new(response::TOPIC_NOT_EXIST, remark)
    })
}

/// QUERY_TOPIC_CONSUME_BY_WHO.
pub fn groups_of(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = TopicName::decode(&request.command.ext).map_err(bad_header)?;
    let wanted = Progress::GroupsOf(Arc::from(&*header.topic));
    survey::ask(broker, request, Question::Progress(wanted), out)
}

/// QUERY_TOPICS_BY_CONSUMER.
pub fn topics_of(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = GroupName::decode(&request.command.ext).map_err(bad_header)?;
    let wanted = Progress::TopicsOf(header.group.into_owned());
    survey::ask(broker, request, Question::Progress(wanted), out)
}

/// QUERY_CORRECTION_OFFSET.
pub fn corrections(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = Correction::decode(&request.command.ext).map_err(bad_header)?;
    let without = header.filter_groups.unwrap_or_default();
    let without = without.split(',').filter(|group| !group.is_empty());
    let wanted = Progress::Corrections {
        topic: Arc::from(&*header.topic),
        without: without.map(str::to_owned).collect(),
        group: header.compare_group.into_owned(),
    };
    survey::ask(broker, request, Question::Progress(wanted), out)
}

/// CLONE_GROUP_OFFSET.
pub fn clone(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = CloneOffsets::decode(&request.command.ext).map_err(bad_header)?;
    let topic = header.topic.filter(|topic| !topic.is_empty());
    let wanted = Progress::Clone {
        from: header.src_group.into_owned(),
        to: header.dest_group.into_owned(),
        topic: topic.map(|topic| Arc::from(&*topic)),
    };
    survey::ask(broker, request, Question::Progress(wanted), out)
}

/// QUERY_CONSUME_TIME_SPAN.
pub fn times(
    broker: &mut Broker,
    request: &Request<'_>,
    out: &mut Outbox<Peer>,
) -> Result<(), Reject> {
    let header = TopicAndGroup::decode(&request.command.ext).map_err(bad_header)?;
    let wanted = Progress::Times {
        topic: topic_of(broker, &header.topic)?,
        group: header.group.into_owned(),
    };
    survey::ask(broker, request, Question::Progress(wanted), out)
}

/// What this shard knows; `None` while it reads times from the disk.
pub fn rows(
    broker: &mut Broker,
    now: Now,
    wanted: &Progress,
    walk: &mut Walk,
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    match wanted {
        Progress::Times { topic, group } => {
            return time_rows(broker, now, (topic, group), walk, waiter);
        }
        Progress::Clone { from, to, topic } => {
            let offsets: Vec<_> = broker.offsets.of_group(from).collect();
            let mut rows = Vec::new();
            for (slot, offset) in offsets {
                let name = broker.store.queues().queue(slot).map(|queue| &queue.topic);
                let wanted =
                    name.is_some_and(|name| topic.as_ref().is_none_or(|topic| topic == name));
                if wanted && !broker.offsets.commit(now, to, slot, offset) {
                    rows.push(Row::Refused(offsets_full(broker)));
                    break;
                }
            }
            broker.flush_offsets(now);
            return Some(rows);
        }
        Progress::Delays => return Some(delay_rows(broker)),
        Progress::All if broker.offsets.exceeds(OFFSETS_MAX) => {
            return Some(vec![Row::Refused(too_many())]);
        }
        Progress::All
        | Progress::GroupsOf(_)
        | Progress::TopicsOf(_)
        | Progress::Corrections { .. } => {}
    }
    let mut rows = Vec::new();
    if *wanted == Progress::All {
        broker.flush_offsets(now);
        rows.push(Row::Version(broker.log_end().0));
    }
    for (group, slot, offset) in broker.offsets.iter() {
        let Some(queue) = broker.store.queues().queue(slot) else {
            continue;
        };
        let is_wanted = match wanted {
            Progress::GroupsOf(topic) | Progress::Corrections { topic, .. } => {
                *queue.topic == **topic
            }
            Progress::TopicsOf(name) => **group == **name,
            Progress::All => true,
            Progress::Clone { .. } | Progress::Times { .. } | Progress::Delays => false,
        };
        if is_wanted {
            rows.push(Row::Offset {
                group: group.clone(),
                topic: queue.topic.clone(),
                queue_id: queue.queue_id,
                offset,
            });
        }
    }
    Some(rows)
}

fn too_many() -> Reject {
    let remark = format!(
        "more than {OFFSETS_MAX} consumer offsets, the limit of one answer: ask for one group \
         (GET_CONSUME_STATS)"
    );
    Reject::new(response::SYSTEM_ERROR, remark)
}

/// How far this shard has delivered its levels.
fn delay_rows(broker: &Broker) -> Vec<Row> {
    let levels = broker.delays.progress();
    let rows = levels.map(|(level, offset)| Row::Offset {
        group: Arc::default(),
        topic: Arc::default(),
        queue_id: level,
        offset,
    });
    rows.collect()
}

fn time_rows(
    broker: &mut Broker,
    now: Now,
    (topic, group): (&str, &str),
    walk: &mut Walk,
    waiter: WaiterId,
) -> Option<Vec<Row>> {
    let queues = survey::queues_here(broker, topic);
    for (queue_id, slot) in queues.into_iter().skip(walk.queue) {
        let (min, max) =
            slot.map_or_else(Default::default, |slot| broker.store.visible_range(slot));
        let committed = slot.and_then(|slot| broker.offsets.committed(group, slot));
        let committed = committed.unwrap_or(0);
        let at = |broker: &mut Broker, slot: Option<QueueSlot>, offset: Option<u64>| {
            let offset = offset.filter(|offset| (min.0..max.0).contains(offset));
            let ms = survey::time_of(broker, slot, offset, waiter)?;
            Some(if ms > 0 { ms } else { NO_MESSAGE_MS })
        };
        let first_ms = at(broker, slot, Some(min.0))?;
        let last_ms = at(broker, slot, max.0.checked_sub(1))?;
        let consumed_ms = match committed.checked_sub(1) {
            None => first_ms,
            Some(before) => at(broker, slot, Some(before))?,
        };
        let waiting = Some(committed).filter(|committed| QueueOffset(*committed) < max);
        let next_ms = at(broker, slot, waiting)?;
        walk.queue += 1;
        walk.rows.push(Row::Times {
            queue_id,
            first_ms,
            last_ms,
            consumed_ms,
            delay_ms: if next_ms > 0 {
                now.wall_ms - next_ms
            } else {
                0
            },
        });
    }
    Some(std::mem::take(&mut walk.rows))
}

/// The answer, made of what all shards know.
pub fn body(broker: &Broker, now: Now, wanted: &Progress, rows: &[Row]) -> Result<Vec<u8>, Reject> {
    let offsets = rows.iter().filter_map(|row| match row {
        Row::Offset {
            group,
            topic,
            queue_id,
            offset,
        } => Some((group, topic, *queue_id, *offset as i64)),
        _ => None,
    });
    Ok(match wanted {
        Progress::All => all_offsets(now, rows)?,
        Progress::Delays => {
            let levels: BTreeMap<i32, i64> =
                offsets.map(|(.., level, offset)| (level, offset)).collect();
            json::to_vec(&DelayOffsets {
                data_version: version(now, levels.values().sum()),
                offset_table: levels,
            })
        }
        Progress::Clone { .. } => Vec::new(),
        Progress::Times { topic, .. } => json::to_vec(&spans(broker, topic, rows)),
        Progress::GroupsOf(topic) => {
            let mut groups: BTreeSet<String> =
                offsets.map(|(group, ..)| group.to_string()).collect();
            let online = broker.snapshot.subscriptions.iter();
            let online = online.filter(|(_, group)| group.topics.contains_key(topic));
            groups.extend(online.map(|(name, _)| name.to_string()));
            json::to_vec(&GroupList {
                group_list: groups.into_iter().collect(),
            })
        }
        Progress::TopicsOf(_) => {
            let topics: BTreeSet<String> =
                offsets.map(|(_, topic, ..)| topic.to_string()).collect();
            json::to_vec(&TopicList {
                broker_addr: Some(broker.options.store_host.to_string()),
                topic_list: topics.into_iter().collect(),
            })
        }
        Progress::Corrections { without, group, .. } => {
            let mut least: BTreeMap<i32, i64> = BTreeMap::new();
            let mut own: BTreeMap<i32, i64> = BTreeMap::new();
            for (name, _, queue_id, offset) in offsets {
                if without.iter().any(|other| **other == **name) {
                    continue;
                }
                if **name == **group {
                    own.insert(queue_id, offset);
                }
                let known = least.entry(queue_id).or_insert(offset);
                *known = (*known).min(offset);
            }
            // Nobody is behind the group: nothing to correct there.
            for (queue_id, offset) in own {
                let known = least.entry(queue_id).or_insert(i64::MAX);
                if *known > offset {
                    *known = i64::MAX;
                }
            }
            Corrections {
                correction_offsets: least,
            }
            .encode()
        }
    })
}

/// As of now.
fn version(now: Now, counter: i64) -> DataVersion {
    DataVersion {
        counter,
        state_version: 0,
        timestamp: now.wall_ms,
    }
}

fn all_offsets(now: Now, rows: &[Row]) -> Result<Vec<u8>, Reject> {
    // Up to where shards have logged their offsets: grows with every change.
    let logged = rows.iter().map(|row| match row {
        Row::Version(logged) => *logged as i64,
        _ => 0,
    });
    let mut all = ConsumerOffsets {
        data_version: version(now, logged.sum()),
        ..ConsumerOffsets::default()
    };
    let mut count = 0;
    for row in rows {
        if let Row::Offset {
            group,
            topic,
            queue_id,
            offset,
        } = row
        {
            let topics = all.group_topic_map.entry(group.to_string()).or_default();
            if !topics.contains(&**topic) {
                topics.insert(topic.to_string());
            }
            let key = format!("{topic}@{group}");
            let queues = all.offset_table.entry(key).or_default();
            queues.insert(*queue_id, *offset as i64);
            count += 1;
        }
    }
    match count {
        0..=OFFSETS_MAX => Ok(json::to_vec(&all)),
        _ => Err(too_many()),
    }
}

fn spans(broker: &Broker, topic: &str, rows: &[Row]) -> TimeSpans {
    let mut spans: Vec<TimeSpan> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Times {
                queue_id,
                first_ms,
                last_ms,
                consumed_ms,
                delay_ms,
            } => Some(TimeSpan {
                consume_time_stamp: *consumed_ms,
                consume_time_stamp_str: span_time(*consumed_ms),
                delay_time: *delay_ms,
                max_time_stamp: *last_ms,
                max_time_stamp_str: span_time(*last_ms),
                message_queue: survey::queue_name(broker, topic, *queue_id),
                min_time_stamp: *first_ms,
                min_time_stamp_str: span_time(*first_ms),
            }),
            _ => None,
        })
        .collect();
    spans.sort_by_key(|span| span.message_queue.queue_id);
    TimeSpans {
        consume_time_span_set: spans,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Mono;

    #[test]
    fn one_answer_has_so_many_offsets() {
        let now = Now {
            mono: Mono(0),
            wall_ms: 5,
        };
        let row = |queue_id: i32| Row::Offset {
            group: "g".into(),
            topic: "t".into(),
            queue_id,
            offset: 7,
        };
        let mut rows = vec![Row::Version(4), Row::Version(5)];
        rows.extend((0..OFFSETS_MAX as i32).map(row));
        let all = all_offsets(now, &rows).unwrap();
        let start = r#"{"dataVersion":{"counter":9,"stateVersion":0,"timestamp":5},"groupTopicMap":{"g":["t"]},"offsetTable":{"t@g":{0:7,1:7,"#;
        assert!(all.starts_with(start.as_bytes()));
        rows.push(row(-1));
        let reject = all_offsets(now, &rows).unwrap_err();
        assert!(
            reject
                .remark
                .starts_with("more than 50000 consumer offsets")
        );
    }
}
