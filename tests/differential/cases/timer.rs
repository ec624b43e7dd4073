//! Messages for later: levels, times, and taking one back.

use orbitmq::remoting::code::request::{GET_TIMER_METRICS, RECALL_MESSAGE};

use super::{create, filled, pull, send};
use crate::script::{Case, case};

const RECALL: &str = "producerGroup=producers&topic=Later&recallHandle=${handle}";

const fn recall(name: &'static str, fields: &'static str) -> Case {
    case(name, RECALL_MESSAGE, fields).over(RECALL)
}

/// How many wait, by topic, once one of them has so many. What others have depends on the time.
const fn metrics(name: &'static str, until: &'static str) -> Case {
    case(name, GET_TIMER_METRICS, "").until(until).mask(&[
        "counter",
        "timestamp",
        "timeStamp",
        "body.timingCount.Later.count",
        "body.timingCount.LaterAuto.count",
    ])
}

pub const CASES: &[Case] = &[
    create(
        "create for later",
        "topic=Later&readQueueNums=2&writeQueueNums=2",
    ),
    send(
        "send by a level",
        "b=Later&i=DELAY\x011\x02UNIQ_KEY\x017F0000010001000000000000DDDD0001\x02",
    ),
    send("send by level zero", "b=Later&e=1&i=DELAY\x010\x02"),
    send("send by a negative level", "b=Later&e=1&i=DELAY\x01-1\x02"),
    send("send by a level too high", "b=Later&i=DELAY\x0199\x02").mask(&["queueOffset"]),
    send(
        "send by a level that is a word",
        "b=Loose&e=1&i=DELAY\x01soon\x02",
    ),
    send(
        "send by a time in ms",
        "b=Later&i=TIMER_DELAY_MS\x0160000\x02",
    )
    .bind(&[("handle", "ext.recallHandle")]),
    send("send by a time in s", "b=Later&i=TIMER_DELAY_SEC\x0160\x02"),
    send(
        "send at a time",
        "b=Later&i=TIMER_DELIVER_MS\x014000000000000\x02",
    ),
    send(
        "send at a past time",
        "b=Later&e=1&i=TIMER_DELIVER_MS\x011000000000000\x02",
    ),
    send(
        "send at time zero",
        "b=Later&e=1&i=TIMER_DELIVER_MS\x010\x02",
    ),
    send(
        "send at a negative time",
        "b=Later&e=1&i=TIMER_DELAY_MS\x01-5000\x02",
    ),
    send(
        "send at once in ms",
        "b=Later&e=1&i=TIMER_DELAY_MS\x010\x02",
    ),
    send(
        "send at a time that is a word",
        "b=Loose&e=1&i=TIMER_DELIVER_MS\x01noon\x02",
    ),
    send(
        "send in s that are a word",
        "b=Loose&e=1&i=TIMER_DELAY_SEC\x01x\x02",
    ),
    send(
        "send in ms that are a word",
        "b=Loose&e=1&i=TIMER_DELAY_MS\x011.5\x02",
    ),
    send(
        "send in too many s",
        "b=Later&i=TIMER_DELAY_SEC\x01259201\x02",
    ),
    send(
        "send in the most s",
        "b=Later&i=TIMER_DELAY_SEC\x01259200\x02",
    ),
    send(
        "send by a level and a time",
        "b=Later&i=DELAY\x0118\x02TIMER_DELAY_MS\x0160000\x02",
    )
    .mask(&["queueOffset"]),
    send(
        "send by level zero and a time",
        "b=Later&i=DELAY\x010\x02TIMER_DELAY_MS\x0160000\x02",
    ),
    send(
        "send by two times",
        "b=Later&i=TIMER_DELAY_SEC\x0160\x02TIMER_DELAY_MS\x0190000\x02",
    ),
    send("send an empty time", "b=Loose&e=1&i=TIMER_DELAY_MS\x01\x02").mask(&["queueOffset"]),
    send(
        "send a timer roll",
        "b=Later&i=TIMER_DELAY_SEC\x0190\x02TIMER_ROLL_TIMES\x015\x02",
    ),
    send(
        "send beyond the queues by a time",
        "b=Later&e=9&i=TIMER_DELAY_MS\x0160000\x02",
    ),
    send(
        "send for later to a missing topic",
        "b=LaterAuto&i=TIMER_DELAY_MS\x0160000\x02",
    ),
    filled(
        "came after a level",
        "topic=Later&queueId=0",
        "ext.offset=1",
    ),
    pull("what came after a level", "topic=Later"),
    send(
        "send by a short time",
        "b=Later&i=TIMER_DELAY_MS\x011500\x02",
    ),
    filled("came after a time", "topic=Later&queueId=0", "ext.offset=2"),
    pull("what came after a time", "topic=Later&queueOffset=1"),
    pull("what came at once", "topic=Later&queueId=1"),
    create("create to wait", "topic=Waiting"),
    send("send to wait", "b=Waiting&i=TIMER_DELAY_SEC\x0190000\x02").mask(&["queueOffset"]),
    send(
        "send a second to wait",
        "b=Waiting&i=TIMER_DELAY_MS\x0190000000\x02",
    )
    .mask(&["queueOffset"]),
    metrics("what waits", "body.timingCount.Waiting.count=2"),
    send(
        "send to wait for a second",
        "b=Waiting&i=TIMER_DELAY_MS\x011100\x02",
    )
    .mask(&["queueOffset"]),
    filled("waited a second", "topic=Waiting&queueId=0", "ext.offset=1"),
    metrics("what waits longer", "body.timingCount.Waiting.count=2"),
    recall("recall", ""),
    recall("recall twice", ""),
    recall("recall from another topic", "topic=Plain"),
    recall("recall from a missing topic", "topic=NoSuch"),
    recall("recall without a topic", "!topic"),
    recall("recall without a handle", "!recallHandle"),
    recall("recall with an empty handle", "recallHandle="),
    recall("recall with a bad handle", "recallHandle=!!!"),
    // "v2 Later broker-a 4000000000000 ID"
    recall(
        "recall with a newer handle",
        "recallHandle=djIgTGF0ZXIgYnJva2VyLWEgNDAwMDAwMDAwMDAwMCBJRA==",
    ),
    // "v1 Later broker-b 4000000000000 ID"
    recall(
        "recall of another broker",
        "recallHandle=djEgTGF0ZXIgYnJva2VyLWIgNDAwMDAwMDAwMDAwMCBJRA==",
    ),
    // "v1 Later broker-a 1000000000000 ID"
    recall(
        "recall what is past",
        "recallHandle=djEgTGF0ZXIgYnJva2VyLWEgMTAwMDAwMDAwMDAwMCBJRA==",
    ),
    // "v1 Later broker-a 4000000000000 ID"
    recall(
        "recall what is too far",
        "recallHandle=djEgTGF0ZXIgYnJva2VyLWEgNDAwMDAwMDAwMDAwMCBJRA==",
    ),
    // "v1 Later broker-a noon ID"
    recall(
        "recall at no time",
        "recallHandle=djEgTGF0ZXIgYnJva2VyLWEgbm9vbiBJRA==",
    ),
    recall("recall without a producer group", "!producerGroup"),
];
