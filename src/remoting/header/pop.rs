//! POP: 200050 – 200055.
//!
//! Sources: `PopMessageRequestHeader` and its neighbours; spec page request-codes §1.

header! {
    /// POP_MESSAGE 200050.
    struct PopMessage<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        /// Negative: all.
        queue_id: i32 "queueId",
        max_msg_nums: i32 "maxMsgNums",
        /// Milliseconds, as all times here.
        invisible_time: i64 "invisibleTime",
        poll_time: i64 "pollTime",
        /// By the client's clock; 0: when it arrives.
        born_time: i64 "bornTime",
        /// 0 oldest, 1 newest: where a group without an offset begins.
        init_mode: i32 "initMode",
        expression_type: opt_text "expType",
        expression: opt_text "exp",
        order: bool "order" or false,
        attempt_id: opt_text "attemptId",
    }
}

header! {
    /// Response of 200050.
    #[derive(Default)]
    struct PopResponse<'a> {
        pop_time: i64 "popTime",
        invisible_time: i64 "invisibleTime",
        revive_qid: i32 "reviveQid",
        rest_num: i64 "restNum",
        start_offset_info: opt_text "startOffsetInfo",
        msg_offset_info: opt_text "msgOffsetInfo",
        order_count_info: opt_text "orderCountInfo",
    }
}

header! {
    /// ACK_MESSAGE 200051.
    struct AckMessage<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
        /// The message's `POP_CK`.
        extra_info: text "extraInfo",
        offset: i64 "offset",
        lite_topic: opt_text "liteTopic",
    }
}

header! {
    /// PEEK_MESSAGE 200052. Its response is that of 200050, with `restNum` alone.
    struct PeekMessage<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
        max_msg_nums: i32 "maxMsgNums",
    }
}

header! {
    /// CHANGE_MESSAGE_INVISIBLETIME 200053.
    struct ChangeInvisibleTime<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
        extra_info: text "extraInfo",
        offset: i64 "offset",
        invisible_time: i64 "invisibleTime",
        lite_topic: opt_text "liteTopic",
        /// The next try does not count as one more.
        suspend: bool "suspend" or false,
    }
}

header! {
    /// Response of 200053.
    #[derive(Default)]
    struct ChangeInvisibleTimeResponse {
        pop_time: i64 "popTime",
        invisible_time: i64 "invisibleTime",
        revive_qid: i32 "reviveQid",
    }
}

header! {
    /// NOTIFICATION 200054.
    struct Notification<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
        poll_time: i64 "pollTime",
        born_time: i64 "bornTime",
        order: bool "order" or false,
        attempt_id: opt_text "attemptId",
        expression_type: opt_text "expType",
        expression: opt_text "exp",
    }
}

header! {
    /// Response of 200054.
    #[derive(Default)]
    struct NotificationResponse {
        has_msg: bool "hasMsg" or false,
        polling_full: bool "pollingFull" or false,
    }
}

header! {
    /// POLLING_INFO 200055.
    struct PollingInfo<'a> {
        consumer_group: text "consumerGroup",
        topic: text "topic",
        queue_id: i32 "queueId",
    }
}
