//! Membership of clients: 34, 35, 38, 40, 221, 223, 307, 309. The lock requests 41 and 42 carry a
//! body only.
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
    /// GET_CONSUMER_LIST_BY_GROUP 38 and NOTIFY_CONSUMER_IDS_CHANGED 40 (one-way, to clients).
    struct ConsumerGroup<'a> {
        consumer_group: text "consumerGroup",
    }
}

header! {
    /// GET_CONSUMER_CONNECTION_LIST 203.
    struct ConsumerConnections<'a> {
        consumer_group: text "consumerGroup",
        /// Not the reference's: also what each client wants, and who is refused.
        each: bool "wantsOfEach" or false,
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

header! {
    /// CONSUME_MESSAGE_DIRECTLY 309, sent on to the client with the message as its body.
    struct ConsumeDirectly<'a> {
        consumer_group: text "consumerGroup",
        client_id: text "clientId",
        /// An offset message id.
        msg_id: text "msgId",
        topic: opt_text "topic",
    }
}

header! {
    /// INVOKE_BROKER_TO_GET_CONSUMER_STATUS 223 and, without a client,
    /// GET_CONSUMER_STATUS_FROM_CLIENT 221.
    struct ConsumerStatus<'a> {
        topic: text "topic",
        group: text "group",
        /// The id of the one client to ask, whatever its name says.
        client_addr: opt_text "clientAddr",
    }
}
