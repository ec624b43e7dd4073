//! `orbitmq admin` against a running broker: tables, JSON, exit codes.

use std::process::Command;

use serde_json::Value;

use crate::server::{Launch, Server, binary, free_port};
use crate::wire::Client;

/// Runs one command; gives its exit code, output and errors.
pub fn admin(namesrv: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(["admin", "--timeout-ms", "30000", "--namesrv", namesrv])
        .args(words)
        .output()
        .expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

pub struct Desk {
    pub server: Server,
    pub namesrv: String,
    _dir: tempfile::TempDir,
}

impl Desk {
    pub fn open() -> Desk {
        Desk::with(|launch| launch)
    }

    /// On a server that is started differently.
    pub fn with(how: impl FnOnce(Launch) -> Launch) -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let server = how(Launch::standalone(dir.path()).set("shards", 2)).start();
        Desk {
            namesrv: server.launch.namesrv.to_string(),
            server,
            _dir: dir,
        }
    }

    /// The rows of a command that succeeds.
    pub fn rows(&self, words: &[&str]) -> Vec<Value> {
        let all = [words, &["--json"]].concat();
        let (code, out, err) = admin(&self.namesrv, &all);
        assert_eq!(code, Some(0), "{words:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
    }

    /// What a command says that ends with this code.
    pub fn fails(&self, words: &[&str], expected: i32) -> String {
        let (code, out, err) = admin(&self.namesrv, words);
        assert_eq!(code, Some(expected), "{words:?}: {out}{err}");
        out + &err
    }
}

#[test]
fn a_message_is_sent_found_and_read() {
    let desk = Desk::open();
    let attribute = "message.type=NORMAL";
    let made = desk.rows(&[
        "create-topic",
        "desk",
        "--queues",
        "2",
        "--attribute",
        attribute,
    ]);
    assert_eq!(made[0]["queues"], 2);
    let listed = desk.rows(&["topics", "des"]);
    assert_eq!((listed.len(), &listed[0]["topic"]), (1, &"desk".into()));
    let send = [
        "send", "desk", "hello", "--key", "k1", "--tag", "T", "--queue", "1",
    ];
    let sent = desk.rows(&send);
    assert_eq!(
        (&sent[0]["queue"], &sent[0]["offset"]),
        (&1.into(), &0.into())
    );
    let id = sent[0]["id"].as_str().expect("an id").to_owned();
    for words in [
        &["find", "desk", "k1"][..],
        &["view", &id],
        &["read", "desk", "--queue", "1"],
    ] {
        let found = desk.rows(words);
        assert_eq!(found.len(), 1, "{words:?}");
        assert_eq!(found[0]["body"], "hello", "{words:?}");
        assert_eq!(found[0]["tag"], "T", "{words:?}");
        assert_eq!(found[0]["id"], id.as_str(), "{words:?}");
    }
    let queues = desk.rows(&["topic", "desk"]);
    assert_eq!(queues.len(), 2);
    let (_, table, _) = admin(&desk.namesrv, &["topic", "desk"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    desk.rows(&["delete-topic", "desk"]);
    desk.fails(&["topic", "desk"], 4);
    desk.server.stop();
}

#[test]
fn a_group_is_looked_at_and_moved() {
    let desk = Desk::open();
    desk.rows(&["create-topic", "moved", "--queues", "1"]);
    for body in ["one", "two", "three"] {
        desk.rows(&["send", "moved", body]);
    }
    let mut client = Client::connect(desk.server.launch.broker);
    let group = "e2e-consumers";
    assert_eq!(client.messages("moved", 0, 0).len(), 3);
    assert_eq!(client.try_commit("moved", 0, 2).unwrap().code, 0);
    let at = |row: &Value| (row["group_at"].clone(), row["lag"].clone());
    let progress = desk.rows(&["progress", group, "moved"]);
    assert_eq!(at(&progress[0]), (2.into(), 1.into()));
    desk.rows(&["reset", group, "moved", "--to", "oldest"]);
    let progress = desk.rows(&["progress", group, "moved"]);
    assert_eq!(at(&progress[0]), (0.into(), 3.into()));
    desk.rows(&["reset", group, "moved", "--to", "offset:1", "--queue", "0"]);
    let progress = desk.rows(&["progress", group, "moved"]);
    assert_eq!(at(&progress[0]), (1.into(), 2.into()));
    let words = ["reset", group, "moved", "--to", "offset:9", "--queue", "0"];
    assert!(desk.fails(&words, 1).contains('9'));
    assert!(!desk.rows(&["groups", group]).is_empty());
    desk.fails(&["members", group], 4);
    desk.server.stop();
}

#[test]
fn what_is_absent_wrong_or_away_is_said_with_its_code() {
    let desk = Desk::open();
    for words in [
        &["topic", "none"][..],
        &["find", "none", "k"],
        &["read", "none", "--queue", "0"],
        &["send", "none", "x"],
        &["delete-topic", "none"],
    ] {
        assert!(desk.fails(words, 4).contains("none"), "{words:?}");
    }
    let said = desk.fails(&["topic", "none"], 4);
    assert!(said.contains("orbitmq admin create-topic none"), "{said}");
    let said = desk.fails(&["topic", "%DLQ%none"], 4);
    assert!(!said.contains("create-topic"), "{said}");
    assert!(desk.fails(&["view", "xyz"], 1).contains("xyz"));
    let attribute = ["create-topic", "t", "--attribute", "novalue"];
    assert!(desk.fails(&attribute, 1).contains("KEY=VALUE"));
    desk.fails(&["nonsense"], 2);
    let nobody = format!("127.0.0.1:{}", free_port());
    let (code, _, err) = admin(&nobody, &["brokers"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&nobody) && err.contains("--namesrv"), "{err}");
    desk.server.stop();
}

#[test]
fn dead_letters_of_all_queues_are_sent_again() {
    let desk = Desk::open();
    let topic = "%DLQ%lost";
    desk.rows(&["create-topic", topic, "--queues", "3"]);
    for (queue, body) in [("0", "one"), ("2", "two"), ("2", "three")] {
        desk.rows(&["send", topic, body, "--queue", queue]);
    }
    let bodies = |words: &[&str]| -> Vec<String> {
        let rows = desk.rows(words).into_iter();
        rows.map(|row| row["body"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(bodies(&["dead-letters", "lost"]), ["one", "two", "three"]);
    let done = desk.rows(&["redrive", "lost", "--most", "2"]);
    assert_eq!((done.len(), &done[0]["sent_again"]), (1, &2.into()));
    assert_eq!(bodies(&["dead-letters", "lost"]), ["three"]);
    let done = desk.rows(&["redrive", "lost"]);
    assert_eq!(done[0]["sent_again"], 1);
    desk.fails(&["dead-letters", "lost"], 4);
    let sent = bodies(&["read", "%RETRY%lost", "--queue", "0"]);
    assert_eq!(sent, ["one", "two", "three"]);
    desk.server.stop();
}
