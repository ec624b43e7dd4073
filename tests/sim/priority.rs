//! Priority messages: where they go, and in which order pops get them, against a model of queues
//! from the most urgent down, of one and of several shards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use proptest::prelude::*;

use crate::set::{Set, decoded};

const SEND: i32 = 310;
const POP: i32 = 200_050;
const PEEK: i32 = 200_052;
const ACK: i32 = 200_051;
const LEASE_MS: u64 = 1_000;

/// A topic with so many queues, and a group.
fn prepare(set: &mut Set, topic: &str, queues: i32, kind: &str, factor: &str) {
    let fields = format!(
        "topic={topic}&defaultTopic=TBW102&readQueueNums={queues}&writeQueueNums={queues}&perm=6\
         &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false&attributes=+message.type={kind}"
    );
    set.succeed(0, 17, &fields, b"");
    let attributes = match factor {
        "" => String::new(),
        factor => format!(r#""+priority.factor":"{factor}""#),
    };
    let group = format!(r#"{{"groupName":"g","attributes":{{{attributes}}}}}"#);
    set.succeed(0, 200, "", group.as_bytes());
}

/// Sends a message that is its number; gives the queue that the answer names.
fn send(set: &mut Set, topic: &str, queue: i32, id: u32, properties: &str) -> i32 {
    let fields = format!(
        "a=p&b={topic}&c=TBW102&d=4&e={queue}&f=0&g=1&h=0&j=0&k=false&m=false&i={properties}"
    );
    let frame = set.succeed(0, SEND, &fields, id.to_string().as_bytes());
    field(&frame, "queueId").parse().expect("a queue")
}

fn prior(priority: &str) -> String {
    format!("_SYS_MSG_PRIORITY_\u{1}{priority}\u{2}")
}

fn field(frame: &[u8], name: &str) -> String {
    let value = decoded(frame).ext.find(name).map(|text| text.to_string());
    value.unwrap_or_default()
}

fn pop_fields(topic: &str, queue: i32, most: usize, poll_ms: u64) -> String {
    format!(
        "consumerGroup=g&topic={topic}&queueId={queue}&maxMsgNums={most}&invisibleTime={LEASE_MS}\
         &pollTime={poll_ms}&bornTime=0&initMode=0&order=false"
    )
}

/// A message as it came: number, queue, offset, and what it is acknowledged by if it was retried.
#[derive(Clone, Debug)]
struct Got {
    id: u32,
    queue: i32,
    offset: i64,
    handle: Option<String>,
}

fn got(frame: &[u8]) -> Vec<Got> {
    let records = RecordView::iter(decoded(frame).body).map(|record| record.expect("a record"));
    let got = records.map(|record| Got {
        id: std::str::from_utf8(record.body()).unwrap().parse().unwrap(),
        queue: record.queue_id(),
        offset: record.queue_offset(),
        handle: properties::find_str(record.properties(), "POP_CK").map(str::to_owned),
    });
    got.collect()
}

fn queues(frame: &[u8]) -> Vec<i32> {
    got(frame).iter().map(|got| got.queue).collect()
}

/// Pops once, from a shard that differs each time, and acknowledges nothing.
fn pop(set: &mut Set, topic: &str, most: usize) -> Vec<u8> {
    set.succeed(0, POP, &pop_fields(topic, -1, most, 0), b"")
}

#[test]
fn a_priority_is_a_queue() {
    for shards in [1, 3] {
        let mut set = Set::new(shards, 1, false);
        prepare(&mut set, "T", 4, "PRIORITY", "");
        let delay = "DELAY\u{1}";
        for (properties, expected) in [
            (prior("0"), 0),
            (prior("3"), 3),
            (prior("99"), 3),
            (prior("2147483647"), 3),
            // Not a priority at all.
            (prior("2147483648"), 1),
            (prior("-1"), 1),
            (prior("x"), 1),
            (prior(""), 1),
            (String::new(), 1),
            // The last of two counts.
            (prior("3") + &prior("2"), 2),
            // Something else besides: no priority.
            (prior("3") + "__SHARDINGKEY\u{1}k\u{2}", 1),
            (prior("3") + delay + "1\u{2}", 1),
            (prior("3") + delay + "0\u{2}", 1),
            (prior("3") + "TIMER_DELAY_MS\u{1}60000\u{2}", 1),
            (prior("3") + "TRAN_MSG\u{1}true\u{2}", 1),
            (prior("3") + "TRAN_MSG\u{1}false\u{2}", 3),
        ] {
            assert_eq!(
                send(&mut set, "T", 1, 0, &properties),
                expected,
                "{properties:?}"
            );
        }
    }
}

#[test]
fn what_is_no_priority_loses_it_and_any_topic_may_have_some() {
    let mut set = Set::new(1, 1, false);
    prepare(&mut set, "T", 4, "NORMAL", "");
    assert_eq!(send(&mut set, "T", 1, 7, &prior("2")), 2);
    send(
        &mut set,
        "T",
        1,
        8,
        &(prior("2") + "__SHARDINGKEY\u{1}k\u{2}"),
    );
    let frame = pop(&mut set, "T", 32);
    let records = RecordView::iter(decoded(&frame).body).map(|record| record.unwrap());
    let kept = records.map(|record| {
        let kept = properties::find_str(record.properties(), "_SYS_MSG_PRIORITY_");
        (record.queue_id(), kept.map(str::to_owned))
    });
    let kept: BTreeMap<_, _> = kept.collect();
    assert_eq!(kept, BTreeMap::from([(1, None), (2, Some("2".to_owned()))]));
}

#[test]
fn nothing_is_stored_where_no_queue_is_for_writing() {
    let mut set = Set::new(1, 1, false);
    prepare(&mut set, "T", 2, "PRIORITY", "");
    let fields = "topic=T&defaultTopic=TBW102&readQueueNums=2&writeQueueNums=0&perm=6\
                  &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false";
    set.succeed(0, 17, fields, b"");
    let fields = format!(
        "a=p&b=T&c=TBW102&d=4&e=0&f=0&g=1&h=0&j=0&k=false&m=false&i={}",
        prior("1")
    );
    let frame = set.ask(0, SEND, &fields, b"x");
    let command = decoded(&frame);
    let remark = command
        .remark
        .map(|text| text.to_string())
        .unwrap_or_default();
    assert_eq!((command.code, &*remark), (29, "topic T has no queue -1"));
}

/// In how many of a hundred pops the most urgent message came first.
fn urgent_pops(kind: &str, factor: &str, stride: u32) -> usize {
    let mut set = Set::new(1, 1, false);
    prepare(&mut set, "T", 4, kind, factor);
    for id in 0..400 {
        send(&mut set, "T", (id % 4) as i32, id, "");
    }
    let mut urgent = 0;
    for _ in 0..100 {
        urgent += usize::from(queues(&pop(&mut set, "T", 1)) == [3]);
        for _ in 1..stride {
            // Takes a turn, and finds nothing.
            set.ask(0, POP, &pop_fields("T", 0, 0, 0), b"");
        }
    }
    urgent
}

#[test]
fn the_factor_says_in_how_many_pops() {
    // Without priority mode each of the four queues comes first in a quarter of the pops.
    for stride in [1, 2, 10] {
        for (kind, factor, expected) in [
            ("PRIORITY", "100", 100..=100),
            ("PRIORITY", "", 100..=100),
            ("PRIORITY", "60", 62..=78),
            ("PRIORITY", "0", 15..=35),
            ("NORMAL", "100", 15..=35),
        ] {
            let urgent = urgent_pops(kind, factor, stride);
            assert!(
                expected.contains(&urgent),
                "{kind} {factor} {stride}: {urgent}"
            );
        }
    }
}

#[test]
fn outside_of_priority_mode_pops_go_down_and_peeks_go_up_from_any_queue() {
    let mut set = Set::new(1, 1, false);
    prepare(&mut set, "T", 5, "NORMAL", "");
    let mut firsts = BTreeSet::new();
    for round in 0..40 {
        for queue in 0..5 {
            send(&mut set, "T", queue, round, "");
        }
        let peek = "consumerGroup=g&topic=T&queueId=-1&maxMsgNums=32";
        let peeked = queues(&set.succeed(0, PEEK, peek, b""));
        let popped = queues(&pop(&mut set, "T", 32));
        let goes = |queues: &[i32], step: i32| {
            let pairs = queues.windows(2);
            queues.len() == 5
                && pairs
                    .into_iter()
                    .all(|two| (two[0] + step).rem_euclid(5) == two[1])
        };
        assert!(goes(&popped, -1), "{popped:?}");
        assert!(goes(&peeked, 1), "{peeked:?}");
        firsts.insert(popped[0]);
    }
    assert_eq!(firsts.len(), 5, "each queue is first some time");
}

#[test]
fn one_pop_goes_on_to_what_is_less_urgent() {
    let mut set = Set::new(1, 1, false);
    prepare(&mut set, "T", 4, "PRIORITY", "");
    for (id, priority) in ["1", "3", "0", "1", "3"].iter().enumerate() {
        send(&mut set, "T", 0, id as u32, &prior(priority));
    }
    let frame = pop(&mut set, "T", 4);
    assert_eq!(queues(&frame), [3, 3, 1, 1]);
    assert_eq!(field(&frame, "startOffsetInfo"), "0 3 0;0 1 0");
    assert_eq!(field(&frame, "msgOffsetInfo"), "0 3 0,1;0 1 0,1");
    assert_eq!(field(&frame, "restNum"), "1");
}

#[derive(Clone, Debug)]
enum Op {
    Send(u8),
    /// Shard, how many, and which of them are acknowledged: a bit for each.
    Pop(u8, u8, u32),
    /// A pop that waits if there is nothing.
    Wait(u8),
    Lapse,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..9u8).prop_map(Op::Send),
        6 => (0..4u8, 1..7u8, any::<u32>()).prop_map(|(shard, most, acks)| {
            Op::Pop(shard, most, acks)
        }),
        2 => (0..4u8).prop_map(Op::Wait),
        1 => Just(Op::Lapse),
        1 => Just(Op::Restart),
    ]
}

/// What is where, as the broker should have it.
#[derive(Default)]
struct Model {
    queues: BTreeMap<i32, VecDeque<u32>>,
    /// Not acknowledged in time: comes behind everything else.
    retried: BTreeSet<u32>,
    leased: BTreeSet<u32>,
}

impl Model {
    /// The messages of the topic itself, as they are to come.
    fn order(&self) -> Vec<u32> {
        let urgent_first = self.queues.values().rev();
        urgent_first.flatten().copied().collect()
    }

    /// Takes what a pop got; the error says what was wrong with it.
    fn take(&mut self, ids: &[u32]) -> Result<(), String> {
        let order = self.order();
        let own = ids.iter().take_while(|id| order.contains(id)).count();
        if ids[..own] != order[..own] {
            return Err(format!("came {ids:?}, in order {order:?}"));
        }
        if own < ids.len() && own < order.len() {
            return Err(format!("a retry before {order:?}: {ids:?}"));
        }
        for id in &ids[own..] {
            if !self.retried.remove(id) {
                return Err(format!("{id} is not there"));
            }
        }
        for queue in self.queues.values_mut() {
            queue.retain(|id| !ids[..own].contains(id));
        }
        self.leased.extend(ids);
        Ok(())
    }

    fn count(&self) -> usize {
        self.order().len() + self.retried.len()
    }
}

struct Run {
    set: Set,
    model: Model,
    shards: u16,
    ids: u32,
    waits: Option<i32>,
}

impl Run {
    fn new(shards: u16, queues: i32, seed: u64) -> Run {
        let mut set = Set::new(shards, seed, seed.is_multiple_of(2));
        prepare(&mut set, "T", queues, "PRIORITY", "100");
        Run {
            set,
            model: Model::default(),
            shards,
            ids: 0,
            waits: None,
        }
    }

    fn step(&mut self, queues: i32, op: &Op) -> Result<(), String> {
        match *op {
            Op::Send(priority) => {
                self.ids += 1;
                let queue = i32::from(priority).min(queues - 1);
                let prior = prior(&priority.to_string());
                let sent = send(&mut self.set, "T", 0, self.ids, &prior);
                self.model
                    .queues
                    .entry(queue)
                    .or_default()
                    .push_back(self.ids);
                if sent != queue {
                    return Err(format!("{priority} went to {sent}"));
                }
                self.waited()
            }
            Op::Pop(shard, most, acks) => {
                let fields = pop_fields("T", -1, usize::from(most), 0);
                let shard = usize::from(u16::from(shard) % self.shards);
                let frame = self.set.ask(shard, POP, &fields, b"");
                let there = self.model.count();
                let got = got(&frame);
                if (got.is_empty() && there > 0) || got.len() > usize::from(most) {
                    return Err(format!("{} of {there} came", got.len()));
                }
                self.take(&frame, &got, acks)
            }
            Op::Wait(shard) if self.waits.is_none() => {
                let fields = pop_fields("T", -1, 1, 100_000);
                let shard = usize::from(u16::from(shard) % self.shards);
                self.waits = Some(self.set.send(shard, POP, &fields, b""));
                self.waited()
            }
            Op::Wait(_) => Ok(()),
            Op::Lapse => {
                self.set.pass_ms(LEASE_MS + 500);
                let lapsed = std::mem::take(&mut self.model.leased);
                self.model.retried.extend(lapsed);
                self.waited()
            }
            Op::Restart => {
                self.set.restart();
                self.waits = None;
                Ok(())
            }
        }
    }

    /// A pop that waits has an answer exactly if there was something.
    fn waited(&mut self) -> Result<(), String> {
        let Some(number) = self.waits else {
            return Ok(());
        };
        let answer = self.set.answer(number);
        match answer {
            None if self.model.count() > 0 => Err("a pop waits for what is there".to_owned()),
            None => Ok(()),
            Some(frame) => {
                self.waits = None;
                let got = got(&frame);
                self.take(&frame, &got, u32::MAX)
            }
        }
    }

    fn take(&mut self, frame: &[u8], got: &[Got], acks: u32) -> Result<(), String> {
        let ids: Vec<u32> = got.iter().map(|got| got.id).collect();
        self.model.take(&ids)?;
        for (n, got) in got.iter().enumerate().filter(|(n, _)| acks >> n & 1 == 1) {
            self.acknowledge(frame, got)
                .map_err(|error| format!("{n}: {error}"))?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, frame: &[u8], got: &Got) -> Result<(), String> {
        let (queue, offset) = (got.queue, got.offset);
        let (topic, handle) = match &got.handle {
            Some(handle) => ("%RETRY%g_T", handle.clone()),
            None => {
                let start = field(frame, "startOffsetInfo");
                let start = start.split(';').find_map(|one| {
                    let rest = one.strip_prefix(&format!("0 {queue} "))?;
                    Some(rest.to_owned())
                });
                let start = start.ok_or("no start of the queue")?;
                let pop_ms = field(frame, "popTime");
                let handle = format!("{start} {pop_ms} {LEASE_MS} 0 0 broker-a {queue} {offset}");
                ("T", handle)
            }
        };
        let fields = format!(
            "consumerGroup=g&topic={topic}&queueId={queue}&offset={offset}&extraInfo={handle}"
        );
        self.set.succeed(0, ACK, &fields, b"");
        self.model.leased.remove(&got.id);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_is_more_urgent_comes_first(
        shards in 1..4u16,
        queues in 1..9i32,
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..50),
    ) {
        let mut run = Run::new(shards, queues, seed);
        for op in &ops {
            let result = run.step(queues, op);
            prop_assert!(result.is_ok(), "{op:?}: {}", result.unwrap_err());
        }
    }
}
