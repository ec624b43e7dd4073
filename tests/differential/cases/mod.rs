//! The script: every family in its file, played in this order.
//!
//! Later cases build on earlier ones: topics are made, written to, read, consumed, deleted.

mod admin;
mod frames;
mod group;
mod lite;
mod message;
mod namesrv;
mod offset;
mod pop;
mod pull;
mod send;
mod timer;
mod topic;
mod transaction;

use orbitmq::remoting::code::request;

use crate::script::{At, Case, case};

pub fn script() -> Vec<Case> {
    [
        topic::MADE,
        send::CASES,
        group::CASES,
        pull::CASES,
        offset::CASES,
        message::CASES,
        transaction::CASES,
        timer::CASES,
        pop::CASES,
        lite::CASES,
        admin::CASES,
        admin::UNSERVED,
        namesrv::CASES,
        namesrv::FOREIGN,
        frames::CASES,
        topic::LISTED,
        pop::LATE,
        topic::GONE,
    ]
    .concat()
}

const V1: &str = "producerGroup=producers&topic=Plain&defaultTopic=TBW102&defaultTopicQueueNums=4\
                  &queueId=0&sysFlag=0&bornTimestamp=${now}&flag=0&reconsumeTimes=0\
                  &unitMode=false&batch=false";
const V2: &str = "a=producers&b=Plain&c=TBW102&d=4&e=0&f=0&g=${now}&h=0&j=0&k=false&m=false";
const PULL: &str = "consumerGroup=readers&topic=Plain&queueId=0&queueOffset=0&maxMsgNums=32\
                    &sysFlag=4&commitOffset=0&suspendTimeoutMillis=0&subscription=*\
                    &subVersion=0&expressionType=TAG";
const POP: &str = "consumerGroup=poppers&topic=Popped&queueId=0&maxMsgNums=32&invisibleTime=60000\
                   &pollTime=0&bornTime=${now}&initMode=0&exp=*&expType=TAG&order=false";
const TOPIC: &str = "defaultTopic=TBW102&readQueueNums=4&writeQueueNums=4&perm=6\
                     &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false";

const fn send(name: &'static str, fields: &'static str) -> Case {
    case(name, request::SEND_MESSAGE_V2, fields)
        .over(V2)
        .text("hello")
}

const fn pull(name: &'static str, fields: &'static str) -> Case {
    case(name, request::PULL_MESSAGE, fields).over(PULL)
}

const fn pop(name: &'static str, fields: &'static str) -> Case {
    case(name, request::POP_MESSAGE, fields)
        .over(POP)
        .mask(&["reviveQid"])
}

const fn create(name: &'static str, fields: &'static str) -> Case {
    case(name, request::UPDATE_AND_CREATE_TOPIC, fields).over(TOPIC)
}

const fn route(name: &'static str, fields: &'static str) -> Case {
    case(name, request::GET_ROUTEINFO_BY_TOPIC, fields).at(At::NameServer)
}

/// Waits until a queue has this many messages, and compares that answer too.
const fn filled(name: &'static str, fields: &'static str, until: &'static str) -> Case {
    case(name, request::GET_MAX_OFFSET, fields).until(until)
}
