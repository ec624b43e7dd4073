//! `orbitmq admin why`: each cause is staged, and must be the one that is named.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use orbitmq::remoting::code::request as ask;
use serde_json::Value;

use crate::admin::Desk;
use crate::server::{Launch, free_port};
use crate::wire::{Answer, Client};

const GROUP: &str = "e2e-consumers";

impl Desk {
    fn cause(&self, words: &[&str]) -> String {
        self.reason(words).0
    }

    /// Cause and evidence.
    fn reason(&self, words: &[&str]) -> (String, String) {
        let rows = self.rows(&[&["why"], words].concat());
        assert_eq!(rows.len(), 1);
        let text = |name: &str| rows[0][name].as_str().expect("a text").to_owned();
        assert!(!text("evidence").is_empty() && !text("next").is_empty());
        (text("cause"), text("evidence"))
    }

    fn of_group(&self, group: &str, topic: &str) -> String {
        self.cause(&["group", group, topic])
    }

    fn of_message(&self, id: &str) -> String {
        self.cause(&["msg", id, "--group", GROUP])
    }

    /// Sends one message; gives its id.
    pub fn send(&self, topic: &str, more: &[&str]) -> String {
        let words = [&["send", topic, "body", "--queue", "0"], more].concat();
        let sent = self.rows(&words);
        sent[0]["id"].as_str().expect("an id").to_owned()
    }

    pub fn create(&self, topics: &[&str]) {
        for topic in topics {
            self.rows(&["create-topic", topic, "--queues", "1"]);
        }
    }
}

/// A member of a group, as long as the connection lives.
pub fn join(client: &mut Client, group: &str, model: &str, wants: &[(&str, &str)]) {
    let answer = beat(client, &format!("{group}-1"), group, model, wants);
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn beat(client: &mut Client, id: &str, group: &str, model: &str, wants: &[(&str, &str)]) -> Answer {
    // Each is newer than what was said before, as a client's clock has it.
    static VERSION: AtomicI64 = AtomicI64::new(1);
    let version = VERSION.fetch_add(1, Ordering::Relaxed);
    let wants: Vec<Value> = wants
        .iter()
        .map(|(topic, expression)| {
            serde_json::json!({
                "topic": topic, "subString": expression, "subVersion": version,
                "expressionType": "TAG", "tagsSet": [], "codeSet": [], "classFilterMode": false,
            })
        })
        .collect();
    let body = serde_json::json!({
        "clientID": id, "producerDataSet": [],
        "consumerDataSet": [{
            "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": model,
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": wants,
            "unitMode": false,
        }],
    });
    client.call(ask::HEART_BEAT, &[], body.to_string().as_bytes())
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

const SPLIT: &str = "the members subscribe differently";

/// The numbers of the runtime information about split groups.
fn counted(client: &mut Client) -> [String; 3] {
    let told = client.call(ask::GET_BROKER_RUNTIME_INFO, &[], b"");
    let body: Value = serde_json::from_slice(&told.body).expect("JSON");
    let names = [
        "splitGroups",
        "splitGroupsTotal",
        "splitGroupsRefusedClients",
    ];
    names.map(|name| body["table"][name].as_str().expect(name).to_owned())
}

#[test]
fn why_a_split_group_loses_messages() {
    let desk = Desk::open();
    let broker = desk.server.launch.broker;
    desk.create(&["way", "other"]);
    let id = desk.send("way", &["--tag", "A"]);
    desk.send("other", &[]);
    let (mut one, mut two) = (Client::connect(broker), Client::connect(broker));
    join(
        &mut one,
        GROUP,
        "CLUSTERING",
        &[("way", "A"), ("other", "*")],
    );
    assert_eq!(desk.of_group(GROUP, "way"), "the group is behind");
    assert_eq!(counted(&mut one), ["0", "0", "0"]);
    let wants = [("way", "B"), ("other", "*")];
    let joined = beat(&mut two, "two", GROUP, "CLUSTERING", &wants);
    assert_eq!(joined.code, 0, "{joined:?}");
    let ids = [&format!("{GROUP}-1 (127.0.0.1:"), "two (127.0.0.1:"];
    let warning = [
        ids[0],
        ids[1],
        "WARN",
        GROUP,
        "is split",
        "topic way `A` and `B`",
    ];
    desk.server.log.wait_for(&warning);
    assert_eq!(counted(&mut one), ["1", "1", "0"]);
    let (cause, evidence) = desk.reason(&["group", GROUP, "way"]);
    assert_eq!(cause, SPLIT);
    for word in [ids[0], ids[1], "topic way `A` and `B`"] {
        assert!(evidence.contains(word), "{word}: {evidence}");
    }
    assert_eq!(desk.of_message(&id), SPLIT);
    assert_eq!(desk.of_group(GROUP, "other"), "the group is behind");
    let members = desk.rows(&["members", GROUP]);
    let wanted = |at: usize| members[at]["subscriptions"].as_str().expect("a text");
    assert_eq!(
        [wanted(0), wanted(1)],
        ["other (*), way (A)", "other (*), way (B)"]
    );
    join(&mut one, GROUP, "CLUSTERING", &wants);
    desk.server
        .log
        .wait_for(&["INFO", GROUP, "not split any more"]);
    assert_eq!(counted(&mut one), ["0", "1", "0"]);
    assert_eq!(desk.of_message(&id), "the filter does not want it");
    desk.server.stop();
}

/// With `rejectDifferentSubscription` the second one gets nothing, in no way and from no shard.
#[test]
fn why_a_client_is_kept_out() {
    let desk = Desk::with(|launch: Launch| launch.set("rejectDifferentSubscription", true));
    let broker = desk.server.launch.broker;
    desk.rows(&["create-topic", "way", "--queues", "2"]);
    desk.send("way", &["--tag", "A"]);
    let (mut one, mut two) = (Client::connect(broker), Client::connect(broker));
    join(&mut one, GROUP, "CLUSTERING", &[("way", "A")]);
    let refused = beat(&mut two, "two", GROUP, "BROADCASTING", &[("way", "A")]);
    assert_eq!(refused.code, 16, "{refused:?}");
    let words = "CLUSTERING and BROADCASTING (there and here)";
    let named = |text: &str| text.contains(&format!("{GROUP}-1 (")) && text.contains(words);
    assert!(named(&refused.remark), "{refused:?}");
    desk.server.log.wait_for(&["WARN", "two (", words]);
    assert_eq!(counted(&mut one), ["0", "1", "1"]);
    for queue in 0..2 {
        let pulled = two.try_pull("way", queue, 0, 1).unwrap();
        assert_eq!(
            (pulled.code, named(&pulled.remark)),
            (16, true),
            "{pulled:?}"
        );
        assert_ne!(one.try_pull("way", queue, 0, 1).unwrap().code, 16);
        let popped = two.call(ask::POP_MESSAGE, &pop(&queue.to_string()), b"");
        assert_eq!(
            (popped.code, named(&popped.remark)),
            (16, true),
            "{popped:?}"
        );
    }
    let wish = format!(
        r#"{{"topic":"way","consumerGroup":"{GROUP}","clientId":"two",
        "strategyName":"AVG","messageModel":"BROADCASTING"}}"#
    );
    let shares = |client: &mut Client| {
        let share = client.call(ask::QUERY_ASSIGNMENT, &[], wish.as_bytes());
        String::from_utf8(share.body).unwrap().contains("queueId")
    };
    assert!(shares(&mut one) && !shares(&mut two));
    let (cause, evidence) = desk.reason(&["group", GROUP, "way"]);
    assert_eq!(
        (cause.as_str(), named(&evidence)),
        (SPLIT, true),
        "{evidence}"
    );
    let members = desk.rows(&["members", GROUP]);
    assert_eq!(members[1]["subscriptions"], "refused: way (A)");

    let unregister = [("clientID", "one"), ("consumerGroup", GROUP)];
    assert_eq!(one.call(ask::UNREGISTER_CLIENT, &unregister, b"").code, 0);
    let joined = beat(&mut two, "two", GROUP, "BROADCASTING", &[("way", "A")]);
    assert_eq!(joined.code, 0, "{joined:?}");
    assert_ne!(two.try_pull("way", 0, 0, 1).unwrap().code, 16);
    assert!(shares(&mut two));
    desk.server.stop();
}

/// A pop of one message, which does not wait.
fn pop(queue: &str) -> [(&str, &str); 8] {
    [
        ("consumerGroup", GROUP),
        ("topic", "way"),
        ("queueId", queue),
        ("maxMsgNums", "1"),
        ("invisibleTime", "60000"),
        ("pollTime", "0"),
        ("bornTime", "0"),
        ("initMode", "0"),
    ]
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
