//! Operators who move groups to other places, and their consumers: after an answered reset a group
//! goes on exactly there, commits that are older do not count, and no offset that was told to
//! anybody is forgotten by a crash. Members are asked where they stand, and only what they said
//! comes back.

use std::collections::{BTreeMap, VecDeque};

use orbitmq::message::id::OffsetId;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::body::json;
use orbitmq::remoting::body::stats::{ConsumeStats, ResetOffsets, TimeSpans};
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::header::pull::{FLAG_COMMIT_OFFSET, FLAG_SUBSCRIPTION, PullHeader};
use orbitmq::remoting::text::Text;

use crate::client::{Asked, Client, Ctx, Role, number, remark_of, uid_of};
use crate::model::{Check, Model};
use crate::options::{BROKER, WALL_MS};

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 1;
const PULL_NOT_FOUND: i32 = 19;
const PULL_MOVED: i32 = 21;
const NOT_FOUND: i32 = 22;
const NO_GROUP: i32 = 26;

/// How long a reset may go on after its asker has gone, µs: it reads times from the disk.
const DOUBT_US: u64 = 3_000_000;
/// Moving groups; each has one member, which is the operator of all.
pub const MOVERS: u64 = 2;

type Queue = (String, i32);

/// What was told of moving groups.
#[derive(Default)]
pub struct Moved {
    places: BTreeMap<(String, Queue), Place>,
    /// Store times of messages that were read, ms.
    stored: BTreeMap<Queue, BTreeMap<i64, i64>>,
    /// Members by client, and since when they are: they have told what, when.
    online: BTreeMap<String, u64>,
    told: BTreeMap<String, Vec<(u64, String)>>,
}

/// Whether pulls are still to hear of a reset; the number is the life of the broker that knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    None,
    Due(u64),
    Perhaps,
}

/// How far a group is in a queue.
struct Place {
    /// What the broker must say, and since when.
    value: Option<(i64, u64)>,
    /// Commits that may count or not.
    maybe: Vec<i64>,
    news: News,
    /// Until then, in this life of the broker, an old reset may still be carried out.
    doubt: (u64, u64),
    /// Where the consumer pulls next, if it knows.
    next: Option<i64>,
}

impl Default for Place {
    fn default() -> Place {
        Place {
            value: None,
            maybe: Vec::new(),
            news: News::None,
            doubt: (0, 0),
            next: None,
        }
    }
}

impl Place {
    fn is_doubtful(&self, now: u64, life: u64) -> bool {
        self.doubt.0 == life && now < self.doubt.1
    }

    /// Nothing is known of it any more.
    fn forget(&mut self) {
        self.value = None;
        self.news = News::Perhaps;
    }

    /// The broker has said where the group is.
    fn set(&mut self, value: i64, now: u64) {
        let same = |(known, _): &(i64, u64)| *known == value && self.maybe.is_empty();
        let since = self.value.filter(same);
        self.value = Some((value, since.map_or(now, |(_, since)| since)));
        self.maybe.clear();
    }
}

impl Moved {
    /// A power cut under `ASYNC_FLUSH`.
    pub fn forget_since(&mut self, firm: u64) {
        for place in self.places.values_mut() {
            if place.value.is_some_and(|(_, at)| at > firm) {
                place.value = None;
            }
            place.next = None;
        }
        self.stored.clear();
    }

    fn place(&mut self, group: &str, queue: &Queue) -> &mut Place {
        let key = (group.to_owned(), queue.clone());
        self.places.entry(key).or_default()
    }
}

#[derive(Clone)]
enum Step {
    /// A commit of somebody who does not know of a reset.
    Late(Queue),
    Pull(Queue),
    Query(String, Queue),
}

pub struct Mover {
    number: u64,
    /// Sends heartbeats.
    online: bool,
    ready: bool,
    /// Its connection ended: what is under way ends soon.
    quiet: bool,
    steps: VecDeque<Step>,
    /// Asks for every offset, for the end of a run.
    pub drains: bool,
    looked: bool,
}

impl Mover {
    pub fn new(number: u64, online: bool) -> Mover {
        Mover {
            number,
            online,
            ready: false,
            quiet: false,
            steps: VecDeque::new(),
            drains: false,
            looked: false,
        }
    }

    fn group(&self) -> String {
        format!("m{}", self.number)
    }

    fn owns(&self, group: &str) -> bool {
        group == self.group() || group == clone_of(&self.group())
    }

    fn client_id(&self) -> String {
        format!("mover-{}", self.number)
    }

    /// What is left to do at the end: everything is looked at once more.
    pub fn missing(&self) -> Option<String> {
        let through = self.looked && self.steps.is_empty();
        (!through).then(|| format!("not all offsets of {} were asked for", self.group()))
    }
}

/// Where a reset goes.
#[derive(Clone, Copy)]
enum Target {
    Offset(i64),
    /// Offsets are from 0 on: this one is not there.
    Beyond(i64),
    Time(i64),
}

pub struct Reset {
    topic: String,
    queue: Option<i32>,
    target: Target,
    /// Ends of its queues when it was asked for.
    floors: Vec<i64>,
}

/// What was asked, and in which life of the broker.
pub struct AskedMove {
    what: What,
    at: u64,
    life: u64,
}

enum What {
    Ready,
    Reset(Reset),
    /// From where, and where the queue ended then at least.
    Pull(Queue, i64, i64),
    Commit(Queue, i64),
    Query(String, Queue),
    Clone(String),
    Times(String),
    Stats(String),
    /// Of which client.
    Status(String),
    Running(String),
    Direct(String),
}

impl AskedMove {
    pub fn name(&self) -> &'static str {
        match self.what {
            What::Ready => "making of a group",
            What::Reset(_) => "reset",
            What::Pull(..) => "pull of a moved group",
            What::Commit(..) => "commit of a moved group",
            What::Query(..) => "query of a moved group",
            What::Clone(_) => "clone of offsets",
            What::Times(_) => "time span",
            What::Stats(_) => "consume stats",
            What::Status(_) => "status of members",
            What::Running(_) => "running information",
            What::Direct(_) => "direct consumption",
        }
    }
}

impl Client {
    fn mover(&mut self) -> &mut Mover {
        match &mut self.role {
            Role::Mover(mover) => mover,
            _ => unreachable!("only movers ask so"),
        }
    }

    fn ask_move(
        &mut self,
        ctx: &mut Ctx<'_>,
        code: i32,
        what: What,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) {
        let asked = AskedMove {
            what,
            at: ctx.now,
            life: ctx.life,
        };
        self.ask(ctx, code, Some(Asked::Move(asked)), fields, body);
    }

    pub fn move_groups(&mut self, ctx: &mut Ctx<'_>) {
        if self.waiting_answers() > 0 {
            return;
        }
        if !self.mover().ready {
            return self.make_group(ctx);
        }
        let live = ctx.model.live();
        let topics: Vec<(String, i32)> = live
            .into_iter()
            .filter(|(name, _)| name.starts_with('t') && ctx.model.generation(name) == Some(1))
            .collect();
        let mover = self.mover();
        if std::mem::take(&mut mover.quiet) || mover.drains && !mover.looked {
            mover.looked = mover.drains;
            let known = ctx.model.moved.places.keys();
            let mine = known.filter(|(owner, _)| mover.owns(owner));
            mover.steps = mine
                .map(|(group, queue)| Step::Query(group.clone(), queue.clone()))
                .collect();
            return;
        }
        if let Some(step) = self.mover().steps.pop_front() {
            let (Step::Late(queue) | Step::Pull(queue) | Step::Query(_, queue)) = &step;
            if topics.iter().any(|(name, _)| *name == queue.0) {
                self.take_step(ctx, step);
            }
            return;
        }
        if topics.is_empty() || self.mover().drains {
            return;
        }
        let (topic, queues) = ctx.rng.pick(&topics).clone();
        let queue = (topic.clone(), ctx.rng.below(queues as u64) as i32);
        match ctx.rng.below(100) {
            0..25 => self.reset(ctx, topic, queues),
            25..60 => self.take_step(ctx, Step::Pull(queue)),
            60..70 => self.commit_move(ctx, &queue, false),
            70..80 => {
                let own = self.mover().group();
                let group = if ctx.rng.percent(70) {
                    own
                } else {
                    clone_of(&own)
                };
                self.take_step(ctx, Step::Query(group, queue));
            }
            80..84 => self.clone_offsets(ctx, topic),
            84..90 => {
                let (code, what) = match ctx.rng.percent(50) {
                    true => (303, What::Times(topic.clone())),
                    false => (208, What::Stats(topic.clone())),
                };
                let group = self.mover().group();
                let fields = |w: &mut FrameWriter<'_>| {
                    w.field_str("topic", &topic);
                    w.field_str(
                        if code == 303 {
                            "group"
                        } else {
                            "consumerGroup"
                        },
                        &group,
                    );
                };
                self.ask_move(ctx, code, what, fields, b"");
            }
            _ => self.ask_member(ctx, &topic),
        }
    }

    fn make_group(&mut self, ctx: &mut Ctx<'_>) {
        let mover = self.mover();
        let (group, id) = (mover.group(), mover.client_id());
        if !mover.online {
            let body = format!(r#"{{"groupName":"{group}"}}"#);
            return self.ask_move(ctx, 200, What::Ready, |_| {}, body.as_bytes());
        }
        let topics =
            (0..4).map(|n| format!(r#"{{"topic":"t{n}","subString":"*","subVersion":1}}"#));
        let topics = topics.collect::<Vec<_>>().join(",");
        let body = format!(
            r#"{{"clientID":"{id}","consumerDataSet":[{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{topics}]}}],"producerDataSet":[]}}"#
        );
        self.ask_move(ctx, 34, What::Ready, |_| {}, body.as_bytes());
    }

    fn take_step(&mut self, ctx: &mut Ctx<'_>, step: Step) {
        match step {
            Step::Late(queue) => self.commit_move(ctx, &queue, true),
            Step::Query(group, queue) => {
                let fields = |w: &mut FrameWriter<'_>| {
                    w.field_str("consumerGroup", &group);
                    w.field_str("topic", &queue.0);
                    w.field_i64("queueId", i64::from(queue.1));
                    w.field_bool("setZeroIfNotFound", false);
                };
                let what = What::Query(group.clone(), queue.clone());
                self.ask_move(ctx, 14, what, fields, b"");
            }
            Step::Pull(queue) => self.pull_moved(ctx, queue),
        }
    }

    fn reset(&mut self, ctx: &mut Ctx<'_>, topic: String, queues: i32) {
        let queue = ctx
            .rng
            .percent(60)
            .then(|| ctx.rng.below(queues as u64) as i32);
        let wanted = queue.map_or(0..queues, |queue| queue..queue + 1);
        let floors = wanted
            .clone()
            .map(|queue| ctx.model.floor_end(&(topic.clone(), queue)));
        let floors: Vec<i64> = floors.collect();
        let target = match (queue, ctx.rng.below(100)) {
            (Some(_), 0..40) => Target::Offset(ctx.rng.below(floors[0] as u64 + 1) as i64),
            (Some(_), 40..45) => Target::Beyond(floors[0] + 100_000),
            (_, 0..65) => Target::Time(-1),
            (_, 65..75) => Target::Time(0),
            _ => Target::Time(some_time(ctx, &topic)),
        };
        let mover = self.mover();
        let group = mover.group();
        for queue in wanted {
            let place = ctx.model.moved.place(&group, &(topic.clone(), queue));
            place.doubt = (ctx.life, ctx.now + DOUBT_US);
        }
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("topic", &topic);
            w.field_str("group", &group);
            w.field_i64("queueId", i64::from(queue.unwrap_or(-1)));
            w.field_bool("isForce", true);
            match target {
                Target::Time(ms) => w.field_i64("timestamp", ms),
                Target::Offset(offset) | Target::Beyond(offset) => {
                    w.field_i64("timestamp", 0);
                    w.field_i64("offset", offset);
                }
            }
        };
        let what = What::Reset(Reset {
            topic: topic.clone(),
            queue,
            target,
            floors,
        });
        self.ask_move(ctx, 222, what, fields, b"");
    }

    /// A commit of where the consumer is, or of a place that a reset has made old.
    fn commit_move(&mut self, ctx: &mut Ctx<'_>, queue: &Queue, late: bool) {
        let group = self.mover().group();
        let (floor, now, life) = (ctx.model.floor_end(queue), ctx.now, ctx.life);
        let some = ctx.rng.below(floor as u64 + 1) as i64;
        let awaited = ctx.rng.percent(70);
        let place = ctx.model.moved.place(&group, queue);
        let value = match place.next {
            Some(next) if !late => next,
            _ => some,
        };
        // Who has gone on from a reset would lose messages by an old place.
        if late && place.news != News::Due(life) || !late && place.next.is_none() {
            return;
        }
        // While a reset is news it must not count.
        if place.is_doubtful(now, life) || place.news != News::Due(life) {
            place.maybe.push(value);
        }
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", &group);
            w.field_str("topic", &queue.0);
            w.field_i64("queueId", i64::from(queue.1));
            w.field_i64("commitOffset", value);
        };
        match awaited {
            true => self.ask_move(ctx, 15, What::Commit(queue.clone(), value), fields, b""),
            false => self.ask(ctx, 15, None, fields, b""),
        }
    }

    fn pull_moved(&mut self, ctx: &mut Ctx<'_>, queue: Queue) {
        let group = self.mover().group();
        let (floor, now, life) = (ctx.model.floor_end(&queue), ctx.now, ctx.life);
        let some = ctx.rng.below(floor as u64 + 1) as i64;
        let old_commit = ctx.rng.percent(40);
        let place = ctx.model.moved.place(&group, &queue);
        let due = place.news == News::Due(life) && !place.is_doubtful(now, life);
        if place.news != News::Perhaps && place.news != News::Due(life) {
            place.news = News::None;
        }
        let from = match place.next {
            // Somewhere else than where the reset went.
            _ if due => some,
            Some(next) => next,
            None => return self.take_step(ctx, Step::Query(group, queue)),
        };
        let commits = old_commit && (due || place.news == News::None);
        if commits && !due {
            place.maybe.push(from);
        }
        let header = PullHeader {
            consumer_group: Text::plain(&group),
            topic: Text::plain(&queue.0),
            queue_id: queue.1,
            queue_offset: from,
            max_msg_nums: 8,
            sys_flag: FLAG_SUBSCRIPTION | if commits { FLAG_COMMIT_OFFSET } else { 0 },
            commit_offset: if commits { from } else { 0 },
            suspend_timeout_ms: 0,
            subscription: Some(Text::plain("*")),
            sub_version: 1,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
            lite_topic: None,
        };
        let what = What::Pull(queue.clone(), from, floor);
        self.ask_move(ctx, 11, what, |w| header.encode(w), b"");
    }

    fn clone_offsets(&mut self, ctx: &mut Ctx<'_>, topic: String) {
        let group = self.mover().group();
        let clone = clone_of(&group);
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("srcGroup", &group);
            w.field_str("destGroup", &clone);
            w.field_str("topic", &topic);
        };
        self.ask_move(ctx, 314, What::Clone(topic.clone()), fields, b"");
    }

    /// Asks some member, this one too, through the broker.
    fn ask_member(&mut self, ctx: &mut Ctx<'_>, topic: &str) {
        let number = ctx.rng.below(MOVERS);
        let other = Mover::new(number, true);
        let (group, id) = (other.group(), other.client_id());
        let known = ctx.model.any_known(ctx.rng);
        let (code, what) = match (ctx.rng.below(3), &known) {
            (0, _) => (223, What::Status(id.clone())),
            (1, Some(_)) => (309, What::Direct(id.clone())),
            _ => (307, What::Running(id.clone())),
        };
        let fields = |w: &mut FrameWriter<'_>| {
            if code == 223 {
                w.field_str("topic", topic);
                w.field_str("group", &group);
                return;
            }
            w.field_str("consumerGroup", &group);
            w.field_str("clientId", &id);
            if let Some((queue, _, physical)) = known.as_ref().filter(|_| code == 309) {
                let id = OffsetId {
                    store_host: BROKER.parse().expect("an address"),
                    physical_offset: *physical,
                };
                w.field_str("msgId", id.to_text().as_str());
                w.field_str("topic", &queue.0);
            }
        };
        self.ask_move(ctx, code, what, fields, b"");
    }

    /// The broker asks a member something: 221, 307 or 309.
    pub fn member_asked(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>) -> Check {
        let mover = self.mover();
        let (group, id) = (mover.group(), mover.client_id());
        let text = |key| command.ext.find(key).map(|text| text.to_string());
        let named = text("group").or(text("consumerGroup"));
        ensure!(
            named.as_deref() == Some(&group),
            "{id} is asked {} about {named:?}",
            command.code
        );
        // Every answer is another one.
        *ctx.opaque += 1;
        let part = match command.code {
            221 => format!(r#""topic":"t0"}}:{}}}"#, *ctx.opaque),
            _ => format!(r#""told":{}}}"#, *ctx.opaque),
        };
        let told = match command.code {
            221 => {
                format!(r#"{{"messageQueueTable":{{{{"brokerName":"broker-a","queueId":0,{part}}}"#)
            }
            _ => format!("{{{part}"),
        };
        if command.code == 309 {
            let record = RecordView::parse(command.body).map_err(|error| error.to_string())?;
            ctx.model.check_content(&record)?;
            let wanted = text("msgId").and_then(|id| OffsetId::parse(&id));
            let wanted = wanted.map(|id| id.physical_offset);
            ensure!(
                wanted == Some(record.physical_offset()),
                "is to consume {wanted:?}, got {}",
                record.physical_offset()
            );
        }
        let telling = ctx.model.moved.told.entry(id).or_default();
        telling.push((ctx.now, part));
        ctx.reply(command, SUCCESS, told.as_bytes());
        Ok(())
    }

    pub fn move_failed(&mut self, asked: AskedMove, model: &mut Model) {
        let group = self.mover().group();
        match asked.what {
            What::Reset(reset) => {
                for (_, place) in places_of(model, &group, &reset.topic, reset.queue) {
                    place.forget();
                }
            }
            What::Pull(queue, ..) => {
                let place = model.moved.place(&group, &queue);
                if place.news != News::None {
                    place.news = News::Perhaps;
                }
                place.next = None;
            }
            What::Clone(topic) => {
                for (_, place) in places_of(model, &clone_of(&group), &topic, None) {
                    place.value = None;
                    place.doubt = (asked.life, asked.at + DOUBT_US);
                }
            }
            What::Ready => self.mover().ready = false,
            _ => {}
        }
    }

    /// The connection is gone.
    pub fn mover_left(&mut self, model: &mut Model) {
        let mover = self.mover();
        (mover.ready, mover.quiet) = (!mover.online && mover.ready, true);
        model.moved.online.remove(&mover.client_id());
        let group = mover.group();
        for ((owner, _), place) in &mut model.moved.places {
            if *owner == group {
                place.next = None;
            }
        }
    }

    pub fn move_answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: AskedMove,
        command: &Command<'_>,
    ) -> Check {
        let AskedMove { what, at, life } = asked;
        ensure!(life == ctx.life, "asked in another life of the broker");
        let lost = ctx.lossy || ctx.failed[0].is_some();
        if command.code == NO_GROUP && lost {
            self.mover().ready = false;
            let asked = AskedMove { what, at, life };
            self.move_failed(asked, ctx.model);
            return Ok(());
        }
        let group = self.mover().group();
        match what {
            What::Ready => {
                ensure!(command.code == SUCCESS, "code {}", command.code);
                let mover = self.mover();
                mover.ready = true;
                if mover.online {
                    ctx.model.moved.online.insert(mover.client_id(), ctx.now);
                }
                Ok(())
            }
            What::Reset(reset) => self.was_reset(ctx, &reset, command),
            What::Pull(queue, from, floor) => self.moved_pulled(ctx, &queue, from, floor, command),
            What::Commit(queue, value) => {
                if ctx.model.generation(&queue.0) != Some(1) {
                    return Ok(());
                }
                expect_success(command)?;
                let place = ctx.model.moved.place(&group, &queue);
                if place.news == News::None && !place.is_doubtful(ctx.now, life) {
                    place.set(value, ctx.now);
                }
                Ok(())
            }
            What::Query(group, queue) => moved_queried(ctx, &group, &queue, command),
            What::Clone(topic) => cloned(ctx, &group, &topic, command),
            What::Times(topic) => spans(ctx, &group, &topic, command),
            What::Stats(topic) => stats(ctx, &group, &topic, command),
            What::Status(id) | What::Running(id) | What::Direct(id) => {
                member_told(ctx, &id, at, command)
            }
        }
    }

    fn was_reset(&mut self, ctx: &mut Ctx<'_>, reset: &Reset, command: &Command<'_>) -> Check {
        let (topic, group) = (&reset.topic, self.mover().group());
        if ctx.model.generation(topic) != Some(1) {
            return Ok(());
        }
        for (_, place) in places_of(ctx.model, &group, topic, reset.queue) {
            place.doubt = (0, 0);
        }
        if matches!(reset.target, Target::Beyond(_)) {
            let code = command.code;
            ensure!(
                code == SYSTEM_ERROR,
                "beyond the end of {topic}: code {code}"
            );
            return Ok(());
        }
        expect_success(command)?;
        let told: ResetOffsets =
            json::from_slice(command.body).map_err(|error| error.to_string())?;
        let told = told.offset_table.into_iter();
        let told: BTreeMap<i32, i64> = told
            .map(|(queue, offset)| (queue.queue_id, offset))
            .collect();
        let first = reset.queue.unwrap_or(0);
        let wanted: Vec<i32> = (first..first + reset.floors.len() as i32).collect();
        let answered: Vec<i32> = told.keys().copied().collect();
        ensure!(
            answered == wanted,
            "of queues {wanted:?} of {topic} {answered:?} are told"
        );
        for ((queue, offset), floor) in told.into_iter().zip(&reset.floors) {
            let queue = (topic.clone(), queue);
            check_target(ctx, &queue, reset.target, offset, *floor)?;
            let place = ctx.model.moved.place(&group, &queue);
            place.set(offset, ctx.now);
            place.news = News::Due(ctx.life);
            place.next = Some(offset);
            if ctx.rng.percent(60) {
                let more = [
                    Step::Late(queue.clone()),
                    Step::Query(group.clone(), queue.clone()),
                    Step::Pull(queue.clone()),
                    Step::Pull(queue.clone()),
                ];
                let more = more.into_iter().filter(|_| ctx.rng.percent(70));
                self.mover().steps.extend(more);
            }
        }
        Ok(())
    }

    fn moved_pulled(
        &mut self,
        ctx: &mut Ctx<'_>,
        queue: &Queue,
        from: i64,
        floor: i64,
        command: &Command<'_>,
    ) -> Check {
        if ctx.model.generation(&queue.0) != Some(1) {
            return Ok(());
        }
        let group = self.mover().group();
        let (now, life, lossy) = (ctx.now, ctx.life, ctx.lossy);
        let place = ctx.model.moved.place(&group, queue);
        let doubtful = place.is_doubtful(now, life);
        let due = place.news == News::Due(life) && !doubtful;
        let value = place.value.map(|(value, _)| value);
        let code = command.code;
        ensure!(
            !due || code == PULL_MOVED,
            "{queue:?}: moved to {value:?}, but a pull from {from} was answered {code}"
        );
        let was = std::mem::replace(&mut place.news, News::None);
        match code {
            PULL_MOVED => {
                let next = number(command, "nextBeginOffset")?;
                ensure!(
                    was != News::None || doubtful || lossy,
                    "{queue:?}: {from} to {next}, but nobody moved the group"
                );
                ensure!(
                    !due || value == Some(next),
                    "{queue:?}: moved to {value:?}, a pull was told {next}"
                );
                place.next = Some(next);
                Ok(())
            }
            PULL_NOT_FOUND => {
                ensure!(
                    floor <= from,
                    "{queue:?}: nothing at {from}, it ended at {floor}"
                );
                Ok(())
            }
            SUCCESS => {
                let mut next = from;
                for record in RecordView::iter(command.body) {
                    let record = record.map_err(|error| format!("{queue:?}: {error}"))?;
                    let offset = record.queue_offset();
                    ensure!(offset == next, "{queue:?}: {offset} follows {next}");
                    ctx.model.seen(queue, &record, now)?;
                    if let Some(uid) = uid_of(&record) {
                        ctx.model.read(&queue.0, uid, now);
                    }
                    let stored = ctx.model.moved.stored.entry(queue.clone()).or_default();
                    stored.insert(offset, record.store_timestamp());
                    next += 1;
                }
                ensure!(next > from, "{queue:?}: found, but nothing is there");
                ctx.counts.pulled += (next - from) as u64;
                ctx.model.moved.place(&group, queue).next = Some(next);
                Ok(())
            }
            code => Err(format!("{queue:?}: code {code}: {}", remark_of(command))),
        }
    }
}

fn clone_of(group: &str) -> String {
    format!("{group}-copy")
}

fn expect_success(command: &Command<'_>) -> Check {
    let (code, remark) = (command.code, remark_of(command));
    ensure!(code == SUCCESS, "code {code}: {remark}");
    Ok(())
}

/// A time about which something may be known.
fn some_time(ctx: &mut Ctx<'_>, topic: &str) -> i64 {
    let known = ctx.model.moved.stored.iter();
    let known = known.filter(|((name, _), _)| name == topic);
    let times: Vec<i64> = known
        .flat_map(|(_, times)| times.values().copied())
        .collect();
    match times.is_empty() || ctx.rng.percent(20) {
        true => WALL_MS + ctx.rng.below(ctx.now / 1000 + 1) as i64,
        false => *ctx.rng.pick(&times) + ctx.rng.below(3) as i64 - 1,
    }
}

fn places_of<'a>(
    model: &'a mut Model,
    group: &'a str,
    topic: &'a str,
    queue: Option<i32>,
) -> impl Iterator<Item = (i32, &'a mut Place)> {
    let places = model.moved.places.iter_mut();
    let mine = places.filter(move |((owner, (name, id)), _)| {
        owner == group && name == topic && queue.is_none_or(|queue| queue == *id)
    });
    mine.map(|((_, (_, id)), place)| (*id, place))
}

fn check_target(ctx: &Ctx<'_>, queue: &Queue, target: Target, offset: i64, floor: i64) -> Check {
    match target {
        Target::Offset(wanted) | Target::Beyond(wanted) => {
            ensure!(offset == wanted, "{queue:?}: to {offset}, not {wanted}");
        }
        Target::Time(-1) => ensure!(offset >= floor, "{queue:?}: to {offset}, ended at {floor}"),
        Target::Time(ms) => {
            let stored = ctx.model.moved.stored.get(queue);
            for (at, stored_ms) in stored.into_iter().flatten() {
                // What nobody was shown when this was asked may have been stored, and counts later.
                let unseen = *at >= floor && *at >= offset;
                ensure!(
                    unseen || (*at < offset) == (*stored_ms < ms),
                    "{queue:?}: to {offset} for {ms}, but {at} was stored at {stored_ms}"
                );
            }
        }
    }
    Ok(())
}

fn moved_queried(ctx: &mut Ctx<'_>, group: &str, queue: &Queue, command: &Command<'_>) -> Check {
    if ctx.model.generation(&queue.0) != Some(1) {
        return Ok(());
    }
    let told = match command.code {
        SUCCESS => Some(number(command, "offset")?),
        NOT_FOUND => None,
        code => return Err(format!("{queue:?}: code {code}: {}", remark_of(command))),
    };
    let (now, life) = (ctx.now, ctx.life);
    let place = ctx.model.moved.place(group, queue);
    if place.is_doubtful(now, life) {
        return Ok(());
    }
    if let Some((value, since)) = place.value {
        let may = told == Some(value) || told.is_some_and(|told| place.maybe.contains(&told));
        ensure!(
            may,
            "{group} is at {value} of {queue:?} since {since}, perhaps at {:?}, is told {told:?} \
             ({:?})",
            place.maybe,
            place.news
        );
    }
    if let Some(told) = told {
        place.set(told, now);
    }
    if !matches!(place.news, News::Due(at) if at == life) {
        place.next = Some(told.unwrap_or(0));
    }
    Ok(())
}

fn cloned(ctx: &mut Ctx<'_>, group: &str, topic: &str, command: &Command<'_>) -> Check {
    if ctx.model.generation(topic) != Some(1) {
        return Ok(());
    }
    expect_success(command)?;
    let (now, life) = (ctx.now, ctx.life);
    let known: Vec<(i32, Option<i64>)> = places_of(ctx.model, group, topic, None)
        .map(|(queue, place)| {
            let exact = place.maybe.is_empty() && !place.is_doubtful(now, life);
            let value = place.value.filter(|_| exact);
            (queue, value.map(|(value, _)| value))
        })
        .collect();
    for (queue, value) in known {
        let queue = (topic.to_owned(), queue);
        let place = ctx.model.moved.place(&clone_of(group), &queue);
        place.value = None;
        place.maybe.clear();
        if let Some(value) = value {
            place.set(value, now);
        }
    }
    Ok(())
}

/// Where the broker says the group is, if that is known exactly.
fn exact(ctx: &mut Ctx<'_>, group: &str, queue: &Queue) -> Option<i64> {
    let (now, life) = (ctx.now, ctx.life);
    let place = ctx.model.moved.place(group, queue);
    let exact = place.maybe.is_empty() && !place.is_doubtful(now, life);
    place.value.filter(|_| exact).map(|(value, _)| value)
}

fn spans(ctx: &mut Ctx<'_>, group: &str, topic: &str, command: &Command<'_>) -> Check {
    if ctx.model.generation(topic) != Some(1) {
        return Ok(());
    }
    expect_success(command)?;
    let told: TimeSpans = json::from_slice(command.body).map_err(|error| error.to_string())?;
    for span in told.consume_time_span_set {
        let queue = (topic.to_owned(), span.message_queue.queue_id);
        let committed = exact(ctx, group, &queue);
        let stored = ctx.model.moved.stored.get(&queue);
        let at = |offset: i64| stored.and_then(|stored| stored.get(&offset)).copied();
        for (offset, ms) in [
            (Some(0), span.min_time_stamp),
            (
                committed.map(|committed| (committed - 1).max(0)),
                span.consume_time_stamp,
            ),
        ] {
            let known = offset.and_then(at);
            // A busy or broken disk has no time to tell.
            ensure!(
                known.is_none_or(|known| known == ms) || ms == -1,
                "{queue:?}: {offset:?} was stored at {known:?}, is told {ms}"
            );
        }
    }
    Ok(())
}

fn stats(ctx: &mut Ctx<'_>, group: &str, topic: &str, command: &Command<'_>) -> Check {
    if ctx.model.generation(topic) != Some(1) {
        return Ok(());
    }
    expect_success(command)?;
    let told: ConsumeStats = json::from_slice(command.body).map_err(|error| error.to_string())?;
    for (queue, offset) in told.offset_table {
        let queue = (topic.to_owned(), queue.queue_id);
        let committed = exact(ctx, group, &queue);
        ensure!(
            committed.is_none_or(|committed| committed == offset.consumer_offset),
            "{group} is at {committed:?} of {queue:?}, the stats say {}",
            offset.consumer_offset
        );
    }
    Ok(())
}

/// What a member said comes to the one who asked, and nothing else does.
fn member_told(ctx: &mut Ctx<'_>, id: &str, asked_at: u64, command: &Command<'_>) -> Check {
    let since = ctx.model.moved.online.get(id);
    let sure = since.is_some_and(|since| *since < asked_at);
    let body = String::from_utf8_lossy(command.body);
    let told = ctx.model.moved.told.get(id);
    let mut lately = told.into_iter().flatten().filter(|(at, _)| *at >= asked_at);
    let heard = lately.any(|(_, part)| body.contains(part.as_str()));
    ensure!(
        heard || !body.contains("told") && !body.contains("t0"),
        "{id} did not say {body}"
    );
    // A message may be gone with what a power cut took, or unreadable.
    let gone = command.code == NOT_FOUND || *ctx.read_faults > 0;
    let code = command.code;
    ensure!(
        heard && code == SUCCESS || !sure || gone,
        "{id} is a member, but was not heard: code {code}: {}: {body}",
        remark_of(command)
    );
    Ok(())
}
