//! Response of GET_ROUTEINFO_BY_TOPIC 105: which brokers serve a topic.
//!
//! Sources: `TopicRouteData`, `BrokerData`, `QueueData`; spec page namesrv-ha §3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json;
use super::topic::QueueMapping;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRouteData {
    pub broker_datas: Vec<BrokerData>,
    /// Obsolete, always empty.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    pub queue_datas: Vec<QueueData>,
    /// Static topics: by broker name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, QueueMapping>>,
}

/// Clients from this version on (V4_9_4) get standard JSON.
const VERSION_STANDARD_JSON: i32 = 401;

impl TopicRouteData {
    /// Writes the form that a client of this version expects.
    pub fn encode(&self, client_version: i32, accept_standard_json_only: bool) -> Vec<u8> {
        if accept_standard_json_only || client_version >= VERSION_STANDARD_JSON {
            json::to_standard_vec(self)
        } else {
            json::to_vec(self)
        }
    }
}

/// The addresses of one broker name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerData {
    /// Broker id to `ip:port`; 0 is the master.
    pub broker_addrs: BTreeMap<i64, String>,
    pub broker_name: String,
    pub cluster: String,
    pub enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

/// The queues of a topic on one broker name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueData {
    pub broker_name: String,
    pub perm: i32,
    pub read_queue_nums: i32,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}
