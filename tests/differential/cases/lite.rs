//! Lite topics: subscriptions, pops of what a client is subscribed to, acknowledgements, questions.

use orbitmq::remoting::code::request::{
    ACK_MESSAGE, CHANGE_MESSAGE_INVISIBLETIME, DELETE_SUBSCRIPTIONGROUP, DELETE_TOPIC_IN_BROKER,
    GET_BROKER_LITE_INFO, GET_LITE_CLIENT_INFO, GET_LITE_GROUP_INFO, GET_LITE_TOPIC_INFO,
    GET_PARENT_TOPIC_INFO, LITE_SUBSCRIPTION_CTL, POP_LITE_MESSAGE, QUERY_CONSUMER_OFFSET,
    SEARCH_OFFSET_BY_TIMESTAMP, TRIGGER_LITE_DISPATCH, UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
};

use super::{create, filled, pull, send};
use crate::script::{At, Case, case};

const POP: &str = "clientId=reader&consumerGroup=lites&topic=Lites&maxMsgNum=32\
                   &invisibleTime=60000&pollTime=0&bornTime=${now}";
const ACK: &str = "consumerGroup=lites&topic=Lites&liteTopic=a&queueId=0&offset=0\
                   &extraInfo=0 ${litepop} 60000 999 0 broker-a 0 0";
const CHANGE: &str = "consumerGroup=lites&topic=Lites&liteTopic=b&queueId=0&offset=0\
                      &invisibleTime=30000&extraInfo=0 ${litepop} 60000 999 0 broker-a 0 0";

const fn pop(name: &'static str, fields: &'static str) -> Case {
    case(name, POP_LITE_MESSAGE, fields).over(POP)
}

const fn ack(name: &'static str, fields: &'static str) -> Case {
    case(name, ACK_MESSAGE, fields).over(ACK)
}

const fn change(name: &'static str, fields: &'static str) -> Case {
    case(name, CHANGE_MESSAGE_INVISIBLETIME, fields).over(CHANGE)
}

const fn subscribe(name: &'static str, body: &'static str) -> Case {
    case(name, LITE_SUBSCRIPTION_CTL, "").text(body)
}

const fn group(name: &'static str, body: &'static str) -> Case {
    case(name, UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, "").text(body)
}

const fn ask(name: &'static str, code: i32, fields: &'static str) -> Case {
    case(name, code, fields)
}

pub const CASES: &[Case] = &[
    create(
        "create a parent",
        "topic=Lites&readQueueNums=2&writeQueueNums=2\
         &attributes=+message.type=LITE,+lite.topic.expiration=30",
    ),
    group(
        "create a lite group",
        r#"{"groupName":"lites","attributes":{"+lite.bind.topic":"Lites"}}"#,
    ),
    group(
        "create an exclusive lite group",
        r#"{"groupName":"alone","attributes":{"+lite.bind.topic":"Lites",
            "+lite.sub.model":"Exclusive"}}"#,
    ),
    group(
        "create a lite group for all",
        r#"{"groupName":"all","attributes":{"+lite.bind.topic":"Lites",
            "+lite.sub.wildcard":"true"}}"#,
    ),
    group(
        "create a lite group that is stopped",
        r#"{"groupName":"halted","consumeEnable":false,
            "attributes":{"+lite.bind.topic":"Lites"}}"#,
    ),
    group(
        "create a group without lite topics",
        r#"{"groupName":"heavy"}"#,
    ),
    pop("pop lite topics without a subscription", "pollTime=10"),
    case("subscribe without a body", LITE_SUBSCRIPTION_CTL, ""),
    subscribe("subscribe to nothing", r#"{"subscriptionSet":[]}"#),
    subscribe("subscribe in no JSON", "{"),
    subscribe(
        "subscribe for nobody",
        r#"{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":" ","group":"lites",
            "liteTopicSet":["a"],"topic":"Lites","version":1}]}"#,
    ),
    subscribe(
        "subscribe without an action",
        r#"{"subscriptionSet":[{"clientId":"reader","group":"lites",
            "liteTopicSet":["a"],"topic":"Lites","version":1}]}"#,
    ),
    subscribe(
        "subscribe for a stopped group",
        r#"{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":"reader","group":"halted",
            "liteTopicSet":["a"],"topic":"Lites","version":1}]}"#,
    ),
    subscribe(
        "subscribe partly for a group for all",
        r#"{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":"greedy","group":"all",
            "liteTopicSet":["a"],"topic":"Lites","version":1}]}"#,
    ),
    subscribe(
        "subscribe",
        r#"{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":"reader","group":"lites",
            "liteTopicSet":["a","b"],"topic":"Lites","version":1}]}"#,
    ),
    subscribe(
        "subscribe twice",
        r#"{"subscriptionSet":[{"action":"COMPLETE_ADD","clientId":"reader","group":"lites",
            "liteTopicSet":["a","b"],"topic":"Lites","version":2}]}"#,
    ),
    subscribe(
        "unsubscribe from what was never there",
        r#"{"subscriptionSet":[{"action":"PARTIAL_REMOVE","clientId":"reader","group":"lites",
            "liteTopicSet":["z"],"topic":"Lites","version":3}]}"#,
    ),
    pop("pop empty lite topics", ""),
    pop("pop empty lite topics for a while", "pollTime=100"),
    send(
        "send to a lite topic",
        "b=Lites&e=0&i=__LITE_TOPIC\x01a\x02TAGS\x01red\x02",
    ),
    send("send to it again", "b=Lites&e=1&i=__LITE_TOPIC\x01a\x02"),
    filled(
        "sent to a lite topic",
        "topic=%LMQ%$Lites$a&queueId=0",
        "ext.offset=2",
    ),
    pop("pop a lite topic", "maxMsgNum=1").bind(&[("litepop", "ext.popTime")]),
    pop("pop a lite topic that is held", ""),
    pop("pop too many of lite topics", "maxMsgNum=33"),
    pop("pop lite topics of a missing topic", "topic=NoSuch"),
    pop("pop lite topics of a heavy topic", "topic=Plain"),
    pop("pop lite topics of a topic for writing", "topic=WriteOnly"),
    pop(
        "pop lite topics for a stopped group",
        "consumerGroup=halted",
    ),
    pop("pop lite topics for a heavy group", "consumerGroup=heavy"),
    pop("pop lite topics too late", "bornTime=1000&pollTime=100"),
    pop(
        "pop lite topics without a born time",
        "!bornTime&clientId=other",
    ),
    pop(
        "pop lite topics with born time zero",
        "bornTime=0&clientId=other",
    ),
    pop("pop lite topics without a group", "!consumerGroup"),
    pop("pop lite topics without a client", "!clientId"),
    pop("pop lite topics without a topic", "!topic"),
    pop("pop lite topics without a number", "!maxMsgNum"),
    pop("pop lite topics without a time", "!invisibleTime"),
    ack("ack beyond a lite topic", "offset=99"),
    ack("ack of a lite topic in another queue", "queueId=1"),
    ack("ack of a lite topic in a missing queue", "queueId=7"),
    ack(
        "ack of a lite topic out of order",
        "extraInfo=0 ${litepop} 60000 0 0 broker-a 0 0",
    ),
    ack(
        "ack of a lite topic for a heavy group",
        "consumerGroup=heavy",
    ),
    ack("ack of a lite topic of a missing topic", "topic=NoSuch"),
    ack("ack of an unknown lite topic", "liteTopic=unknown&offset=1"),
    ack("ack of what a lite group does not hold", "offset=1"),
    ack("ack of a lite topic", ""),
    ack("ack of a lite topic twice", ""),
    ask(
        "offset of a lite group",
        QUERY_CONSUMER_OFFSET,
        "consumerGroup=lites&topic=%LMQ%$Lites$a&queueId=0",
    )
    .until("ext.offset=1"),
    pop("pop the next of a lite topic", "maxMsgNum=9").bind(&[("litenext", "ext.popTime")]),
    ack(
        "ack the next of a lite topic",
        "offset=1&extraInfo=1 ${litenext} 60000 999 0 broker-a 0 1",
    ),
    send(
        "send to another lite topic",
        "b=Lites&e=0&i=__LITE_TOPIC\x01b\x02",
    ),
    filled(
        "sent to another lite topic",
        "topic=%LMQ%$Lites$b&queueId=0",
        "ext.offset=1",
    ),
    pop("pop another lite topic", "").bind(&[("litepop", "ext.popTime")]),
    change("change of a lite topic", "").mask(&["invisibleTime"]),
    change("change beyond a lite topic", "offset=99"),
    change("change of a lite topic in a missing queue", "queueId=7"),
    change("change of a lite topic of a missing topic", "topic=NoSuch"),
    change("give a lite topic back", "suspend=true&invisibleTime=50").mask(&["invisibleTime"]),
    pop("pop what was given back", "pollTime=5000"),
    pull(
        "pull of a lite topic",
        "topic=Lites&liteTopic=a&queueOffset=0",
    ),
    pull(
        "pull beyond a lite topic",
        "topic=Lites&liteTopic=a&queueOffset=9",
    ),
    ask(
        "search in a lite topic",
        SEARCH_OFFSET_BY_TIMESTAMP,
        "topic=Lites&liteTopic=a&queueId=0&timestamp=1",
    ),
    ask(
        "search in another queue of a lite topic",
        SEARCH_OFFSET_BY_TIMESTAMP,
        "topic=Lites&liteTopic=a&queueId=1&timestamp=1",
    ),
    ask(
        "search in an unknown lite topic",
        SEARCH_OFFSET_BY_TIMESTAMP,
        "topic=Lites&liteTopic=unknown&queueId=0&timestamp=1",
    ),
    ask("lite broker", GET_BROKER_LITE_INFO, ""),
    ask("lite parent", GET_PARENT_TOPIC_INFO, "topic=Lites"),
    ask(
        "lite parent that is missing",
        GET_PARENT_TOPIC_INFO,
        "topic=NoSuch",
    ),
    ask(
        "lite parent that is heavy",
        GET_PARENT_TOPIC_INFO,
        "topic=Plain",
    ),
    ask(
        "lite topic",
        GET_LITE_TOPIC_INFO,
        "parentTopic=Lites&liteTopic=a",
    ),
    ask(
        "lite topic that is unknown",
        GET_LITE_TOPIC_INFO,
        "parentTopic=Lites&liteTopic=unknown",
    ),
    ask(
        "lite topic of a heavy topic",
        GET_LITE_TOPIC_INFO,
        "parentTopic=Plain&liteTopic=a",
    ),
    ask(
        "lite topic of a missing topic",
        GET_LITE_TOPIC_INFO,
        "parentTopic=NoSuch&liteTopic=a",
    ),
    ask(
        "lite client",
        GET_LITE_CLIENT_INFO,
        "parentTopic=Lites&group=lites&clientId=reader",
    ),
    ask(
        "lite client in part",
        GET_LITE_CLIENT_INFO,
        "parentTopic=Lites&group=lites&clientId=reader&maxCount=0",
    ),
    ask(
        "lite client that is unknown",
        GET_LITE_CLIENT_INFO,
        "parentTopic=Lites&group=lites&clientId=unknown",
    ),
    ask(
        "lite client of a heavy group",
        GET_LITE_CLIENT_INFO,
        "parentTopic=Lites&group=heavy&clientId=reader",
    ),
    ask("lite group", GET_LITE_GROUP_INFO, "group=lites&topK=5"),
    ask(
        "lite group in one topic",
        GET_LITE_GROUP_INFO,
        "group=lites&liteTopic=a&topK=5",
    ),
    ask(
        "lite group in an unknown topic",
        GET_LITE_GROUP_INFO,
        "group=lites&liteTopic=unknown&topK=5",
    ),
    ask(
        "lite group that is heavy",
        GET_LITE_GROUP_INFO,
        "group=heavy&topK=5",
    ),
    ask("look again", TRIGGER_LITE_DISPATCH, "group=lites"),
    ask(
        "look again for one",
        TRIGGER_LITE_DISPATCH,
        "group=lites&clientId=reader",
    ),
    ask(
        "look again for a heavy group",
        TRIGGER_LITE_DISPATCH,
        "group=heavy",
    ),
    subscribe(
        "subscribe alone",
        r#"{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":"first","group":"alone",
            "liteTopicSet":["a"],"topic":"Lites","version":1,
            "offsetOption":{"type":"POLICY","value":1}}]}"#,
    ),
    subscribe(
        "subscribe alone after another",
        r#"{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":"second","group":"alone",
            "liteTopicSet":["a"],"topic":"Lites","version":1,
            "offsetOption":{"type":"POLICY","value":1}}]}"#,
    )
    .at(At::Other),
    ask(
        "lite client that lost all",
        GET_LITE_CLIENT_INFO,
        "parentTopic=Lites&group=alone&clientId=first",
    ),
    pop(
        "pop alone",
        "consumerGroup=alone&clientId=second&pollTime=3000",
    )
    .at(At::Other),
    pop(
        "pop of who lost all",
        "consumerGroup=alone&clientId=first&pollTime=10",
    ),
    subscribe(
        "subscribe to all",
        r#"{"subscriptionSet":[{"action":"COMPLETE_ADD","clientId":"greedy","group":"all",
            "liteTopicSet":[],"topic":"Lites","version":1}]}"#,
    ),
    send(
        "send to a new lite topic",
        "b=Lites&e=0&i=__LITE_TOPIC\x01c\x02",
    ),
    pop(
        "pop all",
        "consumerGroup=all&clientId=greedy&maxMsgNum=1&pollTime=8000",
    ),
    subscribe(
        "leave",
        r#"{"subscriptionSet":[{"action":"COMPLETE_REMOVE","clientId":"reader","group":"lites",
            "topic":"Lites"}]}"#,
    ),
    ask(
        "lite client that has left",
        GET_LITE_CLIENT_INFO,
        "parentTopic=Lites&group=lites&clientId=reader",
    ),
    case(
        "delete a lite group",
        DELETE_SUBSCRIPTIONGROUP,
        "groupName=lites",
    ),
    case("delete a parent", DELETE_TOPIC_IN_BROKER, "topic=Lites"),
    filled(
        "its lite topics go with it",
        "topic=%LMQ%$Lites$a&queueId=0",
        "ext.offset=0",
    ),
];
