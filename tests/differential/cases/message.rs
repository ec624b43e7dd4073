//! Single messages: by offset, by key, sent back, consumed again.

use orbitmq::remoting::code::request::{
    CONSUMER_SEND_MSG_BACK, GET_MAX_OFFSET, GET_TOPIC_CONFIG, QUERY_MESSAGE, VIEW_MESSAGE_BY_ID,
};

use super::{filled, pull};
use crate::script::{Case, case};

const VIEW: i32 = VIEW_MESSAGE_BY_ID;
const BACK: i32 = CONSUMER_SEND_MSG_BACK;
const QUERY: &str = "topic=Plain&key=k1&maxNum=32&beginTimestamp=0&endTimestamp=9000000000000";
const BACK_FIELDS: &str = "offset=${at}&group=returners&delayLevel=0&originMsgId=${id}\
                           &originTopic=Plain&unitMode=false&maxReconsumeTimes=16";

const fn query(name: &'static str, fields: &'static str) -> Case {
    case(name, QUERY_MESSAGE, fields).over(QUERY)
}

const fn back(name: &'static str, fields: &'static str) -> Case {
    case(name, BACK, fields).over(BACK_FIELDS)
}

pub const CASES: &[Case] = &[
    case("view", VIEW, "offset=${at}"),
    case("view of a topic", VIEW, "offset=${at}&topic=Plain"),
    case("view beyond the log", VIEW, "offset=900000000000"),
    case("view before the log", VIEW, "offset=-1"),
    case("view nothing", VIEW, ""),
    case("view a word", VIEW, "offset=first"),
    query("query", "").until("code=0"),
    query("query a second key", "key=k3"),
    query(
        "query an id",
        "key=7F0000010001000000000000BBBB0001&_UNIQUE_KEY_QUERY=true",
    ),
    query(
        "query an id by its type",
        "key=7F0000010001000000000000BBBB0001&indexType=U",
    ),
    query("query a key by its type", "key=k1&indexType=K"),
    query("query a tag", "key=red&indexType=T"),
    query("query a missing key", "key=k99"),
    query("query a key of a batch", "key=b2"),
    query("query a key of another topic", "topic=Tags"),
    query("query a missing topic", "topic=NoSuch"),
    query("query none", "maxNum=0"),
    query("query one", "maxNum=1&key=k1"),
    query("query a time without messages", "endTimestamp=1"),
    query("query without a key", "!key"),
    query("query without a topic", "!topic"),
    query("query without a number", "!maxNum"),
    query("query without a time", "!beginTimestamp"),
    back("send back", ""),
    case(
        "made by a send back",
        GET_TOPIC_CONFIG,
        "topic=%RETRY%returners",
    ),
    back("send back with a level", "delayLevel=2"),
    back("send back to the dead", "delayLevel=-1"),
    case(
        "made by dead letters sent back",
        GET_TOPIC_CONFIG,
        "topic=%DLQ%returners",
    ),
    filled(
        "sent back to the dead",
        "topic=%DLQ%returners&queueId=0",
        "ext.offset=1",
    ),
    pull("dead letters sent back", "topic=%DLQ%returners"),
    back("send back for the last time", "maxReconsumeTimes=0"),
    back("send back what is not there", "offset=900000000000"),
    back("send back before the log", "offset=-1"),
    back("send back of a bad group", "group=a b"),
    back("send back of a new group", "group=newcomers2"),
    back("send back without retries", "group=noretry"),
    back("send back without a group", "!group"),
    back("send back without an offset", "!offset"),
    back("send back without a level", "!delayLevel"),
    back("send back without an origin", "!originMsgId&!originTopic"),
    back("send back with a level too high", "delayLevel=99"),
    filled(
        "sent back",
        "topic=%RETRY%returners&queueId=0",
        "ext.offset=1",
    ),
    pull("what was sent back", "topic=%RETRY%returners"),
    case(
        "retries of a stopped group",
        GET_MAX_OFFSET,
        "topic=%RETRY%stopped&queueId=0",
    ),
];
