//! Offsets of queues and of groups.

use orbitmq::remoting::code::request::{
    CLONE_GROUP_OFFSET, GET_CONSUME_STATS, GET_EARLIEST_MSG_STORETIME, GET_MAX_OFFSET,
    GET_MIN_OFFSET, INVOKE_BROKER_TO_RESET_OFFSET, QUERY_CONSUME_TIME_SPAN, QUERY_CONSUMER_OFFSET,
    QUERY_CORRECTION_OFFSET, QUERY_TOPIC_CONSUME_BY_WHO, QUERY_TOPICS_BY_CONSUMER,
    SEARCH_OFFSET_BY_TIMESTAMP, UPDATE_CONSUMER_OFFSET,
};

use super::{pull, send};
use crate::script::{Case, case};

const OFFSET: i32 = QUERY_CONSUMER_OFFSET;
const COMMIT: i32 = UPDATE_CONSUMER_OFFSET;
const SEARCH: i32 = SEARCH_OFFSET_BY_TIMESTAMP;
/// Times as texts, and how long ago.
const SPAN: &[&str] = &[
    "delayTime",
    "minTimeStampStr",
    "maxTimeStampStr",
    "consumeTimeStampStr",
];
const RESET: i32 = INVOKE_BROKER_TO_RESET_OFFSET;

pub const CASES: &[Case] = &[
    case("max offset", GET_MAX_OFFSET, "topic=Plain&queueId=0"),
    case(
        "max offset uncommitted",
        GET_MAX_OFFSET,
        "topic=Plain&queueId=0&committed=false",
    ),
    case(
        "max offset of an empty queue",
        GET_MAX_OFFSET,
        "topic=Eight&queueId=3",
    ),
    case(
        "max offset of a missing queue",
        GET_MAX_OFFSET,
        "topic=Plain&queueId=9",
    ),
    case(
        "max offset of a negative queue",
        GET_MAX_OFFSET,
        "topic=Plain&queueId=-1",
    ),
    case(
        "max offset of a missing topic",
        GET_MAX_OFFSET,
        "topic=NoSuch&queueId=0",
    ),
    case("max offset without a topic", GET_MAX_OFFSET, "queueId=0"),
    case("max offset without a queue", GET_MAX_OFFSET, "topic=Plain"),
    case(
        "max offset of a word",
        GET_MAX_OFFSET,
        "topic=Plain&queueId=one",
    ),
    case("min offset", GET_MIN_OFFSET, "topic=Plain&queueId=0"),
    case(
        "min offset of an empty queue",
        GET_MIN_OFFSET,
        "topic=Eight&queueId=3",
    ),
    case(
        "min offset of a missing queue",
        GET_MIN_OFFSET,
        "topic=Plain&queueId=9",
    ),
    case(
        "min offset of a missing topic",
        GET_MIN_OFFSET,
        "topic=NoSuch&queueId=0",
    ),
    case("min offset without a queue", GET_MIN_OFFSET, "topic=Plain"),
    case(
        "earliest time",
        GET_EARLIEST_MSG_STORETIME,
        "topic=Plain&queueId=0",
    ),
    case(
        "earliest time of an empty queue",
        GET_EARLIEST_MSG_STORETIME,
        "topic=Eight&queueId=3",
    ),
    case(
        "earliest time of a missing topic",
        GET_EARLIEST_MSG_STORETIME,
        "topic=NoSuch&queueId=0",
    ),
    case(
        "earliest time without a queue",
        GET_EARLIEST_MSG_STORETIME,
        "topic=Plain",
    ),
    case(
        "search the start",
        SEARCH,
        "topic=Plain&queueId=0&timestamp=0",
    ),
    case(
        "search before the start",
        SEARCH,
        "topic=Plain&queueId=0&timestamp=-1",
    ),
    case(
        "search the end",
        SEARCH,
        "topic=Plain&queueId=0&timestamp=9000000000000",
    ),
    case(
        "search the end from above",
        SEARCH,
        "topic=Plain&queueId=0&timestamp=9000000000000&boundaryType=upper",
    ),
    case(
        "search the start from above",
        SEARCH,
        "topic=Plain&queueId=0&timestamp=0&boundaryType=UPPER",
    ),
    case(
        "search by a bad bound",
        SEARCH,
        "topic=Plain&queueId=0&timestamp=0&boundaryType=x",
    ),
    case(
        "search an empty queue",
        SEARCH,
        "topic=Eight&queueId=3&timestamp=1",
    ),
    case(
        "search a missing topic",
        SEARCH,
        "topic=NoSuch&queueId=0&timestamp=1",
    ),
    case("search without a time", SEARCH, "topic=Plain&queueId=0"),
    case(
        "offset of nobody",
        OFFSET,
        "consumerGroup=nobody&topic=Plain&queueId=0",
    ),
    case(
        "offset of nobody in an empty queue",
        OFFSET,
        "consumerGroup=nobody&topic=Eight&queueId=3",
    ),
    case(
        "offset of nobody but not zero",
        OFFSET,
        "consumerGroup=nobody&topic=Plain&queueId=0&setZeroIfNotFound=false",
    ),
    case(
        "offset of a missing topic",
        OFFSET,
        "consumerGroup=readers&topic=NoSuch&queueId=0",
    ),
    case(
        "offset of a missing queue",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=9",
    ),
    case("offset without a group", OFFSET, "topic=Plain&queueId=0"),
    case(
        "offset without a queue",
        OFFSET,
        "consumerGroup=readers&topic=Plain",
    ),
    case(
        "commit",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=1&commitOffset=4",
    ),
    case(
        "committed",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=1",
    ),
    case(
        "commit less",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=1&commitOffset=2",
    ),
    case(
        "committed less",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=1",
    ),
    case(
        "commit more",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=1&commitOffset=99",
    ),
    case(
        "committed more",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=1",
    ),
    case(
        "commit below zero",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=2&commitOffset=-2",
    ),
    case(
        "committed below zero",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=2",
    ),
    case(
        "commit one-way",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=3&commitOffset=1",
    )
    .oneway(),
    case(
        "committed one-way",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=3",
    )
    .until("ext.offset=1"),
    case(
        "commit a missing topic",
        COMMIT,
        "consumerGroup=readers&topic=NoSuch&queueId=0&commitOffset=1",
    ),
    case(
        "commit of nobody",
        COMMIT,
        "consumerGroup=unheard&topic=Plain&queueId=0&commitOffset=1",
    ),
    case(
        "commit of a bad group",
        COMMIT,
        "consumerGroup=a b&topic=Plain&queueId=0&commitOffset=1",
    ),
    case(
        "commit a missing queue",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=9&commitOffset=1",
    ),
    case(
        "commit a negative queue",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=-1&commitOffset=1",
    ),
    case(
        "commit nothing",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=0",
    ),
    case(
        "commit for no group",
        COMMIT,
        "topic=Plain&queueId=0&commitOffset=1",
    ),
    case("consumed by", QUERY_TOPIC_CONSUME_BY_WHO, "topic=Plain"),
    case(
        "consumed by nobody",
        QUERY_TOPIC_CONSUME_BY_WHO,
        "topic=Eight",
    ),
    case(
        "consumed by, missing topic",
        QUERY_TOPIC_CONSUME_BY_WHO,
        "topic=NoSuch",
    ),
    case("consumed by, no topic", QUERY_TOPIC_CONSUME_BY_WHO, ""),
    case(
        "topics of a group",
        QUERY_TOPICS_BY_CONSUMER,
        "group=readers",
    ),
    case("topics of nobody", QUERY_TOPICS_BY_CONSUMER, "group=nobody"),
    case("topics of no group", QUERY_TOPICS_BY_CONSUMER, ""),
    case(
        "consume stats",
        GET_CONSUME_STATS,
        "consumerGroup=readers&topic=Plain",
    )
    .mask(&["consumeTps"]),
    case(
        "consume stats of all topics",
        GET_CONSUME_STATS,
        "consumerGroup=readers",
    )
    .mask(&["consumeTps"]),
    case(
        "consume stats of members",
        GET_CONSUME_STATS,
        "consumerGroup=members",
    )
    .mask(&["consumeTps"]),
    case(
        "consume stats of nobody",
        GET_CONSUME_STATS,
        "consumerGroup=nobody",
    ),
    case(
        "consume stats of a missing topic",
        GET_CONSUME_STATS,
        "consumerGroup=readers&topic=NoSuch",
    ),
    case(
        "consume stats without a group",
        GET_CONSUME_STATS,
        "topic=Plain",
    ),
    case(
        "time span",
        QUERY_CONSUME_TIME_SPAN,
        "group=readers&topic=Plain",
    )
    .mask(SPAN),
    case(
        "time span of nobody",
        QUERY_CONSUME_TIME_SPAN,
        "group=nobody&topic=Plain",
    )
    .mask(SPAN),
    case(
        "time span of a missing topic",
        QUERY_CONSUME_TIME_SPAN,
        "group=readers&topic=NoSuch",
    ),
    case(
        "time span of no topic",
        QUERY_CONSUME_TIME_SPAN,
        "group=readers",
    ),
    case(
        "corrections",
        QUERY_CORRECTION_OFFSET,
        "topic=Plain&compareGroup=readers",
    ),
    case(
        "corrections of one",
        QUERY_CORRECTION_OFFSET,
        "topic=Plain&filterGroups=unheard&compareGroup=members",
    )
    .mask(&["0"]),
    case(
        "corrections of a missing topic",
        QUERY_CORRECTION_OFFSET,
        "topic=NoSuch&compareGroup=readers",
    ),
    case(
        "corrections without a group",
        QUERY_CORRECTION_OFFSET,
        "topic=Plain",
    ),
    case(
        "clone",
        CLONE_GROUP_OFFSET,
        "srcGroup=readers&destGroup=cloned&topic=Plain&offline=true",
    ),
    case(
        "cloned",
        OFFSET,
        "consumerGroup=cloned&topic=Plain&queueId=1",
    ),
    case(
        "clone all topics",
        CLONE_GROUP_OFFSET,
        "srcGroup=readers&destGroup=cloned2",
    ),
    case(
        "cloned all topics",
        OFFSET,
        "consumerGroup=cloned2&topic=Plain&queueId=1",
    ),
    case(
        "clone of nobody",
        CLONE_GROUP_OFFSET,
        "srcGroup=nobody&destGroup=cloned3&topic=Plain",
    ),
    case(
        "clone of a missing topic",
        CLONE_GROUP_OFFSET,
        "srcGroup=readers&destGroup=cloned&topic=NoSuch",
    ),
    case(
        "clone of no group",
        CLONE_GROUP_OFFSET,
        "destGroup=cloned&topic=Plain",
    ),
    case(
        "reset",
        RESET,
        "group=readers&topic=Plain&queueId=0&offset=2&timestamp=-1&isForce=true",
    ),
    case(
        "offset while reset",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=0",
    ),
    case(
        "commit while reset",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=0&commitOffset=7",
    ),
    case(
        "offset after a commit while reset",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=0",
    ),
    pull("pull while reset", "queueOffset=7"),
    pull("pull after a reset", "queueOffset=2&maxMsgNums=1"),
    case(
        "commit after a reset",
        COMMIT,
        "consumerGroup=readers&topic=Plain&queueId=0&commitOffset=7",
    ),
    case(
        "offset after a reset",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=0",
    ),
    case(
        "reset to a time",
        RESET,
        "group=readers&topic=Plain&timestamp=0&isForce=true",
    ),
    case(
        "reset to the end",
        RESET,
        "group=readers&topic=Plain&timestamp=-1&isForce=true",
    ),
    case(
        "offset reset to the end",
        OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=1",
    ),
    case(
        "reset beyond the end",
        RESET,
        "group=readers&topic=Plain&queueId=0&offset=999&timestamp=-1&isForce=true",
    ),
    case(
        "reset a missing queue",
        RESET,
        "group=readers&topic=Plain&queueId=9&offset=0&timestamp=-1&isForce=true",
    ),
    case(
        "reset a missing topic",
        RESET,
        "group=readers&topic=NoSuch&timestamp=0&isForce=true",
    ),
    case(
        "reset a bad group",
        RESET,
        "group=a b&topic=Plain&timestamp=0&isForce=true",
    ),
    case(
        "reset a group without offsets",
        RESET,
        "group=full&topic=Plain&timestamp=0&isForce=true",
    ),
    case(
        "reset without force",
        RESET,
        "group=members&topic=Plain&timestamp=0&isForce=false",
    ),
    case(
        "reset without a topic",
        RESET,
        "group=readers&timestamp=0&isForce=true",
    ),
    case(
        "reset without a time",
        RESET,
        "group=readers&topic=Plain&isForce=true",
    ),
    send("send after the offsets", "e=3"),
];
