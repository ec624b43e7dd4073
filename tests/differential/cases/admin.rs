//! What tools ask a broker, served and not.

use orbitmq::remoting::code::request::*;

use super::pull;
use crate::script::{Case, case};

pub const CASES: &[Case] = &[
    case("configuration", GET_BROKER_CONFIG, "").mask(&["*", "ext.version"]),
    case("runtime information", GET_BROKER_RUNTIME_INFO, "").mask(&["*"]),
    case("topic stats", GET_TOPIC_STATS_INFO, "topic=Plain").mask(&["topicPutTps"]),
    case(
        "topic stats of an empty topic",
        GET_TOPIC_STATS_INFO,
        "topic=Unit",
    )
    .mask(&["topicPutTps"]),
    case(
        "topic stats of a missing topic",
        GET_TOPIC_STATS_INFO,
        "topic=NoSuch",
    ),
    case("topic stats of no topic", GET_TOPIC_STATS_INFO, ""),
    case(
        "statistics",
        VIEW_BROKER_STATS_DATA,
        "statsName=TOPIC_PUT_NUMS&statsKey=Plain",
    )
    .mask(&["*"]),
    case(
        "statistics of bytes",
        VIEW_BROKER_STATS_DATA,
        "statsName=TOPIC_PUT_SIZE&statsKey=Plain",
    )
    .mask(&["*"]),
    case(
        "statistics of a group",
        VIEW_BROKER_STATS_DATA,
        "statsName=GROUP_GET_NUMS&statsKey=Plain@readers",
    )
    .mask(&["*"]),
    case(
        "statistics of a missing group",
        VIEW_BROKER_STATS_DATA,
        "statsName=GROUP_GET_NUMS&statsKey=Plain@nobody",
    ),
    case(
        "statistics of the broker",
        VIEW_BROKER_STATS_DATA,
        "statsName=BROKER_PUT_NUMS&statsKey=DefaultCluster",
    )
    .mask(&["*"]),
    case(
        "statistics of a missing key",
        VIEW_BROKER_STATS_DATA,
        "statsName=TOPIC_PUT_NUMS&statsKey=NoSuch",
    ),
    case(
        "statistics of a missing name",
        VIEW_BROKER_STATS_DATA,
        "statsName=NONE&statsKey=Plain",
    ),
    case("statistics of nothing", VIEW_BROKER_STATS_DATA, ""),
    case(
        "client of a missing group",
        GET_CONSUMER_RUNNING_INFO,
        "consumerGroup=nobody&clientId=c1&jstackEnable=false",
    ),
    case(
        "a missing client",
        GET_CONSUMER_RUNNING_INFO,
        "consumerGroup=members&clientId=c99&jstackEnable=false",
    ),
    case(
        "a client without a name",
        GET_CONSUMER_RUNNING_INFO,
        "consumerGroup=members",
    ),
    case(
        "consume directly at a missing client",
        CONSUME_MESSAGE_DIRECTLY,
        "consumerGroup=nobody&clientId=c1&msgId=${id}",
    ),
    case(
        "consume directly a bad id",
        CONSUME_MESSAGE_DIRECTLY,
        "consumerGroup=nobody&clientId=c1&msgId=xyz",
    ),
    case(
        "consume directly a missing message",
        CONSUME_MESSAGE_DIRECTLY,
        "consumerGroup=members&clientId=c1&msgId=7F00000100002A9F000000007FFFFFFF",
    ),
    case(
        "consume directly without a message",
        CONSUME_MESSAGE_DIRECTLY,
        "consumerGroup=members&clientId=c1",
    ),
    case(
        "consume directly without a group",
        CONSUME_MESSAGE_DIRECTLY,
        "clientId=c1&msgId=xyz",
    ),
    case(
        "reset a client's offset",
        RESET_CONSUMER_CLIENT_OFFSET,
        "group=readers&topic=Plain&timestamp=0&isForce=true",
    ),
    case("unknown code", 9999, ""),
    case("negative code", -5, ""),
    case("removed access control", GET_BROKER_CLUSTER_ACL_INFO, ""),
    case("route from a broker", GET_ROUTEINFO_BY_TOPIC, "topic=Plain"),
    case("cluster from a broker", GET_BROKER_CLUSTER_INFO, ""),
    case(
        "a code of clients",
        NOTIFY_CONSUMER_IDS_CHANGED,
        "consumerGroup=members",
    ),
    case("a check for clients", CHECK_TRANSACTION_STATE, ""),
    case("an unused code", QUERY_BROKER_OFFSET, ""),
    case("a code without a meaning", GET_CLIENT_CONFIG, ""),
    case("suspend a consumer", SUSPEND_CONSUMER, ""),
    case("register a filter server", REGISTER_FILTER_SERVER, ""),
];

/// Codes that the reference serves.
pub const UNSERVED: &[Case] = &[
    case("all offsets", GET_ALL_CONSUMER_OFFSET, "").mask(&["*"]),
    case("all delay offsets", GET_ALL_DELAY_OFFSET, "").mask(&["*"]),
    case("all modes", GET_ALL_MESSAGE_REQUEST_MODE, ""),
    case("timer checkpoint", GET_TIMER_CHECK_POINT, "").mask(&["*"]),
    case("all producers", GET_ALL_PRODUCER_INFO, ""),
    case(
        "consumer status",
        INVOKE_BROKER_TO_GET_CONSUMER_STATUS,
        "topic=Plain&group=nobody",
    ),
    case("clean queues", CLEAN_EXPIRED_CONSUMEQUEUE, ""),
    case("clean topics", CLEAN_UNUSED_TOPIC, ""),
    case("delete old logs", DELETE_EXPIRED_COMMITLOG, ""),
    case(
        "all consume stats",
        GET_BROKER_CONSUME_STATS,
        "isOrder=false",
    )
    .mask(&["*"]),
    case(
        "all consume stats of ordered topics",
        GET_BROKER_CONSUME_STATS,
        "isOrder=true",
    )
    .mask(&["*"]),
    case(
        "all consume stats without an order",
        GET_BROKER_CONSUME_STATS,
        "",
    )
    .mask(&["*"]),
    case(
        "entries of a queue",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=0&count=1",
    )
    .mask(&["physicSize"]),
    case(
        "entries for a group",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=0&count=2&consumerGroup=members",
    )
    .mask(&["physicSize"]),
    case(
        "entries for an expression",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=1&count=1&consumerGroup=choosers",
    )
    .mask(&["physicSize", "filterData"]),
    case(
        "entries for nobody",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=0&count=1&consumerGroup=nobody",
    )
    .mask(&["physicSize"]),
    case(
        "entries beyond the end",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=100000&count=1",
    ),
    case(
        "entries before the start",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=-1&count=1",
    ),
    case(
        "no entries of a queue",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=0&index=0&count=0",
    ),
    case(
        "entries of a missing queue",
        QUERY_CONSUME_QUEUE,
        "topic=Plain&queueId=99&index=0&count=1",
    ),
    case(
        "entries of a missing topic",
        QUERY_CONSUME_QUEUE,
        "topic=NoSuch&queueId=0&index=0&count=1",
    ),
    case(
        "forbid reading",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=made&topic=Tags&readable=false",
    ),
    case(
        "allow reading",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=made&topic=Tags&readable=true",
    ),
    case(
        "forbid reading one topic",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=members&topic=Plain&readable=false",
    ),
    case(
        "forbid reading another",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=members&topic=Tags&readable=false",
    ),
    pull(
        "pull what is forbidden",
        "consumerGroup=members&sysFlag=0&subVersion=5",
    ),
    pull("pull what is forbidden to others", "consumerGroup=members"),
    case(
        "allow reading another",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=members&topic=Tags&readable=true",
    ),
    case(
        "whether one is still forbidden",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=members&topic=Plain",
    ),
    case(
        "allow reading one topic",
        UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=members&topic=Plain&readable=true",
    ),
    pull(
        "pull what is allowed",
        "consumerGroup=members&sysFlag=0&subVersion=5",
    ),
    case("a bad key of the configuration", UPDATE_BROKER_CONFIG, "").text("configBlackList=x\n"),
    case("static topic", UPDATE_AND_CREATE_STATIC_TOPIC, "topic=a b"),
    case("replication status", GET_BROKER_HA_STATUS, "").mask(&["*"]),
    case("epochs", GET_BROKER_EPOCH_CACHE, ""),
    case("cold data", GET_COLD_DATA_FLOW_CTR_INFO, "").mask(&["*"]),
    case("read ahead", SET_COMMITLOG_READ_MODE, "READ_AHEAD_MODE=0"),
    case("a user", AUTH_GET_USER, "username=nobody"),
    case("users", AUTH_LIST_USER, ""),
    case("permissions", AUTH_LIST_ACL, ""),
    case("switch timers", SWITCH_TIMER_ENGINE, "E_T=X"),
    case(
        "RocksDB progress",
        CHECK_ROCKSDB_CQ_WRITE_PROGRESS,
        "topic=Plain",
    ),
    case("roll pops back", POP_ROLLBACK, ""),
    case("ack lite messages", ACK_LITE_MESSAGE, ""),
];
