//! A process from start to stop: ports, shards, cores, signals, addresses, logs, load limits.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::body::json;
use orbitmq::remoting::body::stats::ConsumeStats;
use orbitmq::remoting::code::request as ask;

use crate::server::{Launch, PATIENCE, Server};
use crate::wire::Client;

/// Design: memory of a broker with two shards at most, by default.
const MEMORY_BYTES: u64 = (256 + 128) << 20;

#[test]
fn a_restart_continues_and_both_signals_stop_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(dir.path()).set("shards", 2);
    for (start, signal) in ["TERM", "INT", "TERM"].into_iter().enumerate() {
        let server = launch.start();
        let mut client = Client::connect(launch.broker);
        if start == 0 {
            client.create_topic("restart", 4);
        }
        for queue in 0..4 {
            let messages = client.all_messages("restart", queue, start as u64).len();
            assert_eq!(messages, start, "queue {queue}");
            assert_eq!(client.sent("restart", queue, b"x"), start as i64);
        }
        assert_eq!(
            client
                .try_commit("restart", 0, start as u64 + 1)
                .unwrap()
                .code,
            0
        );
        assert_eq!(client.committed("restart", 0), Some(start as u64 + 1));
        let log = server.log.clone();
        let (code, took) = server.stop_by(signal);
        assert_eq!(code, Some(0), "{signal}: {}", log.text());
        assert!(took <= Duration::from_secs(5), "{signal} took {took:?}");
    }
    // A clean stop leaves nothing to replay.
    let server = launch.start();
    let line = server.log.wait_for(&["log recovered", "shard=0"]);
    assert!(line.contains("batches=0"), "{line}");
}

#[test]
fn a_new_group_misses_nothing_that_comes_while_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    let mut client = Client::connect(server.launch.broker);
    client.create_topic("new", 1);
    let fields = [
        ("consumerGroup", "new-group"),
        ("topic", "new"),
        ("queueId", "0"),
    ];
    // "Not found" would send a consumer to the end of the queue, past what arrived meanwhile.
    for count in 0..3 {
        let answer = client.call(ask::QUERY_CONSUMER_OFFSET, &fields, b"");
        assert_eq!((answer.code, answer.number("offset")), (0, 0), "{answer:?}");
        assert_eq!(client.sent("new", 0, b"x"), count);
    }
    assert_eq!(client.committed("new", 0), None);
    server.stop();
}

#[test]
fn every_port_reaches_every_queue() {
    let dir = tempfile::tempdir().unwrap();
    // More shards than cores, and a connection lands on any of them.
    let server = Launch::standalone(dir.path())
        .set("shards", 5)
        .arg("--cores")
        .arg("1")
        .start();
    assert!(server.ready.contains("shards=5"), "{}", server.ready);
    let vip = SocketAddr::new(server.launch.broker.ip(), server.launch.broker.port() - 2);
    Client::connect(server.launch.broker).create_topic("all", 10);
    for (at, addr) in [server.launch.broker, vip]
        .repeat(5)
        .into_iter()
        .enumerate()
    {
        let mut client = Client::connect(addr);
        for queue in 0..10 {
            assert_eq!(client.sent("all", queue, &[at as u8]), at as i64);
        }
        let messages = client.messages("all", at as i32, 0);
        assert_eq!(messages.len(), at + 1);
        assert_eq!(messages[at].body, [at as u8]);
    }
    server.stop();
}

#[test]
fn first_uses_make_what_they_need_at_any_shard() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 3).start();
    let broker = server.launch.broker;
    Client::connect(broker).create_topic("uses", 6);
    for at in 0..6 {
        let mut client = Client::connect(broker);
        let id = client.send("uses", at, b"x").field("msgId").to_owned();
        let physical = i64::from_str_radix(&id[16..], 16).expect("an id");
        let physical = physical.to_string();
        let (group, retry) = (format!("back-{at}"), format!("%RETRY%back-{at}"));
        let fields = [
            ("group", &*group),
            ("offset", &physical),
            ("delayLevel", "1"),
            ("maxReconsumeTimes", "16"),
        ];
        let answer = client.call(ask::CONSUMER_SEND_MSG_BACK, &fields, b"");
        assert_eq!(answer.code, 0, "{answer:?}");
        let answer = client.call(ask::GET_TOPIC_CONFIG, &[("topic", &retry)], b"");
        assert_eq!(answer.code, 0, "it is there before the answer: {answer:?}");
        let group = format!("again-{at}");
        assert_eq!(client.sent(&format!("%RETRY%{group}"), 0, b"x"), 0);
        let fields = [
            ("consumerGroup", &*group),
            ("topic", "uses"),
            ("queueId", "0"),
            ("commitOffset", "1"),
        ];
        let answer = client.call(ask::UPDATE_CONSUMER_OFFSET, &fields, b"");
        assert_eq!(answer.code, 0, "the group was made: {answer:?}");
        for code in [ask::GET_MAX_OFFSET, ask::GET_MIN_OFFSET] {
            assert_eq!(client.queue_offset(code, "%RETRY%nobody", at), 0);
            assert_eq!(client.queue_offset(code, "uses", 99), 0);
        }
    }
    server.stop();
}

#[test]
fn a_wait_is_kept_where_it_says_something() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).start();
    let mut client = Client::connect(server.launch.broker);
    for (offset, wait) in ["true", "false"].into_iter().enumerate() {
        let properties = format!("WAIT\u{1}{wait}\u{2}");
        let answer = client.try_send_with("waits", 0, b"x", &properties, false);
        assert_eq!(answer.unwrap().code, 0);
        let pulled = client.try_pull("waits", 0, offset as u64, 1).unwrap();
        let record = RecordView::parse(&pulled.body).expect("a record");
        let kept = properties::find_str(record.properties(), "WAIT");
        assert_eq!(kept, (wait == "false").then_some("false"));
    }
    server.stop();
}

#[test]
fn consume_stats_tell_all_queues_and_how_far_pulls_are() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 3).start();
    let mut client = Client::connect(server.launch.broker);
    let fields = [("consumerGroup", "e2e-consumers")];
    for topic in ["stats", "other"] {
        client.create_topic(topic, 6);
        (0..6).for_each(|queue| assert_eq!(client.sent(topic, queue, b"x"), 0));
        (0..2).for_each(|queue| assert_eq!(client.messages(topic, queue, 0).len(), 1));
    }
    let stats = |client: &mut Client| {
        let answer = client.call(ask::GET_CONSUME_STATS, &fields, b"");
        let stats: ConsumeStats = json::from_slice(&answer.body).expect("a table");
        let rows = stats.offset_table.into_iter().map(|(queue, at)| {
            let (committed, pulled) = (at.consumer_offset, at.pull_offset);
            (queue.topic, queue.queue_id, committed, pulled)
        });
        rows.collect::<Vec<_>>()
    };
    assert_eq!(stats(&mut client), [], "nothing is committed");
    assert_eq!(client.try_commit("stats", 0, 1).unwrap().code, 0);
    let row = |queue, committed, pulled| ("stats".to_owned(), queue, committed, pulled);
    let mut expected = vec![row(0, 1, 1), row(1, 0, 1)];
    expected.extend((2..6).map(|queue| row(queue, 0, 0)));
    assert_eq!(stats(&mut client), expected);
    server.stop();
}

#[test]
fn a_kept_number_of_shards_and_segment_size() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(dir.path()).set("shards", 3);
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    for at in 0..40 {
        assert_eq!(client.sent("kept", 0, &vec![7; 300_000]), at);
    }
    server.stop();
    let other = launch
        .set("shards", 1)
        .set("mappedFileSizeCommitLog", 12 << 20);
    let server = other.start();
    server.log.wait_for(&["shards=1 is not used"]);
    server
        .log
        .wait_for(&["mappedFileSizeCommitLog=12582912 is not used"]);
    let mut client = Client::connect(other.broker);
    let mut next = 0;
    while next < 40 {
        let messages = client.messages("kept", 0, next);
        assert!(!messages.is_empty(), "a hole at {next}");
        next += messages.len() as u64;
    }
    assert_eq!(client.sent("kept", 0, b"x"), 40);
    server.stop();
    // A size that is no multiple of the filling step.
    let dir = tempfile::tempdir().unwrap();
    let odd = Launch::standalone(dir.path()).set("mappedFileSizeCommitLog", 12 << 20);
    odd.start().stop();
}

#[test]
fn a_route_names_the_address_the_client_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut launch = Launch::standalone(dir.path())
        .set("brokerIP1", "10.9.8.7")
        .arg("--insecure");
    let port = launch.broker.port();
    launch.broker.set_ip([0, 0, 0, 0].into());
    launch.namesrv.set_ip([0, 0, 0, 0].into());
    let server = launch.start();
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let broker = SocketAddr::new(ip.parse().unwrap(), port);
        Client::connect(broker).create_topic("routed", 1);
        let namesrv = SocketAddr::new(ip.parse().unwrap(), launch.namesrv.port());
        let route =
            Client::connect(namesrv).call(ask::GET_ROUTEINFO_BY_TOPIC, &[("topic", "routed")], b"");
        let body = String::from_utf8(route.body).unwrap();
        assert_eq!(route.code, 0, "{}", route.remark);
        assert!(body.contains(&format!("{ip}:{port}")), "{body}");
        assert!(!body.contains("10.9.8.7"), "{body}");
    }
    server.stop();
}

/// The route of a topic once the name server has one.
fn route(namesrv: SocketAddr, topic: &str) -> String {
    let until = Instant::now() + PATIENCE;
    let mut client = Client::connect(namesrv);
    loop {
        let answer = client.call(ask::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)], b"");
        if answer.code == 0 {
            return String::from_utf8(answer.body).unwrap();
        }
        assert_eq!(answer.code, 17, "{answer:?}");
        assert!(Instant::now() < until, "no route for {topic}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn name_server_and_broker_run_apart() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let namesrv = Launch::namesrv(first.path()).start();
    let launch = Launch::broker(second.path(), namesrv.launch.namesrv).set("brokerName", "apart");
    let broker = launch.start();
    assert!(broker.ready.contains("namesrv=-"), "{}", broker.ready);
    Client::connect(launch.broker).create_topic("apart-topic", 2);
    let found = route(namesrv.launch.namesrv, "apart-topic");
    assert!(found.contains(&launch.broker.to_string()), "{found}");
    // A name server that comes back empty learns again.
    let again = namesrv.launch.clone();
    namesrv.kill();
    let namesrv = again.start();
    route(again.namesrv, "apart-topic");
    assert_eq!(
        Client::connect(launch.broker).sent("apart-topic", 1, b"x"),
        0
    );
    broker.stop();
    // A broker that stops says goodbye.
    let mut client = Client::connect(again.namesrv);
    let gone = client.call(
        ask::GET_ROUTEINFO_BY_TOPIC,
        &[("topic", "apart-topic")],
        b"",
    );
    assert_eq!(gone.code, 17, "{gone:?}");
    namesrv.stop();
}

#[test]
fn the_log_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path())
        .arg("--log-format")
        .arg("json")
        .start();
    server.log.wait_for(&["log recovered"]);
    let log = server.log.clone();
    server.stop();
    log.wait_for(&["stopped"]);
    for line in log.text().lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(parsed["fields"]["message"].is_string(), "{line}");
        assert!(parsed["level"].is_string(), "{line}");
    }
}

#[test]
fn half_a_frame_is_cut_and_a_slow_reader_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 1).start();
    let mut good = Client::connect(server.launch.broker);
    good.create_topic("slow", 1);
    for _ in 0..16 {
        good.sent("slow", 0, &vec![b'x'; 200_000]);
    }
    let mut half = Client::connect(server.launch.broker);
    let begun = Instant::now();
    half.stream.write_all(&[0, 0, 1, 0, 0, 0, 0]).unwrap();
    let before = server.resident_bytes();
    slow_reader(&server);
    // Nobody waits for the slow one.
    let asked = Instant::now();
    assert!(!good.messages("slow", 0, 0).is_empty());
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 160 << 20, "a slow reader costs {grown} bytes");
    assert!(half.is_closed());
    let cut = begun.elapsed();
    assert!(
        cut >= Duration::from_secs(29) && cut < Duration::from_secs(40),
        "{cut:?}"
    );
    server.stop();
}

/// Asks for far more than the limits and reads nothing.
fn slow_reader(server: &Server) {
    let mut slow = Client::connect(server.launch.broker);
    slow.stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let pull = slow.frame(
        ask::PULL_MESSAGE,
        &[
            ("consumerGroup", "slow"),
            ("topic", "slow"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ],
        b"",
    );
    // Some 100,000 answers of 200 kB or more.
    let many = pull.repeat(1000);
    for _ in 0..100 {
        // Not read any more, or closed: both are fine.
        if slow.stream.write_all(&many).is_err() {
            return;
        }
    }
}

#[test]
fn ten_thousand_idle_connections_fit() {
    const CONNECTIONS: usize = 10_000;
    let pid = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--nofile=16000:"])
        .output();
    if !raised.is_ok_and(|raised| raised.status.success()) {
        return println!("skipped: this process may not open 10,000 connections");
    }
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::standalone(dir.path()).set("shards", 2);
    let server = launch.set("connectionsMax", CONNECTIONS + 100).start();
    let before = server.resident_bytes();
    let mut idle: Vec<Client> = (0..CONNECTIONS)
        .map(|_| Client::connect(server.launch.broker))
        .collect();
    // Each of them is served.
    for client in idle.iter_mut().step_by(100) {
        assert_eq!(client.call(9999, &[], b"").code, 3);
    }
    Client::connect(server.launch.broker).sent("idle", 0, b"x");
    let after = server.resident_bytes();
    println!("{before} bytes before, {after} with {CONNECTIONS} idle connections");
    assert!(after < MEMORY_BYTES, "{after} bytes resident");
    drop(idle);
    server.stop();
}

#[test]
fn connections_over_the_limit_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    // The broker's own connection to its name server is one of them.
    let launch = Launch::standalone(dir.path())
        .set("shards", 1)
        .set("connectionsMax", 5);
    let server = launch.start();
    let mut kept: Vec<Client> = (0..4).map(|_| Client::connect(launch.broker)).collect();
    for client in &mut kept {
        assert_eq!(client.call(9999, &[], b"").code, 3);
    }
    let mut rest = Vec::new();
    let _ = Client::connect(launch.broker).stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    assert_eq!(kept[0].call(9999, &[], b"").code, 3);
    kept.pop();
    server.stop();
}
