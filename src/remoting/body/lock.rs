//! Locks of orderly consumers: LOCK_BATCH_MQ 41 and UNLOCK_BATCH_MQ 42. Sources:
//! `LockBatchRequestBody`, `LockBatchResponseBody`.

use serde::{Deserialize, Serialize};

use super::queue::MessageQueue;

/// Request of 41 and 42.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LockBatch {
    pub client_id: String,
    pub consumer_group: String,
    pub mq_set: Vec<MessageQueue>,
    pub only_this_broker: bool,
}

/// Response of 41: the queues that are locked now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedQueues {
    #[serde(rename = "lockOKMQSet")]
    pub queues: Vec<MessageQueue>,
}
