//! Answer of QUERY_PENDING_MESSAGES 7001, which is ours: where messages lie that nobody gets yet.

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PendingMessages {
    /// Timers: all that are due before, wall ms, and fit the question were given by now.
    pub complete_ms: i64,
    pub levels: Vec<PendingLevel>,
    /// Where the next question goes on; without it there is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    pub places: Vec<PendingPlace>,
    /// Those of the hashes asked about that were taken back.
    pub recalled: Vec<u64>,
}

/// A delay level that ever had a message.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PendingLevel {
    pub delay_ms: i64,
    /// Queue offset behind the last message.
    pub end: i64,
    pub level: i32,
    /// Queue offset of the next message to be delivered.
    pub next: i64,
}

/// The half of a transaction, or a message for a time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PendingPlace {
    /// How often the producers of a half were asked.
    pub checks: u32,
    /// When a message for a time is due, wall ms.
    pub due_ms: i64,
    pub parked: bool,
    pub physical_offset: i64,
    /// Of a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_group: Option<String>,
}
