//! GET_ROUTEINFO_BY_TOPIC 105, asked and understood: the masters of a topic and their queues.
//!
//! Source: `MQClientAPIImpl.getTopicRouteInfoFromNameServer`, `MQClientInstance`; spec page
//! namesrv-ha §3.

use std::borrow::Cow;
use std::fmt;

use crate::remoting::body::json::{BodyError, from_slice};
use crate::remoting::body::route::TopicRouteData;
use crate::remoting::code::{request, response};
use crate::remoting::command::{Command, FrameWriter};
use crate::remoting::frame::Codec;
use crate::remoting::header::namesrv::RouteHeader;

/// Broker id of a master.
const MASTER: i64 = 0;
/// Bits of a queue permission.
const READ: i32 = 4;
const WRITE: i32 = 2;

/// The master of one broker name and what it has of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerRoute {
    pub name: String,
    /// `host:port`.
    pub addr: String,
    /// Queues that may be pulled; 0 when the topic is not readable there.
    pub readable: i32,
    /// Queues that may be sent to; 0 when the topic is not writable there.
    pub writable: i32,
}

/// Why an answer holds no route.
#[derive(Debug)]
pub enum RouteError {
    Refused { code: i32, remark: String },
    Body(BodyError),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, remark } => write!(f, "answered code {code}: {remark}"),
            Self::Body(error) => write!(f, "answered a route that cannot be read: {error}"),
        }
    }
}

impl std::error::Error for RouteError {}

/// Appends the question to `out`.
pub fn ask(out: &mut Vec<u8>, codec: Codec, opaque: i32, topic: &str) {
    let code = request::GET_ROUTEINFO_BY_TOPIC;
    let mut writer = FrameWriter::request(out, codec, opaque, code, false);
    let topic = Cow::Borrowed(topic);
    let header = RouteHeader {
        topic,
        accept_standard_json_only: Some(true),
        zone_name: None,
        zone_mode: None,
    };
    header.encode(&mut writer);
    writer.finish(0);
}

/// Reads the answer; `None` when nobody has the topic. Brokers without a master are left out.
pub fn read(answer: &Command<'_>) -> Result<Option<Vec<BrokerRoute>>, RouteError> {
    match answer.code {
        response::SUCCESS => {}
        response::TOPIC_NOT_EXIST => return Ok(None),
        code => {
            let remark = answer
                .remark
                .map_or_else(String::new, |remark| remark.to_string());
            return Err(RouteError::Refused { code, remark });
        }
    }
    let data: TopicRouteData = from_slice(answer.body).map_err(RouteError::Body)?;
    Ok(Some(masters(data)))
}

/// The masters of a route, and what each has.
pub fn masters(data: TopicRouteData) -> Vec<BrokerRoute> {
    let TopicRouteData {
        mut broker_datas,
        queue_datas,
        ..
    } = data;
    let mut brokers = Vec::new();
    for queues in queue_datas {
        let known = broker_datas
            .iter_mut()
            .find(|broker| broker.broker_name == queues.broker_name);
        let Some(addr) = known.and_then(|broker| broker.broker_addrs.remove(&MASTER)) else {
            continue;
        };
        let allowed = |bit: i32, count: i32| {
            if queues.perm & bit == 0 {
                0
            } else {
                count.max(0)
            }
        };
        brokers.push(BrokerRoute {
            readable: allowed(READ, queues.read_queue_nums),
            writable: allowed(WRITE, queues.write_queue_nums),
            name: queues.broker_name,
            addr,
        });
    }
    brokers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::frame::split;

    fn check(code: i32, body: &[u8], expected: &str) {
        let mut out = Vec::new();
        let remark = Some("why");
        FrameWriter::response(&mut out, Codec::Json, 1, code, remark).finish_with_body(body);
        let shown = match read(&Command::decode(split(&out).unwrap()).unwrap()) {
            Ok(Some(brokers)) => brokers
                .iter()
                .map(|b| format!("{}={} r{} w{}", b.name, b.addr, b.readable, b.writable))
                .collect::<Vec<_>>()
                .join(" "),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn answers() {
        let route = br#"{"brokerDatas":[
            {"brokerAddrs":{0:"h:1","1":"h:2"},"brokerName":"a"},
            {"brokerAddrs":{"1":"h:3"},"brokerName":"b"}],
            "queueDatas":[
            {"brokerName":"a","perm":6,"readQueueNums":8,"writeQueueNums":4},
            {"brokerName":"b","perm":6,"readQueueNums":8,"writeQueueNums":8},
            {"brokerName":"c","perm":6,"readQueueNums":8,"writeQueueNums":8}]}"#;
        check(0, route, "a=h:1 r8 w4");
        let closed = br#"{"brokerDatas":[{"brokerAddrs":{"0":"h:1"},"brokerName":"a"}],
            "queueDatas":[{"brokerName":"a","perm":4,"readQueueNums":-8,"writeQueueNums":4}]}"#;
        check(0, closed, "a=h:1 r0 w0");
        check(17, b"", "none");
        check(1, b"", "answered code 1: why");
        check(
            0,
            b"",
            "answered a route that cannot be read: the body is empty",
        );
    }

    #[test]
    fn the_question_names_the_topic() {
        let mut out = Vec::new();
        ask(&mut out, Codec::Json, 7, "T");
        let command = Command::decode(split(&out).unwrap()).unwrap();
        assert_eq!((command.code, command.opaque), (105, 7));
        assert_eq!(command.ext.find("topic").unwrap(), "T");
    }
}
