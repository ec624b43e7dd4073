//! `orbitmq admin read` and `consume`: pages of a whole topic, going on with what comes, and what a
//! group has not consumed yet.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::admin::Desk;
use crate::server::{Log, PATIENCE, binary, signal};
use crate::why::join;
use crate::wire::Client;

const GROUP: &str = "e2e-consumers";

fn bodies(rows: &[Value]) -> Vec<&str> {
    let texts = rows.iter().map(|row| row["body"].as_str());
    texts.map(|text| text.expect("a text")).collect()
}

/// A command that goes on.
struct Tail {
    child: Child,
    out: Log,
    err: Log,
}

impl Tail {
    fn start(desk: &Desk, words: &[&str]) -> Tail {
        let (mut tail, out) = Tail::silent(desk, words);
        tail.out.watch(out);
        let err = tail.child.stderr.take().expect("piped");
        tail.err.watch(err);
        tail
    }

    /// Nobody reads its output yet.
    fn silent(desk: &Desk, words: &[&str]) -> (Tail, std::process::ChildStdout) {
        let mut child = Command::new(binary())
            .args(["admin", "--timeout-ms", "30000", "--namesrv", &desk.namesrv])
            .args(words)
            .arg("--follow")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let out = child.stdout.take().expect("piped");
        let tail = Tail {
            child,
            out: Log::default(),
            err: Log::default(),
        };
        (tail, out)
    }

    fn ended(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return (status.code(), self.out.text());
            }
            assert!(
                Instant::now() < until,
                "it does not end: {}",
                self.err.text()
            );
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
    }

    /// Ctrl-C.
    fn interrupted(self) -> String {
        signal(self.child.id(), "INT");
        let err = self.err.clone();
        let (code, out) = self.ended();
        assert_eq!(code, Some(0), "{}", err.text());
        out
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_topic_is_read_in_the_order_it_was_stored() {
    let desk = Desk::open();
    desk.rows(&["create-topic", "all", "--queues", "4"]);
    let mut client = Client::connect(desk.server.launch.broker);
    let mut expected = BTreeSet::new();
    for n in 0..50 {
        let body = format!("m{n}");
        client.sent("all", n * 7 % 4, body.as_bytes());
        expected.insert(body);
    }
    assert_eq!(desk.rows(&["read", "all"]).len(), 8);
    let all = desk.rows(&["read", "all", "--count", "100"]);
    assert!(all.is_sorted_by_key(|row| row["stored"].as_str().expect("a time").to_owned()));
    let found: BTreeSet<String> = bodies(&all).into_iter().map(str::to_owned).collect();
    assert_eq!((all.len(), found), (50, expected));
    let from = desk.rows(&[
        "read", "all", "--queue", "0", "--count", "1", "--from", "offset:2",
    ]);
    assert_eq!(
        (&from[0]["queue"], &from[0]["offset"]),
        (&0.into(), &2.into())
    );
    let same = desk.rows(&[
        "read", "all", "--queue", "0", "--count", "1", "--offset", "2",
    ]);
    assert_eq!(from, same);
    // By time: from that of the last message on.
    let stored = client
        .try_pull("all", 49 * 7 % 4, 12, 1)
        .expect("an answer");
    let record = orbitmq::message::view::RecordView::iter(&stored.body).next();
    let record = record.expect("a record").expect("whole");
    let time = record.store_timestamp().to_string();
    let late = desk.rows(&["read", "all", "--from", &time, "--count", "50"]);
    assert!(bodies(&late).contains(&"m49"), "{late:?}");
    assert!(
        late.iter()
            .all(|row| row["stored"].as_str() >= all[49]["stored"].as_str())
    );
    desk.fails(&["read", "all", "--from", "newest"], 4);
    for (words, code, said) in [
        (&["--from", "yesterday"][..], 1, "must be oldest"),
        (&["--from", "offset:1"], 1, "add --queue"),
        (&["--queue", "9"], 4, "no queue 9"),
        (&["--broker", "none"], 4, "on the broker none"),
        (&["--count", "0"], 2, "--count"),
        (&["--offset", "1", "--from", "oldest"], 2, "--from"),
    ] {
        let said_now = desk.fails(&[&["read", "all"], words].concat(), code);
        assert!(said_now.contains(said), "{words:?}: {said_now}");
    }
    desk.server.stop();
}

#[test]
fn what_comes_is_printed_until_it_is_interrupted() {
    let desk = Desk::open();
    desk.rows(&["create-topic", "tail", "--queues", "3"]);
    let mut client = Client::connect(desk.server.launch.broker);
    client.sent("tail", 0, b"first");
    let tail = Tail::start(&desk, &["read", "tail", "--from", "oldest"]);
    let json = Tail::start(&desk, &["read", "tail", "--from", "oldest", "--json"]);
    let two = Tail::start(&desk, &["read", "tail", "--from", "oldest", "--count", "2"]);
    for log in [&tail.out, &json.out, &two.out] {
        log.wait_for(&["first"]);
    }
    for (queue, body) in [(1, "second"), (2, "third"), (1, "fourth")] {
        client.sent("tail", queue, body.as_bytes());
        for log in [&tail.out, &json.out] {
            log.wait_for(&[body]);
        }
    }
    let out = tail.interrupted();
    assert_eq!(out.lines().count(), 5, "a head and four messages: {out}");
    assert!(out.starts_with("topic"), "{out}");
    let out = json.interrupted();
    let rows: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(bodies(&rows), ["first", "second", "third", "fourth"]);
    let (code, out) = two.ended();
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out}");

    // While nothing comes: the signal ends it too.
    let idle = Tail::start(&desk, &["read", "tail", "--queue", "0", "--from", "oldest"]);
    idle.out.wait_for(&["first"]);
    idle.interrupted();

    // Nobody reads on.
    let (gone, mut out) = Tail::silent(&desk, &["read", "tail", "--from", "oldest"]);
    let mut byte = [0];
    std::io::Read::read_exact(&mut out, &mut byte).expect("a first byte");
    drop(out);
    client.sent("tail", 0, b"for nobody");
    assert_eq!(gone.ended().0, Some(0));
    desk.server.stop();
}

#[test]
fn a_group_takes_what_it_has_not_consumed() {
    let desk = Desk::open();
    desk.rows(&["create-topic", "work", "--queues", "2"]);
    let mut client = Client::connect(desk.server.launch.broker);
    for n in 0..6 {
        client.sent("work", n % 2, format!("m{n}").as_bytes());
    }
    // A new group begins as a consumer would: with the first message of a young queue.
    let words = ["consume", GROUP, "work", "--count", "4"];
    assert_eq!(desk.rows(&words).len(), 4);
    assert_eq!(desk.rows(&words).len(), 2);
    let said = desk.fails(&words, 4);
    assert!(said.contains("has consumed everything of work"), "{said}");
    assert_eq!(client.committed("work", 0), Some(3));
    assert_eq!(client.committed("work", 1), Some(3));
    // What an operator resets is obeyed at once.
    desk.rows(&["reset", GROUP, "work", "--to", "offset:1", "--queue", "0"]);
    let again = desk.rows(&words);
    assert_eq!(bodies(&again), ["m2", "m4"]);
    desk.fails(&words, 4);
    client.sent("work", 1, b"m6");
    let only = desk.fails(&["consume", GROUP, "work", "--queue", "0"], 4);
    assert!(only.contains("everything"), "{only}");
    let rows = desk.rows(&["consume", GROUP, "work", "--queue", "1"]);
    assert_eq!(bodies(&rows), ["m6"]);

    // Where the group begins is kept, also if there is nothing.
    let late = ["consume", "late", "work", "--from", "newest"];
    desk.fails(&late, 4);
    client.sent("work", 0, b"m7");
    assert_eq!(bodies(&desk.rows(&["consume", "late", "work"])), ["m7"]);
    // And --from is for groups without a place.
    desk.fails(&["consume", "late", "work", "--from", "oldest"], 4);
    let bad = desk.fails(&["consume", "late", "work", "--from", "offset:1"], 1);
    assert!(bad.contains("add --queue"), "{bad}");
    desk.server.stop();
}

#[test]
fn nothing_is_consumed_beside_members_unless_it_is_said() {
    let desk = Desk::open();
    desk.create(&["work"]);
    let mut client = Client::connect(desk.server.launch.broker);
    client.sent("work", 0, b"one");
    let mut member = Client::connect(desk.server.launch.broker);
    join(&mut member, GROUP, "CLUSTERING", &[("work", "*")]);
    let said = desk.fails(&["consume", GROUP, "work"], 1);
    let named = format!("members of the group {GROUP} are connected: {GROUP}-1");
    assert!(said.contains(&named), "{said}");
    assert!(said.contains("--beside-members"), "{said}");
    assert_eq!(client.committed("work", 0), None);
    let words = [
        "admin",
        "--namesrv",
        &desk.namesrv,
        "consume",
        GROUP,
        "work",
    ];
    let output = Command::new(binary())
        .args(words)
        .arg("--beside-members")
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0));
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(err.contains(&named), "{err}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("one"));
    assert_eq!(client.committed("work", 0), Some(1));
    desk.server.stop();
}

#[test]
fn what_comes_is_consumed_until_it_is_interrupted() {
    let desk = Desk::open();
    desk.rows(&["create-topic", "work", "--queues", "2"]);
    let mut client = Client::connect(desk.server.launch.broker);
    client.sent("work", 0, b"one");
    let tail = Tail::start(&desk, &["consume", GROUP, "work"]);
    tail.out.wait_for(&["one"]);
    client.sent("work", 1, b"two");
    tail.out.wait_for(&["two"]);
    client.sent("work", 1, b"three");
    tail.out.wait_for(&["three"]);
    let out = tail.interrupted();
    assert_eq!(out.lines().count(), 4, "{out}");
    let places = [0, 1].map(|queue| client.committed("work", queue));
    assert_eq!(
        places,
        [Some(1), Some(2)],
        "printed, then committed, then ended"
    );
    desk.fails(&["consume", GROUP, "work"], 4);
    desk.server.stop();
}
