//! Sends: 10, 310, 320, replies, and what they refuse.

use orbitmq::remoting::code::request::{
    GET_TOPIC_CONFIG, SEND_BATCH_MESSAGE, SEND_MESSAGE, SEND_REPLY_MESSAGE, SEND_REPLY_MESSAGE_V2,
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
};

use super::{V1, V2, create, filled, pull, send};
use crate::script::{Body, Case, case};

const BATCH: &str = "m=true&e=2";
const STRANGE: &str = "b=Loose&m=true&e=2";

const fn batch(name: &'static str, fields: &'static str) -> Case {
    let body = Body::Batch(&[
        (
            "one",
            "KEYS\x01b1\x02TAGS\x01red\x02UNIQ_KEY\x017F0000010001000000000000AAAA0001\x02",
        ),
        (
            "two",
            "KEYS\x01b2\x02UNIQ_KEY\x017F0000010001000000000000AAAA0002\x02",
        ),
        ("three", ""),
    ]);
    case(name, SEND_BATCH_MESSAGE, fields).over(V2).body(body)
}

pub const CASES: &[Case] = &[
    create("create for strange sends", "topic=Loose"),
    send("send", "i=KEYS\x01k1\x02TAGS\x01red\x02a\x015\x02").bind(&[("id", "ext.msgId")]),
    send(
        "send the second",
        "i=KEYS\x01k2 k3\x02TAGS\x01blue\x02a\x017\x02",
    ),
    send(
        "send with an id",
        "i=UNIQ_KEY\x017F0000010001000000000000BBBB0001\x02KEYS\x01k4\x02",
    ),
    send("send without properties", ""),
    send("send with a flag", "h=7&f=0&j=0"),
    case("send in long names", SEND_MESSAGE, "")
        .over(V1)
        .text("long"),
    case("send in long names, binary", SEND_MESSAGE, "")
        .over(V1)
        .text("long")
        .binary(),
    send("send in binary", "i=TAGS\x01green\x02").binary(),
    filled("sent", "topic=Plain&queueId=0", "ext.offset=8"),
    send("send to another queue", "e=3"),
    send("send to any queue", "b=Loose&e=-1").mask(&["queueId", "queueOffset"]),
    send("send beyond the queues", "e=4"),
    send("send far beyond the queues", "e=2147483647"),
    send("send beyond the queues to write", "b=Eight&e=5"),
    send("send without a topic", "!b&e=3"),
    send("send without a producer group", "b=Loose&!a"),
    send("send without a queue", "b=Loose&!e"),
    send("send without a default topic", "b=Loose&!c"),
    send("send without a default queue number", "b=Loose&!d"),
    send("send without flags", "b=Loose&!f&!h"),
    send("send without a born time", "b=Loose&!g"),
    send("send with words for numbers", "b=Loose&e=zero"),
    send("send with a word for a time", "b=Loose&g=now"),
    send("send with a queue that is no int", "b=Loose&e=99999999999"),
    send("send without optional fields", "b=Loose&!j&!k&!m").mask(&["queueOffset"]),
    case("send in long names without a topic", SEND_MESSAGE, "!topic")
        .over(V1)
        .text("x"),
    case(
        "send in long names without a queue",
        SEND_MESSAGE,
        "!queueId",
    )
    .over(V1)
    .text("x"),
    case(
        "send in long names with words",
        SEND_MESSAGE,
        "queueId=zero",
    )
    .over(V1)
    .text("x"),
    send("send with a bad topic name", "b=a b"),
    send("send with an empty topic name", "b="),
    send("send to a reserved topic", "b=SCHEDULE_TOPIC_XXXX"),
    send("send to the half topic", "b=RMQ_SYS_TRANS_HALF_TOPIC"),
    send("send to the template", "b=TBW102").mask(&["queueOffset"]),
    send("send to the self test", "b=SELF_TEST_TOPIC"),
    send("send to the broker's topic", "b=broker-a"),
    send("send to a new topic", "b=Auto"),
    case("made by a send", GET_TOPIC_CONFIG, "topic=Auto"),
    send("send to a new topic of many queues", "b=AutoMany&d=100"),
    case(
        "made by a send of many queues",
        GET_TOPIC_CONFIG,
        "topic=AutoMany",
    ),
    send("send to a new topic of no queues", "b=AutoNone&d=0"),
    case(
        "made by a send of no queues",
        GET_TOPIC_CONFIG,
        "topic=AutoNone",
    ),
    send(
        "send to a new topic by a missing default",
        "b=AutoNot&c=NoSuch",
    ),
    send(
        "send to a new topic by a plain default",
        "b=AutoNot&c=Plain",
    ),
    send("send to a new topic beyond its queues", "b=AutoFar&e=9"),
    case(
        "made by a send beyond its queues",
        GET_TOPIC_CONFIG,
        "topic=AutoFar",
    ),
    send("send to a new topic of a unit", "b=AutoUnit&k=true"),
    case(
        "made by a send of a unit",
        GET_TOPIC_CONFIG,
        "topic=AutoUnit",
    ),
    send("send to a topic for reading", "b=ReadOnly"),
    send("send to a topic for writing", "b=WriteOnly"),
    send("send to a topic without permission", "b=Neither"),
    send("send to an ordered topic", "b=Ordered"),
    send("send without a body", "b=Loose").body(Body::None),
    send("send too much", "b=Loose").body(Body::Fill(4 * 1024 * 1024 + 1)),
    send("send the most", "e=1").body(Body::Fill(4 * 1024 * 1024)),
    send("send properties without an end", "e=1&i=KEYS\x01open"),
    send(
        "send properties without a value",
        "e=1&i=KEYS\x01\x02TAGS\x01t\x02",
    ),
    send("send properties that are none", "e=1&i=nonsense"),
    send("send a property twice", "e=1&i=a\x011\x02a\x012\x02"),
    send(
        "send what the server sets",
        "e=1&i=MSG_REGION\x01r\x02CLUSTER\x01c\x02TRACE_ON\x01no\x02",
    ),
    send("send with a wait", "e=1&i=WAIT\x01false\x02"),
    send(
        "send with a receipt",
        "e=1&i=POP_CK\x010 1 2 3 4 5\x02x\x01y\x02",
    ),
    send("send with an empty id", "e=1&i=UNIQ_KEY\x01\x02"),
    send("send in many bytes", "e=1&i=text\x01für ü 你好\x02").text("für ü 你好"),
    filled(
        "sent to the second queue",
        "topic=Plain&queueId=1",
        "ext.offset=10",
    ),
    pull(
        "what was sent to the second queue",
        "queueId=1&queueOffset=1",
    ),
    send("send a retry of a new group", "b=%RETRY%retriers2&j=1&l=3"),
    case(
        "make a group for retries",
        UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        "",
    )
    .text(r#"{"groupName":"retriers"}"#),
    send("send a retry", "b=%RETRY%retriers&j=1&l=3"),
    send("send the last retry", "b=%RETRY%retriers&j=3&l=3"),
    send("send one retry too many", "b=%RETRY%retriers&j=4&l=3"),
    send("send a retry without a limit", "b=%RETRY%retriers&j=17"),
    send("send a retry of a bad group", "b=%RETRY%a b"),
    case("made by a retry", GET_TOPIC_CONFIG, "topic=%RETRY%retriers"),
    case(
        "made by dead letters",
        GET_TOPIC_CONFIG,
        "topic=%DLQ%retriers",
    ),
    filled(
        "sent dead letters",
        "topic=%DLQ%retriers&queueId=0",
        "ext.offset=2",
    ),
    pull("dead letters", "topic=%DLQ%retriers"),
    send("send to a dead letter queue", "b=%DLQ%retriers"),
    batch("send a batch", BATCH),
    filled("sent a batch", "topic=Plain&queueId=2", "ext.offset=3"),
    pull("a batch", "queueId=2"),
    batch("send a batch by its flag", "e=2&m=true").over(V2),
    batch("send a batch without its flag", "b=Loose&e=3").mask(&["queueOffset"]),
    batch("send a batch of a retry topic", "m=true&b=%RETRY%retriers"),
    batch("send a batch to a new topic", "m=true&b=AutoBatch"),
    case("send an empty batch", SEND_BATCH_MESSAGE, STRANGE).over(V2),
    case("send a broken batch", SEND_BATCH_MESSAGE, STRANGE)
        .over(V2)
        .text("broken"),
    case(
        "send a batch with a delay",
        SEND_BATCH_MESSAGE,
        "b=Loose&m=true&e=2&i=DELAY\x011\x02",
    )
    .over(V2)
    .body(Body::Batch(&[("late", "DELAY\x011\x02")])),
    case("send a batch of one", SEND_BATCH_MESSAGE, BATCH)
        .over(V2)
        .body(Body::Batch(&[("single", "TAGS\x01red\x02")])),
    case(
        "send a batch with an empty body",
        SEND_BATCH_MESSAGE,
        STRANGE,
    )
    .over(V2)
    .body(Body::Batch(&[("", "TAGS\x01red\x02"), ("x", "")])),
    case("send a batch too large", SEND_BATCH_MESSAGE, STRANGE)
        .over(V2)
        .body(Body::Fill(4 * 1024 * 1024 + 1)),
    send("send urgently", "b=Urgent&i=_SYS_MSG_PRIORITY_\x013\x02"),
    send(
        "send most urgently",
        "b=Urgent&i=_SYS_MSG_PRIORITY_\x0199\x02",
    ),
    send(
        "send not urgently",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x01-1\x02",
    ),
    send(
        "send urgently in no number",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x01x\x02",
    ),
    send(
        "send urgently with a delay",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x012\x02DELAY\x0118\x02",
    ),
    send(
        "send urgently by level zero",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x012\x02DELAY\x010\x02",
    ),
    send(
        "send urgently in order",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x012\x02__SHARDINGKEY\x01k\x02",
    ),
    send(
        "send urgently with a plus",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x01+2\x02",
    ),
    send(
        "send urgently with an empty number",
        "b=Urgent&e=1&i=_SYS_MSG_PRIORITY_\x01\x02",
    ),
    create(
        "create compacted",
        "topic=Compacted&attributes=+cleanup.policy=COMPACTION",
    ),
    send("send without a key to be compacted", "b=Compacted"),
    case(
        "reply",
        SEND_REPLY_MESSAGE,
        "topic=DefaultCluster_REPLY_TOPIC",
    )
    .over(V1)
    .text("answer"),
    case(
        "reply in short names",
        SEND_REPLY_MESSAGE_V2,
        "b=DefaultCluster_REPLY_TOPIC",
    )
    .over(V2)
    .text("answer"),
    case(
        "reply to a missing client",
        SEND_REPLY_MESSAGE_V2,
        "b=DefaultCluster_REPLY_TOPIC&i=REPLY_TO_CLIENT\x01nobody\x02CORRELATION_ID\x01c\x02\
         MSG_TYPE\x01reply\x02TTL\x013000\x02",
    )
    .over(V2)
    .text("answer"),
    case(
        "reply to a plain topic",
        SEND_REPLY_MESSAGE_V2,
        "e=3&i=MSG_TYPE\x01reply\x02",
    )
    .over(V2)
    .text("answer"),
];
