//! Response of QUERY_CONSUME_QUEUE 321. Sources: `QueryConsumeQueueResponseBody`,
//! `ConsumeQueueData`, `ConsumerFilterData`.

use serde::{Deserialize, Serialize};

use super::heartbeat::SubscriptionData;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueEntries {
    /// JSON of [`FilterData`], `null`, or a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    pub max_queue_index: i64,
    pub min_queue_index: i64,
    pub queue_data: Vec<QueueEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueEntry {
    pub eval: bool,
    pub physic_offset: i64,
    pub physic_size: i32,
    /// The hash of the tag.
    pub tags_code: i64,
}

/// How the messages of a group are filtered by an expression.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilterData {
    pub client_version: i64,
    pub consumer_group: String,
    pub expression: String,
    pub expression_type: String,
    pub topic: String,
}
