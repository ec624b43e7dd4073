//! Subscription groups, members, locks, assignments.

use orbitmq::remoting::code::request::{
    CHECK_CLIENT_CONFIG, DELETE_SUBSCRIPTIONGROUP, GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
    GET_CONSUMER_CONNECTION_LIST, GET_CONSUMER_LIST_BY_GROUP, GET_PRODUCER_CONNECTION_LIST,
    GET_SUBSCRIPTIONGROUP_CONFIG, GET_TOPIC_CONFIG, HEART_BEAT, LOCK_BATCH_MQ, QUERY_ASSIGNMENT,
    QUERY_SUBSCRIPTION_BY_CONSUMER, SET_MESSAGE_REQUEST_MODE, UNLOCK_BATCH_MQ, UNREGISTER_CLIENT,
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
};

use crate::script::{At, Case, case};

const MADE: i32 = UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
const LIST: i32 = UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST;
const ONE: i32 = GET_SUBSCRIPTIONGROUP_CONFIG;

const FIRST: &str = r#"{"clientID":"c1","producerDataSet":[{"groupName":"producers"}],
    "consumerDataSet":[{"groupName":"members","consumeType":"CONSUME_PASSIVELY",
    "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,
    "subscriptionDataSet":[{"topic":"Plain","subString":"red || blue","tagsSet":["red","blue"],
    "codeSet":[112785,3027034],"subVersion":5,"expressionType":"TAG","classFilterMode":false},
    {"topic":"%RETRY%members","subString":"*","subVersion":5}]}]}"#;
const SECOND: &str = r#"{"clientID":"c2","producerDataSet":[],
    "consumerDataSet":[{"groupName":"members","consumeType":"CONSUME_PASSIVELY",
    "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,
    "subscriptionDataSet":[{"topic":"Plain","subString":"red || blue","tagsSet":["red","blue"],
    "codeSet":[112785,3027034],"subVersion":5}]}]}"#;
const NUMBERS: &str = r#"{"clientID":"c3","consumerDataSet":[{"groupName":"numbers",
    "consumeType":1,"messageModel":1,"consumeFromWhere":0,
    "subscriptionDataSet":[{"topic":"Plain","subString":"*","subVersion":"7"}]}]}"#;
const BROADCAST: &str = r#"{"clientID":"c4","consumerDataSet":[{"groupName":"listeners",
    "consumeType":"CONSUME_PASSIVELY","messageModel":"BROADCASTING",
    "consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
    "subscriptionDataSet":[{"topic":"Plain","subString":"*","subVersion":1}]}]}"#;
const SQL: &str = r#"{"clientID":"c5","consumerDataSet":[{"groupName":"choosers",
    "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
    "consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
    "subscriptionDataSet":[{"topic":"Plain","subString":"a > 5","subVersion":3,
    "expressionType":"SQL92"}]}]}"#;

pub const CASES: &[Case] = &[
    case("create a group", MADE, "").text(r#"{"groupName":"made"}"#),
    case("created group", ONE, "group=made"),
    case("create a full group", MADE, "").text(
        r#"{"groupName":"full","consumeEnable":true,"consumeFromMinEnable":false,
        "consumeBroadcastEnable":false,"consumeMessageOrderly":true,"retryQueueNums":2,
        "retryMaxTimes":3,"brokerId":0,"whichBrokerWhenConsumeSlowly":1,
        "notifyConsumerIdsChangedEnable":false,"groupSysFlag":4,"consumeTimeoutMinute":7}"#,
    ),
    case("created full group", ONE, "group=full"),
    case("create a stopped group", MADE, "")
        .text(r#"{"groupName":"stopped","consumeEnable":false}"#),
    case("create a group without retries", MADE, "")
        .text(r#"{"groupName":"noretry","retryQueueNums":0}"#),
    case("create a group that does not broadcast", MADE, "")
        .text(r#"{"groupName":"nobroadcast","consumeBroadcastEnable":false}"#),
    case("create a group with a policy", MADE, "").text(
        r#"{"groupName":"policy","groupRetryPolicy":{"type":"EXPONENTIAL",
        "exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2}}}"#,
    ),
    case("created group with a policy", ONE, "group=policy"),
    case("create a group with an attribute", MADE, "")
        .text(r#"{"groupName":"attributed","attributes":{"+priority.factor":"50"}}"#),
    case("created group with an attribute", ONE, "group=attributed"),
    case("create a group with a bad attribute", MADE, "")
        .text(r#"{"groupName":"attributed2","attributes":{"+no.such":"50"}}"#),
    case("create a group with a bad name", MADE, "").text(r#"{"groupName":"a b"}"#),
    case("create a group without a name", MADE, "").text(r#"{"consumeEnable":true}"#),
    case("create a group without a body", MADE, ""),
    case("create a group from no JSON", MADE, "").text("{"),
    case("create a list of groups", LIST, "")
        .text(r#"{"groupConfigList":[{"groupName":"list1"},{"groupName":"list2"}]}"#),
    case("created group of a list", ONE, "group=list2"),
    case("create a list with a bad group", LIST, "")
        .text(r#"{"groupConfigList":[{"groupName":"list3"},{"groupName":"a b"}]}"#),
    case("create an empty list of groups", LIST, "").text(r#"{"groupConfigList":[]}"#),
    case("group nobody made", ONE, "group=newcomers"),
    case("group with a bad name", ONE, "group=a b"),
    case("group without a name", ONE, ""),
    case("all groups", GET_ALL_SUBSCRIPTIONGROUP_CONFIG, ""),
    case(
        "a page of groups",
        GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
        "groupSeq=0&maxGroupNum=1",
    )
    .mask(&["*"]),
    case("heartbeat", HEART_BEAT, "").text(FIRST),
    case("heartbeat again", HEART_BEAT, "").text(FIRST),
    case("heartbeat of another", HEART_BEAT, "")
        .text(SECOND)
        .at(At::Other),
    case("heartbeat in numbers", HEART_BEAT, "").text(NUMBERS),
    case("heartbeat of a broadcast", HEART_BEAT, "").text(BROADCAST),
    case("heartbeat with an expression", HEART_BEAT, "").text(SQL),
    case("heartbeat without groups", HEART_BEAT, "").text(r#"{"clientID":"c6"}"#),
    case("heartbeat with a fingerprint", HEART_BEAT, "").text(
        r#"{"clientID":"c7","heartbeatFingerprint":123,"isWithoutSub":false,
        "consumerDataSet":[{"groupName":"printed","consumeType":"CONSUME_PASSIVELY",
        "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
        "subscriptionDataSet":[{"topic":"Plain","subString":"*","subVersion":1}]}]}"#,
    ),
    case("heartbeat without a client", HEART_BEAT, "").text("{}"),
    case("heartbeat without a body", HEART_BEAT, ""),
    case("heartbeat that is no JSON", HEART_BEAT, "").text("{"),
    case("heartbeat of a bad group", HEART_BEAT, "").text(
        r#"{"clientID":"c8","consumerDataSet":[{"groupName":"a b",
        "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
        "consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}]}"#,
    ),
    case(
        "made by a heartbeat",
        GET_TOPIC_CONFIG,
        "topic=%RETRY%members",
    ),
    case("group made by a heartbeat", ONE, "group=members"),
    case(
        "not made by a broadcast",
        GET_TOPIC_CONFIG,
        "topic=%RETRY%listeners",
    ),
    case(
        "members",
        GET_CONSUMER_LIST_BY_GROUP,
        "consumerGroup=members",
    ),
    case(
        "members of nobody",
        GET_CONSUMER_LIST_BY_GROUP,
        "consumerGroup=nobody",
    ),
    case("members without a group", GET_CONSUMER_LIST_BY_GROUP, ""),
    case(
        "consumer connections",
        GET_CONSUMER_CONNECTION_LIST,
        "consumerGroup=members",
    ),
    case(
        "consumer connections in numbers",
        GET_CONSUMER_CONNECTION_LIST,
        "consumerGroup=numbers",
    ),
    case(
        "consumer connections of SQL",
        GET_CONSUMER_CONNECTION_LIST,
        "consumerGroup=choosers",
    ),
    case(
        "consumer connections of nobody",
        GET_CONSUMER_CONNECTION_LIST,
        "consumerGroup=nobody",
    ),
    case(
        "consumer connections of no group",
        GET_CONSUMER_CONNECTION_LIST,
        "",
    ),
    case(
        "producer connections",
        GET_PRODUCER_CONNECTION_LIST,
        "producerGroup=producers",
    ),
    case(
        "producer connections of nobody",
        GET_PRODUCER_CONNECTION_LIST,
        "producerGroup=nobody",
    ),
    case(
        "producer connections of no group",
        GET_PRODUCER_CONNECTION_LIST,
        "",
    ),
    case(
        "subscription",
        QUERY_SUBSCRIPTION_BY_CONSUMER,
        "group=members&topic=Plain",
    ),
    case(
        "subscription of another topic",
        QUERY_SUBSCRIPTION_BY_CONSUMER,
        "group=members&topic=Tags",
    ),
    case(
        "subscription of nobody",
        QUERY_SUBSCRIPTION_BY_CONSUMER,
        "group=nobody&topic=Plain",
    ),
    case(
        "subscription of no topic",
        QUERY_SUBSCRIPTION_BY_CONSUMER,
        "group=members",
    ),
    case("check an expression", CHECK_CLIENT_CONFIG, "").text(
        r#"{"clientId":"c1","group":"members","subscriptionData":{"topic":"Plain",
        "subString":"a > 5 AND b IS NOT NULL","expressionType":"SQL92"}}"#,
    ),
    case("check a bad expression", CHECK_CLIENT_CONFIG, "").text(
        r#"{"clientId":"c1","group":"members","subscriptionData":{"topic":"Plain",
        "subString":"a >","expressionType":"SQL92"}}"#,
    ),
    case("check tags", CHECK_CLIENT_CONFIG, "").text(
        r#"{"clientId":"c1","group":"members","subscriptionData":{"topic":"Plain",
        "subString":"red","expressionType":"TAG"}}"#,
    ),
    case("check an unknown type", CHECK_CLIENT_CONFIG, "").text(
        r#"{"clientId":"c1","group":"members","subscriptionData":{"topic":"Plain",
        "subString":"red","expressionType":"XPATH"}}"#,
    ),
    case("check nothing", CHECK_CLIENT_CONFIG, ""),
    case("lock", LOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c1","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-a","queueId":0,"topic":"Plain"},
        {"brokerName":"broker-a","queueId":1,"topic":"Plain"}]}"#,
    ),
    case("lock what another has", LOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c2","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-a","queueId":1,"topic":"Plain"},
        {"brokerName":"broker-a","queueId":2,"topic":"Plain"}]}"#,
    ),
    case("lock nothing", LOCK_BATCH_MQ, "")
        .text(r#"{"clientId":"c1","consumerGroup":"members","mqSet":[]}"#),
    case("lock a missing topic", LOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c1","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-z","queueId":99,"topic":"NoSuch"}]}"#,
    ),
    case("lock for nobody", LOCK_BATCH_MQ, "")
        .text(r#"{"mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"Plain"}]}"#),
    case("lock without a body", LOCK_BATCH_MQ, ""),
    case("unlock what another has", UNLOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c2","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-a","queueId":0,"topic":"Plain"}]}"#,
    ),
    case("unlock", UNLOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c1","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-a","queueId":0,"topic":"Plain"},
        {"brokerName":"broker-a","queueId":1,"topic":"Plain"}]}"#,
    ),
    case("lock what is free again", LOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c2","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-a","queueId":0,"topic":"Plain"}]}"#,
    ),
    case("unlock all", UNLOCK_BATCH_MQ, "").text(
        r#"{"clientId":"c2","consumerGroup":"members","mqSet":[
        {"brokerName":"broker-a","queueId":0,"topic":"Plain"},
        {"brokerName":"broker-a","queueId":2,"topic":"Plain"}]}"#,
    ),
    case("unlock without a body", UNLOCK_BATCH_MQ, ""),
    case("assignment", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"members","clientId":"c1","strategyName":"AVG",
        "messageModel":"CLUSTERING"}"#,
    ),
    case("assignment of the other", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"members","clientId":"c2","strategyName":"AVG",
        "messageModel":"CLUSTERING"}"#,
    ),
    case("assignment of a broadcast", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"listeners","clientId":"c4","strategyName":"AVG",
        "messageModel":"BROADCASTING"}"#,
    ),
    case("assignment in a circle", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"members","clientId":"c1",
        "strategyName":"AVG_BY_CIRCLE","messageModel":"CLUSTERING"}"#,
    ),
    case("assignment by a missing strategy", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"members","clientId":"c1","strategyName":"NONE",
        "messageModel":"CLUSTERING"}"#,
    ),
    case("assignment of a missing topic", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"NoSuch","consumerGroup":"members","clientId":"c1","strategyName":"AVG",
        "messageModel":"CLUSTERING"}"#,
    ),
    case("assignment of nobody", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"nobody","clientId":"c1","strategyName":"AVG",
        "messageModel":"CLUSTERING"}"#,
    ),
    case("assignment without a body", QUERY_ASSIGNMENT, ""),
    case("pop from now on", SET_MESSAGE_REQUEST_MODE, "")
        .text(r#"{"topic":"Plain","consumerGroup":"members","mode":"POP","popShareQueueNum":0}"#),
    case("assignment to pop", QUERY_ASSIGNMENT, "").text(
        r#"{"topic":"Plain","consumerGroup":"members","clientId":"c1","strategyName":"AVG",
        "messageModel":"CLUSTERING"}"#,
    ),
    case("pull from now on", SET_MESSAGE_REQUEST_MODE, "")
        .text(r#"{"topic":"Plain","consumerGroup":"members","mode":"PULL","popShareQueueNum":0}"#),
    case("a mode for retries", SET_MESSAGE_REQUEST_MODE, "")
        .text(r#"{"topic":"%RETRY%members","consumerGroup":"members","mode":"POP"}"#),
    case("a mode for a missing topic", SET_MESSAGE_REQUEST_MODE, "")
        .text(r#"{"topic":"NoSuch","consumerGroup":"members","mode":"POP"}"#),
    case("a mode for a missing group", SET_MESSAGE_REQUEST_MODE, "")
        .text(r#"{"topic":"Plain","consumerGroup":"a b","mode":"POP"}"#),
    case("a mode without a body", SET_MESSAGE_REQUEST_MODE, ""),
    case(
        "unregister a client",
        UNREGISTER_CLIENT,
        "clientID=c2&producerGroup=producers&consumerGroup=members",
    )
    .at(At::Other),
    case(
        "members left",
        GET_CONSUMER_LIST_BY_GROUP,
        "consumerGroup=members",
    ),
    case(
        "unregister a missing client",
        UNREGISTER_CLIENT,
        "clientID=c9&consumerGroup=nobody",
    ),
    case("unregister nobody", UNREGISTER_CLIENT, ""),
    case(
        "delete a group",
        DELETE_SUBSCRIPTIONGROUP,
        "groupName=made&cleanOffset=true",
    ),
    case(
        "delete a missing group",
        DELETE_SUBSCRIPTIONGROUP,
        "groupName=nobody",
    ),
    case(
        "delete a group without a name",
        DELETE_SUBSCRIPTIONGROUP,
        "",
    ),
];
