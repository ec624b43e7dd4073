//! Consumers that pop: no message is handed out twice at a time, none comes again once it was
//! acknowledged in time, and none is forgotten.

use std::collections::BTreeMap;

use orbitmq::message::properties;
use orbitmq::message::view::RecordView;
use orbitmq::remoting::command::{Command, FrameWriter};

use crate::client::{Asked, Client, Ctx, Role, number, remark_of, uid_of};
use crate::model::Check;
use crate::options::WALL_MS;
use crate::sifter::Sieve;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

const SUCCESS: i32 = 0;
const NO_MESSAGE: i32 = 208;
const POLLING_FULL: i32 = 209;
const POLLING_TIMEOUT: i32 = 210;

/// What the groups that pop know of messages.
#[derive(Default)]
pub struct Popped {
    by_message: BTreeMap<(String, u64), Known>,
}

#[derive(Default)]
struct Known {
    /// Nobody else may have it before this, wall ms; 0 if that is not known.
    until_ms: i64,
    /// When an acknowledgement was answered that came in time, µs.
    acked: Option<u64>,
    /// It came from its queue first. A crash may store one that lapsed twice.
    first: bool,
    times: u32,
}

impl Popped {
    /// Messages that came to some group.
    pub fn len(&self) -> usize {
        self.by_message.len()
    }

    pub fn has_seen(&self, group: &str, uid: u64) -> bool {
        self.by_message.contains_key(&(group.to_owned(), uid))
    }

    /// A power cut under `ASYNC_FLUSH` may have undone what is younger than `firm`.
    pub fn forget_since(&mut self, firm: u64) {
        for known in self.by_message.values_mut() {
            known.until_ms = 0;
            known.acked = known.acked.filter(|at| *at <= firm);
        }
    }
}

pub struct Popper {
    pub group: String,
    /// Acknowledges everything, for the end of a run.
    pub drains: bool,
    turn: usize,
    /// It wants a part only.
    pub sieve: Option<Sieve>,
}

impl Popper {
    pub fn new(group: String) -> Popper {
        Popper {
            group,
            drains: false,
            turn: 0,
            sieve: None,
        }
    }
}

/// One message in a consumer's hands.
struct Held {
    uid: u64,
    topic: String,
    queue_id: i32,
    offset: i64,
    handle: String,
    until_ms: i64,
}

impl Client {
    pub fn pop(&mut self, ctx: &mut Ctx<'_>) {
        if self.waiting_answers() >= 3 {
            return;
        }
        let Role::Popper(popper) = &mut self.role else {
            return;
        };
        let live = ctx.model.live();
        let topics: Vec<_> = live
            .iter()
            .filter(|(name, _)| !name.starts_with('%'))
            .collect();
        if topics.is_empty() {
            return;
        }
        popper.turn += 1;
        let (topic, queues) = topics[popper.turn % topics.len()].clone();
        let (group, drains) = (popper.group.clone(), popper.drains);
        let expression = popper.sieve.as_ref().map(|sieve| sieve.expression);
        let any = drains || ctx.rng.percent(80);
        let queue = if any {
            -1
        } else {
            ctx.rng.below(queues as u64) as i64
        };
        let poll_ms = if drains { 0 } else { ctx.rng.below(400) as i64 };
        let (most, invisible_ms) = (ctx.rng.range(1, 9) as i64, ctx.rng.range(200, 1_500) as i64);
        let asked = Asked::Pop {
            generation: ctx.model.generation(&topic),
            topic: topic.clone(),
        };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", &group);
            w.field_str("topic", &topic);
            w.field_i64("queueId", queue);
            w.field_i64("maxMsgNums", most);
            w.field_i64("invisibleTime", invisible_ms);
            w.field_i64("pollTime", poll_ms);
            w.field_i64("bornTime", 0);
            w.field_i64("initMode", 0);
            if let Some(expression) = expression {
                w.field_str("expType", "SQL92");
                w.field_str("exp", expression);
            }
        };
        self.ask(ctx, 200_050, Some(asked), fields, b"");
    }

    pub fn popped(
        &mut self,
        ctx: &mut Ctx<'_>,
        topic: &str,
        asked_at: u64,
        command: &Command<'_>,
    ) -> Check {
        match command.code {
            SUCCESS => {}
            POLLING_FULL | POLLING_TIMEOUT => return Ok(()),
            code => return Err(format!("{topic}: code {code}: {}", remark_of(command))),
        }
        let Role::Popper(popper) = &self.role else {
            return Err("popped, but nobody did".to_owned());
        };
        let (group, drains) = (popper.group.clone(), popper.drains);
        let starts = Starts::read(command)?;
        let pop_ms = number(command, "popTime")?;
        let invisible_ms = number(command, "invisibleTime")?;
        let mut count = 0;
        for record in RecordView::iter(command.body) {
            let record = record.map_err(|error| format!("{topic}: {error}"))?;
            let handle = properties::find_str(record.properties(), "POP_CK");
            let handle = match handle {
                Some(handle) => handle.to_owned(),
                None => starts.handle(&record, pop_ms, invisible_ms)?,
            };
            let is_first = handle.split(' ').nth(4) == Some("0");
            if is_first {
                let queue = (topic.to_owned(), record.queue_id());
                ctx.model.seen(&queue, &record, ctx.now)?;
            }
            let uid = uid_of(&record).ok_or("a message without a key")?;
            self.check_wanted(uid)?;
            let until_ms = pop_ms + invisible_ms;
            check(ctx, &group, uid, asked_at, pop_ms)?;
            let held = Held {
                uid,
                topic: match is_first {
                    true => topic.to_owned(),
                    false => format!("%RETRY%{group}_{topic}"),
                },
                queue_id: record.queue_id(),
                offset: record.queue_offset(),
                handle,
                until_ms,
            };
            let known = ctx
                .model
                .popped
                .by_message
                .entry((group.clone(), uid))
                .or_default();
            known.until_ms = until_ms;
            known.acked = None;
            known.first |= known.times == 0 && is_first;
            known.times += 1;
            self.decide_popped(ctx, &group, held, drains);
            count += 1;
        }
        ensure!(count > 0, "{topic}: popped, but nothing is there");
        ctx.counts.pulled += count;
        Ok(())
    }

    /// Nothing comes that the expression of a pop does not want.
    fn check_wanted(&self, uid: u64) -> Check {
        let Role::Popper(Popper {
            sieve: Some(sieve), ..
        }) = &self.role
        else {
            return Ok(());
        };
        let expression = sieve.expression;
        ensure!(
            sieve.wants(uid),
            "u{uid} came, which [{expression}] does not want"
        );
        Ok(())
    }

    fn decide_popped(&mut self, ctx: &mut Ctx<'_>, group: &str, held: Held, drains: bool) {
        let dice = if drains { 0 } else { ctx.rng.below(100) };
        let fields = |w: &mut FrameWriter<'_>| {
            w.field_str("consumerGroup", group);
            w.field_str("topic", &held.topic);
            w.field_i64("queueId", i64::from(held.queue_id));
            w.field_i64("offset", held.offset);
            w.field_str("extraInfo", &held.handle);
            if dice >= 60 {
                w.field_i64("invisibleTime", 300);
            }
        };
        let (uid, until_ms) = (held.uid, held.until_ms);
        match dice {
            0..60 => {
                let asked = Asked::PopAck { uid, until_ms };
                self.ask(ctx, 200_051, Some(asked), fields, b"");
            }
            60..70 => {
                let key = (group.to_owned(), uid);
                ctx.model.popped.by_message.entry(key).or_default().until_ms = 0;
                let asked = Asked::PopChange { uid };
                self.ask(ctx, 200_053, Some(asked), fields, b"");
            }
            // It comes again.
            _ => {}
        }
    }

    /// An acknowledgement was answered.
    pub fn pop_acked(
        &mut self,
        ctx: &mut Ctx<'_>,
        uid: u64,
        until_ms: i64,
        command: &Command<'_>,
    ) -> Check {
        let Role::Popper(popper) = &self.role else {
            return Ok(());
        };
        let sent = &ctx.model.sent[&uid];
        let kept = !ctx.lossy && ctx.model.generation(&sent.topic) == Some(1);
        let (code, remark) = (command.code, remark_of(command));
        // Its message may have gone by its age.
        let gone = ctx.model.kept_us.is_some() && code == NO_MESSAGE;
        ensure!(
            code == SUCCESS || gone || !kept,
            "u{uid}: code {code}: {remark}"
        );
        let in_time = WALL_MS + ((ctx.now / 1000) as i64) < until_ms;
        if code == SUCCESS && in_time {
            let key = (popper.group.clone(), uid);
            let known = ctx.model.popped.by_message.entry(key).or_default();
            if known.until_ms == until_ms {
                known.acked = Some(ctx.now);
            }
        }
        Ok(())
    }

    /// A lease ends at another time.
    pub fn pop_changed(&mut self, ctx: &mut Ctx<'_>, uid: u64, command: &Command<'_>) -> Check {
        let Role::Popper(popper) = &self.role else {
            return Ok(());
        };
        if command.code == SUCCESS {
            let (pop_ms, wait_ms) = (
                number(command, "popTime")?,
                number(command, "invisibleTime")?,
            );
            ensure!(
                wait_ms == 300,
                "u{uid}: invisible for {wait_ms} ms, asked 300"
            );
            ensure!(pop_ms >= WALL_MS, "u{uid}: popped at {pop_ms}");
            let key = (popper.group.clone(), uid);
            ctx.model.popped.by_message.entry(key).or_default();
        }
        Ok(())
    }
}

/// Whether the broker may hand this message out now.
fn check(ctx: &Ctx<'_>, group: &str, uid: u64, asked_at: u64, pop_ms: i64) -> Check {
    let sent = &ctx.model.sent[&uid];
    let once = sent.attempts == 1 && !sent.repeats && sent.decision.is_none();
    let known = ctx.model.popped.by_message.get(&(group.to_owned(), uid));
    let exact = |known: &&Known| once && known.first && known.times == 1;
    let Some(known) = known.filter(exact) else {
        return Ok(());
    };
    if let Some(acked) = known.acked {
        ensure!(
            acked >= asked_at,
            "u{uid} came again to {group}, which had acknowledged it"
        );
    }
    ensure!(
        pop_ms >= known.until_ms,
        "u{uid} was popped by {group} at {pop_ms}, but was leased until {}",
        known.until_ms
    );
    Ok(())
}

/// `startOffsetInfo` and `msgOffsetInfo` of a pop's answer.
pub struct Starts {
    starts: BTreeMap<(String, i32), i64>,
    offsets: BTreeMap<(String, i32), Vec<i64>>,
}

impl Starts {
    pub fn read(command: &Command<'_>) -> Result<Starts, String> {
        let mut found = Starts {
            starts: BTreeMap::new(),
            offsets: BTreeMap::new(),
        };
        for (field, is_start) in [("startOffsetInfo", true), ("msgOffsetInfo", false)] {
            let text = command.ext.find(field).map(|text| text.to_string());
            for one in text.unwrap_or_default().split(';') {
                let parts: Vec<&str> = one.split(' ').collect();
                let [flag, queue, values] = parts[..] else {
                    return Err(format!("{field} [{one}]"));
                };
                let key = (flag.to_owned(), queue.parse().map_err(|_| one.to_owned())?);
                let values: Result<Vec<i64>, _> = values.split(',').map(str::parse).collect();
                let values = values.map_err(|_| format!("{field} [{one}]"))?;
                let twice = match is_start {
                    true => found.starts.insert(key, values[0]).is_some(),
                    false => found.offsets.insert(key, values).is_some(),
                };
                ensure!(!twice, "{field} names a queue twice: {one}");
            }
        }
        Ok(found)
    }

    /// The handle that a client makes of it.
    pub fn handle(
        &self,
        record: &RecordView<'_>,
        pop_ms: i64,
        invisible_ms: i64,
    ) -> Result<String, String> {
        let (queue, offset) = (record.queue_id(), record.queue_offset());
        let key = ("0".to_owned(), queue);
        let offsets = self
            .offsets
            .get(&key)
            .ok_or(format!("no offsets of queue {queue}"))?;
        ensure!(
            offsets.contains(&offset),
            "queue {queue}: {offset} is not said to be there"
        );
        let start = self
            .starts
            .get(&key)
            .ok_or(format!("no start of queue {queue}"))?;
        Ok(format!(
            "{start} {pop_ms} {invisible_ms} 0 0 broker-a {queue} {offset}"
        ))
    }
}
