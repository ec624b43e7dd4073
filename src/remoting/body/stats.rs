//! Numbers for operators: GET_TOPIC_STATS_INFO 202, GET_CONSUME_STATS 208 and
//! INVOKE_BROKER_TO_RESET_OFFSET 222, which are maps keyed by queues, which Java clients read only
//! with an object as key; GET_TIMER_METRICS 61, and others.
//!
//! Sources: `TopicStatsTable`, `ConsumeStats`, `ResetOffsetBody`, `TimerMetrics`; spec page
//! delta-5.5 §2.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::json::{append_queue_map, to_vec};
use super::queue::{MessageQueue, queue_map};
use super::topic::DataVersion;
use crate::base::time::utc;

/// Response of 202.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicStats {
    #[serde(deserialize_with = "queue_map")]
    pub offset_table: Vec<(MessageQueue, TopicOffset)>,
    /// Messages per second.
    pub topic_put_tps: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicOffset {
    /// Milliseconds; 0 = never.
    pub last_update_timestamp: i64,
    pub max_offset: i64,
    pub min_offset: i64,
}

impl TopicStats {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        append_queue_map(&mut out, &self.offset_table);
        out.extend_from_slice(b",\"topicPutTps\":");
        out.extend_from_slice(&to_vec(&self.topic_put_tps));
        out.push(b'}');
        out
    }
}

/// Response of 61 (`TimerMetricsSerializeWrapper`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimerMetrics {
    pub data_version: DataVersion,
    pub timing_count: BTreeMap<String, TimingCount>,
}

/// Messages of a topic that wait for their time, and when their number changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimingCount {
    pub count: i64,
    pub time_stamp: i64,
}

/// Response of 208.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages per second.
    pub consume_tps: f64,
    #[serde(deserialize_with = "queue_map")]
    pub offset_table: Vec<(MessageQueue, ConsumeOffset)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeOffset {
    pub broker_offset: i64,
    pub consumer_offset: i64,
    /// Store time of the message at `consumer_offset`, milliseconds.
    pub last_timestamp: i64,
    pub pull_offset: i64,
}

impl ConsumeStats {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"consumeTps\":".to_vec();
        out.extend_from_slice(&to_vec(&self.consume_tps));
        out.extend_from_slice(b",\"offsetTable\":");
        append_queue_map(&mut out, &self.offset_table);
        out.push(b'}');
        out
    }
}

/// Response of GET_BROKER_CONSUME_STATS 317. Source: `ConsumeStatsList`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AllConsumeStats {
    pub broker_addr: String,
    /// By group, one for each topic.
    pub consume_stats_list: BTreeMap<String, Vec<ConsumeStats>>,
    pub total_diff: i64,
    pub total_inflight_diff: i64,
}

impl AllConsumeStats {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"brokerAddr\":".to_vec();
        out.extend_from_slice(&to_vec(&self.broker_addr));
        out.extend_from_slice(b",\"consumeStatsList\":[");
        for (at, (group, topics)) in self.consume_stats_list.iter().enumerate() {
            out.extend_from_slice(if at > 0 { b",{" } else { b"{" });
            out.extend_from_slice(&to_vec(group));
            out.extend_from_slice(b":[");
            for (at, stats) in topics.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&stats.encode());
            }
            out.extend_from_slice(b"]}");
        }
        let (total, inflight) = (self.total_diff, self.total_inflight_diff);
        let totals = format!("],\"totalDiff\":{total},\"totalInflightDiff\":{inflight}}}");
        out.extend_from_slice(totals.as_bytes());
        out
    }
}

/// Response of GET_ALL_CONSUMER_OFFSET 43. Source: `ConsumerOffsetManager`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerOffsets {
    pub data_version: DataVersion,
    /// Topics by group.
    pub group_topic_map: BTreeMap<String, BTreeSet<String>>,
    /// By `topic@group`, then by queue.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Response of GET_ALL_DELAY_OFFSET 45. Source: `DelayOffsetSerializeWrapper`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DelayOffsets {
    pub data_version: DataVersion,
    /// By level.
    pub offset_table: BTreeMap<i32, i64>,
}

/// Response of VIEW_BROKER_STATS_DATA 315. Source: `BrokerStatsData`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStats {
    pub stats_day: BrokerStatsItem,
    pub stats_hour: BrokerStatsItem,
    pub stats_minute: BrokerStatsItem,
}

#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatsItem {
    /// Of one send, or of one answer to a pull.
    pub avgpt: f64,
    pub sum: i64,
    /// Per second.
    pub tps: f64,
}

/// Response of 222.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffsets {
    #[serde(deserialize_with = "queue_map")]
    pub offset_table: Vec<(MessageQueue, i64)>,
}

impl ResetOffsets {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        append_queue_map(&mut out, &self.offset_table);
        out.push(b'}');
        out
    }
}

/// Response of QUERY_CORRECTION_OFFSET 308. Source: `QueryCorrectionOffsetBody`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Corrections {
    /// By queue.
    pub correction_offsets: BTreeMap<i32, i64>,
}

impl Corrections {
    pub fn encode(&self) -> Vec<u8> {
        let rows = self.correction_offsets.iter();
        let rows: Vec<_> = rows
            .map(|(queue, offset)| format!("{queue}:{offset}"))
            .collect();
        format!("{{\"correctionOffsets\":{{{}}}}}", rows.join(",")).into_bytes()
    }
}

/// Response of QUERY_TOPIC_CONSUME_BY_WHO 300. Source: `GroupList`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupList {
    pub group_list: Vec<String>,
}

/// Response of QUERY_CONSUME_TIME_SPAN 303. Source: `QueryConsumeTimeSpanBody`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimeSpans {
    pub consume_time_span_set: Vec<TimeSpan>,
}

/// Of one queue (`QueueTimeSpan`); milliseconds, -1 where there is no message, and the same as
/// texts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimeSpan {
    pub consume_time_stamp: i64,
    pub consume_time_stamp_str: String,
    pub delay_time: i64,
    pub max_time_stamp: i64,
    pub max_time_stamp_str: String,
    pub message_queue: MessageQueue,
    pub min_time_stamp: i64,
    pub min_time_stamp_str: String,
}

/// `yyyy-MM-dd#HH:mm:ss:SSS` (`UtilAll.formatDate`), UTC.
pub fn span_time(ms: i64) -> String {
    utc(ms).replace(' ', "#").replace('.', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_span_are_written_as_java_does() {
        assert_eq!(span_time(-1), "1969-12-31#23:59:59:999");
        assert_eq!(span_time(951_782_400_123), "2000-02-29#00:00:00:123");
    }
}
