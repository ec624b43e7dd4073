//! Consumer and queue offsets: 14, 15, 29, 30, 31, 32, 222.
//!
//! Source: the `*Offset*Header` classes; spec page request-codes §1.

header! {
    /// QUERY_CONSUMER_OFFSET 14.
    struct QueryConsumerOffset<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
        set_zero_if_not_found: opt_bool "setZeroIfNotFound",
    }
}

header! {
    /// UPDATE_CONSUMER_OFFSET 15, mostly one-way.
    struct UpdateConsumerOffset<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
        commit_offset: i64 "commitOffset",
    }
}

header! {
    /// SEARCH_OFFSET_BY_TIMESTAMP 29.
    struct SearchOffset<'a> {
        topic: text "topic",
        queue_id: i32 "queueId",
        /// Milliseconds.
        timestamp: i64 "timestamp",
        /// `lower` or `upper` in any letter case; anything else counts as lower.
        boundary_type: opt_text "boundaryType",
        lite_topic: opt_text "liteTopic",
    }
}

impl SearchOffset<'_> {
    /// Whether the last of several equal timestamps is wanted.
    pub fn is_upper(&self) -> bool {
        self.boundary_type
            .as_ref()
            .is_some_and(|name| name.eq_ignore_ascii_case("upper"))
    }
}

header! {
    /// GET_MAX_OFFSET 30.
    struct MaxOffset<'a> {
        topic: text "topic",
        queue_id: i32 "queueId",
        /// False: also what is written but not yet visible.
        committed: bool "committed" or true,
    }
}

header! {
    /// GET_MIN_OFFSET 31 and GET_EARLIEST_MSG_STORETIME 32.
    struct QueueHeader<'a> {
        topic: text "topic",
        queue_id: i32 "queueId",
    }
}

header! {
    /// Response of 14, 29, 30 and 31.
    struct OffsetResponse {
        offset: i64 "offset",
    }
}

header! {
    /// Response of 32.
    struct StoreTimeResponse {
        /// Milliseconds.
        timestamp: i64 "timestamp",
    }
}

header! {
    /// INVOKE_BROKER_TO_RESET_OFFSET 222.
    struct ResetOffset<'a> {
        topic: text "topic",
        group: text "group",
        /// Negative: all queues.
        queue_id: i32 "queueId" or -1,
        /// Counts only with a queue.
        offset: opt_i64 "offset",
        /// Milliseconds; negative is the end.
        timestamp: i64 "timestamp",
        is_force: bool "isForce" or false,
    }
}
