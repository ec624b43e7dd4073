//! Segments that go: what is young stays, what is old is gone, the first offset of a queue never
//! goes back, and what is needed for longer comes exactly once, however often its segment went.

use std::collections::BTreeMap;

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use proptest::prelude::*;

use orbitmq::store::Sabotage;

use crate::set::{Set, decoded};

const PULL: i32 = 11;
const SEND: i32 = 310;
const MIN_OFFSET: i32 = 31;
const END_TRANSACTION: i32 = 37;
const RECALL: i32 = 370;
const MOVED: i32 = 21;
const KEPT_MS: u64 = 5_000;
/// Deliveries that the log does not know of may be repeated after a crash.
const REPEAT_MS: u64 = 300;
const QUEUES: i64 = 2;
const TOPICS: [&str; 2] = ["plain", "later"];

#[derive(Clone, Debug)]
enum Op {
    /// Several messages of a size.
    Send(u8, u16),
    Timer(u32),
    Delayed,
    Half,
    /// Which of the open ones, and how.
    End(u8, bool),
    Recall(u8),
    Pass(u32),
    Crash(u32, u16),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..12u8, 100..9_000u16).prop_map(|(count, bytes)| Op::Send(count, bytes)),
        3 => prop_oneof![1..300u32, 1..40_000u32].prop_map(Op::Timer),
        1 => Just(Op::Delayed),
        2 => Just(Op::Half),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(which, commit)| Op::End(which, commit)),
        1 => any::<u8>().prop_map(Op::Recall),
        4 => prop_oneof![1..400u32, 1..9_000u32].prop_map(Op::Pass),
        2 => (1..9_000u32, 0..60u16).prop_map(|(ms, orders)| Op::Crash(ms, orders)),
        1 => Just(Op::Restart),
    ]
}

/// An open transaction, as its producer knows it.
struct Half {
    uid: u64,
    offset: String,
    physical: String,
}

/// A message that comes once, at a time.
struct Later {
    due_ms: u64,
    handle: Option<String>,
    recalled: bool,
}

struct World {
    set: Set,
    uids: u64,
    at_ms: u64,
    /// Places of plain messages: queue, offset, when it was acknowledged, number.
    sent: Vec<(i64, i64, u64, u64)>,
    later: BTreeMap<u64, Later>,
    halves: Vec<Half>,
    committed: Vec<u64>,
    rolled_back: Vec<u64>,
    /// When a message came, each time.
    came: BTreeMap<u64, Vec<u64>>,
    next: BTreeMap<(usize, i64), i64>,
    mins: BTreeMap<(usize, i64), i64>,
    crashes: Vec<u64>,
    /// Reading begins at what is left.
    reread: bool,
}

fn field(frame: &[u8], name: &str) -> String {
    let found = decoded(frame).ext.find(name);
    found.unwrap_or_else(|| panic!("no {name}")).to_string()
}

impl World {
    fn new(shards: u16, seed: u64, sabotage: Sabotage) -> World {
        let set = Set::with(shards, seed, seed.is_multiple_of(2), |options| {
            options.store.retention_ms = KEPT_MS;
            options.store.sabotage = sabotage;
            options.store.segment_bytes = 128 << 10;
            options.store.checkpoint_interval_ms = 300;
            options.delay_levels_ms = vec![100, 20_000];
        });
        World::of(set)
    }

    fn of(mut set: Set) -> World {
        for topic in TOPICS {
            let fields = format!(
                "topic={topic}&defaultTopic=TBW102&readQueueNums={QUEUES}&writeQueueNums={QUEUES}\
                 &perm=6&topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false"
            );
            set.succeed(0, 17, &fields, b"");
        }
        World {
            set,
            uids: 0,
            at_ms: 0,
            sent: Vec::new(),
            later: BTreeMap::new(),
            halves: Vec::new(),
            committed: Vec::new(),
            rolled_back: Vec::new(),
            came: BTreeMap::new(),
            next: BTreeMap::new(),
            mins: BTreeMap::new(),
            crashes: Vec::new(),
            reread: false,
        }
    }

    /// Sends a message; gives its number, queue and the answer.
    fn send(
        &mut self,
        topic: usize,
        kind: &str,
        sys_flag: i32,
        bytes: usize,
    ) -> (u64, i64, Vec<u8>) {
        self.uids += 1;
        let (uid, queue) = (self.uids, self.uids as i64 % QUEUES);
        let topic = TOPICS[topic];
        let fields = format!(
            "a=p&b={topic}&c=TBW102&d=4&e={queue}&f={sys_flag}&g=1&h=0&j=0&k=false&m=false\
             &i=KEYS\u{1}u{uid}\u{2}UNIQ_KEY\u{1}{uid:032X}\u{2}{kind}"
        );
        let frame = self.set.succeed(0, SEND, &fields, &vec![uid as u8; bytes]);
        (uid, queue, frame)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Send(count, bytes) => {
                for _ in 0..*count {
                    let (uid, queue, frame) = self.send(0, "", 0, usize::from(*bytes));
                    let offset = field(&frame, "queueOffset").parse().expect("a number");
                    self.sent.push((queue, offset, self.at_ms, uid));
                }
            }
            Op::Timer(wait_ms) => {
                let kind = format!("TIMER_DELAY_MS\u{1}{wait_ms}\u{2}");
                let (uid, _, frame) = self.send(1, &kind, 0, 200);
                let later = Later {
                    due_ms: self.at_ms + u64::from(*wait_ms),
                    handle: Some(field(&frame, "recallHandle")),
                    recalled: false,
                };
                self.later.insert(uid, later);
            }
            Op::Delayed => {
                let (uid, ..) = self.send(1, "DELAY\u{1}2\u{2}", 0, 200);
                let later = Later {
                    due_ms: self.at_ms + 20_000,
                    handle: None,
                    recalled: false,
                };
                self.later.insert(uid, later);
            }
            Op::Half => {
                let kind = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}";
                let (uid, _, frame) = self.send(1, kind, 4, 200);
                let id = field(&frame, "msgId");
                let id = orbitmq::message::id::OffsetId::parse(&id).expect("an id");
                self.halves.push(Half {
                    uid,
                    offset: field(&frame, "queueOffset"),
                    physical: id.physical_offset.to_string(),
                });
            }
            Op::End(which, commit) => self.end(usize::from(*which), *commit),
            Op::Recall(which) => self.recall(usize::from(*which)),
            Op::Pass(ms) => self.pass(u64::from(*ms)),
            Op::Crash(ms, orders) => {
                // Nothing that comes is missed: it is kept for longer than that.
                let ms = u64::from(*ms).min(KEPT_MS / 2);
                if self.set.pass_and_crash(ms, u32::from(*orders)) {
                    self.crashes.push(self.now_ms());
                }
                self.at_ms = self.now_ms();
                self.read();
            }
            Op::Restart => {
                self.set.restart();
                self.crashes.push(self.at_ms);
                self.read();
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.set.now().mono.0
    }

    fn end(&mut self, which: usize, commit: bool) {
        if self.halves.is_empty() {
            return;
        }
        let half = self.halves.remove(which % self.halves.len());
        let decision = if commit { 8 } else { 12 };
        let fields = format!(
            "producerGroup=p&tranStateTableOffset={}&commitLogOffset={}\
             &commitOrRollback={decision}&fromTransactionCheck=true&msgId=m",
            half.offset, half.physical
        );
        self.set.succeed(0, END_TRANSACTION, &fields, b"");
        match commit {
            true => self.committed.push(half.uid),
            false => self.rolled_back.push(half.uid),
        }
    }

    fn recall(&mut self, which: usize) {
        let timers = self
            .later
            .values_mut()
            .filter(|later| later.handle.is_some());
        let waiting: Vec<_> = timers.filter(|later| !later.recalled).collect();
        let count = waiting.len().max(1);
        let Some(later) = waiting.into_iter().nth(which % count) else {
            return;
        };
        let handle = later.handle.as_ref().expect("filtered");
        let fields = format!("producerGroup=p&topic=later&recallHandle={handle}");
        // Too late is a refusal.
        later.recalled = decoded(&self.set.ask(0, RECALL, &fields, b"")).code == 0;
    }

    /// Time goes by, in steps that leave nothing unread until it is gone.
    fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(KEPT_MS / 4);
            self.set.pass_ms(step);
            ms -= step;
            self.at_ms = self.now_ms();
            self.read();
        }
    }

    fn pull(&mut self, topic: usize, queue: i64, offset: i64) -> Vec<u8> {
        let topic = TOPICS[topic];
        let fields = format!(
            "consumerGroup=g&topic={topic}&queueId={queue}&queueOffset={offset}&maxMsgNums=32\
             &sysFlag=4&commitOffset=0&suspendTimeoutMillis=0&subscription=*&subVersion=1"
        );
        self.set.ask(0, PULL, &fields, b"")
    }

    /// Reads what is new in all queues, and looks at where they begin.
    fn read(&mut self) {
        for (topic, queue) in
            (0..TOPICS.len()).flat_map(|topic| (0..QUEUES).map(move |q| (topic, q)))
        {
            let fields = format!("topic={}&queueId={queue}", TOPICS[topic]);
            let frame = self.set.succeed(0, MIN_OFFSET, &fields, b"");
            let min: i64 = field(&frame, "offset").parse().expect("a number");
            let before = self.mins.insert((topic, queue), min).unwrap_or(0);
            assert!(
                before <= min,
                "{topic}/{queue} began at {before}, now at {min}"
            );
            if self.reread {
                let next = self.next.entry((topic, queue)).or_default();
                *next = min.max(*next);
            }
            loop {
                let from = *self.next.entry((topic, queue)).or_default();
                let frame = self.pull(topic, queue, from);
                let answer = decoded(&frame);
                if answer.code != 0 {
                    assert_eq!(
                        answer.code, 19,
                        "{topic}/{queue} from {from}: {:?}",
                        answer.remark
                    );
                    break;
                }
                let mut next = from;
                for record in RecordView::iter(answer.body) {
                    let record = record.expect("a whole record");
                    assert_eq!(record.queue_offset(), next);
                    next += 1;
                    self.check(topic, &record);
                }
                self.next.insert((topic, queue), next);
            }
        }
    }

    fn check(&mut self, topic: usize, record: &RecordView<'_>) {
        let text = |name| properties::find_str(record.properties(), name);
        let uid: u64 = text("KEYS").expect("a key")[1..].parse().expect("a number");
        assert!(
            record.body().iter().all(|byte| *byte == uid as u8),
            "u{uid}: another body"
        );
        assert_eq!(record.topic(), TOPICS[topic]);
        assert_eq!(text("__CARRIED"), None, "u{uid}");
        if let Some(later) = self.later.get(&uid) {
            assert!(later.due_ms <= self.at_ms, "u{uid} came too early");
            let enqueued = text("TIMER_ENQUEUE_MS").map(|ms| ms.parse::<i64>().expect("ms"));
            assert_eq!(enqueued.is_some(), later.handle.is_some(), "u{uid}");
            let first_ms = crate::options::WALL_MS + later.due_ms as i64;
            assert!(enqueued.is_none_or(|ms| ms <= first_ms), "u{uid}");
            assert!(!later.recalled, "u{uid} was recalled");
        }
        self.came.entry(uid).or_default().push(self.at_ms);
    }

    /// What is young enough is there; what lies before the beginning is said to be gone.
    fn check_places(&mut self) {
        let now_ms = self.now_ms();
        let mut gone = 0;
        for (queue, offset, at_ms, uid) in self.sent.clone().into_iter().rev().take(60) {
            let min = self.mins.get(&(0, queue)).copied().unwrap_or(0);
            let young = now_ms - at_ms < KEPT_MS;
            assert!(
                !young || min <= offset,
                "u{uid} at {offset} is gone, the queue begins at {min}"
            );
            if offset < min && gone < 2 {
                gone += 1;
                let frame = self.pull(0, queue, offset);
                let answer = decoded(&frame);
                assert_eq!(answer.code, MOVED, "u{uid}");
                assert_eq!(field(&frame, "nextBeginOffset"), min.to_string());
                assert_eq!(field(&frame, "minOffset"), min.to_string());
            }
        }
    }

    fn finish(&mut self) {
        self.pass(60_000);
        for _ in 0..self.halves.len() {
            self.end(0, true);
        }
        self.pass(2_000);
        for (uid, later) in &self.later {
            let came = self.came.get(uid).map_or(&[][..], Vec::as_slice);
            if later.recalled {
                continue;
            }
            let excuse = self.excuses(came);
            assert!(
                !came.is_empty(),
                "u{uid}, due at {}, never came",
                later.due_ms
            );
            assert!(
                came.len() <= 1 + excuse,
                "u{uid} came {came:?}, crashes {:?}",
                self.crashes
            );
        }
        for uid in &self.committed {
            let came = self.came.get(uid).map_or(&[][..], Vec::as_slice);
            let excuse = self.excuses(came);
            assert!(!came.is_empty(), "u{uid} was committed and never came");
            assert!(
                came.len() <= 1 + excuse,
                "u{uid} was committed once, came {came:?}"
            );
        }
        for uid in &self.rolled_back {
            assert!(!self.came.contains_key(uid), "u{uid} was rolled back");
        }
        for (.., uid) in &self.sent {
            assert_eq!(self.came.get(uid).map(Vec::len), Some(1), "u{uid}");
        }
        // All is old now: only what is written to is left, and what was filled ahead.
        for shard in 0..self.set.shards() {
            let left = self.set.segments(shard);
            assert!(left <= 4, "shard {shard} has {left} segments");
        }
    }

    /// Crashes shortly after it had come.
    fn excuses(&self, came: &[u64]) -> usize {
        let soon = |crash: &&u64| {
            came.iter()
                .any(|at| (*at..=at + REPEAT_MS + KEPT_MS).contains(*crash))
        };
        self.crashes.iter().filter(soon).count()
    }
}

/// A timer, a delayed message and halves, over some ten segments that go.
fn outlive(sabotage: Sabotage) -> u64 {
    let mut world = World::new(1, 7, sabotage);
    for op in [Op::Timer(39_000), Op::Delayed, Op::Half, Op::Half, Op::Half] {
        world.apply(&op);
    }
    for step in 0..10 {
        for _ in 0..3 {
            world.apply(&Op::Send(10, 8_000));
        }
        world.pass(3_000);
        world.check_places();
        if step == 3 {
            world.apply(&Op::End(0, false));
        }
        if step == 6 {
            world.apply(&Op::End(0, true));
        }
    }
    let removed = world.set.removed(0);
    world.finish();
    removed
}

#[test]
fn a_timer_and_halves_outlive_many_segments() {
    let removed = outlive(Sabotage::None);
    assert!(removed >= 5, "{removed} segments were removed");
}

#[test]
#[should_panic(expected = "Find prepared transaction message failed")]
fn without_carrying_over_halves_are_lost() {
    outlive(Sabotage::CutWithoutCarry);
}

#[test]
fn rotten_indexes_are_filled_again_from_what_is_left() {
    let mut world = World::new(1, 9, Sabotage::None);
    for _ in 0..6 {
        (0..3).for_each(|_| world.apply(&Op::Send(10, 8_000)));
        world.apply(&Op::Timer(9_000));
        world.apply(&Op::Half);
        world.pass(2_000);
    }
    assert!(world.set.removed(0) > 0);
    for _ in 0..2 {
        world.set.rot_indexes(0);
        world.set.restart();
        world.crashes.push(world.at_ms);
        world.next.clear();
        world.came.clear();
        world.reread = true;
        world.read();
        let mins = world.mins.clone();
        for (queue, offset, _, uid) in world.sent.clone() {
            let there = world.came.contains_key(&uid);
            assert_eq!(there, offset >= mins[&(0, queue)], "u{uid}");
        }
    }
    world.reread = false;
    for _ in 0..3 {
        world.apply(&Op::End(0, true));
    }
    world.pass(20_000);
    assert!(
        world
            .committed
            .iter()
            .all(|uid| world.came.contains_key(uid))
    );
    assert!(world.later.keys().all(|uid| world.came.contains_key(uid)));
}

#[test]
fn a_message_for_a_time_leaves_room_for_what_it_gets_later() {
    let mut world = World::new(1, 1, Sabotage::None);
    let mut send = |bytes: usize| {
        let fields = format!(
            "a=p&b=later&c=TBW102&d=4&e=0&f=0&g=1&h=0&j=0&k=false&m=false\
             &i=TIMER_DELAY_MS\u{1}9000\u{2}x\u{1}{}\u{2}",
            "y".repeat(bytes)
        );
        let frame = world.set.ask(0, SEND, &fields, b"body");
        let command = decoded(&frame);
        (
            command.code,
            command.remark.map(|remark| remark.to_string()),
        )
    };
    let mut answers = (32_000..32_768).map(&mut send);
    let (code, remark) = answers.find(|(code, _)| *code != 0).expect("a limit");
    assert_eq!(code, 13);
    let remark = remark.expect("a reason");
    assert!(
        remark.contains("message for a time take 32727 bytes at most"),
        "{remark}"
    );
}

/// A shard whose segments do not get old, on a disk of so many bytes.
fn on_a_small_disk(bytes: u64, percent_max: u64) -> World {
    let mut set = Set::with(1, 3, true, |options| {
        options.store.retention_ms = i64::MAX as u64;
        options.store.disk_percent_max = percent_max;
        options.store.segment_bytes = 128 << 10;
        options.store.index_bytes_max = 256 << 10;
    });
    set.resize_disk(0, bytes);
    World::of(set)
}

#[test]
fn a_disk_that_fills_up_gives_up_the_oldest_segments_only() {
    let mut world = on_a_small_disk(2 << 20, 60);
    for _ in 0..120 {
        world.apply(&Op::Send(10, 4_000));
        world.pass(2_000);
    }
    assert!(world.set.removed(0) >= 20, "{}", world.set.removed(0));
    // From 60 percent on one more goes at a time.
    let left = world.set.segments(0);
    assert!((6..=11).contains(&left), "{left} segments are left");
    let (queue, offset, _, uid) = *world.sent.last().expect("sent above");
    let answer = world.pull(0, queue, offset);
    assert_eq!(decoded(&answer).code, 0, "u{uid} is young");
}

#[test]
fn without_room_sends_are_refused_until_there_is_some() {
    let mut world = on_a_small_disk(420 << 10, 101);
    let fields = "a=p&b=plain&c=TBW102&d=4&e=0&f=0&g=1&h=0&j=0&k=false&m=false\
                  &i=KEYS\u{1}u1\u{2}UNIQ_KEY\u{1}0\u{2}";
    let mut codes = Vec::new();
    // There is room for two segments, and nothing may go.
    for _ in 0..100 {
        let answer = world.set.ask(0, SEND, fields, &[1; 4_000]);
        let answer = decoded(&answer);
        codes.push(answer.code);
        if answer.code != 0 {
            let remark = answer.remark.expect("a reason").to_string();
            assert!(remark.contains("the disk of shard 0 is full"), "{remark}");
            break;
        }
        world.set.pass_ms(10);
    }
    let taken = codes.iter().filter(|code| **code == 0).count() as i64;
    assert_eq!(codes.last(), Some(&14), "{taken} were taken");
    assert!(taken > 10, "{taken} were taken");
    let answer = world.pull(0, 0, 0);
    assert_eq!(decoded(&answer).code, 0, "reads go on");
    world.set.pass_ms(60_000);
    assert_eq!(decoded(&world.set.ask(0, SEND, fields, b"x")).code, 14);
    world.set.resize_disk(0, 4 << 20);
    world.set.pass_ms(2_000);
    let answer = world.set.succeed(0, SEND, fields, b"x");
    assert_eq!(
        field(&answer, "queueOffset"),
        taken.to_string(),
        "nothing was lost"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_is_needed_outlives_its_segment(
        shards in 1..3u16,
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut world = World::new(shards, seed, Sabotage::None);
        for op in &ops {
            world.apply(op);
            world.check_places();
        }
        world.finish();
    }
}
