//! Every body against the bytes that the reference writes (`tests/golden/`), both ways.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json::{from_slice, to_standard_vec, to_vec};
use super::register::RegisterBrokerBody;
use super::route::TopicRouteData;
use super::{client, cluster, group, heartbeat, lite, lock, stats, table, topic};

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/golden/", $name))
    };
}

fn check<T: Serialize + DeserializeOwned>(reference: &[u8]) {
    let body: T = from_slice(reference).unwrap();
    let written = String::from_utf8(to_vec(&body)).unwrap();
    assert_eq!(written, str::from_utf8(reference).unwrap());
}

#[test]
fn bodies() {
    check::<cluster::ClusterInfo>(golden!("cluster_info.json"));
    check::<cluster::MemberGroupBody>(golden!("member_group.json"));
    check::<client::ConsumerConnection>(golden!("consumer_connection.json"));
    check::<client::ProducerConnection>(golden!("producer_connection.json"));
    check::<client::ConsumerList>(golden!("consumer_list.json"));
    check::<group::GroupConfig>(golden!("group_config.json"));
    check::<group::GroupConfig>(golden!("group_config_full.json"));
    check::<group::GroupTable>(golden!("group_table.json"));
    check::<heartbeat::HeartbeatData>(golden!("heartbeat.json"));
    check::<lite::LiteSubscriptions>(golden!("lite_subscriptions.json"));
    check::<lite::BrokerLiteInfo>(golden!("lite_broker.json"));
    check::<lite::ParentTopicInfo>(golden!("lite_parent.json"));
    check::<lite::ParentTopicInfo>(golden!("lite_parent_groups.json"));
    check::<lite::LiteTopicInfo>(golden!("lite_topic.json"));
    check::<lite::LiteClientInfo>(golden!("lite_client.json"));
    check::<lite::LiteClientInfo>(golden!("lite_client_gone.json"));
    check::<lite::LiteGroupInfo>(golden!("lite_group.json"));
    check::<lite::LiteGroupInfo>(golden!("lite_group_topic.json"));
    check::<lock::LockBatch>(golden!("lock_request.json"));
    check::<lock::LockedQueues>(golden!("lock_response.json"));
    check::<table::KvTable>(golden!("kv_table.json"));
    check::<table::TopicList>(golden!("topic_list.json"));
    check::<table::TopicList>(golden!("topic_list_addr.json"));
    check::<topic::DataVersion>(golden!("data_version.json"));
    check::<topic::TopicConfig>(golden!("topic_config.json"));
    check::<topic::TopicConfigAndMapping>(golden!("topic_config.json"));
    check::<TopicRouteData>(golden!("route_bare.json"));
    check::<TopicRouteData>(golden!("route_full.json"));
    check::<RegisterBrokerBody>(golden!("register.json"));
    check::<RegisterBrokerBody>(golden!("register_mapping.json"));
}

#[test]
fn defaults_are_those_of_the_reference() {
    let group = group::GroupConfig {
        group_name: "CG".to_string(),
        ..Default::default()
    };
    assert_eq!(to_vec(&group), golden!("group_config.json"));
}

#[test]
fn routes_in_both_encodings() {
    let route: TopicRouteData = from_slice(golden!("route_bare.json")).unwrap();
    assert_eq!(route.encode(317, false), golden!("route_bare.json"));
    assert_eq!(route.encode(317, true), golden!("route_standard.json"));
    assert_eq!(route.encode(401, false), golden!("route_standard.json"));
    assert_eq!(to_standard_vec(&route), golden!("route_standard.json"));
    assert_eq!(
        from_slice::<TopicRouteData>(golden!("route_standard.json")).unwrap(),
        route
    );
}

#[test]
fn maps_keyed_by_queues() {
    let topics: stats::TopicStats = from_slice(golden!("topic_stats.json")).unwrap();
    assert_eq!(topics.offset_table[0].0.topic, "TopicTest");
    assert_eq!(topics.offset_table[0].1.max_offset, 10);
    assert_eq!(topics.encode(), golden!("topic_stats.json"));
    let consumed: stats::ConsumeStats = from_slice(golden!("consume_stats.json")).unwrap();
    assert_eq!(consumed.offset_table[0].1.pull_offset, 4);
    assert_eq!(consumed.encode(), golden!("consume_stats.json"));
    let empty: stats::ConsumeStats = from_slice(golden!("consume_stats_empty.json")).unwrap();
    assert_eq!(empty, stats::ConsumeStats::default());
    assert_eq!(empty.encode(), golden!("consume_stats_empty.json"));
}

#[test]
fn compressed_registration() {
    let compressed = crate::remoting::golden::unhex(include_str!(
        "../../../tests/golden/register_compressed.hex"
    ));
    let read = RegisterBrokerBody::decode(&compressed, 513).unwrap();
    let mut plain = RegisterBrokerBody::decode(golden!("register_mapping.json"), 513).unwrap();
    plain.topic_config_serialize_wrapper.mapping_data_version = Default::default();
    assert_eq!(read, plain);
    let before_mappings = RegisterBrokerBody::decode(&compressed, 399).unwrap();
    assert!(
        before_mappings
            .topic_config_serialize_wrapper
            .topic_queue_mapping_info_map
            .is_empty()
    );
}

#[test]
fn registration_of_old_brokers() {
    let read = RegisterBrokerBody::decode(golden!("topic_table.json"), 30).unwrap();
    let topics = &read.topic_config_serialize_wrapper.topic_config_table;
    assert_eq!(topics["TopicTest"].write_queue_nums, 8);
}
