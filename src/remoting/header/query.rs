//! Messages by key, single messages, entries of queues, statistics and the broker's own
//! configuration: 12, 26, 33, 315, 317, 321. 25 carries properties text as its body, 28 has no
//! header.
//!
//! Sources: `QueryMessageRequestHeader`, `ViewMessageRequestHeader`,
//! `GetBrokerConfigResponseHeader`; spec page request-codes.

header! {
    /// VIEW_MESSAGE_BY_ID 33.
    struct ViewMessage<'a> {
        topic: opt_text "topic",
        /// Physical offset.
        offset: i64 "offset",
    }
}

header! {
    /// Response of GET_BROKER_CONFIG 26.
    struct BrokerConfigResponse<'a> {
        /// JSON of the configuration's data version.
        version: text "version",
    }
}

/// Extension field of 12: "true" asks by unique key.
pub const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";

header! {
    /// QUERY_MESSAGE 12.
    struct QueryMessage<'a> {
        topic: text "topic",
        key: text "key",
        max_num: i32 "maxNum",
        /// Milliseconds.
        begin_timestamp: i64 "beginTimestamp",
        end_timestamp: i64 "endTimestamp",
        /// `K` key, `U` unique key, `T` tag.
        index_type: opt_text "indexType",
    }
}

header! {
    /// Response of 12.
    #[derive(Default)]
    struct QueryMessageResponse {
        /// Milliseconds.
        index_last_update_timestamp: i64 "indexLastUpdateTimestamp",
        /// Physical offset.
        index_last_update_phyoffset: i64 "indexLastUpdatePhyoffset",
    }
}

header! {
    /// VIEW_BROKER_STATS_DATA 315.
    struct ViewStats<'a> {
        stats_name: text "statsName",
        stats_key: text "statsKey",
    }
}

header! {
    /// GET_BROKER_CONSUME_STATS 317.
    struct AllConsumeStatsHeader {
        is_order: bool "isOrder" or false,
    }
}

header! {
    /// QUERY_CONSUME_QUEUE 321.
    struct QueryEntries<'a> {
        topic: text "topic",
        queue_id: i32 "queueId",
        /// Queue offset.
        index: i64 "index",
        count: i32 "count",
        consumer_group: opt_text "consumerGroup",
    }
}
