//! `orbitmq admin why`: each cause is staged, and must be the one that is named.

use std::time::{Duration, Instant};

use orbitmq::remoting::code::request as ask;
use serde_json::Value;

use crate::admin::Desk;
use crate::server::free_port;
use crate::wire::Client;

const GROUP: &str = "e2e-consumers";

impl Desk {
    fn cause(&self, words: &[&str]) -> String {
        let rows = self.rows(&[&["why"], words].concat());
        assert_eq!(rows.len(), 1);
        let text = |name: &str| rows[0][name].as_str().expect("a text").to_owned();
        assert!(!text("evidence").is_empty() && !text("next").is_empty());
        text("cause")
    }

    fn of_group(&self, group: &str, topic: &str) -> String {
        self.cause(&["group", group, topic])
    }

    fn of_message(&self, id: &str) -> String {
        self.cause(&["msg", id, "--group", GROUP])
    }

    /// Sends one message; gives its id.
    fn send(&self, topic: &str, more: &[&str]) -> String {
        let words = [&["send", topic, "body", "--queue", "0"], more].concat();
        let sent = self.rows(&words);
        sent[0]["id"].as_str().expect("an id").to_owned()
    }

    fn create(&self, topics: &[&str]) {
        for topic in topics {
            self.rows(&["create-topic", topic, "--queues", "1"]);
        }
    }
}

/// A member of a group, as long as the connection lives.
fn join(client: &mut Client, group: &str, model: &str, wants: &[(&str, &str)]) {
    let wants: Vec<Value> = wants
        .iter()
        .map(|(topic, expression)| {
            serde_json::json!({
                "topic": topic, "subString": expression, "subVersion": 1,
                "expressionType": "TAG", "tagsSet": [], "codeSet": [], "classFilterMode": false,
            })
        })
        .collect();
    let body = serde_json::json!({
        "clientID": format!("{group}-1"), "producerDataSet": [],
        "consumerDataSet": [{
            "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": model,
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": wants,
            "unitMode": false,
        }],
    });
    let answer = client.call(ask::HEART_BEAT, &[], body.to_string().as_bytes());
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn why_a_group_gets_nothing() {
    let desk = Desk::open();
    let broker = desk.server.launch.broker;
    assert_eq!(desk.of_group(GROUP, "none"), "the topic does not exist");
    let mut client = Client::connect(broker);
    let unreadable = [
        ("topic", "dark"),
        ("readQueueNums", "1"),
        ("writeQueueNums", "1"),
        ("perm", "2"),
        ("topicFilterType", "SINGLE_TAG"),
        ("defaultTopic", "TBW102"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    let made = client.call(ask::UPDATE_AND_CREATE_TOPIC, &unreadable, b"");
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(desk.of_group(GROUP, "dark"), "the topic may not be read");
    desk.create(&["way", "other", "tagged"]);
    assert_eq!(desk.of_group(GROUP, "way"), "nothing was sent");
    let id = desk.send("way", &["--tag", "A"]);
    for topic in ["other", "tagged"] {
        desk.send(topic, &["--tag", "A"]);
    }
    assert_eq!(desk.of_group(GROUP, "way"), "the group does not exist");
    join(&mut client, "all", "BROADCASTING", &[("way", "*")]);
    assert_eq!(desk.of_group("all", "way"), "the group is a broadcast");

    let mut member = Client::connect(broker);
    join(
        &mut member,
        GROUP,
        "CLUSTERING",
        &[("way", "*"), ("tagged", "B || C")],
    );
    assert_eq!(
        desk.of_group(GROUP, "other"),
        "nobody subscribes to the topic"
    );
    assert_eq!(desk.of_group(GROUP, "way"), "the group is behind");
    member.try_commit("way", 0, 1).unwrap();
    assert_eq!(desk.of_group(GROUP, "way"), "everything was consumed");
    member.try_commit("tagged", 0, 1).unwrap();
    assert_eq!(desk.of_group(GROUP, "tagged"), "the filter wants none");
    send_back(&mut member, &id, "1");
    // It is in the retry topic when its delay is over.
    let end = Instant::now() + Duration::from_secs(20);
    while desk.of_group(GROUP, "way") != "messages wait to be retried" {
        assert!(Instant::now() < end, "{}", desk.of_group(GROUP, "way"));
        member.call(ask::HEART_BEAT, &[], b"{\"clientID\":\"\"}");
    }

    let disabled = br#"{"groupName":"closed","consumeEnable":false}"#;
    let made = client.call(ask::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], disabled);
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(desk.of_group("closed", "way"), "the group may not consume");
    let idle = br#"{"groupName":"idle"}"#;
    client.call(ask::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], idle);
    assert_eq!(desk.of_group("idle", "way"), "nobody is connected");
    desk.server.stop();
}

fn send_back(member: &mut Client, id: &str, level: &str) {
    let physical = i64::from_str_radix(&id[16..], 16).expect("an id");
    let physical = physical.to_string();
    let fields = [
        ("group", GROUP),
        ("offset", &physical),
        ("delayLevel", level),
        ("originMsgId", "x"),
        ("originTopic", "way"),
        ("unitMode", "false"),
        ("maxReconsumeTimes", "16"),
    ];
    let answer = member.call(ask::CONSUMER_SEND_MSG_BACK, &fields, b"");
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn why_a_message_did_not_arrive() {
    let desk = Desk::open();
    let broker = desk.server.launch.broker;
    desk.create(&["way"]);
    let id = desk.send("way", &["--tag", "A"]);
    assert_eq!(desk.cause(&["msg", &id]), "it is there to be consumed");
    assert_eq!(desk.of_message(&id), "the group does not exist");
    let mut member = Client::connect(broker);
    join(&mut member, GROUP, "CLUSTERING", &[("way", "A")]);
    assert_eq!(desk.of_message(&id), "the group has not reached it");
    member.try_commit("way", 0, 1).unwrap();
    assert_eq!(desk.of_message(&id), "the group has passed it");
    let other = desk.send("way", &["--tag", "B"]);
    assert_eq!(desk.of_message(&other), "the filter does not want it");

    send_back(&mut member, &id, "5");
    assert_eq!(desk.of_message(&id), "the group refused it");
    assert!(desk.fails(&["dead-letters", GROUP], 4).contains(GROUP));
    send_back(&mut member, &id, "-1");
    assert_eq!(desk.of_message(&id), "it is a dead letter");
    assert_eq!(desk.rows(&["dead-letters", GROUP])[0]["body"], "body");
    let counted = desk.rows(&["redrive", GROUP, "--dry-run"]);
    assert_eq!(
        (&counted[0]["dead_letters"], &counted[0]["sent_again"]),
        (&1.into(), &0.into())
    );
    let sent = desk.rows(&["redrive", GROUP, "--rate", "1000"]);
    assert_eq!(sent[0]["sent_again"], 1);
    desk.fails(&["dead-letters", GROUP], 4);
    let retry = format!("%RETRY%{GROUP}");
    let again = desk.rows(&["read", &retry, "--queue", "0"]);
    assert_eq!(again.last().expect("one")["body"], "body");

    let timed = desk.send("way", &["--delay-ms", "3600000"]);
    assert_eq!(desk.of_message(&timed), "it waits for its time");
    let properties = ("properties", "DELAY\u{1}5\u{2}");
    let delayed = send_with(&mut member, properties, "0");
    assert_eq!(desk.of_message(&delayed), "it waits for its delay");
    let properties = ("properties", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}");
    let half = send_with(&mut member, properties, "4");
    assert_eq!(desk.of_message(&half), "its transaction is not committed");
    desk.fails(&["commit", &id], 4);
    assert_eq!(desk.rows(&["commit", &half])[0]["ended"], "committed");
    assert_eq!(desk.cause(&["msg", &half]), "it is there to be consumed");

    let beyond = format!("{}{:016X}", &id[..16], 0x7fff_ffff_u64);
    assert_eq!(desk.of_message(&beyond), "it is not in the store");
    let away = format!("7F000001{:08X}{}", free_port(), &id[16..]);
    assert_eq!(desk.of_message(&away), "its broker is away");
    desk.server.stop();
}

/// Sends with these properties; gives the message's id.
fn send_with(client: &mut Client, properties: (&str, &str), sys_flag: &str) -> String {
    let fields = [
        ("producerGroup", "p"),
        ("topic", "way"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "0"),
        ("sysFlag", sys_flag),
        ("bornTimestamp", "0"),
        ("flag", "0"),
        properties,
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ];
    let answer = client.call(ask::SEND_MESSAGE, &fields, b"later");
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.field("msgId").to_owned()
}
