//! Random histories of control state against a plain model, and replay of what they recorded.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Control;
use super::effects::Effects;
use super::options::ControlOptions;
use crate::base::ShardId;
use crate::broker::handle::rig::{Rig, conn};
use crate::broker::record::RecordError;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const GROUPS: [&str; 3] = ["g", "h", "i"];

#[derive(Clone, Debug)]
enum Step {
    Topic {
        topic: usize,
        read: i32,
        write: i32,
    },
    DropTopic {
        topic: usize,
    },
    Group {
        group: usize,
        retries: i32,
    },
    DropGroup {
        group: usize,
    },
    /// `topics` is a set of bits.
    Beat {
        slot: u32,
        group: usize,
        topics: u8,
        version: i64,
    },
    Leave {
        slot: u32,
        group: usize,
    },
    Close {
        slot: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 1u32..5;
    prop_oneof![
        (0usize..4, 0..6, 0..6).prop_map(|(topic, read, write)| Step::Topic { topic, read, write }),
        (0usize..4).prop_map(|topic| Step::DropTopic { topic }),
        (0usize..3, 0..3).prop_map(|(group, retries)| Step::Group { group, retries }),
        (0usize..3).prop_map(|group| Step::DropGroup { group }),
        (slot.clone(), 0usize..3, 0u8..16, 0i64..4).prop_map(|(slot, group, topics, version)| {
            Step::Beat {
                slot,
                group,
                topics,
                version,
            }
        }),
        (slot.clone(), 0usize..3).prop_map(|(slot, group)| Step::Leave { slot, group }),
        slot.prop_map(|slot| Step::Close { slot }),
    ]
}

/// What control state is, without snapshots, records and shards.
#[derive(Default)]
struct Model {
    /// Read and write queues.
    topics: BTreeMap<String, (i32, i32)>,
    /// Retry times.
    groups: BTreeMap<String, i32>,
    /// Slots in the order of their coming.
    members: BTreeMap<String, Vec<u32>>,
    /// Versions by topic.
    subscriptions: BTreeMap<String, BTreeMap<String, i64>>,
}

impl Model {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Topic { topic, read, write } => {
                self.topics.insert(TOPICS[topic].to_owned(), (read, write));
            }
            Step::DropTopic { topic } => {
                self.topics.remove(TOPICS[topic]);
            }
            Step::Group { group, retries } => {
                self.groups.insert(GROUPS[group].to_owned(), retries);
            }
            Step::DropGroup { group } => {
                self.groups.remove(GROUPS[group]);
            }
            Step::Beat {
                slot,
                group,
                topics,
                version,
            } => self.beat(slot, group, topics, version),
            Step::Leave { slot, group } => self.leave(GROUPS[group], slot),
            Step::Close { slot } => GROUPS.iter().for_each(|group| self.leave(group, slot)),
        }
    }

    fn beat(&mut self, slot: u32, group: usize, topics: u8, version: i64) {
        let name = GROUPS[group].to_owned();
        self.groups.entry(name.clone()).or_insert(16);
        self.topics
            .entry(format!("%RETRY%{name}"))
            .or_insert((1, 1));
        let members = self.members.entry(name.clone()).or_default();
        if !members.contains(&slot) {
            members.push(slot);
        }
        let known = self.subscriptions.entry(name).or_default();
        let before = std::mem::take(known);
        for topic in wanted(topics) {
            let newer = before.get(topic).copied().unwrap_or(version).max(version);
            known.insert(topic.to_owned(), newer);
        }
    }

    fn leave(&mut self, group: &str, slot: u32) {
        let Some(members) = self.members.get_mut(group) else {
            return;
        };
        members.retain(|member| *member != slot);
        if members.is_empty() {
            self.members.remove(group);
            self.subscriptions.remove(group);
        }
    }
}

fn wanted(topics: u8) -> impl Iterator<Item = &'static str> {
    (0..4)
        .filter(move |bit| topics & (1 << bit) != 0)
        .map(|bit| TOPICS[bit])
}

fn request(step: &Step) -> (u32, String) {
    match step {
        Step::Topic { topic, read, write } => {
            let name = TOPICS[*topic];
            let line = format!(
                "17 topic={name} defaultTopic=TBW102 readQueueNums={read} writeQueueNums={write} \
                 perm=6 topicFilterType=SINGLE_TAG"
            );
            (1, line)
        }
        Step::DropTopic { topic } => (1, format!("215 topic={}", TOPICS[*topic])),
        Step::Group { group, retries } => {
            let name = GROUPS[*group];
            (
                1,
                format!(r#"200 {{"groupName":"{name}","retryMaxTimes":{retries}}}"#),
            )
        }
        Step::DropGroup { group } => (1, format!("207 groupName={}", GROUPS[*group])),
        Step::Beat {
            slot,
            group,
            topics,
            version,
        } => {
            let topics = wanted(*topics)
                .map(|topic| format!(r#"{{"topic":"{topic}","subVersion":{version}}}"#));
            let line = format!(
                r#"34 {{"clientID":"c{slot}","consumerDataSet":[{{"groupName":"{}","subscriptionDataSet":[{}]}}]}}"#,
                GROUPS[*group],
                topics.collect::<Vec<_>>().join(",")
            );
            (*slot, line)
        }
        Step::Leave { slot, group } => (
            *slot,
            format!("35 clientID=c{slot} consumerGroup={}", GROUPS[*group]),
        ),
        Step::Close { .. } => unreachable!("a close is no request"),
    }
}

fn check(rig: &mut Rig, model: &Model, names: &BTreeSet<String>) {
    let snapshot = rig.control.snapshot();
    let topics = snapshot
        .topics
        .iter()
        .filter(|(name, _)| !names.contains(&***name));
    let topics = topics.map(|(name, topic)| {
        let config = &topic.config;
        assert!(topic.owners.len() >= config.read_queue_nums.max(config.write_queue_nums) as usize);
        (
            name.to_string(),
            (config.read_queue_nums, config.write_queue_nums),
        )
    });
    assert_eq!(topics.collect::<BTreeMap<_, _>>(), model.topics);
    let groups = snapshot.groups.iter().filter(|(name, _)| name.len() == 1);
    let groups = groups.map(|(name, group)| (name.to_string(), group.retry_max_times));
    assert_eq!(groups.collect::<BTreeMap<_, _>>(), model.groups);
    let subscriptions = snapshot.subscriptions.iter().map(|(name, group)| {
        let topics = group.topics.iter();
        let topics = topics.map(|(topic, wanted)| (topic.to_string(), wanted.version));
        (name.to_string(), topics.collect::<BTreeMap<_, _>>())
    });
    assert_eq!(
        subscriptions.collect::<BTreeMap<_, _>>(),
        model.subscriptions
    );
    for group in GROUPS {
        let members = rig
            .control
            .members
            .consumers(group)
            .iter()
            .map(|member| member.conn.slot);
        let expected = model.members.get(group).cloned().unwrap_or_default();
        assert_eq!(members.collect::<Vec<_>>(), expected);
    }
}

fn dump(control: &Control) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    control.dump(&mut |record| records.push(record.to_vec()));
    records
}

fn replayed(options: &ControlOptions, records: &[Vec<u8>]) -> Control {
    let mut control = Control::new(options.clone());
    for record in records {
        control.apply(record).unwrap();
    }
    control
}

fn owners(rig: &mut Rig) -> BTreeMap<u64, Vec<ShardId>> {
    let snapshot = rig.control.snapshot();
    snapshot
        .topics
        .iter()
        .map(|(_, topic)| (topic.id, topic.owners.clone()))
        .collect()
}

proptest! {
    #[test]
    fn histories(steps in prop::collection::vec(step(), 1..60), shards in 1u16..4) {
        let options = ControlOptions { shards, ..ControlOptions::default() };
        let mut rig = Rig::new(options.clone());
        let started = rig.control.snapshot();
        let names = started.topics.iter().map(|(name, _)| name.to_string()).collect();
        let mut records = dump(&rig.control);
        let mut model = Model::default();
        for step in &steps {
            let (version, before) = (rig.control.version(), owners(&mut rig));
            if let Step::Close { slot } = step {
                rig.effects = Effects::default();
                rig.control.closed(conn(*slot), &mut rig.effects);
            } else {
                let (slot, line) = request(step);
                prop_assert!(rig.ask(slot, &line).starts_with('0'), "{}", line);
            }
            model.take(step);
            check(&mut rig, &model, &names);
            let recorded = rig.effects.records.len() as u64;
            prop_assert!(rig.control.version() >= version + recorded);
            records.append(&mut rig.effects.records);
            for (id, owners) in owners(&mut rig) {
                let before = before.get(&id).cloned().unwrap_or_default();
                prop_assert!(owners.starts_with(&before), "an owner never changes");
            }
        }
        let tables = dump(&rig.control);
        prop_assert_eq!(&dump(&replayed(&options, &records)), &tables, "the log");
        prop_assert_eq!(&dump(&replayed(&options, &tables)), &tables, "the dump");
        let (again, control) = (replayed(&options, &tables), &rig.control);
        prop_assert_eq!(again.topics.queues(), control.topics.queues());
        let slots = 1..5;
        slots.for_each(|slot| rig.control.closed(conn(slot), &mut rig.effects));
        prop_assert!(rig.control.members.is_empty());
        prop_assert!(rig.control.snapshot().subscriptions.is_empty());
    }
}

#[test]
fn a_replay_needs_the_shards_of_the_log() {
    let two = ControlOptions {
        shards: 2,
        ..ControlOptions::default()
    };
    let records = dump(&Rig::new(two).control);
    let mut one = Control::new(ControlOptions::default());
    let error = records.iter().find_map(|record| one.apply(record).err());
    assert_eq!(
        error,
        Some(RecordError::UnknownShard {
            shard: 1,
            shards: 1
        })
    );
}

#[test]
fn a_start_creates_what_is_missing() {
    let mut rig = Rig::new(ControlOptions {
        cluster: "c1".to_owned(),
        broker_name: "b1".to_owned(),
        trace_topic: Some("RMQ_SYS_TRACE_TOPIC".to_owned()),
        broker_topic_enable: false,
        ..ControlOptions::default()
    });
    let snapshot = rig.control.snapshot();
    let mut topics: Vec<String> = snapshot
        .topics
        .iter()
        .map(|(name, topic)| {
            format!(
                "{name} {} {}",
                topic.config.write_queue_nums, topic.config.perm
            )
        })
        .collect();
    topics.sort();
    assert_eq!(
        topics,
        [
            "BenchmarkTest 1024 6",
            "OFFSET_MOVED_EVENT 1 6",
            "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC 1 6",
            "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC 1 6",
            "RMQ_SYS_TRACE_TOPIC 1 6",
            "RMQ_SYS_TRANS_HALF_TOPIC 1 6",
            "RMQ_SYS_TRANS_OP_HALF_TOPIC 1 6",
            "SCHEDULE_TOPIC_XXXX 18 6",
            "SELF_TEST_TOPIC 1 6",
            "TBW102 8 7",
            "b1 1 1",
            "c1 16 7",
            "c1_REPLY_TOPIC 1 6",
            "rmq_sys_REVIVE_LOG_c1 8 6",
            "rmq_sys_SYNC_BROKER_MEMBER_b1 1 1",
            "rmq_sys_wheel_timer 1 6",
        ]
    );
    assert_eq!(snapshot.groups.len(), 8);
    let mut effects = Effects::default();
    rig.control.start(rig.now, &mut effects);
    assert!(effects.records.is_empty(), "everything is there");
}
