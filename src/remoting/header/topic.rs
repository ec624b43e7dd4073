//! Topics on a broker: 17, 21, 202, 215, 351.
//!
//! Sources: `CreateTopicRequestHeader`, `GetAllTopicConfigRequestHeader` and their neighbours; spec
//! pages request-codes §3, delta-5.5 §1.

header! {
    /// UPDATE_AND_CREATE_TOPIC 17.
    struct CreateTopic<'a> {
        topic: text "topic",
        default_topic: text "defaultTopic",
        read_queue_nums: i32 "readQueueNums",
        write_queue_nums: i32 "writeQueueNums",
        perm: i32 "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: text "topicFilterType",
        topic_sys_flag: opt_i32 "topicSysFlag",
        order: bool "order" or false,
        /// `+key=value,-key` list.
        attributes: opt_text "attributes",
        force: opt_bool "force",
    }
}

header! {
    /// DELETE_TOPIC_IN_BROKER 215, GET_TOPIC_STATS_INFO 202, GET_TOPIC_CONFIG 351 and
    /// REGISTER_TOPIC_IN_NAMESRV 217.
    struct TopicName<'a> {
        topic: text "topic",
    }
}

header! {
    /// GET_ALL_TOPIC_CONFIG 21: everything when no field is there.
    struct TopicPage<'a> {
        topic_seq: opt_i32 "topicSeq",
        /// JSON of a data version; compared when `topic_seq` is above 0.
        data_version: opt_text "dataVersion",
        max_topic_num: opt_i32 "maxTopicNum",
    }
}

header! {
    /// Response of 21.
    struct TopicPageResponse {
        total_topic_num: opt_i32 "totalTopicNum",
    }
}
