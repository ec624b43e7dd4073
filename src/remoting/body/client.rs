//! Who is connected, and where: GET_CONSUMER_LIST_BY_GROUP 38, GET_CONSUMER_CONNECTION_LIST 203,
//! GET_PRODUCER_CONNECTION_LIST 204, GET_CONSUMER_STATUS_FROM_CLIENT 221,
//! INVOKE_BROKER_TO_GET_CONSUMER_STATUS 223 and GET_ALL_PRODUCER_INFO 328. Sources:
//! `ConsumerConnection`, `ProducerConnection`, `Connection`, `GetConsumerStatusBody`,
//! `ProducerTableInfo`, `ProducerInfo`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use super::json::{append_queue_map, to_vec};
use super::queue::{MessageQueue, queue_map};
use crate::remoting::language::Language;

/// Request of CHECK_CLIENT_CONFIG 46. Source: `CheckClientRequestBody`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CheckClient {
    pub client_id: String,
    pub group: String,
    pub subscription_data: Option<SubscriptionData>,
}

/// Response of 38.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerList {
    pub consumer_id_list: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connection {
    /// `ip:port`.
    pub client_addr: String,
    pub client_id: String,
    pub language: Language,
    /// `MQVersion` ordinal.
    pub version: i32,
    /// Not the reference's: what this member wants, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wants: Option<Wants>,
    /// Likewise: why this client is no member, though it sends heartbeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What one member of a group subscribes to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wants {
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "MessageModel::optional"
    )]
    pub message_model: Option<MessageModel>,
    /// Expressions by topic, of `TAG` alone without their kind.
    pub topics: BTreeMap<String, String>,
}

/// Response of 203.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerConnection {
    pub connection_set: Vec<Connection>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "ConsumeFromWhere::optional"
    )]
    pub consume_from_where: Option<ConsumeFromWhere>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "ConsumeType::optional"
    )]
    pub consume_type: Option<ConsumeType>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "MessageModel::optional"
    )]
    pub message_model: Option<MessageModel>,
    /// By topic.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Response of QUERY_SUBSCRIPTION_BY_CONSUMER 345. Source: `QuerySubscriptionResponseBody`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupSubscription {
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    pub topic: String,
}

/// Response of 204.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerConnection {
    pub connection_set: Vec<Connection>,
}

/// Response of 328.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTable {
    /// By group.
    pub data: BTreeMap<String, Vec<Producer>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Producer {
    pub client_id: String,
    pub language: Language,
    /// Milliseconds.
    pub last_update_timestamp: i64,
    /// `ip:port`.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// `MQVersion` ordinal.
    pub version: i32,
}

/// Response of 221.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientStatus {
    /// Offsets.
    #[serde(deserialize_with = "queue_map")]
    pub message_queue_table: Vec<(MessageQueue, i64)>,
}

/// Response of 223.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsumerStatuses {
    /// By client id.
    pub consumer_table: BTreeMap<String, Vec<(MessageQueue, i64)>>,
}

impl ConsumerStatuses {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"consumerTable\":{".to_vec();
        for (at, (client_id, offsets)) in self.consumer_table.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&to_vec(client_id));
            out.push(b':');
            append_queue_map(&mut out, offsets);
        }
        out.extend_from_slice(b"},\"messageQueueTable\":{}}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::body::json;

    #[test]
    fn statuses_are_read_and_written_as_java_does() {
        let told = br#"{"consumerTable":{},"messageQueueTable":{{"brokerName":"b","queueId":3,"topic":"t"}:7}}"#;
        let ClientStatus {
            message_queue_table,
        } = json::from_slice(told).unwrap();
        assert_eq!(message_queue_table[0].1, 7);
        let statuses = ConsumerStatuses {
            consumer_table: [("c1", message_queue_table), ("c2", Vec::new())]
                .map(|(client_id, table)| (client_id.to_owned(), table))
                .into(),
        };
        assert_eq!(
            String::from_utf8(statuses.encode()).unwrap(),
            r#"{"consumerTable":{"c1":{{"brokerName":"b","queueId":3,"topic":"t"}:7},"c2":{}},"messageQueueTable":{}}"#
        );
    }
}
