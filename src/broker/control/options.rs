//! What a broker lets its control state be: names, switches and limits.

/// What a broker lets its control state be.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    pub cluster: String,
    pub broker_name: String,
    /// The store's number of shards.
    pub shards: u16,
    /// Whether a send may create its topic (`autoCreateTopicEnable`).
    pub auto_create_topic: bool,
    /// Whether a consumer may create its group (`autoCreateSubscriptionGroup`).
    pub auto_create_group: bool,
    /// Queues of the model for created topics (`defaultTopicQueueNums`).
    pub default_topic_queues: u32,
    pub cluster_topic_enable: bool,
    pub broker_topic_enable: bool,
    /// Queues of the topic that pop acknowledgements go to (`reviveQueueNum`).
    pub revive_queues: u32,
    /// The trace topic if the broker makes one (`traceTopicEnable`, `msgTraceTopicName`).
    pub trace_topic: Option<String>,
    pub reject_pull_consumer: bool,
    /// Whether a group's members must subscribe alike (`rejectDifferentSubscription`).
    pub reject_different_subscription: bool,
    pub notify_consumer_ids_changed: bool,
    /// Whether topics may be for messages of all kinds (`enableMixedMessageType`).
    pub mixed_message_type: bool,
    /// A member without a heartbeat for this long is gone.
    pub channel_expired_ms: u64,
    /// Entries of one page of topics or groups (`splitMetadataSize`).
    pub page_max: usize,
    pub topics_max: usize,
    /// Queues of all topics.
    pub queues_max: u64,
    pub groups_max: usize,
    /// Connections in groups, counted once per group.
    pub members_max: usize,
    /// Topics one group subscribes to.
    pub subscriptions_max: usize,
    /// Order locks of all groups.
    pub locks_max: usize,
}

impl Default for ControlOptions {
    fn default() -> Self {
        ControlOptions {
            cluster: "DefaultCluster".to_owned(),
            broker_name: "broker-a".to_owned(),
            shards: 1,
            auto_create_topic: true,
            auto_create_group: true,
            default_topic_queues: 8,
            cluster_topic_enable: true,
            broker_topic_enable: true,
            revive_queues: 8,
            trace_topic: None,
            reject_pull_consumer: false,
            reject_different_subscription: false,
            notify_consumer_ids_changed: true,
            mixed_message_type: false,
            channel_expired_ms: 120_000,
            page_max: 2000,
            topics_max: 200_000,
            queues_max: 1_000_000,
            groups_max: 100_000,
            members_max: 200_000,
            subscriptions_max: 4096,
            locks_max: 1_000_000,
        }
    }
}
