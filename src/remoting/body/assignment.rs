//! Bodies of QUERY_ASSIGNMENT 400, SET_MESSAGE_REQUEST_MODE 401 and GET_ALL_MESSAGE_REQUEST_MODE
//! 402.
//!
//! Sources: `QueryAssignmentRequestBody`, `QueryAssignmentResponseBody`,
//! `SetMessageRequestModeRequestBody`, `MessageRequestModeManager`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::queue::MessageQueue;

/// How a group gets the messages of a topic (`MessageRequestMode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RequestMode {
    #[default]
    Pull,
    Pop,
}

/// Request 400.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryAssignment {
    pub client_id: String,
    pub consumer_group: String,
    /// `CLUSTERING` or `BROADCASTING`.
    pub message_model: String,
    /// Name of the rule by which queues are shared out, as clients know it.
    pub strategy_name: String,
    pub topic: String,
}

/// Response of 400.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Assignments {
    /// `None`: nothing is known, and the client keeps what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<Assignment>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Assignment {
    pub message_queue: MessageQueue,
    pub mode: RequestMode,
}

/// Request 401.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SetRequestMode {
    pub consumer_group: String,
    pub mode: RequestMode,
    /// With how many members each shares its queues; all with all if 0 or less.
    pub pop_share_queue_num: i32,
    pub topic: String,
}

/// Response of 402.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestModes {
    /// By topic, then by group.
    pub message_request_mode_map: BTreeMap<String, BTreeMap<String, SetRequestMode>>,
}
