//! Somebody who looks for messages: by key, by unique key and by time. What was acknowledged is
//! found, what is shown is what was sent and stays, and a search by time ends where the store times
//! say.

use std::collections::BTreeSet;

use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::{Command, FrameWriter};

use crate::client::{Asked, Client, Ctx, is_guarded, number, remark_of};
use crate::model::Check;
use crate::options::WALL_MS;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const NOT_FOUND: i32 = 22;
const QUERY_MESSAGE: i32 = 12;
const SEARCH_TIME: i32 = 29;
const EARLIEST: i32 = 32;

/// Messages of an answer by unique key, whatever is asked.
const UNIQUE_MAX: usize = 32;

type Queue = (String, i32);

/// The unique key that a message has, as some clients give none.
pub fn unique_key(topic: &str, uid: u64) -> Option<String> {
    (is_guarded(topic) || !uid.is_multiple_of(5)).then(|| format!("{uid:032X}"))
}

/// The keys of a message: one that only it has, and one of many, sometimes named twice.
pub fn keys(uid: u64) -> String {
    let shared = uid % 3;
    match uid % 7 {
        0 => format!("u{uid} k{shared} k{shared}"),
        _ => format!("u{uid} k{shared}"),
    }
}

/// Whether a message is found by this key.
fn carries(topic: &str, uid: u64, key: &str, unique: bool) -> bool {
    let own = || keys(uid).split(' ').any(|own| own == key);
    unique_key(topic, uid).is_some_and(|own| own == key) || !unique && own()
}

/// What was asked.
pub enum AskedSought {
    Key(KeyAsked),
    Time(TimeAsked),
    Earliest {
        queue: Queue,
        generation: Option<u64>,
    },
}

pub struct KeyAsked {
    topic: String,
    generation: Option<u64>,
    key: String,
    unique: bool,
    /// Store times.
    span: (i64, i64),
    most: usize,
}

pub struct TimeAsked {
    queue: Queue,
    generation: Option<u64>,
    at_ms: i64,
    upper: bool,
    /// Where the queue ended.
    floor: i64,
}

impl Client {
    pub fn seek(&mut self, ctx: &mut Ctx<'_>) {
        if self.waiting_answers() >= 3 {
            return;
        }
        let Some((queue, offset, _)) = ctx.model.any_known(ctx.rng) else {
            return;
        };
        if queue.0.starts_with("%LMQ%") {
            return;
        }
        match ctx.rng.below(10) {
            0..5 => self.seek_known(ctx, queue, offset),
            5 => self.seek_any(ctx),
            6 => {
                let generation = ctx.model.generation(&queue.0);
                let (topic, queue_id) = (queue.0.clone(), i64::from(queue.1));
                let asked = Asked::Sought(AskedSought::Earliest { queue, generation });
                let fields = |w: &mut FrameWriter<'_>| {
                    w.field_str("topic", &topic);
                    w.field_i64("queueId", queue_id);
                };
                self.ask(ctx, EARLIEST, Some(asked), fields, b"");
            }
            _ => self.seek_time(ctx, queue),
        }
    }

    /// A message that lies somewhere.
    fn seek_known(&mut self, ctx: &mut Ctx<'_>, queue: Queue, offset: i64) {
        let Some((_, uid)) = ctx.model.places(&queue, offset..offset + 1).next() else {
            return;
        };
        let stored = ctx.model.store_times(&queue, offset..offset + 1).next();
        let span = match stored {
            Some((_, ms)) if ctx.rng.percent(60) => {
                (ms - ctx.rng.below(3) as i64, ms + ctx.rng.below(3) as i64)
            }
            _ => (0, i64::MAX),
        };
        self.ask_key(ctx, queue.0, uid, span);
    }

    /// A message that may be anywhere, or lost, or was never sent.
    fn seek_any(&mut self, ctx: &mut Ctx<'_>) {
        let uid = 1 + ctx.rng.below(*ctx.uids + 3);
        let topic = ctx.model.sent.get(&uid).map(|sent| sent.topic.clone());
        let topic = topic.unwrap_or("t0".to_owned());
        let span = match ctx.rng.below(3) {
            0 => (0, WALL_MS - 1),
            _ => (0, i64::MAX),
        };
        self.ask_key(ctx, topic, uid, span);
    }

    /// Asks by one of the keys of a message.
    fn ask_key(&mut self, ctx: &mut Ctx<'_>, topic: String, uid: u64, span: (i64, i64)) {
        let unique = unique_key(&topic, uid).filter(|_| ctx.rng.percent(40));
        let forced = unique.is_some() && ctx.rng.percent(50);
        let most = ctx.rng.range(1, 65) as usize;
        let most = if ctx.rng.percent(30) { 1 } else { most };
        let own = match ctx.rng.percent(50) {
            true => format!("u{uid}"),
            false => format!("k{}", uid % 3),
        };
        let asked = KeyAsked {
            generation: ctx.model.generation(&topic),
            topic,
            unique: unique.is_some(),
            key: unique.unwrap_or(own),
            span,
            most: if forced { UNIQUE_MAX } else { most },
        };
        let (topic, key, unique) = (asked.topic.clone(), asked.key.clone(), asked.unique);
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("topic", &topic);
            w.field_str("key", &key);
            w.field_i64("maxNum", most as i64);
            w.field_i64("beginTimestamp", span.0);
            w.field_i64("endTimestamp", span.1);
            match forced {
                true => w.field_bool("_UNIQUE_KEY_QUERY", true),
                false => w.field_str("indexType", if unique { "U" } else { "K" }),
            }
        };
        let asked = Asked::Sought(AskedSought::Key(asked));
        self.ask(ctx, QUERY_MESSAGE, Some(asked), fields, b"");
    }

    fn seek_time(&mut self, ctx: &mut Ctx<'_>, queue: Queue) {
        let floor = ctx.model.floor_end(&queue);
        let times: Vec<_> = ctx.model.store_times(&queue, 0..floor).collect();
        if times.is_empty() {
            return;
        }
        let near = ctx.rng.pick(&times).1 + ctx.rng.below(3) as i64 - 1;
        let at_ms = *ctx.rng.pick(&[near, near, near, near, 0, i64::MAX]);
        let upper = ctx.rng.percent(40);
        let (topic, queue_id) = (queue.0.clone(), i64::from(queue.1));
        let asked = TimeAsked {
            generation: ctx.model.generation(&queue.0),
            queue,
            at_ms,
            upper,
            floor,
        };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("topic", &topic);
            w.field_i64("queueId", queue_id);
            w.field_i64("timestamp", at_ms);
            w.field_str("boundaryType", if upper { "UPPER" } else { "LOWER" });
        };
        let asked = Asked::Sought(AskedSought::Time(asked));
        self.ask(ctx, SEARCH_TIME, Some(asked), fields, b"");
    }
}

pub fn answered(
    ctx: &mut Ctx<'_>,
    asked: AskedSought,
    asked_at: u64,
    command: &Command<'_>,
) -> Check {
    match asked {
        AskedSought::Key(asked) => found(ctx, &asked, asked_at, command),
        AskedSought::Time(asked) => ends(ctx, &asked, command),
        AskedSought::Earliest { queue, generation } => {
            if generation.is_none() || ctx.model.generation(&queue.0) != generation {
                return Ok(());
            }
            let said = number(command, "timestamp")?;
            let first = ctx.model.store_times(&queue, 0..1).next();
            ensure!(
                first.is_none_or(|(_, ms)| ms == said),
                "{queue:?}: the first message is of {said}, was of {first:?}"
            );
            Ok(())
        }
    }
}

/// Messages by a key.
fn found(ctx: &mut Ctx<'_>, asked: &KeyAsked, asked_at: u64, command: &Command<'_>) -> Check {
    let KeyAsked {
        topic, key, span, ..
    } = asked;
    let (unique, code) = (asked.unique, command.code);
    let same = asked.generation.is_some() && ctx.model.generation(topic) == asked.generation;
    let remark = remark_of(command);
    ensure!(
        code == SUCCESS || code == NOT_FOUND,
        "{key}: code {code}: {remark}"
    );
    let span = span.0..=span.1;
    let (mut places, mut last, mut oldest_ms) = (Vec::new(), -1, i64::MAX);
    for record in RecordView::iter(command.body) {
        let record = record.map_err(|error| format!("{key}: {error}"))?;
        ensure!(record.topic() == *topic, "{key}: in {}", record.topic());
        let (physical, ms) = (record.physical_offset(), record.store_timestamp());
        ensure!(span.contains(&ms), "{key}: of {ms}, not in {span:?}");
        ensure!(last < physical, "{key}: {last} comes before {physical}");
        (last, oldest_ms) = (physical, oldest_ms.min(ms));
        let uid = ctx.model.check_content(&record)?;
        ensure!(carries(topic, uid, key, unique), "u{uid} found by {key}");
        let queue = (topic.clone(), record.queue_id());
        places.push((queue.clone(), record.queue_offset()));
        // Of an earlier topic of the name, a later one has nothing.
        if same && asked.generation == Some(1) {
            ctx.model.seen(&queue, &record, ctx.now)?;
        }
    }
    let count = places.len();
    ensure!((code == SUCCESS) == (count > 0), "{key}: code {code}");
    ensure!(count <= asked.most, "{key}: {count} of {}", asked.most);
    if !same {
        return Ok(());
    }
    let places: BTreeSet<_> = places.into_iter().collect();
    for ((queue, offset), uid, ms) in ctx.model.known_before(topic, asked_at) {
        let all = count < asked.most;
        let due = match ms {
            // The newest are given.
            Some(ms) => span.contains(&ms) && (all || ms > oldest_ms),
            None => all && *span.end() == i64::MAX,
        };
        ensure!(
            !due || !carries(topic, uid, key, unique) || places.contains(&(queue.clone(), offset)),
            "u{uid} lies in {queue:?} at {offset}, {key} of {span:?} is at {places:?} only"
        );
    }
    Ok(())
}

/// A search by time, against the store times of what was seen.
fn ends(ctx: &mut Ctx<'_>, asked: &TimeAsked, command: &Command<'_>) -> Check {
    let TimeAsked {
        queue,
        at_ms,
        upper,
        floor,
        ..
    } = asked;
    if asked.generation.is_none() || ctx.model.generation(&queue.0) != asked.generation {
        return Ok(());
    }
    let (code, remark) = (command.code, remark_of(command));
    ensure!(code == SUCCESS, "{queue:?}: code {code}: {remark}");
    let said = number(command, "offset")?;
    // Where a later answer said that the queue ends, a message is there.
    ctx.model.shown_end(queue, said, ctx.now)?;
    for (offset, ms) in ctx.model.store_times(queue, 0..*floor) {
        let fits = match upper {
            // The first one, if none is as old.
            true if offset <= said => ms <= *at_ms || said == 0,
            true => ms > *at_ms,
            false if offset < said => ms < *at_ms,
            false => ms >= *at_ms,
        };
        let side = if *upper { "last until" } else { "first from" };
        ensure!(
            fits,
            "{queue:?}: {said} is the {side} {at_ms}, but {offset} is of {ms}"
        );
    }
    Ok(())
}
