//! Topics: made and changed at the start of the script, deleted at its end.

use orbitmq::remoting::code::request::{
    DELETE_TOPIC_IN_BROKER, GET_ALL_TOPIC_CONFIG, GET_SYSTEM_TOPIC_LIST_FROM_BROKER,
    GET_TOPIC_CONFIG, UPDATE_AND_CREATE_TOPIC, UPDATE_AND_CREATE_TOPIC_LIST,
};

use super::{TOPIC, create, route, send};
use crate::script::{Case, case};

pub const MADE: &[Case] = &[
    case("all topics at start", GET_ALL_TOPIC_CONFIG, ""),
    case("system topics", GET_SYSTEM_TOPIC_LIST_FROM_BROKER, ""),
    create("create", "topic=Plain"),
    create("create again", "topic=Plain"),
    case("created", GET_TOPIC_CONFIG, "topic=Plain"),
    route("created, its route", "topic=Plain").until("code=0"),
    create(
        "create with eight queues",
        "topic=Eight&readQueueNums=8&writeQueueNums=8",
    ),
    create("create for reading", "topic=ReadOnly&perm=4"),
    create("create for writing", "topic=WriteOnly&perm=2"),
    create("create without permission", "topic=Neither&perm=0"),
    create("create ordered", "topic=Ordered&order=true"),
    case("created ordered", GET_TOPIC_CONFIG, "topic=Ordered"),
    create(
        "create with many tags",
        "topic=Tags&topicFilterType=MULTI_TAG",
    ),
    case("created with many tags", GET_TOPIC_CONFIG, "topic=Tags"),
    create("create for a unit", "topic=Unit&topicSysFlag=1"),
    create(
        "create with a type",
        "topic=Fifo&attributes=%2Bmessage.type=FIFO",
    ),
    create(
        "create with an attribute",
        "topic=Typed&attributes=+message.type=FIFO",
    ),
    case("created with an attribute", GET_TOPIC_CONFIG, "topic=Typed"),
    create(
        "change an attribute",
        "topic=Typed&attributes=+message.type=DELAY",
    ),
    create(
        "take an attribute away",
        "topic=Typed&attributes=-message.type",
    ),
    case("changed an attribute", GET_TOPIC_CONFIG, "topic=Typed"),
    create(
        "create with an unknown attribute",
        "topic=Strange&attributes=+no.such=1",
    ),
    create(
        "create with a bad attribute value",
        "topic=Strange&attributes=+message.type=X",
    ),
    create(
        "create with a broken attribute",
        "topic=Strange&attributes=message.type",
    ),
    create("create mixed", "topic=Mixed&attributes=+message.type=MIXED"),
    case("mixed", GET_TOPIC_CONFIG, "topic=Mixed"),
    create(
        "change to fewer queues",
        "topic=Eight&readQueueNums=8&writeQueueNums=2",
    ),
    case("changed to fewer queues", GET_TOPIC_CONFIG, "topic=Eight"),
    create("create with a bad name", "topic=a b"),
    create("create with a strange name", "topic=ü"),
    create("create with an empty name", "topic="),
    create("create without a name", ""),
    create(
        "create with a long name",
        "topic=a123456789a123456789a123456789a123456789a123456789a123456789a123456789a123456789\
         a123456789a123456789a123456789a123456789a1234567",
    ),
    create(
        "create with the longest name",
        "topic=a123456789a123456789a123456789a123456789a123456789a123456789a123456789a123456789\
         a123456789a123456789a123456789a123456789a123456",
    ),
    create("create a system topic", "topic=TBW102"),
    create("create in the system's name space", "topic=rmq_sys_mine"),
    create("create a retry topic", "topic=%RETRY%nobody"),
    create(
        "create without queue numbers",
        "topic=Strange&!readQueueNums",
    ),
    create(
        "create with a word for a number",
        "topic=Strange&readQueueNums=four",
    ),
    create(
        "create with no queues",
        "topic=NoQueues&readQueueNums=0&writeQueueNums=0",
    ),
    create(
        "create with negative queues",
        "topic=Negative&readQueueNums=-1&writeQueueNums=-1",
    ),
    create("create with a bad permission", "topic=BadPerm&perm=99"),
    create(
        "create without a filter type",
        "topic=NoFilter&!topicFilterType",
    ),
    create(
        "create with a bad filter type",
        "topic=BadFilter&topicFilterType=NO_TAG",
    ),
    create("create without order", "topic=NoOrder&!order"),
    case("missing topic", GET_TOPIC_CONFIG, "topic=NoSuch"),
    case("topic without a name", GET_TOPIC_CONFIG, ""),
    case("list of topics", UPDATE_AND_CREATE_TOPIC_LIST, "").text(
        r#"{"topicConfigList":[{"topicName":"Listed1","readQueueNums":2,"writeQueueNums":2,
        "perm":6,"topicFilterType":"SINGLE_TAG","topicSysFlag":0,"order":false},
        {"topicName":"Listed2","readQueueNums":1,"writeQueueNums":1,"perm":6,
        "topicFilterType":"SINGLE_TAG","topicSysFlag":0,"order":false}]}"#,
    ),
    case("listed topic", GET_TOPIC_CONFIG, "topic=Listed1"),
    case("list with a bad name", UPDATE_AND_CREATE_TOPIC_LIST, "").text(
        r#"{"topicConfigList":[{"topicName":"Listed3","perm":6},{"topicName":"a b","perm":6}]}"#,
    ),
    case(
        "list with a bad name makes nothing",
        GET_TOPIC_CONFIG,
        "topic=Listed3",
    ),
    case("list with defaults", UPDATE_AND_CREATE_TOPIC_LIST, "")
        .text(r#"{"topicConfigList":[{"topicName":"Listed4"}]}"#),
    case("listed with defaults", GET_TOPIC_CONFIG, "topic=Listed4"),
    case("empty list of topics", UPDATE_AND_CREATE_TOPIC_LIST, "")
        .text(r#"{"topicConfigList":[]}"#),
    case(
        "list of topics without a body",
        UPDATE_AND_CREATE_TOPIC_LIST,
        "",
    ),
    case(
        "list of topics that is no JSON",
        UPDATE_AND_CREATE_TOPIC_LIST,
        "",
    )
    .text("{"),
    case("create in binary", UPDATE_AND_CREATE_TOPIC, "topic=Binary")
        .over(TOPIC)
        .binary(),
    create(
        "create for pop",
        "topic=Popped&readQueueNums=1&writeQueueNums=1",
    ),
    create(
        "create for order",
        "topic=PoppedInOrder&readQueueNums=1&writeQueueNums=1",
    ),
    create(
        "create for priorities",
        "topic=Urgent&attributes=+message.type=PRIORITY",
    ),
    create(
        "create for priorities to pop",
        "topic=Ranked&attributes=+message.type=PRIORITY",
    ),
];

pub const LISTED: &[Case] = &[
    case("all topics at the end", GET_ALL_TOPIC_CONFIG, ""),
    case(
        "a page of topics",
        GET_ALL_TOPIC_CONFIG,
        "topicSeq=0&maxTopicNum=1",
    )
    .mask(&["*"]),
];

pub const GONE: &[Case] = &[
    case("delete a topic", DELETE_TOPIC_IN_BROKER, "topic=Plain"),
    case("deleted topic", GET_TOPIC_CONFIG, "topic=Plain"),
    case(
        "delete a missing topic",
        DELETE_TOPIC_IN_BROKER,
        "topic=NoSuch",
    ),
    case("delete a topic without a name", DELETE_TOPIC_IN_BROKER, ""),
    case(
        "delete a topic with a blank name",
        DELETE_TOPIC_IN_BROKER,
        "topic= ",
    ),
    case(
        "delete a system topic",
        DELETE_TOPIC_IN_BROKER,
        "topic=TBW102",
    ),
    case(
        "delete a popped topic",
        DELETE_TOPIC_IN_BROKER,
        "topic=Popped",
    ),
    case("deleted popped topic", GET_TOPIC_CONFIG, "topic=Popped"),
    // The reference keeps no time any more after this.
    send("send to the timer's topic", "b=rmq_sys_wheel_timer"),
];
