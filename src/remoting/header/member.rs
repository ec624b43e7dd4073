//! Membership of clients: 34, 35, 38, 40, 307. The lock requests 41 and 42 carry a body only.
//!
//! Sources: `UnregisterClientRequestHeader`, `GetConsumerListByGroupRequestHeader`,
//! `NotifyConsumerIdsChangedRequestHeader`; spec pages remoting §11, request-codes §1.

/// Extension fields of the HEART_BEAT response that clients look for.
pub const HEARTBEAT_V2: &str = "IS_SUPPORT_HEART_BEAT_V2";
pub const SUBSCRIPTION_CHANGED: &str = "IS_SUB_CHANGE";

header! {
    /// UNREGISTER_CLIENT 35.
    struct UnregisterClient<'a> {
        client_id: text "clientID",
        producer_group: opt_text "producerGroup",
        consumer_group: opt_text "consumerGroup",
    }
}

header! {
    /// GET_CONSUMER_LIST_BY_GROUP 38 and NOTIFY_CONSUMER_IDS_CHANGED 40 (one-way, to clients); also
    /// GET_CONSUMER_CONNECTION_LIST 203.
    struct ConsumerGroup<'a> {
        consumer_group: text "consumerGroup",
    }
}

header! {
    /// GET_CONSUMER_RUNNING_INFO 307, sent on to the client as it is.
    struct RunningInfo<'a> {
        consumer_group: text "consumerGroup",
        client_id: text "clientId",
        jstack_enable: bool "jstackEnable" or false,
    }
}
