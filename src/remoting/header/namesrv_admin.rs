//! What an operator asks a name server: 100, 101, 102, 205, 216, 219, 224, 327.
//!
//! Sources: the classes in `header.namesrv`; spec pages request-codes §5, namesrv-ha §4.

header! {
    /// PUT_KV_CONFIG 100.
    struct PutKv<'a> {
        namespace: text "namespace",
        key: text "key",
        value: text "value",
    }
}

header! {
    /// GET_KV_CONFIG 101 and DELETE_KV_CONFIG 102.
    struct KvKey<'a> {
        namespace: text "namespace",
        key: text "key",
    }
}

header! {
    /// Response of 101.
    struct KvValue<'a> {
        value: opt_text "value",
    }
}

header! {
    /// GET_KVLIST_BY_NAMESPACE 219.
    struct KvNamespace<'a> {
        namespace: text "namespace",
    }
}

header! {
    /// WIPE_WRITE_PERM_OF_BROKER 205 and ADD_WRITE_PERM_OF_BROKER 327.
    struct BrokerName<'a> {
        broker_name: text "brokerName",
    }
}

header! {
    /// Response of 205.
    struct WipeResponse {
        wipe_topic_count: i32 "wipeTopicCount",
    }
}

header! {
    /// Response of 327.
    struct AddWriteResponse {
        add_topic_count: i32 "addTopicCount",
    }
}

header! {
    /// DELETE_TOPIC_IN_NAMESRV 216.
    struct DeleteTopic<'a> {
        topic: text "topic",
        /// Only brokers of this cluster; all when missing.
        cluster_name: opt_text "clusterName",
    }
}

header! {
    /// GET_TOPICS_BY_CLUSTER 224.
    struct ClusterName<'a> {
        cluster: text "cluster",
    }
}
