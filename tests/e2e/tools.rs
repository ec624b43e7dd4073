//! What tools ask through the broker: a message for one client, where members stand, statistics,
//! who may not read, whole tables.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use orbitmq::message::batch;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::body::json;
use orbitmq::remoting::code::request as ask;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, split};
use serde_json::Value;

use crate::server::{Launch, PATIENCE, Server};
use crate::wire::{Answer, Client, Fields};

const GROUP: &str = "e2e-consumers";

/// A request of the broker to a client.
struct Asked {
    code: i32,
    opaque: i32,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A connected consumer of the group, which subscribes to the topic.
struct Member(Client);

impl Member {
    fn join(broker: SocketAddr, id: &str, topic: &str) -> Member {
        let mut client = Client::connect(broker);
        let heartbeat = format!(
            r#"{{"clientID":"{id}","producerDataSet":[{{"groupName":"makers"}}],
            "consumerDataSet":[{{"groupName":"{GROUP}","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
            "subscriptionDataSet":[{{"topic":"{topic}","subString":"*","subVersion":1}}]}}]}}"#
        );
        let answer = client.call(ask::HEART_BEAT, &[], heartbeat.as_bytes());
        assert_eq!(answer.code, 0, "{answer:?}");
        Member(client)
    }

    /// The next request with this code; others, as that the group has changed, are for nobody.
    fn asked(&mut self, code: i32) -> Asked {
        loop {
            let mut frame = vec![0; 4];
            self.0.stream.read_exact(&mut frame).unwrap();
            let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            frame.resize(4 + length as usize, 0);
            self.0.stream.read_exact(&mut frame[4..]).unwrap();
            let command = Command::decode(split(&frame).unwrap()).unwrap();
            if command.is_response() || command.code != code {
                continue;
            }
            let fields = command.ext.iter();
            return Asked {
                code: command.code,
                opaque: command.opaque,
                fields: fields
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .collect(),
                body: command.body.to_vec(),
            };
        }
    }

    fn answer(&mut self, asked: &Asked, code: i32, body: &str) {
        let mut frame = Vec::new();
        FrameWriter::response(&mut frame, Codec::Json, asked.opaque, code, Some("told"))
            .finish_with_body(body.as_bytes());
        self.0.stream.write_all(&frame).unwrap();
    }
}

struct Desk {
    server: Server,
    tool: Client,
    _dir: tempfile::TempDir,
}

impl Desk {
    /// A broker of two shards with a topic of four queues.
    fn open() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let server = Launch::standalone(dir.path())
            .set("shards", 2)
            .set("brokerName", "broker-a")
            .start();
        let mut tool = Client::connect(server.launch.broker);
        tool.create_topic("t", 4);
        Desk {
            server,
            tool,
            _dir: dir,
        }
    }

    fn broker(&self) -> SocketAddr {
        self.server.launch.broker
    }

    /// Asks and does not wait.
    fn begin(&mut self, code: i32, fields: Fields<'_>) {
        let frame = self.tool.frame(code, fields, b"");
        self.tool.stream.write_all(&frame).unwrap();
    }

    fn end(&mut self) -> Answer {
        self.tool.read().unwrap().expect("an answer")
    }

    fn json(&mut self, code: i32, fields: Fields<'_>) -> Value {
        let answer = self.tool.call(code, fields, b"");
        assert_eq!(answer.code, 0, "{answer:?}");
        json::from_slice(&answer.body).unwrap()
    }

    fn again(self) -> Desk {
        let Desk { server, _dir, .. } = self;
        let launch = server.launch.clone();
        server.kill();
        let server = launch.start();
        let tool = Client::connect(server.launch.broker);
        Desk { server, tool, _dir }
    }
}

#[test]
fn a_message_goes_to_the_client_that_is_named() {
    let mut desk = Desk::open();
    let mut member = Member::join(desk.broker(), "c1", "t");
    for queue in 0..4 {
        let body = format!("in {queue}");
        let sent = desk.tool.send("t", queue, body.as_bytes());
        let id = sent.field("msgId").to_owned();
        let fields = [
            ("consumerGroup", GROUP),
            ("clientId", "c1"),
            ("msgId", &*id),
            ("topic", "t"),
            ("brokerName", "made up"),
        ];
        desk.begin(ask::CONSUME_MESSAGE_DIRECTLY, &fields);
        let asked = member.asked(ask::CONSUME_MESSAGE_DIRECTLY);
        assert_eq!(asked.code, ask::CONSUME_MESSAGE_DIRECTLY);
        let record = RecordView::parse(&asked.body).unwrap();
        assert_eq!((record.topic(), record.body()), ("t", body.as_bytes()));
        for (name, value) in [
            ("msgId", &*id),
            ("clientId", "c1"),
            ("brokerName", "broker-a"),
            ("topicSysFlag", "0"),
            ("groupSysFlag", "0"),
        ] {
            assert_eq!(asked.fields[name], value, "{name}");
        }
        let (code, result) = (
            queue % 2,
            format!(r#"{{"order":false,"spentTimeMills":{queue}}}"#),
        );
        member.answer(&asked, code, &result);
        let answer = desk.end();
        assert_eq!((answer.code, &*answer.remark), (code, "told"));
        assert_eq!(answer.body, result.as_bytes());
    }
    desk.server.stop();
}

#[test]
fn a_message_for_a_client_that_does_not_take_it() {
    let mut desk = Desk::open();
    let mut member = Member::join(desk.broker(), "c1", "t");
    let refusals = [
        ("c2", "7F00000100002A9F0000000000000000", "<c2> not online"),
        (
            "c1",
            "no id",
            "msgId[no id] is not the id that a broker gave",
        ),
        (
            "c1",
            "7F00000100002A9F000000007FFFFFFF",
            "can not find message by the offset",
        ),
    ];
    for (client, id, reason) in refusals {
        let fields = [
            ("consumerGroup", GROUP),
            ("clientId", client),
            ("msgId", id),
        ];
        let answer = desk.tool.call(ask::CONSUME_MESSAGE_DIRECTLY, &fields, b"");
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(answer.remark.contains(reason), "{answer:?}");
    }
    let id = desk.tool.send("t", 0, b"x").field("msgId").to_owned();
    let fields = [
        ("consumerGroup", GROUP),
        ("clientId", "c1"),
        ("msgId", &*id),
    ];
    desk.begin(ask::CONSUME_MESSAGE_DIRECTLY, &fields);
    member.asked(ask::CONSUME_MESSAGE_DIRECTLY);
    let answer = desk.end();
    assert_eq!(answer.code, 207, "a client that says nothing: {answer:?}");
    desk.begin(ask::CONSUME_MESSAGE_DIRECTLY, &fields);
    member.asked(ask::CONSUME_MESSAGE_DIRECTLY);
    drop(member);
    let answer = desk.end();
    assert_eq!(answer.code, 1);
    assert!(
        answer.remark.contains("the connection was closed"),
        "{answer:?}"
    );
    desk.server.stop();
}

#[test]
fn members_tell_where_they_stand() {
    let mut desk = Desk::open();
    let mut members = ["c1", "c2", "c3"].map(|id| Member::join(desk.broker(), id, "t"));
    let status = ask::INVOKE_BROKER_TO_GET_CONSUMER_STATUS;
    desk.begin(status, &[("topic", "t"), ("group", GROUP)]);
    let told = [
        r#"{"messageQueueTable":{{"brokerName":"b","queueId":2,"topic":"t"}:7}}"#,
        "no JSON",
        "{}",
    ];
    for (member, told) in members.iter_mut().zip(told) {
        let asked = member.asked(ask::GET_CONSUMER_STATUS_FROM_CLIENT);
        assert_eq!(
            (&*asked.fields["topic"], &*asked.fields["group"]),
            ("t", GROUP)
        );
        member.answer(&asked, 0, told);
    }
    let answer = desk.end();
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(
        String::from_utf8(answer.body).unwrap(),
        r#"{"consumerTable":{"c1":{{"brokerName":"b","queueId":2,"topic":"t"}:7},"c3":{}},"messageQueueTable":{}}"#
    );
    let one = [("topic", "t"), ("group", GROUP), ("clientAddr", "c2")];
    desk.begin(status, &one);
    let asked = members[1].asked(ask::GET_CONSUMER_STATUS_FROM_CLIENT);
    members[1].answer(&asked, 0, told[0]);
    let answer = String::from_utf8(desk.end().body).unwrap();
    assert!(answer.contains("c2") && !answer.contains("c1"), "{answer}");
    let many: Vec<_> = (0..=65_536)
        .map(|queue| format!(r#"{{"brokerName":"b","queueId":{queue},"topic":"t"}}:1"#))
        .collect();
    desk.begin(status, &one);
    let asked = members[1].asked(ask::GET_CONSUMER_STATUS_FROM_CLIENT);
    let told = format!(r#"{{"messageQueueTable":{{{}}}}}"#, many.join(","));
    members[1].answer(&asked, 0, &told);
    let answer = desk.end();
    assert_eq!(answer.code, 1);
    assert!(
        answer.remark.contains("more than 65536 queues"),
        "{answer:?}"
    );
    // Who has gone, or says nothing in time, is left out.
    desk.begin(status, &[("topic", "t"), ("group", GROUP)]);
    members[0].asked(ask::GET_CONSUMER_STATUS_FROM_CLIENT);
    let [first, _silent, third] = members;
    drop((first, third));
    let answer = String::from_utf8(desk.end().body).unwrap();
    assert_eq!(answer, r#"{"consumerTable":{},"messageQueueTable":{}}"#);
    let answer = desk
        .tool
        .call(status, &[("topic", "t"), ("group", "nobody")], b"");
    assert_eq!(answer.code, 1, "{answer:?}");
    desk.server.stop();
}

#[test]
fn statistics_agree_with_what_was_sent_and_pulled() {
    let mut desk = Desk::open();
    for n in 0..10 {
        desk.tool.sent("t", n % 4, b"0123456789");
    }
    let mut body = Vec::new();
    for _ in 0..5 {
        let message = batch::SubMessage {
            flag: 0,
            body: b"abc",
            properties: b"",
        };
        batch::append(&mut body, message);
    }
    let answer = desk.tool.try_send_with("t", 0, &body, "", true).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
    let view = |desk: &mut Desk, name: &str, key: &str| {
        let fields = [("statsName", name), ("statsKey", key)];
        desk.json(ask::VIEW_BROKER_STATS_DATA, &fields)
    };
    let put = view(&mut desk, "TOPIC_PUT_NUMS", "t");
    for span in ["statsMinute", "statsHour", "statsDay"] {
        assert_eq!(put[span]["sum"], 15, "{put}");
        assert!(put[span]["tps"].as_f64().unwrap() > 0.0, "{put}");
        let per_send = put[span]["avgpt"].as_f64().unwrap();
        assert!((per_send - 15.0 / 11.0).abs() < 1e-9, "{put}");
    }
    let bytes = view(&mut desk, "TOPIC_PUT_SIZE", "t")["statsDay"]["sum"].as_u64();
    let all: usize = (0..4)
        .map(|queue| desk.tool.try_pull("t", queue, 0, 32).unwrap().body.len())
        .sum();
    assert_eq!(bytes, Some(all as u64), "of whole records");
    let got = view(&mut desk, "GROUP_GET_NUMS", "t@e2e-consumers");
    assert_eq!(
        (&got["statsMinute"]["sum"], &got["statsDay"]["sum"]),
        (&15.into(), &15.into())
    );
    assert_eq!(got["statsDay"]["avgpt"], 3.75, "four answers: {got}");
    let size = view(&mut desk, "GROUP_GET_SIZE", "t@e2e-consumers");
    assert_eq!(size["statsHour"]["sum"], all as u64);
    let cluster = view(&mut desk, "BROKER_GET_NUMS", "DefaultCluster");
    assert_eq!(cluster["statsMinute"]["sum"], 15);
    let stats = desk.json(ask::GET_TOPIC_STATS_INFO, &[("topic", "t")]);
    assert!(stats["topicPutTps"].as_f64().unwrap() > 0.0, "{stats}");
    let fields = [("consumerGroup", GROUP), ("topic", "t")];
    let stats = desk.json(ask::GET_CONSUME_STATS, &fields);
    assert!(stats["consumeTps"].as_f64().unwrap() > 0.0, "{stats}");
    desk.tool
        .call(ask::DELETE_TOPIC_IN_BROKER, &[("topic", "t")], b"");
    for (name, key) in [
        ("TOPIC_PUT_NUMS", "t"),
        ("GROUP_GET_NUMS", "t"),
        ("NO_NUMS", "t"),
    ] {
        let fields = [("statsName", name), ("statsKey", key)];
        let answer = desk.tool.call(ask::VIEW_BROKER_STATS_DATA, &fields, b"");
        assert_eq!(answer.code, 1);
        assert_eq!(
            answer.remark,
            format!("The stats <{name}> <{key}> not exist")
        );
    }
    desk.server.stop();
}

#[test]
fn what_a_group_may_not_read_outlives_a_crash() {
    let mut desk = Desk::open();
    desk.tool.sent("t", 1, b"x");
    let forbid = |desk: &mut Desk, readable: &str| {
        let fields = [("group", GROUP), ("topic", "t"), ("readable", readable)];
        desk.json(ask::UPDATE_AND_GET_GROUP_FORBIDDEN, &fields)
    };
    let pull = |desk: &Desk| {
        let mut member = Member::join(desk.broker(), "c1", "t");
        let fields = [
            ("consumerGroup", GROUP),
            ("topic", "t"),
            ("queueId", "1"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "0"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subVersion", "1"),
        ];
        member.0.call(ask::PULL_MESSAGE, &fields, b"")
    };
    assert_eq!(pull(&desk).code, 0);
    assert_eq!(forbid(&mut desk, "false")["readable"], false);
    for _ in 0..2 {
        let refused = pull(&desk);
        assert_eq!(
            (refused.code, refused.field("forbiddenType")),
            (16, "5"),
            "{refused:?}"
        );
        let groups = desk.json(ask::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[]);
        assert_eq!(groups["forbiddenTable"][GROUP]["t"], 4);
        desk = desk.again();
    }
    assert_eq!(forbid(&mut desk, "true")["readable"], true);
    assert_eq!(pull(&desk).code, 0);
    desk.server.stop();
}

#[test]
fn whole_tables() {
    let mut desk = Desk::open();
    let _member = Member::join(desk.broker(), "c1", "t");
    for n in 0..9 {
        desk.tool.sent("t", n % 4, b"x");
    }
    for (queue, offset) in [(0, 3), (1, 1), (2, 0)] {
        assert_eq!(desk.tool.try_commit("t", queue, offset).unwrap().code, 0);
    }
    assert_eq!(desk.tool.try_pull("t", 3, 0, 32).unwrap().code, 0);
    // Pulls are noted, not kept.
    for (life, inflight) in [(0, 2), (1, 0)] {
        let offsets = desk.json(ask::GET_ALL_CONSUMER_OFFSET, &[]);
        assert_eq!(offsets["groupTopicMap"][GROUP], serde_json::json!(["t"]));
        let table = offsets["offsetTable"]["t@e2e-consumers"].to_string();
        assert_eq!(table, r#"{"0":3,"1":1,"2":0}"#, "{life}: {offsets}");
        assert!(
            offsets["dataVersion"]["counter"].as_u64().unwrap() > 0,
            "{offsets}"
        );
        let all = desk.json(ask::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]);
        assert_eq!(
            (&all["totalDiff"], &all["totalInflightDiff"]),
            (&5.into(), &inflight.into())
        );
        let groups = all["consumeStatsList"].as_array().unwrap();
        let group = groups.iter().find_map(|group| group.get(GROUP)).unwrap();
        let queues = group[0]["offsetTable"].as_object().unwrap();
        assert_eq!(
            (group.as_array().unwrap().len(), queues.len()),
            (1, 4),
            "{group}"
        );
        let read = queues.values().filter(|queue| queue["lastTimestamp"] != 0);
        assert_eq!(
            read.count(),
            2,
            "queues of which something was consumed: {group}"
        );
        let ordered = desk.json(ask::GET_BROKER_CONSUME_STATS, &[("isOrder", "true")]);
        assert_eq!(ordered["totalDiff"], 0);
        desk = desk.again();
    }
    desk.server.stop();
}

#[test]
fn entries_of_a_queue() {
    let mut desk = Desk::open();
    for _ in 0..3 {
        desk.tool.sent("t", 0, b"x");
    }
    for _ in 0..2 {
        let fields = [
            ("topic", "t"),
            ("queueId", "0"),
            ("index", "1"),
            ("count", "9"),
        ];
        let entries = desk.json(ask::QUERY_CONSUME_QUEUE, &fields);
        assert_eq!(
            (&entries["minQueueIndex"], &entries["maxQueueIndex"]),
            (&0.into(), &3.into())
        );
        let entries = entries["queueData"].as_array().unwrap().clone();
        let pulled = desk.tool.try_pull("t", 0, 1, 32).unwrap().body;
        let records: Vec<_> = RecordView::iter(&pulled).map(Result::unwrap).collect();
        assert_eq!(entries.len(), 2);
        for (entry, record) in entries.iter().zip(&records) {
            assert_eq!(entry["physicOffset"], record.physical_offset());
        }
        let sizes = entries
            .iter()
            .map(|entry| entry["physicSize"].as_u64().unwrap());
        assert_eq!(sizes.sum::<u64>(), pulled.len() as u64);
        desk = desk.again();
    }
    let fields = [
        ("topic", "t"),
        ("queueId", "0"),
        ("index", "0"),
        ("count", "1025"),
    ];
    let answer = desk.tool.call(ask::QUERY_CONSUME_QUEUE, &fields, b"");
    assert_eq!(answer.code, 29, "{answer:?}");
    assert!(
        answer.remark.contains("one answer has 1024 entries"),
        "{answer:?}"
    );
    desk.server.stop();
}

#[test]
fn a_table_too_large_the_delays_and_the_producers() {
    let mut desk = Desk::open();
    let _member = Member::join(desk.broker(), "c9", "wide");
    desk.tool.create_topic("wide", 50_001);
    assert_eq!(desk.tool.try_commit("wide", 7, 0).unwrap().code, 0);
    let fields = [("isOrder", "false")];
    let answer = desk.tool.call(ask::GET_BROKER_CONSUME_STATS, &fields, b"");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.remark.contains("one answer has 50000"), "{answer:?}");
    let later = desk
        .tool
        .try_send_with("t", 0, b"later", "DELAY\u{1}1\u{2}", false);
    assert_eq!(later.unwrap().code, 0);
    let until = Instant::now() + PATIENCE;
    while desk.json(ask::GET_ALL_DELAY_OFFSET, &[])["offsetTable"]["1"] != 1 {
        assert!(Instant::now() < until, "level 1 is never delivered");
    }
    let producers = desk.json(ask::GET_ALL_PRODUCER_INFO, &[]);
    assert_eq!(
        producers["data"]["makers"][0]["clientId"], "c9",
        "{producers}"
    );
    desk.server.stop();
}
