//! Consumer group configuration. Sources: `SubscriptionGroupConfig`, `GroupRetryPolicy`,
//! `SubscriptionGroupWrapper`; spec page semantics §1.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::lenient::java_enum;
use super::topic::DataVersion;

/// One consumer group of a broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupConfig {
    pub attributes: BTreeMap<String, String>,
    pub broker_id: i64,
    pub consume_broadcast_enable: bool,
    pub consume_enable: bool,
    pub consume_from_min_enable: bool,
    pub consume_message_orderly: bool,
    /// Minutes.
    pub consume_timeout_minute: i32,
    pub group_name: String,
    pub group_retry_policy: GroupRetryPolicy,
    pub group_sys_flag: i32,
    pub notify_consumer_ids_changed_enable: bool,
    pub retry_max_times: i32,
    pub retry_queue_nums: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data_set: Option<Vec<SimpleSubscription>>,
    pub which_broker_when_consume_slowly: i64,
}

impl Default for GroupConfig {
    /// As `new SubscriptionGroupConfig()`.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

java_enum! {
    /// Which of the two policies counts.
    enum RetryPolicyType {
        Exponential = "EXPONENTIAL",
        Customized = "CUSTOMIZED",
    }
}

fn policy_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RetryPolicyType, D::Error> {
    Ok(RetryPolicyType::optional(deserializer)?.unwrap_or(RetryPolicyType::Customized))
}

/// How long to wait before a message is tried again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupRetryPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetry>,
    #[serde(rename = "type", deserialize_with = "policy_type")]
    pub kind: RetryPolicyType,
}

impl Default for GroupRetryPolicy {
    fn default() -> Self {
        Self {
            customized_retry_policy: None,
            exponential_retry_policy: None,
            kind: RetryPolicyType::Customized,
        }
    }
}

/// A list of delays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetry {
    /// Milliseconds, by attempt.
    pub next: Vec<i64>,
}

/// Delays that grow by a factor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetry {
    /// Milliseconds.
    pub initial: i64,
    /// Milliseconds.
    pub max: i64,
    pub multiplier: i64,
}

impl Default for ExponentialRetry {
    fn default() -> Self {
        Self {
            initial: 5_000,
            max: 7_200_000,
            multiplier: 2,
        }
    }
}

/// A subscription fixed by configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SimpleSubscription {
    pub expression: String,
    pub expression_type: String,
    pub topic: String,
    pub version: i64,
}

/// Body of UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST 225.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupConfigList {
    pub group_config_list: Vec<GroupConfig>,
}

/// Response of UPDATE_AND_GET_GROUP_FORBIDDEN 353. Source: `GroupForbidden`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Forbidden {
    pub group: String,
    pub readable: bool,
    pub topic: String,
}

/// Response of GET_ALL_SUBSCRIPTIONGROUP_CONFIG 201.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupTable {
    pub data_version: DataVersion,
    /// Group to topic to forbidden bits.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    pub subscription_group_table: BTreeMap<String, GroupConfig>,
}
