//! Consumer and producer groups on a broker: 201, 204, 207, 208, 303, 308, 314, 343, 345, 352, 353.
//! 200 and 225 carry a body only, 203 is [`super::member::ConsumerGroup`].
//!
//! Source: the `*Group*Header` classes; spec page request-codes §3.

header! {
    /// GET_ALL_SUBSCRIPTIONGROUP_CONFIG 201: everything when no field is there.
    struct GroupPage<'a> {
        group_seq: opt_i32 "groupSeq",
        /// JSON of a data version; compared when `group_seq` is above 0.
        data_version: opt_text "dataVersion",
        max_group_num: opt_i32 "maxGroupNum",
    }
}

header! {
    /// Response of 201.
    struct GroupPageResponse {
        total_group_num: opt_i32 "totalGroupNum",
    }
}

header! {
    /// GET_SUBSCRIPTIONGROUP_CONFIG 352, QUERY_TOPICS_BY_CONSUMER 343.
    struct GroupName<'a> {
        group: text "group",
    }
}

header! {
    /// DELETE_SUBSCRIPTIONGROUP 207.
    struct DeleteGroup<'a> {
        group_name: text "groupName",
        clean_offset: bool "cleanOffset" or false,
    }
}

header! {
    /// GET_PRODUCER_CONNECTION_LIST 204.
    struct ProducerGroup<'a> {
        producer_group: text "producerGroup",
    }
}

header! {
    /// GET_CONSUME_STATS 208.
    struct ConsumeStatsHeader<'a> {
        consumer_group: text "consumerGroup",
        topic: opt_text "topic",
        /// Topics joined by `;`, instead of `topic`; here it does not count what members want.
        topic_list: opt_text "topicList",
    }
}

header! {
    /// QUERY_CONSUME_TIME_SPAN 303, QUERY_SUBSCRIPTION_BY_CONSUMER 345.
    struct TopicAndGroup<'a> {
        topic: text "topic",
        group: text "group",
    }
}

header! {
    /// QUERY_CORRECTION_OFFSET 308.
    struct Correction<'a> {
        /// Names joined by commas.
        filter_groups: opt_text "filterGroups",
        compare_group: text "compareGroup",
        topic: text "topic",
    }
}

header! {
    /// CLONE_GROUP_OFFSET 314.
    struct CloneOffsets<'a> {
        src_group: text "srcGroup",
        dest_group: text "destGroup",
        /// All topics without it.
        topic: opt_text "topic",
        offline: bool "offline" or false,
    }
}

header! {
    /// UPDATE_AND_GET_GROUP_FORBIDDEN 353.
    struct GroupForbidden<'a> {
        group: text "group",
        topic: text "topic",
        /// Without it nothing changes.
        readable: opt_bool "readable",
    }
}
