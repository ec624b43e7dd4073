//! Brokers and clusters as a name server lists them: GET_BROKER_CLUSTER_INFO 106 and
//! GET_BROKER_MEMBER_GROUP 901. Sources: `ClusterInfo`, `BrokerMemberGroup`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::route::BrokerData;

/// Response of 106, always with bare integer keys.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterInfo {
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster to broker names.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// The brokers of one name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerMemberGroup {
    /// Broker id to `ip:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    pub broker_name: String,
    pub cluster: String,
}

/// Response of 901.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemberGroupBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_member_group: Option<BrokerMemberGroup>,
}
