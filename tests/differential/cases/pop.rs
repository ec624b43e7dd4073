//! Pop: leases, acknowledgements, order, what waits.

use orbitmq::remoting::code::request::{
    ACK_MESSAGE, BATCH_ACK_MESSAGE, CHANGE_MESSAGE_INVISIBLETIME, NOTIFICATION, PEEK_MESSAGE,
    POLLING_INFO, POP_MESSAGE, QUERY_CONSUMER_OFFSET,
};

use super::{filled, pop, send};
use crate::script::{Case, case};

const ACK: &str = "consumerGroup=poppers&topic=Popped&queueId=0&offset=0\
                   &extraInfo=0 ${popped} 60000 ${revive} 0 broker-a 0 0";
const CHANGE: &str = "consumerGroup=poppers&topic=Popped&queueId=0&offset=1&invisibleTime=30000\
                      &extraInfo=0 ${popped} 60000 ${revive} 0 broker-a 0 1";
const RANKED: &str = "topic=Ranked&queueId=-1&maxMsgNums=32&invisibleTime=60000&pollTime=0\
                      &bornTime=${now}&initMode=0&exp=*&expType=TAG&order=false";
const ORDER: &str = "topic=PoppedInOrder&consumerGroup=ordered&order=true";
const ORDER_ACK: &str = "consumerGroup=ordered&topic=PoppedInOrder&queueId=0&offset=0\
                         &extraInfo=0 ${orderly} 60000 999 0 broker-a 0 0";
const NOTIFY: &str = "consumerGroup=notified&topic=Popped&queueId=0&pollTime=0&bornTime=${now}";

const fn ranked(name: &'static str, fields: &'static str) -> Case {
    case(name, POP_MESSAGE, fields)
        .over(RANKED)
        .mask(&["reviveQid"])
}

const fn ack(name: &'static str, fields: &'static str) -> Case {
    case(name, ACK_MESSAGE, fields).over(ACK)
}

const fn change(name: &'static str, fields: &'static str) -> Case {
    case(name, CHANGE_MESSAGE_INVISIBLETIME, fields)
        .over(CHANGE)
        .mask(&["reviveQid"])
}

const fn order_ack(name: &'static str, fields: &'static str) -> Case {
    case(name, ACK_MESSAGE, fields).over(ORDER_ACK)
}

const fn notify(name: &'static str, fields: &'static str) -> Case {
    case(name, NOTIFICATION, fields).over(NOTIFY)
}

pub const CASES: &[Case] = &[
    pop("pop an empty queue", ""),
    pop("pop an empty queue for a while", "pollTime=100"),
    send("send to pop", "b=Popped&i=TAGS\x01red\x02a\x011\x02"),
    send(
        "send a second to pop",
        "b=Popped&i=TAGS\x01blue\x02a\x012\x02",
    ),
    send(
        "send a third to pop",
        "b=Popped&i=TAGS\x01red\x02a\x013\x02",
    ),
    send("send a fourth to pop", "b=Popped"),
    filled("sent to pop", "topic=Popped&queueId=0", "ext.offset=4"),
    pop("pop", "maxMsgNums=2").bind(&[("popped", "ext.popTime"), ("revive", "ext.reviveQid")]),
    // The reference may still hold the lock of the queue.
    pop("pop the rest", "maxMsgNums=1").until("ext.restNum=1"),
    pop("pop of any queue", "queueId=-1"),
    pop("pop when all is out", ""),
    case(
        "offset of a popper",
        QUERY_CONSUMER_OFFSET,
        "consumerGroup=poppers&topic=Popped&queueId=0",
    )
    .until("ext.offset=4"),
    pop("pop from the end", "consumerGroup=latecomers&initMode=1"),
    pop("pop a tag", "consumerGroup=reds&exp=red"),
    pop("pop a missing tag", "consumerGroup=pinks&exp=pink"),
    pop("pop by SQL", "consumerGroup=sqls&exp=a > 1&expType=SQL92"),
    pop(
        "pop by malformed SQL",
        "consumerGroup=sqls&exp=a >&expType=SQL92",
    ),
    pop(
        "pop by an unknown type",
        "consumerGroup=sqls&exp=a&expType=XPATH",
    ),
    pop(
        "pop without an expression",
        "consumerGroup=nofilter&!exp&!expType",
    ),
    pop("pop too many", "maxMsgNums=33"),
    pop("pop none", "maxMsgNums=0&consumerGroup=none"),
    pop("pop a negative number", "maxMsgNums=-1&consumerGroup=none"),
    pop("pop a missing queue", "queueId=1"),
    pop("pop a negative queue", "queueId=-2&consumerGroup=negative"),
    pop("pop a missing topic", "topic=NoSuch"),
    pop("pop a topic for writing", "topic=WriteOnly"),
    pop("pop for a bad group", "consumerGroup=a b"),
    pop("pop for a stopped group", "consumerGroup=stopped"),
    pop("pop too late", "bornTime=1000&pollTime=100"),
    pop("pop without a born time", "!bornTime"),
    pop("pop with born time zero", "bornTime=0&consumerGroup=zero"),
    pop("pop without a group", "!consumerGroup"),
    pop("pop without a topic", "!topic"),
    pop("pop without a queue", "!queueId"),
    pop("pop without a number", "!maxMsgNums"),
    pop("pop without an invisible time", "!invisibleTime"),
    pop(
        "pop without an initial mode",
        "!initMode&consumerGroup=uninitiated",
    ),
    pop("pop in a word", "queueId=first"),
    send(
        "send the least urgent",
        "b=Ranked&e=1&i=_SYS_MSG_PRIORITY_\x010\x02",
    ),
    send(
        "send the most urgent",
        "b=Ranked&i=_SYS_MSG_PRIORITY_\x013\x02",
    ),
    send(
        "send the less urgent",
        "b=Ranked&i=_SYS_MSG_PRIORITY_\x011\x02",
    ),
    send(
        "send a second most urgent",
        "b=Ranked&i=_SYS_MSG_PRIORITY_\x013\x02",
    ),
    send(
        "send beyond the most urgent",
        "b=Ranked&i=_SYS_MSG_PRIORITY_\x0177\x02",
    ),
    send("send to a queue of urgency", "b=Ranked&e=2"),
    filled(
        "sent most urgently",
        "topic=Ranked&queueId=3",
        "ext.offset=3",
    ),
    filled("sent to urgency", "topic=Ranked&queueId=2", "ext.offset=1"),
    // Groups in turn: the reference holds a queue's lock a little longer than the answer takes.
    ranked("pop the most urgent", "consumerGroup=rank1&maxMsgNums=2"),
    ranked("pop everything urgent", "consumerGroup=rank2"),
    ranked("pop the next urgent", "consumerGroup=rank1&maxMsgNums=3"),
    ranked(
        "pop none that is urgent",
        "consumerGroup=rank2&maxMsgNums=1",
    ),
    ranked("pop the last urgent", "consumerGroup=rank1&maxMsgNums=3"),
    ranked("pop a queue of urgency", "consumerGroup=rank3&queueId=1"),
    ranked("pop the rest of the urgent", "consumerGroup=rank3"),
    ack("ack", ""),
    ack("ack twice", ""),
    ack("ack beyond the end", "offset=99"),
    ack("ack before the start", "offset=-1"),
    ack("ack a missing queue", "queueId=5"),
    ack("ack a negative queue", "queueId=-1"),
    ack("ack a missing topic", "topic=NoSuch"),
    ack("ack of nobody", "consumerGroup=nobody"),
    ack("ack without a handle", "!extraInfo"),
    ack("ack with an empty handle", "extraInfo="),
    ack("ack with a bad handle", "extraInfo=x y z"),
    ack("ack with a short handle", "extraInfo=0 1 2 3"),
    ack("ack without a topic", "!topic"),
    ack("ack without a group", "!consumerGroup"),
    ack("ack without a queue", "!queueId"),
    ack("ack without an offset", "!offset"),
    change("change", "").bind(&[("changed", "ext.popTime"), ("revived", "ext.reviveQid")]),
    change(
        "change what was changed",
        "extraInfo=1 ${changed} 30000 ${revived} 0 broker-a 0 1",
    ),
    change("change beyond the end", "offset=99"),
    change("change before the start", "offset=-1"),
    change("change a missing queue", "queueId=5"),
    change("change a missing topic", "topic=NoSuch"),
    change("change without a handle", "!extraInfo"),
    change("change with a bad handle", "extraInfo=x"),
    change("change without a time", "!invisibleTime"),
    change("change without a topic", "!topic"),
    change("change without an offset", "!offset"),
    case("ack a batch", BATCH_ACK_MESSAGE, "").text(
        r#"{"brokerName":"broker-a","acks":[{"c":"poppers","t":"Popped","r":"0","so":0,"q":0,
        "rq":${revive},"pt":${popped},"it":60000,"b":"Ag=="}]}"#,
    ),
    case("ack a batch beyond the end", BATCH_ACK_MESSAGE, "").text(
        r#"{"brokerName":"broker-a","acks":[{"c":"poppers","t":"Popped","r":"0","so":900,"q":0,
        "rq":${revive},"pt":${popped},"it":60000,"b":"Ag=="}]}"#,
    ),
    case("ack a batch of a missing topic", BATCH_ACK_MESSAGE, "").text(
        r#"{"brokerName":"broker-a","acks":[{"c":"poppers","t":"NoSuch","r":"0","so":0,"q":0,
        "rq":0,"pt":${popped},"it":60000,"b":"Ag=="}]}"#,
    ),
    case("ack an empty batch", BATCH_ACK_MESSAGE, "")
        .text(r#"{"brokerName":"broker-a","acks":[]}"#),
    case("ack a batch of another broker", BATCH_ACK_MESSAGE, "").text(
        r#"{"brokerName":"broker-z","acks":[{"c":"poppers","t":"Popped","r":"0","so":0,"q":0,
        "rq":0,"pt":${popped},"it":60000,"b":"Ag=="}]}"#,
    ),
    case("ack a batch without a body", BATCH_ACK_MESSAGE, ""),
    case("ack a batch that is no JSON", BATCH_ACK_MESSAGE, "").text("{"),
    send("send to pop in order", "b=PoppedInOrder"),
    send("send a second to pop in order", "b=PoppedInOrder"),
    filled(
        "sent to pop in order",
        "topic=PoppedInOrder&queueId=0",
        "ext.offset=2",
    ),
    pop("pop in order", ORDER).bind(&[("orderly", "ext.popTime")]),
    pop("pop in order what is out", ORDER),
    order_ack("ack in order", ""),
    order_ack("ack in order twice", ""),
    order_ack(
        "ack in order from another time",
        "extraInfo=0 1 60000 999 0 broker-a 0 0",
    ),
    order_ack("ack in order what is not out", "offset=7"),
    case(
        "change in order",
        CHANGE_MESSAGE_INVISIBLETIME,
        "offset=1&invisibleTime=20000&extraInfo=0 ${orderly} 60000 999 0 broker-a 0 1",
    )
    .over(ORDER_ACK)
    .mask(&["invisibleTime"]),
    order_ack(
        "ack the last in order",
        "offset=1&extraInfo=0 ${orderly} 60000 999 0 broker-a 0 1",
    ),
    case(
        "offset of an ordered popper",
        QUERY_CONSUMER_OFFSET,
        "consumerGroup=ordered&topic=PoppedInOrder&queueId=0",
    ),
    notify("notify of messages", ""),
    notify("notify of any queue", "queueId=-1"),
    notify("notify of none", "topic=Eight&queueId=1"),
    notify(
        "notify of none for a while",
        "topic=Eight&queueId=1&pollTime=100",
    ),
    notify("notify of a missing queue", "queueId=7"),
    notify("notify of a missing topic", "topic=NoSuch"),
    notify("notify a bad group", "consumerGroup=a b"),
    notify("notify a stopped group", "consumerGroup=stopped"),
    notify("notify too late", "bornTime=1000&pollTime=100"),
    notify("notify of a tag", "expType=TAG&exp=pink"),
    notify("notify without a queue", "!queueId"),
    case(
        "polling",
        POLLING_INFO,
        "consumerGroup=poppers&topic=Popped&queueId=0",
    ),
    case(
        "polling of a missing topic",
        POLLING_INFO,
        "consumerGroup=poppers&topic=NoSuch&queueId=0",
    ),
    case(
        "polling of a missing queue",
        POLLING_INFO,
        "consumerGroup=poppers&topic=Popped&queueId=7",
    ),
    case(
        "polling of a bad group",
        POLLING_INFO,
        "consumerGroup=a b&topic=Popped&queueId=0",
    ),
    case(
        "polling without a queue",
        POLLING_INFO,
        "consumerGroup=poppers&topic=Popped",
    ),
    case(
        "peek",
        PEEK_MESSAGE,
        "consumerGroup=peekers&topic=Popped&queueId=0&maxMsgNums=1",
    ),
];

/// After all lists of topics: what is visible again makes a topic, some time later.
pub const LATE: &[Case] = &[
    change(
        "change to no time",
        "invisibleTime=0&offset=2&extraInfo=2 ${popped} 60000 0 0 broker-a 0 2",
    ),
    change(
        "change to a negative time",
        "invisibleTime=-1&offset=3&extraInfo=3 ${popped} 60000 0 0 broker-a 0 3",
    ),
];
