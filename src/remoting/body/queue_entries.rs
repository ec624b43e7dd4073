//! Response of QUERY_CONSUME_QUEUE 321. Sources: `QueryConsumeQueueResponseBody`,
//! `ConsumeQueueData`.

use serde::{Deserialize, Serialize};

use super::heartbeat::SubscriptionData;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueEntries {
    /// JSON of an expression with its group, `null`, or a sentence.
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
