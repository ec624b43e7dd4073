//! Lite topics over several shards: who gets what, limits, crashes, connections that end.

use std::io::Write;

use orbitmq::message::view::RecordView;
use orbitmq::remoting::code::request as ask;

use crate::server::{Launch, Server};
use crate::wire::{Answer, Client};

const PARENTS: [&str; 4] = ["p0", "p1", "p2", "p3"];

fn launch(dir: &std::path::Path) -> Launch {
    let launch = Launch::standalone(dir).set("shards", 3);
    launch
        .set("enableLmq", true)
        .set("enableMultiDispatch", true)
}

/// Parent topics, and for each a group of the same name.
fn prepare(server: &Server) {
    let mut client = Client::connect(server.launch.broker);
    for parent in PARENTS {
        let fields = [
            ("topic", parent),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "2"),
            ("writeQueueNums", "2"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("attributes", "+message.type=LITE"),
        ];
        let made = client.call(ask::UPDATE_AND_CREATE_TOPIC, &fields, b"");
        assert_eq!(made.code, 0, "{made:?}");
        let group =
            format!(r#"{{"groupName":"{parent}","attributes":{{"+lite.bind.topic":"{parent}"}}}}"#);
        let code = ask::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        let made = client.call(code, &[], group.as_bytes());
        assert_eq!(made.code, 0, "{made:?}");
    }
}

/// What one client wants of each parent.
fn subscribe(client: &mut Client, id: &str, action: &str, parents: &[&str], lite: &str) -> Answer {
    let entries = parents.iter().map(|parent| {
        format!(
            r#"{{"action":"{action}","clientId":"{id}","group":"{parent}","topic":"{parent}",
            "liteTopicSet":["{lite}"],"version":1}}"#
        )
    });
    let entries: Vec<String> = entries.collect();
    let body = format!(r#"{{"subscriptionSet":[{}]}}"#, entries.join(","));
    client.call(ask::LITE_SUBSCRIPTION_CTL, &[], body.as_bytes())
}

fn now_ms() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis().to_string()
}

fn pop_frame(client: &mut Client, id: &str, parent: &str, poll_ms: &str) -> Vec<u8> {
    let now = now_ms();
    let fields = [
        ("clientId", id),
        ("consumerGroup", parent),
        ("topic", parent),
        ("maxMsgNum", "32"),
        ("invisibleTime", "60000"),
        ("pollTime", poll_ms),
        ("bornTime", &now),
    ];
    client.frame(ask::POP_LITE_MESSAGE, &fields, b"")
}

/// A pop that waits; its answer is read later.
fn wait(client: &mut Client, id: &str, parent: &str) {
    let frame = pop_frame(client, id, parent, "20000");
    client.stream.write_all(&frame).unwrap();
}

fn pop(client: &mut Client, id: &str, parent: &str, poll_ms: &str) -> Answer {
    let frame = pop_frame(client, id, parent, poll_ms);
    client.stream.write_all(&frame).unwrap();
    client.read().unwrap().expect("an answer")
}

fn bodies(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.code, 0, "{answer:?}");
    let records = RecordView::iter(&answer.body).map(|record| record.expect("a whole record"));
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    records.map(|record| text(record.body())).collect()
}

fn send(client: &mut Client, parent: &str, queue: i32, lite: &str, body: &str) {
    let properties = format!("__LITE_TOPIC\u{1}{lite}\u{2}");
    let sent = client.try_send_with(parent, queue, body.as_bytes(), &properties, false);
    assert_eq!(sent.unwrap().code, 0);
}

fn ack(client: &mut Client, parent: &str, lite: &str, offset: u64, popped: &Answer) -> Answer {
    let handle = format!("0 {} 60000 999 0 b 0 {offset}", popped.field("popTime"));
    let fields = [
        ("consumerGroup", parent),
        ("topic", parent),
        ("liteTopic", lite),
        ("queueId", "0"),
        ("extraInfo", &handle),
        ("offset", &offset.to_string()),
    ];
    client.call(ask::ACK_MESSAGE, &fields, b"")
}

#[test]
fn whoever_waits_on_whichever_shard_gets_what_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    prepare(&server);
    let mut producer = Client::connect(server.launch.broker);
    let clients = (0..6).map(|_| Client::connect(server.launch.broker));
    let mut clients: Vec<Client> = clients.collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let (id, lite) = (format!("c{n}"), format!("l{n}"));
        let answer = subscribe(client, &id, "PARTIAL_ADD", &PARENTS, &lite);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    for parent in PARENTS {
        for (n, client) in clients.iter_mut().enumerate() {
            wait(client, &format!("c{n}"), parent);
        }
        for n in 0..clients.len() {
            let (lite, queue) = (format!("l{n}"), n as i32 % 2);
            send(
                &mut producer,
                parent,
                queue,
                &lite,
                &format!("{parent} {n}"),
            );
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let answer = client.read().unwrap().expect("an answer");
            assert_eq!(bodies(&answer), [format!("{parent} {n}")]);
        }
    }
    server.stop();
}

#[test]
fn what_waits_on_a_closed_connection_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = launch(dir.path()).start();
    prepare(&server);
    let mut producer = Client::connect(server.launch.broker);
    for (n, parent) in PARENTS.into_iter().enumerate() {
        let mut gone = Client::connect(server.launch.broker);
        assert_eq!(
            subscribe(&mut gone, "gone", "PARTIAL_ADD", &[parent], "l").code,
            0
        );
        wait(&mut gone, "gone", parent);
        let mut stays = Client::connect(server.launch.broker);
        assert_eq!(
            subscribe(&mut stays, "stays", "PARTIAL_ADD", &[parent], "l").code,
            0
        );
        wait(&mut stays, "stays", parent);
        gone.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(gone.is_closed(), "the server has seen the end");
        // One more round to the shard of the parent: it has heard of that by then.
        let mut other = Client::connect(server.launch.broker);
        assert_eq!(
            subscribe(&mut other, "other", "PARTIAL_ADD", &[parent], "else").code,
            0
        );
        send(&mut producer, parent, n as i32 % 2, "l", "for who is there");
        let answer = stays.read().unwrap().expect("an answer");
        assert_eq!(bodies(&answer), ["for who is there"]);
    }
    server.stop();
}

#[test]
fn offsets_and_what_is_held_outlive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(dir.path());
    let server = launch.start();
    prepare(&server);
    let mut client = Client::connect(server.launch.broker);
    for parent in PARENTS {
        assert_eq!(
            subscribe(&mut client, "c", "PARTIAL_ADD", &[parent], "acked").code,
            0
        );
        assert_eq!(
            subscribe(&mut client, "c", "PARTIAL_ADD", &[parent], "held").code,
            0
        );
        send(&mut client, parent, 0, "acked", "first");
        let popped = pop(&mut client, "c", parent, "5000");
        assert_eq!(bodies(&popped), ["first"]);
        assert_eq!(ack(&mut client, parent, "acked", 0, &popped).code, 0);
        send(&mut client, parent, 1, "held", "held");
        assert_eq!(bodies(&pop(&mut client, "c", parent, "5000")), ["held"]);
        send(&mut client, parent, 1, "acked", "second");
        send(&mut client, parent, 1, "held", "behind");
    }
    server.kill();
    let server = launch.start();
    let mut client = Client::connect(server.launch.broker);
    for parent in PARENTS {
        assert_eq!(
            pop(&mut client, "c", parent, "0").code,
            210,
            "nobody has subscribed"
        );
        assert_eq!(
            subscribe(&mut client, "c", "COMPLETE_ADD", &[parent], "acked").code,
            0
        );
        assert_eq!(
            subscribe(&mut client, "c", "PARTIAL_ADD", &[parent], "held").code,
            0
        );
        let popped = pop(&mut client, "c", parent, "5000");
        assert_eq!(bodies(&popped), ["second"]);
        assert_eq!(popped.field("orderCountInfo"), "0");
        assert_eq!(pop(&mut client, "c", parent, "0").code, 210, "held is held");
    }
    server.stop();
}

#[test]
fn more_subscriptions_than_the_limit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(dir.path()).set("maxLiteSubscriptionCount", 2);
    let server = launch.start();
    prepare(&server);
    let mut client = Client::connect(server.launch.broker);
    let mut add = |action, lite: &str| subscribe(&mut client, "c", action, &["p0"], lite);
    assert_eq!(add("PARTIAL_ADD", "a").code, 0);
    assert_eq!(add("PARTIAL_ADD", "b").code, 0);
    let refused = add("PARTIAL_ADD", "c");
    assert_eq!(refused.code, 2018);
    assert_eq!(
        refused.remark,
        "lite subscription quota exceeded 2: see maxLiteSubscriptionCount"
    );
    assert_eq!(add("PARTIAL_ADD", "b").code, 0, "it is there already");
    let refused = subscribe(&mut client, "other", "COMPLETE_ADD", &["p0"], "a");
    assert_eq!(refused.code, 2018);
    let answer = subscribe(&mut client, "c", "COMPLETE_ADD", &["p0"], "c");
    assert_eq!(answer.code, 0, "one instead of two");
    let long = "x".repeat(250);
    let refused = subscribe(&mut client, "c", "PARTIAL_ADD", &["p0"], &long);
    assert_eq!(refused.code, 604);
    assert!(refused.remark.contains("at most 255"), "{}", refused.remark);
    let refused = subscribe(&mut client, "c", "PARTIAL_ADD", &["p0"], "a$b");
    assert_eq!(refused.code, 604);
    server.stop();
}

#[test]
fn without_the_switches_nobody_subscribes() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(dir.path()).set("enableMultiDispatch", false);
    let server = launch.start();
    prepare(&server);
    let mut client = Client::connect(server.launch.broker);
    for action in ["PARTIAL_ADD", "COMPLETE_ADD"] {
        let refused = subscribe(&mut client, "c", action, &["p0"], "a");
        assert_eq!(refused.code, 604);
        assert_eq!(
            refused.remark,
            "no lite topics here: the broker needs enableLmq and enableMultiDispatch"
        );
    }
    let left = subscribe(&mut client, "c", "COMPLETE_REMOVE", &["p0"], "a");
    assert_eq!(left.code, 0, "{left:?}");
    server.stop();
}
