//! `dedup.window`: second tries of a send, to other queues, at the same moment, after a crash.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use orbitmq::remoting::code::request as ask;

use crate::server::{Launch, PATIENCE};
use crate::wire::{Answer, Client};

const TOPIC: &str = "guarded";
const QUEUES: i32 = 6;
const KEYS: usize = 200;

fn guarded(client: &mut Client, topic: &str, window_ms: u32) {
    let attribute = format!("+dedup.window={window_ms}");
    let answer = client.call(
        ask::UPDATE_AND_CREATE_TOPIC,
        &[
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &QUEUES.to_string()),
            ("writeQueueNums", &QUEUES.to_string()),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("attributes", &attribute),
        ],
        b"",
    );
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// Half of the keys as Java clients make them.
fn properties(key: usize) -> String {
    match key % 2 {
        0 => format!("UNIQ_KEY\u{1}{key:032X}\u{2}"),
        _ => format!("UNIQ_KEY\u{1}order {key}\u{2}KEYS\u{1}k{key}\u{2}"),
    }
}

fn send(client: &mut Client, topic: &str, queue: i32, key: usize) -> Answer {
    let body = key.to_string();
    let answer = client.try_send_with(topic, queue, body.as_bytes(), &properties(key), false);
    answer.expect("an answer")
}

/// Where the broker says the message of each key lies.
type Places = HashMap<usize, (String, String, String)>;

/// Sends every key once, each producer in an order and to queues of its own.
fn send_all(addr: SocketAddr, producer: usize) -> Places {
    let mut client = Client::connect(addr);
    let keys = (0..KEYS).map(|n| (n * 7 + producer * 3) % KEYS);
    let sent = keys.map(|key| {
        let queue = (key + producer) as i32 % QUEUES;
        let answer = send(&mut client, TOPIC, queue, key);
        assert_eq!(answer.code, 0, "{answer:?}");
        let field = |name: &str| answer.field(name).to_owned();
        (
            key,
            (field("msgId"), field("queueId"), field("queueOffset")),
        )
    });
    sent.collect()
}

fn stored(client: &mut Client, topic: &str) -> u64 {
    let end = |queue| client.queue_offset(ask::GET_MAX_OFFSET, topic, queue);
    (0..QUEUES).map(end).sum()
}

#[test]
fn a_second_try_stores_nothing_wherever_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(dir.path()).set("shards", 3);
    let server = launch.start();
    let addr = server.launch.broker;
    let mut client = Client::connect(addr);
    guarded(&mut client, TOPIC, 600_000);
    let producer = |n| std::thread::spawn(move || send_all(addr, n));
    let threads: Vec<_> = (0..8).map(producer).collect();
    let places: Vec<Places> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    for other in &places {
        assert_eq!(*other, places[0]);
    }
    assert_eq!(stored(&mut client, TOPIC), KEYS as u64);

    server.kill();
    let server = launch.start();
    assert_eq!(
        send_all(server.launch.broker, 5),
        places[0],
        "after a crash"
    );
    assert_eq!(send_all(server.launch.broker, 6), places[0], "and again");
    let mut client = Client::connect(server.launch.broker);
    assert_eq!(stored(&mut client, TOPIC), KEYS as u64);
    let new = send(&mut client, TOPIC, 1, KEYS);
    assert_eq!((new.code, new.field("queueId")), (0, "1"), "{new:?}");
    assert_eq!(stored(&mut client, TOPIC), KEYS as u64 + 1);
    server.stop();
}

#[test]
fn what_the_guard_cannot_keep_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 2).start();
    let mut client = Client::connect(server.launch.broker);
    guarded(&mut client, TOPIC, 60_000);
    for property in ["DELAY\u{1}3", "TRAN_MSG\u{1}true", "TIMER_DELAY_SEC\u{1}9"] {
        let properties = format!("{}{property}\u{2}", properties(1));
        let answer = client.try_send_with(TOPIC, 0, b"later", &properties, false);
        let answer = answer.unwrap();
        assert_eq!(answer.code, 13, "{property}: {answer:?}");
        assert!(answer.remark.contains("dedup.window"), "{answer:?}");
    }
    let batch = client.try_send_with(TOPIC, 0, b"a batch", &properties(1), true);
    let batch = batch.unwrap();
    assert!(
        batch.code == 13 && batch.remark.contains("batches"),
        "{batch:?}"
    );
    assert_eq!(stored(&mut client, TOPIC), 0);
    let long = format!("UNIQ_KEY\u{1}{}\u{2}", "k".repeat(129));
    let answer = client.try_send_with(TOPIC, 0, b"a long key", &long, false);
    let answer = answer.unwrap();
    assert!(
        answer.code == 13 && answer.remark.contains("129 bytes"),
        "{answer:?}"
    );
    assert_eq!(stored(&mut client, TOPIC), 0);
    // Without a key there is nothing to tell a second try by.
    client.sent(TOPIC, 0, b"no key");
    client.sent(TOPIC, 0, b"no key");
    assert_eq!(stored(&mut client, TOPIC), 2);
    for window in [0, 999, 3_600_001] {
        let window = format!("+dedup.window={window}");
        let fields: &[(&str, &str)] = &[
            ("topic", "refused"),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", "1"),
            ("writeQueueNums", "1"),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("attributes", &window),
        ];
        let answer = client.call(ask::UPDATE_AND_CREATE_TOPIC, fields, b"");
        assert!(answer.remark.contains("1000, 3600000"), "{answer:?}");
    }
}

#[test]
fn behind_the_window_a_key_is_new_and_topics_have_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 2).start();
    let mut client = Client::connect(server.launch.broker);
    guarded(&mut client, TOPIC, 1_000);
    guarded(&mut client, "other", 3_600_000);
    let first = send(&mut client, TOPIC, 0, 1);
    let elsewhere = send(&mut client, "other", 0, 1);
    assert_ne!(first.field("msgId"), elsewhere.field("msgId"));
    let begun = Instant::now();
    loop {
        let again = send(&mut client, TOPIC, 1, 1);
        if again.field("msgId") != first.field("msgId") {
            break assert_eq!(again.field("queueId"), "1", "{again:?}");
        }
        assert!(begun.elapsed() < PATIENCE, "the window does not end");
    }
    assert!(begun.elapsed().as_millis() >= 900, "{:?}", begun.elapsed());
    assert_eq!(stored(&mut client, TOPIC), 2);
    assert_eq!(send(&mut client, "other", 1, 1).fields, elsewhere.fields);
}
