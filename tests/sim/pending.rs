//! What codes 60 and 61 say of messages for a time, against a ledger of what was sent: over shards,
//! restarts, recalls and topics that go.

use std::collections::BTreeMap;

use orbitmq::remoting::body::stats::TimerMetrics;
use proptest::prelude::*;

use crate::set::{Set, decoded};

const SEND: i32 = 310;
const CHECKPOINT: i32 = 60;
const METRICS: i32 = 61;
const RECALL: i32 = 370;

fn create(set: &mut Set, topic: &str) {
    let fields = format!(
        "topic={topic}&defaultTopic=TBW102&readQueueNums=4&writeQueueNums=4&perm=6\
         &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false"
    );
    set.succeed(0, 17, &fields, b"");
}

/// Sends a message for a time; gives its handle.
fn send(set: &mut Set, topic: &str, queue: u32, wait_ms: u64) -> String {
    let fields = format!(
        "a=p&b={topic}&c=TBW102&d=4&e={}&f=0&g=1&h=0&j=0&k=false&m=false\
         &i=TIMER_DELAY_MS\u{1}{wait_ms}\u{2}UNIQ_KEY\u{1}{:032X}\u{2}",
        queue % 4,
        u64::from(queue) << 32 | wait_ms,
    );
    let frame = set.succeed(0, SEND, &fields, b"x");
    let handle = decoded(&frame).ext.find("recallHandle");
    handle.expect("it can be recalled").to_string()
}

fn metrics(set: &mut Set) -> TimerMetrics {
    let frame = set.succeed(0, METRICS, "", b"");
    serde_json::from_slice(decoded(&frame).body).expect("a body")
}

fn waits(set: &mut Set) -> BTreeMap<String, i64> {
    let counts = metrics(set).timing_count.into_iter();
    let counts = counts.map(|(topic, timing)| (topic, timing.count));
    counts.filter(|(_, count)| *count != 0).collect()
}

/// The seven numbers of a checkpoint.
fn checkpoint(set: &mut Set) -> Vec<i64> {
    let frame = set.succeed(0, CHECKPOINT, "", b"");
    let numbers = decoded(&frame).body.chunks(8);
    let numbers = numbers.map(|bytes| i64::from_be_bytes(bytes.try_into().expect("eight bytes")));
    numbers.collect()
}

#[test]
fn topics_that_are_not_there_are_not_listed() {
    let mut set = Set::new(2, 1, false);
    create(&mut set, "T");
    assert_eq!(metrics(&mut set), TimerMetrics::default());
    send(&mut set, "T", 0, 1_000);
    send(&mut set, "T", 1, 50_000);
    set.pass_ms(2_000);
    let found = metrics(&mut set);
    assert_eq!(found.timing_count["T"].count, 1);
    assert_eq!(found.data_version.counter, 3, "two came, one went");
    assert_eq!(
        found.data_version.timestamp,
        found.timing_count["T"].time_stamp
    );
    set.pass_ms(100_000);
    assert_eq!(metrics(&mut set).timing_count["T"].count, 0, "still listed");
    send(&mut set, "T", 0, 1_000);
    set.succeed(0, 215, "topic=T", b"");
    assert!(metrics(&mut set).timing_count.is_empty());
    create(&mut set, "T");
    assert_eq!(
        metrics(&mut set).timing_count["T"].count,
        1,
        "it will be delivered there"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Send(u8, u32, u32),
    Recall,
    Pass(u32),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let wait_ms = prop_oneof![1..300u32, 1..9_000_000u32];
    prop_oneof![
        8 => (0..3u8, any::<u32>(), wait_ms).prop_map(|(topic, queue, ms)| {
            Op::Send(topic, queue, ms)
        }),
        1 => Just(Op::Recall),
        3 => prop_oneof![1..400u32, 1..4_000_000u32].prop_map(Op::Pass),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]
    #[test]
    fn counts_are_those_of_the_ledger(
        shards in 1..4u16,
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut set = Set::new(shards, seed, seed.is_multiple_of(2));
        let topics = ["A", "B", "C"];
        topics.iter().for_each(|topic| create(&mut set, topic));
        let mut ledger: Vec<(&str, i64)> = Vec::new();
        let mut last: Option<(&str, String)> = None;
        let mut recalled = 0;
        for op in ops {
            match op {
                Op::Send(topic, queue, wait_ms) => {
                    let topic = topics[usize::from(topic)];
                    let handle = send(&mut set, topic, queue, wait_ms.into());
                    ledger.push((topic, set.now().wall_ms + i64::from(wait_ms)));
                    last = Some((topic, handle));
                }
                Op::Recall => {
                    if let Some((topic, handle)) = &last {
                        let fields = format!("producerGroup=p&topic={topic}&recallHandle={handle}");
                        // Too late is a refusal.
                        recalled += i32::from(decoded(&set.ask(0, RECALL, &fields, b"")).code == 0);
                    }
                }
                Op::Pass(ms) => set.pass_ms(ms.into()),
                Op::Restart => set.restart(),
            }
            let now_ms = set.now().wall_ms;
            let mut expected: BTreeMap<String, i64> = BTreeMap::new();
            for (topic, _) in ledger.iter().filter(|(_, due_ms)| *due_ms > now_ms) {
                *expected.entry((*topic).to_owned()).or_default() += 1;
            }
            prop_assert_eq!(waits(&mut set), expected, "{} recalled", recalled);
            let numbers = checkpoint(&mut set);
            let stored = ledger.len() as i64;
            prop_assert_eq!(&numbers[1..5], &[0, stored, stored, 0]);
            prop_assert!(numbers[0] <= now_ms && numbers[5] <= now_ms, "{:?}", numbers);
            let times = ledger.iter().map(|(_, due_ms)| *due_ms);
            let next_ms = times.filter(|due_ms| *due_ms > now_ms).min();
            prop_assert!(numbers[0] <= next_ms.unwrap_or(i64::MAX), "{:?}", numbers);
            prop_assert_eq!(numbers.len(), 7);
        }
    }
}
