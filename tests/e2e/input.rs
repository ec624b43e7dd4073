//! Bytes and requests that no good client sends: one connection suffers, the others do not.

use std::io::{Read, Write};
use std::time::Instant;

use orbitmq::message::batch::{self, SubMessage};
use orbitmq::remoting::code::request as ask;

use crate::server::{Launch, Server};
use crate::wire::{Answer, Client};

fn start() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 1).start();
    (dir, server)
}

/// Sends `bytes` and gives what comes back until the connection ends.
fn answer_to(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(server.launch.broker);
    client.stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = client.stream.read_to_end(&mut answer);
    answer
}

fn framed(codec: u8, header_len: u32, header: &[u8]) -> Vec<u8> {
    let mut out = (4 + header.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&(u32::from(codec) << 24 | header_len).to_be_bytes());
    out.extend_from_slice(header);
    out
}

#[test]
fn broken_frames_end_their_connection_only() {
    let (_dir, server) = start();
    let mut good = Client::connect(server.launch.broker);
    good.create_topic("input", 1);
    let json = br#"{"code":10,"opaque":1,"#;
    let broken = [
        3u32.to_be_bytes().to_vec(),
        (16u32 << 20).to_be_bytes().to_vec(),
        vec![0x00, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
        framed(0, 100, b"{}"),
        framed(7, 2, b"{}"),
        framed(0, json.len() as u32, json),
        framed(1, 3, b"abc"),
    ];
    let begun = Instant::now();
    for bytes in &broken {
        if bytes[..4] == [0x00, 0xFF, 0xFF, 0xFF] {
            continue;
        }
        assert_eq!(answer_to(&server, bytes), b"", "{bytes:?}");
        good.sent("input", 0, b"unharmed");
    }
    let negative = answer_to(&server, &(-1i32).to_be_bytes());
    assert_eq!(negative, b"");
    // One line a second for all of them, and it counts them.
    server
        .log
        .wait_for(&["connections were refused or ended", "count"]);
    let lines = server.log.count("connections were refused or ended");
    assert!(
        lines as u64 <= begun.elapsed().as_secs() + 2,
        "{lines} lines"
    );
    let log = server.log.clone();
    server.stop();
    let stopped = log.wait_for(&["stopped", "broken"]);
    assert!(stopped.contains("broken: 6"), "{stopped}");
    assert!(stopped.contains("foreign: 1"), "{stopped}");
}

#[test]
fn other_protocols_are_answered_in_their_own() {
    let (_dir, server) = start();
    for port in [server.launch.broker, server.launch.namesrv] {
        let mut client = Client::connect(port);
        client
            .stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        client.stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
        assert!(answer.contains("RocketMQ remoting protocol"), "{answer}");
    }
    let tls = answer_to(&server, &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
    assert_eq!(tls, [21, 3, 3, 0, 2, 2, 40]);
    let grpc = answer_to(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let said = String::from_utf8_lossy(&grpc);
    assert!(said.contains("RocketMQ remoting protocol"), "{said}");
    assert_eq!(answer_to(&server, b"SSH-2.0-x\r\n"), b"");
    server.stop();
}

fn check(answer: &Answer, code: i32, words: &[&str]) {
    assert_eq!(answer.code, code, "{answer:?}");
    for word in words {
        assert!(answer.remark.contains(word), "no {word:?} in {answer:?}");
    }
}

#[test]
fn what_is_not_served_is_named() {
    let (_dir, server) = start();
    let mut client = Client::connect(server.launch.broker);
    check(&client.call(9999, &[], b""), 3, &["9999", "not supported"]);
    let cold = client.call(ask::GET_COLD_DATA_FLOW_CTR_INFO, &[], b"");
    check(&cold, 3, &["GET_COLD_DATA_FLOW_CTR_INFO", "not supported"]);
    // The connection stays.
    assert_eq!(client.sent("input", 0, b"still here"), 0);
    let mut namesrv = Client::connect(server.launch.namesrv);
    check(&namesrv.call(9999, &[], b""), 3, &["9999", "not supported"]);
    check(
        &namesrv.call(ask::SEND_MESSAGE, &[], b""),
        3,
        &["10", "not supported"],
    );
    assert_eq!(namesrv.call(ask::GET_BROKER_CLUSTER_INFO, &[], b"").code, 0);
    server.stop();
}

#[test]
fn illegal_requests_are_refused_with_value_and_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path())
        .set("shards", 2)
        .set("maxMessageSize", 65_536)
        .start();
    let mut client = Client::connect(server.launch.broker);
    client.create_topic("input", 4);
    check(
        &client.send("bad topic!", 0, b"x"),
        29,
        &["bad topic!", "illegal"],
    );
    let long = "t".repeat(128);
    check(&client.send(&long, 0, b"x"), 29, &[&long, "127"]);
    check(&client.send("", 0, b"x"), 29, &["blank"]);
    check(&client.send("input", 4, b"x"), 29, &["[4]", "input", "4"]);
    check(&client.send("input", 1 << 30, b"x"), 29, &["1073741824"]);
    check(&client.send("input", 0, b""), 1, &["no body"]);
    let large = vec![b'x'; 65_537];
    check(&client.send("input", 0, &large), 13, &["65537", "65536"]);
    let fat = format!("a\u{1}{}\u{2}", "p".repeat(33_000));
    let answer = client.try_send_with("input", 0, b"x", &fat, false).unwrap();
    check(&answer, 13, &["32767"]);
    let answer = client.call(
        ask::PULL_MESSAGE,
        &[
            ("consumerGroup", "bad group!"),
            ("topic", "input"),
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
    assert_ne!(answer.code, 0, "{answer:?}");
    check(&answer, answer.code, &["bad group!"]);
    check(
        &client.try_pull("input", 4, 0, 32).unwrap(),
        29,
        &["4", "input"],
    );
    check(
        &client.call(ask::PULL_MESSAGE, &[], b""),
        1,
        &["consumerGroup"],
    );
    // Whatever was refused, the connection works.
    assert_eq!(client.sent("input", 3, b"fine"), 0);
    server.stop();
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path())
        .set("shards", 1)
        .set("mappedFileSizeCommitLog", 5 << 20)
        .start();
    let mut client = Client::connect(server.launch.broker);
    client.create_topic("input", 1);
    let mut body = Vec::new();
    for _ in 0..90_000 {
        let (body_of_one, properties) = (b"x", b"");
        let message = SubMessage {
            flag: 0,
            body: body_of_one,
            properties,
        };
        batch::append(&mut body, message);
    }
    let answer = client.try_send_with("input", 0, &body, "", true).unwrap();
    check(&answer, 13, &["the limit is 5242816"]);
    assert_eq!(client.sent("input", 0, b"fine"), 0);
    server.stop();
}

#[test]
fn who_wants_no_answer_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::standalone(dir.path()).set("shards", 2).start();
    let mut client = Client::connect(server.launch.broker);
    client.create_topic("quiet", 4);
    let queue: &[(&str, &str)] = &[("topic", "quiet"), ("queueId", "1")];
    for (code, fields) in [
        (ask::GET_TOPIC_STATS_INFO, &queue[..1]),
        (ask::GET_MAX_OFFSET, queue),
        (ask::GET_BROKER_RUNTIME_INFO, &[]),
        (ask::GET_ALL_TOPIC_CONFIG, &[]),
        (ask::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]),
        (ask::GET_ALL_CONSUMER_OFFSET, &[]),
        (ask::CLEAN_UNUSED_TOPIC, &[]),
        (12_345, &[]),
    ] {
        client.tell(code, fields, b"");
        let frame = client.frame(ask::GET_TOPIC_STATS_INFO, &queue[..1], b"");
        client.stream.write_all(&frame).unwrap();
        let answer = client.read().unwrap().unwrap();
        assert_eq!(answer.opaque, client.opaque, "request {code}: {answer:?}");
    }
}
