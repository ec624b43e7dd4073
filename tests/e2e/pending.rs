//! What nobody gets yet: `orbitmq admin transactions`, `timers` and `recall`, and the request of
//! ours behind them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

use orbitmq::remoting::body::json;
use orbitmq::remoting::body::pending::PendingMessages;
use orbitmq::remoting::code::request as ask;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, split};
use serde_json::Value;

use crate::admin::{Desk, admin};
use crate::server::PATIENCE;
use crate::wire::{Client, Fields};

/// More than one answer of the broker holds.
const MANY: usize = 1_100;

fn texts(rows: &[Value], column: &str) -> Vec<String> {
    let texts = rows.iter().map(|row| row[column].as_str());
    texts.map(|text| text.unwrap_or("-").to_owned()).collect()
}

/// Stores the half of a transaction.
fn half(client: &mut Client, topic: &str, key: &str, group: &str, more: &str) {
    let stored =
        format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{group}\u{2}UNIQ_KEY\u{1}{key}\u{2}{more}");
    let answer = client.try_send_with(topic, 0, b"half", &stored, false);
    let answer = answer.expect("an answer");
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn open_transactions_are_listed_and_ended() {
    let desk = Desk::with(|launch| {
        launch
            .set("transactionTimeOut", 1)
            .set("transactionCheckMax", 1)
            .set("transactionCheckInterval", 100)
    });
    desk.create(&["pay", "ship"]);
    let none = desk.fails(&["transactions"], 4);
    assert!(none.contains("no transaction is open"), "{none}");
    let mut client = Client::connect(desk.server.launch.broker);
    let later = "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}1000000000";
    for (topic, key, group, more) in [
        ("pay", "k1", "payers", later),
        ("ship", "k2", "shippers", later),
        ("pay", "k3", "payers", ""),
        ("pay", "k4", "others", later),
    ] {
        half(&mut client, topic, key, group, more);
    }
    let by = |words: &[&str]| texts(&desk.rows(&[&["transactions"], words].concat()), "topic");
    assert_eq!(by(&[]), ["pay", "ship", "pay", "pay"]);
    assert_eq!(by(&["--topic", "ship"]), ["ship"]);
    assert_eq!(by(&["--group", "payers"]), ["pay", "pay"]);
    assert_eq!(by(&["--group", "payers", "--count", "1"]).len(), 1);
    desk.fails(&["transactions", "--group", "nobody"], 4);

    // One is asked about once, and parked: nobody answered.
    let until = Instant::now() + PATIENCE;
    let parked = loop {
        let rows = desk.rows(&["transactions", "--group", "payers"]);
        if let Some(row) = rows.iter().find(|row| row["state"] == "parked") {
            assert_eq!(row["checks"], 1);
            break row["id"].as_str().expect("an id").to_owned();
        }
        assert!(Instant::now() < until, "{rows:?}");
    };
    desk.rows(&["resume", &parked]);
    let states = texts(&desk.rows(&["transactions", "--group", "payers"]), "state");
    assert!(states.len() > 2, "a resumed half is a new one: {states:?}");

    let rows = desk.rows(&["transactions", "--topic", "ship"]);
    assert_eq!(
        (&rows[0]["state"], &rows[0]["checks"]),
        (&"open".into(), &0.into())
    );
    desk.rows(&["commit", rows[0]["id"].as_str().expect("an id")]);
    desk.fails(&["transactions", "--topic", "ship"], 4);
    assert_eq!(desk.rows(&["read", "ship"]).len(), 1);
    let rows = desk.rows(&["transactions", "--group", "others"]);
    desk.rows(&["rollback", rows[0]["id"].as_str().expect("an id")]);
    desk.fails(&["transactions", "--group", "others"], 4);
    desk.server.stop();
}

#[test]
fn more_transactions_than_one_answer_holds() {
    let desk = Desk::open();
    desk.create(&["pay"]);
    let mut client = Client::connect(desk.server.launch.broker);
    let mut other = Client::connect(desk.server.launch.broker);
    for n in 0..MANY {
        let client = if n % 2 == 0 { &mut client } else { &mut other };
        half(client, "pay", &format!("k{n}"), "payers", "");
    }
    let count = (MANY + 10).to_string();
    let rows = desk.rows(&["transactions", "--count", &count]);
    let ids: BTreeSet<String> = texts(&rows, "id").into_iter().collect();
    assert_eq!((rows.len(), ids.len()), (MANY, MANY));
    let (code, out, err) = admin(&desk.namesrv, &["transactions", "--count", "5"]);
    assert_eq!((code, out.lines().count()), (Some(0), 6), "{out}");
    assert!(err.contains("more than these 5"), "{err}");
    // The same over the wire, in small pages.
    let found = paged(
        &mut client,
        &[("kind", "TRANSACTIONS"), ("maxNum", "64")],
        64,
    );
    assert_eq!(found.len(), MANY);
    desk.server.stop();
}

/// All places, page by page.
fn paged(client: &mut Client, fields: Fields<'_>, most: usize) -> BTreeSet<i64> {
    let (mut found, mut from) = (BTreeSet::new(), None::<String>);
    loop {
        let mut all = fields.to_vec();
        all.extend(from.as_deref().map(|from| ("from", from)));
        let answer = client.call(ask::QUERY_PENDING_MESSAGES, &all, b"");
        assert_eq!(answer.code, 0, "{answer:?}");
        let page: PendingMessages = json::from_slice(&answer.body).expect("a page");
        assert!(page.places.len() <= most, "{}", page.places.len());
        for place in page.places {
            assert!(found.insert(place.physical_offset), "twice: {place:?}");
        }
        from = page.next;
        if from.is_none() {
            return found;
        }
    }
}

#[test]
fn what_waits_for_its_time_is_listed_and_taken_back() {
    let desk = Desk::with(|launch| launch.set("recallMessageEnable", true));
    desk.create(&["later", "other"]);
    let none = desk.fails(&["timers"], 4);
    assert!(none.contains("no message waits"), "{none}");
    let later = |topic: &str, key: &str, more: &[&str]| {
        let key = format!("UNIQ_KEY={key}");
        desk.send(topic, &[&["--property", &key], more].concat())
    };
    later("later", "k3", &["--delay-ms", "200000000"]);
    later("later", "k1", &["--delay-ms", "3500000"]);
    later("other", "k2", &["--delay-ms", "7000000"]);
    // Level 18 is two hours, level 17 one.
    later("later", "k18", &["--property", "DELAY=18"]);
    later("other", "k17", &["--property", "DELAY=17"]);
    let rows = desk.rows(&["timers"]);
    assert_eq!(texts(&rows, "key"), ["k1", "k17", "k2", "k18", "k3"]);
    assert!(texts(&rows, "due").is_sorted());
    assert_eq!(rows[1]["level"], 17);
    assert_eq!(
        (&rows[0]["level"], &rows[1]["handle"]),
        (&Value::Null, &Value::Null)
    );
    let of = |words: &[&str]| texts(&desk.rows(&[&["timers"], words].concat()), "key");
    assert_eq!(of(&["--topic", "later"]), ["k1", "k18", "k3"]);
    assert_eq!(of(&["--count", "2"]), ["k1", "k17"]);
    desk.fails(&["timers", "--topic", "none"], 4);
    let found = desk.rows(&["view", rows[2]["id"].as_str().expect("an id")]);
    assert_eq!(found[0]["body"], "body");

    let handle = rows[0]["handle"].as_str().expect("a handle").to_owned();
    for (topic, handle, code, said) in [
        ("other", &*handle, 1, "it is for the topic later"),
        ("later", "djEgeA==", 1, "does not name"),
        ("later", "%%", 1, "base64"),
    ] {
        let said_now = desk.fails(&["recall", topic, handle], code);
        assert!(said_now.contains(said), "{said_now}");
    }
    let done = desk.rows(&["recall", "later", &handle]);
    assert_eq!(done[0]["key"], "k1");
    let rows = desk.rows(&["timers", "--topic", "later"]);
    assert_eq!(texts(&rows, "state"), ["taken back", "waits", "waits"]);
    assert_eq!(rows[0]["handle"], Value::Null);
    desk.server.stop();
}

#[test]
fn more_timers_than_one_answer_holds() {
    let desk = Desk::open();
    desk.create(&["later", "rare"]);
    let mut clients = [(); 2].map(|()| Client::connect(desk.server.launch.broker));
    let due = |n: usize| 3_000_000 + (n * 7919 % MANY) * 10_000;
    for n in 0..MANY {
        let topic = if n == 500 { "rare" } else { "later" };
        let stored = format!("TIMER_DELAY_MS\u{1}{}\u{2}UNIQ_KEY\u{1}k{n}", due(n));
        let answer = clients[n % 2].try_send_with(topic, 0, b"x", &stored, false);
        assert_eq!(answer.expect("an answer").code, 0);
    }
    let rows = desk.rows(&["timers", "--count", "2000"]);
    let keys: BTreeSet<String> = texts(&rows, "key").into_iter().collect();
    assert_eq!((rows.len(), keys.len()), (MANY, MANY));
    assert!(texts(&rows, "due").is_sorted());
    let first: BTreeSet<String> = texts(&rows[..4], "key").into_iter().collect();
    let some = desk.rows(&["timers", "--count", "4"]);
    assert_eq!(
        texts(&some, "key").into_iter().collect::<BTreeSet<_>>(),
        first
    );
    let (_, _, err) = admin(&desk.namesrv, &["timers", "--count", "4"]);
    assert!(err.contains(&format!("{MANY} wait for a time")), "{err}");
    assert_eq!(
        texts(&desk.rows(&["timers", "--topic", "rare"]), "key"),
        ["k500"]
    );
    let client = &mut clients[0];
    let found = paged(client, &[("kind", "TIMERS"), ("maxNum", "100")], 100);
    assert_eq!(found.len(), MANY);

    let refused = |client: &mut Client, fields: Fields<'_>, body: &[u8], said: &str| {
        let answer = client.call(ask::QUERY_PENDING_MESSAGES, fields, body);
        assert_eq!(answer.code, 29, "{answer:?}");
        assert!(answer.remark.contains(said), "{answer:?}");
    };
    refused(
        client,
        &[("kind", "TIMERS"), ("maxNum", "0")],
        b"",
        "1 to 1000",
    );
    refused(
        client,
        &[("kind", "TIMERS"), ("maxNum", "1001")],
        b"",
        "1 to 1000",
    );
    refused(client, &[("kind", "ALL")], b"", "kind[ALL]");
    refused(
        client,
        &[("kind", "TIMERS"), ("from", "0:x:0")],
        b"",
        "begin without it",
    );
    let hashes = json::to_vec(&vec![1u64; 1001]);
    refused(client, &[("kind", "RECALLED")], &hashes, "1000 at most");
    desk.server.stop();
}

/// Name server and broker in one, which answers nothing but where the broker is.
fn foreign() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let info = format!(
        r#"{{"brokerAddrTable":{{"b":{{"brokerAddrs":{{0:"{addr}"}},"brokerName":"b","cluster":"c"}}}}}}"#
    );
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let mut head = [0; 4];
        while stream.read_exact(&mut head).is_ok() {
            let mut frame = head.to_vec();
            frame.resize(4 + u32::from_be_bytes(head) as usize, 0);
            stream.read_exact(&mut frame[4..]).expect("a frame");
            let command = Command::decode(split(&frame).expect("whole")).expect("a header");
            let (code, body) = match command.code {
                ask::GET_BROKER_CLUSTER_INFO => (0, info.as_bytes()),
                _ => (3, &b""[..]),
            };
            let mut answer = Vec::new();
            FrameWriter::response(&mut answer, Codec::Json, command.opaque, code, Some("no"))
                .finish_with_body(body);
            stream.write_all(&answer).expect("somebody listens");
        }
    });
    addr
}

#[test]
fn brokers_that_do_not_know_the_request_are_named() {
    for command in ["transactions", "timers"] {
        let addr = foreign();
        let (code, out, err) = admin(&addr, &[command]);
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(err.contains(&addr) && err.contains("RocketMQ"), "{err}");
        assert!(out.is_empty(), "{out}");
    }
}
