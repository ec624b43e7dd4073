//! Lite topics: 200070, 200073 and 200075 – 200079. 200071 and 200074 have no fields.
//!
//! Sources: `PopLiteMessageRequestHeader` and its neighbours; spec page delta-5.5 §1.

header! {
    /// POP_LITE_MESSAGE 200070.
    struct PopLite<'a> {
        client_id: text "clientId",
        consumer_group: text "consumerGroup",
        /// The parent topic.
        topic: text "topic",
        max_msg_num: i32 "maxMsgNum",
        /// Milliseconds, as all times here.
        invisible_time: i64 "invisibleTime",
        poll_time: i64 "pollTime",
        /// By the client's clock; 0: when it arrives.
        born_time: i64 "bornTime" or 0,
        attempt_id: opt_text "attemptId",
    }
}

header! {
    /// Response of 200070.
    #[derive(Default)]
    struct PopLiteResponse<'a> {
        pop_time: i64 "popTime",
        invisible_time: i64 "invisibleTime",
        revive_qid: i32 "reviveQid",
        /// How often each message was handed out before, joined by `;`.
        order_count_info: opt_text "orderCountInfo",
    }
}

header! {
    /// NOTIFY_UNSUBSCRIBE_LITE 200073, one way, from the broker.
    struct NotifyUnsubscribeLite<'a> {
        lite_topic: text "liteTopic",
        consumer_group: text "consumerGroup",
        client_id: text "clientId",
    }
}

header! {
    /// GET_LITE_TOPIC_INFO 200076.
    struct LiteTopicName<'a> {
        parent_topic: opt_text "parentTopic",
        lite_topic: opt_text "liteTopic",
    }
}

header! {
    /// GET_LITE_CLIENT_INFO 200077.
    struct LiteClientName<'a> {
        parent_topic: opt_text "parentTopic",
        group: opt_text "group",
        client_id: opt_text "clientId",
        /// Lite topics in the answer.
        max_count: i32 "maxCount" or 1000,
    }
}

header! {
    /// GET_LITE_GROUP_INFO 200078.
    struct LiteGroupName<'a> {
        group: text "group",
        lite_topic: opt_text "liteTopic",
        /// Lite topics in the answer.
        top_k: i32 "topK" or 0,
    }
}

header! {
    /// TRIGGER_LITE_DISPATCH 200079.
    struct TriggerLite<'a> {
        group: text "group",
        client_id: opt_text "clientId",
    }
}
