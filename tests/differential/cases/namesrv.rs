//! The name server: routes, lists, the key-value table, brokers that register.

use orbitmq::remoting::code::request::*;

use super::route;
use crate::script::{At, Case, case};

const fn ask(name: &'static str, code: i32, fields: &'static str) -> Case {
    case(name, code, fields).at(At::NameServer)
}

const FAKE: &str = "brokerName=fake&brokerAddr=127.0.0.1:19&clusterName=FakeCluster&brokerId=0";
const TABLE: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":
    {"counter":1,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{
    "FakeOne":{"topicName":"FakeOne","readQueueNums":2,"writeQueueNums":3,"perm":6,
    "topicFilterType":"SINGLE_TAG","topicSysFlag":1,"order":false},
    "FakeTwo":{"topicName":"FakeTwo","readQueueNums":1,"writeQueueNums":1,"perm":4,
    "topicFilterType":"SINGLE_TAG","topicSysFlag":2,"order":false}}}}"#;
const SINGLE: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":
    {"counter":1,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{
    "FakeOne":{"topicName":"FakeOne","readQueueNums":2,"writeQueueNums":3,"perm":6}}}}"#;

pub const CASES: &[Case] = &[
    // The last topic that comes by itself: later lists have it.
    route("route of a retry topic", "topic=%RETRY%newcomers2").until("code=0"),
    route("route", "topic=Plain").until("code=0"),
    route("route of an ordered topic", "topic=Ordered").until("code=0"),
    route("route of a unit", "topic=Unit").until("code=0"),
    route("route of an automatic topic", "topic=Auto").until("code=0"),
    route("route for reading", "topic=ReadOnly").until("code=0"),
    route("route of the template", "topic=TBW102"),
    route("route of the cluster", "topic=DefaultCluster"),
    route(
        "route in standard JSON",
        "topic=Plain&acceptStandardJsonOnly=true",
    ),
    route("route in binary", "topic=Plain").binary(),
    route("route of a missing topic", "topic=NoSuch"),
    route("route of no topic", ""),
    route("route of an empty topic", "topic="),
    ask("cluster", GET_BROKER_CLUSTER_INFO, ""),
    ask(
        "all topics of the name server",
        GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
        "",
    ),
    ask(
        "topics of the cluster",
        GET_TOPICS_BY_CLUSTER,
        "cluster=DefaultCluster",
    ),
    ask(
        "topics of a missing cluster",
        GET_TOPICS_BY_CLUSTER,
        "cluster=NoSuch",
    ),
    ask("topics of no cluster", GET_TOPICS_BY_CLUSTER, ""),
    ask(
        "system topics of the name server",
        GET_SYSTEM_TOPIC_LIST_FROM_NS,
        "",
    ),
    ask("unit topics", GET_UNIT_TOPIC_LIST, ""),
    ask("unit subscriptions", GET_HAS_UNIT_SUB_TOPIC_LIST, ""),
    ask(
        "unit subscriptions without unit",
        GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST,
        "",
    ),
    ask(
        "put a key",
        PUT_KV_CONFIG,
        "namespace=space&key=one&value=1",
    ),
    ask(
        "put a key again",
        PUT_KV_CONFIG,
        "namespace=space&key=one&value=2",
    ),
    ask(
        "put another key",
        PUT_KV_CONFIG,
        "namespace=space&key=zwei&value=ü \"2\"",
    ),
    ask("value", GET_KV_CONFIG, "namespace=space&key=one"),
    ask(
        "value of a missing key",
        GET_KV_CONFIG,
        "namespace=space&key=none",
    ),
    ask(
        "value of a missing namespace",
        GET_KV_CONFIG,
        "namespace=none&key=one",
    ),
    ask("value of no key", GET_KV_CONFIG, "namespace=space"),
    ask("values", GET_KVLIST_BY_NAMESPACE, "namespace=space"),
    ask(
        "values of a missing namespace",
        GET_KVLIST_BY_NAMESPACE,
        "namespace=none",
    ),
    ask("values of no namespace", GET_KVLIST_BY_NAMESPACE, ""),
    ask("put without a namespace", PUT_KV_CONFIG, "key=one&value=1"),
    ask(
        "put without a key",
        PUT_KV_CONFIG,
        "namespace=space&value=1",
    ),
    ask(
        "put without a value",
        PUT_KV_CONFIG,
        "namespace=space&key=empty",
    ),
    ask("delete a key", DELETE_KV_CONFIG, "namespace=space&key=one"),
    ask("deleted value", GET_KV_CONFIG, "namespace=space&key=one"),
    ask(
        "delete a missing key",
        DELETE_KV_CONFIG,
        "namespace=space&key=one",
    ),
    ask(
        "delete from a missing namespace",
        DELETE_KV_CONFIG,
        "namespace=none&key=one",
    ),
    ask(
        "members of a broker",
        GET_BROKER_MEMBER_GROUP,
        "clusterName=DefaultCluster&brokerName=broker-a",
    ),
    ask(
        "members of a missing broker",
        GET_BROKER_MEMBER_GROUP,
        "clusterName=DefaultCluster&brokerName=none",
    ),
    ask("members of no broker", GET_BROKER_MEMBER_GROUP, ""),
    ask(
        "data version of a missing broker",
        QUERY_DATA_VERSION,
        "brokerName=none&brokerAddr=127.0.0.1:9&clusterName=none&brokerId=0",
    )
    .text(r#"{"counter":1,"stateVersion":0,"timestamp":1}"#),
    ask(
        "heartbeat of a missing broker",
        BROKER_HEARTBEAT,
        "brokerName=none&brokerAddr=127.0.0.1:9&clusterName=none&brokerId=0",
    ),
    ask("configuration of the name server", GET_NAMESRV_CONFIG, "").mask(&["*"]),
    ask(
        "change the name server's configuration",
        UPDATE_NAMESRV_CONFIG,
        "",
    )
    .text("configBlackList=x\n"),
    ask("unknown code at the name server", 9999, ""),
    ask("send to the name server", SEND_MESSAGE_V2, "b=Plain").text("hello"),
];

pub const FOREIGN: &[Case] = &[
    ask(
        "register with a single topic",
        REGISTER_BROKER,
        "haServerAddr=127.0.0.1:20",
    )
    .over(FAKE)
    .text(SINGLE),
    ask("register", REGISTER_BROKER, "haServerAddr=127.0.0.1:20")
        .over(FAKE)
        .text(TABLE),
    ask(
        "register again",
        REGISTER_BROKER,
        "haServerAddr=127.0.0.1:20",
    )
    .over(FAKE)
    .text(TABLE),
    ask(
        "register a slave",
        REGISTER_BROKER,
        "brokerId=1&brokerAddr=127.0.0.1:29&haServerAddr=127.0.0.1:30",
    )
    .over(FAKE)
    .text(TABLE),
    ask(
        "register with a bad sum",
        REGISTER_BROKER,
        "haServerAddr=127.0.0.1:20&bodyCrc32=5",
    )
    .over(FAKE)
    .text(TABLE),
    ask("register without an id", REGISTER_BROKER, "!brokerId")
        .over(FAKE)
        .text(TABLE),
    ask(
        "register no JSON",
        REGISTER_BROKER,
        "haServerAddr=127.0.0.1:20",
    )
    .over(FAKE)
    .text("{"),
    route("route of a registered topic", "topic=FakeOne"),
    route("route of another registered topic", "topic=FakeTwo"),
    ask("cluster with another", GET_BROKER_CLUSTER_INFO, ""),
    ask(
        "members of a registered broker",
        GET_BROKER_MEMBER_GROUP,
        "clusterName=FakeCluster&brokerName=fake",
    ),
    ask(
        "topics of another cluster",
        GET_TOPICS_BY_CLUSTER,
        "cluster=FakeCluster",
    ),
    ask("registered unit topics", GET_UNIT_TOPIC_LIST, ""),
    ask(
        "registered unit subscriptions",
        GET_HAS_UNIT_SUB_TOPIC_LIST,
        "",
    ),
    ask(
        "registered unit subscriptions without unit",
        GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST,
        "",
    ),
    ask("data version", QUERY_DATA_VERSION, "")
        .over(FAKE)
        .text(r#"{"counter":1,"stateVersion":0,"timestamp":1700000000000}"#),
    ask("newer data version", QUERY_DATA_VERSION, "")
        .over(FAKE)
        .text(r#"{"counter":2,"stateVersion":0,"timestamp":1700000000000}"#),
    ask("data version without a body", QUERY_DATA_VERSION, "").over(FAKE),
    ask("heartbeat of a broker", BROKER_HEARTBEAT, "").over(FAKE),
    ask("wipe writing", WIPE_WRITE_PERM_OF_BROKER, "brokerName=fake"),
    route("route after a wipe", "topic=FakeOne"),
    ask("add writing", ADD_WRITE_PERM_OF_BROKER, "brokerName=fake"),
    route("route after writing is back", "topic=FakeTwo"),
    ask(
        "wipe writing of a missing broker",
        WIPE_WRITE_PERM_OF_BROKER,
        "brokerName=none",
    ),
    ask(
        "add writing of a missing broker",
        ADD_WRITE_PERM_OF_BROKER,
        "brokerName=none",
    ),
    ask("wipe writing of no broker", WIPE_WRITE_PERM_OF_BROKER, ""),
    ask(
        "register a topic",
        REGISTER_TOPIC_IN_NAMESRV,
        "topic=FakeThree",
    )
    .text(
        r#"{"queueDatas":[{"brokerName":"fake","readQueueNums":1,"writeQueueNums":1,"perm":6,
        "topicSysFlag":0}],"brokerDatas":[],"filterServerTable":{}}"#,
    ),
    route("route of a topic alone", "topic=FakeThree"),
    ask(
        "register a topic of a missing broker",
        REGISTER_TOPIC_IN_NAMESRV,
        "topic=FakeFour",
    )
    .text(
        r#"{"queueDatas":[{"brokerName":"none","readQueueNums":1,"writeQueueNums":1,"perm":6,
        "topicSysFlag":0}],"brokerDatas":[],"filterServerTable":{}}"#,
    ),
    route("route of a topic of a missing broker", "topic=FakeFour"),
    ask(
        "delete a topic from a cluster",
        DELETE_TOPIC_IN_NAMESRV,
        "topic=FakeOne&clusterName=DefaultCluster",
    ),
    route("route of a topic that stays", "topic=FakeOne"),
    ask(
        "delete a topic from the name server",
        DELETE_TOPIC_IN_NAMESRV,
        "topic=FakeOne",
    ),
    route("route of a deleted topic", "topic=FakeOne"),
    ask(
        "delete a missing topic from the name server",
        DELETE_TOPIC_IN_NAMESRV,
        "topic=NoSuch",
    ),
    ask(
        "delete no topic from the name server",
        DELETE_TOPIC_IN_NAMESRV,
        "",
    ),
    ask(
        "register without a body",
        REGISTER_BROKER,
        "haServerAddr=127.0.0.1:20",
    )
    .over(FAKE),
    ask(
        "unregister a slave",
        UNREGISTER_BROKER,
        "brokerId=1&brokerAddr=127.0.0.1:29",
    )
    .over(FAKE),
    ask("unregister", UNREGISTER_BROKER, "").over(FAKE),
    route("route after all left", "topic=FakeTwo").until("code=17"),
    ask("cluster after all left", GET_BROKER_CLUSTER_INFO, ""),
    ask("unregister a missing broker", UNREGISTER_BROKER, "").over(FAKE),
    ask("unregister nothing", UNREGISTER_BROKER, ""),
    ask("register without a name", REGISTER_BROKER, "!brokerName")
        .over(FAKE)
        .text(TABLE),
];
