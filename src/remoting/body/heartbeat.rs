//! Body of HEART_BEAT 34: the groups a client belongs to and what they subscribe to.
//!
//! Clients differ: enums come as names or ordinals, empty arrays are missing or null, `subVersion`
//! is a number in milliseconds or nanoseconds or a string. Sources: `HeartbeatData` and its parts;
//! spec page remoting §11.

use serde::{Deserialize, Serialize};

use super::lenient::{int32_list, int64, java_enum};

java_enum! {
    /// How messages reach the consumers of a group.
    enum ConsumeType {
        /// Pull.
        Actively = "CONSUME_ACTIVELY",
        /// Push.
        Passively = "CONSUME_PASSIVELY",
        Pop = "CONSUME_POP",
    }
}

java_enum! {
    /// Whether each member gets every message.
    enum MessageModel {
        Broadcasting = "BROADCASTING",
        Clustering = "CLUSTERING",
        LiteSelective = "LITE_SELECTIVE",
    }
}

java_enum! {
    /// Where a group without offsets begins. The second to fourth are obsolete and mean the first.
    enum ConsumeFromWhere {
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        LastOffsetOrMinAtFirstBoot = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeartbeatData {
    #[serde(rename = "clientID")]
    pub client_id: String,
    pub consumer_data_set: Vec<ConsumerData>,
    /// Not 0: the client speaks heartbeat V2.
    pub heartbeat_fingerprint: i32,
    pub producer_data_set: Vec<ProducerData>,
    /// The subscriptions were left out and must not be cleared.
    pub without_sub: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerData {
    pub group_name: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerData {
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
    pub group_name: String,
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "MessageModel::optional"
    )]
    pub message_model: Option<MessageModel>,
    pub subscription_data_set: Vec<SubscriptionData>,
    pub unit_mode: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionData {
    pub class_filter_mode: bool,
    /// Hashes of the tags.
    #[serde(deserialize_with = "int32_list")]
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    pub sub_string: String,
    /// Grows with each change of the subscription; unit by client.
    #[serde(deserialize_with = "int64")]
    pub sub_version: i64,
    pub tags_set: Vec<String>,
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: "TAG".to_string(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::from_slice;
    use super::*;

    fn check(body: &str, expected: HeartbeatData) {
        assert_eq!(
            from_slice::<HeartbeatData>(body.as_bytes()).unwrap(),
            expected,
            "{body}"
        );
    }

    /// One consumer with these members.
    fn check_consumer(members: &str, expected: ConsumerData) {
        let body = format!(r#"{{"clientID":"c","consumerDataSet":[{{{members}}}]}}"#);
        let client_id = "c".to_string();
        let consumer_data_set = vec![expected];
        check(
            &body,
            HeartbeatData {
                client_id,
                consumer_data_set,
                ..Default::default()
            },
        );
    }

    /// One consumer with one subscription with these members.
    fn check_subscription(members: &str, expected: SubscriptionData) {
        let subscription_data_set = vec![expected];
        let consumer = ConsumerData {
            subscription_data_set,
            ..Default::default()
        };
        check_consumer(
            &format!(r#""subscriptionDataSet":[{{{members}}}]"#),
            consumer,
        );
    }

    #[test]
    fn missing_and_null_members() {
        let empty = HeartbeatData {
            client_id: "c".to_string(),
            ..Default::default()
        };
        check(r#"{"clientID":"c"}"#, empty.clone());
        check(
            r#"{"clientID":"c","consumerDataSet":null,"producerDataSet":null}"#,
            empty,
        );
        check_consumer("", ConsumerData::default());
        check_subscription("", SubscriptionData::default());
        check_subscription(
            r#""expressionType":null,"tagsSet":null"#,
            SubscriptionData::default(),
        );
    }

    #[test]
    fn enums_by_name_or_ordinal() {
        let types = |consume_type| ConsumerData {
            consume_type,
            ..Default::default()
        };
        check_consumer(r#""consumeType":1"#, types(Some(ConsumeType::Passively)));
        check_consumer(
            r#""consumeType":"CONSUME_POP""#,
            types(Some(ConsumeType::Pop)),
        );
        check_consumer(
            r#""consumeType":"consume_actively""#,
            types(Some(ConsumeType::Actively)),
        );
        check_consumer(r#""consumeType":7"#, types(None));
        check_consumer(r#""consumeType":"OTHER""#, types(None));
        check_consumer(r#""consumeType":null"#, types(None));
        let where_from = ConsumerData {
            consume_from_where: Some(ConsumeFromWhere::Timestamp),
            message_model: Some(MessageModel::Clustering),
            ..Default::default()
        };
        check_consumer(r#""consumeFromWhere":5,"messageModel":1"#, where_from);
    }

    #[test]
    fn numbers_as_text() {
        let version = |sub_version| SubscriptionData {
            sub_version,
            ..Default::default()
        };
        check_subscription(
            r#""subVersion":1700000000000000000"#,
            version(17 * 10i64.pow(17)),
        );
        check_subscription(
            r#""subVersion":"1700000000000""#,
            version(17 * 10i64.pow(11)),
        );
        let codes = SubscriptionData {
            code_set: vec![97, -98],
            ..Default::default()
        };
        check_subscription(r#""codeSet":[97,"-98"]"#, codes);
        let bad = br#"{"consumerDataSet":[{"subscriptionDataSet":[{"subVersion":"soon"}]}]}"#;
        assert!(from_slice::<HeartbeatData>(bad).is_err());
    }
}
