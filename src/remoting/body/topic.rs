//! Topic configuration: one topic, the table of all, and the static-topic mapping beside it.
//!
//! Sources: `TopicConfig`, `DataVersion`, `TopicConfigSerializeWrapper` and
//! `TopicConfigAndMappingSerializeWrapper`, `TopicQueueMappingDetail`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::lenient::java_enum;

/// Version of a table: grows with each change of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataVersion {
    pub counter: i64,
    pub state_version: i64,
    /// Milliseconds.
    pub timestamp: i64,
}

java_enum! {
    /// Whether a message of the topic may carry several tags.
    enum TopicFilterType {
        SingleTag = "SINGLE_TAG",
        MultiTag = "MULTI_TAG",
    }
}

fn filter_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicFilterType, D::Error> {
    Ok(TopicFilterType::optional(deserializer)?.unwrap_or(TopicFilterType::SingleTag))
}

/// One topic of a broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfig {
    pub attributes: BTreeMap<String, String>,
    pub order: bool,
    /// Bits: 4 read, 2 write, 1 inherit.
    pub perm: i32,
    pub read_queue_nums: i32,
    #[serde(deserialize_with = "filter_type")]
    pub topic_filter_type: TopicFilterType,
    pub topic_name: String,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    /// As `new TopicConfig()`.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: 6,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

/// Body of UPDATE_AND_CREATE_TOPIC_LIST 18.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigList {
    pub topic_config_list: Vec<TopicConfig>,
}

/// All topics of a broker: the response of GET_ALL_TOPIC_CONFIG 21, part of a registration, and
/// without the three mapping members the body of registrations before version 37.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicTable {
    pub data_version: DataVersion,
    pub mapping_data_version: DataVersion,
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    pub topic_queue_mapping_detail_map: BTreeMap<String, QueueMappingDetail>,
    pub topic_queue_mapping_info_map: BTreeMap<String, QueueMapping>,
}

/// Where the queues of a static topic lie, in short (`TopicQueueMappingInfo`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueMapping {
    pub bname: String,
    /// Queue number of the topic to queue number on this broker.
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    pub topic: String,
    pub total_queues: i32,
}

/// The same with the history of every queue (`TopicQueueMappingDetail`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueMappingDetail {
    pub bname: String,
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    pub hosted_queues: BTreeMap<i32, Vec<MappingItem>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    pub topic: String,
    pub total_queues: i32,
}

/// One stretch of a static topic's queue (`LogicQueueMappingItem`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MappingItem {
    pub bname: String,
    /// Excluded; -1 = open.
    pub end_offset: i64,
    pub r#gen: i32,
    pub logic_offset: i64,
    pub queue_id: i32,
    pub start_offset: i64,
    pub time_of_end: i64,
    pub time_of_start: i64,
}

impl Default for MappingItem {
    fn default() -> Self {
        Self {
            bname: String::new(),
            end_offset: -1,
            r#gen: 0,
            logic_offset: 0,
            queue_id: 0,
            start_offset: 0,
            time_of_end: -1,
            time_of_start: -1,
        }
    }
}

/// Response of GET_TOPIC_CONFIG 351: the members of [`TopicConfig`] and, for a static topic, its
/// mapping among them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigAndMapping {
    pub attributes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_detail: Option<QueueMappingDetail>,
    pub order: bool,
    pub perm: i32,
    pub read_queue_nums: i32,
    #[serde(deserialize_with = "filter_type")]
    pub topic_filter_type: TopicFilterType,
    pub topic_name: String,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

impl Default for TopicConfigAndMapping {
    fn default() -> Self {
        TopicConfig::default().into()
    }
}

impl From<TopicConfig> for TopicConfigAndMapping {
    fn from(topic: TopicConfig) -> Self {
        Self {
            attributes: topic.attributes,
            mapping_detail: None,
            order: topic.order,
            perm: topic.perm,
            read_queue_nums: topic.read_queue_nums,
            topic_filter_type: topic.topic_filter_type,
            topic_name: topic.topic_name,
            topic_sys_flag: topic.topic_sys_flag,
            write_queue_nums: topic.write_queue_nums,
        }
    }
}
