//! Lite topics: the request of LITE_SUBSCRIPTION_CTL 200071 and the responses of 200074 – 200078.
//!
//! Sources: `LiteSubscriptionCtlRequestBody`, `LiteSubscriptionDTO`,
//! `GetBrokerLiteInfoResponseBody` and its neighbours, `LiteLagInfo`; spec page delta-5.5 §1, §5.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::lenient::{int64, java_enum};
use super::stats::{ConsumeOffset, TopicOffset};

/// Request of 200071.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LiteSubscriptions {
    pub subscription_set: Vec<LiteSubscription>,
}

/// What one client wants of one topic.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LiteSubscription {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Action::optional"
    )]
    pub action: Option<Action>,
    pub client_id: String,
    pub group: String,
    pub lite_topic_set: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_option: Option<OffsetOption>,
    pub topic: String,
    #[serde(deserialize_with = "int64")]
    pub version: i64,
}

java_enum! {
    enum Action {
        PartialAdd = "PARTIAL_ADD",
        PartialRemove = "PARTIAL_REMOVE",
        /// All there is from now on.
        CompleteAdd = "COMPLETE_ADD",
        /// The client is gone.
        CompleteRemove = "COMPLETE_REMOVE",
    }
}

/// Where a group is to go on in new lite topics.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OffsetOption {
    #[serde(
        rename = "type",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "OffsetKind::optional"
    )]
    pub kind: Option<OffsetKind>,
    #[serde(deserialize_with = "int64")]
    pub value: i64,
}

java_enum! {
    enum OffsetKind {
        /// 0 where it was, 1 at the beginning, 2 at the end.
        Policy = "POLICY",
        Offset = "OFFSET",
        /// So many messages before where it was.
        TailN = "TAIL_N",
        Timestamp = "TIMESTAMP",
    }
}

/// Response of 200074.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerLiteInfo {
    /// Queues of all kinds.
    pub cq_table_size: i64,
    /// Light queues.
    pub current_lmq_num: i64,
    /// Clients that have, or had, something to fetch.
    pub event_map_size: i64,
    /// Groups by the topic they are bound to.
    pub group_meta: BTreeMap<String, BTreeSet<String>>,
    pub lite_subscription_count: i64,
    pub max_lmq_num: i64,
    pub offset_table_size: i64,
    pub order_info_count: i64,
    pub store_type: String,
    /// Minutes that lite topics are kept, by their parent; -1 for ever.
    pub topic_meta: BTreeMap<String, i64>,
}

/// Response of 200075.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentTopicInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
    pub lite_topic_count: i64,
    pub lmq_num: i64,
    pub topic: String,
    pub ttl: i64,
}

/// Response of 200076.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LiteTopicInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lite_topic: Option<String>,
    pub parent_topic: String,
    pub sharding_to_broker: bool,
    pub subscriber: Vec<Subscriber>,
    pub topic_offset: TopicOffset,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subscriber {
    /// `*` for all of a group that takes every lite topic.
    pub client_id: String,
    pub group: String,
}

/// Response of 200077.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LiteClientInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub group: String,
    /// Milliseconds; -1 if there is no such client.
    pub last_access_time: i64,
    pub last_consume_time: i64,
    pub lite_topic_count: i64,
    /// Names of light queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lite_topic_set: Option<Vec<String>>,
    pub parent_topic: String,
}

/// Response of 200078.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LiteGroupInfo {
    pub earliest_unconsumed_timestamp: i64,
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_count_top_k: Option<Vec<LiteLag>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_timestamp_top_k: Option<Vec<LiteLag>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lite_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lite_topic_offset_wrapper: Option<ConsumeOffset>,
    pub parent_topic: String,
    pub total_lag_count: i64,
}

/// How far a group is behind in one lite topic.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LiteLag {
    pub earliest_unconsumed_timestamp: i64,
    pub lag_count: i64,
    /// Name of the light queue.
    pub lite_topic: String,
}
