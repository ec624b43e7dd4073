//! Pulls: what is found, what is not, filters, permissions.

use orbitmq::remoting::code::request::{LITE_PULL_MESSAGE, PULL_MESSAGE, QUERY_CONSUMER_OFFSET};

use super::{PULL, pull};
use crate::script::{Case, case};

pub const CASES: &[Case] = &[
    pull("pull", "").bind(&[("at", "body[0].physicalOffset")]),
    pull("pull one", "maxMsgNums=1"),
    pull("pull from the middle", "queueOffset=5"),
    pull("pull none", "maxMsgNums=0"),
    pull("pull a negative number", "maxMsgNums=-1"),
    pull("pull too many", "maxMsgNums=1000000"),
    pull("pull few bytes", "maxMsgBytes=300"),
    pull("pull at the end", "queueOffset=8"),
    pull("pull beyond the end", "queueOffset=9"),
    pull("pull far beyond the end", "queueOffset=9000000000"),
    pull("pull a negative offset", "queueOffset=-1"),
    pull("pull an empty queue", "queueId=3&topic=Eight"),
    pull(
        "pull an empty queue beyond its end",
        "queueId=3&topic=Eight&queueOffset=7",
    ),
    pull("pull a missing queue", "queueId=4"),
    pull("pull a negative queue", "queueId=-1"),
    pull("pull a missing topic", "topic=NoSuch"),
    pull("pull a topic for writing", "topic=WriteOnly"),
    pull("pull for a bad group", "consumerGroup=a b"),
    pull("pull for a stopped group", "consumerGroup=stopped"),
    pull("pull without a group", "!consumerGroup"),
    pull("pull without a topic", "!topic"),
    pull("pull without a queue", "!queueId"),
    pull("pull without an offset", "!queueOffset"),
    pull("pull without a number", "!maxMsgNums"),
    pull("pull without flags", "!sysFlag"),
    pull("pull without a commit offset", "!commitOffset"),
    pull("pull without a time", "!suspendTimeoutMillis"),
    pull("pull without a subscription", "!subscription"),
    pull("pull without a version", "!subVersion"),
    pull("pull without a type", "!expressionType"),
    pull("pull with a word for a number", "queueOffset=first"),
    pull("pull in binary", "maxMsgNums=2").binary(),
    case("pull lite", LITE_PULL_MESSAGE, "sysFlag=20&maxMsgNums=1").over(PULL),
    pull("pull a tag", "subscription=red"),
    pull("pull two tags", "subscription=red || blue"),
    pull("pull a missing tag", "subscription=pink"),
    pull(
        "pull a missing tag of one",
        "subscription=pink&maxMsgNums=1",
    ),
    pull("pull an empty tag", "subscription="),
    pull("pull broken tags", "subscription=|| ||"),
    pull("pull by a class", "subscription=red&sysFlag=12"),
    pull("pull by SQL", "subscription=a > 5&expressionType=SQL92"),
    pull(
        "pull by SQL of all",
        "subscription=TRUE&expressionType=SQL92",
    ),
    pull(
        "pull by SQL of tags",
        "subscription=TAGS IN ('red')&expressionType=SQL92",
    ),
    pull(
        "pull by SQL of none",
        "subscription=a > 50&expressionType=SQL92",
    ),
    pull(
        "pull by malformed SQL",
        "subscription=a >&expressionType=SQL92",
    ),
    pull("pull by empty SQL", "subscription=&expressionType=SQL92"),
    pull(
        "pull by an unknown type",
        "subscription=a&expressionType=XPATH",
    ),
    pull(
        "pull as a member",
        "consumerGroup=members&sysFlag=0&subVersion=5",
    ),
    pull(
        "pull as an older member",
        "consumerGroup=members&sysFlag=0&subVersion=4",
    ),
    pull(
        "pull as a newer member",
        "consumerGroup=members&sysFlag=0&subVersion=6",
    ),
    pull(
        "pull as a member what is not subscribed",
        "consumerGroup=members&sysFlag=0&topic=Tags",
    ),
    pull("pull as nobody", "consumerGroup=readers&sysFlag=0"),
    pull(
        "pull as a member by SQL",
        "consumerGroup=choosers&sysFlag=0&subVersion=3&expressionType=SQL92&subscription=a > 5",
    ),
    pull(
        "pull as a newer member by SQL",
        "consumerGroup=choosers&sysFlag=0&subVersion=4&expressionType=SQL92&subscription=a > 5",
    ),
    pull(
        "pull as a listener",
        "consumerGroup=listeners&sysFlag=0&subVersion=1&maxMsgNums=1",
    ),
    pull("pull and commit", "sysFlag=5&commitOffset=3&maxMsgNums=1"),
    case(
        "committed by a pull",
        QUERY_CONSUMER_OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=0",
    ),
    pull(
        "pull and commit too much",
        "sysFlag=5&commitOffset=99&maxMsgNums=1",
    ),
    case(
        "committed too much by a pull",
        QUERY_CONSUMER_OFFSET,
        "consumerGroup=readers&topic=Plain&queueId=0",
    ),
    pull(
        "pull and wait",
        "queueOffset=8&sysFlag=6&suspendTimeoutMillis=100",
    ),
    pull(
        "pull the schedule",
        "topic=SCHEDULE_TOPIC_XXXX&queueId=17&maxMsgNums=1",
    ),
    case("pull without anything", PULL_MESSAGE, ""),
];
