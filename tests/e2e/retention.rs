//! Segments that go on a real disk, and what outlives them.

use std::path::Path;
use std::time::{Duration, Instant};

use orbitmq::message::id::OffsetId;
use orbitmq::remoting::code::request as ask;

use crate::server::{Launch, PATIENCE};
use crate::wire::{Answer, Client};

static BODY: [u8; 100_000] = [b'x'; 100_000];

fn segments(dir: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(dir.join("shard-00/log")).unwrap();
    let names = listed.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn send_with(client: &mut Client, body: &[u8], properties: &str) -> Answer {
    let answer = client.try_send_with("kept", 0, body, properties, false);
    let answer = answer.expect("an answer");
    assert_eq!(answer.code, 0, "{answer:?}");
    answer
}

/// Sends until the queue no longer begins with its first message; gives how many were sent.
fn fill(client: &mut Client, begins: u64) -> u64 {
    let until = Instant::now() + PATIENCE;
    for sent in 1.. {
        client.sent("bulk", 0, &BODY);
        let min = client.queue_offset(ask::GET_MIN_OFFSET, "bulk", 0);
        if min > begins {
            return sent;
        }
        assert!(Instant::now() < until, "{sent} messages, none has gone");
    }
    unreachable!("the loop ends")
}

#[test]
fn a_timer_and_a_half_outlive_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    // Any disk is fuller than this, so segments go as soon as they can.
    let launch = Launch::standalone(dir.path())
        .set("shards", 1)
        .set("mappedFileSizeCommitLog", 4 << 20)
        .set("maxMessageSize", 1 << 20)
        .set("checkpointInterval", 100)
        .set("recallMessageEnable", true)
        .set("diskSpaceCleanForciblyRatio", 10);
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    client.create_topic("kept", 1);
    client.create_topic("bulk", 1);
    let begin = Instant::now();
    let key = |n: u32| format!("UNIQ_KEY\u{1}{n:032X}\u{2}");
    let timer = format!("TIMER_DELAY_MS\u{1}25000\u{2}{}", key(1));
    send_with(&mut client, b"timer", &timer);
    let recalled = format!("TIMER_DELAY_MS\u{1}25000\u{2}{}", key(2));
    let recalled = send_with(&mut client, b"recalled", &recalled);
    let half = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}{}", key(3));
    let half = send_with(&mut client, b"half", &half);
    if !goes(dir.path(), &mut client) {
        println!("skipped: this disk is nearly empty");
        return;
    }
    let begins = client.queue_offset(ask::GET_MIN_OFFSET, "bulk", 0);
    server.kill();
    // Once more, after a crash: what was stored again is stored again.
    let server = launch.start();
    let mut client = Client::connect(launch.broker);
    let min = client.queue_offset(ask::GET_MIN_OFFSET, "bulk", 0);
    assert!(min >= begins, "the queue began at {begins}, now at {min}");
    fill(&mut client, min);
    assert!(!segments(dir.path()).contains(&"0".repeat(20)));
    let id = OffsetId::parse(half.field("msgId")).expect("an id");
    let fields = [
        ("producerGroup", "p"),
        ("tranStateTableOffset", half.field("queueOffset")),
        ("commitLogOffset", &id.physical_offset.to_string()),
        ("commitOrRollback", "8"),
        ("fromTransactionCheck", "true"),
        ("msgId", "m"),
    ];
    let ended = client.call(ask::END_TRANSACTION, &fields, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    let fields = [
        ("producerGroup", "p"),
        ("topic", "kept"),
        ("recallHandle", recalled.field("recallHandle")),
    ];
    let answer = client.call(ask::RECALL_MESSAGE, &fields, b"");
    assert_eq!(answer.code, 0, "{answer:?}");
    let got = client.all_messages("kept", 0, 1);
    assert_eq!(got[0].body, b"half");
    let until = begin + Duration::from_secs(60);
    while client.messages("kept", 0, 1).is_empty() {
        assert!(Instant::now() < until, "the timer never came");
        std::thread::yield_now();
    }
    assert!(begin.elapsed() >= Duration::from_secs(24), "too early");
    assert_eq!(client.messages("kept", 0, 1)[0].body, b"timer");
    let line = server.log.wait_for(&["segments removed"]);
    assert!(line.contains("log offsets"), "{line}");
    server.stop();
    let (code, said) = crate::disk::check_store(dir.path());
    assert_eq!(code, Some(0), "{said}");
    missing_in_the_middle(dir.path(), &launch);
}

/// Whether the first segment goes when more follow; it stays on a disk that is nearly empty.
fn goes(dir: &Path, client: &mut Client) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        client.sent("bulk", 0, &BODY);
        if segments(dir).len() > 12 {
            return false;
        }
        if !segments(dir).contains(&"0".repeat(20)) {
            return true;
        }
    }
    panic!("neither more segments nor fewer")
}

/// A segment that is gone although nobody removed it for its age is damage.
fn missing_in_the_middle(dir: &Path, launch: &Launch) {
    let first = segments(dir).remove(0);
    std::fs::remove_file(dir.join("shard-00/log").join(&first)).unwrap();
    let said = launch.refused();
    assert!(said.contains(&first) && said.contains("damaged"), "{said}");
    let (code, said) = crate::disk::check_store(dir);
    assert_ne!(code, Some(0), "{said}");
}
