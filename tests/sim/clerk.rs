//! Somebody who reads the broker's numbers: ends and commits of queues, who consumes what, who is
//! there, and counts since the start, each against a ledger of what the clients were told.

use std::collections::{BTreeMap, BTreeSet};

use orbitmq::remoting::body::client::{GroupSubscription, ProducerTable};
use orbitmq::remoting::body::json;
use orbitmq::remoting::body::stats::{BrokerStats, ConsumeStats, GroupList, TopicStats};
use orbitmq::remoting::body::table::TopicList;
use orbitmq::remoting::command::{Command, FrameWriter};

use crate::asker;
use crate::client::{Asked, Client, Ctx, Role, is_guarded, remark_of};
use crate::model::Check;
use crate::set::{Set, decoded};
use crate::sifter::TOPICS;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const TOPIC_STATS: i32 = 202;
const CONSUME_STATS: i32 = 208;
const GROUPS_OF_TOPIC: i32 = 300;
const SYSTEM_TOPICS: i32 = 305;
const STATS: i32 = 315;
const PRODUCERS: i32 = 328;
const TOPICS_OF_GROUP: i32 = 343;
const SUBSCRIPTION: i32 = 345;

/// Producers of a run at most.
const PRODUCERS_MAX: usize = 3;
/// Groups asked about.
const GROUPS: [&str; 4] = ["g0", "g1", "audit", "sql0"];
/// The group of all producers.
pub const PRODUCER: &str = "p";

/// A topic and which of its name.
type Which = (String, u64);

/// What clients were told that the broker counts.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Messages that were acknowledged and are in their topic then.
    put: BTreeMap<Which, u64>,
    /// Messages of all requests.
    tried: BTreeMap<Which, u64>,
    /// Messages that came, by topic and group.
    got: BTreeMap<(Which, String), u64>,
    online: BTreeMap<String, Online>,
    /// Groups and topics that they tried to commit to.
    pub committed: BTreeSet<(String, String)>,
    /// What groups say that they want, but all.
    pub expressions: BTreeMap<String, &'static str>,
}

/// Members of a group whose heartbeats were answered.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Online {
    members: usize,
    changes: u64,
}

impl Ledger {
    pub fn note_put(&mut self, topic: &str, generation: u64, messages: usize) {
        *self.put.entry((topic.to_owned(), generation)).or_default() += messages as u64;
    }

    pub fn note_try(&mut self, topic: &str, generation: u64, messages: usize) {
        let which = (topic.to_owned(), generation);
        *self.tried.entry(which).or_default() += messages as u64;
    }

    pub fn note_got(&mut self, topic: &str, generation: Option<u64>, group: &str, messages: usize) {
        let which = (topic.to_owned(), generation.unwrap_or(0));
        *self.got.entry((which, group.to_owned())).or_default() += messages as u64;
    }

    pub fn came(&mut self, group: &str) {
        let online = self.online.entry(group.to_owned()).or_default();
        online.members += 1;
        online.changes += 1;
    }

    pub fn went(&mut self, group: &str) {
        let online = self.online.entry(group.to_owned()).or_default();
        online.members -= 1;
        online.changes += 1;
    }

    fn online(&self, group: &str) -> Online {
        self.online.get(group).copied().unwrap_or_default()
    }
}

#[derive(Default)]
pub struct Clerk {
    /// The ledger when the connection began, in the life of the broker that it belongs to.
    base: Option<Ledger>,
    /// Counts as they were told last; none may fall.
    told: BTreeMap<(&'static str, String, u64), i64>,
}

impl Clerk {
    /// The broker may begin to count anew.
    pub fn forget(&mut self) {
        *self = Clerk::default();
    }
}

/// What was asked.
pub enum AskedNumber {
    Topic(OfTopic),
    Group(OfTopic, String),
    GroupsOf(Which, BTreeSet<String>),
    TopicsOf(String, BTreeSet<Which>),
    Subscription(String, String, Online),
    Producers(Online),
    System,
    Count(Counted),
}

/// A topic as it was when it was asked.
pub struct OfTopic {
    which: Which,
    /// By queue: its end, and the group's commit.
    floors: Vec<(i64, Option<i64>)>,
}

pub struct Counted {
    name: &'static str,
    key: String,
    which: Which,
    /// So many were counted before it was asked.
    floor: u64,
}

impl Client {
    pub fn read_numbers(&mut self, ctx: &mut Ctx<'_>) {
        let Role::Clerk(clerk) = &mut self.role else {
            return;
        };
        let base = clerk.base.get_or_insert_with(|| ctx.model.ledger.clone());
        let base = base.clone();
        let live = ctx.model.live();
        let live: Vec<_> = live
            .into_iter()
            .filter(|(name, _)| !name.starts_with('%'))
            .collect();
        if self.waiting_answers() >= 3 || live.is_empty() {
            return;
        }
        let (topic, queues) = ctx.rng.pick(&live).clone();
        let which = (topic.clone(), ctx.model.generation(&topic).expect("live"));
        let group = (*ctx.rng.pick(&GROUPS)).to_owned();
        let floors = (0..queues).map(|queue| {
            let queue = (topic.clone(), queue);
            let commit = ctx.model.commit_floor(&group, &queue);
            (ctx.model.floor_end(&queue), commit)
        });
        let floors = floors.collect();
        let of_topic = OfTopic { which, floors };
        let online = ctx.model.ledger.online(&group);
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("topic", &topic);
            w.field_str("group", &group);
        };
        let (code, asked) = match ctx.rng.below(9) {
            0 => (TOPIC_STATS, AskedNumber::Topic(of_topic)),
            1 | 2 => return self.ask_consumed(ctx, of_topic, group),
            3 => {
                let due = ctx.model.committed_safely();
                let due = due.filter(|(_, (other, _))| *other == topic);
                let due = due.map(|(group, _)| group.clone()).collect();
                (GROUPS_OF_TOPIC, AskedNumber::GroupsOf(of_topic.which, due))
            }
            4 => {
                let due = ctx.model.committed_safely();
                let due = due.filter(|(other, _)| *other == group);
                let due = due.filter_map(|(_, (topic, _))| {
                    Some((topic.clone(), ctx.model.generation(topic)?))
                });
                let due = due.collect();
                (TOPICS_OF_GROUP, AskedNumber::TopicsOf(group.clone(), due))
            }
            5 => {
                let asked = AskedNumber::Subscription(group.clone(), topic.clone(), online);
                (SUBSCRIPTION, asked)
            }
            6 => {
                let online = ctx.model.ledger.online(PRODUCER);
                (PRODUCERS, AskedNumber::Producers(online))
            }
            7 if ctx.rng.percent(20) => (SYSTEM_TOPICS, AskedNumber::System),
            _ => return self.ask_count(ctx, &base, of_topic.which, &group),
        };
        self.ask(ctx, code, Some(Asked::Number(asked)), fields, b"");
    }

    fn ask_consumed(&mut self, ctx: &mut Ctx<'_>, of_topic: OfTopic, group: String) {
        let topic = of_topic.which.0.clone();
        let name = group.clone();
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", &name);
            w.field_str("topicList", &topic);
        };
        let asked = Asked::Number(AskedNumber::Group(of_topic, group));
        self.ask(ctx, CONSUME_STATS, Some(asked), fields, b"");
    }

    fn ask_count(&mut self, ctx: &mut Ctx<'_>, base: &Ledger, which: Which, group: &str) {
        let now = &ctx.model.ledger;
        let since = |now: Option<&u64>, base: Option<&u64>| {
            now.copied().unwrap_or(0) - base.copied().unwrap_or(0)
        };
        let (name, key, floor) = match ctx.rng.below(3) {
            0 => {
                // What is refused as a second one is acknowledged as well.
                let floor = match is_guarded(&which.0) {
                    true => 0,
                    false => since(now.put.get(&which), base.put.get(&which)),
                };
                ("TOPIC_PUT_NUMS", which.0.clone(), floor)
            }
            1 => {
                let of = (which.clone(), group.to_owned());
                let floor = since(now.got.get(&of), base.got.get(&of));
                ("GROUP_GET_NUMS", format!("{}@{group}", which.0), floor)
            }
            _ => {
                let sum = |ledger: &Ledger| -> u64 {
                    let put = ledger.put.iter();
                    let put = put.filter(|((topic, _), _)| !is_guarded(topic));
                    put.map(|(_, messages)| messages).sum()
                };
                ("BROKER_PUT_NUMS", "c".to_owned(), sum(now) - sum(base))
            }
        };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("statsName", name);
            w.field_str("statsKey", &key);
        };
        let asked = Counted {
            name,
            key: key.clone(),
            which,
            floor,
        };
        let asked = Asked::Number(AskedNumber::Count(asked));
        self.ask(ctx, STATS, Some(asked), fields, b"");
    }

    pub fn numbers(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: AskedNumber,
        command: &Command<'_>,
    ) -> Check {
        let same = |ctx: &Ctx<'_>, (topic, generation): &Which| {
            ctx.model.generation(topic) == Some(*generation)
        };
        match asked {
            AskedNumber::Topic(of) if same(ctx, &of.which) => topic(ctx, &of, command),
            AskedNumber::Group(of, group) if same(ctx, &of.which) => {
                consumed(ctx, &of, &group, command)
            }
            AskedNumber::GroupsOf(which, due) if same(ctx, &which) => {
                groups_of(ctx, &which.0, &due, command)
            }
            AskedNumber::TopicsOf(group, due) => topics_of(ctx, &group, &due, command),
            AskedNumber::Subscription(group, topic, before) => {
                let stays = before == ctx.model.ledger.online(&group) && before.members > 0;
                subscription(ctx, &group, &topic, stays, command)
            }
            AskedNumber::Producers(before) => {
                let stays = before == ctx.model.ledger.online(PRODUCER);
                producers(if stays { before.members } else { 0 }, command)
            }
            AskedNumber::System => {
                let told: TopicList = body(command)?;
                let own = |name: &String| !TOPICS.contains(&&**name) && !name.starts_with('%');
                ensure!(told.topic_list.iter().all(own), "{:?}", told.topic_list);
                let known = told.topic_list.iter().any(|name| name == "TBW102");
                ensure!(known, "{:?}", told.topic_list);
                Ok(())
            }
            AskedNumber::Count(counted) if same(ctx, &counted.which) => {
                self.counted(ctx, counted, command)
            }
            AskedNumber::Topic(_)
            | AskedNumber::Group(..)
            | AskedNumber::GroupsOf(..)
            | AskedNumber::Count(_) => Ok(()),
        }
    }

    fn counted(&mut self, ctx: &mut Ctx<'_>, asked: Counted, command: &Command<'_>) -> Check {
        let Role::Clerk(clerk) = &mut self.role else {
            return Err("counted, but for nobody".to_owned());
        };
        let Counted {
            name,
            key,
            which,
            floor,
        } = asked;
        let told = clerk.told.entry((name, key, which.1)).or_default();
        let least = (*told).max(floor as i64);
        let remark = remark_of(command);
        if command.code != SUCCESS {
            let none = remark.contains("not exist") && least == 0;
            ensure!(none, "{name} of {which:?}: {remark}, {least} before");
            return Ok(());
        }
        let stats: BrokerStats = body(command)?;
        let [minute, hour, day] = [stats.stats_minute, stats.stats_hour, stats.stats_day];
        ensure!(
            minute.sum <= hour.sum && hour.sum <= day.sum,
            "{name} of {which:?}: {stats:?}"
        );
        ensure!(
            day.sum >= least,
            "{name} of {which:?}: {}, but {least} before",
            day.sum
        );
        *told = day.sum;
        let plain = !ctx.config.delays && !ctx.config.transactions;
        let tried = ctx.model.ledger.tried.get(&which).copied().unwrap_or(0);
        ensure!(
            name != "TOPIC_PUT_NUMS" || !plain || day.sum <= tried as i64,
            "{name} of {which:?}: {}, of {tried} sent",
            day.sum
        );
        Ok(())
    }
}

fn body<T: serde::de::DeserializeOwned>(command: &Command<'_>) -> Result<T, String> {
    let (code, remark) = (command.code, remark_of(command));
    ensure!(code == SUCCESS, "code {code}: {remark}");
    json::from_slice(command.body).map_err(|error| error.to_string())
}

/// Ends of queues, and when the last message came.
fn topic(ctx: &mut Ctx<'_>, of: &OfTopic, command: &Command<'_>) -> Check {
    let told: TopicStats = body(command)?;
    let name = &of.which.0;
    let (rows, queues) = (told.offset_table.len(), of.floors.len());
    ensure!(rows == queues, "{name}: {rows} of {queues} queues");
    for (queue, row) in told.offset_table {
        let (id, min, max) = (queue.queue_id, row.min_offset, row.max_offset);
        let floor = of.floors.get(id as usize).ok_or("a queue too many")?.0;
        let queue = (name.clone(), id);
        ensure!(min == 0, "{queue:?} begins at {min}");
        ctx.model.check_end(&queue, floor, max, ctx.now)?;
        let last = ctx.model.store_times(&queue, max - 1..max).next();
        let last_ms = last.map(|(_, ms)| ms).or((max == 0).then_some(0));
        // A busy disk leaves it 0.
        let told_ms = row.last_update_timestamp;
        ensure!(
            told_ms == 0 || last_ms.is_none_or(|ms| ms == told_ms),
            "{queue:?}: the last of {max} is of {told_ms}, was of {last_ms:?}"
        );
    }
    Ok(())
}

/// How far a group is.
fn consumed(ctx: &mut Ctx<'_>, of: &OfTopic, group: &str, command: &Command<'_>) -> Check {
    let told: ConsumeStats = body(command)?;
    let (name, generation) = &of.which;
    let (rows, queues) = (told.offset_table.len(), of.floors.len());
    ensure!(rows == queues, "{name}: {rows} of {queues} queues");
    for (queue, row) in told.offset_table {
        let (max, committed) = (row.broker_offset, row.consumer_offset);
        let floors = of.floors.get(queue.queue_id as usize);
        let (floor, commit) = floors.copied().ok_or("a queue too many")?;
        let queue = (name.clone(), queue.queue_id);
        ctx.model.check_end(&queue, floor, max, ctx.now)?;
        let (least, most) = (
            commit.unwrap_or(0),
            ctx.model.commit_sent_max(group, &queue),
        );
        ensure!(
            (least..=most).contains(&committed),
            "{group} is at {committed} in {queue:?}, committed {least} to {most}"
        );
        let first = *generation == 1 && !ctx.lossy;
        ensure!(
            !first || committed <= max,
            "{group} is at {committed} in {queue:?}, which ends at {max}"
        );
        let last = ctx.model.store_times(&queue, committed - 1..committed);
        let last_ms = last.map(|(_, ms)| ms).next();
        let last_ms = last_ms.or((committed == 0).then_some(0));
        let told_ms = row.last_timestamp;
        ensure!(
            told_ms == 0 || committed > max || last_ms.is_none_or(|ms| ms == told_ms),
            "{group} has consumed {queue:?} up to {told_ms}, but {committed} is of {last_ms:?}"
        );
    }
    Ok(())
}

/// Whether a group is there that commits as the model knows, and what it wants of the topics.
fn wanted(group: &str) -> Option<&'static [&'static str]> {
    match group {
        "audit" | "g0" | "g1" => Some(&["t0"]),
        _ if group.starts_with("sql") => Some(&TOPICS),
        _ => None,
    }
}

fn groups_of(ctx: &Ctx<'_>, topic: &str, due: &BTreeSet<String>, command: &Command<'_>) -> Check {
    let told: GroupList = body(command)?;
    let told: BTreeSet<String> = told.group_list.into_iter().collect();
    let still = |group: &&String| {
        let mut safe = ctx.model.committed_safely();
        safe.any(|(other, (of, _))| other == *group && of == topic)
    };
    let missing = due
        .iter()
        .filter(still)
        .find(|group| !told.contains(*group));
    ensure!(
        missing.is_none(),
        "{topic}: {missing:?} has committed, told are {told:?}"
    );
    for group in told {
        let listed = wanted(&group).is_none_or(|topics| topics.contains(&topic));
        ensure!(
            listed || ctx.model.has_committed(&group, topic),
            "{topic}: {group} has nothing to do with it"
        );
    }
    Ok(())
}

fn topics_of(ctx: &Ctx<'_>, group: &str, due: &BTreeSet<Which>, command: &Command<'_>) -> Check {
    let told: TopicList = body(command)?;
    for (topic, generation) in due {
        let same = ctx.model.generation(topic) == Some(*generation);
        let mut safe = ctx.model.committed_safely();
        let still = safe.any(|(other, (of, _))| other == group && of == topic);
        ensure!(
            !same || !still || told.topic_list.contains(topic),
            "{group} has committed to {topic}, told are {:?}",
            told.topic_list
        );
    }
    for topic in &told.topic_list {
        ensure!(
            ctx.model.has_committed(group, topic),
            "{group} never committed to {topic}"
        );
    }
    Ok(())
}

fn subscription(
    ctx: &Ctx<'_>,
    group: &str,
    topic: &str,
    stays: bool,
    command: &Command<'_>,
) -> Check {
    let told: GroupSubscription = body(command)?;
    ensure!(
        told.group == group && told.topic == topic,
        "{group} {topic}: {told:?}"
    );
    let wants = wanted(group).is_some_and(|topics| topics.contains(&topic));
    let Some(data) = told.subscription_data else {
        ensure!(!stays || !wants, "{group} is there and wants {topic}");
        return Ok(());
    };
    ensure!(wants, "{group} never wanted {topic}: {data:?}");
    let is_sql = group.starts_with("sql");
    let kind = if is_sql { "SQL92" } else { "TAG" };
    let expression = ctx.model.ledger.expressions.get(group).unwrap_or(&"*");
    ensure!(
        data.topic == topic && data.expression_type == kind && data.sub_string == *expression,
        "{group} wants [{expression}] of {topic}: {data:?}"
    );
    Ok(())
}

fn producers(least: usize, command: &Command<'_>) -> Check {
    let told: ProducerTable = body(command)?;
    let mut groups = told.data.keys();
    let strange = groups.find(|group| *group != PRODUCER && *group != asker::GROUP);
    ensure!(strange.is_none(), "{strange:?} never produced");
    let members = told.data.get(PRODUCER).map_or(&[][..], Vec::as_slice);
    ensure!(
        (least..=PRODUCERS_MAX).contains(&members.len()),
        "{} producers, at least {least} are there",
        members.len()
    );
    let named = members.iter().all(|member| member.client_id == "p");
    let peers: BTreeSet<_> = members.iter().map(|member| &member.remote_ip).collect();
    ensure!(named && peers.len() == members.len(), "{members:?}");
    Ok(())
}

/// What came into a topic still counts when it is gone.
#[test]
fn a_deleted_topic_takes_nothing_from_the_total() {
    let mut set = Set::new(2, 1, false);
    let fields = "topic=T&defaultTopic=TBW102&readQueueNums=4&writeQueueNums=4&perm=6\
                  &topicFilterType=SINGLE_TAG&topicSysFlag=0&order=false";
    set.succeed(0, 17, fields, b"");
    for queue in 0..4 {
        let fields = format!("a=p&b=T&c=TBW102&d=4&e={queue}&f=0&g=1&h=0&j=0&k=false&m=false");
        set.succeed(0, 310, &fields, b"x");
    }
    set.succeed(0, 215, "topic=T", b"");
    let frame = set.succeed(0, STATS, "statsName=BROKER_PUT_NUMS&statsKey=c", b"");
    let stats: BrokerStats = body(&decoded(&frame)).expect("a body");
    assert_eq!(stats.stats_day.sum, 4);
}
