//! Clients: actors that speak frames, keep what they are owed, and check every answer.

use std::collections::BTreeMap;

use orbitmq::base::LogOffset;
use orbitmq::message::batch::{self, SubMessage};
use orbitmq::message::id::OffsetId;
use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::{Command, FrameWriter};
use orbitmq::remoting::frame::{Codec, frame_len, split};
use orbitmq::remoting::header::pull::{
    FLAG_COMMIT_OFFSET, FLAG_SUBSCRIPTION, FLAG_SUSPEND, PullHeader,
};
use orbitmq::remoting::header::send::SendHeader;
use orbitmq::remoting::text::Text;

use crate::asker::{Answerer, AskedReply, Asker, QUESTIONS};
use crate::clerk::{AskedNumber, Clerk, PRODUCER};
use crate::lite::{AskedLite, Liter, PARENT, is_parent, light_of, lite_of};
use crate::locker::Locker;
use crate::model::{Check, Life, Model, Sent, body};
use crate::mover::{AskedMove, Mover};
use crate::options::WALL_MS;
use crate::popper::Popper;
use crate::ranker::{AskedRank, QUEUES, Ranker, URGENT, is_urgent};
use crate::rng::Rng;
use crate::seeker::{self, AskedSought, keys, unique_key};
use crate::sifter::{self, Sieve, Traits};
use crate::splitter::{AskedSplit, Splitter};

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 1;
const BUSY: i32 = 2;
const FLUSH_TIMEOUT: i32 = 10;
const NOT_AVAILABLE: i32 = 14;
const NOT_FOUND: i32 = 22;
const NO_GROUP: i32 = 26;
const PULL_NOT_FOUND: i32 = 19;
const PULL_AGAIN: i32 = 20;
const PULL_MOVED: i32 = 21;

/// Longer than anything may take: an answer that is not there by then was lost.
const PATIENCE_US: u64 = 6_000_000;

/// Bits of `sysFlag`, and what END_TRANSACTION says (`MessageSysFlag`).
const PREPARED: i32 = 4;
const COMMIT: i64 = 8;
const ROLLBACK: i64 = 12;

type Queue = (String, i32);

/// What clients share with the world during one call.
pub struct Ctx<'a> {
    pub now: u64,
    pub rng: &'a mut Rng,
    pub model: &'a mut Model,
    pub frames: &'a mut Vec<Vec<u8>>,
    pub opaque: &'a mut i32,
    pub uids: &'a mut u64,
    /// When the disk of a shard failed.
    pub failed: &'a [Option<u64>],
    /// A fault may have stopped writes for a while.
    pub excused: bool,
    /// A read fault was put in since the start: one answer may say so.
    pub read_faults: &'a mut u64,
    /// A power cut under `ASYNC_FLUSH` happened: groups may be gone.
    pub lossy: bool,
    /// Counts starts of the broker.
    pub life: u64,
    pub config: &'a Traffic,
    pub counts: &'a mut Counts,
}

#[derive(Default)]
pub struct Counts {
    pub acked: u64,
    pub pulled: u64,
    pub refused: u64,
    pub timeouts: u64,
}

/// What the clients of a seed do.
pub struct Traffic {
    pub body_bytes: (u64, u64),
    pub big_percent: u64,
    pub big_bytes: u64,
    pub think_us: u64,
    pub topics: u64,
    pub delays: bool,
    pub deletes: bool,
    pub transactions: bool,
    /// One topic keeps unique keys once.
    pub guards: bool,
    /// Whether messages go to light queues as well.
    pub lights: bool,
    /// Whether one topic has lite topics.
    pub lites: bool,
    /// Members that lock queues.
    pub lockers: u64,
    /// Whether operators move groups.
    pub moves: bool,
    /// Whether clients ask each other.
    pub questions: bool,
    /// Whether there are priority messages.
    pub ranks: bool,
    /// What members of one group may want, none if there are no members; and whether the broker
    /// refuses those who want something else.
    pub wishes: u64,
    pub refuses: bool,
    /// Whether somebody looks for messages by key and time.
    pub seeks: bool,
    /// Whether somebody reads the broker's numbers.
    pub counts: bool,
    /// Consumers that say in SQL92 what they want.
    pub sifters: u64,
    /// Consumers that pop; two of them are of one group.
    pub poppers: u64,
}

pub enum Role {
    Producer { retry: Vec<Load> },
    Consumer(Consumer),
    Admin { made: u64 },
    Auditor,
    Seeker,
    Clerk(Clerk),
    Popper(Popper),
    Liter(Liter),
    Locker(Locker),
    Mover(Mover),
    Asker(Asker),
    Answerer(Answerer),
    Ranker(Ranker),
    Splitter(Splitter),
}

/// Messages of one request.
#[derive(Clone)]
pub struct Load {
    uids: Vec<u64>,
    topic: String,
    queue: i32,
    level: usize,
    transaction: bool,
    oneway: bool,
    tries: u32,
    /// Of the topic when the queue was chosen.
    generation: u64,
}

pub struct Consumer {
    pub group: String,
    joined: bool,
    joined_once: bool,
    queues: BTreeMap<Queue, Place>,
    /// Reads everything from 0 on, for the end of a run.
    pub fresh: bool,
    /// It wants a part only.
    pub sieve: Option<Sieve>,
}

#[derive(Default)]
struct Place {
    generation: u64,
    next: Option<i64>,
    waiting: bool,
}

pub enum Asked {
    Send(Load, Option<u64>),
    Pull {
        queue: Queue,
        generation: Option<u64>,
        from: i64,
        floor: i64,
        begin: i64,
        group: String,
        mine: bool,
    },
    Query {
        queue: Queue,
        generation: Option<u64>,
        floor: Option<i64>,
    },
    Commit {
        queue: Queue,
        generation: Option<u64>,
        value: i64,
    },
    End {
        queue: Queue,
        generation: Option<u64>,
        floor: i64,
    },
    Create {
        topic: String,
        queues: i32,
    },
    Delete {
        topic: String,
    },
    Back {
        uid: u64,
        group: String,
    },
    View {
        known: Option<(Queue, u64)>,
        physical: i64,
    },
    /// END_TRANSACTION.
    Decide {
        uid: u64,
        commit: bool,
    },
    Pop {
        topic: String,
        generation: Option<u64>,
    },
    PopAck {
        uid: u64,
        until_ms: i64,
    },
    PopChange {
        uid: u64,
    },
    Lite(AskedLite),
    Move(AskedMove),
    Reply(AskedReply),
    Rank(AskedRank),
    Split(AskedSplit),
    Sought(AskedSought),
    Number(AskedNumber),
    Lock,
    Unlock,
    Join,
    Other,
}

struct Pending {
    asked: Asked,
    at: u64,
}

pub struct Client {
    pub role: Role,
    pub wire: Option<u64>,
    codec: Codec,
    pending: BTreeMap<i32, Pending>,
    buffer: Vec<u8>,
    next_heartbeat: u64,
    /// A heartbeat of this connection was answered.
    online: bool,
}

/// Messages of a seed: what comes late finds no more than what came before.
const MESSAGES_MAX: u64 = 1_500;

/// Its name begins as no other does.
pub const GUARDED: &str = "g0";

/// Whether the topic has `dedup.window`.
pub fn is_guarded(topic: &str) -> bool {
    topic == GUARDED
}

/// Light queues: topics to the model that nobody makes.
pub const LIGHTS: [&str; 4] = ["%LMQ%0", "%LMQ%1", "%LMQ%2", "%LMQ%3"];

/// The offsets of a message in light queues, as it tells them itself.
pub fn light_offsets(record: &RecordView<'_>) -> Vec<(String, i64)> {
    let text = |name| properties::find_str(record.properties(), name).unwrap_or_default();
    let names = text("INNER_MULTI_DISPATCH").split(',');
    let offsets = text("INNER_MULTI_QUEUE_OFFSET").split(',');
    let pairs = names.zip(offsets).filter(|(name, _)| !name.is_empty());
    pairs
        .map(|(name, at)| (name.to_owned(), at.parse().unwrap_or(i64::MIN)))
        .collect()
}

/// The offset of a record that came from a queue.
pub fn offset_in(queue: &str, record: &RecordView<'_>) -> Result<i64, String> {
    if !LIGHTS.contains(&queue) {
        return Ok(record.queue_offset());
    }
    let told = light_offsets(record);
    let told = told.iter().find(|(name, _)| name == queue);
    let told = told.ok_or(format!("{queue}: a message that does not name it"))?;
    Ok(told.1)
}

/// A delay level from here on stands for a timer.
const TIMER: usize = 10;

/// Makes up a message; gives its number.
fn invent(ctx: &mut Ctx<'_>, topic: &str, delayed: bool, transaction: bool) -> u64 {
    *ctx.uids += 1;
    let big = ctx.rng.percent(ctx.config.big_percent);
    let (low, high) = ctx.config.body_bytes;
    let len = if big {
        ctx.config.big_bytes
    } else {
        ctx.rng.range(low, high)
    };
    let sent = Sent {
        topic: topic.to_owned(),
        len: len as usize,
        tag: sifter::tag(*ctx.uids).to_owned(),
        attempts: 0,
        repeats: delayed,
        decision: transaction.then(|| ctx.rng.percent(60)),
        committing: false,
        acked: None,
        decisions: 0,
        lights: Vec::new(),
    };
    ctx.model.sent.insert(*ctx.uids, sent);
    *ctx.uids
}

/// Properties of a message as text.
fn properties_of(load: &Load, sent: &Sent, uid: u64) -> String {
    let (keys, tag) = (keys(uid), &sent.tag);
    let mut text = format!("KEYS\u{1}{keys}\u{2}TAGS\u{1}{tag}\u{2}");
    text.push_str(&Traits::of(uid).properties());
    if let Some(key) = unique_key(&load.topic, uid) {
        text.push_str(&format!("UNIQ_KEY\u{1}{key}\u{2}"));
    }
    if is_parent(&load.topic) {
        text.push_str(&format!("__LITE_TOPIC\u{1}{}\u{2}", lite_of(uid)));
    } else if !sent.lights.is_empty() {
        let names = sent.lights.join(",");
        text.push_str(&format!("INNER_MULTI_DISPATCH\u{1}{names}\u{2}"));
    }
    push_kind(load, &mut text);
    text
}

/// The properties that make a message a delayed one, or a half.
fn push_kind(load: &Load, text: &mut String) {
    if let Some(steps) = load.level.checked_sub(TIMER) {
        let wait_ms = 10 * (steps + 1);
        text.push_str(&format!("TIMER_DELAY_MS\u{1}{wait_ms}\u{2}"));
    } else if load.level > 0 {
        text.push_str(&format!("DELAY\u{1}{}\u{2}", load.level));
    }
    if load.transaction {
        text.push_str("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}");
    }
}

impl Client {
    pub fn new(role: Role, rng: &mut Rng) -> Client {
        let codec = *rng.pick(&[Codec::Json, Codec::Binary]);
        Client {
            role,
            wire: None,
            codec,
            pending: BTreeMap::new(),
            buffer: Vec::new(),
            next_heartbeat: 0,
            online: false,
        }
    }

    /// Of whom its heartbeats tell.
    fn member_of(&self) -> Option<&str> {
        match &self.role {
            Role::Consumer(consumer) => Some(&consumer.group),
            Role::Producer { .. } => Some(PRODUCER),
            _ => None,
        }
    }

    pub fn consumer(group: &str, fresh: bool, rng: &mut Rng) -> Client {
        let group = group.to_owned();
        let consumer = Consumer {
            group,
            joined: false,
            joined_once: false,
            queues: BTreeMap::new(),
            fresh,
            sieve: None,
        };
        Client::new(Role::Consumer(consumer), rng)
    }

    /// The connection is gone with everything that was asked on it.
    pub fn disconnected(&mut self, model: &mut Model) {
        self.wire = None;
        self.buffer.clear();
        self.next_heartbeat = 0;
        if std::mem::take(&mut self.online)
            && let Some(group) = self.member_of()
        {
            model.ledger.went(group);
        }
        if let Role::Clerk(clerk) = &mut self.role {
            clerk.forget();
        }
        for (_, pending) in std::mem::take(&mut self.pending) {
            self.failed(pending.asked, model);
        }
        match &mut self.role {
            Role::Consumer(consumer) => {
                consumer.joined = false;
                let places = consumer.queues.values_mut();
                places.for_each(|place| place.waiting = false);
                if consumer.sieve.as_mut().is_some_and(Sieve::begins_again) && !consumer.fresh {
                    let places = consumer.queues.values_mut();
                    places.for_each(|place| place.next = None);
                }
            }
            Role::Mover(_) => self.mover_left(model),
            Role::Asker(_) => self.asker_left(model),
            Role::Splitter(_) => self.splitter_left(model),
            _ => {}
        }
    }

    /// The same consumer, that wants a part only.
    pub fn sifting(mut self, rng: &mut Rng) -> Client {
        if let Role::Consumer(consumer) = &mut self.role {
            consumer.sieve = Some(Sieve::new(rng));
        }
        self
    }

    /// After an allowed loss nothing a consumer remembers counts.
    pub fn forget(&mut self) {
        match &mut self.role {
            Role::Consumer(consumer) => {
                consumer.queues.clear();
                consumer.sieve.iter_mut().for_each(Sieve::forget);
            }
            Role::Answerer(answerer) => answerer.forget(),
            _ => {}
        }
    }

    fn failed(&mut self, asked: Asked, model: &mut Model) {
        match (asked, &mut self.role) {
            (Asked::Move(asked), _) => self.move_failed(asked, model),
            (Asked::Rank(asked), _) => self.rank_failed(&asked, model),
            (Asked::Split(asked), _) => self.split_failed(&asked, model),
            (Asked::Send(mut load, _), Role::Producer { retry }) if load.tries < 3 => {
                load.tries += 1;
                retry.push(load);
            }
            (
                Asked::Pull {
                    queue, mine: true, ..
                },
                Role::Consumer(consumer),
            ) => {
                if let Some(place) = consumer.queues.get_mut(&queue) {
                    place.waiting = false;
                }
            }
            (Asked::Query { queue, .. }, Role::Consumer(consumer)) => {
                if let Some(place) = consumer.queues.get_mut(&queue) {
                    place.waiting = false;
                }
            }
            (Asked::Unlock, Role::Locker(locker)) => locker.retired = true,
            (Asked::Join, Role::Consumer(consumer)) => consumer.joined = false,
            _ => {}
        }
    }

    /// Something to do, on an open connection. Gives the time until the next call, µs.
    pub fn wake(&mut self, ctx: &mut Ctx<'_>) -> Result<u64, String> {
        for (opaque, pending) in &self.pending {
            let waited = ctx.now - pending.at;
            ensure!(
                waited < PATIENCE_US,
                "request {opaque} ({}) got no answer",
                pending.asked.name()
            );
        }
        match &self.role {
            Role::Producer { .. } => self.produce(ctx),
            Role::Consumer(_) => self.consume(ctx),
            Role::Admin { .. } => self.administer(ctx),
            Role::Auditor => self.audit(ctx),
            Role::Seeker => self.seek(ctx),
            Role::Clerk(_) => self.read_numbers(ctx),
            Role::Popper(_) => self.pop(ctx),
            Role::Liter(_) => self.consume_lites(ctx),
            Role::Locker(_) => self.lock_queues(ctx),
            Role::Mover(_) => self.move_groups(ctx),
            Role::Asker(_) => self.ask_questions(ctx),
            Role::Answerer(_) => self.answer_questions(ctx),
            Role::Ranker(_) => self.rank(ctx),
            Role::Splitter(_) => self.split(ctx),
        }
        Ok(ctx
            .rng
            .range(ctx.config.think_us / 4, ctx.config.think_us * 2))
    }

    /// Once a second.
    pub fn is_beat_due(&mut self, ctx: &Ctx<'_>) -> bool {
        let due = ctx.now >= self.next_heartbeat;
        if due {
            self.next_heartbeat = ctx.now + 1_000_000;
        }
        due
    }

    pub fn waiting_answers(&self) -> usize {
        self.pending.len()
    }

    /// Writes a request and remembers that it is owed an answer.
    pub fn ask(
        &mut self,
        ctx: &mut Ctx<'_>,
        code: i32,
        asked: Option<Asked>,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) {
        *ctx.opaque += 1;
        let opaque = *ctx.opaque;
        let mut frame = Vec::new();
        let mut w = FrameWriter::request(&mut frame, self.codec, opaque, code, asked.is_none());
        fields(&mut w);
        w.finish_with_body(body);
        ctx.frames.push(frame);
        if let Some(asked) = asked {
            self.pending.insert(opaque, Pending { asked, at: ctx.now });
        }
    }

    fn ask_queue(&mut self, ctx: &mut Ctx<'_>, code: i32, asked: Asked, queue: &Queue) {
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("topic", &queue.0);
            w.field_i64("queueId", i64::from(queue.1));
            w.field_i64("timestamp", 1_700_000_002_000);
        };
        self.ask(ctx, code, Some(asked), fields, b"");
    }

    fn produce(&mut self, ctx: &mut Ctx<'_>) {
        if self.pending.len() >= 6 {
            return;
        }
        if ctx.config.transactions && ctx.now >= self.next_heartbeat {
            self.next_heartbeat = ctx.now + 1_000_000;
            let body =
                r#"{"clientID":"p","consumerDataSet":[],"producerDataSet":[{"groupName":"p"}]}"#;
            return self.ask(ctx, 34, Some(Asked::Join), |_| {}, body.as_bytes());
        }
        let Role::Producer { retry } = &mut self.role else {
            return;
        };
        if !retry.is_empty() && ctx.rng.percent(70) {
            let mut load = retry.remove(0);
            if is_guarded(&load.topic) || is_parent(&load.topic) {
                load.queue = -1;
            }
            return self.send(ctx, load);
        }
        let live: Vec<_> = ctx
            .model
            .live()
            .into_iter()
            .filter(|(name, _)| !name.starts_with('%') && !is_urgent(name))
            .collect();
        if live.is_empty() || *ctx.uids >= MESSAGES_MAX {
            return;
        }
        let (topic, queues) = ctx.rng.pick(&live).clone();
        let queue = ctx.rng.below(queues as u64 + 1) as i32 - 1;
        let most = if ctx.config.big_percent > 0 { 3 } else { 6 };
        let plain = !is_guarded(&topic) && !is_parent(&topic);
        let several = plain && ctx.rng.percent(20);
        let count = if several { ctx.rng.range(2, most) } else { 1 };
        let oneway = count == 1 && ctx.rng.percent(10);
        let delayed = plain && ctx.config.delays && count == 1 && queue >= 0 && ctx.rng.percent(6);
        let transaction = ctx.config.transactions && plain && count == 1 && !oneway && !delayed;
        let transaction = transaction && ctx.rng.percent(15);
        let uids = (0..count).map(|_| invent(ctx, &topic, delayed, transaction));
        let uids: Vec<u64> = uids.collect();
        if is_parent(&topic) {
            let sent = ctx.model.sent.get_mut(&uids[0]);
            sent.expect("just made").lights = vec![light_of(uids[0])];
        }
        if ctx.config.lights && plain && count == 1 && ctx.rng.percent(40) {
            let names = LIGHTS.into_iter().filter(|_| ctx.rng.percent(40));
            let names = names.map(str::to_owned).collect();
            let sent = ctx.model.sent.get_mut(&uids[0]);
            sent.expect("just made").lights = names;
        }
        let level = ctx.delay_level(delayed);
        let generation = ctx.model.generation(&topic).expect("live");
        self.send(
            ctx,
            Load {
                uids,
                topic,
                queue,
                level,
                transaction,
                oneway,
                tries: 0,
                generation,
            },
        );
    }

    /// Sends a message that was made up before, once more or for the first time.
    pub fn send_one(&mut self, ctx: &mut Ctx<'_>, topic: &str, uid: u64) {
        let Some(generation) = ctx.model.generation(topic) else {
            return;
        };
        let load = Load {
            uids: vec![uid],
            topic: topic.to_owned(),
            queue: 0,
            level: 0,
            transaction: false,
            oneway: false,
            tries: 0,
            generation,
        };
        self.send(ctx, load);
    }

    /// The properties of a message.
    fn text(&self, ctx: &Ctx<'_>, load: &Load, uid: u64) -> String {
        let mut text = properties_of(load, &ctx.model.sent[&uid], uid);
        if let Role::Asker(asker) = &self.role {
            text.push_str(&asker.properties(uid));
        }
        text.push_str(&ctx.model.ranks.properties(uid));
        text
    }

    fn send(&mut self, ctx: &mut Ctx<'_>, load: Load) {
        let generation = load.generation;
        if ctx.model.generation(&load.topic) != Some(generation) {
            return;
        }
        let (topic, messages) = (&load.topic, load.uids.len());
        ctx.model.ledger.note_try(topic, generation, messages);
        let mut texts = Vec::new();
        let mut bodies = Vec::new();
        for uid in &load.uids {
            let sent = ctx.model.sent.get_mut(uid).expect("made before");
            sent.attempts += 1;
            let len = sent.len;
            texts.push(self.text(ctx, &load, *uid));
            bodies.push(body(*uid, len));
        }
        let is_batch = load.uids.len() > 1;
        let mut bytes = Vec::new();
        if is_batch {
            for (text, body) in texts.iter().zip(&bodies) {
                batch::append(
                    &mut bytes,
                    SubMessage {
                        flag: 0,
                        body,
                        properties: text.as_bytes(),
                    },
                );
            }
        } else {
            bytes = bodies.remove(0);
        }
        let long = !is_batch && ctx.rng.percent(30);
        let code = if is_batch {
            320
        } else if long {
            10
        } else {
            310
        };
        let header = SendHeader {
            producer_group: Text::plain("p"),
            topic: Text::plain(&load.topic),
            default_topic: Text::plain("TBW102"),
            default_topic_queue_nums: 4,
            queue_id: load.queue,
            sys_flag: if load.transaction { PREPARED } else { 0 },
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: Text::plain(if is_batch { "" } else { &texts[0] }),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: is_batch,
            broker_name: None,
        };
        let asked = (!load.oneway).then(|| Asked::Send(load.clone(), Some(generation)));
        let fields = |w: &mut FrameWriter<'_>| match code {
            10 => header.encode_long(w),
            _ => header.encode_short(w),
        };
        self.ask(ctx, code, asked, fields, &bytes);
    }

    fn consume(&mut self, ctx: &mut Ctx<'_>) {
        let Role::Consumer(consumer) = &mut self.role else {
            return;
        };
        let group = consumer.group.clone();
        let (joined, fresh) = (consumer.joined, consumer.fresh);
        if !joined || ctx.now >= self.next_heartbeat {
            if !self
                .pending
                .values()
                .any(|pending| matches!(pending.asked, Asked::Join))
            {
                self.next_heartbeat = ctx.now + 1_000_000;
                self.heartbeat(ctx, &group);
            }
            if !joined {
                return;
            }
        }
        let mut todo = Vec::new();
        let Role::Consumer(consumer) = &mut self.role else {
            return;
        };
        let retry = format!("%RETRY%{group}");
        for (topic, queues) in ctx.model.live() {
            let light = LIGHTS.contains(&&*topic);
            let foreign = topic.starts_with('%') && topic != retry && !light;
            if foreign && !fresh {
                continue;
            }
            let generation = ctx.model.generation(&topic).expect("live");
            for queue in 0..queues {
                let place = consumer.queues.entry((topic.clone(), queue)).or_default();
                if place.generation != generation {
                    *place = Place {
                        generation,
                        next: None,
                        waiting: false,
                    };
                }
                if !place.waiting {
                    place.waiting = true;
                    todo.push(((topic.clone(), queue), place.next));
                }
            }
        }
        for (queue, next) in todo {
            match next {
                None if fresh => self.pull(ctx, &group, &queue, 0, true, 0),
                None => self.query(ctx, &group, &queue),
                Some(from) => {
                    let hold = if fresh { 0 } else { ctx.rng.below(600) as i64 };
                    self.pull(ctx, &group, &queue, from, true, hold);
                }
            }
        }
    }

    fn heartbeat(&mut self, ctx: &mut Ctx<'_>, group: &str) {
        let all = r#"{"topic":"t0","subString":"*","subVersion":1,"expressionType":"TAG"}"#;
        let sieve = self.sieve("");
        let wanted = sieve.map_or(all.to_owned(), Sieve::subscriptions);
        if let Some(sieve) = sieve {
            let expressions = &mut ctx.model.ledger.expressions;
            expressions.insert(group.to_owned(), sieve.expression);
        }
        let body = format!(
            r#"{{"clientID":"c-{group}","consumerDataSet":[{{"groupName":"{group}","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,"subscriptionDataSet":[{wanted}]}}],"producerDataSet":[]}}"#
        );
        self.ask(ctx, 34, Some(Asked::Join), |_| {}, body.as_bytes());
        let group = group.to_owned();
        let name_group = move |w: &mut FrameWriter<'_>| w.field_str("consumerGroup", &group);
        self.ask(ctx, 38, Some(Asked::Other), name_group, b"");
    }

    fn query(&mut self, ctx: &mut Ctx<'_>, group: &str, queue: &Queue) {
        let asked = Asked::Query {
            queue: queue.clone(),
            generation: ctx.model.generation(&queue.0),
            floor: ctx.model.commit_floor(group, queue),
        };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", group);
            w.field_str("topic", &queue.0);
            w.field_i64("queueId", i64::from(queue.1));
            w.field_bool("setZeroIfNotFound", false);
        };
        self.ask(ctx, 14, Some(asked), fields, b"");
    }

    fn pull(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &str,
        queue: &Queue,
        from: i64,
        mine: bool,
        hold_ms: i64,
    ) {
        let commit = mine && from > 0 && hold_ms > 0 && ctx.rng.percent(30);
        if commit {
            ctx.model.commit_sent(group, queue, from);
        }
        let suspend = if hold_ms > 0 { FLAG_SUSPEND } else { 0 };
        let mut header = PullHeader {
            consumer_group: Text::plain(group),
            topic: Text::plain(&queue.0),
            queue_id: queue.1,
            queue_offset: from,
            max_msg_nums: ctx.rng.range(1, 33) as i32,
            sys_flag: FLAG_SUBSCRIPTION | suspend | if commit { FLAG_COMMIT_OFFSET } else { 0 },
            commit_offset: if commit { from } else { 0 },
            suspend_timeout_ms: hold_ms,
            subscription: Some(Text::plain("*")),
            sub_version: 1,
            expression_type: None,
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
            lite_topic: None,
        };
        let asked = Asked::Pull {
            queue: queue.clone(),
            generation: ctx.model.generation(&queue.0),
            from,
            floor: ctx.model.floor_end(queue),
            begin: ctx.model.begin_of(queue),
            group: group.to_owned(),
            mine,
        };
        let sieve = self.sieve(&queue.0);
        let code = sieve.map_or(11, |sieve| sieve.dress(&mut header, ctx.rng));
        self.ask(ctx, code, Some(asked), |w| header.encode(w), b"");
    }

    fn commit(&mut self, ctx: &mut Ctx<'_>, group: &str, queue: &Queue, value: i64) {
        ctx.model.commit_sent(group, queue, value);
        let asked = Asked::Commit {
            queue: queue.clone(),
            generation: ctx.model.generation(&queue.0),
            value,
        };
        let asked = ctx.rng.percent(60).then_some(asked);
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", group);
            w.field_str("topic", &queue.0);
            w.field_i64("queueId", i64::from(queue.1));
            w.field_i64("commitOffset", value);
        };
        self.ask(ctx, 15, asked, fields, b"");
    }

    fn administer(&mut self, ctx: &mut Ctx<'_>) {
        if !self.pending.is_empty() {
            return;
        }
        let Role::Admin { made } = &mut self.role else {
            return;
        };
        let unsure = ctx
            .model
            .topics
            .iter()
            .find(|(_, topic)| topic.life == Life::Unsure);
        let unsure = unsure.map(|(name, topic)| (name.clone(), topic.queues));
        if let Some((name, queues)) = unsure {
            // Queues say what was wanted: none means that it was to be deleted.
            return match queues {
                0 => self.delete(ctx, name),
                _ => self.create(ctx, name, queues),
            };
        }
        if *made < ctx.config.topics {
            *made += 1;
            let (name, queues) = (format!("t{}", *made - 1), ctx.rng.range(1, 5) as i32);
            return self.create(ctx, name, queues);
        }
        if ctx.config.lights && !ctx.model.topics.contains_key(LIGHTS[0]) {
            for name in LIGHTS {
                ctx.model.topic(name, Life::Unsure, 1, ctx.now);
                ctx.model.topic(name, Life::Live, 1, ctx.now);
            }
        }
        if ctx.config.guards && !ctx.model.topics.contains_key(GUARDED) {
            return self.create(ctx, GUARDED.to_owned(), 4);
        }
        if ctx.config.lites && !ctx.model.topics.contains_key(PARENT) {
            return self.create(ctx, PARENT.to_owned(), 4);
        }
        if ctx.config.questions && !ctx.model.topics.contains_key(QUESTIONS) {
            return self.create(ctx, QUESTIONS.to_owned(), 1);
        }
        if ctx.config.ranks && !ctx.model.topics.contains_key(URGENT) {
            return self.create(ctx, URGENT.to_owned(), QUEUES);
        }
        if !ctx.config.deletes || !ctx.rng.percent(4) {
            return;
        }
        let gone = ctx
            .model
            .topics
            .iter()
            .find(|(_, topic)| topic.life == Life::Gone);
        if let Some(name) = gone.map(|(name, _)| name.clone()) {
            let queues = ctx.rng.range(1, 5) as i32;
            return self.create(ctx, name, queues);
        }
        let live: Vec<_> = ctx
            .model
            .live()
            .into_iter()
            .filter(|(name, _)| name.starts_with('t'))
            .collect();
        if live.len() > 1 {
            let (name, _) = ctx.rng.pick(&live[1..]).clone();
            self.delete(ctx, name);
        }
    }

    fn create(&mut self, ctx: &mut Ctx<'_>, topic: String, queues: i32) {
        ctx.model.topic(&topic, Life::Unsure, queues, ctx.now);
        let name = topic.clone();
        let fields = move |w: &mut FrameWriter<'_>| {
            w.field_str("topic", &name);
            w.field_str("defaultTopic", "TBW102");
            w.field_i64("readQueueNums", i64::from(queues));
            w.field_i64("writeQueueNums", i64::from(queues));
            w.field_i64("perm", 6);
            w.field_str("topicFilterType", "SINGLE_TAG");
            w.field_i64("topicSysFlag", 0);
            w.field_bool("order", false);
            if is_parent(&name) {
                w.field_str("attributes", "+message.type=LITE");
            }
            if is_urgent(&name) {
                w.field_str("attributes", "+message.type=PRIORITY");
            }
            if is_guarded(&name) {
                w.field_str("attributes", "+dedup.window=3600000");
            }
        };
        self.ask(ctx, 17, Some(Asked::Create { topic, queues }), fields, b"");
    }

    fn delete(&mut self, ctx: &mut Ctx<'_>, topic: String) {
        ctx.model.topic(&topic, Life::Unsure, 0, ctx.now);
        let name = topic.clone();
        let fields = move |w: &mut FrameWriter<'_>| w.field_str("topic", &name);
        self.ask(ctx, 215, Some(Asked::Delete { topic }), fields, b"");
    }

    fn audit(&mut self, ctx: &mut Ctx<'_>) {
        if self.pending.len() >= 4 {
            return;
        }
        let Some((queue, offset, physical)) = ctx.model.any_known(ctx.rng) else {
            return;
        };
        let generation = ctx.model.generation(&queue.0);
        match ctx.rng.below(10) {
            0..=3 => self.pull(ctx, "audit", &queue, offset, false, 0),
            4 | 5 => {
                let floor = ctx.model.floor_end(&queue);
                let asked = Asked::End {
                    queue: queue.clone(),
                    generation,
                    floor,
                };
                self.ask_queue(ctx, 30, asked, &queue);
            }
            6 => {
                let code = *ctx.rng.pick(&[29, 31, 32]);
                self.ask_queue(ctx, code, Asked::Other, &queue);
            }
            7 => self.view(
                ctx,
                physical,
                generation.map(|generation| (queue, generation)),
            ),
            8 => {
                let shard = ctx.rng.below(4) << 55;
                let at = match ctx.rng.below(3) {
                    0 => ctx.rng.below(1 << 20),
                    1 => (1 + ctx.rng.below(8)) * (128 << 10) - ctx.rng.below(6),
                    _ => (physical as u64 & ((1 << 55) - 1)).saturating_sub(ctx.rng.below(5000)),
                };
                self.view(ctx, (shard | at) as i64, None);
            }
            _ => {
                let body = r#"{"clientId":"audit","consumerGroup":"audit","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"t0"}]}"#;
                let code = *ctx.rng.pick(&[41, 42, 12345]);
                self.ask(ctx, code, Some(Asked::Other), |_| {}, body.as_bytes());
            }
        }
    }

    fn view(&mut self, ctx: &mut Ctx<'_>, physical: i64, known: Option<(Queue, u64)>) {
        let asked = Asked::View { known, physical };
        self.ask(
            ctx,
            33,
            Some(asked),
            |w| w.field_i64("offset", physical),
            b"",
        );
    }

    /// Bytes from the broker.
    pub fn receive(&mut self, ctx: &mut Ctx<'_>, bytes: &[u8]) -> Check {
        self.buffer.extend_from_slice(bytes);
        loop {
            let len =
                frame_len(&self.buffer).map_err(|error| format!("a broken frame: {error}"))?;
            let Some(len) = len.filter(|len| *len <= self.buffer.len()) else {
                return Ok(());
            };
            let frame: Vec<u8> = self.buffer.drain(..len).collect();
            let frame = split(&frame).map_err(|error| error.to_string())?;
            let command = Command::decode(frame).map_err(|error| error.to_string())?;
            if !command.is_response() {
                self.asked(ctx, &command)?;
                continue;
            }
            let Some(pending) = self.pending.remove(&command.opaque) else {
                return Err(format!(
                    "an answer to {}, which nobody waits for",
                    command.opaque
                ));
            };
            ensure!(command.codec == self.codec, "an answer in the other codec");
            let name = pending.asked.name();
            self.answer(ctx, pending, &command)
                .map_err(|error| format!("{name}: {error}"))?;
        }
    }

    /// The broker asks, or tells, something.
    fn asked(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>) -> Check {
        match (command.code, &self.role) {
            (39, _) => self.asked_about(ctx, command),
            (221 | 307 | 309, Role::Mover(_)) => self.member_asked(ctx, command),
            (326, _) => self.answer_pushed(ctx, command),
            (code, _) => {
                ensure!(command.is_oneway(), "the broker asks {code}");
                Ok(())
            }
        }
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, pending: Pending, command: &Command<'_>) -> Check {
        let code = command.code;
        let remark = || remark_of(command);
        if code == BUSY || code == NOT_AVAILABLE {
            return self.refused(ctx, pending.asked, code, &remark());
        }
        if code == SYSTEM_ERROR && *ctx.read_faults > 0 && pending.asked.reads() {
            self.failed(pending.asked, ctx.model);
            return Ok(());
        }
        match pending.asked {
            Asked::Send(load, generation) => {
                self.sent(ctx, load, generation, pending.at, command, &remark())
            }
            Asked::Pull {
                queue,
                generation,
                from,
                floor,
                begin,
                group,
                mine,
            } => {
                if mine {
                    self.got(&queue);
                }
                if code == NO_GROUP && (!mine || self.may_lack_group(ctx)) {
                    return self.rejoin();
                }
                if generation.is_none() || ctx.model.generation(&queue.0) != generation {
                    return Ok(());
                }
                let asked = (from, floor, begin);
                self.pulled(ctx, &queue, asked, &group, mine, command, &remark())
            }
            Asked::Query {
                queue,
                generation,
                floor,
            } => self.queried(ctx, &queue, generation, floor, command, &remark()),
            Asked::End {
                queue,
                generation,
                floor,
            } => ended(ctx, &queue, generation, floor, command),
            Asked::View { known, physical } => viewed(ctx, known, physical, command),
            Asked::Pop { topic, generation } => {
                if generation.is_none() || ctx.model.generation(&topic) != generation {
                    return Ok(());
                }
                self.popped(ctx, &topic, pending.at, command)
            }
            Asked::PopAck { uid, until_ms } => self.pop_acked(ctx, uid, until_ms, command),
            Asked::PopChange { uid } => self.pop_changed(ctx, uid, command),
            Asked::Sought(asked) => seeker::answered(ctx, asked, pending.at, command),
            Asked::Number(asked) => self.numbers(ctx, asked, command),
            Asked::Join => self.joined(ctx, command, &remark()),
            asked => self.answer_feature(ctx, asked, pending.at, command),
        }
    }

    /// The answer to a request of one of the workloads that have a file of their own.
    fn answer_feature(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: Asked,
        at: u64,
        command: &Command<'_>,
    ) -> Check {
        match asked {
            Asked::Lock => self.locked(ctx, at, command),
            Asked::Lite(asked) => self.lite_answered(ctx, asked, at, command),
            Asked::Move(asked) => self.move_answered(ctx, asked, command),
            Asked::Reply(asked) => self.reply_answered(ctx, asked, at, command),
            Asked::Rank(asked) => self.rank_answered(ctx, asked, command),
            Asked::Split(asked) => self.split_answered(ctx, asked, at, command),
            asked => self.changed(ctx, asked, command.code, &remark_of(command)),
        }
    }

    /// The broker cannot now.
    fn refused(&mut self, ctx: &mut Ctx<'_>, asked: Asked, code: i32, remark: &str) -> Check {
        let failed = ctx.failed.iter().any(Option::is_some) || ctx.excused;
        ensure!(code == BUSY || failed, "code 14 with a good disk: {remark}");
        ctx.counts.refused += 1;
        self.failed(asked, ctx.model);
        Ok(())
    }

    /// A queue was pulled: its next pull may follow.
    fn got(&mut self, queue: &Queue) {
        if let Role::Consumer(consumer) = &mut self.role
            && let Some(place) = consumer.queues.get_mut(queue)
        {
            place.waiting = false;
        }
    }

    /// The answer to a request that changes something.
    fn changed(&mut self, ctx: &mut Ctx<'_>, asked: Asked, code: i32, remark: &str) -> Check {
        match asked {
            Asked::Commit {
                queue,
                generation,
                value,
            } => {
                if code == NO_GROUP && self.may_lack_group(ctx) {
                    return self.rejoin();
                }
                if generation.is_none() || ctx.model.generation(&queue.0) != generation {
                    return Ok(());
                }
                ensure!(code == SUCCESS, "code {code}: {}", remark);
                if let Role::Consumer(consumer) = &self.role {
                    ctx.model
                        .commit_safe(&consumer.group, &queue, value, ctx.now);
                }
                Ok(())
            }
            Asked::Create { topic, queues } => {
                ensure!(code == SUCCESS, "code {code}: {}", remark);
                ctx.model.topic(&topic, Life::Live, queues, ctx.now);
                Ok(())
            }
            Asked::Delete { topic } => {
                ensure!(code == SUCCESS, "code {code}: {}", remark);
                ctx.model.topic(&topic, Life::Gone, 0, ctx.now);
                Ok(())
            }
            Asked::Back { uid, group } => {
                if code == NO_GROUP && self.may_lack_group(ctx) {
                    return self.rejoin();
                }
                let gone = ctx.model.kept_us.is_some() && code == SYSTEM_ERROR;
                if code == FLUSH_TIMEOUT || gone {
                    return Ok(());
                }
                ensure!(code == SUCCESS, "code {code}: {}", remark);
                ctx.model.returned.push((group, uid, ctx.now));
                Ok(())
            }
            Asked::Decide { uid, commit } => {
                let sent = ctx.model.sent.get_mut(&uid).expect("made before");
                // A half that a power cut took, or whose topic is gone, cannot end.
                let known = !ctx.lossy && ctx.model.topics[&sent.topic].generation == 1;
                // Told again, its half may be gone.
                let known = known && (ctx.model.kept_us.is_none() || sent.decisions == 1);
                ensure!(code == SUCCESS || !known, "u{uid}: code {code}: {remark}");
                if commit && code == SUCCESS {
                    sent.acked = Some(ctx.now);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>, remark: &str) -> Check {
        ensure!(command.code == SUCCESS, "code {}: {remark}", command.code);
        if !std::mem::replace(&mut self.online, true)
            && let Some(group) = self.member_of()
        {
            ctx.model.ledger.came(group);
        }
        if let Role::Consumer(consumer) = &mut self.role {
            consumer.joined = true;
            consumer.joined_once = true;
            let retry = format!("%RETRY%{}", consumer.group);
            // With a failed disk the group is not made, and has no retry topic.
            if ctx.failed[0].is_none() || ctx.model.generation(&retry).is_some() {
                ctx.model.topic(&retry, Life::Live, 1, ctx.now);
            }
        }
        Ok(())
    }

    fn may_lack_group(&self, ctx: &Ctx<'_>) -> bool {
        ctx.lossy || ctx.failed[0].is_some()
    }

    fn rejoin(&mut self) -> Check {
        if let Role::Consumer(consumer) = &mut self.role {
            consumer.joined = false;
        }
        Ok(())
    }

    fn sent(
        &mut self,
        ctx: &mut Ctx<'_>,
        load: Load,
        generation: Option<u64>,
        asked_at: u64,
        command: &Command<'_>,
        remark: &str,
    ) -> Check {
        let same = generation.is_some() && ctx.model.generation(&load.topic) == generation;
        if command.code == FLUSH_TIMEOUT {
            ctx.counts.timeouts += 1;
            return Ok(());
        }
        if command.code != SUCCESS {
            ensure!(!same, "code {}: {remark}", command.code);
            return Ok(());
        }
        let ids = command.ext.find("msgId");
        let ids = ids.map_or(String::new(), |text| text.to_string());
        let ids: Vec<_> = ids.split(',').filter_map(OffsetId::parse).collect();
        ensure!(
            ids.len() == load.uids.len(),
            "{} ids for {} messages",
            ids.len(),
            load.uids.len()
        );
        let (shard, _) = LogOffset::from_physical(ids[0].physical_offset).ok_or("a bad id")?;
        let failed = ctx.failed.get(usize::from(shard.0)).copied().flatten();
        // A second try may be told of a message that was safe before.
        ensure!(
            is_guarded(&load.topic) || failed.is_none_or(|failed| failed >= asked_at),
            "acknowledged although the disk of shard {} had failed",
            shard.0
        );
        if !same {
            return Ok(());
        }
        ctx.note_acked(&load);
        if load.level > 0 {
            return Ok(());
        }
        if load.transaction {
            let place = number(command, "queueOffset")?;
            self.half_sent(ctx, load.uids[0], place, ids[0].physical_offset);
            return Ok(());
        }
        ctx.note_put(&load);
        let queue = (load.topic.clone(), number(command, "queueId")? as i32);
        check_queue(&load, queue.1)?;
        let (first, times) = (number(command, "queueOffset")?, (asked_at, ctx.now));
        for (n, uid) in load.uids.iter().enumerate() {
            let physical = ids[n].physical_offset;
            ctx.model
                .acked(&queue, first + n as i64, physical, *uid, times)?;
        }
        if is_urgent(&load.topic) {
            ctx.model.ranks.stored((queue.1, first), load.uids[0])?;
        }
        if is_guarded(&load.topic) && ctx.rng.percent(30) {
            // As if the answer had been lost.
            self.failed(Asked::Send(load, generation), ctx.model);
        }
        Ok(())
    }

    fn half_sent(&mut self, ctx: &mut Ctx<'_>, uid: u64, place: i64, physical: i64) {
        ctx.model.sent.get_mut(&uid).expect("made before").acked = None;
        // The others are asked about.
        if ctx.rng.percent(60) {
            self.decide(ctx, uid, place, physical, false);
        }
    }

    /// The broker asks how a transaction ended.
    fn asked_about(&mut self, ctx: &mut Ctx<'_>, command: &Command<'_>) -> Check {
        let record = RecordView::parse(command.body).map_err(|error| error.to_string())?;
        let uid = uid_of(&record).ok_or("asked about what was never sent")?;
        let sent = ctx.model.sent.get(&uid);
        let sent = sent.filter(|sent| sent.decision.is_some());
        let Some(sent) = sent else {
            return Err(format!("asked about u{uid}, which is no transaction"));
        };
        ensure!(
            record.topic() == sent.topic,
            "asked about u{uid} of {}",
            record.topic()
        );
        let place = number(command, "tranStateTableOffset")?;
        let physical = number(command, "commitLogOffset")?;
        if ctx.rng.percent(70) {
            self.decide(ctx, uid, place, physical, true);
        }
        Ok(())
    }

    fn decide(&mut self, ctx: &mut Ctx<'_>, uid: u64, place: i64, physical: i64, asked: bool) {
        let sent = ctx.model.sent.get_mut(&uid).expect("made before");
        let commit = sent.decision == Some(true);
        sent.committing |= commit;
        sent.decisions += 1;
        let fields = move |w: &mut FrameWriter<'_>| {
            w.field_str("producerGroup", "p");
            w.field_i64("tranStateTableOffset", place);
            w.field_i64("commitLogOffset", physical);
            w.field_i64("commitOrRollback", if commit { COMMIT } else { ROLLBACK });
            w.field_bool("fromTransactionCheck", asked);
            w.field_str("msgId", "m");
        };
        let wants_answer = ctx.rng.percent(60);
        let pending = wants_answer.then_some(Asked::Decide { uid, commit });
        self.ask(ctx, 37, pending, fields, b"");
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    fn pulled(
        &mut self,
        ctx: &mut Ctx<'_>,
        queue: &Queue,
        (from, floor, began): (i64, i64, i64),
        group: &str,
        mine: bool,
        command: &Command<'_>,
        remark: &str,
    ) -> Check {
        let code = command.code;
        match code {
            SUCCESS | PULL_AGAIN if mine && self.sieve(&queue.0).is_some() => {
                return self.sift(ctx, queue, (from, floor), group, command);
            }
            SUCCESS => {}
            PULL_NOT_FOUND => {
                ensure!(
                    floor <= from,
                    "{queue:?}: nothing at {from}, but it ended at {floor}"
                );
                self.set_next(queue, mine, from);
                return Ok(());
            }
            PULL_MOVED if floor < from && ctx.model.was_made_again(&queue.0) => {
                return self.begin_again(ctx, group, queue, mine, floor);
            }
            PULL_MOVED if ctx.model.kept_us.is_some() => {
                let begin = number(command, "nextBeginOffset")?;
                if begin <= from {
                    return Err(out_of_range(queue, from, floor, remark));
                }
                ctx.model.check_begin(queue, began, begin, ctx.now)?;
                self.set_next(queue, mine, begin);
                return Ok(());
            }
            PULL_MOVED => return Err(out_of_range(queue, from, floor, remark)),
            _ => return Err(format!("{queue:?} from {from}: code {code}: {remark}")),
        }
        let (min, max) = (number(command, "minOffset")?, number(command, "maxOffset")?);
        ctx.model.check_begin(queue, began, min, ctx.now)?;
        ctx.model.check_end(queue, floor, max, ctx.now)?;
        let mut next = from;
        let mut physicals = Vec::new();
        for record in RecordView::iter(command.body) {
            let record = record.map_err(|error| format!("{queue:?}: {error}"))?;
            let offset = offset_in(&queue.0, &record)?;
            ensure!(offset == next, "{queue:?}: {offset} follows {next}");
            ctx.model.seen(queue, &record, ctx.now)?;
            if let Some(uid) = uid_of(&record) {
                physicals.push((uid, record.physical_offset(), record.reconsume_times()));
                ctx.model.read(&queue.0, uid, ctx.now);
            }
            next += 1;
        }
        ctx.counts.pulled += (next - from) as u64;
        let (generation, count) = (ctx.model.generation(&queue.0), (next - from) as usize);
        let ledger = &mut ctx.model.ledger;
        ledger.note_got(&queue.0, generation, group, count);
        ensure!(next > from, "{queue:?}: found, but nothing is there");
        let said = number(command, "nextBeginOffset")?;
        ensure!(
            said == next && next <= max,
            "{queue:?}: next {said}, end {max}, got up to {next}"
        );
        if self.set_next(queue, mine, next) {
            self.go_on(ctx, queue, group, next, &physicals)?;
        }
        Ok(())
    }

    /// The answer to a pull that says what it wants.
    fn sift(
        &mut self,
        ctx: &mut Ctx<'_>,
        queue: &Queue,
        from: (i64, i64),
        group: &str,
        command: &Command<'_>,
    ) -> Check {
        let physicals = self.sifted(ctx, queue, from, group, command)?;
        let next = number(command, "nextBeginOffset")?;
        match self.set_next(queue, true, next) {
            true => self.go_on(ctx, queue, group, next, &physicals),
            false => Ok(()),
        }
    }

    /// What a consumer does with messages it got: their numbers, places and attempts.
    fn go_on(
        &mut self,
        ctx: &mut Ctx<'_>,
        queue: &Queue,
        group: &str,
        next: i64,
        physicals: &[(u64, i64, i32)],
    ) -> Check {
        let fresh = matches!(&self.role, Role::Consumer(consumer) if consumer.fresh);
        if fresh {
            return Ok(());
        }
        if ctx.rng.percent(50) {
            self.commit(ctx, group, queue, next);
        }
        if ctx.config.delays && !physicals.is_empty() && ctx.rng.percent(10) {
            let (uid, physical, attempts) = *ctx.rng.pick(physicals);
            if attempts < 3 {
                self.send_back(ctx, group, uid, physical);
            }
        }
        Ok(())
    }

    /// A commit meant for a topic that was deleted may reach its namesake that is made just then;
    /// whoever asks the new one where to begin is told that, and goes back.
    fn begin_again(
        &mut self,
        ctx: &mut Ctx<'_>,
        group: &str,
        queue: &Queue,
        mine: bool,
        floor: i64,
    ) -> Check {
        ctx.model.commits_go_back(group, queue);
        if let Role::Consumer(consumer) = &mut self.role
            && let Some(place) = consumer.queues.get_mut(queue).filter(|_| mine)
        {
            place.next = Some(floor);
        }
        Ok(())
    }

    /// Where to go on. An answer that comes late does not lead back; then this is false.
    pub fn set_next(&mut self, queue: &Queue, mine: bool, next: i64) -> bool {
        if mine
            && let Role::Consumer(consumer) = &mut self.role
            && let Some(place) = consumer.queues.get_mut(queue)
        {
            let late = place.next.is_some_and(|known| next < known);
            place.next = place.next.max(Some(next));
            return !late;
        }
        false
    }

    fn send_back(&mut self, ctx: &mut Ctx<'_>, group: &str, uid: u64, physical: i64) {
        let level = ctx.rng.range(1, 3) as i64;
        let asked = Asked::Back {
            uid,
            group: group.to_owned(),
        };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_i64("offset", physical);
            w.field_str("group", group);
            w.field_i64("delayLevel", level);
            w.field_i64("maxReconsumeTimes", 16);
        };
        self.ask(ctx, 36, Some(asked), fields, b"");
    }

    fn queried(
        &mut self,
        ctx: &mut Ctx<'_>,
        queue: &Queue,
        generation: Option<u64>,
        floor: Option<i64>,
        command: &Command<'_>,
        remark: &str,
    ) -> Check {
        let Role::Consumer(consumer) = &mut self.role else {
            return Ok(());
        };
        let place = consumer.queues.entry(queue.clone()).or_default();
        place.waiting = false;
        if generation.is_none() || ctx.model.generation(&queue.0) != generation {
            return Ok(());
        }
        let value = match command.code {
            SUCCESS => Some(number(command, "offset")?),
            NOT_FOUND => None,
            code => return Err(format!("{queue:?}: code {code}: {remark}")),
        };
        ctx.model
            .check_commit(&consumer.group, queue, floor, value, ctx.now)?;
        place.next = Some(value.unwrap_or(0));
        Ok(())
    }

    pub fn is_fresh(&self) -> bool {
        match &self.role {
            Role::Consumer(consumer) => consumer.fresh,
            Role::Popper(popper) => popper.drains,
            Role::Liter(liter) => liter.drains,
            Role::Mover(mover) => mover.drains,
            Role::Asker(asker) => asker.drains,
            Role::Answerer(answerer) => answerer.drains,
            Role::Ranker(ranker) => ranker.drains,
            _ => false,
        }
    }

    /// Whether a fresh consumer is at the end of every queue.
    pub fn is_through(&self, model: &Model) -> bool {
        let Role::Consumer(consumer) = &self.role else {
            return true;
        };
        model.live().iter().all(|(topic, queues)| {
            (0..*queues).all(|queue| {
                let queue = (topic.clone(), queue);
                let next = consumer.queues.get(&queue).and_then(|place| place.next);
                // A queue without anything need not be there, if the disk failed before it was.
                next.unwrap_or(0) >= model.floor_end(&queue)
            })
        })
    }
}

impl Asked {
    fn name(&self) -> &'static str {
        match self {
            Asked::Send(..) => "send",
            Asked::Pull { .. } => "pull",
            Asked::Query { .. } => "query of an offset",
            Asked::Commit { .. } => "commit",
            Asked::End { .. } => "end of a queue",
            Asked::Create { .. } => "creation",
            Asked::Delete { .. } => "deletion",
            Asked::Back { .. } => "send back",
            Asked::Decide { .. } => "end of a transaction",
            Asked::View { .. } => "view",
            Asked::Pop { .. } => "pop",
            Asked::PopAck { .. } => "acknowledgement of a pop",
            Asked::PopChange { .. } => "change of a lease",
            Asked::Lite(_) => "request about lite topics",
            Asked::Move(asked) => asked.name(),
            Asked::Reply(_) => "request about answers",
            Asked::Rank(_) => "request about priorities",
            Asked::Split(_) => "request of a split group",
            Asked::Sought(_) => "search",
            Asked::Number(_) => "question about numbers",
            Asked::Lock => "lock of queues",
            Asked::Unlock => "unlock of queues",
            Asked::Join => "heartbeat",
            Asked::Other => "another request",
        }
    }

    /// Whether the answer may need the disk.
    fn reads(&self) -> bool {
        matches!(
            self,
            Asked::Pull { .. }
                | Asked::View { .. }
                | Asked::Sought(_)
                | Asked::Number(_)
                | Asked::Pop { .. }
                | Asked::Lite(AskedLite::Pop)
                | Asked::Move(_)
                | Asked::Reply(AskedReply::Pull)
                | Asked::Rank(AskedRank::Pop(_))
                | Asked::Split(AskedSplit::Pull(_))
                | Asked::Back { .. }
                | Asked::Decide { .. }
                | Asked::Other
        )
    }
}

/// A message is in the queue it was sent to, unless its topic has a mind of its own.
fn check_queue(load: &Load, queue: i32) -> Check {
    let chooses = is_guarded(&load.topic) || is_parent(&load.topic) || is_urgent(&load.topic);
    ensure!(
        load.queue < 0 || load.queue == queue || chooses,
        "stored in queue {queue}"
    );
    Ok(())
}

/// Where a queue ends.
fn ended(
    ctx: &mut Ctx<'_>,
    queue: &Queue,
    generation: Option<u64>,
    floor: i64,
    command: &Command<'_>,
) -> Check {
    if generation.is_none() || ctx.model.generation(&queue.0) != generation {
        return Ok(());
    }
    let (code, remark) = (command.code, remark_of(command));
    ensure!(code == SUCCESS, "code {code}: {remark}");
    let end = number(command, "offset")?;
    ctx.model.check_end(queue, floor, end, ctx.now)
}

fn viewed(
    ctx: &mut Ctx<'_>,
    known: Option<(Queue, u64)>,
    physical: i64,
    command: &Command<'_>,
) -> Check {
    let known =
        known.filter(|(queue, generation)| ctx.model.generation(&queue.0) == Some(*generation));
    if command.code != SUCCESS {
        let young = known.filter(|(queue, _)| ctx.model.is_young_at(queue, physical, ctx.now));
        ensure!(young.is_none(), "{physical}: code {}", command.code);
        return Ok(());
    }
    let record = RecordView::parse(command.body).map_err(|error| error.to_string())?;
    ensure!(
        record.physical_offset() == physical,
        "{physical}: another message"
    );
    match known {
        Some((queue, _)) => ctx.model.seen(&queue, &record, ctx.now),
        None => Ok(()),
    }
}

pub fn uid_of(record: &RecordView<'_>) -> Option<u64> {
    let key = orbitmq::message::properties::find_str(record.properties(), "KEYS")?;
    let (own, _) = key.split_once(' ')?;
    own.strip_prefix('u')?.parse().ok()
}

pub fn number(command: &Command<'_>, key: &str) -> Result<i64, String> {
    let value = command.ext.find(key).and_then(|text| text.parse_i64());
    value.ok_or_else(|| format!("no {key} in the answer"))
}

impl Ctx<'_> {
    /// Answers a request of the broker.
    pub fn reply(&mut self, command: &Command<'_>, code: i32, body: &[u8]) {
        let mut frame = Vec::new();
        let (codec, opaque) = (command.codec, command.opaque);
        FrameWriter::response(&mut frame, codec, opaque, code, None).finish_with_body(body);
        self.frames.push(frame);
    }

    pub fn wall_ms(&self) -> i64 {
        WALL_MS + (self.now / 1000) as i64
    }

    /// Makes up a message, unless there are enough.
    pub fn question(&mut self, topic: &str) -> Option<u64> {
        (*self.uids < MESSAGES_MAX).then(|| invent(self, topic, false, false))
    }

    fn note_acked(&mut self, load: &Load) {
        self.counts.acked += load.uids.len() as u64;
        for uid in &load.uids {
            let sent = self.model.sent.get_mut(uid).expect("made before");
            sent.acked = Some(self.now);
        }
    }

    /// Messages were acknowledged that are in their topic now.
    fn note_put(&mut self, load: &Load) {
        let (topic, messages) = (&load.topic, load.uids.len());
        let ledger = &mut self.model.ledger;
        ledger.note_put(topic, load.generation, messages);
    }

    /// A delay level, a timer from [`TIMER`] on, or 0 for none.
    fn delay_level(&mut self, delayed: bool) -> usize {
        match delayed {
            true if self.rng.percent(50) => TIMER + self.rng.below(80) as usize,
            true => self.rng.range(1, 3) as usize,
            false => 0,
        }
    }
}

fn out_of_range(queue: &Queue, from: i64, floor: i64, remark: &str) -> String {
    format!("{queue:?}: {from} is out of range ({remark}), end {floor}")
}

pub fn remark_of(command: &Command<'_>) -> String {
    let remark = command.remark.map(|text| text.to_string());
    remark.unwrap_or_default()
}
